package balance

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// CreateLimit bounds what of a customer's usage there may be. Limit.CustomerID, CreatedAt and EndedAt are filled in here. It is refused with wallet_not_found,
// already_exists (another limit in force has the name) and invalid_request. The receipt is the JSON of a [LimitDocument], as for the two below.
type CreateLimit struct {
	Header
	Limit credit.Limit
}

// UpdateLimit changes a limit from now on, also in the windows that have begun: what was taken in them stays. nil leaves a field. It is refused with
// limit_not_found, also when it has ended, and already_exists.
type UpdateLimit struct {
	Header
	Limit  credit.LimitID
	Name   *string
	Amount *credit.Amount
	WarnAt *[]int
	Reason string
}

// EndLimit ends a limit for good.
type EndLimit struct {
	Header
	Limit credit.LimitID
}

// UpdateMember changes a member's name, what it may use and what prices it; nil leaves a field. It is refused with member_not_found. The receipt is the JSON of a
// [MemberDocument].
type UpdateMember struct {
	Header
	Member credit.MemberID
	Name   *string
	Active *bool // false: nothing
	Scope  *credit.Scope
	Card   *credit.RateCardID // of its own; zero: none
	Reason string
}

// ReadMember changes nothing and answers with what a member can use at this moment; it needs no key. The receipt is the JSON of a
// [MemberBalanceDocument].
type ReadMember struct {
	Header
	Member credit.MemberID
}

// maxLimits bounds the limits that a customer has at a time, each of which is looked at for every usage.
const maxLimits = 100

// maxGauges bounds the subjects of limits that a snapshot remembers; with more it forgets all of them.
const maxGauges = 1024

// gaugeKey names a subject of a limit.
type gaugeKey struct {
	limit   credit.LimitID
	subject string
}

// gauge is what is known of a subject's windows. A window that began at or after since and is not there has nothing taken: whoever takes something does so
// by an operation of the customer.
type gauge struct {
	since   time.Time
	windows []credit.LimitWindow // by start
}

type gauges map[gaugeKey]*gauge

// windowKey names a window.
type windowKey struct {
	gaugeKey
	start int64 // microseconds
}

func (k windowKey) compare(l windowKey) int {
	return cmp.Or(slices.Compare(k.limit[:], l.limit[:]), cmp.Compare(k.subject, l.subject), cmp.Compare(k.start, l.start))
}

// limits are a customer's limits with what is known of their windows. They are never changed once a snapshot has them.
type limits struct {
	terms *db.CustomerGates
	known gauges
}

// gated is what a batch does to the limits of a customer that has, or has had, some.
type gated struct {
	limits                                // terms are replaced, known is the batch's own once owned is there
	owned   map[gaugeKey]bool             // gauges that are this batch's own
	changed map[windowKey]db.WindowChange // windows as they were before the batch; what they have come to is in known
	bound   map[credit.LimitID]bool       // limits whose amount the batch has changed
	fresh   bool                          // the snapshot does not know all that is known
	missing []db.WindowRef
}

// ownAll makes the map of gauges the batch's own.
func (x *gated) ownAll() {
	if x.owned != nil {
		return
	}
	x.owned = make(map[gaugeKey]bool)
	if x.known = maps.Clone(x.known); x.known == nil {
		x.known = make(gauges)
	}
}

// own makes a gauge the batch's own, and returns it.
func (x *gated) own(k gaugeKey) *gauge {
	x.ownAll()
	g := x.known[k]
	if !x.owned[k] {
		x.owned[k] = true
		mine := *g
		mine.windows = slices.Clone(g.windows)
		x.known[k], g = &mine, &mine
	}
	return g
}

// reaches tells whether the windows from an instant on are known; if not they are noted as missing.
func (x *gated) reaches(k gaugeKey, since time.Time) bool {
	if g := x.known[k]; g != nil && !g.since.After(since) {
		return true
	}
	x.missing = append(x.missing, db.WindowRef{Limit: k.limit, Subject: k.subject, Since: since})
	return false
}

// wanted is a [want] of what is missing; nil: nothing is.
func (x *gated) wanted() error {
	if len(x.missing) == 0 {
		return nil
	}
	w := &want{windows: x.missing}
	x.missing = nil
	return w
}

