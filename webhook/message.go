package webhook

import (
	"encoding/json"
	"fmt"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// Message is an event as the API answers it, as it is sent to endpoints, and as it is streamed.
type Message struct {
	ID         credit.EventID     `json:"id"`
	Type       string             `json:"type"`
	Timestamp  balance.Instant    `json:"timestamp"`
	CustomerID *credit.CustomerID `json:"customer_id"` // null: it is about none
	Seq        int64              `json:"seq"`         // counts the customer's events
	Subject    string             `json:"subject"`     // the id of what it is about
	Data       json.RawMessage    `json:"data"`
}

// MessageOf makes the message of an event.
func MessageOf(e db.EventRow) Message {
	m := Message{ID: e.ID, Type: e.Type, Timestamp: balance.Instant(e.At), Seq: e.Seq, Subject: e.Subject, Data: e.Data}
	if !e.Customer.IsZero() {
		m.CustomerID = &e.Customer
	}
	return m
}

// Body is the JSON of an event's message: the same bytes for every attempt.
func Body(e db.EventRow) ([]byte, error) {
	b, err := json.Marshal(MessageOf(e))
	if err != nil {
		return nil, fmt.Errorf("write event %s: %w", e.ID, err)
	}
	return b, nil
}

// EndpointDocument describes an endpoint.
type EndpointDocument struct {
	ID             credit.EndpointID  `json:"id"`
	URL            string             `json:"url"`
	Types          []string           `json:"types"`       // empty: every type
	CustomerID     *credit.CustomerID `json:"customer_id"` // null: every customer
	Description    string             `json:"description"`
	Status         string             `json:"status"`          // enabled, disabled
	DisabledReason *string            `json:"disabled_reason"` // asked, gone, failing; null: it is enabled
	DisabledAt     *balance.Instant   `json:"disabled_at"`
	Secret         string             `json:"secret,omitempty"` // only in the answer that makes it
	CreatedAt      balance.Instant    `json:"created_at"`
}

// Describe makes the document of an endpoint.
func Describe(e db.EndpointRow) EndpointDocument {
	d := EndpointDocument{ID: e.ID, URL: e.URL, Types: e.Types, Description: e.Description, Status: e.Status, CreatedAt: balance.Instant(e.CreatedAt)}
	if !e.Customer.IsZero() {
		d.CustomerID = &e.Customer
	}
	if e.Reason != "" {
		at := balance.Instant(e.DisabledAt)
		d.DisabledReason, d.DisabledAt = &e.Reason, &at
	}
	return d
}

// Types are the types of events, in order.
var Types = []string{
	"alert.fired", "alert.recovered", "alert.team.fired", "alert.team.recovered", "backfill.applied", "backfill.withdrawn", "customer.created",
	"customer.updated", "dispute.lost", "dispute.opened", "dispute.won", "grant.created", "grant.decremented", "grant.depleted", "grant.expired",
	"grant.extended", "grant.frozen", "grant.issued", "grant.refunded", "grant.reopened", "grant.transferred", "grant.unfrozen", "grant.voided",
	"hold.captured", "hold.created", "hold.expired", "hold.extended", "hold.released", "limit.created", "limit.ended", "limit.reached", "limit.updated",
	"limit.warning", "member.created", "member.updated", "notification.customer.frozen", "notification.grant.expiring",
	"notification.period.awaiting_approval", "notification.webhook_endpoint.disabled", "operation.corrected", "period.closed", "period.reopened",
	"period.soft_closed", "refund.created", "refund.settled", "topup.expired", "topup.failed", "topup.paused", "topup.requested", "topup.succeeded",
	"wallet.created", "wallet.updated", "webhook_endpoint.disabled", "webhook_endpoint.test",
}
