package ratecard_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/ratecard"
)

const good = `# what models cost
meters:
  - code: llm_tokens
    description: Tokens
rates:
  - id: in
    meter: llm_tokens
    match: &chat
      model: [gpt-4o, "gpt-5"]
    price: "2.5"
    per: "1000000"
  - {id: all, meter: llm_tokens, price: '5', per: '1000000'}
`

func TestParse(t *testing.T) {
	f, faults := ratecard.Parse([]byte(good))
	if faults != nil || len(f.Document.Rates) != 2 || len(f.Document.Rates[0].Match["model"]) != 2 || f.Document.Rates[0].Price.String() != "2.5" {
		t.Fatalf("%+v, %v", f, faults)
	}
	again, faults := ratecard.Parse(f.JSON)
	if changes, err := ratecard.Diff(f.JSON, again.JSON); faults != nil || err != nil || changes != nil {
		t.Errorf("%v %v %v", changes, err, faults)
	}
	aliases := strings.Replace(good, "{id: all, meter: llm_tokens,", "{id: all, meter: llm_tokens, match: *chat, model: per_unit,", 1)
	if _, faults := ratecard.Parse([]byte(aliases)); len(faults) != 1 || !strings.Contains(faults[0].Detail, "equally specific") || faults[0].Line != 12 {
		t.Errorf("%v", faults) // the alias was followed: both rates are for the same now
	}
	for text, want := range map[string][]string{
		"":        {"1:1: "},
		"{":       {"1:1: "},
		"a: b: c": {"The file is neither"},
		"- 1":     {"1:1: "},
		"text":    {"1:1: "},
		"meters: []\nrates: []\n---\nmeters: []\n": {"3:1: "},
		"meters: []\n":                        {"1:1: /rates"},
		"meters: []\nrates: []\nmore: 1\n":    {"3:7: /more"},
		"meters: []\nmeters: []\nrates: []\n": {"2:1: /meters: The field is given twice; it is also on line 1."},
		"meters: [{code: m}]\nrates:\n  - id: r\n    meter: m\n    price: 2.5\n":                                                      {"5:12: /rates/0/price: This must be a string"},
		"meters: [{code: m}]\nrates:\n  - id: r\n    meter: m\n":                                                                      {"3:5: /rates/0/price: The field is missing."},
		"meters: [{code: M}]\nrates:\n  - id: r\n    meter: x y\n    price: \"-1\"\n":                                                 {"1:17: /meters/0/code", "4:12: /rates/0/meter", "5:12: /rates/0/price"},
		"meters: [{code: m}]\nrates:\n  - id: r\n    meter: m\n    price: \"1\"\n    match:\n      a: [x]\n      a: [y]\n":            {"8:7: /rates/0/match/a: The field is given twice"},
		"meters: [{code: m}]\nrates:\n  - id: r\n    meter: m\n    price: \"1\"\n    match:\n      a:\n        - x\n        - true\n": {"9:11: /rates/0/match/a/1: This must be a string."},
		"meters: [{code: m}]\nrates: [{<<: {id: r}, meter: m, price: '1'}]\n":                                                         {"2:10: /rates/0: A name is plain text"},
		"meters: !thing []\nrates: []\n":          {"1:9: "},
		"meters: [{code: !thing m}]\nrates: []\n": {"1:17: /meters/0/code: The tag"},
		"a: &a [*a]\n": {"1:"},
		"{\"meters\": [],\n \"rates\": [{\"id\": \"r\",\n\t\"meter\": \"m\", \"price\": 1}]}": {"3:11: /rates/0/meter", "3:25: /rates/0/price"},
		"{\"meters\": [{\"code\": \"ä\"}, {\"code\": 7}],\n \"rates\": [], \"rates\": []}":    {"1:22: /meters/0/code", "1:37: /meters/1/code", "2:24: /rates"},
	} {
		f, faults := ratecard.Parse([]byte(text))
		ok := f == nil && len(faults) == len(want)
		for i := 0; ok && i < len(want); i++ {
			ok = strings.HasPrefix(faults[i].String(), want[i])
		}
		if !ok {
			t.Errorf("%q: %v, not %q", text, faults, want)
		}
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'j'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c,*%[3]c]\n", c, c, c-1)
	}
	if _, faults := ratecard.Parse([]byte(bomb)); len(faults) == 0 {
		t.Error("a file of a thousand million values is read")
	}
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{`{}`, `{}`, ``},
		{`{"a":1}`, `{"a":1.0}`, `changed /a 1 1.0`},
		{`{"rates":[{"id":"a","price":"1"},{"id":"b","price":"2"}]}`, `{"rates":[{"id":"b","price":"3"},{"id":"a","price":"1"},{"id":"c/d","price":"4"}]}`,
			`changed /rates/b/price "2" "3"; added /rates/c~1d  {"id":"c/d","price":"4"}`},
		{`{"meters":[{"code":"m"}]}`, `{"meters":[]}`, `removed /meters/m {"code":"m"} `},
		{`{"rates":[{"id":"a","match":{"x":["1","2"]}}]}`, `{"rates":[{"id":"a","match":{"x":["2","1"],"y":["3"]}}]}`, `added /rates/a/match/y  ["3"]`},
		{`{"t":[{"up_to":"1"},{"up_to":"2"}]}`, `{"t":[{"up_to":"1"}]}`, `changed /t [{"up_to":"1"},{"up_to":"2"}] [{"up_to":"1"}]`},
		{`{"l":[{"id":"a"},{"id":"a"}]}`, `{"l":[]}`, `changed /l [{"id":"a"},{"id":"a"}] []`},
		{`{"a":null}`, `{}`, `removed /a null `},
	} {
		changes, err := ratecard.Diff([]byte(c.before), []byte(c.after))
		var got []string
		for _, ch := range changes {
			got = append(got, fmt.Sprintf("%s %s %s %s", ch.Kind, ch.Path, ch.Before, ch.After))
		}
		if err != nil || strings.Join(got, "; ") != c.want {
			t.Errorf("%s to %s: %v, %q", c.before, c.after, err, strings.Join(got, "; "))
		}
	}
	if _, err := ratecard.Diff([]byte(`{`), []byte(`{}`)); err == nil {
		t.Error("half a document is compared")
	}
}

