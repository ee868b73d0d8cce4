package balance

import (
	"context"
	"fmt"
	"time"

	"github.com/tallystick/tallystick/backtest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/db"
)

// Backtest decides customers' recorded operations of a period again. It reads only; any number of goroutines may use it.
type Backtest struct {
	store       *db.Store
	world       backtest.World
	countFrom   time.Time
	from, until time.Time
}

// Backtest prepares a back-test of [from, until) with the cards as they are published, and a trial in their place. It refuses a trial as publishing it
// would be.
func (s *Service) Backtest(ctx context.Context, trial backtest.Trial, from, until time.Time) (*Backtest, error) {
	cards, quotes, err := s.store.EveryCard(ctx, from.Add(-MaxAge).AddDate(0, 0, -s.cfg.FX.MaxAgeDays-1))
	if err != nil {
		return nil, err
	}
	b := &Backtest{store: s.store, countFrom: backtest.CountFrom(cards, from, MaxAge), from: from, until: until}
	if b.world.Cards, err = backtest.NewCards(cards, trial); err != nil {
		return nil, err
	}
	table, err := fx.NewTable(s.cfg.FX, quotes)
	if err != nil {
		return nil, fmt.Errorf("compile the exchange rates: %w", err)
	}
	b.world.Rates = rates{table}
	units, err := s.store.AllUnits(ctx)
	if err != nil {
		return nil, err
	}
	b.world.Scales = make(map[string]int, len(units))
	for _, u := range units {
		b.world.Scales[u.Code] = u.Scale
	}
	return b, nil
}

// backtestPage is how many operations are read at once: a megabyte or two of receipts.
const backtestPage = 2_000

// Customer tests one customer, and tells after each page of operations how many of the period it has decided. A customer without operations in the
// period has a nil result.
func (b *Backtest) Customer(ctx context.Context, id credit.CustomerID, decided func(operations int)) (*backtest.Customer, *backtest.Result, error) {
	period, err := b.store.VersionsBetween(ctx, id, b.from, b.until)
	if err != nil || period.After == period.Until {
		return nil, nil, err
	}
	currency, card, grants, err := b.store.PastCustomer(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	c := backtest.NewCustomer(&b.world, currency, card, grants)
	run := func(part db.Stretch, shaping bool, do func(*backtest.Operation) error, told func(int)) error {
		return b.store.PastOperations(ctx, id, part, shaping, backtestPage, func(operations []backtest.Operation) error {
			for i := range operations {
				if err := do(&operations[i]); err != nil {
					return err
				}
			}
			told(len(operations))
			return nil
		})
	}
	if err := run(db.Stretch{Until: period.After}, true, c.Shape, func(int) {}); err != nil {
		return nil, nil, err
	}
	had, err := b.store.BalancesAt(ctx, id, period.After)
	if err != nil {
		return nil, nil, err
	}
	if err := c.Open(had); err != nil {
		return nil, nil, err
	}
	if b.countFrom.Before(b.from) {
		before, err := b.store.VersionsBetween(ctx, id, b.countFrom, b.from)
		if err != nil {
			return nil, nil, err
		}
		if err := run(before, false, c.Count, func(int) { decided(0) }); err != nil {
			return nil, nil, err
		}
	}
	if err := run(period, false, c.Run, decided); err != nil {
		return nil, nil, err
	}
	r, err := c.Close(b.until)
	return c, r, err
}
