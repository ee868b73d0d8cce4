// Package worker is the process beside the API: the sweeps that keep the books complete, and the Temporal workers that run and show the
// platform's processes.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	sdk "go.temporal.io/sdk/worker"
	"golang.org/x/time/rate"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/webhook"
	"github.com/tallystick/tallystick/workflows"
)

// Config is what a worker needs. Zero fields take the defaults named.
type Config struct {
	Service *balance.Service
	Store   *db.Store
	Log     *slog.Logger

	// Temporal says where Temporal is. Its Interceptors are used for the client and the workers, which is how tracing is added; its
	// MetricsHandler is by default one that publishes in Registry. Its Logger is set from Log.
	Temporal client.Options
	// Prefix is put before the names of task queues and schedules, so that several installations can share a namespace.
	Prefix string

	RecogniseEvery  time.Duration // between recognition runs; 5 minutes
	StartsPerSecond int           // workflows that this process starts at most; 40
	ReconcileEvery  time.Duration // between searches for grants and refunds that have lost their workflow; 1 hour

	Webhooks webhook.Allow  // endpoints besides public ones over HTTPS
	Mail     *webhook.SMTP  // the server for endpoints that are mail addresses; nil: there are none
	Timing   webhook.Timing // of webhook deliveries
	Version  string         // of the program, for those who get webhooks

	Sealer    *audit.Sealer // of closed periods; nil or without a key: they are not sealed
	ExportDir string        // where the journals of closed periods are written; "": nowhere

	Registry prometheus.Registerer // nil: no metrics
}

// SearchAttributes are what the Temporal namespace must know, by name with their type. Run adds those that are missing.
func SearchAttributes() map[string]string { return workflows.SearchAttributes() }

// Run works until ctx ends, and then finishes what it has begun. The sweeps run whether or not Temporal can be reached; everything else waits
// for it. Any number of processes may run at once.
func Run(ctx context.Context, cfg Config) error {
	w, err := newWorker(cfg)
	if err != nil {
		return err
	}
	defer w.client.Close()
	var running sync.WaitGroup
	running.Go(func() { w.repeat(ctx, "expire grants", time.Second, w.expireGrants) })
	running.Go(func() { w.repeat(ctx, "book expiries", time.Second, w.bookExpiries) })
	running.Go(func() { w.repeat(ctx, "forget idempotency keys", 10*time.Minute, w.forgetKeys) })
	running.Go(func() { w.repeat(ctx, "forget windows of limits", 10*time.Minute, w.forgetWindows) })
	running.Go(func() { w.repeat(ctx, "remove old back-tests", 10*time.Minute, w.removeBacktests) })
	running.Go(func() { w.repeat(ctx, "audit the books", 30*time.Second, w.audit) })
	running.Go(func() { w.repeat(ctx, "number journal entries", 2*time.Second, w.numberEntries) })
	running.Go(func() { w.repeat(ctx, "measure the sealer", 5*time.Second, w.measureSealer) })
	running.Go(func() { w.repeat(ctx, "sweep the cache", 10*time.Second, w.sweepCache) })
	running.Go(func() { w.repeat(ctx, "count changed usage", countPause, w.countChanged) })
	running.Go(func() { w.repeat(ctx, "count recent usage", recentPause, w.countRecent) })
	running.Go(func() { w.repeat(ctx, "count all usage", allPause, w.countAll) })
	running.Go(func() { w.repeat(ctx, "measure the outbox", 5*time.Second, w.measureOutbox) })
	running.Go(func() { w.repeat(ctx, "fan events out", 100*time.Millisecond, w.fanOut) })
	running.Go(func() { w.repeat(ctx, "deliver webhooks", 100*time.Millisecond, w.webhooks.take) })
	running.Go(func() { w.repeat(ctx, "forget webhook deliveries", 10*time.Minute, w.forgetDeliveries) })
	running.Go(func() { w.repeat(ctx, "read alert rules", time.Second, w.alerts.refresh) })
	running.Go(func() { w.repeat(ctx, "look at customers for alerts", time.Second, w.alerts.lookAround) })
	running.Go(func() { w.repeat(ctx, "look at top-up rules", time.Second, w.lookAtTopUps) })
	running.Go(func() { w.repeat(ctx, "measure webhooks", 5*time.Second, w.measureWebhooks) })
	running.Go(func() { w.repeat(ctx, "measure the quarantine", 5*time.Second, w.measureQuarantine) })
	running.Go(func() {
		for ctx.Err() == nil {
			w.serveTemporal(ctx)
		}
	})
	running.Wait()
	w.webhooks.running.Wait()
	return nil
}

type worker struct {
	cfg     Config
	log     *slog.Logger
	store   *db.Store
	service *balance.Service
	client  client.Client
	metrics *metrics
	starts  *rate.Limiter
	expired customers // whose expiries are to be booked
	audited time.Time // when the last audit began
	swept   time.Time // when the whole cache was compared last

	webhooks *deliveries
	alerts   *alerts
}

