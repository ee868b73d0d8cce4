package balance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

// Correct undoes a recorded consumption or capture, in whole or in part: credits go back to the grants that it drew from, the last draw first, whatever
// today's rules would choose. Exactly one of All, Units, To and Usage says how much. What To or Usage ask for beyond what was consumed is consumed
// now, from what the customer has now. What comes back to a grant that has expired is breakage at once, or, with Reissue, a new grant.
// What the operation counted for its period goes back by the quantities that are undone, where the period's counter still has them.
//
// It is refused with not_found, not_correctable (with what still is), grant_state (a voided grant takes nothing back without Reissue),
// insufficient_credits, and as the pricing of Usage would be. The receipt is the JSON of a [CorrectionDocument].
type Correct struct {
	Header
	Ver     int64          // of the operation
	All     bool           // all that is left of it
	Units   credit.Amount  // credits to give back
	To      *credit.Amount // what it should have consumed
	Usage   []rating.Line  // what was used: priced at the version and the standing of the period that the operation was priced at
	Reissue *Reissue       // nil: what has expired is breakage
	Reason  string
}

// Reissue says that credits which come back too late become a new grant: with the class and the price that they had.
type Reissue struct {
	ExpiresAt time.Time // zero: never
}

func (o *Correct) check() error {
	n := 0
	for _, given := range []bool{o.All, o.Units != 0, o.To != nil, o.Usage != nil} {
		if given {
			n++
		}
	}
	if n != 1 || o.Units < 0 || o.Units > credit.MaxAmount || o.To != nil && (*o.To < 0 || *o.To > credit.MaxAmount) {
		return credit.Errorf(credit.InvalidAmount, "A correction is of all, or of a positive number of credits, or to an amount or a usage.")
	}
	return checkCosts(o.Usage)
}

// recorded returns an operation of the customer as it stands.
func (d *decision) recorded(ver int64) (*db.Recorded, error) {
	r, known := d.c.recorded[ver]
	switch {
	case !known:
		return nil, &want{recorded: ver}
	case r == nil:
		return nil, credit.Errorf(credit.NotFound, "The customer has no operation %d.", ver)
	}
	return r, nil
}

// said is what a receipt of a consumption, a capture or a correction says about its price.
type said struct {
	Partial bool              `json:"partial"`
	Pricing []PricingDocument `json:"pricing"`
}

// lines are the usage that was priced.
func (s *said) lines() ([]rating.Line, error) {
	var lines []rating.Line
	for _, l := range s.Pricing[0].Lines {
		q, err := decimal.NewFromString(l.Quantity)
		if err != nil {
			return nil, fmt.Errorf("read a quantity of a receipt: %w", err)
		}
		lines = append(lines, rating.Line{Meter: l.Meter, Quantity: q, Dims: l.Dimensions})
	}
	return lines, nil
}

// standing is what counters stood at before a usage was priced, as its receipt says; of others what they stand at now.
type standing struct {
	then rating.Counters
	now  rating.State
}

// Counter implements [rating.State].
func (s standing) Counter(k rating.CounterKey) rating.Counter {
	if c, ok := s.then[k]; ok {
		return c
	}
	return s.now.Counter(k)
}

func (s *said) standing(now rating.State) (standing, error) {
	then := rating.Counters{}
	for _, l := range s.Pricing[0].Lines {
		if l.Counter == nil {
			continue
		}
		k, err := rating.ParseCounterKey(l.Counter.Key)
		if err != nil {
			return standing{}, fmt.Errorf("read a counter of a receipt: %w", err)
		}
		if _, first := then[k]; first {
			continue // a later line of the same usage
		}
		var c rating.Counter
		if l.Counter.Before != "0" {
			version := l.Version
			if version == 0 {
				version = s.Pricing[0].Version
			}
			if c, err = rating.ParseCounter(fmt.Sprintf("%d,%s=%s", version, l.RateID, l.Counter.Before)); err != nil {
				return standing{}, err
			}
		}
		then[k] = c
	}
	return standing{then, now}, nil
}

