package dbtest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db"
)

// Book writes customers' histories straight into the tables: for tests of what comes after the operations, at any instant of the past.
// It keeps the rules of the tables by itself, and knows none of the engine's. It is not safe for concurrent use on one customer.
type Book struct {
	t     testing.TB
	Store *db.Store
}

// Entity and Unit are what a new Book has: dollars in UTC, and a unit of scale 0.
const (
	Entity = "acme"
	Unit   = "CRD"
)

// NewBook makes a book in a database with nothing in it yet.
func NewBook(t testing.TB, s *db.Store) *Book {
	t.Helper()
	b := &Book{t, s}
	b.Entity(Entity, "USD", "UTC")
	b.Exec("INSERT INTO units (code, scale, name) VALUES ($1, 0, 'Credits')", Unit)
	return b
}

// Exec runs a statement and fails the test when it fails.
func (b *Book) Exec(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.Store.Pool.Exec(context.Background(), sql, args...); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

// Entity adds a legal entity.
func (b *Book) Entity(code, currency, timeZone string) {
	b.t.Helper()
	b.Exec("INSERT INTO legal_entities (code, name, currency, time_zone) VALUES ($1, $1, $2, $3)", code, currency, timeZone)
}

// SetPeriod puts a period of [Entity] into a state without the close that would: the database refuses that to everybody but its owner's replicas.
func (b *Book) SetPeriod(period, status string) {
	b.t.Helper()
	b.Corrupt("INSERT INTO periods (entity, period, status) VALUES ($1, $2, $3) ON CONFLICT (entity, period) DO UPDATE SET status = excluded.status",
		Entity, period, status)
}

// Corrupt runs a statement as the owner of the database with every trigger switched off: for tests of what finds it.
func (b *Book) Corrupt(sql string, args ...any) {
	b.t.Helper()
	owner := Owner(b.t, b.Store)
	if _, err := owner.Exec(context.Background(), "SET session_replication_role = replica"); err != nil {
		b.t.Fatal(err)
	}
	if _, err := owner.Exec(context.Background(), sql, args...); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

// Customer is a customer with one wallet.
type Customer struct {
	b        *Book
	ID       credit.CustomerID
	Wallet   credit.WalletID
	currency string
	Ver      int64
	at       time.Time
	grants   map[credit.GrantID]*credit.Grant
}

// Customer adds a customer of an entity.
func (b *Book) Customer(entity string) *Customer {
	b.t.Helper()
	c := &Customer{b: b, ID: credit.NewID[credit.CustomerID](), Wallet: credit.NewID[credit.WalletID](), grants: map[credit.GrantID]*credit.Grant{}}
	if err := b.Store.Pool.QueryRow(context.Background(), "SELECT currency FROM legal_entities WHERE code = $1", entity).Scan(&c.currency); err != nil {
		b.t.Fatalf("find entity: %v", err)
	}
	b.Exec("INSERT INTO customers (id, entity, name) VALUES ($1, $2, 'Customer')", c.ID[:], entity)
	b.Exec("INSERT INTO customer_heads (customer_id) VALUES ($1)", c.ID[:])
	b.Exec("INSERT INTO wallets (id, customer_id, unit, name) VALUES ($1, $2, $3, 'Main')", c.Wallet[:], c.ID[:], Unit)
	return c
}

// Move is one movement of an operation.
type Move struct {
	Grant         *credit.Grant
	Debit, Credit string
	Amount        credit.Amount
}

// Operation is what Do writes. A zero At is that of the operation before, a zero ServiceAt is At, Receipt "" is {}.
type Operation struct {
	Kind          string
	At, ServiceAt time.Time
	Dims          credit.Dimensions
	Moves         []Move
	Receipt       string // "": {}
	// Then runs in the same transaction, after the rows of the operation; nil: nothing.
	Then func(tx pgx.Tx, ver int64) error
}

// Do writes an operation with its movements, the grants' counters, an idempotency key and the head.
func (c *Customer) Do(o Operation) {
	c.b.t.Helper()
	if o.At.Before(c.at) {
		o.At = c.at
	}
	if o.ServiceAt.IsZero() {
		o.ServiceAt = o.At
	}
	var total credit.Amount
	for _, m := range o.Moves {
		total += m.Amount
	}
	var dims []byte
	if len(o.Dims) > 0 {
		dims, _ = json.Marshal(o.Dims)
	}
	ver, key := c.Ver+1, fmt.Sprintf("%s/%d", c.ID, c.Ver+1)
	digest := sha256.Sum256([]byte(key))
	err := c.b.Store.Tx(context.Background(), func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue("SELECT 1 FROM customer_heads WHERE customer_id = $1 FOR UPDATE", c.ID[:])
		batch.Queue(`INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, key, unit, dims, receipt)
			VALUES ($1, $2, $3, $4, $5, $6, 0, $1, $7, $8, $9, $10)`, c.ID[:], ver, o.Kind, total, o.At, o.ServiceAt, key, Unit, dims, []byte(cmp.Or(o.Receipt, "{}")))
		batch.Queue("INSERT INTO idempotency_keys (digest, request, customer_id, ver, status) VALUES ($1, $1, $2, $3, 200)", digest[:16], c.ID[:], ver)
		for n, m := range o.Moves {
			g := m.Grant
			if m.Debit == "issued" {
				g.Granted += m.Amount
			} else {
				*counter(g, m.Debit) -= m.Amount
			}
			*counter(g, m.Credit) += m.Amount
			batch.Queue("INSERT INTO movements (grant_id, ver, n, debit, credit, amount, after) VALUES ($1, $2, $3, $4, $5, $6, $7)",
				g.ID[:], ver, n, m.Debit, m.Credit, m.Amount, g.Available)
			batch.Queue(`UPDATE grants SET granted = $2, avail = $3, held = $4, consumed = $5, expired = $6, refunded = $7, voided = $8, transferred = $9
				WHERE id = $1`, g.ID[:], g.Granted, g.Available, g.Held, g.Consumed, g.Expired, g.Refunded, g.Voided, g.Transferred)
		}
		batch.Queue("UPDATE customer_heads SET ver = $2, last_at = $3 WHERE customer_id = $1", c.ID[:], ver, o.At)
		if err := tx.SendBatch(context.Background(), batch).Close(); err != nil || o.Then == nil {
			return err
		}
		return o.Then(tx, ver)
	})
	if err != nil {
		c.b.t.Fatalf("write operation: %v", err)
	}
	c.Ver, c.at = ver, o.At
}

func counter(g *credit.Grant, account string) *credit.Amount {
	switch account {
	case "available":
		return &g.Available
	case "held":
		return &g.Held
	case "consumed":
		return &g.Consumed
	case "expired":
		return &g.Expired
	case "refunded":
		return &g.Refunded
	case "voided":
		return &g.Voided
	default:
		return &g.Transferred
	}
}

// Configure writes an operation that moves nothing.
func (c *Customer) Configure(at time.Time) {
	c.b.t.Helper()
	c.Do(Operation{Kind: "configure", At: at})
}

// Grant issues a grant. Type, Amount, price and expiry are taken from g; type "" is purchased, and a price without FXRate is
// in the entity's currency.
func (c *Customer) Grant(at time.Time, g credit.Grant) *credit.Grant {
	c.b.t.Helper()
	out := c.Pending(at, g)
	out.Status = credit.StatusOpen
	c.Do(Operation{Kind: "issue", At: at, Moves: []Move{{out, "issued", "available", out.Amount}}, Then: func(tx pgx.Tx, _ int64) error {
		_, err := tx.Exec(context.Background(), "UPDATE grants SET status = 'open', issued_at = $2 WHERE id = $1", out.ID[:], at)
		return err
	}})
	return out
}

// Pending writes a grant whose payment is awaited: not an operation.
func (c *Customer) Pending(at time.Time, g credit.Grant) *credit.Grant {
	c.b.t.Helper()
	g.ID, g.CustomerID, g.Status, g.EffectiveAt = credit.NewID[credit.GrantID](), c.ID, credit.StatusPending, at
	if g.Type == "" {
		g.Type = credit.Purchased
	}
	var currency, rate, expires any
	if g.Price.Minor+g.Tax > 0 {
		g.Basis, g.TaxBasis = g.Price.Minor, g.Tax
		if g.Price.Currency == "" {
			g.Price.Currency = c.currency
		}
		currency = g.Price.Currency
		if !g.FXRate.IsZero() {
			g.Basis, g.TaxBasis = c.convert(g.Price, g.FXRate), c.convert(credit.Money{Minor: g.Tax, Currency: g.Price.Currency}, g.FXRate)
			rate = g.FXRate
		}
	}
	if !g.ExpiresAt.IsZero() {
		expires = g.ExpiresAt
	}
	c.b.Exec(`INSERT INTO grants (id, customer_id, wallet_id, type, status, effective_at, expires_at, price_minor, tax_minor, price_currency, fx_rate,
		basis_minor, tax_basis_minor, created_at, amount) VALUES ($1, $2, $3, $4, 'pending', $5, $6, $7, $8, $9, $10, $11, $12, $5, $13)`,
		g.ID[:], c.ID[:], c.Wallet[:], string(g.Type), at, expires, g.Price.Minor, g.Tax, currency, rate, g.Basis, g.TaxBasis, g.Amount)
	c.grants[g.ID] = &g
	return &g
}

func (c *Customer) convert(m credit.Money, rate decimal.Decimal) int64 {
	out, err := m.Convert(c.currency, rate)
	if err != nil {
		c.b.t.Fatal(err)
	}
	return out.Minor
}

// Use consumes at an instant from one grant.
func (c *Customer) Use(at time.Time, g *credit.Grant, n credit.Amount, d credit.Dimensions) {
	c.b.t.Helper()
	c.Do(Operation{Kind: "consume", At: at, Dims: d, Moves: []Move{{g, "available", "consumed", n}}})
}

// Correct gives back to a grant what an operation of n credits consumed of it.
func (c *Customer) Correct(at time.Time, ver int64, of credit.Amount, g *credit.Grant, n credit.Amount, serviceAt time.Time, d credit.Dimensions) {
	c.b.t.Helper()
	c.Do(Operation{Kind: "correct", At: at, ServiceAt: serviceAt, Dims: d, Receipt: fmt.Sprintf(`{"corrects":"%s/%d"}`, c.ID, ver),
		Moves: []Move{{g, "consumed", "available", n}}, Then: func(tx pgx.Tx, _ int64) error {
			_, err := tx.Exec(context.Background(), "INSERT INTO corrected_operations (customer_id, ver, amount, corrected, whole) VALUES ($1, $2, $3, $4, false)",
				c.ID[:], ver, of, n)
			return err
		}})
}

// Transfer moves credits of a grant into a new one of the same customer.
func (c *Customer) Transfer(at time.Time, g *credit.Grant, n credit.Amount) *credit.Grant {
	c.b.t.Helper()
	gone := g.Granted - g.Available - g.Held
	part := func(total int64) int64 { return recognition.Slice(total, g.Granted, gone, gone+n) }
	out := c.Pending(at, credit.Grant{Type: g.Type, Amount: n, Price: credit.Money{Minor: part(g.Price.Minor), Currency: g.Price.Currency}, Tax: part(g.Tax), FXRate: g.FXRate})
	out.Status = credit.StatusOpen
	c.Do(Operation{Kind: "transfer", At: at, Moves: []Move{{g, "available", "transferred", n}, {out, "issued", "available", n}}, Then: func(tx pgx.Tx, ver int64) error {
		_, err := tx.Exec(context.Background(), "UPDATE grants SET status = 'open', issued_at = $2, basis_minor = $3, from_grant = $4, from_ver = $5 WHERE id = $1",
			out.ID[:], at, part(g.Basis), g.ID[:], ver)
		return err
	}})
	return out
}

// Dispute opens a dispute of a grant's whole payment.
func (c *Customer) Dispute(at time.Time, g *credit.Grant) credit.DisputeID {
	c.b.t.Helper()
	id := credit.NewID[credit.DisputeID]()
	c.Do(Operation{Kind: "dispute", At: at, Then: func(tx pgx.Tx, ver int64) error {
		_, err := tx.Exec(context.Background(), `INSERT INTO disputes (id, reference, customer_id, grant_id, status, currency, amount_minor, fee_minor, basis_minor,
			tax_basis_minor, fee_basis_minor, was_frozen, reason, opened_ver, opened_at) VALUES ($1, $2, $3, $4, 'open', $5, $6, 0, $7, $8, 0, false, 'fraudulent', $9, $10)`,
			id[:], id.String(), c.ID[:], g.ID[:], g.Price.Currency, g.Price.Minor+g.Tax, g.Basis+g.TaxBasis, g.TaxBasis, ver, at)
		return err
	}})
	return id
}

// Expire expires what a grant has left, at its expiry.
func (c *Customer) Expire(g *credit.Grant) {
	c.b.t.Helper()
	o := Operation{Kind: "expire", At: g.ExpiresAt, ServiceAt: g.ExpiresAt}
	if g.Available > 0 {
		o.Moves = []Move{{g, "available", "expired", g.Available}}
	}
	c.Do(o)
}

// Refund takes credits back and owes what they cost, at an exchange rate of the refund (zero: the purchase's, or none).
func (c *Customer) Refund(at time.Time, g *credit.Grant, n credit.Amount, rate decimal.Decimal) credit.RefundID {
	c.b.t.Helper()
	return c.takeBack("refund", "refunded", at, g, n, rate)
}

// Void takes away all that a grant has left and owes what it cost.
func (c *Customer) Void(at time.Time, g *credit.Grant) credit.RefundID {
	c.b.t.Helper()
	return c.takeBack("void", "voided", at, g, g.Available, decimal.Decimal{})
}

// VoidUnpaid takes away all that a grant has left and owes nothing.
func (c *Customer) VoidUnpaid(at time.Time, g *credit.Grant) {
	c.b.t.Helper()
	c.Do(Operation{Kind: "void", At: at, Moves: []Move{{g, "available", "voided", g.Available}}})
}

func (c *Customer) takeBack(kind, account string, at time.Time, g *credit.Grant, n credit.Amount, rate decimal.Decimal) credit.RefundID {
	c.b.t.Helper()
	gone := g.Granted - g.Available - g.Held
	part := func(total int64) int64 { return recognition.Slice(total, g.Granted, gone, gone+n) }
	id := credit.NewID[credit.RefundID]()
	money, tax, basis, taxBasis := part(g.Price.Minor), part(g.Tax), part(g.Basis), part(g.TaxBasis)
	if !rate.IsZero() {
		basis = c.convert(credit.Money{Minor: money, Currency: g.Price.Currency}, rate)
		taxBasis = c.convert(credit.Money{Minor: tax, Currency: g.Price.Currency}, rate)
	}
	var currency any
	status := "nothing_to_pay"
	if g.Price.Currency != "" {
		currency = g.Price.Currency
	}
	if money+tax > 0 {
		status = "awaiting_settlement"
	}
	c.Do(Operation{Kind: kind, At: at, Moves: []Move{{g, "available", account, n}}, Then: func(tx pgx.Tx, ver int64) error {
		_, err := tx.Exec(context.Background(), `INSERT INTO refunds (id, customer_id, grant_id, ver, units, money_minor, tax_minor, currency, basis_minor,
			tax_basis_minor, reason, status, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'asked', $11, $12)`,
			id[:], c.ID[:], g.ID[:], ver, n, money, tax, currency, basis, taxBasis, status, at)
		return err
	}})
	return id
}

// Grants returns the customer's grants in order of id.
func (c *Customer) Grants() []*credit.Grant {
	var out []*credit.Grant
	for _, g := range c.grants {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *credit.Grant) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return out
}

// Fill makes customers with grants, and uses of one credit each, spread over the grants, 30 days and four models.
func (b *Book) Fill(customers, grants, uses int) []credit.CustomerID {
	b.t.Helper()
	ctx := context.Background()
	ids := make([]credit.CustomerID, customers)
	for i := range ids {
		ids[i] = credit.NewID[credit.CustomerID]()
		wallet := credit.NewID[credit.WalletID]()
		err := b.Store.Tx(ctx, func(tx pgx.Tx) error {
			var q pgx.Batch
			q.Queue("INSERT INTO customers (id, entity, name) VALUES ($1, 'acme', 'Customer')", ids[i][:])
			q.Queue("INSERT INTO wallets (id, customer_id, unit, name) VALUES ($1, $2, 'CRD', 'Main')", wallet[:], ids[i][:])
			q.Queue("INSERT INTO customer_heads (customer_id, ver, last_at) VALUES ($1, $2::bigint + $3::bigint, '2026-03-01Z')", ids[i][:], grants, uses)
			q.Queue(`INSERT INTO grants (id, customer_id, wallet_id, type, status, effective_at, price_minor, price_currency, basis_minor, created_at, issued_at, amount, granted, avail, consumed)
				SELECT md5($1::uuid::text || g)::uuid, $1, $2, 'purchased', 'open', '2026-01-01Z', 9973, 'USD', 9973, '2026-01-01Z', '2026-01-01Z', $4::bigint, $4::bigint, $4::bigint - n, n
				FROM generate_series(1, $3::bigint) AS g CROSS JOIN LATERAL (SELECT $4::bigint / $3::bigint + (g <= $4::bigint % $3::bigint)::int AS n) AS x`, ids[i][:], wallet[:], grants, uses)
			q.Queue(`INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, key, unit, dims, receipt)
				SELECT $1, v, 'issue', $2::bigint, '2026-01-01Z', '2026-01-01Z', 0, $1, 'g' || v, 'CRD', NULL, '{}' FROM generate_series(1, $3::bigint) AS v`, ids[i][:], uses, grants)
			q.Queue(`INSERT INTO movements SELECT md5($1::uuid::text || g)::uuid, g, 0, 'issued', 'available', $2::bigint, $2::bigint FROM generate_series(1, $3::bigint) AS g`, ids[i][:], uses, grants)
			q.Queue(`INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, key, unit, dims, receipt)
				SELECT $1, $3::bigint + u, 'consume', 1, t, t, 0, $1, 'u' || u, 'CRD', jsonb_build_object('product', 'chat', 'model', 'm' || u % 4), '{}'
				FROM (SELECT u, '2026-01-01 01:00Z'::timestamptz + u * 29 / $2::bigint * interval '1 day' AS t FROM generate_series(1, $2::bigint) AS u) AS x`, ids[i][:], uses, grants)
			q.Queue(`INSERT INTO movements SELECT md5($1::uuid::text || 1 + (u - 1) % $3::bigint)::uuid, $3::bigint + u, 0, 'available', 'consumed', 1, $2::bigint - 1 - (u - 1) / $3::bigint
				FROM generate_series(1, $2::bigint) AS u`, ids[i][:], uses, grants)
			return tx.SendBatch(ctx, &q).Close()
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return ids
}
