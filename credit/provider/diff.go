package provider

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// Changes are what sets one catalogue apart from another, in the order of the later one, and what was removed after it.
type Changes []Change

// Change is what became of a provider or of one of its models.
type Change struct {
	Provider string
	Model    string // "": the provider itself
	Kind     ChangeKind
	Prices   []PriceChange // of a model, all of them when it was added or removed
	Notes    []string      // what changed besides, for a reader: which names mean it, how usage is read, whether it can be priced
}

// ChangeKind says what became of something.
type ChangeKind string

const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Changed ChangeKind = "changed"
)

// PriceChange is a price that is not what it was.
type PriceChange struct {
	Unit          Unit
	Above         int64            // the tier of requests with more input tokens; 0: the base
	ServiceTier   string           // "": the standard one
	Condition     string           // since when or at which time of day the price holds; "": it always does
	Before, After *decimal.Decimal // USD for Unit.Per; nil: none
}

// Diff compares two catalogues for review before the later one is used.
func Diff(before, after *Catalogue) Changes {
	var out Changes
	for _, s := range after.providers {
		was := before.byID[s.id]
		if was == nil {
			out = append(out, Change{Provider: s.id, Kind: Added})
			was = &seller{}
		} else if notes := providerNotes(was, s); notes != nil {
			out = append(out, Change{Provider: s.id, Kind: Changed, Notes: notes})
		}
		old := modelsByID(was)
		for _, m := range s.models {
			if change := modelChange(old[m.id], m); change != nil {
				out = append(out, *change)
			}
			delete(old, m.id)
		}
		for _, m := range was.models {
			if old[m.id] != nil {
				out = append(out, *modelChange(m, nil))
			}
		}
	}
	for _, s := range before.providers {
		if after.byID[s.id] == nil {
			out = append(out, Change{Provider: s.id, Kind: Removed})
			for _, m := range s.models {
				out = append(out, *modelChange(m, nil))
			}
		}
	}
	return out
}

func modelsByID(s *seller) map[string]*model {
	byID := make(map[string]*model, len(s.models))
	for _, m := range s.models {
		byID[m.id] = m
	}
	return byID
}

