package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// What an endpoint is, and why it is disabled.
const (
	EndpointEnabled  = "enabled"
	EndpointDisabled = "disabled"
	endpointDeleted  = "deleted"

	DisabledAsked   = "asked"   // by an API call
	DisabledGone    = "gone"    // it answered 410
	DisabledFailing = "failing" // a delivery failed for days
)

type (
	// EndpointRow is where events are sent to.
	EndpointRow struct {
		ID               credit.EndpointID
		URL, Description string
		Types            []string          // empty: all
		Customer         credit.CustomerID // zero: all, and what is about none
		Status, Reason   string            // Reason: why it is disabled
		CreatedAt        time.Time
		DisabledAt       time.Time // zero: it is enabled
	}
	// EndpointChange is what is to become of an endpoint; nil leaves things as they are.
	EndpointChange struct {
		URL, Description *string
		Types            *[]string
		Enabled          *bool
	}
	// Queue names the deliveries of one customer's events to one endpoint, which follow one another.
	Queue struct {
		Endpoint credit.EndpointID
		Customer credit.CustomerID
	}
	// Pending is the delivery that is next in its queue.
	Pending struct {
		ID       int64
		URL      string
		Secrets  [][]byte  // to sign with, the newest first
		Attempts int       // failures so far
		FirstAt  time.Time // of the first attempt; zero: there was none
		Event    EventRow
	}
	// Attempt is one attempt of a delivery.
	Attempt struct {
		At        time.Time
		Took      time.Duration
		Code      int    // of the answer; 0: none came
		Error     string // empty: none
		Delivered bool
		RetryIn   time.Duration // when it was not
	}
	// DeliveryRow is an event for an endpoint.
	DeliveryRow struct {
		ID                  int64
		Customer            credit.CustomerID
		Seq                 int64
		Event               credit.EventID
		Type                string
		Replay              bool
		Attempts, Code      int
		Error               string
		Log                 []byte // JSON: the newest attempts
		CreatedAt, LastAt   time.Time
		NextAt, DeliveredAt time.Time // zero NextAt: it is being tried, waits behind another one, or for the endpoint to be enabled
	}
	// DeliveryFilter chooses deliveries; what is zero lets everything through.
	DeliveryFilter struct {
		Customer credit.CustomerID
		Event    credit.EventID
		Status   string // pending, failing (pending and tried), delivered
	}
	// ReplayRange chooses events to send once more: one, or those of an interval, From inclusive, Until exclusive.
	ReplayRange struct {
		Event       credit.EventID
		From, Until time.Time
		Customer    credit.CustomerID // zero: all
	}
)

func noEndpoint(id credit.EndpointID) *credit.Error {
	return credit.Errorf(credit.NotFound, "There is no webhook endpoint %s.", id)
}

func endpointRow(e sqlc.WebhookEndpoint) EndpointRow {
	return EndpointRow{ID: e.ID.Bytes, URL: e.Url, Description: e.Description, Types: e.Types, Customer: e.CustomerID.Bytes, Status: e.Status,
		Reason: e.Reason.String, CreatedAt: fromTime(e.CreatedAt), DisabledAt: fromTime(e.DisabledAt)}
}

// Endpoint returns an endpoint, or an Error coded not_found, as everything below does that is about one.
func (s *Store) Endpoint(ctx context.Context, id credit.EndpointID) (EndpointRow, error) {
	e, err := s.q.FindEndpoint(ctx, uuidOf(id))
	return endpointRow(e), found(err, noEndpoint(id), "read webhook endpoint")
}

// EndpointPage returns up to n endpoints below an id, newest first, of one customer or, when that is zero, all.
func (s *Store) EndpointPage(ctx context.Context, customer credit.CustomerID, before credit.EndpointID, n int) ([]EndpointRow, error) {
	rows, err := s.q.PageEndpoints(ctx, below(before), uuidOf(customer), int32(n))
	return page(rows, err, "read webhook endpoints", endpointRow)
}