// amendment is what a correction comes to.
type amendment struct {
	back    credit.Amount // to give back
	more    credit.Amount // to take
	whole   bool
	changes []rating.Change // of counters
	priced  []rating.Priced // of the usage as it was
}

func (o *Correct) decide(d *decision) (receipt, error) {
	r, err := d.recorded(o.Ver)
	if err != nil {
		return nil, err
	}
	if r.Kind != "consume" && r.Kind != "capture" && r.Kind != "correct" {
		return nil, notCorrectable(r, 0, "An operation of the kind %s consumed nothing.", r.Kind)
	}
	scale := d.scale(r.Unit)
	a, err := o.amend(d, r, scale)
	if err != nil {
		return nil, err
	}
	backs, err := o.backs(d, r, a.back, scale)
	if err != nil {
		return nil, err
	}
	gates, err := d.c.gates(r.Unit, r.Member, r.Dims)
	if err != nil {
		return nil, err
	}
	if err := d.c.lowers(gates, a.back); err != nil {
		return nil, err
	}
	var sel credit.Selection
	if a.more > 0 {
		if sel, err = credit.Select(d.c.grants, credit.Need{At: d.c.at, Unit: r.Unit, Member: r.Member, Dims: r.Dims, Gates: gates,
			Cost: func(credit.RateLock) (credit.Amount, error) { return a.more, nil }}, d.job.draws[:0]); err != nil {
			return nil, err
		}
		switch {
		case sel.Short > 0 && sel.Gate > 0:
			return nil, d.limitRefusal(&gates[sel.Gate-1], sel, r.Unit, scale)
		case sel.Short > 0:
			return nil, (&Consume{}).refusal(sel, r.Unit, scale)
		}
	}
	// Nothing is refused from here on.
	doc := CorrectionDocument{
		Operation: operationName(d.c.id, d.ver), Corrects: operationName(d.c.id, o.Ver), CustomerID: d.c.id, Ver: d.ver, Unit: r.Unit,
		Dimensions: r.Dims, Draws: []DrawDocument{}, Returns: []DrawDocument{}, Reason: o.Reason, ServiceAt: Instant(r.ServiceAt),
	}
	for _, draw := range backs {
		g := draw.Grant
		if o.Reissue != nil && lost(g, d.c.at) {
			arrived, err := d.reissue(g, draw.Amount, o.Reissue.ExpiresAt)
			if err != nil {
				return nil, err
			}
			doc.Reissued = append(doc.Reissued, d.transferred(g, arrived, scale))
			g, _ = d.c.find(g.ID)
		} else {
			g = d.restore(g, draw.Amount)
		}
		doc.Returns = append(doc.Returns, describeDraw(g, draw.Amount, scale))
	}
	for _, draw := range sel.Draws {
		g := d.c.edit(draw.Grant, false)
		g.Available -= draw.Amount
		g.Consumed += draw.Amount
		d.move(g, "available", "consumed", draw.Amount)
		d.emptied(g)
		doc.Draws = append(doc.Draws, describeDraw(g, draw.Amount, scale))
	}
	d.lower(gates, backs)
	d.passes(gates, sel.Draws, false)
	d.c.count(a.changes, d.ver)
	now := *r
	now.Corrected += a.back
	now.Whole = a.whole
	if a.priced != nil {
		now.UsageOf, doc.Pricing = d.ver, describePricing(a.priced, scale)
	}
	if a.more > 0 {
		now.RaisedBy = d.ver
	}
	d.amend(&now)
	d.kind, d.unit, d.serviceAt, d.member, d.dims, d.amount = "correct", r.Unit, r.ServiceAt, r.Member, r.Dims, d.movedAmount()
	doc.GivenBack, doc.Taken, doc.Left = a.back.Format(scale), a.more.Format(scale), (now.Amount - now.Corrected).Format(scale)
	doc.Available = available(d.c.grants, r.Unit, d.c.at).Format(scale)
	if !r.Member.IsZero() {
		doc.MemberID = &now.Member
	}
	d.event("operation.corrected", doc.Corrects, facts{"correction": doc})
	return jsonReceipt(doc), nil
}

