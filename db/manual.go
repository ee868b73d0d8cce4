package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// How a manual journal stands.
const (
	JournalPrepared = "prepared"
	JournalPosted   = "posted"
	JournalRejected = "rejected"
)

// Posting is one leg of a manual journal. Amount is in major units of the entity's currency.
type Posting struct {
	Account ledger.Account `json:"account"`
	Side    ledger.Side    `json:"side"`
	Amount  string         `json:"amount"`
}

// ManualJournal is a journal entry that a person writes. It is booked when another person has approved it.
type ManualJournal struct {
	ID          credit.JournalID
	Entity      string
	Period      ledger.Period
	Day         ledger.Day // in the period
	Status      string
	Reason      string
	Attachments []string // references, such as the address of a document
	Postings    []Posting
	Preparer    int32
	PreparedAt  time.Time
	Approver    int32 // or who has rejected it; 0: nobody has decided
	DecidedAt   time.Time
	Note        string         // why it was rejected
	Entry       credit.EntryID // zero: it is not booked
}

func manualJournal(m sqlc.ManualJournal) (ManualJournal, error) {
	j := ManualJournal{ID: m.ID.Bytes, Entity: m.Entity, Period: ledger.Period(m.Period), Day: dayOf(m.Day), Status: m.Status, Reason: m.Reason,
		Attachments: m.Attachments, Preparer: m.Preparer, PreparedAt: fromTime(m.PreparedAt), Approver: m.Approver.Int32, DecidedAt: fromTime(m.DecidedAt),
		Note: m.Note.String, Entry: m.EntryID.Bytes}
	if err := json.Unmarshal(m.Postings, &j.Postings); err != nil {
		return j, fmt.Errorf("read postings of journal %s: %w", j.ID, err)
	}
	return j, nil
}

// controlAccounts are the sums of what customers have; entries of people would part them from it.
var controlAccounts = map[ledger.Account]bool{
	ledger.PrepaidCredits: true, ledger.CreditsInTransfer: true, ledger.BreakageAdjustment: true, ledger.UnbilledReceivable: true, ledger.RefundLiability: true,
	ledger.DisputedFunds: true,
}

// entry makes the journal entry of a manual journal, in the period it names.
func (j *ManualJournal) entry(currency string) (ledger.Entry, error) {
	e := ledger.Entry{Kind: ledger.KindManual, Fact: ledger.Fact{Cause: "journal/" + j.ID.String(), Entity: j.Entity, Currency: currency, Day: j.Day, Period: j.Period}}
	e.ID = ledger.EntryID(e.Cause)
	var debit, credits int64
	for i, p := range j.Postings {
		at := func(name string) string { return fmt.Sprintf("/postings/%d/%s", i, name) }
		m, err := credit.ParseMoney(p.Amount, currency)
		switch {
		case err != nil:
			return e, credit.Invalid(at("amount"), "%q is not an amount of %s.", p.Amount, currency)
		case m.Minor <= 0 || m.Minor > maxManual:
			return e, credit.Invalid(at("amount"), "An amount is more than zero, and no more than %s.", credit.Money{Minor: maxManual, Currency: currency})
		case !p.Account.Known():
			return e, credit.Invalid(at("account"), "There is no account %d.", p.Account)
		case controlAccounts[p.Account]:
			return e, credit.Invalid(at("account"), "Account %d is the sum of its sub-ledger; grant, refund or void credits instead.", p.Account)
		case p.Side == ledger.Dr:
			debit += m.Minor
		default:
			credits += m.Minor
		}
		e.Postings = append(e.Postings, ledger.Posting{Account: p.Account, Side: p.Side, Money: m})
	}
	if debit != credits {
		return e, credit.Invalid("/postings", "The debits are %s, the credits %s.", credit.Money{Minor: debit, Currency: currency}, credit.Money{Minor: credits, Currency: currency})
	}
	return e, e.Check()
}

// maxManual bounds an amount, in minor units, so that no sum of them overflows.
const maxManual = 1_000_000_000_000_000

// PrepareJournal keeps a journal entry until another person decides about it. Refusals: entity_not_found, invalid_request, period_closed, close_state.
func (c *Catalog) PrepareJournal(ctx context.Context, j ManualJournal) (ManualJournal, error) {
	b, err := readCloseBooks(ctx, c.q, j.Entity)
	if err != nil {
		return j, err
	}
	if j.Day.Period() != j.Period {
		return j, credit.Invalid("/service_on", "The day %s is not in the period %s.", j.Day, j.Period)
	}
	day, err := dateOf(j.Day)
	if err != nil {
		return j, err
	}
	if _, err := j.entry(b.currency); err != nil {
		return j, err
	}
	told, err := c.beforeReview(ctx, j.Entity, j.Period)
	if err != nil {
		return j, err
	}
	postings, err := json.Marshal(j.Postings)
	if err != nil {
		return j, fmt.Errorf("write postings: %w", err)
	}
	if j.Attachments == nil {
		j.Attachments = []string{}
	}
	row, err := c.q.AddManualJournal(ctx, sqlc.AddManualJournalParams{ID: uuidOf(j.ID), Entity: j.Entity, Period: string(j.Period), Day: day, Reason: j.Reason,
		Attachments: j.Attachments, Postings: postings, Preparer: j.Preparer})
	if err != nil {
		return j, wrap(err, "prepare manual journal")
	}
	if err := told(); err != nil {
		return j, err
	}
	return manualJournal(row)
}

