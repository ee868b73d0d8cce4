package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/ratecard"
)

// Statuses of the subcommands of ratecard, besides 0 and the 1 of whatever could not be done.
const (
	statusFaults      exitCode = 2 // the rate card has faults
	statusDifferences exitCode = 3 // diff has found some
)

type ratecardCmd struct {
	Validate ratecardValidateCmd `cmd:"" help:"Show every fault of rate card files with its place; ends with status 2 when there are any."`
	Diff     ratecardDiffCmd     `cmd:"" help:"Show what changes from one file to another, or from what is published to a file; ends with status 3 when anything does."`
	Publish  ratecardPublishCmd  `cmd:"" help:"Make a draft of a file, show what it changes, and with --yes publish it."`
	Simulate ratecardSimulateCmd `cmd:"" help:"Show what usage costs under a file, or under two."`
	Backtest ratecardBacktestCmd `cmd:"" help:"Show what a file would have charged for what was recorded, in the place of what --card had in force."`
}

// publishedFlags say which published card is meant.
type publishedFlags struct {
	API  string `name:"api" env:"TALLYSTICK_API_URL" placeholder:"URL" help:"Where the API is."`
	Key  string `name:"key" env:"TALLYSTICK_API_KEY" placeholder:"KEY" help:"API key, of the role finance to publish."`
	Card string `placeholder:"CODE" help:"Code or id of the rate card."`
}

func (f publishedFlags) client() (*ratecard.Client, error) {
	if f.API == "" || f.Key == "" || f.Card == "" {
		return nil, errors.New("--api, --key and --card are needed")
	}
	return ratecard.NewClient(f.API, f.Key, f.Card), nil
}

// readCard reads a rate card file. It shows the faults of one that has any.
func readCard(name string, to io.Writer) (*ratecard.File, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read rate card: %w", err)
	}
	f, faults := ratecard.Parse(text)
	for _, fault := range faults {
		fmt.Fprintf(to, "%s:%s\n", name, fault)
	}
	if len(faults) > 0 {
		return nil, statusFaults
	}
	return f, nil
}

type ratecardValidateCmd struct {
	Files []string `arg:"" name:"file" help:"Rate cards, YAML or JSON."`
}

// Run reads every file, whatever is wrong with the others.
func (c *ratecardValidateCmd) Run(env environ) error {
	var first error
	for _, name := range c.Files {
		f, err := readCard(name, env.stdout)
		switch {
		case err == nil:
			fmt.Fprintf(env.stdout, "%s: good: %d meters, %d rates\n", name, len(f.Document.Meters), len(f.Document.Rates))
		case !errors.Is(err, statusFaults):
			return err
		default:
			first = err
		}
	}
	return first
}

type ratecardDiffCmd struct {
	publishedFlags

	Before string `arg:"" help:"Rate card; the new one when it is compared with what is published."`
	After  string `arg:"" optional:"" help:"Rate card to compare with; without it BEFORE is compared with what --card has published."`
}

// Run compares without an API when there are two files.
func (c *ratecardDiffCmd) Run(ctx context.Context, env environ) error {
	file, err := readCard(c.Before, env.stdout)
	if err != nil {
		return err
	}
	before, after := file.JSON, []byte(nil)
	if c.After != "" {
		if file, err = readCard(c.After, env.stdout); err != nil {
			return err
		}
		after = file.JSON
	} else {
		client, err := c.client()
		if err != nil {
			return fmt.Errorf("give a second file; or to compare with what is published, %w", err)
		}
		v, err := client.Published(ctx)
		if err != nil {
			return err
		}
		before, after = v.Document, before
	}
	changes, err := ratecard.Diff(before, after)
	if err != nil {
		return err
	}
	if len(changes) == 0 {
		fmt.Fprintln(env.stdout, "nothing changes")
		return nil
	}
	printChanges(env.stdout, changes)
	return statusDifferences
}

func printChanges(to io.Writer, changes []ratecard.Change) {
	for _, c := range changes {
		switch c.Kind {
		case ratecard.Added:
			fmt.Fprintf(to, "+ %s %s\n", c.Path, c.After)
		case ratecard.Removed:
			fmt.Fprintf(to, "- %s %s\n", c.Path, c.Before)
		default:
			fmt.Fprintf(to, "~ %s %s -> %s\n", c.Path, c.Before, c.After)
		}
	}
}

type ratecardPublishCmd struct {
	publishedFlags

	File string    `arg:"" help:"Rate card, YAML or JSON."`
	At   time.Time `placeholder:"INSTANT" help:"When it comes into force, such as 2027-01-01T00:00:00Z; without it, as soon as can be."`
	Note string    `placeholder:"TEXT" help:"What the draft is about."`
	Yes  bool      `help:"Publish. Without it the draft is kept, to be looked at."`
}

