package db

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// EventRow is one thing that has happened. Seq counts the events of one customer, or of none, from 1 without gaps in the order of their commits.
type EventRow struct {
	ID            credit.EventID
	Customer      credit.CustomerID // zero: it is about none
	Seq           int64             // given when it is written
	Type, Subject string
	Data          []byte    // a JSON object
	At            time.Time // zero, when it is written: now
}

// EventFilter chooses events; what is zero lets everything through.
type EventFilter struct {
	Customer      credit.CustomerID
	Type, Subject string
	From, Until   time.Time // From inclusive, Until exclusive
}

// eventParams makes the arrays of [sqlc.AddEvents].
func eventParams(events []EventRow) sqlc.AddEventsParams {
	var p sqlc.AddEventsParams
	counts := make(map[credit.CustomerID]int64)
	for _, e := range events {
		counts[e.Customer]++
	}
	customers := make([]credit.CustomerID, 0, len(counts))
	for id := range counts {
		customers = append(customers, id)
	}
	slices.SortFunc(customers, func(a, b credit.CustomerID) int { return slices.Compare(a[:], b[:]) })
	for _, id := range customers {
		p.Customers, p.Counts = append(p.Customers, pgtype.UUID{Bytes: id, Valid: true}), append(p.Counts, counts[id])
	}
	for _, e := range events {
		counts[e.Customer]--
		p.Owners, p.Behinds = append(p.Owners, pgtype.UUID{Bytes: e.Customer, Valid: true}), append(p.Behinds, counts[e.Customer])
		p.Ids, p.Types, p.Subjects = append(p.Ids, uuidOf(e.ID)), append(p.Types, e.Type), append(p.Subjects, e.Subject)
		p.Datas, p.Ats = append(p.Datas, string(e.Data)), append(p.Ats, timeOf(e.At))
	}
	return p
}

// newEvent makes an event of a document; the data is an object with it under a name.
func newEvent(customer credit.CustomerID, kind, subject, name string, document any) (EventRow, error) {
	data, err := json.Marshal(map[string]any{name: document})
	if err != nil {
		return EventRow{}, fmt.Errorf("write event %s: %w", kind, err)
	}
	return EventRow{ID: credit.NewID[credit.EventID](), Customer: customer, Type: kind, Subject: subject, Data: data}, nil
}

// addEvent writes one event within a transaction, as its last statement but the commit: others wait for the customer's event head.
func addEvent(ctx context.Context, q *sqlc.Queries, customer credit.CustomerID, kind, subject, name string, document any) error {
	e, err := newEvent(customer, kind, subject, name, document)
	if err != nil {
		return err
	}
	return addEvents(ctx, q, e)
}

// addEvents writes events of a transaction that is no lane's. Lanes may wait for it from now on: it must not outlive a client that froze.
func addEvents(ctx context.Context, q *sqlc.Queries, events ...EventRow) error {
	err := q.BoundIdleness(ctx)
	if err == nil {
		err = q.AddEvents(ctx, eventParams(events))
	}
	return wrap(err, "add events")
}

// AddEvent records that something has happened: the data is an object with the document under a name. A zero customer is none.
func (c *Catalog) AddEvent(customer credit.CustomerID, kind, subject, name string, document any) error {
	e, err := newEvent(customer, kind, subject, name, document)
	c.events = append(c.events, e)
	return err
}

func (c *Catalog) writeEvents(ctx context.Context) error {
	if len(c.events) == 0 {
		return nil
	}
	return addEvents(ctx, c.q, c.events...)
}

// notificationEvent is the document of a notification as the API answers it; a test of the API holds the two against each other.
type notificationEvent struct {
	ID         string             `json:"id"`
	Type       string             `json:"type"`
	Subject    string             `json:"subject"`
	CustomerID *credit.CustomerID `json:"customer_id"`
	Data       json.RawMessage    `json:"data"`
	CreatedAt  string             `json:"created_at"`
}

const instantLayout = "2006-01-02T15:04:05.000000Z"

// addNotificationEvent writes the event notification.<type> of a notification that was recorded in the same transaction.
func addNotificationEvent(ctx context.Context, q *sqlc.Queries, n NotificationRow) error {
	d := notificationEvent{ID: strconv.FormatInt(n.ID, 10), Type: n.Type, Subject: n.Subject, Data: n.Data, CreatedAt: n.CreatedAt.UTC().Format(instantLayout)}
	if !n.Customer.IsZero() {
		d.CustomerID = &n.Customer
	}
	return addEvent(ctx, q, n.Customer, "notification."+n.Type, n.Subject, "notification", d)
}

// refundEvent is the document of a settled refund as the API answers it; a test of the API holds the two against each other.
type refundEvent struct {
	ID         credit.RefundID   `json:"id"`
	CustomerID credit.CustomerID `json:"customer_id"`
	GrantID    credit.GrantID    `json:"grant_id"`
	Units      string            `json:"units"`
	Refundable string            `json:"refundable"`
	Money      *moneyEvent       `json:"money"`
	Reason     string            `json:"reason,omitempty"`
	Status     string            `json:"status"`
	CreatedAt  string            `json:"created_at"`
	SettledAt  string            `json:"settled_at"`
	Settlement string            `json:"settlement_ref,omitempty"`
	Ver        int64             `json:"ver"`
}

