package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
)

// What a run of a [Backfill] is to do.
const (
	BackfillPreview    = "preview"
	BackfillApply      = "apply"
	BackfillWithdrawal = "withdraw"
)

// BackfillWorkflowID is the id of the workflow that applies a backfill. That of its withdrawal and those of its previews, which are counted, stand below it.
func BackfillWorkflowID(id credit.BackfillID, run string, preview int) string {
	switch run {
	case BackfillPreview:
		return fmt.Sprintf("backfill/%s/preview/%d", id, preview)
	case BackfillWithdrawal:
		return "backfill/" + id.String() + "/withdraw"
	}
	return "backfill/" + id.String()
}

// BackfillInput starts a [Backfill]; the zero Progress begins with the first event.
type BackfillInput struct {
	activities.BackfillRef
	Run        string                      `json:"run"`
	TakingBack bool                        `json:"taking_back,omitempty"` // an application has met a refusal, and gives back what it has consumed
	Progress   activities.BackfillProgress `json:"progress"`              // of the run before
}

// BackfillStanding answers the query [QueryProgress].
type BackfillStanding struct {
	activities.BackfillProgress
	Events int `json:"events"` // staged
}

// Words for how a backfill ends, as the store has them.
const (
	backfillApplied   = "applied"
	backfillWithdrawn = "withdrawn"
)

// Backfill previews staged usage events, consumes them, or gives back what they consumed, page by page. An event that is refused when all were to be consumed has
// everything given back that was.
func Backfill(ctx workflow.Context, in BackfillInput) (BackfillStanding, error) {
	b := backfill{in: in, standing: BackfillStanding{BackfillProgress: in.Progress}}
	err := workflow.SetQueryHandlerWithOptions(ctx, QueryProgress, func() (BackfillStanding, error) { return b.standing, nil },
		workflow.QueryHandlerOptions{Description: "How many events have been looked at, and of how many."})
	if err == nil {
		err = b.run(ctx)
	}
	return b.standing, err
}

type backfill struct {
	in       BackfillInput
	standing BackfillStanding
}

func (b *backfill) run(ctx workflow.Context) error {
	var a *activities.Activities
	var facts activities.BackfillFacts
	if err := workflow.ExecuteActivity(withActivity(ctx, "How does it stand?"), a.ReadBackfill, b.in.BackfillRef).Get(ctx, &facts); err != nil {
		return err
	}
	b.standing.Events = facts.Events
	switch {
	case b.in.Run == BackfillPreview:
		if b.standing.Seen == 0 {
			if err := workflow.ExecuteActivity(b.long(ctx, "Forget the preview before"), a.BeginPreview, b.in.BackfillRef).Get(ctx, nil); err != nil {
				return err
			}
		}
		if err := b.pages(ctx, "Looking at", a.PreviewBackfill); err != nil {
			return err
		}
		return workflow.ExecuteActivity(b.long(ctx, "Make the preview's hash"), a.EndPreview, b.in.BackfillRef).Get(ctx, nil)
	case b.in.Run == BackfillApply && !b.in.TakingBack:
		if err := b.pages(ctx, "Consuming", a.ApplyBackfill); err != nil {
			return err
		}
		if b.standing.Fault == "" {
			return b.end(ctx, backfillApplied)
		}
		err := workflow.ExecuteActivity(withActivity(ctx, "Take it back"), a.TakeBackBackfill,
			activities.TakeBackInput{BackfillRef: b.in.BackfillRef, Fault: b.standing.Fault}).Get(ctx, nil)
		if err != nil {
			return err
		}
		b.in.TakingBack, b.standing.BackfillProgress = true, activities.BackfillProgress{Fault: b.standing.Fault}
	}
	if err := b.pages(ctx, "Giving back", a.WithdrawBackfill); err != nil {
		return err
	}
	return b.end(ctx, backfillWithdrawn)
}

// pages runs an activity until it is through, or has a fault that it did not begin with.
func (b *backfill) pages(ctx workflow.Context, doing string, page any) error {
	before := b.standing.Fault
	for !b.standing.Done && b.standing.Fault == before {
		b.tell(ctx, doing)
		err := workflow.ExecuteActivity(b.long(ctx, fmt.Sprintf("%s event %d and those after it", doing, b.standing.Seen+1)), page,
			activities.BackfillPageInput{BackfillRef: b.in.BackfillRef, Progress: b.standing.BackfillProgress}).Get(ctx, &b.standing.BackfillProgress)
		if err != nil {
			return err
		}
		if !b.standing.Done && b.standing.Fault == before && workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			in := b.in
			in.Progress = b.standing.BackfillProgress
			return workflow.NewContinueAsNewError(ctx, Backfill, in)
		}
	}
	b.tell(ctx, "Done")
	return nil
}

// long is for activities that go through many events: short pages, but one customer is previewed to the end.
func (b *backfill) long(ctx workflow.Context, summary string) workflow.Context {
	options := workflow.GetActivityOptions(withActivity(ctx, summary))
	options.StartToCloseTimeout = 2 * time.Hour
	options.HeartbeatTimeout = time.Minute
	return workflow.WithActivityOptions(ctx, options)
}

func (b *backfill) end(ctx workflow.Context, status string) error {
	var a *activities.Activities
	return workflow.ExecuteActivity(withActivity(ctx, "Note the end: "+status), a.EndBackfill,
		activities.EndBackfillInput{BackfillRef: b.in.BackfillRef, Status: status}).Get(ctx, nil)
}

// tell shows how far it is.
func (b *backfill) tell(ctx workflow.Context, how string) {
	details := fmt.Sprintf("**%s**: %d of %d events.\n", how, b.standing.Seen, b.standing.Events)
	if b.standing.Fault != "" {
		details += "\n**Taken back.** " + b.standing.Fault + "\n"
	}
	workflow.SetCurrentDetails(ctx, details)
}
