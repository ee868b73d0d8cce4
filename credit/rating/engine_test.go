package rating_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// parse reads a document that is right.
func parse(t testing.TB, doc string) *rating.Document {
	t.Helper()
	d, err := rating.Parse([]byte(doc))
	if err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	return d
}

// counted is the lines of one customer, charged one after another.
type counted struct {
	t     testing.TB
	book  *rating.Book
	state rating.Counters
	rates rating.Rates
}

func countedBy(t testing.TB, docs ...string) *counted {
	t.Helper()
	var raw [][]byte
	for _, d := range docs {
		raw = append(raw, []byte(d))
	}
	return &counted{t: t, book: bookOf(t, raw...), state: rating.Counters{}}
}

// charge prices a usage with the keys that it needs and nothing else, and keeps what changes.
func (c *counted) charge(u rating.Usage) (rating.Priced, error) {
	c.t.Helper()
	return c.chargeAt(0, u)
}

func (c *counted) chargeAt(version int, u rating.Usage) (rating.Priced, error) {
	c.t.Helper()
	keys, err := c.book.Keys(credit.RateCardID{}, version, u)
	loaded := rating.Counters{}
	for i, k := range keys {
		if i > 0 && keys[i-1].Compare(k) >= 0 {
			c.t.Fatalf("keys %v are not in order", keys)
		}
		back, err := rating.ParseCounterKey(k.String())
		if err != nil || back != k {
			c.t.Fatalf("key %+v comes back as %+v, %v", k, back, err)
		}
		if counter, ok := c.state[k]; ok {
			// What is loaded has been stored as text.
			stored, err := rating.ParseCounter(counter.String())
			if err != nil || !stored.Equal(counter) {
				c.t.Fatalf("counter %s comes back as %s, %v", counter, stored, err)
			}
			loaded[k] = stored
		}
	}
	p, fault := c.book.Price(credit.RateCardID{}, version, u, loaded, c.rates)
	if (err == nil) != (fault == nil) && err != nil {
		c.t.Fatalf("keys refuse with %v, the price with %v", err, fault)
	}
	if fault != nil {
		return p, fault
	}
	asked := map[rating.CounterKey]bool{}
	for _, k := range keys {
		asked[k] = true
	}
	for _, change := range p.Changes {
		if !asked[change.Key] {
			c.t.Fatalf("%s changes and is not among %v", change.Key, keys)
		}
	}
	c.state.Apply(p.Changes)
	return p, nil
}

// costs charges quantities of the meter calls one after another and returns what each costs.
func (c *counted) costs(at time.Time, quantities ...string) string {
	c.t.Helper()
	var costs []string
	for _, q := range quantities {
		u := rating.Usage{At: at, Lines: []rating.Line{line("calls", strings.TrimPrefix(q, "-"))}, Correction: strings.HasPrefix(q, "-")}
		p, err := c.charge(u)
		if err != nil {
			c.t.Fatalf("%s: %v", q, err)
		}
		costs = append(costs, p.Lines[0].Cost.String())
	}
	return strings.Join(costs, " ")
}

const tierFields = `"tiers": [{"up_to": "10", "price": "3", "flat": "1"}, {"up_to": "20", "price": "20", "per": "10", "flat": "5"}, {"price": "1"}]`

// What each model asks for, by hand. The tiers are 3 each up to 10 and 1 for any, 2 each up to 20 and 5 for any, 1 each beyond.
func TestModels(t *testing.T) {
	for _, c := range []struct {
		name, fields string
		quantities   string
		want         string // each quantity by itself
		over         string // one after another in one month; "": not asked
	}{
		{"per unit", `"price": "3", "per": "2"`, "0 1 2 2.5", "0 1.5 3 3.75", "0 1.5 3 3.75"},
		{"per unit, 3 free", `"price": "3", "per": "2", "free": "3"`, "0 1 3 4 5", "0 0 0 1.5 3", "0 0 1.5 6 7.5"},
		{"package", `"model": "package", "price": "3", "per": "10"`, "0 0.000000000001 10 10.5 30", "0 3 3 6 9", "0 3 3 3 9"},
		{"package, part after part", `"model": "package", "price": "3", "per": "10"`, "4 4 4 4 4 0.1", "3 3 3 3 3 3", "3 0 3 0 0 3"},
		{"package, 5 free", `"model": "package", "price": "3", "per": "10", "free": "5"`, "5 6 15 16", "0 3 3 6", "0 3 6 3"},
		{"package of a part", `"model": "package", "price": "0.07", "per": "0.25"`, "0.1 0.25 0.26 1", "0.07 0.07 0.14 0.28", "0.07 0.07 0.07 0.28"},
		{"package of many", `"model": "package", "price": "1", "per": "99999999999999999999"`, "1 99999999999999999999", "1 1", "1 1"},
		{"graduated", `"model": "graduated", ` + tierFields, "0 1 10 11 20 21 30", "0 4 31 38 56 57 66", ""},
		{"graduated, part after part", `"model": "graduated", ` + tierFields, "5 5 5 5 5 5", "16 16 16 16 16 16", "16 15 15 10 5 5"},
		{"graduated, across", `"model": "graduated", ` + tierFields, "8 8 8", "25 25 25", "25 23 12"},
		{"graduated, 8 free", `"model": "graduated", "free": "8", ` + tierFields, "8 9 18 19", "0 4 31 38", "0 28 35 19"},
		{"volume", `"model": "volume", ` + tierFields, "0 1 10 11 20 21 30", "0 4 31 27 45 21 30", ""},
		{"volume, part after part", `"model": "volume", ` + tierFields, "5 5 5 5 5 5", "16 16 16 16 16 16", "16 15 4 10 -20 5"},
		{"volume, 8 free", `"model": "volume", "free": "8", ` + tierFields, "8 18 19 29", "0 31 27 21", "0 41 -4 29"},
		{"one tier", `"model": "graduated", "tiers": [{"price": "2", "flat": "3"}]`, "1 2", "5 7", "5 4"},
		{"a minimum", `"price": "3", "minimum": "2"`, "0 0.1 0.666666666667 1", "0 2 2.000000000001 3", ""},
		{"a maximum", `"price": "3", "maximum": "7.5"`, "1 2.5 3 99", "3 7.5 7.5 7.5", ""},
		{"both", `"model": "package", "price": "3", "per": "2", "minimum": "4", "maximum": "8"`, "0 1 3 5", "0 4 6 8", ""},
		{"a minimum of what is free", `"price": "3", "free": "10", "minimum": "0.5"`, "1 10 11", "0.5 0.5 3", ""},
		{"thirds", `"model": "graduated", "tiers": [{"up_to": "2", "price": "1", "per": "3"}, {"price": "1", "per": "7"}]`, "3 1",
			"0.809523809523809523809524 0.333333333333333333333333", "0.809523809523809523809524 0.142857142857142857142857"},
	} {
		var alone []string
		for _, q := range strings.Fields(c.quantities) {
			alone = append(alone, countedBy(t, withRate(c.fields)).costs(noon, q))
		}
		if got := strings.Join(alone, " "); got != c.want {
			t.Errorf("%s: %s cost %s, want %s", c.name, c.quantities, got, c.want)
		}
		if c.over == "" {
			continue
		}
		month := countedBy(t, withRate(c.fields+`, "over": "month"`))
		if got := month.costs(noon, strings.Fields(c.quantities)...); got != c.over {
			t.Errorf("%s over a month: %s cost %s, want %s", c.name, c.quantities, got, c.over)
		}
		if april := month.costs(noon.AddDate(0, 1, 0), strings.Fields(c.quantities)...); april != c.over {
			t.Errorf("%s in the month after: %s cost %s, want %s", c.name, c.quantities, april, c.over)
		}
	}
}

