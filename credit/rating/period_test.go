package rating_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// drawnTier and drawnPrice are what a rate over a period asks, as the document says it.
type drawnTier struct {
	UpTo  string `json:"up_to,omitempty"`
	Price string `json:"price"`
	Per   string `json:"per"`
	Flat  string `json:"flat"`
}

type drawnPrice struct {
	Model string      `json:"model"`
	Price string      `json:"price,omitempty"`
	Per   string      `json:"per,omitempty"`
	Tiers []drawnTier `json:"tiers,omitempty"`
	Free  string      `json:"free,omitempty"`
}

var somePrices = rapid.SampledFrom([]string{"0", "1", "2.5", "0.000003", "7", "123456789.123"})
var somePers = rapid.SampledFrom([]string{"1", "3", "0.5", "1000000", "7", "64", "12345678901234567890"})

func drawPrice(t *rapid.T, models ...string) drawnPrice {
	p := drawnPrice{Model: rapid.SampledFrom(models).Draw(t, "model")}
	if p.Model == "per_unit" || p.Model == "package" {
		p.Price, p.Per = somePrices.Draw(t, "price"), somePers.Draw(t, "per")
	} else {
		end := 0
		for i := range rapid.IntRange(0, 3).Draw(t, "ends") {
			end += rapid.IntRange(1, 12).Draw(t, fmt.Sprintf("width of %d", i))
			p.Tiers = append(p.Tiers, drawnTier{UpTo: fmt.Sprintf("%d.5", end)})
		}
		p.Tiers = append(p.Tiers, drawnTier{})
		for i := range p.Tiers {
			p.Tiers[i].Price, p.Tiers[i].Per, p.Tiers[i].Flat = somePrices.Draw(t, "price"), somePers.Draw(t, "per"), somePrices.Draw(t, "flat")
		}
	}
	return p
}

// ask is what a price asks for x, worked out from the words of the README in fractions.
func (p drawnPrice) ask(x *big.Rat) *big.Rat {
	if p.Free != "" {
		x = new(big.Rat).Sub(x, number(p.Free).Rat())
	}
	total := new(big.Rat)
	if x.Sign() <= 0 {
		return total
	}
	part := func(q *big.Rat, price, per string) *big.Rat {
		r := new(big.Rat).Mul(q, number(price).Rat())
		return r.Quo(r, number(per).Rat())
	}
	switch p.Model {
	case "per_unit":
		return part(x, p.Price, p.Per)
	case "package":
		n := new(big.Rat).Quo(x, number(p.Per).Rat())
		whole := new(big.Int).Quo(n.Num(), n.Denom())
		if !n.IsInt() {
			whole.Add(whole, big.NewInt(1))
		}
		return total.Mul(new(big.Rat).SetInt(whole), number(p.Price).Rat())
	}
	from := new(big.Rat)
	for _, t := range p.Tiers {
		last := t.UpTo == "" || x.Cmp(number(t.UpTo).Rat()) <= 0
		end := x
		if !last {
			end = number(t.UpTo).Rat()
		}
		if p.Model == "graduated" {
			total.Add(total, part(new(big.Rat).Sub(end, from), t.Price, t.Per))
			total.Add(total, number(t.Flat).Rat())
		} else if last {
			total.Add(part(x, t.Price, t.Per), number(t.Flat).Rat())
		}
		if last {
			break
		}
		from = end
	}
	return total
}

// periodEvent is one use in a period.
type periodEvent struct {
	version  int // its index
	rate     string
	quantity decimal.Decimal
	user     string
	back     bool // a correction: there is an earlier event that it takes back
}

// periodCard is versions of a card with a meter "calls" reckoned over a month by the rates "in" and "out", which share a counter.
type periodCard struct {
	aggregation string
	versions    []map[string]drawnPrice
}

var monthStart = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func (c periodCard) effective(version int) time.Time {
	// The second comes into force before the first: time orders them, not the number.
	return monthStart.Add(time.Duration([]int{2, 1, 3, 4}[version]) * time.Hour)
}

