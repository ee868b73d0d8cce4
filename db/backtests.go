package db

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/backtest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Statuses of back-tests.
const (
	BacktestQueued    = "queued"
	BacktestRunning   = "running"
	BacktestDone      = "done"
	BacktestCancelled = "cancelled"
	BacktestFailed    = "failed"
)

// BacktestKept is how long a back-test is kept from when it was asked for.
const BacktestKept = 30 * 24 * time.Hour

type (
	// BacktestRow is a back-test as it was asked for, and how far it is.
	BacktestRow struct {
		ID                            credit.BacktestID
		Card                          credit.RateCardID   // zero: every card as it was published
		Tested                        string              // what takes the place of the card's version, in words
		Document                      []byte              // it, JSON; nil without a card
		EffectiveAt                   time.Time           // from when on; zero without a card
		From, Until                   time.Time           // [From, Until)
		Customers                     []credit.CustomerID // nil: all
		Status, Fault                 string
		Total, Seen                   int // customers to look at (0 before it has begun) and looked at
		CreatedAt, StartedAt, EndedAt time.Time
		CreatedBy                     string
	}
	// BacktestView is a back-test with what it has found so far.
	BacktestView struct {
		BacktestRow
		Active       int // customers who had something in the period
		Events       int
		Dry          int // customers to whom something would have been refused for want of credits
		FailedTotal  int // customers who could not be tested
		FirstFailure string
	}
	// BacktestLine is one line of a result, summed over customers.
	BacktestLine struct {
		backtest.Line
		Currency string
		Scale    int
	}
	// BacktestCustomerRow is the result of one customer.
	BacktestCustomerRow struct {
		backtest.Result // Lines by unit
		Customer        credit.CustomerID
		External, Fault string
		Scales          []int // of the lines
	}
	// BacktestLineKey is where a page of lines begins.
	BacktestLineKey struct{ Unit, Currency, Product, Model string }
)

func backtestRow(r sqlc.Backtest) BacktestRow {
	b := BacktestRow{ID: r.ID.Bytes, Card: r.CardID.Bytes, Tested: r.Tested, Document: r.Document, EffectiveAt: fromTime(r.EffectiveAt),
		From: fromTime(r.FromAt), Until: fromTime(r.UntilAt), Status: r.Status, Fault: r.Fault, Total: int(r.Total.Int32), Seen: int(r.Seen),
		CreatedAt: fromTime(r.CreatedAt), StartedAt: fromTime(r.StartedAt), EndedAt: fromTime(r.EndedAt), CreatedBy: r.CreatedBy}
	for _, c := range r.Customers {
		b.Customers = append(b.Customers, c.Bytes)
	}
	return b
}

func noBacktest(id credit.BacktestID) *credit.Error {
	return credit.Errorf(credit.BacktestNotFound, "There is no back-test %s.", id)
}

// AddBacktest asks for a back-test; a worker starts it.
func (c *Catalog) AddBacktest(ctx context.Context, b BacktestRow) (BacktestRow, error) {
	p := sqlc.AddBacktestParams{ID: uuidOf(b.ID), CardID: uuidOf(b.Card), Tested: b.Tested, Document: b.Document, EffectiveAt: timeOf(b.EffectiveAt),
		FromAt: timeOf(b.From), UntilAt: timeOf(b.Until), CreatedBy: b.CreatedBy}
	if b.Customers != nil {
		p.Customers = uuids(b.Customers)
	}
	r, err := c.q.AddBacktest(ctx, p)
	if err != nil {
		return b, wrap(err, "add back-test")
	}
	return backtestRow(r), wrap(c.q.AddOutbox(ctx, []string{"backtest.start"}, []string{b.ID.String()}, []string{"{}"}), "ask for the back-test's start")
}

// CancelBacktest ends a back-test that has not ended, or does nothing. What it has found is kept.
func (c *Catalog) CancelBacktest(ctx context.Context, id credit.BacktestID) (BacktestView, error) {
	_, err := c.q.EndBacktest(ctx, BacktestCancelled, "", uuidOf(id))
	switch {
	case err == nil:
		err = c.q.AddOutbox(ctx, []string{"backtest.cancel"}, []string{id.String()}, []string{"{}"})
	case errors.Is(err, pgx.ErrNoRows): // it has ended, or there is none
		err = nil
	}
	if err != nil {
		return BacktestView{}, wrap(err, "cancel back-test")
	}
	return findBacktest(ctx, c.q, id)
}

