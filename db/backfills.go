package db

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Statuses of backfills.
const (
	BackfillStaging     = "staging"
	BackfillPreviewing  = "previewing"
	BackfillPreviewed   = "previewed"
	BackfillApplying    = "applying"
	BackfillApplied     = "applied"
	BackfillWithdrawing = "withdrawing"
	BackfillWithdrawn   = "withdrawn"
)

// What would become of a staged event, and what has.
const (
	StagedChargeable = "chargeable"
	StagedDuplicate  = "duplicate" // it was consumed before, by whatever way
	StagedRefused    = "refused"
	StagedConsumed   = "consumed"
	StagedWithdrawn  = "withdrawn" // what it consumed was given back
	StagedKept       = "kept"      // what it consumed could not be given back
)

// Bounds of backfills.
const (
	MaxBackfillEvents = 1_000_000
	PreviewKept       = 24 * time.Hour // for so long a preview can be applied
)

type (
	// BackfillRow is a backfill.
	BackfillRow struct {
		ID                                credit.BackfillID
		Name, Reason, Status              string
		Events                            int // staged
		Previews                          int // asked for so far
		PreviewHash                       string
		PreviewedAt                       time.Time // zero: there is no preview
		AllowPartial                      bool      // what the preview refuses is left out
		Fault                             string    // why its application was taken back; "": it was not, or a person asked for it
		CreatedAt, AppliedAt, WithdrawnAt time.Time
		CreatedBy, AppliedBy, WithdrawnBy int32
		Withdrawal                        string // reason
	}
	// BackfillCounts are numbers of events: by the newest preview, and by what has become of them.
	BackfillCounts struct {
		Chargeable, Duplicates, Refused                             int
		Consumed, ConsumedElsewhere, RefusedAtLast, Withdrawn, Kept int
		First, Last                                                 time.Time // of the services; zero: there is no event
	}
	// BackfillTotal sums credits of a customer, unit and model.
	BackfillTotal struct {
		Customer    credit.CustomerID
		Named       string // as the events name it
		Unit, Model string // Model "": none is said
		Scale       int
		Events      int
		Amount      credit.Amount
	}
	// BackfillRefusal counts events that are refused for one reason. Detail is one of theirs.
	BackfillRefusal struct {
		Code   credit.Code
		Detail string
		Events int
	}
	// BackfillPeriod is an accounting period of a legal entity in which services were given.
	BackfillPeriod struct {
		Entity, Period, Status string
		Events                 int
	}
	// BackfillWallet is what a wallet would have before and after.
	BackfillWallet struct {
		Wallet        credit.WalletID
		Customer      credit.CustomerID // not set by a rehearsal
		Unit          string
		Scale         int // not set by a rehearsal
		Before, After credit.Amount
	}
	// BackfillView is a backfill with what its preview says.
	BackfillView struct {
		BackfillRow
		BackfillCounts
		Totals   []BackfillTotal // the largest first, up to [MaxBackfillLines]
		Refusals []BackfillRefusal
		Periods  []BackfillPeriod
		Dry      []BackfillWallet // that would have nothing left, up to [MaxBackfillLines]
	}
	// StagedEvent is a usage event of a backfill.
	StagedEvent struct {
		N                    int // in the order of staging
		Request              Digest
		Source, EventID, Key string
		Named                string            // the customer, as the event names it
		Customer             credit.CustomerID // zero: nobody had the name
		ServiceAt            time.Time
		Body                 string // as POST /v1/consume takes it
		Preview, Result      string // "": not known yet
		Code, Detail         string
		Unit                 string
		Amount               credit.Amount
		Model                string
		Ver                  int64
	}
	// StagedAnswer says what staging an event came to.
	StagedAnswer struct{ Duplicate, Mismatch bool }
	// StagedNote is what is noted of a staged event: what would become of it, or what has. Amount counts with Unit.
	StagedNote struct {
		N            int
		Outcome      string
		Code         credit.Code
		Detail, Unit string
		Amount       credit.Amount
		Ver          int64
	}
	// StagedPlace is where a page of staged events begins.
	StagedPlace struct {
		Customer credit.CustomerID `json:"customer"`
		At       time.Time         `json:"at"`
		N        int               `json:"n"`
	}
)

