package provider

import (
	"math/bits"
	"strings"

	"github.com/shopspring/decimal"
)

// Unit is something that providers count and charge for, such as cache_read_tokens. Units contain one another: whatever is a
// cache_audio_read_token is also a cache_read_token, an input_audio_token and an input_token.
type Unit uint8

// The units of the genai-prices registry, and below output_characters some that only LiteLLM's prices know.
const (
	InputTokens Unit = iota
	OutputTokens
	CacheReadTokens
	CacheWriteTokens
	CacheWrite5mTokens
	CacheWrite1hTokens
	InputTextTokens
	OutputTextTokens
	CacheTextReadTokens
	CacheTextWriteTokens
	CacheTextWrite5mTokens
	CacheTextWrite1hTokens
	InputAudioTokens
	OutputAudioTokens
	CacheAudioReadTokens
	CacheAudioWriteTokens
	CacheAudioWrite5mTokens
	CacheAudioWrite1hTokens
	InputImageTokens
	OutputImageTokens
	CacheImageReadTokens
	CacheImageWriteTokens
	CacheImageWrite5mTokens
	CacheImageWrite1hTokens
	InputVideoTokens
	OutputVideoTokens
	CacheVideoReadTokens
	CacheVideoWriteTokens
	CacheVideoWrite5mTokens
	CacheVideoWrite1hTokens
	InputToolTokens
	InputTextToolTokens
	InputAudioToolTokens
	InputImageToolTokens
	InputVideoToolTokens
	OutputReasoningTokens
	OutputTextReasoningTokens
	OutputAudioReasoningTokens
	OutputImageReasoningTokens
	OutputVideoReasoningTokens
	OutputCitationTokens
	OutputTextCitationTokens
	OutputAudioCitationTokens
	OutputImageCitationTokens
	OutputVideoCitationTokens
	InputCharacters
	InputTextMessages
	AudioSeconds
	InputAudioSeconds
	OutputAudioSeconds
	InputPixels
	InputDocumentPages
	InputAnnotatedDocumentPages
	RerankSearches
	WebSearches
	SocialSearches
	StorageSearches
	CodeExecutions
	Requests
	OutputCharacters
	InputImages
	OutputImages
	InputVideoSeconds
	OutputVideoSeconds

	numUnits
)

// family is what a unit counts. Only units of one family contain one another. It is also the meter of its lines on a rate card,
// except that tokens may be called otherwise.
type family string

const (
	tokens     family = "tokens"
	characters family = "characters"
	messages   family = "messages"
	seconds    family = "seconds"
	pixels     family = "pixels"
	images     family = "images"
	pages      family = "pages"
	searches   family = "searches"
	toolCalls  family = "tool_calls"
	requests   family = "requests"
)

// traits are what sets a unit apart in its family: a unit contains those that have all of its traits.
type traits uint32

const (
	in traits = 1 << iota
	out
	text
	audio
	image
	video
	cacheRead
	cacheWrite
	tool
	reasoning
	citation
	ttl5m
	ttl1h
	annotated
	webSearch
	socialSearch
	storageSearch
	codeExecution
)

type unitInfo struct {
	name     string // as usage has it
	priceKey string // as genai-prices has it; "": only LiteLLM has prices of it
	per      int64  // how many of the unit a price is for
	family   family
	traits   traits
}

