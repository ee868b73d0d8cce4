package balance

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tallystick/tallystick/credit"
)

var (
	//go:embed load.lua
	loadLua string
	//go:embed propose.lua
	proposeLua string

	loadScript    = redis.NewScript(loadLua)
	proposeScript = redis.NewScript(proposeLua)
)

// Bounds of a cached customer.
const (
	cacheTTL     = 30 * time.Second // no entry older than this is ever used
	cachedGrants = 500              // Lua's unpack takes no more; a customer with more open grants is cached in part
)

// Cache is the copy of balances in Redis: disposable, possibly stale or wrong, never the ground of an answer that moves credits.
type Cache struct {
	rdb     redis.UniversalClient
	breaker breaker
}

// NewCache uses a Redis that may lose everything at any time. See [CacheOptions] for how to make the client.
func NewCache(rdb redis.UniversalClient) *Cache {
	c := &Cache{rdb: rdb}
	c.breaker.probe = func(ctx context.Context) error { return rdb.Ping(ctx).Err() }
	return c
}

// CacheOptions are what the client must be made with: a script call is never retried by the client, for the first try may have run, and
// nothing waits long for a hint.
func CacheOptions(addr string) *redis.Options {
	return &redis.Options{
		Addr: addr, MaxRetries: -1, DialerRetries: 1, DialTimeout: 300 * time.Millisecond, ReadTimeout: 50 * time.Millisecond,
		WriteTimeout: 50 * time.Millisecond, PoolSize: 8, DisableIdentity: true,
	}
}

// cacheKey is the customer's hash; the braces keep all of a customer in one slot of a cluster.
func cacheKey(c credit.CustomerID) string { return "b:{" + c.String() + "}" }

const fieldSeparator = "\x1d"

// cacheFields writes a snapshot as the fields that load.lua stores; propose.lua has their form.
func cacheFields(snap *snapshot) []any {
	n := min(len(snap.grants), cachedGrants)
	fields := make([]any, 0, 8+4*n)
	fields = append(fields, "n", strconv.Itoa(n))
	if n < len(snap.grants) {
		fields = append(fields, "m", "1")
	}
	var wallets strings.Builder
	for _, w := range snap.wallets {
		wallets.WriteString(w.ID.String() + " " + w.Unit + " " + strconv.Itoa(w.Priority) + "\n")
	}
	fields = append(fields, "w", wallets.String())
	for i, g := range snap.grants[:n] {
		k := strconv.Itoa(i + 1)
		fields = append(fields, "i"+k, grantInfo(g), "a"+k, strconv.FormatInt(int64(g.Available), 10))
	}
	return fields
}

func grantInfo(g *credit.Grant) string {
	till := int64(-1)
	if !g.ExpiresAt.IsZero() {
		till = g.ExpiresAt.UnixMicro()
	}
	if g.Frozen {
		till = 0
	}
	member := ""
	if !g.MemberID.IsZero() {
		member = g.MemberID.String()
	}
	return strings.Join([]string{
		g.Wallet.Unit, strconv.FormatInt(till, 10), strconv.FormatInt(g.EffectiveAt.UnixMicro(), 10), member, strconv.Itoa(g.RateVersion),
		g.Scope.Canonical(), g.Wallet.Scope.Canonical(), g.Wallet.ID.String(), string(g.Type),
	}, fieldSeparator) + fieldSeparator
}

// load stores snapshots, best effort. The time that one has waited to be stored is taken off the time it may live; instead of one that is
// too old to be stored, what is cached is dropped.
func (c *Cache) load(ctx context.Context, snaps map[credit.CustomerID]*snapshot) error {
	_, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for id, s := range snaps {
			left := (cacheTTL - time.Since(s.seen)).Milliseconds()
			if left <= 0 {
				p.Del(ctx, cacheKey(id))
				continue
			}
			args := append([]any{s.epoch, strconv.FormatInt(s.ver, 10), left}, cacheFields(s)...)
			loadScript.EvalSha(ctx, p, []string{cacheKey(id)}, args...)
		}
		return nil
	})
	return c.outcome(ctx, err)
}

