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

// Recorded is an operation as it was recorded, and what corrections have made of it since.
type Recorded struct {
	CorrectedRow
	Kind, Unit string // Unit "": no credits moved
	ServiceAt  time.Time
	Member     credit.MemberID
	Dims       credit.Dimensions
	Receipt    []byte  // as it was answered
	Said       []byte  // the receipt of the correction UsageOf; nil: there is none
	Draws      []Drawn // what it consumed, in the order in which it drew
	Grants     []*credit.Grant
}

// Drawn is how much an operation consumed of a grant.
type Drawn struct {
	Grant  credit.GrantID
	Amount credit.Amount
}

// Recorded reads an operation with the grants that it drew from, within the transaction that Lock began; nil: there is no such operation.
// The grants' Wallet has only its ID. On an error the lane is closed.
func (l *Lane) Recorded(ctx context.Context, customer credit.CustomerID, ver int64) (*Recorded, error) {
	r := &Recorded{CorrectedRow: CorrectedRow{Customer: customer, Ver: ver}}
	b := &pgx.Batch{}
	b.Queue(sqlc.ReadRecorded, uuidOf(customer), ver)
	b.Queue(sqlc.ReadRecordedDraws, ver, uuidOf(customer))
	var grants []pgtype.UUID
	err := l.send(ctx, b, func(res pgx.BatchResults) error {
		var row sqlc.ReadRecordedRow
		if err := res.QueryRow().Scan(&row.Kind, &row.Unit, &row.ServiceAt, &row.MemberID, &row.Dims, &row.Receipt, &row.Said, &row.Corrected, &row.Whole,
			&row.UsageOf, &row.RaisedBy); errors.Is(err, pgx.ErrNoRows) {
			r = nil
			return nil
		} else if err != nil {
			return err
		}
		r.Kind, r.Unit, r.ServiceAt, r.Member, r.Receipt, r.Said = row.Kind, row.Unit, fromTime(row.ServiceAt), row.MemberID.Bytes, row.Receipt, row.Said
		r.Corrected, r.Whole, r.UsageOf, r.RaisedBy = credit.Amount(row.Corrected), row.Whole, row.UsageOf.Int64, row.RaisedBy.Int64
		if len(row.Dims) > 0 {
			if err := json.Unmarshal(row.Dims, &r.Dims); err != nil {
				return fmt.Errorf("read dimensions: %w", err)
			}
		}
		return each(res, func(rows pgx.Rows) error {
			var id pgtype.UUID
			var d Drawn
			err := rows.Scan(&id, (*int64)(&d.Amount))
			d.Grant = id.Bytes
			r.Draws, grants = append(r.Draws, d), append(grants, id)
			r.Amount += d.Amount
			return err
		})
	})
	if err != nil || r == nil {
		return nil, wrap(err, "read a recorded operation")
	}
	b = &pgx.Batch{}
	b.Queue(sqlc.ReadGrants, grants)
	if err := l.send(ctx, b, func(res pgx.BatchResults) error {
		return each(res, func(rows pgx.Rows) error {
			g, err := scanGrant(rows)
			r.Grants = append(r.Grants, g)
			return err
		})
	}); err != nil {
		return nil, fmt.Errorf("read the grants of a recorded operation: %w", err)
	}
	return r, nil
}
