package rating

import (
	"cmp"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Line is one quantity of a usage, such as its input tokens.
type Line struct {
	Meter    string
	Quantity decimal.Decimal   // 0 or more, at most 20 digits before and 12 after the point
	Dims     credit.Dimensions // of this line alone; they go before those of the usage
	Cost     ComputeCost       // what it cost to serve, for rates that ask for it
}

// ComputeCost is what it cost to serve a line, in money.
type ComputeCost struct {
	Amount   decimal.Decimal // in major units, 0 or more, at most 20 digits before and 24 after the point
	Currency string          // ISO 4217; "": not known
}

// Usage is what one event used. The bounds of its dimensions are the caller's matter: see [credit.CheckDimensions].
type Usage struct {
	At    time.Time         // when; it chooses version, period, window and exchange rate
	Lines []Line            // 1 to 1,000
	Dims  credit.Dimensions // common to the lines; nil: none
	// Correction takes the quantities back instead: the price is what the usage would cost less without them, 0 or below as a rule. Not
	// possible for meters of aggregation Max and Unique.
	Correction bool
}

const maxLines = 1_000

// PricedLine is what a line costs, and why.
type PricedLine struct {
	RateID, Meter string
	Dims          credit.Dimensions // the line's own, as given
	Quantity      decimal.Decimal
	Model         Model
	Price, Per    decimal.Decimal // the rate's; 0 and 1 of models that have none
	Currency      string          // of the rate's prices; "": credits
	// Cost is what the rate asks for, in credits, unrounded; only when that has no finite decimal (as Per 3600 may bring about) it is
	// rounded half to even to CostPlaces. It is below 0 in a correction, and where what has been counted makes earlier usage of the period cheaper.
	Cost decimal.Decimal

	// The card and the version that priced the line, when an extended card did; zero when the usage's own.
	CardID   credit.RateCardID
	CardCode string
	Version  int

	// What the rate's counter stood at before and after, all versions together; the zero CounterKey when it has none.
	Counter       CounterKey
	Before, After Quantity

	FX []Conversion // what it was reckoned with; nil: no other currency
}

// Priced is what a usage costs.
type Priced struct {
	CardID   credit.RateCardID
	CardCode string
	Version  int
	Unit     credit.Unit
	// Total is in steps of Unit. It can be below 0: a volume tier reached makes all of the period cheaper, a late event moves later ones
	// into other tiers, a correction takes back.
	Total credit.Amount
	Lines []PricedLine // as many as the usage has, in its order
	// Changes is what counters stand at afterwards, each key once. They are to be kept if and only if the usage is charged, and no other
	// change of the counters may come between reading them and that.
	Changes []Change
}

// Price says what u costs on a card, the zero card being the default one, at a version, 0 being the one in force at u.At. state is what the
// customer's counters stand at, nil when nothing has been counted; rates is where exchange rates come from, nil when there are none.
//
// Each line is priced by the most specific rate of its meter that matches it: the one that names most dimensions, a time being one. A
// document has no two that could match one usage and name as many. What no rate of a document that extends another card is for, is priced by
// that card. The exact costs of the lines are summed exactly, and the sum is rounded once, half to even, to the scale of the card's unit. So
// how an event is cut into lines does not change its price. Where a document carries remainders, the sum of each meter is rounded together
// with what the customer's last usage of it has left.
//
// Refusals are [credit.Error]s coded rate_card_not_found (no such card or version), no_rate (no version in force, no such meter,
// no rate for a line; the detail says which and what the nearest rate asks; no exchange rate), invalid_request (a quantity or a cost out of
// its bounds, one that is missing, the number of lines, a correction of what was not counted) and invalid_amount (a total beyond [credit.MaxAmount]).
func (b *Book) Price(id credit.RateCardID, version int, u Usage, state State, rates Rates) (Priced, error) {
	p := pricing{book: b, usage: u, state: state, rates: rates}
	c, v, err := p.begin(id, version)
	if err != nil {
		return Priced{}, err
	}
	out := Priced{CardID: c.id, CardCode: c.code, Version: v.Number, Unit: c.unit, Lines: make([]PricedLine, len(u.Lines))}
	var total number
	for i := range u.Lines {
		l := &u.Lines[i]
		by, w, r, err := p.find(c, v, l)
		if err != nil {
			return Priced{}, err
		}
		quantity, fault := checkQuantity(l.Quantity)
		if fault != "" {
			return Priced{}, credit.Invalid(fmt.Sprintf("/lines/%d/quantity", i), "%s", fault)
		}
		line := &out.Lines[i]
		line.RateID, line.Meter, line.Dims, line.Quantity = r.ID, l.Meter, l.Dims, quantity
		line.Model, line.Price, line.Per, line.Currency = r.Model, r.Price, r.Per, r.Currency
		if by != c {
			line.CardID, line.CardCode, line.Version = by.id, by.code, w.Number
		}
		var cost number
		switch {
		case !r.plain:
			if cost, err = p.cost(by, w, r, i, quantity, line); err != nil {
				return Priced{}, err
			}
		case r.fast && quantity.NumDigits() <= 18:
			cost.f = r.timesFast(quantity)
		default:
			q := r.times(quantity)
			cost.q = &q
		}
		if u.Correction && !r.counts {
			cost = cost.negated()
		}
		line.Cost = cost.decimal()
		if w.Doc.Rounding == RoundCarry {
			p.carry(CounterKey{Card: by.id, Kind: Remainder, Meter: l.Meter, Version: w.Number}, cost)
		} else {
			total = total.plus(cost)
		}
	}
	var ok bool
	if out.Total, ok = total.steps(c.unit.Scale); ok {
		out.Total, ok = p.settle(out.Total, c.unit.Scale)
	}
	if !ok {
		return Priced{}, credit.Errorf(credit.InvalidAmount, "The usage costs more than %s, the largest amount there is.", credit.MaxAmount.Format(c.unit.Scale))
	}
	out.Changes = p.changes
	return out, nil
}

// Keys lists the counters that pricing a usage asks its State for, each once, in the order of [CounterKey.Compare]; nil when none. They
// depend on the version: grants at locked versions need the keys of each. Refusals are among those of [Book.Price].
func (b *Book) Keys(id credit.RateCardID, version int, u Usage) ([]CounterKey, error) {
	p := pricing{book: b, usage: u}
	c, v, err := p.begin(id, version)
	if err != nil || !c.stateful {
		return nil, err
	}
	var keys []CounterKey
	for i := range u.Lines {
		l := &u.Lines[i]
		by, w, r, err := p.find(c, v, l)
		if err != nil {
			return nil, err
		}
		if r.counts {
			k := p.key(by, w, r)
			keys = append(keys, k)
			if r.kind == UniqueCounter {
				value, err := p.value(r, i)
				if err != nil {
					return nil, err
				}
				keys = append(keys, k.seen(value))
			}
		}
		if w.Doc.Rounding == RoundCarry {
			keys = append(keys, CounterKey{Card: by.id, Kind: Remainder, Meter: l.Meter, Version: w.Number})
		}
	}
	slices.SortFunc(keys, CounterKey.Compare)
	return slices.Compact(keys), nil
}

// pricing is one usage being priced.
type pricing struct {
	book  *Book
	usage Usage
	state State
	rates Rates

	changes []Change
	changed map[CounterKey]int // where a key is in changes, once there are many
	carried []remainder

	clock  *Document // whose zone minute is in; nil: not known yet
	minute int       // of the week
}

// remainder is what a usage costs of one meter, to be rounded with what is carried.
type remainder struct {
	key CounterKey
	sum number
}

func (p *pricing) begin(id credit.RateCardID, version int) (*card, *Version, error) {
	c, err := p.book.card(id)
	if err != nil {
		return nil, nil, err
	}
	v, err := c.version(version, p.usage.At)
	if err != nil {
		return nil, nil, err
	}
	if n := len(p.usage.Lines); n == 0 || n > maxLines {
		return nil, nil, credit.Invalid("/lines", "A usage has 1 to %d lines, not %d.", maxLines, n)
	}
	return c, v, nil
}

// find returns the rate for a line, and the card and version that it is of: of the nearest card that has one.
func (p *pricing) find(c *card, v *Version, l *Line) (*card, *Version, *compiledRate, error) {
	own, ownVersion := c, v
	for {
		if m := v.Doc.meters[l.Meter]; m != nil {
			at, have := m.place(l.Dims, p.usage.Dims)
			if r := m.find(&at, have, p.minuteFor(v.Doc, m)); r != nil {
				return c, v, r, nil
			}
		}
		e := v.Doc.Extends
		if e.Card == "" {
			return nil, nil, nil, p.noRate(own, ownVersion, l)
		}
		c = p.book.byCode[e.Card]
		var err error
		if v, err = c.version(e.Version, p.usage.At); err != nil {
			return nil, nil, nil, err
		}
	}
}

// minuteFor returns the minute of the week where rates of a meter are for some times only.
func (p *pricing) minuteFor(d *Document, m *meterIndex) int {
	if m.timed && p.clock != d {
		p.clock, p.minute = d, minuteOfWeek(p.usage.At, d.zone)
	}
	return p.minute
}

// cost returns what a line costs by a rate that asks for more than a price.
func (p *pricing) cost(c *card, v *Version, r *compiledRate, i int, quantity decimal.Decimal, line *PricedLine) (number, error) {
	if r.counts {
		return p.count(c, v, r, i, quantity, line)
	}
	var cost number
	var something bool
	var err error
	if r.Model == CostPlus {
		if cost, something, err = p.computeCost(v.Doc, r, i, line); err != nil {
			return number{}, err
		}
	} else {
		x := oneUnit
		if r.kind != CountCounter {
			x = quantityOf(quantity)
		}
		cost, something = r.curve.of(x), !x.IsZero()
		if r.Currency != "" {
			if cost, err = p.credits(v.Doc, cost, r.Currency, p.usage.At, line); err != nil {
				return number{}, err
			}
		}
	}
	if something && cost.minus(r.minimum).sign() < 0 {
		cost = r.minimum
	}
	if r.maximum != nil && cost.minus(*r.maximum).sign() > 0 {
		cost = *r.maximum
	}
	return cost, nil
}

// computeCost returns what a line costs by what it cost to serve, and whether that is anything.
func (p *pricing) computeCost(d *Document, r *compiledRate, i int, line *PricedLine) (_ number, something bool, _ error) {
	in := p.usage.Lines[i].Cost
	at := fmt.Sprintf("/lines/%d/cost", i)
	if in.Currency == "" {
		return number{}, false, credit.Invalid(at, "The rate %q asks for the compute cost of the line.", r.ID)
	}
	if _, err := credit.CurrencyPlaces(in.Currency); err != nil {
		return number{}, false, credit.Invalid(at, "%s", detailOf(err))
	}
	if fault := checkCost(in.Amount); fault != "" {
		return number{}, false, credit.Invalid(at, "%s", fault)
	}
	cost, err := p.credits(d, numberOf(in.Amount).times(&r.curve.unit), in.Currency, p.usage.At, line)
	return cost, !in.Amount.IsZero(), err
}

func (p *pricing) key(c *card, v *Version, r *compiledRate) CounterKey {
	return CounterKey{Card: c.id, Kind: r.kind, Meter: r.Meter, Counter: r.Counter, Period: periodAt(r.Over, p.usage.At, v.Doc.zone)}
}

func (k CounterKey) seen(value string) CounterKey {
	k.Kind, k.Value = SeenValue, value
	return k
}

// value returns the value that a line counts of a meter of aggregation Unique.
func (p *pricing) value(r *compiledRate, i int) (string, error) {
	value := p.usage.Lines[i].Dims[r.uniqueBy]
	if value == "" {
		value = p.usage.Dims[r.uniqueBy]
	}
	if value == "" {
		return "", credit.Invalid(fmt.Sprintf("/lines/%d", i), "The meter %q counts values of %q, which the usage does not name.", r.Meter, r.uniqueBy)
	}
	return value, nil
}

// count takes a line into the counter of its rate, and returns what the period's charge rises by.
func (p *pricing) count(c *card, v *Version, r *compiledRate, i int, quantity decimal.Decimal, line *PricedLine) (number, error) {
	key := p.key(c, v, r)
	before := p.counter(key)
	after := before
	have := before.at(v.Number, r.ID)
	if p.usage.Correction && (r.kind == MaxCounter || r.kind == UniqueCounter) {
		return number{}, credit.Invalid(fmt.Sprintf("/lines/%d", i), "What the meter %q counts cannot be taken back: its aggregation is %q.", r.Meter, r.kind)
	}
	switch r.kind {
	case MaxCounter:
		if x := quantityOf(quantity); have.less(x) {
			after = before.with(v.Number, r.ID, x)
		}
	case UniqueCounter:
		value, err := p.value(r, i)
		if err != nil {
			return number{}, err
		}
		if after, err = p.see(c, v, r, key.seen(value), before); err != nil {
			return number{}, err
		}
	default:
		x := oneUnit
		if r.kind == SumCounter {
			x = quantityOf(quantity)
		}
		change, fault := have.plus, "The counter is full."
		if p.usage.Correction {
			change, fault = have.minus, fmt.Sprintf("Only %s was counted that can be taken back.", have)
		}
		x, ok := change(x)
		if !ok {
			return number{}, credit.Invalid(fmt.Sprintf("/lines/%d/quantity", i), "%s", fault)
		}
		after = before.with(v.Number, r.ID, x)
	}
	line.Counter = key
	cost, err := p.rise(c, v, r, key, &before, &after, line)
	if err == nil && !after.Equal(before) {
		p.change(key, after)
	}
	return cost, err
}

// see counts a value: once in a period, by the first of the versions and rates whose usage has it. A late event of an earlier
// version takes it from a later one, so the order in which events come does not matter.
func (p *pricing) see(c *card, v *Version, r *compiledRate, key CounterKey, before Counter) (Counter, error) {
	by := p.counter(key)
	after := before
	if by.one.version != 0 {
		then, ok := c.place(by.one.version)
		if !ok {
			return before, unknown(c, key, by.one)
		}
		now, _ := c.place(v.Number)
		if cmp.Or(cmp.Compare(c.rank[then], c.rank[now]), cmp.Compare(by.one.rate, r.ID)) <= 0 {
			return before, nil
		}
		left, ok := before.at(by.one.version, by.one.rate).minus(oneUnit)
		if !ok {
			return before, unknown(c, key, by.one)
		}
		after = after.with(by.one.version, by.one.rate, left)
	}
	n, _ := after.at(v.Number, r.ID).plus(oneUnit)
	p.change(key, Counter{one: part{v.Number, r.ID, oneUnit}})
	return after.with(v.Number, r.ID, n), nil
}

// unknown is the fault of a state that pricing with this book cannot have made.
func unknown(c *card, key CounterKey, by part) error {
	return fmt.Errorf("rating: counter %s has counted by rate %q of version %d, which rate card %q does not have", key, by.rate, by.version, c.code)
}

// segment is what one rate of one version has counted of a period.
type segment struct {
	rank, version int // rank: among the versions in order of time
	rate          string
	before, after Quantity
}

// rise returns how much more a period is charged after than before: the rule is in the README.
func (p *pricing) rise(c *card, v *Version, r *compiledRate, key CounterKey, before, after *Counter, line *PricedLine) (number, error) {
	var few [4]segment
	segments := few[:0]
	for i, j := 0, 0; i < before.len() || j < after.len(); {
		var s segment
		order := 0
		switch {
		case i == before.len():
			order = 1
		case j == after.len():
			order = -1
		default:
			order = comparePart(*before.part(i), after.part(j).version, after.part(j).rate)
		}
		if order <= 0 {
			q := before.part(i)
			s.version, s.rate, s.before = q.version, q.rate, q.quantity
			i++
		}
		if order >= 0 {
			q := after.part(j)
			s.version, s.rate, s.after = q.version, q.rate, q.quantity
			j++
		}
		place, ok := c.place(s.version)
		if !ok {
			return number{}, unknown(c, key, part{version: s.version, rate: s.rate})
		}
		s.rank = c.rank[place]
		segments = append(segments, s)
	}
	if len(segments) > 1 {
		slices.SortFunc(segments, func(a, b segment) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.rate, b.rate)) })
	}
	var total number
	var from, to Quantity // what counted up to here, before and after
	for i := range segments {
		s := &segments[i]
		end, ok := reach(key.Kind, from, s.before)
		end2, ok2 := reach(key.Kind, to, s.after)
		if !ok || !ok2 {
			return number{}, credit.Errorf(credit.InvalidAmount, "The counter %s is full.", key)
		}
		if from != to || end != end2 {
			by, doc := r, v.Doc
			if s.version != v.Number {
				place, _ := c.place(s.version)
				doc = c.byNumber[place].Doc
			}
			if s.version != v.Number || s.rate != r.ID {
				if by = doc.counting[s.rate]; by == nil {
					return number{}, unknown(c, key, part{version: s.version, rate: s.rate})
				}
			}
			var delta number
			if end != end2 {
				delta = by.curve.of(end2).minus(by.curve.of(end))
			}
			if from != to {
				delta = delta.plus(by.curve.of(from)).minus(by.curve.of(to))
			}
			if by.Currency != "" {
				var err error
				if delta, err = p.credits(doc, delta, by.Currency, key.Period.Start(doc.zone), line); err != nil {
					return number{}, err
				}
			}
			total = total.plus(delta)
		}
		from, to = end, end2
	}
	line.Before, line.After = from, to
	return total, nil
}