func (c periodCard) order() []int {
	var order []int
	for v := range c.versions {
		order = append(order, v)
	}
	slices.SortFunc(order, func(a, b int) int { return c.effective(a).Compare(c.effective(b)) })
	return order
}

func (c periodCard) book(t *rapid.T) *rating.Book {
	card := rating.CardVersions{ID: standard, Code: "standard", Unit: credits, Default: true}
	for i, prices := range c.versions {
		meter := map[string]any{"code": "calls", "aggregation": c.aggregation}
		if c.aggregation == "max" || c.aggregation == "unique" {
			meter["period"] = "month"
		}
		if c.aggregation == "unique" {
			meter["unique_by"] = "user"
		}
		var rates []map[string]any
		for _, id := range []string{"out", "in"} {
			r := map[string]any{}
			b, err := json.Marshal(prices[id])
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &r); err != nil {
				t.Fatal(err)
			}
			r["id"], r["meter"], r["match"], r["over"], r["counter"] = id, "calls", credit.Scope{"type": {id}}, "month", "tokens"
			rates = append(rates, r)
		}
		doc, err := json.Marshal(map[string]any{"meters": []any{meter}, "rates": rates})
		if err != nil {
			t.Fatal(err)
		}
		d, err := rating.Parse(doc)
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		card.Versions = append(card.Versions, rating.Version{Number: i + 1, EffectiveAt: c.effective(i), Doc: d})
	}
	b, err := rating.NewBook(1, []rating.CardVersions{card})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// charge is F of the README, scanned straight from the events: for each version and rate in order, what is asked up to it less what
// is asked before it.
func (c periodCard) charge(events []periodEvent) *big.Rat {
	total, before := new(big.Rat), new(big.Rat)
	seen := map[string]bool{}
	for _, v := range c.order() {
		for _, rate := range []string{"in", "out"} {
			after := new(big.Rat).Set(before)
			for _, e := range events {
				if e.version != v || e.rate != rate {
					continue
				}
				q := e.quantity.Rat()
				switch c.aggregation {
				case "count":
					q = big.NewRat(1, 1)
				case "unique":
					q = new(big.Rat)
					if !seen[e.user] {
						q = big.NewRat(1, 1)
					}
					seen[e.user] = true
				case "max":
					if after.Cmp(q) < 0 {
						after.Set(q)
					}
					continue
				}
				if e.back {
					q.Neg(q)
				}
				after.Add(after, q)
			}
			price := c.versions[v][rate]
			total.Add(total, price.ask(after))
			total.Sub(total, price.ask(before))
			before = after
		}
	}
	return total
}

func drawPeriodCard(t *rapid.T, aggregations ...string) periodCard {
	c := periodCard{aggregation: rapid.SampledFrom(aggregations).Draw(t, "aggregation")}
	models := []string{"per_unit", "package", "graduated", "volume"}
	for range rapid.IntRange(1, 4).Draw(t, "versions") {
		in := drawPrice(t, models...)
		out := drawPrice(t, in.Model)
		if (c.aggregation == "sum" || c.aggregation == "count") && rapid.Bool().Draw(t, "free") {
			in.Free = "2.25"
			out.Free = in.Free
		}
		c.versions = append(c.versions, map[string]drawnPrice{"in": in, "out": out})
	}
	return c
}

func drawEvents(t *rapid.T, c periodCard) []periodEvent {
	var events []periodEvent
	for i := range rapid.IntRange(1, 12).Draw(t, "events") {
		e := periodEvent{
			version: rapid.IntRange(0, len(c.versions)-1).Draw(t, fmt.Sprintf("version of %d", i)), rate: rapid.SampledFrom([]string{"in", "out"}).Draw(t, "rate"),
			quantity: decimal.New(rapid.Int64Range(0, 90).Draw(t, "quantity"), -1), user: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "user"),
		}
		events = append(events, e)
	}
	return events
}

