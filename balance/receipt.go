package balance

import (
	"encoding/json"
	"time"

	"github.com/tallystick/tallystick/credit"
)

// The documents below are what operations answer and what is kept as their receipts, so their JSON is part of the ledger: fields are
// added, never renamed or dropped. Credits and money are decimal strings, instants RFC 3339 in UTC with microseconds.

// ConsumeReceipt answers a consumption.
type ConsumeReceipt struct {
	Operation  string            `json:"operation"` // "<customer id>/<ver>"
	CustomerID credit.CustomerID `json:"customer_id"`
	MemberID   *credit.MemberID  `json:"member_id,omitempty"`
	Ver        int64             `json:"ver"`
	Unit       string            `json:"unit"`
	Amount     string            `json:"amount"` // credits taken
	Partial    bool              `json:"partial,omitempty"`
	Shortfall  string            `json:"shortfall,omitempty"` // credits wanting, when partial
	ServiceAt  Instant           `json:"service_at"`
	RecordedAt Instant           `json:"recorded_at"`
	Reason     string            `json:"reason,omitempty"`
	Dimensions credit.Dimensions `json:"dimensions,omitempty"`
	Pricing    []PricingDocument `json:"pricing,omitempty"` // one per rate version used; none for an explicit amount
	Cost       *CostDocument     `json:"cost,omitempty"`    // what the usage cost to serve; none: it is not known
	Draws      []DrawDocument    `json:"draws"`
	GivenBack  string            `json:"given_back,omitempty"` // credits returned, when the usage makes earlier usage of its period cheaper by more than it costs
	Returns    []DrawDocument    `json:"returns,omitempty"`    // the grants that they went to, left being what those have then
	DrawOrder  int               `json:"draw_order"`           // version of the draw-down order
	Available  string            `json:"available"`            // left to this customer in this unit, all wallets
}

// QuoteDocument says what a consumption would do. Its fields are those of a [ConsumeReceipt], of what would be taken.
type QuoteDocument struct {
	CustomerID credit.CustomerID `json:"customer_id"`
	MemberID   *credit.MemberID  `json:"member_id,omitempty"`
	Ver        int64             `json:"ver"` // the customer's version at which it holds
	Unit       string            `json:"unit"`
	ServiceAt  Instant           `json:"service_at"`
	QuotedAt   Instant           `json:"quoted_at"`
	Dimensions credit.Dimensions `json:"dimensions,omitempty"`
	ChargeDocument
	Limits    []LimitUsageDocument `json:"limits,omitempty"` // those that apply, as they stand before
	Cost      *CostDocument        `json:"cost,omitempty"`   // as in a receipt
	DrawOrder int                  `json:"draw_order"`
	Maximum   *ChargeDocument      `json:"maximum,omitempty"` // at the maximum quantities; partial when there is not enough for them
}

// ChargeDocument is what a usage costs and who pays.
type ChargeDocument struct {
	Amount    string              `json:"amount"`
	Partial   bool                `json:"partial,omitempty"`
	Shortfall string              `json:"shortfall,omitempty"` // credits wanting, when partial
	Pricing   []json.RawMessage   `json:"pricing,omitempty"`   // each a [PricingDocument]
	Draws     []DrawDocument      `json:"draws"`
	GivenBack string              `json:"given_back,omitempty"` // what would be returned
	Available string              `json:"available"`            // what would be left to the customer in this unit
	RefusedBy *LimitUsageDocument `json:"refused_by,omitempty"` // the limit that does not admit all of it
}

// AssignmentDocument says that a rate card prices a customer's events of a time.
type AssignmentDocument struct {
	ID         credit.AssignmentID `json:"id"`
	CustomerID credit.CustomerID   `json:"customer_id"`
	RateCardID credit.RateCardID   `json:"rate_card_id"`
	ValidFrom  Instant             `json:"valid_from"`
	ValidTo    *Instant            `json:"valid_to"` // null: until further notice
	Reason     string              `json:"reason"`
	Ver        int64               `json:"ver,omitempty"` // in the answer to an operation
}

// PricingDocument is how a usage was priced under one version of a rate card.
type PricingDocument struct {
	RateCardID credit.RateCardID `json:"rate_card_id"`
	RateCard   string            `json:"rate_card"`
	Version    int               `json:"version"`
	Total      string            `json:"total"` // credits for the whole usage under this version
	Lines      []LineDocument    `json:"lines"`
}

// LineDocument is one priced quantity.
type LineDocument struct {
	RateID     string            `json:"rate_id"`
	Meter      string            `json:"meter"`
	Dimensions credit.Dimensions `json:"dimensions,omitempty"`
	Quantity   string            `json:"quantity"`
	Model      string            `json:"model,omitempty"`     // the rate's; none: per_unit
	Price      string            `json:"price,omitempty"`     // none: the rate has tiers or goes by cost
	Per        string            `json:"per,omitempty"`       // with Price
	Currency   string            `json:"currency,omitempty"`  // of the rate's prices; none: credits
	Cost       string            `json:"cost"`                // exact credits, before the event's total is rounded; below 0 when earlier usage becomes cheaper
	RateCard   string            `json:"rate_card,omitempty"` // the extended card that priced the line; none: the usage's own
	Version    int               `json:"version,omitempty"`   // with RateCard
	Counter    *CounterDocument  `json:"counter,omitempty"`
	FX         []FXDocument      `json:"fx,omitempty"`
}