// DeliveryPage returns up to n deliveries of an endpoint below a number, newest first.
func (s *Store) DeliveryPage(ctx context.Context, id credit.EndpointID, f DeliveryFilter, before int64, n int) ([]DeliveryRow, error) {
	rows, err := s.q.PageDeliveries(ctx, sqlc.PageDeliveriesParams{EndpointID: uuidOf(id), CustomerID: uuidOf(f.Customer), EventID: uuidOf(f.Event),
		Status: textOf(f.Status), Before: belowNumber(before), PageSize: int32(n)})
	return page(rows, err, "read webhook deliveries", func(d sqlc.PageDeliveriesRow) DeliveryRow {
		return DeliveryRow{ID: d.ID, Customer: d.CustomerID.Bytes, Seq: d.Seq, Event: d.EventID.Bytes, Type: d.Type, Replay: d.Replay,
			Attempts: int(d.Attempts), Code: int(d.Code.Int32), Error: d.Error.String, Log: d.Log, CreatedAt: fromTime(d.CreatedAt),
			LastAt: fromTime(d.LastAt), NextAt: fromTime(d.NextAt), DeliveredAt: fromTime(d.DeliveredAt)}
	})
}

// AddEndpoint makes an endpoint with its first secret. It gets what happens from now on.
func (c *Catalog) AddEndpoint(ctx context.Context, e EndpointRow, secret []byte) (EndpointRow, error) {
	if e.Types == nil {
		e.Types = []string{}
	}
	row, err := c.q.AddEndpoint(ctx, sqlc.AddEndpointParams{ID: uuidOf(e.ID), Url: e.URL, Types: e.Types, CustomerID: uuidOf(e.Customer), Description: e.Description})
	if err != nil {
		return e, wrap(err, "add webhook endpoint")
	}
	return endpointRow(row), wrap(c.q.AddSecret(ctx, uuidOf(e.ID), secret), "add webhook secret")
}

// ChangeEndpoint changes an endpoint. What waits for one that is enabled again, or that has another URL now, is tried at once. It tells
// whether this disabled the endpoint.
func (c *Catalog) ChangeEndpoint(ctx context.Context, id credit.EndpointID, change EndpointChange) (row EndpointRow, disabled bool, err error) {
	was, err := c.q.LockEndpoint(ctx, uuidOf(id))
	if err != nil {
		return row, false, found(err, noEndpoint(id), "lock webhook endpoint")
	}
	p := sqlc.ChangeEndpointParams{ID: was.ID, Url: was.Url, Types: was.Types, Description: was.Description, Status: was.Status, Reason: was.Reason}
	if change.URL != nil {
		p.Url = *change.URL
	}
	if change.Types != nil {
		p.Types = *change.Types
	}
	if change.Description != nil {
		p.Description = *change.Description
	}
	if change.Enabled != nil {
		switch {
		case *change.Enabled:
			p.Status, p.Reason = EndpointEnabled, pgtype.Text{}
		case was.Status == EndpointEnabled:
			p.Status, p.Reason, disabled = EndpointDisabled, textOf(DisabledAsked), true
		}
	}
	now, err := c.q.ChangeEndpoint(ctx, p)
	if err != nil {
		return row, false, wrap(err, "change webhook endpoint")
	}
	switch {
	case disabled:
		err = c.q.ParkQueues(ctx, was.ID)
	case p.Status == EndpointEnabled && (was.Status != EndpointEnabled || was.Url != p.Url):
		err = c.q.UnparkQueues(ctx, was.ID)
	}
	return endpointRow(now), disabled, wrap(err, "change what waits for webhook endpoint")
}

