package api

import (
	"context"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/webhook"
)

// eventCursor reads a cursor of the list of events: a number in the list of one customer, an identifier in that of all.
type eventCursor struct {
	seq int64
	id  credit.EventID
}

func eventsCursor(q query) (p eventCursor, err error) {
	if q.text("customer") != "" {
		p.seq, err = q.numberCursor()
		return p, err
	}
	p.id, err = idCursor[credit.EventID](q)
	return p, err
}

// listEvents is GET /v1/events, newest first.
func (s *Server) listEvents(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, eventsCursor, "customer", "type", "subject", "from", "until")
	if err != nil {
		return err
	}
	f := db.EventFilter{Type: q.text("type"), Subject: q.text("subject")}
	if len(f.Subject) > 64 {
		return credit.Invalid("subject", "This is not an identifier.")
	}
	if _, err := q.oneOf("type", webhook.Types...); err != nil {
		return err
	}
	if f.From, err = q.instant("from"); err != nil {
		return err
	}
	if f.Until, err = q.instant("until"); err != nil {
		return err
	}
	if f.Customer, err = c.queryCustomer(ctx, q); err != nil {
		return err
	}
	if f.Customer.IsZero() {
		rows, err := s.store.EventPage(ctx, f, before.id, limit+1)
		if err != nil {
			return err
		}
		return answerPage(c, rows, limit, webhook.MessageOf, func(e db.EventRow) cursor { return afterID(e.ID) })
	}
	rows, err := s.store.CustomerEventPage(ctx, f, before.seq, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, webhook.MessageOf, func(e db.EventRow) cursor { return afterNumber(e.Seq) })
}

// getEvent is GET /v1/events/{event}.
func (s *Server) getEvent(ctx context.Context, c *call) error {
	id, err := pathID(c, "event", credit.ParseID[credit.EventID])
	if err != nil {
		return err
	}
	e, err := s.store.Event(ctx, id)
	if err != nil {
		return err
	}
	return c.document(webhook.MessageOf(e))
}
