package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	enums "go.temporal.io/api/enums/v1"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/devstack/stacktest"
	"github.com/tallystick/tallystick/workflows"
)

func (s *site) topic(name string) *topic {
	for _, t := range s.w.topics() {
		if t.name == name {
			return t
		}
	}
	s.t.Fatalf("there is no topic %s", name)
	return nil
}

// drain performs a topic until nothing is due.
func (s *site) drain(name string) {
	s.t.Helper()
	s.repeat(s.topic(name).dispatch)
}

// repeat does something until there is no more to do. On a busy machine Temporal sometimes does not answer in time.
func (s *site) repeat(do func(context.Context) (bool, error)) {
	s.t.Helper()
	s.until("a pass without an error", func() bool {
		for {
			more, err := do(context.Background())
			switch {
			case err != nil && !errors.Is(err, errUnreachable) && !unreachable(err):
				s.t.Error(err)
				return true
			case err != nil:
				return false
			case !more:
				return true
			}
		}
	})
}

func TestTwoDispatchersStartEachWorkflowOnce(t *testing.T) {
	const grants = 300
	s := newSite(t)
	c, wallet := s.Customer(t)
	for range grants {
		s.grant(c, wallet, 60*day)
	}
	var mu sync.Mutex
	performed := map[string]int{}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			own := s.topic("grant.start")
			own.batch = 40
			begin := own.begin
			own.begin = func(ctx context.Context, items []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
				perform, err := begin(ctx, items)
				return func(ctx context.Context, item db.OutboxItem) error {
					err := perform(ctx, item)
					if err == nil {
						mu.Lock()
						defer mu.Unlock()
						performed[item.Subject]++
						if performed[item.Subject] > 1 {
							t.Errorf("%s was started twice", item.Subject)
						}
					}
					return err
				}, err
			}
			s.repeat(own.dispatch)
		})
	}
	both.Wait()
	if n := s.count("SELECT count(*) FROM outbox"); len(performed) != grants || n != 0 {
		t.Errorf("%d were performed, %d are left", len(performed), n)
	}
	s.until("all of them are listed", func() bool { return len(s.listed("GrantCustomer = '%s' AND ExecutionStatus = 'Running'", c)) == grants })
}

func TestADuplicateStartIsDone(t *testing.T) {
	s := newSite(t)
	c, wallet := s.Customer(t)
	g := s.grant(c, wallet, 60*day)
	s.drain("grant.start")
	for range 2 {
		s.exec(`INSERT INTO outbox (topic, subject, payload) VALUES ('grant.start', $1, '{}')`, g.String())
		s.drain("grant.start")
		if n := s.count("SELECT count(*) FROM outbox"); n != 0 {
			t.Errorf("%d left", n)
		}
		// The second time the workflow has ended: it is not started again either.
		if err := s.w.client.TerminateWorkflow(context.Background(), workflows.GrantWorkflowID(g), "", "test"); err == nil {
			s.until("it has ended", func() bool { return !s.running(workflows.GrantWorkflowID(g)) })
		}
	}
	if s.running(workflows.GrantWorkflowID(g)) {
		t.Error("an ended workflow was started again")
	}
}

// A change of a grant whose workflow is still to be started is not lost: its signal finds nobody, and the workflow looks when it starts.
func TestASignalBeforeTheStart(t *testing.T) {
	s := newSite(t)
	c, wallet := s.Customer(t)
	g := s.grant(c, wallet, 60*day)
	later := time.Now().Add(90 * day).UTC().Truncate(time.Microsecond)
	s.Do(t, &balance.ExtendGrant{Header: balance.Header{Customer: c, Key: s.Key()}, Grant: g, ExpiresAt: later})
	s.drain("grant.signal")
	if n := s.count("SELECT count(*) FROM outbox WHERE topic = 'grant.signal'"); n != 0 {
		t.Errorf("%d signals left", n)
	}
	s.run()
	s.until("it runs", func() bool { return s.running(workflows.GrantWorkflowID(g)) })
	s.until("it knows the new expiry", func() bool {
		st := s.standing(g)
		return st.ExpiresAt != nil && st.ExpiresAt.Equal(later)
	})
}

func TestAnItemThatCannotBePerformedIsPutOff(t *testing.T) {
	s := newSite(t)
	c, wallet := s.Customer(t)
	s.exec(`INSERT INTO outbox (topic, subject) VALUES ('grant.start', $1), ('grant.start', 'nonsense')`, credit.NewID[credit.GrantID]().String())
	g := s.grant(c, wallet, 60*day)
	s.drain("grant.start")
	if !s.running(workflows.GrantWorkflowID(g)) {
		t.Error("they hold up those behind them")
	}
	if n := s.count("SELECT count(*) FROM outbox WHERE attempts = 1 AND retry_at BETWEEN now() AND now() + interval '1.1 s'"); n != 2 {
		t.Errorf("%d items are put off, want 2", n)
	}
	s.exec("UPDATE outbox SET attempts = 100, retry_at = now()")
	s.drain("grant.start")
	if n := s.count("SELECT count(*) FROM outbox WHERE retry_at BETWEEN now() + interval '4 min' AND now() + interval '5 min'"); n != 2 {
		t.Errorf("%d items are put off for 5 minutes, want 2", n)
	}
}

