package api

import (
	"bytes"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
)

func TestWallets(t *testing.T) {
	w := newWorld(t)
	soft := w.admin(t, "POST", "/v1/wallets", object{"customer": "acme", "unit": "CRD", "name": "Images", "priority": 5, "scope": object{"product": []string{"images"}},
		"cap": "soft", "overage_limit": "10", "overage_price": "15.00"}).want(t, 201)
	id, overage := soft.text(t, "id"), soft.text(t, "overage_grant_id")
	got := w.admin(t, "GET", "/v1/wallets/"+id, nil).want(t, 200)
	if got.text(t, "overage_grant_id") != overage || got.text(t, "cap") != "soft" || got.object(t)["priority"] != 5.0 {
		t.Errorf("%s", got.body)
	}
	a := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(),
		body: object{"customer": "acme", "unit": "CRD", "amount": "4", "dimensions": object{"product": "images"}}}).want(t, 200)
	if a.object(t)["draws"].([]any)[0].(object)["type"] != "overage" || a.text(t, "available") != "0" {
		t.Errorf("%s", a.body)
	}
	patched := w.admin(t, "PATCH", "/v1/wallets/"+id, object{"priority": 7, "scope": object{}}).want(t, 200)
	if patched.object(t)["priority"] != 7.0 || len(patched.object(t)["scope"].(object)) != 0 {
		t.Errorf("%s", patched.body)
	}
	w.admin(t, "POST", "/v1/wallets", object{"customer": "acme", "unit": "CRD", "name": "Main"}).problem(t, 409, credit.AlreadyExists)
	for _, bad := range []object{
		{"customer": "acme", "unit": "CRD", "name": "S", "cap": "soft"},
		{"customer": "acme", "unit": "CRD", "name": "S", "overage_limit": "1", "overage_price": "1"},
		{"customer": "acme", "unit": "CRD", "name": "S", "cap": "soft", "overage_limit": "1"},
		{"customer": "acme", "unit": "CRD", "name": "S", "priority": -1},
		{"customer": "acme", "unit": "CRD", "name": "S", "scope": object{"a": []string{}}},
		{"customer": "acme", "unit": "CRD", "name": "S", "scope": object{"a": "b"}},
	} {
		w.admin(t, "POST", "/v1/wallets", bad).problem(t, 400, credit.InvalidRequest)
	}
	w.admin(t, "POST", "/v1/wallets", object{"customer": "acme", "unit": "CRD", "name": "S", "cap": "soft", "overage_limit": "0", "overage_price": "1"}).problem(t, 400, credit.InvalidAmount)
	w.admin(t, "POST", "/v1/wallets", object{"customer": "acme", "unit": "CRD", "name": "S", "cap": "soft", "overage_limit": "1", "overage_price": "1.005"}).problem(t, 400, credit.InvalidAmount)
	w.admin(t, "POST", "/v1/wallets", object{"customer": "acme", "unit": "X", "name": "S"}).problem(t, 404, credit.UnitNotFound)
	w.admin(t, "POST", "/v1/wallets", object{"customer": "nobody", "unit": "CRD", "name": "S"}).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "GET", "/v1/wallets/wal_00000000000000000000000004", nil).problem(t, 404, credit.WalletNotFound)
	w.admin(t, "GET", "/v1/wallets/grt_00000000000000000000000004", nil).problem(t, 400, credit.InvalidID)
	if got := w.admin(t, "GET", "/v1/wallets?customer=acme", nil).data(t); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

