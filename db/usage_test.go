package db_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

func countUsage(t testing.TB, s *db.Store, c *dbtest.Customer, steps ...db.UsageStep) db.Counted {
	t.Helper()
	n, err := s.CountUsage(ctx, c.ID, steps...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// lines runs a query of one text column and joins its rows.
func lines(t testing.TB, s *db.Store, sql string, args ...any) string {
	t.Helper()
	rows, err := s.Pool.Query(ctx, sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, "\n")
}

func slicesOf(t testing.TB, s *db.Store, c *dbtest.Customer) string {
	t.Helper()
	return lines(t, s, `SELECT format('%s %s %s/%s %s: %s consumed, %s overage, %s operations, %s', to_char(hour AT TIME ZONE 'UTC', 'MM-DD HH24'),
		CASE wallet_id WHEN $2 THEN 'main' WHEN '00000000-0000-0000-0000-000000000000' THEN 'none' ELSE 'other' END, product, model, cost_currency, consumed, overage, operations, cost)
		FROM usage_slices WHERE customer_id = $1 ORDER BY 1`, c.ID[:], c.Wallet[:])
}

func mustVerify(t testing.TB, s *db.Store) {
	t.Helper()
	for _, i := range db.Invariants {
		if r, err := s.Verify(ctx, i, 5); err != nil || r.Differ > 0 {
			t.Errorf("%s: %+v, %v", i.Name, r, err)
		}
	}
}

func TestSlices(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	at := func(hour, minute int) time.Time { return time.Date(2026, 3, 1, hour, minute, 0, 0, time.UTC) }
	g := c.Grant(at(0, 0), credit.Grant{Amount: 1000})
	over := c.Grant(at(0, 0), credit.Grant{Type: credit.Overage, Amount: 1000})
	large := credit.Dimensions{"product": "chat", "model": "large"}
	const receipt = `{"pricing":[{"lines":[{"meter":"input_tokens","quantity":"120"},{"meter":"output_tokens","quantity":"7.5"},
		{"meter":"output_tokens","quantity":"2","dimensions":{"model":"draft"}}]},{"lines":[{"meter":"input_tokens","quantity":"120"}]}],"cost":{"amount":"0.0012","currency":"USD"}}`
	c.Use(at(1, 59), g, 10, large)
	c.Use(at(2, 0), g, 20, large)
	c.Do(dbtest.Operation{Kind: "consume", At: at(2, 10), Dims: large, Receipt: receipt, Moves: []dbtest.Move{
		{Grant: g, Debit: "available", Credit: "consumed", Amount: 30}, {Grant: over, Debit: "available", Credit: "consumed", Amount: 5}}})
	c.Do(dbtest.Operation{Kind: "hold", At: at(2, 20), Dims: large, Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "held", Amount: 50}}})
	c.Do(dbtest.Operation{Kind: "capture", At: at(2, 21), Dims: large, Receipt: receipt, Moves: []dbtest.Move{
		{Grant: g, Debit: "held", Credit: "consumed", Amount: 40}, {Grant: g, Debit: "held", Credit: "available", Amount: 10}}})
	c.Do(dbtest.Operation{Kind: "consume", At: at(2, 30)}) // was worth nothing
	c.Do(dbtest.Operation{Kind: "reverse", At: at(3, 5), ServiceAt: at(2, 40), Dims: large, Moves: []dbtest.Move{{Grant: g, Debit: "consumed", Credit: "available", Amount: 7}}})
	if n := countUsage(t, s, c); n.Operations != 9 || n.From != 0 || n.To != 9 || !n.Oldest.Equal(at(0, 0)) {
		t.Errorf("%+v", n)
	}
	same(t, "slices", slicesOf(t, s, c), `
03-01 01 main chat/large : 10 consumed, 0 overage, 1 operations, 0
03-01 02 main chat/large : 13 consumed, 0 overage, 2 operations, 0
03-01 02 main chat/large USD: 75 consumed, 5 overage, 2 operations, 0.0024
03-01 02 none / : 0 consumed, 0 overage, 1 operations, 0`)
	same(t, "quantities", lines(t, s, `SELECT format('%s %s/%s %s %s', to_char(hour AT TIME ZONE 'UTC', 'MM-DD HH24'), product, model, meter, quantity)
		FROM usage_quantities WHERE customer_id = $1 ORDER BY 1`, c.ID[:]), `
03-01 02 chat/draft output_tokens 4
03-01 02 chat/large input_tokens 240
03-01 02 chat/large output_tokens 15.0`)
	if n := countUsage(t, s, c); n.Operations != 0 || n.From != 9 || n.To != 9 || !n.Oldest.IsZero() {
		t.Errorf("the second time: %+v", n)
	}
	if _, err := s.CountUsage(ctx, credit.NewID[credit.CustomerID]()); credit.CodeOf(err) != credit.CustomerNotFound {
		t.Errorf("of nobody: %v", err)
	}
	mustVerify(t, s)
}

