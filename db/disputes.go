package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// DisputeStatus is how a payment dispute stands.
type DisputeStatus string

// Statuses of disputes.
const (
	DisputeOpen DisputeStatus = "open"
	DisputeWon  DisputeStatus = "won"  // the payment stays
	DisputeLost DisputeStatus = "lost" // it has gone back to the customer
)

// DisputeRow is one row of disputes. Amount and Fee are minor units of Currency, the bases of the entity's currency at the purchase's rate.
type DisputeRow struct {
	ID                        credit.DisputeID
	Reference                 string // the payment provider's name for it
	Customer                  credit.CustomerID
	Grant                     credit.GrantID
	Status                    DisputeStatus
	Currency                  string
	Amount, Fee               int64 // Amount with tax
	Basis, TaxBasis, FeeBasis int64 // TaxBasis: of the tax in Basis
	WasFrozen                 bool  // the grant was, before the dispute froze it
	Reason                    string
	OpenedVer, EndedVer       int64 // EndedVer 0: it is open
	OpenedAt, EndedAt         time.Time
}

func disputeRow(r sqlc.Dispute) DisputeRow {
	return DisputeRow{
		ID: r.ID.Bytes, Reference: r.Reference, Customer: r.CustomerID.Bytes, Grant: r.GrantID.Bytes, Status: DisputeStatus(r.Status), Currency: r.Currency,
		Amount: r.AmountMinor, Fee: r.FeeMinor, Basis: r.BasisMinor, TaxBasis: r.TaxBasisMinor, FeeBasis: r.FeeBasisMinor, WasFrozen: r.WasFrozen,
		Reason: r.Reason, OpenedVer: r.OpenedVer, EndedVer: r.EndedVer.Int64, OpenedAt: fromTime(r.OpenedAt), EndedAt: fromTime(r.EndedAt),
	}
}

// Disputes reads the disputes of a grant, the oldest first, within the transaction that Lock began. On an error the lane is closed.
func (l *Lane) Disputes(ctx context.Context, grant credit.GrantID) ([]*DisputeRow, error) {
	var out []*DisputeRow
	b := &pgx.Batch{}
	b.Queue(sqlc.ReadDisputes, uuidOf(grant))
	if err := l.send(ctx, b, func(res pgx.BatchResults) error {
		return each(res, func(rows pgx.Rows) error {
			r, err := pgx.RowToStructByPos[sqlc.Dispute](rows)
			d := disputeRow(r)
			out = append(out, &d)
			return err
		})
	}); err != nil {
		return nil, fmt.Errorf("read disputes of grant %s: %w", grant, err)
	}
	return out, nil
}

// Dispute returns a dispute, or an Error coded dispute_not_found.
func (s *Store) Dispute(ctx context.Context, id credit.DisputeID) (DisputeRow, error) {
	r, err := s.q.FindDispute(ctx, uuidOf(id))
	return disputeRow(r), found(err, credit.Errorf(credit.DisputeNotFound, "There is no dispute %s.", id), "read dispute")
}

// DisputeFilter narrows a list of disputes; zero fields let everything through.
type DisputeFilter struct {
	Customer credit.CustomerID
	Grant    credit.GrantID
	Status   DisputeStatus
}

// DisputePage returns up to n disputes below an id, newest first.
func (s *Store) DisputePage(ctx context.Context, f DisputeFilter, before credit.DisputeID, n int) ([]DisputeRow, error) {
	rows, err := s.q.PageDisputes(ctx, sqlc.PageDisputesParams{CustomerID: uuidOf(f.Customer), GrantID: uuidOf(f.Grant), Status: textOf(string(f.Status)),
		Before: below(before), PageSize: int32(n)})
	return page(rows, err, "read disputes", disputeRow)
}
