package api

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

func TestCustomers(t *testing.T) {
	w := newWorld(t)
	r := request{role: "support", method: "POST", path: "/v1/customers", key: "c1",
		body: object{"name": "Über GmbH", "legal_entity": "main", "external_id": "über/1", "metadata": object{"plan": "team"}}}
	first := w.send(t, r).want(t, 201)
	again := w.send(t, r).want(t, 201)
	if !bytes.Equal(first.body, again.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s, then %s", first.body, again.body)
	}
	id := first.text(t, "id")
	for _, name := range []string{id, "%C3%BCber%2F1"} {
		if got := w.admin(t, "GET", "/v1/customers/"+name, nil).want(t, 200); got.text(t, "id") != id || got.text(t, "metadata", "plan") != "team" {
			t.Errorf("%s: %s", name, got.body)
		}
		w.admin(t, "GET", "/v1/customers/"+name+"/balances", nil).want(t, 200)
	}
	r.key = "c2"
	w.send(t, r).problem(t, 409, credit.AlreadyExists)
	for name, c := range map[string]struct {
		body   any
		status int
		code   credit.Code
	}{
		"no name":          {object{"legal_entity": "main"}, 400, credit.InvalidRequest},
		"blank name":       {object{"name": "  ", "legal_entity": "main"}, 400, credit.InvalidRequest},
		"no such entity":   {object{"name": "A", "legal_entity": "other"}, 404, credit.EntityNotFound},
		"like one of ours": {object{"name": "A", "legal_entity": "main", "external_id": "cus_1"}, 400, credit.InvalidRequest},
		"no such card":     {object{"name": "A", "legal_entity": "main", "rate_card": "gold"}, 404, credit.RateCardNotFound},
		"long metadata":    {object{"name": "A", "legal_entity": "main", "metadata": object{"a": strings.Repeat("x", 501)}}, 400, credit.InvalidRequest},
		"nested metadata":  {object{"name": "A", "legal_entity": "main", "metadata": object{"a": object{}}}, 400, credit.InvalidRequest},
	} {
		t.Run(name, func(t *testing.T) { w.admin(t, "POST", "/v1/customers", c.body).problem(t, c.status, c.code) })
	}
	w.admin(t, "GET", "/v1/customers/nobody", nil).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "GET", "/v1/customers/cus_00000000000000000000000004", nil).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "GET", "/v1/customers/cus_00000000000000000000000004/balances", nil).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "GET", "/v1/customers/cus_00000000000000000000000004/history", nil).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "GET", "/v1/customers/cus_00000000000000000000000004/balance", nil).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "GET", "/v1/customers/%ff/balances", nil).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "GET", "/v1/customers/%00", nil).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "POST", "/v1/customers/nobody/members", object{"name": "A"}).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "POST", "/v1/customers/cus_00000000000000000000000004/members", object{"name": "A"}).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "POST", "/v1/customers/acme/members", object{"name": "Jane", "external_id": "jane"}).want(t, 201)
	w.admin(t, "POST", "/v1/customers/acme/members", object{"name": "Jane", "external_id": "jane"}).problem(t, 409, credit.AlreadyExists)
	w.send(t, request{role: "support", method: "POST", path: "/v1/customers/" + id + "/members", key: "m", body: object{"name": "Jane", "external_id": "jane"}}).want(t, 201)
	if got := w.admin(t, "GET", "/v1/customers/acme/members", nil).data(t); len(got) != 1 || got[0]["external_id"] != "jane" {
		t.Errorf("%v", got)
	}
}

// TestParallelCreatesWithOneKeyMakeOneThing is about changes that are no operations: they have the same promise.
func TestParallelCreatesWithOneKeyMakeOneThing(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	bodies := map[string]int{}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			a := w.send(t, request{role: "admin", method: "POST", path: "/v1/customers", key: "same", body: object{"name": "One", "legal_entity": "main"}})
			mu.Lock()
			defer mu.Unlock()
			bodies[string(a.body)]++
			if a.status != 201 {
				t.Errorf("%d: %s", a.status, a.body)
			}
		})
	}
	all.Wait()
	if len(bodies) != 1 {
		t.Errorf("%d different answers", len(bodies))
	}
	var n int
	if err := w.Store.Pool.QueryRow(context.Background(), "SELECT count(*) FROM audit_log WHERE action = 'create_customer'").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d customers were made, with acme; %v", n, err)
	}
	w.send(t, request{role: "admin", method: "POST", path: "/v1/customers", key: "same", body: object{"name": "Two", "legal_entity": "main"}}).problem(t, 422, credit.RequestMismatch)
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "same", body: object{"customer": "acme", "unit": "CRD", "amount": "1"}}).problem(t, 422, credit.RequestMismatch)
}

