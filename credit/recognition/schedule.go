package recognition

import (
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
)

// Spread says how an amount that is earned by the passage of time is spread over the months of its window.
type Spread string

const (
	ByTime   Spread = "time"     // by the time that passes, to the microsecond
	ByDay    Spread = "day"      // by days: the day on which it begins counts whole, the one on which it ends does not
	ByMonth  Spread = "month"    // by months, all equal, counted in the same way
	Prorated Spread = "prorated" // whole months equal, those at both ends by time
)

// Part is what one month earns of a scheduled amount.
type Part struct {
	Period ledger.Period
	Amount int64
}

// Schedule spreads a total over the months of [from, to) in a calendar: a stand-ready obligation, such as a use-or-lose allowance. The
// parts are in order of period, sum to the total, and are cut by the cumulative rule, floor(total·elapsed/whole), so that the last one has the
// residual; with Prorated, the last whole month has it, or without one the last part. Parts of nothing are left out. A window that
// ends when it begins, or before, or a negative total, is a defect of the caller's: it panics.
func Schedule(total int64, from, to time.Time, spread Spread, calendar *time.Location) []Part {
	if !to.After(from) || total < 0 {
		panic("recognition: schedule of no window or of a negative total")
	}
	from, to = from.In(calendar), to.In(calendar)
	if spread == Prorated {
		return prorated(total, from, to)
	}
	at := map[Spread]func(time.Time) int64{ByTime: microseconds, ByDay: dayNumber, ByMonth: monthNumber}[spread]
	begin, end := at(from), at(to)
	if end == begin {
		end++ // both on one day, or in one month: it counts whole
	}
	var parts []Part
	var done int64
	for p := ledger.PeriodOf(from, calendar); done < total; p = p.Next() {
		elapsed := min(max(at(startOf(p.Next(), calendar)), begin), end) - begin
		due := credit.MulDiv(total, elapsed, end-begin)
		if due > done {
			parts = append(parts, Part{p, due - done})
		}
		done = due
	}
	return parts
}

// prorated gives months at the ends that are not whole their share by time, and the whole ones between them equal parts of the rest.
func prorated(total int64, from, to time.Time) []Part {
	calendar := from.Location()
	first, last := ledger.PeriodOf(from, calendar), ledger.PeriodOf(to.Add(-time.Microsecond), calendar)
	share := func(a, b time.Time) int64 {
		return credit.MulDiv(total, b.Sub(a).Microseconds(), to.Sub(from).Microseconds())
	}
	var head, tail int64
	whole := int64(monthNumber(startOf(last, calendar)) - monthNumber(startOf(first, calendar)) + 1)
	partialHead, partialTail := startOf(first, calendar).Before(from), startOf(last.Next(), calendar).After(to)
	switch {
	case first == last:
		return Schedule(total, from, to, ByTime, calendar)
	case partialHead:
		head, whole = share(from, startOf(first.Next(), calendar)), whole-1
	}
	if partialTail {
		tail, whole = share(startOf(last, calendar), to), whole-1
	}
	if whole == 0 {
		tail = total - head
	}
	var parts []Part
	rest := total - head - tail
	each := int64(0)
	if whole > 0 {
		each = rest / whole
	}
	for p := first; p <= last; p = p.Next() {
		amount := each
		switch {
		case p == first && partialHead:
			amount = head
		case p == last && partialTail:
			amount = tail
		default:
			if whole--; whole == 0 {
				amount = rest
			}
			rest -= amount
		}
		if amount > 0 {
			parts = append(parts, Part{p, amount})
		}
	}
	return parts
}

func startOf(p ledger.Period, calendar *time.Location) time.Time {
	t, err := time.ParseInLocation("2006-01", string(p), calendar)
	if err != nil {
		panic("recognition: period " + string(p) + " is not of the form 2026-01")
	}
	return t
}

func microseconds(t time.Time) int64 { return t.UnixMicro() }

// dayNumber counts days of the calendar, whatever the length of each.
func dayNumber(t time.Time) int64 {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400
}

func monthNumber(t time.Time) int64 { return int64(t.Year())*12 + int64(t.Month()) }
