package balance

import (
	"slices"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// Dispute takes in what the payment provider says about a payment that the customer's bank has taken back, or may: that it is open, won or lost.
// Reference is the provider's name for the dispute, and its identity: messages may come twice and in any order, and all orders
// end in the same. An open dispute freezes what is left of the grant; what holds have set aside they keep. Won, it gives back what it froze; lost, it
// takes away what is left, and what holds let go of later. A final message opens a dispute that is not known, and ends it.
//
// It is refused with dispute_state when it contradicts what is known: won after lost or the other way round, another amount or fee, a second dispute of
// the grant, more than was paid for it and has not been paid back; and with grant_state for a grant that nothing was paid for. The receipt is the JSON of a
// [DisputeDocument].
type Dispute struct {
	Header
	Reference   string
	Grant       credit.GrantID
	Status      db.DisputeStatus
	Amount, Fee int64 // minor units of the price's currency; Amount with tax
	Reason      string
}

// disputes are those of a grant.
func (d *decision) disputes(g credit.GrantID) ([]*db.DisputeRow, error) {
	rows, known := d.c.disputes[g]
	if !known {
		return nil, &want{disputes: g}
	}
	return rows, nil
}

// undisputed refuses to change a grant that an open dispute has frozen, or that a lost one has taken away.
func (d *decision) undisputed(g *credit.Grant) error {
	if !g.Frozen && g.Status != credit.StatusVoided {
		return nil
	}
	return d.uncontested(g)
}

// uncontested refuses to take anything out of a grant whose payment a dispute may take back, or has taken, also when it had expired before that.
func (d *decision) uncontested(g *credit.Grant) error {
	rows, err := d.disputes(g.ID)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Status != db.DisputeWon {
			return disputeRefusal(r, "The payment of the grant is disputed (%s).", r.Reference)
		}
	}
	return nil
}

func disputeRefusal(r *db.DisputeRow, format string, args ...any) *credit.Error {
	return credit.Errorf(credit.DisputeState, format, args...).With("state", string(r.Status))
}

func (o *Dispute) decide(d *decision) (receipt, error) {
	g, err := d.c.find(o.Grant)
	if err != nil {
		return nil, err
	}
	known, err := d.disputes(g.ID)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(known, func(r *db.DisputeRow) bool { return r.Reference == o.Reference })
	var r *db.DisputeRow
	if i >= 0 {
		copied := *known[i]
		r = &copied
		switch {
		case r.Amount != o.Amount || r.Fee != o.Fee:
			return nil, disputeRefusal(r, "The dispute is known with the amount %s and the fee %s.", o.money(r, r.Amount), o.money(r, r.Fee))
		case r.Status != db.DisputeOpen && o.Status != db.DisputeOpen && r.Status != o.Status:
			return nil, disputeRefusal(r, "The dispute was %s.", r.Status)
		}
	} else {
		refunded, err := d.refunded(g)
		if err != nil {
			return nil, err
		}
		if r, err = o.new(d, g, known, refunded); err != nil {
			return nil, err
		}
	}
	// Nothing is refused from here on.
	g = d.c.edit(g, false)
	if i < 0 {
		d.freeze(g, r)
		known = append(slices.Clone(known), r)
		i = len(known) - 1
	}
	if r.Status == db.DisputeOpen && o.Status != db.DisputeOpen {
		r.Status, r.EndedVer, r.EndedAt = o.Status, d.ver, d.c.at
		if o.Status == db.DisputeWon {
			d.giveUp(g, r)
		} else {
			d.clawBack(g)
		}
		d.event("dispute."+string(r.Status), r.ID.String(), facts{"dispute": d.describeDispute(g, r)})
	}
	known = slices.Clone(known)
	known[i] = r
	d.c.disputes[g.ID] = known
	if d.c.disputed == nil {
		d.c.disputed = make(map[credit.DisputeID]*db.DisputeRow)
	}
	d.c.disputed[r.ID] = r
	d.kind, d.unit, d.amount, d.serviceAt = "dispute", g.Wallet.Unit, d.movedAmount(), d.c.at
	return jsonReceipt(d.describeDispute(g, r)), nil
}

func (o *Dispute) money(r *db.DisputeRow, minor int64) string {
	return credit.Money{Minor: minor, Currency: r.Currency}.String()
}

