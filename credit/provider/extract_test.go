package provider

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tallystick/tallystick/credit"
)

// TestExtract reads responses of every flavour, written by hand after the providers' descriptions.
func TestExtract(t *testing.T) {
	for name, test := range map[string]struct {
		catalogue func(testing.TB) *Catalogue
		response  Response
		body      string
		provider  string
		flavour   string
		model     string
		usage     string // as MarshalJSON writes it
		unread    string // pointers
	}{
		"chat": {own, Response{Provider: "openai", Flavour: "chat"},
			`{"id": "c1", "object": "chat.completion", "model": "gpt-small-0714", "choices": [{"message": {"content": "He said \"usage\": {}"}}],
			  "usage": {"prompt_tokens": 1200, "completion_tokens": 300, "total_tokens": 1500,
			    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 128}}, "service_tier": "default"}`,
			"openai", "chat", "gpt-small",
			`{"cache_read_tokens":"1024","input_audio_tokens":"0","input_tokens":"1200","output_reasoning_tokens":"128","output_tokens":"300"}`, "/total_tokens"},
		"chat found by itself": {own, Response{},
			`{"model": "gpt-small", "usage": {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": null, "cost": 0.01}, "service_tier": "flex"}`,
			"openai", "chat", "gpt-small", `{"input_tokens":"5","output_tokens":"2","service_tier":"flex"}`, "/cost"},
		"responses found by itself": {own, Response{},
			`{"model": "gpt-long-2", "usage": {"input_tokens": 300001, "input_tokens_details": {"cached_tokens": 7}, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 0}}}`,
			"openai", "responses", "gpt-long", `{"cache_read_tokens":"7","input_tokens":"300001","output_reasoning_tokens":"0","output_tokens":"9"}`, ""},
		"realtime": {own, Response{Provider: "openai"},
			`{"type": "response.done", "response": {"model": "gpt-hear-1", "usage": {"total_tokens": 253, "input_tokens": 132, "output_tokens": 121,
			  "input_token_details": {"text_tokens": 119, "audio_tokens": 13, "cached_tokens": 64, "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4}},
			  "output_token_details": {"text_tokens": 30, "audio_tokens": 91}}}}`,
			"openai", "realtime", "gpt-hear",
			`{"cache_audio_read_tokens":"4","cache_read_tokens":"64","input_audio_tokens":"13","input_tokens":"132","output_audio_tokens":"91","output_tokens":"121"}`,
			"/total_tokens /input_token_details/text_tokens /input_token_details/cached_tokens_details/text_tokens /output_token_details/text_tokens"},
		"fractions of seconds": {own, Response{Provider: "OpenAI", Flavour: "speech", Model: "scribe-2"},
			`{"text": "…", "usage": {"type": "duration", "seconds": 12.5}}`, "openai", "speech", "gpt-scribe", `{"input_audio_seconds":"12.5"}`, ""},
		"messages": {own, Response{Provider: "anthropic"},
			`{"type": "message", "model": "claude-verse-2026", "content": [], "usage": {"input_tokens": 21, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 4000,
			  "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}, "output_tokens": 393,
			  "server_tool_use": {"web_search_requests": 2}, "service_tier": "priority"}}`,
			"anthropic", "default", "claude-verse",
			`{"cache_read_tokens":"4000","cache_write_1h_tokens":"200","cache_write_tokens":"300","input_tokens":"4321","output_tokens":"393","service_tier":"priority","web_searches":"2"}`,
			"/cache_creation/ephemeral_5m_input_tokens"},
		"messages at another's": {own, Response{Provider: "google-vertex"},
			`{"model": "claude-verse", "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 5}}`,
			"google", "anthropic", "claude-verse", `{"cache_read_tokens":"90","input_tokens":"100","output_tokens":"5"}`, ""},
		"generate content": {own, Response{},
			`{"modelVersion": "gemini-quick-001", "usageMetadata": {"promptTokenCount": 900, "cachedContentTokenCount": 100, "candidatesTokenCount": 20, "thoughtsTokenCount": 30,
			  "totalTokenCount": 950, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 400}, {"modality": "AUDIO", "tokenCount": 300}, {"modality": "AUDIO", "tokenCount": 200}]}}`,
			"google", "default", "gemini-quick",
			`{"cache_read_tokens":"100","input_audio_tokens":"500","input_tokens":"900","output_reasoning_tokens":"30","output_tokens":"50"}`,
			"/totalTokenCount /promptTokensDetails/0/tokenCount"},
		"billed units": {own, Response{Provider: "nocturne", Model: "ranker"}, `{"meta": {"billed": {"searches": 3, "pages": 1}}}`,
			"nocturne", "billed", "ranker", `{"input_document_pages":"1","rerank_searches":"3"}`, ""},
		"converse": {lite, Response{Provider: "bedrock", Flavour: "converse", Model: "amazon.nova"},
			`{"output": {}, "usage": {"inputTokens": 40, "cacheReadInputTokens": 60, "cacheWriteInputTokens": 5, "outputTokens": 7, "totalTokens": 112}}`,
			"bedrock", "converse", "amazon.nova", `{"cache_read_tokens":"60","cache_write_tokens":"5","input_tokens":"105","output_tokens":"7"}`, "/totalTokens"},
		"gemini for LiteLLM": {lite, Response{Provider: "gemini", Model: "gemini/quick"},
			`{"usageMetadata": {"promptTokenCount": 10, "toolUsePromptTokenCount": 4, "candidatesTokenCount": 2, "thoughtsTokenCount": 1}}`,
			"gemini", "gemini", "gemini/quick", `{"input_tokens":"14","input_tool_tokens":"4","output_reasoning_tokens":"1","output_tokens":"3"}`, ""},
		"messages for LiteLLM": {lite, Response{},
			`{"model": "claude-long", "usage": {"input_tokens": 1, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 4}}`,
			"anthropic", "anthropic", "claude-long", `{"cache_read_tokens":"3","cache_write_tokens":"2","input_tokens":"6","output_tokens":"4"}`, ""},
		"chat for LiteLLM": {lite, Response{Provider: "azure", Model: "gpt-multi"}, `{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}`,
			"azure", "chat", "azure/gpt-multi", `{"input_tokens":"3","output_tokens":"4"}`, ""},
		"embeddings for LiteLLM": {lite, Response{Provider: "openai", Model: "gpt-multi"}, `{"usage": {"prompt_tokens": 3, "total_tokens": 3}}`,
			"openai", "embeddings", "gpt-multi", `{"input_tokens":"3"}`, "/total_tokens"},
		"voyage": {lite, Response{Provider: "voyage", Model: "voyage-9"}, `{"usage": {"total_tokens": 3}}`, "voyage", "embeddings", "voyage-9", `{"input_tokens":"3"}`, ""},
		"whole numbers written otherwise": {own, Response{Provider: "nocturne", Flavour: "chat", Model: "per-call"}, `{"usage": {"prompt_tokens": 12.0, "completion_tokens": 1e2}}`,
			"nocturne", "chat", "per-call", `{"input_tokens":"12","output_tokens":"100"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := test.catalogue(t)
			r := test.response
			r.Body = []byte(test.body)
			x, err := c.Extract(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(x.Usage)
			if err != nil {
				t.Fatal(err)
			}
			if x.Provider != test.provider || x.Flavour != test.flavour || x.Model.Model != test.model || string(got) != test.usage {
				t.Errorf("%s %s %s %s, not %s %s %s %s", x.Provider, x.Flavour, x.Model.Model, got, test.provider, test.flavour, test.model, test.usage)
			}
			var unread []string
			for _, f := range x.Unread() {
				unread = append(unread, f.Path)
			}
			if strings.Join(unread, " ") != test.unread {
				t.Errorf("unread %v, not %s", unread, test.unread)
			}

			// The usage alone, with provider, flavour and model, says the same.
			y, err := c.Extract(Response{Provider: x.Provider, Flavour: x.Flavour, Model: x.ModelRef, Usage: x.Raw})
			if y.Usage.ServiceTier = x.Usage.ServiceTier; err != nil || y.Usage != x.Usage || y.Model.Model != x.Model.Model {
				t.Errorf("of the usage alone: %v, %v", y.Usage, err)
			}
			var back Usage
			if err := json.Unmarshal(got, &back); err != nil || back != x.Usage {
				t.Errorf("read back: %v, %v", back, err)
			}
		})
	}
}

func TestExtractRefuses(t *testing.T) {
	chat := func(prompt string) string {
		return fmt.Sprintf(`{"model": "gpt-small", "usage": {"prompt_tokens": %s, "completion_tokens": 1}}`, prompt)
	}
	for name, test := range map[string]struct {
		response Response
		body     string
		code     credit.Code
		says     string
	}{
		"no such provider":        {Response{Provider: "nobody"}, chat("1"), credit.UnknownProvider, `"nobody" is not known`},
		"no provider, odd model":  {Response{}, `{"model": "moon", "usage": {}}`, credit.UnknownProvider, `"moon" does not tell`},
		"neither":                 {Response{}, `{"usage": {}}`, credit.UnknownProvider, "Neither a provider nor a model"},
		"two providers' models":   {Response{Model: "gpt-claude"}, chat("1"), credit.UnknownProvider, "openai or anthropic"},
		"two models":              {Response{}, `{"model": "gpt-small", "modelVersion": "gemini-quick", "usage": {}}`, credit.UnknownProvider, "name the provider"},
		"no such flavour":         {Response{Provider: "openai", Flavour: "telepathy"}, chat("1"), credit.UnknownFlavour, "there are chat, responses, realtime, speech"},
		"no such model":           {Response{Provider: "openai"}, `{"model": "gpt-tiny", "usage": {"prompt_tokens": 1, "completion_tokens": 1}}`, credit.UnknownModel, `"gpt-tiny" of openai`},
		"model is not named":      {Response{Provider: "openai"}, `{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}`, credit.UnknownModel, "No model is named"},
		"no usage":                {Response{Provider: "openai", Flavour: "chat"}, `{"model": "gpt-small"}`, credit.NoUsage, "nothing at usage"},
		"usage is null":           {Response{Provider: "openai", Flavour: "chat"}, `{"model": "gpt-small", "usage": null}`, credit.NoUsage, "no object at usage"},
		"no usage in any flavour": {Response{Provider: "openai"}, `{"model": "gpt-small", "error": {"message": "overloaded"}}`, credit.NoUsage, "in any format of openai"},
		"a needed count missing":  {Response{Provider: "openai", Flavour: "chat"}, `{"model": "gpt-small", "usage": {"prompt_tokens": 1}}`, credit.NoUsage, "no completion_tokens at usage"},
		"nothing known":           {Response{Provider: "google", Flavour: "default"}, `{"modelVersion": "gemini-quick", "usageMetadata": {"totalTokenCount": 5}}`, credit.NoUsage, "no known count"},
		"negative":                {Response{}, chat("-1"), credit.InvalidUsage, "-1 is negative"},
		"fraction":                {Response{}, chat("1.5"), credit.InvalidUsage, "1.5 is not a whole number"},
		"huge":                    {Response{}, chat("9007199254740992"), credit.InvalidUsage, "more than any request can use"},
		"exponent":                {Response{}, chat("1e999999999"), credit.InvalidUsage, "1e999999999 is not a number"},
		"long":                    {Response{}, chat("1" + strings.Repeat("0", 70)), credit.InvalidUsage, "too many digits"},
		"a string":                {Response{}, chat(`"12"`), credit.InvalidUsage, "not a number"},
		"a list":                  {Response{}, chat(`[1]`), credit.InvalidUsage, "not a number"},
		"details are no object":   {Response{}, `{"model": "gpt-small", "usage": {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": 5}}`, credit.InvalidUsage, "not an object"},
		"the sum overflows": {Response{}, `{"model": "claude-verse", "usage": {"input_tokens": 9007199254740991, "cache_read_input_tokens": 1, "output_tokens": 1}}`,
			credit.InvalidUsage, "more input_tokens than any request"},
		"not JSON":                       {Response{Provider: "openai"}, `{"usage": `, credit.InvalidRequest, "line 1, column 10"},
		"too deep":                       {Response{Provider: "openai", Flavour: "chat"}, `{"usage": ` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100) + "}", credit.InvalidRequest, "nested too deeply"},
		"no object":                      {Response{Provider: "openai"}, `[1]`, credit.NoUsage, "no usage"},
		"empty":                          {Response{Provider: "openai"}, ``, credit.InvalidRequest, "Either the body"},
		"no fewer than a lot of seconds": {Response{Provider: "openai", Flavour: "speech", Model: "scribe"}, `{"usage": {"seconds": 0.0000001}}`, credit.InvalidUsage, "6 decimal places"},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.response
			r.Body = []byte(test.body)
			x, err := own(t).Extract(r)
			wantCode(t, err, test.code)
			if err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("it says %q, not %q", err, test.says)
			}
			if complete := len(x.Usage.Units()) > 0; complete != (test.code == credit.UnknownModel) {
				t.Errorf("returns %+v", x)
			}
		})
	}
}