// ApproveJournal books a journal that another person has prepared. Refusals: journal_not_found; journal_state, when it is decided; period_closed,
// close_state; second_person, forbidden.
func (c *Catalog) ApproveJournal(ctx context.Context, id credit.JournalID, actor int32) (ManualJournal, error) {
	j, told, err := c.journalToDecide(ctx, id)
	if err != nil {
		return j, err
	}
	b, err := readCloseBooks(ctx, c.q, j.Entity)
	if err != nil {
		return j, err
	}
	e, err := j.entry(b.currency)
	if err != nil {
		return j, err
	}
	periods, err := assignPeriods(ctx, c.q, j.Entity, []ledger.Period{j.Period})
	if err != nil {
		return j, err
	}
	if periods[j.Period] != j.Period {
		return j, errPeriodClosed(j.Period)
	}
	if err := post(ctx, c.q, []ledger.Entry{e}); err != nil {
		return j, err
	}
	row, err := c.q.DecideManualJournal(ctx, sqlc.DecideManualJournalParams{ID: uuidOf(id), Status: JournalPosted, Approver: pgtype.Int4{Int32: actor, Valid: true},
		EntryID: uuidOf(e.ID)})
	if err != nil {
		return j, wrap(err, "approve manual journal")
	}
	if err := told(); err != nil {
		return j, err
	}
	return manualJournal(row)
}

// RejectJournal ends a journal that another person has prepared without booking it. Refusals as those of ApproveJournal.
func (c *Catalog) RejectJournal(ctx context.Context, id credit.JournalID, reason string, actor int32) (ManualJournal, error) {
	j, told, err := c.journalToDecide(ctx, id)
	if err != nil {
		return j, err
	}
	row, err := c.q.DecideManualJournal(ctx, sqlc.DecideManualJournalParams{ID: uuidOf(id), Status: JournalRejected, Approver: pgtype.Int4{Int32: actor, Valid: true},
		Note: textOf(reason)})
	if err != nil {
		return j, wrap(err, "reject manual journal")
	}
	if err := told(); err != nil {
		return j, err
	}
	return manualJournal(row)
}

// journalToDecide holds a journal and its period.
func (c *Catalog) journalToDecide(ctx context.Context, id credit.JournalID) (ManualJournal, func() error, error) {
	missing := credit.Errorf(credit.JournalNotFound, "There is no manual journal %s.", id)
	row, err := c.q.FindManualJournal(ctx, uuidOf(id))
	if err != nil {
		return ManualJournal{}, nil, found(err, missing, "read manual journal")
	}
	told, err := c.beforeReview(ctx, row.Entity, ledger.Period(row.Period))
	if err != nil {
		return ManualJournal{}, nil, err
	}
	if row, err = c.q.LockManualJournal(ctx, uuidOf(id)); err != nil {
		return ManualJournal{}, nil, found(err, missing, "lock manual journal")
	}
	j, err := manualJournal(row)
	if err == nil && j.Status != JournalPrepared {
		err = credit.Errorf(credit.JournalState, "The manual journal %s is %s.", id, j.Status).With("state", j.Status)
	}
	return j, told, err
}

// ManualJournal returns a manual journal, or an Error coded journal_not_found.
func (s *Store) ManualJournal(ctx context.Context, id credit.JournalID) (ManualJournal, error) {
	row, err := s.q.FindManualJournal(ctx, uuidOf(id))
	if err != nil {
		return ManualJournal{}, found(err, credit.Errorf(credit.JournalNotFound, "There is no manual journal %s.", id), "read manual journal")
	}
	return manualJournal(row)
}

// ManualJournalPage returns up to n manual journals of an entity below an id, newest first; an empty status or period lets all through.
func (s *Store) ManualJournalPage(ctx context.Context, entity, status string, period ledger.Period, before credit.JournalID, n int) ([]ManualJournal, error) {
	rows, err := s.q.PageManualJournals(ctx, sqlc.PageManualJournalsParams{Entity: entity, Before: below(before), Status: textOf(status),
		Period: textOf(string(period)), PageSize: int32(n)})
	return pageOf(rows, err, "read manual journals", manualJournal)
}