// gates returns the limits that apply to a usage as they stand; nil when there are none.
func (c *customer) gates(unit string, member credit.MemberID, dims credit.Dimensions) ([]credit.Gate, error) {
	if c.limits == nil {
		return nil, nil
	}
	x := c.limits
	var out []credit.Gate
	for _, l := range x.terms.Limits {
		subject, applies := l.Of(unit, member, dims)
		if !applies {
			continue
		}
		k := gaugeKey{l.ID, subject}
		if x.reaches(k, l.Window.Since(c.at, x.terms.Zone)) {
			out = append(out, l.At(c.at, x.terms.Zone, subject, x.known[k].windows))
		}
	}
	return out, x.wanted()
}

// touch makes the window at a place of the batch's own gauge one that is to be written.
func (x *gated) touch(k gaugeKey, w *credit.LimitWindow, isNew bool) *credit.LimitWindow {
	key := windowKey{k, w.Start.UnixMicro()}
	if _, touched := x.changed[key]; !touched {
		if x.changed == nil {
			x.changed = make(map[windowKey]db.WindowChange)
		}
		x.changed[key] = db.WindowChange{New: isNew, BeforeUsed: w.Used, BeforeHeld: w.Held}
	}
	return w
}

// window returns a window of a gauge that reaches it, to be changed; nil when nothing was taken in it.
func (x *gated) window(k gaugeKey, start time.Time) *credit.LimitWindow {
	g := x.own(k)
	if i, found := g.find(start); found {
		return x.touch(k, &g.windows[i], false)
	}
	return nil
}

// begin is window for a gate that something is taken from.
func (x *gated) begin(gate *credit.Gate) *credit.LimitWindow {
	k := gaugeKey{gate.Limit.ID, gate.Subject}
	if w := x.window(k, gate.Start); w != nil {
		w.Carried = gate.Carried
		return w
	}
	g := x.own(k)
	i, _ := g.find(gate.Start)
	g.windows = slices.Insert(g.windows, i, credit.LimitWindow{Start: gate.Start, Carried: gate.Carried, Bound: max(gate.Limit.Amount, gate.Carried), Soft: gate.Limit.Soft})
	return x.touch(k, &g.windows[i], true)
}

func (g *gauge) find(start time.Time) (int, bool) {
	return slices.BinarySearchFunc(g.windows, start, func(w credit.LimitWindow, t time.Time) int { return w.Start.Compare(t) })
}

// count changes a window by what the operation uses, holds or gives back in it.
func (d *decision) count(k gaugeKey, w *credit.LimitWindow, used, held credit.Amount) {
	w.Used, w.Held = w.Used+used, w.Held+held
	for i := len(d.changes.LimitCounts) - 1; i >= 0; i-- {
		n := &d.changes.LimitCounts[i]
		if n.Ver != d.ver || n.Customer != d.c.id {
			break
		}
		if n.Limit == k.limit && n.Subject == k.subject && n.Start.Equal(w.Start) {
			n.UsedAfter, n.HeldAfter = w.Used, w.Held
			if n.Used, n.Held = n.Used+used, n.Held+held; n.Used == 0 && n.Held == 0 {
				d.changes.LimitCounts = slices.Delete(d.changes.LimitCounts, i, i+1)
			}
			return
		}
	}
	d.changes.LimitCounts = append(d.changes.LimitCounts, db.LimitCount{Limit: k.limit, Subject: k.subject, Start: w.Start, Customer: d.c.id, Ver: d.ver, Used: used, Held: held,
		UsedAfter: w.Used, HeldAfter: w.Held})
}

// drawnFrom sums the draws from a wallet; of all when it is zero.
func drawnFrom(draws []credit.Draw, wallet credit.WalletID) (sum credit.Amount) {
	for i := range draws {
		if wallet.IsZero() || draws[i].Grant.Wallet.ID == wallet {
			sum += draws[i].Amount
		}
	}
	return sum
}

// passes counts draws in the windows of the gates that they have passed, as used or as held, and tells of thresholds that they cross.
func (d *decision) passes(gates []credit.Gate, draws []credit.Draw, held bool) {
	for i := range gates {
		g := &gates[i]
		n := drawnFrom(draws, g.Limit.Wallet)
		if n == 0 {
			continue
		}
		k := gaugeKey{g.Limit.ID, g.Subject}
		w := d.c.limits.begin(g)
		if held {
			g.Held += n
			d.count(k, w, 0, n)
		} else {
			g.Used += n
			d.count(k, w, n, 0)
		}
		if crossed := g.Crossed(); len(crossed) > 0 {
			g.Told = crossed[len(crossed)-1]
			w.Told = g.Told
			for _, percent := range crossed {
				kind := "limit.warning"
				if percent == 100 {
					kind = "limit.reached"
				}
				doc := d.describeGate(g)
				doc.Percent = percent
				d.event(kind, g.Limit.ID.String(), facts{"limit_usage": doc})
			}
		}
	}
}

