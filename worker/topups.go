package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/workflows"
)

// judgeTopUps judges the customer's top-up rules when operations have changed its credits: see [db.UsageStep].
func (w *worker) judgeTopUps(ctx context.Context, tx pgx.Tx, customer credit.CustomerID, _ []db.CountedOperation) error {
	return w.store.JudgeTopUps(ctx, tx, customer, time.Time{})
}

const lookAtTopUpsPage = 100

// lookAtTopUps judges the rules that time has something to say about: new ones, and those whose cooldown, back-off or month is over. One that cannot
// be judged holds nobody else up.
func (w *worker) lookAtTopUps(ctx context.Context) (more bool, err error) {
	var first error
	for after := (credit.CustomerID{}); ; {
		customers, err := w.store.TopUpCustomersToLookAt(ctx, after, lookAtTopUpsPage)
		if err != nil {
			return false, err
		}
		for _, c := range customers {
			if err := w.store.LookAtTopUps(ctx, c); err != nil && first == nil {
				first = fmt.Errorf("customer %s: %w", c, err)
			}
			after = c
		}
		if len(customers) < lookAtTopUpsPage || ctx.Err() != nil {
			return false, first
		}
	}
}

// startTopUps starts the workflows of new top-ups. One that has a workflow, running or ended, keeps that one.
func (w *worker) startTopUps(context.Context, []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
	return func(ctx context.Context, item db.OutboxItem) error {
		id, err := credit.ParseID[credit.TopUpID](item.Subject)
		if err != nil {
			return err
		}
		t, err := w.store.TopUp(ctx, id)
		if err != nil {
			return err
		}
		return w.startTopUp(ctx, t, enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE)
	}, nil
}

func (w *worker) startTopUp(ctx context.Context, t db.TopUpRow, reuse enums.WorkflowIdReusePolicy) error {
	f := activities.TopUpFactsOf(t)
	_, err := w.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.TopUpWorkflowID(t.ID), TaskQueue: w.cfg.Prefix + workflows.FinanceQueue,
		WorkflowIDReusePolicy: reuse, WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		TypedSearchAttributes:                    temporal.NewSearchAttributes(workflows.GrantCustomer.ValueSet(t.Customer.String())),
		StaticSummary:                            workflows.TopUpSummary(&f), StaticDetails: workflows.TopUpDetails(&f),
	}, workflows.TopUp, f.TopUpRef)
	return started(err)
}

// signalTopUps tells top-ups' workflows that the outcome of the payment is known. One that has no running workflow needs not be told: one still to be
// started looks before it waits.
func (w *worker) signalTopUps(context.Context, []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
	return func(ctx context.Context, item db.OutboxItem) error {
		id, err := credit.ParseID[credit.TopUpID](item.Subject)
		if err != nil {
			return err
		}
		err = w.client.SignalWorkflow(ctx, workflows.TopUpWorkflowID(id), "", workflows.SignalChanged, nil)
		if gone := (*serviceerror.NotFound)(nil); errors.As(err, &gone) {
			return nil
		}
		return err
	}, nil
}

// restoreTopUps reads each top-up again, after it was seen to have no running workflow: one that has ended in between is left alone.
func (w *worker) restoreTopUps(ctx context.Context, lost []credit.TopUpID, restored func()) error {
	for _, id := range lost {
		t, err := w.store.TopUp(ctx, id)
		if err != nil {
			return err
		}
		if !t.EndedAt.IsZero() {
			continue
		}
		if err := w.starts.Wait(ctx); err != nil {
			return err
		}
		if err := w.startTopUp(ctx, t, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE); err != nil {
			return fmt.Errorf("start the workflow of top-up %s: %w", id, err)
		}
		restored()
	}
	return nil
}
