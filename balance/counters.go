package balance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

// counters are what rate cards have counted for a customer, as far as somebody has asked: a key that is there was read, and the zero counter
// says that nothing has been counted. They are part of the customer's version, like its grants: whoever changes one does so by an operation.
type counters map[rating.CounterKey]rating.Counter

// maxCounters bounds how many a snapshot remembers of one customer; with more it forgets all of them.
const maxCounters = 256

// Counter makes a customer a [rating.State]. A key that is not known yet is noted, and the price that comes of it must not be used.
func (c *customer) Counter(k rating.CounterKey) rating.Counter {
	v, known := c.counted[k]
	if !known {
		c.missing = append(c.missing, k)
	}
	return v
}

// count takes in what a usage changed, by the operation ver.
func (c *customer) count(changes []rating.Change, ver int64) {
	if len(changes) == 0 {
		return
	}
	if c.recount == nil {
		c.recount = make(map[rating.CounterKey]int64)
		c.counted = maps.Clone(c.counted)
	}
	for _, ch := range changes {
		c.counted[ch.Key] = ch.Counter
		c.recount[ch.Key] = ver
	}
}

// counterRows are the counters that the batch has changed, in order of key.
func (c *customer) counterRows(rows []db.CounterRow) []db.CounterRow {
	for _, k := range slices.SortedFunc(maps.Keys(c.recount), rating.CounterKey.Compare) {
		rows = append(rows, db.CounterRow{Customer: c.id, Key: k.String(), Value: c.counted[k].String(), Ver: c.recount[k]})
	}
	return rows
}

// remembered are the counters that the next snapshot has.
func (c *customer) remembered() counters {
	if len(c.counted) > maxCounters {
		return nil
	}
	return c.counted
}

// want is a decision that cannot be made before more of the customer has been read. Nothing was changed.
type want struct {
	counters []rating.CounterKey
	drawn    string         // a unit: the grants that something of it was drawn from
	refunded credit.GrantID // what was refunded of a grant
	recorded int64          // an operation as it was recorded
	disputes credit.GrantID // the disputes of a grant
	windows  []db.WindowRef
	zone     bool // of the legal entity
	member   credit.MemberID
}

func (*want) Error() string { return "more of the customer must be read first" }

// foresee reads in one round trip what the batch's usages will ask their customers for.
func (b *batch) foresee(ctx context.Context, jobs []*job) error {
	book := b.lane.svc.Books()
	if !book.AnyStateful() {
		return nil
	}
	asked := make(map[credit.CustomerID]*want)
	for _, j := range jobs {
		var o *Consume
		lines := []([]rating.Line){nil}
		switch op := j.op.(type) {
		case *Consume:
			o, lines[0] = op, op.Usage
		case *Quote:
			o, lines[0] = &op.Consume, op.Usage
			lines = append(lines, op.Maximum)
		}
		if o == nil {
			continue
		}
		c := b.customers[o.Customer]
		if c == nil {
			continue
		}
		for _, usage := range lines {
			for _, k := range c.keys(book, o, usage) {
				if _, known := c.counted[k]; known {
					continue
				}
				if asked[c.id] == nil {
					asked[c.id] = &want{}
				}
				asked[c.id].counters = append(asked[c.id].counters, k)
			}
		}
	}
	return b.fetchCounters(ctx, asked)
}

// keys are the counters that pricing a usage asks for, under the customer's card and under what its grants are locked to. What cannot be priced
// has none.
func (c *customer) keys(book *rating.Book, o *Consume, lines []rating.Line) []rating.CounterKey {
	if len(lines) == 0 {
		return nil
	}
	usage := rating.Usage{At: o.serviceAt(c.at), Lines: lines, Dims: o.Dims}
	card := c.card(o.Member, usage.At)
	var keys []rating.CounterKey
	if book.Stateful(card) {
		keys, _ = book.Keys(card, 0, usage)
	}
	for _, g := range c.grants {
		if lock := g.Lock(); lock.Version != 0 {
			of := lock.Card
			if of.IsZero() {
				of = card
			}
			if book.Stateful(of) {
				more, _ := book.Keys(of, lock.Version, usage)
				keys = append(keys, more...)
			}
		}
	}
	return keys
}

