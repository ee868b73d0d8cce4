package rating

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/tallystick/tallystick/credit"
)

// Kind says what a [CounterKey] is the key of.
type Kind string

// The kinds of counters.
const (
	SumCounter    Kind = "sum"    // the quantities of a period
	CountCounter  Kind = "count"  // the lines of a period
	MaxCounter    Kind = "max"    // the largest quantity of a period
	UniqueCounter Kind = "unique" // how many values of a dimension a period has seen
	SeenValue     Kind = "seen"   // that a period has seen one of them
	Remainder     Kind = "rest"   // what rounding has left to carry
)

// CounterKey names a counter of a customer. It is comparable. Card is the one that prices: an extended card counts for itself.
type CounterKey struct {
	Card    credit.RateCardID
	Kind    Kind
	Meter   string
	Counter string // its name; "" of a remainder
	Period  Period // zero of a remainder
	Value   string // of a SeenValue; otherwise ""
	Version int    // of a Remainder; otherwise 0
}

// String writes the canonical form, which [ParseCounterKey] reads: "crd_… sum llm_tokens gpt4o month/2026-03-01", with the value at the end
// of a SeenValue, and "crd_… rest llm_tokens 3".
func (k CounterKey) String() string {
	b := k.Card.Append(make([]byte, 0, 96))
	for _, word := range []string{string(k.Kind), k.Meter} {
		b = append(append(b, ' '), word...)
	}
	if k.Kind == Remainder {
		return string(strconv.AppendInt(append(b, ' '), int64(k.Version), 10))
	}
	for _, word := range []string{k.Counter, k.Period.String()} {
		b = append(append(b, ' '), word...)
	}
	if k.Kind == SeenValue {
		b = append(append(b, ' '), k.Value...)
	}
	return string(b)
}

// ParseCounterKey reads what String writes. Anything else is a [credit.Error] coded invalid_request.
func ParseCounterKey(s string) (CounterKey, error) {
	refusal := credit.Errorf(credit.InvalidRequest, "%.100q is not the key of a counter.", s)
	words := strings.SplitN(s, " ", 6)
	if len(words) < 4 {
		return CounterKey{}, refusal
	}
	card, err := credit.ParseID[credit.RateCardID](words[0])
	k := CounterKey{Card: card, Kind: Kind(words[1]), Meter: words[2]}
	if err != nil || !isMeterCode(k.Meter) {
		return CounterKey{}, refusal
	}
	switch k.Kind {
	case Remainder:
		k.Version, err = strconv.Atoi(words[3])
		if err != nil || k.Version < 1 {
			return CounterKey{}, refusal
		}
	case SumCounter, CountCounter, MaxCounter, UniqueCounter, SeenValue:
		if len(words) < 5 || (k.Kind == SeenValue) != (len(words) == 6) {
			return CounterKey{}, refusal
		}
		var ok bool
		k.Counter = words[3]
		if k.Period, ok = parsePeriod(words[4]); !ok || !isRateID(k.Counter) {
			return CounterKey{}, refusal
		}
		if k.Kind == SeenValue {
			if k.Value = words[5]; k.Value == "" {
				return CounterKey{}, refusal
			}
		}
	default:
		return CounterKey{}, refusal
	}
	if k.String() != s {
		return CounterKey{}, refusal
	}
	return k, nil
}

// Compare orders keys: the order in which to lock them.
func (k CounterKey) Compare(l CounterKey) int {
	return cmp.Or(
		slices.Compare(k.Card[:], l.Card[:]), cmp.Compare(k.Kind, l.Kind), cmp.Compare(k.Meter, l.Meter), cmp.Compare(k.Counter, l.Counter),
		cmp.Compare(k.Period.Over, l.Period.Over), cmp.Compare(k.Period.Day, l.Period.Day), cmp.Compare(k.Period.Hour, l.Period.Hour),
		cmp.Compare(k.Period.Offset, l.Period.Offset), cmp.Compare(k.Value, l.Value), cmp.Compare(k.Version, l.Version),
	)
}

// Counter is what a customer's counter has counted, by version and rate; of a SeenValue, the version and rate that the value is charged
// by; of a Remainder, the credits that were used and not charged, below 0 when more was charged. The zero Counter has counted nothing. It is
// a value: none of its methods changes it.
type Counter struct {
	one  part   // the first; of no version when there is none
	more []part // the others, never changed
	rest *big.Rat
}

// part is what was counted of one rate of one version: parts are in order of version number, then rate, and none is of nothing.
type part struct {
	version  int
	rate     string
	quantity Quantity
}

func comparePart(p part, version int, rate string) int {
	return cmp.Or(cmp.Compare(p.version, version), cmp.Compare(p.rate, rate))
}

// IsZero tells whether nothing has been counted and nothing is carried.
func (c Counter) IsZero() bool { return c.one.version == 0 && c.rest == nil }

// Equal tells whether both have counted the same.
func (c Counter) Equal(d Counter) bool {
	return c.one == d.one && slices.Equal(c.more, d.more) && (c.rest == nil) == (d.rest == nil) && (c.rest == nil || c.rest.Cmp(d.rest) == 0)
}

func (c *Counter) len() int {
	if c.one.version == 0 {
		return 0
	}
	return 1 + len(c.more)
}

