package provider

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// FuzzParseGenAIPrices: any text is refused with places that exist, or makes a catalogue whose prices can be used.
func FuzzParseGenAIPrices(f *testing.F) {
	f.Add(file(f, "catalogue.json"))
	f.Add([]byte(`[{"id":"p","name":"P","api_pattern":"x","models":[{"id":"m","match":{"equals":"m"},"prices":{"input_mtok":{"base":1,"tiers":[{"start":5,"price":2}]}}}]}]`))
	f.Add([]byte(`[{"id":"p","name":"P","api_pattern":"x","models":[{"id":"m","match":{"regex":"^m"},"prices":[{"prices":{"input_audio_hours":1},"constraint":{"start_time":"23:00","end_time":"01:00"}}]}]}]`))
	f.Add([]byte(`[{"id":"","models":3,"extractors":[{"root":[{"type":"array-match"}]}]}]`))
	f.Fuzz(func(t *testing.T, b []byte) { useCatalogue(t, ParseGenAIPrices, b) })
}

// FuzzParseLiteLLM is the same for the other format.
func FuzzParseLiteLLM(f *testing.F) {
	f.Add(file(f, "litellm.json"))
	f.Add([]byte(`{"m":{"litellm_provider":"p","input_cost_per_token":1e-7,"input_cost_per_token_above_5k_tokens":1e-6,"tiered_pricing":[{"range":[0,1]}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) { useCatalogue(t, ParseLiteLLM, b) })
}

func useCatalogue(t *testing.T, parse func([]byte) (*Catalogue, error), b []byte) {
	c, err := parse(b)
	if err != nil {
		var e *credit.Error
		if !errors.As(err, &e) || e.Code != credit.InvalidRequest || len(e.Issues) == 0 || c != nil {
			t.Fatalf("%v: %v", c, err)
		}
		return
	}
	var u Usage
	for unit := range numUnits {
		if err := u.Set(unit, d("7")); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range c.providers {
		for _, m := range s.models {
			_, err := c.Cost(s.id, m.id, u, noon)
			if err != nil && credit.CodeOf(err) == "" {
				t.Fatalf("%s of %s: %v", m.id, s.id, err)
			}
		}
		_, err := c.Extract(Response{Provider: s.id, Model: "m", Body: []byte(`{"usage": {"prompt_tokens": 1, "completion_tokens": 2}}`)})
		if err != nil && credit.CodeOf(err) == "" {
			t.Fatal(err)
		}
	}
	card, err := c.RateCard(RateCardTerms{At: noon, CreditPrice: d("0.7"), Markup: d("12.5")})
	if err != nil {
		if credit.CodeOf(err) == credit.InvalidRequest {
			return // as more than 10,000 rates
		}
		t.Fatal(err)
	}
	if _, err := rating.Parse(card.Document); err != nil {
		t.Fatal(err)
	}
	if changes := Diff(c, c); changes != nil {
		t.Fatalf("%s", changes)
	}
}

// FuzzExtract: any body is refused by a code, or read as usage that can be written and read again.
func FuzzExtract(f *testing.F) {
	for _, s := range []string{
		`{"model":"gpt-small","usage":{"prompt_tokens":1200,"completion_tokens":300,"prompt_tokens_details":{"cached_tokens":1024}}}`,
		`{"model":"claude-verse","usage":{"input_tokens":1,"output_tokens":2,"cache_creation":{"ephemeral_1h_input_tokens":3}},"service_tier":"flex"}`,
		`{"modelVersion":"gemini-quick","usageMetadata":{"promptTokenCount":1,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":1}]}}`,
		`{"response":{"model":"gpt-hear","usage":{"input_tokens":9007199254740991,"output_tokens":1e3}}}`, `{"usage":{"\u0070rompt_tokens":1}}`, `[{}]`,
	} {
		f.Add("openai", "", "", []byte(s))
		f.Add("", "", "", []byte(s))
		f.Add("google", "default", "gemini-quick", []byte(s))
	}
	c := own(f)
	f.Fuzz(func(t *testing.T, provider, flavour, model string, body []byte) {
		x, err := c.Extract(Response{Provider: provider, Flavour: flavour, Model: model, Body: body})
		if err != nil && credit.CodeOf(err) == "" {
			t.Fatal(err)
		}
		if err != nil && credit.CodeOf(err) != credit.UnknownModel {
			return
		}
		x.Unread()
		b, err := json.Marshal(x.Usage)
		if err != nil {
			t.Fatal(err)
		}
		var back Usage
		if err := json.Unmarshal(b, &back); err != nil || back.counts != x.Usage.counts || back.reported != x.Usage.reported {
			t.Fatalf("%s: %v", b, err)
		}
		cost, err := c.Cost(x.Provider, x.ModelRef, x.Usage, noon)
		if err != nil && credit.CodeOf(err) == "" || err == nil && cost.Total.IsNegative() {
			t.Fatalf("%+v, %v", cost, err)
		}
		lines, err := c.Lines(x, noon, "")
		if err != nil && credit.CodeOf(err) == "" {
			t.Fatal(err)
		}
		for _, l := range lines.Lines {
			if l.Quantity.Sign() <= 0 || credit.CheckDimensions(l.Dims) != nil {
				t.Fatalf("%+v", l)
			}
		}
	})
}
