package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
)

// told is an outcome as it was answered.
type told struct {
	Source, ID  *string
	Outcome     string
	Operation   string
	Unit        string
	Amount      string
	Receipt     *balance.ConsumeReceipt
	Quarantined *balance.QuarantineDocument
	Detail      string
	Replayed    bool
	Status      int
	Problem     *struct {
		Code, Detail string
		Errors       []credit.Issue
	}
}

// code is why an event was not charged.
func (t told) code() string {
	switch {
	case t.Problem != nil:
		return t.Problem.Code
	case t.Quarantined != nil:
		return string(t.Quarantined.Code)
	}
	return ""
}

func (t told) String() string {
	b, _ := json.Marshal(t)
	return string(b)
}

// events sends events with a content type and headers, and holds the answer against the description.
func (w *world) events(t testing.TB, target, contentType, body string, header http.Header) answer {
	t.Helper()
	req, err := http.NewRequest("POST", w.url+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Authorization", "Bearer "+w.secret["product"])
	req.Header.Set("Content-Type", contentType)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	path, _, _ := strings.Cut(target, "?")
	if res.Header.Get("Content-Type") != mediaNDJSON {
		loadSpec(t).checkAnswer(t, "POST", path, a.status, a.header, a.body)
	}
	return a
}

// told returns the outcomes of an answer, of either form.
func (a answer) told(t testing.TB, want ...string) []told {
	t.Helper()
	a.want(t, 200)
	var out []told
	if a.header.Get("Content-Type") == mediaNDJSON {
		for line := range bytes.Lines(a.body) {
			loadSpec(t).validate(t, []string{"components", "schemas", "UsageOutcome"}, line, "outcome")
			var one told
			if err := json.Unmarshal(line, &one); err != nil {
				t.Fatal(err)
			}
			out = append(out, one)
		}
	} else {
		out = decodeResults[told](t, a)
	}
	var got []string
	for _, o := range out {
		got = append(got, o.Outcome)
	}
	if want != nil && !slices.Equal(got, want) {
		t.Fatalf("the outcomes are %q, not %q: %s", got, want, a.body)
	}
	return out
}

func (w *world) plain(t testing.TB, body string) answer {
	t.Helper()
	return w.events(t, "/v1/events", mediaJSON, body, nil)
}

func now(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339) }

// crd is an event of an amount.
func crd(id, customer, amount, at string) string {
	return fmt.Sprintf(`{"source":"app","id":%q,"customer":%q,"time":%q,"unit":"CRD","amount":%q}`, id, customer, at, amount)
}

