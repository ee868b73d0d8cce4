package api

import (
	"context"
	"net/http"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	rules "github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db"
)

func describeGrant(g db.GrantView) balance.GrantDocument {
	d := balance.DescribeGrant(&g.Grant, g.Scale, g.Currency, g.ReadAt)
	if len(g.Metadata) > 0 {
		d.Metadata = g.Metadata
	}
	return d
}

// priceInput is what was paid for a grant.
type priceInput struct {
	amount, tax, currency string
	fx                    decimal.Decimal
}

func (p *priceInput) read(r *reader) error {
	return r.fields(
		required("amount", decimalString(&p.amount)),
		optional("tax", decimalString(&p.tax)),
		required("currency", text(&p.currency, 3)),
		optional("fx_rate", rate(&p.fx)),
	)
}

// into gives the price to a grant.
func (p *priceInput) into(g *credit.Grant) error {
	if p.currency == "" {
		return nil
	}
	var err error
	if g.Price, err = credit.ParseMoney(p.amount, p.currency); err != nil {
		return in("/price/amount", err)
	}
	if p.tax != "" {
		tax, err := credit.ParseMoney(p.tax, p.currency)
		if err != nil {
			return in("/price/tax", err)
		}
		g.Tax = tax.Minor
	}
	g.FXRate = p.fx
	return nil
}

// bonusInput is what comes with a purchase under terms of its own.
type bonusInput struct {
	amount, value, purchase string
	likelihood              rules.Rate
	priority                int // -1: the purchase's
	scope                   credit.Scope
	expires                 time.Time
}

func (b *bonusInput) read(r *reader) error {
	var err error
	if b.likelihood, err = rules.NewRate(decimal.New(1, 0)); err != nil {
		return err
	}
	b.priority = -1
	return r.fields(
		required("amount", decimalString(&b.amount)),
		required("value", decimalString(&b.value)),
		optional("likelihood", fraction(&b.likelihood)),
		optional("purchase_value", decimalString(&b.purchase)),
		optional("priority", priority(&b.priority)),
		optional("scope", scope(&b.scope)),
		optional("expires_at", nullable(instant(&b.expires))),
	)
}

// of makes the bonus of a purchase; nil when none was given.
func (b *bonusInput) of(g *credit.Grant, scale int) (*balance.Bonus, error) {
	if b.amount == "" {
		return nil, nil
	}
	if g.Price.Currency == "" {
		return nil, credit.Invalid("/bonus", "A bonus comes with a purchase that has a price.")
	}
	out := &balance.Bonus{Scope: b.scope, Priority: b.priority, ExpiresAt: b.expires}
	if b.priority < 0 {
		out.Priority = g.Priority
	}
	var err error
	if out.Amount, err = positive("/bonus/amount", b.amount, scale); err != nil {
		return nil, err
	}
	value, err := credit.ParseMoney(b.value, g.Price.Currency)
	if err != nil {
		return nil, in("/bonus/value", err)
	}
	out.Value = rules.MaterialRight(value.Minor, b.likelihood)
	if b.purchase != "" {
		if value, err = credit.ParseMoney(b.purchase, g.Price.Currency); err != nil {
			return nil, in("/bonus/purchase_value", err)
		}
		out.PurchaseValue = value.Minor
	}
	return out, nil
}

// createGrant is POST /v1/grants: credits given at once, issued now or, with payment "pending", when the payment has come.
func (s *Server) createGrant(ctx context.Context, c *call) error {
	op := &balance.CreateGrant{Grant: credit.Grant{ID: credit.NewID[credit.GrantID](), Priority: 100, RatePolicy: credit.Floating}}
	g := &op.Grant
	var wallet credit.WalletID
	var amount, member string
	payment := "paid"
	var price priceInput
	var bonus bonusInput
	if err := c.input(
		required("wallet", parsed(&wallet, credit.ParseID[credit.WalletID])),
		required("type", word(&g.Type, credit.Purchased, credit.Granted, credit.Promotional, credit.Concession)),
		required("amount", decimalString(&amount)),
		optional("payment", word(&payment, "paid", "pending")),
		optional("price", price.read),
		optional("bonus", bonus.read),
		optional("payment_ref", text(&g.PaymentRef, 255)),
		optional("priority", priority(&g.Priority)),
		optional("scope", scope(&g.Scope)),
		optional("member", text(&member, 255)),
		optional("effective_at", instant(&g.EffectiveAt)),
		optional("expires_at", nullable(instant(&g.ExpiresAt))),
		optional("rate_policy", word(&g.RatePolicy, credit.Floating, credit.Locked)),
		optional("metadata", metadata(&op.Metadata)),
	); err != nil {
		return err
	}
	w, err := s.store.Wallet(ctx, wallet)
	if err != nil {
		return err
	}
	g.Wallet = &credit.Wallet{ID: wallet}
	if g.Amount, err = positive("/amount", amount, w.Scale); err != nil {
		return err
	}
	if err := price.into(g); err != nil {
		return err
	}
	if op.Bonus, err = bonus.of(g, w.Scale); err != nil {
		return err
	}
	if member != "" {
		if g.MemberID, err = s.memberID(ctx, w.Customer, member); err != nil {
			return in("/member", err)
		}
	}
	op.Pending = payment == "pending"
	if op.Header, err = c.operation(w.Customer, ""); err != nil {
		return err
	}
	return c.do(ctx, http.StatusCreated, op)
}