// CounterDocument is what a rate's counter of a period stood at when a line was priced.
type CounterDocument struct {
	Key    string `json:"key"` // as the rating package writes it
	Before string `json:"before"`
	After  string `json:"after"`
}

// FXDocument is an exchange rate that a line was priced with.
type FXDocument struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Rate   string `json:"rate"` // of to for 1 of from
	Source string `json:"source"`
	On     string `json:"on"` // the day it was published for
}

// DrawDocument is one grant's share.
type DrawDocument struct {
	GrantID  credit.GrantID   `json:"grant_id"`
	WalletID credit.WalletID  `json:"wallet_id"`
	Type     credit.GrantType `json:"type"`
	Amount   string           `json:"amount"`
	Left     string           `json:"left"` // available in the grant afterwards
}

// WalletDocument describes a wallet.
type WalletDocument struct {
	ID         credit.WalletID   `json:"id"`
	CustomerID credit.CustomerID `json:"customer_id"`
	Unit       string            `json:"unit"`
	Name       string            `json:"name"`
	Priority   int               `json:"priority"`
	Scope      credit.Scope      `json:"scope"`
	Cap        string            `json:"cap"` // "hard" or "soft"
	OverageID  *credit.GrantID   `json:"overage_grant_id,omitempty"`
	MemberID   *credit.MemberID  `json:"member_id,omitempty"` // whose alone it is
	Available  string            `json:"available,omitempty"`
}

// GrantDocument describes a grant. State is as of the document's making.
type GrantDocument struct {
	ID          credit.GrantID     `json:"id"`
	CustomerID  credit.CustomerID  `json:"customer_id"`
	WalletID    credit.WalletID    `json:"wallet_id"`
	Unit        string             `json:"unit"`
	Type        credit.GrantType   `json:"type"`
	State       credit.State       `json:"state"`
	Priority    int                `json:"priority"`
	Scope       credit.Scope       `json:"scope"`
	MemberID    *credit.MemberID   `json:"member_id,omitempty"`
	EffectiveAt Instant            `json:"effective_at"`
	ExpiresAt   *Instant           `json:"expires_at"`
	Price       *PriceDocument     `json:"price,omitempty"`
	CostBasis   *MoneyDocument     `json:"cost_basis,omitempty"` // in the entity's currency
	RatePolicy  credit.RatePolicy  `json:"rate_policy"`
	RateCardID  *credit.RateCardID `json:"rate_card_id,omitempty"` // of which rate_version is
	RateVersion int                `json:"rate_version,omitempty"`
	PaymentRef  string             `json:"payment_ref,omitempty"`
	BonusOf     *credit.GrantID    `json:"bonus_of,omitempty"` // the purchase that it came with
	Amount      string             `json:"amount"`
	Balance     GrantBalance       `json:"balance"`
	CreatedAt   Instant            `json:"created_at"`
	IssuedAt    *Instant           `json:"issued_at"`
	Metadata    map[string]string  `json:"metadata,omitempty"`
	FromGrantID *credit.GrantID    `json:"from_grant_id,omitempty"` // whose credits they were before they were transferred
	Units       string             `json:"units,omitempty"`         // taken away, in the answer to a decrement
	Bonus       *GrantDocument     `json:"bonus,omitempty"`         // in the answer to a purchase that one came with
	Reason      string             `json:"reason,omitempty"`        // in the answer to an operation that has one
	Ver         int64              `json:"ver,omitempty"`           // in the answer to an operation
}

// GrantBalance is where the granted credits are.
type GrantBalance struct {
	Granted     string `json:"granted"`
	Available   string `json:"available"`
	Held        string `json:"held"`
	Consumed    string `json:"consumed"`
	Expired     string `json:"expired"`
	Refunded    string `json:"refunded"`
	Voided      string `json:"voided"`
	Transferred string `json:"transferred"`
}

// MoneyDocument is an amount of money in major units.
type MoneyDocument struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}

// PriceDocument is what was paid for a grant.
type PriceDocument struct {
	Amount   string `json:"amount"` // net of tax
	Tax      string `json:"tax"`
	Currency string `json:"currency"`
	FXRate   string `json:"fx_rate,omitempty"`
}

