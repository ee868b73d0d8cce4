package faults_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/faults"
	"github.com/tallystick/tallystick/faults/failpoint"
)

// TestPostgres breaks Postgres and the way to it. Processes stay up through all of it.
func TestPostgres(t *testing.T) {
	r := newRig(t, 3, false)
	stayedUp := func() {
		for _, p := range r.processes {
			if p.started() != 1 {
				t.Errorf("it ended by itself: %v", p)
			}
		}
	}

	t.Run("crashes", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		var slowest time.Duration
		crashes := 0
		l.during(t, workers, func() {
			l.repeat(long(4*time.Second), 500*time.Millisecond, func() {
				crashes++
				if err := r.stack.Postgres.Kill(); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				if err := r.stack.Postgres.Restart(ctx); err != nil {
					t.Fatal(err)
				}
				slowest = max(slowest, l.untilDone(t, l.now()))
			})
		})
		t.Logf("%d crashes, the first success at most %s after recovery", crashes, slowest)
		if slowest > 3*time.Second {
			t.Error("that is too long")
		}
		r.settled(t, l)
	})

	t.Run("freezes", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		var from, to time.Duration
		l.during(t, workers, func() {
			l.pause(300 * time.Millisecond)
			from = l.now()
			if err := r.stack.Postgres.Pause(); err != nil {
				t.Fatal(err)
			}
			l.pause(max(3*time.Second, long(0)/4))
			to = l.now()
			if err := r.stack.Postgres.Resume(); err != nil {
				t.Fatal(err)
			}
			t.Logf("the first success came %s after it went on", l.untilDone(t, to))
		})
		frozen := l.answers(from, to)
		t.Logf("frozen: %s", frozen)
		for _, c := range l.history.Calls() {
			for _, a := range c.Attempts() {
				took := a.Answered - a.Sent
				if c.Kind == faults.Consume && a.Sent > from && a.Sent < to && (took > 6*time.Second || a.Err != nil) {
					t.Errorf("an attempt was answered after %s: %+v", took, a)
				}
				if a.Sent > from+100*time.Millisecond && a.Answered < to && a.Status < 300 && a.Err == nil {
					t.Errorf("an attempt was answered while Postgres was frozen: %+v", a)
				}
			}
		}
		r.settled(t, l)
	})

	t.Run("ends the sessions that decide", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		l.during(t, workers, func() { l.repeat(long(2*time.Second), 50*time.Millisecond, func() { r.endLanes(t) }) })
		r.settled(t, l)
	})

	t.Run("does not hear from a process", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		l.during(t, workers, func() {
			l.repeat(long(3*time.Second), 200*time.Millisecond, func() {
				mend := r.processes[rand.IntN(len(r.processes))].postgres.cut(t)
				l.pause(1200 * time.Millisecond)
				mend()
			})
		})
		r.settled(t, l)
	})

	t.Run("is far away and loses connections", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		for _, p := range r.processes {
			for _, link := range []*link{p.postgres, p.redis} {
				defer link.poison(t, "latency", "downstream", 1, map[string]int{"latency": 25, "jitter": 25})()
			}
		}
		l.during(t, workers, func() {
			l.repeat(long(3*time.Second), 300*time.Millisecond, func() {
				p := r.processes[rand.IntN(len(r.processes))]
				for _, link := range []*link{p.postgres, p.redis} {
					cure := link.poison(t, "reset_peer", "downstream", 1, map[string]int{"timeout": 0})
					l.pause(20 * time.Millisecond)
					cure()
				}
			})
		})
		r.settled(t, l)
	})

	// The commit takes place and its reply is lost, again and again.
	t.Run("commits and cannot say so", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		var cuts sync.WaitGroup
		before := make([]float64, len(r.processes))
		for i, p := range r.processes {
			before[i] = p.metric(t, "tallystick_balance_unknown_outcomes_total")
		}
		l.during(t, workers, func() {
			for _, p := range r.processes {
				cuts.Go(func() {
					l.repeat(long(3*time.Second), 100*time.Millisecond, func() {
						cure := p.postgres.poison(t, "limit_data", "downstream", 1, map[string]int{"bytes": 40})
						l.pause(30 * time.Millisecond)
						cure()
					})
				})
			}
			cuts.Wait()
		})
		unknown := 0.0
		for i, p := range r.processes {
			unknown += p.metric(t, "tallystick_balance_unknown_outcomes_total") - before[i]
		}
		t.Logf("%s batches with an unknown outcome", strconv.FormatFloat(unknown, 'f', 0, 64))
		if unknown == 0 {
			t.Error("no commit's reply was lost")
		}
		r.settled(t, l)
	})

	stayedUp()

	// A batch trickles towards Postgres for a quarter of a minute, long after its process has given up. No idle timeout ends such a session,
	// and it keeps a customer locked.
	t.Run("hears a batch piece by piece", func(t *testing.T) {
		l := r.newLoad(t, 4, seed())
		a, rnd, slow := l.accounts[0], rand.New(rand.NewPCG(l.seed, 0)), r.processes[0]
		slow.restart(t, failpoint.EnvPoints+"=locked=sleep(400ms):1")
		defer slow.restart(t)
		if got := r.call(context.Background(), slow, l.begin(consume(a.id, one, nil))); got.Status != 200 { // its connection is ready now
			t.Fatalf("%+v", got)
		}
		dims := make(credit.Dimensions)
		for i := range 30 {
			dims[strings.Repeat(string(rune('a'+i)), 120)] = strings.Repeat("v", 120)
		}
		locked := slow.watch()
		var call sync.WaitGroup
		call.Go(func() { r.call(context.Background(), slow, l.begin(consume(a.id, one, dims))) })
		<-locked
		cure := slow.postgres.poison(t, "bandwidth", "upstream", 1, map[string]int{"rate": 1}) // kB/s
		waitFor(t, 5*time.Second, "a session waits for the rest of a batch", func() bool {
			var n int
			if err := r.owner(t).QueryRow(context.Background(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
				AND application_name = 'tallystick lane' AND state = 'active' AND wait_event = 'ClientRead' AND backend_xid IS NOT NULL`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n > 0
		})
		began := time.Now()
		for got := (faults.Attempt{}); !got.Final() && time.Since(began) < 20*time.Second; {
			got = r.call(context.Background(), r.processes[1], l.begin(consume(a.id, 1+credit.Amount(rnd.IntN(1000)), nil)))
		}
		took := time.Since(began)
		t.Logf("the customer was free after %s", took)
		if took > 5*time.Second {
			t.Error("that is too long")
		}
		call.Wait()
		cure()
		t.Log(r.mustBeSound(t, l.history, func(*faults.Call) bool { return true }))
	})
}

// untilDone waits for a consumption that was sent and done after an instant, and returns how long after.
func (l *load) untilDone(t *testing.T, since time.Duration) time.Duration {
	t.Helper()
	a := l.accounts[len(l.accounts)-1]
	rnd := rand.New(rand.NewPCG(l.seed, uint64(since)))
	var took time.Duration
	waitFor(t, 15*time.Second, "something is done", func() bool {
		c := l.begin(consume(a.id, 1, credit.Dimensions{"model": "c"}))
		got := l.settle(c, a, rnd)
		took = got.Answered - since
		return got.Final()
	})
	return took
}
