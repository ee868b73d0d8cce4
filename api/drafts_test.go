package api

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	embedded "github.com/tallystick/tallystick/docs"
)

// imageCard is a document in which an image costs so much.
func imageCard(price string) object {
	return object{"meters": []object{{"code": "images"}}, "rates": []object{{"id": "image", "meter": "images", "price": price}}}
}

// The life of a card: draft, faults, replacement, differences, publication, withdrawal.
func TestDrafts(t *testing.T) {
	w := newWorld(t)
	w.admin(t, "POST", "/v1/rate_cards", object{"code": "standard", "unit": "CRD", "default": true}).want(t, 201)
	const drafts = "/v1/rate_cards/standard/drafts"
	w.admin(t, "POST", drafts, object{"document": "text"}).problem(t, 400, credit.InvalidRequest)
	bad := object{"meters": []object{{"code": "images"}}, "rates": []object{{"id": "image", "meter": "image", "price": "-1"}, {"id": "image", "meter": "images", "price": 2}}}
	made := w.admin(t, "POST", drafts, object{"document": bad, "note": "first"}).want(t, 201)
	id := made.text(t, "id")
	draft := drafts + "/" + id
	check := w.admin(t, "GET", draft+"/check", nil).want(t, 200).object(t)
	if check["valid"] != false || len(check["faults"].([]any)) != 4 {
		t.Errorf("%v", check)
	}
	refusal := w.admin(t, "POST", draft+"/publish", nil).problem(t, 400, credit.InvalidRequest)
	if p := refusal["errors"].([]any)[0].(object)["pointer"]; p != "/document/rates/0/price" {
		t.Errorf("%v", p)
	}
	if got := w.admin(t, "GET", "/v1/rate_cards/standard", nil).object(t)["latest_version"]; got != 0.0 {
		t.Errorf("version %v was published", got)
	}
	if got := w.admin(t, "PUT", draft, object{"document": imageCard("2")}).want(t, 200).object(t); got["revision"] != 2.0 || got["note"] != "" {
		t.Errorf("%v", got)
	}
	if check := w.admin(t, "GET", draft+"/check", nil).want(t, 200).object(t); check["valid"] != true {
		t.Errorf("%v", check)
	}
	if got := w.admin(t, "GET", "/v1/rate_cards/standard/diff?draft="+id, nil).want(t, 200).object(t); got["from"] != 0.0 || len(got["changes"].([]any)) != 2 {
		t.Errorf("%v", got)
	}
	stale := w.admin(t, "POST", draft+"/publish", object{"revision": 1}).problem(t, 409, credit.DraftChanged)
	if stale["revision"] != 2.0 {
		t.Errorf("%v", stale)
	}
	r := request{role: "finance", method: "POST", path: draft + "/publish", key: "p", body: object{"revision": 2}}
	first := w.send(t, r).want(t, 201)
	if again := w.send(t, r).want(t, 201); !bytes.Equal(first.body, again.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s, then %s", first.body, again.body)
	}
	w.admin(t, "GET", draft, nil).problem(t, 404, credit.DraftNotFound)
	w.admin(t, "PUT", draft, object{"document": imageCard("2")}).problem(t, 404, credit.DraftNotFound)
	w.admin(t, "DELETE", draft, nil).problem(t, 404, credit.DraftNotFound)
	w.admin(t, "GET", drafts+"/nonsense", nil).problem(t, 400, credit.InvalidID)

	// One for later is published, and withdrawn.
	later := w.admin(t, "POST", drafts, object{"document": imageCard("3")}).want(t, 201).text(t, "id")
	got := w.admin(t, "GET", "/v1/rate_cards/standard/diff?from=1&draft="+later, nil).want(t, 200).object(t)
	if c := got["changes"].([]any); len(c) != 1 || fmt.Sprint(c[0]) != "map[after:3 before:2 kind:changed path:/rates/image/price]" {
		t.Errorf("%v", got)
	}
	w.admin(t, "POST", drafts+"/"+later+"/publish", object{"effective_at": time.Now().Add(time.Hour).Format(time.RFC3339)}).want(t, 201)
	if got := w.admin(t, "GET", "/v1/rate_cards/standard/diff?from=2&to=1", nil).want(t, 200).object(t); len(got["changes"].([]any)) != 1 {
		t.Errorf("%v", got)
	}
	withdraw := func(version string) answer {
		return w.admin(t, "POST", "/v1/rate_cards/standard/versions/"+version+"/withdraw", object{"reason": "wrong"})
	}
	withdraw("1").problem(t, 409, credit.VersionInForce)
	withdraw("9").problem(t, 404, credit.RateCardNotFound)
	if got := withdraw("2").want(t, 200); got.text(t, "withdrawn", "reason") != "wrong" {
		t.Errorf("%s", got.body)
	}
	withdraw("2").problem(t, 409, credit.AlreadyExists)
	if got := w.admin(t, "GET", "/v1/rate_cards/standard/versions", nil).data(t); len(got) != 2 || got[0]["withdrawn"] == nil || got[1]["withdrawn"] != nil {
		t.Errorf("%v", got)
	}
	for _, q := range []string{"", "?from=1", "?to=1&draft=" + id, "?to=x", "?to=0"} {
		w.admin(t, "GET", "/v1/rate_cards/standard/diff"+q, nil).want(t, 400)
	}
	w.admin(t, "GET", "/v1/rate_cards/standard/diff?to=7", nil).problem(t, 404, credit.RateCardNotFound)

	gone := w.admin(t, "POST", drafts, object{"document": imageCard("4")}).want(t, 201).text(t, "id")
	if list := w.all(t, drafts, func() int { return 1 }); len(list) != 1 || list[0]["id"] != gone {
		t.Errorf("%v", list)
	}
	w.admin(t, "POST", "/v1/rate_cards", object{"code": "other", "unit": "CRD"}).want(t, 201)
	w.admin(t, "GET", "/v1/rate_cards/other/drafts/"+gone, nil).problem(t, 404, credit.DraftNotFound)
	w.admin(t, "DELETE", drafts+"/"+gone, nil).want(t, 200)
	actions := map[string]int{}
	for _, row := range w.all(t, "/v1/audit", func() int { return 100 }) {
		actions[row["action"].(string)]++
	}
	for action, n := range map[string]int{"create_draft": 3, "replace_draft": 1, "publish_rate_card": 2, "withdraw_rate_card": 1, "delete_draft": 1} {
		if actions[action] != n {
			t.Errorf("the audit has %d of %s", actions[action], action)
		}
	}
}

