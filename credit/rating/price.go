package rating

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Line is one quantity of a usage, such as its input tokens.
type Line struct {
	Meter    string
	Quantity decimal.Decimal   // 0 or more, at most 20 digits before and 12 after the point
	Dims     credit.Dimensions // of this line alone; they go before those of the usage
}

// Usage is what one event used. The bounds of its dimensions are the caller's matter: see [credit.CheckDimensions].
type Usage struct {
	At    time.Time         // when; it chooses the version
	Lines []Line            // 1 to 1,000
	Dims  credit.Dimensions // common to the lines; nil: none
}

const maxLines = 1_000

// PricedLine is what a line costs, and why.
type PricedLine struct {
	RateID, Meter string
	Dims          credit.Dimensions // the line's own, as given
	Quantity      decimal.Decimal
	Price, Per    decimal.Decimal // the rate's
	// Cost is Quantity * Price / Per credits, unrounded; only when that has no finite decimal (as Per 3600 may bring about) it is
	// rounded half to even to CostPlaces.
	Cost decimal.Decimal
}

// Priced is what a usage costs.
type Priced struct {
	CardID   credit.RateCardID
	CardCode string
	Version  int
	Unit     credit.Unit
	Total    credit.Amount // in steps of Unit
	Lines    []PricedLine  // as many as the usage has, in its order
}

// Price says what u costs on a card, the zero card being the default one, at a version, 0 being the one in force at u.At.
//
// Each line is priced by the most specific rate of its meter that matches it: the one that names most dimensions. A document has no
// two that could match one usage and name as many. The exact costs of the lines, quantity * price / per, are summed
// exactly, and the sum is rounded once, half to even, to the scale of the card's unit. So how an event is cut into lines does not change its price.
//
// Refusals are [credit.Error]s coded rate_card_not_found (no such card or version), no_rate (no version in force, no such meter,
// or no rate for a line; the detail says which and what the nearest rate asks), invalid_request (a quantity out of its bounds, the
// number of lines) and invalid_amount (a total beyond [credit.MaxAmount]).
func (b *Book) Price(id credit.RateCardID, version int, u Usage) (Priced, error) {
	c, err := b.card(id)
	if err != nil {
		return Priced{}, err
	}
	v, err := c.version(version, u.At)
	if err != nil {
		return Priced{}, err
	}
	if len(u.Lines) == 0 || len(u.Lines) > maxLines {
		return Priced{}, credit.Invalid("/lines", "A usage has 1 to %d lines, not %d.", maxLines, len(u.Lines))
	}
	p := Priced{CardID: c.id, CardCode: c.code, Version: v.Number, Unit: c.unit, Lines: make([]PricedLine, len(u.Lines))}
	var sum fixed128
	var exact *quotient // the sum, once it does not fit 128 bits
	for i := range u.Lines {
		l := &u.Lines[i]
		m := v.Doc.meters[l.Meter]
		if m == nil {
			return Priced{}, noMeter(c, v, l.Meter)
		}
		at, have := m.place(l.Dims, u.Dims)
		r := m.find(&at, have)
		if r == nil {
			return Priced{}, m.noRate(c, v, l, u.Dims, &at)
		}
		quantity, fault := checkQuantity(l.Quantity)
		if fault != "" {
			return Priced{}, credit.Invalid(fmt.Sprintf("/lines/%d/quantity", i), "%s", fault)
		}
		out := &p.Lines[i]
		out.RateID, out.Meter, out.Dims, out.Quantity, out.Price, out.Per = r.ID, l.Meter, l.Dims, quantity, r.Price, r.Per
		if r.fast && quantity.NumDigits() <= 18 {
			cost := r.timesFast(quantity)
			out.Cost = cost.decimal()
			if exact == nil {
				if next, ok := sum.plus(cost); ok {
					sum = next
					continue
				}
			}
			exact = add(exact, sum, cost.quotient())
		} else {
			cost := r.times(quantity)
			out.Cost = cost.decimal()
			exact = add(exact, sum, cost)
		}
	}
	var ok bool
	if exact == nil {
		p.Total, ok = sum.steps(c.unit.Scale)
	} else {
		p.Total, ok = exact.steps(c.unit.Scale)
	}
	if !ok {
		return Priced{}, credit.Errorf(credit.InvalidAmount, "The usage costs more than %s, the largest amount there is.", credit.MaxAmount.Format(c.unit.Scale))
	}
	return p, nil
}

