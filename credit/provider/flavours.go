package provider

import "slices"

// The formats below are the providers' own documented ones, for catalogues that do not say how usage is read.

func at(names ...string) path {
	p := make(path, len(names))
	for i, n := range names {
		p[i].name = n
	}
	return p
}

func needs(u Unit, names ...string) mapping {
	return mapping{path: at(names...), unit: u, required: true}
}

func reads(u Unit, names ...string) mapping { return mapping{path: at(names...), unit: u} }

// chat is OpenAI's chat completions, as most others offer too.
var chat = extractor{flavour: "chat", root: at("usage"), modelPath: at("model"), mappings: []mapping{
	needs(InputTokens, "prompt_tokens"),
	reads(CacheReadTokens, "prompt_tokens_details", "cached_tokens"),
	reads(CacheWriteTokens, "prompt_tokens_details", "cache_write_tokens"),
	reads(InputAudioTokens, "prompt_tokens_details", "audio_tokens"),
	reads(OutputAudioTokens, "completion_tokens_details", "audio_tokens"),
	reads(OutputReasoningTokens, "completion_tokens_details", "reasoning_tokens"),
	needs(OutputTokens, "completion_tokens"),
}}

// openAIResponses is OpenAI's responses API.
var openAIResponses = extractor{flavour: "responses", root: at("usage"), modelPath: at("model"), mappings: []mapping{
	needs(InputTokens, "input_tokens"),
	reads(CacheReadTokens, "input_tokens_details", "cached_tokens"),
	reads(CacheWriteTokens, "input_tokens_details", "cache_write_tokens"),
	reads(OutputReasoningTokens, "output_tokens_details", "reasoning_tokens"),
	needs(OutputTokens, "output_tokens"),
}}

// embeddings is OpenAI's embeddings API.
var embeddings = extractor{flavour: "embeddings", root: at("usage"), modelPath: at("model"), mappings: []mapping{
	needs(InputTokens, "prompt_tokens"),
}}

// anthropicMessages is Anthropic's messages API, whose input_tokens leave out what was read from and written to the cache.
var anthropicMessages = extractor{flavour: "anthropic", root: at("usage"), modelPath: at("model"), mappings: []mapping{
	needs(InputTokens, "input_tokens"),
	reads(InputTokens, "cache_creation_input_tokens"),
	reads(InputTokens, "cache_read_input_tokens"),
	reads(CacheWriteTokens, "cache_creation_input_tokens"),
	reads(CacheWrite5mTokens, "cache_creation", "ephemeral_5m_input_tokens"),
	reads(CacheWrite1hTokens, "cache_creation", "ephemeral_1h_input_tokens"),
	reads(CacheReadTokens, "cache_read_input_tokens"),
	reads(WebSearches, "server_tool_use", "web_search_requests"),
	needs(OutputTokens, "output_tokens"),
}}

// converse is Amazon Bedrock's converse API. The response does not name the model.
var converse = extractor{flavour: "converse", root: at("usage"), modelPath: at("model"), mappings: []mapping{
	needs(InputTokens, "inputTokens"),
	reads(InputTokens, "cacheReadInputTokens"),
	reads(InputTokens, "cacheWriteInputTokens"),
	reads(CacheReadTokens, "cacheReadInputTokens"),
	reads(CacheWriteTokens, "cacheWriteInputTokens"),
	needs(OutputTokens, "outputTokens"),
}}

// generateContent is Google's Gemini API. promptTokenCount includes what was cached, candidatesTokenCount leaves the thoughts out.
var generateContent = extractor{flavour: "gemini", root: at("usageMetadata"), modelPath: at("modelVersion"), mappings: []mapping{
	reads(InputTokens, "promptTokenCount"),
	reads(InputTokens, "toolUsePromptTokenCount"),
	reads(CacheReadTokens, "cachedContentTokenCount"),
	reads(InputToolTokens, "toolUsePromptTokenCount"),
	reads(OutputTokens, "candidatesTokenCount"),
	reads(OutputTokens, "thoughtsTokenCount"),
	reads(OutputReasoningTokens, "thoughtsTokenCount"),
}}

// voyage is Voyage AI's embeddings and rerankings, which count what went in as the total.
var voyage = extractor{flavour: "embeddings", root: at("usage"), modelPath: at("model"), mappings: []mapping{
	needs(InputTokens, "total_tokens"),
}}

// flavoursOf is what is added to the providers of a genai-prices catalogue that offer a format which it has no extractor of.
var flavoursOf = map[string][]*extractor{
	"avian": {&chat}, "aws": {&chat, &openAIResponses}, "novita": {&chat, &embeddings}, "together": {&chat, &embeddings}, "voyageai": {&voyage},
}

// addFlavours gives a provider the flavours known here that its catalogue lacks.
func addFlavours(s *seller) {
	for _, e := range flavoursOf[s.id] {
		if !slices.ContainsFunc(s.extractors, func(have *extractor) bool { return have.flavour == e.flavour }) {
			s.extractors = append(s.extractors, e)
		}
	}
}
