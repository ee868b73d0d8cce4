package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// How much a sweep takes at once.
const (
	expireBatch = 1000
	bookAtOnce  = 4
	forgetBatch = 5000
)

// expireGrants books what is left of every grant that is past its expiry: those that fall due together in batches, so that ten thousand
// in one minute are ordinary. It needs no Temporal; the grants' workflows hear of it through the outbox. Processes that sweep at the
// same time meet at the customers' locks, where the second finds the grant expired.
func (w *worker) expireGrants(ctx context.Context) (bool, error) {
	var after db.DueGrant
	for failed, first := 0, error(nil); ; {
		due, err := w.store.DueGrants(ctx, after, expireBatch)
		if err != nil {
			return false, err
		}
		ops := make([]balance.Operation, len(due))
		for i, d := range due {
			ops[i] = &balance.Expire{Header: balance.Header{Customer: d.Customer}, Grant: d.ID}
		}
		for i, r := range w.service.DoAll(ctx, ops) {
			switch credit.CodeOf(r.Err) {
			case "":
			case credit.GrantState, credit.GrantNotExpired, credit.CustomerFrozen:
				continue // somebody was faster
			}
			if r.Err != nil {
				if failed++; first == nil {
					first = fmt.Errorf("expire grant %s: %w", due[i].ID, r.Err)
				}
				continue
			}
			w.metrics.expired.Inc()
			w.metrics.expiryLag.Observe(time.Since(due[i].ExpiresAt).Seconds())
			w.expired.add(due[i].Customer)
		}
		if len(due) < expireBatch || ctx.Err() != nil {
			if failed > 0 {
				return false, fmt.Errorf("%d grants are left, the first: %w", failed, first)
			}
			return false, nil
		}
		after = due[len(due)-1]
	}
}

// bookExpiries posts the journal entries of the customers whose grants the sweep has expired. What it does not get to is posted by the next
// recognition run.
func (w *worker) bookExpiries(ctx context.Context) (bool, error) {
	var g errgroup.Group
	g.SetLimit(bookAtOnce)
	for _, c := range w.expired.take() {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			_, err := w.store.RecogniseCustomer(ctx, c)
			return err
		})
	}
	return false, g.Wait()
}

// forgetKeys deletes idempotency keys that are too old to be needed, a bounded number in each transaction.
func (w *worker) forgetKeys(ctx context.Context) (bool, error) {
	answers, denials, err := w.store.DeleteOldKeys(ctx, forgetBatch)
	w.metrics.forgotten.Add(float64(answers + denials))
	return answers == forgetBatch || denials == forgetBatch, err
}

// forgetWindows deletes windows of limits that cannot matter any more, a bounded number in each transaction.
func (w *worker) forgetWindows(ctx context.Context) (bool, error) {
	n, err := w.store.DeleteOldWindows(ctx, forgetBatch)
	return n == forgetBatch, err
}

// customers is a set that is filled by one goroutine and emptied by another.
type customers struct {
	mu  sync.Mutex
	set map[credit.CustomerID]struct{}
}

func (c *customers) add(id credit.CustomerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set == nil {
		c.set = make(map[credit.CustomerID]struct{})
	}
	c.set[id] = struct{}{}
}

func (c *customers) take() []credit.CustomerID {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]credit.CustomerID, 0, len(c.set))
	for id := range c.set {
		ids = append(ids, id)
	}
	c.set = nil
	return ids
}