// add returns exact, or before while that is nil, + cost.
func add(exact *quotient, before fixed128, cost quotient) *quotient {
	if exact == nil {
		if before.isZero() {
			return &cost
		}
		start := before.quotient()
		exact = &start
	}
	sum := exact.plus(cost)
	return &sum
}

// checkQuantity returns q, with an exponent that can be computed with, or why it is refused.
func checkQuantity(q decimal.Decimal) (_ decimal.Decimal, fault string) {
	switch q.Sign() {
	case -1:
		return q, "A quantity must not be negative."
	case 0:
		return decimal.Zero, ""
	}
	if q.Exponent() < -maxDecimalPlaces {
		q = q.Normalize()
	}
	if int64(q.NumDigits())+int64(q.Exponent()) > maxDecimalWhole || q.Exponent() < -maxDecimalPlaces {
		return q, fmt.Sprintf("A quantity has at most %d digits before and %d after the point.", maxDecimalWhole, maxDecimalPlaces)
	}
	return q, ""
}

func noMeter(c *card, v *Version, meter string) error {
	return credit.Errorf(credit.NoRate, "Rate card %q, version %d, has no meter %.80q.", c.code, v.Number, meter).With("meter", meter)
}

// noRate says why no rate is for a line.
func (m *meterIndex) noRate(c *card, v *Version, l *Line, common credit.Dimensions, at *position) error {
	dims := maps.Clone(common)
	if dims == nil {
		dims = credit.Dimensions{}
	}
	maps.Copy(dims, l.Dims)
	e := credit.Errorf(credit.NoRate, "No rate of meter %q is for %s on rate card %q, version %d: %s", l.Meter, describe(dims), c.code, v.Number, m.why(dims, at))
	return e.With("meter", l.Meter).With("dimensions", dims)
}

// why tells what the rate that comes nearest asks for: the one that fails in fewest dimensions, and of several the most specific.
func (m *meterIndex) why(dims credit.Dimensions, at *position) string {
	var nearest *compiledRate
	fewest := 0
	for i := range m.rates {
		r, fails := &m.rates[i], 0
		for n := range r.needs {
			if !r.needs[n].met(at) {
				fails++
			}
		}
		if nearest == nil || fails < fewest || fails == fewest && len(r.needs) > len(nearest.needs) {
			nearest, fewest = r, fails
		}
	}
	if nearest == nil {
		return "the meter has no rates."
	}
	var asks []string
	for _, name := range slices.Sorted(maps.Keys(nearest.Match)) {
		if v, ok := dims[name]; !ok {
			asks = append(asks, fmt.Sprintf("asks for %.60q, which the usage does not name", name))
		} else if values := nearest.Match[name]; !slices.Contains(values, v) {
			asks = append(asks, fmt.Sprintf("is for %.60s=%s", name, someOf(values)))
		}
	}
	return fmt.Sprintf("the nearest, %q, %s.", nearest.ID, shorten(asks, " and "))
}

// describe writes dimensions for a reader, in order of name, the first few of many.
func describe(dims credit.Dimensions) string {
	if len(dims) == 0 {
		return "usage without dimensions"
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(dims)) {
		words = append(words, fmt.Sprintf("%.60s=%.60s", name, dims[name]))
	}
	return shorten(words, ", ")
}

func someOf(values []string) string {
	var words []string
	for _, v := range values {
		words = append(words, fmt.Sprintf("%.60s", v))
	}
	return shorten(words, "|")
}

// shorten joins the first 6 words and counts the others.
func shorten(words []string, by string) string {
	if len(words) > 6 {
		words = append(slices.Clone(words[:6]), fmt.Sprintf("%d more", len(words)-6))
	}
	return strings.Join(words, by)
}