func TestStartsArePaced(t *testing.T) {
	s := newSite(t, func(c *Config) { c.StartsPerSecond = 20 })
	c, wallet := s.Customer(t)
	for range 25 {
		s.grant(c, wallet, 60*day)
	}
	begin := time.Now()
	s.drain("grant.start")
	if took := time.Since(begin); took < 900*time.Millisecond { // a burst of 5, then 20 in a second
		t.Errorf("25 starts took %s", took)
	}
}

// While Temporal is away the sweeps run and the outbox keeps; when it comes back everything is caught up with.
func TestTemporalComesLate(t *testing.T) {
	address, _ := stacktest.Temporal(t)
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := door.Addr().String()
	door.Close()

	r := prometheus.NewRegistry()
	s := newSite(t, func(c *Config) { c.Temporal.HostPort, c.Registry = closed, r })
	c, wallet := s.Customer(t)
	expiring, lasting := s.grant(c, wallet, time.Second), s.grant(c, wallet, 60*day)
	s.cfg.Registry = prometheus.NewRegistry() // the one above is used by s.w
	s.run()
	s.until("it expires without Temporal", func() bool { return s.View(t, expiring).Status == credit.StatusExpired })
	if n := s.count("SELECT count(*) FROM outbox WHERE attempts = 0"); n != 3 {
		t.Errorf("%d items wait untouched, want 3", n)
	}

	forward(t, closed, address)
	var ended workflows.GrantResult
	s.ended(workflows.GrantWorkflowID(expiring), &ended)
	if ended.State != credit.StateExpired {
		t.Errorf("ended %+v", ended)
	}
	s.until("the other one runs", func() bool { return s.running(workflows.GrantWorkflowID(lasting)) })
	s.until("the outbox is empty", func() bool { return s.count("SELECT count(*) FROM outbox") == 0 })
	metrics, err := s.cfg.Registry.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tallystick_worker_grants_expired_total", "tallystick_worker_failures_total", "temporal_worker_start_total", "temporal_request_latency_seconds"} {
		if !gathered(metrics, name) {
			t.Errorf("there is no metric %s", name)
		}
	}
}

func gathered(families []*dto.MetricFamily, name string) bool {
	for _, f := range families {
		if f.GetName() == name {
			return true
		}
	}
	return false
}

// forward opens a door at an address behind which there is another.
func forward(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go copyAndClose(in, out)
			go copyAndClose(out, in)
		}
	}()
}