func TestCorrection(t *testing.T) {
	for _, c := range []struct{ name, fields, quantities, want string }{
		{"per unit", `"price": "3"`, "2 -2", "6 -6"},
		{"minimum", `"price": "3", "minimum": "5"`, "1 -1", "5 -5"},
		{"graduated over a month", `"model": "graduated", "over": "month", ` + tierFields, "25 -10 -15", "61 -15 -46"},
		{"volume over a month", `"model": "volume", "over": "month", ` + tierFields, "25 -10 -15 1", "25 10 -35 4"},
	} {
		counter := countedBy(t, withRate(c.fields))
		if got := counter.costs(noon, strings.Fields(c.quantities)...); got != c.want {
			t.Errorf("%s: %s cost %s, want %s", c.name, c.quantities, got, c.want)
		}
	}
	counter := countedBy(t, withRate(`"model": "volume", "over": "month", `+tierFields))
	counter.costs(noon, "5", "-5")
	if len(counter.state) != 0 {
		t.Errorf("what was taken back leaves %v", counter.state)
	}
	counter.costs(noon, "5")
	_, err := counter.charge(rating.Usage{At: noon, Lines: []rating.Line{line("calls", "6")}, Correction: true})
	if credit.CodeOf(err) != credit.InvalidRequest || !strings.Contains(err.Error(), "Only 5 was counted") {
		t.Error(err)
	}
}

func TestAggregations(t *testing.T) {
	doc := `{"meters": [{"code": "calls", "aggregation": "count"}, {"code": "seats", "aggregation": "max", "period": "month"}, {"code": "users", "aggregation": "unique", "unique_by": "user", "period": "day"}],
		"rates": [{"id": "call", "meter": "calls", "price": "2", "match": {"kind": ["plain"]}}, {"id": "calls", "meter": "calls", "model": "graduated", "over": "day", "tiers": [{"up_to": "2", "price": "5"}, {"price": "1"}]},
			{"id": "seat", "meter": "seats", "price": "3"}, {"id": "user", "meter": "users", "model": "graduated", "tiers": [{"up_to": "2", "price": "10"}, {"price": "4"}]}]}`
	c := countedBy(t, doc)
	for i, s := range []struct {
		line  rating.Line
		day   int
		want  string
		after string // what the counter stands at
	}{
		{line("calls", "700", "kind", "plain"), 0, "2", "0"},
		{line("calls", "0"), 0, "5", "1"},
		{line("calls", "9"), 0, "5", "2"},
		{line("calls", "9"), 0, "1", "3"},
		{line("calls", "9"), 1, "5", "1"},
		{line("seats", "5"), 0, "15", "5"},
		{line("seats", "4"), 0, "0", "5"},
		{line("seats", "7.5"), 1, "7.5", "7.5"},
		{line("users", "1", "user", "ann"), 0, "10", "1"},
		{line("users", "5", "user", "ann"), 0, "0", "1"},
		{line("users", "0", "user", "bob"), 0, "10", "2"},
		{line("users", "1", "user", "cyd with blanks"), 0, "4", "3"},
		{line("users", "1", "user", "ann"), 1, "10", "1"},
	} {
		p, err := c.charge(rating.Usage{At: noon.AddDate(0, 0, s.day), Lines: []rating.Line{s.line}})
		if err != nil || p.Lines[0].Cost.String() != s.want || p.Lines[0].After.String() != s.after {
			t.Fatalf("%d: %+v, %v, want %s and %s", i, p.Lines, err, s.want, s.after)
		}
	}
	for _, l := range []rating.Line{line("users", "1", "user", "ann"), line("seats", "1")} {
		if _, err := c.charge(rating.Usage{At: noon, Correction: true, Lines: []rating.Line{l}}); credit.CodeOf(err) != credit.InvalidRequest {
			t.Errorf("%s is taken back: %v", l.Meter, err)
		}
	}
	if _, err := c.charge(rating.Usage{At: noon, Lines: []rating.Line{line("users", "1")}}); credit.CodeOf(err) != credit.InvalidRequest || !strings.Contains(err.Error(), `"user"`) {
		t.Errorf("nobody is counted: %v", err)
	}
	// Lines of one event see what the lines before them counted.
	p, err := countedBy(t, doc).charge(rating.Usage{At: noon, Lines: []rating.Line{line("users", "1", "user", "a"), line("users", "1", "user", "a"), line("users", "1", "user", "b"), line("users", "1", "user", "c")}})
	if err != nil || p.Total.Format(6) != "24" || len(p.Changes) != 4 {
		t.Errorf("%+v, %v", p, err)
	}
}