// MaxBackfillLines bounds the lines of a view.
const MaxBackfillLines = 1_000

func backfillRow(r sqlc.Backfill) BackfillRow {
	return BackfillRow{ID: r.ID.Bytes, Name: r.Name, Reason: r.Reason, Status: r.Status, Events: int(r.Events), Previews: int(r.Previews),
		PreviewHash: r.PreviewHash.String, PreviewedAt: fromTime(r.PreviewedAt), AllowPartial: r.AllowPartial, Fault: r.Fault, CreatedAt: fromTime(r.CreatedAt),
		AppliedAt: fromTime(r.AppliedAt), WithdrawnAt: fromTime(r.WithdrawnAt), CreatedBy: r.CreatedBy, AppliedBy: r.AppliedBy.Int32,
		WithdrawnBy: r.WithdrawnBy.Int32, Withdrawal: r.Withdrawal.String}
}

func stagedEvent(r sqlc.BackfillEvent) StagedEvent {
	return StagedEvent{N: int(r.N), Request: r.Request.Bytes, Source: r.Source, EventID: r.EventID, Key: r.Key, Named: r.Customer, Customer: r.CustomerID.Bytes,
		ServiceAt: fromTime(r.ServiceAt), Body: r.Body, Preview: r.Preview.String, Result: r.Result.String, Code: r.Code.String, Detail: r.Detail.String,
		Unit: r.Unit.String, Amount: credit.Amount(r.Amount.Int64), Model: r.Model.String, Ver: r.Ver.Int64}
}

func noBackfill(id credit.BackfillID) *credit.Error {
	return credit.Errorf(credit.BackfillNotFound, "There is no backfill %s.", id)
}

func backfillIs(r BackfillRow, want string) *credit.Error {
	return credit.Errorf(credit.BackfillState, "The backfill is %s; %s.", r.Status, want).With("state", r.Status)
}

// AddBackfill makes a backfill without events.
func (c *Catalog) AddBackfill(ctx context.Context, b BackfillRow) (BackfillRow, error) {
	r, err := c.q.AddBackfill(ctx, sqlc.AddBackfillParams{ID: uuidOf(b.ID), Name: b.Name, Reason: b.Reason, CreatedBy: b.CreatedBy})
	return backfillRow(r), wrap(err, "add backfill")
}

// Backfill returns a backfill, or an Error coded backfill_not_found.
func (s *Store) Backfill(ctx context.Context, id credit.BackfillID) (BackfillRow, error) {
	r, err := s.q.FindBackfill(ctx, uuidOf(id))
	return backfillRow(r), found(err, noBackfill(id), "read backfill")
}

// BackfillPage returns up to n backfills below an id, newest first.
func (s *Store) BackfillPage(ctx context.Context, before credit.BackfillID, n int) ([]BackfillRow, error) {
	rows, err := s.q.PageBackfills(ctx, below(before), int32(n))
	return page(rows, err, "read backfills", backfillRow)
}

