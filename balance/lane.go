package balance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// job is one operation on its way through a lane.
type job struct {
	svc     *Service
	op      Operation
	digest  db.Digest
	keyed   bool
	ordered bool // keeps its place among others of its customer: it is not asked about, and so not shed first
	since   time.Time
	hint    hint
	skips   int           // times passed over because another process had the customer locked
	away    *lane         // that handed it to the lane which waits for locks; nil: none did
	sent    bool          // a COMMIT that would have carried it out was sent, and may have taken place
	draws   []credit.Draw // room for a selection
	span    trace.SpanContext
	done    chan result
}

type result struct {
	answer Answer
	err    error
}

// lane decides the operations of the customers that hash to it: one batch at a time, each one transaction. It passes over customers that
// another process has locked. Those that stay locked it hands to its second, which waits for them, so that the others need not.
type lane struct {
	svc       *Service
	second    *lane // nil: this is one
	conn      *db.Lane
	epoch     string // in which this lane last had the rate cards read
	snapshots *snapshots
	draws     []credit.Draw

	mu      sync.Mutex
	queue   []*job
	shed    []*job                    // those that the cache says will be refused: first to go when there is too much
	away    map[credit.CustomerID]int // jobs at the second; until they are done, what comes for the same customer follows them
	stopped bool
	wake    chan struct{}
}

func newLane(s *Service, second *lane) *lane {
	return &lane{svc: s, second: second, snapshots: newSnapshots(s.cfg.Snapshots), away: make(map[credit.CustomerID]int), wake: make(chan struct{}, 1)}
}

// offer queues jobs. What does not fit is answered at once.
func (l *lane) offer(jobs ...*job) {
	var refused []*job
	l.mu.Lock()
	for _, j := range jobs {
		switch {
		case l.stopped:
			refused = append(refused, j)
		case len(l.queue)+len(l.shed) < l.svc.cfg.Queue:
			l.push(j)
		case j.hint != hintDeny && len(l.shed) > 0:
			refused = append(refused, l.shed[0])
			l.shed = l.shed[1:]
			l.push(j)
		default:
			refused = append(refused, j)
		}
	}
	stopped := l.stopped
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	for _, j := range refused {
		if stopped {
			j.finish(Answer{}, credit.Errorf(credit.NotExecuted, "The service is stopping."))
			continue
		}
		l.svc.metrics.shed.Inc()
		j.finish(Answer{}, credit.Errorf(credit.Overloaded, "Too many requests are waiting; nothing was decided."))
	}
}

func (l *lane) push(j *job) {
	if j.hint == hintDeny {
		l.shed = append(l.shed, j)
	} else {
		l.queue = append(l.queue, j)
	}
}

// take waits for jobs and returns a batch of them; nil when the lane has stopped and is empty. A batch is no more than half of those that
// are about: the waiting ones and those just answered, who will soon be back. Were all of them taken together, they would go through every
// stage together, and while Postgres works on them nobody would be reading requests or writing answers.
func (l *lane) take(into []*job) []*job {
	answered := len(into)
	for {
		l.mu.Lock()
		limit := min((len(l.queue)+len(l.shed)+answered+1)/2, l.svc.cfg.MaxBatch)
		into = takeUpTo(into[:0], &l.queue, limit)
		into = takeUpTo(into, &l.shed, limit)
		stopped := l.stopped
		l.mu.Unlock()
		if len(into) > 0 {
			return into
		}
		if stopped {
			return nil
		}
		<-l.wake
	}
}

func takeUpTo(into []*job, from *[]*job, limit int) []*job {
	n := min(limit-len(into), len(*from))
	into = append(into, (*from)[:n]...)
	if n == len(*from) {
		clear(*from)
		*from = (*from)[:0]
	} else {
		*from = (*from)[n:]
	}
	return into
}

