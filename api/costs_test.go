package api

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
)

// catalogueFile is a small catalogue in the format of genai-prices, with invented prices.
func catalogueFile(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/catalogue.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// importCosts imports a catalogue and returns the draft.
func (w *world) importCosts(t testing.TB, document string) string {
	t.Helper()
	return w.admin(t, "POST", "/v1/cost_catalogues/drafts?format=genai_prices&note=n", document).want(t, 201).text(t, "id")
}

// publishCosts publishes a catalogue from an instant on.
func (w *world) publishCosts(t testing.TB, document, from string) {
	t.Helper()
	w.admin(t, "POST", "/v1/cost_catalogues/drafts/"+w.importCosts(t, document)+"/publish", object{"effective_at": from}).want(t, 201)
}

// costWorld has the catalogue from 2020 on, and a default card with the price of each provider's model as costs and a quarter more, a credit being a cent.
func costWorld(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	w.grant(t, "1000000", nil)
	w.publishCosts(t, catalogueFile(t), "2020-01-01T00:00:00Z")
	w.admin(t, "POST", "/v1/rate_cards", object{"code": "costs", "unit": "CRD", "default": true}).want(t, 201)
	a := w.admin(t, "POST", "/v1/cost_catalogues/1/rate_card", object{"markup": "25", "credit_value": object{"price": "0.01", "currency": "USD"}, "rate_card": "costs"}).want(t, 201)
	w.admin(t, "POST", "/v1/rate_cards/costs/drafts/"+a.text(t, "draft_id")+"/publish", object{"effective_at": "2020-01-01T00:00:00Z"}).want(t, 201)
	return w
}

const openAIBody = `{"id":"chatcmpl-9","object":"chat.completion","created":1769860800,"model":"gpt-small-0714",
	"choices":[{"index":0,"message":{"role":"assistant","content":"%s","logprobs":{"content":[{"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":{"i":[[[[[1]]]]]}}}}}}}}}]}},"finish_reason":"stop"}],
	"usage":{"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500,"prompt_tokens_details":{"cached_tokens":1000,"audio_tokens":0},
	"completion_tokens_details":{"reasoning_tokens":100,"audio_tokens":0},"novel_units":7},"service_tier":"default"}`

// product consumes as product code.
func (w *world) product(t testing.TB, key, body string) answer {
	t.Helper()
	return w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: key, body: body})
}

// TestConsumeAResponse is hand-computed: 200 × 0.4 + 1000 × 0.1 + 300 × 1.6 USD for a million, 0.00066 USD; × 1.25 / 0.01 is 0.0825 credits.
func TestConsumeAResponse(t *testing.T) {
	w := costWorld(t)
	body := fmt.Sprintf(openAIBody, "Hello")
	whole := `{"customer":"acme","dimensions":{"product":"chat"},"response":{"provider":"openai","body":` + body + `}}`
	a := w.product(t, "k1", whole).want(t, 200)
	if a.text(t, "amount") != "0.0825" || a.text(t, "cost", "amount") != "0.00066" || a.text(t, "cost", "currency") != "USD" || a.text(t, "cost", "flavour") != "chat" ||
		a.text(t, "dimensions", "provider") != "openai" || a.text(t, "dimensions", "model") != "gpt-small" || a.text(t, "dimensions", "product") != "chat" {
		t.Errorf("%s", a.body)
	}
	var r balance.ConsumeReceipt
	if err := json.Unmarshal(a.body, &r); err != nil {
		t.Fatal(err)
	}
	if r.Cost.Catalogue != 1 || fmt.Sprint(r.Cost.Unread) != "[{/total_tokens 1500} {/novel_units 7}]" || len(r.Pricing[0].Lines) != 4 {
		t.Errorf("%s", a.body)
	}
	if again := w.product(t, "k1", whole).want(t, 200); string(again.body) != string(a.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s", again.body)
	}
	w.product(t, "k1", strings.Replace(whole, "1200", "1201", 1)).problem(t, 422, credit.RequestMismatch)

	// What is recorded with the operation is the receipt.
	operation := w.admin(t, "GET", "/v1/operations/"+a.text(t, "operation"), nil).want(t, 200)
	if !strings.Contains(string(operation.body), `"cost":{"amount":"0.00066"`) {
		t.Errorf("%s", operation.body)
	}

	// The same by its usage alone, in a quote, and in a batch.
	usage := `{"customer":"acme","response":{"provider":"openai","flavour":"chat","model":"gpt-small","usage":{"prompt_tokens":1200,"completion_tokens":300,
		"prompt_tokens_details":{"cached_tokens":1000}}}}`
	quote := w.send(t, request{role: "support", method: "POST", path: "/v1/quote", body: usage}).want(t, 200)
	if quote.text(t, "amount") != "0.0825" || quote.text(t, "cost", "amount") != "0.00066" {
		t.Errorf("%s", quote.body)
	}
	batch := w.send(t, request{role: "product", method: "POST", path: "/v1/consume/batch",
		body: `{"events":[` + `{"idempotency_key":"b1",` + usage[1:] + `,{"idempotency_key":"b2",` + whole[1:] + `,{"idempotency_key":"b3",` + strings.Replace(whole[1:], "gpt-small-0714", "gpt-none", 1) + `]}`})
	results := decodeResults[struct {
		Status      int
		Receipt     *struct{ Amount string }
		Quarantined *struct{ State, Code string }
	}](t, batch)
	if results[0].Receipt.Amount != "0.0825" || results[1].Receipt.Amount != "0.0825" || results[2].Status != 202 || results[2].Quarantined.Code != "unknown_model" {
		t.Errorf("%s", batch.body)
	}
}

