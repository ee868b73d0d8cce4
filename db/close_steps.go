package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// The steps of a close whose figures come from here.
const (
	StepCutOff          = "cut_off"
	StepExpiries        = "expiries"
	StepOverage         = "overage"
	StepBreakage        = "breakage"
	StepManualJournals  = "manual_journals"
	StepReconciliations = "reconciliations"
	StepReports         = "reports"

	StepSeal    = "seal" // and, after the lock, these
	StepExport  = "export"
	StepPublish = "publish"
)

// afterLock tells the steps that a close is to have ended for.
func afterLock(step string) bool {
	return step == StepSeal || step == StepExport || step == StepPublish
}

// StepResult is what a step of a close has found. Figures go into the close pack: they say the same of the same books, whenever they are taken.
type StepResult struct {
	Figures any
	Blocked string // why the close cannot go on; "": it can
}

// SaveStep keeps the result of a step that began at an instant of Postgres, in the place of one that began before. A close that is not being prepared
// keeps what it has; one that has ended takes the steps that follow the lock.
func (s *Store) SaveStep(ctx context.Context, k CloseKey, step string, began time.Time, r StepResult) (StepRow, error) {
	figures, err := canonical(r.Figures)
	if err != nil {
		return StepRow{}, fmt.Errorf("write figures of %s: %w", step, err)
	}
	row := StepRow{Step: step, Status: "done", BlockedBy: r.Blocked, Figures: figures, SHA256: digestOf(figures), RunAt: began}
	if r.Blocked != "" {
		row.Status = "blocked"
	}
	during := ClosePreparing
	if afterLock(step) {
		during = CloseClosed
	}
	err = s.q.SaveCloseStep(ctx, sqlc.SaveCloseStepParams{During: during, Entity: k.Entity, Period: string(k.Period), Version: int32(k.Version), Step: step, Status: row.Status,
		BlockedBy: textOf(r.Blocked), Figures: figures, Sha256: row.SHA256, RunAt: timeOf(began)})
	return row, wrap(err, "save step")
}

// Steps returns what the steps of a close have found.
func (s *Store) Steps(ctx context.Context, k CloseKey) ([]StepRow, error) {
	return readSteps(ctx, s.q, k)
}

func readSteps(ctx context.Context, q *sqlc.Queries, k CloseKey) ([]StepRow, error) {
	rows, err := q.CloseSteps(ctx, k.Entity, string(k.Period), int32(k.Version))
	return page(rows, err, "read steps", func(r sqlc.CloseStepsRow) StepRow {
		return StepRow{r.Step, r.Status, r.BlockedBy.String, r.Figures, r.Sha256, fromTime(r.RunAt)}
	})
}

// CustomersToCutOff returns up to n customers after one, in order of id, who have something in the period, or before it, that is not booked.
func (s *Store) CustomersToCutOff(ctx context.Context, k CloseKey, after credit.CustomerID, n int) ([]credit.CustomerID, error) {
	b, err := readCloseBooks(ctx, s.q, k.Entity)
	if err != nil {
		return nil, err
	}
	rows, err := s.q.CustomersToCutOff(ctx, sqlc.CustomersToCutOffParams{Entity: k.Entity, After: pgtype.UUID{Bytes: after, Valid: true},
		Ends: timeOf(endOf(k.Period, b.calendar)), N: int32(n)})
	return page(rows, err, "read customers to cut off", func(id pgtype.UUID) credit.CustomerID { return id.Bytes })
}

type cutOffFigures struct {
	Ends        string `json:"ends"` // the first instant after the period
	LateUntil   string `json:"late_until"`
	Behind      string `json:"customers_behind"` // "no" or "yes"
	Outbox      int64  `json:"outbox_waiting"`
	Quarantined int64  `json:"quarantined_usage"` // of the period, waiting for a price
}

