package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/bills"
	"github.com/tallystick/tallystick/costs"
)

type costsCmd struct {
	Import  costsImportCmd  `cmd:"" help:"Make a draft of a catalogue of what model providers charge, and show what it changes."`
	Diff    costsDiffCmd    `cmd:"" help:"Show what changes from one catalogue to another, or from the one in force; ends with status 3 when anything does."`
	Publish costsPublishCmd `cmd:"" help:"Make a draft of a catalogue, show what it changes, and with --yes publish it."`
	Bill    costsBillCmd    `cmd:"" help:"Add up what a model provider has billed; ends with status 3 when days or pages are missing."`
}

// costsFlags say where the API is and what a file is.
type costsFlags struct {
	API    string `name:"api" env:"TALLYSTICK_API_URL" placeholder:"URL" help:"Where the API is."`
	Key    string `name:"key" env:"TALLYSTICK_API_KEY" placeholder:"KEY" help:"API key, of the role finance."`
	Format string `enum:"auto,genai_prices,litellm" default:"auto" help:"Of the file: genai_prices, litellm, or auto to tell by its beginning."`
}

func (f costsFlags) client() (*costs.Client, error) {
	if f.API == "" || f.Key == "" {
		return nil, errors.New("--api and --key are needed")
	}
	return costs.NewClient(f.API, f.Key), nil
}

// read fetches a catalogue and says on to how much of it can be used.
func (f costsFlags) read(ctx context.Context, name string, to io.Writer) (*costs.File, error) {
	file, err := costs.Read(ctx, name, strings.TrimPrefix(f.Format, "auto"))
	if err != nil {
		return nil, err
	}
	n := file.Catalogue.Coverage()
	fmt.Fprintf(to, "%s: %s, %d bytes, sha256 %s\n%d providers, %d models: %d whole, %d in part, %d not usable\n", name, file.Format, len(file.Document), file.SHA256(),
		n.Providers, n.Models, n.Whole, n.Part, n.None)
	return file, nil
}

type costsImportCmd struct {
	costsFlags

	File string `arg:"" name:"file-or-url" help:"Catalogue: a file, or a URL that this command fetches."`
	Note string `placeholder:"TEXT" help:"What the draft is about."`
}

// Run makes the draft.
func (c *costsImportCmd) Run(ctx context.Context, env environ) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	_, err = c.draft(ctx, client, env.stdout, c.File, c.Note)
	return err
}

// draft makes a draft of a file and shows what it changes.
func (f costsFlags) draft(ctx context.Context, client *costs.Client, to io.Writer, name, note string) (costs.Draft, error) {
	file, err := f.read(ctx, name, to)
	if err != nil {
		return costs.Draft{}, err
	}
	inForce, before, err := client.InForce(ctx)
	if err != nil {
		return costs.Draft{}, err
	}
	changes := costs.Diff(before, file.Catalogue)
	printCosts(to, changes)
	draft, err := client.Import(ctx, file, note)
	if err != nil {
		return draft, err
	}
	against := "there is no catalogue in force"
	if inForce != 0 {
		against = fmt.Sprintf("compared with catalogue %d, in force", inForce)
	}
	fmt.Fprintf(to, "\n%d changes, %s. The draft is %s.\n", len(changes), against, draft.ID)
	return draft, nil
}

// printCosts prints changes, one line each.
func printCosts(to io.Writer, changes []string) {
	for _, line := range changes {
		fmt.Fprintln(to, line)
	}
}

type costsDiffCmd struct {
	costsFlags

	Before string `arg:"" name:"file-or-url" help:"Catalogue; the new one when it is compared with the one in force."`
	After  string `arg:"" optional:"" name:"after" help:"Catalogue to compare with; without it the first is compared with the one in force."`
}

