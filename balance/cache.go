package balance

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
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
	//go:embed confirm.lua
	confirmLua string
	//go:embed propose.lua
	proposeLua string

	loadScript    = redis.NewScript(loadLua)
	confirmScript = redis.NewScript(confirmLua)
	proposeScript = redis.NewScript(proposeLua)
)

// Bounds of a cached customer.
const (
	cacheTTL     = 30 * time.Second // no entry older than this is ever used
	changingTTL  = 5 * time.Second  // nor one that was about to be replaced when its process died
	cachedGrants = 500              // Lua's unpack takes no more; a customer with more open grants is cached in part
)

// Cache is the copy of balances in Redis: disposable, possibly stale or wrong, never the ground of an answer that moves credits.
type Cache struct {
	rdb     redis.UniversalClient
	breaker breaker
	scale   func(unit string) int // set by the service that uses it
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
		Protocol: 2, // nothing here listens for the push messages of the third, and looking for them costs every reply
	}
}

// cacheKey is the customer's hash; the braces keep all of a customer in one slot of a cluster.
func cacheKey(c credit.CustomerID) string { return "b:{" + c.String() + "}" }

const fieldSeparator = "\x1d"

// newForm writes what amounts do not change; propose.lua has its form.
func newForm(snap *snapshot) *form {
	n := min(len(snap.grants), cachedGrants)
	f := &form{fields: make([]any, 0, 8+2*n), until: -1}
	f.fields = append(f.fields, "n", strconv.Itoa(n))
	if n < len(snap.grants) {
		f.fields = append(f.fields, "m", "1")
	}
	names := sha256.New()
	for i, g := range snap.grants {
		info := grantInfo(g)
		names.Write([]byte(info + "\n"))
		if i < n {
			f.fields = append(f.fields, "i"+strconv.Itoa(i+1), info)
		}
		for _, t := range [...]time.Time{g.EffectiveAt, g.ExpiresAt} {
			if us := t.UnixMicro(); t.After(snap.asOf) && (f.until < 0 || us < f.until) {
				f.until = us
			}
		}
	}
	for _, w := range orderedWallets(snap.wallets) {
		names.Write([]byte(w.ID.String() + w.Unit + "\n"))
	}
	names.Write([]byte(strconv.FormatInt(f.until, 10)))
	f.shape = hex.EncodeToString(names.Sum(nil)[:8])
	f.fields = append(f.fields, "s", f.shape, "x", strconv.FormatInt(f.until, 10))
	return f
}

// grantInfo writes what propose.lua must know of a grant besides its amount.
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
	} else if !g.Wallet.Member.IsZero() {
		member = g.Wallet.Member.String()
	}
	return strings.Join([]string{
		g.Wallet.Unit, strconv.FormatInt(till, 10), strconv.FormatInt(g.EffectiveAt.UnixMicro(), 10), member, strconv.Itoa(g.RateVersion),
		g.Scope.Canonical(), g.Wallet.Scope.Canonical(), "",
	}, fieldSeparator)
}

// cacheFields writes a snapshot as the fields that load.lua stores.
func (c *Cache) cacheFields(snap *snapshot) []any {
	f := snap.form
	fields := make([]any, 0, len(f.fields)+2+2*len(snap.grants))
	fields = append(append(fields, f.fields...), "j", c.balances(snap))
	for i, g := range snap.grants[:min(len(snap.grants), cachedGrants)] {
		fields = append(fields, "a"+strconv.Itoa(i+1), strconv.FormatInt(int64(g.Available), 10))
	}
	return fields
}

// balances are a snapshot's balances as they are shown: the JSON of its [UnitBalance]s.
func (c *Cache) balances(snap *snapshot) string {
	return string(appendUnits(nil, unitBalances(snap.grants, snap.wallets, snap.asOf, c.scale)))
}

