package balance

import (
	"context"
	"sync"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// proposer tells the cache of operations on their way to a lane, and asks it about consumptions: all that arrived while it asked about
// the ones before go in one round trip. What it learns only decides who is turned away first when there is too much to do.
type proposer struct {
	svc  *Service
	lane *lane

	mu      sync.Mutex
	waiting []*job
	busy    bool
}

// maxAsked bounds what one round trip asks about, so that it stays short.
const maxAsked = 256

func newProposer(s *Service, l *lane) *proposer { return &proposer{svc: s, lane: l} }

func (p *proposer) offer(j *job) {
	p.mu.Lock()
	p.waiting = append(p.waiting, j)
	start := !p.busy
	p.busy = true
	p.mu.Unlock()
	if start {
		p.svc.running.Go(p.work)
	}
}

// work runs until nothing waits.
func (p *proposer) work() {
	for {
		p.mu.Lock()
		n := min(len(p.waiting), maxAsked)
		jobs := p.waiting[:n:n]
		if p.waiting = p.waiting[n:]; len(p.waiting) == 0 {
			p.waiting = nil
		}
		p.busy = n > 0
		p.mu.Unlock()
		if len(jobs) == 0 {
			return
		}
		p.svc.failpoint("proposing")
		p.ask(jobs)
		p.svc.failpoint("proposed")
		p.lane.offer(jobs...)
	}
}

// ask sets the jobs' hints. Whatever goes wrong leaves them at hintNone.
func (p *proposer) ask(jobs []*job) {
	var proposals []*proposal
	byCustomer := make(map[credit.CustomerID]*proposal, len(jobs))
	type place struct {
		p *proposal
		i int
	}
	places := make([]place, len(jobs))
	for i, j := range jobs {
		if reads(j.op) {
			continue
		}
		id := j.op.header().Customer
		at := byCustomer[id]
		if at == nil {
			at = &proposal{customer: id}
			byCustomer[id] = at
			proposals = append(proposals, at)
		}
		w, ok := wish{}, false
		if o, consumes := j.op.(*Consume); consumes && !j.ordered {
			w, ok = p.svc.wish(o)
		}
		if !ok {
			at.others = true
			continue
		}
		places[i] = place{at, len(at.wishes)}
		at.wishes = append(at.wishes, w)
	}
	if len(proposals) == 0 || !p.svc.cache.breaker.closed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.svc.cache.propose(ctx, time.Time{}, proposals); err != nil {
		p.svc.metrics.cacheErrors.Inc()
	}
	for i, j := range jobs {
		if at := places[i].p; at != nil {
			j.hint = at.hint(places[i].i)
			p.svc.metrics.hints[j.hint].Inc()
		}
	}
}

// wish is what a consumption would take; false when that cannot be told before the customer's state is known.
func (s *Service) wish(o *Consume) (wish, bool) {
	w := wish{amount: o.Amount, unit: o.Unit, member: o.Member, fixed: true, dims: o.Dims}
	if o.Amount > 0 {
		return w, true
	}
	if o.Response != nil { // it is read once, when it is decided
		return w, false
	}
	// The default card is a guess: a customer with a card of its own is priced by the decision.
	usage := rating.Usage{At: o.At, Lines: o.Usage, Dims: o.Dims}
	if usage.At.IsZero() {
		usage.At = time.Now()
	}
	priced, err := s.Books().Price(credit.RateCardID{}, 0, usage, nil, nil)
	if err != nil {
		return w, false
	}
	w.amount, w.unit, w.fixed = priced.Total, priced.Unit.Code, false
	return w, priced.Total > 0
}

// pusher brings committed snapshots into the cache: the newest of each customer, in batches, as fast as Redis takes them. While Redis is
// away they wait, so that what Redis still has from before is replaced as soon as it is back.
type pusher struct {
	svc *Service

	mu      sync.Mutex
	pending map[credit.CustomerID]*snapshot
	busy    bool
}

// maxPending bounds the customers waiting to be pushed. What does not fit is left to the time to live.
const (
	maxPending = 20_000
	pushBatch  = 128
)

func newPusher(s *Service) *pusher {
	return &pusher{svc: s, pending: make(map[credit.CustomerID]*snapshot)}
}

func (p *pusher) push(c credit.CustomerID, s *snapshot) {
	if p.svc.cache == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(c, s)
	p.start()
}

// resume goes on after the cache was away.
func (p *pusher) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start()
}

func (p *pusher) keep(c credit.CustomerID, s *snapshot) {
	have := p.pending[c]
	switch {
	case have == nil && len(p.pending) >= maxPending:
		p.svc.metrics.pushesDropped.Inc()
	case have == nil || have.epoch < s.epoch || have.epoch == s.epoch && have.ver <= s.ver:
		p.pending[c] = s
	}
}

func (p *pusher) start() {
	if !p.busy && len(p.pending) > 0 && p.svc.cache.breaker.closed() {
		p.busy = true
		p.svc.running.Go(p.work)
	}
}

func (p *pusher) work() {
	for {
		p.mu.Lock()
		n := min(len(p.pending), pushBatch)
		if p.busy = n > 0 && p.svc.cache.breaker.closed(); !p.busy {
			p.mu.Unlock()
			return
		}
		batch := make(map[credit.CustomerID]*snapshot, n)
		for id, s := range p.pending {
			if len(batch) == n {
				break
			}
			batch[id] = s
			delete(p.pending, id)
		}
		p.mu.Unlock()
		p.svc.failpoint("pushing")
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		again, err := p.svc.cache.store(ctx, batch, true)
		cancel()
		p.svc.failpoint("pushed")
		if err == nil {
			p.svc.metrics.pushes.Add(n)
			batch = again // to be loaded whole
		} else {
			p.svc.metrics.cacheErrors.Inc()
			if isScriptError(err) { // something else lies where one of them belongs, which a load does not mind
				batch = again
			}
		}
		p.mu.Lock()
		for id, s := range batch {
			p.keep(id, s)
		}
		p.mu.Unlock()
	}
}
