package rating_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

const example = `{
  "meters": [
    {"code": "llm_tokens", "aggregation": "sum", "description": "Tokens, by type"},
    {"code": "images"}, {"code": "gpu_seconds"}, {"code": "calls"}
  ],
  "rates": [
    {"id": "gpt4o-in", "meter": "llm_tokens", "match": {"model": ["gpt-4o"], "token_type": ["input"]}, "price": "2.5", "per": "1000000"},
    {"id": "gpt4o-out", "meter": "llm_tokens", "match": {"model": ["gpt-4o"], "token_type": ["output"]}, "price": "10", "per": "1000000"},
    {"id": "gpt4o-in-batch", "meter": "llm_tokens", "match": {"model": ["gpt-4o"], "token_type": ["input"], "tier": ["batch"]}, "price": "1.25", "per": "1000000"},
    {"id": "small-in", "meter": "llm_tokens", "match": {"model": ["gpt-4o-mini", "haiku"], "token_type": ["input", "cache_read"]}, "model": "per_unit", "price": "0.15", "per": "1000000"},
    {"id": "llm", "meter": "llm_tokens", "match": {}, "price": "5", "per": "1000000"},
    {"id": "image-hd", "meter": "images", "match": {"resolution": ["1024x1024", "2048x2048"]}, "price": "0.08"},
    {"id": "image", "meter": "images", "price": "0.04"},
    {"id": "h100", "meter": "gpu_seconds", "match": {"gpu": ["h100"]}, "price": "1.99", "per": "3600"},
    {"id": "call", "meter": "calls", "price": "0"}
  ]
}`

// everything has each field of a document at least once.
const everything = `{"time_zone": "Europe/Berlin", "credit_value": {"price": "0.01", "currency": "USD"}, "rounding": "carry",
  "meters": [{"code": "calls"}, {"code": "events", "aggregation": "count"}, {"code": "seats", "aggregation": "max", "period": "month"},
    {"code": "users", "aggregation": "unique", "unique_by": "user", "period": "day"}, {"code": "images"}],
  "rates": [
    {"id": "a", "meter": "calls", "model": "graduated", "over": "month", "counter": "c", "free": "5", "tiers": [{"up_to": "10", "price": "2", "per": "3", "flat": "1"}, {"price": "1"}]},
    {"id": "b", "meter": "calls", "model": "package", "price": "2", "per": "10", "match": {"a": ["x"]}, "minimum": "1", "maximum": "9"},
    {"id": "c", "meter": "calls", "price": "2", "currency": "USD", "match": {"a": ["x"]}, "when": [{"days": ["mon", "sun"], "from": "22:00", "to": "06:00"}]},
    {"id": "d", "meter": "events", "price": "2", "per": "7"},
    {"id": "e", "meter": "seats", "model": "volume", "tiers": [{"up_to": "3", "price": "4"}, {"price": "1"}]},
    {"id": "f", "meter": "users", "price": "3"},
    {"id": "g", "meter": "images", "model": "cost_plus", "percent": "12.5"}],
  "matrices": [{"id": "images", "meter": "images", "dimensions": ["size", "quality"], "per": "2", "match": {"m": ["n"]}, "currency": "EUR", "prices": {"large": {"hd": "3", "sd": "1"}}}]}`

func TestParse(t *testing.T) {
	d, err := rating.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Meters) != 4 || d.Meters[0] != (rating.Meter{Code: "llm_tokens", Aggregation: rating.Sum, Description: "Tokens, by type"}) || d.Meters[1] != (rating.Meter{Code: "images", Aggregation: rating.Sum}) {
		t.Errorf("meters %+v", d.Meters)
	}
	if len(d.Rates) != 9 {
		t.Fatalf("%d rates", len(d.Rates))
	}
	r := d.Rates[3]
	if r.ID != "small-in" || r.Meter != "llm_tokens" || r.Model != rating.PerUnit || r.Price.String() != "0.15" || r.Per.String() != "1000000" ||
		r.Match.Canonical() != (credit.Scope{"model": {"haiku", "gpt-4o-mini"}, "token_type": {"cache_read", "input"}}).Canonical() {
		t.Errorf("%+v", r)
	}
	if r := d.Rates[8]; !r.Match.General() || !r.Price.IsZero() || r.Per.String() != "1" {
		t.Errorf("%+v", r)
	}
}