// reach returns where a period stands after a segment.
func reach(kind Kind, from, counted Quantity) (Quantity, bool) {
	if kind != MaxCounter {
		return from.plus(counted)
	}
	if from.less(counted) {
		return counted, true
	}
	return from, true
}

// manyChanges is from how many on they are looked up in a map.
const manyChanges = 16

// counter returns what a counter stands at, with what this usage has counted so far.
func (p *pricing) counter(k CounterKey) Counter {
	if i := p.place(k); i >= 0 {
		return p.changes[i].Counter
	}
	if p.state == nil {
		return Counter{}
	}
	return p.state.Counter(k)
}

// place returns where a key is in changes; below 0 when it is not there.
func (p *pricing) place(k CounterKey) int {
	if p.changed != nil {
		if i, ok := p.changed[k]; ok {
			return i
		}
		return -1
	}
	for i := range p.changes {
		if p.changes[i].Key == k {
			return i
		}
	}
	return -1
}

func (p *pricing) change(k CounterKey, c Counter) {
	if i := p.place(k); i >= 0 {
		p.changes[i].Counter = c
		return
	}
	p.changes = append(p.changes, Change{Key: k, Counter: c})
	switch n := len(p.changes); {
	case p.changed != nil:
		p.changed[k] = n - 1
	case n > manyChanges:
		p.changed = make(map[CounterKey]int, 2*n)
		for i := range p.changes {
			p.changed[p.changes[i].Key] = i
		}
	}
}

