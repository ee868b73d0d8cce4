package activities

import (
	"context"
	"fmt"

	"go.temporal.io/sdk/activity"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// CustomerRef names a customer.
type CustomerRef struct {
	CustomerID credit.CustomerID `json:"customer_id"`
}

// Posted counts what recognition has booked.
type Posted struct {
	Operations int `json:"operations"` // turned into entries, or found to move no money
	Entries    int `json:"entries"`    // journal entries posted
}

// PostCustomer turns a customer's operations since the last time into journal entries. Run again it posts nothing.
func (a *Activities) PostCustomer(ctx context.Context, in CustomerRef) (Posted, error) {
	r, err := a.Store.RecogniseCustomer(ctx, in.CustomerID)
	return Posted{Operations: r.Operations, Entries: r.Entries}, refusal(err)
}

// RecognisedPage is one stretch of a recognition run. Failed customers are left for the next run.
type RecognisedPage struct {
	Posted
	Customers int               `json:"customers"`
	Failed    int               `json:"failed,omitempty"`
	Fault     string            `json:"fault,omitempty"` // the first failure
	Next      credit.CustomerID `json:"next"`            // where the next page begins; zero: there is none
}

// Bounds of one page: it ends after so many customers, and reads them in chunks of so many.
const (
	recognisePage  = 2000
	recogniseChunk = 200
)

// RecognisePage posts the entries of customers after in.CustomerID that have operations not yet posted. It heartbeats its progress, and a
// second attempt goes on where the first one ended. A customer whose entries cannot be posted does not hold up the others; a database that
// is away does.
func (a *Activities) RecognisePage(ctx context.Context, in CustomerRef) (RecognisedPage, error) {
	p := RecognisedPage{Next: in.CustomerID}
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &p); err != nil {
			return RecognisedPage{}, fmt.Errorf("read the progress of the attempt before: %w", err)
		}
	}
	for p.Customers+p.Failed < recognisePage {
		customers, err := a.Store.CustomersToRecognise(ctx, p.Next, recogniseChunk)
		if err != nil {
			return RecognisedPage{}, err
		}
		for _, c := range customers {
			r, err := a.Store.RecogniseCustomer(ctx, c)
			switch {
			case err == nil:
				p.Customers++
				p.Operations += r.Operations
				p.Entries += r.Entries
			case db.IsDown(err) || ctx.Err() != nil:
				return RecognisedPage{}, err
			default:
				activity.GetLogger(ctx).Error("recognition failed", "customer_id", c, "error", err)
				if p.Failed++; p.Fault == "" {
					p.Fault = fmt.Sprintf("%s: %v", c, err)
				}
			}
			p.Next = c
			activity.RecordHeartbeat(ctx, p)
		}
		if len(customers) < recogniseChunk {
			p.Next = credit.CustomerID{}
			return p, nil
		}
	}
	return p, nil
}
