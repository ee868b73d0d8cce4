package db_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

// closing is a book whose periods are closed by people.
type closing struct {
	*dbtest.Book
	t                           *testing.T
	preparer, controller, other int32 // finance, and two controllers
}

func newClosing(t *testing.T) *closing {
	t.Helper()
	c := &closing{Book: dbtest.NewBook(t, dbtest.Open(t)), t: t}
	c.preparer, c.controller, c.other = c.key("Ada", "finance"), c.key("Ben", "controller"), c.key("Cleo", "controller")
	return c
}

// key makes an API key.
func (c *closing) key(name, role string) (no int32) {
	c.t.Helper()
	err := c.Store.Pool.QueryRow(ctx, "INSERT INTO api_keys (digest, hint, name, role) VALUES (gen_random_uuid()::text::bytea, 'hint', $1, $2) RETURNING no", name, role).Scan(&no)
	if err != nil {
		c.t.Fatal(err)
	}
	return no
}

// change makes a change and returns its refusal.
func (c *closing) change(do func(*db.Catalog) error) error {
	_, _, err := c.Store.Change(ctx, db.Audited{Action: "test"}, func(_ context.Context, cat *db.Catalog) (db.Outcome, error) {
		return db.Outcome{Status: 200, Answer: []byte("{}")}, do(cat)
	})
	return err
}

func (c *closing) must(do func(*db.Catalog) error) {
	c.t.Helper()
	if err := c.change(do); err != nil {
		c.t.Fatal(err)
	}
}

func (c *closing) refused(want credit.Code, do func(*db.Catalog) error) {
	c.t.Helper()
	if err := c.change(do); credit.CodeOf(err) != want {
		c.t.Errorf("%v, want %s", err, want)
	}
}

func of(p ledger.Period, version int) db.CloseKey {
	return db.CloseKey{Entity: dbtest.Entity, Period: p, Version: version}
}

func (c *closing) start(p ledger.Period) (k db.CloseKey) {
	c.t.Helper()
	c.must(func(cat *db.Catalog) error {
		r, err := cat.StartClose(ctx, dbtest.Entity, p, c.preparer)
		k = r.CloseKey
		return err
	})
	return k
}

// steps are those that need nothing but the store.
var steps = []struct {
	name string
	run  func(*db.Store, context.Context, db.CloseKey) (db.StepResult, error)
}{
	{db.StepCutOff, (*db.Store).CutOff}, {db.StepExpiries, (*db.Store).Expiries}, {db.StepOverage, (*db.Store).Overage},
	{db.StepCostAccrual, func(s *db.Store, ctx context.Context, k db.CloseKey) (db.StepResult, error) {
		return s.CostAccrual(ctx, k, fx.DefaultPolicy)
	}},
	{db.StepBreakage, (*db.Store).Breakage}, {db.StepManualJournals, (*db.Store).ManualJournals},
	{db.StepReconciliations, func(s *db.Store, ctx context.Context, k db.CloseKey) (db.StepResult, error) {
		return s.Reconcile(ctx, k, 0)
	}},
	{db.StepReports, (*db.Store).Reports},
}

// run runs the steps, and returns what blocks the close.
func (c *closing) run(k db.CloseKey) (blocked []string) {
	c.t.Helper()
	for _, s := range steps {
		row, err := c.Store.PeriodClose(ctx, k)
		if err != nil {
			c.t.Fatal(err)
		}
		r, err := s.run(c.Store, ctx, k)
		if err == nil {
			_, err = c.Store.SaveStep(ctx, k, s.name, row.ReadAt, r)
		}
		if err != nil {
			c.t.Fatalf("%s: %v", s.name, err)
		}
		if r.Blocked != "" {
			blocked = append(blocked, s.name+": "+r.Blocked)
		}
	}
	return blocked
}

// review takes a close that nothing blocks to its pack.
func (c *closing) review(k db.CloseKey) (hash string) {
	c.t.Helper()
	names := make([]string, len(steps))
	for i, s := range steps {
		names[i] = s.name
	}
	if blocked := c.run(k); blocked != nil {
		c.t.Fatalf("%s is blocked: %q", k.Subject(), blocked)
	}
	if err := c.Store.ReviewClose(ctx, k); err != nil {
		c.t.Fatal(err)
	}
	if hash, err := c.Store.MakePack(ctx, k, names); err != nil || hash != "" {
		c.t.Fatalf("a pack of what was found before the review: %q, %v", hash, err)
	}
	c.run(k)
	hash, err := c.Store.MakePack(ctx, k, names)
	if err != nil || hash == "" {
		c.t.Fatalf("no pack: %v", err)
	}
	return hash
}

