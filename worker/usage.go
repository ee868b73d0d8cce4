package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// How the usage pass finds its customers. Redis says within milliseconds who has changed, and may say nothing; Postgres knows: the operations of the
// last seconds are looked through often, all customers now and then.
const (
	countPause   = 200 * time.Millisecond
	countBatch   = 500
	countAtOnce  = 3 // in each of the three loops: a process has 16 connections
	recentPause  = 2 * time.Second
	countOverlap = 30 * time.Second // how far back the operations are looked through: no transaction lasts that long
	allPause     = 30 * time.Second
)

// usageSteps are run over every operation once, in order, in the transaction that counts it.
func (w *worker) usageSteps() []db.UsageStep { return []db.UsageStep{w.judgeTopUps, w.alerts.step} }

// countChanged counts the usage of customers that Redis says have changed.
func (w *worker) countChanged(ctx context.Context) (bool, error) {
	ids, err := w.service.TakeChanged(ctx, countBatch)
	if err != nil {
		return false, err
	}
	return len(ids) == countBatch, w.countUsage(ctx, ids)
}

// countRecent counts the usage of customers with operations of the last seconds that are not counted.
func (w *worker) countRecent(ctx context.Context) (bool, error) {
	ids, err := w.store.RecentToCount(ctx, time.Now().Add(-countOverlap), countBatch)
	if err != nil {
		return false, err
	}
	return len(ids) == countBatch, w.countUsage(ctx, ids)
}

// countAll counts the usage of every customer who has any that is not counted, and publishes how many there were.
func (w *worker) countAll(ctx context.Context) (bool, error) {
	var behind int
	var oldest time.Duration
	var first error
	for after := (credit.CustomerID{}); ctx.Err() == nil; {
		found, err := w.store.AllToCount(ctx, after, countBatch)
		if err != nil {
			return false, err
		}
		ids := make([]credit.CustomerID, len(found))
		for i, u := range found {
			ids[i], after = u.Customer, u.Customer
			oldest = max(oldest, time.Since(u.Since))
		}
		behind += len(found)
		if err := w.countUsage(ctx, ids); err != nil && first == nil {
			first = err
		}
		if len(found) < countBatch {
			break
		}
	}
	w.metrics.usageBehind.Set(float64(behind))
	w.metrics.usageOldest.Set(oldest.Seconds())
	return false, first
}

// countUsage counts the usage of customers. One that cannot be counted holds nobody else up.
func (w *worker) countUsage(ctx context.Context, ids []credit.CustomerID) error {
	var g errgroup.Group
	g.SetLimit(countAtOnce)
	var mu sync.Mutex
	var first error
	failed := 0
	steps := w.usageSteps()
	for _, id := range ids {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			n, err := w.store.CountUsage(ctx, id, steps...)
			w.metrics.usageOperations.Add(float64(n.Operations))
			if !n.Oldest.IsZero() {
				w.metrics.usageLag.Observe(time.Since(n.Oldest).Seconds())
			}
			if credit.CodeOf(err) == credit.CustomerNotFound {
				err = nil // Redis may have a name from somewhere else
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				if failed++; first == nil {
					first = err
				}
			}
			return nil
		})
	}
	_ = g.Wait()
	if failed > 0 {
		return fmt.Errorf("%d customers are left, the first: %w", failed, first)
	}
	return nil
}
