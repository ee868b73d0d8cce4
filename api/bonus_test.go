package api

import (
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/verify"
)

// 100.00 and 8.00 of tax for credits worth 100 and a bonus of its own terms worth 20 that is used with a likelihood of 60 %: 89.29 and 10.71. Half of the
// purchase refunded takes half of the bonus; what of the bonus is used by then is not paid back.
func TestBonus(t *testing.T) {
	w := newWorld(t)
	buy := func(more object) answer {
		body := object{"wallet": w.wallet, "type": "purchased", "amount": "1000", "price": object{"amount": "100.00", "tax": "8.00", "currency": "USD"},
			"bonus": object{"amount": "200", "value": "20.00", "likelihood": "0.6", "purchase_value": "100", "priority": 5, "scope": object{"model": []string{"small"}},
				"expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}}
		for k, v := range more {
			body[k] = v
		}
		return w.admin(t, "POST", "/v1/grants", body)
	}
	bought := buy(nil).want(t, 201).object(t)
	bonus := bought["bonus"].(object)
	id, bonusID := bought["id"].(string), bonus["id"].(string)
	if p, b := bought["price"].(object), bonus["price"].(object); p["amount"] != "89.29" || b["amount"] != "10.71" || p["tax"] != "7.14" || b["tax"] != "0.86" {
		t.Errorf("%v and %v", p, b)
	}
	if bonus["bonus_of"] != id || bonus["priority"] != 5.0 || bonus["type"] != "purchased" || bonus["state"] != "active" {
		t.Errorf("%v", bonus)
	}
	if got := w.admin(t, "GET", "/v1/grants/"+bonusID, nil).want(t, 200).object(t); got["bonus_of"] != id || got["amount"] != "200" {
		t.Errorf("%v", got)
	}
	for path, code := range map[string]credit.Code{"refunds": credit.NotRefundable, "void": credit.GrantState, "issue": credit.GrantState} {
		var body any = object{"reason": "x"}
		switch path {
		case "refunds":
			body = object{"reason": "x", "all": true}
		case "issue":
			body = nil
		}
		w.admin(t, "POST", "/v1/grants/"+bonusID+"/"+path, body).problem(t, 409, code)
	}
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "a", body: object{"customer": "acme", "unit": "CRD", "amount": "150", "dimensions": object{"model": "small"}}}).want(t, 200)

	preview := w.admin(t, "POST", "/v1/grants/"+id+"/refunds/preview", object{"units": "100"}).want(t, 200).object(t)
	refund := w.admin(t, "POST", "/v1/grants/"+id+"/refunds", object{"units": "100", "reason": "x"}).want(t, 201).object(t)
	for what, got := range map[string]object{"preview": preview, "refund": refund} {
		back := got["bonus"].(object)
		if got["money"].(object)["amount"] != "8.92" || back["units"] != "20" || back["money"].(object)["amount"] != "1.07" || back["grant_id"] != bonusID || back["refundable"] != "30" {
			t.Errorf("%s: %v", what, got)
		}
	}
	if got := w.admin(t, "GET", "/v1/grants/"+id+"/refundable", nil).want(t, 200).object(t); got["units"] != "900" || got["bonus"].(object)["units"] != "30" {
		t.Errorf("%v", got)
	}
	rest := w.admin(t, "POST", "/v1/grants/"+id+"/refunds", object{"all": true, "reason": "x"}).want(t, 201).object(t)
	if rest["money"].(object)["amount"] != "80.37" || rest["bonus"].(object)["units"] != "30" || rest["bonus"].(object)["money"].(object)["amount"] != "1.61" {
		t.Errorf("%v", rest)
	}
	w.admin(t, "POST", "/v1/finance/recognise", nil).want(t, 200)
	balances := map[any]any{}
	for _, a := range w.admin(t, "GET", "/v1/finance/trial_balance?legal_entity=main", nil).object(t)["accounts"].([]any) {
		balances[a.(object)["account"]] = a.(object)["balance"]
	}
	// 150 of the bonus' 200 credits are used: 8.03 of 10.71; all else was refunded.
	if balances[4010.0] != "-8.03" || balances[2010.0] != "0.00" || balances[1020.0] != "108.00" {
		t.Errorf("%v", balances)
	}
	for _, g := range []string{id, bonusID} {
		if got := w.admin(t, "GET", "/v1/finance/journal_entries?legal_entity=main&grant="+g, nil).data(t); len(got) < 3 {
			t.Errorf("%v", got)
		}
	}

	// The bonus waits for the payment with its purchase, and goes when that is voided.
	pending := buy(object{"payment": "pending"}).want(t, 201).object(t)
	if pending["bonus"].(object)["state"] != "pending_payment" {
		t.Errorf("%v", pending)
	}
	issued := w.admin(t, "POST", "/v1/grants/"+pending["id"].(string)+"/issue", nil).want(t, 200).object(t)
	if issued["state"] != "active" || issued["bonus"].(object)["state"] != "active" {
		t.Errorf("%v", issued)
	}
	voided := w.admin(t, "POST", "/v1/grants/"+pending["id"].(string)+"/void", object{"reason": "x"}).want(t, 200).object(t)
	if voided["state"] != "voided" || voided["bonus"].(object)["state"] != "voided" {
		t.Errorf("%v", voided)
	}
	unpaid := buy(object{"payment": "pending"}).want(t, 201).object(t)["id"].(string)
	if got := w.admin(t, "POST", "/v1/grants/"+unpaid+"/void", object{"reason": "x"}).want(t, 200).object(t); got["bonus"].(object)["state"] != "voided" {
		t.Errorf("%v", got)
	}

	w.admin(t, "POST", "/v1/finance/recognise", nil).want(t, 200)
	if report, err := verify.Run(t.Context(), w.Store, nil, verify.Options{}); err != nil || !report.Clean() {
		t.Errorf("the books: %+v, %v", report, err)
	}
	for what, more := range map[string]object{
		"nothing is paid":   {"type": "promotional", "price": nil},
		"over at once":      {"bonus": object{"amount": "1", "value": "1", "expires_at": "2020-01-01T00:00:00Z"}},
		"likelihood":        {"bonus": object{"amount": "1", "value": "1", "likelihood": "1.5"}},
		"value of no money": {"bonus": object{"amount": "1", "value": "1.234"}},
		"no credits":        {"bonus": object{"amount": "0", "value": "1"}},
		"no value":          {"bonus": object{"amount": "1"}},
	} {
		if more["type"] == "promotional" {
			w.admin(t, "POST", "/v1/grants", object{"wallet": w.wallet, "type": "promotional", "amount": "1", "bonus": object{"amount": "1", "value": "1"}}).problem(t, 400, credit.InvalidRequest)
			continue
		}
		if a := buy(more); a.status != 400 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
}
