package alert

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

const day = 24 * time.Hour

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestThresholds(t *testing.T) {
	in := func(d time.Duration) time.Time { return noon.Add(d) }
	for _, c := range []struct {
		name string
		rule Rule
		on   bool
		f    Figures
		want bool
	}{
		{"at the balance", Rule{Kind: BalanceBelow, Amount: 100, Hysteresis: 10}, false, Figures{Available: 100}, false},
		{"below the balance", Rule{Kind: BalanceBelow, Amount: 100, Hysteresis: 10}, false, Figures{Available: 99}, true},
		{"back, not enough", Rule{Kind: BalanceBelow, Amount: 100, Hysteresis: 10}, true, Figures{Available: 109}, true},
		{"back by a tenth", Rule{Kind: BalanceBelow, Amount: 100, Hysteresis: 10}, true, Figures{Available: 110}, false},
		{"a tenth of 5 is rounded up", Rule{Kind: BalanceBelow, Amount: 5, Hysteresis: 10}, true, Figures{Available: 5}, true},
		{"a fifth of 1,000", Rule{Kind: ShareBelow, Percent: 20, Hysteresis: 10}, false, Figures{Available: 200, Granted: 1000}, false},
		{"less than a fifth", Rule{Kind: ShareBelow, Percent: 20, Hysteresis: 10}, false, Figures{Available: 199, Granted: 1000}, true},
		{"less than 22 %", Rule{Kind: ShareBelow, Percent: 20, Hysteresis: 10}, true, Figures{Available: 219, Granted: 1000}, true},
		{"22 %", Rule{Kind: ShareBelow, Percent: 20, Hysteresis: 10}, true, Figures{Available: 220, Granted: 1000}, false},
		{"all of it is used up", Rule{Kind: ShareBelow, Percent: 20}, false, Figures{}, true},
		{"no end in sight", Rule{Kind: DepletionWithin, Within: 7 * day}, false, Figures{At: noon}, false},
		{"a week", Rule{Kind: DepletionWithin, Within: 7 * day, Hysteresis: 10}, false, Figures{At: noon, Depletion: in(7 * day)}, true},
		{"more than a week", Rule{Kind: DepletionWithin, Within: 7 * day, Hysteresis: 10}, false, Figures{At: noon, Depletion: in(7*day + time.Second)}, false},
		{"7.7 days", Rule{Kind: DepletionWithin, Within: 7 * day, Hysteresis: 10}, true, Figures{At: noon, Depletion: in(7*day + 16*time.Hour)}, true},
		{"8 days", Rule{Kind: DepletionWithin, Within: 7 * day, Hysteresis: 10}, true, Figures{At: noon, Depletion: in(8 * day)}, false},
		{"enough expires", Rule{Kind: ExpiringWithin, Amount: 50, Within: day}, false, Figures{Expiring: 50}, true},
		{"too little expires", Rule{Kind: ExpiringWithin, Amount: 50, Within: day}, false, Figures{Expiring: 49}, false},
		{"nothing expires, all hysteresis", Rule{Kind: ExpiringWithin, Amount: 50, Within: day, Hysteresis: 100}, true, Figures{}, false},
		{"spent as much", Rule{Kind: SpendAbove, Amount: 100, Within: day}, false, Figures{Spent: 100}, false},
		{"spent more", Rule{Kind: SpendAbove, Amount: 100, Within: day}, false, Figures{Spent: 101}, true},
		{"still more than nine tenths", Rule{Kind: SpendAbove, Amount: 100, Within: day, Hysteresis: 10}, true, Figures{Spent: 91}, true},
		{"nine tenths", Rule{Kind: SpendAbove, Amount: 100, Within: day, Hysteresis: 10}, true, Figures{Spent: 90}, false},
		{"overage", Rule{Kind: OverageStarted}, false, Figures{Overage: 1}, true},
		{"settled", Rule{Kind: OverageStarted}, true, Figures{}, false},
		{"three times the usual", Rule{Kind: UnusualBurn, Amount: 10, Percent: 300}, false, Figures{LastHour: 300, UsualHour: 100}, false},
		{"more than three times", Rule{Kind: UnusualBurn, Amount: 10, Percent: 300}, false, Figures{LastHour: 301, UsualHour: 100}, true},
		{"too little to care", Rule{Kind: UnusualBurn, Amount: 1000, Percent: 300}, false, Figures{LastHour: 999, UsualHour: 1}, false},
		{"a first week", Rule{Kind: UnusualBurn, Amount: 10, Percent: 300}, false, Figures{LastHour: 1000}, false},
	} {
		if got := c.rule.Judge(c.on, c.f); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func drawRule(t *rapid.T) Rule {
	r := Rule{Kind: rapid.SampledFrom(Kinds).Draw(t, "kind"), Unit: "CREDIT", Hysteresis: rapid.IntRange(0, MaxHysteresis).Draw(t, "hysteresis")}
	amount := func() credit.Amount {
		return credit.Amount(rapid.OneOf(rapid.Int64Range(1, 1000), rapid.Int64Range(1, int64(credit.MaxAmount))).Draw(t, "amount"))
	}
	hours := func() time.Duration { return time.Duration(rapid.IntRange(1, 24*366).Draw(t, "hours")) * time.Hour }
	switch r.Kind {
	case BalanceBelow:
		r.Amount = amount()
	case ShareBelow:
		r.Percent = rapid.IntRange(1, 100).Draw(t, "percent")
	case DepletionWithin:
		r.Within = hours()
	case ExpiringWithin, SpendAbove:
		r.Amount, r.Within = amount(), hours()
	case UnusualBurn:
		r.Amount, r.Percent = amount(), rapid.IntRange(101, MaxPercent).Draw(t, "percent")
	}
	return r
}

func drawFigures(t *rapid.T) Figures {
	amount := func(name string) credit.Amount {
		return credit.Amount(rapid.OneOf(rapid.Int64Range(0, 1200), rapid.Int64Range(0, int64(credit.MaxAmount))).Draw(t, name))
	}
	f := Figures{At: noon, Available: amount("available"), Granted: amount("granted"), Expiring: amount("expiring"), Spent: amount("spent"), Overage: amount("overage"),
		LastHour: amount("last hour"), UsualHour: amount("usual hour")}
	if rapid.Bool().Draw(t, "ends") {
		f.Depletion = noon.Add(time.Duration(rapid.IntRange(0, 400*24).Draw(t, "depletion hours")) * time.Hour)
	}
	return f
}

// What would fire an alert that is off keeps one on that is on: hysteresis only makes it last. So the same figures, seen again, change nothing.
func TestHysteresisOnlyHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, f := drawRule(t), drawFigures(t)
		if err := r.Check(); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if r.Judge(false, f) && !r.Judge(true, f) {
			t.Fatalf("%+v flickers at %+v", r, f)
		}
		on := r.Judge(rapid.Bool().Draw(t, "on"), f)
		if r.Judge(on, f) != on {
			t.Fatalf("%+v changes its mind at %+v", r, f)
		}
		if m := r.Message(on, f, 6); m == "" || strings.ContainsAny(m, "\r\n") || strings.Contains(m, "%!") {
			t.Fatalf("message %q", m)
		}
	})
}

