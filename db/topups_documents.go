package db

import (
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/topup"
)

// TopUpDocument is a top-up as the API answers it and events tell it.
type TopUpDocument struct {
	ID             credit.TopUpID    `json:"id"`
	CustomerID     credit.CustomerID `json:"customer_id"`
	WalletID       credit.WalletID   `json:"wallet_id"`
	GrantID        credit.GrantID    `json:"grant_id"`
	Status         string            `json:"status"`
	Unit           string            `json:"unit"`
	Amount         string            `json:"amount"`
	Price          TopUpPrice        `json:"price"`
	GrantExpiresAt *string           `json:"grant_expires_at"` // null: never
	Threshold      string            `json:"threshold"`
	Available      string            `json:"available"` // when it was begun
	Attempt        int               `json:"attempt"`
	RequestedAt    string            `json:"requested_at"`
	TimesOutAt     *string           `json:"times_out_at"` // null: the payment was not asked for yet
	PaymentRef     *string           `json:"payment_ref"`
	Reason         *string           `json:"reason"` // why it failed
	Retry          *bool             `json:"retry"`
	DecidedAt      *string           `json:"decided_at"`
	EndedAt        *string           `json:"ended_at"`
}

// TopUpPrice is what a pack costs.
type TopUpPrice struct {
	Amount   string `json:"amount"`
	Tax      string `json:"tax"`
	Currency string `json:"currency"`
}

// TopUpRuleDocument is a rule as the API answers it and events tell it.
type TopUpRuleDocument struct {
	WalletID            credit.WalletID   `json:"wallet_id"`
	CustomerID          credit.CustomerID `json:"customer_id"`
	Unit                string            `json:"unit"`
	Threshold           string            `json:"threshold"`
	Amount              string            `json:"amount"`
	Price               TopUpPrice        `json:"price"`
	ExpiresAfterSeconds *int64            `json:"expires_after_seconds"` // null: the credits never expire
	CooldownSeconds     int64             `json:"cooldown_seconds"`
	TimeoutSeconds      int64             `json:"timeout_seconds"`
	MonthlyCount        int               `json:"monthly_count"`
	MonthlyMoney        *string           `json:"monthly_money"` // tax included; null: without bound
	State               string            `json:"state"`
	Until               *string           `json:"until"` // of the state; null: nothing but what it says ends it
	Failures            int               `json:"failures"`
	CreatedAt           string            `json:"created_at"`
	UpdatedAt           string            `json:"updated_at"`
}

func instantOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return new(t.Format(instantLayout))
}

func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func topUpPrice(m credit.Money, tax int64) TopUpPrice {
	return TopUpPrice{Amount: m.String(), Tax: credit.Money{Minor: tax, Currency: m.Currency}.String(), Currency: m.Currency}
}

// Document describes the top-up.
func (t TopUpRow) Document() *TopUpDocument {
	d := &TopUpDocument{ID: t.ID, CustomerID: t.Customer, WalletID: t.Wallet, GrantID: t.Grant, Status: t.Status, Unit: t.Unit, Amount: t.Amount.Format(t.Scale),
		Price: topUpPrice(t.Price, t.Tax), GrantExpiresAt: instantOrNull(t.GrantExpiresAt), Threshold: t.Threshold.Format(t.Scale), Available: t.Available.Format(t.Scale),
		Attempt: t.Attempt, RequestedAt: t.RequestedAt.Format(instantLayout), TimesOutAt: instantOrNull(t.TimesOutAt), PaymentRef: textOrNull(t.PaymentRef),
		Reason: textOrNull(t.Reason), DecidedAt: instantOrNull(t.DecidedAt), EndedAt: instantOrNull(t.EndedAt)}
	if t.Status == TopUpFailed {
		d.Retry = &t.Retry
	}
	return d
}

// State is how a rule stands: in_flight, one of the waits that lasts, paused until it is resumed, or ready.
func (r TopUpRuleRow) State() string {
	switch {
	case r.InFlight:
		return "in_flight"
	case r.Wait == topup.Resume:
		return "paused"
	case r.Wait != topup.NoWait && r.ReadAt.Before(r.Until):
		return string(r.Wait)
	}
	return "ready"
}

// Document describes the rule.
func (r TopUpRuleRow) Document() *TopUpRuleDocument {
	d := &TopUpRuleDocument{WalletID: r.Wallet, CustomerID: r.Customer, Unit: r.Unit, Threshold: r.Threshold.Format(r.Scale), Amount: r.Amount.Format(r.Scale),
		Price: topUpPrice(r.Price, r.Tax), CooldownSeconds: int64(r.Cooldown / time.Second), TimeoutSeconds: int64(r.Timeout / time.Second), MonthlyCount: r.MonthlyCount,
		State: r.State(), Failures: r.Failures, CreatedAt: r.CreatedAt.Format(instantLayout), UpdatedAt: r.UpdatedAt.Format(instantLayout)}
	if r.ExpiresAfter > 0 {
		d.ExpiresAfterSeconds = new(int64(r.ExpiresAfter / time.Second))
	}
	if r.MonthlyMoney > 0 {
		d.MonthlyMoney = new(credit.Money{Minor: r.MonthlyMoney, Currency: r.Price.Currency}.String())
	}
	if s := r.State(); s != "ready" && s != "in_flight" && s != "paused" {
		d.Until = instantOrNull(r.Until)
	}
	return d
}
