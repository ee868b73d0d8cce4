package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/topup"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/workflows"
)

// buys gives a wallet a rule: below 100 credits, 1,000 for 10.80.
func (s *site) buys(c credit.CustomerID, wallet credit.WalletID, modify ...func(*topup.Rule)) topup.Rule {
	s.t.Helper()
	r := topup.Rule{Threshold: 100 * one, Amount: 1000 * one, Price: credit.Money{Minor: 10_00, Currency: "USD"}, Tax: 80, Timeout: 24 * time.Hour, MonthlyCount: 100}
	for _, m := range modify {
		m(&r)
	}
	if err := r.Check(); err != nil {
		s.t.Fatal(err)
	}
	s.changeCatalog(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.SetTopUpRule(ctx, wallet, c, r)
		return err
	})
	return r
}

// topUps are a wallet's top-ups, oldest first.
func (s *site) topUps(wallet credit.WalletID) []db.TopUpRow {
	s.t.Helper()
	rows, err := s.Store.TopUpPage(context.Background(), db.TopUpFilter{Wallet: wallet}, credit.TopUpID{}, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Reverse(rows)
	return rows
}

func (s *site) newestTopUp(wallet credit.WalletID) db.TopUpRow {
	s.t.Helper()
	all := s.topUps(wallet)
	if len(all) == 0 {
		s.t.Fatal("there is no top-up")
	}
	return all[len(all)-1]
}

func (s *site) topUpRule(wallet credit.WalletID) db.TopUpRuleRow {
	s.t.Helper()
	r, err := s.Store.TopUpRule(context.Background(), wallet)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *site) lookAtTopUps() {
	s.t.Helper()
	if _, err := s.w.lookAtTopUps(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) succeed(id credit.TopUpID, ref string) (t db.TopUpRow, err error) {
	_, _, err = s.Store.Change(context.Background(), db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		t, err = c.SucceedTopUp(ctx, id, ref)
		return db.Outcome{Status: 202, Answer: []byte("{}")}, err
	})
	return t, err
}

func (s *site) fail(id credit.TopUpID, retry bool) (t db.TopUpRow, err error) {
	_, _, err = s.Store.Change(context.Background(), db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		t, err = c.FailTopUp(ctx, id, "The card was declined", retry)
		return db.Outcome{Status: 202, Answer: []byte("{}")}, err
	})
	return t, err
}

