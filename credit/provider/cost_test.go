package provider

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
)

// TestCost has costs computed by hand.
func TestCost(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	type counts = map[Unit]string
	tokens := func(in, out string) counts { return counts{InputTokens: in, OutputTokens: out} }
	for name, test := range map[string]struct {
		provider, model      string
		at                   time.Time
		usage                counts
		input, output, total string
		condition            string // of the price
	}{
		// 176 * 0.4 + 1024 * 0.1; 300 * 1.6
		"cached":  {"openai", "gpt-small", noon, counts{InputTokens: "1200", CacheReadTokens: "1024", OutputTokens: "300", OutputReasoningTokens: "128"}, "0.0001728", "0.00048", "0.0006528", ""},
		"nothing": {"openai", "gpt-small", noon, nil, "0", "0", "0", ""},
		// A tier begins above its start, and holds for all of the request.
		"at the tier's start":   {"openai", "gpt-long", noon, tokens("200000", "0"), "0.5", "0", "0.5", ""},
		"above it":              {"openai", "gpt-long", noon, tokens("200001", "10"), "1.000005", "0.0001", "1.000105", ""},
		"above the next":        {"openai", "gpt-long", noon, tokens("500001", "0"), "3.7500075", "0", "3.7500075", ""},
		"cached above it":       {"openai", "gpt-long", noon, counts{InputTokens: "200001", CacheReadTokens: "100"}, "0.999555", "0", "0.999555", ""},
		"cached above the next": {"openai", "gpt-long", noon, counts{InputTokens: "500001", CacheReadTokens: "500001"}, "0.2500005", "0", "0.2500005", ""},
		// 4 * 0.6 + 60 * 0.4 + 9 * 32 + 59 * 4; 91 * 64 + 30 * 16
		"overlapping units": {"openai", "gpt-hear", noon, counts{InputTokens: "132", CacheReadTokens: "64", CacheAudioReadTokens: "4", InputAudioTokens: "13", OutputTokens: "121", OutputAudioTokens: "91"},
			"0.0005504", "0.006304", "0.0068544", ""},
		// 4000 * 0.3 + 200 * 6 + 100 * 3.75 + 21 * 3; 393 * 15; 2 * 0.01
		"cache written, searches": {"anthropic", "claude-verse", noon, counts{InputTokens: "4321", CacheReadTokens: "4000", CacheWriteTokens: "300", CacheWrite1hTokens: "200", OutputTokens: "393", WebSearches: "2"},
			"0.002838", "0.005895", "0.028733", ""},
		// 400 * 0.3 + 500 * 1; 20 * 2.5 + 30 * 3; what was cached has no price of its own
		"reasoning":              {"google", "gemini-quick", noon, counts{InputTokens: "900", InputAudioTokens: "500", CacheReadTokens: "100", OutputTokens: "50", OutputReasoningTokens: "30"}, "0.00062", "0.00014", "0.00076", ""},
		"seconds":                {"openai", "scribe", noon, counts{InputAudioSeconds: "36"}, "0.0037", "0", "0.0037", ""},
		"seconds without end":    {"openai", "scribe", noon, counts{InputAudioSeconds: "12.5"}, "0.001284722222222222222222", "0", "0.001284722222222222222222", ""},
		"seconds, rounded up":    {"openai", "scribe", noon, counts{InputAudioSeconds: "20"}, "0.002055555555555555555556", "0", "0.002055555555555555555556", ""},
		"by the call":            {"nocturne", "per-call", noon, tokens("10", "5"), "0.00001", "0.000005", "0.005015", ""},
		"by calls":               {"nocturne", "per-call", noon, counts{InputTokens: "10", OutputTokens: "5", Requests: "3"}, "0.00001", "0.000005", "0.015015", ""},
		"searches and pages":     {"nocturne", "ranker", noon, counts{RerankSearches: "3", InputDocumentPages: "2"}, "0.003", "0", "0.009", ""},
		"before a price changes": {"openai", "o9-think", at("2026-02-28T23:59:59.999Z"), tokens("100", "10"), "0.001", "0.0004", "0.0014", ""},
		"after it has":           {"openai", "o9-think", at("2026-03-01T00:00:00Z"), tokens("100", "10"), "0.0002", "0.00008", "0.00028", "2026-03-01"},
		"before, in UTC":         {"openai", "o9-think", at("2026-03-01T00:30:00+02:00"), tokens("100", "10"), "0.001", "0.0004", "0.0014", ""},
		"after the next":         {"openai", "o9-think", at("2027-06-01T00:00:00Z"), tokens("100", "10"), "0.00015", "0.00006", "0.00021", "2027-01-01"},
		"before the window":      {"nocturne", "night-owl", at("2026-06-15T00:29:59.9Z"), tokens("100", "0"), "0.000014", "0", "0.000014", ""},
		"in the window":          {"nocturne", "night-owl", at("2026-06-15T00:30:00Z"), tokens("100", "0"), "0.000027", "0", "0.000027", "00:30–16:30 UTC"},
		"at its end":             {"nocturne", "night-owl", at("2026-06-15T16:30:00Z"), tokens("100", "0"), "0.000014", "0", "0.000014", ""},
		"before midnight":        {"nocturne", "early-bird", at("2026-06-15T20:00:00Z"), tokens("100", "0"), "0.00001", "0", "0.00001", "20:00–06:00 UTC"},
		"after midnight":         {"nocturne", "early-bird", at("2026-06-16T05:59:59Z"), tokens("100", "0"), "0.00001", "0", "0.00001", "20:00–06:00 UTC"},
		"by day":                 {"nocturne", "early-bird", at("2026-06-16T06:00:00Z"), tokens("100", "0"), "0.00002", "0", "0.00002", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cost, err := own(t).Cost(test.provider, test.model, usage(t, test.usage), test.at)
			if err != nil {
				t.Fatal(err)
			}
			if !cost.Input.Equal(d(test.input)) || !cost.Output.Equal(d(test.output)) || !cost.Total.Equal(d(test.total)) || cost.Currency != "USD" {
				t.Errorf("%s + %s, in all %s %s, not %s + %s, %s: %+v", cost.Input, cost.Output, cost.Total, cost.Currency, test.input, test.output, test.total, cost.Lines)
			}
			condition := cost.Window
			if !cost.Since.IsZero() {
				condition = cost.Since.Format(time.DateOnly)
			}
			if condition != test.condition {
				t.Errorf("the price is that of %q", condition)
			}
		})
	}
}

