package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/devstack/stacktest"
	"github.com/tallystick/tallystick/workflows"
)

const one = credit.Amount(1_000_000) // one credit

// site is a database with its service, and the configuration of its workers, which share the test server's namespace with other tests.
type site struct {
	*balancetest.World
	t   testing.TB
	cfg Config
	w   *worker // not running: for tests of its parts
}

func newSite(t testing.TB, options ...func(*Config)) *site {
	t.Helper()
	address, namespace := stacktest.Temporal(t)
	world := balancetest.New(t, func(o *balancetest.Options) { o.NoCache = true })
	s := &site{World: world, t: t, cfg: Config{
		Service: world.Service, Store: world.Store, Log: balancetest.Log(), Temporal: client.Options{HostPort: address, Namespace: namespace},
		Prefix: "test-" + uuid.NewString()[:8] + "-", StartsPerSecond: 1000,
	}}
	for _, set := range options {
		set(&s.cfg)
	}
	var err error
	if s.w, err = newWorker(s.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.w.client.ScheduleClient().GetHandle(context.Background(), s.cfg.Prefix+workflows.RecognitionID).Delete(context.Background())
		s.w.client.Close()
	})
	return s
}

// run runs a worker until the test ends, or until stop is called.
func (s *site) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, s.cfg) }()
	stopped := false
	stop = func() {
		if cancel(); !stopped {
			stopped = true
			if err := <-ended; err != nil {
				s.t.Error(err)
			}
		}
	}
	s.t.Cleanup(stop)
	return stop
}

// until waits for a condition.
func (s *site) until(what string, holds func() bool) {
	s.t.Helper()
	const patience = time.Minute
	for begin := time.Now(); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > patience {
			s.t.Fatalf("in %s it did not come about: %s", patience, what)
		}
	}
}

// count runs a query that returns one number.
func (s *site) count(sql string, args ...any) (n int) {
	s.t.Helper()
	if err := s.Store.Pool.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (s *site) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.Store.Pool.Exec(context.Background(), sql, args...); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// running tells whether a workflow runs.
func (s *site) running(id string) bool {
	d, err := s.w.client.DescribeWorkflow(context.Background(), id, "")
	return err == nil && d.Status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING
}

// standing asks a grant's workflow how it stands.
func (s *site) standing(g credit.GrantID) (st workflows.GrantStanding) {
	s.t.Helper()
	v, err := s.w.client.QueryWorkflow(context.Background(), workflows.GrantWorkflowID(g), "", workflows.QueryState)
	if err == nil {
		err = v.Get(&st)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// update asks a grant's workflow for a change.
func (s *site) update(g credit.GrantID, name, id string, arg any) (o workflows.Outcome, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	h, err := s.w.client.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: workflows.GrantWorkflowID(g), UpdateName: name, UpdateID: id, Args: []any{arg}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = h.Get(ctx, &o)
	}
	return o, err
}

// ended waits for a workflow to end well and reads its result.
func (s *site) ended(id string, result any) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.until(id+" is started", func() bool {
		_, err := s.w.client.DescribeWorkflow(ctx, id, "")
		return err == nil
	})
	if err := s.w.client.GetWorkflow(ctx, id, "").Get(ctx, result); err != nil {
		s.t.Fatalf("%s: %v", id, err)
	}
}

// details is what the web UI shows as a workflow's current details.
func (s *site) details(id string) string {
	s.t.Helper()
	v, err := s.w.client.QueryWorkflow(context.Background(), id, "", "__temporal_workflow_metadata")
	if err != nil {
		s.t.Fatal(err)
	}
	var m sdkpb.WorkflowMetadata
	if err := v.Get(&m); err != nil {
		s.t.Fatal(err)
	}
	return m.GetCurrentDetails()
}

// listed returns the ids of the workflows that a visibility query finds.
func (s *site) listed(query string, args ...any) (ids []string) {
	s.t.Helper()
	r, err := s.w.client.ListWorkflow(context.Background(), &workflowservice.ListWorkflowExecutionsRequest{PageSize: 1000, Query: fmt.Sprintf(query, args...)})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range r.GetExecutions() {
		ids = append(ids, e.GetExecution().GetWorkflowId())
	}
	return ids
}

func (s *site) history(id, run string) *historypb.History {
	s.t.Helper()
	h := &historypb.History{}
	for it := s.w.client.GetWorkflowHistory(context.Background(), id, run, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
		e, err := it.Next()
		if err != nil {
			s.t.Fatal(err)
		}
		h.Events = append(h.Events, e)
	}
	return h
}

// grant makes a grant; its expiry is so far away.
func (s *site) grant(c credit.CustomerID, wallet credit.WalletID, life time.Duration, modify ...func(*balance.CreateGrant)) credit.GrantID {
	s.t.Helper()
	return s.Grant(s.t, c, wallet, 1000*one, append([]func(*balance.CreateGrant){func(o *balance.CreateGrant) {
		o.Grant.ExpiresAt = time.Now().Add(life)
	}}, modify...)...)
}

func purchased(o *balance.CreateGrant) {
	o.Grant.Type, o.Grant.Price, o.Grant.Tax = credit.Purchased, credit.Money{Minor: 100_00, Currency: "USD"}, 8_00
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func temporalOf(t testing.TB) (address, namespace string) { return stacktest.Temporal(t) }
