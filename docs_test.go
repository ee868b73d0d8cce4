package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/api"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/webhook"
	"github.com/tallystick/tallystick/worker"
	"github.com/tallystick/tallystick/workflows"
)

var update = flag.Bool("update", false, "write the tables of docs/configuration.md anew")

func readDocument(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every flag and variable of every subcommand is in docs/configuration.md, with its default.
func TestConfigurationDocument(t *testing.T) {
	const path, begin, end = "docs/configuration.md", "<!-- flags -->\n", "<!-- end of flags -->\n"
	parser, err := kong.New(&cli{}, kong.Name("tallystick"))
	if err != nil {
		t.Fatal(err)
	}
	var tables strings.Builder
	for _, command := range parser.Model.Leaves(false) {
		describeCommand(&tables, command)
	}
	doc := readDocument(t, path)
	head, rest, found := strings.Cut(doc, begin)
	old, tail, closed := strings.Cut(rest, end)
	switch {
	case !found || !closed:
		t.Fatalf("%s has no %q and %q", path, begin, end)
	case *update:
		if err := os.WriteFile(path, []byte(head+begin+tables.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	case old != tables.String():
		t.Errorf("%s is out of date; run: go test . -run TestConfigurationDocument -update", path)
	}
}

func describeCommand(b *strings.Builder, n *kong.Node) {
	fmt.Fprintf(b, "\n## `%s`\n\n%s\n", n.FullPath(), n.Help)
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	if len(n.Positional) > 0 {
		b.WriteString("\n| argument | |\n| --- | --- |\n")
		for _, p := range n.Positional {
			fmt.Fprintf(b, "| `%s` | %s |\n", cell(p.Summary()), cell(p.Help))
		}
	}
	var rows strings.Builder
	for _, group := range n.AllFlags(true) {
		for _, f := range group {
			if f.Name == "help" {
				continue
			}
			name := "`--" + f.Name + "`"
			if f.Short != 0 {
				name = "`-" + string(f.Short) + "`, " + name
			}
			variables, value := "", ""
			for _, v := range f.Envs {
				variables += "`" + v + "`"
			}
			switch {
			case f.Required:
				value = "required"
			case f.HasDefault:
				value = "`" + f.Default + "`"
			}
			fmt.Fprintf(&rows, "| %s | %s | %s | %s |\n", name, variables, cell(value), cell(f.Help))
		}
	}
	if rows.Len() > 0 {
		b.WriteString("\n| flag | variable | default | |\n| --- | --- | --- | --- |\n" + rows.String())
	}
}

// Every metric of the product is in docs/operations.md, and nothing there is called a metric that is none.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	world := balancetest.New(t, func(o *balancetest.Options) { o.Config = balance.Config{Registry: registry} })
	if _, err := api.New(api.Config{Service: world.Service, Store: world.Store, Log: balancetest.Log(), Registry: registry}); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err := worker.Run(ended, worker.Config{Service: world.Service, Store: world.Store, Log: balancetest.Log(), Registry: registry, Temporal: client.Options{HostPort: "127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		registry.Describe(descriptions)
	}()
	metric := regexp.MustCompile(`tallystick_[a-z_]+`)
	doc := readDocument(t, "docs/operations.md")
	real := map[string]bool{}
	for d := range descriptions {
		if name := metric.FindString(d.String()); name != "" {
			real[name] = true
			if !strings.Contains(doc, "`"+name+"`") {
				t.Errorf("%s is not in docs/operations.md", name)
			}
		}
	}
	if len(real) < 20 {
		t.Errorf("only %d metrics were found", len(real))
	}
	roles := map[string]bool{"tallystick_app": true}
	for _, name := range metric.FindAllString(doc, -1) {
		if !real[name] && !roles[name] {
			t.Errorf("docs/operations.md names %s, and there is no such metric", name)
		}
	}
}

// Every type of events is in docs/webhooks.md, and no other.
func TestEventsAreDocumented(t *testing.T) {
	t.Parallel()
	_, table, _ := strings.Cut(readDocument(t, "docs/webhooks.md"), "| type | when |")
	table, _, _ = strings.Cut(table, "\n\n")
	var documented []string
	for _, row := range strings.Split(table, "\n")[2:] {
		for _, m := range regexp.MustCompile("`([a-z_.]+)`").FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
			documented = append(documented, m[1])
		}
	}
	slices.Sort(documented)
	if !slices.Equal(documented, webhook.Types) {
		t.Errorf("docs/webhooks.md has %v, there are %v", documented, webhook.Types)
	}
}

// What operators type into Temporal is in docs/operations.md.
func TestWorkflowsAreDocumented(t *testing.T) {
	t.Parallel()
	doc := readDocument(t, "docs/operations.md")
	names := []string{workflows.QueryState, workflows.SignalChanged, workflows.UpdateExtend, workflows.UpdateRefund, workflows.UpdateVoid, workflows.UpdateFreeze,
		workflows.UpdateUnfreeze, workflows.RecognitionID, workflows.GrantsQueue, workflows.FinanceQueue, "GrantLifecycle", "Refund", "RecognitionRun",
		"Backtest", workflows.QueryProgress}
	for name := range workflows.SearchAttributes() {
		names = append(names, name)
	}
	for _, name := range names {
		if !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("%s is not in docs/operations.md", name)
		}
	}
}

// Links between the documents lead somewhere.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	n := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		for _, m := range link.FindAllStringSubmatch(readDocument(t, path), -1) {
			n++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("%d links, %v", n, err)
	}
}
