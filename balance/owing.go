package balance

import (
	"cmp"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// Owing is what is paid back for credits taken away unused.
type Owing struct {
	Money credit.Money // net of tax, in the price's currency; zero Currency: nothing was paid
	Tax   int64        // minor units of Money.Currency
	// Basis and TaxBasis are Money and Tax in the entity's currency at the rate of the refund, minor units.
	Basis, TaxBasis int64
}

// Refundable returns how many units a refund takes from a grant at t: those asked for, or, when that is 0, all that are available. It is not
// more than those and not 0. Otherwise an Error coded not_refundable, grant_state or grant_expired says why not; scale is the unit's.
func Refundable(g *credit.Grant, asked credit.Amount, scale int, t time.Time) (credit.Amount, error) {
	units := asked
	if units == 0 {
		units = g.Available
	}
	switch {
	case !g.BonusOf.IsZero():
		return 0, credit.Errorf(credit.NotRefundable, "It is a bonus, and refunded with the purchase that it came with, %s.", g.BonusOf).With("refundable", "0")
	case g.Type != credit.Purchased:
		return 0, credit.Errorf(credit.NotRefundable, "A grant that is %s was not paid for; it can be voided.", g.Type).With("refundable", "0")
	case g.Status == credit.StatusPending:
		return 0, stateRefusal(g, t, "refunded")
	case g.PastExpiry(t):
		return 0, credit.Errorf(credit.GrantExpired, "The grant expired at %s.", Instant(g.ExpiresAt))
	case units == 0 || units > g.Available:
		return 0, credit.Errorf(credit.NotRefundable, "%s can be refunded, %s was asked for.", g.Available.Format(scale), asked.Format(scale)).
			With("refundable", g.Available.Format(scale))
	}
	return units, nil
}

// Owed computes what units of a grant's available credits cost: the part of its price that lies between what has left the grant so far
// and what will have left it then, so that all parts of a price sum to the price. It is not more than what earlier refunds have left of the price:
// credits given back after a refund leave the grant a second time. rate converts a price in another currency than the entity's; zero is the
// purchase's rate. Only a purchase owes anything: a concession's price was never paid.
func Owed(g *credit.Grant, units credit.Amount, refunded db.Refunded, rate decimal.Decimal, currency string) (Owing, error) {
	if g.Type != credit.Purchased || g.Price.Currency == "" || g.Granted == 0 {
		return Owing{}, nil
	}
	gone := g.Granted - g.Available - g.Held
	part := func(price int64) int64 {
		return credit.MulDiv(price, int64(gone+units), int64(g.Granted)) - credit.MulDiv(price, int64(gone), int64(g.Granted))
	}
	net, tax := part(g.Price.Minor), part(g.Tax)
	o := Owing{Money: credit.Money{Minor: min(net, g.Price.Minor-refunded.Money), Currency: g.Price.Currency}, Tax: min(tax, g.Tax-refunded.Tax)}
	whole := o.Money.Minor == net && o.Tax == tax
	if g.Price.Currency == currency {
		o.Basis, o.TaxBasis = o.Money.Minor, o.Tax
		return o, nil
	}
	if rate.IsZero() {
		rate = g.FXRate
	}
	if whole && rate.Equal(g.FXRate) {
		o.Basis, o.TaxBasis = part(g.Basis), part(g.TaxBasis)
		return o, nil
	}
	basis, err := o.Money.Convert(currency, rate)
	if err != nil {
		return Owing{}, err
	}
	taxBasis, err := credit.Money{Minor: o.Tax, Currency: o.Money.Currency}.Convert(currency, rate)
	if err != nil {
		return Owing{}, err
	}
	o.Basis, o.TaxBasis = basis.Minor, taxBasis.Minor
	return o, nil
}

// refunded is what refunds, voids and transfers of a grant come to so far, this batch's included.
func (d *decision) refunded(g *credit.Grant) (db.Refunded, error) {
	if g.Refunded == 0 && g.Voided == 0 && g.Transferred == 0 {
		return db.Refunded{}, nil
	}
	r, known := d.c.refunded[g.ID]
	if !known {
		return r, &want{refunded: g.ID}
	}
	for i := range d.changes.Refunds {
		if now := &d.changes.Refunds[i]; now.Grant == g.ID {
			r.Money += now.Money
			r.Tax += now.Tax
		}
	}
	for i := range d.changes.NewGrants {
		if now := d.changes.NewGrants[i].Grant; now.From == g.ID {
			r.Money += now.Price.Minor
			r.Tax += now.Tax
		}
	}
	return r, nil
}

// Document describes what is owed; nil when nothing was paid for the grant.
func (o Owing) Document() *PriceDocument {
	if o.Money.Currency == "" {
		return nil
	}
	return describePrice(o.Money, o.Tax)
}

// unitBalances sums open grants by unit and wallet. Every wallet appears, in order of priority and id.
func unitBalances(grants []*credit.Grant, wallets map[credit.WalletID]*credit.Wallet, t time.Time, scale func(unit string) int) []UnitBalance {
	sums := make(map[credit.WalletID]credit.Amount, len(wallets))
	for _, g := range grants {
		if countsAsAvailable(g, t) {
			sums[g.Wallet.ID] += g.Available
		}
	}
	ordered := orderedWallets(wallets)
	units := []UnitBalance{}
	var total credit.Amount
	for i, w := range ordered {
		if i == 0 || w.Unit != ordered[i-1].Unit {
			units, total = append(units, UnitBalance{Unit: w.Unit}), 0
		}
		u := &units[len(units)-1]
		total += sums[w.ID]
		u.Available = total.Format(scale(w.Unit))
		u.Wallets = append(u.Wallets, WalletBalance{WalletID: w.ID, Available: sums[w.ID].Format(scale(w.Unit))})
	}
	return units
}

// orderedWallets sorts wallets by unit, priority and id.
func orderedWallets(wallets map[credit.WalletID]*credit.Wallet) []*credit.Wallet {
	ordered := make([]*credit.Wallet, 0, len(wallets))
	for _, w := range wallets {
		ordered = append(ordered, w)
	}
	slices.SortFunc(ordered, func(a, b *credit.Wallet) int {
		return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Priority, b.Priority), slices.Compare(a.ID[:], b.ID[:]))
	})
	return ordered
}

// appendUnits writes balances as encoding/json would; a test holds the two against each other.
func appendUnits(b []byte, units []UnitBalance) []byte {
	b = append(b, '[')
	for i := range units {
		u := &units[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"unit":`...)
		b = appendJSONString(b, u.Unit)
		b = append(append(append(b, `,"available":"`...), u.Available...), `","wallets":[`...)
		for k, w := range u.Wallets {
			if k > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"wallet_id":"`...)
			b = w.WalletID.Append(b)
			b = append(append(append(b, `","available":"`...), w.Available...), `"}`...)
		}
		b = append(b, `]}`...)
	}
	return append(b, ']')
}
