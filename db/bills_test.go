package db_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

// costing writes usage whose cost is known.
func costing(c *dbtest.Customer, at time.Time, model, cost, currency string, moves ...dbtest.Move) {
	for i := range moves {
		moves[i].Debit, moves[i].Credit = "available", "consumed"
	}
	c.Do(dbtest.Operation{Kind: "consume", At: at, ServiceAt: at, Dims: credit.Dimensions{"provider": "openai", "product": "chat", "model": model}, Moves: moves,
		Receipt: fmt.Sprintf(`{"cost":{"amount":%q,"currency":%q}}`, cost, currency)})
}

func accrue(t testing.TB, s *db.Store, p ledger.Period) db.Accrued {
	t.Helper()
	a, err := s.AccrueCompute(ctx, dbtest.Entity, p, fx.DefaultPolicy)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// computeEntries lists the entries of an entity that accrue compute cost.
func computeEntries(t testing.TB, s *db.Store, entity string) string {
	t.Helper()
	return lines(t, s, `SELECT format('%s %s %s: %s', e.service_on, e.period, e.late, string_agg(format('%s %s %s %s', p.side, p.account, p.amount_minor, p.model), '; ' ORDER BY p.n))
		FROM journal_entries AS e JOIN postings AS p ON p.entry_id = e.id WHERE e.entity = $1 AND e.kind = 'compute' GROUP BY e.id ORDER BY e.no`, entity)
}

// Hand-computed. Of 0.30 + 0.0049 dollars on large, a quarter of the first was paid by a promotion: 22.99 and 7.5 cents; small cost 1.05 cents. In all
// 31.54 cents, 32 rounded: floors are 22, 7 and 1, and the two cents left go to .99 and .5.
func TestAccrueCompute(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	at := func(day, hour int) time.Time { return time.Date(2026, 3, day, hour, 0, 0, 0, time.UTC) }
	g := c.Grant(at(1, 0), credit.Grant{Amount: 1000})
	promo := c.Grant(at(1, 0), credit.Grant{Type: credit.Promotional, Amount: 1000})
	costing(c, at(2, 1), "large", "0.30", "USD", dbtest.Move{Grant: g, Amount: 30}, dbtest.Move{Grant: promo, Amount: 10})
	costing(c, at(3, 1), "large", "0.0049", "USD", dbtest.Move{Grant: g, Amount: 1})
	costing(c, at(3, 2), "small", "0.0105", "USD") // was worth nothing
	c.Use(at(3, 3), g, 5, nil)                     // nobody knows what it cost
	if a := accrue(t, s, "2026-03"); len(a.Entries) != 0 {
		t.Errorf("accrued before it was counted: %+v", a)
	}
	countUsage(t, s, c)
	if a := accrue(t, s, "2026-03"); len(a.Entries) != 1 || len(a.Lines) != 3 || a.Currency != "USD" {
		t.Errorf("%+v", a)
	}
	want := `2026-03-31 2026-03 f: dr 5010 23 large; dr 5010 1 small; dr 6010 8 large; cr 2060 32 `
	same(t, "entries", computeEntries(t, s, dbtest.Entity), "\n"+want)
	if a := accrue(t, s, "2026-03"); len(a.Entries) != 0 || len(a.Lines) != 3 {
		t.Errorf("the second time: %+v", a)
	}
	// More of it comes, by somebody else: only the difference is booked, late when the month is closed. 22.99 + 10.01 is 33.
	d := b.Customer(dbtest.Entity)
	h := d.Grant(at(1, 0), credit.Grant{Amount: 1000})
	costing(d, at(31, 23), "large", "0.1001", "USD", dbtest.Move{Grant: h, Amount: 1})
	costing(d, at(31, 23).Add(time.Hour), "large", "1", "USD", dbtest.Move{Grant: h, Amount: 1}) // April
	countUsage(t, s, d)
	b.SetPeriod("2026-03", "closed")
	accrue(t, s, "2026-03")
	want += "\n2026-03-31 2026-04 t: dr 5010 10 large; cr 2060 10 "
	same(t, "entries", computeEntries(t, s, dbtest.Entity), "\n"+want)
	accrue(t, s, "2026-04")
	want += "\n2026-04-30 2026-04 f: dr 5010 100 large; cr 2060 100 "
	same(t, "entries", computeEntries(t, s, dbtest.Entity), "\n"+want)
	mustVerify(t, s)
	for _, sql := range []string{"UPDATE compute_accruals SET n = 9", "DELETE FROM compute_accruals", "TRUNCATE compute_accruals"} {
		if _, err := dbtest.Owner(t, s).Exec(ctx, sql); err == nil {
			t.Errorf("%s is not refused", sql)
		}
	}
	for _, x := range []struct {
		entity string
		period ledger.Period
		code   credit.Code
	}{{"nobody", "2026-03", credit.EntityNotFound}, {dbtest.Entity, "2199-01", credit.InvalidRequest}} {
		if _, err := s.AccrueCompute(ctx, x.entity, x.period, fx.DefaultPolicy); credit.CodeOf(err) != x.code {
			t.Errorf("%s %s: %v", x.entity, x.period, err)
		}
	}
}

// Books in euros, with a calendar half an hour off the hours: each day's cost is translated at that day's rate (UTC), and the hour in which the month ends
// is divided. 1.10 at 1/1.10, 2.20 at 1/1.00 is 1.00 + 2.20 euros; what is served at 18:45 UTC on the last of March is April's in Kolkata.
func TestAccrueComputeInOtherCurrenciesAndCalendars(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	b.Entity("kolkata", "EUR", "Asia/Kolkata")
	c := b.Customer("kolkata")
	g := c.Grant(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), credit.Grant{Amount: 1000})
	costing(c, time.Date(2026, 3, 10, 5, 0, 0, 0, time.UTC), "large", "1.10", "USD", dbtest.Move{Grant: g, Amount: 1})
	costing(c, time.Date(2026, 3, 11, 5, 0, 0, 0, time.UTC), "large", "2.20", "USD", dbtest.Move{Grant: g, Amount: 1})
	costing(c, time.Date(2026, 3, 31, 18, 15, 0, 0, time.UTC), "large", "0.50", "EUR", dbtest.Move{Grant: g, Amount: 1})
	costing(c, time.Date(2026, 3, 31, 18, 45, 0, 0, time.UTC), "large", "0.25", "EUR", dbtest.Move{Grant: g, Amount: 1})
	countUsage(t, s, c)
	if _, err := s.AccrueCompute(ctx, "kolkata", "2026-03", fx.DefaultPolicy); credit.CodeOf(err) != credit.NoFXRate {
		t.Errorf("without a rate: %v", err)
	}
	b.Exec(`INSERT INTO fx_rates (source, from_currency, to_currency, on_date, version, rate, imported_by)
		VALUES ('ecb', 'EUR', 'USD', '2026-03-10', 1, 1.10, 'test'), ('ecb', 'EUR', 'USD', '2026-03-11', 1, 1.00, 'test')`)
	for _, p := range []ledger.Period{"2026-03", "2026-04"} {
		if _, err := s.AccrueCompute(ctx, "kolkata", p, fx.DefaultPolicy); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "entries", computeEntries(t, s, "kolkata"), `
2026-03-31 2026-03 f: dr 5010 50 large; cr 2060 50 
2026-03-31 2026-03 f: dr 5010 320 large; cr 2060 320 
2026-04-30 2026-04 f: dr 5010 25 large; cr 2060 25 `)
	mustVerify(t, s)
}