// Whatever happens, in whatever portions and by however many at once it is counted, the slices are what was consumed, and a step sees every operation
// once, in order.
func TestSlicesAreWhatWasConsumed(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	rapid.Check(t, func(rt *rapid.T) {
		c := b.Customer(dbtest.Entity)
		at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		g := c.Grant(at, credit.Grant{Amount: 1 << 40})
		over := c.Grant(at, credit.Grant{Type: credit.Overage, Amount: 1 << 40})
		var mu sync.Mutex
		var seen []int64
		see := func(_ context.Context, _ pgx.Tx, _ credit.CustomerID, operations []db.CountedOperation) error {
			mu.Lock()
			defer mu.Unlock()
			for _, o := range operations {
				seen = append(seen, o.Ver)
			}
			return nil
		}
		var consumed credit.Amount
		for range rapid.IntRange(1, 12).Draw(rt, "operations") {
			at = at.Add(time.Duration(rapid.IntRange(0, 5400).Draw(rt, "seconds")) * time.Second)
			dims := credit.Dimensions{"model": rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "model")}
			late := time.Duration(rapid.IntRange(0, 2).Draw(rt, "late")) * time.Hour
			n := credit.Amount(rapid.IntRange(1, 1000).Draw(rt, "amount"))
			switch rapid.IntRange(0, 4).Draw(rt, "kind") {
			case 0:
				c.Do(dbtest.Operation{Kind: "consume", At: at, ServiceAt: at.Add(-late), Dims: dims, Moves: []dbtest.Move{
					{Grant: g, Debit: "available", Credit: "consumed", Amount: n}, {Grant: over, Debit: "available", Credit: "consumed", Amount: 2 * n}}})
				consumed += 3 * n
			case 1:
				c.Do(dbtest.Operation{Kind: "hold", At: at, Dims: dims, Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "held", Amount: n}}})
				c.Do(dbtest.Operation{Kind: "capture", At: at, Dims: dims, Moves: []dbtest.Move{{Grant: g, Debit: "held", Credit: "consumed", Amount: n}}})
				consumed += n
			case 2:
				if back := min(n, consumed/4); back > 0 && g.Consumed >= back {
					c.Do(dbtest.Operation{Kind: "reverse", At: at, ServiceAt: at.Add(-late), Dims: dims, Moves: []dbtest.Move{{Grant: g, Debit: "consumed", Credit: "available", Amount: back}}})
					consumed -= back
				}
			case 3:
				c.Configure(at)
			case 4:
				var both sync.WaitGroup
				for range 2 {
					both.Go(func() {
						if _, err := s.CountUsage(ctx, c.ID, see); err != nil {
							t.Error(err)
						}
					})
				}
				both.Wait()
			}
		}
		countUsage(t, s, c, see)
		if int64(len(seen)) != c.Ver {
			rt.Fatalf("%d operations, seen %v", c.Ver, seen)
		}
		for i, ver := range seen {
			if ver != int64(i+1) {
				rt.Fatalf("seen %v", seen)
			}
		}
		if got := lines(t, s, "SELECT coalesce(sum(consumed), 0)::text FROM usage_slices WHERE customer_id = $1", c.ID[:]); got != fmt.Sprint(int64(consumed)) {
			rt.Fatalf("the slices sum to %s, %d was consumed", got, consumed)
		}
	})
	mustVerify(t, s)
}

