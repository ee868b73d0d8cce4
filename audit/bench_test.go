package audit_test

import (
	"testing"

	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/seal"
)

// One iteration verifies a sealed period of some ten thousand entries.
func BenchmarkVerify(b *testing.B) {
	s := dbtest.Open(b)
	key, err := seal.NewKey()
	if err != nil {
		b.Fatal(err)
	}
	for _, id := range dbtest.NewBook(b, s).Fill(8, 50, 3000) {
		if _, err := s.RecogniseCustomer(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
	sealer := &audit.Sealer{Key: key}
	sealed, err := sealer.Seal(ctx, s, dbtest.Entity, january, seal.Hash{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r, err := audit.Verify(ctx, s, audit.Options{Entity: dbtest.Entity, Period: january, Seal: sealed})
		if err != nil || !r.Clean() {
			b.Fatalf("%+v, %v", r, err)
		}
	}
	b.ReportMetric(float64(sealed.Size)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(float64(sealed.Size), "entries")
}
