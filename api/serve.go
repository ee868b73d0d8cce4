package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tallystick/tallystick/credit"
)

// route is one operation of the API.
type route struct {
	Method, Path string
	Roles        roles // besides admin; public: no key is asked for
	handle       handler
	limit        int64         // of the body; 0: maxBody
	timeout      time.Duration // of the handler's context; 0: none
	stream       bool          // how long it takes says nothing
	ok           prometheus.Counter
	seconds      prometheus.Observer
}

// changes tells whether a call may have changed something.
func (rt *route) changes() bool { return rt.Method != http.MethodGet }

var calls = sync.Pool{New: func() any { return new(call) }}

// adapt makes Echo's handler of a route. It is the only middleware: request id, key, panics, metrics, log.
func (s *Server) adapt(rt *route) echo.HandlerFunc {
	if rt.limit == 0 {
		rt.limit = maxBody
	}
	return func(ec echo.Context) error {
		c := calls.Get().(*call)
		*c = call{Server: s, w: ec.Response().Writer, r: ec.Request(), route: rt, path: ec, id: credit.NewID[credit.RequestID](), started: time.Now()}
		s.serve(c)
		*c = call{}
		calls.Put(c)
		return nil
	}
}

func (s *Server) serve(c *call) {
	defer s.finish(c)
	c.w.Header()["X-Request-Id"] = []string{c.id.String()}
	ctx := c.r.Context()
	if s.tracing {
		trace.SpanFromContext(ctx).SetName(c.route.Method + " " + c.route.Path)
	}
	if c.route.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.route.timeout)
		defer cancel()
	}
	err := s.admit(ctx, c)
	if err == nil {
		err = c.route.handle(ctx, c)
	}
	if err != nil {
		s.fail(c, err)
	}
}

// admit asks for a key of a role that may do this.
func (s *Server) admit(ctx context.Context, c *call) error {
	if c.route.Roles == public {
		return nil
	}
	header := ""
	if h := c.r.Header["Authorization"]; len(h) == 1 {
		header = h[0]
	}
	var err error
	if c.caller, err = s.keys.find(ctx, header, c.started); err != nil {
		return err
	}
	if c.caller.role&(c.route.Roles|admin) == 0 {
		return credit.Errorf(credit.Forbidden, "This needs a key of one of the roles %s; this key's role is %s.", c.route.Roles|admin, c.caller.role)
	}
	return nil
}

// fail answers with the problem that an error is. A fault is logged here, and only here.
func (s *Server) fail(c *call, err error) {
	e := refusalOf(err, c.route.changes())
	if gone := c.r.Context().Err() != nil; !gone && (e.Code == credit.Internal || !errors.As(err, new(*credit.Error))) {
		level := slog.LevelWarn // Postgres is away
		if e.Code == credit.Internal {
			level = slog.LevelError
		}
		s.log.Log(c.r.Context(), level, "request failed", "request_id", c.id, "method", c.route.Method, "route", c.route.Path, "error", err)
	}
	if c.status == 0 {
		c.status = writeProblem(c.w, e, c.id)
	}
}

// finish runs when the handler is done, however it ended.
func (s *Server) finish(c *call) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			panic(p)
		}
		s.fail(c, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
	}
	took := time.Since(c.started)
	if !c.route.stream {
		c.route.seconds.Observe(took.Seconds())
	}
	if c.status == http.StatusOK {
		c.route.ok.Inc()
	} else {
		s.metrics.requests.WithLabelValues(c.route.Method, c.route.Path, strconv.Itoa(c.status)).Inc()
	}
	if s.log.Enabled(c.r.Context(), slog.LevelDebug) {
		s.log.DebugContext(c.r.Context(), "request", "request_id", c.id, "method", c.route.Method, "route", c.route.Path, "status", c.status,
			"took", took, "actor", actorText(c.caller.no))
	}
}

// unrouted answers what no route serves. Handlers' own errors never come here.
func (s *Server) unrouted(err error, ec echo.Context) {
	e := credit.Errorf(credit.NotFound, "There is nothing at this path.")
	if errors.Is(err, echo.ErrMethodNotAllowed) {
		e = credit.Errorf(credit.MethodNotAllowed, "%.16q is not a method of this path.", ec.Request().Method)
	}
	id := credit.NewID[credit.RequestID]()
	w := ec.Response().Writer
	w.Header()["X-Request-Id"] = []string{id.String()}
	status := writeProblem(w, e, id)
	s.metrics.requests.WithLabelValues("other", "none", strconv.Itoa(status)).Inc()
}

// metrics of HTTP.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	events   *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tallystick", Subsystem: "http", Name: "requests_total", Help: "Requests answered.",
		}, []string{"method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "tallystick", Subsystem: "http", Name: "request_seconds", Help: "Time from a request's arrival to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "route"}),
	}
	m.events = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tallystick", Subsystem: "ingest", Name: "events_total", Help: "Usage events answered, by outcome.",
	}, []string{"outcome"})
	r.MustRegister(m.requests, m.seconds, m.events)
	return m
}

func (m *metrics) watch(rt *route) {
	rt.ok = m.requests.WithLabelValues(rt.Method, rt.Path, "200")
	rt.seconds = m.seconds.WithLabelValues(rt.Method, rt.Path)
}
