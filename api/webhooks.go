package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/webhook"
)

// endpointURL reads where events are to be sent to.
func (s *Server) endpointURL(into *string) func(*reader) error {
	return func(r *reader) (err error) {
		if *into, err = r.text(); err != nil {
			return err
		}
		return r.at(webhook.CheckURL(*into, s.webhooks))
	}
}

// eventTypes reads which events are wanted; none is all of them.
func eventTypes(into *[]string) func(*reader) error {
	return func(r *reader) error {
		*into = []string{}
		return r.array(func(int) error {
			t, err := r.text()
			switch {
			case err != nil:
				return err
			case !slices.Contains(webhook.Types, t):
				return r.refuse("%.60q is no type of events.", t)
			case slices.Contains(*into, t):
				return r.refuse("%q comes more than once.", t)
			}
			*into = append(*into, t)
			return nil
		})
	}
}

// note reads printable text of up to 200 characters, or none.
func note(into *string) func(*reader) error {
	return func(r *reader) (err error) {
		if *into, err = r.text(); err == nil && (utf8.RuneCountInString(*into) > 200 || !printable(*into)) {
			return r.refuse("This must be up to 200 printable characters.")
		}
		return err
	}
}

// createEndpoint is POST /v1/webhook_endpoints. The secret is in the first answer and nowhere else: a repetition is answered without it.
func (s *Server) createEndpoint(ctx context.Context, c *call) error {
	row := db.EndpointRow{ID: credit.NewID[credit.EndpointID]()}
	var customer string
	if err := c.input(
		required("url", s.endpointURL(&row.URL)),
		optional("types", eventTypes(&row.Types)),
		optional("customer", text(&customer, 255)),
		optional("description", note(&row.Description)),
	); err != nil {
		return err
	}
	if customer != "" {
		var err error
		if row.Customer, err = s.customerID(ctx, customer); err != nil {
			return in("/customer", err)
		}
		if _, err = s.store.Customer(ctx, row.Customer); err != nil {
			return err
		}
	}
	secret := webhook.NewSecret()
	return c.change(ctx, "create_webhook_endpoint", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddEndpoint(ctx, row, secret)
		if err != nil {
			return db.Outcome{}, err
		}
		return shownOnce(http.StatusCreated, row, secret)
	})
}

// shownOnce answers with an endpoint and a new secret of it; a repetition is answered without the secret.
func shownOnce(status int, row db.EndpointRow, secret []byte) (o db.Outcome, err error) {
	doc := webhook.Describe(row)
	o = db.Outcome{Status: status, Subject: row.ID.String(), Detail: map[string]any{"url": row.URL, "types": row.Types}}
	if o.Kept, err = json.Marshal(doc); err != nil {
		return o, fmt.Errorf("write document: %w", err)
	}
	if !webhook.IsMail(row.URL) { // nothing is signed for those
		doc.Secret = webhook.FormatSecret(secret)
	}
	if o.Answer, err = json.Marshal(doc); err != nil {
		return o, fmt.Errorf("write document: %w", err)
	}
	return o, nil
}

// listEndpoints is GET /v1/webhook_endpoints.
func (s *Server) listEndpoints(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.EndpointID], "customer")
	if err != nil {
		return err
	}
	customer, err := c.queryCustomer(ctx, q)
	if err != nil {
		return err
	}
	rows, err := s.store.EndpointPage(ctx, customer, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, webhook.Describe, func(e db.EndpointRow) cursor { return afterID(e.ID) })
}

func pathEndpoint(c *call) (credit.EndpointID, error) {
	return pathID(c, "webhook_endpoint", credit.ParseID[credit.EndpointID])
}

// getEndpoint is GET /v1/webhook_endpoints/{webhook_endpoint}.
func (s *Server) getEndpoint(ctx context.Context, c *call) error {
	id, err := pathEndpoint(c)
	if err != nil {
		return err
	}
	row, err := s.store.Endpoint(ctx, id)
	if err != nil {
		return err
	}
	return c.document(webhook.Describe(row))
}

