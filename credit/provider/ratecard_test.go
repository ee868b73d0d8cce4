package provider

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// refOf returns a reference by which a model is found; "" when there is none that is easily made.
func refOf(m *model) string {
	var try func(c *clause) string
	found := func(ref string) string {
		if got, err := m.seller.find(ref); err == nil && got == m {
			return ref
		}
		return ""
	}
	try = func(c *clause) string {
		switch c.op {
		case equals, startsWith, endsWith, contains:
			return found(c.text)
		case matches:
			return ""
		}
		all := ""
		for i := range c.of {
			if ref := try(&c.of[i]); ref != "" {
				return ref
			}
			all += c.of[i].text
		}
		return found(all)
	}
	if ref := found(m.id); ref != "" {
		return ref
	}
	return try(&m.match)
}

// drawUsage makes a usage without contradictions: parts that do not overlap, added up to the units around them. Some units
// are then not reported, as providers leave them out.
func drawUsage(t *rapid.T, s *priceSet) Usage {
	var u Usage
	for unit := range numUnits {
		if !s.priced.has(unit) && (s.nearest[unit] < 0 || units[unit].family != tokens) || rapid.IntRange(0, 2).Draw(t, "whether "+unit.String()) == 0 {
			continue
		}
		n := rapid.Int64Range(0, 90_000).Draw(t, unit.String())
		for v := range (around[unit] | 1<<unit).all {
			u.counts[v] += n
			u.reported.add(v)
		}
	}
	for unit := range u.reported.all {
		if !s.priced.has(unit) && rapid.IntRange(0, 3).Draw(t, "hide "+unit.String()) == 0 {
			u.counts[unit], u.reported = 0, u.reported&^(1<<unit)
		}
	}
	u.ServiceTier = rapid.SampledFrom([]string{"", "", "flex", "batch", "priority", "turbo"}).Draw(t, "service tier")
	return u
}

// book makes a book of one card out of a document.
func book(t testing.TB, doc []byte) (*rating.Book, credit.RateCardID) {
	t.Helper()
	parsed, err := rating.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	id := credit.NewID[credit.RateCardID]()
	b, err := rating.NewBook(1, []rating.CardVersions{{ID: id, Code: "ready", Unit: credit.Unit{Code: "CREDIT", Scale: 6},
		Versions: []rating.Version{{Number: 1, Doc: parsed}}}})
	if err != nil {
		t.Fatal(err)
	}
	return b, id
}

// priceAll prices lines one at a time and sums their exact costs.
func priceAll(b *rating.Book, id credit.RateCardID, m Metered, at time.Time) (decimal.Decimal, error) {
	total := decimal.Zero
	for _, l := range m.Lines {
		p, err := b.Price(id, 0, rating.Usage{At: at, Lines: []rating.Line{l}, Dims: m.Dims}, nil, nil)
		if err != nil {
			return total, err
		}
		total = total.Add(p.Lines[0].Cost)
	}
	return total, nil
}