func (c *Counter) part(i int) *part {
	if i == 0 {
		return &c.one
	}
	return &c.more[i-1]
}

// at returns what was counted of a rate.
func (c *Counter) at(version int, rate string) Quantity {
	for i := range c.len() {
		if p := c.part(i); p.version == version && p.rate == rate {
			return p.quantity
		}
	}
	return Quantity{}
}

// with returns the counter with another quantity of a rate.
func (c Counter) with(version int, rate string, q Quantity) Counter {
	p := part{version, rate, q}
	n := c.len()
	if n == 0 || n == 1 && c.one.version == version && c.one.rate == rate {
		if q.IsZero() {
			return Counter{}
		}
		return Counter{one: p}
	}
	parts := make([]part, 0, n+1)
	for i := range n {
		parts = append(parts, *c.part(i))
	}
	i, found := slices.BinarySearchFunc(parts, p, func(a, b part) int { return comparePart(a, b.version, b.rate) })
	switch {
	case found && q.IsZero():
		parts = slices.Delete(parts, i, i+1)
	case found:
		parts[i] = p
	case !q.IsZero():
		parts = slices.Insert(parts, i, p)
	}
	return counterOf(parts)
}

func counterOf(parts []part) Counter {
	switch len(parts) {
	case 0:
		return Counter{}
	case 1:
		return Counter{one: parts[0]}
	}
	return Counter{one: parts[0], more: parts[1:]}
}

// maxCounterText bounds what ParseCounter reads, in bytes.
const maxCounterText = 4 << 20

// String writes the canonical form, which [ParseCounter] reads: "3,gpt4o=1200;4,gpt4o=7.5" is 1,200 by version 3 of the card and 7.5 by
// version 4; a remainder is a fraction of a credit such as "-1/3000000". The zero Counter is "".
func (c Counter) String() string {
	if c.rest != nil {
		return c.rest.RatString()
	}
	var b []byte
	for i := range c.len() {
		if i > 0 {
			b = append(b, ';')
		}
		p := c.part(i)
		b = strconv.AppendInt(b, int64(p.version), 10)
		b = append(append(b, ','), p.rate...)
		b = append(append(b, '='), p.quantity.String()...)
	}
	return string(b)
}

// ParseCounter reads what String writes. Anything else is an error that is no refusal: nobody but this package writes counters.
func ParseCounter(s string) (Counter, error) {
	fault := fmt.Errorf("rating: %.100q is not a counter", s)
	switch {
	case s == "":
		return Counter{}, nil
	case len(s) > maxCounterText:
		return Counter{}, fault
	case !strings.Contains(s, "="):
		num, den, fraction := strings.Cut(strings.TrimPrefix(s, "-"), "/")
		if !isDigits(num) || fraction && !isDigits(den) || len(s) > 1<<16 {
			return Counter{}, fault
		}
		r, ok := new(big.Rat).SetString(s)
		if !ok || r.Sign() == 0 || r.RatString() != s {
			return Counter{}, fault
		}
		return Counter{rest: r}, nil
	}
	var parts []part
	for text := range strings.SplitSeq(s, ";") {
		head, quantity, _ := strings.Cut(text, "=")
		version, rate, _ := strings.Cut(head, ",")
		p := part{rate: rate}
		var err error
		p.version, err = strconv.Atoi(version)
		q, ok := parseQuantity(quantity)
		if err != nil || p.version < 1 || strconv.Itoa(p.version) != version || !isRateID(rate) || !ok || q.IsZero() {
			return Counter{}, fault
		}
		p.quantity = q
		if n := len(parts); n > 0 && comparePart(parts[n-1], p.version, p.rate) >= 0 {
			return Counter{}, fault
		}
		parts = append(parts, p)
	}
	return counterOf(parts), nil
}

// MarshalText writes the canonical form.
func (c Counter) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the canonical form.
func (c *Counter) UnmarshalText(text []byte) error {
	d, err := ParseCounter(string(text))
	if err == nil {
		*c = d
	}
	return err
}

// Part is what a counter has counted of one rate of one version.
type Part struct {
	Version  int
	RateID   string
	Quantity Quantity // of a SeenValue: 1
}

// Parts lists what was counted, in order of version number, then rate.
func (c Counter) Parts() []Part {
	var parts []Part
	for i := range c.len() {
		p := c.part(i)
		parts = append(parts, Part{p.version, p.rate, p.quantity})
	}
	return parts
}

// State is what a customer's counters stand at. It is asked for the keys that [Book.Keys] names, and for a counter that has counted
// nothing yet answers the zero Counter.
type State interface {
	Counter(CounterKey) Counter
}

// Counters is a State in memory.
type Counters map[CounterKey]Counter

// Counter returns a counter of the map.
func (c Counters) Counter(k CounterKey) Counter { return c[k] }

// Apply takes changes in: those of a usage that is charged.
func (c Counters) Apply(changes []Change) {
	for _, change := range changes {
		if change.Counter.IsZero() {
			delete(c, change.Key)
		} else {
			c[change.Key] = change.Counter
		}
	}
}

// Change is what a counter stands at after a usage. The zero Counter need not be kept.
type Change struct {
	Key     CounterKey
	Counter Counter
}
