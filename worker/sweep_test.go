package worker

import (
	"context"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/workflows"
)

func pause(note string) client.SchedulePauseOptions { return client.SchedulePauseOptions{Note: note} }

// Two processes sweep the same grants at once: each is expired once and booked once, whichever gets to it.
func TestTwoSweepsPostNothingTwice(t *testing.T) {
	const customers, each = 60, 40
	s := newSite(t)
	at := time.Now().Add(8 * time.Second)
	type owned struct {
		c credit.CustomerID
		w credit.WalletID
	}
	var all []owned
	var ops []balance.Operation
	for range customers {
		c, wallet := s.Customer(t)
		all = append(all, owned{c, wallet})
		for range each {
			ops = append(ops, &balance.CreateGrant{Header: balance.Header{Customer: c}, Grant: credit.Grant{
				ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: wallet}, Type: credit.Purchased, Priority: 100, Amount: 3 * one,
				RatePolicy: credit.Floating, Price: credit.Money{Minor: 1_00, Currency: "USD"}, ExpiresAt: at,
			}})
		}
	}
	for _, r := range s.Service.DoAll(context.Background(), ops) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	s.Do(t, s.Consume(all[0].c, 4*one)) // one is used up, one in part
	frozen := ops[2*each].(*balance.CreateGrant).Grant.ID
	s.Do(t, &balance.FreezeGrant{Header: balance.Header{Customer: all[2].c, Key: s.Key()}, Grant: frozen, Reason: "test"})
	s.exec("UPDATE customer_heads SET frozen = true WHERE customer_id = $1", all[1].c[:])

	other, err := newWorker(Config{Service: s.Start(t, balance.Config{}), Store: s.Store, Log: balancetest.Log(), Temporal: s.cfg.Temporal})
	if err != nil {
		t.Fatal(err)
	}
	defer other.client.Close()
	if _, err := s.w.expireGrants(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := s.count("SELECT count(*) FROM operations WHERE kind = 'expire'"); n != 0 {
		t.Fatalf("%d grants expired before their instant", n)
	}
	s.until("they are due", func() bool { return time.Now().After(at.Add(50 * time.Millisecond)) })
	begin := time.Now()
	var both sync.WaitGroup
	for _, w := range []*worker{s.w, other} {
		both.Go(func() {
			s.until("nothing is due", func() bool {
				_, err := w.expireGrants(context.Background()) // on a busy machine some are left for the next pass
				return err == nil
			})
			if _, err := w.bookExpiries(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	t.Logf("%d grants of %d customers expired and booked by two sweeps in %s", customers*each, customers, time.Since(begin))

	const want = (customers-1)*each - 2 // without the used-up one, the frozen one, the frozen customer's
	if n := s.count("SELECT count(*) FROM operations WHERE kind = 'expire'"); n != want {
		t.Errorf("%d expiries, want %d", n, want)
	}
	if n := s.count("SELECT count(*) FROM journal_entries WHERE kind = 'expiry'"); n != want {
		t.Errorf("%d entries of breakage, want %d", n, want)
	}
	if n := s.count("SELECT sum(amount_minor) FROM postings AS p JOIN journal_entries AS e ON e.id = p.entry_id WHERE e.kind = 'expiry' AND p.account = 4020"); n != want*100-33 { // one of them was used by a third
		t.Errorf("breakage of %d, want %d", n, want*100-33)
	}
	for _, o := range all {
		balancetest.MustConserve(t, s.World, o.c)
	}

	// What was held back expires when it is let go.
	s.exec("UPDATE customer_heads SET frozen = false WHERE customer_id = $1", all[1].c[:])
	s.Do(t, &balance.FreezeGrant{Header: balance.Header{Customer: all[2].c, Key: s.Key()}, Grant: frozen, Thaw: true, Reason: "test"})
	if _, err := s.w.expireGrants(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := s.count("SELECT count(*) FROM grants WHERE status = 'open'"); n != 0 {
		t.Errorf("%d grants are left", n)
	}
}

func TestOldKeysAreForgotten(t *testing.T) {
	s := newSite(t)
	c, wallet := s.Customer(t)
	s.grant(c, wallet, 60*day)
	s.exec(`INSERT INTO idempotency_keys (digest, request, customer_id, ver, status, response, created_at)
		SELECT gen_random_uuid(), gen_random_uuid(), $1, CASE WHEN denied THEN NULL ELSE 1 END, CASE WHEN denied THEN 402 ELSE 200 END, CASE WHEN denied THEN '{}' END, now() - age
		FROM (VALUES (false, interval '40 days'), (false, interval '42 days'), (true, interval '23 hours'), (true, interval '25 hours')) AS v (denied, age),
			generate_series(1, 6000)`, c[:])
	before := s.count("SELECT count(*) FROM idempotency_keys WHERE created_at > now() - interval '1 hour'")
	passes := 1
	for more := true; more; passes++ {
		var err error
		if more, err = s.w.forgetKeys(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.count("SELECT count(*) FROM idempotency_keys"); n != before+12_000 || passes != 3 {
		t.Errorf("%d keys are left after %d passes, want %d", n, passes, before+12_000)
	}
	if n := s.count("SELECT count(*) FROM idempotency_keys WHERE created_at < now() - interval '41 days' OR ver IS NULL AND created_at < now() - interval '1 day'"); n != 0 {
		t.Errorf("%d of them are too old", n)
	}
}

func TestARecognitionRun(t *testing.T) {
	s := newSite(t)
	c, wallet := s.Customer(t)
	s.grant(c, wallet, 60*day, purchased)
	s.Do(t, s.Consume(c, 250*one))
	s.run()
	handle := s.w.client.ScheduleClient().GetHandle(context.Background(), s.cfg.Prefix+workflows.RecognitionID)
	s.until("the schedule can be triggered", func() bool {
		return handle.Trigger(context.Background(), client.ScheduleTriggerOptions{}) == nil
	})
	results := func() (all []workflows.RecognitionResult) {
		for _, id := range s.listed("WorkflowId STARTS_WITH '%srecognition-' AND ExecutionStatus = 'Completed'", s.cfg.Prefix) {
			var r workflows.RecognitionResult
			s.ended(id, &r)
			all = append(all, r)
		}
		return all
	}
	s.until("a run has ended", func() bool { return len(results()) == 1 })
	if n := s.count("SELECT count(*) FROM journal_entries WHERE kind = 'recognition'"); n != 1 {
		t.Errorf("%d entries of recognition", n)
	}
	if err := handle.Trigger(context.Background(), client.ScheduleTriggerOptions{}); err != nil {
		t.Fatal(err)
	}
	s.until("a second run has ended", func() bool { return len(results()) == 2 })
	if n := s.count("SELECT count(*) FROM journal_entries"); n != 2 { // the purchase and the use
		t.Errorf("%d entries after a second run", n)
	}
	empty := 0
	for _, r := range results() {
		if r == (workflows.RecognitionResult{}) {
			empty++
		}
	}
	if empty == 0 {
		t.Errorf("the second run found something: %+v", results())
	}
}

// A worker process is killed while an activity is under way. The next one carries it out, once.
func TestAWorkerIsKilled(t *testing.T) {
	if os.Getenv(envKilled) != "" {
		helpless(t)
	}
	s := newSite(t)
	c, wallet := s.Customer(t)
	g := s.grant(c, wallet, 60*day)
	process := exec.Command(os.Args[0], "-test.run", "^TestAWorkerIsKilled$")
	process.Env = append(os.Environ(), envKilled+"="+s.URL, envPrefix+"="+s.cfg.Prefix)
	process.Stderr = os.Stderr
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	defer process.Process.Kill()
	s.until("the process works", func() bool { return s.running(workflows.GrantWorkflowID(g)) })
	s.until("it has looked", func() bool { return s.standing(g).State == credit.StateActive })

	// The process cannot finish the freeze: somebody holds the customer's row.
	hold, err := s.Store.Pool.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Rollback(context.Background())
	if _, err := hold.Exec(context.Background(), "SELECT FROM customer_heads WHERE customer_id = $1 FOR UPDATE", c[:]); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := s.update(g, workflows.UpdateFreeze, "f1", workflows.Request{Reason: "disputed"})
		answered <- err
	}()
	s.until("the activity is under way", func() bool {
		d, err := s.w.client.DescribeWorkflowExecution(context.Background(), workflows.GrantWorkflowID(g), "")
		return err == nil && len(d.GetPendingActivities()) == 1 && d.GetPendingActivities()[0].GetLastStartedTime() != nil
	})
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := hold.Rollback(context.Background()); err != nil {
		t.Fatal(err)
	}
	process.Wait()
	s.run()
	s.until("the next process does it", func() bool { return s.View(t, g).Frozen })
	if err := <-answered; err != nil {
		t.Errorf("the caller got %v", err)
	}
	if n := s.count("SELECT count(*) FROM operations WHERE kind = 'freeze'"); n != 1 {
		t.Errorf("it was frozen %d times", n)
	}
}

const (
	envKilled = "TALLYSTICK_TEST_KILLED_DATABASE"
	envPrefix = "TALLYSTICK_TEST_KILLED_PREFIX"

	envDieAfter = "TALLYSTICK_TEST_DIE_AFTER" // an activity: what it did is done, and nobody is told
)

// helpless is the process that is killed: a worker on the test's database, for ever.
func helpless(t *testing.T) {
	ctx := context.Background()
	url := os.Getenv(envKilled)
	store, err := db.Open(ctx, url, db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	arbiter, err := db.NewArbiter(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	service, err := balance.NewService(ctx, balance.Config{}, arbiter, store, nil, balancetest.Log())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Service: service, Store: store, Log: balancetest.Log(), Prefix: os.Getenv(envPrefix)}
	cfg.Temporal.HostPort, cfg.Temporal.Namespace = temporalOf(t)
	if at := os.Getenv(envDieAfter); at != "" {
		cfg.Temporal.Interceptors = []interceptor.ClientInterceptor{&dying{after: at}}
	}
	if err := Run(ctx, cfg); err != nil {
		t.Fatal(err)
	}
}
