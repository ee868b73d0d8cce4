package api

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

var quarantineStates = []string{db.QuarantinePending, db.QuarantineCharged, db.QuarantineDiscarded}

type quarantinedDocument struct {
	balance.QuarantineDocument
	Key       string           `json:"idempotency_key"`
	Actor     string           `json:"actor"` // that sent it
	RequestID credit.RequestID `json:"request_id"`
	DecidedBy *string          `json:"decided_by,omitempty"`
	Body      json.RawMessage  `json:"body"` // as it was sent, without long strings of the response
}

func describeQuarantined(q db.QuarantinedRow) quarantinedDocument {
	doc := quarantinedDocument{QuarantineDocument: balance.DescribeQuarantined(q), Key: strings.TrimPrefix(q.Key, balance.ClientKey("")), Actor: actorText(q.Actor),
		RequestID: q.RequestID, Body: json.RawMessage(q.Body)}
	if !q.DecidedAt.IsZero() {
		by := actorText(q.DecidedBy)
		doc.DecidedBy = &by
	}
	return doc
}

// listQuarantined is GET /v1/quarantined_usage.
func (s *Server) listQuarantined(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.QuarantineID], "customer", "state", "code")
	if err != nil {
		return err
	}
	f := db.QuarantineFilter{Code: q.text("code")}
	if f.State, err = q.oneOf("state", quarantineStates...); err != nil {
		return err
	}
	if f.Customer, err = c.queryCustomer(ctx, q); err != nil {
		return err
	}
	rows, err := s.store.QuarantinedPage(ctx, f, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeQuarantined, func(q db.QuarantinedRow) cursor { return afterID(q.ID) })
}

func (s *Server) pathQuarantined(ctx context.Context, c *call) (db.QuarantinedRow, error) {
	id, err := pathID(c, "quarantined", credit.ParseID[credit.QuarantineID])
	if err != nil {
		return db.QuarantinedRow{}, err
	}
	return s.store.Quarantined(ctx, id)
}

// getQuarantined is GET /v1/quarantined_usage/{quarantined}.
func (s *Server) getQuarantined(ctx context.Context, c *call) error {
	row, err := s.pathQuarantined(ctx, c)
	if err != nil {
		return err
	}
	return c.document(describeQuarantined(row))
}

// retryQuarantined is POST /v1/quarantined_usage/{quarantined}/retry. Its own key lets the usage be charged once; the call needs none.
func (s *Server) retryQuarantined(ctx context.Context, c *call) error {
	var at time.Time
	if err := c.input(optional("service_at", instant(&at))); err != nil {
		return err
	}
	row, err := s.pathQuarantined(ctx, c)
	if err != nil {
		return err
	}
	op, err := s.kept(ctx, c, row, at)
	if err != nil {
		return err
	}
	return c.do(ctx, 200, op)
}

// maxRetried bounds how much usage one call tries.
const maxRetried = 200

// retryManyQuarantined is POST /v1/quarantined_usage/retry: the usage that waits, from the first on.
func (s *Server) retryManyQuarantined(ctx context.Context, c *call) error {
	var f db.QuarantineFilter
	var after credit.QuarantineID
	var at time.Time
	customer, limit := "", maxRetried
	if err := c.input(
		optional("customer", text(&customer, 255)),
		optional("code", text(&f.Code, 64)),
		optional("after", parsed(&after, credit.ParseID[credit.QuarantineID])),
		optional("limit", integer(&limit, 1, maxRetried)),
		optional("service_at", instant(&at)),
	); err != nil {
		return err
	}
	if !at.IsZero() && f.Code != string(credit.TooOld) {
		return credit.Invalid("/service_at", "Only usage that is too old can be charged as of another instant: choose it by its code.")
	}
	if customer != "" {
		var err error
		if f.Customer, err = s.customerID(ctx, customer); err != nil {
			return in("/customer", err)
		}
	}
	rows, err := s.store.OldestQuarantined(ctx, f, after, limit+1)
	if err != nil {
		return err
	}
	next := "null"
	if len(rows) > limit {
		rows = rows[:limit]
		next = `"` + rows[limit-1].ID.String() + `"`
	}
	events := make([]event, len(rows))
	var ops []balance.Operation
	for i, row := range rows {
		op, err := s.kept(ctx, c, row, at)
		if events[i].err = err; err == nil {
			ops = append(ops, op)
		}
	}
	results := s.service.DoAll(ctx, ops)
	buf := buffers.get()
	defer buffers.put(buf)
	b := append(append(append(*buf, `{"next":`...), next...), `,"results":[`...)
	for i, row := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		result := balance.Result{Err: events[i].err}
		if events[i].err == nil {
			result, results = results[0], results[1:]
		}
		b = append(row.ID.Append(append(b, `{"id":"`...)), `",`...)
		at := len(b)
		b = s.appendResult(b, c, result)
		b = append(b[:at], b[at+1:]...) // one object, not two
	}
	*buf = append(b, `]}`...)
	c.write(200, *buf)
	return nil
}

// discardQuarantined is POST /v1/quarantined_usage/{quarantined}/discard.
func (s *Server) discardQuarantined(ctx context.Context, c *call) error {
	var reason string
	if err := c.input(required("reason", text(&reason, maxReason))); err != nil {
		return err
	}
	id, err := pathID(c, "quarantined", credit.ParseID[credit.QuarantineID])
	if err != nil {
		return err
	}
	return c.change(ctx, "discard_usage", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.DiscardQuarantined(ctx, id, c.caller.no, reason, func(row db.QuarantinedRow) ([]byte, error) {
			return json.Marshal(balance.DescribeQuarantined(row))
		})
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(id.String(), describeQuarantined(row), map[string]any{"customer_id": row.Customer, "reason": reason})
	})
}