func TestReferenceData(t *testing.T) {
	w := newWorld(t)
	unit := w.admin(t, "POST", "/v1/units", object{"code": "IMG", "name": "Images", "scale": 0}).want(t, 201)
	if unit.object(t)["scale"] != 0.0 {
		t.Errorf("%s", unit.body)
	}
	w.admin(t, "POST", "/v1/units", object{"code": "IMG", "name": "Images"}).problem(t, 409, credit.AlreadyExists)
	for _, bad := range []object{{"code": "img", "name": "x"}, {"code": "IMG2", "name": "x", "scale": 7}, {"code": "IMG2", "name": "x", "scale": -1}, {"code": "IMG2", "name": "x", "scale": 1.5},
		{"code": "IMG2", "name": "x", "scale": "2"}, {"code": "IMG2"}, {"code": "ABCDEFGHIJKLMNOPQ", "name": "x"}} {
		w.admin(t, "POST", "/v1/units", bad).problem(t, 400, credit.InvalidRequest)
	}
	wallet := w.admin(t, "POST", "/v1/wallets", object{"customer": "acme", "unit": "IMG", "name": "Images"}).want(t, 201).text(t, "id")
	w.admin(t, "POST", "/v1/grants", object{"wallet": wallet, "type": "granted", "amount": "1.5"}).problem(t, 400, credit.InvalidAmount)
	w.admin(t, "POST", "/v1/grants", object{"wallet": wallet, "type": "granted", "amount": "3"}).want(t, 201)

	w.admin(t, "POST", "/v1/legal_entities", object{"code": "de", "name": "Example GmbH", "currency": "EUR", "time_zone": "Europe/Berlin"}).want(t, 201)
	w.admin(t, "POST", "/v1/legal_entities", object{"code": "de", "name": "Example GmbH", "currency": "EUR"}).problem(t, 409, credit.AlreadyExists)
	for _, bad := range []object{{"code": "x", "name": "x", "currency": "XYZ1"}, {"code": "x", "name": "x", "currency": "QQQ"}, {"code": "x", "name": "x", "currency": "EUR", "time_zone": "Mars/Olympus"},
		{"code": "x", "name": "x", "currency": "EUR", "time_zone": "../../etc/passwd"}, {"code": "X", "name": "x", "currency": "EUR"}} {
		w.admin(t, "POST", "/v1/legal_entities", bad).problem(t, 400, credit.InvalidRequest)
	}
	if got := w.admin(t, "GET", "/v1/legal_entities", nil).data(t); len(got) != 2 || got[0]["code"] != "de" {
		t.Errorf("%v", got)
	}
}

