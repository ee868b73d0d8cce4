package api

import (
	"context"
	"net/http"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/topup"
	"github.com/tallystick/tallystick/db"
)

// setTopUpRule is PUT /v1/wallets/{wallet}/top_up.
func (s *Server) setTopUpRule(ctx context.Context, c *call) error {
	var threshold, amount, money string
	var price priceInput
	var expiresAfter int
	cooldown, timeout, count := int(topup.DefaultCooldown/time.Second), int(topup.DefaultTimeout/time.Second), topup.DefaultMonthlyCount
	if err := c.input(
		required("threshold", decimalString(&threshold)),
		required("amount", decimalString(&amount)),
		required("price", price.readPlain),
		optional("expires_after_seconds", integer(&expiresAfter, 1, int64(topup.MaxExpiresAfter/time.Second))),
		optional("cooldown_seconds", integer(&cooldown, 0, int64(topup.MaxCooldown/time.Second))),
		optional("timeout_seconds", integer(&timeout, int64(topup.MinTimeout/time.Second), int64(topup.MaxTimeout/time.Second))),
		optional("monthly_count", integer(&count, 1, topup.MaxMonthlyCount)),
		optional("monthly_money", decimalString(&money)),
	); err != nil {
		return err
	}
	id, err := pathWallet(c)
	if err != nil {
		return err
	}
	w, err := s.store.Wallet(ctx, id)
	if err != nil {
		return err
	}
	r := topup.Rule{ExpiresAfter: seconds(expiresAfter), Cooldown: seconds(cooldown), Timeout: seconds(timeout), MonthlyCount: count}
	if r.Threshold, err = positive("/threshold", threshold, w.Scale); err != nil {
		return err
	}
	if r.Amount, err = positive("/amount", amount, w.Scale); err != nil {
		return err
	}
	if r.Price, r.Tax, err = s.priceOf(ctx, w.Customer, &price); err != nil {
		return err
	}
	if money != "" {
		m, err := credit.ParseMoney(money, price.currency)
		if err != nil {
			return in("/monthly_money", err)
		}
		if m.Minor == 0 {
			return credit.Invalid("/monthly_money", "A month must have room for one top-up, tax included.")
		}
		r.MonthlyMoney = m.Minor
	}
	if err := r.Check(); err != nil {
		return err
	}
	return c.change(ctx, "set_top_up_rule", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.SetTopUpRule(ctx, id, w.Customer, r)
		if err != nil {
			return db.Outcome{}, err
		}
		doc := row.Document()
		return changed(id.String(), doc, doc)
	})
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

func pathWallet(c *call) (credit.WalletID, error) {
	return pathID(c, "wallet", credit.ParseID[credit.WalletID])
}

// readPlain reads a price that is in the currency of the books.
func (p *priceInput) readPlain(r *reader) error {
	return r.fields(
		required("amount", decimalString(&p.amount)),
		optional("tax", decimalString(&p.tax)),
		required("currency", text(&p.currency, 3)),
	)
}

// priceOf reads a price and its tax that are paid in the currency of the customer's entity: at which rate a later payment would be converted nobody knows.
func (s *Server) priceOf(ctx context.Context, customer credit.CustomerID, p *priceInput) (credit.Money, int64, error) {
	row, err := s.store.Customer(ctx, customer)
	if err != nil {
		return credit.Money{}, 0, err
	}
	entity, err := s.store.Entity(ctx, row.Entity)
	if err != nil {
		return credit.Money{}, 0, err
	}
	if p.currency != entity.Currency {
		return credit.Money{}, 0, credit.Invalid("/price/currency", "Automatic top-ups are paid in %s, the currency of the customer's entity.", entity.Currency)
	}
	var g credit.Grant
	err = p.into(&g)
	return g.Price, g.Tax, err
}

// getTopUpRule is GET /v1/wallets/{wallet}/top_up.
func (s *Server) getTopUpRule(ctx context.Context, c *call) error {
	id, err := pathWallet(c)
	if err != nil {
		return err
	}
	r, err := s.store.TopUpRule(ctx, id)
	if err != nil {
		return err
	}
	return c.document(r.Document())
}

