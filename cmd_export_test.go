package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/export"
	"github.com/tallystick/tallystick/export/exporttest"
)

func TestExportCommand(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	c := dbtest.NewBook(t, s).Customer(dbtest.Entity)
	at := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
	g := c.Grant(at, credit.Grant{Amount: 100, Price: credit.Money{Minor: 1000, Currency: "USD"}})
	c.Use(at, g, 30, nil)
	if _, err := s.RecogniseCustomer(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	ask := func(args ...string) (string, error) {
		var stdout, stderr bytes.Buffer
		args = append([]string{"export", "--database-url", s.Pool.Config().ConnString(), "--entity", dbtest.Entity, "--period", "2026-03", "--out", out}, args...)
		err := run(context.Background(), args, environ{stdout: &stdout, stderr: &stderr})
		return stdout.String(), err
	}
	dir := filepath.Join(out, dbtest.Entity, "2026-03")
	for range 2 { // over itself, too
		said, err := ask()
		if err != nil || !strings.Contains(said, "2 entries, debit 13.00, credit 13.00 USD; period open") {
			t.Fatalf("%s%v", said, err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m export.Manifest
	if err := json.Unmarshal(b, &m); err != nil || len(m.Systems) != 4 || m.Totals.Debit != "13.00" {
		t.Errorf("%s, %v", b, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 5 {
		t.Errorf("%v, %v", files, err)
	}
	for _, system := range []export.System{export.HLedger, export.Ledger, export.Beancount} {
		if err := exporttest.Check(t, system, filepath.Join(dir, system.File(1))); err != nil {
			t.Error(err)
		}
	}
	if _, err := ask("--system", "xero"); credit.CodeOf(err) != credit.AccountNotMapped {
		t.Error(err)
	}
	if _, err := ask("--system", "sage"); credit.CodeOf(err) != credit.InvalidRequest {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.part")); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}
