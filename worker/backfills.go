package worker

import (
	"context"
	"fmt"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/workflows"
)

// startBackfills starts the workflows of what was asked for: a preview, an application, a withdrawal. One that has a workflow, running or ended, keeps that one.
func (w *worker) startBackfills(context.Context, []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
	return func(ctx context.Context, item db.OutboxItem) error {
		id, err := credit.ParseID[credit.BackfillID](item.Subject)
		if err != nil {
			return err
		}
		return w.startBackfill(ctx, id, enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE)
	}, nil
}

func (w *worker) startBackfill(ctx context.Context, id credit.BackfillID, reuse enums.WorkflowIdReusePolicy) error {
	b, err := w.store.Backfill(ctx, id)
	if err != nil {
		return err
	}
	in := workflows.BackfillInput{BackfillRef: activities.BackfillRef{BackfillID: id}}
	switch {
	case b.Status == db.BackfillPreviewing:
		in.Run = workflows.BackfillPreview
	case b.Status == db.BackfillApplying, b.Status == db.BackfillWithdrawing && b.Fault != "":
		in.Run, in.TakingBack = workflows.BackfillApply, b.Fault != ""
	case b.Status == db.BackfillWithdrawing:
		in.Run = workflows.BackfillWithdrawal
	default:
		return nil
	}
	_, err = w.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.BackfillWorkflowID(id, in.Run, b.Previews), TaskQueue: w.cfg.Prefix + workflows.FinanceQueue,
		WorkflowIDReusePolicy: reuse, WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true, StaticSummary: fmt.Sprintf("%s: %s, %d events", in.Run, b.Name, b.Events),
	}, workflows.Backfill, in)
	return started(err)
}

// restoreBackfills starts the workflows of backfills that wait for one; those that run stay as they are. What was done is not done twice.
func (w *worker) restoreBackfills(ctx context.Context) error {
	waiting, err := w.store.BackfillsToRun(ctx)
	if err != nil {
		return err
	}
	for _, id := range waiting {
		if err := w.startBackfill(ctx, id, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE); err != nil {
			return fmt.Errorf("start the workflow of backfill %s: %w", id, err)
		}
	}
	return nil
}