// A document differs from itself in nothing, and what one way adds, the other removes.
func TestDiffIsMirrored(t *testing.T) {
	doc := func(t *rapid.T, label string) []byte {
		var rates []map[string]any
		for _, id := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), rapid.ID[string]).Draw(t, label) {
			rates = append(rates, map[string]any{"id": id, "price": rapid.SampledFrom([]string{"1", "2"}).Draw(t, label+id), "match": map[string]any{"x": rapid.Permutation([]string{"p", "q"}).Draw(t, label+"m"+id)}})
		}
		b, err := json.Marshal(map[string]any{"rates": rates})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rapid.Check(t, func(t *rapid.T) {
		before, after := doc(t, "before"), doc(t, "after")
		if same, err := ratecard.Diff(before, before); err != nil || same != nil {
			t.Fatalf("%v %v", same, err)
		}
		there, err := ratecard.Diff(before, after)
		back, berr := ratecard.Diff(after, before)
		if err != nil || berr != nil || len(there) != len(back) {
			t.Fatalf("%v %v, %v %v", there, err, back, berr)
		}
		opposite := map[string]string{ratecard.Added: ratecard.Removed, ratecard.Removed: ratecard.Added, ratecard.Changed: ratecard.Changed}
		for i, c := range there {
			if b := back[i]; b.Path != c.Path || b.Kind != opposite[c.Kind] || string(b.Before) != string(c.After) || string(b.After) != string(c.Before) {
				t.Fatalf("%+v, back %+v", c, b)
			}
		}
	})
}