// carry adds a cost to what is rounded together.
func (p *pricing) carry(k CounterKey, cost number) {
	for i := range p.carried {
		if p.carried[i].key == k {
			p.carried[i].sum = p.carried[i].sum.plus(cost)
			return
		}
	}
	p.carried = append(p.carried, remainder{k, cost})
}

// settle rounds what is carried, each meter with what it has left from before, and adds it to a total; not ok when that is beyond
// [credit.MaxAmount].
func (p *pricing) settle(total credit.Amount, scale int) (_ credit.Amount, ok bool) {
	for _, r := range p.carried {
		before := p.counter(r.key)
		exact := r.sum.rat()
		if before.rest != nil {
			exact.Add(exact, before.rest)
		}
		steps, ok := quotient{num: exact.Num(), den: exact.Denom()}.steps(scale)
		if !ok {
			return 0, false
		}
		total += steps
		exact.Sub(exact, new(big.Rat).SetFrac(big.NewInt(int64(steps)), bigPow10(int32(scale))))
		var after Counter
		if exact.Sign() != 0 {
			after.rest = exact
		}
		if !after.Equal(before) {
			p.change(r.key, after)
		}
	}
	return total, -credit.MaxAmount <= total && total <= credit.MaxAmount
}

// checkQuantity returns q, with an exponent that can be computed with, or why it is refused.
func checkQuantity(q decimal.Decimal) (_ decimal.Decimal, fault string) {
	q, fault = checkPlaces(q, maxDecimalPlaces)
	if fault != "" {
		return q, "A quantity " + fault
	}
	return q, ""
}

