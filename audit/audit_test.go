package audit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/seal"
)

var ctx = context.Background()

func on(month time.Month, day int) time.Time {
	return time.Date(2026, month, day, 12, 0, 0, 0, time.UTC)
}

func usd(n int64) credit.Money { return credit.Money{Minor: n, Currency: "USD"} }

// books has twelve entries in January and as many in February, of an entity with another one beside it.
type books struct {
	*dbtest.Book
	t        testing.TB
	customer *dbtest.Customer
	grant    *credit.Grant
	sealer   *audit.Sealer
}

const (
	january  ledger.Period = "2026-01"
	february ledger.Period = "2026-02"
	entries                = 12
)

func newBooks(t testing.TB) *books {
	t.Helper()
	s := dbtest.Open(t)
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	b := &books{Book: dbtest.NewBook(t, s), t: t, sealer: &audit.Sealer{Key: key, Dir: t.TempDir()}}
	b.Entity("kk", "JPY", "Asia/Tokyo")
	b.customer = b.Customer(dbtest.Entity)
	other := b.Customer("kk")
	yen := other.Grant(on(1, 1), credit.Grant{Amount: 7, Price: credit.Money{Minor: 100, Currency: "JPY"}})
	other.Use(on(1, 1), yen, 3, nil)
	b.grant = b.customer.Grant(on(1, 1), credit.Grant{Amount: 100_000, Price: usd(999_900), Tax: 777})
	for day := 2; day <= entries; day++ {
		b.customer.Use(on(1, day), b.grant, credit.Amount(100*day), credit.Dimensions{"product": "chat", "model": fmt.Sprintf("m%d", day%3)})
	}
	b.recognise()
	if _, err := s.RecogniseCustomer(ctx, other.ID); err != nil {
		t.Fatal(err)
	}
	for day := 1; day <= entries; day++ {
		b.customer.Use(on(2, day), b.grant, credit.Amount(100*day), nil)
	}
	b.recognise()
	return b
}

func (b *books) recognise() {
	b.t.Helper()
	if _, err := b.Store.RecogniseCustomer(ctx, b.customer.ID); err != nil {
		b.t.Fatal(err)
	}
}