func newWorker(cfg Config) (*worker, error) {
	setDefault(&cfg.RecogniseEvery, 5*time.Minute)
	setDefault(&cfg.StartsPerSecond, 40)
	setDefault(&cfg.ReconcileEvery, time.Hour)
	cfg.Temporal.Logger = sdklog.NewStructuredLogger(cfg.Log)
	if cfg.Temporal.MetricsHandler == nil && cfg.Registry != nil {
		cfg.Temporal.MetricsHandler = newTemporalMetrics(cfg.Registry)
	}
	c, err := client.NewLazyClient(cfg.Temporal)
	if err != nil {
		return nil, fmt.Errorf("make Temporal client: %w", err)
	}
	m, timing := newMetrics(cfg.Registry), cfg.Timing.WithDefaults()
	w := &worker{
		cfg: cfg, log: cfg.Log, store: cfg.Store, service: cfg.Service, client: c, metrics: m,
		starts: rate.NewLimiter(rate.Limit(cfg.StartsPerSecond), max(1, cfg.StartsPerSecond/4)),
		webhooks: &deliveries{store: cfg.Store, client: webhook.NewClient(timing, cfg.Webhooks, cfg.Mail, cfg.Version), timing: timing, metrics: m,
			failed: cfg.Log.WarnContext, free: make(chan struct{}, deliverAtOnce), busy: make(map[credit.EndpointID]int)},
	}
	w.alerts = &alerts{worker: w}
	return w, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// repeat does something again and again until ctx ends: at once while there is more to do, else after the pause. After a failure it tries again
// soon, and then less and less often down to every 10 s; failures are logged when they begin, now and then while they last, and when they end.
func (w *worker) repeat(ctx context.Context, what string, pause time.Duration, do func(context.Context) (more bool, err error)) {
	for failures := 0; ctx.Err() == nil; {
		more, err := do(ctx)
		wait := pause
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case err != nil:
			if failures++; failures&(failures-1) == 0 {
				w.log.ErrorContext(ctx, "cannot "+what, "failures", failures, "error", err)
			}
			w.metrics.failures.WithLabelValues(what).Inc()
			wait = min(100*time.Millisecond<<min(failures, 7), 10*time.Second)
		case failures > 0:
			w.log.InfoContext(ctx, "can "+what+" again", "failures", failures)
			failures = 0
		}
		if more && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// serveTemporal works with Temporal from when it can be reached until ctx ends, or until the SDK gives up on it.
func (w *worker) serveTemporal(ctx context.Context) {
	reached := false
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	w.repeatUntil(until, "reach Temporal", func(ctx context.Context) (bool, error) {
		err := w.prepareTemporal(ctx)
		reached = err == nil
		return reached, err
	})
	if !reached {
		return
	}
	fatal := func(err error) {
		w.log.ErrorContext(ctx, "Temporal worker ended", "error", err)
		cancel()
	}
	a := &activities.Activities{Service: w.service, Store: w.store, Sealer: w.cfg.Sealer, ExportDir: w.cfg.ExportDir}
	grants, finance := w.newSDKWorker(workflows.GrantsQueue, fatal), w.newSDKWorker(workflows.FinanceQueue, fatal)
	workflows.RegisterGrants(grants)
	workflows.RegisterFinance(finance)
	for _, s := range []sdk.Worker{grants, finance} {
		s.RegisterActivity(a)
		if err := s.Start(); err != nil {
			fatal(err)
			break
		}
		defer s.Stop()
	}
	w.log.InfoContext(ctx, "working with Temporal", "address", w.cfg.Temporal.HostPort, "namespace", w.cfg.Temporal.Namespace)

	var running sync.WaitGroup
	for _, t := range w.topics() {
		running.Go(func() { w.repeat(until, "perform "+t.name, 250*time.Millisecond, t.dispatch) })
	}
	running.Go(func() { w.repeat(until, "restore lost workflows", w.cfg.ReconcileEvery, w.reconcile) })
	running.Wait()
}

// repeatUntil is repeat for what is to succeed once.
func (w *worker) repeatUntil(ctx context.Context, what string, do func(context.Context) (done bool, err error)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.repeat(ctx, what, time.Second, func(ctx context.Context) (bool, error) {
		done, err := do(ctx)
		if done {
			defer cancel()
		}
		return done, err
	})
}

// prepareTemporal checks that the namespace answers, and brings its search attributes and schedules up to date.
func (w *worker) prepareTemporal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := w.client.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	if err := w.addSearchAttributes(ctx); err != nil {
		return err
	}
	return w.scheduleRecognition(ctx)
}

func (w *worker) addSearchAttributes(ctx context.Context) error {
	namespace := w.cfg.Temporal.Namespace
	have, err := w.client.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("list search attributes: %w", err)
	}
	missing := map[string]enums.IndexedValueType{}
	var names []string
	for name, kind := range SearchAttributes() {
		if _, ok := have.GetCustomAttributes()[name]; !ok {
			value, err := enums.IndexedValueTypeFromString(kind)
			if err != nil {
				return fmt.Errorf("read the type of search attribute %s: %w", name, err)
			}
			missing[name] = value
			names = append(names, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = w.client.OperatorService().AddSearchAttributes(ctx,
		&operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
	if err != nil {
		return fmt.Errorf("add search attributes %s to namespace %s: %w", strings.Join(names, ", "), namespace, err)
	}
	return nil
}

func (w *worker) newSDKWorker(queue string, fatal func(error)) sdk.Worker {
	return sdk.New(w.client, w.cfg.Prefix+queue, sdk.Options{
		MaxConcurrentActivityExecutionSize:     32, // each holds a database connection at most
		MaxConcurrentWorkflowTaskExecutionSize: 64,
		WorkerStopTimeout:                      10 * time.Second,
		MaxHeartbeatThrottleInterval:           2 * time.Second, // the shortest timeout of heartbeats is 10 s; by default 8 s would pass between two
		OnFatalError:                           fatal,
	})
}

// A grant sleeps for months between two tasks, and its history is short. Workflows kept in memory would serve no later task; they would only have
// Temporal wait for a worker that no longer runs before it asks another one.
func init() { sdk.SetStickyWorkflowCacheSize(0) }

var errUnreachable = errors.New("no answer from Temporal")
