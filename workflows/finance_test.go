package workflows_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/workflows"
)

func TestRefund(t *testing.T) {
	for name, c := range map[string]struct {
		facts activities.RefundFacts
		calls []string
		want  string
	}{
		"paid for":     {activities.RefundFacts{Money: "43.20 EUR", Status: "awaiting_settlement"}, []string{"read", "post", "settle", "book"}, activities.Settled},
		"not paid for": {activities.RefundFacts{Status: activities.NothingToPay}, []string{"read", "post"}, activities.NothingToPay},
	} {
		t.Run(name, func(t *testing.T) {
			env := newSuite().NewTestWorkflowEnvironment()
			env.RegisterWorkflow(workflows.Refund)
			ref := activities.RefundRef{RefundID: credit.NewID[credit.RefundID](), CustomerID: credit.NewID[credit.CustomerID]()}
			c.facts.RefundRef = ref
			var a *activities.Activities
			var calls []string
			posts := 0
			env.OnActivity(a.ReadRefund, mock.Anything, ref).Return(func(context.Context, activities.RefundRef) (activities.RefundFacts, error) {
				calls = append(calls, "read")
				return c.facts, nil
			})
			env.OnActivity(a.PostCustomer, mock.Anything, activities.CustomerRef{CustomerID: ref.CustomerID}).Return(
				func(context.Context, activities.CustomerRef) (activities.Posted, error) {
					if posts++; posts < 5 {
						return activities.Posted{}, errors.New("database is away")
					}
					calls = append(calls, "post")
					return activities.Posted{Entries: 1}, nil
				})
			paid := activities.Settlement{Method: activities.Manual, Reference: "r", At: begin}
			env.OnActivity(a.SettleManually, mock.Anything, ref).Maybe().Return(func(context.Context, activities.RefundRef) (activities.Settlement, error) {
				calls = append(calls, "settle")
				return paid, nil
			})
			env.OnActivity(a.BookSettlement, mock.Anything, activities.BookSettlementInput{RefundRef: ref, Settlement: paid}).Maybe().Return(
				func(context.Context, activities.BookSettlementInput) error {
					calls = append(calls, "book")
					return nil
				})
			env.ExecuteWorkflow(workflows.Refund, ref)
			var r workflows.RefundResult
			if err := env.GetWorkflowResult(&r); err != nil || r.Status != c.want || (r.Settlement != nil) != (c.want == activities.Settled) {
				t.Errorf("ended %+v, %v", r, err)
			}
			if !slices.Equal(calls, c.calls) {
				t.Errorf("activities %q, want %q", calls, c.calls)
			}
		})
	}
}

func TestARefundThatDoesNotExist(t *testing.T) {
	env := newSuite().NewTestWorkflowEnvironment()
	env.RegisterWorkflow(workflows.Refund)
	var a *activities.Activities
	env.OnActivity(a.ReadRefund, mock.Anything, mock.Anything).Return(activities.RefundFacts{},
		temporal.NewNonRetryableApplicationError("There is none.", string(credit.RefundNotFound), nil))
	env.ExecuteWorkflow(workflows.Refund, activities.RefundRef{})
	wantRefusal(t, env.GetWorkflowError(), credit.RefundNotFound)
}

func TestRecognitionGoesFromPageToPage(t *testing.T) {
	last := credit.NewID[credit.CustomerID]()
	pages := map[credit.CustomerID]activities.RecognisedPage{
		{}:   {Customers: 2000, Posted: activities.Posted{Operations: 5000, Entries: 2100}, Next: last},
		last: {Customers: 3, Failed: 1, Fault: "one of them", Posted: activities.Posted{Operations: 4, Entries: 2}},
	}
	newEnv := func() *testsuite.TestWorkflowEnvironment {
		env := newSuite().NewTestWorkflowEnvironment()
		env.RegisterWorkflow(workflows.RecognitionRun)
		var a *activities.Activities
		env.OnActivity(a.RecognisePage, mock.Anything, mock.Anything).After(time.Minute).Return(
			func(_ context.Context, in activities.CustomerRef) (activities.RecognisedPage, error) {
				return pages[in.CustomerID], nil
			})
		return env
	}
	want := workflows.RecognitionResult{Customers: 2003, Operations: 5004, Entries: 2102, Failed: 1, Fault: "one of them"}

	env := newEnv()
	env.ExecuteWorkflow(workflows.RecognitionRun, workflows.RecognitionInput{})
	var r workflows.RecognitionResult
	if err := env.GetWorkflowResult(&r); err != nil || r != want {
		t.Errorf("ended %+v, %v", r, err)
	}

	env = newEnv()
	env.SetContinueAsNewSuggested(true)
	env.ExecuteWorkflow(workflows.RecognitionRun, workflows.RecognitionInput{})
	var next *workflow.ContinueAsNewError
	if err := env.GetWorkflowError(); !errors.As(err, &next) {
		t.Fatal(err)
	}
	env = newEnv()
	var in workflows.RecognitionInput
	readInput(t, next, &in)
	env.ExecuteWorkflow(workflows.RecognitionRun, in)
	if err := env.GetWorkflowResult(&r); err != nil || r != want {
		t.Errorf("continued, it ended %+v, %v", r, err)
	}
}