// Many counters in one usage: each line sees what all before it have counted.
func TestManyCounters(t *testing.T) {
	c := countedBy(t, `{"meters": [{"code": "users", "aggregation": "unique", "unique_by": "user", "period": "day"}], "rates": [{"id": "user", "meter": "users", "price": "1"}]}`)
	u := rating.Usage{At: noon}
	for i := range 300 {
		u.Lines = append(u.Lines, line("users", "1", "user", fmt.Sprint("u", i%100)))
	}
	if p, err := c.charge(u); err != nil || p.Total.Format(6) != "100" || len(p.Changes) != 101 || p.Lines[299].After.String() != "100" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := c.charge(u); err != nil || p.Total != 0 || p.Changes != nil {
		t.Errorf("%+v, %v", p, err)
	}
}

// The total of a usage can be below 0.
func TestTotalBelowNothing(t *testing.T) {
	c := countedBy(t, withRate(`"model": "volume", "over": "month", `+tierFields))
	c.costs(noon, "20")
	p, err := c.charge(rating.Usage{At: noon, Lines: []rating.Line{line("calls", "1")}})
	if err != nil || p.Total.Format(6) != "-24" || p.Lines[0].Before.String() != "20" || p.Lines[0].After.String() != "21" {
		t.Errorf("%+v, %v", p, err)
	}
}

