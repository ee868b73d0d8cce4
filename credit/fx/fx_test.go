package fx_test

import (
	"errors"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
)

func day(s string) time.Time {
	d, ok := fx.ParseDay(s)
	if !ok {
		panic(s)
	}
	return d
}

func dec(s string) decimal.Decimal { return decimal.RequireFromString(s) }

const history = "\ufeffDate,USD,JPY,GBP,CYP,\n" +
	"2026-11-20,1.0800,160.00,0.8400,N/A,\n" +
	"2026-11-19,1.0823,161.25,N/A,N/A,\n" +
	"2026-11-18,1.0791,161.00,0.8391,N/A,\n" +
	"2007-12-31,1.4721,164.93,0.73335,0.585274,\n"

func table(t *testing.T, p fx.Policy, files ...string) *fx.Table {
	t.Helper()
	var all []fx.Quote
	for i, f := range files {
		quotes, err := fx.Parse([]byte(f), "")
		if err != nil {
			t.Fatal(err)
		}
		for j := range quotes {
			quotes[j].No = int64(i + 1)
		}
		all = append(all, quotes...)
	}
	table, err := fx.NewTable(p, all)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// The rates below were computed by hand from the files above them.
func TestRate(t *testing.T) {
	other := "date,from,to,rate\n2026-11-19,USD,BRL,5.5\n2026-11-20,GBP,EUR,1.2\n"
	tb := table(t, fx.DefaultPolicy, history, other)
	for _, c := range []struct {
		from, to, at           string
		rate, on, path, source string
	}{
		{"EUR", "USD", "2026-11-20T10:00:00Z", "1.08", "2026-11-20", fx.Direct, "ecb"},
		{"EUR", "USD", "2026-11-19T23:59:59Z", "1.0823", "2026-11-19", fx.Direct, "ecb"},
		{"EUR", "USD", "2026-11-20T00:30:00+01:00", "1.0823", "2026-11-19", fx.Direct, "ecb"}, // the day is UTC's
		{"EUR", "USD", "2026-11-27T12:00:00Z", "1.08", "2026-11-20", fx.Direct, "ecb"},
		{"USD", "EUR", "2026-11-20T10:00:00Z", "0.925925925926", "2026-11-20", fx.Inverse, "ecb"},
		{"JPY", "EUR", "2026-11-20T10:00:00Z", "0.00625", "2026-11-20", fx.Inverse, "ecb"},
		{"USD", "JPY", "2026-11-20T10:00:00Z", "148.148148148148", "2026-11-20", fx.Cross, "ecb"},
		{"JPY", "USD", "2026-11-20T10:00:00Z", "0.00675", "2026-11-20", fx.Cross, "ecb"},
		{"GBP", "USD", "2026-11-19T10:00:00Z", "1.286020736503", "2026-11-18", fx.Cross, "ecb"},   // 1.0791/0.8391: GBP has no quote on the 19th
		{"GBP", "USD", "2026-11-20T10:00:00Z", "1.296", "2026-11-20", fx.Cross, "csv+ecb"},        // 1.2 * 1.08
		{"EUR", "GBP", "2026-11-20T10:00:00Z", "0.833333333333", "2026-11-20", fx.Inverse, "csv"}, // entered later than the ECB's of that day
		{"USD", "BRL", "2026-11-21T10:00:00Z", "5.5", "2026-11-19", fx.Direct, "csv"},
		{"CYP", "EUR", "2008-01-04T10:00:00Z", "1.708601441376", "2007-12-31", fx.Inverse, "ecb"},
		{"CHF", "CHF", "2026-11-20T10:00:00Z", "1", "2026-11-20", fx.Same, ""},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		u, err := tb.Rate(c.from, c.to, at)
		if err != nil || !u.Rate.Equal(dec(c.rate)) || !u.On.Equal(day(c.on)) || u.Path != c.path || u.Source != c.source {
			t.Errorf("%s to %s at %s: %v %s of %s, %s from %q; not %+v", c.from, c.to, c.at, err, u.Rate, u.On.Format(time.DateOnly), u.Path, u.Source, c)
		}
	}
	for _, c := range []struct{ from, to, at, latest string }{
		{"EUR", "USD", "2026-11-28T00:00:00Z", "2026-11-20"}, // eight days
		{"USD", "JPY", "2026-11-28T00:00:00Z", "2026-11-20"},
		{"EUR", "CYP", "2026-11-20T10:00:00Z", "2007-12-31"},
		{"EUR", "USD", "2007-12-30T23:00:00Z", ""},
		{"EUR", "XXX", "2026-11-20T10:00:00Z", ""},
		{"BRL", "EUR", "2026-11-20T10:00:00Z", ""}, // nothing leads from dollars on: one base, one step
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tb.Rate(c.from, c.to, at)
		var e *credit.Error
		if !errors.As(err, &e) || e.Code != credit.NoFXRate || e.Fields["from"] != c.from || e.Fields["to"] != c.to {
			t.Errorf("%v: %v", c, err)
			continue
		}
		if latest, _ := e.Fields["latest"].(string); latest != c.latest {
			t.Errorf("%v: the newest is said to be of %q", c, latest)
		}
	}
	if first, last := tb.Days(); !first.Equal(day("2007-12-31")) || !last.Equal(day("2026-11-20")) || tb.Len() != 13 {
		t.Errorf("%s to %s, %d quotes", first, last, tb.Len())
	}
	empty := new(fx.Table)
	if _, err := empty.Rate("EUR", "USD", time.Now()); credit.CodeOf(err) != credit.NoFXRate {
		t.Error(err)
	}
}

// A direct quote that is too old does not stand in the way of a fresh one through the base.
func TestStaleDirectQuoteGivesWay(t *testing.T) {
	tb := table(t, fx.DefaultPolicy, history, "date,from,to,rate\n2026-10-01,USD,GBP,0.75\n")
	u, err := tb.Rate("USD", "GBP", day("2026-11-20"))
	if err != nil || u.Path != fx.Cross || !u.Rate.Equal(dec("0.777777777778")) || len(u.Quotes) != 2 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestParse(t *testing.T) {
	daily := "Date, USD, JPY, BGN, \n20 November 2026, 1.0823, 161.2, 1.9558, \n"
	quotes, err := fx.Parse([]byte(daily), "")
	want := []fx.Quote{
		{On: day("2026-11-20"), From: "EUR", To: "USD", Rate: dec("1.0823"), Source: "ecb"},
		{On: day("2026-11-20"), From: "EUR", To: "JPY", Rate: dec("161.2"), Source: "ecb"},
		{On: day("2026-11-20"), From: "EUR", To: "BGN", Rate: dec("1.9558"), Source: "ecb"},
	}
	if err != nil || !reflect.DeepEqual(quotes, want) {
		t.Errorf("%v, %v", quotes, err)
	}
	if quotes, err := fx.Parse([]byte("Date,From,To,Rate\r\n2026-11-20, USD , EUR,0.9240\r\n\r\n"), "bank"); err != nil || len(quotes) != 1 || quotes[0].Source != "bank" {
		t.Errorf("%v, %v", quotes, err)
	}
	for file, places := range map[string]string{
		"":                                                        "line 1, column 1",
		"a,b\n1,2\n":                                              "line 1, column 1",
		"Date,USD,USD\n2026-11-20,1,1\n":                          "line 1, column 10",
		"Date,usd\n2026-11-20,1\n":                                "line 1, column 6",
		"Date,EUR\n2026-11-20,1\n":                                "line 1, column 6",
		"Date,USD\n2026-11-31,1\n20.11.2026,1\n":                  "line 2, column 1; line 3, column 1",
		"Date,USD,JPY\n2026-11-20,0,-1\n":                         "line 2, column 12; line 2, column 14",
		"Date,USD\n2026-11-20,1e3\n2026-11-19,1,2\n":              "line 2, column 12; line 3, column 14",
		"Date,USD,JPY\n2026-11-20\n":                              "line 2, column 1",
		"Date,USD\n2026-11-20,1\n2026-11-20,1\n":                  "line 3, column 12",
		"date,from,to,rate\n2026-11-20,USD,EUR\n":                 "line 2, column 1",
		"date,from,to,rate\n2026-11-20,US,EURO,1\n":               "line 2, column 12; line 2, column 15",
		"date,from,to,rate\n2026-11-20,USD,USD,1\n":               "line 2, column 16",
		"date,from,to,rate\n2026-11-20,USD,\"EUR,1\n":             "line 2, column 23",
		"date,from,to,rate\n2026-11-20,USD,EUR,0.0000000000001\n": "line 2, column 20",
	} {
		_, err := fx.Parse([]byte(file), "")
		var e *credit.Error
		if !errors.As(err, &e) || e.Code != credit.InvalidRequest {
			t.Errorf("%q: %v", file, err)
			continue
		}
		var got []string
		for _, issue := range e.Issues {
			got = append(got, issue.Pointer)
		}
		if strings.Join(got, "; ") != places {
			t.Errorf("%q: %s, not %s (%v)", file, strings.Join(got, "; "), places, err)
		}
	}
	if _, err := fx.Parse([]byte("Date,USD\n2026-11-20,N/A\n"), ""); credit.CodeOf(err) != credit.InvalidRequest {
		t.Error("a file without quotes is accepted")
	}
}

// Every rate of a random table is what a scan over all its quotes with fractions says.
func TestRateIsWhatAScanFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		codes := []string{"EUR", "USD", "GBP", "JPY"}
		start := day("2026-01-01")
		var quotes []fx.Quote
		for i := range rapid.IntRange(0, 30).Draw(t, "quotes") {
			from := rapid.SampledFrom(codes).Draw(t, "from")
			to := rapid.SampledFrom(codes).Filter(func(s string) bool { return s != from }).Draw(t, "to")
			quotes = append(quotes, fx.Quote{
				On: start.AddDate(0, 0, rapid.IntRange(0, 12).Draw(t, "day")), From: from, To: to, No: int64(i), Source: "s",
				Rate: decimal.New(rapid.Int64Range(1, 1_000_000).Draw(t, "rate"), int32(-rapid.IntRange(0, 6).Draw(t, "places"))),
			})
		}
		p := fx.Policy{Base: rapid.SampledFrom([]string{"", "EUR"}).Draw(t, "base"), MaxAgeDays: rapid.IntRange(0, 5).Draw(t, "age")}
		tb, err := fx.NewTable(p, rapid.Permutation(quotes).Draw(t, "order"))
		if err != nil {
			t.Fatal(err)
		}
		from, to := rapid.SampledFrom(codes).Draw(t, "ask from"), rapid.SampledFrom(codes).Draw(t, "ask to")
		at := start.Add(time.Duration(rapid.IntRange(-24, 24*20).Draw(t, "hour")) * time.Hour)
		want, on := scan(quotes, p, from, to, at)
		got, err := tb.Rate(from, to, at)
		switch {
		case want == nil && credit.CodeOf(err) != credit.NoFXRate:
			t.Fatalf("a scan finds nothing, the table %+v, %v", got, err)
		case want == nil:
		case err != nil:
			t.Fatalf("a scan finds %s of %s, the table %v", want, on, err)
		case from != to && !got.On.Equal(on):
			t.Fatalf("a scan finds %s of %s, the table %+v", want, on, got)
		default:
			// Rounded: no further from the fraction than half a step of the last place.
			diff := new(big.Rat).Sub(got.Rate.Rat(), want)
			if diff.Abs(diff).Cmp(big.NewRat(1, 2_000_000_000_000)) > 0 || got.Path == fx.Direct && diff.Sign() != 0 {
				t.Fatalf("a scan finds %s, the table %s", want.FloatString(20), got.Rate)
			}
		}
	})
}