// The README's document is one.
func TestParseOfTheReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, doc, _ := strings.Cut(string(readme), "```json\n")
	doc, _, ok := strings.Cut(doc, "```")
	if d, err := rating.Parse([]byte(doc)); !ok || err != nil || len(d.Rates) != 8 || d.Needs() != (rating.Needs{State: true, Rates: true, Costs: true}) {
		t.Errorf("%v", err)
	}
}

// The store keeps documents as jsonb, which writes the fields in another order and leaves out the blanks.
func TestParseOfWhatTheStoreGivesBack(t *testing.T) {
	for _, doc := range []string{
		`{"rates": [{"id": "a", "per": "1000", "match": {"m": ["x"]}, "meter": "calls", "price": "1"}], "meters": [{"code": "calls"}]}`,
		"\t{\r\n \"rates\" :[ ] , \"meters\":[\n]}\n ",
		`{"meters":[{"code":"calls"}],"rates":[{"id":"\u0061","meter":"c\u0061lls","price":"\u0031","match":{"m\/\"\\":["\u00e9\uD83D\uDE00"]}}]}`,
	} {
		if _, err := rating.Parse([]byte(doc)); err != nil {
			t.Errorf("%s: %v", doc, err)
		}
	}
	d, err := rating.Parse([]byte(`{"meters":[{"code":"calls"}],"rates":[{"id":"\u0061","meter":"c\u0061lls","price":"\u0031","match":{"m\/\"\\":["\u00e9\uD83D\uDE00"]}}]}`))
	if err != nil || d.Rates[0].ID != "a" || d.Rates[0].Match[`m/"\`][0] != "é😀" {
		t.Errorf("%+v, %v", d, err)
	}
}

// issues returns what is wrong with doc, one "pointer: detail" a line.
func issues(t testing.TB, doc []byte) []string {
	t.Helper()
	d, err := rating.Parse(doc)
	if err == nil {
		return nil
	}
	var e *credit.Error
	if !errors.As(err, &e) || e.Code != credit.InvalidRequest || len(e.Issues) == 0 || e.Detail == "" || d != nil {
		t.Fatalf("%.200s: %+v, %v", doc, d, err)
	}
	var lines []string
	for _, i := range e.Issues {
		lines = append(lines, i.Pointer+": "+i.Detail)
	}
	return lines
}

// with wraps rates, or fields of the only rate, in a document.
func withRates(rates string) string {
	return `{"meters": [{"code": "calls"}, {"code": "images"}], "rates": [` + rates + `]}`
}

func withRate(fields string) string {
	return withRates(`{"id": "a", "meter": "calls", ` + fields + `}`)
}

func TestParseRefuses(t *testing.T) {
	price := `"price": "1"`
	for _, c := range []struct {
		name, doc string
		want      []string // each the beginning of an issue, in order
	}{
		{"nothing", ``, []string{": The document is not JSON at line 1, column 1: unexpected end"}},
		{"no JSON", "{\n  \"meters\": [}\n", []string{": The document is not JSON at line 2, column 14: invalid character '}'"}},
		{"two values", `{} {}`, []string{": The document is not JSON at line 1, column 4"}},
		{"a trailing comma", `{"meters": [],}`, []string{": The document is not JSON at line 1, column 15"}},
		{"not UTF-8", "{\"meters\": [], \"rates\": [\"\xff\"]}", []string{": The document is not UTF-8"}},
		{"another type", `[]`, []string{": This must be an object"}},
		{"null", `null`, []string{": This must be an object"}},
		{"empty", `{}`, []string{"/meters: The field is missing", "/rates: The field is missing"}},
		{"lists of another type", `{"meters": {}, "rates": "x"}`, []string{"/meters: This must be a list", "/rates: This must be a list"}},
		{"elements of another type", `{"meters": [1], "rates": [null, [{"id": "x"}]]}`, []string{"/meters/0: This must be an object", "/rates/0: This must be an object", "/rates/1: This must be an object"}},
		{"an unknown field", `{"meters": [], "rates": [], "a/b~c": {"deep": [1, {"x": "}"}]}}`, []string{"/a~1b~0c: There is no field \"a/b~c\" here; there are meters, rates"}},
		{"a field with no name", `{"meters": [], "rates": [], "": 1}`, []string{`/: There is no field ""`}},
		{"a field twice", `{"meters": [], "rates": [], "meters": []}`, []string{"/meters: The field is given twice"}},
		{"field names are exact", `{"meters": [], "Rates": []}`, []string{`/Rates: There is no field "Rates"`, "/rates: The field is missing"}},

		{"a meter without code", `{"meters": [{}], "rates": []}`, []string{"/meters/0/code: The field is missing"}},
		{"a meter's code", `{"meters": [{"code": "LLM"}, {"code": ""}, {"code": "1a"}, {"code": "a b"}, {"code": "` + strings.Repeat("a", 65) + `"}], "rates": []}`,
			[]string{"/meters/0/code: A meter's code is", "/meters/1/code: A meter", "/meters/2/code: A meter", "/meters/3/code: A meter", "/meters/4/code: A meter"}},
		{"a meter twice", `{"meters": [{"code": "a"}, {"code": "b"}, {"code": "a"}], "rates": []}`, []string{`/meters/2/code: The meter "a" is declared twice`}},
		{"no aggregation", `{"meters": [{"code": "a", "aggregation": "mean"}], "rates": []}`, []string{`/meters/0/aggregation: "mean" is not an aggregation; there is "sum", "count", "max", "unique"`}},
		{"aggregations by period", `{"meters": [{"code": "a", "aggregation": "max"}, {"code": "b", "aggregation": "unique", "period": "month"}, {"code": "c", "period": "day"}, {"code": "d", "unique_by": "user"},
			{"code": "e", "aggregation": "max", "period": "event"}], "rates": []}`, []string{
			`/meters/0/period: The aggregation "max" needs a period`, `/meters/1/unique_by: The aggregation "unique" needs the dimension`, `/meters/2/period: The aggregation "sum" has no period`,
			`/meters/3/unique_by: The aggregation "sum" counts no values`, `/meters/4/period: "event" is not a period; there is "hour", "day"`}},
		{"a description", `{"meters": [{"code": "a", "description": "\u0000"}, {"code": "b", "description": 3}, {"code": "c", "description": "` + strings.Repeat("x", 1001) + `"}], "rates": []}`,
			[]string{"/meters/0/description: A description is", "/meters/1/description: This must be a string", "/meters/2/description: A description is"}},
		{"a meter's unknown field", `{"meters": [{"code": "a", "unit": "s"}], "rates": []}`, []string{`/meters/0/unit: There is no field "unit"`}},

		{"a rate with nothing", withRates(`{}`), []string{"/rates/0/id: The field is missing", "/rates/0/meter: The field is missing", "/rates/0/price: The field is missing"}},
		{"an unknown meter", withRates(`{"id": "a", "meter": "tokens", "price": "1"}`), []string{`/rates/0/meter: There is no meter "tokens"`}},
		{"a meter that cannot be", withRates(`{"id": "a", "meter": "To kens", "price": "1"}`), []string{`/rates/0/meter: "To kens" is not a meter's code`}},
		{"an id twice", withRates(`{"id": "a", "meter": "calls", "price": "1"}, {"id": "b", "meter": "images", "price": "1"}, {"id": "a", "meter": "calls", "match": {"m": ["x"]}, "price": "1"}`),
			[]string{`/rates/2/id: "a" is also the id of /rates/0`}},
		{"ids", withRates(`{"id": "", "meter": "calls", "price": "1"}, {"id": "a b", "meter": "images", "price": "1"}`), []string{"/rates/0/id: A rate's id is", "/rates/1/id: A rate's id is"}},
		{"no model", withRate(price + `, "model": "flat"`), []string{`/rates/0/model: "flat" is not a model; there is "per_unit", "package", "graduated", "volume", "cost_plus"`}},
		{"an unknown field of a rate", withRate(price + `, "floor": "1"`), []string{`/rates/0/floor: There is no field "floor" here; there are id, meter, price, match, model, per, tiers, percent`}},

		{"numbers for strings", withRate(`"price": 2.5, "per": -1`), []string{"/rates/0/price: This must be a string, such as", "/rates/0/per: This must be a string, such as"}},
		{"null for a string", withRate(`"price": null`), []string{"/rates/0/price: This must be a string"}},
		{"a negative price", withRate(`"price": "-1"`), []string{`/rates/0/price: "-1" is negative`}},
		{"a negative per", withRate(price + `, "per": "-0.5"`), []string{`/rates/0/per: "-0.5" is negative`}},
		{"per nothing", withRate(price + `, "per": "0.000"`), []string{"/rates/0/per: A price is for more than 0"}},
		{"too many digits", withRate(`"price": "123456789012345678901", "per": "0.1234567890123"`), []string{"/rates/0/price: \"123456789012345678901\" has more than 20 digits", "/rates/0/per: \"0.1234567890123\" has more"}},

		{"a match of another type", withRate(price + `, "match": []`), []string{"/rates/0/match: This must be an object that lists values"}},
		{"values of another type", withRate(price + `, "match": {"m": "x", "n": [1], "o": []}`), []string{"/rates/0/match/m: This must be a list", "/rates/0/match/n/0: This must be a string"}},
		{"no values", withRate(price + `, "match": {"m": []}`), []string{"/rates/0/match/m: The scope's dimension"}},
		{"values that no usage can have", withRate(price + `, "match": {"m": ["\n"]}`), []string{"/rates/0/match/m: The scope's value"}},
		{"a value twice", withRate(price + `, "match": {"m": ["x", "y", "x"]}`), []string{`/rates/0/match/m/2: The value "x" is listed twice`}},
		{"a dimension twice", withRate(price + `, "match": {"m": ["x"], "m": ["y"]}`), []string{"/rates/0/match/m: The dimension is given twice"}},
		{"65 values", withRate(price + `, "match": {"m": [` + words("v", 65) + `]}`), []string{"/rates/0/match/m: The scope's dimension"}},
		{"a value twice in a long list", withRate(price + `, "match": {"m": [` + words("v", 50) + `, "v40"]}`), []string{`/rates/0/match/m/50: The value "v40" is listed twice`}},
		{"33 dimensions", withRate(price + `, "match": {` + dimensions(0, 33) + `}`), []string{"/rates/0/match: The scope names 33 dimensions"}},
		{"65 dimensions of one meter", withRates(`{"id": "a", "meter": "calls", "price": "1", "match": {` + dimensions(0, 32) + `}}, {"id": "b", "meter": "calls", "price": "1", "match": {` +
			dimensions(32, 32) + `}}, {"id": "c", "meter": "calls", "price": "1", "match": {"one": ["more"]}}`), []string{"/rates/2/match: The rates of meter \"calls\" name more than 64"}},
	} {
		got := issues(t, []byte(c.doc))
		same := len(got) == len(c.want)
		for i := range min(len(got), len(c.want)) {
			same = same && strings.HasPrefix(got[i], c.want[i])
		}
		if !same {
			t.Errorf("%s: got\n\t%s\nwant\n\t%s", c.name, strings.Join(got, "\n\t"), strings.Join(c.want, "\n\t"))
		}
	}
}

