package db_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/dbtest"
)

// One iteration recognises two like customers, one with the hash of every entry and one without, in turns. Passes of recognition are from a few entries
// to some hundreds. The ratio is of the medians.
func BenchmarkLeafHashes(b *testing.B) {
	for _, size := range []struct{ grants, uses int }{{1, 20}, {10, 300}} {
		b.Run(fmt.Sprintf("grants=%d/uses=%d", size.grants, size.uses), func(b *testing.B) {
			s := dbtest.Open(b)
			ids := dbtest.NewBook(b, s).Fill(2*b.N, size.grants, size.uses)
			var took [2][]time.Duration
			entries := 0
			recognise := func(hashed int, id credit.CustomerID) {
				began := time.Now()
				var n int
				var err error
				if hashed == 1 {
					r, e := s.RecogniseCustomer(ctx, id)
					n, err = r.Entries, e
				} else {
					n, err = s.RecogniseWithoutLeaves(ctx, id)
				}
				if err != nil {
					b.Fatal(err)
				}
				took[hashed] = append(took[hashed], time.Since(began))
				entries += n
			}
			b.ResetTimer()
			for i := range b.N {
				recognise(i%2, ids[2*i])
				recognise(1-i%2, ids[2*i+1])
			}
			median := func(d []time.Duration) float64 {
				slices.Sort(d)
				return float64(d[len(d)/2].Microseconds())
			}
			b.ReportMetric(median(took[0]), "µs-without")
			b.ReportMetric(median(took[1]), "µs-with")
			b.ReportMetric(median(took[1])/median(took[0]), "with/without")
			b.ReportMetric(float64(entries)/float64(2*b.N), "entries/pass")
		})
	}
}
