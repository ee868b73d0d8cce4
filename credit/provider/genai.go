package provider

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Bounds of a catalogue.
const (
	maxCatalogue = 32 << 20 // bytes
	maxProviders = 1_000
	maxModels    = 100_000 // of all providers
	maxPricings  = 100     // of one model
	maxTiers     = 20      // of one price
	maxMappings  = 500     // of one extractor
	maxPath      = 16      // steps
	maxName      = 200     // bytes of an id
)

// ParseGenAIPrices reads a catalogue in the format of genai-prices, version 2: a list of providers with their models, prices, and
// extractors of usage.
//
// What is not of that format is refused by an [credit.Error] coded invalid_request whose Issues point to every fault. What is of
// the format and says something that is not known here, such as a price by a unit added later, is kept as unusable: see
// [Catalogue.Unusable]. It is never passed over, since that would make the price too low.
func ParseGenAIPrices(b []byte) (*Catalogue, error) {
	d, err := parseCatalogue(b)
	if err != nil {
		return nil, err
	}
	r := genaiReader{d: d, c: &Catalogue{byID: map[string]*seller{}}}
	r.catalogue()
	if err := r.err("The catalogue"); err != nil {
		return nil, err
	}
	r.c.compile()
	return r.c, nil
}

func parseCatalogue(b []byte) (doc, error) {
	if len(b) > maxCatalogue {
		return nil, credit.Invalid("", "A catalogue is at most %d MiB.", maxCatalogue>>20)
	}
	d, err := doc(nil).parse(b)
	if err != nil {
		return nil, credit.Invalid("", "The catalogue cannot be read: %v.", err)
	}
	return d, nil
}

// genaiReader reads a catalogue and collects what is wrong with it.
type genaiReader struct {
	faults
	d      doc
	c      *Catalogue
	models int
}

// fields reads an object: it calls read for each field, and unknown, which may be nil, for those that are not listed. Fields that are required come
// first in known.
func (r *genaiReader) fields(at int, p pointer, known []string, required int, unknown func(name string), read func(name string, at int, p pointer)) bool {
	if r.d[at].kind != '{' {
		r.add(p, "This must be an object.")
		return false
	}
	seen := map[string]bool{}
	r.d.each(at, func(i int) {
		name := string(r.d[i].name)
		switch {
		case seen[name]:
			r.add(p.field(name), "The field is given twice.")
		case slices.Contains(known, name):
			read(name, i, p.field(name))
		case unknown != nil:
			unknown(name)
		}
		seen[name] = true
	})
	for _, name := range known[:required] {
		if !seen[name] {
			r.add(p.field(name), "The field is missing.")
		}
	}
	return true
}

// list reads a list of at most limit elements.
func (r *genaiReader) list(at int, p pointer, limit int, read func(i, at int, p pointer)) {
	if r.d[at].kind != '[' {
		r.add(p, "This must be a list.")
		return
	}
	i := 0
	r.d.each(at, func(element int) {
		if i < limit {
			read(i, element, p.index(i))
		}
		i++
	})
	if i > limit {
		r.add(p, "The list has %d elements; %d are allowed.", i, limit)
	}
}

func (r *genaiReader) text(at int, p pointer) string {
	s, ok := r.d.text(at)
	if !ok {
		r.add(p, "This must be a string.")
	}
	return s
}

func (r *genaiReader) id(at int, p pointer) string {
	s := r.text(at, p)
	if s == "" && r.d[at].kind == '"' || len(s) > maxName || strings.ContainsAny(s, " \t\r\n") {
		r.add(p, "An id is 1 to %d bytes without blanks.", maxName)
	}
	return s
}

func (r *genaiReader) clause(at int, p pointer) *clause {
	c, _ := readClause(r.d, at, true, p, &r.faults)
	return &c
}

