package credit_test

import (
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

func drawScale(t *rapid.T) int { return rapid.IntRange(0, credit.MaxScale).Draw(t, "scale") }

// anyAmount prefers the ends of the range and round numbers, where digits carry.
var anyAmount = rapid.Map(rapid.OneOf(
	rapid.Int64Range(0, int64(credit.MaxAmount)),
	rapid.Int64Range(0, 2_000_000),
	rapid.Int64Range(int64(credit.MaxAmount)-1_000, int64(credit.MaxAmount)),
	rapid.Custom(func(t *rapid.T) int64 {
		n := rapid.Int64Range(1, 9_007).Draw(t, "digits")
		for range rapid.IntRange(0, 12).Draw(t, "zeros") {
			n *= 10
		}
		return n
	}),
), func(n int64) credit.Amount { return credit.Amount(n) })

func TestAmountTextRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, scale := anyAmount.Draw(t, "amount"), drawScale(t)
		text := a.Format(scale)
		if want := decimal.New(int64(a), -int32(scale)).String(); text != want {
			t.Fatalf("%d at scale %d formats as %q, want %q", a, scale, text, want)
		}
		back, err := credit.ParseAmount(text, scale)
		if err != nil || back != a {
			t.Fatalf("%q at scale %d parses as %d, %v, want %d", text, scale, back, err, a)
		}
		if d := a.Decimal(scale); d.String() != text {
			t.Fatalf("Decimal is %s, want %s", d, text)
		}
		if got := string(a.Append([]byte("x"), scale)); got != "x"+text {
			t.Fatalf("Append wrote %q", got)
		}
		if round, err := credit.RoundAmount(a.Decimal(scale), scale); err != nil || round != a {
			t.Fatalf("RoundAmount gives %d, %v, want %d", round, err, a)
		}
	})
}

func TestAmountFormatsEveryInt64(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, scale := rapid.Int64().Draw(t, "n"), drawScale(t)
		if got, want := credit.Amount(n).Format(scale), decimal.New(n, -int32(scale)).String(); got != want {
			t.Fatalf("%d at scale %d formats as %q, want %q", n, scale, got, want)
		}
	})
	for _, n := range []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64} {
		for scale := range credit.MaxScale + 1 {
			if got, want := credit.Amount(n).Format(scale), decimal.New(n, -int32(scale)).String(); got != want {
				t.Errorf("%d at scale %d formats as %q, want %q", n, scale, got, want)
			}
		}
	}
}

func TestParseAmount(t *testing.T) {
	for _, c := range []struct {
		text  string
		scale int
		want  credit.Amount
	}{
		{"0", 0, 0}, {"0", 6, 0}, {"0.000000", 6, 0}, {"1", 0, 1}, {"1", 6, 1_000_000}, {"12.5", 6, 12_500_000}, {"12.5", 1, 125},
		{"0.000001", 6, 1}, {"00012.50", 2, 1250}, {"1.000", 0, 1}, {"1.500000000000", 1, 15},
		{"9007199254740991", 0, credit.MaxAmount}, {"9007199254.740991", 6, credit.MaxAmount}, {"900719925474099.1", 1, credit.MaxAmount},
		{"0000000000000009007199254.740991", 6, credit.MaxAmount},
	} {
		got, err := credit.ParseAmount(c.text, c.scale)
		if err != nil || got != c.want {
			t.Errorf("ParseAmount(%q, %d) = %d, %v, want %d", c.text, c.scale, got, err, c.want)
		}
	}
}

var refusedAmounts = []string{
	"", " ", "-1", "-0", "+1", "1e3", "1E3", "0x10", "NaN", "nan", "Inf", "-Inf", "infinity", " 1", "1 ", "1 000", "1,5", "1_000", ".", ".5", "5.",
	"1..2", "1.2.3", "١٢", "１２", "1２", "1.٥", "½", "²", "1\x00", "\n1", "1\n", "null", "12a", "$5",
	"1.0000001", "9007199254.740992", "9007199255", "99999999999999999999", "18446744073709551616",
	"000000000000009007199254.74099100", strings.Repeat("1", 40), strings.Repeat("0", 40), "0." + strings.Repeat("0", 40), "1\xff", strings.Repeat("9", 1<<20),
}

