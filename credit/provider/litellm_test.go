package provider

import (
	"slices"
	"strings"
	"testing"

	"github.com/tallystick/tallystick/credit"
)

// TestLiteLLM has costs computed by hand from testdata/litellm.json.
func TestLiteLLM(t *testing.T) {
	c := lite(t)
	type counts = map[Unit]string
	for name, test := range map[string]struct {
		provider, model, service string
		usage                    counts
		total, tier              string
	}{
		"standard":                  {"openai", "gpt-multi", "", counts{InputTokens: "1000", CacheReadTokens: "400", OutputTokens: "10"}, "0.0009", ""},
		"flex":                      {"openai", "gpt-multi", "flex", counts{InputTokens: "1000", CacheReadTokens: "400", OutputTokens: "10"}, "0.00045", "flex"},
		"batch without cache price": {"openai", "gpt-multi", "batch", counts{InputTokens: "1000", CacheReadTokens: "400", OutputTokens: "10"}, "0.000475", "batch"},
		"priority":                  {"", "gpt-multi", "priority", counts{InputTokens: "1000", OutputTokens: "10"}, "0.0027", "priority"},
		"an unknown tier":           {"openai", "gpt-multi", "turbo", counts{InputTokens: "1000", OutputTokens: "10"}, "0.00135", ""},
		"by its whole name":         {"azure", "azure/gpt-multi", "", counts{InputTokens: "1000", OutputTokens: "10"}, "0.001485", ""},
		"by its short name":         {"azure", "GPT-multi", "", counts{InputTokens: "1000", OutputTokens: "10"}, "0.001485", ""},
		"at the threshold":          {"anthropic", "claude-long", "", counts{InputTokens: "200000", OutputTokens: "100"}, "0.6015", ""},
		// 6 * (300000 - 10 - 20) + 0.6 * 10 + 7.5 * 12 + 12 * 8; 22.5 * 100; 2 searches
		"above it":            {"anthropic", "claude-long", "", counts{InputTokens: "300000", CacheReadTokens: "10", CacheWriteTokens: "20", CacheWrite1hTokens: "8", OutputTokens: "100", WebSearches: "2"}, "1.822262", ""},
		"in the first step":   {"dashscope", "qwen-steps", "", counts{InputTokens: "32000", OutputTokens: "1"}, "0.032004", ""},
		"in the second":       {"dashscope", "qwen-steps", "", counts{InputTokens: "32001", OutputTokens: "1"}, "0.06401", ""},
		"a picture":           {"openai", "hd", "", counts{OutputImages: "3"}, "0.12", ""},
		"speech, once":        {"openai", "scribe-1", "", counts{InputAudioSeconds: "90"}, "0.009", ""},
		"a query":             {"cohere", "ranker", "", counts{RerankSearches: "4"}, "0.008", ""},
		"what can be counted": {"openai", "odd-search", "", counts{InputTokens: "10", OutputTokens: "5"}, "0.00002", ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := usage(t, test.usage)
			u.ServiceTier = test.service
			cost, err := c.Cost(test.provider, test.model, u, noon)
			if err != nil || !cost.Total.Equal(d(test.total)) || cost.ServiceTier != test.tier {
				t.Errorf("%s in tier %q, not %s in %q: %v, %+v", cost.Total, cost.ServiceTier, test.total, test.tier, err, cost.Lines)
			}
		})
	}
}

func TestLiteLLMSaysWhatItCannotUse(t *testing.T) {
	c := lite(t)
	want := map[string]string{
		"/odd-search/search_context_cost_per_query":     "which responses do not say",
		"/odd-search/code_interpreter_cost_per_session": "nothing that responses count",
		"/long-only":                  "for long contexts and none for others",
		"/wrong/input_cost_per_token": "negative",
		"/nobody":                     "left out",
		"/GPT-Multi":                  "but for case",
		"/list":                       "no object",
	}
	issues, n := c.Unusable()
	for _, i := range issues {
		if says := want[i.Pointer]; says == "" || !strings.Contains(i.Detail, says) {
			t.Errorf("%s: %s", i.Pointer, i.Detail)
		}
	}
	if n != len(want) || len(issues) != n {
		t.Errorf("%d issues: %v", n, issues)
	}
	if got, want := c.Coverage(), (Coverage{Providers: 8, Models: 14, Whole: 11, Part: 2, None: 1}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	f, err := c.Find("openai", "odd-search")
	if err != nil || !slices.Equal(f.Uncounted, []string{"code_interpreter_cost_per_session", "search_context_cost_per_query"}) {
		t.Errorf("%+v, %v", f, err)
	}
	for _, s := range []string{`[]`, `{`, `3`} {
		_, err := ParseLiteLLM([]byte(s))
		wantCode(t, err, credit.InvalidRequest)
	}
}

// Every cost that the format's schema names is either of a unit here or left, knowingly.
func TestLiteLLMFields(t *testing.T) {
	for name, want := range map[string]string{
		"input_cost_per_token":                                        "input_tokens",
		"input_cost_per_token_above_272k_tokens_priority":             "input_tokens priority above_272k",
		"input_cost_per_token_batches":                                "input_tokens batch",
		"cache_creation_input_token_cost_above_1hr_above_200k_tokens": "cache_write_1h_tokens above_200k",
		"cache_creation_input_token_cost_above_272k_tokens_flex":      "cache_write_tokens flex above_272k",
		"cache_read_input_audio_token_cost":                           "cache_audio_read_tokens",
		"input_cost_per_audio_token_priority":                         "input_audio_tokens priority",
		"input_cost_per_audio_per_second_above_128k_tokens":           "input_audio_seconds above_128k",
		"output_cost_per_reasoning_token":                             "output_reasoning_tokens",
		"output_cost_per_character_above_128k_tokens":                 "output_characters above_128k",
		"input_cost_per_query":                                        "requests",
		"annotation_cost_per_page":                                    "",
		"code_interpreter_cost_per_session":                           "",
		"google_maps_grounding_cost_per_query":                        "",
		"guardrail_cost_per_unit":                                     "",
		"input_cost_per_video_per_second_above_15s_interval":          "",
		"input_dbu_cost_per_token":                                    "",
		"ocr_cost_per_credit":                                         "",
		"output_cost_per_pixel":                                       "",
		"output_cost_per_second_1080p":                                "",
		"regional_processing_uplift_multiplier_eu":                    "",
		"input_cost_per_token_above_0k_tokens":                        "",
		"k_tokens":                                                    "",
	} {
		unit, service, above, known := liteCost(name, "chat")
		got := ""
		if known {
			got = unit.String()
			if service != "" {
				got += " " + service
			}
			if above != 0 {
				got += " " + contextName(above)
			}
		}
		if got != want {
			t.Errorf("%s is of %q, not %q", name, got, want)
		}
	}
	if unit, _, _, known := liteCost("output_cost_per_second", "video_generation"); !known || unit != OutputVideoSeconds {
		t.Errorf("%s", unit)
	}
}
