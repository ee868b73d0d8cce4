package rating

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

var rateFields = []string{"id", "meter", "price", "match", "model", "per", "tiers", "percent", "over", "free", "minimum", "maximum", "when", "counter", "currency"}

// modelFields is the fields that only some models have, and of those with true which models cannot do without.
var modelFields = map[string]map[Model]bool{
	"price":    {PerUnit: true, Package: true},
	"per":      {PerUnit: false, Package: false},
	"tiers":    {Graduated: true, Volume: true},
	"percent":  {CostPlus: true},
	"over":     {PerUnit: false, Package: false, Graduated: false, Volume: false},
	"free":     {PerUnit: false, Package: false, Graduated: false, Volume: false},
	"counter":  {PerUnit: false, Package: false, Graduated: false, Volume: false},
	"currency": {PerUnit: false, Package: false, Graduated: false, Volume: false},
}

// rate reads a rate; one with faults is returned as far as it could be read, with no meter when it is not known what it is for.
func (p *parser) rate() (Rate, bool) {
	r := Rate{Model: PerUnit, Per: decimal.New(1, 0), Over: Event}
	matchOK, modelOK := true, true
	given := make([]bool, len(rateFields))
	ok := p.object(rateFields, 2, func(name string) {
		given[slices.Index(rateFields, name)] = true
		before := p.faults
		switch name {
		case "match":
			r.Match, matchOK = p.match()
		case "when":
			r.When = p.windows()
			matchOK = matchOK && p.faults == before
		case "tiers":
			r.Tiers = p.tiers()
		case "price":
			r.Price, _ = p.decimal()
		case "per":
			r.Per = p.per()
		case "percent":
			r.Percent, _ = p.decimal()
		case "free":
			r.Free, _ = p.decimal()
		case "minimum":
			r.Minimum, _ = p.decimal()
		case "maximum":
			if d, ok := p.decimal(); ok {
				r.Maximum = &d
			}
		default:
			if s, ok := p.text(); ok {
				p.rateWord(&r, name, s)
			}
			modelOK = modelOK && (name != "model" || p.faults == before)
		}
	})
	if !matchOK {
		r.Meter = ""
	}
	if ok && modelOK {
		p.checkRate(&r, given)
	}
	return r, ok
}

// rateWord takes a field of a rate in that is one word.
func (p *parser) rateWord(r *Rate, name, s string) {
	switch name {
	case "id":
		if !isRateID(s) {
			p.fault("A rate's id is a letter or digit and up to %d letters, digits and any of \"._:/@+-\".", maxRateID-1)
			return
		}
		r.ID = s
	case "counter":
		if !isRateID(s) {
			p.fault("A counter's name is a letter or digit and up to %d letters, digits and any of \"._:/@+-\".", maxRateID-1)
			return
		}
		r.Counter = s
	case "meter":
		if !isMeterCode(s) {
			p.fault("%.70q is not a meter's code.", s)
			return
		}
		r.Meter = s
	case "model":
		r.Model = oneOf(p, "a model", s, PerUnit, Package, Graduated, Volume, CostPlus)
	case "over":
		r.Over = oneOf(p, "what a rate can count over", s, append([]Over{Event}, periods...)...)
	case "currency":
		r.Currency = p.currency(s)
	}
}

// checkRate looks for what is wrong among the fields of a rate.
func (p *parser) checkRate(r *Rate, given []bool) {
	for i, name := range rateFields {
		models, some := modelFields[name]
		if !some {
			continue
		}
		required, has := models[r.Model]
		switch {
		case given[i] && !has:
			p.faultAt(p.pointer()+"/"+name, "A rate of model %q has no %q.", r.Model, name)
		case !given[i] && required:
			p.faultAt(p.pointer()+"/"+name, "The field is missing.")
		}
	}
	if r.Maximum != nil && r.Minimum.GreaterThan(*r.Maximum) {
		p.faultAt(p.pointer()+"/minimum", "The minimum is more than the maximum.")
	}
	if r.Over != Event && !r.Minimum.IsZero() {
		p.faultAt(p.pointer()+"/minimum", "A minimum is for a line by itself, and the rate counts over the %s.", r.Over)
	}
	if r.Over != Event && r.Maximum != nil {
		p.faultAt(p.pointer()+"/maximum", "A maximum is for a line by itself, and the rate counts over the %s.", r.Over)
	}
}

// per reads what a price is for.
func (p *parser) per() decimal.Decimal {
	d, ok := p.decimal()
	if ok && d.IsZero() {
		p.fault("A price is for more than 0 of the quantity.")
	}
	if !ok || d.IsZero() {
		return decimal.New(1, 0)
	}
	return d
}

// tiers reads the tiers of a rate: in order, without gaps because each begins where the one before ends, the last without end.
func (p *parser) tiers() []Tier {
	var tiers []Tier
	isList := p.array(maxTiers, func(int) {
		t := Tier{Per: decimal.New(1, 0)}
		before := p.faults
		if !p.object([]string{"price", "up_to", "per", "flat"}, 1, func(name string) {
			switch name {
			case "up_to":
				if d, ok := p.decimal(); ok {
					t.UpTo = &d
				}
			case "price":
				t.Price, _ = p.decimal()
			case "per":
				t.Per = p.per()
			case "flat":
				t.Flat, _ = p.decimal()
			}
		}) {
			return
		}
		if n := len(tiers); p.faults == before && n > 0 {
			switch last := tiers[n-1].UpTo; {
			case last == nil:
				p.fault("The tier before has no end: only the last one has no \"up_to\".")
			case t.UpTo != nil && !t.UpTo.GreaterThan(*last):
				p.faultAt(p.pointer()+"/up_to", "The tier ends at %s and the one before at %s: tiers are in order, and each ends above the one before.", t.UpTo, last)
			}
		} else if p.faults == before && t.UpTo != nil && t.UpTo.IsZero() {
			p.faultAt(p.pointer()+"/up_to", "A tier ends above 0.")
		}
		tiers = append(tiers, t)
	})
	switch {
	case !isList:
	case len(tiers) == 0:
		p.fault("There is no tier.")
	case tiers[len(tiers)-1].UpTo != nil:
		p.faultAt(p.pointer()+"/"+strconv.Itoa(len(tiers)-1)+"/up_to", "The last tier has no end: it has no \"up_to\", so that every quantity has a price.")
	}
	return tiers
}

