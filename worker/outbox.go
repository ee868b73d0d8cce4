package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/workflows"
)

// topic is one kind of outbox item and how it is performed. Each topic has a queue of its own: a hundred thousand grants waiting to be
// started do not hold up a refund.
type topic struct {
	w     *worker
	name  string
	batch int
	pace  *rate.Limiter // nil: as fast as Temporal takes them
	// begin prepares a batch, and returns what performs one item of it. An item whose effect is there already is done.
	begin func(context.Context, []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error)
}

const performAtOnce = 16

func (w *worker) topics() []*topic {
	return []*topic{
		{w: w, name: "grant.start", batch: max(16, w.cfg.StartsPerSecond), pace: w.starts, begin: w.startGrants},
		{w: w, name: "grant.signal", batch: 200, begin: w.signalGrants},
		{w: w, name: "refund.start", batch: 50, begin: w.startRefunds},
		{w: w, name: "backtest.start", batch: 10, begin: w.startBacktests},
		{w: w, name: "backtest.cancel", batch: 10, begin: w.cancelBacktests},
		{w: w, name: "backfill.start", batch: 10, begin: w.startBackfills},
		{w: w, name: "topup.start", batch: 50, begin: w.startTopUps},
		{w: w, name: "topup.signal", batch: 50, begin: w.signalTopUps},
		{w: w, name: "close.start", batch: 10, begin: w.startCloses},
		{w: w, name: "close.signal", batch: 50, begin: w.signalCloses},
	}
}

// dispatch performs one batch of the topic's items.
func (t *topic) dispatch(ctx context.Context) (more bool, err error) {
	var failed error
	n, err := t.w.store.PerformOutbox(ctx, t.name, t.batch, func(ctx context.Context, items []db.OutboxItem) (p db.Performed) {
		p, failed = t.perform(ctx, items)
		return p
	})
	return n == t.batch, errors.Join(failed, err)
}