func TestGrantLifecycle(t *testing.T) {
	w := newWorld(t)
	expiry := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	r := request{role: "support", method: "POST", path: "/v1/grants", key: "g1", body: object{"wallet": w.wallet, "type": "purchased", "amount": "1000", "payment": "pending",
		"price": object{"amount": "100.00", "tax": "19.00", "currency": "EUR", "fx_rate": "1.1"}, "expires_at": expiry.Format(time.RFC3339), "metadata": object{"order": "4711"},
		"scope": object{"product": []string{"chat"}}}}
	first := w.send(t, r).want(t, 201)
	if again := w.send(t, r).want(t, 201); !bytes.Equal(first.body, again.body) {
		t.Errorf("%s, then %s", first.body, again.body)
	}
	id := first.text(t, "id")
	state := func(want string) {
		t.Helper()
		if got := w.admin(t, "GET", "/v1/grants/"+id, nil).want(t, 200).text(t, "state"); got != want {
			t.Fatalf("the grant is %s, not %s", got, want)
		}
	}
	state("pending_payment")
	if got := w.admin(t, "GET", "/v1/grants/"+id, nil); got.text(t, "cost_basis", "amount") != "110.00" || got.text(t, "metadata", "order") != "4711" {
		t.Errorf("%s", got.body)
	}
	w.admin(t, "POST", "/v1/grants/"+id+"/freeze", object{"reason": "x"}).problem(t, 409, credit.GrantState)
	if got := w.admin(t, "GET", "/v1/grants/"+id+"/refundable", nil).want(t, 200); got.text(t, "units") != "0" {
		t.Errorf("%s", got.body)
	}
	w.admin(t, "POST", "/v1/grants/"+id+"/issue", object{"payment_ref": "pi_1"}).want(t, 200)
	state("active")
	w.admin(t, "POST", "/v1/grants/"+id+"/issue", nil).problem(t, 409, credit.GrantState)
	w.admin(t, "POST", "/v1/grants/"+id+"/extend", object{"expires_at": expiry.Add(time.Hour).Format(time.RFC3339), "reason": "goodwill"}).want(t, 200)
	w.admin(t, "POST", "/v1/grants/"+id+"/extend", object{"expires_at": expiry.Format(time.RFC3339), "reason": "goodwill"}).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "POST", "/v1/grants/"+id+"/extend", object{"expires_at": nil, "reason": "goodwill"}).want(t, 200)
	w.admin(t, "POST", "/v1/grants/"+id+"/extend", object{"reason": "goodwill"}).problem(t, 400, credit.InvalidRequest)
	w.send(t, request{role: "ops", method: "POST", path: "/v1/grants/" + id + "/freeze", key: "f", body: object{"reason": "disputed"}}).want(t, 200)
	state("frozen")
	consume := object{"customer": "acme", "unit": "CRD", "amount": "100", "dimensions": object{"product": "chat"}}
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "a", body: consume}).problem(t, 402, credit.NotEntitled)
	w.send(t, request{role: "ops", method: "POST", path: "/v1/grants/" + id + "/unfreeze", key: "u", body: object{"reason": "settled"}}).want(t, 200)
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "b", body: consume}).want(t, 200)
	w.admin(t, "POST", "/v1/grants/"+id+"/void", object{"reason": "a mistake"}).want(t, 200)
	state("voided")
	w.admin(t, "POST", "/v1/grants/"+id+"/void", object{}).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "POST", "/v1/grants/grt_00000000000000000000000004/void", object{"reason": "x"}).problem(t, 404, credit.GrantNotFound)
	refunds := w.admin(t, "GET", "/v1/refunds?grant="+id, nil).data(t)
	if len(refunds) != 1 || refunds[0]["units"] != "900" || refunds[0]["money"].(object)["amount"] != "90.00" || refunds[0]["money"].(object)["tax"] != "17.10" {
		t.Errorf("%v", refunds)
	}
	for state, n := range map[string]int{"voided": 1, "active": 0} {
		if got := w.admin(t, "GET", "/v1/grants?customer=acme&state="+state, nil).data(t); len(got) != n {
			t.Errorf("%d grants are %s", len(got), state)
		}
	}
	w.admin(t, "GET", "/v1/grants?state=gone", nil).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "GET", "/v1/grants?wallet=x", nil).problem(t, 400, credit.InvalidID)
	w.admin(t, "GET", "/v1/grants?wallett=x", nil).problem(t, 400, credit.InvalidRequest)
}

func TestGrantStatesInLists(t *testing.T) {
	w := newWorld(t)
	in := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339Nano) }
	ids := map[string]string{
		"pending_payment": w.grant(t, "1", object{"payment": "pending"}),
		"allocated":       w.grant(t, "1", object{"effective_at": in(time.Hour)}),
		"active":          w.grant(t, "1", nil),
		"frozen":          w.grant(t, "1", nil),
		"refunded":        w.grant(t, "1", object{"type": "purchased", "price": object{"amount": "1.00", "currency": "USD"}}),
		"voided":          w.grant(t, "1", nil),
		"expired":         w.grant(t, "1", object{"expires_at": in(300 * time.Millisecond)}),
	}
	w.admin(t, "POST", "/v1/grants/"+ids["frozen"]+"/freeze", object{"reason": "x"}).want(t, 200)
	w.admin(t, "POST", "/v1/grants/"+ids["refunded"]+"/refunds", object{"reason": "x", "all": true}).want(t, 201)
	w.admin(t, "POST", "/v1/grants/"+ids["voided"]+"/void", object{"reason": "x"}).want(t, 200)
	eventually(t, "the expiry", func() bool { return w.admin(t, "GET", "/v1/grants/"+ids["expired"], nil).text(t, "state") == "expired" })
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "a", body: object{"customer": "acme", "unit": "CRD", "amount": "1"}}).want(t, 200)
	ids["depleted"] = ids["active"]
	delete(ids, "active")
	for state, id := range ids {
		got := w.admin(t, "GET", "/v1/grants?wallet="+w.wallet+"&state="+state, nil).data(t)
		if len(got) != 1 || got[0]["id"] != id || got[0]["state"] != state {
			t.Errorf("%s: %v", state, got)
		}
	}
}