// holdGates are the windows that draws for lines of a hold count in.
func holdGates(gates []credit.Gate, draws []credit.Draw, from int) (out []credit.HoldGate) {
	for i := range gates {
		g := &gates[i]
		if drawnFrom(draws, g.Limit.Wallet) > 0 {
			out = append(out, credit.HoldGate{Limit: g.Limit.ID, Subject: g.Subject, Start: g.Start, Wallet: g.Limit.Wallet, From: from, To: from + len(draws)})
		}
	}
	return out
}

// heldIn is a [want] of the windows that a hold has taken from; nil when they are known.
func (c *customer) heldIn(h *credit.Hold) error {
	if len(h.Gates) == 0 {
		return nil
	}
	for i := range h.Gates {
		c.limits.reaches(gaugeKey{h.Gates[i].Limit, h.Gates[i].Subject}, h.Gates[i].Start)
	}
	if err := c.limits.wanted(); err != nil {
		return err
	}
	for i := range h.Gates {
		k := gaugeKey{h.Gates[i].Limit, h.Gates[i].Subject}
		if _, found := c.limits.known[k].find(h.Gates[i].Start); !found && h.Left() > 0 {
			return fmt.Errorf("hold %s has taken from a window of limit %s that is not there", h.ID, k.limit)
		}
	}
	return nil
}

// unhold takes what a line of a hold held out of the windows that it was held in; what was captured of it is used there.
func (d *decision) unhold(h *credit.Hold, line int, wallet credit.WalletID, n credit.Amount, captured bool) {
	for i := range h.Gates {
		g := &h.Gates[i]
		if line < g.From || line >= g.To || !g.Wallet.IsZero() && g.Wallet != wallet {
			continue
		}
		k := gaugeKey{g.Limit, g.Subject}
		w := d.c.limits.window(k, g.Start)
		if captured {
			d.count(k, w, n, -n)
		} else {
			d.count(k, w, 0, -n)
		}
	}
}

// returnsFor is how long windows are looked at for what is given back; they are kept for longer.
const returnsFor = 40 * 24 * time.Hour

// returnsSince is from when on windows of a gate are lowered by what is given back.
func (c *customer) returnsSince(g *credit.Gate) time.Time {
	if since := c.at.Add(-returnsFor); since.Before(g.Start) {
		return since
	}
	return g.Start
}

// lowers is a [want] of windows that an amount given back may lower; nil when they are known.
func (c *customer) lowers(gates []credit.Gate, back credit.Amount) error {
	if len(gates) == 0 {
		return nil
	}
	for i := range gates {
		g := &gates[i]
		k := gaugeKey{g.Limit.ID, g.Subject}
		var used credit.Amount
		for _, w := range c.limits.known[k].windows {
			used += w.Used
		}
		if used < back {
			c.limits.reaches(k, c.returnsSince(g))
		}
	}
	return c.limits.wanted()
}

// lower takes what was given back out of the windows of its usage's subjects, the newest first as credits come back to the grant drawn last. What is not in
// a window that is kept lowers nothing.
func (d *decision) lower(gates []credit.Gate, returned []credit.Draw) {
	for i := range gates {
		g := &gates[i]
		k := gaugeKey{g.Limit.ID, g.Subject}
		left, since := drawnFrom(returned, g.Limit.Wallet), d.c.returnsSince(g)
		windows := d.c.limits.known[k].windows
		for j := len(windows) - 1; j >= 0 && left > 0; j-- {
			if n := min(left, windows[j].Used); n > 0 && !windows[j].Start.Before(since) {
				d.count(k, d.c.limits.window(k, windows[j].Start), -n, 0)
				left -= n
			}
		}
	}
}

// card returns the card of a member's event at t; zero: the default card. A card of the member's own goes before what the customer has.
func (c *customer) card(member credit.MemberID, t time.Time) credit.RateCardID {
	if c.limits != nil && !member.IsZero() {
		if own := c.limits.terms.Members[member].RateCard; !own.IsZero() {
			return own
		}
	}
	return c.cards.at(t)
}