// hint is what the cache thinks of a request.
type hint int8

const (
	hintNone hint = iota // not asked, not cached, or cannot tell
	hintOK
	hintDeny
)

// wish is what a request wants, for propose.lua.
type wish struct {
	amount credit.Amount
	unit   string
	member credit.MemberID
	fixed  bool // costs the same under every rate version
	dims   credit.Dimensions
}

func (w *wish) args(into []any) []any {
	member, fixed := "", "0"
	if !w.member.IsZero() {
		member = w.member.String()
	}
	if w.fixed {
		fixed = "1"
	}
	into = append(into, strconv.FormatInt(int64(w.amount), 10), w.unit, member, fixed, len(w.dims))
	for name, value := range w.dims {
		into = append(into, name, value)
	}
	return into
}

// proposal is one customer's wishes, in order, and what came of them.
type proposal struct {
	customer credit.CustomerID
	wishes   []wish
	plans    []string // propose.lua's reply for each wish; nil when the customer is not cached
	epoch    string
	ver      int64
}

func (p *proposal) hint(i int) hint {
	if i >= len(p.plans) || p.plans[i] == "" {
		return hintNone
	}
	switch p.plans[i][0] {
	case 'O':
		return hintOK
	case 'D':
		return hintDeny
	}
	return hintNone
}

// propose takes the wishes from the cached grants, tentatively. now is zero for the clock of Redis.
func (c *Cache) propose(ctx context.Context, now time.Time, proposals []*proposal) error {
	micros := int64(0)
	if !now.IsZero() {
		micros = now.UnixMicro()
	}
	cmds, err := c.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, p := range proposals {
			args := make([]any, 0, 2+6*len(p.wishes))
			args = append(args, micros, int64(cacheTTL/time.Millisecond))
			for i := range p.wishes {
				args = p.wishes[i].args(args)
			}
			proposeScript.EvalSha(ctx, pipe, []string{cacheKey(p.customer)}, args...)
		}
		return nil
	})
	for i, cmd := range cmds {
		reply, err := cmd.(*redis.Cmd).StringSlice()
		if err != nil {
			if isScriptError(err) {
				c.rdb.Del(ctx, cacheKey(proposals[i].customer))
			}
			continue
		}
		if len(reply) >= 2 {
			proposals[i].epoch, proposals[i].plans = reply[0], reply[2:]
			proposals[i].ver, _ = strconv.ParseInt(reply[1], 10, 64)
		}
	}
	return c.outcome(ctx, err)
}

// isScriptError tells whether Redis ran the script and failed on what it found, such as a key of another type.
func isScriptError(err error) bool {
	return strings.HasPrefix(err.Error(), "WRONGTYPE") || strings.Contains(err.Error(), "user_script") || strings.Contains(err.Error(), "@user_function")
}

// outcome loads the scripts when Redis does not know them, and tells the breaker how it went.
func (c *Cache) outcome(ctx context.Context, err error) error {
	var answered redis.Error
	switch {
	case err == nil || errors.Is(err, redis.Nil):
		c.breaker.succeeded()
		return nil
	case redis.HasErrorPrefix(err, "NOSCRIPT"):
		if err := errors.Join(loadScript.Load(ctx, c.rdb).Err(), proposeScript.Load(ctx, c.rdb).Err()); err != nil {
			c.breaker.failed()
			return err
		}
		return err // the next call will find them
	case errors.As(err, &answered) && isScriptError(err):
		c.breaker.succeeded()
		return err
	}
	c.breaker.failed()
	return err
}

// cached is what Redis has of a customer.
type cached struct {
	epoch  string
	ver    int64
	age    time.Duration
	grants []cachedGrant
	units  map[credit.WalletID]walletLine
	whole  bool // every open grant is there
}

