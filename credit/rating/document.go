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
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Aggregation says how the quantities that a meter reports add up.
type Aggregation string

// Sum adds all quantities: the default.
const Sum Aggregation = "sum"

// Model says how a rate turns a quantity into credits.
type Model string

// PerUnit charges Price for every Per of the quantity, in proportion: the default.
const PerUnit Model = "per_unit"

// Meter is one thing that is counted, such as tokens, images or seconds.
type Meter struct {
	Code        string // a lower-case letter, then up to 63 lower-case letters, digits, "_", "-" and "."
	Aggregation Aggregation
	Description string // "": none
}

// Rate is a price for some of a meter's usage.
type Rate struct {
	ID    string // unique in its document
	Meter string
	// Match says which usage the rate is for: for each dimension it names, the usage has one of the values listed. Empty: any usage
	// of the meter that no other rate is for.
	Match credit.Scope
	Model Model
	Price decimal.Decimal // credits for Per of the meter's quantity, >= 0
	Per   decimal.Decimal // > 0
}

// Document is one version of a rate card. It is made by [Parse] and must not be changed: it is shared by all who price with it.
type Document struct {
	Meters []Meter
	Rates  []Rate // in the order of the document, which does not matter to prices

	meters map[string]*meterIndex
}

// Bounds of a document.
const (
	maxDocument       = 8 << 20 // bytes
	maxMeters         = 1_000
	maxRates          = 10_000
	maxMatchValues    = 200_000 // of all rates together
	maxDescription    = 1_000   // bytes
	maxDecimalWhole   = 20      // digits before the point
	maxDecimalPlaces  = 12      // digits after it
	maxIssues         = 1_000   // reported; more are counted
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
// "aggregation", "description", "match", "model" and "per" (then 1) may be left out; fields that it does not know are refused. Two
// rates of one meter that name as many dimensions and could match one usage are refused, even where a third is more specific than
// both: so a usage has one price whatever the order of the rates.
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
	d := &Document{}
	var metersOK bool // the list of meters could be read
	var rateAt []int  // Rates[i] is /rates/rateAt[i]
	p.object([]string{"meters", "rates"}, 2, func(name string) {
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
					rateAt = append(rateAt, i)
				}
			})
		}
	})

	d.meters = make(map[string]*meterIndex, len(d.Meters))
	for _, m := range d.Meters {
		d.meters[m.Code] = nil
	}
	first := make(map[string]int, len(d.Rates))
	byMeter := make(map[string][]int, len(d.Meters))
	for i, r := range d.Rates {
		if j, ok := first[r.ID]; ok && r.ID != "" {
			p.faultAt(fmt.Sprintf("/rates/%d/id", rateAt[i]), "%q is also the id of /rates/%d.", r.ID, rateAt[j])
		} else {
			first[r.ID] = i
		}
		if _, ok := d.meters[r.Meter]; metersOK && !ok && r.Meter != "" {
			p.faultAt(fmt.Sprintf("/rates/%d/meter", rateAt[i]), "There is no meter %q in this document.", r.Meter)
		}
		byMeter[r.Meter] = append(byMeter[r.Meter], i)
	}
	for i, m := range d.Meters {
		switch {
		case m.Code == "":
		case d.meters[m.Code] != nil:
			p.faultAt(fmt.Sprintf("/meters/%d/code", i), "The meter %q is declared twice.", m.Code)
		default:
			d.meters[m.Code] = p.index(d, byMeter[m.Code], rateAt)
		}
	}
	return d
}

// index compiles the rates of one meter, and reports those that cannot be told apart.
func (p *parser) index(d *Document, rates, rateAt []int) *meterIndex {
	m := &meterIndex{}
	for _, i := range rates {
		if !m.add(d.Rates[i]) {
			p.faultAt(fmt.Sprintf("/rates/%d/match", rateAt[i]), "The rates of meter %q name more than %d dimensions together.", d.Rates[i].Meter, maxMeterDimension)
			return m
		}
	}
	m.ambiguities(func(earlier, later int) {
		i, j := rates[earlier], rates[later]
		a, b := &d.Rates[i], &d.Rates[j]
		p.faultAt(fmt.Sprintf("/rates/%d", rateAt[j]), "Rates %q (/rates/%d) and %q (/rates/%d) are both for %s, and equally specific: let them exclude each other, or let one name a further dimension.",
			a.ID, rateAt[i], b.ID, rateAt[j], commonUsage(a, b))
	})
	m.compile()
	return m
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
	ok := p.object([]string{"code", "aggregation", "description"}, 1, func(name string) {
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
			if s != string(Sum) {
				p.fault("%.40q is not an aggregation; there is %q.", s, Sum)
			}
		case "description":
			if len(s) > maxDescription || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
				p.fault("A description is at most %d bytes, without control characters.", maxDescription)
				return
			}
			m.Description = s
		}
	})
	return m, ok
}

// rate reads a rate; one with faults is returned as far as it could be read, with no meter when it is not known what it is for.
func (p *parser) rate() (Rate, bool) {
	r := Rate{Model: PerUnit, Per: decimal.New(1, 0)}
	matchOK := true
	ok := p.object([]string{"id", "meter", "price", "match", "model", "per"}, 3, func(name string) {
		switch name {
		case "match":
			r.Match, matchOK = p.match()
			return
		case "price", "per":
			d, ok := p.decimal()
			switch {
			case !ok:
			case name == "price":
				r.Price = d
			case d.IsZero():
				p.fault("A price is for more than 0 of the quantity.")
			default:
				r.Per = d
			}
			return
		}
		s, ok := p.text()
		if !ok {
			return
		}
		switch name {
		case "id":
			if !isRateID(s) {
				p.fault("A rate's id is a letter or digit and up to %d letters, digits and any of \"._:/@+-\".", maxRateID-1)
				return
			}
			r.ID = s
		case "meter":
			if !isMeterCode(s) {
				p.fault("%.70q is not a meter's code.", s)
				return
			}
			r.Meter = s
		case "model":
			if s != string(PerUnit) {
				p.fault("%.40q is not a model; there is %q.", s, PerUnit)
			}
		}
	})
	if !matchOK {
		r.Meter = ""
	}
	return r, ok
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
		if p.values++; p.values == maxMatchValues+1 {
			p.fault("The matches of a rate card list at most %d values together.", maxMatchValues)
		}
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