func (b *books) number() {
	b.t.Helper()
	for more := true; more; {
		var err error
		if _, more, err = b.Store.NumberEntries(ctx); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *books) close(p ledger.Period) {
	b.t.Helper()
	b.SetPeriod(string(p), "closed")
}

func (b *books) seal(p ledger.Period) *seal.Seal {
	b.t.Helper()
	s, err := b.sealer.Seal(ctx, b.Store, dbtest.Entity, p, seal.Hash{})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *books) verify(o audit.Options) (*audit.Report, string) {
	b.t.Helper()
	o.Entity = dbtest.Entity
	if o.Period == "" {
		o.Period = january
	}
	r, err := audit.Verify(ctx, b.Store, o)
	if err != nil {
		b.t.Fatal(err)
	}
	var text strings.Builder
	if _, err := r.WriteTo(&text); err != nil {
		b.t.Fatal(err)
	}
	if said := strings.Contains(text.String(), "\nclean: "); said != r.Clean() || said == strings.Contains(text.String(), "NOT CLEAN") {
		b.t.Errorf("clean: %v, and it says\n%s", r.Clean(), &text)
	}
	return r, text.String()
}

// entry is the id of the entry with a number.
func (b *books) entry(p ledger.Period, seq int) credit.EntryID {
	b.t.Helper()
	var id [16]byte
	if err := b.Store.Pool.QueryRow(ctx, "SELECT entry_id FROM sealed_entries WHERE entity = $1 AND period = $2 AND seq = $3", dbtest.Entity, string(p), seq).Scan(&id); err != nil {
		b.t.Fatal(err)
	}
	return id
}

// Whatever a superuser does to a sealed period behind the triggers is found with the seal that was kept outside, and named.
func TestSuperuser(t *testing.T) {
	t.Parallel()
	const ( // $1 is the fifth entry of January, $2 the last one
		deletion = "DELETE FROM postings WHERE entry_id = '%[1]s'; DELETE FROM journal_entries WHERE id = '%[1]s';"
		number   = "DELETE FROM sealed_entries WHERE entry_id = '%[1]s';"
		backdate = `WITH e AS (INSERT INTO journal_entries (id, cause, entity, period, service_on, posted_at, kind, customer_id)
			SELECT '0198c2d0-0000-7000-8000-000000000001', 'x', entity, period, service_on, posted_at - interval '1 hour', kind, customer_id FROM journal_entries WHERE id = '%[1]s' RETURNING id)
			INSERT INTO postings (entry_id, n, account, side, amount_minor, currency) SELECT id, 0, 2010, 'dr', 5, 'USD' FROM e UNION ALL SELECT id, 1, 4010, 'cr', 5, 'USD' FROM e;`
	)
	backdated := credit.EntryID{0x01, 0x98, 0xc2, 0xd0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1}.String()
	for _, x := range []struct {
		what, sql string
		says      []string // %[1]s is the fifth entry, %[2]s the last
	}{
		{"a posting changed", "UPDATE postings SET amount_minor = amount_minor + 1 WHERE entry_id = '%[1]s' AND account = 4010", []string{"%[1]s (number 5) is not what was posted", "trial balance"}},
		{"both postings changed", "UPDATE postings SET amount_minor = amount_minor + 1 WHERE entry_id = '%[1]s'", []string{"%[1]s (number 5) is not what was posted"}},
		{"another model", "UPDATE postings SET model = 'm9' WHERE entry_id = '%[1]s' AND account = 4010", []string{"%[1]s (number 5) is not what was posted"}},
		{"another account", "UPDATE postings SET account = 4020 WHERE entry_id = '%[1]s' AND account = 4010", []string{"%[1]s (number 5) is not what was posted", "trial balance"}},
		{"a posting deleted", "DELETE FROM postings WHERE entry_id = '%[1]s' AND account = 4010", []string{"%[1]s (number 5) is not what was posted"}},
		{"the postings renumbered", "UPDATE postings SET n = n + 5 WHERE entry_id = '%[1]s'", []string{"%[1]s (number 5) is not what was posted"}},
		{"another time", "UPDATE journal_entries SET posted_at = posted_at - interval '1 microsecond' WHERE id = '%[1]s'", []string{"%[1]s (number 5) is not what was posted"}},
		{"another day", "UPDATE journal_entries SET service_on = service_on + 1 WHERE id = '%[1]s'", []string{"%[1]s (number 5) is not what was posted"}},
		{"late", "UPDATE journal_entries SET late = true WHERE id = '%[1]s'", []string{"%[1]s (number 5) is not what was posted"}},
		{"moved to another month", "UPDATE journal_entries SET period = '2026-02' WHERE id = '%[1]s'", []string{"%[1]s (number 5) is not what was posted"}},
		{"moved from another month", "UPDATE journal_entries SET period = '2026-01' WHERE id = (SELECT entry_id FROM sealed_entries WHERE entity = 'acme' AND period = '2026-02' AND seq = 3)",
			[]string{"has the number of another period"}},
		{"an entry deleted", deletion, []string{"%[1]s (number 5) is not in the journal any more", "the root"}},
		{"an entry deleted with its number", deletion + number, []string{"number 5 is missing", "the seal is over 12 entries, there are 11"}},
		{"the last entry deleted", strings.ReplaceAll(deletion, "[1]", "[2]"), []string{"%[2]s (number 12) is not in the journal any more"}},
		{"the last entry deleted with its number", strings.ReplaceAll(deletion+number, "[1]", "[2]"), []string{"the seal is over 12 entries, there are 11"}},
		{"an entry back-dated", backdate, []string{backdated + " has no number"}},
		{"an entry back-dated and numbered", backdate + "INSERT INTO sealed_entries VALUES ('acme', '2026-01', 13, '0198c2d0-0000-7000-8000-000000000001', '\\x" + strings.Repeat("00", 32) + "', false)",
			[]string{backdated + " (number 13) came after the seal", "over 12 entries, there are 13"}},
		{"a posting changed with every hash in the database", `UPDATE postings SET amount_minor = amount_minor + 1 WHERE entry_id = '%[1]s';
			UPDATE journal_entries SET leaf = '%[3]s' WHERE id = '%[1]s'; UPDATE sealed_entries SET leaf = '%[3]s' WHERE entry_id = '%[1]s'`, []string{"the root of 12 entries is"}},
		{"the numbers of two entries exchanged", `DELETE FROM sealed_entries WHERE entity = 'acme' AND period = '2026-01' AND seq IN (5, 6);
			INSERT INTO sealed_entries SELECT 'acme', '2026-01', CASE id WHEN '%[1]s' THEN 6 ELSE 5 END, id, leaf, false FROM journal_entries WHERE id IN ('%[1]s', '%[4]s')`, []string{"the root of 12 entries is"}},
		{"the seal deleted", "DELETE FROM seals WHERE entity = 'acme'", []string{"seal 1 of the period is not in the database"}},
		{"the seal changed", `UPDATE seals SET document = replace(document::text, '"size": 12', '"size": 11')::json, size = 11 WHERE entity = 'acme'`, []string{"seal 1 of the period is another one in the database"}},
	} {
		t.Run(x.what, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			b.number()
			b.close(january)
			kept := b.seal(january)
			fifth, sixth, last := b.entry(january, 5), b.entry(january, 6), b.entry(january, entries)
			if r, text := b.verify(audit.Options{Seal: kept, Trusted: []string{b.sealer.Key.ID()}}); !r.Clean() || r.Size != entries {
				t.Fatalf("before: %s", text)
			}
			owner := dbtest.Owner(t, b.Store)
			forged := "leaf"
			if strings.Contains(x.sql, "%[3]s") { // what the sealer would compute from the changed rows
				proof, err := b.Store.ProveEntry(ctx, fifth)
				if err != nil {
					t.Fatal(err)
				}
				e, err := seal.ReadEntry(proof.Entry)
				if err != nil {
					t.Fatal(err)
				}
				for i := range e.Postings {
					e.Postings[i].Money.Minor++
				}
				forged = `\x` + e.Leaf().String()
			}
			sql := x.sql
			for at, value := range map[string]string{"%[1]s": uuid(fifth), "%[2]s": uuid(last), "%[3]s": forged, "%[4]s": uuid(sixth)} {
				sql = strings.ReplaceAll(sql, at, value)
			}
			if tag, err := owner.Exec(ctx, "SET session_replication_role = replica; "+sql); err != nil || tag.RowsAffected() == 0 {
				t.Fatalf("%v, %v", tag, err)
			}
			r, text := b.verify(audit.Options{Seal: kept, Trusted: []string{b.sealer.Key.ID()}})
			if r.Clean() {
				t.Fatalf("nothing is found: %s", text)
			}
			for _, want := range x.says {
				if want = strings.NewReplacer("%[1]s", fifth.String(), "%[2]s", last.String()).Replace(want); !strings.Contains(text, want) {
					t.Errorf("it does not say %q:\n%s", want, text)
				}
			}
			if _, text := b.verify(audit.Options{Period: february}); !strings.Contains(text, "clean: ") && !strings.Contains(x.what, "month") {
				t.Errorf("February: %s", text)
			}
			if strings.Contains(x.what, "the seal") {
				return
			}
			// The root alone, written down somewhere, finds it too.
			if r, text := b.verify(audit.Options{Root: kept.Root}); r.Clean() {
				t.Errorf("by the root: %s", text)
			}
			// And nobody seals over it.
			if strings.Contains(x.what, "number") && !strings.Contains(x.what, "renumbered") {
				if _, err := b.sealer.Seal(ctx, b.Store, dbtest.Entity, january, seal.Hash{}); credit.CodeOf(err) != credit.SealBroken {
					t.Errorf("sealed again: %v", err)
				}
			}
		})
	}
}

