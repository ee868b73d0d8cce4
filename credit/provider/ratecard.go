package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// RateCardTerms say what a ready rate card is to charge.
type RateCardTerms struct {
	At          time.Time       // whose prices: those in force then
	Markup      decimal.Decimal // percent on the cost; 30 makes 1.30 of 1.00; from -100
	CreditPrice decimal.Decimal // what a credit is worth, above 0
	Currency    string          // of CreditPrice; "": USD, and no other is possible, since the catalogue's prices are in USD
	Providers   []string        // ids of those whose prices are wanted; nil: all
	Models      []string        // ids, or provider/id; nil: all
	Meter       string          // of tokens; "": [DefaultMeter]
}

// RateCard is a rate card made of a catalogue.
type RateCard struct {
	Document []byte // for [rating.Parse]
	Rates    int
	LeftOut  []LeftOut
	// Until is when a price on the card changes by what the catalogue knows already: a new card should hold from then. Zero: it
	// knows of no change.
	Until time.Time
}

// LeftOut is a model whose price a rate card cannot express.
type LeftOut struct{ Provider, Model, Reason string }

func (l LeftOut) String() string { return l.Provider + "/" + l.Model + ": " + l.Reason }

// What a rate card may have, by package rating.
const (
	maxRates        = 10_000
	maxRateID       = 128
	maxPriceWhole   = 20
	maxPriceDecimal = 12
)

// The members of a rating document, in the order in which people read them.
type (
	cardDocument struct {
		TimeZone string      `json:"time_zone,omitempty"`
		Meters   []cardMeter `json:"meters"`
		Rates    []*cardRate `json:"rates"`
	}
	cardMeter struct {
		Code        string `json:"code"`
		Aggregation string `json:"aggregation"`
		Description string `json:"description"`
	}
	cardRate struct {
		ID    string              `json:"id"`
		Meter string              `json:"meter"`
		Match map[string][]string `json:"match,omitempty"`
		When  []cardWindow        `json:"when,omitempty"`
		Price string              `json:"price"`
		Per   string              `json:"per"`
	}
	cardWindow struct {
		Days []string `json:"days"`
		From string   `json:"from"`
		To   string   `json:"to"`
	}
)

var everyDay = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// knowsWhen tells whether rate cards can have prices by the time of day.
var knowsWhen = sync.OnceValue(func() bool {
	b, err := json.Marshal(cardDocument{
		TimeZone: "UTC", Meters: []cardMeter{{Code: "m", Aggregation: "sum"}},
		Rates: []*cardRate{{ID: "r", Meter: "m", When: []cardWindow{{Days: everyDay, From: "08:00", To: "18:00"}}, Price: "1", Per: "1"}},
	})
	if err != nil {
		return false
	}
	_, err = rating.Parse(b)
	return err == nil
})

// RateCard makes a rate card of the prices in force at an instant: credits = cost * (1 + markup / 100) / credit price, exactly. It prices
// what [Catalogue.Lines] returns.
//
// What is refused is coded invalid_request: terms out of their bounds, a provider or model that is not there, and more than 10,000 rates.
func (c *Catalogue) RateCard(t RateCardTerms) (RateCard, error) {
	if err := t.check(); err != nil {
		return RateCard{}, err
	}
	models, err := c.selected(t)
	if err != nil {
		return RateCard{}, err
	}
	b := cardBuilder{terms: t, ids: map[string]bool{}, meters: map[string]bool{}}
	for _, m := range models {
		rates, until, reason := b.model(m)
		if reason != "" {
			b.card.LeftOut = append(b.card.LeftOut, LeftOut{Provider: m.seller.id, Model: m.id, Reason: reason})
			continue
		}
		b.doc.Rates = append(b.doc.Rates, rates...)
		if !until.IsZero() && (b.card.Until.IsZero() || until.Before(b.card.Until)) {
			b.card.Until = until
		}
	}
	return b.finish()
}

func (t *RateCardTerms) check() error {
	switch _, f := t.Meter, family(t.Meter); {
	case t.Currency != "" && t.Currency != Currency:
		return credit.Invalid("/currency", "Providers' prices are in %s; a credit's worth in %.12q cannot be compared with them.", Currency, t.Currency)
	case !t.CreditPrice.IsPositive() || outOfBounds(t.CreditPrice):
		return credit.Invalid("/credit_price", "A credit's worth is more than 0, with at most %d digits before and %d after the point.",
			maxPriceWhole, maxPriceDecimal)
	case t.Markup.LessThan(decimal.New(-100, 0)) || outOfBounds(t.Markup.Abs()):
		return credit.Invalid("/markup", "A markup is a percentage from -100, with at most %d digits before and %d after the point.",
			maxPriceWhole, maxPriceDecimal)
	case f != tokens && slices.ContainsFunc(units[:], func(i unitInfo) bool { return i.family == f }):
		return credit.Invalid("/meter", "The meter %q is that of what is no tokens.", t.Meter)
	}
	return nil
}