// A price change in the middle of a month, at noon plus an hour, does not start tiers again, and an event that comes late moves those after it.
func TestPriceChangeInMidPeriod(t *testing.T) {
	v1 := withRate(`"model": "graduated", "over": "month", "tiers": [{"up_to": "10", "price": "3"}, {"price": "1"}]`)
	v2 := withRate(`"model": "graduated", "over": "month", "tiers": [{"up_to": "10", "price": "30"}, {"price": "10"}]`)
	c := countedBy(t, v1, v2)
	later := noon.Add(time.Hour)
	for i, s := range []struct {
		at   time.Time
		q    string
		want string
	}{
		{noon, "4", "12"},
		{later, "4", "120"},  // 5th to 8th
		{later, "4", "80"},   // 9th and 10th at 30, two at 10
		{noon, "6", "-102"},  // 5th to 10th at 3: all 8 of version 2 are beyond 10, 80 for 200
		{later, "1", "10"},   // 15 by now
		{noon, "1", "1"},     // beyond 10 even by version 1
		{later, "-9", "-90"}, // all of version 2
		{noon, "-1", "-1"},
	} {
		if got := c.costs(s.at, s.q); got != s.want {
			t.Fatalf("%d: %s costs %s, want %s", i, s.q, got, s.want)
		}
	}
	for k, counter := range c.state {
		if k.String() != standard.String()+" sum calls a month/2026-03-01" || counter.String() != "1,a=10" {
			t.Errorf("%s: %s", k, counter)
		}
	}
	// A version named goes before time, with what it has counted by itself in its place.
	if p, err := c.chargeAt(1, rating.Usage{At: later, Lines: []rating.Line{line("calls", "2")}}); err != nil || p.Lines[0].Cost.String() != "2" || p.Version != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

// A version without tiers in between counts for the tiers of the one after it.
func TestVersionWithoutTiersCounts(t *testing.T) {
	tiers := withRate(`"model": "graduated", "over": "month", "tiers": [{"up_to": "10", "price": "3"}, {"price": "1"}]`)
	c := countedBy(t, tiers, withRate(`"over": "month", "price": "2"`), tiers)
	for i, s := range []struct{ q, want string }{{"6", "18"}, {"6", "12"}, {"6", "6"}} {
		if got := c.costs(noon.Add(time.Duration(i)*time.Hour), s.q); got != s.want {
			t.Errorf("version %d: %s costs %s, want %s", i+1, s.q, got, s.want)
		}
	}
}

func TestSharedCounter(t *testing.T) {
	c := countedBy(t, withRates(`
		{"id": "in", "meter": "calls", "match": {"type": ["in"]}, "over": "day", "counter": "tokens", "model": "graduated", "tiers": [{"up_to": "10", "price": "1"}, {"price": "0.5"}]},
		{"id": "out", "meter": "calls", "match": {"type": ["out"]}, "over": "day", "counter": "tokens", "model": "graduated", "tiers": [{"up_to": "10", "price": "4"}, {"price": "2"}]}`))
	for i, s := range []struct{ kind, q, want string }{
		{"in", "6", "6"}, {"out", "6", "20"}, // 4 below 10, 2 beyond
		{"in", "4", "-4"}, // 4 more at 1; 4 of out move beyond 10: 8 less
		{"out", "1", "2"},
	} {
		p, err := c.charge(rating.Usage{At: noon, Lines: []rating.Line{line("calls", s.q, "type", s.kind)}})
		if err != nil || p.Lines[0].Cost.String() != s.want {
			t.Fatalf("%d: %+v, %v, want %s", i, p.Lines, err, s.want)
		}
	}
}

// The late event of an earlier version takes a value over from a later one.
func TestUniqueAcrossVersions(t *testing.T) {
	doc := func(price string) string {
		return `{"meters": [{"code": "users", "aggregation": "unique", "unique_by": "user", "period": "month"}], "rates": [{"id": "user", "meter": "users", "price": "` + price + `"}]}`
	}
	c := countedBy(t, doc("1"), doc("10"))
	for i, s := range []struct {
		at         time.Time
		user, want string
	}{{noon.Add(time.Hour), "a", "10"}, {noon.Add(time.Hour), "b", "10"}, {noon, "a", "-9"}, {noon.Add(time.Hour), "a", "0"}, {noon, "c", "1"}} {
		p, err := c.charge(rating.Usage{At: s.at, Lines: []rating.Line{line("users", "1", "user", s.user)}})
		if err != nil || p.Lines[0].Cost.String() != s.want {
			t.Fatalf("%d: %+v, %v, want %s", i, p.Lines, err, s.want)
		}
	}
}

func TestPeriods(t *testing.T) {
	for _, c := range []struct{ over, zone, at, want string }{
		{"hour", "UTC", "2026-03-01T12:59:59Z", "hour/2026-03-01T12+0"},
		{"hour", "Asia/Kolkata", "2026-03-01T12:29:59Z", "hour/2026-03-01T17+19800"},
		{"hour", "Europe/Berlin", "2026-10-25T00:30:00Z", "hour/2026-10-25T02+7200"},
		{"hour", "Europe/Berlin", "2026-10-25T01:30:00Z", "hour/2026-10-25T02+3600"},
		{"day", "America/Los_Angeles", "2026-03-01T07:59:59Z", "day/2026-02-28"},
		{"day", "America/Los_Angeles", "2026-03-01T08:00:00Z", "day/2026-03-01"},
		{"week", "UTC", "2026-03-01T23:59:59Z", "week/2026-02-23"}, // a Sunday
		{"week", "UTC", "2026-03-02T00:00:00Z", "week/2026-03-02"},
		{"week", "UTC", "2027-01-01T00:00:00Z", "week/2026-12-28"},
		{"month", "Pacific/Kiritimati", "2026-03-31T10:00:00Z", "month/2026-04-01"},
		{"quarter", "UTC", "2026-06-30T23:59:59Z", "quarter/2026-04-01"},
		{"year", "Asia/Tokyo", "2026-12-31T15:00:00Z", "year/2027-01-01"},
		{"year", "UTC", "1969-12-31T23:59:59Z", "year/1969-01-01"},
		{"day", "UTC", "0001-01-01T00:00:00Z", "day/0001-01-01"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		d := parse(t, fmt.Sprintf(`{"time_zone": %q, "meters": [{"code": "calls"}], "rates": [{"id": "a", "meter": "calls", "model": "package", "price": "1", "over": %q}]}`, c.zone, c.over))
		b, err := rating.NewBook(1, []rating.CardVersions{{ID: standard, Code: "standard", Unit: credits, Default: true, Versions: []rating.Version{{Number: 1, Doc: d}}}})
		if err != nil {
			t.Fatal(err)
		}
		keys, err := b.Keys(credit.RateCardID{}, 1, rating.Usage{At: at, Lines: []rating.Line{line("calls", "1")}})
		if err != nil || len(keys) != 1 || keys[0].Period.String() != c.want {
			t.Errorf("%s of %s in %s: %v, %v, want %s", c.over, c.at, c.zone, keys, err, c.want)
			continue
		}
		zone, err := time.LoadLocation(c.zone)
		if start := keys[0].Period.Start(zone); err != nil || start.After(at) || at.Sub(start) > 366*24*time.Hour {
			t.Errorf("%s of %s in %s starts at %s, %v", c.over, c.at, c.zone, start, err)
		}
	}
}

func TestWindows(t *testing.T) {
	doc := `{"time_zone": "Europe/Berlin", "meters": [{"code": "calls"}], "rates": [{"id": "any", "meter": "calls", "price": "1"},
		{"id": "office", "meter": "calls", "price": "2", "when": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "18:00"}]},
		{"id": "night", "meter": "calls", "price": "3", "when": [{"days": ["fri", "sat"], "from": "22:00", "to": "06:00"}, {"days": ["sun"], "from": "20:00", "to": "00:00"}]},
		{"id": "summer", "meter": "calls", "price": "4", "match": {"kind": ["x"]}, "when": [{"from": "02:00", "to": "03:00"}]},
		{"id": "three", "meter": "calls", "price": "5", "match": {"kind": ["x"]}, "when": [{"from": "03:00", "to": "04:00"}]},
		{"id": "kind", "meter": "calls", "price": "6", "match": {"kind": ["x", "y"], "more": ["z"]}, "when": [{"days": ["wed"]}]}]}`
	b := bookOf(t, []byte(doc))
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	local := func(month time.Month, day, hour, minute int) time.Time {
		return time.Date(2026, month, day, hour, minute, 0, 0, berlin)
	}
	spring := time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC)  // 01:00 in Berlin; at 01:00 UTC clocks go from 02:00 to 03:00
	autumn := time.Date(2026, 10, 25, 0, 0, 0, 0, time.UTC) // 02:00 in Berlin; at 01:00 UTC clocks go from 03:00 to 02:00
	for _, c := range []struct {
		at   time.Time
		dims credit.Dimensions
		want string
	}{
		{local(6, 1, 7, 59), nil, "any"}, {local(6, 1, 8, 0), nil, "office"}, {local(6, 1, 17, 59), nil, "office"}, {local(6, 1, 18, 0), nil, "any"}, // a Monday
		{local(12, 4, 8, 0), nil, "office"}, {local(12, 4, 22, 0), nil, "night"}, {local(12, 5, 5, 59), nil, "night"}, {local(12, 5, 6, 0), nil, "any"}, // Friday night
		{local(12, 6, 5, 59), nil, "night"}, {local(12, 6, 19, 59), nil, "any"}, {local(12, 6, 23, 59), nil, "night"}, {local(12, 7, 0, 0), nil, "any"}, // Sunday
		{local(12, 7, 5, 0), nil, "any"}, // the night of Sunday is no window
		{spring.Add(59*time.Minute + 59*time.Second), credit.Dimensions{"kind": "x"}, "night"}, // 01:59:59
		{spring.Add(time.Hour), credit.Dimensions{"kind": "x"}, "three"},                       // 03:00, there is no 02:00
		{spring.Add(2 * time.Hour), credit.Dimensions{"kind": "x"}, "night"},                   // 04:00
		{autumn.Add(-time.Second), credit.Dimensions{"kind": "x"}, "night"},
		{autumn, credit.Dimensions{"kind": "x"}, "summer"},                       // 02:00, the first time
		{autumn.Add(90 * time.Minute), credit.Dimensions{"kind": "x"}, "summer"}, // 02:30, the second time
		{autumn.Add(2 * time.Hour), credit.Dimensions{"kind": "x"}, "three"},
		{local(6, 3, 2, 30), credit.Dimensions{"kind": "x", "more": "z"}, "kind"}, // a Wednesday: three named
		{local(6, 4, 2, 30), credit.Dimensions{"kind": "x", "more": "z"}, "summer"},
	} {
		p, err := b.Price(credit.RateCardID{}, 1, rating.Usage{At: c.at, Dims: c.dims, Lines: []rating.Line{line("calls", "1")}}, nil, nil)
		if err != nil || p.Lines[0].RateID != c.want {
			t.Errorf("%s %v: %+v, %v, want %s", c.at.In(berlin), c.dims, p.Lines, err, c.want)
		}
	}
	never := bookOf(t, []byte(withRate(`"price": "1", "when": [{"days": ["mon"], "from": "08:00", "to": "09:00"}]`)))
	_, err = never.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Lines: []rating.Line{line("calls", "1")}}, nil, nil)
	if credit.CodeOf(err) != credit.NoRate || !strings.HasSuffix(err.Error(), `the nearest, "a", is for mon 08:00-09:00 in UTC, where it is sun 12:00.`) {
		t.Error(err)
	}
}

