package api

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
)

func TestConsumeAnAmount(t *testing.T) {
	w := newWorld(t)
	grant := w.grant(t, "100", nil)
	a := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "k1",
		body: object{"customer": "acme", "unit": "CRD", "amount": "12.5", "reason": "Image upscaled", "dimensions": object{"model": "m"}}}).want(t, 200)
	if got := a.text(t, "amount"); got != "12.5" {
		t.Errorf("amount %s", got)
	}
	if got := a.text(t, "available"); got != "87.5" {
		t.Errorf("available %s", got)
	}
	if got := w.admin(t, "GET", "/v1/grants/"+grant, nil).text(t, "balance", "consumed"); got != "12.5" {
		t.Errorf("consumed %s", got)
	}
	if a.header.Get("Idempotent-Replayed") != "" || a.header.Get("X-Request-Id") == "" {
		t.Errorf("headers %v", a.header)
	}
}

func TestConsumeReplaysByteForByte(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	id := w.admin(t, "GET", "/v1/customers/acme", nil).text(t, "id")
	first := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "k1",
		body: `{"customer":"acme","unit":"CRD","amount":"12.5","dimensions":{"a":"1","b":"2"}}`}).want(t, 200)
	for _, same := range []string{
		`{"customer":"acme","unit":"CRD","amount":"12.5","dimensions":{"a":"1","b":"2"}}`,
		`{ "dimensions": {"b":"2", "a":"\u0031"}, "amount": "012.500000", "unit": "CRD", "customer": "acme", "partial": false }`,
		fmt.Sprintf(`{"customer":%q,"unit":"CRD","amount":"12.5","dimensions":{"a":"1","b":"2"}}`, id),
	} {
		again := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "k1", body: same}).want(t, 200)
		if !bytes.Equal(again.body, first.body) || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s was answered %s, %v; first %s", same, again.body, again.header, first.body)
		}
	}
	for _, other := range []string{
		`{"customer":"acme","unit":"CRD","amount":"12.6","dimensions":{"a":"1","b":"2"}}`,
		`{"customer":"acme","unit":"CRD","amount":"12.5","dimensions":{"a":"1","b":"3"}}`,
		`{"customer":"acme","unit":"CRD","amount":"12.5","dimensions":{"a":"1","b":"2"},"partial":true}`,
		`{"customer":"acme","unit":"CRD","amount":"12.5","dimensions":{"a":"1","b":"2"},"reason":"r"}`,
		`{"customer":"acme","unit":"CRD","amount":"12.5"}`,
	} {
		w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "k1", body: other}).problem(t, 422, credit.RequestMismatch)
	}
	w.send(t, request{role: "admin", method: "POST", path: "/v1/units", key: "k1", body: object{"code": "X", "name": "X"}}).problem(t, 422, credit.RequestMismatch)
}

func TestDenialIsFinalAndReplaysByteForByte(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "3", nil)
	r := request{role: "product", method: "POST", path: "/v1/consume", key: "k1", body: object{"customer": "acme", "unit": "CRD", "amount": "12.5"}}
	first := w.send(t, r)
	p := first.problem(t, 402, credit.InsufficientCredits)
	if p["balance"] != "3" || p["required"] != "12.5" || p["type"] != "/problems/insufficient_credits" || p["instance"] != p["request_id"] {
		t.Errorf("problem %s", first.body)
	}
	w.grant(t, "100", nil)
	again := w.send(t, r).want(t, 402)
	if !bytes.Equal(again.body, first.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s, %v; first %s", again.body, again.header, first.body)
	}
	if again.header.Get("X-Request-Id") == p["request_id"] {
		t.Error("the repetition has the request id of the first attempt")
	}
	r.key = "k2"
	w.send(t, r).want(t, 200)
}

