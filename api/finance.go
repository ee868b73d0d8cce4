package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
)

// moneyText writes minor units of a currency in major units.
func moneyText(minor int64, currency string) string {
	return credit.Money{Minor: minor, Currency: currency}.String()
}

// span reads a range of periods: from and to, both inclusive and both optional.
func (q query) span() (db.Span, error) {
	from, err := queryID(q, "from", ledger.ParsePeriod)
	if err != nil {
		return db.Span{}, err
	}
	to, err := queryID(q, "to", ledger.ParsePeriod)
	if err == nil && from != "" && to != "" && to < from {
		err = credit.Invalid("to", "This period is before the first one.")
	}
	return db.Span{From: from, To: to}, err
}

// entity reads the legal entity that a report is about.
func (q query) entity() (string, error) {
	e := q.text("legal_entity")
	if e == "" {
		return "", credit.Invalid("legal_entity", "This query parameter is required.")
	}
	return e, nil
}

type trialBalance struct {
	LegalEntity string          `json:"legal_entity"`
	Currency    string          `json:"currency"`
	From        *string         `json:"from"` // null: from the first entry
	To          *string         `json:"to"`   // null: to the newest
	Accounts    []accountTotals `json:"accounts"`
	Debit       string          `json:"debit"`
	Credit      string          `json:"credit"`
	Balanced    bool            `json:"balanced"`
}

type accountTotals struct {
	Account int    `json:"account"`
	Name    string `json:"name"`
	Type    string `json:"type"`
	Debit   string `json:"debit"`
	Credit  string `json:"credit"`
	Balance string `json:"balance"` // debit less credit
}

// trialBalance is GET /v1/finance/trial_balance.
func (s *Server) trialBalance(ctx context.Context, c *call) error {
	q, err := c.query("legal_entity", "from", "to")
	if err != nil {
		return err
	}
	entity, err := q.entity()
	if err != nil {
		return err
	}
	span, err := q.span()
	if err != nil {
		return err
	}
	t, err := s.store.TrialBalance(ctx, entity, span)
	if err != nil {
		return err
	}
	doc := trialBalance{LegalEntity: t.Entity, Currency: t.Currency, From: orNull(string(span.From)), To: orNull(string(span.To)), Accounts: []accountTotals{},
		Debit: moneyText(t.Debit, t.Currency), Credit: moneyText(t.Credit, t.Currency), Balanced: t.Debit == t.Credit}
	for _, a := range t.Accounts {
		doc.Accounts = append(doc.Accounts, accountTotals{int(a.Account), a.Name, string(a.Type), moneyText(a.Debit, t.Currency), moneyText(a.Credit, t.Currency),
			moneyText(a.Debit-a.Credit, t.Currency)})
	}
	return c.document(doc)
}

type rollForward struct {
	CustomerID  *credit.CustomerID `json:"customer_id,omitempty"`
	GrantID     *credit.GrantID    `json:"grant_id,omitempty"`
	Currency    string             `json:"currency"`
	Opening     string             `json:"opening"`
	Purchases   string             `json:"purchases"`
	Concessions string             `json:"concessions"`
	Recognised  string             `json:"recognised"`
	Breakage    string             `json:"breakage"`
	Refunds     string             `json:"refunds"`
	Voids       string             `json:"voids"`
	Disputes    string             `json:"disputes"`
	Transfers   string             `json:"transfers"`
	Corrections string             `json:"corrections"`
	Adjustments string             `json:"adjustments"`
	Closing     string             `json:"closing"`
	Late        string             `json:"late"`
	Foots       bool               `json:"foots"` // opening and what came in, less what went out, is closing
}

func describeRollForward(r db.RollForward) rollForward {
	text := func(minor int64) string { return moneyText(minor, r.Currency) }
	d := rollForward{Currency: r.Currency, Opening: text(r.Opening), Purchases: text(r.Purchases), Concessions: text(r.Concessions), Recognised: text(r.Recognised),
		Breakage: text(r.Breakage), Refunds: text(r.Refunds), Voids: text(r.Voids),
		Disputes: text(r.Disputes), Transfers: text(r.Transfers), Corrections: text(r.Corrections), Adjustments: text(r.Adjustments), Closing: text(r.Closing),
		Late: text(r.Late), Foots: r.Foots()}
	if !r.Customer.IsZero() {
		d.CustomerID = &r.Customer
	}
	if !r.Grant.IsZero() {
		d.GrantID = &r.Grant
	}
	return d
}

