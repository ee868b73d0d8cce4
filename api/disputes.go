package api

import (
	"context"
	"net/http"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// recordDispute is POST /v1/disputes: what the payment provider says about a disputed payment. Its first message makes the dispute.
func (s *Server) recordDispute(ctx context.Context, c *call) error {
	op := &balance.Dispute{}
	var amount, fee, currency string
	if err := c.input(
		required("reference", text(&op.Reference, 255)),
		required("grant", parsed(&op.Grant, credit.ParseID[credit.GrantID])),
		required("status", word(&op.Status, db.DisputeOpen, db.DisputeWon, db.DisputeLost)),
		required("amount", decimalString(&amount)),
		optional("fee", decimalString(&fee)),
		required("currency", text(&currency, 3)),
		required("reason", text(&op.Reason, maxReason)),
	); err != nil {
		return err
	}
	g, err := s.store.Grant(ctx, op.Grant)
	if err != nil {
		return err
	}
	if g.Price.Currency != "" && g.Price.Currency != currency {
		return credit.Invalid("/currency", "The grant was paid in %s.", g.Price.Currency)
	}
	money, err := credit.ParseMoney(amount, currency)
	if err != nil {
		return in("/amount", err)
	}
	if op.Amount = money.Minor; op.Amount == 0 {
		return in("/amount", credit.Errorf(credit.InvalidAmount, "The amount must be positive."))
	}
	if fee != "" {
		if money, err = credit.ParseMoney(fee, currency); err != nil {
			return in("/fee", err)
		}
		op.Fee = money.Minor
	}
	if op.Header, err = c.operation(g.CustomerID, g.ID.String()); err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, op)
}

// getDispute is GET /v1/disputes/{dispute}.
func (s *Server) getDispute(ctx context.Context, c *call) error {
	id, err := pathID(c, "dispute", credit.ParseID[credit.DisputeID])
	if err != nil {
		return err
	}
	r, err := s.store.Dispute(ctx, id)
	if err != nil {
		return err
	}
	return c.document(balance.DescribeDispute(r))
}

// listDisputes is GET /v1/disputes.
func (s *Server) listDisputes(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.DisputeID], "customer", "grant", "status")
	if err != nil {
		return err
	}
	var f db.DisputeFilter
	if f.Customer, err = c.queryCustomer(ctx, q); err != nil {
		return err
	}
	if f.Grant, err = queryID(q, "grant", credit.ParseID[credit.GrantID]); err != nil {
		return err
	}
	status, err := q.oneOf("status", string(db.DisputeOpen), string(db.DisputeWon), string(db.DisputeLost))
	if err != nil {
		return err
	}
	f.Status = db.DisputeStatus(status)
	rows, err := s.store.DisputePage(ctx, f, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, balance.DescribeDispute, func(r db.DisputeRow) cursor { return afterID(r.ID) })
}
