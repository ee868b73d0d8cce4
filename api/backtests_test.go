package api

import (
	"context"
	"testing"
	"time"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/backtest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

func TestBacktests(t *testing.T) {
	w := newWorld(t)
	w.admin(t, "POST", "/v1/rate_cards", object{"code": "standard", "unit": "CRD", "default": true}).want(t, 201)
	w.admin(t, "POST", "/v1/rate_cards/standard/versions", object{"document": imageCard("2"), "effective_at": "2026-01-01T00:00:00Z"}).want(t, 201)
	draft := w.admin(t, "POST", "/v1/rate_cards/standard/drafts", object{"document": imageCard("3")}).want(t, 201).text(t, "id")
	bad := w.admin(t, "POST", "/v1/rate_cards/standard/drafts", object{"document": imageCard("-3")}).want(t, 201).text(t, "id")
	w.grant(t, "10", object{"type": "purchased", "price": object{"amount": "10.00", "currency": "USD"}})
	from := time.Now().Add(-time.Hour)
	for _, model := range []string{"large", "small"} {
		w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(), body: object{"customer": "acme", "meter": "images", "quantity": "2",
			"dimensions": object{"model": model}}}).want(t, 200)
	}
	until := time.Now()
	period := func(more object) object {
		o := object{"from": from.Format(time.RFC3339Nano), "until": until.Format(time.RFC3339Nano)}
		for k, v := range more {
			o[k] = v
		}
		return o
	}

	// What is wrong is said, and nothing is asked for.
	for name, c := range map[string]struct {
		body   object
		status int
		code   credit.Code
	}{
		"no card":         {period(object{"draft": draft}), 400, credit.InvalidRequest},
		"nothing to test": {period(object{"rate_card": "standard"}), 400, credit.InvalidRequest},
		"two things":      {period(object{"rate_card": "standard", "draft": draft, "version": 1}), 400, credit.InvalidRequest},
		"another card":    {period(object{"rate_card": "other", "version": 1}), 404, credit.RateCardNotFound},
		"another version": {period(object{"rate_card": "standard", "version": 7}), 404, credit.RateCardNotFound},
		"no draft":        {period(object{"rate_card": "standard", "draft": "drf_00000000000000000000000004"}), 404, credit.DraftNotFound},
		"a bad draft":     {period(object{"rate_card": "standard", "draft": bad}), 400, credit.InvalidRequest},
		"backwards":       {object{"from": until.Format(time.RFC3339Nano), "until": from.Format(time.RFC3339Nano)}, 400, credit.InvalidRequest},
		"the future":      {object{"from": from.Format(time.RFC3339Nano), "until": until.Add(time.Hour).Format(time.RFC3339Nano)}, 400, credit.InvalidRequest},
		"too early":       {period(object{"rate_card": "standard", "draft": draft, "effective_at": from.Add(-time.Hour).Format(time.RFC3339Nano)}), 400, credit.InvalidRequest},
		"nobody":          {period(object{"customers": []string{}}), 400, credit.InvalidRequest},
		"a stranger":      {period(object{"customers": []string{"stranger"}}), 404, credit.CustomerNotFound},
	} {
		if p := w.admin(t, "POST", "/v1/backtests", c.body).problem(t, c.status, c.code); p["detail"] == "" {
			t.Errorf("%s: %v", name, p)
		}
	}
	w.send(t, request{role: "support", method: "POST", path: "/v1/backtests", key: "k", body: period(nil)}).problem(t, 403, credit.Forbidden)
	if n := len(w.admin(t, "GET", "/v1/backtests", nil).data(t)); n != 0 {
		t.Errorf("%d were asked for", n)
	}

	r := request{role: "finance", method: "POST", path: "/v1/backtests", key: "b", body: period(object{"rate_card": "standard", "draft": draft, "customers": []string{"acme"}})}
	made := w.send(t, r).want(t, 201)
	id := made.text(t, "id")
	if again := w.send(t, r).want(t, 201); again.text(t, "id") != id || made.text(t, "status") != "queued" {
		t.Errorf("%s, then %s", made.body, again.body)
	}
	w.runBacktest(t, id)
	at := "/v1/backtests/" + id
	view := w.admin(t, "GET", at, nil).want(t, 200).object(t)
	if view["status"] != "done" || view["progress"].(object)["events"] != 2.0 || view["progress"].(object)["dry"] != 1.0 {
		t.Errorf("%v", view)
	}
	total := view["totals"].([]any)[0].(object)
	booked, tested := total["booked"].(object), total["tested"].(object)
	if booked["credits"] != "8" || booked["revenue"] != "8.00" || tested["credits"] != "6" || tested["refused"] != 1.0 || total["difference"].(object)["credits"] != "-2" {
		t.Errorf("%v", total)
	}
	if lines := w.all(t, at+"/models", func() int { return 1 }); len(lines) != 2 || lines[0]["model"] != "large" || lines[1]["model"] != "small" {
		t.Errorf("%v", lines)
	}
	for query, want := range map[string]int{"": 1, "?dry=true": 1, "?dry=false": 1} {
		got := w.admin(t, "GET", at+"/customers"+query, nil).data(t)
		if len(got) != want || got[0]["external_id"] != "acme" || got[0]["first_refused_at"] == nil {
			t.Errorf("%s: %v", query, got)
		}
	}
	w.admin(t, "GET", at+"/customers?dry=perhaps", nil).want(t, 400)
	w.admin(t, "GET", at+"/models?cursor=YWJj", nil).want(t, 400)
	w.admin(t, "GET", "/v1/backtests/bkt_00000000000000000000000004", nil).problem(t, 404, credit.BacktestNotFound)
	if got := w.admin(t, "POST", at+"/cancel", nil).want(t, 200); got.text(t, "status") != "done" {
		t.Errorf("%s", got.body)
	}

	// Without a card, what was published is tested; cancelled before it runs, it does not.
	other := w.admin(t, "POST", "/v1/backtests", period(nil)).want(t, 201).text(t, "id")
	if got := w.admin(t, "POST", "/v1/backtests/"+other+"/cancel", nil).want(t, 200); got.text(t, "status") != "cancelled" {
		t.Errorf("%s", got.body)
	}
	if list := w.all(t, "/v1/backtests", func() int { return 1 }); len(list) != 2 || list[0]["id"] != other || list[1]["id"] != id {
		t.Errorf("%v", list)
	}
	w.admin(t, "POST", "/v1/backtests/bkt_00000000000000000000000004/cancel", nil).problem(t, 404, credit.BacktestNotFound)
}

// runBacktest does what the worker does, without Temporal.
func (w *world) runBacktest(t *testing.T, text string) {
	t.Helper()
	ctx := context.Background()
	id, err := credit.ParseID[credit.BacktestID](text)
	if err != nil {
		t.Fatal(err)
	}
	a := &activities.Activities{Service: w.Service, Store: w.Store}
	if _, err := a.BeginBacktest(ctx, activities.BacktestRef{BacktestID: id}); err != nil {
		t.Fatal(err)
	}
	v, err := w.Store.Backtest(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := rating.Parse(v.Document)
	if err != nil {
		t.Fatal(err)
	}
	test, err := w.Service.Backtest(ctx, backtest.Trial{Card: v.Card, Document: doc, From: v.EffectiveAt}, v.From, v.Until)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Customers {
		_, r, err := test.Customer(ctx, c, func(int) {})
		if err == nil {
			err = w.Store.SaveBacktest(ctx, id, &db.BacktestCustomerRow{Customer: c, Result: *r})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Store.EndBacktest(ctx, id, db.BacktestDone, ""); err != nil {
		t.Fatal(err)
	}
}
