// Package costs brings catalogues of what model providers charge to a running API: it reads them from files and URLs, compares them for review, and
// imports and publishes them. The API itself never fetches anything.
package costs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit/provider"
)

// maxFile bounds a catalogue, as the API does.
const maxFile = 8 << 20

// File is a catalogue as its source has it.
type File struct {
	Format    string // genai_prices or litellm
	Document  []byte
	Catalogue *provider.Catalogue
}

// SHA256 is that of the document, in hexadecimal digits.
func (f *File) SHA256() string {
	sum := sha256.Sum256(f.Document)
	return hex.EncodeToString(sum[:])
}

// Read reads a catalogue from a file or, when the name begins with http:// or https://, from a URL. An empty format is told by the document's
// beginning.
func Read(ctx context.Context, name, format string) (*File, error) {
	document, err := fetch(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read catalogue: %w", err)
	}
	return Parse(document, format)
}

// Parse reads a catalogue. An empty format is told by its beginning: genai-prices is a list, LiteLLM's an object.
func Parse(document []byte, format string) (*File, error) {
	if format == "" {
		if format = "litellm"; bytes.HasPrefix(bytes.TrimLeft(document, " \t\r\n"), []byte("[")) {
			format = "genai_prices"
		}
	}
	parse := provider.ParseLiteLLM
	if format == "genai_prices" {
		parse = provider.ParseGenAIPrices
	}
	c, err := parse(document)
	if err != nil {
		return nil, fmt.Errorf("read catalogue in the format %s: %w", format, err)
	}
	return &File{format, document, c}, nil
}

func fetch(ctx context.Context, name string) ([]byte, error) {
	var from io.ReadCloser
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, name, nil)
		if err != nil {
			return nil, err
		}
		res, err := (&http.Client{Timeout: time.Minute}).Do(req)
		if err != nil {
			return nil, err
		}
		if from = res.Body; res.StatusCode != http.StatusOK {
			_ = from.Close()
			return nil, fmt.Errorf("%s answers with status %d", name, res.StatusCode)
		}
	} else {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		from = f
	}
	defer from.Close()
	b, err := io.ReadAll(io.LimitReader(from, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	return b, err
}

// Diff lists what changes from one catalogue to another, a line for each price, provider, model and note.
func Diff(before, after *provider.Catalogue) []string {
	var lines []string
	for _, c := range provider.Diff(before, after) {
		name := c.Provider
		if c.Model != "" {
			name += "/" + c.Model
		}
		sign := map[provider.ChangeKind]string{provider.Added: "+", provider.Removed: "-", provider.Changed: "~"}[c.Kind]
		if c.Kind != provider.Changed && len(c.Prices) == 0 {
			lines = append(lines, sign+" "+name)
		}
		for _, p := range c.Prices {
			lines = append(lines, sign+" "+name+" "+describe(p))
		}
		for _, note := range c.Notes {
			lines = append(lines, sign+" "+name+" "+note)
		}
	}
	return lines
}

func describe(p provider.PriceChange) string {
	text := p.Unit.String()
	if p.Above > 0 {
		text += fmt.Sprintf(" above %d", p.Above)
	}
	if p.ServiceTier != "" {
		text += " " + p.ServiceTier
	}
	if p.Condition != "" {
		text += " " + p.Condition
	}
	amount := func(d *decimal.Decimal) string {
		if d == nil {
			return "none"
		}
		return d.String()
	}
	switch {
	case p.Before == nil:
		text += " " + amount(p.After)
	case p.After == nil:
		text += " " + amount(p.Before)
	default:
		text += " " + amount(p.Before) + " -> " + amount(p.After)
	}
	return text + " " + provider.Currency + " for " + p.Unit.Per().String()
}

// Client speaks with a running API about catalogues. Its errors tell what the API refused.
type Client struct {
	base, key string
	http      *http.Client
}

// NewClient speaks with the API at a URL; key is an API key of the role finance.
func NewClient(api, key string) *Client {
	return &Client{base: strings.TrimRight(api, "/") + "/v1/cost_catalogues", key: key, http: &http.Client{Timeout: time.Minute}}
}

type (
	// Draft is a catalogue that is not published.
	Draft struct {
		ID string `json:"id"`
	}
	// Published is a catalogue in force from an instant.
	Published struct {
		Number      int    `json:"number"`
		Format      string `json:"format"`
		EffectiveAt string `json:"effective_at"`
	}
)

// InForce returns the catalogue that prices events of now, and its number; 0 and an empty one when there is none.
func (c *Client) InForce(ctx context.Context) (int, *provider.Catalogue, error) {
	var p Published
	text, status, err := c.call(ctx, http.MethodGet, "/in_force", nil)
	if status == http.StatusNotFound {
		return 0, &provider.Catalogue{}, nil
	}
	if err != nil {
		return 0, nil, err
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return 0, nil, fmt.Errorf("read the API's answer: %w", err)
	}
	document, _, err := c.call(ctx, http.MethodGet, fmt.Sprintf("/%d/document", p.Number), nil)
	if err != nil {
		return 0, nil, err
	}
	f, err := Parse(document, p.Format)
	if err != nil {
		return 0, nil, err
	}
	return p.Number, f.Catalogue, nil
}

// Import makes a draft of a file. A draft of the same document is found again, as long as it is among the newest.
func (c *Client) Import(ctx context.Context, f *File, note string) (d Draft, err error) {
	var page struct {
		Data []struct {
			Draft
			SHA256 string `json:"sha256"`
			Format string `json:"format"`
		} `json:"data"`
	}
	text, _, err := c.call(ctx, http.MethodGet, "/drafts?limit=200", nil)
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(text, &page); err != nil {
		return d, fmt.Errorf("read the API's answer: %w", err)
	}
	for _, have := range page.Data {
		if have.SHA256 == f.SHA256() && have.Format == f.Format {
			return have.Draft, nil
		}
	}
	query := url.Values{"format": {f.Format}}
	if note != "" {
		query.Set("note", note)
	}
	if text, _, err = c.call(ctx, http.MethodPost, "/drafts?"+query.Encode(), f.Document); err != nil {
		return d, err
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return d, fmt.Errorf("read the API's answer: %w", err)
	}
	return d, nil
}

// Publish makes a draft the next catalogue. Zero at is as soon as can be.
func (c *Client) Publish(ctx context.Context, d Draft, at time.Time) (p Published, err error) {
	body := []byte("{}")
	if !at.IsZero() {
		body = []byte(`{"effective_at":"` + at.UTC().Format(time.RFC3339Nano) + `"}`)
	}
	text, _, err := c.call(ctx, http.MethodPost, "/drafts/"+url.PathEscape(d.ID)+"/publish", body)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("read the API's answer: %w", err)
	}
	return p, nil
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

func (c *Client) call(ctx context.Context, method, path string, body []byte) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", "costs-"+uuid.NewString())
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("call the API: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, 0, fmt.Errorf("read the API's answer: %w", err)
	}
	if res.StatusCode/100 != 2 {
		var problem struct{ Code, Detail string }
		if json.Unmarshal(text, &problem) == nil && problem.Code != "" {
			status := 0
			if problem.Code == "catalogue_not_found" {
				status = http.StatusNotFound // there is an API, and it has none
			}
			return nil, status, fmt.Errorf("%s %s: %s (%s)", method, req.URL.Path, problem.Detail, problem.Code)
		}
		return nil, 0, fmt.Errorf("%s %s: status %d", method, req.URL.Path, res.StatusCode)
	}
	return text, res.StatusCode, nil
}
