package recognition

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
)

func rate(t interface{ Fatal(...any) }, s string) Rate {
	d, err := decimal.NewFromString(s)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRate(d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func adjust(t interface{ Fatal(...any) }, c Cohort, e Expectation) Cohort {
	more, err := c.Adjustment(e)
	if err != nil {
		t.Fatal(err)
	}
	c.Adjusted += more
	return c
}

// earned is what the cohort has given to revenue so far.
func (c Cohort) earned() int64 { return c.Used + c.Expired + c.Adjusted }

// whole rounds cents to whole units half up, the precision to which the examples are published.
func whole(cents int64) int64 { return credit.MulDivRound(cents, 1, 100) }

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// A loyalty programme, one year after the other: allocation of 100,000 of sales over goods and 10,000 points worth 1 each of which 95 % are
// expected to be used; 4,500 are used of 9,500, then 8,500 of 9,700. ASC 606 and IFRS 15, Example 52; KPMG's Example 10A goes on from
// 9,000 allocated.
func TestPoints(t *testing.T) {
	parts := AllocatePrice(100_000_00, 100_000_00, MaterialRight(10_000_00, rate(t, "0.95")))
	equal(t, "goods", whole(parts[0]), 91_324)
	equal(t, "points", whole(parts[1]), 8_676)
	c := Carrying{Basis: parts[1], Units: 10_000}
	c, used := dispose(t, c, 4_500)
	cohort := adjust(t, Cohort{Price: c.Basis, Used: used}, Expectation{9_500, 10_000})
	first := cohort.earned()
	equal(t, "first year's revenue", whole(first), 4_110)
	equal(t, "liability after it", whole(c.Basis-first), 4_566)
	_, used = dispose(t, c, 4_000)
	cohort.Used += used
	cohort = adjust(t, cohort, Expectation{9_700, 10_000})
	equal(t, "second year's revenue", whole(cohort.earned()-first), 3_493)
	equal(t, "liability after it", whole(c.Basis-cohort.earned()), 1_073)

	c = Carrying{Basis: 9_000_00, Units: 10_000}
	c, used = dispose(t, c, 4_500)
	cohort = adjust(t, Cohort{Price: c.Basis, Used: used}, Expectation{9_700, 10_000})
	second := cohort.earned()
	equal(t, "KPMG, year 2", whole(second), 4_175)
	_, used = dispose(t, c, 4_000)
	cohort.Used += used
	cohort = adjust(t, cohort, Expectation{9_900, 10_000})
	equal(t, "KPMG, year 3", whole(cohort.earned()-second), 3_552)
}

// Spiceland's supply club: 135,000 of sales with 125,000 points at 20c, 60 % likely to be used; later 60,000 are, of 75,000 expected.
func TestSupplyClub(t *testing.T) {
	ssp := MaterialRight(25_000_00, rate(t, "0.6"))
	equal(t, "points alone", ssp, 15_000_00)
	parts := AllocatePrice(135_000_00, 135_000_00, ssp)
	equal(t, "goods", parts[0], 121_500_00)
	equal(t, "points", parts[1], 13_500_00)
	_, used := dispose(t, Carrying{Basis: parts[1], Units: 125_000}, 60_000)
	cohort := adjust(t, Cohort{Price: parts[1], Used: used}, Expectation{75_000, 125_000})
	equal(t, "released", cohort.earned(), 10_800_00)
	// What is promised is a liability out of the price. Answers in print that book the discount as a cost have an expense here.
	e := ledger.Purchase(ledger.Fact{Currency: "USD"}, ledger.Cash, ledger.Sum{Minor: parts[1]}, ledger.Sum{}, 125_000)
	if len(e.Postings) != 2 || e.Postings[0].Account != ledger.Cash || e.Postings[1].Account != ledger.PrepaidCredits {
		t.Errorf("the points are booked as %+v", e.Postings)
	}
}

// Kieso's Colbert: 20 gift cards of 100, of which 90 % are expected to be used; 50, 80 and 85 % are, and the rest expires.
func TestGiftCards(t *testing.T) {
	c := Carrying{Basis: 2_000_00, Units: 2_000}
	cohort := Cohort{Price: c.Basis}
	var before int64
	for _, year := range []struct {
		used credit.Amount
		want int64
	}{{1_000, 1_111}, {600, 667}} {
		var amount int64
		c, amount = dispose(t, c, year.used)
		cohort.Used += amount
		cohort = adjust(t, cohort, Expectation{9, 10})
		equal(t, fmt.Sprintf("%d used", c.Disposed), whole(cohort.earned()-before), year.want)
		before = cohort.earned()
	}
	c, amount := dispose(t, c, 100)
	cohort.Used += amount
	_, amount = dispose(t, c, 300)
	cohort.Expired += amount
	cohort = adjust(t, cohort, Expectation{9, 10})
	equal(t, "last year", whole(cohort.earned()-before), 222)
	equal(t, "in all", cohort.earned(), 2_000_00)
	equal(t, "2019 at the end", cohort.Adjusted, 0)
}

// Journal of Accountancy, February 2015: 1,000 sold, 10 % never used, 540 used so far.
func TestJournalOfAccountancy(t *testing.T) {
	_, used := dispose(t, Carrying{Basis: 1_000_00, Units: 1_000}, 540)
	cohort := adjust(t, Cohort{Price: 1_000_00, Used: used}, Expectation{90, 100})
	equal(t, "breakage", cohort.Adjusted, 60_00)
	equal(t, "liability", cohort.Left()-cohort.Adjusted, 400_00)
}

// The remote method, where credits end some months after the month of their sale. CircuitTown: 10 months; Sunbru: 2 months, closing the year.
func TestRemote(t *testing.T) {
	type sale struct {
		month ledger.Period
		price int64
		used  []int64
	}
	run := func(sales []sale, months int, year ledger.Period) (revenue []int64, breakage, liability int64) {
		for _, s := range sales {
			c := Carrying{Basis: s.price, Units: credit.Amount(s.price)}
			for _, u := range s.used {
				c, _ = dispose(t, c, credit.Amount(u))
			}
			if s.month.Plus(months) <= year {
				var amount int64
				c, amount = dispose(t, c, c.Units-c.Disposed)
				breakage += amount
			}
			revenue = append(revenue, c.PostedOut)
			liability += c.Amount()
		}
		return revenue, breakage, liability
	}
	revenue, breakage, liability := run([]sale{{"2025-01", 10_000, []int64{6_000}}, {"2025-02", 15_000, []int64{4_500}}, {"2025-03", 16_000, []int64{4_000}}}, 10, "2025-12")
	if !slices.Equal(revenue, []int64{10_000, 15_000, 4_000}) || breakage != 4_000+10_500 || liability != 12_000 {
		t.Errorf("CircuitTown: revenue %d, breakage %d, liability %d", revenue, breakage, liability)
	}
	revenue, breakage, liability = run([]sale{{"2011-10", 3_000, []int64{500, 1_400, 200}}, {"2011-11", 4_000, []int64{700, 2_000}}, {"2011-12", 3_000, []int64{400}}}, 2, "2011-12")
	if !slices.Equal(revenue, []int64{3_000, 2_700, 400}) || breakage != 900 || liability != 3_900 {
		t.Errorf("Sunbru: revenue %d, breakage %d, liability %d", revenue, breakage, liability)
	}
}

// Tax at use: 3,500 sold, 728 of it used at 4 %. Stripe's partial refund of two taxed lines. And what is wrong in print: 84 for 2,100 at 4 %.
func TestTax(t *testing.T) {
	c, used := dispose(t, Carrying{Basis: 3_500_00, Units: 3_500}, 728)
	tax := TaxOfSlice(0, used, rate(t, "0.04"))
	equal(t, "tax", tax, 28_00)
	equal(t, "revenue", used-tax, 700_00)
	equal(t, "liability", c.Amount(), 2_772_00)
	lines := credit.Allocate(25_00, []int64{60_00 + 15_00, 40_00 + 10_00})
	if !slices.Equal(lines, []int64{15_00, 10_00}) {
		t.Errorf("25 over lines of 75 and 50: %d", lines)
	}
	equal(t, "tax of the first line", TaxWithin(lines[0], rate(t, "0.25")), 3_00)
	equal(t, "tax of the second line", TaxWithin(lines[1], rate(t, "0.25")), 2_00)
	equal(t, "tax within 2,100", TaxWithin(2_100_00, rate(t, "0.04")), 80_77)
	equal(t, "no tax", TaxWithin(2_100_00, Rate{}), 0)
}

// IFRIC 22, Example 4: a price of FC 1,000 for two products, FC 200 paid in advance, FC 250 due with the first, FC 800 paid with the second.
func TestSeveralAdvances(t *testing.T) {
	local := func(minor int64, at string) int64 {
		m, err := credit.Money{Minor: minor, Currency: "EUR"}.Convert("USD", decimal.RequireFromString(at))
		if err != nil {
			t.Fatal(err)
		}
		return m.Minor
	}
	advance := Carrying{Basis: local(200_00, "1.50"), Units: 200}
	equal(t, "liability on 31 January", advance.Amount(), 300_00)
	advance, first := dispose(t, advance, 200)
	due := local(250_00, "1.70")
	equal(t, "revenue on 1 March", first+due, 725_00)
	equal(t, "the receivable then", due, 425_00)
	equal(t, "cash on 1 June", local(800_00, "1.90"), 1_520_00)
	paid := ledger.Payment(ledger.Fact{Currency: "USD"}, ledger.Cash, ledger.Sum{Minor: local(250_00, "1.90")}, ledger.Sum{Minor: due})
	equal(t, "gain", paid.Postings[1].Money.Minor, 50_00)
	equal(t, "its account", paid.Postings[1].Account, ledger.FXRealised)
	equal(t, "its side", paid.Postings[1].Side, ledger.Cr)
	equal(t, "revenue on 1 June", local(550_00, "1.90"), 1_045_00)
	equal(t, "left of the advance", advance.Amount(), 0)

	more, err := Remeasure(credit.Money{Minor: 250_00, Currency: "EUR"}, credit.Money{Minor: due, Currency: "USD"}, decimal.RequireFromString("1.80"))
	if err != nil || more != 25_00 {
		t.Errorf("the receivable at 1.80 is worth %d more, %v", more, err)
	}
}

// Stripe's 120 USD from 15 June 12:00 to 13 October 12:00 UTC, in its four ways; its monthly 31 USD from 15 January; and edges.
func TestSchedule(t *testing.T) {
	date := func(s string) time.Time {
		at, err := time.Parse("2006-01-02T15", s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		total    int64
		from, to string
		spread   Spread
		want     string
	}{
		{12000, "2026-06-15T12", "2026-10-13T12", ByTime, "2026-06 1550, 2026-07 3100, 2026-08 3100, 2026-09 3000, 2026-10 1250"},
		{12000, "2026-06-15T12", "2026-10-13T12", ByDay, "2026-06 1600, 2026-07 3100, 2026-08 3100, 2026-09 3000, 2026-10 1200"},
		{12000, "2026-06-15T12", "2026-10-13T12", ByMonth, "2026-06 3000, 2026-07 3000, 2026-08 3000, 2026-09 3000"},
		{12000, "2026-06-15T12", "2026-10-13T12", Prorated, "2026-06 1550, 2026-07 3066, 2026-08 3066, 2026-09 3068, 2026-10 1250"},
		{3100, "2026-01-15T00", "2026-02-15T00", ByDay, "2026-01 1700, 2026-02 1400"},
		{100, "2026-01-01T00", "2026-04-01T00", Prorated, "2026-01 33, 2026-02 33, 2026-03 34"},
		{100, "2026-01-01T00", "2026-04-01T00", ByMonth, "2026-01 33, 2026-02 33, 2026-03 34"},
		{100, "2026-01-10T00", "2026-02-10T00", Prorated, "2026-01 70, 2026-02 30"}, // 22 of 31 days: 70.97; no whole month, the last part has the rest
		{100, "2026-01-10T06", "2026-01-10T18", Prorated, "2026-01 100"},
		{100, "2026-01-10T06", "2026-01-10T18", ByDay, "2026-01 100"},
		{100, "2026-01-10T06", "2026-01-31T18", ByMonth, "2026-01 100"},
		{1, "2026-01-01T00", "2026-04-01T00", ByMonth, "2026-03 1"},
		{0, "2026-01-01T00", "2026-04-01T00", ByMonth, ""},
	} {
		var got []string
		for _, p := range Schedule(c.total, date(c.from), date(c.to), c.spread, time.UTC) {
			got = append(got, fmt.Sprintf("%s %d", p.Period, p.Amount))
		}
		equal(t, fmt.Sprintf("%d from %s to %s by %s", c.total, c.from, c.to, c.spread), strings.Join(got, ", "), c.want)
	}
}

// Stripe's monthly 31 USD from 15 January, 11 of it from the customer's balance and 20 paid on 9 February: what each month moves.
func TestInvoicePartlyFromBalance(t *testing.T) {
	at := func(m time.Month) time.Time { return time.Date(2026, m, 15, 0, 0, 0, 0, time.UTC) }
	sum := func(minor int64) ledger.Sum { return ledger.Sum{Minor: minor} }
	f := func(p ledger.Period) ledger.Fact { return ledger.Fact{Currency: "USD", Period: p} }
	entries := []ledger.Entry{
		ledger.Purchase(f("2026-01"), ledger.TradeReceivable, sum(31_00), sum(0), 31),
		ledger.Payment(f("2026-01"), ledger.CustomerCash, sum(11_00), sum(11_00)),
		ledger.Payment(f("2026-02"), ledger.Cash, sum(20_00), sum(20_00)),
	}
	for _, p := range Schedule(31_00, at(time.January), at(time.February), ByDay, time.UTC) {
		entries = append(entries, ledger.Recognition(f(p.Period), p.Amount, 0, []ledger.Share{{Units: 1}}))
	}
	got := map[ledger.Period]map[ledger.Account]int64{"2026-01": {}, "2026-02": {}}
	for _, e := range entries {
		for _, p := range e.Postings {
			if p.Side == ledger.Dr {
				got[e.Period][p.Account] += p.Money.Minor
			} else {
				got[e.Period][p.Account] -= p.Money.Minor
			}
		}
	}
	equal(t, "January and February", fmt.Sprint(got), fmt.Sprint(map[ledger.Period]map[ledger.Account]int64{
		"2026-01": {ledger.TradeReceivable: 20_00, ledger.CustomerCash: 11_00, ledger.UsageRevenue: -17_00, ledger.PrepaidCredits: -14_00},
		"2026-02": {ledger.TradeReceivable: -20_00, ledger.Cash: 20_00, ledger.UsageRevenue: -14_00, ledger.PrepaidCredits: 14_00},
	}))
}

// 100.00 for credits worth 100 and a bonus of its own terms worth 12; and a bonus of the same terms, which is more credits for the same price.
func TestBonus(t *testing.T) {
	parts := AllocatePrice(100_00, 100, 12)
	if !slices.Equal(parts, []int64{89_29, 10_71}) {
		t.Errorf("own terms: %d", parts)
	}
	_, amount := dispose(t, Carrying{Basis: 100_00, Units: 1_000 + 200}, 700)
	equal(t, "same terms", amount, 58_33)
	if free := AllocatePrice(100_00, 0, 0); !slices.Equal(free, []int64{100_00, 0}) {
		t.Errorf("nothing has a price of its own: %d", free)
	}
}

// Answers in print that are wrong, and must not come out. Escargot: breakage as 12 % of what is used, 5,400 on 45,000, which leaves a part of
// the price for ever. Finlearnhub: half of the 158 allocated are released for 1,000 of 2,000 points, of which 1,700 are expected to be used.
func TestWrongAnswers(t *testing.T) {
	cohort := Cohort{Price: 60_000_00, Used: 45_000_00}
	more, err := cohort.Adjustment(Expectation{88, 100})
	if err != nil || more == 5_400_00 || more != 6_136_36 {
		t.Errorf("Escargot: %d, %v", more, err)
	}
	cohort.Used = 52_800_00 // all that was expected
	if done := adjust(t, cohort, Expectation{88, 100}); done.earned() != done.Price {
		t.Errorf("Escargot: %d of %d is earned when all that was expected is used", done.earned(), done.Price)
	}
	points := adjust(t, Cohort{Price: 158_00, Used: 79_00}, Expectation{1_700, 2_000})
	equal(t, "finlearnhub", points.earned(), 92_94)
}

func TestEscheat(t *testing.T) {
	equal(t, "a third of 29.37", Escheat(29_37, rate(t, "0.333333333")), 9_79)
	equal(t, "none", Escheat(29_37, Rate{}), 0)
	equal(t, "all", Escheat(29_37, rate(t, "1")), 29_37)
}

func TestEstimateExceeded(t *testing.T) {
	c := Cohort{Price: 100_00, Used: 95_01}
	if _, err := c.Adjustment(Expectation{95, 100}); credit.CodeOf(err) != credit.EstimateExceeded {
		t.Error(err)
	}
	c.Used-- // exactly what was expected: all is earned
	if more, err := c.Adjustment(Expectation{95, 100}); err != nil || more != 5_00 {
		t.Error(more, err)
	}
	for _, e := range []Expectation{{0, 1}, {2, 1}, {}} {
		if _, err := c.Adjustment(e); credit.CodeOf(err) != credit.InvalidRequest {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

func TestNewRate(t *testing.T) {
	for s, ok := range map[string]bool{"0": true, "0.04": true, "1": true, "0.123456789": true, "0.1234567891": false, "1.000000001": false,
		"-0.01": false, "10": false, "1e-9": true, "1e4000": false, "1e-4000": false} {
		d, err := decimal.NewFromString(s)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := NewRate(d); (err == nil) != ok || ok && !r.Decimal().Equal(d) || !ok && credit.CodeOf(err) != credit.InvalidRequest {
			t.Errorf("%s: %s, %v", s, r.Decimal(), err)
		}
	}
}

// Targets are rounded half up, and what is larger than an int64 on the way is not cut.
func TestTargetRounding(t *testing.T) {
	for _, c := range []struct {
		price, used int64
		e           Expectation
		want        int64
	}{
		{3, 1, Expectation{2, 3}, 2},   // 1.5
		{7, 1, Expectation{3, 4}, 1},   // 1.33
		{7, 2, Expectation{3, 4}, 3},   // 2.67
		{100, 0, Expectation{1, 2}, 0}, // nothing used, nothing earned
		{1<<63 - 1, 1 << 61, Expectation{1 << 51, credit.MaxAmount}, 9223372036854774784}, // 2^61·(2^53 - 1)/2^51 = 2^63 - 2^10
	} {
		if got, err := (Cohort{Price: c.price, Used: c.used}).Target(c.e); err != nil || got != c.want {
			t.Errorf("%+v: %d, %v", c, got, err)
		}
	}
}

// Whatever is used, expires and is expected: what is ahead of use and expiry is never negative nor more than what is left, all of the price is
// earned in the end and 2019 is empty then; all expected to be used is the remote method; posting twice posts nothing the second time.
func TestProportional(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var grants []Carrying
		var cohort Cohort
		for range rapid.IntRange(1, 5).Draw(t, "grants") {
			g := Carrying{Basis: rapid.Int64Range(0, 1<<50).Draw(t, "P"), Units: credit.Amount(rapid.Int64Range(1, 1<<40).Draw(t, "N"))}
			grants, cohort.Price = append(grants, g), cohort.Price+g.Basis
		}
		remote := cohort
		for range rapid.IntRange(1, 12).Draw(t, "periods") {
			i := rapid.IntRange(0, len(grants)-1).Draw(t, "grant")
			k := credit.Amount(rapid.Int64Range(0, int64(grants[i].Units-grants[i].Disposed)).Draw(t, "k"))
			var amount int64
			grants[i], amount = dispose(t, grants[i], k)
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				cohort.Used += amount
			case 1:
				cohort.Expired += amount
			case 2: // refunded: it leaves the cohort
				cohort.Price -= amount
			}
			of := credit.Amount(rapid.Int64Range(1, 1<<40).Draw(t, "of"))
			e := Expectation{credit.Amount(rapid.Int64Range(1, int64(of)).Draw(t, "use")), of}
			if _, err := cohort.Adjustment(e); credit.CodeOf(err) == credit.EstimateExceeded {
				e = Expectation{of, of} // a new estimate comes first
			}
			before := cohort
			cohort = adjust(t, cohort, e)
			if cohort.Adjusted < 0 || cohort.Adjusted > cohort.Left() {
				t.Fatalf("%+v", cohort)
			}
			if again := adjust(t, cohort, e); again != cohort {
				t.Fatalf("twice: %+v, once: %+v", again, cohort)
			}
			remote = before
			remote.Adjusted = 0
			if all := adjust(t, remote, Expectation{of, of}); all.Adjusted != 0 {
				t.Fatalf("all expected to be used, and %d is adjusted", all.Adjusted)
			}
		}
		for i, g := range grants {
			var amount int64
			grants[i], amount = dispose(t, g, g.Units-g.Disposed)
			cohort.Expired += amount
		}
		if cohort = adjust(t, cohort, Expectation{1, 1}); cohort.Adjusted != 0 || cohort.earned() != cohort.Price {
			t.Fatalf("in the end: %+v", cohort)
		}
	})
}

// Tax of slices is the tax of the whole, however it is cut; a slice's tax is never more than the slice, nor negative when credits are used.
func TestTaxOfSlices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rate(t, decimal.New(rapid.Int64Range(0, 1e9).Draw(t, "rate"), -RatePlaces).String())
		var total, tax int64
		for range rapid.IntRange(0, 20).Draw(t, "slices") {
			k := rapid.Int64Range(0, 1<<40).Draw(t, "k")
			part := TaxOfSlice(total, total+k, r)
			if part < 0 || part > k {
				t.Fatalf("tax of %d is %d", k, part)
			}
			total, tax = total+k, tax+part
		}
		if tax != TaxWithin(total, r) {
			t.Fatalf("by slices %d, of the whole %d", tax, TaxWithin(total, r))
		}
	})
}