// amend makes r how the operation stands from now on.
func (d *decision) amend(r *db.Recorded) {
	d.c.recorded[r.Ver] = r
	if d.c.amended == nil {
		d.c.amended = make(map[int64]bool)
	}
	d.c.amended[r.Ver] = true
}

func notCorrectable(r *db.Recorded, scale int, format string, args ...any) *credit.Error {
	return credit.Errorf(credit.NotCorrectable, format, args...).With("correctable", (r.Amount - r.Corrected).Format(scale))
}

// amend works out how much goes back or is taken, and what of the period's counters is undone.
func (o *Correct) amend(d *decision, r *db.Recorded, scale int) (a amendment, err error) {
	left := r.Amount - r.Corrected
	if r.Whole {
		return a, notCorrectable(r, scale, "Nothing is left of the operation.")
	}
	var first, last said // what the operation says, and what is known about its usage now
	if err := json.Unmarshal(r.Receipt, &first); err != nil {
		return a, fmt.Errorf("read receipt of operation %d: %w", r.Ver, err)
	}
	last = first
	if r.Said != nil {
		last = said{}
		if err := json.Unmarshal(r.Said, &last); err != nil {
			return a, fmt.Errorf("read receipt of operation %d: %w", r.UsageOf, err)
		}
	}
	if r.RaisedBy > 0 && (o.To != nil || o.Usage != nil) {
		return a, notCorrectable(r, scale, "Operation %d took more in its stead and can be corrected itself; of this one credits or all can be given back.", r.RaisedBy)
	}
	target := left
	switch {
	case o.All:
		target = 0
	case o.To != nil:
		target = *o.To
	case o.Usage != nil:
		if target, a.priced, err = o.reprice(d, r, &first, scale); err != nil {
			return a, err
		}
	default:
		target = left - o.Units
	}
	switch {
	case target < 0 && o.Usage == nil:
		return a, notCorrectable(r, scale, "%s %s of the operation can still be given back, %s were asked for.", left.Format(scale), r.Unit, o.Units.Format(scale))
	case target < left:
		a.back = left - max(0, target)
	default:
		a.more = target - left
	}
	a.whole = o.All || a.back == left && a.more == 0 && o.Usage == nil
	// What a correction took besides has no usage of its own: the quantities stay counted for as long as both are there.
	if (a.whole || o.Usage != nil) && len(last.Pricing) > 0 && r.Kind != "correct" && r.RaisedBy == 0 {
		a.changes, err = o.uncount(d, r, &last)
	}
	return a, err
}

// reprice returns what the operation should have consumed if this had been its usage, and the usage's price.
func (o *Correct) reprice(d *decision, r *db.Recorded, first *said, scale int) (credit.Amount, []rating.Priced, error) {
	switch {
	case r.Kind == "correct":
		return 0, nil, notCorrectable(r, scale, "The operation took what a correction asked for besides; correct it by credits.")
	case len(first.Pricing) == 0:
		return 0, nil, notCorrectable(r, scale, "The operation is of an amount, not of a usage.")
	case len(first.Pricing) > 1:
		return 0, nil, notCorrectable(r, scale, "Several versions of the rate card priced the operation; correct it by credits.")
	case first.Partial:
		return 0, nil, notCorrectable(r, scale, "The operation was carried out in part; correct it by credits.")
	}
	p := &first.Pricing[0]
	for _, l := range p.Lines {
		if l.Model == string(rating.CostPlus) {
			return 0, nil, notCorrectable(r, scale, "The price goes by what the usage cost to serve; correct it by credits.")
		}
		if l.Counter == nil {
			continue
		}
		if k, err := rating.ParseCounterKey(l.Counter.Key); err != nil || k.Kind != rating.SumCounter && k.Kind != rating.CountCounter {
			return 0, nil, notCorrectable(r, scale, "What the meter %s counts cannot be taken back; correct the operation by credits.", l.Meter)
		}
	}
	was, err := first.lines()
	if err != nil {
		return 0, nil, err
	}
	then, err := first.standing(d.c)
	if err != nil {
		return 0, nil, err
	}
	usage := rating.Usage{At: r.ServiceAt, Dims: r.Dims, Lines: was}
	before, err := d.priceAt(p.RateCardID, p.Version, usage, then)
	if err != nil {
		return 0, nil, err
	}
	usage.Lines = o.Usage
	after, err := d.priceAt(p.RateCardID, p.Version, usage, then)
	if err != nil {
		return 0, nil, err
	}
	return r.Amount + after.Total - before.Total, []rating.Priced{after}, nil
}