func TestConsumeAUsage(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	w.rates(t)
	member := w.admin(t, "POST", "/v1/customers/acme/members", object{"name": "Jane", "external_id": "jane"}).want(t, 201).text(t, "id")
	short := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(),
		body: object{"customer": "acme", "meter": "tokens", "quantity": "1000", "dimensions": object{"model": "m"}}}).want(t, 200)
	if short.text(t, "amount") != "2" {
		t.Errorf("%s", short.body)
	}
	long := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(), body: object{
		"customer": "acme", "member": "jane", "timestamp": time.Now().Add(-time.Hour).Format(time.RFC3339), "dimensions": object{"model": "m"},
		"usage": []object{
			{"meter": "tokens", "quantity": "1000"},
			{"meter": "tokens", "quantity": "0.5", "dimensions": object{"model": "n"}},
			{"meter": "images", "quantity": "3"},
		}}}).want(t, 200)
	if long.text(t, "amount") != "14.0005" || long.text(t, "member_id") != member {
		t.Errorf("%s", long.body)
	}
	if lines := long.object(t)["pricing"].([]any)[0].(object)["lines"].([]any); len(lines) != 3 {
		t.Errorf("%s", long.body)
	}
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(),
		body: object{"customer": "acme", "meter": "seconds", "quantity": "1"}}).problem(t, 422, credit.NoRate)
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(),
		body: object{"customer": "acme", "member": "joe", "meter": "images", "quantity": "1"}}).problem(t, 404, credit.MemberNotFound)
	partial := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(),
		body: object{"customer": "acme", "meter": "images", "quantity": "1000", "partial": true}}).want(t, 200)
	if partial.text(t, "amount") != "83.9995" || partial.text(t, "shortfall") != "3916.0005" {
		t.Errorf("%s", partial.body)
	}
}

// rates publishes a default card: tokens 2 credits per thousand for model m and 1 for n, images 4 credits.
func (w *world) rates(t testing.TB) {
	t.Helper()
	w.admin(t, "POST", "/v1/rate_cards", object{"code": "standard", "unit": "CRD", "default": true}).want(t, 201)
	w.admin(t, "POST", "/v1/rate_cards/standard/versions", object{"effective_at": "2020-01-01T00:00:00Z", "document": object{
		"meters": []object{{"code": "tokens"}, {"code": "images"}},
		"rates": []object{
			{"id": "m", "meter": "tokens", "match": object{"model": []string{"m"}}, "price": "2", "per": "1000"},
			{"id": "n", "meter": "tokens", "match": object{"model": []string{"n"}}, "price": "1", "per": "1000"},
			{"id": "i", "meter": "images", "price": "4"},
		}}}).want(t, 201)
}

func TestBatchGivesEachEventItsOutcome(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "10", nil)
	r := request{role: "product", method: "POST", path: "/v1/consume/batch", body: object{"events": []object{
		{"idempotency_key": "b1", "customer": "acme", "unit": "CRD", "amount": "4"},
		{"idempotency_key": "b2", "customer": "acme", "unit": "CRD", "amount": "7"},
		{"idempotency_key": "b3", "customer": "acme", "unit": "CRD", "amount": "-1"},
		{"idempotency_key": "b4", "customer": "nobody", "unit": "CRD", "amount": "1"},
		{"idempotency_key": "b5", "customer": "acme", "unit": "CRD", "amount": "1", "colour": "red"},
		{"idempotency_key": "b1", "customer": "acme", "unit": "CRD", "amount": "4"},
		{"idempotency_key": "b6", "customer": "acme", "unit": "CRD", "amount": "6"},
	}}}
	raw := w.sendUnchecked(t, r)
	type result struct {
		Status   int
		Replayed bool
		Receipt  object
		Problem  object
	}
	results := decodeResults[result](t, raw)
	want := []struct {
		status   int
		replayed bool
		code     any
		pointer  string
	}{{200, false, nil, ""}, {402, false, "insufficient_credits", ""}, {400, false, "invalid_amount", "/events/2/amount"}, {404, false, "customer_not_found", ""},
		{400, false, "invalid_request", "/events/4/colour"}, {200, true, nil, ""}, {200, false, nil, ""}}
	for i, x := range want {
		got := results[i]
		if got.Status != x.status || got.Replayed != x.replayed || got.Problem["code"] != x.code {
			t.Errorf("event %d: %+v, want %+v", i, got, x)
		}
		if x.pointer != "" && got.Problem["errors"].([]any)[0].(object)["pointer"] != x.pointer {
			t.Errorf("event %d: %v", i, got.Problem)
		}
	}
	// A single consumption with the key of an event is the same consumption.
	single := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "b1", body: object{"customer": "acme", "unit": "CRD", "amount": "4.0"}})
	if single.want(t, 200).header.Get("Idempotent-Replayed") != "true" || single.object(t)["operation"] != results[0].Receipt["operation"] {
		t.Errorf("%s", single.body)
	}
	denied := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "b2", body: object{"customer": "acme", "unit": "CRD", "amount": "7"}})
	if denied.problem(t, 402, credit.InsufficientCredits)["request_id"] != results[1].Problem["request_id"] {
		t.Errorf("%s", denied.body)
	}
	for _, body := range []string{`{"events":[]}`, `{}`, `{"events":[{]}`, `{"events":[{"customer":"acme"}],"more":1}`, `[]`} {
		w.send(t, request{role: "product", method: "POST", path: "/v1/consume/batch", body: body}).problem(t, 400, credit.InvalidRequest)
	}
	events := make([]object, maxEvents+1)
	for i := range events {
		events[i] = object{"idempotency_key": fmt.Sprint("many-", i), "customer": "acme", "unit": "CRD", "amount": "0.000001"}
	}
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume/batch", body: object{"events": events}}).problem(t, 400, credit.InvalidRequest)
	w.grant(t, "1", nil)
	for i, got := range decodeResults[result](t, w.send(t, request{role: "product", method: "POST", path: "/v1/consume/batch", body: object{"events": events[:maxEvents]}})) {
		if got.Status != 200 {
			t.Fatalf("event %d: %+v", i, got)
		}
	}
}

