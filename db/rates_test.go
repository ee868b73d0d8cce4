package db_test

import (
	"sync"
	"testing"

	"github.com/tallystick/tallystick/db/dbtest"
)

// Rates and withdrawals are only added to; of an assignment nothing but the end changes.
func TestRatesAreAppendOnly(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	owner := dbtest.Owner(t, s)
	b.Exec("INSERT INTO rate_cards (id, code, unit) VALUES (gen_random_uuid(), 'standard', $1)", dbtest.Unit)
	b.Exec(`INSERT INTO rate_card_versions (card_id, version, effective_at, document, published_by) SELECT id, 1, now(), '{}', 'x' FROM rate_cards`)
	b.Exec("INSERT INTO rate_card_withdrawals (card_id, version, withdrawn_by, reason) SELECT id, 1, 'x', 'x' FROM rate_cards")
	b.Exec("INSERT INTO fx_rates (source, from_currency, to_currency, on_date, version, rate, imported_by) VALUES ('ecb', 'EUR', 'USD', '2026-11-20', 1, 1.08, 'x')")
	b.Exec(`INSERT INTO rate_card_assignments (id, customer_id, card_id, valid_from, assigned_at, assigned_by, reason)
		SELECT gen_random_uuid(), $1, id, '2026-01-01', now(), 0, 'x' FROM rate_cards`, [16]byte(c.ID))
	b.Exec("UPDATE rate_card_assignments SET valid_to = '2026-02-01'")
	for _, sql := range []string{
		"UPDATE fx_rates SET rate = 2", "DELETE FROM fx_rates", "TRUNCATE fx_rates", "UPDATE rate_card_withdrawals SET reason = 'y'",
		"DELETE FROM rate_card_withdrawals", "TRUNCATE rate_card_withdrawals", "DELETE FROM rate_card_assignments", "TRUNCATE rate_card_assignments",
	} {
		if state, constraint := breach(exec(owner.Exec(ctx, sql))); state != "23001" || constraint != "append_only" {
			t.Errorf("owner: %s: %s %s", sql, state, constraint)
		}
		if state, _ := breach(exec(s.Pool.Exec(ctx, sql))); state != "42501" {
			t.Errorf("running product: %s: %s", sql, state)
		}
	}
	for sql, want := range map[string]string{
		"UPDATE rate_card_assignments SET valid_from = '2025-01-01'": "assignment_fixed",
		"UPDATE rate_card_assignments SET reason = 'y'":              "assignment_fixed",
		"UPDATE rate_card_assignments SET valid_to = '2025-12-31'":   "assignment_lasts",
		"INSERT INTO fx_rates (source, from_currency, to_currency, on_date, version, rate, imported_by) VALUES ('ecb', 'EUR', 'USD', '2026-11-20', 1, 2, 'x')": "fx_rate_once",
		"INSERT INTO fx_rates (source, from_currency, to_currency, on_date, version, rate, imported_by) VALUES ('ecb', 'EUR', 'EUR', '2026-11-20', 1, 2, 'x')": "fx_rate_of_two",
		"INSERT INTO rate_card_withdrawals (card_id, version, withdrawn_by, reason) SELECT id, 1, 'x', 'x' FROM rate_cards":                                    "withdrawn_once",
		`INSERT INTO rate_card_assignments (id, customer_id, card_id, valid_from, valid_to, assigned_at, assigned_by, reason)
			SELECT gen_random_uuid(), customer_id, card_id, '2025-06-01', '2026-01-01 00:00:00.000001Z', now(), 0, 'x' FROM rate_card_assignments`: "assignment_overlaps",
	} {
		if _, constraint := breach(exec(owner.Exec(ctx, sql))); constraint != want {
			t.Errorf("%s: %q, not %q", sql, constraint, want)
		}
	}
	b.Exec(`INSERT INTO rate_card_assignments (id, customer_id, card_id, valid_from, valid_to, assigned_at, assigned_by, reason)
		SELECT gen_random_uuid(), customer_id, card_id, '2025-06-01', '2026-01-01', now(), 0, 'x' FROM rate_card_assignments`)
}

func exec[T any](_ T, err error) error { return err }

// However many assign a card for one time at once, one does.
func TestAssignmentsDoNotOverlapInParallel(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	c := b.Customer(dbtest.Entity)
	b.Exec("INSERT INTO rate_cards (id, code, unit) VALUES (gen_random_uuid(), 'standard', $1)", dbtest.Unit)
	errs := make([]error, 12)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			_, errs[i] = s.Pool.Exec(ctx, `INSERT INTO rate_card_assignments (id, customer_id, card_id, valid_from, assigned_at, assigned_by, reason)
				SELECT gen_random_uuid(), $1, id, '2026-01-01', now(), 0, 'x' FROM rate_cards`, [16]byte(c.ID))
		})
	}
	all.Wait()
	done := 0
	for _, err := range errs {
		if _, constraint := breach(err); err == nil {
			done++
		} else if constraint != "assignment_overlaps" {
			t.Error(err)
		}
	}
	if done != 1 {
		t.Errorf("%d assignments of one time", done)
	}
}
