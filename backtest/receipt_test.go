package backtest

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// What a receipt is written from.
type (
	plainPricing struct {
		Card    credit.RateCardID `json:"rate_card_id"`
		Version int               `json:"version"`
		Lines   []plainLine       `json:"lines"`
	}
	plainLine struct {
		Meter      string            `json:"meter"`
		Dimensions credit.Dimensions `json:"dimensions,omitempty"`
		Quantity   string            `json:"quantity"`
	}
	plainShare struct {
		Grant  credit.GrantID `json:"grant_id"`
		Amount string         `json:"amount"`
		Left   string         `json:"left"`
	}
)

// What is read of a receipt is what was written, whatever the texts in it.
func TestReceiptsAreRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		steps := rapid.Map(rapid.Int64Range(0, int64(credit.MaxAmount)), func(n int64) credit.Amount { return credit.Amount(n) })
		dims := rapid.Map(rapid.MapOfN(rapid.String(), rapid.String(), 1, 3), func(m map[string]string) credit.Dimensions {
			b, _ := json.Marshal(m) // as JSON has it: without what is no text
			var d credit.Dimensions
			_ = json.Unmarshal(b, &d)
			return d
		})
		shares := func(name string) (in []plainShare, want []share) {
			in = []plainShare{}
			for range rapid.IntRange(0, 3).Draw(t, name) {
				s := share{credit.NewID[credit.GrantID](), steps.Draw(t, "amount"), steps.Draw(t, "left")}
				in, want = append(in, plainShare{s.grant, s.amount.Format(6), s.left.Format(6)}), append(want, s)
			}
			return in, want
		}
		want := &event{amount: steps.Draw(t, "amount"), short: steps.Draw(t, "short"), partial: rapid.Bool().Draw(t, "partial"), dims: dims.Draw(t, "dims")}
		in := map[string]any{"amount": want.amount.Format(6), "shortfall": want.short.Format(6), "partial": want.partial, "dimensions": want.dims,
			"reason": rapid.String().Draw(t, "reason"), "service_at": "x", "unknown": map[string]any{"amount": "7", "list": []any{1, nil, "]"}}}
		in["draws"], want.draws = shares("draws")
		in["returns"], want.returns = shares("returns")
		if rapid.Bool().Draw(t, "costed") {
			want.cost, want.currency = decimal.New(rapid.Int64Range(0, 1e12).Draw(t, "cost"), -9), "USD"
			in["cost"] = map[string]any{"amount": want.cost.String(), "currency": "USD", "usage": map[string]string{"amount": "1"}}
		}
		if rapid.Bool().Draw(t, "priced") {
			want.priced, want.card, want.version = true, credit.NewID[credit.RateCardID](), rapid.IntRange(1, 99).Draw(t, "version")
			p := plainPricing{Card: want.card, Version: want.version}
			for range rapid.IntRange(1, 3).Draw(t, "lines") {
				l := plainLine{Meter: "m", Dimensions: dims.Draw(t, "line dims"), Quantity: decimal.New(rapid.Int64Range(0, 1e15).Draw(t, "quantity"), -3).String()}
				p.Lines = append(p.Lines, l)
			}
			in["pricing"] = []plainPricing{p, {Card: credit.NewID[credit.RateCardID](), Version: 7, Lines: p.Lines}}
		}
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readEvent(b, 6, time.Time{})
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if p, ok := in["pricing"].([]plainPricing); ok {
			if len(got.lines) != len(p[0].Lines) {
				t.Fatalf("%d lines of %s", len(got.lines), b)
			}
			for i, l := range p[0].Lines {
				whole := decimal.Decimal{}
				if i == 0 {
					whole = want.cost
				}
				if c := got.lines[i].Cost; c.Currency != want.currency || !c.Amount.Equal(whole) {
					t.Errorf("line %d cost %v of %s %s", i, c, want.cost, want.currency)
				}
				if g := got.lines[i]; g.Meter != l.Meter || g.Quantity.String() != l.Quantity || !reflect.DeepEqual(g.Dims, l.Dimensions) {
					t.Errorf("%+v of %+v", g, l)
				}
			}
		}
		if !got.cost.Equal(want.cost) {
			t.Errorf("cost %s of %s", got.cost, want.cost)
		}
		got.lines, got.cost, want.cost = nil, decimal.Decimal{}, decimal.Decimal{}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v of %s", got, b)
		}
	})
}

// Nothing that Postgres takes for JSON brings the reader down, and what encoding/json reads as a receipt is read the same.
func FuzzReadEvent(f *testing.F) {
	f.Add([]byte(`{"amount":"1","pricing":[{"version":2,"lines":[{"meter":"a","quantity":"3","fx":[{"from":"EUR","rate":"1.1"}]}]}],"draws":[]}`))
	f.Add([]byte(`{"amount":"0.5","dimensions":{"a\"b":"é\n"},"returns":[{"amount":"1","left":"2"}],"draws":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !json.Valid(b) {
			return
		}
		e, err := readEvent(b, 6, time.Time{})
		if err != nil {
			return
		}
		for _, s := range append(e.draws, e.returns...) {
			if s.amount < 0 || s.left < 0 {
				t.Errorf("%+v of %s", s, b)
			}
		}
	})
}
