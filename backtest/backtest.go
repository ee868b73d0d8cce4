// Package backtest answers what a rate card would have charged for what was really used: it decides a customer's recorded operations of a
// period again, with a document in the place of what was published, and puts beside it what was booked. Functions of values: no I/O, no
// clock, no context; nothing live is touched. README.md in this folder is its one-page description.
package backtest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

type (
	// World is what all customers of a back-test have in common. It may be used by any number of goroutines.
	World struct {
		Cards  *Cards
		Rates  rating.Rates   // exchange rates for what was not converted then; nil: none
		Scales map[string]int // decimal places, by the code of the unit
	}
	// Operation is a row of a customer's history: see the table operations.
	Operation struct {
		Ver           int64
		Kind          string
		Amount        credit.Amount
		At, ServiceAt time.Time
		Member        credit.MemberID
		Unit          string
		Receipt       []byte
	}
	// Balance is what a grant had at the start of the period.
	Balance struct {
		Grant               credit.GrantID
		Available, Consumed credit.Amount
		Drawn               int64 // orders the grants by when something was drawn of them last; 0: never
	}
)

// Customer is a customer under test. Its methods are called in this order, with the operations in order of version: Shape with those before
// the period that are no consumptions; Open; Count with the consumptions before the period from [CountFrom] on; Run with all operations
// of the period; Close.
type Customer struct {
	world    *World
	card     credit.RateCardID // of events at which none is assigned
	assigned []assignment
	wallets  map[credit.WalletID]*credit.Wallet
	grants   map[credit.GrantID]*grant
	open     []*credit.Grant // under test, in draw-down order
	unsorted bool
	shaping  bool
	seq      int64 // of the draw made last
	book     *rating.Book
	known    time.Time // until when the book is what was known; operations come in order of time
	counted  rating.Counters
	draws    []credit.Draw
	result   Result
	lines    map[lineKey]*Line
}

// assignment says that a card prices the events of [from, to); zero to: until further notice.
type assignment struct {
	id       credit.AssignmentID
	card     credit.RateCardID
	from, to time.Time
}

// grant is a grant under test, beside what was booked of it.
type grant struct {
	credit.Grant                  // as it is under test
	made         bool             // it was there before the operation at hand
	booked       credit.Amount    // available, as it was booked
	carried      [2]carrying      // by side
	drawn        int64            // orders the grants by when something was drawn of them last under test
	spent        [2]credit.Amount // used less given back in the period, by side
	gone         [2]credit.Amount // expired in the period, by side
}

// NewCustomer makes a customer as it was before its first operation: with the card that it was made with, zero being the default one, and with
// all grants that it has had to this day, of which those fields are used that never change. Their Wallet needs only the ID. currency is that of the
// customer's legal entity.
func NewCustomer(world *World, currency string, card credit.RateCardID, grants []*credit.Grant) *Customer {
	c := &Customer{
		world: world, card: card, wallets: make(map[credit.WalletID]*credit.Wallet), grants: make(map[credit.GrantID]*grant, len(grants)),
		shaping: true, counted: rating.Counters{}, lines: make(map[lineKey]*Line), result: Result{Currency: currency},
	}
	for _, g := range grants {
		mine := &grant{Grant: *g}
		mine.Status, mine.Frozen, mine.Granted, mine.Available, mine.Consumed = credit.StatusPending, false, 0, 0, 0
		c.grants[g.ID] = mine
	}
	return c
}

// Shape takes in an operation before the period that is no consumption: wallets, cards, and how grants stand.
func (c *Customer) Shape(op *Operation) error {
	if err := c.change(op); err != nil {
		return fmt.Errorf("operation %d: %w", op.Ver, err)
	}
	return nil
}

// Open begins the period with what the grants had then; a grant that is not named had nothing.
func (c *Customer) Open(balances []Balance) error {
	c.shaping, c.book = false, nil // what is counted next may be older than what has shaped the customer
	had := make(map[credit.GrantID]Balance, len(balances))
	for _, b := range balances {
		had[b.Grant] = b
		c.seq = max(c.seq, b.Drawn)
	}
	for id, g := range c.grants {
		b := had[id]
		g.Available, g.Consumed, g.booked, g.drawn = b.Available, b.Consumed, b.Available, b.Drawn
		if g.Status == credit.StatusPending {
			continue
		}
		if g.Status == credit.StatusOpen && g.Available == 0 {
			g.Status = credit.StatusDepleted
		}
		if g.Status == credit.StatusOpen {
			c.open, c.unsorted = append(c.open, &g.Grant), true
		}
		for side := range g.carried {
			g.carried[side] = newCarrying(&g.Grant)
		}
	}
	return nil
}

