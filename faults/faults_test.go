package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/faults"
	"github.com/tallystick/tallystick/faults/failpoint"
)

// long is how long a case goes on: a moment, or in "make soak" TALLYSTICK_SOAK_SECONDS.
func long(short time.Duration) time.Duration {
	if s, err := strconv.Atoi(os.Getenv("TALLYSTICK_SOAK_SECONDS")); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	return short
}

// seed is another one in every run, unless TALLYSTICK_SEED is set; each case prints it. It fixes what clients ask, not how processes race.
func seed() uint64 {
	if s, err := strconv.ParseUint(os.Getenv("TALLYSTICK_SEED"), 10, 64); err == nil {
		return s
	}
	return uint64(time.Now().UnixNano())
}

const (
	customers = 12
	workers   = 12
)

// settled ends a case: what was answered, and that everything is sound.
func (r *rig) settled(t *testing.T, l *load) {
	t.Helper()
	t.Log(l.answers(0, l.now()))
	t.Log(r.mustBeSound(t, l.history, l.gaveUp))
}

// TestProcesses kills and freezes API processes.
func TestProcesses(t *testing.T) {
	r := newRig(t, 3, false)

	t.Run("nothing is wrong", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		l.during(t, workers, func() { l.pause(long(1500 * time.Millisecond)) })
		r.settled(t, l)
	})

	t.Run("killed at random", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		kills := 0
		l.during(t, workers, func() {
			l.repeat(long(3*time.Second), 150*time.Millisecond, func() {
				if r.processes[rand.IntN(len(r.processes))].signal(syscall.SIGKILL) {
					kills++
				}
			})
		})
		t.Logf("%d kills", kills)
		r.settled(t, l)
	})

	t.Run("killed at every step", func(t *testing.T) {
		want := 1
		if os.Getenv("TALLYSTICK_SOAK_SECONDS") != "" {
			want = 20
		}
		hits := func(step string) (n int) {
			for _, p := range r.processes {
				n += p.hit(step)
			}
			return n
		}
		var turn atomic.Int64
		for _, p := range r.processes {
			p.mu.Lock()
			clear(p.hits)
			p.mu.Unlock()
			p.next(func() []string { // each start is for the step hit least, and the processes are for different ones
				steps := slices.Clone(balance.Steps)
				slices.SortStableFunc(steps, func(a, b string) int { return hits(a) - hits(b) })
				step := steps[int(turn.Add(1))%min(3, len(steps))]
				return []string{failpoint.EnvPoints + "=" + step + "=kill:0.3"}
			})
		}
		for _, p := range r.processes {
			p.signal(syscall.SIGKILL)
		}
		cache := r.cacheClient(t)
		l := r.newLoad(t, customers, seed())
		all := func() bool {
			return !slices.ContainsFunc(balance.Steps, func(step string) bool { return hits(step) < want })
		}
		l.during(t, workers, func() {
			for end := time.Now().Add(max(30*time.Second, 10*long(0))); !all() && time.Now().Before(end) && l.pause(100*time.Millisecond); {
				r.endLanes(t)                        // so that batches are run again
				cache.FlushAll(context.Background()) // so that balances are filled
			}
			for _, p := range r.processes {
				p.restart(t)
			}
		})
		for _, step := range balance.Steps {
			if hits(step) < want {
				t.Errorf("%s was hit %d times, not %d", step, hits(step), want)
			}
		}
		r.settled(t, l)
	})

	t.Run("frozen at every step", func(t *testing.T) {
		for i, p := range r.processes {
			var points []string
			for _, step := range []string{"locked", "decided", "sent", "committed", "published", "pushing"} {
				points = append(points, step+"=stop:0.01")
			}
			if i > 0 { // one is always there
				p.restart(t, failpoint.EnvPoints+"="+strings.Join(points, ","))
			}
		}
		l := r.newLoad(t, customers, seed())
		var stops atomic.Int64
		for _, p := range r.processes[1:] {
			w := p.watch()
			l.running.Go(func() {
				for {
					select {
					case <-w:
						stops.Add(1)
						time.Sleep(1200 * time.Millisecond) // longer than a transaction may lie idle
						p.signal(syscall.SIGCONT)
					case <-l.stopping:
						for _, p := range r.processes {
							p.next(nil)
							p.signal(syscall.SIGKILL)
						}
						return
					}
				}
			})
		}
		l.during(t, workers, func() { l.pause(long(4 * time.Second)) })
		t.Logf("%d stops", stops.Load())
		if stops.Load() == 0 {
			t.Error("no process was frozen")
		}
		for _, p := range r.processes {
			p.await(t)
		}
		r.settled(t, l)
	})

	// One process is frozen with a customer locked: others wait at most for as long as a transaction may lie idle, and only those who ask
	// for that customer.
	t.Run("frozen with a customer locked", func(t *testing.T) {
		l := r.newLoad(t, 4, seed())
		frozen, other := r.processes[0], r.processes[1]
		frozen.restart(t, failpoint.EnvPoints+"=locked=stop:1")
		hit := frozen.watch()
		locked := consume(l.accounts[0].id, one, nil)
		l.history.Add(locked)
		go r.call(context.Background(), frozen, locked)
		<-hit
		began := time.Now()
		var slowest time.Duration
		done := make(chan faults.Attempt, 1)
		mine := consume(l.accounts[0].id, one, nil)
		l.history.Add(mine)
		go func() { done <- r.call(context.Background(), other, mine) }()
		for waiting := true; waiting; {
			select {
			case a := <-done:
				if a.Status != 200 {
					t.Errorf("the locked customer: %+v", a)
				}
				waiting = false
			default:
				c := consume(l.accounts[1+rand.IntN(3)].id, one/1000, nil)
				l.history.Add(c)
				if a := r.call(context.Background(), other, c); a.Status != 200 {
					t.Errorf("another customer: %+v", a)
				} else {
					slowest = max(slowest, a.Answered-a.Sent)
				}
			}
		}
		waited := time.Since(began)
		t.Logf("the locked customer waited %s, another at most %s", waited, slowest)
		if waited > 3*time.Second || slowest > 500*time.Millisecond {
			t.Error("that is too long")
		}
		frozen.next(nil)
		frozen.signal(syscall.SIGKILL)
		frozen.await(t)
		l.settle(locked, l.accounts[0], rand.New(rand.NewPCG(1, 1)))
		r.settled(t, l)
	})

	t.Run("its clock is wrong", func(t *testing.T) {
		l := r.newLoad(t, 4, seed())
		for _, offset := range []string{"5m", "-5m"} {
			p := r.processes[0]
			p.restart(t, failpoint.EnvClock+"="+offset)
			for range 10 {
				c := consume(l.accounts[0].id, one, nil)
				l.history.Add(c)
				if a := r.call(context.Background(), p, c); a.Status != 503 || a.Code != string(credit.ClockSkew) {
					t.Errorf("%s: %+v", offset, a)
				}
			}
		}
		r.processes[0].restart(t)
		t.Log(r.mustBeSound(t, l.history, func(*faults.Call) bool { return true }))
	})

	t.Run("one key, many calls", func(t *testing.T) {
		l := r.newLoad(t, 2, seed())
		c := consume(l.accounts[0].id, one, nil)
		l.history.Add(c)
		var calls sync.WaitGroup
		for i := range 200 {
			calls.Go(func() {
				if a := r.call(context.Background(), r.processes[i%len(r.processes)], c); a.Status != 200 {
					t.Errorf("%+v", a)
				}
			})
		}
		calls.Wait()
		for name, other := range map[string]*faults.Call{
			"another body": consume(c.Customer, 2*one, nil), "another customer": consume(l.accounts[1].id, one, nil),
		} {
			other.Key = c.Key
			if a := r.send(context.Background(), r.processes[1], other); a.Status != 422 || a.Code != string(credit.RequestMismatch) {
				t.Errorf("%s: %+v", name, a)
			}
		}
		r.settled(t, l)
	})

	t.Run("grants expire under load", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		var ops []balance.Operation
		ends := time.Now().Add(2500 * time.Millisecond)
		for i := range 1000 {
			a := l.accounts[i%len(l.accounts)]
			ops = append(ops, &balance.CreateGrant{Header: balance.Header{Customer: a.id, Key: r.Key()}, Grant: credit.Grant{
				ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: a.wallets[0]}, Type: credit.Granted, Priority: 1, Amount: one / 10,
				RatePolicy: credit.Floating, ExpiresAt: ends.Add(time.Duration(i) * 100 * time.Microsecond),
			}})
		}
		for _, result := range r.Service.DoAll(context.Background(), ops) {
			if result.Err != nil {
				t.Fatal(result.Err)
			}
		}
		l.during(t, workers, func() { l.pause(time.Until(ends) + time.Second) })
		waitFor(t, 5*time.Second, "all of them have expired", func() bool {
			r.sweep(context.Background(), t)
			var open int
			if err := r.Store.Pool.QueryRow(context.Background(), "SELECT count(*) FROM grants WHERE status = 'open' AND NOT frozen AND expires_at < now()").Scan(&open); err != nil {
				t.Fatal(err)
			}
			return open == 0
		})
		r.settled(t, l)
	})

	t.Run("one grant, many refunds", func(t *testing.T) {
		l := r.newLoad(t, 1, seed())
		a := l.accounts[0]
		g := r.Grant(t, a.id, a.wallets[0], 10*one, func(o *balance.CreateGrant) {
			o.Grant.Type, o.Grant.Price = credit.Purchased, credit.Money{Minor: 1000, Currency: "USD"}
		})
		var refunded, refused atomic.Int64
		var calls sync.WaitGroup
		for i := range 50 {
			c := l.call(faults.Change, a, "/v1/grants/"+g.String()+"/refunds", map[string]any{"units": "0.3", "reason": "test"})
			l.history.Add(c)
			calls.Go(func() {
				switch got := r.call(context.Background(), r.processes[i%len(r.processes)], c); got.Status {
				case 201:
					refunded.Add(1)
				case 409:
					refused.Add(1)
				default:
					t.Errorf("%+v", got)
				}
			})
		}
		calls.Wait()
		v := r.View(t, g)
		if refunded.Load() != 33 || refused.Load() != 17 || v.Refunded != 33*3*one/10 || v.Available != one/10 {
			t.Errorf("%d refunded, %d refused, the grant is %+v", refunded.Load(), refused.Load(), v)
		}
		r.settled(t, l)
	})

	t.Run("amounts of all sizes", func(t *testing.T) {
		l := r.newLoad(t, 1, seed())
		a, wallet := l.accounts[0], l.accounts[0].wallets[0]
		l.settle(l.begin(consume(a.id, 30*one, nil)), a, rand.New(rand.NewPCG(1, 1))) // now there is nothing left in it
		for range 3 {                                                                 // beyond 2^53 together
			r.Grant(t, a.id, wallet, credit.MaxAmount)
		}
		for _, text := range []string{"0", "-1", "1e3", "NaN", "Infinity", "0.0000001", "9007199254.740992", "1.", ".5", "+1", " 1", "", "1,5", "0x10",
			strings.Repeat("9", 400)} {
			c := consume(a.id, one, nil)
			c.Body = strings.Replace(c.Body, `"amount":"1"`, fmt.Sprintf(`"amount":%q`, text), 1)
			if got := r.send(context.Background(), r.processes[0], c); got.Status != 400 {
				t.Errorf("%q: %+v", text, got)
			}
		}
		left := 3*credit.MaxAmount + 30*one // what is in the other wallet may not serve this
		for _, amount := range []credit.Amount{1, credit.MaxAmount, 1, 100_000_000_000_000, 123_456_789_012_345, credit.MaxAmount - 1} {
			c := l.begin(consume(a.id, amount, nil))
			got := r.call(context.Background(), r.processes[0], c)
			left -= amount
			var doc balance.ConsumeReceipt
			if err := json.Unmarshal([]byte(got.Body), &doc); err != nil || got.Status != 200 || doc.Amount != amount.Format(6) || doc.Available != left.Format(6) {
				t.Fatalf("%d: %+v, %v; %s are left", amount, got, err, left.Format(6))
			}
		}
		r.settled(t, l)
	})
}

// begin adds a call to the history.
func (l *load) begin(c *faults.Call) *faults.Call {
	l.history.Add(c)
	return c
}

// endLanes ends the sessions in which API processes decide.
func (r *rig) endLanes(t *testing.T) {
	t.Helper()
	if _, err := r.owner(t).Exec(context.Background(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'tallystick lane'`); err != nil {
		t.Log(err)
	}
}
