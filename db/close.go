package db

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// CloseKey names the close of one version of an entity's period. Version 0 is the newest, where a close is looked for.
type CloseKey struct {
	Entity  string        `json:"entity"`
	Period  ledger.Period `json:"period"`
	Version int           `json:"version"`
}

// Subject is how events, the outbox and the audit name a period.
func (k CloseKey) Subject() string { return k.Entity + "/" + string(k.Period) }

// How a close stands.
const (
	ClosePreparing = "preparing"
	CloseInReview  = "in_review" // its pack waits for an approver
	CloseApproved  = "approved"
	CloseClosed    = "closed"
)

// CloseRow is a close. PackHash is empty while it is being prepared.
type CloseRow struct {
	CloseKey
	Status       string
	PeriodStatus recognition.Status
	Preparer     int32
	PreparerName string
	StartedAt    time.Time
	LateUntil    time.Time // the end of the late window
	PackHash     string
	Pack         []byte // canonical JSON
	Note         string // why it went back to be prepared again
	Approver     int32  // 0: none
	ApprovedAt   time.Time
	ClosedAt     time.Time
	ReadAt       time.Time // by the clock of Postgres
}

// CloseSettings says how an entity closes its periods.
type CloseSettings struct {
	LateHours  int
	Statements []string // kinds of [StatementRow] without which no period is closed
}

// StatementKinds are the kinds of figures from outside, each with the account that it is compared with: 1020, 1010, 2030 and 2060.
var StatementKinds = []string{"processor", "bank", "tax", "provider"}

// StatementRow is a figure from outside, in minor units of the entity's currency: what a processor or a bank holds for the entity, what it
// owes in taxes, what a model provider has billed and is not paid.
type StatementRow struct {
	ID         credit.StatementID
	Entity     string
	Period     ledger.Period
	Kind       string
	Amount     credit.Money
	Reference  string // a later statement of the same kind and reference takes the place of an earlier one
	AsOf       time.Time
	RecordedBy int32
	RecordedAt time.Time
}

// StepRow is what a step of a close has found when it was run last.
type StepRow struct {
	Step, Status string // done or blocked
	BlockedBy    string
	Figures      []byte // canonical JSON
	SHA256       string // of the figures
	RunAt        time.Time
}

// WaiverRow is a difference that an approver lets stand.
type WaiverRow struct {
	Reconciliation, Digest, Reason string
	By                             int32
	Name                           string // of By
	At                             time.Time
}

// ReopeningRow is the wish to open a closed period again. A zero Approver says that the second person has not answered.
type ReopeningRow struct {
	CloseKey
	Reason                  string
	AskedBy, Approver       int32
	AskedName, ApproverName string
	AskedAt, ApprovedAt     time.Time
}

// closeBooks is the calendar and the settings of an entity, and when they were read.
type closeBooks struct {
	CloseSettings
	currency string
	calendar *time.Location
	now      time.Time
}

func readCloseBooks(ctx context.Context, q *sqlc.Queries, entity string) (closeBooks, error) {
	b, err := q.FindCloseBooks(ctx, entity)
	if err != nil {
		return closeBooks{}, found(err, credit.Errorf(credit.EntityNotFound, "There is no legal entity %.40q.", entity), "read legal entity")
	}
	calendar, err := time.LoadLocation(b.TimeZone)
	if err != nil {
		return closeBooks{}, fmt.Errorf("read calendar of entity %s: %w", entity, err)
	}
	return closeBooks{CloseSettings{int(b.LateHours), b.Statements}, b.Currency, calendar, fromTime(b.ReadAt)}, nil
}

// CloseSettings returns how an entity closes its periods, or an Error coded entity_not_found.
func (s *Store) CloseSettings(ctx context.Context, entity string) (CloseSettings, error) {
	b, err := readCloseBooks(ctx, s.q, entity)
	return b.CloseSettings, err
}

// SetCloseSettings says how an entity closes its periods from the next close on.
func (c *Catalog) SetCloseSettings(ctx context.Context, entity string, set CloseSettings, actor int32) error {
	if _, err := readCloseBooks(ctx, c.q, entity); err != nil {
		return err
	}
	err := c.q.SetCloseSettings(ctx, sqlc.SetCloseSettingsParams{Entity: entity, LateHours: int32(set.LateHours), Statements: set.Statements, UpdatedBy: actor})
	return wrap(err, "set close settings")
}