func TestParseAmountRefuses(t *testing.T) {
	for _, text := range refusedAmounts {
		got, err := credit.ParseAmount(text, 6)
		if credit.CodeOf(err) != credit.InvalidAmount || got != 0 {
			t.Errorf("ParseAmount(%.40q, 6) = %d, %v, want invalid_amount", text, got, err)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("the refusal of %.40q is %d bytes long", text, len(err.Error()))
		}
	}
	for scale := range credit.MaxScale + 1 {
		tooFine := "0." + strings.Repeat("0", scale) + "1"
		if _, err := credit.ParseAmount(tooFine, scale); credit.CodeOf(err) != credit.InvalidAmount {
			t.Errorf("ParseAmount(%q, %d) gives %v, want invalid_amount", tooFine, scale, err)
		}
		tooLarge := (credit.MaxAmount + 1).Format(scale)
		if _, err := credit.ParseAmount(tooLarge, scale); credit.CodeOf(err) != credit.InvalidAmount {
			t.Errorf("ParseAmount(%q, %d) gives %v, want invalid_amount", tooLarge, scale, err)
		}
	}
}

var plainDecimal = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)

// parseAmountSlowly is what ParseAmount means, in the arithmetic of decimal.
func parseAmountSlowly(s string, scale int) (credit.Amount, bool) {
	if len(s) > 32 || !plainDecimal.MatchString(s) {
		return 0, false
	}
	steps := decimal.RequireFromString(s).Shift(int32(scale))
	if !steps.IsInteger() || steps.Cmp(decimal.New(int64(credit.MaxAmount), 0)) > 0 {
		return 0, false
	}
	return credit.Amount(steps.IntPart()), true
}

func checkParseAmount(t interface{ Fatalf(string, ...any) }, s string, scale int) {
	got, err := credit.ParseAmount(s, scale)
	want, ok := parseAmountSlowly(s, scale)
	if (err == nil) != ok || got != want {
		t.Fatalf("ParseAmount(%q, %d) = %d, %v, want %d, %v", s, scale, got, err, want, ok)
	}
	if err != nil {
		if credit.CodeOf(err) != credit.InvalidAmount {
			t.Fatalf("ParseAmount(%q, %d) refuses with %v", s, scale, err)
		}
		return
	}
	if back, err := credit.ParseAmount(got.Format(scale), scale); err != nil || back != got {
		t.Fatalf("%q is %d, which formats as %q and comes back as %d, %v", s, got, got.Format(scale), back, err)
	}
}

func TestParseAmountAgreesWithDecimal(t *testing.T) {
	numberLike := rapid.OneOf(
		rapid.StringMatching(`0{0,3}[0-9]{0,18}(\.[0-9]{0,14})?`),
		rapid.StringMatching(`[0-9.eE+\- ]{0,12}`),
		rapid.StringN(0, 40, 60),
	)
	rapid.Check(t, func(t *rapid.T) { checkParseAmount(t, numberLike.Draw(t, "text"), drawScale(t)) })
}

func FuzzParseAmount(f *testing.F) {
	for _, s := range refusedAmounts {
		if len(s) <= 64 {
			f.Add(s, 6)
		}
	}
	f.Add("12.5", 6)
	f.Add("9007199254740991", 0)
	f.Fuzz(func(t *testing.T, s string, scale int) {
		scale = int(uint(scale) % (credit.MaxScale + 1))
		checkParseAmount(t, s, scale)
	})
}

