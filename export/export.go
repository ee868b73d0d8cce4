// Package export writes a period's journal for other accounting systems: as files of their import formats, and as plain-text ledgers that
// independent programs check. Pure: entries come in as values, files go out through io.Writer. README.md in this folder is its one-page description.
package export

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
)

// System is what an export is written for.
type System string

const (
	CSV               System = "csv"                // the journal as it is, every column
	QuickBooksOnline  System = "quickbooks_online"  // CSV
	QuickBooksDesktop System = "quickbooks_desktop" // IIF
	NetSuite          System = "netsuite"           // CSV
	Xero              System = "xero"               // CSV of manual journals, at most 300 lines a file
	HLedger           System = "hledger"
	Ledger            System = "ledger"
	Beancount         System = "beancount"
)

// Systems lists every system.
var Systems = []System{CSV, QuickBooksOnline, QuickBooksDesktop, NetSuite, Xero, HLedger, Ledger, Beancount}

// Mapped tells whether a system has accounts of the customer's own, so that an export needs a [Mapping].
func (s System) Mapped() bool {
	return s == QuickBooksOnline || s == QuickBooksDesktop || s == NetSuite || s == Xero
}

// Plain tells whether a system is a plain-text ledger: it has the unit book too.
func (s System) Plain() bool { return s == HLedger || s == Ledger || s == Beancount }

// MediaType returns the Content-Type of the system's files.
func (s System) MediaType() string {
	if s == CSV || s == QuickBooksOnline || s == NetSuite || s == Xero {
		return "text/csv"
	}
	return "text/plain"
}

// File returns the name of the n-th file of an export, from 1 on. Only Xero has more than one.
func (s System) File(n int) string {
	switch s {
	case CSV:
		return "journal.csv"
	case QuickBooksDesktop:
		return "journal.iif"
	case QuickBooksOnline, NetSuite:
		return "journal." + string(s) + ".csv"
	case Xero:
		return fmt.Sprintf("journal.xero.%d.csv", n)
	}
	return "journal." + string(s)
}

// Detail says how many entries of the journal become one of the export.
type Detail string

const (
	EveryEntry Detail = "entry"     // one for one
	GrantDay   Detail = "grant_day" // uses of one grant on one day of service are one
	Day        Detail = "day"       // so is everything of one kind and day; entries on 1110 stay apart, for a receivable has a name
)

// Details returns the details that an export for the system can have, its usual one first: journal.csv is the journal itself, and the plain-text
// ledgers keep an account for every grant.
func (s System) Details() []Detail {
	switch {
	case s == CSV:
		return []Detail{EveryEntry}
	case s.Plain():
		return []Detail{GrantDay, EveryEntry}
	}
	return []Detail{GrantDay, Day, EveryEntry}
}

// Book says what an export is of.
type Book struct {
	Entity, Currency string
	Period           ledger.Period
	Detail           Detail
	Mapping          *Mapping // nil: the system needs none
}

// Unit is a unit of credits; Scale is how many decimal places one credit has.
type Unit struct {
	Code  string
	Scale int
}

// Entry is an entry of the journal and what the formats say about it besides.
type Entry struct {
	ledger.Entry
	PostedAt time.Time
	Unit     Unit   // of its postings' units; zero: none has any
	Contact  string // the customer's name in other systems: its external id, or else its id; "": about no customer
	No       int64  // in the export, from 1 on without gaps; [Write] sets it
}

// Date returns the day of the entry in the period's books: the day of service, or for a late entry the first day of the period that took it.
func (e *Entry) Date() ledger.Day {
	if e.Late() {
		return ledger.Day(e.Period + "-01")
	}
	return e.Day
}

// Move is what moved of one grant's credits on one day from one account of the unit book to another, > 0.
type Move struct {
	Day      ledger.Day
	Customer credit.CustomerID
	Grant    credit.GrantID
	Unit     Unit
	From, To string // accounts of the unit book
	Amount   credit.Amount
}

// Journal is what is exported: the entries of one entity and period in the order of [Compare], and for plain-text ledgers the credits that moved, in
// order of their days. Each sequence is read once; an error in it ends the export.
type Journal struct {
	Entries iter.Seq2[Entry, error]
	Moves   iter.Seq2[Move, error]
}