func (r *genaiReader) catalogue() {
	type reference struct {
		s    *seller
		name string
		p    pointer
	}
	var fallbacks []reference
	r.list(0, "", maxProviders, func(_, at int, p pointer) {
		s := &seller{}
		var models int
		var modelsAt pointer
		r.fields(at, p, []string{
			"id", "name", "api_pattern", "models", "pricing_urls", "description", "price_comments", "model_match", "provider_match",
			"extractors", "fallback_model_providers",
		}, 4, func(name string) {
			r.c.unusable.add(p.field(name), "The field is not known here; the provider is used without it.")
		}, func(name string, at int, p pointer) {
			switch name {
			case "id":
				s.id = r.id(at, p)
			case "name":
				s.name = r.text(at, p)
			case "api_pattern":
				re, err := regexp.Compile(`\A(?:` + r.text(at, p) + `)`)
				if err != nil {
					r.add(p, "This is not a regular expression that is known here: %v.", err)
				}
				s.urls = re
			case "model_match":
				s.modelMatch = r.clause(at, p)
			case "provider_match":
				s.nameMatch = r.clause(at, p)
			case "extractors":
				r.list(at, p, maxPath, func(_, at int, p pointer) { s.extractors = append(s.extractors, r.extractor(at, p, s)) })
			case "fallback_model_providers":
				r.list(at, p, maxProviders, func(_, at int, p pointer) {
					fallbacks = append(fallbacks, reference{s, r.id(at, p), p})
				})
			case "models":
				models, modelsAt = at, p
			}
		})
		if models > 0 {
			ids := map[string]bool{}
			r.list(models, modelsAt, maxModels, func(_, at int, p pointer) {
				m := r.model(at, p, s)
				if ids[m.id] {
					r.add(p.field("id"), "The provider has two models %.100q.", m.id)
				}
				ids[m.id] = true
				s.models = append(s.models, m)
				if r.models++; r.models == maxModels+1 {
					r.add(p, "A catalogue has at most %d models.", maxModels)
				}
			})
		}
		if r.c.byID[s.id] != nil {
			r.add(p.field("id"), "There are two providers %.100q.", s.id)
		}
		r.c.byID[s.id] = s
		r.c.providers = append(r.c.providers, s)
		addFlavours(s)
	})
	for _, f := range fallbacks {
		other := r.c.byID[f.name]
		if other == nil || other == f.s {
			r.add(f.p, "There is no other provider %.100q.", f.name)
			continue
		}
		f.s.fallbacks = append(f.s.fallbacks, other)
	}
}

func (r *genaiReader) model(at int, p pointer, s *seller) *model {
	m := &model{seller: s}
	doubt := func(at pointer, format string, args ...any) {
		r.c.unusable.add(at, format, args...)
		if m.unusable == "" {
			m.unusable = fmt.Sprintf(format, args...)
		}
	}
	r.fields(at, p, []string{"id", "match", "prices", "name", "description", "context_window", "price_comments", "deprecated"}, 3, func(name string) {
		doubt(p.field(name), "The field %.40q is not known here, and may bear on the price.", name)
	}, func(name string, at int, p pointer) {
		switch name {
		case "id":
			m.id = r.id(at, p)
		case "match":
			m.match = *r.clause(at, p)
		case "name":
			m.name = r.text(at, p)
		case "price_comments":
			m.comments = r.text(at, p)
		case "context_window":
			n, reason := readCount(r.d[at].raw, 0)
			if reason != "" {
				r.add(p, "%s", reason)
			}
			m.contextWindow = n
		case "deprecated":
			m.deprecated = string(r.d[at].raw) == "true"
			if r.d[at].kind != 't' {
				r.add(p, "This must be true or false.")
			}
		case "prices":
			if r.d[at].kind == '[' {
				r.list(at, p, maxPricings, func(_, at int, p pointer) { m.prices = append(m.prices, r.conditional(at, p, doubt)) })
				if r.d[at].next == at+1 {
					r.add(p, "This must not be empty.")
				}
				return
			}
			m.prices = []pricing{{standard: r.prices(at, p, doubt)}}
		}
	})
	return m
}

// doubter notes why a model cannot be priced.
type doubter func(at pointer, format string, args ...any)

