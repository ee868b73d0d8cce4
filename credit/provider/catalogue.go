// Package provider knows what model providers charge and what their responses say was used: catalogues of prices, the usage in a
// response, its exact cost, and rate cards made of both.
package provider

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Currency is what every price of a catalogue is in.
const Currency = "USD"

// Catalogue is the prices of providers' models, and how the usage is read from their responses. It is made by [ParseGenAIPrices] or
// [ParseLiteLLM] and never changed: any number of goroutines may use it.
type Catalogue struct {
	providers []*seller
	byID      map[string]*seller
	byKey     map[string]*seller // by a model's name in lower case, where that alone tells; nil: it does not
	byModel   []*seller          // that have a model_match, in order
	byName    []*seller          // that have a provider_match, in order
	unusable  faults
}

// seller is a provider.
type seller struct {
	id, name   string
	urls       *regexp.Regexp // matches the beginning of the URL of a call; nil: none is known
	nameMatch  *clause        // which other names mean it; nil: none
	modelMatch *clause        // which models are its; nil: unknown
	models     []*model
	matcher    matcher
	fallbacks  []*seller // whose prices hold for models that it has no price of
	extractors []*extractor
}

// model is a model of one provider, with its prices.
type model struct {
	seller        *seller
	id, name      string
	match         clause
	contextWindow int64 // 0: unknown
	deprecated    bool
	comments      string
	prices        []pricing // the last whose condition holds counts; the first when none does
	unusable      string    // why it cannot be priced; "": it can
	uncounted     []string  // what it charges besides, for which no unit is known
}

// pricing is the prices of a model under a condition.
type pricing struct {
	since    time.Time // midnight UTC; zero: always
	window   *window   // nil: all day
	standard *priceSet
	services map[string]*priceSet // of service tiers other than the standard one, complete
}

// window is a part of every day in UTC; one whose end is not after its start goes on past midnight.
type window struct{ from, to time.Duration }

func (w *window) has(t time.Time) bool {
	t = t.UTC()
	now := t.Sub(t.Truncate(24 * time.Hour))
	if w.from < w.to {
		return w.from <= now && now < w.to
	}
	return now >= w.from || now < w.to
}

func (w *window) String() string { return clockTime(w.from) + "–" + clockTime(w.to) + " UTC" }

func clockTime(d time.Duration) string {
	t := time.Time{}.Add(d)
	if d%time.Minute != 0 {
		return t.Format("15:04:05.999999")
	}
	return t.Format("15:04")
}

// priceSet is prices by unit.
type priceSet struct {
	priced  unitSet
	order   []Unit         // the priced units, each before those that contain it
	prices  []unitPrice    // of order
	nearest [numUnits]int8 // for each unit, where in order the finest priced unit around it stands, itself first; or unpriced, several
	starts  []int64        // where tiers begin, rising
}

const (
	unpriced = -1 // nothing around the unit has a price
	several  = -2 // several units around it have, and none of them is within the others
)

// unitPrice is the price, in USD, of Unit.Per of a unit.
type unitPrice struct {
	base  decimal.Decimal
	tiers []tier // rising
}

// tier is the price of all of a unit in a request with more than start input tokens.
type tier struct {
	start int64
	price decimal.Decimal
}

// at returns the price in a request of so many input tokens, and the start of the tier that it is of, 0 for the base.
func (p *unitPrice) at(inputTokens int64) (price decimal.Decimal, above int64) {
	price = p.base
	for i := range p.tiers {
		if inputTokens <= p.tiers[i].start {
			break
		}
		price, above = p.tiers[i].price, p.tiers[i].start
	}
	return price, above
}

func newPriceSet(prices map[Unit]unitPrice) *priceSet {
	s := &priceSet{}
	for _, u := range finestFirst {
		p, ok := prices[u]
		if !ok {
			continue
		}
		s.priced.add(u)
		s.order = append(s.order, u)
		s.prices = append(s.prices, p)
		for _, t := range p.tiers {
			if !slices.Contains(s.starts, t.start) {
				s.starts = append(s.starts, t.start)
			}
		}
	}
	slices.Sort(s.starts)
	for u := range numUnits {
		s.nearest[u] = unpriced
		for i, v := range s.order {
			if !v.Contains(u) {
				continue
			}
			if n := s.nearest[u]; n == unpriced {
				s.nearest[u] = int8(i)
			} else if n != several && !v.Contains(s.order[n]) {
				s.nearest[u] = several
			}
		}
	}
	return s
}

// context returns the largest start of a tier that a request of so many input tokens is above; 0 when it is above none.
func (s *priceSet) context(inputTokens int64) int64 {
	above := int64(0)
	for _, start := range s.starts {
		if inputTokens > start {
			above = start
		}
	}
	return above
}

// pricingAt returns the prices in force at t.
func (m *model) pricingAt(t time.Time) *pricing {
	for i := len(m.prices) - 1; i >= 0; i-- {
		if p := &m.prices[i]; !t.Before(p.since) && (p.window == nil || p.window.has(t)) {
			return p
		}
	}
	return &m.prices[0]
}

// set returns the prices of a service tier, and whether they are its own: else they are the standard ones.
func (p *pricing) set(service string) (s *priceSet, own bool) {
	if s = p.services[service]; s != nil {
		return s, true
	}
	return p.standard, false
}

// Found is a model as a catalogue knows it.
type Found struct {
	Provider      string // whose prices hold
	ServedBy      string // the provider that was asked for: another one when it has no price of its own and falls back
	Model         string // the catalogue's id of the model
	Name          string // "": none
	ContextWindow int64  // tokens; 0: unknown
	Deprecated    bool
	Comments      string // on its prices; "": none
	// Uncounted names what the source has a price of that cannot be computed here. A cost is without it.
	Uncounted []string
}

