// Package verify recomputes the books from the ledger and compares: every balance, chain, sub-ledger and control account in Postgres, and
// the balances in Redis with those in Postgres. It reads and changes nothing.
package verify

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// Comparer compares balances in the cache with those in Postgres, each customer at a version that both know.
type Comparer interface {
	// Compare returns how many of the customers the cache has and what differs, each "<id> <how>".
	Compare(ctx context.Context, customers []credit.CustomerID) (checked int, differ []string, err error)
}

// Options choose how much is said.
type Options struct {
	First int // how many differences of each check are named; 0: 10
}

// customersAtOnce is how many customers one call of Compare gets.
const customersAtOnce = 1000

// Check is the outcome of one check.
type Check struct {
	Name    string
	Things  string // what was counted
	Checked int64
	Differ  int64
	First   []string // the first differences, each "<id> <how>"
	Skipped string   // why it was not made; "": it was
	Took    time.Duration
}

// Report is the outcome of all checks.
type Report struct {
	Checks []Check
	Took   time.Duration
}

// Clean tells whether nothing differs. A skipped check finds nothing.
func (r Report) Clean() bool {
	for _, c := range r.Checks {
		if c.Differ > 0 {
			return false
		}
	}
	return true
}

// Run makes all checks. They run while the product works: each looks at one snapshot. cache nil skips the comparison with Redis. An error
// says that a check could not be made; the report has those made before it.
func Run(ctx context.Context, store *db.Store, cache Comparer, o Options) (Report, error) {
	if o.First == 0 {
		o.First = 10
	}
	var report Report
	start := time.Now()
	for _, i := range db.Invariants {
		began := time.Now()
		r, err := store.Verify(ctx, i, o.First)
		if err != nil {
			return report, err
		}
		report.Checks = append(report.Checks, Check{
			Name: i.Name, Things: i.Things, Checked: r.Checked, Differ: r.Differ, First: r.First, Took: time.Since(began),
		})
		report.Took = time.Since(start)
	}
	c, err := compareCache(ctx, store, cache, o)
	if err != nil {
		return report, err
	}
	report.Checks = append(report.Checks, c)
	report.Took = time.Since(start)
	return report, nil
}

func compareCache(ctx context.Context, store *db.Store, cache Comparer, o Options) (Check, error) {
	c := Check{Name: "Redis equals Postgres", Things: "customers"}
	if cache == nil {
		c.Skipped = "no Redis was given"
		return c, nil
	}
	began := time.Now()
	var after credit.CustomerID
	for {
		ids, err := store.CustomerIDs(ctx, after, customersAtOnce)
		if err != nil {
			return c, err
		}
		if len(ids) == 0 {
			break
		}
		after = ids[len(ids)-1]
		checked, differ, err := cache.Compare(ctx, ids)
		if err != nil {
			return c, fmt.Errorf("verify that %s: %w", c.Name, err)
		}
		c.Checked += int64(checked)
		c.Differ += int64(len(differ))
		c.First = append(c.First, differ[:min(len(differ), o.First-len(c.First))]...)
	}
	c.Took = time.Since(began)
	return c, nil
}

// WriteTo writes the report as a table, what differs under its check, and a last line with the verdict.
func (r Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	var checked, differ int64
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "check\tchecked\t\tdiffer\ttook")
	for _, c := range r.Checks {
		if c.Skipped != "" {
			fmt.Fprintf(table, "%s\tskipped: %s\n", c.Name, c.Skipped)
			continue
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", c.Name, grouped(c.Checked), c.Things, grouped(c.Differ), c.Took.Round(time.Millisecond))
		checked += c.Checked
		differ += c.Differ
	}
	table.Flush()
	for _, c := range r.Checks {
		if c.Differ == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s: %s of %s %s differ\n", c.Name, grouped(c.Differ), grouped(c.Checked), c.Things)
		for _, d := range c.First {
			fmt.Fprintf(&b, "  %s\n", d)
		}
		if more := c.Differ - int64(len(c.First)); more > 0 {
			fmt.Fprintf(&b, "  and %s more\n", grouped(more))
		}
	}
	if differ == 0 {
		fmt.Fprintf(&b, "\nclean: %s checked in %s, nothing differs\n", grouped(checked), r.Took.Round(time.Millisecond))
	} else {
		fmt.Fprintf(&b, "\nNOT CLEAN: %s of %s differ\n", grouped(differ), grouped(checked))
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// grouped writes a number with a comma after every three digits.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