// Run makes the draft, and publishes it when it was confirmed.
func (c *ratecardPublishCmd) Run(ctx context.Context, env environ) error {
	file, err := readCard(c.File, env.stdout)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	published, err := client.Published(ctx)
	if err != nil {
		return err
	}
	changes, err := ratecard.Diff(published.Document, file.JSON)
	if err != nil {
		return err
	}
	if len(changes) == 0 {
		fmt.Fprintf(env.stdout, "nothing changes: version %d says the same\n", published.Version)
		return nil
	}
	printChanges(env.stdout, changes)
	draft, err := client.Keep(ctx, file.JSON, c.Note)
	if err != nil {
		return err
	}
	if !c.Yes {
		fmt.Fprintf(env.stdout, "\n%d changes to version %d. Nothing is published: the draft is %s. With --yes the same command publishes it.\n",
			len(changes), published.Version, draft.ID)
		return nil
	}
	v, err := client.Publish(ctx, draft, c.At)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "\nversion %d is published, in force from %s\n", v.Version, v.EffectiveAt)
	return nil
}

type ratecardSimulateCmd struct {
	File   string `arg:"" help:"Rate card, YAML or JSON."`
	Usage  string `placeholder:"FILE" help:"Usage to price: NDJSON with the fields of a consumption, or CSV with the columns timestamp, meter, quantity and one for each dimension. Without it, usage is invented that the card has rates for."`
	Beside string `placeholder:"FILE" help:"A second rate card, to price the same usage under."`
	Events int    `default:"1000" help:"How many events to invent."`
	Seed   uint64 `default:"1" help:"Of the invented usage: the same seed gives the same events."`
	Lines  int    `default:"10" help:"How many priced lines to print."`
	Scale  int    `default:"6" help:"Decimal places of the credit unit, to which each event is rounded."`
}

// Run prices the usage under one file, or two.
func (c *ratecardSimulateCmd) Run(env environ) error {
	if c.Scale < 0 || c.Scale > credit.MaxScale || c.Events < 0 || c.Lines < 0 {
		return fmt.Errorf("--scale is a number from 0 to %d, --events and --lines are not negative", credit.MaxScale)
	}
	names := []string{c.File}
	if c.Beside != "" {
		names = append(names, c.Beside)
	}
	files := make([]*ratecard.File, len(names))
	simulators := make([]*ratecard.Simulator, len(names))
	for i, name := range names {
		var err error
		if files[i], err = readCard(name, env.stdout); err != nil {
			return err
		}
		if simulators[i], err = ratecard.NewSimulator(files[i].Document, c.Scale, c.Lines); err != nil {
			return err
		}
	}
	now := time.Now()
	events := ratecard.Synthetic(files[0].Document, c.Seed, c.Events, now)
	if c.Usage != "" {
		f, err := os.Open(c.Usage)
		if err != nil {
			return fmt.Errorf("read usage: %w", err)
		}
		defer f.Close()
		events = ratecard.ReadUsage(f, now)
	}
	for u, err := range events {
		if err != nil {
			return err
		}
		for i, s := range simulators {
			if err := s.Add(u); err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
		}
	}
	results := make([]*ratecard.Simulation, len(names))
	for i, s := range simulators {
		results[i] = s.Result()
	}
	return printSimulations(env.stdout, names, results, c.Scale)
}

func printSimulations(to io.Writer, names []string, results []*ratecard.Simulation, scale int) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if lines := results[0].Lines; len(lines) > 0 {
		fmt.Fprintln(w, "line\tmeter\tquantity\trate\tprice\tper\tcredits")
		for i, l := range lines {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", i+1, l.Meter, l.Quantity, l.RateID, l.Price, l.Per, l.Cost)
		}
		fmt.Fprintln(w)
	}
	header, ids := "rate", map[string]bool{}
	for i, r := range results {
		if header += "\tlines\tquantity\tcredits"; len(names) > 1 {
			header += " under " + names[i]
		}
		for id := range r.Rates {
			ids[id] = true
		}
	}
	if len(results) > 1 {
		header += "\tdifference"
	}
	fmt.Fprintln(w, header)
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		fmt.Fprint(w, id)
		credits := make([]decimal.Decimal, len(results))
		for i, r := range results {
			if t := r.Rates[id]; t != nil {
				credits[i] = t.Credits
				fmt.Fprintf(w, "\t%d\t%s\t%s", t.Lines, t.Quantity, t.Credits)
			} else {
				fmt.Fprint(w, "\t-\t-\t-")
			}
		}
		if len(results) > 1 {
			fmt.Fprintf(w, "\t%s", credits[1].Sub(credits[0]))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	for i, r := range results {
		fmt.Fprintf(w, "%s\t%d events\t%s credits\n", names[i], r.Events, r.Total.Format(scale))
	}
	if len(results) > 1 {
		fmt.Fprintf(w, "difference\t\t%s credits\n", decimal.New(int64(results[1].Total-results[0].Total), int32(-scale)))
	}
	for i, r := range results {
		for _, why := range slices.Sorted(maps.Keys(r.Refused)) {
			fmt.Fprintf(w, "%s\t%d events without a price\t%s\n", names[i], r.Refused[why], why)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the simulation: %w", err)
	}
	return nil
}