// fixedRates are what 1 of a currency is in dollars, by day.
type fixedRates map[string]string

func (f fixedRates) Rate(from, to string, at time.Time) (rating.FX, error) {
	day := at.UTC().Format(time.DateOnly)
	if r, ok := f[from+to+day]; ok {
		return rating.FX{Rate: number(r), Source: "ECB", On: day}, nil
	}
	return rating.FX{}, errors.New("none was published")
}

const moneyFields = `"credit_value": {"price": "0.03", "currency": "USD"}, `

func withMoney(rates string) string {
	return strings.Replace(withRates(rates), `{"meters"`, `{`+moneyFields+`"meters"`, 1)
}

func TestMoney(t *testing.T) {
	c := countedBy(t, withMoney(`
		{"id": "usd", "meter": "calls", "price": "0.06", "currency": "USD", "match": {"in": ["usd"]}},
		{"id": "eur", "meter": "calls", "model": "graduated", "tiers": [{"up_to": "1", "price": "0.5", "flat": "0.1"}, {"price": "0.3"}], "currency": "EUR", "match": {"in": ["eur"]}},
		{"id": "cost", "meter": "calls", "model": "cost_plus", "percent": "30", "minimum": "0.01", "maximum": "1000", "match": {"in": ["cost"]}},
		{"id": "month", "meter": "calls", "model": "volume", "over": "month", "tiers": [{"up_to": "1", "price": "3"}, {"price": "1"}], "currency": "EUR", "match": {"in": ["month"]}}`))
	c.rates = fixedRates{"EURUSD2026-03-01": "1.1", "EURUSD2026-03-02": "1.2", "CHFUSD2026-03-01": "1.25", "GBPUSD2026-03-01": "0"}
	for i, s := range []struct {
		l    rating.Line
		day  int
		want string
		fx   string
		code credit.Code
	}{
		{line("calls", "1", "in", "usd"), 0, "2", "", ""},
		{line("calls", "1", "in", "eur"), 0, "22", "EUR USD 1.1 ECB 2026-03-01", ""},                            // 0.6 * 1.1 / 0.03
		{line("calls", "2", "in", "eur"), 0, "33", "EUR USD 1.1 ECB 2026-03-01", ""},                            // 0.9 * 1.1 / 0.03
		{line("calls", "2", "in", "eur"), 1, "36", "EUR USD 1.2 ECB 2026-03-02", ""},                            // the day of the event
		{line("calls", "0", "in", "eur"), 2, "0", "", ""},                                                       // nothing needs no rate
		{line("calls", "2", "in", "eur"), 2, "", "", credit.NoRate},                                             // none was published
		{line("calls", "1", "in", "month"), 0, "110", "EUR USD 1.1 ECB 2026-03-01", ""},                         // 3 * 1.1 / 0.03
		{line("calls", "4", "in", "month"), 1, "73.333333333333333333333333", "EUR USD 1.1 ECB 2026-03-01", ""}, // 2 more, at the rate of the month's start
		{withCost("0.3", "USD"), 0, "13", "", ""},
		{withCost("0.3", "CHF"), 0, "16.25", "CHF USD 1.25 ECB 2026-03-01", ""},
		{withCost("0.0001", "USD"), 0, "0.01", "", ""},
		{withCost("1000", "USD"), 0, "1000", "", ""},
		{withCost("0", "USD"), 0, "0", "", ""},
		{withCost("1", "GBP"), 0, "", "", credit.NoRate},
		{withCost("1", "XXX"), 0, "", "", credit.InvalidRequest},
		{withCost("-1", "USD"), 0, "", "", credit.InvalidRequest},
		{line("calls", "1", "in", "cost"), 0, "", "", credit.InvalidRequest},
	} {
		p, err := c.charge(rating.Usage{At: noon.AddDate(0, 0, s.day), Lines: []rating.Line{s.l}})
		if credit.CodeOf(err) != s.code {
			t.Fatalf("%d: %+v, %v", i, p, err)
		}
		if err != nil {
			continue
		}
		var fx string
		for _, f := range p.Lines[0].FX {
			fx += strings.Join([]string{f.From, f.To, f.Rate.String(), f.Source, f.On}, " ")
		}
		if p.Lines[0].Cost.String() != s.want || fx != s.fx {
			t.Fatalf("%d: costs %s by %q, want %s by %q", i, p.Lines[0].Cost, fx, s.want, s.fx)
		}
	}
	c.rates = nil
	if _, err := c.charge(rating.Usage{At: noon, Lines: []rating.Line{line("calls", "1", "in", "eur")}}); credit.CodeOf(err) != credit.NoRate {
		t.Error(err)
	}
}

func withCost(amount, currency string) rating.Line {
	l := line("calls", "1", "in", "cost")
	l.Cost = rating.ComputeCost{Amount: number(amount), Currency: currency}
	return l
}

