package api

import (
	"testing"

	"github.com/tallystick/tallystick/credit"
)

func TestHolds(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	post := func(path string, body object) answer {
		t.Helper()
		return w.send(t, request{role: "product", method: "POST", path: path, key: w.newKey(), body: body})
	}
	r := request{role: "product", method: "POST", path: "/v1/holds", key: "h1", body: object{"customer": "acme", "unit": "CRD", "amount": "60", "expires_in": 60, "reason": "A long answer"}}
	first := w.send(t, r).want(t, 201)
	if again := w.send(t, r).want(t, 201); string(again.body) != string(first.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s, then %s", first.body, again.body)
	}
	r.body = object{"customer": "acme", "unit": "CRD", "amount": "60", "expires_in": 61}
	w.send(t, r).problem(t, 422, credit.RequestMismatch)
	id := first.text(t, "id")
	if first.text(t, "held") != "60" || first.text(t, "available") != "40" {
		t.Errorf("%s", first.body)
	}
	post("/v1/holds", object{"customer": "acme", "unit": "CRD", "amount": "41", "expires_in": 60}).problem(t, 402, credit.InsufficientCredits)
	for _, bad := range []object{
		{"customer": "acme", "unit": "CRD", "amount": "1"}, {"customer": "acme", "unit": "CRD", "amount": "1", "expires_in": 0},
		{"customer": "acme", "unit": "CRD", "amount": "1", "expires_in": 86401}, {"customer": "acme", "unit": "CRD", "amount": "1", "expires_in": 5, "partial": true},
		{"customer": "acme", "expires_in": 5},
		{"customer": "acme", "unit": "CRD", "amount": "1", "expires_in": 5, "on_unpriced": "quarantine"},
		{"customer": "acme", "expires_in": 5, "response": object{"provider": "openai", "model": "gpt-4o", "usage": object{"prompt_tokens": 1}}},
	} {
		post("/v1/holds", bad).problem(t, 400, credit.InvalidRequest)
	}
	if got := post("/v1/holds/"+id+"/extend", object{"amount": "10", "expires_in": 120}).want(t, 200).text(t, "held"); got != "70" {
		t.Errorf("%s are held", got)
	}
	post("/v1/holds/"+id+"/extend", object{}).problem(t, 400, credit.InvalidAmount)
	post("/v1/holds/"+id+"/capture", object{}).problem(t, 400, credit.InvalidRequest)
	post("/v1/holds/"+id+"/capture", object{"amount": "1", "over": "maybe"}).problem(t, 400, credit.InvalidRequest)
	post("/v1/holds/"+id+"/capture", object{"amount": "71"}).problem(t, 409, credit.CaptureExceedsHold)
	post("/v1/holds/"+id+"/capture", object{"usage": []object{{"meter": "images", "quantity": "1"}}}).problem(t, 400, credit.InvalidRequest)
	part := post("/v1/holds/"+id+"/capture", object{"amount": "25", "final": false}).want(t, 200)
	if part.text(t, "held") != "45" || part.text(t, "captured_now") != "25" || part.text(t, "status") != "open" {
		t.Errorf("%s", part.body)
	}
	if got := w.all(t, "/v1/holds?customer=acme&status=open", func() int { return 1 }); len(got) != 1 || got[0]["id"] != id || got[0]["held"] != "45" {
		t.Errorf("%v", got)
	}
	last := post("/v1/holds/"+id+"/capture", object{"amount": "50", "over": "if_available"}).want(t, 200)
	if last.text(t, "captured") != "75" || last.text(t, "status") != "captured" || last.text(t, "available") != "25" {
		t.Errorf("%s", last.body)
	}
	post("/v1/holds/"+id+"/release", object{}).problem(t, 409, credit.HoldEnded)
	second := post("/v1/holds", object{"customer": "acme", "unit": "CRD", "amount": "5", "expires_in": 60}).want(t, 201).text(t, "id")
	if got := w.send(t, request{role: "support", method: "POST", path: "/v1/holds/" + second + "/release", key: w.newKey()}).want(t, 200); got.text(t, "status") != "released" || got.text(t, "available") != "25" {
		t.Errorf("%s", got.body)
	}
	if got := w.admin(t, "GET", "/v1/holds/"+id, nil).want(t, 200).text(t, "captured"); got != "75" {
		t.Errorf("captured %s", got)
	}
	w.admin(t, "GET", "/v1/holds/hld_1", nil).problem(t, 400, credit.InvalidID)
	w.admin(t, "GET", "/v1/holds/"+credit.NewID[credit.HoldID]().String(), nil).problem(t, 404, credit.HoldNotFound)
}

