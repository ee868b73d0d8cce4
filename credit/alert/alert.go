// Package alert decides when somebody is to be told that credits run low, run fast or run out, as functions of values: once at each crossing of a
// threshold, and once when it is over. No I/O, no clock. README.md in this folder is its one-page description.
package alert

import (
	"cmp"
	"fmt"
	"math/bits"
	"time"

	"github.com/tallystick/tallystick/credit"
)

// Kind is what a rule watches.
type Kind string

const (
	BalanceBelow    Kind = "balance_below"    // available credits are fewer than Amount
	ShareBelow      Kind = "share_below"      // available credits are less than Percent of what the grants had that have any
	DepletionWithin Kind = "depletion_within" // at the expected burn the credits end within Within
	ExpiringWithin  Kind = "expiring_within"  // at least Amount expires within Within
	SpendAbove      Kind = "spend_above"      // more than Amount was used within the last Within
	OverageStarted  Kind = "overage_started"  // something beyond the credits has been used, and is not settled
	UnusualBurn     Kind = "unusual_burn"     // the last hour used more than Percent of what an hour of the week before it did, and at least Amount
)

// Kinds are all of them, in the order of the documentation.
var Kinds = []Kind{BalanceBelow, ShareBelow, DepletionWithin, ExpiringWithin, SpendAbove, OverageStarted, UnusualBurn}

// Audience is whom an alert is for: it chooses the type of the event.
type Audience string

const (
	Customer Audience = "customer" // alert.fired, alert.recovered
	Team     Audience = "team"     // alert.team.fired, alert.team.recovered
)

// Bounds of a rule.
const (
	MaxWithin     = 366 * 24 * time.Hour
	MaxPercent    = 100_000
	MaxHysteresis = 100
	// DefaultHysteresis is how far, in percent of the threshold, a figure must come back before the alert is over.
	DefaultHysteresis = 10
	// SpendStep is what the beginning of a spend window is rounded down to: use is kept by the hour.
	SpendStep = time.Hour
)

// Rule says when to fire. Which of the numbers it has depends on its kind; the others are zero.
type Rule struct {
	Kind       Kind
	Unit       string
	Amount     credit.Amount
	Percent    int
	Within     time.Duration
	Hysteresis int // percent
}

// Check refuses a rule that means nothing, with an Error coded invalid_request that points to what is wrong.
func (r Rule) Check() error {
	wants := map[Kind]struct{ amount, percent, within bool }{
		BalanceBelow: {amount: true}, ShareBelow: {percent: true}, DepletionWithin: {within: true}, ExpiringWithin: {amount: true, within: true},
		SpendAbove: {amount: true, within: true}, OverageStarted: {}, UnusualBurn: {amount: true, percent: true},
	}
	w, known := wants[r.Kind]
	switch {
	case !known:
		return credit.Invalid("/kind", "This is one of %v.", Kinds)
	case w.amount != (r.Amount > 0):
		return credit.Invalid("/amount", "%s", needs(r.Kind, "an amount", w.amount))
	case w.percent != (r.Percent > 0):
		return credit.Invalid("/percent", "%s", needs(r.Kind, "a percentage", w.percent))
	case w.within != (r.Within > 0):
		return credit.Invalid("/within_seconds", "%s", needs(r.Kind, "a time", w.within))
	case r.Amount > credit.MaxAmount:
		return credit.Invalid("/amount", "This is at most %d steps of the unit.", credit.MaxAmount)
	case r.Percent > MaxPercent || r.Kind == ShareBelow && r.Percent > 100:
		return credit.Invalid("/percent", "This is too much.")
	case r.Kind == UnusualBurn && r.Percent <= 100:
		return credit.Invalid("/percent", "What is unusual is more than 100 percent.")
	case r.Within > MaxWithin:
		return credit.Invalid("/within_seconds", "This is at most %d days.", MaxWithin/(24*time.Hour))
	case r.Kind == SpendAbove && r.Within%SpendStep != 0:
		return credit.Invalid("/within_seconds", "Use is counted by the hour: this is a whole number of hours.")
	case r.Hysteresis < 0 || r.Hysteresis > MaxHysteresis:
		return credit.Invalid("/hysteresis_percent", "This is 0 to %d.", MaxHysteresis)
	}
	return nil
}

func needs(k Kind, what string, it bool) string {
	if it {
		return fmt.Sprintf("A rule of kind %s needs %s greater than 0.", k, what)
	}
	return fmt.Sprintf("A rule of kind %s has not %s.", k, what)
}

// Figures are what a rule is judged by: those of its kind must be right, the others are not looked at.
type Figures struct {
	At        time.Time
	Available credit.Amount // that can be used now
	Granted   credit.Amount // what the grants had, when they were new, that Available is made of
	Depletion time.Time     // when the credits are expected to end; zero: not within reach of a forecast
	Expiring  credit.Amount // of Available, within the rule's time
	Spent     credit.Amount // within the rule's time
	Overage   credit.Amount // used and not settled
	LastHour  credit.Amount // used in the last hour
	UsualHour credit.Amount // used in an hour of the week before that, on average, rounded up; 0: there was none
}

