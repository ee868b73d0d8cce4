package balance_test

import (
	"context"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// A consumption without a time that waits in quarantine and is repeated when its key is forgotten is refused: it is there still, once.
func TestQuarantinedUsageIsRepeatedWhenItsKeyIsForgotten(t *testing.T) {
	w := balancetest.New(t)
	c, _ := w.Customer(t)
	w.NewCard(t, "standard", true)
	key := w.Key()
	again := func() (balance.Answer, error) {
		return w.Service.Do(context.Background(), &balance.Consume{Header: balance.Header{Customer: c, Key: key}, Keep: func() string { return "{}" }, KeepAll: true,
			Usage: []rating.Line{{Meter: "images", Quantity: decimal.New(1, 0)}}})
	}
	first, err := again()
	if err != nil || !first.Quarantined {
		t.Fatalf("%+v, %v", first, err)
	}
	if a, err := again(); err != nil || !a.Quarantined || !a.Replayed || string(a.Body) != string(first.Body) {
		t.Errorf("%s, %v", a.Body, err)
	}
	if _, err := w.Store.Pool.Exec(context.Background(), "DELETE FROM idempotency_keys"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if a, err := again(); credit.CodeOf(err) != credit.AlreadyExists {
			t.Errorf("%s, %v", a.Body, err)
		}
	}
	if n, _, err := w.Store.CountQuarantined(context.Background()); err != nil || n != 1 {
		t.Errorf("%d wait, %v", n, err)
	}
}