// giveUpOn answers those that have waited in the queue since before t. It is called from outside the lane, which may be waiting for
// Postgres.
func (l *lane) giveUpOn(t time.Time) {
	var late []*job
	keep := func(q []*job) []*job {
		return slices.DeleteFunc(q, func(j *job) bool {
			if j.since.Before(t) {
				late = append(late, j)
				return true
			}
			return false
		})
	}
	l.mu.Lock()
	if (len(l.queue) > 0 && l.queue[0].since.Before(t)) || (len(l.shed) > 0 && l.shed[0].since.Before(t)) {
		l.queue, l.shed = keep(l.queue), keep(l.shed)
	}
	l.mu.Unlock()
	for _, j := range late {
		j.giveUp(errors.New("it waited too long for its turn"))
	}
}

func (l *lane) stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// loop runs until the lane is stopped and empty.
func (l *lane) loop() {
	jobs := make([]*job, 0, l.svc.cfg.MaxBatch)
	for {
		if jobs = l.take(jobs); jobs == nil {
			break
		}
		l.svc.failpoint("taken")
		if l.second == nil {
			l.runApart(jobs)
		} else {
			l.run(l.handOver(jobs), true)
		}
	}
	if l.conn != nil {
		l.conn.Close()
	}
	if l.second != nil {
		l.second.stop()
	}
}

// runApart runs the jobs of each customer by themselves.
func (l *lane) runApart(jobs []*job) {
	slices.SortStableFunc(jobs, func(a, b *job) int {
		x, y := a.op.header().Customer, b.op.header().Customer
		return slices.Compare(x[:], y[:])
	})
	for len(jobs) > 0 {
		n := 1
		for n < len(jobs) && jobs[n].op.header().Customer == jobs[0].op.header().Customer {
			n++
		}
		l.run(jobs[:n:n], false)
		jobs = jobs[n:]
	}
}

// maxSkips is how often a customer locked by another process is passed over before the second lane waits for the lock.
const maxSkips = 3

// handOver gives jobs whose customer stays locked to the second lane and returns the others.
func (l *lane) handOver(jobs []*job) []*job {
	var handed []*job
	l.mu.Lock()
	jobs = slices.DeleteFunc(jobs, func(j *job) bool {
		customer := j.op.header().Customer
		if j.skips < maxSkips && l.away[customer] == 0 {
			return false
		}
		l.away[customer]++
		j.away = l
		handed = append(handed, j)
		return true
	})
	l.mu.Unlock()
	if len(handed) > 0 {
		l.svc.failpoint("handed")
		l.second.offer(handed...)
	}
	return jobs
}

// returned notes that a job handed to the second lane is done.
func (l *lane) returned(c credit.CustomerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away[c]--; l.away[c] == 0 {
		delete(l.away, c)
	}
}

// run brings every job of a batch to its answer, or back into the queue.
func (l *lane) run(jobs []*job, skipLocked bool) {
	if len(jobs) == 0 {
		return
	}
	started := time.Now()
	for try := 1; ; try++ {
		skipped, err := l.attempt(jobs, skipLocked)
		if err == nil {
			l.requeue(skipped, len(skipped) == len(jobs))
			return
		}
		if errors.Is(err, db.ErrUnknown) {
			l.svc.metrics.unknown.Inc()
			for _, j := range jobs {
				j.sent = true
			}
		}
		for _, j := range jobs {
			for id := range customersOf(j.op) {
				l.snapshots.drop(id) // whatever was known may be why
			}
		}
		if errors.Is(err, db.ErrRefused) {
			l.bisect(jobs, skipLocked, err)
			return
		}
		if errors.Is(err, db.ErrLocked) {
			l.endStuck()
		}
		l.svc.metrics.reruns.Inc()
		now := time.Now()
		late := now.Sub(started) > l.svc.cfg.MaxWait || try >= maxTries
		jobs = slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool {
			if j.sent && now.Sub(j.since) < l.svc.cfg.Deadline || !j.sent && !late {
				return false
			}
			j.giveUp(err)
			return true
		})
		if len(jobs) == 0 {
			return
		}
		l.svc.log.Warn("batch is run again", "try", try, "jobs", len(jobs), "error", err)
		pause := min(time.Duration(1<<min(try, 8))*time.Millisecond, 200*time.Millisecond)
		time.Sleep(pause/2 + rand.N(pause))
		l.svc.failpoint("rerun")
	}
}

