package balance_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
)

// BenchmarkConsume is the path below HTTP: 64 callers on one customer, and on 10,000.
func BenchmarkConsume(b *testing.B) {
	for _, customers := range []int{1, 10_000} {
		for _, noCache := range []bool{false, true} {
			b.Run(fmt.Sprintf("customers=%d/cache=%t", customers, !noCache), func(b *testing.B) {
				w := balancetest.New(b, func(o *balancetest.Options) { o.NoCache = noCache })
				ids := make([]credit.CustomerID, customers)
				sem := make(chan struct{}, 32)
				var wg sync.WaitGroup
				for i := range ids {
					sem <- struct{}{}
					wg.Go(func() {
						c, wallet := w.Customer(b)
						w.Grant(b, c, wallet, credit.MaxAmount)
						ids[i] = c
						<-sem
					})
				}
				wg.Wait()
				const callers = 64
				var next atomic.Int64
				lat := make([][]time.Duration, callers)
				b.ResetTimer()
				for k := range callers {
					wg.Go(func() {
						for {
							n := next.Add(1)
							if n > int64(b.N) {
								return
							}
							op := &balance.Consume{Header: balance.Header{Customer: ids[n*7919%int64(customers)], Key: balance.ClientKey(fmt.Sprint(n))}, Unit: "CRD", Amount: 1}
							began := time.Now()
							if _, err := w.Service.Do(context.Background(), op); err != nil {
								b.Error(err)
								return
							}
							lat[k] = append(lat[k], time.Since(began))
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				all := slices.Concat(lat...)
				slices.Sort(all)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "consumes/s")
				b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
			})
		}
	}
}
