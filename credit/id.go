package credit

import (
	"encoding/base32"
	"strings"

	"github.com/google/uuid"
)

// ID is a typed identifier: 16 bytes inside, and outside a prefix that says what it names and 26 letters and digits that
// sort by time of making, as in "grt_06dzp3k1w8…". The zero ID names nothing.
type ID[K idKind] [16]byte

type idKind interface{ prefix() string }

type (
	customerKind struct{}
	memberKind   struct{}
	walletKind   struct{}
	grantKind    struct{}
	refundKind   struct{}
	cardKind     struct{}
	entryKind    struct{}
	requestKind  struct{}
	draftKind    struct{}
	assignKind   struct{}
	holdKind     struct{}
	eventKind    struct{}
	endpointKind struct{}
	costsKind    struct{}
	keptKind     struct{}
	backtestKind struct{}
	backfillKind struct{}
	alertKind    struct{}
	topUpKind    struct{}
	disputeKind  struct{}
	manualKind   struct{}
	statedKind   struct{}
	limitKind    struct{}
	policyKind   struct{}
	estimateKind struct{}
)

func (customerKind) prefix() string { return "cus" }
func (memberKind) prefix() string   { return "mem" }
func (walletKind) prefix() string   { return "wal" }
func (grantKind) prefix() string    { return "grt" }
func (refundKind) prefix() string   { return "rfd" }
func (cardKind) prefix() string     { return "crd" }
func (entryKind) prefix() string    { return "jrn" }
func (requestKind) prefix() string  { return "req" }
func (draftKind) prefix() string    { return "drf" }
func (assignKind) prefix() string   { return "asg" }
func (holdKind) prefix() string     { return "hld" }
func (eventKind) prefix() string    { return "evt" }
func (endpointKind) prefix() string { return "whk" }
func (costsKind) prefix() string    { return "cdr" }
func (keptKind) prefix() string     { return "qtn" }
func (backtestKind) prefix() string { return "bkt" }
func (backfillKind) prefix() string { return "bfl" }
func (alertKind) prefix() string    { return "alr" }
func (topUpKind) prefix() string    { return "tup" }
func (disputeKind) prefix() string  { return "dsp" }
func (manualKind) prefix() string   { return "mjn" }
func (statedKind) prefix() string   { return "stm" }
func (limitKind) prefix() string    { return "lmt" }
func (policyKind) prefix() string   { return "pol" }
func (estimateKind) prefix() string { return "est" }

// The identifiers of the product, each with its own prefix.
type (
	CustomerID   = ID[customerKind]
	MemberID     = ID[memberKind]
	WalletID     = ID[walletKind]
	GrantID      = ID[grantKind]
	RefundID     = ID[refundKind]
	RateCardID   = ID[cardKind]
	EntryID      = ID[entryKind]
	RequestID    = ID[requestKind]
	DraftID      = ID[draftKind]
	AssignmentID = ID[assignKind]
	HoldID       = ID[holdKind]
	EventID      = ID[eventKind]
	EndpointID   = ID[endpointKind] // of a webhook
	CostDraftID  = ID[costsKind]    // of a draft of a cost catalogue
	QuarantineID = ID[keptKind]     // of usage that could not be priced
	BacktestID   = ID[backtestKind]
	BackfillID   = ID[backfillKind]
	AlertRuleID  = ID[alertKind]
	TopUpID      = ID[topUpKind]
	DisputeID    = ID[disputeKind]
	JournalID    = ID[manualKind] // of a manual journal
	StatementID  = ID[statedKind] // of a figure from outside
	LimitID      = ID[limitKind]
	PolicyID     = ID[policyKind]   // of an accounting policy
	EstimateID   = ID[estimateKind] // of breakage
)

var idText = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

const idTextLen = 26

// anyID is one of the identifiers above.
type anyID interface {
	~[16]byte
	prefix() string
	String() string
}

// NewID makes an identifier that sorts after those made earlier (UUID version 7): NewID[GrantID]().
func NewID[I anyID]() I { return I(uuid.Must(uuid.NewV7())) }

// DerivedID makes the identifier of something caused by something else: the same cause always gives the same one (UUID version 5).
func DerivedID[I anyID](cause string) I {
	var id I
	return I(uuid.NewSHA1(uuid.NameSpaceURL, []byte("tallystick:"+id.prefix()+":"+cause)))
}

// ParseID reads what String wrote: ParseID[GrantID](s). Any other text, and that of the zero identifier, is an [Error] coded invalid_id.
func ParseID[I anyID](s string) (I, error) {
	var id, zero I
	text, ok := strings.CutPrefix(s, id.prefix()+"_")
	if ok && len(text) == idTextLen {
		if n, err := idText.Decode(id[:], []byte(text)); err == nil && n == len(id) && id.String() == s && id != zero {
			return id, nil
		}
	}
	return zero, Errorf(InvalidID, "%.60q is not an id of the form %s_ and 26 letters and digits.", s, id.prefix())
}

func (ID[K]) prefix() string {
	var k K
	return k.prefix()
}

// IsZero tells whether the identifier names nothing.
func (id ID[K]) IsZero() bool { return id == ID[K]{} }

func (id ID[K]) String() string { return string(id.Append(make([]byte, 0, 4+idTextLen))) }

// Append adds the text of the identifier to b.
func (id ID[K]) Append(b []byte) []byte {
	b = append(b, id.prefix()...)
	b = append(b, '_')
	return idText.AppendEncode(b, id[:])
}

// MarshalText and UnmarshalText make the identifier travel as its text; the zero ID is the empty text.
func (id ID[K]) MarshalText() ([]byte, error) {
	if id.IsZero() {
		return nil, nil
	}
	return []byte(id.String()), nil
}

func (id *ID[K]) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*id = ID[K]{}
		return nil
	}
	parsed, err := ParseID[ID[K]](string(b))
	if err == nil {
		*id = parsed
	}
	return err
}
