// Package exporttest runs the independent programs that check plain-text ledgers. A program that is not installed fails the test.
package exporttest

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/export"
)

// run runs a checker and returns what it prints; an error that is no exit status fails the test.
func run(t testing.TB, program string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed: apt-get install hledger ledger beancount (make test does)", program)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "TZ=UTC")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", program, err)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%.2000s%.2000s", program, err, out.String(), said.String())
	}
	return out.String(), err
}

// Check has a file checked by the program that it is written for, and returns its objection.
func Check(t testing.TB, s export.System, file string) error {
	t.Helper()
	var out string
	var err error
	switch s {
	case export.HLedger:
		out, err = run(t, "hledger", "-f", file, "check", "--strict", "ordereddates", "payees")
	case export.Ledger:
		_, err = run(t, "ledger", "--args-only", "--pedantic", "--explicit", "--check-payees", "-f", file, "source")
	case export.Beancount:
		out, err = run(t, "bean-check", "-C", file)
	default:
		t.Fatalf("no program checks files for %s", s)
	}
	if err == nil && out != "" {
		err = fmt.Errorf("%s: %.2000s", s, out)
	}
	return err
}

// Balances returns what a program makes of the accounts: by account and commodity, as "Assets:1010-Cash USD", without those that are zero.
func Balances(t testing.TB, s export.System, file string) map[string]string {
	t.Helper()
	var out string
	var err error
	switch s {
	case export.HLedger:
		out, err = run(t, "hledger", "-f", file, "bal", "--flat", "-N", "-O", "csv", "--layout=bare")
	case export.Ledger:
		out, err = run(t, "ledger", "--args-only", "-f", file, "bal", "--flat", "--no-total", "--balance-format", "%(join(account)),%(join(scrub(display_total)))\n")
	case export.Beancount:
		out, err = run(t, "bean-query", "-q", "-f", "csv", file, "SELECT account, currency, sum(position) GROUP BY account, currency ORDER BY account, currency")
	}
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	add := func(account, commodity, number string) {
		if number = strings.TrimSpace(number); strings.Trim(number, "-0.") != "" {
			all[strings.TrimSpace(account)+" "+strings.Trim(strings.TrimSpace(commodity), `"`)] = number
		}
	}
	if s == export.Ledger {
		for line := range strings.Lines(out) {
			account, amounts, _ := strings.Cut(strings.TrimSpace(line), ",")
			for amount := range strings.SplitSeq(amounts, `\n`) {
				if commodity, number, ok := strings.Cut(strings.TrimSpace(amount), " "); ok {
					add(account, commodity, number)
				}
			}
		}
		return all
	}
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatalf("read the balances of %s: %v\n%s", s, err, out)
	}
	for _, r := range rows[1:] {
		number, _, _ := strings.Cut(strings.TrimSpace(r[2]), " ") // Beancount writes the currency too
		add(r[0], r[1], number)
	}
	return all
}

// Sum adds up the accounts below each prefix, per commodity, under the prefix, and leaves the others as they are.
func Sum(t testing.TB, balances map[string]string, prefixes ...string) map[string]string {
	t.Helper()
	sums, out := map[string]decimal.Decimal{}, map[string]string{}
	for name, number := range balances {
		account, commodity, _ := strings.Cut(name, " ")
		i := slices.IndexFunc(prefixes, func(p string) bool { return strings.HasPrefix(account, p) })
		if i < 0 {
			out[name] = number
			continue
		}
		n, err := decimal.NewFromString(number)
		if err != nil {
			t.Fatalf("%s is %q", name, number)
		}
		key := prefixes[i] + " " + commodity
		sums[key] = sums[key].Add(n)
		if !sums[key].IsZero() {
			out[key] = sums[key].StringFixed(-n.Exponent())
		} else {
			delete(out, key)
		}
	}
	return out
}

// RollForward returns hledger's own roll-forward of account 2010 for a currency: what was added by class, negative for what left.
func RollForward(t testing.TB, file, currency string) map[string]string {
	t.Helper()
	out, err := run(t, "hledger", "-f", file, "bal", "Liabilities:2010", "cur:"+currency, "--pivot", "rf", "-N", "--invert", "-O", "csv", "--layout=bare")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatalf("read the roll-forward: %v\n%s", err, out)
	}
	all := map[string]string{}
	for _, r := range rows[1:] {
		if strings.Trim(r[2], "-0.") != "" {
			all[r[0]] = r[2]
		}
	}
	return all
}
