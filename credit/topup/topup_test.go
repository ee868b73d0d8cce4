package topup_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/topup"
)

func rule() topup.Rule {
	return topup.Rule{Threshold: 100, Amount: 1000, Price: credit.Money{Minor: 10_00, Currency: "EUR"}, Tax: 1_90, Cooldown: time.Hour, Timeout: 24 * time.Hour, MonthlyCount: 3}
}

// A rule begins when, and only when, nothing at all stands in its way.
func TestJudge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rule()
		r.MonthlyMoney = rapid.SampledFrom([]int64{0, 11_90, 25_00}).Draw(t, "monthly money")
		at := time.Date(2026, 10, 20, 12, 0, 0, 0, time.UTC)
		s := topup.Standing{
			Available: credit.Amount(rapid.Int64Range(-50, 200).Draw(t, "available")),
			InFlight:  rapid.Bool().Draw(t, "in flight"),
			Wait:      rapid.SampledFrom([]topup.Wait{topup.NoWait, topup.Cooldown, topup.BackOff, topup.MonthlyCap, topup.Resume}).Draw(t, "wait"),
			Until:     at.Add(time.Duration(rapid.Int64Range(-2, 2).Draw(t, "until")) * time.Second),
			Count:     rapid.IntRange(0, 4).Draw(t, "count"),
		}
		s.Money = int64(s.Count) * r.Cost()
		low := s.Available < 100
		waits := s.Wait == topup.Resume || (s.Wait == topup.Cooldown || s.Wait == topup.BackOff) && s.Until.After(at)
		room := s.Count < 3 && (r.MonthlyMoney == 0 || s.Money+11_90 <= r.MonthlyMoney)
		want := topup.Nothing
		if low && !s.InFlight && !waits {
			if want = topup.Capped; room {
				want = topup.Begin
			}
		}
		if got := r.Judge(s, at); got != want {
			t.Fatalf("%+v: %s, want %s", s, got, want)
		}
	})
}

func TestFailed(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: time.Hour, 2: 6 * time.Hour, 3: 24 * time.Hour} {
		if wait, d := topup.Failed(failures); wait != topup.BackOff || d != want {
			t.Errorf("%d: %s %s", failures, wait, d)
		}
	}
	for _, failures := range []int{0, 4, 5, 1 << 30} {
		if wait, _ := topup.Failed(failures); wait != topup.Resume {
			t.Errorf("%d: %s", failures, wait)
		}
	}
}

// Worked by hand from the time zone database: the ends of months around which clocks are changed.
func TestMonth(t *testing.T) {
	for _, c := range []struct{ zone, at, name, end string }{
		{"UTC", "2026-10-31T23:59:59Z", "2026-10", "2026-11-01T00:00:00Z"},
		{"UTC", "2026-11-01T00:00:00Z", "2026-11", "2026-12-01T00:00:00Z"},
		{"Europe/Berlin", "2026-10-01T00:00:00Z", "2026-10", "2026-10-31T23:00:00Z"}, // begins in summer, ends in winter
		{"Europe/Berlin", "2026-10-31T22:59:59Z", "2026-10", "2026-10-31T23:00:00Z"},
		{"Europe/Berlin", "2026-10-31T23:00:00Z", "2026-11", "2026-11-30T23:00:00Z"},
		{"Europe/Berlin", "2026-03-15T00:00:00Z", "2026-03", "2026-03-31T22:00:00Z"}, // and the other way
		{"America/New_York", "2026-11-01T03:59:59Z", "2026-10", "2026-11-01T04:00:00Z"},
		{"America/New_York", "2026-11-15T00:00:00Z", "2026-11", "2026-12-01T05:00:00Z"},
		{"America/Havana", "2026-10-31T12:00:00Z", "2026-10", "2026-11-01T04:00:00Z"}, // that midnight comes twice
		{"America/Havana", "2026-11-01T04:30:00Z", "2026-11", "2026-12-01T05:00:00Z"},
		{"America/Havana", "2026-11-01T05:30:00Z", "2026-11", "2026-12-01T05:00:00Z"},
		{"America/Asuncion", "2017-09-30T12:00:00Z", "2017-09", "2017-10-01T04:00:00Z"}, // that midnight never comes
		{"Pacific/Apia", "2011-12-15T00:00:00Z", "2011-12", "2011-12-31T10:00:00Z"},
	} {
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		at, _ := time.Parse(time.RFC3339, c.at)
		if name, end := topup.Month(at, zone); name != c.name || end.Format(time.RFC3339) != c.end {
			t.Errorf("%s in %s: %s until %s, want %s until %s", c.at, c.zone, name, end.Format(time.RFC3339), c.name, c.end)
		}
	}
}

// Every instant is in one month, which goes on until its end and not for a nanosecond longer.
func TestMonthsFollowEachOther(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "America/Havana", "America/Asuncion", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Kiritimati"}
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		at := time.Unix(rapid.Int64Range(1_000_000_000, 2_500_000_000).Draw(t, "at"), 0)
		name, end := topup.Month(at, zone)
		if last, same := topup.Month(end.Add(-1), zone); !end.After(at) || last != name || !same.Equal(end) {
			t.Fatalf("%s is in %s until %s; just before it is %s until %s", at, name, end, last, same)
		}
		if next, _ := topup.Month(end, zone); next <= name {
			t.Fatalf("%s is followed by %s", name, next)
		}
	})
}

func TestCheck(t *testing.T) {
	if r := rule(); r.Check() != nil {
		t.Fatal(r.Check())
	}
	for pointer, spoil := range map[string]func(*topup.Rule){
		"/threshold":             func(r *topup.Rule) { r.Threshold = 0 },
		"/amount":                func(r *topup.Rule) { r.Amount = 0 },
		"/price/amount":          func(r *topup.Rule) { r.Price.Minor = 0 },
		"/price/tax":             func(r *topup.Rule) { r.Tax = -1 },
		"/expires_after_seconds": func(r *topup.Rule) { r.ExpiresAfter = r.Timeout },
		"/cooldown_seconds":      func(r *topup.Rule) { r.Cooldown = topup.MaxCooldown + 1 },
		"/timeout_seconds":       func(r *topup.Rule) { r.Timeout = 0 },
		"/monthly_count":         func(r *topup.Rule) { r.MonthlyCount = 0 },
		"/monthly_money":         func(r *topup.Rule) { r.MonthlyMoney = r.Cost() - 1 },
	} {
		r := rule()
		spoil(&r)
		e, ok := r.Check().(*credit.Error)
		if !ok || e.Code != credit.InvalidRequest || e.Issues[0].Pointer != pointer {
			t.Errorf("%s: %v", pointer, e)
		}
	}
}
