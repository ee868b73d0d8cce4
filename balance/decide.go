package balance

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

// customer is the working copy of one customer while a batch is decided. What the snapshot points to is copied before it is changed.
type customer struct {
	id       credit.CustomerID
	base     *snapshot
	ver      int64
	at       time.Time // at which the batch's operations on this customer are judged
	cards    cards
	wallets  map[credit.WalletID]*credit.Wallet
	grants   []*credit.Grant // open, in draw-down order
	frozen   bool
	owned    bool // grants is this batch's own slice
	unsorted bool // an operation changed what the order depends on
	reshaped bool // something else than amounts of open grants has changed
	undo     bool // credits were taken in the cache for something that took none here
	touched  map[credit.GrantID]*touch
	others   map[credit.GrantID]*credit.Grant    // loaded by id though they are not open
	counted  counters                            // shared with the snapshot until something is counted
	recount  map[rating.CounterKey]int64         // those that the batch has changed, by which operation
	missing  []rating.CounterKey                 // asked for, and not known
	holds    map[credit.HoldID]*credit.Hold      // those that operations of the batch name or made
	held     map[credit.HoldID]bool              // those of them that are to be written
	refunded map[credit.GrantID]db.Refunded      // what was refunded of grants before the batch, of those that a refund asked for
	recorded map[int64]*db.Recorded              // what was read of earlier operations, as the batch has made it; nil: there is none
	disputes map[credit.GrantID][]*db.DisputeRow // what was read of disputes of grants, as the batch has made it
	disputed map[credit.DisputeID]*db.DisputeRow // those of them that are to be written
	amended  map[int64]bool                      // those of them that are to be written
	drawn    map[string][]credit.GrantID         // by unit: what was drawn from before the batch, the last first; no unit: not read
	limits   *gated                              // nil: it has never had any
	zone     *time.Location                      // of the legal entity, when it was asked for
	members  map[credit.MemberID]*db.MemberRow   // those that were asked for; nil: there is none such
}

// touch is what a batch does to one grant.
type touch struct {
	before *credit.Grant // as committed, or as first written by this batch
	now    *credit.Grant
	edited bool // now differs from before
	drawn  bool // by consumption and nothing else
}

func newCustomer(id credit.CustomerID, h db.Head, snap *snapshot, now time.Time) *customer {
	c := &customer{id: id, base: snap, ver: h.Ver, at: now, cards: snap.cards, wallets: snap.wallets, grants: snap.grants, counted: snap.counted, frozen: h.Frozen}
	if h.LastAt.After(c.at) {
		c.at = h.LastAt // a customer's time does not run backwards, whatever the server's clock does
	}
	c.at = c.at.UTC().Truncate(time.Microsecond)
	if snap.limits != nil {
		c.limits = &gated{limits: *snap.limits}
	}
	return c
}

// edit returns the batch's own copy of a grant. drawing says that only consumption changes it.
func (c *customer) edit(g *credit.Grant, drawing bool) *credit.Grant {
	if t := c.touched[g.ID]; t != nil {
		t.edited, t.drawn = true, t.drawn && drawing
		c.reshaped = c.reshaped || !drawing
		return t.now
	}
	mine := *g
	c.reshaped = c.reshaped || !drawing
	c.touch(&touch{before: g, now: &mine, edited: true, drawn: drawing})
	if i := slices.Index(c.grants, g); i >= 0 {
		c.ownGrants()
		c.grants[i] = &mine
	} else if c.others[g.ID] != nil {
		c.others[g.ID] = &mine
	}
	return &mine
}

func (c *customer) ownGrants() {
	if !c.owned {
		c.grants, c.owned = slices.Clone(c.grants), true
	}
}

// add puts a new grant among the open ones and returns it as it is to be inserted; what the rest of the batch does to it is
// written as a change.
func (c *customer) add(g *credit.Grant) *credit.Grant {
	first := *g
	c.reshaped = true
	c.touch(&touch{before: &first, now: g, drawn: true})
	if g.Status == credit.StatusOpen {
		c.ownGrants()
		c.grants, c.unsorted = append(c.grants, g), true
	}
	return &first
}

