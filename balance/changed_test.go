package balance_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance/balancetest"
)

// A customer who consumes is named, also after something else has lain in its place.
func TestTakeChanged(t *testing.T) {
	t.Parallel()
	w := balancetest.New(t)
	id, wallet := w.Customer(t)
	w.Grant(t, id, wallet, 1_000_000)
	for _, spoil := range []bool{false, true} {
		if spoil {
			w.Redis.Del(context.Background(), "changed")
			w.Redis.Set(context.Background(), "changed", "x", time.Minute)
		}
		for begin := time.Now(); ; { // others who share this Redis may take the name
			w.Do(t, w.Consume(id, 1))
			time.Sleep(5 * time.Millisecond)
			ids, err := w.Service.TakeChanged(context.Background(), 1000)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(ids, id) {
				break
			}
			if time.Since(begin) > 20*time.Second {
				t.Fatal("nobody said that the customer has changed")
			}
		}
	}
}