// Find returns the model that a provider means by a reference, such as a dated name. Names of providers and models are taken
// without regard to case. An empty provider is found by the model if only one comes into question.
//
// Refusals are coded unknown_provider and unknown_model.
func (c *Catalogue) Find(provider, model string) (Found, error) {
	served, err := c.seller(provider, model)
	if err != nil {
		return Found{}, err
	}
	m, err := served.find(model)
	if err != nil {
		return Found{}, err
	}
	return m.found(served), nil
}

func (m *model) found(served *seller) Found {
	return Found{
		Provider: m.seller.id, ServedBy: served.id, Model: m.id, Name: m.name,
		ContextWindow: m.contextWindow, Deprecated: m.deprecated, Comments: m.comments, Uncounted: m.uncounted,
	}
}

// Models lists a provider's own models, in the order of the catalogue. A provider that is not known has none.
func (c *Catalogue) Models(provider string) []Found {
	s := c.byID[provider]
	if s == nil {
		return nil
	}
	list := make([]Found, len(s.models))
	for i, m := range s.models {
		list[i] = m.found(s)
	}
	return list
}

// Providers lists the ids of all providers, in the order of the catalogue.
func (c *Catalogue) Providers() []string {
	ids := make([]string, len(c.providers))
	for i, s := range c.providers {
		ids[i] = s.id
	}
	return ids
}

// Flavours lists the response formats of a provider that usage can be read from, its own first. A provider that is not known has none.
func (c *Catalogue) Flavours(provider string) []string {
	s := c.byID[provider]
	if s == nil {
		return nil
	}
	var list []string
	for _, e := range s.extractors {
		list = append(list, e.flavour)
	}
	return list
}

// Unusable says which entries of the source cannot be used and why, the first 1,000, and how many they are. A model among them
// is known, so that no other is taken for it, and refused when it is to be priced.
func (c *Catalogue) Unusable() (issues []credit.Issue, count int) {
	return slices.Clone(c.unusable.issues), c.unusable.count
}

// ProviderByURL returns the provider whose API a URL belongs to. The refusal is coded unknown_provider.
func (c *Catalogue) ProviderByURL(url string) (string, error) {
	for _, s := range c.providers {
		if s.urls != nil && s.urls.MatchString(url) {
			return s.id, nil
		}
	}
	return "", credit.Errorf(credit.UnknownProvider, "No provider is known at %.200q.", url)
}

// seller returns the provider of a name or, when that is empty, the only one that has models such as this.
func (c *Catalogue) seller(name, model string) (*seller, error) {
	if name == "" {
		return c.sellerOf(model)
	}
	if s := c.byID[name]; s != nil {
		return s, nil
	}
	name = strings.ToLower(strings.TrimSpace(name))
	if s := c.byID[name]; s != nil {
		return s, nil
	}
	for _, s := range c.byName {
		if s.nameMatch.match(name) {
			return s, nil
		}
	}
	return nil, credit.Errorf(credit.UnknownProvider, "The provider %.100q is not known.", name).With("provider", name)
}

func (c *Catalogue) sellerOf(model string) (*seller, error) {
	if model == "" {
		return nil, credit.Errorf(credit.UnknownProvider, "Neither a provider nor a model is named.")
	}
	model = strings.ToLower(model)
	if s := c.byKey[model]; s != nil {
		return s, nil
	}
	var one *seller
	for _, s := range c.byModel {
		switch {
		case !s.modelMatch.match(model):
		case one != nil:
			return nil, credit.Errorf(credit.UnknownProvider, "The model %.100q may be of %s or %s: name the provider.", model, one.id, s.id).With("model", model)
		default:
			one = s
		}
	}
	if one == nil {
		return nil, credit.Errorf(credit.UnknownProvider, "No provider is named, and the model %.100q does not tell which it is.", model).With("model", model)
	}
	return one, nil
}

// find returns the model that a reference means: the first whose clause holds, of the provider and then of its fallbacks.
func (s *seller) find(ref string) (*model, error) {
	if ref == "" {
		return nil, credit.Errorf(credit.UnknownModel, "No model is named.").With("provider", s.id)
	}
	folded := strings.ToLower(ref)
	if n := s.matcher.find(folded); n != none {
		return s.models[n], nil
	}
	for _, f := range s.fallbacks {
		if n := f.matcher.find(folded); n != none {
			return f.models[n], nil
		}
	}
	return nil, credit.Errorf(credit.UnknownModel, "The model %.100q of %s is not known.", ref, s.id).With("provider", s.id).With("model", ref)
}

// compile makes the lookups, once the sellers are complete.
func (c *Catalogue) compile() {
	for _, s := range c.providers {
		for i, m := range s.models {
			s.matcher.add(i, &m.match)
		}
		if s.modelMatch != nil {
			c.byModel = append(c.byModel, s)
		}
		if s.nameMatch != nil {
			c.byName = append(c.byName, s)
		}
	}
}

// Coverage is how much of a catalogue's source can be used.
type Coverage struct {
	Providers, Models int
	Whole             int // models whose prices are used as they stand, none at all included
	Part              int // models with charges that cannot be computed: see [Found].Uncounted
	None              int // models that are refused when they are to be priced
}

// Coverage counts what can be used.
func (c *Catalogue) Coverage() Coverage {
	n := Coverage{Providers: len(c.providers)}
	for _, s := range c.providers {
		n.Models += len(s.models)
		for _, m := range s.models {
			switch {
			case m.unusable != "":
				n.None++
			case m.uncounted != nil:
				n.Part++
			default:
				n.Whole++
			}
		}
	}
	return n
}