// new is a dispute that was not known, with what it comes to in the entity's currency.
func (o *Dispute) new(d *decision, g *credit.Grant, known []*db.DisputeRow, refunded db.Refunded) (*db.DisputeRow, error) {
	if g.Type != credit.Purchased || g.Price.Currency == "" || g.Status == credit.StatusPending {
		return nil, credit.Errorf(credit.GrantState, "Nothing was paid for the grant.").With("state", string(g.State(d.c.at)))
	}
	for _, r := range known {
		if r.Status != db.DisputeWon {
			return nil, disputeRefusal(r, "The payment of the grant is disputed already (%s).", r.Reference)
		}
	}
	r := &db.DisputeRow{
		ID: credit.NewID[credit.DisputeID](), Reference: o.Reference, Customer: d.c.id, Grant: g.ID, Status: db.DisputeOpen, Currency: g.Price.Currency,
		Amount: o.Amount, Fee: o.Fee, Basis: o.Amount, FeeBasis: o.Fee, WasFrozen: g.Frozen, Reason: o.Reason, OpenedVer: d.ver, OpenedAt: d.c.at,
	}
	paid := g.Price.Minor + g.Tax
	if left := paid - refunded.Money - refunded.Tax; o.Amount > left {
		return nil, credit.Errorf(credit.DisputeState, "%s was paid for the grant and not paid back.", o.money(r, left)).With("state", "none")
	}
	tax := min(credit.MulDiv(g.Tax, o.Amount, paid), g.Tax-refunded.Tax)
	r.TaxBasis = tax
	if g.Price.Currency != d.c.base.currency {
		fee, err := credit.Money{Minor: o.Fee, Currency: r.Currency}.Convert(d.c.base.currency, g.FXRate)
		if err != nil {
			return nil, err
		}
		r.Basis, r.FeeBasis = credit.MulDiv(g.Basis+g.TaxBasis, o.Amount, paid), fee.Minor
		if g.Tax > 0 {
			r.TaxBasis = credit.MulDiv(g.TaxBasis, tax, g.Tax)
		}
	}
	return r, nil
}

// freeze stops what is left of a grant from serving; what has expired already expires first. A grant that has nothing left is frozen for what may come back.
func (d *decision) freeze(g *credit.Grant, r *db.DisputeRow) {
	switch {
	case g.Frozen:
	case g.Status == credit.StatusDepleted || g.Status == credit.StatusRefunded:
		g.Frozen = true
	case g.Status == credit.StatusOpen:
		if g.PastExpiry(d.c.at) {
			d.expire(g)
			d.grantEvent("expired", d.describe(g))
		}
		if g.Status == credit.StatusOpen {
			g.Frozen = true
			d.tell(g.ID, "frozen")
			d.grantEvent("frozen", d.describe(g))
		}
	}
	d.event("dispute.opened", r.ID.String(), facts{"dispute": d.describeDispute(g, r)})
}

// giveUp lets go of what a dispute has frozen. What should have expired meanwhile expires now.
func (d *decision) giveUp(g *credit.Grant, r *db.DisputeRow) {
	if !g.Frozen || r.WasFrozen {
		return
	}
	g.Frozen = false
	if g.Status != credit.StatusOpen {
		return // nothing has come back to it
	}
	if g.PastExpiry(d.c.at) {
		d.expire(g)
		d.grantEvent("expired", d.describe(g))
		return
	}
	d.tell(g.ID, "unfrozen")
	d.grantEvent("unfrozen", d.describe(g))
}

// clawBack takes away what is left of a grant whose payment was lost, and keeps anything from coming back to it.
func (d *decision) clawBack(g *credit.Grant) {
	if g.Status != credit.StatusOpen && g.Status != credit.StatusDepleted && g.Status != credit.StatusRefunded {
		return
	}
	left := g.Available
	g.Status, g.Frozen, g.Available, g.Voided = credit.StatusVoided, false, 0, g.Voided+left
	if left > 0 {
		d.move(g, "available", "voided", left)
	}
	d.tell(g.ID, "voided")
	d.grantEvent("voided", d.describe(g))
}

// DisputeDocument describes a dispute.
type DisputeDocument struct {
	ID         credit.DisputeID  `json:"id"`
	Reference  string            `json:"reference"`
	CustomerID credit.CustomerID `json:"customer_id"`
	GrantID    credit.GrantID    `json:"grant_id"`
	Status     db.DisputeStatus  `json:"status"`
	Amount     MoneyDocument     `json:"amount"` // tax included
	Fee        MoneyDocument     `json:"fee"`
	Reason     string            `json:"reason"`
	OpenedAt   Instant           `json:"opened_at"`
	EndedAt    *Instant          `json:"ended_at"`         // null: it is open
	Frozen     string            `json:"frozen,omitempty"` // of the grant, in the answer to a message
	Ver        int64             `json:"ver,omitempty"`    // in the answer to a message
}

// DescribeDispute describes a dispute.
func DescribeDispute(r db.DisputeRow) DisputeDocument {
	money := func(minor int64) MoneyDocument {
		return MoneyDocument{Amount: credit.Money{Minor: minor, Currency: r.Currency}.String(), Currency: r.Currency}
	}
	return DisputeDocument{
		ID: r.ID, Reference: r.Reference, CustomerID: r.Customer, GrantID: r.Grant, Status: r.Status, Amount: money(r.Amount), Fee: money(r.Fee),
		Reason: r.Reason, OpenedAt: Instant(r.OpenedAt), EndedAt: instantOrNil(r.EndedAt),
	}
}

func (d *decision) describeDispute(g *credit.Grant, r *db.DisputeRow) DisputeDocument {
	doc := DescribeDispute(*r)
	doc.Ver, doc.Frozen = d.ver, credit.Amount(0).Format(d.scale(g.Wallet.Unit))
	if g.Frozen {
		doc.Frozen = g.Available.Format(d.scale(g.Wallet.Unit))
	}
	return doc
}
