package credit

import (
	"math"
	"math/big"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"
)

// Amount is a number of credits in whole steps of their unit's scale: at scale 6, one credit is 1,000,000.
type Amount int64

// MaxAmount bounds every amount and every sum of one wallet. Beyond it Lua, whose numbers are doubles, would compare inexactly.
const MaxAmount Amount = 1<<53 - 1

// MaxScale is the largest number of decimal places that a unit can have.
const MaxScale = 6

// Unit is a kind of credit.
type Unit struct {
	Code  string
	Scale int // decimal places of one credit, 0 to MaxScale
	Name  string
}

// ParseAmount reads a plain decimal number of credits, such as "12.5", without rounding: more decimal places than scale, a sign,
// an exponent or more than MaxAmount is an [Error] coded invalid_amount. Zero is read; whether it makes sense is the caller's matter.
func ParseAmount(s string, scale int) (Amount, error) {
	whole, fraction, point := strings.Cut(s, ".")
	if len(s) == 0 || len(s) > 32 || len(whole) == 0 || (point && len(fraction) == 0) || !digits(whole) || !digits(fraction) {
		return 0, Errorf(InvalidAmount, "%.40q is not a decimal number such as \"12.5\".", s)
	}
	if len(fraction) > scale {
		if strings.TrimRight(fraction[scale:], "0") != "" {
			return 0, Errorf(InvalidAmount, "%s has more than %d decimal places.", s, scale)
		}
		fraction = fraction[:scale]
	}
	fraction += strings.Repeat("0", scale-len(fraction))
	whole = strings.TrimLeft(whole, "0")
	if len(whole)+scale > 17 {
		return 0, tooLarge(s, scale)
	}
	n, err := strconv.ParseInt("0"+whole+fraction, 10, 64)
	if err != nil || Amount(n) > MaxAmount {
		return 0, tooLarge(s, scale)
	}
	return Amount(n), nil
}

func tooLarge(s string, scale int) *Error {
	return Errorf(InvalidAmount, "%s is more than %s, the largest amount there is.", s, MaxAmount.Format(scale))
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// Format writes the amount in credits, with no more decimal places than it needs.
func (a Amount) Format(scale int) string { return string(a.Append(nil, scale)) }

// Append adds what Format writes to b.
func (a Amount) Append(b []byte, scale int) []byte {
	n := uint64(a)
	if a < 0 {
		b = append(b, '-')
		n = -n
	}
	unit := pow10[scale]
	b = strconv.AppendUint(b, n/unit, 10)
	rest := n % unit
	if rest == 0 {
		return b
	}
	for rest%10 == 0 {
		rest /= 10
		scale--
	}
	b = append(b, '.')
	for d := pow10[scale-1]; d > 0; d /= 10 {
		b = append(b, byte('0'+rest/d%10))
	}
	return b
}

var pow10 = [...]uint64{1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000}

// Decimal returns the amount in credits.
func (a Amount) Decimal(scale int) decimal.Decimal { return decimal.New(int64(a), -int32(scale)) }

// RoundAmount turns credits into steps, half to even. Negative, however little, or too large is an [Error] coded invalid_amount.
func RoundAmount(credits decimal.Decimal, scale int) (Amount, error) {
	// The magnitude first: a decimal can carry an exponent that no memory could hold written out.
	magnitude := int64(credits.NumDigits()) + int64(credits.Exponent()) // credits < 10^magnitude
	switch {
	case credits.IsZero():
		return 0, nil
	case credits.IsNegative() || magnitude > 16:
		return 0, outside(scale)
	case magnitude < -int64(scale): // less than a tenth of a step
		return 0, nil
	}
	steps := credits.RoundBank(int32(scale)).Shift(int32(scale))
	if steps.Cmp(maxAmount) > 0 {
		return 0, outside(scale)
	}
	return Amount(steps.IntPart()), nil
}

func outside(scale int) *Error {
	return Errorf(InvalidAmount, "The number of credits is not within 0 to %s.", MaxAmount.Format(scale))
}

var maxAmount = decimal.New(int64(MaxAmount), 0)

// MulDiv returns floor(a*b/c) without losing digits on the way. a and b must not be negative, c must be positive, and the
// quotient must fit: it panics otherwise, for the callers' invariants rule it out.
func MulDiv(a, b, c int64) int64 {
	q, _ := mulDiv(a, b, c)
	return q
}

// MulDivUp is MulDiv rounded up.
func MulDivUp(a, b, c int64) int64 {
	q, rest := mulDiv(a, b, c)
	if rest > 0 {
		if q == math.MaxInt64 {
			panic("credit: MulDivUp overflows")
		}
		q++
	}
	return q
}

// MulDivRound is MulDiv rounded half up.
func MulDivRound(a, b, c int64) int64 {
	q, rest := mulDiv(a, b, c)
	if rest >= c-rest {
		if q == math.MaxInt64 {
			panic("credit: MulDivRound overflows")
		}
		q++
	}
	return q
}

func mulDiv(a, b, c int64) (q, rest int64) {
	if a < 0 || b < 0 || c <= 0 {
		panic("credit: MulDiv of a negative number or by zero")
	}
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		panic("credit: MulDiv overflows")
	}
	quo, rem := bits.Div64(hi, lo, uint64(c))
	if quo > 1<<63-1 {
		panic("credit: MulDiv overflows")
	}
	return int64(quo), int64(rem)
}

// cmpRatio compares a/b with c/d. b and d must be positive, a and c not negative.
func cmpRatio(a, b, c, d int64) int {
	hi1, lo1 := bits.Mul64(uint64(a), uint64(d))
	hi2, lo2 := bits.Mul64(uint64(c), uint64(b))
	switch {
	case hi1 < hi2 || hi1 == hi2 && lo1 < lo2:
		return -1
	case hi1 == hi2 && lo1 == lo2:
		return 0
	default:
		return 1
	}
}

// Allocate splits total over weights so that the parts sum to the total: each part is its exact share rounded down, and what
// is left goes one by one to the largest remainders, the earlier weight first when two are equal. All weights zero: everything goes to
// the first. It panics on negative numbers and on no weights.
func Allocate(total int64, weights []int64) []int64 {
	parts := make([]int64, len(weights))
	sum := new(big.Int)
	for _, w := range weights {
		if w < 0 {
			panic("credit: Allocate with a negative weight")
		}
		sum.Add(sum, big.NewInt(w))
	}
	if total < 0 || len(weights) == 0 {
		panic("credit: Allocate of a negative total or over nothing")
	}
	if sum.Sign() == 0 {
		parts[0] = total
		return parts
	}
	remainders, order := make([]*big.Int, len(weights)), make([]int, len(weights))
	left := total
	for i, w := range weights {
		share := new(big.Int).Mul(big.NewInt(total), big.NewInt(w))
		quo, rem := share.QuoRem(share, sum, new(big.Int))
		parts[i], remainders[i], order[i] = quo.Int64(), rem, i
		left -= parts[i]
	}
	// The remainders sum to left times the sum of the weights and each is less than that sum, so that left is less than their number.
	slices.SortStableFunc(order, func(a, b int) int { return remainders[b].Cmp(remainders[a]) })
	for _, i := range order[:left] {
		parts[i]++
	}
	return parts
}
