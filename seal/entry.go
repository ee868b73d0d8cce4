package seal

import (
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
)

// Entry is a journal entry as it is stored: everything about it that is proved. Its number in the order of posting is not among that.
type Entry struct {
	ID       credit.EntryID
	Cause    string
	Entity   string
	Period   ledger.Period
	Day      ledger.Day // when it happened
	PostedAt time.Time  // to the microsecond
	Kind     ledger.Kind
	Customer credit.CustomerID // zero: about none
	Grant    credit.GrantID    // zero: about none
	VerFrom,
	VerTo int64 // 0: none
	Late     bool
	Reverses credit.EntryID // zero: reverses nothing
	Postings []Posting
}

// Posting is one leg of an [Entry], with the number that it is stored under.
type Posting struct {
	N int
	ledger.Posting
}

// EntryOf is an entry that is posted at an instant.
func EntryOf(e *ledger.Entry, postedAt time.Time) Entry {
	out := Entry{
		ID: e.ID, Cause: e.Cause, Entity: e.Entity, Period: e.Period, Day: e.Day, PostedAt: postedAt, Kind: e.Kind, Customer: e.Customer, Grant: e.Grant,
		VerFrom: e.VerFrom, VerTo: e.VerTo, Late: e.Late(), Reverses: e.Reverses, Postings: make([]Posting, len(e.Postings)),
	}
	for i, p := range e.Postings {
		out.Postings[i] = Posting{i, p}
	}
	return out
}

// entryText names the canonical text of an entry and its version. Another encoding gets another name, so that leaves of both can be told apart.
const entryText = "tallystick journal entry 1"

// Canonical is the text that the entry's leaf is the hash of. There is no second implementation of it.
func (e *Entry) Canonical() []byte {
	w := newWriter(entryText)
	w.text(idText(e.ID))
	w.text(e.Cause)
	w.text(e.Entity)
	w.text(string(e.Period))
	w.text(string(e.Day))
	w.instant(e.PostedAt)
	w.text(string(e.Kind))
	w.text(idText(e.Customer))
	w.text(idText(e.Grant))
	w.number(e.VerFrom)
	w.number(e.VerTo)
	w.truth(e.Late)
	w.text(idText(e.Reverses))
	w.number(int64(len(e.Postings)))
	for i := range e.Postings {
		p := &e.Postings[i]
		w.number(int64(p.N))
		w.number(int64(p.Account))
		w.text(string(p.Side))
		w.number(p.Money.Minor)
		w.text(p.Money.Currency)
		w.number(p.Source.Minor)
		w.text(p.Source.Currency)
		w.number(int64(p.Units))
		w.text(p.Product)
		w.text(p.Model)
	}
	return w.b
}

// Leaf is the hash of the entry in the tree.
func (e *Entry) Leaf() Hash { return LeafHash(e.Canonical()) }

// ReadEntry reads what [Entry.Canonical] wrote, and nothing else.
func ReadEntry(b []byte) (Entry, error) {
	r := newReader(entryText, b)
	var e Entry
	e.ID = readID[credit.EntryID](r)
	e.Cause, e.Entity, e.Period, e.Day = r.text(), r.text(), ledger.Period(r.text()), ledger.Day(r.text())
	e.PostedAt = r.instant()
	e.Kind = ledger.Kind(r.text())
	e.Customer, e.Grant = readID[credit.CustomerID](r), readID[credit.GrantID](r)
	e.VerFrom, e.VerTo = r.number(), r.number()
	e.Late = r.truth()
	e.Reverses = readID[credit.EntryID](r)
	for n := r.number(); n > 0 && !r.bad; n-- {
		var p Posting
		p.N, p.Account, p.Side = int(r.number()), ledger.Account(r.number()), ledger.Side(r.text())
		p.Money.Minor, p.Money.Currency = r.number(), r.text()
		p.Source.Minor, p.Source.Currency = r.number(), r.text()
		p.Units, p.Product, p.Model = credit.Amount(r.number()), r.text(), r.text()
		e.Postings = append(e.Postings, p)
	}
	if r.bad || string(e.Canonical()) != string(b) {
		return Entry{}, errText
	}
	return e, nil
}

type anyID interface {
	~[16]byte
	IsZero() bool
	String() string
}

func idText[I anyID](id I) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func readID[I any, P interface {
	*I
	UnmarshalText([]byte) error
}](r *reader) (id I) {
	if P(&id).UnmarshalText([]byte(r.text())) != nil {
		r.bad = true
	}
	return id
}

// Totals sums entries by account: what a trial balance of them says, in minor units.
type Totals map[ledger.Account]AccountTotal

// AccountTotal is what was booked on an account.
type AccountTotal struct{ Debit, Credit int64 }

// Add adds an entry.
func (t Totals) Add(e *Entry) {
	for _, p := range e.Postings {
		sum := t[p.Account]
		if p.Side == ledger.Dr {
			sum.Debit += p.Money.Minor
		} else {
			sum.Credit += p.Money.Minor
		}
		t[p.Account] = sum
	}
}

// Hash is the SHA-256 of the totals' canonical text: in order of account, without accounts that nothing was booked on.
func (t Totals) Hash(currency string) Hash {
	w := newWriter("tallystick trial balance 1")
	w.text(currency)
	w.number(int64(len(t)))
	for _, a := range sortedAccounts(t) {
		w.number(int64(a))
		w.number(t[a].Debit)
		w.number(t[a].Credit)
	}
	return sum(w.b)
}
