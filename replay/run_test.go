package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/api"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
)

// site is the product, running, with a customer whose tokens cost 500 CRD a million.
type site struct {
	*balancetest.World
	t        *testing.T
	handler  http.Handler
	key      string
	customer string // its external id
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{World: balancetest.New(t), t: t, customer: "first"}
	server, err := api.New(api.Config{Service: s.Service, Store: s.Store, Log: balancetest.Log()})
	if err != nil {
		t.Fatal(err)
	}
	s.handler, s.key = server.Handler(), s.newKey("admin")
	s.post("/v1/rate_cards", `{"code":"standard","unit":"CRD","default":true}`, nil)
	s.post("/v1/rate_cards/standard/versions", `{"effective_at":"2020-01-01T00:00:00Z","document":{"meters":[{"code":"llm_tokens"}],`+
		`"rates":[{"id":"any","meter":"llm_tokens","price":"500","per":"1000000"}]}}`, nil)
	s.post("/v1/customers", `{"external_id":"first","name":"First","legal_entity":"main"}`, nil)
	return s
}

func (s *site) newKey(role string) string {
	s.t.Helper()
	key, err := api.NewKey(context.Background(), s.Store, role, role)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

func (s *site) post(path, body string, out any) {
	s.t.Helper()
	if out == nil {
		out = &struct{}{}
	}
	server := httptest.NewServer(s.handler)
	defer server.Close()
	if err := NewAPI(server.URL, s.key, 1).Call(context.Background(), http.MethodPost, path, s.Key(), []byte(body), out); err != nil {
		s.t.Fatalf("POST %s: %v", path, err)
	}
}

// grant gives the customer credits for 100.00 USD.
func (s *site) grant(amount string) {
	s.t.Helper()
	var wallet struct{ ID string }
	s.post("/v1/wallets", `{"customer":"first","unit":"CRD","name":"main"}`, &wallet)
	s.post("/v1/grants", `{"wallet":"`+wallet.ID+`","type":"purchased","amount":"`+amount+`","price":{"amount":"100.00","currency":"USD"}}`, nil)
}

// replay runs a trace against a handler, which is the API's or stands in front of it.
func (s *site) replay(ctx context.Context, h http.Handler, trace *Trace, plan Plan, change ...func(*Config)) (*Report, string, error) {
	s.t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	var out strings.Builder
	cfg := Config{API: NewAPI(server.URL, s.key, 8), Trace: trace, Plan: plan, Clients: 8, Out: &out}
	for _, c := range change {
		c(&cfg)
	}
	r, err := Run(ctx, cfg)
	if err == nil {
		out.WriteString("\n")
		err = r.Write(&out)
	}
	return r, out.String(), err
}

func (s *site) plan(run string, trace *Trace) Plan {
	s.t.Helper()
	plan, _, err := Plan{Run: run, Trace: trace.Identity, EndsAt: time.Now()}.Keep(s.t.TempDir(), Plan{Customers: []string{s.customer}, Models: []string{"large", "small"}})
	if err != nil {
		s.t.Fatal(err)
	}
	return plan
}

// consumed counts the operations that a run has brought about, and sums what they took, in the ledger itself.
func (s *site) consumed(run string) (operations int, amount decimal.Decimal) {
	s.t.Helper()
	var steps int64
	err := s.Store.Pool.QueryRow(context.Background(), "SELECT count(*), coalesce(sum(amount), 0)::bigint FROM operations WHERE kind = 'consume' AND key LIKE $1",
		balance.ClientKey("replay/"+run+"/%")).Scan(&operations, &steps)
	if err != nil {
		s.t.Fatal(err)
	}
	return operations, credit.Amount(steps).Decimal(balancetest.Scale)
}

func TestMaxAgeIsThatOfTheProduct(t *testing.T) {
	if maxAge != balance.MaxAge {
		t.Errorf("%s here, %s there", maxAge, balance.MaxAge)
	}
}

func TestReplayChargesOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.grant("50") // for a part of the events only
	trace := Synthetic(3, 400)
	plan := s.plan("once", trace)
	first, text, err := s.replay(t.Context(), s.handler, trace, plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the first run printed:\n%s", text)
	short := first.Refused["insufficient_credits"].Events
	if !first.Decided() || first.Charged == 0 || short == 0 || first.Charged+short != 400 || len(first.Refused) != 1 || first.Before != 0 {
		t.Fatalf("%+v", first)
	}
	operations, amount := s.consumed("once")
	if operations != first.Charged || !amount.Equal(first.Credits["CRD"]) {
		t.Errorf("the ledger has %d consumptions of %s, the report %d of %s", operations, amount, first.Charged, first.Credits["CRD"])
	}
	if taken := first.balances[0].by().Neg(); !taken.Equal(amount) {
		t.Errorf("the balance went down by %s, %s was charged", taken, amount)
	}
	// 100.00 USD for 50 CRD: the revenue is the cumulative rule's, rounded down.
	earned := amount.Mul(decimal.New(2, 0)).Truncate(2)
	if got := first.books[0].recognised.by(); !got.Equal(earned) || !first.books[0].balanced {
		t.Errorf("%s was recognised, want %s: %+v", got, earned, first.books[0])
	}
	if got := first.books[0].deferred.after; !got.Equal(decimal.New(100, 0).Sub(earned)) {
		t.Errorf("%s is deferred, want 100 less %s", got, earned)
	}

	again, text, err := s.replay(t.Context(), s.handler, trace, plan)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Decided() || again.Charged != 0 || again.Before != first.Charged || again.Refused["insufficient_credits"].Events != short || len(again.Credits) != 0 {
		t.Errorf("the second time: %+v", again)
	}
	if !again.balances[0].by().IsZero() || !again.books[0].recognised.by().IsZero() || len(again.books[0].accounts) != 0 {
		t.Errorf("the second run changed something:\n%s", text)
	}
	if n, total := s.consumed("once"); n != operations || !total.Equal(amount) {
		t.Errorf("the ledger has %d consumptions of %s after the second run, %d of %s before", n, total, operations, amount)
	}
	for _, want := range []string{"charged before", "insufficient_credits", "p50", "available CRD", "revenue recognised", "trial balance of main", "it balances", "100 %"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

// A run that is interrupted, through a network that loses requests and answers and an API that is busy now and then, and is then repeated
// charges every event once.
func TestInterruptedReplayGoesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.grant("1000")
	trace := Synthetic(4, 300)
	plan := s.plan("torn", trace)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var calls atomic.Int64
	bad := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/consume" {
			s.handler.ServeHTTP(w, r)
			return
		}
		n := calls.Add(1)
		if n == 150 {
			interrupt()
		}
		switch n % 10 {
		case 1: // the request is lost
			panic(http.ErrAbortHandler)
		case 3: // the answer is lost
			s.handler.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case 5:
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, `{"code":"overloaded","detail":"Too many requests are waiting."}`)
		case 7:
			http.Error(w, "bad gateway", http.StatusBadGateway)
		default:
			s.handler.ServeHTTP(w, r)
		}
	})
	first, _, err := s.replay(ctx, bad, trace, plan)
	if err != nil {
		t.Fatal(err)
	}
	if first.Decided() || first.Charged == 0 || first.Again == 0 || first.Sent >= 300 || first.Before != 0 {
		t.Fatalf("%+v", first)
	}
	second, text, err := s.replay(t.Context(), bad, trace, plan)
	if err != nil {
		t.Fatal(err)
	}
	operations, amount := s.consumed("torn")
	if !second.Decided() || second.Charged+second.Before != 300 || operations != 300 || second.Before < first.Charged {
		t.Errorf("%d operations, then %d; the second run:\n%s", first.Charged, operations, text)
	}
	if charged := s.balanceOf(); !charged.Equal(decimal.New(1000, 0).Sub(amount)) {
		t.Errorf("%s CRD are left of 1000 after %s", charged, amount)
	}
}