// Costs that the caller says are recorded, and a cost_plus rate goes by them: 0.02 USD and a half more are 3 credits.
func TestConsumeWithCosts(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	w.admin(t, "POST", "/v1/rate_cards", object{"code": "plus", "unit": "CRD", "default": true}).want(t, 201)
	w.admin(t, "POST", "/v1/rate_cards/plus/versions", object{"document": object{
		"credit_value": object{"price": "0.01", "currency": "USD"}, "meters": []object{{"code": "gpu"}, {"code": "calls"}},
		"rates": []object{{"id": "gpu", "meter": "gpu", "model": "cost_plus", "percent": "50"}, {"id": "calls", "meter": "calls", "price": "1"}}}}).want(t, 201)
	a := w.product(t, "k1", `{"customer":"acme","usage":[{"meter":"gpu","quantity":"7","cost":{"amount":"0.020","currency":"USD"}},
		{"meter":"calls","quantity":"1","cost":{"amount":"0.000000000000000000000001","currency":"USD"}}]}`).want(t, 200)
	if a.text(t, "amount") != "4" || a.text(t, "cost", "amount") != "0.020000000000000000000001" {
		t.Errorf("%s", a.body)
	}
	short := w.product(t, "k2", `{"customer":"acme","meter":"gpu","quantity":"7","cost":{"amount":"0.02","currency":"USD"}}`).want(t, 200)
	if short.text(t, "amount") != "3" || short.text(t, "cost", "amount") != "0.02" {
		t.Errorf("%s", short.body)
	}
	for body, code := range map[string]credit.Code{
		`{"customer":"acme","usage":[{"meter":"gpu","quantity":"1","cost":{"amount":"1","currency":"USD"}},{"meter":"gpu","quantity":"1","cost":{"amount":"1","currency":"EUR"}}]}`: credit.InvalidRequest,
		`{"customer":"acme","meter":"gpu","quantity":"1","cost":{"amount":"-1","currency":"USD"}}`:                                                                                  credit.InvalidAmount,
		`{"customer":"acme","meter":"gpu","quantity":"1","cost":{"amount":"0.0000000000000000000000001","currency":"USD"}}`:                                                         credit.InvalidAmount,
		`{"customer":"acme","unit":"CRD","amount":"1","cost":{"amount":"1","currency":"USD"}}`:                                                                                      credit.InvalidRequest,
		`{"customer":"acme","meter":"gpu","quantity":"1"}`:                                                                                                                          credit.InvalidRequest,
		`{"customer":"acme","unit":"CRD","amount":"1","on_unpriced":"quarantine"}`:                                                                                                  credit.InvalidRequest,
	} {
		w.product(t, w.newKey(), body).problem(t, 400, code)
	}
}