// Run compares without an API when there are two files.
func (c *costsDiffCmd) Run(ctx context.Context, env environ) error {
	file, err := c.read(ctx, c.Before, env.stdout)
	if err != nil {
		return err
	}
	before, after := file.Catalogue, file.Catalogue
	if c.After != "" {
		if file, err = c.read(ctx, c.After, env.stdout); err != nil {
			return err
		}
		after = file.Catalogue
	} else {
		client, err := c.client()
		if err != nil {
			return fmt.Errorf("give a second file; or to compare with the catalogue in force, %w", err)
		}
		if _, before, err = client.InForce(ctx); err != nil {
			return err
		}
	}
	changes := costs.Diff(before, after)
	if len(changes) == 0 {
		fmt.Fprintln(env.stdout, "nothing changes")
		return nil
	}
	printCosts(env.stdout, changes)
	return statusDifferences
}

type costsPublishCmd struct {
	costsFlags

	File string    `arg:"" name:"file-or-url" help:"Catalogue: a file, or a URL that this command fetches."`
	At   time.Time `placeholder:"INSTANT" help:"When it comes into force, such as 2027-01-01T00:00:00Z; without it, as soon as can be."`
	Note string    `placeholder:"TEXT" help:"What the catalogue is about."`
	Yes  bool      `help:"Publish. Without it the draft is kept, to be looked at."`
}

// Run makes the draft, and publishes it when it was confirmed.
func (c *costsPublishCmd) Run(ctx context.Context, env environ) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	draft, err := c.draft(ctx, client, env.stdout, c.File, c.Note)
	if err != nil {
		return err
	}
	if !c.Yes {
		fmt.Fprintln(env.stdout, "Nothing is published. With --yes the same command publishes it.")
		return nil
	}
	published, err := client.Publish(ctx, draft, c.At)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "catalogue %d is published, in force from %s\n", published.Number, published.EffectiveAt)
	return nil
}

type costsBillCmd struct {
	Files []string  `arg:"" name:"file" help:"Pages of one bill, in any order: OpenAI's costs and usage, Anthropic's cost report and usage report, or CSV."`
	From  time.Time `format:"2006-01-02" placeholder:"DAY" help:"First day (UTC) that the bill is to cover."`
	To    time.Time `format:"2006-01-02" placeholder:"DAY" help:"Last day (UTC) that the bill is to cover."`
}

// Run needs no API.
func (c *costsBillCmd) Run(env environ) error {
	if c.From.IsZero() != c.To.IsZero() || c.To.Before(c.From) {
		return errors.New("--from and --to go together, the first day and the last")
	}
	var want bills.Range
	if !c.To.IsZero() {
		want = bills.Range{From: c.From, To: c.To.AddDate(0, 0, 1)}
	}
	files := make([][]byte, len(c.Files))
	for i, name := range c.Files {
		var err error
		if files[i], err = os.ReadFile(name); err != nil {
			return err
		}
	}
	b, err := bills.Parse(files, want)
	if err != nil {
		return err
	}
	printBill(env.stdout, &b)
	if len(b.Incomplete) > 0 {
		return statusDifferences
	}
	return nil
}

func printBill(to io.Writer, b *bills.Bill) {
	fmt.Fprintf(to, "%s, from %s to before %s, %d lines\n\n", b.Provider, b.From.Format(time.RFC3339), b.To.Format(time.RFC3339), len(b.Lines))
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	totals := make(map[string]decimal.Decimal)
	for _, s := range b.Sums() {
		quantity, amount := "", ""
		if !s.Quantity.IsZero() {
			quantity = s.Quantity.String()
		}
		if s.Currency != "" {
			amount = s.Amount.String() + " " + s.Currency
			totals[s.Currency] = totals[s.Currency].Add(s.Amount)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", orDash(s.Model), orDash(s.TokenType), s.Kind, quantity, amount)
	}
	_ = w.Flush()
	for _, currency := range slices.Sorted(maps.Keys(totals)) {
		fmt.Fprintf(to, "\nin all %s %s\n", totals[currency], currency)
	}
	if len(b.Incomplete) > 0 {
		fmt.Fprintln(to, "\nThe bill is not complete:")
		for _, why := range b.Incomplete {
			fmt.Fprintln(to, why)
		}
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