// Judge tells whether the rule's alert is on, given whether it was. It goes on at its threshold, and off only when the figure has come back
// by the hysteresis, so that a figure that trembles at the threshold fires once.
func (r Rule) Judge(on bool, f Figures) bool {
	switch r.Kind {
	case BalanceBelow:
		return f.Available < r.bound(on, r.Amount)
	case ShareBelow:
		if f.Granted == 0 {
			return true // all of it is used up or over
		}
		// available/granted < percent/100, without rounding
		return compare(f.Available, 10_000, f.Granted, r.bound(on, credit.Amount(r.Percent)*100)) < 0
	case DepletionWithin:
		return !f.Depletion.IsZero() && f.Depletion.Sub(f.At) <= time.Duration(r.bound(on, credit.Amount(r.Within/time.Second)))*time.Second
	case ExpiringWithin:
		return f.Expiring >= max(1, r.under(on, r.Amount))
	case SpendAbove:
		return f.Spent > r.under(on, r.Amount)
	case OverageStarted:
		return f.Overage > 0
	case UnusualBurn:
		if f.UsualHour == 0 {
			return on && f.LastHour >= r.under(on, r.Amount) // without a week to compare with nothing is unusual
		}
		return f.LastHour >= r.under(on, r.Amount) &&
			compare(f.LastHour, 100, f.UsualHour, r.under(on, credit.Amount(r.Percent))) > 0
	}
	return false
}

// compare compares a·b with c·d, all of them at least 0.
func compare(a, b, c, d credit.Amount) int {
	h1, l1 := bits.Mul64(uint64(a), uint64(b))
	h2, l2 := bits.Mul64(uint64(c), uint64(d))
	return cmp.Or(cmp.Compare(h1, h2), cmp.Compare(l1, l2))
}

// bound is a threshold from below: what a figure must reach to be well again lies above it.
func (r Rule) bound(on bool, threshold credit.Amount) credit.Amount {
	if !on {
		return threshold
	}
	return threshold + credit.Amount(credit.MulDivUp(int64(threshold), int64(r.Hysteresis), 100))
}

// under is a threshold from above: what a figure must fall to to be well again lies below it.
func (r Rule) under(on bool, threshold credit.Amount) credit.Amount {
	if !on {
		return threshold
	}
	return threshold - credit.Amount(credit.MulDiv(int64(threshold), int64(r.Hysteresis), 100))
}

// Message says in a sentence what has happened, for people. scale is the unit's.
func (r Rule) Message(on bool, f Figures, scale int) string {
	amount := func(a credit.Amount) string { return a.Format(scale) + " " + r.Unit }
	within := span(r.Within)
	switch r.Kind {
	case BalanceBelow, ShareBelow:
		threshold := amount(r.Amount)
		if r.Kind == ShareBelow {
			threshold = fmt.Sprintf("%d %% of %s", r.Percent, amount(f.Granted))
		}
		if on {
			return fmt.Sprintf("%s are left, fewer than %s.", amount(f.Available), threshold)
		}
		return fmt.Sprintf("%s are left again; the threshold is %s.", amount(f.Available), threshold)
	case DepletionWithin:
		if on {
			return fmt.Sprintf("At the present burn %s end about %s, within %s.", amount(f.Available), f.Depletion.UTC().Format(time.RFC3339), within)
		}
		return fmt.Sprintf("%s last for longer than %s again.", amount(f.Available), within)
	case ExpiringWithin:
		if on {
			return fmt.Sprintf("%s expire within %s.", amount(f.Expiring), within)
		}
		return fmt.Sprintf("No more than %s expire within %s now.", amount(f.Expiring), within)
	case SpendAbove:
		if on {
			return fmt.Sprintf("%s were used in the last %s, more than %s.", amount(f.Spent), within, amount(r.Amount))
		}
		return fmt.Sprintf("%s were used in the last %s; the threshold is %s.", amount(f.Spent), within, amount(r.Amount))
	case OverageStarted:
		if on {
			return fmt.Sprintf("The credits are used up; %s were used beyond them.", amount(f.Overage))
		}
		return "Nothing that was used beyond the credits is left to settle."
	default: // UnusualBurn
		if on {
			return fmt.Sprintf("%s were used in the last hour; in an hour of the week before it was %s.", amount(f.LastHour), amount(f.UsualHour))
		}
		return fmt.Sprintf("%s were used in the last hour, which is no longer unusual.", amount(f.LastHour))
	}
}

// span writes a time as people say it.
func span(d time.Duration) string {
	switch {
	case d == 24*time.Hour:
		return "day"
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d == time.Hour:
		return "hour"
	case d%time.Hour == 0:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return d.String()
}