func (c *closing) approve(k db.CloseKey, hash string, by int32) error {
	return c.change(func(cat *db.Catalog) error { _, err := cat.ApproveClose(ctx, k.Entity, k.Period, hash, by); return err })
}

// close closes a period.
func (c *closing) close(p ledger.Period) {
	c.t.Helper()
	k := c.start(p)
	if err := c.approve(k, c.review(k), c.controller); err != nil {
		c.t.Fatal(err)
	}
	if status, err := c.Store.LockPeriodClosed(ctx, k); err != nil || status != db.CloseClosed {
		c.t.Fatalf("%s, %v", status, err)
	}
}

func (c *closing) status(p ledger.Period) (s recognition.Status) {
	c.t.Helper()
	if err := c.Store.Pool.QueryRow(ctx, "SELECT status FROM periods WHERE entity = $1 AND period = $2", dbtest.Entity, string(p)).Scan(&s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// quarter has January and February with purchases, uses, overage and a refund, all booked.
func (c *closing) quarter() (*dbtest.Customer, *credit.Grant, *credit.Grant) {
	cu := c.Customer(dbtest.Entity)
	g := cu.Grant(on(1, 3), credit.Grant{Amount: 1200, Price: usd(10000), Tax: 800})
	over := cu.Grant(on(1, 4), credit.Grant{Type: credit.Overage, Amount: 1000, Price: usd(5000)})
	cu.Use(on(1, 10), g, 700, nil)
	cu.Use(on(1, 11), over, 100, nil)
	cu.Use(on(2, 10), g, 100, nil)
	recognise(c.t, c.Store, cu)
	return cu, g, over
}

func TestCloseApproval(t *testing.T) {
	t.Parallel()
	c := newClosing(t)
	cu, g, _ := c.quarter()
	c.refused(credit.PeriodOrder, func(cat *db.Catalog) error {
		_, err := cat.StartClose(ctx, dbtest.Entity, "2026-02", c.preparer)
		return err
	})
	c.refused(credit.CloseState, func(cat *db.Catalog) error {
		_, err := cat.StartClose(ctx, dbtest.Entity, "2999-01", c.preparer)
		return err
	})
	k := c.start("2026-01")
	if again := c.start("2026-01"); again != k || c.status("2026-01") != recognition.SoftClosed {
		t.Errorf("%+v, then %+v", k, again)
	}
	c.refused(credit.CloseState, func(cat *db.Catalog) error {
		_, err := cat.ApproveClose(ctx, k.Entity, k.Period, "", c.controller)
		return err
	})
	hash := c.review(k)
	if _, err := c.Store.SaveStep(ctx, k, db.StepReports, time.Now().Add(time.Hour), db.StepResult{Figures: "other"}); err != nil || c.figures(k, db.StepReports) == `"other"` {
		t.Errorf("a step was changed in review: %v", err)
	}
	if again := func() string { h, _ := c.Store.MakePack(ctx, k, nil); return h }(); again != hash {
		t.Errorf("the pack changed from %s to %s", hash, again)
	}
	// Nobody but another person, who is a controller, and of this very pack.
	for by, want := range map[int32]credit.Code{
		c.preparer: credit.Forbidden, c.key("service", "product"): credit.Forbidden, c.key("service", "ops"): credit.Forbidden,
		c.key("root", "admin"): credit.Forbidden, c.key("ada", "controller"): credit.SecondPerson,
	} {
		if err := c.approve(k, hash, by); credit.CodeOf(err) != want {
			t.Errorf("by %d: %v, want %s", by, err, want)
		}
	}
	if err := c.approve(k, strings.Repeat("0", 64), c.controller); credit.CodeOf(err) != credit.PackChanged {
		t.Errorf("another hash: %v", err)
	}
	if _, err := c.Store.Pool.Exec(ctx, "UPDATE closes SET status = 'approved', approver = preparer, approved_at = now()"); err == nil {
		t.Error("the database lets the preparer approve")
	}
	// What is booked meanwhile is late; back in preparation it belongs to the period, and makes another pack.
	cu.Do(dbtest.Operation{Kind: "consume", At: on(3, 1), ServiceAt: on(1, 20), Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "consumed", Amount: 10}}})
	if err := c.approve(k, hash, c.controller); err != nil {
		t.Fatal(err)
	}
	c.must(func(cat *db.Catalog) error {
		_, err := cat.RejectClose(ctx, k.Entity, k.Period, "Usage is missing")
		return err
	})
	recognise(t, c.Store, cu)
	second := c.review(k)
	if second == hash {
		t.Error("another entry, and the same pack")
	}
	if err := c.approve(k, hash, c.controller); credit.CodeOf(err) != credit.PackChanged {
		t.Errorf("the old hash: %v", err)
	}
	if err := c.approve(k, second, c.controller); err != nil {
		t.Fatal(err)
	}
	// An entry that gets in behind the lock's back voids the approval.
	c.Corrupt(`INSERT INTO journal_entries (id, cause, entity, period, service_on, kind) VALUES (gen_random_uuid(), 'x', $1, '2026-01', '2026-01-31', 'manual')`, dbtest.Entity)
	if status, err := c.Store.LockPeriodClosed(ctx, k); err != nil || status != db.ClosePreparing || c.status("2026-01") != recognition.SoftClosed {
		t.Errorf("%s, %v, %s", status, err, c.status("2026-01"))
	}
	row, err := c.Store.PeriodClose(ctx, k)
	if err != nil || row.Approver != 0 || row.PackHash != "" || row.Note == "" {
		t.Errorf("%+v, %v", row, err)
	}
}

