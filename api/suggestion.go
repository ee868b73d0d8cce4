package api

import (
	"context"
	"strconv"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/sizing"
	"github.com/tallystick/tallystick/db"
)

// holdQuantile is the share of usages that a suggested hold is large enough for, unless asked otherwise.
const holdQuantile = 0.95

// suggestionDocument says how large a hold should be.
type suggestionDocument struct {
	CustomerID   credit.CustomerID `json:"customer_id"`
	Model        string            `json:"model"`
	Unit         string            `json:"unit"`
	Quantile     float64           `json:"quantile"`
	Amount       *string           `json:"amount"` // null: nothing is known
	Basis        string            `json:"basis"`
	Samples      int               `json:"samples"`
	OutputTokens *int64            `json:"output_tokens"` // null: not known, or no receipt says them
}

// Bases of suggestions, the best first.
const (
	basisCustomer = "customer" // what this customer's usages of the model came to
	basisModel    = "model"    // those of all customers
	basisMaximum  = "maximum"  // too few are known
	basisNone     = "none"     // and no maximum is
)

// suggestHold is GET /v1/holds/suggestion.
func (s *Server) suggestHold(ctx context.Context, c *call) error {
	q, err := c.query("customer", "model", "unit", "quantile", "maximum")
	if err != nil {
		return err
	}
	if q.text("customer") == "" {
		return credit.Invalid("customer", "This query parameter is required.")
	}
	customer, err := c.queryCustomer(ctx, q)
	if err != nil {
		return err
	}
	if q.text("unit") == "" {
		return credit.Invalid("unit", "This query parameter is required.")
	}
	unit, err := s.service.Unit(q.text("unit"))
	if err != nil {
		return err
	}
	share := holdQuantile
	if text := q.text("quantile"); text != "" {
		if share, err = strconv.ParseFloat(text, 64); err != nil || !(share >= 0.5 && share <= 0.999) {
			return credit.Invalid("quantile", "This is a number from 0.5 to 0.999.")
		}
	}
	var most credit.Amount
	if text := q.text("maximum"); text != "" {
		if most, err = positive("maximum", text, unit.Scale); err != nil {
			return err
		}
	}
	model := q.text("model")
	amount, basis, samples, err := s.suggest(ctx, customer, model, unit.Code, share)
	if err != nil {
		return err
	}
	doc := suggestionDocument{CustomerID: customer, Model: model, Unit: unit.Code, Quantile: share, Basis: basis, Samples: int(samples)}
	if n := credit.Amount(amount); n > 0 || most > 0 {
		if n == 0 {
			doc.Basis = basisMaximum
		}
		if n == 0 || most > 0 && n > most {
			n = most
		}
		text := n.Format(unit.Scale)
		doc.Amount = &text
	}
	tokens, _, _, err := s.suggest(ctx, customer, model, db.OutputTokens, share)
	if err != nil {
		return err
	}
	if tokens > 0 {
		doc.OutputTokens = &tokens
	}
	return c.document(doc)
}

// suggest returns a size that the share of recent usages did not exceed, whose usages they are and how many; 0 when too few are known.
func (s *Server) suggest(ctx context.Context, customer credit.CustomerID, model, measure string, share float64) (n int64, basis string, samples float64, err error) {
	now := time.Now()
	for _, of := range []struct {
		customer credit.CustomerID
		basis    string
	}{{customer, basisCustomer}, {credit.CustomerID{}, basisModel}} {
		var h *sizing.Histogram
		if h, err = s.store.Sizes(ctx, of.customer, model, measure); err != nil {
			return 0, "", 0, err
		}
		if samples = h.Samples(now); sizing.Enough(samples, share) {
			return min(h.Quantile(share), int64(credit.MaxAmount)), of.basis, samples, nil
		}
	}
	return 0, basisNone, samples, nil
}
