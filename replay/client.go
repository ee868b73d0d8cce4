package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// API is where the product is, and the key to call it with.
type API struct {
	URL, Key string
	http     *http.Client
}

// NewAPI prepares as many connections as there are clients; each is kept alive.
func NewAPI(url, key string, clients int) *API {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.DisableCompression = clients, clients, true
	return &API{URL: strings.TrimRight(url, "/"), Key: key, http: &http.Client{Transport: t, Timeout: callTimeout}}
}

// callTimeout is longer than the API takes to answer in whatever circumstances; reports may take longer than operations.
const callTimeout = 60 * time.Second

// Problem is an answer other than success.
type Problem struct {
	Status int
	Code   string // "" when the answer is not a problem document
	Detail string
	wait   time.Duration // asked for by Retry-After
}

func (p *Problem) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s: %s", p.Status, p.code(), p.Detail))
}

// code names the refusal in a table.
func (p *Problem) code() string {
	if p.Code == "" {
		return "http_" + strconv.Itoa(p.Status)
	}
	return p.Code
}

// undecided tells whether the same request should be sent again.
func (p *Problem) undecided() bool { return p.Status == http.StatusTooManyRequests || p.Status >= 500 }

// useless tells whether no other request would do better: the key is refused.
func (p *Problem) useless() bool {
	return p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden
}

// Call makes one call and reads its answer into out. body is JSON; nil sends none. The error is a *Problem, or about the connection.
func (a *API) Call(ctx context.Context, method, path, idempotencyKey string, body []byte, out any) error {
	var payload io.Reader
	if body != nil {
		payload = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.URL+path, payload)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+a.Key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if idempotencyKey != "" {
		req.Header.Set("Idempotency-Key", idempotencyKey)
	}
	res, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if res.StatusCode/100 != 2 {
		p := &Problem{Status: res.StatusCode}
		if json.Unmarshal(answer, p) != nil || p.Code == "" {
			p.Code, p.Detail = "", http.StatusText(res.StatusCode)
		}
		p.Status = res.StatusCode
		if s, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 16); err == nil {
			p.wait = time.Duration(s) * time.Second
		}
		return p
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read answer of %s %s: %w", method, path, err)
	}
	return nil
}

// get reads a document.
func (a *API) get(ctx context.Context, path string, out any) error {
	if err := a.Call(ctx, http.MethodGet, path, "", nil, out); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// pause waits before a request is sent again: longer each time, at least as long as the answer asked for, and never all clients at once.
func pause(ctx context.Context, attempt int, err error) {
	wait := min(50*time.Millisecond<<min(attempt, 7), 5*time.Second)
	var p *Problem
	if errors.As(err, &p) {
		wait = max(wait, min(p.wait, 10*time.Second))
	}
	t := time.NewTimer(wait + rand.N(wait/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