// updateEndpoint is PATCH /v1/webhook_endpoints/{webhook_endpoint}.
func (s *Server) updateEndpoint(ctx context.Context, c *call) error {
	var change db.EndpointChange
	if err := c.input(
		optional("url", func(r *reader) error { change.URL = new(string); return s.endpointURL(change.URL)(r) }),
		optional("types", func(r *reader) error { change.Types = new([]string); return eventTypes(change.Types)(r) }),
		optional("description", func(r *reader) error { change.Description = new(string); return note(change.Description)(r) }),
		optional("enabled", func(r *reader) error { change.Enabled = new(bool); return boolean(change.Enabled)(r) }),
	); err != nil {
		return err
	}
	if change == (db.EndpointChange{}) {
		return credit.Invalid("", "Give something to change.")
	}
	id, err := pathEndpoint(c)
	if err != nil {
		return err
	}
	return c.change(ctx, "update_webhook_endpoint", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, disabled, err := cat.ChangeEndpoint(ctx, id, change)
		if err != nil {
			return db.Outcome{}, err
		}
		doc := webhook.Describe(row)
		if disabled {
			if err := cat.AddEvent(row.Customer, "webhook_endpoint.disabled", id.String(), "webhook_endpoint", doc); err != nil {
				return db.Outcome{}, err
			}
		}
		return changed(id.String(), doc, map[string]any{"url": row.URL, "types": row.Types, "status": row.Status})
	})
}

// deleteEndpoint is DELETE /v1/webhook_endpoints/{webhook_endpoint}.
func (s *Server) deleteEndpoint(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	id, err := pathEndpoint(c)
	if err != nil {
		return err
	}
	return c.change(ctx, "delete_webhook_endpoint", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.DeleteEndpoint(ctx, id)
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(id.String(), map[string]any{"id": id, "deleted": true}, map[string]any{"url": row.URL})
	})
}

// Bounds of the time in which a secret that was replaced still signs.
const (
	defaultOverlap = 24 * 60 * 60
	maxOverlap     = 7 * 24 * 60 * 60
)

// rotateSecret is POST /v1/webhook_endpoints/{webhook_endpoint}/rotate_secret. The new secret is in the first answer and nowhere else.
func (s *Server) rotateSecret(ctx context.Context, c *call) error {
	overlap := defaultOverlap
	if err := c.input(optional("overlap_seconds", integer(&overlap, 0, maxOverlap))); err != nil {
		return err
	}
	id, err := pathEndpoint(c)
	if err != nil {
		return err
	}
	secret := webhook.NewSecret()
	return c.change(ctx, "rotate_webhook_secret", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.RotateSecret(ctx, id, secret, time.Duration(overlap)*time.Second)
		if err == nil && webhook.IsMail(row.URL) {
			err = credit.Errorf(credit.InvalidRequest, "Messages to a mail address are not signed.")
		}
		if err != nil {
			return db.Outcome{}, err
		}
		o, err := shownOnce(http.StatusOK, row, secret)
		o.Detail = map[string]any{"overlap_seconds": overlap}
		return o, err
	})
}

// testEndpoint is POST /v1/webhook_endpoints/{webhook_endpoint}/test.
func (s *Server) testEndpoint(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	id, err := pathEndpoint(c)
	if err != nil {
		return err
	}
	return c.change(ctx, "test_webhook_endpoint", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		e, err := cat.TestEndpoint(ctx, id, func(e db.EndpointRow) any { return webhook.Describe(e) })
		if err != nil {
			return db.Outcome{}, err
		}
		return created(id.String(), webhook.MessageOf(e), nil)
	})
}