func (c *customer) touch(t *touch) {
	if c.touched == nil {
		c.touched = make(map[credit.GrantID]*touch)
	}
	c.touched[t.now.ID] = t
}

// find returns a grant of this customer, open or loaded by id.
func (c *customer) find(id credit.GrantID) (*credit.Grant, error) {
	if t := c.touched[id]; t != nil {
		return t.now, nil
	}
	for _, g := range c.grants {
		if g.ID == id {
			return g, nil
		}
	}
	if g := c.others[id]; g != nil && g.CustomerID == c.id {
		return g, nil
	}
	return nil, credit.Errorf(credit.GrantNotFound, "The customer has no grant %s.", id)
}

// settle brings the open grants back into order after an operation, and takes those out that are no longer open.
func (c *customer) settle() {
	if c.owned {
		n := len(c.grants)
		c.grants = slices.DeleteFunc(c.grants, func(g *credit.Grant) bool { return g.Status != credit.StatusOpen })
		c.reshaped = c.reshaped || len(c.grants) != n
	}
	if c.unsorted {
		slices.SortFunc(c.grants, credit.CompareDrawOrder)
		c.unsorted = false
	}
}

// decision is one operation being judged. Its effects join the batch's changes when it is accepted.
type decision struct {
	c         *customer
	others    map[credit.CustomerID]*customer // all of the batch
	book      *rating.Book
	rates     rates
	rules     *rules // that book and rates are of
	job       *job
	ver       int64 // the operation's version if it is accepted
	changes   *db.Changes
	kind      string
	amount    credit.Amount
	unit      string
	serviceAt time.Time
	member    credit.MemberID
	dims      credit.Dimensions
	moved     int16
}

// receipt makes an operation's answer once everything about it is known.
type receipt func(b []byte) ([]byte, error)

// move records a movement of an edited grant; the caller has already moved the counters.
func (d *decision) move(g *credit.Grant, debit, credited string, amount credit.Amount) {
	d.changes.Movements = append(d.changes.Movements, db.MovementRow{
		Grant: g.ID, Ver: d.ver, N: d.moved, Debit: debit, Credit: credited, Amount: amount, After: g.Available,
	})
	d.moved++
}

// tell records what the outside must hear about a grant.
func (d *decision) tell(g credit.GrantID, change string) {
	d.changes.Outbox = append(d.changes.Outbox, db.OutboxRow{Topic: "grant.signal", Subject: g.String(), Payload: `{"change":"` + change + `"}`})
}

func (d *decision) scale(unit string) int {
	u, _ := d.job.svc.Unit(unit) // it is known: see [batch.lock] and [Service.ReloadBook]
	return u.Scale
}

// charge is what a usage costs a customer, and which grants pay for it.
type charge struct {
	sel       credit.Selection
	priced    []rating.Priced // one per rate used; none for an explicit amount
	unit      string
	scale     int
	back      credit.Amount // to be given back: the usage costs less than nothing; then nothing is drawn
	serviceAt time.Time
	dims      credit.Dimensions // the consumption's, and what a response adds
	compute   *compute          // what it cost to serve; nil: not known
	gates     []credit.Gate     // the limits that apply, as they stand; nil: none
}

