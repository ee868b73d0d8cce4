package bills

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// page is what the pages of both providers have in common, and what either has of its own. What is not named here is not looked at.
type page struct {
	Object   string    `json:"object"`
	Data     *[]bucket `json:"data"`
	HasMore  *bool     `json:"has_more"`
	NextPage *string   `json:"next_page"`
}

type bucket struct {
	StartTime  json.Number `json:"start_time"`  // OpenAI: seconds since 1970
	EndTime    json.Number `json:"end_time"`    // OpenAI
	StartingAt string      `json:"starting_at"` // Anthropic: RFC 3339
	EndingAt   string      `json:"ending_at"`   // Anthropic
	Results    *[]result   `json:"results"`
}

type result struct {
	Object      string          `json:"object"`   // OpenAI
	Amount      json.RawMessage `json:"amount"`   // OpenAI: value and currency; Anthropic: cents as text
	Currency    string          `json:"currency"` // Anthropic
	LineItem    *string         `json:"line_item"`
	Quantity    json.RawMessage `json:"quantity"`
	CostType    *string         `json:"cost_type"`
	Description *string         `json:"description"`
	Model       *string         `json:"model"`
	TokenType   *string         `json:"token_type"`

	InputTokens       json.Number `json:"input_tokens"` // OpenAI: cached ones included
	InputCachedTokens json.Number `json:"input_cached_tokens"`
	OutputTokens      json.Number `json:"output_tokens"`

	UncachedInputTokens  json.Number `json:"uncached_input_tokens"` // Anthropic
	CacheReadInputTokens json.Number `json:"cache_read_input_tokens"`
	CacheCreation        *struct {
		OneHour     json.Number `json:"ephemeral_1h_input_tokens"`
		FiveMinutes json.Number `json:"ephemeral_5m_input_tokens"`
	} `json:"cache_creation"`
}