// Bad responses are refused as problems that point to the fault, and nothing is written.
func TestBadResponses(t *testing.T) {
	w := costWorld(t)
	usage := func(s string) string {
		return `{"customer":"acme","response":{"provider":"openai","flavour":"chat","model":"gpt-small","usage":` + s + `}}`
	}
	before := written(t, w)
	for _, c := range []struct {
		body   string
		status int
		code   credit.Code
		at     string
	}{
		{usage(`{"prompt_tokens":1.5,"completion_tokens":1}`), 422, credit.InvalidUsage, "/response/usage/prompt_tokens"},
		{`{"customer":"acme","response":{"provider":"openai","body":{"model":"gpt-small","usage":{"prompt_tokens":-1,"completion_tokens":1}}}}`, 422, credit.InvalidUsage, "/response/body/usage/prompt_tokens"},
		{usage(`{"prompt_tokens":1,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":2}}`), 422, credit.InvalidUsage, ""},
		{usage(`{}`), 422, credit.NoUsage, ""},
		{usage(`{"prompt_tokens":0,"completion_tokens":0}`), 422, credit.NoUsage, ""},
		{usage(`[]`), 400, credit.InvalidRequest, "/response/usage"},
		{`{"customer":"acme","response":{"provider":"openai","body":{"error":{"message":"no"}}}}`, 422, credit.NoUsage, ""},
		{`{"customer":"acme","response":{"provider":"openai","usage":{"prompt_tokens":1,"completion_tokens":1}}}`, 400, credit.InvalidRequest, "/response/model"},
		{`{"customer":"acme","response":{"provider":"nobody","model":"m","usage":{"prompt_tokens":1}}}`, 422, credit.UnknownProvider, ""},
		{`{"customer":"acme","response":{"provider":"openai","flavour":"smoke","model":"gpt-small","usage":{"prompt_tokens":1}}}`, 422, credit.UnknownFlavour, ""},
		{`{"customer":"acme","response":{"provider":"google","model":"gemini-none","usage":{"promptTokenCount":5}}}`, 422, credit.NoRate, ""},
		{`{"customer":"acme","on_unpriced":"refuse","response":{"provider":"openai","model":"gpt-none","usage":{"prompt_tokens":1,"completion_tokens":1}}}`, 422, credit.UnknownModel, ""},
		{`{"customer":"acme","response":{"provider":"openai"}}`, 400, credit.InvalidRequest, "/response"},
		{`{"customer":"acme","response":{"provider":"openai","usage":{},"body":{}}}`, 400, credit.InvalidRequest, "/response"},
		{`{"customer":"acme","unit":"CRD","amount":"1","response":{"provider":"openai","usage":{"a":1}}}`, 400, credit.InvalidRequest, "/response"},
		{`{"customer":"acme","dimensions":{"model":"gpt-large"},"response":{"provider":"openai","model":"gpt-small","flavour":"chat","usage":{"prompt_tokens":1,"completion_tokens":1}}}`, 409, credit.DimensionConflict, "/dimensions/model"},
		{`{"customer":"acme","dimensions":{"token_type":"input"},"response":{"provider":"openai","model":"gpt-small","flavour":"chat","usage":{"prompt_tokens":1,"completion_tokens":1}}}`, 409, credit.DimensionConflict, "/dimensions/token_type"},
		{`{"customer":"acme","timestamp":"2019-12-31T00:00:00Z","response":{"provider":"openai","usage":{"a":1}}}`, 422, credit.TooOld, ""},
	} {
		p := w.product(t, w.newKey(), c.body).problem(t, c.status, c.code)
		if c.at != "" {
			if errs, _ := p["errors"].([]any); len(errs) == 0 || errs[0].(object)["pointer"] != c.at {
				t.Errorf("%s: %v, not at %s", c.body, p["errors"], c.at)
			}
		}
	}
	if written(t, w) != before {
		t.Error("something was written")
	}
}

