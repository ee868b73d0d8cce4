package replay

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/shopspring/decimal"
)

// Write writes the report as a table.
func (r *Report) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t")) }
	throughput := int64(0)
	if r.Took > 0 {
		throughput = int64(r.Sent) * int64(time.Second) / int64(r.Took)
	}
	line("events", fmt.Sprint(r.Sent), fmt.Sprintf("of %d, in %s: %d/s", r.Events, short(r.Took), throughput))
	line("  charged", fmt.Sprint(r.Charged), credits(r.Credits))
	line("  charged before", fmt.Sprint(r.Before), "the answer came again, nothing was taken")
	refused := 0
	for _, f := range r.Refused {
		refused += f.Events
	}
	line("  refused", fmt.Sprint(refused))
	for _, code := range slices.Sorted(maps.Keys(r.Refused)) {
		line("    "+code, fmt.Sprint(r.Refused[code].Events), r.Refused[code].Detail)
	}
	line("  without an answer", fmt.Sprint(r.Open.Events), r.Open.Detail)
	line("sent again", fmt.Sprint(r.Again), "after 429, 5xx or a lost connection, with the same key")
	if r.Behind > time.Second {
		line("behind schedule", short(r.Behind), "at most: this many clients cannot keep that speed up")
	}
	if len(r.latencies) > 0 {
		line("latency", "p50 "+short(r.percentile(500)), fmt.Sprintf("p90 %s  p99 %s  max %s", short(r.percentile(900)), short(r.percentile(990)), short(r.percentile(1000))))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return r.writeChanges(w)
}

// writeChanges writes what the customers have and what the books say, before and after.
func (r *Report) writeChanges(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name string, c change, places int32) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", name, c.before.StringFixed(places), c.after.StringFixed(places), signed(c.by(), places))
	}
	fmt.Fprint(t, "\n\tbefore\tafter\tchange\n")
	for _, b := range r.balances {
		line("available "+b.unit, b.change, max(places(b.before), places(b.after)))
	}
	for _, b := range r.books {
		line("revenue recognised, these customers, "+b.currency, b.recognised, places(b.recognised.after))
		line("deferred revenue, these customers, "+b.currency, b.deferred, places(b.deferred.after))
		fmt.Fprintf(t, "books of %s, all customers:\n", b.entity)
		for _, a := range b.accounts {
			line(fmt.Sprintf("  %d %s", a.code, a.name), a.change, places(a.after))
		}
		if len(b.accounts) == 0 {
			fmt.Fprintln(t, "  nothing was booked")
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	for _, b := range r.books {
		verdict := "it balances"
		if !b.balanced {
			verdict = "IT DOES NOT BALANCE"
		}
		fmt.Fprintf(w, "trial balance of %s: debit %s, credit %s %s: %s\n", b.entity, b.debit, b.credit, b.currency, verdict)
	}
	if r.noBooks != "" {
		fmt.Fprintf(w, "the books were not read: %s\n", r.noBooks)
	}
	return nil
}

// percentile returns the latency that so many thousandths of the answers did not exceed.
func (r *Report) percentile(thousandths int) time.Duration {
	n := len(r.latencies)
	return r.latencies[max(0, (n*thousandths+999)/1000-1)]
}

// short writes a duration with three digits or so.
func short(d time.Duration) string {
	for _, step := range []time.Duration{time.Microsecond, 10 * time.Microsecond, 100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond} {
		if d < 1000*step {
			return d.Round(step).String()
		}
	}
	return d.Round(time.Second).String()
}

func credits(byUnit map[string]decimal.Decimal) string {
	var parts []string
	for _, unit := range slices.Sorted(maps.Keys(byUnit)) {
		parts = append(parts, byUnit[unit].String()+" "+unit)
	}
	return strings.Join(parts, ", ")
}

// places is how many decimal places an amount was written with.
func places(d decimal.Decimal) int32 { return max(0, -d.Exponent()) }

func signed(d decimal.Decimal, places int32) string {
	if d.IsPositive() {
		return "+" + d.StringFixed(places)
	}
	return d.StringFixed(places)
}
