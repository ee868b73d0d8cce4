package rating

import (
	"math/bits"
	"slices"

	"github.com/tallystick/tallystick/credit"
)

// meterIndex finds the rate of a usage of one meter without looking at the others. Once compiled it is not changed.
//
// Rates that name the same dimensions, and all a time or none, are of one shape. Within a shape, a rate is found under a key made of the values of some of
// the dimensions: of all, unless rates list so many values that writing out each combination would take too much room.
type meterIndex struct {
	rates  []compiledRate
	names  []string           // of the dimensions that rates name, in order of number
	values []map[string]int32 // by dimension: the values that rates list, numbered from 1
	shapes []shape            // most specific first
	heads  map[uint64]int32   // key -> first of its chain
	chains []link
	timed  bool // some rates are for some times only
}

// compiledRate is a rate in the numbers of its index.
type compiledRate struct {
	Rate
	mask  uint64 // the dimensions named
	needs []need // in order of dimension
	when  *week  // nil: at any time
	unitPrice

	// What follows is there once the document has no fault.
	plain    bool // Quantity * Price / Per credits, and nothing else to look at
	counts   bool // it has a counter
	kind     Kind // of the counter
	uniqueBy string
	curve    curve
	minimum  number
	maximum  *number // nil: none
}

// specificity is how much a rate asks for: how many dimensions, a time being one.
func (r *compiledRate) specificity() int {
	if r.when != nil {
		return len(r.needs) + 1
	}
	return len(r.needs)
}

// finish compiles what the rate asks for.
func (r *compiledRate) finish(m Meter) {
	r.curve = newCurve(&r.Rate)
	r.kind, r.uniqueBy = Kind(m.Aggregation), m.UniqueBy
	r.counts = r.Over != Event
	r.minimum = numberOf(r.Minimum)
	if r.Maximum != nil {
		n := numberOf(*r.Maximum)
		r.maximum = &n
	}
	r.plain = r.Model == PerUnit && !r.counts && m.Aggregation == Sum && r.Free.IsZero() && r.Currency == "" && r.Minimum.IsZero() && r.Maximum == nil
}

// need is what a rate asks of one dimension.
type need struct {
	dim    int
	values []int32 // ascending
}

// shape is the rates that name the same dimensions, and all a time or none.
type shape struct {
	mask  uint64
	timed bool   // they are also for some times only
	key   []int  // the dimensions whose values make the key
	seed  uint64 // of the keys, different from other shapes'
}

func (s *shape) specificity() int {
	if s.timed {
		return bits.OnesCount64(s.mask) + 1
	}
	return bits.OnesCount64(s.mask)
}

type link struct{ rate, next int32 } // next < 0: the last

// position is the values of a usage in the numbers of an index: 0 where it has none that a rate lists.
type position [maxMeterDimension]int32

// add takes a rate in. It is false when there are too many dimensions.
func (m *meterIndex) add(r Rate, when *week) bool {
	c := compiledRate{Rate: r, when: when, unitPrice: newUnitPrice(r.Price, r.Per)}
	m.timed = m.timed || when != nil
	for name, values := range r.Match {
		d := slices.Index(m.names, name)
		if d < 0 {
			if d = len(m.names); d == maxMeterDimension {
				return false
			}
			m.names = append(m.names, name)
			m.values = append(m.values, map[string]int32{})
		}
		n := need{dim: d, values: make([]int32, 0, len(values))}
		for _, v := range values {
			id, ok := m.values[d][v]
			if !ok {
				id = int32(len(m.values[d]) + 1)
				m.values[d][v] = id
			}
			n.values = append(n.values, id)
		}
		slices.Sort(n.values)
		c.mask |= 1 << d
		c.needs = append(c.needs, n)
	}
	slices.SortFunc(c.needs, func(a, b need) int { return a.dim - b.dim })
	m.rates = append(m.rates, c)
	return true
}

