package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/devstack"
	"github.com/tallystick/tallystick/worker"
)

// platform runs what is ours on top of the servers in stack and returns when ctx ends or a part of it fails. URLs that
// the user should see go to out, and to stack.Announce for whoever starts a second one.
func (c *devUpCmd) platform(ctx context.Context, stack *devstack.Stack, out io.Writer) error {
	if _, err := db.Migrate(ctx, stack.DatabaseURL, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		return err
	}
	logTo, err := os.OpenFile(filepath.Join(c.Dir, "tallystick.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer logTo.Close()
	seals := sealFlags{SealKey: filepath.Join(c.Dir, "seal-key.pem"), SealDir: filepath.Join(c.Dir, "seals")}
	if _, err := audit.MakeKey(seals.SealKey); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	p, err := openProduct(ctx, "dev", connectFlags{
		DatabaseURL: stack.DatabaseURL, RedisAddr: stack.RedisAddr, OTLPEndpoint: c.OTLPEndpoint, LogFormat: "text", LogLevel: "info",
		sealFlags: seals,
	}, logTo)
	if err != nil {
		return err
	}
	defer p.close(ctx)

	a, err := access(c.Dir)
	if err != nil {
		return err
	}
	if err := ensureAPIKey(ctx, p.store, a.APIKey, "development", "admin"); err != nil {
		return err
	}
	listener, err := listen(ctx, c.Listen, out)
	if err != nil {
		return err
	}
	a.URL, a.Customer = "http://"+listener.Addr().String(), demoCustomer
	if err := a.write(c.Dir); err != nil {
		return err
	}
	server, err := newAPI(p, c.webhookFlags, 0)
	if err != nil {
		return err
	}
	if c.ExportDir == "" {
		c.ExportDir = filepath.Join(c.Dir, "closed")
	}
	work, err := workerConfig(p, c.workerFlags, stack.TemporalAddress, stack.TemporalNamespace)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(ctx, listener) })
	group.Go(func() error { return worker.Run(ctx, work) })
	group.Go(func() error {
		if err := demo(ctx, a.URL, a.APIKey); err != nil {
			return ignoreCanceled(err)
		}
		stack.Announce(map[string]string{"API": a.URL, "API documentation": a.URL + "/docs"})
		a.print(out, stack)
		return nil
	})
	return group.Wait()
}

// listen takes the address wanted, or says that it is taken and finds a free port.
func listen(ctx context.Context, addr string, out io.Writer) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	host, _, splitErr := net.SplitHostPort(addr)
	if splitErr != nil {
		return nil, fmt.Errorf("read the address to serve the API on: %w", splitErr)
	}
	free, freeErr := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if freeErr != nil {
		return nil, fmt.Errorf("serve the API: %w", errors.Join(err, freeErr))
	}
	fmt.Fprintf(out, "%s is taken; the API is on %s\n", addr, free.Addr())
	return free, nil
}

// apiAccess is how to call the API of a development stack. It lies in the data directory, for "tallystick replay" and for people.
type apiAccess struct {
	URL      string `json:"url"`
	APIKey   string `json:"api_key"`
	Customer string `json:"customer"`
}

const accessFile = "api.json"

// access reads the access of a data directory, or makes a new key for one that has none.
func access(dir string) (a apiAccess, err error) {
	b, err := os.ReadFile(filepath.Join(dir, accessFile))
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &a); err != nil {
			return a, fmt.Errorf("read %s: %w", accessFile, err)
		}
		return a, nil
	case !errors.Is(err, os.ErrNotExist):
		return a, fmt.Errorf("read %s: %w", accessFile, err)
	}
	a.APIKey = "tly_" + rand.Text() + rand.Text()
	return a, nil
}

func (a apiAccess) write(dir string) error {
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", accessFile, err)
	}
	if err := os.WriteFile(filepath.Join(dir, accessFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", accessFile, err)
	}
	return nil
}

// print shows the way in: addresses, the key, and three calls that can be pasted.
func (a apiAccess) print(out io.Writer, stack *devstack.Stack) {
	fmt.Fprintf(out, "\n  %-12s %s\n  %-12s %s/docs\n  %-12s %s\n", "API", a.URL, "API docs", a.URL, "API key", a.APIKey)
	if stack.TemporalUI != "" {
		fmt.Fprintf(out, "  %-12s %s/namespaces/%s/workflows\n", "Workflows", stack.TemporalUI, stack.TemporalNamespace)
	}
	fmt.Fprintf(out, `
The customer "%[3]s" has purchased, promotional and soon-expiring credits. Spend some, look at what is left, and at the books:

  curl -s %[1]s/v1/consume -H 'Authorization: Bearer %[2]s' -H 'Content-Type: application/json' -H "Idempotency-Key: try-$(date +%%s%%N)" \
    -d '{"customer":"%[3]s","dimensions":{"model":"large"},"usage":[{"meter":"llm_tokens","quantity":"1200","dimensions":{"token_type":"input"}},{"meter":"llm_tokens","quantity":"350","dimensions":{"token_type":"output"}}]}'

  curl -s %[1]s/v1/customers/%[3]s/balances -H 'Authorization: Bearer %[2]s'

  curl -s '%[1]s/v1/finance/trial_balance?legal_entity=main' -H 'Authorization: Bearer %[2]s'

A day of requests to a language model, as fast as it goes:  %[4]s replay --synthetic --speed max
Ctrl-C stops everything. The data stays.
`, a.URL, a.APIKey, a.Customer, os.Args[0])
}
