package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Snapshots reads customers as of one moment, without locks: for the cache, never for a decision. Customers that do not exist are
// missing in the maps.
func (s *Store) Snapshots(ctx context.Context, customers []credit.CustomerID) (
	epoch string, now time.Time, heads map[credit.CustomerID]Head, states map[credit.CustomerID]*CustomerState, err error,
) {
	b := &pgx.Batch{}
	b.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	b.Queue(sqlc.ReadNow)
	b.Queue(sqlc.ReadHeads, uuids(customers))
	queueLoad(b, customers)
	b.Queue("COMMIT")
	res := s.Pool.SendBatch(ctx, b)
	defer func() {
		if cerr := res.Close(); err == nil && cerr != nil {
			err = cerr
		}
		if err != nil {
			err = fmt.Errorf("read snapshots: %w", err)
		}
	}()
	if _, err = res.Exec(); err != nil {
		return
	}
	var configuration int64
	if err = res.QueryRow().Scan(&now, &epoch, &configuration); err != nil {
		return
	}
	heads = make(map[credit.CustomerID]Head, len(customers))
	if err = each(res, func(rows pgx.Rows) error {
		var id pgtype.UUID
		var h Head
		var at pgtype.Timestamptz
		if err := rows.Scan(&id, &h.Ver, &at, &h.Frozen); err != nil {
			return err
		}
		h.LastAt = fromTime(at)
		heads[id.Bytes] = h
		return nil
	}); err != nil {
		return
	}
	if states, err = readLoad(res); err != nil {
		return
	}
	_, err = res.Exec()
	return
}
