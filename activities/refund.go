package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// RefundRef names a refund.
type RefundRef struct {
	RefundID   credit.RefundID   `json:"refund_id"`
	CustomerID credit.CustomerID `json:"customer_id"`
}

// RefundFacts is what a refund's workflow shows and goes by.
type RefundFacts struct {
	RefundRef
	GrantID credit.GrantID `json:"grant_id"`
	Credits string         `json:"credits"`         // taken back
	Money   string         `json:"money,omitempty"` // to pay back, tax included: "43.20 EUR"; empty: nothing
	Reason  string         `json:"reason"`
	Status  string         `json:"status"` // AwaitingSettlement, Settled or NothingToPay
}

// RefundFactsOf makes the facts of a refund as it was read.
func RefundFactsOf(r db.RefundView) RefundFacts {
	f := RefundFacts{
		RefundRef: RefundRef{RefundID: r.ID, CustomerID: r.Customer}, GrantID: r.Grant, Credits: r.Units.Format(r.Scale),
		Reason: r.Reason, Status: r.Status,
	}
	if r.Money+r.Tax > 0 {
		f.Money = credit.Money{Minor: r.Money + r.Tax, Currency: r.Currency}.String() + " " + r.Currency
	}
	return f
}

// ReadRefund reads a refund's facts.
func (a *Activities) ReadRefund(ctx context.Context, in RefundRef) (RefundFacts, error) {
	r, err := a.Store.Refund(ctx, in.RefundID)
	if err != nil {
		return RefundFacts{}, refusal(err)
	}
	return RefundFactsOf(r), nil
}

// Settlement is how a refund was paid.
type Settlement struct {
	Method    string    `json:"method"`
	Reference string    `json:"reference"` // by which finance finds the payment
	At        time.Time `json:"at"`
}

// Manual is the method of a settlement that people make: no money was moved by this program.
const Manual = "manual"

// SettleManually is the outside payment step as long as no payment provider is connected. It moves no money. It hands the payment to
// finance, who pay it by their own means under the reference that it returns.
func (a *Activities) SettleManually(_ context.Context, in RefundRef) (Settlement, error) {
	return Settlement{Method: Manual, Reference: fmt.Sprintf("%s/%s", Manual, in.RefundID), At: time.Now().UTC()}, nil
}

// How far a refund is.
const (
	AwaitingSettlement = "awaiting_settlement"
	Settled            = "settled"
	NothingToPay       = "nothing_to_pay"
)

// BookSettlementInput is a payment to be booked.
type BookSettlementInput struct {
	RefundRef
	Settlement
}

// BookSettlement books that a refund was paid. The first settlement stands: a second run finds it.
func (a *Activities) BookSettlement(ctx context.Context, in BookSettlementInput) error {
	_, err := a.Store.SettleRefund(ctx, in.RefundID, db.Settlement{Method: in.Method, Reference: in.Reference, At: in.At})
	return refusal(err)
}