// run charges events and returns their costs, each to 24 places at least, and all together.
func (c periodCard) run(t *rapid.T, b *rating.Book, events []periodEvent) (costs []*big.Rat, total *big.Rat, state rating.Counters) {
	state, total = rating.Counters{}, new(big.Rat)
	for _, e := range events {
		u := rating.Usage{At: c.effective(e.version), Correction: e.back, Lines: []rating.Line{{Meter: "calls", Quantity: e.quantity, Dims: credit.Dimensions{"type": e.rate, "user": e.user}}}}
		p, err := b.Price(credit.RateCardID{}, 0, u, state, nil)
		if err != nil || p.Version != e.version+1 {
			t.Fatalf("%+v: %+v, %v", e, p, err)
		}
		state.Apply(p.Changes)
		cost := p.Lines[0].Cost.Rat()
		costs, total = append(costs, cost), total.Add(total, cost)
	}
	return costs, total, state
}

// near tells whether two sums of up to 50 costs agree, each cost being exact or rounded at its 24th place.
func near(a, b *big.Rat) bool {
	diff := new(big.Rat).Sub(a, b)
	return diff.Abs(diff).Cmp(new(big.Rat).Quo(big.NewRat(50, 1), power10(rating.CostPlaces))) <= 0
}

// However events are ordered, the period costs F, and each event what F rises by.
func TestPeriodCostsTheRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawPeriodCard(t, "sum", "count", "max", "unique")
		b, events := c.book(t), drawEvents(t, c)
		costs, total, state := c.run(t, b, events)
		before := new(big.Rat)
		for i := range events {
			after := c.charge(events[:i+1])
			if rise := new(big.Rat).Sub(after, before); !near(costs[i], rise) {
				t.Fatalf("%+v of %+v: event %d costs %s, want %s", c, events, i, costs[i].FloatString(30), rise.FloatString(30))
			}
			before = after
		}
		shuffled := slices.Clone(events)
		rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "order"))).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		_, again, stateAgain := c.run(t, b, shuffled)
		if !near(total, again) {
			t.Fatalf("%+v cost %s, in the order %+v %s", events, total.FloatString(30), shuffled, again.FloatString(30))
		}
		if len(state) != len(stateAgain) {
			t.Fatalf("%v and %v", state, stateAgain)
		}
		for k, counter := range state {
			if !counter.Equal(stateAgain[k]) {
				t.Fatalf("%s is %s, in another order %s", k, counter, stateAgain[k])
			}
		}
	})
}

// Cutting an event into parts, within one usage or into several, never changes what the period costs, and taking all back leaves nothing.
func TestPeriodDoesNotSeeCuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawPeriodCard(t, "sum")
		b, events := c.book(t), drawEvents(t, c)
		_, whole, state := c.run(t, b, events)
		var cut []periodEvent
		for _, e := range events {
			for rapid.Bool().Draw(t, "cut") {
				part := e
				part.quantity = e.quantity.Mul(decimal.New(rapid.Int64Range(0, 100).Draw(t, "hundredths"), -2)).Truncate(12)
				e.quantity = e.quantity.Sub(part.quantity)
				cut = append(cut, part)
			}
			cut = append(cut, e)
		}
		_, parts, cutState := c.run(t, b, cut)
		if diff := new(big.Rat).Sub(whole, parts); diff.Abs(diff).Cmp(new(big.Rat).Quo(big.NewRat(int64(len(cut)+len(events)), 1), power10(rating.CostPlaces))) > 0 {
			t.Fatalf("%+v cost %s, cut as %+v %s", events, whole.FloatString(30), cut, parts.FloatString(30))
		}
		for k, counter := range state {
			if !counter.Equal(cutState[k]) {
				t.Fatalf("%s is %s, cut %s", k, counter, cutState[k])
			}
		}
		all := slices.Clone(cut)
		for _, i := range rapid.Permutation(seq(len(cut))).Draw(t, "back") {
			e := cut[i]
			e.back = true
			all = append(all, e)
		}
		if _, rest, state := c.run(t, b, all); len(state) > 0 || !nothing(rest, len(all)) {
			t.Fatalf("%+v leave %s and %v", all, rest.FloatString(30), state)
		}
		// In one usage, rounded once: the lines sum to the same.
		u := rating.Usage{At: c.effective(events[0].version)}
		for _, e := range cut {
			u.Lines = append(u.Lines, rating.Line{Meter: "calls", Quantity: e.quantity, Dims: credit.Dimensions{"type": e.rate}})
		}
		one := make([]periodEvent, len(events))
		for i, e := range events {
			e.version = events[0].version
			one[i] = e
		}
		p, err := b.Price(credit.RateCardID{}, 0, u, nil, nil)
		want := toEvenSigned(new(big.Rat).Mul(c.charge(one), power10(6)))
		if want.CmpAbs(big.NewInt(int64(credit.MaxAmount))) > 0 {
			if credit.CodeOf(err) != credit.InvalidAmount {
				t.Fatal(p, err)
			}
		} else if err != nil || want.Cmp(big.NewInt(int64(p.Total))) != 0 {
			t.Fatalf("%+v: %d, %v, want %s", u, p.Total, err, want)
		}
	})
}

