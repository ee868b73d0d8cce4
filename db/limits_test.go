package db_test

import (
	"testing"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/dbtest"
)

const addWindow = `INSERT INTO limit_windows (limit_id, subject, window_start, used, held, carried, hard_limit, told) VALUES `

// limited is a customer with a hard limit of 100 and a window of it in which 60 are used, 30 held and 5 carried.
func limited(t *testing.T) (*dbtest.Book, *dbtest.Customer, credit.LimitID) {
	b := dbtest.NewBook(t, dbtest.Open(t))
	c, id := b.Customer(dbtest.Entity), credit.NewID[credit.LimitID]()
	b.Exec(`INSERT INTO limits (id, customer_id, name, unit, amount, applies_to, period, warn_at, created_at, created_ver) VALUES ($1, $2, 'Limit', 'CRD', 100, 'customer', 'day', '{}', now(), 1)`, id[:], c.ID[:])
	b.Exec(addWindow+"($1, '', '2026-01-01Z', 60, 30, 5, 100, 0)", id[:])
	return b, c, id
}

// A window never has more than its limit, nor less than nothing, whatever the code does.
func TestLimitGuards(t *testing.T) {
	t.Parallel()
	b, _, id := limited(t)
	b.Exec("UPDATE limit_windows SET used = used + 5 WHERE limit_id = $1", id[:])
	for sql, want := range map[string]string{
		"UPDATE limit_windows SET used = used + 1 WHERE limit_id = $1":                              "limit_window_admits",
		"UPDATE limit_windows SET held = held + 1 WHERE limit_id = $1":                              "limit_window_admits",
		"UPDATE limit_windows SET carried = carried + 1 WHERE limit_id = $1":                        "limit_window_admits",
		"UPDATE limit_windows SET hard_limit = 99 WHERE limit_id = $1":                              "limit_window_admits",
		addWindow + "($1, '', '2026-01-02Z', 101, 0, 0, 100, 0)":                                    "limit_window_admits",
		"UPDATE limit_windows SET used = -1 WHERE limit_id = $1":                                    "limit_window_used_sign",
		"UPDATE limit_windows SET held = -1 WHERE limit_id = $1":                                    "limit_window_held_sign",
		"UPDATE limit_windows SET carried = -1 WHERE limit_id = $1":                                 "limit_window_carried_sign",
		addWindow + "($1, '', '2026-01-01Z', 0, 0, 0, 100, 0)":                                      "limit_window_once",
		"INSERT INTO limit_counts VALUES ($1, '', '2026-01-01Z', gen_random_uuid(), 1, 0, 0, 0, 0)": "limit_count_counts",
		"UPDATE limits SET ended_at = now() WHERE id = $1":                                          "limit_ends",
		"UPDATE limits SET dimension = 'x' WHERE id = $1":                                           "limit_dimension",
		"UPDATE limits SET applies_to = 'dimension' WHERE id = $1":                                  "limit_dimension",
		"UPDATE limits SET period = 'rolling' WHERE id = $1":                                        "limit_length",
		"UPDATE limits SET member_id = id WHERE id = $1":                                            "limit_member",
	} {
		_, err := b.Store.Pool.Exec(ctx, sql, id[:])
		if _, constraint := breach(err); constraint != want {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
	for _, sql := range []string{"DELETE FROM limits", "UPDATE limit_counts SET used = 1"} {
		if _, err := b.Store.Pool.Exec(ctx, sql); err == nil {
			t.Errorf("running product: %s: done", sql)
		} else if state, _ := breach(err); state != "42501" {
			t.Errorf("running product: %s: %v", sql, err)
		}
	}
}

// What is old, holds nothing and is not a total is forgotten, with its counts.
func TestOldWindowsAreForgotten(t *testing.T) {
	t.Parallel()
	b, c, id := limited(t)
	total, ended := credit.NewID[credit.LimitID](), credit.NewID[credit.LimitID]()
	const more = `INSERT INTO limits (id, customer_id, name, unit, amount, applies_to, period, warn_at, created_at, created_ver, ended_at, ended_ver) VALUES
		($1, $2, 'More', 'CRD', 100, 'customer', $3, '{}', now(), 1, now() - make_interval(days => $4::integer), CASE WHEN $4::integer IS NOT NULL THEN 9 END)`
	b.Exec(more, total[:], c.ID[:], "total", nil)
	b.Exec(more, ended[:], c.ID[:], "total", 41)
	for _, w := range []struct {
		limit credit.LimitID
		days  int
		held  int
		kept  bool
	}{{id, 73, 0, false}, {id, 71, 0, true}, {id, 74, 1, true}, {id, 75, 0, false}, {total, 20_000, 0, true}, {ended, 20_000, 0, false}, {ended, 19_999, 1, true}} {
		told := 0
		if w.kept {
			told = 100 // says what to expect
		}
		b.Exec(addWindow+"($1, 'x', date_trunc('day', now()) - make_interval(days => $2), 1, $3, 0, 100, $4)", w.limit[:], w.days, w.held, told)
		b.Exec("INSERT INTO limit_counts SELECT $1, 'x', date_trunc('day', now()) - make_interval(days => $2), $3, 1, 1, $4, 1, $4", w.limit[:], w.days, c.ID[:], w.held)
	}
	b.Exec("DELETE FROM limit_windows WHERE subject = ''")
	n, err := b.Store.DeleteOldWindows(ctx, 2)
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if n, err = b.Store.DeleteOldWindows(ctx, 2); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	var kept, astray int
	if err := b.Store.Pool.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE w.told IS DISTINCT FROM 100) FROM limit_counts AS c
		FULL JOIN limit_windows AS w USING (limit_id, subject, window_start)`).Scan(&kept, &astray); err != nil || kept != 4 || astray != 0 {
		t.Errorf("%d are kept, %d of them should not be, %v", kept, astray, err)
	}
}
