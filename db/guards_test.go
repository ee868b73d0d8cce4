package db_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db/dbtest"
)

// breach returns SQLSTATE and constraint of a Postgres error, "" and "" of anything else.
func breach(err error) (state, constraint string) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code, pg.ConstraintName
	}
	return "", ""
}

// soundBook has a customer with two entries, a movement and a key in every state that the guards guard.
func soundBook(t *testing.T) (*dbtest.Book, *dbtest.Customer, *credit.Grant) {
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	g := c.Grant(on(1, 1), credit.Grant{Amount: 100, Price: usd(1000)})
	c.Use(on(1, 2), g, 10, nil)
	recognise(t, s, c)
	b.Exec("INSERT INTO events (customer_id, seq, id, type, subject, data) VALUES (gen_random_uuid(), 1, gen_random_uuid(), 'grant.created', 'x', '{}')")
	b.Exec("INSERT INTO audit_log (actor, request_id, action, subject) VALUES (1, gen_random_uuid(), 'grant.create', 'x')")
	return b, c, g
}

// Rows of the ledger are never changed: not by the running product, which has no right to, and not by the owner, whom a trigger refuses.
func TestLedgerIsAppendOnly(t *testing.T) {
	t.Parallel()
	b, _, _ := soundBook(t)
	owner := dbtest.Owner(t, b.Store)
	for _, table := range []struct{ name, column string }{
		{"operations", "amount = 0"}, {"movements", "amount = 1"}, {"journal_entries", "period = '2026-02'"}, {"postings", "amount_minor = 1"},
		{"audit_log", "action = ''"}, {"events", "data = '{}'"},
	} {
		for _, sql := range []string{
			fmt.Sprintf("UPDATE %s SET %s", table.name, table.column),
			fmt.Sprintf("DELETE FROM %s", table.name),
			fmt.Sprintf("TRUNCATE %s CASCADE", table.name),
		} {
			_, err := owner.Exec(ctx, sql)
			if state, constraint := breach(err); state != "23001" || constraint != "append_only" {
				t.Errorf("owner: %s: %v", sql, err)
			}
			_, err = b.Store.Pool.Exec(ctx, sql)
			if state, _ := breach(err); state != "42501" {
				t.Errorf("running product: %s: %v", sql, err)
			}
		}
	}
	for _, sql := range []string{
		"SET session_replication_role = replica", "ALTER TABLE postings DISABLE TRIGGER ALL", "DROP TABLE postings", "ALTER TABLE grants DROP CONSTRAINT grant_conserves",
		"UPDATE ledger_accounts SET name = ''", "UPDATE legal_entities SET currency = 'EUR'", "DELETE FROM refunds", "DELETE FROM grants",
	} {
		if _, err := b.Store.Pool.Exec(ctx, sql); err == nil {
			t.Errorf("running product: %s: done", sql)
		} else if state, _ := breach(err); state != "42501" {
			t.Errorf("running product: %s: %v", sql, err)
		}
	}
}

// An entry that does not balance, has no postings or was posted before is refused, at the latest by the commit.
func TestJournalGuards(t *testing.T) {
	t.Parallel()
	b, c, g := soundBook(t)
	owner := dbtest.Owner(t, b.Store)
	const entry = `INSERT INTO journal_entries (id, cause, entity, period, service_on, kind, customer_id, grant_id)
		VALUES ('00000000-0000-0000-0000-00000000000%d', 'cause %d', 'acme', '2026-01', '2026-01-05', 'void', '%x', '%x');`
	const leg = "INSERT INTO postings (entry_id, n, account, side, amount_minor, currency) VALUES ('00000000-0000-0000-0000-00000000000%d', %d, %d, '%s', %d, '%s');"
	head := fmt.Sprintf(entry, 1, 1, c.ID[:], g.ID[:])
	for _, x := range []struct{ what, sql, constraint string }{
		{"debits and credits differ", head + fmt.Sprintf(leg, 1, 0, 1010, "dr", 5, "USD") + fmt.Sprintf(leg, 1, 1, 2010, "cr", 4, "USD"), "entry_balances"},
		{"one leg", head + fmt.Sprintf(leg, 1, 0, 1010, "dr", 5, "USD"), "entry_balances"},
		{"balanced only across currencies", head + fmt.Sprintf(leg, 1, 0, 1010, "dr", 5, "USD") + fmt.Sprintf(leg, 1, 1, 2010, "cr", 5, "EUR"), "entry_balances"},
		{"no postings", head, "entry_has_postings"},
		{"a leg added to a posted entry", "INSERT INTO postings (entry_id, n, account, side, amount_minor, currency) SELECT id, 9, 1010, 'dr', 5, 'USD' FROM journal_entries LIMIT 1", "entry_balances"},
		{"amount of zero", head + fmt.Sprintf(leg, 1, 0, 1010, "dr", 0, "USD"), "posting_sign"},
		{"unknown account", head + fmt.Sprintf(leg, 1, 0, 9999, "dr", 5, "USD"), "postings_account_fkey"},
		{"the same cause", head + strings.ReplaceAll(head, "-000000000001'", "-000000000002'"), "entry_once"},
		{"unknown period", strings.ReplaceAll(head, "'2026-01',", "'2031-01',"), "journal_entries_entity_period_fkey"},
	} {
		err := pgx.BeginFunc(ctx, owner, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, x.sql)
			return err
		})
		if _, constraint := breach(err); constraint != x.constraint {
			t.Errorf("%s: %v, want %s", x.what, err, x.constraint)
		}
	}
	err := pgx.BeginFunc(ctx, b.Store.Pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, head+fmt.Sprintf(leg, 1, 0, 1010, "dr", 5, "USD")+fmt.Sprintf(leg, 1, 1, 2010, "cr", 5, "USD"))
		return err
	})
	if err != nil {
		t.Errorf("a sound entry: %v", err)
	}
}

