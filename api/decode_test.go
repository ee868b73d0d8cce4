package api

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
)

// TestReaderReadsWhatEncodingJSONWrites holds the reader against encoding/json on documents that are in order.
func TestReaderReadsWhatEncodingJSONWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.MapOfN(rapid.String(), rapid.String(), 0, 20).Draw(t, "words")
		for name, text := range maps.Clone(words) {
			if strings.ContainsRune(name+text, 0) {
				delete(words, name)
			}
		}
		doc, err := json.Marshal(words)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "indent") {
			doc, _ = json.MarshalIndent(words, "\t", " ")
		}
		var r reader
		if err := r.start(string(doc)); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		if err := r.words(got); err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		if err := r.end(); err != nil || !maps.Equal(got, words) {
			t.Fatalf("%s was read as %v; %v", doc, got, err)
		}
	})
}

// FuzzReader holds skip against encoding/json: what the reader takes for JSON is JSON.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{`{}`, `[]`, `{"a":[1,-0.5e+3,"\u00e9\ud83d\ude00",true,false,null]}`, `"\ud800"`, `01`, `1.`, `{"a":1,"a":2}`, `[1,]`, "\"\x1f\"", `"\x"`, `nul`, ` 1 `, strings.Repeat("[", 100)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		var r reader
		err := r.start(doc)
		if err == nil {
			err = r.skip()
		}
		if err == nil {
			err = r.end()
		}
		if err == nil && !json.Valid([]byte(doc)) {
			t.Errorf("%q is taken for JSON", doc)
		}
		if err != nil && credit.CodeOf(err) != credit.InvalidRequest {
			t.Errorf("%q: %v", doc, err)
		}
	})
}

// FuzzConsumption reads anything as a consumption: no panic, refusals only, and what is accepted is JSON that means what was read.
func FuzzConsumption(f *testing.F) {
	for _, seed := range consumptions {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		var r reader
		err := r.start(doc)
		var in consumption
		if err == nil {
			err = in.read(&r, false)
		}
		if err == nil {
			err = r.end()
		}
		if err != nil {
			if code := credit.CodeOf(err); code != credit.InvalidRequest && code != credit.InvalidAmount {
				t.Errorf("%q: %v", doc, err)
			}
			return
		}
		var want struct {
			Customer, Member, Unit, Amount, Meter, Quantity, Reason string
			Dimensions                                              map[string]string
			Partial                                                 bool
			Usage                                                   []struct{ Meter, Quantity string }
		}
		if err := json.Unmarshal([]byte(doc), &want); err != nil {
			t.Fatalf("%q was accepted: %v", doc, err)
		}
		if in.customer != want.Customer || in.member != want.Member || in.unit != want.Unit || in.amount != want.Amount || in.reason != want.Reason || in.partial != want.Partial ||
			!maps.Equal(in.dims, credit.Dimensions(want.Dimensions)) {
			t.Errorf("%q was read as %+v", doc, in)
		}
		if want.Meter != "" {
			want.Usage = append(want.Usage, struct{ Meter, Quantity string }{want.Meter, want.Quantity})
		}
		if len(in.usage) != len(want.Usage) {
			t.Fatalf("%q was read as %+v", doc, in)
		}
		for i, line := range want.Usage {
			exact, err := decimal.NewFromString(line.Quantity)
			if err != nil || !exact.Equal(in.usage[i].Quantity) || in.usage[i].Meter != line.Meter || in.texts[i] != exact.String() {
				t.Errorf("%q was read as %+v; %v", doc, in, err)
			}
		}
	})
}

var consumptions = []string{
	`{"customer":"acme","unit":"CRD","amount":"12.5"}`,
	`{"customer":"acme","member":"jane","timestamp":"2026-01-31T12:00:00.5+01:00","unit":"CRD","amount":"0012.500","partial":true,"reason":"r"}`,
	`{"customer":"acme","meter":"llm_tokens","quantity":"1500","dimensions":{"model":"gpt-4o","token_type":"input"}}`,
	`{"customer":"acme","usage":[{"meter":"a","quantity":"0"},{"meter":"b","quantity":"99999999999999999999.123456789012","dimensions":{"x":"y"}}]}`,
	`{"customer":"\ud83d\ude00","unit":"\u0043RD","amount":"1"}`,
	`{"customer":"acme","unit":"CRD","amount":"1","amount":"2"}`,
	`{"customer":"acme","unit":"CRD","amount":1e400}`,
	`{"customer":"acme","unit":"CRD","amount":"NaN","dimensions":{"a":{"b":[]}}}`,
	"{\"customer\":\"\xff\"}",
	`{"usage":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[`,
}

func TestShortest(t *testing.T) {
	for s, want := range map[string]string{"0": "0", "000": "0", "0.0": "0", "007": "7", "1.50": "1.5", "10": "10", "10.0": "10", "0.5": "0.5", "00.50": "0.5", "100.010": "100.01"} {
		if got := shortest(s); got != want {
			t.Errorf("%s is shortened to %s, not %s", s, got, want)
		}
	}
}

func TestInstants(t *testing.T) {
	for s, ok := range map[string]bool{
		"2026-01-31T12:00:00Z": true, "2026-01-31T12:00:00.123456789+02:00": true, "9999-12-31T23:59:59Z": true, "0001-01-01T00:00:01Z": true,
		"9999-12-31T23:59:59-01:00": false, "0001-01-01T00:00:00Z": false, "0000-12-31T00:00:00Z": false, "2026-01-31 12:00:00Z": false, "2026-01-31": false,
		"2026-02-30T00:00:00Z": false, "2026-01-31T24:00:00Z": false, "": false, "20260131T120000Z": false,
	} {
		if got, is := parseInstant(s); is != ok || ok && got.Location() != time.UTC {
			t.Errorf("%s: %v, %v", s, got, is)
		}
	}
}

