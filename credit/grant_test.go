package credit_test

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// aGrant is open, general, effective since a day ago and never expires.
func aGrant(id byte) *credit.Grant {
	return &credit.Grant{
		ID: credit.GrantID{15: id}, Wallet: &credit.Wallet{Unit: "CRD", Priority: 100}, Type: credit.Purchased, Status: credit.StatusOpen, Priority: 100,
		EffectiveAt: noon.AddDate(0, 0, -1), Basis: 100, Amount: 1000, Granted: 1000, Available: 1000, RatePolicy: credit.Floating,
	}
}

// Each criterion decides alone, and whatever the later ones say.
func TestDrawOrderCriteria(t *testing.T) {
	criteria := []struct {
		name  string
		worse func(g *credit.Grant)
	}{
		{"overage last", func(g *credit.Grant) { g.Type = credit.Overage }},
		{"restricted before general", func(g *credit.Grant) { g.Scope = nil }},
		{"wallet priority", func(g *credit.Grant) { g.Wallet.Priority = 200 }},
		{"grant priority", func(g *credit.Grant) { g.Priority = 200 }},
		{"expiry, none last", func(g *credit.Grant) { g.ExpiresAt = time.Time{} }},
		{"cost basis", func(g *credit.Grant) { g.Basis = 101 }},
		{"effective", func(g *credit.Grant) { g.EffectiveAt = noon }},
		{"id", func(g *credit.Grant) { g.ID = credit.GrantID{0: 1} }},
	}
	best := func() *credit.Grant {
		g := aGrant(0)
		g.Scope = credit.Scope{"model": {"x"}}
		g.ExpiresAt = noon.AddDate(0, 1, 0)
		return g
	}
	for i, c := range criteria {
		a, b := best(), best()
		c.worse(b)
		for _, l := range criteria[i+1:] { // a is worse in everything that comes later
			l.worse(a)
		}
		if got := credit.CompareDrawOrder(a, b); got >= 0 {
			t.Errorf("%s: %d", c.name, got)
		}
		if got := credit.CompareDrawOrder(b, a); got <= 0 {
			t.Errorf("%s, reversed: %d", c.name, got)
		}
	}
}

func TestDrawOrderDetails(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b func(g *credit.Grant)
	}{
		{"the wallet's scope restricts as the grant's does", func(g *credit.Grant) { g.Wallet.Scope = credit.Scope{"model": {"x"}} }, func(g *credit.Grant) { g.Priority = 1 }},
		{"the earlier expiry", func(g *credit.Grant) { g.ExpiresAt = noon }, func(g *credit.Grant) { g.ExpiresAt = noon.Add(time.Microsecond) }},
		{"a far expiry before none", func(g *credit.Grant) { g.ExpiresAt = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC) }, func(g *credit.Grant) {}},
		{"basis per credit, not in total", func(g *credit.Grant) { g.Basis, g.Amount = 150, 2000 }, func(g *credit.Grant) { g.Basis, g.Amount = 100, 1000 }},
		{"free before paid", func(g *credit.Grant) { g.Basis = 0 }, func(g *credit.Grant) { g.Basis = 1 }},
		{"basis beyond 64 bits crosswise", func(g *credit.Grant) { g.Basis, g.Amount = 1<<52, credit.MaxAmount }, func(g *credit.Grant) { g.Basis, g.Amount = 1<<52, credit.MaxAmount-1 }},
		{"negative priorities", func(g *credit.Grant) { g.Priority = -5 }, func(g *credit.Grant) { g.Priority = 0 }},
	} {
		a, b := aGrant(2), aGrant(1)
		c.a(a)
		c.b(b)
		if ab, ba := credit.CompareDrawOrder(a, b), credit.CompareDrawOrder(b, a); ab >= 0 || ba <= 0 {
			t.Errorf("%s: %d and %d", c.name, ab, ba)
		}
	}
	a, b := aGrant(1), aGrant(2)
	a.Basis, a.Amount, b.Basis, b.Amount = 1, 3, 2, 6 // equal ratios
	if got := credit.CompareDrawOrder(a, b); got >= 0 {
		t.Errorf("equal ratios: %d", got)
	}
}

func TestDrawOrderByBasisIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := aGrant(1), aGrant(2)
		for _, g := range []*credit.Grant{a, b} {
			g.Basis, g.Amount = int64(anyAmount.Draw(t, "basis")), max(anyAmount.Draw(t, "amount"), 1)
		}
		want := big.NewRat(a.Basis, int64(a.Amount)).Cmp(big.NewRat(b.Basis, int64(b.Amount)))
		if got := credit.CompareDrawOrder(a, b); got != cmp.Or(want, -1) {
			t.Fatalf("%d/%d against %d/%d: %d, want %d", a.Basis, a.Amount, b.Basis, b.Amount, got, want)
		}
	})
}

