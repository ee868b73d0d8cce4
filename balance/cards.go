package balance

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

func (o *AssignCard) decide(d *decision) (receipt, error) {
	if _, err := d.book.Unit(o.Card); err != nil {
		return nil, err
	}
	a := db.Assignment{ID: o.Assignment, Card: o.Card, From: o.From.UTC().Truncate(time.Microsecond), To: o.To.UTC().Truncate(time.Microsecond)}
	if o.From.IsZero() {
		a.From = d.c.at
	}
	if !a.To.IsZero() && !a.To.After(a.From) {
		return nil, credit.Invalid("/valid_to", "The assignment would be over before it begins.")
	}
	if err := d.c.cards.free(a); err != nil {
		return nil, err
	}
	d.c.cards.put(a)
	d.changes.NewAssignments = append(d.changes.NewAssignments, db.AssignmentRow{Assignment: a, Customer: d.c.id, At: d.c.at, By: d.job.op.header().Actor, Reason: o.Reason})
	return d.assigned(a, o.Reason), nil
}

func (o *EndAssignment) decide(d *decision) (receipt, error) {
	i := slices.IndexFunc(d.c.cards.assigned, func(a db.Assignment) bool { return a.ID == o.Assignment })
	if i < 0 {
		return nil, credit.Errorf(credit.AssignmentNotFound, "The customer has no assignment %s that could price an event.", o.Assignment)
	}
	a := d.c.cards.assigned[i]
	to := o.To.UTC().Truncate(time.Microsecond)
	switch {
	case o.To.IsZero():
		to = d.c.at
	case to.Before(d.c.at):
		return nil, &ofState{credit.Invalid("/valid_to", "An assignment ends now or later: what was used until now is priced by it.")}
	}
	if !a.To.IsZero() && !a.To.After(d.c.at) {
		return nil, &ofState{credit.Invalid("/valid_to", "The assignment ended at %s.", Instant(a.To))}
	}
	if a.To = to; to.Before(a.From) {
		a.To = a.From
	}
	if err := d.c.cards.free(a); err != nil {
		return nil, err
	}
	d.c.cards.put(a)
	d.changes.Assignments = append(d.changes.Assignments, a)
	return d.assigned(a, o.Reason), nil
}

func (d *decision) assigned(a db.Assignment, reason string) receipt {
	d.kind = "configure"
	return jsonReceipt(AssignmentDocument{
		ID: a.ID, CustomerID: d.c.id, RateCardID: a.Card, ValidFrom: Instant(a.From), ValidTo: instantOrNil(a.To), Reason: reason, Ver: d.ver,
	})
}

// free refuses an assignment that would share an instant with another one.
func (c *cards) free(a db.Assignment) error {
	for _, b := range c.assigned {
		if b.ID != a.ID && overlap(a, b) {
			return credit.Errorf(credit.AssignmentOverlaps, "Rate card %s is assigned to the customer from %s to %s.", b.Card, Instant(b.From), endText(b)).
				With("assignment_id", b.ID.String())
		}
	}
	return nil
}

// overlap tells whether two ranges share an instant; an empty one shares none.
func overlap(a, b db.Assignment) bool {
	empty := func(x db.Assignment) bool { return x.From.Equal(x.To) }
	return !empty(a) && !empty(b) && (a.To.IsZero() || b.From.Before(a.To)) && (b.To.IsZero() || a.From.Before(b.To))
}

func endText(a db.Assignment) string {
	if a.To.IsZero() {
		return "further notice"
	}
	return Instant(a.To).String()
}

// put adds an assignment, or replaces the one of its id.
func (c *cards) put(a db.Assignment) {
	list := slices.DeleteFunc(slices.Clone(c.assigned), func(b db.Assignment) bool { return b.ID == a.ID })
	i, _ := slices.BinarySearchFunc(list, a, func(x, y db.Assignment) int { return x.From.Compare(y.From) })
	c.assigned = slices.Insert(list, i, a)
}

func (o *Quote) decide(d *decision) (receipt, error) {
	ch, err := o.charge(d, o.Usage, nil)
	if err != nil {
		return nil, err
	}
	q := QuoteDocument{
		CustomerID: d.c.id, Ver: d.c.ver, Unit: ch.unit, ServiceAt: Instant(ch.serviceAt), QuotedAt: Instant(d.c.at), Dimensions: ch.dims,
		ChargeDocument: d.describeCharge(&ch), Cost: ch.compute.describe(), DrawOrder: credit.DrawOrderVersion,
	}
	if !o.Member.IsZero() {
		q.MemberID = &o.Member
	}
	for i := range ch.gates {
		q.Limits = append(q.Limits, d.describeGate(&ch.gates[i]))
	}
	if o.Maximum != nil {
		all := o.Consume
		all.Partial = true
		most, err := all.charge(d, o.Maximum, nil)
		switch credit.CodeOf(err) {
		case credit.InsufficientCredits, credit.NotEntitled, credit.LimitReached:
		default:
			if err != nil {
				return nil, err
			}
		}
		doc := d.describeCharge(&most)
		q.Maximum = &doc
	}
	return jsonReceipt(q), nil
}

// describeCharge describes what a charge would do to the customer as it stands.
func (d *decision) describeCharge(ch *charge) ChargeDocument {
	doc := ChargeDocument{Amount: ch.sel.Total.Format(ch.scale), Draws: make([]DrawDocument, 0, len(ch.sel.Draws)), Pricing: describePricing(ch.priced, ch.scale)}
	if ch.sel.Short > 0 {
		doc.Partial, doc.Shortfall = true, ch.sel.Short.Format(ch.scale)
	}
	if ch.sel.Gate > 0 {
		by := d.describeGate(&ch.gates[ch.sel.Gate-1])
		doc.RefusedBy = &by
	}
	left := available(d.c.grants, ch.unit, d.c.at) + ch.back
	if ch.back > 0 {
		doc.GivenBack = ch.back.Format(ch.scale)
	}
	for _, draw := range ch.sel.Draws {
		g := draw.Grant
		if countsAsAvailable(g, d.c.at) {
			left -= draw.Amount
		}
		doc.Draws = append(doc.Draws, DrawDocument{GrantID: g.ID, WalletID: g.Wallet.ID, Type: g.Type, Amount: draw.Amount.Format(ch.scale),
			Left: (g.Available - draw.Amount).Format(ch.scale)})
	}
	doc.Available = left.Format(ch.scale)
	return doc
}

func describePricing(priced []rating.Priced, scale int) []json.RawMessage {
	var out []json.RawMessage
	for i := range priced {
		out = append(out, appendPricing(nil, &priced[i], scale))
	}
	return out
}
