package balance

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/tallystick/tallystick/credit"
)

// AppendBalance adds to b what a customer has, the JSON of a [BalanceDocument], from the cache: at most 30 s old, usually milliseconds,
// with its version and age. Without a usable cache it is read from Postgres. An unknown customer is a [credit.Error] coded
// customer_not_found.
func (s *Service) AppendBalance(ctx context.Context, b []byte, c credit.CustomerID) ([]byte, error) {
	return s.AppendBalanceSince(ctx, b, c, 0)
}

// AppendBalanceSince is AppendBalance for those who know of a committed version: what the cache has of an older one is read from Postgres.
func (s *Service) AppendBalanceSince(ctx context.Context, b []byte, c credit.CustomerID, ver int64) ([]byte, error) {
	if s.cache != nil && s.cache.breaker.closed() {
		if e := s.reader.read(c); e != nil && e.ver >= ver {
			return append(append(appendBalanceHead(b, c, e.ver, e.age.Milliseconds()), e.units...), '}'), nil
		}
	}
	snap, err := s.fill(ctx, c)
	if err != nil {
		return b, err
	}
	return append(appendUnits(appendBalanceHead(b, c, snap.ver, 0), unitBalances(snap.grants, snap.wallets, snap.asOf, s.scale)), '}'), nil
}

func appendBalanceHead(b []byte, c credit.CustomerID, ver, ageMS int64) []byte {
	b = append(b, `{"customer_id":"`...)
	b = c.Append(b)
	b = append(b, `","ver":`...)
	b = strconv.AppendInt(b, ver, 10)
	b = append(b, `,"consistent":false,"age_ms":`...)
	b = strconv.AppendInt(b, ageMS, 10)
	return append(b, `,"units":`...)
}

// Balance is AppendBalance for those who want the document.
func (s *Service) Balance(ctx context.Context, c credit.CustomerID) (doc BalanceDocument, err error) {
	b, err := s.AppendBalance(ctx, nil, c)
	if err != nil {
		return doc, err
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return doc, fmt.Errorf("read balance: %w", err)
	}
	return doc, nil
}

// StrongBalance returns the committed balances, read in order with all operations: they are those of some moment between the call
// and its return.
func (s *Service) StrongBalance(ctx context.Context, c credit.CustomerID) (BalanceDocument, error) {
	a, err := s.Do(ctx, &ReadBalance{Header{Customer: c}})
	if err != nil {
		return BalanceDocument{}, err
	}
	var doc BalanceDocument
	if err := json.Unmarshal(a.Body, &doc); err != nil {
		return doc, fmt.Errorf("read balance: %w", err)
	}
	return doc, nil
}

func (s *Service) scale(unit string) int {
	u, _ := s.Unit(unit)
	return u.Scale
}

// fill reads a customer from Postgres and puts it into the cache.
func (s *Service) fill(ctx context.Context, c credit.CustomerID) (*snapshot, error) {
	began := time.Now()
	epoch, now, heads, states, err := s.store.Snapshots(ctx, []credit.CustomerID{c})
	if err != nil {
		return nil, err
	}
	state := states[c]
	if state == nil {
		return nil, credit.Errorf(credit.CustomerNotFound, "There is no customer %s.", c)
	}
	snap := newSnapshot(epoch, heads[c], state)
	snap.seen, snap.asOf = began, now
	snap.form = newForm(snap)
	s.failpoint("filled")
	s.pusher.push(c, snap)
	return snap, nil
}

// reader reads the cache for many callers at once: those that ask while a read is under way go together in the next one, and those that
// ask about the same customer share its answer.
type reader struct {
	svc *Service

	mu      sync.Mutex
	waiting map[credit.CustomerID]*reading
	busy    bool
}

type reading struct {
	done  chan struct{}
	entry *cached // nil: not cached
}

const readBatch = 128

func newReader(s *Service) *reader {
	return &reader{svc: s, waiting: make(map[credit.CustomerID]*reading)}
}

func (r *reader) read(c credit.CustomerID) *cached {
	r.mu.Lock()
	w := r.waiting[c]
	if w == nil {
		w = &reading{done: make(chan struct{})}
		r.waiting[c] = w
	}
	start := !r.busy
	r.busy = true
	r.mu.Unlock()
	if start {
		r.work() // the first of a round reads for all: no goroutine when nobody else asks
	}
	<-w.done
	return w.entry
}

// work runs until nothing waits.
func (r *reader) work() {
	r.round()
	r.mu.Lock()
	r.busy = len(r.waiting) > 0
	more := r.busy
	r.mu.Unlock()
	if more {
		go r.work()
	}
}

func (r *reader) round() {
	r.mu.Lock()
	ids, batch := make([]credit.CustomerID, 0, min(len(r.waiting), readBatch)), make([]*reading, 0, min(len(r.waiting), readBatch))
	for id, w := range r.waiting {
		if len(ids) == readBatch {
			break
		}
		ids, batch = append(ids, id), append(batch, w)
		delete(r.waiting, id)
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	found, err := r.svc.cache.read(ctx, ids)
	if err != nil {
		r.svc.metrics.cacheErrors.Inc()
	}
	for i, w := range batch {
		w.entry = found[ids[i]]
		close(w.done)
	}
}