// entitled refuses the usage of a member that may not use it.
func (c *customer) entitled(member credit.MemberID, dims credit.Dimensions) error {
	if c.limits == nil || member.IsZero() {
		return nil
	}
	terms, restricted := c.limits.terms.Members[member]
	switch {
	case !restricted:
		return nil
	case !terms.Active:
		return credit.Errorf(credit.NotEntitled, "The member is deactivated.").With("member_id", member.String())
	case !terms.Scope.Matches(dims):
		return credit.Errorf(credit.NotEntitled, "The member may not use this: its scope does not match.").With("member_id", member.String()).With("member_scope", terms.Scope)
	}
	return nil
}

// limitRefusal says which limit does not admit an amount of a usage, what it has left and when that changes.
func (d *decision) limitRefusal(g *credit.Gate, sel credit.Selection, unit string, scale int) *credit.Error {
	doc := d.describeGate(g)
	required := sel.Total + sel.Short
	e := credit.Errorf(credit.LimitReached, "%s %s are needed and the limit %q leaves %s.", required.Format(scale), unit, g.Limit.Name, doc.Left)
	resets := g.ResetsAt
	if g.Limit.Window.Kind == credit.Rolling {
		need := required
		if !g.Limit.Wallet.IsZero() {
			need = sel.Short + drawnFrom(sel.Draws, g.Limit.Wallet) // the other wallets pay what they paid
		}
		resets = g.FreeAt(d.c.at, d.c.limits.known[gaugeKey{g.Limit.ID, g.Subject}].windows, need)
	}
	e = e.With("unit", unit).With("required", required.Format(scale)).With("limit_id", doc.LimitID.String()).With("limit", doc.Name).With("applies_to", doc.AppliesTo).
		With("window", doc.Window).With("limit_amount", doc.Amount).With("left", doc.Left).With("resets_at", nil)
	if !resets.IsZero() {
		e = e.With("resets_at", Instant(resets).String())
	}
	if doc.MemberID != nil {
		e = e.With("member_id", doc.MemberID.String())
	}
	if doc.Dimension != "" {
		e = e.With("dimension", doc.Dimension).With("value", doc.Value)
	}
	if doc.WalletID != nil {
		e = e.With("wallet_id", doc.WalletID.String())
	}
	return e
}

func (b *batch) foreseeLimits(ctx context.Context, jobs []*job) error {
	for _, j := range jobs {
		c := b.customers[j.op.header().Customer]
		if c == nil || c.limits == nil {
			continue
		}
		var o *Consume
		switch op := j.op.(type) {
		case *Consume:
			o = op
		case *Quote:
			o = &op.Consume
		case *Hold:
			o = &op.Consume
		}
		if o != nil {
			for _, l := range c.limits.terms.Limits {
				unit := o.Unit
				if o.Amount == 0 {
					unit = l.Unit // what a card prices in is looked up when it is priced
				}
				if subject, applies := l.Of(unit, o.Member, o.Dims); applies {
					c.limits.reaches(gaugeKey{l.ID, subject}, l.Window.Since(c.at, c.limits.terms.Zone))
				}
			}
		}
		for _, id := range j.op.holds() {
			if h := c.holds[id]; h != nil {
				for i := range h.Gates {
					c.limits.reaches(gaugeKey{h.Gates[i].Limit, h.Gates[i].Subject}, h.Gates[i].Start)
				}
			}
		}
	}
	var refs []db.WindowRef
	var of []*customer
	for _, c := range b.customers {
		if c.limits != nil && len(c.limits.missing) > 0 {
			refs, of = append(refs, c.limits.missing...), append(of, c)
		}
	}
	if len(refs) == 0 {
		return nil
	}
	rows, err := b.lane.conn.Windows(ctx, oncePerGauge(refs))
	if err != nil {
		return err
	}
	read := windowsByGauge(rows)
	for _, c := range of {
		asked := c.limits.missing
		c.limits.missing = nil
		c.limits.learn(oncePerGauge(asked), read)
	}
	return nil
}

// oncePerGauge keeps of the references to one gauge the one that reaches furthest back.
func oncePerGauge(refs []db.WindowRef) []db.WindowRef {
	refs = slices.Clone(refs)
	slices.SortFunc(refs, func(a, b db.WindowRef) int {
		return cmp.Or(slices.Compare(a.Limit[:], b.Limit[:]), cmp.Compare(a.Subject, b.Subject), a.Since.Compare(b.Since))
	})
	return slices.CompactFunc(refs, func(a, b db.WindowRef) bool { return a.Limit == b.Limit && a.Subject == b.Subject })
}

