package rating

import (
	"fmt"
	"strings"
	"time"
)

// Window is a time of day on some days of the week, by the clock of the document's time zone.
type Window struct {
	// Days on which it begins, from Monday on, each once. nil: every day.
	Days []time.Weekday
	// From and To are minutes after midnight; To itself is not within. At or before From it is on the next day, so 0 and 0 are the whole day.
	From, To int
}

const (
	dayMinutes  = 24 * 60
	weekMinutes = 7 * dayMinutes
)

var dayNames = [7]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// String writes "mon,tue 08:00-18:00".
func (w Window) String() string {
	var b strings.Builder
	for i, d := range w.Days {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(dayNames[daysSinceMonday(d)])
	}
	if len(w.Days) > 0 {
		b.WriteByte(' ')
	}
	fmt.Fprintf(&b, "%02d:%02d-%02d:%02d", w.From/60, w.From%60, w.To/60, w.To%60)
	return b.String()
}

// week is a set of the minutes of a week from Monday 00:00.
type week [(weekMinutes + 63) / 64]uint64

func newWeek(windows []Window) *week {
	var w week
	for _, window := range windows {
		length := window.To - window.From
		if length <= 0 {
			length += dayMinutes
		}
		for day := range 7 {
			if window.Days != nil && !containsDay(window.Days, day) {
				continue
			}
			for i := range length {
				minute := (day*dayMinutes + window.From + i) % weekMinutes
				w[minute/64] |= 1 << (minute % 64)
			}
		}
	}
	return &w
}

func containsDay(days []time.Weekday, sinceMonday int) bool {
	for _, d := range days {
		if daysSinceMonday(d) == sinceMonday {
			return true
		}
	}
	return false
}

func (w *week) has(minute int) bool { return w[minute/64]&(1<<(minute%64)) != 0 }

// common returns the first minute that is in both; -1 when none is.
func (w *week) common(v *week) int {
	for i := range w {
		if both := w[i] & v[i]; both != 0 {
			return bitset{both}.first() + 64*i
		}
	}
	return -1
}

// minuteOfWeek returns what a clock shows, from Monday 00:00. A minute that the clock shows twice is the same one both times, and one that
// it leaves out is never returned: windows are kept by the clock.
func minuteOfWeek(t time.Time, zone *time.Location) int {
	t = t.In(zone)
	hour, minute, _ := t.Clock()
	return daysSinceMonday(t.Weekday())*dayMinutes + hour*60 + minute
}

func minuteText(minute int) string {
	return fmt.Sprintf("%s %02d:%02d", dayNames[minute/dayMinutes], minute%dayMinutes/60, minute%60)
}
