package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tallystick/tallystick/ratecard"
)

type ratecardBacktestCmd struct {
	publishedFlags

	File      string    `arg:"" help:"Rate card, YAML or JSON."`
	From      time.Time `required:"" placeholder:"INSTANT" help:"The first instant of the period, such as 2026-01-01T00:00:00Z."`
	Until     time.Time `required:"" placeholder:"INSTANT" help:"The first instant after it; it has passed."`
	Effective time.Time `placeholder:"INSTANT" help:"From when on the file takes the place of what was in force; without it, from the beginning."`
	Customer  []string  `placeholder:"CUSTOMER" help:"Only this customer, by id or external id; may be given several times."`
}

// Run asks for a back-test, shows how far it is, and prints what it has come to. Interrupted, it leaves the back-test running.
func (c *ratecardBacktestCmd) Run(ctx context.Context, env environ) error {
	file, err := readCard(c.File, env.stdout)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	b, err := client.StartBacktest(ctx, ratecard.BacktestRequest{Document: file.JSON, From: c.From, Until: c.Until, Effective: c.Effective, Customers: c.Customer})
	if err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "back-test %s; in Temporal backtest/%s\n", b.ID, b.ID)
	bar := backtestBar{out: env.stdout, terminal: isTerminal(env.stdout)}
	for {
		if b, err = client.Backtest(ctx, b.ID); err != nil {
			return fmt.Errorf("the back-test goes on without this command: %w", err)
		}
		bar.show(&b)
		if b.Ended() {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the back-test goes on without this command: %w", ctx.Err())
		case <-time.After(250 * time.Millisecond):
		}
	}
	bar.end()
	switch b.Status {
	case "failed":
		return errors.New(b.Fault)
	case "cancelled":
		fmt.Fprintln(env.stdout, "It was cancelled. This is what it had found:")
	}
	lines, err := client.BacktestModels(ctx, b.ID)
	if err != nil {
		return err
	}
	return printBacktest(env.stdout, &b, lines)
}

// backtestBar is a bar that is drawn again and again on a terminal, elsewhere a line for each tenth.
type backtestBar struct {
	out      io.Writer
	terminal bool
	tenths   int
}

func (p *backtestBar) show(b *ratecard.Backtest) {
	percent := 0
	if b.Progress.Customers > 0 {
		percent = min(100, 100*b.Progress.Seen/b.Progress.Customers)
	}
	if b.Status == "done" {
		percent = 100
	}
	text := fmt.Sprintf("%3d %%  %s  %d of %d customers  %d events", percent, b.Status, b.Progress.Seen, b.Progress.Customers, b.Progress.Events)
	switch {
	case p.terminal:
		fmt.Fprintf(p.out, "\r\033[K[%-20s] %s", strings.Repeat("#", percent/5), text)
	case percent/10 > p.tenths || b.Ended():
		p.tenths = percent / 10
		fmt.Fprintln(p.out, text)
	}
}

func (p *backtestBar) end() {
	if p.terminal {
		fmt.Fprintln(p.out)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

func printBacktest(to io.Writer, b *ratecard.Backtest, lines []ratecard.BacktestLine) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nunit\tproduct\tmodel\tevents\trefused\tno price\tcredits booked\tunder test\tdifference\trevenue booked\tunder test\tdifference\tbreakage booked\tunder test")
	row := func(product, model string, l *ratecard.BacktestLine) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s %s\t%s\t%s\t%s\t%s\n", l.Unit, product, model, l.Booked.Events, l.Tested.Refused, l.Tested.Unpriced,
			l.Booked.Credits, l.Tested.Credits, l.Difference.Credits, l.Booked.Revenue, l.Currency, l.Tested.Revenue, l.Difference.Revenue,
			l.Booked.Breakage, l.Tested.Breakage)
	}
	orDash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	for i := range lines {
		row(orDash(lines[i].Product), orDash(lines[i].Model), &lines[i])
	}
	for i := range b.Totals {
		row("all", "all", &b.Totals[i])
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the back-test: %w", err)
	}
	if b.Progress.Dry > 0 {
		fmt.Fprintf(to, "\n%d customers would have run out of credits: GET /v1/backtests/%s/customers?dry=true\n", b.Progress.Dry, b.ID)
	}
	if b.Progress.Failed > 0 {
		fmt.Fprintf(to, "\n%d customers could not be tested, the first: %s\n", b.Progress.Failed, b.Progress.Fault)
	}
	return nil
}