func (t *topic) perform(ctx context.Context, items []db.OutboxItem) (p db.Performed, err error) {
	perform, err := t.begin(ctx, items)
	if err != nil {
		return p, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(performAtOnce)
	for _, item := range items {
		g.Go(func() error {
			if t.pace != nil && t.pace.Wait(ctx) != nil || ctx.Err() != nil {
				return nil // it stays as it is
			}
			callCtx, done := context.WithTimeout(ctx, 10*time.Second)
			defer done()
			err := perform(callCtx, item)
			switch {
			case err == nil:
				t.w.metrics.performed.WithLabelValues(t.name).Inc()
				mu.Lock()
				p.Done = append(p.Done, item.ID)
				mu.Unlock()
			case unreachable(err):
				cancel(fmt.Errorf("%w: %w", errUnreachable, err)) // the others need not find out one by one
			default:
				t.w.log.ErrorContext(ctx, "outbox item failed", "topic", t.name, "subject", item.Subject, "attempts", item.Attempts+1, "error", err)
				mu.Lock()
				p.Failed = append(p.Failed, item.ID)
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, errUnreachable) {
		err = cause
	}
	return p, err
}

// unreachable tells whether an error is about Temporal, not about what was asked of it.
func unreachable(err error) bool {
	var unavailable *serviceerror.Unavailable
	var late *serviceerror.DeadlineExceeded
	var canceled *serviceerror.Canceled
	var busy *serviceerror.ResourceExhausted
	var namespace *serviceerror.NamespaceNotFound
	return errors.As(err, &unavailable) || errors.As(err, &late) || errors.As(err, &canceled) || errors.As(err, &busy) ||
		errors.As(err, &namespace) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// startGrants starts the workflows of new grants. One that has a workflow, running or ended, keeps that one.
func (w *worker) startGrants(ctx context.Context, items []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
	ids := make([]credit.GrantID, 0, len(items))
	for _, item := range items {
		if id, err := credit.ParseID[credit.GrantID](item.Subject); err == nil {
			ids = append(ids, id)
		}
	}
	facts, err := w.grantFacts(ctx, ids)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, item db.OutboxItem) error {
		f := facts[item.Subject]
		if f == nil {
			return fmt.Errorf("there is no grant %s", item.Subject)
		}
		return w.startGrant(ctx, f, enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE)
	}, nil
}

func (w *worker) grantFacts(ctx context.Context, ids []credit.GrantID) (map[string]*activities.GrantFacts, error) {
	found, err := w.store.Lifecycles(ctx, ids...)
	if err != nil {
		return nil, err
	}
	facts := make(map[string]*activities.GrantFacts, len(found))
	for _, l := range found {
		f := activities.FactsOf(l)
		facts[l.Grant.ID.String()] = &f
	}
	return facts, nil
}

func (w *worker) startGrant(ctx context.Context, f *activities.GrantFacts, reuse enums.WorkflowIdReusePolicy) error {
	_, err := w.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.GrantWorkflowID(f.GrantID), TaskQueue: w.cfg.Prefix + workflows.GrantsQueue,
		WorkflowIDReusePolicy: reuse, WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		EnableEagerStart:                         true, // this process does the first task itself, which halves what a start costs Temporal
		TypedSearchAttributes:                    workflows.GrantAttributes(f),
		StaticSummary:                            workflows.GrantSummary(f), StaticDetails: workflows.GrantDetails(f),
	}, workflows.GrantLifecycle, workflows.GrantInput{GrantRef: f.GrantRef})
	return started(err)
}

// started makes nothing of the error that the workflow was started before.
func started(err error) error {
	if already := (*serviceerror.WorkflowExecutionAlreadyStarted)(nil); errors.As(err, &already) {
		return nil
	}
	return err
}

// signalGrants tells grants' workflows that somebody changed their grant. One that has no running workflow needs not be told: a workflow
// still to be started looks at the grant first, and one that has ended has nothing more to do.
func (w *worker) signalGrants(context.Context, []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
	return func(ctx context.Context, item db.OutboxItem) error {
		id, err := credit.ParseID[credit.GrantID](item.Subject)
		if err != nil {
			return err
		}
		var change workflows.Change
		if err := json.Unmarshal(item.Payload, &change); err != nil {
			return fmt.Errorf("read the change of grant %s: %w", id, err)
		}
		err = w.client.SignalWorkflow(ctx, workflows.GrantWorkflowID(id), "", workflows.SignalChanged, change)
		if gone := (*serviceerror.NotFound)(nil); errors.As(err, &gone) {
			return nil
		}
		return err
	}, nil
}

// startRefunds starts the workflows of new refunds. One that has a workflow, running or ended, keeps that one.
func (w *worker) startRefunds(context.Context, []db.OutboxItem) (func(context.Context, db.OutboxItem) error, error) {
	return func(ctx context.Context, item db.OutboxItem) error {
		id, err := credit.ParseID[credit.RefundID](item.Subject)
		if err != nil {
			return err
		}
		view, err := w.store.Refund(ctx, id)
		if err != nil {
			return err
		}
		f := activities.RefundFactsOf(view)
		return w.startRefund(ctx, &f, enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE)
	}, nil
}

func (w *worker) startRefund(ctx context.Context, f *activities.RefundFacts, reuse enums.WorkflowIdReusePolicy) error {
	_, err := w.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.RefundWorkflowID(f.RefundID), TaskQueue: w.cfg.Prefix + workflows.FinanceQueue,
		WorkflowIDReusePolicy: reuse, WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		TypedSearchAttributes:                    temporal.NewSearchAttributes(workflows.GrantCustomer.ValueSet(f.CustomerID.String())),
		StaticSummary:                            workflows.RefundSummary(f), StaticDetails: workflows.RefundDetails(f),
	}, workflows.Refund, f.RefundRef)
	return started(err)
}

// measureOutbox publishes how much waits.
func (w *worker) measureOutbox(ctx context.Context) (bool, error) {
	backlog, err := w.store.OutboxBacklog(ctx)
	if err != nil {
		return false, err
	}
	w.metrics.waiting.Reset()
	w.metrics.oldest.Reset()
	for _, b := range backlog {
		w.metrics.waiting.WithLabelValues(b.Topic).Set(float64(b.Waiting))
		w.metrics.oldest.WithLabelValues(b.Topic).Set(time.Since(b.Oldest).Seconds())
	}
	return false, nil
}

// measureQuarantine publishes how much usage waits until it can be priced, and for how long the oldest has.
func (w *worker) measureQuarantine(ctx context.Context) (bool, error) {
	waiting, oldest, err := w.store.CountQuarantined(ctx)
	if err != nil {
		return false, err
	}
	w.metrics.quarantined.Set(float64(waiting))
	w.metrics.quarantinedOldest.Set(0)
	if waiting > 0 {
		w.metrics.quarantinedOldest.Set(time.Since(oldest).Seconds())
	}
	return false, nil
}
