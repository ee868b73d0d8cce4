// Package balance is the synchronous path: every change of a customer's credits is decided here, under the customer's row lock in
// Postgres, for a whole batch of requests at once, and answered once it is durable. Redis holds a disposable copy that proposes
// and serves advisory reads. README.md in this folder has the protocol in its short form.
package balance

import (
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/provider"
	"github.com/tallystick/tallystick/credit/rating"
)

// Operation is one request to change a customer's credits. The types below are all there are.
type Operation interface {
	header() *Header
	// decide judges the operation against the locked state, records its effects in d, and returns the receipt.
	decide(d *decision) (receipt, error)
	// others names customers besides its own that it changes.
	others() []credit.CustomerID
	// grants names grants that must be loaded although they are not open.
	grants() []credit.GrantID
	// holds names holds that must be loaded.
	holds() []credit.HoldID
}

// Header is what every operation carries.
type Header struct {
	Customer credit.CustomerID
	// Key makes the operation happen at most once: the same key and the same Request give the first answer again, the same key and
	// another Request an Error coded request_mismatch. Callers' keys are passed through [ClientKey]; operations that have a
	// business cause fill in their own when it is empty.
	Key string
	// Request is [RequestDigest] of what was asked.
	Request [16]byte
	// Actor is the API key that asks, 0 for the system itself.
	Actor int32
	// RequestID names this attempt in logs, traces and the operation's row. Zero: one is made.
	RequestID credit.RequestID
}

func (h *Header) header() *Header           { return h }
func (*Header) others() []credit.CustomerID { return nil }
func (*Header) grants() []credit.GrantID    { return nil }
func (*Header) holds() []credit.HoldID      { return nil }

// Consume takes credits for a usage: an explicit Amount of a Unit, or what the customer's rate card says for Usage. It is refused with
// insufficient_credits, not_entitled (there are credits, none of them for this), no_rate, too_old, in_future, customer_not_found or
// unit_not_found; then nothing changed. The receipt is the JSON of a [ConsumeReceipt].
type Consume struct {
	Header
	Member  credit.MemberID // zero: none named
	At      time.Time       // when the service was given; zero: now
	Unit    string          // for an explicit amount
	Amount  credit.Amount   // explicit, > 0; 0: rated from Usage or Response
	Usage   []rating.Line   // the costs of its lines are in one currency
	Dims    credit.Dimensions
	Partial bool   // take what there is when it is not enough, unless there is nothing
	Reason  string // free text for the history; empty: none

	// Response is what a model provider answered, instead of Usage: lines, their compute cost and more dimensions are read from it by the catalogue
	// in force at At. The refusals are then also those of [provider.Catalogue.Extract] and Lines, and dimension_conflict.
	Response *provider.Response
	// Keep writes the request as it is to be kept when it cannot be priced because the model is not known; with KeepAll also when the provider
	// is not, or when there is no rate or no exchange rate. The answer is then the JSON of a [QuarantineDocument]. Nil: it is refused.
	Keep    func() string
	KeepAll bool

	// Backfilled says that the usage was staged and looked at as a whole before: it may be as old as MaxBackfillAge. What was consumed so long ago that its key
	// is forgotten is the caller's to leave out.
	Backfilled bool

	computed *compute // what was read from Response; nil: nothing yet
}

// ChargeQuarantined charges a consumption that was kept because it could not be priced: at its own time, which At says, and under its own key.
// Request is not looked at, Keep is nil. Once it is charged the answer is that receipt. It is refused as the consumption would be, and then waits on; with
// quarantine_state when it was discarded, too_old when its key is no longer known, and quarantine_not_found.
type ChargeQuarantined struct {
	Consume
	Quarantined credit.QuarantineID
}

// Usage older than MaxAge is refused as too_old: it is younger than the oldest idempotency key kept, so that a replay is always
// recognised. Usage further than MaxAhead in the future is refused as in_future.
const (
	MaxAge   = 34 * 24 * time.Hour
	MaxAhead = 5 * time.Minute
	// MaxBackfillAge is how old usage of a backfill may be. A service that is to decide it reaches back as far: see [Config].
	MaxBackfillAge = 400 * 24 * time.Hour
)

// Quote asks what a consumption would cost and which grants would pay, and changes nothing; it needs no key. It is refused as the consumption
// would be at this moment. The receipt is the JSON of a [QuoteDocument].
type Quote struct {
	Consume
	// Maximum has the usage's lines with the quantities that they come to at most. Nil: they are what they are. That there is not enough for
	// them is no refusal.
	Maximum []rating.Line
}

// CreateWallet opens a wallet. A soft-capped one gets an overage grant of OverageLimit credits at OveragePrice for all of them
// (minor units of the entity's currency). The receipt is the JSON of a [WalletDocument].
type CreateWallet struct {
	Header
	Wallet       credit.Wallet
	OverageLimit credit.Amount // when Wallet.SoftCap
	OveragePrice int64
}

// UpdateWallet changes a wallet's priority and scope; nil leaves them. The receipt is the JSON of a [WalletDocument].
type UpdateWallet struct {
	Header
	Wallet   credit.WalletID
	Priority *int
	Scope    *credit.Scope
}

// UpdateCustomer changes which rate card prices the customer's usage; zero is the default card. The receipt is {"rate_card_id":…}.
type UpdateCustomer struct {
	Header
	RateCard credit.RateCardID
}