func (c *closing) figures(k db.CloseKey, step string) string {
	c.t.Helper()
	rows, err := c.Store.Steps(ctx, k)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(rows[slices.IndexFunc(rows, func(r db.StepRow) bool { return r.Step == step })].Figures)
}

// What an attempt finds that was thought dead never takes the place of what a later one has found.
func TestALateStep(t *testing.T) {
	t.Parallel()
	c := newClosing(t)
	c.quarter()
	k := c.start("2026-01")
	c.run(k)
	found := c.figures(k, db.StepReports)
	if _, err := c.Store.SaveStep(ctx, k, db.StepReports, time.Now().Add(-time.Minute), db.StepResult{Figures: "stale"}); err != nil || c.figures(k, db.StepReports) != found {
		t.Errorf("%s, %v", c.figures(k, db.StepReports), err)
	}
}

// The newest closed period is reopened first, by two people, and closed again as the next version, which tells why.
func TestReopen(t *testing.T) {
	t.Parallel()
	c := newClosing(t)
	c.quarter()
	c.close("2026-01")
	c.close("2026-02")
	ask := func(p ledger.Period) func(*db.Catalog) error {
		return func(cat *db.Catalog) error {
			_, err := cat.AskReopening(ctx, dbtest.Entity, p, "An invoice was missed", c.controller)
			return err
		}
	}
	approve := func(by int32) func(*db.Catalog) error {
		return func(cat *db.Catalog) error {
			_, err := cat.ApproveReopening(ctx, dbtest.Entity, "2026-02", by)
			return err
		}
	}
	c.refused(credit.PeriodOrder, ask("2026-01"))
	c.refused(credit.NotFound, approve(c.other))
	c.must(ask("2026-02"))
	c.refused(credit.CloseState, ask("2026-02"))
	c.refused(credit.SecondPerson, approve(c.controller))
	c.refused(credit.Forbidden, approve(c.preparer))
	if c.status("2026-02") != recognition.Closed {
		t.Fatal("it was reopened")
	}
	c.must(approve(c.other))
	c.refused(credit.CloseState, approve(c.other))
	if c.status("2026-02") != recognition.Reopened {
		t.Fatal(c.status("2026-02"))
	}
	for _, sql := range []string{
		"UPDATE periods SET status = 'reopened', version = 2 WHERE period = '2026-01'", "UPDATE periods SET status = 'closed' WHERE period = '2026-02'",
		"UPDATE periods SET status = 'open' WHERE period = '2026-01'", "UPDATE closes SET note = 'x' WHERE period = '2026-01'",
		"INSERT INTO periods (entity, period) VALUES ('" + dbtest.Entity + "', '2025-12')", "INSERT INTO periods (entity, period, status) VALUES ('" + dbtest.Entity + "', '2026-09', 'closed')",
	} {
		if _, err := c.Store.Pool.Exec(ctx, sql); err == nil {
			t.Errorf("done: %s", sql)
		}
	}
	first, err := c.Store.PeriodClose(ctx, of("2026-02", 1))
	if err != nil {
		t.Fatal(err)
	}
	c.close("2026-02")
	second, err := c.Store.PeriodClose(ctx, of("2026-02", 0))
	if err != nil || second.Version != 2 || !strings.Contains(string(second.Pack), "An invoice was missed") || !strings.Contains(string(second.Pack), first.PackHash) ||
		!strings.Contains(string(second.Pack), "Cleo") {
		t.Errorf("%+v, %v", second, err)
	}
}