// What was counted by a release that kept no costs has them after the upgrade, as the pass would have counted them.
func TestCostsFromBefore(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	b.Entity("kolkata", "USD", "Asia/Kolkata")
	for _, entity := range []string{dbtest.Entity, "kolkata"} {
		c := b.Customer(entity)
		g := c.Grant(on(3, 1), credit.Grant{Amount: 1000})
		promo := c.Grant(on(3, 1), credit.Grant{Type: credit.Promotional, Amount: 1000})
		costing(c, time.Date(2026, 3, 2, 18, 29, 0, 0, time.UTC), "large", "0.1", "USD", dbtest.Move{Grant: g, Amount: 2}, dbtest.Move{Grant: promo, Amount: 1})
		costing(c, time.Date(2026, 3, 2, 18, 31, 0, 0, time.UTC), "large", "0.2", "USD", dbtest.Move{Grant: promo, Amount: 7})
		costing(c, time.Date(2026, 3, 2, 18, 32, 0, 0, time.UTC), "large", "0.0001", "EUR")
		c.Use(on(3, 3), g, 1, nil)
		countUsage(t, s, c)
		costing(c, on(3, 4), "large", "5", "USD", dbtest.Move{Grant: g, Amount: 1}) // is not counted yet
	}
	const kept = `SELECT format('%s %s %s %s %s %s %s', day, hour AT TIME ZONE 'UTC', model, currency, cost, promotional, operations) FROM usage_costs ORDER BY customer_id, day, hour, currency`
	counted := lines(t, s, kept)
	if n := strings.Count(counted, "\n"); n != 4 {
		t.Errorf("%d rows are kept:\n%s", n+1, counted)
	}
	migration, err := os.ReadFile("migrations/00024_bills.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, fill, _ := strings.Cut(string(migration), "-- What was counted before this release.\n")
	fill, _, _ = strings.Cut(fill, "GRANT ")
	b.Corrupt("DELETE FROM usage_costs")
	b.Corrupt(fill)
	same(t, "costs", lines(t, s, kept), "\n"+counted)
	mustVerify(t, s)
}

// The close of a month accrues its cost while nothing has been approved, and books what came of the month before, which was closed, in this one. What has
// not been counted, or cannot be translated, blocks it; what is recorded during the review waits for the next close.
func TestCloseAccruesCompute(t *testing.T) {
	t.Parallel()
	c := newClosing(t)
	cu, g, _ := c.quarter()
	use := func(at time.Time, cost, currency string) {
		costing(cu, at, "large", cost, currency, dbtest.Move{Grant: g, Amount: 1})
		recognise(t, c.Store, cu)
	}
	use(on(1, 20), "1.00", "USD")
	k := c.start("2026-01")
	if blocked := c.run(k); len(blocked) != 1 || !strings.Contains(blocked[0], "is not counted yet") {
		t.Fatalf("uncounted: %q", blocked)
	}
	countUsage(t, c.Store, cu)
	hash := c.review(k)
	if got, want := c.figures(k, db.StepCostAccrual), `{"compute":"1.00","lines":[{"account":5010,"amount":"1.00","currency":"USD","model":"large","product":"chat","provider":"openai","service":"2026-01"}],"promotional":"0.00"}`; got != want {
		t.Errorf("figures %s", got)
	}
	cu.Do(dbtest.Operation{Kind: "consume", ServiceAt: on(1, 21), Dims: credit.Dimensions{"provider": "openai", "model": "large"},
		Receipt: `{"cost":{"amount":"0.30","currency":"USD"}}`, Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "consumed", Amount: 1}}})
	countUsage(t, c.Store, cu)
	if blocked := c.run(k); blocked != nil {
		t.Errorf("in review: %q", blocked)
	}
	if err := c.approve(k, hash, c.controller); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Store.LockPeriodClosed(ctx, k); err != nil || status != db.CloseClosed {
		t.Fatalf("%s, %v", status, err)
	}
	recognise(t, c.Store, cu)
	use(on(2, 20), "2.00", "EUR")
	countUsage(t, c.Store, cu)
	k = c.start("2026-02")
	if blocked := c.run(k); len(blocked) != 1 || !strings.Contains(blocked[0], "There is no exchange rate from EUR to USD for 2026-02-20.") {
		t.Fatalf("without a rate: %q", blocked)
	}
	c.Exec(`INSERT INTO fx_rates (source, from_currency, to_currency, on_date, version, rate, imported_by) VALUES ('ecb', 'EUR', 'USD', '2026-02-20', 1, 1.10, 'test')`)
	c.review(k)
	same(t, "entries", computeEntries(t, c.Store, dbtest.Entity), `
2026-01-31 2026-01 f: dr 5010 100 large; cr 2060 100 
2026-02-28 2026-02 f: dr 5010 220 large; cr 2060 220 
2026-01-31 2026-02 t: dr 5010 30 large; cr 2060 30 `)
	mustVerify(t, c.Store)
}

