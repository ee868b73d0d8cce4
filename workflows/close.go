package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
)

// CloseWorkflowID is the id of the one workflow that closes a version of a period.
func CloseWorkflowID(k activities.CloseRef) string {
	id := "close/" + k.Entity + "/" + string(k.Period)
	if k.Version > 1 {
		id += fmt.Sprintf("/v%d", k.Version)
	}
	return id
}

// UpdateCheck asks a close's workflow to look again at once. It takes a [Request] and answers a [CloseStanding].
const UpdateCheck = "check"

// Waits of a close.
const (
	closeAgain     = time.Minute      // after the first pass that was blocked; then twice as long each time
	closeAgainMost = 15 * time.Minute // at most
	closeReminder  = 24 * time.Hour
)

// CloseInput starts a [PeriodClose].
type CloseInput struct {
	activities.CloseRef
	Story story `json:"story,omitzero"` // of the run before
}

// CloseResult is how a close ended.
type CloseResult struct {
	Status   string `json:"status"` // closed
	PackHash string `json:"pack_hash"`
}

// CloseStanding answers the query [QueryState].
type CloseStanding struct {
	State    string         `json:"state"` // late window, preparing, in review, approved, closed
	Blocked  []CloseBlocked `json:"blocked"`
	PackHash string         `json:"pack_hash,omitempty"`
	Next     string         `json:"next"` // what the workflow waits for
	Story    []string       `json:"story"`
}

// CloseBlocked is a step that keeps a close from going on.
type CloseBlocked struct {
	Step string `json:"step"`
	By   string `json:"by"`
}

// PeriodClose closes a version of an accounting period:
//
//	late window → steps, again and again until none is blocked → review → steps → pack → approval → lock → seal → export → publication
//
// What is decided by people is decided in Postgres, by those whom the API knows, and the workflow is told by [SignalChanged]; it decides nothing.
// Every activity may run twice and changes nothing then.
func PeriodClose(ctx workflow.Context, in CloseInput) (CloseResult, error) {
	c := &periodClose{in: in, standing: CloseStanding{State: "preparing"}, changed: workflow.GetSignalChannel(ctx, SignalChanged)}
	if err := c.listen(ctx); err != nil {
		return CloseResult{}, err
	}
	if len(in.Story.Lines) == 0 {
		c.tell(ctx, "Begun.")
	}
	for {
		done, err := c.pass(ctx)
		if err != nil {
			return CloseResult{}, err
		}
		if done {
			c.tell(ctx, "Closed.")
			return CloseResult{Status: c.facts.Status, PackHash: c.facts.PackHash}, handlersFinished(ctx)
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			if err := handlersFinished(ctx); err != nil {
				return CloseResult{}, err
			}
			return CloseResult{}, workflow.NewContinueAsNewError(ctx, PeriodClose, CloseInput{CloseRef: in.CloseRef, Story: c.in.Story})
		}
	}
}

type periodClose struct {
	in       CloseInput
	facts    activities.CloseFacts
	standing CloseStanding
	changed  workflow.ReceiveChannel
	woken    bool
	blocked  int // passes, one after another
	waited   int // days for an approver, of the pack
	pack     string
}

func (c *periodClose) listen(ctx workflow.Context) error {
	standing := func() (CloseStanding, error) {
		s := c.standing
		s.PackHash, s.Story = c.facts.PackHash, c.in.Story.texts()
		return s, nil
	}
	return errors.Join(
		workflow.SetQueryHandlerWithOptions(ctx, QueryState, standing, workflow.QueryHandlerOptions{Description: "How the close stands, and what it waits for."}),
		workflow.SetUpdateHandlerWithOptions(ctx, UpdateCheck, func(ctx workflow.Context, r Request) (CloseStanding, error) {
			c.woken = true
			c.tell(ctx, "Asked to look again: "+oneLine(r.Reason))
			return standing()
		}, workflow.UpdateHandlerOptions{
			Description: "Look again at once. Decisions are made through the API, which knows who makes them.",
			Validator: func(_ workflow.Context, r Request) error {
				if strings.TrimSpace(r.Reason) == "" {
					return errors.New("a reason is required")
				}
				return nil
			},
		}))
}

// pass looks at the close, and does the next thing, or waits.
func (c *periodClose) pass(ctx workflow.Context) (done bool, err error) {
	var a *activities.Activities
	c.woken = false
	for c.changed.ReceiveAsync(nil) { // what has changed until now is seen by the look that follows
	}
	if err := workflow.ExecuteActivity(withActivity(ctx, "How does the close stand?"), a.ReadClose, c.in.CloseRef).Get(ctx, &c.facts); err != nil {
		return false, err
	}
	switch f := &c.facts; {
	case f.Status == "closed":
		return c.publish(ctx)
	case f.Status == "approved":
		return false, c.lock(ctx)
	case f.Status == "in_review":
		return false, c.review(ctx)
	case f.LateFor > 0:
		c.stand(ctx, "late window", "the end of the late window at "+timeText(f.LateUntil), nil)
		return false, c.wait(ctx, f.LateFor, "the late window is over")
	}
	return false, c.prepare(ctx)
}