func TestRoundAmount(t *testing.T) {
	for _, c := range []struct {
		credits string
		scale   int
		want    credit.Amount
	}{
		{"0", 6, 0}, {"-0", 6, 0}, {"0.5", 0, 0}, {"1.5", 0, 2}, {"2.5", 0, 2}, {"2.500001", 0, 3}, {"2.499999", 0, 2},
		{"0.0000005", 6, 0}, {"0.0000015", 6, 2}, {"0.00000050000000000000000000000001", 6, 1}, {"1e3", 2, 100_000},
		{"9007199254.7409914", 6, credit.MaxAmount}, {"9007199254740991.5", 0, -1}, {"9007199254740990.5", 0, credit.MaxAmount - 1},
		{"9007199254740992", 0, -1}, {"1e16", 0, -1}, {"-1", 6, -1}, {"-0.0000001", 6, -1}, {"-1e-9000", 6, -1},
		{"1e-9000", 6, 0}, {"1e9000", 6, -1}, {"0e9000", 6, 0}, {"0.09", 0, 0}, {"0.99", 0, 1},
	} {
		got, err := credit.RoundAmount(decimal.RequireFromString(c.credits), c.scale)
		if c.want < 0 {
			if credit.CodeOf(err) != credit.InvalidAmount {
				t.Errorf("RoundAmount(%s, %d) = %d, %v, want invalid_amount", c.credits, c.scale, got, err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("RoundAmount(%s, %d) = %d, %v, want %d", c.credits, c.scale, got, err, c.want)
		}
	}
}

// An exponent that no memory could hold written out is judged by its size.
func TestRoundAmountOfAbsurdExponents(t *testing.T) {
	if got, err := credit.RoundAmount(decimal.New(1, math.MaxInt32), 6); credit.CodeOf(err) != credit.InvalidAmount {
		t.Errorf("got %d, %v, want invalid_amount", got, err)
	}
	if got, err := credit.RoundAmount(decimal.New(1, math.MinInt32), 6); err != nil || got != 0 {
		t.Errorf("got %d, %v, want 0", got, err)
	}
}

func TestRoundAmountIsHalfToEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scale := drawScale(t)
		credits := decimal.NewFromBigInt(
			new(big.Int).Mul(big.NewInt(rapid.Int64Range(0, 1<<62).Draw(t, "coefficient")), big.NewInt(rapid.Int64Range(1, 1000).Draw(t, "times"))),
			-int32(rapid.IntRange(0, 24).Draw(t, "places")))
		exact := new(big.Rat).Mul(credits.Rat(), new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
		got, err := credit.RoundAmount(credits, scale)
		if err != nil {
			if exact.Cmp(new(big.Rat).SetFrac64(2*int64(credit.MaxAmount)+1, 2)) < 0 {
				t.Fatalf("RoundAmount(%s, %d) refuses with %v", credits, scale, err)
			}
			return
		}
		off := new(big.Rat).Sub(exact, new(big.Rat).SetInt64(int64(got)))
		switch off.Abs(off).Cmp(big.NewRat(1, 2)) {
		case 1:
			t.Fatalf("RoundAmount(%s, %d) = %d, off by %s", credits, scale, got, off)
		case 0:
			if got%2 != 0 {
				t.Fatalf("RoundAmount(%s, %d) = %d, odd at a tie", credits, scale, got)
			}
		}
	})
}

func TestMulDivAgreesWithBig(t *testing.T) {
	number := rapid.OneOf(rapid.Int64Range(0, math.MaxInt64), rapid.Int64Range(0, 100), rapid.Int64Range(math.MaxInt64-100, math.MaxInt64))
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := number.Draw(t, "a"), number.Draw(t, "b"), max(number.Draw(t, "c"), 1)
		down, rest := new(big.Int).QuoRem(new(big.Int).Mul(big.NewInt(a), big.NewInt(b)), big.NewInt(c), new(big.Int))
		up := new(big.Int).Set(down)
		if rest.Sign() != 0 {
			up.Add(up, big.NewInt(1))
		}
		compare(t, "MulDiv", credit.MulDiv, a, b, c, down)
		compare(t, "MulDivUp", credit.MulDivUp, a, b, c, up)
		half := new(big.Int).Mul(big.NewInt(a), big.NewInt(b)) // (2ab + c) / 2c, rounded down
		half.Lsh(half, 1).Add(half, big.NewInt(c))
		compare(t, "MulDivRound", credit.MulDivRound, a, b, c, half.Quo(half, new(big.Int).Lsh(big.NewInt(c), 1)))
	})
}

