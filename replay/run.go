package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shopspring/decimal"
)

// Config is how a run goes.
type Config struct {
	API     *API
	Trace   *Trace
	Plan    Plan
	Clients int           // that send at the same time; 1 or more
	Speed   int           // times as fast as the trace; 0: as fast as the API answers
	Wait    time.Duration // for the answer to one event, all attempts together; 0: a minute
	Out     io.Writer     // takes the progress
}

// Report is what came of a run.
type Report struct {
	Events  int // of the trace
	Sent    int // that were sent before the run ended
	Charged int // consumed by this run
	Before  int // consumed by this run's earlier attempt: answered again, charged nothing
	Refused map[string]Refusal
	Open    Refusal                    // no answer was got in time
	Credits map[string]decimal.Decimal // charged, by unit
	Again   int                        // attempts after the first
	Took    time.Duration
	Behind  time.Duration // how far the run fell behind its schedule at most

	latencies []time.Duration // from an event's first attempt to its answer, the shortest first
	balances  []balanceChange
	books     []booksChange
	noBooks   string // why there are none
}

// Refusal counts refusals of one kind.
type Refusal struct {
	Events int
	Detail string // of the first
}

// Decided tells whether every event of the trace has its answer.
func (r *Report) Decided() bool { return r.Sent == r.Events && r.Open.Events == 0 }

// Run sends every event of the trace, and reads the customers' balances and their books before and after. When ctx ends nothing more is
// sent, what is under way is waited for, and the report tells how far it went. The error is a fault, or a *Problem that no further event
// could escape.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if cfg.Wait == 0 {
		cfg.Wait = time.Minute
	}
	first := cfg.Trace.First.Add(cfg.Plan.EndsAt.Sub(cfg.Trace.Last))
	if age := time.Since(first); age >= maxAge {
		return nil, fmt.Errorf("the first event would be %s old, and usage older than %d days is refused", age.Round(time.Second), maxAge/(24*time.Hour))
	}
	r := &run{Config: cfg, events: make(chan Event)}
	before, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	r.versions = before.versions
	report, err := r.send(ctx)
	if err != nil {
		return nil, err
	}
	after, err := r.look(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	report.compare(before, after)
	return report, nil
}

type run struct {
	Config
	events  chan Event
	sent    atomic.Int64 // events that have their answer or will get none
	refused atomic.Int64
	behind  time.Duration

	versions map[string]int64 // the customers' before the run
}

// send sends the events by all clients.
func (r *run) send(parent context.Context) (*Report, error) {
	ctx, stop := context.WithCancelCause(parent)
	defer stop(nil)
	began := time.Now()
	bar := r.progress(began)
	tallies := make([]*tally, r.Clients)
	var clients sync.WaitGroup
	for i := range tallies {
		t := &tally{refused: map[string]Refusal{}, credits: map[string]decimal.Decimal{}}
		tallies[i] = t
		clients.Go(func() {
			for e := range r.events {
				if err := r.one(ctx, t, e); err != nil {
					stop(err)
				}
			}
		})
	}
	err := r.schedule(ctx, began)
	close(r.events)
	clients.Wait()
	bar.end()
	if err == nil && parent.Err() == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	out := &Report{Events: r.Trace.Events, Refused: map[string]Refusal{}, Credits: map[string]decimal.Decimal{}, Took: time.Since(began), Behind: r.behind}
	for _, t := range tallies {
		t.addTo(out)
	}
	slices.Sort(out.latencies)
	return out, nil
}

// schedule hands the events to the clients, each at its time.
func (r *run) schedule(ctx context.Context, began time.Time) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for e, err := range r.Trace.read() {
		if err != nil {
			return fmt.Errorf("read trace %s: %w", r.Trace.Name, err)
		}
		due := began
		if r.Speed > 0 {
			due = began.Add(e.At.Sub(r.Trace.First) / time.Duration(r.Speed))
		}
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case r.events <- e:
		case <-ctx.Done():
			return nil
		}
		if r.Speed > 0 {
			r.behind = max(r.behind, time.Since(due))
		}
	}
	return nil
}

// attemptTimeout is longer than the API takes to decide, whatever happens to it.
const attemptTimeout = 10 * time.Second

// one sends an event until it has its answer. The error is a *Problem that all events would meet.
func (r *run) one(ctx context.Context, t *tally, e Event) error {
	defer r.sent.Add(1)
	key, body, err := r.Plan.request(e, r.Trace.Last)
	if err != nil {
		return fmt.Errorf("write the request of line %d: %w", e.Line, err)
	}
	began := time.Now()
	for attempt := 0; ; attempt++ {
		var in receipt
		err = r.attempt(ctx, key, body, &in)
		var p *Problem
		switch {
		case err == nil:
			return t.charged(&in, in.Ver <= r.versions[in.Customer], time.Since(began))
		case errors.As(err, &p) && p.useless():
			return p
		case errors.As(err, &p) && !p.undecided():
			t.refuse(p, time.Since(began))
			r.refused.Add(1)
			return nil
		}
		if ctx.Err() != nil || time.Since(began) > r.Wait {
			t.open = t.open.add(err.Error())
			return nil
		}
		t.again++
		pause(ctx, attempt, err)
	}
}

// receipt is what a consumption is answered with. Its version tells whether it took place in this run: that it was answered before does
// not, for the first answer may have been lost.
type receipt struct {
	Customer     string `json:"customer_id"`
	Ver          int64
	Unit, Amount string
}

// attempt finishes what it has begun: a request that is cut off may have been carried out.
func (r *run) attempt(ctx context.Context, key string, body []byte, in *receipt) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
	defer cancel()
	return r.API.Call(ctx, http.MethodPost, "/v1/consume", key, body, in)
}

// tally is one client's part of the report.
type tally struct {
	chargedNow, chargedBefore, again int
	refused                          map[string]Refusal
	open                             Refusal
	credits                          map[string]decimal.Decimal
	latencies                        []time.Duration
}

func (t *tally) charged(in *receipt, before bool, took time.Duration) error {
	t.latencies = append(t.latencies, took)
	if before {
		t.chargedBefore++
		return nil
	}
	credits, err := decimal.NewFromString(in.Amount)
	if err != nil {
		return fmt.Errorf("read the amount of a receipt: %w", err)
	}
	t.chargedNow++
	t.credits[in.Unit] = t.credits[in.Unit].Add(credits)
	return nil
}

func (t *tally) refuse(p *Problem, took time.Duration) {
	t.latencies = append(t.latencies, took)
	t.refused[p.code()] = t.refused[p.code()].add(p.Detail)
}

func (r Refusal) add(detail string) Refusal {
	if r.Events == 0 {
		r.Detail = detail
	}
	r.Events++
	return r
}

func (r Refusal) plus(other Refusal) Refusal {
	if r.Events == 0 {
		r.Detail = other.Detail
	}
	r.Events += other.Events
	return r
}

func (t *tally) addTo(r *Report) {
	r.Charged += t.chargedNow
	r.Before += t.chargedBefore
	r.Again += t.again
	r.Open = r.Open.plus(t.open)
	r.Sent += t.chargedNow + t.chargedBefore + t.open.Events
	for code, refusal := range t.refused {
		r.Refused[code] = r.Refused[code].plus(refusal)
		r.Sent += refusal.Events
	}
	for unit, credits := range t.credits {
		r.Credits[unit] = r.Credits[unit].Add(credits)
	}
	r.latencies = append(r.latencies, t.latencies...)
}
