package balance

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/provider"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

// maxAge is how old the usage of a consumption may be.
func (o *Consume) maxAge() time.Duration {
	if o.Backfilled {
		return MaxBackfillAge
	}
	return MaxAge
}

// stagedUsage is a consumption as it is kept.
type stagedUsage struct {
	Member     string            `json:"member"`
	Unit       string            `json:"unit"`
	Amount     string            `json:"amount"`
	Reason     string            `json:"reason"`
	Dimensions credit.Dimensions `json:"dimensions"`
	Partial    bool              `json:"partial"`
	Response   *struct {
		Provider string          `json:"provider"`
		Flavour  string          `json:"flavour"`
		Model    string          `json:"model"`
		Usage    json.RawMessage `json:"usage"`
		Body     json.RawMessage `json:"body"`
	} `json:"response"`
	Usage []struct {
		Meter      string            `json:"meter"`
		Quantity   decimal.Decimal   `json:"quantity"`
		Dimensions credit.Dimensions `json:"dimensions"`
		Cost       struct {
			Amount   decimal.Decimal `json:"amount"`
			Currency string          `json:"currency"`
		} `json:"cost"`
	} `json:"usage"`
}

// ReadStaged fills in what an operation consumes from a usage event as it is kept, the body of POST /v1/consume, and returns how it names the member; "": it
// names none. The refusals are unit_not_found and invalid_amount.
func (s *Service) ReadStaged(body string, o *Consume) (member string, err error) {
	var u stagedUsage
	if err := json.Unmarshal([]byte(body), &u); err != nil {
		return "", fmt.Errorf("read staged usage: %w", err)
	}
	o.Dims, o.Partial, o.Reason = u.Dimensions, u.Partial, u.Reason
	if p := u.Response; p != nil {
		o.Response = &provider.Response{Provider: p.Provider, Flavour: p.Flavour, Model: p.Model, Usage: p.Usage, Body: p.Body}
	}
	for _, l := range u.Usage {
		line := rating.Line{Meter: l.Meter, Quantity: l.Quantity, Dims: l.Dimensions}
		if l.Cost.Currency != "" {
			line.Cost = rating.ComputeCost{Amount: l.Cost.Amount, Currency: l.Cost.Currency}
		}
		o.Usage = append(o.Usage, line)
	}
	if o.Response != nil || o.Usage != nil {
		return u.Member, nil
	}
	unit, err := s.Unit(u.Unit)
	if err != nil {
		return u.Member, err
	}
	o.Unit = unit.Code
	if o.Amount, err = credit.ParseAmount(u.Amount, unit.Scale); err == nil && o.Amount == 0 {
		err = credit.Errorf(credit.InvalidAmount, "The amount must be positive.")
	}
	return u.Member, err
}

// Rehearsal decides consumptions of one customer as the lanes would, one after the other, and takes none of them: each sees what those before it would have left.
// It belongs to one goroutine.
type Rehearsal struct {
	lane   *lane
	id     credit.CustomerID
	c      *customer // nil: nothing was decided yet
	before map[credit.WalletID]credit.Amount
}

// Rehearse begins a rehearsal. Whoever begins it closes it.
func (s *Service) Rehearse(customer credit.CustomerID) *Rehearsal {
	return &Rehearsal{lane: newLane(s, nil), id: customer}
}

// Close ends the rehearsal.
func (r *Rehearsal) Close() {
	if r.lane.conn != nil {
		r.lane.conn.Close()
	}
}

// Do decides consumptions, in order, no more than a lane's batch at once: the customer is locked for so long. An error is a fault; then the rehearsal is over.
func (r *Rehearsal) Do(ctx context.Context, ops []*Consume) ([]Result, error) {
	s := r.lane.svc
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Deadline)
	defer cancel()
	out := make([]Result, len(ops))
	jobs := make([]*job, 0, len(ops))
	at := make([]int, 0, len(ops))
	for i, op := range ops {
		j, err := s.prepare(op)
		if err != nil {
			out[i].Err = err
			continue
		}
		jobs, at = append(jobs, j), append(at, i)
	}
	if len(jobs) == 0 {
		return out, nil
	}
	l := r.lane
	if l.conn == nil {
		var err error
		if l.conn, err = s.arbiter.Connect(ctx); err != nil {
			return nil, err
		}
	}
	b := &batch{lane: l, began: time.Now()}
	if err := b.lock(ctx, jobs, false); err != nil {
		return nil, err
	}
	if b.locked.Configuration != s.Books().Ver {
		if err := s.ReloadBook(ctx); err != nil {
			return nil, err
		}
	}
	if r.c != nil {
		b.customers[r.id] = r.c
	} else if r.c = b.customers[r.id]; r.c != nil {
		r.before = r.available()
	}
	if err := b.foresee(ctx, jobs); err != nil {
		return nil, err
	}
	for n, j := range jobs {
		res, err := b.judge(ctx, j)
		if err != nil {
			return nil, err
		}
		out[at[n]] = Result{res.answer, res.err}
	}
	return out, l.conn.Rollback(ctx)
}

// Wallets returns what the customer's wallets had and what they would have left, those from which nothing would be taken too. Overage is not counted.
func (r *Rehearsal) Wallets() []db.BackfillWallet {
	if r.c == nil {
		return nil
	}
	after := r.available()
	out := make([]db.BackfillWallet, 0, len(r.before))
	for id, w := range r.c.wallets {
		out = append(out, db.BackfillWallet{Wallet: id, Unit: w.Unit, Before: r.before[id], After: after[id]})
	}
	return out
}

func (r *Rehearsal) available() map[credit.WalletID]credit.Amount {
	sums := make(map[credit.WalletID]credit.Amount)
	for _, g := range r.c.grants {
		if countsAsAvailable(g, r.c.at) {
			sums[g.Wallet.ID] += g.Available
		}
	}
	return sums
}
