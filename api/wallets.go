package api

import (
	"context"
	"net/http"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

func describeWallet(r db.WalletRow) balance.WalletDocument {
	d := balance.WalletDocument{ID: r.ID, CustomerID: r.Customer, Unit: r.Unit, Name: r.Name, Priority: r.Priority, Scope: r.Scope, Cap: "hard"}
	if d.Scope == nil {
		d.Scope = credit.Scope{}
	}
	if r.SoftCap {
		d.Cap = "soft"
	}
	if !r.Overage.IsZero() {
		d.OverageID = &r.Overage
	}
	if !r.Member.IsZero() {
		d.MemberID = &r.Member
	}
	return d
}

// Priorities of wallets that are given none: a member's own goes before those that it shares.
const (
	sharedPriority = 100
	ownPriority    = 50
)

// createWallet is POST /v1/wallets.
func (s *Server) createWallet(ctx context.Context, c *call) error {
	var customer, overage, price, member string
	limit, drawn := "hard", -1
	op := &balance.CreateWallet{Wallet: credit.Wallet{ID: credit.NewID[credit.WalletID]()}}
	w := &op.Wallet
	if err := c.input(
		required("customer", text(&customer, 255)),
		required("unit", text(&w.Unit, 16)),
		required("name", text(&w.Name, 200)),
		optional("priority", priority(&drawn)),
		optional("member", text(&member, 255)),
		optional("scope", scope(&w.Scope)),
		optional("cap", word(&limit, "hard", "soft")),
		optional("overage_limit", decimalString(&overage)),
		optional("overage_price", decimalString(&price)),
	); err != nil {
		return err
	}
	id, err := s.customerID(ctx, customer)
	if err != nil {
		return in("/customer", err)
	}
	if w.Priority = drawn; drawn < 0 {
		w.Priority = sharedPriority
	}
	if member != "" {
		if w.Member, err = s.memberID(ctx, id, member); err != nil {
			return in("/member", err)
		}
		if drawn < 0 {
			w.Priority = ownPriority
		}
	}
	unit, err := s.service.Unit(w.Unit)
	if err != nil {
		return err
	}
	if w.SoftCap = limit == "soft"; w.SoftCap != (overage != "") || w.SoftCap != (price != "") {
		return credit.Invalid("/cap", "A soft cap, and only that, has an overage_limit and the overage_price of all of it.")
	}
	if w.SoftCap {
		if op.OverageLimit, err = positive("/overage_limit", overage, unit.Scale); err != nil {
			return err
		}
		row, err := s.store.Customer(ctx, id)
		if err != nil {
			return err
		}
		entity, err := s.store.Entity(ctx, row.Entity)
		if err != nil {
			return err
		}
		money, err := credit.ParseMoney(price, entity.Currency)
		if err != nil {
			return in("/overage_price", err)
		}
		op.OveragePrice = money.Minor
	}
	if op.Header, err = c.operation(id, ""); err != nil {
		return err
	}
	return c.do(ctx, http.StatusCreated, op)
}

// positive reads an amount of credits above zero.
func positive(pointer, s string, scale int) (credit.Amount, error) {
	a, err := credit.ParseAmount(s, scale)
	if err == nil && a == 0 {
		err = credit.Errorf(credit.InvalidAmount, "The amount must be positive.")
	}
	return a, in(pointer, err)
}

// updateWallet is PATCH /v1/wallets/{wallet}.
func (s *Server) updateWallet(ctx context.Context, c *call) error {
	op := &balance.UpdateWallet{}
	if err := c.input(
		optional("priority", func(r *reader) error { op.Priority = new(int); return priority(op.Priority)(r) }),
		optional("scope", func(r *reader) error { op.Scope = new(credit.Scope); return scope(op.Scope)(r) }),
	); err != nil {
		return err
	}
	if op.Priority == nil && op.Scope == nil {
		return credit.Invalid("", "Give a priority or a scope.")
	}
	sc, err := s.walletScope(ctx, c)
	if err != nil {
		return err
	}
	op.Wallet = sc.Wallet
	if op.Header, err = c.operation(sc.Customer, sc.Wallet.String()); err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, op)
}

// getWallet is GET /v1/wallets/{wallet}.
func (s *Server) getWallet(ctx context.Context, c *call) error {
	id, err := pathID(c, "wallet", credit.ParseID[credit.WalletID])
	if err != nil {
		return err
	}
	row, err := s.store.Wallet(ctx, id)
	if err != nil {
		return err
	}
	return c.document(describeWallet(row))
}

// listWallets is GET /v1/wallets.
func (s *Server) listWallets(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.WalletID], "customer")
	if err != nil {
		return err
	}
	customer, err := c.queryCustomer(ctx, q)
	if err != nil {
		return err
	}
	rows, err := s.store.WalletPage(ctx, customer, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeWallet, func(r db.WalletRow) cursor { return afterID(r.ID) })
}

// queryCustomer reads the customer that a list is restricted to; the zero id when it is not.
func (c *call) queryCustomer(ctx context.Context, q query) (credit.CustomerID, error) {
	return queryID(q, "customer", func(s string) (credit.CustomerID, error) { return c.customerID(ctx, s) })
}
