package balance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/devstack/stacktest"
)

func testCache(t testing.TB) *Cache {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: stacktest.RedisAddr(t), MaxRetries: -1, ReadTimeout: 10 * time.Second})
	t.Cleanup(func() { _ = rdb.Close() })
	c := NewCache(rdb)
	c.scale = func(string) int { return 6 }
	for _, s := range []*redis.Script{loadScript, confirmScript, proposeScript} {
		if err := s.Load(context.Background(), rdb).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// world makes random customers whose grants, wallets, scopes and clocks are close enough to each other to matter.
type world struct {
	*rand.Rand
	now time.Time
}

var (
	someDims    = []string{"model", "product", "region"}
	someValues  = []string{"a", "b", "a b", "é", "x=y", "%d"}
	someUnits   = []string{"CRD", "IMG"}
	someMembers = []credit.MemberID{{}, {1}, {2}}
)

func (w world) scope() credit.Scope {
	if w.IntN(3) > 0 {
		return nil
	}
	s := credit.Scope{}
	for range 1 + w.IntN(2) {
		var values []string
		for range 1 + w.IntN(3) {
			values = append(values, someValues[w.IntN(len(someValues))])
		}
		s[someDims[w.IntN(len(someDims))]] = values
	}
	return s
}

func (w world) amount() credit.Amount {
	switch w.IntN(8) {
	case 0:
		return credit.MaxAmount - credit.Amount(w.IntN(3))
	case 1:
		return 100_000_000_000_000 + credit.Amount(w.IntN(3)) // where Lua's tostring loses digits
	case 2:
		return credit.Amount(w.Int64N(int64(credit.MaxAmount))) + 1
	}
	return credit.Amount(w.IntN(12))
}

func (w world) customer() *snapshot {
	s := &snapshot{epoch: fmt.Sprintf("%08X", w.IntN(3)), ver: w.Int64N(1 << 40), seen: time.Now(), wallets: map[credit.WalletID]*credit.Wallet{}}
	var wallets []*credit.Wallet
	for i := range 1 + w.IntN(3) {
		wl := &credit.Wallet{ID: credit.WalletID{byte(i), 1}, Unit: someUnits[w.IntN(2)*w.IntN(2)], Priority: w.IntN(2), Scope: w.scope()}
		wallets = append(wallets, wl)
		s.wallets[wl.ID] = wl
	}
	for i := range w.IntN(9) {
		g := &credit.Grant{
			ID: credit.GrantID{byte(i), byte(w.IntN(255))}, Wallet: wallets[w.IntN(len(wallets))], Type: credit.Granted, Status: credit.StatusOpen,
			Frozen: w.IntN(12) == 0, Priority: w.IntN(3), Scope: w.scope(), MemberID: someMembers[max(0, w.IntN(5)-2)],
			EffectiveAt: w.now.Add(time.Duration(w.IntN(5)-3) * time.Microsecond), Amount: credit.MaxAmount, Available: w.amount(),
		}
		if w.IntN(2) == 0 {
			g.ExpiresAt = w.now.Add(time.Duration(w.IntN(5)-1) * time.Microsecond)
		}
		if w.IntN(10) == 0 {
			g.RateVersion = 1 + w.IntN(2)
		}
		if w.IntN(10) == 0 {
			g.Type = credit.Overage
		}
		s.grants = append(s.grants, g)
	}
	slices.SortFunc(s.grants, credit.CompareDrawOrder)
	return s
}

func (w world) wish() wish {
	dims := credit.Dimensions{}
	for range w.IntN(4) {
		dims[someDims[w.IntN(len(someDims))]] = someValues[w.IntN(len(someValues))]
	}
	return wish{amount: max(1, w.amount()), unit: someUnits[w.IntN(2)*w.IntN(2)], member: someMembers[w.IntN(3)], fixed: w.IntN(2) == 0, dims: dims}
}

// expected is what propose.lua should reply to a wish, by credit.Select; it takes the draws from the grants.
func expected(s *snapshot, w wish, now time.Time) string {
	need := credit.Need{At: now, Unit: w.unit, Member: w.member, Dims: w.dims}
	floating := true
	need.Cost = func(at credit.RateLock) (credit.Amount, error) {
		floating = floating && at.Version == 0
		return w.amount, nil
	}
	sel, err := credit.Select(s.grants, need, nil)
	if err != nil {
		return err.Error()
	}
	if !floating && !w.fixed {
		return "M" // a locked grant is in the way: only the decision knows what it costs
	}
	if sel.Short > 0 {
		return "D"
	}
	var plan []string
	for _, d := range sel.Draws {
		plan = append(plan, strconv.Itoa(1+slices.Index(s.grants, d.Grant))+":"+strconv.FormatInt(int64(d.Amount), 10))
		d.Grant.Available -= d.Amount
	}
	return "O" + strings.Join(plan, ",")
}

// TestProposeIsSelect holds the draw-down of propose.lua against that of package credit on random states, several requests in a row on
// each. TALLYSTICK_LUA_STATES sets how many states (20,000), TALLYSTICK_SEED which.
func TestProposeIsSelect(t *testing.T) {
	states, seed := envInt(t, "TALLYSTICK_LUA_STATES", 20_000), uint64(envInt(t, "TALLYSTICK_SEED", 1))
	c, ctx := testCache(t), context.Background()
	w := world{rand.New(rand.NewPCG(seed, 7)), time.UnixMicro(1_790_000_000_123_456).UTC()}
	const round = 250
	hints := map[byte]int{}
	for done := 0; done < states; done += round {
		snaps := make(map[credit.CustomerID]*snapshot, round)
		var proposals []*proposal
		var want [][]string
		for i := range round {
			id, s := credit.CustomerID{0xf0, byte(i), byte(i >> 8), 3}, w.customer()
			s.epoch = fmt.Sprintf("%08X", done) // later rounds replace earlier ones
			snaps[id] = s
			p := &proposal{customer: id}
			for range 1 + w.IntN(4) {
				p.wishes = append(p.wishes, w.wish())
			}
			proposals = append(proposals, p)
		}
		if err := c.load(ctx, formed(snaps)); err != nil {
			t.Fatal(err)
		}
		for _, p := range proposals {
			var replies []string
			for _, wish := range p.wishes {
				replies = append(replies, expected(snaps[p.customer], wish, w.now))
			}
			want = append(want, replies)
		}
		if err := c.propose(ctx, w.now, proposals); err != nil {
			t.Fatal(err)
		}
		for i, p := range proposals {
			if !slices.Equal(p.plans, want[i]) {
				t.Fatalf("seed %d, state %d: Lua says %q, Go says %q\nwishes %+v\ngrants %s", seed, done+i, p.plans, want[i], p.wishes, describe(snaps[p.customer]))
			}
			for _, plan := range p.plans {
				hints[plan[0]]++
			}
			// and what is left in the cache is what is left of the grants
			left, err := c.rdb.HGetAll(ctx, cacheKey(p.customer)).Result()
			if err != nil {
				t.Fatal(err)
			}
			for k, g := range snaps[p.customer].grants {
				if left["a"+strconv.Itoa(k+1)] == strconv.FormatInt(int64(g.Available), 10) {
					continue
				}
				t.Fatalf("seed %d, state %d: the cache has %v, left is %s", seed, done+i, left, describe(snaps[p.customer]))
			}
		}
	}
	t.Logf("%d states, seed %d: %d paid, %d denied, %d left to the decision", states, seed, hints['O'], hints['D'], hints['M'])
	if hints['O'] == 0 || hints['D'] == 0 || hints['M'] == 0 {
		t.Fatal("the states do not reach every reply")
	}
}

// formed completes snapshots for the cache.
func formed(snaps map[credit.CustomerID]*snapshot) map[credit.CustomerID]*snapshot {
	for _, s := range snaps {
		s.form = newForm(s)
	}
	return snaps
}

func describe(s *snapshot) string {
	var b strings.Builder
	for _, g := range s.grants {
		fmt.Fprintf(&b, "\n  %s %q available %d version %d", g.ID, grantInfo(g), g.Available, g.RateVersion)
	}
	return b.String()
}

func envInt(t testing.TB, name string, def int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, v)
	}
	return n
}