// fetchWindows reads the windows that a decision wants.
func (b *batch) fetchWindows(ctx context.Context, c *customer, refs []db.WindowRef) error {
	refs = oncePerGauge(refs)
	rows, err := b.lane.conn.Windows(ctx, refs)
	if err == nil {
		c.limits.learn(refs, windowsByGauge(rows))
	}
	return err
}

func windowsByGauge(rows []db.WindowRow) map[gaugeKey][]credit.LimitWindow {
	out := make(map[gaugeKey][]credit.LimitWindow)
	for _, r := range rows {
		k := gaugeKey{r.Limit, r.Subject}
		out[k] = append(out[k], r.LimitWindow)
	}
	return out
}

// learn takes in the committed windows of some gauges. What the batch has changed stays as the batch has it.
func (x *gated) learn(refs []db.WindowRef, read map[gaugeKey][]credit.LimitWindow) {
	x.ownAll()
	for _, ref := range refs {
		k := gaugeKey{ref.Limit, ref.Subject}
		g := &gauge{since: ref.Since, windows: read[k]}
		if l := x.find(k.limit); l != nil && x.bound[k.limit] {
			g.bind(l)
		}
		if was := x.known[k]; was != nil {
			for _, w := range was.windows {
				if _, changed := x.changed[windowKey{k, w.Start.UnixMicro()}]; !changed {
					continue
				}
				if i, found := g.find(w.Start); found {
					g.windows[i] = w
				} else {
					g.windows = slices.Insert(g.windows, i, w)
				}
			}
		}
		x.known[k], x.owned[k] = g, true
	}
	x.fresh = true
}

// bind gives a limit's windows the amount that it has now.
func (g *gauge) bind(l *credit.Limit) {
	for i := range g.windows {
		w := &g.windows[i]
		taken := w.Carried + w.Used + w.Held
		w.Bound, w.Told = max(l.Amount, taken), min(w.Told, l.Percent(taken))
	}
}

func (x *gated) find(id credit.LimitID) *credit.Limit {
	for _, l := range x.terms.Limits {
		if l.ID == id {
			return l
		}
	}
	return nil
}

// windowRows are the windows that the batch has changed, in one order for all batches.
func (c *customer) windowRows(rows []db.WindowChange) []db.WindowChange {
	if c.limits == nil {
		return rows
	}
	x := c.limits
	for _, k := range slices.SortedFunc(maps.Keys(x.changed), windowKey.compare) {
		row := x.changed[k]
		g := x.known[k.gaugeKey]
		i, _ := g.find(time.UnixMicro(k.start))
		row.WindowRow = db.WindowRow{Limit: k.limit, Subject: k.subject, LimitWindow: g.windows[i]}
		rows = append(rows, row)
	}
	return rows
}

// rememberedLimits are the limits that the next snapshot has: without windows that no longer count.
func (c *customer) rememberedLimits() *limits {
	if c.limits == nil {
		return nil
	}
	x := c.limits
	if len(x.known) > maxGauges {
		return &limits{terms: x.terms}
	}
	for k := range x.owned {
		l := x.find(k.limit)
		if l == nil {
			delete(x.known, k)
			continue
		}
		g := x.known[k]
		if since := l.Window.Since(c.at, x.terms.Zone); g.since.Before(since) {
			i, _ := g.find(since)
			g.since, g.windows = since, slices.Clone(g.windows[i:])
		}
	}
	return &limits{x.terms, x.known}
}

// terms are the customer's, to be changed; without limits so far the zone must be known.
func (c *customer) terms() (*db.CustomerGates, error) {
	switch {
	case c.limits != nil:
		terms := *c.limits.terms
		return &terms, nil
	case c.zone == nil:
		return nil, &want{zone: true}
	}
	return &db.CustomerGates{Zone: c.zone}, nil
}

// gate makes terms the customer's.
func (d *decision) gate(terms *db.CustomerGates) {
	if d.c.limits == nil {
		d.c.limits = &gated{}
		d.changes.Gated = append(d.changes.Gated, d.c.id)
	}
	d.c.limits.terms = terms
}