// scan finds a rate without any index.
func scan(quotes []fx.Quote, p fx.Policy, from, to string, at time.Time) (*big.Rat, time.Time) {
	if from == to {
		return big.NewRat(1, 1), time.Time{}
	}
	on := func(a, b string, d time.Time) *big.Rat {
		var best *fx.Quote
		for i := range quotes {
			q := &quotes[i]
			if q.On.Equal(d) && (q.From == a && q.To == b || q.From == b && q.To == a) && (best == nil || q.No > best.No) {
				best = q
			}
		}
		switch {
		case best == nil:
			return nil
		case best.From == a:
			return best.Rate.Rat()
		}
		return new(big.Rat).Inv(best.Rate.Rat())
	}
	today := at.UTC().Truncate(24 * time.Hour)
	for age := range p.MaxAgeDays + 1 {
		if r := on(from, to, today.AddDate(0, 0, -age)); r != nil {
			return r, today.AddDate(0, 0, -age)
		}
	}
	if p.Base == "" || from == p.Base || to == p.Base {
		return nil, time.Time{}
	}
	for age := range p.MaxAgeDays + 1 {
		d := today.AddDate(0, 0, -age)
		if a, b := on(from, p.Base, d), on(p.Base, to, d); a != nil && b != nil {
			return a.Mul(a, b), d
		}
	}
	return nil, time.Time{}
}