// endStuck frees customers that a frozen or vanished process has left locked.
func (l *lane) endStuck() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	ended, err := l.svc.arbiter.EndStuck(ctx)
	if ended > 0 || err != nil {
		l.svc.log.Warn("a customer stayed locked", "sessions_ended", ended, "error", err)
	}
}

// maxTries bounds how often a batch that certainly changed nothing is run again.
const maxTries = 8

// requeue puts those back that another process kept locked. When there was nothing else to do, waiting for them is best.
func (l *lane) requeue(skipped []*job, all bool) {
	if len(skipped) == 0 {
		return
	}
	for _, j := range skipped {
		if j.skips++; all {
			j.skips = maxSkips
		}
	}
	l.mu.Lock()
	l.queue = append(slices.Clone(skipped), l.queue...)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// bisect finds the job that the database refuses; the others are carried out.
func (l *lane) bisect(jobs []*job, skipLocked bool, err error) {
	if len(jobs) > 1 {
		l.run(slices.Clone(jobs[:len(jobs)/2]), skipLocked)
		l.run(slices.Clone(jobs[len(jobs)/2:]), skipLocked)
		return
	}
	j := jobs[0]
	var refusal *credit.Error
	if errors.As(err, &refusal) {
		j.finish(Answer{}, refusal)
		return
	}
	j.finish(Answer{}, fmt.Errorf("decide %T for %s: %w", j.op, j.op.header().Customer, err))
}

func (j *job) finish(a Answer, err error) {
	if j.away != nil {
		j.away.returned(j.op.header().Customer)
	}
	j.done <- result{a, err}
}

// giveUp answers without an outcome.
func (j *job) giveUp(cause error) {
	if j.sent {
		j.finish(Answer{}, credit.Errorf(credit.OutcomeUnknown, "The outcome is not known yet; repeat the request with the same key until it is."))
		return
	}
	j.svc.log.Warn("request not executed", "customer_id", j.op.header().Customer, "error", cause)
	j.finish(Answer{}, credit.Errorf(credit.NotExecuted, "Nothing was changed; repeat the request with the same key."))
}

// batch is one attempt at a transaction.
type batch struct {
	lane      *lane
	began     time.Time // before anything was read
	skipping  bool      // customers locked by others are passed over
	limited   bool      // one of the customers has, or has had, limits
	locked    *db.Locked
	customers map[credit.CustomerID]*customer
	changes   db.Changes
	keys      map[db.Digest]db.StoredAnswer // used by earlier jobs of this batch
	results   []result
}

// attempt runs one transaction. Without an error every job has been answered but those returned, which wait for a lock.
func (l *lane) attempt(jobs []*job, skipLocked bool) (skipped []*job, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), l.svc.cfg.MaxWait)
	defer cancel()
	ctx, end := l.svc.trace(ctx, jobs)
	defer func() { end(err) }()
	if l.conn == nil || l.conn.Closed() {
		if l.conn, err = l.svc.arbiter.Connect(ctx); err != nil {
			l.conn = nil
			return nil, err
		}
		if l.svc.cfg.Failpoints != nil {
			l.conn.Sent = l.svc.cfg.Failpoints["sent"]
		}
	}
	l.svc.failpoint("locking")
	b := &batch{lane: l, began: time.Now()}
	asked := l.svc.cfg.Now()
	if err := b.lock(ctx, jobs, skipLocked); err != nil {
		return nil, err
	}
	if skew := clockSkew(b.locked.Now, asked, l.svc.cfg.Now()); skew > maxClockSkew {
		l.conn.Close()
		l.svc.metrics.clockSkew.Inc()
		l.svc.log.Error("clock differs from the database's", "skew", skew)
		for _, j := range jobs {
			if j.sent {
				j.giveUp(errors.New("the clock differs"))
				continue
			}
			j.finish(Answer{}, credit.Errorf(credit.ClockSkew, "This server's clock differs from the database's by %s.", skew.Round(time.Second)))
		}
		return nil, nil
	}
	l.svc.failpoint("locked")
	if b.locked.Configuration != l.svc.Books().Ver || b.locked.Epoch != l.epoch { // after a failover versions are used again
		if err := l.svc.ReloadBook(ctx); err != nil {
			l.conn.Close()
			return nil, err
		}
		l.epoch = b.locked.Epoch
	}
	if err := b.foresee(ctx, jobs); err != nil {
		return nil, err
	}
	if b.limited {
		if err := b.foreseeLimits(ctx, jobs); err != nil {
			return nil, err
		}
	}
	b.results = make([]result, len(jobs))
	var waiting []bool
	for i, j := range jobs {
		if b.skipping && !b.has(j.op) {
			if waiting == nil {
				waiting = make([]bool, len(jobs))
			}
			waiting[i] = true
			skipped = append(skipped, j)
			continue
		}
		if b.results[i], err = b.judge(ctx, j); err != nil {
			return nil, err
		}
	}
	b.close()
	l.svc.failpoint("decided")
	// From here on nobody may take the commit back: it runs to its end whatever becomes of the requests.
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), l.svc.cfg.Deadline-l.svc.cfg.MaxWait)
	defer cancel()
	if err := l.conn.Commit(ctx, &b.changes); err != nil {
		return nil, err
	}
	l.svc.failpoint("committed")
	b.publish()
	l.svc.failpoint("published")
	for i, j := range jobs {
		if waiting == nil || !waiting[i] {
			j.finish(b.results[i].answer, b.results[i].err)
		}
	}
	l.svc.metrics.batch(len(jobs), &b.changes)
	l.svc.failpoint("answered")
	return skipped, nil
}