// A share is judged exactly, whatever the size of the amounts.
func TestShareIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rule{Kind: ShareBelow, Percent: rapid.IntRange(1, 100).Draw(t, "percent")}
		granted := rapid.Int64Range(1, int64(credit.MaxAmount)).Draw(t, "granted")
		near := credit.MulDiv(granted, int64(r.Percent), 100)
		f := Figures{Granted: credit.Amount(granted), Available: credit.Amount(max(0, near+rapid.Int64Range(-2, 2).Draw(t, "near")))}
		share := new(big.Rat).SetFrac64(int64(f.Available), granted)
		if want := share.Cmp(big.NewRat(int64(r.Percent), 100)) < 0; r.Judge(false, f) != want {
			t.Fatalf("%d of %d against %d %%: %t", f.Available, granted, r.Percent, !want)
		}
	})
}

// A figure that trembles within the hysteresis fires once.
func TestTremblingFiresOnce(t *testing.T) {
	r := Rule{Kind: BalanceBelow, Amount: 1000, Hysteresis: 10}
	on, fired := false, 0
	for i := range 1000 {
		now := r.Judge(on, Figures{Available: credit.Amount(1000 + (i*37)%100 - 50)})
		if now && !on {
			fired++
		}
		on = now
	}
	if fired != 1 {
		t.Errorf("it fired %d times", fired)
	}
}

func TestCheck(t *testing.T) {
	for pointer, r := range map[string]Rule{
		"/kind":               {Kind: "boredom"},
		"/amount":             {Kind: BalanceBelow},
		"/percent":            {Kind: ShareBelow, Percent: 101},
		"/within_seconds":     {Kind: SpendAbove, Amount: 1, Within: 90 * time.Minute},
		"/hysteresis_percent": {Kind: OverageStarted, Hysteresis: 101},
	} {
		err, _ := r.Check().(*credit.Error)
		if err == nil || len(err.Issues) != 1 || err.Issues[0].Pointer != pointer {
			t.Errorf("%s: %v", pointer, err)
		}
	}
	for _, r := range []Rule{
		{Kind: OverageStarted, Amount: 1}, {Kind: OverageStarted, Within: 1}, {Kind: OverageStarted, Percent: 1}, {Kind: UnusualBurn, Amount: 1, Percent: 100},
		{Kind: BalanceBelow, Amount: credit.MaxAmount + 1}, {Kind: DepletionWithin, Within: MaxWithin + time.Second}, {Kind: UnusualBurn, Amount: 1, Percent: MaxPercent + 1},
		{Kind: BalanceBelow, Amount: -1},
	} {
		if r.Check() == nil {
			t.Errorf("%+v is accepted", r)
		}
	}
}