// TestLinesCostWhatCostSays: the lines of any usage of any model, priced on the ready card without markup, cost what the provider
// charges; with a markup, that times the markup.
func TestLinesCostWhatCostSays(t *testing.T) {
	for name, load := range map[string]func(testing.TB) *Catalogue{"own": own, "LiteLLM": lite, "real": realCatalogue} {
		t.Run(name, func(t *testing.T) {
			c := load(t)
			at := noon
			card, err := c.RateCard(RateCardTerms{At: at, CreditPrice: d("1")})
			if err != nil {
				t.Fatal(err)
			}
			dear, err := c.RateCard(RateCardTerms{At: at, CreditPrice: d("0.03"), Markup: d("17.5"), Meter: "llm"})
			if err != nil {
				t.Fatal(err)
			}
			left := map[string]bool{}
			for _, l := range card.LeftOut {
				left[l.Provider+"/"+l.Model] = true
			}
			var models []*model
			unnamed := 0
			for _, s := range c.providers {
				for _, m := range s.models {
					switch {
					case left[s.id+"/"+m.id]:
					case refOf(m) == "":
						unnamed++
					default:
						models = append(models, m)
					}
				}
			}
			b, id := book(t, card.Document)
			bDear, idDear := book(t, dear.Document)
			priced := map[*model]bool{}
			check := func(rt rapid.TB, m *model, u Usage) {
				ref := refOf(m)
				cost, err := c.Cost(m.seller.id, ref, u, at)
				x := Extraction{Provider: m.seller.id, ModelRef: ref, Usage: u}
				lines, err2 := c.Lines(x, at, "")
				if err != nil || err2 != nil {
					rt.Fatalf("%s: %v, %v", u, err, err2)
				}
				got, err := priceAll(b, id, lines, at)
				if err != nil || got.Sub(cost.Total).Abs().GreaterThan(tolerance(cost)) {
					rt.Fatalf("%s of %s: %s: lines %+v cost %s (%v), not %s", u, m.id, m.seller.id, lines, got, err, cost.Total)
				}
				if !slices.Equal(lines.Unpriced, cost.Unpriced) {
					rt.Fatalf("unpriced %v, not %v", lines.Unpriced, cost.Unpriced)
				}
				sum := decimal.Zero
				for _, l := range cost.Lines {
					sum = sum.Add(l.Cost)
				}
				if sum.Sub(cost.Total).Abs().GreaterThan(tolerance(cost)) {
					rt.Fatalf("the lines sum to %s, not %s", sum, cost.Total)
				}
				lines, err = c.Lines(x, at, "llm")
				if err != nil {
					rt.Fatal(err)
				}
				parts := decimal.Zero
				for _, l := range lines.Lines {
					parts = parts.Add(l.Cost.Amount)
				}
				if !lines.Cost.Equal(cost.Total) || parts.Sub(cost.Total).Abs().GreaterThan(decimal.New(int64(len(lines.Lines)+1), -CostPlaces)) {
					rt.Fatalf("%s of %s: the lines cost %s, together %s, not %s", u, m.id, parts, lines.Cost, cost.Total)
				}
				marked, err := priceAll(bDear, idDear, lines, at)
				want := cost.Total.Mul(d("1.175"))
				if err != nil || marked.Mul(d("0.03")).Sub(want).Abs().GreaterThan(decimal.New(1, -20)) {
					rt.Fatalf("%s of %s: with markup %s credits (%v), not %s / 0.03", u, m.id, marked, err, want)
				}
				priced[m] = true
			}
			usages := func(m *model) *rapid.Generator[Usage] {
				_, s, _, err := m.setAt(at, "")
				if err != nil {
					t.Fatal(err)
				}
				return rapid.Custom(func(rt *rapid.T) Usage { return drawUsage(rt, s) })
			}
			for i, m := range models { // each at least once
				check(t, m, usages(m).Example(i))
			}
			rapid.Check(t, func(rt *rapid.T) {
				m := models[rapid.IntRange(0, len(models)-1).Draw(rt, "model")]
				check(rt, m, usages(m).Draw(rt, "usage"))
			})
			t.Logf("%d models priced on a card of %d rates; %d left out, %d without an easy name", len(priced), card.Rates, len(card.LeftOut), unnamed)
		})
	}
}

// tolerance is 0 unless a part of the cost has no finite decimal, which each line rounds by itself.
func tolerance(c Cost) decimal.Decimal {
	for _, l := range c.Lines {
		if l.Per.Equal(decimal.New(3_600, 0)) {
			return decimal.New(int64(len(c.Lines)), -CostPlaces)
		}
	}
	return decimal.Zero
}