func TestMatrix(t *testing.T) {
	d := parse(t, `{"meters": [{"code": "images"}], "rates": [{"id": "other", "meter": "images", "price": "1"}], "matrices": [
		{"id": "images", "dimensions": ["resolution", "quality"], "meter": "images", "per": "2", "match": {"model": ["a", "b"]},
		 "prices": {"1024x1024": {"standard": "4", "hd": "8"}, "512x512": {"standard": "2"}}}]}`)
	var got []string
	for _, r := range d.Rates {
		got = append(got, fmt.Sprint(r.ID, " ", r.Price, " per ", r.Per, " ", len(r.Match)))
	}
	want := "other 1 per 1 0; images/1024x1024/standard 4 per 2 3; images/1024x1024/hd 8 per 2 3; images/512x512/standard 2 per 2 3"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if m := d.Rates[2].Match.Canonical(); m != (credit.Scope{"model": {"a", "b"}, "resolution": {"1024x1024"}, "quality": {"hd"}}).Canonical() {
		t.Errorf("%q", m)
	}
	matrix := func(fields string) string {
		return `{"meters": [{"code": "images"}], "rates": [{"id": "i/b", "meter": "images", "price": "1"}], "matrices": [{"id": "i", "meter": "images", ` + fields + `}]}`
	}
	for _, c := range []struct{ name, fields, want string }{
		{"no prices", `"dimensions": ["a"], "prices": {}`, "/matrices/0/prices: There are no prices."},
		{"too deep", `"dimensions": ["a"], "prices": {"x/y": {"z": "1"}}`, "/matrices/0/prices/x~1y: Prices are by a: they are 1 deep."},
		{"not deep enough", `"dimensions": ["a", "b"], "prices": {"x": "1"}`, "/matrices/0/prices/x: Prices are by a, b: they are 2 deep."},
		{"no dimensions", `"dimensions": [], "prices": {"x": "1"}`, "/matrices/0/dimensions: A matrix has dimensions."},
		{"a dimension twice", `"dimensions": ["a", "a"], "prices": {"x": {"y": "1"}}`, "/matrices/0/dimensions/1: The dimension is listed twice."},
		{"a dimension of the match", `"dimensions": ["a"], "match": {"a": ["x"]}, "prices": {"x": "1"}`, `/matrices/0/match: The dimension "a" is also one of the matrix.`},
		{"a value twice", `"dimensions": ["a"], "prices": {"x": "1", "x": "2"}`, "/matrices/0/prices/x: The value is listed twice."},
		{"a negative price", `"dimensions": ["a"], "prices": {"x": "-1"}`, `/matrices/0/prices/x: "-1" is negative.`},
		{"no id", `"dimensions": ["a"], "prices": {"x y": "1"}`, `/matrices/0/prices/x y: The rate's id would be "i/x y"; one has at most`},
		{"another's id", `"dimensions": ["a"], "prices": {"b": "1"}`, `/matrices/0/prices/b: "i/b" is also the id of /rates/0.`},
		{"another model", `"dimensions": ["a"], "model": "volume", "prices": {"b": "1"}`, `/matrices/0/model: There is no field "model" here`},
		{"no meter", `"dimensions": ["a"], "prices": "1"`, "/matrices/0/prices: This must be an object that lists prices by value."},
		{"in money", `"dimensions": ["a"], "currency": "EUR", "prices": {"c": "1"}`, `/matrices/0/prices/c: A price in money needs the document's "credit_value".`},
	} {
		if got := issues(t, []byte(matrix(c.fields))); len(got) != 1 || !strings.HasPrefix(got[0], c.want) {
			t.Errorf("%s: got %q, want %s", c.name, got, c.want)
		}
	}
	var many strings.Builder
	for i := range 9_999 {
		fmt.Fprintf(&many, `"v%d": "1", `, i)
	}
	if got := issues(t, []byte(matrix(`"dimensions": ["a"], "prices": {`+many.String()+`"v": "1"}`))); len(got) != 1 || !strings.Contains(got[0], "more than 10000 rates, with those of its matrices") {
		t.Errorf("%.300q", got)
	}
}

