package worker

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/alert"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/webhook"
	"github.com/tallystick/tallystick/webhook/webhooktest"
)

var (
	benchGrants  = flag.Int("grants", 2000, "grants of BenchmarkGrants")
	benchExpired = flag.Int("expired", 500, "how many of them expire within the same second")
)

// BenchmarkGrants creates many grants for many customers, starts their workflows as fast as the machine can, and lets some expire
// together. It prints what that costs; the number of iterations means nothing.
//
//	make bench PKG=./worker ARGS='-run ^$ -bench Grants -args -grants 100000 -expired 10000'
func BenchmarkGrants(b *testing.B) {
	s := newSite(b, func(c *Config) { c.StartsPerSecond = 100_000 })
	customers := make([]credit.CustomerID, min(1000, *benchGrants))
	wallets := make([]credit.WalletID, len(customers))
	for i := range customers {
		customers[i], wallets[i] = s.Customer(b)
	}
	due := time.Now().Add(time.Duration(*benchGrants/25+60) * time.Second)
	begin := time.Now()
	for at := 0; at < *benchGrants; at += 1000 {
		var ops []balance.Operation
		for i := at; i < min(at+1000, *benchGrants); i++ {
			until := due
			if i >= *benchExpired {
				until = due.Add(60 * day)
			}
			c := i % len(customers)
			ops = append(ops, &balance.CreateGrant{Header: balance.Header{Customer: customers[c]}, Grant: credit.Grant{
				ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: wallets[c]}, Type: credit.Promotional, Priority: 100, Amount: one,
				RatePolicy: credit.Floating, ExpiresAt: until,
			}})
		}
		for _, r := range s.Service.DoAll(context.Background(), ops) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
	report("grants created", *benchGrants, begin)

	cost := &costs{cpu: map[string]time.Duration{}}
	cost.print("before")
	begin = time.Now()
	stop := s.run()
	patiently := func(what string, holds func() bool) {
		for begin := time.Now(); !holds(); time.Sleep(100 * time.Millisecond) {
			if time.Since(begin) > time.Hour {
				b.Fatal(what)
			}
		}
	}
	patiently("started", func() bool { return s.count("SELECT count(*) FROM outbox WHERE topic = 'grant.start'") == 0 })
	report("workflows started", *benchGrants, begin)
	waiting := fmt.Sprintf("WorkflowType = 'GrantLifecycle' AND ExecutionStatus = 'Running' AND TaskQueue = '%sgrants'", s.cfg.Prefix)
	patiently("listed", func() bool { return s.counted(waiting) == *benchGrants })
	report("workflows listed", *benchGrants, begin)
	cost.print("all of them open")

	patiently("due", func() bool { return time.Now().After(due) })
	cost.print("waiting")
	patiently("expired", func() bool { return s.count("SELECT count(*) FROM operations WHERE kind = 'expire'") == *benchExpired })
	report("grants expired", *benchExpired, due)
	var lags []time.Duration
	rows, err := s.Store.Pool.Query(context.Background(), "SELECT extract(epoch FROM o.at - o.service_at) FROM operations AS o WHERE kind = 'expire'")
	if err != nil {
		b.Fatal(err)
	}
	for rows.Next() {
		var seconds string
		if err := rows.Scan(&seconds); err != nil {
			b.Fatal(err)
		}
		lag, _ := time.ParseDuration(seconds + "s")
		lags = append(lags, lag)
	}
	slices.Sort(lags)
	fmt.Printf("%-22s p50 %s, p99 %s, max %s\n", "lag of expiry", lags[len(lags)/2], lags[len(lags)*99/100], lags[len(lags)-1])
	patiently("completed", func() bool { return s.counted(waiting) == *benchGrants-*benchExpired })
	report("workflows completed", *benchExpired, due)
	cost.print("at the end")
	if *benchGrants > *benchExpired {
		open := s.listed("%s", waiting)[0]
		fmt.Printf("%-22s %d events\n", "an open grant has", len(s.history(open, "").Events))
	}
	stop()
	for b.Loop() {
	}
}