// checkCost returns why an amount of money cannot be what a line cost to serve, or nothing.
func checkCost(amount decimal.Decimal) (fault string) {
	if _, fault = checkPlaces(amount, CostPlaces); fault != "" {
		return "A compute cost " + fault
	}
	return ""
}

func checkPlaces(q decimal.Decimal, places int32) (_ decimal.Decimal, fault string) {
	switch q.Sign() {
	case -1:
		return q, "must not be negative."
	case 0:
		return decimal.Zero, ""
	}
	if q.Exponent() < -places {
		q = q.Normalize()
	}
	if int64(q.NumDigits())+int64(q.Exponent()) > maxDecimalWhole || q.Exponent() < -places {
		return q, fmt.Sprintf("has at most %d digits before and %d after the point.", maxDecimalWhole, places)
	}
	return q, ""
}

// noRate says why no rate of a card is for a line. Where it extends others, the meter is looked for on these too.
func (p *pricing) noRate(c *card, v *Version, l *Line) error {
	own, ownVersion := c, v
	for v.Doc.meters[l.Meter] == nil {
		e := v.Doc.Extends
		if e.Card == "" {
			return credit.Errorf(credit.NoRate, "Rate card %q, version %d, has no meter %.80q.", own.code, ownVersion.Number, l.Meter).With("meter", l.Meter)
		}
		var err error
		c = p.book.byCode[e.Card]
		if v, err = c.version(e.Version, p.usage.At); err != nil {
			return err
		}
	}
	dims := maps.Clone(p.usage.Dims)
	if dims == nil {
		dims = credit.Dimensions{}
	}
	maps.Copy(dims, l.Dims)
	m := v.Doc.meters[l.Meter]
	e := credit.Errorf(credit.NoRate, "No rate of meter %q is for %s on rate card %q, version %d: %s", l.Meter, describe(dims), c.code, v.Number,
		m.why(p.usage.At, v.Doc.zone, dims))
	return e.With("meter", l.Meter).With("dimensions", dims)
}