// File is a file that was written. Rows are lines of the journal, without headings.
type File struct {
	Name   string `json:"name"`
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Result is what an export came to. Debit and Credit are minor units of the entity's currency, the same number.
type Result struct {
	Files         []File
	Merged        int64 // entries of the journal in it
	Entries       int64 // entries of the export
	Debit, Credit int64
}

// writer writes entries in one format.
type writer interface {
	entry(e *Entry) error
	end() error
}

// Write exports a journal for a system; create is called with the name of each file before it is written. What the format cannot take is an Error
// coded not_exportable, an account without a mapping one coded account_not_mapped; any other error is a fault, of the journal or of a file. After
// an error the files are of no use.
func Write(s System, b Book, j Journal, create func(name string) (io.Writer, error)) (Result, error) {
	if !slices.Contains(Systems, s) {
		return Result{}, credit.Errorf(credit.InvalidRequest, "There is no export for %.40q; there are some for %q.", s, Systems)
	}
	if !slices.Contains(s.Details(), b.Detail) {
		return Result{}, credit.Errorf(credit.InvalidRequest, "An export for %s has no detail %q.", s, b.Detail)
	}
	places, err := credit.CurrencyPlaces(b.Currency)
	if err != nil {
		return Result{}, err
	}
	if places > 2 && s.Mapped() {
		return Result{}, credit.Errorf(credit.NotExportable, "%s takes amounts with two decimal places, and %s has %d.", s, b.Currency, places)
	}
	if s.Mapped() && b.Mapping == nil {
		return Result{}, credit.Errorf(credit.AccountNotMapped, "The accounts of %s are not mapped to those of %s.", b.Entity, s)
	}
	x := &run{Book: b, system: s, places: places, create: create, stop: func() {}}
	defer func() { x.stop() }()
	if err := x.write(j); err != nil {
		return Result{}, err
	}
	return x.result, nil
}

// run is one export.
type run struct {
	Book
	system System
	places int
	create func(string) (io.Writer, error)
	result Result
	open   []*counted // the files, in the order of Result.Files
	stop   func()     // ends the reading of moves
}

// counted counts and hashes what is written to a file.
type counted struct {
	to    io.Writer
	hash  hash.Hash
	bytes int64
	rows  int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.hash.Write(p[:n])
	c.bytes += int64(n)
	return n, err
}

// file begins the next file.
func (x *run) file() (*counted, error) {
	name := x.system.File(len(x.open) + 1)
	to, err := x.create(name)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	c := &counted{to: to, hash: sha256.New()}
	x.open = append(x.open, c)
	x.result.Files = append(x.result.Files, File{Name: name})
	return c, nil
}

func (x *run) write(j Journal) error {
	w, err := x.writer(j)
	if err != nil {
		return err
	}
	var last *Entry
	for e, err := range merged(x.Detail, j.Entries, &x.result.Merged) {
		if err != nil {
			return err
		}
		if err := x.check(last, &e); err != nil {
			return err
		}
		x.result.Entries++
		e.No = x.result.Entries
		for _, p := range e.Postings {
			if p.Side == ledger.Dr {
				x.result.Debit += p.Money.Minor
			} else {
				x.result.Credit += p.Money.Minor
			}
		}
		if err := w.entry(&e); err != nil {
			return err
		}
		last = &e
	}
	if err := w.end(); err != nil {
		return err
	}
	for i, c := range x.open {
		f := &x.result.Files[i]
		f.Rows, f.Bytes, f.SHA256 = c.rows, c.bytes, hex.EncodeToString(c.hash.Sum(nil))
	}
	return nil
}

func (x *run) writer(j Journal) (writer, error) {
	switch x.system {
	case CSV:
		return newCanonical(x)
	case QuickBooksOnline:
		return newQuickBooksOnline(x)
	case QuickBooksDesktop:
		return newIIF(x)
	case NetSuite:
		return newNetSuite(x)
	case Xero:
		return newXero(x)
	}
	return newPlain(x, j.Moves)
}

// check refuses entries that no file should have: what it finds is a fault of the journal or of who reads it.
func (x *run) check(last, e *Entry) error {
	switch {
	case e.Entity != x.Entity || e.Period != x.Period || e.Currency != x.Currency:
		return fmt.Errorf("entry %s is of %s, %s, %s and the export of %s, %s, %s", e.ID, e.Entity, e.Period, e.Currency, x.Entity, x.Period, x.Currency)
	case e.Date().Period() != x.Period:
		return fmt.Errorf("entry %s of %s is not in %s", e.ID, e.Date(), x.Period)
	case last != nil && Compare(last, e) > 0:
		return fmt.Errorf("entry %s comes after entry %s, and should come before it", e.ID, last.ID)
	case len(e.Postings) < 2 || !e.Balanced():
		return fmt.Errorf("entry %s does not balance", e.ID)
	}
	for _, p := range e.Postings {
		if p.Money.Minor <= 0 || !p.Account.Known() {
			return fmt.Errorf("entry %s: bad posting %+v", e.ID, p)
		}
	}
	return nil
}

// refuse says that the format cannot take an entry.
func (x *run) refuse(e *Entry, format string, args ...any) error {
	return credit.Errorf(credit.NotExportable, "Entry %d (%s, %s): %s", e.No, e.Kind, e.Date(), fmt.Sprintf(format, args...)).With("entry", e.ID.String())
}

// money writes minor units of the book's currency.
func (x *run) money(minor int64) string {
	return credit.Money{Minor: minor, Currency: x.Currency}.String()
}

// memo says in a few words what an entry is.
func memo(e *Entry) string {
	text := string(e.Kind)
	if !e.Grant.IsZero() {
		text += " " + e.Grant.String()
	}
	if e.Late() {
		text += " of " + string(e.Day)
	}
	return text
}

// signed is a posting's money: debit +, credit -.
func signed(p *ledger.Posting) int64 {
	if p.Side == ledger.Cr {
		return -p.Money.Minor
	}
	return p.Money.Minor
}

// day returns a day as a time, for its other spellings.
func day(d ledger.Day) time.Time {
	t, err := time.Parse(time.DateOnly, string(d))
	if err != nil {
		panic("export: day " + string(d) + " is not of the form 2026-01-31")
	}
	return t
}