func uuid(id credit.EntryID) string { return fmt.Sprintf("%x", id[:]) }

func TestProofWithoutDatabase(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.number()
	id := b.entry(january, 7)
	if _, err := b.Store.ProveEntry(ctx, id); credit.CodeOf(err) != credit.NotSealed {
		t.Errorf("before the seal: %v", err)
	}
	first := b.seal(january)
	b.close(january)
	second := b.seal(january)
	if second.Version != 2 || second.Previous != first.Hash() || second.Root != first.Root || !second.Closed || first.Closed {
		t.Errorf("%+v then %+v", first, second)
	}
	for seq := 1; seq <= entries; seq++ {
		proof, err := b.Store.ProveEntry(ctx, b.entry(january, seq))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := proof.JSON()
		if err != nil {
			t.Fatal(err)
		}
		read, err := seal.ReadProof(doc)
		if err != nil {
			t.Fatal(err)
		}
		e, err := read.Check(second.Root, nil)
		if err != nil || e.ID != b.entry(january, seq) || len(e.Postings) < 2 {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if _, err := b.Store.ProveEntry(ctx, credit.NewID[credit.EntryID]()); credit.CodeOf(err) != credit.NotFound {
		t.Errorf("an entry that is not there: %v", err)
	}
	dbtest.Owner(t, b.Store).Exec(ctx, "SET session_replication_role = replica; UPDATE journal_entries SET cause = 'y' WHERE id = '"+uuid(id)+"'")
	if _, err := b.Store.ProveEntry(ctx, id); credit.CodeOf(err) != credit.SealBroken {
		t.Errorf("a changed entry: %v", err)
	}
}

// An open period is sealed as far as it goes; what comes later is told, and is no fault. Closed, it takes nothing, until it is opened again.
func TestSealsOfOnePeriod(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	open := b.seal(february) // numbers what is not numbered
	if open.Size != entries || open.Version != 1 || open.Closed || !open.Previous.IsZero() {
		t.Errorf("%+v", open)
	}
	if again := b.seal(february); again.Hash() != open.Hash() {
		t.Errorf("sealed again: %+v", again)
	}
	b.customer.Use(on(2, 20), b.grant, 5, nil)
	b.recognise()
	if r, text := b.verify(audit.Options{Period: february, Seal: open}); !r.Clean() || r.After != 0 || r.Waiting != 1 {
		t.Errorf("%s", text)
	}
	b.number()
	if r, text := b.verify(audit.Options{Period: february, Seal: open}); !r.Clean() || r.After != 1 || !strings.Contains(text, "the first 12 entries are what was sealed, 1 came after") {
		t.Errorf("%s", text)
	}
	b.close(february)
	closed := b.seal(february)
	if closed.Size != entries+1 || closed.Version != 2 || closed.Number != 2 || !closed.Closed || closed.Previous != open.Hash() {
		t.Errorf("%+v", closed)
	}
	pack := seal.LeafHash([]byte("pack"))
	withPack, err := b.sealer.Seal(ctx, b.Store, dbtest.Entity, february, pack)
	if err != nil || withPack.Version != 3 || withPack.Pack != pack || withPack.Root != closed.Root {
		t.Errorf("%+v, %v", withPack, err)
	}
	// Opened again, it takes an entry, and is closed in its next version.
	b.SetPeriod("2026-02", "reopened")
	b.customer.Use(on(2, 21), b.grant, 5, nil)
	b.recognise()
	b.number()
	if r, text := b.verify(audit.Options{Period: february, Seal: withPack}); r.Clean() || !strings.Contains(text, "came after the seal") {
		t.Errorf("not sealed again yet: %s", text)
	}
	b.SetPeriod("2026-02", "closed")
	b.Corrupt("UPDATE periods SET version = version + 1 WHERE period = '2026-02'")
	last := b.seal(february)
	if last.Size != entries+2 || last.Version != 4 || !last.Closed {
		t.Errorf("%+v", last)
	}
	for _, s := range []*seal.Seal{open, closed, withPack, last, nil} {
		if r, text := b.verify(audit.Options{Period: february, Seal: s}); !r.Clean() {
			t.Errorf("%s", text)
		}
	}
	if r, text := b.verify(audit.Options{Period: february, Root: closed.Root}); !r.Clean() || r.Seal == nil {
		t.Errorf("%s", text)
	}
	if r, text := b.verify(audit.Options{Period: february, Seal: last, Trusted: []string{"x"}}); r.Clean() || !strings.Contains(text, "not trusted") {
		t.Errorf("%s", text)
	}
	if r, text := b.verify(audit.Options{Period: january, Seal: last}); r.Clean() {
		t.Errorf("%s", text)
	}
	if r, text := b.verify(audit.Options{Period: january}); !r.Clean() || r.Seal != nil || !strings.Contains(text, "proves little") {
		t.Errorf("%s", text)
	}
	list, err := b.Store.Seals(ctx, dbtest.Entity, "", 0, 10)
	if err != nil || len(list) != 4 || list[0].Hash() != last.Hash() || list[3].Hash() != open.Hash() {
		t.Errorf("%v, %v", list, err)
	}
	for i := range 3 {
		if list[i].Previous != list[i+1].Hash() {
			t.Errorf("seal %d does not name the one before", list[i].Number)
		}
	}
	// A later seal begins with the entries of an earlier one, and that can be shown to somebody who has but the two roots.
	rows, err := b.Store.AuditPeriod(ctx, dbtest.Entity, february, -1, 1)
	if err != nil {
		t.Fatal(err)
	}
	path, err := rows.Tree.Extend(last.Size, open.Size)
	if err != nil || seal.CheckExtension(last.Root, last.Size, open.Root, open.Size, path) != nil {
		t.Errorf("%v", err)
	}
}

func TestSealRefusals(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	for want, try := range map[credit.Code]func() (*seal.Seal, error){
		credit.EntityNotFound: func() (*seal.Seal, error) { return b.sealer.Seal(ctx, b.Store, "nobody", january, seal.Hash{}) },
		credit.NotFound:       func() (*seal.Seal, error) { return b.sealer.Seal(ctx, b.Store, dbtest.Entity, "2031-01", seal.Hash{}) },
		credit.NoSealingKey: func() (*seal.Seal, error) {
			return new(audit.Sealer).Seal(ctx, b.Store, dbtest.Entity, january, seal.Hash{})
		},
	} {
		if s, err := try(); credit.CodeOf(err) != want || s != nil {
			t.Errorf("%v, %v; want %s", s, err, want)
		}
	}
	if _, err := audit.Verify(ctx, b.Store, audit.Options{Entity: "nobody", Period: january}); credit.CodeOf(err) != credit.EntityNotFound {
		t.Errorf("%v", err)
	}
	if r, text := b.verify(audit.Options{Period: "2031-01"}); !r.Clean() || !strings.Contains(text, "nothing was ever booked") {
		t.Errorf("%s", text)
	}
	if r, text := b.verify(audit.Options{Root: seal.LeafHash(nil)}); r.Clean() || !strings.Contains(text, "no seal in the database has the root given") {
		t.Errorf("%s", text)
	}
}

// The file of a seal is written once. Where it is missing, the next call writes it; where it says something else, that is told.
func TestSealFiles(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	s := b.seal(january)
	name := filepath.Join(b.sealer.Dir, audit.FileName(s))
	doc, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := seal.Read(doc); err != nil || read.Check([]string{b.sealer.Key.ID()}) != nil || read.Hash() != s.Hash() {
		t.Errorf("%v, %v", read, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("%v, %v", info, err)
	}
	os.Remove(name)
	b.seal(january)
	if again, err := os.ReadFile(name); err != nil || string(again) != string(doc) {
		t.Errorf("%s, %v", again, err)
	}
	os.Remove(name)
	if err := os.WriteFile(name, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.sealer.Seal(ctx, b.Store, dbtest.Entity, january, seal.Hash{}); credit.CodeOf(err) != credit.SealBroken {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(name)); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	var stored json.RawMessage
	if err := b.Store.Pool.QueryRow(ctx, "SELECT document FROM seals").Scan(&stored); err != nil || strings.TrimSpace(string(stored)) != strings.TrimSpace(string(doc)) {
		t.Errorf("the database has %s, the file %s: %v", stored, doc, err)
	}
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys", "seal.pem")
	k, err := audit.MakeKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.MakeKey(file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made again: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if s, err := audit.OpenSealer(file, ""); err != nil || s.Key.ID() != k.ID() {
		t.Errorf("%v, %v", s, err)
	}
	if s, err := audit.OpenSealer("", ""); err != nil || s.Key != nil {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := audit.OpenSealer(file+"x", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// A key takes the place of another: seals by both are good, as long as both are trusted.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.close(january)
	old := b.seal(january)
	oldKey := b.sealer.Key.ID()
	var err error
	if b.sealer.Key, err = seal.NewKey(); err != nil {
		t.Fatal(err)
	}
	fresh := b.seal(february)
	trusted := []string{oldKey, b.sealer.Key.ID()}
	for p, s := range map[ledger.Period]*seal.Seal{january: old, february: fresh} {
		if r, text := b.verify(audit.Options{Period: p, Seal: s, Trusted: trusted}); !r.Clean() {
			t.Errorf("%s", text)
		}
	}
	if fresh.Previous != old.Hash() || fresh.KeyID == old.KeyID {
		t.Errorf("%+v", fresh)
	}
	if again := b.seal(january); again.Hash() != old.Hash() {
		t.Errorf("sealed again under the new key: %+v", again)
	}
}

// Entries of a release that did not hash get their hashes from the sealer, and are marked.
func TestEntriesWithoutLeaf(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	if _, err := dbtest.Owner(t, b.Store).Exec(ctx, "SET session_replication_role = replica; UPDATE journal_entries SET leaf = NULL WHERE period = '2026-01'"); err != nil {
		t.Fatal(err)
	}
	s := b.seal(january)
	r, text := b.verify(audit.Options{Seal: s})
	if !r.Clean() || r.HashedLate != entries || !strings.Contains(text, "12 entries were posted by a release that did not hash them") {
		t.Errorf("%s", text)
	}
	if r, text := b.verify(audit.Options{Period: february}); !r.Clean() || r.HashedLate != 0 {
		t.Errorf("%s", text)
	}
}

// Writers post while sealers number and a transaction that began before holds everybody's horizon back: in the end every entry has one number, without
// gaps, and the sealer's mark is at the newest.
func TestNumbering(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	held, err := b.Store.Pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback(ctx)
	if _, err := held.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	var customers []*dbtest.Customer
	for range 6 {
		c := b.Customer(dbtest.Entity)
		g := c.Grant(on(1, 1), credit.Grant{Amount: 1000, Price: usd(10_000)})
		for day := 2; day < 10; day++ {
			c.Use(on(time.Month(1+day%3), day), g, 10, nil)
		}
		customers = append(customers, c)
	}
	done := make(chan error)
	for _, c := range customers {
		go func() {
			_, err := b.Store.RecogniseCustomer(ctx, c.ID)
			done <- err
		}()
	}
	stop := make(chan struct{})
	for range 2 {
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if _, _, err := b.Store.NumberEntries(ctx); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for range customers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	b.number()
	mark := func() (no, head int64) {
		if err := b.Store.Pool.QueryRow(ctx, "SELECT s.no, (SELECT max(no) FROM journal_entries) FROM sealer AS s").Scan(&no, &head); err != nil {
			t.Fatal(err)
		}
		return no, head
	}
	if no, head := mark(); no == head {
		t.Error("the mark passed entries that might still have come")
	}
	held.Rollback(ctx)
	deadline := time.Now().Add(30 * time.Second)
	for {
		b.number()
		if no, head := mark(); no == head {
			break
		}
		if time.Now().After(deadline) { // other databases of the server have transactions of their own
			t.Fatal("the mark does not come to the newest entry")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if rest, err := b.Store.MeasureSealer(ctx); err != nil || rest.Entries != 0 {
		t.Errorf("%+v, %v", rest, err)
	}
	rows, err := b.Store.Pool.Query(ctx, `SELECT count(*) FROM journal_entries AS e FULL JOIN sealed_entries AS s ON s.entry_id = e.id AND s.entity = e.entity AND s.period = e.period
		WHERE e.id IS NULL OR s.entry_id IS NULL UNION ALL SELECT count(*) FROM (SELECT FROM sealed_entries GROUP BY entity, period HAVING max(seq) <> count(*) OR min(seq) <> 1) AS gaps`)
	if err != nil {
		t.Fatal(err)
	}
	if wrong, err := pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil || !slices.Equal(wrong, []int64{0, 0}) {
		t.Errorf("%v, %v", wrong, err)
	}
}

// In a database that was restored from a dump transactions are numbered anew, below what the sealer remembers.
func TestNumberingAfterRestore(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.number()
	b.Exec("UPDATE sealer SET next_xid = 1::bigint << 60")
	b.customer.Use(on(2, 20), b.grant, 5, nil)
	b.recognise()
	b.number()
	b.customer.Use(on(2, 21), b.grant, 5, nil)
	b.recognise()
	b.number()
	if r, text := b.verify(audit.Options{Period: february}); !r.Clean() || r.Size != entries+2 || r.Waiting != 0 {
		t.Errorf("%s", text)
	}
}

// Nobody but the owner of the tables can take a number or a seal back.
func TestNumbersAndSealsStay(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.seal(january)
	owner := dbtest.Owner(t, b.Store)
	for _, sql := range []string{"UPDATE sealed_entries SET seq = seq + 100", "DELETE FROM sealed_entries", "TRUNCATE sealed_entries", "UPDATE seals SET size = 1", "DELETE FROM seals", "TRUNCATE seals"} {
		if _, err := b.Store.Pool.Exec(ctx, sql); err == nil {
			t.Errorf("the product may %s", sql)
		}
		if _, err := owner.Exec(ctx, sql); err == nil || !strings.Contains(err.Error(), "never changed") {
			t.Errorf("the owner may %s: %v", sql, err)
		}
	}
}
