// Package workflows is the platform's processes as Temporal runs and shows them: the life of a grant, a refund, a recognition run, a back-test, the close of a period, a
// backfill. See
// README.md.
package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Task queues.
const (
	GrantsQueue  = "grants"  // GrantLifecycle
	FinanceQueue = "finance" // Refund, RecognitionRun, Backtest, PeriodClose, Backfill, TopUp
)

// RegisterGrants registers the workflows of [GrantsQueue].
func RegisterGrants(r worker.WorkflowRegistry) {
	r.RegisterWorkflow(GrantLifecycle)
}

// RegisterFinance registers the workflows of [FinanceQueue].
func RegisterFinance(r worker.WorkflowRegistry) {
	r.RegisterWorkflow(Refund)
	r.RegisterWorkflow(RecognitionRun)
	r.RegisterWorkflow(Backtest)
	r.RegisterWorkflow(PeriodClose)
	r.RegisterWorkflow(Backfill)
	r.RegisterWorkflow(TopUp)
}

// SearchAttributes are what the namespace must know, by name with their type.
func SearchAttributes() map[string]string {
	return map[string]string{
		GrantCustomer.GetName(): "Keyword", GrantWallet.GetName(): "Keyword", GrantType.GetName(): "Keyword", GrantState.GetName(): "Keyword",
		GrantExpiresAt.GetName(): "Datetime",
	}
}

// withActivity sets how activities are run: an attempt is short, faults are retried for ever. summary is shown in the timeline.
func withActivity(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 15 * time.Second,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute},
		Summary:             summary,
	})
}

// withLocalActivity sets how activities are run within a workflow task: once, and quickly.
func withLocalActivity(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		StartToCloseTimeout: 3 * time.Second, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1}, Summary: summary,
	})
}

// handlersFinished waits until no update is under way: the end of a run would fail it.
func handlersFinished(ctx workflow.Context) error {
	return workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) })
}