// store brings snapshots into the cache. Those of which only amounts have changed since their customer was cached are confirmed; it
// returns those that turn out to need a load, and the others are loaded at once. The time that a snapshot has waited is taken off
// the time it may live; instead of one that is too old, what is cached is dropped. changed says that their customers have had operations.
func (c *Cache) store(ctx context.Context, snaps map[credit.CustomerID]*snapshot, changed bool) (again map[credit.CustomerID]*snapshot, _ error) {
	confirmed := make([]credit.CustomerID, 0, len(snaps)) // the customer of each command; zero: not a confirmation
	cmds, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for id, s := range snaps {
			left := (cacheTTL - time.Since(s.seen)).Milliseconds()
			key := []string{cacheKey(id)}
			switch {
			case left <= 0:
				p.Del(ctx, key[0])
				id = credit.CustomerID{}
			case s.amountsOnly && len(s.grants) <= cachedGrants:
				args := make([]any, 0, 5+len(s.grants))
				args = append(args, s.epoch, strconv.FormatInt(s.ver, 10), left, s.form.shape, c.balances(s))
				for _, g := range s.grants {
					args = append(args, strconv.FormatInt(int64(g.Available), 10))
				}
				confirmScript.EvalSha(ctx, p, key, args...)
			default:
				loadScript.EvalSha(ctx, p, key, append([]any{s.epoch, strconv.FormatInt(s.ver, 10), left}, c.cacheFields(s)...)...)
				id = credit.CustomerID{}
			}
			confirmed = append(confirmed, id)
		}
		if changed {
			markChanged(ctx, p, snaps)
		}
		return nil
	})
	for i, cmd := range cmds[:min(len(cmds), len(confirmed))] {
		if confirmed[i].IsZero() {
			continue
		}
		if n, cerr := cmd.(*redis.Cmd).Int(); cerr == nil && n == 1 {
			continue
		}
		if again == nil {
			again = make(map[credit.CustomerID]*snapshot)
		}
		whole := *snaps[confirmed[i]]
		whole.amountsOnly = false
		again[confirmed[i]] = &whole
	}
	return again, c.outcome(ctx, err)
}

// load stores whole snapshots.
func (c *Cache) load(ctx context.Context, snaps map[credit.CustomerID]*snapshot) error {
	again, err := c.store(ctx, snaps, false)
	if err == nil && len(again) > 0 {
		_, err = c.store(ctx, again, false)
	}
	return err
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
	others   bool     // there are requests besides them that will change the customer
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
			others := "0"
			if p.others {
				others = "1"
			}
			args := make([]any, 0, 4+6*len(p.wishes))
			args = append(args, micros, int64(cacheTTL/time.Millisecond), int64(changingTTL/time.Millisecond), others)
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
		if err := errors.Join(loadScript.Load(ctx, c.rdb).Err(), confirmScript.Load(ctx, c.rdb).Err(), proposeScript.Load(ctx, c.rdb).Err()); err != nil {
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

// cached is what Redis shows of a customer.
type cached struct {
	ver   int64
	age   time.Duration
	units string // JSON
}

// read returns what is cached of customers; those that are not, whose balances have changed by the passing of time, or that are not in a
// form that is ours, are missing.
func (c *Cache) read(ctx context.Context, customers []credit.CustomerID) (map[credit.CustomerID]*cached, error) {
	fields := make([]*redis.SliceCmd, len(customers))
	var clock *redis.TimeCmd
	_, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		clock = p.Time(ctx)
		for i, id := range customers {
			fields[i] = p.HMGet(ctx, cacheKey(id), "v", "t", "x", "j")
		}
		return nil
	})
	out := make(map[credit.CustomerID]*cached, len(customers))
	now := time.Now().UnixMicro()
	for i, id := range customers {
		if e := parseCached(fields[i].Val(), clock.Val(), now); e != nil {
			out[id] = e
		}
	}
	return out, c.outcome(ctx, err)
}

// parseCached reads what HMGET gave at an instant of Redis' clock.
func parseCached(f []any, at time.Time, now int64) *cached {
	if len(f) != 4 {
		return nil
	}
	ver, _ := f[0].(string)
	ends, _ := f[1].(string)
	until, _ := f[2].(string)
	e := new(cached)
	e.units, _ = f[3].(string)
	end, err := strconv.ParseInt(ends, 10, 64)
	if err != nil {
		return nil
	}
	if e.age = cacheTTL - time.UnixMilli(end).Sub(at); e.age < 0 || e.age >= cacheTTL {
		return nil
	}
	if e.ver, err = strconv.ParseInt(ver, 10, 64); err != nil {
		return nil
	}
	till, err := strconv.ParseInt(until, 10, 64)
	if err != nil || till >= 0 && now >= till || !json.Valid([]byte(e.units)) {
		return nil
	}
	return e
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
