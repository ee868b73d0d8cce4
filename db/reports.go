package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Entity returns a legal entity, or an Error coded entity_not_found.
func (s *Store) Entity(ctx context.Context, code string) (EntityRow, error) {
	e, err := s.q.FindEntity(ctx, code)
	return entityRow(e), found(err, credit.Errorf(credit.EntityNotFound, "There is no legal entity %.40q.", code), "read legal entity")
}

// PeriodRow is an accounting period in which something was booked.
type PeriodRow struct {
	Period    ledger.Period
	Status    recognition.Status
	Version   int
	ChangedAt time.Time
}

// endOfTime is after every period.
const endOfTime ledger.Period = "9999-99"

// Periods returns up to n periods of an entity before one (""; the newest), newest first.
func (s *Store) Periods(ctx context.Context, entity string, before ledger.Period, n int) ([]PeriodRow, error) {
	if before == "" {
		before = endOfTime
	}
	rows, err := s.q.PagePeriods(ctx, entity, string(before), int32(n))
	return page(rows, err, "read periods", func(p sqlc.Period) PeriodRow {
		return PeriodRow{Period: ledger.Period(p.Period), Status: recognition.Status(p.Status), Version: int(p.Version), ChangedAt: fromTime(p.ChangedAt)}
	})
}

// Span is a range of accounting periods, both inclusive. From "" is the beginning: the balance as of the end of To. To "" is today and later.
type Span struct{ From, To ledger.Period }

func (s Span) bounds() (first, last string) {
	if s.To == "" {
		s.To = endOfTime
	}
	return string(s.From), string(s.To)
}

// TrialBalance is what was booked on each account, in minor units of one currency.
type TrialBalance struct {
	Entity, Currency string
	Span             Span
	Accounts         []AccountTotals // in order of code, without those that nothing was booked on
	Debit, Credit    int64           // of all accounts: the same number in sound books
}

// AccountTotals is one line of a trial balance.
type AccountTotals struct {
	Account       ledger.Account
	Name          string
	Type          ledger.AccountType
	Debit, Credit int64
}

// TrialBalance sums what an entity has booked in some periods, by account. An Error coded entity_not_found says that there is no such entity.
func (s *Store) TrialBalance(ctx context.Context, entity string, span Span) (TrialBalance, error) {
	books, err := s.Entity(ctx, entity)
	if err != nil {
		return TrialBalance{}, err
	}
	first, last := span.bounds()
	rows, err := s.q.TrialBalance(ctx, entity, first, last)
	if err != nil {
		return TrialBalance{}, fmt.Errorf("read trial balance: %w", err)
	}
	t := TrialBalance{Entity: entity, Currency: books.Currency, Span: span, Accounts: make([]AccountTotals, len(rows))}
	for i, r := range rows {
		t.Accounts[i] = AccountTotals{
			Account: ledger.Account(r.Account), Name: r.Name, Type: ledger.AccountType(r.Type), Debit: r.Debit, Credit: r.Credit,
		}
		t.Debit += r.Debit
		t.Credit += r.Credit
	}
	return t, nil
}

// RollForward tells how deferred revenue (account 2010) went from one balance to another, in minor units of one currency:
// Opening + Purchases + Concessions - Recognised - Breakage - Refunds - Voids - Disputes - Transfers - Corrections - Adjustments = Closing.
type RollForward struct {
	Customer credit.CustomerID // when it was asked for by customer
	Grant    credit.GrantID    // when it was asked for by grant
	Currency string
	Opening, Purchases, Concessions,
	Recognised, Breakage, Refunds, Voids,
	Disputes, // what was left of grants whose payment was lost
	Transfers, // to other grants, less from other grants: nothing over all customers when both sides are booked
	Corrections, // used credits that were given back: negative
	Adjustments, // of any other kind
	Closing int64
	Late int64 // how much of what left (net of what came in) had happened in periods that took no more entries
}

// Foots tells whether the columns make the closing balance.
func (r RollForward) Foots() bool {
	return r.Opening+r.Purchases+r.Concessions-r.Recognised-r.Breakage-r.Refunds-r.Voids-r.Disputes-r.Transfers-r.Corrections-r.Adjustments == r.Closing
}

// RollForward returns the roll-forward of an entity's deferred revenue, of one customer's when it is not zero. An Error coded entity_not_found
// says that there is no such entity.
func (s *Store) RollForward(ctx context.Context, entity string, span Span, customer credit.CustomerID) (RollForward, error) {
	books, err := s.Entity(ctx, entity)
	if err != nil {
		return RollForward{}, err
	}
	rows, err := s.rollForward(ctx, "", entity, span, customer, pgtype.UUID{Valid: true}, 1)
	if err != nil || len(rows) == 0 {
		return RollForward{Customer: customer, Currency: books.Currency}, err
	}
	r := rollForwardOf(rows[0])
	r.Customer = customer
	return r, nil
}

// RollForwardByCustomer returns up to n customers' roll-forwards in order of id, after one customer.
func (s *Store) RollForwardByCustomer(ctx context.Context, entity string, span Span, after credit.CustomerID, n int) ([]RollForward, error) {
	rows, err := s.rollForward(ctx, "customer", entity, span, credit.CustomerID{}, pgtype.UUID{Bytes: after, Valid: true}, n)
	return page(rows, err, "by customer", func(r sqlc.RollForwardRow) RollForward {
		out := rollForwardOf(r)
		out.Customer = r.Subject.Bytes
		return out
	})
}

// RollForwardByGrant returns up to n grants' roll-forwards in order of id, after one grant; of one customer's when it is not zero.
func (s *Store) RollForwardByGrant(ctx context.Context, entity string, span Span, customer credit.CustomerID, after credit.GrantID, n int) ([]RollForward, error) {
	rows, err := s.rollForward(ctx, "grant", entity, span, customer, pgtype.UUID{Bytes: after, Valid: true}, n)
	return page(rows, err, "by grant", func(r sqlc.RollForwardRow) RollForward {
		out := rollForwardOf(r)
		out.Grant = r.Subject.Bytes
		return out
	})
}

func (s *Store) rollForward(ctx context.Context, by, entity string, span Span, customer credit.CustomerID, after pgtype.UUID, n int) ([]sqlc.RollForwardRow, error) {
	first, last := span.bounds()
	rows, err := queryPlanned[sqlc.RollForwardRow](ctx, s, sqlc.RollForward, by, first, entity, last, uuidOf(customer), after, int32(n))
	if err != nil {
		return nil, fmt.Errorf("read roll-forward: %w", err)
	}
	return rows, nil
}

func rollForwardOf(r sqlc.RollForwardRow) RollForward {
	return RollForward{
		Currency: r.Currency, Opening: r.Opening, Purchases: r.Purchases, Concessions: r.Concessions, Recognised: r.Recognised, Breakage: r.Breakage,
		Refunds: r.Refunds, Voids: r.Voids, Disputes: r.Disputes,
		Transfers: r.Transfers, Corrections: r.Corrections, Adjustments: r.Adjustments, Closing: r.Closing, Late: r.Late,
	}
}
