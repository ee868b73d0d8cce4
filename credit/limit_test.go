package credit_test

import (
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

func in(t testing.TB, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func instant(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Windows of the calendar, computed by hand from the zones' rules.
func TestCalendarWindows(t *testing.T) {
	for _, c := range []struct{ kind, zone, at, start, end string }{
		{"minute", "UTC", "2026-03-01T12:34:56Z", "2026-03-01T12:34:00Z", "2026-03-01T12:35:00Z"},
		{"minute", "Asia/Kathmandu", "2026-03-01T12:34:56Z", "2026-03-01T12:34:00Z", "2026-03-01T12:35:00Z"},
		{"hour", "Asia/Kathmandu", "2026-03-01T12:34:56Z", "2026-03-01T12:15:00Z", "2026-03-01T13:15:00Z"}, // 5:45 east
		{"day", "UTC", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		{"day", "America/New_York", "2026-03-08T04:59:59Z", "2026-03-07T05:00:00Z", "2026-03-08T05:00:00Z"},
		{"day", "America/New_York", "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z"},     // 23 hours
		{"day", "America/New_York", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},     // 25 hours
		{"hour", "America/New_York", "2026-11-01T05:30:00Z", "2026-11-01T05:00:00Z", "2026-11-01T06:00:00Z"},    // 1:30, the first time
		{"hour", "America/New_York", "2026-11-01T06:30:00Z", "2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z"},    // and the second
		{"hour", "Australia/Lord_Howe", "2026-04-04T14:45:00Z", "2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z"}, // 1:45; at 2:00 the clock goes back to 1:30
		{"hour", "Australia/Lord_Howe", "2026-04-04T15:10:00Z", "2026-04-04T14:30:00Z", "2026-04-04T15:30:00Z"}, // 1:40 of the other offset
		{"week", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z"},
		{"week", "UTC", "2026-03-01T12:00:00Z", "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"}, // a Sunday
		{"month", "Europe/Berlin", "2026-03-15T12:00:00Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"},
		{"month", "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"day", "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"}, // midnight was skipped
		{"day", "America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z"},
		{"day", "Asia/Beirut", "2026-03-29T12:00:00Z", "2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"},    // skipped too
		{"day", "America/Havana", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"}, // 0:00 comes twice
		{"total", "UTC", "2026-03-01T12:00:00Z", "1970-01-01T00:00:00Z", ""},
	} {
		w, at, zone := credit.Window{Kind: credit.WindowKind(c.kind)}, instant(t, c.at), in(t, c.zone)
		if got := w.Start(at, zone); !got.Equal(instant(t, c.start)) {
			t.Errorf("%s of %s in %s began at %s, want %s", c.kind, c.at, c.zone, got, c.start)
		}
		var end time.Time
		if c.end != "" {
			end = instant(t, c.end)
		}
		if got := w.End(at, zone); !got.Equal(end) {
			t.Errorf("%s of %s in %s ends at %s, want %s", c.kind, c.at, c.zone, got, c.end)
		}
	}
}

// Every instant is in one window, which began before it and ends after it, and the windows of two instants in order are in order, but for hours and days
// that a clock shows twice.
func TestWindowsFollowOneAnother(t *testing.T) {
	zones := []string{"UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "America/Sao_Paulo", "Asia/Beirut", "Africa/Cairo"}
	rapid.Check(t, func(rt *rapid.T) {
		zone := in(t, rapid.SampledFrom(zones).Draw(rt, "zone"))
		w := credit.Window{Kind: rapid.SampledFrom([]credit.WindowKind{credit.Minute, credit.Hour, credit.Day, credit.Week, credit.Month, credit.Rolling}).Draw(rt, "kind")}
		if w.Kind == credit.Rolling {
			w.Length = time.Duration(rapid.IntRange(1, 44_640).Draw(rt, "minutes")) * time.Minute
		}
		at := time.UnixMicro(rapid.Int64Range(1_500_000_000_000_000, 2_000_000_000_000_000).Draw(rt, "at")).UTC()
		start, end := w.Start(at, zone), w.End(at, zone)
		if start.After(at) || !end.After(at) {
			rt.Fatalf("%s: [%s, %s)", at, start, end)
		}
		if again := w.Start(start, zone); !again.Equal(start) && w.Kind != credit.Hour {
			rt.Fatalf("the window of %s, %s, begins in another one: %s", at, start, again)
		}
		if next := w.Start(end, zone); !next.Equal(end) && w.Kind != credit.Hour {
			rt.Fatalf("after [%s, %s) comes a window that begins at %s", start, end, next)
		}
		if last := end.Add(-time.Microsecond); !w.Start(last, zone).Equal(start) {
			rt.Fatalf("%s and %s are in the same window and in two", at, last)
		}
	})
}

// take is something taken under a limit at an instant.
type take struct {
	at     time.Time
	amount credit.Amount
}

// However uses are spread, a rolling limit never admits more than its amount in any time of its length; what it refuses would exceed the amount within its
// length and a sixtieth; and at the time that a refusal names it admits the same.
func TestRollingNeverAdmitsMore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := &credit.Limit{Amount: credit.Amount(rapid.Int64Range(1, 50).Draw(rt, "limit")), Subject: credit.LimitsCustomer, Unit: "CRD",
			Window: credit.Window{Kind: credit.Rolling, Length: time.Duration(rapid.IntRange(1, 3).Draw(rt, "minutes")) * time.Minute}}
		at := noon.Add(time.Duration(rapid.Int64Range(0, 1e9).Draw(rt, "begin")))
		var windows []credit.LimitWindow
		var taken []take
		within := func(d time.Duration) (sum credit.Amount) {
			for _, x := range taken {
				if x.at.After(at.Add(-d)) {
					sum += x.amount
				}
			}
			return sum
		}
		for range rapid.IntRange(1, 60).Draw(rt, "uses") {
			at = at.Add(time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(rt, "pause")))
			n := credit.Amount(rapid.Int64Range(1, 30).Draw(rt, "amount"))
			g := l.At(at, time.UTC, "", windows)
			if g.Left() < n {
				if slack := l.Window.Length + l.Window.Length/credit.Slots; within(slack)+n <= l.Amount {
					rt.Fatalf("%d is refused at %s with %d of %d taken", n, at, within(slack), l.Amount)
				}
				free := g.FreeAt(at, windows, n)
				if free.IsZero() != (n > l.Amount) {
					rt.Fatalf("%d of %d is free at %s", n, l.Amount, free)
				}
				if !free.IsZero() {
					before, then := l.At(free.Add(-time.Microsecond), time.UTC, "", windows), l.At(free, time.UTC, "", windows)
					if !free.After(at) || then.Left() < n || before.Left() >= n {
						rt.Fatalf("at %s %d is said to be free at %s, where %d is, %d before", at, n, free, then.Left(), before.Left())
					}
				}
				continue
			}
			taken = append(taken, take{at, n})
			if i := len(windows) - 1; i >= 0 && windows[i].Start.Equal(g.Start) {
				windows[i].Used += n
			} else {
				windows = append(windows, credit.LimitWindow{Start: g.Start, Used: n})
			}
			if got := within(l.Window.Length); got > l.Amount {
				rt.Fatalf("%d are admitted within %s, the limit is %d", got, l.Window.Length, l.Amount)
			}
			if got := l.At(at, time.UTC, "", windows); got.Used != g.Used+n || got.Carried > got.Used {
				rt.Fatalf("%+v after %+v and %d", got, g, n)
			}
		}
	})
}

func TestFreeAt(t *testing.T) {
	day := &credit.Limit{Amount: 10, Window: credit.Window{Kind: credit.Day}}
	g := day.At(noon, time.UTC, "", []credit.LimitWindow{{Start: noon.Truncate(24 * time.Hour), Used: 5, Held: 2}, {Start: noon.Truncate(24*time.Hour).AddDate(0, 0, -1), Used: 9}})
	if g.Left() != 3 || !g.FreeAt(noon, nil, 3).Equal(noon) || !g.FreeAt(noon, nil, 4).Equal(noon.Truncate(24*time.Hour).AddDate(0, 0, 1)) || !g.FreeAt(noon, nil, 11).IsZero() {
		t.Errorf("%+v", g)
	}
	total := &credit.Limit{Amount: 10, Window: credit.Window{Kind: credit.Total}}
	g = total.At(noon, time.UTC, "", []credit.LimitWindow{{Start: time.Unix(0, 0), Used: 12}})
	if g.Left() != 0 || !g.FreeAt(noon, nil, 1).IsZero() || !g.ResetsAt.IsZero() {
		t.Errorf("%+v", g)
	}
}

func TestCrossed(t *testing.T) {
	l := &credit.Limit{Amount: 200, WarnAt: []int{50, 80}}
	for _, c := range []struct {
		used, held credit.Amount
		told       int
		want       int // how many
		last       int
	}{{99, 0, 0, 0, 0}, {100, 0, 0, 1, 50}, {60, 40, 0, 1, 50}, {160, 0, 50, 1, 80}, {159, 0, 50, 0, 0}, {200, 0, 0, 3, 100}, {300, 0, 100, 0, 0}, {200, 0, 80, 1, 100}, {199, 0, 80, 0, 0}} {
		g := credit.Gate{Limit: l, Used: c.used, Held: c.held, Told: c.told}
		got := g.Crossed()
		if len(got) != c.want || c.want > 0 && got[len(got)-1] != c.last {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if huge := (&credit.Limit{Amount: credit.MaxAmount}); huge.Percent(credit.MaxAmount-1) != 99 || huge.Percent(credit.MaxAmount) != 100 || (&credit.Limit{}).Percent(0) != 100 {
		t.Error("percentages")
	}
}

func TestLimitAppliesTo(t *testing.T) {
	m, n := credit.MemberID{1}, credit.MemberID{2}
	dims := credit.Dimensions{"api_key": "k1", "model": "x"}
	for _, c := range []struct {
		name    string
		limit   credit.Limit
		member  credit.MemberID
		subject string
		applies bool
	}{
		{"customer", credit.Limit{Subject: credit.LimitsCustomer}, n, "", true},
		{"another unit", credit.Limit{Subject: credit.LimitsCustomer, Unit: "IMG"}, n, "", false},
		{"in scope", credit.Limit{Subject: credit.LimitsCustomer, Scope: credit.Scope{"model": {"x"}}}, n, "", true},
		{"out of scope", credit.Limit{Subject: credit.LimitsCustomer, Scope: credit.Scope{"model": {"y"}}}, n, "", false},
		{"the member", credit.Limit{Subject: credit.LimitsMember, Member: m}, m, credit.MemberSubject(m), true},
		{"another member", credit.Limit{Subject: credit.LimitsMember, Member: m}, n, "", false},
		{"each member", credit.Limit{Subject: credit.LimitsMember}, n, credit.MemberSubject(n), true},
		{"no member", credit.Limit{Subject: credit.LimitsMember}, credit.MemberID{}, "", false},
		{"the value", credit.Limit{Subject: credit.LimitsDimension, Dimension: "api_key", Value: "k1"}, n, "k1", true},
		{"another value", credit.Limit{Subject: credit.LimitsDimension, Dimension: "api_key", Value: "k2"}, n, "k1", false},
		{"each value", credit.Limit{Subject: credit.LimitsDimension, Dimension: "api_key"}, n, "k1", true},
		{"no such dimension", credit.Limit{Subject: credit.LimitsDimension, Dimension: "tag"}, n, "", false},
	} {
		if c.limit.Unit == "" {
			c.limit.Unit = "CRD"
		}
		subject, applies := c.limit.Of("CRD", c.member, dims)
		if applies != c.applies || applies && subject != c.subject {
			t.Errorf("%s: %q, %v", c.name, subject, applies)
		}
	}
}

func TestCheckLimitRefuses(t *testing.T) {
	good := credit.Limit{Subject: credit.LimitsCustomer, Window: credit.Window{Kind: credit.Day}}
	if err := credit.CheckLimit(&good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*credit.Limit){
		"below 0":              func(l *credit.Limit) { l.Amount = -1 },
		"too much":             func(l *credit.Limit) { l.Amount = credit.MaxAmount + 1 },
		"no window":            func(l *credit.Limit) { l.Window = credit.Window{} },
		"a length":             func(l *credit.Limit) { l.Window.Length = time.Minute },
		"no length":            func(l *credit.Limit) { l.Window.Kind = credit.Rolling },
		"half a minute":        func(l *credit.Limit) { l.Window = credit.Window{Kind: credit.Rolling, Length: 90 * time.Second} },
		"32 days":              func(l *credit.Limit) { l.Window = credit.Window{Kind: credit.Rolling, Length: 32 * 24 * time.Hour} },
		"no subject":           func(l *credit.Limit) { l.Subject = "" },
		"a member of customer": func(l *credit.Limit) { l.Member = credit.MemberID{1} },
		"no dimension":         func(l *credit.Limit) { l.Subject = credit.LimitsDimension },
		"a dimension":          func(l *credit.Limit) { l.Dimension = "x" },
		"a value":              func(l *credit.Limit) { l.Subject, l.Value = credit.LimitsMember, "x" },
		"unprintable":          func(l *credit.Limit) { l.Subject, l.Dimension, l.Value = credit.LimitsDimension, "x", "\x00" },
		"scope":                func(l *credit.Limit) { l.Scope = credit.Scope{"x": nil} },
		"0 %":                  func(l *credit.Limit) { l.WarnAt = []int{0} },
		"100 %":                func(l *credit.Limit) { l.WarnAt = []int{50, 100} },
		"out of order":         func(l *credit.Limit) { l.WarnAt = []int{80, 50} },
		"eleven":               func(l *credit.Limit) { l.WarnAt = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11} },
	} {
		l := good
		change(&l)
		if code := credit.CodeOf(credit.CheckLimit(&l)); code != credit.InvalidRequest && code != credit.InvalidAmount {
			t.Errorf("%s: %q", name, code)
		}
	}
}

// With gates Select draws what a walk credit by credit draws, passes no gate, and names one that is short when it is short.
func TestSelectPassesNoGate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wallets := []*credit.Wallet{{ID: credit.WalletID{1}, Unit: "CRD"}, {ID: credit.WalletID{2}, Unit: "CRD", Priority: 1}, {ID: credit.WalletID{3}, Unit: "CRD", Priority: 1}}
		var grants []*credit.Grant
		for i := range rapid.IntRange(0, 6).Draw(t, "grants") {
			g := aGrant(byte(i))
			g.Wallet, g.Available = rapid.SampledFrom(wallets).Draw(t, "wallet"), credit.Amount(rapid.IntRange(0, 10).Draw(t, "available"))
			grants = append(grants, g)
		}
		var gates []credit.Gate
		for range rapid.IntRange(0, 4).Draw(t, "gates") {
			l := &credit.Limit{Amount: credit.Amount(rapid.IntRange(0, 20).Draw(t, "limit")), Soft: rapid.IntRange(0, 4).Draw(t, "soft") == 0}
			if k := rapid.IntRange(0, 3).Draw(t, "of"); k > 0 {
				l.Wallet = wallets[k-1].ID
			}
			gates = append(gates, credit.Gate{Limit: l, Used: credit.Amount(rapid.IntRange(0, 10).Draw(t, "used")), Held: credit.Amount(rapid.IntRange(0, 4).Draw(t, "held"))})
		}
		need := credit.Amount(rapid.IntRange(1, 40).Draw(t, "need"))
		s, err := credit.Select(grants, credit.Need{At: noon, Unit: "CRD", Gates: gates, Cost: fixed(need)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		left := make([]credit.Amount, len(gates))
		for i := range gates {
			left[i] = gates[i].Left()
		}
		var total credit.Amount
		drawn := map[credit.GrantID]credit.Amount{}
		for _, g := range grants {
			for range g.Available {
				admitted := total < need
				for i := range gates {
					admitted = admitted && (!gates[i].Bounds(g.Wallet.ID) || left[i] > 0)
				}
				if !admitted {
					break
				}
				total++
				drawn[g.ID]++
				for i := range gates {
					if gates[i].Bounds(g.Wallet.ID) {
						left[i]--
					}
				}
			}
		}
		if s.Total != total || s.Short != need-total {
			t.Fatalf("%+v, want %d of %d", s, total, need)
		}
		for _, d := range s.Draws {
			if drawn[d.Grant.ID] != d.Amount {
				t.Fatalf("%d of grant %s, want %d", d.Amount, d.Grant.ID, drawn[d.Grant.ID])
			}
		}
		free, err := credit.Select(grants, credit.Need{At: noon, Unit: "CRD", Cost: fixed(need)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case s.Short == 0 || s.Gate == 0:
			if s.Gate != 0 || free.Total != s.Total {
				t.Fatalf("%+v without a gate, %+v without any", s, free)
			}
		default:
			g := gates[s.Gate-1]
			if g.Limit.Soft || g.Limit.Wallet.IsZero() && g.Left() >= need || !g.Limit.Wallet.IsZero() && left[s.Gate-1] != 0 {
				t.Fatalf("gate %+v is named and was not short: %+v", g, s)
			}
		}
	})
}
