package export

import (
	"encoding/csv"
	"strconv"
	"strings"
	"time"

	"github.com/tallystick/tallystick/credit/ledger"
)

// table writes the rows of one CSV file.
type table struct {
	*run
	to  *counted
	csv *csv.Writer
}

// begin begins a CSV file with its heading. Lines end as RFC 4180 has it.
func (x *run) begin(heading ...string) (*table, error) {
	f, err := x.file()
	if err != nil {
		return nil, err
	}
	t := &table{run: x, to: f, csv: csv.NewWriter(f)}
	t.csv.UseCRLF = true
	return t, t.csv.Write(heading)
}

func (t *table) row(cells ...string) error {
	t.to.rows++
	return t.csv.Write(cells)
}

func (t *table) end() error {
	t.csv.Flush()
	return t.csv.Error()
}

// sides writes a posting's money as a debit or a credit, the other one empty.
func (x *run) sides(p *ledger.Posting) (debit, credit string) {
	if p.Side == ledger.Dr {
		return x.money(p.Money.Minor), ""
	}
	return "", x.money(p.Money.Minor)
}

// canonicalColumns are those of journal.csv.
var canonicalColumns = []string{"entry_no", "line_no", "entity", "period", "effective_date", "service_date", "posted_at", "account_code", "account_name",
	"debit", "credit", "currency", "functional_debit", "functional_credit", "units", "kind", "rf", "customer_id", "grant_id", "product", "model",
	"source_id", "idempotency_key", "reverses_entry_no", "late"}

// canonical is journal.csv: every column of every posting.
type canonical struct{ *table }

func newCanonical(x *run) (writer, error) {
	t, err := x.begin(canonicalColumns...)
	return canonical{t}, err
}

func (c canonical) entry(e *Entry) error {
	no, late, reverses := strconv.FormatInt(e.No, 10), strconv.FormatBool(e.Late()), idText(e.Reverses)
	posted := e.PostedAt.UTC().Format(time.RFC3339Nano)
	for i, p := range e.Postings {
		money := p.Money
		if p.Source.Currency != "" {
			money = p.Source
		}
		source := [2]string{money.String(), ""}
		if p.Side == ledger.Cr {
			source[0], source[1] = source[1], source[0]
		}
		debit, cr := c.sides(&p)
		units := ""
		if p.Units != 0 {
			units = p.Units.Format(e.Unit.Scale)
		}
		err := c.row(no, strconv.Itoa(i+1), e.Entity, string(e.Period), string(e.Date()), string(e.Day), posted, p.Account.String(), accountName(p.Account),
			source[0], source[1], money.Currency, debit, cr, units, string(e.Kind), rollClass(e.Kind, p.Account), idText(e.Customer), idText(e.Grant),
			p.Product, p.Model, e.Cause, e.ID.String(), reverses, late)
		if err != nil {
			return err
		}
	}
	return nil
}

func idText[I interface {
	IsZero() bool
	String() string
}](id I) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func accountName(a ledger.Account) string {
	for _, l := range ledger.Chart {
		if l.Account == a {
			return l.Name
		}
	}
	return ""
}

// rollClass is the column of the deferred revenue roll-forward that a posting belongs to; "" on any account but 2010.
func rollClass(k ledger.Kind, a ledger.Account) string {
	if a != ledger.PrepaidCredits {
		return ""
	}
	switch k {
	case ledger.KindPurchase:
		return "purchases"
	case ledger.KindConcession:
		return "concessions"
	case ledger.KindRecognition, ledger.KindDecrement:
		return "recognised"
	case ledger.KindExpiry:
		return "breakage"
	case ledger.KindRefund:
		return "refunds"
	case ledger.KindVoid:
		return "voids"
	case ledger.KindDispute:
		return "disputes"
	case ledger.KindTransfer:
		return "transfers"
	case ledger.KindReversal:
		return "corrections"
	}
	return "adjustments"
}

// quickBooksOnline has the columns of Intuit's help page; an account's number must be off there. A receivable needs its customer's name.
type quickBooksOnline struct{ *table }

func newQuickBooksOnline(x *run) (writer, error) {
	t, err := x.begin("Journal No.", "Journal Date", "Account Name", "Description", "Debits", "Credits", "Name")
	return quickBooksOnline{t}, err
}

