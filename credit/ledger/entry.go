// Package ledger holds the rules of the money book as functions of values: the chart of accounts, what a journal entry is, and one
// function for each kind of entry. No I/O, no clock, no context. README.md in this folder is its one-page description.
package ledger

import (
	"fmt"

	"github.com/tallystick/tallystick/credit"
)

// Kind names what an entry records.
type Kind string

const (
	KindPurchase    Kind = "purchase"
	KindConcession  Kind = "concession"
	KindRecognition Kind = "recognition"
	KindOverage     Kind = "overage"
	KindExpiry      Kind = "expiry"
	KindRefund      Kind = "refund"
	KindVoid        Kind = "void"
	KindSettlement  Kind = "settlement"
	KindReversal    Kind = "reversal"
	KindDecrement   Kind = "decrement"
	KindTransfer    Kind = "transfer"
	KindDispute     Kind = "dispute"
	KindCompute     Kind = "compute"
	KindManual      Kind = "manual"
	KindPayment     Kind = "payment"
	KindBreakage    Kind = "breakage"
	KindRemeasure   Kind = "remeasurement"
)

// Fact is what happened, to whom, and where it is booked: all of an entry but its kind and postings.
type Fact struct {
	Cause    string // names the fact; the same cause always gives the same entry id, so a fact is posted once
	Entity   string
	Currency string // the entity's; every posting is in it
	Day      Day    // when it happened
	Period   Period // where it is booked
	Customer credit.CustomerID
	Grant    credit.GrantID // zero: about no grant
	VerFrom,
	VerTo int64 // the customer's operations that it covers, both inclusive; 0: none
	Policy int // version of the entity's accounting policy that was in force in Period; 0: the defaults
}

// Late tells whether the fact is booked in another period than its own, because that no longer took entries.
func (f Fact) Late() bool { return f.Period != f.Day.Period() }

// Entry is a journal entry: a balanced set of postings with one cause.
type Entry struct {
	ID credit.EntryID
	Fact
	Kind     Kind
	Reverses credit.EntryID // zero: reverses nothing
	Postings []Posting
}

// Posting is one leg of an entry.
type Posting struct {
	Account Account
	Side    Side
	Money   credit.Money  // > 0, in the entity's currency
	Source  credit.Money  // the same in the currency of the fact; zero: that is the entity's
	Units   credit.Amount // credits behind it; 0: none
	Product string        // revenue by dimension; "": none named
	Model   string
}

// Sum is an amount in the entity's currency, with the same in the currency of the fact when that is another.
type Sum struct {
	Minor  int64
	Source credit.Money // zero: the entity's currency
}

// Plus adds two sums of the same fact.
func (s Sum) Plus(o Sum) Sum {
	s.Minor += o.Minor
	s.Source.Minor += o.Source.Minor
	if s.Source.Currency == "" {
		s.Source.Currency = o.Source.Currency
	}
	return s
}

// EntryID derives an entry's identifier from its cause.
func EntryID(cause string) credit.EntryID { return credit.DerivedID[credit.EntryID](cause) }

func newEntry(f Fact, k Kind) Entry { return Entry{ID: EntryID(f.Cause), Fact: f, Kind: k} }

// Empty tells whether nothing is posted: the fact moved less than a minor unit, or no money at all. Such an entry is not kept.
func (e *Entry) Empty() bool { return len(e.Postings) == 0 }

// Balanced tells whether debits equal credits in every currency.
func (e *Entry) Balanced() bool {
	left := make(map[string]int64, 1)
	for _, p := range e.Postings {
		if p.Side == Dr {
			left[p.Money.Currency] += p.Money.Minor
		} else {
			left[p.Money.Currency] -= p.Money.Minor
		}
	}
	for _, n := range left {
		if n != 0 {
			return false
		}
	}
	return true
}

// Check returns a fault unless the entry can be booked as it stands: it names its cause, entity, day and period, its postings are
// positive amounts on accounts of the chart, in the entity's currency, and it balances. What it finds is a defect of the program.
func (e *Entry) Check() error {
	switch {
	case e.Cause == "" || e.ID != EntryID(e.Cause):
		return fmt.Errorf("entry %q: the id does not come from the cause", e.Cause)
	case e.Entity == "" || e.Currency == "" || len(e.Day) != len(dayLayout) || len(e.Period) != len(periodLayout) || e.Kind == "":
		return fmt.Errorf("entry %q: entity, currency, day, period or kind is missing", e.Cause)
	case e.Period < e.Day.Period():
		return fmt.Errorf("entry %q: booked in %s, before its day %s", e.Cause, e.Period, e.Day)
	case len(e.Postings) < 2:
		return fmt.Errorf("entry %q: %d postings", e.Cause, len(e.Postings))
	}
	for _, p := range e.Postings {
		if !p.Account.Known() || (p.Side != Dr && p.Side != Cr) || p.Money.Minor <= 0 || p.Money.Currency != e.Currency || p.Units < 0 {
			return fmt.Errorf("entry %q: bad posting %+v", e.Cause, p)
		}
	}
	if !e.Balanced() {
		return fmt.Errorf("entry %q does not balance: %+v", e.Cause, e.Postings)
	}
	return nil
}

// post adds a posting, or nothing for an amount of zero.
func (e *Entry) post(side Side, a Account, s Sum, units credit.Amount) {
	if s.Minor == 0 {
		return
	}
	if s.Source.Minor == 0 || s.Source.Currency == e.Currency {
		s.Source = credit.Money{}
	}
	e.Postings = append(e.Postings, Posting{
		Account: a, Side: side, Money: credit.Money{Minor: s.Minor, Currency: e.Currency}, Source: s.Source, Units: units,
	})
}
