// Package bills reads what model providers charge: the pages of their cost and usage interfaces, and CSV. Functions of values: no I/O, no clock, no
// context. What a bill does not say is never taken for nothing: a bill that misses a day, or a page, says so.
package bills

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Kind says what a line of a bill is about.
type Kind string

const (
	Usage      Kind = "usage"
	Credit     Kind = "credit"     // what the provider takes off: a grant, a refund; below 0
	Commitment Kind = "commitment" // charged whatever is used: a reserved capacity, a minimum
)

// Line is one line of a bill.
type Line struct {
	Kind        Kind
	From, To    time.Time // UTC; used in [From, To)
	Model       string    // as the provider writes it; "": the line is of no model
	TokenType   string    // input, output, cache_read, cache_write, cache_write_5m, cache_write_1h, or what the provider writes; "": it is not said
	Quantity    decimal.NullDecimal
	Currency    string          // "": the line has no amount, as those of usage pages
	Amount      decimal.Decimal // in major units, exactly as billed
	Description string
}

// Bill is what one provider says about some days.
type Bill struct {
	Provider string
	From, To time.Time // the first instant and the first one after, of all pages
	Lines    []Line    // in order of From, Model, TokenType, Kind and of where they stand
	// Incomplete says why this is not all: days that no page has, pages that are missing, days that two pages have. Empty: it is whole.
	Incomplete []string
}

// Range is a span of time, [From, To).
type Range struct{ From, To time.Time }

// Limits of a bill.
const (
	MaxFiles = 1000
	MaxLines = 1_000_000
)

// stream is what pages of one kind follow one another in.
type stream struct {
	name    string
	buckets []Range
	more    []bool // whether the page that ends with the bucket says that others follow it
}

// reader collects the pages of a bill.
type reader struct {
	bill    Bill
	streams []*stream
	faults  []string
	lines   int
}

// Parse reads a bill from its pages or files, in any order, each JSON as OpenAI or Anthropic answer it, or CSV. All are of one provider. With a
// want that is not zero the bill is to cover that.
//
// What is not understood is an [credit.Error] coded invalid_request that says where, as /<file>/<path>.
func Parse(files [][]byte, want Range) (Bill, error) {
	if len(files) == 0 || len(files) > MaxFiles {
		return Bill{}, credit.Invalid("", "A bill has 1 to %d pages.", MaxFiles)
	}
	var r reader
	for i, f := range files {
		at := fmt.Sprintf("/%d", i)
		var err error
		if body := bytes.TrimLeft(f, " \t\r\n\ufeff"); len(body) > 0 && body[0] == '{' {
			err = r.page(at, body)
		} else {
			err = r.csv(at, f)
		}
		if err != nil {
			return Bill{}, err
		}
	}
	r.finish(want)
	return r.bill, nil
}

// provider notes whose bill it is.
func (r *reader) provider(at, name string) error {
	if r.bill.Provider == "" {
		r.bill.Provider = name
	}
	if r.bill.Provider != name {
		return credit.Invalid(at, "This is a bill of %.40q; the pages before are of %.40q.", name, r.bill.Provider)
	}
	return nil
}

func (r *reader) add(at string, l Line) error {
	if r.lines++; r.lines > MaxLines {
		return credit.Invalid(at, "A bill has at most %d lines.", MaxLines)
	}
	r.bill.Lines = append(r.bill.Lines, l)
	return nil
}

func (r *reader) stream(name string) *stream {
	for _, s := range r.streams {
		if s.name == name {
			return s
		}
	}
	s := &stream{name: name}
	r.streams = append(r.streams, s)
	return s
}

// finish looks for what is missing.
func (r *reader) finish(want Range) {
	b := &r.bill
	slices.SortStableFunc(b.Lines, func(x, y Line) int {
		return cmp.Or(x.From.Compare(y.From), cmp.Compare(x.Model, y.Model), cmp.Compare(x.TokenType, y.TokenType), cmp.Compare(x.Kind, y.Kind))
	})
	b.Incomplete = r.faults
	missing := func(s *stream, from, to time.Time) {
		b.Incomplete = append(b.Incomplete, fmt.Sprintf("%s: nothing is said about %s.", s.name, span(from, to)))
	}
	slices.SortFunc(r.streams, func(x, y *stream) int { return cmp.Compare(x.name, y.name) })
	for _, s := range r.streams {
		order := make([]int, len(s.buckets))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(x, y int) int {
			return cmp.Or(s.buckets[x].From.Compare(s.buckets[y].From), s.buckets[x].To.Compare(s.buckets[y].To))
		})
		if len(order) == 0 {
			b.Incomplete = append(b.Incomplete, fmt.Sprintf("%s: nothing is said about any day.", s.name))
			continue
		}
		first, end, last := s.buckets[order[0]].From, s.buckets[order[0]].From, -1
		for _, i := range order {
			x := s.buckets[i]
			switch {
			case x.From.After(end):
				missing(s, end, x.From)
			case x.From.Before(end):
				b.Incomplete = append(b.Incomplete, fmt.Sprintf("%s: %s is there twice.", s.name, span(x.From, earlier(end, x.To))))
			}
			if x.To.After(end) {
				end, last = x.To, i
			}
		}
		if last >= 0 && s.more[last] {
			b.Incomplete = append(b.Incomplete, fmt.Sprintf("%s: the last page says that more follow.", s.name))
		}
		if b.From.IsZero() || first.Before(b.From) {
			b.From = first
		}
		if end.After(b.To) {
			b.To = end
		}
		if !want.To.IsZero() {
			if want.From.Before(first) {
				missing(s, want.From, earlier(first, want.To))
			}
			if end.Before(want.To) {
				missing(s, later(end, want.From), want.To)
			}
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// span writes a time as its days where it has whole ones.
func span(from, to time.Time) string {
	const day = 24 * time.Hour
	switch whole := from.Truncate(day).Equal(from) && to.Truncate(day).Equal(to); {
	case !whole:
		return from.Format(time.RFC3339) + " to " + to.Format(time.RFC3339)
	case to.Sub(from) == day:
		return from.Format(time.DateOnly)
	default:
		return from.Format(time.DateOnly) + " to " + to.Add(-day).Format(time.DateOnly)
	}
}

// Sum is what a bill says of one model, part of its usage, kind and currency.
type Sum struct {
	Model, TokenType string
	Kind             Kind
	Currency         string // "": quantities without amounts
	Quantity         decimal.Decimal
	Amount           decimal.Decimal
}

// Sums adds the lines up over time, in order of model, token type, kind and currency.
func (b *Bill) Sums() []Sum {
	var out []Sum
	type key struct {
		model, tokenType, currency string
		kind                       Kind
	}
	place := make(map[key]int)
	for _, l := range b.Lines {
		k := key{l.Model, l.TokenType, l.Currency, l.Kind}
		i, ok := place[k]
		if !ok {
			i = len(out)
			place[k], out = i, append(out, Sum{Model: l.Model, TokenType: l.TokenType, Kind: l.Kind, Currency: l.Currency})
		}
		out[i].Quantity, out[i].Amount = out[i].Quantity.Add(l.Quantity.Decimal), out[i].Amount.Add(l.Amount)
	}
	slices.SortFunc(out, func(x, y Sum) int {
		return cmp.Or(cmp.Compare(x.Model, y.Model), cmp.Compare(x.TokenType, y.TokenType), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Currency, y.Currency))
	})
	return out
}
