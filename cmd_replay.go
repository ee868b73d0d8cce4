package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tallystick/tallystick/replay"
)

type replayCmd struct {
	devDir

	File      string   `arg:"" optional:"" help:"Trace of requests to a language model: CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens."`
	Synthetic bool     `help:"Invent the trace: one day of traffic, like no real service in particular."`
	Events    int      `default:"5000" help:"How many events to invent."`
	Seed      uint64   `default:"1" help:"Of the invented trace: the same seed gives the same events."`
	Speed     string   `default:"max" help:"Times as fast as the trace: 1 is real time, 60 an hour in a minute, max as fast as the API answers."`
	RunName   string   `name:"run" placeholder:"NAME" help:"Name of the run. One that was begun before is repeated: what it has charged is not charged again."`
	Customer  []string `placeholder:"ID" help:"Who used the tokens, by id or external id; of several each takes its turn. By default the development stack's demo customer."`
	Model     []string `placeholder:"NAME" help:"Dimension \"model\" of the usage; of several each takes its turn. By default: large."`
	API       string   `name:"api" env:"TALLYSTICK_API_URL" placeholder:"URL" help:"Where the API is. By default the development stack's."`
	APIKey    string   `name:"api-key" env:"TALLYSTICK_API_KEY" placeholder:"KEY" help:"Key of the role admin, or product, which sees no books. By default the development stack's."`
	Clients   int      `default:"32" help:"Connections that send at the same time."`
}

// defaultModel is priced by the demo's rate card.
const defaultModel = "large"

// Run sends the trace. It returns an [exitCode] after an interruption, and an error when an event was left without an answer.
func (c *replayCmd) Run(ctx context.Context, env environ) error {
	speed, err := parseSpeed(c.Speed)
	switch {
	case err != nil:
		return err
	case c.Synthetic == (c.File != ""):
		return errors.New("give either a trace FILE or --synthetic")
	case c.Clients < 1 || c.Clients > 1024:
		return errors.New("--clients is a number from 1 to 1024")
	case c.Synthetic && (c.Events < 1 || c.Events > 10_000_000):
		return errors.New("--events is a number from 1 to 10000000")
	}
	to, err := c.access()
	if err != nil {
		return err
	}
	trace := replay.Synthetic(c.Seed, c.Events)
	if !c.Synthetic {
		if trace, err = replay.Open(c.File); err != nil {
			return err
		}
	}
	now := time.Now()
	if c.RunName == "" {
		c.RunName = replay.NewRunName(now)
	}
	plan := replay.Plan{Run: c.RunName, Trace: trace.Identity, EndsAt: now, Customers: c.Customer, Models: c.Model}
	plan, again, err := plan.Keep(c.Dir, replay.Plan{Customers: []string{to.Customer}, Models: []string{defaultModel}})
	if err != nil {
		return err
	}
	verb := "run"
	if again {
		verb = "repeating run"
	}
	fmt.Fprintf(env.stdout, "%s %s: %s, %d events over %s, moved to end at %s\ncustomers %q, models %q, %s, %d clients, speed %s\n\n",
		verb, plan.Run, trace.Name, trace.Events, trace.Last.Sub(trace.First).Round(time.Second), plan.EndsAt.Format(time.RFC3339),
		plan.Customers, plan.Models, to.URL, c.Clients, c.Speed)
	report, err := replay.Run(ctx, replay.Config{
		API: replay.NewAPI(to.URL, to.APIKey, c.Clients), Trace: trace, Plan: plan, Clients: c.Clients, Speed: speed, Out: env.stdout,
	})
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	fmt.Fprintln(env.stdout)
	if err := report.Write(env.stdout); err != nil {
		return err
	}
	if report.Decided() {
		return nil
	}
	fmt.Fprintf(env.stdout, "\nNot every event has its answer. The same command with --run %s goes on; nothing is charged twice.\n", plan.Run)
	if ctx.Err() != nil {
		return exitCode(130)
	}
	return fmt.Errorf("%d events are without an answer", report.Events-report.Sent+report.Open.Events)
}

// access says how to reach the API: by the flags, or as the development stack in the data directory has written it down. Its key goes to its
// API only.
func (c *replayCmd) access() (apiAccess, error) {
	to := apiAccess{URL: c.API, APIKey: c.APIKey}
	if to.URL != "" {
		if to.APIKey == "" || len(c.Customer) == 0 {
			return to, errors.New("--api needs --api-key and --customer")
		}
		return to, nil
	}
	to, err := access(c.Dir)
	if err != nil {
		return to, err
	}
	if to.URL == "" {
		return to, fmt.Errorf("no development stack has left an %s in %s: run \"make run\", or give --api, --api-key and --customer", accessFile, c.Dir)
	}
	if c.APIKey != "" {
		to.APIKey = c.APIKey
	}
	return to, nil
}

func parseSpeed(s string) (int, error) {
	if s == "max" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1_000_000 {
		return 0, fmt.Errorf("--speed is max or a whole number from 1 to 1000000, not %.20q", s)
	}
	return n, nil
}