func (w *world) available(t testing.TB, customer string) string {
	t.Helper()
	a := w.admin(t, "GET", "/v1/customers/"+customer+"/balances?consistency=strong", nil).want(t, 200)
	var doc struct {
		Units []struct{ Available string }
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || len(doc.Units) != 1 {
		t.Fatalf("%v %s", err, a.body)
	}
	return doc.Units[0].Available
}

// TestUsageEvents takes events of our own through every outcome.
func TestUsageEvents(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	at := now(time.Hour)
	first := w.plain(t, crd("e1", "acme", "10", at)).told(t, "consumed")
	if first[0].Amount != "10" || first[0].Unit != "CRD" || *first[0].ID != "e1" || *first[0].Source != "app" || first[0].Receipt != nil {
		t.Errorf("%v", first)
	}
	// A list, wrapped and not; the same again however it is written, with other content, twice in one call, of another source.
	again := w.events(t, "/v1/events?receipts=true", mediaJSON, `{"events":[`+crd("e1", "acme", "10.0", at)+","+crd("e1", "acme", "11", at)+","+crd("e2", "acme", "5", at)+","+
		crd("e2", "acme", "5", at)+","+strings.Replace(crd("e1", "acme", "1", at), "app", "other", 1)+`]}`, nil).told(t, "duplicate", "mismatch", "consumed", "duplicate", "consumed")
	if again[0].Operation != first[0].Operation || again[0].Receipt.Amount != "10" || again[1].code() != "request_mismatch" || again[3].Operation != again[2].Operation {
		t.Errorf("%v", again)
	}
	short := w.plain(t, "["+crd("e3", "acme", "85", at)+","+strings.Replace(crd("e4", "acme", "85", at), "{", `{"partial":true,`, 1)+"]").told(t, "refused", "consumed")
	if short[0].Status != 402 || short[0].code() != "insufficient_credits" || short[1].Amount != "84" {
		t.Errorf("%v", short)
	}
	w.grant(t, "100", nil)
	if r := w.plain(t, crd("e3", "acme", "85", at)).told(t, "refused"); !r[0].Replayed || r[0].Status != 402 {
		t.Errorf("%v", r)
	}
	// A fault in one event is its own.
	bad := w.plain(t, "["+strings.Join([]string{
		`{"source":"app","id":"b1","customer":"acme","unit":"CRD","amount":"1"}`, `{"id":"b2","customer":"acme","time":"` + at + `","unit":"CRD","amount":"1"}`,
		crd("b3", "acme", "x", at), crd("b4", "acme", "0", at), strings.Replace(crd("b5", "acme", "1", at), "{", `{"surplus":1,`, 1), `7`, `{"id":"b6","id":"b6"}`,
		crd("", "acme", "1", at), crd("b8", "acme", "1", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)), strings.Replace(crd("b9", "acme", "1", at), "{", `{"idempotency_key":"k",`, 1),
		crd("b10", "acme", "1", "yesterday"), crd("b11", "acme", "1", at),
	}, ",")+"]").told(t, "refused", "refused", "refused", "refused", "refused", "refused", "refused", "refused", "refused", "refused", "refused", "consumed")
	for i, want := range []string{"/time", "/source", "/amount", "/amount", "/surplus", "", "/id", "/id", "", "/idempotency_key", "/time"} {
		if p := bad[i].Problem; want != "" && (len(p.Errors) != 1 || p.Errors[0].Pointer != want) {
			t.Errorf("event %d: %v, not at %s", i, p, want)
		}
	}
	if bad[8].code() != "in_future" || bad[5].ID != nil {
		t.Errorf("%v", bad)
	}
	if got := w.available(t, "acme"); got != "99" {
		t.Errorf("%s are available", got)
	}
}

// A call that cannot be divided into events is refused, and nothing happens.
func TestUsageEventsAsAWhole(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	good := crd("e1", "acme", "1", now(0))
	before := written(t, w)
	for body, status := range map[string]int{
		"": 400, "[]": 400, "[" + good: 400, "[" + good + ",]": 400, good + good: 400, `{"events":[` + good + `],"more":1}`: 400, `{"events":[]}`: 400, `{"events":7}`: 400, `"x"`: 400,
		"[" + good + ",{\"a\":\"\xff\"}]": 400, "[" + strings.Repeat("1,", maxUsageEvents) + "1]": 400, "[" + strings.Repeat(" ", DefaultEventsBody) + "]": 413,
	} {
		w.plain(t, body).want(t, status)
	}
	for _, target := range []string{"?format=x", "?receipts=1", "?provider=openai", "?format=litellm&cache_hits=no", "?format=litellm&provider=a&provider=b", "?format=litellm&source="} {
		w.events(t, "/v1/events"+target, mediaJSON, good, nil).problem(t, 400, credit.InvalidRequest)
	}
	for _, media := range []string{"text/plain", "application/json; charset=latin1", "application/x-www-form-urlencoded", "application"} {
		w.events(t, "/v1/events", media, good, nil).problem(t, 415, credit.UnsupportedMedia)
	}
	w.events(t, "/v1/events", mediaJSON, good, http.Header{"Content-Encoding": {"gzip"}}).problem(t, 415, credit.UnsupportedMedia)
	w.events(t, "/v1/events", mediaNDJSON, "\n\n", nil).problem(t, 400, credit.InvalidRequest)
	if written(t, w) != before {
		t.Error("something was written")
	}
	large := w.plain(t, "["+good+`,{"id":"`+strings.Repeat("x", maxEvent)+`"}]`).told(t, "consumed", "refused")
	if large[1].code() != "too_large" {
		t.Errorf("%v", large[1].Problem)
	}
}

