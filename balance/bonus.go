package balance

import (
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/recognition"
)

// BonusID is the grant of the bonus that came with a purchase, if one did.
func BonusID(purchase credit.GrantID) credit.GrantID {
	return credit.DerivedID[credit.GrantID]("grant/" + purchase.String() + "/bonus")
}

func withBonus(g credit.GrantID) []credit.GrantID { return []credit.GrantID{g, BonusID(g)} }

// bonus finds the bonus of a purchase that was loaded with it; nil: none came with it.
func (c *customer) bonus(purchase credit.GrantID) *credit.Grant {
	g, err := c.find(BonusID(purchase))
	if err != nil {
		return nil
	}
	return g
}

func bonusRefusal(g *credit.Grant, at time.Time, verb string) *credit.Error {
	return credit.Errorf(credit.GrantState, "It is a bonus, and %s with the purchase that it came with, %s.", verb, g.BonusOf).With("state", string(g.State(at)))
}

// bonus makes the bonus of a purchase, nil when there is none, and leaves the purchase its part of price and tax.
func (o *CreateGrant) bonus(g *credit.Grant, at time.Time) (*credit.Grant, error) {
	in := o.Bonus
	switch {
	case in == nil:
		return nil, nil
	case g.Type != credit.Purchased || g.Price.Currency == "":
		return nil, credit.Invalid("/bonus", "A bonus comes with a purchase that has a price. Credits that nothing is paid for are a grant of their own.")
	}
	b := *g
	b.ID, b.BonusOf, b.Amount, b.Scope, b.Priority = BonusID(g.ID), g.ID, in.Amount, in.Scope, in.Priority
	b.ExpiresAt = in.ExpiresAt.UTC().Truncate(time.Microsecond)
	if !in.ExpiresAt.IsZero() && (!b.ExpiresAt.After(b.EffectiveAt) || b.PastExpiry(at)) {
		return nil, credit.Invalid("/bonus/expires_at", "The bonus would be over before it begins.")
	}
	value := in.PurchaseValue
	if value == 0 {
		value = g.Price.Minor
	}
	split := func(total int64) (purchase, bonus int64) {
		parts := recognition.AllocatePrice(total, value, in.Value)
		return parts[0], parts[1]
	}
	g.Price.Minor, b.Price.Minor = split(g.Price.Minor)
	g.Tax, b.Tax = split(g.Tax)
	g.Basis, b.Basis = split(g.Basis)
	g.TaxBasis, b.TaxBasis = split(g.TaxBasis)
	return &b, nil
}

// BonusShare is how many credits of a purchase's bonus go with a refund of units of the purchase: in proportion to all that is refunded of it,
// less those that went before, and not more than are available. bonus is nil when there is none.
func BonusShare(g *credit.Grant, units credit.Amount, bonus *credit.Grant, at time.Time) credit.Amount {
	if bonus == nil || bonus.Status != credit.StatusOpen || bonus.PastExpiry(at) {
		return 0
	}
	due := credit.Amount(credit.MulDiv(int64(bonus.Amount), int64(g.Refunded+units), int64(g.Amount))) - bonus.Refunded
	return max(0, min(due, bonus.Available))
}