func TestRateCardLeavesOut(t *testing.T) {
	card, err := own(t).RateCard(RateCardTerms{At: noon, CreditPrice: d("1")})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"google/gemini-quick-none": "no price"}
	if !knowsWhen() {
		want["nocturne/night-owl"], want["nocturne/early-bird"] = "time of day", "time of day"
	}
	if len(card.LeftOut) != len(want) {
		t.Errorf("%v", card.LeftOut)
	}
	for _, l := range card.LeftOut {
		if says := want[l.Provider+"/"+l.Model]; says == "" || !strings.Contains(l.String(), says) {
			t.Errorf("%s", l)
		}
	}
	if card.Until != time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) {
		t.Errorf("holds until %s", card.Until)
	}
	if later, err := own(t).RateCard(RateCardTerms{At: card.Until, CreditPrice: d("1")}); err != nil || !later.Until.IsZero() || string(later.Document) == string(card.Document) {
		t.Errorf("%s, %v", later.Until, err)
	}
}

// What rate cards by the time of day look like, whether or not they can be published yet.
func TestRateCardWindows(t *testing.T) {
	c := own(t)
	m, err := c.byID["nocturne"].find("early-bird")
	if err != nil {
		t.Fatal(err)
	}
	b := cardBuilder{terms: RateCardTerms{At: noon, CreditPrice: d("1")}, ids: map[string]bool{}, meters: map[string]bool{}}
	base, windows, until := m.inForce(noon)
	if base != &m.prices[0] || len(windows) != 1 || windows[0] != &m.prices[1] || !until.IsZero() {
		t.Fatalf("%v, %v, %s", base, windows, until)
	}
	rates, reason := b.set(m, windows[0].standard, "", windows[0].window, false)
	if reason != "" || len(rates) != 2 || b.doc.TimeZone != "UTC" || rates[0].ID != "nocturne/early-bird/output/20:00" || rates[0].Price != "0.3" ||
		len(rates[0].When) != 1 || len(rates[0].When[0].Days) != 7 || rates[0].When[0].From != "20:00" || rates[0].When[0].To != "06:00" {
		t.Errorf("%+v, %s", rates[0], reason)
	}
	for _, test := range []struct {
		a, b window
		want bool
	}{
		{window{1, 5}, window{5, 9}, false}, {window{1, 5}, window{4, 9}, true}, {window{9, 2}, window{2, 9}, false}, {window{9, 2}, window{1, 3}, true}, {window{1, 9}, window{3, 4}, true},
	} {
		if test.a.overlaps(&test.b) != test.want || test.b.overlaps(&test.a) != test.want {
			t.Errorf("%v and %v overlap: %t", test.a, test.b, !test.want)
		}
	}
}