func copyAndClose(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func TestLostWorkflowsAreRestored(t *testing.T) {
	s := newSite(t)
	c, wallet := s.Customer(t)
	var grants []credit.GrantID
	for range 2*reconcilePage + 20 {
		grants = append(grants, s.grant(c, wallet, 60*day))
	}
	queued := s.grant(c, wallet, 60*day)
	s.exec("UPDATE outbox SET created_at = clock_timestamp()") // the start of the last one still waits; the others' are lost
	s.exec("DELETE FROM outbox WHERE subject <> $1", queued.String())
	s.exec("UPDATE outbox SET created_at = (SELECT created_at FROM grants WHERE id = $1)", queued[:])
	over := s.grant(c, wallet, 60*day)
	s.Do(t, &balance.VoidGrant{Header: balance.Header{Customer: c, Key: s.Key()}, Grant: over, Reason: "test"})

	restore := func() {
		t.Helper()
		s.repeat(s.w.reconcile)
	}
	restored := func(want ...credit.GrantID) {
		t.Helper()
		s.until(fmt.Sprintf("%d run", len(want)), func() bool {
			return len(s.listed("GrantCustomer = '%s' AND ExecutionStatus = 'Running'", c)) == len(want)
		})
		for _, g := range want {
			if !s.running(workflows.GrantWorkflowID(g)) {
				t.Errorf("%s has no workflow", g)
			}
		}
	}
	restore()
	restored(grants...)
	restore()
	restored(grants...)
	if n := len(s.listed("GrantCustomer = '%s'", c)); n != len(grants) {
		t.Errorf("%d workflows were started for %d grants", n, len(grants))
	}
	if err := s.w.client.TerminateWorkflow(context.Background(), workflows.GrantWorkflowID(grants[7]), "", "an operator's mistake"); err != nil {
		t.Fatal(err)
	}
	s.until("it has ended", func() bool {
		return len(s.listed("GrantCustomer = '%s' AND ExecutionStatus = 'Running'", c)) == len(grants)-1
	})
	restore()
	restored(grants...)
	s.exec("DELETE FROM outbox")
	restore()
	restored(append(grants, queued)...)
}

// A refund that is not settled gets its workflow again when Temporal has lost it, and is settled once.
func TestLostRefundsAreRestored(t *testing.T) {
	s := newSite(t)
	c, wallet := s.Customer(t)
	refund := func() credit.RefundID {
		t.Helper()
		id := credit.NewID[credit.RefundID]()
		s.Do(t, &balance.RefundGrant{Header: balance.Header{Customer: c, Key: s.Key()}, Refund: id, Grant: s.grant(c, wallet, 60*day, purchased), Units: one, Reason: "test"})
		return id
	}
	status := func(id credit.RefundID) string {
		t.Helper()
		r, err := s.Store.Refund(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	never, ended, settled := refund(), refund(), refund()
	if err := s.w.startRefund(context.Background(), &activities.RefundFacts{RefundRef: activities.RefundRef{RefundID: ended, CustomerID: c}},
		enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE); err != nil {
		t.Fatal(err)
	}
	if err := s.w.client.TerminateWorkflow(context.Background(), workflows.RefundWorkflowID(ended), "", "an operator's mistake"); err != nil {
		t.Fatal(err)
	}
	how := db.Settlement{Method: activities.Manual, Reference: "by hand", At: time.Now().UTC()}
	if _, err := s.Store.SettleRefund(context.Background(), settled, how); err != nil {
		t.Fatal(err)
	}
	s.exec("DELETE FROM outbox WHERE topic = 'refund.start'")
	queued := refund()
	s.exec("UPDATE outbox SET created_at = (SELECT created_at FROM refunds WHERE id = $1) WHERE topic = 'refund.start'", queued[:])

	s.until("the one that was ended is not listed as running", func() bool {
		return len(s.listed("WorkflowId = '%s' AND ExecutionStatus = 'Running'", workflows.RefundWorkflowID(ended))) == 0
	})
	for range 2 { // the second time there is nothing to restore
		s.repeat(s.w.reconcile)
		s.until("they run", func() bool {
			return s.running(workflows.RefundWorkflowID(never)) && s.running(workflows.RefundWorkflowID(ended)) &&
				len(s.listed("GrantCustomer = '%s' AND WorkflowType = 'Refund' AND ExecutionStatus = 'Running'", c)) == 2
		})
	}
	if n := len(s.listed("WorkflowId IN ('%s', '%s')", workflows.RefundWorkflowID(settled), workflows.RefundWorkflowID(queued))); n != 0 {
		t.Errorf("%d workflows were started of refunds that lacked none", n)
	}
	// One that was settled after it was found to have no workflow.
	if err := s.w.restoreRefunds(context.Background(), []credit.RefundID{settled}, func() { t.Error("a settled refund was restored") }); err != nil {
		t.Fatal(err)
	}
	s.run()
	for _, id := range []credit.RefundID{never, ended, queued} {
		var r workflows.RefundResult
		s.ended(workflows.RefundWorkflowID(id), &r)
		if r.Status != activities.Settled || status(id) != activities.Settled {
			t.Errorf("%s ended %s, is %s", id, asJSON(r), status(id))
		}
	}
	if n := s.count("SELECT count(*) FROM journal_entries WHERE kind = 'settlement'"); n != 4 {
		t.Errorf("%d settlements of 4 refunds were booked", n)
	}
}

func TestTheScheduleFollowsTheSettings(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	handle := s.w.client.ScheduleClient().GetHandle(ctx, s.cfg.Prefix+workflows.RecognitionID)
	if err := s.w.scheduleRecognition(ctx); err != nil {
		t.Fatal(err)
	}
	d, err := handle.Describe(ctx)
	if err != nil || d.Schedule.Spec.Intervals[0].Every != 5*time.Minute || d.Schedule.State.Paused {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := handle.Pause(ctx, pause("closing the year")); err != nil {
		t.Fatal(err)
	}
	s.w.cfg.RecogniseEvery = time.Hour
	if err := s.w.scheduleRecognition(ctx); err != nil {
		t.Fatal(err)
	}
	d, err = handle.Describe(ctx)
	if err != nil || d.Schedule.Spec.Intervals[0].Every != time.Hour || !d.Schedule.State.Paused || d.Schedule.State.Note != "closing the year" ||
		d.Schedule.Policy.CatchupWindow != 365*day || !strings.HasSuffix(d.Schedule.Policy.Overlap.String(), "BufferOne") {
		t.Fatalf("%+v, %v", d.Schedule, err)
	}
}