func (o *CreateLimit) decide(d *decision) (receipt, error) {
	l := o.Limit
	if !l.Wallet.IsZero() {
		switch w := d.c.wallets[l.Wallet]; {
		case w == nil:
			return nil, &ofState{credit.Errorf(credit.WalletNotFound, "The customer has no wallet %s.", l.Wallet)}
		case w.Unit != l.Unit:
			return nil, &ofState{credit.Invalid("/unit", "The wallet is in %s.", w.Unit)}
		}
	}
	terms, err := d.c.terms()
	if err != nil {
		return nil, err
	}
	if len(terms.Limits) >= maxLimits {
		return nil, &ofState{credit.Errorf(credit.InvalidRequest, "A customer has at most %d limits at a time.", maxLimits)}
	}
	if err := freeName(terms, l.ID, l.Name); err != nil {
		return nil, err
	}
	l.CustomerID, l.CreatedAt, l.CreatedVer, l.EndedAt, l.EndedVer = d.c.id, d.c.at, d.ver, time.Time{}, 0
	terms.Limits = append(slices.Clone(terms.Limits), &l)
	slices.SortFunc(terms.Limits, func(a, b *credit.Limit) int { return slices.Compare(a.ID[:], b.ID[:]) })
	d.gate(terms)
	return d.limitChanged("created", &l, false, ""), nil
}

func freeName(terms *db.CustomerGates, id credit.LimitID, name string) error {
	for _, l := range terms.Limits {
		if l.Name == name && l.ID != id {
			return &ofState{credit.Errorf(credit.AlreadyExists, "The customer has a limit named %q.", name)}
		}
	}
	return nil
}

// limit returns a copy of a limit in force, and terms in which it is.
func (d *decision) limit(id credit.LimitID) (*credit.Limit, *db.CustomerGates, int, error) {
	if d.c.limits != nil {
		terms := *d.c.limits.terms
		if i := slices.IndexFunc(terms.Limits, func(l *credit.Limit) bool { return l.ID == id }); i >= 0 {
			l := *terms.Limits[i]
			terms.Limits = slices.Clone(terms.Limits)
			terms.Limits[i] = &l
			return &l, &terms, i, nil
		}
	}
	return nil, nil, 0, &ofState{credit.Errorf(credit.LimitNotFound, "The customer has no limit %s in force.", id)}
}

func (o *UpdateLimit) decide(d *decision) (receipt, error) {
	l, terms, _, err := d.limit(o.Limit)
	if err != nil {
		return nil, err
	}
	bound := o.Amount != nil && *o.Amount != l.Amount
	if o.Name != nil {
		if err := freeName(terms, l.ID, *o.Name); err != nil {
			return nil, err
		}
		l.Name = *o.Name
	}
	if o.Amount != nil {
		l.Amount = *o.Amount
	}
	if o.WarnAt != nil {
		l.WarnAt = *o.WarnAt
	}
	d.gate(terms)
	if bound {
		x := d.c.limits
		if x.bound == nil {
			x.bound = make(map[credit.LimitID]bool)
		}
		x.bound[l.ID] = true
		for k := range x.known {
			if k.limit == l.ID {
				x.own(k).bind(l)
			}
		}
	}
	return d.limitChanged("updated", l, bound, o.Reason), nil
}

func (o *EndLimit) decide(d *decision) (receipt, error) {
	l, terms, i, err := d.limit(o.Limit)
	if err != nil {
		return nil, err
	}
	l.EndedAt, l.EndedVer = d.c.at, d.ver
	terms.Limits = slices.Delete(terms.Limits, i, i+1)
	d.gate(terms)
	return d.limitChanged("ended", l, false, ""), nil
}

func (d *decision) limitChanged(kind string, l *credit.Limit, bound bool, reason string) receipt {
	d.changes.Limits = append(d.changes.Limits, db.LimitChange{Limit: l, Bound: bound})
	d.kind = "configure"
	doc := DescribeLimit(l, d.scale(l.Unit))
	doc.Reason, doc.Ver = reason, d.ver
	d.event("limit."+kind, l.ID.String(), facts{"limit": doc})
	return jsonReceipt(doc)
}

func (o *UpdateMember) decide(d *decision) (receipt, error) {
	row, read := d.c.members[o.Member]
	switch {
	case !read:
		return nil, &want{member: o.Member}
	case row == nil:
		return nil, &ofState{credit.Errorf(credit.MemberNotFound, "The customer has no such member.")}
	}
	terms, err := d.c.terms()
	if err != nil {
		return nil, err
	}
	m := *row
	if o.Name != nil {
		m.Name = *o.Name
	}
	if o.Active != nil {
		m.Active = *o.Active
	}
	if o.Scope != nil {
		m.Scope = *o.Scope
	}
	if o.Card != nil {
		m.RateCard = *o.Card
	}
	d.c.members[o.Member] = &m
	d.changes.Members = append(d.changes.Members, m)
	if own := m.Own(); own || d.c.limits != nil {
		terms.Members = maps.Clone(terms.Members)
		if terms.Members == nil {
			terms.Members = make(map[credit.MemberID]db.MemberTerms)
		}
		delete(terms.Members, m.ID)
		if own {
			terms.Members[m.ID] = m.MemberTerms
		}
		d.gate(terms)
	}
	d.kind = "configure"
	doc := DescribeMember(m)
	doc.Reason, doc.Ver = o.Reason, d.ver
	d.event("member.updated", m.ID.String(), facts{"member": doc})
	return jsonReceipt(doc), nil
}

