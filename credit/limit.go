package credit

import (
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
)

// LimitSubject says what of a customer's usage a limit applies to.
type LimitSubject string

const (
	LimitsCustomer  LimitSubject = "customer"  // all of it
	LimitsMember    LimitSubject = "member"    // one member's, or that of each member by itself
	LimitsDimension LimitSubject = "dimension" // that with one value of a dimension, or that with each value by itself
)

// WindowKind says over what a limit counts.
type WindowKind string

// Calendar windows are those of the legal entity's time zone; a week begins on Monday.
const (
	Total   WindowKind = "total" // from the first use on
	Minute  WindowKind = "minute"
	Hour    WindowKind = "hour"
	Day     WindowKind = "day"
	Week    WindowKind = "week"
	Month   WindowKind = "month"
	Rolling WindowKind = "rolling" // the time of a given length that ends now
)

// Slots is how many windows a rolling one is kept in. One more counts, because the oldest is never known to be out altogether: what a rolling
// limit admits in any time of its length is therefore never more than its amount, and counts for up to a sixtieth longer than its length.
const Slots = 60

// A rolling window is a whole number of minutes long, MinRolling to MaxRolling.
const (
	MinRolling = time.Minute
	MaxRolling = 31 * 24 * time.Hour
)

// Window is what a limit counts over.
type Window struct {
	Kind   WindowKind
	Length time.Duration // of a rolling one; otherwise 0
}

// CheckWindow returns an [Error] coded invalid_request unless there is such a window.
func CheckWindow(w Window) error {
	switch w.Kind {
	case Total, Minute, Hour, Day, Week, Month:
		if w.Length == 0 {
			return nil
		}
		return Errorf(InvalidRequest, "Only a rolling window has a length.")
	case Rolling:
		if w.Length >= MinRolling && w.Length <= MaxRolling && w.Length%MinRolling == 0 {
			return nil
		}
		return Errorf(InvalidRequest, "A rolling window is a whole number of minutes long, at most %d days.", MaxRolling/(24*time.Hour))
	}
	return Errorf(InvalidRequest, "There is no window %.20q.", w.Kind)
}

// Start returns when the window began in which a usage at t is counted, in UTC. Of a rolling window it is the slot's; the total began in 1970.
// An hour or a minute that the clock shows twice is two windows; a day begins with its first instant, also when the clock skips midnight.
func (w Window) Start(t time.Time, zone *time.Location) time.Time {
	switch w.Kind {
	case Total:
		return time.Unix(0, 0).UTC()
	case Rolling:
		return w.slotStart(w.slot(t))
	}
	t = t.In(zone)
	switch w.Kind {
	case Minute:
		return t.Add(-time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond())).UTC()
	case Hour:
		return t.Add(-time.Duration(t.Minute())*time.Minute - time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond())).UTC()
	}
	y, m, d := w.firstDay(t)
	return dayStart(y, m, d, zone)
}

// firstDay is the day on which a calendar window of days began.
func (w Window) firstDay(t time.Time) (int, time.Month, int) {
	y, m, d := t.Date()
	switch w.Kind {
	case Week:
		d -= (int(t.Weekday()) + 6) % 7
	case Month:
		d = 1
	}
	return y, m, d
}

// Since returns the start of the oldest window that counts at t: of a rolling one the slot before all that lie within its length, otherwise Start.
func (w Window) Since(t time.Time, zone *time.Location) time.Time {
	if w.Kind == Rolling {
		return w.slotStart(w.slot(t) - Slots)
	}
	return w.Start(t, zone)
}