// BackfillView returns a backfill with what its preview says, all of one instant, or an Error coded backfill_not_found.
func (s *Store) BackfillView(ctx context.Context, id credit.BackfillID) (v BackfillView, err error) {
	err = pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		r, err := q.FindBackfill(ctx, uuidOf(id))
		if err != nil {
			return found(err, noBackfill(id), "read backfill")
		}
		v.BackfillRow = backfillRow(r)
		n, err := q.CountBackfill(ctx, r.ID)
		if err != nil {
			return wrap(err, "count staged events")
		}
		v.BackfillCounts = BackfillCounts{Chargeable: int(n.Chargeable), Duplicates: int(n.Duplicates), Refused: int(n.Refused), Consumed: int(n.Consumed),
			ConsumedElsewhere: int(n.ConsumedElsewhere), RefusedAtLast: int(n.RefusedAtLast), Withdrawn: int(n.Withdrawn), Kept: int(n.Kept),
			First: fromTime(n.FirstAt), Last: fromTime(n.LastAt)}
		totals, err := q.BackfillTotals(ctx, r.ID, MaxBackfillLines)
		if v.Totals, err = page(totals, err, "sum staged events", func(t sqlc.BackfillTotalsRow) BackfillTotal {
			return BackfillTotal{Customer: t.CustomerID.Bytes, Named: t.Customer, Unit: t.Unit, Model: t.Model, Scale: int(t.Scale), Events: int(t.Events),
				Amount: credit.Amount(t.Amount)}
		}); err != nil {
			return err
		}
		refusals, err := q.BackfillRefusals(ctx, r.ID)
		if v.Refusals, err = page(refusals, err, "count refusals", func(f sqlc.BackfillRefusalsRow) BackfillRefusal {
			return BackfillRefusal{credit.Code(f.Code), f.Detail, int(f.Events)}
		}); err != nil {
			return err
		}
		periods, err := q.BackfillPeriods(ctx, r.ID)
		if v.Periods, err = page(periods, err, "find periods", func(p sqlc.BackfillPeriodsRow) BackfillPeriod {
			return BackfillPeriod{p.Entity, p.Period, p.Status, int(p.Events)}
		}); err != nil {
			return err
		}
		dry, err := q.BackfillDry(ctx, r.ID, MaxBackfillLines)
		v.Dry, err = page(dry, err, "find wallets", func(w sqlc.BackfillDryRow) BackfillWallet {
			return BackfillWallet{Wallet: w.WalletID.Bytes, Customer: w.CustomerID.Bytes, Unit: w.Unit, Scale: int(w.Scale), Before: credit.Amount(w.Before)}
		})
		return err
	})
	return v, err
}

// StagedPage returns up to n events of a backfill after a number; outcome chooses among them, "" lets all through.
func (s *Store) StagedPage(ctx context.Context, id credit.BackfillID, outcome string, after, n int) ([]StagedEvent, error) {
	rows, err := s.q.PageStagedEvents(ctx, sqlc.PageStagedEventsParams{BackfillID: uuidOf(id), After: int32(after), Outcome: textOf(outcome), PageSize: int32(n)})
	return page(rows, err, "read staged events", stagedEvent)
}