func TestLoadNeverGoesBack(t *testing.T) {
	c, ctx := testCache(t), context.Background()
	id := credit.NewID[credit.CustomerID]()
	at := func(epoch string, ver int64, available credit.Amount) map[credit.CustomerID]*snapshot {
		wl := &credit.Wallet{ID: credit.WalletID{9}, Unit: "CRD"}
		return map[credit.CustomerID]*snapshot{id: {epoch: epoch, ver: ver, seen: time.Now(), wallets: map[credit.WalletID]*credit.Wallet{wl.ID: wl},
			grants: []*credit.Grant{{ID: credit.GrantID{1}, Wallet: wl, Available: available}}}}
	}
	for _, step := range []struct {
		epoch string
		ver   int64
		put   credit.Amount
		want  string
	}{
		{"00000001", 9, 90, "90"},
		{"00000001", 8, 80, "90"},    // older
		{"00000001", 10, 100, "100"}, // newer, though less as text
		{"00000001", 10, 101, "101"}, // the same version repairs
		{"00000001", 9, 90, "101"},
		{"0000000A", 3, 30, "30"}, // after a failover
		{"00000001", 11, 110, "30"},
		{"0000000A", 1 << 60, 40, "40"},
	} {
		if err := c.load(ctx, formed(at(step.epoch, step.ver, step.put))); err != nil {
			t.Fatal(err)
		}
		if got := c.rdb.HGet(ctx, cacheKey(id), "a1").Val(); got != step.want {
			t.Fatalf("after (%s, %d) = %d the cache has %s, want %s", step.epoch, step.ver, step.put, got, step.want)
		}
	}
	// A confirmation is as good as a load of the same, and refused where another shape or epoch is cached.
	next := at("0000000A", 1<<60+1, 50)
	formed(next)[id].amountsOnly = true
	if again, err := c.store(ctx, next, true); err != nil || len(again) > 0 || c.rdb.HGet(ctx, cacheKey(id), "a1").Val() != "50" || c.rdb.HGet(ctx, cacheKey(id), "v").Val() != "1152921504606846977" {
		t.Fatalf("confirming: %v, %v, %v", again, err, c.rdb.HGetAll(ctx, cacheKey(id)).Val())
	}
	old := at("0000000A", 1<<60, 40)
	formed(old)[id].amountsOnly = true
	if again, err := c.store(ctx, old, true); err != nil || len(again) > 0 || c.rdb.HGet(ctx, cacheKey(id), "a1").Val() != "50" {
		t.Fatalf("confirming an old version: %v, %v", again, err)
	}
	other := at("0000000A", 1<<60+2, 60)
	other[id].grants[0].Scope = credit.Scope{"model": {"a"}}
	formed(other)[id].amountsOnly = true
	if again, err := c.store(ctx, other, true); err != nil || len(again) != 1 || again[id].amountsOnly {
		t.Fatalf("confirming another shape: %v, %v", again, err)
	}
	ttl := c.rdb.PTTL(ctx, cacheKey(id)).Val()
	if ttl <= 0 || ttl > cacheTTL {
		t.Fatalf("time to live is %s", ttl)
	}
}

