package rating_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

func line(meter, quantity string, dims ...string) rating.Line {
	l := rating.Line{Meter: meter, Quantity: number(quantity)}
	for i := 0; i < len(dims); i += 2 {
		if l.Dims == nil {
			l.Dims = credit.Dimensions{}
		}
		l.Dims[dims[i]] = dims[i+1]
	}
	return l
}

func TestPrice(t *testing.T) {
	gpt4o := credit.Dimensions{"model": "gpt-4o"}
	for _, c := range []struct {
		name  string
		dims  credit.Dimensions
		lines []rating.Line
		rates string // of the lines
		costs string
		total string // in credits, at 6 places
	}{
		{"input and output", gpt4o, []rating.Line{line("llm_tokens", "1234", "token_type", "input"), line("llm_tokens", "567", "token_type", "output")},
			"gpt4o-in gpt4o-out", "0.003085 0.00567", "0.008755"},
		{"the more specific", gpt4o, []rating.Line{line("llm_tokens", "1000000", "token_type", "input", "tier", "batch")}, "gpt4o-in-batch", "1.25", "1.25"},
		{"another tier", gpt4o, []rating.Line{line("llm_tokens", "1000000", "token_type", "input", "tier", "flex")}, "gpt4o-in", "2.5", "2.5"},
		{"further dimensions do not matter", gpt4o, []rating.Line{line("llm_tokens", "1000000", "token_type", "input", "region", "eu")}, "gpt4o-in", "2.5", "2.5"},
		{"the fallback", nil, []rating.Line{line("llm_tokens", "1000000"), line("llm_tokens", "1", "model", "unknown")}, "llm llm", "5 0.000005", "5.000005"},
		{"one of several values", nil, []rating.Line{line("llm_tokens", "2000000", "model", "haiku", "token_type", "cache_read")}, "small-in", "0.3", "0.3"},
		{"the line's own dimension goes first", credit.Dimensions{"model": "gpt-4o", "token_type": "output"}, []rating.Line{line("llm_tokens", "1000000"), line("llm_tokens", "1000000", "token_type", "input")},
			"gpt4o-out gpt4o-in", "10 2.5", "12.5"},
		{"several meters", nil, []rating.Line{line("images", "3", "resolution", "2048x2048"), line("images", "2"), line("calls", "1")}, "image-hd image call", "0.24 0.08 0", "0.32"},

		{"a tie to the even step below", gpt4o, []rating.Line{line("llm_tokens", "1", "token_type", "input")}, "gpt4o-in", "0.0000025", "0.000002"},
		{"a tie to the even step above", gpt4o, []rating.Line{line("llm_tokens", "3", "token_type", "input")}, "gpt4o-in", "0.0000075", "0.000008"},
		{"rounded once", gpt4o, []rating.Line{line("llm_tokens", "1", "token_type", "input"), line("llm_tokens", "1", "token_type", "input")}, "gpt4o-in gpt4o-in", "0.0000025 0.0000025", "0.000005"},
		{"just above a tie", gpt4o, []rating.Line{line("llm_tokens", "1.000000000001", "token_type", "input")}, "gpt4o-in", "0.0000025000000000025", "0.000003"},
		{"less than half a step", nil, []rating.Line{line("llm_tokens", "1", "model", "haiku", "token_type", "input")}, "small-in", "0.00000015", "0"},

		{"a part of an hour", nil, []rating.Line{line("gpu_seconds", "100", "gpu", "h100")}, "h100", "0.055277777777777777777778", "0.055278"},
		{"a whole hour", nil, []rating.Line{line("gpu_seconds", "3600", "gpu", "h100")}, "h100", "1.99", "1.99"},
		// 1200 s cost 0.66333…; three times that is 1.99 again.
		{"an hour in thirds", nil, slices.Repeat([]rating.Line{line("gpu_seconds", "1200", "gpu", "h100")}, 3), "h100 h100 h100",
			"0.663333333333333333333333 0.663333333333333333333333 0.663333333333333333333333", "1.99"},
		{"an hour in thirds and tokens", gpt4o, append(slices.Repeat([]rating.Line{line("gpu_seconds", "1200", "gpu", "h100")}, 3), line("llm_tokens", "1", "token_type", "input")), "h100 h100 h100 gpt4o-in",
			"0.663333333333333333333333 0.663333333333333333333333 0.663333333333333333333333 0.0000025", "1.990002"},

		{"nothing", nil, []rating.Line{line("images", "0")}, "image", "0", "0"},
		{"nothing, oddly written", nil, []rating.Line{line("images", "0e-900")}, "image", "0", "0"},
		{"for nothing", nil, []rating.Line{line("calls", "99999999999999999999")}, "call", "0", "0"},
		{"trailing zeros", nil, []rating.Line{line("images", "2.50000000000000000000000000000000")}, "image", "0.1", "0.1"},
		{"a trailing zero", nil, []rating.Line{line("images", "2.5000000000000")}, "image", "0.1", "0.1"},
		{"an exponent", nil, []rating.Line{line("images", "1e3")}, "image", "40", "40"},
		{"more digits than 64 bits", nil, []rating.Line{line("images", "12345678.123456789012"), line("images", "0.000000000001")}, "image image", "493827.12493827156048 0.00000000000004", "493827.124938"},
		{"the largest", nil, []rating.Line{line("images", "225179981368.524775")}, "image", "9007199254.740991", "9007199254.740991"},
	} {
		p, err := bookOf(t, []byte(example)).Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Dims: c.dims, Lines: c.lines}, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var rates, costs []string
		for i, l := range p.Lines {
			rates, costs = append(rates, l.RateID), append(costs, l.Cost.String())
			if l.Meter != c.lines[i].Meter || !l.Quantity.Equal(c.lines[i].Quantity) || !maps.Equal(l.Dims, c.lines[i].Dims) {
				t.Errorf("%s: line %d is %+v", c.name, i, l)
			}
		}
		if got := strings.Join(rates, " "); got != c.rates {
			t.Errorf("%s: rates %s, want %s", c.name, got, c.rates)
		}
		if got := strings.Join(costs, " "); got != c.costs {
			t.Errorf("%s: costs %s, want %s", c.name, got, c.costs)
		}
		if got := p.Total.Format(6); got != c.total {
			t.Errorf("%s: total %s, want %s", c.name, got, c.total)
		}
		if p.CardID != standard || p.CardCode != "standard" || p.Version != 1 || p.Unit != credits {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}

func TestPriceNamesTheRate(t *testing.T) {
	p, err := bookOf(t, []byte(example)).Price(standard, 1, rating.Usage{At: noon, Lines: []rating.Line{line("gpu_seconds", "1", "gpu", "h100")}}, nil, nil)
	if err != nil || p.Lines[0].Price.String() != "1.99" || p.Lines[0].Per.String() != "3600" {
		t.Errorf("%+v, %v", p, err)
	}
}

// No usage of nothing is so oddly written that its receipt could not be.
func TestPriceOfNothingIsWritten(t *testing.T) {
	b := bookOf(t, []byte(example))
	for _, exponent := range []int32{math.MinInt32, math.MaxInt32} {
		p, err := b.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Lines: []rating.Line{
			{Meter: "images", Quantity: decimal.New(0, exponent)}, {Meter: "gpu_seconds", Quantity: decimal.New(0, exponent), Dims: credit.Dimensions{"gpu": "h100"}},
		}}, nil, nil)

		if err != nil || p.Total != 0 || p.Lines[0].Quantity.String() != "0" || p.Lines[0].Cost.String() != "0" || p.Lines[1].Cost.String() != "0" {
			t.Errorf("%+v, %v", p, err)
		}
	}
}