func words(prefix string, n int) string {
	var w []string
	for i := range n {
		w = append(w, fmt.Sprintf("%q", fmt.Sprint(prefix, i)))
	}
	return strings.Join(w, ", ")
}

func dimensions(from, n int) string {
	var w []string
	for i := range n {
		w = append(w, fmt.Sprintf(`"d%d": ["x"]`, from+i))
	}
	return strings.Join(w, ", ")
}

func TestParseRefusesNumbersThatAreNone(t *testing.T) {
	for _, s := range []string{"", " ", "1e3", "1E3", "+1", "NaN", "Infinity", "0x1", "1,5", "1_0", ".5", "5.", ".", "1.2.3", "١", "½", " 1", "1 ", "1\u0000", "\u22121", strings.Repeat("1", 1<<16)} {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"price", "per"} {
			got := issues(t, []byte(withRates(fmt.Sprintf(`{"id": "a", "meter": "calls", %q: %s, "%s": "1"}`, field, text, map[string]string{"price": "per", "per": "price"}[field]))))
			if len(got) != 1 || !strings.HasPrefix(got[0], "/rates/0/"+field+": ") || len(got[0]) > 200 {
				t.Errorf("%s of %.40q: %.300q", field, s, got)
			}
		}
	}
	for _, s := range []string{"0", "0.0", "007", "99999999999999999999.999999999999", "0.000000000001"} {
		if got := issues(t, []byte(withRate(fmt.Sprintf(`"price": %q`, s)))); got != nil {
			t.Errorf("%q: %q", s, got)
		}
	}
}

