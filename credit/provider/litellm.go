package provider

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// ParseLiteLLM reads a catalogue in the format of LiteLLM's model_prices_and_context_window.json: an object of models, each with its
// litellm_provider and costs of single units.
//
// The format grows without notice and describes charges for which a response gives no count. So an entry is used as far as it can be: what a
// response counts is charged, what the entry asks for besides is listed with the model ([Found].Uncounted) and in
// [Catalogue.Unusable]; an entry without provider or with a price that is no number is left out, or refused when it is to be
// priced. What the whole does not look like is refused by an [credit.Error] coded invalid_request.
func ParseLiteLLM(b []byte) (*Catalogue, error) {
	d, err := parseCatalogue(b)
	if err != nil {
		return nil, err
	}
	if d[0].kind != '{' {
		return nil, credit.Invalid("", "The catalogue must be an object of models.")
	}
	r := liteReader{d: d, c: &Catalogue{byID: map[string]*seller{}, byKey: map[string]*seller{}}}
	entries := 0
	d.each(0, func(i int) {
		switch key := string(d[i].name); key {
		case "sample_spec", "fallback_generalizations": // documentation, and names without prices
		default:
			if entries++; entries <= maxModels {
				r.entry(i, key)
			}
		}
	})
	if entries > maxModels {
		return nil, credit.Invalid("", "A catalogue has at most %d models, not %d.", maxModels, entries)
	}
	r.shortNames()
	r.c.compile()
	return r.c, nil
}

type liteReader struct {
	d doc
	c *Catalogue
}

// liteUnits says which unit a cost is for. All are for one of the unit, whatever a price here is for.
var liteUnits = map[string]Unit{
	"input_cost_per_token":                      InputTokens,
	"output_cost_per_token":                     OutputTokens,
	"cache_read_input_token_cost":               CacheReadTokens,
	"input_cost_per_token_cache_hit":            CacheReadTokens,
	"cache_creation_input_token_cost":           CacheWriteTokens,
	"cache_creation_input_token_cost_above_1hr": CacheWrite1hTokens,
	"cache_read_input_audio_token_cost":         CacheAudioReadTokens,
	"cache_creation_input_audio_token_cost":     CacheAudioWriteTokens,
	"input_cost_per_audio_token":                InputAudioTokens,
	"output_cost_per_audio_token":               OutputAudioTokens,
	"input_cost_per_image_token":                InputImageTokens,
	"output_cost_per_image_token":               OutputImageTokens,
	"output_cost_per_video_token":               OutputVideoTokens,
	"output_cost_per_reasoning_token":           OutputReasoningTokens,
	"citation_cost_per_token":                   OutputCitationTokens,
	"input_cost_per_character":                  InputCharacters,
	"output_cost_per_character":                 OutputCharacters,
	"input_cost_per_image":                      InputImages,
	"output_cost_per_image":                     OutputImages,
	"input_cost_per_pixel":                      InputPixels,
	"input_cost_per_audio_per_second":           InputAudioSeconds,
	"input_cost_per_video_per_second":           InputVideoSeconds,
	"output_cost_per_video_per_second":          OutputVideoSeconds,
	"input_cost_per_request":                    Requests,
	"ocr_cost_per_page":                         InputDocumentPages,
}

// liteByMode says which unit a cost is for where that depends on what the model is for.
var liteByMode = map[string]map[string]Unit{
	"input_cost_per_second":  {"audio_transcription": InputAudioSeconds},
	"output_cost_per_second": {"audio_transcription": InputAudioSeconds, "audio_speech": OutputAudioSeconds, "video_generation": OutputVideoSeconds},
	"input_cost_per_query":   {"rerank": RerankSearches, "search": WebSearches, "vector_store": StorageSearches},
}

// liteServices are the endings of costs of service tiers.
var liteServices = []struct{ suffix, service string }{{"_batches", "batch"}, {"_flex", "flex"}, {"_priority", "priority"}}