// clockSkew is how far the database's time lies outside the interval of this process's in which it was read.
func clockSkew(server, asked, answered time.Time) time.Duration {
	switch {
	case server.Before(asked):
		return asked.Sub(server)
	case server.After(answered):
		return server.Sub(answered)
	}
	return 0
}

const maxClockSkew = 2 * time.Second

// lock takes the row locks and brings the customers' state up to the version locked.
func (b *batch) lock(ctx context.Context, jobs []*job, skipLocked bool) error {
	l := b.lane
	var r db.LockRequest
	seen := make(map[credit.CustomerID]bool, len(jobs))
	for _, j := range jobs {
		for id := range customersOf(j.op) {
			if !seen[id] {
				seen[id] = true
				r.Customers = append(r.Customers, id)
				if l.snapshots.get(id) == nil {
					r.Load = append(r.Load, id)
				}
			}
		}
		if j.keyed {
			r.Keys = append(r.Keys, j.digest)
		}
		r.Grants = append(r.Grants, j.op.grants()...)
		r.Holds = append(r.Holds, j.op.holds()...)
		if o, ok := j.op.(*ChargeQuarantined); ok {
			r.Quarantined = append(r.Quarantined, o.Quarantined)
		}
	}
	b.skipping, r.SkipLocked = skipLocked, skipLocked
	slices.SortFunc(r.Customers, func(a, b credit.CustomerID) int { return slices.Compare(a[:], b[:]) })
	var err error
	if b.locked, err = l.conn.Lock(ctx, r); err != nil {
		return err
	}
	var stale []credit.CustomerID
	for id, h := range b.locked.Heads {
		if snap := l.snapshots.get(id); snap != nil && (snap.ver != h.Ver || snap.epoch != b.locked.Epoch) {
			stale = append(stale, id)
			l.snapshots.drop(id)
		}
	}
	loaded := b.locked.Customers
	if len(stale) > 0 {
		more, err := l.conn.Load(ctx, stale)
		if err != nil {
			return err
		}
		if loaded == nil {
			loaded = more
		} else {
			for id, s := range more {
				loaded[id] = s
			}
		}
	}
	for _, state := range loaded {
		for _, w := range state.Wallets {
			if _, err := l.svc.Unit(w.Unit); err != nil { // a decision needs to know its scale
				l.conn.Close()
				return fmt.Errorf("look for the unit of wallet %s: %w", w.ID, err)
			}
		}
	}
	b.customers = make(map[credit.CustomerID]*customer, len(b.locked.Heads))
	for id, h := range b.locked.Heads {
		snap := l.snapshots.get(id)
		if snap == nil {
			snap = newSnapshot(b.locked.Epoch, h, loaded[id])
		}
		b.customers[id] = newCustomer(id, h, snap, b.locked.Now)
		b.limited = b.limited || snap.limits != nil
	}
	for _, h := range b.locked.Holds {
		if c := b.customers[h.CustomerID]; c != nil {
			if c.holds == nil {
				c.holds = make(map[credit.HoldID]*credit.Hold)
			}
			c.holds[h.ID] = h
		}
	}
	for _, g := range b.locked.Grants {
		if c := b.customers[g.CustomerID]; c != nil {
			g.Wallet = c.wallets[g.Wallet.ID]
			if c.others == nil {
				c.others = make(map[credit.GrantID]*credit.Grant)
			}
			c.others[g.ID] = g
		}
	}
	return nil
}

