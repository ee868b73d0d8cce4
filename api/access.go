package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// roles is a set of roles.
type roles uint8

const (
	product    roles = 1 << iota // product code: consumes and looks at balances
	support                      // grants, refunds, history
	finance                      // the money book and the rate cards
	ops                          // looks at everything, freezes
	admin                        // everything, but for what takes a controller
	controller                   // decides about what finance has prepared; a person, never a program

	anyRole roles = product | support | finance | ops
	public  roles = 0 // no key at all
)

// RoleNames are the roles that an API key can have.
var RoleNames = []string{"product", "support", "finance", "ops", "admin", "controller"}

func roleOf(name string) roles {
	for i, n := range RoleNames {
		if n == name {
			return 1 << i
		}
	}
	return 0
}

// String lists the roles.
func (r roles) String() string {
	var names []string
	for i, n := range RoleNames {
		if r&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ", ")
}

// caller is who asks: an API key.
type caller struct {
	no   int32
	role roles
	name string
}

// actorText names an actor on the wire.
func actorText(no int32) string {
	if no == 0 {
		return "system"
	}
	return keyPrefix + strconv.Itoa(int(no))
}

const (
	keyPrefix    = "key_" // of an API key's id
	secretPrefix = "tly_" // of the key itself
	secretLetter = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretLen    = 43 // letters: log2(62^43) > 256 bits
	minSecret    = 20 // bytes of a key that an installation brings along
	maxSecret    = 128
)

// newSecret makes an API key.
func newSecret() string {
	b := append(make([]byte, 0, len(secretPrefix)+secretLen), secretPrefix...)
	var random [64]byte
	for {
		if _, err := rand.Read(random[:]); err != nil {
			panic("api: no randomness: " + err.Error()) // never returns an error, by its documentation
		}
		for _, r := range random {
			if r >= 4*byte(len(secretLetter)) {
				continue // every letter is as likely as any other
			}
			if b = append(b, secretLetter[int(r)%len(secretLetter)]); len(b) == cap(b) {
				return string(b)
			}
		}
	}
}

// NewKey makes an API key without an API: for the first key of an installation, and for tools. The key is returned once and kept nowhere.
func NewKey(ctx context.Context, store *db.Store, name, role string) (string, error) {
	if roleOf(role) == 0 {
		return "", credit.Errorf(credit.InvalidRequest, "%q is not a role.", role)
	}
	secret := newSecret()
	_, _, err := store.Change(ctx, db.Audited{RequestID: credit.NewID[credit.RequestID](), Action: "create_api_key"},
		func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
			row, err := c.AddAPIKey(ctx, db.APIKeyRow{Name: name, Role: role, Hint: hint(secret)}, sha256.Sum256([]byte(secret)))
			return db.Outcome{Subject: actorText(row.No), Detail: map[string]string{"name": name, "role": role}}, err
		})
	return secret, err
}

func hint(secret string) string { return secret[len(secret)-4:] }

// keyring knows the API keys that were used lately. A key is read again every few seconds, so a revoked one is refused within
// keyTTL everywhere, and at once where it was revoked.
type keyring struct {
	store *db.Store
	keys  *known[[sha256.Size]byte, *keyEntry]
}

type keyEntry struct {
	caller caller
	until  atomic.Int64 // when it is read again, Unix nanoseconds
}

const (
	keyTTL  = 5 * time.Second
	maxKeys = 10_000
)

func newKeyring(store *db.Store) *keyring {
	return &keyring{store, newKnown[[sha256.Size]byte, *keyEntry](maxKeys)}
}

var errNoKey = credit.Errorf(credit.Unauthenticated, "An API key that is in force is required: Authorization: Bearer tly_…")

// find tells who sent an Authorization header.
func (k *keyring) find(ctx context.Context, header string, now time.Time) (caller, error) {
	secret, ok := strings.CutPrefix(header, "Bearer ")
	if !ok || len(secret) < minSecret || len(secret) > maxSecret {
		return caller{}, errNoKey
	}
	var text [maxSecret]byte
	digest := sha256.Sum256(text[:copy(text[:], secret)])
	if e, ok := k.keys.get(digest); ok {
		until := e.until.Load()
		// The first to find it old reads it again; the others go on with what is known.
		if now.UnixNano() < until || !e.until.CompareAndSwap(until, now.Add(keyTTL).UnixNano()) {
			return e.caller, nil
		}
	}
	return k.read(ctx, digest, now)
}

// read looks the key up. While Postgres is away a key that was good before stays so: nothing can be changed then anyway.
func (k *keyring) read(ctx context.Context, digest [sha256.Size]byte, now time.Time) (caller, error) {
	row, err := k.store.APIKey(ctx, digest)
	if err == nil && !row.RevokedAt.IsZero() {
		err = errNoKey
	}
	if err != nil {
		if e, ok := k.keys.get(digest); ok && db.IsDown(err) {
			return e.caller, nil
		}
		k.keys.drop(digest)
		return caller{}, err
	}
	e := &keyEntry{caller: caller{no: row.No, role: roleOf(row.Role), name: row.Name}}
	e.until.Store(now.Add(keyTTL).UnixNano())
	k.keys.put(digest, e)
	return e.caller, nil
}
