package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
)

// BacktestWorkflowID is the id of the one workflow of a back-test.
func BacktestWorkflowID(id credit.BacktestID) string { return "backtest/" + id.String() }

// QueryProgress answers a [BacktestStanding].
const QueryProgress = "progress"

// BacktestInput starts a [Backtest]; the zero Progress begins with the first customer.
type BacktestInput struct {
	activities.BacktestRef
	Progress activities.BacktestProgress `json:"progress"` // of the run before
}

// BacktestStanding answers the query [QueryProgress].
type BacktestStanding struct {
	activities.BacktestProgress
	Customers int `json:"customers"` // to look at
}

// Words for how a back-test has ended, as the store has them.
const (
	backtestDone      = "done"
	backtestCancelled = "cancelled"
	backtestFailed    = "failed"
)

// Backtest decides a period's recorded operations again under another rate card, page of customers by page, and keeps what comes of it. It reads
// what was booked and changes nothing of it. Cancelled, it ends in order and what it has found stays.
func Backtest(ctx workflow.Context, in BacktestInput) (BacktestStanding, error) {
	b := backtest{in: in, standing: BacktestStanding{BacktestProgress: in.Progress}}
	err := workflow.SetQueryHandlerWithOptions(ctx, QueryProgress, func() (BacktestStanding, error) { return b.standing, nil },
		workflow.QueryHandlerOptions{Description: "How many customers and consumptions have been tested, and of how many."})
	if err != nil {
		return b.standing, err
	}
	err = b.run(ctx)
	var refusal *temporal.ApplicationError
	switch {
	case workflow.IsContinueAsNewError(err):
		return b.standing, err
	case err == nil:
		b.tell(ctx, "Done")
		return b.standing, b.end(ctx, backtestDone, "")
	case temporal.IsCanceledError(err) || errors.As(err, &refusal) && refusal.Type() == string(credit.BacktestEnded):
		b.tell(ctx, "Cancelled")
		staying, cancel := workflow.NewDisconnectedContext(ctx)
		defer cancel()
		if err := b.end(staying, backtestCancelled, ""); err != nil {
			return b.standing, err
		}
		return b.standing, temporal.NewCanceledError()
	case errors.As(err, &refusal):
		b.tell(ctx, "Failed: "+refusal.Message())
		if err := b.end(ctx, backtestFailed, refusal.Message()); err != nil {
			return b.standing, err
		}
	}
	return b.standing, err
}

type backtest struct {
	in       BacktestInput
	standing BacktestStanding
}

func (b *backtest) run(ctx workflow.Context) error {
	var a *activities.Activities
	var facts activities.BacktestFacts
	if err := workflow.ExecuteActivity(withActivity(ctx, "Whom to look at?"), a.BeginBacktest, b.in.BacktestRef).Get(ctx, &facts); err != nil {
		return err
	}
	b.standing.Customers = facts.Customers
	for !b.standing.Done {
		b.tell(ctx, "Running")
		page := workflow.GetActivityOptions(withActivity(ctx, fmt.Sprintf("From customer %d on", b.standing.Seen+1)))
		page.StartToCloseTimeout = 2 * time.Hour // a page is short, but one customer is tested to the end
		page.HeartbeatTimeout = 30 * time.Second
		page.WaitForCancellation = true
		err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, page), a.BacktestPage,
			activities.BacktestPageInput{BacktestRef: b.in.BacktestRef, Progress: b.standing.BacktestProgress}).Get(ctx, &b.standing.BacktestProgress)
		if err != nil {
			return err
		}
		if !b.standing.Done && workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return workflow.NewContinueAsNewError(ctx, Backtest, BacktestInput{BacktestRef: b.in.BacktestRef, Progress: b.standing.BacktestProgress})
		}
	}
	return nil
}

func (b *backtest) end(ctx workflow.Context, status, fault string) error {
	var a *activities.Activities
	return workflow.ExecuteActivity(withActivity(ctx, "Note the end: "+status), a.EndBacktest,
		activities.EndBacktestInput{BacktestRef: b.in.BacktestRef, Status: status, Fault: fault}).Get(ctx, nil)
}

// tell shows how far it is.
func (b *backtest) tell(ctx workflow.Context, how string) {
	s := &b.standing
	percent := 100
	if s.Customers > 0 {
		percent = min(100, 100*s.Seen/s.Customers)
	}
	details := fmt.Sprintf("**%s**: %d %%, %d of %d customers, %d consumptions.\n", how, percent, s.Seen, s.Customers, s.Events)
	if s.Failed > 0 {
		details += fmt.Sprintf("\n**%d customers could not be tested**; the result says why.\n", s.Failed)
	}
	workflow.SetCurrentDetails(ctx, details)
}

// BacktestSummary is the one line that names a back-test's workflow in lists.
func BacktestSummary(f *activities.BacktestFacts) string {
	return fmt.Sprintf("%s, %s to %s", f.Tested, f.From.Format(time.DateOnly), f.Until.Format(time.DateOnly))
}