// The same 2.5 credits, and half a step of each scale.
func TestPriceRoundsToTheUnitsScale(t *testing.T) {
	for scale, want := range []string{"2", "2.5", "2.5", "2.5", "2.5", "2.5", "2.5"} {
		unit := credit.Unit{Code: "CRD", Scale: scale}
		b := bookIn(t, unit, []byte(withRate(`"price": "2.5"`)))
		p, err := b.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Lines: []rating.Line{line("calls", "1")}}, nil, nil)
		if err != nil || p.Total.Format(scale) != want {
			t.Errorf("scale %d: %s, %v, want %s", scale, p.Total.Format(scale), err, want)
		}
		half := decimal.New(2, -int32(scale)-1) // times 2.5 is half a step
		p, err = b.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Lines: []rating.Line{{Meter: "calls", Quantity: half}}}, nil, nil)
		if err != nil || p.Total != 0 {
			t.Errorf("scale %d: half a step is %d, %v", scale, p.Total, err)
		}
		p, err = b.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Lines: []rating.Line{{Meter: "calls", Quantity: half.Mul(decimal.New(3, 0))}}}, nil, nil)
		if err != nil || p.Total != 2 {
			t.Errorf("scale %d: a step and a half is %d, %v", scale, p.Total, err)
		}
	}
}