func compare(t *rapid.T, name string, f func(a, b, c int64) int64, a, b, c int64, want *big.Int) {
	got, panicked := attempt(f, a, b, c)
	switch {
	case panicked && want.IsInt64():
		t.Fatalf("%s(%d, %d, %d) panics, want %s", name, a, b, c, want)
	case !panicked && (!want.IsInt64() || want.Int64() != got):
		t.Fatalf("%s(%d, %d, %d) = %d, want %s", name, a, b, c, got, want)
	}
}

func attempt(f func(a, b, c int64) int64, a, b, c int64) (got int64, panicked bool) {
	defer func() { panicked = recover() != nil }()
	return f(a, b, c), false
}

func TestMulDivEdges(t *testing.T) {
	for _, c := range []struct{ a, b, c, down, up int64 }{
		{0, 0, 1, 0, 0}, {7, 1, 3, 2, 3}, {6, 1, 3, 2, 2}, {math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64},
		{int64(credit.MaxAmount), int64(credit.MaxAmount), int64(credit.MaxAmount), int64(credit.MaxAmount), int64(credit.MaxAmount)},
		{math.MaxInt64, 2, 3, 6148914691236517204, 6148914691236517205},
	} {
		if down, up := credit.MulDiv(c.a, c.b, c.c), credit.MulDivUp(c.a, c.b, c.c); down != c.down || up != c.up {
			t.Errorf("%d*%d/%d = %d and %d, want %d and %d", c.a, c.b, c.c, down, up, c.down, c.up)
		}
	}
	for _, c := range [][3]int64{{-1, 1, 1}, {1, -1, 1}, {1, 1, 0}, {1, 1, -1}, {math.MaxInt64, math.MaxInt64, 1}, {math.MaxInt64, 4, 2}} {
		if got, panicked := attempt(credit.MulDiv, c[0], c[1], c[2]); !panicked {
			t.Errorf("MulDiv(%d) = %d, want a panic", c, got)
		}
	}
	// (2^64-1)/2 fits rounded down and not rounded up.
	if got, panicked := attempt(credit.MulDivUp, 3, math.MaxUint64/3, 2); !panicked {
		t.Errorf("MulDivUp = %d, want a panic", got)
	}
}

func TestAllocateVectors(t *testing.T) {
	for _, c := range []struct {
		total         int64
		weights, want []int64
	}{
		{100, []int64{1, 1, 1}, []int64{34, 33, 33}},
		{5833, []int64{5, 3, 1, 0}, []int64{3241, 1944, 648, 0}},
		{0, []int64{1, 2}, []int64{0, 0}},
		{7, []int64{0, 0, 0}, []int64{7, 0, 0}},
		{7, []int64{0, 5}, []int64{0, 7}},
		{1, []int64{1, 1}, []int64{1, 0}},
		{2, []int64{1, 3}, []int64{1, 1}}, // remainders 2/4 and 2/4: the earlier
		{10_000, []int64{100, 12}, []int64{8929, 1071}},
		{math.MaxInt64, []int64{math.MaxInt64, math.MaxInt64}, []int64{math.MaxInt64/2 + 1, math.MaxInt64 / 2}},
	} {
		got := credit.Allocate(c.total, c.weights)
		if len(got) != len(c.want) {
			t.Fatalf("Allocate(%d, %d) = %d, want %d", c.total, c.weights, got, c.want)
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("Allocate(%d, %d) = %d, want %d", c.total, c.weights, got, c.want)
				break
			}
		}
	}
}