// CutOff tells whether everything of the period is booked: the late window is over, recognition has reached every customer's operations up to the
// end of the period, and nothing waits to be done outside.
func (s *Store) CutOff(ctx context.Context, k CloseKey) (StepResult, error) {
	c, err := s.PeriodClose(ctx, k)
	if err != nil {
		return StepResult{}, err
	}
	b, err := readCloseBooks(ctx, s.q, k.Entity)
	if err != nil {
		return StepResult{}, err
	}
	ends := endOf(k.Period, b.calendar)
	f := cutOffFigures{Ends: ends.Format(instantLayout), LateUntil: c.LateUntil.Format(instantLayout), Behind: "no"}
	behind, err := s.CustomersToCutOff(ctx, k, credit.CustomerID{}, 1)
	if err != nil {
		return StepResult{}, err
	}
	w, err := s.q.CutOffWaiting(ctx, timeOf(ends), k.Entity)
	if err != nil {
		return StepResult{}, fmt.Errorf("count what waits: %w", err)
	}
	f.Outbox, f.Quarantined = w.Outbox, w.Quarantined
	first, err := s.q.FirstUnclosedPeriod(ctx, k.Entity, string(k.Period))
	if err != nil {
		return StepResult{}, fmt.Errorf("look for earlier periods: %w", err)
	}
	r := StepResult{}
	switch {
	case first != "":
		r.Blocked = "The period " + first + " is not closed."
	case b.now.Before(c.LateUntil):
		r.Blocked = "The late window is not over."
	case len(behind) > 0 && c.PeriodStatus != recognition.InReview: // what comes in review is booked as late
		f.Behind = "yes"
		r.Blocked = fmt.Sprintf("Not everything of customer %s is booked.", behind[0])
	case f.Outbox > 0:
		r.Blocked = fmt.Sprintf("%d things that were asked for before the end of the period are not done.", f.Outbox)
	}
	r.Figures = f
	return r, nil
}

type expiryFigures struct {
	Due    int64    `json:"due"` // and not expired
	Frozen int64    `json:"frozen"`
	First  []string `json:"first"`
}

// Expiries tells whether every grant that ended in the period, or before, has expired.
func (s *Store) Expiries(ctx context.Context, k CloseKey) (StepResult, error) {
	b, err := readCloseBooks(ctx, s.q, k.Entity)
	if err != nil {
		return StepResult{}, err
	}
	e, err := s.q.ExpiriesDue(ctx, k.Entity, timeOf(endOf(k.Period, b.calendar)))
	if err != nil {
		return StepResult{}, fmt.Errorf("count expiries: %w", err)
	}
	f := expiryFigures{e.Due, e.Frozen, []string{}}
	for _, id := range e.First {
		f.First = append(f.First, credit.GrantID(id.Bytes).String())
	}
	r := StepResult{Figures: f}
	if e.Due > 0 {
		r.Blocked = fmt.Sprintf("%d grants have ended and not expired.", e.Due)
	}
	return r, nil
}

type kindFigure struct {
	Kind    string `json:"kind"`
	Entries int64  `json:"entries"`
	Amount  string `json:"amount"` // of debits
}

// Overage shows what recognition has accrued of overage in the period, beside the other kinds of entries.
func (s *Store) Overage(ctx context.Context, k CloseKey) (StepResult, error) {
	b, err := readCloseBooks(ctx, s.q, k.Entity)
	if err != nil {
		return StepResult{}, err
	}
	rows, err := s.q.PeriodKinds(ctx, k.Entity, string(k.Period))
	kinds, err := page(rows, err, "read kinds of entries", func(r sqlc.PeriodKindsRow) kindFigure {
		return kindFigure{r.Kind, r.Entries, credit.Money{Minor: r.Amount, Currency: b.currency}.String()}
	})
	overage := credit.Money{Currency: b.currency}.String()
	for _, x := range kinds {
		if x.Kind == string(ledger.KindOverage) {
			overage = x.Amount
		}
	}
	return StepResult{Figures: map[string]any{"overage": overage, "kinds": kinds}}, err
}

type breakageFigures struct {
	Adjustments int                `json:"adjustments"`
	Amount      string             `json:"amount"`  // of all of them, to account 2019
	Balance     string             `json:"balance"` // of account 2019 by the log, at the end of the period
	First       []adjustmentFigure `json:"first"`
	Missing     []string           `json:"missing"` // cohorts
}

type adjustmentFigure struct {
	Cohort   string `json:"cohort"`
	Policy   int    `json:"policy"`
	Estimate int    `json:"estimate"`
	Use      string `json:"expected_use"`
	Price    string `json:"price"`
	Used     string `json:"used"`
	Expired  string `json:"expired"`
	Adjusted string `json:"adjusted"` // before
	Amount   string `json:"amount"`
	Entry    string `json:"entry,omitempty"`
}

