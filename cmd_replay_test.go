package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tallystick/tallystick/api"
	"github.com/tallystick/tallystick/balance/balancetest"
)

// demoSite is a development stack's API with the demo in it, and the data directory that tells of it.
func demoSite(t *testing.T) (dir string, access apiAccess, world *balancetest.World) {
	t.Helper()
	world = balancetest.New(t)
	server, err := api.New(api.Config{Service: world.Service, Store: world.Store, Log: balancetest.Log()})
	if err != nil {
		t.Fatal(err)
	}
	key, err := api.NewKey(t.Context(), world.Store, "development", "admin")
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server.Handler())
	t.Cleanup(web.Close)
	if err := demo(t.Context(), web.URL, key); err != nil {
		t.Fatal(err)
	}
	access = apiAccess{URL: web.URL, APIKey: key, Customer: demoCustomer}
	dir = t.TempDir()
	if err := access.write(dir); err != nil {
		t.Fatal(err)
	}
	return dir, access, world
}

func TestReplaySubcommand(t *testing.T) {
	t.Parallel()
	dir, access, _ := demoSite(t)
	trace := filepath.Join(t.TempDir(), "trace.csv")
	text := "TIMESTAMP,ContextTokens,GeneratedTokens\n"
	for i := range 300 {
		text += fmt.Sprintf("2023-11-16 18:%02d:%02d.9799600,4000,1000\n", i/60, i%60)
	}
	if err := os.WriteFile(trace, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// Each event costs 2 credits. The promotional 500 are used first; of what was bought, 100 are used, for 1.00 USD.
	out, _, err := runWith(t, map[string]string{"TALLYSTICK_DIR": dir}, "replay", trace, "--run", "first", "--clients", "4")
	if err != nil || !strings.Contains(out, "600 CREDIT") || !strings.Contains(out, "+1.00") || !strings.Contains(out, "it balances") {
		t.Fatalf("%v\n%s", err, out)
	}
	again, _, err := runWith(t, nil, "replay", "--dir", dir, trace, "--run", "first", "--speed", "100000")
	if err != nil || !strings.Contains(again, "repeating run first") || !strings.Contains(again, "charged before     300") {
		t.Errorf("%v\n%s", err, again)
	}
	if out, _, err := runWith(t, nil, "replay", "--dir", dir, "--synthetic", "--events", "5", "--run", "first"); err == nil {
		t.Errorf("another trace went under the same name:\n%s", out)
	}
	out, _, err = runWith(t, nil, "replay", "--dir", t.TempDir(), "--synthetic", "--events=30", "--api", access.URL, "--api-key", access.APIKey, "--customer", "demo", "--model", "large,small")
	if err != nil || !strings.Contains(out, `models ["large" "small"]`) || !strings.Contains(out, "of 30, in") {
		t.Errorf("with flags alone: %v\n%s", err, out)
	}
}

func TestReplaySubcommandRefuses(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	broken := filepath.Join(empty, "broken.csv")
	if err := os.WriteFile(broken, []byte("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(apiAccess{URL: "http://127.0.0.1:1", APIKey: "tly_x", Customer: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	nobody := t.TempDir()
	if err := os.WriteFile(filepath.Join(nobody, accessFile), doc, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"give either a trace FILE or --synthetic": {"--dir", nobody},
		"FILE or --synthetic":                     {"--dir", nobody, "--synthetic", broken},
		"run \"make run\"":                        {"--dir", empty, "--synthetic"},
		"--api needs":                             {"--dir", nobody, "--synthetic", "--api", "http://127.0.0.1:1"},
		"--speed is":                              {"--dir", nobody, "--synthetic", "--speed", "0.5"},
		"--clients is":                            {"--dir", nobody, "--synthetic", "--clients", "0"},
		"--events is":                             {"--dir", nobody, "--synthetic", "--events", "0"},
		"line 2: GeneratedTokens":                 {"--dir", nobody, broken},
		"no such file":                            {"--dir", nobody, "missing.csv"},
		"is no name for a run":                    {"--dir", nobody, "--synthetic", "--run", "a b"},
		"connection refused":                      {"--dir", nobody, "--synthetic", "--run", "c"},
	} {
		out, _, err := runWith(t, nil, append([]string{"replay"}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("replay %q: %v, want %q\n%s", args, err, want, out)
		}
	}
}
