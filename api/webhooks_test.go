package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/webhook"
)

func TestWebhookEndpoints(t *testing.T) {
	w := newWorld(t)
	create := request{role: "ops", method: "POST", path: "/v1/webhook_endpoints", key: "hook",
		body: object{"url": "https://hooks.example.com/a", "types": []string{"grant.depleted", "wallet.created"}, "customer": "acme", "description": "Acme's"}}
	made := w.send(t, create).want(t, 201)
	secret, id := made.text(t, "secret"), made.text(t, "id")
	if raw, err := webhook.ParseSecret(secret); err != nil || len(raw) != 32 {
		t.Errorf("the secret is %q", secret)
	}
	// A repetition makes nothing more and does not show the secret, nor does anything else.
	again := w.send(t, create).want(t, 201)
	if again.header.Get("Idempotent-Replayed") != "true" || again.text(t, "id") != id || again.object(t)["secret"] != nil {
		t.Errorf("%s", again.body)
	}
	path := "/v1/webhook_endpoints/" + id
	one := w.send(t, request{role: "ops", method: "GET", path: path}).want(t, 200).object(t)
	if list := w.admin(t, "GET", "/v1/webhook_endpoints?customer=acme", nil).data(t); len(list) != 1 || !reflect.DeepEqual(list[0], one) {
		t.Errorf("%v is listed, %v is", list, one)
	}
	if !reflect.DeepEqual(one, again.object(t)) || one["status"] != "enabled" || one["description"] != "Acme's" {
		t.Errorf("%v", one)
	}

	rotated := w.send(t, request{role: "ops", method: "POST", path: path + "/rotate_secret", key: "rotate", body: object{"overlap_seconds": 3600}}).want(t, 200)
	if fresh := rotated.text(t, "secret"); fresh == secret {
		t.Error("the secret is the same")
	}
	if repeated := w.send(t, request{role: "ops", method: "POST", path: path + "/rotate_secret", key: "rotate", body: object{"overlap_seconds": 3600}}).want(t, 200); repeated.object(t)["secret"] != nil {
		t.Errorf("%s", repeated.body)
	}
	for range 3 {
		w.admin(t, "POST", path+"/rotate_secret", nil).want(t, 200)
	}
	w.admin(t, "POST", path+"/rotate_secret", nil).problem(t, 400, credit.InvalidRequest)

	changed := w.admin(t, "PATCH", path, object{"url": "https://hooks.example.com/b", "types": []string{}, "description": "", "enabled": false}).want(t, 200).object(t)
	if changed["status"] != "disabled" || changed["disabled_reason"] != "asked" || changed["disabled_at"] == nil || len(changed["types"].([]any)) != 0 {
		t.Errorf("%v", changed)
	}
	events := w.eventsOf(t, "acme")
	if last := events[len(events)-1]; last["type"] != "webhook_endpoint.disabled" || !reflect.DeepEqual(said(t, last, "webhook_endpoint"), any(changed)) {
		t.Errorf("%v", last)
	}
	// A test and a replay wait for a disabled endpoint.
	sent := w.admin(t, "POST", path+"/test", nil).want(t, 201).object(t)
	if sent["type"] != "webhook_endpoint.test" || sent["customer_id"] != nil {
		t.Errorf("%v", sent)
	}
	all := object{"from": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
	if n := w.admin(t, "POST", path+"/replay", all).want(t, 200).object(t)["queued"]; n != float64(len(events)) {
		t.Errorf("%v of %d events are replayed", n, len(events))
	}
	if n := w.admin(t, "POST", path+"/replay", object{"event": events[0]["id"]}).want(t, 200).object(t)["queued"]; n != 0.0 {
		t.Errorf("%v events are replayed that wait", n)
	}
	deliveries := w.all(t, path+"/deliveries", func() int { return 2 })
	if len(deliveries) != len(events)+1 {
		t.Errorf("%d deliveries", len(deliveries))
	}
	for _, d := range deliveries {
		if d["status"] != "pending" || d["next_at"] != nil || d["replay"] != (d["type"] != "webhook_endpoint.test") {
			t.Errorf("%v", d)
		}
	}
	if got := w.admin(t, "GET", path+"/deliveries?customer=acme&status=pending&event="+events[0]["id"].(string), nil).data(t); len(got) != 1 || got[0]["event_id"] != events[0]["id"] {
		t.Errorf("%v", got)
	}
	if got := w.admin(t, "GET", path+"/deliveries?status=delivered", nil).data(t); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if e := w.admin(t, "PATCH", path, object{"enabled": true}).want(t, 200).object(t); e["status"] != "enabled" || e["disabled_reason"] != nil || e["disabled_at"] != nil {
		t.Errorf("%v", e)
	}

	w.admin(t, "DELETE", path, nil).want(t, 200)
	w.admin(t, "GET", path, nil).problem(t, 404, credit.NotFound)
	w.admin(t, "DELETE", path, nil).problem(t, 404, credit.NotFound)
	w.admin(t, "PATCH", path, object{"enabled": true}).problem(t, 404, credit.NotFound)
	w.admin(t, "POST", path+"/test", nil).problem(t, 404, credit.NotFound)
	w.admin(t, "POST", path+"/replay", all).problem(t, 404, credit.NotFound)
	w.admin(t, "POST", path+"/rotate_secret", nil).problem(t, 404, credit.NotFound)
	w.admin(t, "GET", path+"/deliveries", nil).problem(t, 404, credit.NotFound)
	if list := w.admin(t, "GET", "/v1/webhook_endpoints", nil).data(t); len(list) != 0 {
		t.Errorf("%v is listed", list)
	}
	did := map[string]int{}
	for _, line := range w.all(t, "/v1/audit", func() int { return 50 }) {
		if line["subject"] == id {
			did[line["action"].(string)]++
		}
		if text, _ := json.Marshal(line); strings.Contains(string(text), "whsec_") {
			t.Errorf("the audit has a secret: %s", text)
		}
	}
	if want := map[string]int{"create_webhook_endpoint": 1, "rotate_webhook_secret": 4, "update_webhook_endpoint": 2, "test_webhook_endpoint": 1,
		"replay_webhook_deliveries": 2, "delete_webhook_endpoint": 1}; !reflect.DeepEqual(did, want) {
		t.Errorf("the audit has %v, not %v", did, want)
	}
}

func TestWebhookRefusals(t *testing.T) {
	w := newWorld(t)
	for _, body := range []object{
		{}, {"url": 7}, {"url": "http://example.com"}, {"url": "https://user:pass@example.com"}, {"url": "https://127.0.0.1/"}, {"url": "https://[::1]/"},
		{"url": "https://169.254.169.254/"}, {"url": "https://localhost/"}, {"url": "https://example.com/#x"}, {"url": "https://example.com", "types": []string{"grant"}},
		{"url": "https://example.com", "types": []string{"grant.created", "grant.created"}}, {"url": "https://example.com", "types": "grant.created"},
		{"url": "https://example.com", "description": strings.Repeat("x", 201)}, {"url": "https://example.com", "description": "a\u0007b"},
		{"url": "https://example.com", "secret": "whsec_x"}, {"url": "https://example.com/" + strings.Repeat("x", 2048)},
	} {
		w.admin(t, "POST", "/v1/webhook_endpoints", body).problem(t, 400, credit.InvalidRequest)
	}
	w.admin(t, "POST", "/v1/webhook_endpoints", object{"url": "https://example.com", "customer": "nobody"}).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "POST", "/v1/webhook_endpoints", object{"url": "https://example.com", "customer": credit.NewID[credit.CustomerID]().String()}).problem(t, 404, credit.CustomerNotFound)
	w.send(t, request{role: "admin", method: "POST", path: "/v1/webhook_endpoints", body: object{"url": "https://example.com"}}).problem(t, 400, credit.InvalidRequest) // no key
	for _, role := range []string{"product", "support", "finance"} {
		w.send(t, request{role: role, method: "GET", path: "/v1/webhook_endpoints"}).problem(t, 403, credit.Forbidden)
	}
	id := w.admin(t, "POST", "/v1/webhook_endpoints", object{"url": "https://example.com", "customer": "acme"}).want(t, 201).text(t, "id")
	path := "/v1/webhook_endpoints/" + id
	for _, body := range []object{{}, {"url": "https://10.0.0.1/"}, {"customer": "acme"}, {"enabled": "yes"}} {
		w.admin(t, "PATCH", path, body).problem(t, 400, credit.InvalidRequest)
	}
	event := w.eventsOf(t, "acme")[0]["id"]
	now := time.Now().UTC().Format(time.RFC3339)
	for _, body := range []object{{}, {"event": event, "from": now, "until": now}, {"from": now}, {"until": now}, {"from": now, "until": now}, {"event": event, "customer": "acme"}} {
		w.admin(t, "POST", path+"/replay", body).problem(t, 400, credit.InvalidRequest)
	}
	w.admin(t, "POST", path+"/replay", object{"event": "evt_x"}).problem(t, 400, credit.InvalidID)
	w.admin(t, "POST", path+"/replay", object{"event": credit.NewID[credit.EventID]().String()}).problem(t, 404, credit.NotFound)
	w.admin(t, "POST", "/v1/customers", object{"name": "Other", "legal_entity": "main", "external_id": "other"}).want(t, 201)
	w.admin(t, "POST", path+"/replay", object{"event": w.eventsOf(t, "other")[0]["id"]}).problem(t, 400, credit.InvalidRequest) // not the endpoint's customer
	for _, overlap := range []any{-1, 604801, "1", 1.5} {
		w.admin(t, "POST", path+"/rotate_secret", object{"overlap_seconds": overlap}).want(t, http.StatusBadRequest)
	}
	for _, bad := range []string{"status=done", "customer=nobody", "event=x", "cursor=x"} {
		if a := w.admin(t, "GET", path+"/deliveries?"+bad, nil); a.status != 400 && a.status != 404 {
			t.Errorf("%s: %d", bad, a.status)
		}
	}
}
