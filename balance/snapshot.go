package balance

import (
	"slices"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// snapshot is a customer's committed state at one version of one epoch. It is never changed once made, its grants neither.
type snapshot struct {
	epoch    string
	ver      int64
	at       time.Time // of the newest operation
	seen     time.Time // when this was the newest version, by this process's clock; zero for what is never cached
	entity   string    // the customer's
	currency string    // of that
	cards    cards
	wallets  map[credit.WalletID]*credit.Wallet
	grants   []*credit.Grant // open, in draw-down order
	counted  counters        // those that were asked for
	limits   *limits         // nil: the customer has never had any

	// For the cache; zero in a snapshot that is not brought there.
	asOf        time.Time // by the clock of Postgres
	form        *form     // what the cache has of it that amounts do not change
	amountsOnly bool      // nothing but amounts has changed since the version before
}

// form is the part of a cached customer that stays the same while only amounts change, and so is written once.
type form struct {
	shape  string // names it
	fields []any  // n, m, s and the i fields, as load.lua takes them
	until  int64  // x: the instant at which another grant begins or ends to count, microseconds; -1: never
}

// passed tells whether time alone has changed the form by t.
func (f *form) passed(t time.Time) bool { return f.until >= 0 && t.UnixMicro() >= f.until }

func newSnapshot(epoch string, h db.Head, s *db.CustomerState) *snapshot {
	slices.SortFunc(s.Grants, credit.CompareDrawOrder)
	snap := &snapshot{epoch: epoch, ver: h.Ver, at: h.LastAt, entity: s.Entity, currency: s.Currency, cards: cards{s.RateCard, s.Assignments}, wallets: s.Wallets, grants: s.Grants}
	if s.Gates != nil {
		snap.limits = &limits{terms: s.Gates}
	}
	return snap
}

// cards are what prices a customer's usage. Their slice is shared and never changed.
type cards struct {
	own      credit.RateCardID // of events at which none is assigned; zero: the default card
	assigned []db.Assignment   // by From; their ranges do not overlap
}

// at returns the card of an event at t; zero: the default card.
func (c *cards) at(t time.Time) credit.RateCardID {
	for i := len(c.assigned) - 1; i >= 0; i-- {
		if a := &c.assigned[i]; !t.Before(a.From) && (a.To.IsZero() || t.Before(a.To)) {
			return a.Card
		}
	}
	return c.own
}

// available sums what a customer has in a unit, overage and what has expired by t not counted.
func available(grants []*credit.Grant, unit string, t time.Time) credit.Amount {
	var sum credit.Amount
	for _, g := range grants {
		if g.Wallet.Unit == unit && countsAsAvailable(g, t) {
			sum += g.Available
		}
	}
	return sum
}

// countsAsAvailable tells whether a grant's credits are part of a balance at t: effective, not over, not frozen, and credits
// rather than permission to overdraw.
func countsAsAvailable(g *credit.Grant, t time.Time) bool {
	return g.Status == credit.StatusOpen && !g.Frozen && g.Type != credit.Overage && !t.Before(g.EffectiveAt) && !g.PastExpiry(t)
}

// snapshots remembers a lane's customers. It belongs to one goroutine.
type snapshots struct {
	byCustomer map[credit.CustomerID]*snapshot
	limit      int
}

func newSnapshots(limit int) *snapshots {
	return &snapshots{byCustomer: make(map[credit.CustomerID]*snapshot), limit: limit}
}

func (s *snapshots) get(c credit.CustomerID) *snapshot { return s.byCustomer[c] }

func (s *snapshots) put(c credit.CustomerID, snap *snapshot) {
	if _, ok := s.byCustomer[c]; !ok && len(s.byCustomer) >= s.limit {
		for victim := range s.byCustomer { // any one will do: what is missing is read again
			delete(s.byCustomer, victim)
			break
		}
	}
	s.byCustomer[c] = snap
}

func (s *snapshots) drop(c credit.CustomerID) { delete(s.byCustomer, c) }
