package credit_test

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

func costs(byVersion ...credit.Amount) func(credit.RateLock) (credit.Amount, error) {
	return func(at credit.RateLock) (credit.Amount, error) { return byVersion[at.Version], nil }
}

func fixed(cost credit.Amount) func(credit.RateLock) (credit.Amount, error) {
	return func(credit.RateLock) (credit.Amount, error) { return cost, nil }
}

func with(id byte, available credit.Amount, change ...func(*credit.Grant)) *credit.Grant {
	g := aGrant(id)
	g.Available = available
	for _, f := range change {
		f(g)
	}
	return g
}

func locked(version int) func(*credit.Grant) {
	return func(g *credit.Grant) { g.RatePolicy, g.RateVersion = credit.Locked, version }
}

func versionsOf(s credit.Selection) (numbers []int) {
	for _, r := range s.Rates {
		numbers = append(numbers, r.Version)
	}
	return numbers
}

// The same number of another card is another rate.
func TestSelectTellsCardsApart(t *testing.T) {
	of := func(card byte, version int) func(*credit.Grant) {
		return func(g *credit.Grant) {
			g.RatePolicy, g.RateVersion, g.RateCard = credit.Locked, version, credit.RateCardID{card}
		}
	}
	grants := []*credit.Grant{with(1, 5, of(1, 1)), with(2, 99, of(2, 1))}
	s, err := credit.Select(grants, credit.Need{At: noon, Unit: "CRD", Cost: func(at credit.RateLock) (credit.Amount, error) {
		return map[credit.RateCardID]credit.Amount{{1}: 10, {2}: 30}[at.Card], nil
	}}, nil)
	if err != nil || s.Total != 20 || len(s.Rates) != 2 { // half of 10, then half of 30
		t.Errorf("%+v, %v", s, err)
	}
}

func TestSelect(t *testing.T) {
	frozen := func(g *credit.Grant) { g.Frozen = true }
	overage := func(g *credit.Grant) { g.Type = credit.Overage }
	images := func(g *credit.Grant) { g.Wallet.Unit = "IMG" }
	expired := func(g *credit.Grant) { g.ExpiresAt = noon }
	future := func(g *credit.Grant) { g.EffectiveAt = noon.Add(1) }
	for _, c := range []struct {
		name             string
		grants           []*credit.Grant
		cost             func(credit.RateLock) (credit.Amount, error)
		draws            string // grant:amount in order
		short, elsewhere credit.Amount
		versions         []int
	}{
		{"one grant", []*credit.Grant{with(1, 10)}, fixed(4), "1:4", 0, 0, []int{0}},
		{"all of one before the next", []*credit.Grant{with(1, 3), with(2, 10)}, fixed(4), "1:3 2:1", 0, 0, []int{0}},
		{"exactly all", []*credit.Grant{with(1, 3), with(2, 1)}, fixed(4), "1:3 2:1", 0, 0, []int{0}},
		{"too little", []*credit.Grant{with(1, 3), with(2, 10, frozen), with(3, 7, images), with(4, 7, expired), with(5, 7, future)}, fixed(5), "1:3", 2, 10, []int{0}},
		{"nothing at all", nil, fixed(5), "", 5, 0, []int{0}},
		{"free", []*credit.Grant{with(1, 3)}, fixed(0), "", 0, 0, []int{0}},
		{"free with nothing", nil, fixed(0), "", 0, 0, []int{0}},
		{"emptied ones are passed", []*credit.Grant{with(1, 0), with(2, 5)}, fixed(5), "2:5", 0, 0, []int{0}},
		{"overage is not elsewhere", []*credit.Grant{with(1, 9, overage, frozen)}, fixed(5), "", 5, 0, []int{0}},
		{"overage last", []*credit.Grant{with(1, 2), with(2, 9, overage)}, fixed(5), "1:2 2:3", 0, 0, []int{0}},
		// Half of 10 is paid at version 1; half of what version 0 asks, 15, is 8 rounded up.
		{"from locked to floating", []*credit.Grant{with(1, 5, locked(1)), with(2, 99)}, costs(15, 10), "1:5 2:8", 0, 0, []int{1, 0}},
		{"and back", []*credit.Grant{with(1, 5, locked(1)), with(2, 2), with(3, 9, locked(1))}, costs(20, 10), "1:5 2:2 3:4", 0, 0, []int{1, 0, 1}},
		{"short in the last version's credits", []*credit.Grant{with(1, 5, locked(1)), with(2, 2)}, costs(20, 10), "1:5 2:2", 8, 0, []int{1, 0}},
		{"the rest is free now", []*credit.Grant{with(1, 5, locked(1)), with(2, 2)}, costs(0, 10), "1:5", 0, 0, []int{1, 0}},
		{"locked alone", []*credit.Grant{with(1, 9, locked(2))}, costs(1, 1, 7), "1:7", 0, 0, []int{2}},
		{"the largest amounts", []*credit.Grant{with(1, credit.MaxAmount-1, locked(1)), with(2, credit.MaxAmount)}, costs(credit.MaxAmount, credit.MaxAmount),
			"1:9007199254740990 2:1", 0, 0, []int{1, 0}},
	} {
		slices.SortFunc(c.grants, credit.CompareDrawOrder)
		s, err := credit.Select(c.grants, credit.Need{At: noon, Unit: "CRD", Cost: c.cost}, nil)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := ""
		var total credit.Amount
		for i, d := range s.Draws {
			if i > 0 {
				got += " "
			}
			got += fmt.Sprintf("%d:%d", d.Grant.ID[15], d.Amount)
			total += d.Amount
		}
		if got != c.draws || s.Total != total || s.Short != c.short || s.Elsewhere != c.elsewhere || !slices.Equal(versionsOf(s), c.versions) {
			t.Errorf("%s: draws %q, total %d, short %d, elsewhere %d, versions %d", c.name, got, s.Total, s.Short, s.Elsewhere, versionsOf(s))
		}
	}
}

