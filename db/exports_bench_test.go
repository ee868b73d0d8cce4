package db_test

import (
	"io"
	"testing"

	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/export"
)

// BenchmarkMillion exports and reports a period of a million postings: 500,000 uses of 10,000 grants on 28 days, in ten models.
func BenchmarkMillion(b *testing.B) {
	s := dbtest.Open(b)
	book := dbtest.NewBook(b, s)
	c := book.Customer(dbtest.Entity)
	// As the owner, without the checks of each entry when all are committed: they would take minutes.
	owner := dbtest.Owner(b, s)
	exec := func(sql string, args ...any) {
		if _, err := owner.Exec(ctx, sql, args...); err != nil {
			b.Fatal(err)
		}
	}
	exec("SET session_replication_role = replica")
	exec("INSERT INTO periods (entity, period) VALUES ($1, '2026-02')", dbtest.Entity)
	exec(`INSERT INTO grants (id, customer_id, wallet_id, type, status, effective_at, price_minor, price_currency, basis_minor, created_at, issued_at, amount, granted, avail, consumed)
		SELECT gen_random_uuid(), $1, $2, 'purchased', 'open', '2026-01-01', 100000, 'USD', 100000, '2026-01-01', '2026-01-01', 100000, 100000, 95000, 5000
		FROM generate_series(1, 10000)`, c.ID[:], c.Wallet[:])
	exec(`INSERT INTO journal_entries (id, cause, entity, period, service_on, kind, customer_id, grant_id)
		SELECT gen_random_uuid(), 'bench/' || i, $1, '2026-02', '2026-02-01'::date + i / 50 % 28, 'recognition', $2, g.ids[1 + i % 10000]
		FROM generate_series(1, 500000) AS i, (SELECT array_agg(id) AS ids FROM grants) AS g`, dbtest.Entity, c.ID[:])
	exec(`INSERT INTO postings (entry_id, n, account, side, amount_minor, currency, units, product, model)
		SELECT id, n, 2010 + 2000 * n, CASE n WHEN 0 THEN 'dr' ELSE 'cr' END, 100, 'USD', 100, CASE n WHEN 1 THEN 'chat' END, CASE n WHEN 1 THEN 'model-' || no % 10 END
		FROM journal_entries, generate_series(0, 1) AS n`)
	exec("VACUUM ANALYZE")
	for _, system := range []export.System{export.CSV, export.HLedger, export.Beancount} {
		b.Run("export/"+string(system), func(b *testing.B) {
			for b.Loop() {
				m, err := s.Export(ctx, export.Parameters{LegalEntity: dbtest.Entity, Period: "2026-02", Systems: []export.System{system}},
					func(string) (io.Writer, error) { return io.Discard, nil })
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(m.Systems[0].Entries), "entries")
			}
		})
	}
	for i := range db.Reports {
		b.Run("report/"+db.Reports[i].Name, func(b *testing.B) {
			for b.Loop() {
				t, err := s.Report(ctx, &db.Reports[i], db.ReportParameters{LegalEntity: dbtest.Entity, From: "2026-01", To: "2026-03"},
					func(db.ReportHead) error { return nil }, func([]*string) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(t.Rows), "rows")
			}
		})
	}
}
