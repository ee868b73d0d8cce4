package replay

import (
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"time"
)

// Synthetic invents a trace of so many events: one day, busiest in its afternoon, with token counts spread as widely as those of chat
// services are (log-normal). It measures nothing and looks like no service in particular. The same seed gives the same trace.
func Synthetic(seed uint64, events int) *Trace {
	return &Trace{
		Name: fmt.Sprintf("synthetic traffic, seed %d", seed), Identity: fmt.Sprintf("synthetic:1:%d:%d", seed, events), Events: events,
		First: syntheticDay, Last: syntheticDay.Add(24 * time.Hour),
		read: func() iter.Seq2[Event, error] { return invent(seed, events) },
	}
}

var syntheticDay = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

func invent(seed uint64, events int) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		random := rand.New(rand.NewPCG(seed, 0))
		spread := func(median, sigma float64, most int64) int64 {
			return min(max(1, int64(median*math.Exp(sigma*random.NormFloat64()))), most)
		}
		for i := range events {
			share := (float64(i) + random.Float64()) / float64(events)
			e := Event{
				Line: i + 1, At: syntheticDay.Add(time.Duration(hourOf(share) * float64(time.Hour))).Truncate(time.Microsecond),
				Input: spread(700, 1.2, 128_000), Output: spread(150, 1, 16_000),
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// busyHour is when most requests come, and swing how far the traffic lies above and below its mean then and twelve hours from then.
const (
	busyHour = 15
	swing    = 0.7
)

// hourOf returns the hour of the day by which a share of the day's requests, 0 to 1, has come.
func hourOf(share float64) float64 {
	before := func(hour float64) float64 { // share of the requests that come before the hour: the integral of 1 + swing*cos
		turn := 2 * math.Pi / 24
		return (hour + swing/turn*(math.Sin(turn*(hour-busyHour))-math.Sin(turn*-busyHour))) / 24
	}
	low, high := 0.0, 24.0
	for range 40 {
		if middle := (low + high) / 2; before(middle) < share {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}
