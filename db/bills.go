package db

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// StepCostAccrual accrues what the usage of the period cost to serve.
const StepCostAccrual = "cost_accrual"

// lateMonths is how many months before a period may still get usage while it is closed: usage is accepted for 34 days.
const lateMonths = 2

// AccruedLine is compute cost that is booked: debits less credits, in minor units of the entity's currency.
type AccruedLine struct {
	Service            ledger.Period // the month in which the usage was served
	Provider, Currency string        // of the cost; "": the usage did not say by whom it was served
	ledger.ComputeLine
	Minor int64
}

// Accrued says what [Store.AccrueCompute] did.
type Accrued struct {
	Currency string           // of the entity
	Entries  []credit.EntryID // none: nothing had changed
	Lines    []AccruedLine    // all that is accrued of the month now, wherever it is booked, without what comes to nothing
}

type accrualKey struct{ provider, currency string }

// AccrueCompute books what the usage of a month cost to serve, as far as it is not booked: for each provider and currency one entry of the difference
// from what was booked before. Run again, or twice at once, it books nothing more. The cost is what the usage pass has counted: what is not counted yet
// is booked by a later run. A cost in another currency than the entity's is translated at the rate of its day (UTC). A month that takes no more
// entries has the difference booked in the earliest later one that does.
//
// Refusals: entity_not_found; invalid_request, for a month that has not begun; no_fx_rate.
func (s *Store) AccrueCompute(ctx context.Context, entity string, service ledger.Period, rates fx.Policy) (Accrued, error) {
	var done Accrued
	err := s.Tx(ctx, func(tx pgx.Tx) (err error) {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil { // a month of many customers is one statement
			return err
		}
		done, err = accrueCompute(ctx, s.q.WithTx(tx), entity, service, rates)
		return err
	})
	return done, wrap(err, "accrue compute cost of "+entity+" in "+string(service))
}

func accrueCompute(ctx context.Context, q *sqlc.Queries, entity string, service ledger.Period, rates fx.Policy) (Accrued, error) {
	b, err := readCloseBooks(ctx, q, entity)
	if err != nil {
		return Accrued{}, err
	}
	day := ledger.DayOf(b.now, b.calendar)
	if service > day.Period() {
		return Accrued{}, credit.Invalid("/period", "The period %s has not begun.", service)
	}
	last := ledger.DayOf(endOf(service, b.calendar).Add(-time.Nanosecond), b.calendar)
	if err := q.LockCompute(ctx, entity); err != nil {
		return Accrued{}, fmt.Errorf("lock compute cost: %w", err)
	}
	targets, err := computeTargets(ctx, q, entity, b.currency, ledger.Day(service+"-01"), last, rates)
	if err != nil {
		return Accrued{}, err
	}
	booked, err := computeAccrued(ctx, q, entity, service)
	if err != nil {
		return Accrued{}, err
	}
	numbers := make(map[accrualKey]int32)
	before, err := q.ComputeAccruals(ctx, entity, string(service))
	if err != nil {
		return Accrued{}, fmt.Errorf("read accruals: %w", err)
	}
	for _, r := range before {
		numbers[accrualKey{r.Provider, r.Currency}] = r.N
	}
	periods, err := assignPeriods(ctx, q, entity, []ledger.Period{service})
	if err != nil {
		return Accrued{}, err
	}
	done := Accrued{Currency: b.currency}
	var entries []ledger.Entry
	var kept []sqlc.AddComputeAccrualParams
	keys := slices.AppendSeq(slices.Collect(maps.Keys(targets)), maps.Keys(booked))
	slices.SortFunc(keys, func(a, b accrualKey) int {
		return strings.Compare(a.provider+"\x00"+a.currency, b.provider+"\x00"+b.currency)
	})
	for _, k := range slices.Compact(keys) {
		n := numbers[k] + 1
		e := ledger.Compute(ledger.Fact{
			Cause:  fmt.Sprintf("compute/%s/%s/%s/%s/%d", entity, service, url.PathEscape(k.provider), k.currency, n),
			Entity: entity, Currency: b.currency, Day: min(day, last), Period: periods[service],
		}, targets[k], booked[k])
		if !e.Empty() {
			entries, done.Entries = append(entries, e), append(done.Entries, e.ID)
			kept = append(kept, sqlc.AddComputeAccrualParams{Entity: entity, Period: string(service), Provider: k.provider, Currency: k.currency, N: n, EntryID: uuidOf(e.ID)})
		}
		for l, minor := range targets[k] {
			done.Lines = append(done.Lines, AccruedLine{service, k.provider, k.currency, l, minor})
		}
	}
	slices.SortFunc(done.Lines, compareAccrued)
	if err := post(ctx, q, entries); err != nil {
		return Accrued{}, err
	}
	for _, r := range kept {
		if err := q.AddComputeAccrual(ctx, r); err != nil {
			return Accrued{}, fmt.Errorf("keep accrual: %w", err)
		}
	}
	return done, nil
}