func TestAllocate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.OneOf(rapid.Int64Range(0, 200), rapid.Int64Range(0, math.MaxInt64)).Draw(t, "total")
		weights := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(0, 5), rapid.Int64Range(0, math.MaxInt64)), 1, 12).Draw(t, "weights")
		parts := credit.Allocate(total, weights)

		sum, weight := new(big.Int), new(big.Int)
		for i, p := range parts {
			sum.Add(sum, big.NewInt(p))
			weight.Add(weight, big.NewInt(weights[i]))
		}
		if len(parts) != len(weights) || !sum.IsInt64() || sum.Int64() != total {
			t.Fatalf("Allocate(%d, %d) = %d sums to %s", total, weights, parts, sum)
		}
		if weight.Sign() == 0 {
			if parts[0] != total {
				t.Fatalf("with no weight at all the parts are %d", parts)
			}
			return
		}
		// The exact share of each, and how far above its floor the part lies: 0 or 1.
		remainder, extra := make([]*big.Rat, len(parts)), make([]int64, len(parts))
		for i, p := range parts {
			share := new(big.Rat).SetFrac(new(big.Int).Mul(big.NewInt(total), big.NewInt(weights[i])), weight)
			floor := new(big.Int).Quo(share.Num(), share.Denom())
			extra[i] = new(big.Int).Sub(big.NewInt(p), floor).Int64()
			remainder[i] = share.Sub(share, new(big.Rat).SetInt(floor))
			if extra[i] != 0 && (extra[i] != 1 || remainder[i].Sign() == 0) {
				t.Fatalf("part %d of Allocate(%d, %d) = %d is not its share rounded", i, total, weights, parts)
			}
		}
		for i := range parts {
			for j := range parts {
				if c := remainder[i].Cmp(remainder[j]); extra[i] < extra[j] && (c > 0 || c == 0 && i < j) {
					t.Fatalf("Allocate(%d, %d) = %d: %d goes before %d", total, weights, parts, i, j)
				}
			}
		}
	})
}

// Allocate gives what its definition, carried out word by word, gives.
func TestAllocateDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.OneOf(rapid.Int64Range(0, 200), rapid.Int64Range(0, math.MaxInt64)).Draw(t, "total")
		weights := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(0, 5), rapid.Int64Range(0, math.MaxInt64)), 1, 60).Draw(t, "weights")
		if got, want := credit.Allocate(total, weights), naiveAllocate(total, weights); !slices.Equal(got, want) {
			t.Fatalf("Allocate(%d, %d) = %d, want %d", total, weights, got, want)
		}
	})
}

// naiveAllocate looks for the largest remainder again for each step that is left.
func naiveAllocate(total int64, weights []int64) []int64 {
	parts, remainders := make([]int64, len(weights)), make([]*big.Int, len(weights))
	sum := new(big.Int)
	for _, w := range weights {
		sum.Add(sum, big.NewInt(w))
	}
	if sum.Sign() == 0 {
		parts[0] = total
		return parts
	}
	left := total
	for i, w := range weights {
		share := new(big.Int).Mul(big.NewInt(total), big.NewInt(w))
		quo, rem := share.QuoRem(share, sum, new(big.Int))
		parts[i], remainders[i] = quo.Int64(), rem
		left -= parts[i]
	}
	for ; left > 0; left-- {
		best := 0
		for i := range remainders {
			if remainders[i].Cmp(remainders[best]) > 0 {
				best = i
			}
		}
		parts[best]++
		remainders[best].SetInt64(-1)
	}
	return parts
}

func BenchmarkAllocate(b *testing.B) {
	for _, n := range []int{4, 100, 10_000} {
		weights := make([]int64, n)
		for i := range weights {
			weights[i] = int64(i*7919%1000 + 1)
		}
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				credit.Allocate(1_000_003, weights)
			}
		})
	}
}

func TestAllocatePanics(t *testing.T) {
	for name, f := range map[string]func(){
		"negative total":  func() { credit.Allocate(-1, []int64{1}) },
		"negative weight": func() { credit.Allocate(1, []int64{1, -1}) },
		"no weights":      func() { credit.Allocate(1, nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
