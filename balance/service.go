package balance

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

// Config bounds a Service. Zero fields take the defaults named.
type Config struct {
	Lanes     int           // each has a connection that decides and one that waits for locks; one for every four processors
	MaxBatch  int           // operations in one transaction; 256
	Queue     int           // operations waiting in one lane before more are refused; 4096
	MaxWait   time.Duration // before an operation that has not been carried out is given up; 2 s
	Deadline  time.Duration // before an operation whose outcome is unknown is answered so; 5 s
	Snapshots int           // customers remembered by each lane; 65,536
	FX        fx.Policy     // of exchange rates; fx.DefaultPolicy

	Backfills bool // usage of backfills is decided: exchange rates and catalogues of compute costs are kept for as long as it may be old

	LooksOnly bool // nothing is done that nobody asks for: no hold is let go of at its deadline

	Registry prometheus.Registerer // nil: metrics are kept and not published
	Tracer   trace.Tracer          // nil: no traces

	// For tests of crashes and of wrong clocks only.
	Failpoints map[string]func() // called when the named one of [Steps] is reached
	Now        func() time.Time  // what this process takes the time to be; nil: time.Now
}

// Steps are the steps of the protocol at which a test may have a process crash, in the order in which an operation passes them.
var Steps = []string{
	"proposing", "proposed", // around the call of the cache
	"taken",     // a batch has been taken from the queue
	"locking",   // a connection is there, nothing has been sent
	"locked",    // rows are locked and read
	"decided",   // nothing has been written
	"sent",      // the changes and the COMMIT are under way, no reply has been read
	"committed", // nobody has been told
	"published", // the cache's snapshot waits to be pushed
	"answered",
	"pushing", "pushed", // around the call that brings snapshots to the cache
	"rerun",  // an attempt failed, the next begins
	"handed", // jobs whose customer another process keeps locked have been handed to the lane that waits
	"filled", // a customer has been read for the cache
}

// Service decides every change of customers' credits. Its methods may be called from many goroutines.
type Service struct {
	cfg     Config
	arbiter *db.Arbiter
	store   *db.Store
	cache   *Cache
	log     *slog.Logger
	metrics *metrics

	lanes     []*lane // in pairs: one that passes over what is locked, and the one that waits for it
	proposers []*proposer
	pusher    *pusher
	reader    *reader
	running   sync.WaitGroup
	stop      chan struct{}
	stopOnce  sync.Once

	rules atomic.Pointer[rules]
	units atomic.Pointer[map[string]credit.Unit]
	unit  sync.Mutex // held while units are read again
}

// FXPolicy is how exchange rates are chosen.
func (s *Service) FXPolicy() fx.Policy { return s.cfg.FX }

// NewService starts a service. cache may be nil: the answers are the same, and every balance is read from Postgres. It returns an error
// when Postgres cannot be read.
func NewService(ctx context.Context, cfg Config, arbiter *db.Arbiter, store *db.Store, cache *Cache, log *slog.Logger) (*Service, error) {
	setDefault(&cfg.Lanes, max(1, runtime.GOMAXPROCS(0)/4))
	setDefault(&cfg.MaxBatch, 256)
	setDefault(&cfg.Queue, 4096)
	setDefault(&cfg.MaxWait, 2*time.Second)
	setDefault(&cfg.Deadline, 5*time.Second)
	setDefault(&cfg.Snapshots, 1<<16)
	setDefault(&cfg.FX, fx.DefaultPolicy)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{cfg: cfg, arbiter: arbiter, store: store, cache: cache, log: log, metrics: newMetrics(cfg.Registry), stop: make(chan struct{})}
	s.units.Store(&map[string]credit.Unit{})
	if err := s.ReloadBook(ctx); err != nil {
		return nil, err
	}
	if cache != nil {
		cache.scale = s.scale
	}
	s.pusher = newPusher(s)
	s.reader = newReader(s)
	if cache != nil {
		cache.breaker.stop, cache.breaker.reclosed = s.stop, s.pusher.resume
	}
	for range cfg.Lanes {
		waits := newLane(s, nil)
		l := newLane(s, waits)
		s.lanes = append(s.lanes, l, waits)
		s.running.Go(l.loop)
		s.running.Go(waits.loop)
		s.proposers = append(s.proposers, newProposer(s, l))
	}
	s.running.Go(s.watch)
	if !cfg.LooksOnly {
		s.running.Go(s.sweepHolds)
	}
	return s, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Stop takes no more operations, finishes those that wait, and returns when all is done or ctx ends.
func (s *Service) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		close(s.stop)
		for i := 0; i < len(s.lanes); i += 2 {
			s.lanes[i].stop() // which stops its pair when it is empty
		}
	})
	done := make(chan struct{})
	go func() { s.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the balance service: %w", ctx.Err())
	}
}

