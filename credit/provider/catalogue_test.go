package provider

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

// The compiled lookup finds what trying one clause after the other finds.
func TestMatcherFindsTheFirst(t *testing.T) {
	words := rapid.SampledFrom([]string{"a", "b", "ab", "abc", "b-1", "a-1", "-1"})
	var clauses func(depth int) *rapid.Generator[clause]
	clauses = func(depth int) *rapid.Generator[clause] {
		return rapid.Custom(func(t *rapid.T) clause {
			ops := []clauseOp{equals, startsWith, endsWith, contains}
			if depth > 0 {
				ops = append(ops, anyOf, allOf)
			}
			c := clause{op: rapid.SampledFrom(ops).Draw(t, "op")}
			if c.op == anyOf || c.op == allOf {
				c.of = rapid.SliceOfN(clauses(depth-1), 1, 3).Draw(t, "of")
			} else {
				c.text = words.Draw(t, "text")
			}
			return c
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(clauses(2), 0, 8).Draw(t, "clauses")
		var m matcher
		for i := range list {
			m.add(i, &list[i])
		}
		s := strings.Join(rapid.SliceOfN(words, 0, 3).Draw(t, "text"), "")
		want := none
		for i := len(list) - 1; i >= 0; i-- {
			if list[i].match(s) {
				want = i
			}
		}
		if got := m.find(s); got != want {
			t.Fatalf("%q is found at %d, not %d of %v", s, got, want, list)
		}
	})
}

// faulty catalogues, and where the fault lies.
func TestParseGenAIPricesRefuses(t *testing.T) {
	provider := func(more string) string {
		return `[{"id": "p", "name": "P", "api_pattern": "x", "models": []` + more + `}]`
	}
	model := func(prices string) string {
		return `[{"id": "p", "name": "P", "api_pattern": "x", "models": [{"id": "m", "match": {"equals": "m"}, "prices": ` + prices + `}]}]`
	}
	match := func(clause string) string {
		return `[{"id": "p", "name": "P", "api_pattern": "x", "models": [{"id": "m", "match": ` + clause + `, "prices": {}}]}]`
	}
	for name, test := range map[string]struct{ doc, pointer, says string }{
		"not JSON":            {"[\n {]", "", "line 2, column 3"},
		"no list":             {`{}`, "", "a list"},
		"no object":           {`[1]`, "/0", "an object"},
		"a field is missing":  {`[{"id": "p", "name": "P", "models": []}]`, "/0/api_pattern", "missing"},
		"a field twice":       {provider(`, "name": "Q"`), "/0/name", "twice"},
		"two of one id":       {`[{"id": "p", "name": "P", "api_pattern": "x", "models": []}, {"id": "p", "name": "P", "api_pattern": "x", "models": []}]`, "/1/id", "two providers"},
		"no name":             {`[{"id": "", "name": "P", "api_pattern": "x", "models": []}]`, "/0/id", "1 to"},
		"odd pattern":         {`[{"id": "p", "name": "P", "api_pattern": "(?=a)", "models": []}]`, "/0/api_pattern", "regular expression"},
		"odd regex":           {match(`{"regex": "(?!a)"}`), "/0/models/0/match/regex", "regular expression"},
		"odd clause":          {match(`{"sounds_like": "a"}`), "/0/models/0/match/sounds_like", "not a clause"},
		"two clauses":         {match(`{"equals": "a", "contains": "b"}`), "/0/models/0/match", "one member"},
		"empty or":            {match(`{"or": []}`), "/0/models/0/match/or", "empty"},
		"empty contains":      {match(`{"or": [{"contains": ""}]}`), "/0/models/0/match/or/0/contains", "not empty"},
		"nested clauses":      {match(strings.Repeat(`{"or": [`, 20) + `{"equals": "a"}` + strings.Repeat("]}", 20)), "", "nested"},
		"negative":            {model(`{"input_mtok": -1}`), "/0/models/0/prices/input_mtok", "negative"},
		"endless":             {model(`{"input_mtok": 1e400}`), "/0/models/0/prices/input_mtok", "beyond"},
		"tiny":                {model(`{"input_mtok": 1e-99}`), "/0/models/0/prices/input_mtok", "beyond"},
		"a price as a string": {model(`{"input_mtok": "1"}`), "/0/models/0/prices/input_mtok", "object"},
		"a price twice":       {model(`{"input_mtok": 1, "input_mtok": 2}`), "/0/models/0/prices/input_mtok", "twice"},
		"falling tiers":       {model(`{"input_mtok": {"base": 1, "tiers": [{"start": 5, "price": 1}, {"start": 4, "price": 1}]}}`), "/0/models/0/prices/input_mtok/tiers/1/start", "above"},
		"a tier at 0":         {model(`{"input_mtok": {"base": 1, "tiers": [{"start": 0, "price": 1}]}}`), "/0/models/0/prices/input_mtok/tiers/0/start", "above 0"},
		"no conditions":       {model(`[]`), "/0/models/0/prices", "empty"},
		"odd date":            {model(`[{"prices": {}, "constraint": {"start_date": "1.3.2026"}}]`), "/0/models/0/prices/0/constraint/start_date", "date"},
		"odd time":            {model(`[{"prices": {}, "constraint": {"start_time": "25:00", "end_time": "01:00"}}]`), "/0/models/0/prices/0/constraint/start_time", "time of day"},
		"half a window":       {model(`[{"prices": {}, "constraint": {"start_time": "05:00"}}]`), "/0/models/0/prices/0/constraint", "together"},
		"empty window":        {model(`[{"prices": {}, "constraint": {"start_time": "05:00", "end_time": "07:00+02:00"}}]`), "/0/models/0/prices/0/constraint", "empty"},
		"two models":          {`[{"id": "p", "name": "P", "api_pattern": "x", "models": [{"id": "m", "match": {"equals": "m"}, "prices": {}}, {"id": "m", "match": {"equals": "n"}, "prices": {}}]}]`, "/0/models/1/id", "two models"},
		"falls back to none":  {provider(`, "fallback_model_providers": ["q"]`), "/0/fallback_model_providers/0", "no other provider"},
		"two extractors":      {provider(`, "extractors": [{"root": "u", "mappings": []}, {"root": "u", "api_flavor": "default", "mappings": []}]`), "/0/extractors/1/api_flavor", "two extractors"},
		"no path":             {provider(`, "extractors": [{"root": [], "mappings": []}]`), "/0/extractors/0/root", "empty"},
		"required is a word":  {provider(`, "extractors": [{"root": "u", "mappings": [{"path": "a", "dest": "input_tokens", "required": "no"}]}]`), "/0/extractors/0/mappings/0/required", "true or false"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseGenAIPrices([]byte(test.doc))
			wantCode(t, err, credit.InvalidRequest)
			var e *credit.Error
			if !errors.As(err, &e) || len(e.Issues) == 0 {
				t.Fatalf("%v", err)
			}
			if i := e.Issues[0]; !strings.Contains(i.Detail, test.says) || i.Pointer != test.pointer && test.says != "nested" {
				t.Errorf("%s: %s", i.Pointer, i.Detail)
			}
		})
	}
}

