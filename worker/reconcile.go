package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/workflows"
)

// reconcilePage is how many of a kind are looked up in Temporal at once.
const reconcilePage = 100

// reconcile starts the workflows that live grants, unsettled refunds, unfinished back-tests, top-ups, closes and backfills have lost: Temporal's data is
// gone or was restored from an older copy,
// an operator ended one, or a correction gave credits back to a grant that was used up. What still waits for its start in the outbox has
// lost nothing yet. Temporal's list may lag behind; starting a workflow that runs after all changes nothing.
func (w *worker) reconcile(ctx context.Context) (bool, error) {
	err := restore(ctx, w, &kind[credit.RefundID]{
		name: "Refund", topic: "refund.start", workflowID: workflows.RefundWorkflowID, page: w.store.RefundsToSettle, start: w.restoreRefunds,
	})
	if err != nil {
		return false, err
	}
	err = restore(ctx, w, &kind[credit.BacktestID]{
		name: "Backtest", topic: "backtest.start", workflowID: workflows.BacktestWorkflowID, page: w.store.BacktestsToEnd, start: w.restoreBacktests,
	})
	if err != nil {
		return false, err
	}
	err = restore(ctx, w, &kind[credit.TopUpID]{
		name: "TopUp", topic: "topup.start", workflowID: workflows.TopUpWorkflowID, page: w.store.TopUpsToEnd, start: w.restoreTopUps,
	})
	if err != nil {
		return false, err
	}
	if err := w.restoreCloses(ctx); err != nil {
		return false, err
	}
	if err := w.restoreBackfills(ctx); err != nil {
		return false, err
	}
	return false, restore(ctx, w, &kind[credit.GrantID]{
		name: "GrantLifecycle", topic: "grant.start", workflowID: workflows.GrantWorkflowID, page: w.store.LiveGrants, start: w.restoreGrants,
	})
}

// kind is one kind of things that should have a running workflow each.
type kind[I ~[16]byte] struct {
	name       string // of the workflow
	topic      string // of the outbox, in which its starts wait
	workflowID func(I) string
	page       func(ctx context.Context, madeBefore time.Time, after I, n int) ([]I, error) // those that should have one, in order
	// start starts the workflows of those that still should have one; each calls restored when it is done.
	start func(ctx context.Context, lost []I, restored func()) error
}

func restore[I ~[16]byte](ctx context.Context, w *worker, k *kind[I]) error {
	madeBefore, err := w.store.OldestOutbox(ctx, k.topic)
	if err != nil {
		return err
	}
	n := 0
	defer func() {
		if n > 0 {
			w.log.WarnContext(ctx, "workflows were lost", "workflow", k.name, "restored", n)
		}
	}()
	var after I
	for {
		page, err := k.page(ctx, madeBefore, after, reconcilePage)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1]
		lost, err := withoutWorkflow(ctx, w, k, page)
		if err != nil {
			return err
		}
		if err := k.start(ctx, lost, func() { n++; w.metrics.restored.Inc() }); err != nil {
			return err
		}
		if len(page) < reconcilePage {
			return nil
		}
	}
}

// withoutWorkflow returns those of which Temporal lists no running workflow.
func withoutWorkflow[I ~[16]byte](ctx context.Context, w *worker, k *kind[I], all []I) ([]I, error) {
	ids := make([]string, len(all))
	for i, id := range all {
		ids[i] = k.workflowID(id)
	}
	r, err := w.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: reconcilePage,
		Query:    "WorkflowType = '" + k.name + "' AND ExecutionStatus = 'Running' AND WorkflowId IN ('" + strings.Join(ids, "','") + "')",
	})
	if err != nil {
		return nil, fmt.Errorf("list running workflows: %w", err)
	}
	running := make(map[string]bool, len(all))
	for _, e := range r.GetExecutions() {
		running[e.GetExecution().GetWorkflowId()] = true
	}
	return slices.DeleteFunc(all, func(id I) bool { return running[k.workflowID(id)] }), nil
}

func (w *worker) restoreGrants(ctx context.Context, lost []credit.GrantID, restored func()) error {
	facts, err := w.grantFacts(ctx, lost)
	if err != nil {
		return err
	}
	for _, f := range facts {
		if f.Over() {
			continue
		}
		if err := w.starts.Wait(ctx); err != nil {
			return err
		}
		if err := w.startGrant(ctx, f, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE); err != nil {
			return fmt.Errorf("start the workflow of grant %s: %w", f.GrantID, err)
		}
		restored()
	}
	return nil
}

// restoreRefunds reads each refund again, after it was seen to have no running workflow: one that was settled by a workflow which ended in
// between is not paid twice.
func (w *worker) restoreRefunds(ctx context.Context, lost []credit.RefundID, restored func()) error {
	for _, id := range lost {
		view, err := w.store.Refund(ctx, id)
		if err != nil {
			return err
		}
		f := activities.RefundFactsOf(view)
		if f.Status != activities.AwaitingSettlement {
			continue
		}
		if err := w.starts.Wait(ctx); err != nil {
			return err
		}
		if err := w.startRefund(ctx, &f, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE); err != nil {
			return fmt.Errorf("start the workflow of refund %s: %w", id, err)
		}
		restored()
	}
	return nil
}
