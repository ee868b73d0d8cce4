package api

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
)

// TestRolesMatrix calls every route with a key of every role and with none: who may not is refused before anything else is looked at.
func TestRolesMatrix(t *testing.T) {
	w := newWorld(t)
	parameter := regexp.MustCompile(`:[a-z_]+`)
	for _, rt := range w.server.routes {
		path := parameter.ReplaceAllString(rt.Path, "x")
		a := w.send(t, request{method: rt.Method, path: path})
		if open := rt.Roles == public; open == (a.status == http.StatusUnauthorized) {
			t.Errorf("%s %s without a key: %d", rt.Method, rt.Path, a.status)
		}
		for i, role := range RoleNames {
			may := rt.Roles == public || role == "admin" || rt.Roles&(1<<i) != 0
			a := w.send(t, request{role: role, method: rt.Method, path: path})
			if may == (a.status == http.StatusForbidden) || a.status == http.StatusUnauthorized || a.status >= 500 {
				t.Errorf("%s %s as %s: %d", rt.Method, rt.Path, role, a.status)
			}
		}
	}
}

// TestRolesAreAsIntended states the table in words, so that a slip in it is seen.
func TestRolesAreAsIntended(t *testing.T) {
	var s Server
	may := map[string]roles{}
	for _, rt := range s.table() {
		may[rt.Method+" "+rt.Path] = rt.Roles
	}
	for role, want := range map[roles][]string{
		product: {"POST /v1/consume", "POST /v1/consume/batch", "POST /v1/quote", "POST /v1/holds", "POST /v1/holds/:hold/extend",
			"POST /v1/holds/:hold/capture", "POST /v1/holds/:hold/release", "POST /v1/events", "POST /api/v1/events", "POST /v1/topups/:topup/succeeded",
			"POST /v1/topups/:topup/failed"},
		support: {"POST /v1/alert_rules", "PATCH /v1/alert_rules/:alert_rule", "DELETE /v1/alert_rules/:alert_rule", "POST /v1/customers",
			"PATCH /v1/customers/:customer", "POST /v1/customers/:customer/members", "POST /v1/wallets", "PATCH /v1/wallets/:wallet", "POST /v1/grants",
			"POST /v1/grants/:grant/issue", "POST /v1/grants/:grant/extend", "POST /v1/grants/:grant/void", "POST /v1/grants/:grant/freeze",
			"POST /v1/grants/:grant/unfreeze", "POST /v1/grants/:grant/refunds/preview", "POST /v1/grants/:grant/refunds", "POST /v1/quote",
			"POST /v1/holds/:hold/release", "POST /v1/customers/:customer/rate_card_assignments",
			"POST /v1/customers/:customer/rate_card_assignments/:assignment/end", "POST /v1/quarantined_usage/retry",
			"POST /v1/quarantined_usage/:quarantined/retry", "POST /v1/grants/:grant/decrement", "POST /v1/transfers",
			"POST /v1/operations/:customer/:ver/corrections", "POST /v1/disputes", "PATCH /v1/customers/:customer/members/:member", "POST /v1/limits",
			"PATCH /v1/limits/:limit", "DELETE /v1/limits/:limit", "PUT /v1/wallets/:wallet/top_up", "DELETE /v1/wallets/:wallet/top_up",
			"POST /v1/wallets/:wallet/top_up/resume", "POST /v1/topups/:topup/succeeded", "POST /v1/topups/:topup/failed"},
		finance: {"PATCH /v1/customers/:customer", "POST /v1/grants/:grant/refunds/preview", "POST /v1/units", "POST /v1/legal_entities",
			"POST /v1/rate_cards", "POST /v1/rate_cards/:rate_card/versions", "POST /v1/finance/recognise",
			"POST /v1/rate_cards/:rate_card/versions/:version/withdraw", "POST /v1/rate_cards/:rate_card/drafts",
			"PUT /v1/rate_cards/:rate_card/drafts/:draft", "DELETE /v1/rate_cards/:rate_card/drafts/:draft", "POST /v1/backtests", "POST /v1/backfills",
			"POST /v1/backfills/:backfill/events", "POST /v1/backfills/:backfill/preview", "POST /v1/backfills/:backfill/apply",
			"POST /v1/backfills/:backfill/withdraw", "POST /v1/backtests/:backtest/cancel", "POST /v1/rate_cards/:rate_card/drafts/:draft/publish",
			"POST /v1/customers/:customer/rate_card_assignments", "POST /v1/customers/:customer/rate_card_assignments/:assignment/end", "POST /v1/fx_rates",
			"POST /v1/fx_rates/import", "POST /v1/cost_catalogues/drafts", "DELETE /v1/cost_catalogues/drafts/:cost_draft",
			"POST /v1/cost_catalogues/drafts/:cost_draft/publish", "POST /v1/cost_catalogues/:cost_catalogue/rate_card", "POST /v1/quarantined_usage/retry",
			"POST /v1/quarantined_usage/:quarantined/retry", "POST /v1/quarantined_usage/:quarantined/discard",
			"POST /v1/finance/periods/:legal_entity/:period/close", "POST /v1/finance/periods/:legal_entity/:period/close/reject",
			"POST /v1/finance/periods/:legal_entity/:period/reopen", "POST /v1/finance/periods/:legal_entity/:period/statements", "POST /v1/finance/journals",
			"PUT /v1/finance/account_mappings", "POST /v1/finance/periods/:legal_entity/:period/seal", "POST /v1/disputes", "POST /v1/finance/policies",
			"POST /v1/finance/policies/:policy/approve", "POST /v1/finance/breakage_estimates", "POST /v1/finance/breakage_estimates/:estimate/approve",
			"POST /v1/finance/breakage_adjustments"},
		ops: {"POST /v1/alert_rules", "PATCH /v1/alert_rules/:alert_rule", "DELETE /v1/alert_rules/:alert_rule", "POST /v1/grants/:grant/freeze",
			"POST /v1/grants/:grant/unfreeze", "POST /v1/webhook_endpoints", "PATCH /v1/webhook_endpoints/:webhook_endpoint",
			"DELETE /v1/webhook_endpoints/:webhook_endpoint", "POST /v1/webhook_endpoints/:webhook_endpoint/rotate_secret",
			"POST /v1/webhook_endpoints/:webhook_endpoint/test", "POST /v1/webhook_endpoints/:webhook_endpoint/replay"},
		controller: {"POST /v1/finance/periods/:legal_entity/:period/close/late_window", "POST /v1/finance/periods/:legal_entity/:period/close/waivers",
			"POST /v1/finance/periods/:legal_entity/:period/close/approve", "POST /v1/finance/periods/:legal_entity/:period/close/reject",
			"POST /v1/finance/periods/:legal_entity/:period/reopen", "POST /v1/finance/periods/:legal_entity/:period/reopen/approve",
			"PUT /v1/legal_entities/:legal_entity/close_settings", "POST /v1/finance/journals/:journal/approve", "POST /v1/finance/journals/:journal/reject"},
	} {
		var got []string
		for route, r := range may {
			if r&role != 0 && !strings.HasPrefix(route, "GET ") {
				got = append(got, route)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s may change\n%s\nwant\n%s", role, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for _, route := range []string{"POST /v1/api_keys", "GET /v1/api_keys", "POST /v1/api_keys/:api_key/revoke"} {
		if may[route] != admin {
			t.Errorf("%s is for %s", route, may[route])
		}
	}
}

func TestKeysAreShownOnce(t *testing.T) {
	w := newWorld(t)
	r := request{role: "admin", method: "POST", path: "/v1/api_keys", key: "make", body: object{"name": "Backend", "role": "product"}}
	first := w.send(t, r).want(t, 201)
	secret, id := first.text(t, "key"), first.text(t, "id")
	if !strings.HasPrefix(secret, "tly_") || len(secret) != 47 || first.text(t, "hint") != secret[43:] {
		t.Errorf("%s", first.body)
	}
	again := w.send(t, r).want(t, 201)
	if again.header.Get("Idempotent-Replayed") != "true" || again.object(t)["key"] != nil || again.text(t, "id") != id {
		t.Errorf("%s", again.body)
	}
	var kept string
	if err := w.Store.Pool.QueryRow(context.Background(), "SELECT string_agg(response, '') FROM idempotency_keys").Scan(&kept); err != nil {
		t.Fatal(err)
	}
	for _, k := range w.admin(t, "GET", "/v1/api_keys", nil).data(t) {
		kept += k["hint"].(string)
	}
	if strings.Contains(kept, secret) {
		t.Error("the key is kept")
	}
	w.secret["new"] = secret
	w.send(t, request{role: "new", method: "GET", path: "/v1/customers/acme/balances"}).want(t, 200)
	w.send(t, request{role: "new", method: "GET", path: "/v1/audit"}).problem(t, 403, credit.Forbidden)
	revoked := w.admin(t, "POST", "/v1/api_keys/"+id+"/revoke", nil).want(t, 200)
	if revoked.object(t)["revoked_at"] == nil {
		t.Errorf("%s", revoked.body)
	}
	a := w.send(t, request{role: "new", method: "GET", path: "/v1/customers/acme/balances"})
	a.problem(t, 401, credit.Unauthenticated)
	if a.header.Get("WWW-Authenticate") == "" {
		t.Errorf("%v", a.header)
	}
	w.admin(t, "POST", "/v1/api_keys/key_9999/revoke", nil).problem(t, 404, credit.NotFound)
	w.admin(t, "POST", "/v1/api_keys/9999/revoke", nil).problem(t, 400, credit.InvalidID)
}

func TestUnknownAndMalformedKeys(t *testing.T) {
	w := newWorld(t)
	good := w.secret["admin"]
	for _, h := range []string{"", "Bearer", "Bearer ", "Basic " + good, good, "Bearer " + good[:20], "Bearer " + good + "x", "bearer " + good, "Bearer tly_" + strings.Repeat("x", 43),
		"Bearer " + strings.Repeat("x", 1000)} {
		w.send(t, request{method: "GET", path: "/v1/units", header: http.Header{"Authorization": {h}}}).problem(t, 401, credit.Unauthenticated)
	}
	w.send(t, request{method: "GET", path: "/v1/units", header: http.Header{"Authorization": {"Bearer " + good, "Bearer " + good}}}).problem(t, 401, credit.Unauthenticated)
}

// TestRevokedElsewhere revokes a key behind the server's back: it is refused once its entry is old.
func TestRevokedElsewhere(t *testing.T) {
	w := newWorld(t)
	ring := newKeyring(w.Store)
	now := time.Now()
	header := "Bearer " + w.secret["ops"]
	if _, err := ring.find(t.Context(), header, now); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Store.Pool.Exec(t.Context(), "UPDATE api_keys SET revoked_at = now() WHERE role = 'ops'"); err != nil {
		t.Fatal(err)
	}
	if _, err := ring.find(t.Context(), header, now.Add(keyTTL-time.Second)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := ring.find(t.Context(), header, now.Add(keyTTL)); credit.CodeOf(err) != credit.Unauthenticated {
			t.Fatalf("a revoked key: %v", err)
		}
	}
}

func TestSecretsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s := newSecret()
		if len(s) != len(secretPrefix)+secretLen || seen[s] || !printable(s) {
			t.Fatal(s)
		}
		seen[s] = true
	}
}
