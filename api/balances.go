package api

import (
	"context"
	"net/http"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// balances is GET /v1/customers/{customer}/balances: from the cache, or with consistency=strong in order with all operations.
func (s *Server) balances(ctx context.Context, c *call) error {
	q, err := c.query("consistency")
	if err != nil {
		return err
	}
	consistency, err := q.oneOf("consistency", "advisory", "strong")
	if err != nil {
		return err
	}
	customer, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	if consistency == "strong" {
		return c.do(ctx, http.StatusOK, &balance.ReadBalance{Header: balance.Header{Customer: customer, Actor: c.caller.no, RequestID: c.id}})
	}
	buf := buffers.get()
	defer buffers.put(buf)
	if *buf, err = s.service.AppendBalance(ctx, *buf, customer); err != nil {
		return err
	}
	c.write(http.StatusOK, *buf)
	return nil
}

// pastBalance is what could be used at an instant.
type pastBalance struct {
	CustomerID credit.CustomerID     `json:"customer_id"`
	WalletID   *credit.WalletID      `json:"wallet_id,omitempty"`
	GrantID    *credit.GrantID       `json:"grant_id,omitempty"`
	At         string                `json:"at"`
	Ver        int64                 `json:"ver"` // the customer's version then; 0: before the first operation
	Units      []balance.UnitBalance `json:"units"`
}

func (s *Server) customerBalanceAt(ctx context.Context, c *call) error {
	return s.balanceAt(ctx, c, s.customerScope)
}

func (s *Server) walletBalanceAt(ctx context.Context, c *call) error {
	return s.balanceAt(ctx, c, s.walletScope)
}

func (s *Server) grantBalanceAt(ctx context.Context, c *call) error {
	return s.balanceAt(ctx, c, s.grantScope)
}

// balanceAt is GET …/balance?at=: what the scope could have used at an instant that has passed.
func (s *Server) balanceAt(ctx context.Context, c *call, scopeOf func(context.Context, *call) (db.Scope, error)) error {
	q, err := c.query("at")
	if err != nil {
		return err
	}
	at, err := q.instant("at")
	if err != nil {
		return err
	}
	now := time.Now()
	if at.IsZero() {
		at = now.UTC().Truncate(time.Microsecond)
	}
	if at.After(now) {
		return credit.Errorf(credit.InFuture, "The balance at an instant is known once it has passed.")
	}
	sc, err := scopeOf(ctx, c)
	if err != nil {
		return err
	}
	ver, wallets, err := s.store.BalanceAt(ctx, sc, at)
	if err != nil {
		return err
	}
	doc := pastBalance{CustomerID: sc.Customer, At: instantText(at), Ver: ver, Units: unitBalances(wallets)}
	if !sc.Wallet.IsZero() {
		doc.WalletID = &sc.Wallet
	}
	if !sc.Grant.IsZero() {
		doc.GrantID = &sc.Grant
	}
	return c.document(doc)
}

// unitBalances groups wallets, which come in order of unit.
func unitBalances(wallets []db.WalletAvailable) []balance.UnitBalance {
	units := []balance.UnitBalance{}
	var sum credit.Amount
	for i, w := range wallets {
		if i == 0 || w.Unit != wallets[i-1].Unit {
			units, sum = append(units, balance.UnitBalance{Unit: w.Unit}), 0
		}
		u := &units[len(units)-1]
		sum += w.Available
		u.Available = sum.Format(w.Scale)
		u.Wallets = append(u.Wallets, balance.WalletBalance{WalletID: w.Wallet, Available: w.Available.Format(w.Scale)})
	}
	return units
}

// The scopes that the path names.

func (s *Server) customerScope(ctx context.Context, c *call) (db.Scope, error) {
	id, err := c.pathCustomer(ctx)
	return db.Scope{Customer: id}, err
}

func (s *Server) walletScope(ctx context.Context, c *call) (db.Scope, error) {
	id, err := pathID(c, "wallet", credit.ParseID[credit.WalletID])
	if err != nil {
		return db.Scope{}, err
	}
	w, err := s.store.Wallet(ctx, id)
	return db.Scope{Customer: w.Customer, Wallet: id, Unit: credit.Unit{Code: w.Unit, Scale: w.Scale}}, err
}

func (s *Server) grantScope(ctx context.Context, c *call) (db.Scope, error) {
	id, err := pathID(c, "grant", credit.ParseID[credit.GrantID])
	if err != nil {
		return db.Scope{}, err
	}
	g, err := s.store.Grant(ctx, id)
	if err != nil {
		return db.Scope{}, err
	}
	return db.Scope{Customer: g.CustomerID, Grant: id, Unit: credit.Unit{Code: g.Wallet.Unit, Scale: g.Scale}}, nil
}
