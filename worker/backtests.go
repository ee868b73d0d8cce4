package worker

import (
	"context"
	"errors"
	"fmt"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/workflows"
)

// startBacktests starts the workflows of back-tests. One that has a workflow, running or ended, keeps that one.
func (w *worker) startBacktests(context.Context, []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
	return func(ctx context.Context, item db.OutboxItem) error {
		id, err := credit.ParseID[credit.BacktestID](item.Subject)
		if err != nil {
			return err
		}
		return w.startBacktest(ctx, id, enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE)
	}, nil
}

func (w *worker) startBacktest(ctx context.Context, id credit.BacktestID, reuse enums.WorkflowIdReusePolicy) error {
	v, err := w.store.Backtest(ctx, id)
	if err != nil {
		return err
	}
	if v.Status != db.BacktestQueued && v.Status != db.BacktestRunning {
		return nil
	}
	f := activities.BacktestFactsOf(&v.BacktestRow)
	_, err = w.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.BacktestWorkflowID(id), TaskQueue: w.cfg.Prefix + workflows.FinanceQueue,
		WorkflowIDReusePolicy: reuse, WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true, StaticSummary: workflows.BacktestSummary(&f),
	}, workflows.Backtest, workflows.BacktestInput{BacktestRef: f.BacktestRef})
	return started(err)
}

// cancelBacktests ends the workflows of back-tests that were cancelled.
func (w *worker) cancelBacktests(context.Context, []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
	return func(ctx context.Context, item db.OutboxItem) error {
		id, err := credit.ParseID[credit.BacktestID](item.Subject)
		if err != nil {
			return err
		}
		err = w.client.CancelWorkflow(ctx, workflows.BacktestWorkflowID(id), "")
		if gone := (*serviceerror.NotFound)(nil); errors.As(err, &gone) {
			return nil
		}
		return err
	}, nil
}

// restoreBacktests goes on with back-tests from the start: what they have kept is not kept twice.
func (w *worker) restoreBacktests(ctx context.Context, lost []credit.BacktestID, restored func()) error {
	for _, id := range lost {
		if err := w.startBacktest(ctx, id, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE); err != nil {
			return fmt.Errorf("start the workflow of back-test %s: %w", id, err)
		}
		restored()
	}
	return nil
}

// removeBatch bounds how many back-tests one transaction deletes; each may have a result for every customer.
const removeBatch = 2

// removeBacktests deletes old back-tests with their results.
func (w *worker) removeBacktests(ctx context.Context) (bool, error) {
	n, err := w.store.RemoveBacktests(ctx, removeBatch)
	return n == removeBatch, err
}
