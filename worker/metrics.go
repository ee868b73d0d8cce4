package worker

import (
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"
)

type metrics struct {
	expired, forgotten, restored, frozen prometheus.Counter
	expiryLag                            prometheus.Histogram
	performed, failures                  *prometheus.CounterVec
	waiting, oldest                      *prometheus.GaugeVec
	quarantined, quarantinedOldest       prometheus.Gauge
	unnumbered, unnumberedOldest         prometheus.Gauge

	usageOperations          prometheus.Counter
	usageLag                 prometheus.Histogram
	usageBehind, usageOldest prometheus.Gauge

	attempts                                                          *prometheus.CounterVec
	deliveryLag                                                       prometheus.Histogram
	deliveriesForgotten                                               prometheus.Counter
	webhooksWaiting, webhooksOldest, eventsWaiting, endpointsDisabled prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	const namespace, subsystem = "tallystick", "worker"
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	m := &metrics{
		expired:   prometheus.NewCounter(counter("grants_expired_total", "Grants expired by the sweep.")),
		forgotten: prometheus.NewCounter(counter("keys_forgotten_total", "Idempotency keys deleted for their age.")),
		restored:  prometheus.NewCounter(counter("workflows_restored_total", "Grants and refunds that had lost their workflow and got a new one.")),
		frozen:    prometheus.NewCounter(counter("customers_frozen_total", "Customers frozen because their books do not agree with themselves.")),
		expiryLag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "expiry_lag_seconds", Help: "From a grant's expiry to when the sweep had booked it.",
			Buckets: []float64{0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 3600},
		}),
		performed:         prometheus.NewCounterVec(counter("outbox_performed_total", "Outbox items done."), []string{"topic"}),
		failures:          prometheus.NewCounterVec(counter("failures_total", "Passes of a loop that failed."), []string{"loop"}),
		waiting:           prometheus.NewGaugeVec(gauge("outbox_waiting", "Outbox items that wait."), []string{"topic"}),
		quarantined:       prometheus.NewGauge(gauge("quarantine_waiting", "Consumptions that wait until they can be priced.")),
		quarantinedOldest: prometheus.NewGauge(gauge("quarantine_oldest_seconds", "Age of the oldest consumption that waits until it can be priced.")),
		oldest:            prometheus.NewGaugeVec(gauge("outbox_oldest_seconds", "Age of the oldest outbox item that waits."), []string{"topic"}),
	}
	m.unnumbered = prometheus.NewGauge(gauge("entries_unnumbered", "Journal entries that the sealer has given no number yet."))
	m.unnumberedOldest = prometheus.NewGauge(gauge("entries_unnumbered_oldest_seconds", "Age of the oldest journal entry that the sealer has given no number yet."))
	m.attempts = prometheus.NewCounterVec(counter("webhook_attempts_total", "Attempts of webhook deliveries."), []string{"outcome"})
	m.deliveryLag = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "webhook_lag_seconds", Help: "From an event to when an endpoint had taken it.",
		Buckets: []float64{0.25, 0.5, 1, 2, 5, 15, 60, 300, 3600, 86400},
	})
	m.deliveriesForgotten = prometheus.NewCounter(counter("webhook_deliveries_forgotten_total", "Webhook deliveries deleted for their age."))
	m.webhooksWaiting = prometheus.NewGauge(gauge("webhook_waiting", "Deliveries that wait for enabled webhook endpoints."))
	m.webhooksOldest = prometheus.NewGauge(gauge("webhook_oldest_seconds", "Age of the oldest delivery that waits for an enabled webhook endpoint."))
	m.eventsWaiting = prometheus.NewGauge(gauge("webhook_events_waiting", "Events for which no deliveries were made yet."))
	m.endpointsDisabled = prometheus.NewGauge(gauge("webhook_endpoints_disabled", "Webhook endpoints disabled because they do not take deliveries."))
	m.usageOperations = prometheus.NewCounter(counter("usage_operations_total", "Operations counted in slices of usage."))
	m.usageLag = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "usage_lag_seconds", Help: "From the first operation that a pass counted to when it had counted it.",
		Buckets: []float64{0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 300, 3600},
	})
	m.usageBehind = prometheus.NewGauge(gauge("usage_behind", "Customers with operations that were not counted at the last look at all of them."))
	m.usageOldest = prometheus.NewGauge(gauge("usage_oldest_seconds", "Age of the oldest operation that was not counted at the last look at all customers."))
	if r != nil {
		r.MustRegister(m.usageOperations, m.usageLag, m.usageBehind, m.usageOldest)
		r.MustRegister(m.unnumbered, m.unnumberedOldest)
		r.MustRegister(m.expired, m.forgotten, m.restored, m.frozen, m.expiryLag, m.performed, m.failures, m.waiting, m.oldest, m.quarantined, m.quarantinedOldest, m.attempts, m.deliveryLag,
			m.deliveriesForgotten, m.webhooksWaiting, m.webhooksOldest, m.eventsWaiting, m.endpointsDisabled)
	}
	return m
}

