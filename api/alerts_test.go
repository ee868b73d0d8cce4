package api

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/alert"
	"github.com/tallystick/tallystick/db"
)

func TestAlertRules(t *testing.T) {
	w := newWorld(t)
	made := w.send(t, request{role: "support", method: "POST", path: "/v1/alert_rules", key: "rule",
		body: object{"name": "Nearly empty", "kind": "balance_below", "customer": "acme", "unit": "CRD", "amount": "100.5"}}).want(t, 201)
	id := made.text(t, "id")
	rule := made.object(t)
	if rule["amount"] != "100.5" || rule["hysteresis_percent"] != 10.0 || rule["audience"] != "customer" || rule["wallet_id"] != nil {
		t.Errorf("%v", rule)
	}
	path := "/v1/alert_rules/" + id
	if one := w.send(t, request{role: "product", method: "GET", path: path}).want(t, 200).object(t); !reflect.DeepEqual(one, rule) {
		t.Errorf("%v", one)
	}
	everybody := w.admin(t, "POST", "/v1/alert_rules", object{"name": "Fast", "kind": "unusual_burn", "unit": "CRD", "percent": 300, "amount": "5", "audience": "team"}).want(t, 201)
	if list := w.admin(t, "GET", "/v1/alert_rules?customer=acme", nil).data(t); len(list) != 2 || list[0]["id"] != everybody.text(t, "id") {
		t.Errorf("%v", list)
	}
	changed := w.admin(t, "PATCH", path, object{"name": "Almost empty", "amount": "50", "hysteresis_percent": 0}).want(t, 200).object(t)
	if changed["name"] != "Almost empty" || changed["amount"] != "50" || changed["hysteresis_percent"] != 0.0 {
		t.Errorf("%v", changed)
	}
	w.admin(t, "PATCH", path, object{}).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "PATCH", path, object{"percent": 20}).problem(t, 400, credit.InvalidRequest) // it is about an amount
	if list := w.admin(t, "GET", "/v1/alerts?customer=acme", nil).data(t); len(list) != 0 {
		t.Errorf("%v", list)
	}
	if ended := w.admin(t, "DELETE", path, nil).want(t, 200).object(t); ended["ended_at"] == nil {
		t.Errorf("%v", ended)
	}
	w.admin(t, "DELETE", path, nil).problem(t, 404, credit.NotFound)
	w.admin(t, "PATCH", path, object{"amount": "1"}).problem(t, 404, credit.NotFound)
	if one := w.admin(t, "GET", path, nil).want(t, 200).object(t); one["ended_at"] == nil {
		t.Errorf("%v", one)
	}
	for _, body := range []object{
		{}, {"name": "x"}, {"name": "x", "kind": "boredom", "unit": "CRD"}, {"name": "x", "kind": "balance_below", "unit": "CRD"},
		{"name": "x", "kind": "balance_below", "amount": "1"},
		{"name": "x", "kind": "balance_below", "unit": "CRD", "amount": "1", "percent": 5},
		{"name": "x", "kind": "share_below", "unit": "CRD", "percent": 101}, {"name": "x", "kind": "spend_above", "unit": "CRD", "amount": "1", "within_seconds": 100},
		{"name": "x", "kind": "overage_started", "unit": "CRD", "hysteresis_percent": 101}, {"name": "x", "kind": "overage_started", "unit": "CRD", "audience": "nobody"},
	} {
		w.admin(t, "POST", "/v1/alert_rules", body).problem(t, 400, credit.InvalidRequest)
	}
	w.admin(t, "POST", "/v1/alert_rules", object{"name": "x", "kind": "overage_started", "unit": "NONE"}).problem(t, 404, credit.UnitNotFound)
	w.admin(t, "POST", "/v1/alert_rules", object{"name": "x", "kind": "overage_started", "unit": "CRD", "customer": "nobody"}).problem(t, 404, credit.CustomerNotFound)
}

// What the worker has said is listed while it holds, and answered as an event.
func TestAlertsThatAreOn(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	acme := w.id(t, "acme")
	var rules []db.AlertRuleRow
	for _, audience := range []string{"customer", "team"} {
		id := w.admin(t, "POST", "/v1/alert_rules", object{"name": "Low", "kind": "balance_below", "unit": "CRD", "amount": "100", "audience": audience}).want(t, 201).text(t, "id")
		parsed, err := credit.ParseID[credit.AlertRuleID](id)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, db.AlertRuleRow{ID: parsed, Audience: alert.Audience(audience)})
	}
	turn := func(on bool) {
		err := w.Store.LookAtCustomer(ctx, acme, func(a *db.AlertTx, _ int64, at time.Time) error {
			for i, r := range rules {
				doc := `{"rule_id":"` + r.ID.String() + `","name":"Low","kind":"balance_below","audience":"` + string(r.Audience) + `","customer_id":"` + acme.String() + `","wallet_id":null,
					"unit":"CRD","amount":"100","hysteresis_percent":10,"on":` + map[bool]string{true: "true", false: "false"}[on] + `,"at":"2026-01-01T00:00:00.000000Z","ver":3,"message":"Low.",
					"available":"99"}`
				if err := a.Turn(ctx, &rules[i], on, at, []byte(doc)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	turn(true)
	if on := w.all(t, "/v1/alerts?customer=acme", func() int { return 1 }); len(on) != 2 || on[0]["alert"].(object)["rule_id"] != rules[1].ID.String() || on[0]["since"] == nil {
		t.Errorf("%v", on)
	}
	turn(false)
	if on := w.admin(t, "GET", "/v1/alerts", nil).data(t); len(on) != 0 {
		t.Errorf("%v", on)
	}
	types := typesOf(w.eventsOf(t, "acme"))
	if want := []string{"alert.fired", "alert.team.fired", "alert.recovered", "alert.team.recovered"}; !reflect.DeepEqual(types[len(types)-4:], want) {
		t.Errorf("%v", types)
	}
}