func TestExtractPointsAtTheFault(t *testing.T) {
	_, err := own(t).Extract(Response{Provider: "openai", Flavour: "realtime", Body: []byte(`{"response": {"usage": {"input_token_details": {"cached_tokens_details": {"audio_tokens": -3}}}}}`)})
	e, ok := err.(*credit.Error)
	if !ok || len(e.Issues) != 1 || e.Issues[0].Pointer != "/response/usage/input_token_details/cached_tokens_details/audio_tokens" {
		t.Errorf("%#v", err)
	}
}

// A response that two flavours read differently is refused, not guessed.
func TestExtractDoesNotGuess(t *testing.T) {
	body := []byte(`{"model": "gpt-small", "usage": {"prompt_tokens": 1, "completion_tokens": 1, "input_tokens": 2, "output_tokens": 2}}`)
	_, err := own(t).Extract(Response{Body: body})
	wantCode(t, err, credit.UnknownFlavour)
	if _, err := own(t).Extract(Response{Body: body, Flavour: "responses"}); err != nil {
		t.Errorf("named: %v", err)
	}
	// A count that one flavour cannot read is not passed over by another one.
	_, err = own(t).Extract(Response{Provider: "google", Body: []byte(`{"model": "claude-verse", "usage": {"input_tokens": 1, "cache_read_input_tokens": -9, "output_tokens": 2}}`)})
	wantCode(t, err, credit.InvalidUsage)
}

