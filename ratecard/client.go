package ratecard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Client speaks with a running API about one rate card. Its errors tell what the API refused.
type Client struct {
	api, card string
	base, key string
	http      *http.Client
}

// NewClient speaks with the API at a URL about the card of an id or code; key is an API key, of the role finance for what changes something.
func NewClient(api, key, card string) *Client {
	api = strings.TrimRight(api, "/")
	return &Client{api: api, card: card, base: api + "/v1/rate_cards/" + url.PathEscape(card), key: key, http: &http.Client{Timeout: 30 * time.Second}}
}

type (
	// Version is a published version.
	Version struct {
		Version     int             `json:"version"`
		EffectiveAt string          `json:"effective_at"`
		Document    json.RawMessage `json:"document"`
	}
	// Draft is a version that is not published.
	Draft struct {
		ID       string          `json:"id"`
		Revision int             `json:"revision"`
		Document json.RawMessage `json:"document"`
	}
)

// Published returns the newest version; the zero Version with the document {} when there is none.
func (c *Client) Published(ctx context.Context) (Version, error) {
	var page struct {
		Data []struct {
			Version
			Withdrawn json.RawMessage `json:"withdrawn"`
		} `json:"data"`
	}
	if err := c.call(ctx, http.MethodGet, "/versions?limit=200", nil, &page); err != nil {
		return Version{}, err
	}
	for _, v := range page.Data {
		if v.Withdrawn == nil {
			return v.Version, nil
		}
	}
	return Version{Document: []byte("{}")}, nil
}

// Keep makes a draft of a document, or returns the one that has it.
func (c *Client) Keep(ctx context.Context, document []byte, note string) (d Draft, err error) {
	var page struct {
		Data []Draft `json:"data"`
	}
	if err := c.call(ctx, http.MethodGet, "/drafts?limit=200", nil, &page); err != nil {
		return d, err
	}
	for _, d := range page.Data {
		if changes, err := Diff(d.Document, document); err == nil && len(changes) == 0 {
			return d, nil
		}
	}
	body := map[string]any{"document": json.RawMessage(document)}
	if note != "" {
		body["note"] = note
	}
	return d, c.call(ctx, http.MethodPost, "/drafts", body, &d)
}

// Publish makes a draft, as it was reviewed, the next version. Zero at is as soon as can be.
func (c *Client) Publish(ctx context.Context, d Draft, at time.Time) (v Version, err error) {
	body := map[string]any{"revision": d.Revision}
	if !at.IsZero() {
		body["effective_at"] = at.UTC().Format(time.RFC3339Nano)
	}
	return v, c.call(ctx, http.MethodPost, "/drafts/"+url.PathEscape(d.ID)+"/publish", body, &v)
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 256 << 20

func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("write request: %w", err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, payload)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", "ratecard-"+uuid.NewString())
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("call the API: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the API's answer: %w", err)
	}
	if res.StatusCode/100 != 2 {
		var problem struct{ Code, Detail string }
		if json.Unmarshal(text, &problem) == nil && problem.Code != "" {
			return fmt.Errorf("%s %s: %s (%s)", method, req.URL.Path, problem.Detail, problem.Code)
		}
		return fmt.Errorf("%s %s: status %d", method, req.URL.Path, res.StatusCode)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read the API's answer: %w", err)
	}
	return nil
}
