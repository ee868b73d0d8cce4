package worker

import (
	"context"
	"fmt"
	"strings"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/workflows"
)

// reconcilePage is how many grants are looked up in Temporal at once.
const reconcilePage = 100

// reconcile starts the workflows that live grants have lost: Temporal's data is gone or was restored from an older copy, an operator ended
// one, or a correction gave credits back to a grant that was used up. Grants whose start still waits in the outbox have lost nothing yet.
// Temporal's list may lag behind; starting a workflow that runs after all changes nothing.
func (w *worker) reconcile(ctx context.Context) (bool, error) {
	madeBefore, err := w.store.OldestOutbox(ctx, "grant.start")
	if err != nil {
		return false, err
	}
	restored := 0
	defer func() {
		if restored > 0 {
			w.log.WarnContext(ctx, "grants had lost their workflows", "restored", restored)
		}
	}()
	var after credit.GrantID
	for {
		page, err := w.store.LiveGrants(ctx, madeBefore, after, reconcilePage)
		if err != nil || len(page) == 0 {
			return false, err
		}
		after = page[len(page)-1]
		lost, err := w.withoutWorkflow(ctx, page)
		if err != nil {
			return false, err
		}
		facts, err := w.grantFacts(ctx, lost)
		if err != nil {
			return false, err
		}
		for _, f := range facts {
			if f.Over() {
				continue
			}
			if err := w.starts.Wait(ctx); err != nil {
				return false, err
			}
			if err := w.startGrant(ctx, f, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE); err != nil {
				return false, fmt.Errorf("start the workflow of grant %s: %w", f.GrantID, err)
			}
			restored++
			w.metrics.restored.Inc()
		}
		if len(page) < reconcilePage {
			return false, nil
		}
	}
}

// withoutWorkflow returns the grants of which Temporal lists no running workflow.
func (w *worker) withoutWorkflow(ctx context.Context, grants []credit.GrantID) ([]credit.GrantID, error) {
	missing := make(map[string]credit.GrantID, len(grants))
	var q strings.Builder
	q.WriteString("WorkflowType = 'GrantLifecycle' AND ExecutionStatus = 'Running' AND WorkflowId IN (")
	for i, g := range grants {
		id := workflows.GrantWorkflowID(g)
		missing[id] = g
		if i > 0 {
			q.WriteByte(',')
		}
		q.WriteString("'" + id + "'")
	}
	q.WriteByte(')')
	r, err := w.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: reconcilePage, Query: q.String()})
	if err != nil {
		return nil, fmt.Errorf("list running workflows: %w", err)
	}
	for _, e := range r.GetExecutions() {
		delete(missing, e.GetExecution().GetWorkflowId())
	}
	lost := make([]credit.GrantID, 0, len(missing))
	for _, g := range missing {
		lost = append(lost, g)
	}
	return lost, nil
}
