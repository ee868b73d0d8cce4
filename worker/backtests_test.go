package worker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/testsuite"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/workflows"
)

// past makes customers with purchased credits who use images at 2 credits each, and returns the card and the period.
func (s *site) past(customers, events int) (card credit.RateCardID, from, until time.Time) {
	s.t.Helper()
	card = s.Card(s.t, "standard", true, "2", time.Now().AddDate(-1, 0, 0))
	ids := make([]credit.CustomerID, customers)
	for i := range ids {
		c, wallet := s.Customer(s.t)
		ids[i] = c
		s.Grant(s.t, c, wallet, 100*one, purchased)
	}
	time.Sleep(2 * time.Millisecond)
	from = time.Now().UTC().Truncate(time.Microsecond)
	for _, c := range ids {
		for range events {
			s.Do(s.t, s.image(c, 10))
		}
	}
	time.Sleep(2 * time.Millisecond)
	return card, from, time.Now().UTC().Truncate(time.Microsecond)
}

// asWorker keeps the names of machines out of histories that are stored.
func asWorker(c *Config) { c.Temporal.Identity = "worker" }

func (s *site) image(c credit.CustomerID, n int64) *balance.Consume {
	return &balance.Consume{Header: balance.Header{Customer: c, Key: s.Key()}, Dims: credit.Dimensions{"model": "large", "product": "studio"},
		Usage: []rating.Line{{Meter: "images", Quantity: decimal.New(n, 0)}}}
}

func imagesAt(price string) []byte {
	return []byte(`{"meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","price":"` + price + `"}]}`)
}

// ask asks for a back-test.
func (s *site) ask(b db.BacktestRow) credit.BacktestID {
	s.t.Helper()
	b.ID, b.Tested, b.CreatedBy = credit.NewID[credit.BacktestID](), "a document", "test"
	s.changeCatalog(func(ctx context.Context, c *db.Catalog) error {
		_, err := c.AddBacktest(ctx, b)
		return err
	})
	return b.ID
}

