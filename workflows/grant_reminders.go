package workflows

import (
	"time"

	"github.com/tallystick/tallystick/activities"
)

// reminderDays are how many days before an expiry its customer is told of it, the earliest first.
var reminderDays = [...]int{30, 7, 1}

// reminders remembers which reminders of an expiry are behind.
type reminders struct {
	ExpiresAt time.Time `json:"expires_at,omitzero"` // what they are about; zero: no expiry
	Since     time.Time `json:"since,omitzero"`      // since when that is the expiry: what was due before is not made up for
	Told      int       `json:"told,omitempty"`      // days of the last one sent; 0: none yet
}

// learn begins anew when the expiry is another one.
func (r *reminders) learn(now time.Time, f activities.GrantFacts) {
	if !r.ExpiresAt.Equal(f.ExpiresAt) {
		since := now
		if r.Since.IsZero() {
			since = f.CreatedAt
		}
		*r = reminders{ExpiresAt: f.ExpiresAt, Since: since}
	}
	if f.IssuedAt.After(r.Since) {
		r.Since = f.IssuedAt
	}
}

// next returns the reminder to send next and when: of those that are due the last one, else the first to come. days is 0 when there is
// none.
func (r *reminders) next(now time.Time) (days int, at time.Time) {
	if !now.Before(r.ExpiresAt) {
		return 0, time.Time{}
	}
	for _, d := range reminderDays {
		t := r.ExpiresAt.Add(-time.Duration(d) * 24 * time.Hour)
		if !t.After(r.Since) || r.Told != 0 && d >= r.Told {
			continue
		}
		if days == 0 || !t.After(now) {
			days, at = d, t
		}
	}
	return days, at
}