// Backtest returns a back-test, or an Error coded backtest_not_found.
func (s *Store) Backtest(ctx context.Context, id credit.BacktestID) (BacktestView, error) {
	return findBacktest(ctx, s.q, id)
}

func findBacktest(ctx context.Context, q *sqlc.Queries, id credit.BacktestID) (BacktestView, error) {
	r, err := q.FindBacktest(ctx, uuidOf(id))
	if err != nil {
		return BacktestView{}, found(err, noBacktest(id), "read back-test")
	}
	return BacktestView{BacktestRow: backtestRow(r.Backtest), Active: int(r.TestedCustomers), Events: int(r.Events), Dry: int(r.Dry),
		FailedTotal: int(r.Failed), FirstFailure: r.FirstFault}, nil
}

// BacktestPage returns up to n back-tests below an id, newest first.
func (s *Store) BacktestPage(ctx context.Context, before credit.BacktestID, n int) ([]BacktestRow, error) {
	rows, err := s.q.PageBacktests(ctx, below(before), int32(n))
	return page(rows, err, "read back-tests", backtestRow)
}

// BeginBacktest counts who is to be looked at. It is refused with backtest_ended when the back-test has ended.
func (s *Store) BeginBacktest(ctx context.Context, id credit.BacktestID) (BacktestRow, error) {
	if _, err := s.q.BeginBacktest(ctx, uuidOf(id)); err != nil {
		return BacktestRow{}, found(err, endedBacktest(id), "begin back-test")
	}
	v, err := s.Backtest(ctx, id)
	return v.BacktestRow, err
}

func endedBacktest(id credit.BacktestID) *credit.Error {
	return credit.Errorf(credit.BacktestEnded, "The back-test %s has ended or was removed.", id)
}

// SeeBacktest notes how many customers were looked at. It is refused with backtest_ended when the back-test has ended.
func (s *Store) SeeBacktest(ctx context.Context, id credit.BacktestID, seen int) error {
	_, err := s.q.SeeBacktest(ctx, int32(seen), uuidOf(id))
	return found(err, endedBacktest(id), "note progress")
}

// EndBacktest ends a back-test; one that has ended stays as it ended.
func (s *Store) EndBacktest(ctx context.Context, id credit.BacktestID, status, fault string) error {
	_, err := s.q.EndBacktest(ctx, status, fault, uuidOf(id))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return wrap(err, "end back-test")
}

// BacktestsToEnd returns up to n back-tests after an id that were asked for before an instant and have not ended.
func (s *Store) BacktestsToEnd(ctx context.Context, madeBefore time.Time, after credit.BacktestID, n int) ([]credit.BacktestID, error) {
	rows, err := s.q.BacktestsToEnd(ctx, timeOf(madeBefore), pgtype.UUID{Bytes: after, Valid: true}, int32(n))
	return page(rows, err, "read unfinished back-tests", func(id pgtype.UUID) credit.BacktestID { return id.Bytes })
}

// RemoveBacktests deletes up to n back-tests that are older than [BacktestKept], with their results, and returns how many.
func (s *Store) RemoveBacktests(ctx context.Context, n int) (int, error) {
	removed, err := s.q.RemoveBacktests(ctx, BacktestKept.Seconds(), int32(n))
	return int(removed), wrap(err, "remove back-tests")
}

// CustomersToBacktest returns up to n customers after one, in order of id, who may have operations since an instant: of those named, of all when
// none are.
func (s *Store) CustomersToBacktest(ctx context.Context, b *BacktestRow, after credit.CustomerID, n int) ([]credit.CustomerID, error) {
	p := sqlc.CustomersToBacktestParams{After: pgtype.UUID{Bytes: after, Valid: true}, FromAt: timeOf(b.From), N: int32(n)}
	if b.Customers != nil {
		p.Customers = uuids(b.Customers)
	}
	rows, err := s.q.CustomersToBacktest(ctx, p)
	return page(rows, err, "read customers to test", func(id pgtype.UUID) credit.CustomerID { return id.Bytes })
}