// RefundDocument describes a refund or, with a zero ID, the preview of one.
type RefundDocument struct {
	ID         *credit.RefundID  `json:"id,omitempty"`
	CustomerID credit.CustomerID `json:"customer_id"`
	GrantID    credit.GrantID    `json:"grant_id"`
	Units      string            `json:"units"`      // credits taken back
	Refundable string            `json:"refundable"` // credits that can still be refunded afterwards
	Money      *PriceDocument    `json:"money"`      // to be paid back; null when nothing was paid
	Reason     string            `json:"reason,omitempty"`
	Status     string            `json:"status,omitempty"` // awaiting_settlement, settled, nothing_to_pay
	CreatedAt  *Instant          `json:"created_at,omitempty"`
	SettledAt  *Instant          `json:"settled_at,omitempty"`
	Settlement string            `json:"settlement_ref,omitempty"`
	Bonus      *RefundDocument   `json:"bonus,omitempty"` // what is taken back of the bonus that came with the purchase
	Ver        int64             `json:"ver,omitempty"`
}

// BalanceDocument is what a customer has. An advisory one comes from the cache and says how old it is.
type BalanceDocument struct {
	CustomerID credit.CustomerID `json:"customer_id"`
	Ver        int64             `json:"ver"`
	Consistent bool              `json:"consistent"` // read in order with all operations; otherwise a copy, AgeMS old
	AgeMS      int64             `json:"age_ms"`
	Units      []UnitBalance     `json:"units"`
}

// UnitBalance is a customer's balance in one unit, overage not counted.
type UnitBalance struct {
	Unit      string          `json:"unit"`
	Available string          `json:"available"`
	Wallets   []WalletBalance `json:"wallets"`
}

// WalletBalance is one wallet's share.
type WalletBalance struct {
	WalletID  credit.WalletID `json:"wallet_id"`
	Available string          `json:"available"`
}

// Instant is a time on the wire: RFC 3339, UTC, microseconds.
type Instant time.Time

const instantLayout = "2006-01-02T15:04:05.000000Z"

func (i Instant) String() string { return time.Time(i).UTC().Format(instantLayout) }

// MarshalJSON writes the instant as a JSON string.
func (i Instant) MarshalJSON() ([]byte, error) {
	return time.Time(i).UTC().AppendFormat(make([]byte, 0, 32), `"`+instantLayout+`"`), nil
}

// UnmarshalJSON reads any RFC 3339 instant.
func (i *Instant) UnmarshalJSON(b []byte) error {
	var t time.Time
	if err := json.Unmarshal(b, &t); err != nil {
		return err
	}
	*i = Instant(t.UTC())
	return nil
}

func instantOrNil(t time.Time) *Instant {
	if t.IsZero() {
		return nil
	}
	i := Instant(t)
	return &i
}

// DescribeGrant makes the document of a grant as it stands at t. scale is its unit's, currency its entity's.
func DescribeGrant(g *credit.Grant, scale int, currency string, t time.Time) GrantDocument {
	d := GrantDocument{
		ID: g.ID, CustomerID: g.CustomerID, WalletID: g.Wallet.ID, Unit: g.Wallet.Unit, Type: g.Type, State: g.State(t),
		Priority: g.Priority, Scope: scopeOrEmpty(g.Scope), EffectiveAt: Instant(g.EffectiveAt), ExpiresAt: instantOrNil(g.ExpiresAt),
		RatePolicy: g.RatePolicy, RateVersion: g.RateVersion, PaymentRef: g.PaymentRef, Amount: g.Amount.Format(scale),
		Balance: GrantBalance{
			Granted: g.Granted.Format(scale), Available: g.Available.Format(scale), Held: g.Held.Format(scale),
			Consumed: g.Consumed.Format(scale), Expired: g.Expired.Format(scale), Refunded: g.Refunded.Format(scale),
			Voided: g.Voided.Format(scale), Transferred: g.Transferred.Format(scale),
		},
		CreatedAt: Instant(g.CreatedAt), IssuedAt: instantOrNil(g.IssuedAt),
	}
	if !g.MemberID.IsZero() {
		d.MemberID = &g.MemberID
	}
	if !g.RateCard.IsZero() {
		d.RateCardID = &g.RateCard
	}
	if !g.From.IsZero() {
		d.FromGrantID = &g.From
	}
	if !g.BonusOf.IsZero() {
		d.BonusOf = &g.BonusOf
	}
	if g.Price.Currency != "" {
		d.Price = describePrice(g.Price, g.Tax)
		if !g.FXRate.IsZero() {
			d.Price.FXRate = g.FXRate.String()
		}
		d.CostBasis = &MoneyDocument{Amount: credit.Money{Minor: g.Basis, Currency: currency}.String(), Currency: currency}
	}
	return d
}

func describePrice(net credit.Money, tax int64) *PriceDocument {
	return &PriceDocument{Amount: net.String(), Tax: credit.Money{Minor: tax, Currency: net.Currency}.String(), Currency: net.Currency}
}

func scopeOrEmpty(s credit.Scope) credit.Scope {
	if s == nil {
		return credit.Scope{}
	}
	return s
}