func TestPriceRefuses(t *testing.T) {
	b := bookOf(t, []byte(example))
	input := []rating.Line{line("llm_tokens", "1", "model", "gpt-4o", "token_type", "input")}
	for _, c := range []struct {
		name    string
		card    credit.RateCardID
		version int
		u       rating.Usage
		code    credit.Code
		detail  string
	}{
		{"an unknown card", credit.RateCardID{1}, 0, rating.Usage{At: noon, Lines: input}, credit.RateCardNotFound, "There is no rate card crd_"},
		{"an unknown version", standard, 2, rating.Usage{At: noon, Lines: input}, credit.RateCardNotFound, `Rate card "standard" has no version 2.`},
		{"a negative version", standard, -1, rating.Usage{At: noon, Lines: input}, credit.RateCardNotFound, `Rate card "standard" has no version -1.`},
		{"before the first version", standard, 0, rating.Usage{At: noon.Add(-1), Lines: input}, credit.NoRate,
			`No version of rate card "standard" is in force at 2026-03-01T11:59:59.999999999Z: the first is from 2026-03-01T12:00:00Z.`},
		{"an unknown meter", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{line("videos", "1")}}, credit.NoRate, `Rate card "standard", version 1, has no meter "videos".`},
		{"another value", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{line("gpu_seconds", "1", "gpu", "a100", "zone", "b")}}, credit.NoRate,
			`No rate of meter "gpu_seconds" is for gpu=a100, zone=b on rate card "standard", version 1: the nearest, "h100", is for gpu=h100.`},
		{"no value", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{line("gpu_seconds", "1")}}, credit.NoRate,
			`No rate of meter "gpu_seconds" is for usage without dimensions on rate card "standard", version 1: the nearest, "h100", asks for "gpu", which the usage does not name.`},
		{"no lines", standard, 0, rating.Usage{At: noon}, credit.InvalidRequest, "A usage has 1 to 1000 lines, not 0."},
		{"1,001 lines", standard, 0, rating.Usage{At: noon, Lines: slices.Repeat(input, 1001)}, credit.InvalidRequest, "A usage has 1 to 1000 lines, not 1001."},
		{"a negative quantity", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{line("images", "1"), line("images", "-1")}}, credit.InvalidRequest, "A quantity must not be negative."},
		{"a huge quantity", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{line("calls", "100000000000000000000")}}, credit.InvalidRequest, "A quantity has at most 20 digits before and 12 after the point."},
		{"a fine quantity", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{line("calls", "0.0000000000001")}}, credit.InvalidRequest, "A quantity has at most 20 digits"},
		{"an absurd quantity", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{{Meter: "calls", Quantity: decimal.New(1, math.MaxInt32)}}}, credit.InvalidRequest, "A quantity has at most 20 digits"},
		{"an absurdly fine quantity", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{{Meter: "calls", Quantity: decimal.New(1, math.MinInt32)}}}, credit.InvalidRequest, "A quantity has at most 20 digits"},
		{"too much", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{line("images", "225179981368.5247875")}}, credit.InvalidAmount, "The usage costs more than 9007199254.740991, the largest amount there is."},
		{"much too much", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{line("images", "99999999999999999999")}}, credit.InvalidAmount, "The usage costs more than"},
		{"too much together", standard, 0, rating.Usage{At: noon, Lines: slices.Repeat([]rating.Line{line("images", "1126000000")}, 200)}, credit.InvalidAmount, "The usage costs more than"},
		{"too much by the hour", standard, 0, rating.Usage{At: noon, Lines: []rating.Line{line("gpu_seconds", "99999999999999999999", "gpu", "h100")}}, credit.InvalidAmount, "The usage costs more than"},
	} {
		p, err := b.Price(c.card, c.version, c.u, nil, nil)
		var e *credit.Error
		if !errors.As(err, &e) || e.Code != c.code || !strings.HasPrefix(e.Detail, c.detail) || p.Lines != nil || p.Total != 0 {
			t.Errorf("%s: %+v, %v", c.name, p, err)
		}
		if c.name == "a negative quantity" && (len(e.Issues) != 1 || e.Issues[0].Pointer != "/lines/1/quantity") {
			t.Errorf("%s: %+v", c.name, e.Issues)
		}
	}
}