func TestProviderNames(t *testing.T) {
	c := own(t)
	for name, want := range map[string]string{"openai": "openai", " OpenAI ": "openai", "azure-openai": "openai", "Vertex": "google", "nocturne": "nocturne"} {
		if f, err := c.Find(name, map[string]string{"openai": "gpt-small", "google": "gemini-quick", "nocturne": "ranker"}[want]); err != nil || f.ServedBy != want {
			t.Errorf("%q is %q: %v", name, f.ServedBy, err)
		}
	}
	if id, err := c.ProviderByURL("https://europe.googleapis.com/v1"); err != nil || id != "google" {
		t.Errorf("%q, %v", id, err)
	}
	_, err := c.ProviderByURL("http://x/https://api.openai.com")
	wantCode(t, err, credit.UnknownProvider)
	if f, err := c.Find("google", "CLAUDE-verse-9"); err != nil || f.Provider != "anthropic" || f.ServedBy != "google" || f.Model != "claude-verse" {
		t.Errorf("%+v, %v", f, err)
	}
	if got := c.Flavours("openai"); !slices.Equal(got, []string{"chat", "responses", "realtime", "speech"}) {
		t.Errorf("%v", got)
	}
	if got := c.Providers(); !slices.Equal(got, []string{"openai", "anthropic", "google", "nocturne"}) {
		t.Errorf("%v", got)
	}
	if got := c.Models("openai"); len(got) != 5 || got[1].Name != "Long" || got[1].ContextWindow != 1000000 {
		t.Errorf("%+v", got)
	}
}
