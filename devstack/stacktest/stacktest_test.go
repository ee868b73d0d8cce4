package stacktest

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// fatal is a testing.TB that records how a test is failed.
type fatal struct {
	testing.TB
	said    string
	skipped bool
}

func (*fatal) Helper() {}

func (f *fatal) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (f *fatal) Skip(...any)          { f.skipped = true }
func (f *fatal) Skipf(string, ...any) { f.skipped = true }
func (f *fatal) SkipNow()             { f.skipped = true }

func TestMissingServerFailsTheTest(t *testing.T) {
	for name, ask := range map[string]func(testing.TB){
		EnvDatabaseURL:       func(t testing.TB) { DatabaseURL(t) },
		EnvRedisAddr:         func(t testing.TB) { RedisAddr(t) },
		EnvTemporalAddress:   func(t testing.TB) { Temporal(t) },
		EnvTemporalNamespace: func(t testing.TB) { Temporal(t) },
	} {
		for _, v := range []string{EnvDatabaseURL, EnvRedisAddr, EnvTemporalAddress, EnvTemporalNamespace} {
			t.Setenv(v, "set")
		}
		t.Setenv(name, "")
		f := &fatal{TB: t}
		done := make(chan bool)
		go func() {
			defer close(done)
			ask(f)
		}()
		<-done
		if f.skipped || !strings.Contains(f.said, name) || !strings.Contains(f.said, "make test") {
			t.Errorf("without %s: skipped %v, said %q", name, f.skipped, f.said)
		}
	}
}

func TestValuesComeFromTheEnvironment(t *testing.T) {
	t.Setenv(EnvDatabaseURL, "postgres://example")
	t.Setenv(EnvRedisAddr, "127.0.0.1:1")
	t.Setenv(EnvTemporalAddress, "127.0.0.1:2")
	t.Setenv(EnvTemporalNamespace, "billing")
	if got := DatabaseURL(t); got != "postgres://example" {
		t.Error(got)
	}
	if got := RedisAddr(t); got != "127.0.0.1:1" {
		t.Error(got)
	}
	if address, namespace := Temporal(t); address != "127.0.0.1:2" || namespace != "billing" {
		t.Error(address, namespace)
	}
}