// End returns the first instant after t that is in another window; of a rolling one, in another slot. The zero time: there is none.
func (w Window) End(t time.Time, zone *time.Location) time.Time {
	var end time.Time
	switch w.Kind {
	case Total:
		return time.Time{}
	case Rolling:
		return w.slotStart(w.slot(t) + 1)
	case Minute:
		end = w.Start(t, zone).Add(time.Minute)
	case Hour:
		end = w.Start(t, zone).Add(time.Hour)
	default:
		y, m, d := w.firstDay(t.In(zone))
		switch w.Kind {
		case Week:
			d += 7
		case Month:
			m++
		default:
			d++
		}
		return dayStart(y, m, d, zone)
	}
	if _, change := t.In(zone).ZoneBounds(); !change.IsZero() && change.Before(end) {
		end = change.UTC()
	}
	return end
}

func (w Window) slot(t time.Time) int64 {
	width := w.width().Microseconds()
	n := t.UnixMicro() / width
	if t.UnixMicro()%width < 0 {
		n--
	}
	return n
}

func (w Window) slotStart(n int64) time.Time {
	return time.UnixMicro(n * w.width().Microseconds()).UTC()
}

func (w Window) width() time.Duration { return w.Length / Slots }

// dayStart returns the first instant of a day in a zone, in UTC. d may lie outside its month.
func dayStart(y int, m time.Month, d int, zone *time.Location) time.Time {
	clock := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	var first, earliest time.Time
	for _, near := range [...]time.Duration{-26 * time.Hour, 0, 26 * time.Hour} {
		_, offset := clock.Add(near).In(zone).Zone()
		t := clock.Add(-time.Duration(offset) * time.Second)
		if _, o := t.In(zone).Zone(); o == offset && (first.IsZero() || t.Before(first)) {
			first = t // the clock shows midnight then
		}
		if earliest.IsZero() || t.Before(earliest) {
			earliest = t
		}
	}
	if first.IsZero() { // the clock skips midnight: the day begins when it does so
		_, first = earliest.In(zone).ZoneBounds()
	}
	return first.UTC()
}

// Limit bounds what a customer's usage may come to, or, when it is soft, tells when it comes to that much. It applies to usage of its unit.
type Limit struct {
	ID         LimitID
	CustomerID CustomerID
	Name       string
	Unit       string
	Amount     Amount // 0 admits nothing
	Soft       bool
	Subject    LimitSubject
	Member     MemberID // of LimitsMember; zero: each
	Dimension  string   // of LimitsDimension
	Value      string   // of it; "": each
	Wallet     WalletID // only what is drawn from this wallet counts; zero: everything does
	Scope      Scope    // only usage that matches it counts
	Window     Window
	WarnAt     []int // percent of the amount, 1 to 99, ascending; nil: none
	CreatedAt  time.Time
	CreatedVer int64     // the customer's operation that made it: it counts those after it
	EndedAt    time.Time // zero: it is in force
	EndedVer   int64
}

// Of returns the subject for which a limit counts a usage: "" for a customer, the [MemberSubject] of the member, the value of the dimension. It is false when the limit
// does not apply to the usage, such as one that names no member. The wallet is not looked at.
func (l *Limit) Of(unit string, member MemberID, d Dimensions) (string, bool) {
	if l.Unit != unit || !l.Scope.Matches(d) {
		return "", false
	}
	switch l.Subject {
	case LimitsMember:
		if member.IsZero() || !l.Member.IsZero() && l.Member != member {
			return "", false
		}
		return MemberSubject(member), true
	case LimitsDimension:
		v, ok := d[l.Dimension]
		return v, ok && (l.Value == "" || l.Value == v)
	}
	return "", true
}

// MemberSubject is a member as the subject of a limit: its UUID.
func MemberSubject(m MemberID) string { return uuid.UUID(m).String() }

// SubjectMember reads what MemberSubject wrote; any other text is the zero id.
func SubjectMember(s string) MemberID {
	id, err := uuid.Parse(s)
	if err != nil {
		return MemberID{}
	}
	return MemberID(id)
}

// One returns the only subject that a limit has, or false when it has one for each member or value.
func (l *Limit) One() (string, bool) {
	switch {
	case l.Subject == LimitsMember:
		return MemberSubject(l.Member), !l.Member.IsZero()
	case l.Subject == LimitsDimension:
		return l.Value, l.Value != ""
	}
	return "", true
}

