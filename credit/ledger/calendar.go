package ledger

import (
	"time"

	"github.com/tallystick/tallystick/credit"
)

// Day is a day of an entity's calendar, such as "2026-01-31". Days compare as texts do.
type Day string

// Period is an accounting month of an entity's calendar, such as "2026-01". Periods compare as texts do.
type Period string

const (
	dayLayout    = "2006-01-02"
	periodLayout = "2006-01"
)

// DayOf returns the day on which an instant falls in a calendar.
func DayOf(t time.Time, calendar *time.Location) Day { return Day(t.In(calendar).Format(dayLayout)) }

// PeriodOf returns the period in which an instant falls in a calendar.
func PeriodOf(t time.Time, calendar *time.Location) Period {
	return Period(t.In(calendar).Format(periodLayout))
}

// ParsePeriod reads a period. Anything but four digits, a dash and a month is an [credit.Error] coded invalid_request.
func ParsePeriod(s string) (Period, error) {
	if t, err := time.Parse(periodLayout, s); err != nil || t.Format(periodLayout) != s {
		return "", credit.Errorf(credit.InvalidRequest, "%.20q is not a period such as \"2026-01\".", s)
	}
	return Period(s), nil
}

// Period returns the month of the day.
func (d Day) Period() Period { return Period(d[:len(periodLayout)]) }

// Next returns the month after p.
func (p Period) Next() Period { return p.Plus(1) }

// Previous returns the month before p.
func (p Period) Previous() Period { return p.Plus(-1) }

// Plus returns the period that is n months after p, or before it when n is negative.
func (p Period) Plus(n int) Period { return Period(p.start().AddDate(0, n, 0).Format(periodLayout)) }

// First and Last return the first and the last day of p.
func (p Period) First() Day { return Day(p.start().Format(dayLayout)) }
func (p Period) Last() Day  { return Day(p.start().AddDate(0, 1, -1).Format(dayLayout)) }

func (p Period) start() time.Time {
	t, err := time.Parse(periodLayout, string(p))
	if err != nil {
		panic("ledger: period " + string(p) + " is not of the form 2026-01")
	}
	return t
}