func TestNoRateSaysWhatIsNearest(t *testing.T) {
	b := bookOf(t, []byte(withRates(`
		{"id": "a", "meter": "calls", "price": "1", "match": {"model": ["x"], "region": ["eu"], "tier": ["batch"]}},
		{"id": "b", "meter": "calls", "price": "1", "match": {"model": ["y", "z", "w"], "region": ["us", "ap"]}},
		{"id": "c", "meter": "calls", "price": "1", "match": {"model": ["q"]}}`)))
	for _, c := range []struct{ dims, want string }{
		{"model=x region=eu", `the nearest, "a", asks for "tier", which the usage does not name.`},
		{"model=y region=eu", `the nearest, "b", is for region=us|ap.`},
		{"model=nope region=us", `the nearest, "b", is for model=y|z|w.`},
		{"model=nope", `the nearest, "c", is for model=q.`},
		{"model=x region=us", `the nearest, "b", is for model=y|z|w.`},
	} {
		u := rating.Usage{At: noon, Dims: credit.Dimensions{}, Lines: []rating.Line{line("calls", "1", "model", "overridden")}}
		for d := range strings.FieldsSeq(c.dims) {
			name, value, _ := strings.Cut(d, "=")
			u.Dims[name] = value
		}
		u.Lines[0].Dims = credit.Dimensions{"model": u.Dims["model"]}
		u.Dims["model"] = "overridden"
		_, err := b.Price(credit.RateCardID{}, 0, u, nil, nil)
		var e *credit.Error
		if !errors.As(err, &e) || e.Code != credit.NoRate || !strings.HasSuffix(e.Detail, c.want) {
			t.Errorf("%s: %v", c.dims, err)
			continue
		}
		if e.Fields["meter"] != "calls" || fmt.Sprint(e.Fields["dimensions"]) != fmt.Sprint(credit.Dimensions{"model": u.Lines[0].Dims["model"], "region": u.Dims["region"]}) && len(u.Dims) > 1 {
			t.Errorf("%s: %v", c.dims, e.Fields)
		}
		if u.Dims["model"] != "overridden" {
			t.Errorf("%s: the usage was changed", c.dims)
		}
	}
	if _, err := b.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Lines: []rating.Line{line("images", "1")}}, nil, nil); !strings.HasSuffix(err.Error(), ": the meter has no rates.") {
		t.Errorf("no rates: %v", err)
	}
	// Long names and many dimensions do not make a long sentence.
	long := credit.Dimensions{}
	for i := range 32 {
		long[fmt.Sprint(i, strings.Repeat("n", 120))] = strings.Repeat("v", 128)
	}
	if _, err := b.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Dims: long, Lines: []rating.Line{line("calls", "1")}}, nil, nil); len(err.Error()) > 1200 || !strings.Contains(err.Error(), "26 more") {
		t.Errorf("%d bytes: %v", len(err.Error()), err)
	}
}

func mergedDims(common, own credit.Dimensions) credit.Dimensions {
	d := maps.Clone(own)
	if d == nil {
		d = credit.Dimensions{}
	}
	for name, v := range common {
		if _, ok := d[name]; !ok {
			d[name] = v
		}
	}
	return d
}