// computeTargets is what usage of some days cost, by provider and currency, in minor units of the entity's currency.
func computeTargets(ctx context.Context, q *sqlc.Queries, entity, currency string, first, last ledger.Day, policy fx.Policy) (map[accrualKey]map[ledger.ComputeLine]int64, error) {
	from, err := dateOf(first)
	if err != nil {
		return nil, err
	}
	to, err := dateOf(last)
	if err != nil {
		return nil, err
	}
	rows, err := q.ComputeCosts(ctx, entity, from, to)
	if err != nil {
		return nil, fmt.Errorf("read costs: %w", err)
	}
	places, err := credit.CurrencyPlaces(currency)
	if err != nil {
		return nil, err
	}
	var rates *fx.Table
	exact := make(map[accrualKey]map[ledger.ComputeLine]decimal.Decimal)
	for _, r := range rows {
		if r.Currency != currency && rates == nil {
			if rates, err = ratesSince(ctx, q, from.Time.AddDate(0, 0, -policy.MaxAgeDays-1), policy); err != nil {
				return nil, err
			}
		}
		rate, err := rates.Rate(r.Currency, currency, r.OnDate.Time)
		if err != nil {
			return nil, err
		}
		k := accrualKey{r.Provider, r.Currency}
		if exact[k] == nil {
			exact[k] = make(map[ledger.ComputeLine]decimal.Decimal)
		}
		for account, cost := range map[ledger.Account]decimal.Decimal{ledger.ComputeCost: r.Cost, ledger.PromotionalCompute: r.Promotional} {
			l := ledger.ComputeLine{Account: account, Product: r.Product, Model: r.Model}
			exact[k][l] = exact[k][l].Add(cost.Mul(rate.Rate).Shift(int32(places)))
		}
	}
	targets := make(map[accrualKey]map[ledger.ComputeLine]int64, len(exact))
	for k, costs := range exact {
		targets[k] = ledger.ComputeTarget(costs)
	}
	return targets, nil
}

// ratesSince reads the exchange rates of a day or later.
func ratesSince(ctx context.Context, q *sqlc.Queries, since time.Time, policy fx.Policy) (*fx.Table, error) {
	rows, err := q.FXRatesSince(ctx, onDate(since))
	quotes, err := page(rows, err, "read exchange rates", func(r sqlc.FXRatesSinceRow) fx.Quote {
		return fx.Quote{On: r.OnDate.Time, From: r.FromCurrency, To: r.ToCurrency, Rate: r.Rate, Source: r.Source, No: r.No}
	})
	if err != nil {
		return nil, err
	}
	return fx.NewTable(policy, quotes)
}

// computeAccrued is what is booked of a month of service.
func computeAccrued(ctx context.Context, q *sqlc.Queries, entity string, service ledger.Period) (map[accrualKey]map[ledger.ComputeLine]int64, error) {
	rows, err := q.ComputeAccrued(ctx, entity, string(service))
	if err != nil {
		return nil, fmt.Errorf("read what is accrued: %w", err)
	}
	booked := make(map[accrualKey]map[ledger.ComputeLine]int64)
	for _, r := range rows {
		if ledger.Account(r.Account) == ledger.AccruedCompute || r.Amount == 0 {
			continue
		}
		k := accrualKey{r.Provider, r.Currency}
		if booked[k] == nil {
			booked[k] = make(map[ledger.ComputeLine]int64)
		}
		booked[k][ledger.ComputeLine{Account: ledger.Account(r.Account), Product: r.Product, Model: r.Model}] = r.Amount
	}
	return booked, nil
}