// LimitWindow is what was taken in one window of a limit by one subject.
type LimitWindow struct {
	Start      time.Time
	Used, Held Amount // consumed; set aside by holds that are open
	Carried    Amount // of a rolling window: what the slots before it that still counted had when it was last taken from
	Bound      Amount // what Carried, Used and Held must not exceed together: the limit's amount, or what was taken when it was lowered
	Soft       bool   // it is not bounded: the limit is soft
	Told       int    // the highest threshold that was told of, percent
}

// Gate is a limit as it stands for one subject at an instant.
type Gate struct {
	Limit      *Limit
	Subject    string
	Start      time.Time // of the window in which it counts now
	Used, Held Amount    // in the windows that count now
	Carried    Amount    // of it, in slots before Start
	Told       int
	ResetsAt   time.Time // when the window ends; of a rolling one, when the first of what counts now no longer does; zero: never, or nothing counts
}

// At returns how a limit stands at t, given the windows of a subject from [Window.Since] on.
func (l *Limit) At(t time.Time, zone *time.Location, subject string, windows []LimitWindow) Gate {
	g := Gate{Limit: l, Subject: subject, Start: l.Window.Start(t, zone)}
	since := l.Window.Since(t, zone)
	for i := range windows {
		w := &windows[i]
		if w.Start.Before(since) || w.Start.After(g.Start) || l.Window.Kind != Rolling && !w.Start.Equal(g.Start) {
			continue
		}
		g.Used, g.Held, g.Told = g.Used+w.Used, g.Held+w.Held, max(g.Told, w.Told)
		if w.Start.Before(g.Start) {
			g.Carried += w.Used + w.Held
		}
		if l.Window.Kind == Rolling && g.ResetsAt.IsZero() && w.Used+w.Held > 0 {
			g.ResetsAt = l.Window.Leaves(w.Start)
		}
	}
	if l.Window.Kind != Rolling {
		g.ResetsAt = l.Window.End(t, zone)
	}
	return g
}

// Leaves returns when a slot of a rolling window no longer counts.
func (w Window) Leaves(start time.Time) time.Time { return start.Add((Slots + 1) * w.width()) }

// Left returns what a limit still admits; of a soft one, what is left until it is reached.
func (g *Gate) Left() Amount { return max(0, g.Limit.Amount-g.Used-g.Held) }

// Bounds tells whether the gate bounds what is drawn from a wallet.
func (g *Gate) Bounds(wallet WalletID) bool {
	return !g.Limit.Soft && (g.Limit.Wallet.IsZero() || g.Limit.Wallet == wallet)
}

// FreeAt returns when the limit admits an amount if nothing more is taken until then, given the windows that [Limit.At] was given: t when it does now. The zero time:
// never, because the window is the total or the amount is more than the limit's.
func (g *Gate) FreeAt(t time.Time, windows []LimitWindow, amount Amount) time.Time {
	switch {
	case amount <= g.Left():
		return t
	case amount > g.Limit.Amount:
		return time.Time{}
	case g.Limit.Window.Kind != Rolling:
		return g.ResetsAt
	}
	left := g.Limit.Amount - g.Used - g.Held // below 0 after the limit was lowered
	for i := range windows {
		w := &windows[i]
		leaves := g.Limit.Window.Leaves(w.Start)
		if !leaves.After(t) {
			continue
		}
		if left += w.Used + w.Held; left >= amount {
			return leaves
		}
	}
	return time.Time{}
}

// Percent returns how much of the limit an amount is, 0 to 100, rounded down.
func (l *Limit) Percent(taken Amount) int {
	if taken >= l.Amount {
		return 100
	}
	return int(taken * 100 / l.Amount)
}

// Crossed returns the thresholds, ascending and 100 for the limit itself, that lie above what was told and that what is taken has come to.
func (g *Gate) Crossed() []int {
	var crossed []int
	for _, percent := range append(slices.Clone(g.Limit.WarnAt), 100) {
		if percent > g.Told && g.Limit.Percent(g.Used+g.Held) >= percent {
			crossed = append(crossed, percent)
		}
	}
	return crossed
}