// compile prepares find. No rate may be added afterwards.
func (m *meterIndex) compile() {
	type form struct {
		mask  uint64
		timed bool
	}
	byForm := map[form][]int32{}
	for i := range m.rates {
		f := form{m.rates[i].mask, m.rates[i].when != nil}
		if byForm[f] == nil {
			m.shapes = append(m.shapes, shape{mask: f.mask, timed: f.timed, seed: uint64(len(m.shapes) + 1)})
		}
		byForm[f] = append(byForm[f], int32(i))
	}
	slices.SortStableFunc(m.shapes, func(a, b shape) int { return b.specificity() - a.specificity() })
	m.heads = make(map[uint64]int32, len(m.rates))
	for i := range m.shapes {
		s := &m.shapes[i]
		rates := byForm[form{s.mask, s.timed}]
		s.key = m.chooseKey(rates)
		for _, r := range rates {
			m.put(s.seed, s.key, r)
		}
	}
}

// chooseKey picks the dimensions that tell the rates of a shape apart best, while there is room for each combination of their values.
// The room of all shapes together is at most 16 * maxRates + maxMatchValues.
func (m *meterIndex) chooseKey(rates []int32) []int {
	needs := len(m.rates[rates[0]].needs)
	distinct := make([]map[int32]bool, needs)
	order := make([]int, needs)
	for n := range needs {
		order[n] = n
		distinct[n] = map[int32]bool{}
		for _, r := range rates {
			for _, v := range m.rates[r].needs[n].values {
				distinct[n][v] = true
			}
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(distinct[b]) - len(distinct[a]) })
	room := 16 * len(rates)
	for _, r := range rates {
		for _, n := range m.rates[r].needs {
			room += len(n.values) // so that each dimension alone has room
		}
	}
	entries := make([]int, len(rates))
	for i := range entries {
		entries[i] = 1
	}
	var key []int
	for _, n := range order {
		total := 0
		for i, r := range rates {
			if total += entries[i] * len(m.rates[r].needs[n].values); total > room {
				break
			}
		}
		if total > room {
			continue
		}
		for i, r := range rates {
			entries[i] *= len(m.rates[r].needs[n].values)
		}
		key = append(key, m.rates[rates[0]].needs[n].dim)
	}
	return key
}

// put files a rate under each combination of its values of the key's dimensions.
func (m *meterIndex) put(key uint64, dims []int, rate int32) {
	if len(dims) == 0 {
		head, ok := m.heads[key]
		if !ok {
			head = -1
		}
		m.chains = append(m.chains, link{rate: rate, next: head})
		m.heads[key] = int32(len(m.chains) - 1)
		return
	}
	for _, n := range m.rates[rate].needs {
		if n.dim == dims[0] {
			for _, v := range n.values {
				m.put(mix(key, v), dims[1:], rate)
			}
		}
	}
}

// mix adds a value to a key. Keys may collide: find looks at the rate itself too.
func mix(key uint64, value int32) uint64 {
	key = (key ^ uint64(value)) * 0x9e3779b97f4a7c15
	return key ^ key>>32
}

// place returns where a usage stands, and which dimensions are not 0 there. The line's own dimensions go before those common to its event.
func (m *meterIndex) place(own, common credit.Dimensions) (at position, have uint64) {
	for d, name := range m.names {
		v, ok := own[name]
		if !ok {
			if v, ok = common[name]; !ok {
				continue
			}
		}
		if id := m.values[d][v]; id != 0 {
			at[d] = id
			have |= 1 << d
		}
	}
	return at, have
}

// find returns the most specific rate for a usage at its place and minute of the week; nil when no rate is for it.
func (m *meterIndex) find(at *position, have uint64, minute int) *compiledRate {
	for i := range m.shapes {
		s := &m.shapes[i]
		if s.mask&^have != 0 {
			continue
		}
		key := s.seed
		for _, d := range s.key {
			key = mix(key, at[d])
		}
		head, ok := m.heads[key]
		if !ok {
			continue
		}
		for ; head >= 0; head = m.chains[head].next {
			if r := &m.rates[m.chains[head].rate]; r.mask == s.mask && (r.when != nil) == s.timed && r.matches(at) && (!s.timed || r.when.has(minute)) {
				return r
			}
		}
	}
	return nil
}

func (r *compiledRate) matches(at *position) bool {
	for i := range r.needs {
		if !r.needs[i].met(at) {
			return false
		}
	}
	return true
}

func (n *need) met(at *position) bool {
	if len(n.values) == 1 {
		return n.values[0] == at[n.dim]
	}
	_, ok := slices.BinarySearch(n.values, at[n.dim])
	return ok
}

