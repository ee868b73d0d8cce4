package recognition

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
)

func dispose(t interface{ Fatal(...any) }, c Carrying, k credit.Amount) (Carrying, int64) {
	next, amount, err := c.Dispose(k)
	if err != nil {
		t.Fatal(err)
	}
	return next, amount
}

func TestSlices(t *testing.T) {
	for _, v := range []struct {
		basis  int64
		units  credit.Amount
		slices []credit.Amount
		want   []int64
	}{
		{100, 7, []credit.Amount{1, 1, 1, 1, 1, 1, 1}, []int64{14, 14, 14, 15, 14, 14, 15}},
		{10000, 3, []credit.Amount{1, 1, 1}, []int64{3333, 3333, 3334}},
		{1, 7, []credit.Amount{1, 1, 1, 1, 1, 1, 1}, []int64{0, 0, 0, 0, 0, 0, 1}},
		{10, 3, []credit.Amount{1, 1, -1, 1, 1}, []int64{3, 3, -3, 3, 4}},
		{1<<63 - 1, credit.MaxAmount, []credit.Amount{credit.MaxAmount - 1, 1}, []int64{1<<63 - 1 - 1025, 1025}},
	} {
		c, got := Carrying{Basis: v.basis, Units: v.units}, []int64(nil)
		for _, k := range v.slices {
			var amount int64
			c, amount = dispose(t, c, k)
			got = append(got, amount)
		}
		if !slices.Equal(got, v.want) || c.Amount() != 0 {
			t.Errorf("%d over %d: %v, want %v; %d still carried", v.basis, v.units, got, v.want, c.Amount())
		}
	}
	for _, v := range []struct {
		total         int64
		weights, want []int64
	}{
		{100, []int64{1, 1, 1}, []int64{34, 33, 33}},
		{5833, []int64{5, 3, 1, 0}, []int64{3241, 1944, 648, 0}},
	} {
		if got := credit.Allocate(v.total, v.weights); !slices.Equal(got, v.want) {
			t.Errorf("%d over %v: %v, want %v", v.total, v.weights, got, v.want)
		}
	}
}

func TestDisposeRefusesWhatIsNotThere(t *testing.T) {
	c, _ := dispose(t, Carrying{Basis: 100, Units: 7}, 5)
	for _, k := range []credit.Amount{3, -6} {
		if next, amount, err := c.Dispose(k); err == nil || next != c || amount != 0 {
			t.Errorf("%d credits: %+v, %d, %v", k, next, amount, err)
		}
	}
}

// drawBook draws a grant and slices, some of them negative, that dispose of all of it.
func drawBook(t *rapid.T) (Carrying, []credit.Amount) {
	c := Carrying{Basis: rapid.OneOf(rapid.Int64Range(0, 1000), rapid.Int64Range(0, 1<<62)).Draw(t, "P"),
		Units: credit.Amount(rapid.OneOf(rapid.Int64Range(1, 100), rapid.Int64Range(1, int64(credit.MaxAmount))).Draw(t, "N"))}
	var d credit.Amount
	var ks []credit.Amount
	for range rapid.IntRange(0, 30).Draw(t, "slices") {
		k := credit.Amount(rapid.Int64Range(-int64(d), int64(c.Units-d)).Draw(t, "k"))
		d += k
		ks = append(ks, k)
	}
	return c, append(ks, c.Units-d)
}

// Conservation: what has left and what is carried make the price after every slice, and exactly the price has left at the end.
func TestConservation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, ks := drawBook(t)
		var out int64
		for _, k := range ks {
			var amount int64
			c, amount = dispose(t, c, k)
			out += amount
			if out != c.PostedOut || out+c.Amount() != c.Basis || c.Amount() < 0 || c.Amount() > c.Basis {
				t.Fatalf("after %d credits %d has left and %d is carried of %d", c.Disposed, out, c.Amount(), c.Basis)
			}
			if (k >= 0) != (amount >= 0) && amount != 0 {
				t.Fatalf("%d credits moved %d", k, amount)
			}
			if c.Basis > 0 && (c.Disposed == c.Units) != (c.Amount() == 0) {
				t.Fatalf("%d credits left, %d carried", c.Units-c.Disposed, c.Amount())
			}
		}
		if out != c.Basis {
			t.Fatalf("%d has left of %d", out, c.Basis)
		}
	})
}

