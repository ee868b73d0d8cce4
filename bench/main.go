// Command bench measures the consume endpoint over HTTP beside two baselines on the same Postgres in the same run, and prints
// the ratios. "make bench" gives it servers of its own.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"

	"github.com/tallystick/tallystick/db"
)

type bench struct {
	Clients         int
	Customers       int
	WarmUp, Measure time.Duration
	Program         string // the tallystick binary

	url, redis string
	api        string // host:port
	apiPid     int
	customers  []string
	run        string
	keys       atomic.Int64
	only       string
}

const apiKey = "tly_bench_0123456789abcdefghijklmnopqrstuv"

func main() {
	if len(os.Args) == 3 && os.Args[1] == "noop" {
		serveNothing(os.Args[2])
		return
	}
	b := &bench{run: strconv.FormatInt(time.Now().UnixNano(), 36)}
	flag.IntVar(&b.Clients, "clients", 64, "keep-alive clients")
	flag.IntVar(&b.Customers, "customers", 10_000, "customers of the spread run, one wallet each")
	flag.DurationVar(&b.WarmUp, "warm-up", 3*time.Second, "time before measuring")
	flag.DurationVar(&b.Measure, "measure", 10*time.Second, "time measured, for each figure")
	flag.StringVar(&b.Program, "program", ".tallystick/bin/tallystick", "tallystick binary")
	grants := flag.Int("grants", 0, "instead of the endpoint, measure so many open grants")
	expire := flag.Int("expire", 10_000, "grants of -grants that expire within the same minute")
	starts := flag.Duration("starts", 4*time.Minute, "time for starting workflows before the expiries, with -grants")
	only := flag.String("only", "", "measure only the lines that contain this")
	flag.Parse()
	b.only = *only
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := b.all(ctx, func() error {
		if *grants > 0 {
			return b.grants(ctx, *grants, *expire, *starts)
		}
		fmt.Printf("%d keep-alive clients, %s measured for each figure after %s of warm-up, everything on this machine\n\n", b.Clients, b.Measure, b.WarmUp)
		if err := b.seedCustomers(); err != nil {
			return err
		}
		return b.measure(ctx)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// all makes a database, serves the API on it, and runs what is to be measured.
func (b *bench) all(ctx context.Context, do func() error) error {
	server, redis := os.Getenv("TALLYSTICK_TEST_DATABASE_URL"), os.Getenv("TALLYSTICK_TEST_REDIS_ADDR")
	if server == "" || redis == "" {
		return errors.New(`no servers to measure on; run "make bench"`)
	}
	b.redis = redis
	if err := b.makeDatabase(ctx, server); err != nil {
		return err
	}
	stop, err := b.startAPI(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := b.seed(); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return do()
}

func (b *bench) measure(ctx context.Context) error {
	results := make(map[string]figures)
	var failed error
	step := func(name string, measure func() (figures, error)) {
		if failed != nil || !strings.Contains(name, b.only) {
			return
		}
		f, err := measure()
		if err != nil {
			failed = fmt.Errorf("%s: %w", name, err)
			return
		}
		results[name] = f
		fmt.Printf("  %-58s %s\n", name, f)
	}
	const (
		consumeHot, consumeSpread, consumeRated = "POST /v1/consume, one hot wallet", "POST /v1/consume, spread", "POST /v1/consume, spread, priced by a rate card"
		columnHot, columnSpread                 = "balance column, hot", "balance column, spread"
		statementHot, statementSpread           = "balance column in one statement, hot", "balance column in one statement, spread"
		insertCeiling                           = "inserting the same rows, 500 at a time, nothing else"
		readBalance, doNothing                  = "GET /v1/customers/{id}/balances", "Echo handler that does nothing"
	)
	step(columnHot, func() (figures, error) { return b.baseline(ctx, balanceColumn, 1) })
	step(statementHot, func() (figures, error) { return b.baseline(ctx, balanceStatement, 1) })
	step(consumeHot, func() (figures, error) {
		return b.footprint(ctx, func() (figures, error) { return b.consume(1, false) })
	})
	step(columnSpread, func() (figures, error) { return b.baseline(ctx, balanceColumn, int64(b.Customers)) })
	step(statementSpread, func() (figures, error) { return b.baseline(ctx, balanceStatement, int64(b.Customers)) })
	step(consumeSpread, func() (figures, error) {
		return b.footprint(ctx, func() (figures, error) { return b.consume(b.Customers, false) })
	})
	step(consumeRated, func() (figures, error) {
		return b.footprint(ctx, func() (figures, error) { return b.consume(b.Customers, true) })
	})
	step(insertCeiling, func() (figures, error) { return b.ceiling(ctx) })
	step(readBalance, b.balances)
	step(doNothing, b.nothing)
	if failed != nil || b.only != "" {
		return failed
	}
	ratio := func(what, over string) float64 { return results[what].rate() / results[over].rate() }
	fmt.Printf("\nratios\n")
	for _, line := range []struct {
		name  string
		value float64
		aim   string
	}{
		{"hot wallet / balance column", ratio(consumeHot, columnHot), "at least 8"},
		{"hot wallet / balance column in one statement", ratio(consumeHot, statementHot), ""},
		{"spread / balance column", ratio(consumeSpread, columnSpread), "at least 1"},
		{"spread / balance column in one statement", ratio(consumeSpread, statementSpread), ""},
		{"hot wallet / spread", ratio(consumeHot, consumeSpread), "0.75 to 1.33"},
		{"hot wallet / batched inserts", ratio(consumeHot, insertCeiling), ""},
		{"spread / batched inserts", ratio(consumeSpread, insertCeiling), ""},
		{"balance read / nothing", ratio(readBalance, doNothing), "at least 0.6"},
	} {
		aim := ""
		if line.aim != "" {
			aim = "   (aim: " + line.aim + ")"
		}
		fmt.Printf("  %-46s %6.2f%s\n", line.name, line.value, aim)
	}
	return nil
}

// footprint runs a measurement and prints what it wrote.
func (b *bench) footprint(ctx context.Context, measure func() (figures, error)) (figures, error) {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return figures{}, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	type counts struct{ wal, events, rows, updates, hot, size int64 }
	read := func() (c counts, err error) {
		if _, err = conn.Exec(ctx, "SELECT pg_stat_clear_snapshot()"); err != nil {
			return c, err
		}
		err = conn.QueryRow(ctx, `SELECT (pg_current_wal_lsn() - '0/0')::bigint, (SELECT count(*) FROM operations), sum(n_tup_ins)::bigint, sum(n_tup_upd)::bigint,
			sum(n_tup_hot_upd)::bigint, sum(pg_total_relation_size(relid))::bigint FROM pg_stat_user_tables WHERE relname NOT LIKE 'baseline%'`).
			Scan(&c.wal, &c.events, &c.rows, &c.updates, &c.hot, &c.size)
		return c, err
	}
	before, err := read()
	if err != nil {
		return figures{}, fmt.Errorf("read the statistics: %w", err)
	}
	cpuBefore, _ := b.cpu(ctx, conn)
	f, err := measure()
	if err != nil {
		return f, err
	}
	cpuAfter, haveCPU := b.cpu(ctx, conn)
	time.Sleep(1500 * time.Millisecond) // the server reports its statistics once a second
	after, err := read()
	if err != nil {
		return f, fmt.Errorf("read the statistics: %w", err)
	}
	n := float64(max(1, after.events-before.events))
	fmt.Printf("  %58s %.0f bytes of WAL, %.2f rows inserted (%.0f bytes with indexes), %.2f updated (%.0f %% in place) per event\n", "",
		float64(after.wal-before.wal)/n, float64(after.rows-before.rows)/n, float64(after.size-before.size)/n, float64(after.updates-before.updates)/n,
		100*float64(after.hot-before.hot)/float64(max(1, after.updates-before.updates)))
	if haveCPU {
		used := cpuAfter.sub(cpuBefore)
		fmt.Printf("  %58s CPU per event: API %.0f µs, Postgres %.0f µs, Redis %.0f µs, load generator %.0f µs\n", "",
			used.api*1e6/n, used.postgres*1e6/n, used.redis*1e6/n, used.clients*1e6/n)
	}
	return f, nil
}

func (b *bench) pool(ctx context.Context, n int32) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(b.url)
	if err != nil {
		return nil, fmt.Errorf("read database url: %w", err)
	}
	cfg.MaxConns, cfg.MinConns = n, n
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return pool, nil
}

func (b *bench) makeDatabase(ctx context.Context, server string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	name := "bench_" + b.run
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return fmt.Errorf("make a database: %w", err)
	}
	cfg := conn.Config()
	b.url = fmt.Sprintf("postgres://%s@%s/%s", cfg.User, net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))), name)
	if _, err := db.Migrate(ctx, b.url, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		return err
	}
	return nil
}

