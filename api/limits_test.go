package api

import (
	"testing"

	"github.com/tallystick/tallystick/credit"
)

func TestLimits(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "1000", nil)
	send := func(role, method, path string, body object) answer {
		t.Helper()
		r := request{role: role, method: method, path: path}
		if body != nil {
			r.body = body
		}
		if method != "GET" {
			r.key = w.newKey()
		}
		return w.send(t, r)
	}
	ann := send("support", "POST", "/v1/customers/acme/members", object{"name": "Ann", "external_id": "ann"}).want(t, 201)
	if ann.object(t)["active"] != true {
		t.Errorf("%s", ann.body)
	}
	allowance := object{"customer": "acme", "name": "Share", "unit": "CRD", "amount": "100", "applies_to": "each_member", "wallet": w.wallet, "window": "month"}
	first := send("support", "POST", "/v1/limits", allowance).want(t, 201)
	id := first.text(t, "id")
	if first.text(t, "mode") != "hard" || first.object(t)["warn_at"].([]any)[0] != 80.0 {
		t.Errorf("%s", first.body)
	}
	send("support", "POST", "/v1/limits", allowance).problem(t, 409, credit.AlreadyExists)
	send("product", "POST", "/v1/limits", allowance).problem(t, 403, credit.Forbidden)
	send("support", "POST", "/v1/limits", object{"customer": "acme", "name": "No such wallet", "unit": "CRD", "amount": "1", "applies_to": "customer",
		"wallet": credit.NewID[credit.WalletID]().String(), "window": "day"}).problem(t, 404, credit.WalletNotFound)
	for name, change := range map[string]object{
		"no window":              {"window": "year"},
		"a length":               {"window_seconds": 60},
		"no length":              {"window": "rolling"},
		"half a minute":          {"window": "rolling", "window_seconds": 90},
		"a member":               {"member": "ann"},
		"no member":              {"applies_to": "member"},
		"no dimension":           {"applies_to": "each_value"},
		"no value":               {"applies_to": "value", "dimension": "api_key"},
		"a value":                {"applies_to": "each_value", "dimension": "api_key", "value": "k1"},
		"thresholds unordered":   {"warn_at": []int{80, 50}},
		"a threshold of 100":     {"warn_at": []int{100}},
		"a mode that is no such": {"mode": "maybe"},
	} {
		body := object{"name": name}
		for k, v := range allowance {
			if k != "name" {
				body[k] = v
			}
		}
		for k, v := range change {
			body[k] = v
		}
		if a := send("support", "POST", "/v1/limits", body); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	send("support", "POST", "/v1/limits", object{"customer": "acme", "name": "Nobody's", "unit": "CRD", "amount": "1", "applies_to": "member", "member": "bob", "window": "day"}).
		problem(t, 404, credit.MemberNotFound)
	send("support", "POST", "/v1/limits", object{"customer": "acme", "name": "Below nothing", "unit": "CRD", "amount": "-1", "applies_to": "customer", "window": "day"}).
		problem(t, 400, credit.InvalidAmount)
	send("support", "POST", "/v1/limits", object{"customer": "acme", "name": "Spend", "unit": "CRD", "amount": "500", "applies_to": "customer", "window": "rolling", "window_seconds": 3600,
		"mode": "soft"}).want(t, 201)
	send("support", "POST", "/v1/limits", object{"customer": "acme", "name": "Ann alone", "unit": "CRD", "amount": "400", "applies_to": "member", "member": "ann", "window": "total"}).want(t, 201)
	send("support", "POST", "/v1/limits", object{"customer": "acme", "name": "Key", "unit": "CRD", "amount": "300", "applies_to": "value", "dimension": "api_key", "value": "k1", "window": "minute"}).want(t, 201)

	use := func(amount string) answer {
		t.Helper()
		return send("product", "POST", "/v1/consume", object{"customer": "acme", "member": "ann", "unit": "CRD", "amount": amount, "dimensions": object{"api_key": "k1"}})
	}
	use("70").want(t, 200)
	r := request{role: "product", method: "POST", path: "/v1/consume", key: "limited", body: object{"customer": "acme", "member": "ann", "unit": "CRD", "amount": "31"}}
	denied := w.send(t, r)
	denied.problem(t, 402, credit.LimitReached)
	if p := denied.object(t); p["limit_id"] != id || p["left"] != "30" || p["required"] != "31" || p["member_id"] != ann.text(t, "id") || p["wallet_id"] != w.wallet || p["resets_at"] == nil ||
		p["applies_to"] != "each_member" || p["window"] != "month" || p["limit_amount"] != "100" {
		t.Errorf("%s", denied.body)
	}
	if again := w.send(t, r); string(again.body) != string(denied.body) {
		t.Errorf("%s, then %s", denied.body, again.body)
	}
	send("product", "POST", "/v1/holds", object{"customer": "acme", "member": "ann", "unit": "CRD", "amount": "31", "expires_in": 60}).problem(t, 402, credit.LimitReached)
	send("product", "POST", "/v1/quote", object{"customer": "acme", "member": "ann", "unit": "CRD", "amount": "31"}).problem(t, 402, credit.LimitReached)
	quote := send("product", "POST", "/v1/quote", object{"customer": "acme", "member": "ann", "unit": "CRD", "amount": "30"}).want(t, 200)
	if limits := quote.object(t)["limits"].([]any); len(limits) != 3 {
		t.Errorf("%s", quote.body)
	}
	partly := send("product", "POST", "/v1/quote", object{"customer": "acme", "member": "ann", "unit": "CRD", "amount": "31", "partial": true}).want(t, 200)
	if by, ok := partly.object(t)["refused_by"].(map[string]any); !ok || by["limit_id"] != id {
		t.Errorf("%s", partly.body)
	}
	if got := send("product", "GET", "/v1/customers/acme/members/ann/balance", nil).want(t, 200).object(t)["units"].([]any)[0].(map[string]any); got["available"] != "30" || len(got["limits"].([]any)) != 3 {
		t.Errorf("%v", got)
	}

	// Changed at once, with what was taken; the same call again is answered the same.
	raise := request{role: "support", method: "PATCH", path: "/v1/limits/" + id, key: "raise", body: object{"amount": "120", "name": "Larger share", "warn_at": []int{90}, "reason": "asked for"}}
	raised := w.send(t, raise).want(t, 200)
	if again := w.send(t, raise).want(t, 200); string(again.body) != string(raised.body) || raised.text(t, "amount") != "120" {
		t.Errorf("%s, then %s", raised.body, again.body)
	}
	use("31").want(t, 200)
	send("support", "PATCH", "/v1/limits/"+id, object{"amount": "50"}).want(t, 200)
	use("1").problem(t, 402, credit.LimitReached)
	send("support", "PATCH", "/v1/limits/"+id, object{}).problem(t, 400, credit.InvalidRequest)
	send("support", "PATCH", "/v1/limits/"+id, object{"name": "Spend"}).problem(t, 409, credit.AlreadyExists)
	send("support", "PATCH", "/v1/limits/"+id, object{"amount": "0.0000001"}).problem(t, 400, credit.InvalidAmount)

	usage := map[string]map[string]any{}
	for _, u := range w.all(t, "/v1/customers/acme/limits/usage", func() int { return 1 }) {
		usage[u["name"].(string)] = u
	}
	if len(usage) != 4 || usage["Larger share"]["used"] != "101" || usage["Larger share"]["left"] != "0" || usage["Spend"]["used"] != "101" || usage["Spend"]["resets_at"] == nil ||
		usage["Ann alone"]["used"] != "101" || usage["Ann alone"]["resets_at"] != nil || usage["Key"]["value"] != "k1" {
		t.Errorf("%v", usage)
	}
	if got := w.all(t, "/v1/customers/acme/limits/usage?member=ann", func() int { return 1 }); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if got := w.all(t, "/v1/customers/acme/limits/usage?member="+send("support", "POST", "/v1/customers/acme/members", object{"name": "Bob"}).want(t, 201).text(t, "id"), func() int { return 1 }); len(got) != 0 {
		t.Errorf("%v", got)
	}

	ended := send("support", "DELETE", "/v1/limits/"+id, nil).want(t, 200)
	if ended.object(t)["ended_at"] == nil {
		t.Errorf("%s", ended.body)
	}
	send("support", "DELETE", "/v1/limits/"+id, nil).problem(t, 404, credit.LimitNotFound)
	send("support", "PATCH", "/v1/limits/"+id, object{"amount": "1"}).problem(t, 404, credit.LimitNotFound)
	if got := send("ops", "GET", "/v1/limits/"+id, nil).want(t, 200); got.object(t)["ended_at"] == nil {
		t.Errorf("%s", got.body)
	}
	if got := w.all(t, "/v1/limits?customer=acme&status=active", func() int { return 2 }); len(got) != 3 {
		t.Errorf("%v", got)
	}
	if got := w.all(t, "/v1/limits?status=ended", func() int { return 1 }); len(got) != 1 || got[0]["id"] != id {
		t.Errorf("%v", got)
	}
	send("ops", "GET", "/v1/limits?status=over", nil).problem(t, 400, credit.InvalidRequest)
	send("ops", "GET", "/v1/limits/lmt_1", nil).problem(t, 400, credit.InvalidID)
	send("ops", "GET", "/v1/limits/"+credit.NewID[credit.LimitID]().String(), nil).problem(t, 404, credit.LimitNotFound)
	send("ops", "GET", "/v1/customers/acme/limits/usage?cursor=x", nil).problem(t, 400, credit.InvalidRequest)
	send("ops", "GET", "/v1/customers/nobody/limits/usage", nil).problem(t, 404, credit.CustomerNotFound)
	use("150").want(t, 200)
}