// Each break is found by its own reconciliation and by no other one.
func TestReconciliationsFindTheirBreak(t *testing.T) {
	t.Parallel()
	c := newClosing(t)
	cu, g, over := c.quarter()
	pair := cu.Grant(on(2, 11), credit.Grant{Amount: 90, Price: usd(1000)})
	cu.Transfer(on(2, 12), pair, 30)
	cu.Dispute(on(2, 13), cu.Grant(on(2, 12), credit.Grant{Amount: 100, Price: usd(500)}))
	recognise(t, c.Store, cu)
	c.close("2026-01")
	k := c.start("2026-02")
	if blocked := c.run(k); blocked != nil {
		t.Fatalf("%q", blocked)
	}
	differing := func(tx pgx.Tx) string {
		t.Helper()
		all, err := db.ReconcileOn(ctx, tx, k)
		if err != nil {
			t.Fatal(err)
		}
		var codes []string
		for _, r := range all {
			if r.Stands() {
				codes = append(codes, r.Code)
				if len(r.First) == 0 || r.First[0].A == r.First[0].B {
					t.Errorf("%s names nothing: %+v", r.Code, r)
				}
			}
		}
		return strings.Join(codes, " ")
	}
	entry := `WITH e AS (INSERT INTO journal_entries (id, cause, entity, period, service_on, kind) VALUES (gen_random_uuid(), 'x', 'acme', '%s', '%s', 'manual') RETURNING id)
		INSERT INTO postings (entry_id, n, account, side, amount_minor, currency) SELECT id, x.n, x.a, x.s, x.m, 'USD' FROM e, (VALUES (1, 5010, 'dr', 7), (2, 6010, 'cr', %d)) AS x (n, a, s, m)`
	stated := `INSERT INTO close_statements (id, entity, period, kind, amount_minor, currency, reference, as_of, recorded_by) VALUES (gen_random_uuid(), 'acme', '2026-02', '%s', %d, 'USD', 'r', now(), 1)`
	owner := dbtest.Owner(t, c.Store)
	if _, err := owner.Exec(ctx, "SET session_replication_role = replica"); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ want, sql string }{
		{"", "SELECT 1"},
		{"R1", fmt.Sprintf(entry, "2026-02", "2026-02-03", 8)},
		{"R2", fmt.Sprintf("UPDATE grant_carrying SET posted_out = posted_out + 1 WHERE grant_id = '%x'", g.ID[:])},
		{"R2", strings.NewReplacer("5010", "2019", "6010", "4020").Replace(fmt.Sprintf(entry, "2026-02", "2026-02-03", 7))},
		{"R3", fmt.Sprintf("INSERT INTO movements (grant_id, ver, n, debit, credit, amount, after) VALUES ('%x', 9000, 1, 'issued', 'available', 5, 5)", g.ID[:])},
		{"R4", fmt.Sprintf("UPDATE grant_carrying SET disposed = 1200 WHERE grant_id = '%x'", g.ID[:])},
		{"R5", fmt.Sprintf("INSERT INTO movements (grant_id, ver, n, debit, credit, amount, after) SELECT '%x', max(ver), 9, 'available', 'consumed', 5, 5 FROM operations", g.ID[:])},
		{"R7", fmt.Sprintf(stated, "processor", 11799)},
		{"", fmt.Sprintf(stated, "processor", 11800)},
		{"R8", fmt.Sprintf(stated, "bank", 1)},
		{"", fmt.Sprintf(stated, "bank", 0)},
		{"R9", fmt.Sprintf("UPDATE grant_carrying SET posted_out = posted_out + 1 WHERE grant_id = '%x'", over.ID[:])},
		{"R10", fmt.Sprintf(entry, "2026-01", "2026-01-03", 7)},
		{"R11", fmt.Sprintf(stated, "tax", 801)},
		{"", fmt.Sprintf(stated, "tax", 800)},
		{"R12", fmt.Sprintf(stated, "provider", 1)},
		{"R13", fmt.Sprintf(entry, "2026-02", "2026-01-03", 7)},
		{"R14", strings.NewReplacer("5010", "2011").Replace(fmt.Sprintf(entry, "2026-02", "2026-02-03", 7))},
		{"R15", strings.NewReplacer("5010", "1130").Replace(fmt.Sprintf(entry, "2026-02", "2026-02-03", 7))},
		{"R15", "UPDATE disputes SET basis_minor = basis_minor + 1"},
	} {
		tx, err := owner.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, x.sql); err != nil {
			t.Fatalf("%s: %v", x.sql, err)
		}
		if got := differing(tx); got != x.want {
			t.Errorf("found by %q, want %q: %s", got, x.want, x.sql)
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := c.Store.Reconcile(ctx, k, 2); err != nil || r.Blocked != "These do not agree: R6 cached balances." {
		t.Errorf("%+v, %v", r.Blocked, err)
	}
}

