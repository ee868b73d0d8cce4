package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/faults"
)

const one = credit.Amount(1_000_000) // one credit

// account is a customer of a load.
type account struct {
	id      credit.CustomerID
	wallets []credit.WalletID

	mu     sync.Mutex
	grants []string
}

func (a *account) know(grant string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.grants = append(a.grants, grant)
}

func (a *account) grant(rnd *rand.Rand) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.grants) == 0 {
		return ""
	}
	// One of the newest: the old ones are used up.
	return a.grants[len(a.grants)-1-rnd.IntN(min(len(a.grants), 12))]
}

// load is clients that ask for everything that can be asked for, most of it consumption, 40 % of it of one customer whose credits are always
// about to run out.
type load struct {
	rig      *rig
	accounts []*account // the first is the hot one
	history  *faults.History
	seed     uint64
	sweeps   bool // it expires what is due, as workers would

	mu        sync.Mutex
	abandoned map[*faults.Call]bool
	stopping  chan struct{}
	running   sync.WaitGroup
}

// newLoad makes customers with credits.
func (r *rig) newLoad(t *testing.T, customers int, seed uint64) *load {
	t.Helper()
	l := &load{rig: r, history: faults.NewHistory(), seed: seed, sweeps: true, abandoned: make(map[*faults.Call]bool), stopping: make(chan struct{})}
	for i := range customers {
		id, general := r.Customer(t)
		a := &account{id: id, wallets: []credit.WalletID{general}}
		if i%2 == 0 {
			a.wallets = append(a.wallets, r.Wallet(t, id, func(o *balance.CreateWallet) {
				o.Wallet.Priority, o.Wallet.Scope = 50, credit.Scope{"model": {"a", "b"}}
			}))
		}
		for _, w := range a.wallets {
			a.know(r.Grant(t, id, w, 30*one).String())
		}
		l.accounts = append(l.accounts, a)
	}
	return l
}

// run lets workers ask until stop is called.
func (l *load) run(t *testing.T, workers int) {
	t.Logf("seed %d", l.seed)
	for i := range workers {
		l.running.Go(func() { l.work(t, rand.New(rand.NewPCG(l.seed, uint64(i)))) })
	}
	if !l.sweeps {
		return
	}
	l.running.Go(func() {
		for l.pause(150 * time.Millisecond) {
			l.rig.sweep(context.Background(), t)
		}
	})
}

// pause returns false when the load is to stop.
func (l *load) pause(d time.Duration) bool {
	select {
	case <-l.stopping:
		return false
	case <-time.After(d):
		return true
	}
}

// during runs the load with these workers for as long as do takes.
func (l *load) during(t *testing.T, workers int, do func()) {
	t.Helper()
	l.run(t, workers)
	defer l.stop()
	do()
}

// repeat lets the load go on for a time and does something again and again meanwhile.
func (l *load) repeat(total, every time.Duration, do func()) {
	for end := time.Now().Add(total); time.Now().Before(end) && l.pause(every); {
		do()
	}
}

// stop lets no new calls begin and returns when all have their final answers.
func (l *load) stop() {
	close(l.stopping)
	l.running.Wait()
}

func (l *load) work(t *testing.T, rnd *rand.Rand) {
	for {
		select {
		case <-l.stopping:
			return
		default:
		}
		a := l.accounts[0]
		if rnd.IntN(10) >= 4 {
			a = l.accounts[1+rnd.IntN(len(l.accounts)-1)]
		}
		c := l.next(a, rnd)
		if c == nil {
			l.peek(a, rnd)
			continue
		}
		l.history.Add(c)
		if c.Key == "" || rnd.IntN(20) > 0 {
			l.settle(c, a, rnd)
			continue
		}
		var twice sync.WaitGroup
		for range 2 {
			mine := rand.New(rand.NewPCG(rnd.Uint64(), 0))
			twice.Go(func() { l.settle(c, a, mine) })
		}
		twice.Wait()
	}
}

