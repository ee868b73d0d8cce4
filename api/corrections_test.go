package api

import (
	"testing"

	"github.com/tallystick/tallystick/credit"
)

func TestCorrections(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	post := func(path string, body object) answer {
		t.Helper()
		return w.send(t, request{role: "support", method: "POST", path: path, key: w.newKey(), body: body})
	}
	used := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "use", body: object{"customer": "acme", "unit": "CRD", "amount": "60"}}).want(t, 200)
	ver := used.object(t)["ver"].(float64)
	path := "/v1/operations/acme/" + string(rune('0'+int(ver))) + "/corrections"
	r := request{role: "support", method: "POST", path: path, key: "c1", body: object{"units": "10", "reason": "Counted twice"}}
	first := w.send(t, r).want(t, 201)
	if first.text(t, "given_back") != "10" || first.text(t, "left") != "50" || first.text(t, "available") != "50" || first.text(t, "corrects") != used.text(t, "operation") {
		t.Errorf("%s", first.body)
	}
	if again := w.send(t, r).want(t, 201); string(again.body) != string(first.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s", again.body)
	}
	r.body = object{"units": "11", "reason": "Counted twice"}
	w.send(t, r).problem(t, 422, credit.RequestMismatch)
	for _, bad := range []object{{"reason": "x"}, {"units": "1"}, {"units": "1", "all": true, "reason": "x"}, {"units": "1", "usage": []object{}, "reason": "x"},
		{"units": "1", "reissue": object{}, "reason": "x"}, {"all": false, "reason": "x"}} {
		post(path, bad).problem(t, 400, credit.InvalidRequest)
	}
	post(path, object{"units": "0", "reason": "x"}).problem(t, 400, credit.InvalidAmount)
	post(path, object{"units": "51", "reason": "x"}).problem(t, 409, credit.NotCorrectable)
	post(path, object{"usage": []object{{"meter": "images", "quantity": "1"}}, "reason": "x"}).problem(t, 409, credit.NotCorrectable)
	post("/v1/operations/acme/99/corrections", object{"all": true, "reason": "x"}).problem(t, 404, credit.NotFound)
	post("/v1/operations/acme/x/corrections", object{"all": true, "reason": "x"}).problem(t, 400, credit.InvalidID)
	if a := post(path, object{"amount": "20", "reissue": object{"expires_at": nil}, "reason": "It was less"}).want(t, 201); a.text(t, "given_back") != "30" || a.text(t, "left") != "20" {
		t.Errorf("%s", a.body)
	}
	if a := post(path, object{"amount": "35", "reason": "It was more"}).want(t, 201); a.text(t, "taken") != "15" || a.text(t, "available") != "65" {
		t.Errorf("%s", a.body)
	}
}