// BenchmarkAlertDelay crosses thresholds of many customers under load and prints how long it takes until an endpoint is told; the number of iterations means
// nothing.
func BenchmarkAlertDelay(b *testing.B) {
	s := newAlertSite(b, func(*balancetest.Options) {})
	var mu sync.Mutex
	var delays []time.Duration
	hooks := webhooktest.New(b, func(m webhook.Message) int {
		mu.Lock()
		defer mu.Unlock()
		delays = append(delays, time.Since(time.Time(m.Timestamp)))
		return 204
	})
	s.endpoint(hooks, func(e *db.EndpointRow) { e.Types = []string{"alert.fired"} })
	s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.BalanceBelow, Amount: 500 * one}})
	const customers, clients, each = 400, 16, 1000
	ids := make([]credit.CustomerID, customers)
	for i := range ids {
		id, wallet := s.Customer(b)
		s.Grant(b, id, wallet, 10_000*one)
		ids[i] = id
	}
	s.run()
	begin := time.Now()
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for i := range each { // each customer crosses at a moment of its own: one consumption in forty takes almost all
				id, amount := ids[(c*each+i*7)%customers], one
				if i%40 == 0 {
					id, amount = ids[(c*each/40+i/40)%customers], 9_700*one
				}
				o := s.Consume(id, amount)
				o.Partial = true
				_, _ = s.Service.Do(context.Background(), o) // some have nothing left
			}
		})
	}
	all.Wait()
	report("consumed meanwhile", clients*each, begin)
	s.until("all are told", func() bool { mu.Lock(); defer mu.Unlock(); return len(delays) >= customers })
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(delays)
	fmt.Printf("%-22s %d alerts, p50 %s, p99 %s, max %s from the consumption to the endpoint\n", "delay of alerts", len(delays), delays[len(delays)/2].Round(time.Millisecond),
		delays[len(delays)*99/100].Round(time.Millisecond), delays[len(delays)-1].Round(time.Millisecond))
	for b.Loop() {
	}
}

func (s *site) counted(query string) int {
	s.t.Helper()
	r, err := s.w.client.CountWorkflow(context.Background(), &workflowservice.CountWorkflowExecutionsRequest{Query: query})
	if err != nil {
		return -1 // too busy to say
	}
	return int(r.GetCount())
}

func report(what string, n int, begin time.Time) {
	took := time.Since(begin)
	fmt.Printf("%-22s %6d in %8s: %d/s\n", what, n, took.Round(time.Millisecond), int64(n)*int64(time.Second)/int64(took))
}

// cost prints what this process and the Temporal server hold and have used since the last time, if the latter's process id is told.
func (c *costs) print(when string) {
	for _, p := range []struct{ name, pid string }{{"this process", "self"}, {"Temporal", os.Getenv("TALLYSTICK_TEST_TEMPORAL_PID")}} {
		if p.pid == "" {
			continue
		}
		rss, cpu := usage(p.pid)
		fmt.Printf("%-22s %s: %d MB, %s of CPU since the last time\n", when, p.name, rss, (cpu - c.cpu[p.name]).Round(10*time.Millisecond))
		c.cpu[p.name] = cpu
	}
}

type costs struct{ cpu map[string]time.Duration }

// usage returns the resident megabytes and the CPU time of a process; 0 where they cannot be told.
func usage(pid string) (rss int, cpu time.Duration) {
	status, _ := os.ReadFile("/proc/" + pid + "/status")
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.Fields(kb)[0])
			rss = n / 1024
		}
	}
	stat, _ := os.ReadFile("/proc/" + pid + "/stat")
	if _, rest, ok := strings.Cut(string(stat), ") "); ok {
		fields := strings.Fields(rest)
		for _, ticks := range fields[11:13] { // user and system, in hundredths of a second
			n, _ := strconv.Atoi(ticks)
			cpu += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return rss, cpu
}
