// Command tallystick is credit-billing infrastructure for AI products: the API, the worker, the migrations and a
// development stack in one program.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // rate cards name time zones, and an image may have none

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
)

// cli is the grammar of the command line: one field per subcommand, each in a file of its own.
type cli struct {
	API      apiCmd      `cmd:"" name:"api" help:"Serve the HTTP API."`
	Worker   workerCmd   `cmd:"" help:"Run the sweeps and the Temporal workers."`
	Verify   verifyCmd   `cmd:"" help:"Recompute everything from the ledger and compare; ends with status 1 when anything differs."`
	Audit    auditCmd    `cmd:"" help:"Prove that the journal is what was sealed, and keys to seal with."`
	Unfreeze unfreezeCmd `cmd:"" help:"Let a customer move credits again that the auditor has frozen."`
	Export   exportCmd   `cmd:"" help:"Write the journal of a period for other accounting systems, with a manifest."`
	Migrate  migrateCmd  `cmd:"" help:"Bring the database's schema up to this release."`
	Replay   replayCmd   `cmd:"" help:"Send a trace of language model requests through the API and tell what came of it."`
	Import   importCmd   `cmd:"" help:"Send a file of usage events through the API and tell what came of them."`
	Ratecard ratecardCmd `cmd:"" help:"Check, compare, publish and try rate cards written as files."`
	Costs    costsCmd    `cmd:"" help:"Compare and publish catalogues of what model providers charge."`
	Dev      devCmd      `cmd:"" help:"Run everything on this machine: Postgres, Redis, Temporal and the platform."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// environ is what the program gets from its surroundings, so that a test can give it others.
type environ struct {
	vars           map[string]string // environment variables; one set to "" counts as not set
	stdin          io.Reader
	stdout, stderr io.Writer
}

// exitCode is the error of a run that ends with a status and has nothing left to say.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

func main() {
	uuid.EnableRandPool() // identifiers are made for every request: randomness is fetched in larger pieces
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // the first signal asks; a second one ends the process at once
	err := run(ctx, os.Args[1:], environ{vars: environment(os.Environ()), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr})
	if code, ok := errors.AsType[exitCode](err); ok {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tallystick:", err)
		os.Exit(1)
	}
}

// run parses args, without the program's name, and runs the subcommand that they name until it is done or ctx ends.
// It returns an [exitCode] when all that is left to do is to exit with that status.
func run(ctx context.Context, args []string, env environ) error {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("tallystick"),
		kong.Description("Credit-billing infrastructure for AI products."),
		kong.Writers(env.stdout, env.stderr),
		kong.Exit(func(status int) { panic(exitCode(status)) }), // after --help; parse recovers
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(env),
	)
	if err != nil {
		return fmt.Errorf("build the command line: %w", err)
	}
	if err := kong.Resolvers(fromEnvironment(parser, env.vars)).Apply(parser); err != nil {
		return fmt.Errorf("build the command line: %w", err)
	}
	parsed, err := parse(parser, args)
	if err != nil {
		return err
	}
	return parsed.Run()
}

// parse parses args. After it has printed help it returns an [exitCode].
func parse(parser *kong.Kong, args []string) (parsed *kong.Context, err error) {
	defer func() {
		if r := recover(); r != nil {
			code, ok := r.(exitCode)
			if !ok {
				panic(r)
			}
			err = code
		}
	}()
	parsed, err = parser.Parse(args)
	if err != nil {
		return nil, fmt.Errorf("read the command line: %w", err)
	}
	return parsed, nil
}

// fromEnvironment returns a resolver that reads flags from vars by their env tags. Kong itself would read the
// environment of the process, which the tests of a program share; its tags keep their names in the help text only.
func fromEnvironment(parser *kong.Kong, vars map[string]string) kong.Resolver {
	names := map[*kong.Flag][]string{}
	var walk func(*kong.Node)
	walk = func(n *kong.Node) {
		for _, f := range n.Flags {
			names[f] = f.Tag.Envs
			f.Help = kong.DefaultHelpValueFormatter(f.Value)
			f.Tag.Envs = nil
		}
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(parser.Model.Node)
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
		for _, name := range names[f] {
			if v := vars[name]; v != "" {
				return v, nil
			}
		}
		return nil, nil
	})
}

// environment turns NAME=value lines into a map.
func environment(lines []string) map[string]string {
	vars := make(map[string]string, len(lines))
	for _, line := range lines {
		if name, value, ok := strings.Cut(line, "="); ok {
			vars[name] = value
		}
	}
	return vars
}
