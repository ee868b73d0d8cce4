package workflows_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/workflows"
)

// books are what the activities of a close find, in the place of a database.
type books struct {
	facts   activities.CloseFacts
	blocked string // what the second step says
	// notPublished is how often the step after the lock is blocked.
	notPublished int
	calls        []string
}

func closing(t *testing.T, b *books) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	env := newSuite().NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute}) // the machine may pause
	env.RegisterWorkflow(workflows.PeriodClose)
	b.facts.Steps = []activities.CloseStep{{Name: "one", Title: "One"}, {Name: "two", Title: "Two"}}
	var a *activities.Activities
	env.OnActivity(a.ReadClose, mock.Anything, mock.Anything).Return(func(context.Context, activities.CloseRef) (activities.CloseFacts, error) {
		f := b.facts
		f.LateFor = f.LateUntil.Sub(env.Now())
		return f, nil
	})
	env.OnActivity(a.RunCloseStep, mock.Anything, mock.Anything).Maybe().Return(
		func(_ context.Context, in activities.CloseStepInput) (r activities.CloseStepResult, err error) {
			b.calls = append(b.calls, in.Step)
			if in.Step == "after" && b.notPublished > 0 {
				b.notPublished--
				r.BlockedBy = "A seal is broken."
			}
			if in.Step == "two" {
				r.BlockedBy = b.blocked
			}
			return r, nil
		})
	env.OnActivity(a.ReviewClose, mock.Anything, mock.Anything).Maybe().Return(func(context.Context, activities.CloseRef) error {
		b.calls = append(b.calls, "review")
		b.facts.InReview = true
		return nil
	})
	env.OnActivity(a.PrepareCloseAgain, mock.Anything, mock.Anything).Maybe().Return(func(context.Context, activities.PrepareCloseInput) error {
		b.calls = append(b.calls, "out of review")
		b.facts.InReview = false
		return nil
	})
	env.OnActivity(a.MakeClosePack, mock.Anything, mock.Anything).Maybe().Return(func(context.Context, activities.CloseRef) (activities.ClosePack, error) {
		b.calls = append(b.calls, "pack")
		b.facts.Status, b.facts.PackHash = "in_review", "hash"
		return activities.ClosePack{Hash: "hash"}, nil
	})
	env.OnActivity(a.RemindOfClose, mock.Anything, mock.Anything).Maybe().Return(func(_ context.Context, in activities.RemindCloseInput) error {
		b.calls = append(b.calls, "remind")
		return nil
	})
	env.OnActivity(a.LockPeriod, mock.Anything, mock.Anything).Maybe().Return(func(context.Context, activities.CloseRef) (activities.ClosedPeriod, error) {
		b.calls = append(b.calls, "lock")
		if b.facts.PackHash != "hash" {
			b.facts.Status, b.facts.InReview, b.facts.PackHash = "preparing", false, ""
			return activities.ClosedPeriod{Status: "preparing"}, nil
		}
		b.facts.Status, b.facts.After = "closed", []activities.CloseStep{{Name: "after", Title: "After"}}
		return activities.ClosedPeriod{Status: "closed"}, nil
	})
	return env
}

// after lets something happen at a time, of which the workflow is told.
func after(env *testsuite.TestWorkflowEnvironment, d time.Duration, do func()) {
	env.RegisterDelayedCallback(func() {
		do()
		env.SignalWorkflow(workflows.SignalChanged, nil)
	}, d)
}

// It waits for the late window, looks again while it is blocked, runs the steps before and after the review begins, and reminds every day.
func TestPeriodClose(t *testing.T) {
	b := &books{blocked: "A journal waits.", notPublished: 2}
	env := closing(t, b)
	start := env.Now()
	b.facts.Status, b.facts.LateUntil = "preparing", start.Add(72*time.Hour)
	env.RegisterDelayedCallback(func() {
		if len(b.calls) > 0 {
			t.Errorf("in the late window: %q", b.calls)
		}
	}, 71*time.Hour)
	// Passes at 0, 1, 3, 7 minutes; it is solved before that at 15.
	after(env, 72*time.Hour+10*time.Minute, func() { b.blocked = "" })
	after(env, 72*time.Hour+10*time.Minute+50*time.Hour, func() { b.facts.Status = "approved" })
	env.ExecuteWorkflow(workflows.PeriodClose, workflows.CloseInput{CloseRef: activities.CloseRef{Entity: "main", Period: "2026-01", Version: 1}})
	var r workflows.CloseResult
	if err := env.GetWorkflowResult(&r); err != nil || r.Status != "closed" || r.PackHash != "hash" {
		t.Fatalf("%+v, %v", r, err)
	}
	steps := []string{"one", "two"}
	want := slices.Concat(slices.Repeat(steps, 4), steps, []string{"review"}, steps, []string{"pack", "remind", "remind", "lock", "after", "after", "after"})
	if !slices.Equal(b.calls, want) {
		t.Errorf("%q, want %q", b.calls, want)
	}
}

// What turns up blocked in review goes back, and so does an approval of a period that had changed.
func TestPeriodCloseGoesBack(t *testing.T) {
	b := &books{}
	env := closing(t, b)
	b.facts.Status, b.facts.InReview, b.blocked = "preparing", true, "It differs."
	after(env, 30*time.Second, func() { b.blocked = "" })
	after(env, time.Hour, func() { b.facts.Status, b.facts.PackHash = "approved", "other" })
	after(env, 2*time.Hour, func() { b.facts.Status = "approved" })
	env.ExecuteWorkflow(workflows.PeriodClose, workflows.CloseInput{CloseRef: activities.CloseRef{Entity: "main", Period: "2026-01", Version: 2}})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	steps := "one two"
	again := steps + " review " + steps + " pack lock"
	if got, want := strings.Join(b.calls, " "), steps+" out of review "+again+" "+again+" after"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestACloseThatDoesNotExist(t *testing.T) {
	env := newSuite().NewTestWorkflowEnvironment()
	env.RegisterWorkflow(workflows.PeriodClose)
	var a *activities.Activities
	env.OnActivity(a.ReadClose, mock.Anything, mock.Anything).Return(activities.CloseFacts{},
		temporal.NewNonRetryableApplicationError("There is none.", string(credit.CloseNotFound), nil))
	env.ExecuteWorkflow(workflows.PeriodClose, workflows.CloseInput{})
	wantRefusal(t, env.GetWorkflowError(), credit.CloseNotFound)
}
