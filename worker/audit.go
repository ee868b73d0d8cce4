package worker

import (
	"context"
	"time"
)

// auditOverlap is how far an audit reaches back before the one before it, for operations that were being committed then.
const auditOverlap = 10 * time.Second

// audit holds the books of customers with recent operations against themselves. One that does not agree is frozen: that is a fault of
// this software or of somebody's hand in the database, and the wrong answer is to go on.
func (w *worker) audit(ctx context.Context) (bool, error) {
	began := time.Now()
	since := w.audited
	if since.IsZero() {
		since = began.Add(-10 * time.Minute)
	}
	broken, err := w.store.FindBroken(ctx, since.Add(-auditOverlap))
	if err != nil {
		return false, err
	}
	for _, b := range broken {
		fresh, err := w.store.Freeze(ctx, b)
		if err != nil {
			return false, err
		}
		if fresh {
			w.metrics.frozen.Inc()
			w.log.ErrorContext(ctx, "customer frozen: its books do not agree", "customer_id", b.Customer, "how", b.How)
		}
	}
	w.audited = began
	return false, nil
}

// Shares of the cached customers that are compared with Postgres, in percent: a few often, all now and then.
const (
	sweepSome = 1
	sweepAll  = 100
	sweepSlow = 10 * time.Minute
)

// sweepCache compares cached balances with Postgres and repairs what differs.
func (w *worker) sweepCache(ctx context.Context) (bool, error) {
	share := sweepSome
	if time.Since(w.swept) > sweepSlow {
		share, w.swept = sweepAll, time.Now()
	}
	d, err := w.service.SweepCache(ctx, share)
	if n := len(d.Differ) + len(d.Behind); n > 0 {
		w.log.WarnContext(ctx, "cached balances repaired", "compared", d.Checked, "differed", len(d.Differ), "behind", len(d.Behind))
	}
	return false, err
}