// A difference blocks until a controller waives it, who is named in the pack; another difference is not waived by that. What the settings require must
// be there.
func TestWaivers(t *testing.T) {
	t.Parallel()
	c := newClosing(t)
	c.quarter()
	state := func(amount int64) {
		c.must(func(cat *db.Catalog) error {
			_, err := cat.AddStatement(ctx, db.StatementRow{ID: credit.NewID[credit.StatementID](), Entity: dbtest.Entity, Period: "2026-01", Kind: "processor",
				Amount: usd(amount), Reference: "balance", AsOf: on(2, 1), RecordedBy: c.preparer})
			return err
		})
	}
	waive := func(code string, by int32) func(*db.Catalog) error {
		return func(cat *db.Catalog) error {
			_, err := cat.Waive(ctx, dbtest.Entity, "2026-01", code, "A payout in transit", by)
			return err
		}
	}
	c.must(func(cat *db.Catalog) error {
		return cat.SetCloseSettings(ctx, dbtest.Entity, db.CloseSettings{LateHours: 24, Statements: []string{"processor"}}, c.controller)
	})
	k := c.start("2026-01")
	if blocked := c.run(k); len(blocked) != 1 || !strings.Contains(blocked[0], "R7") {
		t.Errorf("without a statement: %q", blocked)
	}
	state(10700)
	if blocked := c.run(k); len(blocked) != 1 || !strings.Contains(blocked[0], "R7") {
		t.Errorf("with another figure: %q", blocked)
	}
	c.refused(credit.NotFound, waive("R2", c.controller))
	c.refused(credit.SecondPerson, waive("R7", c.key("Ada", "controller")))
	c.refused(credit.Forbidden, waive("R7", c.preparer))
	c.must(waive("R7", c.controller))
	if blocked := c.run(k); blocked != nil {
		t.Errorf("waived: %q", blocked)
	}
	state(10600)
	if blocked := c.run(k); len(blocked) != 1 {
		t.Errorf("another difference is waived: %q", blocked)
	}
	state(10700)
	c.review(k)
	row, err := c.Store.PeriodClose(ctx, k)
	if err != nil {
		t.Fatal(err)
	}
	var pack struct {
		Waivers []struct {
			Reconciliation, Name, Reason string
			InForce                      bool `json:"in_force"`
		}
	}
	if err := json.Unmarshal(row.Pack, &pack); err != nil || len(pack.Waivers) != 1 || pack.Waivers[0].Name != "Ben" || pack.Waivers[0].Reason != "A payout in transit" ||
		pack.Waivers[0].Reconciliation != "R7" || !pack.Waivers[0].InForce {
		t.Errorf("%+v, %v", pack, err)
	}
	c.refused(credit.CloseState, func(cat *db.Catalog) error {
		_, err := cat.AddStatement(ctx, db.StatementRow{ID: credit.NewID[credit.StatementID](), Entity: dbtest.Entity, Period: "2026-01", Kind: "bank", Amount: usd(1),
			Reference: "x", AsOf: on(2, 1), RecordedBy: c.preparer})
		return err
	})
}

