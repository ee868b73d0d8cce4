package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// GrantRef names a grant.
type GrantRef struct {
	GrantID    credit.GrantID    `json:"grant_id"`
	CustomerID credit.CustomerID `json:"customer_id"`
}

// GrantFacts is what a grant's workflow goes by and shows, as Postgres had it at ReadAt. There are no balances among them: those change
// without the workflow.
type GrantFacts struct {
	GrantRef
	WalletID    credit.WalletID  `json:"wallet_id"`
	Wallet      string           `json:"wallet"`  // its name
	Credits     string           `json:"credits"` // what was granted: "1000 CRD"
	Price       string           `json:"price,omitempty"`
	Type        credit.GrantType `json:"type"`
	Status      credit.Status    `json:"status"`
	Frozen      bool             `json:"frozen,omitempty"`
	EffectiveAt time.Time        `json:"effective_at"`
	ExpiresAt   time.Time        `json:"expires_at,omitzero"` // zero: never
	CreatedAt   time.Time        `json:"created_at"`
	IssuedAt    time.Time        `json:"issued_at,omitzero"` // zero while payment is awaited
	Ver         int64            `json:"ver"`                // of the customer: of two readings the one with the greater Ver is the newer
	ReadAt      time.Time        `json:"read_at"`            // clock of Postgres
}

// State tells how the grant stands at an instant.
func (f *GrantFacts) State(t time.Time) credit.State {
	g := credit.Grant{Status: f.Status, Frozen: f.Frozen, EffectiveAt: f.EffectiveAt, ExpiresAt: f.ExpiresAt}
	return g.State(t)
}

// Over tells whether nothing can happen to the grant any more.
func (f *GrantFacts) Over() bool {
	return f.Status != credit.StatusPending && f.Status != credit.StatusOpen
}

// FactsOf makes the facts of a grant as it was read.
func FactsOf(l db.Lifecycle) GrantFacts {
	g := l.Grant
	f := GrantFacts{
		GrantRef: GrantRef{GrantID: g.ID, CustomerID: g.CustomerID}, WalletID: g.Wallet.ID, Wallet: g.Wallet.Name,
		Credits: g.Amount.Format(l.Scale) + " " + g.Wallet.Unit, Type: g.Type, Status: g.Status, Frozen: g.Frozen,
		EffectiveAt: g.EffectiveAt, ExpiresAt: g.ExpiresAt, CreatedAt: g.CreatedAt, IssuedAt: g.IssuedAt, Ver: l.Ver, ReadAt: l.ReadAt,
	}
	if g.Price.Currency != "" {
		f.Price = g.Price.String() + " " + g.Price.Currency
	}
	return f
}

// ReadGrant reads a grant's facts afresh.
func (a *Activities) ReadGrant(ctx context.Context, in GrantRef) (GrantFacts, error) {
	found, err := a.Store.Lifecycles(ctx, in.GrantID)
	if err != nil {
		return GrantFacts{}, err
	}
	if len(found) == 0 {
		return GrantFacts{}, refusal(credit.Errorf(credit.GrantNotFound, "There is no grant %s.", in.GrantID))
	}
	return FactsOf(found[0]), nil
}

// Expired is what an expiry came to.
type Expired struct {
	Grant GrantFacts `json:"grant"`
	Now   bool       `json:"now,omitempty"` // this is what booked it
}

// ExpireGrant books what is left of a grant past its expiry, and returns how the grant stands then. Whether it is past its expiry is for
// Postgres to say: "too early" and "frozen" are answers, to be read from the facts, and so is "the sweep was faster". While the customer is
// frozen by the auditor it fails and is retried.
func (a *Activities) ExpireGrant(ctx context.Context, in GrantRef) (Expired, error) {
	f, err := a.ReadGrant(ctx, in)
	if err != nil || f.State(f.ReadAt) != credit.StateExpired || f.Over() {
		return Expired{Grant: f}, err
	}
	_, err = a.Service.Do(ctx, &balance.Expire{Header: balance.Header{Customer: in.CustomerID}, Grant: in.GrantID})
	now := err == nil
	switch credit.CodeOf(err) {
	case credit.GrantNotExpired, credit.GrantState: // it changed in between
	case credit.CustomerFrozen:
		return Expired{}, err
	default:
		if err != nil {
			return Expired{}, refusal(err)
		}
	}
	f, err = a.ReadGrant(ctx, in)
	return Expired{Grant: f, Now: now}, err
}

// RemindInput names a reminder.
type RemindInput struct {
	GrantRef
	ExpiresAt time.Time `json:"expires_at"` // the expiry that it is about
	Days      int       `json:"days"`       // before it
}

// RemindExpiry records the notification that a grant expires in so many days, once, unless the grant is no longer to expire then. It
// returns how the grant stands.
func (a *Activities) RemindExpiry(ctx context.Context, in RemindInput) (GrantFacts, error) {
	f, err := a.ReadGrant(ctx, in.GrantRef)
	if err != nil {
		return GrantFacts{}, err
	}
	_, err = a.Store.NotifyExpiring(ctx, db.ExpiryReminder{Grant: in.GrantID, Wallet: f.WalletID, ExpiresAt: in.ExpiresAt, Days: in.Days})
	return f, err
}

// Cause is who wants a change, why, and under which key it happens once.
type Cause struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
	Actor  int32  `json:"actor,omitempty"` // number of the API key on whose behalf; 0: the system's operators
}

