package db_test

import (
	"testing"

	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

// A month of 1,000,000 consumptions with costs, by 1,000 customers with 10 grants each.
func BenchmarkComputeCost(b *testing.B) {
	s := dbtest.Open(b)
	book := dbtest.NewBook(b, s)
	ids := book.Fill(1000, 10, 1000)
	book.Corrupt(`UPDATE operations SET dims = dims || '{"provider":"openai"}', receipt = json_build_object('cost', json_build_object('amount', 0.0001234 + ver % 7 * 0.00001, 'currency', 'USD'))
		WHERE kind = 'consume'`)
	book.Corrupt("VACUUM ANALYZE")
	for _, id := range ids {
		if _, err := s.CountUsage(ctx, id); err != nil {
			b.Fatal(err)
		}
		if _, err := s.RecogniseCustomer(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
	accrue(b, s, "2026-01")
	b.Run("accrue", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.AccrueCompute(ctx, dbtest.Entity, "2026-01", fx.DefaultPolicy); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("margin", func(b *testing.B) {
		for b.Loop() {
			_, sums := reportOf(b, s, "margin", dbtest.Entity, "2026-01", "2026-01")
			tb, err := s.TrialBalance(ctx, dbtest.Entity, db.Span{From: "2026-01", To: "2026-01"})
			if err != nil {
				b.Fatal(err)
			}
			books := map[ledger.Account]int64{}
			for _, a := range tb.Accounts {
				books[a.Account] = a.Debit - a.Credit
			}
			if sums["revenue"] != -books[ledger.UsageRevenue] || sums["compute_cost"] != -books[ledger.AccruedCompute] || sums["revenue"] == 0 || sums["compute_cost"] == 0 {
				b.Fatalf("the report has %v, the books %v", sums, books)
			}
		}
	})
}