func nothing(r *big.Rat, n int) bool {
	return new(big.Rat).Abs(r).Cmp(new(big.Rat).Quo(big.NewRat(int64(n), 1), power10(rating.CostPlaces))) <= 0
}

func seq(n int) []int {
	var s []int
	for i := range n {
		s = append(s, i)
	}
	return s
}

func toEvenSigned(r *big.Rat) *big.Int {
	n := toEven(new(big.Rat).Abs(r))
	if r.Sign() < 0 {
		n.Neg(n)
	}
	return n
}

// Without volume tiers more of anything never costs less, neither by itself nor over a period.
func TestModelsAreMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawPeriodCard(t, "sum", "count", "max", "unique")
		for _, v := range c.versions {
			if v["in"].Model == "volume" {
				return
			}
		}
		if len(c.versions) > 1 {
			c.versions = c.versions[:1]
		}
		events := drawEvents(t, c)
		for i := range events {
			events[i].version, events[i].rate = 0, "in"
		}
		costs, _, _ := c.run(t, c.book(t), events)
		for i, cost := range costs {
			if cost.Sign() < 0 {
				t.Fatalf("%+v: event %d of %+v costs %s", c, i, events, cost.FloatString(30))
			}
		}
	})
}

// What is charged stays within a step of what was used, per meter and version, whatever is priced by what.
func TestCarriedRemainder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scale := rapid.IntRange(0, credit.MaxScale).Draw(t, "scale")
		card := rating.CardVersions{ID: standard, Code: "standard", Unit: credit.Unit{Code: "CRD", Scale: scale}, Default: true}
		var prices [2][2]drawnPrice
		for v := range prices {
			var rates []string
			for m, meter := range someMeters {
				prices[v][m] = drawnPrice{Model: "per_unit", Price: rapid.SampledFrom([]string{"1", "0.0001", "2.5", "0.37"}).Draw(t, "price"), Per: somePers.Draw(t, "per")}
				rates = append(rates, fmt.Sprintf(`{"id": %q, "meter": %q, "price": %q, "per": %q}`, meter, meter, prices[v][m].Price, prices[v][m].Per))
			}
			d, err := rating.Parse([]byte(strings.Replace(withRates(strings.Join(rates, ",")), `{"meters"`, `{"rounding": "carry", "meters"`, 1)))
			if err != nil {
				t.Fatal(err)
			}
			card.Versions = append(card.Versions, rating.Version{Number: v + 1, EffectiveAt: noon.Add(time.Duration(v) * time.Hour), Doc: d})
		}
		b, err := rating.NewBook(1, []rating.CardVersions{card})
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(2, rapid.Uint64().Draw(t, "events")))
		state := rating.Counters{}
		var exact [2][2]*big.Rat
		for v := range exact {
			exact[v] = [2]*big.Rat{new(big.Rat), new(big.Rat)}
		}
		charged, used := new(big.Rat), new(big.Rat)
		half := new(big.Rat).Quo(big.NewRat(1, 2), power10(scale))
		for i := range 150 {
			v := random.IntN(2)
			u := rating.Usage{At: noon.Add(time.Duration(v) * time.Hour), Correction: random.IntN(8) == 0}
			touched := map[int]bool{}
			for range 1 + random.IntN(3) {
				m := random.IntN(2)
				touched[m] = true
				q := decimal.New(random.Int64N(1000), -int32(random.IntN(4)))
				u.Lines = append(u.Lines, rating.Line{Meter: someMeters[m], Quantity: q})
				cost := prices[v][m].ask(q.Rat())
				if u.Correction {
					cost.Neg(cost)
				}
				exact[v][m].Add(exact[v][m], cost)
				used.Add(used, cost)
			}
			p, err := b.Price(credit.RateCardID{}, 0, u, state, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !u.Correction && p.Total < 0 {
				t.Fatalf("%d: %+v costs %d", i, u, p.Total)
			}
			state.Apply(p.Changes)
			charged.Add(charged, p.Total.Decimal(scale).Rat())
			left := new(big.Rat)
			for k, counter := range state {
				r, ok := new(big.Rat).SetString(counter.String())
				if !ok || new(big.Rat).Abs(r).Cmp(half) > 0 {
					t.Fatalf("%d: %s carries %s, more than half a step", i, k, counter)
				}
				left.Add(left, r)
				if steps := new(big.Rat).Sub(exact[k.Version-1][slices.Index(someMeters, k.Meter)], r); !steps.Mul(steps, power10(scale)).IsInt() {
					t.Fatalf("%d: %s carries %s, which is not what is left", i, k, counter)
				}
			}
			if new(big.Rat).Add(charged, left).Cmp(used) != 0 {
				t.Fatalf("%d: charged %s of %s and carry %s", i, charged, used, left)
			}
		}
	})
}

