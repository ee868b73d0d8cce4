package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzRequests sends anything to any route as admin: never a 5xx, and after a refusal nothing has been written.
func FuzzRequests(f *testing.F) {
	w := newWorld(f)
	grant := w.grant(f, "100", nil)
	var targets []string
	fill := strings.NewReplacer(":customer", "acme", ":wallet", w.wallet, ":grant", grant, ":refund", grant, ":rate_card", "standard", ":version", "1", ":ver", "1", ":api_key", "key_9999", ":cost_draft", "cdr_00000000000000000000000004", ":cost_catalogue", "1",
		":quarantined", "qtn_00000000000000000000000004", ":code", "internal")
	for _, rt := range w.server.routes {
		if rt.Path != "/v1/finance/recognise" { // it writes whatever it is asked
			targets = append(targets, rt.Method+" "+fill.Replace(rt.Path))
		}
	}
	for i := range targets {
		f.Add(uint8(i), "limit=1", `{}`)
	}
	for _, doc := range consumptions {
		f.Add(uint8(0), "", doc)
		f.Add(uint8(1), "", `{"events":[`+doc+`]}`)
	}
	f.Add(uint8(0), "", `{"customer":"acme","on_unpriced":"quarantine","response":{"provider":"openai","body":{"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}}}`)
	f.Add(uint8(2), "consistency=strong", "")
	f.Add(uint8(2), "consistency=%00&x=%ff", "")
	f.Fuzz(func(t *testing.T, target uint8, query, body string) {
		method, path, _ := strings.Cut(targets[int(target)%len(targets)], " ")
		req := httptest.NewRequest(method, path, strings.NewReader(body))
		req.URL.RawQuery = query
		req.Header.Set("Authorization", "Bearer "+w.secret["admin"])
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", w.newKey())
		before := written(t, w)
		rec := httptest.NewRecorder()
		w.server.Handler().ServeHTTP(rec, req)
		if rec.Code >= 500 {
			t.Fatalf("%s %s?%s %q: %d %s", method, path, query, body, rec.Code, rec.Body)
		}
		if rec.Code >= 400 {
			if written(t, w) != before {
				t.Fatalf("%s %s?%s %q was refused with %d and wrote", method, path, query, body, rec.Code)
			}
			var p struct{ Code string }
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || p.Code == "" {
				t.Fatalf("%s %s: %d is no problem: %s", method, path, rec.Code, rec.Body)
			}
		}
		if rec.Code < 400 && method == http.MethodGet && !bytes.Equal([]byte(before), []byte(written(t, w))) {
			t.Fatalf("%s %s wrote", method, path)
		}
	})
}

// written sums up everything that a request could have written, but the refusals that are kept under their keys.
func written(t testing.TB, w *world) string {
	t.Helper()
	var s string
	if err := w.Store.Pool.QueryRow(context.Background(), `SELECT concat_ws(' ', (SELECT sum(ver) FROM customer_heads), (SELECT count(*) FROM customers), (SELECT count(*) FROM members),
		(SELECT count(*) FROM units), (SELECT count(*) FROM rate_cards), (SELECT count(*) FROM rate_card_versions), (SELECT count(*) FROM legal_entities), (SELECT count(*) FROM api_keys),
		(SELECT count(*) FROM api_keys WHERE revoked_at IS NULL), (SELECT count(*) FROM idempotency_keys WHERE status < 400), (SELECT count(*) FROM audit_log), (SELECT count(*) FROM outbox),
		(SELECT count(*) FROM cost_catalogue_drafts), (SELECT count(*) FROM cost_catalogues), (SELECT count(*) FROM quarantined_usage), (SELECT sum(tries) FROM quarantined_usage))`).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}