// entry reads a model.
func (r *liteReader) entry(at int, key string) {
	p := pointer("").field(key)
	if r.d[at].kind != '{' {
		r.c.unusable.add(p, "This is no object: the model is left out.")
		return
	}
	id, ok := r.d.text(r.d.member(at, "litellm_provider"))
	if !ok || id == "" || len(id) > maxName || key == "" || len(key) > maxName {
		r.c.unusable.add(p, "The model or its provider has no name, or a longer one than %d bytes: it is left out.", maxName)
		return
	}
	folded := strings.ToLower(key)
	if other := r.c.byKey[folded]; other != nil {
		r.c.unusable.add(p, "The name is also that of another entry, but for case: the model is left out.")
		return
	}
	s := r.c.byID[id]
	if s == nil {
		s = &seller{id: id, name: id, extractors: liteFlavours(id)}
		r.c.byID[id] = s
		r.c.providers = append(r.c.providers, s)
	}
	r.c.byKey[folded] = s
	m := &model{seller: s, id: key, match: clause{op: equals, text: folded}}
	for _, limit := range []string{"max_tokens", "max_input_tokens"} {
		if i := r.d.member(at, limit); i >= 0 {
			if n, reason := readCount(r.d[i].raw, 0); reason == "" {
				m.contextWindow = n
			}
		}
	}
	r.prices(at, p, m)
	s.models = append(s.models, m)
}

// litePrices is what an entry says of one service tier.
type litePrices map[Unit]*unitPrice

func (l litePrices) of(u Unit) *unitPrice {
	if l[u] == nil {
		l[u] = &unitPrice{base: unknownPrice}
	}
	return l[u]
}

// unknownPrice stands for a base price that is not given.
var unknownPrice = decimal.New(-1, 0)

// prices reads the costs of a model.
func (r *liteReader) prices(at int, p pointer, m *model) {
	mode, _ := r.d.text(r.d.member(at, "mode"))
	byService := map[string]litePrices{"": {}}
	set := func(p pointer, unit Unit, service string, above int64, n decimal.Decimal) {
		if byService[service] == nil {
			byService[service] = litePrices{}
		}
		price := byService[service].of(unit)
		n = n.Mul(unit.Per())
		switch i := slices.IndexFunc(price.tiers, func(t tier) bool { return t.start >= above }); {
		case above == 0 && price.base.Equal(unknownPrice):
			price.base = n
		case above == 0 && !price.base.Equal(n):
			// Such as the two costs of a second of speech, of which one is charged: the higher, so that nothing is given away.
			price.base = decimal.Max(price.base, n)
		case above == 0 || i >= 0 && price.tiers[i].start == above:
		case i < 0:
			price.tiers = append(price.tiers, tier{above, n})
		default:
			price.tiers = slices.Insert(price.tiers, i, tier{above, n})
		}
	}
	uncounted := func(p pointer, name, why string) {
		r.c.unusable.add(p, "%s The rest of the entry is used.", why)
		m.uncounted = append(m.uncounted, name)
	}
	r.d.each(at, func(i int) {
		name := string(r.d[i].name)
		p := p.field(name)
		if name == "tiered_pricing" {
			r.tiered(i, p, m, set)
			return
		}
		if name == "search_context_cost_per_query" {
			if n, ok := r.oneOf(i); ok {
				set(p, WebSearches, "", 0, n)
			} else {
				uncounted(p, name, "What a search costs depends on how much it finds, which responses do not say.")
			}
			return
		}
		if !bearsOnPrice(name) || r.d[i].kind == 'n' {
			return
		}
		if r.d[i].kind != '0' {
			uncounted(p, name, "This cost is no number.")
			return
		}
		n, reason := readPrice(r.d[i].raw)
		unit, service, above, known := liteCost(name, mode)
		switch {
		case reason != "":
			r.c.unusable.add(p, "%s", reason)
			m.unusable = fmt.Sprintf("%s: %s", name, reason)
		case known:
			set(p, unit, service, above, n)
		case !n.IsZero() && !(strings.Contains(name, "multiplier") && n.Equal(decimal.New(1, 0))):
			uncounted(p, name, "This cost is of nothing that responses count.")
		}
	})

	standard := byService[""]
	sets := map[string]*priceSet{}
	for _, service := range slices.Sorted(maps.Keys(byService)) { // the standard one first
		whole := map[Unit]unitPrice{}
		for unit, price := range standard {
			whole[unit] = *price
		}
		for unit, price := range byService[service] {
			if price.base.Equal(unknownPrice) && standard[unit] != nil {
				price.base = standard[unit].base
			}
			whole[unit] = *price
		}
		for _, unit := range finestFirst {
			if price, ok := whole[unit]; ok && price.base.Equal(unknownPrice) {
				delete(whole, unit)
				if service == "" || standard[unit] == nil {
					uncounted(p, unit.String(), fmt.Sprintf("There is a cost of %s for long contexts and none for others.", unit))
				}
			}
		}
		sets[service] = newPriceSet(whole)
	}
	m.prices = []pricing{{standard: sets[""]}}
	delete(sets, "")
	if len(sets) > 0 {
		m.prices[0].services = sets
	}
	slices.Sort(m.uncounted)
	m.uncounted = slices.Compact(m.uncounted)
}