// Counters and keys come back from their text, and nothing else is read.
func FuzzCounter(f *testing.F) {
	for _, s := range []string{"", "3,gpt4o=1200;4,gpt4o=7.5", "1,a=0.000000000001", "-1/3000000", "7", "1,a=340282366920938463463374607", "2,a=1;1,a=1", "1,a=01", "1,a=1.0", "+1/2", "2/4", "1e9", "1,a=0", "0,a=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := rating.ParseCounter(s)
		if err != nil {
			if credit.CodeOf(err) != "" || !c.IsZero() {
				t.Fatalf("%q gives %+v, %v", s, c, err)
			}
			return
		}
		if c.String() != s || c.IsZero() != (s == "") {
			t.Fatalf("%q comes back as %q", s, c)
		}
		var d rating.Counter
		b, err := json.Marshal(c)
		if err != nil || json.Unmarshal(b, &d) != nil || !d.Equal(c) {
			t.Fatalf("%q comes back from JSON as %q, %v", s, d, err)
		}
		for i, p := range c.Parts() {
			if p.Version < 1 || p.Quantity.IsZero() || p.Quantity.Decimal().String() != p.Quantity.String() {
				t.Fatalf("%q: part %d is %+v", s, i, p)
			}
		}
	})
}

func FuzzCounterKey(f *testing.F) {
	id := standard.String()
	for _, s := range []string{" sum calls a month/2026-03-01", " seen users a day/2026-03-01 a value", " rest calls 3", " max m a hour/2026-10-25T02+7200", " unique m a week/2026-03-01", " count m a hour/2026-10-25T02-0", " sum m a year/2026-02-01"} {
		f.Add(id + s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := rating.ParseCounterKey(s)
		if (err == nil) != (k != rating.CounterKey{}) || err != nil && credit.CodeOf(err) != credit.InvalidRequest {
			t.Fatalf("%q gives %+v, %v", s, k, err)
		}
		if err == nil && (k.String() != s || k.Compare(k) != 0) {
			t.Fatalf("%q comes back as %q", s, k)
		}
	})
}