// replayDeliveries is POST /v1/webhook_endpoints/{webhook_endpoint}/replay: one event, or those of an interval, once more.
func (s *Server) replayDeliveries(ctx context.Context, c *call) error {
	var r db.ReplayRange
	var customer string
	if err := c.input(
		optional("event", parsed(&r.Event, credit.ParseID[credit.EventID])),
		optional("from", instant(&r.From)),
		optional("until", instant(&r.Until)),
		optional("customer", text(&customer, 255)),
	); err != nil {
		return err
	}
	if one := !r.Event.IsZero(); one != r.From.IsZero() || one != r.Until.IsZero() || one && customer != "" {
		return credit.Invalid("", "Give either event, or from and until and perhaps customer.")
	}
	if r.Event.IsZero() && !r.From.Before(r.Until) {
		return credit.Invalid("/until", "The interval must end after it begins.")
	}
	id, err := pathEndpoint(c)
	if err != nil {
		return err
	}
	if customer != "" {
		if r.Customer, err = s.customerID(ctx, customer); err != nil {
			return in("/customer", err)
		}
	}
	return c.change(ctx, "replay_webhook_deliveries", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		_, n, err := cat.Replay(ctx, id, r)
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(id.String(), map[string]int{"queued": n}, map[string]int{"queued": n})
	})
}

// deliveryDocument is how the delivery of one event to one endpoint stands.
type deliveryDocument struct {
	ID          string             `json:"id"`
	EventID     credit.EventID     `json:"event_id"`
	Type        string             `json:"type"`
	CustomerID  *credit.CustomerID `json:"customer_id"`
	Seq         int64              `json:"seq"`
	Replay      bool               `json:"replay"`
	Status      string             `json:"status"` // pending, failing (pending and tried), delivered
	Attempts    int                `json:"attempts"`
	LastCode    *int               `json:"last_code"` // null: no answer came
	LastError   *string            `json:"last_error"`
	LastAt      *string            `json:"last_at"`
	NextAt      *string            `json:"next_at"` // null: it is being tried, waits behind another one or for the endpoint, or is delivered
	DeliveredAt *string            `json:"delivered_at"`
	CreatedAt   string             `json:"created_at"`
	Log         json.RawMessage    `json:"log"` // the newest attempts, oldest first
}

const deliveryPrefix = "dlv_"

func describeDelivery(r db.DeliveryRow) deliveryDocument {
	d := deliveryDocument{ID: deliveryPrefix + strconv.FormatInt(r.ID, 10), EventID: r.Event, Type: r.Type, Seq: r.Seq, Replay: r.Replay, Status: "pending",
		Attempts: r.Attempts, LastError: orNull(r.Error), LastAt: instantOrNull(r.LastAt), NextAt: instantOrNull(r.NextAt),
		DeliveredAt: instantOrNull(r.DeliveredAt), CreatedAt: instantText(r.CreatedAt), Log: r.Log}
	if !r.Customer.IsZero() {
		d.CustomerID = &r.Customer
	}
	if r.Code != 0 {
		d.LastCode = &r.Code
	}
	switch {
	case !r.DeliveredAt.IsZero():
		d.Status = "delivered"
	case r.Attempts > 0:
		d.Status = "failing"
	}
	return d
}

// listDeliveries is GET /v1/webhook_endpoints/{webhook_endpoint}/deliveries, newest first.
func (s *Server) listDeliveries(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, query.numberCursor, "status", "customer", "event")
	if err != nil {
		return err
	}
	id, err := pathEndpoint(c)
	if err != nil {
		return err
	}
	var f db.DeliveryFilter
	if f.Status, err = q.oneOf("status", "pending", "failing", "delivered"); err != nil {
		return err
	}
	if f.Event, err = queryID(q, "event", credit.ParseID[credit.EventID]); err != nil {
		return err
	}
	if f.Customer, err = c.queryCustomer(ctx, q); err != nil {
		return err
	}
	if _, err := s.store.Endpoint(ctx, id); err != nil {
		return err
	}
	rows, err := s.store.DeliveryPage(ctx, id, f, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeDelivery, func(d db.DeliveryRow) cursor { return afterNumber(d.ID) })
}