// DeleteEndpoint ends an endpoint. What waits for it is never delivered.
func (c *Catalog) DeleteEndpoint(ctx context.Context, id credit.EndpointID) (EndpointRow, error) {
	was, err := c.q.LockEndpoint(ctx, uuidOf(id))
	if err != nil {
		return EndpointRow{}, found(err, noEndpoint(id), "lock webhook endpoint")
	}
	if _, err := c.q.ChangeEndpoint(ctx, sqlc.ChangeEndpointParams{ID: was.ID, Url: was.Url, Types: was.Types, Description: was.Description, Status: endpointDeleted}); err != nil {
		return EndpointRow{}, wrap(err, "delete webhook endpoint")
	}
	return endpointRow(was), wrap(c.q.DropQueues(ctx, was.ID), "drop what waits for webhook endpoint")
}

// maxSecrets are in force for one endpoint at once.
const maxSecrets = 5

// RotateSecret gives an endpoint another secret. Messages are signed with the old one too until the overlap is over.
func (c *Catalog) RotateSecret(ctx context.Context, id credit.EndpointID, secret []byte, overlap time.Duration) (EndpointRow, error) {
	e, err := c.q.LockEndpoint(ctx, uuidOf(id))
	if err != nil {
		return EndpointRow{}, found(err, noEndpoint(id), "lock webhook endpoint")
	}
	if err := c.q.RetireSecret(ctx, overlap.Seconds(), e.ID); err != nil {
		return EndpointRow{}, wrap(err, "retire webhook secret")
	}
	n, err := c.q.CountSecrets(ctx, e.ID)
	if err != nil {
		return EndpointRow{}, wrap(err, "count webhook secrets")
	}
	if n >= maxSecrets {
		return EndpointRow{}, credit.Invalid("/overlap_seconds", "%d secrets of this endpoint are in force still; wait until one has expired.", n)
	}
	return endpointRow(e), wrap(c.q.AddSecret(ctx, e.ID, secret), "add webhook secret")
}

// TestEndpoint sends an endpoint an event of type webhook_endpoint.test that nobody else gets. It waits behind nobody's events.
func (c *Catalog) TestEndpoint(ctx context.Context, id credit.EndpointID, describe func(EndpointRow) any) (EventRow, error) {
	row, err := c.q.ShareEndpoint(ctx, uuidOf(id))
	if err != nil {
		return EventRow{}, found(err, noEndpoint(id), "read webhook endpoint")
	}
	e, err := newEvent(credit.CustomerID{}, "webhook_endpoint.test", id.String(), "webhook_endpoint", describe(endpointRow(row)))
	if err != nil {
		return e, err
	}
	if err := addEvents(ctx, c.q, e); err != nil { // its delivery refers to it
		return e, err
	}
	if _, err := c.deliver(ctx, row, []pgtype.UUID{uuidOf(e.ID)}, false); err != nil {
		return e, err
	}
	written, err := c.q.FindEvent(ctx, uuidOf(e.ID))
	return eventRow(written), wrap(err, "read event")
}

func (c *Catalog) deliver(ctx context.Context, e sqlc.WebhookEndpoint, events []pgtype.UUID, replay bool) (int64, error) {
	n, err := c.q.AddDeliveries(ctx, sqlc.AddDeliveriesParams{EndpointID: e.ID, Events: events, Replay: replay, Parked: e.Status != EndpointEnabled})
	return n, wrap(err, "add webhook deliveries")
}

// MaxReplay is how many events one call of Replay takes.
const MaxReplay = 10_000