// windows reads when a rate is for usage.
func (p *parser) windows() []Window {
	var windows []Window
	isList := p.array(maxWindows, func(int) {
		var w Window
		var days, from, to bool
		if !p.object([]string{"days", "from", "to"}, 0, func(name string) {
			switch name {
			case "days":
				days = true
				w.Days = p.days()
			case "from":
				from = true
				w.From = p.clock()
			case "to":
				to = true
				w.To = p.clock()
			}
		}) {
			return
		}
		switch {
		case from != to:
			p.fault("A window has both \"from\" and \"to\", or neither: then it is the whole day.")
		case !from && !days:
			p.fault("A window names days, or from when to when, or both.")
		}
		windows = append(windows, w)
	})
	if isList && len(windows) == 0 {
		p.fault("There is no window: the rate would never be for anything.")
	}
	return windows
}

func (p *parser) days() []time.Weekday {
	var days []time.Weekday
	before := p.faults
	isList := p.array(7, func(int) {
		s, ok := p.text()
		if !ok {
			return
		}
		i := slices.Index(dayNames[:], s)
		day := time.Weekday((i + 1) % 7)
		switch {
		case i < 0:
			p.fault("%.40q is not a day; there is %s.", s, strings.Join(dayNames[:], ", "))
		case slices.Contains(days, day):
			p.fault("The day is listed twice.")
		default:
			days = append(days, day)
		}
	})
	if isList && len(days) == 0 && p.faults == before {
		p.fault("There is no day.")
	}
	slices.SortFunc(days, func(a, b time.Weekday) int { return daysSinceMonday(a) - daysSinceMonday(b) })
	return days
}

// clock reads a time of day, in minutes after midnight.
func (p *parser) clock() int {
	s, ok := p.text()
	if !ok {
		return 0
	}
	if t, err := time.Parse("15:04", s); err == nil && len(s) == 5 {
		return t.Hour()*60 + t.Minute()
	}
	p.fault("%.40q is not a time of day from \"00:00\" to \"23:59\".", s)
	return 0
}

// timetable returns the minutes of a list of windows, the same set for the same list; nil for none.
func (p *parser) timetable(windows []Window) *week {
	if windows == nil {
		return nil
	}
	var b strings.Builder
	for _, w := range windows {
		b.WriteString(w.String())
		b.WriteByte(';')
	}
	w := p.weeks[b.String()]
	if w == nil {
		if p.weeks == nil {
			p.weeks = map[string]*week{}
		}
		w = &week{}
		if len(p.weeks) < maxTimetables { // beyond that the document is refused
			w = newWeek(windows)
		}
		p.weeks[b.String()] = w
	}
	return w
}

func (p *parser) currency(s string) string {
	if _, err := credit.CurrencyPlaces(s); err != nil {
		p.fault("%s", detailOf(err))
		return ""
	}
	return s
}

func (p *parser) zone(d *Document) {
	s, ok := p.text()
	if !ok {
		return
	}
	zone, err := time.LoadLocation(s)
	if err != nil || s == "" || s == "Local" {
		p.fault("%.40q is not a time zone such as \"Europe/Berlin\".", s)
		return
	}
	d.TimeZone, d.zone = s, zone
}

func (p *parser) creditValue() CreditValue {
	var v CreditValue
	before := p.faults
	p.object([]string{"price", "currency"}, 2, func(name string) {
		switch name {
		case "price":
			v.Price, _ = p.decimal()
			if p.faults == before && v.Price.IsZero() {
				p.fault("A credit is worth more than 0.")
			}
		case "currency":
			if s, ok := p.text(); ok {
				v.Currency = p.currency(s)
			}
		}
	})
	if p.faults > before && v.Currency == "" {
		v.Currency = "USD" // one fault is enough: rates do have a value to refer to
	}
	return v
}

func (p *parser) rounding() Rounding {
	if s, ok := p.text(); ok {
		return oneOf(p, "a rounding", s, RoundEvent, RoundCarry)
	}
	return RoundEvent
}

// extends reads "other-card" or {"card": "other-card", "version": 3}.
func (p *parser) extends() Extends {
	var e Extends
	if p.cursor.next() == '"' {
		e.Card = p.cardCode()
		return e
	}
	p.object([]string{"card", "version"}, 1, func(name string) {
		if name == "card" {
			e.Card = p.cardCode()
			return
		}
		p.cursor.next()
		from := p.cursor.i
		p.cursor.skip()
		n, err := strconv.ParseInt(string(p.cursor.b[from:p.cursor.i]), 10, 32)
		if err != nil || n < 1 {
			p.fault("A version is a whole number from 1 on.")
			return
		}
		e.Version = int(n)
	})
	return e
}

func (p *parser) cardCode() string {
	s, ok := p.text()
	if ok && !isMeterCode(s) {
		p.fault("%.70q is not the code of a rate card.", s)
	}
	return s
}