// PeriodClose returns a close, or an Error coded close_not_found.
func (s *Store) PeriodClose(ctx context.Context, k CloseKey) (CloseRow, error) {
	return findClose(ctx, s.q, k)
}

func findClose(ctx context.Context, q *sqlc.Queries, k CloseKey) (CloseRow, error) {
	r, err := q.FindClose(ctx, k.Entity, string(k.Period), int32(k.Version))
	c := r.Close
	return CloseRow{
		CloseKey: CloseKey{c.Entity, ledger.Period(c.Period), int(c.Version)}, Status: c.Status, PeriodStatus: recognition.Status(r.PeriodStatus),
		Preparer: c.Preparer, PreparerName: r.PreparerName, StartedAt: fromTime(c.StartedAt), LateUntil: fromTime(c.LateUntil), PackHash: c.PackHash.String,
		Pack: c.Pack, Note: c.Note.String, Approver: c.Approver.Int32, ApprovedAt: fromTime(c.ApprovedAt), ClosedAt: fromTime(c.ClosedAt), ReadAt: fromTime(r.ReadAt),
	}, found(err, credit.Errorf(credit.CloseNotFound, "The period %s of %s has no such close.", k.Period, k.Entity), "read close")
}

// StartClose begins to close a period that is over, and returns its close; one that runs already is returned as it is. From then on the period
// takes entries of late usage and of manual journals only. Refusals: close_state, when the period is not over; period_closed; period_order, when an
// earlier one is not closed.
func (c *Catalog) StartClose(ctx context.Context, entity string, period ledger.Period, actor int32) (CloseRow, error) {
	b, err := readCloseBooks(ctx, c.q, entity)
	if err != nil {
		return CloseRow{}, err
	}
	ends := endOf(period, b.calendar)
	if b.now.Before(ends) {
		return CloseRow{}, credit.Errorf(credit.CloseState, "The period %s ends at %s.", period, ends.Format(time.RFC3339)).With("state", string(recognition.Open))
	}
	if first, err := c.q.FirstUnclosedPeriod(ctx, entity, string(period)); err != nil || first != "" {
		return CloseRow{}, orFault(err, "look for earlier periods", credit.Errorf(credit.PeriodOrder, "The period %s is not closed; it comes first.", first))
	}
	if later, err := c.q.LaterClosedPeriod(ctx, entity, string(period)); err != nil || later != "" {
		return CloseRow{}, orFault(err, "look for later periods", credit.Errorf(credit.PeriodOrder, "The later period %s takes no more entries.", later))
	}
	if err := c.q.AddPeriod(ctx, entity, string(period)); err != nil {
		return CloseRow{}, wrap(err, "open period")
	}
	p, err := c.q.LockPeriod(ctx, entity, string(period))
	if err != nil {
		return CloseRow{}, fmt.Errorf("lock period: %w", err)
	}
	k := CloseKey{entity, period, int(p.Version)}
	switch recognition.Status(p.Status) {
	case recognition.SoftClosed, recognition.InReview:
		return findClose(ctx, c.q, k)
	case recognition.Closed:
		return CloseRow{}, errPeriodClosed(period)
	}
	if err := setPeriod(ctx, c.q, k, recognition.SoftClosed); err != nil {
		return CloseRow{}, err
	}
	err = c.q.AddClose(ctx, sqlc.AddCloseParams{Entity: entity, Period: string(period), Version: p.Version, Preparer: actor,
		LateUntil: timeOf(ends.Add(time.Duration(b.LateHours) * time.Hour))})
	if err != nil {
		return CloseRow{}, wrap(err, "add close")
	}
	if err := askClose(ctx, c.q, "close.start", k); err != nil {
		return CloseRow{}, err
	}
	if err := c.addPeriodEvent(ctx, k); err != nil {
		return CloseRow{}, err
	}
	return findClose(ctx, c.q, k)
}

func errPeriodClosed(p ledger.Period) *credit.Error {
	return credit.Errorf(credit.PeriodClosed, "The period %s takes no more entries.", p)
}

// orFault says what was being done of a fault, and is the refusal otherwise.
func orFault(err error, doing string, refusal *credit.Error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return refusal
}

// endOf is the first instant after a period.
func endOf(p ledger.Period, calendar *time.Location) time.Time {
	t, err := time.ParseInLocation("2006-01", string(p.Next()), calendar)
	if err != nil {
		panic("db: period " + string(p) + " is not of the form 2026-01")
	}
	return t.UTC()
}

