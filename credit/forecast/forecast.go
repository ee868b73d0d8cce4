// Package forecast estimates when credits will be gone. It knows hours of consumption and grants, and no clock.
//
// Unlike the rest of credit/ it counts in floating point: nothing is booked by it, and what it says is an estimate with a band. Amounts are in
// whatever the caller counts in, one unit throughout.
//
// The method. Consumption in an hour is a level times the hour's place in the week. The profile of the week is learned from up to [Weeks] weeks and
// shrunk: an hour of the week towards the product of its hour of the day and its day, those towards 1, so that one odd Tuesday is not a
// habit. The level is a mean of the hours before now, each over its profile, whose weights halve with age; the half-life is the one of four
// that would have foretold this history best. The band is made of the errors that the same method would have made at earlier instants of the history, refitted at
// each: the quantiles of actual over foretold, cumulated, by how far ahead. Nothing is drawn at random: the same history gives the same forecast.
package forecast

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Bounds of a forecast.
const (
	Weeks   = 8                   // of history that are looked at
	Horizon = 90 * 24 * time.Hour // how far ahead credits are followed
	Share   = 0.8                 // of outcomes that the band is to hold
	minFit  = 24                  // hours before an instant, for its error to count
	apart   = 12                  // hours between the instants whose errors are looked at
	epsilon = 0.05                // of an hour's level: keeps the logarithm of nothing finite
	unsure  = 0.6                 // logarithm of the band's reach without a history
)

const weekHours = 7 * 24

var halfLives = [...]float64{12, 36, 96, 240} // hours

// aheads are the hours ahead at which errors are looked at.
var aheads = [...]int{1, 2, 3, 6, 12, 24, 48, 72, 120, 168, 240, 336}

// History is consumption by the hour.
type History struct {
	From  time.Time // the beginning of the first hour
	Hours []float64 // complete hours one after another, newest last; below 0 counts as 0
}

// Grant is what a forecast must know of credits.
type Grant struct {
	Left        float64
	From, Until time.Time // it serves in [From, Until); a zero Until: for ever
}

// Projection says what becomes of grants.
type Projection struct {
	// Early, Expected and Late are when consumption first meets nothing left: in nine of ten cases not before Early, in nine of ten not after Late.
	// Zero: not within [Horizon]. All are zero when there is no consumption.
	Early, Expected, Late time.Time
	// Unused is what each grant has left at its Until, in the order of the grants, as far as Expected consumption goes; 0 for grants that do not end
	// within [Horizon].
	Unused []float64
	// Hourly is the mean consumption of an hour of the week to come.
	Hourly float64
	// Observed is how many instants of the history the band was made from; 0: none, and the band is a guess.
	Observed int
}

// Model is a fitted history.
type Model struct {
	end      int64 // Unix hour after the last of the history
	level    float64
	profile  [weekHours]float64
	low      [len(aheads)]float64 // factors of cumulated consumption, by how far ahead
	high     [len(aheads)]float64
	observed int
}

// Fit learns from a history; one longer than [Weeks] counts from its newest end. It takes a few milliseconds.
func Fit(h History) *Model {
	x := h.Hours
	first := h.From.Unix() / 3600
	if n := Weeks * weekHours; len(x) > n {
		first += int64(len(x) - n)
		x = x[len(x)-n:]
	}
	used := slices.Clone(x)
	for i := range used {
		used[i] = max(0, used[i])
	}
	for len(used) > 0 && used[0] == 0 { // before there was anything to consume
		used = used[1:]
		first++
	}
	m := &Model{end: first + int64(len(used))}
	places := make([]int, len(used))
	for i := range places {
		places[i] = place(first + int64(i))
	}
	errors, best := backtest(places, used)
	m.profile = profileOf(places, used)
	m.level = levelOf(places, used, &m.profile, halfLives[best])
	m.observed = len(errors[0])
	m.band(errors, len(used))
	return m
}

// place is an hour's place in the week.
func place(hour int64) int { return int((hour + 3*24) % weekHours) } // 1970 began on a Thursday: 0 is Monday

// profileOf learns the week from hours at their places. Its mean is 1.
func profileOf(places []int, x []float64) (p [weekHours]float64) {
	var sum, n [weekHours]float64
	var daySum, dayN [7]float64
	var hourSum, hourN [24]float64
	var total float64
	for i, v := range x {
		k := places[i]
		sum[k], n[k] = sum[k]+v, n[k]+1
		daySum[k/24], dayN[k/24] = daySum[k/24]+v, dayN[k/24]+1
		hourSum[k%24], hourN[k%24] = hourSum[k%24]+v, hourN[k%24]+1
		total += v
	}
	mean := total / float64(max(1, len(x)))
	if mean == 0 {
		for k := range p {
			p[k] = 1
		}
		return p
	}
	// How many observations of the mean each is worth before it has any of its own.
	const dayPrior, hourPrior, placePrior = 24, 3, 2
	var all float64
	for k := range p {
		day := (daySum[k/24]/mean + dayPrior) / (dayN[k/24] + dayPrior)
		hour := (hourSum[k%24]/mean + hourPrior) / (hourN[k%24] + hourPrior)
		p[k] = max(0.01, (sum[k]/mean+placePrior*day*hour)/(n[k]+placePrior))
		all += p[k]
	}
	for k := range p {
		p[k] *= weekHours / all
	}
	return p
}