// TestStringsAreWrittenAsEncodingJSONWrites holds the hand-written encoder against the library.
func TestStringsAreWrittenAsEncodingJSONWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		want, _ := json.Marshal(s)
		if got := appendString(nil, s); string(got) != string(want) {
			t.Fatalf("%s, not %s", got, want)
		}
	})
}

// TestDigestsTellRequestsApart changes each part of a consumption: every change shows, and what means the same does not.
func TestDigestsTellRequestsApart(t *testing.T) {
	customer := credit.NewID[credit.CustomerID]()
	digest := func(doc string) [16]byte {
		var r reader
		var in consumption
		if err := r.start(doc); err != nil {
			t.Fatal(err)
		}
		if err := in.read(&r, false); err != nil {
			t.Fatal(err)
		}
		op := &balance.Consume{Unit: in.unit}
		if in.amount != "" {
			var err error
			if op.Amount, err = credit.ParseAmount(in.amount, 6); err != nil {
				t.Fatal(err)
			}
		}
		d, err := in.digest(customer, op)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	seen := map[[16]byte]string{}
	for _, doc := range []string{
		`{"customer":"a","unit":"CRD","amount":"1"}`, `{"customer":"a","unit":"CRD","amount":"2"}`, `{"customer":"a","unit":"CRE","amount":"1"}`,
		`{"customer":"a","unit":"CRD","amount":"1","timestamp":"2026-01-01T00:00:00Z"}`, `{"customer":"a","unit":"CRD","amount":"1","partial":true}`,
		`{"customer":"a","unit":"CRD","amount":"1","reason":"r"}`, `{"customer":"a","unit":"CRD","amount":"1","dimensions":{"a":"b"}}`,
		`{"customer":"a","unit":"CRD","amount":"1","dimensions":{"ab":"c"}}`, `{"customer":"a","unit":"CRD","amount":"1","dimensions":{"a":"bc"}}`,
		`{"customer":"a","meter":"m","quantity":"1"}`, `{"customer":"a","meter":"m","quantity":"2"}`, `{"customer":"a","meter":"n","quantity":"1"}`,
		`{"customer":"a","meter":"m","quantity":"1","dimensions":{"a":"b"}}`, `{"customer":"a","usage":[{"meter":"m","quantity":"1","dimensions":{"a":"b"}}]}`,
		`{"customer":"a","usage":[{"meter":"m","quantity":"1"},{"meter":"m","quantity":"1"}]}`,
		`{"customer":"a","meter":"m","quantity":"1","cost":{"amount":"1","currency":"USD"}}`, `{"customer":"a","meter":"m","quantity":"1","cost":{"amount":"1","currency":"EUR"}}`,
		`{"customer":"a","usage":[{"meter":"m","quantity":"1"},{"meter":"m","quantity":"1","cost":{"amount":"1","currency":"USD"}}]}`,
		`{"customer":"a","usage":[{"meter":"m","quantity":"1","cost":{"amount":"1","currency":"USD"}},{"meter":"m","quantity":"1"}]}`,
		`{"customer":"a","meter":"m","quantity":"1","on_unpriced":"quarantine"}`, `{"customer":"a","meter":"m","quantity":"1","on_unpriced":"refuse"}`,
		`{"customer":"a","response":{"provider":"p","usage":{"n":1}}}`, `{"customer":"a","response":{"provider":"q","usage":{"n":1}}}`,
		`{"customer":"a","response":{"provider":"p","usage":{"n":2}}}`, `{"customer":"a","response":{"provider":"p","body":{"n":1}}}`,
		`{"customer":"a","response":{"provider":"p","flavour":"f","usage":{"n":1}}}`, `{"customer":"a","response":{"provider":"p","model":"f","usage":{"n":1}}}`,
	} {
		d := digest(doc)
		if other, ok := seen[d]; ok {
			t.Errorf("%s and %s have one digest", doc, other)
		}
		seen[d] = doc
	}
	for _, pair := range [][2]string{
		{`{"customer":"a","unit":"CRD","amount":"1"}`, `{"amount":"01.0","unit":"CRD","customer":"b","partial":false,"dimensions":{}}`},
		{`{"customer":"a","response":{"provider":"p","usage":{"n":1,"m":[true]}}}`, `{"response":{"usage": {"m":[ true],"\u006e":1},"provider":"p"},"customer":"a"}`},
		{`{"customer":"a","meter":"m","quantity":"1","cost":{"amount":"1.0","currency":"USD"}}`, `{"customer":"a","usage":[{"cost":{"currency":"USD","amount":"01"},"meter":"m","quantity":"1"}]}`},
		{`{"customer":"a","meter":"m","quantity":"1.50"}`, `{"customer":"a","usage":[{"quantity":"01.5","meter":"m"}]}`},
	} {
		if digest(pair[0]) != digest(pair[1]) {
			t.Errorf("%s and %s have two digests", pair[0], pair[1])
		}
	}
}

func TestFieldsNameAllThatIsMissing(t *testing.T) {
	var a, b string
	err := readAll(`{}`, required("a", text(&a, 10)), required("b", text(&b, 10)))
	e, ok := err.(*credit.Error)
	if !ok || !reflect.DeepEqual(e.Issues, []credit.Issue{{Pointer: "/a", Detail: "This field is required."}, {Pointer: "/b", Detail: "This field is required."}}) {
		t.Errorf("%+v", err)
	}
}