// dropTopUpRule is DELETE /v1/wallets/{wallet}/top_up.
func (s *Server) dropTopUpRule(ctx context.Context, c *call) error {
	return s.changeTopUpRule(ctx, c, "drop_top_up_rule", (*db.Catalog).DropTopUpRule)
}

// resumeTopUps is POST /v1/wallets/{wallet}/top_up/resume.
func (s *Server) resumeTopUps(ctx context.Context, c *call) error {
	return s.changeTopUpRule(ctx, c, "resume_top_ups", (*db.Catalog).ResumeTopUps)
}

func (s *Server) changeTopUpRule(ctx context.Context, c *call, action string, change func(*db.Catalog, context.Context, credit.WalletID) (db.TopUpRuleRow, error)) error {
	if err := c.input(); err != nil {
		return err
	}
	id, err := pathWallet(c)
	if err != nil {
		return err
	}
	return c.change(ctx, action, id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := change(cat, ctx, id)
		if err != nil {
			return db.Outcome{}, err
		}
		doc := row.Document()
		return changed(id.String(), doc, doc)
	})
}

func pathTopUp(c *call) (credit.TopUpID, error) {
	return pathID(c, "topup", credit.ParseID[credit.TopUpID])
}

// listTopUps is GET /v1/topups.
func (s *Server) listTopUps(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.TopUpID], "customer", "wallet", "status")
	if err != nil {
		return err
	}
	var f db.TopUpFilter
	if f.Customer, err = c.queryCustomer(ctx, q); err != nil {
		return err
	}
	if f.Wallet, err = queryID(q, "wallet", credit.ParseID[credit.WalletID]); err != nil {
		return err
	}
	if f.Status, err = q.oneOf("status", db.TopUpRequested, db.TopUpPaid, db.TopUpSucceeded, db.TopUpFailed, db.TopUpExpired); err != nil {
		return err
	}
	rows, err := s.store.TopUpPage(ctx, f, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, func(t db.TopUpRow) *db.TopUpDocument { return t.Document() }, func(t db.TopUpRow) cursor { return afterID(t.ID) })
}

// getTopUp is GET /v1/topups/{topup}.
func (s *Server) getTopUp(ctx context.Context, c *call) error {
	id, err := pathTopUp(c)
	if err != nil {
		return err
	}
	t, err := s.store.TopUp(ctx, id)
	if err != nil {
		return err
	}
	return c.document(t.Document())
}

// succeedTopUp is POST /v1/topups/{topup}/succeeded.
func (s *Server) succeedTopUp(ctx context.Context, c *call) error {
	var ref string
	if err := c.input(required("payment_ref", text(&ref, 255))); err != nil {
		return err
	}
	return s.decideTopUp(ctx, c, "succeed_top_up", map[string]any{"payment_ref": ref}, func(ctx context.Context, cat *db.Catalog, id credit.TopUpID) (db.TopUpRow, error) {
		return cat.SucceedTopUp(ctx, id, ref)
	})
}

// failTopUp is POST /v1/topups/{topup}/failed.
func (s *Server) failTopUp(ctx context.Context, c *call) error {
	var reason string
	var retry bool
	if err := c.input(required("reason", text(&reason, maxReason)), required("retry", boolean(&retry))); err != nil {
		return err
	}
	return s.decideTopUp(ctx, c, "fail_top_up", map[string]any{"reason": reason, "retry": retry}, func(ctx context.Context, cat *db.Catalog, id credit.TopUpID) (db.TopUpRow, error) {
		return cat.FailTopUp(ctx, id, reason, retry)
	})
}

// decideTopUp writes down the outcome of the payment of the top-up in the path.
func (s *Server) decideTopUp(ctx context.Context, c *call, action string, detail map[string]any,
	decide func(context.Context, *db.Catalog, credit.TopUpID) (db.TopUpRow, error)) error {
	id, err := pathTopUp(c)
	if err != nil {
		return err
	}
	return c.change(ctx, action, id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		t, err := decide(ctx, cat, id)
		if err != nil {
			return db.Outcome{}, err
		}
		o, err := created(id.String(), t.Document(), detail)
		o.Status = http.StatusAccepted
		return o, err
	})
}