// charge judges a consumption of these lines, without taking anything: section "Drawing down" of the semantics. The draws are put into a slice.
func (o *Consume) charge(d *decision, lines []rating.Line, into []credit.Draw) (ch charge, err error) {
	c := d.c
	ch.serviceAt = o.serviceAt(c.at)
	switch {
	case ch.serviceAt.Before(c.at.Add(-o.maxAge())):
		return ch, credit.Errorf(credit.TooOld, "The usage is older than %d days.", o.maxAge()/(24*time.Hour))
	case ch.serviceAt.After(c.at.Add(MaxAhead)):
		return ch, credit.Errorf(credit.InFuture, "The usage is more than %s in the future.", MaxAhead)
	}
	if ch.compute, err = o.compute(d, ch.serviceAt); err != nil {
		return ch, err
	}
	ch.dims = o.Dims
	if o.Response != nil {
		lines, ch.dims = ch.compute.lines, ch.compute.dims
	}
	if err = c.entitled(o.Member, ch.dims); err != nil {
		return ch, err
	}
	need := credit.Need{At: c.at, Unit: o.Unit, Member: o.Member, Dims: ch.dims}
	var priced []rating.Priced
	if o.Amount > 0 {
		need.Cost = func(credit.RateLock) (credit.Amount, error) { return o.Amount, nil }
	} else {
		card := c.card(o.Member, ch.serviceAt)
		unit, err := d.book.Unit(card)
		if err != nil {
			return ch, err
		}
		need.Unit = unit.Code
		usage := rating.Usage{At: ch.serviceAt, Lines: lines, Dims: ch.dims}
		need.Cost = func(lock credit.RateLock) (credit.Amount, error) {
			id, version := d.lockedTo(lock, card, unit.Code)
			p, err := d.price(id, version, usage)
			if err == nil {
				priced = append(priced, p)
			}
			if p.Total < 0 {
				if len(priced) == 1 {
					ch.back = -p.Total
				}
				return 0, err
			}
			return p.Total, err
		}
	}
	if need.Gates, err = c.gates(need.Unit, o.Member, ch.dims); err != nil {
		return ch, err
	}
	ch.gates = need.Gates
	if ch.sel, err = credit.Select(c.grants, need, into); err != nil {
		return ch, err
	}
	ch.priced, ch.unit, ch.scale = priced, need.Unit, d.scale(need.Unit)
	if ch.sel.Short > 0 && (!o.Partial || ch.sel.Total == 0) {
		if ch.sel.Gate > 0 {
			return ch, d.limitRefusal(&ch.gates[ch.sel.Gate-1], ch.sel, ch.unit, ch.scale)
		}
		return ch, o.refusal(ch.sel, ch.unit, ch.scale)
	}
	return ch, nil
}

// price prices a usage with what the customer's counters stand at; what of them must be read first is a [want].
func (d *decision) price(card credit.RateCardID, version int, u rating.Usage) (rating.Priced, error) {
	p, err := d.book.Price(card, version, u, d.c, d.rates)
	if missing := d.c.missing; len(missing) > 0 {
		d.c.missing = nil
		return rating.Priced{}, &want{counters: missing}
	}
	return p, err
}

// lockedTo says which card and version price what a grant with this lock pays for, when the event's card is another or none is locked. A lock
// to a card in another unit binds nothing: its price is none in the credits that the grant has.
func (d *decision) lockedTo(lock credit.RateLock, card credit.RateCardID, unit string) (credit.RateCardID, int) {
	if lock.Card.IsZero() {
		return card, lock.Version // 0, or locked before the card was noted
	}
	if u, err := d.book.Unit(lock.Card); err != nil || u.Code != unit {
		return card, 0
	}
	return lock.Card, lock.Version
}

func (o *Consume) decide(d *decision) (receipt, error) {
	c := d.c
	ch, err := o.charge(d, o.Usage, d.job.draws[:0])
	if err != nil {
		return nil, o.orKeep(d, err)
	}
	var returned []credit.Draw
	if ch.back > 0 {
		if err = c.lowers(ch.gates, ch.back); err != nil {
			return nil, err
		}
		if returned, err = d.giveBack(ch.unit, ch.back); err != nil {
			return nil, err
		}
		d.lower(ch.gates, returned)
	}
	d.passes(ch.gates, ch.sel.Draws, false)
	if len(ch.priced) > 0 { // what the usage was priced by first counts it: it is one usage, whoever pays
		c.count(ch.priced[0].Changes, d.ver)
	}
	for i := range ch.sel.Draws {
		draw := &ch.sel.Draws[i]
		g := c.edit(draw.Grant, true)
		g.Available -= draw.Amount
		g.Consumed += draw.Amount
		d.move(g, "available", "consumed", draw.Amount)
		if g.Available == 0 && g.Held == 0 {
			g.Status = credit.StatusDepleted
			d.tell(g.ID, "depleted")
			d.grantEvent("depleted", d.describe(g))
		}
		draw.Grant = g
	}
	d.kind, d.amount, d.unit, d.serviceAt, d.member, d.dims = "consume", ch.sel.Total, ch.unit, ch.serviceAt, o.Member, ch.dims
	if len(returned) > 0 {
		d.kind, d.amount = "reverse", d.movedAmount()
	}
	left := available(c.grants, ch.unit, c.at)
	return func(b []byte) ([]byte, error) {
		return appendConsumeReceipt(b, d, o, &ch, returned, left)
	}, nil
}

