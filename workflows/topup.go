package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
)

// TopUpWorkflowID is the id of the one workflow of an automatic top-up.
func TopUpWorkflowID(id credit.TopUpID) string { return "topup/" + id.String() }

// TopUpResult is how a top-up ended.
type TopUpResult struct {
	Status     string `json:"status"` // succeeded, failed or expired
	PaymentRef string `json:"payment_ref,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

// TopUp buys a wallet's next pack of credits. That it is to be bought was decided before it starts; whether it was paid is decided in Postgres, of which
// the workflow is told by [SignalChanged], or when the time is over:
//
//	requested → asked → paid → succeeded | failed | expired
//
// Every activity may run twice and changes nothing then.
func TopUp(ctx workflow.Context, in activities.TopUpRef) (TopUpResult, error) {
	t := topUp{ref: in, status: "requested", changed: workflow.GetSignalChannel(ctx, SignalChanged)}
	err := workflow.SetQueryHandlerWithOptions(ctx, QueryState, func() (string, error) { return t.status, nil },
		workflow.QueryHandlerOptions{Description: "How far the top-up is: requested, asked, paid, succeeded, failed, expired."})
	if err != nil {
		return TopUpResult{}, err
	}
	var a *activities.Activities
	if err := t.do(ctx, "Prepare the purchase", a.PrepareTopUpGrant); err != nil {
		return TopUpResult{}, err
	}
	t.tell(ctx, "requested")
	if t.facts.Status == activities.TopUpRequested {
		if err := t.do(ctx, "Ask the business to charge "+t.facts.Money, a.AskBusinessToCharge); err != nil {
			return TopUpResult{}, err
		}
		t.tell(ctx, "asked, until "+timeText(t.facts.TimesOutAt))
	}
	if err := t.awaitOutcome(ctx); err != nil {
		return TopUpResult{}, err
	}
	if t.facts.Status == activities.TopUpPaid {
		t.tell(ctx, "paid, reference "+oneLine(t.facts.PaymentRef))
		if err := t.do(ctx, "Issue the credits", a.IssueTopUpGrant); err != nil {
			return TopUpResult{}, err
		}
	}
	if t.facts.Status == activities.TopUpPaid {
		if err := t.do(ctx, "Write down that it has succeeded", a.FinishTopUp); err != nil {
			return TopUpResult{}, err
		}
	}
	if t.facts.Status != activities.TopUpSucceeded {
		if err := workflow.ExecuteActivity(withActivity(ctx, "Take the purchase back"), a.VoidTopUpGrant, in).Get(ctx, nil); err != nil {
			return TopUpResult{}, err
		}
	}
	t.tell(ctx, t.facts.Status)
	return TopUpResult{Status: t.facts.Status, PaymentRef: t.facts.PaymentRef, Reason: t.facts.Reason}, nil
}

type topUp struct {
	ref     activities.TopUpRef
	facts   activities.TopUpFacts
	changed workflow.ReceiveChannel
	status  string
	story   story
}

// do runs an activity that answers how the top-up stands.
func (t *topUp) do(ctx workflow.Context, summary string, activity any) error {
	return workflow.ExecuteActivity(withActivity(ctx, summary), activity, t.ref).Get(ctx, &t.facts)
}

// awaitOutcome waits until the payment is decided, or its time is over by the clock of Postgres.
func (t *topUp) awaitOutcome(ctx workflow.Context) error {
	var a *activities.Activities
	for t.facts.Status == activities.TopUpRequested {
		woken, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{Timeout: t.facts.Left, TimerOptions: workflow.TimerOptions{Summary: "time for the payment"}},
			func() bool { return t.changed.Len() > 0 })
		if err != nil {
			return err
		}
		if woken {
			for t.changed.ReceiveAsync(nil) { // one look sees them all
			}
			err = t.do(ctx, "How does the payment stand?", a.ReadTopUp)
		} else {
			err = t.do(ctx, "Is its time over?", a.ExpireTopUp)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *topUp) tell(ctx workflow.Context, status string) {
	t.status = status
	t.story.add(workflow.Now(ctx), status)
	workflow.SetCurrentDetails(ctx, "**"+status+"**: "+TopUpSummary(&t.facts)+"\n\n"+t.story.list())
}

// TopUpSummary is the one line that names a top-up's workflow in lists.
func TopUpSummary(f *activities.TopUpFacts) string {
	return fmt.Sprintf("%s for %s, for %s", f.Credits, f.Money, f.WalletID)
}

// TopUpDetails says what does not change about a top-up.
func TopUpDetails(f *activities.TopUpFacts) string {
	return fmt.Sprintf("%s.\n\n- customer `%s`\n- wallet `%s`\n- grant `%s`\n", TopUpSummary(f), f.CustomerID, f.WalletID, f.GrantID)
}