// ambiguities calls report for every rate that could be for the same usage as an earlier one of the same specificity, with the first
// such. Two rates exclude each other only if they list different values of a dimension that both name, or have windows without a common minute.
//
// It keeps a set of rates for each dimension and each value, so that all earlier rates are compared with one at a time, 64 by 64.
func (m *meterIndex) ambiguities(report func(earlier, later int)) {
	bySpecificity := map[int][]int{}
	for i := range m.rates {
		n := m.rates[i].specificity()
		bySpecificity[n] = append(bySpecificity[n], i)
	}
	for n := range maxMeterDimension + 2 {
		if group := bySpecificity[n]; len(group) > 1 {
			m.ambiguitiesAmong(group, report)
		}
	}
}

func (m *meterIndex) ambiguitiesAmong(group []int, report func(earlier, later int)) {
	words := (len(group) + 63) / 64
	var (
		earlier = make(bitset, words)
		left    = make(bitset, words)                     // earlier rates that nothing has excluded yet
		allowed = make(bitset, words)                     // by one dimension
		naming  = make([]bitset, len(m.names))            // by dimension: the earlier rates that name it; nil: none does
		listing = make([]map[int32]*sparse, len(m.names)) // by dimension and value: the earlier rates that list it
		timed   timetables
	)
	for k, i := range group {
		copy(left, earlier)
		for _, n := range m.rates[i].needs {
			if naming[n.dim] == nil {
				continue
			}
			for w, named := range naming[n.dim] {
				allowed[w] = ^named
			}
			for _, v := range n.values {
				if s := listing[n.dim][v]; s != nil {
					s.addTo(allowed)
				}
			}
			for w := range left {
				left[w] &= allowed[w]
			}
		}
		when := m.rates[i].when
		if when != nil {
			timed.exclude(left, when)
		}
		if j := left.first(); j >= 0 {
			report(group[j], i)
		}
		earlier.set(k)
		if when != nil {
			timed.add(when, k, words)
		}
		for _, n := range m.rates[i].needs {
			if naming[n.dim] == nil {
				naming[n.dim] = make(bitset, words)
				listing[n.dim] = map[int32]*sparse{}
			}
			naming[n.dim].set(k)
			for _, v := range n.values {
				s := listing[n.dim][v]
				if s == nil {
					s = &sparse{}
					listing[n.dim][v] = s
				}
				s.set(k, words)
			}
		}
	}
}

// timetables is the rates by the minutes of the week that they are for. There are few different ones: maxTimetables in a document.
type timetables []timetable

type timetable struct {
	when  *week
	rates bitset
	apart map[*week]bool // others that have been compared: whether no minute is common
}

func (t *timetables) add(when *week, rate, words int) {
	i := slices.IndexFunc(*t, func(u timetable) bool { return u.when == when })
	if i < 0 {
		i = len(*t)
		*t = append(*t, timetable{when: when, rates: make(bitset, words), apart: map[*week]bool{}})
	}
	(*t)[i].rates.set(rate)
}

// exclude takes the rates out of left that have no minute in common with when.
func (t timetables) exclude(left bitset, when *week) {
	for i := range t {
		u := &t[i]
		apart, known := u.apart[when]
		if !known {
			apart = u.when.common(when) < 0
			u.apart[when] = apart
		}
		if !apart {
			continue
		}
		for w, word := range u.rates {
			left[w] &^= word
		}
	}
}

type bitset []uint64

func (b bitset) set(i int) { b[i/64] |= 1 << (i % 64) }

// first returns the lowest element; -1 when there is none.
func (b bitset) first() int {
	for w, word := range b {
		if word != 0 {
			return w*64 + bits.TrailingZeros64(word)
		}
	}
	return -1
}

// sparse is a set that is a list as long as that is the shorter way.
type sparse struct {
	list []int32
	bits bitset
}

func (s *sparse) set(i, words int) {
	if s.bits == nil && len(s.list) < words {
		s.list = append(s.list, int32(i))
		return
	}
	if s.bits == nil {
		s.bits = make(bitset, words)
		s.addListTo(s.bits)
		s.list = nil
	}
	s.bits.set(i)
}

func (s *sparse) addTo(b bitset) {
	for w, word := range s.bits {
		b[w] |= word
	}
	s.addListTo(b)
}

func (s *sparse) addListTo(b bitset) {
	for _, i := range s.list {
		b.set(int(i))
	}
}