func TestCounterTextIsStrict(t *testing.T) {
	for _, s := range []string{"2,a=1;1,a=1", "1,a=1;1,a=2", "1,a=01", "1,a=1.0", "1,a=.5", "1,a=0", "0,a=1", "-1,a=1", "01,a=1", "1,=1", "1,a=", "1,a=1;", ";", "=", "1/0", "2/4", "0", "+1/2", "1.5", "1e9", "1/", "/2", "--1", "1,a=-1", "1,a=999999999999999999999999999", "1,a b=1"} {
		if c, err := rating.ParseCounter(s); err == nil {
			t.Errorf("%q is read as %q", s, c)
		}
	}
	id := standard.String()
	for _, s := range []string{"", id, id + " sum calls a", id + " sum calls a month/2026-03-02", id + " sum calls a decade/2020-01-01", id + " seen calls a day/2026-03-01 ", id + " sum calls a day/2026-03-01 x",
		id + " rest calls 0", id + " rest calls 03", id + " rest calls 3 ", id + " total calls 3", id + " sum Calls a day/2026-03-01", id + " sum calls a hour/2026-03-01T24+0", id + " sum calls a hour/2026-03-01T12+00", "crd_x sum calls a day/2026-03-01"} {
		if k, err := rating.ParseCounterKey(s); err == nil {
			t.Errorf("%q is read as %+v", s, k)
		}
	}
}

// A state that pricing with the book cannot have made is a fault, not a refusal.
func TestStateOfAnotherBook(t *testing.T) {
	b := bookOf(t, []byte(withRate(`"model": "volume", "over": "month", `+tierFields)))
	u := rating.Usage{At: noon, Lines: []rating.Line{line("calls", "1")}}
	keys, err := b.Keys(credit.RateCardID{}, 0, u)
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	for _, s := range []string{"2,a=1", "1,b=1"} {
		counter, err := rating.ParseCounter(s)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := b.Price(credit.RateCardID{}, 0, u, rating.Counters{keys[0]: counter}, nil); err == nil || credit.CodeOf(err) != "" {
			t.Errorf("%s: %+v, %v", s, p, err)
		}
	}
	full, err := rating.ParseCounter("1,a=340282366920938463463374607")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := b.Price(credit.RateCardID{}, 0, u, rating.Counters{keys[0]: full}, nil); credit.CodeOf(err) != credit.InvalidRequest {
		t.Errorf("%+v, %v", p, err)
	}
}

// A rate for one hour of a week is found in that hour and no other, however many there are of its kind.
func TestTimetable(t *testing.T) {
	var rates []string
	for h := range 168 {
		day := []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}[h/24]
		rates = append(rates, fmt.Sprintf(`{"id": "h%d", "meter": "calls", "price": "1", "when": [{"days": [%q], "from": "%02d:00", "to": "%02d:00"}]}`, h, day, h%24, (h+1)%24))
	}
	b := bookOf(t, []byte(withRates(strings.Join(rates, ","))))
	monday := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for m := 0; m < 168*60; m += 7 {
		p, err := b.Price(credit.RateCardID{}, 1, rating.Usage{At: monday.Add(time.Duration(m) * time.Minute), Lines: []rating.Line{line("calls", "1")}}, nil, nil)
		if err != nil || p.Lines[0].RateID != fmt.Sprint("h", m/60) {
			t.Fatalf("minute %d: %+v, %v", m, p.Lines, err)
		}
	}
	rates = append(rates, `{"id": "late", "meter": "calls", "price": "1", "when": [{"days": ["wed"], "from": "23:59", "to": "00:00"}]}`)
	if got := issues(t, []byte(withRates(strings.Join(rates, ",")))); len(got) != 1 || !strings.HasPrefix(got[0], `/rates/168: Rates "h71" (/rates/71) and "late" (/rates/168) are both for any usage of meter calls at wed 23:59`) {
		t.Errorf("%q", got)
	}
	for i := range 40 {
		rates = append(rates, fmt.Sprintf(`{"id": "x%d", "meter": "calls", "price": "1", "match": {"x": ["%d"]}, "when": [{"days": ["wed"], "from": "00:%02d", "to": "00:59"}]}`, i, i, i))
	}
	if got := issues(t, []byte(withRates(strings.Join(rates, ",")))); len(got) != 1 || !strings.Contains(got[0], "more than 200 different lists of windows") {
		t.Errorf("%.400q", got)
	}
}