func setPeriod(ctx context.Context, q *sqlc.Queries, k CloseKey, s recognition.Status) error {
	return wrap(q.SetPeriod(ctx, sqlc.SetPeriodParams{Entity: k.Entity, Period: string(k.Period), Status: string(s), Version: int32(k.Version)}), "set period")
}

// askClose asks for a close's workflow to be started, or to be told that something has changed.
func askClose(ctx context.Context, q *sqlc.Queries, topic string, k CloseKey) error {
	payload, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("write outbox item: %w", err)
	}
	return wrap(q.AddOutbox(ctx, []string{topic}, []string{k.Subject()}, []string{string(payload)}), "tell the close's workflow")
}

// lockClose holds a close for a change that only these states admit; it is refused with close_state in others.
func (c *Catalog) lockClose(ctx context.Context, entity string, period ledger.Period, states ...string) (CloseRow, error) {
	r, err := findClose(ctx, c.q, CloseKey{Entity: entity, Period: period})
	if err != nil {
		return r, err
	}
	if _, err := c.q.LockPeriod(ctx, entity, string(period)); err != nil { // first, as everywhere
		return r, fmt.Errorf("lock period: %w", err)
	}
	if _, err := c.q.LockClose(ctx, entity, string(period), int32(r.Version)); err != nil {
		return r, fmt.Errorf("lock close: %w", err)
	}
	if r, err = findClose(ctx, c.q, r.CloseKey); err != nil {
		return r, err
	}
	for _, s := range states {
		if r.Status == s {
			return r, nil
		}
	}
	return r, credit.Errorf(credit.CloseState, "The close of %s is %s.", period, strings.ReplaceAll(r.Status, "_", " ")).With("state", r.Status)
}

// changed returns a close after a change, whose workflow is told.
func (c *Catalog) changed(ctx context.Context, k CloseKey) (CloseRow, error) {
	if err := askClose(ctx, c.q, "close.signal", k); err != nil {
		return CloseRow{}, err
	}
	return findClose(ctx, c.q, k)
}

// SetLateWindow moves the end of a close's late window, before the cut-off; one that is not in the future cuts it short.
func (c *Catalog) SetLateWindow(ctx context.Context, entity string, period ledger.Period, until time.Time) (CloseRow, error) {
	r, err := c.lockClose(ctx, entity, period, ClosePreparing)
	if err != nil {
		return r, err
	}
	err = c.q.SetLateUntil(ctx, sqlc.SetLateUntilParams{LateUntil: timeOf(until), Entity: entity, Period: string(period), Version: int32(r.Version)})
	if err != nil {
		return r, wrap(err, "move the late window")
	}
	return c.changed(ctx, r.CloseKey)
}

// Waive lets the present difference of a reconciliation stand. Refusals: not_found, when it shows none; second_person, forbidden.
func (c *Catalog) Waive(ctx context.Context, entity string, period ledger.Period, code, reason string, actor int32) (CloseRow, error) {
	r, err := c.lockClose(ctx, entity, period, ClosePreparing)
	if err != nil {
		return r, err
	}
	now, err := reconciled(ctx, c.q, r.CloseKey)
	if err != nil {
		return r, err
	}
	for _, x := range now {
		if x.Code == code && x.Stands() {
			err := c.q.AddWaiver(ctx, sqlc.AddWaiverParams{Entity: entity, Period: string(period), Version: int32(r.Version), Reconciliation: code,
				FiguresSha256: x.Digest(), Reason: reason, WaivedBy: actor})
			if err != nil {
				return r, wrap(err, "waive a difference")
			}
			return c.changed(ctx, r.CloseKey)
		}
	}
	return r, credit.Errorf(credit.NotFound, "Reconciliation %s shows no difference.", code)
}

// ApproveClose approves the pack with this hash. Refusals: close_state; pack_changed, when the hash is another one or the period has other entries
// than the pack; second_person, forbidden.
func (c *Catalog) ApproveClose(ctx context.Context, entity string, period ledger.Period, packHash string, actor int32) (CloseRow, error) {
	r, err := c.lockClose(ctx, entity, period, CloseInReview)
	if err != nil {
		return r, err
	}
	whole, err := packIsWhole(ctx, c.q, r.CloseKey)
	switch {
	case err != nil:
		return r, err
	case packHash != r.PackHash || !whole:
		return r, credit.Errorf(credit.PackChanged, "This is not the pack that is in review.").With("pack_hash", r.PackHash)
	}
	err = c.q.ApproveClose(ctx, sqlc.ApproveCloseParams{Approver: pgtype.Int4{Int32: actor, Valid: true}, Entity: entity, Period: string(period), Version: int32(r.Version)})
	if err != nil {
		return r, wrap(err, "approve close")
	}
	return c.changed(ctx, r.CloseKey)
}