// watch answers operations whose lane does not get to them in time.
func (s *Service) watch() {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-tick.C:
			for _, l := range s.lanes {
				l.giveUpOn(now.Add(-s.cfg.MaxWait))
			}
		}
	}
}

// Result is one operation's outcome.
type Result struct {
	Answer Answer
	Err    error
}

// Do carries out one operation and returns when its outcome is durable. A refusal is a *credit.Error; with the codes overloaded,
// not_executed, outcome_unknown, customer_frozen and clock_skew the same key should be tried again later. Any other error is a fault.
// The operation goes on when ctx ends: what was asked for may still be done.
func (s *Service) Do(ctx context.Context, op Operation) (Answer, error) {
	j, err := s.prepare(op)
	if err != nil {
		return Answer{}, err
	}
	s.enqueue(ctx, j, !reads(op) && s.cacheAnswers())
	r := <-j.done
	return r.answer, r.err
}

// DoAll carries out many operations, each with its own outcome, in the order given for each customer.
func (s *Service) DoAll(ctx context.Context, ops []Operation) []Result {
	out := make([]Result, len(ops))
	jobs := make([]*job, len(ops))
	tell := s.cacheAnswers() // all take the same way, or one could overtake another
	several := make(map[credit.CustomerID]int, len(ops))
	for _, op := range ops {
		several[op.header().Customer]++
	}
	for i, op := range ops {
		j, err := s.prepare(op)
		if err != nil {
			out[i].Err = err
			continue
		}
		jobs[i], j.ordered = j, several[op.header().Customer] > 1
		s.enqueue(ctx, j, tell)
	}
	for i, j := range jobs {
		if j != nil {
			r := <-j.done
			out[i] = Result{r.answer, r.err}
		}
	}
	return out
}

