package rating

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"
)

// Difference is what became of one meter, one rate or the document's own fields between two versions.
type Difference struct {
	Of     string        // "document", "meter" or "rate"
	ID     string        // of the meter or rate; "" of the document
	Change string        // "added", "removed" or "changed"
	Fields []FieldChange // those that differ, in a fixed order; of what was added or removed, those that say something
}

// FieldChange is a field with the values that it has in both versions, as text; "" where it says nothing.
type FieldChange struct{ Name, Before, After string }

// String writes the difference for a reader: `rate gpt4o: price 2.5 → 2, per 1000000 → 1000`.
func (d Difference) String() string {
	var b strings.Builder
	b.WriteString(d.Of)
	if d.ID != "" {
		b.WriteString(" " + d.ID)
	}
	if d.Change != "changed" {
		b.WriteString(" " + d.Change)
	}
	for i, f := range d.Fields {
		b.WriteString([]string{": ", ", "}[min(i, 1)] + f.Name + " ")
		switch d.Change {
		case "added":
			b.WriteString(f.After)
		case "removed":
			b.WriteString(f.Before)
		default:
			fmt.Fprintf(&b, "%s → %s", dash(f.Before), dash(f.After))
		}
	}
	return b.String()
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// Diff lists what differs between two versions: the document's own fields, then meters by code, then rates by id, those of matrices among
// them. How numbers are written and the order of the document do not matter. nil when nothing differs.
func Diff(before, after *Document) []Difference {
	var all []Difference
	compare := func(of, id string, a, b []field) {
		d := Difference{Of: of, ID: id, Change: "changed"}
		switch {
		case a == nil:
			d.Change, a = "added", make([]field, len(b))
		case b == nil:
			d.Change, b = "removed", make([]field, len(a))
		}
		for i := range max(len(a), len(b)) {
			if a[i].value != b[i].value {
				d.Fields = append(d.Fields, FieldChange{cmp.Or(a[i].name, b[i].name), a[i].value, b[i].value})
			}
		}
		if d.Fields != nil {
			all = append(all, d)
		}
	}
	compare("document", "", before.fields(), after.fields())
	sides := func(of string, a, b map[string][]field) {
		ids := maps.Clone(a)
		maps.Copy(ids, b)
		for _, id := range slices.Sorted(maps.Keys(ids)) {
			compare(of, id, a[id], b[id])
		}
	}
	sides("meter", fieldsOf(before.Meters), fieldsOf(after.Meters))
	sides("rate", fieldsOf(before.Rates), fieldsOf(after.Rates))
	return all
}

type field struct{ name, value string }

func fieldsOf[T interface{ fields() (string, []field) }](list []T) map[string][]field {
	all := make(map[string][]field, len(list))
	for _, t := range list {
		id, fields := t.fields()
		all[id] = fields
	}
	return all
}

func (d *Document) fields() []field {
	var value, extends string
	if d.CreditValue.Currency != "" {
		value = d.CreditValue.Price.String() + " " + d.CreditValue.Currency
	}
	if extends = d.Extends.Card; d.Extends.Version > 0 {
		extends += " version " + strconv.Itoa(d.Extends.Version)
	}
	return []field{{"time_zone", d.TimeZone}, {"credit_value", value}, {"rounding", string(d.Rounding)}, {"extends", extends}}
}

func (m Meter) fields() (string, []field) {
	return m.Code, []field{{"aggregation", string(m.Aggregation)}, {"unique_by", m.UniqueBy}, {"period", string(m.Period)}, {"description", m.Description}}
}

func (r Rate) fields() (string, []field) {
	var match, when, tiers []string
	for _, name := range slices.Sorted(maps.Keys(r.Match)) {
		match = append(match, name+"="+strings.Join(slices.Sorted(slices.Values(r.Match[name])), "|"))
	}
	for _, w := range r.When {
		when = append(when, w.String())
	}
	for _, t := range r.Tiers {
		s := t.Price.String()
		if !t.Per.Equal(decimal.New(1, 0)) {
			s += " per " + t.Per.String()
		}
		if !t.Flat.IsZero() {
			s += " and " + t.Flat.String()
		}
		if t.UpTo != nil {
			s += " up to " + t.UpTo.String()
		}
		tiers = append(tiers, s)
	}
	var price, per, percent, maximum string
	switch r.Model {
	case PerUnit, Package:
		price, per = r.Price.String(), r.Per.String()
	case CostPlus:
		percent = r.Percent.String()
	}
	if r.Maximum != nil {
		maximum = r.Maximum.String()
	}
	return r.ID, []field{
		{"meter", r.Meter}, {"match", strings.Join(match, ", ")}, {"when", strings.Join(when, "; ")}, {"model", string(r.Model)}, {"price", price}, {"per", per},
		{"tiers", strings.Join(tiers, "; ")}, {"percent", percent}, {"currency", r.Currency}, {"over", string(r.Over)}, {"counter", r.Counter},
		{"free", unlessZero(r.Free)}, {"minimum", unlessZero(r.Minimum)}, {"maximum", maximum},
	}
}

func unlessZero(d decimal.Decimal) string {
	if d.IsZero() {
		return ""
	}
	return d.String()
}
