package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db"
)

// CloseRef names the close of one version of an entity's period.
type CloseRef = db.CloseKey

// CloseFacts is what a close's workflow needs to know.
type CloseFacts struct {
	CloseRef
	Status    string        `json:"status"`
	InReview  bool          `json:"in_review"` // the period: nothing is booked in it
	LateFor   time.Duration `json:"late_for"`  // until the end of the late window; 0 or less: it is over
	LateUntil time.Time     `json:"late_until"`
	PackHash  string        `json:"pack_hash,omitempty"`
	Note      string        `json:"note,omitempty"`
	Steps     []CloseStep   `json:"steps"`           // to run before the review, in order
	After     []CloseStep   `json:"after,omitempty"` // to run after the lock, in order: those that are not done
}

// CloseStep names a step of a close.
type CloseStep struct {
	Name  string `json:"name"`
	Title string `json:"title"`
}

// closeStep is a step: its name, what the timeline calls it, and what it does. Its result is kept under the close's key and its name, so that a
// second run takes the place of the first.
type closeStep struct {
	CloseStep
	run func(*Activities, context.Context, CloseRef) (db.StepResult, error)
}

// closeSteps are the steps of every close, in order. A step that is added here is run, shown and put into the pack from the next pass on.
var closeSteps = []closeStep{
	{CloseStep{db.StepCutOff, "Is everything of the period booked?"}, (*Activities).cutOff},
	{CloseStep{db.StepExpiries, "Has everything expired that has ended?"}, of((*db.Store).Expiries)},
	{CloseStep{db.StepOverage, "What was accrued?"}, of((*db.Store).Overage)},
	{CloseStep{db.StepCostAccrual, "What did the usage cost to serve?"}, (*Activities).accrueCost},
	{CloseStep{db.StepBreakage, "Adjust breakage"}, of((*db.Store).Breakage)},
	{CloseStep{db.StepManualJournals, "Are all manual journals decided?"}, of((*db.Store).ManualJournals)},
	{CloseStep{db.StepReconciliations, "Reconcile"}, (*Activities).reconcile},
	{CloseStep{db.StepReports, "Trial balance, roll-forward, flux"}, of((*db.Store).Reports)},
}

// of makes a step of what the store can tell by itself.
func of(read func(*db.Store, context.Context, db.CloseKey) (db.StepResult, error)) func(*Activities, context.Context, CloseRef) (db.StepResult, error) {
	return func(a *Activities, ctx context.Context, in CloseRef) (db.StepResult, error) {
		return read(a.Store, ctx, in)
	}
}

// ReadClose reads how a close stands.
func (a *Activities) ReadClose(ctx context.Context, in CloseRef) (CloseFacts, error) {
	c, err := a.Store.PeriodClose(ctx, in)
	if err != nil {
		return CloseFacts{}, refusal(err)
	}
	f := CloseFacts{CloseRef: c.CloseKey, Status: c.Status, InReview: c.PeriodStatus == recognition.InReview, LateFor: c.LateUntil.Sub(c.ReadAt),
		LateUntil: c.LateUntil, PackHash: c.PackHash, Note: c.Note}
	for _, s := range closeSteps {
		f.Steps = append(f.Steps, s.CloseStep)
	}
	if c.Status != db.CloseClosed {
		return f, nil
	}
	found, err := a.Store.Steps(ctx, c.CloseKey)
	for _, s := range closedSteps {
		if !slices.ContainsFunc(found, func(r db.StepRow) bool { return r.Step == s.Name && r.BlockedBy == "" }) {
			f.After = append(f.After, s.CloseStep)
		}
	}
	return f, refusal(err)
}

// CloseStepInput names a step of a close.
type CloseStepInput struct {
	CloseRef
	Step string `json:"step"`
}

// CloseStepResult tells whether a close can go on after a step.
type CloseStepResult struct {
	SHA256    string `json:"sha256"`               // of the figures
	BlockedBy string `json:"blocked_by,omitempty"` // "": by nothing
}