// A suggestion is of the customer's own usages of the model, or of all customers' when there are too few, or the maximum.
func TestSuggestedHolds(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "1000", nil)
	product := func(path string, body object) answer {
		t.Helper()
		return w.send(t, request{role: "product", method: "POST", path: path, key: w.newKey(), body: body})
	}
	suggest := func(query string) object {
		t.Helper()
		return w.send(t, request{role: "product", method: "GET", path: "/v1/holds/suggestion?unit=CRD&" + query}).want(t, 200).object(t)
	}
	expect := func(got object, basis string, amount any) {
		t.Helper()
		if got["basis"] != basis || got["amount"] != amount {
			t.Errorf("%v, want %v by %s", got, amount, basis)
		}
	}
	w.admin(t, "POST", "/v1/customers", object{"name": "Newcomer", "legal_entity": "main", "external_id": "new"}).want(t, 201)
	expect(suggest("customer=acme&model=large"), "none", nil)
	expect(suggest("customer=acme&model=large&maximum=50"), "maximum", "50")
	held := func(body object) string {
		t.Helper()
		body["customer"], body["unit"], body["expires_in"], body["dimensions"] = "acme", "CRD", 60, object{"model": "large"}
		return product("/v1/holds", body).want(t, 201).text(t, "held")
	}
	if got := held(object{"amount": "50", "size": "suggested"}); got != "50" {
		t.Errorf("%s are held while nothing is known", got)
	}
	for i := range 40 {
		amount := "1"
		if i == 7 {
			amount = "100" // one that is much larger is no habit
		}
		product("/v1/consume", object{"customer": "acme", "unit": "CRD", "amount": amount, "dimensions": object{"model": "large"}}).want(t, 200)
	}
	customer, err := credit.ParseID[credit.CustomerID](suggest("customer=acme")["customer_id"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Store.CountUsage(t.Context(), customer); err != nil {
		t.Fatal(err)
	}
	const quarter = "1.048576" // 2 to the 20th steps: the bound of the bucket that 1,000,000 steps are in
	expect(suggest("customer=acme&model=large&maximum=50"), "customer", quarter)
	expect(suggest("customer=acme&model=large&maximum=0.5"), "customer", "0.5")
	expect(suggest("customer=new&model=large"), "model", quarter)
	expect(suggest("customer=acme&model=large&quantile=0.999&maximum=50"), "maximum", "50")
	expect(suggest("customer=acme&model=small"), "none", nil)
	if got := held(object{"amount": "50", "size": "suggested"}); got != quarter {
		t.Errorf("%s are held", got)
	}
	if got := held(object{"amount": "50", "size": "stated"}); got != "50" {
		t.Errorf("%s are held", got)
	}
	r := request{role: "product", method: "POST", path: "/v1/holds", key: "suggested",
		body: object{"customer": "acme", "unit": "CRD", "amount": "50", "size": "suggested", "expires_in": 60, "dimensions": object{"model": "large"}}}
	first := w.send(t, r).want(t, 201)
	if _, err := w.Store.Pool.Exec(t.Context(), "UPDATE usage_sizes SET buckets = '{60}', weights = '{100}'"); err != nil {
		t.Fatal(err)
	}
	if again := w.send(t, r).want(t, 201); string(again.body) != string(first.body) {
		t.Errorf("%s, and once the suggestion is another: %s", first.body, again.body)
	}
	r.body.(object)["size"] = "stated"
	w.send(t, r).problem(t, 422, credit.RequestMismatch)
	product("/v1/holds", object{"customer": "acme", "meter": "images", "quantity": "1", "size": "suggested", "expires_in": 60}).problem(t, 400, credit.InvalidRequest)
	product("/v1/holds", object{"customer": "acme", "unit": "CRD", "amount": "1", "size": "huge", "expires_in": 60}).problem(t, 400, credit.InvalidRequest)
	for _, bad := range []string{"customer=acme&quantile=1", "customer=acme&quantile=x", "model=large", "customer=acme&unknown=1"} {
		w.admin(t, "GET", "/v1/holds/suggestion?unit=CRD&"+bad, nil).problem(t, 400, credit.InvalidRequest)
	}
	w.admin(t, "GET", "/v1/holds/suggestion?customer=acme", nil).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "GET", "/v1/holds/suggestion?customer=acme&unit=NONE", nil).problem(t, 404, credit.UnitNotFound)
	w.admin(t, "GET", "/v1/holds/suggestion?customer=nobody&unit=CRD", nil).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "GET", "/v1/holds/suggestion?customer=acme&unit=CRD&maximum=0", nil).problem(t, 400, credit.InvalidAmount)
}