// Count takes a consumption before the period into the counters, as it was priced then.
func (c *Customer) Count(op *Operation) error {
	if op.Kind != consume && op.Kind != reverse {
		return nil
	}
	e, err := c.read(op)
	if err == nil && e.priced {
		_, err = c.price(op, e, nil)
	}
	var refusal *credit.Error
	if err != nil && !errors.As(err, &refusal) {
		return fmt.Errorf("operation %d: %w", op.Ver, err)
	}
	return nil
}

// Kinds of operations that have a meaning here.
const (
	consume = "consume"
	reverse = "reverse"
)

// errHolds says why a customer is left out.
var errHolds = errors.New("the customer has held credits; holds and captures are not decided again")

// errMoved says the same of customers whose credits were moved by hand.
var errMoved = errors.New("the customer's operations were corrected, or its credits transferred, decremented or disputed; these are not decided again")

// errCards says it of one that has, or had, a member with a rate card of its own.
var errCards = errors.New("a member of the customer has had a rate card of its own; what it used is not decided again")

// errLimits says it of one whose usage hard limits have bounded, and so which wallets have paid.
var errLimits = errors.New("the customer has hard limits; what they admit is not decided again")

// Run decides an operation of the period again, and takes in what was booked of it.
func (c *Customer) Run(op *Operation) (err error) {
	if op.Kind == consume || op.Kind == reverse {
		err = c.consume(op)
	} else {
		err = c.change(op)
	}
	if err != nil {
		return fmt.Errorf("operation %d: %w", op.Ver, err)
	}
	return nil
}

func (c *Customer) read(op *Operation) (*event, error) {
	scale, ok := c.world.Scales[op.Unit]
	if !ok {
		return nil, fmt.Errorf("there is no unit %q", op.Unit)
	}
	return readEvent(op.Receipt, scale, op.ServiceAt)
}

// consume decides a consumption again.
func (c *Customer) consume(op *Operation) error {
	e, err := c.read(op)
	if err != nil {
		return err
	}
	line := c.line(op.Unit, e.dims["product"], e.dims["model"])
	c.result.Events++
	line.Booked.Events++
	if err := c.bookEvent(op, e, line); err != nil {
		return err
	}
	cost, known := c.computeCost(op, e)
	if known {
		line.Booked.addCost(cost)
	}
	short, err := c.charge(op, e, line)
	var refusal *credit.Error
	switch {
	case errors.As(err, &refusal):
		line.Tested.Unpriced++
		if c.result.Unpriced++; c.result.Why == "" {
			c.result.Why = refusal.Detail
		}
	case err != nil:
		return err
	case short:
		line.Tested.Refused++
		if c.result.Refused++; c.result.RefusedFirst.IsZero() {
			c.result.RefusedFirst = op.At
		}
	default:
		line.Tested.Events++
		if known {
			line.Tested.addCost(cost)
		}
	}
	return nil
}

// computeCost is what it cost to compute, in the customer's currency.
func (c *Customer) computeCost(op *Operation, e *event) (decimal.Decimal, bool) {
	switch {
	case e.currency == "" || c.result.Currency == "":
		return decimal.Decimal{}, false
	case e.currency == c.result.Currency:
		return e.cost, true
	}
	fx, err := (&eventRates{e.fx, c.world.Rates}).Rate(e.currency, c.result.Currency, op.ServiceAt)
	return e.cost.Mul(fx.Rate), err == nil
}

// bookEvent takes in what was charged then.
func (c *Customer) bookEvent(op *Operation, e *event, line *Line) error {
	for _, s := range e.draws {
		g := c.grants[s.grant]
		if g == nil {
			return fmt.Errorf("there is no grant %s", s.grant)
		}
		g.booked -= s.amount
		if err := c.use(g, booked, s.amount, line); err != nil {
			return err
		}
	}
	for _, s := range e.returns {
		g := c.grants[s.grant]
		if g == nil {
			return fmt.Errorf("there is no grant %s", s.grant)
		}
		if err := c.use(g, booked, -s.amount, line); err != nil {
			return err
		}
		expired := g.booked + s.amount - s.left
		g.booked = s.left
		if err := c.expired(g, booked, expired); err != nil {
			return err
		}
	}
	return nil
}

