package export

import (
	"cmp"
	"iter"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
)

// Compare orders entries as exports have them: by day, kind, day of service, customer and grant. Entries that are equal so far stand in the order
// of their posting.
func Compare(a, b *Entry) int {
	return cmp.Or(cmp.Compare(a.Date(), b.Date()), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Day, b.Day),
		compareID(a.Customer, b.Customer), compareID(a.Grant, b.Grant))
}

func compareID[I ~[16]byte](a, b I) int {
	for i := range a {
		if c := cmp.Compare(a[i], b[i]); c != 0 {
			return c
		}
	}
	return 0
}

// merged puts neighbours together as the detail says, and counts what it read. What was put together has no units any more: only journal.csv shows
// those, and it has every entry.
func merged(detail Detail, entries iter.Seq2[Entry, error], read *int64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var m Entry
		var lines map[line]int // of m, to its postings; nil: there is no m yet
		for e, err := range entries {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			*read++
			if detail == EveryEntry {
				if !yield(e, nil) {
					return
				}
				continue
			}
			if lines == nil || !together(detail, &m, &e) {
				if lines != nil && !yield(m, nil) {
					return
				}
				m, lines = e, make(map[line]int, len(e.Postings))
				m.Postings = nil
				if detail == Day && !receivable(&e) {
					m.Grant, m.Customer, m.Contact = credit.GrantID{}, credit.CustomerID{}, ""
				}
			}
			m.add(&e, lines)
		}
		if lines != nil {
			yield(m, nil)
		}
	}
}

// together tells whether entry e belongs into m, the one before it.
func together(detail Detail, m, e *Entry) bool {
	same := m.Kind == e.Kind && m.Date() == e.Date() && m.Late() == e.Late() && m.Reverses.IsZero() && e.Reverses.IsZero()
	switch detail {
	case GrantDay:
		used := e.Kind == ledger.KindRecognition || e.Kind == ledger.KindOverage
		return same && used && m.Day == e.Day && m.Customer == e.Customer && m.Grant == e.Grant
	case Day:
		return same && !receivable(m) && !receivable(e)
	}
	return false
}

func receivable(e *Entry) bool {
	for _, p := range e.Postings {
		if p.Account == ledger.TradeReceivable {
			return true
		}
	}
	return false
}

// line is what postings of one entry must share to be one.
type line struct {
	account        ledger.Account
	side           ledger.Side
	product, model string
	source         string
}

func (m *Entry) add(e *Entry, lines map[line]int) {
	for _, p := range e.Postings {
		l := line{p.Account, p.Side, p.Product, p.Model, p.Source.Currency}
		i, ok := lines[l]
		if !ok {
			i = len(m.Postings)
			lines[l] = i
			p.Units = 0
			m.Postings = append(m.Postings, p)
			continue
		}
		m.Postings[i].Money.Minor += p.Money.Minor
		m.Postings[i].Source.Minor += p.Source.Minor
	}
}
