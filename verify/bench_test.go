package verify_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/verify"
)

// fill gives every one of some customers grants, and uses of one credit each, spread over the grants, 30 days and four models.
func fill(b testing.TB, book *dbtest.Book, customers, grants, uses int) []credit.CustomerID {
	b.Helper()
	ids := make([]credit.CustomerID, customers)
	for i := range ids {
		ids[i] = credit.NewID[credit.CustomerID]()
		wallet := credit.NewID[credit.WalletID]()
		err := book.Store.Tx(ctx, func(tx pgx.Tx) error {
			var q pgx.Batch
			q.Queue("INSERT INTO customers (id, entity, name) VALUES ($1, 'acme', 'Customer')", ids[i][:])
			q.Queue("INSERT INTO wallets (id, customer_id, unit, name) VALUES ($1, $2, 'CRD', 'Main')", wallet[:], ids[i][:])
			q.Queue("INSERT INTO customer_heads (customer_id, ver, last_at) VALUES ($1, $2::bigint + $3::bigint, '2026-03-01Z')", ids[i][:], grants, uses)
			q.Queue(`INSERT INTO grants (id, customer_id, wallet_id, type, status, effective_at, price_minor, price_currency, basis_minor, created_at, issued_at, amount, granted, avail, consumed)
				SELECT md5($1::uuid::text || g)::uuid, $1, $2, 'purchased', 'open', '2026-01-01Z', 9973, 'USD', 9973, '2026-01-01Z', '2026-01-01Z', $4::bigint, $4::bigint, $4::bigint - n, n
				FROM generate_series(1, $3::bigint) AS g CROSS JOIN LATERAL (SELECT $4::bigint / $3::bigint + (g <= $4::bigint % $3::bigint)::int AS n) AS x`, ids[i][:], wallet[:], grants, uses)
			q.Queue(`INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, key, unit, dims, receipt)
				SELECT $1, v, 'issue', $2::bigint, '2026-01-01Z', '2026-01-01Z', 0, $1, 'g' || v, 'CRD', NULL, '{}' FROM generate_series(1, $3::bigint) AS v`, ids[i][:], uses, grants)
			q.Queue(`INSERT INTO movements SELECT md5($1::uuid::text || g)::uuid, g, 0, 'issued', 'available', $2::bigint, $2::bigint FROM generate_series(1, $3::bigint) AS g`, ids[i][:], uses, grants)
			q.Queue(`INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, key, unit, dims, receipt)
				SELECT $1, $3::bigint + u, 'consume', 1, t, t, 0, $1, 'u' || u, 'CRD', jsonb_build_object('product', 'chat', 'model', 'm' || u % 4), '{}'
				FROM (SELECT u, '2026-01-01 01:00Z'::timestamptz + u * 29 / $2::bigint * interval '1 day' AS t FROM generate_series(1, $2::bigint) AS u) AS x`, ids[i][:], uses, grants)
			q.Queue(`INSERT INTO movements SELECT md5($1::uuid::text || 1 + (u - 1) % $3::bigint)::uuid, $3::bigint + u, 0, 'available', 'consumed', 1, $2::bigint - 1 - (u - 1) / $3::bigint
				FROM generate_series(1, $2::bigint) AS u`, ids[i][:], uses, grants)
			return tx.SendBatch(ctx, &q).Close()
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return ids
}

// One iteration posts one customer's month: 10,000 uses of 100 grants.
func BenchmarkRecognise(b *testing.B) {
	const uses = 10_000
	s := dbtest.Open(b)
	ids := fill(b, dbtest.NewBook(b, s), b.N, 100, uses)
	entries := 0
	b.ResetTimer()
	for _, id := range ids {
		r, err := s.RecogniseCustomer(ctx, id)
		if err != nil {
			b.Fatal(err)
		}
		entries += r.Entries
	}
	b.ReportMetric(float64(uses*b.N)/b.Elapsed().Seconds(), "operations/s")
	b.ReportMetric(float64(entries)/b.Elapsed().Seconds(), "entries/s")
}

// One iteration verifies a database of 200,000 uses and the entries made of them.
func BenchmarkVerify(b *testing.B) {
	s := dbtest.Open(b)
	for _, id := range fill(b, dbtest.NewBook(b, s), 20, 100, 10_000) {
		if _, err := s.RecogniseCustomer(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
	var checked int64
	for b.Loop() {
		report, err := verify.Run(ctx, s, nil, verify.Options{})
		if err != nil || !report.Clean() {
			b.Fatalf("%+v, %v", report, err)
		}
		checked = 0
		for _, c := range report.Checks {
			checked += c.Checked
		}
	}
	b.ReportMetric(float64(checked)*float64(b.N)/b.Elapsed().Seconds(), "checked/s")
}