// TestCloudEvents sends an event in all three modes of CloudEvents.
func TestCloudEvents(t *testing.T) {
	w := costWorld(t)
	at := now(time.Minute)
	one := func(id, more string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"//app/eu","subject":"acme","time":%q,%s}`, id, at, more)
	}
	usage := `"type":"chat.completed","datacontenttype":"application/json","traceparent":"00-1","data":{"unit":"CRD","amount":"2","dimensions":{"product":"chat"}}`
	structured := w.events(t, "/v1/events", "application/cloudevents+json; charset=utf-8", one("c1", usage), nil).told(t, "consumed")
	binary := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"c1"}, "Ce-Source": {"//app/eu"}, "Ce-Type": {"chat.completed"}, "Ce-Subject": {"ac%6De"}, "Ce-Time": {at}}
	same := w.events(t, "/v1/events", mediaJSON, `{"dimensions":{"product":"chat"},"amount":"2.00","unit":"CRD"}`, binary).told(t, "duplicate")
	if same[0].Operation != structured[0].Operation {
		t.Errorf("%v, then %v", structured, same)
	}
	batch := w.events(t, "/v1/events", mediaCloudBatch, "["+strings.Join([]string{
		one("c1", usage),
		one("c2", `"type":"x","data_base64":"eyJ1bml0IjoiQ1JEIiwiYW1vdW50IjoiMiJ9"`),
		one("c3", `"type":"tallystick.response","provider":"openai","data":`+fmt.Sprintf(openAIBody, "Hello")),
		one("c4", `"type":"litellm_tokens","data":{"model":"gpt-small","cost":0.1,"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500}`),
		one("c5", `"type":"x","data":{"id":"c5","unit":"CRD","amount":"2"}`),
		one("c6", `"type":"x","data":{"customer":"other","unit":"CRD","amount":"2"}`),
		one("c7", `"type":"x"`), one("c8", `"data":{"unit":"CRD","amount":"2"}`), one("c9", `"type":"x","datacontenttype":"text/csv","data":"1,2"`),
		strings.Replace(one("c10", usage), "1.0", "0.3", 1), `{}`,
	}, ",")+"]", nil).told(t, "duplicate", "consumed", "consumed", "consumed", "refused", "refused", "refused", "refused", "refused", "refused", "refused")
	// Computed by hand: c3 as in TestConsumeAResponse; c4 is 1200 × 0.4 + 300 × 1.6 USD for a million, × 1.25 / 0.01.
	if batch[2].Amount != "0.0825" || batch[3].Amount != "0.12" {
		t.Errorf("%v", batch)
	}
	if p := batch[4].Problem; len(p.Errors) != 1 || p.Errors[0].Pointer != "/data/id" {
		t.Errorf("%v", p)
	}
	ndjson := w.events(t, "/v1/events?format=cloudevents", mediaNDJSON, one("c1", usage)+"\n"+one("c2", usage)+"\n", nil).told(t, "duplicate", "mismatch")
	if *ndjson[1].ID != "c2" {
		t.Errorf("%v", ndjson)
	}
	if openmeter := w.events(t, "/api/v1/events", mediaCloud, one("c4", `"type":"litellm_tokens","data":{"model":"gpt-small","prompt_tokens":1200,"completion_tokens":300}`), nil); openmeter.told(t)[0].Outcome != "duplicate" {
		t.Errorf("%s", openmeter.body)
	}
}