// fetch reads what a decision wants.
func (b *batch) fetch(ctx context.Context, c *customer, w *want) error {
	if w.drawn != "" {
		return b.fetchDrawn(ctx, c, w.drawn)
	}
	if !w.disputes.IsZero() {
		rows, err := b.lane.conn.Disputes(ctx, w.disputes)
		if c.disputes == nil {
			c.disputes = make(map[credit.GrantID][]*db.DisputeRow)
		}
		c.disputes[w.disputes] = rows
		return err
	}
	if w.recorded > 0 {
		return b.fetchRecorded(ctx, c, w.recorded)
	}
	switch {
	case len(w.windows) > 0:
		return b.fetchWindows(ctx, c, w.windows)
	case w.zone:
		zone, err := b.lane.conn.Zone(ctx, c.id)
		c.zone = zone
		return err
	case !w.member.IsZero():
		m, err := b.lane.conn.Member(ctx, c.id, w.member)
		if c.members == nil {
			c.members = make(map[credit.MemberID]*db.MemberRow)
		}
		c.members[w.member] = m
		return err
	}
	if w.refunded.IsZero() {
		return b.fetchCounters(ctx, map[credit.CustomerID]*want{c.id: w})
	}
	r, err := b.lane.conn.Refunded(ctx, w.refunded)
	if c.refunded == nil {
		c.refunded = make(map[credit.GrantID]db.Refunded)
	}
	c.refunded[w.refunded] = r
	return err
}

func (b *batch) fetchCounters(ctx context.Context, asked map[credit.CustomerID]*want) error {
	if len(asked) == 0 {
		return nil
	}
	var refs []db.CounterRef
	for id, w := range asked {
		slices.SortFunc(w.counters, rating.CounterKey.Compare)
		w.counters = slices.Compact(w.counters)
		for _, k := range w.counters {
			refs = append(refs, db.CounterRef{Customer: id, Key: k.String()})
		}
	}
	have, err := b.lane.conn.Counters(ctx, refs)
	if err != nil {
		return err
	}
	for id, w := range asked {
		c := b.customers[id]
		c.counted = maps.Clone(c.counted) // the snapshot's own is not changed
		if c.counted == nil {
			c.counted = make(counters, len(w.counters))
		}
		for _, k := range w.counters {
			v, err := rating.ParseCounter(have[db.CounterRef{Customer: id, Key: k.String()}])
			if err != nil {
				b.lane.conn.Close()
				return fmt.Errorf("read counter %s of customer %s: %w", k, id, err)
			}
			c.counted[k] = v
		}
		c.missing = nil
	}
	return nil
}

// fetchDrawn reads the customer's grants of a unit that something is consumed of, the one drawn last first, as committed.
func (b *batch) fetchDrawn(ctx context.Context, c *customer, unit string) error {
	grants, err := b.lane.conn.Drawn(ctx, c.id, unit)
	if err != nil {
		return err
	}
	order := make([]credit.GrantID, 0, len(grants))
	c.meet(grants)
	for _, g := range grants {
		order = append(order, g.ID)
	}
	if c.drawn == nil {
		c.drawn = make(map[string][]credit.GrantID)
	}
	c.drawn[unit] = order
	return nil
}

// fetchRecorded reads an operation as it was recorded, with the grants that it drew from.
func (b *batch) fetchRecorded(ctx context.Context, c *customer, ver int64) error {
	r, err := b.lane.conn.Recorded(ctx, c.id, ver)
	if err != nil {
		return err
	}
	if r != nil {
		c.meet(r.Grants)
	}
	if c.recorded == nil {
		c.recorded = make(map[int64]*db.Recorded)
	}
	c.recorded[ver] = r
	return nil
}

// meet makes grants known that are not open.
func (c *customer) meet(grants []*credit.Grant) {
	for _, g := range grants {
		g.Wallet = c.wallets[g.Wallet.ID]
		if _, err := c.find(g.ID); err != nil {
			if c.others == nil {
				c.others = make(map[credit.GrantID]*credit.Grant)
			}
			c.others[g.ID] = g
		}
	}
}

