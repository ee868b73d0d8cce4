// Package rating turns usage into credits: rate cards are data, compiled once to a lookup and priced exactly.
package rating

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Aggregation says how the quantities that a meter reports add up.
type Aggregation string

const (
	Sum    Aggregation = "sum"    // all quantities: the default
	Count  Aggregation = "count"  // each line counts 1, whatever its quantity
	Max    Aggregation = "max"    // what raises the period's largest quantity counts
	Unique Aggregation = "unique" // each value of a dimension counts 1, once in a period
)

// Model says how a rate turns a quantity into credits.
type Model string

const (
	PerUnit   Model = "per_unit"  // Price for every Per of the quantity, in proportion: the default
	Package   Model = "package"   // Price for every Per begun
	Graduated Model = "graduated" // each part of the quantity at the price of the tier that it lies in
	Volume    Model = "volume"    // all of the quantity at the price of the tier that it ends in
	CostPlus  Model = "cost_plus" // the line's compute cost and Percent more
)

// Meter is one thing that is counted, such as tokens, images or seconds.
type Meter struct {
	Code        string // a lower-case letter, then up to 63 lower-case letters, digits, "_", "-" and "."
	Aggregation Aggregation
	UniqueBy    string // of Unique: the dimension whose values count; otherwise ""
	Period      Over   // of Max and Unique: within which period; otherwise ""
	Description string // "": none
}

// Tier is the price of a part of the quantities.
type Tier struct {
	UpTo  *decimal.Decimal // where it ends, itself within, > 0; nil: the last, without end. It begins above the end of the one before
	Price decimal.Decimal  // for Per of the quantity
	Per   decimal.Decimal  // > 0
	Flat  decimal.Decimal  // once for any quantity in the tier
}

// Rate is a price for some of a meter's usage.
type Rate struct {
	ID    string // unique in its document
	Meter string
	// Match says which usage the rate is for: for each dimension it names, the usage has one of the values listed. Empty: any usage
	// of the meter that no other rate is for.
	Match credit.Scope
	When  []Window // the usage is within one of them; nil: at any time
	Model Model
	Price decimal.Decimal // credits for Per of the meter's quantity, >= 0; of PerUnit and Package
	Per   decimal.Decimal // > 0
	Tiers []Tier          // of Graduated and Volume
	// Percent is of CostPlus: what it takes on top of the cost, >= 0.
	Percent  decimal.Decimal
	Currency string // of Price, and of the Price and Flat of Tiers; "": they are credits
	// Over says over what tiers, packages and Free count: Event, or the period of a customer's counter.
	Over    Over
	Counter string          // its name, which rates that count together share; "" with Event
	Free    decimal.Decimal // a quantity that costs nothing, over Over
	Minimum decimal.Decimal // credits for a line of anything at all; 0: none
	Maximum *decimal.Decimal
}

// CreditValue is what one credit is worth, by which prices in money become credits.
type CreditValue struct {
	Price    decimal.Decimal // > 0
	Currency string          // "": the document does not say
}

// Rounding says what a cost is rounded with.
type Rounding string

const (
	// RoundEvent rounds once for each event: the default.
	RoundEvent Rounding = "event"
	// RoundCarry carries what rounding leaves to the customer's next usage of the same meter and version.
	RoundCarry Rounding = "carry"
)

// Extends names the card that prices what no rate of a document is for.
type Extends struct {
	Card    string // its code; "": none
	Version int    // 0: the one in force at the time of the usage
}

// Document is one version of a rate card. It is made by [Parse] and must not be changed: it is shared by all who price with it.
type Document struct {
	TimeZone    string // IANA; periods and windows are reckoned in it
	CreditValue CreditValue
	Rounding    Rounding
	Extends     Extends
	Meters      []Meter
	Rates       []Rate // in the order of the document, then those of its matrices; the order does not matter to prices

	zone      *time.Location
	meters    map[string]*meterIndex
	perCredit unitPrice                // turns money of CreditValue.Currency into credits
	counting  map[string]*compiledRate // by id: the rates that have a counter
}

// Needs is what must be at hand to price with a document, besides the document.
type Needs struct {
	State   bool   // the customer's counters, and that their changes are kept
	Rates   bool   // exchange rates
	Costs   bool   // the compute cost of lines, and exchange rates where it is in another currency
	Extends string // the code of another card; "": none
}