// usDate is how the United States write a day.
const usDate = "01/02/2006"

// number names a journal within the company: the period and the number in it, such as 2026-01-000017.
func (x *run) number(e *Entry) string {
	n := strconv.FormatInt(e.No, 10)
	return string(x.Period) + "-" + strings.Repeat("0", max(0, 6-len(n))) + n
}

func (q quickBooksOnline) entry(e *Entry) error {
	for _, p := range e.Postings {
		a, err := q.account(p.Account)
		if err != nil {
			return err
		}
		name := ""
		if p.Account == ledger.TradeReceivable {
			name = e.Contact
		}
		debit, credit := q.sides(&p)
		if err := q.row(q.number(e), day(e.Date()).Format(usDate), a.Name, lineMemo(e, &p), debit, credit, name); err != nil {
			return err
		}
	}
	return nil
}

// lineMemo says what a line of an entry is: the entry, and the product and model of the revenue.
func lineMemo(e *Entry, p *ledger.Posting) string {
	text := memo(e)
	if p.Product != "" {
		text += ", product " + p.Product
	}
	if p.Model != "" {
		text += ", model " + p.Model
	}
	return text
}

// netSuite has the columns of the help page "Journal Entry CSV Files"; values of the header are repeated on every line.
type netSuite struct{ *table }

// netSuiteMost is the greatest amount of a line: ten digits before the point, in minor units of a currency with two places.
const netSuiteMost = 999_999_999_999

func newNetSuite(x *run) (writer, error) {
	t, err := x.begin("External ID", "Date", "Posting Period", "Currency", "Subsidiary", "Department", "Journal Entry -Line: Account",
		"Journal Entry -Line: Debit", "Journal Entry -Line: Credit", "Journal Entry -Line: Memo")
	return netSuite{t}, err
}

func (n netSuite) entry(e *Entry) error {
	most := int64(netSuiteMost)
	for range 2 - n.places {
		most /= 10
	}
	on := day(e.Date())
	for _, p := range e.Postings {
		if p.Money.Minor > most {
			return n.refuse(e, "netsuite takes at most ten digits before the point, and there is %s on %s.", p.Money, p.Account)
		}
		a, err := n.account(p.Account)
		if err != nil {
			return err
		}
		name := a.Name
		if a.Code != "" {
			name = a.Code + " " + name
		}
		debit, credit := n.sides(&p)
		if err := n.row(n.Entity+"-"+n.number(e), on.Format(usDate), on.Format("Jan 2006"), n.Currency, n.Mapping.Subsidiary, "", name, debit, credit, lineMemo(e, &p)); err != nil {
			return err
		}
	}
	return nil
}

// xero has the columns of the manual journals' template. Rows with the same narration and date are one journal there, so the narration has the
// journal's number. A file takes 300 lines; no journal is divided.
type xero struct{ *table }

const xeroLines = 300

func newXero(x *run) (writer, error) {
	w := &xero{&table{run: x}}
	return w, w.next() // a file with the heading alone when nothing was booked
}

func (w *xero) next() (err error) {
	w.table, err = w.run.begin("Narration", "Date", "Description", "AccountCode", "TaxRate", "Amount", "TrackingName1", "TrackingOption1", "TrackingName2", "TrackingOption2")
	return err
}

func (w *xero) entry(e *Entry) error {
	if len(e.Postings) > xeroLines {
		return w.refuse(e, "xero takes %d lines in a file, and this journal has %d.", xeroLines, len(e.Postings))
	}
	if w.to.rows+int64(len(e.Postings)) > xeroLines {
		if err := w.end(); err != nil {
			return err
		}
		if err := w.next(); err != nil {
			return err
		}
	}
	for _, p := range e.Postings {
		a, err := w.account(p.Account)
		if err != nil {
			return err
		}
		err = w.row(w.number(e)+" "+memo(e), day(e.Date()).Format("02/01/2006"), lineMemo(e, &p), a.Code, a.TaxRate, w.money(signed(&p)), "", "", "", "")
		if err != nil {
			return err
		}
	}
	return nil
}