// lastDrawn are the grants of a unit that something was drawn from, the last first: by this batch up to now, then as committed before it. What the
// batch has drawn since the committed ones were read counts too.
func (d *decision) lastDrawn(unit string, committed []credit.GrantID) []credit.GrantID {
	var order []credit.GrantID
	for i := len(d.changes.Movements) - 1; i >= 0; i-- {
		m := &d.changes.Movements[i]
		if t := d.c.touched[m.Grant]; t != nil && m.Credit == "consumed" && t.now.Wallet.Unit == unit {
			order = append(order, m.Grant)
		}
	}
	order = append(order, committed...)
	seen := make(map[credit.GrantID]bool, len(order))
	return slices.DeleteFunc(order, func(id credit.GrantID) bool {
		was := seen[id]
		seen[id] = true
		return was
	})
}

// serviceAt is when the service was given, at being the customer's time.
func (o *Consume) serviceAt(at time.Time) time.Time {
	if o.At.IsZero() {
		return at
	}
	return o.At.UTC().Truncate(time.Microsecond)
}

// sumOf is what draws come to.
func sumOf(draws []credit.Draw) (sum credit.Amount) {
	for _, d := range draws {
		sum += d.Amount
	}
	return sum
}

// giveBack returns consumed credits to the grants that they were drawn from, the one drawn last first. What comes back to a grant that has
// expired meanwhile is breakage at once. It returns what went to which grant, less than the amount only when less was ever drawn.
func (d *decision) giveBack(unit string, amount credit.Amount) (returned []credit.Draw, err error) {
	c := d.c
	committed, known := c.drawn[unit]
	if !known {
		return nil, &want{drawn: unit}
	}
	for _, id := range d.lastDrawn(unit, committed) {
		g, err := c.find(id)
		if err != nil {
			return nil, err
		}
		take := min(g.Consumed, amount)
		if take == 0 || g.Status != credit.StatusOpen && g.Status != credit.StatusDepleted && g.Status != credit.StatusExpired {
			continue
		}
		g = d.restore(g, take)
		returned = append(returned, credit.Draw{Grant: g, Amount: take})
		if amount -= take; amount == 0 {
			break
		}
	}
	return returned, nil
}

// restore returns consumed credits to their grant, of which they are breakage at once when it has expired meanwhile, and returns the batch's copy of it.
func (d *decision) restore(g *credit.Grant, amount credit.Amount) *credit.Grant {
	g = d.c.edit(g, false)
	g.Consumed -= amount
	g.Available += amount
	d.move(g, "consumed", "available", amount)
	switch {
	case g.Status == credit.StatusExpired || g.PastExpiry(d.c.at) && !g.Frozen:
		d.expireReturned(g, amount)
	case g.Status == credit.StatusDepleted || g.Status == credit.StatusRefunded:
		d.c.reopen(g)
		d.grantEvent("reopened", d.describe(g))
		d.changes.Outbox = append(d.changes.Outbox, startOf(d.c.id, g.ID))
	}
	return g
}

// expireReturned books credits that came back after their grant's expiry.
func (d *decision) expireReturned(g *credit.Grant, amount credit.Amount) {
	g.Available -= amount
	g.Expired += amount
	d.move(g, "available", "expired", amount)
	if g.Status == credit.StatusDepleted {
		g.Status = credit.StatusExpired
	}
}

// reopen lets a depleted grant serve again.
func (c *customer) reopen(g *credit.Grant) {
	g.Status = credit.StatusOpen
	g.Wallet = c.wallets[g.Wallet.ID] // which may have changed since the grant was open
	if !slices.Contains(c.grants, g) {
		c.ownGrants()
		c.grants = append(c.grants, g)
	}
	c.unsorted = true
}

// rates are the exchange rates as the rate engine asks for them.
type rates struct{ table *fx.Table }

// Rate implements [rating.Rates].
func (r rates) Rate(from, to string, at time.Time) (rating.FX, error) {
	u, err := r.table.Rate(from, to, at)
	if err != nil {
		return rating.FX{}, err
	}
	return rating.FX{Rate: u.Rate, Source: u.Source, On: u.On.Format(time.DateOnly)}, nil
}
