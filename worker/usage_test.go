package worker

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// Two workers count what is consumed while they run, each operation once, whether Redis tells them of it or not.
func TestUsageIsCounted(t *testing.T) {
	for name, options := range map[string]func(*balancetest.Options){
		"with Redis":    func(*balancetest.Options) {},
		"without Redis": func(o *balancetest.Options) { o.NoCache = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			world := balancetest.New(t, options)
			s := &site{World: world, t: t, cfg: Config{Service: world.Service, Store: world.Store, Log: balancetest.Log(), Temporal: client.Options{HostPort: "127.0.0.1:1"}}}
			s.run()
			s.run()
			var customers []credit.CustomerID
			for range 3 {
				id, wallet := s.Customer(t)
				s.Grant(t, id, wallet, 1000*one)
				customers = append(customers, id)
			}
			var all sync.WaitGroup
			for _, id := range customers {
				all.Go(func() {
					for range 50 {
						s.Do(t, s.Consume(id, one))
						time.Sleep(10 * time.Millisecond) // so that many passes find something
					}
				})
			}
			all.Wait()
			s.until("everything is counted", func() bool { return s.count("SELECT coalesce(sum(consumed), 0) FROM usage_slices") >= 150*int(one) })
			s.until("every mark is at its head", func() bool {
				return s.count("SELECT count(*) FROM customer_heads AS h JOIN usage_marks AS m USING (customer_id) WHERE h.ver = m.ver") == len(customers)
			})
			for _, i := range db.Invariants {
				if r, err := s.Store.Verify(context.Background(), i, 5); err != nil || r.Differ > 0 {
					t.Errorf("%s: %+v, %v", i.Name, r, err)
				}
			}
		})
	}
}

// Nobody has told that these customers have changed, and what they did is long ago: the look at all customers finds them.
func TestForgottenUsageIsCounted(t *testing.T) {
	t.Parallel()
	world := balancetest.New(t, func(o *balancetest.Options) { o.NoCache = true })
	s := &site{World: world, t: t, cfg: Config{Service: world.Service, Store: world.Store, Log: balancetest.Log(), Temporal: client.Options{HostPort: "127.0.0.1:1"}}}
	id, wallet := s.Customer(t)
	s.Grant(t, id, wallet, 10*one)
	s.Do(t, s.Consume(id, one))
	w, err := newWorker(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer w.client.Close()
	if recent, err := s.Store.RecentToCount(context.Background(), time.Now().Add(time.Hour), 10); err != nil || slices.Contains(recent, id) {
		t.Fatalf("%v, %v", recent, err)
	}
	if _, err := w.countAll(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := s.count("SELECT sum(consumed) FROM usage_slices WHERE customer_id = $1", [16]byte(id)); n != int(one) {
		t.Error(n)
	}
}

// BenchmarkUsageLag is how long it takes from the answer to a consumption until it is in a slice.
func BenchmarkUsageLag(b *testing.B) {
	world := balancetest.New(b)
	s := &site{World: world, t: b, cfg: Config{Service: world.Service, Store: world.Store, Log: balancetest.Log(), Temporal: client.Options{HostPort: "127.0.0.1:1"}}}
	stop := s.run()
	defer stop()
	id, wallet := s.Customer(b)
	s.Grant(b, id, wallet, credit.Amount(1<<50))
	n := 0
	var longest time.Duration
	for b.Loop() {
		s.Do(b, s.Consume(id, one))
		n++
		answered := time.Now()
		for s.count("SELECT coalesce(sum(consumed), 0) FROM usage_hours WHERE customer_id = $1", [16]byte(id)) < n*int(one) {
			time.Sleep(time.Millisecond)
		}
		longest = max(longest, time.Since(answered))
	}
	b.ReportMetric(float64(longest.Milliseconds()), "longest-ms")
}
