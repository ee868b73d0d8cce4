package provider

import (
	"os"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// noon is when the tests take place.
var noon = time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)

func d(s string) decimal.Decimal { return decimal.RequireFromString(s) }

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// own is the small catalogue of this package, with invented prices.
func own(t testing.TB) *Catalogue {
	t.Helper()
	c, err := ParseGenAIPrices(file(t, "catalogue.json"))
	if err != nil {
		t.Fatal(err)
	}
	if issues, n := c.Unusable(); n != 0 {
		t.Fatalf("%v", issues)
	}
	return c
}

func lite(t testing.TB) *Catalogue {
	t.Helper()
	c, err := ParseLiteLLM(file(t, "litellm.json"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// usage makes a usage of units and counts.
func usage(t testing.TB, counts map[Unit]string) Usage {
	t.Helper()
	var u Usage
	for unit, n := range counts {
		if err := u.Set(unit, d(n)); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

func wantCode(t testing.TB, err error, code credit.Code) {
	t.Helper()
	if got := credit.CodeOf(err); got != code {
		t.Errorf("refused with %q (%v), want %q", got, err, code)
	}
}
