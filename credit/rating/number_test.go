package rating

import (
	"math/big"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

var anyNumber = rapid.Custom(func(t *rapid.T) number {
	n := number{f: any128.Draw(t, "magnitude")}
	if rapid.Bool().Draw(t, "as a fraction") {
		q := n.f.quotient()
		q.den = big.NewInt(rapid.SampledFrom([]int64{1, 3, 7, 21}).Draw(t, "den"))
		n = number{q: &q}
	}
	if rapid.Bool().Draw(t, "negative") {
		n = n.negated()
	}
	return n
})

// Numbers in 128 bits and as fractions are the same numbers.
func TestNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, m := anyNumber.Draw(t, "n"), anyNumber.Draw(t, "m")
		a, b := n.rat(), m.rat()
		if got := n.plus(m).rat(); got.Cmp(new(big.Rat).Add(a, b)) != 0 {
			t.Fatalf("%+v + %+v = %s", n, m, got)
		}
		if got := n.minus(m).rat(); got.Cmp(new(big.Rat).Sub(a, b)) != 0 {
			t.Fatalf("%+v - %+v = %s", n, m, got)
		}
		if n.sign() != a.Sign() || n.negated().sign() != -a.Sign() || n.minus(n).sign() != 0 {
			t.Fatalf("%+v has sign %d", n, n.sign())
		}
		price := decimal.New(rapid.Int64Range(0, 1<<40).Draw(t, "price"), -6)
		per := decimal.New(rapid.SampledFrom([]int64{1, 3, 64, 3600, 1_000_000}).Draw(t, "per"), 0)
		u := newUnitPrice(price, per)
		if got := n.times(&u).rat(); got.Cmp(new(big.Rat).Mul(a, new(big.Rat).Quo(price.Rat(), per.Rat()))) != 0 {
			t.Fatalf("%+v * %s / %s = %s", n, price, per, got)
		}
		scale := rapid.IntRange(0, credit.MaxScale).Draw(t, "scale")
		steps, ok := n.steps(scale)
		q := n.quotient()
		want, wantOK := q.steps(scale)
		mirrored, mirroredOK := n.negated().steps(scale)
		if ok != wantOK || ok && steps != want || ok != mirroredOK || ok && steps != -mirrored {
			t.Fatalf("%+v at scale %d is %d, %v, want %d, %v; negated it is %d, %v", n, scale, steps, ok, want, wantOK, mirrored, mirroredOK)
		}
	})
}

func TestQuantity(t *testing.T) {
	any := rapid.Custom(func(t *rapid.T) decimal.Decimal {
		return decimal.RequireFromString(rapid.OneOf(
			rapid.StringMatching(`[0-9]{1,20}\.[0-9]{1,12}`), rapid.StringMatching(`[0-9]{1,3}`), rapid.SampledFrom([]string{"0", "1000000", "99999999999999999999.999999999999", "18446744.073709551616"}),
		).Draw(t, "number"))
	})
	rapid.Check(t, func(t *rapid.T) {
		d, e := any.Draw(t, "d"), any.Draw(t, "e")
		q, r := quantityOf(d), quantityOf(e)
		if !q.Decimal().Equal(d) || q.String() != d.String() {
			t.Fatalf("%s is %s", d, q)
		}
		if back, ok := parseQuantity(q.String()); !ok || back != q {
			t.Fatalf("%s comes back as %s", q, back)
		}
		if sum, ok := q.plus(r); !ok || !sum.Decimal().Equal(d.Add(e)) {
			t.Fatalf("%s + %s = %s", q, r, sum)
		}
		if diff, ok := q.minus(r); ok != d.GreaterThanOrEqual(e) || ok && !diff.Decimal().Equal(d.Sub(e)) || q.less(r) != d.LessThan(e) {
			t.Fatalf("%s - %s = %s, %v", q, r, diff, ok)
		}
		if e.IsZero() {
			return
		}
		n := new(big.Rat).Quo(d.Rat(), e.Rat())
		want := new(big.Int).Quo(n.Num(), n.Denom())
		if !n.IsInt() {
			want.Add(want, big.NewInt(1))
		}
		if got := q.packages(r).rat(); !got.IsInt() || got.Num().Cmp(want) != 0 {
			t.Fatalf("%s in packages of %s: %s, want %s", q, r, got, want)
		}
	})
}
