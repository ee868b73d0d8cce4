// Package api is the product over HTTP: a thin layer that reads requests strictly, hands them to the balance service or the store, and answers
// with documents and RFC 9457 problems. openapi.yaml describes it; tests keep the two the same.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/webhook"
)

// Config is what a [Server] works with.
type Config struct {
	Service  *balance.Service
	Store    *db.Store
	Log      *slog.Logger
	Registry *prometheus.Registry        // nil: one of its own
	Tracer   trace.TracerProvider        // nil: nothing is traced, and nothing on the way to a handler knows of traces
	Redis    func(context.Context) error // tells whether Redis answers, for /readyz; nil: there is none
	Version  string                      // of the program, for /readyz
	Sealer   *audit.Sealer               // nil: nothing can be sealed
	Webhooks webhook.Allow               // endpoints besides public ones over HTTPS

	MaxEventsBody int64 // bytes of a call with usage events that is no stream; 0: DefaultEventsBody
}

// DefaultEventsBody is [Config].MaxEventsBody when nothing is said.
const DefaultEventsBody = 16 << 20

// Server serves the API.
type Server struct {
	service  *balance.Service
	store    *db.Store
	log      *slog.Logger
	registry *prometheus.Registry
	redis    func(context.Context) error
	version  string
	tracing  bool
	keys     *keyring
	names    names
	metrics  *metrics
	routes   []*route
	handler  http.Handler
	stopping atomic.Bool
	webhooks webhook.Allow
	streams  *streams
	sealer   *audit.Sealer

	maxEvents int64               // bytes of a call with usage events
	ingesting *semaphore.Weighted // usage events under way
}

// New makes a server. It fails only when its own description of the API is broken.
func New(cfg Config) (*Server, error) {
	s := &Server{
		service: cfg.Service, store: cfg.Store, log: cfg.Log, registry: cfg.Registry, redis: cfg.Redis, version: cfg.Version, tracing: cfg.Tracer != nil,
		keys: newKeyring(cfg.Store), names: newNames(), webhooks: cfg.Webhooks, sealer: cfg.Sealer, maxEvents: cfg.MaxEventsBody,
		ingesting: semaphore.NewWeighted(maxIngesting),
	}
	if s.maxEvents == 0 {
		s.maxEvents = DefaultEventsBody
	}
	if s.registry == nil {
		s.registry = prometheus.NewRegistry()
	}
	s.metrics, s.streams = newMetrics(s.registry), newStreams(cfg.Store, s.registry)
	docs, err := theDocs()
	if err != nil {
		return nil, fmt.Errorf("read the API's description: %w", err)
	}
	e := echo.New()
	e.HTTPErrorHandler = s.unrouted
	for _, rt := range append(s.table(), docs.routes()...) {
		rt := &rt
		s.metrics.watch(rt)
		s.routes = append(s.routes, rt)
		e.Add(rt.Method, rt.Path, s.adapt(rt))
	}
	s.handler = e
	if s.tracing {
		s.handler = otelhttp.NewHandler(e, "api", otelhttp.WithTracerProvider(cfg.Tracer), otelhttp.WithFilter(func(r *http.Request) bool {
			return r.URL.Path != "/healthz" && r.URL.Path != "/readyz" && r.URL.Path != "/metrics"
		}))
	}
	return s, nil
}

// Handler returns the API as a handler.
func (s *Server) Handler() http.Handler { return s.handler }

// Limits of a connection. An operation is answered within about 5 s whatever happens, and a body is small.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 2 * time.Minute
	drainTimeout  = 20 * time.Second
	maxHeader     = 16 << 10
)

// Run listens on addr and serves until ctx ends; then it takes no more connections and finishes the requests in progress.
func (s *Server) Run(ctx context.Context, addr string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return s.Serve(ctx, l)
}

// Serve is Run with a listener, which it closes. Streams end at once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	base := context.WithoutCancel(ctx) // requests in progress are finished, not cancelled
	srv := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return base },
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	if !s.stopping.Swap(true) {
		close(s.streams.ended)
	}
	drain, cancel := context.WithTimeout(base, drainTimeout)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("finish requests: %w", err), srv.Close())
	}
	return nil
}