// litePayloads are StandardLoggingPayloads as LiteLLM's generic_api callback sends them, with what is of no matter here.
const litePayloads = `[
	{"id":"chatcmpl-1","trace_id":"t1","call_type":"acompletion","stream":false,"response_cost":1.2e-05,"status":"success","custom_llm_provider":"openai","total_tokens":1500,
		"prompt_tokens":1200,"completion_tokens":300,"startTime":%[1]d.25,"endTime":%[1]d.75,"model_group":"small","model":"gpt-small","cache_hit":false,"end_user":"acme",
		"metadata":{"user_api_key_hash":"88dc","user_api_key_alias":"web","user_api_key_team_id":"team","user_api_key_user_id":"jane",
			"usage_object":{"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500,"prompt_tokens_details":{"cached_tokens":1000,"audio_tokens":null},"completion_tokens_details":null}},
		"messages":[{"role":"user","content":"Hi"}],"response":{"id":"chatcmpl-1","choices":[]},"error_str":null,"model_parameters":{"temperature":0.1},"hidden_params":{"model_id":"x"}},
	{"id":"chatcmpl-2","status":"failure","error_str":"RateLimitError","model":"gpt-small","prompt_tokens":0,"completion_tokens":0,"endTime":%[1]d,"end_user":"acme","response_cost":0},
	{"id":"chatcmpl-3","status":"success","custom_llm_provider":"openai","model":"gpt-small","cache_hit":true,"prompt_tokens":1200,"completion_tokens":300,"endTime":%[1]d,"end_user":"","metadata":{"user_api_key_team_id":"acme"}},
	{"id":"chatcmpl-4","status":"success","custom_llm_provider":"openai","model":"gpt-none","prompt_tokens":12,"completion_tokens":3,"endTime":%[1]d,"end_user":"acme"},
	{"id":"chatcmpl-5","status":"success","custom_llm_provider":"openai","model":"gpt-small","prompt_tokens":12,"completion_tokens":3,"endTime":%[1]d,"end_user":null}
]`

func TestLiteLLM(t *testing.T) {
	w := costWorld(t)
	body := fmt.Sprintf(litePayloads, time.Now().Add(-time.Minute).Unix())
	out := w.events(t, "/v1/events?format=litellm", mediaJSON, body, nil).told(t, "consumed", "ignored", "consumed", "quarantined", "refused")
	// The first as in TestConsumeAResponse; LiteLLM's own cost is not the price.
	if out[0].Amount != "0.0825" || *out[0].Source != "litellm" || *out[0].ID != "chatcmpl-1" || out[1].Detail == "" || out[3].code() != "unknown_model" {
		t.Errorf("%v", out)
	}
	w.events(t, "/v1/events?format=litellm&cache_hits=ignore&customer=acme", mediaJSON, body, nil).told(t, "duplicate", "ignored", "ignored", "quarantined", "consumed")
	lines := ""
	for _, p := range []string{"0", "2"} {
		var all []json.RawMessage
		if err := json.Unmarshal([]byte(body), &all); err != nil {
			t.Fatal(err)
		}
		var line bytes.Buffer
		if err := json.Compact(&line, all[p[0]-'0']); err != nil {
			t.Fatal(err)
		}
		lines += line.String() + "\n"
	}
	w.events(t, "/v1/events?format=litellm", mediaNDJSON, lines, nil).told(t, "duplicate", "duplicate")

	// By a meter: what was cached is a line of its own, and the cost stands on the receipt.
	w.admin(t, "POST", "/v1/rate_cards/costs/versions", object{"effective_at": "2020-01-02T00:00:00Z", "document": object{"meters": []object{{"code": "llm_tokens"}}, "rates": []object{
		{"id": "in", "meter": "llm_tokens", "price": "1", "per": "1000", "match": object{"token_type": []string{"input"}}},
		{"id": "cached", "meter": "llm_tokens", "price": "0.1", "per": "1000", "match": object{"token_type": []string{"cache_read"}}},
		{"id": "out", "meter": "llm_tokens", "price": "4", "per": "1000", "match": object{"token_type": []string{"output"}, "model": []string{"gpt-small"}}}}}}).want(t, 201)
	metered := w.events(t, "/v1/events?format=litellm&meter=llm_tokens&source=proxy&receipts=true&dimension.key=metadata.user_api_key_alias", mediaJSON, body, nil).told(t)
	r := metered[0].Receipt
	if metered[0].Outcome != "consumed" || r.Amount != "1.5" || r.Cost.Amount != "0.000012" || r.Dimensions["key"] != "web" || r.Dimensions["model"] != "gpt-small" { // 200 + 100 + 1200 thousandths
		t.Errorf("%v", metered[0])
	}
}

