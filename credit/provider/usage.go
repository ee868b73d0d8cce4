package provider

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Usage is how much of each unit a request used, as its provider counts: input_tokens is all input tokens, those read from a cache
// or heard included. The zero Usage reports nothing.
type Usage struct {
	// ServiceTier is how the request was served, where prices may differ by it: batch, flex, priority; "": in the standard way.
	ServiceTier string

	counts   [numUnits]int64 // of seconds, microseconds
	reported unitSet
}

const maxCount = 1<<53 - 1 // of any unit, as programs that count in doubles know it

// Set reports n of a unit, 0 or more. The refusal of a number that cannot be is coded invalid_usage.
func (u *Usage) Set(unit Unit, n decimal.Decimal) error {
	if unit >= numUnits {
		return credit.Errorf(credit.InvalidUsage, "There is no unit number %d.", unit)
	}
	count, reason := countOf(n, unit.places())
	if reason != "" {
		return credit.Errorf(credit.InvalidUsage, "%s: %s", unit, reason)
	}
	u.counts[unit] = count
	u.reported.add(unit)
	return nil
}

// Count returns how much of a unit was used; 0 also when it is not reported.
func (u *Usage) Count(unit Unit) decimal.Decimal { return decimal.New(u.counts[unit], -unit.places()) }

// Reported tells whether the unit is reported, be it as 0.
func (u *Usage) Reported(unit Unit) bool { return unit < numUnits && u.reported.has(unit) }

// Units lists the units that are reported.
func (u *Usage) Units() []Unit {
	var list []Unit
	for unit := range u.reported.all {
		list = append(list, unit)
	}
	return list
}

// MarshalJSON writes the usage as an object of numbers in strings by unit, such as {"input_tokens": "12"}, with service_tier
// unless that is the standard one.
func (u Usage) MarshalJSON() ([]byte, error) {
	fields := make(map[string]string)
	for unit := range u.reported.all {
		fields[unit.String()] = u.Count(unit).String()
	}
	if u.ServiceTier != "" {
		fields["service_tier"] = u.ServiceTier
	}
	return json.Marshal(fields)
}

// UnmarshalJSON reads what MarshalJSON writes. A unit that is not known, or a number that cannot be, is refused with the code
// invalid_usage.
func (u *Usage) UnmarshalJSON(b []byte) error {
	var fields map[string]string
	if err := json.Unmarshal(b, &fields); err != nil {
		return credit.Errorf(credit.InvalidUsage, "A usage is an object of numbers in strings by unit: %v.", err)
	}
	*u = Usage{}
	for name, s := range fields {
		if name == "service_tier" {
			u.ServiceTier = s
			continue
		}
		unit, ok := unitsByName[name]
		if !ok {
			return credit.Errorf(credit.InvalidUsage, "%.60q is not a unit that is known here.", name)
		}
		n, reason := readCount([]byte(s), unit.places())
		if reason != "" {
			return credit.Errorf(credit.InvalidUsage, "%s: %s", unit, reason)
		}
		u.counts[unit] = n
		u.reported.add(unit)
	}
	return nil
}

// String writes what was used, without what is 0: "3200 input_tokens, 410 output_tokens".
func (u Usage) String() string {
	var parts []string
	for unit := range u.reported.all {
		if u.counts[unit] != 0 {
			parts = append(parts, u.Count(unit).String()+" "+unit.String())
		}
	}
	if u.ServiceTier != "" {
		parts = append(parts, "service tier "+u.ServiceTier)
	}
	if parts == nil {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// readCount reads a JSON number as a count in steps of 10^-places, or says why it is none.
func readCount(raw []byte, places int32) (_ int64, reason string) {
	n, plain := int64(0), len(raw) > 0 && len(raw) <= 17
	for _, c := range raw {
		if c < '0' || c > '9' {
			plain = false
			break
		}
		n = n*10 + int64(c-'0')
	}
	if plain && places == 0 {
		if n > maxCount {
			return 0, fmt.Sprintf("%s is more than any request can use.", raw)
		}
		return n, ""
	}
	if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, fmt.Sprintf("%.40s is not a number.", raw)
	}
	if len(raw) > 60 {
		return 0, fmt.Sprintf("%.40s… has too many digits.", raw)
	}
	d, err := decimal.NewFromString(string(raw))
	if err != nil {
		return 0, fmt.Sprintf("%.40s is not a number.", raw)
	}
	return countOf(d, places)
}

func countOf(d decimal.Decimal, places int32) (_ int64, reason string) {
	switch {
	case d.IsZero():
		return 0, ""
	case d.IsNegative():
		return 0, fmt.Sprintf("%s is negative.", shortDecimal(d))
	case d.Exponent() > 20 || d.Exponent() < -100:
		return 0, fmt.Sprintf("%s is not a number of this unit.", shortDecimal(d))
	}
	steps := d.Shift(places)
	switch {
	case !steps.IsInteger() && places == 0:
		return 0, fmt.Sprintf("%s is not a whole number.", shortDecimal(d))
	case !steps.IsInteger():
		return 0, fmt.Sprintf("%s has more than %d decimal places.", shortDecimal(d), places)
	case steps.GreaterThan(decimal.New(maxCount, 0)):
		return 0, fmt.Sprintf("%s is more than any request can use.", shortDecimal(d))
	}
	return steps.IntPart(), ""
}

// shortDecimal writes a number for a reader without writing out its exponent.
func shortDecimal(d decimal.Decimal) string {
	if d.Exponent() > 20 || d.Exponent() < -40 || d.NumDigits() > 40 {
		return fmt.Sprintf("%.30se%d", d.Coefficient(), d.Exponent())
	}
	return d.String()
}
