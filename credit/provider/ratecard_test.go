package provider

import (
	"slices"
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
		p, err := b.Price(id, 0, rating.Usage{At: at, Lines: []rating.Line{l}, Dims: m.Dims})
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