func (s *site) changeCatalog(do func(context.Context, *db.Catalog) error) {
	s.t.Helper()
	_, _, err := s.Store.Change(context.Background(), db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		return db.Outcome{Status: 200, Answer: []byte("{}")}, do(ctx, c)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) backtest(id credit.BacktestID) db.BacktestView {
	s.t.Helper()
	v, err := s.Store.Backtest(context.Background(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// A price of 3 in the place of 2: 100 credits, used by 20 then, are refused from the fourth time on, when 10 are left.
func TestBacktestRuns(t *testing.T) {
	s := newSite(t, asWorker)
	s.run()
	card, from, until := s.past(3, 4)
	id := s.ask(db.BacktestRow{Card: card, Document: imagesAt("3"), EffectiveAt: from, From: from, Until: until})
	var standing workflows.BacktestStanding
	s.ended(workflows.BacktestWorkflowID(id), &standing)
	if standing.Customers != 3 || standing.Seen != 3 || standing.Events != 12 || !standing.Done {
		t.Errorf("%+v", standing)
	}
	v := s.backtest(id)
	if v.Status != db.BacktestDone || v.Active != 3 || v.Dry != 3 || v.Events != 12 || v.Seen != 3 || v.EndedAt.IsZero() {
		t.Errorf("%+v", v)
	}
	lines, err := s.Store.BacktestModels(context.Background(), id, db.BacktestLineKey{}, 10)
	if err != nil || len(lines) != 1 {
		t.Fatalf("%+v, %v", lines, err)
	}
	// 3 customers × 4 uses × 20 credits of 1.00 USD each; under test 3 × 3 × 30.
	l := lines[0]
	if l.Model != "large" || l.Product != "studio" || l.Booked.Events != 12 || l.Booked.Credits != 240*one || l.Booked.Revenue != 240_00 ||
		l.Tested.Events != 9 || l.Tested.Refused != 3 || l.Tested.Credits != 270*one || l.Tested.Revenue != 270_00 || l.Currency != "USD" {
		t.Errorf("%+v", l)
	}
	customers, err := s.Store.BacktestCustomers(context.Background(), id, true, credit.CustomerID{}, 2)
	if err != nil || len(customers) != 2 || customers[0].Refused != 1 || customers[0].RefusedFirst.Before(from) || customers[0].Lines[0].Tested.Credits != 90*one {
		t.Errorf("%+v, %v", customers, err)
	}
	if _, err := s.Store.RecogniseCustomer(context.Background(), customers[0].Customer); err != nil {
		t.Error(err)
	}
	for _, i := range db.Invariants {
		if r, err := s.Store.Verify(context.Background(), i, 1); err != nil || len(r.First) > 0 {
			t.Errorf("%s: %v, %v", i.Name, r.First, err)
		}
	}
	s.keep("backtest", workflows.BacktestWorkflowID(id), "")

	// Old ones go with their results, not before.
	s.exec("UPDATE backtests SET created_at = created_at - interval '29 days'")
	if _, err := s.w.removeBacktests(context.Background()); err != nil || s.count("SELECT count(*) FROM backtest_lines") == 0 {
		t.Errorf("removed too early, %v", err)
	}
	s.exec("UPDATE backtests SET created_at = created_at - interval '2 days'")
	if _, err := s.w.removeBacktests(context.Background()); err != nil || s.count("SELECT count(*) FROM backtest_customers") != 0 || s.count("SELECT count(*) FROM backtests") != 0 {
		t.Errorf("not removed, %v", err)
	}
}

// A page that is run again after its process was killed, from where the last note of progress was or from the beginning, keeps nothing twice.
func TestABacktestPageRunsAgain(t *testing.T) {
	s := newSite(t)
	card, from, until := s.past(70, 1)
	id := s.ask(db.BacktestRow{Card: card, Document: imagesAt("3"), EffectiveAt: from, From: from, Until: until})
	a := &activities.Activities{Service: s.Service, Store: s.Store}
	var suite testsuite.WorkflowTestSuite
	page := func(p activities.BacktestProgress) (out activities.BacktestProgress) {
		t.Helper()
		env := suite.NewTestActivityEnvironment()
		env.RegisterActivity(a)
		v, err := env.ExecuteActivity(a.BacktestPage, activities.BacktestPageInput{BacktestRef: activities.BacktestRef{BacktestID: id}, Progress: p})
		if err == nil {
			err = v.Get(&out)
		}
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if _, err := a.BeginBacktest(context.Background(), activities.BacktestRef{BacktestID: id}); err != nil {
		t.Fatal(err)
	}
	first := page(activities.BacktestProgress{})
	second := page(activities.BacktestProgress{})
	if first != second || first.Seen != 70 || first.Events != 70 || !first.Done {
		t.Errorf("%+v, then %+v", first, second)
	}
	if n := s.count("SELECT sum(tested_events)::bigint FROM backtest_lines WHERE tested_credits = 30000000"); n != 70 {
		t.Errorf("%d events were kept", n)
	}
	if err := s.Store.EndBacktest(context.Background(), id, db.BacktestCancelled, ""); err != nil {
		t.Fatal(err)
	}
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(a)
	if _, err := env.ExecuteActivity(a.BacktestPage, activities.BacktestPageInput{BacktestRef: activities.BacktestRef{BacktestID: id}}); err == nil {
		t.Error("a cancelled back-test goes on")
	}
}

// Cancelled before it has begun, it never begins; cancelled in Temporal, it ends in order; cancelled here while it runs, its workflow ends.
func TestBacktestIsCancelled(t *testing.T) {
	s := newSite(t, asWorker)
	_, from, until := s.past(1, 1)
	cancel := func(id credit.BacktestID) {
		s.changeCatalog(func(ctx context.Context, c *db.Catalog) error {
			_, err := c.CancelBacktest(ctx, id)
			return err
		})
	}
	early := s.ask(db.BacktestRow{From: from, Until: until})
	cancel(early)
	cancel(early) // once more is no fault
	never := s.ask(db.BacktestRow{From: from, Until: until})
	s.run()
	var standing workflows.BacktestStanding
	s.ended(workflows.BacktestWorkflowID(never), &standing)
	cancel(never)
	if v := s.backtest(never); v.Status != db.BacktestDone {
		t.Errorf("it had ended, and is %s", v.Status)
	}
	s.until("the outbox is empty", func() bool { return s.count("SELECT count(*) FROM outbox WHERE topic LIKE 'backtest.%'") == 0 })
	if _, err := s.w.client.DescribeWorkflow(context.Background(), workflows.BacktestWorkflowID(early), ""); err == nil {
		t.Error("it was started although it was cancelled")
	}
	// Its row, locked, holds its beginning up, and so it can be cancelled in the middle.
	for _, by := range []string{"Temporal", "the API"} {
		lock, err := s.Store.Pool.Begin(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		id := s.ask(db.BacktestRow{From: from, Until: until})
		if _, err := lock.Exec(context.Background(), "SELECT FROM backtests WHERE id = $1 FOR UPDATE", [16]byte(id)); err != nil {
			t.Fatal(err)
		}
		workflow := workflows.BacktestWorkflowID(id)
		s.until("it runs", func() bool { return s.running(workflow) })
		if by == "Temporal" {
			if err := s.w.client.CancelWorkflow(context.Background(), workflow, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := lock.Rollback(context.Background()); err != nil {
			t.Fatal(err)
		}
		if by != "Temporal" {
			cancel(id)
		}
		s.until(fmt.Sprintf("it has ended by %s", by), func() bool { return !s.running(workflow) })
		status := s.backtest(id).Status
		d, err := s.w.client.DescribeWorkflow(context.Background(), workflow, "")
		if err != nil {
			t.Fatal(err)
		}
		done := status == db.BacktestDone && d.Status == enums.WORKFLOW_EXECUTION_STATUS_COMPLETED // it was faster
		if !done && (status != db.BacktestCancelled || d.Status != enums.WORKFLOW_EXECUTION_STATUS_CANCELED) {
			t.Errorf("cancelled by %s it is %s, and its workflow %s", by, status, d.Status)
		}
		if by == "Temporal" {
			s.keep("backtest-cancelled", workflow, "")
		}
	}
}
