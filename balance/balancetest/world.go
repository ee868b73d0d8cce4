// Package balancetest gives a test a database of its own with a running balance service, and short ways to fill it.
package balancetest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/devstack/stacktest"
)

// World is a database with one legal entity ("main", USD), one unit ("CRD", scale 6) and a service.
type World struct {
	URL     string
	Store   *db.Store
	Redis   *redis.Client // nil without a cache
	Service *balance.Service

	t    testing.TB
	keys atomic.Int64
}

// Scale is that of the unit CRD.
const Scale = 6

// New makes a world; its service uses Redis unless noCache is set in options.
func New(t testing.TB, options ...func(*Options)) *World {
	t.Helper()
	var o Options
	for _, set := range options {
		set(&o)
	}
	w := &World{URL: dbtest.New(t), t: t}
	var err error
	if w.Store, err = db.Open(context.Background(), w.URL, db.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Store.Close)
	w.setUp(t)
	if !o.NoCache {
		addr := o.RedisAddr
		if addr == "" {
			addr = stacktest.RedisAddr(t)
		}
		w.Redis = redis.NewClient(balance.CacheOptions(addr))
		t.Cleanup(func() { _ = w.Redis.Close() })
	}
	w.Service = w.Start(t, o.Config)
	return w
}

// Options of a world.
type Options struct {
	NoCache   bool
	RedisAddr string // "": the test server's
	Config    balance.Config
}

