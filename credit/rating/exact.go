package rating

import (
	"math/big"
	"math/bits"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// CostPlaces is how many decimal places a [PricedLine]'s Cost has when the exact cost has no finite decimal.
const CostPlaces = 24

// unitPrice is Price/Per: num/den * 10^exponent, where den has no factor 2 and 5. When den is 1 and num fits 63 bits, small is
// num and costs can be computed in 128 bits; num and den are nil then.
type unitPrice struct {
	fast     bool
	small    uint64
	exponent int32
	num, den *big.Int
}

func newUnitPrice(price, per decimal.Decimal) unitPrice {
	price, per = price.Normalize(), per.Normalize()
	num, den := price.Coefficient(), per.Coefficient()
	exponent := price.Exponent() - per.Exponent()
	if common := new(big.Int).GCD(nil, nil, num, den); !isOne(common) {
		num.Quo(num, common)
		den.Quo(den, common)
	}
	// A factor 2 of the denominator is a factor 5 of the numerator and one place more, and the other way round.
	for twos := den.TrailingZeroBits(); twos > 0; twos-- {
		num.Mul(num, five)
		den.Rsh(den, 1)
		exponent--
	}
	for quo, rem := new(big.Int), new(big.Int); den.Cmp(five) >= 0; exponent-- {
		if quo.QuoRem(den, five, rem); rem.Sign() != 0 {
			break
		}
		num.Lsh(num, 1)
		den.Set(quo)
	}
	if isOne(den) && num.IsInt64() {
		return unitPrice{fast: true, small: num.Uint64(), exponent: exponent}
	}
	return unitPrice{num: num, den: den, exponent: exponent}
}

var one, five = big.NewInt(1), big.NewInt(5)

func isOne(n *big.Int) bool { return n.IsInt64() && n.Int64() == 1 }

// fixed128 is a decimal number hi:lo * 10^exponent, not negative.
type fixed128 struct {
	hi, lo   uint64
	exponent int32
}

// timesFast returns quantity * u, for a quantity of at most 18 digits and a fast u.
func (u *unitPrice) timesFast(quantity decimal.Decimal) fixed128 {
	hi, lo := bits.Mul64(uint64(quantity.CoefficientInt64()), u.small)
	return fixed128{hi: hi, lo: lo, exponent: quantity.Exponent() + u.exponent}
}

func (f fixed128) isZero() bool { return f.hi|f.lo == 0 }

// decimal returns the same number.
func (f fixed128) decimal() decimal.Decimal {
	if f.hi == 0 && f.lo < 1<<63 {
		return decimal.New(int64(f.lo), f.exponent)
	}
	return decimal.NewFromBigInt(f.big(), f.exponent)
}

func (f fixed128) big() *big.Int {
	n := new(big.Int).SetUint64(f.hi)
	return n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(f.lo))
}

// quotient returns the same number.
func (f fixed128) quotient() quotient {
	return quotient{num: f.big(), den: one, exponent: f.exponent}
}

// pow10 is the powers of ten that fit 64 bits.
var pow10 = func() (p [20]uint64) {
	p[0] = 1
	for i := range p[1:] {
		p[i+1] = p[i] * 10
	}
	return p
}()

// scaled returns the same number with an exponent lower by n; not ok when that does not fit.
func (f fixed128) scaled(n int32) (_ fixed128, ok bool) {
	f.exponent -= n
	for ; n > 0; n -= 19 {
		by := pow10[min(n, 19)]
		over, high := bits.Mul64(f.hi, by)
		carry, lo := bits.Mul64(f.lo, by)
		hi, overflow := bits.Add64(high, carry, 0)
		if over|overflow != 0 {
			return f, false
		}
		f.hi, f.lo = hi, lo
	}
	return f, true
}

// plus returns f + g; not ok when that does not fit.
func (f fixed128) plus(g fixed128) (_ fixed128, ok bool) {
	switch {
	case f.isZero():
		return g, true
	case g.isZero():
		return f, true
	case f.exponent > g.exponent:
		if f, ok = f.scaled(f.exponent - g.exponent); !ok {
			return f, false
		}
	case g.exponent > f.exponent:
		if g, ok = g.scaled(g.exponent - f.exponent); !ok {
			return f, false
		}
	}
	lo, carry := bits.Add64(f.lo, g.lo, 0)
	hi, carry := bits.Add64(f.hi, g.hi, carry)
	return fixed128{hi: hi, lo: lo, exponent: f.exponent}, carry == 0
}