func TestParallelCallsWithOneKeyAreOneConsumption(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	var mu sync.Mutex
	fresh := 0
	bodies := map[string]bool{}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			a := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "same", body: object{"customer": "acme", "unit": "CRD", "amount": "1"}})
			mu.Lock()
			defer mu.Unlock()
			bodies[string(a.body)] = true
			if a.status != 200 {
				t.Errorf("%d: %s", a.status, a.body)
			}
			if a.header.Get("Idempotent-Replayed") == "" {
				fresh++
			}
		})
	}
	all.Wait()
	if fresh != 1 || len(bodies) != 1 {
		t.Errorf("%d calls were the first, %d different answers", fresh, len(bodies))
	}
}

// TestConsumeRefusesWhatItCannotMean holds the path against everything malformed: always a 4xx problem, never a change.
func TestConsumeRefusesWhatItCannotMean(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	before := w.admin(t, "GET", "/v1/customers/acme", nil).object(t)["ver"]
	amount := func(a string) string { return `{"customer":"acme","unit":"CRD","amount":` + a + `}` }
	for name, c := range map[string]struct {
		body    string
		status  int
		code    credit.Code
		pointer string
	}{
		"negative":              {amount(`"-1"`), 400, credit.InvalidAmount, "/amount"},
		"zero":                  {amount(`"0"`), 400, credit.InvalidAmount, "/amount"},
		"zero with places":      {amount(`"0.000000"`), 400, credit.InvalidAmount, "/amount"},
		"huge":                  {amount(`"99999999999999999999"`), 400, credit.InvalidAmount, "/amount"},
		"one above the largest": {amount(`"9007199254.740992"`), 400, credit.InvalidAmount, "/amount"},
		"very long":             {amount(`"` + strings.Repeat("1", 1000) + `"`), 400, credit.InvalidAmount, "/amount"},
		"NaN":                   {amount(`NaN`), 400, credit.InvalidRequest, "/amount"},
		"NaN text":              {amount(`"NaN"`), 400, credit.InvalidAmount, "/amount"},
		"infinity":              {amount(`"Infinity"`), 400, credit.InvalidAmount, "/amount"},
		"exponent":              {amount(`"1e3"`), 400, credit.InvalidAmount, "/amount"},
		"hexadecimal":           {amount(`"0x10"`), 400, credit.InvalidAmount, "/amount"},
		"wrong scale":           {amount(`"0.0000001"`), 400, credit.InvalidAmount, "/amount"},
		"number":                {amount(`12.5`), 400, credit.InvalidRequest, "/amount"},
		"null":                  {amount(`null`), 400, credit.InvalidRequest, "/amount"},
		"empty":                 {amount(`""`), 400, credit.InvalidRequest, "/amount"},
		"full-width digits":     {amount(`"１２"`), 400, credit.InvalidAmount, "/amount"},
		"unknown unit":          {`{"customer":"acme","unit":"GOLD","amount":"1"}`, 404, credit.UnitNotFound, ""},
		"unknown customer":      {`{"customer":"nobody","unit":"CRD","amount":"1"}`, 404, credit.CustomerNotFound, ""},
		"unknown id":            {`{"customer":"cus_00000000000000000000000004","unit":"CRD","amount":"1"}`, 404, credit.CustomerNotFound, ""},
		"malformed id":          {`{"customer":"cus_1","unit":"CRD","amount":"1"}`, 400, credit.InvalidID, "/customer"},
		"duplicate field":       {`{"customer":"acme","unit":"CRD","amount":"1","amount":"2"}`, 400, credit.InvalidRequest, "/amount"},
		"duplicate escaped":     {`{"customer":"acme","unit":"CRD","amount":"1","\u0061mount":"2"}`, 400, credit.InvalidRequest, "/amount"},
		"duplicate dimension":   {`{"customer":"acme","unit":"CRD","amount":"1","dimensions":{"a":"1","a":"1"}}`, 400, credit.InvalidRequest, "/dimensions/a"},
		"unknown field":         {`{"customer":"acme","unit":"CRD","amount":"1","ammount":"2"}`, 400, credit.InvalidRequest, "/ammount"},
		"other case":            {`{"Customer":"acme","unit":"CRD","amount":"1"}`, 400, credit.InvalidRequest, "/Customer"},
		"key in the body":       {`{"customer":"acme","unit":"CRD","amount":"1","idempotency_key":"k"}`, 400, credit.InvalidRequest, "/idempotency_key"},
		"invalid UTF-8":         {"{\"customer\":\"ac\xffme\",\"unit\":\"CRD\",\"amount\":\"1\"}", 400, credit.InvalidRequest, ""},
		"lone surrogate":        {`{"customer":"\ud800","unit":"CRD","amount":"1"}`, 400, credit.InvalidRequest, "/customer"},
		"NUL":                   {`{"customer":"a\u0000b","unit":"CRD","amount":"1"}`, 400, credit.InvalidRequest, "/customer"},
		"control character":     {"{\"customer\":\"a\nb\",\"unit\":\"CRD\",\"amount\":\"1\"}", 400, credit.InvalidRequest, "/customer"},
		"line in a reason":      {`{"customer":"acme","unit":"CRD","amount":"1","reason":"a\nb"}`, 400, credit.InvalidRequest, "/reason"},
		"deep nesting":          {strings.Repeat(`{"dimensions":`, 4_000), 400, credit.InvalidRequest, "/dimensions/dimensions"},
		"deep arrays":           {`{"usage":` + strings.Repeat(`[`, 30_000), 400, credit.InvalidRequest, "/usage/0"},
		"two documents":         {amount(`"1"`) + `{}`, 400, credit.InvalidRequest, ""},
		"trailing NUL":          {amount(`"1"`) + "\x00", 400, credit.InvalidRequest, ""},
		"byte order mark":       {"\uFEFF" + amount(`"1"`), 400, credit.InvalidRequest, ""},
		"comment":               {`/**/` + amount(`"1"`), 400, credit.InvalidRequest, ""},
		"trailing comma":        {`{"customer":"acme","unit":"CRD","amount":"1",}`, 400, credit.InvalidRequest, ""},
		"truncated":             {`{"customer":"acme","unit":"CRD","amount":"1"`, 400, credit.InvalidRequest, "/amount"},
		"empty body":            {``, 400, credit.InvalidRequest, ""},
		"array":                 {`[]`, 400, credit.InvalidRequest, ""},
		"null body":             {`null`, 400, credit.InvalidRequest, ""},
		"no form":               {`{"customer":"acme"}`, 400, credit.InvalidRequest, "/amount"},
		"no customer":           {`{"unit":"CRD","amount":"1"}`, 400, credit.InvalidRequest, "/customer"},
		"two forms":             {`{"customer":"acme","unit":"CRD","amount":"1","meter":"m","quantity":"1"}`, 400, credit.InvalidRequest, "/amount"},
		"usage twice":           {`{"customer":"acme","meter":"m","quantity":"1","usage":[{"meter":"m","quantity":"1"}]}`, 400, credit.InvalidRequest, ""},
		"amount without unit":   {`{"customer":"acme","amount":"1"}`, 400, credit.InvalidRequest, "/unit"},
		"meter only":            {`{"customer":"acme","meter":"m"}`, 400, credit.InvalidRequest, "/quantity"},
		"quantity only":         {`{"customer":"acme","quantity":"1"}`, 400, credit.InvalidRequest, "/meter"},
		"negative quantity":     {`{"customer":"acme","meter":"m","quantity":"-1"}`, 400, credit.InvalidAmount, "/quantity"},
		"quantity number":       {`{"customer":"acme","meter":"m","quantity":1}`, 400, credit.InvalidRequest, "/quantity"},
		"long quantity":         {`{"customer":"acme","meter":"m","quantity":"` + strings.Repeat("9", 21) + `"}`, 400, credit.InvalidAmount, "/quantity"},
		"empty usage":           {`{"customer":"acme","usage":[]}`, 400, credit.InvalidRequest, "/usage"},
		"long usage":            {`{"customer":"acme","usage":[` + strings.Repeat(`{"meter":"m","quantity":"1"},`, maxUsage) + `{"meter":"m","quantity":"1"}]}`, 400, credit.InvalidRequest, "/usage/100"},
		"dimension number":      {`{"customer":"acme","unit":"CRD","amount":"1","dimensions":{"a":1}}`, 400, credit.InvalidRequest, "/dimensions/a"},
		"empty dimension":       {`{"customer":"acme","unit":"CRD","amount":"1","dimensions":{"a":""}}`, 400, credit.InvalidRequest, "/dimensions"},
		"long dimension":        {`{"customer":"acme","unit":"CRD","amount":"1","dimensions":{"a":"` + strings.Repeat("x", 129) + `"}}`, 400, credit.InvalidRequest, "/dimensions"},
		"no instant":            {`{"customer":"acme","unit":"CRD","amount":"1","timestamp":"yesterday"}`, 400, credit.InvalidRequest, "/timestamp"},
		"Unix time":             {`{"customer":"acme","unit":"CRD","amount":"1","timestamp":1700000000}`, 400, credit.InvalidRequest, "/timestamp"},
		"day that is not":       {`{"customer":"acme","unit":"CRD","amount":"1","timestamp":"2026-02-30T00:00:00Z"}`, 400, credit.InvalidRequest, "/timestamp"},
		"year 0":                {`{"customer":"acme","unit":"CRD","amount":"1","timestamp":"0000-01-01T00:00:00Z"}`, 400, credit.InvalidRequest, "/timestamp"},
		"year 1":                {`{"customer":"acme","unit":"CRD","amount":"1","timestamp":"0001-01-01T00:00:00Z"}`, 400, credit.InvalidRequest, "/timestamp"},
		"long ago":              {`{"customer":"acme","unit":"CRD","amount":"1","timestamp":"1999-01-01T00:00:00Z"}`, 422, credit.TooOld, ""},
		"far ahead":             {`{"customer":"acme","unit":"CRD","amount":"1","timestamp":"9999-12-31T23:59:59.999999999Z"}`, 422, credit.InFuture, ""},
		"partial text":          {`{"customer":"acme","unit":"CRD","amount":"1","partial":"true"}`, 400, credit.InvalidRequest, "/partial"},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "bad " + name, body: []byte(c.body)}).problem(t, c.status, c.code)
			if c.code != credit.InvalidRequest && c.code != credit.InvalidAmount && c.code != credit.InvalidID {
				return
			}
			pointer := p["errors"].([]any)[0].(object)["pointer"].(string)
			if pointer != c.pointer && !(strings.HasPrefix(name, "deep") && strings.HasPrefix(pointer, c.pointer)) {
				t.Errorf("the pointer is %q, not %q: %v", pointer, c.pointer, p["detail"])
			}
		})
	}
	if after := w.admin(t, "GET", "/v1/customers/acme", nil).object(t)["ver"]; after != before {
		t.Errorf("the customer's version went from %v to %v", before, after)
	}
}

