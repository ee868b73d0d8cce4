package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/worker"
)

// grantsRun holds many open grants of which some expire within the same minute, while their customers go on consuming.
type grantsRun struct {
	b       *bench
	open    int // grants in all
	expire  int // of them expire within one minute
	starts  time.Duration
	service *balance.Service
	store   *db.Store
	conn    *pgx.Conn
}

const perCustomer = 10 // grants

func (b *bench) grants(ctx context.Context, open, expire int, starts time.Duration) error {
	temporal, namespace := os.Getenv("TALLYSTICK_TEST_TEMPORAL_ADDRESS"), os.Getenv("TALLYSTICK_TEST_TEMPORAL_NAMESPACE")
	if temporal == "" {
		return errors.New(`no Temporal server; run "make bench"`)
	}
	g := &grantsRun{b: b, open: open, expire: expire, starts: starts}
	var err error
	if g.conn, err = pgx.Connect(ctx, b.url); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer g.conn.Close(ctx)
	if g.store, err = db.Open(ctx, b.url, db.Options{}); err != nil {
		return err
	}
	defer g.store.Close()
	arbiter, err := db.NewArbiter(b.url, nil)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	if g.service, err = balance.NewService(ctx, balance.Config{}, arbiter, g.store, nil, log); err != nil {
		return err
	}
	defer func() { _ = g.service.Stop(context.WithoutCancel(ctx)) }()

	// The grants that expire get their workflows first, and the minute begins once those are started or the time for it is up.
	due := time.Now().Add(starts + 90*time.Second).Truncate(time.Second)
	customers, err := g.make(ctx, due)
	if err != nil {
		return err
	}
	workCtx, stop := context.WithCancel(ctx)
	defer stop()
	worked := make(chan error, 1)
	go func() {
		worked <- worker.Run(workCtx, worker.Config{
			Service: g.service, Store: g.store, Log: log, StartsPerSecond: 400, RecogniseEvery: time.Hour, Prefix: "bench-" + b.run + "-",
			Temporal: client.Options{HostPort: temporal, Namespace: namespace},
		})
	}()
	if err := g.watchStarts(ctx, due); err != nil {
		return err
	}
	if err := g.watchExpiries(ctx, customers, due); err != nil {
		return err
	}
	stop()
	return <-worked
}

// make creates the customers and their grants through the service.
func (g *grantsRun) make(ctx context.Context, due time.Time) ([]credit.CustomerID, error) {
	began := time.Now()
	customers := make([]credit.CustomerID, g.open/perCustomer)
	var wg sync.WaitGroup
	var next atomic.Int64
	var failed atomic.Pointer[error]
	wallets := make([]credit.WalletID, len(customers))
	for range 16 {
		wg.Go(func() {
			for failed.Load() == nil {
				n := int(next.Add(1)) - 1
				if n >= len(customers) {
					return
				}
				if err := g.customer(ctx, &customers[n], &wallets[n]); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	made := time.Now()
	// Those that expire come first, spread over the minute.
	for from := 0; from < g.open; from += 1000 {
		ops := make([]balance.Operation, 0, 1000)
		for n := from; n < min(from+1000, g.open); n++ {
			c := n % len(customers)
			grant := credit.Grant{
				ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: wallets[c]}, Type: credit.Purchased, Amount: 1_000_000_000,
				Price: credit.Money{Minor: 1000, Currency: "USD"}, RatePolicy: credit.Floating, ExpiresAt: due.Add(365 * 24 * time.Hour),
			}
			if n < g.expire {
				grant.ExpiresAt = due.Add(time.Duration(n) * time.Minute / time.Duration(g.expire))
			}
			ops = append(ops, &balance.CreateGrant{Header: balance.Header{Customer: customers[c]}, Grant: grant})
		}
		for _, r := range g.service.DoAll(ctx, ops) {
			if r.Err != nil {
				return nil, fmt.Errorf("make grants: %w", r.Err)
			}
		}
	}
	took := time.Since(made)
	fmt.Printf("  %d customers made in %.1f s, %d grants issued in %.1f s: %.0f grants/s\n", len(customers), made.Sub(began).Seconds(), g.open,
		took.Seconds(), float64(g.open)/took.Seconds())
	return customers, nil
}

func (g *grantsRun) customer(ctx context.Context, id *credit.CustomerID, wallet *credit.WalletID) error {
	*id, *wallet = credit.NewID[credit.CustomerID](), credit.NewID[credit.WalletID]()
	_, _, err := g.store.Change(ctx, db.Audited{Action: "bench", RequestID: credit.NewID[credit.RequestID]()}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		_, err := c.AddCustomer(ctx, db.CustomerRow{ID: *id, Entity: "main", Name: "Customer"})
		return db.Outcome{Status: 201, Answer: []byte("{}")}, err
	})
	if err != nil {
		return err
	}
	_, err = g.service.Do(ctx, &balance.CreateWallet{
		Header: balance.Header{Customer: *id, Key: "bench/" + wallet.String()}, Wallet: credit.Wallet{ID: *wallet, Unit: "CREDIT", Name: "main", Priority: 100},
	})
	return err
}

// watchStarts measures how fast workflows are started from the outbox, until those of the expiring grants are or the time is up.
func (g *grantsRun) watchStarts(ctx context.Context, due time.Time) error {
	began := time.Now()
	waiting := func() (n int, err error) {
		err = g.conn.QueryRow(ctx, "SELECT count(*) FROM outbox WHERE topic = 'grant.start'").Scan(&n)
		return n, err
	}
	first, err := waiting()
	if err != nil {
		return fmt.Errorf("count waiting starts: %w", err)
	}
	left := first
	for time.Until(due) > 2*time.Second && left > g.open-g.expire {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		if left, err = waiting(); err != nil {
			return fmt.Errorf("count waiting starts: %w", err)
		}
	}
	took := time.Since(began).Seconds()
	rate := float64(first-left) / took
	fmt.Printf("  %d workflows started in %.0f s: %.0f/s; at this pace all %d take %.0f min; the rest wait in the outbox\n", first-left, took, rate, g.open, float64(g.open)/rate/60)
	g.memory()
	return nil
}

// memory prints what the processes hold.
func (g *grantsRun) memory() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Printf("  memory: this worker %d MB", m.Sys>>20)
	if rss, ok := residentOf("temporal"); ok {
		fmt.Printf(", Temporal %d MB", rss>>20)
	}
	fmt.Println()
}

// residentOf sums the resident memory of the processes of a name, where /proc tells.
func residentOf(name string) (bytes int64, ok bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, false
	}
	for _, e := range entries {
		comm, err := os.ReadFile("/proc/" + e.Name() + "/comm")
		if err != nil || strings.TrimSpace(string(comm)) != name {
			continue
		}
		f, err := os.Open("/proc/" + e.Name() + "/statm")
		if err != nil {
			continue
		}
		statm, err := io.ReadAll(f)
		f.Close()
		if fields := strings.Fields(string(statm)); err == nil && len(fields) > 1 {
			if pages, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				bytes, ok = bytes+pages*int64(os.Getpagesize()), true
			}
		}
	}
	return bytes, ok
}