// balanceOf reads the balance from the ledger.
func (s *site) balanceOf() decimal.Decimal {
	s.t.Helper()
	id, err := s.Store.CustomerID(context.Background(), s.customer)
	if err != nil {
		s.t.Fatal(err)
	}
	doc, err := s.Service.StrongBalance(context.Background(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return decimal.RequireFromString(doc.Units[0].Available)
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.grant("1000")
	busy := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/consume" {
			http.Error(w, `{"code":"not_executed","detail":"Nothing was done."}`, http.StatusServiceUnavailable)
			return
		}
		s.handler.ServeHTTP(w, r)
	})
	trace := Synthetic(5, 3)
	r, text, err := s.replay(t.Context(), busy, trace, s.plan("busy", trace), func(c *Config) { c.Wait = 20 * time.Millisecond })
	if err != nil {
		t.Fatal(err)
	}
	if r.Decided() || r.Open.Events != 3 || r.Charged != 0 || r.Again == 0 || !strings.Contains(text, "not_executed") {
		t.Errorf("%+v\n%s", r, text)
	}
}

func TestRefusedKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.grant("1000")
	trace := Synthetic(6, 20)
	s.key = s.newKey("product")
	r, text, err := s.replay(t.Context(), s.handler, trace, s.plan("product", trace))
	if err != nil || r.Charged != 20 || len(r.books) != 0 || !strings.Contains(text, "the books were not read: ") {
		t.Errorf("with a product key: %v\n%s", err, text)
	}
	s.key = s.newKey("finance") // sees everything that is read, and may not consume
	var p *Problem
	if _, _, err = s.replay(t.Context(), s.handler, trace, s.plan("finance", trace)); !errors.As(err, &p) || p.Code != "forbidden" {
		t.Errorf("with a finance key: %v", err)
	}
	s.key = "no key"
	if _, _, err = s.replay(t.Context(), s.handler, trace, s.plan("none", trace)); !errors.As(err, &p) || p.Code != "unauthenticated" {
		t.Errorf("without a key: %v", err)
	}
	s.key, s.customer = s.newKey("admin"), "nobody"
	if _, _, err = s.replay(t.Context(), s.handler, trace, s.plan("nobody", trace)); !errors.As(err, &p) || p.Code != "customer_not_found" {
		t.Errorf("for a customer that there is not: %v", err)
	}
}