// bearsOnPrice tells whether a field is a price: what is none (limits, abilities, notes) does not matter here.
func bearsOnPrice(name string) bool {
	return strings.Contains(name, "cost") || strings.Contains(name, "price") || strings.Contains(name, "pricing") || strings.Contains(name, "multiplier")
}

// liteCost says what a cost is of: a unit, in a service tier, in requests of more than above input tokens.
func liteCost(name, mode string) (unit Unit, service string, above int64, known bool) {
	for _, s := range liteServices {
		if stem, ok := strings.CutSuffix(name, s.suffix); ok {
			name, service = stem, s.service
		}
	}
	if stem, ok := strings.CutSuffix(name, "k_tokens"); ok {
		i := strings.LastIndex(stem, "_above_")
		if i < 0 {
			return 0, "", 0, false
		}
		n, err := strconv.ParseInt(stem[i+len("_above_"):], 10, 32)
		if err != nil || n < 1 {
			return 0, "", 0, false
		}
		name, above = stem[:i], n*1_000
	}
	if unit, known = liteUnits[name]; known {
		return unit, service, above, true
	}
	modes, ok := liteByMode[name]
	if !ok {
		return 0, "", 0, false
	}
	if unit, known = modes[mode]; !known && name == "input_cost_per_query" {
		unit, known = Requests, true
	}
	return unit, service, above, known
}

// tiered reads prices by the length of the prompt: [{"range": [0, 32000], "input_cost_per_token": 1e-6, …}, …].
func (r *liteReader) tiered(at int, p pointer, m *model, set func(p pointer, unit Unit, service string, above int64, n decimal.Decimal)) {
	doubt := func(p pointer, why string) {
		r.c.unusable.add(p, "%s", why)
		m.unusable = "tiered_pricing: " + why
	}
	if r.d[at].kind != '[' {
		doubt(p, "This must be a list of tiers.")
		return
	}
	i := 0
	r.d.each(at, func(element int) {
		p := p.index(i)
		i++
		from := int64(-1)
		if span := r.d.member(element, "range"); span >= 0 && r.d[span].kind == '[' && r.d[span].next > span+1 {
			if n, reason := readCount(r.d[span+1].raw, 0); reason == "" {
				from = n
			}
		}
		if from < 0 {
			doubt(p, "A tier without a range of input tokens is not known here.")
			return
		}
		r.d.each(element, func(field int) {
			name := string(r.d[field].name)
			if name == "range" {
				return
			}
			n, reason := readPrice(r.d[field].raw)
			unit, service, above, known := liteCost(name, "")
			if reason != "" || !known || above != 0 {
				doubt(p.field(name), "This is no cost that is known here.")
				return
			}
			set(p.field(name), unit, service, from, n)
		})
	})
}

// oneOf returns the number that all members of an object are.
func (r *liteReader) oneOf(at int) (n decimal.Decimal, ok bool) {
	r.d.each(at, func(i int) {
		v, reason := readPrice(r.d[i].raw)
		switch {
		case reason != "":
			ok = false
			n = unknownPrice
		case n.IsZero() && !ok:
			n, ok = v, true
		case !n.Equal(v):
			ok = false
			n = unknownPrice
		}
	})
	return n, ok
}

// shortNames lets a provider's models be found without the prefix that names the provider, as in azure/gpt-4o, unless another
// model has that name.
func (r *liteReader) shortNames() {
	for _, s := range r.c.providers {
		taken := map[string]bool{}
		for _, m := range s.models {
			taken[m.match.text] = true
		}
		for _, m := range s.models {
			i := strings.IndexByte(m.match.text, '/')
			if i < 0 || i == len(m.match.text)-1 || taken[m.match.text[i+1:]] {
				continue
			}
			short := m.match.text[i+1:]
			taken[short] = true
			m.match = clause{op: anyOf, of: []clause{m.match, {op: equals, text: short}}}
		}
	}
}

// liteFlavours returns the formats of a provider's responses: those that LiteLLM makes of all, and the provider's own if known.
func liteFlavours(id string) []*extractor {
	list := []*extractor{&chat, &openAIResponses, &embeddings}
	switch {
	case id == "anthropic" || id == "azure_ai":
		list = append(list, &anthropicMessages)
	case strings.HasPrefix(id, "bedrock"):
		list = append(list, &anthropicMessages, &converse)
	case id == "gemini" || strings.HasPrefix(id, "vertex_ai"):
		list = append(list, &anthropicMessages, &generateContent)
	case id == "voyage":
		list = []*extractor{&chat, &voyage}
	}
	return list
}
