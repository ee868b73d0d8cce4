package faults_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/devstack"
	"github.com/tallystick/tallystick/devstack/stacktest"
	"github.com/tallystick/tallystick/faults"
	"github.com/tallystick/tallystick/faults/failpoint"
	"github.com/tallystick/tallystick/verify"
	"github.com/tallystick/tallystick/worker"
)

// program is the real program, with fail points.
var program string

func TestMain(m *testing.M) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics tell too much
	redis.SetLogger(quiet{})
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tallystick-faults-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "tallystick")
		build := exec.Command("go", "build", "-tags", "failpoints", "-o", program, "..")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build the program with fail points:", err)
			return 1
		}
		return m.Run()
	}())
}

// quiet is a logger of the Redis client's that says nothing.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// rig is a private Postgres and Redis, and API processes that reach them through proxies.
type rig struct {
	*balancetest.World // on the same database: to set up, to sweep and to look

	stack     *devstack.Stack
	primary   *link // of the world to Postgres; nothing is ever wrong with it
	proxies   *toxiproxy.ApiServer
	processes []*process
	apiKey    string
	superuser *pgxpool.Pool
}

// newRig starts the servers and n API processes.
func newRig(t *testing.T, n int, temporal bool) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stack, err := devstack.Start(ctx, devstack.Options{
		Ephemeral: true, Postgres: true, Redis: true, Temporal: temporal, SearchAttributes: worker.SearchAttributes(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := stack.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	r := &rig{
		stack: stack, apiKey: "tly_faults_0123456789abcdef",
		proxies: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop()),
	}
	r.primary = r.link(t, "postgres", stack.Postgres.Addr())
	t.Setenv(stacktest.EnvDatabaseURL, strings.Replace(stack.DatabaseURL, stack.Postgres.Addr(), r.primary.proxy.Listen, 1))
	t.Setenv(stacktest.EnvRedisAddr, stack.RedisAddr)
	r.World = balancetest.New(t)
	t.Cleanup(func() {
		if r.superuser != nil {
			r.superuser.Close()
		}
	})
	for i := range n {
		p := r.newProcess(t, "api", i)
		p.start(t)
		r.processes = append(r.processes, p)
	}
	return r
}

// process is one process of the program, started again whenever it ends, as whatever runs processes in production would.
type process struct {
	command         string // api or worker
	number          int
	addr            string // host:port of its HTTP
	postgres, redis *link
	env             []string // of every start
	client          *http.Client

	mu      sync.Mutex
	more    func() []string // added to env at the next start; nil: nothing
	pid     int
	wanted  bool
	ended   chan struct{} // closed when it is no longer wanted and has ended
	starts  int
	hits    map[string]int // fail points that told of themselves
	said    []string       // the last lines on its standard error
	watches []chan string  // told of fail points
}

func (r *rig) newProcess(t *testing.T, command string, i int) *process {
	t.Helper()
	p := &process{command: command, number: i, hits: make(map[string]int), ended: make(chan struct{})}
	p.postgres = r.link(t, fmt.Sprintf("postgres-%s-%d", command, i), r.stack.Postgres.Addr())
	p.redis = r.link(t, fmt.Sprintf("redis-%s-%d", command, i), r.stack.RedisAddr)
	p.addr = freeAddr(t)
	u, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.postgres.proxy.Listen
	p.env = []string{
		"DATABASE_URL=" + u.String(), "REDIS_ADDR=" + p.redis.proxy.Listen, "TALLYSTICK_LISTEN=" + p.addr, "TALLYSTICK_API_KEY=" + r.apiKey,
		"TEMPORAL_ADDRESS=" + r.stack.TemporalAddress, "TALLYSTICK_WORKER_METRICS=" + p.addr, "TALLYSTICK_RECOGNISE_EVERY=1s", "TALLYSTICK_WORKFLOW_STARTS=400",
		"TALLYSTICK_LOG_LEVEL=warn", "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
	}
	p.client = &http.Client{Timeout: 8 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	return p
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start keeps the process running until the test ends or stop is called, and returns when it serves.
func (p *process) start(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	p.wanted = true
	p.mu.Unlock()
	go p.supervise()
	t.Cleanup(p.stop)
	p.await(t)
}

// await returns when the process serves.
func (p *process) await(t *testing.T) {
	t.Helper()
	waitFor(t, 20*time.Second, p, p.serves)
}

func (p *process) serves() bool {
	c := http.Client{Timeout: time.Second}
	resp, err := c.Get("http://" + p.addr + "/healthz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (p *process) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%s process %d (%d starts; it last said: %s)", p.command, p.number, p.starts, strings.Join(p.said, "\n"))
}

func (p *process) supervise() {
	defer close(p.ended)
	for {
		cmd := exec.Command(program, p.command)
		p.mu.Lock()
		more := p.more
		p.mu.Unlock()
		cmd.Env = slices.Clone(p.env)
		if more != nil {
			cmd.Env = append(cmd.Env, more()...)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.StderrPipe()
		p.mu.Lock()
		if !p.wanted {
			p.mu.Unlock()
			return
		}
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			p.said = append(p.said, err.Error())
			p.wanted = false
			p.mu.Unlock()
			return
		}
		p.pid = cmd.Process.Pid
		p.starts++
		p.mu.Unlock()
		p.listen(out)
		_ = cmd.Wait() // however it ended
		p.mu.Lock()
		p.pid = 0
		p.mu.Unlock()
		time.Sleep(10 * time.Millisecond) // one that cannot start must not take all the time there is
	}
}

// listen reads what the process says until it ends.
func (p *process) listen(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := lines.Text()
		step, ok := strings.CutPrefix(line, failpoint.Prefix)
		p.mu.Lock()
		if ok {
			step, _, _ = strings.Cut(step, " ")
			p.hits[step]++
			for _, w := range p.watches {
				select {
				case w <- step:
				default:
				}
			}
		} else if p.said = append(p.said, line); len(p.said) > 10 {
			p.said = p.said[1:]
		}
		p.mu.Unlock()
	}
}

// watch returns a channel that tells of the fail points hit from now on.
func (p *process) watch() <-chan string {
	w := make(chan string, 16)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watches = append(p.watches, w)
	return w
}

func (p *process) hit(step string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits[step]
}

// signal reports whether there was a process to signal.
func (p *process) signal(s syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid != 0 && syscall.Kill(p.pid, s) == nil
}

// stop ends the process for good.
func (p *process) stop() {
	p.mu.Lock()
	p.wanted = false
	if p.pid != 0 {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
	p.mu.Unlock()
	<-p.ended
	p.client.CloseIdleConnections()
}

// next says what is added to the environment of the starts to come.
func (p *process) next(more func() []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.more = more
}

// restart has the process start afresh, with more in its environment, and returns when it serves.
func (p *process) restart(t *testing.T, more ...string) {
	t.Helper()
	p.next(func() []string { return more })
	before := p.started()
	p.signal(syscall.SIGKILL)
	waitFor(t, 20*time.Second, p, func() bool { return p.started() > before })
	p.await(t)
}

// started is how often the process was started.
func (p *process) started() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// link is a proxied connection of one process to one server.
type link struct{ proxy *toxiproxy.Proxy }

func (r *rig) link(t *testing.T, name, to string) *link {
	t.Helper()
	l := &link{toxiproxy.NewProxy(r.proxies, name, "127.0.0.1:0", to)}
	if err := l.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.proxy.Stop)
	return l
}

// leadTo has the link lead somewhere else from now on.
func (l *link) leadTo(t *testing.T, addr string) {
	t.Helper()
	if err := l.proxy.Update(&toxiproxy.Proxy{Listen: l.proxy.Listen, Upstream: addr, Enabled: true}); err != nil {
		t.Fatal(err)
	}
}

// poison adds a toxic; the returned function takes it away.
func (l *link) poison(t *testing.T, kind, stream string, toxicity float64, attributes map[string]int) (cure func()) {
	t.Helper()
	name := kind + "-" + stream
	body, err := json.Marshal(map[string]any{"name": name, "type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.proxy.Toxics.AddToxicJson(bytes.NewReader(body)); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return func() {
		if err := l.proxy.Toxics.RemoveToxic(context.Background(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// cut lets nothing through in either direction and leaves the connections open, as a network does that is gone.
func (l *link) cut(t *testing.T) (mend func()) {
	t.Helper()
	up := l.poison(t, "timeout", "upstream", 1, map[string]int{"timeout": 0})
	down := l.poison(t, "timeout", "downstream", 1, map[string]int{"timeout": 0})
	return func() { up(); down() }
}

// call sends one attempt of a call to a process and notes it.
func (r *rig) call(ctx context.Context, p *process, c *faults.Call) faults.Attempt {
	end := c.Begin(p.number)
	return end(r.send(ctx, p, c))
}

func (r *rig) send(ctx context.Context, p *process, c *faults.Call) (a faults.Attempt) {
	method, body := http.MethodPost, io.Reader(strings.NewReader(c.Body))
	if c.Kind == faults.Read {
		method, body = http.MethodGet, nil
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.addr+c.Path, body)
	if err != nil {
		a.Err = err
		return a
	}
	req.Header.Set("Authorization", "Bearer "+r.apiKey)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", c.Key)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		a.Err = err
		return a
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		a.Err = err
		return a
	}
	a.Status, a.Body, a.Request = resp.StatusCode, string(answer), resp.Header.Get("X-Request-Id")
	if a.Status >= 400 {
		var problem struct {
			Code string `json:"code"`
		}
		if err := json.Unmarshal(answer, &problem); err != nil {
			a.Err = fmt.Errorf("%d %s: %w", a.Status, answer, err)
		}
		a.Code = problem.Code
	}
	return a
}

var keys atomic.Int64

// consume is a consumption of an explicit amount under a new key.
func consume(c credit.CustomerID, amount credit.Amount, dims credit.Dimensions) *faults.Call {
	request := map[string]any{"customer": c, "unit": "CRD", "amount": amount.Format(balancetest.Scale)}
	if len(dims) > 0 {
		request["dimensions"] = dims
	}
	body, err := json.Marshal(request)
	if err != nil {
		panic(err)
	}
	return &faults.Call{Kind: faults.Consume, Key: newKey(), Customer: c, Unit: "CRD", Amount: amount, Dims: dims, Path: "/v1/consume", Body: string(body)}
}

func newKey() string { return fmt.Sprintf("call-%d", keys.Add(1)) }

func read(c credit.CustomerID) *faults.Call {
	return &faults.Call{Kind: faults.Read, Customer: c, Path: "/v1/customers/" + c.String() + "/balances?consistency=strong"}
}

// metric reads a counter of a process.
func (p *process) metric(t *testing.T, name string) float64 {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+p.addr+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer tly_faults_0123456789abcdef")
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var v float64
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			if _, err := fmt.Sscan(rest, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// cacheWithin is how soon after a fault everything that is cached must be as Postgres has it.
const cacheWithin = 10 * time.Second

// mustBeSound checks everything after a case: the history against Postgres, the books, and within ten seconds the cache.
func (r *rig) mustBeSound(t *testing.T, h *faults.History, abandoned func(*faults.Call) bool) *faults.Report {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, r.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if abandoned == nil {
		abandoned = func(*faults.Call) bool { return false }
	}
	report, err := faults.Check(ctx, conn, h, abandoned)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Clean() {
		t.Errorf("%s", report)
	}
	waitFor(t, cacheWithin, "the cache is as Postgres is", func() bool {
		d, err := r.Service.SweepCache(ctx, 100) // as the worker does all the time: what it finds it repairs
		return err == nil && len(d.Differ)+len(d.Behind) == 0
	})
	books, err := verify.Run(ctx, r.Store, r.Service, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !books.Clean() {
		var b strings.Builder
		if _, err := books.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		t.Error(b.String())
	}
	return report
}

func waitFor(t testing.TB, within time.Duration, what any, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to pass within %s: %v", within, what)
		}
	}
}

// sweepCache does what a worker does every ten minutes: it looks at everything that is cached and repairs it.
func (r *rig) sweepCache(t *testing.T) (found balance.Drift) {
	t.Helper()
	waitFor(t, 10*time.Second, "the cache can be swept", func() bool {
		var err error
		found, err = r.Service.SweepCache(context.Background(), 100)
		return err == nil
	})
	t.Logf("the sweeper found %d old and %d wrong of %d", len(found.Behind), len(found.Differ), found.Checked)
	return found
}

// owner is connections with all rights.
func (r *rig) owner(t *testing.T) *pgxpool.Pool {
	t.Helper()
	if r.superuser == nil {
		var err error
		if r.superuser, err = pgxpool.New(context.Background(), r.URL); err != nil {
			t.Fatal(err)
		}
	}
	return r.superuser
}

// cacheClient is a client of the rig's Redis with which nothing is wrong.
func (r *rig) cacheClient(t *testing.T) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: r.stack.RedisAddr, DisableIdentity: true})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// sweep does what two workers would: it expires what is due, in two places at once.
func (r *rig) sweep(ctx context.Context, t *testing.T) {
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			due, err := r.Store.DueGrants(ctx, db.DueGrant{}, 1000)
			if err != nil {
				return // Postgres is away
			}
			ops := make([]balance.Operation, len(due))
			for i, d := range due {
				ops[i] = &balance.Expire{Header: balance.Header{Customer: d.Customer}, Grant: d.ID}
			}
			for _, result := range r.Service.DoAll(ctx, ops) {
				if result.Err != nil && credit.CodeOf(result.Err) == "" {
					t.Error(result.Err)
				}
			}
		})
	}
	both.Wait()
}
