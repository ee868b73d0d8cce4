package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
)

// pathVersion reads which of a customer's operations the path names.
func (c *call) pathVersion() (int64, error) {
	return pathID(c, "ver", func(s string) (int64, error) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 1 {
			return 0, credit.Errorf(credit.InvalidID, "%.40q is not the version of an operation.", s)
		}
		return n, nil
	})
}

// correctOperation is POST /v1/operations/{customer}/{ver}/corrections: what was consumed is undone, in whole or in part.
func (s *Server) correctOperation(ctx context.Context, c *call) error {
	op := &balance.Correct{}
	var units, amount string
	var usage consumption
	var reissue balance.Reissue
	if err := c.input(
		optional("all", boolean(&op.All)),
		optional("units", decimalString(&units)),
		optional("amount", decimalString(&amount)),
		optional("usage", usage.readUsage),
		optional("reissue", func(r *reader) error {
			op.Reissue = &reissue
			return r.fields(required("expires_at", nullable(instant(&reissue.ExpiresAt))))
		}),
		required("reason", text(&op.Reason, maxReason)),
	); err != nil {
		return err
	}
	customer, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	if op.Ver, err = c.pathVersion(); err != nil {
		return err
	}
	given := 0
	for _, is := range []bool{op.All, units != "", amount != "", usage.usage != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return credit.Invalid("/units", `Give one of "all": true, units, amount and usage.`)
	}
	l, err := s.store.Operation(ctx, customer, op.Ver)
	if err != nil {
		return err
	}
	switch {
	case units != "":
		op.Units, err = positive("/units", units, l.Scale)
	case amount != "":
		var n credit.Amount
		n, err = credit.ParseAmount(amount, l.Scale)
		op.To, err = &n, in("/amount", err)
	default:
		op.Usage = usage.usage
	}
	if err != nil {
		return err
	}
	if op.Header, err = c.operation(customer, strconv.FormatInt(op.Ver, 10)); err != nil {
		return err
	}
	return c.do(ctx, http.StatusCreated, op)
}

// decrementGrant is POST /v1/grants/{grant}/decrement: support takes credits away.
func (s *Server) decrementGrant(ctx context.Context, c *call) error {
	var in taking
	if err := c.input(in.fields()...); err != nil {
		return err
	}
	g, err := s.pathGrant(ctx, c)
	if err != nil {
		return err
	}
	op := &balance.DecrementGrant{Grant: g.ID, Reason: in.reason}
	if op.Units, err = in.amount(g.Scale); err != nil {
		return err
	}
	if op.Header, err = c.operation(g.CustomerID, g.ID.String()); err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, op)
}

// taking is how much is taken, and why.
type taking struct {
	refundInput
}

func (in *taking) fields(more ...field) []field {
	return append(more, optional("units", decimalString(&in.units)), optional("all", boolean(&in.all)), required("reason", text(&in.reason, maxReason)))
}

// createTransfer is POST /v1/transfers: credits become another wallet's.
func (s *Server) createTransfer(ctx context.Context, c *call) error {
	var in taking
	op := &balance.Transfer{}
	var grant credit.GrantID
	if err := c.input(in.fields(
		required("from", parsed(&op.From, credit.ParseID[credit.WalletID])),
		required("to", parsed(&op.To, credit.ParseID[credit.WalletID])),
		optional("grant", parsed(&grant, credit.ParseID[credit.GrantID])),
	)...); err != nil {
		return err
	}
	from, err := s.store.Wallet(ctx, op.From)
	if err != nil {
		return err
	}
	to, err := s.store.Wallet(ctx, op.To)
	if err != nil {
		return err
	}
	if op.Units, err = in.amount(from.Scale); err != nil {
		return err
	}
	op.ToCustomer, op.Grant, op.Reason = to.Customer, grant, in.reason
	if op.Header, err = c.operation(from.Customer, ""); err != nil {
		return err
	}
	return c.do(ctx, http.StatusCreated, op)
}
