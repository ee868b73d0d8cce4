package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/tallystick/tallystick/importer"
)

type importCmd struct {
	devDir

	File       string            `arg:"" help:"Usage events: .ndjson, .json (a list) or .csv (with a header), each also compressed, .gz."`
	Format     string            `enum:"auto,ndjson,json,csv" default:"auto" help:"Of the file: ndjson, json, csv, or auto to tell by its name."`
	Events     string            `enum:"own,litellm,cloudevents" default:"own" help:"What the events are: own, litellm or cloudevents."`
	Query      string            `placeholder:"NAME=VALUE&…" help:"More parameters of POST /v1/events, such as those for LiteLLM."`
	Source     string            `placeholder:"NAME" help:"Source of the events of a CSV file that has no column for it."`
	Column     map[string]string `placeholder:"FIELD=HEADER" help:"Where the column of a field of a CSV file has another name: customer=account, dimension.model=Model, …"`
	Checkpoint string            `placeholder:"FILE" help:"Where it is written down how far the import is. By default FILE.checkpoint."`
	Refused    string            `placeholder:"FILE" help:"Where events go that were not charged. By default FILE.refused."`
	Batch      int               `default:"500" help:"Events in one call."`
	Clients    int               `default:"4" help:"Calls at the same time. With 1 the events are decided in the order of the file."`
	API        string            `name:"api" env:"TALLYSTICK_API_URL" placeholder:"URL" help:"Where the API is. By default the development stack's."`
	APIKey     string            `name:"api-key" env:"TALLYSTICK_API_KEY" placeholder:"KEY" help:"Key of the role product. By default the development stack's."`
}

// statusRefused is the status of an import that came to its end with events that were refused.
const statusRefused = 3

// Run sends the file. It returns an [exitCode] after an interruption, and when events were refused.
func (c *importCmd) Run(ctx context.Context, env environ) error {
	query, err := url.ParseQuery(c.Query)
	switch {
	case err != nil:
		return fmt.Errorf("--query: %w", err)
	case c.Batch < 1 || c.Batch > 10_000:
		return errors.New("--batch is a number from 1 to 10000")
	case c.Clients < 1 || c.Clients > 64:
		return errors.New("--clients is a number from 1 to 64")
	}
	to := apiAccess{URL: c.API, APIKey: c.APIKey}
	if to.URL == "" {
		if to, err = access(c.Dir); err != nil {
			return err
		}
		if to.URL == "" {
			return fmt.Errorf("no development stack has left an %s in %s: run \"make run\", or give --api and --api-key", accessFile, c.Dir)
		}
		if c.APIKey != "" {
			to.APIKey = c.APIKey
		}
	}
	if to.APIKey == "" {
		return errors.New("--api needs --api-key")
	}
	file, err := importer.Open(c.File, strings.TrimPrefix(c.Format, "auto"))
	if err != nil {
		return err
	}
	file.Source, file.Columns = c.Source, c.Column
	cfg := importer.Config{URL: to.URL, Key: to.APIKey, File: file, Form: strings.TrimPrefix(c.Events, "own"), Query: query, Batch: c.Batch, Clients: c.Clients,
		Checkpoint: c.Checkpoint, Refused: c.Refused, Out: env.stdout}
	if cfg.Checkpoint == "" {
		cfg.Checkpoint = c.File + ".checkpoint"
	}
	if cfg.Refused == "" {
		cfg.Refused = c.File + ".refused"
	}
	report, err := importer.Run(ctx, cfg)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if err := report.Write(env.stdout); err != nil {
		return err
	}
	switch {
	case !report.Complete:
		fmt.Fprintln(env.stdout, "The import is not at its end. The same command goes on; nothing is charged twice.")
		return exitCode(130)
	case report.Unconsumed():
		fmt.Fprintf(env.stdout, "What was not charged, and why, stands in %s.\n", cfg.Refused)
		return exitCode(statusRefused)
	}
	return nil
}