// packIsWhole tells whether the period has the entries that the pack is about, and no others.
func packIsWhole(ctx context.Context, q *sqlc.Queries, k CloseKey) (bool, error) {
	r, err := q.FindClose(ctx, k.Entity, string(k.Period), int32(k.Version))
	if err != nil {
		return false, fmt.Errorf("read close: %w", err)
	}
	size, err := q.PeriodSize(ctx, k.Entity, string(k.Period))
	if err != nil {
		return false, fmt.Errorf("count the period's entries: %w", err)
	}
	return r.Close.Entries.Int64 == size.Entries && r.Close.Postings.Int64 == size.Postings, nil
}

// RejectClose sends a close back to be prepared again; an approval of it that was not carried out is void.
func (c *Catalog) RejectClose(ctx context.Context, entity string, period ledger.Period, reason string) (CloseRow, error) {
	r, err := c.lockClose(ctx, entity, period, CloseInReview, CloseApproved)
	if err != nil {
		return r, err
	}
	if err := prepareAgain(ctx, c.q, r.CloseKey, reason); err != nil {
		return r, err
	}
	return c.changed(ctx, r.CloseKey)
}

// prepareAgain takes a close out of review. The caller holds its period and it.
func prepareAgain(ctx context.Context, q *sqlc.Queries, k CloseKey, note string) error {
	err := q.DropPack(ctx, sqlc.DropPackParams{Note: textOf(note), Entity: k.Entity, Period: string(k.Period), Version: int32(k.Version)})
	if err != nil {
		return wrap(err, "drop the pack")
	}
	return setPeriod(ctx, q, k, recognition.SoftClosed)
}

// AskReopening asks for a closed period, the newest one that is closed, to be opened again; that takes another person's approval. Refusals:
// close_state, when it is not closed or was asked for; period_order, when a later one takes no entries.
func (c *Catalog) AskReopening(ctx context.Context, entity string, period ledger.Period, reason string, actor int32) (ReopeningRow, error) {
	r, err := c.lockClose(ctx, entity, period, CloseClosed)
	if err != nil {
		return ReopeningRow{}, err
	}
	if later, err := c.q.LaterClosedPeriod(ctx, entity, string(period)); err != nil || later != "" {
		return ReopeningRow{}, orFault(err, "look for later periods", credit.Errorf(credit.PeriodOrder, "The later period %s takes no entries; it is reopened first.", later))
	}
	err = c.q.AskReopening(ctx, sqlc.AskReopeningParams{Entity: entity, Period: string(period), Version: int32(r.Version), Reason: reason, AskedBy: actor})
	if err != nil {
		return ReopeningRow{}, wrap(err, "ask for a reopening")
	}
	return findReopening(ctx, c.q, r.CloseKey)
}

// ApproveReopening opens the period again that another person asked for. Refusals as those of AskReopening; second_person, forbidden.
func (c *Catalog) ApproveReopening(ctx context.Context, entity string, period ledger.Period, actor int32) (ReopeningRow, error) {
	r, err := c.lockClose(ctx, entity, period, CloseClosed)
	if err != nil {
		return ReopeningRow{}, err
	}
	asked, err := findReopening(ctx, c.q, r.CloseKey)
	if err != nil {
		return asked, err
	}
	if asked.Approver != 0 {
		return asked, credit.Errorf(credit.CloseState, "The period %s was reopened.", period).With("state", string(recognition.Reopened))
	}
	if later, err := c.q.LaterClosedPeriod(ctx, entity, string(period)); err != nil || later != "" {
		return asked, orFault(err, "look for later periods", credit.Errorf(credit.PeriodOrder, "The later period %s takes no entries; it is reopened first.", later))
	}
	err = c.q.ApproveReopening(ctx, sqlc.ApproveReopeningParams{Approver: pgtype.Int4{Int32: actor, Valid: true}, Entity: entity, Period: string(period),
		Version: int32(r.Version)})
	if err != nil {
		return asked, wrap(err, "approve a reopening")
	}
	next := r.CloseKey
	next.Version++
	if err := setPeriod(ctx, c.q, next, recognition.Reopened); err != nil {
		return asked, err
	}
	if err := c.addPeriodEvent(ctx, next); err != nil {
		return asked, err
	}
	return findReopening(ctx, c.q, r.CloseKey)
}