// outOfBounds tells whether a number, not negative, has too many digits for a rate card.
func outOfBounds(n decimal.Decimal) bool {
	if n.IsZero() {
		return false
	}
	if e := n.Exponent(); e > maxPriceWhole || e < -100 {
		return true
	}
	n = n.Normalize()
	return n.Exponent() < -maxPriceDecimal || n.NumDigits()+int(n.Exponent()) > maxPriceWhole
}

// selected returns the models that the terms name, in the order of the catalogue.
func (c *Catalogue) selected(t RateCardTerms) ([]*model, error) {
	for i, id := range t.Providers {
		if c.byID[id] == nil {
			return nil, credit.Invalid(string(pointer("/providers").index(i)), "There is no provider %.100q.", id)
		}
	}
	found := make([]bool, len(t.Models))
	var list []*model
	for _, s := range c.providers {
		if t.Providers != nil && !slices.Contains(t.Providers, s.id) {
			continue
		}
		for _, m := range s.models {
			wanted := t.Models == nil
			for i, id := range t.Models {
				if id == m.id || id == s.id+"/"+m.id {
					wanted, found[i] = true, true
				}
			}
			if wanted {
				list = append(list, m)
			}
		}
	}
	if i := slices.Index(found, false); i >= 0 {
		return nil, credit.Invalid(string(pointer("/models").index(i)), "There is no model %.100q among the providers chosen.", t.Models[i])
	}
	return list, nil
}

// cardBuilder makes a document.
type cardBuilder struct {
	terms  RateCardTerms
	doc    cardDocument
	card   RateCard
	ids    map[string]bool
	meters map[string]bool // in use
}

// model returns the rates of a model and when its prices change next, or why it must be left out.
func (b *cardBuilder) model(m *model) (rates []*cardRate, until time.Time, reason string) {
	if m.unusable != "" {
		return nil, until, m.unusable
	}
	if err := credit.CheckDimensions(credit.Dimensions{dimProvider: m.seller.id, dimModel: m.id}); err != nil {
		return nil, until, "The names of provider and model do not fit a dimension."
	}
	base, windows, until := m.inForce(b.terms.At)
	if reason := expressible(base, windows); reason != "" {
		return nil, until, reason
	}
	tiered := false
	for _, p := range append([]*pricing{base}, windows...) {
		tiered = tiered || len(p.standard.starts) > 0
		for _, s := range p.services {
			tiered = tiered || len(s.starts) > 0
		}
	}
	add := func(s *priceSet, service string, w *window) {
		if reason == "" {
			var more []*cardRate
			more, reason = b.set(m, s, service, w, tiered)
			rates = append(rates, more...)
		}
	}
	add(base.standard, "", nil)
	for _, service := range slices.Sorted(maps.Keys(base.services)) {
		add(base.services[service], service, nil)
	}
	for _, p := range windows {
		add(p.standard, "", p.window)
	}
	if reason == "" && len(rates) == 0 {
		reason = "The catalogue has no price of it."
	}
	return rates, until, reason
}

// inForce returns a model's prices at t: those of the whole day, those for a time of day that go before them, and when that changes; zero:
// never.
func (m *model) inForce(t time.Time) (base *pricing, windows []*pricing, until time.Time) {
	for i := len(m.prices) - 1; i >= 0; i-- {
		switch p := &m.prices[i]; {
		case t.Before(p.since):
			if until.IsZero() || p.since.Before(until) {
				until = p.since
			}
		case base != nil:
		case p.window == nil:
			base = p
		default:
			windows = append(windows, p)
		}
	}
	if base == nil {
		base = &m.prices[0]
		windows = slices.DeleteFunc(windows, func(p *pricing) bool { return p == base })
	}
	return base, windows, until
}

// expressible says why prices by the time of day cannot be on a card; "": they can.
func expressible(base *pricing, windows []*pricing) string {
	if len(windows) == 0 {
		return ""
	}
	if !knowsWhen() {
		return "Its price depends on the time of day, which a rate card cannot say."
	}
	for i, p := range windows {
		if len(p.services)+len(base.services) > 0 {
			return "Its price depends on the time of day and on the service tier."
		}
		if p.window.from%time.Minute != 0 || p.window.to%time.Minute != 0 {
			return "Its price changes within a minute, which a rate card cannot say."
		}
		for _, q := range windows[:i] {
			if p.window.overlaps(q.window) {
				return "It has two prices for one time of day."
			}
		}
	}
	return ""
}

func (w *window) overlaps(v *window) bool {
	day := time.Time{}
	return w.has(day.Add(v.from)) || v.has(day.Add(w.from))
}