func (c Cause) header(customer credit.CustomerID, request ...string) balance.Header {
	return balance.Header{Customer: customer, Key: c.Key, Request: balance.RequestDigest(append(request, c.Reason)...), Actor: c.Actor}
}

// Changed is what came of a change.
type Changed struct {
	Grant  GrantFacts       `json:"grant"`
	Refund *credit.RefundID `json:"refund_id,omitempty"`
	Did    string           `json:"did"` // what was done, to be read by people
}

// ExtendInput is a later expiry.
type ExtendInput struct {
	GrantRef
	Cause
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero: never
}

// ExtendGrant moves a grant's expiry.
func (a *Activities) ExtendGrant(ctx context.Context, in ExtendInput) (Changed, error) {
	until := "never"
	if !in.ExpiresAt.IsZero() {
		until = in.ExpiresAt.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	return a.change(ctx, in.GrantRef, "Expiry moved to "+until, &balance.ExtendGrant{
		Header: in.header(in.CustomerID, "extend", in.GrantID.String(), in.ExpiresAt.UTC().Format(time.RFC3339Nano)),
		Grant:  in.GrantID, ExpiresAt: in.ExpiresAt, Reason: in.Reason,
	})
}

// VoidInput asks for a grant to be voided.
type VoidInput struct {
	GrantRef
	Cause
}

// VoidGrant takes away all that is left of a grant.
func (a *Activities) VoidGrant(ctx context.Context, in VoidInput) (Changed, error) {
	return a.change(ctx, in.GrantRef, "Voided", &balance.VoidGrant{
		Header: in.header(in.CustomerID, "void", in.GrantID.String()), Grant: in.GrantID, Reason: in.Reason,
	})
}

// FreezeInput asks for a grant to be frozen, or with Thaw to go on.
type FreezeInput struct {
	GrantRef
	Cause
	Thaw bool `json:"thaw,omitempty"`
}

// FreezeGrant stops a grant from serving and from expiring, or lets it go on.
func (a *Activities) FreezeGrant(ctx context.Context, in FreezeInput) (Changed, error) {
	verb, did := "freeze", "Frozen"
	if in.Thaw {
		verb, did = "unfreeze", "Unfrozen"
	}
	return a.change(ctx, in.GrantRef, did, &balance.FreezeGrant{
		Header: in.header(in.CustomerID, verb, in.GrantID.String()), Grant: in.GrantID, Thaw: in.Thaw, Reason: in.Reason,
	})
}

func (a *Activities) change(ctx context.Context, ref GrantRef, did string, op balance.Operation) (Changed, error) {
	if _, err := a.Service.Do(ctx, op); err != nil {
		return Changed{}, refusal(err)
	}
	f, err := a.ReadGrant(ctx, ref)
	return Changed{Grant: f, Did: did}, err
}

// RefundInput asks for unused credits to be taken back and paid for.
type RefundInput struct {
	GrantRef
	Cause
	Units  string `json:"units,omitempty"`   // credits; empty: all that is left
	FXRate string `json:"fx_rate,omitempty"` // entity currency per one of the price's currency today; empty: the purchase's rate
}

// RefundGrant takes credits back and records what is owed for them; the refund's own workflow pays it.
func (a *Activities) RefundGrant(ctx context.Context, in RefundInput) (Changed, error) {
	found, err := a.Store.Lifecycles(ctx, in.GrantID)
	if err != nil {
		return Changed{}, err
	}
	if len(found) == 0 {
		return Changed{}, refusal(credit.Errorf(credit.GrantNotFound, "There is no grant %s.", in.GrantID))
	}
	refund := credit.DerivedID[credit.RefundID](in.Key)
	op := &balance.RefundGrant{
		Header: in.header(in.CustomerID, "refund", in.GrantID.String(), in.Units, in.FXRate), Refund: refund, Grant: in.GrantID, Reason: in.Reason,
	}
	if in.Units != "" {
		if op.Units, err = credit.ParseAmount(in.Units, found[0].Scale); err != nil {
			return Changed{}, refusal(err)
		}
		if op.Units == 0 {
			return Changed{}, refusal(credit.Errorf(credit.InvalidAmount, "Nothing is asked to be refunded."))
		}
	}
	if in.FXRate != "" {
		if op.FXRate, err = decimal.NewFromString(in.FXRate); err != nil || !op.FXRate.IsPositive() {
			return Changed{}, refusal(credit.Errorf(credit.InvalidRequest, "%.40q is not a rate.", in.FXRate))
		}
	}
	answer, err := a.Service.Do(ctx, op)
	if err != nil {
		return Changed{}, refusal(err)
	}
	var doc balance.RefundDocument
	if err := json.Unmarshal(answer.Body, &doc); err != nil {
		return Changed{}, fmt.Errorf("read the receipt of refund %s: %w", refund, err)
	}
	f, err := a.ReadGrant(ctx, in.GrantRef)
	return Changed{Grant: f, Refund: &refund, Did: fmt.Sprintf("%s credits refunded, %s", doc.Units, owed(doc.Money))}, err
}

func owed(p *balance.PriceDocument) string {
	if p == nil {
		return "nothing to pay back"
	}
	return fmt.Sprintf("%s %s to pay back and %s of tax", p.Amount, p.Currency, p.Tax)
}
