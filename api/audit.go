package api

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// auditLine is one change: who did what, when, in which request.
type auditLine struct {
	At        string           `json:"at"`
	Actor     string           `json:"actor"`
	Action    string           `json:"action"`
	Subject   string           `json:"subject"`
	RequestID credit.RequestID `json:"request_id"`
	Operation *string          `json:"operation"` // of a customer: "<customer id>/<ver>"
	Detail    json.RawMessage  `json:"detail"`
}

func describeAudit(r db.AuditRow) auditLine {
	d := auditLine{At: instantText(r.At), Actor: actorText(r.Actor), Action: r.Action, Subject: r.Subject, RequestID: r.RequestID, Detail: r.Detail}
	if !r.Customer.IsZero() {
		operation := r.Customer.String() + "/" + strconv.FormatInt(r.No, 10)
		d.Operation, d.Subject = &operation, r.Customer.String()
	}
	return d
}

// audit is GET /v1/audit: everything that changed something, newest first.
func (s *Server) audit(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, query.auditCursor, "from", "until", "actor", "action")
	if err != nil {
		return err
	}
	var f db.AuditFilter
	if f.From, err = q.instant("from"); err != nil {
		return err
	}
	if f.Until, err = q.instant("until"); err != nil {
		return err
	}
	if q.text("actor") != "" {
		no, err := queryID(q, "actor", parseActor)
		if err != nil {
			return err
		}
		f.Actor = &no
	}
	if f.Action = q.text("action"); strings.ContainsRune(f.Action, 0) || len(f.Action) > 64 {
		return credit.Invalid("action", "This is not an action.")
	}
	rows, err := s.store.AuditPage(ctx, f, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeAudit, func(r db.AuditRow) cursor { return afterAudit(r.AuditPosition) })
}

func parseActor(s string) (int32, error) {
	if s == actorText(0) {
		return 0, nil
	}
	return parseKeyID(s)
}

type notificationDocument struct {
	ID         string             `json:"id"`
	Type       string             `json:"type"`
	Subject    string             `json:"subject"`
	CustomerID *credit.CustomerID `json:"customer_id"`
	Data       json.RawMessage    `json:"data"`
	CreatedAt  string             `json:"created_at"`
}

func describeNotification(n db.NotificationRow) notificationDocument {
	d := notificationDocument{ID: strconv.FormatInt(n.ID, 10), Type: n.Type, Subject: n.Subject, Data: n.Data, CreatedAt: instantText(n.CreatedAt)}
	if !n.Customer.IsZero() {
		d.CustomerID = &n.Customer
	}
	return d
}

// notifications is GET /v1/notifications, newest first.
func (s *Server) notifications(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, query.numberCursor, "customer")
	if err != nil {
		return err
	}
	customer, err := c.queryCustomer(ctx, q)
	if err != nil {
		return err
	}
	rows, err := s.store.NotificationPage(ctx, customer, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeNotification, func(n db.NotificationRow) cursor { return afterNumber(n.ID) })
}
