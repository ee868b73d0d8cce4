package balance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

func transfer(w *balancetest.World, c credit.CustomerID, from credit.WalletID, to credit.CustomerID, wallet credit.WalletID, n credit.Amount) *balance.Transfer {
	return &balance.Transfer{Header: balance.Header{Customer: c, Key: w.Key()}, From: from, To: wallet, ToCustomer: to, Units: n, Reason: "asked"}
}

// What moves keeps class, price, expiry, scope and date of purchase; no revenue comes of it; the parts of a price make the price.
func TestATransferCarriesWhatCreditsAre(t *testing.T) {
	w := balancetest.New(t)
	a, from := w.Customer(t)
	b, to := w.Customer(t)
	year := time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Microsecond)
	promo := w.Grant(t, a, from, 30*one, func(o *balance.CreateGrant) { o.Grant.Type, o.Grant.Priority = credit.Promotional, 1 })
	paid := w.Grant(t, a, from, 70*one, bought(1000), func(o *balance.CreateGrant) {
		o.Grant.Tax, o.Grant.ExpiresAt, o.Grant.Scope, o.Grant.PaymentRef = 80, year, credit.Scope{"model": {"large"}}, "pay-1"
		o.Grant.Priority = 2
	})
	w.Grant(t, a, from, 5*one, func(o *balance.CreateGrant) { o.Grant.MemberID, o.Grant.Priority = w.Member(t, a), 0 })
	use := w.Consume(a, 10*one)
	use.Dims = credit.Dimensions{"model": "large"}
	w.Do(t, use) // of the scoped one
	op := transfer(w, a, from, b, to, 63*one)
	var d balance.TransferDocument
	answer := w.Do(t, op)
	if err := json.Unmarshal(answer.Body, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Grants) != 2 || d.Grants[0].FromGrantID != paid || d.Grants[0].Amount != "60" || d.Grants[1].FromGrantID != promo || d.Grants[1].Amount != "3" || d.Amount != "63" {
		t.Fatalf("%+v", d)
	}
	again := *op
	if r := w.Do(t, &again); !r.Replayed || string(r.Body) != string(answer.Body) {
		t.Errorf("%s", r.Body)
	}
	was, got, gift := w.View(t, paid), w.View(t, d.Grants[0].GrantID), w.View(t, d.Grants[1].GrantID)
	if got.Type != credit.Purchased || got.CustomerID != b || got.Wallet.ID != to || got.Basis != 858 || got.Price.Minor != 858 || got.Tax != 69 || !got.ExpiresAt.Equal(year) ||
		!got.IssuedAt.Equal(was.IssuedAt) || !got.EffectiveAt.Equal(was.EffectiveAt) || got.Scope["model"][0] != "large" || got.PaymentRef != "pay-1" || got.From != paid {
		t.Errorf("%+v", got)
	}
	if was.Transferred != 60*one || was.Available != 0 || was.Status != credit.StatusDepleted || gift.Type != credit.Promotional || gift.Basis != 0 {
		t.Errorf("%+v, %+v", was, gift)
	}
	w.Do(t, &balance.RefundGrant{Header: balance.Header{Customer: b, Key: w.Key()}, Refund: credit.NewID[credit.RefundID](), Grant: got.ID, Reason: "asked"})
	sameText(t, "of the one", journal(t, w, a), `
purchase: dr 1020 10.80 cr 2010 10.00 cr 2030 0.80
recognition: dr 2010 1.42 cr 4010 1.42 large
transfer: dr 2010 8.58 cr 2011 8.58`)
	mid, err := w.Store.TrialBalance(context.Background(), "main", db.Span{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range mid.Accounts {
		if x.Account == 2011 && x.Credit-x.Debit != 858 {
			t.Errorf("between the books of both: %+v", x)
		}
	}
	mustVerify(t, w) // also while only one side is posted
	sameText(t, "of the other", journal(t, w, b), `
transfer: dr 2011 8.58 cr 2010 8.58
refund: dr 2010 8.58 dr 2030 0.69 cr 2020 9.27`)
	mustVerify(t, w, a, b)
}

func TestATransferIsRefused(t *testing.T) {
	w := balancetest.New(t)
	a, from := w.Customer(t)
	b, to := w.Customer(t)
	g := w.Grant(t, a, from, 30*one)
	w.Do(t, hold(w, a, 10*one, time.Minute))
	refused(t, w, transfer(w, a, from, b, to, 21*one), credit.InsufficientCredits)
	refused(t, w, transfer(w, a, from, a, from, one), credit.InvalidRequest)
	refused(t, w, transfer(w, a, to, b, to, one), credit.WalletNotFound)
	refused(t, w, transfer(w, a, from, b, from, one), credit.WalletNotFound)
	refused(t, w, transfer(w, a, from, credit.NewID[credit.CustomerID](), to, one), credit.WalletNotFound)
	frozen := transfer(w, a, from, b, to, one)
	w.Do(t, &balance.FreezeGrant{Header: balance.Header{Customer: a, Key: w.Key()}, Grant: g, Reason: "look"})
	frozen.Grant = g
	refused(t, w, frozen, credit.GrantState)
	refused(t, w, transfer(w, a, from, b, to, one), credit.InsufficientCredits)
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := w.Store.Pool.Exec(context.Background(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec("INSERT INTO legal_entities (code, name, currency) VALUES ('other', 'Other', 'USD')")
	far, farWallet := credit.NewID[credit.CustomerID](), credit.NewID[credit.WalletID]()
	exec("INSERT INTO customers (id, entity, name) VALUES ($1, 'other', 'Far')", [16]byte(far))
	exec("INSERT INTO customer_heads (customer_id) VALUES ($1)", [16]byte(far))
	w.Wallet(t, far, func(o *balance.CreateWallet) { o.Wallet.ID = farWallet })
	w.Grant(t, a, from, 30*one)
	refused(t, w, transfer(w, a, from, far, farWallet, one), credit.InvalidRequest)
	exec("UPDATE customer_heads SET frozen = true WHERE customer_id = $1", [16]byte(b))
	refused(t, w, transfer(w, a, from, b, to, one), credit.CustomerFrozen)
	mustVerify(t, w, a)
}

// 20 customers in a ring, transfers in both directions by 50 workers of two processes: no credit and no minor unit is lost or made, and nobody hears of
// a deadlock.
func TestTransfersInARing(t *testing.T) {
	w := balancetest.New(t)
	services := []*balance.Service{w.Service, w.Start(t, balance.Config{Lanes: 3})}
	const customers, workers, each = 20, 50, 8
	ids, wallets := make([]credit.CustomerID, customers), make([]credit.WalletID, customers)
	for i := range ids {
		ids[i], wallets[i] = w.Customer(t)
		w.Grant(t, ids[i], wallets[i], 50*one, bought(9973))
	}
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 7))
			for range each {
				i := random.IntN(customers)
				k := (i + customers + 1 - 2*random.IntN(2)) % customers
				op := transfer(w, ids[i], wallets[i], ids[k], wallets[k], credit.Amount(1+random.Int64N(int64(20*one))))
				var err error
				for try := 0; try < 50; try++ {
					copied := *op
					if _, err = services[n%2].Do(context.Background(), &copied); credit.CodeOf(err) != credit.NotExecuted && credit.CodeOf(err) != credit.OutcomeUnknown {
						break
					}
				}
				if err != nil && credit.CodeOf(err) != credit.InsufficientCredits {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var sum, moved, basis int64
	if err := w.Store.Pool.QueryRow(context.Background(), "SELECT sum(avail), sum(transferred), sum(basis_minor) FILTER (WHERE from_grant IS NULL) FROM grants").Scan(&sum, &moved, &basis); err != nil {
		t.Fatal(err)
	}
	if sum != int64(customers*50*one) || moved == 0 || basis != customers*9973 {
		t.Errorf("%d are available, %d were moved", sum, moved)
	}
	mustVerify(t, w, ids...)
	trial, err := w.Store.TrialBalance(context.Background(), "main", db.Span{})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, a := range trial.Accounts {
		got += fmt.Sprintf("%s %d; ", a.Account, a.Debit-a.Credit)
	}
	if want := fmt.Sprintf("1020 %d; 2010 -%d; 2011 0; ", basis, basis); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Credits that are bound to a member do not go into another member's wallet, where nobody could use them.
func TestATransferToAnotherMember(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	first, two := w.Member(t, c), w.Member(t, c)
	into := func(m credit.MemberID) credit.WalletID {
		return w.Wallet(t, c, func(o *balance.CreateWallet) { o.Wallet.Member = m })
	}
	g := w.Grant(t, c, wallet, 10*one, func(o *balance.CreateGrant) { o.Grant.MemberID = first })
	w.Grant(t, c, wallet, 5*one)
	transfer := func(to credit.WalletID, grant credit.GrantID) *balance.Transfer {
		return &balance.Transfer{Header: balance.Header{Customer: c, Key: w.Key()}, From: wallet, To: to, ToCustomer: c, Grant: grant, Reason: "asked"}
	}
	theirs := into(two)
	refused(t, w, transfer(theirs, g), credit.GrantState)
	w.Do(t, transfer(theirs, credit.GrantID{}))
	if v := w.View(t, g); v.Available != 10*one {
		t.Errorf("%+v", v)
	}
	w.Do(t, transfer(into(first), g))
	gone := transfer(into(first), g) // by the grant's state, which a correction may change: it stays refused under its key
	refused(t, w, gone, credit.GrantState)
	if a, _ := w.Service.Do(context.Background(), gone); !a.Replayed {
		t.Error("the refusal was not kept")
	}
	w.Do(t, by(w.Consume(c, 10*one), first))
	w.Do(t, by(w.Consume(c, 5*one), two))
	mustVerify(t, w, c)
}