// A response whose model is not known is answered 202 until a catalogue has it, and is then charged once, at its own time, however many try.
func TestUnknownModelIsQuarantinedAndChargedOnce(t *testing.T) {
	w := costWorld(t)
	other, err := New(Config{Service: w.Start(t, balance.Config{}), Store: w.Store, Log: balancetest.Log(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	second := httptest.NewServer(other.Handler())
	t.Cleanup(second.Close)

	body := `{"customer":"acme","response":{"provider":"openai","body":` + strings.Replace(fmt.Sprintf(openAIBody, strings.Repeat("secret ", 100)), "gpt-small-0714", "gpt-next", 1) + `}}`
	first := w.product(t, "late", body).want(t, 202)
	if first.text(t, "state") != "pending" || first.text(t, "code") != "unknown_model" {
		t.Errorf("%s", first.body)
	}
	if again := w.product(t, "late", body).want(t, 202); string(again.body) != string(first.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s, then %s", first.body, again.body)
	}
	w.product(t, "late", strings.Replace(body, "1200", "1201", 1)).problem(t, 422, credit.RequestMismatch)
	id := first.text(t, "id")
	waits := w.admin(t, "GET", "/v1/quarantined_usage?customer=acme&state=pending&code=unknown_model", nil).data(t)
	if len(waits) != 1 || waits[0]["id"] != id || waits[0]["idempotency_key"] != "late" || strings.Contains(fmt.Sprint(waits), "secret") {
		t.Errorf("%v", waits)
	}
	path := "/v1/quarantined_usage/" + id
	w.send(t, request{role: "support", method: "POST", path: path + "/retry"}).problem(t, 422, credit.UnknownModel)
	if got := w.admin(t, "GET", path, nil).object(t); got["tries"] != 2.0 || got["state"] != "pending" {
		t.Errorf("%v", got)
	}

	// The catalogue that knows the model holds from an hour ago; a later one, in force now, is dearer and prices nothing of then.
	known := strings.Replace(catalogueFile(t), `{"equals": "gpt-small"}`, `{"equals": "gpt-small"}, {"equals": "gpt-next"}`, 1)
	w.publishCosts(t, known, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	time.Sleep(20 * time.Millisecond)
	w.publishCosts(t, strings.Replace(known, `"input_mtok": 0.4`, `"input_mtok": 4000`, 1), time.Now().UTC().Format(time.RFC3339Nano))

	var all sync.WaitGroup
	var mu sync.Mutex
	receipts := map[string]int{}
	for i := range 20 {
		url := []string{w.url, second.URL}[i%2]
		all.Go(func() {
			on := &world{World: w.World, url: url, secret: w.secret}
			a := on.send(t, request{role: "finance", method: "POST", path: path + "/retry"})
			mu.Lock()
			defer mu.Unlock()
			if a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
			receipts[string(a.body)]++
		})
	}
	all.Wait()
	if len(receipts) != 1 {
		t.Fatalf("%d different receipts", len(receipts))
	}
	replay := w.product(t, "late", body).want(t, 200)
	if receipts[string(replay.body)] != 20 || replay.text(t, "amount") != "0.0825" || replay.text(t, "service_at") != first.text(t, "service_at") {
		t.Errorf("%s", replay.body)
	}
	var r balance.ConsumeReceipt
	if err := json.Unmarshal(replay.body, &r); err != nil || r.Cost.Catalogue != 2 {
		t.Errorf("%v: %s", err, replay.body)
	}
	var operations int
	if err := w.Store.Pool.QueryRow(context.Background(), `SELECT count(*) FROM operations WHERE key = 'client/late'`).Scan(&operations); err != nil || operations != 1 {
		t.Errorf("%d operations, %v", operations, err)
	}
	got := w.admin(t, "GET", path, nil).object(t)
	if got["state"] != "charged" || got["operation"] != replay.text(t, "operation") || got["tries"] != 3.0 {
		t.Errorf("%v", got)
	}
	w.admin(t, "POST", path+"/discard", object{"reason": "r"}).problem(t, 409, credit.QuarantineState)
	customer, err := credit.ParseID[credit.CustomerID](first.text(t, "customer_id"))
	if err != nil {
		t.Fatal(err)
	}
	balancetest.MustConserve(t, w.World, customer)
}

// A usage without a rate is kept when the caller asks for it, retried among others, and discarded with a reason.
func TestQuarantineOnRequest(t *testing.T) {
	w := costWorld(t)
	plain := `{"customer":"acme","meter":"images","quantity":"2"%s}`
	w.product(t, "refused", fmt.Sprintf(plain, "")).problem(t, 422, credit.NoRate)
	var ids []string
	for i := range 3 {
		a := w.product(t, fmt.Sprintf("image-%d", i), fmt.Sprintf(plain, `,"on_unpriced":"quarantine"`)).want(t, 202)
		ids = append(ids, a.text(t, "id"))
	}
	a := w.product(t, "nobody", `{"customer":"acme","on_unpriced":"quarantine","response":{"provider":"nobody","model":"m","usage":{"prompt_tokens":1}}}`).want(t, 202)
	if a.text(t, "code") != "unknown_provider" {
		t.Errorf("%s", a.body)
	}
	for _, role := range []string{"product", "ops", "support"} {
		w.send(t, request{role: role, method: "POST", path: "/v1/quarantined_usage/" + ids[2] + "/discard", key: w.newKey(), body: object{"reason": "Test call"}}).problem(t, 403, credit.Forbidden)
	}
	gone := w.send(t, request{role: "finance", method: "POST", path: "/v1/quarantined_usage/" + ids[2] + "/discard", key: w.newKey(), body: object{"reason": "Test call"}}).want(t, 200)
	if gone.text(t, "state") != "discarded" || gone.text(t, "reason") != "Test call" {
		t.Errorf("%s", gone.body)
	}
	w.admin(t, "POST", "/v1/quarantined_usage/"+ids[2]+"/retry", nil).problem(t, 409, credit.QuarantineState)
	if again := w.product(t, "image-2", fmt.Sprintf(plain, `,"on_unpriced":"quarantine"`)).want(t, 202); again.text(t, "state") != "discarded" {
		t.Errorf("%s", again.body)
	}
	w.admin(t, "POST", "/v1/rate_cards/costs/versions", object{"effective_at": "2020-01-02T00:00:00Z",
		"document": object{"meters": []object{{"code": "images"}}, "rates": []object{{"id": "i", "meter": "images", "price": "4"}}}}).want(t, 201)
	type retried struct {
		Next    *string
		Results []struct {
			ID      string
			Status  int
			Receipt *struct{ Amount string }
			Problem *struct{ Code string }
		}
	}
	var one, rest retried
	for _, c := range []struct {
		body object
		into *retried
	}{{object{"customer": "acme", "limit": 1}, &one}, {object{"after": ids[0]}, &rest}} {
		a := w.send(t, request{role: "support", method: "POST", path: "/v1/quarantined_usage/retry", body: c.body}).want(t, 200)
		if err := json.Unmarshal(a.body, c.into); err != nil {
			t.Fatal(err)
		}
	}
	if one.Next == nil || *one.Next != ids[0] || len(one.Results) != 1 || one.Results[0].Receipt.Amount != "8" {
		t.Errorf("%+v", one)
	}
	if rest.Next != nil || len(rest.Results) != 2 || rest.Results[0].ID != ids[1] || rest.Results[0].Status != 200 || rest.Results[1].Problem.Code != "unknown_provider" {
		t.Errorf("%+v", rest)
	}
	if n, _, err := w.Store.CountQuarantined(context.Background()); err != nil || n != 1 {
		t.Errorf("%d wait, %v", n, err)
	}
}

// What is kept waits through a refusal for want of credits, and is charged when they are there.
func TestQuarantinedUsageWaitsForCredits(t *testing.T) {
	w := newWorld(t)
	a := w.product(t, "k", `{"customer":"acme","meter":"images","quantity":"2","on_unpriced":"quarantine"}`)
	if a.status == 202 { // a customer without any card has nothing that could be mended by waiting
		t.Fatalf("%s", a.body)
	}
	w.rates(t)
	first := w.product(t, "k", `{"customer":"acme","meter":"seconds","quantity":"2","on_unpriced":"quarantine"}`).want(t, 202)
	w.admin(t, "POST", "/v1/rate_cards/standard/versions", object{"effective_at": "2020-01-02T00:00:00Z",
		"document": object{"meters": []object{{"code": "seconds"}}, "rates": []object{{"id": "s", "meter": "seconds", "price": "4"}}}}).want(t, 201)
	path := "/v1/quarantined_usage/" + first.text(t, "id")
	w.admin(t, "POST", path+"/retry", nil).problem(t, 402, credit.InsufficientCredits)
	if got := w.admin(t, "GET", path, nil); got.text(t, "state") != "pending" || got.text(t, "code") != "insufficient_credits" {
		t.Errorf("%s", got.body)
	}
	w.grant(t, "100", nil)
	if got := w.admin(t, "POST", path+"/retry", nil).want(t, 200); got.text(t, "amount") != "8" {
		t.Errorf("%s", got.body)
	}
}

// Late events are priced by the catalogue of their time.
func TestLateEventsHaveTheCostOfTheirTime(t *testing.T) {
	w := costWorld(t)
	dearer := strings.Replace(catalogueFile(t), `"input_mtok": 0.4`, `"input_mtok": 40`, 1)
	w.publishCosts(t, dearer, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	consume := func(at time.Time) string {
		return w.product(t, w.newKey(), fmt.Sprintf(`{"customer":"acme","timestamp":%q,"response":{"provider":"openai","flavour":"chat","model":"gpt-small",
			"usage":{"prompt_tokens":1000000,"completion_tokens":0}}}`, at.UTC().Format(time.RFC3339))).want(t, 200).text(t, "cost", "amount")
	}
	if before, after := consume(time.Now().Add(-2*time.Hour)), consume(time.Now()); before != "0.4" || after != "40" {
		t.Errorf("%s before, %s after", before, after)
	}
}

// The life of a catalogue: imported, reviewed, published, never changed.
func TestCostCatalogues(t *testing.T) {
	w := newWorld(t)
	file := catalogueFile(t)
	import1 := request{role: "finance", method: "POST", path: "/v1/cost_catalogues/drafts?format=genai_prices", key: "i1", body: file}
	first := w.send(t, import1).want(t, 201)
	if again := w.send(t, import1).want(t, 201); string(again.body) != string(first.body) {
		t.Errorf("%s", again.body)
	}
	review := first.object(t)["review"].(object)
	if review["compared_with"] != 0.0 || review["changes_count"].(float64) < 10 {
		t.Errorf("%v", review)
	}
	draft := "/v1/cost_catalogues/drafts/" + first.text(t, "id")
	if got := w.admin(t, "GET", draft+"/document", nil).want(t, 200); string(got.body) != file {
		t.Error("the document is another one")
	}
	w.send(t, request{role: "support", method: "GET", path: draft}).problem(t, 403, credit.Forbidden)
	w.send(t, request{role: "ops", method: "POST", path: draft + "/publish", key: "p0"}).problem(t, 403, credit.Forbidden)
	w.admin(t, "GET", "/v1/cost_catalogues/in_force", nil).problem(t, 404, credit.CatalogueNotFound)
	publish := request{role: "finance", method: "POST", path: draft + "/publish", key: "p1"}
	published := w.send(t, publish).want(t, 201)
	if again := w.send(t, publish).want(t, 201); string(again.body) != string(published.body) {
		t.Errorf("%s", again.body)
	}
	w.admin(t, "GET", draft, nil).problem(t, 404, credit.DraftNotFound)
	if got := w.admin(t, "GET", "/v1/cost_catalogues/in_force", nil).want(t, 200); string(got.body) != string(published.body) || got.text(t, "sha256") != first.text(t, "sha256") {
		t.Errorf("%s, %s", got.body, published.body)
	}
	if got := w.admin(t, "GET", "/v1/cost_catalogues/1/document", nil).want(t, 200); string(got.body) != file {
		t.Error("the document is another one")
	}

	changed := w.admin(t, "POST", "/v1/cost_catalogues/drafts?format=genai_prices", strings.Replace(file, `"input_mtok": 0.4`, `"input_mtok": 0.5`, 1)).want(t, 201)
	review = changed.object(t)["review"].(object)
	change := review["changes"].([]any)[0].(object)
	price := change["prices"].([]any)[0].(object)
	if review["compared_with"] != 1.0 || review["changes_count"] != 1.0 || change["model"] != "gpt-small" || price["before"] != "0.4" || price["after"] != "0.5" || price["per"] != "1000000" {
		t.Errorf("%v", review)
	}
	w.admin(t, "DELETE", "/v1/cost_catalogues/drafts/"+changed.text(t, "id"), nil).want(t, 200)
	if drafts := w.admin(t, "GET", "/v1/cost_catalogues/drafts", nil).data(t); len(drafts) != 0 {
		t.Errorf("%v", drafts)
	}
	if list := w.admin(t, "GET", "/v1/cost_catalogues", nil).data(t); len(list) != 1 || list[0]["number"] != 1.0 {
		t.Errorf("%v", list)
	}
	for path, body := range map[string]string{"?format=genai_prices": `{}`, "?format=litellm": `[]`, "": `[]`, "?format=other": `[]`, "?format=litellm&note=": `{`, "?format=litellm&note=empty": `{}`} {
		if a := w.admin(t, "POST", "/v1/cost_catalogues/drafts"+path, body); a.status != 400 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	actions := 0
	for _, line := range w.admin(t, "GET", "/v1/audit?action=publish_cost_catalogue", nil).data(t) {
		if line["detail"].(object)["sha256"] == first.text(t, "sha256") {
			actions++
		}
	}
	if actions != 1 {
		t.Errorf("%d audit rows", actions)
	}
	for _, sql := range []string{`UPDATE cost_catalogues SET note = 'x'`, `DELETE FROM cost_catalogues`, `TRUNCATE cost_catalogues`} {
		if _, err := w.Store.Pool.Exec(context.Background(), sql); err == nil {
			t.Errorf("%s was done", sql)
		}
	}
}

// A ready rate card is exact, and says what it lacks.
func TestReadyRateCard(t *testing.T) {
	w := newWorld(t)
	w.publishCosts(t, catalogueFile(t), "2020-01-01T00:00:00Z")
	terms := object{"markup": "25", "credit_value": object{"price": "0.01", "currency": "USD"}, "providers": []string{"openai"}}
	a := w.send(t, request{role: "finance", method: "POST", path: "/v1/cost_catalogues/in_force/rate_card", body: terms}).want(t, 200)
	var card struct {
		Document struct {
			Rates []struct {
				ID, Price, Per string
			}
		}
		Rates int
	}
	if err := json.Unmarshal(a.body, &card); err != nil || len(card.Document.Rates) != card.Rates || card.Rates == 0 {
		t.Fatalf("%v: %s", err, a.body)
	}
	found := false
	for _, r := range card.Document.Rates {
		if r.ID == "openai/gpt-small/input" { // 0.4 USD × 1.25 / 0.01
			price, _ := new(big.Rat).SetString(r.Price)
			per, _ := new(big.Rat).SetString(r.Per)
			found = price.Mul(price, big.NewRat(1_000_000, 1)).Cmp(per.Mul(per, big.NewRat(50, 1))) == 0
		}
	}
	if !found {
		t.Errorf("%s", a.body)
	}
	w.admin(t, "POST", "/v1/cost_catalogues/9/rate_card", terms).problem(t, 404, credit.CatalogueNotFound)
	for name, bad := range map[string]any{"markup": "-101", "credit_value": object{"price": "1", "currency": "EUR"}, "providers": []string{"nobody"}, "models": []string{"none"}} {
		other := object{"credit_value": object{"price": "0.01", "currency": "USD"}}
		other[name] = bad
		w.admin(t, "POST", "/v1/cost_catalogues/1/rate_card", other).problem(t, 400, credit.InvalidRequest)
	}
}

// FuzzResponse reads anything where a response should be: what is accepted is JSON, and what would be kept of it is the same usage to the catalogue.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{`{"provider":"openai","usage":{"prompt_tokens":1}}`, `{"provider":"openai","body":{"usage":{"a":[1,{"b":"\u0000\ud800"}]}}}`,
		`{"provider":"p","flavour":"f","model":"m","usage":{"a":1,"a":2}}`, `{"provider":"p","body":` + strings.Repeat(`{"a":`, 50) + `1` + strings.Repeat(`}`, 50) + `}`,
		`{"provider":"p","usage":{},"body":{}}`, `{"provider":"p","usage":{`, `null`, `{"usage":{}}`, `{"provider":"p","usage":{"x":1e400}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, response string) {
		doc := `{"customer":"acme","response":` + response + `}`
		var r reader
		if r.start(doc) != nil {
			return
		}
		var in consumption
		err := in.read(&r, false)
		if err == nil {
			err = r.end()
		}
		if err != nil {
			if credit.CodeOf(err) == "" {
				t.Fatalf("%q: %v", doc, err)
			}
			return
		}
		if !json.Valid([]byte(doc)) {
			t.Fatalf("%q was accepted", doc)
		}
		if in.response == nil {
			return
		}
		if _, err := in.appendResponse(nil); err != nil {
			t.Fatalf("%q: %v", doc, err)
		}
		short := shortened(in.text)
		var again consumption
		if err := r.start(short); err != nil {
			t.Fatalf("%q is kept as %q: %v", doc, short, err)
		}
		if err := again.read(&r, false); err != nil || again.response == nil {
			t.Fatalf("%q is kept as %q: %v", doc, short, err)
		}
		if shortened(again.text) != short {
			t.Fatalf("%q is kept as %q, and that as %q", doc, short, shortened(again.text))
		}
	})
}