// customersOf are the customers that an operation changes, its own first.
func customersOf(op Operation) iter.Seq[credit.CustomerID] {
	return func(yield func(credit.CustomerID) bool) {
		if !yield(op.header().Customer) {
			return
		}
		for _, id := range op.others() {
			if !yield(id) {
				return
			}
		}
	}
}

// has tells whether every customer that an operation changes is locked by this batch.
func (b *batch) has(op Operation) bool {
	for id := range customersOf(op) {
		if _, ok := b.locked.Heads[id]; !ok {
			return false
		}
	}
	return true
}

// judge decides one job against what the batch has come to so far. An error is one of reading, and ends the attempt.
func (b *batch) judge(ctx context.Context, j *job) (result, error) {
	for {
		r := b.decide(j)
		w, more := errors.AsType[*want](r.err)
		if !more {
			return r, nil
		}
		if err := b.fetch(ctx, b.customers[j.op.header().Customer], w); err != nil {
			return result{}, err
		}
	}
}

func (b *batch) decide(j *job) result {
	h := j.op.header()
	c := b.customers[h.Customer]
	if c == nil {
		return result{err: credit.Errorf(credit.CustomerNotFound, "There is no customer %s.", h.Customer)}
	}
	again, retries := j.op.(*ChargeQuarantined)
	if j.keyed {
		known, ok := b.keys[j.digest] // by this batch, also where it changes what was known
		if !ok {
			known, ok = b.locked.Keys[j.digest]
		}
		if retries {
			if r, standing := b.standing(j, again, known, ok); standing {
				return r
			}
		} else if ok {
			c.undo = c.undo || j.hint == hintOK
			return replay(known, h)
		}
	}
	if c.frozen && !looks(j.op) {
		return result{err: credit.Errorf(credit.CustomerFrozen, "The customer is frozen: its books and balances differ and somebody is looking into it.")}
	}
	j.draws = b.lane.draws
	in := b.lane.svc.rules.Load()
	d := &decision{c: c, others: b.customers, book: in.book, rates: rates{in.rates}, rules: in, job: j, ver: c.ver + 1, changes: &b.changes}
	r, err := j.op.decide(d)
	b.lane.draws = j.draws
	if _, more := errors.AsType[*want](err); more {
		return result{err: err}
	}
	if err != nil {
		c.undo = c.undo || j.hint == hintOK
		if k, quarantine := errors.AsType[*kept](err); quarantine {
			return b.keep(j, j.op.(*Consume), k)
		}
		if retries {
			return result{err: err} // it waits on
		}
		return b.refuse(j, err)
	}
	if reads(j.op) {
		body, err := r(nil)
		return result{Answer{Body: body, Ver: c.ver}, err}
	}
	body, err := d.finish(r)
	if err != nil {
		return result{err: fmt.Errorf("write receipt: %w", err)}
	}
	switch {
	case retries:
		b.charged(j, again, d.ver, body)
	case j.keyed:
		b.remember(j, db.KeyRow{Customer: c.id, Ver: d.ver, Status: statusDone}, body)
	}
	return result{answer: Answer{Body: body, Ver: d.ver}}
}