// levelOf is the mean of the hours over their profile, weights halving every so many hours.
func levelOf(places []int, x []float64, p *[weekHours]float64, halfLife float64) float64 {
	fade := math.Exp2(-1 / halfLife)
	var sum, n float64
	for i, v := range x {
		sum, n = sum*fade+v, n*fade+p[places[i]]
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// backtest foretells from earlier instants what came after them. It returns the logarithms of actual over foretold by how far ahead, of the best
// half-life, and which that is.
func backtest(places []int, x []float64) (best [len(aheads)][]float64, index int) {
	var all [len(halfLives)][len(aheads)][]float64
	var loss [len(halfLives)]float64
	for at := len(x) - apart; at >= minFit; at -= apart {
		past := x[:at]
		p := profileOf(places, past)
		for b, halfLife := range halfLives {
			level := levelOf(places, past, &p, halfLife)
			if level == 0 {
				continue
			}
			var told, came float64
			next := 0
			for i := at; i < len(x) && next < len(aheads); i++ {
				told += level * p[places[i]]
				came += x[i]
				if i-at+1 == aheads[next] {
					e := math.Log((came + epsilon*level) / (told + epsilon*level))
					all[b][next] = append(all[b][next], e)
					if aheads[next] >= 12 {
						loss[b] += math.Abs(e) / math.Sqrt(float64(aheads[next]))
					}
					next++
				}
			}
		}
	}
	index = 1
	for b := range loss {
		if loss[b] < loss[index] {
			index = b
		}
	}
	return all[index], index
}

// band turns errors into factors. Errors of overlapping futures are alike: a few independent ones say less of the extremes, so the band reaches further.
func (m *Model) band(errors [len(aheads)][]float64, hours int) {
	low, high := -unsure, unsure
	for i, ahead := range aheads {
		independent := float64(hours-minFit) / float64(max(ahead, apart))
		if e := errors[i]; len(e) >= 5 && independent >= 2 {
			slices.Sort(e)
			reach := 1 + 1/independent
			middle := quantile(e, 0.5)
			low = middle - (middle-quantile(e, (1-Share)/2))*reach
			high = middle + (quantile(e, (1+Share)/2)-middle)*reach
			low, high = min(low, -0.02), max(high, 0.02) // the expected path lies within
		}
		m.low[i], m.high[i] = math.Exp(low), math.Exp(high)
	}
}

// quantile interpolates in sorted values.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := min(int(at), len(sorted)-2)
	return sorted[i] + (sorted[i+1]-sorted[i])*(at-float64(i))
}

// factor is a band's factor so many hours ahead, between those that it was made for.
func factor(of *[len(aheads)]float64, ahead float64) float64 {
	i, exact := slices.BinarySearchFunc(aheads[:], ahead, func(a int, x float64) int { return cmp.Compare(float64(a), x) })
	switch {
	case exact:
		return of[i]
	case i == 0:
		return of[0]
	case i == len(aheads):
		return of[i-1]
	}
	share := (ahead - float64(aheads[i-1])) / float64(aheads[i]-aheads[i-1])
	return of[i-1] + (of[i]-of[i-1])*share
}

// Rate is the expected consumption of the hour that an instant is in.
func (m *Model) Rate(at time.Time) float64 { return m.level * m.profile[place(at.Unix()/3600)] }

// path is how consumption goes on from an instant.
type path int8

const (
	expected path = iota
	most          // so much or less in nine of ten cases
	least
)

// Project follows grants, in the order in which they are drawn, from an instant on.
func (m *Model) Project(now time.Time, grants []Grant) Projection {
	p := Projection{Unused: make([]float64, len(grants)), Observed: m.observed}
	for k := range m.profile {
		p.Hourly += m.level * m.profile[k] / weekHours
	}
	if m.level == 0 {
		for i, g := range grants {
			if !g.Until.IsZero() && g.Until.After(now) && g.Until.Sub(now) <= Horizon {
				p.Unused[i] = g.Left
			}
		}
		return p
	}
	p.Expected = m.follow(now, grants, expected, p.Unused)
	p.Early, p.Late = m.follow(now, grants, most, nil), m.follow(now, grants, least, nil)
	return p
}

// follow returns when a path first finds nothing left; zero: not within the horizon. It writes what is left of grants at their ends.
func (m *Model) follow(now time.Time, grants []Grant, way path, unused []float64) (gone time.Time) {
	left := make([]float64, len(grants))
	for i, g := range grants {
		left[i] = g.Left
	}
	end := now.Add(Horizon)
	var told, taken float64 // cumulated: expected, and on this path
	for at := now; at.Before(end); {
		next := at.Truncate(time.Hour).Add(time.Hour)
		for _, g := range grants { // an hour ends where what serves changes
			for _, edge := range [...]time.Time{g.From, g.Until} {
				if edge.After(at) && edge.Before(next) {
					next = edge
				}
			}
		}
		told += m.Rate(at) * next.Sub(at).Hours()
		sum := told
		switch ahead := next.Sub(now).Hours(); way {
		case most:
			sum *= factor(&m.high, ahead)
		case least:
			sum *= factor(&m.low, ahead)
		}
		need := max(0, sum-taken)
		taken = max(sum, taken)
		rest := need
		for i, g := range grants {
			if rest == 0 {
				break
			}
			if at.Before(g.From) || !g.Until.IsZero() && !at.Before(g.Until) {
				continue
			}
			n := min(rest, left[i])
			left[i] -= n
			rest -= n
		}
		if rest > need*1e-12 && gone.IsZero() {
			gone = at.Add(time.Duration(float64(next.Sub(at)) * (need - rest) / need))
			if unused == nil {
				return gone
			}
		}
		for i, g := range grants {
			if unused != nil && g.Until.Equal(next) {
				unused[i] = left[i]
			}
		}
		at = next
	}
	return gone
}