func TestAssignmentsAndQuotes(t *testing.T) {
	w := newWorld(t)
	for code, price := range map[string]string{"standard": "2", "deal": "1.5"} {
		w.admin(t, "POST", "/v1/rate_cards", object{"code": code, "unit": "CRD", "default": code == "standard"}).want(t, 201)
		w.admin(t, "POST", "/v1/rate_cards/"+code+"/versions", object{"document": imageCard(price), "effective_at": "2026-01-01T00:00:00Z"}).want(t, 201)
	}
	w.grant(t, "10", nil)
	quote := func(body object) answer {
		body["customer"] = "acme"
		return w.send(t, request{role: "product", method: "POST", path: "/v1/quote", body: body})
	}
	if got := quote(object{"meter": "images", "quantity": "2"}).want(t, 200); got.text(t, "amount") != "4" || got.text(t, "available") != "6" {
		t.Errorf("%s", got.body)
	}
	const list = "/v1/customers/acme/rate_card_assignments"
	made := w.admin(t, "POST", list, object{"rate_card": "deal", "reason": "contract"}).want(t, 201)
	if got := quote(object{"meter": "images", "quantity": "2", "maximum": "20"}).want(t, 200); got.text(t, "amount") != "3" ||
		got.text(t, "maximum", "amount") != "10" || got.text(t, "maximum", "shortfall") != "20" {
		t.Errorf("%s", got.body)
	}
	if got := quote(object{"usage": []object{{"meter": "images", "quantity": "1"}, {"meter": "images", "quantity": "1", "maximum": "3"}}}).want(t, 200); got.text(t, "amount") != "3" ||
		got.text(t, "maximum", "amount") != "6" {
		t.Errorf("%s", got.body)
	}
	if got := quote(object{"unit": "CRD", "amount": "4"}).want(t, 200); got.text(t, "available") != "6" {
		t.Errorf("%s", got.body)
	}
	quote(object{"meter": "images", "quantity": "20"}).problem(t, 402, credit.InsufficientCredits)
	quote(object{"meter": "songs", "quantity": "2"}).problem(t, 422, credit.NoRate)
	for _, bad := range []object{{"meter": "images", "quantity": "2", "maximum": "1"}, {"unit": "CRD", "amount": "4", "maximum": "5"}, {"usage": []object{{"meter": "images", "quantity": "2", "maximum": "1"}}},
		{"usage": []object{{"meter": "images", "quantity": "2"}}, "maximum": "3"}} {
		bad["customer"] = "acme"
		if got := w.sendAsIs(t, "/v1/quote", bad); got.status != 400 {
			t.Errorf("%v: %s", bad, got.body)
		}
	}
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(), body: object{"customer": "acme", "meter": "images", "quantity": "2", "maximum": "3"}}).problem(t, 400, credit.InvalidRequest)

	w.admin(t, "POST", list, object{"rate_card": "standard", "reason": "again"}).problem(t, 409, credit.AssignmentOverlaps)
	w.admin(t, "POST", list, object{"rate_card": "gold", "reason": "again"}).problem(t, 404, credit.RateCardNotFound)
	w.admin(t, "POST", list, object{"rate_card": "deal", "reason": "x", "valid_from": "2030-01-01T00:00:00Z", "valid_to": "2030-01-01T00:00:00Z"}).problem(t, 400, credit.InvalidRequest)
	end := list + "/" + made.text(t, "id") + "/end"
	r := request{role: "support", method: "POST", path: end, key: "end", body: object{"reason": "over"}}
	first := w.send(t, r).want(t, 200)
	if again := w.send(t, r).want(t, 200); !bytes.Equal(first.body, again.body) {
		t.Errorf("%s, then %s", first.body, again.body)
	}
	w.admin(t, "POST", end, object{"reason": "over"}).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "POST", list+"/asg_00000000000000000000000004/end", object{"reason": "over"}).problem(t, 404, credit.AssignmentNotFound)
	rows := w.all(t, list, func() int { return 1 })
	if len(rows) != 1 || rows[0]["valid_to"] == nil || rows[0]["reason"] != "contract" || rows[0]["assigned_by"] == "system" {
		t.Errorf("%v", rows)
	}
	if got := quote(object{"meter": "images", "quantity": "2"}).want(t, 200); got.text(t, "amount") != "4" {
		t.Errorf("%s", got.body)
	}
}

