package rating

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Over says over what tiers, packages and free quantities count.
type Over string

const (
	Event   Over = "event" // each line of an event alone: the default
	Hour    Over = "hour"
	Day     Over = "day"
	Week    Over = "week" // from Monday
	Month   Over = "month"
	Quarter Over = "quarter"
	Year    Over = "year"
)

var periods = []Over{Hour, Day, Week, Month, Quarter, Year}

// Period is an hour, a day, … a year of a time zone's calendar. It is named by the clock and not by an instant, so two versions of a
// card in different zones count over the same day.
type Period struct {
	Over   Over
	Day    int32 // its first day, or an hour's day: days after 1970-01-01
	Hour   int8  // of an hour, by the clock
	Offset int32 // of an hour, in seconds east of UTC: an hour that the clock shows twice is two periods
}

// periodAt returns the period of t in a zone.
func periodAt(over Over, t time.Time, zone *time.Location) Period {
	t = t.In(zone)
	y, m, d := t.Date()
	p := Period{Over: over}
	switch over {
	case Hour:
		p.Hour = int8(t.Hour())
		_, offset := t.Zone()
		p.Offset = int32(offset)
	case Week:
		d -= daysSinceMonday(t.Weekday())
	case Month:
		d = 1
	case Quarter:
		m, d = m-(m-1)%3, 1
	case Year:
		m, d = time.January, 1
	}
	seconds := time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix()
	p.Day = int32(seconds / 86_400) // exact: a day begins there
	return p
}

func daysSinceMonday(d time.Weekday) int { return (int(d) + 6) % 7 }

// Start returns when the period begins in a zone.
func (p Period) Start(zone *time.Location) time.Time {
	if p.Over == Hour {
		zone = time.FixedZone("", int(p.Offset))
	}
	return time.Date(1970, time.January, 1+int(p.Day), int(p.Hour), 0, 0, 0, zone)
}

// String writes "month/2026-03-01", and an hour as "hour/2026-03-01T14+3600".
func (p Period) String() string {
	s := string(p.Over) + "/" + time.Date(1970, time.January, 1+int(p.Day), 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
	if p.Over == Hour {
		s += fmt.Sprintf("T%02d%+d", p.Hour, p.Offset)
	}
	return s
}

// parsePeriod reads what String writes, and nothing else.
func parsePeriod(s string) (_ Period, ok bool) {
	over, rest, _ := strings.Cut(s, "/")
	if len(rest) < len(time.DateOnly) {
		return Period{}, false
	}
	day, err := time.Parse(time.DateOnly, rest[:len(time.DateOnly)])
	if err != nil {
		return Period{}, false
	}
	for _, o := range periods {
		if string(o) != over {
			continue
		}
		p := periodAt(o, day, time.UTC)
		if rest = rest[len(time.DateOnly):]; o == Hour && len(rest) > 4 {
			hour, err := strconv.ParseInt(rest[1:3], 10, 8)
			offset, fault := strconv.ParseInt(rest[3:], 10, 32)
			if err != nil || fault != nil || hour < 0 || hour > 23 || offset <= -86_400 || offset >= 86_400 {
				return Period{}, false
			}
			p.Hour, p.Offset = int8(hour), int32(offset)
		}
		return p, p.String() == s
	}
	return Period{}, false
}
