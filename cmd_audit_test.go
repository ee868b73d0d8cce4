package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/seal"
)

// A key, a seal and its file, the books held against it, a proof checked by itself; then a posting is changed.
func TestAudit(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := dbtest.Open(t)
	url := s.Pool.Config().ConnString()
	c := dbtest.NewBook(t, s).Customer(dbtest.Entity)
	at := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	g := c.Grant(at, credit.Grant{Amount: 1000, Price: credit.Money{Minor: 10_000, Currency: "USD"}})
	c.Use(at, g, 300, credit.Dimensions{"product": "chat", "model": "large"})
	if _, err := s.RecogniseCustomer(ctx, c.ID); err != nil {
		t.Fatal(err)
	}
	do := func(want int, prints string, args ...string) string {
		t.Helper()
		out, _, err := runWith(t, map[string]string{"DATABASE_URL": url}, append([]string{"audit"}, args...)...)
		if status(err) != want || !strings.Contains(out, prints) {
			t.Fatalf("%v ended with %v and did not print %q:\n%s", args, err, prints, out)
		}
		return out
	}
	dir := t.TempDir()
	keyFile := filepath.Join(dir, "key.pem")
	do(0, "is in "+keyFile, "key", keyFile)
	if _, _, err := runWith(t, nil, "audit", "key", keyFile); err == nil {
		t.Error("a key was written over")
	}
	do(0, "There is no seal of it.", "verify", "--entity", dbtest.Entity, "--period", "2026-01")
	sealer, err := audit.OpenSealer(keyFile, dir)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sealer.Seal(ctx, s, dbtest.Entity, "2026-01", seal.Hash{})
	if err != nil {
		t.Fatal(err)
	}
	verify := []string{"verify", "--entity", dbtest.Entity, "--period", "2026-01"}
	file := filepath.Join(dir, audit.FileName(sealed))
	do(0, "clean: every entry is what was sealed", append(verify, "--seal", file, "--key", sealed.KeyID)...)
	do(0, "clean: every entry is what was sealed", append(verify, "--root", sealed.Root.String())...)
	do(0, "read from the database itself", verify...)
	do(1, "is not trusted", append(verify, "--seal", file, "--key", "x")...)

	entries, err := s.Journal(ctx, db.JournalFilter{Entity: dbtest.Entity, Account: ledger.UsageRevenue}, credit.EntryID{}, 10)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	proof := filepath.Join(dir, "proof.json")
	if err := os.WriteFile(proof, []byte(do(0, `"path"`, "prove", "--entry", entries[0].ID.String())), 0o644); err != nil {
		t.Fatal(err)
	}
	url = "postgres://127.0.0.1:1/nowhere" // what follows needs none
	do(0, "proved: entry 2 of 2 in 2026-01 of acme", "check", proof, "--root", sealed.Root.String())
	do(0, "30.00 USD  chat/large", "check", proof, "--key", sealed.KeyID)
	do(1, "NOT PROVED", "check", proof, "--root", strings.Repeat("ab", 32))
	do(1, "NOT PROVED", "check", proof, "--key", "x")
	if _, _, err := runWith(t, nil, "audit", "check", proof); err == nil || !strings.Contains(err.Error(), "give what you know") {
		t.Errorf("%v", err)
	}
	url = s.Pool.Config().ConnString()
	if _, err := dbtest.Owner(t, s).Exec(ctx, "SET session_replication_role = replica; UPDATE postings SET model = 'small' WHERE account = 4010"); err != nil {
		t.Fatal(err)
	}
	do(1, entries[0].ID.String()+" (number 2) is not what was posted", append(verify, "--seal", file)...)
}