// Counters that lose or invent credits are refused, and so are movements that make no sense.
func TestUnitBookGuards(t *testing.T) {
	t.Parallel()
	b, c, g := soundBook(t)
	for sql, want := range map[string]string{
		"UPDATE grants SET avail = avail - 1 WHERE id = $1":                                  "grant_conserves",
		"UPDATE grants SET consumed = consumed + 1 WHERE id = $1":                            "grant_conserves",
		"UPDATE grants SET granted = granted + 1, avail = avail + 1 WHERE id = $1":           "grant_issues_whole",
		"UPDATE grants SET avail = avail - 91, consumed = consumed + 91 WHERE id = $1":       "grant_avail_sign",
		"UPDATE grants SET held = -1, avail = avail + 1 WHERE id = $1":                       "grant_held_sign",
		"UPDATE grants SET consumed = -1, avail = avail + 11 WHERE id = $1":                  "grant_consumed_sign",
		"UPDATE grants SET expired = -1, avail = avail + 1 WHERE id = $1":                    "grant_expired_sign",
		"UPDATE grants SET refunded = -1, avail = avail + 1 WHERE id = $1":                   "grant_refunded_sign",
		"UPDATE grants SET voided = -1, avail = avail + 1 WHERE id = $1":                     "grant_voided_sign",
		"UPDATE grants SET transferred = -1, avail = avail + 1 WHERE id = $1":                "grant_transferred_sign",
		"INSERT INTO movements VALUES ($1, 9, 0, 'available', 'consumed', 0, 90)":            "movement_sign",
		"INSERT INTO movements VALUES ($1, 9, 0, 'available', 'available', 1, 90)":           "movement_moves",
		"INSERT INTO movements VALUES ($1, 9, 0, 'available', 'consumed', 1, -1)":            "movement_after_sign",
		"INSERT INTO movements VALUES ($1, 2, 0, 'available', 'consumed', 1, 89)":            "movement_order",
		"INSERT INTO operations SELECT (o).* FROM (SELECT o FROM operations o LIMIT 1) AS x": "operation_order",
	} {
		args := []any{g.ID[:]}
		if !strings.Contains(sql, "$1") {
			args = nil
		}
		_, err := b.Store.Pool.Exec(ctx, sql, args...)
		if _, constraint := breach(err); constraint != want {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
	if _, err := b.Store.Pool.Exec(ctx, "INSERT INTO idempotency_keys SELECT * FROM idempotency_keys WHERE customer_id = $1 LIMIT 1", c.ID[:]); err == nil {
		t.Error("a key was used twice")
	} else if _, constraint := breach(err); constraint != "key_once" {
		t.Error(err)
	}
}

func TestChartOfAccounts(t *testing.T) {
	t.Parallel()
	rows, err := dbtest.Open(t).Pool.Query(ctx, "SELECT code, name, type FROM ledger_accounts ORDER BY code")
	if err != nil {
		t.Fatal(err)
	}
	chart, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ledger.Line])
	if err != nil || !slices.Equal(chart, ledger.Chart) {
		t.Errorf("in the database: %v (%v)\nin the program: %v", chart, err, ledger.Chart)
	}
}