// slowly prices a usage by looking at every rate and computing in fractions. It is false when some line has no rate.
func slowly(rates []drawnRate, u rating.Usage) (total *big.Rat, ids []string, costs []*big.Rat, ok bool) {
	total = new(big.Rat)
	for _, l := range u.Lines {
		var best *drawnRate
		for i := range rates {
			r := &rates[i]
			if r.Meter == l.Meter && r.Match.Matches(mergedDims(u.Dims, l.Dims)) && (best == nil || len(r.Match) > len(best.Match)) {
				best = r
			}
		}
		if best == nil {
			return nil, nil, nil, false
		}
		cost := new(big.Rat).Mul(l.Quantity.Rat(), number(best.Price).Rat())
		cost.Quo(cost, number(best.Per).Rat())
		total.Add(total, cost)
		ids, costs = append(ids, best.ID), append(costs, cost)
	}
	return total, ids, costs, true
}

// toEven rounds r half to even to a whole number.
func toEven(r *big.Rat) *big.Int {
	quo, rem := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	twice := rem.Lsh(rem, 1)
	if c := twice.Cmp(r.Denom()); c > 0 || c == 0 && quo.Bit(0) == 1 {
		quo.Add(quo, big.NewInt(1))
	}
	return quo
}

func power10(n int) *big.Rat {
	return new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil))
}

var anyQuantity = rapid.OneOf(
	rapid.Map(rapid.Int64Range(0, 5_000), func(n int64) decimal.Decimal { return decimal.New(n, 0) }),
	rapid.Map(rapid.Int64Range(0, 1<<62), func(n int64) decimal.Decimal { return decimal.New(n, -9) }),
	rapid.Custom(func(t *rapid.T) decimal.Decimal {
		s := rapid.StringMatching(`[0-9]{1,20}\.[0-9]{1,12}`).Draw(t, "quantity")
		return number(s)
	}),
	rapid.Custom(func(t *rapid.T) decimal.Decimal {
		return decimal.New(rapid.Int64Range(0, 9).Draw(t, "digit"), int32(rapid.IntRange(-12, 19).Draw(t, "exponent")))
	}),
)

func drawUsage(t *rapid.T) rating.Usage {
	dims := rapid.MapOfN(rapid.SampledFrom(append([]string{"other"}, someNames...)), rapid.SampledFrom(append([]string{"z"}, someValues...)), 0, 4)
	u := rating.Usage{At: noon, Dims: dims.Draw(t, "dims")}
	for i := range rapid.IntRange(1, 5).Draw(t, "lines") {
		u.Lines = append(u.Lines, rating.Line{
			Meter: rapid.SampledFrom(someMeters).Draw(t, fmt.Sprintf("meter of line %d", i)), Quantity: anyQuantity.Draw(t, fmt.Sprintf("quantity of line %d", i)),
			Dims: dims.Draw(t, fmt.Sprintf("dims of line %d", i)),
		})
	}
	return u
}

// drawCard draws rates that can be told apart.
func drawCard(t *rapid.T) []drawnRate {
	var kept []drawnRate
	for _, r := range drawRates(t) {
		if !slices.ContainsFunc(kept, func(k drawnRate) bool { return ambiguous(k, r) }) {
			kept = append(kept, r)
		}
	}
	return kept
}

func TestPriceAgreesWithFractions(t *testing.T) {
	priced := 0
	rapid.Check(t, func(rt *rapid.T) {
		rates, u, scale := drawCard(rt), drawUsage(rt), rapid.IntRange(0, credit.MaxScale).Draw(rt, "scale")
		p, err := bookIn(t, credit.Unit{Code: "CRD", Scale: scale}, document(t, rates)).Price(credit.RateCardID{}, 0, u, nil, nil)
		total, ids, costs, ok := slowly(rates, u)
		if !ok {
			if credit.CodeOf(err) != credit.NoRate {
				rt.Fatalf("%+v on %+v gives %+v, %v, want no_rate", u, rates, p, err)
			}
			return
		}
		steps := toEven(new(big.Rat).Mul(total, power10(scale)))
		if steps.Cmp(big.NewInt(int64(credit.MaxAmount))) > 0 {
			if credit.CodeOf(err) != credit.InvalidAmount {
				rt.Fatalf("%+v on %+v gives %+v, %v, want invalid_amount", u, rates, p, err)
			}
			return
		}
		if err != nil || steps.Int64() != int64(p.Total) {
			rt.Fatalf("%+v on %+v gives %+v, %v, want a total of %s", u, rates, p, err, steps)
		}
		for i, l := range p.Lines {
			if l.RateID != ids[i] {
				rt.Fatalf("line %d of %+v on %+v is priced by %s, want %s", i, u, rates, l.RateID, ids[i])
			}
			want := new(big.Rat).SetFrac(toEven(new(big.Rat).Mul(costs[i], power10(rating.CostPlaces))), power10(rating.CostPlaces).Num())
			if _, finite := costs[i].FloatPrec(); finite {
				want = costs[i]
			}
			if l.Cost.Rat().Cmp(want) != 0 {
				rt.Fatalf("line %d of %+v on %+v costs %s, want %s", i, u, rates, l.Cost, want.FloatString(30))
			}
		}
		priced++
	})
	if priced == 0 {
		t.Error("nothing was priced")
	}
}