func TestParseRefusesWhatCannotBePriced(t *testing.T) {
	price := `"price": "1", `
	for _, c := range []struct{ name, doc, want string }{
		{"no tiers", withRate(`"model": "volume", "tiers": []`), "/rates/0/tiers: There is no tier."},
		{"tiers missing", withRate(`"model": "graduated"`), "/rates/0/tiers: The field is missing."},
		{"the last tier ends", withRate(`"model": "volume", "tiers": [{"price": "1", "up_to": "3"}]`), "/rates/0/tiers/0/up_to: The last tier has no end"},
		{"a tier in between does not", withRate(`"model": "volume", "tiers": [{"price": "1"}, {"price": "2"}]`), "/rates/0/tiers/1: The tier before has no end"},
		{"tiers out of order", withRate(`"model": "volume", "tiers": [{"price": "1", "up_to": "3"}, {"price": "1", "up_to": "2"}, {"price": "2"}]`), "/rates/0/tiers/1/up_to: The tier ends at 2 and the one before at 3"},
		{"an empty tier", withRate(`"model": "volume", "tiers": [{"price": "1", "up_to": "3"}, {"price": "1", "up_to": "3.0"}, {"price": "2"}]`), "/rates/0/tiers/1/up_to: The tier ends at 3 and"},
		{"a tier of nothing", withRate(`"model": "volume", "tiers": [{"price": "1", "up_to": "0"}, {"price": "2"}]`), "/rates/0/tiers/0/up_to: A tier ends above 0."},
		{"a tier without price", withRate(`"model": "volume", "tiers": [{}]`), "/rates/0/tiers/0/price: The field is missing."},
		{"a tier's unknown field", withRate(`"model": "volume", "tiers": [{"price": "1", "from": "0"}]`), `/rates/0/tiers/0/from: There is no field "from" here; there are price, up_to, per, flat`},
		{"a negative flat", withRate(`"model": "volume", "tiers": [{"price": "1", "flat": "-1"}]`), `/rates/0/tiers/0/flat: "-1" is negative.`},
		{"a tier per nothing", withRate(`"model": "volume", "tiers": [{"price": "1", "per": "0"}]`), "/rates/0/tiers/0/per: A price is for more than 0"},
		{"a price and tiers", withRate(`"price": "1", "model": "volume", "tiers": [{"price": "1"}]`), `/rates/0/price: A rate of model "volume" has no "price".`},
		{"tiers of packages", withRate(price + `"model": "package", "tiers": [{"price": "1"}]`), `/rates/0/tiers: A rate of model "package" has no "tiers".`},
		{"no percent", withMoney(`{"id": "a", "meter": "calls", "model": "cost_plus"}`), "/rates/0/percent: The field is missing."},
		{"cost plus over", withMoney(`{"id": "a", "meter": "calls", "model": "cost_plus", "percent": "1", "over": "month"}`), `/rates/0/over: A rate of model "cost_plus" has no "over".`},
		{"cost plus without value", withRate(`"model": "cost_plus", "percent": "1"`), `/rates/0/model: The model "cost_plus" needs the document's "credit_value".`},
		{"a currency without value", withRate(price + `"currency": "EUR"`), `/rates/0/currency: A price in money needs`},
		{"no currency", withMoney(`{"id": "a", "meter": "calls", "price": "1", "currency": "EURO"}`), `/rates/0/currency: "EURO" is not the ISO 4217 code`},
		{"minimum above maximum", withRate(price + `"minimum": "2", "maximum": "1"`), "/rates/0/minimum: The minimum is more than the maximum."},
		{"a minimum over a day", withRate(price + `"minimum": "2", "over": "day"`), "/rates/0/minimum: A minimum is for a line by itself"},
		{"a maximum over a day", withRate(price + `"maximum": "2", "over": "day"`), "/rates/0/maximum: A maximum is for a line by itself"},
		{"no period", withRate(price + `"over": "decade"`), `/rates/0/over: "decade" is not what a rate can count over; there is "event", "hour"`},
		{"a counter of events", withRate(price + `"counter": "c"`), "/rates/0/counter: A counter counts over a period"},
		{"a counter's name", withRate(price + `"over": "day", "counter": "a b"`), "/rates/0/counter: A counter's name is"},
		{"a counter of two models", withRates(`{"id": "a", "meter": "calls", "over": "day", "price": "1", "free": "1"}, {"id": "b", "meter": "calls", "over": "day", "match": {"m": ["x"]}, "counter": "a", "model": "package", "price": "1", "free": "1"}`),
			`/rates/1/counter: Rates "a" (/rates/0) and "b" (/rates/1) share the counter "a" and differ in meter, model, over or free.`},
		{"no windows", withRate(price + `"when": []`), "/rates/0/when: There is no window"},
		{"an empty window", withRate(price + `"when": [{}]`), "/rates/0/when/0: A window names days, or"},
		{"half a window", withRate(price + `"when": [{"from": "08:00"}]`), `/rates/0/when/0: A window has both "from" and "to"`},
		{"no days", withRate(price + `"when": [{"days": []}]`), "/rates/0/when/0/days: There is no day."},
		{"no such day", withRate(price + `"when": [{"days": ["monday"]}]`), `/rates/0/when/0/days/0: "monday" is not a day`},
		{"a day twice", withRate(price + `"when": [{"days": ["mon", "mon"]}]`), "/rates/0/when/0/days/1: The day is listed twice."},
		{"no time", withRate(price + `"when": [{"from": "8:00", "to": "18:00"}]`), `/rates/0/when/0/from: "8:00" is not a time of day`},
		{"no such time", withRate(price + `"when": [{"from": "08:00", "to": "24:00"}]`), `/rates/0/when/0/to: "24:00" is not a time of day`},
		{"no zone", strings.Replace(withRates(""), `{"meters"`, `{"time_zone": "Mars/Olympus", "meters"`, 1), `/time_zone: "Mars/Olympus" is not a time zone`},
		{"this machine's zone", strings.Replace(withRates(""), `{"meters"`, `{"time_zone": "Local", "meters"`, 1), `/time_zone: "Local" is not a time zone`},
		{"a credit of nothing", strings.Replace(withRates(""), `{"meters"`, `{"credit_value": {"price": "0", "currency": "USD"}, "meters"`, 1), "/credit_value/price: A credit is worth more than 0."},
		{"half a value", strings.Replace(withRates(""), `{"meters"`, `{"credit_value": {"price": "1"}, "meters"`, 1), "/credit_value/currency: The field is missing."},
		{"no rounding", strings.Replace(withRates(""), `{"meters"`, `{"rounding": "up", "meters"`, 1), `/rounding: "up" is not a rounding; there is "event", "carry"`},
		{"extends no code", strings.Replace(withRates(""), `{"meters"`, `{"extends": "A B", "meters"`, 1), `/extends: "A B" is not the code of a rate card.`},
		{"extends no version", strings.Replace(withRates(""), `{"meters"`, `{"extends": {"card": "a", "version": 1.5}, "meters"`, 1), "/extends/version: A version is a whole number from 1 on."},
		{"free of a maximum", `{"meters": [{"code": "m", "aggregation": "max", "period": "day"}], "rates": [{"id": "a", "meter": "m", "price": "1", "free": "1"}]}`, `/rates/0/free: Of a meter of aggregation "max" nothing is free`},
		{"another period", `{"meters": [{"code": "m", "aggregation": "max", "period": "day"}], "rates": [{"id": "a", "meter": "m", "price": "1", "over": "month"}]}`, `/rates/0/over: The meter "m" is reckoned by the day.`},
		{"a minimum of a maximum", `{"meters": [{"code": "m", "aggregation": "max", "period": "day"}], "rates": [{"id": "a", "meter": "m", "price": "1", "minimum": "1"}]}`, `/rates/0/minimum: A minimum is for a line by itself`},
		{"windows that overlap", withRates(`{"id": "a", "meter": "calls", "price": "1", "when": [{"days": ["sun"], "from": "22:00", "to": "06:00"}]}, {"id": "b", "meter": "calls", "price": "1", "when": [{"days": ["mon"], "from": "05:59", "to": "06:01"}]}`),
			`/rates/1: Rates "a" (/rates/0) and "b" (/rates/1) are both for any usage of meter calls at mon 05:59, and equally specific`},
		{"a window and a dimension", withRates(`{"id": "a", "meter": "calls", "price": "1", "when": [{"days": ["sun"]}]}, {"id": "b", "meter": "calls", "price": "1", "match": {"m": ["x"]}}`),
			`/rates/1: Rates "a" (/rates/0) and "b" (/rates/1) are both for usage with m=x at sun 00:00, and equally specific`},
	} {
		if got := issues(t, []byte(c.doc)); len(got) != 1 || !strings.HasPrefix(got[0], c.want) {
			t.Errorf("%s: got %q, want %s", c.name, got, c.want)
		}
	}
	if got := issues(t, []byte(withRates(`{"id": "a", "meter": "calls", "price": "1", "when": [{"days": ["sun"], "from": "22:00", "to": "06:00"}]}, {"id": "b", "meter": "calls", "price": "1", "when": [{"days": ["mon"], "from": "06:00", "to": "06:01"}]}, {"id": "c", "meter": "calls", "price": "1"}`))); got != nil {
		t.Errorf("windows apart: %q", got)
	}
}