// steps returns f in steps of 10^-scale, rounded half to even; not ok when that is beyond [credit.MaxAmount].
func (f fixed128) steps(scale int) (_ credit.Amount, ok bool) {
	if f.isZero() {
		return 0, true
	}
	drop := -(f.exponent + int32(scale)) // the digits to round away
	if drop <= 0 {
		f, ok = f.scaled(-drop)
		return credit.Amount(f.lo), ok && f.hi == 0 && f.lo <= uint64(credit.MaxAmount)
	}
	more := false // whether a digit after the first one to round away is not 0
	for n := drop - 1; n > 0; n -= 19 {
		by := pow10[min(n, 19)]
		var rem uint64
		f.hi, rem = f.hi/by, f.hi%by
		f.lo, rem = bits.Div64(rem, f.lo, by)
		more = more || rem != 0
	}
	hi, rem := f.hi/10, f.hi%10
	lo, digit := bits.Div64(rem, f.lo, 10)
	if hi != 0 || lo > uint64(credit.MaxAmount) {
		return 0, false
	}
	if digit > 5 || digit == 5 && (more || lo%2 == 1) {
		lo++
	}
	return credit.Amount(lo), lo <= uint64(credit.MaxAmount)
}

// minus returns |f - g|, and whether f is less than g; not ok when that does not fit.
func (f fixed128) minus(g fixed128) (_ fixed128, less, ok bool) {
	switch {
	case g.isZero():
		return f, false, true
	case f.isZero():
		return g, true, true
	case f.exponent > g.exponent:
		if f, ok = f.scaled(f.exponent - g.exponent); !ok {
			return f, false, false
		}
	case g.exponent > f.exponent:
		if g, ok = g.scaled(g.exponent - f.exponent); !ok {
			return f, false, false
		}
	}
	if less = f.hi < g.hi || f.hi == g.hi && f.lo < g.lo; less {
		f, g = g, f
	}
	lo, borrow := bits.Sub64(f.lo, g.lo, 0)
	hi, _ := bits.Sub64(f.hi, g.hi, borrow)
	return fixed128{hi: hi, lo: lo, exponent: f.exponent}, less, true
}

// times64 returns f * n * 10^exponent; not ok when that does not fit.
func (f fixed128) times64(n uint64, exponent int32) (_ fixed128, ok bool) {
	over, high := bits.Mul64(f.hi, n)
	carry, lo := bits.Mul64(f.lo, n)
	hi, overflow := bits.Add64(high, carry, 0)
	return fixed128{hi: hi, lo: lo, exponent: f.exponent + exponent}, over|overflow == 0
}

// quotient is any number: num/den * 10^exponent.
type quotient struct {
	num, den *big.Int // never changed; den > 0
	exponent int32
}

// times returns quantity * u.
func (u *unitPrice) times(quantity decimal.Decimal) quotient {
	num, den := u.num, u.den
	if u.fast {
		num, den = new(big.Int).SetUint64(u.small), one
	}
	coefficient := quantity.Coefficient()
	return quotient{num: coefficient.Mul(coefficient, num), den: den, exponent: quantity.Exponent() + u.exponent}
}

// plus returns q + r.
func (q quotient) plus(r quotient) quotient {
	if q.exponent < r.exponent {
		q, r = r, q
	}
	num := new(big.Int).Mul(q.num, bigPow10(q.exponent-r.exponent))
	if q.den.Cmp(r.den) == 0 {
		return quotient{num: num.Add(num, r.num), den: r.den, exponent: r.exponent}
	}
	num.Mul(num, r.den)
	num.Add(num, new(big.Int).Mul(r.num, q.den))
	return quotient{num: num, den: new(big.Int).Mul(q.den, r.den), exponent: r.exponent}
}

// decimal returns q exactly if it is a finite decimal, and otherwise rounded half to even to CostPlaces. den must have no factor
// 2 and 5.
func (q quotient) decimal() decimal.Decimal {
	if quo, rem := new(big.Int).QuoRem(q.num, q.den, new(big.Int)); rem.Sign() == 0 {
		return decimal.NewFromBigInt(quo, q.exponent)
	}
	return decimal.NewFromBigInt(q.round(CostPlaces), -CostPlaces)
}

// steps is [fixed128.steps] for any number; not ok either when that is below -[credit.MaxAmount].
func (q quotient) steps(scale int) (_ credit.Amount, ok bool) {
	n := q.round(int32(scale))
	if !n.IsInt64() || n.Int64() > int64(credit.MaxAmount) || n.Int64() < -int64(credit.MaxAmount) {
		return 0, false
	}
	return credit.Amount(n.Int64()), true
}

// round returns q in steps of 10^-places, rounded half to even.
func (q quotient) round(places int32) *big.Int {
	num, den := q.num, q.den
	if shift := q.exponent + places; shift >= 0 {
		num = new(big.Int).Mul(num, bigPow10(shift))
	} else {
		den = new(big.Int).Mul(den, bigPow10(-shift))
	}
	quo, rem := new(big.Int).QuoRem(num, den, new(big.Int)) // towards 0
	if c := rem.Lsh(rem, 1).CmpAbs(den); c > 0 || c == 0 && quo.Bit(0) == 1 {
		quo.Add(quo, big.NewInt(int64(num.Sign())))
	}
	return quo
}

func bigPow10(n int32) *big.Int {
	if int(n) < len(pow10) {
		return new(big.Int).SetUint64(pow10[n])
	}
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}