// startAPI runs the program that is shipped.
func (b *bench) startAPI(ctx context.Context) (stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a port: %w", err)
	}
	b.api = l.Addr().String()
	l.Close()
	cmd := exec.CommandContext(ctx, b.Program, "api", "--log-level=warn")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+b.url, "REDIS_ADDR="+b.redis, "TALLYSTICK_LISTEN="+b.api, "TALLYSTICK_API_KEY="+apiKey)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the API: %w", err)
	}
	b.apiPid = cmd.Process.Pid
	stop = func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() }
	if err := waitUntilUp("http://" + b.api + "/readyz"); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

func waitUntilUp(url string) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get(url); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	return fmt.Errorf("%s does not answer", url)
}

// post calls the API as an application would.
func (b *bench) post(path string, body any) (map[string]any, error) {
	doc, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+b.api+path, bytes.NewReader(doc))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", fmt.Sprintf("seed-%s-%d", b.run, b.keys.Add(1)))
	res, err := httpClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		return nil, fmt.Errorf("POST %s: %v", path, out)
	}
	return out, nil
}

// seed makes what customers need.
func (b *bench) seed() error {
	for _, step := range []struct {
		path string
		body map[string]any
	}{
		{"/v1/legal_entities", map[string]any{"code": "main", "name": "Main", "currency": "USD"}},
		{"/v1/units", map[string]any{"code": "CREDIT", "scale": 6, "name": "Credit"}},
		{"/v1/rate_cards", map[string]any{"code": "standard", "unit": "CREDIT", "default": true}},
		{"/v1/rate_cards/standard/versions", map[string]any{"document": rateCard()}},
	} {
		if _, err := b.post(step.path, step.body); err != nil {
			return err
		}
	}
	return nil
}