// EveryCard returns all rate cards with everything that was ever published of them, and the exchange rates of a day or later.
func (s *Store) EveryCard(ctx context.Context, ratesSince time.Time) (cards []backtest.Card, quotes []fx.Quote, err error) {
	err = pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		q := sqlc.New(tx)
		if cards, err = s.everyCard(ctx, q); err != nil {
			return err
		}
		rates, err := q.FXRatesSince(ctx, onDate(ratesSince))
		if err != nil {
			return err
		}
		for _, r := range rates {
			quotes = append(quotes, fx.Quote{On: r.OnDate.Time, From: r.FromCurrency, To: r.ToCurrency, Rate: r.Rate, Source: r.Source, No: r.No})
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read every rate card: %w", err)
	}
	return cards, quotes, nil
}

func (s *Store) everyCard(ctx context.Context, q *sqlc.Queries) (cards []backtest.Card, _ error) {
	rows, err := q.EveryRateCardVersion(ctx)
	if err != nil {
		return nil, err
	}
	var versions []published
	for _, r := range rows {
		if r.Version.Valid {
			versions = append(versions, published{r.ID.Bytes, r.Version.Int32, fromTime(r.PublishedAt).UnixMicro()})
		}
	}
	docs, err := s.documents.read(ctx, q, versions)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if n := len(cards); n == 0 || cards[n-1].ID != r.ID.Bytes {
			cards = append(cards, backtest.Card{
				ID: r.ID.Bytes, Code: r.Code, Unit: credit.Unit{Code: r.Unit, Scale: int(r.Scale), Name: r.UnitName}, Default: r.IsDefault,
			})
		}
		if !r.Version.Valid {
			continue
		}
		doc := docs[published{r.ID.Bytes, r.Version.Int32, fromTime(r.PublishedAt).UnixMicro()}]
		c := &cards[len(cards)-1]
		c.Versions = append(c.Versions, backtest.Version{
			Version:     rating.Version{Number: int(r.Version.Int32), EffectiveAt: fromTime(r.EffectiveAt), Doc: doc},
			PublishedAt: fromTime(r.PublishedAt), WithdrawnAt: fromTime(r.WithdrawnAt),
		})
	}
	return cards, nil
}

// Stretch is a part of a customer's history: the versions after After up to Until.
type Stretch struct{ After, Until int64 }

// VersionsBetween returns the versions of a customer's operations that were decided in [from, until).
func (s *Store) VersionsBetween(ctx context.Context, customer credit.CustomerID, from, until time.Time) (stretch Stretch, err error) {
	for _, end := range []struct {
		at  time.Time
		ver *int64
	}{{from, &stretch.After}, {until, &stretch.Until}} {
		if end.at.IsZero() {
			continue
		}
		if *end.ver, err = s.q.VersionAt(ctx, uuidOf(customer), timeOf(end.at.Add(-time.Microsecond))); err != nil {
			return stretch, found(err, noCustomer(customer.String()), "find version")
		}
	}
	return stretch, nil
}