// prepare checks what can be checked without the customer's state.
func (s *Service) prepare(op Operation) (*job, error) {
	h := op.header()
	if h.RequestID.IsZero() {
		h.RequestID = credit.NewID[credit.RequestID]()
	}
	j := &job{svc: s, op: op, since: time.Now(), done: make(chan result, 1)}
	switch o := op.(type) {
	case *Consume:
		if err := s.checkConsume(o); err != nil {
			return nil, err
		}
	case *Quote:
		if err := s.checkConsume(&o.Consume); err != nil {
			return nil, err
		}
		if o.Maximum != nil && len(o.Maximum) != len(o.Usage) {
			return nil, credit.Errorf(credit.InvalidRequest, "The maximum has as many lines as the usage.")
		}
	case *ChargeQuarantined:
		if err := s.checkConsume(&o.Consume); err != nil {
			return nil, err
		}
	case *CreateWallet:
		if _, err := s.Unit(o.Wallet.Unit); err != nil {
			return nil, err
		}
		if o.Wallet.SoftCap && (o.OverageLimit < 1 || o.OverageLimit > credit.MaxAmount || o.OveragePrice < 0) {
			return nil, credit.Errorf(credit.InvalidAmount, "A soft-capped wallet needs a positive overage limit and a price that is not negative.")
		}
	case *CreateLimit:
		if _, err := s.Unit(o.Limit.Unit); err != nil {
			return nil, err
		}
		if err := credit.CheckLimit(&o.Limit); err != nil {
			return nil, err
		}
	case *UpdateLimit:
		if o.Amount != nil && (*o.Amount < 0 || *o.Amount > credit.MaxAmount) {
			return nil, credit.Errorf(credit.InvalidAmount, "A limit is not below 0.")
		}
		if o.WarnAt != nil {
			if err := credit.CheckWarnAt(*o.WarnAt); err != nil {
				return nil, err
			}
		}
	case *UpdateMember:
		if o.Scope != nil {
			if err := credit.CheckScope(*o.Scope); err != nil {
				return nil, err
			}
		}
	case *CreateGrant:
		if o.Grant.Amount < 1 || o.Grant.Amount > credit.MaxAmount || o.Grant.Wallet == nil {
			return nil, credit.Errorf(credit.InvalidAmount, "A grant has a wallet and a positive amount.")
		}
		if h.Key == "" {
			h.Key = "grant/" + o.Grant.ID.String() + "/create"
		}
	case *IssueGrant:
		if h.Key == "" {
			h.Key = "grant/" + o.Grant.String() + "/issue"
		}
	case *RefundGrant:
		if o.Units < 0 || o.Units > credit.MaxAmount {
			return nil, credit.Errorf(credit.InvalidAmount, "A refund has a positive number of credits, or none for all that is left.")
		}
	case *DecrementGrant:
		if o.Units < 0 || o.Units > credit.MaxAmount {
			return nil, credit.Errorf(credit.InvalidAmount, "A decrement has a positive number of credits, or none for all that is available.")
		}
	case *Dispute:
		if o.Amount < 1 || o.Amount > int64(credit.MaxAmount) || o.Fee < 0 || o.Fee > int64(credit.MaxAmount) {
			return nil, credit.Errorf(credit.InvalidAmount, "A dispute is of a positive amount, and its fee is not negative.")
		}
	case *Transfer:
		if o.Units < 0 || o.Units > credit.MaxAmount {
			return nil, credit.Errorf(credit.InvalidAmount, "A transfer has a positive number of credits, or none for all that can be transferred.")
		}
	case *Correct:
		if err := o.check(); err != nil {
			return nil, err
		}
	case *Hold:
		if err := s.checkConsume(&o.Consume); err != nil {
			return nil, err
		}
		if err := checkHoldTime(o.For, false); err != nil {
			return nil, err
		}
	case *ExtendHold:
		if o.Amount < 0 || o.Amount > credit.MaxAmount || o.Amount > 0 && o.Usage != nil || o.Amount == 0 && o.Usage == nil && o.For == 0 {
			return nil, credit.Errorf(credit.InvalidAmount, "An extension has a positive amount or a usage, or moves the deadline.")
		}
		if err := checkHoldTime(o.For, true); err != nil {
			return nil, err
		}
	case *CaptureHold:
		if o.Amount < 0 || o.Amount > credit.MaxAmount || o.Amount > 0 && o.Usage != nil {
			return nil, credit.Errorf(credit.InvalidAmount, "A capture has either an amount or a usage.")
		}
		if o.Over == "" {
			o.Over = CaptureReject
		}
	case *Expire, *ExpireHold:
		// No key: the state is the guard. A grant expires from open to expired once, and one that was extended may expire later.
	}
	if h.Key != "" {
		j.keyed, j.digest = true, KeyDigest(h.Key)
	} else if !reads(op) {
		switch o := op.(type) {
		case *Expire:
			h.Key = "grant/" + o.Grant.String() + "/expire"
		case *ExpireHold:
			h.Key = "hold/" + o.Hold.String() + "/expire"
		default:
			return nil, credit.Errorf(credit.InvalidRequest, "An idempotency key is required.")
		}
	}
	return j, nil
}

func checkHoldTime(d time.Duration, none bool) error {
	if none && d == 0 || d >= time.Second && d <= MaxHold {
		return nil
	}
	return credit.Invalid("/expires_in", "A hold lasts 1 second to %d hours.", MaxHold/time.Hour)
}

// reads tells whether an operation changes nothing.
func reads(op Operation) bool {
	switch op.(type) {
	case *Quote:
		return true
	}
	return looks(op)
}

// looks tells whether an operation only says how the customer stands, which a frozen one may be asked too.
func looks(op Operation) bool {
	switch op.(type) {
	case *ReadBalance, *ReadMember:
		return true
	}
	return false
}

func (s *Service) checkConsume(o *Consume) error {
	if o.Response != nil && o.Amount == 0 && len(o.Usage) == 0 {
		return nil
	}
	if o.Amount < 0 || o.Amount > credit.MaxAmount || (o.Amount > 0) == (len(o.Usage) > 0) || o.Response != nil {
		return credit.Errorf(credit.InvalidAmount, "A consumption has either a positive amount, or a usage, or a response.")
	}
	if o.Amount > 0 {
		_, err := s.Unit(o.Unit)
		return err
	}
	return checkCosts(o.Usage)
}

func (s *Service) cacheAnswers() bool { return s.cache != nil && s.cache.breaker.closed() }

// enqueue sends a job on its way; tell says whether the cache is to be told of it first.
func (s *Service) enqueue(ctx context.Context, j *job, tell bool) {
	h := j.op.header()
	n := int(binary.BigEndian.Uint32(h.Customer[12:]) % uint32(len(s.proposers)))
	if s.cfg.Tracer != nil {
		s.traced(ctx, j)
	}
	if tell {
		s.proposers[n].offer(j)
		return
	}
	s.proposers[n].lane.offer(j)
}