func (o *ReadMember) decide(d *decision) (receipt, error) {
	c := d.c
	doc := MemberBalanceDocument{CustomerID: c.id, MemberID: o.Member, Ver: c.ver, At: Instant(c.at), Active: true, Units: []MemberUnit{}}
	var units []string
	for _, w := range orderedWallets(c.wallets) {
		if len(units) == 0 || units[len(units)-1] != w.Unit {
			units = append(units, w.Unit)
		}
	}
	if c.limits != nil {
		if terms, restricted := c.limits.terms.Members[o.Member]; restricted {
			doc.Active = terms.Active
		}
	}
	grants := withoutOverage(c.grants)
	for _, unit := range units {
		gates, err := c.gates(unit, o.Member, nil)
		if err != nil {
			return nil, err
		}
		sel, err := credit.Select(grants, credit.Need{At: c.at, Unit: unit, Member: o.Member, Gates: gates,
			Cost: func(credit.RateLock) (credit.Amount, error) { return credit.MaxAmount, nil }}, d.job.draws[:0])
		if err != nil {
			return nil, err
		}
		if !doc.Active {
			sel.Total = 0
		}
		u := MemberUnit{Unit: unit, Available: sel.Total.Format(d.scale(unit)), Limits: []LimitUsageDocument{}}
		for i := range gates {
			u.Limits = append(u.Limits, d.describeGate(&gates[i]))
		}
		doc.Units = append(doc.Units, u)
	}
	return jsonReceipt(doc), nil
}

func withoutOverage(grants []*credit.Grant) (out []*credit.Grant) {
	for _, g := range grants {
		if g.Type != credit.Overage {
			out = append(out, g)
		}
	}
	return out
}

// LimitDocument describes a limit.
type LimitDocument struct {
	ID         credit.LimitID    `json:"id"`
	CustomerID credit.CustomerID `json:"customer_id"`
	Name       string            `json:"name"`
	Unit       string            `json:"unit"`
	Amount     string            `json:"amount"`
	Mode       string            `json:"mode"` // "hard" or "soft"
	LimitTerms
	Scope     credit.Scope `json:"scope"`
	WarnAt    []int        `json:"warn_at"` // percent
	CreatedAt Instant      `json:"created_at"`
	EndedAt   *Instant     `json:"ended_at"`         // null: it is in force
	Reason    string       `json:"reason,omitempty"` // in the answer to an operation that has one
	Ver       int64        `json:"ver,omitempty"`    // in the answer to an operation
}

// LimitTerms is what a limit applies to: with its own terms the limit's, with a usage's those of the subject.
type LimitTerms struct {
	AppliesTo     string            `json:"applies_to"` // "customer", "member", "each_member", "value" or "each_value"
	MemberID      *credit.MemberID  `json:"member_id,omitempty"`
	Dimension     string            `json:"dimension,omitempty"`
	Value         string            `json:"value,omitempty"`
	WalletID      *credit.WalletID  `json:"wallet_id,omitempty"` // only what is drawn from it; none: everything
	Window        credit.WindowKind `json:"window"`
	WindowSeconds int               `json:"window_seconds,omitempty"` // of a rolling one
}

// LimitUsageDocument is how a limit stands for one subject, which LimitTerms names also when the limit is for each.
type LimitUsageDocument struct {
	LimitID credit.LimitID `json:"limit_id"`
	Name    string         `json:"name"`
	Unit    string         `json:"unit"`
	Amount  string         `json:"amount"`
	Mode    string         `json:"mode"`
	LimitTerms
	WindowStart Instant  `json:"window_start"` // of a rolling one: of the sixtieth that it counts in now
	ResetsAt    *Instant `json:"resets_at"`    // when the window ends; of a rolling one, when something of it no longer counts; null: never, or nothing counts
	Used        string   `json:"used"`
	Held        string   `json:"held"`
	Left        string   `json:"left"`
	Percent     int      `json:"percent,omitempty"` // in an event: the threshold that was crossed
}