// PastCustomer returns what a customer was made with, and all its grants. Their Wallet has only the ID.
func (s *Store) PastCustomer(ctx context.Context, customer credit.CustomerID) (currency string, card credit.RateCardID, grants []*credit.Grant, err error) {
	c, err := s.q.BacktestedCustomer(ctx, uuidOf(customer))
	if err != nil {
		return "", card, nil, found(err, noCustomer(customer.String()), "read customer")
	}
	rows, err := s.Pool.Query(ctx, sqlc.AllGrants, uuidOf(customer))
	if err != nil {
		return "", card, nil, fmt.Errorf("read grants: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		g, err := scanGrant(rows)
		if err != nil {
			return "", card, nil, fmt.Errorf("read grants: %w", err)
		}
		grants = append(grants, g)
	}
	return c.Currency, c.FirstRateCardID.Bytes, grants, wrap(rows.Err(), "read grants")
}

// BalancesAt returns what a customer's grants had after a version.
func (s *Store) BalancesAt(ctx context.Context, customer credit.CustomerID, ver int64) ([]backtest.Balance, error) {
	rows, err := s.q.GrantsAtVersion(ctx, ver, uuidOf(customer))
	return page(rows, err, "read grants of a version", func(r sqlc.GrantsAtVersionRow) backtest.Balance {
		return backtest.Balance{Grant: r.ID.Bytes, Available: credit.Amount(r.Available), Consumed: credit.Amount(r.Consumed), Drawn: r.Drawn}
	})
}

// PastOperations gives the operations of a stretch to do, n at a time and in order; with shaping only those that are no consumptions. An
// error of do ends it.
func (s *Store) PastOperations(ctx context.Context, customer credit.CustomerID, stretch Stretch, shaping bool, n int, do func([]backtest.Operation) error) error {
	for stretch.After < stretch.Until {
		p := sqlc.OperationsBetweenParams{CustomerID: uuidOf(customer), After: stretch.After, Until: stretch.Until, PageSize: int32(n)}
		var rows []sqlc.OperationsBetweenRow
		var err error
		if shaping {
			var found []sqlc.ShapingOperationsRow
			found, err = s.q.ShapingOperations(ctx, sqlc.ShapingOperationsParams(p))
			rows = make([]sqlc.OperationsBetweenRow, len(found))
			for i, r := range found {
				rows[i] = sqlc.OperationsBetweenRow(r)
			}
		} else {
			rows, err = s.q.OperationsBetween(ctx, p)
		}
		operations, err := page(rows, err, "read operations", func(r sqlc.OperationsBetweenRow) backtest.Operation {
			return backtest.Operation{Ver: r.Ver, Kind: string(r.Kind), Amount: credit.Amount(r.Amount), At: fromTime(r.At), ServiceAt: fromTime(r.ServiceAt),
				Member: r.MemberID.Bytes, Unit: r.Unit.String, Receipt: r.Receipt}
		})
		if err != nil || len(operations) == 0 {
			return err
		}
		if err := do(operations); err != nil {
			return err
		}
		if len(operations) < n {
			return nil
		}
		stretch.After = operations[len(operations)-1].Ver
	}
	return nil
}

// SaveBacktest keeps a customer's result, once: a second one changes nothing. It is refused with backtest_ended when the back-test has ended.
func (s *Store) SaveBacktest(ctx context.Context, id credit.BacktestID, r *BacktestCustomerRow) error {
	return s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		if _, err := q.LockRunningBacktest(ctx, uuidOf(id)); err != nil {
			return found(err, endedBacktest(id), "lock back-test")
		}
		added, err := q.AddBacktestCustomer(ctx, sqlc.AddBacktestCustomerParams{BacktestID: uuidOf(id), CustomerID: uuidOf(r.Customer), Currency: r.Currency,
			Events: int32(r.Events), Refused: int32(r.Refused), RefusedFirst: timeOf(r.RefusedFirst), Unpriced: int32(r.Unpriced), Why: r.Why, Fault: r.Fault})
		if err != nil || added == 0 {
			return wrap(err, "keep a customer's result")
		}
		lines := make([]sqlc.AddBacktestLinesParams, len(r.Lines))
		for i, l := range r.Lines {
			b, t := &l.Booked, &l.Tested
			lines[i] = sqlc.AddBacktestLinesParams{BacktestID: uuidOf(id), CustomerID: uuidOf(r.Customer), Unit: l.Unit, Product: l.Product, Model: l.Model,
				BookedEvents: int32(b.Events), BookedCredits: int64(b.Credits), BookedRevenue: b.Revenue, BookedExpired: int64(b.Expired),
				BookedBreakage: b.Breakage, BookedCosted: int32(b.Costed), BookedCost: b.Cost,
				TestedEvents: int32(t.Events), TestedRefused: int32(t.Refused), TestedUnpriced: int32(t.Unpriced), TestedCredits: int64(t.Credits),
				TestedRevenue: t.Revenue, TestedExpired: int64(t.Expired), TestedBreakage: t.Breakage, TestedCosted: int32(t.Costed), TestedCost: t.Cost}
		}
		_, err = q.AddBacktestLines(ctx, lines)
		return wrap(err, "keep a customer's lines")
	})
}

// BacktestTotals returns the sums by unit and currency, of which there are few.
func (s *Store) BacktestTotals(ctx context.Context, id credit.BacktestID) ([]BacktestLine, error) {
	rows, err := s.q.BacktestTotals(ctx, sqlc.BacktestTotalsParams{ID: uuidOf(id), PageSize: 1000})
	return page(rows, err, "sum up a back-test", backtestLine)
}

