package balance

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/tallystick/tallystick/db"
)

type metrics struct {
	batches       prometheus.Counter
	batchSize     prometheus.Histogram
	operations    prometheus.Counter
	movements     prometheus.Counter
	reruns        prometheus.Counter
	unknown       prometheus.Counter
	shed          prometheus.Counter
	clockSkew     prometheus.Counter
	hints         [3]prometheus.Counter // by hint
	pushes        countOf
	pushesDropped prometheus.Counter
	cacheErrors   prometheus.Counter
	drift         prometheus.Counter
	quarantined   prometheus.Counter
}

type countOf struct{ prometheus.Counter }

func (c countOf) Add(n int) { c.Counter.Add(float64(n)) }

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tallystick", Subsystem: "balance", Name: name, Help: help})
		if r != nil {
			r.MustRegister(c)
		}
		return c
	}
	m := &metrics{
		batches:       counter("batches_total", "Transactions that decided operations."),
		operations:    counter("operations_total", "Operations committed."),
		movements:     counter("movements_total", "Movements of credits committed."),
		reruns:        counter("batch_reruns_total", "Batches run again after a conflict, a fault or an unknown outcome."),
		unknown:       counter("unknown_outcomes_total", "Commits whose outcome was not known at first."),
		shed:          counter("shed_total", "Requests turned away because too many were waiting."),
		clockSkew:     counter("clock_skew_total", "Batches refused because this process's clock differs from the database's."),
		pushesDropped: counter("cache_pushes_dropped_total", "Snapshots not brought to the cache because too many were waiting."),
		cacheErrors:   counter("cache_errors_total", "Calls of the cache that failed."),
		drift:         counter("cache_drift_total", "Cached customers found to differ from Postgres and repaired."),
		quarantined:   counter("quarantined_total", "Consumptions kept because they could not be priced."),
		pushes:        countOf{counter("cache_pushes_total", "Snapshots brought to the cache.")},
	}
	for h, name := range [...]string{hintNone: "none", hintOK: "ok", hintDeny: "deny"} {
		m.hints[h] = counter("cache_hint_"+name+"_total", "Consumptions of which the cache said: "+name+".")
	}
	m.batchSize = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "tallystick", Subsystem: "balance", Name: "batch_size", Help: "Operations in one transaction.",
		Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256},
	})
	if r != nil {
		r.MustRegister(m.batchSize)
	}
	return m
}

func (m *metrics) batch(jobs int, c *db.Changes) {
	m.batches.Inc()
	m.batchSize.Observe(float64(jobs))
	m.operations.Add(float64(len(c.Operations)))
	m.movements.Add(float64(len(c.Movements)))
	m.quarantined.Add(float64(len(c.Quarantined)))
}

// traced remembers the span that a job belongs to, so that its batch's span links to it.
func (s *Service) traced(ctx context.Context, j *job) {
	j.span = trace.SpanContextFromContext(ctx)
}

// trace begins the span of a batch. One transaction serves many requests: it links to their spans, and is a child of the first.
func (s *Service) trace(ctx context.Context, jobs []*job) (context.Context, func(error)) {
	if s.cfg.Tracer == nil {
		return ctx, func(error) {}
	}
	links := make([]trace.Link, 0, len(jobs))
	for _, j := range jobs {
		if j.span.IsValid() {
			links = append(links, trace.Link{SpanContext: j.span})
		}
	}
	if len(links) > 0 {
		ctx = trace.ContextWithRemoteSpanContext(ctx, links[0].SpanContext)
	}
	ctx, span := s.cfg.Tracer.Start(ctx, "balance.batch", trace.WithLinks(links...), trace.WithAttributes(attribute.Int("operations", len(jobs))))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}