// A schedule gives all of its total, in the order of months without a gap in time, each part within its window.
func TestScheduleConserves(t *testing.T) {
	zones := make([]*time.Location, 0, 3)
	for _, name := range []string{"UTC", "America/New_York", "Asia/Kolkata"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, zone)
	}
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.Int64Range(0, 1<<50).Draw(t, "total")
		from := time.UnixMicro(rapid.Int64Range(1_700_000_000_000_000, 1_800_000_000_000_000).Draw(t, "from"))
		to := from.Add(time.Duration(rapid.Int64Range(1, int64(900*24*time.Hour/time.Microsecond)).Draw(t, "window")) * time.Microsecond)
		zone := rapid.SampledFrom(zones).Draw(t, "calendar")
		var sum int64
		last := ledger.Period("")
		parts := Schedule(total, from, to, rapid.SampledFrom([]Spread{ByTime, ByDay, ByMonth, Prorated}).Draw(t, "spread"), zone)
		for _, p := range parts {
			if p.Period <= last || p.Amount <= 0 || p.Period < ledger.PeriodOf(from, zone) || p.Period > ledger.PeriodOf(to, zone) {
				t.Fatalf("%v", parts)
			}
			last, sum = p.Period, sum+p.Amount
		}
		if sum != total {
			t.Fatalf("%d of %d: %v", sum, total, parts)
		}
	})
}

// The parts of a price sum to it, and each is within a minor unit of its exact share.
func TestAllocation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		price := rapid.Int64Range(0, 1<<50).Draw(t, "price")
		ssp := rapid.SliceOfN(rapid.Int64Range(0, 1<<40), 1, 5).Draw(t, "standalone")
		var sum, all int64
		for _, s := range ssp {
			all += s
		}
		for i, part := range AllocatePrice(price, ssp...) {
			sum += part
			if all > 0 && (part < credit.MulDiv(price, ssp[i], all) || part > credit.MulDivUp(price, ssp[i], all)) {
				t.Fatalf("%d of %d for %d of %d", part, price, ssp[i], all)
			}
		}
		if sum != price {
			t.Fatalf("%d of %d", sum, price)
		}
	})
}