// Breakage adjusts the breakage of a period whose close is being prepared, as [Store.AdjustBreakage] does, and tells whether nothing is left to
// adjust: a cohort under the proportional method needs an estimate, and one that is not exceeded. In review nothing is posted: what is due then
// blocks, and takes the period out of review.
func (s *Store) Breakage(ctx context.Context, k CloseKey) (StepResult, error) {
	books, err := s.Entity(ctx, k.Entity)
	if err != nil {
		return StepResult{}, err
	}
	var r StepResult
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		r = StepResult{}
		q := s.q.WithTx(tx)
		status, err := lockPeriod(ctx, q, k.Entity, k.Period)
		if err != nil {
			return err
		}
		due, missing, err := dueBreakage(ctx, q, books, k.Period)
		if refusal := (*credit.Error)(nil); errors.As(err, &refusal) && refusal.Code == credit.EstimateExceeded {
			r.Blocked, err = fmt.Sprintf("%s Cohort %v.", refusal.Detail, refusal.Fields["cohort"]), nil
		}
		if err != nil {
			return err
		}
		for i := range due {
			if status == recognition.SoftClosed {
				err = due[i].post(ctx, q, books)
			} else if due[i].Amount != 0 {
				r.Blocked = "Breakage is to be adjusted again."
			}
			if err != nil {
				return err
			}
		}
		cohorts := []string{}
		for _, m := range missing {
			cohorts = append(cohorts, m.Unit+" "+string(m.ExpiresIn))
		}
		if len(cohorts) > 0 {
			r.Blocked = fmt.Sprintf("An estimate is missing for %d cohorts: %s.", len(cohorts), strings.Join(cohorts[:min(len(cohorts), 10)], ", "))
		}
		r.Figures, err = readBreakage(ctx, q, books, k.Period, cohorts)
		return err
	})
	return r, wrap(err, "adjust breakage")
}

func readBreakage(ctx context.Context, q *sqlc.Queries, books EntityRow, period ledger.Period, missing []string) (breakageFigures, error) {
	money := func(minor int64) string { return credit.Money{Minor: minor, Currency: books.Currency}.String() }
	t, err := q.BreakageTotals(ctx, string(period), books.Code)
	if err != nil {
		return breakageFigures{}, fmt.Errorf("add up the true-up log: %w", err)
	}
	log, err := breakageLog(ctx, q, books.Code, period, shown)
	f := breakageFigures{int(t.Adjustments), money(t.Amount), money(-t.Upto), []adjustmentFigure{}, missing}
	for _, a := range log {
		line := adjustmentFigure{a.cohort(), a.Policy, a.Estimate, a.Use.Decimal().String(), money(a.Price), money(a.Used), money(a.Expired), money(a.Adjusted), money(a.Amount), ""}
		if !a.Entry.IsZero() {
			line.Entry = a.Entry.String()
		}
		f.First = append(f.First, line)
	}
	return f, err
}

type journalFigure struct {
	ID       string    `json:"id"`
	Status   string    `json:"status"`
	Reason   string    `json:"reason"`
	Preparer string    `json:"preparer"`
	Approver string    `json:"approver,omitempty"`
	Entry    string    `json:"entry,omitempty"`
	Postings []Posting `json:"postings"`
}

// ManualJournals tells whether somebody still has to decide about a manual journal of the period, and lists the first 100 of them.
func (s *Store) ManualJournals(ctx context.Context, k CloseKey) (StepResult, error) {
	n, err := s.q.CountManualJournals(ctx, k.Entity, string(k.Period))
	if err != nil {
		return StepResult{}, fmt.Errorf("count manual journals: %w", err)
	}
	rows, err := s.q.ManualJournalsOf(ctx, k.Entity, string(k.Period), shown)
	list, err := pageOf(rows, err, "read manual journals", func(m sqlc.ManualJournal) (journalFigure, error) {
		j, err := manualJournal(m)
		f := journalFigure{ID: j.ID.String(), Status: j.Status, Reason: j.Reason, Preparer: keyID(j.Preparer), Postings: j.Postings}
		if j.Approver != 0 {
			f.Approver = keyID(j.Approver)
		}
		if !j.Entry.IsZero() {
			f.Entry = j.Entry.String()
		}
		return f, err
	})
	r := StepResult{Figures: map[string]any{"prepared": n.Prepared, "posted": n.Posted, "rejected": n.Rejected, "first": list}}
	if n.Prepared > 0 {
		r.Blocked = fmt.Sprintf("%d manual journals wait for an approver.", n.Prepared)
	}
	return r, err
}

