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
	"slices"
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
	rounds     int
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
	flag.IntVar(&b.rounds, "rounds", 5, "rounds in each of which every figure is taken once")
	flag.DurationVar(&b.WarmUp, "warm-up", 1500*time.Millisecond, "time before measuring, in each round")
	flag.DurationVar(&b.Measure, "measure", 2500*time.Millisecond, "time measured for each figure, in each round")
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
		fmt.Printf("%d keep-alive clients, %d times %s measured for each figure, each after %s of warm-up, everything on this machine\n\n", b.Clients, b.rounds, b.Measure, b.WarmUp)
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

// series is one line's figures, round by round, and what it wrote and used in all of them.
type series struct {
	name   string
	rounds []figures
	wrote  *footprint // nil: not asked
}

// measure takes every figure several times in turn, a slice of its time in each round: a machine that is faster in one minute than in
// the next then weighs on both sides of a ratio alike. A ratio is the median of the rounds' ratios.
func (b *bench) measure(ctx context.Context) error {
	const (
		consumeHot, consumeSpread, consumeRated = "POST /v1/consume, one hot wallet", "POST /v1/consume, spread", "POST /v1/consume, spread, priced by a rate card"
		columnHot, columnSpread                 = "balance column, hot", "balance column, spread"
		statementHot, statementSpread           = "balance column in one statement, hot", "balance column in one statement, spread"
		insertCeiling                           = "inserting the same rows, 500 at a time, nothing else"
		ingestEvents                            = "POST /v1/events, 500 at a time, spread"
		readBalance, doNothing                  = "GET /v1/customers/{id}/balances", "Echo handler that does nothing"
	)
	type step struct {
		name  string
		do    func() (figures, error)
		wrote bool
	}
	steps := []step{
		{columnHot, func() (figures, error) { return b.baseline(ctx, balanceColumn, 1) }, false},
		{consumeHot, func() (figures, error) { return b.consume(1, false) }, true},
		{statementHot, func() (figures, error) { return b.baseline(ctx, balanceStatement, 1) }, false},
		{consumeSpread, func() (figures, error) { return b.consume(b.Customers, false) }, true},
		{columnSpread, func() (figures, error) { return b.baseline(ctx, balanceColumn, int64(b.Customers)) }, false},
		{statementSpread, func() (figures, error) { return b.baseline(ctx, balanceStatement, int64(b.Customers)) }, false},
		{consumeRated, func() (figures, error) { return b.consume(b.Customers, true) }, true},
		{ingestEvents, b.ingest, true},
		{readBalance, b.balances, false},
		{doNothing, b.nothing, false},
	}
	results := make(map[string]*series)
	var lines []*series
	for round := range b.rounds {
		if round == b.rounds-1 { // it leaves a million rows to be written out, so nothing is measured after it
			steps = append(steps, step{insertCeiling, func() (figures, error) { return b.ceiling(ctx) }, false})
		}
		for _, step := range steps {
			if !strings.Contains(step.name, b.only) {
				continue
			}
			s := results[step.name]
			if s == nil {
				s = &series{name: step.name}
				if step.wrote {
					s.wrote = new(footprint)
				}
				results[step.name] = s
				lines = append(lines, s)
			}
			f, err := b.watched(ctx, s.wrote, step.do)
			if err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
			s.rounds = append(s.rounds, f)
		}
		fmt.Printf("  round %d of %d measured\n", round+1, b.rounds)
	}
	fmt.Println()
	for _, s := range lines {
		fmt.Printf("  %-54s %s\n", s.name, merge(s.rounds))
		if s.wrote != nil {
			s.wrote.print()
		}
	}
	if b.only != "" {
		return nil
	}
	fmt.Printf("\nratios: the median of %d rounds, and the lowest and highest\n", b.rounds)
	for _, line := range []struct{ name, what, over, aim string }{
		{"hot wallet / balance column", consumeHot, columnHot, "at least 8"},
		{"hot wallet / balance column in one statement", consumeHot, statementHot, ""},
		{"spread / balance column", consumeSpread, columnSpread, "at least 1"},
		{"spread / balance column in one statement", consumeSpread, statementSpread, ""},
		{"hot wallet / spread", consumeHot, consumeSpread, "0.75 to 1.33"},
		{"hot wallet / batched inserts", consumeHot, insertCeiling, ""},
		{"spread / batched inserts", consumeSpread, insertCeiling, ""},
		{"usage events / batched inserts", ingestEvents, insertCeiling, ""},
		{"balance read / nothing", readBalance, doNothing, "at least 0.6"},
	} {
		var ratios []float64
		over := results[line.over].rounds
		for i, f := range results[line.what].rounds {
			ratios = append(ratios, f.rate()/over[min(i, len(over)-1)].rate())
		}
		slices.Sort(ratios)
		aim := ""
		if line.aim != "" {
			aim = "   (aim: " + line.aim + ")"
		}
		n := len(ratios)
		fmt.Printf("  %-46s %6.2f   %6.2f to %6.2f%s\n", line.name, (ratios[(n-1)/2]+ratios[n/2])/2, ratios[0], ratios[n-1], aim)
	}
	return nil
}

