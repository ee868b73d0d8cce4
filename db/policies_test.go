package db_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

func rate(t testing.TB, s string) recognition.Rate {
	t.Helper()
	r, err := recognition.NewRate(decimal.RequireFromString(s))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// change runs one change of the catalogue as an API key.
func change(s *db.Store, by int32, do func(context.Context, *db.Catalog) error) error {
	_, _, err := s.Change(ctx, db.Audited{Actor: by, RequestID: credit.NewID[credit.RequestID](), Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		return db.Outcome{Status: 200, Subject: "test", Detail: struct{}{}}, do(ctx, c)
	})
	return err
}

// Who prepares and who approves in tests.
const preparer, approver = 1, 2

func addPolicy(t testing.TB, s *db.Store, p recognition.Policy) (row db.PolicyRow) {
	t.Helper()
	if p.Breakage == "" {
		p.Breakage = recognition.Remote
	}
	err := change(s, preparer, func(ctx context.Context, c *db.Catalog) (err error) {
		row, err = c.AddPolicy(ctx, db.PolicyRow{ID: credit.NewID[credit.PolicyID](), Entity: dbtest.Entity, Policy: p, Evidence: "M-1",
			Signatures: db.Signatures{PreparedBy: preparer}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return row
}

func approvePolicy(s *db.Store, id credit.PolicyID, by int32) error {
	return change(s, by, func(ctx context.Context, c *db.Catalog) error {
		_, err := c.ApprovePolicy(ctx, id, by)
		return err
	})
}

// policy puts a policy in force.
func policy(t testing.TB, s *db.Store, p recognition.Policy) {
	t.Helper()
	if err := approvePolicy(s, addPolicy(t, s, p).ID, approver); err != nil {
		t.Fatal(err)
	}
}

func addEstimate(t testing.TB, s *db.Store, e recognition.Estimate) (row db.EstimateRow) {
	t.Helper()
	e.Unit = dbtest.Unit
	err := change(s, preparer, func(ctx context.Context, c *db.Catalog) (err error) {
		row, err = c.AddEstimate(ctx, db.EstimateRow{ID: credit.NewID[credit.EstimateID](), Entity: dbtest.Entity, Estimate: e, Method: "history", Evidence: "B-7",
			Signatures: db.Signatures{PreparedBy: preparer}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return row
}

func estimate(t testing.TB, s *db.Store, e recognition.Estimate) {
	t.Helper()
	if err := approveEstimate(s, addEstimate(t, s, e).ID, approver); err != nil {
		t.Fatal(err)
	}
}

func approveEstimate(s *db.Store, id credit.EstimateID, by int32) error {
	return change(s, by, func(ctx context.Context, c *db.Catalog) error {
		_, err := c.ApproveEstimate(ctx, id, by)
		return err
	})
}

func adjustBreakage(t testing.TB, s *db.Store, p ledger.Period) db.BreakageRun {
	t.Helper()
	run, err := s.AdjustBreakage(ctx, dbtest.Entity, p)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// Who approves is another than who prepared; once, and before anything is booked that it would decide.
func TestApprovals(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	refused := func(what string, err error, want credit.Code) {
		t.Helper()
		if credit.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	p := addPolicy(t, s, recognition.Policy{From: "2026-02", Escheat: rate(t, "0.5")})
	if p.Version != 1 || p.PreparedBy != preparer || !p.ApprovedAt.IsZero() {
		t.Errorf("%+v", p)
	}
	refused("by the preparer", approvePolicy(s, p.ID, preparer), credit.SelfApproval)
	refused("of nothing", approvePolicy(s, credit.NewID[credit.PolicyID](), approver), credit.PolicyNotFound)
	if err := approvePolicy(s, p.ID, approver); err != nil {
		t.Fatal(err)
	}
	refused("twice", approvePolicy(s, p.ID, 3), credit.AlreadyExists)
	e := addEstimate(t, s, recognition.Estimate{From: "2026-01", Use: rate(t, "0.9")})
	refused("by the preparer", approveEstimate(s, e.ID, preparer), credit.SelfApproval)
	refused("of nothing", approveEstimate(s, credit.NewID[credit.EstimateID](), approver), credit.EstimateNotFound)
	if err := approveEstimate(s, e.ID, approver); err != nil {
		t.Fatal(err)
	}
	refused("twice", approveEstimate(s, e.ID, 3), credit.AlreadyExists)

	c := b.Customer(dbtest.Entity)
	c.Grant(on(2, 1), credit.Grant{Amount: 100, Price: usd(100)})
	recognise(t, s, c)
	late := addPolicy(t, s, recognition.Policy{From: "2026-02"})
	refused("of a period that something is booked in", approvePolicy(s, late.ID, approver), credit.PolicyTooLate)
	before := addPolicy(t, s, recognition.Policy{From: "2026-01"})
	refused("of one before that", approvePolicy(s, before.ID, approver), credit.PolicyTooLate)
	policy(t, s, recognition.Policy{From: "2026-03"})
	rows, err := s.PolicyPage(ctx, dbtest.Entity, 0, 2)
	if err != nil || len(rows) != 2 || rows[0].Version != 4 || rows[0].ApprovedBy != approver || rows[1].Version != 3 || rows[1].ApprovedBy != 0 {
		t.Errorf("%+v, %v", rows, err)
	}
	if rows, err := s.PolicyPage(ctx, dbtest.Entity, 3, 5); err != nil || len(rows) != 2 || rows[1].ID != p.ID {
		t.Errorf("%+v, %v", rows, err)
	}
	for _, table := range []string{"accounting_policies", "policy_approvals", "breakage_estimates", "estimate_approvals"} {
		if _, err := dbtest.Owner(t, s).Exec(ctx, "DELETE FROM "+table); err == nil {
			t.Errorf("rows of %s can be deleted", table)
		}
	}
	// The database itself refuses a preparer who approves, and an approval that names another preparer.
	for _, who := range [][2]int{{preparer, preparer}, {approver, preparer}} {
		if _, err := s.Pool.Exec(ctx, "INSERT INTO policy_approvals (policy_id, prepared_by, approved_by) VALUES ($1, $2, $3)", late.ID[:], who[0], who[1]); err == nil {
			t.Errorf("approved by %d", who)
		}
	}
}

// Tax at use: 3,500 sold gross, 728 used at 4 %. The rate is that of the time of purchase; tax that was paid with the price is not due again. What
// comes back brings its tax back, and what is refunded was never taxed.
func TestTaxAtUse(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	policy(t, s, recognition.Policy{From: "2026-01", UseTax: rate(t, "0.04")})
	policy(t, s, recognition.Policy{From: "2026-02", UseTax: rate(t, "0.25")})
	c := b.Customer(dbtest.Entity)
	gross := c.Grant(on(1, 1), credit.Grant{Amount: 3500, Price: usd(350000)})
	net := c.Grant(on(1, 1), credit.Grant{Amount: 100, Price: usd(10000), Tax: 400})
	c.Use(on(2, 2), gross, 728, credit.Dimensions{"model": "large"})
	c.Use(on(2, 2), net, 100, nil)
	c.Do(dbtest.Operation{Kind: "reverse", At: on(2, 3), Moves: []dbtest.Move{{Grant: gross, Debit: "consumed", Credit: "available", Amount: 364}}})
	c.Refund(on(2, 4), gross, 3136, decimal.Decimal{})
	recognise(t, s, c)
	same(t, "taxed at use", journal(t, s, db.JournalFilter{Grant: gross.ID}), `
2026-01-01 2026-01 purchase: dr 1020 3500.00; cr 2010 3500.00 3500u;
2026-02-02 2026-02 recognition: dr 2010 728.00 728u; cr 4010 700.00 728u /large; cr 2030 28.00;
2026-02-03 2026-02 reversal: cr 2010 364.00 364u; dr 4010 350.00 364u; dr 2030 14.00;
2026-02-04 2026-02 refund: dr 2010 3136.00 3136u; cr 2020 3136.00;`)
	same(t, "taxed at purchase", journal(t, s, db.JournalFilter{Grant: net.ID}), `
2026-01-01 2026-01 purchase: dr 1020 104.00; cr 2010 100.00 100u; cr 2030 4.00;
2026-02-02 2026-02 recognition: dr 2010 100.00 100u; cr 4010 100.00 100u;`)
	entries, err := s.Journal(ctx, db.JournalFilter{Entity: dbtest.Entity, Grant: gross.ID}, credit.EntryID{}, 10)
	if err != nil || entries[0].Policy != 1 || entries[1].Policy != 2 {
		t.Errorf("versions of the policy: %+v, %v", entries, err)
	}
}

// Transfers keep the tax at use that the purchase has, by the policy of its own period, however often its credits are moved and whichever of the grants
// the books come to first.
func TestTaxAtUseAfterTransfers(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	policy(t, s, recognition.Policy{From: "2026-02", UseTax: rate(t, "0.04")})
	policy(t, s, recognition.Policy{From: "2026-03", UseTax: rate(t, "0.25")})
	for _, between := range []bool{false, true} {
		for _, bought := range []struct {
			month int
			tax   int64
			want  string
		}{{1, 0, ""}, {2, 0, "cr 2030 2.00;"}, {3, 0, "cr 2030 10.40;"}, {3, 1, ""}} {
			c := b.Customer(dbtest.Entity)
			g := c.Grant(on(time.Month(bought.month), 2), credit.Grant{Amount: 100, Price: usd(10400), Tax: bought.tax})
			if between {
				recognise(t, s, c)
			}
			second := c.Transfer(on(4, 1), g, 50)
			if between {
				recognise(t, s, c)
			}
			third := c.Transfer(on(4, 2), second, 50)
			c.Use(on(4, 3), third, 50, nil)
			recognise(t, s, c)
			if got := journal(t, s, db.JournalFilter{Grant: third.ID, Account: ledger.SalesTaxPayable}); strings.Contains(got, "2030") != (bought.want != "") || !strings.Contains(got, bought.want) {
				t.Errorf("bought in month %d with tax %d: %s, want %q", bought.month, bought.tax, got, bought.want)
			}
		}
	}
}

// The part of what expires that is a government's is a liability; by the policy of the period and of the kind of credit.
func TestUnclaimedProperty(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	policy(t, s, recognition.Policy{From: "2026-02", Unit: dbtest.Unit, Escheat: rate(t, "0.4")})
	policy(t, s, recognition.Policy{From: "2026-02", Escheat: rate(t, "1")})
	c := b.Customer(dbtest.Entity)
	jan, feb := c.Grant(on(1, 1), credit.Grant{Amount: 10, Price: usd(1000), ExpiresAt: on(1, 20)}), c.Grant(on(1, 1), credit.Grant{Amount: 10, Price: usd(1001), ExpiresAt: on(2, 20)})
	c.Expire(jan)
	c.Expire(feb)
	recognise(t, s, c)
	same(t, "January", journal(t, s, db.JournalFilter{Grant: jan.ID, Account: ledger.BreakageRevenue}), "2026-01-20 2026-01 expiry: dr 2010 10.00 10u; cr 4020 10.00 10u;")
	same(t, "February", journal(t, s, db.JournalFilter{Grant: feb.ID, Account: ledger.BreakageRevenue}), "2026-02-20 2026-02 expiry: dr 2010 10.01 10u; cr 4020 6.01 10u; cr 2040 4.00;")
}

// Kieso's Colbert through the books: 20 cards of 100, 90 % expected to be used; 50, 80 and 85 % are, and the rest expires. Another kind of estimate in
// between is caught up in the current period, and the log says why.
func TestProportionalBreakage(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	policy(t, s, recognition.Policy{From: "2026-01", Breakage: recognition.Proportional})
	c := b.Customer(dbtest.Entity)
	g := c.Grant(on(1, 1), credit.Grant{Amount: 2000, Price: usd(200000), ExpiresAt: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)})
	never := c.Grant(on(1, 1), credit.Grant{Amount: 100, Price: usd(10000)})
	c.Use(on(1, 10), g, 1000, nil)
	c.Use(on(1, 10), never, 10, nil)
	recognise(t, s, c)
	if run := adjustBreakage(t, s, "2026-01"); len(run.Adjustments) != 0 || fmt.Sprint(run.Missing) != "[{CRD 2026-03} {CRD never}]" {
		t.Errorf("without an estimate: %+v", run)
	}
	estimate(t, s, recognition.Estimate{From: "2026-01", ExpiresIn: "2026-03", Use: rate(t, "0.9")})
	addEstimate(t, s, recognition.Estimate{From: "2026-01", ExpiresIn: "2026-03", Use: rate(t, "0.6")}) // not approved
	log := func(p ledger.Period) string {
		t.Helper()
		run := adjustBreakage(t, s, p)
		if again := adjustBreakage(t, s, p); len(again.Adjustments) != 0 {
			t.Errorf("twice: %+v", again)
		}
		out := ""
		for _, a := range run.Adjustments {
			out += fmt.Sprintf("%s of %s/%s, used %s, expired %s: %s + %s by estimate %d\n", a.Unit, a.ExpiresIn, usd(a.Price), usd(a.Used), usd(a.Expired), usd(a.Adjusted), usd(a.Amount), a.Estimate)
		}
		return out
	}
	same(t, "January", log("2026-01"), "CRD of 2026-03/2000.00, used 1000.00, expired 0.00: 0.00 + 111.11 by estimate 1")
	c.Use(on(2, 10), g, 600, nil)
	recognise(t, s, c)
	same(t, "February", log("2026-02"), "CRD of 2026-03/2000.00, used 1600.00, expired 0.00: 111.11 + 66.67 by estimate 1")
	estimate(t, s, recognition.Estimate{From: "2026-02", ExpiresIn: "2026-03", Use: rate(t, "1")})
	same(t, "February, estimated anew", log("2026-02"), "CRD of 2026-03/2000.00, used 1600.00, expired 0.00: 177.78 + -177.78 by estimate 3")
	estimate(t, s, recognition.Estimate{From: "2026-02", ExpiresIn: "2026-03", Use: rate(t, "0.7")})
	if _, err := s.AdjustBreakage(ctx, dbtest.Entity, "2026-02"); credit.CodeOf(err) != credit.EstimateExceeded {
		t.Errorf("more used than expected: %v", err)
	}
	estimate(t, s, recognition.Estimate{From: "2026-02", ExpiresIn: "2026-03", Use: rate(t, "0.9")})
	same(t, "February, estimated once more", log("2026-02"), "CRD of 2026-03/2000.00, used 1600.00, expired 0.00: 0.00 + 177.78 by estimate 5")
	c.Use(on(3, 10), g, 100, nil)
	c.Expire(g)
	recognise(t, s, c)
	same(t, "March", log("2026-03"), "CRD of 2026-03/2000.00, used 1700.00, expired 300.00: 177.78 + -177.78 by estimate 0")
	same(t, "entries of February", journal(t, s, db.JournalFilter{Period: "2026-02", Account: ledger.BreakageAdjustment}), `
2026-02-28 2026-02 breakage: dr 2019 66.67 CRD 2026-03/; cr 4020 66.67;
2026-02-28 2026-02 breakage: cr 2019 177.78 CRD 2026-03/; dr 4020 177.78;
2026-02-28 2026-02 breakage: dr 2019 177.78 CRD 2026-03/; cr 4020 177.78;`)
	same(t, "balances", balances(t, s, db.Span{}), "1020 2100.00; 2010 -90.00; 4010 -1710.00; 4020 -300.00")
	if rows, err := s.BreakageLog(ctx, dbtest.Entity, ""); err != nil || len(rows) != 5 {
		t.Errorf("%d lines, %v", len(rows), err)
	}
	b.SetPeriod("2026-03", "closed")
	if _, err := s.AdjustBreakage(ctx, dbtest.Entity, "2026-03"); credit.CodeOf(err) != credit.PeriodClosed {
		t.Errorf("a closed period: %v", err)
	}
	if _, err := s.AdjustBreakage(ctx, "nobody", "2026-03"); credit.CodeOf(err) != credit.EntityNotFound {
		t.Errorf("no entity: %v", err)
	}
}

// Two runs at once post what one would.
func TestBreakageRunsAtOnce(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	policy(t, s, recognition.Policy{From: "2026-01", Breakage: recognition.Proportional})
	estimate(t, s, recognition.Estimate{From: "2026-01", Use: rate(t, "0.8")})
	c := b.Customer(dbtest.Entity)
	c.Use(on(1, 10), c.Grant(on(1, 1), credit.Grant{Amount: 100, Price: usd(10000)}), 40, nil)
	recognise(t, s, c)
	made := make(chan int, 4)
	for range cap(made) {
		go func() {
			run, err := s.AdjustBreakage(ctx, dbtest.Entity, "2026-01")
			if err != nil {
				t.Error(err)
			}
			made <- len(run.Adjustments)
		}()
	}
	total := 0
	for range cap(made) {
		total += <-made
	}
	if total != 1 {
		t.Errorf("%d adjustments", total)
	}
	same(t, "balances", balances(t, s, db.Span{}), "1020 100.00; 2010 -60.00; 2019 10.00; 4010 -40.00; 4020 -10.00")
}

// Starbucks, fiscal 2024, in millions: the second quarter, both quarters, and the first by difference.
func TestPublishedRollForward(t *testing.T) {
	q1 := db.RollForward{Opening: 15675, Purchases: 46872, Recognised: 40984, Adjustments: -134, Closing: 21697}
	q2 := db.RollForward{Opening: 21697, Purchases: 34565, Recognised: 37924, Adjustments: 149, Closing: 18189}
	half := db.RollForward{Opening: 15675, Purchases: 81437, Recognised: 78908, Adjustments: 15, Closing: 18189}
	for _, r := range []db.RollForward{q1, q2, half} {
		if !r.Foots() {
			t.Errorf("%+v does not foot", r)
		}
	}
	if q1.Purchases+q2.Purchases != half.Purchases || q1.Recognised+q2.Recognised != half.Recognised || q1.Adjustments+q2.Adjustments != half.Adjustments || q1.Closing != q2.Opening {
		t.Error("the quarters are not the half year")
	}
}

// A quarter of anything: purchases of several prices and currencies, with tax of their own or due at use, promotions, concessions, uses, returns of used
// credits, refunds, overage and expiry, under either method of breakage. At every month's end, and for every grant: what opened and came in, less what
// was recognised, expired and was refunded, is what closes, to the last minor unit; account 2010 is the sum of what grants carry; 2019 is
// within it, and empty when nothing is left; everything balances; and nothing is posted twice.
func TestAnyQuarter(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		entity := fmt.Sprintf("entity-%d", n)
		b.Entity(entity, "USD", "UTC")
		proportional := rapid.Bool().Draw(rt, "proportional")
		method := map[bool]recognition.Method{false: recognition.Remote, true: recognition.Proportional}[proportional]
		err := change(s, preparer, func(ctx context.Context, c *db.Catalog) error {
			row, err := c.AddPolicy(ctx, db.PolicyRow{ID: credit.NewID[credit.PolicyID](), Entity: entity, Evidence: "M", Signatures: db.Signatures{PreparedBy: preparer},
				Policy: recognition.Policy{From: "2026-01", Breakage: method, UseTax: rate(t, rapid.SampledFrom([]string{"0", "0.04", "0.25"}).Draw(rt, "tax at use")),
					Escheat: rate(t, rapid.SampledFrom([]string{"0", "0.3"}).Draw(rt, "escheat"))}})
			if err != nil {
				return err
			}
			_, err = c.ApprovePolicy(ctx, row.ID, approver)
			return err
		})
		if err != nil {
			rt.Fatal(err)
		}
		customers := []*dbtest.Customer{b.Customer(entity), b.Customer(entity)}
		var grants []*credit.Grant
		disputed := map[credit.GrantID]bool{}
		owner := map[credit.GrantID]*dbtest.Customer{}
		closing := map[string]int64{}
		for month := time.January; month <= time.March; month++ {
			period := ledger.Period(fmt.Sprintf("2026-%02d", month))
			for day := 1; day <= 6; day++ {
				c := rapid.SampledFrom(customers).Draw(rt, "customer")
				switch what := rapid.IntRange(0, 6).Draw(rt, "what"); {
				case what <= 1 || len(grants) == 0:
					g := credit.Grant{Amount: credit.Amount(rapid.Int64Range(1, 5000).Draw(rt, "N")), Price: usd(rapid.Int64Range(1, 100_000).Draw(rt, "P"))}
					switch rapid.IntRange(0, 6).Draw(rt, "type") {
					case 0:
						g.Type, g.Price = credit.Promotional, credit.Money{}
					case 1:
						g.Type = credit.Concession
					case 2:
						g.Type = credit.Overage
					case 3:
						g.Price.Currency, g.FXRate = "EUR", decimal.RequireFromString("1.0937")
					case 4:
						g.Tax = g.Price.Minor / 12
					}
					if g.Type != credit.Overage && rapid.Bool().Draw(rt, "expires") {
						g.ExpiresAt = on(month+time.Month(rapid.IntRange(0, 2).Draw(rt, "months")), 25)
					}
					made := c.Grant(on(month, day), g)
					grants, owner[made.ID] = append(grants, made), c
				default:
					g := rapid.SampledFrom(grants).Draw(rt, "grant")
					if !g.ExpiresAt.IsZero() && !on(month, day).Before(g.ExpiresAt) || g.Available == 0 {
						continue
					}
					k := credit.Amount(rapid.Int64Range(1, int64(g.Available)).Draw(rt, "k"))
					switch {
					case what <= 4:
						owner[g.ID].Use(on(month, day), g, k, credit.Dimensions{"model": rapid.SampledFrom([]string{"s", "l"}).Draw(rt, "model")})
					case what == 6 && g.Type == credit.Purchased && !disputed[g.ID] && rapid.Bool().Draw(rt, "dispute"):
						owner[g.ID].Dispute(on(month, day), g)
						disputed[g.ID] = true
					case what == 5 && g.Type == credit.Purchased:
						owner[g.ID].Refund(on(month, day), g, k, g.FXRate)
					case g.Consumed > 0:
						owner[g.ID].Do(dbtest.Operation{Kind: "reverse", At: on(month, day), Moves: []dbtest.Move{{Grant: g, Debit: "consumed", Credit: "available", Amount: min(k, g.Consumed)}}})
					}
				}
				if rapid.Bool().Draw(rt, "recognise") {
					recognise(t, s, c)
				}
			}
			for _, g := range grants {
				if !g.ExpiresAt.IsZero() && g.ExpiresAt.Month() == month && g.Available > 0 {
					owner[g.ID].Expire(g)
				}
			}
			for _, c := range customers {
				recognise(t, s, c)
			}
			estimateAnew(t, rt, s, entity, period)
			check(rt, s, entity, period, grants, closing)
		}
		span := db.Span{From: "2026-01", To: "2026-03"}
		quarter, err := s.RollForward(ctx, entity, span, credit.CustomerID{})
		if err != nil || !quarter.Foots() || quarter.Opening != 0 {
			rt.Fatalf("quarter: %+v, %v", quarter, err)
		}
		var months db.RollForward
		for _, p := range []ledger.Period{"2026-01", "2026-02", "2026-03"} {
			m, err := s.RollForward(ctx, entity, db.Span{From: p, To: p}, credit.CustomerID{})
			if err != nil || !m.Foots() || m.Opening != months.Closing {
				rt.Fatalf("%s: %+v, %v", p, m, err)
			}
			months = db.RollForward{Currency: m.Currency, Purchases: months.Purchases + m.Purchases, Concessions: months.Concessions + m.Concessions,
				Recognised: months.Recognised + m.Recognised, Breakage: months.Breakage + m.Breakage, Refunds: months.Refunds + m.Refunds,
				Corrections: months.Corrections + m.Corrections, Adjustments: months.Adjustments + m.Adjustments, Closing: m.Closing}
		}
		if months != quarter {
			rt.Fatalf("months %+v, quarter %+v", months, quarter)
		}
	})
}

// estimateAnew runs the adjustments with an estimate that what was used so far does not exceed.
func estimateAnew(t *testing.T, rt *rapid.T, s *db.Store, entity string, period ledger.Period) {
	for _, use := range []string{fmt.Sprintf("0.%02d", rapid.IntRange(30, 99).Draw(rt, "expected")), "1"} {
		err := change(s, preparer, func(ctx context.Context, c *db.Catalog) error {
			row, err := c.AddEstimate(ctx, db.EstimateRow{ID: credit.NewID[credit.EstimateID](), Entity: entity, Method: "m", Evidence: "e",
				Signatures: db.Signatures{PreparedBy: preparer}, Estimate: recognition.Estimate{Unit: dbtest.Unit, From: period, Use: rate(t, use)}})
			if err == nil {
				_, err = c.ApproveEstimate(ctx, row.ID, approver)
			}
			return err
		})
		if err != nil {
			rt.Fatal(err)
		}
		_, err = s.AdjustBreakage(ctx, entity, period)
		if err == nil {
			break
		}
		if credit.CodeOf(err) != credit.EstimateExceeded {
			rt.Fatal(err)
		}
	}
	if again, err := s.AdjustBreakage(ctx, entity, period); err != nil || len(again.Adjustments) != 0 {
		rt.Fatalf("twice: %+v, %v", again, err)
	}
}

// check holds a month's end.
func check(rt *rapid.T, s *db.Store, entity string, period ledger.Period, grants []*credit.Grant, closing map[string]int64) {
	span := db.Span{From: period, To: period}
	rows, err := s.RollForwardByGrant(ctx, entity, span, credit.CustomerID{}, credit.GrantID{}, 1000)
	if err != nil {
		rt.Fatal(err)
	}
	byGrant := map[credit.GrantID]db.RollForward{}
	for _, r := range rows {
		byGrant[r.Grant] = r
	}
	var carried int64
	for _, g := range grants {
		r := byGrant[g.ID]
		if !r.Foots() || r.Opening != closing[g.ID.String()] {
			rt.Fatalf("%s of grant %s: %+v, closed with %d before", period, g.ID, r, closing[g.ID.String()])
		}
		if g.Type == credit.Overage {
			if r.Closing != 0 {
				rt.Fatalf("overage carries %d", r.Closing)
			}
			continue
		}
		gone := g.Granted - g.Available
		if want := g.Basis - credit.MulDiv(g.Basis, int64(gone), int64(g.Granted)); r.Closing != want {
			rt.Fatalf("grant %+v carries %d, want %d", g, r.Closing, want)
		}
		closing[g.ID.String()] = r.Closing
		carried += r.Closing
	}
	tb, err := s.TrialBalance(ctx, entity, db.Span{To: period})
	if err != nil || tb.Debit != tb.Credit {
		rt.Fatalf("trial balance: %+v, %v", tb, err)
	}
	var liability, ahead int64
	for _, a := range tb.Accounts {
		switch a.Account {
		case ledger.PrepaidCredits:
			liability = a.Credit - a.Debit
		case ledger.BreakageAdjustment:
			ahead = a.Debit - a.Credit
		}
	}
	err = pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		all, err := db.ReconcileOn(ctx, tx, db.CloseKey{Entity: entity, Period: period, Version: 1})
		for _, r := range all {
			if r.Stands() {
				rt.Errorf("%s at the end of %s: %+v", r.Code, period, r)
			}
		}
		return err
	})
	if err != nil {
		rt.Fatal(err)
	}
	if liability != carried || ahead < 0 || ahead > carried {
		rt.Fatalf("2010 is %d, grants carry %d, 2019 is %d", liability, carried, ahead)
	}
}
