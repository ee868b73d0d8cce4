package worker

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// A running worker numbers what is posted, soon and by itself; what waits shows in its metrics.
func TestWorkerNumbersEntries(t *testing.T) {
	s := newSite(t)
	c, wallet := s.Customer(t)
	g := s.grant(c, wallet, 60*day, purchased)
	if _, err := s.Store.RecogniseCustomer(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.w.measureSealer(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n, age := value(t, s.w.metrics.unnumbered), value(t, s.w.metrics.unnumberedOldest); n != 1 || age <= 0 {
		t.Errorf("%v entries wait, the oldest for %v s", n, age)
	}
	s.run()
	s.until("the entry has a number", func() bool {
		return s.count(`SELECT count(*) FROM sealed_entries AS n JOIN journal_entries AS e ON e.id = n.entry_id
			WHERE e.grant_id = $1 AND n.seq = 1 AND n.leaf = e.leaf AND NOT n.hashed_late`, g[:]) == 1
	})
	if _, err := s.w.measureSealer(context.Background()); err != nil || value(t, s.w.metrics.unnumbered) != 0 {
		t.Errorf("%v entries wait: %v", value(t, s.w.metrics.unnumbered), err)
	}
}

func value(t *testing.T, g prometheus.Gauge) float64 {
	t.Helper()
	var m dto.Metric
	if err := g.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetGauge().GetValue()
}