// sendAsIs sends a body that the description may admit although the program does not.
func (w *world) sendAsIs(t testing.TB, path string, body any) answer {
	return w.sendUnchecked(t, request{role: "product", method: "POST", path: path, body: body})
}

func TestFXRates(t *testing.T) {
	w := newWorld(t)
	today := time.Now().UTC().Format(time.DateOnly)
	upload := func(key, query, file string) answer {
		return w.send(t, request{role: "finance", method: "POST", path: "/v1/fx_rates/import" + query, key: key, body: file, header: http.Header{"Content-Type": {"text/csv"}}})
	}
	file := "Date,USD,JPY,\n" + today + ",1.08,160,\n"
	first := upload("a", "", file).want(t, 201)
	if got := first.object(t); got["source"] != "ecb" || got["added"] != 2.0 || got["first"] != today {
		t.Errorf("%v", got)
	}
	if again := upload("a", "", file).want(t, 201); !bytes.Equal(first.body, again.body) {
		t.Errorf("%s", again.body)
	}
	upload("a", "?source=bank", file).problem(t, 422, credit.RequestMismatch)
	if got := upload("b", "", file).want(t, 201).object(t); got["added"] != 0.0 {
		t.Errorf("%v", got)
	}
	bad := upload("c", "", "Date,USD\n"+today+",x\n").problem(t, 400, credit.InvalidRequest)
	if p := bad["errors"].([]any)[0].(object)["pointer"]; p != "line 2, column 12" {
		t.Errorf("%v", p)
	}
	upload("d", "?source=Bank", file).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "POST", "/v1/fx_rates/import", object{}).problem(t, 415, credit.UnsupportedMedia)

	look := func(query string) answer { return w.admin(t, "GET", "/v1/fx_rates/lookup?"+query, nil) }
	if got := look("from=USD&to=JPY").want(t, 200); got.text(t, "rate") != "148.148148148148" || got.text(t, "path") != "cross" || len(got.object(t)["quotes"].([]any)) != 2 {
		t.Errorf("%s", got.body)
	}
	entered := w.admin(t, "POST", "/v1/fx_rates", object{"from": "EUR", "to": "USD", "on": today, "rate": "1.10", "source": "ecb"}).want(t, 201)
	if entered.object(t)["version"] != 2.0 || entered.text(t, "rate") != "1.1" {
		t.Errorf("%s", entered.body)
	}
	if got := look("from=EUR&to=USD").want(t, 200); got.text(t, "rate") != "1.1" || got.text(t, "path") != "direct" {
		t.Errorf("%s", got.body)
	}
	look("from=EUR&to=CHF").problem(t, 422, credit.NoFXRate)
	w.admin(t, "POST", "/v1/fx_rates", object{"from": "EUR", "to": "USD", "on": today, "rate": "1.1", "source": "ecb"}).problem(t, 409, credit.AlreadyExists)
	for _, bad := range []object{{"from": "EUR", "to": "EUR", "on": today, "rate": "1"}, {"from": "EUR", "to": "USD", "on": "today", "rate": "1"}, {"from": "EUR", "to": "USD", "on": today, "rate": "0"},
		{"from": "eur", "to": "USD", "on": today, "rate": "1"}} {
		if got := w.admin(t, "POST", "/v1/fx_rates", bad); got.status != 400 {
			t.Errorf("%v: %s", bad, got.body)
		}
	}
	for _, bad := range []string{"from=EUR", "from=EUR&to=us", "from=EUR&to=USD&at=2020-01-01T00:00:00Z"} {
		look(bad).want(t, 400)
	}
	if got := w.all(t, "/v1/fx_rates?source=ecb&from=EUR&to=USD", func() int { return 1 }); len(got) != 2 || got[0]["version"] != 2.0 {
		t.Errorf("%v", got)
	}
}