// Reconcile makes all [Reconciliations] on one snapshot. stale is how many customers' cached balances differed from the ledger.
func (s *Store) Reconcile(ctx context.Context, k CloseKey, stale int) (StepResult, error) {
	var f reconciliationFigures
	err := s.snapshot(ctx, func(tx pgx.Tx) (err error) {
		f.Reconciliations, err = reconcile(ctx, tx, k, stale)
		return err
	})
	r := StepResult{Figures: f}
	var stand []string
	for i := range f.Reconciliations {
		if x := &f.Reconciliations[i]; x.Stands() {
			stand = append(stand, x.Code+" "+x.Name)
		}
	}
	if stand != nil {
		r.Blocked = "These do not agree: " + strings.Join(stand, ", ") + "."
	}
	return r, err
}

type accountFigure struct {
	Account int    `json:"account"`
	Name    string `json:"name"`
	Debit   string `json:"debit"`  // of the period
	Credit  string `json:"credit"` // of the period
	Net     string `json:"net"`    // debit less credit
	Before  string `json:"before"` // the net of the period before
	Change  string `json:"change"`
	Balance string `json:"balance"` // at the end of the period
}

type rollForwardFigures struct {
	Opening     string `json:"opening"`
	Purchases   string `json:"purchases"`
	Concessions string `json:"concessions"`
	Recognised  string `json:"recognised"`
	Breakage    string `json:"breakage"`
	Refunds     string `json:"refunds"`
	Voids       string `json:"voids"`
	Disputes    string `json:"disputes"`
	Transfers   string `json:"transfers"`
	Corrections string `json:"corrections"`
	Adjustments string `json:"adjustments"`
	Closing     string `json:"closing"`
	Late        string `json:"late"`
}

type entryFigure struct {
	Entry    string `json:"entry"`
	Kind     string `json:"kind,omitempty"`
	Cause    string `json:"cause,omitempty"`
	Day      string `json:"service_on"`
	Customer string `json:"customer,omitempty"`
	Amount   string `json:"amount"`
}

type listFigures struct {
	Entries int64         `json:"entries"`
	Amount  string        `json:"amount"`
	First   []entryFigure `json:"first"` // the largest, 100 at most
}

// Reports are the trial balance with its change against the period before, the roll-forward of deferred revenue, what came late, and the refunds.
func (s *Store) Reports(ctx context.Context, k CloseKey) (StepResult, error) {
	now, err := s.TrialBalance(ctx, k.Entity, Span{k.Period, k.Period})
	if err != nil {
		return StepResult{}, err
	}
	prior := k.Period.Previous()
	before, err := s.TrialBalance(ctx, k.Entity, Span{prior, prior})
	if err != nil {
		return StepResult{}, err
	}
	upto, err := s.TrialBalance(ctx, k.Entity, Span{To: k.Period})
	if err != nil {
		return StepResult{}, err
	}
	money := func(minor int64) string { return credit.Money{Minor: minor, Currency: now.Currency}.String() }
	net := func(t *TrialBalance, a ledger.Account) (totals AccountTotals) {
		for _, x := range t.Accounts {
			if x.Account == a {
				totals = x
			}
		}
		return totals
	}
	accounts := []accountFigure{}
	for _, a := range upto.Accounts {
		n, b := net(&now, a.Account), net(&before, a.Account)
		accounts = append(accounts, accountFigure{int(a.Account), a.Name, money(n.Debit), money(n.Credit), money(n.Debit - n.Credit), money(b.Debit - b.Credit),
			money(n.Debit - n.Credit - b.Debit + b.Credit), money(a.Debit - a.Credit)})
	}
	r, err := s.RollForward(ctx, k.Entity, Span{k.Period, k.Period}, credit.CustomerID{})
	if err != nil {
		return StepResult{}, err
	}
	late, refunds, err := s.exceptions(ctx, k, money)
	if err != nil {
		return StepResult{}, err
	}
	out := StepResult{Figures: map[string]any{
		"accounts": accounts, "debit": money(now.Debit), "credit": money(now.Credit),
		"roll_forward": rollForwardFigures{money(r.Opening), money(r.Purchases), money(r.Concessions), money(r.Recognised), money(r.Breakage), money(r.Refunds),
			money(r.Voids), money(r.Disputes), money(r.Transfers), money(r.Corrections), money(r.Adjustments), money(r.Closing), money(r.Late)},
		"late": late, "refunds": refunds,
	}}
	if now.Debit != now.Credit || !r.Foots() {
		out.Blocked = "The trial balance or the roll-forward does not add up."
	}
	return out, nil
}

