package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

// maxHoldSeconds bounds how long a hold lasts.
const maxHoldSeconds = int64(balance.MaxHold / time.Second)

// createHold is POST /v1/holds: a consumption that is only set aside.
func (s *Server) createHold(ctx context.Context, c *call) error {
	key, err := c.key()
	if err != nil {
		return err
	}
	var r reader
	in := consumption{holding: true}
	if err := in.readBody(c, &r); err != nil {
		return err
	}
	switch {
	case in.expiresIn == 0:
		return credit.Invalid("/expires_in", "This field is required.")
	case in.response != nil:
		return credit.Invalid("/response", "What is not known yet is held as an amount or a usage.")
	case in.unpriced != "":
		return credit.Invalid("/on_unpriced", "What cannot be priced cannot be held.")
	case in.partial:
		return credit.Invalid("/partial", "A hold is all or nothing.")
	}
	op, err := s.consumeOperation(ctx, c, &r, &in, key)
	if err != nil {
		return err
	}
	if in.size == sizeSuggested {
		op.Request = balance.RequestDigest("suggested", string(op.Request[:])) // of what was asked, which is the same when the suggestion is another
		if err := s.sizeHold(ctx, op); err != nil {
			return err
		}
	}
	op.Request = balance.RequestDigest("hold", string(op.Request[:]), strconv.Itoa(in.expiresIn))
	return c.do(ctx, http.StatusCreated, &balance.Hold{Consume: *op, Hold: credit.NewID[credit.HoldID](), For: time.Duration(in.expiresIn) * time.Second})
}

// Sizes of holds.
const (
	sizeStated    = "stated"
	sizeSuggested = "suggested"
)

// sizeHold makes the amount of a hold what usages like it need as a rule; what was asked for is the most.
func (s *Server) sizeHold(ctx context.Context, op *balance.Consume) error {
	if op.Amount == 0 {
		return credit.Invalid("/size", "The size of an amount can be suggested, not that of a usage: give unit and amount, which is the most that is held.")
	}
	n, _, _, err := s.suggest(ctx, op.Customer, op.Dims["model"], op.Unit, holdQuantile)
	if n > 0 {
		op.Amount = min(op.Amount, credit.Amount(n))
	}
	return err
}

// holdChange is how much is added to a hold or captured of it.
type holdChange struct {
	amount string
	usage  consumption
}

func (in *holdChange) fields(more ...field) []field {
	return append(more, optional("amount", decimalString(&in.amount)), optional("usage", in.usage.readUsage))
}

// read returns the amount in steps, or the usage.
func (in *holdChange) read(scale int) (credit.Amount, []rating.Line, error) {
	switch {
	case in.amount != "" && in.usage.usage != nil:
		return 0, nil, credit.Invalid("/amount", "Give an amount or a usage, not both.")
	case in.amount == "":
		return 0, in.usage.usage, nil
	}
	n, err := credit.ParseAmount(in.amount, scale)
	return n, nil, below("/amount", err)
}

// pathHold reads the hold in the path.
func (s *Server) pathHold(ctx context.Context, c *call) (*credit.Hold, int, error) {
	id, err := pathID(c, "hold", credit.ParseID[credit.HoldID])
	if err != nil {
		return nil, 0, err
	}
	h, err := s.store.Hold(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	unit, err := s.service.Unit(h.Unit)
	return h, unit.Scale, err
}

// extendHold is POST /v1/holds/{hold}/extend: more credits, more time, or both.
func (s *Server) extendHold(ctx context.Context, c *call) error {
	var in holdChange
	seconds := 0
	if err := c.input(in.fields(optional("expires_in", integer(&seconds, 1, maxHoldSeconds)))...); err != nil {
		return err
	}
	return s.changeHold(ctx, c, func(h balance.Header, id credit.HoldID, scale int) (balance.Operation, error) {
		amount, usage, err := in.read(scale)
		return &balance.ExtendHold{Header: h, Hold: id, Amount: amount, Usage: usage, For: time.Duration(seconds) * time.Second}, err
	})
}

// captureHold is POST /v1/holds/{hold}/capture: held credits are consumed.
func (s *Server) captureHold(ctx context.Context, c *call) error {
	var in holdChange
	var over, reason string
	final := true
	policies := map[string]bool{"": true, string(balance.CaptureReject): true, string(balance.CaptureIfAvailable): true, string(balance.CaptureOverage): true}
	if err := c.input(in.fields(optional("final", boolean(&final)), optional("reason", text(&reason, maxReason)), optional("over", func(r *reader) (err error) {
		if over, err = r.text(); err == nil && !policies[over] {
			err = r.refuse("This is one of reject, if_available and overage.")
		}
		return err
	}))...); err != nil {
		return err
	}
	if in.amount == "" && in.usage.usage == nil {
		return credit.Invalid("/amount", "Give the amount or the usage to capture.")
	}
	return s.changeHold(ctx, c, func(h balance.Header, id credit.HoldID, scale int) (balance.Operation, error) {
		amount, usage, err := in.read(scale)
		return &balance.CaptureHold{Header: h, Hold: id, Amount: amount, Usage: usage, More: !final, Over: balance.CapturePolicy(over), Reason: reason}, err
	})
}

// releaseHold is POST /v1/holds/{hold}/release: what is held goes back.
func (s *Server) releaseHold(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	return s.changeHold(ctx, c, func(h balance.Header, id credit.HoldID, _ int) (balance.Operation, error) {
		return &balance.ReleaseHold{Header: h, Hold: id}, nil
	})
}

func (s *Server) changeHold(ctx context.Context, c *call, build func(balance.Header, credit.HoldID, int) (balance.Operation, error)) error {
	hold, scale, err := s.pathHold(ctx, c)
	if err != nil {
		return err
	}
	h, err := c.operation(hold.CustomerID, hold.ID.String())
	if err != nil {
		return err
	}
	op, err := build(h, hold.ID, scale)
	if err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, op)
}

// getHold is GET /v1/holds/{hold}.
func (s *Server) getHold(ctx context.Context, c *call) error {
	h, scale, err := s.pathHold(ctx, c)
	if err != nil {
		return err
	}
	return c.document(balance.DescribeHold(h, scale))
}

// listHolds is GET /v1/holds.
func (s *Server) listHolds(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.HoldID], "customer", "wallet", "status")
	if err != nil {
		return err
	}
	var f db.HoldFilter
	if f.Customer, err = c.queryCustomer(ctx, q); err != nil {
		return err
	}
	if f.Wallet, err = queryID(q, "wallet", credit.ParseID[credit.WalletID]); err != nil {
		return err
	}
	status, err := q.oneOf("status", string(credit.HoldOpen), string(credit.HoldCaptured), string(credit.HoldReleased), string(credit.HoldExpired))
	if err != nil {
		return err
	}
	f.Status = credit.HoldStatus(status)
	rows, err := s.store.HoldPage(ctx, f, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, func(h *credit.Hold) balance.HoldDocument {
		unit, _ := s.service.Unit(h.Unit) // it was known when the hold was made
		return balance.DescribeHold(h, unit.Scale)
	}, func(h *credit.Hold) cursor { return afterID(h.ID) })
}