// modelChange returns what became of a model, one of the two being nil if it was not there; nil when nothing did.
func modelChange(before, after *model) *Change {
	c := Change{Kind: Changed, Prices: priceChanges(before, after)}
	switch {
	case before == nil:
		c.Kind, c.Provider, c.Model = Added, after.seller.id, after.id
		return &c
	case after == nil:
		c.Kind, c.Provider, c.Model = Removed, before.seller.id, before.id
		return &c
	}
	c.Provider, c.Model = after.seller.id, after.id
	note := func(what, a, b string) {
		if a != b {
			c.Notes = append(c.Notes, fmt.Sprintf("%s: %s, before %s", what, orNone(b), orNone(a)))
		}
	}
	note("is meant by", before.match.String(), after.match.String())
	note("cannot be priced", before.unusable, after.unusable)
	note("charges that are not counted", strings.Join(before.uncounted, ", "), strings.Join(after.uncounted, ", "))
	if before.deprecated != after.deprecated {
		c.Notes = append(c.Notes, fmt.Sprintf("deprecated: %t, before %t", after.deprecated, before.deprecated))
	}
	if c.Prices == nil && c.Notes == nil {
		return nil
	}
	return &c
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// providerNotes says what changed of a provider apart from its models.
func providerNotes(before, after *seller) (notes []string) {
	note := func(what, a, b string) {
		if a != b {
			notes = append(notes, fmt.Sprintf("%s: %s, before %s", what, orNone(b), orNone(a)))
		}
	}
	text := func(c *clause) string {
		if c == nil {
			return ""
		}
		return c.String()
	}
	names := func(list []*seller) string {
		var ids []string
		for _, s := range list {
			ids = append(ids, s.id)
		}
		return strings.Join(ids, ", ")
	}
	note("is meant by the names", text(before.nameMatch), text(after.nameMatch))
	note("is meant by models", text(before.modelMatch), text(after.modelMatch))
	note("falls back to", names(before.fallbacks), names(after.fallbacks))
	old, now := extractorsOf(before), extractorsOf(after)
	for _, flavour := range slices.Sorted(maps.Keys(now)) {
		if was, ok := old[flavour]; !ok {
			notes = append(notes, "usage of flavour "+flavour+" can be read")
		} else if was != now[flavour] {
			notes = append(notes, "usage of flavour "+flavour+" is read in another way")
		}
		delete(old, flavour)
	}
	for _, flavour := range slices.Sorted(maps.Keys(old)) {
		notes = append(notes, "usage of flavour "+flavour+" can no longer be read")
	}
	return notes
}

// extractorsOf writes all that a provider's extractors do, by flavour.
func extractorsOf(s *seller) map[string]string {
	out := map[string]string{}
	for _, e := range s.extractors {
		text := fmt.Sprintf("%s %s %s", e.root, e.modelPath, e.unusable)
		for _, m := range e.mappings {
			text += fmt.Sprintf("\n%s %s %t", m.path, m.unit, m.required)
		}
		out[e.flavour] = text
	}
	return out
}

// priceChanges lists the prices of a model that differ.
func priceChanges(before, after *model) []PriceChange {
	old, now := pricesOf(before), pricesOf(after)
	var list []PriceChange
	for key := range old {
		if _, ok := now[key]; !ok {
			now[key] = nil
		}
	}
	for key, price := range now {
		was := old[key]
		if was == nil && price == nil || was != nil && price != nil && was.Equal(*price) {
			continue
		}
		key.Before, key.After = was, price
		list = append(list, key)
	}
	slices.SortFunc(list, func(a, b PriceChange) int {
		return strings.Compare(a.sortKey(), b.sortKey())
	})
	return list
}

func (p PriceChange) sortKey() string {
	return fmt.Sprintf("%s\x00%s\x00%02d\x00%012d", p.Condition, p.ServiceTier, p.Unit, p.Above)
}

// pricesOf lists all prices of a model under keys without values.
func pricesOf(m *model) map[PriceChange]*decimal.Decimal {
	out := map[PriceChange]*decimal.Decimal{}
	if m == nil {
		return out
	}
	seen := map[string]int{}
	for i := range m.prices {
		p := &m.prices[i]
		condition := p.condition()
		if seen[condition]++; seen[condition] > 1 {
			condition = strings.TrimSpace(fmt.Sprintf("%s (%d)", condition, seen[condition]))
		}
		add := func(s *priceSet, service string) {
			for i, unit := range s.order {
				key := PriceChange{Unit: unit, ServiceTier: service, Condition: condition}
				out[key] = &s.prices[i].base
				for j := range s.prices[i].tiers {
					key.Above = s.prices[i].tiers[j].start
					out[key] = &s.prices[i].tiers[j].price
				}
			}
		}
		add(p.standard, "")
		for service, s := range p.services {
			add(s, service)
		}
	}
	return out
}

// condition writes when prices hold; "" when they always do.
func (p *pricing) condition() string {
	var parts []string
	if !p.since.IsZero() {
		parts = append(parts, "since "+p.since.Format(time.DateOnly))
	}
	if p.window != nil {
		parts = append(parts, p.window.String())
	}
	return strings.Join(parts, ", ")
}

// String writes the change of a price: "input_tokens above 200000: 5 USD per 1000000, before 6".
func (p PriceChange) String() string {
	var b strings.Builder
	b.WriteString(p.Unit.String())
	if p.Above > 0 {
		fmt.Fprintf(&b, " above %d", p.Above)
	}
	for _, s := range []string{p.ServiceTier, p.Condition} {
		if s != "" {
			b.WriteString(", " + s)
		}
	}
	value := func(d *decimal.Decimal) string {
		if d == nil {
			return "none"
		}
		return d.String()
	}
	if p.After == nil {
		fmt.Fprintf(&b, ": none, before %s %s per %s", value(p.Before), Currency, p.Unit.Per())
		return b.String()
	}
	fmt.Fprintf(&b, ": %s %s per %s", value(p.After), Currency, p.Unit.Per())
	if p.Before != nil {
		fmt.Fprintf(&b, ", before %s", value(p.Before))
	}
	return b.String()
}

// String writes the changes for a reader, a paragraph for each provider: what was added, removed and changed, and every price.
func (c Changes) String() string {
	var b strings.Builder
	provider := ""
	for i, change := range c {
		if i == 0 || change.Provider != provider {
			if i > 0 {
				b.WriteByte('\n')
			}
			provider = change.Provider
			b.WriteString(provider)
			if change.Model == "" && change.Kind != Changed {
				fmt.Fprintf(&b, " (%s)", change.Kind)
			}
			b.WriteByte('\n')
		}
		if change.Model != "" {
			fmt.Fprintf(&b, "  %s %s\n", change.Kind, change.Model)
		}
		for _, p := range change.Prices {
			fmt.Fprintf(&b, "    %s\n", p)
		}
		for _, n := range change.Notes {
			fmt.Fprintf(&b, "    %s\n", n)
		}
	}
	if b.Len() == 0 {
		return "no changes\n"
	}
	return b.String()
}