// StageEvents adds events to a backfill, each key once, in one transaction. A preview that was made is none any more. The refusals are backfill_not_found,
// backfill_state, and too_large.
func (s *Store) StageEvents(ctx context.Context, id credit.BackfillID, events []StagedEvent) ([]StagedAnswer, error) {
	out := make([]StagedAnswer, len(events))
	err := s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		r, err := q.LockBackfill(ctx, uuidOf(id))
		if err != nil {
			return found(err, noBackfill(id), "lock backfill")
		}
		b := backfillRow(r)
		if b.Status != BackfillStaging && b.Status != BackfillPreviewed {
			return backfillIs(b, "events are staged before it is applied, and not while it is previewed")
		}
		p := sqlc.StageEventsParams{BackfillID: r.ID, LastN: r.LastN}
		for i := range events {
			e := &events[i]
			p.Digests = append(p.Digests, pgtype.UUID{Bytes: keyDigest(e.Key), Valid: true})
			p.Requests = append(p.Requests, pgtype.UUID{Bytes: e.Request, Valid: true})
			p.Sources, p.EventIds, p.Keys = append(p.Sources, e.Source), append(p.EventIds, e.EventID), append(p.Keys, e.Key)
			p.Customers, p.CustomerIds = append(p.Customers, e.Named), append(p.CustomerIds, uuidOf(e.Customer))
			p.ServiceAts, p.Bodies, p.Models = append(p.ServiceAts, timeOf(e.ServiceAt)), append(p.Bodies, e.Body), append(p.Models, e.Model)
		}
		added, err := q.StageEvents(ctx, p)
		if err != nil {
			return err
		}
		if b.Events+len(added) > MaxBackfillEvents {
			return credit.Errorf(credit.TooLarge, "A backfill has at most %d events.", MaxBackfillEvents).With("limit", MaxBackfillEvents)
		}
		fresh := make(map[Digest]bool, len(added))
		for _, d := range added {
			fresh[d.Bytes] = true
		}
		staged, err := q.StagedRequests(ctx, r.ID, p.Digests)
		if err != nil {
			return err
		}
		requests := make(map[Digest]Digest, len(staged))
		for _, e := range staged {
			requests[e.Digest.Bytes] = e.Request.Bytes
		}
		for i := range events {
			digest := p.Digests[i].Bytes
			out[i].Mismatch = requests[digest] != events[i].Request
			out[i].Duplicate = !out[i].Mismatch && !fresh[digest]
			delete(fresh, digest) // a second one of the same call is a repetition
		}
		if len(added) == 0 {
			return nil
		}
		return q.NoteStaged(ctx, int32(len(added)), int32(len(events)), r.ID)
	})
	return out, wrap(err, "stage events")
}

func (c *Catalog) lockBackfill(ctx context.Context, id credit.BackfillID) (BackfillRow, error) {
	r, err := c.q.LockBackfill(ctx, uuidOf(id))
	return backfillRow(r), found(err, noBackfill(id), "lock backfill")
}

// run has a worker go on with a backfill.
func (c *Catalog) run(ctx context.Context, r sqlc.Backfill, err error) (BackfillRow, error) {
	if err != nil {
		return BackfillRow{}, wrap(err, "ask for a backfill's run")
	}
	b := backfillRow(r)
	return b, wrap(c.q.AddOutbox(ctx, []string{"backfill.start"}, []string{b.ID.String()}, []string{"{}"}), "ask for a backfill's run")
}

// PreviewBackfill asks for a preview. The refusals are backfill_not_found and backfill_state, here and below.
func (c *Catalog) PreviewBackfill(ctx context.Context, id credit.BackfillID) (BackfillRow, error) {
	b, err := c.lockBackfill(ctx, id)
	if err != nil {
		return b, err
	}
	if b.Status != BackfillStaging && b.Status != BackfillPreviewed || b.Events == 0 {
		return b, backfillIs(b, "what is previewed has events and was not applied")
	}
	r, err := c.q.AskPreview(ctx, uuidOf(id))
	return c.run(ctx, r, err)
}

// ApplyBackfill has a backfill applied. It is refused with preview_changed unless hash is that of its preview of the last [PreviewKept], and with
// backfill_state when the preview refuses events and partial does not say that these are left out.
func (c *Catalog) ApplyBackfill(ctx context.Context, id credit.BackfillID, hash string, partial bool, by int32) (BackfillRow, error) {
	b, err := c.lockBackfill(ctx, id)
	switch {
	case err != nil:
		return b, err
	case b.Status == BackfillStaging:
		return b, credit.Errorf(credit.PreviewChanged, "There is no preview of all that is staged.")
	case b.Status != BackfillPreviewed:
		return b, backfillIs(b, "what is applied was previewed")
	case b.PreviewHash != hash:
		return b, credit.Errorf(credit.PreviewChanged, "The newest preview has the hash %s.", b.PreviewHash)
	}
	now, err := c.q.ReadClock(ctx)
	if err != nil {
		return b, wrap(err, "read the clock")
	}
	if fromTime(now).Sub(b.PreviewedAt) > PreviewKept {
		return b, credit.Errorf(credit.PreviewChanged, "The preview is older than %s.", PreviewKept)
	}
	n, err := c.q.CountBackfill(ctx, uuidOf(id))
	if err != nil {
		return b, wrap(err, "count staged events")
	}
	if n.Refused > 0 && !partial {
		return b, backfillIs(b, "events are refused by its preview: mend that, or leave them out with allow_partial").With("refused", n.Refused)
	}
	r, err := c.q.AskApplication(ctx, partial, by, uuidOf(id))
	return c.run(ctx, r, err)
}