// temporalMetrics publishes the metrics of Temporal's SDK. The SDK gives one metric different tags at different times; Prometheus wants the
// same ones always, so every metric has all of temporalTags, empty where the SDK says nothing.
type temporalMetrics struct {
	vectors *temporalVectors
	tags    prometheus.Labels
}

var temporalTags = []string{"namespace", "task_queue", "workflow_type", "activity_type", "worker_type", "poller_type", "operation", "status_code", "failure_reason", "cause"}

type temporalVectors struct {
	registry   prometheus.Registerer
	mu         sync.Mutex
	counters   map[string]*prometheus.CounterVec
	gauges     map[string]*prometheus.GaugeVec
	histograms map[string]*prometheus.HistogramVec
}

func newTemporalMetrics(r prometheus.Registerer) client.MetricsHandler {
	tags := make(prometheus.Labels, len(temporalTags))
	for _, t := range temporalTags {
		tags[t] = ""
	}
	return &temporalMetrics{tags: tags, vectors: &temporalVectors{
		registry: r, counters: map[string]*prometheus.CounterVec{}, gauges: map[string]*prometheus.GaugeVec{}, histograms: map[string]*prometheus.HistogramVec{},
	}}
}

func (h *temporalMetrics) WithTags(tags map[string]string) client.MetricsHandler {
	all := maps.Clone(h.tags)
	for name, value := range tags {
		if _, known := all[name]; known {
			all[name] = value
		}
	}
	return &temporalMetrics{vectors: h.vectors, tags: all}
}

func (h *temporalMetrics) Counter(name string) client.MetricsCounter {
	v := vector(h.vectors, h.vectors.counters, name, func() *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "_total", Help: "Counted by Temporal's SDK."}, temporalTags)
	})
	c := v.With(h.tags)
	return counterFunc(func(n int64) { c.Add(float64(n)) })
}

func (h *temporalMetrics) Gauge(name string) client.MetricsGauge {
	v := vector(h.vectors, h.vectors.gauges, name, func() *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: "Measured by Temporal's SDK."}, temporalTags)
	})
	g := v.With(h.tags)
	return gaugeFunc(g.Set)
}

func (h *temporalMetrics) Timer(name string) client.MetricsTimer {
	v := vector(h.vectors, h.vectors.histograms, name, func() *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name + "_seconds", Help: "Timed by Temporal's SDK.",
			Buckets: []float64{0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600}}, temporalTags)
	})
	o := v.With(h.tags)
	return timerFunc(func(d time.Duration) { o.Observe(d.Seconds()) })
}

func vector[V prometheus.Collector](t *temporalVectors, known map[string]V, name string, make func() V) V {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := known[name]
	if !ok {
		v = make()
		t.registry.MustRegister(v)
		known[name] = v
	}
	return v
}

type (
	counterFunc func(int64)
	gaugeFunc   func(float64)
	timerFunc   func(time.Duration)
)

func (f counterFunc) Inc(n int64)          { f(n) }
func (f gaugeFunc) Update(v float64)       { f(v) }
func (f timerFunc) Record(d time.Duration) { f(d) }