// A preview is refused as the refund is, in every state of a purchase: what it says is what will be.
func TestPreviewsRefuseAsRefundsDo(t *testing.T) {
	w := newWorld(t)
	purchase := func(more object) string {
		body := object{"type": "purchased", "price": object{"amount": "1.00", "currency": "USD"}}
		for k, v := range more {
			body[k] = v
		}
		return w.grant(t, "10", body)
	}
	ids := map[string]string{
		"pending": purchase(object{"payment": "pending"}), "refunded": purchase(nil), "voided": purchase(nil), "active": purchase(nil), "promotional": w.grant(t, "10", nil),
		"expired": purchase(object{"expires_at": time.Now().Add(300 * time.Millisecond).Format(time.RFC3339Nano)}),
	}
	w.admin(t, "POST", "/v1/grants/"+ids["refunded"]+"/refunds", object{"reason": "x", "all": true}).want(t, 201)
	w.admin(t, "POST", "/v1/grants/"+ids["voided"]+"/void", object{"reason": "x"}).want(t, 200)
	eventually(t, "the expiry", func() bool { return w.admin(t, "GET", "/v1/grants/"+ids["expired"], nil).text(t, "state") == "expired" })
	for state, id := range ids {
		for _, units := range []string{"1", "11", ""} {
			if state == "active" && units != "11" {
				continue
			}
			asked := object{"units": units}
			if units == "" {
				asked = object{"all": true}
			}
			preview := w.admin(t, "POST", "/v1/grants/"+id+"/refunds/preview", asked)
			asked["reason"] = "x"
			refund := w.admin(t, "POST", "/v1/grants/"+id+"/refunds", asked)
			for _, field := range []string{"status", "code", "detail", "refundable", "state"} {
				if p, r := preview.object(t)[field], refund.object(t)[field]; p != r || field == "status" && p != 409. {
					t.Errorf("%s, %q: %s of the preview is %v, of the refund %v", state, units, field, p, r)
				}
			}
		}
	}
}

func TestGrantsRefuseWhatTheyCannotBe(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		more   object
		status int
		code   credit.Code
	}{
		"zero":                   {object{"amount": "0"}, 400, credit.InvalidAmount},
		"negative":               {object{"amount": "-1"}, 400, credit.InvalidAmount},
		"huge":                   {object{"amount": "9007199254.740992"}, 400, credit.InvalidAmount},
		"overage":                {object{"type": "overage"}, 400, credit.InvalidRequest},
		"unknown type":           {object{"type": "gift"}, 400, credit.InvalidRequest},
		"no such wallet":         {object{"wallet": "wal_00000000000000000000000004"}, 404, credit.WalletNotFound},
		"wallet's name":          {object{"wallet": "Main"}, 400, credit.InvalidID},
		"price places":           {object{"price": object{"amount": "1.001", "currency": "USD"}}, 400, credit.InvalidAmount},
		"no such currency":       {object{"price": object{"amount": "1", "currency": "QQQ"}}, 400, credit.InvalidRequest},
		"price number":           {object{"price": object{"amount": 1, "currency": "USD"}}, 400, credit.InvalidRequest},
		"price without currency": {object{"price": object{"amount": "1"}}, 400, credit.InvalidRequest},
		"no exchange rate":       {object{"type": "purchased", "price": object{"amount": "1", "currency": "EUR"}}, 400, credit.InvalidRequest},
		"zero exchange rate":     {object{"type": "purchased", "price": object{"amount": "1", "currency": "EUR", "fx_rate": "0"}}, 400, credit.InvalidRequest},
		"over before it begins":  {object{"expires_at": "2020-01-01T00:00:00Z"}, 400, credit.InvalidRequest},
		"effective after":        {object{"effective_at": "2090-01-01T00:00:00Z", "expires_at": "2089-01-01T00:00:00Z"}, 400, credit.InvalidRequest},
		"unknown member":         {object{"member": "jane"}, 404, credit.MemberNotFound},
		"locked without a card":  {object{"rate_policy": "locked"}, 404, credit.RateCardNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			body := object{"wallet": w.wallet, "type": "granted", "amount": "1"}
			for k, v := range c.more {
				body[k] = v
			}
			w.admin(t, "POST", "/v1/grants", body).problem(t, c.status, c.code)
		})
	}
	if got := w.admin(t, "GET", "/v1/grants", nil).data(t); len(got) != 0 {
		t.Errorf("%v", got)
	}
	// The largest amount there is is exact at every turn.
	id := w.grant(t, "9007199254.740991", nil)
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "a", body: object{"customer": "acme", "unit": "CRD", "amount": "0.000001"}}).want(t, 200)
	if got := w.admin(t, "GET", "/v1/grants/"+id, nil).text(t, "balance", "available"); got != "9007199254.74099" {
		t.Errorf("available %s", got)
	}
}