// WithdrawBackfill drops a backfill that was not applied, or has all that it consumed given back. While it is being applied that is refused: a page that is under way
// could consume behind the back of what is given back.
func (c *Catalog) WithdrawBackfill(ctx context.Context, id credit.BackfillID, reason string, by int32) (BackfillRow, error) {
	b, err := c.lockBackfill(ctx, id)
	switch {
	case err != nil:
		return b, err
	case b.Status == BackfillStaging || b.Status == BackfillPreviewing || b.Status == BackfillPreviewed:
		r, err := c.q.WithdrawStaged(ctx, by, reason, uuidOf(id))
		if err != nil {
			return b, wrap(err, "withdraw backfill")
		}
		b = backfillRow(r)
		return b, c.AddEvent(credit.CustomerID{}, "backfill.withdrawn", id.String(), "backfill", backfillEventOf(b))
	case b.Status == BackfillApplied:
		r, err := c.q.AskWithdrawal(ctx, sqlc.AskWithdrawalParams{WithdrawnBy: by, Withdrawal: reason, ID: uuidOf(id)})
		return c.run(ctx, r, err)
	}
	return b, backfillIs(b, "what is being applied is withdrawn afterwards, and what is withdrawn stays so")
}

// backfillEvent is what the outside hears of a backfill.
type backfillEvent struct {
	ID     credit.BackfillID `json:"id"`
	Name   string            `json:"name"`
	Status string            `json:"status"`
	Events int               `json:"events"` // staged
	Fault  string            `json:"fault"`  // why its application was taken back; "": it was not
}

func backfillEventOf(b BackfillRow) backfillEvent {
	return backfillEvent{b.ID, b.Name, b.Status, b.Events, b.Fault}
}

// BackfillsToRun returns the backfills that wait for a worker, in order of id.
func (s *Store) BackfillsToRun(ctx context.Context) ([]credit.BackfillID, error) {
	rows, err := s.q.BackfillsToRun(ctx)
	return page(rows, err, "read backfills to run", func(id pgtype.UUID) credit.BackfillID { return id.Bytes })
}

// BeginPreview forgets an earlier preview, and refuses the events of customers that there are not. When no preview is asked for it does nothing.
func (s *Store) BeginPreview(ctx context.Context, id credit.BackfillID) error {
	err := s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		r, err := q.LockBackfill(ctx, uuidOf(id))
		if err != nil || r.Status != BackfillPreviewing {
			return found(err, noBackfill(id), "lock backfill")
		}
		return errors.Join(q.ForgetPreview(ctx, uuidOf(id)), q.ForgetPreviewWallets(ctx, uuidOf(id)), q.FindStagedCustomers(ctx, uuidOf(id)),
			q.RefuseUnknownCustomers(ctx, string(credit.CustomerNotFound), "There is no customer of this name.", uuidOf(id)))
	})
	return wrap(err, "begin preview")
}

// NextStagedCustomer returns the first customer after one that a backfill has events of; zero: there is none.
func (s *Store) NextStagedCustomer(ctx context.Context, id credit.BackfillID, after credit.CustomerID) (credit.CustomerID, error) {
	next, err := s.q.NextStagedCustomer(ctx, uuidOf(id), pgtype.UUID{Bytes: after, Valid: true})
	if errors.Is(err, pgx.ErrNoRows) {
		return credit.CustomerID{}, nil
	}
	return next.Bytes, wrap(err, "find the next customer of a backfill")
}

