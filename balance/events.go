package balance

import (
	"encoding/json"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// facts is the data of an event: documents as the API answers them, by what they describe.
type facts map[string]any

// event records what the operation has changed, for those outside. It is written with the operation, or not at all.
func (d *decision) event(kind, subject string, data facts) {
	b, err := json.Marshal(data)
	if err != nil {
		panic("balance: an event cannot be written as JSON: " + err.Error())
	}
	d.changes.Events = append(d.changes.Events, db.EventRow{
		ID: credit.NewID[credit.EventID](), Customer: d.c.id, Type: kind, Subject: subject, Data: b, At: d.c.at,
	})
}

// grantEvent records what has become of a grant.
func (d *decision) grantEvent(kind string, doc *GrantDocument) {
	d.event("grant."+kind, doc.ID.String(), facts{"grant": doc})
}
