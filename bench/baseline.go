package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tallystick/tallystick/credit"
)

// The balance column: what most people build first. A table of balances, a table of events with a unique key, and one
// transaction for each event.
const balanceColumnSchema = `
	DROP TABLE IF EXISTS baseline_balances, baseline_events;
	CREATE TABLE baseline_balances (customer_id bigint PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0)) WITH (fillfactor = 50);
	CREATE TABLE baseline_events (key text PRIMARY KEY, customer_id bigint NOT NULL, amount bigint NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
	INSERT INTO baseline_balances SELECT n, 9007199254740991 FROM generate_series(0, 9999) AS n;
	ANALYZE baseline_balances`

var errNotOnce = errors.New("the baseline refused an event")

// balanceColumn is the form that applications have: begin, insert, update, commit, each a round trip.
func balanceColumn(ctx context.Context, pool *pgxpool.Pool, key string, customer int64) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		in, err := tx.Exec(ctx, "INSERT INTO baseline_events (key, customer_id, amount) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", key, customer, 1000)
		if err != nil {
			return err
		}
		up, err := tx.Exec(ctx, "UPDATE baseline_balances SET balance = balance - $2 WHERE customer_id = $1 AND balance >= $2", customer, 1000)
		if err != nil {
			return err
		}
		if in.RowsAffected() != 1 || up.RowsAffected() != 1 {
			return errNotOnce
		}
		return nil
	})
}

// balanceStatement is the same in the fewest words that Postgres can be told: one statement, one round trip.
func balanceStatement(ctx context.Context, pool *pgxpool.Pool, key string, customer int64) error {
	tag, err := pool.Exec(ctx, `WITH once AS (INSERT INTO baseline_events (key, customer_id, amount) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING 1)
		UPDATE baseline_balances SET balance = balance - $3 WHERE customer_id = $2 AND balance >= $3 AND EXISTS (SELECT FROM once)`, key, customer, 1000)
	if err == nil && tag.RowsAffected() != 1 {
		err = errNotOnce
	}
	return err
}

// baseline runs one of the two with as many clients as the API gets.
func (b *bench) baseline(ctx context.Context, do func(context.Context, *pgxpool.Pool, string, int64) error, customers int64) (figures, error) {
	pool, err := b.pool(ctx, int32(b.Clients))
	if err != nil {
		return figures{}, err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, balanceColumnSchema); err != nil {
		return figures{}, fmt.Errorf("make the baseline's tables: %w", err)
	}
	prefix := strconv.FormatInt(time.Now().UnixNano(), 36)
	return run(b.Clients, b.WarmUp, b.Measure, func(_ int, n int64) error {
		return do(ctx, pool, prefix+"-"+strconv.FormatInt(n, 10), n*7919%customers)
	})
}

// ceiling inserts the rows that a consumption leaves in the ledger, 500 events in a transaction, and does nothing else: no HTTP, no lock,
// no balance, no decision. Nothing that keeps these rows can be faster on this machine.
func (b *bench) ceiling(ctx context.Context) (figures, error) {
	pool, err := b.pool(ctx, 2)
	if err != nil {
		return figures{}, err
	}
	defer pool.Close()
	const rows = 500
	var sample struct{ key, receipt string }
	if err := pool.QueryRow(ctx, "SELECT key, receipt::text FROM operations WHERE kind = 'consume' ORDER BY at DESC LIMIT 1").Scan(&sample.key, &sample.receipt); err != nil {
		return figures{}, fmt.Errorf("find a consumption to copy: %w", err)
	}
	owner := credit.NewID[credit.CustomerID]() // of this round: no row is written twice
	f, err := run(2, b.WarmUp, b.Measure, func(_ int, n int64) error {
		first := n * rows
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			batch := &pgx.Batch{}
			batch.Queue(`INSERT INTO idempotency_keys (digest, request, customer_id, ver, status)
				SELECT gen_random_uuid(), gen_random_uuid(), $1, n, 200 FROM generate_series($2::bigint, $3::bigint) AS n`, [16]byte(owner), first, first+rows-1)
			batch.Queue(`INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, key, unit, receipt)
				SELECT $1, n, 'consume', 1000, now(), now(), 1, gen_random_uuid(), $4, 'CREDIT', $5::json FROM generate_series($2::bigint, $3::bigint) AS n`,
				[16]byte(owner), first, first+rows-1, sample.key, sample.receipt)
			batch.Queue(`INSERT INTO movements (grant_id, ver, n, debit, credit, amount, after)
				SELECT $1, n, 0, 'available', 'consumed', 1000, 1000000 FROM generate_series($2::bigint, $3::bigint) AS n`, [16]byte(owner), first, first+rows-1)
			return tx.SendBatch(ctx, batch).Close()
		})
	})
	f.events *= rows
	return f, err
}