// StagedOfCustomer returns up to n events of a customer after a place, in the order in which they are consumed.
func (s *Store) StagedOfCustomer(ctx context.Context, id credit.BackfillID, after StagedPlace, n int) ([]StagedEvent, error) {
	rows, err := s.q.StagedOfCustomer(ctx, sqlc.StagedOfCustomerParams{BackfillID: uuidOf(id), CustomerID: uuidOf(after.Customer), AfterAt: placeTime(after),
		AfterN: int32(after.N), PageSize: int32(n)})
	return page(rows, err, "read staged events", stagedEvent)
}

func placeTime(p StagedPlace) pgtype.Timestamptz {
	if p.At.IsZero() {
		return pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	}
	return timeOf(p.At)
}

// keysKept is for how long the key of an operation is kept at least, less a margin for clocks.
const keysKept = 40 * 24 * time.Hour

// ConsumedLongAgo returns, by their numbers, which of a customer's staged events have become operations so long ago that their keys may have been forgotten.
func (s *Store) ConsumedLongAgo(ctx context.Context, id credit.BackfillID, customer credit.CustomerID) (map[int]int64, error) {
	rows, err := s.q.ConsumedLongAgo(ctx, uuidOf(id), uuidOf(customer), timeOf(time.Now().Add(-keysKept)))
	if err != nil {
		return nil, wrap(err, "look for operations of staged events")
	}
	out := make(map[int]int64, len(rows))
	for _, r := range rows {
		out[int(r.N)] = r.Ver
	}
	return out, nil
}

// NotePreviews notes what would become of events, as long as the preview is not over.
func (s *Store) NotePreviews(ctx context.Context, id credit.BackfillID, notes []StagedNote) error {
	p := sqlc.NotePreviewsParams{BackfillID: uuidOf(id)}
	for _, n := range notes {
		p.Ns, p.Previews, p.Codes = append(p.Ns, int32(n.N)), append(p.Previews, n.Outcome), append(p.Codes, string(n.Code))
		p.Details, p.Units, p.Amounts = append(p.Details, n.Detail), append(p.Units, n.Unit), append(p.Amounts, int64(n.Amount))
	}
	return wrap(s.q.NotePreviews(ctx, p), "note previews")
}

// NotePreviewWallets notes what a customer's wallets would have left.
func (s *Store) NotePreviewWallets(ctx context.Context, id credit.BackfillID, customer credit.CustomerID, wallets []BackfillWallet) error {
	p := sqlc.NotePreviewWalletsParams{BackfillID: uuidOf(id), CustomerID: uuidOf(customer)}
	for _, w := range wallets {
		p.Wallets, p.Units = append(p.Wallets, uuidOf(w.Wallet)), append(p.Units, w.Unit)
		p.Befores, p.Afters = append(p.Befores, int64(w.Before)), append(p.Afters, int64(w.After))
	}
	return wrap(s.q.NotePreviewWallets(ctx, p), "note wallets of a preview")
}

// EndPreview makes a preview the one that can be applied, under the SHA-256 of all that is staged and of what would become of it. One that was withdrawn meanwhile
// stays so. alive is called now and then.
func (s *Store) EndPreview(ctx context.Context, id credit.BackfillID, previews int, alive func()) error {
	const pageSize = 5_000
	sum := sha256.New()
	for after := int32(0); ; {
		rows, err := s.q.StagedAfter(ctx, uuidOf(id), after, pageSize)
		if err != nil {
			return wrap(err, "read staged events")
		}
		for _, r := range rows {
			fmt.Fprintf(sum, "%x %x %s %s %s %d\n", r.Digest.Bytes, r.Request.Bytes, r.Preview, r.Code, r.Unit, r.Amount)
			after = r.N
		}
		if len(rows) < pageSize {
			break
		}
		alive()
	}
	_, err := s.q.EndPreview(ctx, hex.EncodeToString(sum.Sum(nil)), uuidOf(id), int32(previews))
	return wrap(err, "end preview")
}

