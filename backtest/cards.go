package backtest

import (
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

type (
	// Card is a rate card with everything that was ever published of it.
	Card struct {
		ID       credit.RateCardID
		Code     string
		Unit     credit.Unit
		Default  bool
		Versions []Version
	}
	// Version is a version with when it became known, and when it was taken back (zero: never). An event is priced by what was known when it was
	// decided: a version that was published with an earlier instant has not changed what had been charged by then.
	Version struct {
		rating.Version
		PublishedAt, WithdrawnAt time.Time
	}
	// Trial puts a document in the place of what is in force of a card from an instant on.
	Trial struct {
		Card     credit.RateCardID // zero: nothing is put in the place of anything
		Document *rating.Document
		From     time.Time
	}
)

// Cards are the rate cards at every instant of the past, with the trial in its place. They may be used by any number of goroutines.
type Cards struct {
	cards   []Card
	trial   Trial
	changes []time.Time // when something was published or withdrawn, ascending, each once

	mu    sync.Mutex
	books map[int]*rating.Book // by how many changes there had been; made when they are asked for
}

// keptBooks bounds how many books are kept: a period with more changes makes some of them again.
const keptBooks = 64

// NewCards compiles cards. It refuses a trial as publishing it would be: see [rating.Book.CheckPublish].
func NewCards(cards []Card, trial Trial) (*Cards, error) {
	all := &Cards{cards: cards, trial: trial, books: make(map[int]*rating.Book)}
	for _, c := range cards {
		for _, v := range c.Versions {
			all.changes = append(all.changes, v.PublishedAt)
			if !v.WithdrawnAt.IsZero() {
				all.changes = append(all.changes, v.WithdrawnAt)
			}
		}
	}
	slices.SortFunc(all.changes, time.Time.Compare)
	all.changes = slices.CompactFunc(all.changes, time.Time.Equal)
	if !trial.Card.IsZero() {
		newest, err := rating.NewBook(0, known(cards, never, Trial{}))
		if err != nil {
			return nil, err
		}
		if err := newest.CheckPublish(trial.Card, trial.Document); err != nil {
			return nil, err
		}
	}
	_, _, err := all.at(never)
	return all, err
}

// at returns the cards as they were known at an instant, and until when they were.
func (c *Cards) at(t time.Time) (*rating.Book, time.Time, error) {
	n := sort.Search(len(c.changes), func(i int) bool { return c.changes[i].After(t) })
	until := never
	if n < len(c.changes) {
		until = c.changes[n]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.books[n]; b != nil {
		return b, until, nil
	}
	b, err := rating.NewBook(0, known(c.cards, t, c.trial))
	if err != nil && !c.trial.Card.IsZero() {
		b, err = rating.NewBook(0, known(c.cards, t, Trial{})) // what the trial extends was not there yet
	}
	if err != nil {
		return nil, until, err
	}
	if len(c.books) >= keptBooks {
		for victim := range c.books { // any one will do
			delete(c.books, victim)
			break
		}
	}
	c.books[n] = b
	return b, until, nil
}

// never is when a version comes into force that the trial has taken the place of. Grants that are locked to it still find it.
var never = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// known are the cards as they were published at an instant.
func known(cards []Card, at time.Time, trial Trial) []rating.CardVersions {
	out := make([]rating.CardVersions, len(cards))
	for i, c := range cards {
		out[i] = rating.CardVersions{ID: c.ID, Code: c.Code, Unit: c.Unit, Default: c.Default}
		number := 0
		for _, v := range c.Versions {
			number = max(number, v.Number)
			if v.PublishedAt.After(at) || !v.WithdrawnAt.IsZero() && !v.WithdrawnAt.After(at) {
				continue
			}
			if c.ID == trial.Card && !v.EffectiveAt.Before(trial.From) {
				v.EffectiveAt = never
			}
			out[i].Versions = append(out[i].Versions, v.Version)
		}
		if c.ID == trial.Card {
			out[i].Versions = append(out[i].Versions, rating.Version{Number: number + 1, EffectiveAt: trial.From, Doc: trial.Document})
		}
	}
	return out
}

// lengths are how long a period lasts at most, with the change of clocks.
var lengths = map[rating.Over]time.Duration{
	rating.Hour: 2 * time.Hour, rating.Day: 26 * time.Hour, rating.Week: 8 * 24 * time.Hour, rating.Month: 32 * 24 * time.Hour,
	rating.Quarter: 93 * 24 * time.Hour, rating.Year: 367 * 24 * time.Hour,
}

// CountFrom returns from when on a customer's consumptions must be given to [Customer.Count], so that the counters are right for events
// that are decided from an instant on and are maxAge old at most. The instant itself: nothing counts. The zero time: from the first one, for what
// rounding leaves is carried on for as long as a version lives.
func CountFrom(cards []Card, from time.Time, maxAge time.Duration) time.Time {
	var longest time.Duration
	for _, c := range cards {
		for _, v := range c.Versions {
			if v.Doc.Rounding == rating.RoundCarry {
				return time.Time{}
			}
			for i := range v.Doc.Rates {
				longest = max(longest, lengths[v.Doc.Rates[i].Over])
			}
		}
	}
	if longest == 0 {
		return from
	}
	return from.Add(-maxAge - longest - 24*time.Hour)
}