func TestExtends(t *testing.T) {
	enterprise, other := credit.DerivedID[credit.RateCardID]("enterprise"), credit.DerivedID[credit.RateCardID]("other")
	base := func(price string) *rating.Document {
		return parse(t, withRates(`{"id": "any", "meter": "calls", "price": "`+price+`"}, {"id": "special", "meter": "calls", "price": "9", "match": {"a": ["x"], "b": ["y"]}},
			{"id": "image", "meter": "images", "model": "graduated", "over": "month", "tiers": [{"up_to": "1", "price": "5"}, {"price": "1"}]}`))
	}
	own := func(extends string) *rating.Document {
		return parse(t, `{"extends": `+extends+`, "meters": [{"code": "calls"}], "rates": [{"id": "mine", "meter": "calls", "price": "1", "match": {"a": ["x"]}}]}`)
	}
	cards := []rating.CardVersions{
		{ID: enterprise, Code: "enterprise", Unit: credits, Versions: []rating.Version{{Number: 1, EffectiveAt: noon, Doc: own(`"standard"`)}, {Number: 2, EffectiveAt: noon.Add(2 * time.Hour), Doc: own(`{"card": "standard", "version": 1}`)}}},
		{ID: standard, Code: "standard", Unit: credits, Default: true, Versions: []rating.Version{{Number: 1, EffectiveAt: noon, Doc: base("2")}, {Number: 2, EffectiveAt: noon.Add(time.Hour), Doc: base("3")}}},
		{ID: other, Code: "other", Unit: credit.Unit{Code: "OTH", Scale: 6}, Versions: []rating.Version{{Number: 1, EffectiveAt: noon, Doc: flat(t, "1")}}},
	}
	b, err := rating.NewBook(1, cards)
	if err != nil {
		t.Fatal(err)
	}
	if !b.Stateful(enterprise) || b.Stateful(other) || b.Stateful(credit.RateCardID{7}) {
		t.Error("who needs counters is wrong")
	}
	for _, c := range []struct {
		hours   int
		l       rating.Line
		rate    string
		version int // of standard; 0: the card's own
		cost    string
	}{
		{0, line("calls", "1", "a", "x"), "mine", 0, "1"},
		{0, line("calls", "1", "a", "x", "b", "y"), "mine", 0, "1"}, // the nearest card first, then specificity
		{0, line("calls", "1"), "any", 1, "2"},
		{1, line("calls", "1"), "any", 2, "3"},
		{2, line("calls", "1"), "any", 1, "2"}, // pinned
		{0, line("images", "2"), "image", 1, "6"},
	} {
		p, err := b.Price(enterprise, 0, rating.Usage{At: noon.Add(time.Duration(c.hours) * time.Hour), Lines: []rating.Line{c.l}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		l := p.Lines[0]
		if p.CardID != enterprise || l.RateID != c.rate || l.Version != c.version || (l.CardID == standard) != (c.version > 0) || (l.CardCode == "standard") != (c.version > 0) || l.Cost.String() != c.cost {
			t.Errorf("%+v: %+v", c, p)
		}
		for _, change := range p.Changes {
			if change.Key.Card != standard {
				t.Errorf("%+v", change)
			}
		}
	}
	if _, err := b.Price(enterprise, 0, rating.Usage{At: noon, Lines: []rating.Line{line("videos", "1")}}, nil, nil); credit.CodeOf(err) != credit.NoRate || !strings.Contains(err.Error(), `Rate card "enterprise", version 1, has no meter "videos".`) {
		t.Error(err)
	}
	for _, c := range []struct {
		card                  credit.RateCardID
		extends, at, contains string
	}{
		{standard, `"enterprise"`, "/extends", "standard → enterprise → standard"},
		{standard, `"standard"`, "/extends", "standard → standard"},
		{standard, `"other"`, "/extends", `Rate card "other" is in OTH, and "standard" is in CRD.`},
		{standard, `"nowhere"`, "/extends", `There is no rate card "nowhere" to extend.`},
		{enterprise, `{"card": "standard", "version": 3}`, "/extends/version", `Rate card "standard" has no version 3.`},
		{enterprise, `{"card": "standard", "version": 2}`, "", ""},
	} {
		err := b.CheckPublish(c.card, own(c.extends))
		var e *credit.Error
		if (err == nil) != (c.at == "") || err != nil && (!errors.As(err, &e) || e.Code != credit.InvalidRequest || e.Issues[0].Pointer != c.at || !strings.Contains(e.Detail, c.contains)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	cards[1].Versions = append(cards[1].Versions, rating.Version{Number: 3, EffectiveAt: noon, Doc: own(`"enterprise"`)})
	if b, err := rating.NewBook(1, cards); err == nil || credit.CodeOf(err) != "" || b != nil || !strings.Contains(err.Error(), "enterprise → standard → enterprise") {
		t.Errorf("%v", err)
	}
}

func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		doc  string
		want rating.Needs
	}{
		{example, rating.Needs{}},
		{withRate(`"price": "1", "over": "month"`), rating.Needs{State: true}}, // another version may have tiers
		{withRate(`"price": "1", "over": "month", "free": "1"`), rating.Needs{State: true}},
		{withRate(`"price": "1", "free": "1"`), rating.Needs{}},
		{strings.Replace(withRates(""), `{"meters"`, `{"rounding": "carry", "meters"`, 1), rating.Needs{State: true}},
		{strings.Replace(withRates(""), `{"meters"`, `{"extends": "x", "meters"`, 1), rating.Needs{Extends: "x"}},
		{withMoney(`{"id": "a", "meter": "calls", "price": "1", "currency": "USD"}`), rating.Needs{}},
		{withMoney(`{"id": "a", "meter": "calls", "price": "1", "currency": "EUR"}`), rating.Needs{Rates: true}},
		{withMoney(`{"id": "a", "meter": "calls", "model": "cost_plus", "percent": "1"}`), rating.Needs{Costs: true}},
	} {
		if got := parse(t, c.doc).Needs(); got != c.want {
			t.Errorf("%s needs %+v, want %+v", c.doc, got, c.want)
		}
	}
}

// Events of a third of a step cost what their sum costs.
func TestCarryOfManyTinyEvents(t *testing.T) {
	c := countedBy(t, strings.Replace(withRate(`"price": "1", "per": "3000000"`), `{"meters"`, `{"rounding": "carry", "meters"`, 1))
	var charged credit.Amount
	u := rating.Usage{At: noon, Lines: []rating.Line{line("calls", "1")}}
	const events = 300_000
	for range events {
		p, err := c.book.Price(credit.RateCardID{}, 0, u, c.state, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.state.Apply(p.Changes)
		charged += p.Total
	}
	if charged != 100_000 || len(c.state) != 0 {
		t.Errorf("%d steps, and left is %v", charged, c.state)
	}
	p, err := c.book.Price(credit.RateCardID{}, 0, u, c.state, nil)
	if err != nil || p.Total != 0 || len(p.Changes) != 1 || p.Changes[0].Key.String() != standard.String()+" rest calls 1" || p.Changes[0].Counter.String() != "1/3000000" {
		t.Errorf("%+v, %v", p, err)
	}
}
