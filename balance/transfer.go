package balance

import (
	"encoding/json"
	"strconv"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// Transfer moves available credits to another wallet of the same unit, of the same customer or of another of the same legal entity: those that would be
// drawn first. What arrives are new grants, one for each that was taken from, with its type, price, expiry, scope, rate policy and date of
// purchase; nothing is earned. Grants that are bound to a member stay with their customer, and out of other members' wallets. It is refused with
// insufficient_credits, grant_state (the grant may not be moved there), wallet_not_found and invalid_request. The receipt is the JSON of a [TransferDocument].
type Transfer struct {
	Header                       // Customer is whose credits they are
	From       credit.WalletID   // of Customer
	To         credit.WalletID   // of ToCustomer
	ToCustomer credit.CustomerID // may be the same
	Grant      credit.GrantID    // whose credits to take; zero: those of all grants in From, in draw-down order
	Units      credit.Amount     // 0: all that can be transferred
	Reason     string
}

func (o *Transfer) others() []credit.CustomerID { return []credit.CustomerID{o.ToCustomer} }

func (o *Transfer) grants() []credit.GrantID {
	if o.Grant.IsZero() {
		return nil
	}
	return []credit.GrantID{o.Grant}
}

// target is the wallet that the credits go to, and the copy of its customer.
func (o *Transfer) target(d *decision, unit string) (*customer, *credit.Wallet, error) {
	to := d.others[o.ToCustomer]
	if to == nil || to.wallets[o.To] == nil {
		return nil, nil, credit.Errorf(credit.WalletNotFound, "There is no wallet %s.", o.To)
	}
	w := to.wallets[o.To]
	switch {
	case to.frozen:
		return nil, nil, credit.Errorf(credit.CustomerFrozen, "The customer to whom the credits go is frozen: somebody is looking into its books.")
	case to.base.entity != d.c.base.entity:
		return nil, nil, credit.Invalid("/to", "The wallet is of another legal entity's customer.")
	case w.Unit != unit:
		return nil, nil, credit.Invalid("/to", "The wallet is in %s, the credits are in %s.", w.Unit, unit)
	case o.To == o.From:
		return nil, nil, credit.Invalid("/to", "The credits are in this wallet.")
	}
	return to, w, nil
}

func (o *Transfer) decide(d *decision) (receipt, error) {
	from := d.c.wallets[o.From]
	if from == nil {
		return nil, credit.Errorf(credit.WalletNotFound, "The customer has no wallet %s.", o.From)
	}
	to, wallet, err := o.target(d, from.Unit)
	if err != nil {
		return nil, err
	}
	draws, err := o.draws(d, to, wallet)
	if err != nil {
		return nil, err
	}
	// Nothing is refused from here on.
	t := d
	if to != d.c {
		if to.at.Before(d.c.at) {
			to.at = d.c.at
		}
		d.c.at = to.at
		t = &decision{c: to, book: d.book, rates: d.rates, rules: d.rules, job: d.job, ver: to.ver + 1, changes: d.changes}
	}
	scale := d.scale(from.Unit)
	doc := TransferDocument{
		Operation: operationName(d.c.id, d.ver), CustomerID: d.c.id, Ver: d.ver, FromWalletID: o.From, ToCustomerID: to.id, ToWalletID: o.To,
		ToOperation: operationName(to.id, t.ver), Unit: from.Unit, Amount: sumOf(draws).Format(scale), Reason: o.Reason,
	}
	for _, draw := range draws {
		g := d.c.edit(draw.Grant, false)
		part, err := d.carve(g, draw.Amount)
		if err != nil {
			return nil, err
		}
		d.emptied(g)
		arrived := t.receive(part, wallet)
		doc.Grants = append(doc.Grants, d.transferred(g, arrived, scale))
		d.grantEvent("transferred", d.describe(g))
	}
	d.kind, d.unit, d.amount = "transfer", from.Unit, sumOf(draws)
	doc.Available = available(d.c.grants, from.Unit, d.c.at).Format(scale)
	if t == d {
		d.amount *= 2 // out and in
		return jsonReceipt(doc), nil
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	t.kind, t.unit, t.amount, t.serviceAt = d.kind, d.unit, d.amount, to.at
	t.record("transfer/"+doc.Operation, body)
	return func([]byte) ([]byte, error) { return body, nil }, nil
}

// draws are what the transfer takes from which grants.
func (o *Transfer) draws(d *decision, to *customer, into *credit.Wallet) (draws []credit.Draw, err error) {
	c := d.c
	if !o.Grant.IsZero() {
		g, err := c.find(o.Grant)
		switch {
		case err != nil:
			return nil, err
		case g.Wallet.ID != o.From:
			return nil, credit.Errorf(credit.GrantNotFound, "The wallet has no grant %s.", o.Grant)
		case !transferable(g, c, to, into):
			return nil, stateRefusal(g, c.at, "transferred there")
		}
	}
	var have credit.Amount
	left := o.Units
	for _, g := range c.grants {
		if g.Wallet.ID != o.From || g.Available == 0 || !transferable(g, c, to, into) || !o.Grant.IsZero() && g.ID != o.Grant {
			continue
		}
		if _, err := d.refunded(g); err != nil {
			return nil, err
		}
		have += g.Available
		n := g.Available
		if o.Units > 0 {
			n = min(n, left)
		}
		if n > 0 {
			draws, left = append(draws, credit.Draw{Grant: g, Amount: n}), left-n
		}
	}
	if have == 0 || have < o.Units {
		return nil, shortRefusal(have, o.Units, c.wallets[o.From].Unit, d.scale(c.wallets[o.From].Unit))
	}
	return draws, nil
}

// transferable tells whether a grant's credits may become another wallet's.
func transferable(g *credit.Grant, c, to *customer, into *credit.Wallet) bool {
	return g.Status == credit.StatusOpen && !g.Frozen && !g.PastExpiry(c.at) && g.Type != credit.Overage &&
		(g.MemberID.IsZero() || to == c && (into.Member.IsZero() || into.Member == g.MemberID))
}

// carve takes available credits out of a grant that is the batch's own, and returns the grant that they are to become: of the same class, with the part
// of the price that goes with them, no more than refunds and earlier transfers have left of it.
func (d *decision) carve(g *credit.Grant, n credit.Amount) (*credit.Grant, error) {
	refunded, err := d.refunded(g)
	if err != nil {
		return nil, err
	}
	gone := g.Granted - g.Available - g.Held
	part := func(total int64) int64 {
		return credit.MulDiv(total, int64(gone+n), int64(g.Granted)) - credit.MulDiv(total, int64(gone), int64(g.Granted))
	}
	out := *g
	out.Price.Minor, out.Tax = min(part(g.Price.Minor), g.Price.Minor-refunded.Money), min(part(g.Tax), g.Tax-refunded.Tax)
	out.Basis, out.TaxBasis = part(g.Basis), part(g.TaxBasis)
	out.Amount, out.From, out.FromVer = n, g.ID, d.ver
	g.Available -= n
	g.Transferred += n
	d.move(g, "available", "transferred", n)
	return &out, nil
}

// receive issues a grant that was carved out of another, into a wallet of the decision's customer.
func (d *decision) receive(g *credit.Grant, w *credit.Wallet) *credit.Grant {
	g.ID, g.CustomerID, g.Wallet, g.CreatedAt = credit.NewID[credit.GrantID](), d.c.id, w, d.c.at
	g.Status, g.Frozen, g.Granted, g.Available = credit.StatusOpen, false, g.Amount, g.Amount
	g.Held, g.Consumed, g.Expired, g.Refunded, g.Voided, g.Transferred = 0, 0, 0, 0, 0, 0
	d.changes.NewGrants = append(d.changes.NewGrants, db.NewGrant{Grant: d.c.add(g)})
	d.move(g, "issued", "available", g.Amount)
	d.changes.Outbox = append(d.changes.Outbox, startOf(d.c.id, g.ID))
	doc := d.describe(g)
	d.grantEvent("created", doc)
	d.grantEvent("issued", doc)
	return g
}

// TransferDocument answers a transfer.
type TransferDocument struct {
	Operation    string                  `json:"operation"`
	CustomerID   credit.CustomerID       `json:"customer_id"`
	Ver          int64                   `json:"ver"`
	FromWalletID credit.WalletID         `json:"from_wallet_id"`
	ToCustomerID credit.CustomerID       `json:"to_customer_id"`
	ToWalletID   credit.WalletID         `json:"to_wallet_id"`
	ToOperation  string                  `json:"to_operation"` // the other customer's; the same when there is none
	Unit         string                  `json:"unit"`
	Amount       string                  `json:"amount"`
	Grants       []TransferGrantDocument `json:"grants"`
	Reason       string                  `json:"reason"`
	Available    string                  `json:"available"` // left to the customer in this unit, all wallets
}

// TransferGrantDocument says which grant has become which.
type TransferGrantDocument struct {
	FromGrantID credit.GrantID   `json:"from_grant_id"`
	GrantID     credit.GrantID   `json:"grant_id"`
	Type        credit.GrantType `json:"type"`
	Amount      string           `json:"amount"`
	CostBasis   *MoneyDocument   `json:"cost_basis,omitempty"` // carried along, in the entity's currency; none: nothing was paid
}

func (d *decision) transferred(from, to *credit.Grant, scale int) TransferGrantDocument {
	doc := TransferGrantDocument{FromGrantID: from.ID, GrantID: to.ID, Type: to.Type, Amount: to.Amount.Format(scale)}
	if to.Price.Currency != "" {
		doc.CostBasis = &MoneyDocument{Amount: credit.Money{Minor: to.Basis, Currency: d.c.base.currency}.String(), Currency: d.c.base.currency}
	}
	return doc
}

// operationName names an operation outside.
func operationName(c credit.CustomerID, ver int64) string {
	return c.String() + "/" + strconv.FormatInt(ver, 10)
}