type moneyEvent struct {
	Amount   string `json:"amount"`
	Tax      string `json:"tax"`
	Currency string `json:"currency"`
}

// addSettledEvent writes the event refund.settled.
func addSettledEvent(ctx context.Context, q *sqlc.Queries, refund credit.RefundID) error {
	row, err := q.FindRefund(ctx, uuidOf(refund))
	if err != nil {
		return fmt.Errorf("read settled refund: %w", err)
	}
	r := refundView(row)
	d := refundEvent{ID: r.ID, CustomerID: r.Customer, GrantID: r.Grant, Units: r.Units.Format(r.Scale), Refundable: r.Left.Format(r.Scale), Reason: r.Reason,
		Status: r.Status, CreatedAt: r.At.Format(instantLayout), SettledAt: r.SettledAt.Format(instantLayout), Settlement: r.SettlementRef, Ver: r.Ver}
	if r.Currency != "" {
		d.Money = &moneyEvent{Amount: credit.Money{Minor: r.Money, Currency: r.Currency}.String(),
			Tax: credit.Money{Minor: r.Tax, Currency: r.Currency}.String(), Currency: r.Currency}
	}
	return addEvent(ctx, q, r.Customer, "refund.settled", r.ID.String(), "refund", d)
}

func eventRow(e sqlc.Event) EventRow {
	return EventRow{ID: e.ID.Bytes, Customer: e.CustomerID.Bytes, Seq: e.Seq, Type: e.Type, Subject: e.Subject, Data: e.Data, At: fromTime(e.At)}
}

// Event returns an event, or an Error coded not_found.
func (s *Store) Event(ctx context.Context, id credit.EventID) (EventRow, error) {
	e, err := s.q.FindEvent(ctx, uuidOf(id))
	return eventRow(e), found(err, credit.Errorf(credit.NotFound, "There is no event %s.", id), "read event")
}

// EventPage returns up to n events below an id, newest first by the clocks of those who made them. It is for all customers: the filter's is
// not looked at.
func (s *Store) EventPage(ctx context.Context, f EventFilter, before credit.EventID, n int) ([]EventRow, error) {
	rows, err := s.q.PageEvents(ctx, sqlc.PageEventsParams{Type: textOf(f.Type), Subject: textOf(f.Subject), Since: timeOf(f.From), Until: timeOf(f.Until),
		Before: below(before), Least: madeAt(f.From.Add(-time.Minute)), PageSize: int32(n)})
	return page(rows, err, "read events", eventRow)
}

// madeAt is the least identifier that is made at an instant (UUID version 7 begins with its milliseconds). Who makes one may have a clock that
// differs from that of Postgres.
func madeAt(t time.Time) pgtype.UUID {
	id := pgtype.UUID{Valid: true}
	if ms := t.UnixMilli(); ms > 0 {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(ms)<<16)
		copy(id.Bytes[:], b[:6])
	}
	return id
}

// CustomerEventPage returns up to n events of the filter's customer below a number, newest first; 0 bounds nothing.
func (s *Store) CustomerEventPage(ctx context.Context, f EventFilter, before int64, n int) ([]EventRow, error) {
	rows, err := s.q.PageCustomerEvents(ctx, sqlc.PageCustomerEventsParams{CustomerID: pgtype.UUID{Bytes: f.Customer, Valid: true}, Type: textOf(f.Type),
		Subject: textOf(f.Subject), Since: timeOf(f.From), Until: timeOf(f.Until), Before: belowNumber(before), PageSize: int32(n)})
	return page(rows, err, "read events", eventRow)
}

// EventsAfter returns up to n events of a customer after a number, in order.
func (s *Store) EventsAfter(ctx context.Context, customer credit.CustomerID, after int64, n int) ([]EventRow, error) {
	rows, err := s.q.EventsAfter(ctx, pgtype.UUID{Bytes: customer, Valid: true}, after, int32(n))
	return page(rows, err, "read events", eventRow)
}

// Watched is where a customer's history stands.
type Watched struct {
	Ver int64 // of its balances
	Seq int64 // of its newest event; 0: there is none
}

// WatchHeads tells where customers' histories stand, by plain reads. Customers that do not exist are missing.
func (s *Store) WatchHeads(ctx context.Context, customers []credit.CustomerID) (map[credit.CustomerID]Watched, error) {
	rows, err := s.q.WatchHeads(ctx, uuids(customers))
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	out := make(map[credit.CustomerID]Watched, len(rows))
	for _, r := range rows {
		out[r.CustomerID.Bytes] = Watched{Ver: r.Ver, Seq: r.Seq}
	}
	return out, nil
}