// Needs returns what must be at hand to price with the document.
func (d *Document) Needs() Needs {
	n := Needs{State: d.Rounding == RoundCarry || len(d.counting) > 0, Extends: d.Extends.Card}
	for i := range d.Rates {
		r := &d.Rates[i]
		n.Rates = n.Rates || r.Currency != "" && r.Currency != d.CreditValue.Currency
		n.Costs = n.Costs || r.Model == CostPlus
	}
	return n
}

// Bounds of a document.
const (
	maxDocument       = 8 << 20 // bytes
	maxMeters         = 1_000
	maxRates          = 10_000
	maxMatchValues    = 200_000 // of all rates together
	maxTiers          = 100     // of a rate
	maxWindows        = 28      // of a rate
	maxTimetables     = 200     // different lists of windows
	maxMatrices       = 1_000
	maxMatrixDepth    = 8     // dimensions of a matrix
	maxDescription    = 1_000 // bytes
	maxDecimalWhole   = 20    // digits before the point
	maxDecimalPlaces  = 12    // digits after it
	maxIssues         = 1_000 // reported; more are counted
	maxMeterCode      = 64
	maxRateID         = 128
	maxMeterDimension = 64 // dimensions that the rates of one meter name
)

// Parse reads a rate card version:
//
//	{"meters": [{"code": "llm_tokens", "aggregation": "sum", "description": "…"}],
//	 "rates": [{"id": "gpt4o-in", "meter": "llm_tokens", "match": {"model": ["gpt-4o"], "token_type": ["input"]},
//	            "model": "per_unit", "price": "2.5", "per": "1000000"}]}
//
// The README has every field. "aggregation", "description", "match", "model" and "per" (then 1) may be left out; fields that it does not
// know are refused. Two rates of one meter that name as many dimensions, a time counting as one, and could match one usage at one time are
// refused, even where a third is more specific than both: so a usage has one price whatever the order of the rates.
//
// The error is a [credit.Error] coded invalid_request whose Issues list every fault, up to 1,000 of them, by JSON pointer into
// the document. An ambiguity is reported at the later rate, once per rate.
func Parse(doc []byte) (*Document, error) {
	p := parser{}
	if len(doc) > maxDocument {
		p.fault("A rate card is at most %d MiB.", maxDocument>>20)
		return nil, p.err()
	}
	if !utf8.Valid(doc) {
		p.fault("The document is not UTF-8.")
		return nil, p.err()
	}
	if detail := syntaxFault(doc); detail != "" {
		p.fault("%s", detail)
		return nil, p.err()
	}
	p.cursor.b = doc
	d := p.document()
	if err := p.err(); err != nil {
		return nil, err
	}
	return d, nil
}

// syntaxFault says where doc is not JSON; "" when it is.
func syntaxFault(doc []byte) string {
	var raw json.RawMessage
	err := json.Unmarshal(doc, &raw)
	if err == nil {
		return ""
	}
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return fmt.Sprintf("The document is not JSON: %v.", err)
	}
	before := doc[:min(max(syntax.Offset-1, 0), int64(len(doc)))] // the offset counts the character at fault
	line := 1 + bytes.Count(before, []byte("\n"))
	column := 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	return fmt.Sprintf("The document is not JSON at line %d, column %d: %v.", line, column, err)
}

// parser reads a document and collects what is wrong with it.
type parser struct {
	cursor cursor
	path   []step // to the value being read
	issues []credit.Issue
	faults int // also those beyond maxIssues
	values int // listed by all matches so far
	words  map[string]string
	weeks  map[string]*week // by what Window.String writes of a list
}

// step is one step of a path: an element of a list, or a field when the index is negative.
type step struct {
	name  string
	index int
}

// fault records a fault of the value being read.
func (p *parser) fault(format string, args ...any) { p.faultAt(p.pointer(), format, args...) }

