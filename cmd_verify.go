package main

import (
	"context"
	"fmt"

	"github.com/tallystick/tallystick/devstack"
	"github.com/tallystick/tallystick/verify"
)

type verifyCmd struct {
	connectFlags

	Dir   string `default:".tallystick" type:"path" placeholder:"DIR" help:"Data directory of a development stack, whose servers are used where none are named."`
	First int    `default:"10" placeholder:"N" help:"Differences of each check that are named."`
}

// Run recomputes everything from the ledger, compares, and ends with status 1 when anything differs.
func (c *verifyCmd) Run(ctx context.Context, env environ) error {
	if c.DatabaseURL == "" {
		running, err := devstack.Running(c.Dir)
		if err != nil {
			return err
		}
		if running != nil {
			c.DatabaseURL, c.RedisAddr = running.URLs["database"], running.URLs["redis"]
		}
	}
	p, err := openProduct(ctx, "verify", c.connectFlags, env.stderr)
	if err != nil {
		return err
	}
	defer p.close(ctx)
	var cache verify.Comparer
	if p.redis != nil {
		cache = p.service
	}
	report, err := verify.Run(ctx, p.store, cache, verify.Options{First: c.First})
	if _, werr := report.WriteTo(env.stdout); err == nil && werr != nil {
		err = fmt.Errorf("print the report: %w", werr)
	}
	if err != nil {
		return err
	}
	if !report.Clean() {
		return exitCode(1)
	}
	return nil
}