// clientKeys is what callers' idempotency keys begin with inside, so that none can be mistaken for one of the system's own.
const clientKeys = "client/"

// ClientKey makes a [Header].Key of a caller's idempotency key.
func ClientKey(key string) string { return clientKeys + key }

// eventKeys is what the keys of usage events begin with inside.
const eventKeys = "event/"

// EventKey makes the [Header].Key of a usage event, of who reports it and of its id there. Different pairs have different keys.
func EventKey(source, id string) string {
	return eventKeys + url.PathEscape(source) + "/" + url.PathEscape(id) // neither has a slash then
}

// KeyDigest is how a key is stored.
func KeyDigest(key string) [16]byte {
	sum := sha256.Sum256([]byte(key))
	return [16]byte(sum[:16])
}

// RequestDigest tells requests with the same key apart. The parts are framed by their lengths: ("ab","c") and ("a","bc") differ.
func RequestDigest(parts ...string) [16]byte {
	b := make([]byte, 0, 256)
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

// rules are what prices usage, all of one version of the configuration.
type rules struct {
	book  *rating.Book
	rates *fx.Table

	catalogues []db.CatalogueVersion // of compute costs, in the order in which they come into force
}

// Books returns the rate cards as last read.
func (s *Service) Books() *rating.Book { return s.rules.Load().book }

// Rates returns the exchange rates as last read: those of events that may still come, in the version of the configuration that [Service.Books]
// has.
func (s *Service) Rates() *fx.Table { return s.rules.Load().rates }

// ReloadBook reads the rate cards, exchange rates and catalogues of compute costs again.
func (s *Service) ReloadBook(ctx context.Context) error {
	age := MaxAge
	if s.cfg.Backfills {
		age = MaxBackfillAge
	}
	oldest := s.cfg.Now().Add(-age).AddDate(0, 0, -s.cfg.FX.MaxAgeDays-1)
	c, err := s.store.Configuration(ctx, oldest)
	if err != nil {
		return err
	}
	book, err := rating.NewBook(c.Ver, c.Cards)
	if err != nil {
		return fmt.Errorf("compile the rate cards: %w", err)
	}
	rates, err := fx.NewTable(s.cfg.FX, c.Quotes)
	if err != nil {
		return fmt.Errorf("compile the exchange rates: %w", err)
	}
	if err := s.readUnits(ctx); err != nil { // those of new cards must be known before a decision needs them
		return err
	}
	s.rules.Store(&rules{book, rates, c.Catalogues})
	return nil
}

// Refresh reads the rate cards and exchange rates again if they have changed: for those who ask without an operation.
func (s *Service) Refresh(ctx context.Context) error {
	ver, err := s.store.ConfigurationVersion(ctx)
	if err != nil || ver == s.Books().Ver {
		return err
	}
	return s.ReloadBook(ctx)
}

// Unit returns a unit by its code. One that was made since units were last read is found too. The refusals are unit_not_found and, when
// Postgres cannot be asked about a unit that is not known here, not_executed.
func (s *Service) Unit(code string) (credit.Unit, error) {
	if u, ok := (*s.units.Load())[code]; ok {
		return u, nil
	}
	s.unit.Lock()
	defer s.unit.Unlock()
	if u, ok := (*s.units.Load())[code]; ok {
		return u, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.readUnits(ctx); err != nil {
		s.log.Warn("units cannot be read", "error", err)
		return credit.Unit{}, credit.Errorf(credit.NotExecuted, "Nothing was changed; repeat the request with the same key.")
	}
	if u, ok := (*s.units.Load())[code]; ok {
		return u, nil
	}
	return credit.Unit{}, credit.Errorf(credit.UnitNotFound, "There is no unit %.40q.", code)
}

func (s *Service) readUnits(ctx context.Context) error {
	list, err := s.store.AllUnits(ctx)
	if err != nil {
		return err
	}
	byCode := make(map[string]credit.Unit, len(list))
	for _, u := range list {
		byCode[u.Code] = u
	}
	s.units.Store(&byCode)
	return nil
}

func (s *Service) failpoint(step string) {
	if s.cfg.Failpoints == nil {
		return
	}
	if f := s.cfg.Failpoints[step]; f != nil {
		f()
	}
}
