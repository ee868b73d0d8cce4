package db_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

var ctx = context.Background()

func on(month time.Month, day int) time.Time {
	return time.Date(2026, month, day, 12, 0, 0, 0, time.UTC)
}

func usd(minor int64) credit.Money { return credit.Money{Minor: minor, Currency: "USD"} }

func recognise(t *testing.T, s *db.Store, c *dbtest.Customer) db.Recognised {
	t.Helper()
	r, err := s.RecogniseCustomer(ctx, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// journal writes the entries that a filter lets through, one per line: "2026-01-10 2026-01 recognition: dr 2010 58.33; cr 4010 58.33".
func journal(t *testing.T, s *db.Store, f db.JournalFilter) string {
	t.Helper()
	if f.Entity == "" {
		f.Entity = dbtest.Entity
	}
	var b strings.Builder
	for after := (credit.EntryID{}); ; {
		entries, err := s.Journal(ctx, f, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			late := ""
			if e.Late() {
				late = " late"
			}
			fmt.Fprintf(&b, "%s %s%s %s:", e.Day, e.Period, late, e.Kind)
			for _, p := range e.Postings {
				fmt.Fprintf(&b, " %s %s %s", p.Side, p.Account, p.Money)
				if p.Source.Currency != "" {
					fmt.Fprintf(&b, " (%s %s)", p.Source.Currency, p.Source)
				}
				if p.Units > 0 {
					fmt.Fprintf(&b, " %du", p.Units)
				}
				if p.Product+p.Model != "" {
					b.WriteString(" " + p.Product + "/" + p.Model)
				}
				b.WriteByte(';')
			}
			b.WriteByte('\n')
			after = e.ID
		}
		if len(entries) < 3 {
			return b.String()
		}
	}
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got, want = strings.TrimSpace(got), strings.TrimSpace(want); got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

func rollForward(t *testing.T, s *db.Store, p ledger.Period, c credit.CustomerID) db.RollForward {
	t.Helper()
	r, err := s.RollForward(ctx, dbtest.Entity, db.Span{From: p, To: p}, c)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Foots() {
		t.Errorf("%s does not foot: %+v", p, r)
	}
	return r
}

func balances(t *testing.T, s *db.Store, span db.Span) string {
	t.Helper()
	tb, err := s.TrialBalance(ctx, dbtest.Entity, span)
	if err != nil {
		t.Fatal(err)
	}
	if tb.Debit != tb.Credit {
		t.Errorf("trial balance: %d and %d", tb.Debit, tb.Credit)
	}
	var b strings.Builder
	for _, a := range tb.Accounts {
		if n := a.Debit - a.Credit; n != 0 {
			fmt.Fprintf(&b, "%s %s; ", a.Account, usd(n))
		}
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// The integrated quarter of credit/recognition's TestQuarter, as far as operations exist: purchases, a promotion, usage, a foreign-currency refund,
// overage, and expiry. The late correction of 50, the dispute and the settlement of overage by a top-up are not among them: G1 keeps
// 400 credits instead of 450, for which 33.34 is carried, and C4's top-up is bought after its overage, not settling it.
func TestRecogniseQuarter(t *testing.T) {
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
	c1.Use(on(1, 10), g1, 700, nil)
	c2.Use(on(1, 12), g2, 120, nil)
	c2.Expire(g2)
	all()
	b.SetPeriod("2026-01", "closed")
	jan := journal(t, s, db.JournalFilter{Period: "2026-01"})
	same(t, "January", jan, `
2026-01-03 2026-01 purchase: dr 1020 108.00; cr 2010 100.00 1200u; cr 2030 8.00;
2026-01-10 2026-01 recognition: dr 2010 58.33 700u; cr 4010 58.33 700u;`)

	g3 := c3.Grant(on(2, 2), credit.Grant{Amount: 1000, Price: credit.Money{Minor: 10000, Currency: "EUR"}, FXRate: decimal.RequireFromString("1.10"),
		ExpiresAt: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)}) // ends with the last day of March
	c3.Use(on(2, 10), g3, 333, nil)
	c1.Use(on(2, 15), g1, 100, nil)
	all()
	refund := c3.Refund(on(2, 25), g3, 400, decimal.RequireFromString("1.20"))
	settled, err := s.SettleRefund(ctx, refund, db.Settlement{Method: ledger.ByProcessor, Reference: "re_1", At: on(2, 26)})
	if err != nil {
		t.Fatal(err)
	}
	all()
	same(t, "February of C3", journal(t, s, db.JournalFilter{Period: "2026-02", Customer: c3.ID}), `
2026-02-02 2026-02 purchase: dr 1020 110.00 (EUR 100.00); cr 2010 110.00 (EUR 100.00) 1000u;
2026-02-10 2026-02 recognition: dr 2010 36.63 333u; cr 4010 36.63 333u;
2026-02-25 2026-02 refund: dr 2010 44.00 (EUR 40.00) 400u; dr 7010 4.00; cr 2020 48.00 (EUR 40.00);
2026-02-26 2026-02 settlement: dr 2020 48.00 (EUR 40.00); cr 1020 48.00 (EUR 40.00);`)
	same(t, "February of G1", journal(t, s, db.JournalFilter{Period: "2026-02", Grant: g1.ID}),
		"2026-02-15 2026-02 recognition: dr 2010 8.33 100u; cr 4010 8.33 100u;")

	over := c4.Grant(on(3, 1), credit.Grant{Type: credit.Overage, Amount: 100, Price: usd(1000)})
	c4.Use(on(3, 1), over, 50, nil)
	c4.Grant(on(3, 5), credit.Grant{Amount: 450, Price: usd(4500)})
	c3.Expire(g3)
	all()
	same(t, "March", journal(t, s, db.JournalFilter{Period: "2026-03"}), `
2026-03-31 2026-03 expiry: dr 2010 29.37 267u; cr 4020 29.37 267u;
2026-03-01 2026-03 overage: dr 1120 5.00 50u; cr 4030 5.00 50u;
2026-03-05 2026-03 purchase: dr 1020 45.00; cr 2010 45.00 450u;`)

	for _, want := range []struct {
		period ledger.Period
		r      db.RollForward
	}{
		{"2026-01", db.RollForward{Currency: "USD", Purchases: 10000, Recognised: 5833, Closing: 4167}},
		{"2026-02", db.RollForward{Currency: "USD", Opening: 4167, Purchases: 11000, Recognised: 4496, Refunds: 4400, Closing: 6271}},
		{"2026-03", db.RollForward{Currency: "USD", Opening: 6271, Purchases: 4500, Breakage: 2937, Closing: 7834}},
	} {
		if got := rollForward(t, s, want.period, credit.CustomerID{}); got != want.r {
			t.Errorf("roll-forward of %s: %+v, want %+v", want.period, got, want.r)
		}
	}
	quarter, err := s.RollForward(ctx, dbtest.Entity, db.Span{From: "2026-01", To: "2026-03"}, credit.CustomerID{})
	if want := (db.RollForward{Currency: "USD", Purchases: 25500, Recognised: 10329, Breakage: 2937, Refunds: 4400, Closing: 7834}); err != nil || quarter != want {
		t.Errorf("roll-forward of the quarter: %+v, want %+v (%v)", quarter, want, err)
	}
	same(t, "trial balance of January", balances(t, s, db.Span{From: "2026-01", To: "2026-01"}), "1020 108.00; 2010 -41.67; 2030 -8.00; 4010 -58.33")
	same(t, "trial balance at the end of March", balances(t, s, db.Span{To: "2026-03"}),
		"1020 215.00; 1120 5.00; 2010 -78.34; 2030 -8.00; 4010 -103.29; 4020 -29.37; 4030 -5.00; 7010 4.00")
	var sum db.RollForward
	byCustomer, err := s.RollForwardByCustomer(ctx, dbtest.Entity, db.Span{From: "2026-02", To: "2026-02"}, credit.CustomerID{}, 10)
	if err != nil || len(byCustomer) != 2 {
		t.Fatalf("by customer: %+v, %v", byCustomer, err)
	}
	for _, r := range byCustomer {
		if one := rollForward(t, s, "2026-02", r.Customer); one != r {
			t.Errorf("of one customer %+v, among all %+v", one, r)
		}
		byGrant, err := s.RollForwardByGrant(ctx, dbtest.Entity, db.Span{From: "2026-02", To: "2026-02"}, r.Customer, credit.GrantID{}, 10)
		if err != nil || len(byGrant) != 1 || byGrant[0].Closing != r.Closing || byGrant[0].Recognised != r.Recognised {
			t.Errorf("by grant: %+v, %v", byGrant, err)
		}
		sum.Opening, sum.Recognised, sum.Closing = sum.Opening+r.Opening, sum.Recognised+r.Recognised, sum.Closing+r.Closing
	}
	if sum.Opening != 4167 || sum.Recognised != 4496 || sum.Closing != 6271 {
		t.Errorf("the customers of February sum to %+v", sum)
	}
	same(t, "January after March", journal(t, s, db.JournalFilter{Period: "2026-01"}), jan)
	if again, err := s.SettleRefund(ctx, refund, db.Settlement{Method: "manual", Reference: "other", At: on(5, 1)}); err != nil || again != settled {
		t.Errorf("settled again: %+v, %v; the first time %+v", again, err, settled)
	}
	for _, c := range []*dbtest.Customer{c1, c2, c3, c4} {
		if r := recognise(t, s, c); r.Entries != 0 || r.Operations != 0 || r.From != c.Ver || r.To != c.Ver {
			t.Errorf("the second time: %+v", r)
		}
	}
}

// Uses of one day are one entry with revenue by product and model; a refund between them parts the day, and what is posted is what the
// refund was computed from.
func TestRecogniseByDayProductAndModel(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	g := c.Grant(on(1, 1), credit.Grant{Amount: 7, Price: usd(100), Tax: 10})
	small, large := credit.Dimensions{"product": "chat", "model": "small", "region": "eu"}, credit.Dimensions{"product": "chat", "model": "large"}
	c.Use(on(1, 2), g, 1, small)
	c.Use(on(1, 2), g, 1, large)
	c.Use(on(1, 2), g, 1, small)
	refund := c.Refund(on(1, 2), g, 2, decimal.Decimal{})
	c.Use(on(1, 2), g, 1, nil)
	c.Configure(on(1, 3))
	c.Void(on(1, 4), g)
	if r := recognise(t, s, c); r != (db.Recognised{Entries: 5, Operations: 8, From: 0, To: 8}) {
		t.Errorf("%+v", r)
	}
	same(t, "journal", journal(t, s, db.JournalFilter{Grant: g.ID}), `
2026-01-01 2026-01 purchase: dr 1020 1.10; cr 2010 1.00 7u; cr 2030 0.10;
2026-01-02 2026-01 recognition: dr 2010 0.42 3u; cr 4010 0.14 1u chat/large; cr 4010 0.28 2u chat/small;
2026-01-02 2026-01 refund: dr 2010 0.29 2u; dr 2030 0.03; cr 2020 0.32;
2026-01-02 2026-01 recognition: dr 2010 0.14 1u; cr 4010 0.14 1u;
2026-01-04 2026-01 void: dr 2010 0.15 1u; dr 2030 0.02; cr 2020 0.17;`)
	same(t, "entries on the refund liability", journal(t, s, db.JournalFilter{Grant: g.ID, Account: ledger.RefundLiability, Period: "2026-01"}), `
2026-01-02 2026-01 refund: dr 2010 0.29 2u; dr 2030 0.03; cr 2020 0.32;
2026-01-04 2026-01 void: dr 2010 0.15 1u; dr 2030 0.02; cr 2020 0.17;`)
	if _, err := s.SettleRefund(ctx, refund, db.Settlement{Method: "manual", Reference: "cheque", At: on(1, 5)}); err != nil {
		t.Fatal(err)
	}
	same(t, "settlement", journal(t, s, db.JournalFilter{Account: ledger.Cash}), "2026-01-05 2026-01 settlement: dr 2020 0.32; cr 1010 0.32;")
}

// Less than a minor unit posts nothing, and its credits are not forgotten.
func TestRecogniseLessThanACent(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	g := c.Grant(on(1, 1), credit.Grant{Amount: 7, Price: usd(1)})
	recognise(t, s, c)
	for range 6 {
		c.Use(on(1, 2), g, 1, nil)
		if r := recognise(t, s, c); r.Entries != 0 || r.Operations != 1 {
			t.Errorf("%+v", r)
		}
	}
	c.Use(on(1, 3), g, 1, nil)
	recognise(t, s, c)
	same(t, "journal", journal(t, s, db.JournalFilter{}), `
2026-01-01 2026-01 purchase: dr 1020 0.01; cr 2010 0.01 7u;
2026-01-03 2026-01 recognition: dr 2010 0.01 1u; cr 4010 0.01 1u;`)
}

// Credits given for what went wrong are contra revenue, earned when used; taken away, the concession is taken back. Credits given for nothing, and
// what a soft cap leaves unused, have no entries.
func TestRecogniseWithoutPurchase(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	sla := c.Grant(on(1, 1), credit.Grant{Type: credit.Concession, Amount: 100, Price: usd(1000)})
	c.Use(on(1, 2), sla, 40, nil)
	c.VoidUnpaid(on(1, 3), sla)
	gift := c.Grant(on(1, 3), credit.Grant{Type: credit.Granted, Amount: 100, ExpiresAt: on(1, 5)})
	c.Use(on(1, 4), gift, 40, nil)
	c.Refund(on(1, 4), gift, 10, decimal.Decimal{})
	c.Expire(gift)
	over := c.Grant(on(1, 6), credit.Grant{Type: credit.Overage, Amount: 100, Price: usd(1000)})
	c.Use(on(1, 6), over, 30, nil)
	c.VoidUnpaid(on(1, 7), over)
	unpaid := c.Grant(on(1, 8), credit.Grant{Amount: 100, Price: usd(1000), Tax: 80})
	c.VoidUnpaid(on(1, 9), unpaid)
	c.Pending(on(1, 9), credit.Grant{Amount: 100, Price: usd(1000)})
	recognise(t, s, c)
	same(t, "concession", journal(t, s, db.JournalFilter{Grant: sla.ID}), `
2026-01-01 2026-01 concession: dr 4095 10.00; cr 2010 10.00 100u;
2026-01-02 2026-01 recognition: dr 2010 4.00 40u; cr 4010 4.00 40u;
2026-01-03 2026-01 void: dr 2010 6.00 60u; cr 4095 6.00;`)
	same(t, "gift", journal(t, s, db.JournalFilter{Grant: gift.ID}), "")
	same(t, "overage", journal(t, s, db.JournalFilter{Grant: over.ID}), "2026-01-06 2026-01 overage: dr 1120 3.00 30u; cr 4030 3.00 30u;")
	same(t, "unpaid", journal(t, s, db.JournalFilter{Grant: unpaid.ID}), `
2026-01-08 2026-01 purchase: dr 1020 10.80; cr 2010 10.00 100u; cr 2030 0.80;
2026-01-09 2026-01 void: dr 2010 10.00 100u; dr 2030 0.80; cr 1110 10.80;`)
	if r := rollForward(t, s, "2026-01", c.ID); r.Purchases != 1000 || r.Concessions != 1000 || r.Recognised != 400 || r.Voids != 1600 || r.Closing != 0 {
		t.Errorf("%+v", r)
	}
}

// A day and a month are those of the entity's calendar.
func TestRecogniseInTheEntitysCalendar(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	b.Entity("kk", "JPY", "Asia/Tokyo")
	c := b.Customer("kk")
	g := c.Grant(time.Date(2025, 12, 31, 14, 59, 59, 0, time.UTC), credit.Grant{Amount: 100, Price: credit.Money{Minor: 1000, Currency: "JPY"},
		ExpiresAt: time.Date(2026, 1, 31, 15, 0, 0, 0, time.UTC)}) // midnight in Tokyo
	c.Use(time.Date(2025, 12, 31, 15, 0, 0, 0, time.UTC), g, 10, nil)
	c.Expire(g)
	refundable := c.Grant(on(2, 1), credit.Grant{Amount: 10, Price: credit.Money{Minor: 100, Currency: "JPY"}})
	refund := c.Refund(on(2, 2), refundable, 5, decimal.Decimal{})
	if _, err := s.SettleRefund(ctx, refund, db.Settlement{Method: "manual", At: time.Date(2026, 2, 28, 16, 0, 0, 0, time.UTC)}); err != nil {
		t.Fatal(err)
	}
	same(t, "journal", journal(t, s, db.JournalFilter{Entity: "kk"}), `
2025-12-31 2025-12 purchase: dr 1020 1000; cr 2010 1000 100u;
2026-01-01 2026-01 recognition: dr 2010 100 10u; cr 4010 100 10u;
2026-01-31 2026-01 expiry: dr 2010 900 90u; cr 4020 900 90u;
2026-02-01 2026-02 purchase: dr 1020 100; cr 2010 100 10u;
2026-02-02 2026-02 refund: dr 2010 50 5u; cr 2020 50;
2026-03-01 2026-03 settlement: dr 2020 50; cr 1010 50;`)
}

// What happened in a closed period is booked in the earliest one after it that takes entries, and says so.
func TestRecogniseLate(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	g := c.Grant(on(1, 1), credit.Grant{Amount: 100, Price: usd(1000)})
	recognise(t, s, c)
	b.SetPeriod("2026-02", "closed")
	b.SetPeriod("2026-03", "in_review")
	b.SetPeriod("2026-04", "soft_closed")
	c.Do(dbtest.Operation{Kind: "consume", At: on(5, 1), ServiceAt: on(1, 2), Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "consumed", Amount: 10}}})
	c.Do(dbtest.Operation{Kind: "consume", At: on(5, 1), ServiceAt: on(2, 2), Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "consumed", Amount: 10}}})
	c.Use(on(5, 1), g, 10, nil)
	recognise(t, s, c)
	same(t, "journal", journal(t, s, db.JournalFilter{}), `
2026-01-01 2026-01 purchase: dr 1020 10.00; cr 2010 10.00 100u;
2026-01-02 2026-01 recognition: dr 2010 1.00 10u; cr 4010 1.00 10u;
2026-02-02 2026-04 late recognition: dr 2010 1.00 10u; cr 4010 1.00 10u;
2026-05-01 2026-05 recognition: dr 2010 1.00 10u; cr 4010 1.00 10u;`)
	if r := rollForward(t, s, "2026-04", c.ID); r.Recognised != 100 || r.Late != 100 {
		t.Errorf("%+v", r)
	}
	periods, err := s.Periods(ctx, dbtest.Entity, "", 2)
	if err != nil || fmt.Sprintln(periods[0].Period, periods[1].Period, periods[1].Status) != "2026-05 2026-04 soft_closed\n" {
		t.Errorf("periods: %+v, %v", periods, err)
	}
}

