package balance

import (
	"maps"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

func (o *CreateWallet) decide(d *decision) (receipt, error) {
	w := o.Wallet
	for _, have := range d.c.wallets {
		if have.Name == w.Name {
			return nil, credit.Errorf(credit.AlreadyExists, "The customer has a wallet named %q.", w.Name)
		}
	}
	d.c.wallets = maps.Clone(d.c.wallets)
	if d.c.wallets == nil {
		d.c.wallets = make(map[credit.WalletID]*credit.Wallet)
	}
	d.c.wallets[w.ID], d.c.reshaped = &w, true
	d.changes.NewWallets = append(d.changes.NewWallets, db.NewWallet{Customer: d.c.id, Wallet: &w, At: d.c.at})
	doc := describeWallet(&w, d.c.id)
	d.kind = "configure"
	if w.SoftCap {
		g := &credit.Grant{
			ID: credit.DerivedID[credit.GrantID]("wallet/" + w.ID.String() + "/overage"), CustomerID: d.c.id, Wallet: &w, Type: credit.Overage,
			Status: credit.StatusOpen, EffectiveAt: d.c.at, CreatedAt: d.c.at, IssuedAt: d.c.at, RatePolicy: credit.Floating,
			Price: credit.Money{Minor: o.OveragePrice, Currency: d.c.base.currency}, Basis: o.OveragePrice, Amount: o.OverageLimit,
			Granted: o.OverageLimit, Available: o.OverageLimit, Priority: 100,
		}
		d.changes.NewGrants = append(d.changes.NewGrants, db.NewGrant{Grant: d.c.add(g)})
		d.kind, d.amount, d.unit = "issue", g.Amount, w.Unit
		d.move(g, "issued", "available", g.Amount)
		doc.OverageID = &g.ID
		overage := d.describe(g)
		d.grantEvent("created", overage)
		d.grantEvent("issued", overage)
	}
	d.event("wallet.created", w.ID.String(), facts{"wallet": doc})
	return jsonReceipt(doc), nil
}

func (o *UpdateWallet) decide(d *decision) (receipt, error) {
	old := d.c.wallets[o.Wallet]
	if old == nil {
		return nil, credit.Errorf(credit.WalletNotFound, "The customer has no wallet %s.", o.Wallet)
	}
	w := *old
	if o.Priority != nil {
		w.Priority = *o.Priority
	}
	if o.Scope != nil {
		w.Scope = *o.Scope
	}
	d.c.wallets = maps.Clone(d.c.wallets)
	d.c.wallets[w.ID], d.c.reshaped = &w, true
	d.c.ownGrants()
	for i, g := range d.c.grants {
		if g.Wallet == old {
			mine := *g
			mine.Wallet = &w
			d.c.grants[i] = &mine
			if t := d.c.touched[g.ID]; t != nil {
				t.now = &mine
			}
		}
	}
	d.c.unsorted = true
	d.changes.Wallets = append(d.changes.Wallets, &w)
	d.kind = "configure"
	doc := describeWallet(&w, d.c.id)
	d.event("wallet.updated", w.ID.String(), facts{"wallet": doc})
	return jsonReceipt(doc), nil
}

func describeWallet(w *credit.Wallet, c credit.CustomerID) *WalletDocument {
	doc := &WalletDocument{ID: w.ID, CustomerID: c, Unit: w.Unit, Name: w.Name, Priority: w.Priority, Scope: scopeOrEmpty(w.Scope), Cap: "hard"}
	if w.SoftCap {
		doc.Cap = "soft"
	}
	if !w.Member.IsZero() {
		doc.MemberID = &w.Member
	}
	return doc
}

func (o *UpdateCustomer) decide(d *decision) (receipt, error) {
	if !o.RateCard.IsZero() {
		if _, err := d.book.Unit(o.RateCard); err != nil {
			return nil, err
		}
	}
	d.c.cards.own = o.RateCard
	d.changes.Cards = append(d.changes.Cards, db.CustomerCard{Customer: d.c.id, Card: o.RateCard})
	d.kind = "configure"
	doc := map[string]any{"customer_id": d.c.id, "rate_card_id": o.RateCard, "ver": d.ver}
	d.event("customer.updated", d.c.id.String(), facts{"customer_change": doc})
	return jsonReceipt(doc), nil
}

func (o *CreateGrant) decide(d *decision) (receipt, error) {
	g := o.Grant
	if g.Wallet = d.c.wallets[o.Grant.Wallet.ID]; g.Wallet == nil {
		return nil, credit.Errorf(credit.WalletNotFound, "The customer has no wallet %s.", o.Grant.Wallet.ID)
	}
	if m := g.Wallet.Member; !m.IsZero() && !g.MemberID.IsZero() && g.MemberID != m {
		return nil, &ofState{credit.Invalid("/member", "The wallet is another member's.")}
	}
	g.CustomerID, g.CreatedAt = d.c.id, d.c.at
	if g.EffectiveAt.IsZero() {
		g.EffectiveAt = d.c.at
	}
	g.EffectiveAt, g.ExpiresAt = g.EffectiveAt.UTC().Truncate(time.Microsecond), g.ExpiresAt.UTC().Truncate(time.Microsecond)
	if !g.ExpiresAt.IsZero() && (!g.ExpiresAt.After(g.EffectiveAt) || g.PastExpiry(d.c.at)) {
		return nil, credit.Invalid("/expires_at", "The grant would be over before it begins.")
	}
	if err := priceGrant(&g, d.c.base.currency); err != nil {
		return nil, err
	}
	if g.RatePolicy == credit.Locked {
		var err error
		card := d.c.cards.at(d.c.at)
		if g.RateCard, err = d.book.CardID(card); err != nil {
			return nil, err
		}
		if g.RateVersion, err = d.book.VersionAt(card, d.c.at); err != nil {
			return nil, err
		}
	}
	bonus, err := o.bonus(&g, d.c.at)
	if err != nil {
		return nil, err
	}
	doc := o.create(d, &g)
	if bonus != nil {
		amount := d.amount
		doc.Bonus = o.create(d, bonus)
		d.amount += amount
	}
	return jsonReceipt(doc), nil
}

// create adds a grant, issued or pending.
func (o *CreateGrant) create(d *decision, g *credit.Grant) *GrantDocument {
	g.Status, d.kind = credit.StatusPending, "create"
	if !o.Pending {
		d.issue(g)
	}
	d.changes.NewGrants = append(d.changes.NewGrants, db.NewGrant{Grant: d.c.add(g), Metadata: o.Metadata})
	d.changes.Outbox = append(d.changes.Outbox, startOf(d.c.id, g.ID))
	doc := d.describe(g)
	doc.Metadata = o.Metadata
	d.grantEvent("created", doc)
	if !o.Pending {
		d.grantEvent("issued", doc)
	}
	return doc
}

// startOf asks for a grant's workflow: the first time, or again.
func startOf(c credit.CustomerID, g credit.GrantID) db.OutboxRow {
	return db.OutboxRow{Topic: "grant.start", Subject: g.String(), Payload: `{"customer_id":"` + c.String() + `"}`}
}

// priceGrant fills in what the price is in the entity's currency.
func priceGrant(g *credit.Grant, currency string) error {
	switch {
	case g.Price.Currency != "" && g.Type != credit.Purchased && g.Type != credit.Concession:
		return credit.Invalid("/price", "A grant that is %s has no price: nothing was paid for it. What was paid for is purchased.", g.Type)
	case g.Price.Currency == "" && g.Type == credit.Concession:
		return credit.Invalid("/price", "A concession needs a price: what the credits are worth to the customer, which lessens revenue now.")
	case g.Price.Currency == "":
		g.Basis, g.TaxBasis = 0, 0
		return nil
	case g.Price.Currency == currency:
		if !g.FXRate.IsZero() {
			return credit.Invalid("/price/fx_rate", "The price is in %s, the currency of the customer's entity: there is no rate to convert at.", currency)
		}
		g.Basis, g.TaxBasis = g.Price.Minor, g.Tax
		return nil
	case g.FXRate.IsZero():
		return credit.Invalid("/price/fx_rate", "The price is in %s and the books are in %s: the rate is needed.", g.Price.Currency, currency)
	}
	net, err := g.Price.Convert(currency, g.FXRate)
	if err != nil {
		return err
	}
	tax, err := credit.Money{Minor: g.Tax, Currency: g.Price.Currency}.Convert(currency, g.FXRate)
	if err != nil {
		return err
	}
	g.Basis, g.TaxBasis = net.Minor, tax.Minor
	return nil
}

// issue makes a grant's credits available.
func (d *decision) issue(g *credit.Grant) {
	g.Status, g.IssuedAt, g.Granted, g.Available = credit.StatusOpen, d.c.at, g.Amount, g.Amount
	d.kind, d.amount, d.unit = "issue", g.Amount, g.Wallet.Unit
	d.move(g, "issued", "available", g.Amount)
}

func (d *decision) describe(g *credit.Grant) *GrantDocument {
	doc := DescribeGrant(g, d.scale(g.Wallet.Unit), d.c.base.currency, d.c.at)
	doc.Ver = d.ver
	return &doc
}

// editable finds a grant and makes it this batch's own.
func (d *decision) editable(id credit.GrantID) (*credit.Grant, error) {
	g, err := d.c.find(id)
	if err != nil {
		return nil, err
	}
	return d.c.edit(g, false), nil
}

func (o *IssueGrant) decide(d *decision) (receipt, error) {
	g, err := d.c.find(o.Grant)
	if err != nil {
		return nil, err
	}
	if !g.BonusOf.IsZero() {
		return nil, bonusRefusal(g, d.c.at, "issued")
	}
	if g.Status != credit.StatusPending {
		return nil, stateRefusal(g, d.c.at, "issued")
	}
	if g.PastExpiry(d.c.at) {
		return nil, credit.Errorf(credit.GrantExpired, "The grant expired at %s, before its payment came.", Instant(g.ExpiresAt))
	}
	doc, err := o.issue(d, o.Grant)
	if err != nil {
		return nil, err
	}
	// A bonus that is past its expiry by now was paid for all the same: it serves no more, and its part of the price is breakage.
	if bonus := d.c.bonus(o.Grant); bonus != nil && bonus.Status == credit.StatusPending {
		amount := d.amount
		if doc.Bonus, err = o.issue(d, bonus.ID); err != nil {
			return nil, err
		}
		d.amount += amount
	}
	return jsonReceipt(doc), nil
}

// issue makes a pending grant's credits available.
func (o *IssueGrant) issue(d *decision, id credit.GrantID) (*GrantDocument, error) {
	g, err := d.editable(id)
	if err != nil {
		return nil, err
	}
	if o.PaymentRef != "" {
		g.PaymentRef = o.PaymentRef
	}
	g.Wallet = d.c.wallets[g.Wallet.ID] // which may have changed since the grant was loaded
	d.issue(g)
	d.c.ownGrants()
	d.c.grants, d.c.unsorted = append(d.c.grants, g), true
	d.tell(g.ID, "issued")
	doc := d.describe(g)
	d.grantEvent("issued", doc)
	return doc, nil
}

func (o *Expire) decide(d *decision) (receipt, error) {
	g, err := d.c.find(o.Grant)
	if err != nil {
		return nil, err
	}
	switch {
	case g.Status != credit.StatusOpen || g.Frozen, g.PastExpiry(d.c.at) && g.Available == 0: // what is held expires when its holds let go of it
		return nil, stateRefusal(g, d.c.at, "expired")
	case !g.PastExpiry(d.c.at):
		return nil, credit.Errorf(credit.GrantNotExpired, "The grant does not expire before %s.", expiryText(g))
	}
	if g, err = d.editable(o.Grant); err != nil {
		return nil, err
	}
	d.expire(g)
	doc := d.describe(g)
	d.grantEvent("expired", doc)
	return jsonReceipt(doc), nil
}

// expire books what is left of a grant as expired. What is held stays with its holds.
func (d *decision) expire(g *credit.Grant) {
	left := g.Available
	g.Available, g.Expired = 0, g.Expired+left
	if left > 0 {
		d.move(g, "available", "expired", left)
	}
	if g.Held == 0 {
		g.Status = credit.StatusExpired
	}
	d.kind, d.amount, d.unit, d.serviceAt = "expire", left, g.Wallet.Unit, g.ExpiresAt
	d.tell(g.ID, "expired")
}

func (o *RefundGrant) decide(d *decision) (receipt, error) {
	g, err := d.c.find(o.Grant)
	if err != nil {
		return nil, err
	}
	if err := d.undisputed(g); err != nil {
		return nil, err
	}
	scale := d.scale(g.Wallet.Unit)
	units, err := Refundable(g, o.Units, scale, d.c.at)
	if err != nil {
		return nil, err
	}
	refunded, err := d.refunded(g)
	if err != nil {
		return nil, err
	}
	owed, err := Owed(g, units, refunded, o.FXRate, d.c.base.currency)
	if err != nil {
		return nil, err
	}
	bonus := d.c.bonus(o.Grant)
	extra := BonusShare(g, units, bonus, d.c.at)
	var extraOwed Owing
	if extra > 0 {
		if err := d.undisputed(bonus); err != nil {
			return nil, err
		}
		if refunded, err = d.refunded(bonus); err != nil {
			return nil, err
		}
		if extraOwed, err = Owed(bonus, extra, refunded, o.FXRate, d.c.base.currency); err != nil {
			return nil, err
		}
	}
	doc, err := o.takeBack(d, o.Grant, o.Refund, units, owed)
	if err == nil && extra > 0 {
		doc.Bonus, err = o.takeBack(d, bonus.ID, credit.DerivedID[credit.RefundID]("refund/"+o.Refund.String()+"/bonus"), extra, extraOwed)
		d.amount += units
	}
	return jsonReceipt(doc), err
}

// takeBack moves a grant's available credits to its refunded ones, for what is owed.
func (o *RefundGrant) takeBack(d *decision, grant credit.GrantID, id credit.RefundID, units credit.Amount, owed Owing) (*RefundDocument, error) {
	g, err := d.editable(grant)
	if err != nil {
		return nil, err
	}
	g.Available -= units
	g.Refunded += units
	d.move(g, "available", "refunded", units)
	if g.Available == 0 && g.Held == 0 {
		g.Status = credit.StatusRefunded
	}
	d.kind, d.amount, d.unit = "refund", units, g.Wallet.Unit
	doc := d.owe(g, id, units, owed, o.Reason)
	d.tell(g.ID, "refunded")
	d.event("grant.refunded", g.ID.String(), facts{"grant": d.describe(g), "refund": doc})
	return doc, nil
}

// owe records what is to be paid back for units taken away, has the settlement started, and returns the refund's document.
func (d *decision) owe(g *credit.Grant, id credit.RefundID, units credit.Amount, owed Owing, reason string) *RefundDocument {
	status := "awaiting_settlement"
	if owed.Money.Minor+owed.Tax == 0 {
		status = "nothing_to_pay"
	}
	d.changes.Refunds = append(d.changes.Refunds, db.RefundRow{
		ID: id, Customer: d.c.id, Grant: g.ID, Ver: d.ver, Units: units, Money: owed.Money.Minor, Tax: owed.Tax, Currency: owed.Money.Currency,
		Basis: owed.Basis, TaxBasis: owed.TaxBasis, Reason: reason, Status: status, At: d.c.at,
	})
	d.changes.Outbox = append(d.changes.Outbox, db.OutboxRow{
		Topic: "refund.start", Subject: id.String(), Payload: `{"customer_id":"` + d.c.id.String() + `"}`,
	})
	at, scale := Instant(d.c.at), d.scale(g.Wallet.Unit)
	doc := &RefundDocument{
		ID: &id, CustomerID: d.c.id, GrantID: g.ID, Units: units.Format(scale), Refundable: g.Available.Format(scale), Money: owed.Document(),
		Reason: reason, Status: status, CreatedAt: &at, Ver: d.ver,
	}
	d.event("refund.created", id.String(), facts{"refund": doc})
	return doc
}

func (o *VoidGrant) decide(d *decision) (receipt, error) {
	g, err := d.c.find(o.Grant)
	if err != nil {
		return nil, err
	}
	if !g.BonusOf.IsZero() {
		return nil, bonusRefusal(g, d.c.at, "voided")
	}
	if !voidable(g, d.c.at) {
		return nil, stateRefusal(g, d.c.at, "voided")
	}
	if err := d.undisputed(g); err != nil {
		return nil, err
	}
	if o.OnlyPending && g.Status != credit.StatusPending {
		return nil, stateRefusal(g, d.c.at, "voided as one whose payment is awaited")
	}
	owed, err := d.owedForVoid(g)
	if err != nil {
		return nil, err
	}
	bonus := d.c.bonus(o.Grant)
	var bonusOwed Owing
	switch {
	case bonus != nil && bonus.Held > 0:
		return nil, stateRefusal(bonus, d.c.at, "voided")
	case bonus != nil && !voidable(bonus, d.c.at):
		bonus = nil // nothing is left of it, or it has expired
	case bonus != nil:
		if err := d.undisputed(bonus); err != nil {
			return nil, err
		}
		if bonusOwed, err = d.owedForVoid(bonus); err != nil {
			return nil, err
		}
	}
	doc, err := o.void(d, o.Grant, owed)
	if err == nil && bonus != nil {
		amount := d.amount
		doc.Bonus, err = o.void(d, bonus.ID, bonusOwed)
		d.amount += amount
	}
	return jsonReceipt(doc), err
}

func voidable(g *credit.Grant, at time.Time) bool {
	return (g.Status == credit.StatusPending || g.Status == credit.StatusOpen) && g.Held == 0 && (!g.PastExpiry(at) || g.Status != credit.StatusOpen || g.Frozen)
}

// owedForVoid is what is paid back when all that is left of a grant is taken away.
func (d *decision) owedForVoid(g *credit.Grant) (Owing, error) {
	refunded, err := d.refunded(g)
	if err != nil {
		return Owing{}, err
	}
	return Owed(g, g.Available, refunded, g.FXRate, d.c.base.currency)
}

// void takes away all that is left of a grant.
func (o *VoidGrant) void(d *decision, id credit.GrantID, owed Owing) (*GrantDocument, error) {
	g, err := d.editable(id)
	if err != nil {
		return nil, err
	}
	left := g.Available
	d.kind, d.amount, d.unit = "void", left, g.Wallet.Unit
	g.Status, g.Frozen, g.Available, g.Voided = credit.StatusVoided, false, 0, g.Voided+left
	if left > 0 {
		d.move(g, "available", "voided", left)
	}
	if owed.Money.Minor+owed.Tax > 0 {
		d.owe(g, credit.DerivedID[credit.RefundID]("grant/"+g.ID.String()+"/void"), left, owed, o.Reason)
	}
	d.tell(g.ID, "voided")
	doc := d.describe(g)
	doc.Reason = o.Reason
	d.grantEvent("voided", doc)
	return doc, nil
}

func (o *DecrementGrant) decide(d *decision) (receipt, error) {
	g, err := d.c.find(o.Grant)
	if err != nil {
		return nil, err
	}
	if err := d.undisputed(g); err != nil {
		return nil, err
	}
	scale, units := d.scale(g.Wallet.Unit), o.Units
	if units == 0 {
		units = g.Available
	}
	switch {
	case g.Type == credit.Overage:
		return nil, credit.Errorf(credit.GrantState, "An overage grant is a limit, not credits that the customer has.").With("state", string(g.State(d.c.at)))
	case g.Status == credit.StatusPending || g.Status == credit.StatusOpen && !g.Frozen && g.PastExpiry(d.c.at):
		return nil, stateRefusal(g, d.c.at, "decremented")
	case units == 0 || units > g.Available:
		return nil, shortRefusal(g.Available, units, g.Wallet.Unit, scale)
	}
	if g, err = d.editable(o.Grant); err != nil {
		return nil, err
	}
	g.Available -= units
	g.Consumed += units
	d.move(g, "available", "consumed", units)
	d.emptied(g)
	d.kind, d.amount, d.unit = "decrement", units, g.Wallet.Unit
	doc := d.describe(g)
	doc.Units, doc.Reason = units.Format(scale), o.Reason
	d.grantEvent("decremented", doc)
	return jsonReceipt(doc), nil
}

// shortRefusal says that a grant or wallet has less than is to be taken from it.
func shortRefusal(have, need credit.Amount, unit string, scale int) *credit.Error {
	return credit.Errorf(credit.InsufficientCredits, "%s %s are available and %s are to be taken.", have.Format(scale), unit, need.Format(scale)).
		With("unit", unit).With("required", need.Format(scale)).With("balance", have.Format(scale)).With("not_entitled", credit.Amount(0).Format(scale))
}

func (o *ExtendGrant) decide(d *decision) (receipt, error) {
	g, err := d.c.find(o.Grant)
	if err != nil {
		return nil, err
	}
	until := o.ExpiresAt.UTC().Truncate(time.Microsecond)
	switch {
	case g.Status != credit.StatusOpen && g.Status != credit.StatusPending:
		return nil, stateRefusal(g, d.c.at, "extended")
	case g.PastExpiry(d.c.at):
		return nil, credit.Errorf(credit.GrantExpired, "The grant expired at %s; more time is a new grant.", Instant(g.ExpiresAt))
	case g.ExpiresAt.IsZero() || !until.IsZero() && !until.After(g.ExpiresAt):
		return nil, &ofState{credit.Invalid("/expires_at", "The grant already lives until %s.", expiryText(g))}
	}
	if g, err = d.editable(o.Grant); err != nil {
		return nil, err
	}
	g.ExpiresAt, d.c.unsorted, d.kind = until, true, "extend"
	d.tell(g.ID, "extended")
	doc := d.describe(g)
	doc.Reason = o.Reason
	d.grantEvent("extended", doc)
	return jsonReceipt(doc), nil
}

func (o *FreezeGrant) decide(d *decision) (receipt, error) {
	g, err := d.c.find(o.Grant)
	if err != nil {
		return nil, err
	}
	if g.Status != credit.StatusOpen || g.Frozen != o.Thaw || !o.Thaw && g.PastExpiry(d.c.at) {
		verb := "frozen"
		if o.Thaw {
			verb = "unfrozen"
		}
		return nil, stateRefusal(g, d.c.at, verb)
	}
	if err := d.undisputed(g); err != nil {
		return nil, err
	}
	if g, err = d.editable(o.Grant); err != nil {
		return nil, err
	}
	g.Frozen = !o.Thaw
	switch {
	case g.Frozen:
		d.kind = "freeze"
		d.tell(g.ID, "frozen")
	case g.PastExpiry(d.c.at):
		d.expire(g) // it could not expire while it was frozen
		d.serviceAt = d.c.at
	default:
		d.kind = "unfreeze"
		d.tell(g.ID, "unfrozen")
	}
	doc := d.describe(g)
	doc.Reason = o.Reason
	d.grantEvent(map[string]string{"freeze": "frozen", "expire": "expired", "unfreeze": "unfrozen"}[d.kind], doc)
	return jsonReceipt(doc), nil
}

func stateRefusal(g *credit.Grant, t time.Time, verb string) *credit.Error {
	return credit.Errorf(credit.GrantState, "A grant that is %s cannot be %s.", g.State(t), verb).With("state", string(g.State(t)))
}

func expiryText(g *credit.Grant) string {
	if g.ExpiresAt.IsZero() {
		return "ever"
	}
	return Instant(g.ExpiresAt).String()
}

func (*ReadBalance) decide(d *decision) (receipt, error) {
	doc := BalanceDocument{CustomerID: d.c.id, Ver: d.c.ver, Consistent: true, Units: unitBalances(d.c.grants, d.c.wallets, d.c.at, d.scale)}
	return jsonReceipt(doc), nil
}
