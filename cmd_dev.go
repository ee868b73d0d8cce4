package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tallystick/tallystick/devstack"
	"github.com/tallystick/tallystick/worker"
)

type devCmd struct {
	Up    devUpCmd    `cmd:"" default:"withargs" help:"Start Postgres, Redis and Temporal in private directories, then the platform, until Ctrl-C. The default."`
	Exec  devExecCmd  `cmd:"" help:"Run a command against servers of its own, which are gone afterwards."`
	Reset devResetCmd `cmd:"" help:"Delete the data of Postgres, Redis and Temporal, all together."`
}

// devDir is where the data of the development stack is kept.
type devDir struct {
	Dir string `default:".tallystick" env:"TALLYSTICK_DIR" placeholder:"DIR" help:"Data directory."`
}

type devUpCmd struct {
	devDir
	workerFlags

	Listen       string `default:"127.0.0.1:8080" env:"TALLYSTICK_LISTEN" placeholder:"HOST:PORT" help:"Address for the API; another port when it is taken."`
	OTLPEndpoint string `name:"otlp-endpoint" env:"OTEL_EXPORTER_OTLP_ENDPOINT" placeholder:"URL" help:"Where to send traces by OTLP over HTTP; without one nothing is traced."`

	PostgresPort     int    `env:"TALLYSTICK_POSTGRES_PORT" placeholder:"PORT" help:"Port for Postgres; the last one used, or 15432."`
	RedisPort        int    `env:"TALLYSTICK_REDIS_PORT" placeholder:"PORT" help:"Port for Redis; the last one used, or 16379."`
	TemporalPort     int    `env:"TALLYSTICK_TEMPORAL_PORT" placeholder:"PORT" help:"Port for Temporal; the last one used, or 7233."`
	TemporalUIPort   int    `name:"temporal-ui-port" env:"TALLYSTICK_TEMPORAL_UI_PORT" placeholder:"PORT" help:"Port for the Temporal UI; the last one used, or 8233."`
	TemporalHTTPPort int    `name:"temporal-http-port" env:"TALLYSTICK_TEMPORAL_HTTP_PORT" placeholder:"PORT" help:"Port for Temporal's HTTP API; the last one used, or 7243."`
	TemporalBin      string `env:"TALLYSTICK_TEMPORAL_BIN" placeholder:"FILE" help:"Temporal CLI to run the server with."`

	DatabaseURL       string `name:"database-url" env:"DATABASE_URL" placeholder:"URL" help:"Use this Postgres and start none."`
	RedisAddr         string `env:"REDIS_ADDR" placeholder:"HOST:PORT" help:"Use this Redis and start none."`
	TemporalAddress   string `env:"TEMPORAL_ADDRESS" placeholder:"HOST:PORT" help:"Use this Temporal and start none."`
	TemporalNamespace string `default:"billing" env:"TEMPORAL_NAMESPACE" placeholder:"NAME" help:"Temporal namespace."`
}

// Run runs the stack and the platform until ctx ends, which is no error, or a part of them fails.
func (c *devUpCmd) Run(ctx context.Context, env environ) (err error) {
	if env.vars["MAKELEVEL"] != "" {
		defer takeTerminal()()
	}
	began := time.Now()
	stack, err := devstack.Start(ctx, devstack.Options{
		Dir:         c.Dir,
		Postgres:    c.DatabaseURL == "",
		Redis:       c.RedisAddr == "",
		Temporal:    c.TemporalAddress == "",
		TemporalBin: c.TemporalBin,
		Ports: devstack.Ports{
			Postgres:     c.PostgresPort,
			Redis:        c.RedisPort,
			TemporalGRPC: c.TemporalPort,
			TemporalUI:   c.TemporalUIPort,
			TemporalHTTP: c.TemporalHTTPPort,
		},
		TemporalNamespace: c.TemporalNamespace,
		SearchAttributes:  worker.SearchAttributes(),
		Log:               env.stdout,
	})
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // Ctrl-C while starting
	}
	var running *devstack.AlreadyRunning
	if errors.As(err, &running) {
		fmt.Fprintln(env.stdout, "tallystick:", running)
		if a, err := access(c.Dir); err == nil {
			fmt.Fprintf(env.stdout, "  %-12s %s\n", "API key", a.APIKey)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if c.DatabaseURL != "" {
		stack.DatabaseURL = c.DatabaseURL
	}
	if c.RedisAddr != "" {
		stack.RedisAddr = c.RedisAddr
	}
	if c.TemporalAddress != "" {
		stack.TemporalAddress, stack.TemporalNamespace = c.TemporalAddress, c.TemporalNamespace
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if stopErr := stack.Stop(stopCtx); stopErr != nil {
			err = errors.Join(err, fmt.Errorf("stop the servers: %w", stopErr))
		}
	}()
	printStack(env.stdout, stack, time.Since(began))

	platformCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.platform(platformCtx, stack, env.stdout) }()
	select {
	case err := <-ended:
		if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
			return nil
		}
		return err
	case err := <-stack.Done():
		cancel()
		return errors.Join(err, ignoreCanceled(<-ended))
	case <-ctx.Done():
		fmt.Fprintln(env.stdout, "\nstopping; once more to force")
		return ignoreCanceled(<-ended)
	}
}

// ignoreCanceled drops the error of something that ended because it was told to.
func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// printStack prints where the servers are and how long they took to start.
func printStack(out io.Writer, stack *devstack.Stack, took time.Duration) {
	fmt.Fprintf(out, "\nservers ready after %d ms, data and logs in %s\n\n", took.Milliseconds(), stack.Dir)
	for _, line := range [][2]string{
		{"Postgres", stack.DatabaseURL},
		{"Redis", stack.RedisAddr},
		{"Temporal", stack.TemporalAddress + ", namespace " + stack.TemporalNamespace},
		{"Temporal UI", stack.TemporalUI},
	} {
		if line[1] != "" {
			fmt.Fprintf(out, "  %-12s %s\n", line[0], line[1])
		}
	}
}

type devResetCmd struct {
	devDir
}

// Run deletes the data. It refuses while the stack runs.
func (c *devResetCmd) Run(env environ) error {
	dir, err := devstack.Reset(c.Dir)
	if running, ok := errors.AsType[*devstack.AlreadyRunning](err); ok {
		return fmt.Errorf("stop it first: %w", running)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "deleted the data of Postgres, Redis and Temporal in %s\n", dir)
	return nil
}