// Whatever a file is, it is read or has faults within it.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"meters":[{"code":"m"}],"rates":[{"id":"r","meter":"m","price":"1"}]}`))
	f.Add([]byte("a: &a [*a, {? b : c}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, faults := ratecard.Parse(text)
		if (file == nil) == (len(faults) == 0) {
			t.Fatalf("%v, %v", file, faults)
		}
		lines := strings.Count(string(text), "\n") + 1
		for _, fault := range faults {
			if fault.Line < 0 || fault.Line > lines+1 || fault.Detail == "" {
				t.Fatalf("%+v in %d lines", fault, lines)
			}
		}
		if file != nil {
			if _, err := rating.Parse(file.JSON); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The sums below were made by hand.
func TestSimulate(t *testing.T) {
	f, faults := ratecard.Parse([]byte(good))
	if faults != nil {
		t.Fatal(faults)
	}
	usage := "timestamp,meter,quantity,model\n2026-01-31T12:00:00Z,llm_tokens,1200000,gpt-4o\n,llm_tokens,1,other\n,images,1,\n"
	s, err := ratecard.NewSimulator(f.Document, 6, 1)
	if err != nil {
		t.Fatal(err)
	}
	for u, err := range ratecard.ReadUsage(strings.NewReader(usage), time.Now()) {
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Add(u); err != nil {
			t.Fatal(err)
		}
	}
	ndjson := `{"customer":"acme","idempotency_key":"1","dimensions":{"model":"gpt-5"},"usage":[{"meter":"llm_tokens","quantity":"400000"},{"meter":"llm_tokens","quantity":"200000","dimensions":{"model":"x"}}]}` +
		"\n\n" + `{"meter":"llm_tokens","quantity":"1000000"}`
	for u, err := range ratecard.ReadUsage(strings.NewReader(ndjson), time.Now()) {
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Add(u); err != nil {
			t.Fatal(err)
		}
	}
	r := s.Result()
	// 3 + 0.000005 + (1 + 1) + 5
	if r.Events != 4 || r.Total.Format(6) != "10.000005" || len(r.Lines) != 1 || len(r.Refused) != 1 {
		t.Errorf("%+v", r)
	}
	if in, all := r.Rates["in"], r.Rates["all"]; in.Lines != 2 || !in.Credits.Equal(decimal.RequireFromString("4")) || all.Lines != 3 || !all.Credits.Equal(decimal.RequireFromString("6.000005")) {
		t.Errorf("%+v %+v", in, all)
	}
	for _, bad := range []string{"meter\nx\n", "meter,quantity\nllm_tokens,much\n", "meter,quantity\nllm_tokens\n", "timestamp,meter,quantity\nnow,m,1\n", `{"meter":"m"}`, `{"quantity":"1"}`, `{}`,
		`{"meter":"m","quantity":"1","modle":"x"}`, `{"meter":"m","quantity":"1"`} {
		var failed error
		for _, err := range ratecard.ReadUsage(strings.NewReader(bad), time.Now()) {
			failed = err
		}
		if failed == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// What is invented has a price under the card that it is invented for, and is the same for the same seed.
func TestSynthetic(t *testing.T) {
	f, _ := ratecard.Parse([]byte(good))
	total := func(seed uint64) credit.Amount {
		s, err := ratecard.NewSimulator(f.Document, 6, 0)
		if err != nil {
			t.Fatal(err)
		}
		for u := range ratecard.Synthetic(f.Document, seed, 200, time.Now()) {
			if err := s.Add(u); err != nil {
				t.Fatal(err)
			}
		}
		if r := s.Result(); r.Events != 200 || len(r.Refused) != 0 || len(r.Rates) != 2 {
			t.Errorf("%+v", r)
		}
		return s.Result().Total
	}
	if a, b := total(1), total(1); a != b || a == total(2) {
		t.Errorf("%d, %d, %d", a, b, total(2))
	}
}
