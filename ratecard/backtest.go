package ratecard

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

type (
	// BacktestRequest asks what a document would have charged in the place of what was in force of the card, from Effective on; zero: from From.
	BacktestRequest struct {
		Document    []byte
		From, Until time.Time
		Effective   time.Time
		Customers   []string // ids or external ids; nil: all
	}
	// Backtest is how far a back-test is, and what it has come to so far.
	Backtest struct {
		ID       string `json:"id"`
		Status   string `json:"status"`
		Fault    string `json:"fault"`
		Progress struct {
			Customers int    `json:"customers"` // 0 until it has begun
			Seen      int    `json:"seen"`
			Events    int    `json:"events"`
			Dry       int    `json:"dry"`
			Failed    int    `json:"failed"`
			Fault     string `json:"first_fault"`
		} `json:"progress"`
		Totals []BacktestLine `json:"totals"`
	}
	// BacktestLine is one line of a result.
	BacktestLine struct {
		Unit       string          `json:"unit"`
		Currency   string          `json:"currency"`
		Product    string          `json:"product"`
		Model      string          `json:"model"`
		Booked     BacktestFigures `json:"booked"`
		Tested     BacktestFigures `json:"tested"`
		Difference struct {
			Credits string `json:"credits"`
			Revenue string `json:"revenue"`
		} `json:"difference"`
	}
	// BacktestFigures are one side of a line.
	BacktestFigures struct {
		Events   int     `json:"events"`
		Refused  int     `json:"refused"`
		Unpriced int     `json:"unpriced"`
		Credits  string  `json:"credits"`
		Revenue  string  `json:"revenue"`
		Expired  string  `json:"expired"`
		Breakage string  `json:"breakage"`
		Margin   *string `json:"margin"`
	}
)

// Ended tells whether nothing more will come of it.
func (b *Backtest) Ended() bool { return b.Status != "queued" && b.Status != "running" }

// backtests speaks about back-tests with the same key.
func (c *Client) backtests() *Client {
	return &Client{base: c.api + "/v1/backtests", key: c.key, http: c.http}
}

// StartBacktest asks for a back-test.
func (c *Client) StartBacktest(ctx context.Context, r BacktestRequest) (b Backtest, err error) {
	body := map[string]any{"rate_card": c.card, "document": json.RawMessage(r.Document), "from": r.From.UTC().Format(time.RFC3339Nano),
		"until": r.Until.UTC().Format(time.RFC3339Nano)}
	if !r.Effective.IsZero() {
		body["effective_at"] = r.Effective.UTC().Format(time.RFC3339Nano)
	}
	if len(r.Customers) > 0 {
		body["customers"] = r.Customers
	}
	return b, c.backtests().call(ctx, http.MethodPost, "", body, &b)
}

// Backtest returns how far a back-test is.
func (c *Client) Backtest(ctx context.Context, id string) (b Backtest, err error) {
	return b, c.backtests().call(ctx, http.MethodGet, "/"+url.PathEscape(id), nil, &b)
}

// BacktestModels returns the result by product and model.
func (c *Client) BacktestModels(ctx context.Context, id string) (lines []BacktestLine, err error) {
	for cursor := ""; ; {
		var page struct {
			Data       []BacktestLine `json:"data"`
			NextCursor string         `json:"next_cursor"`
		}
		path := "/" + url.PathEscape(id) + "/models?limit=200"
		if cursor != "" {
			path += "&cursor=" + url.QueryEscape(cursor)
		}
		if err := c.backtests().call(ctx, http.MethodGet, path, nil, &page); err != nil {
			return lines, err
		}
		lines = append(lines, page.Data...)
		if cursor = page.NextCursor; cursor == "" {
			return lines, nil
		}
	}
}