// exceptions lists what an approver looks at one by one.
func (s *Store) exceptions(ctx context.Context, k CloseKey, money func(int64) string) (late, refunds listFigures, err error) {
	total, err := s.q.LateTotal(ctx, k.Entity, string(k.Period))
	if err != nil {
		return late, refunds, fmt.Errorf("add up late entries: %w", err)
	}
	rows, err := s.q.LateEntries(ctx, k.Entity, string(k.Period), shown)
	late = listFigures{Entries: total.Entries, Amount: money(total.Amount)}
	late.First, err = page(rows, err, "read late entries", func(r sqlc.LateEntriesRow) entryFigure {
		return entryFigure{Entry: credit.EntryID(r.ID.Bytes).String(), Kind: r.Kind, Day: string(dayOf(r.ServiceOn)), Customer: customerText(r.CustomerID), Amount: money(r.Amount)}
	})
	if err != nil {
		return late, refunds, err
	}
	owed, err := s.q.RefundEntries(ctx, k.Entity, string(k.Period), 1<<30)
	var sum int64
	refunds.First, err = page(owed, err, "read refunds", func(r sqlc.RefundEntriesRow) entryFigure {
		sum += r.Amount
		return entryFigure{Entry: credit.EntryID(r.ID.Bytes).String(), Cause: r.Cause, Day: string(dayOf(r.ServiceOn)), Customer: customerText(r.CustomerID), Amount: money(r.Amount)}
	})
	refunds.Entries, refunds.Amount = int64(len(owed)), money(sum)
	refunds.First = refunds.First[:min(len(refunds.First), shown)]
	return late, refunds, err
}

func customerText(id pgtype.UUID) string {
	if !id.Valid {
		return ""
	}
	return credit.CustomerID(id.Bytes).String()
}

// ReviewClose takes a period whose close is being prepared into review: from then on nothing is booked in it. What is being booked is waited for.
func (s *Store) ReviewClose(ctx context.Context, k CloseKey) error {
	return s.changeClose(ctx, k, func(ctx context.Context, q *sqlc.Queries, c *CloseRow) error {
		if c.Status != ClosePreparing || c.PeriodStatus != recognition.SoftClosed {
			return nil
		}
		return setPeriod(ctx, q, k, recognition.InReview)
	})
}

// PrepareAgain takes a close out of review, with a note why.
func (s *Store) PrepareAgain(ctx context.Context, k CloseKey, note string) error {
	return s.changeClose(ctx, k, func(ctx context.Context, q *sqlc.Queries, c *CloseRow) error {
		if c.Status != ClosePreparing || c.PeriodStatus != recognition.InReview {
			return nil
		}
		return prepareAgain(ctx, q, k, note)
	})
}

// changeClose holds the period and its close for a change.
func (s *Store) changeClose(ctx context.Context, k CloseKey, do func(context.Context, *sqlc.Queries, *CloseRow) error) error {
	err := s.Tx(ctx, func(tx pgx.Tx) error {
		c := &Catalog{q: s.q.WithTx(tx)}
		row, err := c.lockClose(ctx, k.Entity, k.Period, ClosePreparing, CloseInReview, CloseApproved, CloseClosed)
		if err != nil {
			return err
		}
		if row.Version != k.Version {
			return credit.Errorf(credit.CloseState, "Version %d of the close of %s has ended.", k.Version, k.Period)
		}
		return do(ctx, c.q, &row)
	})
	return wrap(err, "change close")
}

// closePack is what is approved.
type closePack struct {
	Format       string          `json:"format"`
	Entity       string          `json:"legal_entity"`
	Currency     string          `json:"currency"`
	Period       ledger.Period   `json:"period"`
	Version      int             `json:"version"`
	Preparer     string          `json:"preparer"`
	PreparerName string          `json:"preparer_name"`
	LateUntil    string          `json:"late_until"`
	Entries      int64           `json:"entries"`
	Postings     int64           `json:"postings"`
	Steps        []packStep      `json:"steps"`
	Waivers      []packWaiver    `json:"waivers"`
	Statements   []packStatement `json:"statements"`
	Reopened     *packReopening  `json:"reopened,omitempty"`
}

