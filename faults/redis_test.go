package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/faults"
)

// TestRedis breaks Redis, the way to it and what is in it. No answer depends on any of that: everything is answered, and at once.
func TestRedis(t *testing.T) {
	r := newRig(t, 3, false)
	cache := r.cacheClient(t)
	ctx := context.Background()

	// carryOn runs a load while do breaks something, and wants every attempt answered and none of them late.
	carryOn := func(t *testing.T, do func(*load)) *load {
		t.Helper()
		l := r.newLoad(t, customers, seed())
		l.during(t, workers, func() {
			l.pause(300 * time.Millisecond)
			do(l)
		})
		s := l.answers(0, l.now())
		for code, n := range s.byCode {
			if code == "no answer" || code == "not_executed" || code == "outcome_unknown" || code == "internal" {
				t.Errorf("%d attempts were answered %s", n, code)
			}
		}
		if s.max > 2*time.Second {
			t.Errorf("an attempt took %s", s.max)
		}
		return l
	}

	t.Run("is emptied", func(t *testing.T) {
		l := carryOn(t, func(l *load) { l.repeat(long(2*time.Second), 50*time.Millisecond, func() { cache.FlushAll(ctx) }) })
		r.settled(t, l)
	})

	t.Run("forgets the scripts", func(t *testing.T) {
		l := carryOn(t, func(l *load) { l.repeat(long(time.Second), 50*time.Millisecond, func() { cache.ScriptFlush(ctx) }) })
		r.settled(t, l)
	})

	t.Run("is killed", func(t *testing.T) {
		l := carryOn(t, func(l *load) {
			l.repeat(long(2*time.Second), 500*time.Millisecond, func() {
				if err := r.stack.Redis.Kill(); err != nil {
					t.Fatal(err)
				}
				l.pause(300 * time.Millisecond)
				if err := r.stack.Redis.Restart(ctx); err != nil {
					t.Fatal(err)
				}
			})
		})
		r.settled(t, l)
	})

	t.Run("is frozen", func(t *testing.T) {
		l := carryOn(t, func(l *load) {
			l.repeat(long(2*time.Second), 300*time.Millisecond, func() {
				if err := r.stack.Redis.Pause(); err != nil {
					t.Fatal(err)
				}
				l.pause(700 * time.Millisecond)
				if err := r.stack.Redis.Resume(); err != nil {
					t.Fatal(err)
				}
			})
		})
		r.settled(t, l)
	})

	t.Run("is cut off", func(t *testing.T) {
		l := carryOn(t, func(l *load) {
			from := l.now()
			var mend []func()
			for _, p := range r.processes {
				mend = append(mend, p.redis.cut(t))
			}
			l.pause(max(2*time.Second, long(0)))
			for _, m := range mend {
				m()
			}
			t.Logf("cut off: %s", l.answers(from, l.now()))
			hints := r.processes[0].metric(t, "tallystick_balance_cache_hint_ok_total")
			back := l.now()
			waitFor(t, 5*time.Second, "hints are back", func() bool {
				return r.processes[0].metric(t, "tallystick_balance_cache_hint_ok_total") > hints
			})
			t.Logf("hints were back after %s", l.now()-back)
		})
		r.settled(t, l)
	})

	// A copy of what was cached is kept, and Redis is started with it later. Nothing in it is used when it is older than it may be, and the
	// sweeper finds and repairs what is still used.
	t.Run("is restored from an old copy", func(t *testing.T) {
		dump := filepath.Join(r.stack.Dir, "redis", "dump.rdb")
		defer os.Remove(dump)
		l := carryOn(t, func(l *load) {
			if err := cache.Save(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			old, err := os.ReadFile(dump)
			if err != nil {
				t.Fatal(err)
			}
			l.pause(time.Second)
			if err := r.stack.Redis.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dump, old, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := r.stack.Redis.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			if n := cache.DBSize(ctx).Val(); n == 0 {
				t.Error("nothing was restored")
			} else {
				t.Logf("%d entries were restored", n)
			}
			l.pause(500 * time.Millisecond)
		})
		r.sweepCache(t)
		r.settled(t, l)
	})

	t.Run("has something else in it", func(t *testing.T) {
		spoil := []func(key string){
			func(key string) { cache.HSet(ctx, key, "a1", "900000000000") },
			func(key string) { cache.HSet(ctx, key, "a1", "-1") },
			func(key string) { cache.HSet(ctx, key, "a1", "0") },
			func(key string) { cache.HSet(ctx, key, "v", "1") },
			func(key string) { cache.HSet(ctx, key, "v", "999999999") },
			func(key string) { cache.HSet(ctx, key, "e", "FFFFFFFF") },
			func(key string) { cache.HSet(ctx, key, "n", "many") },
			func(key string) { cache.HDel(ctx, key, "n") },
			func(key string) { cache.Persist(ctx, key) },
			func(key string) { cache.Set(ctx, key, "garbage", 0) },
			func(key string) { cache.Del(ctx, key); cache.RPush(ctx, key, "x") },
		}
		l := carryOn(t, func(l *load) {
			rnd := rand.New(rand.NewPCG(l.seed, 99))
			l.repeat(long(2*time.Second), 5*time.Millisecond, func() {
				a := l.accounts[rnd.IntN(len(l.accounts))]
				spoil[rnd.IntN(len(spoil))]("b:{" + a.id.String() + "}")
			})
		})
		for i, a := range l.accounts { // and once more when all is quiet
			spoil[i%len(spoil)]("b:{" + a.id.String() + "}")
		}
		drift := r.sweepCache(t)
		if len(drift.Differ) == 0 {
			t.Error("the sweeper found nothing wrong")
		}
		r.settled(t, l)
	})

	t.Run("has no room", func(t *testing.T) {
		if err := cache.ConfigSet(ctx, "maxmemory", "2mb").Err(); err != nil {
			t.Fatal(err)
		}
		defer cache.ConfigSet(ctx, "maxmemory", "256mb")
		for i := range 3000 { // as other customers' entries would
			cache.Set(ctx, fmt.Sprintf("b:{%s}", credit.NewID[credit.CustomerID]()), strings.Repeat("x", 1000), time.Duration(1+i%5)*time.Second)
		}
		l := carryOn(t, func(l *load) {
			l.repeat(long(1500*time.Millisecond), time.Millisecond, func() {
				cache.Set(ctx, fmt.Sprintf("b:{%s}", credit.NewID[credit.CustomerID]()), strings.Repeat("x", 1000), 3*time.Second)
			})
		})
		var evicted int
		for line := range strings.Lines(cache.Info(ctx, "stats").Val()) {
			if n, ok := strings.CutPrefix(strings.TrimSpace(line), "evicted_keys:"); ok {
				if _, err := fmt.Sscan(n, &evicted); err != nil {
					t.Fatal(err)
				}
			}
		}
		t.Logf("%d keys were evicted", evicted)
		if evicted == 0 {
			t.Error("nothing was evicted")
		}
		r.sweepCache(t) // what is not ours goes
		r.settled(t, l)
	})

	t.Run("is not there when a process starts", func(t *testing.T) {
		if err := r.stack.Redis.Kill(); err != nil {
			t.Fatal(err)
		}
		r.processes[0].restart(t)
		l := r.newLoad(t, 4, seed())
		c := l.begin(consume(l.accounts[0].id, one, nil))
		if a := r.call(ctx, r.processes[0], c); a.Status != 200 {
			t.Errorf("%+v", a)
		}
		if err := r.stack.Redis.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		t.Log(r.mustBeSound(t, l.history, func(*faults.Call) bool { return false }))
	})
}