func compareAccrued(a, b AccruedLine) int {
	return slices.Compare([]string{string(a.Service), a.Provider, a.Currency, a.Account.String(), a.Product, a.Model},
		[]string{string(b.Service), b.Provider, b.Currency, b.Account.String(), b.Product, b.Model})
}

type accrualFigures struct {
	Compute     string          `json:"compute"`     // 5010
	Promotional string          `json:"promotional"` // 6010
	Lines       []accrualFigure `json:"lines"`       // booked in the period
}

type accrualFigure struct {
	Service  ledger.Period `json:"service"`
	Provider string        `json:"provider"`
	Currency string        `json:"currency"` // of the cost
	Account  int           `json:"account"`
	Product  string        `json:"product"`
	Model    string        `json:"model"`
	Amount   string        `json:"amount"`
}

// CostAccrual accrues the compute cost of the period, and what has changed of the months before it that were accrued, and lists what is booked of it in
// the period. While the period is in review it only lists: what changes then is booked by the next close.
func (s *Store) CostAccrual(ctx context.Context, k CloseKey, rates fx.Policy) (StepResult, error) {
	c, err := s.PeriodClose(ctx, k)
	if err != nil {
		return StepResult{}, err
	}
	b, err := readCloseBooks(ctx, s.q, k.Entity)
	if err != nil {
		return StepResult{}, err
	}
	r := StepResult{}
	if c.Status == ClosePreparing && c.PeriodStatus == recognition.SoftClosed {
		if r.Blocked, err = s.accrueForClose(ctx, k, endOf(k.Period, b.calendar), rates); err != nil {
			return r, err
		}
	}
	rows, err := s.q.ComputeBooked(ctx, k.Entity, string(k.Period))
	if err != nil {
		return r, fmt.Errorf("read what is accrued: %w", err)
	}
	money := func(minor int64) string { return credit.Money{Minor: minor, Currency: b.currency}.String() }
	f, sums := accrualFigures{Lines: []accrualFigure{}}, make(map[ledger.Account]int64)
	for _, x := range rows {
		a := ledger.Account(x.Account)
		if sums[a] += x.Amount; a == ledger.AccruedCompute || x.Amount == 0 {
			continue
		}
		f.Lines = append(f.Lines, accrualFigure{ledger.Period(x.Service), x.Provider, x.Currency, int(a), x.Product, x.Model, money(x.Amount)})
	}
	f.Compute, f.Promotional = money(sums[ledger.ComputeCost]), money(sums[ledger.PromotionalCompute])
	r.Figures = f
	return r, nil
}

// accrueForClose returns why the cost of a period cannot be accrued; "": it is.
func (s *Store) accrueForClose(ctx context.Context, k CloseKey, ends time.Time, rates fx.Policy) (string, error) {
	behind, err := s.q.UncountedCosts(ctx, k.Entity, timeOf(ends))
	if err != nil {
		return "", fmt.Errorf("look for uncounted usage: %w", err)
	}
	if len(behind) > 0 {
		return "Usage of customer " + credit.CustomerID(behind[0].Bytes).String() + " is not counted yet.", nil
	}
	for p, i := k.Period, 0; i <= lateMonths; p, i = p.Previous(), i+1 {
		if i > 0 {
			if before, err := s.q.ComputeAccruals(ctx, k.Entity, string(p)); err != nil {
				return "", fmt.Errorf("read accruals of %s: %w", p, err)
			} else if len(before) == 0 { // it was closed before costs were accrued: finance has booked them
				continue
			}
		}
		_, err := s.AccrueCompute(ctx, k.Entity, p, rates)
		var refused *credit.Error
		if errors.As(err, &refused) && refused.Code == credit.NoFXRate {
			return "Compute cost of " + string(p) + " cannot be translated: " + strconv.Quote(refused.Detail), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}
