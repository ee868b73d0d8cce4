package recognition

import (
	"github.com/tallystick/tallystick/credit/ledger"
)

// Status is how far an accounting period has been closed.
type Status string

const (
	Open       Status = "open"
	SoftClosed Status = "soft_closed" // cut off; late usage still comes in
	InReview   Status = "in_review"   // an approver looks at figures that must stand still
	Closed     Status = "closed"
	Reopened   Status = "reopened"
)

// Accepts tells whether a period of this status takes new entries about what happened in it.
func (s Status) Accepts() bool { return s == Open || s == SoftClosed || s == Reopened }

// Assign chooses the period in which something is booked that happened in the period service: that one, or the earliest one after it
// that takes entries. A period that statuses does not name has never been touched; it is open, unless a later one takes no more entries: those were
// approved with what came before them. When the answer is not service itself, the
// entry is late ([ledger.Fact.Late]) and keeps its day, and so its original period.
func Assign(service ledger.Period, statuses map[ledger.Period]Status) ledger.Period {
	var last ledger.Period // that takes no entries
	for p, s := range statuses {
		if !s.Accepts() {
			last = max(last, p)
		}
	}
	p := service
	for {
		if s, known := statuses[p]; known && s.Accepts() || !known && p > last {
			return p
		}
		p = p.Next()
	}
}