type packStep struct {
	Step    string          `json:"step"`
	SHA256  string          `json:"sha256"`
	Figures json.RawMessage `json:"figures"`
}

type packWaiver struct {
	Reconciliation string `json:"reconciliation"`
	By             string `json:"by"`
	Name           string `json:"name"`
	Reason         string `json:"reason"`
	At             string `json:"at"`
	InForce        bool   `json:"in_force"` // of the difference as it is
}

type packStatement struct {
	Kind       string `json:"kind"`
	Reference  string `json:"reference"`
	Amount     string `json:"amount"`
	AsOf       string `json:"as_of"`
	RecordedBy string `json:"recorded_by"`
	Name       string `json:"name"`
}

// packReopening says why there is another version, and what the one before it was.
type packReopening struct {
	Reason       string `json:"reason"`
	AskedBy      string `json:"asked_by"`
	AskedName    string `json:"asked_name"`
	Approver     string `json:"approver"`
	ApproverName string `json:"approver_name"`
	PackHash     string `json:"pack_hash"` // of the version before
}

// MakePack puts together what the steps have found while the period was in review, and hands it to the approver. It returns the hash of the pack, or
// "" when a step is to be run again first: it is blocked, or has run before the review began. Made once, it stays until the close is prepared again.
func (s *Store) MakePack(ctx context.Context, k CloseKey, steps []string) (hash string, err error) {
	err = s.changeClose(ctx, k, func(ctx context.Context, q *sqlc.Queries, c *CloseRow) error {
		if c.Status != ClosePreparing || c.PeriodStatus != recognition.InReview {
			hash = c.PackHash
			return nil
		}
		p, err := newPack(ctx, q, c, steps)
		if err != nil || p == nil {
			return err
		}
		pack, err := canonical(p)
		if err != nil {
			return fmt.Errorf("write close pack: %w", err)
		}
		rows, err := q.Balances(ctx, k.Entity, string(k.Period))
		if err != nil {
			return fmt.Errorf("read balances: %w", err)
		}
		balances := make(map[string]int64, len(rows))
		for _, r := range rows {
			balances[ledger.Account(r.Account).String()] = r.Balance
		}
		text, err := canonical(balances)
		if err != nil {
			return fmt.Errorf("write balances: %w", err)
		}
		hash = digestOf(pack)
		return q.SetPack(ctx, sqlc.SetPackParams{Pack: pack, PackHash: textOf(hash), Entries: pgtype.Int8{Int64: p.Entries, Valid: true},
			Postings: pgtype.Int8{Int64: p.Postings, Valid: true}, Balances: text, Entity: k.Entity, Period: string(k.Period), Version: int32(k.Version)})
	})
	return hash, err
}