// The order of the slices, and how a slice is cut up, change no cumulative amount.
func TestOrderAndSplittingChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, ks := drawBook(t)
		total := credit.Amount(rapid.Int64Range(0, int64(c.Units)).Draw(t, "used"))
		whole, _ := dispose(t, c, total)
		parts, left := c, total
		for left > 0 {
			k := credit.Amount(rapid.Int64Range(max(1, int64(left)/8), int64(left)).Draw(t, "part"))
			parts, _ = dispose(t, parts, k)
			left -= k
		}
		if whole != parts {
			t.Fatalf("in one: %+v, in parts: %+v", whole, parts)
		}
		uses := slices.DeleteFunc(ks, func(k credit.Amount) bool { return k < 0 })
		for i, k := range uses { // what would be too much of all slices together is cut
			uses[i] = min(k, total)
			total -= uses[i]
		}
		one, other := c, c
		for _, k := range uses {
			one, _ = dispose(t, one, k)
		}
		for _, k := range rapid.Permutation(uses).Draw(t, "other order") {
			other, _ = dispose(t, other, k)
		}
		if one != other {
			t.Fatalf("in one order: %+v, in another: %+v", one, other)
		}
	})
}

// Doubling the price doubles every amount within one minor unit.
func TestDoubling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, ks := drawBook(t)
		c.Basis /= 2
		twice := c
		twice.Basis *= 2
		for _, k := range ks {
			var a, b int64
			c, a = dispose(t, c, k)
			twice, b = dispose(t, twice, k)
			if b-2*a < -1 || b-2*a > 1 {
				t.Fatalf("%d credits: %d, at double the price %d", k, a, b)
			}
		}
	})
}

// Two groups of revenue sum to what the cumulative rule says for both: split by largest remainder, nothing is lost.
func TestRevenueByDimensionSumsToRevenue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Carrying{Basis: rapid.Int64Range(0, 1<<40).Draw(t, "P"), Units: 1 << 40}
		var earned, byDimension int64
		for range rapid.IntRange(1, 20).Draw(t, "days") {
			var shares []ledger.Share
			var units credit.Amount
			for i := range rapid.IntRange(1, 5).Draw(t, "models") {
				s := ledger.Share{Model: fmt.Sprint(i), Units: credit.Amount(rapid.Int64Range(0, 1<<33).Draw(t, "units"))}
				shares, units = append(shares, s), units+s.Units
			}
			var amount int64
			c, amount = dispose(t, c, units)
			earned += amount
			for _, p := range ledger.Recognition(ledger.Fact{}, amount, 0, shares).Postings {
				if p.Account == ledger.UsageRevenue {
					byDimension += p.Money.Minor
				}
			}
		}
		if earned != byDimension || earned != c.PostedOut {
			t.Fatalf("%d earned, %d by model, %d left the grant", earned, byDimension, c.PostedOut)
		}
	})
}

// Published figures: Lago (buy 100, use 30: revenue 30, balance 70), Kong/OpenMeter (100 credits at a unit cost of 0.50 are 50.00) and
// OpenMeter's breakage example (10 that expire at T10 and 15 at T15; 5 and then 10 used: 0 and 10 expire).
func TestPublishedExamples(t *testing.T) {
	lago, revenue := dispose(t, Carrying{Basis: 10000, Units: 100}, 30)
	if revenue != 3000 || lago.Amount() != 7000 {
		t.Errorf("Lago: revenue %d, balance %d", revenue, lago.Amount())
	}
	kong := Carrying{Basis: 5000, Units: 100}
	for range 100 {
		var amount int64
		if kong, amount = dispose(t, kong, 1); amount != 50 {
			t.Errorf("Kong: one credit is %d", amount)
		}
	}
	first, second := Carrying{Basis: 1000, Units: 10}, Carrying{Basis: 1500, Units: 15}
	first, _ = dispose(t, first, 5)   // 5 at T2
	first, _ = dispose(t, first, 5)   // 10 more, the earlier expiry first
	second, _ = dispose(t, second, 5) // and the rest of them
	first, at10 := dispose(t, first, first.Units-first.Disposed)
	second, at15 := dispose(t, second, second.Units-second.Disposed)
	if at10 != 0 || at15 != 1000 || first.Amount()+second.Amount() != 0 {
		t.Errorf("OpenMeter: breakage %d and %d", at10, at15)
	}
}

