package balance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tallystick/tallystick/credit"
)

// Drift is what a comparison of the cache with Postgres found.
type Drift struct {
	Checked int                 // cached customers compared
	Differ  []credit.CustomerID // at the version of Postgres, or beyond it, with other amounts; or in a form that is not ours
	Behind  []credit.CustomerID // at an older version
}

// compareBatch is how many cached customers are read at once.
const compareBatch = 200

// CompareCache holds what is cached against Postgres, customer by customer. A version behind is normal while operations are under way:
// what was found different is looked at again after settle, and counts only if it still differs and nothing happened meanwhile.
// share is the part of all keys that is looked at, in percent, 1 to 100.
func (s *Service) CompareCache(ctx context.Context, share int, settle time.Duration) (Drift, error) {
	var d Drift
	if s.cache == nil {
		return d, nil
	}
	cursor := uint64(0)
	for {
		keys, next, err := s.cache.rdb.Scan(ctx, cursor, "b:{*", compareBatch).Result()
		if err != nil {
			return d, fmt.Errorf("scan the cache: %w", err)
		}
		var batch []credit.CustomerID
		for i, key := range keys {
			if (i+int(next))%100 >= share {
				continue
			}
			if id, ok := customerOfKey(key); ok {
				batch = append(batch, id)
			} else {
				s.cache.rdb.Del(ctx, key)
				s.metrics.drift.Inc()
			}
		}
		if err := s.compare(ctx, batch, settle, &d); err != nil {
			return d, err
		}
		if cursor = next; cursor == 0 {
			return d, nil
		}
	}
}

// Compare holds the cached entries of some customers against Postgres, for package verify: how many were compared, and which differ at a
// moment when nothing was under way, each "<id> <how>".
func (s *Service) Compare(ctx context.Context, customers []credit.CustomerID) (checked int, differ []string, err error) {
	var d Drift
	for batch := range slices.Chunk(customers, compareBatch) {
		if err := s.compare(ctx, batch, time.Second, &d); err != nil {
			return d.Checked, differ, err
		}
	}
	for _, id := range d.Differ {
		differ = append(differ, id.String()+" has other balances in the cache")
	}
	for _, id := range d.Behind {
		differ = append(differ, id.String()+" has an old version in the cache")
	}
	return d.Checked, differ, nil
}

// SweepCache repairs what CompareCache finds.
func (s *Service) SweepCache(ctx context.Context, share int) (Drift, error) {
	d, err := s.CompareCache(ctx, share, time.Second)
	for _, id := range append(d.Differ, d.Behind...) {
		s.metrics.drift.Inc()
		if derr := s.cache.rdb.Del(ctx, cacheKey(id)).Err(); derr != nil {
			return d, errors.Join(err, fmt.Errorf("drop a wrong entry of the cache: %w", derr))
		}
		if _, ferr := s.fill(ctx, id); ferr != nil && credit.CodeOf(ferr) != credit.CustomerNotFound {
			return d, errors.Join(err, ferr)
		}
	}
	return d, err
}

func customerOfKey(key string) (credit.CustomerID, bool) {
	if len(key) < 4 || key[:3] != "b:{" || key[len(key)-1] != '}' {
		return credit.CustomerID{}, false
	}
	id, err := credit.ParseID[credit.CustomerID](key[3 : len(key)-1])
	return id, err == nil
}

func (s *Service) compare(ctx context.Context, batch []credit.CustomerID, settle time.Duration, d *Drift) error {
	cached, suspects, err := s.differing(ctx, batch)
	d.Checked += cached
	if err != nil || len(suspects) == 0 {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	again := make([]credit.CustomerID, 0, len(suspects))
	for id := range suspects {
		again = append(again, id)
	}
	_, still, err := s.differing(ctx, again)
	if err != nil {
		return err
	}
	for id, now := range still {
		if was := suspects[id]; now.head != was.head {
			continue // it is in use: the next commit replaces what is cached
		}
		if now.behind {
			d.Behind = append(d.Behind, id)
		} else {
			d.Differ = append(d.Differ, id)
		}
	}
	return nil
}

type difference struct {
	head   int64
	behind bool
}

// differing reads the cache and then Postgres, and returns how many of the customers are cached and those that are not the same in both.
func (s *Service) differing(ctx context.Context, batch []credit.CustomerID) (cached int, _ map[credit.CustomerID]difference, _ error) {
	if len(batch) == 0 {
		return 0, nil, nil
	}
	raw := make([]*redis.MapStringStringCmd, len(batch))
	ttl := make([]*redis.DurationCmd, len(batch))
	_, err := s.cache.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range batch {
			raw[i], ttl[i] = p.HGetAll(ctx, cacheKey(id)), p.PTTL(ctx, cacheKey(id))
		}
		return nil
	})
	if err != nil && !isScriptError(err) {
		return 0, nil, fmt.Errorf("read the cache: %w", err)
	}
	epoch, now, heads, states, err := s.store.Snapshots(ctx, batch)
	if err != nil {
		return 0, nil, err
	}
	out := make(map[credit.CustomerID]difference)
	for i, id := range batch {
		fields, err := raw[i].Result()
		if err == nil && len(fields) == 0 {
			continue
		}
		cached++
		head := heads[id]
		if err != nil || states[id] == nil || ttl[i].Val() <= 0 || ttl[i].Val() > cacheTTL {
			out[id] = difference{head: head.Ver}
			continue
		}
		ver, err := strconv.ParseInt(fields["v"], 10, 64)
		snap := newSnapshot(epoch, head, states[id])
		snap.asOf = now
		snap.form = newForm(snap)
		switch {
		case err == nil && fields["e"] == epoch && ver < head.Ver, err == nil && fields["e"] < epoch:
			out[id] = difference{head: head.Ver, behind: true}
		case err != nil || fields["e"] != epoch || ver != head.Ver || !sameFields(fields, s.cache.cacheFields(snap), now):
			out[id] = difference{head: head.Ver}
		}
	}
	return cached, out, nil
}

// sameFields compares what is cached with what load.lua would store now. What is shown may differ when time has passed over it: nobody
// is shown it then.
func sameFields(have map[string]string, want []any, now time.Time) bool {
	if len(have) != len(want)/2+3 { // e, v and t
		return false
	}
	until, err := strconv.ParseInt(have["x"], 10, 64)
	if err != nil {
		return false
	}
	passed := until >= 0 && now.UnixMicro() >= until
	for i := 0; i < len(want); i += 2 {
		name := want[i].(string)
		if have[name] != want[i+1].(string) && !(passed && (name == "j" || name == "s" || name == "x")) {
			return false
		}
	}
	return true
}
