package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tallystick/tallystick/credit/ledger"
)

func sum(b []byte) Hash { return sha256.Sum256(b) }

func sortedAccounts(t Totals) []ledger.Account { return slices.Sorted(maps.Keys(t)) }

// Seal says what the entries of a period were at an instant. It is signed, and of use only where whoever could change the books cannot change it.
type Seal struct {
	Entity       string        `json:"legal_entity"`
	Period       ledger.Period `json:"period"`
	Version      int           `json:"version"`              // counts the seals of the period, from 1
	Number       int64         `json:"number"`               // counts the seals of the entity, from 1
	Closed       bool          `json:"closed"`               // the period took no more entries; otherwise it is what it had so far
	Size         int64         `json:"size"`                 // how many entries
	Root         Hash          `json:"root"`                 // of the tree over them, in the order of their numbers
	Previous     Hash          `json:"prev_seal_hash"`       // of the entity's seal before, empty for the first one
	TrialBalance Hash          `json:"trial_balance_sha256"` // of the entries' totals by account
	Pack         Hash          `json:"pack_sha256"`          // of the close pack that was approved; empty: there is none
	SealedAt     Instant       `json:"sealed_at"`
	KeyID        string        `json:"key_id"`
	PublicKey    []byte        `json:"public_key"` // Ed25519, 32 bytes, base64 in JSON
	Signature    []byte        `json:"signature"`  // of the canonical text of everything above, 64 bytes
}

// Instant is a time in UTC to the microsecond, in JSON as in canonical texts.
type Instant struct{ time.Time }

// MarshalJSON writes six places whatever they are.
func (t Instant) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"` + instantLayout + `"`)), nil
}

// canonical is what is signed.
func (s *Seal) canonical() []byte {
	w := newWriter("tallystick seal 1")
	w.text(s.Entity)
	w.text(string(s.Period))
	w.number(int64(s.Version))
	w.number(s.Number)
	w.truth(s.Closed)
	w.number(s.Size)
	w.text(s.Root.String())
	w.text(s.Previous.String())
	w.text(s.TrialBalance.String())
	w.text(s.Pack.String())
	w.instant(s.SealedAt.Time)
	w.text(s.KeyID)
	w.text(hex.EncodeToString(s.PublicKey))
	return w.b
}

// Hash identifies the seal: SHA-256 of what is signed. The entity's next seal names it.
func (s *Seal) Hash() Hash { return sum(s.canonical()) }

// Sign completes the seal with a key.
func (s *Seal) Sign(k *Key) {
	s.KeyID, s.PublicKey = k.ID(), k.private.Public().(ed25519.PublicKey)
	s.Signature = ed25519.Sign(k.private, s.canonical())
}

// Check returns an error unless the seal was signed with its key, and that key is one of those trusted; nil trusts any. It says nothing about the
// books.
func (s *Seal) Check(trusted []string) error {
	switch {
	case len(s.PublicKey) != ed25519.PublicKeySize || keyID(s.PublicKey) != s.KeyID:
		return fmt.Errorf("the key of the seal is not the one with the id %.40q", s.KeyID)
	case !ed25519.Verify(s.PublicKey, s.canonical(), s.Signature):
		return errors.New("the signature of the seal is wrong: it was changed after it was signed")
	case trusted != nil && !slices.Contains(trusted, s.KeyID):
		return fmt.Errorf("the seal is signed with the key %s, which is not trusted", s.KeyID)
	}
	return nil
}

// JSON is the seal as a document: the same bytes for the same seal.
func (s *Seal) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write seal: %w", err)
	}
	return append(b, '\n'), nil
}

// Read reads the document of a seal, strictly. It does not check the signature.
func Read(b []byte) (*Seal, error) {
	var s Seal
	if err := strictly(b, &s); err != nil {
		return nil, fmt.Errorf("read seal: %w", err)
	}
	if s.Entity == "" || s.Version < 1 || s.Number < 1 || s.Size < 0 || s.Root.IsZero() {
		return nil, errors.New("read seal: a field is missing or cannot be")
	}
	if _, err := ledger.ParsePeriod(string(s.Period)); err != nil {
		return nil, fmt.Errorf("read seal: %w", err)
	}
	return &s, nil
}

func strictly(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("something follows the document")
	}
	return nil
}

// Key is an Ed25519 key that seals are signed with.
type Key struct{ private ed25519.PrivateKey }

// NewKey makes a key.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return &Key{private}, nil
}

// ID is the beginning of the SHA-256 of the public key, 32 hexadecimal digits: what an auditor notes down.
func (k *Key) ID() string { return keyID(k.private.Public().(ed25519.PublicKey)) }

func keyID(public []byte) string {
	h := sha256.Sum256(public)
	return hex.EncodeToString(h[:16])
}

const pemType = "PRIVATE KEY"

// PEM writes the key in PKCS #8, as openssl genpkey -algorithm ed25519 does.
func (k *Key) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// ReadKey reads an Ed25519 key in PKCS #8 and PEM.
func ReadKey(b []byte) (*Key, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemType {
		return nil, errors.New("read key: it is no private key in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("read key: it is of another kind than Ed25519")
	}
	return &Key{private}, nil
}