func TestParseReportsEverything(t *testing.T) {
	_, err := rating.Parse([]byte(`{"meters": [{"code": "X"}, {"code": "calls"}], "colour": 1, "rates": [
		{"id": "a", "meter": "calls", "price": "-1", "match": {"m": [3]}},
		{"id": "a", "meter": "tokens", "price": "x", "per": "0"},
		{"id": "b", "meter": "calls"}, {"id": "c", "meter": "calls", "price": "1"}]}`))
	var e *credit.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	var at []string
	for _, i := range e.Issues {
		at = append(at, i.Pointer)
	}
	want := []string{"/meters/0/code", "/colour", "/rates/0/price", "/rates/0/match/m/0", "/rates/1/price", "/rates/1/per", "/rates/2/price", "/rates/1/id", "/rates/1/meter", "/rates/3"}
	if !slices.Equal(at, want) {
		t.Errorf("got %q\nwant %q", at, want)
	}
	if !strings.HasPrefix(e.Detail, "The rate card has 10 faults. The first: A meter's code") {
		t.Errorf("it says %q", e.Detail)
	}
}

func TestParseBounds(t *testing.T) {
	d, err := rating.Parse(sixDimensions(10_000, "1000"))
	if err != nil || len(d.Rates) != 10_000 {
		t.Fatalf("10,000 rates: %v", err)
	}
	for _, c := range []struct {
		name string
		doc  []byte
		want string
	}{
		{"10,001 rates", sixDimensions(10_001, "1000"), "/rates: The list has 10001 elements; 10000 are allowed."},
		{"8 MiB", append([]byte(example), strings.Repeat(" ", 8<<20)...), ": A rate card is at most 8 MiB."},
		{"200,040 values", wide(1_667, 60), "/rates/1666/match/product/20: The matches of a rate card list at most 200000 values together."},
	} {
		if got := issues(t, c.doc); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %.300q", c.name, got)
		}
	}
	if got := issues(t, []byte(`{"meters": [], "rates": [`+strings.Repeat("{}, ", 9_999)+`{}]}`)); len(got) != 1_000 {
		t.Errorf("30,000 faults give %d issues", len(got))
	}
	if got := issues(t, []byte(strings.Repeat(`{"meters":[`, 200_000))); len(got) != 1 {
		t.Errorf("deep nesting: %.300q", got)
	}
	if got := issues(t, []byte(`{"meters": [], "rates": [], "x": `+strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000)+`}`)); len(got) != 1 {
		t.Errorf("deep nesting where nothing is known: %.300q", got)
	}
}