func (p *parser) faultAt(pointer, format string, args ...any) {
	p.faults++
	if len(p.issues) < maxIssues {
		p.issues = append(p.issues, credit.Issue{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
}

func (p *parser) pointer() string {
	var b []byte
	for _, s := range p.path {
		b = append(b, '/')
		if s.index >= 0 {
			b = strconv.AppendInt(b, int64(s.index), 10)
		} else {
			b = append(b, strings.NewReplacer("~", "~0", "/", "~1").Replace(s.name)...)
		}
	}
	return string(b)
}

func (p *parser) err() error {
	switch p.faults {
	case 0:
		return nil
	case 1:
		return &credit.Error{Code: credit.InvalidRequest, Detail: p.issues[0].Detail, Issues: p.issues}
	}
	return &credit.Error{
		Code: credit.InvalidRequest, Issues: p.issues,
		Detail: fmt.Sprintf("The rate card has %d faults. The first: %s", p.faults, p.issues[0].Detail),
	}
}

func (p *parser) document() *Document {
	d := &Document{TimeZone: "UTC", Rounding: RoundEvent, zone: time.UTC}
	var metersOK bool // the list of meters could be read
	var at []pointer  // of Rates
	p.object([]string{"meters", "rates", "matrices", "time_zone", "credit_value", "rounding", "extends"}, 2, func(name string) {
		switch name {
		case "meters":
			metersOK = p.array(maxMeters, func(int) {
				if m, ok := p.meter(); ok {
					d.Meters = append(d.Meters, m)
				}
			})
		case "rates":
			p.array(maxRates, func(i int) {
				if r, ok := p.rate(); ok {
					d.Rates = append(d.Rates, r)
					at = append(at, pointer{index: i})
				}
			})
		case "matrices":
			p.array(maxMatrices, func(int) {
				rates, pointers := p.matrix()
				d.Rates, at = append(d.Rates, rates...), append(at, pointers...)
			})
		case "time_zone":
			p.zone(d)
		case "credit_value":
			d.CreditValue = p.creditValue()
		case "rounding":
			d.Rounding = p.rounding()
		case "extends":
			d.Extends = p.extends()
		}
	})
	if len(d.Rates) > maxRates {
		p.fault("The rate card has more than %d rates, with those of its matrices; %d are allowed.", maxRates, maxRates)
		return d
	}
	p.checkRates(d, at, metersOK)
	if p.faults > 0 {
		return d
	}
	if d.CreditValue.Currency != "" {
		d.perCredit = newUnitPrice(decimal.New(1, 0), d.CreditValue.Price)
	}
	d.counting = map[string]*compiledRate{}
	for _, m := range d.Meters {
		index := d.meters[m.Code]
		for i := range index.rates {
			r := &index.rates[i]
			r.finish(m)
			if r.counts {
				d.counting[r.ID] = r
			}
		}
	}
	return d
}

// pointer says where in the document a rate is.
type pointer struct {
	index int    // /rates/index
	text  string // of a rate of a matrix
}

func (p pointer) String() string {
	if p.text != "" {
		return p.text
	}
	return "/rates/" + strconv.Itoa(p.index)
}

// to returns where a field of the rate is.
func (p pointer) to(field string) string {
	if p.text != "" {
		return p.text
	}
	return p.String() + "/" + field
}

// checkRates looks for what is wrong across the rates and the rest of the document, and compiles what finds them.
func (p *parser) checkRates(d *Document, at []pointer, metersOK bool) {
	d.meters = make(map[string]*meterIndex, len(d.Meters))
	declared := make(map[string]*Meter, len(d.Meters))
	for i := range d.Meters {
		d.meters[d.Meters[i].Code] = nil
		declared[d.Meters[i].Code] = &d.Meters[i]
	}
	first := make(map[string]int, len(d.Rates))
	counters := map[string]int{}
	byMeter := make(map[string][]int, len(d.Meters))
	for i := range d.Rates {
		r := &d.Rates[i]
		if j, ok := first[r.ID]; ok && r.ID != "" {
			p.faultAt(at[i].to("id"), "%q is also the id of %s.", r.ID, at[j])
		} else {
			first[r.ID] = i
		}
		if m, ok := declared[r.Meter]; ok {
			p.checkMeter(r, m, at[i])
		} else if metersOK && r.Meter != "" {
			p.faultAt(at[i].to("meter"), "There is no meter %q in this document.", r.Meter)
		}
		if r.Over == Event && r.Counter != "" {
			p.faultAt(at[i].to("counter"), "A counter counts over a period, and \"over\" of the rate names none.")
		} else if r.Over != Event && r.ID != "" {
			if r.Counter == "" {
				r.Counter = r.ID
			}
			if j, ok := counters[r.Counter]; !ok {
				counters[r.Counter] = i
			} else if s := &d.Rates[j]; s.Meter != r.Meter || s.Model != r.Model || s.Over != r.Over || !s.Free.Equal(r.Free) {
				p.faultAt(at[i].to("counter"), "Rates %q (%s) and %q (%s) share the counter %q and differ in meter, model, over or free.", s.ID, at[j], r.ID, at[i], r.Counter)
			}
		}
		switch {
		case d.CreditValue.Currency != "":
		case r.Currency != "":
			p.faultAt(at[i].to("currency"), "A price in money needs the document's \"credit_value\".")
		case r.Model == CostPlus:
			p.faultAt(at[i].to("model"), "The model %q needs the document's \"credit_value\".", CostPlus)
		}
		byMeter[r.Meter] = append(byMeter[r.Meter], i)
	}
	for i, m := range d.Meters {
		switch {
		case m.Code == "":
		case d.meters[m.Code] != nil:
			p.faultAt(fmt.Sprintf("/meters/%d/code", i), "The meter %q is declared twice.", m.Code)
		default:
			d.meters[m.Code] = p.index(d, byMeter[m.Code], at)
		}
	}
	if len(p.weeks) > maxTimetables {
		p.faultAt("/rates", "The rates have more than %d different lists of windows.", maxTimetables)
	}
}

// checkMeter looks for what a rate asks for that its meter's aggregation does not admit, and gives it the meter's period.
func (p *parser) checkMeter(r *Rate, m *Meter, at pointer) {
	if m.Period == "" {
		return
	}
	switch {
	case r.Over != Event && r.Over != m.Period:
		p.faultAt(at.to("over"), "The meter %q is reckoned by the %s.", m.Code, m.Period)
	case r.Model == CostPlus:
		p.faultAt(at.to("model"), "The model %q has no use for a meter of aggregation %q.", CostPlus, m.Aggregation)
	}
	if !r.Free.IsZero() {
		p.faultAt(at.to("free"), "Of a meter of aggregation %q nothing is free: let the first tier cost nothing.", m.Aggregation)
	}
	if r.Over == Event && !r.Minimum.IsZero() {
		p.faultAt(at.to("minimum"), "A minimum is for a line by itself, and the meter %q is reckoned by the %s.", m.Code, m.Period)
	}
	if r.Over == Event && r.Maximum != nil {
		p.faultAt(at.to("maximum"), "A maximum is for a line by itself, and the meter %q is reckoned by the %s.", m.Code, m.Period)
	}
	r.Over = m.Period
}

// index compiles the rates of one meter, and reports those that cannot be told apart.
func (p *parser) index(d *Document, rates []int, at []pointer) *meterIndex {
	m := &meterIndex{}
	for _, i := range rates {
		if !m.add(d.Rates[i], p.timetable(d.Rates[i].When)) {
			p.faultAt(at[i].to("match"), "The rates of meter %q name more than %d dimensions together.", d.Rates[i].Meter, maxMeterDimension)
			return m
		}
	}
	if len(p.weeks) > maxTimetables {
		return m // refused
	}
	m.ambiguities(func(earlier, later int) {
		i, j := rates[earlier], rates[later]
		a, b := &d.Rates[i], &d.Rates[j]
		p.faultAt(at[j].String(), "Rates %q (%s) and %q (%s) are both for %s%s, and equally specific: let them exclude each other, or let one name a further dimension.",
			a.ID, at[i], b.ID, at[j], commonUsage(a, b), commonTime(m.rates[earlier].when, m.rates[later].when))
	})
	m.compile()
	return m
}

// commonTime describes a time that is in the windows of both rates, for a reader.
func commonTime(a, b *week) string {
	switch {
	case a == nil && b == nil:
		return ""
	case a == nil:
		a = b
	case b == nil:
		b = a
	}
	return " at " + minuteText(a.common(b))
}

// commonUsage describes a usage that both rates match, for a reader.
func commonUsage(a, b *Rate) string {
	dims := credit.Dimensions{}
	for _, r := range []*Rate{a, b} {
		for name, values := range r.Match {
			if _, ok := dims[name]; ok {
				continue
			}
			dims[name] = values[0]
			if others, ok := b.Match[name]; ok && r == a {
				dims[name] = firstCommon(values, others)
			}
		}
	}
	if len(dims) == 0 {
		return "any usage of meter " + a.Meter
	}
	return "usage with " + describe(dims)
}

func firstCommon(a, b []string) string {
	for _, v := range a {
		for _, w := range b {
			if v == w {
				return v
			}
		}
	}
	return ""
}

// meter reads a meter; one with faults is returned as far as it could be read, for the checks across the document.
func (p *parser) meter() (Meter, bool) {
	m := Meter{Aggregation: Sum}
	before := p.faults
	ok := p.object([]string{"code", "aggregation", "description", "unique_by", "period"}, 1, func(name string) {
		s, ok := p.text()
		if !ok {
			return
		}
		switch name {
		case "code":
			if !isMeterCode(s) {
				p.fault("A meter's code is a lower-case letter and up to %d lower-case letters, digits, \"_\", \"-\" and \".\".", maxMeterCode-1)
				return
			}
			m.Code = s
		case "aggregation":
			m.Aggregation = oneOf(p, "an aggregation", s, Sum, Count, Max, Unique)
		case "unique_by":
			if err := credit.CheckScope(credit.Scope{s: {"x"}}); err != nil {
				p.fault("%.40q is not the name of a dimension.", s)
				return
			}
			m.UniqueBy = s
		case "period":
			m.Period = oneOf(p, "a period", s, periods...)
		case "description":
			if len(s) > maxDescription || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
				p.fault("A description is at most %d bytes, without control characters.", maxDescription)
				return
			}
			m.Description = s
		}
	})
	if !ok || p.faults > before {
		return m, ok
	}
	byPeriod := m.Aggregation == Max || m.Aggregation == Unique
	switch {
	case byPeriod && m.Period == "":
		p.faultAt(p.pointer()+"/period", "The aggregation %q needs a period.", m.Aggregation)
	case !byPeriod && m.Period != "":
		p.faultAt(p.pointer()+"/period", "The aggregation %q has no period: \"over\" of a rate says over what it counts.", m.Aggregation)
	}
	switch {
	case m.Aggregation == Unique && m.UniqueBy == "":
		p.faultAt(p.pointer()+"/unique_by", "The aggregation %q needs the dimension whose values it counts.", m.Aggregation)
	case m.Aggregation != Unique && m.UniqueBy != "":
		p.faultAt(p.pointer()+"/unique_by", "The aggregation %q counts no values.", m.Aggregation)
	}
	return m, ok
}

// oneOf reads a word of a list; anything else is a fault, and the first of the list.
func oneOf[T ~string](p *parser, what, s string, known ...T) T {
	if i := slices.Index(known, T(s)); i >= 0 {
		return known[i]
	}
	var words []string
	for _, k := range known {
		words = append(words, strconv.Quote(string(k)))
	}
	p.fault("%.40q is not %s; there is %s.", s, what, strings.Join(words, ", "))
	return known[0]
}

// match reads what a rate is for; ok when it could be read whole.
func (p *parser) match() (m credit.Scope, ok bool) {
	if p.cursor.next() != '{' {
		p.wrongType("an object that lists values by dimension")
		return nil, false
	}
	before := p.faults
	m = credit.Scope{}
	p.each(func(name string) {
		if _, twice := m[name]; twice {
			p.cursor.skip()
			p.fault("The dimension is given twice.")
			return
		}
		m[name] = p.matchValues()
	})
	if p.faults > before || credit.CheckScope(m) == nil {
		return m, p.faults == before
	}
	for name, values := range m {
		if err := credit.CheckScope(credit.Scope{name: values}); err != nil {
			p.path = append(p.path, step{name: name, index: -1})
			p.fault("%s", detailOf(err))
			p.path = p.path[:len(p.path)-1]
		}
	}
	if p.faults == before {
		p.fault("%s", detailOf(credit.CheckScope(m))) // too many dimensions
	}
	return m, false
}

func (p *parser) matchValues() []string {
	var values []string
	var listed map[string]bool // of long lists
	p.array(maxMatchValues, func(i int) {
		v, ok := p.text()
		if !ok {
			return
		}
		if len(values) == 32 && listed == nil {
			listed = make(map[string]bool)
			for _, v := range values {
				listed[v] = true
			}
		}
		if listed[v] || listed == nil && slices.Contains(values, v) {
			p.fault("The value %.40q is listed twice.", v)
			return
		}
		if listed != nil {
			listed[v] = true
		}
		values = append(values, v)
		p.countValues(1)
	})
	return values
}

func detailOf(err error) string {
	var e *credit.Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return err.Error()
}

// decimal reads a plain decimal number from a string.
func (p *parser) decimal() (decimal.Decimal, bool) {
	if c := p.cursor.next(); c == '-' || '0' <= c && c <= '9' {
		p.cursor.skip()
		p.fault("This must be a string, such as \"2.5\": many programs lose digits of JSON numbers.")
		return decimal.Zero, false
	}
	s, ok := p.text()
	if !ok {
		return decimal.Zero, false
	}
	whole, fraction, point := strings.Cut(s, ".")
	switch {
	case strings.HasPrefix(s, "-"):
		p.fault("%.40q is negative.", s)
	case whole == "" || point && fraction == "" || !isDigits(whole) || !isDigits(fraction):
		p.fault("%.40q is not a decimal number such as \"2.5\".", s)
	case len(whole) > maxDecimalWhole || len(fraction) > maxDecimalPlaces:
		p.fault("%.40q has more than %d digits before or %d after the point.", s, maxDecimalWhole, maxDecimalPlaces)
	default:
		d, err := decimal.NewFromString(s)
		if err == nil {
			return d, true
		}
		p.fault("%.40q is not a decimal number such as \"2.5\".", s)
	}
	return decimal.Zero, false
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isMeterCode(s string) bool {
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || i > 0 && ('0' <= c && c <= '9' || strings.IndexByte("_-.", c) >= 0) {
			continue
		}
		return false
	}
	return 0 < len(s) && len(s) <= maxMeterCode
}

func isRateID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || i > 0 && strings.IndexByte("._:/@+-", c) >= 0 {
			continue
		}
		return false
	}
	return 0 < len(s) && len(s) <= maxRateID
}

