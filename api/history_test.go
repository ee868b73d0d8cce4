package api

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
)

// TestHistoryTellsHowItBecameZero follows 10,000 credits to their end, line by line.
func TestHistoryTellsHowItBecameZero(t *testing.T) {
	w := newWorld(t)
	id := w.grant(t, "10000", object{"type": "purchased", "price": object{"amount": "100.00", "currency": "USD"}, "payment": "pending"})
	w.admin(t, "POST", "/v1/grants/"+id+"/issue", object{"payment_ref": "pi_1"}).want(t, 200)
	consume := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "use-1", body: object{"customer": "acme", "unit": "CRD", "amount": "2500", "reason": "Training run"}}).want(t, 200)
	w.admin(t, "POST", "/v1/grants/"+id+"/freeze", object{"reason": "Asked for by finance"}).want(t, 200)
	w.admin(t, "POST", "/v1/grants/"+id+"/unfreeze", object{"reason": "Settled"}).want(t, 200)
	w.admin(t, "POST", "/v1/grants/"+id+"/refunds", object{"units": "5000", "reason": "Team was halved"}).want(t, 201)
	w.admin(t, "POST", "/v1/grants/"+id+"/void", object{"reason": "Account closed"}).want(t, 200)

	want := []struct{ kind, before, after, reason string }{
		{"create", "", "", ""}, {"issue", "0", "10000", ""}, {"consume", "10000", "7500", "Training run"}, {"freeze", "7500", "7500", "Asked for by finance"},
		{"unfreeze", "7500", "7500", "Settled"}, {"refund", "7500", "2500", "Team was halved"}, {"void", "2500", "0", "Account closed"},
	}
	for _, path := range []string{"/v1/grants/" + id + "/history", "/v1/wallets/" + w.wallet + "/history", "/v1/customers/acme/history"} {
		lines := reversed(w.all(t, path, func() int { return 3 }))
		lines = slices.DeleteFunc(lines, func(l object) bool { return l["kind"] == "configure" })
		if len(lines) != len(want) {
			t.Fatalf("%s has %d lines, not %d: %v", path, len(lines), len(want), lines)
		}
		for i, x := range want {
			l := lines[i]
			if l["kind"] != x.kind {
				t.Errorf("%s: line %d is %v", path, i, l)
			}
			if x.before != "" && l["unit"] != nil && (l["before"] != x.before || l["after"] != x.after) {
				t.Errorf("%s: line %d went from %v to %v, not from %s to %s", path, i, l["before"], l["after"], x.before, x.after)
			}
			if x.reason != "" && l["reason"] != x.reason {
				t.Errorf("%s: the reason of line %d is %v, not %q", path, i, l["reason"], x.reason)
			}
		}
	}
	operation := consume.text(t, "operation")
	got := w.admin(t, "GET", "/v1/operations/"+operation, nil).want(t, 200)
	var doc struct{ Receipt json.RawMessage }
	if err := json.Unmarshal(got.body, &doc); err != nil || string(doc.Receipt) != string(consume.body) {
		t.Errorf("the receipt of the operation is %s, the answer was %s; %v", doc.Receipt, consume.body, err)
	}
	if got.text(t, "actor") == "system" || got.text(t, "key") != "client/use-1" || got.text(t, "request_id") != consume.header.Get("X-Request-Id") {
		t.Errorf("%s", got.body)
	}
	w.admin(t, "GET", "/v1/operations/acme/999", nil).problem(t, 404, credit.NotFound)
	w.admin(t, "GET", "/v1/operations/acme/x", nil).problem(t, 400, credit.InvalidID)
	w.admin(t, "GET", "/v1/operations/acme/99999999999999999999", nil).problem(t, 400, credit.InvalidID)
}