func TestCostSaysHowItCameAbout(t *testing.T) {
	c := own(t)
	cost, err := c.Cost("google", "claude-verse", usage(t, map[Unit]string{InputTokens: "100", CacheReadTokens: "60", OutputTokens: "1", InputPixels: "7"}), noon)
	if err != nil || cost.Provider != "anthropic" || cost.ServedBy != "google" || cost.Model != "claude-verse" || !slices.Equal(cost.Unpriced, []Unit{InputPixels}) {
		t.Errorf("%+v, %v", cost, err)
	}
	l := cost.Lines[slices.IndexFunc(cost.Lines, func(l CostLine) bool { return l.Unit == InputTokens })]
	if !l.Quantity.Equal(d("40")) || !l.Price.Equal(d("3")) || !l.Per.Equal(d("1000000")) || !l.Cost.Equal(d("0.00012")) || l.Above != 0 {
		t.Errorf("%+v", l)
	}
	cost, err = c.Cost("openai", "gpt-long", usage(t, map[Unit]string{InputTokens: "600000", OutputTokens: "1"}), noon)
	if err != nil || cost.Lines[0].Unit == InputTokens && cost.Lines[0].Above != 500_000 {
		t.Errorf("%+v, %v", cost.Lines, err)
	}
	if cost, err = c.Cost("google", "gemini-none", usage(t, map[Unit]string{InputTokens: "1"}), noon); err != nil || !cost.Total.IsZero() || !slices.Equal(cost.Unpriced, []Unit{InputTokens}) {
		t.Errorf("%+v, %v", cost, err)
	}
}

