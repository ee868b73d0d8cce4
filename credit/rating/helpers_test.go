package rating_test

import (
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

var (
	noon     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	standard = credit.DerivedID[credit.RateCardID]("standard")
	credits  = credit.Unit{Code: "CRD", Scale: 6, Name: "Credits"}
)

// bookOf has one card, the default one, "standard", whose version n is docs[n-1], from noon plus n-1 hours.
func bookOf(t testing.TB, docs ...[]byte) *rating.Book { return bookIn(t, credits, docs...) }

func bookIn(t testing.TB, unit credit.Unit, docs ...[]byte) *rating.Book {
	t.Helper()
	c := rating.CardVersions{ID: standard, Code: "standard", Unit: unit, Default: true}
	for i, doc := range docs {
		d, err := rating.Parse(doc)
		if err != nil {
			t.Fatal(err)
		}
		c.Versions = append(c.Versions, rating.Version{Number: i + 1, EffectiveAt: noon.Add(time.Duration(i) * time.Hour), Doc: d})
	}
	b, err := rating.NewBook(1, []rating.CardVersions{c})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func number(s string) decimal.Decimal { return decimal.RequireFromString(s) }
