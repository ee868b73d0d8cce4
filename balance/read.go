package balance

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tallystick/tallystick/credit"
)

// Balance returns what a customer has, from the cache: at most 30 s old, usually milliseconds, with its version and age. Without a
// usable cache it is read from Postgres. An unknown customer is an [credit.Error] coded customer_not_found.
func (s *Service) Balance(ctx context.Context, c credit.CustomerID) (BalanceDocument, error) {
	if s.cache != nil && s.cache.breaker.closed() {
		if e := s.reader.read(c); e != nil && e.whole {
			return s.describeCached(c, e), nil
		}
	}
	snap, now, err := s.fill(ctx, c)
	if err != nil {
		return BalanceDocument{}, err
	}
	return BalanceDocument{CustomerID: c, Ver: snap.ver, Units: unitBalances(snap.grants, snap.wallets, now, s.scale)}, nil
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
func (s *Service) fill(ctx context.Context, c credit.CustomerID) (*snapshot, time.Time, error) {
	began := time.Now()
	epoch, now, heads, states, err := s.store.Snapshots(ctx, []credit.CustomerID{c})
	if err != nil {
		return nil, now, err
	}
	state := states[c]
	if state == nil {
		return nil, now, credit.Errorf(credit.CustomerNotFound, "There is no customer %s.", c)
	}
	snap := newSnapshot(epoch, heads[c], state)
	snap.seen = began
	s.failpoint("filled")
	s.pusher.push(c, snap)
	return snap, now, nil
}

func (s *Service) describeCached(c credit.CustomerID, e *cached) BalanceDocument {
	now := time.Now().UnixMicro()
	doc := BalanceDocument{CustomerID: c, Ver: e.ver, AgeMS: e.age.Milliseconds(), Units: []UnitBalance{}}
	sums := make(map[credit.WalletID]credit.Amount, len(e.units))
	for _, g := range e.grants {
		if g.kind != credit.Overage && now >= g.from && (g.till < 0 || now < g.till) {
			sums[g.wallet] += g.available
		}
	}
	ids := make([]credit.WalletID, 0, len(e.units))
	for id := range e.units {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b credit.WalletID) int {
		return cmp.Or(cmp.Compare(e.units[a].unit, e.units[b].unit), cmp.Compare(e.units[a].priority, e.units[b].priority), slices.Compare(a[:], b[:]))
	})
	var total credit.Amount
	for i, id := range ids {
		unit := e.units[id].unit
		if i == 0 || unit != e.units[ids[i-1]].unit {
			doc.Units, total = append(doc.Units, UnitBalance{Unit: unit}), 0
		}
		u := &doc.Units[len(doc.Units)-1]
		total += sums[id]
		u.Available = total.Format(s.scale(unit))
		u.Wallets = append(u.Wallets, WalletBalance{id, sums[id].Format(s.scale(unit))})
	}
	return doc
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