// rollForward is GET /v1/finance/roll_forward: deferred revenue from one balance to another, in total or, with by, customer by customer or
// grant by grant.
func (s *Server) rollForward(ctx context.Context, c *call) error {
	q, err := c.query("legal_entity", "from", "to", "customer", "by", "limit", "cursor")
	if err != nil {
		return err
	}
	entity, err := q.entity()
	if err != nil {
		return err
	}
	span, err := q.span()
	if err != nil {
		return err
	}
	customer, err := c.queryCustomer(ctx, q)
	if err != nil {
		return err
	}
	by, err := q.oneOf("by", "customer", "grant")
	if err != nil {
		return err
	}
	limit, err := q.limit()
	if err != nil {
		return err
	}
	if _, err := s.store.Entity(ctx, entity); err != nil {
		return err
	}
	switch by {
	case "customer":
		after, err := idCursor[credit.CustomerID](q)
		if err != nil {
			return err
		}
		rows, err := s.store.RollForwardByCustomer(ctx, entity, span, after, limit+1)
		if err != nil {
			return err
		}
		return answerPage(c, rows, limit, describeRollForward, func(r db.RollForward) cursor { return afterID(r.Customer) })
	case "grant":
		after, err := idCursor[credit.GrantID](q)
		if err != nil {
			return err
		}
		rows, err := s.store.RollForwardByGrant(ctx, entity, span, customer, after, limit+1)
		if err != nil {
			return err
		}
		return answerPage(c, rows, limit, describeRollForward, func(r db.RollForward) cursor { return afterID(r.Grant) })
	}
	r, err := s.store.RollForward(ctx, entity, span, customer)
	if err != nil {
		return err
	}
	return answerPage(c, []db.RollForward{r}, 1, describeRollForward, nil)
}

type journalEntry struct {
	ID          credit.EntryID     `json:"id"`
	Cause       string             `json:"cause"`
	Kind        string             `json:"kind"`
	LegalEntity string             `json:"legal_entity"`
	Period      string             `json:"period"`
	ServiceOn   string             `json:"service_on"`
	PostedAt    string             `json:"posted_at"`
	Late        bool               `json:"late"`
	CustomerID  *credit.CustomerID `json:"customer_id"`
	GrantID     *credit.GrantID    `json:"grant_id"`
	VerFrom     *int64             `json:"ver_from"` // the customer's operations that it covers
	VerTo       *int64             `json:"ver_to"`
	Reverses    *credit.EntryID    `json:"reverses"`
	Policy      *int               `json:"policy_version"` // of the accounting policy in force for the period; null: the defaults
	Postings    []postingDocument  `json:"postings"`
}

type postingDocument struct {
	Account        int     `json:"account"`
	Side           string  `json:"side"`
	Amount         string  `json:"amount"`
	Currency       string  `json:"currency"`
	SourceAmount   *string `json:"source_amount"` // in the currency of the fact, when that is another
	SourceCurrency *string `json:"source_currency"`
	UnitSteps      *string `json:"unit_steps"` // credits behind it, in whole steps of their unit's scale
	Product        *string `json:"product"`
	Model          *string `json:"model"`
}

func describeEntry(e db.EntryRow) journalEntry {
	d := journalEntry{ID: e.ID, Cause: e.Cause, Kind: string(e.Kind), LegalEntity: e.Entity, Period: string(e.Period), ServiceOn: string(e.Day),
		PostedAt: instantText(e.PostedAt), Late: e.Late(), Postings: []postingDocument{}}
	if !e.Customer.IsZero() {
		d.CustomerID = &e.Customer
	}
	if !e.Grant.IsZero() {
		d.GrantID = &e.Grant
	}
	if e.VerTo != 0 {
		d.VerFrom, d.VerTo = &e.VerFrom, &e.VerTo
	}
	if !e.Reverses.IsZero() {
		d.Reverses = &e.Reverses
	}
	if e.Policy != 0 {
		d.Policy = &e.Policy
	}
	for _, p := range e.Postings {
		out := postingDocument{Account: int(p.Account), Side: string(p.Side), Amount: p.Money.String(), Currency: p.Money.Currency, Product: orNull(p.Product), Model: orNull(p.Model)}
		if p.Source.Currency != "" {
			amount := p.Source.String()
			out.SourceAmount, out.SourceCurrency = &amount, &p.Source.Currency
		}
		if p.Units != 0 {
			steps := strconv.FormatInt(int64(p.Units), 10)
			out.UnitSteps = &steps
		}
		d.Postings = append(d.Postings, out)
	}
	return d
}