// charge draws what a consumption costs now, or gives back; short tells that there is not enough.
func (c *Customer) charge(op *Operation, e *event, line *Line) (short bool, err error) {
	c.sort()
	need := credit.Need{At: op.At, Unit: op.Unit, Member: op.Member, Dims: e.dims}
	first := &firstPrice{}
	if e.priced {
		need.Cost = func(lock credit.RateLock) (credit.Amount, error) {
			total, err := c.price(op, e, &pricedAt{lock, first})
			return max(0, total), err
		}
	} else {
		explicit := e.amount + e.short
		need.Cost = func(credit.RateLock) (credit.Amount, error) { return explicit, nil }
	}
	sel, err := credit.Select(c.open, need, c.draws)
	if err != nil {
		return false, err
	}
	c.draws = sel.Draws
	if sel.Short > 0 && (!e.partial || sel.Total == 0) {
		return true, nil
	}
	c.counted.Apply(first.changes)
	if first.total < 0 {
		if err := c.giveBack(op, -first.total, line); err != nil {
			return false, err
		}
	}
	for _, d := range sel.Draws {
		g := c.grants[d.Grant.ID]
		g.Available -= d.Amount
		g.Consumed += d.Amount
		c.seq++
		g.drawn = c.seq
		if g.Available == 0 {
			c.leave(g, credit.StatusDepleted)
		}
		if err := c.use(g, tested, d.Amount, line); err != nil {
			return false, err
		}
	}
	return false, nil
}

// firstPrice is what a usage was priced at first: that counts it, and says whether something is to be given back.
type firstPrice struct {
	known   bool
	total   credit.Amount
	changes []rating.Change
}

// pricedAt is what a usage is priced for: a grant's lock, and where the first price is noted.
type pricedAt struct {
	lock  credit.RateLock
	first *firstPrice
}

// price says what an event costs. Without for it is one before the period, and counted.
func (c *Customer) price(op *Operation, e *event, at *pricedAt) (credit.Amount, error) {
	book, err := c.bookAt(op.At)
	if err != nil {
		return 0, err
	}
	card, version := c.cardAt(op.ServiceAt), 0
	if at != nil && !at.lock.Card.IsZero() {
		if u, err := book.Unit(at.lock.Card); err == nil && u.Code == op.Unit {
			card, version = at.lock.Card, at.lock.Version
		}
	} else if at != nil {
		version = at.lock.Version
	} else {
		card, version = e.card, e.version
	}
	p, err := book.Price(card, version, rating.Usage{At: op.ServiceAt, Lines: e.lines, Dims: e.dims}, c.counted, &eventRates{e.fx, c.world.Rates})
	switch {
	case err != nil:
		return 0, err
	case at == nil:
		c.counted.Apply(p.Changes)
	case !at.first.known:
		*at.first = firstPrice{true, p.Total, p.Changes}
	}
	return p.Total, nil
}

// bookAt returns the rate cards as they were known at an instant.
func (c *Customer) bookAt(t time.Time) (_ *rating.Book, err error) {
	if c.book == nil || !t.Before(c.known) {
		c.book, c.known, err = c.world.Cards.at(t)
	}
	return c.book, err
}

// eventRates are the exchange rates of an event: those that it was priced with then, and for other currencies those known now.
type eventRates struct {
	then []rating.Conversion
	now  rating.Rates
}

// Rate implements [rating.Rates].
func (r *eventRates) Rate(from, to string, at time.Time) (rating.FX, error) {
	for i := range r.then {
		if r.then[i].From == from && r.then[i].To == to {
			return r.then[i].FX, nil
		}
	}
	if r.now == nil {
		return rating.FX{}, credit.Errorf(credit.NoRate, "There is no exchange rate from %s to %s.", from, to)
	}
	return r.now.Rate(from, to, at)
}

