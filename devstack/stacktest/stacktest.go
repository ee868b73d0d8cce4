// Package stacktest tells tests where the servers are that they run against. "tallystick dev exec" starts servers of
// its own and sets the variables; "make test" does that. A test whose server is missing fails, it is never skipped.
package stacktest

import (
	"os"
	"testing"
)

// The environment variables that "tallystick dev exec" sets.
const (
	EnvDatabaseURL       = "TALLYSTICK_TEST_DATABASE_URL"
	EnvRedisAddr         = "TALLYSTICK_TEST_REDIS_ADDR"
	EnvTemporalAddress   = "TALLYSTICK_TEST_TEMPORAL_ADDRESS"
	EnvTemporalNamespace = "TALLYSTICK_TEST_TEMPORAL_NAMESPACE"
)

// DatabaseURL returns the URL of a Postgres superuser, for tests that make databases of their own. The database in the
// URL is shared by all tests and stays empty.
func DatabaseURL(t testing.TB) string {
	t.Helper()
	return need(t, EnvDatabaseURL)
}

// RedisAddr returns host:port of a Redis that all tests share: each uses keys of its own and flushes nothing.
func RedisAddr(t testing.TB) string {
	t.Helper()
	return need(t, EnvRedisAddr)
}

// Temporal returns host:port of a Temporal server's gRPC interface and a namespace that all tests share: each uses
// task queues and workflow ids of its own.
func Temporal(t testing.TB) (address, namespace string) {
	t.Helper()
	return need(t, EnvTemporalAddress), need(t, EnvTemporalNamespace)
}

func need(t testing.TB, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is not set; run: make test (or: tallystick dev exec -- go test ./...)", name)
	}
	return v
}