// The schema for editors accepts what Parse accepts, and refuses what it can of the rest.
func TestRateCardSchema(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(embedded.RateCardSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	const url = "https://tallystick.test/rate-card.schema.json"
	if err := c.AddResource(url, doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile(url)
	if err != nil {
		t.Fatal(err)
	}
	const meter = `{"code":"m"}`
	of := func(meters, rates string) string { return `{"meters":[` + meters + `],"rates":[` + rates + `]}` }
	rate := func(more string) string { return `{"id":"r","meter":"m","price":"1"` + more + `}` }
	for text, want := range map[string]struct{ parse, schema bool }{
		of("", ""):          {true, true},
		of(meter, rate("")): {true, true},
		of(`{"code":"m","aggregation":"sum","description":"x"}`, rate(`,"match":{"model":["a","b"]},"model":"per_unit","per":"0.5"`)): {true, true},
		of(meter, `{"id":"A.1:/@+-_","meter":"m","price":"12345678901234567890.123456789012"}`):                                       {true, true},
		`{"meters":[]}`: {}, `{"rates":[]}`: {}, `[]`: {},
		`{"meters":[],"rates":[],"more":1}`:                                                   {},
		of(`{"code":"M"}`, ""):                                                                {},
		of(`{"code":"m","aggregation":"median"}`, ""):                                         {},
		of(`{"code":"m","extra":true}`, ""):                                                   {},
		of(meter, `{"id":"r","meter":"m"}`):                                                   {},
		of(meter, `{"id":"r","meter":"m","price":1}`):                                         {},
		of(meter, `{"id":"r","meter":"m","price":"-1"}`):                                      {},
		of(meter, `{"id":"r","meter":"m","price":"1e3"}`):                                     {},
		of(meter, `{"id":"r","meter":"m","price":"1.0000000000001"}`):                         {},
		of(meter, `{"id":"-r","meter":"m","price":"1"}`):                                      {},
		of(meter, rate(`,"per":"0"`)):                                                         {},
		of(meter, rate(`,"per":"0.00"`)):                                                      {},
		of(meter, rate(`,"model":"free"`)):                                                    {},
		of(meter, rate(`,"match":{"model":[]}`)):                                              {},
		of(meter, rate(`,"match":{"model":["a","a"]}`)):                                       {},
		of(meter, rate(`,"match":{"model":"a"}`)):                                             {},
		of(meter, rate(`,"tiers":[]`)):                                                        {},
		of(`{"code":"m","aggregation":"max","period":"month"}`, rate("")):                     {true, true},
		of(`{"code":"m","aggregation":"unique","unique_by":"user","period":"day"}`, rate("")): {true, true},
		of(`{"code":"m","aggregation":"max"}`, ""):                                            {},
		of(`{"code":"m","aggregation":"unique","period":"day"}`, ""):                          {},
		of(`{"code":"m","period":"day"}`, ""):                                                 {},
		of(meter, `{"id":"r","meter":"m","model":"graduated","over":"month","free":"5","counter":"c","tiers":[{"up_to":"10","price":"2"},{"price":"1","per":"2","flat":"3"}]}`): {true, true},
		of(meter, `{"id":"r","meter":"m","model":"volume","tiers":[{"price":"1"}],"minimum":"1","maximum":"2"}`):                                                                {true, true},
		of(meter, `{"id":"r","meter":"m","model":"volume"}`):                                             {},
		of(meter, `{"id":"r","meter":"m","model":"volume","price":"1","tiers":[{"price":"1"}]}`):         {},
		of(meter, `{"id":"r","meter":"m","model":"volume","tiers":[{"up_to":"1","price":"1"}]}`):         {false, true}, // the last has no end: a schema cannot tell
		of(meter, rate(`,"model":"package","per":"15","over":"day"`)):                                    {true, true},
		of(meter, rate(`,"when":[{"days":["mon","sun"],"from":"22:00","to":"06:30"},{"days":["tue"]}]`)): {true, true},
		of(meter, rate(`,"when":[]`)):                    {},
		of(meter, rate(`,"when":[{"from":"24:00"}]`)):    {},
		of(meter, rate(`,"when":[{"days":["monday"]}]`)): {},
		of(meter, rate(`,"over":"decade"`)):              {},
		of(meter, rate(`,"percent":"5"`)):                {},
		`{"credit_value":{"price":"0.01","currency":"USD"},"time_zone":"Europe/Berlin","rounding":"carry","extends":{"card":"standard","version":3},"meters":[{"code":"m"}],"rates":[` +
			`{"id":"c","meter":"m","model":"cost_plus","percent":"30","match":{"a":["b"]}},{"id":"e","meter":"m","price":"2","currency":"EUR"}]}`: {true, true},
		`{"meters":[{"code":"m"}],"rates":[],"matrices":[{"id":"i","meter":"m","dimensions":["a","b"],"per":"2","prices":{"x":{"y":"1","z":"2"}}}]}`: {true, true},
		`{"meters":[{"code":"m"}],"rates":[],"matrices":[{"id":"i","meter":"m","dimensions":["a"],"prices":{}}]}`:                                    {},
		`{"meters":[],"rates":[],"rounding":"up"}`:                       {},
		`{"meters":[],"rates":[],"extends":""}`:                          {},
		`{"meters":[],"rates":[],"time_zone":"Mars"}`:                    {false, true}, // nor which zones there are
		of(meter, `{"id":"r","meter":"m","price":"1","currency":"EUR"}`): {false, true}, // nor that there must be a credit value
		of("", rate("")):                 {false, true}, // which meters there are, a schema cannot tell
		of(meter, rate("")+","+rate("")): {false, true}, // nor that ids are different
		of(meter, rate("")+`,{"id":"s","meter":"m","price":"1"}`): {false, true}, // nor that two rates are for one usage
	} {
		_, err := rating.Parse([]byte(text))
		if (err == nil) != want.parse {
			t.Errorf("Parse of %s: %v", text, err)
		}
		v, uerr := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(text)))
		if uerr != nil {
			t.Fatal(uerr)
		}
		if serr := schema.Validate(v); (serr == nil) != want.schema {
			t.Errorf("the schema of %s: %v", text, serr)
		}
	}
	w := newWorld(t)
	if got := w.send(t, request{method: "GET", path: "/rate-card.schema.json"}).want(t, 200); !bytes.Equal(got.body, embedded.RateCardSchema) {
		t.Error("another schema is served")
	}
}