// A close that has begun is waited for, and a posting that has begun is waited for by the close.
func TestRecogniseAndCloseExclude(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	g := c.Grant(on(1, 1), credit.Grant{Amount: 100, Price: usd(1000)})
	recognise(t, s, c)
	c.Use(on(1, 2), g, 10, nil)
	b.SetPeriod("2026-01", "soft_closed")
	tx, err := s.Pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "UPDATE periods SET status = 'in_review' WHERE period = '2026-01'"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.RecogniseCustomer(ctx, c.ID)
		done <- err
	}()
	owner := dbtest.Owner(t, s)
	for waiting := 0; waiting == 0; { // until it stands at the lock of the period
		if err := owner.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	same(t, "journal of February", journal(t, s, db.JournalFilter{Period: "2026-02"}),
		"2026-01-02 2026-02 late recognition: dr 2010 1.00 10u; cr 4010 1.00 10u;")
}

// Several passes at once, while operations go on, post what one pass would.
func TestRecogniseConcurrently(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	g := c.Grant(on(1, 1), credit.Grant{Amount: 300, Price: usd(997)})
	stop := make(chan struct{})
	var passes sync.WaitGroup
	for range 4 {
		passes.Go(func() {
			for {
				if _, err := s.RecogniseCustomer(ctx, c.ID); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range 150 {
		c.Use(on(1, 2+i/30), g, 2, nil)
	}
	close(stop)
	passes.Wait()
	recognise(t, s, c)
	if r := rollForward(t, s, "2026-01", c.ID); r.Recognised != 997 || r.Closing != 0 {
		t.Errorf("%+v", r)
	}
	var covered, once int64 // each use is in one entry's range, or in none when less than a cent came of it
	err := s.Pool.QueryRow(ctx, `SELECT count(*), count(DISTINCT o.ver) FROM operations o
		JOIN journal_entries e ON e.customer_id = o.customer_id AND o.ver BETWEEN e.ver_from AND e.ver_to WHERE o.kind = 'consume'`).Scan(&covered, &once)
	if err != nil || covered == 0 || covered != once {
		t.Errorf("%d uses are covered by entries, %d different ones (%v)", covered, once, err)
	}
}

// More operations than one transaction takes are posted in several, and none is left out.
func TestRecogniseMany(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	const uses = 120_000
	g := c.Grant(on(1, 1), credit.Grant{Amount: uses, Price: usd(1_000_001)})
	addUses(t, b, c, g, uses)
	if r := recognise(t, s, c); r.Operations != uses+1 || r.To != uses+1 {
		t.Errorf("%+v", r)
	}
	if r := rollForward(t, s, "2026-01", c.ID); r.Recognised != 1_000_001 || r.Closing != 0 {
		t.Errorf("%+v", r)
	}
}

// addUses consumes n single credits, spread over 30 days and two models.
func addUses(t testing.TB, b *dbtest.Book, c *dbtest.Customer, g *credit.Grant, n int) {
	t.Helper()
	err := b.Store.Tx(ctx, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue(`INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, key, unit, dims, receipt)
			SELECT $1, $2 + i, 'consume', 1, d, d, 0, $1, $2 + i, 'CRD', jsonb_build_object('product', 'chat', 'model', 'm' || i % 2), '{}'
			FROM (SELECT i, '2026-01-01 12:00Z'::timestamptz + i * 29 / $3::bigint * interval '1 day' AS d FROM generate_series(1, $3::bigint) AS i) AS x`, c.ID[:], c.Ver, n)
		batch.Queue(`INSERT INTO movements (grant_id, ver, n, debit, credit, amount, after)
			SELECT $1, $2::bigint + i, 0, 'available', 'consumed', 1, $3::bigint - i FROM generate_series(1, $4::bigint) AS i`, g.ID[:], c.Ver, g.Available, n)
		batch.Queue("UPDATE grants SET avail = avail - $2, consumed = consumed + $2 WHERE id = $1", g.ID[:], n)
		batch.Queue("UPDATE customer_heads SET ver = ver + $2, last_at = '2026-01-30 12:00Z' WHERE customer_id = $1", c.ID[:], n)
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Ver += int64(n)
	g.Available -= credit.Amount(n)
	g.Consumed += credit.Amount(n)
}

func TestCustomersToRecognise(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	want := map[credit.CustomerID]bool{}
	for i := range 7 {
		c := b.Customer(dbtest.Entity)
		if i%3 > 0 {
			c.Configure(on(1, 1))
			want[c.ID] = true
		}
		if i == 4 {
			recognise(t, s, c)
			delete(want, c.ID)
		}
	}
	var after credit.CustomerID
	for {
		ids, err := s.CustomersToRecognise(ctx, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			if !want[id] {
				t.Errorf("%s is not behind, or came twice", id)
			}
			delete(want, id)
			after = id
		}
		if len(ids) < 2 {
			break
		}
	}
	if len(want) > 0 {
		t.Errorf("left out: %v", want)
	}
}

func TestFinanceRefusals(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	nobody := credit.NewID[credit.CustomerID]()
	check := func(what string, err error, want credit.Code) {
		t.Helper()
		if credit.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	_, err := s.RecogniseCustomer(ctx, nobody)
	check("recognise nobody", err, credit.CustomerNotFound)
	_, err = s.SettleRefund(ctx, credit.NewID[credit.RefundID](), db.Settlement{})
	check("settle nothing", err, credit.RefundNotFound)
	payer := b.Customer(dbtest.Entity)
	refund := payer.Refund(on(1, 2), payer.Grant(on(1, 1), credit.Grant{Amount: 10, Price: usd(100)}), 5, decimal.Decimal{})
	if _, err = s.SettleRefund(ctx, refund, db.Settlement{Method: "manual"}); err == nil || credit.CodeOf(err) != "" {
		t.Errorf("settled at no time: %v", err)
	}
	_, err = s.TrialBalance(ctx, "nobody", db.Span{})
	check("trial balance of nobody", err, credit.EntityNotFound)
	_, err = s.RollForward(ctx, "nobody", db.Span{}, nobody)
	check("roll-forward of nobody", err, credit.EntityNotFound)
	_, err = s.Journal(ctx, db.JournalFilter{Entity: dbtest.Entity}, credit.NewID[credit.EntryID](), 1)
	check("journal after nothing", err, credit.NotFound)
	if r, err := s.RollForward(ctx, dbtest.Entity, db.Span{}, nobody); err != nil || r.Currency != "USD" || r.Closing != 0 {
		t.Errorf("roll-forward of empty books: %+v, %v", r, err)
	}

	// A movement that no journal entry is known for stops the pass, and nothing is posted.
	c := b.Customer(dbtest.Entity)
	g := c.Grant(on(1, 1), credit.Grant{Amount: 10, Price: usd(100)})
	c.Use(on(1, 2), g, 1, nil)
	c.Do(dbtest.Operation{Kind: "consume", At: on(1, 3), Moves: []dbtest.Move{{Grant: g, Debit: "consumed", Credit: "expired", Amount: 1}}})
	if _, err := s.RecogniseCustomer(ctx, c.ID); err == nil || credit.CodeOf(err) != "" || !strings.Contains(err.Error(), "from consumed to expired") {
		t.Errorf("an unknown movement: %v", err)
	}
	same(t, "journal", journal(t, s, db.JournalFilter{Customer: c.ID}), "")

	// Nothing was paid: there is nothing to settle.
	d := b.Customer(dbtest.Entity)
	gift := d.Grant(on(1, 4), credit.Grant{Type: credit.Granted, Amount: 10})
	if done, err := s.SettleRefund(ctx, d.Refund(on(1, 5), gift, 5, decimal.Decimal{}), db.Settlement{Method: "manual", At: on(1, 6)}); err != nil || done != (db.Settlement{}) {
		t.Errorf("settled nothing: %+v, %v", done, err)
	}
}
