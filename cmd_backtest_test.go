package main

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/api"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/devstack/stacktest"
	"github.com/tallystick/tallystick/worker"
)

func TestRatecardBacktest(t *testing.T) {
	t.Parallel()
	address, namespace := stacktest.Temporal(t)
	w := balancetest.New(t)
	w.Card(t, "standard", true, "5", time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100_000_000)
	from := time.Now().Add(-time.Minute)
	for range 3 {
		w.Do(t, &balance.Consume{Header: balance.Header{Customer: c, Key: w.Key()}, Dims: credit.Dimensions{"model": "large"},
			Usage: []rating.Line{{Meter: "images", Quantity: decimal.New(2, 0)}}})
	}
	until := time.Now()
	server, err := api.New(api.Config{Service: w.Service, Store: w.Store, Log: balancetest.Log(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(server.Handler())
	t.Cleanup(srv.Close)
	key, err := api.NewKey(context.Background(), w.Store, "finance", "finance")
	if err != nil {
		t.Fatal(err)
	}
	working, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- worker.Run(working, worker.Config{Service: w.Service, Store: w.Store, Log: balancetest.Log(),
			Temporal: client.Options{HostPort: address, Namespace: namespace}, Prefix: "test-" + uuid.NewString()[:8] + "-"})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	file := writeFile(t, "card.yaml", imagesYAML) // an image at 1
	out, _, err := runWith(t, map[string]string{"TALLYSTICK_API_URL": srv.URL, "TALLYSTICK_API_KEY": key}, "ratecard", "backtest", file, "--card", "standard",
		"--from", from.Format(time.RFC3339Nano), "--until", until.Format(time.RFC3339Nano), "--customer", c.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := strings.Join(strings.Fields(lines[len(lines)-1]), " "); !strings.HasPrefix(last, "CRD all all 3 0 0 30 6 -24 0.00 USD 0.00 0.00") {
		t.Errorf("%s", out)
	}
	if !strings.Contains(out, "100 %  done  1 of 1 customers  3 events") {
		t.Error(out)
	}
	_, _, err = runWith(t, nil, "ratecard", "backtest", file, "--api", srv.URL, "--key", key, "--card", "other", "--from", "2026-01-01T00:00:00Z", "--until", "2026-02-01T00:00:00Z")
	if err == nil || !strings.Contains(err.Error(), "rate_card_not_found") {
		t.Error(err)
	}
}