func findReopening(ctx context.Context, q *sqlc.Queries, k CloseKey) (ReopeningRow, error) {
	r, err := q.FindReopening(ctx, k.Entity, string(k.Period), int32(k.Version))
	return ReopeningRow{k, r.Reason, r.AskedBy, r.Approver.Int32, r.AskedName, r.ApproverName, fromTime(r.AskedAt), fromTime(r.ApprovedAt)},
		found(err, credit.Errorf(credit.NotFound, "Nobody asked for the period %s to be reopened.", k.Period), "read reopening")
}

// Reopening returns what was asked about a closed version of a period, or an Error coded not_found.
func (s *Store) Reopening(ctx context.Context, k CloseKey) (ReopeningRow, error) {
	return findReopening(ctx, s.q, k)
}

// AddStatement keeps a figure from outside, before the review of its period. Refusals: entity_not_found; close_state, period_closed.
func (c *Catalog) AddStatement(ctx context.Context, st StatementRow) (StatementRow, error) {
	b, err := readCloseBooks(ctx, c.q, st.Entity)
	if err != nil {
		return st, err
	}
	if st.Amount.Currency != b.currency {
		return st, credit.Invalid("/currency", "The books of %s are in %s.", st.Entity, b.currency)
	}
	told, err := c.beforeReview(ctx, st.Entity, st.Period)
	if err != nil {
		return st, err
	}
	at, err := c.q.AddStatement(ctx, sqlc.AddStatementParams{ID: uuidOf(st.ID), Entity: st.Entity, Period: string(st.Period), Kind: st.Kind,
		AmountMinor: st.Amount.Minor, Currency: st.Amount.Currency, Reference: st.Reference, AsOf: timeOf(st.AsOf), RecordedBy: st.RecordedBy})
	if err != nil {
		return st, wrap(err, "add statement")
	}
	st.RecordedAt = fromTime(at)
	return st, told()
}

// beforeReview makes sure that what is said about a period comes into its pack: the period is not in review, nor closed, nor will it be before this
// transaction ends. What is returned tells the period's close, if one runs.
func (c *Catalog) beforeReview(ctx context.Context, entity string, period ledger.Period) (func() error, error) {
	p, err := c.q.LockPeriod(ctx, entity, string(period))
	if errors.Is(err, pgx.ErrNoRows) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock period: %w", err)
	}
	switch recognition.Status(p.Status) {
	case recognition.Closed:
		return nil, errPeriodClosed(period)
	case recognition.InReview:
		return nil, credit.Errorf(credit.CloseState, "The period %s is in review; reject the close first.", period).With("state", CloseInReview)
	case recognition.SoftClosed:
		return func() error { return askClose(ctx, c.q, "close.signal", CloseKey{entity, period, int(p.Version)}) }, nil
	}
	return func() error { return nil }, nil
}

// periodEvent is the document of a period as the API answers it.
type periodEvent struct {
	LegalEntity string `json:"legal_entity"`
	Period      string `json:"period"`
	Status      string `json:"status"`
	Version     int32  `json:"version"`
	ChangedAt   string `json:"changed_at"`
}

// newPeriodEvent says that a period is soft_closed, closed or reopened now. The transaction holds the period.
func newPeriodEvent(ctx context.Context, q *sqlc.Queries, k CloseKey) (EventRow, error) {
	p, err := q.LockPeriod(ctx, k.Entity, string(k.Period))
	if err != nil {
		return EventRow{}, fmt.Errorf("read period: %w", err)
	}
	return newEvent(credit.CustomerID{}, "period."+p.Status, k.Subject(), "period",
		periodEvent{p.Entity, p.Period, p.Status, p.Version, fromTime(p.ChangedAt).Format(instantLayout)})
}

func (c *Catalog) addPeriodEvent(ctx context.Context, k CloseKey) error {
	e, err := newPeriodEvent(ctx, c.q, k)
	c.events = append(c.events, e)
	return err
}

// canonical writes JSON in one form: members in the order of their names, no white space, nothing escaped that need not be. Documents of the close
// have no fractions: amounts are text.
func canonical(v any) ([]byte, error) {
	first, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(first))
	d.UseNumber()
	var plain any
	if err := d.Decode(&plain); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(plain); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