type cachedGrant struct {
	wallet     credit.WalletID
	unit       string
	kind       credit.GrantType
	from, till int64 // microseconds; till < 0: never
	available  credit.Amount
}

type walletLine struct {
	unit     string
	priority int
}

// read returns what is cached of customers; those that are not, or not in a form that is ours, are missing.
func (c *Cache) read(ctx context.Context, customers []credit.CustomerID) (map[credit.CustomerID]*cached, error) {
	hashes, ttls := make([]*redis.MapStringStringCmd, len(customers)), make([]*redis.DurationCmd, len(customers))
	_, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range customers {
			hashes[i], ttls[i] = p.HGetAll(ctx, cacheKey(id)), p.PTTL(ctx, cacheKey(id))
		}
		return nil
	})
	out := make(map[credit.CustomerID]*cached, len(customers))
	for i, id := range customers {
		if fields, err := hashes[i].Result(); err == nil {
			if e := parseCached(fields, ttls[i].Val()); e != nil {
				out[id] = e
			}
		}
	}
	return out, c.outcome(ctx, err)
}

func parseCached(f map[string]string, ttl time.Duration) *cached {
	n, err := strconv.Atoi(f["n"])
	if err != nil || n < 0 || n > cachedGrants || len(f["e"]) != 8 || ttl <= 0 || ttl > cacheTTL {
		return nil
	}
	e := &cached{epoch: f["e"], age: cacheTTL - ttl, whole: f["m"] == "", units: make(map[credit.WalletID]walletLine)}
	if e.ver, err = strconv.ParseInt(f["v"], 10, 64); err != nil {
		return nil
	}
	for line := range strings.Lines(f["w"]) {
		w := strings.Fields(line)
		if len(w) != 3 {
			return nil
		}
		id, err1 := credit.ParseID[credit.WalletID](w[0])
		priority, err2 := strconv.Atoi(w[2])
		if err1 != nil || err2 != nil {
			return nil
		}
		e.units[id] = walletLine{w[1], priority}
	}
	for k := 1; k <= n; k++ {
		g, ok := parseGrant(f["i"+strconv.Itoa(k)], f["a"+strconv.Itoa(k)])
		if !ok {
			return nil
		}
		e.grants = append(e.grants, g)
	}
	return e
}

func parseGrant(info, avail string) (g cachedGrant, ok bool) {
	part := strings.Split(info, fieldSeparator)
	if len(part) != 10 {
		return g, false
	}
	till, err1 := strconv.ParseInt(part[1], 10, 64)
	from, err2 := strconv.ParseInt(part[2], 10, 64)
	wallet, err3 := credit.ParseID[credit.WalletID](part[7])
	a, err4 := strconv.ParseInt(avail, 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || a < 0 || credit.Amount(a) > credit.MaxAmount {
		return g, false
	}
	return cachedGrant{wallet, part[0], credit.GrantType(part[8]), from, till, credit.Amount(a)}, true
}

// breaker keeps a Redis that does not answer out of the way: after five failures in a row nothing is asked, but for one probe a second.
type breaker struct {
	failures atomic.Int32
	mu       sync.Mutex
	probing  bool
	probe    func(context.Context) error
	stop     <-chan struct{} // ends the probing
	reclosed func()          // called when the cache answers again; may be nil
}

const breakerLimit = 5

func (b *breaker) closed() bool { return b.failures.Load() < breakerLimit }

func (b *breaker) succeeded() {
	if b.failures.Load() != 0 {
		b.failures.Store(0)
	}
}

func (b *breaker) failed() {
	if b.failures.Add(1) < breakerLimit {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.probing {
		return
	}
	b.probing = true
	go func() {
		for {
			select {
			case <-b.stop:
				return
			case <-time.After(time.Second):
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err := b.probe(ctx)
			cancel()
			if err == nil {
				break
			}
		}
		b.mu.Lock()
		b.probing = false
		b.mu.Unlock()
		b.failures.Store(0)
		if b.reclosed != nil {
			b.reclosed()
		}
	}()
}
