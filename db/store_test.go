package db_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

// TestTx has COMMIT end in every way it can: a trigger that is deferred to it does what the inserted row says.
func TestTx(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	owner := dbtest.Owner(t, s)
	if _, err := owner.Exec(ctx, `
		CREATE TABLE probes (what text NOT NULL PRIMARY KEY);
		GRANT SELECT, INSERT ON probes TO tallystick_app;
		CREATE FUNCTION probe() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
			CASE split_part(NEW.what, ':', 1)
				WHEN 'warning' THEN RAISE WARNING 'the wait was cancelled';
				WHEN 'error' THEN RAISE EXCEPTION 'no';
				WHEN 'ended' THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10);
				WHEN 'wait' THEN PERFORM pg_advisory_xact_lock(1);
				ELSE NULL;
			END CASE;
			RETURN NULL;
		END $$;
		CREATE CONSTRAINT TRIGGER probe AFTER INSERT ON probes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION probe();`); err != nil {
		t.Fatal(err)
	}
	insert := func(ctx context.Context, what string) error {
		return s.Tx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO probes VALUES ($1)", what)
			return err
		})
	}
	there := func(what string) (yes bool) {
		t.Helper()
		if err := owner.QueryRow(ctx, "SELECT EXISTS (SELECT FROM probes WHERE what = $1)", what).Scan(&yes); err != nil {
			t.Fatal(err)
		}
		return yes
	}
	for _, c := range []struct {
		what                       string
		failed, unknown, committed bool
	}{
		{"nothing", false, false, true},
		{"nothing", true, false, true}, // it is there already
		{"warning", true, true, true},
		{"nothing:after the warning", false, false, true},
		{"error", true, false, false},
		{"ended", true, true, false},
		{"nothing:after the connection's end", false, false, true},
	} {
		err := insert(ctx, c.what)
		if (err != nil) != c.failed || errors.Is(err, db.ErrUnknown) != c.unknown || there(c.what) != c.committed {
			t.Errorf("%s: %v; committed: %v", c.what, err, there(c.what))
		}
	}

	// A warning that is not about the commit means nothing; neither does an error that was ignored make a success.
	if err := s.Tx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "DO $$ BEGIN RAISE WARNING 'mind the step'; END $$")
		return err
	}); err != nil {
		t.Errorf("a warning before the commit: %v", err)
	}
	if err := s.Tx(ctx, func(tx pgx.Tx) error {
		_, _ = tx.Exec(ctx, "SELECT 1/0")
		return nil
	}); !errors.Is(err, pgx.ErrTxCommitRollback) || errors.Is(err, db.ErrUnknown) {
		t.Errorf("an ignored error: %v", err)
	}

	// While COMMIT takes its time the caller goes away, or has no more time.
	if _, err := owner.Exec(ctx, "SELECT pg_advisory_lock(1)"); err != nil {
		t.Fatal(err)
	}
	committing := func(want bool) {
		t.Helper()
		for is := !want; is != want; {
			if err := owner.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity
				WHERE datname = current_database() AND query = 'commit' AND state = 'active' AND wait_event = 'advisory')`).Scan(&is); err != nil {
				t.Fatal(err)
			}
		}
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := insert(short, "wait:late"); !errors.Is(err, db.ErrUnknown) {
		t.Errorf("a commit that took too long: %v", err)
	}
	committing(false)
	leaving, leave := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- insert(leaving, "wait:left") }()
	committing(true)
	leave()
	if _, err := owner.Exec(ctx, "SELECT pg_advisory_unlock(1)"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || !there("wait:left") {
		t.Errorf("the caller went away: %v", err)
	}
}