// What a step refuses is not counted either, and comes again.
func TestAFailingStepCountsNothing(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	c := dbtest.NewBook(t, s).Customer(dbtest.Entity)
	c.Use(on(3, 1), c.Grant(on(3, 1), credit.Grant{Amount: 10}), 3, nil)
	broken := errors.New("broken")
	if _, err := s.CountUsage(ctx, c.ID, func(context.Context, pgx.Tx, credit.CustomerID, []db.CountedOperation) error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if got := slicesOf(t, s, c); got != "" {
		t.Error(got)
	}
	due, err := s.AllToCount(ctx, credit.CustomerID{}, 10)
	if err != nil || len(due) != 1 || due[0].Customer != c.ID || !due[0].Since.Equal(on(3, 1)) {
		t.Errorf("%+v, %v", due, err)
	}
	if recent, err := s.RecentToCount(ctx, on(2, 28), 10); err != nil || len(recent) != 1 || recent[0] != c.ID {
		t.Errorf("%+v, %v", recent, err)
	}
	if n := countUsage(t, s, c); n.Operations != 2 {
		t.Errorf("%+v", n)
	}
	if due, err = s.AllToCount(ctx, credit.CustomerID{}, 10); err != nil || len(due) != 0 {
		t.Errorf("%+v, %v", due, err)
	}
	if recent, err := s.RecentToCount(ctx, on(2, 28), 10); err != nil || len(recent) != 0 {
		t.Errorf("%+v, %v", recent, err)
	}
}

// A hold is as large as all its captures; what is given back and what costs nothing is no size; tokens are known where one receipt says them all.
func TestSizes(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c, other := b.Customer(dbtest.Entity), b.Customer(dbtest.Entity)
	at := on(3, 1)
	g, g2 := c.Grant(at, credit.Grant{Amount: 10_000}), other.Grant(at, credit.Grant{Amount: 10_000})
	large := credit.Dimensions{"model": "large"}
	capture := func(n credit.Amount, receipt string) {
		c.Do(dbtest.Operation{Kind: "capture", At: at, Dims: large, Receipt: receipt, Moves: []dbtest.Move{{Grant: g, Debit: "held", Credit: "consumed", Amount: n}}})
	}
	said := func(tokens int) string {
		return fmt.Sprintf(`{"pricing":[{"lines":[{"meter":"llm","quantity":"9","dimensions":{"token_type":"input"}},{"meter":"llm","quantity":"%d","dimensions":{"token_type":"output"}}]}]}`, tokens)
	}
	c.Do(dbtest.Operation{Kind: "consume", At: at, Dims: large, Receipt: said(40), Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "consumed", Amount: 16}}})
	countUsage(t, s, c) // what comes later is added to what is there
	c.Do(dbtest.Operation{Kind: "hold", At: at, Dims: large, Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "held", Amount: 500}}})
	capture(100, `{"status":"open","captured":"100","captured_now":"100"}`)
	capture(156, `{"status":"captured","captured":"256","captured_now":"156","pricing":[{"lines":[{"meter":"output_tokens","quantity":"5000"}]}]}`)
	capture(64, `{"status":"captured","captured":"64","captured_now":"64","pricing":[{"lines":[{"meter":"output_tokens","quantity":"512"}]}]}`)
	c.Do(dbtest.Operation{Kind: "reverse", At: at, Dims: large, Moves: []dbtest.Move{{Grant: g, Debit: "consumed", Credit: "available", Amount: 50}}})
	c.Do(dbtest.Operation{Kind: "consume", At: at, Dims: large, Receipt: said(7)})
	c.Use(at, g, 8, credit.Dimensions{"model": "small"})
	other.Use(at, g2, 4096, large)
	countUsage(t, s, c)
	countUsage(t, s, other)
	sizes := func(of credit.CustomerID, model, measure string) string {
		h, err := s.Sizes(ctx, of, model, measure)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(h.Buckets, h.Weights)
	}
	for _, x := range []struct {
		of             credit.CustomerID
		model, measure string
		want           string
	}{ // a bucket is a quarter of a power of two
		{c.ID, "large", dbtest.Unit, "[16 24 32] [1 1 1]"},
		{c.ID, "large", db.OutputTokens, "[22 36] [1 1]"},
		{c.ID, "small", dbtest.Unit, "[12] [1]"},
		{other.ID, "large", dbtest.Unit, "[48] [1]"},
		{credit.CustomerID{}, "large", dbtest.Unit, "[16 24 32 48] [1 1 1 1]"},
		{credit.CustomerID{}, "none", dbtest.Unit, "[] []"},
	} {
		if got := sizes(x.of, x.model, x.measure); got != x.want {
			t.Errorf("%s, %s: %s, want %s", x.model, x.measure, got, x.want)
		}
	}
}
