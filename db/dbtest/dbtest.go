// Package dbtest gives each test a migrated database of its own.
package dbtest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/devstack/stacktest"
)

// template is the migrated database that New clones; its name carries nothing of the schema, for a test server lives as
// long as one run of the tests.
const template = "tallystick_template"

// New returns the URL of a fresh, migrated database (owner role), dropped when the test ends. It fails the test when there is no
// server.
func New(t testing.TB) string {
	t.Helper()
	server := stacktest.DatabaseURL(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatalf("connect to the test database server: %v", err)
	}
	defer conn.Close(context.Background())
	ensureTemplate(ctx, t, conn, server)
	name := "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	if _, err := conn.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, template)); err != nil {
		t.Fatalf("clone the test database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Logf("connect to drop %s: %v", name, err)
			return
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Logf("drop %s: %v", name, err)
		}
	})
	return withDatabase(t, server, name)
}

// Open returns a Store on a database of New.
func Open(t testing.TB) *db.Store {
	t.Helper()
	s, err := db.Open(context.Background(), New(t), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Owner returns a connection to the store's database as its superuser, who may do what the running product may not.
func Owner(t testing.TB, s *db.Store) *pgx.Conn {
	t.Helper()
	cfg := s.Pool.Config().ConnConfig.Copy()
	delete(cfg.RuntimeParams, "role")
	conn, err := pgx.ConnectConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// ensureTemplate makes the template once per server. Test binaries of several packages run at the same time: the first migrates.
func ensureTemplate(ctx context.Context, t testing.TB, conn *pgx.Conn, server string) {
	const lock = 7266117
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", lock); err != nil {
		t.Fatalf("lock the template database: %v", err)
	}
	defer conn.Exec(context.Background(), "SELECT pg_advisory_unlock($1)", lock)
	var ready bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)", template).Scan(&ready); err != nil {
		t.Fatalf("look for the template database: %v", err)
	}
	if ready {
		return
	}
	for _, sql := range []string{"DROP DATABASE IF EXISTS " + template, "CREATE DATABASE " + template} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("make the template database: %v", err)
		}
	}
	if _, err := db.Migrate(ctx, withDatabase(t, server, template), slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+template+" IS_TEMPLATE true"); err != nil {
		t.Fatalf("finish the template database: %v", err)
	}
}

func withDatabase(t testing.TB, server, name string) string {
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("read the test database url: %v", err)
	}
	u.Path = "/" + name
	return u.String()
}