// watchExpiries consumes all the while, and measures how late expiries and their breakage are booked.
func (g *grantsRun) watchExpiries(ctx context.Context, customers []credit.CustomerID, due time.Time) error {
	var consumed atomic.Int64
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for n := k; load.Err() == nil; n += 8 {
				_, err := g.service.Do(ctx, &balance.Consume{
					Header: balance.Header{Customer: customers[n%len(customers)], Key: balance.ClientKey(fmt.Sprint("bench-", g.b.run, "-", n))}, Unit: "CREDIT", Amount: 1000,
				})
				if err == nil {
					consumed.Add(1)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	end := due.Add(time.Minute)
	var booked int
	for booked < g.expire && time.Now().Before(end.Add(3*time.Minute)) {
		time.Sleep(time.Second)
		if err := g.conn.QueryRow(ctx, `SELECT count(DISTINCT grant_id) FROM journal_entries WHERE kind = 'expiry'`).Scan(&booked); err != nil {
			stop()
			return fmt.Errorf("count expiries: %w", err)
		}
	}
	stop()
	wg.Wait()
	var late [6]float64
	if err := g.conn.QueryRow(ctx, `
		WITH lag AS (SELECT extract(epoch FROM o.at - o.service_at) AS swept FROM operations AS o WHERE o.kind = 'expire'),
			posted AS (SELECT extract(epoch FROM e.posted_at - g.expires_at) AS lag FROM journal_entries AS e JOIN grants AS g ON g.id = e.grant_id WHERE e.kind = 'expiry')
		SELECT (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY swept) FROM lag), (SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY swept) FROM lag), (SELECT max(swept) FROM lag),
			(SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY lag) FROM posted), (SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY lag) FROM posted), (SELECT max(lag) FROM posted)`).
		Scan(&late[0], &late[1], &late[2], &late[3], &late[4], &late[5]); err != nil {
		return fmt.Errorf("read the lags: %w", err)
	}
	var twice, past int
	if err := g.conn.QueryRow(ctx, `SELECT
		(SELECT count(*) FROM (SELECT grant_id FROM journal_entries WHERE kind = 'expiry' GROUP BY grant_id HAVING count(*) > 1) AS t),
		(SELECT count(*) FROM movements AS m JOIN grants AS g ON g.id = m.grant_id JOIN operations AS o ON o.customer_id = g.customer_id AND o.ver = m.ver
			WHERE m.credit = 'consumed' AND o.at >= g.expires_at)`).Scan(&twice, &past); err != nil {
		return fmt.Errorf("look for mistakes: %w", err)
	}
	fmt.Printf("  %d of %d grants expired within one minute while %d consumptions went on\n", booked, g.expire, consumed.Load())
	fmt.Printf("  swept after the instant: p50 %.2f s, p99 %.2f s, max %.2f s; breakage booked: p50 %.2f s, p99 %.2f s, max %.2f s (aim: 60 s)\n", late[0], late[1], late[2], late[3], late[4], late[5])
	fmt.Printf("  booked twice: %d; credits served past their instant: %d\n", twice, past)
	g.memory()
	if booked != g.expire || twice != 0 || past != 0 {
		return errors.New("expiry is not what it should be")
	}
	return g.watchEnds(ctx)
}

// watchEnds measures how fast the workflows of expired grants complete.
func (g *grantsRun) watchEnds(ctx context.Context) error {
	signals := func() (n int, err error) {
		err = g.conn.QueryRow(ctx, "SELECT count(*) FROM outbox WHERE topic = 'grant.signal'").Scan(&n)
		return n, err
	}
	began := time.Now()
	first, err := signals()
	if err != nil {
		return fmt.Errorf("count signals: %w", err)
	}
	left := first
	for left > 0 && time.Since(began) < time.Minute {
		time.Sleep(time.Second)
		if left, err = signals(); err != nil {
			return fmt.Errorf("count signals: %w", err)
		}
	}
	took := time.Since(began).Seconds()
	fmt.Printf("  workflows told of an expiry: %d in %.0f s after the last was booked, %d left\n", first-left, took, left)
	return nil
}