func TestMembers(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	support := func(method, path string, body object) answer {
		t.Helper()
		return w.send(t, request{role: "support", method: method, path: path, key: w.newKey(), body: body})
	}
	use := func(amount string) answer {
		t.Helper()
		return w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(), body: object{"customer": "acme", "member": "ann", "unit": "CRD", "amount": amount}})
	}
	id := support("POST", "/v1/customers/acme/members", object{"name": "Ann", "external_id": "ann"}).want(t, 201).text(t, "id")
	own := support("POST", "/v1/wallets", object{"customer": "acme", "unit": "CRD", "name": "Ann's", "member": "ann"}).want(t, 201)
	if own.text(t, "member_id") != id || own.object(t)["priority"] != 50.0 {
		t.Errorf("%s", own.body)
	}
	if got := w.admin(t, "GET", "/v1/wallets/"+own.text(t, "id"), nil).want(t, 200); got.text(t, "member_id") != id {
		t.Errorf("%s", got.body)
	}
	support("POST", "/v1/wallets", object{"customer": "acme", "unit": "CRD", "name": "Bob's", "member": "bob"}).problem(t, 404, credit.MemberNotFound)
	bob := support("POST", "/v1/customers/acme/members", object{"name": "Bob", "external_id": "bob"}).want(t, 201).text(t, "id")
	support("POST", "/v1/grants", object{"wallet": own.text(t, "id"), "amount": "5", "type": "granted", "member": bob}).problem(t, 400, credit.InvalidRequest)
	support("POST", "/v1/grants", object{"wallet": own.text(t, "id"), "amount": "5", "type": "granted"}).want(t, 201)
	if draws := use("7").want(t, 200).object(t)["draws"].([]any); len(draws) != 2 || draws[0].(map[string]any)["wallet_id"] != own.text(t, "id") {
		t.Errorf("%v", draws)
	}
	support("PATCH", "/v1/customers/acme/members/ann", object{}).problem(t, 400, credit.InvalidRequest)
	support("PATCH", "/v1/customers/acme/members/nobody", object{"active": false}).problem(t, 404, credit.MemberNotFound)
	off := support("PATCH", "/v1/customers/acme/members/ann", object{"active": false, "name": "Ann B.", "reason": "left"}).want(t, 200)
	if off.object(t)["active"] != false || off.text(t, "name") != "Ann B." {
		t.Errorf("%s", off.body)
	}
	p := use("1")
	p.problem(t, 402, credit.NotEntitled)
	if p.object(t)["member_id"] != id {
		t.Errorf("%s", p.body)
	}
	if got := w.admin(t, "GET", "/v1/customers/acme/members/"+id+"/balance", nil).want(t, 200).object(t); got["active"] != false || got["units"].([]any)[0].(map[string]any)["available"] != "0" {
		t.Errorf("%v", got)
	}
	support("PATCH", "/v1/customers/acme/members/ann", object{"active": true, "scope": object{"model": []string{"small"}}}).want(t, 200)
	p = use("1")
	p.problem(t, 402, credit.NotEntitled)
	if p.object(t)["member_scope"] == nil {
		t.Errorf("%s", p.body)
	}
	support("PATCH", "/v1/customers/acme/members/ann", object{"scope": object{}}).want(t, 200)
	use("1").want(t, 200)
	if got := w.admin(t, "GET", "/v1/customers/acme/members/ann", nil).want(t, 200); got.text(t, "name") != "Ann B." || got.object(t)["active"] != true {
		t.Errorf("%s", got.body)
	}
	w.admin(t, "GET", "/v1/customers/acme/members/nobody", nil).problem(t, 404, credit.MemberNotFound)
	if got := w.admin(t, "GET", "/v1/customers/acme/members", nil).want(t, 200).data(t); len(got) != 2 || got[0]["active"] != true {
		t.Errorf("%v", got)
	}
}

// A member's own rate card is set by code, shown, and taken away again.
func TestAMembersRateCard(t *testing.T) {
	w := newWorld(t)
	w.admin(t, "POST", "/v1/rate_cards", object{"code": "seat", "unit": "CRD"}).want(t, 201)
	member := "/v1/customers/acme/members/" + w.admin(t, "POST", "/v1/customers/acme/members", object{"name": "Ann"}).want(t, 201).text(t, "id")
	for _, body := range []object{{"rate_card": "seat"}, {"rate_card": nil}} {
		changed := w.admin(t, "PATCH", member, body).want(t, 200).object(t)
		read := w.admin(t, "GET", member, nil).want(t, 200).object(t)
		if changed["rate_card_id"] != read["rate_card_id"] || (read["rate_card_id"] == nil) != (body["rate_card"] == nil) {
			t.Errorf("%v: %v, read %v", body, changed, read)
		}
	}
	w.admin(t, "PATCH", member, object{"rate_card": "none"}).problem(t, 404, credit.RateCardNotFound)
}