// Start runs one more service on the same database, as another process would.
func (w *World) Start(t testing.TB, cfg balance.Config) *balance.Service {
	t.Helper()
	arbiter, err := db.NewArbiter(w.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	var cache *balance.Cache
	if w.Redis != nil {
		cache = balance.NewCache(w.Redis)
	}
	s, err := balance.NewService(context.Background(), cfg, arbiter, w.Store, cache, Log())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Log is a logger that says nothing, unless TALLYSTICK_TEST_LOG is set.
func Log() *slog.Logger {
	if os.Getenv("TALLYSTICK_TEST_LOG") != "" {
		return slog.Default()
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

func (w *World) setUp(t testing.TB) {
	t.Helper()
	w.change(t, func(ctx context.Context, c *db.Catalog) error {
		if _, err := c.AddEntity(ctx, db.EntityRow{Code: "main", Name: "Main", Currency: "USD", TimeZone: "UTC"}); err != nil {
			return err
		}
		_, err := c.AddUnit(ctx, credit.Unit{Code: "CRD", Scale: Scale, Name: "Credit"})
		return err
	})
}

func (w *World) change(t testing.TB, do func(context.Context, *db.Catalog) error) {
	t.Helper()
	_, _, err := w.Store.Change(context.Background(), db.Audited{Action: "test", RequestID: credit.NewID[credit.RequestID]()},
		func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
			return db.Outcome{Status: 200, Answer: []byte("{}")}, do(ctx, c)
		})
	if err != nil {
		t.Fatal(err)
	}
}

// Key returns an idempotency key that was not used before.
func (w *World) Key() string { return balance.ClientKey(fmt.Sprintf("key-%d", w.keys.Add(1))) }

// Customer makes a customer with one general wallet in CRD.
func (w *World) Customer(t testing.TB) (credit.CustomerID, credit.WalletID) {
	t.Helper()
	id := credit.NewID[credit.CustomerID]()
	w.change(t, func(ctx context.Context, c *db.Catalog) error {
		_, err := c.AddCustomer(ctx, db.CustomerRow{ID: id, Entity: "main", Name: "Customer"})
		return err
	})
	return id, w.Wallet(t, id, func(*balance.CreateWallet) {})
}

// Member makes a member of a customer.
func (w *World) Member(t testing.TB, customer credit.CustomerID) credit.MemberID {
	t.Helper()
	id := credit.NewID[credit.MemberID]()
	w.change(t, func(ctx context.Context, c *db.Catalog) error {
		_, err := c.AddMember(ctx, db.MemberRow{ID: id, Customer: customer, Name: "Member"})
		return err
	})
	return id
}

// Wallet makes one more wallet; modify changes what is asked for.
func (w *World) Wallet(t testing.TB, customer credit.CustomerID, modify func(*balance.CreateWallet)) credit.WalletID {
	t.Helper()
	id := credit.NewID[credit.WalletID]()
	o := &balance.CreateWallet{
		Header: balance.Header{Customer: customer, Key: w.Key()},
		Wallet: credit.Wallet{ID: id, Unit: "CRD", Name: id.String(), Priority: 100},
	}
	modify(o)
	w.Do(t, o)
	return o.Wallet.ID
}

// Grant gives a customer credits (in steps); modify changes what is asked for.
func (w *World) Grant(t testing.TB, customer credit.CustomerID, wallet credit.WalletID, amount credit.Amount, modify ...func(*balance.CreateGrant)) credit.GrantID {
	t.Helper()
	o := &balance.CreateGrant{
		Header: balance.Header{Customer: customer, Key: w.Key()},
		Grant: credit.Grant{
			ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: wallet}, Type: credit.Granted, Priority: 100, Amount: amount,
			RatePolicy: credit.Floating,
		},
	}
	for _, m := range modify {
		m(o)
	}
	w.Do(t, o)
	return o.Grant.ID
}

// Do carries out an operation that must succeed.
func (w *World) Do(t testing.TB, op balance.Operation) balance.Answer {
	t.Helper()
	a, err := w.Service.Do(context.Background(), op)
	if err != nil {
		t.Fatalf("%T: %v", op, err)
	}
	return a
}

// Consume is a consumption of an explicit amount of CRD under a new key.
func (w *World) Consume(customer credit.CustomerID, amount credit.Amount) *balance.Consume {
	return &balance.Consume{Header: balance.Header{Customer: customer, Key: w.Key()}, Unit: "CRD", Amount: amount}
}

// View reads a grant as committed.
func (w *World) View(t testing.TB, id credit.GrantID) credit.Grant {
	t.Helper()
	v, err := w.Store.Grant(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return v.Grant
}

// MustConserve fails the test unless every grant of the customer has its credits accounted for, its counters are the sums of its
// movements, and the customer's versions have no gaps.
func MustConserve(t testing.TB, w *World, customer credit.CustomerID) {
	t.Helper()
	const differing = `
		SELECT g.id::text FROM grants AS g LEFT JOIN LATERAL (
			SELECT coalesce(sum(amount) FILTER (WHERE debit = 'issued'), 0) AS granted,
				coalesce(sum(amount) FILTER (WHERE credit = 'available'), 0) - coalesce(sum(amount) FILTER (WHERE debit = 'available'), 0) AS avail,
				coalesce(sum(amount) FILTER (WHERE credit = 'consumed'), 0) - coalesce(sum(amount) FILTER (WHERE debit = 'consumed'), 0) AS consumed,
				coalesce(sum(amount) FILTER (WHERE credit = 'expired'), 0) AS expired,
				coalesce(sum(amount) FILTER (WHERE credit = 'refunded'), 0) AS refunded,
				coalesce(sum(amount) FILTER (WHERE credit = 'voided'), 0) AS voided
			FROM movements WHERE grant_id = g.id) AS m ON true
		WHERE g.customer_id = $1 AND (g.granted, g.avail, g.consumed, g.expired, g.refunded, g.voided) IS DISTINCT FROM
			(m.granted, m.avail, m.consumed, m.expired, m.refunded, m.voided)
		UNION ALL
		SELECT 'head ' || h.ver FROM customer_heads AS h WHERE h.customer_id = $1 AND h.ver <> (SELECT count(*) FROM operations WHERE customer_id = $1)`
	rows, err := w.Store.Pool.Query(context.Background(), differing, [16]byte(customer))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var what string
		if err := rows.Scan(&what); err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s of %s does not add up", what, customer)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
}

// Card makes a rate card in CRD on which one of the meter "images" costs price credits from an instant on (zero: at once), and returns it.
func (w *World) Card(t testing.TB, code string, standard bool, price string, from time.Time) credit.RateCardID {
	t.Helper()
	id := w.NewCard(t, code, standard)
	w.Publish(t, id, price, from)
	return id
}

// Publish adds a version to a card of Card and returns it.
func (w *World) Publish(t testing.TB, card credit.RateCardID, price string, from time.Time) db.RateCardVersionRow {
	t.Helper()
	return w.PublishDocument(t, card, `{"meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","price":"`+price+`"}]}`, from)
}

// NewCard makes a rate card in CRD without a version.
func (w *World) NewCard(t testing.TB, code string, standard bool) credit.RateCardID {
	t.Helper()
	id := credit.NewID[credit.RateCardID]()
	w.change(t, func(ctx context.Context, c *db.Catalog) error {
		_, err := c.AddRateCard(ctx, db.RateCardRow{ID: id, Code: code, Unit: "CRD", Default: standard})
		return err
	})
	return id
}

// PublishDocument adds a version to a card, in force from an instant, and returns it.
func (w *World) PublishDocument(t testing.TB, card credit.RateCardID, document string, from time.Time) (v db.RateCardVersionRow) {
	t.Helper()
	w.change(t, func(ctx context.Context, c *db.Catalog) (err error) {
		v, err = c.PublishRateCard(ctx, card, db.RateCardVersionRow{EffectiveAt: from, PublishedBy: "test", Document: []byte(document)})
		return err
	})
	return v
}

// TryPublish is PublishDocument, from now on, for what may be refused.
func (w *World) TryPublish(card credit.RateCardID, document string) error {
	_, _, err := w.Store.Change(context.Background(), db.Audited{Action: "test", RequestID: credit.NewID[credit.RequestID]()},
		func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
			_, err := c.PublishRateCard(ctx, card, db.RateCardVersionRow{PublishedBy: "test", Document: []byte(document)})
			return db.Outcome{Status: 200, Answer: []byte("{}")}, err
		})
	return err
}

// Withdraw takes a version back.
func (w *World) Withdraw(card credit.RateCardID, version int) error {
	_, _, err := w.Store.Change(context.Background(), db.Audited{Action: "test", RequestID: credit.NewID[credit.RequestID]()},
		func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
			_, err := c.WithdrawRateCard(ctx, card, version, balance.MaxAhead, "test", "test")
			return db.Outcome{Status: 200, Answer: []byte("{}")}, err
		})
	return err
}

// AddRates adds exchange rates of a source.
func (w *World) AddRates(t testing.TB, source string, quotes ...fx.Quote) (added int) {
	t.Helper()
	w.change(t, func(ctx context.Context, c *db.Catalog) error {
		nos, err := c.AddFXRates(ctx, source, "test", quotes)
		added = len(nos)
		return err
	})
	return added
}
