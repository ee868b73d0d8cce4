// Package fx is exchange rates as dated tables: parsed from files, looked up by currencies and instant, computed exactly.
package fx

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Quote says what one unit of a currency was worth in another on a day.
type Quote struct {
	On       time.Time       // midnight UTC of the day
	From, To string          // three capital letters each, different
	Rate     decimal.Decimal // To for one From: positive, at most 12 digits on either side of the point
	Source   string          // who says so, such as "ecb"
	No       int64           // order of entry: of several quotes of one pair and day the highest counts
}

// Places is how many decimal places a computed rate has: that of an inverse and of one through the base.
const Places = 12

// Policy says what a table may answer with.
type Policy struct {
	Base       string // the currency through which others are converted; "": none, only quoted pairs are answered
	MaxAgeDays int    // how many days a quote may be older than the day it is asked for; 0: it must be of that very day
}

// DefaultPolicy is through the euro, in which the ECB quotes, at most a week old: it bridges a long weekend of holidays.
var DefaultPolicy = Policy{Base: "EUR", MaxAgeDays: 7}

// Table answers what a currency was worth in another. It is not changed once made, and may be used by any number of goroutines. The zero
// Table has no quotes.
type Table struct {
	policy Policy
	pairs  map[pair][]Quote // by day, one a day
}

// pair is two currencies in order of their codes, whichever way they were quoted.
type pair struct{ low, high string }

func pairOf(a, b string) pair {
	if a > b {
		a, b = b, a
	}
	return pair{a, b}
}

// NewTable makes a table of quotes in any order. Of several of one pair and day, whichever way round they are, the highest No counts.
// A quote that [CheckQuote] refuses is an error that is no refusal: the store does not have such.
func NewTable(p Policy, quotes []Quote) (*Table, error) {
	t := &Table{policy: p, pairs: make(map[pair][]Quote)}
	for _, q := range quotes {
		if err := CheckQuote(q); err != nil {
			return nil, fmt.Errorf("quote %s/%s of %s: %w", q.From, q.To, dayText(q.On), err)
		}
		k := pairOf(q.From, q.To)
		t.pairs[k] = append(t.pairs[k], q)
	}
	for k, series := range t.pairs {
		slices.SortFunc(series, func(a, b Quote) int { return cmp.Or(a.On.Compare(b.On), cmp.Compare(b.No, a.No)) })
		t.pairs[k] = slices.CompactFunc(series, func(a, b Quote) bool { return a.On.Equal(b.On) })
	}
	return t, nil
}

// CheckQuote tells whether a quote is within the bounds of its fields: an [credit.Error] coded invalid_request says where it is not.
func CheckQuote(q Quote) error {
	switch {
	case !isCurrency(q.From):
		return credit.Invalid("/from", "%.12q is not a currency's code: three capital letters.", q.From)
	case !isCurrency(q.To):
		return credit.Invalid("/to", "%.12q is not a currency's code: three capital letters.", q.To)
	case q.From == q.To:
		return credit.Invalid("/to", "A currency is worth one of itself.")
	case q.On.IsZero() || !q.On.Equal(dayOf(q.On)):
		return credit.Invalid("/on", "A quote is of a day.")
	case !q.Rate.IsPositive() || q.Rate.Exponent() < -Places || q.Rate.NumDigits()+int(q.Rate.Exponent()) > maxWhole:
		return credit.Invalid("/rate", "A rate is a positive decimal number with at most %d digits before and %d after the point.", maxWhole, Places)
	}
	return nil
}

const maxWhole = 12 // digits of a rate before the point

func isCurrency(s string) bool {
	for i := range len(s) {
		if s[i] < 'A' || s[i] > 'Z' {
			return false
		}
	}
	return len(s) == 3
}

// Paths of a rate.
const (
	Same    = "same"    // both currencies are one
	Direct  = "direct"  // as it was quoted
	Inverse = "inverse" // one divided by what was quoted
	Cross   = "cross"   // through the table's base
)

// Used is a rate and what it was made of.
type Used struct {
	Rate   decimal.Decimal // To for one From; an inverse and a cross are rounded half to even to [Places]
	On     time.Time       // the day of the quotes used, midnight UTC; for [Same] the day asked for
	Source string          // of the quotes used; two different ones are joined by "+"; "" for [Same]
	Path   string
	Quotes []Quote // what was used: none for [Same], two for [Cross]
}