// uncount returns what the counters of the period stand at without the usage, and with the one that the correction names. Where they do not have it any
// more, or cannot give it back, they stay as they are.
func (o *Correct) uncount(d *decision, r *db.Recorded, last *said) ([]rating.Change, error) {
	lines, err := last.lines()
	if err != nil {
		return nil, err
	}
	p := &last.Pricing[0]
	usage := rating.Usage{At: r.ServiceAt, Dims: r.Dims, Lines: lines, Correction: true}
	undone, err := d.priceAt(p.RateCardID, p.Version, usage, d.c)
	if err != nil {
		return nil, orStay(err)
	}
	changes := undone.Changes
	if o.Usage != nil {
		then := rating.Counters{}
		then.Apply(changes)
		for _, ch := range changes {
			if ch.Counter.IsZero() {
				then[ch.Key] = rating.Counter{}
			}
		}
		usage.Lines, usage.Correction = o.Usage, false
		counted, err := d.priceAt(p.RateCardID, p.Version, usage, standing{then, d.c})
		if err != nil {
			return nil, orStay(err)
		}
		for _, ch := range counted.Changes {
			if i := slices.IndexFunc(changes, func(c rating.Change) bool { return c.Key == ch.Key }); i >= 0 {
				changes[i] = ch
			} else {
				changes = append(changes, ch)
			}
		}
	}
	// What rounding has left to carry belongs to the credits that are charged, and those were undone as they were recorded.
	return slices.DeleteFunc(changes, func(c rating.Change) bool { return c.Key.Kind == rating.Remainder }), nil
}

// orStay lets counters stay where a refusal says that they cannot go back; what must be read first, and a fault, it returns.
func orStay(err error) error {
	if _, refused := errors.AsType[*credit.Error](err); refused {
		return nil
	}
	return err
}

// priceAt prices a usage with counters that stand at state; what of the customer's must be read first is a [want].
func (d *decision) priceAt(card credit.RateCardID, version int, u rating.Usage, state rating.State) (rating.Priced, error) {
	p, err := d.book.Price(card, version, u, state, d.rates)
	if missing := d.c.missing; len(missing) > 0 {
		d.c.missing = nil
		return rating.Priced{}, &want{counters: missing}
	}
	return p, err
}

