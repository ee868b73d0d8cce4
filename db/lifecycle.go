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

// Lifecycle is what a grant's workflow goes by and shows. Grant has only the fields that its life needs, and no balances.
type Lifecycle struct {
	Grant  credit.Grant
	Scale  int       // of the unit
	Ver    int64     // of the customer, at which this was read
	ReadAt time.Time // clock of Postgres
}

// Lifecycles reads grants' facts in order of id. Grants that do not exist are missing.
func (s *Store) Lifecycles(ctx context.Context, ids ...credit.GrantID) ([]Lifecycle, error) {
	rows, err := s.q.ReadLifecycles(ctx, uuids(ids))
	if err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	facts := make([]Lifecycle, len(rows))
	for i, r := range rows {
		facts[i] = Lifecycle{
			Grant: credit.Grant{
				ID: r.ID.Bytes, CustomerID: r.CustomerID.Bytes, Wallet: &credit.Wallet{ID: r.WalletID.Bytes, Name: r.Wallet, Unit: r.Unit},
				Type: credit.GrantType(r.Type), Status: credit.Status(r.Status), Frozen: r.Frozen,
				EffectiveAt: fromTime(r.EffectiveAt), ExpiresAt: fromTime(r.ExpiresAt), CreatedAt: fromTime(r.CreatedAt), IssuedAt: fromTime(r.IssuedAt),
				Amount: credit.Amount(r.Amount), Price: credit.Money{Minor: r.PriceMinor, Currency: r.PriceCurrency.String},
			},
			Scale: int(r.Scale), Ver: r.Ver, ReadAt: fromTime(r.ReadAt),
		}
	}
	return facts, nil
}

// DueGrant is an open grant past its expiry.
type DueGrant struct {
	ID        credit.GrantID
	Customer  credit.CustomerID
	ExpiresAt time.Time
}

// DueGrants returns up to n grants past their expiry by the clock of Postgres, the longest overdue first, after the one given; after the zero
// DueGrant come the first. Frozen grants and those of customers frozen by the auditor are not due.
func (s *Store) DueGrants(ctx context.Context, after DueGrant, n int) ([]DueGrant, error) {
	rows, err := s.q.DueGrants(ctx, pgtype.Timestamptz{Time: after.ExpiresAt, Valid: true}, pgtype.UUID{Bytes: after.ID, Valid: true}, int32(n))
	if err != nil {
		return nil, fmt.Errorf("look for grants to expire: %w", err)
	}
	due := make([]DueGrant, len(rows))
	for i, r := range rows {
		due[i] = DueGrant{ID: r.ID.Bytes, Customer: r.CustomerID.Bytes, ExpiresAt: fromTime(r.ExpiresAt)}
	}
	return due, nil
}

// ExpiryReminder is the notification that a grant will expire.
type ExpiryReminder struct {
	Grant     credit.GrantID
	Wallet    credit.WalletID
	ExpiresAt time.Time // the expiry that it is about
	Days      int       // before it
}

// NotifyExpiring records a reminder, once for one expiry and number of days. It tells whether it did so now: not when that was done before, nor when
// the grant is no longer to expire then.
func (s *Store) NotifyExpiring(ctx context.Context, r ExpiryReminder) (bool, error) {
	at := r.ExpiresAt.UTC().Format(time.RFC3339Nano)
	data, err := json.Marshal(map[string]any{"grant_id": r.Grant, "wallet_id": r.Wallet, "days": r.Days, "expires_at": at})
	if err != nil {
		return false, fmt.Errorf("write the reminder of grant %s: %w", r.Grant, err)
	}
	told := false
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		row, err := q.NotifyExpiring(ctx, sqlc.NotifyExpiringParams{
			Cause: fmt.Sprintf("grant/%s/expiring/%dd/%s", r.Grant, r.Days, at), Subject: r.Grant.String(), Data: data,
			GrantID: uuidOf(r.Grant), ExpiresAt: timeOf(r.ExpiresAt),
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		told = true
		return addNotificationEvent(ctx, q, notificationRow(sqlc.NotifyRow(row)))
	})
	if err != nil {
		return false, fmt.Errorf("record the reminder of grant %s: %w", r.Grant, err)
	}
	return told, nil
}

// LiveGrants returns up to n grants that should have a workflow, in order of id after the one given: pending or open, and made before the
// instant.
func (s *Store) LiveGrants(ctx context.Context, madeBefore time.Time, after credit.GrantID, n int) ([]credit.GrantID, error) {
	rows, err := s.q.LiveGrants(ctx, timeOf(madeBefore), pgtype.UUID{Bytes: after, Valid: true}, int32(n))
	return page(rows, err, "list live grants", func(id pgtype.UUID) credit.GrantID { return id.Bytes })
}

// RefundsToSettle returns up to n refunds that should have a workflow, in order of id after the one given: awaiting settlement, and made
// before the instant.
func (s *Store) RefundsToSettle(ctx context.Context, madeBefore time.Time, after credit.RefundID, n int) ([]credit.RefundID, error) {
	rows, err := s.q.RefundsToSettle(ctx, timeOf(madeBefore), pgtype.UUID{Bytes: after, Valid: true}, int32(n))
	return page(rows, err, "list refunds to settle", func(id pgtype.UUID) credit.RefundID { return id.Bytes })
}

// DeleteOldKeys forgets up to n idempotency keys of operations that are 41 days old, and up to n of refusals that are a day old, by the
// clock of Postgres. It returns how many those were. Usage is refused as too old a week before its key is forgotten, so no replay is taken for
// something new.
func (s *Store) DeleteOldKeys(ctx context.Context, n int) (answers, denials int64, err error) {
	if denials, err = s.q.DeleteDenials(ctx, int32(n)); err != nil {
		return 0, 0, fmt.Errorf("delete old refusals: %w", err)
	}
	if answers, err = s.q.DeleteAnswers(ctx, int32(n)); err != nil {
		return 0, denials, fmt.Errorf("delete old idempotency keys: %w", err)
	}
	return answers, denials, nil
}