// Rate says what one unit of from was worth in to at an instant: by the newest quote of the pair that is not of a later day (UTC), whichever
// way round it was quoted, and where the table has none that is fresh enough, through the base, by the newest day not later on which both
// halves are quoted. It never mixes quotes of different days.
//
// What it refuses is a [credit.Error] coded no_fx_rate whose fields are from, to and on, and latest (the day of the newest quote) where
// there is one and it is too old.
func (t *Table) Rate(from, to string, at time.Time) (Used, error) {
	day := dayOf(at)
	if from == to {
		return Used{Rate: decimal.New(1, 0), On: day, Path: Same}, nil
	}
	var latest time.Time
	if q := newest(t.pairs[pairOf(from, to)], day); q != nil {
		if t.fresh(q, day) {
			return t.used(from, to, day, *q)
		}
		latest = q.On
	}
	if base := t.policy.Base; base != "" && from != base && to != base {
		if a, b := common(t.pairs[pairOf(from, base)], t.pairs[pairOf(base, to)], day); a != nil {
			if t.fresh(a, day) {
				return t.used(from, to, day, *a, *b)
			}
			if a.On.After(latest) {
				latest = a.On
			}
		}
	}
	e := credit.Errorf(credit.NoFXRate, "There is no exchange rate from %.12s to %.12s for %s.", from, to, dayText(day))
	if !latest.IsZero() {
		e = credit.Errorf(credit.NoFXRate, "The newest exchange rate from %.12s to %.12s not after %s is of %s, more than %d days older.",
			from, to, dayText(day), dayText(latest), t.policy.MaxAgeDays).With("latest", dayText(latest))
	}
	return Used{}, e.With("from", from).With("to", to).With("on", dayText(day))
}

func (t *Table) fresh(q *Quote, day time.Time) bool {
	return !q.On.Before(day.AddDate(0, 0, -t.policy.MaxAgeDays))
}

// newest returns the last quote not after a day; nil when there is none.
func newest(series []Quote, day time.Time) *Quote {
	i, found := slices.BinarySearchFunc(series, day, func(q Quote, d time.Time) int { return q.On.Compare(d) })
	if found {
		return &series[i]
	}
	if i == 0 {
		return nil
	}
	return &series[i-1]
}

// common returns the last two quotes of one day not after day.
func common(a, b []Quote, day time.Time) (*Quote, *Quote) {
	for {
		x := newest(a, day)
		if x == nil {
			return nil, nil
		}
		y := newest(b, x.On)
		if y == nil {
			return nil, nil
		}
		if y.On.Equal(x.On) {
			return x, y
		}
		day = y.On
	}
}

// used computes a rate along quotes that lead from one currency to the other.
func (t *Table) used(from, to string, day time.Time, quotes ...Quote) (Used, error) {
	u := Used{On: quotes[0].On, Source: quotes[0].Source, Path: Cross, Quotes: quotes}
	if s := quotes[len(quotes)-1].Source; s != u.Source {
		u.Source += "+" + s
	}
	num, den := decimal.New(1, 0), decimal.New(1, 0)
	here := from
	for _, q := range quotes {
		if q.From == here {
			num, here = num.Mul(q.Rate), q.To
		} else {
			den, here = den.Mul(q.Rate), q.From
		}
	}
	if len(quotes) == 1 {
		if u.Path = Inverse; quotes[0].From == from {
			u.Path, u.Rate = Direct, quotes[0].Rate
			return u, nil
		}
	}
	if u.Rate = divide(num, den); !u.Rate.IsPositive() {
		return Used{}, credit.Errorf(credit.NoFXRate, "One %.12s is worth less than can be written of %.12s on %s.", from, to, dayText(day)).
			With("from", from).With("to", to).With("on", dayText(day))
	}
	return u, nil
}

// divide returns num/den rounded half to even to [Places]. Both are positive.
func divide(num, den decimal.Decimal) decimal.Decimal {
	n, d := num.Coefficient(), den.Coefficient()
	if shift := int64(Places) + int64(num.Exponent()) - int64(den.Exponent()); shift >= 0 {
		n.Mul(n, pow10(shift))
	} else {
		d.Mul(d, pow10(-shift))
	}
	q, r := new(big.Int).QuoRem(n, d, new(big.Int))
	switch r.Lsh(r, 1).Cmp(d) {
	case 1:
		q.Add(q, big.NewInt(1))
	case 0:
		q.Add(q, new(big.Int).And(q, big.NewInt(1)))
	}
	return decimal.NewFromBigInt(q, -Places)
}

func pow10(n int64) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(n), nil) }

// Days returns the first and the last day of which the table has quotes; zero when it has none.
func (t *Table) Days() (first, last time.Time) {
	for _, series := range t.pairs {
		if d := series[0].On; first.IsZero() || d.Before(first) {
			first = d
		}
		if d := series[len(series)-1].On; d.After(last) {
			last = d
		}
	}
	return first, last
}

// Len returns how many quotes count.
func (t *Table) Len() int {
	n := 0
	for _, series := range t.pairs {
		n += len(series)
	}
	return n
}

// dayOf returns midnight UTC of the day of an instant.
func dayOf(t time.Time) time.Time {
	y, m, d := t.UTC().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func dayText(t time.Time) string { return t.Format(time.DateOnly) }

// ParseDay reads a day as 2026-01-31. Years are 1900 to 2199.
func ParseDay(s string) (time.Time, bool) {
	t, err := time.Parse(time.DateOnly, s)
	return t, err == nil && plausible(t)
}

func plausible(t time.Time) bool { return t.Year() >= 1900 && t.Year() < 2200 }

// ParseRate reads a rate within the bounds of [Quote].
func ParseRate(s string) (decimal.Decimal, bool) {
	whole, fraction, point := strings.Cut(s, ".")
	if !digits(whole) || len(whole) > maxWhole || point && (!digits(fraction) || len(fraction) > Places) {
		return decimal.Decimal{}, false
	}
	d, err := decimal.NewFromString(s)
	return d, err == nil && d.IsPositive()
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
