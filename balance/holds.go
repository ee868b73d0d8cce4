package balance

import (
	"context"
	"fmt"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// Hold sets credits aside for work in flight: those that a consumption of the same would take, in the same order. It is refused as the
// consumption would be. A price that a rate card makes is pinned: captures are priced at its version. The receipt is the JSON of a [HoldDocument].
type Hold struct {
	Consume
	Hold credit.HoldID
	For  time.Duration // until the deadline, from now; 1 s to MaxHold
}

// ExtendHold adds credits to an open hold, moves its deadline, or both. The receipt is the JSON of a [HoldDocument].
type ExtendHold struct {
	Header
	Hold   credit.HoldID
	Amount credit.Amount // to add, of a hold of an amount; 0: none
	Usage  []rating.Line // to add, of a hold that is priced; nil: none
	For    time.Duration // until the new deadline, from now; 0: it stays
}

// CapturePolicy says what a capture of more than is held does.
type CapturePolicy string

const (
	CaptureReject      CapturePolicy = "reject"       // is refused with capture_exceeds_hold
	CaptureIfAvailable CapturePolicy = "if_available" // takes the rest from the credits that the customer has besides, or is refused with insufficient_credits
	CaptureOverage     CapturePolicy = "overage"      // the same, and what they do not cover from the overage of soft-capped wallets
)

// CaptureHold consumes held credits: an amount, or what a usage costs at the hold's rate. The last capture ends the hold and lets go of the rest.
// Within CaptureGrace of the deadline it takes what nobody has let go of yet, or else the same from what the customer has, if it is enough. The
// receipt is the JSON of a [HoldDocument].
type CaptureHold struct {
	Header
	Hold   credit.HoldID
	Amount credit.Amount
	Usage  []rating.Line
	More   bool // further captures follow: the rest stays held
	Over   CapturePolicy
	Reason string
}

// ReleaseHold lets go of what an open hold holds. The receipt is the JSON of a [HoldDocument].
type ReleaseHold struct {
	Header
	Hold credit.HoldID
}

// ExpireHold lets go of what a hold holds past its deadline. Before it is refused with invalid_request; it needs no key, for the state lets it happen once.
type ExpireHold struct {
	Header
	Hold credit.HoldID
}

// A hold lasts at most MaxHold from when it is made or extended. A capture is still taken CaptureGrace after the deadline.
const (
	MaxHold      = 24 * time.Hour
	CaptureGrace = time.Minute
)

func (o *Hold) holds() []credit.HoldID        { return []credit.HoldID{o.Hold} }
func (o *ExtendHold) holds() []credit.HoldID  { return []credit.HoldID{o.Hold} }
func (o *CaptureHold) holds() []credit.HoldID { return []credit.HoldID{o.Hold} }
func (o *ReleaseHold) holds() []credit.HoldID { return []credit.HoldID{o.Hold} }
func (o *ExpireHold) holds() []credit.HoldID  { return []credit.HoldID{o.Hold} }

// hold returns the batch's own copy of a hold, to be written when the operation is accepted.
func (d *decision) hold(id credit.HoldID) (*credit.Hold, error) {
	h := d.c.holds[id]
	if h == nil || h.CustomerID != d.c.id {
		return nil, credit.Errorf(credit.HoldNotFound, "The customer has no hold %s.", id)
	}
	return h.Clone(), nil
}

// keep makes h what the hold is from now on.
func (d *decision) keep(h *credit.Hold) {
	if d.c.holds == nil {
		d.c.holds = make(map[credit.HoldID]*credit.Hold)
	}
	d.c.holds[h.ID] = h
	if d.c.held == nil {
		d.c.held = make(map[credit.HoldID]bool)
	}
	d.c.held[h.ID] = true
}

func endedRefusal(h *credit.Hold) error {
	return credit.Errorf(credit.HoldEnded, "The hold is %s.", h.Status).With("state", h.Status)
}

func (o *Hold) decide(d *decision) (receipt, error) {
	o.Partial = false
	ch, err := o.charge(d, o.Usage, d.job.draws[:0])
	if err != nil {
		return nil, err
	}
	h := &credit.Hold{
		ID: o.Hold, CustomerID: d.c.id, MemberID: o.Member, Unit: ch.unit, Status: credit.HoldOpen, ExpiresAt: d.c.at.Add(o.For), ServiceAt: ch.serviceAt,
		Dims: o.Dims, Reason: o.Reason, CreatedAt: d.c.at,
	}
	if len(ch.priced) > 0 {
		h.Rate = credit.RateLock{Card: ch.priced[0].CardID, Version: ch.priced[0].Version}
	}
	if d.c.holds[o.Hold] != nil {
		return nil, credit.Errorf(credit.AlreadyExists, "There is a hold %s.", o.Hold)
	}
	d.take(h, ch.sel.Draws, ch.gates)
	d.keep(h)
	d.kind, d.amount, d.unit, d.serviceAt, d.member, d.dims = "hold", h.Amount, ch.unit, ch.serviceAt, o.Member, o.Dims
	return d.holdReceipt("created", d.describeHold(h, ch.priced)), nil
}

// take sets the draws aside for a hold, and counts them in the windows of the gates that they have passed.
func (d *decision) take(h *credit.Hold, draws []credit.Draw, gates []credit.Gate) {
	d.passes(gates, draws, true)
	h.Gates = append(h.Gates, holdGates(gates, draws, len(h.Lines))...)
	for _, draw := range draws {
		g := d.c.edit(draw.Grant, false)
		g.Available -= draw.Amount
		g.Held += draw.Amount
		d.move(g, "available", "held", draw.Amount)
		h.Lines = append(h.Lines, credit.HoldLine{Grant: g.ID, Amount: draw.Amount})
		h.Amount += draw.Amount
	}
}

// cost is what a usage costs at a hold's rate, below 0 when it makes earlier usage of its period cheaper by more. An amount costs itself.
func (d *decision) cost(h *credit.Hold, amount credit.Amount, lines []rating.Line) (credit.Amount, []rating.Priced, error) {
	switch {
	case len(lines) == 0:
		return amount, nil, nil
	case h.Rate.Version == 0:
		return 0, nil, credit.Invalid("/usage", "The hold is of an amount, not of a usage.")
	}
	p, err := d.price(h.Rate.Card, h.Rate.Version, rating.Usage{At: h.ServiceAt, Lines: lines, Dims: h.Dims})
	if err != nil {
		return 0, nil, err
	}
	return p.Total, []rating.Priced{p}, nil
}

func (o *ExtendHold) decide(d *decision) (receipt, error) {
	h, err := d.hold(o.Hold)
	if err != nil {
		return nil, err
	}
	if h.Status == credit.HoldOpen && !d.c.at.Before(h.ExpiresAt) {
		h.Status = credit.HoldExpired // nobody has let go of it yet
	}
	if h.Status != credit.HoldOpen {
		return nil, endedRefusal(h)
	}
	more, priced, err := d.cost(h, o.Amount, o.Usage)
	if err != nil {
		return nil, err
	}
	if o.For > 0 {
		h.ExpiresAt = d.c.at.Add(o.For)
	}
	if more > 0 {
		sel, gates, err := d.besides(h, more, true)
		if err != nil {
			return nil, err
		}
		if len(h.Lines)+len(sel.Draws) > maxHoldLines {
			return nil, &ofState{credit.Errorf(credit.InvalidRequest, "A hold takes from at most %d grants, extensions counted anew.", maxHoldLines)}
		}
		d.take(h, sel.Draws, gates)
	}
	d.keep(h)
	d.kind, d.amount, d.unit, d.serviceAt, d.member, d.dims = "extend_hold", max(0, more), h.Unit, h.ServiceAt, h.MemberID, h.Dims
	return d.holdReceipt("extended", d.describeHold(h, priced)), nil
}

// maxHoldLines bounds how often a hold may have taken from a grant.
const maxHoldLines = 1000

// besides selects an amount from what the customer has besides a hold, as far as the limits admit it that apply to the hold's usage.
func (d *decision) besides(h *credit.Hold, amount credit.Amount, overage bool) (sel credit.Selection, gates []credit.Gate, err error) {
	if err = d.c.entitled(h.MemberID, h.Dims); err != nil {
		return sel, nil, err
	}
	if gates, err = d.c.gates(h.Unit, h.MemberID, h.Dims); err != nil {
		return sel, nil, err
	}
	grants := d.c.grants
	if !overage {
		grants = withoutOverage(grants)
	}
	sel, err = credit.Select(grants, credit.Need{At: d.c.at, Unit: h.Unit, Member: h.MemberID, Dims: h.Dims, Gates: gates,
		Cost: func(credit.RateLock) (credit.Amount, error) { return amount, nil }}, d.job.draws[:0])
	switch {
	case err != nil || sel.Short == 0:
	case sel.Gate > 0:
		err = d.limitRefusal(&gates[sel.Gate-1], sel, h.Unit, d.scale(h.Unit))
	default:
		err = (&Consume{}).refusal(sel, h.Unit, d.scale(h.Unit))
	}
	return sel, gates, err
}

func (o *CaptureHold) decide(d *decision) (receipt, error) {
	h, err := d.hold(o.Hold)
	if err != nil {
		return nil, err
	}
	switch {
	case h.Status != credit.HoldOpen && h.Status != credit.HoldExpired:
		return nil, endedRefusal(h)
	case !d.c.at.Before(h.ExpiresAt.Add(CaptureGrace)):
		h.Status = credit.HoldExpired
		return nil, endedRefusal(h)
	}
	need, priced, err := d.cost(h, o.Amount, o.Usage)
	if err != nil {
		return nil, err
	}
	if err := d.c.heldIn(h); err != nil {
		return nil, err
	}
	var returned []credit.Draw
	if need < 0 {
		gates, err := d.c.gates(h.Unit, h.MemberID, h.Dims)
		if err != nil {
			return nil, err
		}
		if err = d.c.lowers(gates, -need); err != nil {
			return nil, err
		}
		if returned, err = d.giveBack(h.Unit, -need); err != nil {
			return nil, err
		}
		d.lower(gates, returned)
		need = 0
	}
	scale := d.scale(h.Unit)
	held := h.Left()
	if h.Status == credit.HoldExpired {
		held = h.Amount - h.Captured - h.Extra // what the caller may think is held
	}
	if need > max(0, held) && o.Over == CaptureReject {
		return nil, credit.Errorf(credit.CaptureExceedsHold, "%s %s are to be captured and %s are held.", need.Format(scale), h.Unit, max(0, held).Format(scale)).
			With("required", need.Format(scale)).With("held", max(0, held).Format(scale))
	}
	var besides credit.Selection
	var gates []credit.Gate
	if rest := need - h.Left(); rest > 0 {
		if besides, gates, err = d.besides(h, rest, o.Over == CaptureOverage); err != nil {
			return nil, err
		}
		h.Extra += rest
	}
	// Nothing is refused from here on.
	d.passes(gates, besides.Draws, false)
	rest := need
	for i := range h.Lines {
		l := &h.Lines[i]
		n := min(l.Left(), rest)
		if n == 0 {
			continue
		}
		g, err := d.editable(l.Grant)
		if err != nil {
			return nil, err
		}
		l.Captured += n
		h.Captured += n
		g.Held -= n
		g.Consumed += n
		d.move(g, "held", "consumed", n)
		d.unhold(h, i, g.Wallet.ID, n, true)
		d.emptied(g)
		rest -= n
	}
	for _, draw := range besides.Draws {
		g, err := d.editable(draw.Grant.ID) // which may have been edited just now
		if err != nil {
			return nil, err
		}
		g.Available -= draw.Amount
		g.Consumed += draw.Amount
		d.move(g, "available", "consumed", draw.Amount)
		d.emptied(g)
	}
	if len(priced) > 0 {
		d.c.count(priced[0].Changes, d.ver)
	}
	if !o.More && h.Status == credit.HoldOpen {
		if err := d.letGo(h, credit.HoldCaptured); err != nil {
			return nil, err
		}
	}
	d.keep(h)
	d.kind, d.unit, d.serviceAt, d.member, d.dims = "capture", h.Unit, h.ServiceAt, h.MemberID, h.Dims
	d.amount = d.movedAmount()
	doc := d.describeHold(h, priced)
	doc.CapturedNow = need.Format(scale)
	if o.Reason != "" {
		doc.Reason = o.Reason
	}
	if len(returned) > 0 {
		doc.GivenBack = sumOf(returned).Format(scale)
	}
	return d.holdReceipt("captured", doc), nil
}

// movedAmount sums the operation's movements.
func (d *decision) movedAmount() (sum credit.Amount) {
	for _, m := range d.changes.Movements[len(d.changes.Movements)-int(d.moved):] {
		sum += m.Amount
	}
	return sum
}

// emptied closes a grant that has nothing left and holds nothing any more.
func (d *decision) emptied(g *credit.Grant) {
	if g.Available > 0 || g.Held > 0 || g.Status != credit.StatusOpen {
		return
	}
	if g.PastExpiry(d.c.at) && !g.Frozen {
		g.Status = credit.StatusExpired
		d.tell(g.ID, "expired")
		d.grantEvent("expired", d.describe(g))
		return
	}
	g.Status = credit.StatusDepleted
	d.tell(g.ID, "depleted")
	d.grantEvent("depleted", d.describe(g))
}

// letGo returns what a hold still holds to its grants, and ends it. What comes back to a grant past its expiry is breakage at once.
func (d *decision) letGo(h *credit.Hold, status credit.HoldStatus) error {
	if err := d.c.heldIn(h); err != nil {
		return err
	}
	for i := range h.Lines {
		l := &h.Lines[i]
		n := l.Left()
		if n == 0 {
			continue
		}
		g, err := d.editable(l.Grant)
		if err != nil {
			return err
		}
		l.Released += n
		h.Released += n
		g.Held -= n
		d.unhold(h, i, g.Wallet.ID, n, false)
		if g.Status == credit.StatusVoided {
			g.Voided += n // a dispute took the rest of it while this was held
			d.move(g, "held", "voided", n)
		} else if g.PastExpiry(d.c.at) && !g.Frozen {
			g.Expired += n
			d.move(g, "held", "expired", n)
		} else {
			g.Available += n
			d.move(g, "held", "available", n)
		}
		d.emptied(g)
	}
	h.Status = status
	return nil
}

func (o *ReleaseHold) decide(d *decision) (receipt, error) {
	h, err := d.hold(o.Hold)
	if err != nil {
		return nil, err
	}
	if h.Status != credit.HoldOpen {
		return nil, endedRefusal(h)
	}
	return d.end(h, credit.HoldReleased)
}

func (o *ExpireHold) decide(d *decision) (receipt, error) {
	h, err := d.hold(o.Hold)
	if err != nil {
		return nil, err
	}
	switch {
	case h.Status != credit.HoldOpen:
		return nil, endedRefusal(h)
	case d.c.at.Before(h.ExpiresAt):
		return nil, credit.Errorf(credit.InvalidRequest, "The hold lasts until %s.", Instant(h.ExpiresAt))
	}
	return d.end(h, credit.HoldExpired)
}

func (d *decision) end(h *credit.Hold, status credit.HoldStatus) (receipt, error) {
	if err := d.letGo(h, status); err != nil {
		return nil, err
	}
	d.keep(h)
	d.kind, d.amount, d.unit, d.serviceAt, d.member = "release", d.movedAmount(), h.Unit, d.c.at, h.MemberID
	return d.holdReceipt(string(status), d.describeHold(h, nil)), nil
}

// holdReceipt tells the outside what has become of a hold, and answers the same.
func (d *decision) holdReceipt(kind string, doc HoldDocument) receipt {
	d.event("hold."+kind, doc.ID.String(), facts{"hold": doc})
	return jsonReceipt(doc)
}

// HoldDocument describes a hold.
type HoldDocument struct {
	ID          credit.HoldID      `json:"id"`
	CustomerID  credit.CustomerID  `json:"customer_id"`
	MemberID    *credit.MemberID   `json:"member_id,omitempty"`
	Unit        string             `json:"unit"`
	Status      credit.HoldStatus  `json:"status"`
	Amount      string             `json:"amount"`   // ever held
	Held        string             `json:"held"`     // still
	Captured    string             `json:"captured"` // all in all, also beyond what was held
	Released    string             `json:"released"`
	CapturedNow string             `json:"captured_now,omitempty"` // by this capture
	GivenBack   string             `json:"given_back,omitempty"`   // by this capture, when it makes earlier usage of its period cheaper by more than it costs
	ExpiresAt   Instant            `json:"expires_at"`
	ServiceAt   Instant            `json:"service_at"`
	CreatedAt   Instant            `json:"created_at"`
	RateCardID  *credit.RateCardID `json:"rate_card_id,omitempty"` // pinned, with RateVersion
	RateVersion int                `json:"rate_version,omitempty"`
	Dimensions  credit.Dimensions  `json:"dimensions,omitempty"`
	Reason      string             `json:"reason,omitempty"`
	Lines       []HoldLineDocument `json:"lines"`
	Pricing     []any              `json:"pricing,omitempty"`   // of what was asked for; each a [PricingDocument]
	Available   string             `json:"available,omitempty"` // left to this customer in this unit, all wallets; in the answer to an operation
	Ver         int64              `json:"ver,omitempty"`       // in the answer to an operation
}

// HoldLineDocument is a hold's share of a grant.
type HoldLineDocument struct {
	GrantID  credit.GrantID `json:"grant_id"`
	Amount   string         `json:"amount"`
	Captured string         `json:"captured"`
	Released string         `json:"released"`
}

// DescribeHold describes a hold in a unit of so many decimal places.
func DescribeHold(h *credit.Hold, scale int) HoldDocument {
	doc := HoldDocument{
		ID: h.ID, CustomerID: h.CustomerID, Unit: h.Unit, Status: h.Status, Amount: h.Amount.Format(scale), Held: h.Left().Format(scale),
		Captured: (h.Captured + h.Extra).Format(scale), Released: h.Released.Format(scale), ExpiresAt: Instant(h.ExpiresAt), ServiceAt: Instant(h.ServiceAt),
		CreatedAt: Instant(h.CreatedAt), RateVersion: h.Rate.Version, Dimensions: h.Dims, Reason: h.Reason, Lines: make([]HoldLineDocument, 0, len(h.Lines)),
	}
	if !h.MemberID.IsZero() {
		doc.MemberID = &h.MemberID
	}
	if !h.Rate.Card.IsZero() {
		doc.RateCardID = &h.Rate.Card
	}
	for _, l := range h.Lines {
		doc.Lines = append(doc.Lines, HoldLineDocument{GrantID: l.Grant, Amount: l.Amount.Format(scale), Captured: l.Captured.Format(scale), Released: l.Released.Format(scale)})
	}
	return doc
}

func (d *decision) describeHold(h *credit.Hold, priced []rating.Priced) HoldDocument {
	scale := d.scale(h.Unit)
	doc := DescribeHold(h, scale)
	for _, p := range describePricing(priced, scale) {
		doc.Pricing = append(doc.Pricing, p)
	}
	doc.Available, doc.Ver = available(d.c.grants, h.Unit, d.c.at).Format(scale), d.ver
	return doc
}

// holdSweep is how often a process looks for holds past their deadline, and how many it ends at once.
const (
	holdSweep      = 200 * time.Millisecond
	holdSweepAgain = time.Second // after a fault
	holdSweepBatch = 500
)

// sweepHolds lets go of holds past their deadline until the service stops. It needs no worker; any number of processes may do it.
func (s *Service) sweepHolds() {
	tick := time.NewTicker(holdSweep)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		next := holdSweep
		switch n, err := s.endDueHolds(); {
		case err != nil:
			s.log.Warn("holds past their deadline stay for now", "error", err)
			next = holdSweepAgain
		case n == holdSweepBatch:
			next = time.Millisecond // there are more
		}
		tick.Reset(next)
	}
}

// endDueHolds returns how many it found. The error is about the first that could not be ended; the others were, and the next round tries again.
func (s *Service) endDueHolds() (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Deadline)
	defer cancel()
	due, err := s.store.DueHolds(ctx, holdSweepBatch)
	if err != nil {
		return 0, err
	}
	ops := make([]Operation, len(due))
	for i, h := range due {
		ops[i] = &ExpireHold{Header: Header{Customer: h.Customer}, Hold: h.ID}
	}
	for i, r := range s.DoAll(ctx, ops) {
		switch credit.CodeOf(r.Err) {
		case credit.HoldEnded, credit.InvalidRequest: // somebody was quicker, or moved the deadline
		default:
			if r.Err != nil && err == nil {
				err = fmt.Errorf("end hold %s: %w", due[i].ID, r.Err)
			}
		}
	}
	return len(due), err
}