func TestSelectReportsWhatCostReports(t *testing.T) {
	refusal := credit.Errorf(credit.NoRate, "no")
	cost := func(credit.RateLock) (credit.Amount, error) { return 0, refusal }
	for _, grants := range [][]*credit.Grant{nil, {with(1, 5)}} {
		if s, err := credit.Select(grants, credit.Need{At: noon, Unit: "CRD", Cost: cost}, nil); !errors.Is(err, refusal) || s.Draws != nil {
			t.Errorf("%+v, %v", s, err)
		}
	}
}

func TestSelectReusesTheDraws(t *testing.T) {
	grants, buffer := []*credit.Grant{with(1, 3), with(2, 5)}, make([]credit.Draw, 7, 8)
	allocs := testing.AllocsPerRun(100, func() {
		s, err := credit.Select(grants, credit.Need{At: noon, Unit: "CRD", Cost: fixed(4)}, buffer)
		if err != nil || len(s.Draws) != 2 || &s.Draws[0] != &buffer[0] {
			t.Fatalf("%+v, %v", s, err)
		}
	})
	if allocs > 1 { // the versions
		t.Errorf("%v allocations", allocs)
	}
}

// selection is a drawn situation and what [credit.Select] made of it.
type selection struct {
	grants []*credit.Grant
	need   credit.Need
	cost   []credit.Amount // by version
	got    credit.Selection
}

// drawSelection prices at so many versions; when all serve, there is no grant that may not.
func drawSelection(t *rapid.T, versions int, allServe bool) selection {
	var s selection
	for i := range rapid.IntRange(0, 7).Draw(t, "grants") {
		g := drawGrant(t, i+1)
		g.RateVersion = min(g.RateVersion, versions-1)
		if allServe {
			*g = credit.Grant{
				ID: g.ID, Wallet: &credit.Wallet{Unit: "CRD"}, Type: credit.Purchased, Status: credit.StatusOpen, EffectiveAt: noon,
				Priority: g.Priority, Amount: g.Amount, Available: g.Available, RatePolicy: g.RatePolicy, RateVersion: g.RateVersion,
			}
		}
		s.grants = append(s.grants, g)
	}
	slices.SortFunc(s.grants, credit.CompareDrawOrder)
	for v := range versions {
		s.cost = append(s.cost, credit.Amount(rapid.IntRange(1, 40).Draw(t, fmt.Sprintf("cost at %d", v))))
	}
	s.need = credit.Need{
		At: noon, Unit: "CRD", Cost: costs(s.cost...), Member: rapid.SampledFrom([]credit.MemberID{{}, {1}}).Draw(t, "member"),
		Dims: rapid.SampledFrom([]credit.Dimensions{nil, {"model": "x"}, {"model": "y", "region": "eu"}}).Draw(t, "dims"),
	}
	before := make([]credit.Grant, len(s.grants))
	for i, g := range s.grants {
		before[i] = *g
	}
	var err error
	if s.got, err = credit.Select(s.grants, s.need, nil); err != nil {
		t.Fatal(err)
	}
	for i, g := range s.grants {
		if fmt.Sprintf("%+v", before[i]) != fmt.Sprintf("%+v", *g) {
			t.Fatalf("grant %d was changed: %+v", i, *g)
		}
	}
	return s
}