// drawGrant takes every field from few values, so that grants tie on any number of criteria.
func drawGrant(t *rapid.T, id int) *credit.Grant {
	label := func(s string) string { return fmt.Sprintf("%s of %d", s, id) }
	scope := rapid.SampledFrom([]credit.Scope{nil, {}, {"model": {"x"}}, {"model": {"y"}}, {"model": {"x", "y"}}})
	g := aGrant(0)
	g.ID = credit.GrantID{0: byte(rapid.IntRange(0, 3).Draw(t, label("id"))), 15: byte(id)}
	g.Wallet = &credit.Wallet{
		Unit: rapid.SampledFrom([]string{"CRD", "CRD", "CRD", "IMG"}).Draw(t, label("unit")), Priority: rapid.IntRange(0, 1).Draw(t, label("wallet priority")),
		Scope: scope.Draw(t, label("wallet scope")),
	}
	g.Type = rapid.SampledFrom([]credit.GrantType{credit.Purchased, credit.Promotional, credit.Overage}).Draw(t, label("type"))
	g.Status = rapid.SampledFrom([]credit.Status{credit.StatusOpen, credit.StatusOpen, credit.StatusOpen, credit.StatusOpen, credit.StatusVoided}).Draw(t, label("status"))
	g.Frozen = rapid.IntRange(0, 7).Draw(t, label("frozen")) == 0
	g.Priority = rapid.IntRange(0, 1).Draw(t, label("priority"))
	g.Scope = scope.Draw(t, label("scope"))
	g.MemberID = rapid.SampledFrom([]credit.MemberID{{}, {}, {1}, {2}}).Draw(t, label("member"))
	g.EffectiveAt = noon.Add(rapid.SampledFrom([]time.Duration{-time.Hour, 0, 0, time.Microsecond}).Draw(t, label("effective")))
	if d := rapid.SampledFrom([]time.Duration{0, 0, time.Microsecond, time.Microsecond, time.Hour}).Draw(t, label("expires")); d > 0 {
		g.ExpiresAt = noon.Add(d)
	}
	if rapid.IntRange(0, 7).Draw(t, label("expired")) == 0 {
		g.EffectiveAt, g.ExpiresAt = noon.Add(-time.Hour), noon
	}
	g.Basis = rapid.SampledFrom([]int64{0, 1, 2, 3}).Draw(t, label("basis"))
	g.Amount = rapid.SampledFrom([]credit.Amount{1000, 2000, 3000}).Draw(t, label("amount"))
	g.Available = credit.Amount(rapid.IntRange(0, 12).Draw(t, label("available")))
	if g.RateVersion = rapid.IntRange(0, 2).Draw(t, label("version")); g.RateVersion > 0 {
		g.RatePolicy = credit.Locked
	}
	return g
}

func TestDrawOrderIsAStrictTotalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := [3]*credit.Grant{drawGrant(t, 1), drawGrant(t, 2), drawGrant(t, 3)}
		for _, a := range g {
			for _, b := range g {
				ab, ba := credit.CompareDrawOrder(a, b), credit.CompareDrawOrder(b, a)
				if cmp.Compare(ab, 0) != -cmp.Compare(ba, 0) || (ab == 0) != (a == b) {
					t.Fatalf("%+v against %+v: %d and %d", a, b, ab, ba)
				}
				for _, c := range g {
					if ab < 0 && credit.CompareDrawOrder(b, c) < 0 && credit.CompareDrawOrder(a, c) >= 0 {
						t.Fatalf("%+v < %+v < %+v, but not the first and the last", a, b, c)
					}
				}
			}
		}
		// Any order to begin with ends in the same one.
		one, two := slices.Clone(g[:]), []*credit.Grant{g[2], g[0], g[1]}
		slices.SortFunc(one, credit.CompareDrawOrder)
		slices.SortFunc(two, credit.CompareDrawOrder)
		if !slices.Equal(one, two) {
			t.Fatalf("%v and %v", one, two)
		}
	})
}

