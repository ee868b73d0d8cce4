package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
)

// RecognitionID is the id of the schedule that starts recognition runs, and the beginning of their workflow ids.
const RecognitionID = "recognition"

// RecognitionInput starts a [RecognitionRun]; the zero value begins with the first customer.
type RecognitionInput struct {
	After credit.CustomerID `json:"after"`
	Done  RecognitionResult `json:"done"` // before
}

// RecognitionResult counts what a run has done.
type RecognitionResult struct {
	Customers  int    `json:"customers"`
	Operations int    `json:"operations"`
	Entries    int    `json:"entries"`
	Failed     int    `json:"failed,omitempty"` // customers left for the next run
	Fault      string `json:"fault,omitempty"`  // the first failure
}

// RecognitionRun turns what happened since the last run into journal entries, customer by customer, each in one transaction with its
// watermark. Run twice, or beside another one, it posts nothing twice.
func RecognitionRun(ctx workflow.Context, in RecognitionInput) (RecognitionResult, error) {
	after, done := in.After, in.Done
	for {
		page, err := recognisePage(ctx, after)
		if err != nil {
			return done, err
		}
		after = page.Next
		done.Customers += page.Customers
		done.Operations += page.Operations
		done.Entries += page.Entries
		done.Failed += page.Failed
		if done.Fault == "" {
			done.Fault = page.Fault
		}
		details := fmt.Sprintf("%d customers, %d operations, %d journal entries.\n", done.Customers, done.Operations, done.Entries)
		if done.Failed > 0 {
			details += fmt.Sprintf("\n**%d customers failed**, they are left for the next run. The first: %s\n", done.Failed, done.Fault)
		}
		workflow.SetCurrentDetails(ctx, details)
		if after.IsZero() {
			return done, nil
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return done, workflow.NewContinueAsNewError(ctx, RecognitionRun, RecognitionInput{After: after, Done: done})
		}
	}
}

func recognisePage(ctx workflow.Context, after credit.CustomerID) (page activities.RecognisedPage, err error) {
	summary := "From the first customer"
	if !after.IsZero() {
		summary = "From after " + after.String()
	}
	o := workflow.GetActivityOptions(withActivity(ctx, summary))
	o.StartToCloseTimeout = 30 * time.Minute
	o.HeartbeatTimeout = 2 * time.Minute // one customer, with statements of at most a minute
	var a *activities.Activities
	err = workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, o), a.RecognisePage, activities.CustomerRef{CustomerID: after}).Get(ctx, &page)
	return page, err
}
