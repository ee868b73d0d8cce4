package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Broken is a customer whose books do not agree with themselves.
type Broken struct {
	Customer credit.CustomerID
	How      string
}

// FindBroken looks through the customers that had operations since an instant. nil is how it should be.
func (s *Store) FindBroken(ctx context.Context, since time.Time) ([]Broken, error) {
	rows, err := s.q.FindBroken(ctx, timeOf(since))
	if err != nil {
		return nil, fmt.Errorf("audit recent operations: %w", err)
	}
	out := make([]Broken, len(rows))
	for i, r := range rows {
		out[i] = Broken{Customer: r.CustomerID.Bytes, How: r.How}
	}
	return out, nil
}

// Freeze stops everything that would move a customer's credits, and leaves a notification with the reason. It tells whether the customer was
// not frozen before.
func (s *Store) Freeze(ctx context.Context, b Broken) (fresh bool, err error) {
	data, err := json.Marshal(map[string]string{"how": b.How})
	if err != nil {
		return false, fmt.Errorf("write notification: %w", err)
	}
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		n, err := q.FreezeCustomer(ctx, true, uuidOf(b.Customer))
		if err != nil || n == 0 {
			return err
		}
		fresh = true
		return notify(ctx, q, sqlc.NotifyParams{Type: "customer.frozen",
			Cause: fmt.Sprintf("customer/%s/frozen/%d", b.Customer, time.Now().UnixMicro()), CustomerID: uuidOf(b.Customer), Subject: b.Customer.String(), Data: data,
		})
	})
	if err != nil {
		return false, fmt.Errorf("freeze %s: %w", b.Customer, err)
	}
	return fresh, nil
}

// Unfreeze lets a customer's credits move again. An Error coded not_found says that it was not frozen.
func (c *Catalog) Unfreeze(ctx context.Context, customer credit.CustomerID) error {
	n, err := c.q.FreezeCustomer(ctx, false, uuidOf(customer))
	if err == nil && n == 0 {
		return credit.Errorf(credit.NotFound, "Customer %s is not frozen.", customer)
	}
	return wrap(err, "unfreeze customer")
}
