package balance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tallystick/tallystick/credit"
)

// changedKey is a set of the customers that have had operations since somebody asked for them. It is a hint like everything in Redis: what it loses
// is found in Postgres, a few seconds later.
const (
	changedKey = "changed"
	changedTTL = time.Minute // nobody asks: it is not kept
)

// markChanged adds customers to the set, in the round trip that brings their snapshots.
func markChanged(ctx context.Context, p redis.Pipeliner, snaps map[credit.CustomerID]*snapshot) {
	ids := make([]any, 0, len(snaps))
	for id := range snaps {
		ids = append(ids, id.String())
	}
	p.SAdd(ctx, changedKey, ids...) // snaps are never empty
	p.PExpire(ctx, changedKey, changedTTL)
}

// TakeChanged returns up to n customers that have had operations lately, each to one caller: it leaves some out, and names some that had none. It
// returns nobody without a cache, or while the cache is away.
func (s *Service) TakeChanged(ctx context.Context, n int) ([]credit.CustomerID, error) {
	if s.cache == nil || !s.cache.breaker.closed() {
		return nil, nil
	}
	names, err := s.cache.rdb.SPopN(ctx, changedKey, int64(n)).Result()
	if redis.HasErrorPrefix(err, "WRONGTYPE") { // not ours
		err = s.cache.rdb.Del(ctx, changedKey).Err()
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("take changed customers: %w", s.cache.outcome(ctx, err))
	}
	ids := make([]credit.CustomerID, 0, len(names))
	for _, name := range names {
		if id, err := credit.ParseID[credit.CustomerID](name); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