func (r *genaiReader) conditional(at int, p pointer, doubt doubter) (out pricing) {
	r.fields(at, p, []string{"prices", "constraint"}, 1, func(name string) {
		doubt(p.field(name), "The condition %.40q is not known here.", name)
	}, func(name string, at int, p pointer) {
		switch {
		case name == "prices":
			out.standard = r.prices(at, p, doubt)
		case r.d[at].kind != 'n':
			r.constraint(at, p, &out, doubt)
		}
	})
	return out
}

func (r *genaiReader) constraint(at int, p pointer, out *pricing, doubt doubter) {
	var w window
	clocks := 0
	r.fields(at, p, []string{"start_date", "start_time", "end_time"}, 0, func(name string) {
		doubt(p.field(name), "The condition %.40q is not known here.", name)
	}, func(name string, at int, p pointer) {
		s := r.text(at, p)
		if name == "start_date" {
			var err error
			if out.since, err = time.Parse(time.DateOnly, s); err != nil {
				r.add(p, "%.40q is not a date such as 2026-03-13.", s)
			}
			return
		}
		clocks++
		t, ok := readClock(s)
		if !ok {
			r.add(p, "%.40q is not a time of day such as 16:30:00Z.", s)
		}
		if name == "start_time" {
			w.from = t
		} else {
			w.to = t
		}
	})
	switch {
	case clocks == 1:
		r.add(p, "start_time and end_time go together.")
	case clocks == 2 && w.from == w.to:
		r.add(p, "The time of day is empty: it starts when it ends.")
	case clocks == 2:
		out.window = &w
	case out.since.IsZero():
		doubt(p, "The constraint has no condition that is known here.")
	}
}

// readClock reads a time of day with its offset from UTC, which is 0 when it is left out, as a time since midnight UTC.
func readClock(s string) (time.Duration, bool) {
	for _, layout := range []string{"15:04:05.999999999Z07:00", "15:04:05.999999999", "15:04Z07:00", "15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			t = t.UTC()
			return t.Sub(t.Truncate(24 * time.Hour)), true
		}
	}
	return 0, false
}

func (r *genaiReader) prices(at int, p pointer, doubt doubter) *priceSet {
	prices := map[Unit]unitPrice{}
	if r.d[at].kind != '{' {
		r.add(p, "This must be an object of prices by unit.")
		return newPriceSet(nil)
	}
	r.d.each(at, func(i int) {
		name := string(r.d[i].name)
		p := p.field(name)
		if r.d[i].kind == 'n' {
			return
		}
		u, ok := unitsByKey[name]
		if !ok {
			doubt(p, "The unit %.60q is not known here.", name)
			return
		}
		if _, twice := prices[u]; twice {
			r.add(p, "The price is given twice.")
		}
		prices[u] = r.price(i, p)
	})
	return newPriceSet(prices)
}

func (r *genaiReader) price(at int, p pointer) (out unitPrice) {
	if r.d[at].kind == '0' {
		out.base = r.number(at, p)
		return out
	}
	r.fields(at, p, []string{"base", "tiers"}, 2, func(name string) {
		r.add(p.field(name), "The field is not known here.")
	}, func(name string, at int, p pointer) {
		if name == "base" {
			out.base = r.number(at, p)
			return
		}
		r.list(at, p, maxTiers, func(i, at int, p pointer) {
			var t tier
			r.fields(at, p, []string{"start", "price"}, 2, func(name string) {
				r.add(p.field(name), "The field is not known here.")
			}, func(name string, at int, p pointer) {
				if name == "price" {
					t.price = r.number(at, p)
					return
				}
				n, reason := readCount(r.d[at].raw, 0)
				if reason != "" {
					r.add(p, "%s", reason)
				} else if n < 1 || i > 0 && n <= out.tiers[i-1].start {
					r.add(p, "Tiers start above 0, each above the one before.")
				}
				t.start = n
			})
			out.tiers = append(out.tiers, t)
		})
	})
	return out
}

func (r *genaiReader) number(at int, p pointer) decimal.Decimal {
	n, reason := readPrice(r.d[at].raw)
	if reason != "" {
		r.add(p, "%s", reason)
	}
	return n
}

// Bounds of prices: far wider than any in use, and narrow enough to compute with.
const (
	maxPriceDigits = 30
	maxPricePlaces = 30
)