// Statuses of idempotency keys that operations use.
const (
	statusDone        = 200
	statusQuarantined = 202
	statusRefused     = 402
)

func (b *batch) remember(j *job, row db.KeyRow, answer []byte) {
	h := j.op.header()
	row.Digest, row.Request = j.digest, h.Request
	b.changes.Keys = append(b.changes.Keys, row)
	if b.keys == nil {
		b.keys = make(map[db.Digest]db.StoredAnswer)
	}
	b.keys[j.digest] = db.StoredAnswer{Request: h.Request, Status: int(row.Status), Answer: answer, Ver: row.Ver}
}

// denial is a refusal as it is kept under its key.
type denial struct {
	Code   credit.Code    `json:"code"`
	Detail string         `json:"detail"`
	Fields map[string]any `json:"fields,omitempty"`
	Issues []credit.Issue `json:"issues,omitempty"`
	Ver    int64          `json:"ver"`
}

// refuse keeps a caller's refusal under its key, so that no attempt of the same request that was left behind somewhere can carry it out
// after the caller was told no.
func (b *batch) refuse(j *job, err error) result {
	var e *credit.Error
	event := strings.HasPrefix(j.op.header().Key, eventKeys)
	if !errors.As(err, &e) || !j.keyed || !event && !strings.HasPrefix(j.op.header().Key, clientKeys) {
		return result{err: err}
	}
	if event && e.Code == credit.TooOld { // it goes into quarantine, under this key
		return result{err: err}
	}
	if _, of := errors.AsType[*ofState](err); !of && !finalRefusals[e.Code] {
		return result{err: err}
	}
	c := b.customers[j.op.header().Customer]
	e = e.With("request_id", j.op.header().RequestID.String())
	body, err := json.Marshal(denial{e.Code, e.Detail, e.Fields, e.Issues, c.ver})
	if err != nil {
		return result{err: fmt.Errorf("write refusal: %w", err)}
	}
	b.remember(j, db.KeyRow{Customer: c.id, Status: statusRefused, Response: string(body)}, body)
	return result{answer: Answer{Ver: c.ver}, err: e}
}

// finalRefusals are those that a new attempt with the same key cannot overturn. Others, such as an unknown rate, may be mended
// and the request repeated.
var finalRefusals = map[credit.Code]bool{
	credit.InsufficientCredits: true, credit.LimitReached: true, credit.NotEntitled: true, credit.NotRefundable: true, credit.GrantState: true, credit.GrantExpired: true,
	credit.TooOld: true, credit.CaptureExceedsHold: true, credit.HoldEnded: true, credit.NotCorrectable: true, credit.DisputeState: true,
}

// ofState is a refusal that the customer's state has brought about though its code does not say so, such as of an expiry that is no later than the
// one there is: another attempt with the same key must not be refused for another reason, or carried out.
type ofState struct{ error }

func (s *ofState) Unwrap() error { return s.error }

