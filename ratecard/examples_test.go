package ratecard_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/ratecard"
)

type dollars struct{}

func (dollars) Rate(from, to string, at time.Time) (rating.FX, error) {
	return rating.FX{Rate: decimal.RequireFromString("1.25"), Source: "test", On: at.Format(time.DateOnly)}, nil
}

// The cards of the documents are good, and price what their comments say.
func TestExampleCards(t *testing.T) {
	unit := credit.Unit{Code: "CREDIT", Scale: 6}
	var cards []rating.CardVersions
	ids := map[string]credit.RateCardID{}
	files, err := filepath.Glob("../docs/rate-cards/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, faults := ratecard.Parse(text)
		if faults != nil {
			t.Fatalf("%s: %v", file, faults)
		}
		code := map[string]string{"tokens.yaml": "standard", "media.yaml": "media", "enterprise.yaml": "enterprise"}[filepath.Base(file)]
		ids[code] = credit.NewID[credit.RateCardID]()
		cards = append(cards, rating.CardVersions{ID: ids[code], Code: code, Unit: unit, Versions: []rating.Version{{Number: 1, Doc: f.Document}}})
	}
	book, err := rating.NewBook(1, cards)
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	noon, night := time.Date(2026, 3, 3, 12, 0, 0, 0, berlin), time.Date(2026, 3, 4, 1, 0, 0, 0, berlin) // a Tuesday, and the night after it
	for _, c := range []struct {
		card, meter, quantity string
		dims                  credit.Dimensions
		at                    time.Time
		cost                  string
	}{
		{"standard", "llm_tokens", "2000000", credit.Dimensions{"model": "small-2026", "token_type": "input"}, noon, "30"},
		{"standard", "llm_tokens", "2000000", credit.Dimensions{"model": "small", "token_type": "input", "tier": "batch"}, noon, "15"},
		{"standard", "llm_tokens", "150000000", credit.Dimensions{"model": "large", "token_type": "input"}, noon, "35000"}, // 100 at 250 and 50 at 200
		{"standard", "llm_tokens", "1000", credit.Dimensions{"model": "large", "token_type": "output"}, noon, "1"},
		{"standard", "llm_tokens", "1000", credit.Dimensions{"model": "large", "token_type": "output"}, night, "0.7"},
		{"standard", "llm_tokens", "1000", credit.Dimensions{"model": "new", "token_type": "input"}, noon, "1.5"},
		{"standard", "searches", "7", nil, noon, "0"},                                                       // one line, of the day's 100 free ones
		{"media", "images", "2", credit.Dimensions{"resolution": "1024x1024", "quality": "hd"}, noon, "18"}, // 0.144 euros are 0.18 dollars
		{"media", "speech_seconds", "31", nil, noon, "6"},
		{"media", "speech_seconds", "9000", nil, noon, "500"},
		{"media", "speech_seconds", "2", credit.Dimensions{"voice": "studio"}, noon, "3"},
		{"media", "seats", "21", nil, noon, "31500"},
		{"media", "active_users", "1", credit.Dimensions{"user": "u1"}, noon, "25"},
		{"enterprise", "llm_tokens", "1000000", credit.Dimensions{"model": "large", "token_type": "input"}, noon, "180"},
		{"enterprise", "llm_tokens", "1000000", credit.Dimensions{"model": "small", "token_type": "input"}, noon, "15"}, // the standard card's
		{"enterprise", "llm_tokens", "5", credit.Dimensions{"host": "on-premises"}, noon, "56"},                         // 0.50 dollars and 12 percent
	} {
		line := rating.Line{Meter: c.meter, Quantity: decimal.RequireFromString(c.quantity)}
		if c.dims["host"] != "" {
			line.Cost = rating.ComputeCost{Amount: decimal.RequireFromString("0.5"), Currency: "USD"}
		}
		p, err := book.Price(ids[c.card], 0, rating.Usage{At: c.at, Lines: []rating.Line{line}, Dims: c.dims}, rating.Counters{}, dollars{})
		if err != nil || p.Lines[0].Cost.String() != c.cost {
			t.Errorf("%s %s %s %v: %v, %v; want %s", c.card, c.quantity, c.meter, c.dims, p.Lines, err, c.cost)
		}
	}
}
