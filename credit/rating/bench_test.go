package rating_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// sixDimensions writes a document of n rates, each for one model, token type, region, tier, plan and modality.
func sixDimensions(n int, per string) []byte {
	types, regions, tiers := []string{"input", "output", "cache_read", "cache_write", "reasoning"}, []string{"eu", "us", "ap"}, []string{"standard", "batch"}
	var b strings.Builder
	b.WriteString(`{"meters": [{"code": "llm_tokens"}], "rates": [`)
	for i := range n {
		if i > 0 {
			b.WriteString(",")
		}
		rest := i
		pick := func(from []string) string {
			v := from[rest%len(from)]
			rest /= len(from)
			return v
		}
		fmt.Fprintf(&b, `{"id": "r%d", "meter": "llm_tokens", "match": {"token_type": [%q], "region": [%q], "tier": [%q], "model": ["model-%d"], "plan": ["pro", "team"], "modality": ["text"]}, "price": "%d.25", "per": %q}`,
			i, pick(types), pick(regions), pick(tiers), rest, i%40, per)
	}
	b.WriteString("]}")
	return []byte(b.String())
}

var benchmarkDims = credit.Dimensions{"token_type": "output", "region": "us", "tier": "batch", "model": "model-31", "plan": "team", "modality": "text"}