// BacktestModels returns up to n sums by unit, currency, product and model after a key, in that order.
func (s *Store) BacktestModels(ctx context.Context, id credit.BacktestID, after BacktestLineKey, n int) ([]BacktestLine, error) {
	rows, err := s.q.BacktestTotals(ctx, sqlc.BacktestTotalsParams{ID: uuidOf(id), ByModel: true, AfterUnit: after.Unit, AfterCurrency: after.Currency,
		AfterProduct: after.Product, AfterModel: after.Model, PageSize: int32(n)})
	return page(rows, err, "sum up a back-test by model", backtestLine)
}

func backtestLine(r sqlc.BacktestTotalsRow) BacktestLine {
	return BacktestLine{Currency: r.Currency, Scale: int(r.Scale), Line: backtest.Line{Unit: r.Unit, Product: r.Product, Model: r.Model,
		Booked: backtest.Figures{Events: int(r.BookedEvents), Credits: credit.Amount(r.BookedCredits), Revenue: r.BookedRevenue,
			Expired: credit.Amount(r.BookedExpired), Breakage: r.BookedBreakage, Costed: int(r.BookedCosted), Cost: r.BookedCost},
		Tested: backtest.Figures{Events: int(r.TestedEvents), Refused: int(r.TestedRefused), Unpriced: int(r.TestedUnpriced),
			Credits: credit.Amount(r.TestedCredits), Revenue: r.TestedRevenue, Expired: credit.Amount(r.TestedExpired), Breakage: r.TestedBreakage,
			Costed: int(r.TestedCosted), Cost: r.TestedCost}}}
}

// BacktestCustomers returns the results of up to n customers after one, in order of id; with dry only of those to whom something would have been
// refused for want of credits.
func (s *Store) BacktestCustomers(ctx context.Context, id credit.BacktestID, dry bool, after credit.CustomerID, n int) ([]BacktestCustomerRow, error) {
	rows, err := s.q.PageBacktestCustomers(ctx, sqlc.PageBacktestCustomersParams{ID: uuidOf(id), After: pgtype.UUID{Bytes: after, Valid: true}, Dry: dry, PageSize: int32(n)})
	customers, err := page(rows, err, "read a back-test's customers", func(r sqlc.PageBacktestCustomersRow) BacktestCustomerRow {
		return BacktestCustomerRow{Customer: r.CustomerID.Bytes, External: r.ExternalID.String, Fault: r.Fault, Result: backtest.Result{Currency: r.Currency,
			Events: int(r.Events), Refused: int(r.Refused), RefusedFirst: fromTime(r.RefusedFirst), Unpriced: int(r.Unpriced), Why: r.Why}}
	})
	if err != nil {
		return nil, err
	}
	ids := make([]pgtype.UUID, len(customers))
	at := make(map[credit.CustomerID]*BacktestCustomerRow, len(customers))
	for i := range customers {
		ids[i], at[customers[i].Customer] = uuidOf(customers[i].Customer), &customers[i]
	}
	totals, err := s.q.BacktestCustomerTotals(ctx, uuidOf(id), ids)
	if err != nil {
		return nil, fmt.Errorf("sum up a back-test by customer: %w", err)
	}
	for _, r := range totals {
		c := at[r.CustomerID.Bytes]
		c.Scales = append(c.Scales, int(r.Scale))
		c.Lines = append(c.Lines, backtestLine(sqlc.BacktestTotalsRow{Unit: r.Unit, Scale: r.Scale,
			BookedEvents: r.BookedEvents, BookedCredits: r.BookedCredits, BookedRevenue: r.BookedRevenue, BookedExpired: r.BookedExpired,
			BookedBreakage: r.BookedBreakage, BookedCosted: r.BookedCosted, BookedCost: r.BookedCost,
			TestedEvents: r.TestedEvents, TestedRefused: r.TestedRefused, TestedUnpriced: r.TestedUnpriced, TestedCredits: r.TestedCredits,
			TestedRevenue: r.TestedRevenue, TestedExpired: r.TestedExpired, TestedBreakage: r.TestedBreakage, TestedCosted: r.TestedCosted,
			TestedCost: r.TestedCost}).Line)
	}
	return customers, nil
}
