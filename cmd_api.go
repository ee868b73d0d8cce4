package main

import (
	"context"
	"errors"

	"github.com/tallystick/tallystick/api"
)

type apiCmd struct {
	connectFlags
	webhookFlags

	Listen        string `default:"127.0.0.1:8080" env:"TALLYSTICK_LISTEN" placeholder:"HOST:PORT" help:"Address to serve on."`
	MaxEventsBody int64  `default:"16777216" env:"TALLYSTICK_MAX_EVENTS_BODY" placeholder:"BYTES" help:"Size of the body of one call with usage events that is no stream."`

	APIKey string `name:"api-key" env:"TALLYSTICK_API_KEY" placeholder:"KEY" help:"Make sure that this API key exists, with role admin: for the first start."`
}

// Run serves the API until ctx ends.
func (c *apiCmd) Run(ctx context.Context, env environ) error {
	if c.MaxEventsBody < 1<<10 || c.MaxEventsBody > 1<<30 {
		return errors.New("--max-events-body is a number from 1024 to 1073741824")
	}
	p, err := openProduct(ctx, "api", c.connectFlags, env.stderr)
	if err != nil {
		return err
	}
	defer p.close(ctx)
	if c.APIKey != "" {
		if err := ensureAPIKey(ctx, p.store, c.APIKey, "first key", "admin"); err != nil {
			return err
		}
	}
	server, err := newAPI(p, c.webhookFlags, c.MaxEventsBody)
	if err != nil {
		return err
	}
	p.log.Info("api listens", "address", c.Listen)
	return server.Run(ctx, c.Listen)
}

func newAPI(p *product, f webhookFlags, maxEventsBody int64) (*api.Server, error) {
	if _, err := f.mail(); err != nil { // the worker uses it; both are told of what is wrong
		return nil, err
	}
	return api.New(api.Config{
		Service: p.service, Store: p.store, Log: p.log, Registry: p.registry, Tracer: p.tracer(), Redis: p.pingRedis(), Version: version(),
		Webhooks: f.allow(), MaxEventsBody: maxEventsBody, Sealer: p.sealer,
	})
}
