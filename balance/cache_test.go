package balance_test

import (
	"context"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
)

// TestTheCacheForgetsWhatWasNotTaken lets the cache take credits for requests that take none: repetitions of answered ones, and one that is
// refused for a reason the cache does not know. What is cached is soon what is committed.
func TestTheCacheForgetsWhatWasNotTaken(t *testing.T) {
	w := balancetest.New(t)
	ctx := context.Background()
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100*one)
	op := w.Consume(c, one)
	w.Do(t, op)
	for range 5 {
		again := *op
		if a := w.Do(t, &again); !a.Replayed {
			t.Fatal("consumed twice")
		}
	}
	old := w.Consume(c, one)
	old.At = time.Now().Add(-balance.MaxAge - time.Hour)
	if _, err := w.Service.Do(ctx, old); credit.CodeOf(err) != credit.TooOld {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		_, differ, err := w.Service.Compare(ctx, []credit.CustomerID{c})
		return err == nil && len(differ) == 0
	})
	n, differ, err := w.Service.Compare(ctx, []credit.CustomerID{c})
	if err != nil || n != 1 || len(differ) > 0 {
		t.Fatalf("%d compared, %v, %v", n, differ, err)
	}
}