// However usage is counted and accrued, twice, in parts, by several at once: in the end what is booked is the exact cost, rounded once for each month, and
// both parts of it are what the grants that paid say.
func TestAccruedIsWhatItCost(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		entity := fmt.Sprintf("e%d", n)
		b.Entity(entity, "USD", "UTC")
		c := b.Customer(entity)
		at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		g := c.Grant(at, credit.Grant{Amount: 1 << 40})
		promo := c.Grant(at, credit.Grant{Type: credit.Promotional, Amount: 1 << 40})
		var cost, promotional decimal.Decimal
		for range rapid.IntRange(1, 4).Draw(rt, "rounds") {
			for range rapid.IntRange(0, 4).Draw(rt, "operations") {
				x := decimal.New(rapid.Int64Range(0, 10_000_000).Draw(rt, "cost"), -7)
				paid, free := rapid.IntRange(0, 7).Draw(rt, "paid"), rapid.IntRange(0, 7).Draw(rt, "free")
				var moves []dbtest.Move
				if paid > 0 {
					moves = append(moves, dbtest.Move{Grant: g, Amount: credit.Amount(paid)})
				}
				if free > 0 {
					moves = append(moves, dbtest.Move{Grant: promo, Amount: credit.Amount(free)})
				}
				at = at.Add(17 * time.Minute)
				costing(c, at, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "model"), x.String(), "USD", moves...)
				cost = cost.Add(x)
				if free > 0 {
					promotional = promotional.Add(x.Mul(decimal.NewFromInt(int64(free))).DivRound(decimal.NewFromInt(int64(paid+free)), 30))
				}
			}
			var all sync.WaitGroup
			for range rapid.IntRange(1, 3).Draw(rt, "at once") {
				all.Go(func() {
					if _, err := s.CountUsage(ctx, c.ID); err != nil {
						rt.Error(err)
					}
					if _, err := s.AccrueCompute(ctx, entity, "2026-03", fx.DefaultPolicy); err != nil {
						rt.Error(err)
					}
				})
			}
			all.Wait()
		}
		a, err := s.AccrueCompute(ctx, entity, "2026-03", fx.DefaultPolicy)
		if err != nil || len(a.Entries) != 0 {
			rt.Fatalf("once more: %+v, %v", a, err)
		}
		span := db.Span{From: "2026-03", To: "2026-03"}
		tb, err := s.TrialBalance(ctx, entity, span)
		if err != nil {
			rt.Fatal(err)
		}
		net := map[ledger.Account]int64{}
		for _, x := range tb.Accounts {
			net[x.Account] = x.Debit - x.Credit
		}
		if want := cost.Shift(2).RoundBank(0).IntPart(); -net[ledger.AccruedCompute] != want || net[ledger.ComputeCost]+net[ledger.PromotionalCompute] != want {
			rt.Fatalf("%v is accrued of %s", net, cost)
		}
		if off := promotional.Shift(2).Sub(decimal.NewFromInt(net[ledger.PromotionalCompute])).Abs(); off.GreaterThan(decimal.NewFromInt(3)) { // a cent for each model
			rt.Fatalf("%v is accrued, %s of it promotional", net, promotional)
		}
	})
	mustVerify(t, s)
}

