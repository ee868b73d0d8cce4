package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/workflows"
)

func closeOf(item db.OutboxItem) (k activities.CloseRef, err error) {
	if err = json.Unmarshal(item.Payload, &k); err != nil {
		err = fmt.Errorf("read which close %s is about: %w", item.Subject, err)
	}
	return k, err
}

// startCloses starts the workflows of closes. One that has a workflow, running or ended, keeps that one.
func (w *worker) startCloses(context.Context, []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
	return func(ctx context.Context, item db.OutboxItem) error {
		k, err := closeOf(item)
		if err != nil {
			return err
		}
		return w.startClose(ctx, k, enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE)
	}, nil
}

func (w *worker) startClose(ctx context.Context, k activities.CloseRef, reuse enums.WorkflowIdReusePolicy) error {
	_, err := w.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: w.cfg.Prefix + workflows.CloseWorkflowID(k), TaskQueue: w.cfg.Prefix + workflows.FinanceQueue,
		WorkflowIDReusePolicy: reuse, WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		StaticSummary:                            workflows.CloseSummary(k),
	}, workflows.PeriodClose, workflows.CloseInput{CloseRef: k})
	return started(err)
}

// signalCloses tells closes' workflows that somebody decided something. One that has no running workflow needs not be told: one still to be
// started looks first.
func (w *worker) signalCloses(context.Context, []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
	return func(ctx context.Context, item db.OutboxItem) error {
		k, err := closeOf(item)
		if err != nil {
			return err
		}
		err = w.client.SignalWorkflow(ctx, w.cfg.Prefix+workflows.CloseWorkflowID(k), "", workflows.SignalChanged, nil)
		if gone := (*serviceerror.NotFound)(nil); errors.As(err, &gone) {
			return nil
		}
		return err
	}, nil
}

// restoreCloses starts the workflows of closes that have not ended; those that run stay as they are.
func (w *worker) restoreCloses(ctx context.Context) error {
	unfinished, err := w.store.UnfinishedCloses(ctx)
	if err != nil {
		return err
	}
	for _, k := range unfinished {
		if err := w.startClose(ctx, k, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE); err != nil {
			return fmt.Errorf("start the workflow of the close of %s: %w", k.Subject(), err)
		}
	}
	return nil
}