// total prices u, which must be possible or cost too much; then it is false.
func total(t *rapid.T, b *rating.Book, u rating.Usage) (credit.Amount, bool) {
	p, err := b.Price(credit.RateCardID{}, 0, u, nil, nil)
	if err != nil && credit.CodeOf(err) != credit.InvalidAmount {
		t.Fatal(err)
	}
	return p.Total, err == nil
}

// withFallbacks adds what makes every usage priced.
func withFallbacks(rates []drawnRate) []drawnRate {
	for _, meter := range someMeters {
		fallback := drawnRate{ID: "fallback-" + meter, Meter: meter, Match: credit.Scope{}, Price: "0.7", Per: "9"}
		if !slices.ContainsFunc(rates, func(r drawnRate) bool { return ambiguous(r, fallback) }) {
			rates = append(rates, fallback)
		}
	}
	return rates
}

func TestPriceIsMonotone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b, u := bookOf(t, document(t, withFallbacks(drawCard(rt)))), drawUsage(rt)
		before, ok := total(rt, b, u)
		if !ok {
			return
		}
		more := u
		more.Lines = slices.Clone(u.Lines)
		l := &more.Lines[rapid.IntRange(0, len(u.Lines)-1).Draw(rt, "line")]
		l.Quantity = l.Quantity.Add(decimal.New(rapid.Int64Range(0, 1_000_000).Draw(rt, "more"), 0))
		if l.Quantity.Cmp(number("99999999999999999999")) > 0 {
			return
		}
		if after, ok := total(rt, b, more); ok && after < before {
			rt.Fatalf("%+v costs %d, %+v %d", u, before, more, after)
		}
	})
}

func TestHowAnEventIsCutDoesNotChangeItsPrice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b, u := bookOf(t, document(t, withFallbacks(drawCard(rt)))), drawUsage(rt)
		whole, wholeOK := total(rt, b, u)
		cut := u
		cut.Lines = nil
		for i, l := range u.Lines {
			rest := l
			rest.Dims = mergedDims(u.Dims, l.Dims)
			for range rapid.IntRange(0, 3).Draw(rt, fmt.Sprintf("cuts of %d", i)) {
				part := rest
				part.Quantity = rest.Quantity.Mul(decimal.New(rapid.Int64Range(0, 1000).Draw(rt, "thousandths"), -3)).Truncate(12)
				rest.Quantity = rest.Quantity.Sub(part.Quantity)
				cut.Lines = append(cut.Lines, part)
			}
			cut.Lines = append(cut.Lines, rest)
		}
		rand.New(rand.NewPCG(1, rapid.Uint64().Draw(rt, "order"))).Shuffle(len(cut.Lines), func(i, j int) { cut.Lines[i], cut.Lines[j] = cut.Lines[j], cut.Lines[i] })
		if parts, ok := total(rt, b, cut); ok != wholeOK || parts != whole {
			rt.Fatalf("%+v costs %d, %v, and cut as %+v %d, %v", u, whole, wholeOK, cut.Lines, parts, ok)
		}
	})
}

