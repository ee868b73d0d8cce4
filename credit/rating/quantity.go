package rating

import (
	"math/big"
	"math/bits"
	"strings"

	"github.com/shopspring/decimal"
)

// Quantity is how much of a meter was counted, 0 or more, in steps of 10^-12. It is comparable, and holds more than 10^26.
type Quantity struct{ hi, lo uint64 }

// quantityPlaces is the decimal places of a Quantity: those that a document's and a usage's numbers may have.
const quantityPlaces = maxDecimalPlaces

var oneUnit = Quantity{lo: pow10[quantityPlaces]}

// quantityOf returns d, which is within the bounds of a usage's quantity.
func quantityOf(d decimal.Decimal) Quantity {
	if d.IsZero() {
		return Quantity{}
	}
	if d.Exponent() < -quantityPlaces {
		d = d.Normalize()
	}
	shift := d.Exponent() + quantityPlaces
	if d.NumDigits() <= 18 {
		f, _ := fixed128{lo: uint64(d.CoefficientInt64())}.scaled(shift)
		return Quantity{f.hi, f.lo}
	}
	n := d.Coefficient()
	n.Mul(n, bigPow10(shift))
	lo := new(big.Int).And(n, new(big.Int).SetUint64(1<<64-1)).Uint64()
	return Quantity{n.Rsh(n, 64).Uint64(), lo}
}

// parseQuantity reads what String writes, and nothing else.
func parseQuantity(s string) (_ Quantity, ok bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	if len(whole) == 0 || len(whole) > 27 || len(fraction) > quantityPlaces || !isDigits(whole) || !isDigits(fraction) {
		return Quantity{}, false
	}
	n, ok := new(big.Int).SetString(whole+fraction+strings.Repeat("0", quantityPlaces-len(fraction)), 10)
	if !ok || n.BitLen() > 128 {
		return Quantity{}, false
	}
	lo := new(big.Int).And(n, new(big.Int).SetUint64(1<<64-1)).Uint64()
	q := Quantity{n.Rsh(n, 64).Uint64(), lo}
	return q, q.String() == s
}

// Decimal returns the same number.
func (q Quantity) Decimal() decimal.Decimal {
	return fixed128{hi: q.hi, lo: q.lo, exponent: -quantityPlaces}.decimal()
}

// String writes the number plainly, without zeros at its end.
func (q Quantity) String() string { return q.Decimal().String() }

// IsZero tells whether nothing was counted.
func (q Quantity) IsZero() bool { return q.hi|q.lo == 0 }

func (q Quantity) number() number {
	return number{f: fixed128{hi: q.hi, lo: q.lo, exponent: -quantityPlaces}}
}

func (q Quantity) less(r Quantity) bool { return q.hi < r.hi || q.hi == r.hi && q.lo < r.lo }

// plus returns q + r; not ok when that does not fit.
func (q Quantity) plus(r Quantity) (_ Quantity, ok bool) {
	lo, carry := bits.Add64(q.lo, r.lo, 0)
	hi, carry := bits.Add64(q.hi, r.hi, carry)
	return Quantity{hi, lo}, carry == 0
}

// minus returns q - r; not ok when r is more.
func (q Quantity) minus(r Quantity) (_ Quantity, ok bool) {
	lo, borrow := bits.Sub64(q.lo, r.lo, 0)
	hi, borrow := bits.Sub64(q.hi, r.hi, borrow)
	return Quantity{hi, lo}, borrow == 0
}

// packages returns how many whole packages of size hold q. size must not be 0.
func (q Quantity) packages(size Quantity) number {
	if size.hi == 0 {
		hi, rest := q.hi/size.lo, q.hi%size.lo
		lo, rest := bits.Div64(rest, q.lo, size.lo)
		if rest > 0 {
			var carry uint64
			lo, carry = bits.Add64(lo, 1, 0)
			hi += carry
		}
		return number{f: fixed128{hi: hi, lo: lo}}
	}
	n, rest := new(big.Int).QuoRem(q.big(), size.big(), new(big.Int))
	if rest.Sign() > 0 {
		n.Add(n, one)
	}
	return number{q: &quotient{num: n, den: one}}
}

func (q Quantity) big() *big.Int { return fixed128{hi: q.hi, lo: q.lo}.big() }
