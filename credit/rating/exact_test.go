package rating

import (
	"math"
	"math/big"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

var any128 = rapid.Custom(func(t *rapid.T) fixed128 {
	word := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 30), rapid.Uint64Range(math.MaxUint64-30, math.MaxUint64))
	f := fixed128{lo: word.Draw(t, "lo"), exponent: int32(rapid.IntRange(-45, 20).Draw(t, "exponent"))}
	if rapid.Bool().Draw(t, "long") {
		f.hi = word.Draw(t, "hi")
	}
	return f
})

func (f fixed128) rat() *big.Rat {
	return decimal.NewFromBigInt(new(big.Int).Add(new(big.Int).Lsh(new(big.Int).SetUint64(f.hi), 64), new(big.Int).SetUint64(f.lo)), f.exponent).Rat()
}

// fits tells whether r can be a fixed128 of that exponent.
func fits(r *big.Rat, exponent int32) bool {
	n := new(big.Rat).Quo(r, decimal.New(1, exponent).Rat())
	return n.IsInt() && n.Num().BitLen() <= 128
}

func TestFixed128(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, g := any128.Draw(t, "f"), any128.Draw(t, "g")
		if d := f.decimal(); d.Rat().Cmp(f.rat()) != 0 {
			t.Fatalf("%+v is %s as a decimal", f, d)
		}
		want := new(big.Rat).Add(f.rat(), g.rat())
		exponent := min(f.exponent, g.exponent)
		sum, ok := f.plus(g)
		if ok && sum.rat().Cmp(want) != 0 {
			t.Fatalf("%+v + %+v = %+v", f, g, sum)
		}
		if !ok && fits(f.rat(), exponent) && fits(g.rat(), exponent) && fits(want, exponent) {
			t.Fatalf("%+v + %+v is given up", f, g)
		}
		if exact := f.quotient().plus(g.quotient()).decimal(); exact.Rat().Cmp(want) != 0 {
			t.Fatalf("%+v + %+v = %s", f, g, exact)
		}

		n := int32(rapid.IntRange(0, 45).Draw(t, "n"))
		scaled, ok := f.scaled(n)
		if ok != (f.isZero() || fits(f.rat(), f.exponent-n)) || ok && (scaled.exponent != f.exponent-n || scaled.rat().Cmp(f.rat()) != 0) {
			t.Fatalf("%+v scaled by %d is %+v, %v", f, n, scaled, ok)
		}
	})
}

func TestStepsOf128BitsAreThoseOfAnyNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scale := rapid.IntRange(0, credit.MaxScale).Draw(t, "scale")
		f := any128.Draw(t, "f")
		if rapid.Bool().Draw(t, "near a tie") {
			steps := rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(int64(credit.MaxAmount)-2, int64(credit.MaxAmount)+2)).Draw(t, "steps")
			digit, places := rapid.SampledFrom([]int64{0, 4, 5, 6}).Draw(t, "digit"), int32(rapid.IntRange(0, 21).Draw(t, "places"))
			n := new(big.Int).Mul(big.NewInt(steps*10+digit), bigPow10(places))
			n.Add(n, big.NewInt(rapid.Int64Range(0, 1).Draw(t, "more")))
			f = fixed128{
				hi: new(big.Int).Rsh(n, 64).Uint64(), lo: new(big.Int).And(n, new(big.Int).SetUint64(math.MaxUint64)).Uint64(),
				exponent: -int32(scale) - 1 - places,
			}
		}
		got, ok := f.steps(scale)
		want, wantOK := f.quotient().steps(scale)
		if ok != wantOK || ok && got != want {
			t.Fatalf("%+v at scale %d is %d, %v, want %d, %v", f, scale, got, ok, want, wantOK)
		}
		rounded, err := credit.RoundAmount(f.decimal(), scale)
		if ok != (err == nil) || ok && got != rounded {
			t.Fatalf("%+v at scale %d is %d, %v, want %d, %v", f, scale, got, ok, rounded, err)
		}
	})
}

func TestUnitPriceIsExact(t *testing.T) {
	number := rapid.Custom(func(t *rapid.T) decimal.Decimal {
		return decimal.RequireFromString(rapid.OneOf(
			rapid.StringMatching(`[0-9]{1,20}\.[0-9]{1,12}`), rapid.StringMatching(`[0-9]{1,4}`), rapid.SampledFrom([]string{"1", "1000000", "25", "0.15", "64", "96", "3600"}),
		).Draw(t, "number"))
	})
	rapid.Check(t, func(t *rapid.T) {
		price, per := number.Draw(t, "price"), number.Draw(t, "per")
		if per.IsZero() {
			return
		}
		u := newUnitPrice(price, per)
		want := new(big.Rat).Quo(price.Rat(), per.Rat())
		_, finite := want.FloatPrec()
		got := decimal.New(1, u.exponent).Rat()
		if u.fast {
			got.Mul(got, new(big.Rat).SetInt64(int64(u.small)))
		} else {
			got.Mul(got, new(big.Rat).SetFrac(u.num, u.den))
			if isOne(u.den) != finite || isOne(u.den) && u.num.IsInt64() {
				t.Fatalf("%s per %s is %+v", price, per, u)
			}
		}
		if got.Cmp(want) != 0 || u.fast && (!finite || u.small > math.MaxInt64) {
			t.Fatalf("%s per %s is %+v", price, per, u)
		}
	})
}