func TestRateCardTerms(t *testing.T) {
	c := own(t)
	for name, terms := range map[string]RateCardTerms{
		"no credit price":        {},
		"negative credit price":  {CreditPrice: d("-1")},
		"long credit price":      {CreditPrice: d("0.0000000000001")},
		"another currency":       {CreditPrice: d("1"), Currency: "EUR"},
		"too much off":           {CreditPrice: d("1"), Markup: d("-100.01")},
		"endless markup":         {CreditPrice: d("1"), Markup: d("1e30")},
		"a meter of other units": {CreditPrice: d("1"), Meter: "pages"},
		"a meter without a code": {CreditPrice: d("1"), Meter: "Two words"},
		"no such provider":       {CreditPrice: d("1"), Providers: []string{"openai", "nobody"}},
		"no such model":          {CreditPrice: d("1"), Models: []string{"gpt-small", "gpt-tiny"}},
		"another's model":        {CreditPrice: d("1"), Providers: []string{"google"}, Models: []string{"openai/gpt-small"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.RateCard(terms)
			wantCode(t, err, credit.InvalidRequest)
		})
	}
	card, err := c.RateCard(RateCardTerms{At: noon, CreditPrice: d("0.01"), Markup: d("30"), Models: []string{"openai/gpt-long"}, Meter: "llm_tokens"})
	if err != nil || card.Rates != 6 || card.LeftOut != nil {
		t.Fatalf("%+v, %v", card, err)
	}
	doc, err := rating.Parse(card.Document)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range doc.Rates {
		got = append(got, r.ID+" "+r.Price.String()+" "+strings.Join(r.Match["context"], ","))
	}
	// 2.5 USD with 30 % are 3.25 USD, 325 credits of a cent.
	want := []string{
		"openai/gpt-long/output/base 1300 base,above_200k,above_500k",
		"openai/gpt-long/input/base 325 base", "openai/gpt-long/input/above_200k 650 above_200k", "openai/gpt-long/input/above_500k 975 above_500k",
		"openai/gpt-long/cache_read/base 32.5 base", "openai/gpt-long/cache_read/above_200k 65 above_200k,above_500k",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

// Lines are as fine as what is reported allows.
func TestLines(t *testing.T) {
	c := own(t)
	for name, test := range map[string]struct {
		provider, model string
		usage           map[Unit]string
		dims, lines     string
	}{
		"all apart": {"google", "gemini-quick", map[Unit]string{InputTokens: "200000", InputAudioTokens: "500", CacheReadTokens: "100", InputTextTokens: "199500", OutputTokens: "50", OutputReasoningTokens: "30"},
			"context=above_128k model=gemini-quick provider=google", "tokens/input=199400 tokens/output=20 tokens/cache_read=100 tokens/input_audio=500 tokens/reasoning=30"},
		"how image and cache overlap is not said": {"google", "gemini-quick", map[Unit]string{InputTokens: "300", InputImageTokens: "258", CacheReadTokens: "200"},
			"context=base model=gemini-quick provider=google", "tokens/input=42 tokens/input_image=258"},
		"other meters": {"google", "claude-verse", map[Unit]string{InputTokens: "5", WebSearches: "2", Requests: "1"},
			"context=base model=claude-verse provider=anthropic served_by=google", "tokens/input=5 tool_calls/web_searches=2"},
		"at a tier's start": {"openai", "gpt-long", map[Unit]string{InputTokens: "500000"}, "context=above_200k model=gpt-long provider=openai", "tokens/input=500000"},
		"above it":          {"openai", "gpt-long", map[Unit]string{InputTokens: "500001"}, "context=above_500k model=gpt-long provider=openai", "tokens/input=500001"},
		"calls":             {"nocturne", "per-call", map[Unit]string{InputTokens: "5"}, "context=base model=per-call provider=nocturne", "tokens/input=5 requests/requests=1"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := c.Lines(Extraction{Provider: test.provider, ModelRef: test.model, Usage: usage(t, test.usage)}, noon, "")
			if err != nil {
				t.Fatal(err)
			}
			var dims, lines []string
			for k, v := range m.Dims {
				dims = append(dims, k+"="+v)
			}
			slices.Sort(dims)
			for _, l := range m.Lines {
				lines = append(lines, l.Meter+"/"+l.Dims["token_type"]+l.Dims["unit"]+"="+l.Quantity.String())
			}
			if strings.Join(dims, " ") != test.dims || strings.Join(lines, " ") != test.lines {
				t.Errorf("%s: %s", dims, lines)
			}
		})
	}
}

// What the probe for prices by the time of day asks for is refused for that alone, or not at all.
func TestKnowsWhen(t *testing.T) {
	_, err := rating.Parse([]byte(`{"time_zone":"UTC","meters":[{"code":"m","aggregation":"sum","description":""}],
	  "rates":[{"id":"r","meter":"m","when":[{"days":["mon"],"from":"08:00","to":"18:00"}],"price":"1","per":"1"}]}`))
	if (err == nil) != knowsWhen() {
		t.Errorf("known: %t, and %v", knowsWhen(), err)
	}
	var e *credit.Error
	if errors.As(err, &e) {
		for _, i := range e.Issues {
			if i.Pointer != "/time_zone" && i.Pointer != "/rates/0/when" {
				t.Errorf("%s: %s", i.Pointer, i.Detail)
			}
		}
	}
}