// Rates that list so many values that not every combination has an entry of its own.
func TestPriceOfWideRates(t *testing.T) {
	b := bookOf(t, wide(100, 60))
	random := rand.New(rand.NewPCG(1, 2))
	for range 2_000 {
		m, p := random.IntN(600), random.IntN(600)
		got, err := b.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Lines: []rating.Line{line("calls", "1", "model", fmt.Sprint("m", m), "product", fmt.Sprint("p", p))}}, nil, nil)
		if want := fmt.Sprintf("r%d", m/60+p/60*10); err != nil || got.Lines[0].RateID != want {
			t.Fatalf("model %d, product %d: %+v, %v, want %s", m, p, got, err, want)
		}
	}
}

// Every rate of a large card is found, by a usage of its own and by no other.
func TestPriceFindsEveryRate(t *testing.T) {
	doc, err := rating.Parse(sixDimensions(2_000, "1000000"))
	if err != nil {
		t.Fatal(err)
	}
	b := bookOf(t, sixDimensions(2_000, "1000000"))
	for i, r := range doc.Rates {
		dims := credit.Dimensions{"unrelated": "x"}
		for name, values := range r.Match {
			dims[name] = values[len(values)-1]
		}
		p, err := b.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Dims: dims, Lines: []rating.Line{{Meter: r.Meter, Quantity: number("1000000")}}}, nil, nil)
		if err != nil || p.Lines[0].RateID != r.ID || !p.Lines[0].Cost.Equal(r.Price) {
			t.Fatalf("%+v: %+v, %v", r, p, err)
		}
		if i%50 > 0 { // a refusal looks at every rate, for what is nearest
			continue
		}
		for name := range r.Match {
			without := maps.Clone(dims)
			delete(without, name)
			if p, err := b.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Dims: without, Lines: []rating.Line{{Meter: r.Meter, Quantity: number("1")}}}, nil, nil); credit.CodeOf(err) != credit.NoRate {
				t.Fatalf("%+v without %s: %+v, %v", r, name, p, err)
			}
		}
	}
}