// reportOf reads a report of [dbtest.Entity], a line for each row, and the sums of its money.
func reportOf(t testing.TB, s *db.Store, name, entity string, from, to ledger.Period) (rows string, sums map[string]int64) {
	t.Helper()
	spec := &db.Reports[slices.IndexFunc(db.Reports, func(r db.ReportSpec) bool { return r.Name == name })]
	var b strings.Builder
	totals, err := s.Report(ctx, spec, db.ReportParameters{LegalEntity: entity, From: from, To: to}, func(db.ReportHead) error { return nil }, func(cells []*string) error {
		for i, c := range cells {
			if c != nil && spec.Columns[i].Kind != db.ColumnCustomer {
				b.WriteString(" " + *c)
			}
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sums = make(map[string]int64)
	for i, n := range totals.Sums {
		sums[spec.Columns[i].Name] = n
	}
	return strings.TrimSuffix(b.String(), "\n"), sums
}

// Hand-computed. Two customers used the large model for 0.105 and 0.205 dollars, 31 cents accrued: 10.5 and 20.5, of which the first gets the odd cent, having
// the lower id. The first earned 1.00 with it, and 0.50 with a model whose cost nobody knows; the other used promotional credits for all of it.
func TestMarginReport(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	one, two := b.Customer(dbtest.Entity), b.Customer(dbtest.Entity)
	g := one.Grant(on(3, 1), credit.Grant{Amount: 1000, Price: usd(1000), ExpiresAt: on(3, 20)})
	promo := two.Grant(on(3, 1), credit.Grant{Type: credit.Promotional, Amount: 1000})
	paid := two.Grant(on(3, 1), credit.Grant{Amount: 1000, Price: usd(2000)})
	costing(one, on(3, 2), "large", "0.105", "USD", dbtest.Move{Grant: g, Amount: 100})
	one.Use(on(3, 3), g, 50, credit.Dimensions{"product": "chat", "model": "own"})
	costing(two, on(3, 2), "large", "0.205", "USD", dbtest.Move{Grant: paid, Amount: 10})
	costing(two, on(3, 2), "large", "0.07", "USD", dbtest.Move{Grant: promo, Amount: 10})
	one.Expire(g)
	for _, c := range []*dbtest.Customer{one, two} {
		countUsage(t, s, c)
		recognise(t, s, c)
	}
	accrue(t, s, "2026-03")
	rows, sums := reportOf(t, s, "margin", dbtest.Entity, "2026-03", "2026-03")
	same(t, "margin", rows, `
 2026-03 chat large 1.00 0.11 0.89 0.00
 2026-03 chat own 0.50 0.00 0.50 0.00
 2026-03 chat large 0.20 0.20 0.00 0.07`)
	if sums["revenue"] != 170 || sums["compute_cost"] != 31 || sums["margin"] != 139 || sums["promotional_cost"] != 7 {
		t.Errorf("%v", sums)
	}
	if rows, _ := reportOf(t, s, "margin", dbtest.Entity, "2026-04", "2026-05"); rows != "" {
		t.Errorf("of other months: %s", rows)
	}
}

// Whatever was used by whom, the report has the revenue and the cost of the books, to the cent, whatever it is split over.
func TestMarginTies(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		entity := fmt.Sprintf("m%d", n)
		b.Entity(entity, "USD", "UTC")
		for range rapid.IntRange(1, 4).Draw(rt, "customers") {
			c := b.Customer(entity)
			g := c.Grant(on(1, 1), credit.Grant{Amount: 1 << 40, Price: usd(rapid.Int64Range(0, 1<<45).Draw(rt, "price"))})
			promo := c.Grant(on(1, 1), credit.Grant{Type: credit.Promotional, Amount: 1 << 40})
			for range rapid.IntRange(0, 5).Draw(rt, "uses") {
				moves := []dbtest.Move{{Grant: g, Amount: credit.Amount(rapid.IntRange(1, 1<<20).Draw(rt, "paid"))}}
				if rapid.Bool().Draw(rt, "promotional too") {
					moves = append(moves, dbtest.Move{Grant: promo, Amount: credit.Amount(rapid.IntRange(1, 1<<20).Draw(rt, "free"))})
				}
				costing(c, on(time.Month(rapid.IntRange(1, 2).Draw(rt, "month")), rapid.IntRange(2, 28).Draw(rt, "day")), rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "model"),
					decimal.New(rapid.Int64Range(0, 1e9).Draw(rt, "cost"), -7).String(), "USD", moves...)
			}
			if _, err := s.CountUsage(ctx, c.ID); err != nil {
				rt.Fatal(err)
			}
			if _, err := s.RecogniseCustomer(ctx, c.ID); err != nil {
				rt.Fatal(err)
			}
		}
		for _, p := range []ledger.Period{"2026-01", "2026-02"} {
			if _, err := s.AccrueCompute(ctx, entity, p, fx.DefaultPolicy); err != nil {
				rt.Fatal(err)
			}
			_, sums := reportOf(t, s, "margin", entity, p, p)
			tb, err := s.TrialBalance(ctx, entity, db.Span{From: p, To: p})
			if err != nil {
				rt.Fatal(err)
			}
			books := map[ledger.Account]int64{}
			for _, a := range tb.Accounts {
				books[a.Account] = a.Debit - a.Credit
			}
			if sums["revenue"] != -books[ledger.UsageRevenue]-books[ledger.OverageRevenue] || sums["compute_cost"] != books[ledger.ComputeCost] ||
				sums["promotional_cost"] != books[ledger.PromotionalCompute] || sums["compute_cost"]+sums["promotional_cost"] != -books[ledger.AccruedCompute] ||
				sums["margin"] != sums["revenue"]-sums["compute_cost"] {
				rt.Fatalf("the report has %v, the books %v", sums, books)
			}
		}
	})
}
