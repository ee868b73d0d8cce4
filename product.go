package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/db"
)

// connectFlags say where everything is. They are the same for every subcommand that works on a deployment.
type connectFlags struct {
	DatabaseURL  string `name:"database-url" env:"DATABASE_URL" placeholder:"URL" help:"Postgres to work on. The role must be a member of tallystick_app."`
	RedisAddr    string `env:"REDIS_ADDR" placeholder:"HOST:PORT" help:"Redis for the copy of balances; without one every balance is read from Postgres."`
	Lanes        int    `env:"TALLYSTICK_LANES" placeholder:"N" help:"Connections that decide operations, each one transaction at a time; one for every four processors. Fewer make larger batches."`
	FXBase       string `name:"fx-base" default:"EUR" env:"TALLYSTICK_FX_BASE" placeholder:"CODE" help:"Currency through which two others are converted when nobody quotes them against each other: the same in all processes."`
	FXMaxAge     int    `name:"fx-max-age-days" default:"7" env:"TALLYSTICK_FX_MAX_AGE_DAYS" placeholder:"DAYS" help:"How old an exchange rate may be on the day of an event; an older one is refused. The same in all processes."`
	OTLPEndpoint string `name:"otlp-endpoint" env:"OTEL_EXPORTER_OTLP_ENDPOINT" placeholder:"URL" help:"Where to send traces by OTLP over HTTP; without one nothing is traced."`
	LogFormat    string `default:"text" enum:"text,json" env:"TALLYSTICK_LOG_FORMAT" help:"Form of the log: ${enum}."`
	LogLevel     string `default:"info" enum:"debug,info,warn,error" env:"TALLYSTICK_LOG_LEVEL" help:"Least level that is logged: ${enum}."`

	sealFlags
}

// product is what the subcommands share: connections and the balance service.
type product struct {
	log      *slog.Logger
	registry *prometheus.Registry
	tracing  *sdktrace.TracerProvider // nil: nothing is traced
	store    *db.Store
	redis    *redis.Client // nil: none
	service  *balance.Service
	sealer   *audit.Sealer
}

// openProduct connects and starts the balance service. name tells processes apart in traces.
func openProduct(ctx context.Context, name string, f connectFlags, logTo io.Writer) (_ *product, err error) {
	if f.DatabaseURL == "" {
		return nil, errors.New("no Postgres is named: give --database-url, or set DATABASE_URL")
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // the heap is small and short-lived: collecting less often is cheaper than the memory
	}
	p := &product{log: newLogger(f, logTo), registry: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			p.close(ctx)
		}
	}()
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if p.sealer, err = audit.OpenSealer(f.SealKey, f.SealDir); err != nil {
		return nil, err
	}
	var queries pgx.QueryTracer
	if f.OTLPEndpoint != "" {
		if p.tracing, err = startTracing(ctx, name, f.OTLPEndpoint); err != nil {
			return nil, err
		}
		queries = otelpgx.NewTracer(otelpgx.WithTracerProvider(p.tracing))
	}
	if p.store, err = db.Open(ctx, f.DatabaseURL, db.Options{Tracer: queries}); err != nil {
		return nil, err
	}
	arbiter, err := db.NewArbiter(f.DatabaseURL, queries)
	if err != nil {
		return nil, err
	}
	var cache *balance.Cache
	if f.RedisAddr != "" {
		p.redis = redis.NewClient(balance.CacheOptions(f.RedisAddr))
		if p.tracing != nil {
			if err := redisotel.InstrumentTracing(p.redis, redisotel.WithTracerProvider(p.tracing)); err != nil {
				return nil, fmt.Errorf("trace Redis: %w", err)
			}
		}
		cache = balance.NewCache(p.redis)
	}
	if f.FXMaxAge < 0 || f.FXMaxAge > 366 {
		return nil, errors.New("--fx-max-age-days is a number from 0 to 366")
	}
	cfg := balance.Config{Lanes: f.Lanes, Registry: p.registry, FX: fx.Policy{Base: f.FXBase, MaxAgeDays: f.FXMaxAge}}
	cfg.Backfills = name == "worker" || name == "dev" // what works for Temporal
	cfg.LooksOnly = name == "verify"                  // it checks what the others do
	if err := armFailpoints(&cfg); err != nil {
		return nil, err
	}
	if p.tracing != nil {
		cfg.Tracer = p.tracing.Tracer("github.com/tallystick/tallystick/balance")
	}
	p.service, err = balance.NewService(ctx, cfg, arbiter, p.store, cache, p.log)
	return p, err
}

// close ends what openProduct began, in reverse. Operations that wait are finished first.
func (p *product) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	var errs []error
	if p.service != nil {
		errs = append(errs, p.service.Stop(ctx))
	}
	if p.redis != nil {
		errs = append(errs, p.redis.Close())
	}
	if p.store != nil {
		p.store.Close()
	}
	if p.tracing != nil {
		errs = append(errs, p.tracing.Shutdown(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		p.log.Error("not everything ended well", "error", err)
	}
}

// tracer returns the provider as an interface that is nil when nothing is traced.
func (p *product) tracer() trace.TracerProvider {
	if p.tracing == nil {
		return nil
	}
	return p.tracing
}

// pingRedis tells whether Redis answers; nil when there is none to ask.
func (p *product) pingRedis() func(context.Context) error {
	if p.redis == nil {
		return nil
	}
	return func(ctx context.Context) error { return p.redis.Ping(ctx).Err() }
}

func newLogger(f connectFlags, to io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(to, o))
	}
	return slog.New(slog.NewTextHandler(to, o))
}

// startTracing sends spans to a collector; the other OTEL_EXPORTER_OTLP_* variables say how.
func startTracing(ctx context.Context, name, endpoint string) (*sdktrace.TracerProvider, error) {
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(strings.TrimRight(endpoint, "/")+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("start tracing: %w", err)
	}
	res, err := resource.New(ctx, resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithProcessPID(), resource.WithAttributes(attribute.String("service.name", "tallystick-"+name)))
	if err != nil {
		return nil, fmt.Errorf("describe this process for traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return provider, nil
}

// ensureAPIKey makes an API key with a role known, unless it is.
func ensureAPIKey(ctx context.Context, store *db.Store, key, name, role string) error {
	if len(key) < 20 {
		return errors.New("an API key has at least 20 characters")
	}
	digest := sha256.Sum256([]byte(key))
	if _, err := store.APIKey(ctx, digest); credit.CodeOf(err) != credit.Unauthenticated {
		return err
	}
	_, _, err := store.Change(ctx, db.Audited{Action: "create_api_key", RequestID: credit.NewID[credit.RequestID]()}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		row, err := c.AddAPIKey(ctx, db.APIKeyRow{Name: name, Role: role, Hint: key[len(key)-4:]}, digest)
		return db.Outcome{Status: 201, Answer: []byte("{}"), Subject: fmt.Sprintf("key_%d", row.No)}, err
	})
	if credit.CodeOf(err) == credit.AlreadyExists { // another process has made it just now
		return nil
	}
	return err
}