// rooms is what gates leave while grants are drawn from.
type rooms struct {
	gates []Gate
	left  []Amount
}

func newRooms(gates []Gate) rooms {
	r := rooms{gates: gates}
	if len(gates) > 0 {
		r.left = make([]Amount, len(gates))
		for i := range gates {
			r.left[i] = gates[i].Left()
		}
	}
	return r
}

// of returns what may still be drawn from a wallet, and the place of the gate that bounds it, counted from 1: the least left; of several one on the
// whole usage, then the first. 0: none does.
func (r *rooms) of(wallet WalletID) (room Amount, by int) {
	room = math.MaxInt64
	for i := range r.gates {
		g := &r.gates[i]
		if g.Bounds(wallet) && (r.left[i] < room || r.left[i] == room && g.Limit.Wallet.IsZero() && !r.gates[by-1].Limit.Wallet.IsZero()) {
			room, by = r.left[i], i+1
		}
	}
	return room, by
}

// whole returns the place of the gate on the whole usage that admits least of it, and how much; 0: there is none.
func (r *rooms) whole() (by int, left Amount) {
	for i := range r.gates {
		g := &r.gates[i]
		if g.Limit.Wallet.IsZero() && !g.Limit.Soft && (by == 0 || g.Left() < left) {
			by, left = i+1, g.Left()
		}
	}
	return by, left
}

func (r *rooms) take(wallet WalletID, n Amount) {
	for i := range r.gates {
		if r.gates[i].Bounds(wallet) {
			r.left[i] -= n
		}
	}
}

// CheckLimit returns an [Error] coded invalid_request or invalid_amount unless the terms of a limit make sense by themselves.
func CheckLimit(l *Limit) error {
	if l.Amount < 0 || l.Amount > MaxAmount {
		return Errorf(InvalidAmount, "A limit is 0 to %d steps of its unit.", MaxAmount)
	}
	if err := CheckWindow(l.Window); err != nil {
		return err
	}
	if err := CheckScope(l.Scope); err != nil {
		return err
	}
	switch l.Subject {
	case LimitsCustomer, LimitsMember, LimitsDimension:
	default:
		return Errorf(InvalidRequest, "A limit applies to the customer, a member or a dimension.")
	}
	if !l.Member.IsZero() && l.Subject != LimitsMember || (l.Dimension != "") != (l.Subject == LimitsDimension) || l.Value != "" && l.Dimension == "" {
		return Errorf(InvalidRequest, "A limit on a member names a member or none, one on a dimension the dimension and a value or none, and no other has either.")
	}
	if l.Dimension != "" && !word(l.Dimension) || l.Value != "" && !word(l.Value) {
		return Errorf(InvalidRequest, "The dimension %.40q=%.40q is longer than %d bytes or has unprintable characters.", l.Dimension, l.Value, maxWordLen)
	}
	return CheckWarnAt(l.WarnAt)
}

// maxWarnings bounds the thresholds of a limit.
const maxWarnings = 10

// CheckWarnAt returns an [Error] coded invalid_request unless the thresholds are at most 10 whole percentages from 1 to 99, ascending.
func CheckWarnAt(percents []int) error {
	last := 0
	for _, p := range percents {
		if p <= last || p > 99 {
			last = 100
			break
		}
		last = p
	}
	if last == 100 || len(percents) > maxWarnings {
		return Errorf(InvalidRequest, "There are at most %d thresholds, whole percentages from 1 to 99, ascending.", maxWarnings)
	}
	return nil
}

// HoldGate is a window from which a hold has taken: what its lines From to To (not included) hold of the wallet, or of all when that is zero.
type HoldGate struct {
	Limit    LimitID
	Subject  string
	Start    time.Time
	Wallet   WalletID
	From, To int
}
