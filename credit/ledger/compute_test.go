package ledger

import (
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"
)

func exact(s string) decimal.Decimal { return decimal.RequireFromString(s) }

// Hand-computed: 10.4 + 0.3 + 2.6 + 0.2 = 13.5, half to even 14; floors are 10, 0, 2, 0; the two that are left go to .6 and .4.
func TestCompute(t *testing.T) {
	large, small := ComputeLine{ComputeCost, "chat", "large"}, ComputeLine{ComputeCost, "chat", "small"}
	promo, none := ComputeLine{PromotionalCompute, "chat", "large"}, ComputeLine{ComputeCost, "", ""}
	first := ComputeTarget(map[ComputeLine]decimal.Decimal{large: exact("10.4"), small: exact("0.3"), promo: exact("2.6"), none: exact("0.2")})
	if got, want := text(Compute(fact, first, nil)), "dr 5010 0.11 chat/large; dr 6010 0.03 chat/large; cr 2060 0.14"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// The cost of a model moves to another: nothing is owed besides.
	second := ComputeTarget(map[ComputeLine]decimal.Decimal{large: exact("9"), small: exact("2.3"), promo: exact("2.6")})
	if got, want := text(Compute(fact, second, first)), "cr 5010 0.02 chat/large; dr 5010 0.02 chat/small"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// The provider is owed less.
	third := ComputeTarget(map[ComputeLine]decimal.Decimal{small: exact("2.3")})
	if got, want := text(Compute(fact, third, second)), "cr 5010 0.09 chat/large; cr 6010 0.03 chat/large; dr 2060 0.12"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if e := Compute(fact, third, third); !e.Empty() {
		t.Errorf("nothing has changed: %s", text(e))
	}
	if got := ComputeTarget(nil); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// The parts make the rounded sum, each is within one of its cost, and entry after entry books the last target.
func TestComputeReachesItsTarget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		costs := rapid.MapOf(rapid.Custom(func(t *rapid.T) ComputeLine {
			return ComputeLine{rapid.SampledFrom([]Account{ComputeCost, PromotionalCompute}).Draw(t, "account"), rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "product"),
				rapid.SampledFrom([]string{"x", "y"}).Draw(t, "model")}
		}), rapid.Custom(func(t *rapid.T) decimal.Decimal {
			return decimal.New(rapid.Int64Range(-1_000_000, 1_000_000_000).Draw(t, "cost"), -5)
		}))
		booked := map[ComputeLine]int64{}
		for range rapid.IntRange(1, 4).Draw(t, "times") {
			c := costs.Draw(t, "costs")
			target := ComputeTarget(c)
			var sum decimal.Decimal
			var parts int64
			for l, x := range c {
				sum, parts = sum.Add(x), parts+target[l]
				if d := x.Sub(decimal.NewFromInt(target[l])).Abs(); d.GreaterThanOrEqual(decimal.NewFromInt(1)) {
					t.Fatalf("%s is booked as %d", x, target[l])
				}
			}
			if want := sum.RoundBank(0).IntPart(); parts != want {
				t.Fatalf("the parts make %d, not %d", parts, want)
			}
			e := Compute(fact, target, booked)
			if err := e.Check(); !e.Empty() && err != nil {
				t.Fatal(err)
			}
			for _, p := range e.Postings {
				n := p.Money.Minor
				if p.Side == Cr {
					n = -n
				}
				if p.Account != AccruedCompute {
					booked[ComputeLine{p.Account, p.Product, p.Model}] += n
				}
			}
			for l, n := range booked {
				if n != target[l] {
					t.Fatalf("%v is booked at %d, not %d", l, n, target[l])
				}
			}
		}
	})
}
