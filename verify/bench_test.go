package verify_test

import (
	"testing"

	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/verify"
)

// One iteration posts one customer's month: 10,000 uses of 100 grants.
func BenchmarkRecognise(b *testing.B) {
	const uses = 10_000
	s := dbtest.Open(b)
	ids := dbtest.NewBook(b, s).Fill(b.N, 100, uses)
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
	for _, id := range dbtest.NewBook(b, s).Fill(20, 100, 10_000) {
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
