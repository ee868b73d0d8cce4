// Package sizing remembers how large recent usages were, in a few numbers, so that a hold need not be as large as the largest that could be. It knows
// no clock. What it says is an estimate and nothing is booked by it: it counts in floating point.
package sizing

import (
	"math"
	"slices"
	"time"
)

// Bounds of a histogram.
const (
	HalfLife  = 7 * 24 * time.Hour // in which a usage comes to count half
	perOctave = 4                  // buckets: a bucket's bound is 19 % above the one before
	faded     = 1e-3               // of one usage: what counts less is forgotten
)

// Histogram counts usages by size, recent ones more. The zero Histogram has seen none.
type Histogram struct {
	At      time.Time // that the weights are of: the newest usage's; zero: none was seen
	Buckets []int16   // in order; bucket b has sizes above Bound(b-1), up to Bound(b)
	Weights []float64 // of Buckets, above 0
}

// Bucket is where a size of 1 or more belongs.
func Bucket(n int64) int16 {
	b := int16(math.Ceil(perOctave * math.Log2(float64(n))))
	for Bound(b) < n { // the logarithm may be a little off
		b++
	}
	for b > 0 && Bound(b-1) >= n {
		b--
	}
	return b
}

// Bound is the largest size in a bucket, at most [math.MaxInt64].
func Bound(b int16) int64 {
	f := math.Floor(math.Exp2(float64(b) / perOctave))
	if f >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(f)
}

// Add counts a usage of size n at an instant; below 1 it counts nothing. The order of instants does not matter.
func (h *Histogram) Add(at time.Time, n int64) {
	if n < 1 {
		return
	}
	h.add(at, Bucket(n), 1)
}

func (h *Histogram) add(at time.Time, bucket int16, weight float64) {
	if at.After(h.At) {
		h.fade(at)
	}
	weight *= decay(h.At.Sub(at))
	i, found := slices.BinarySearch(h.Buckets, bucket)
	if !found {
		h.Buckets, h.Weights = slices.Insert(h.Buckets, i, bucket), slices.Insert(h.Weights, i, 0)
	}
	h.Weights[i] += weight
}

func decay(age time.Duration) float64 { return math.Exp2(-float64(age) / float64(HalfLife)) }

// fade brings the weights to a later instant.
func (h *Histogram) fade(at time.Time) {
	if !h.At.IsZero() {
		by, kept := decay(at.Sub(h.At)), 0
		for i, w := range h.Weights {
			if w *= by; w >= faded {
				h.Buckets[kept], h.Weights[kept] = h.Buckets[i], w
				kept++
			}
		}
		h.Buckets, h.Weights = h.Buckets[:kept], h.Weights[:kept]
	}
	h.At = at
}

// Merge adds what another histogram has seen.
func (h *Histogram) Merge(o *Histogram) {
	for i, b := range o.Buckets {
		h.add(o.At, b, o.Weights[i])
	}
}

// Samples is how many usages of this instant the histogram is worth.
func (h *Histogram) Samples(at time.Time) (sum float64) {
	for _, w := range h.Weights {
		sum += w
	}
	return sum * decay(max(0, at.Sub(h.At)))
}

// Quantile is a size that the share q of the usages does not exceed, at most a fifth too large; 0 when none was seen.
func (h *Histogram) Quantile(q float64) int64 {
	var all, sum float64
	for _, w := range h.Weights {
		all += w
	}
	for i, w := range h.Weights {
		if sum += w; sum >= q*all {
			return Bound(h.Buckets[i])
		}
	}
	if n := len(h.Buckets); n > 0 {
		return Bound(h.Buckets[n-1]) // rounding
	}
	return 0
}

// Enough tells whether so many samples say anything of a quantile: one of them at least should lie beyond it.
func Enough(samples, q float64) bool { return samples*(1-q) >= 1 }
