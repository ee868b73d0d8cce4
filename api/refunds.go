package api

import (
	"context"
	"net/http"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// describeRefund tells how a refund stands. Refundable is what could be refunded of its grant now.
func describeRefund(r db.RefundView) balance.RefundDocument {
	at := balance.Instant(r.At)
	d := balance.RefundDocument{ID: &r.ID, CustomerID: r.Customer, GrantID: r.Grant, Units: r.Units.Format(r.Scale), Refundable: r.Left.Format(r.Scale),
		Reason: r.Reason, Status: r.Status, CreatedAt: &at, Settlement: r.SettlementRef, Ver: r.Ver}
	if r.Currency != "" {
		d.Money = balance.Owing{Money: credit.Money{Minor: r.Money, Currency: r.Currency}, Tax: r.Tax}.Document()
	}
	if !r.SettledAt.IsZero() {
		settled := balance.Instant(r.SettledAt)
		d.SettledAt = &settled
	}
	return d
}

// refundInput is how much is to be refunded, and at which rate.
type refundInput struct {
	units  string
	all    bool
	fx     decimal.Decimal
	reason string
}

func (in *refundInput) fields(reason bool) []field {
	fs := []field{
		optional("units", decimalString(&in.units)),
		optional("all", boolean(&in.all)),
		optional("fx_rate", rate(&in.fx)),
	}
	if reason {
		fs = append(fs, required("reason", text(&in.reason, maxReason)))
	}
	return fs
}

// amount returns the units asked for; 0 is all of them.
func (in *refundInput) amount(scale int) (credit.Amount, error) {
	if in.all == (in.units != "") {
		return 0, credit.Invalid("/units", `Give either units or "all": true.`)
	}
	if in.all {
		return 0, nil
	}
	return positive("/units", in.units, scale)
}

// pathGrant reads the grant in the path.
func (s *Server) pathGrant(ctx context.Context, c *call) (db.GrantView, error) {
	id, err := pathID(c, "grant", credit.ParseID[credit.GrantID])
	if err != nil {
		return db.GrantView{}, err
	}
	return s.store.Grant(ctx, id)
}

// refundable is GET /v1/grants/{grant}/refundable: what a refund of everything that is left would pay back.
func (s *Server) refundable(ctx context.Context, c *call) error {
	g, err := s.pathGrant(ctx, c)
	if err != nil {
		return err
	}
	units, err := balance.Refundable(&g.Grant, 0, g.Scale, g.ReadAt)
	if err != nil {
		return c.document(balance.RefundDocument{CustomerID: g.CustomerID, GrantID: g.ID, Units: "0", Refundable: "0"})
	}
	doc, err := s.wouldRefund(ctx, g, units, decimal.Decimal{})
	if err != nil {
		return err
	}
	doc.Refundable = doc.Units
	if doc.Bonus != nil {
		doc.Bonus.Refundable = doc.Bonus.Units
	}
	return c.document(doc)
}

// wouldRefund describes the refund of units of a grant, and of what of its bonus would go with them.
func (s *Server) wouldRefund(ctx context.Context, g db.GrantView, units credit.Amount, rate decimal.Decimal) (*balance.RefundDocument, error) {
	refunded, err := s.store.Refunded(ctx, g.ID)
	if err != nil {
		return nil, err
	}
	owed, err := balance.Owed(&g.Grant, units, refunded, rate, g.Currency)
	if err != nil {
		return nil, err
	}
	doc := &balance.RefundDocument{CustomerID: g.CustomerID, GrantID: g.ID, Units: units.Format(g.Scale), Refundable: (g.Available - units).Format(g.Scale),
		Money: owed.Document()}
	if !g.BonusOf.IsZero() {
		return doc, nil
	}
	bonus, err := s.store.Grant(ctx, balance.BonusID(g.ID))
	switch {
	case credit.CodeOf(err) == credit.GrantNotFound:
		return doc, nil
	case err != nil:
		return nil, err
	}
	if extra := balance.BonusShare(&g.Grant, units, &bonus.Grant, g.ReadAt); extra > 0 {
		doc.Bonus, err = s.wouldRefund(ctx, bonus, extra, rate)
	}
	return doc, err
}

// previewRefund is POST /v1/grants/{grant}/refunds/preview: what a refund would pay back, without refunding.
func (s *Server) previewRefund(ctx context.Context, c *call) error {
	var in refundInput
	if err := c.input(in.fields(false)...); err != nil {
		return err
	}
	g, err := s.pathGrant(ctx, c)
	if err != nil {
		return err
	}
	units, err := in.amount(g.Scale)
	if err != nil {
		return err
	}
	if units, err = balance.Refundable(&g.Grant, units, g.Scale, g.ReadAt); err != nil {
		return err
	}
	doc, err := s.wouldRefund(ctx, g, units, in.fx)
	if err != nil {
		return err
	}
	return c.document(doc)
}

// createRefund is POST /v1/grants/{grant}/refunds.
func (s *Server) createRefund(ctx context.Context, c *call) error {
	var in refundInput
	if err := c.input(in.fields(true)...); err != nil {
		return err
	}
	g, err := s.pathGrant(ctx, c)
	if err != nil {
		return err
	}
	op := &balance.RefundGrant{Refund: credit.NewID[credit.RefundID](), Grant: g.ID, FXRate: in.fx, Reason: in.reason}
	if op.Units, err = in.amount(g.Scale); err != nil {
		return err
	}
	if op.Header, err = c.operation(g.CustomerID, g.ID.String()); err != nil {
		return err
	}
	return c.do(ctx, http.StatusCreated, op)
}

// getRefund is GET /v1/refunds/{refund}.
func (s *Server) getRefund(ctx context.Context, c *call) error {
	id, err := pathID(c, "refund", credit.ParseID[credit.RefundID])
	if err != nil {
		return err
	}
	r, err := s.store.Refund(ctx, id)
	if err != nil {
		return err
	}
	return c.document(describeRefund(r))
}

// listRefunds is GET /v1/refunds.
func (s *Server) listRefunds(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.RefundID], "customer", "grant", "status")
	if err != nil {
		return err
	}
	var f db.RefundFilter
	if f.Customer, err = c.queryCustomer(ctx, q); err != nil {
		return err
	}
	if f.Grant, err = queryID(q, "grant", credit.ParseID[credit.GrantID]); err != nil {
		return err
	}
	if f.Status, err = q.oneOf("status", "awaiting_settlement", "settled", "nothing_to_pay"); err != nil {
		return err
	}
	rows, err := s.store.RefundPage(ctx, f, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeRefund, func(r db.RefundView) cursor { return afterID(r.ID) })
}
