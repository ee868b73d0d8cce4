package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Plan is what a run sends. The same plan and trace make the same requests, byte for byte and under the same idempotency keys: what was
// charged once is answered again and charged no more.
type Plan struct {
	Run       string    `json:"run"`
	Trace     string    `json:"trace"`   // its identity
	EndsAt    time.Time `json:"ends_at"` // where the trace's last event is moved to: when the run was first begun
	Customers []string  `json:"customers"`
	Models    []string  `json:"models"`
}

// maxAge is how old usage may be to be accepted, as the API has it.
const maxAge = 34 * 24 * time.Hour

var runName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`).MatchString

// NewRunName names a run that was given no name.
func NewRunName(now time.Time) string { return now.UTC().Format("20060102T150405.000Z") }

// Keep returns the plan of a run: the one kept in dir under its name if it was begun before, else p, which is kept there. Of p, Run and
// Trace must be set, and EndsAt to the present; no Customers or Models means those of the run begun before, or fallback's.
func (p Plan) Keep(dir string, fallback Plan) (kept Plan, again bool, err error) {
	if !runName(p.Run) {
		return p, false, fmt.Errorf("%.80q is no name for a run: letters, digits, '.', '_' and '-', 64 at most", p.Run)
	}
	path := filepath.Join(dir, "replay", p.Run+".json")
	switch doc, err := os.ReadFile(path); {
	case err == nil:
		if err := json.Unmarshal(doc, &kept); err != nil {
			return p, false, fmt.Errorf("read run %s from %s: %w", p.Run, path, err)
		}
		return kept, true, p.fits(kept)
	case !errors.Is(err, os.ErrNotExist):
		return p, false, fmt.Errorf("look for run %s: %w", p.Run, err)
	}
	if len(p.Customers) == 0 {
		p.Customers = fallback.Customers
	}
	if len(p.Models) == 0 {
		p.Models = fallback.Models
	}
	p.EndsAt = p.EndsAt.UTC().Truncate(time.Microsecond)
	doc, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return p, false, fmt.Errorf("write run %s: %w", p.Run, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return p, false, fmt.Errorf("keep run %s: %w", p.Run, err)
	}
	if err := os.WriteFile(path, append(doc, '\n'), 0o644); err != nil {
		return p, false, fmt.Errorf("keep run %s: %w", p.Run, err)
	}
	return p, false, nil
}

// fits refuses to repeat a run as another one.
func (p Plan) fits(kept Plan) error {
	switch {
	case p.Trace != kept.Trace:
		return fmt.Errorf("run %s was of another trace (%s, this is %s); choose another name", p.Run, kept.Trace, p.Trace)
	case len(p.Customers) > 0 && !slices.Equal(p.Customers, kept.Customers):
		return fmt.Errorf("run %s was for other customers (%q); choose another name", p.Run, kept.Customers)
	case len(p.Models) > 0 && !slices.Equal(p.Models, kept.Models):
		return fmt.Errorf("run %s was with other models (%q); choose another name", p.Run, kept.Models)
	}
	return nil
}

// consumption is the body of POST /v1/consume.
type consumption struct {
	Customer   string            `json:"customer"`
	Timestamp  string            `json:"timestamp"`
	Dimensions map[string]string `json:"dimensions,omitempty"`
	Usage      []usageLine       `json:"usage"`
}

type usageLine struct {
	Meter      string            `json:"meter"`
	Quantity   string            `json:"quantity"`
	Dimensions map[string]string `json:"dimensions"`
}

// Meter is what the tokens are reported as. Its lines have the dimension token_type, input or output.
const Meter = "llm_tokens"

var inputTokens, outputTokens = map[string]string{"token_type": "input"}, map[string]string{"token_type": "output"}

// request makes the idempotency key and body of an event of a trace that ends at last. Customers and models take turns.
func (p *Plan) request(e Event, last time.Time) (key string, body []byte, err error) {
	in := consumption{
		Customer:  p.Customers[e.Line%len(p.Customers)],
		Timestamp: e.At.Add(p.EndsAt.Sub(last)).Format(time.RFC3339Nano),
		Usage: []usageLine{
			{Meter, strconv.FormatInt(e.Input, 10), inputTokens},
			{Meter, strconv.FormatInt(e.Output, 10), outputTokens},
		},
	}
	if len(p.Models) > 0 {
		in.Dimensions = map[string]string{"model": p.Models[e.Line%len(p.Models)]}
	}
	body, err = json.Marshal(in)
	return "replay/" + p.Run + "/" + strconv.Itoa(e.Line), body, err
}