func TestDecrementAndTransfer(t *testing.T) {
	w := newWorld(t)
	g := w.grant(t, "100", object{"type": "purchased", "price": object{"amount": "10.00", "currency": "USD"}})
	post := func(path string, body object) answer {
		t.Helper()
		return w.send(t, request{role: "support", method: "POST", path: path, key: w.newKey(), body: body})
	}
	if a := post("/v1/grants/"+g+"/decrement", object{"units": "10", "reason": "Abuse"}).want(t, 200); a.text(t, "units") != "10" || a.text(t, "reason") != "Abuse" {
		t.Errorf("%s", a.body)
	}
	post("/v1/grants/"+g+"/decrement", object{"units": "91", "reason": "Abuse"}).problem(t, 402, credit.InsufficientCredits)
	post("/v1/grants/"+g+"/decrement", object{"units": "1"}).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "POST", "/v1/customers", object{"name": "Other", "legal_entity": "main", "external_id": "other"}).want(t, 201)
	to := w.admin(t, "POST", "/v1/wallets", object{"customer": "other", "unit": "CRD", "name": "Main"}).want(t, 201).text(t, "id")
	r := request{role: "support", method: "POST", path: "/v1/transfers", key: "t1", body: object{"from": w.wallet, "to": to, "units": "30", "reason": "The team has moved"}}
	a := w.send(t, r).want(t, 201)
	if again := w.send(t, r).want(t, 201); string(again.body) != string(a.body) {
		t.Errorf("%s", again.body)
	}
	moved := a.object(t)["grants"].([]any)[0].(object)
	if a.text(t, "available") != "60" || moved["from_grant_id"] != g || moved["cost_basis"].(object)["amount"] != "3.00" {
		t.Errorf("%s", a.body)
	}
	arrived := w.admin(t, "GET", "/v1/grants/"+moved["grant_id"].(string), nil).want(t, 200)
	if arrived.text(t, "from_grant_id") != g || arrived.text(t, "type") != "purchased" {
		t.Errorf("%s", arrived.body)
	}
	post("/v1/transfers", object{"from": w.wallet, "to": to, "grant": g, "all": true, "reason": "All of it"}).want(t, 201)
	post("/v1/transfers", object{"from": w.wallet, "to": to, "all": true, "reason": "More"}).problem(t, 402, credit.InsufficientCredits)
	post("/v1/transfers", object{"from": to, "to": to, "all": true, "reason": "Nowhere"}).problem(t, 400, credit.InvalidRequest)
	post("/v1/transfers", object{"from": credit.NewID[credit.WalletID](), "to": to, "all": true, "reason": "x"}).problem(t, 404, credit.WalletNotFound)
	line := w.admin(t, "GET", "/v1/customers/other/history", nil).want(t, 200).data(t)
	if line[0]["kind"] != "transfer" || line[0]["reason"] != "All of it" {
		t.Errorf("%v", line[0])
	}
	have := w.admin(t, "GET", "/v1/wallets/"+to+"/balance", nil).want(t, 200)
	if have.object(t)["units"].([]any)[0].(object)["available"] != "90" {
		t.Errorf("%s", have.body)
	}
}

func TestDisputes(t *testing.T) {
	w := newWorld(t)
	g := w.grant(t, "100", object{"type": "purchased", "price": object{"amount": "10.00", "tax": "0.80", "currency": "USD"}})
	body := func(status string, more object) object {
		b := object{"reference": "dp_1", "grant": g, "status": status, "amount": "10.80", "fee": "1.50", "currency": "USD", "reason": "fraudulent"}
		for k, v := range more {
			b[k] = v
		}
		return b
	}
	post := func(b object) answer {
		t.Helper()
		return w.send(t, request{role: "finance", method: "POST", path: "/v1/disputes", key: w.newKey(), body: b})
	}
	for _, bad := range []object{{"currency": "EUR"}, {"status": "maybe"}, {"reference": ""}} {
		post(body("open", bad)).problem(t, 400, credit.InvalidRequest)
	}
	post(body("open", object{"amount": "0"})).problem(t, 400, credit.InvalidAmount)
	post(body("open", object{"amount": "10.81"})).problem(t, 409, credit.DisputeState)
	post(body("open", object{"grant": credit.NewID[credit.GrantID]()})).problem(t, 404, credit.GrantNotFound)
	opened := post(body("open", nil)).want(t, 200)
	if opened.text(t, "frozen") != "100" || opened.text(t, "status") != "open" {
		t.Errorf("%s", opened.body)
	}
	id := opened.text(t, "id")
	post(body("lost", object{"fee": "1.51"})).problem(t, 409, credit.DisputeState)
	if a := post(body("lost", nil)).want(t, 200); a.text(t, "id") != id || a.text(t, "status") != "lost" || a.text(t, "frozen") != "0" {
		t.Errorf("%s", a.body)
	}
	post(body("open", nil)).want(t, 200)
	post(body("won", nil)).problem(t, 409, credit.DisputeState)
	if got := w.all(t, "/v1/disputes?customer=acme&status=lost&grant="+g, func() int { return 1 }); len(got) != 1 || got[0]["id"] != id {
		t.Errorf("%v", got)
	}
	if a := w.admin(t, "GET", "/v1/disputes/"+id, nil).want(t, 200); a.text(t, "reference") != "dp_1" || a.text(t, "ended_at") == "" {
		t.Errorf("%s", a.body)
	}
	w.admin(t, "GET", "/v1/disputes/dsp_1", nil).problem(t, 400, credit.InvalidID)
	w.admin(t, "GET", "/v1/disputes/"+credit.NewID[credit.DisputeID]().String(), nil).problem(t, 404, credit.DisputeNotFound)
}