// seedCustomers makes the customers through the API.
func (b *bench) seedCustomers() error {
	began := time.Now()
	b.customers = make([]string, b.Customers)
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	var next atomic.Int64
	for range 64 {
		wg.Go(func() {
			for failed.Load() == nil {
				n := int(next.Add(1)) - 1
				if n >= b.Customers {
					return
				}
				id, err := b.customer(n)
				if err != nil {
					failed.Store(&err)
					return
				}
				b.customers[n] = id
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return fmt.Errorf("make customers: %w", *err)
	}
	fmt.Printf("  %d customers with a wallet and two grants each made through the API in %.1f s\n", b.Customers, time.Since(began).Seconds())
	conn, err := pgx.Connect(context.Background(), b.url)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), "VACUUM ANALYZE"); err != nil {
		return fmt.Errorf("vacuum: %w", err)
	}
	_, err = conn.Exec(context.Background(), "CHECKPOINT")
	return err
}

var httpClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func (b *bench) customer(n int) (string, error) {
	made, err := b.post("/v1/customers", map[string]any{"name": fmt.Sprint("Customer ", n), "external_id": fmt.Sprint("c", n), "legal_entity": "main"})
	if err != nil {
		return "", err
	}
	id := made["id"].(string)
	wallet, err := b.post("/v1/wallets", map[string]any{"customer": id, "name": "main", "unit": "CREDIT"})
	if err != nil {
		return "", err
	}
	for _, grant := range []map[string]any{
		{"type": "promotional", "amount": "1000000", "expires_at": time.Now().Add(720 * time.Hour).UTC().Format(time.RFC3339)},
		{"type": "purchased", "amount": "1000000000", "price": map[string]any{"amount": "1000.00", "tax": "0.00", "currency": "USD"}},
	} {
		grant["wallet"] = wallet["id"]
		if _, err := b.post("/v1/grants", grant); err != nil {
			return "", err
		}
	}
	return id, nil
}

func rateCard() map[string]any {
	rates := []map[string]any{}
	for m := range 20 {
		for _, kind := range []string{"input", "output"} {
			rates = append(rates, map[string]any{
				"id": fmt.Sprintf("m%d-%s", m, kind), "meter": "llm_tokens", "price": "2.5", "per": "1000000",
				"match": map[string]any{"model": []string{fmt.Sprint("model-", m)}, "token_type": []string{kind}},
			})
		}
	}
	return map[string]any{"meters": []map[string]any{{"code": "llm_tokens", "aggregation": "sum"}}, "rates": rates}
}

// consume measures the endpoint, over so many customers.
func (b *bench) consume(customers int, rated bool) (figures, error) {
	conns, err := b.dial()
	if err != nil {
		return figures{}, err
	}
	defer closeAll(conns)
	run1 := strconv.FormatInt(time.Now().UnixNano(), 36)
	return run(b.Clients, b.WarmUp, b.Measure, func(k int, n int64) error {
		body := make([]byte, 0, 256)
		body = append(append(append(body, `{"customer":"`...), b.customers[n*7919%int64(customers)]...), '"')
		if rated {
			body = append(body, `,"dimensions":{"model":"model-7","product":"chat"},"usage":[{"meter":"llm_tokens","quantity":"1312","dimensions":{"token_type":"input"}},{"meter":"llm_tokens","quantity":"240","dimensions":{"token_type":"output"}}]}`...)
		} else {
			body = append(body, `,"unit":"CREDIT","amount":"0.001"}`...)
		}
		status, answer, err := conns[k].do("POST", "/v1/consume", []string{
			"Authorization", "Bearer " + apiKey, "Idempotency-Key", run1 + "-" + strconv.FormatInt(n, 10)}, body)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("answered %d: %s", status, answer)
		}
		return err
	})
}

