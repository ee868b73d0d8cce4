package db

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db/internal/sqlc"
	"github.com/tallystick/tallystick/seal"
)

// post writes entries with their postings and the hash of both; it is the one place that does. The caller's transaction holds the periods that they
// are booked in.
func post(ctx context.Context, q *sqlc.Queries, entries []ledger.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	at, err := q.PostingTime(ctx)
	if err != nil {
		return fmt.Errorf("read the time: %w", err)
	}
	heads := make([]sqlc.AddEntriesParams, len(entries))
	var legs []sqlc.AddPostingsParams
	for i := range entries {
		e := &entries[i]
		if err := e.Check(); err != nil {
			return err
		}
		day, err := dateOf(e.Day)
		if err != nil {
			return err
		}
		sealed := seal.EntryOf(e, fromTime(at))
		leaf := sealed.Leaf()
		heads[i] = sqlc.AddEntriesParams{
			ID: uuidOf(e.ID), Cause: e.Cause, Entity: e.Entity, Period: string(e.Period), ServiceOn: day, PostedAt: at, Kind: string(e.Kind),
			CustomerID: uuidOf(e.Customer), GrantID: uuidOf(e.Grant), VerFrom: numberOf(e.VerFrom), VerTo: numberOf(e.VerTo),
			Late: e.Late(), Reverses: uuidOf(e.Reverses), Leaf: leaf[:], PolicyVersion: int32(e.Policy),
		}
		for n, p := range e.Postings {
			legs = append(legs, sqlc.AddPostingsParams{
				EntryID: uuidOf(e.ID), N: int32(n), Account: int32(p.Account), Side: string(p.Side), AmountMinor: p.Money.Minor, Currency: p.Money.Currency,
				SourceMinor: numberOf(p.Source.Minor), SourceCurrency: textOf(p.Source.Currency), Units: numberOf(int64(p.Units)),
				Product: textOf(p.Product), Model: textOf(p.Model),
			})
		}
	}
	if _, err := q.AddEntries(ctx, heads); err != nil {
		return fmt.Errorf("post %d entries: %w", len(heads), err)
	}
	if _, err := q.AddPostings(ctx, legs); err != nil {
		return fmt.Errorf("post %d postings: %w", len(legs), err)
	}
	return nil
}

// numberOf makes 0 a NULL.
func numberOf(n int64) pgtype.Int8 { return pgtype.Int8{Int64: n, Valid: n != 0} }

func dayOf(d pgtype.Date) ledger.Day { return ledger.DayOf(d.Time, time.UTC) }

func dateOf(d ledger.Day) (pgtype.Date, error) {
	t, err := time.Parse(time.DateOnly, string(d))
	if err != nil {
		return pgtype.Date{}, fmt.Errorf("read day: %w", err)
	}
	return pgtype.Date{Time: t, Valid: true}, nil
}

// EntryRow is a posted entry.
type EntryRow struct {
	ledger.Entry
	No       int64 // the order of posting, with gaps
	PostedAt time.Time
}

// JournalFilter chooses entries of one entity; what is zero lets everything through.
type JournalFilter struct {
	Entity   string // required
	Period   ledger.Period
	Account  ledger.Account // entries with a posting on it
	Customer credit.CustomerID
	Grant    credit.GrantID
}

// Journal returns up to n entries with all their postings, in order of posting, after an entry (zero: from the first one).
// An Error coded not_found says that there is no such entry, one coded entity_not_found that there is no such entity.
func (s *Store) Journal(ctx context.Context, f JournalFilter, after credit.EntryID, n int) ([]EntryRow, error) {
	books, err := s.Entity(ctx, f.Entity)
	if err != nil {
		return nil, err
	}
	var no int64
	if !after.IsZero() {
		if no, err = s.q.EntryNo(ctx, uuidOf(after)); err != nil {
			return nil, found(err, credit.Errorf(credit.NotFound, "There is no journal entry %s.", after), "find journal entry")
		}
	}
	heads, err := queryPlanned[sqlc.JournalEntry](ctx, s, sqlc.Journal,
		f.Entity, no, textOf(string(f.Period)), uuidOf(f.Customer), uuidOf(f.Grant), int32(f.Account), int32(n))
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	entries, byID := make([]EntryRow, len(heads)), make(map[credit.EntryID]*EntryRow, len(heads))
	ids := make([]pgtype.UUID, len(heads))
	for i, h := range heads {
		ids[i] = h.ID
		entries[i] = EntryRow{No: h.No, PostedAt: fromTime(h.PostedAt), Entry: ledger.Entry{
			ID: h.ID.Bytes, Kind: ledger.Kind(h.Kind), Reverses: h.Reverses.Bytes,
			Fact: ledger.Fact{
				Cause: h.Cause, Entity: h.Entity, Currency: books.Currency, Day: dayOf(h.ServiceOn), Period: ledger.Period(h.Period),
				Customer: h.CustomerID.Bytes, Grant: h.GrantID.Bytes, VerFrom: h.VerFrom.Int64, VerTo: h.VerTo.Int64,
				Policy: int(h.PolicyVersion),
			},
		}}
		byID[h.ID.Bytes] = &entries[i]
	}
	legs, err := s.q.ReadPostings(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read postings: %w", err)
	}
	for _, l := range legs {
		e := byID[l.EntryID.Bytes]
		e.Postings = append(e.Postings, postingOf(l))
	}
	return entries, nil
}