var units = [numUnits]unitInfo{
	InputTokens:                 {"input_tokens", "input_mtok", 1_000_000, tokens, in},
	OutputTokens:                {"output_tokens", "output_mtok", 1_000_000, tokens, out},
	CacheReadTokens:             {"cache_read_tokens", "cache_read_mtok", 1_000_000, tokens, in | cacheRead},
	CacheWriteTokens:            {"cache_write_tokens", "cache_write_mtok", 1_000_000, tokens, in | cacheWrite},
	CacheWrite5mTokens:          {"cache_write_5m_tokens", "cache_write_5m_mtok", 1_000_000, tokens, in | cacheWrite | ttl5m},
	CacheWrite1hTokens:          {"cache_write_1h_tokens", "cache_write_1h_mtok", 1_000_000, tokens, in | cacheWrite | ttl1h},
	InputTextTokens:             {"input_text_tokens", "input_text_mtok", 1_000_000, tokens, in | text},
	OutputTextTokens:            {"output_text_tokens", "output_text_mtok", 1_000_000, tokens, out | text},
	CacheTextReadTokens:         {"cache_text_read_tokens", "cache_text_read_mtok", 1_000_000, tokens, in | text | cacheRead},
	CacheTextWriteTokens:        {"cache_text_write_tokens", "cache_text_write_mtok", 1_000_000, tokens, in | text | cacheWrite},
	CacheTextWrite5mTokens:      {"cache_text_write_5m_tokens", "cache_text_write_5m_mtok", 1_000_000, tokens, in | text | cacheWrite | ttl5m},
	CacheTextWrite1hTokens:      {"cache_text_write_1h_tokens", "cache_text_write_1h_mtok", 1_000_000, tokens, in | text | cacheWrite | ttl1h},
	InputAudioTokens:            {"input_audio_tokens", "input_audio_mtok", 1_000_000, tokens, in | audio},
	OutputAudioTokens:           {"output_audio_tokens", "output_audio_mtok", 1_000_000, tokens, out | audio},
	CacheAudioReadTokens:        {"cache_audio_read_tokens", "cache_audio_read_mtok", 1_000_000, tokens, in | audio | cacheRead},
	CacheAudioWriteTokens:       {"cache_audio_write_tokens", "cache_audio_write_mtok", 1_000_000, tokens, in | audio | cacheWrite},
	CacheAudioWrite5mTokens:     {"cache_audio_write_5m_tokens", "cache_audio_write_5m_mtok", 1_000_000, tokens, in | audio | cacheWrite | ttl5m},
	CacheAudioWrite1hTokens:     {"cache_audio_write_1h_tokens", "cache_audio_write_1h_mtok", 1_000_000, tokens, in | audio | cacheWrite | ttl1h},
	InputImageTokens:            {"input_image_tokens", "input_image_mtok", 1_000_000, tokens, in | image},
	OutputImageTokens:           {"output_image_tokens", "output_image_mtok", 1_000_000, tokens, out | image},
	CacheImageReadTokens:        {"cache_image_read_tokens", "cache_image_read_mtok", 1_000_000, tokens, in | image | cacheRead},
	CacheImageWriteTokens:       {"cache_image_write_tokens", "cache_image_write_mtok", 1_000_000, tokens, in | image | cacheWrite},
	CacheImageWrite5mTokens:     {"cache_image_write_5m_tokens", "cache_image_write_5m_mtok", 1_000_000, tokens, in | image | cacheWrite | ttl5m},
	CacheImageWrite1hTokens:     {"cache_image_write_1h_tokens", "cache_image_write_1h_mtok", 1_000_000, tokens, in | image | cacheWrite | ttl1h},
	InputVideoTokens:            {"input_video_tokens", "input_video_mtok", 1_000_000, tokens, in | video},
	OutputVideoTokens:           {"output_video_tokens", "output_video_mtok", 1_000_000, tokens, out | video},
	CacheVideoReadTokens:        {"cache_video_read_tokens", "cache_video_read_mtok", 1_000_000, tokens, in | video | cacheRead},
	CacheVideoWriteTokens:       {"cache_video_write_tokens", "cache_video_write_mtok", 1_000_000, tokens, in | video | cacheWrite},
	CacheVideoWrite5mTokens:     {"cache_video_write_5m_tokens", "cache_video_write_5m_mtok", 1_000_000, tokens, in | video | cacheWrite | ttl5m},
	CacheVideoWrite1hTokens:     {"cache_video_write_1h_tokens", "cache_video_write_1h_mtok", 1_000_000, tokens, in | video | cacheWrite | ttl1h},
	InputToolTokens:             {"input_tool_tokens", "input_tool_mtok", 1_000_000, tokens, in | tool},
	InputTextToolTokens:         {"input_text_tool_tokens", "input_text_tool_mtok", 1_000_000, tokens, in | text | tool},
	InputAudioToolTokens:        {"input_audio_tool_tokens", "input_audio_tool_mtok", 1_000_000, tokens, in | audio | tool},
	InputImageToolTokens:        {"input_image_tool_tokens", "input_image_tool_mtok", 1_000_000, tokens, in | image | tool},
	InputVideoToolTokens:        {"input_video_tool_tokens", "input_video_tool_mtok", 1_000_000, tokens, in | video | tool},
	OutputReasoningTokens:       {"output_reasoning_tokens", "output_reasoning_mtok", 1_000_000, tokens, out | reasoning},
	OutputTextReasoningTokens:   {"output_text_reasoning_tokens", "output_text_reasoning_mtok", 1_000_000, tokens, out | text | reasoning},
	OutputAudioReasoningTokens:  {"output_audio_reasoning_tokens", "output_audio_reasoning_mtok", 1_000_000, tokens, out | audio | reasoning},
	OutputImageReasoningTokens:  {"output_image_reasoning_tokens", "output_image_reasoning_mtok", 1_000_000, tokens, out | image | reasoning},
	OutputVideoReasoningTokens:  {"output_video_reasoning_tokens", "output_video_reasoning_mtok", 1_000_000, tokens, out | video | reasoning},
	OutputCitationTokens:        {"output_citation_tokens", "output_citation_mtok", 1_000_000, tokens, out | citation},
	OutputTextCitationTokens:    {"output_text_citation_tokens", "output_text_citation_mtok", 1_000_000, tokens, out | text | citation},
	OutputAudioCitationTokens:   {"output_audio_citation_tokens", "output_audio_citation_mtok", 1_000_000, tokens, out | audio | citation},
	OutputImageCitationTokens:   {"output_image_citation_tokens", "output_image_citation_mtok", 1_000_000, tokens, out | image | citation},
	OutputVideoCitationTokens:   {"output_video_citation_tokens", "output_video_citation_mtok", 1_000_000, tokens, out | video | citation},
	InputCharacters:             {"input_characters", "input_mchars", 1_000_000, characters, in},
	InputTextMessages:           {"input_text_messages", "input_text_messages_kcount", 1_000, messages, in | text},
	AudioSeconds:                {"audio_seconds", "audio_hours", 3_600, seconds, audio},
	InputAudioSeconds:           {"input_audio_seconds", "input_audio_hours", 3_600, seconds, in | audio},
	OutputAudioSeconds:          {"output_audio_seconds", "output_audio_hours", 3_600, seconds, out | audio},
	InputPixels:                 {"input_pixels", "input_gpixels", 1_000_000_000, pixels, in},
	InputDocumentPages:          {"input_document_pages", "input_document_kpages", 1_000, pages, in},
	InputAnnotatedDocumentPages: {"input_annotated_document_pages", "input_annotated_document_kpages", 1_000, pages, in | annotated},
	RerankSearches:              {"rerank_searches", "rerank_searches_kcount", 1_000, searches, 0},
	WebSearches:                 {"web_searches", "web_searches_kcount", 1_000, toolCalls, webSearch},
	SocialSearches:              {"social_searches", "social_searches_kcount", 1_000, toolCalls, socialSearch},
	StorageSearches:             {"storage_searches", "storage_searches_kcount", 1_000, toolCalls, storageSearch},
	CodeExecutions:              {"code_executions", "code_executions_kcount", 1_000, toolCalls, codeExecution},
	Requests:                    {"requests", "requests_kcount", 1_000, requests, 0},
	OutputCharacters:            {"output_characters", "", 1_000_000, characters, out},
	InputImages:                 {"input_images", "", 1, images, in},
	OutputImages:                {"output_images", "", 1, images, out},
	InputVideoSeconds:           {"input_video_seconds", "", 3_600, seconds, in | video},
	OutputVideoSeconds:          {"output_video_seconds", "", 3_600, seconds, out | video},
}