func newPack(ctx context.Context, q *sqlc.Queries, c *CloseRow, steps []string) (*closePack, error) {
	k := c.CloseKey
	b, err := readCloseBooks(ctx, q, k.Entity)
	if err != nil {
		return nil, err
	}
	period, err := q.LockPeriod(ctx, k.Entity, string(k.Period))
	if err != nil {
		return nil, fmt.Errorf("read period: %w", err)
	}
	size, err := q.PeriodSize(ctx, k.Entity, string(k.Period))
	if err != nil {
		return nil, fmt.Errorf("count the period's entries: %w", err)
	}
	p := &closePack{Format: "tallystick.close_pack/1", Entity: k.Entity, Currency: b.currency, Period: k.Period, Version: k.Version, Preparer: keyID(c.Preparer),
		PreparerName: c.PreparerName, LateUntil: c.LateUntil.Format(instantLayout), Entries: size.Entries, Postings: size.Postings,
		Waivers: []packWaiver{}, Statements: []packStatement{}}
	found, err := readSteps(ctx, q, k)
	if err != nil {
		return nil, err
	}
	for _, name := range steps {
		i := slices.IndexFunc(found, func(r StepRow) bool { return r.Step == name })
		if i < 0 || found[i].BlockedBy != "" || found[i].RunAt.Before(fromTime(period.ChangedAt)) {
			return nil, nil
		}
		p.Steps = append(p.Steps, packStep{name, found[i].SHA256, found[i].Figures})
	}
	now, err := reconciled(ctx, q, k)
	if err != nil {
		return nil, err
	}
	waivers, err := q.CloseWaivers(ctx, k.Entity, string(k.Period), int32(k.Version))
	if err != nil {
		return nil, fmt.Errorf("read waivers: %w", err)
	}
	for _, w := range waivers {
		p.Waivers = append(p.Waivers, packWaiver{w.Reconciliation, keyID(w.WaivedBy), w.Name, w.Reason, fromTime(w.WaivedAt).Format(instantLayout),
			slices.ContainsFunc(now, func(r Reconciled) bool { return r.Code == w.Reconciliation && r.Digest() == w.FiguresSha256 })})
	}
	statements, err := q.CurrentStatements(ctx, k.Entity, string(k.Period))
	if err != nil {
		return nil, fmt.Errorf("read statements: %w", err)
	}
	for _, st := range statements {
		p.Statements = append(p.Statements, packStatement{st.Kind, st.Reference, credit.Money{Minor: st.AmountMinor, Currency: st.Currency}.String(),
			fromTime(st.AsOf).Format(instantLayout), keyID(st.RecordedBy), st.Name})
	}
	if k.Version > 1 {
		last := CloseKey{k.Entity, k.Period, k.Version - 1}
		r, err := findReopening(ctx, q, last)
		if err != nil {
			return nil, err
		}
		was, err := findClose(ctx, q, last)
		if err != nil {
			return nil, err
		}
		p.Reopened = &packReopening{r.Reason, keyID(r.AskedBy), r.AskedName, keyID(r.Approver), r.ApproverName, was.PackHash}
	}
	return p, nil
}

// LockPeriodClosed closes a period whose pack is approved, and returns how its close stands then. When the period has other entries than the pack, the
// approval is void and the close is prepared again. What is being booked in the period is waited for; run again it changes nothing.
func (s *Store) LockPeriodClosed(ctx context.Context, k CloseKey) (status string, err error) {
	err = s.changeClose(ctx, k, func(ctx context.Context, q *sqlc.Queries, c *CloseRow) error {
		if status = c.Status; status != CloseApproved {
			return nil
		}
		whole, err := packIsWhole(ctx, q, k)
		if err != nil {
			return err
		}
		if !whole {
			status = ClosePreparing
			return prepareAgain(ctx, q, k, "The period has other entries than the pack that was approved; the approval is void.")
		}
		if err := setPeriod(ctx, q, k, recognition.Closed); err != nil {
			return err
		}
		if err := q.EndClose(ctx, k.Entity, string(k.Period), int32(k.Version)); err != nil {
			return wrap(err, "end close")
		}
		status = CloseClosed
		e, err := newPeriodEvent(ctx, q, k)
		if err != nil {
			return err
		}
		return addEvents(ctx, q, e)
	})
	return status, err
}

// RemindOfClose notes that a close waits for its approver, once for each day of waiting.
func (s *Store) RemindOfClose(ctx context.Context, k CloseKey, day int) error {
	return s.changeClose(ctx, k, func(ctx context.Context, q *sqlc.Queries, c *CloseRow) error {
		if c.Status != CloseInReview {
			return nil
		}
		data, err := json.Marshal(map[string]any{"legal_entity": k.Entity, "period": k.Period, "version": k.Version, "pack_hash": c.PackHash, "days": day})
		if err != nil {
			return fmt.Errorf("write notification: %w", err)
		}
		return notify(ctx, q, sqlc.NotifyParams{Cause: fmt.Sprintf("close/%s/%d/%s/%d", k.Subject(), k.Version, c.PackHash, day), Type: "period.awaiting_approval",
			Subject: k.Subject(), Data: data})
	})
}

// UnfinishedCloses returns the closes that have not ended, or are not published.
func (s *Store) UnfinishedCloses(ctx context.Context) ([]CloseKey, error) {
	rows, err := s.q.UnfinishedCloses(ctx)
	return page(rows, err, "read unfinished closes", func(r sqlc.UnfinishedClosesRow) CloseKey {
		return CloseKey{r.Entity, ledger.Period(r.Period), int(r.Version)}
	})
}
