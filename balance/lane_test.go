package balance_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/redis/go-redis/v9"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// gate holds a lane at a step until it is opened, so that what is sent meanwhile becomes one batch.
type gate struct {
	reached, open chan struct{}
	once          sync.Once
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) hold() { g.once.Do(func() { close(g.reached); <-g.open }) }

func TestAGrantIssuedAfterItsWalletChangedGoesByTheNewWallet(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	other := w.Wallet(t, c, func(*balance.CreateWallet) {})
	w.Grant(t, c, other, 5*one)
	pending := w.Grant(t, c, wallet, 5*one, func(o *balance.CreateGrant) { o.Pending = true })
	first := 1
	// Both at one service and in one batch: what this service remembers of the customer comes from it.
	for _, r := range w.Service.DoAll(context.Background(), []balance.Operation{
		&balance.UpdateWallet{Header: balance.Header{Customer: c, Key: w.Key()}, Wallet: wallet, Priority: &first},
		&balance.IssueGrant{Header: balance.Header{Customer: c}, Grant: pending},
	}) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	w.Do(t, w.Consume(c, one))
	if v := w.View(t, pending); v.Consumed != one {
		t.Fatalf("the grant in the wallet that goes first was not drawn: %+v", v)
	}
}

func TestARefundIsNeverNegative(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	g := w.Grant(t, c, wallet, 5*one)
	_, err := w.Service.Do(context.Background(), &balance.RefundGrant{
		Header: balance.Header{Customer: c, Key: w.Key()}, Refund: credit.NewID[credit.RefundID](), Grant: g, Units: -one, Reason: "test",
	})
	if credit.CodeOf(err) != credit.InvalidAmount {
		t.Fatal(err)
	}
}

// TestABatchIsDecidedInTheOrderGiven makes the cache believe that there is nothing, so that every request of the batch looks hopeless.
func TestABatchIsDecidedInTheOrderGiven(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 1000*one)
	key := "b:{" + c.String() + "}"
	waitFor(t, func() bool { return w.Redis.HGet(context.Background(), key, "n").Val() == "1" })
	for round := range 20 {
		if err := w.Redis.HSet(context.Background(), key, "a1", strconv.Itoa(int(one/2))).Err(); err != nil {
			t.Fatal(err)
		}
		ops := []balance.Operation{w.Consume(c, one), w.Consume(c, one/4), w.Consume(c, one), w.Consume(c, one/8)}
		last := int64(0)
		for i, r := range w.Service.DoAll(context.Background(), ops) {
			if r.Err != nil || r.Answer.Ver <= last {
				t.Fatalf("round %d, event %d: version %d after %d, %v", round, i, r.Answer.Ver, last, r.Err)
			}
			last = r.Answer.Ver
		}
	}
}

// TestAWrongClockIsNoAnswer breaks the connection while the COMMIT is under way, and then lets the clock go wrong: the request may have
// been carried out, so "nothing was changed because the clock differs" would be a lie.
func TestAWrongClockIsNoAnswer(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 5*one)
	var mu sync.Mutex
	offset := time.Duration(0)
	set := func(d time.Duration) { mu.Lock(); offset = d; mu.Unlock() }
	conn, err := pgx.Connect(context.Background(), w.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	exec := func(sql string) {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			t.Error(err)
		}
	}
	var armed atomic.Bool
	s := w.Start(t, balance.Config{
		Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(offset) },
		Failpoints: map[string]func(){"sent": func() {
			if !armed.CompareAndSwap(true, false) {
				return
			}
			exec(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tallystick lane'`)
			exec("ROLLBACK")
			set(time.Hour)
		}},
	})
	if _, err := s.Do(context.Background(), w.Consume(c, one)); err != nil { // the connection knows its statements now
		t.Fatal(err)
	}
	exec("BEGIN; LOCK operations IN SHARE MODE") // nothing can be written
	armed.Store(true)
	op := w.Consume(c, one)
	if _, err := s.Do(context.Background(), op); credit.CodeOf(err) != credit.OutcomeUnknown {
		t.Fatalf("a request whose commit was sent was answered: %v", err)
	}
	if _, err := s.Do(context.Background(), w.Consume(c, one)); credit.CodeOf(err) != credit.ClockSkew {
		t.Fatalf("with a wrong clock: %v", err)
	}
	set(0)
	mine := *op
	if _, err := s.Do(context.Background(), &mine); err != nil {
		t.Fatal(err)
	}
	doc, err := s.StrongBalance(context.Background(), c)
	if err != nil || doc.Units[0].Available != "3" {
		t.Fatalf("%+v, %v", doc, err)
	}
}

// holdHead locks a customer the way a process does that stopped in the middle of sending a batch: the server waits for the rest.
func holdHead(t *testing.T, url string, c credit.CustomerID) {
	t.Helper()
	ctx := context.Background()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["application_name"] = "tallystick lane"
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "1000"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.PgConn().Conn().Close() })
	f := conn.PgConn().Frontend()
	for _, sql := range []string{"BEGIN", fmt.Sprintf("SELECT FROM customer_heads WHERE customer_id = '%x' FOR UPDATE", c[:])} {
		f.Send(&pgproto3.Parse{Query: sql})
		f.Send(&pgproto3.Bind{})
		f.Send(&pgproto3.Execute{})
	}
	f.Send(&pgproto3.Flush{})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	for done := 0; done < 2; {
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := m.(*pgproto3.CommandComplete); ok {
			done++
		}
	}
}

