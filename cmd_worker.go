package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.temporal.io/sdk/client"
	temporalotel "go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/interceptor"

	"github.com/tallystick/tallystick/webhook"
	"github.com/tallystick/tallystick/worker"
)

type workerCmd struct {
	connectFlags
	workerFlags

	TemporalAddress   string `required:"" env:"TEMPORAL_ADDRESS" placeholder:"HOST:PORT" help:"Temporal to work for. Balances stay right while it cannot be reached."`
	TemporalNamespace string `default:"billing" env:"TEMPORAL_NAMESPACE" placeholder:"NAME" help:"Temporal namespace."`
	Metrics           string `env:"TALLYSTICK_WORKER_METRICS" placeholder:"HOST:PORT" help:"Serve /metrics and /healthz here; empty: nowhere."`
}

// workerFlags are the worker's own settings.
type workerFlags struct {
	RecogniseEvery  time.Duration `default:"5m" env:"TALLYSTICK_RECOGNISE_EVERY" placeholder:"DURATION" help:"Time between runs of revenue recognition."`
	StartsPerSecond int           `default:"40" env:"TALLYSTICK_WORKFLOW_STARTS" placeholder:"N" help:"Workflows started per second at most."`

	ExportDir string `type:"path" env:"TALLYSTICK_EXPORT_DIR" placeholder:"DIR" help:"Where the journals of closed periods are written, with their manifests; without it nowhere."`

	webhookFlags
}

// webhookFlags say where webhooks may lead to. The API checks URLs by them, the worker the addresses that it dials.
type webhookFlags struct {
	WebhookAllowPrivate bool   `env:"TALLYSTICK_WEBHOOK_ALLOW_PRIVATE" help:"Let webhook endpoints have private, loopback and other addresses that are not public."`
	WebhookAllowHTTP    bool   `name:"webhook-allow-http" env:"TALLYSTICK_WEBHOOK_ALLOW_HTTP" help:"Let webhook endpoints be plain HTTP."`
	SMTP                string `env:"TALLYSTICK_SMTP" placeholder:"URL" help:"Mail server for endpoints that are mail addresses: smtp://user:password@host:587?from=address, or smtps://. Empty: there are none."`
}

func (f webhookFlags) allow() webhook.Allow {
	return webhook.Allow{Private: f.WebhookAllowPrivate, HTTP: f.WebhookAllowHTTP, Mail: f.SMTP != ""}
}

// mail is the mail server; nil: none.
func (f webhookFlags) mail() (*webhook.SMTP, error) {
	if f.SMTP == "" {
		return nil, nil
	}
	return webhook.ParseSMTP(f.SMTP)
}

// Run works until ctx ends.
func (c *workerCmd) Run(ctx context.Context, env environ) error {
	p, err := openProduct(ctx, "worker", c.connectFlags, env.stderr)
	if err != nil {
		return err
	}
	defer p.close(ctx)
	cfg, err := workerConfig(p, c.workerFlags, c.TemporalAddress, c.TemporalNamespace)
	if err != nil {
		return err
	}
	if c.Metrics != "" {
		stop, err := serveMetrics(ctx, p, c.Metrics)
		if err != nil {
			return err
		}
		defer stop()
	}
	return worker.Run(ctx, cfg)
}

func workerConfig(p *product, f workerFlags, address, namespace string) (worker.Config, error) {
	smtp, err := f.mail()
	if err != nil {
		return worker.Config{}, err
	}
	cfg := worker.Config{
		Service: p.service, Store: p.store, Log: p.log, Registry: p.registry, RecogniseEvery: f.RecogniseEvery, StartsPerSecond: f.StartsPerSecond,
		Temporal: client.Options{HostPort: address, Namespace: namespace}, Webhooks: f.allow(), Mail: smtp, Version: version(),
		Sealer: p.sealer, ExportDir: f.ExportDir,
	}
	if p.tracing != nil {
		tracing, err := temporalotel.NewTracingInterceptor(temporalotel.TracerOptions{
			Tracer: p.tracing.Tracer("github.com/tallystick/tallystick/worker"),
		})
		if err != nil {
			return cfg, fmt.Errorf("trace Temporal: %w", err)
		}
		cfg.Temporal.Interceptors = []interceptor.ClientInterceptor{tracing}
	}
	return cfg, nil
}

// serveMetrics publishes the worker's metrics until stop is called.
func serveMetrics(ctx context.Context, p *product, addr string) (stop func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(l); err != http.ErrServerClosed {
			p.log.Error("metrics are no longer served", "error", err)
		}
	}()
	return func() { _ = server.Close() }, nil
}
