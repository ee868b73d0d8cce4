package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/devstack/stacktest"
)

func TestImportSubcommand(t *testing.T) {
	t.Parallel()
	dir, access, world := demoSite(t)
	at := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	fmt.Fprint(w, "number,account,time,unit,amount\n")
	for i := range 1200 {
		fmt.Fprintf(w, "%d,demo,%s,CREDIT,0.25\n", i, at)
	}
	fmt.Fprintf(w, "7,demo,%[1]s,CREDIT,0.5\n8,demo,%[1]s,CREDIT,0.25\nx,demo,%[1]s,CREDIT,1e9\ny,nobody,%[1]s,CREDIT,1\nz,demo,%[1]s,CREDIT,900000\n", at)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "usage.csv.gz")
	if err := os.WriteFile(file, z.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"import", file, "--source=books", "--column=id=number", "--column", "customer=account", "--batch=100"}
	out, _, err := runWith(t, map[string]string{"TALLYSTICK_DIR": dir}, args...)
	var status exitCode
	if !errors.As(err, &status) || status != statusRefused {
		t.Fatalf("%v\n%s", err, out)
	}
	fields := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{"consumed 1200", "duplicate 1", "mismatch 1", "quarantined 1", "customer_not_found 1", "refused 2", "insufficient_credits 1", "all 1205", "300.25 CREDIT consumed"} {
		if !strings.Contains(fields, want) {
			t.Errorf("%q is missing:\n%s", want, out)
		}
	}
	refused, err := os.ReadFile(file + ".refused")
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for line := range bytes.Lines(refused) {
		var l struct {
			Event         int
			Sent, Outcome map[string]any
		}
		if err := json.Unmarshal(line, &l); err != nil || l.Sent["source"] != "books" || l.Outcome["problem"] == nil {
			t.Errorf("%v: %s", err, line)
		}
		numbers = append(numbers, l.Event)
	}
	if fmt.Sprint(numbers) != "[1201 1203 1205]" {
		t.Errorf("refused are %v", numbers)
	}
	// At its end it stays so; begun anew everything is a duplicate.
	again, _, err := runWith(t, map[string]string{"TALLYSTICK_DIR": dir}, args...)
	if !errors.As(err, &status) || !strings.Contains(again, "1205 had their outcome before") {
		t.Errorf("%v\n%s", err, again)
	}
	if err := os.Remove(file + ".checkpoint"); err != nil {
		t.Fatal(err)
	}
	anew, _, err := runWith(t, nil, append(args, "--api", access.URL, "--api-key", access.APIKey)...)
	if !errors.As(err, &status) || !strings.Contains(strings.Join(strings.Fields(anew), " "), "duplicate 1201") {
		t.Errorf("%v\n%s", err, anew)
	}
	var operations int
	if err := world.Store.Pool.QueryRow(t.Context(), "SELECT count(*) FROM operations WHERE key LIKE 'event/books/%'").Scan(&operations); err != nil || operations != 1200 {
		t.Errorf("%d operations, %v", operations, err)
	}
	for want, args := range map[string][]string{
		"no such file": {"missing.csv"}, "give --format": {os.Args[0]}, "--batch is": {file, "--batch=0"}, "--clients is": {file, "--clients=0"}, "--api needs": {file, "--api=http://127.0.0.1:1"},
		"of another file": {file, "--format=ndjson", "--checkpoint=" + other(t)}, "401": {file, "--api=" + access.URL, "--api-key=tly_x", "--checkpoint=" + filepath.Join(t.TempDir(), "c"), "--column=id=number;customer=account"},
	} {
		out, _, err := runWith(t, map[string]string{"TALLYSTICK_DIR": dir}, append([]string{"import"}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("import %q: %v, want %q\n%s", args, err, want, out)
		}
	}
}

// other is a checkpoint of another file.
func other(t *testing.T) string {
	name := filepath.Join(t.TempDir(), "checkpoint")
	if err := os.WriteFile(name, []byte(`{"file":"1 bytes, 00"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// An import is killed, and the API under it, again and again: each event is charged once.
func TestImportSurvivesKills(t *testing.T) {
	t.Parallel()
	const events = 4000
	world := balancetest.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	const key = "tly_import_0123456789abcdefghijklmnopqrstuv"
	start := func(args ...string) *exec.Cmd {
		t.Helper()
		cmd := program(t, args...)
		cmd.Env = append(cmd.Env, "DATABASE_URL="+world.URL, "REDIS_ADDR="+stacktest.RedisAddr(t), "TALLYSTICK_LISTEN="+addr, "TALLYSTICK_API_KEY="+key, "TALLYSTICK_API_URL=http://"+addr)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	kill := func(cmd *exec.Cmd) {
		t.Helper()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	done := func() (n int) {
		t.Helper()
		if err := world.Store.Pool.QueryRow(context.Background(), "SELECT count(*) FROM operations WHERE key LIKE 'event/%'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	await := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); done() < n; time.Sleep(2 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d events are done", done(), n)
			}
		}
	}

	customers := make([]string, 7)
	for i := range customers {
		c, wallet := world.Customer(t)
		world.Grant(t, c, wallet, 1_000_000_000_000)
		customers[i] = c.String()
	}
	name := filepath.Join(t.TempDir(), "usage.ndjson")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	at := time.Now().UTC().Format(time.RFC3339)
	sum := 0
	for i := range events {
		amount := 1 + i%9
		sum += amount
		fmt.Fprintf(w, `{"source":"app","id":"%d","customer":%q,"time":%q,"unit":"CRD","amount":"%d"}`+"\n", i, customers[i%len(customers)], at, amount)
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
	api := start("api")
	args := []string{"import", name, "--batch=40", "--clients=2"}
	for i := 1; i <= 3; i++ {
		one := start(args...)
		await(i * events / 8)
		if i == 2 {
			kill(api) // under an import that goes on
			api = start("api")
			await(i*events/8 + 200)
		}
		kill(one)
	}
	kill(api)
	last := start(args...)
	api = start("api")
	await(events * 5 / 8)
	kill(api)
	start("api")
	if err := last.Wait(); err != nil {
		t.Fatalf("the import ended with %v", err)
	}
	var consumed, rows int
	if err := world.Store.Pool.QueryRow(t.Context(), "SELECT sum(consumed) / 1000000, (SELECT count(DISTINCT key) FROM operations WHERE key LIKE 'event/%') FROM grants").Scan(&consumed, &rows); err != nil {
		t.Fatal(err)
	}
	if consumed != sum || rows != events || done() != events {
		t.Errorf("%d credits of %d by %d operations for %d of %d events", consumed, sum, done(), rows, events)
	}
	b, err := os.ReadFile(name + ".checkpoint")
	var kept struct {
		Report struct {
			Events   int
			Complete bool
			Outcomes map[string]int
			Credits  map[string]string
		}
	}
	if err != nil || json.Unmarshal(b, &kept) != nil || !kept.Report.Complete || kept.Report.Events != events || kept.Report.Credits["CRD"] != fmt.Sprint(sum) ||
		kept.Report.Outcomes["consumed"]+kept.Report.Outcomes["duplicate"] != events {
		t.Errorf("%v: %s", err, b)
	}
}