// getGrant is GET /v1/grants/{grant}.
func (s *Server) getGrant(ctx context.Context, c *call) error {
	id, err := pathID(c, "grant", credit.ParseID[credit.GrantID])
	if err != nil {
		return err
	}
	g, err := s.store.Grant(ctx, id)
	if err != nil {
		return err
	}
	return c.document(describeGrant(g))
}

// listGrants is GET /v1/grants.
func (s *Server) listGrants(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.GrantID], "customer", "wallet", "state")
	if err != nil {
		return err
	}
	var f db.GrantFilter
	if f.Customer, err = c.queryCustomer(ctx, q); err != nil {
		return err
	}
	if f.Wallet, err = queryID(q, "wallet", credit.ParseID[credit.WalletID]); err != nil {
		return err
	}
	state, err := q.oneOf("state", "pending_payment", "allocated", "active", "frozen", "depleted", "expired", "refunded", "voided")
	if err != nil {
		return err
	}
	f.State = credit.State(state)
	rows, err := s.store.GrantPage(ctx, f, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeGrant, func(g db.GrantView) cursor { return afterID(g.ID) })
}

// changeGrant carries out an operation on the grant in the path.
func (s *Server) changeGrant(ctx context.Context, c *call, build func(balance.Header, credit.GrantID) balance.Operation) error {
	sc, err := s.grantScope(ctx, c)
	if err != nil {
		return err
	}
	h, err := c.operation(sc.Customer, sc.Grant.String())
	if err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, build(h, sc.Grant))
}

// issueGrant is POST /v1/grants/{grant}/issue: the payment has come.
func (s *Server) issueGrant(ctx context.Context, c *call) error {
	var ref string
	if err := c.input(optional("payment_ref", text(&ref, 255))); err != nil {
		return err
	}
	return s.changeGrant(ctx, c, func(h balance.Header, g credit.GrantID) balance.Operation {
		return &balance.IssueGrant{Header: h, Grant: g, PaymentRef: ref}
	})
}

// extendGrant is POST /v1/grants/{grant}/extend.
func (s *Server) extendGrant(ctx context.Context, c *call) error {
	var until time.Time
	var reason string
	if err := c.input(required("expires_at", nullable(instant(&until))), required("reason", text(&reason, maxReason))); err != nil {
		return err
	}
	return s.changeGrant(ctx, c, func(h balance.Header, g credit.GrantID) balance.Operation {
		return &balance.ExtendGrant{Header: h, Grant: g, ExpiresAt: until, Reason: reason}
	})
}

// voidGrant is POST /v1/grants/{grant}/void.
func (s *Server) voidGrant(ctx context.Context, c *call) error {
	reason, err := c.reason()
	if err != nil {
		return err
	}
	return s.changeGrant(ctx, c, func(h balance.Header, g credit.GrantID) balance.Operation {
		return &balance.VoidGrant{Header: h, Grant: g, Reason: reason}
	})
}

// freezeGrant is POST /v1/grants/{grant}/freeze, unfreezeGrant lets the grant go on.
func (s *Server) freezeGrant(ctx context.Context, c *call) error {
	return s.freezeOrThaw(ctx, c, false)
}

func (s *Server) unfreezeGrant(ctx context.Context, c *call) error {
	return s.freezeOrThaw(ctx, c, true)
}

func (s *Server) freezeOrThaw(ctx context.Context, c *call, thaw bool) error {
	reason, err := c.reason()
	if err != nil {
		return err
	}
	return s.changeGrant(ctx, c, func(h balance.Header, g credit.GrantID) balance.Operation {
		return &balance.FreezeGrant{Header: h, Grant: g, Thaw: thaw, Reason: reason}
	})
}

// reason reads a body that is only a reason.
func (c *call) reason() (reason string, err error) {
	err = c.input(required("reason", text(&reason, maxReason)))
	return reason, err
}