func (b *bench) balances() (figures, error) {
	conns, err := b.dial()
	if err != nil {
		return figures{}, err
	}
	defer closeAll(conns)
	return run(b.Clients, b.WarmUp, b.Measure, func(k int, n int64) error {
		status, answer, err := conns[k].do("GET", "/v1/customers/"+b.customers[n*7919%int64(b.Customers)]+"/balances", []string{"Authorization", "Bearer " + apiKey}, nil)
		if err == nil && (status != http.StatusOK || !strings.Contains(string(answer), `"available"`)) {
			err = fmt.Errorf("answered %d: %s", status, answer)
		}
		return err
	})
}

// nothing measures an Echo server whose handler does nothing, in a process of its own like the API.
func (b *bench) nothing() (figures, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return figures{}, fmt.Errorf("find a port: %w", err)
	}
	addr := l.Addr().String()
	l.Close()
	self, err := os.Executable()
	if err != nil {
		return figures{}, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, "noop", addr)
	if err := cmd.Start(); err != nil {
		return figures{}, fmt.Errorf("start the empty server: %w", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := waitUntilUp("http://" + addr + "/"); err != nil {
		return figures{}, err
	}
	was := b.api
	b.api = addr
	defer func() { b.api = was }()
	conns, err := b.dial()
	if err != nil {
		return figures{}, err
	}
	defer closeAll(conns)
	return run(b.Clients, b.WarmUp, b.Measure, func(k int, _ int64) error {
		_, _, err := conns[k].do("GET", "/", []string{"Authorization", "Bearer " + apiKey}, nil)
		return err
	})
}

func serveNothing(addr string) {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.GET("/", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	if err := e.Start(addr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) dial() ([]*conn, error) {
	conns := make([]*conn, b.Clients)
	for i := range conns {
		c, err := dial(b.api)
		if err != nil {
			closeAll(conns[:i])
			return nil, err
		}
		conns[i] = c
	}
	return conns, nil
}

func closeAll(conns []*conn) {
	for _, c := range conns {
		_ = c.c.Close()
	}
}