func TestServes(t *testing.T) {
	member, other := credit.MemberID{1}, credit.MemberID{2}
	for _, c := range []struct {
		name   string
		change func(g *credit.Grant)
		want   bool
	}{
		{"as made", func(g *credit.Grant) {}, true},
		{"nothing available", func(g *credit.Grant) { g.Available = 0 }, true},
		{"from this instant", func(g *credit.Grant) { g.EffectiveAt = noon }, true},
		{"from the next", func(g *credit.Grant) { g.EffectiveAt = noon.Add(1) }, false},
		{"until the next instant", func(g *credit.Grant) { g.ExpiresAt = noon.Add(1) }, true},
		{"until this instant", func(g *credit.Grant) { g.ExpiresAt = noon }, false},
		{"frozen", func(g *credit.Grant) { g.Frozen = true }, false},
		{"pending", func(g *credit.Grant) { g.Status = credit.StatusPending }, false},
		{"expired and booked", func(g *credit.Grant) { g.Status = credit.StatusExpired }, false},
		{"this member's", func(g *credit.Grant) { g.MemberID = member }, true},
		{"another member's", func(g *credit.Grant) { g.MemberID = other }, false},
		{"in scope", func(g *credit.Grant) { g.Scope = credit.Scope{"model": {"x", "y"}} }, true},
		{"out of scope", func(g *credit.Grant) { g.Scope = credit.Scope{"model": {"y"}} }, false},
		{"out of the wallet's scope", func(g *credit.Grant) { g.Wallet.Scope = credit.Scope{"model": {"y"}} }, false},
		{"in one scope only", func(g *credit.Grant) {
			g.Scope, g.Wallet.Scope = credit.Scope{"model": {"x"}}, credit.Scope{"region": {"eu"}}
		}, false},
	} {
		g := aGrant(1)
		c.change(g)
		if got := g.Serves(noon, member, credit.Dimensions{"model": "x"}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	g := aGrant(1)
	g.MemberID = member
	if g.Serves(noon, credit.MemberID{}, nil) {
		t.Error("a member's grant serves when no member is named")
	}
	// Instants, not wall clocks.
	g = aGrant(1)
	g.ExpiresAt = noon
	if g.Serves(noon.In(time.FixedZone("", -5*3600)), member, nil) || !g.PastExpiry(noon.In(time.FixedZone("", 5*3600))) {
		t.Error("the zone of the instant matters")
	}
}

func TestState(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(g *credit.Grant)
		want   credit.State
	}{
		{"as made", func(g *credit.Grant) {}, credit.StateActive},
		{"before its time", func(g *credit.Grant) { g.EffectiveAt = noon.Add(1) }, credit.StateAllocated},
		{"at its time", func(g *credit.Grant) { g.EffectiveAt = noon }, credit.StateActive},
		{"past its time, not yet booked", func(g *credit.Grant) { g.ExpiresAt = noon }, credit.StateExpired},
		{"frozen past its time", func(g *credit.Grant) { g.ExpiresAt, g.Frozen = noon, true }, credit.StateFrozen},
		{"pending", func(g *credit.Grant) { g.Status = credit.StatusPending }, credit.StatePending},
		{"depleted past its time", func(g *credit.Grant) { g.Status, g.ExpiresAt = credit.StatusDepleted, noon }, credit.StateDepleted},
		{"expired", func(g *credit.Grant) { g.Status = credit.StatusExpired }, credit.StateExpired},
		{"refunded", func(g *credit.Grant) { g.Status = credit.StatusRefunded }, credit.StateRefunded},
		{"voided", func(g *credit.Grant) { g.Status, g.Frozen = credit.StatusVoided, true }, credit.StateVoided},
	} {
		g := aGrant(1)
		c.change(g)
		if got := g.State(noon); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// A grant that serves is active; an active one serves whoever asks within its scope.
func TestServesOnlyWhenActive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGrant(t, 1)
		if g.Serves(noon, g.MemberID, credit.Dimensions{"model": "x"}) && g.State(noon) != credit.StateActive {
			t.Fatalf("it serves while %s", g.State(noon))
		}
		g.Scope, g.Wallet.Scope = nil, nil
		if g.Serves(noon, g.MemberID, nil) != (g.State(noon) == credit.StateActive) {
			t.Fatalf("it is %s, and serves: %v", g.State(noon), g.Serves(noon, g.MemberID, nil))
		}
	})
}

func TestConserves(t *testing.T) {
	g := aGrant(1)
	g.Available, g.Held, g.Consumed, g.Expired, g.Refunded, g.Voided, g.Transferred = 400, 100, 200, 50, 60, 70, 120
	if !g.Conserves() {
		t.Error("1,000 = 400+100+200+50+60+70+120 does not conserve")
	}
	for _, field := range []*credit.Amount{&g.Granted, &g.Available, &g.Held, &g.Consumed, &g.Expired, &g.Refunded, &g.Voided, &g.Transferred} {
		*field++
		if g.Conserves() {
			t.Errorf("%+v conserves", g)
		}
		*field--
	}
	g.Available, g.Held = 600, -100
	if g.Conserves() {
		t.Error("a negative counter conserves")
	}
}