// What may be charged later is kept, visible, and charged once when it can be.
func TestEventsInQuarantine(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	at := now(time.Hour)
	old := now(60 * 24 * time.Hour)
	body := "[" + strings.Join([]string{crd("q1", "newcomer", "3", at), strings.Replace(crd("q2", "acme", "3", at), "{", `{"member":"jane",`, 1), strings.Replace(crd("q3", "acme", "3", at), "CRD", "GOLD", 1),
		`{"source":"app","id":"q4","customer":"acme","time":"` + at + `","meter":"images","quantity":"2"}`, crd("q5", "acme", "3", old), crd("q6", "cus_00000000000000000000000004", "3", at),
		crd("q1", "newcomer", "3", at), crd("q1", "newcomer", "4", at)}, ",") + "]"
	want := []string{"quarantined", "quarantined", "quarantined", "quarantined", "quarantined", "quarantined", "quarantined", "mismatch"}
	first := w.plain(t, body).told(t, want...)
	for i, code := range []string{"customer_not_found", "member_not_found", "unit_not_found", "", "too_old", "customer_not_found"} {
		if q := first[i].Quarantined; code != "" && string(q.Code) != code || q.State != "pending" || first[i].Replayed {
			t.Errorf("%d: %v", i, first[i])
		}
	}
	if first[0].Quarantined.CustomerID != nil || first[0].Quarantined.Customer != "newcomer" || first[4].Quarantined.CustomerID == nil || !first[6].Replayed {
		t.Errorf("%v", first)
	}
	if again := w.plain(t, body).told(t, want...); again[0].Quarantined.ID != first[0].Quarantined.ID || !again[4].Replayed {
		t.Errorf("%v", again)
	}
	if got := w.all(t, "/v1/quarantined_usage?state=pending", func() int { return 2 }); len(got) != 6 || got[0]["idempotency_key"] == "" {
		t.Errorf("%v", got)
	}
	path := func(i int) string { return "/v1/quarantined_usage/" + first[i].Quarantined.ID.String() }

	// The customer comes: the event is charged, once, to it.
	w.admin(t, "POST", path(0)+"/retry", nil).problem(t, 404, credit.CustomerNotFound)
	if got := w.admin(t, "GET", path(0), nil).object(t); got["tries"] != 2.0 || got["customer_id"] != nil {
		t.Errorf("%v", got)
	}
	w.admin(t, "POST", "/v1/customers", object{"name": "New", "legal_entity": "main", "external_id": "newcomer"}).want(t, 201)
	wallet := w.admin(t, "POST", "/v1/wallets", object{"customer": "newcomer", "unit": "CRD", "name": "Main"}).want(t, 201).text(t, "id")
	w.admin(t, "POST", "/v1/grants", object{"wallet": wallet, "type": "granted", "amount": "10"}).want(t, 201)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			w.admin(t, "POST", path(0)+"/retry", nil).want(t, 200)
		})
	}
	all.Wait()
	if got := w.available(t, "newcomer"); got != "7" {
		t.Errorf("%s are available", got)
	}
	w.plain(t, crd("q1", "newcomer", "3", at)).told(t, "duplicate")

	w.admin(t, "POST", "/v1/customers/acme/members", object{"name": "Jane", "external_id": "jane"}).want(t, 201)
	w.admin(t, "POST", path(1)+"/retry", nil).want(t, 200)
	// What is too old is charged as of an instant that somebody names, or not at all.
	w.admin(t, "POST", path(4)+"/retry", nil).problem(t, 422, credit.TooOld)
	w.admin(t, "POST", path(2)+"/retry", object{"service_at": now(0)}).problem(t, 400, credit.InvalidRequest)
	late := w.admin(t, "POST", path(4)+"/retry", object{"service_at": at}).want(t, 200)
	if got := late.text(t, "service_at"); !strings.HasPrefix(got, strings.TrimSuffix(at, "Z")) {
		t.Errorf("served at %s", got)
	}
	// Nobody's event is discarded without a customer.
	w.admin(t, "POST", path(5)+"/discard", object{"reason": "A typing error"}).want(t, 200)
	w.admin(t, "POST", path(5)+"/retry", nil).problem(t, 409, credit.QuarantineState)
	if r := w.plain(t, crd("q6", "cus_00000000000000000000000004", "3", at)).told(t, "quarantined"); r[0].Quarantined.State != "discarded" {
		t.Errorf("%v", r)
	}
	w.admin(t, "POST", path(2)+"/discard", object{"reason": "No such unit"}).want(t, 200)
	if got := w.available(t, "acme"); got != "94" {
		t.Errorf("%s are available", got)
	}
	w.admin(t, "POST", "/v1/quarantined_usage/retry", object{"service_at": at}).problem(t, 400, credit.InvalidRequest)
}