// The carrying amounts of an integrated quarter: what each month adds to and takes from the contract liability, by the cumulative rule
// alone. The correction puts credits back, the dispute takes them out like any other disposal.
func TestQuarter(t *testing.T) {
	g1, g3, g4 := Carrying{Basis: 10000, Units: 1200}, Carrying{Basis: 11000, Units: 1000}, Carrying{Basis: 4500, Units: 450}
	overage := Carrying{Basis: 500, Units: 50}
	expect := func(what string, got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	var a int64
	g1, a = dispose(t, g1, 700)
	expect("January's revenue", a, 5833)
	expect("January's closing liability", g1.Amount(), 4167)

	g3, a = dispose(t, g3, 333)
	expect("February's revenue from the euro grant", a, 3663)
	g1, a = dispose(t, g1, 100)
	expect("February's revenue from the January grant", a, 833)
	g1, a = dispose(t, g1, -50)
	expect("late correction of January", a, -416)
	before := g3.Disposed
	g3, a = dispose(t, g3, 400)
	expect("refund", a, 4400)
	share := Slice(10000, g3.Units, before, g3.Disposed)
	expect("its euros", share, 4000)
	expect("its exchange loss", Exchange(a, 4800, share, 4000), 400)
	expect("February's closing liability", g1.Amount()+g3.Amount(), 6687)

	_, a = dispose(t, overage, 50)
	expect("March's overage", a, 500)
	g1, a = dispose(t, g1, g1.Units-g1.Disposed)
	expect("dispute lost", a, 3750)
	g3, a = dispose(t, g3, g3.Units-g3.Disposed)
	expect("March's breakage", a, 2937)
	expect("March's closing liability", g1.Amount()+g3.Amount()+g4.Amount(), 4500)
}

func TestExchange(t *testing.T) {
	for _, c := range []struct{ carrying, owed, share, paid, want int64 }{
		{13500, 14000, 10000, 10000, 500},  // the euro rose from 1.35 to 1.40
		{14000, 13500, 10000, 10000, -500}, // it fell
		{13500, 15400, 10000, 11000, 500},  // 11,000 paid for what cost 10,000: the 1,000 too many are worth 1,400 today
		{13500, 7000, 10000, 5000, 250},    // half is not paid back: 6,750 of the carrying amount
		{13500, 0, 10000, 0, 0},            // nothing is paid back
	} {
		if got := Exchange(c.carrying, c.owed, c.share, c.paid); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestAssign(t *testing.T) {
	statuses := map[ledger.Period]Status{"2025-11": Closed, "2025-12": Closed, "2026-01": InReview, "2026-02": SoftClosed, "2026-04": Closed, "2026-05": Reopened}
	for service, want := range map[ledger.Period]ledger.Period{
		"2025-10": "2026-02", // never touched, and before closed ones
		"2025-11": "2026-02", // past the year's end and a period under review
		"2026-01": "2026-02",
		"2026-02": "2026-02",
		"2026-03": "2026-05", // never touched, and before a closed one
		"2026-04": "2026-05",
		"2026-06": "2026-06",
	} {
		if got := Assign(service, statuses); got != want {
			t.Errorf("%s: booked in %s, want %s", service, got, want)
		}
	}
}

// A fact is booked in the earliest month from its own on that takes entries: one that says so, or one that was never touched and is after all that do not.
func TestAssignIsTheEarliest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		month := func(n int) ledger.Period {
			p := ledger.Period("2025-06")
			for range n {
				p = p.Next()
			}
			return p
		}
		statuses := map[ledger.Period]Status{}
		for n := range 12 {
			if s := rapid.SampledFrom([]Status{"", Open, SoftClosed, InReview, Closed, Reopened}).Draw(t, "status"); s != "" {
				statuses[month(n)] = s
			}
		}
		service := month(rapid.IntRange(0, 14).Draw(t, "service"))
		takes := func(p ledger.Period) bool {
			if s, known := statuses[p]; known {
				return s == Open || s == SoftClosed || s == Reopened
			}
			for later, s := range statuses {
				if later > p && (s == InReview || s == Closed) {
					return false
				}
			}
			return true
		}
		want := service
		for !takes(want) {
			want = want.Next()
		}
		if got := Assign(service, statuses); got != want {
			t.Fatalf("%s is booked in %s, want %s: %v", service, got, want, statuses)
		}
	})
}
