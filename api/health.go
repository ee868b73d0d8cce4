package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// healthz tells that the process is up.
func (s *Server) healthz(_ context.Context, c *call) error {
	c.write(http.StatusOK, []byte(`{"status":"ok"}`))
	return nil
}

type readiness struct {
	Status   string `json:"status"`   // ready, stopping or unavailable
	Postgres string `json:"postgres"` // ok or unavailable
	Redis    string `json:"redis"`    // ok, unavailable or off: the answers are the same without it
	Version  string `json:"version"`
}

// probeTimeout is how long a dependency may take to answer.
const probeTimeout = time.Second

// readyz tells whether requests should be sent here.
func (s *Server) readyz(ctx context.Context, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	r := readiness{Status: "ready", Postgres: "ok", Redis: "off", Version: s.version}
	status := http.StatusOK
	if s.redis != nil {
		if r.Redis = "ok"; s.redis(ctx) != nil {
			r.Redis = "unavailable"
		}
	}
	if err := s.store.Pool.Ping(ctx); err != nil {
		r.Status, r.Postgres, status = "unavailable", "unavailable", http.StatusServiceUnavailable
	} else if s.stopping.Load() {
		r.Status, status = "stopping", http.StatusServiceUnavailable
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write document: %w", err)
	}
	c.write(status, body)
	return nil
}

// metricsPage serves what Prometheus reads.
func (s *Server) metricsPage() handler {
	h := promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{})
	return func(_ context.Context, c *call) error {
		c.status = http.StatusOK
		h.ServeHTTP(c.w, c.r)
		return nil
	}
}
