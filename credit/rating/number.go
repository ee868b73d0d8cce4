package rating

import (
	"math/big"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// number is an exact amount with a sign: in 128 bits while it is a finite decimal that fits, and as a fraction of any length from there on.
type number struct {
	neg bool // of f; never of 0
	f   fixed128
	q   *quotient // nil: f says it
}

// numberOf returns d, which is not negative.
func numberOf(d decimal.Decimal) number {
	d = d.Normalize()
	if d.NumDigits() <= 18 {
		return number{f: fixed128{lo: uint64(d.CoefficientInt64()), exponent: d.Exponent()}}
	}
	return number{q: &quotient{num: d.Coefficient(), den: one, exponent: d.Exponent()}}
}

func (n number) quotient() quotient {
	if n.q != nil {
		return *n.q
	}
	q := n.f.quotient()
	if n.neg {
		q.num.Neg(q.num)
	}
	return q
}

func (n number) sign() int {
	switch {
	case n.q != nil:
		return n.q.num.Sign()
	case n.neg:
		return -1
	case n.f.isZero():
		return 0
	}
	return 1
}

func (n number) negated() number {
	if n.q == nil {
		n.neg = !n.neg && !n.f.isZero()
		return n
	}
	return number{q: &quotient{num: new(big.Int).Neg(n.q.num), den: n.q.den, exponent: n.q.exponent}}
}

func (n number) plus(m number) number {
	if n.q == nil && m.q == nil {
		if n.neg == m.neg {
			if f, ok := n.f.plus(m.f); ok {
				return number{neg: n.neg, f: f}
			}
		} else if f, less, ok := n.f.minus(m.f); ok {
			return number{neg: n.neg != less && !f.isZero(), f: f}
		}
	}
	if n.sign() == 0 {
		return m
	}
	if m.sign() == 0 {
		return n
	}
	q := n.quotient().plus(m.quotient())
	return number{q: &q}
}

func (n number) minus(m number) number { return n.plus(m.negated()) }

// times returns n * u.
func (n number) times(u *unitPrice) number {
	if n.q == nil && u.fast {
		if f, ok := n.f.times64(u.small, u.exponent); ok {
			return number{neg: n.neg && !f.isZero(), f: f}
		}
	}
	q := n.quotient()
	num, den := u.num, u.den
	if u.fast {
		num, den = new(big.Int).SetUint64(u.small), one
	}
	return number{q: &quotient{num: new(big.Int).Mul(q.num, num), den: new(big.Int).Mul(q.den, den), exponent: q.exponent + u.exponent}}
}

// decimal is [quotient.decimal].
func (n number) decimal() decimal.Decimal {
	switch {
	case n.q != nil:
		return n.q.decimal()
	case n.neg:
		return n.f.decimal().Neg()
	}
	return n.f.decimal()
}

// rat returns the same number.
func (n number) rat() *big.Rat {
	q := n.quotient()
	r := new(big.Rat).SetFrac(q.num, q.den)
	if q.exponent < 0 {
		return r.Quo(r, new(big.Rat).SetInt(bigPow10(-q.exponent)))
	}
	return r.Mul(r, new(big.Rat).SetInt(bigPow10(q.exponent)))
}

// steps returns n in steps of 10^-scale, rounded half to even; not ok when that is beyond [credit.MaxAmount] either way.
func (n number) steps(scale int) (_ credit.Amount, ok bool) {
	if n.q != nil {
		return n.q.steps(scale)
	}
	a, ok := n.f.steps(scale)
	if n.neg {
		return -a, ok
	}
	return a, ok
}