// AssignCard has a rate card price the customer's events of [From, To), before any other: zero From is now, zero To until further notice. Times
// in the past are allowed: they count for what is decided from now on. It is refused with assignment_overlaps and rate_card_not_found. The
// receipt is the JSON of an [AssignmentDocument].
type AssignCard struct {
	Header
	Assignment credit.AssignmentID
	Card       credit.RateCardID
	From, To   time.Time
	Reason     string
}

// EndAssignment moves the end of an assignment, to now when To is zero: not into the past, nor of one that is over. One that has not begun by its
// new end never does. It is refused with assignment_not_found and assignment_overlaps. The receipt is the JSON of an [AssignmentDocument].
type EndAssignment struct {
	Header
	Assignment credit.AssignmentID
	To         time.Time
	Reason     string
}

// CreateGrant makes a grant: issued at once, or pending until IssueGrant when its payment is awaited. Basis and TaxBasis are computed
// here from Price, Tax and FXRate. Grant.Wallet needs only its ID. A locked rate policy takes the card and version in force. The receipt is
// the JSON of a [GrantDocument]. Key: "grant/<id>/create" when empty.
type CreateGrant struct {
	Header
	Grant    credit.Grant
	Pending  bool
	Metadata map[string]string
	Bonus    *Bonus // nil: none
}

// Bonus is credits under terms of their own that come with a purchase. They are a grant of their own, linked to it, with a part of its price and
// tax; they are issued, refunded and voided with the purchase, and not by themselves.
type Bonus struct {
	Amount    credit.Amount
	Scope     credit.Scope
	Priority  int
	ExpiresAt time.Time // zero: never
	// Value is the standalone selling price of the bonus, times the likelihood of its use, and PurchaseValue that of the purchase, both in minor
	// units of the price's currency: the price is allocated in their proportion. PurchaseValue 0: the price.
	Value, PurchaseValue int64
}

// IssueGrant issues a pending grant because its payment has come. Another state is refused with grant_state.
// Key: "grant/<id>/issue" when empty.
type IssueGrant struct {
	Header
	Grant      credit.GrantID
	PaymentRef string // empty: unchanged
}

// Expire books what is left of a grant past its expiry. Before the expiry it is refused with grant_not_expired. A frozen grant is
// refused with grant_state, as is one that has expired already: a frozen grant expires when it is unfrozen. It needs no key, for the
// state lets it happen once.
type Expire struct {
	Header
	Grant credit.GrantID
}

// RefundGrant takes unused credits back and records what is to be paid for them: Units at the grant's own cost basis, tax pro rata.
// Units 0 is all that is left. More than is left is refused with not_refundable. The bonus that came with the purchase goes in proportion, as far
// as it is left. The receipt is the JSON of a [RefundDocument].
type RefundGrant struct {
	Header
	Refund credit.RefundID
	Grant  credit.GrantID
	Units  credit.Amount
	FXRate decimal.Decimal // entity currency per one of the price's currency today; zero: the purchase's rate
	Reason string
}

// VoidGrant takes away all that is left of a grant that was never paid or was a mistake. No revenue comes of it. What was paid for
// the part taken away is owed back, as after a refund. The receipt is the JSON of a [GrantDocument], as for the three below.
type VoidGrant struct {
	Header
	Grant       credit.GrantID
	Reason      string
	OnlyPending bool // one that was issued is refused with grant_state
}

// DecrementGrant takes available credits away for good, as if they had been used: what they cost is earned. Units 0 is all that is available. The receipt
// is the JSON of a [GrantDocument].
type DecrementGrant struct {
	Header
	Grant  credit.GrantID
	Units  credit.Amount
	Reason string
}

// ExtendGrant moves the expiry to a later instant, before the old one has come. Zero: never expires.
type ExtendGrant struct {
	Header
	Grant     credit.GrantID
	ExpiresAt time.Time
	Reason    string
}

// FreezeGrant stops a grant from serving and from expiring, or with Thaw lets it go on; one whose expiry has passed meanwhile
// expires then.
type FreezeGrant struct {
	Header
	Grant  credit.GrantID
	Thaw   bool
	Reason string
}

// ReadBalance changes nothing and answers with the committed balances, in order with all other operations: the strong read. It needs
// no key. The receipt is the JSON of a [BalanceDocument].
type ReadBalance struct{ Header }

func (o *IssueGrant) grants() []credit.GrantID     { return withBonus(o.Grant) }
func (o *Expire) grants() []credit.GrantID         { return []credit.GrantID{o.Grant} }
func (o *RefundGrant) grants() []credit.GrantID    { return withBonus(o.Grant) }
func (o *VoidGrant) grants() []credit.GrantID      { return withBonus(o.Grant) }
func (o *Dispute) grants() []credit.GrantID        { return []credit.GrantID{o.Grant} }
func (o *DecrementGrant) grants() []credit.GrantID { return []credit.GrantID{o.Grant} }
func (o *ExtendGrant) grants() []credit.GrantID    { return []credit.GrantID{o.Grant} }
func (o *FreezeGrant) grants() []credit.GrantID    { return []credit.GrantID{o.Grant} }

// Answer is what an operation came to, durable when it is returned.
type Answer struct {
	Body     []byte // the receipt, the same bytes for the same key; must not be changed
	Replayed bool   // it was answered before
	Ver      int64  // the customer's version after it
	// Quarantined says that nothing was charged yet: Body is a [QuarantineDocument].
	Quarantined bool
}