func TestHalfEven(t *testing.T) {
	// One divided by these has a five behind the twelfth place and nothing after it.
	tb := table(t, fx.DefaultPolicy, "date,from,to,rate\n2026-11-20,AAA,BBB,0.8192\n2026-11-20,EUR,CCC,0.5\n2026-11-20,DDD,EUR,0.000000000003\n2026-11-20,EEE,EUR,0.000000000001\n")
	for _, c := range []struct{ from, to, rate string }{
		{"BBB", "AAA", "1.220703125"},
		{"DDD", "CCC", "0.000000000002"}, // 1.5 steps
	} {
		if u, err := tb.Rate(c.from, c.to, day("2026-11-20")); err != nil || !u.Rate.Equal(dec(c.rate)) {
			t.Errorf("%s to %s: %s, %v", c.from, c.to, u.Rate, err)
		}
	}
	// Half a step goes to the even neighbour, which is nothing, and nothing is no rate.
	if u, err := tb.Rate("EEE", "CCC", day("2026-11-20")); credit.CodeOf(err) != credit.NoFXRate {
		t.Errorf("%s, %v", u.Rate, err)
	}
}

func TestNewTableRefusesWhatNoStoreHas(t *testing.T) {
	good := fx.Quote{On: day("2026-11-20"), From: "EUR", To: "USD", Rate: dec("1")}
	for name, change := range map[string]func(*fx.Quote){
		"from": func(q *fx.Quote) { q.From = "eur" }, "to": func(q *fx.Quote) { q.To = "EUR" }, "code": func(q *fx.Quote) { q.To = "U" },
		"hour": func(q *fx.Quote) { q.On = q.On.Add(time.Hour) }, "no day": func(q *fx.Quote) { q.On = time.Time{} },
		"zero": func(q *fx.Quote) { q.Rate = decimal.Zero }, "long": func(q *fx.Quote) { q.Rate = dec("1000000000000") }, "fine": func(q *fx.Quote) { q.Rate = dec("0.0000000000001") },
	} {
		q := good
		change(&q)
		if _, err := fx.NewTable(fx.DefaultPolicy, []fx.Quote{q}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Whatever a file has, Parse ends, and what it accepts makes a table.
func FuzzParse(f *testing.F) {
	f.Add([]byte(history))
	f.Add([]byte("Date, USD, JPY, \n20 November 2026, 1.0823, 161.2, \n"))
	f.Add([]byte("date,from,to,rate\n2026-11-20,USD,EUR,0.9240\n"))
	f.Add([]byte("Date,USD\n\"2026-11-20\",\"1\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		quotes, err := fx.Parse(file, "")
		if err != nil {
			if credit.CodeOf(err) != credit.InvalidRequest {
				t.Fatal(err)
			}
			return
		}
		tb, err := fx.NewTable(fx.DefaultPolicy, quotes)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range quotes {
			if _, err := tb.Rate(q.From, q.To, q.On); err != nil && !strings.Contains(err.Error(), "less than can be written") {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkRate(b *testing.B) {
	var quotes []fx.Quote
	for i := range 70 {
		for _, code := range []string{"USD", "JPY", "GBP", "CHF"} {
			quotes = append(quotes, fx.Quote{On: day("2026-09-01").AddDate(0, 0, i), From: "EUR", To: code, Rate: dec("1.0823"), Source: "ecb"})
		}
	}
	tb, err := fx.NewTable(fx.DefaultPolicy, quotes)
	if err != nil {
		b.Fatal(err)
	}
	at := day("2026-10-10")
	for _, c := range []struct{ name, from, to string }{{"direct", "EUR", "USD"}, {"inverse", "USD", "EUR"}, {"cross", "USD", "JPY"}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tb.Rate(c.from, c.to, at); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
