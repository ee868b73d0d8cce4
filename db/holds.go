package db

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// readHolds reads the results of ReadHolds and ReadHoldLines.
func readHolds(res pgx.BatchResults) (map[credit.HoldID]*credit.Hold, error) {
	out := make(map[credit.HoldID]*credit.Hold)
	if err := each(res, func(rows pgx.Rows) error {
		r, err := pgx.RowToStructByPos[sqlc.Hold](rows)
		if err != nil {
			return err
		}
		h, err := holdOf(r)
		if err == nil {
			out[h.ID] = h
		}
		return err
	}); err != nil {
		return nil, err
	}
	err := each(res, func(rows pgx.Rows) error {
		r, err := pgx.RowToStructByPos[sqlc.HoldLine](rows)
		if h := out[r.HoldID.Bytes]; err == nil && h != nil {
			h.Lines = append(h.Lines, lineOf(r))
		}
		return err
	})
	return out, err
}

func lineOf(r sqlc.HoldLine) credit.HoldLine {
	return credit.HoldLine{Grant: r.GrantID.Bytes, Amount: credit.Amount(r.Amount), Captured: credit.Amount(r.Captured), Released: credit.Amount(r.Released)}
}

func holdOf(r sqlc.Hold) (*credit.Hold, error) {
	h := &credit.Hold{
		ID: r.ID.Bytes, CustomerID: r.CustomerID.Bytes, MemberID: r.MemberID.Bytes, Unit: r.Unit, Status: credit.HoldStatus(r.Status),
		Amount: credit.Amount(r.Amount), Captured: credit.Amount(r.Captured), Released: credit.Amount(r.Released), Extra: credit.Amount(r.Extra),
		ExpiresAt: fromTime(r.ExpiresAt), ServiceAt: fromTime(r.ServiceAt), Rate: credit.RateLock{Card: r.RateCardID.Bytes, Version: int(r.RateVersion.Int32)},
		Reason: r.Reason.String, CreatedAt: fromTime(r.CreatedAt),
	}
	if len(r.Dims) > 0 {
		if err := json.Unmarshal(r.Dims, &h.Dims); err != nil {
			return nil, fmt.Errorf("read dimensions of hold %s: %w", h.ID, err)
		}
	}
	var err error
	h.Gates, err = readHoldGates(r.Gates)
	return h, err
}

// queueHolds writes holds with their lines.
func (c *Changes) queueHolds(b *pgx.Batch) error {
	var holds, grants []pgtype.UUID
	var ns []int16
	var amounts, captured, released []int64
	for _, h := range c.Holds {
		var dims []byte
		if len(h.Dims) > 0 {
			var err error
			if dims, err = json.Marshal(h.Dims); err != nil {
				return fmt.Errorf("write dimensions: %w", err)
			}
		}
		gates, err := holdGatesJSON(h.Gates)
		if err != nil {
			return err
		}
		b.Queue(sqlc.SaveHold, uuidOf(h.ID), uuidOf(h.CustomerID), uuidOf(h.MemberID), h.Unit, string(h.Status), int64(h.Amount), int64(h.Captured),
			int64(h.Released), int64(h.Extra), h.ExpiresAt, h.ServiceAt, uuidOf(h.Rate.Card), pgtype.Int4{Int32: int32(h.Rate.Version), Valid: h.Rate.Version != 0},
			dims, textOf(h.Reason), h.CreatedAt, gates)
		for n, l := range h.Lines {
			holds, ns, grants = append(holds, uuidOf(h.ID)), append(ns, int16(n)), append(grants, uuidOf(l.Grant))
			amounts, captured, released = append(amounts, int64(l.Amount)), append(captured, int64(l.Captured)), append(released, int64(l.Released))
		}
	}
	if len(holds) > 0 {
		b.Queue(sqlc.SaveHoldLines, holds, ns, grants, amounts, captured, released)
	}
	return nil
}

// DueHold is a hold past its deadline.
type DueHold struct {
	ID       credit.HoldID
	Customer credit.CustomerID
}

// DueHolds lists up to n open holds that are past their deadline by Postgres's clock, the longest overdue first.
func (s *Store) DueHolds(ctx context.Context, n int) ([]DueHold, error) {
	rows, err := s.q.DueHolds(ctx, int32(n))
	return page(rows, err, "read due holds", func(r sqlc.DueHoldsRow) DueHold { return DueHold{r.ID.Bytes, r.CustomerID.Bytes} })
}

// Hold reads a hold with its lines. An unknown one is an Error coded hold_not_found.
func (s *Store) Hold(ctx context.Context, id credit.HoldID) (*credit.Hold, error) {
	r, err := s.q.FindHold(ctx, uuidOf(id))
	if err != nil {
		return nil, found(err, credit.Errorf(credit.HoldNotFound, "There is no hold %s.", id), "read hold")
	}
	h, err := holdOf(r)
	if err != nil {
		return nil, err
	}
	return h, s.lines(ctx, []*credit.Hold{h})
}

// HoldFilter narrows a list of holds; zero fields let everything through.
type HoldFilter struct {
	Customer credit.CustomerID
	Wallet   credit.WalletID // holds with credits of one of its grants
	Status   credit.HoldStatus
}

// HoldPage lists up to n holds before one (zero: the newest first), with their lines.
func (s *Store) HoldPage(ctx context.Context, f HoldFilter, before credit.HoldID, n int) ([]*credit.Hold, error) {
	rows, err := s.q.PageHolds(ctx, sqlc.PageHoldsParams{CustomerID: uuidOf(f.Customer), WalletID: uuidOf(f.Wallet), Status: textOf(string(f.Status)),
		Before: below(before), PageSize: int32(n)})
	if err != nil {
		return nil, wrap(err, "read holds")
	}
	holds := make([]*credit.Hold, len(rows))
	for i, r := range rows {
		if holds[i], err = holdOf(r); err != nil {
			return nil, err
		}
	}
	return holds, s.lines(ctx, holds)
}

func (s *Store) lines(ctx context.Context, holds []*credit.Hold) error {
	byID := make(map[credit.HoldID]*credit.Hold, len(holds))
	var ids []credit.HoldID
	for _, h := range holds {
		byID[h.ID] = h
		ids = append(ids, h.ID)
	}
	rows, err := s.q.ReadHoldLines(ctx, uuids(ids))
	for _, r := range rows {
		h := byID[r.HoldID.Bytes]
		h.Lines = append(h.Lines, lineOf(r))
	}
	return wrap(err, "read lines of holds")
}
