package credit

import (
	"cmp"
	"math"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// GrantType says where a grant came from, and so what its money means.
type GrantType string

const (
	Purchased   GrantType = "purchased"   // paid for: deferred revenue until used
	Granted     GrantType = "granted"     // given without consideration
	Promotional GrantType = "promotional" // given without consideration, to win a customer
	Concession  GrantType = "concession"  // given to a paying customer for something that went wrong: contra revenue now, revenue when used
	Overage     GrantType = "overage"     // what a soft-capped wallet may use beyond its credits: a receivable, drawn last
)

// Status is what has been done with a grant. How it stands at an instant is its [State].
type Status string

const (
	StatusPending  Status = "pending"  // payment is awaited, nothing is issued
	StatusOpen     Status = "open"     // issued, something is left
	StatusDepleted Status = "depleted" // issued, nothing is left
	StatusExpired  Status = "expired"  // what was left at the expiry has been booked
	StatusRefunded Status = "refunded" // the last of it was refunded
	StatusVoided   Status = "voided"
)

// State is how a grant stands at an instant, in the words that ops and support read.
type State string

const (
	StatePending   State = "pending_payment"
	StateAllocated State = "allocated" // issued, not yet effective
	StateActive    State = "active"
	StateFrozen    State = "frozen"
	StateDepleted  State = "depleted"
	StateExpired   State = "expired"
	StateRefunded  State = "refunded"
	StateVoided    State = "voided"
)

// RatePolicy says which version of the rate card prices what a grant pays for.
type RatePolicy string

const (
	Floating RatePolicy = "floating" // the version in force at the time of the usage
	Locked   RatePolicy = "locked"   // the version in force when the grant was issued
)

// Wallet is one customer's grants in one unit.
type Wallet struct {
	ID       WalletID
	Unit     string
	Name     string
	Priority int // lower is drawn first
	Scope    Scope
	SoftCap  bool     // an overage grant backs it
	Member   MemberID // whose alone it is; zero: everybody's
}

// Grant is credits given at once, with price, terms and expiry.
type Grant struct {
	ID         GrantID
	CustomerID CustomerID
	Wallet     *Wallet
	Type       GrantType
	Status     Status
	Frozen     bool
	Priority   int // lower is drawn first
	Scope      Scope
	MemberID   MemberID // zero: every member of the customer
	EffectiveAt,
	ExpiresAt time.Time // [EffectiveAt, ExpiresAt); zero ExpiresAt: never expires
	Price       Money // paid, net of tax; zero Currency: no price
	Tax         int64 // minor units of Price.Currency
	FXRate      decimal.Decimal
	Basis       int64 // Price in the entity's currency, minor units: P of the cumulative rule
	TaxBasis    int64 // Tax in the entity's currency, minor units
	PaymentRef  string
	RatePolicy  RatePolicy
	RateVersion int        // when Locked
	RateCard    RateCardID // of which RateVersion is, when Locked; zero: the customer's card
	BonusOf     GrantID    // the purchase that it came with, under terms of its own; zero: it is no bonus
	CreatedAt   time.Time
	IssuedAt    time.Time // zero while pending
	Amount      Amount    // N
	From        GrantID   // whose credits they were, before they were transferred; zero: nobody's
	FromVer     int64     // the operation of From's customer that moved them; 0 without From

	// Granted = Available + Held + Consumed + Expired + Refunded + Voided + Transferred, each of them >= 0.
	Granted, Available, Held, Consumed, Expired, Refunded, Voided, Transferred Amount
}

// RateLock is a version of a rate card to which a price is tied. Zero: none, the card and version in force at the time of the usage. Card
// alone zero: the customer's card.
type RateLock struct {
	Card    RateCardID
	Version int
}

// Lock returns what the grant's price is tied to.
func (g *Grant) Lock() RateLock { return RateLock{g.RateCard, g.RateVersion} }

// Serves tells whether the grant may pay, at t, for a member's usage with these dimensions. Available is not looked at.
// The member is zero when none is named; a grant bound to a member then does not serve.
func (g *Grant) Serves(t time.Time, member MemberID, d Dimensions) bool {
	return g.Status == StatusOpen && !g.Frozen && !t.Before(g.EffectiveAt) && !g.PastExpiry(t) &&
		(g.MemberID.IsZero() || g.MemberID == member) && (g.Wallet.Member.IsZero() || g.Wallet.Member == member) && g.Scope.Matches(d) && g.Wallet.Scope.Matches(d)
}

// PastExpiry tells whether the grant's life is over at t.
func (g *Grant) PastExpiry(t time.Time) bool { return !g.ExpiresAt.IsZero() && !t.Before(g.ExpiresAt) }

// State tells how the grant stands at t.
func (g *Grant) State(t time.Time) State {
	switch g.Status {
	case StatusPending:
		return StatePending
	case StatusDepleted:
		return StateDepleted
	case StatusExpired:
		return StateExpired
	case StatusRefunded:
		return StateRefunded
	case StatusVoided:
		return StateVoided
	}
	switch {
	case g.Frozen:
		return StateFrozen
	case g.PastExpiry(t):
		return StateExpired
	case t.Before(g.EffectiveAt):
		return StateAllocated
	}
	return StateActive
}

// Conserves tells whether every credit that was granted is accounted for.
func (g *Grant) Conserves() bool {
	return g.Available >= 0 && g.Held >= 0 && g.Consumed >= 0 && g.Expired >= 0 && g.Refunded >= 0 && g.Voided >= 0 && g.Transferred >= 0 &&
		g.Granted == g.Available+g.Held+g.Consumed+g.Expired+g.Refunded+g.Voided+g.Transferred
}

// DrawOrderVersion names the order below. The order decides when revenue is earned and so is an accounting policy: a change of it
// takes a new number, and every consumption records the number it was drawn under.
const DrawOrderVersion = 1

// CompareDrawOrder says which of two grants is drawn first (negative: a). It is a total order over different grants: overage last;
// then restricted scope before general, wallet priority, grant priority, the earlier expiry, the lower cost basis per credit, the
// earlier effective instant, the id.
func CompareDrawOrder(a, b *Grant) int {
	return cmp.Or(
		compareBool(a.Type == Overage, b.Type == Overage),
		compareBool(a.general(), b.general()),
		cmp.Compare(a.Wallet.Priority, b.Wallet.Priority),
		cmp.Compare(a.Priority, b.Priority),
		cmp.Compare(expiryRank(a), expiryRank(b)),
		cmpRatio(a.Basis, int64(a.Amount), b.Basis, int64(b.Amount)),
		a.EffectiveAt.Compare(b.EffectiveAt),
		strings.Compare(string(a.ID[:]), string(b.ID[:])),
	)
}

func (g *Grant) general() bool { return g.Scope.General() && g.Wallet.Scope.General() }

func expiryRank(g *Grant) int64 {
	if g.ExpiresAt.IsZero() {
		return math.MaxInt64
	}
	return g.ExpiresAt.UnixMicro()
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