func TestParseRefusesAmbiguity(t *testing.T) {
	rate := func(id, match string) string {
		return fmt.Sprintf(`{"id": %q, "meter": "calls", "price": "1", "match": {%s}}`, id, match)
	}
	for _, c := range []struct {
		name, a, b, common string // common "": they are told apart
	}{
		{"two fallbacks", ``, ``, "any usage of meter calls"},
		{"the same", `"m": ["x"]`, `"m": ["x"]`, "usage with m=x"},
		{"one value in common", `"m": ["x", "y"]`, `"m": ["z", "y"]`, "usage with m=y"},
		{"different dimensions", `"m": ["x"]`, `"n": ["y"]`, "usage with m=x, n=y"},
		{"partly different dimensions", `"m": ["x", "w"], "n": ["y"]`, `"m": ["w"], "o": ["z"]`, "usage with m=w, n=y, o=z"},
		{"different values", `"m": ["x"]`, `"m": ["y"]`, ""},
		{"different values of one of two", `"m": ["x"], "n": ["y"]`, `"m": ["x"], "n": ["z"]`, ""},
		{"different values of the common dimension", `"m": ["x"], "n": ["y"]`, `"m": ["w"], "o": ["z"]`, ""},
		{"one more specific", `"m": ["x"]`, `"m": ["x"], "n": ["y"]`, ""},
		{"a fallback", ``, `"m": ["x"]`, ""},
	} {
		got := issues(t, []byte(withRates(rate("one", c.a)+`, {"id": "other", "meter": "images", "price": "1"}, `+rate("two", c.b))))
		want := fmt.Sprintf(`/rates/2: Rates "one" (/rates/0) and "two" (/rates/2) are both for %s, and equally specific`, c.common)
		if c.common == "" && got != nil || c.common != "" && (len(got) != 1 || !strings.HasPrefix(got[0], want)) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	// Meters have nothing to do with one another.
	if got := issues(t, []byte(withRates(rate("one", "")+`, {"id": "other", "meter": "images", "price": "1"}`))); got != nil {
		t.Errorf("%q", got)
	}
}

type drawnRate struct {
	ID    string       `json:"id"`
	Meter string       `json:"meter"`
	Match credit.Scope `json:"match"`
	Price string       `json:"price"`
	Per   string       `json:"per"`
}

var (
	someNames  = []string{"model", "token_type", "region", "tier"}
	someValues = []string{"a", "b", "c", "d"}
	someMeters = []string{"calls", "images"}
)

func drawRates(t *rapid.T) []drawnRate {
	values := rapid.SliceOfNDistinct(rapid.SampledFrom(someValues), 1, 3, func(v string) string { return v })
	match := rapid.MapOfN(rapid.SampledFrom(someNames), values, 0, 4)
	var rates []drawnRate
	for i := range rapid.IntRange(0, 14).Draw(t, "rates") {
		rates = append(rates, drawnRate{
			ID: fmt.Sprintf("r%d", i), Meter: rapid.SampledFrom(someMeters).Draw(t, fmt.Sprintf("meter of %d", i)), Match: match.Draw(t, fmt.Sprintf("match of %d", i)),
			Price: rapid.SampledFrom([]string{"0", "1", "2.5", "0.000000000001", "123456789.123456789012", "99999999999999999999"}).Draw(t, fmt.Sprintf("price of %d", i)),
			Per:   rapid.SampledFrom([]string{"1", "1000", "1000000", "3600", "7", "0.3", "64", "25", "0.15", "12345678901234567890"}).Draw(t, fmt.Sprintf("per of %d", i)),
		})
	}
	return rates
}

func ambiguous(a, b drawnRate) bool {
	if a.Meter != b.Meter || len(a.Match) != len(b.Match) {
		return false
	}
	for name, values := range a.Match {
		if others, ok := b.Match[name]; ok && !slices.ContainsFunc(values, func(v string) bool { return slices.Contains(others, v) }) {
			return false
		}
	}
	return true
}

func document(t testing.TB, rates []drawnRate) []byte {
	doc, err := json.Marshal(map[string]any{"meters": []map[string]string{{"code": "calls"}, {"code": "images"}}, "rates": append([]drawnRate{}, rates...)})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// Refused are exactly the rates that collide with an earlier one, each with the first that it collides with.
func TestParseFindsEveryAmbiguity(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rates := drawRates(rt)
		want := map[string]bool{}
		for j, b := range rates {
			for i, a := range rates[:j] {
				if ambiguous(a, b) {
					want[fmt.Sprintf(`/rates/%d: Rates %q (/rates/%d) and %q (/rates/%d)`, j, a.ID, i, b.ID, j)] = true
					break
				}
			}
		}
		got := issues(t, document(t, rates))
		for _, line := range got {
			line, _, _ = strings.Cut(line, " are both for ")
			if !want[line] {
				rt.Fatalf("%+v: %q is reported", rates, line)
			}
			delete(want, line)
		}
		if len(want) > 0 {
			rt.Fatalf("%+v: %v is not reported", rates, want)
		}
	})
}