// A manual journal is booked once another person approves it, in a period that takes entries, and never in a control account.
func TestManualJournals(t *testing.T) {
	t.Parallel()
	c := newClosing(t)
	c.quarter()
	draft := func(change func(*db.ManualJournal)) db.ManualJournal {
		j := db.ManualJournal{ID: credit.NewID[credit.JournalID](), Entity: dbtest.Entity, Period: "2026-01", Day: "2026-01-31", Reason: "Fees", Preparer: c.preparer,
			Postings: []db.Posting{{Account: 5020, Side: ledger.Dr, Amount: "12.34"}, {Account: 1020, Side: ledger.Cr, Amount: "12.34"}}}
		change(&j)
		return j
	}
	prepare := func(j db.ManualJournal) func(*db.Catalog) error {
		return func(cat *db.Catalog) error { _, err := cat.PrepareJournal(ctx, j); return err }
	}
	for what, change := range map[string]func(*db.ManualJournal){
		"unbalanced":             func(j *db.ManualJournal) { j.Postings[0].Amount = "12.35" },
		"a control account":      func(j *db.ManualJournal) { j.Postings[1].Account = 2010 },
		"an unknown account":     func(j *db.ManualJournal) { j.Postings[1].Account = 9999 },
		"less than zero":         func(j *db.ManualJournal) { j.Postings[0].Amount, j.Postings[1].Amount = "-1.00", "-1.00" },
		"nothing":                func(j *db.ManualJournal) { j.Postings[0].Amount, j.Postings[1].Amount = "0.00", "0.00" },
		"too many places":        func(j *db.ManualJournal) { j.Postings[0].Amount, j.Postings[1].Amount = "0.001", "0.001" },
		"a day of another month": func(j *db.ManualJournal) { j.Day = "2026-02-01" },
	} {
		if err := c.change(prepare(draft(change))); credit.CodeOf(err) != credit.InvalidRequest {
			t.Errorf("%s: %v", what, err)
		}
	}
	same := func(*db.ManualJournal) {}
	a, b := draft(same), draft(same)
	c.must(prepare(a))
	c.must(prepare(b))
	approve := func(id credit.JournalID, by int32) func(*db.Catalog) error {
		return func(cat *db.Catalog) error { _, err := cat.ApproveJournal(ctx, id, by); return err }
	}
	c.refused(credit.JournalNotFound, approve(credit.NewID[credit.JournalID](), c.controller))
	c.refused(credit.Forbidden, approve(a.ID, c.preparer))
	c.refused(credit.SecondPerson, approve(a.ID, c.key("ADA", "controller")))
	if n := len(c.entries(db.JournalFilter{Entity: dbtest.Entity, Account: 5020})); n != 0 {
		t.Errorf("%d entries were booked by what was refused", n)
	}
	k := c.start("2026-01")
	if blocked := c.run(k); len(blocked) != 1 || !strings.HasPrefix(blocked[0], db.StepManualJournals) {
		t.Errorf("%q", blocked)
	}
	c.must(approve(a.ID, c.controller))
	c.refused(credit.JournalState, approve(a.ID, c.controller))
	c.must(func(cat *db.Catalog) error { _, err := cat.RejectJournal(ctx, b.ID, "Twice", c.other); return err })
	booked := c.entries(db.JournalFilter{Entity: dbtest.Entity, Account: 5020})
	if len(booked) != 1 || booked[0].Kind != ledger.KindManual || booked[0].Period != "2026-01" || booked[0].Late() {
		t.Errorf("%+v", booked)
	}
	if err := c.approve(k, c.review(k), c.controller); err != nil {
		t.Fatal(err)
	}
	c.refused(credit.CloseState, prepare(draft(same)))
	if _, err := c.Store.LockPeriodClosed(ctx, k); err != nil {
		t.Fatal(err)
	}
	c.refused(credit.PeriodClosed, prepare(draft(same)))
}

func (c *closing) entries(f db.JournalFilter) []db.EntryRow {
	c.t.Helper()
	rows, err := c.Store.Journal(ctx, f, credit.EntryID{}, 10_000)
	if err != nil {
		c.t.Fatal(err)
	}
	return rows
}

