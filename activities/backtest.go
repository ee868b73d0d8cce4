package activities

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"github.com/tallystick/tallystick/backtest"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

// BacktestRef names a back-test.
type BacktestRef struct {
	BacktestID credit.BacktestID `json:"backtest_id"`
}

// BacktestFacts is what a back-test's workflow shows.
type BacktestFacts struct {
	BacktestRef
	Tested    string    `json:"tested"`
	From      time.Time `json:"from"`
	Until     time.Time `json:"until"`
	Customers int       `json:"customers,omitempty"` // to look at, once it has begun
}

// BacktestFactsOf makes the facts of a back-test as it was read.
func BacktestFactsOf(b *db.BacktestRow) BacktestFacts {
	return BacktestFacts{BacktestRef: BacktestRef{b.ID}, Tested: b.Tested, From: b.From, Until: b.Until, Customers: b.Total}
}

// BeginBacktest counts the customers to look at.
func (a *Activities) BeginBacktest(ctx context.Context, in BacktestRef) (BacktestFacts, error) {
	b, err := a.Store.BeginBacktest(ctx, in.BacktestID)
	if err != nil {
		return BacktestFacts{}, refusal(err)
	}
	return BacktestFactsOf(&b), nil
}

// BacktestProgress is how far a back-test is.
type BacktestProgress struct {
	Seen   int               `json:"seen"`             // customers looked at
	Events int               `json:"events"`           // consumptions decided again
	Failed int               `json:"failed,omitempty"` // customers who could not be tested
	Next   credit.CustomerID `json:"next"`             // after whom it goes on; zero: from the first, or it is through
	Done   bool              `json:"done,omitempty"`
}

// BacktestPageInput says where a page begins.
type BacktestPageInput struct {
	BacktestRef
	Progress BacktestProgress `json:"progress"`
}

// Bounds of one page: it ends after so much time, and looks at so many customers between two notes of how far it is.
const (
	backtestPageTime = 15 * time.Second
	backtestChunk    = 64
)

// BacktestPage tests the customers after in.Progress.Next for some time, as many at once as there are processors, and keeps their results. It
// heartbeats its progress; a second attempt goes on where the first one was, and what that has kept already it keeps once. A customer who cannot
// be tested does not hold up the others.
func (a *Activities) BacktestPage(ctx context.Context, in BacktestPageInput) (BacktestProgress, error) {
	p, began := in.Progress, time.Now()
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &p); err != nil {
			return p, fmt.Errorf("read the progress of the attempt before: %w", err)
		}
	}
	v, err := a.Store.Backtest(ctx, in.BacktestID)
	if err != nil {
		return p, refusal(err)
	}
	trial := backtest.Trial{Card: v.Card, From: v.EffectiveAt}
	if !v.Card.IsZero() {
		if trial.Document, err = rating.Parse(v.Document); err != nil {
			return p, refusal(err)
		}
	}
	test, err := a.Service.Backtest(ctx, trial, v.From, v.Until)
	if err != nil {
		return p, refusal(err)
	}
	for time.Since(began) < backtestPageTime {
		customers, err := a.Store.CustomersToBacktest(ctx, &v.BacktestRow, p.Next, backtestChunk)
		if err != nil {
			return p, err
		}
		if err := a.backtestChunk(ctx, in.BacktestID, test, customers, &p); err != nil {
			return p, refusal(err)
		}
		p.Seen += len(customers)
		p.Done = len(customers) < backtestChunk
		if len(customers) > 0 {
			p.Next = customers[len(customers)-1]
		}
		if err := a.Store.SeeBacktest(ctx, in.BacktestID, p.Seen); err != nil {
			return p, refusal(err)
		}
		activity.RecordHeartbeat(ctx, p)
		if p.Done {
			break
		}
	}
	return p, nil
}

// backtestChunk tests customers side by side, and adds up what it has done in p when all are through.
func (a *Activities) backtestChunk(ctx context.Context, id credit.BacktestID, test *balance.Backtest, customers []credit.CustomerID, p *BacktestProgress) error {
	before := *p
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, c := range customers {
		g.Go(func() error {
			row := &db.BacktestCustomerRow{Customer: c}
			_, r, err := test.Customer(ctx, c, func(int) { activity.RecordHeartbeat(ctx, before) })
			switch {
			case err == nil && r == nil:
				return nil
			case err == nil:
				row.Result = *r
			case db.IsDown(err) || ctx.Err() != nil:
				return err
			default:
				activity.GetLogger(ctx).Error("a customer could not be tested", "backtest_id", id, "customer_id", c, "error", err)
				row.Fault = err.Error()
			}
			if err := a.Store.SaveBacktest(ctx, id, row); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			p.Events += row.Events
			if row.Fault != "" {
				p.Failed++
			}
			return nil
		})
	}
	return g.Wait()
}

// EndBacktestInput says how a back-test has ended.
type EndBacktestInput struct {
	BacktestRef
	Status string `json:"status"` // db.BacktestDone, db.BacktestCancelled or db.BacktestFailed
	Fault  string `json:"fault,omitempty"`
}

// EndBacktest notes the end. One that has ended stays as it ended.
func (a *Activities) EndBacktest(ctx context.Context, in EndBacktestInput) error {
	return a.Store.EndBacktest(ctx, in.BacktestID, in.Status, in.Fault)
}