// The trace keeps its distances and ends when the run was begun; customers and models take turns.
func TestRequests(t *testing.T) {
	t.Parallel()
	last := at("2023-11-16T18:17:10Z")
	p := Plan{Run: "r", EndsAt: at("2026-05-01T00:00:00Z"), Customers: []string{"a", "b"}, Models: []string{"m"}}
	key, body, err := p.request(Event{Line: 3, At: last.Add(-1500 * time.Millisecond), Input: 4808, Output: 0}, last)
	const want = `{"customer":"b","timestamp":"2026-04-30T23:59:58.5Z","dimensions":{"model":"m"},"usage":[` +
		`{"meter":"llm_tokens","quantity":"4808","dimensions":{"token_type":"input"}},{"meter":"llm_tokens","quantity":"0","dimensions":{"token_type":"output"}}]}`
	if err != nil || key != "replay/r/3" || string(body) != want {
		t.Errorf("%s %s, %v", key, body, err)
	}
}

func TestTooOldATraceIsNotSent(t *testing.T) {
	t.Parallel()
	trace := Synthetic(1, 1)
	_, err := Run(t.Context(), Config{API: NewAPI("http://127.0.0.1:1", "", 1), Trace: trace, Plan: Plan{EndsAt: time.Now().Add(-maxAge), Customers: []string{"x"}}, Clients: 1, Out: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "34 days") {
		t.Errorf("%v", err)
	}
}

// At a speed events are sent at their time, and no event before it.
func TestPace(t *testing.T) {
	t.Parallel()
	begin := at("2026-01-01T00:00:00Z")
	var events []Event
	for i := range 5 {
		events = append(events, Event{Line: i + 1, At: begin.Add(time.Duration(i) * 6 * time.Second)})
	}
	trace := &Trace{Events: 5, First: begin, Last: events[4].At, read: func() iter.Seq2[Event, error] {
		return func(yield func(Event, error) bool) {
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
		}
	}}
	r := &run{Config: Config{Trace: trace, Speed: 100}, events: make(chan Event)}
	began := time.Now()
	go func() {
		defer close(r.events)
		if err := r.schedule(t.Context(), began); err != nil {
			t.Error(err)
		}
	}()
	for e := range r.events {
		if due := e.At.Sub(begin) / 100; time.Since(began) < due {
			t.Errorf("event %d came after %s, not %s", e.Line, time.Since(began), due)
		}
	}
	if took := time.Since(began); took < 240*time.Millisecond {
		t.Errorf("24 s at speed 100 took %s", took)
	}
}

func TestKeep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fallback := Plan{Customers: []string{"first"}, Models: []string{"large"}}
	p := Plan{Run: "a.run_1-x", Trace: "sha256:1", EndsAt: time.Now()}
	kept, again, err := p.Keep(dir, fallback)
	if err != nil || again || kept.Customers[0] != "first" || kept.Models[0] != "large" {
		t.Fatalf("%+v, %v, %v", kept, again, err)
	}
	p.EndsAt = p.EndsAt.Add(time.Hour)
	if k, again, err := p.Keep(dir, Plan{Customers: []string{"second"}}); err != nil || !again || !k.EndsAt.Equal(kept.EndsAt) || k.Customers[0] != "first" {
		t.Errorf("%+v, %v, %v", k, again, err)
	}
	for name, other := range map[string]Plan{
		"another trace":    {Run: p.Run, Trace: "sha256:2"},
		"other customers":  {Run: p.Run, Trace: p.Trace, Customers: []string{"second"}},
		"other models":     {Run: p.Run, Trace: p.Trace, Models: []string{"small"}},
		"an empty name":    {Run: "", Trace: p.Trace},
		"a path as a name": {Run: "../x", Trace: p.Trace},
	} {
		if k, _, err := other.Keep(dir, fallback); err == nil {
			t.Errorf("%s was taken: %+v", name, k)
		}
	}
	if _, _, err := (Plan{Run: NewRunName(time.Now()), Trace: "x", EndsAt: time.Now()}).Keep(dir, fallback); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(dir+"/replay/broken.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (Plan{Run: "broken", Trace: "x"}).Keep(dir, fallback); err == nil {
		t.Error("a broken file was read")
	}
}

