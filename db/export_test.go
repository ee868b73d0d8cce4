package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// RecogniseWithoutLeaves is a pass of RecogniseCustomer as it was before entries were hashed: what the hashes cost is measured against it. The database's
// time is not asked for, nothing is encoded or hashed, and the column stays null.
func (s *Store) RecogniseWithoutLeaves(ctx context.Context, customer credit.CustomerID) (entries int, err error) {
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		p := pass{q: s.q.WithTx(tx), customer: customer}
		var err error
		if p.from, err = p.lockMark(ctx); err != nil {
			return err
		}
		books, err := p.q.FindBooks(ctx, uuidOf(customer))
		if err != nil {
			return err
		}
		p.entity, p.currency, p.head, p.to = books.Entity, books.Currency, books.Ver, books.Ver
		if err := p.load(ctx, books.TimeZone); err != nil {
			return err
		}
		for len(p.rows) > 0 {
			if err := p.next(); err != nil {
				return err
			}
		}
		if err := postWithoutLeaves(ctx, p.q, p.entries); err != nil {
			return err
		}
		entries, p.entries = len(p.entries), nil
		return p.save(ctx)
	})
	return entries, err
}

func postWithoutLeaves(ctx context.Context, q *sqlc.Queries, entries []ledger.Entry) error {
	heads := make([]sqlc.AddEntriesParams, len(entries))
	var legs []sqlc.AddPostingsParams
	at := timeOf(time.Now())
	for i := range entries {
		e := &entries[i]
		if err := e.Check(); err != nil {
			return err
		}
		day, err := dateOf(e.Day)
		if err != nil {
			return err
		}
		heads[i] = sqlc.AddEntriesParams{
			ID: uuidOf(e.ID), Cause: e.Cause, Entity: e.Entity, Period: string(e.Period), ServiceOn: day, PostedAt: at, Kind: string(e.Kind),
			CustomerID: uuidOf(e.Customer), GrantID: uuidOf(e.Grant), VerFrom: numberOf(e.VerFrom), VerTo: numberOf(e.VerTo),
			Late: e.Late(), Reverses: uuidOf(e.Reverses),
		}
		for n, p := range e.Postings {
			legs = append(legs, sqlc.AddPostingsParams{
				EntryID: uuidOf(e.ID), N: int32(n), Account: int32(p.Account), Side: string(p.Side), AmountMinor: p.Money.Minor, Currency: p.Money.Currency,
				SourceMinor: numberOf(p.Source.Minor), SourceCurrency: textOf(p.Source.Currency), Units: numberOf(int64(p.Units)),
				Product: textOf(p.Product), Model: textOf(p.Model),
			})
		}
	}
	if _, err := q.AddEntries(ctx, heads); err != nil {
		return err
	}
	_, err := q.AddPostings(ctx, legs)
	return err
}
