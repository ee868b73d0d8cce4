package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/webhook"
)

// Bounds of deliveries in one process.
const (
	deliverAtOnce  = 64 // attempts under way
	endpointAtOnce = 16 // of them to one endpoint, or a few more: a slow one does not take all places
	takeAtOnce     = 8
	fanOutBatch    = 50
)

// deliveries sends events to webhook endpoints. Their state is in Postgres: a queue for each endpoint and customer, of which one worker at a time
// holds the lease, so that a customer's events arrive in order, and a failure holds up nobody else.
type deliveries struct {
	store   *db.Store
	client  *webhook.Client
	timing  webhook.Timing
	metrics *metrics
	failed  func(context.Context, string, ...any) // logs
	free    chan struct{}                         // one element for every place that is taken
	running sync.WaitGroup

	mu   sync.Mutex
	busy map[credit.EndpointID]int
}

// lease is how long a queue is taken for: two attempts at least fit in.
func (d *deliveries) lease() time.Duration { return 2*d.timing.Timeout + 15*time.Second }

// fanOut makes the deliveries of new events.
func (w *worker) fanOut(ctx context.Context) (bool, error) {
	return w.store.FanOutEvents(ctx, fanOutBatch)
}

// take begins with as many queues as there are places.
func (d *deliveries) take(ctx context.Context) (more bool, err error) {
	n := 0
	for n < takeAtOnce {
		if n == 0 { // wait for the first place, take what else is free
			select {
			case d.free <- struct{}{}:
				n++
			case <-ctx.Done():
				return false, nil
			}
			continue
		}
		select {
		case d.free <- struct{}{}:
			n++
			continue
		default:
		}
		break
	}
	lease, began := [16]byte(uuid.New()), time.Now()
	queues, err := d.store.TakeQueues(ctx, lease, d.lease(), d.crowded(), n)
	for range n - len(queues) {
		<-d.free
	}
	for _, q := range queues {
		d.count(q.Endpoint, 1)
		d.running.Go(func() {
			defer func() { d.count(q.Endpoint, -1); <-d.free }()
			if err := d.work(ctx, q, lease, began); err != nil {
				d.metrics.failures.WithLabelValues("deliver webhooks").Inc()
				d.failed(ctx, "webhook queue failed", "webhook_endpoint_id", q.Endpoint, "customer_id", q.Customer, "error", err)
			}
		})
	}
	return len(queues) == n, err
}

func (d *deliveries) crowded() (ids []credit.EndpointID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, n := range d.busy {
		if n >= endpointAtOnce {
			ids = append(ids, id)
		}
	}
	return ids
}

func (d *deliveries) count(id credit.EndpointID, by int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy[id] += by; d.busy[id] == 0 {
		delete(d.busy, id)
	}
}

// work delivers what waits in a leased queue, one after another, until it is empty, one fails, or there is no time for another attempt within
// the lease. The end of ctx lets the attempt under way go on.
func (d *deliveries) work(ctx context.Context, q db.Queue, lease [16]byte, began time.Time) error {
	staying := context.WithoutCancel(ctx)
	for {
		if ctx.Err() != nil || time.Since(began) > d.lease()-d.timing.Timeout-10*time.Second {
			return d.store.ReleaseQueue(staying, q, lease, 0)
		}
		p, err := d.store.FirstPending(staying, q, lease)
		if err != nil || p == nil {
			return err
		}
		a := d.client.Attempt(staying, p)
		a.RetryIn = d.timing.Delay(p.Attempts + 1)
		more, err := d.store.RecordAttempt(staying, q, lease, p.ID, a)
		d.metrics.attempts.WithLabelValues(outcome(a)).Inc()
		if err != nil {
			return err
		}
		if !a.Delivered {
			return d.disable(staying, q.Endpoint, p, a)
		}
		d.metrics.deliveryLag.Observe(time.Since(p.Event.At).Seconds())
		if !more {
			return nil
		}
	}
}

func outcome(a db.Attempt) string {
	switch {
	case a.Delivered:
		return "delivered"
	case a.Code == 0:
		return "no answer"
	}
	return fmt.Sprintf("%dxx", a.Code/100)
}

// disable gives an endpoint up that says so, or that has not taken a delivery for days.
func (d *deliveries) disable(ctx context.Context, id credit.EndpointID, p *db.Pending, a db.Attempt) error {
	reason := ""
	switch {
	case a.Code == webhook.Gone:
		reason = db.DisabledGone
	case !p.FirstAt.IsZero() && a.At.Sub(p.FirstAt) >= d.timing.GiveUp:
		reason = db.DisabledFailing
	default:
		return nil
	}
	fresh, err := d.store.DisableEndpoint(ctx, id, reason, func(e db.EndpointRow) any { return webhook.Describe(e) })
	if fresh {
		d.failed(ctx, "webhook endpoint disabled", "webhook_endpoint_id", id, "reason", reason)
	}
	return err
}

// forgetDeliveries deletes deliveries that are not kept any longer, a bounded number in each transaction.
func (w *worker) forgetDeliveries(ctx context.Context) (bool, error) {
	delivered, orphaned, err := w.store.DeleteOldDeliveries(ctx, forgetBatch)
	w.metrics.deliveriesForgotten.Add(float64(delivered + orphaned))
	return delivered == forgetBatch || orphaned == forgetBatch, err
}

// measureWebhooks publishes how much waits.
func (w *worker) measureWebhooks(ctx context.Context) (bool, error) {
	b, err := w.store.WebhookBacklog(ctx)
	if err != nil {
		return false, err
	}
	w.metrics.webhooksWaiting.Set(float64(b.Waiting))
	w.metrics.webhooksOldest.Set(b.Oldest.Seconds())
	w.metrics.eventsWaiting.Set(float64(b.Unfanned))
	w.metrics.endpointsDisabled.Set(float64(b.Disabled))
	return false, nil
}