// set returns the rates of one set of prices.
func (b *cardBuilder) set(m *model, s *priceSet, service string, w *window, tiered bool) (rates []*cardRate, reason string) {
	for i := len(s.order) - 1; i >= 0; i-- {
		unit := s.order[i]
		meter, dim, _ := unit.meter(b.terms.Meter)
		var of []string // the lines that the price is for
		for u := range numUnits {
			if int(s.nearest[u]) == i && (u == unit || units[u].traits&text == 0) {
				_, _, value := u.meter(b.terms.Meter)
				of = append(of, value)
			}
		}
		var last *cardRate
		for j, above := range append([]int64{0}, s.starts...) {
			n, _ := s.prices[i].at(above + 1)
			price, per, ok := b.charge(n, unit)
			if !ok {
				return nil, fmt.Sprintf("Its price of %s cannot be written exactly on a rate card.", unit)
			}
			if j > 0 && last.Price == price && last.Per == per {
				last.Match[dimContext] = append(last.Match[dimContext], contextName(above))
				continue
			}
			last = &cardRate{Meter: meter, Price: price, Per: per, Match: map[string][]string{dimProvider: {m.seller.id}, dimModel: {m.id}, dim: of}}
			name := []string{m.seller.id, m.id, unit.Type()}
			if tiered {
				last.Match[dimContext] = []string{contextName(above)}
				name = append(name, contextName(above))
			}
			if service != "" {
				last.Match[dimService] = []string{service}
				name = append(name, service)
			}
			if w != nil {
				last.When = []cardWindow{{Days: everyDay, From: clockTime(w.from), To: clockTime(w.to)}}
				name = append(name, clockTime(w.from))
				b.doc.TimeZone = "UTC"
			}
			last.ID = b.id(name)
			b.meters[meter] = true
			rates = append(rates, last)
		}
	}
	return rates, ""
}

// id makes a rate's id that no other has.
func (b *cardBuilder) id(parts []string) string {
	id := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._:/@+-", r) {
			return r
		}
		return '-'
	}, strings.TrimLeft(strings.Join(parts, "/"), "._:/@+-"))
	for i, stem := 2, id; b.ids[id] || len(id) > maxRateID; i++ {
		id = fmt.Sprintf("%s-%d", stem[:min(len(stem), maxRateID-8)], i)
	}
	b.ids[id] = true
	return id
}

// charge returns the credits for some of a unit that costs n USD for the unit's Per: of Per, if that is a number of few places,
// or else of as much as makes both numbers such. It is not ok when nothing does.
func (b *cardBuilder) charge(n decimal.Decimal, unit Unit) (price, per string, ok bool) {
	num := n.Mul(b.terms.Markup.Add(decimal.New(100, 0)))
	den := b.terms.CreditPrice.Mul(decimal.New(100, 0))
	if quo, rest := num.QuoRem(den, maxPriceDecimal); rest.IsZero() && !outOfBounds(quo) {
		return quo.String(), unit.Per().String(), true
	}
	den = den.Mul(unit.Per())
	// Both as whole numbers without a common factor.
	e := min(num.Exponent(), den.Exponent())
	x, y := num.Shift(-e).BigInt(), den.Shift(-e).BigInt()
	common := new(big.Int).GCD(nil, nil, x, y)
	p, q := decimal.NewFromBigInt(x.Quo(x, common), 0), decimal.NewFromBigInt(y.Quo(y, common), 0)
	for i := 0; i < maxPriceDecimal && (outOfBounds(p) || outOfBounds(q)); i++ {
		p, q = p.Shift(-1), q.Shift(-1)
	}
	return p.String(), q.String(), !outOfBounds(p) && !outOfBounds(q)
}

var meterDescriptions = []struct {
	family      family
	description string
}{
	{tokens, "Tokens, by token_type"},
	{characters, "Characters"},
	{messages, "Messages"},
	{seconds, "Seconds of sound and film"},
	{pixels, "Pixels"},
	{images, "Images"},
	{pages, "Pages of documents"},
	{searches, "Searches"},
	{toolCalls, "Calls of tools that the provider runs"},
	{requests, "Requests"},
}

// finish writes the document and holds it against what a rate card may be.
func (b *cardBuilder) finish() (RateCard, error) {
	for _, d := range meterDescriptions {
		code := string(d.family)
		if d.family == tokens && b.terms.Meter != "" {
			code = b.terms.Meter
		}
		if b.meters[code] {
			b.doc.Meters = append(b.doc.Meters, cardMeter{Code: code, Aggregation: "sum", Description: d.description})
		}
	}
	b.card.Rates = len(b.doc.Rates)
	if b.card.Rates > maxRates {
		return RateCard{}, credit.Errorf(credit.InvalidRequest,
			"The prices would make %d rates, and a rate card has at most %d: choose providers or models.", b.card.Rates, maxRates)
	}
	if b.doc.Rates == nil {
		b.doc.Meters, b.doc.Rates = []cardMeter{}, []*cardRate{}
	}
	var out bytes.Buffer
	w := json.NewEncoder(&out)
	w.SetEscapeHTML(false)
	if err := w.Encode(b.doc); err != nil {
		return RateCard{}, fmt.Errorf("write rate card: %w", err)
	}
	b.card.Document = out.Bytes()
	if _, err := rating.Parse(b.card.Document); err != nil {
		return RateCard{}, err
	}
	return b.card, nil
}