// act does what the workflow of a top-up does at its state, each step as often as is said.
func (s *site) act(id credit.TopUpID, times int) {
	s.t.Helper()
	a, ctx := &activities.Activities{Service: s.Service, Store: s.Store}, context.Background()
	t, err := s.Store.TopUp(ctx, id)
	if err != nil {
		s.t.Fatal(err)
	}
	ref := activities.TopUpRef{TopUpID: id, CustomerID: t.Customer}
	type step = func(context.Context, activities.TopUpRef) (activities.TopUpFacts, error)
	void := func(ctx context.Context, in activities.TopUpRef) (activities.TopUpFacts, error) {
		return activities.TopUpFacts{}, a.VoidTopUpGrant(ctx, in)
	}
	steps := []step{a.PrepareTopUpGrant, a.AskBusinessToCharge}
	switch t.Status {
	case db.TopUpPaid:
		steps = append(steps, a.IssueTopUpGrant, a.FinishTopUp)
	case db.TopUpFailed, db.TopUpExpired:
		steps = append(steps, void)
	}
	for _, do := range steps {
		for range times {
			if _, err := do(ctx, ref); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// mustVerify books what is to be booked and holds every invariant.
func (s *site) mustVerify() {
	s.t.Helper()
	ids, err := s.Store.CustomerIDs(context.Background(), credit.CustomerID{}, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range ids {
		s.judge(c)
		if _, err := s.Store.RecogniseCustomer(context.Background(), c); err != nil {
			s.t.Fatal(err)
		}
		balancetest.MustConserve(s.t, s.World, c)
	}
	for _, i := range db.Invariants {
		if v, err := s.Store.Verify(context.Background(), i, 3); err != nil || len(v.First) > 0 {
			s.t.Errorf("%s: %v, %v", i.Name, v.First, err)
		}
	}
}

// toldOfTopUps are the types of events about top-ups, in order.
func (s *site) toldOfTopUps(c credit.CustomerID) string {
	s.t.Helper()
	var all string
	if err := s.Store.Pool.QueryRow(context.Background(),
		"SELECT coalesce(string_agg(substr(type, 7), ' ' ORDER BY seq), '') FROM events WHERE customer_id = $1 AND type LIKE 'topup.%'", [16]byte(c)).Scan(&all); err != nil {
		s.t.Fatal(err)
	}
	return all
}

// A balance that crosses the threshold again and again before anybody looks is one purchase, and so it stays until that is settled.
func TestOneTopUpForManyCrossings(t *testing.T) {
	t.Parallel()
	s := newAlertSite(t, noCache)
	c, wallet := s.Customer(t)
	s.buys(c, wallet)
	for range 5 {
		g := s.Grant(t, c, wallet, 200*one)
		s.Do(t, s.Consume(c, 150*one)) // 50 are left: below
		s.Do(t, &balance.VoidGrant{Header: balance.Header{Customer: c, Key: s.Key()}, Grant: g})
	}
	s.judge(c)
	for range 3 {
		s.Grant(t, c, wallet, 10*one)
		s.judge(c)
		s.lookAtTopUps()
	}
	if n := len(s.topUps(wallet)); n != 1 {
		t.Fatalf("%d top-ups", n)
	}
	if n := s.count("SELECT count(*) FROM outbox WHERE topic = 'topup.start'"); n != 1 {
		t.Errorf("%d starts", n)
	}
	_, err := s.Store.Pool.Exec(context.Background(), `INSERT INTO top_ups (id, wallet_id, customer_id, grant_id, threshold, available, amount, price_minor, tax_minor, currency,
		attempt, month, timeout_s, requested_at) SELECT gen_random_uuid(), wallet_id, customer_id, gen_random_uuid(), threshold, available, amount, price_minor, tax_minor, currency,
		attempt, month, timeout_s, requested_at FROM top_ups`)
	if err == nil || !strings.Contains(err.Error(), "top_up_in_flight") {
		t.Errorf("a second one under way: %v", err)
	}
	top := s.topUps(wallet)[0]
	if _, err := s.succeed(top.ID, "pay-1"); err != nil {
		t.Fatal(err)
	}
	s.judge(c)
	if n := len(s.topUps(wallet)); n != 1 {
		t.Fatalf("%d top-ups when the first was paid and not issued", n)
	}
	s.act(top.ID, 2)
	s.judge(c)
	s.lookAtTopUps()
	if n := len(s.topUps(wallet)); n != 1 { // 1,080 are there
		t.Fatalf("%d top-ups when there are credits again", n)
	}
	s.Do(t, s.Consume(c, 985*one))
	s.judge(c)
	if n := len(s.topUps(wallet)); n != 2 {
		t.Fatalf("%d top-ups after the next crossing", n)
	}
	s.mustVerify()
}

// What was bought by hand before the pass came by is not bought again: the rule is judged by the credits that there are.
func TestATopUpIsNotForThePast(t *testing.T) {
	t.Parallel()
	s := newAlertSite(t, noCache)
	c, wallet := s.Customer(t)
	s.Grant(t, c, wallet, 200*one)
	s.buys(c, wallet)
	s.Do(t, s.Consume(c, 150*one))
	s.Grant(t, c, wallet, 500*one)
	s.judge(c)
	s.lookAtTopUps()
	if n := len(s.topUps(wallet)); n != 0 {
		t.Errorf("%d top-ups", n)
	}
	s.Grant(t, c, wallet, 5*one)
	s.Do(t, s.Consume(c, 500*one)) // 55
	s.judge(c)
	if top := s.newestTopUp(wallet); top.Available != 55*one || top.Amount != 1000*one || top.Attempt != 1 {
		t.Errorf("%+v", top)
	}
	other, second := s.Customer(t) // which has no rule
	s.judge(other)
	if n := len(s.topUps(second)); n != 0 {
		t.Errorf("%d top-ups without a rule", n)
	}
}

// Many passes and looks at once, while credits are used and payments come: one is under way at most, and each is paid for once.
func TestTopUpsRace(t *testing.T) {
	t.Parallel()
	s := newAlertSite(t, noCache)
	c, wallet := s.Customer(t)
	s.buys(c, wallet)
	const rounds = 5
	for round := range rounds {
		var g sync.WaitGroup
		for range 4 {
			g.Go(func() {
				for range 3 {
					if _, err := s.Store.CountUsage(context.Background(), c, s.w.usageSteps()...); err != nil {
						t.Error(err)
					}
					if _, err := s.w.lookAtTopUps(context.Background()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		g.Go(func() {
			for range 5 {
				s.Grant(t, c, wallet, one)
			}
		})
		g.Wait()
		s.judge(c)
		if n := len(s.topUps(wallet)); n != round+1 {
			t.Fatalf("%d top-ups in round %d", n, round)
		}
		top := s.newestTopUp(wallet)
		var told [2]atomic.Int32 // how often each of two payments was accepted
		for i := range 6 {       // by several callers at once
			g.Go(func() {
				switch _, err := s.succeed(top.ID, fmt.Sprint("pay-", i%2)); {
				case err == nil:
					told[i%2].Add(1)
				case credit.CodeOf(err) != credit.TopUpState:
					t.Error(err)
				}
			})
		}
		g.Wait()
		if a, b := told[0].Load(), told[1].Load(); a+b != 3 || a*b != 0 {
			t.Fatalf("one payment was accepted %d times, another %d times", a, b)
		}
		s.act(top.ID, 3)
		s.Do(t, &balance.DecrementGrant{Header: balance.Header{Customer: c, Key: s.Key()}, Grant: top.Grant, Reason: "used"})
	}
	s.mustVerify()
}

// Whatever comes in whatever order, and however often each step is run: one is under way at most, the credits that were bought are those of the
// payments that came, and the books agree.
func TestTopUpsWhateverHappens(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		s := newAlertSite(t, noCache)
		rng := rand.New(rand.NewPCG(seed, 7))
		c, wallet := s.Customer(t)
		s.buys(c, wallet)
		bought, paid := 0, map[credit.TopUpID]string{}
		for range 400 {
			all := s.topUps(wallet)
			var top *db.TopUpRow
			if len(all) > 0 {
				top = &all[rng.IntN(len(all))]
				if rng.IntN(2) == 0 {
					top = &all[len(all)-1]
				}
			}
			switch n := rng.IntN(14); {
			case n < 2:
				s.judge(c)
			case n == 2:
				s.lookAtTopUps()
			case n == 3:
				op := s.Consume(c, credit.Amount(rng.IntN(1000))*one+one)
				op.Partial = true
				_, err := s.Service.Do(context.Background(), op)
				if err != nil && credit.CodeOf(err) != credit.InsufficientCredits {
					t.Fatal(err)
				}
			case n == 4: // time passes
				s.exec("UPDATE top_up_rules SET wait_until = wait_until - interval '1 day', look_at = least(look_at, now())")
			case n == 5:
				s.changeCatalog(func(ctx context.Context, cat *db.Catalog) error {
					if _, err := cat.ResumeTopUps(ctx, wallet); credit.CodeOf(err) != credit.TopUpState {
						return err
					}
					return nil
				})
			case top == nil:
			case n < 8:
				ref := fmt.Sprint("pay-", rng.IntN(2))
				before := top.Status
				_, err := s.succeed(top.ID, ref)
				switch {
				case before == db.TopUpRequested && err == nil:
					paid[top.ID] = ref
				case (err == nil) != (paid[top.ID] == ref):
					t.Fatalf("%s was %s and paid by %q: %q was answered %v", top.ID, before, paid[top.ID], ref, err)
				case err != nil && credit.CodeOf(err) != credit.TopUpState:
					t.Fatal(err)
				}
			case n == 8:
				_, err := s.fail(top.ID, rng.IntN(3) > 0)
				if (err == nil) != (top.Status == db.TopUpRequested || top.Status == db.TopUpFailed) && top.Status != db.TopUpFailed {
					t.Fatalf("%s was failed while %s: %v", top.ID, top.Status, err)
				}
			case n == 9 && !top.AskedAt.IsZero():
				s.exec("UPDATE top_ups SET times_out_at = now() - interval '1 second' WHERE id = $1 AND status = 'requested'", top.ID[:])
				if _, err := s.Store.ExpireTopUp(context.Background(), top.ID); err != nil {
					t.Fatal(err)
				}
			default:
				s.act(top.ID, 1+rng.IntN(2))
			}
			if n := s.count("SELECT count(*) FROM top_ups WHERE status IN ('requested', 'paid')"); n > 1 {
				t.Fatalf("%d are under way", n)
			}
		}
		for _, top := range s.topUps(wallet) {
			s.act(top.ID, 2)
			switch g, err := s.Store.Grant(context.Background(), top.Grant); {
			case top.Status == db.TopUpFailed && top.AskedAt.IsZero(): // before its purchase was made
			case err != nil:
				t.Errorf("%s has no grant: %v", top.Status, err)
			case paid[top.ID] != "":
				bought++
				if g.Status == credit.StatusPending || g.Granted != 1000*one || g.PaymentRef != paid[top.ID] {
					t.Errorf("paid by %s: %+v", paid[top.ID], g.Grant)
				}
			case top.Status == db.TopUpRequested:
				if g.Status != credit.StatusPending {
					t.Errorf("awaited, and %s", g.Status)
				}
			case g.Granted != 0 || g.Status != credit.StatusVoided:
				t.Errorf("%s, and %+v", top.Status, g.Grant)
			}
		}
		if n := s.count("SELECT count(*) FROM operations WHERE kind = 'issue'"); n != bought {
			t.Errorf("%d were paid for, %d issued", bought, n)
		}
		if n := s.count("SELECT count(*) FROM events WHERE type = 'topup.succeeded'"); n != bought {
			t.Errorf("%d were paid for, %d told", bought, n)
		}
		t.Logf("%d top-ups, %d paid for", len(s.topUps(wallet)), bought)
		s.mustVerify()
	}
}

// Declined again and again: an hour, six, a day, and then it stops until somebody resumes it.
func TestDeclinedTopUpsBackOff(t *testing.T) {
	t.Parallel()
	s := newAlertSite(t, noCache)
	c, wallet := s.Customer(t)
	s.buys(c, wallet, func(r *topup.Rule) { r.Cooldown = 30 * time.Minute })
	s.lookAtTopUps() // nothing is there: the rule is true when it is made
	for i, wait := range []time.Duration{time.Hour, 6 * time.Hour, 24 * time.Hour, 0} {
		if n := len(s.topUps(wallet)); n != i+1 {
			t.Fatalf("%d top-ups before failure %d", n, i+1)
		}
		top := s.newestTopUp(wallet)
		if top.Attempt != i+1 {
			t.Errorf("attempt %d is said to be %d", i+1, top.Attempt)
		}
		s.act(top.ID, 1)
		if i == 2 { // nobody answers: that counts too
			s.exec("UPDATE top_ups SET times_out_at = now() - interval '1 second' WHERE id = $1", top.ID[:])
			if _, err := s.Store.ExpireTopUp(context.Background(), top.ID); err != nil {
				t.Fatal(err)
			}
		} else if _, err := s.fail(top.ID, true); err != nil {
			t.Fatal(err)
		}
		s.act(top.ID, 2)
		r, failed := s.topUpRule(wallet), s.newestTopUp(wallet)
		if wait == 0 {
			if r.State() != "paused" || !r.Until.IsZero() || !r.LookAt.IsZero() {
				t.Errorf("after failure %d: %+v", i+1, r)
			}
			break
		}
		if r.State() != "back_off" || !r.Until.Equal(failed.DecidedAt.Add(wait)) || !r.LookAt.Equal(r.Until) || r.Failures != i+1 {
			t.Errorf("after failure %d it waits from %s until %s, %s", i+1, failed.DecidedAt, r.Until, r.State())
		}
		s.judge(c)
		s.lookAtTopUps()
		if n := len(s.topUps(wallet)); n != i+1 {
			t.Fatalf("%d top-ups while it backs off", n)
		}
		s.exec("UPDATE top_up_rules SET wait_until = now(), look_at = now()")
		s.lookAtTopUps()
	}
	s.exec("UPDATE top_up_rules SET look_at = now()")
	s.judge(c)
	s.lookAtTopUps()
	if n := len(s.topUps(wallet)); n != 4 {
		t.Errorf("%d top-ups while it is paused", n)
	}
	s.buys(c, wallet, func(r *topup.Rule) { r.Cooldown = 30 * time.Minute }) // the same rule again does not resume it
	if s.lookAtTopUps(); len(s.topUps(wallet)) != 4 || s.topUpRule(wallet).State() != "paused" {
		t.Errorf("put again, it is %s", s.topUpRule(wallet).State())
	}
	s.changeCatalog(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.ResumeTopUps(ctx, wallet)
		return err
	})
	s.lookAtTopUps()
	top := s.newestTopUp(wallet)
	if len(s.topUps(wallet)) != 5 || top.Attempt != 1 || s.topUpRule(wallet).State() != "in_flight" {
		t.Fatalf("resumed: %+v", top)
	}
	s.act(top.ID, 1)
	if _, err := s.fail(top.ID, false); err != nil { // the first failure of a new row, but not to be tried again
		t.Fatal(err)
	}
	if r := s.topUpRule(wallet); r.State() != "paused" {
		t.Errorf("%+v", r)
	}
	s.changeCatalog(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.ResumeTopUps(ctx, wallet)
		return err
	})
	s.lookAtTopUps()
	top = s.newestTopUp(wallet)
	if _, err := s.succeed(top.ID, "pay-9"); err != nil { // before it was asked for
		t.Fatal(err)
	}
	s.act(top.ID, 2)
	r, done := s.topUpRule(wallet), s.newestTopUp(wallet)
	if r.State() != "cooldown" || r.Failures != 0 || !r.Until.Equal(done.DecidedAt.Add(30*time.Minute)) && r.Until.Before(done.EndedAt) {
		t.Errorf("%+v", r)
	}
	s.Do(t, s.Consume(c, 950*one))
	s.judge(c)
	if n := len(s.topUps(wallet)); n != 6 {
		t.Errorf("%d top-ups in the cooldown", n)
	}
	s.exec("UPDATE top_up_rules SET wait_until = now(), look_at = now()")
	s.lookAtTopUps()
	if n := len(s.topUps(wallet)); n != 7 {
		t.Errorf("%d top-ups after the cooldown", n)
	}
	want := "requested failed requested failed requested expired requested failed paused requested failed paused succeeded"
	if got := s.toldOfTopUps(c); got != want {
		t.Errorf("told: %s", got)
	}
	s.mustVerify()
}

// The outcome of a payment, told again, in contradiction, and too late.
func TestOutcomesOfTopUps(t *testing.T) {
	t.Parallel()
	s := newAlertSite(t, noCache)
	c, wallet := s.Customer(t)
	begin := func() credit.TopUpID {
		t.Helper()
		s.buys(c, wallet)
		s.exec("UPDATE top_up_rules SET wait = NULL, wait_until = NULL, look_at = now()")
		s.lookAtTopUps()
		id := s.newestTopUp(wallet).ID
		s.act(id, 1)
		return id
	}
	refused := func(_ db.TopUpRow, err error) {
		t.Helper()
		if credit.CodeOf(err) != credit.TopUpState {
			t.Errorf("%v", err)
		}
	}
	allowed := func(_ db.TopUpRow, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	id := begin()
	allowed(s.fail(id, true))
	allowed(s.fail(id, true))
	refused(s.fail(id, false))
	refused(s.succeed(id, "pay-1"))
	s.act(id, 2)
	refused(s.succeed(id, "pay-1"))
	if r := s.topUpRule(wallet); r.Failures != 1 {
		t.Errorf("one failure told twice counts %d", r.Failures)
	}

	id = begin()
	s.exec("UPDATE top_ups SET times_out_at = now() - interval '1 second' WHERE id = $1", id[:])
	if row, err := s.Store.ExpireTopUp(context.Background(), id); err != nil || row.Status != db.TopUpExpired {
		t.Errorf("%+v, %v", row, err)
	}
	refused(s.succeed(id, "pay-2")) // also before its grant is voided
	s.act(id, 2)
	refused(s.succeed(id, "pay-2"))
	refused(s.fail(id, true))

	id = begin()
	if row, err := s.Store.ExpireTopUp(context.Background(), id); err != nil || row.Status != db.TopUpRequested {
		t.Errorf("expired before its time: %+v, %v", row, err)
	}
	allowed(s.succeed(id, "pay-3"))
	allowed(s.succeed(id, "pay-3"))
	refused(s.succeed(id, "pay-4"))
	refused(s.fail(id, true))
	s.act(id, 2)
	allowed(s.succeed(id, "pay-3"))
	refused(s.succeed(id, "pay-4"))
	refused(s.fail(id, true))
	if _, err := s.succeed(credit.NewID[credit.TopUpID](), "pay-5"); credit.CodeOf(err) != credit.TopUpNotFound {
		t.Error(err)
	}
	s.mustVerify()
}

// People who meddle with the purchase: issued by hand, it is not taken away again; voided by hand, it is not paid for in silence.
func TestTopUpsAndPeople(t *testing.T) {
	t.Parallel()
	s := newAlertSite(t, noCache)
	begin := func() (credit.CustomerID, db.TopUpRow) {
		c, wallet := s.Customer(t)
		s.buys(c, wallet)
		s.lookAtTopUps()
		top := s.newestTopUp(wallet)
		s.act(top.ID, 1)
		return c, top
	}
	for _, paid := range []bool{false, true} {
		c, top := begin()
		s.Do(t, &balance.IssueGrant{Header: balance.Header{Customer: c, Key: s.Key()}, Grant: top.Grant, PaymentRef: "by hand"})
		want := db.TopUpFailed
		if paid {
			_, _ = s.succeed(top.ID, "pay-1")
			want = db.TopUpSucceeded
		} else {
			_, _ = s.fail(top.ID, true)
		}
		s.act(top.ID, 2)
		if row := s.newestTopUp(top.Wallet); row.Status != want || row.EndedAt.IsZero() {
			t.Errorf("%+v", row)
		}
		if g := s.View(t, top.Grant); g.Available != 1000*one || g.PaymentRef != "by hand" {
			t.Errorf("%+v", g)
		}
	}
	c, top := begin()
	if _, err := s.succeed(top.ID, "pay-1"); err != nil {
		t.Fatal(err)
	}
	s.Do(t, &balance.VoidGrant{Header: balance.Header{Customer: c, Key: s.Key()}, Grant: top.Grant, Reason: "a mistake"})
	s.act(top.ID, 2)
	s.act(top.ID, 2)
	row := s.newestTopUp(top.Wallet)
	if row.Status != db.TopUpFailed || row.PaymentRef != "pay-1" || !strings.Contains(row.Reason, "given back") || row.EndedAt.IsZero() || s.topUpRule(top.Wallet).State() != "paused" {
		t.Errorf("%+v", row)
	}
	if got := s.toldOfTopUps(c); got != "requested failed paused" {
		t.Error(got)
	}

	c, top = begin() // the rule goes while one is under way: it goes on
	s.changeCatalog(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.DropTopUpRule(ctx, top.Wallet)
		return err
	})
	if _, err := s.succeed(top.ID, "pay-1"); err != nil {
		t.Fatal(err)
	}
	s.act(top.ID, 2)
	if got := s.toldOfTopUps(c); got != "requested succeeded" {
		t.Error(got)
	}
	s.mustVerify()
}

// A month of the entity's own calendar has so many top-ups and so much money, also one whose end is an hour away from where its beginning was.
func TestTopUpsOfAMonth(t *testing.T) {
	t.Parallel()
	s := newAlertSite(t, noCache)
	c := credit.NewID[credit.CustomerID]()
	s.changeCatalog(func(ctx context.Context, cat *db.Catalog) error {
		if _, err := cat.AddEntity(ctx, db.EntityRow{Code: "berlin", Name: "Berlin", Currency: "USD", TimeZone: "Europe/Berlin"}); err != nil {
			return err
		}
		_, err := cat.AddCustomer(ctx, db.CustomerRow{ID: c, Entity: "berlin", Name: "Customer"})
		return err
	})
	at := func(instant string) {
		t.Helper()
		when, err := time.Parse(time.RFC3339Nano, instant)
		if err == nil {
			err = s.Store.Tx(context.Background(), func(tx pgx.Tx) error { return s.Store.JudgeTopUps(context.Background(), tx, c, when) })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, limit := range map[string]func(*topup.Rule){
		"count": func(r *topup.Rule) { r.MonthlyCount = 2 },
		"money": func(r *topup.Rule) { r.MonthlyMoney = 3*r.Cost() - 1 },
	} {
		wallet := s.Wallet(t, c, func(w *balance.CreateWallet) { w.Wallet.Name = name })
		s.buys(c, wallet, limit, func(r *topup.Rule) { r.Threshold = credit.MaxAmount })
		pay := func() {
			t.Helper()
			top := s.newestTopUp(wallet)
			if _, err := s.succeed(top.ID, "pay"); err != nil {
				t.Fatal(err)
			}
			s.act(top.ID, 1)
		}
		at("2026-09-30T22:00:00Z") // the first instant of October: summer time
		pay()
		at("2026-10-31T22:59:59Z") // the last second: winter time
		pay()
		before := strings.Count(s.toldOfTopUps(c), "paused")
		at("2026-10-31T22:59:59.5Z")
		at("2026-10-31T22:59:59.999999Z")
		r := s.topUpRule(wallet)
		if n := len(s.topUps(wallet)); n != 2 || r.Wait != topup.MonthlyCap || r.Until.Format(time.RFC3339) != "2026-10-31T23:00:00Z" || !r.LookAt.Equal(r.Until) {
			t.Errorf("%s: %d top-ups, %+v", name, n, r)
		}
		if n := strings.Count(s.toldOfTopUps(c), "paused"); n != before+1 {
			t.Errorf("%s: told %d times", name, n-before)
		}
		at("2026-10-31T23:00:00Z")
		if top := s.newestTopUp(wallet); len(s.topUps(wallet)) != 3 || top.Month != "2026-11" {
			t.Errorf("%s: %+v", name, top)
		}
		top := s.newestTopUp(wallet) // which fails: it takes no room
		if _, err := s.fail(top.ID, true); err != nil {
			t.Fatal(err)
		}
		s.act(top.ID, 1)
		s.exec("UPDATE top_up_rules SET wait = NULL, wait_until = NULL")
		at("2026-11-10T00:00:00Z")
		pay()
		at("2026-11-20T00:00:00Z")
		pay()
		at("2026-11-30T22:59:59Z")
		if n := len(s.topUps(wallet)); n != 5 {
			t.Errorf("%s: %d top-ups", name, n)
		}
		s.buys(c, wallet, func(r *topup.Rule) { r.Threshold, r.MonthlyCount = credit.MaxAmount, 3 }) // a higher cap is in force at once
		if r := s.topUpRule(wallet); r.Wait != topup.NoWait {
			t.Errorf("%s: %+v", name, r)
		}
		at("2026-11-30T22:59:59Z")
		if n := len(s.topUps(wallet)); n != 6 {
			t.Errorf("%s: %d top-ups after the cap was raised", name, n)
		}
		pay()
		s.exec("DELETE FROM top_up_rules")
	}
	s.mustVerify()
}

// On the real servers, with two workers: asked for, paid, declined, and not answered.
func TestTopUps(t *testing.T) {
	s := newSite(t, asWorker)
	s.run()
	s.run()
	paid, declined, silent := s.low(), s.low(), s.low()
	s.exec("UPDATE top_up_rules SET timeout_s = 1, look_at = now() WHERE wallet_id = $1", silent[:])
	for _, wallet := range []credit.WalletID{paid, declined, silent} {
		s.exec("UPDATE top_up_rules SET look_at = now() WHERE wallet_id = $1", wallet[:])
		s.until("it is asked for", func() bool {
			all := s.topUps(wallet)
			return len(all) == 1 && !all[0].AskedAt.IsZero()
		})
	}
	top := s.newestTopUp(paid)
	id := workflows.TopUpWorkflowID(top.ID)
	s.until("that is told", func() bool { return s.running(id) && strings.Contains(s.details(id), "asked, until") })
	if g := s.View(t, top.Grant); g.Status != credit.StatusPending || g.Type != credit.Purchased || g.Price.Minor != 10_00 || g.Tax != 80 {
		t.Errorf("%+v", g)
	}
	for range 2 {
		if _, err := s.succeed(top.ID, "pay-4711"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.fail(s.newestTopUp(declined).ID, true); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, status string
		wallet       credit.WalletID
		grant        credit.Status
	}{{"topup", db.TopUpSucceeded, paid, credit.StatusOpen}, {"topup-declined", db.TopUpFailed, declined, credit.StatusVoided}, {"topup-expired", db.TopUpExpired, silent, credit.StatusVoided}} {
		top := s.newestTopUp(c.wallet)
		var r workflows.TopUpResult
		if s.ended(workflows.TopUpWorkflowID(top.ID), &r); r.Status != c.status {
			t.Errorf("%s: %+v", c.name, r)
		}
		s.keep(c.name, workflows.TopUpWorkflowID(top.ID), "")
		if g := s.View(t, top.Grant); g.Status != c.grant {
			t.Errorf("%s: %+v", c.name, g)
		}
		if n := s.count("SELECT count(*) FROM operations WHERE customer_id = $1 AND kind = 'issue'", top.Customer[:]); (n == 1) != (c.status == db.TopUpSucceeded) {
			t.Errorf("%s: %d were issued", c.name, n)
		}
	}
	if got := s.toldOfTopUps(top.Customer); got != "requested succeeded" {
		t.Error(got)
	}
	if g := s.View(t, top.Grant); g.PaymentRef != "pay-4711" || g.Available != 1000*one {
		t.Errorf("%+v", g)
	}

	// Its workflow run once more changes nothing.
	run, err := s.w.client.ExecuteWorkflow(context.Background(), client.StartWorkflowOptions{ID: id, TaskQueue: s.cfg.Prefix + workflows.FinanceQueue},
		workflows.TopUp, activities.TopUpRef{TopUpID: top.ID, CustomerID: top.Customer})
	var r workflows.TopUpResult
	if err == nil {
		err = run.Get(context.Background(), &r)
	}
	if err != nil || r.Status != db.TopUpSucceeded || s.toldOfTopUps(top.Customer) != "requested succeeded" {
		t.Errorf("%+v, %v", r, err)
	}

	// The next crossing is the next purchase.
	s.Do(t, s.Consume(top.Customer, 950*one))
	s.until("it is bought anew", func() bool { return len(s.topUps(paid)) == 2 })
	s.mustVerify()
}

// low is the wallet of a new customer that has nothing and a rule.
func (s *site) low() credit.WalletID {
	s.t.Helper()
	c, wallet := s.Customer(s.t)
	s.buys(c, wallet)
	return wallet
}

// A top-up whose workflow is lost goes on with a new one; one that is at its end gets none.
func TestALostTopUpIsRestored(t *testing.T) {
	s := newSite(t)
	wallet := s.low()
	s.lookAtTopUps()
	s.exec("DELETE FROM outbox WHERE topic = 'topup.start'")
	for range 2 { // the second time it runs
		if _, err := s.w.reconcile(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	s.run()
	top := s.newestTopUp(wallet)
	s.until("it is asked for", func() bool { return !s.newestTopUp(wallet).AskedAt.IsZero() })
	if _, err := s.succeed(top.ID, "pay"); err != nil {
		t.Fatal(err)
	}
	var r workflows.TopUpResult
	if s.ended(workflows.TopUpWorkflowID(top.ID), &r); r.Status != db.TopUpSucceeded {
		t.Errorf("%+v", r)
	}
	if unfinished, err := s.Store.TopUpsToEnd(context.Background(), time.Now().Add(time.Hour), credit.TopUpID{}, 10); err != nil || len(unfinished) > 0 {
		t.Errorf("%v, %v", unfinished, err)
	}
}

// A worker that is killed right after any step, before anybody hears of it: asked for once, issued once, told once.
func TestTopUpsSurviveEveryKill(t *testing.T) {
	if testing.Short() {
		t.Skip("every kill is noticed after fifteen seconds")
	}
	s := newSite(t)
	wallet := s.low()
	s.lookAtTopUps()
	top := s.newestTopUp(wallet)
	s.die("PrepareTopUpGrant")
	s.die("AskBusinessToCharge")
	if _, err := s.succeed(top.ID, "pay"); err != nil {
		t.Fatal(err)
	}
	s.die("IssueTopUpGrant")
	s.die("FinishTopUp")
	s.run()
	var r workflows.TopUpResult
	if s.ended(workflows.TopUpWorkflowID(top.ID), &r); r.Status != db.TopUpSucceeded {
		t.Errorf("%+v", r)
	}
	if got := s.toldOfTopUps(top.Customer); got != "requested succeeded" {
		t.Error(got)
	}
	if n := s.count("SELECT count(*) FROM operations WHERE kind IN ('create', 'issue')"); n != 2 {
		t.Errorf("%d operations", n)
	}
	if n := len(s.topUps(wallet)); n != 1 {
		t.Errorf("%d top-ups", n)
	}
	s.mustVerify()
}
