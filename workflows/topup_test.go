package workflows_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/workflows"
)

// payment is what the activities of a top-up find, in the place of a database.
type payment struct {
	status string
	asked  time.Time
	calls  []string
}

func (p *payment) facts(env *testsuite.TestWorkflowEnvironment) activities.TopUpFacts {
	f := activities.TopUpFacts{Status: p.status, Credits: "1000 CREDIT", Money: "10.80 EUR"}
	if !p.asked.IsZero() {
		f.TimesOutAt = p.asked.Add(24 * time.Hour)
		f.Left = f.TimesOutAt.Sub(env.Now())
	}
	return f
}

func buying(t *testing.T, p *payment) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	env := newSuite().NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute}) // the machine may pause
	env.RegisterWorkflow(workflows.TopUp)
	var a *activities.Activities
	on := func(name string, activity any, do func()) {
		env.OnActivity(activity, mock.Anything, mock.Anything).Maybe().Return(func(context.Context, activities.TopUpRef) (activities.TopUpFacts, error) {
			p.calls = append(p.calls, name)
			do()
			return p.facts(env), nil
		})
	}
	on("prepare", a.PrepareTopUpGrant, func() {})
	on("ask", a.AskBusinessToCharge, func() { p.asked = env.Now() })
	on("read", a.ReadTopUp, func() {})
	on("expire", a.ExpireTopUp, func() {
		if p.status == "requested" && p.facts(env).Left <= 0 {
			p.status = "expired"
		}
	})
	on("issue", a.IssueTopUpGrant, func() {})
	on("finish", a.FinishTopUp, func() { p.status = "succeeded" })
	env.OnActivity(a.VoidTopUpGrant, mock.Anything, mock.Anything).Maybe().Return(func(context.Context, activities.TopUpRef) error {
		p.calls = append(p.calls, "void")
		return nil
	})
	return env
}

func TestTopUp(t *testing.T) {
	for name, c := range map[string]struct {
		status string // when it begins; "": requested
		at     time.Duration
		change string // the outcome that is told then; "": none
		want   string
		calls  []string
		after  time.Duration
	}{
		"paid after hours":     {at: 5 * time.Hour, change: "paid", want: "succeeded", calls: []string{"prepare", "ask", "read", "issue", "finish"}, after: 5 * time.Hour},
		"declined":             {at: time.Minute, change: "failed", want: "failed", calls: []string{"prepare", "ask", "read", "void"}, after: time.Minute},
		"nobody answers":       {want: "expired", calls: []string{"prepare", "ask", "expire", "void"}, after: 24 * time.Hour},
		"in the last second":   {at: 24*time.Hour - time.Second, change: "paid", want: "succeeded", calls: []string{"prepare", "ask", "read", "issue", "finish"}, after: 24*time.Hour - time.Second},
		"paid before it began": {status: "paid", want: "succeeded", calls: []string{"prepare", "issue", "finish"}},
		"at its end already":   {status: "succeeded", want: "succeeded", calls: []string{"prepare"}},
		"voided again":         {status: "expired", want: "expired", calls: []string{"prepare", "void"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &payment{status: "requested"}
			if c.status != "" {
				p.status = c.status
			}
			env := buying(t, p)
			begun := env.Now()
			if c.change != "" {
				after(env, c.at, func() { p.status = c.change })
			}
			env.ExecuteWorkflow(workflows.TopUp, activities.TopUpRef{TopUpID: credit.NewID[credit.TopUpID]()})
			var r workflows.TopUpResult
			if err := env.GetWorkflowResult(&r); err != nil || r.Status != c.want || !slices.Equal(p.calls, c.calls) {
				t.Errorf("%+v, %v after %v", r, err, p.calls)
			}
			if took := env.Now().Sub(begun); took < c.after || took > c.after+time.Minute {
				t.Errorf("it took %s", took)
			}
		})
	}
}