// TestHistoriesAndPastBalancesAgree makes random histories and holds three tellings of each against one another: the pages of the histories,
// the balances as of past instants, and a model.
func TestHistoriesAndPastBalancesAgree(t *testing.T) {
	w := newWorld(t)
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { historiesAgree(t, w, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func historiesAgree(t *testing.T, w *world, random *rand.Rand) {
	name := "customer-" + uuid.NewString()
	w.admin(t, "POST", "/v1/customers", object{"name": name, "legal_entity": "main", "external_id": name}).want(t, 201)
	wallets := []string{}
	for i := range 1 + random.IntN(2) {
		body := object{"customer": name, "unit": "CRD", "name": fmt.Sprint("Wallet ", i)}
		if random.IntN(2) == 0 {
			body["cap"], body["overage_limit"], body["overage_price"] = "soft", "50", "10.00"
		}
		wallets = append(wallets, w.admin(t, "POST", "/v1/wallets", body).want(t, 201).text(t, "id"))
	}
	var grants []string
	type moment struct {
		at        time.Time
		available string
	}
	var moments []moment
	kinds := []string{"grant", "grant", "consume", "consume", "consume", "refund", "void", "freeze", "extend"}
	for range 1 + random.IntN(25) {
		amount := fmt.Sprint(1 + random.IntN(100))
		post := func(path string, body object) { w.admin(t, "POST", path, body) } // may be refused
		grant := ""
		if len(grants) > 0 {
			grant = grants[random.IntN(len(grants))]
		}
		switch kind := kinds[random.IntN(len(kinds))]; {
		case kind == "grant" || grant == "":
			grants = append(grants, w.admin(t, "POST", "/v1/grants", object{"wallet": wallets[random.IntN(len(wallets))], "type": []string{"granted", "purchased"}[random.IntN(2)], "amount": amount,
				"expires_at": "2090-01-01T00:00:00Z"}).want(t, 201).text(t, "id"))
		case kind == "consume":
			post("/v1/consume", object{"customer": name, "unit": "CRD", "amount": amount, "partial": random.IntN(2) == 0})
		case kind == "refund":
			post("/v1/grants/"+grant+"/refunds", object{"units": amount, "reason": "x"})
		case kind == "void":
			post("/v1/grants/"+grant+"/void", object{"reason": "x"})
		case kind == "freeze":
			post("/v1/grants/"+grant+"/freeze", object{"reason": "x"})
			post("/v1/grants/"+grant+"/unfreeze", object{"reason": "x"})
		case kind == "extend":
			post("/v1/grants/"+grant+"/extend", object{"expires_at": nil, "reason": "x"})
		}
		now := w.admin(t, "GET", "/v1/customers/"+name+"/balances?consistency=strong", nil)
		moments = append(moments, moment{time.Now(), available(t, now)})
		time.Sleep(time.Microsecond)
	}
	for _, path := range append([]string{"/v1/customers/" + name}, paths("/v1/wallets/", wallets, "/v1/grants/", grants)...) {
		whole := w.all(t, path+"/history", func() int { return maxLimit })
		pages := w.all(t, path+"/history", func() int { return 1 + random.IntN(5) })
		if fmt.Sprint(whole) != fmt.Sprint(pages) {
			t.Fatalf("%s: the pages are not the whole:\n%v\n%v", path, pages, whole)
		}
		var after any = "0"
		for _, l := range reversed(whole) {
			if l["unit"] == nil {
				continue
			}
			if l["before"] != after {
				t.Fatalf("%s: a line begins at %v where the one before ended at %v:\n%v", path, l["before"], after, whole)
			}
			after = l["after"]
			got := w.admin(t, "GET", path+"/balance?at="+url.QueryEscape(l["at"].(string)), nil).want(t, 200)
			if newest(whole, l["at"].(string))["ver"] == l["ver"] && available(t, got) != after {
				t.Fatalf("%s: the balance at %v is %s, the history says %v", path, l["at"], got.body, after)
			}
		}
		if got := w.admin(t, "GET", path+"/balance", nil); available(t, got) != after {
			t.Fatalf("%s: the balance is %s, the history ends at %v", path, got.body, after)
		}
	}
	for _, m := range moments {
		got := w.admin(t, "GET", "/v1/customers/"+name+"/balance?at="+url.QueryEscape(m.at.UTC().Format(time.RFC3339Nano)), nil).want(t, 200)
		if available(t, got) != m.available {
			t.Fatalf("the balance at %s was %s and is told as %s", m.at, m.available, got.body)
		}
	}
}

// newest is the newest line of an instant.
func newest(lines []object, at string) object {
	for _, l := range lines {
		if l["at"] == at {
			return l
		}
	}
	return nil
}

// available is what a balance has in its only unit.
func available(t testing.TB, a answer) string {
	t.Helper()
	var doc struct{ Units []balance.UnitBalance }
	if err := json.Unmarshal(a.want(t, 200).body, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Units) == 0 {
		return "0"
	}
	return doc.Units[0].Available
}

func paths(prefix1 string, ids1 []string, prefix2 string, ids2 []string) []string {
	var out []string
	for _, id := range ids1 {
		out = append(out, prefix1+id)
	}
	for _, id := range ids2 {
		out = append(out, prefix2+id)
	}
	return out
}

func TestPastBalancesKnowExpiry(t *testing.T) {
	w := newWorld(t)
	start := time.Now()
	w.grant(t, "5", nil)
	id := w.grant(t, "7", object{"expires_at": start.Add(400 * time.Millisecond).Format(time.RFC3339Nano)})
	w.grant(t, "11", object{"effective_at": start.Add(400 * time.Millisecond).Format(time.RFC3339Nano)})
	at := func(path string, d time.Duration) string {
		return available(t, w.admin(t, "GET", path+"/balance?at="+url.QueryEscape(start.Add(d).UTC().Format(time.RFC3339Nano)), nil))
	}
	eventually(t, "the expiry", func() bool { return time.Since(start) > 410*time.Millisecond })
	for _, c := range []struct {
		path string
		d    time.Duration
		want string
	}{
		{"/v1/customers/acme", -time.Hour, "0"}, {"/v1/customers/acme", 399 * time.Millisecond, "12"}, {"/v1/customers/acme", 400 * time.Millisecond, "16"},
		{"/v1/grants/" + id, 399 * time.Millisecond, "7"}, {"/v1/grants/" + id, 400 * time.Millisecond, "0"}, {"/v1/wallets/" + w.wallet, 405 * time.Millisecond, "16"},
	} {
		if got := at(c.path, c.d); got != c.want {
			t.Errorf("%s had %s after %s, not %s", c.path, got, c.d, c.want)
		}
	}
	w.admin(t, "GET", "/v1/customers/acme/balance?at="+url.QueryEscape(time.Now().Add(time.Minute).Format(time.RFC3339)), nil).problem(t, 422, credit.InFuture)
	w.admin(t, "GET", "/v1/customers/acme/balance?at=yesterday", nil).problem(t, 400, credit.InvalidRequest)
}

// TestPagesMakeTheWholeList is about every list: whatever the limits, its pages are the list, each item once.
func TestPagesMakeTheWholeList(t *testing.T) {
	w := newWorld(t)
	w.rates(t)
	for i := range 12 {
		w.admin(t, "POST", "/v1/customers", object{"name": fmt.Sprint("Customer ", i), "legal_entity": "main"}).want(t, 201)
		w.admin(t, "POST", "/v1/customers/acme/members", object{"name": fmt.Sprint("Member ", i)}).want(t, 201)
		w.admin(t, "POST", "/v1/wallets", object{"customer": "acme", "unit": "CRD", "name": fmt.Sprint("Wallet ", i)}).want(t, 201)
		w.admin(t, "POST", "/v1/units", object{"code": fmt.Sprint("U", i), "name": "Unit"}).want(t, 201)
		w.admin(t, "POST", "/v1/legal_entities", object{"code": fmt.Sprint("e", i), "name": "Entity", "currency": "USD"}).want(t, 201)
		w.admin(t, "POST", "/v1/rate_cards", object{"code": fmt.Sprint("card", i), "unit": "CRD"}).want(t, 201)
		w.admin(t, "POST", "/v1/rate_cards/standard/versions", object{"document": object{"meters": []object{{"code": "m"}}, "rates": []object{{"id": "r", "meter": "m", "price": "1"}}}}).want(t, 201)
		w.admin(t, "POST", "/v1/api_keys", object{"name": "k", "role": "ops"}).want(t, 201)
		id := w.grant(t, "10", object{"type": "purchased", "price": object{"amount": "1.00", "currency": "USD"}})
		w.admin(t, "POST", "/v1/grants/"+id+"/refunds", object{"units": "1", "reason": "x"}).want(t, 201)
		if _, err := w.Store.Pool.Exec(t.Context(), "INSERT INTO notifications (cause, type, customer_id, subject) SELECT $1::text, 'test', id, 's' FROM customers WHERE external_id = 'acme'", fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	w.admin(t, "POST", "/v1/finance/recognise", nil).want(t, 200)
	lists := map[string]int{
		"/v1/customers": 13, "/v1/customers/acme/members": 12, "/v1/wallets": 13, "/v1/wallets?customer=acme": 13, "/v1/units": 13, "/v1/legal_entities": 13,
		"/v1/rate_cards": 13, "/v1/rate_cards/standard/versions": 13, "/v1/api_keys": 12 + len(RoleNames), "/v1/grants": 12, "/v1/grants?customer=acme&state=active": 12,
		"/v1/refunds": 12, "/v1/refunds?customer=acme&status=awaiting_settlement": 12, "/v1/notifications": 12, "/v1/notifications?customer=acme": 12,
		"/v1/audit": -1, "/v1/audit?action=refund": 12, "/v1/customers/acme/history": -1, "/v1/finance/journal_entries?legal_entity=main": -1,
		"/v1/finance/journal_entries?legal_entity=main&account=4010": 0, "/v1/finance/roll_forward?legal_entity=main&by=grant": 12,
		"/v1/finance/roll_forward?legal_entity=main&by=customer": 1, "/v1/finance/periods?legal_entity=main": 1,
	}
	random := rand.New(rand.NewPCG(1, 2))
	for path, n := range lists {
		whole := w.all(t, path, func() int { return maxLimit })
		if n >= 0 && len(whole) != n {
			t.Fatalf("%s has %d items, not %d", path, len(whole), n)
		}
		pages := w.all(t, path, func() int { return 1 + random.IntN(6) })
		if fmt.Sprint(pages) != fmt.Sprint(whole) {
			t.Fatalf("%s: the pages are not the whole:\n%v\n%v", path, pages, whole)
		}
		seen := map[string]bool{}
		for _, item := range whole {
			b, _ := json.Marshal(item)
			if seen[string(b)] {
				t.Fatalf("%s has %s twice", path, b)
			}
			seen[string(b)] = true
		}
	}
	for path := range lists {
		sep := "?"
		if u, _ := url.Parse(path); u.RawQuery != "" {
			sep = "&"
		}
		for _, bad := range []string{"limit=0", "limit=201", "limit=-1", "limit=x", "limit=", "cursor=%21", "cursor=AA=", "cursor=" + fmt.Sprintf("%0100d", 0), "offset=1", "limit=1&limit=2"} {
			a := w.admin(t, "GET", path+sep+bad, nil)
			if bad == "limit=" { // like none
				a.want(t, 200)
				continue
			}
			a.problem(t, 400, credit.InvalidRequest)
		}
	}
}

func TestAuditHasEveryChange(t *testing.T) {
	w := newWorld(t)
	id := w.grant(t, "10", nil)
	w.send(t, request{role: "ops", method: "POST", path: "/v1/grants/" + id + "/freeze", key: "f", body: object{"reason": "x"}}).want(t, 200)
	member := w.send(t, request{role: "support", method: "POST", path: "/v1/customers/acme/members", key: "m", body: object{"name": "Jane"}}).want(t, 201)
	keys := map[string]string{}
	for _, k := range w.admin(t, "GET", "/v1/api_keys", nil).data(t) {
		keys[k["role"].(string)] = k["id"].(string)
	}
	lines := w.admin(t, "GET", "/v1/audit", nil).data(t)
	if lines[0]["action"] != "create_member" || lines[0]["actor"] != keys["support"] || lines[0]["subject"] != member.text(t, "id") ||
		lines[0]["request_id"] != member.header.Get("X-Request-Id") || lines[0]["operation"] != nil {
		t.Errorf("%v", lines[0])
	}
	if lines[1]["action"] != "freeze" || lines[1]["actor"] != keys["ops"] || lines[1]["operation"] == nil {
		t.Errorf("%v", lines[1])
	}
	if got := w.admin(t, "GET", "/v1/audit?actor="+keys["ops"], nil).data(t); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if got := w.admin(t, "GET", "/v1/audit?actor=system&action=create_api_key", nil).data(t); len(got) != len(RoleNames) {
		t.Errorf("%v", got)
	}
	at := lines[1]["at"].(string)
	if got := w.admin(t, "GET", "/v1/audit?from="+at, nil).data(t); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if got := w.admin(t, "GET", "/v1/audit?until="+at, nil).data(t); len(got) != len(lines)-2 {
		t.Errorf("%d of %d", len(got), len(lines))
	}
	for _, bad := range []string{"actor=x", "actor=key_0", "from=x", "action=%00", "action=%ff"} {
		w.admin(t, "GET", "/v1/audit?"+bad, nil).want(t, 400)
	}
}