// Sixteen writers book usage of January while it is closed: no entry comes into it after the lock, none is lost, and what came too late is in
// February and says so.
func TestWritersWhileAPeriodCloses(t *testing.T) {
	t.Parallel()
	c := newClosing(t)
	const writers, most = 16, 200
	type writer struct {
		*dbtest.Customer
		g *credit.Grant
	}
	all := make([]writer, writers)
	for i := range all {
		cu := c.Customer(dbtest.Entity)
		all[i] = writer{cu, cu.Grant(on(1, 1), credit.Grant{Amount: 10_000, Price: usd(1_000_000)})}
		recognise(t, c.Store, cu)
	}
	k := c.start("2026-01")
	var closed atomic.Bool
	var running sync.WaitGroup
	used := make([]int, writers)
	for i, w := range all {
		running.Go(func() {
			for after := 0; used[i] < most && after < 5; used[i]++ {
				if closed.Load() {
					after++
				}
				w.Do(dbtest.Operation{Kind: "consume", At: on(3, 1), ServiceAt: on(1, 20), Moves: []dbtest.Move{{Grant: w.g, Debit: "available", Credit: "consumed", Amount: 1}}})
				if _, err := c.Store.RecogniseCustomer(ctx, w.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := c.Store.ReviewClose(ctx, k); err != nil {
		t.Fatal(err)
	}
	before := c.count("2026-01")
	hash := func() string {
		names := []string{}
		for _, s := range steps {
			names = append(names, s.name)
		}
		for {
			if blocked := c.run(k); blocked != nil {
				t.Errorf("%q", blocked)
			}
			if h, err := c.Store.MakePack(ctx, k, names); err != nil || h != "" {
				return h
			}
		}
	}()
	if err := c.approve(k, hash, c.controller); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Store.LockPeriodClosed(ctx, k); err != nil || status != db.CloseClosed {
		t.Fatalf("%s, %v", status, err)
	}
	closed.Store(true)
	running.Wait()
	if after := c.count("2026-01"); after != before {
		t.Errorf("%d entries before the lock, %d after it", before, after)
	}
	total, late := 0, 0
	for _, e := range c.entries(db.JournalFilter{Entity: dbtest.Entity, Account: ledger.UsageRevenue}) {
		i := slices.IndexFunc(e.Postings, func(p ledger.Posting) bool { return p.Account == ledger.UsageRevenue })
		total += int(e.Postings[i].Units)
		if e.Late() {
			late++
			if e.Period != "2026-02" || e.Day != "2026-01-20" {
				t.Errorf("%+v", e)
			}
		}
	}
	want := 0
	for _, n := range used {
		want += n
	}
	if total != want || late < writers {
		t.Errorf("%d credits were used, %d are booked, %d entries are late", want, total, late)
	}
	if _, err := c.Store.Pool.Exec(ctx, `INSERT INTO journal_entries (id, cause, entity, period, service_on, kind)
		VALUES (gen_random_uuid(), 'y', $1, '2026-01', '2026-01-31', 'manual')`, dbtest.Entity); err == nil || !strings.Contains(err.Error(), "period 2026-01 is closed") {
		t.Errorf("an entry in a closed period: %v", err)
	}
}

func (c *closing) count(p ledger.Period) (n int) {
	c.t.Helper()
	if err := c.Store.Pool.QueryRow(ctx, "SELECT count(*) FROM journal_entries WHERE period = $1", string(p)).Scan(&n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// The cut-off waits for recognition, for expiries, and for the end of the late window.
func TestCutOff(t *testing.T) {
	t.Parallel()
	c := newClosing(t)
	cu, g, _ := c.quarter()
	c.must(func(cat *db.Catalog) error {
		return cat.SetCloseSettings(ctx, dbtest.Entity, db.CloseSettings{LateHours: 816, Statements: []string{}}, c.controller)
	})
	k := c.start("2026-01")
	c.must(func(cat *db.Catalog) error {
		_, err := cat.SetLateWindow(ctx, dbtest.Entity, "2026-01", time.Now().Add(time.Hour))
		return err
	})
	want := func(what string) {
		t.Helper()
		if blocked := c.run(k); what == "" && blocked != nil || what != "" && (len(blocked) != 1 || !strings.Contains(blocked[0], what)) {
			t.Errorf("%q, want %q", blocked, what)
		}
	}
	want("late window")
	c.must(func(cat *db.Catalog) error {
		_, err := cat.SetLateWindow(ctx, dbtest.Entity, "2026-01", time.Now().Add(-time.Hour))
		return err
	})
	want("")
	cu.Do(dbtest.Operation{Kind: "consume", At: on(3, 1), ServiceAt: on(1, 20), Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "consumed", Amount: 10}}})
	want("Not everything of customer " + cu.ID.String())
	recognise(t, c.Store, cu)
	want("")
	due := cu.Grant(on(1, 6), credit.Grant{Amount: 10, Price: usd(100), ExpiresAt: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)})
	recognise(t, c.Store, cu)
	want("1 grants have ended and not expired")
	cu.Expire(due)
	want("Not everything of customer " + cu.ID.String())
	recognise(t, c.Store, cu)
	want("")
	c.Exec("INSERT INTO outbox (topic, subject, created_at) VALUES ('refund.start', 'x', '2026-01-31')")
	want("1 things")
}

// A close adjusts breakage for what is booked until its review, and waits for the estimates that it needs.
func TestBreakageOfAClose(t *testing.T) {
	t.Parallel()
	c := newClosing(t)
	policy(t, c.Store, recognition.Policy{From: "2026-01", Breakage: recognition.Proportional})
	cu := c.Customer(dbtest.Entity)
	g := cu.Grant(on(1, 3), credit.Grant{Amount: 1000, Price: usd(100000)})
	cu.Use(on(1, 10), g, 400, nil)
	recognise(t, c.Store, cu)
	k := c.start("2026-01")
	want := func(what, blocked, balance string) {
		t.Helper()
		got := c.run(k)
		if blocked == "" && got != nil || blocked != "" && (len(got) != 1 || !strings.HasPrefix(got[0], db.StepBreakage+": "+blocked)) {
			t.Errorf("%s: blocked by %q, want %q", what, got, blocked)
		}
		var f struct{ Balance string }
		if err := json.Unmarshal([]byte(c.figures(k, db.StepBreakage)), &f); err != nil || f.Balance != balance {
			t.Errorf("%s: 2019 is %s, want %s; %v", what, f.Balance, balance, err)
		}
	}
	want("without an estimate", "An estimate is missing for 1 cohorts: CRD never.", "0.00")
	estimate(t, c.Store, recognition.Estimate{From: "2026-01", Use: rate(t, "0.3")})
	if got := c.run(k); len(got) != 1 || !strings.Contains(got[0], "CRD never") {
		t.Errorf("more used than expected: %q", got)
	}
	estimate(t, c.Store, recognition.Estimate{From: "2026-01", Use: rate(t, "0.8")})
	want("estimated", "", "-100.00")
	figures, entries := c.figures(k, db.StepBreakage), c.count("2026-01")
	want("again", "", "-100.00")
	if c.figures(k, db.StepBreakage) != figures || c.count("2026-01") != entries {
		t.Errorf("run again it says %s, after %s", c.figures(k, db.StepBreakage), figures)
	}
	cu.Do(dbtest.Operation{Kind: "consume", At: on(3, 1), ServiceAt: on(1, 20), Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "consumed", Amount: 200}}})
	recognise(t, c.Store, cu)
	want("after late usage", "", "-150.00")
	hash := c.review(k)
	if err := c.Store.PrepareAgain(ctx, k, ""); err != nil { // in review with its pack: nothing happens
		t.Fatal(err)
	}
	c.must(func(cat *db.Catalog) error {
		_, err := cat.RejectClose(ctx, k.Entity, k.Period, "Another estimate")
		return err
	})
	if err := c.Store.ReviewClose(ctx, k); err != nil {
		t.Fatal(err)
	}
	estimate(t, c.Store, recognition.Estimate{From: "2026-01", Use: rate(t, "0.75")})
	want("estimated in review", "Breakage is to be adjusted again.", "-150.00")
	if err := c.Store.PrepareAgain(ctx, k, "Blocked"); err != nil {
		t.Fatal(err)
	}
	want("estimated anew", "", "-200.00")
	if again := c.review(k); again == hash {
		t.Error("another adjustment, and the same pack")
	}
	if log, err := c.Store.BreakageLog(ctx, dbtest.Entity, "2026-01"); err != nil || len(log) != 3 || log[1].Run != 2 {
		t.Errorf("%+v, %v", log, err)
	}
}