func (s selection) serves(g *credit.Grant) bool {
	return g.Wallet.Unit == s.need.Unit && g.Serves(s.need.At, s.need.Member, s.need.Dims)
}

func TestSelectTakesInOrderAndOnlyWhatMayServe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSelection(t, 3, false)
		var total credit.Amount
		rest := s.got.Draws
		for _, g := range s.grants {
			if len(rest) > 0 && rest[0].Grant == g {
				d := rest[0]
				rest = rest[1:]
				if !s.serves(g) || d.Amount <= 0 || d.Amount > g.Available {
					t.Fatalf("%d is taken from %+v", d.Amount, *g)
				}
				if len(rest) > 0 && d.Amount != g.Available {
					t.Fatalf("%d of %d is taken, and then of another grant", d.Amount, g.Available)
				}
				total += d.Amount
			} else if len(rest) > 0 && s.serves(g) && g.Available > 0 {
				t.Fatalf("%+v is passed over", *g)
			}
		}
		if len(rest) > 0 {
			t.Fatalf("draws are out of order: %+v", s.got.Draws)
		}
		if total != s.got.Total || s.got.Short < 0 || len(versionsOf(s.got)) == 0 {
			t.Fatalf("%+v, of which the draws sum to %d", s.got, total)
		}
	})
}

func TestSelectCountsWhatIsElsewhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSelection(t, 3, false)
		if s.got.Short == 0 {
			return
		}
		var here, elsewhere credit.Amount
		for _, g := range s.grants {
			switch {
			case s.serves(g):
				here += g.Available
			case g.Wallet.Unit == s.need.Unit && g.Type != credit.Overage && !noon.Before(g.EffectiveAt) && (g.ExpiresAt.IsZero() || noon.Before(g.ExpiresAt)):
				elsewhere += g.Available
			}
		}
		if s.got.Total != here || s.got.Elsewhere != elsewhere {
			t.Fatalf("%d here and %d elsewhere, want %d and %d", s.got.Total, s.got.Elsewhere, here, elsewhere)
		}
	})
}

func TestSelectAtOneVersionPaysExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSelection(t, 1, false)
		if s.got.Total+s.got.Short != s.cost[0] {
			t.Fatalf("%d drawn and %d short of %d", s.got.Total, s.got.Short, s.cost[0])
		}
		if !slices.Equal(versionsOf(s.got), []int{0}) {
			t.Fatalf("versions %d", versionsOf(s.got))
		}
	})
}

// Every draw pays the part draw/cost of the event. The parts sum to the whole, or to more by less than one step of each
// version that the walk changed to.
func TestSelectAcrossVersionsPaysTheWholeEvent(t *testing.T) {
	changed := 0
	rapid.Check(t, func(t *rapid.T) {
		s := drawSelection(t, 3, true)
		paid, bound, version := new(big.Rat), new(big.Rat), -1
		part := func(a credit.Amount, version int) *big.Rat { return big.NewRat(int64(a), int64(s.cost[version])) }
		var versions []int
		for _, d := range s.got.Draws {
			if v := d.Grant.RateVersion; v != version {
				if version >= 0 {
					bound.Add(bound, part(1, v))
					changed++
				}
				version = v
				versions = append(versions, v)
			}
			paid.Add(paid, part(d.Amount, version))
		}
		if version < 0 {
			version, versions = 0, []int{0}
		}
		// Without a free version, whatever is priced is drawn.
		if !slices.Equal(versions, versionsOf(s.got)) {
			t.Fatalf("versions %d, drawn at %d", versionsOf(s.got), versions)
		}
		paid.Add(paid, part(s.got.Short, version))
		over := paid.Sub(paid, big.NewRat(1, 1))
		if over.Sign() < 0 || over.Sign() > 0 && over.Cmp(bound) >= 0 {
			t.Fatalf("%+v at %d covers the event and %s of it more; less than %s is allowed", s.got, s.cost, over, bound)
		}
	})
	if changed == 0 {
		t.Error("no walk changed its version")
	}
}

func BenchmarkSelect(b *testing.B) {
	grants := make([]*credit.Grant, 8)
	for i := range grants {
		grants[i] = with(byte(i), 100, func(g *credit.Grant) { g.Scope = credit.Scope{"model": {"x"}} })
		g := grants[i]
		g.ExpiresAt = noon.Add(time.Hour)
	}
	need := credit.Need{At: noon, Unit: "CRD", Dims: credit.Dimensions{"model": "x"}, Cost: fixed(250)}
	var buffer []credit.Draw
	for b.Loop() {
		s, err := credit.Select(grants, need, buffer)
		if err != nil || s.Short != 0 {
			b.Fatal(err)
		}
		buffer = s.Draws
	}
}