// giveBack returns consumed credits to the grants that they were drawn from, the one drawn last first.
func (c *Customer) giveBack(op *Operation, amount credit.Amount, line *Line) error {
	var drawn []*grant
	for _, g := range c.grants {
		if g.Consumed > 0 && g.Wallet.Unit == op.Unit && (g.Status == credit.StatusOpen || g.Status == credit.StatusDepleted || g.Status == credit.StatusExpired) {
			drawn = append(drawn, g)
		}
	}
	slices.SortFunc(drawn, func(a, b *grant) int { return cmp.Compare(b.drawn, a.drawn) })
	for _, g := range drawn {
		take := min(g.Consumed, amount)
		g.Consumed -= take
		if err := c.use(g, tested, -take, line); err != nil {
			return err
		}
		switch {
		case g.Status == credit.StatusExpired || g.PastExpiry(op.At) && !g.Frozen:
			if g.Status == credit.StatusDepleted {
				g.Status = credit.StatusExpired
			}
			if err := c.expired(g, tested, take); err != nil {
				return err
			}
		default:
			g.Available += take
			if g.Status == credit.StatusDepleted {
				g.Status = credit.StatusOpen
				c.open, c.unsorted = append(c.open, &g.Grant), true
			}
		}
		if amount -= take; amount == 0 {
			break
		}
	}
	return nil
}

// leave takes a grant out of those that are drawn from.
func (c *Customer) leave(g *grant, status credit.Status) {
	g.Status = status
	if i := slices.Index(c.open, &g.Grant); i >= 0 {
		c.open = slices.Delete(c.open, i, i+1)
	}
}

func (c *Customer) sort() {
	if c.unsorted {
		slices.SortFunc(c.open, credit.CompareDrawOrder)
		c.unsorted = false
	}
}

// cardAt returns the card of an event; zero: the default one.
func (c *Customer) cardAt(t time.Time) credit.RateCardID {
	for i := range c.assigned {
		if a := &c.assigned[i]; !t.Before(a.from) && (a.to.IsZero() || t.Before(a.to)) {
			return a.card
		}
	}
	return c.card
}

// changeReceipt has what the receipts of operations other than consumptions say that matters here.
type changeReceipt struct {
	ID         string            `json:"id"` // of the grant, refund, wallet or assignment; "": of no one: the customer got another card
	CustomerID credit.CustomerID `json:"customer_id"`

	GrantID    credit.GrantID `json:"grant_id"` // of a refund
	Refundable string         `json:"refundable"`

	ExpiresAt *time.Time `json:"expires_at"` // of a grant

	Unit      string         `json:"unit"` // of a wallet
	Priority  int            `json:"priority"`
	Scope     credit.Scope   `json:"scope"`
	Cap       string         `json:"cap"`
	OverageID credit.GrantID `json:"overage_grant_id"`

	MemberID credit.MemberID `json:"member_id"` // of a wallet or grant
	Mode     string          `json:"mode"`      // of a limit

	RateCardID credit.RateCardID `json:"rate_card_id"`
	ValidFrom  time.Time         `json:"valid_from"`
	ValidTo    *time.Time        `json:"valid_to"`
}

// change carries out an operation that is no consumption.
func (c *Customer) change(op *Operation) error {
	switch op.Kind {
	case "correct", "transfer", "decrement", "dispute":
		return errMoved
	}
	var r changeReceipt
	if err := json.Unmarshal(op.Receipt, &r); err != nil {
		return fmt.Errorf("read receipt: %w", err)
	}
	kind, _, _ := strings.Cut(r.ID, "_")
	switch kind {
	case "":
		c.card = r.RateCardID
		return nil
	case "wal":
		return c.changeWallet(op, &r)
	case "asg":
		return c.assign(&r)
	case "rfd":
		return c.changeGrant(op, &r, r.GrantID)
	case "hld":
		return errHolds
	case "lmt":
		if r.Mode == "hard" {
			return errLimits
		}
		return nil
	case "mem":
		if !r.RateCardID.IsZero() {
			return errCards
		}
		return nil // what a member may use decides whether it is charged, which is over
	}
	id, err := credit.ParseID[credit.GrantID](r.ID)
	if err != nil {
		return err
	}
	return c.changeGrant(op, &r, id)
}