// why tells what the rate that comes nearest asks for: the one that fails in fewest dimensions, and of several the most specific.
func (m *meterIndex) why(t time.Time, zone *time.Location, dims credit.Dimensions) string {
	at, _ := m.place(dims, nil)
	minute := minuteOfWeek(t, zone)
	var nearest *compiledRate
	fewest := 0
	for i := range m.rates {
		r, fails := &m.rates[i], 0
		for n := range r.needs {
			if !r.needs[n].met(&at) {
				fails++
			}
		}
		if r.when != nil && !r.when.has(minute) {
			fails++
		}
		if nearest == nil || fails < fewest || fails == fewest && r.specificity() > nearest.specificity() {
			nearest, fewest = r, fails
		}
	}
	if nearest == nil {
		return "the meter has no rates."
	}
	var asks []string
	for _, name := range slices.Sorted(maps.Keys(nearest.Match)) {
		if v, ok := dims[name]; !ok {
			asks = append(asks, fmt.Sprintf("asks for %.60q, which the usage does not name", name))
		} else if values := nearest.Match[name]; !slices.Contains(values, v) {
			asks = append(asks, fmt.Sprintf("is for %.60s=%s", name, someOf(values)))
		}
	}
	if nearest.when != nil && !nearest.when.has(minute) {
		var windows []string
		for _, w := range nearest.When {
			windows = append(windows, w.String())
		}
		asks = append(asks, fmt.Sprintf("is for %s in %s, where it is %s", shorten(windows, " and "), zone, minuteText(minute)))
	}
	return fmt.Sprintf("the nearest, %q, %s.", nearest.ID, shorten(asks, " and "))
}

// describe writes dimensions for a reader, in order of name, the first few of many.
func describe(dims credit.Dimensions) string {
	if len(dims) == 0 {
		return "usage without dimensions"
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(dims)) {
		words = append(words, fmt.Sprintf("%.60s=%.60s", name, dims[name]))
	}
	return shorten(words, ", ")
}

func someOf(values []string) string {
	var words []string
	for _, v := range values {
		words = append(words, fmt.Sprintf("%.60s", v))
	}
	return shorten(words, "|")
}

// shorten joins the first 6 words and counts the others.
func shorten(words []string, by string) string {
	if len(words) > 6 {
		words = append(slices.Clone(words[:6]), fmt.Sprintf("%d more", len(words)-6))
	}
	return strings.Join(words, by)
}