// So many rates that the sets of the comparison take both of their forms, with a collision now and then.
func TestParseFindsAmbiguityAmongMany(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var rates []drawnRate
	for i := range 1_500 {
		rates = append(rates, drawnRate{
			ID: fmt.Sprintf("r%d", i), Meter: "calls", Price: "1", Per: "1",
			Match: credit.Scope{"model": {fmt.Sprint("m", i/4)}, "region": {[]string{"a", "b", "c", "d"}[i%4]}},
		})
	}
	if got := issues(t, document(t, rates)); got != nil {
		t.Fatalf("%.300q", got)
	}
	for range 8 {
		i := 1 + random.IntN(len(rates)-1)
		j := random.IntN(i)
		kept := rates[i]
		rates[i].Match = credit.Scope{"model": {"own", rates[j].Match["model"][0]}, "region": {"z", rates[j].Match["region"][0]}}
		got := issues(t, document(t, rates))
		want := fmt.Sprintf(`/rates/%d: Rates "r%d" (/rates/%d) and "r%d" (/rates/%d) are both for usage with model=%s, region=%s`, i, j, j, i, i, rates[j].Match["model"][0], rates[j].Match["region"][0])
		if len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Fatalf("got %.300q, want %s", got, want)
		}
		rates[i] = kept
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(everything))
	f.Add(sixDimensions(3, "3600"))
	f.Add(wide(4, 3))
	f.Add([]byte(withRate(`"price": "1", "match": {"a/b~\u0063": ["\ud800", "x"], "": [""]}, "per": "0.0"`)))
	f.Add([]byte(`{"meters": [{"code": "a"}, {"code": "a"}], "rates": [{"id": "x", "meter": "a", "price": "1"}, {"id": "x", "meter": "a", "price": "1"}, 3, null]}`))
	f.Add([]byte(`{"meters": [[[[{"a": "}"}]]]], "x": "\\\"]"}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		d, err := rating.Parse(doc)
		if err == nil {
			if !json.Valid(doc) || d == nil {
				t.Fatalf("%q is accepted", doc)
			}
			return
		}
		var e *credit.Error
		if !errors.As(err, &e) || e.Code != credit.InvalidRequest || len(e.Issues) == 0 || d != nil {
			t.Fatalf("%q gives %v", doc, err)
		}
		for _, i := range e.Issues {
			if i.Pointer != "" && i.Pointer[0] != '/' || i.Detail == "" || strings.Contains(i.Detail, "%!") {
				t.Fatalf("%q gives %+v", doc, i)
			}
		}
	})
}
