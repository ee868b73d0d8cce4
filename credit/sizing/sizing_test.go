package sizing_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit/sizing"
)

var at = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func TestBuckets(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, math.MaxInt64).Draw(t, "n") >> rapid.IntRange(0, 62).Draw(t, "shift")
		if n == 0 {
			n = 1
		}
		b := sizing.Bucket(n)
		if sizing.Bound(b) < n || b > 0 && sizing.Bound(b-1) >= n {
			t.Fatalf("%d is in bucket %d, of up to %d", n, b, sizing.Bound(b))
		}
	})
}

// A quantile is no less than that of the sizes themselves and at most a fifth more; the order in which they come does not matter, nor whether they come
// to one histogram or to two.
func TestQuantile(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.Int64Range(1, 1_000_000), 1, 200).Draw(t, "sizes")
		q := rapid.Float64Range(0.05, 0.99).Draw(t, "q")
		var whole, a, b sizing.Histogram
		for i, n := range sizes {
			whole.Add(at, n)
			if i%3 == 0 {
				a.Add(at, n)
			} else {
				b.Add(at, n)
			}
		}
		a.Merge(&b)
		slices.Sort(sizes)
		exact := float64(sizes[int(math.Ceil(q*float64(len(sizes))-1e-9))-1])
		got := whole.Quantile(q)
		if float64(got) < exact || float64(got) > exact*1.19+1 {
			t.Fatalf("the quantile %v is %v, said is %d", q, exact, got)
		}
		if merged := a.Quantile(q); merged != got || math.Abs(a.Samples(at)-float64(len(sizes))) > 1e-6 {
			t.Fatalf("in two %d, in one %d", merged, got)
		}
	})
}

func TestDecay(t *testing.T) {
	t.Parallel()
	var h sizing.Histogram
	for range 100 {
		h.Add(at, 1000)
	}
	for range 30 {
		h.Add(at.Add(2*sizing.HalfLife), 10)
	}
	h.Add(at.Add(sizing.HalfLife), 10) // late: counts half
	if got := h.Samples(at.Add(2 * sizing.HalfLife)); math.Abs(got-55.5) > 1e-9 {
		t.Errorf("%v samples", got)
	}
	if got := h.Samples(at.Add(3 * sizing.HalfLife)); math.Abs(got-27.75) > 1e-9 {
		t.Errorf("%v samples a week later", got)
	}
	if got := h.Quantile(0.5); got < 10 || got > 12 {
		t.Errorf("the median is %d", got)
	}
	h.Add(at.Add(30*sizing.HalfLife), 0)
	h.Add(at.Add(30*sizing.HalfLife), 7)
	if len(h.Buckets) != 1 || h.Quantile(0.95) < 7 || h.Quantile(0.95) > 8 {
		t.Errorf("what is long ago stays: %+v", h)
	}
	var none sizing.Histogram
	if none.Quantile(0.5) != 0 || none.Samples(at) != 0 || sizing.Enough(19.9, 0.95) || !sizing.Enough(20.1, 0.95) {
		t.Error("of nothing")
	}
}
