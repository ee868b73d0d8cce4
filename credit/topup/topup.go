// Package topup judges when a wallet buys more credits by itself, without I/O or a clock.
package topup

import (
	"sort"
	"time"

	"github.com/tallystick/tallystick/credit"
)

// Rule says what is bought when a wallet runs low.
type Rule struct {
	Threshold    credit.Amount // it is bought when less than this is available
	Amount       credit.Amount // of the pack
	Price        credit.Money  // of the pack, net of tax
	Tax          int64         // on it, minor units of Price.Currency
	ExpiresAfter time.Duration // how long the pack lives, from when it is asked for; 0: for ever
	Cooldown     time.Duration // after a success, in which nothing is bought
	Timeout      time.Duration // for the outcome of the payment
	MonthlyCount int           // top-ups in a calendar month at most
	MonthlyMoney int64         // what they cost at most, tax included, minor units of Price.Currency; 0: without bound
}

// Bounds of a rule, and what it has where nothing is said.
const (
	MaxExpiresAfter = 3660 * 24 * time.Hour
	MaxCooldown     = 31 * 24 * time.Hour
	MinTimeout      = time.Minute
	MaxTimeout      = 7 * 24 * time.Hour
	MaxMonthlyCount = 1000

	DefaultCooldown     = time.Hour
	DefaultTimeout      = 24 * time.Hour
	DefaultMonthlyCount = 10
)

// Cost is what a top-up costs, tax included, in minor units.
func (r *Rule) Cost() int64 { return r.Price.Minor + r.Tax }

// Check refuses a rule that contradicts itself. Threshold and Amount are of one unit, as the caller has read them.
func (r *Rule) Check() error {
	switch {
	case r.Threshold <= 0:
		return credit.Invalid("/threshold", "The threshold must be positive.")
	case r.Amount <= 0:
		return credit.Invalid("/amount", "The amount must be positive.")
	case r.Price.Minor <= 0:
		return credit.Invalid("/price/amount", "What is bought has a price.")
	case r.Tax < 0:
		return credit.Invalid("/price/tax", "The tax is not negative.")
	case r.ExpiresAfter != 0 && (r.ExpiresAfter <= r.Timeout || r.ExpiresAfter > MaxExpiresAfter):
		return credit.Invalid("/expires_after_seconds", "The credits must live for longer than their payment may take, and for %d days at most.", MaxExpiresAfter/(24*time.Hour))
	case r.Cooldown < 0 || r.Cooldown > MaxCooldown:
		return credit.Invalid("/cooldown_seconds", "The cooldown is up to %d days.", MaxCooldown/(24*time.Hour))
	case r.Timeout < MinTimeout || r.Timeout > MaxTimeout:
		return credit.Invalid("/timeout_seconds", "The payment has between a minute and %d days.", MaxTimeout/(24*time.Hour))
	case r.MonthlyCount < 1 || r.MonthlyCount > MaxMonthlyCount:
		return credit.Invalid("/monthly_count", "There are 1 to %d top-ups in a month.", MaxMonthlyCount)
	case r.MonthlyMoney != 0 && r.MonthlyMoney < r.Cost():
		return credit.Invalid("/monthly_money", "A month must have room for one top-up, tax included.")
	}
	return nil
}

// Wait is why a rule buys nothing though less than its threshold may be available.
type Wait string

const (
	NoWait     Wait = ""
	Cooldown   Wait = "cooldown"    // after a success
	BackOff    Wait = "back_off"    // after a payment that failed
	MonthlyCap Wait = "monthly_cap" // until the next month, or until the cap is raised
	Resume     Wait = "resume"      // until somebody resumes it
)

// Standing is what a rule is judged by.
type Standing struct {
	Available credit.Amount
	InFlight  bool // a top-up of the wallet has been begun and is not settled
	Wait      Wait
	Until     time.Time // of Wait; without meaning where that is NoWait or Resume
	Count     int       // top-ups of the calendar month that succeeded
	Money     int64     // what they cost, tax included
}

// Verdict is what is to be done.
type Verdict string

const (
	Nothing Verdict = "nothing"
	Begin   Verdict = "begin"
	Capped  Verdict = "capped" // it would begin if the month had room
)

// Judge says what a rule does at an instant. It begins only when less than the threshold is available, nothing is in flight, no cooldown and
// no back-off lasts, nobody has to resume it, and the month has room for it.
func (r *Rule) Judge(s Standing, at time.Time) Verdict {
	switch {
	case s.Available >= r.Threshold, s.InFlight, s.Wait == Resume, (s.Wait == Cooldown || s.Wait == BackOff) && at.Before(s.Until):
		return Nothing
	case s.Count >= r.MonthlyCount, r.MonthlyMoney > 0 && s.Money > r.MonthlyMoney-r.Cost():
		return Capped
	}
	return Begin
}

// backOffs are how long a rule waits after failures one after another.
var backOffs = []time.Duration{time.Hour, 6 * time.Hour, 24 * time.Hour}

// Failed says how a rule waits after so many failures one after another, the newest included: for a time, and after the last of them until
// it is resumed.
func Failed(failures int) (Wait, time.Duration) {
	if failures < 1 || failures > len(backOffs) {
		return Resume, 0
	}
	return BackOff, backOffs[failures-1]
}

// Month names the calendar month of an instant in a time zone, "2026-10", and says when the next one begins.
func Month(at time.Time, zone *time.Location) (name string, end time.Time) {
	local := at.In(zone)
	year, month, _ := local.Date()
	// A clock that is put forward or back around that midnight shows it never or twice: the first instant that shows another month is looked for.
	about := time.Date(year, month+1, 1, 0, 0, 0, 0, zone).Add(-3 * time.Hour)
	n := sort.Search(6*3600, func(i int) bool { return about.Add(time.Duration(i)*time.Second).In(zone).Month() != month })
	return local.Format("2006-01"), about.Add(time.Duration(n) * time.Second).UTC()
}