func postingOf(l sqlc.Posting) ledger.Posting {
	return ledger.Posting{
		Account: ledger.Account(l.Account), Side: ledger.Side(l.Side), Money: credit.Money{Minor: l.AmountMinor, Currency: l.Currency},
		Source: credit.Money{Minor: l.SourceMinor.Int64, Currency: l.SourceCurrency.String}, Units: credit.Amount(l.Units.Int64),
		Product: l.Product.String, Model: l.Model.String,
	}
}

// queryPlanned runs a query whose filters are optional. It is planned for the values given: a plan for all values would serve none of them.
func queryPlanned[R any](ctx context.Context, s *Store, query string, args ...any) ([]R, error) {
	rows, err := s.Pool.Query(ctx, query, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[R])
}

// Settlement says how a refund was paid out.
type Settlement struct {
	Method, Reference string
	At                time.Time
	Entry             credit.EntryID // zero: there was nothing to pay
}

// SettleRefund records that a refund was paid out, and posts it. The first settlement stands: a later call changes nothing and returns it, and
// so does a call for a refund with nothing to pay, whose settlement is zero. An Error coded refund_not_found says that there is none.
func (s *Store) SettleRefund(ctx context.Context, refund credit.RefundID, how Settlement) (Settlement, error) {
	r, err := s.Refund(ctx, refund)
	if err != nil {
		return Settlement{}, err
	}
	// What is owed is posted before it is paid, so that the liability is never negative.
	if _, err := s.RecogniseCustomer(ctx, r.Customer); err != nil {
		return Settlement{}, err
	}
	var settled Settlement
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		settled, err = settleRefund(ctx, s.q.WithTx(tx), refund, how)
		return err
	})
	if err != nil {
		return Settlement{}, fmt.Errorf("settle refund %s: %w", refund, err)
	}
	return settled, nil
}

func settleRefund(ctx context.Context, q *sqlc.Queries, refund credit.RefundID, how Settlement) (Settlement, error) {
	r, err := q.LockRefund(ctx, uuidOf(refund))
	if err != nil {
		return Settlement{}, fmt.Errorf("lock: %w", err)
	}
	cause := "refund/" + refund.String() + "/settle"
	amount := ledger.Sum{Minor: r.BasisMinor + r.TaxBasisMinor, Source: credit.Money{Minor: r.MoneyMinor + r.TaxMinor, Currency: r.Currency.String}}
	switch r.Status {
	case "nothing_to_pay":
		return Settlement{}, nil
	case "settled":
		done := Settlement{Method: r.SettlementMethod.String, Reference: r.SettlementRef.String, At: fromTime(r.SettledAt)}
		if amount.Minor > 0 {
			done.Entry = ledger.EntryID(cause)
		}
		return done, nil
	}
	if how.At.IsZero() {
		return Settlement{}, errors.New("it is not said when it was paid")
	}
	calendar, err := time.LoadLocation(r.TimeZone)
	if err != nil {
		return Settlement{}, fmt.Errorf("read calendar of entity %s: %w", r.Entity, err)
	}
	day := ledger.DayOf(how.At, calendar)
	periods, err := assignPeriods(ctx, q, r.Entity, []ledger.Period{day.Period()})
	if err != nil {
		return Settlement{}, err
	}
	e := ledger.Settlement(ledger.Fact{
		Cause: cause, Entity: r.Entity, Currency: r.EntityCurrency, Day: day, Period: periods[day.Period()], Customer: r.CustomerID.Bytes, Grant: r.GrantID.Bytes,
	}, ledger.PaidFrom(how.Method), amount)
	how.Entry = credit.EntryID{}
	if !e.Empty() {
		how.Entry = e.ID
		if err := post(ctx, q, []ledger.Entry{e}); err != nil {
			return Settlement{}, err
		}
	}
	err = q.MarkRefundSettled(ctx, sqlc.MarkRefundSettledParams{
		ID: uuidOf(refund), Method: textOf(how.Method), Reference: textOf(how.Reference), SettledAt: timeOf(how.At),
	})
	if err != nil {
		return how, err
	}
	return how, addSettledEvent(ctx, q, refund)
}