func TestPriceAllocatesLittle(t *testing.T) {
	b := bookOf(t, sixDimensions(2_000, "1000000"))
	u := rating.Usage{At: noon, Dims: benchmarkDims, Lines: []rating.Line{{Meter: "llm_tokens", Quantity: decimal.New(1234, 0)}}}
	if allocs := testing.AllocsPerRun(100, func() {
		if _, err := b.Price(credit.RateCardID{}, 0, u, nil, nil); err != nil {
			t.Fatal(err)
		}
	}); allocs >= 5 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestPriceOverAPeriodAllocatesLittle(t *testing.T) {
	b := bookOf(t, overMonth(sixDimensions(2_000, "1000000")))
	u := rating.Usage{At: noon, Dims: benchmarkDims, Lines: []rating.Line{{Meter: "llm_tokens", Quantity: decimal.New(1234, 0)}}}
	state := rating.Counters{}
	if allocs := testing.AllocsPerRun(100, func() {
		p, err := b.Price(credit.RateCardID{}, 0, u, state, nil)
		if err != nil {
			t.Fatal(err)
		}
		state.Apply(p.Changes)
	}); allocs >= 5 {
		t.Errorf("%v allocations", allocs)
	}
}

// For the race detector: one book, many goroutines, and a new version put in its place while they price.
func TestPriceConcurrently(t *testing.T) {
	doc := []byte(example)
	books := []*rating.Book{bookOf(t, doc), bookOf(t, doc, doc)}
	usages := []rating.Usage{
		{At: noon, Dims: credit.Dimensions{"model": "gpt-4o"}, Lines: []rating.Line{line("llm_tokens", "1234", "token_type", "input"), line("llm_tokens", "567", "token_type", "output")}},
		{At: noon, Lines: slices.Repeat([]rating.Line{line("gpu_seconds", "1200", "gpu", "h100")}, 3)},
		{At: noon, Lines: []rating.Line{line("images", "12345678.123456789012")}},
		{At: noon, Lines: []rating.Line{line("gpu_seconds", "1", "gpu", "a100")}},
	}
	want := []credit.Amount{8_755, 1_990_000, 493_827_124_938, 0}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				n := (g + i) % len(usages)
				p, err := books[i%2].Price(credit.RateCardID{}, 0, usages[n], nil, nil)
				if (err != nil) != (n == 3) || p.Total != want[n] {
					t.Errorf("usage %d: %+v, %v", n, p, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func FuzzPrice(f *testing.F) {
	f.Add([]byte(example), "llm_tokens", int64(1234), int32(0), "model", "gpt-4o", "token_type", "input", 0, int64(0))
	f.Add([]byte(example), "gpu_seconds", int64(100), int32(-3), "gpu", "h100", "", "", 1, int64(-1))
	f.Add([]byte(example), "images", int64(math.MaxInt64), int32(math.MaxInt32), "", "", "", "", 0, int64(0))
	f.Add([]byte(example), "calls", int64(math.MinInt64), int32(math.MinInt32), "", "", "", "", -1, int64(math.MinInt64))
	f.Add([]byte(everything), "calls", int64(7), int32(0), "a", "x", "", "", 1, int64(0))
	f.Add([]byte(everything), "seats", int64(7), int32(0), "", "", "", "", 1, int64(0))
	f.Add([]byte(everything), "users", int64(7), int32(0), "user", "x", "", "", 1, int64(0))
	f.Add([]byte(everything), "images", int64(7), int32(0), "size", "large", "", "", 1, int64(0))
	f.Add(wide(3, 5), "calls", int64(7), int32(-12), "model", "m1", "product", "p1", 0, int64(1))
	f.Add([]byte(withRate(`"price": "99999999999999999999.999999999999", "per": "0.000000000007"`)), "calls", int64(7), int32(19), "", "", "", "", 0, int64(1))
	f.Fuzz(func(t *testing.T, doc []byte, meter string, coefficient int64, exponent int32, name, value, ownName, ownValue string, version int, after int64) {
		d, err := rating.Parse(doc)
		if err != nil {
			return
		}
		if d.Extends.Card != "" {
			return // there is no other card
		}
		b, err := rating.NewBook(1, []rating.CardVersions{{ID: standard, Code: "standard", Unit: credits, Default: true, Versions: []rating.Version{{Number: 1, EffectiveAt: noon, Doc: d}}}})
		if err != nil {
			t.Fatal(err)
		}
		l := rating.Line{Meter: meter, Quantity: decimal.New(coefficient, exponent), Dims: credit.Dimensions{ownName: ownValue}}
		u := rating.Usage{At: noon.Add(time.Duration(after)), Dims: credit.Dimensions{name: value}, Lines: []rating.Line{l, l, {Meter: meter, Quantity: decimal.New(1, -12)}}}
		p, err := b.Price(credit.RateCardID{}, version, u, nil, nil)
		if err != nil {
			if c := credit.CodeOf(err); c != credit.NoRate && c != credit.RateCardNotFound && c != credit.InvalidRequest && c != credit.InvalidAmount || p.Lines != nil {
				t.Fatalf("%+v, %v", p, err)
			}
			return
		}
		if p.Total < -credit.MaxAmount || p.Total > credit.MaxAmount || len(p.Lines) != 3 || p.Version != 1 {
			t.Fatalf("%+v", p)
		}
		for _, l := range p.Lines {
			if l.RateID == "" {
				t.Fatalf("%+v", p)
			}
		}
		if slices.ContainsFunc(d.Rates, func(r rating.Rate) bool {
			return r.Model != rating.PerUnit || r.Over != rating.Event || r.Currency != "" || !r.Free.IsZero() || !r.Minimum.IsZero() || r.Maximum != nil
		}) || slices.ContainsFunc(d.Meters, func(m rating.Meter) bool { return m.Aggregation != rating.Sum }) || d.Rounding != rating.RoundEvent {
			return
		}
		sum := new(big.Rat)
		for _, l := range p.Lines {
			cost := l.Quantity.Rat()
			sum.Add(sum, cost.Quo(cost.Mul(cost, l.Price.Rat()), l.Per.Rat()))
			if l.Cost.IsNegative() || l.RateID == "" {
				t.Fatalf("%+v", p)
			}
		}
		if steps := toEven(sum.Mul(sum, power10(6))); steps.Cmp(big.NewInt(int64(p.Total))) != 0 {
			t.Fatalf("%+v sums to %s", p, steps)
		}
	})
}