// TestProposeDistrustsTheCache puts all sorts of things where a snapshot should be: the reply is a miss, and never an error that lasts.
func TestProposeDistrustsTheCache(t *testing.T) {
	c, ctx := testCache(t), context.Background()
	id := credit.NewID[credit.CustomerID]()
	key := cacheKey(id)
	w := world{rand.New(rand.NewPCG(5, 5)), time.Now()}
	good := w.customer()
	for len(good.grants) < 2 {
		good = w.customer()
	}
	fresh := func() {
		c.rdb.Del(ctx, key)
		if err := c.load(ctx, formed(map[credit.CustomerID]*snapshot{id: good})); err != nil {
			t.Fatal(err)
		}
	}
	spoils := map[string]func(){
		"a string":        func() { c.rdb.Set(ctx, key, "garbage", time.Second) },
		"a list":          func() { c.rdb.Del(ctx, key); c.rdb.RPush(ctx, key, "x") },
		"no time to live": func() { c.rdb.Persist(ctx, key) },
		"a long life":     func() { c.rdb.PExpire(ctx, key, time.Hour) },
		"no count":        func() { c.rdb.HDel(ctx, key, "n") },
		"huge count":      func() { c.rdb.HSet(ctx, key, "n", "1000000") },
		"half a count":    func() { c.rdb.HSet(ctx, key, "n", "1.5") },
		"missing amount":  func() { c.rdb.HDel(ctx, key, "a1") },
		"amount of words": func() { c.rdb.HSet(ctx, key, "a1", "plenty") },
		"negative amount": func() { c.rdb.HSet(ctx, key, "a1", "-5") },
		"no version":      func() { c.rdb.HDel(ctx, key, "v") },
		"torn info":       func() { c.rdb.HSet(ctx, key, "i1", "CRD\x1d12") },
		"info of bytes":   func() { c.rdb.HSet(ctx, key, "i1", "\x00\xff\x1d\x1d\x1d\x1d\x1d\x1d\x1d") },
		"shown as words":  func() { c.rdb.HSet(ctx, key, "j", "plenty", "a1", "-1") },
	}
	for name, spoil := range spoils {
		fresh()
		spoil()
		p := &proposal{customer: id, wishes: []wish{{amount: credit.MaxAmount, unit: "CRD", fixed: true}}}
		_ = c.propose(ctx, w.now, []*proposal{p}) // an error is as good as a miss
		if h := p.hint(0); h != hintNone {
			t.Errorf("%s: the hint is %d", name, h)
		}
		if _, err := c.read(ctx, []credit.CustomerID{id}); err != nil && !isScriptError(err) {
			t.Errorf("%s: reading it: %v", name, err)
		}
	}
	fresh()
	p := &proposal{customer: id, wishes: []wish{{amount: 1, unit: "NONE", fixed: true}}}
	if err := c.propose(ctx, w.now, []*proposal{p}); err != nil || p.hint(0) != hintDeny {
		t.Fatalf("after all that a good entry gives %v, %v", p.plans, err)
	}
}

func FuzzPropose(f *testing.F) {
	f.Add("CRD", "model", "gpt", "5", "CRD\x1d-1\x1d0\x1d\x1d0\x1d\x1d\x1d", int64(3))
	f.Add("", "", "", "", "", int64(0))
	f.Add("\x1d", "\x1e", "\x1f", "1e400", "nan\x1dinf\x1d-inf\x1d%\x1d[\x1d(\x1d%f\x1d", int64(1<<53))
	c := testCache(f)
	id := credit.NewID[credit.CustomerID]()
	f.Fuzz(func(t *testing.T, unit, name, value, available, info string, amount int64) {
		ctx := context.Background()
		c.rdb.Del(ctx, cacheKey(id))
		c.rdb.HSet(ctx, cacheKey(id), "e", "00000001", "v", "1", "n", "1", "i1", info, "a1", available)
		c.rdb.PExpire(ctx, cacheKey(id), cacheTTL)
		p := &proposal{customer: id, wishes: []wish{{amount: credit.Amount(amount), unit: unit, dims: credit.Dimensions{name: value}}}}
		_ = c.propose(ctx, time.Now(), []*proposal{p})
		if !c.breaker.closed() {
			t.Fatal("a strange request opened the breaker")
		}
	})
}