// journalEntries is GET /v1/finance/journal_entries, in order of posting.
func (s *Server) journalEntries(ctx context.Context, c *call) error {
	q, limit, after, err := listing(c, idCursor[credit.EntryID], "legal_entity", "period", "account", "customer", "grant")
	if err != nil {
		return err
	}
	var f db.JournalFilter
	if f.Entity, err = q.entity(); err != nil {
		return err
	}
	if f.Period, err = queryID(q, "period", ledger.ParsePeriod); err != nil {
		return err
	}
	if f.Account, err = queryID(q, "account", parseAccount); err != nil {
		return err
	}
	if f.Customer, err = c.queryCustomer(ctx, q); err != nil {
		return err
	}
	if f.Grant, err = queryID(q, "grant", credit.ParseID[credit.GrantID]); err != nil {
		return err
	}
	rows, err := s.store.Journal(ctx, f, after, limit+1)
	if credit.CodeOf(err) == credit.NotFound { // an entry that is not there ends no page
		return errCursor
	}
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeEntry, func(e db.EntryRow) cursor { return afterID(e.ID) })
}

func parseAccount(s string) (ledger.Account, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, credit.Errorf(credit.InvalidRequest, "%.20q is not a ledger account.", s)
	}
	return ledger.Account(n), nil
}

type periodDocument struct {
	LegalEntity string `json:"legal_entity"`
	Period      string `json:"period"`
	Status      string `json:"status"`
	Version     int    `json:"version"`
	ChangedAt   string `json:"changed_at"`
}

// periods is GET /v1/finance/periods, newest first.
func (s *Server) periods(ctx context.Context, c *call) error {
	q, limit, code, err := listing(c, query.codeCursor, "legal_entity")
	if err != nil {
		return err
	}
	entity, err := q.entity()
	if err != nil {
		return err
	}
	before := ledger.Period(code)
	if code != "" {
		if before, err = ledger.ParsePeriod(code); err != nil {
			return errCursor
		}
	}
	if _, err := s.store.Entity(ctx, entity); err != nil {
		return err
	}
	rows, err := s.store.Periods(ctx, entity, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, func(p db.PeriodRow) periodDocument {
		return periodDocument{entity, string(p.Period), string(p.Status), p.Version, instantText(p.ChangedAt)}
	}, func(p db.PeriodRow) cursor { return cursor(p.Period) })
}

type recognition struct {
	Customers  int  `json:"customers"` // that entries could be posted for
	Operations int  `json:"operations"`
	Entries    int  `json:"entries"`
	Done       bool `json:"done"` // nothing is left; otherwise the time ran out and the call should be repeated
}

// Bounds of one call of recognise.
const (
	recogniseTime = 45 * time.Second
	recognisePage = 500
)

// recognise is POST /v1/finance/recognise: posts the journal entries of what happened, of one customer or of all. It posts nothing
// twice, so it needs no key and may be repeated.
func (s *Server) recognise(ctx context.Context, c *call) error {
	var name string
	if err := c.input(optional("customer", text(&name, 255))); err != nil {
		return err
	}
	out := recognition{Done: true}
	subject := "all"
	started := time.Now()
	post := func(id credit.CustomerID) error {
		r, err := s.store.RecogniseCustomer(ctx, id)
		out.Customers++
		out.Operations += r.Operations
		out.Entries += r.Entries
		return err
	}
	if name != "" {
		id, err := s.customerID(ctx, name)
		if err != nil {
			return in("/customer", err)
		}
		if err := post(id); err != nil {
			return err
		}
		subject = id.String()
	} else if err := s.recogniseAll(ctx, post, func() bool { return time.Since(started) < recogniseTime }); errors.Is(err, errOutOfTime) {
		out.Done = false
	} else if err != nil {
		return err
	}
	_, _, err := s.store.Change(ctx, db.Audited{Actor: c.caller.no, RequestID: c.id, Action: "recognise"}, func(context.Context, *db.Catalog) (db.Outcome, error) {
		return db.Outcome{Status: http.StatusOK, Subject: subject, Detail: out}, nil
	})
	if err != nil {
		return err
	}
	return c.document(out)
}

var errOutOfTime = errors.New("out of time")

// recogniseAll posts for every customer that something is to be posted for, while there is time.
func (s *Server) recogniseAll(ctx context.Context, post func(credit.CustomerID) error, time func() bool) error {
	var after credit.CustomerID
	for {
		ids, err := s.store.CustomersToRecognise(ctx, after, recognisePage)
		if err != nil {
			return fmt.Errorf("find customers: %w", err)
		}
		for _, id := range ids {
			if !time() {
				return errOutOfTime
			}
			if err := post(id); err != nil {
				return err
			}
		}
		if len(ids) < recognisePage {
			return nil
		}
		after = ids[len(ids)-1]
	}
}