// What the format may say one day is kept, and refused where it bears on a price.
func TestParseGenAIPricesKeepsWhatItDoesNotKnow(t *testing.T) {
	c, err := ParseGenAIPrices([]byte(`[{"id": "p", "name": "P", "api_pattern": "x", "mascot": "owl",
	  "extractors": [{"api_flavor": "chat", "root": "usage", "mappings": [{"path": "n", "dest": "input_tokens"}]},
	    {"api_flavor": "smells", "root": "usage", "mappings": [{"path": "n", "dest": "input_smell_tokens"}]}],
	  "models": [
	    {"id": "a", "match": {"starts_with": "a"}, "prices": {"input_mtok": 1, "input_smell_mtok": 2}},
	    {"id": "b", "match": {"equals": "ab"}, "prices": {"input_mtok": 1}},
	    {"id": "c", "match": {"equals": "c"}, "discount": 5, "prices": {"input_mtok": 1}},
	    {"id": "d", "match": {"equals": "d"}, "prices": [{"prices": {"input_mtok": 1}}, {"prices": {"input_mtok": 2}, "constraint": {"weather": "rain"}}]},
	    {"id": "e", "match": {"equals": "e"}, "prices": {"input_mtok": 1}}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	if issues, n := c.Unusable(); n != 6 {
		t.Errorf("%d: %v", n, issues)
	}
	if got, want := c.Coverage(), (Coverage{Providers: 1, Models: 5, Whole: 2, None: 3}); got != want {
		t.Errorf("%+v", got)
	}
	u := usage(t, map[Unit]string{InputTokens: "1"})
	for _, ref := range []string{"a", "ab", "c", "d"} { // ab is a's, though b could be priced
		_, err := c.Cost("p", ref, u, noon)
		wantCode(t, err, credit.NoRate)
	}
	if _, err := c.Cost("p", "e", u, noon); err != nil {
		t.Error(err)
	}
	_, err = c.Extract(Response{Provider: "p", Flavour: "smells", Model: "e", Body: []byte(`{"usage": {"n": 1}}`)})
	wantCode(t, err, credit.UnknownFlavour)
	if _, err = c.Extract(Response{Provider: "p", Flavour: "chat", Model: "e", Body: []byte(`{"usage": {"n": 1}}`)}); err != nil {
		t.Error(err)
	}
}

func TestDiff(t *testing.T) {
	before := own(t)
	if changes := Diff(before, own(t)); changes != nil || changes.String() != "no changes\n" {
		t.Errorf("%s", changes)
	}
	edited := strings.NewReplacer(
		`{"input_mtok": 0.4, "cache_read_mtok": 0.1, "output_mtok": 1.6}`, `{"input_mtok": 0.5, "output_mtok": 1.60, "input_audio_mtok": 9}`,
		`{"start": 200000, "price": 5}`, `{"start": 200000, "price": 5.5}`,
		`"start_date": "2027-01-01"`, `"start_date": "2026-12-01"`,
		`{"contains": "scribe"}`, `{"contains": "scribble"}`,
		`"id": "claude-verse"`, `"id": "claude-prose"`,
		`"dest": "rerank_searches"`, `"dest": "web_searches"`,
		`{"contains": "openai"}`, `{"equals": "oai"}`,
	).Replace(string(file(t, "catalogue.json")))
	after, err := ParseGenAIPrices([]byte(edited))
	if err != nil {
		t.Fatal(err)
	}
	want := `openai
    is meant by the names: equals "oai", before contains "openai"
  changed gpt-small
    input_tokens: 0.5 USD per 1000000, before 0.4
    cache_read_tokens: none, before 0.1 USD per 1000000
    input_audio_tokens: 9 USD per 1000000
  changed gpt-long
    input_tokens above 200000: 5.5 USD per 1000000, before 5
  changed gpt-scribe
    is meant by: contains "scribble", before contains "scribe"
  changed o9
    input_tokens, since 2026-12-01: 1.5 USD per 1000000
    output_tokens, since 2026-12-01: 6 USD per 1000000
    input_tokens, since 2027-01-01: none, before 1.5 USD per 1000000
    output_tokens, since 2027-01-01: none, before 6 USD per 1000000

anthropic
  added claude-prose
    input_tokens: 3 USD per 1000000
    output_tokens: 15 USD per 1000000
    cache_read_tokens: 0.3 USD per 1000000
    cache_write_tokens: 3.75 USD per 1000000
    cache_write_1h_tokens: 6 USD per 1000000
    web_searches: 10 USD per 1000
  removed claude-verse
    input_tokens: none, before 3 USD per 1000000
    output_tokens: none, before 15 USD per 1000000
    cache_read_tokens: none, before 0.3 USD per 1000000
    cache_write_tokens: none, before 3.75 USD per 1000000
    cache_write_1h_tokens: none, before 6 USD per 1000000
    web_searches: none, before 10 USD per 1000

nocturne
    usage of flavour billed is read in another way
`
	if got := Diff(before, after).String(); got != want {
		t.Errorf("%s", got)
	}
	whole := Diff(&Catalogue{}, before)
	if gone := Diff(before, &Catalogue{}); len(gone) != len(whole) || len(gone) != 4+12 || gone[0].Kind != Removed || whole[0].Kind != Added || whole[1].Model != "gpt-small" {
		t.Errorf("%d and %d changes", len(gone), len(whole))
	}
}

// One catalogue serves any number of goroutines.
func TestCatalogueIsShared(t *testing.T) {
	c := own(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				x, err := c.Extract(Response{Body: typical})
				if err != nil {
					t.Error(err)
					return
				}
				if cost, err := c.Cost(x.Provider, x.ModelRef, x.Usage, noon); err != nil || !cost.Total.Equal(d("0.0006528")) {
					t.Errorf("%s, %v", cost.Total, err)
				}
				if _, err := c.Lines(x, noon, ""); err != nil {
					t.Error(err)
				}
			}
			if _, err := c.RateCard(RateCardTerms{At: noon, CreditPrice: d("1")}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func TestSizesAreBounded(t *testing.T) {
	_, err := ParseGenAIPrices(make([]byte, maxCatalogue+1))
	wantCode(t, err, credit.InvalidRequest)
	_, err = ParseLiteLLM(make([]byte, maxCatalogue+1))
	wantCode(t, err, credit.InvalidRequest)
	_, err = own(t).Extract(Response{Provider: "openai", Body: make([]byte, maxBody+1)})
	wantCode(t, err, credit.InvalidRequest)
	deep := strings.Repeat("[", 1_000) + strings.Repeat("]", 1_000)
	_, err = ParseGenAIPrices([]byte(deep))
	wantCode(t, err, credit.InvalidRequest)
	var many strings.Builder
	many.WriteString(`{`)
	for i := range maxModels + 1 {
		fmt.Fprintf(&many, `"m%d":{},`, i)
	}
	_, err = ParseLiteLLM([]byte(strings.TrimSuffix(many.String(), ",") + `}`))
	wantCode(t, err, credit.InvalidRequest)
}