func TestRateCards(t *testing.T) {
	w := newWorld(t)
	w.rates(t)
	card := w.admin(t, "GET", "/v1/rate_cards/standard", nil).want(t, 200)
	if card.object(t)["latest_version"] != 1.0 || card.object(t)["default"] != true {
		t.Errorf("%s", card.body)
	}
	w.admin(t, "POST", "/v1/rate_cards", object{"code": "standard", "unit": "CRD"}).problem(t, 409, credit.AlreadyExists)
	w.admin(t, "POST", "/v1/rate_cards", object{"code": "gold", "unit": "GOLD"}).problem(t, 404, credit.UnitNotFound)
	gold := w.admin(t, "POST", "/v1/rate_cards", object{"code": "gold", "unit": "CRD", "default": true}).want(t, 201).text(t, "id")
	if w.admin(t, "GET", "/v1/rate_cards/standard", nil).object(t)["default"] != false {
		t.Error("there are two default cards")
	}
	r := request{role: "finance", method: "POST", path: "/v1/rate_cards/" + gold + "/versions", key: "v1",
		body: object{"document": object{"meters": []object{{"code": "images"}}, "rates": []object{{"id": "i", "meter": "images", "price": "1"}}}}}
	v1 := w.send(t, r).want(t, 201)
	if again := w.send(t, r); !bytes.Equal(again.body, v1.body) {
		t.Errorf("%s, then %s", v1.body, again.body)
	}
	r.key = "v2"
	if v2 := w.send(t, r).want(t, 201); v2.object(t)["version"] != 2.0 {
		t.Errorf("%s", v2.body)
	}
	if got := w.all(t, "/v1/rate_cards/gold/versions", func() int { return 1 }); len(got) != 2 || got[0]["version"] != 2.0 {
		t.Errorf("%v", got)
	}
	w.admin(t, "GET", "/v1/rate_cards/gold/versions/1", nil).want(t, 200)
	w.admin(t, "GET", "/v1/rate_cards/gold/versions/3", nil).problem(t, 404, credit.RateCardNotFound)
	w.admin(t, "GET", "/v1/rate_cards/gold/versions/x", nil).problem(t, 400, credit.InvalidID)
	w.admin(t, "GET", "/v1/rate_cards/silver", nil).problem(t, 404, credit.RateCardNotFound)
	bad := w.admin(t, "POST", "/v1/rate_cards/gold/versions", object{"document": object{"meters": []object{}, "rates": []object{{"id": "i", "meter": "images", "price": "-1"}}}}).problem(t, 400, credit.InvalidRequest)
	if p := bad["errors"].([]any)[0].(object)["pointer"].(string); !strings.HasPrefix(p, "/document/") {
		t.Errorf("%v", bad)
	}
	// A card extends another one, never itself.
	for _, document := range []object{
		{"meters": []object{}, "rates": []object{}, "extends": "gold"},
		{"meters": []object{}, "rates": []object{}, "extends": "silver"},
	} {
		refused := w.admin(t, "POST", "/v1/rate_cards/gold/versions", object{"document": document}).problem(t, 400, credit.InvalidRequest)
		if p := refused["errors"].([]any)[0].(object)["pointer"].(string); p != "/document/extends" {
			t.Errorf("%v", refused)
		}
	}
	// A published card prices what is decided from now on, in every process.
	w.grant(t, "100", nil)
	consume := func() string {
		return w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(), body: object{"customer": "acme", "meter": "images", "quantity": "2"}}).want(t, 200).text(t, "amount")
	}
	if got := consume(); got != "2" {
		t.Errorf("the default card charges %s", got)
	}
	if got := w.admin(t, "PATCH", "/v1/customers/acme", object{"rate_card": "standard"}).want(t, 200).text(t, "rate_card_id"); got != card.text(t, "id") {
		t.Errorf("rate card %s", got)
	}
	if got := consume(); got != "8" {
		t.Errorf("the customer's card charges %s", got)
	}
	w.admin(t, "PATCH", "/v1/customers/acme", object{"rate_card": nil}).want(t, 200)
	if got := consume(); got != "2" {
		t.Errorf("the default card charges %s", got)
	}
	// A receipt says what a rate with tiers is, and no price that it does not have.
	w.admin(t, "POST", "/v1/rate_cards/gold/versions", object{"document": object{"credit_value": object{"price": "0.5", "currency": "USD"}, "meters": []object{{"code": "images"}},
		"rates": []object{{"id": "i", "meter": "images", "model": "volume", "currency": "USD", "tiers": []object{{"up_to": "1", "price": "3"}, {"price": "1"}}}}}}).want(t, 201)
	time.Sleep(db.Lead + 100*time.Millisecond)
	receipt := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(), body: object{"customer": "acme", "meter": "images", "quantity": "2"}}).want(t, 200)
	if want := `"lines":[{"rate_id":"i","meter":"images","quantity":"2","model":"volume","currency":"USD","cost":"4"}]`; !bytes.Contains(receipt.body, []byte(want)) {
		t.Errorf("%s is without %s", receipt.body, want)
	}
	w.admin(t, "PATCH", "/v1/customers/acme", object{"rate_card": "silver"}).problem(t, 404, credit.RateCardNotFound)
	w.admin(t, "PATCH", "/v1/customers/acme", object{"rate_card": "crd_1"}).problem(t, 400, credit.InvalidID)
	w.admin(t, "PATCH", "/v1/customers/acme", object{}).problem(t, 400, credit.InvalidRequest)
}
