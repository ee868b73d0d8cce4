package backtest

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/recognition"
)

// The two sides of a comparison.
const (
	booked = 0 // what was charged
	tested = 1 // what would have been
)

type (
	// Result is what a back-test came to for one customer.
	Result struct {
		Currency     string    // of the legal entity
		Events       int       // consumptions in the period
		Refused      int       // of them, under test: there were not enough credits
		RefusedFirst time.Time // when the first one was; zero: none
		Unpriced     int       // of them, under test: no price could be found
		Why          string    // could the first one not be priced
		Lines        []Line    // in order of unit, product, model
	}
	// Line is the part of one product and model in the credits of one unit. What expired is of no product and model.
	Line struct {
		Unit, Product, Model string
		Booked, Tested       Figures
	}
	// Figures are one side of a line. Amounts of credits are steps of the unit, amounts of money minor units of the entity's currency; each can be
	// below 0, for credits can be given back that were used before the period.
	Figures struct {
		Events   int             // charged
		Refused  int             // for want of credits
		Unpriced int             // for want of a price
		Credits  credit.Amount   // used less given back
		Revenue  int64           // at each grant's own cost basis, overage with it
		Expired  credit.Amount   // credits
		Breakage int64           // the money that they stood for
		Costed   int             // events whose compute cost is recorded
		Cost     decimal.Decimal // it, in major units
	}
	// Outcome is what the period did to a grant, on one side.
	Outcome struct {
		Used, Expired, Available credit.Amount // used less given back; available at the end
		Revenue, Breakage        int64
	}
)

type lineKey struct{ unit, product, model string }

func (f *Figures) addCost(cost decimal.Decimal) {
	f.Costed++
	f.Cost = f.Cost.Add(cost)
}

// Add sums two figures.
func (f *Figures) Add(g Figures) {
	f.Events += g.Events
	f.Refused += g.Refused
	f.Unpriced += g.Unpriced
	f.Credits += g.Credits
	f.Revenue += g.Revenue
	f.Expired += g.Expired
	f.Breakage += g.Breakage
	f.Costed += g.Costed
	f.Cost = f.Cost.Add(g.Cost)
}

func (c *Customer) line(unit, product, model string) *Line {
	key := lineKey{unit, product, model}
	l := c.lines[key]
	if l == nil {
		l = &Line{Unit: unit, Product: product, Model: model}
		c.lines[key] = l
	}
	return l
}

func (l *Line) side(side int) *Figures {
	if side == booked {
		return &l.Booked
	}
	return &l.Tested
}

// carrying is a grant's money on one side: the cumulative rule of credit/recognition. Of an overage grant only what is used counts: it was
// not paid for.
type carrying struct {
	recognition.Carrying
	overage bool
	revenue int64 // in the period
	broken  int64 // breakage of the period
}

// newCarrying is what a grant carries with what it has available now; everything else of it has gone.
func newCarrying(g *credit.Grant) carrying {
	c := carrying{Carrying: recognition.Carrying{Basis: g.Basis, Units: g.Amount}, overage: g.Type == credit.Overage}
	gone := g.Amount - g.Available
	if c.overage {
		gone = g.Consumed
	}
	c.Carrying, _, _ = c.Dispose(gone) // within 0 and Amount
	return c
}

func (c *carrying) dispose(units credit.Amount) (int64, error) {
	next, amount, err := c.Dispose(units)
	c.Carrying = next
	return amount, err
}

// withdraw takes out what was refunded or voided: no revenue.
func (c *carrying) withdraw(units credit.Amount) error {
	if c.overage || units == 0 {
		return nil
	}
	_, err := c.dispose(units)
	return err
}

// use books used credits; below 0: some were given back.
func (c *Customer) use(g *grant, side int, units credit.Amount, line *Line) error {
	amount, err := g.carried[side].dispose(units)
	if err != nil {
		return err
	}
	g.carried[side].revenue += amount
	g.spent[side] += units
	f := line.side(side)
	f.Credits += units
	f.Revenue += amount
	return nil
}

// expired books credits that nobody used in time.
func (c *Customer) expired(g *grant, side int, units credit.Amount) error {
	if units == 0 || g.carried[side].overage {
		return nil
	}
	amount, err := g.carried[side].dispose(units)
	if err != nil {
		return err
	}
	g.carried[side].broken += amount
	g.gone[side] += units
	f := c.line(g.Wallet.Unit, "", "").side(side)
	f.Expired += units
	f.Breakage += amount
	return nil
}

// Close ends the period at an instant and returns what it came to. A grant that had been used up by its expiry, and under test is not, expires
// now; one whose expiry had not been booked by then is left to the next period on both sides.
func (c *Customer) Close(until time.Time) (*Result, error) {
	for _, id := range slices.SortedFunc(maps.Keys(c.grants), func(a, b credit.GrantID) int { return slices.Compare(a[:], b[:]) }) {
		g := c.grants[id]
		if g.Status != credit.StatusOpen || g.Frozen || !g.PastExpiry(until) || g.Available == 0 || g.booked > 0 {
			continue
		}
		left := g.Available
		g.Available = 0
		c.leave(g, credit.StatusExpired)
		if err := c.expired(g, tested, left); err != nil {
			return nil, err
		}
	}
	r := c.result
	for _, key := range slices.SortedFunc(maps.Keys(c.lines), func(a, b lineKey) int {
		return cmp.Or(cmp.Compare(a.unit, b.unit), cmp.Compare(a.product, b.product), cmp.Compare(a.model, b.model))
	}) {
		r.Lines = append(r.Lines, *c.lines[key])
	}
	return &r, nil
}

// Outcomes returns what the period did to each grant that was issued by its end.
func (c *Customer) Outcomes() (was, would map[credit.GrantID]Outcome) {
	was, would = make(map[credit.GrantID]Outcome), make(map[credit.GrantID]Outcome)
	for id, g := range c.grants {
		if g.Granted == 0 && g.Status == credit.StatusPending {
			continue
		}
		was[id] = Outcome{g.spent[booked], g.gone[booked], g.booked, g.carried[booked].revenue, g.carried[booked].broken}
		would[id] = Outcome{g.spent[tested], g.gone[tested], g.Available, g.carried[tested].revenue, g.carried[tested].broken}
	}
	return was, would
}