// A published trace goes through from end to end: the one of the Azure LLM inference dataset where it lies beside the sources, otherwise one
// written like it.
func TestPublishedTrace(t *testing.T) {
	t.Parallel()
	const events = 1_000
	path := "../../shared/data/azure-llm-2023/AzureLLMInferenceTrace_conv.csv"
	if _, err := os.Stat(path); err != nil {
		path = t.TempDir() + "/trace.csv"
		var lines strings.Builder
		lines.WriteString("TIMESTAMP,ContextTokens,GeneratedTokens\r\n")
		for e := range Synthetic(9, events).read() {
			fmt.Fprintf(&lines, "%s0,%d,%d\r\n", e.At.Format("2006-01-02 15:04:05.000000"), e.Input, e.Output)
		}
		if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trace, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	all := trace.read
	trace.Events = min(trace.Events, events)
	trace.read = func() iter.Seq2[Event, error] {
		return func(yield func(Event, error) bool) {
			n := 0
			for e, err := range all() {
				if n++; n > events || !yield(e, err) {
					return
				}
			}
		}
	}
	s := newSite(t)
	s.grant("100000")
	r, text, err := s.replay(t.Context(), s.handler, trace, s.plan("published", trace))
	if err != nil {
		t.Fatal(err)
	}
	operations, amount := s.consumed("published")
	if !r.Decided() || r.Charged != trace.Events || operations != trace.Events || !amount.Equal(r.Credits["CRD"]) {
		t.Errorf("%d of %d events:\n%s", operations, trace.Events, text)
	}
	var newest struct{ Document json.RawMessage }
	var at time.Time
	if err := s.Store.Pool.QueryRow(t.Context(), "SELECT receipt, service_at FROM operations WHERE kind = 'consume' ORDER BY service_at DESC LIMIT 1").Scan(&newest.Document, &at); err != nil {
		t.Fatal(err)
	}
	if age := time.Since(at); age < 0 || age > time.Hour+time.Minute || !strings.Contains(string(newest.Document), `"token_type":"output"`) {
		t.Errorf("the newest event is %s old: %s", age, newest.Document)
	}
}