func TestRefunds(t *testing.T) {
	w := newWorld(t)
	id := w.grant(t, "1000", object{"type": "purchased", "price": object{"amount": "99.99", "tax": "20.00", "currency": "USD"}})
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "a", body: object{"customer": "acme", "unit": "CRD", "amount": "333"}}).want(t, 200)
	whole := w.admin(t, "GET", "/v1/grants/"+id+"/refundable", nil).want(t, 200)
	if whole.text(t, "units") != "667" || whole.text(t, "money", "amount") != "66.70" || whole.text(t, "money", "tax") != "13.34" {
		t.Errorf("%s", whole.body)
	}
	part := w.admin(t, "POST", "/v1/grants/"+id+"/refunds/preview", object{"units": "250"}).want(t, 200)
	r := request{role: "support", method: "POST", path: "/v1/grants/" + id + "/refunds", key: "r1", body: object{"units": "250", "reason": "Team was halved"}}
	refund := w.send(t, r).want(t, 201)
	if again := w.send(t, r).want(t, 201); !bytes.Equal(refund.body, again.body) {
		t.Errorf("%s, then %s", refund.body, again.body)
	}
	for _, name := range []string{"amount", "tax"} {
		if part.text(t, "money", name) != refund.text(t, "money", name) {
			t.Errorf("previewed %s, refunded %s", part.body, refund.body)
		}
	}
	got := w.admin(t, "GET", "/v1/refunds/"+refund.text(t, "id"), nil).want(t, 200)
	if got.text(t, "status") != "awaiting_settlement" || got.text(t, "refundable") != "417" || got.text(t, "reason") != "Team was halved" {
		t.Errorf("%s", got.body)
	}
	w.admin(t, "POST", "/v1/grants/"+id+"/refunds", object{"units": "418", "reason": "x"}).problem(t, 409, credit.NotRefundable)
	w.admin(t, "POST", "/v1/grants/"+id+"/refunds/preview", object{"units": "418"}).problem(t, 409, credit.NotRefundable)
	for _, bad := range []object{{"reason": "x"}, {"units": "1", "all": true, "reason": "x"}, {"units": "1"}, {"units": "1", "reason": ""}, {"units": 1, "reason": "x"}} {
		w.admin(t, "POST", "/v1/grants/"+id+"/refunds", bad).problem(t, 400, credit.InvalidRequest)
	}
	rest := w.admin(t, "POST", "/v1/grants/"+id+"/refunds", object{"all": true, "reason": "Cancelled"}).want(t, 201)
	// What was paid back and what the used part cost make up the price: 99.99 = 33.29 + 25.00 + 41.70, for instance.
	cents := func(a answer) int64 {
		m, err := credit.ParseMoney(a.text(t, "money", "amount"), "USD")
		if err != nil {
			t.Fatal(err)
		}
		return m.Minor
	}
	if sum := cents(refund) + cents(rest); sum != cents(whole) {
		t.Errorf("%d cents were paid back in parts, %d were refundable", sum, cents(whole))
	}
	if got := w.admin(t, "GET", "/v1/grants/"+id+"/refundable", nil).want(t, 200); got.text(t, "units") != "0" || got.object(t)["money"] != nil {
		t.Errorf("%s", got.body)
	}
	w.admin(t, "POST", "/v1/grants/"+id+"/refunds", object{"all": true, "reason": "again"}).problem(t, 409, credit.NotRefundable)
	if got := w.all(t, "/v1/refunds?customer=acme&status=awaiting_settlement", func() int { return 1 }); len(got) != 2 {
		t.Errorf("%v", got)
	}
	w.admin(t, "GET", "/v1/refunds/rfd_00000000000000000000000004", nil).problem(t, 404, credit.RefundNotFound)
	free := w.grant(t, "10", nil)
	w.admin(t, "POST", "/v1/grants/"+free+"/refunds", object{"all": true, "reason": "x"}).problem(t, 409, credit.NotRefundable)
	w.admin(t, "POST", "/v1/grants/"+free+"/refunds/preview", object{"all": true}).problem(t, 409, credit.NotRefundable)
	if got := w.admin(t, "GET", "/v1/grants/"+free+"/refundable", nil).want(t, 200); got.text(t, "units") != "0" {
		t.Errorf("%s", got.body)
	}
}