// unitSet is a set of units: one bit for each.
type unitSet uint64

const _ = uint(64 - numUnits) // a unitSet has a bit for each unit

func (s unitSet) has(u Unit) bool { return s>>u&1 == 1 }

func (s *unitSet) add(u Unit) { *s |= 1 << u }

// all ranges over the units of the set, in order.
func (s unitSet) all(yield func(Unit) bool) {
	for ; s != 0; s &= s - 1 {
		if !yield(Unit(bits.TrailingZeros64(uint64(s)))) {
			return
		}
	}
}

var (
	within        [numUnits]unitSet // the units that a unit contains, without itself
	around        [numUnits]unitSet // the units that contain a unit, without itself
	finestFirst   [numUnits]Unit    // every unit before those that contain it
	unitsByName   = map[string]Unit{}
	unitsByKey    = map[string]Unit{}
	unitLineTypes [numUnits]string // see Type
)

func init() {
	for u := range numUnits {
		i := &units[u]
		unitsByName[i.name] = u
		if i.priceKey != "" {
			unitsByKey[i.priceKey] = u
		}
		for v := range numUnits {
			if u != v && i.family == units[v].family && i.traits&units[v].traits == i.traits {
				within[u].add(v)
				around[v].add(u)
			}
		}
		switch {
		case i.family != tokens:
			unitLineTypes[u] = i.name
		case i.traits&(reasoning|citation) != 0:
			unitLineTypes[u] = strings.TrimSuffix(strings.TrimPrefix(i.name, "output_"), "_tokens")
		default:
			unitLineTypes[u] = strings.TrimSuffix(i.name, "_tokens")
		}
	}
	n := 0
	for count := bits.UintSize - 1; count >= 0; count-- {
		for u := range numUnits {
			if bits.OnesCount32(uint32(units[u].traits)) == count {
				finestFirst[n] = u
				n++
			}
		}
	}
}

// ParseUnit reads a unit's name, such as "input_tokens".
func ParseUnit(name string) (Unit, bool) {
	u, ok := unitsByName[name]
	return u, ok
}

func (u Unit) String() string {
	if u >= numUnits {
		return "unknown unit"
	}
	return units[u].name
}

// Type is the unit's token_type on a rate card: input, output, cache_read, cache_write_1h, input_audio, reasoning, …; of a unit
// that counts no tokens, its name.
func (u Unit) Type() string { return unitLineTypes[u] }

// Per is how many of the unit a price is for: 1,000,000 tokens, 1,000 searches, 3,600 seconds.
func (u Unit) Per() decimal.Decimal { return decimal.New(units[u].per, 0) }

// Contains tells whether every v is also a u; a unit contains itself.
func (u Unit) Contains(v Unit) bool { return u == v || within[u].has(v) }

// places is how many decimal places a count of the unit may have: seconds go down to microseconds, all else is whole.
func (u Unit) places() int32 {
	if units[u].family == seconds {
		return 6
	}
	return 0
}