// Replay sends events once more that an endpoint wants, behind what waits already. It returns how many; events that wait already
// are not counted. More than [MaxReplay] are refused.
func (c *Catalog) Replay(ctx context.Context, id credit.EndpointID, r ReplayRange) (EndpointRow, int, error) {
	row, err := c.q.ShareEndpoint(ctx, uuidOf(id))
	if err != nil {
		return EndpointRow{}, 0, found(err, noEndpoint(id), "read webhook endpoint")
	}
	e := endpointRow(row)
	events := []pgtype.UUID{uuidOf(r.Event)}
	if r.Event.IsZero() {
		customer := r.Customer
		if !e.Customer.IsZero() {
			customer = e.Customer
		}
		if events, err = c.q.EventsToReplay(ctx, sqlc.EventsToReplayParams{Since: timeOf(r.From), Until: timeOf(r.Until), Types: e.Types,
			CustomerID: uuidOf(customer), Least: madeAt(r.From.Add(-time.Minute)), Most: madeAt(r.Until.Add(time.Minute)), N: MaxReplay + 1}); err != nil {
			return e, 0, wrap(err, "look for events to replay")
		}
		if len(events) > MaxReplay {
			return e, 0, credit.Invalid("/until", "There are more than %d events in this interval; replay it in parts.", MaxReplay)
		}
	} else if err := c.wants(ctx, e, r.Event); err != nil {
		return e, 0, err
	}
	n, err := c.deliver(ctx, row, events, true)
	return e, int(n), err
}

// wants refuses an event that an endpoint does not get: of another customer, or made to test another endpoint.
func (c *Catalog) wants(ctx context.Context, e EndpointRow, id credit.EventID) error {
	v, err := c.q.FindEvent(ctx, uuidOf(id))
	if err != nil {
		return found(err, credit.Errorf(credit.NotFound, "There is no event %s.", id), "read event")
	}
	if !e.Customer.IsZero() && v.CustomerID.Bytes != e.Customer || v.Type == "webhook_endpoint.test" && v.Subject != e.ID.String() {
		return credit.Invalid("/event", "This event is not for this endpoint.")
	}
	return nil
}

// briefly runs do in a transaction that ends when this process falls silent in it.
func (s *Store) briefly(ctx context.Context, do func(*sqlc.Queries) error) error {
	return s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		if err := q.BoundIdleness(ctx); err != nil {
			return err
		}
		return do(q)
	})
}

// fanOutEach is how many events of one customer are taken at once: lanes that write further events of it wait meanwhile.
const fanOutEach = 20

// FanOutEvents makes the deliveries of new events of up to n customers. It tells whether there may be more to do.
func (s *Store) FanOutEvents(ctx context.Context, n int) (more bool, err error) {
	if some, err := s.q.HasUnfanned(ctx); err != nil || !some { // locks cost something even when there is nothing to do
		return false, wrap(err, "look for events to fan out")
	}
	err = s.briefly(ctx, func(q *sqlc.Queries) error {
		var p sqlc.FanOutParams
		var err error
		if p.Endpoints, err = q.LockEnabledEndpoints(ctx); err != nil {
			return err
		}
		heads, err := q.TakeUnfanned(ctx, fanOutEach, int32(n))
		if err != nil || len(heads) == 0 {
			return err
		}
		more = len(heads) == n
		for _, h := range heads {
			p.Customers, p.Afters, p.Uptos = append(p.Customers, h.CustomerID), append(p.Afters, h.Fanned), append(p.Uptos, h.Upto)
			more = more || h.Upto-h.Fanned == fanOutEach
		}
		if len(p.Endpoints) > 0 {
			if _, err := q.FanOut(ctx, p); err != nil {
				return err
			}
		}
		return q.AdvanceFanned(ctx, p.Customers, p.Uptos)
	})
	if err != nil {
		return false, fmt.Errorf("fan events out: %w", err)
	}
	return more, nil
}

// TakeQueues leases up to n queues whose next delivery is due; those of busy endpoints are passed over. When the time is over, somebody else
// may take them.
func (s *Store) TakeQueues(ctx context.Context, lease [16]byte, hold time.Duration, busy []credit.EndpointID, n int) ([]Queue, error) {
	rows, err := s.q.TakeQueues(ctx, sqlc.TakeQueuesParams{Lease: uuidOf(lease), LeaseSeconds: hold.Seconds(), Busy: uuids(busy), N: int32(n)})
	return page(rows, err, "take webhook queues", func(r sqlc.TakeQueuesRow) Queue { return Queue{r.EndpointID.Bytes, r.CustomerID.Bytes} })
}