// backs are what goes back to which grants: the operation's draws, the last first, without what corrections have undone already.
func (o *Correct) backs(d *decision, r *db.Recorded, back credit.Amount, scale int) ([]credit.Draw, error) {
	undone := r.Corrected
	var backs []credit.Draw
	for _, was := range slices.Backward(r.Draws) {
		skip := min(undone, was.Amount)
		undone -= skip
		n := min(was.Amount-skip, back)
		if n == 0 {
			continue
		}
		back -= n
		if i := slices.IndexFunc(backs, func(b credit.Draw) bool { return b.Grant.ID == was.Grant }); i >= 0 {
			backs[i].Amount += n
			continue
		}
		g, err := d.c.find(was.Grant)
		if err != nil {
			return nil, fmt.Errorf("find a grant of operation %d: %w", r.Ver, err)
		}
		backs = append(backs, credit.Draw{Grant: g, Amount: n})
	}
	for _, b := range backs {
		g := b.Grant
		switch {
		case g.Consumed < b.Amount:
			return nil, notCorrectable(r, scale, "%s of the %s %s that would go back to grant %s have been given back otherwise.",
				(b.Amount - g.Consumed).Format(scale), b.Amount.Format(scale), r.Unit, g.ID)
		case g.Status == credit.StatusVoided:
			if err := d.undisputed(g); err != nil {
				return nil, err
			}
		}
		switch {
		case g.Status == credit.StatusVoided && o.Reissue == nil:
			return nil, credit.Errorf(credit.GrantState, "Grant %s was voided and takes nothing back; its credits can be reissued.", g.ID).With("state", string(credit.StateVoided))
		case o.Reissue == nil || !lost(g, d.c.at):
		case g.Type == credit.Overage:
			return nil, credit.Errorf(credit.GrantState, "Overage is not reissued.").With("state", string(g.State(d.c.at)))
		default:
			if err := d.uncontested(g); err != nil {
				return nil, err
			}
			if _, err := d.refunded(g); err != nil {
				return nil, err
			}
		}
	}
	if e := o.Reissue; e != nil && !e.ExpiresAt.IsZero() && !e.ExpiresAt.After(d.c.at) {
		return nil, credit.Invalid("/reissue/expires_at", "The new grant would be over before it begins.")
	}
	return backs, nil
}

// lost tells whether credits that come back to a grant at t cannot serve from it any more.
func lost(g *credit.Grant, t time.Time) bool {
	return g.Status == credit.StatusExpired || g.Status == credit.StatusVoided || g.PastExpiry(t) && !g.Frozen
}

// reissue returns consumed credits as a new grant in the wallet of the one that they were drawn from.
func (d *decision) reissue(g *credit.Grant, amount credit.Amount, expiresAt time.Time) (*credit.Grant, error) {
	g = d.c.edit(g, false)
	g.Consumed -= amount
	g.Available += amount
	d.move(g, "consumed", "available", amount)
	part, err := d.carve(g, amount)
	if err != nil {
		return nil, err
	}
	if g.Status == credit.StatusDepleted {
		g.Status = credit.StatusExpired
	}
	part.EffectiveAt, part.ExpiresAt = d.c.at, expiresAt.UTC().Truncate(time.Microsecond)
	return d.receive(part, d.c.wallets[g.Wallet.ID]), nil
}

func describeDraw(g *credit.Grant, amount credit.Amount, scale int) DrawDocument {
	return DrawDocument{GrantID: g.ID, WalletID: g.Wallet.ID, Type: g.Type, Amount: amount.Format(scale), Left: g.Available.Format(scale)}
}

// CorrectionDocument answers a correction.
type CorrectionDocument struct {
	Operation  string                  `json:"operation"`
	Corrects   string                  `json:"corrects"` // the operation that it corrects
	CustomerID credit.CustomerID       `json:"customer_id"`
	MemberID   *credit.MemberID        `json:"member_id,omitempty"`
	Ver        int64                   `json:"ver"`
	Unit       string                  `json:"unit"`
	GivenBack  string                  `json:"given_back"`
	Returns    []DrawDocument          `json:"returns"` // to which grants, the last drawn first
	Reissued   []TransferGrantDocument `json:"reissued,omitempty"`
	Taken      string                  `json:"taken"` // consumed now
	Draws      []DrawDocument          `json:"draws"`
	Left       string                  `json:"left"`              // of what the corrected operation consumed itself, not given back
	Pricing    []json.RawMessage       `json:"pricing,omitempty"` // of the usage as it was; each a [PricingDocument]
	ServiceAt  Instant                 `json:"service_at"`
	Dimensions credit.Dimensions       `json:"dimensions,omitempty"`
	Reason     string                  `json:"reason"`
	Available  string                  `json:"available"` // to the customer in this unit, all wallets
}