func TestCostRefuses(t *testing.T) {
	c := own(t)
	for name, test := range map[string]struct {
		c               *Catalogue
		provider, model string
		usage           map[Unit]string
		code            credit.Code
		says            string
	}{
		"more cached than read":         {c, "openai", "gpt-small", map[Unit]string{InputTokens: "5", CacheReadTokens: "6"}, credit.InvalidUsage, "more within input_tokens than the 5"},
		"parts are more than the whole": {c, "openai", "gpt-hear", map[Unit]string{InputTokens: "9", CacheReadTokens: "5", InputAudioTokens: "5"}, credit.InvalidUsage, "input_tokens"},
		"a part without the whole":      {c, "openai", "gpt-small", map[Unit]string{OutputReasoningTokens: "5"}, credit.InvalidUsage, "5 output_reasoning_tokens cannot be within 0 output_tokens"},
		"two prices for one token":      {lite(t), "openai", "gpt-voice", map[Unit]string{InputTokens: "9", CacheReadTokens: "5", InputAudioTokens: "5", CacheAudioReadTokens: "1"}, credit.NoRate, "none of their own"},
		"a price that cannot be":        {lite(t), "openai", "wrong", map[Unit]string{InputTokens: "1"}, credit.NoRate, "negative"},
		"no such model":                 {c, "openai", "gpt", nil, credit.UnknownModel, ""},
		"no such provider":              {c, "opel", "gpt-small", nil, credit.UnknownProvider, ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := usage(t, test.usage)
			_, err := test.c.Cost(test.provider, test.model, u, noon)
			wantCode(t, err, test.code)
			if err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("it says %q", err)
			}
			_, err = test.c.Lines(Extraction{Provider: test.provider, ModelRef: test.model, Usage: u}, noon, "")
			wantCode(t, err, test.code)
		})
	}
}

func TestUsageRefuses(t *testing.T) {
	var u Usage
	for _, n := range []string{"-1", "0.5", "9007199254740992", "1e30", "1e-200"} {
		wantCode(t, u.Set(InputTokens, d(n)), credit.InvalidUsage)
	}
	wantCode(t, u.Set(200, d("1")), credit.InvalidUsage)
	for _, s := range []string{`[]`, `{"input_tokens": 1}`, `{"moon_tokens": "1"}`, `{"input_tokens": "-1"}`, `{"input_tokens": ""}`} {
		wantCode(t, u.UnmarshalJSON([]byte(s)), credit.InvalidUsage)
	}
	if u.Reported(InputTokens) || u.String() != "nothing" {
		t.Errorf("%s", u)
	}
	if err := u.Set(InputAudioSeconds, d("1.25")); err != nil || u.String() != "1.25 input_audio_seconds" || !u.Count(InputAudioSeconds).Equal(d("1.25")) {
		t.Errorf("%s, %v", u, err)
	}
}

// Units contain one another by what sets them apart, and only within their family.
func TestUnits(t *testing.T) {
	for _, test := range []struct {
		around, within Unit
		want           bool
	}{
		{InputTokens, CacheAudioReadTokens, true}, {CacheReadTokens, CacheAudioReadTokens, true}, {InputAudioTokens, CacheAudioReadTokens, true},
		{CacheWriteTokens, CacheWrite1hTokens, true}, {InputTokens, InputTokens, true}, {CacheReadTokens, InputTokens, false},
		{InputTokens, OutputTokens, false}, {OutputTokens, OutputReasoningTokens, true}, {AudioSeconds, InputAudioSeconds, true}, {Requests, InputTokens, false},
		{InputDocumentPages, InputAnnotatedDocumentPages, true}, {WebSearches, SocialSearches, false},
	} {
		if test.around.Contains(test.within) != test.want {
			t.Errorf("%s contains %s: %t", test.around, test.within, !test.want)
		}
	}
	for unit, want := range map[Unit]string{InputTokens: "input", OutputTokens: "output", CacheWrite1hTokens: "cache_write_1h", InputAudioTokens: "input_audio",
		OutputReasoningTokens: "reasoning", OutputCitationTokens: "citation", CacheAudioReadTokens: "cache_audio_read", WebSearches: "web_searches"} {
		if got := unit.Type(); got != want {
			t.Errorf("%s is %q", unit, got)
		}
		if back, ok := ParseUnit(unit.String()); !ok || back != unit {
			t.Errorf("%s is read as %s", unit, back)
		}
	}
	seen := map[string]Unit{}
	for u := range numUnits {
		if u.String() == "" || units[u].per == 0 {
			t.Errorf("unit %d is not described", u)
		}
		if v, twice := seen[u.Type()]; twice {
			t.Errorf("%s and %s are both %q", u, v, u.Type())
		}
		seen[u.Type()] = u
	}
}