// RunCloseStep runs a step of a close and keeps what it finds.
func (a *Activities) RunCloseStep(ctx context.Context, in CloseStepInput) (CloseStepResult, error) {
	defer alive(ctx)()
	for _, s := range slices.Concat(closeSteps, closedSteps) {
		if s.Name != in.Step {
			continue
		}
		c, err := a.Store.PeriodClose(ctx, in.CloseRef)
		if err != nil {
			return CloseStepResult{}, refusal(err)
		}
		found, err := s.run(a, ctx, in.CloseRef)
		if err != nil {
			return CloseStepResult{}, refusal(err)
		}
		row, err := a.Store.SaveStep(ctx, in.CloseRef, in.Step, c.ReadAt, found)
		return CloseStepResult{row.SHA256, row.BlockedBy}, refusal(err)
	}
	return CloseStepResult{}, fmt.Errorf("the step %q of a close is not known to this release", in.Step)
}

// cutOff books what is left of the period, and tells whether that was all. A customer whose entries cannot be posted blocks the close.
func (a *Activities) cutOff(ctx context.Context, in CloseRef) (db.StepResult, error) {
	var after credit.CustomerID
	for {
		customers, err := a.Store.CustomersToCutOff(ctx, in, after, recogniseChunk)
		if err != nil {
			return db.StepResult{}, err
		}
		for _, c := range customers {
			if _, err := a.Store.RecogniseCustomer(ctx, c); err != nil {
				if db.IsDown(err) || ctx.Err() != nil {
					return db.StepResult{}, err
				}
				activity.GetLogger(ctx).Error("recognition failed", "customer_id", c, "error", err)
			}
			after = c
		}
		if len(customers) < recogniseChunk {
			return a.Store.CutOff(ctx, in)
		}
	}
}

// accrueCost books what the usage of the period cost to serve.
func (a *Activities) accrueCost(ctx context.Context, in CloseRef) (db.StepResult, error) {
	return a.Store.CostAccrual(ctx, in, a.Service.FXPolicy())
}

// alive heartbeats until it is stopped: what is one statement of the database may take long, and a worker that has died is to be noticed soon.
func alive(ctx context.Context) (stop func()) {
	ctx, stop = context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				activity.RecordHeartbeat(ctx)
			}
		}
	}()
	return stop
}

// reconcile compares the cached balances, which repairs what differs, and then the books.
func (a *Activities) reconcile(ctx context.Context, in CloseRef) (db.StepResult, error) {
	cached, err := a.Service.SweepCache(ctx, 100)
	if err != nil {
		return db.StepResult{}, fmt.Errorf("compare cached balances: %w", err)
	}
	return a.Store.Reconcile(ctx, in, len(cached.Differ))
}

// ReviewClose stops that anything is booked in the period.
func (a *Activities) ReviewClose(ctx context.Context, in CloseRef) error {
	defer alive(ctx)()
	return refusal(a.Store.ReviewClose(ctx, in))
}

// PrepareCloseInput says why a close goes back to be prepared again.
type PrepareCloseInput struct {
	CloseRef
	Note string `json:"note"`
}

// PrepareCloseAgain lets late usage and manual journals into the period again.
func (a *Activities) PrepareCloseAgain(ctx context.Context, in PrepareCloseInput) error {
	return refusal(a.Store.PrepareAgain(ctx, in.CloseRef, in.Note))
}

// ClosePack is the hash of a close pack; "": the steps are to be run again first.
type ClosePack struct {
	Hash string `json:"hash"`
}

// MakeClosePack puts the pack together from what the steps have found.
func (a *Activities) MakeClosePack(ctx context.Context, in CloseRef) (ClosePack, error) {
	defer alive(ctx)()
	var names []string
	for _, s := range closeSteps {
		names = append(names, s.Name)
	}
	hash, err := a.Store.MakePack(ctx, in, names)
	return ClosePack{hash}, refusal(err)
}

// RemindCloseInput says for how many days a close has waited.
type RemindCloseInput struct {
	CloseRef
	Day int `json:"day"`
}

// RemindOfClose notes that a close waits for its approver.
func (a *Activities) RemindOfClose(ctx context.Context, in RemindCloseInput) error {
	return refusal(a.Store.RemindOfClose(ctx, in.CloseRef, in.Day))
}

// ClosedPeriod is how a close stands after an attempt to lock its period.
type ClosedPeriod struct {
	Status string `json:"status"`
}

// LockPeriod closes the period, and publishes that, if its pack is approved and about all that is booked in it.
func (a *Activities) LockPeriod(ctx context.Context, in CloseRef) (ClosedPeriod, error) {
	defer alive(ctx)()
	status, err := a.Store.LockPeriodClosed(ctx, in)
	return ClosedPeriod{status}, refusal(err)
}