// An event whose key was forgotten is never charged again: it is too old by then, and whoever would charge it finds the operation.
func TestEventsOutliveTheirKeys(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	at := now(33 * 24 * time.Hour)
	first := w.plain(t, crd("k1", "acme", "10", at)).told(t, "consumed")
	held := w.plain(t, strings.Replace(crd("k2", "acme", "10", at), "CRD", "GOLD", 1)).told(t, "quarantined")
	// Two days and forty later the key is gone.
	exec := func(sql string) {
		t.Helper()
		if _, err := w.Store.Pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("DELETE FROM idempotency_keys WHERE digest IN (SELECT encode(substr(sha256(k::bytea), 1, 16), 'hex')::uuid FROM unnest(ARRAY['event/app/k1', 'event/app/k2']) AS k)")
	later := strings.Replace(crd("k1", "acme", "10", at), at, now(75*24*time.Hour), 1) // the same time cannot be older in a test: another shows the same
	kept := w.plain(t, later).told(t, "quarantined")
	if kept[0].code() != "too_old" {
		t.Fatalf("%v", kept)
	}
	a := w.admin(t, "POST", "/v1/quarantined_usage/"+kept[0].Quarantined.ID.String()+"/retry", object{"service_at": now(0)}).want(t, 200)
	if a.text(t, "operation") != first[0].Operation || a.header.Get("Idempotent-Replayed") != "true" || w.available(t, "acme") != "90" {
		t.Errorf("%s", a.body)
	}
	again := w.plain(t, strings.Replace(crd("k2", "acme", "10", at), "CRD", "GOLD", 1)).told(t, "quarantined")
	if again[0].Quarantined.ID != held[0].Quarantined.ID {
		t.Errorf("%v, then %v", held, again)
	}
}

// A stream is answered while it still comes, however long it is and whatever its lines are.
func TestStreamOfEvents(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "1000", nil)
	at := now(0)
	from, to := io.Pipe()
	req, err := http.NewRequest("POST", w.url+"/v1/events", from)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Authorization": {"Bearer " + w.secret["product"]}, "Content-Type": {mediaNDJSON}}
	go func() { fmt.Fprintln(to, crd("s0", "acme", "1", at)) }()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	d := json.NewDecoder(res.Body)
	next := func() (o told) {
		t.Helper()
		if err := d.Decode(&o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	if o := next(); o.Outcome != "consumed" || *o.ID != "s0" {
		t.Errorf("%v", o)
	}
	go func() {
		fmt.Fprint(to, "\r\n", crd("s1", "acme", "1", at), "\r\n", strings.Repeat("x", 3*maxEvent), "\n", "{\n", "\xff\n")
		for i := range 1500 {
			fmt.Fprintln(to, crd(fmt.Sprint("n", i), "acme", "0.1", at))
		}
		fmt.Fprint(to, crd("last", "acme", "1", at)) // without an end
		to.Close()
	}()
	for _, want := range []string{"consumed", "refused", "refused", "refused"} {
		if o := next(); o.Outcome != want {
			t.Errorf("%v", o)
		}
	}
	for i := range 1500 {
		if o := next(); o.Outcome != "consumed" || *o.ID != fmt.Sprint("n", i) {
			t.Fatalf("%d: %v", i, o)
		}
	}
	if o := next(); *o.ID != "last" || d.More() {
		t.Errorf("%v", o)
	}
	if got := w.available(t, "acme"); got != "847" {
		t.Errorf("%s are available", got)
	}
}

// Any division, order and repetition of the same events ends in the same balances and the same operations.
func TestAnyArrivalOfEventsEndsTheSame(t *testing.T) {
	w := newWorld(t)
	customers := []string{"c0", "c1", "c2"}
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		n := rapid.IntRange(1, 40).Draw(rt, "events")
		at := now(0)
		want := map[string]int{}
		ids := map[string]bool{}
		names := make([]string, len(customers))
		for i, c := range customers {
			names[i] = fmt.Sprintf("%s-%d", c, run)
			w.admin(t, "POST", "/v1/customers", object{"name": c, "legal_entity": "main", "external_id": names[i]}).want(t, 201)
			wallet := w.admin(t, "POST", "/v1/wallets", object{"customer": names[i], "unit": "CRD", "name": "Main"}).want(t, 201).text(t, "id")
			w.admin(t, "POST", "/v1/grants", object{"wallet": wallet, "type": "granted", "amount": "1000"}).want(t, 201)
		}
		var sent []string
		for i := range n {
			amount := rapid.IntRange(1, 9).Draw(rt, "amount")
			customer := rapid.SampledFrom(names).Draw(rt, "customer")
			id := fmt.Sprintf("%d-%d", run, i)
			want[customer] += amount
			ids["event/app/"+id] = true
			for range rapid.IntRange(1, 3).Draw(rt, "times") {
				sent = append(sent, crd(id, customer, fmt.Sprint(amount), at))
			}
		}
		sent = rapid.Permutation(sent).Draw(rt, "order")
		var all sync.WaitGroup
		for len(sent) > 0 {
			k := rapid.IntRange(1, len(sent)).Draw(rt, "call")
			part := sent[:k]
			sent = sent[k:]
			if rapid.Bool().Draw(rt, "stream") {
				all.Go(func() { w.events(t, "/v1/events", mediaNDJSON, strings.Join(part, "\n"), nil).told(t) })
			} else {
				all.Go(func() { w.plain(t, "["+strings.Join(part, ",")+"]").told(t) })
			}
		}
		all.Wait()
		for _, c := range names {
			if got := w.available(t, c); got != fmt.Sprint(1000-want[c]) {
				rt.Fatalf("%s has %s, %d were used", c, got, want[c])
			}
		}
		rows, err := w.Store.Pool.Query(t.Context(), "SELECT key FROM operations WHERE key LIKE 'event/app/' || $1::text || '-%'", fmt.Sprint(run))
		if err != nil {
			rt.Fatal(err)
		}
		defer rows.Close()
		done := 0
		for rows.Next() {
			var key string
			if err := rows.Scan(&key); err != nil || !ids[key] {
				rt.Fatalf("%v: operation %s", err, key)
			}
			done++
		}
		if done != n || rows.Err() != nil {
			rt.Fatalf("%d operations of %d events, %v", done, n, rows.Err())
		}
	})
}