// EventsToApply returns up to n events after a place that are to be consumed and not yet known to be, in the order in which they are consumed.
func (s *Store) EventsToApply(ctx context.Context, id credit.BackfillID, after StagedPlace, n int) ([]StagedEvent, error) {
	rows, err := s.q.EventsToApply(ctx, sqlc.EventsToApplyParams{BackfillID: uuidOf(id), AfterCustomer: pgtype.UUID{Bytes: after.Customer, Valid: true},
		AfterAt: placeTime(after), AfterN: int32(after.N), PageSize: int32(n)})
	return page(rows, err, "read events to apply", stagedEvent)
}

// NoteResults notes what has become of events.
func (s *Store) NoteResults(ctx context.Context, id credit.BackfillID, notes []StagedNote) error {
	if len(notes) == 0 {
		return nil
	}
	p := sqlc.NoteResultsParams{BackfillID: uuidOf(id)}
	for _, n := range notes {
		p.Ns, p.Results, p.Vers, p.Codes = append(p.Ns, int32(n.N)), append(p.Results, n.Outcome), append(p.Vers, n.Ver), append(p.Codes, string(n.Code))
		p.Details, p.Units, p.Amounts = append(p.Details, n.Detail), append(p.Units, n.Unit), append(p.Amounts, int64(n.Amount))
	}
	return wrap(s.q.NoteResults(ctx, p), "note results")
}

// OperationKey names an operation.
type OperationKey struct {
	Customer credit.CustomerID
	Ver      int64
}

// OperationsOfBackfill returns which of these operations a backfill has made.
func (s *Store) OperationsOfBackfill(ctx context.Context, id credit.BackfillID, operations []OperationKey) (map[OperationKey]bool, error) {
	customers, vers := make([]credit.CustomerID, len(operations)), make([]int64, len(operations))
	for i, o := range operations {
		customers[i], vers[i] = o.Customer, o.Ver
	}
	rows, err := s.q.OperationsOfRequest(ctx, uuids(customers), vers, uuidOf(id))
	if err != nil {
		return nil, wrap(err, "find operations of a backfill")
	}
	out := make(map[OperationKey]bool, len(rows))
	for _, r := range rows {
		out[OperationKey{r.CustomerID.Bytes, r.Ver}] = true
	}
	return out, nil
}

// EventsToWithdraw returns up to n events that were consumed and are not given back, the last first.
func (s *Store) EventsToWithdraw(ctx context.Context, id credit.BackfillID, n int) ([]StagedEvent, error) {
	rows, err := s.q.EventsToWithdraw(ctx, uuidOf(id), int32(n))
	return page(rows, err, "read events to withdraw", stagedEvent)
}

// TakeBack turns an application into its withdrawal, because of an event that was refused.
func (s *Store) TakeBack(ctx context.Context, id credit.BackfillID, fault string) error {
	err := s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		r, err := q.LockBackfill(ctx, uuidOf(id))
		if err != nil || r.Status != BackfillApplying {
			return err
		}
		_, err = q.AskWithdrawal(ctx, sqlc.AskWithdrawalParams{WithdrawnBy: 0, Withdrawal: "An event was refused", Fault: fault, ID: r.ID})
		return err
	})
	return wrap(err, "take a backfill back")
}

// EndBackfill ends the application or the withdrawal of a backfill, and tells the outside. One that has ended stays as it ended.
func (s *Store) EndBackfill(ctx context.Context, id credit.BackfillID, status string) error {
	err := s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		end := q.EndApplication
		if status == BackfillWithdrawn {
			end = q.EndWithdrawal
		}
		r, err := end(ctx, uuidOf(id))
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return addEvent(ctx, q, credit.CustomerID{}, "backfill."+status, id.String(), "backfill", backfillEventOf(backfillRow(r)))
	})
	return wrap(err, "end backfill")
}
