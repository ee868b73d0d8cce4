package credit

import "time"

// HoldStatus says how a hold stands.
type HoldStatus string

// An open hold holds what was neither captured nor released; the others hold nothing, and say what ended them: the last capture, a release,
// the deadline.
const (
	HoldOpen     HoldStatus = "open"
	HoldCaptured HoldStatus = "captured"
	HoldReleased HoldStatus = "released"
	HoldExpired  HoldStatus = "expired"
)

// Hold is credits set aside for work in flight. They are the held ones of its lines' grants: nothing else can take them, and they stay after
// their grants' expiry until they are captured or the hold ends.
type Hold struct {
	ID         HoldID
	CustomerID CustomerID
	MemberID   MemberID // zero: none named
	Unit       string
	Status     HoldStatus
	Amount     Amount    // ever held, extensions included
	Captured   Amount    // of it
	Released   Amount    // of it
	Extra      Amount    // captured beyond it
	ExpiresAt  time.Time // the first instant at which it holds nothing
	ServiceAt  time.Time // of the service: it chooses the card and the period of what is priced
	Rate       RateLock  // the card and version that its captures are priced at; zero: its amounts were given
	Dims       Dimensions
	Reason     string // "": none
	CreatedAt  time.Time
	Lines      []HoldLine // in the order in which they were taken
	Gates      []HoldGate // the windows of limits that they count in; only added to
}

// HoldLine is a hold's share of a grant.
type HoldLine struct {
	Grant                      GrantID
	Amount, Captured, Released Amount
}

// Left is what is still held of the grant.
func (l *HoldLine) Left() Amount { return l.Amount - l.Captured - l.Released }

// Left is what the hold still holds.
func (h *Hold) Left() Amount { return h.Amount - h.Captured - h.Released }

// Clone returns a copy that shares nothing that changes.
func (h *Hold) Clone() *Hold {
	c := *h
	c.Lines = append([]HoldLine(nil), h.Lines...)
	c.Gates = append([]HoldGate(nil), h.Gates...)
	return &c
}