// MemberDocument describes a member.
type MemberDocument struct {
	ID         credit.MemberID    `json:"id"`
	CustomerID credit.CustomerID  `json:"customer_id"`
	ExternalID *string            `json:"external_id"`
	Name       string             `json:"name"`
	Active     bool               `json:"active"`
	Scope      credit.Scope       `json:"scope"`
	RateCardID *credit.RateCardID `json:"rate_card_id"` // null: what prices the customer's usage
	CreatedAt  Instant            `json:"created_at"`
	Reason     string             `json:"reason,omitempty"` // in the answer to an operation that has one
	Ver        int64              `json:"ver,omitempty"`    // in the answer to an operation
}

// MemberBalanceDocument is what a member can use at a moment: the credits that it may draw on without any dimension, overage not counted, as far as the
// hard limits leave them.
type MemberBalanceDocument struct {
	CustomerID credit.CustomerID `json:"customer_id"`
	MemberID   credit.MemberID   `json:"member_id"`
	Ver        int64             `json:"ver"`
	At         Instant           `json:"at"`
	Active     bool              `json:"active"`
	Units      []MemberUnit      `json:"units"`
}

// MemberUnit is what a member can use of a unit, and the limits on it.
type MemberUnit struct {
	Unit      string               `json:"unit"`
	Available string               `json:"available"`
	Limits    []LimitUsageDocument `json:"limits"`
}

func mode(l *credit.Limit) string {
	if l.Soft {
		return "soft"
	}
	return "hard"
}

// DescribeLimit describes a limit in a unit of so many decimal places.
func DescribeLimit(l *credit.Limit, scale int) LimitDocument {
	doc := LimitDocument{
		ID: l.ID, CustomerID: l.CustomerID, Name: l.Name, Unit: l.Unit, Amount: l.Amount.Format(scale), Mode: mode(l), LimitTerms: limitTerms(l), Scope: scopeOrEmpty(l.Scope),
		WarnAt: l.WarnAt, CreatedAt: Instant(l.CreatedAt), EndedAt: instantOrNil(l.EndedAt),
	}
	if doc.WarnAt == nil {
		doc.WarnAt = []int{}
	}
	return doc
}

func limitTerms(l *credit.Limit) LimitTerms {
	t := LimitTerms{AppliesTo: string(l.Subject), Dimension: l.Dimension, Value: l.Value, Window: l.Window.Kind, WindowSeconds: int(l.Window.Length / time.Second)}
	if !l.Member.IsZero() {
		t.MemberID = &l.Member
	}
	if !l.Wallet.IsZero() {
		t.WalletID = &l.Wallet
	}
	_, one := l.One()
	switch {
	case l.Subject == credit.LimitsMember && !one:
		t.AppliesTo = "each_member"
	case l.Subject == credit.LimitsDimension && one:
		t.AppliesTo = "value"
	case l.Subject == credit.LimitsDimension:
		t.AppliesTo = "each_value"
	}
	return t
}

// DescribeGate describes how a limit stands in a unit of so many decimal places.
func DescribeGate(g *credit.Gate, scale int) LimitUsageDocument {
	l := g.Limit
	doc := LimitUsageDocument{
		LimitID: l.ID, Name: l.Name, Unit: l.Unit, Amount: l.Amount.Format(scale), Mode: mode(l), LimitTerms: limitTerms(l), WindowStart: Instant(g.Start),
		ResetsAt: instantOrNil(g.ResetsAt), Used: g.Used.Format(scale), Held: g.Held.Format(scale), Left: g.Left().Format(scale),
	}
	switch l.Subject {
	case credit.LimitsMember:
		id := credit.SubjectMember(g.Subject)
		doc.MemberID = &id
	case credit.LimitsDimension:
		doc.Value = g.Subject
	}
	return doc
}

func (d *decision) describeGate(g *credit.Gate) LimitUsageDocument {
	return DescribeGate(g, d.scale(g.Limit.Unit))
}

// DescribeMember describes a member.
func DescribeMember(m db.MemberRow) MemberDocument {
	doc := MemberDocument{ID: m.ID, CustomerID: m.Customer, Name: m.Name, Active: m.Active, Scope: scopeOrEmpty(m.Scope), CreatedAt: Instant(m.CreatedAt)}
	if m.ExternalID != "" {
		doc.ExternalID = &m.ExternalID
	}
	if !m.RateCard.IsZero() {
		doc.RateCardID = &m.RateCard
	}
	return doc
}
