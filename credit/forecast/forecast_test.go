package forecast_test

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit/forecast"
)

var now = time.Date(2026, 3, 4, 10, 20, 0, 0, time.UTC)

func in(hours float64) time.Time { return now.Add(time.Duration(hours * float64(time.Hour))) }

// steady consumes 10 in every hour until the one that now is in.
func steady(weeks int) forecast.History {
	h := forecast.History{From: now.Truncate(time.Hour).Add(-time.Duration(weeks) * 168 * time.Hour), Hours: make([]float64, weeks*168)}
	for i := range h.Hours {
		h.Hours[i] = 10
	}
	return h
}

func TestProject(t *testing.T) {
	t.Parallel()
	m := forecast.Fit(steady(4))
	type grants = []forecast.Grant
	for what, x := range map[string]struct {
		grants grants
		gone   float64 // hours from now; 0: not within the horizon
		unused []float64
	}{
		"one":                             {grants{{Left: 100}}, 10, []float64{0}},
		"two":                             {grants{{Left: 100}, {Left: 5}}, 10.5, []float64{0, 0}},
		"nothing left":                    {grants{}, 1e-9, []float64{}},
		"the first ends early":            {grants{{Left: 100, Until: in(5)}, {Left: 240}}, 29, []float64{50, 0}},
		"the second ends before its turn": {grants{{Left: 100}, {Left: 30, Until: in(4)}}, 10, []float64{0, 30}},
		"one comes in time":               {grants{{Left: 100}, {Left: 70, From: in(9.5)}}, 17, []float64{0, 0}},
		"one comes too late":              {grants{{Left: 100}, {Left: 70, From: in(11)}}, 10, []float64{0, 0}},
		"one comes again and again":       {grants{{Left: 50, Until: in(4)}, {Left: 50, From: in(4), Until: in(8)}, {Left: 50, From: in(8), Until: in(14)}}, 13, []float64{10, 10, 0}},
		"ends after it is gone":           {grants{{Left: 20}, {Left: 10, From: in(5), Until: in(6.5)}}, 2, []float64{0, 0}},
		"more than the horizon":           {grants{{Left: 30000, Until: in(24 * 80)}, {Left: 1e9}}, 0, []float64{30000 - 19200, 0}},
	} {
		p := m.Project(now, x.grants)
		got := p.Expected.Sub(now).Hours()
		if x.gone == 0 && !p.Expected.IsZero() || x.gone > 0 && (got < x.gone-1e-6 || got > x.gone+1e-6) {
			t.Errorf("%s: gone after %v hours, want %v", what, got, x.gone)
		}
		for i, want := range x.unused {
			if d := p.Unused[i] - want; d > 1e-6 || d < -1e-6 {
				t.Errorf("%s: unused %v, want %v", what, p.Unused, x.unused)
			}
		}
		if p.Hourly < 9.999999 || p.Hourly > 10.000001 {
			t.Errorf("%s: %v an hour", what, p.Hourly)
		}
	}
}

func TestNothingIsKnown(t *testing.T) {
	t.Parallel()
	for what, h := range map[string]forecast.History{"no history": {}, "no consumption": {From: now.Truncate(time.Hour).Add(-100 * time.Hour), Hours: make([]float64, 100)}} {
		p := forecast.Fit(h).Project(now, []forecast.Grant{{Left: 5, Until: in(30)}, {Left: 7}})
		if !p.Expected.IsZero() || !p.Early.IsZero() || !p.Late.IsZero() || p.Hourly != 0 || p.Unused[0] != 5 || p.Unused[1] != 0 || p.Observed != 0 {
			t.Errorf("%s: %+v", what, p)
		}
	}
	p := forecast.Fit(forecast.History{From: now.Truncate(time.Hour).Add(-2 * time.Hour), Hours: []float64{4, 6}}).Project(now, []forecast.Grant{{Left: 50}})
	if p.Expected.IsZero() || p.Observed != 0 || p.Expected.Sub(p.Early) < time.Hour || p.Late.Sub(p.Expected) < time.Hour {
		t.Errorf("two hours of history: %+v", p)
	}
}

// The weekend is quiet: what is left on a Friday night lasts until Monday.
func TestTheWeekHasAShape(t *testing.T) {
	t.Parallel()
	monday := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	h := forecast.History{From: monday, Hours: make([]float64, 8*168-48)} // until Friday's end
	for i := range h.Hours {
		if i%168 < 120 {
			h.Hours[i] = 10
		}
	}
	friday := monday.Add(time.Duration(len(h.Hours)) * time.Hour)
	p := forecast.Fit(h).Project(friday, []forecast.Grant{{Left: 180}})
	if p.Expected.Before(friday.Add(49*time.Hour)) || p.Expected.After(friday.Add(66*time.Hour)) {
		t.Errorf("gone after %v", p.Expected.Sub(friday))
	}
}

// Early, expected and late come in this order; more credits are gone no sooner; nothing is left that was not there; the same gives the same.
func TestProjectionsAreInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := forecast.History{From: now.Truncate(time.Hour), Hours: rapid.SliceOfN(rapid.Float64Range(-1, 1e6), 0, 900).Draw(t, "hours")}
		h.From = h.From.Add(-time.Duration(len(h.Hours)) * time.Hour)
		var grants []forecast.Grant
		for range rapid.IntRange(0, 4).Draw(t, "grants") {
			g := forecast.Grant{Left: rapid.Float64Range(0, 1e8).Draw(t, "left"), From: in(rapid.Float64Range(-100, 300).Draw(t, "from"))}
			if rapid.Bool().Draw(t, "ends") {
				g.Until = g.From.Add(time.Duration(rapid.IntRange(1, 1000).Draw(t, "hours")) * time.Hour)
			}
			grants = append(grants, g)
		}
		p := forecast.Fit(h).Project(now, grants)
		before := func(a, b time.Time) bool {
			return !a.IsZero() && (b.IsZero() || !b.Before(a)) || a.IsZero() && b.IsZero()
		}
		if !before(p.Early, p.Expected) || !before(p.Expected, p.Late) {
			t.Fatalf("%+v", p)
		}
		for i, g := range grants {
			if p.Unused[i] < 0 || p.Unused[i] > g.Left {
				t.Fatalf("grant %+v has %v unused", g, p.Unused[i])
			}
		}
		if again := forecast.Fit(h).Project(now, grants); !reflect.DeepEqual(p, again) {
			t.Fatalf("%+v and then %+v", p, again)
		}
		if len(grants) > 0 {
			more := append([]forecast.Grant{}, grants...)
			more[0].Left *= 2
			if q := forecast.Fit(h).Project(now, more); !before(p.Expected, q.Expected) {
				t.Fatalf("%v, and with more %v", p.Expected, q.Expected)
			}
		}
	})
}

func BenchmarkForecast(b *testing.B) {
	x := generate(rand.New(rand.NewPCG(1, 7)), made(), habits["office"], forecast.Weeks*168)
	h := forecast.History{From: now.Truncate(time.Hour).Add(-time.Duration(len(x)) * time.Hour), Hours: x}
	grants := []forecast.Grant{{Left: 1e7, Until: in(500)}, {Left: 1e12}}
	for b.Loop() {
		forecast.Fit(h).Project(now, grants)
	}
}
