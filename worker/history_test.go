package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/worker"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/workflows"
)

var storeHistories = flag.Bool("store-histories", false, "write the histories of TestHistories to ../workflows/testdata/history")

// What the server has recorded of every kind of course replays with the code that ran it; with -store-histories it is kept, for the code to come.
func TestHistories(t *testing.T) {
	s := newSite(t, asWorker)
	s.run()
	c, wallet := s.Customer(t)
	because := workflows.Request{Reason: "a stored history"}
	do := func(g credit.GrantID, update string, arg any) workflows.Outcome {
		t.Helper()
		o, err := s.update(g, update, fmt.Sprintf("%s-%d", update, time.Now().UnixNano()), arg)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	end := func(name string, g credit.GrantID, want credit.State) {
		t.Helper()
		var r workflows.GrantResult
		if s.ended(workflows.GrantWorkflowID(g), &r); r.State != want {
			t.Errorf("%s ended %+v, want %s", name, r, want)
		}
		s.keep(name, workflows.GrantWorkflowID(g), "")
	}

	// Paid, extended, frozen, unfrozen, refunded in part and then whole.
	g := s.grant(c, wallet, 60*day, purchased, func(o *balance.CreateGrant) { o.Pending = true })
	s.until("it waits for its payment", func() bool {
		return s.running(workflows.GrantWorkflowID(g)) && s.standing(g).State == credit.StatePending
	})
	s.Do(t, &balance.IssueGrant{Header: balance.Header{Customer: c}, Grant: g})
	s.until("it is active", func() bool { return s.standing(g).State == credit.StateActive })
	later := time.Now().Add(90 * day).UTC().Truncate(time.Microsecond)
	do(g, workflows.UpdateExtend, workflows.Extend{Request: because, ExpiresAt: &later})
	do(g, workflows.UpdateFreeze, because)
	do(g, workflows.UpdateUnfreeze, because)
	refund := do(g, workflows.UpdateRefund, workflows.Refunding{Request: because, Units: "10"}).RefundID
	do(g, workflows.UpdateRefund, workflows.Refunding{Request: because})
	end("grant-refunded", g, credit.StateRefunded)
	var settled workflows.RefundResult
	s.ended(workflows.RefundWorkflowID(*refund), &settled)
	s.keep("refund", workflows.RefundWorkflowID(*refund), "")

	// Effective later, reminded of, voided.
	g = s.grant(c, wallet, 30*day+4*time.Second, func(o *balance.CreateGrant) { o.Grant.EffectiveAt = time.Now().Add(2 * time.Second) })
	s.until("the customer is reminded", func() bool { return s.count("SELECT count(*) FROM notifications WHERE subject = $1", g.String()) == 1 })
	do(g, workflows.UpdateVoid, because)
	end("grant-voided", g, credit.StateVoided)

	// Expired, by the sweep or by the workflow.
	g = s.grant(c, wallet, 2*time.Second, purchased)
	end("grant-expired", g, credit.StateExpired)

	// Used up.
	g = s.grant(c, wallet, 50*day)
	s.until("it is active", func() bool {
		return s.running(workflows.GrantWorkflowID(g)) && s.standing(g).State == credit.StateActive
	})
	s.Do(t, s.Consume(c, 1000*one))
	end("grant-depleted", g, credit.StateDepleted)

	// Continued as new. A server does that after thousands of events, unless it is told to do it sooner (see ../workflows/README.md).
	g = s.grant(c, wallet, 50*day)
	id := workflows.GrantWorkflowID(g)
	s.until("it runs", func() bool { return s.running(id) })
	first := s.runOf(id)
	for range 5 {
		do(g, workflows.UpdateFreeze, because)
		do(g, workflows.UpdateUnfreeze, because)
	}
	if s.runOf(id) != first {
		s.keep("grant-continued", id, first)
	}
	do(g, workflows.UpdateVoid, because)
	s.until("it has ended", func() bool { return !s.running(id) })

	handle := s.w.client.ScheduleClient().GetHandle(context.Background(), s.cfg.Prefix+workflows.RecognitionID)
	if err := handle.Trigger(context.Background(), client.ScheduleTriggerOptions{}); err != nil {
		t.Fatal(err)
	}
	s.until("recognition has run", func() bool {
		runs := s.listed("WorkflowId STARTS_WITH '%srecognition-' AND ExecutionStatus = 'Completed'", s.cfg.Prefix)
		if len(runs) > 0 {
			s.keep("recognition", runs[0], "")
		}
		return len(runs) > 0
	})
}

func (s *site) runOf(id string) string {
	s.t.Helper()
	d, err := s.w.client.DescribeWorkflow(context.Background(), id, "")
	if err != nil {
		s.t.Fatal(err)
	}
	return d.WorkflowExecution.RunID
}

// keep replays a workflow's history and stores it when that is asked for.
func (s *site) keep(name, id, run string) {
	s.t.Helper()
	h := s.history(id, run)
	b := historyJSON(s.t, h) // before the replay, which writes what it upserts into the history's first event
	r := sdk.NewWorkflowReplayer()
	workflows.RegisterGrants(r)
	workflows.RegisterFinance(r)
	if err := r.ReplayWorkflowHistory(nil, h); err != nil {
		s.t.Errorf("%s: %v", name, err)
	}
	s.t.Logf("%-16s %3d events, %6d bytes of JSON", name, len(h.Events), len(b))
	if *storeHistories {
		if err := os.WriteFile(filepath.Join("..", "workflows", "testdata", "history", name+".json"), b, 0o644); err != nil {
			s.t.Error(err)
		}
	}
}

func historyJSON(t testing.TB, h *historypb.History) []byte {
	t.Helper()
	b, err := protojson.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, b, "", " "); err != nil {
		t.Fatal(err)
	}
	return append(indented.Bytes(), '\n')
}
