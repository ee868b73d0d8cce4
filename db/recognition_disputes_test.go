package db_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

// The integrated quarter with its late correction and its dispute: every figure of credit/recognition's TestQuarter, booked. C4's overage of 5.00 stays
// unbilled, and its purchase is of the 450 credits that are left of it.
func TestRecogniseQuarterWithCorrectionAndDispute(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c1, c2, c3, c4 := b.Customer(dbtest.Entity), b.Customer(dbtest.Entity), b.Customer(dbtest.Entity), b.Customer(dbtest.Entity)
	all := func() {
		for _, c := range []*dbtest.Customer{c1, c2, c3, c4} {
			recognise(t, s, c)
		}
	}
	g1 := c1.Grant(on(1, 3), credit.Grant{Amount: 1200, Price: usd(10000), Tax: 800})
	g2 := c2.Grant(on(1, 5), credit.Grant{Type: credit.Promotional, Amount: 500, ExpiresAt: on(1, 31)})
	c1.Use(on(1, 10), g1, 700, credit.Dimensions{"model": "large"})
	used := c1.Ver
	c2.Use(on(1, 12), g2, 120, nil)
	c2.Expire(g2)
	all()
	b.SetPeriod("2026-01", "closed")

	g3 := c3.Grant(on(2, 2), credit.Grant{Amount: 1000, Price: credit.Money{Minor: 10000, Currency: "EUR"}, FXRate: decimal.RequireFromString("1.10"),
		ExpiresAt: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)})
	c3.Use(on(2, 10), g3, 333, nil)
	c1.Use(on(2, 15), g1, 100, nil)
	c1.Correct(on(2, 20), used, 700, g1, 50, on(1, 10), credit.Dimensions{"model": "large"})
	refund := c3.Refund(on(2, 25), g3, 400, decimal.RequireFromString("1.20"))
	all()
	if _, err := s.SettleRefund(ctx, refund, db.Settlement{Method: ledger.ByProcessor, Reference: "re_1", At: on(2, 25)}); err != nil {
		t.Fatal(err)
	}
	same(t, "February of G1", journal(t, s, db.JournalFilter{Period: "2026-02", Grant: g1.ID}), `
2026-02-15 2026-02 recognition: dr 2010 8.33 100u; cr 4010 8.33 100u;
2026-01-10 2026-02 late reversal: cr 2010 4.16 50u; dr 4010 4.16 50u /large;`)

	over := c4.Grant(on(3, 1), credit.Grant{Type: credit.Overage, Amount: 100, Price: usd(1000)})
	c4.Use(on(3, 1), over, 50, nil)
	c4.Grant(on(3, 5), credit.Grant{Amount: 450, Price: usd(4500)})
	id := c1.Dispute(on(3, 8), g1)
	all()
	c1.Do(dbtest.Operation{Kind: "dispute", At: on(3, 20), Moves: []dbtest.Move{{Grant: g1, Debit: "available", Credit: "voided", Amount: 450}}, Then: func(tx pgx.Tx, ver int64) error {
		_, err := tx.Exec(ctx, "UPDATE disputes SET status = 'lost', ended_ver = $2, ended_at = $3 WHERE id = $1", id[:], ver, on(3, 20))
		return err
	}})
	c3.Expire(g3)
	all()
	same(t, "March", journal(t, s, db.JournalFilter{Period: "2026-03"}), `
2026-03-08 2026-03 dispute: dr 1130 108.00; cr 1020 108.00;
2026-03-01 2026-03 overage: dr 1120 5.00 50u; cr 4030 5.00 50u;
2026-03-05 2026-03 purchase: dr 1020 45.00; cr 2010 45.00 450u;
2026-03-20 2026-03 dispute: dr 2010 37.50 450u; dr 2030 8.00; dr 4091 62.50; cr 1130 108.00;
2026-03-31 2026-03 expiry: dr 2010 29.37 267u; cr 4020 29.37 267u;`)
	for _, want := range []struct {
		period ledger.Period
		r      db.RollForward
	}{
		{"2026-01", db.RollForward{Currency: "USD", Purchases: 10000, Recognised: 5833, Closing: 4167}},
		{"2026-02", db.RollForward{Currency: "USD", Opening: 4167, Purchases: 11000, Recognised: 4496, Refunds: 4400, Corrections: -416, Closing: 6687, Late: -416}},
		{"2026-03", db.RollForward{Currency: "USD", Opening: 6687, Purchases: 4500, Breakage: 2937, Disputes: 3750, Closing: 4500}},
	} {
		if got := rollForward(t, s, want.period, credit.CustomerID{}); got != want.r {
			t.Errorf("roll-forward of %s: %+v, want %+v", want.period, got, want.r)
		}
	}
	same(t, "trial balance at the end of March", balances(t, s, db.Span{To: "2026-03"}),
		"1020 107.00; 1120 5.00; 2010 -45.00; 4010 -99.13; 4020 -29.37; 4030 -5.00; 4091 62.50; 7010 4.00")
	for _, i := range db.Invariants {
		v, err := s.Verify(ctx, i, 5)
		if err != nil || v.Differ != 0 {
			t.Errorf("%s: %+v, %v", i.Name, v, err)
		}
	}
}
