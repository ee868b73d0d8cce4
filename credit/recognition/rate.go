package recognition

import (
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Rate is an exact fraction, such as a tax rate of 4 %: 0.04. The zero value is zero percent.
type Rate struct{ num, den int64 }

// RatePlaces is how many decimal places a Rate can have.
const RatePlaces = 9

// NewRate reads a rate of 0 to 1, both inclusive, with at most RatePlaces decimal places. Anything else is an Error coded invalid_request.
func NewRate(d decimal.Decimal) (Rate, error) {
	if d.IsNegative() || d.NumDigits()+int(d.Exponent()) > 1 || d.Exponent() < -32 || d.Cmp(one) > 0 || !d.Equal(d.Truncate(RatePlaces)) {
		return Rate{}, credit.Errorf(credit.InvalidRequest, "A rate is 0 to 1 with at most %d decimal places, such as \"0.04\".", RatePlaces)
	}
	return Rate{d.Shift(RatePlaces).IntPart(), 1e9}, nil
}

var one = decimal.New(1, 0)

// IsZero tells whether the rate is zero percent.
func (r Rate) IsZero() bool { return r.num == 0 }

// Decimal is the rate as a number.
func (r Rate) Decimal() decimal.Decimal { return decimal.New(r.num, -RatePlaces) }

// of is amount·rate, rounded half up; 0 for the zero value.
func (r Rate) of(amount int64) int64 {
	if r.num == 0 {
		return 0
	}
	return credit.MulDivRound(amount, r.num, r.den)
}