func (c *Customer) assign(r *changeReceipt) error {
	id, err := credit.ParseID[credit.AssignmentID](r.ID)
	if err != nil {
		return err
	}
	a := assignment{id: id, card: r.RateCardID, from: r.ValidFrom}
	if r.ValidTo != nil {
		a.to = *r.ValidTo
	}
	c.assigned = append(slices.DeleteFunc(c.assigned, func(b assignment) bool { return b.id == id }), a)
	return nil
}

func (c *Customer) changeWallet(op *Operation, r *changeReceipt) error {
	id, err := credit.ParseID[credit.WalletID](r.ID)
	if err != nil {
		return err
	}
	w := c.wallets[id]
	if w == nil {
		w = &credit.Wallet{ID: id}
		c.wallets[id] = w
	}
	w.Unit, w.Priority, w.Scope, w.SoftCap, w.Member, c.unsorted = r.Unit, r.Priority, r.Scope, r.Cap == "soft", r.MemberID, true
	if r.OverageID.IsZero() {
		return nil
	}
	return c.changeGrant(op, r, r.OverageID)
}

// changeGrant does to a grant under test what was done to it.
func (c *Customer) changeGrant(op *Operation, r *changeReceipt, id credit.GrantID) error {
	g := c.grants[id]
	if g == nil {
		return fmt.Errorf("there is no grant %s", id)
	}
	switch op.Kind {
	case "create":
		return c.prepare(op, g, r)
	case "issue":
		if g.Wallet = c.wallets[g.Wallet.ID]; g.Wallet == nil {
			return fmt.Errorf("grant %s has no wallet", id)
		}
		if err := c.prepare(op, g, r); err != nil {
			return err
		}
		g.Status, g.Granted, g.Available, g.booked = credit.StatusOpen, g.Amount, g.Amount, g.Amount
		for side := range g.carried {
			g.carried[side] = newCarrying(&g.Grant)
		}
		if !c.shaping {
			c.open, c.unsorted = append(c.open, &g.Grant), true
		}
	case "extend":
		g.ExpiresAt, c.unsorted = instant(r.ExpiresAt), true
	case "freeze":
		g.Frozen = true
	case "unfreeze":
		g.Frozen = false
	case "expire":
		g.Frozen = false // one that was frozen beyond its expiry expires when it is let go on
		return c.end(g, credit.StatusExpired, op.Amount)
	case "void":
		g.Frozen = false
		return c.end(g, credit.StatusVoided, op.Amount)
	case "refund":
		return c.refund(g, op, r)
	}
	return nil
}

// prepare sets what a grant has from its making or its issue on. A locked one takes, when it is made, the version that is in force under test.
func (c *Customer) prepare(op *Operation, g *grant, r *changeReceipt) error {
	if g.Type != credit.Overage {
		g.ExpiresAt = instant(r.ExpiresAt)
	}
	if !g.made && !c.shaping && g.RatePolicy == credit.Locked {
		book, err := c.bookAt(op.At)
		if err != nil {
			return err
		}
		if v, err := book.VersionAt(c.cardAt(op.At), op.At); err == nil {
			g.RateVersion = v
		}
	}
	g.made = true
	return nil
}

// end takes what is left of a grant away. was is how much that was when it was booked.
func (c *Customer) end(g *grant, status credit.Status, was credit.Amount) error {
	if c.shaping {
		c.leave(g, status)
		return nil
	}
	left := g.Available
	if g.Status == credit.StatusOpen || g.Status == credit.StatusPending {
		g.Available = 0
		c.leave(g, status)
	}
	g.booked -= was
	if status == credit.StatusExpired {
		return errors.Join(c.expired(g, booked, was), c.expired(g, tested, left))
	}
	return errors.Join(g.carried[booked].withdraw(was), g.carried[tested].withdraw(left))
}

// refund takes back as much as was taken back then, or what is left when that is less.
func (c *Customer) refund(g *grant, op *Operation, r *changeReceipt) error {
	if c.shaping {
		if r.Refundable == "0" {
			c.leave(g, credit.StatusRefunded)
		}
		return nil
	}
	g.booked -= op.Amount
	units := min(op.Amount, g.Available)
	g.Available -= units
	if g.Available == 0 && g.Status == credit.StatusOpen {
		c.leave(g, credit.StatusRefunded)
	}
	return errors.Join(g.carried[booked].withdraw(op.Amount), g.carried[tested].withdraw(units))
}

func instant(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