func TestACustomerThatStaysLockedStopsNobodyElseAndIsFreed(t *testing.T) {
	w := balancetest.New(t)
	stuck, wallet := w.Customer(t)
	w.Grant(t, stuck, wallet, 5*one)
	other, wallet := w.Customer(t)
	w.Grant(t, other, wallet, 5000*one)
	s := w.Start(t, balance.Config{Lanes: 1})
	holdHead(t, w.URL, stuck)
	began := time.Now()
	freed := make(chan error, 1)
	go func() { _, err := s.Do(context.Background(), w.Consume(stuck, one)); freed <- err }()
	slowest := time.Duration(0)
	for {
		began := time.Now()
		w2 := w.Consume(other, one/1000)
		if _, err := s.Do(context.Background(), w2); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(began))
		select {
		case err := <-freed:
			if err != nil {
				t.Fatalf("after %s: %v", time.Since(began), err)
			}
		default:
			continue
		}
		break
	}
	if took := time.Since(began); took > 4*time.Second || slowest > time.Second {
		t.Fatalf("the locked customer waited %s, another %s", took, slowest)
	}
	t.Logf("the locked customer waited %s, another at most %s", time.Since(began), slowest)
}

// TestAnOrdinaryLoginWillDo connects as a role that is nothing but a member of the product's.
func TestAnOrdinaryLoginWillDo(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 5*one)
	u, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	role := "login_" + u.Path[len(u.Path)-8:]
	u.User = url.User(role)
	owner, err := pgx.Connect(context.Background(), w.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	exec := func(sql string) {
		t.Helper()
		if _, err := owner.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE ROLE " + role + " LOGIN IN ROLE " + db.Role)
	defer exec("DROP ROLE " + role)
	store, err := db.Open(context.Background(), u.String(), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	arbiter, err := db.NewArbiter(u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := balance.NewService(context.Background(), balance.Config{}, arbiter, store, nil, balancetest.Log())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Do(context.Background(), w.Consume(c, one)); err != nil {
		t.Fatal(err)
	}
	holdHead(t, u.String(), c)
	if _, err := s.Do(context.Background(), w.Consume(c, one)); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestWhatWaitedIsNotCachedAsNew lets a snapshot wait before it is pushed, as in a process that froze: the wait counts as age.
func TestWhatWaitedIsNotCachedAsNew(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 5*one)
	g := newGate()
	s := w.Start(t, balance.Config{Failpoints: map[string]func(){"pushing": g.hold}})
	if _, err := s.Do(context.Background(), w.Consume(c, one)); err != nil {
		t.Fatal(err)
	}
	<-g.reached
	began := time.Now()
	waitFor(t, func() bool { return time.Since(began) > 1500*time.Millisecond })
	if err := w.Redis.Del(context.Background(), "b:{"+c.String()+"}").Err(); err != nil {
		t.Fatal(err)
	}
	close(g.open)
	waitFor(t, func() bool {
		ttl := w.Redis.PTTL(context.Background(), "b:{"+c.String()+"}").Val()
		if ttl > 29*time.Second {
			t.Fatalf("a snapshot of %s ago may live for %s more", time.Since(began), ttl)
		}
		return ttl > 0
	})
}

// TestTheCacheIsCaughtUpWhenItReturns commits while Redis cannot be reached: what it still has from before is replaced once it is back.
func TestTheCacheIsCaughtUpWhenItReturns(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 5*one)
	key := "b:{" + c.String() + "}"
	var mu sync.Mutex
	away := false
	o := balance.CacheOptions(w.Redis.Options().Addr)
	rdb := redis.NewClient(o)
	rdb.AddHook(hook{func() error {
		mu.Lock()
		defer mu.Unlock()
		if away {
			return context.DeadlineExceeded
		}
		return nil
	}})
	defer rdb.Close()
	arbiter, err := db.NewArbiter(w.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := balance.NewService(context.Background(), balance.Config{}, arbiter, w.Store, balance.NewCache(rdb), balancetest.Log())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	var last balance.Answer
	consume := func(n int) {
		for range n {
			if last, err = s.Do(context.Background(), w.Consume(c, one/100)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cached := func() string { return w.Redis.HGet(context.Background(), key, "v").Val() }
	consume(1)
	waitFor(t, func() bool { return cached() == strconv.FormatInt(last.Ver, 10) })
	mu.Lock()
	away = true
	mu.Unlock()
	consume(20)
	if cached() == strconv.FormatInt(last.Ver, 10) {
		t.Fatal("Redis was reached though it was away")
	}
	mu.Lock()
	away = false
	mu.Unlock()
	waitFor(t, func() bool { return cached() == strconv.FormatInt(last.Ver, 10) })
}

// hook lets a test fail the calls of a Redis client.
type hook struct{ before func() error }

func (h hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := h.before(); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := h.before(); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		return next(ctx, cmds)
	}
}

// A refusal that the state brought about stays what it was under its key, with where it points to, whatever becomes of the state.
func TestARefusalOfTheStateStays(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	g := w.Grant(t, c, wallet, 5*one)
	extend := func() *balance.ExtendGrant {
		return &balance.ExtendGrant{Header: balance.Header{Customer: c, Key: balance.ClientKey("extend")}, Grant: g, ExpiresAt: time.Now().Add(time.Hour).Truncate(time.Hour)}
	}
	_, first := w.Service.Do(context.Background(), extend())
	if credit.CodeOf(first) != credit.InvalidRequest {
		t.Fatal(first)
	}
	w.Do(t, w.Consume(c, 5*one)) // now its state would forbid it
	_, again := w.Service.Do(context.Background(), extend())
	var was, is *credit.Error
	if !errors.As(first, &was) || !errors.As(again, &is) || is.Code != was.Code || is.Detail != was.Detail || !slices.Equal(is.Issues, was.Issues) || len(is.Issues) == 0 {
		t.Errorf("%v, then %v", first, again)
	}
}