// refusal says why a consumption cannot be paid.
func (o *Consume) refusal(sel credit.Selection, unit string, scale int) *credit.Error {
	required := sel.Total + sel.Short
	e := credit.Errorf(credit.InsufficientCredits, "%s %s are needed and %s are available.", required.Format(scale), unit, sel.Total.Format(scale))
	if sel.Total == 0 && sel.Elsewhere >= required {
		e = credit.Errorf(credit.NotEntitled, "%s %s are needed; the customer's %s may not serve this usage (scope, member or freeze).",
			required.Format(scale), unit, sel.Elsewhere.Format(scale))
	}
	return e.With("unit", unit).With("required", required.Format(scale)).With("balance", sel.Total.Format(scale)).With("not_entitled", sel.Elsewhere.Format(scale))
}

// finish turns an accepted operation into its row, and returns its receipt.
func (d *decision) finish(r receipt) ([]byte, error) {
	body, err := r(nil)
	if err != nil {
		return nil, err
	}
	d.record(d.job.op.header().Key, body)
	return body, nil
}

// record makes the operation part of the customer's history.
func (d *decision) record(key string, body []byte) {
	h := d.job.op.header()
	if d.serviceAt.IsZero() {
		d.serviceAt = d.c.at
	}
	d.changes.Operations = append(d.changes.Operations, db.OperationRow{
		Customer: d.c.id, Ver: d.ver, Kind: d.kind, Amount: d.amount, At: d.c.at, ServiceAt: d.serviceAt, Actor: h.Actor,
		RequestID: h.RequestID, Member: d.member, Key: key, Unit: d.unit, Dims: dimsJSON(d.dims), Receipt: body,
	})
	d.c.ver = d.ver
	d.c.settle()
}

// appendConsumeReceipt writes the JSON of a [ConsumeReceipt] by hand: it is on the path of every consumption. A test holds it
// against encoding/json.
func appendConsumeReceipt(b []byte, d *decision, o *Consume, ch *charge, returned []credit.Draw, left credit.Amount) ([]byte, error) {
	sel, priced, scale := &ch.sel, ch.priced, ch.scale
	if b == nil {
		b = make([]byte, 0, 512)
	}
	b = append(b, `{"operation":"`...)
	b = d.c.id.Append(b)
	b = append(b, '/')
	b = strconv.AppendInt(b, d.ver, 10)
	b = append(b, `","customer_id":"`...)
	b = d.c.id.Append(b)
	b = append(b, '"')
	if !o.Member.IsZero() {
		b = append(b, `,"member_id":"`...)
		b = append(o.Member.Append(b), '"')
	}
	b = append(b, `,"ver":`...)
	b = strconv.AppendInt(b, d.ver, 10)
	b = append(b, `,"unit":"`...)
	b = append(b, d.unit...) // a unit's code needs no escaping
	b = append(b, `","amount":"`...)
	b = append(sel.Total.Append(b, scale), '"')
	if sel.Short > 0 {
		b = append(b, `,"partial":true,"shortfall":"`...)
		b = append(sel.Short.Append(b, scale), '"')
	}
	b = append(b, `,"service_at":`...)
	b = appendInstant(b, d.serviceAt)
	b = append(b, `,"recorded_at":`...)
	b = appendInstant(b, d.c.at)
	if o.Reason != "" {
		b = append(b, `,"reason":`...)
		b = appendJSONString(b, o.Reason)
	}
	if len(ch.dims) > 0 {
		b = append(b, `,"dimensions":`...)
		b = appendDims(b, ch.dims)
	}
	if len(priced) > 0 {
		b = append(b, `,"pricing":[`...)
		for i := range priced {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendPricing(b, &priced[i], scale)
		}
		b = append(b, ']')
	}
	if ch.compute != nil {
		cost, err := json.Marshal(ch.compute.describe())
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"cost":`...), cost...)
	}
	b = append(b, `,"draws":`...)
	b = appendDraws(b, sel.Draws, scale)
	if len(returned) > 0 {
		b = append(b, `,"given_back":"`...)
		b = append(sumOf(returned).Append(b, scale), `","returns":`...)
		b = appendDraws(b, returned, scale)
	}
	b = append(b, `,"draw_order":`...)
	b = strconv.AppendInt(b, credit.DrawOrderVersion, 10)
	b = append(b, `,"available":"`...)
	b = left.Append(b, scale)
	return append(b, `"}`...), nil
}