func replay(known db.StoredAnswer, h *Header) result {
	if known.Request != h.Request {
		return result{err: credit.Errorf(credit.RequestMismatch, "This idempotency key was used for another request.")}
	}
	if known.Status != statusRefused {
		return result{answer: Answer{Body: known.Answer, Replayed: true, Ver: known.Ver, Quarantined: known.Status == statusQuarantined}}
	}
	var was denial
	if err := json.Unmarshal(known.Answer, &was); err != nil {
		return result{err: fmt.Errorf("read refusal: %w", err)}
	}
	return result{Answer{Replayed: true, Ver: was.Ver}, &credit.Error{Code: was.Code, Detail: was.Detail, Fields: was.Fields, Issues: was.Issues}}
}

// close completes the changes once every job is judged. Rows are written in one order, so that batches never deadlock.
func (b *batch) close() {
	for _, c := range b.customers {
		if c.ver == b.locked.Heads[c.id].Ver {
			continue
		}
		b.changes.Heads = append(b.changes.Heads, db.HeadRow{Customer: c.id, Ver: c.ver, At: c.at})
		b.changes.Counters = c.counterRows(b.changes.Counters)
		for _, r := range c.disputed {
			b.changes.Disputes = append(b.changes.Disputes, *r)
		}
		for ver := range c.amended {
			b.changes.Corrected = append(b.changes.Corrected, c.recorded[ver].CorrectedRow)
		}
		b.changes.Windows = c.windowRows(b.changes.Windows)
		for id := range c.held {
			b.changes.Holds = append(b.changes.Holds, c.holds[id])
		}
		for _, t := range c.touched {
			switch {
			case !t.edited:
			case t.drawn:
				b.changes.Draws = append(b.changes.Draws, db.DrawRow{
					Grant: t.now.ID, Before: t.before.Available, After: t.now.Available, Depleted: t.now.Status == credit.StatusDepleted,
				})
			default:
				b.changes.Grants = append(b.changes.Grants, db.GrantChange{Before: t.before, After: t.now})
			}
		}
	}
	slices.SortFunc(b.changes.Keys, func(x, y db.KeyRow) int { return slices.Compare(x.Digest[:], y.Digest[:]) })
	slices.SortFunc(b.changes.Heads, func(x, y db.HeadRow) int { return slices.Compare(x.Customer[:], y.Customer[:]) })
	slices.SortFunc(b.changes.Draws, func(x, y db.DrawRow) int { return slices.Compare(x.Grant[:], y.Grant[:]) })
	slices.SortFunc(b.changes.Disputes, func(x, y db.DisputeRow) int { return slices.Compare(x.ID[:], y.ID[:]) })
	slices.SortFunc(b.changes.Corrected, func(x, y db.CorrectedRow) int {
		return cmp.Or(slices.Compare(x.Customer[:], y.Customer[:]), cmp.Compare(x.Ver, y.Ver))
	})
	slices.SortFunc(b.changes.Holds, func(x, y *credit.Hold) int { return slices.Compare(x.ID[:], y.ID[:]) })
	slices.SortFunc(b.changes.Grants, func(x, y db.GrantChange) int {
		return slices.Compare(x.After.ID[:], y.After.ID[:])
	})
}

// publish remembers what was committed and pushes it to the cache.
func (b *batch) publish() {
	for id, c := range b.customers {
		snap := c.base
		if c.ver != snap.ver || c.undo {
			was := snap.form
			snap = &snapshot{epoch: b.locked.Epoch, ver: c.ver, at: c.at, entity: snap.entity, currency: snap.currency, cards: c.cards, wallets: c.wallets, grants: c.grants, counted: c.remembered(),
				limits: c.rememberedLimits()}
			if b.lane.svc.cache != nil {
				snap.seen, snap.asOf, snap.form = b.began, c.at, was
				if snap.amountsOnly = was != nil && !c.reshaped && !was.passed(c.at); !snap.amountsOnly {
					snap.form = newForm(snap)
				}
				b.lane.svc.pusher.push(id, snap)
			}
		} else if c.limits != nil && c.limits.fresh {
			knows := *snap
			knows.limits = c.rememberedLimits()
			snap = &knows
		}
		b.lane.snapshots.put(id, snap)
	}
}