func queueIDs(q Queue) (endpoint, customer pgtype.UUID) {
	return uuidOf(q.Endpoint), pgtype.UUID{Bytes: q.Customer, Valid: true} // the zero customer has a queue too
}

// FirstPending returns what is next in a leased queue; nil when nothing is, and then the queue is gone.
func (s *Store) FirstPending(ctx context.Context, queue Queue, lease [16]byte) (*Pending, error) {
	endpoint, customer := queueIDs(queue)
	r, err := s.q.FirstPending(ctx, endpoint, customer)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, s.briefly(ctx, func(q *sqlc.Queries) error {
			if _, err := q.LockQueue(ctx, endpoint, customer, uuidOf(lease)); err != nil {
				return lost(err)
			}
			_, err := dropEmpty(ctx, q, queue)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read webhook delivery: %w", err)
	}
	return &Pending{ID: r.ID, URL: r.Url, Secrets: r.Secrets, Attempts: int(r.Attempts), FirstAt: fromTime(r.FirstAt), Event: EventRow{ID: r.EventID.Bytes,
		Customer: r.CustomerID.Bytes, Seq: r.Seq, Type: r.Type, Subject: r.Subject, Data: r.Data, At: fromTime(r.At)}}, nil
}

// lost makes nothing of the error that a lease is over.
func lost(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

// dropEmpty deletes a locked queue in which nothing waits.
func dropEmpty(ctx context.Context, q *sqlc.Queries, queue Queue) (more bool, err error) {
	endpoint, customer := queueIDs(queue)
	if more, err = q.HasPending(ctx, endpoint, customer); err != nil || more {
		return more, err
	}
	return false, q.DropQueue(ctx, endpoint, customer)
}

// RecordAttempt books an attempt of a delivery. After a failure the queue waits and the lease is over; after a success more says
// that the lease goes on with another delivery. When the lease was lost meanwhile, only a success is booked.
func (s *Store) RecordAttempt(ctx context.Context, queue Queue, lease [16]byte, delivery int64, a Attempt) (more bool, err error) {
	line, err := json.Marshal(map[string]any{"at": a.At.UTC().Format(instantLayout), "took_ms": a.Took.Milliseconds(), "code": nullIfZero(a.Code), "error": nullIfZero(a.Error)})
	if err != nil {
		return false, fmt.Errorf("write webhook attempt: %w", err)
	}
	endpoint, customer := queueIDs(queue)
	err = s.briefly(ctx, func(q *sqlc.Queries) error {
		_, err := q.LockQueue(ctx, endpoint, customer, uuidOf(lease))
		held := err == nil
		if err = lost(err); err != nil || !held && !a.Delivered {
			return err
		}
		if err := q.RecordAttempt(ctx, sqlc.RecordAttemptParams{ID: delivery, At: timeOf(a.At), Code: pgtype.Int4{Int32: int32(a.Code), Valid: a.Code != 0},
			Error: textOf(a.Error), Delivered: a.Delivered, Line: line}); err != nil {
			return err
		}
		switch {
		case !held:
			return nil
		case a.Delivered:
			more, err = dropEmpty(ctx, q, queue)
			return err
		}
		return q.DelayQueue(ctx, a.RetryIn.Seconds(), endpoint, customer)
	})
	if err != nil {
		return false, fmt.Errorf("book webhook attempt: %w", err)
	}
	return more, nil
}

func nullIfZero[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// ReleaseQueue gives a leased queue back; its next delivery is due in a while.
func (s *Store) ReleaseQueue(ctx context.Context, queue Queue, lease [16]byte, in time.Duration) error {
	endpoint, customer := queueIDs(queue)
	err := s.briefly(ctx, func(q *sqlc.Queries) error {
		if _, err := q.LockQueue(ctx, endpoint, customer, uuidOf(lease)); err != nil {
			return lost(err)
		}
		return q.DelayQueue(ctx, in.Seconds(), endpoint, customer)
	})
	if err != nil {
		return fmt.Errorf("release webhook queue: %w", err)
	}
	return nil
}

// DisableEndpoint stops deliveries to an endpoint that does not take them, with an event and a notification of type
// webhook_endpoint.disabled. It tells whether the endpoint was enabled.
func (s *Store) DisableEndpoint(ctx context.Context, id credit.EndpointID, reason string, describe func(EndpointRow) any) (fresh bool, err error) {
	err = s.briefly(ctx, func(q *sqlc.Queries) error {
		e, err := q.LockEndpoint(ctx, uuidOf(id))
		if err != nil || e.Status != EndpointEnabled {
			return lost(err)
		}
		now, err := q.ChangeEndpoint(ctx, sqlc.ChangeEndpointParams{ID: e.ID, Url: e.Url, Types: e.Types, Description: e.Description,
			Status: EndpointDisabled, Reason: textOf(reason)})
		if err != nil {
			return err
		}
		if err := q.ParkQueues(ctx, e.ID); err != nil {
			return err
		}
		fresh = true
		row := endpointRow(now)
		if err := addEvent(ctx, q, row.Customer, "webhook_endpoint.disabled", id.String(), "webhook_endpoint", describe(row)); err != nil {
			return err
		}
		data, err := json.Marshal(map[string]string{"webhook_endpoint_id": id.String(), "url": row.URL, "reason": reason})
		if err != nil {
			return fmt.Errorf("write notification: %w", err)
		}
		return notify(ctx, q, sqlc.NotifyParams{Type: "webhook_endpoint.disabled", Cause: fmt.Sprintf("webhook_endpoint/%s/disabled/%d", id, row.DisabledAt.UnixMicro()),
			CustomerID: uuidOf(row.Customer), Subject: id.String(), Data: data})
	})
	if err != nil {
		return false, fmt.Errorf("disable webhook endpoint %s: %w", id, err)
	}
	return fresh, nil
}

// DeleteOldDeliveries forgets up to n deliveries that were made 30 days ago, up to n of deleted endpoints, and secrets that are over. It
// returns how many deliveries those were.
func (s *Store) DeleteOldDeliveries(ctx context.Context, n int) (delivered, orphaned int64, err error) {
	if delivered, err = s.q.DeleteDelivered(ctx, int32(n)); err != nil {
		return 0, 0, fmt.Errorf("delete old webhook deliveries: %w", err)
	}
	if orphaned, err = s.q.DeleteOrphaned(ctx, int32(n)); err != nil {
		return delivered, 0, fmt.Errorf("delete webhook deliveries of deleted endpoints: %w", err)
	}
	if err := s.q.DeleteSecrets(ctx); err != nil {
		return delivered, orphaned, fmt.Errorf("delete webhook secrets: %w", err)
	}
	return delivered, orphaned, nil
}

// WebhookBacklog is what waits to be delivered to enabled endpoints.
type WebhookBacklog struct {
	Waiting  int64         // deliveries
	Oldest   time.Duration // how long the oldest has waited; 0: none waits
	Unfanned int64         // events for which no deliveries were made yet
	Disabled int64         // endpoints disabled for their failures
}

// WebhookBacklog measures what waits.
func (s *Store) WebhookBacklog(ctx context.Context) (WebhookBacklog, error) {
	r, err := s.q.MeasureWebhooks(ctx)
	if err != nil {
		return WebhookBacklog{}, fmt.Errorf("measure webhooks: %w", err)
	}
	return WebhookBacklog{r.Waiting, time.Duration(r.OldestSeconds * float64(time.Second)), r.Unfanned, r.Disabled}, nil
}
