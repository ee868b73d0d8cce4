package provider

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// shared reads a file of the data that lies beside the repository, and skips the test where there is none.
func shared(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("TALLYSTICK_SHARED")
	if dir != "" {
		return readShared(t, filepath.Join(dir, name))
	}
	up, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		file := filepath.Join(up, "shared", name)
		if _, err := os.Stat(file); err == nil {
			return readShared(t, file)
		}
		parent := filepath.Dir(up)
		if parent == up {
			t.Skipf("there is no shared/%s above this directory, and TALLYSTICK_SHARED is not set", name)
		}
		up = parent
	}
}

func readShared(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("there is no %s", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func realCatalogue(t testing.TB) *Catalogue {
	t.Helper()
	c, err := ParseGenAIPrices(shared(t, "data/genai-prices/data.json"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pricedAt is the instant whose prices usages.json has: its generator fixes it.
var pricedAt = time.Date(2025, 11, 6, 12, 0, 0, 0, time.UTC)

// TestAgreement holds extraction and cost against what an independent implementation makes of real responses.
func TestAgreement(t *testing.T) {
	c := realCatalogue(t)
	var responses []struct {
		Body      json.RawMessage
		Model     string
		Extracted []struct {
			Usage      map[string]int64
			Extractors []struct {
				ProviderID  string           `json:"provider_id"`
				APIFlavor   string           `json:"api_flavor"`
				InputPrice  *decimal.Decimal `json:"input_price"`
				OutputPrice *decimal.Decimal `json:"output_price"`
				TotalPrice  *decimal.Decimal `json:"total_price"`
			}
		}
	}
	if err := json.Unmarshal(shared(t, "data/genai-prices/usages.json"), &responses); err != nil {
		t.Fatal(err)
	}
	card, err := c.RateCard(RateCardTerms{At: pricedAt, CreditPrice: d("1")})
	if err != nil {
		t.Fatal(err)
	}
	b, cardID := book(t, card.Document)
	left := map[string]bool{}
	for _, l := range card.LeftOut {
		left[l.Provider+"/"+l.Model] = true
	}
	type flavour struct{ provider, flavour string }
	var agreeing, extractions, prices, onCard, unknown, refused, found, ambiguous int
	for i, r := range responses {
		ok := true
		fault := func(format string, args ...any) { ok = false; t.Errorf(format, args...) }
		listed := map[flavour]bool{}
		for _, e := range r.Extracted {
			for _, by := range e.Extractors {
				f := flavour{by.ProviderID, by.APIFlavor}
				listed[f] = true
				extractions++
				x, err := c.Extract(Response{Provider: f.provider, Flavour: f.flavour, Body: r.Body})
				if err != nil && credit.CodeOf(err) != credit.UnknownModel {
					fault("response %d, %v: %v", i, f, err)
					continue
				}
				if x.ModelRef != r.Model {
					fault("response %d, %v: model %q, not %q", i, f, x.ModelRef, r.Model)
				}
				if got := counts(&x.Usage); !maps.Equal(got, e.Usage) {
					fault("response %d, %v: %v, not %v", i, f, got, e.Usage)
				}
				cost, err := c.Cost(x.Provider, x.ModelRef, x.Usage, pricedAt)
				switch {
				case by.InputPrice == nil && credit.CodeOf(err) == credit.UnknownModel:
					unknown++
				case by.InputPrice == nil:
					fault("response %d, %v: costs %s (%v), and should have no price", i, f, cost.Total, err)
				case err != nil:
					fault("response %d, %v: %v", i, f, err)
				default:
					prices++
					total := by.InputPrice.Add(*by.OutputPrice)
					if by.TotalPrice != nil {
						total = *by.TotalPrice
					}
					if !cost.Input.Equal(*by.InputPrice) || !cost.Output.Equal(*by.OutputPrice) || !cost.Total.Equal(total) {
						fault("response %d, %v: costs %s + %s, in all %s, not %s + %s, in all %s",
							i, f, cost.Input, cost.Output, cost.Total, by.InputPrice, by.OutputPrice, total)
					}
					lines, err := c.Lines(x, pricedAt, "")
					if err != nil {
						fault("response %d, %v: %v", i, f, err)
					} else if !left[cost.Provider+"/"+cost.Model] {
						onCard++
						if credits, err := priceAll(b, cardID, lines, pricedAt); err != nil || !credits.Equal(total) {
							fault("response %d, %v: %v on the card, not %s: %v", i, f, credits, total, err)
						}
					}
				}
			}
		}
		// A flavour that is not named is found, or refused as open; it is never one that reads something else.
		byProvider := map[string][]map[string]int64{}
		for _, e := range r.Extracted {
			for _, by := range e.Extractors {
				byProvider[by.ProviderID] = append(byProvider[by.ProviderID], e.Usage)
			}
		}
		for provider, usages := range byProvider {
			x, err := c.Extract(Response{Provider: provider, Body: r.Body})
			switch code := credit.CodeOf(err); {
			case code == credit.UnknownFlavour:
				ambiguous++
			case err != nil && code != credit.UnknownModel:
				fault("response %d, %s: %v", i, provider, err)
			case slices.ContainsFunc(flavoursOf[provider], func(e *extractor) bool { return e.flavour == x.Flavour }):
			case !slices.ContainsFunc(usages, func(u map[string]int64) bool { return maps.Equal(u, counts(&x.Usage)) }):
				fault("response %d, %s: found %s, which reads %v", i, provider, x.Flavour, counts(&x.Usage))
			default:
				found++
			}
		}
		for _, s := range c.providers {
			for _, e := range s.extractors {
				if f := (flavour{s.id, e.flavour}); !listed[f] && !slices.Contains(flavoursOf[s.id], e) {
					if _, err := c.Extract(Response{Provider: f.provider, Flavour: f.flavour, Body: r.Body}); credit.CodeOf(err) != credit.NoUsage && credit.CodeOf(err) != credit.InvalidUsage {
						fault("response %d, %v: is read, and should not be: %v", i, f, err)
					}
					refused++
				}
			}
		}
		if ok {
			agreeing++
		}
	}
	t.Logf("%d of %d responses agree: %d extractions, %d prices, %d without a price in the catalogue, %d flavours rightly refused",
		agreeing, len(responses), extractions, prices, unknown, refused)
	t.Logf("%d of these prices also as lines on the ready card; without a flavour named %d are found, %d refused as open", onCard, found, ambiguous)
}

func counts(u *Usage) map[string]int64 {
	out := map[string]int64{}
	for _, unit := range u.Units() {
		if n := u.counts[unit]; n != 0 {
			out[unit.String()] = n
		}
	}
	return out
}