func appendDraws(b []byte, draws []credit.Draw, scale int) []byte {
	b = append(b, '[')
	for i, draw := range draws {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"grant_id":"`...)
		b = draw.Grant.ID.Append(b)
		b = append(b, `","wallet_id":"`...)
		b = draw.Grant.Wallet.ID.Append(b)
		b = append(b, `","type":"`...)
		b = append(b, draw.Grant.Type...)
		b = append(b, `","amount":"`...)
		b = draw.Amount.Append(b, scale)
		b = append(b, `","left":"`...)
		b = draw.Grant.Available.Append(b, scale)
		b = append(b, `"}`...)
	}
	return append(b, ']')
}

func appendPricing(b []byte, p *rating.Priced, scale int) []byte {
	b = append(b, `{"rate_card_id":"`...)
	b = p.CardID.Append(b)
	b = append(b, `","rate_card":"`...)
	b = append(b, p.CardCode...)
	b = append(b, `","version":`...)
	b = strconv.AppendInt(b, int64(p.Version), 10)
	b = append(b, `,"total":"`...)
	b = p.Total.Append(b, scale)
	b = append(b, `","lines":[`...)
	for i := range p.Lines {
		l := &p.Lines[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"rate_id":`...)
		b = appendJSONString(b, l.RateID)
		b = append(b, `,"meter":`...)
		b = appendJSONString(b, l.Meter)
		if len(l.Dims) > 0 {
			b = append(b, `,"dimensions":`...)
			b = appendDims(b, l.Dims)
		}
		b = append(b, `,"quantity":"`...)
		b = append(b, l.Quantity.String()...)
		if l.Model != rating.PerUnit {
			b = append(b, `","model":"`...)
			b = append(b, l.Model...)
		}
		if l.Model == rating.PerUnit || l.Model == rating.Package {
			b = append(b, `","price":"`...)
			b = append(b, l.Price.String()...)
			b = append(b, `","per":"`...)
			b = append(b, l.Per.String()...)
		}
		if l.Currency != "" {
			b = append(b, `","currency":"`...)
			b = append(b, l.Currency...)
		}
		b = append(b, `","cost":"`...)
		b = append(b, l.Cost.String()...)
		b = append(b, '"')
		b = appendPricedBy(b, l)
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

// appendPricedBy writes what a line has only by rates that are more than a price.
func appendPricedBy(b []byte, l *rating.PricedLine) []byte {
	if !l.CardID.IsZero() {
		b = append(append(append(b, `,"rate_card":"`...), l.CardCode...), `","version":`...)
		b = strconv.AppendInt(b, int64(l.Version), 10)
	}
	if l.Counter != (rating.CounterKey{}) {
		b = append(b, `,"counter":{"key":`...)
		b = appendJSONString(b, l.Counter.String())
		b = append(append(b, `,"before":"`...), l.Before.String()...)
		b = append(append(append(b, `","after":"`...), l.After.String()...), `"}`...)
	}
	for i, fx := range l.FX {
		if i == 0 {
			b = append(b, `,"fx":[`...)
		} else {
			b = append(b, ',')
		}
		b = append(append(append(b, `{"from":"`...), fx.From...), `","to":"`...)
		b = append(append(append(b, fx.To...), `","rate":"`...), fx.Rate.String()...)
		b = append(append(append(b, `","source":"`...), fx.Source...), `","on":"`...)
		b = append(append(b, fx.On...), `"}`...)
	}
	if len(l.FX) > 0 {
		b = append(b, ']')
	}
	return b
}
