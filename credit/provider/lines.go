package provider

import (
	"strconv"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// DefaultMeter is the meter of tokens unless another is asked for.
const DefaultMeter = "tokens"

// The dimensions of metered usage and of the rates of a ready rate card.
const (
	dimProvider  = "provider"     // whose prices hold
	dimServedBy  = "served_by"    // the provider that served the request, when that is another one
	dimModel     = "model"        // the catalogue's id
	dimTokenType = "token_type"   // of tokens: Unit.Type
	dimUnit      = "unit"         // of everything else: the unit's name
	dimContext   = "context"      // base, or the tier that the input reaches, such as above_200k
	dimService   = "service_tier" // batch, flex, priority, where the model has prices of its own for it
)

// Metered is an extraction as usage that a rate card can price.
type Metered struct {
	// Dims are common to the lines: provider, model, context, and served_by and service_tier where they differ from the usual.
	Dims credit.Dimensions
	// Lines share nothing: no token is in two of them. Tokens are on the meter asked for with the dimension token_type, all else is on
	// a meter named for what it is (characters, seconds, searches, tool_calls, …) with the dimension unit.
	Lines    []rating.Line
	Unpriced []Unit // used, but neither priced by the catalogue nor part of a unit that is: not in the lines
	// Cost is what Cost says of the whole, in Currency, unrounded.
	Cost decimal.Decimal
}

// Lines divides what was used into lines that do not overlap, as fine as the provider reports and the numbers allow: input without
// what was cached or heard, output without reasoning. Priced on a [Catalogue.RateCard] without markup they cost what [Catalogue.Cost]
// says for the same instant. Each line has its part of that cost, rounded to CostPlaces where it has more.
//
// meter is that of tokens; "" is [DefaultMeter]. What is text is not divided from the rest unless it has a price: it is the rest. A unit
// that is reported and cannot be divided from one around it, because the report does not say how they overlap, stays a part of that.
//
// Refusals are those of Cost.
func (c *Catalogue) Lines(x Extraction, at time.Time, meter string) (Metered, error) {
	served, err := c.seller(x.Provider, x.ModelRef)
	if err != nil {
		return Metered{}, err
	}
	m, err := served.find(x.ModelRef)
	if err != nil {
		return Metered{}, err
	}
	_, s, service, err := m.setAt(at, x.Usage.ServiceTier)
	if err != nil {
		return Metered{}, err
	}
	u := x.Usage
	left, err := s.split(&u)
	if err != nil {
		return Metered{}, err
	}
	set := s.priced
	for i := len(finestFirst) - 1; i >= 0; i-- {
		unit := finestFirst[i]
		if u.counts[unit] == 0 || s.priced.has(unit) || s.nearest[unit] < 0 || units[unit].traits&text != 0 {
			continue
		}
		finer, attempt := set, left
		finer.add(unit)
		if _, ok := u.leave(&attempt, finer); ok {
			set, left = finer, attempt
		}
	}

	out := Metered{Dims: credit.Dimensions{
		dimProvider: m.seller.id, dimModel: m.id, dimContext: contextName(s.context(u.counts[InputTokens])),
	}, Unpriced: s.without(&u)}
	if m.seller != served {
		out.Dims[dimServedBy] = served.id
	}
	if service != "" {
		out.Dims[dimService] = service
	}
	var total sum
	for unit := range set.all {
		if left[unit] == 0 {
			continue
		}
		name, dim, value := unit.meter(meter)
		l := rating.Line{Meter: name, Quantity: decimal.New(left[unit], -unit.places()), Dims: credit.Dimensions{dim: value}}
		price, _ := s.prices[s.nearest[unit]].at(u.counts[InputTokens])
		var cost sum
		cost.add(l.Quantity.Mul(price), units[s.order[s.nearest[unit]]].per)
		total.plus(cost)
		if l.Cost = (rating.ComputeCost{Amount: cost.decimal(), Currency: Currency}); l.Cost.Amount.Exponent() < -CostPlaces {
			l.Cost.Amount = l.Cost.Amount.RoundBank(CostPlaces)
		}
		out.Lines = append(out.Lines, l)
	}
	out.Cost = total.decimal()
	return out, nil
}

// meter returns the meter of a unit, the one of tokens being given, and the dimension that tells it from others there.
func (u Unit) meter(ofTokens string) (meter, dim, value string) {
	switch f := units[u].family; {
	case f != tokens:
		return string(f), dimUnit, u.String()
	case ofTokens == "":
		return DefaultMeter, dimTokenType, u.Type()
	}
	return ofTokens, dimTokenType, u.Type()
}

// contextName names the tier of requests with more input tokens than above; 0 is the base.
func contextName(above int64) string {
	switch {
	case above == 0:
		return "base"
	case above%1_000 == 0:
		return "above_" + strconv.FormatInt(above/1_000, 10) + "k"
	}
	return "above_" + strconv.FormatInt(above, 10)
}
