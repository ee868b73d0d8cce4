package provider

import (
	"math/big"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// CostPlaces is how many decimal places a cost has when it has no finite decimal, as a price for 3,600 seconds may bring about.
const CostPlaces = 24

// Cost is what a provider charges for a usage, in USD, unrounded.
type Cost struct {
	Found
	Since       time.Time // from when the prices hold; zero: always, as far as the catalogue knows
	Window      string    // the time of day in which they hold, such as "00:30–16:30 UTC"; "": all day
	ServiceTier string    // whose prices they are; "": the standard ones, also when the usage's tier has none of its own
	Lines       []CostLine
	// Input and Output are the parts that the catalogue ascribes to what went in and what came out; Total also has what is neither,
	// such as searches.
	Input, Output, Total decimal.Decimal
	Currency             string
	Unpriced             []Unit // used, but in no price: charged as nothing
}

// CostLine is what was used at one price.
type CostLine struct {
	Unit       Unit
	Quantity   decimal.Decimal // of Unit without what is charged by a line of its own
	Price, Per decimal.Decimal // USD for Per of the unit
	Above      int64           // the price is that of requests with more input tokens than this; 0: that of all others
	Cost       decimal.Decimal // Quantity * Price / Per; one without finite decimal is rounded to CostPlaces
}

// Cost says what a usage costs at an instant. Each unit that has a price is charged without the units within it that have one of
// their own: of input tokens, those are left that were neither read from a cache nor heard, if both have a price.
//
// Where prices depend on the length of the context, all of a request is charged by the tier that its input_tokens, cached ones included,
// reach: they must be more than the tier's start. A model that is charged by the request counts as one request when the usage
// does not say how many.
//
// Refusals are coded unknown_provider, unknown_model, no_rate (the model's prices cannot be used, or leave open which of two
// holds; the detail says why), and invalid_usage: more of a unit than of one around it.
func (c *Catalogue) Cost(provider, model string, u Usage, at time.Time) (Cost, error) {
	served, err := c.seller(provider, model)
	if err != nil {
		return Cost{}, err
	}
	m, err := served.find(model)
	if err != nil {
		return Cost{}, err
	}
	p, s, service, err := m.setAt(at, u.ServiceTier)
	if err != nil {
		return Cost{}, err
	}
	left, err := s.split(&u)
	if err != nil {
		return Cost{}, err
	}
	cost := Cost{Found: m.found(served), Since: p.since, ServiceTier: service, Currency: Currency, Unpriced: s.without(&u)}
	if p.window != nil {
		cost.Window = p.window.String()
	}
	cost.Lines = make([]CostLine, 0, len(s.order))
	var input, output, total sum
	for i := len(s.order) - 1; i >= 0; i-- {
		unit := s.order[i]
		if left[unit] == 0 {
			continue
		}
		price, above := s.prices[i].at(u.counts[InputTokens])
		l := CostLine{Unit: unit, Quantity: decimal.New(left[unit], -unit.places()), Price: price, Per: unit.Per(), Above: above}
		var line sum
		line.add(l.Quantity.Mul(price), units[unit].per)
		l.Cost = line.decimal()
		total.plus(line)
		switch traits := units[unit].traits; {
		case traits&in != 0:
			input.plus(line)
		case traits&out != 0:
			output.plus(line)
		}
		cost.Lines = append(cost.Lines, l)
	}
	cost.Input, cost.Output, cost.Total = input.decimal(), output.decimal(), total.decimal()
	return cost, nil
}

// setAt returns the prices of a service tier in force at an instant, and the tier whose they are: "" for the standard one.
func (m *model) setAt(at time.Time, service string) (*pricing, *priceSet, string, error) {
	if m.unusable != "" {
		return nil, nil, "", credit.Errorf(credit.NoRate, "The prices of %s of %s cannot be used: %s", m.id, m.seller.id, m.unusable).With("model", m.id)
	}
	p := m.pricingAt(at)
	s, own := p.set(service)
	if !own {
		service = ""
	}
	return p, s, service, nil
}

// split returns how much of each priced unit is charged at its price, in steps of the unit: what was used of it, without what the
// priced units within it are charged for. It reports one request in u where requests are charged and u does not say how many there were.
func (s *priceSet) split(u *Usage) (left [numUnits]int64, err error) {
	if s.priced.has(Requests) && !u.reported.has(Requests) {
		u.counts[Requests] = 1
		u.reported.add(Requests)
	}
	for unit := range (u.reported &^ s.priced).all {
		if s.nearest[unit] == several && u.counts[unit] > 0 {
			return left, credit.Errorf(credit.NoRate, "%s are within several units that each have a price, and have none of their own.", unit)
		}
	}
	if unit, ok := u.leave(&left, s.priced); !ok {
		return left, credit.Errorf(credit.InvalidUsage, "There is more within %s than the %s reported.", unit, u.Count(unit))
	}
	for unit := range (u.reported &^ s.priced).all {
		if n := s.nearest[unit]; n >= 0 && u.counts[unit] > u.counts[s.order[n]] {
			return left, credit.Errorf(credit.InvalidUsage, "%s %s cannot be within %s %s.", u.Count(unit), unit, u.Count(s.order[n]), s.order[n])
		}
	}
	return left, nil
}

// leave finds how much of each unit of a set is in none of the others within it. It is not ok when that is less than nothing, at the
// unit returned. Where two units overlap and the set has the unit of both, what is in both is counted there once; where it
// has not, or the usage does not report it, they are taken not to overlap.
func (u *Usage) leave(left *[numUnits]int64, set unitSet) (_ Unit, ok bool) {
	for _, unit := range finestFirst {
		if !set.has(unit) {
			continue
		}
		n := u.counts[unit]
		for v := range (set & within[unit]).all {
			n -= left[v]
		}
		if n < 0 {
			return unit, false
		}
		left[unit] = n
	}
	return 0, true
}

// without lists the units used that no price is for.
func (s *priceSet) without(u *Usage) []Unit {
	var list []Unit
	for unit := range u.reported.all {
		if u.counts[unit] > 0 && s.nearest[unit] == unpriced {
			list = append(list, unit)
		}
	}
	return list
}

// sum is an exact sum of amounts for so many of a unit: decimals, and the numerators of what is for 3,600.
type sum struct {
	whole, hours decimal.Decimal
}

func (s *sum) add(n decimal.Decimal, per int64) {
	switch per {
	case 3_600:
		s.hours = n
	case 1:
		s.whole = n
	case 1_000:
		s.whole = n.Shift(-3)
	case 1_000_000:
		s.whole = n.Shift(-6)
	case 1_000_000_000:
		s.whole = n.Shift(-9)
	default:
		panic("provider: a unit is priced for an unforeseen number")
	}
}

func (s *sum) plus(t sum) {
	s.whole = s.whole.Add(t.whole)
	if !t.hours.IsZero() {
		s.hours = s.hours.Add(t.hours)
	}
}

// decimal returns the sum, rounded to CostPlaces if it has no finite decimal.
func (s *sum) decimal() decimal.Decimal {
	if s.hours.IsZero() {
		return s.whole
	}
	return perHour(s.whole.Mul(decimal.New(3_600, 0)).Add(s.hours))
}

// perHour returns n / 3600, rounded to CostPlaces if that has no finite decimal. 3600 is 9 * 400, and only the 9 can make it
// endless; what is endless is never half-way between two decimals.
func perHour(n decimal.Decimal) decimal.Decimal {
	nine, exponent := big.NewInt(9), n.Exponent()-4
	num := n.Coefficient()
	num.Mul(num, big.NewInt(25))
	quo, rest := new(big.Int).QuoRem(num, nine, new(big.Int))
	if rest.Sign() == 0 {
		return decimal.NewFromBigInt(quo, exponent)
	}
	den := nine
	if shift := int64(exponent) + CostPlaces; shift >= 0 {
		num.Mul(num, new(big.Int).Exp(big.NewInt(10), big.NewInt(shift), nil))
	} else {
		den.Mul(den, new(big.Int).Exp(big.NewInt(10), big.NewInt(-shift), nil))
	}
	quo.QuoRem(num, den, rest)
	if rest.Lsh(rest, 1).Cmp(den) > 0 {
		quo.Add(quo, big.NewInt(1))
	}
	return decimal.NewFromBigInt(quo, -CostPlaces)
}
