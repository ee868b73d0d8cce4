package db

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/sizing"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// OutputTokens is the measure of sizes in tokens that a model wrote. The others are the codes of units: credits charged, in steps.
const OutputTokens = "output_tokens"

type (
	sizeKey struct{ model, measure string }
	sample  struct {
		at time.Time
		n  int64
	}
)

// size notes how large a usage was. That of a hold is what all its captures took, noted at its end; what was given back is no usage.
func (p *usagePass) size(o *CountedOperation) {
	if !o.IsUsage() || len(o.Movements) == 0 {
		return
	}
	key, charged, whole := sizeKey{model: o.Dimensions["model"], measure: o.Movements[0].Unit}, o.Net(), true
	if c := o.Said.Capture; c != nil {
		if !c.Final {
			return
		}
		all, err := credit.RoundAmount(c.All, o.Movements[0].Scale)
		if err != nil {
			return // more than any grant can have
		}
		charged, whole = all, c.Now.Equal(c.All)
	}
	if charged <= 0 {
		return
	}
	p.samples[key] = append(p.samples[key], sample{o.At, int64(charged)})
	var tokens decimal.Decimal
	for _, l := range o.Said.Lines {
		if l.Dimensions["token_type"] == "output" || strings.HasPrefix(l.Meter, "output_") && strings.HasSuffix(l.Meter, "_tokens") {
			tokens = tokens.Add(l.Quantity)
		}
	}
	if whole && tokens.IsPositive() && tokens.LessThan(maxTokens) { // of a hold captured in parts, each part says its own tokens
		key.measure = OutputTokens
		p.samples[key] = append(p.samples[key], sample{o.At, tokens.Ceil().IntPart()})
	}
}

var maxTokens = decimal.New(1, 15)

// saveSizes adds the samples to what is kept.
func (p *usagePass) saveSizes(ctx context.Context) error {
	if len(p.samples) == 0 {
		return nil
	}
	var models, measures []string
	for k := range p.samples {
		models, measures = append(models, k.model), append(measures, k.measure)
	}
	rows, err := p.q.ReadSizes(ctx, models, measures, uuidOf(p.customer))
	if err != nil {
		return fmt.Errorf("read sizes: %w", err)
	}
	sizes := make(map[sizeKey]*sizing.Histogram, len(p.samples))
	for _, r := range rows {
		sizes[sizeKey{r.Model, r.Measure}] = &sizing.Histogram{At: fromTime(r.At), Buckets: r.Buckets, Weights: r.Weights}
	}
	for _, k := range slices.SortedFunc(maps.Keys(p.samples), func(a, b sizeKey) int {
		return cmp.Or(strings.Compare(a.model, b.model), strings.Compare(a.measure, b.measure))
	}) {
		h := sizes[k]
		if h == nil {
			h = new(sizing.Histogram)
		}
		for _, s := range p.samples[k] {
			h.Add(s.at, s.n)
		}
		if err := p.q.SaveSizes(ctx, sqlc.SaveSizesParams{Model: k.model, Measure: k.measure, CustomerID: uuidOf(p.customer), At: timeOf(h.At),
			Buckets: h.Buckets, Weights: h.Weights}); err != nil {
			return fmt.Errorf("save sizes: %w", err)
		}
	}
	return nil
}

// sizedCustomers bounds of how many customers a model's sizes are merged.
const sizedCustomers = 1000

// Sizes returns how large usages of a model were, in a measure: a customer's, or when that is zero those of the 1,000 newest customers who used it.
// Nothing was seen: an empty one.
func (s *Store) Sizes(ctx context.Context, customer credit.CustomerID, model, measure string) (*sizing.Histogram, error) {
	out := new(sizing.Histogram)
	if !customer.IsZero() {
		rows, err := s.q.ReadSizes(ctx, []string{model}, []string{measure}, uuidOf(customer))
		if err != nil {
			return nil, fmt.Errorf("read sizes: %w", err)
		}
		for _, r := range rows {
			out = &sizing.Histogram{At: fromTime(r.At), Buckets: r.Buckets, Weights: r.Weights}
		}
		return out, nil
	}
	rows, err := s.q.SizesOfModel(ctx, model, measure, sizedCustomers)
	if err != nil {
		return nil, fmt.Errorf("read sizes of a model: %w", err)
	}
	for _, r := range rows {
		out.Merge(&sizing.Histogram{At: fromTime(r.At), Buckets: r.Buckets, Weights: r.Weights})
	}
	return out, nil
}