// footprint is what a measurement wrote and used.
type footprint struct {
	wal, events, rows, updates, hot, size int64
	cpu                                   cpuTimes
	haveCPU                               bool
}

func (b *bench) readFootprint(ctx context.Context, conn *pgx.Conn) (f footprint, err error) {
	f.cpu, f.haveCPU = b.cpu(ctx, conn)
	if _, err = conn.Exec(ctx, "SELECT pg_stat_clear_snapshot()"); err != nil {
		return f, fmt.Errorf("read the statistics: %w", err)
	}
	if err = conn.QueryRow(ctx, `SELECT (pg_current_wal_lsn() - '0/0')::bigint, (SELECT count(*) FROM operations), sum(n_tup_ins)::bigint, sum(n_tup_upd)::bigint,
		sum(n_tup_hot_upd)::bigint, sum(pg_total_relation_size(relid))::bigint FROM pg_stat_user_tables WHERE relname NOT LIKE 'baseline%'`).
		Scan(&f.wal, &f.events, &f.rows, &f.updates, &f.hot, &f.size); err != nil {
		return f, fmt.Errorf("read the statistics: %w", err)
	}
	return f, nil
}

// watched runs a measurement and adds what it wrote and used to total; nil: nobody asks.
func (b *bench) watched(ctx context.Context, total *footprint, measure func() (figures, error)) (figures, error) {
	if total == nil {
		return measure()
	}
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return figures{}, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	before, err := b.readFootprint(ctx, conn)
	if err != nil {
		return figures{}, err
	}
	f, err := measure()
	if err != nil {
		return f, err
	}
	used, haveCPU := b.cpu(ctx, conn)
	time.Sleep(1500 * time.Millisecond) // the server reports its statistics once a second
	after, err := b.readFootprint(ctx, conn)
	if err != nil {
		return f, err
	}
	total.wal += after.wal - before.wal
	total.events += after.events - before.events
	total.rows += after.rows - before.rows
	total.updates += after.updates - before.updates
	total.hot += after.hot - before.hot
	total.size += after.size - before.size
	if total.haveCPU = haveCPU && before.haveCPU; total.haveCPU {
		total.cpu = total.cpu.add(used.sub(before.cpu))
	}
	return f, nil
}

func (f *footprint) print() {
	n := float64(max(1, f.events))
	fmt.Printf("  %54s %.0f bytes of WAL, %.2f rows inserted (%.0f bytes with indexes), %.2f updated (%.0f %% in place) per event\n", "",
		float64(f.wal)/n, float64(f.rows)/n, float64(f.size)/n, float64(f.updates)/n, 100*float64(f.hot)/float64(max(1, f.updates)))
	if f.haveCPU {
		fmt.Printf("  %54s CPU per event: API %.0f µs, Postgres %.0f µs, Redis %.0f µs, load generator %.0f µs\n", "",
			f.cpu.api*1e6/n, f.cpu.postgres*1e6/n, f.cpu.redis*1e6/n, f.cpu.clients*1e6/n)
	}
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

// ingest measures usage events, of which a call has as many as a batch of the ceiling has rows. Times are those of calls.
func (b *bench) ingest() (figures, error) {
	const inOne, clients = 500, 4
	conns, err := b.dial()
	if err != nil {
		return figures{}, err
	}
	defer closeAll(conns)
	source, at := strconv.FormatInt(time.Now().UnixNano(), 36), time.Now().UTC().Format(time.RFC3339)
	from := time.Now().Add(b.WarmUp)
	var events atomic.Int64 // of calls that ended while it was measured: a call takes too long to count only those that lie wholly inside
	f, err := run(min(clients, b.Clients), b.WarmUp, b.Measure, func(k int, n int64) error {
		body := append(make([]byte, 0, inOne*160), '[')
		for i := n * inOne; i < (n+1)*inOne; i++ {
			body = fmt.Appendf(body, `{"source":"%s","id":"%d","customer":"%s","time":"%s","unit":"CREDIT","amount":"0.001"},`, source, i, b.customers[i*7919%int64(b.Customers)], at)
		}
		body[len(body)-1] = ']'
		status, answer, err := conns[k].do("POST", "/v1/events", []string{"Authorization", "Bearer " + apiKey}, body)
		if err == nil && (status != http.StatusOK || !strings.HasSuffix(string(answer), fmt.Sprintf(`"counts":{"consumed":%d}}`, inOne))) {
			err = fmt.Errorf("answered %d: %.300s", status, answer[max(0, len(answer)-300):])
		}
		if now := time.Now(); now.After(from) && now.Before(from.Add(b.Measure)) {
			events.Add(inOne)
		}
		return err
	})
	f.events = int(events.Load())
	return f, err
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