// next makes up a call; nil is an advisory look at the balance, which is no part of the history.
func (l *load) next(a *account, rnd *rand.Rand) *faults.Call {
	steps := func(most credit.Amount) credit.Amount { return 1 + credit.Amount(rnd.Int64N(int64(most))) }
	change := func(what string, body map[string]any) *faults.Call {
		g := a.grant(rnd)
		if g == "" {
			return nil
		}
		body["reason"] = "test"
		return l.call(faults.Change, a, "/v1/grants/"+g+"/"+what, body)
	}
	switch n := rnd.IntN(100); {
	case n < 76:
		dims := credit.Dimensions{"model": []string{"a", "b", "c"}[rnd.IntN(3)]}
		if rnd.IntN(4) == 0 {
			dims = nil
		}
		return consume(a.id, steps(4*one), dims)
	case n < 85:
		amount := steps(28 * one)
		body := map[string]any{"wallet": a.wallets[rnd.IntN(len(a.wallets))], "type": "granted", "amount": amount.Format(balancetest.Scale), "priority": 90 + rnd.IntN(20)}
		if rnd.IntN(3) == 0 {
			body["expires_at"] = time.Now().Add(time.Duration(200+rnd.IntN(2000)) * time.Millisecond).UTC().Format(time.RFC3339Nano)
		}
		if rnd.IntN(4) == 0 {
			body["type"], body["price"] = "purchased", map[string]any{"amount": "9.99", "currency": "USD"}
		}
		c := l.call(faults.Grant, a, "/v1/grants", body)
		c.Amount = amount
		return c
	case n < 88:
		return change("refunds", map[string]any{"units": steps(5 * one).Format(balancetest.Scale)})
	case n < 89:
		return change("void", map[string]any{})
	case n < 90:
		return change("freeze", map[string]any{})
	case n < 92:
		return change("unfreeze", map[string]any{})
	case n < 93:
		return change("extend", map[string]any{"expires_at": time.Now().Add(3 * time.Second).UTC().Format(time.RFC3339Nano)})
	case n < 96:
		return read(a.id)
	}
	return nil
}

func (l *load) call(kind faults.Kind, a *account, path string, body map[string]any) *faults.Call {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &faults.Call{Kind: kind, Key: newKey(), Customer: a.id, Path: path, Body: string(b)}
}

// settle repeats a call until it has a final answer. One in ten clients gives up when it is told that nothing was done.
func (l *load) settle(c *faults.Call, a *account, rnd *rand.Rand) (got faults.Attempt) {
	patience := rnd.IntN(10) > 0
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); {
		p := l.process(rnd)
		got = l.rig.call(context.Background(), p, c)
		if !patience && got.Undecided() {
			l.mu.Lock()
			l.abandoned[c] = true
			l.mu.Unlock()
			return got
		}
		if got.Final() {
			if c.Kind == faults.Grant && got.Status < 300 {
				var doc struct {
					ID string `json:"id"`
				}
				if json.Unmarshal([]byte(got.Body), &doc) == nil {
					a.know(doc.ID)
				}
			}
			return got
		}
		time.Sleep(time.Duration(5+rnd.IntN(40)) * time.Millisecond)
	}
	return got
}

// peek asks for the advisory balance.
func (l *load) peek(a *account, rnd *rand.Rand) {
	l.rig.send(context.Background(), l.process(rnd), &faults.Call{Kind: faults.Read, Path: "/v1/customers/" + a.id.String() + "/balances"})
}

func (l *load) process(rnd *rand.Rand) *process {
	return l.rig.processes[rnd.IntN(len(l.rig.processes))]
}

func (l *load) gaveUp(c *faults.Call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.abandoned[c]
}

// answers sums up how attempts were answered.
type answers struct {
	calls, attempts int
	per             float64 // final answers per second
	p50, p99, max   time.Duration
	byCode          map[string]int // "no answer" among them
}

func (l *load) answers(from, to time.Duration) answers {
	s := answers{byCode: make(map[string]int)}
	var took []time.Duration
	for _, c := range l.history.Calls() {
		for _, a := range c.Attempts() {
			if a.Sent < from || a.Sent > to {
				continue
			}
			s.attempts++
			code := a.Code
			switch {
			case a.Err != nil:
				code = "no answer"
			case code == "":
				code = fmt.Sprint(a.Status)
			}
			s.byCode[code]++
			if a.Err == nil {
				took = append(took, a.Answered-a.Sent)
			}
			if a.Final() {
				s.calls++
			}
		}
	}
	slices.Sort(took)
	if n := len(took); n > 0 {
		s.p50, s.p99, s.max = took[n/2], took[n*99/100], took[n-1]
	}
	s.per = float64(s.calls) / (to - from).Seconds()
	return s
}

func (s answers) String() string {
	return fmt.Sprintf("%d final answers in %d attempts, %.0f/s, p50 %s, p99 %s, max %s, %v", s.calls, s.attempts, s.per,
		s.p50.Round(100*time.Microsecond), s.p99.Round(100*time.Microsecond), s.max.Round(time.Millisecond), s.byCode)
}

func (l *load) now() time.Duration { return time.Since(l.history.Start) }