// readPrice reads a JSON number exactly.
func readPrice(raw []byte) (_ decimal.Decimal, reason string) {
	if c := raw[0]; c != '-' && (c < '0' || c > '9') {
		return decimal.Zero, "This must be a number."
	}
	if len(raw) > 60 {
		return decimal.Zero, "The number has too many digits."
	}
	n, err := decimal.NewFromString(string(raw))
	switch {
	case err != nil || n.Exponent() < -100 || n.Exponent() > 100:
		return decimal.Zero, fmt.Sprintf("%.40s is beyond what a price can be.", raw)
	case n.IsNegative():
		return decimal.Zero, fmt.Sprintf("%.40s is negative.", raw)
	}
	if n = n.Normalize(); n.IsZero() {
		return decimal.Zero, ""
	}
	if n.Exponent() < -maxPricePlaces || n.NumDigits()+int(n.Exponent()) > maxPriceDigits {
		return decimal.Zero, fmt.Sprintf("%.40s is beyond what a price can be.", raw)
	}
	return n, ""
}

func (r *genaiReader) extractor(at int, p pointer, s *seller) *extractor {
	e := &extractor{flavour: "default", modelPath: path{{name: "model"}}}
	doubt := func(at pointer, format string, args ...any) {
		r.c.unusable.add(at, format, args...)
		if e.unusable == "" {
			e.unusable = fmt.Sprintf(format, args...)
		}
	}
	r.fields(at, p, []string{"root", "mappings", "api_flavor", "model_path"}, 2, func(name string) {
		doubt(p.field(name), "The field %.40q is not known here, and may bear on the usage.", name)
	}, func(name string, at int, p pointer) {
		switch name {
		case "api_flavor":
			e.flavour = r.id(at, p)
			for _, other := range s.extractors {
				if other.flavour == e.flavour {
					r.add(p, "The provider has two extractors of flavour %.40q.", e.flavour)
				}
			}
		case "root":
			e.root = r.path(at, p, doubt)
		case "model_path":
			e.modelPath = r.path(at, p, doubt)
		case "mappings":
			r.list(at, p, maxMappings, func(_, at int, p pointer) { e.mappings = append(e.mappings, r.mapping(at, p, doubt)) })
		}
	})
	return e
}

func (r *genaiReader) mapping(at int, p pointer, doubt doubter) mapping {
	m := mapping{required: true}
	r.fields(at, p, []string{"path", "dest", "required"}, 2, func(name string) {
		doubt(p.field(name), "The field %.40q is not known here, and may bear on the usage.", name)
	}, func(name string, at int, p pointer) {
		switch name {
		case "path":
			m.path = r.path(at, p, doubt)
		case "dest":
			name := r.text(at, p)
			u, ok := unitsByName[name]
			if !ok {
				doubt(p, "The unit %.60q is not known here.", name)
			}
			m.unit = u
		case "required":
			m.required = string(r.d[at].raw) == "true"
			if r.d[at].kind != 't' {
				r.add(p, "This must be true or false.")
			}
		}
	})
	return m
}

func (r *genaiReader) path(at int, p pointer, doubt doubter) path {
	if r.d[at].kind == '"' {
		return path{{name: r.text(at, p)}}
	}
	var out path
	r.list(at, p, maxPath, func(_, at int, p pointer) {
		if r.d[at].kind == '"' {
			out = append(out, step{name: r.text(at, p)})
			return
		}
		var s step
		r.fields(at, p, []string{"type", "field", "match"}, 3, func(name string) {
			doubt(p.field(name), "The field %.40q is not known here, and may bear on the usage.", name)
		}, func(name string, at int, p pointer) {
			switch name {
			case "type":
				if kind := r.text(at, p); kind != "array-match" {
					doubt(p, "The step %.40q is not known here.", kind)
				}
			case "field":
				s.name = r.text(at, p)
			case "match":
				c, _ := readClause(r.d, at, false, p, &r.faults)
				s.match = &c
			}
		})
		out = append(out, s)
	})
	if len(out) == 0 && r.d[at].kind == '[' {
		r.add(p, "This must not be empty.")
	}
	return out
}