func benchmarkPrice(b *testing.B, doc []byte, lines int) {
	book := bookOf(b, doc)
	u := rating.Usage{At: noon, Dims: benchmarkDims}
	for i := range lines {
		l := rating.Line{Meter: "llm_tokens", Quantity: decimal.New(int64(1234+i), 0)}
		if lines > 1 {
			l.Dims = credit.Dimensions{"token_type": []string{"input", "output", "cache_read", "cache_write", "reasoning"}[i%5]}
		}
		u.Lines = append(u.Lines, l)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := book.Price(credit.RateCardID{}, 0, u, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// scanNs is how long it takes to price by looking at one rate after another, in nanoseconds.
func scanNs(b *testing.B, doc []byte) float64 {
	d, err := rating.Parse(doc)
	if err != nil {
		b.Fatal(err)
	}
	const rounds = 200
	start := time.Now()
	for range rounds {
		var best *rating.Rate
		for i := range d.Rates {
			if r := &d.Rates[i]; r.Meter == "llm_tokens" && r.Match.Matches(benchmarkDims) && (best == nil || len(r.Match) > len(best.Match)) {
				best = r
			}
		}
		if cost := decimal.New(1234, 0).Mul(best.Price).Div(best.Per); cost.IsZero() {
			b.Fatal("nothing costs anything")
		}
	}
	return float64(time.Since(start).Nanoseconds()) / rounds
}

// One line on a card with 2,000 rates and 6 dimensions, beside a scan over the rates in the same run.
func BenchmarkPriceAgainstScan(b *testing.B) {
	doc := sixDimensions(2_000, "1000000")
	scan := scanNs(b, doc)
	benchmarkPrice(b, doc, 1)
	b.ReportMetric(scan/(float64(b.Elapsed().Nanoseconds())/float64(b.N)), "times-faster-than-scan")
}

// overMonth makes every rate of a document graduated over a month.
func overMonth(doc []byte) []byte {
	tiers := `"model": "graduated", "over": "month", "tiers": [{"up_to": "1000000", "price": "3", "per": "1000000"}, {"up_to": "100000000", "price": "2.5", "per": "1000000"}, {"price": "2", "per": "1000000"}]`
	return regexp.MustCompile(`"price": "[0-9.]+", "per": "[0-9]+"`).ReplaceAll(doc, []byte(tiers))
}

// The same with period counters: the keys of a usage, then its price with the counter, of what has come before, in the second tier.
func BenchmarkPriceOverMonth(b *testing.B) {
	doc := overMonth(sixDimensions(2_000, "1000000"))
	book := bookOf(b, doc)
	u := rating.Usage{At: noon, Dims: benchmarkDims, Lines: []rating.Line{{Meter: "llm_tokens", Quantity: decimal.New(1234, 0)}}}
	state := rating.Counters{}
	before := u
	before.Lines = []rating.Line{{Meter: "llm_tokens", Quantity: decimal.New(5_000_000, 0)}}
	p, err := book.Price(credit.RateCardID{}, 0, before, state, nil)
	if err != nil {
		b.Fatal(err)
	}
	state.Apply(p.Changes)
	b.Run("price", func(b *testing.B) {
		scan := scanNs(b, sixDimensions(2_000, "1000000"))
		b.ReportAllocs()
		for b.Loop() {
			if p, err := book.Price(credit.RateCardID{}, 0, u, state, nil); err != nil || len(p.Changes) != 1 {
				b.Fatal(p, err)
			}
		}
		b.ReportMetric(scan/(float64(b.Elapsed().Nanoseconds())/float64(b.N)), "times-faster-than-scan")
	})
	b.Run("keys", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if keys, err := book.Keys(credit.RateCardID{}, 0, u); err != nil || len(keys) != 1 {
				b.Fatal(keys, err)
			}
		}
	})
}

// Keys of a card without counters.
func BenchmarkKeysOfNone(b *testing.B) {
	book := bookOf(b, sixDimensions(2_000, "1000000"))
	u := rating.Usage{At: noon, Dims: benchmarkDims, Lines: []rating.Line{{Meter: "llm_tokens", Quantity: decimal.New(1234, 0)}}}
	b.ReportAllocs()
	for b.Loop() {
		if keys, err := book.Keys(credit.RateCardID{}, 0, u); err != nil || keys != nil {
			b.Fatal(keys, err)
		}
	}
}

// Carried remainders are fractions of any length.
func BenchmarkPriceCarry(b *testing.B) {
	book := bookOf(b, bytes.Replace(sixDimensions(2_000, "3600"), []byte(`{"meters"`), []byte(`{"rounding": "carry", "meters"`), 1))
	u := rating.Usage{At: noon, Dims: benchmarkDims, Lines: []rating.Line{{Meter: "llm_tokens", Quantity: decimal.New(1234, 0)}}}
	state := rating.Counters{}
	b.ReportAllocs()
	for b.Loop() {
		p, err := book.Price(credit.RateCardID{}, 0, u, state, nil)
		if err != nil {
			b.Fatal(err)
		}
		state.Apply(p.Changes)
	}
}

// One line of usage with 6 dimensions on a card with 2,000 rates.
func BenchmarkPrice(b *testing.B) { benchmarkPrice(b, sixDimensions(2_000, "1000000"), 1) }

func BenchmarkPriceFiveLines(b *testing.B) { benchmarkPrice(b, sixDimensions(2_000, "1000000"), 5) }

func BenchmarkPriceOf10000Rates(b *testing.B) {
	benchmarkPrice(b, sixDimensions(10_000, "1000000"), 1)
}

// Prices per 3,600 have no finite decimal and are computed in big numbers.
func BenchmarkPricePerHour(b *testing.B) { benchmarkPrice(b, sixDimensions(2_000, "3600"), 1) }

func BenchmarkPriceNoRate(b *testing.B) {
	book := bookOf(b, sixDimensions(2_000, "1000000"))
	u := rating.Usage{At: noon, Dims: credit.Dimensions{"model": "unknown", "region": "eu"}, Lines: []rating.Line{{Meter: "llm_tokens", Quantity: decimal.New(1, 0)}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := book.Price(credit.RateCardID{}, 0, u, nil, nil); credit.CodeOf(err) != credit.NoRate {
			b.Fatal(err)
		}
	}
}

func benchmarkParse(b *testing.B, doc []byte) {
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rating.Parse(doc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse2000Rates(b *testing.B)  { benchmarkParse(b, sixDimensions(2_000, "1000000")) }
func BenchmarkParse10000Rates(b *testing.B) { benchmarkParse(b, sixDimensions(10_000, "1000000")) }

// wide writes n rates that each list many values of both of their dimensions, so that not every combination has an entry.
func wide(n, values int) []byte {
	list := func(prefix string, from int) string {
		var words []string
		for i := range values {
			words = append(words, fmt.Sprintf("%q", fmt.Sprint(prefix, from+i)))
		}
		return strings.Join(words, ",")
	}
	var b strings.Builder
	b.WriteString(`{"meters": [{"code": "calls"}], "rates": [`)
	for i := range n {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, `{"id": "r%d", "meter": "calls", "match": {"model": [%s], "product": [%s]}, "price": "1"}`, i, list("m", i%10*values), list("p", i/10*values))
	}
	b.WriteString("]}")
	return []byte(b.String())
}

func BenchmarkPriceOfWideRates(b *testing.B) {
	book := bookOf(b, wide(1_000, 60))
	u := rating.Usage{At: noon, Dims: credit.Dimensions{"model": "m333", "product": "p4444"}, Lines: []rating.Line{{Meter: "calls", Quantity: decimal.New(1, 0)}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := book.Price(credit.RateCardID{}, 0, u, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseWideRates(b *testing.B) { benchmarkParse(b, wide(1_000, 60)) }
