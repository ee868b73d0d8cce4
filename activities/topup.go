package activities

import (
	"context"
	"errors"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// How a top-up stands while its workflow has something to decide.
const (
	TopUpRequested = db.TopUpRequested
	TopUpPaid      = db.TopUpPaid
	TopUpSucceeded = db.TopUpSucceeded
)

// TopUpRef names an automatic top-up.
type TopUpRef struct {
	TopUpID    credit.TopUpID    `json:"topup_id"`
	CustomerID credit.CustomerID `json:"customer_id"`
}

// TopUpFacts is what a top-up's workflow shows and goes by.
type TopUpFacts struct {
	TopUpRef
	WalletID   credit.WalletID `json:"wallet_id"`
	GrantID    credit.GrantID  `json:"grant_id"`
	Credits    string          `json:"credits"` // "1000 CREDIT"
	Money      string          `json:"money"`   // to be paid, tax included: "10.80 EUR"
	Status     string          `json:"status"`  // requested, paid, succeeded, failed or expired
	Left       time.Duration   `json:"left"`    // until it times out; 0 or less: it does, or its payment was not asked for yet
	TimesOutAt time.Time       `json:"times_out_at"`
	PaymentRef string          `json:"payment_ref,omitempty"`
	Reason     string          `json:"reason,omitempty"` // why it failed
}

// TopUpFactsOf makes the facts of a top-up as it was read.
func TopUpFactsOf(t db.TopUpRow) TopUpFacts {
	f := TopUpFacts{TopUpRef: TopUpRef{t.ID, t.Customer}, WalletID: t.Wallet, GrantID: t.Grant, Credits: t.Amount.Format(t.Scale) + " " + t.Unit,
		Money:  credit.Money{Minor: t.Price.Minor + t.Tax, Currency: t.Price.Currency}.String() + " " + t.Price.Currency,
		Status: t.Status, TimesOutAt: t.TimesOutAt, PaymentRef: t.PaymentRef, Reason: t.Reason}
	if !t.TimesOutAt.IsZero() {
		f.Left = t.TimesOutAt.Sub(t.ReadAt)
	}
	return f
}

func topUpFacts(t db.TopUpRow, err error) (TopUpFacts, error) {
	if err != nil {
		return TopUpFacts{}, refusal(err)
	}
	return TopUpFactsOf(t), nil
}

// ReadTopUp reads how a top-up stands.
func (a *Activities) ReadTopUp(ctx context.Context, in TopUpRef) (TopUpFacts, error) {
	return topUpFacts(a.Store.TopUp(ctx, in.TopUpID))
}

// PrepareTopUpGrant makes the purchase, which waits for its payment. Its id comes from the top-up's, so a second run finds it. A purchase that is
// refused is the end of the top-up.
func (a *Activities) PrepareTopUpGrant(ctx context.Context, in TopUpRef) (TopUpFacts, error) {
	t, err := a.Store.TopUp(ctx, in.TopUpID)
	if err != nil || t.Status != TopUpRequested && t.Status != TopUpPaid {
		return topUpFacts(t, err)
	}
	_, err = a.Service.Do(ctx, &balance.CreateGrant{
		Header: balance.Header{Customer: t.Customer, Request: balance.RequestDigest("topup", t.ID.String())},
		Grant: credit.Grant{ID: t.Grant, Wallet: &credit.Wallet{ID: t.Wallet}, Type: credit.Purchased, Amount: t.Amount, Price: t.Price, Tax: t.Tax, Priority: 100,
			RatePolicy: credit.Floating, EffectiveAt: t.RequestedAt, ExpiresAt: t.GrantExpiresAt},
		Pending: true, Metadata: map[string]string{"topup": t.ID.String()},
	})
	if e := final(err); e != nil {
		return topUpFacts(a.Store.AbandonTopUp(ctx, in.TopUpID, "The purchase could not be made: "+e.Detail))
	}
	return topUpFacts(t, err)
}

// final returns a refusal that trying again does not overturn; nil for everything else.
func final(err error) *credit.Error {
	var e *credit.Error
	if !errors.As(err, &e) {
		return nil
	}
	switch e.Code {
	case credit.Overloaded, credit.NotExecuted, credit.OutcomeUnknown, credit.ClockSkew, credit.Internal, credit.CustomerFrozen:
		return nil
	}
	return e
}

// AskBusinessToCharge is the outside payment step as long as no payment provider is connected. It charges nothing. It tells the business, by the event
// topup.requested, that a payment is to be made by its own means; the business tells the outcome through the API.
func (a *Activities) AskBusinessToCharge(ctx context.Context, in TopUpRef) (TopUpFacts, error) {
	return topUpFacts(a.Store.AskForTopUp(ctx, in.TopUpID))
}

// ExpireTopUp ends a top-up whose time for an outcome is over, and leaves every other as it is.
func (a *Activities) ExpireTopUp(ctx context.Context, in TopUpRef) (TopUpFacts, error) {
	return topUpFacts(a.Store.ExpireTopUp(ctx, in.TopUpID))
}

// IssueTopUpGrant issues what was paid for, once. A grant that somebody has issued by hand is issued; one that cannot be any more ends the top-up.
func (a *Activities) IssueTopUpGrant(ctx context.Context, in TopUpRef) (TopUpFacts, error) {
	t, err := a.Store.TopUp(ctx, in.TopUpID)
	if err != nil {
		return TopUpFacts{}, refusal(err)
	}
	_, err = a.Service.Do(ctx, &balance.IssueGrant{Header: balance.Header{Customer: t.Customer, Request: balance.RequestDigest("topup", t.ID.String(), "issue")},
		Grant: t.Grant, PaymentRef: t.PaymentRef})
	e := final(err)
	if e == nil {
		return topUpFacts(t, err)
	}
	g, err := a.Store.Grant(ctx, t.Grant)
	if err != nil && credit.CodeOf(err) != credit.GrantNotFound {
		return TopUpFacts{}, err
	}
	if err == nil && !g.IssuedAt.IsZero() {
		return topUpFacts(t, nil)
	}
	return topUpFacts(a.Store.AbandonTopUp(ctx, in.TopUpID, "The credits could not be issued, the payment is to be given back: "+e.Detail))
}

// FinishTopUp writes down that a top-up has succeeded, and tells it.
func (a *Activities) FinishTopUp(ctx context.Context, in TopUpRef) (TopUpFacts, error) {
	return topUpFacts(a.Store.FinishTopUp(ctx, in.TopUpID))
}

// VoidTopUpGrant takes the purchase back that nobody paid for. One that was never made, or that somebody issued or voided by hand, stays as it is.
func (a *Activities) VoidTopUpGrant(ctx context.Context, in TopUpRef) error {
	t, err := a.Store.TopUp(ctx, in.TopUpID)
	if err != nil {
		return refusal(err)
	}
	reason := t.Reason
	if t.Status == db.TopUpExpired {
		reason = "The outcome of the payment was not told in time."
	}
	_, err = a.Service.Do(ctx, &balance.VoidGrant{Header: balance.Header{Customer: t.Customer, Key: "topup/" + t.ID.String() + "/void", Request: balance.RequestDigest("topup", "void")},
		Grant: t.Grant, Reason: reason, OnlyPending: true})
	if err != nil && final(err) == nil {
		return err
	}
	return refusal(a.Store.EndTopUp(ctx, in.TopUpID))
}