// Events of one customer are decided in the order of the call, also beyond what is in flight at once.
func TestOrderOfEvents(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100000", nil)
	var body []string
	at := now(0)
	for i := range 3*maxInFlight + 7 {
		body = append(body, crd(fmt.Sprint(i), "acme", "1", at))
	}
	last := int64(0)
	for i, o := range w.plain(t, "["+strings.Join(body, ",")+"]").told(t) {
		var ver int64
		if _, err := fmt.Sscanf(o.Operation[strings.IndexByte(o.Operation, '/'):], "/%d", &ver); err != nil || ver <= last {
			t.Fatalf("event %d: version %d after %d, %v", i, ver, last, err)
		}
		last = ver
	}
	balancetest.MustConserve(t, w.World, w.customer(t, "acme"))
}

func (w *world) customer(t testing.TB, name string) credit.CustomerID {
	t.Helper()
	id, err := credit.ParseID[credit.CustomerID](w.admin(t, "GET", "/v1/customers/"+name, nil).want(t, 200).text(t, "id"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// FuzzUsageEvents reads anything as events of every form: it never panics, what it refuses says why, and what it accepts can be kept and read again.
func FuzzUsageEvents(f *testing.F) {
	at := "2026-01-31T12:00:00Z"
	f.Add(uint8(0), crd("e", "acme", "1", at))
	f.Add(uint8(0), "["+crd("e", "acme", "1", at)+"]")
	f.Add(uint8(1), `{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"acme","time":"`+at+`","data":{"unit":"CRD","amount":"1"}}`)
	f.Add(uint8(1), `{"specversion":"1.0","id":"1","source":"s","type":"litellm_tokens","subject":"acme","time":"`+at+`","data":{"model":"m","prompt_tokens":1,"completion_tokens":2}}`)
	f.Add(uint8(1), `{"specversion":"1.0","id":"1","source":"s","type":"tallystick.response","provider":"openai","subject":"acme","time":"`+at+`","data":{"usage":{}}}`)
	f.Add(uint8(2), fmt.Sprintf(litePayloads, 1769860800))
	f.Add(uint8(3), fmt.Sprintf(litePayloads, 1769860800))
	f.Fuzz(func(t *testing.T, form uint8, body string) {
		format := &eventsFormat{form: eventForm(min(form%4, 2)), lite: liteMapping{source: "litellm", customers: defaultCustomers, hits: form&4 != 0}}
		if form%4 == 3 {
			format.lite.meter = "tokens"
		}
		texts, err := splitEvents(body, format.form == plainForm)
		if err != nil {
			if credit.CodeOf(err) == "" {
				t.Fatalf("%q: %v is no refusal", body, err)
			}
			texts = []string{body}
		}
		for _, text := range texts {
			e := format.read(text)
			if e.err != nil {
				if credit.CodeOf(e.err) == "" {
					t.Fatalf("%q: %v is no refusal", text, e.err)
				}
				continue
			}
			if e.ignored != "" {
				continue
			}
			if _, err := e.in.eventDigest(); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			doc := e.in.document()
			var r reader
			again := consumption{kept: true}
			if err := readWhole(&r, doc, &again); err != nil {
				t.Fatalf("%q is kept as %q, which is %v", text, doc, err)
			}
			if !again.timestamp.Equal(e.in.timestamp) || again.customer != e.in.customer || len(again.usage) != len(e.in.usage) || again.amount != e.in.amount {
				t.Fatalf("%q is kept as %q", text, doc)
			}
		}
	})
}

// FuzzReadLine divides anything into lines as strings.Split does, but for what is too long.
func FuzzReadLine(f *testing.F) {
	f.Add("a\nb\n\nc", uint16(1))
	f.Add("", uint16(0))
	f.Fuzz(func(t *testing.T, body string, more uint16) {
		body += strings.Repeat("x", int(more)*rand.IntN(64))
		var got []string
		lines := newLines(strings.NewReader(body))
		var long []byte
		for {
			line, room, err := readLine(lines, long[:0])
			long = room
			if len(line) > 0 {
				got = append(got, string(line))
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var want []string
		for line := range strings.Lines(body) {
			want = append(want, line[:min(len(line), maxEvent+1)])
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d lines, not %d", len(got), len(want))
		}
	})
}