// prepare runs the steps. Is none blocked, the period is taken into review, and the steps are run once more: what they find then is what is approved.
func (c *periodClose) prepare(ctx workflow.Context) error {
	var a *activities.Activities
	blocked, err := c.run(ctx, c.facts.Steps)
	switch {
	case err != nil:
		return err
	case blocked != nil:
		if c.facts.InReview {
			again := activities.PrepareCloseInput{CloseRef: c.in.CloseRef, Note: "Blocked in review: " + blocked[0].By}
			if err := workflow.ExecuteActivity(withActivity(ctx, "Out of review"), a.PrepareCloseAgain, again).Get(ctx, nil); err != nil {
				return err
			}
		}
		return c.waitBlocked(ctx, "preparing", blocked)
	case !c.facts.InReview:
		c.blocked = 0
		c.tell(ctx, "All steps are done; into review.")
		return workflow.ExecuteActivity(withCloseActivity(ctx, "Into review: nothing is booked in the period from here on"), a.ReviewClose, c.in.CloseRef).Get(ctx, nil)
	}
	var pack activities.ClosePack
	if err := workflow.ExecuteActivity(withCloseActivity(ctx, "Make the close pack"), a.MakeClosePack, c.in.CloseRef).Get(ctx, &pack); err != nil {
		return err
	}
	if pack.Hash != "" {
		c.tell(ctx, "Pack "+pack.Hash+" is in review.")
	}
	return nil
}

// run runs steps in order, and returns those that are blocked.
func (c *periodClose) run(ctx workflow.Context, steps []activities.CloseStep) (blocked []CloseBlocked, err error) {
	var a *activities.Activities
	for _, s := range steps {
		var r activities.CloseStepResult
		in := activities.CloseStepInput{CloseRef: c.in.CloseRef, Step: s.Name}
		if err := workflow.ExecuteActivity(withCloseActivity(ctx, s.Title), a.RunCloseStep, in).Get(ctx, &r); err != nil {
			return nil, err
		}
		if r.BlockedBy != "" {
			blocked = append(blocked, CloseBlocked{s.Name, r.BlockedBy})
		}
	}
	return blocked, nil
}

// waitBlocked waits for something to change, longer each time.
func (c *periodClose) waitBlocked(ctx workflow.Context, state string, blocked []CloseBlocked) error {
	if c.blocked == 0 {
		c.tell(ctx, "Blocked: "+blocked[0].By)
	}
	again := min(closeAgain<<min(c.blocked, 10), closeAgainMost)
	c.blocked++
	c.stand(ctx, state, "something to change; else it looks again in "+again.String(), blocked)
	return c.wait(ctx, again, "look again")
}

// publish runs what follows the lock, until nothing of it is blocked.
func (c *periodClose) publish(ctx workflow.Context) (done bool, err error) {
	c.stand(ctx, "closed", "", nil)
	blocked, err := c.run(ctx, c.facts.After)
	if err != nil || blocked == nil {
		return blocked == nil, err
	}
	return false, c.waitBlocked(ctx, "closed", blocked)
}

// review waits for the approver, and reminds once a day.
func (c *periodClose) review(ctx workflow.Context) error {
	if c.pack != c.facts.PackHash {
		c.pack, c.waited = c.facts.PackHash, 0
	}
	c.stand(ctx, "in review", "an approver", nil)
	woken, err := c.waitFor(ctx, closeReminder, "a day of waiting for an approver")
	if err != nil || woken {
		return err
	}
	c.waited++
	var a *activities.Activities
	in := activities.RemindCloseInput{CloseRef: c.in.CloseRef, Day: c.waited}
	return workflow.ExecuteActivity(withActivity(ctx, "Remind of the approval"), a.RemindOfClose, in).Get(ctx, nil)
}

func (c *periodClose) lock(ctx workflow.Context) error {
	var a *activities.Activities
	var r activities.ClosedPeriod
	c.stand(ctx, "approved", "the lock", nil)
	if err := workflow.ExecuteActivity(withCloseActivity(ctx, "Lock the period and publish its close"), a.LockPeriod, c.in.CloseRef).Get(ctx, &r); err != nil {
		return err
	}
	if r.Status == "preparing" {
		c.tell(ctx, "The period had changed; the approval is void.")
	}
	return nil
}

func (c *periodClose) wait(ctx workflow.Context, d time.Duration, summary string) error {
	_, err := c.waitFor(ctx, d, summary)
	return err
}

// waitFor waits until somebody changes something, or for the time.
func (c *periodClose) waitFor(ctx workflow.Context, d time.Duration, summary string) (woken bool, err error) {
	return workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{Timeout: d, TimerOptions: workflow.TimerOptions{Summary: summary}},
		func() bool { return c.woken || c.changed.Len() > 0 })
}

// tell adds a line to the story.
func (c *periodClose) tell(ctx workflow.Context, text string) {
	c.in.Story.add(workflow.Now(ctx), text)
	c.show(ctx)
}

func (c *periodClose) stand(ctx workflow.Context, state, next string, blocked []CloseBlocked) {
	c.standing = CloseStanding{State: state, Next: next, Blocked: blocked}
	c.show(ctx)
}

func (c *periodClose) show(ctx workflow.Context) {
	details := "**" + c.standing.State + "**"
	if c.standing.Next != "" {
		details += ", waits for " + c.standing.Next
	}
	details += ".\n\n"
	for _, b := range c.standing.Blocked {
		details += "- **" + b.Step + "**: " + oneLine(b.By) + "\n"
	}
	if c.facts.PackHash != "" {
		details += "- pack `" + c.facts.PackHash + "`\n"
	}
	workflow.SetCurrentDetails(ctx, details+"\n"+c.in.Story.list())
}

// withCloseActivity is withActivity for what may take long and heartbeats.
func withCloseActivity(ctx workflow.Context, summary string) workflow.Context {
	o := workflow.GetActivityOptions(withActivity(ctx, summary))
	o.StartToCloseTimeout = 2 * time.Hour
	o.HeartbeatTimeout = 10 * time.Second
	return workflow.WithActivityOptions(ctx, o)
}

// CloseSummary is the one line that names a close's workflow in lists.
func CloseSummary(k activities.CloseRef) string {
	s := "Closes " + string(k.Period) + " of " + k.Entity
	if k.Version > 1 {
		s += fmt.Sprintf(", version %d", k.Version)
	}
	return s
}