func TestConsumeWantsAKey(t *testing.T) {
	w := newWorld(t)
	body := object{"customer": "acme", "unit": "CRD", "amount": "1"}
	for _, h := range []http.Header{{}, {"Idempotency-Key": {""}}, {"Idempotency-Key": {strings.Repeat("x", 256)}}, {"Idempotency-Key": {"a", "b"}}, {"Idempotency-Key": {"grün"}}} {
		p := w.send(t, request{role: "product", method: "POST", path: "/v1/consume", header: h, body: body}).problem(t, 400, credit.InvalidRequest)
		if p["errors"].([]any)[0].(object)["pointer"] != "Idempotency-Key" {
			t.Errorf("%v: %v", h, p)
		}
	}
	w.grant(t, "10", nil)
	for _, key := range []string{"x", strings.Repeat("x", 255), "~ !\"'{}"} {
		w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: key, body: body}).want(t, 200)
	}
}

func TestFrozenCustomer(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "10", nil)
	freeze := func(frozen bool) {
		if _, err := w.Store.Pool.Exec(t.Context(), "UPDATE customer_heads SET frozen = $1", frozen); err != nil {
			t.Fatal(err)
		}
	}
	freeze(true)
	r := request{role: "product", method: "POST", path: "/v1/consume", key: "k", body: object{"customer": "acme", "unit": "CRD", "amount": "1"}}
	a := w.send(t, r)
	a.problem(t, 503, credit.CustomerFrozen)
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("%v", a.header)
	}
	if got := w.admin(t, "GET", "/v1/customers/acme", nil).object(t)["frozen"]; got != true {
		t.Errorf("frozen is %v", got)
	}
	w.admin(t, "GET", "/v1/customers/acme/balances?consistency=strong", nil).want(t, 200)
	freeze(false)
	w.send(t, r).want(t, 200)
}
