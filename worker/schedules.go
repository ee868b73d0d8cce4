package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/tallystick/tallystick/workflows"
)

// scheduleRecognition makes the schedule of recognition runs, or changes the one there is to this release's settings. What people have done
// to it stays: a pause and its note.
func (w *worker) scheduleRecognition(ctx context.Context) error {
	id := w.cfg.Prefix + workflows.RecognitionID
	spec := client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: w.cfg.RecogniseEvery}}}
	action := &client.ScheduleWorkflowAction{
		ID: id, Workflow: workflows.RecognitionRun, Args: []any{workflows.RecognitionInput{}}, TaskQueue: w.cfg.Prefix + workflows.FinanceQueue,
		StaticSummary: "Books what was used, expired and refunded since the last run",
	}
	// A run that lasts longer than the interval is followed by one more. Runs missed while Temporal was away are made up for by one.
	policy := client.SchedulePolicies{Overlap: enums.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE, CatchupWindow: 365 * 24 * time.Hour}
	_, err := w.client.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: id, Spec: spec, Action: action, Overlap: policy.Overlap, CatchupWindow: policy.CatchupWindow,
		Note: "Turns credits used, expired and refunded into journal entries. A run covers all that no run has covered, so a missed one is no loss; trigger one to book at once.",
	})
	if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		if err != nil {
			return fmt.Errorf("make schedule %s: %w", id, err)
		}
		return nil
	}
	err = w.client.ScheduleClient().GetHandle(ctx, id).Update(ctx, client.ScheduleUpdateOptions{
		DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			s := in.Description.Schedule
			s.Spec, s.Action, s.Policy = &spec, action, &policy
			return &client.ScheduleUpdate{Schedule: &s}, nil
		},
	})
	if err != nil {
		return fmt.Errorf("change schedule %s: %w", id, err)
	}
	return nil
}
