package provider

import (
	"strings"
	"testing"
)

// typical is a response of some length whose usage stands at its end.
var typical = []byte(`{"id":"chatcmpl-1","object":"chat.completion","created":1781500000,"model":"gpt-small-0714","choices":[{"index":0,"message":{"role":"assistant","content":"` +
	strings.Repeat("Some words of an answer, and a \\\"quotation\\\". ", 40) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500,` +
	`"prompt_tokens_details":{"cached_tokens":1024,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":128,"audio_tokens":0}},"service_tier":"default"}`)

func BenchmarkExtract(b *testing.B) {
	c := own(b)
	for name, r := range map[string]Response{
		"named": {Provider: "openai", Flavour: "chat", Body: typical},
		"found": {Body: typical},
		"usage": {Provider: "openai", Flavour: "chat", Model: "gpt-small", Usage: typical[strings.Index(string(typical), `"usage":`)+8 : strings.LastIndex(string(typical), `,"service`)]},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Extract(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkExtractAndCost(b *testing.B) {
	for name, c := range map[string]*Catalogue{"own": own(b)} {
		b.Run(name, func(b *testing.B) { benchmarkCost(b, c, "openai", "") })
	}
	b.Run("real", func(b *testing.B) { benchmarkCost(b, realCatalogue(b), "openai", "gpt-4o-2024-08-06") })
	b.Run("openrouter", func(b *testing.B) { benchmarkCost(b, realCatalogue(b), "openrouter", "openai/gpt-5-mini") })
}

func benchmarkCost(b *testing.B, c *Catalogue, provider, model string) {
	b.ReportAllocs()
	for b.Loop() {
		x, err := c.Extract(Response{Provider: provider, Flavour: "chat", Model: model, Body: typical})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Cost(x.Provider, x.ModelRef, x.Usage, noon); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLines(b *testing.B) {
	c := own(b)
	x, err := c.Extract(Response{Body: typical})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Lines(x, noon, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	doc := shared(b, "data/genai-prices/data.json")
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if _, err := ParseGenAIPrices(doc); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFind holds the lookup against trying the clauses of all models one after another.
func BenchmarkFind(b *testing.B) {
	s := realCatalogue(b).byID["openrouter"]
	ref := "z-ai/glm-4.6"
	b.Run("lookup", func(b *testing.B) {
		for b.Loop() {
			if s.matcher.find(ref) == none {
				b.Fatal("not found")
			}
		}
	})
	b.Run("scan", func(b *testing.B) {
		for b.Loop() {
			found := false
			for _, m := range s.models {
				if found = m.match.match(ref); found {
					break
				}
			}
			if !found {
				b.Fatal("not found")
			}
		}
	})
}