func (p *parser) wrongType(want string) {
	p.cursor.skip()
	p.fault("This must be %s.", want)
}

// text reads a string.
func (p *parser) text() (string, bool) {
	if p.cursor.next() != '"' {
		p.wrongType("a string")
		return "", false
	}
	return p.word(p.cursor.text()), true
}

// word returns b as a string, the same one for the same bytes: a document repeats few words often.
func (p *parser) word(b []byte) string {
	s, ok := p.words[string(b)]
	if !ok {
		if p.words == nil {
			p.words = map[string]string{}
		}
		s = string(b)
		p.words[s] = s
	}
	return s
}

// each calls field for every field of an object to read its value.
func (p *parser) each(field func(name string)) {
	p.cursor.enter()
	p.path = append(p.path, step{index: -1})
	for p.cursor.more() {
		name := p.word(p.cursor.name())
		p.path[len(p.path)-1].name = name
		field(name)
	}
	p.path = p.path[:len(p.path)-1]
}

// object reads an object whose fields are known, the first required of them necessary, and calls field to read the value of
// each. It is false when the value is no object.
func (p *parser) object(known []string, required int, field func(name string)) bool {
	if p.cursor.next() != '{' {
		p.wrongType("an object")
		return false
	}
	var seen uint
	p.each(func(name string) {
		switch i := slices.Index(known, name); {
		case i < 0:
			p.cursor.skip()
			p.fault("There is no field %.40q here; there are %s.", name, strings.Join(known, ", "))
		case seen&(1<<i) != 0:
			p.cursor.skip()
			p.fault("The field is given twice.")
		default:
			seen |= 1 << i
			field(name)
		}
	})
	for i, name := range known[:required] {
		if seen&(1<<i) == 0 {
			p.faultAt(p.pointer()+"/"+name, "The field is missing.")
		}
	}
	return true
}

// array reads a list of at most limit elements and calls element to read each. It is false when the value is no list.
func (p *parser) array(limit int, element func(i int)) bool {
	if p.cursor.next() != '[' {
		p.wrongType("a list")
		return false
	}
	p.cursor.enter()
	p.path = append(p.path, step{})
	i := 0
	for ; p.cursor.more(); i++ {
		if i < limit {
			p.path[len(p.path)-1].index = i
			element(i)
		} else {
			p.cursor.skip()
		}
	}
	p.path = p.path[:len(p.path)-1]
	if i > limit {
		p.fault("The list has %d elements; %d are allowed.", i, limit)
	}
	return true
}