// page reads a page of OpenAI's or Anthropic's.
func (r *reader) page(at string, body []byte) error {
	var p page
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&p); err != nil {
		return credit.Invalid(at, "This is not a page of a bill: %s.", reason(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return credit.Invalid(at, "Something follows the page.")
	}
	if p.Data == nil || p.HasMore == nil {
		return credit.Invalid(at, "A page has the fields data and has_more.")
	}
	provider := "anthropic"
	if p.Object != "" {
		if p.Object != "page" {
			return credit.Invalid(at+"/object", "%.40q is not a page of a bill.", p.Object)
		}
		provider = "openai"
	}
	if err := r.provider(at, provider); err != nil {
		return err
	}
	var s *stream
	for i, b := range *p.Data {
		where := fmt.Sprintf("%s/data/%d", at, i)
		days, err := b.days(where, provider)
		if err != nil {
			return err
		}
		if b.Results == nil {
			return credit.Invalid(where+"/results", "It is missing.")
		}
		for j := range *b.Results {
			x, where := &(*b.Results)[j], fmt.Sprintf("%s/results/%d", where, j)
			name, err := r.result(where, provider, days, x)
			if err != nil {
				return err
			}
			if s == nil {
				s = r.stream(name)
			} else if s.name != name {
				return credit.Invalid(where, "Costs and usage are on pages of their own.")
			}
		}
	}
	if s == nil { // nothing on the page says what it is about: it is taken for costs, which are to be there in any case
		s = r.stream("costs")
	}
	for i, b := range *p.Data {
		days, err := b.days(fmt.Sprintf("%s/data/%d", at, i), provider)
		if err != nil {
			return err
		}
		s.buckets, s.more = append(s.buckets, days), append(s.more, *p.HasMore && i == len(*p.Data)-1)
	}
	switch named := p.NextPage != nil && *p.NextPage != ""; {
	case *p.HasMore && !named:
		r.faults = append(r.faults, s.name+": a page says that more follow, and not which.")
	case *p.HasMore && len(*p.Data) == 0:
		r.faults = append(r.faults, s.name+": an empty page says that more follow.")
	}
	return nil
}

// days reads when a bucket begins and ends.
func (b *bucket) days(at, provider string) (Range, error) {
	var x Range
	if provider == "openai" {
		from, err := b.StartTime.Int64()
		to, err2 := b.EndTime.Int64()
		if err != nil || err2 != nil {
			return x, credit.Invalid(at, "start_time and end_time are whole seconds since 1970.")
		}
		x = Range{time.Unix(from, 0).UTC(), time.Unix(to, 0).UTC()}
	} else {
		from, err := time.Parse(time.RFC3339, b.StartingAt)
		to, err2 := time.Parse(time.RFC3339, b.EndingAt)
		if err != nil || err2 != nil {
			return x, credit.Invalid(at, "starting_at and ending_at are instants such as 2026-03-01T00:00:00Z.")
		}
		x = Range{from.UTC(), to.UTC()}
	}
	if !x.From.Before(x.To) || x.From.Year() < 2000 || x.To.Year() > 2200 {
		return x, credit.Invalid(at, "It does not end after it begins, or not in these centuries.")
	}
	return x, nil
}

// result reads one result, and returns the name of the stream that it belongs to.
func (r *reader) result(at, provider string, days Range, x *result) (string, error) {
	l := Line{Kind: Usage, From: days.From, To: days.To, Model: text(x.Model)}
	if x.Amount == nil {
		return "usage", r.usage(at, provider, l, x)
	}
	var err error
	if provider == "openai" {
		err = x.openAI(at, &l)
	} else {
		err = x.anthropic(at, &l)
	}
	if err != nil {
		return "", err
	}
	if l.Amount.IsNegative() {
		l.Kind = Credit
	}
	if !isCurrency(l.Currency) {
		return "", credit.Invalid(at, "%.12q is not a currency's code: three letters.", l.Currency)
	}
	return "costs", r.add(at, l)
}

// openAI reads a result of OpenAI's costs. A line item is "<model>, <what of it>" or the name of something else.
func (x *result) openAI(at string, l *Line) error {
	var amount struct {
		Value    json.RawMessage `json:"value"`
		Currency string          `json:"currency"`
	}
	if json.Unmarshal(x.Amount, &amount) != nil || x.Object != "organization.costs.result" {
		return credit.Invalid(at, "This is not an organization.costs.result with an amount.")
	}
	var err error
	if l.Amount, err = number(at+"/amount/value", amount.Value); err != nil {
		return err
	}
	l.Currency, l.Description = strings.ToUpper(amount.Currency), text(x.LineItem)
	if model, what, ok := cutLast(l.Description, ", "); ok {
		l.Model, l.TokenType = model, tokenType(what)
	}
	if len(x.Quantity) > 0 && string(x.Quantity) != "null" {
		q, err := number(at+"/quantity", x.Quantity)
		if err != nil {
			return err
		}
		l.Quantity = decimal.NewNullDecimal(q)
	}
	return nil
}

// anthropic reads a result of Anthropic's cost report: cents, as text.
func (x *result) anthropic(at string, l *Line) error {
	var cents string
	if json.Unmarshal(x.Amount, &cents) != nil {
		return credit.Invalid(at+"/amount", "It is a number of cents as text.")
	}
	amount, err := number(at+"/amount", []byte(cents))
	if err != nil {
		return err
	}
	l.Amount, l.Currency, l.Description = amount.Shift(-2), strings.ToUpper(x.Currency), text(x.Description)
	if l.TokenType = tokenType(text(x.TokenType)); l.TokenType == "" {
		if what := text(x.CostType); what != "tokens" {
			l.TokenType = what
		}
	}
	return nil
}

// usage reads the counts of a usage page, none of which overlap then.
func (r *reader) usage(at, provider string, l Line, x *result) error {
	type count struct {
		name, tokenType string
		n               json.Number
	}
	counts := []count{{"output_tokens", "output", x.OutputTokens}}
	if provider == "openai" {
		if !strings.HasPrefix(x.Object, "organization.usage.") {
			return credit.Invalid(at, "This is neither a cost nor a usage.")
		}
		counts = append(counts, count{"input_tokens", "input", x.InputTokens}, count{"input_cached_tokens", "cache_read", x.InputCachedTokens})
	} else {
		counts = append(counts, count{"uncached_input_tokens", "input", x.UncachedInputTokens}, count{"cache_read_input_tokens", "cache_read", x.CacheReadInputTokens})
		if x.CacheCreation != nil {
			counts = append(counts, count{"cache_creation/ephemeral_5m_input_tokens", "cache_write_5m", x.CacheCreation.FiveMinutes},
				count{"cache_creation/ephemeral_1h_input_tokens", "cache_write_1h", x.CacheCreation.OneHour})
		}
	}
	var cached decimal.Decimal
	said := false
	for i := len(counts) - 1; i >= 0; i-- { // what is cached comes before the input that it is taken off
		c := counts[i]
		if c.n == "" {
			continue
		}
		said = true
		n, err := number(at+"/"+c.name, []byte(c.n))
		if err != nil {
			return err
		}
		if n.IsNegative() || !n.IsInteger() {
			return credit.Invalid(at+"/"+c.name, "A count is a whole number, not %s.", n)
		}
		if provider == "openai" && c.tokenType == "cache_read" {
			cached = n
		} else if c.tokenType == "input" {
			if n = n.Sub(cached); n.IsNegative() {
				return credit.Invalid(at+"/"+c.name, "There are fewer of them than cached ones.")
			}
		}
		if n.IsZero() {
			continue
		}
		l.TokenType, l.Quantity = c.tokenType, decimal.NewNullDecimal(n)
		if err := r.add(at, l); err != nil {
			return err
		}
	}
	if !said {
		return credit.Invalid(at, "This is neither a cost nor a usage of tokens.")
	}
	return nil
}

// tokenTypes are the providers' names of what usage has by the same name in all receipts.
var tokenTypes = map[string]string{
	"cached input": "cache_read", "cached_input": "cache_read", "input_cached_tokens": "cache_read", "input_tokens": "input", "output_tokens": "output",
	"uncached_input_tokens": "input", "cache_read_input_tokens": "cache_read",
	"cache_creation.ephemeral_5m_input_tokens": "cache_write_5m", "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h",
}

func tokenType(s string) string {
	if own, ok := tokenTypes[s]; ok {
		return own
	}
	return s
}

// number reads a decimal number as it is written. It has at most 40 digits, and is below 10^18.
func number(at string, b []byte) (decimal.Decimal, error) {
	if len(b) > 0 && len(b) <= 64 && strings.IndexByte("-0123456789", b[0]) >= 0 && json.Valid(b) {
		if n, err := decimal.NewFromString(string(b)); err == nil && n.Exponent() >= -40 && n.Exponent() <= 18 && n.NumDigits()+int(n.Exponent()) <= 18 && n.NumDigits() <= 40 {
			return n, nil
		}
	}
	return decimal.Decimal{}, credit.Invalid(at, "%.64q is not a decimal number below 10^18 with at most 40 places.", b)
}

func isCurrency(s string) bool {
	_, err := credit.CurrencyPlaces(s)
	return err == nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// reason is what a decoder says, without its own name and ours.
func reason(err error) string {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Sprintf("%s is a %s", kind.Field, kind.Value)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}
