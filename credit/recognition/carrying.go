// Package recognition decides when prepaid money is earned, as functions of values: how much leaves a grant with each disposal, and
// the period in which it is booked. No I/O, no clock, no context. README.md in this folder is its one-page description.
package recognition

import (
	"fmt"

	"github.com/tallystick/tallystick/credit"
)

// Carrying is a grant's money and how much of it has left, by the cumulative rule: once D of N credits are disposed of, for whatever
// reason, floor(P·D/N) of the price P has left. So exactly P has left when the last credit has, whatever the number, size and order of
// the slices; for P > 0 nothing is carried if and only if no credits are left; and no rounded price per credit exists anywhere.
type Carrying struct {
	Basis     int64         // P, minor units of the entity's currency, >= 0
	Units     credit.Amount // N, > 0
	Disposed  credit.Amount // D, 0 to N
	PostedOut int64         // what has left
}

// Dispose takes k more credits out and returns the money that leaves with them; a negative k puts credits back, and the money is
// negative or zero. A fault says that more would be out than there is, or less than nothing.
func (c Carrying) Dispose(k credit.Amount) (Carrying, int64, error) {
	d := c.Disposed + k
	if d < 0 || d > c.Units || c.Units <= 0 || c.Basis < 0 {
		return c, 0, fmt.Errorf("dispose of %d: %d of %d credits are disposed of already", k, c.Disposed, c.Units)
	}
	out := credit.MulDiv(c.Basis, int64(d), int64(c.Units))
	amount := out - c.PostedOut
	c.Disposed, c.PostedOut = d, out
	return c, amount, nil
}

// Amount is what the grant still carries: 0 to Basis.
func (c Carrying) Amount() int64 { return c.Basis - c.PostedOut }

// Slice returns what the credits from the from-th (exclusive) to the to-th (inclusive) of n stand for of a total: the cumulative rule for
// something that is not itself posted slice by slice, such as a grant's price in its own currency or its tax.
func Slice(total int64, n, from, to credit.Amount) int64 {
	return credit.MulDiv(total, int64(to), int64(n)) - credit.MulDiv(total, int64(from), int64(n))
}

// Exchange returns how much of what a refund owes is there only because the exchange rate moved since the purchase; negative: how much is
// missing. carrying and owed are in the entity's currency, at the purchase's rate and at today's; share and paid are what the credits
// cost and what is paid back for them, in the currency of the purchase.
func Exchange(carrying, owed, share, paid int64) int64 {
	switch {
	case paid > share: // the excess is a present, worth what it is worth today
		return owed - credit.MulDiv(owed, paid-share, paid) - carrying
	case paid < share: // the rest is not paid back at any rate
		return owed - (carrying - credit.MulDiv(carrying, share-paid, share))
	default:
		return owed - carrying
	}
}
