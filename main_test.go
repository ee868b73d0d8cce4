package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/devstack"
	"github.com/tallystick/tallystick/devstack/stacktest"
)

// actAsMain makes the test binary behave as the program.
const actAsMain = "TALLYSTICK_TEST_ACT_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(actAsMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// program returns a command that runs this program in a process of its own, in a directory of its own.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = devDirectory(t)
	cmd.Env = append(clean(os.Environ()), actAsMain+"=1")
	return cmd
}

// clean drops the variables that a test may have been started with and that change what the program does.
func clean(environ []string) []string {
	var kept []string
	for _, line := range environ {
		name, _, _ := strings.Cut(line, "=")
		switch {
		case strings.HasPrefix(name, "TALLYSTICK_"), strings.HasPrefix(name, "TEMPORAL_"),
			name == "DATABASE_URL", name == "REDIS_ADDR", name == "MAKELEVEL", name == "MAKEFLAGS":
		default:
			kept = append(kept, line)
		}
	}
	return append(kept, "TALLYSTICK_TEMPORAL_BIN="+temporalBin())
}

// temporalBin is the one that "make test" has built or found; the commands run in directories from which it is not
// found otherwise.
func temporalBin() string {
	if p, err := filepath.Abs(".tallystick/bin/temporal"); err == nil {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	p, err := exec.LookPath("temporal")
	if err != nil {
		return "temporal"
	}
	return p
}

// devDirectory returns a new directory that every user may enter.
func devDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tallystick-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runWith runs the program's run and returns what it printed.
func runWith(t *testing.T, vars map[string]string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	all := environment(clean(os.Environ()))
	for name, value := range vars {
		all[name] = value
	}
	var out, errOut bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = run(ctx, args, environ{vars: all, stdin: strings.NewReader("from stdin"), stdout: &out, stderr: &errOut})
	return out.String(), errOut.String(), err
}

func TestVersion(t *testing.T) {
	t.Parallel()
	out, _, err := runWith(t, nil, "version")
	if err != nil || !strings.HasPrefix(out, "tallystick ") {
		t.Errorf("version printed %q, %v", out, err)
	}
}

func TestHelpNamesTheVariables(t *testing.T) {
	t.Parallel()
	out, _, err := runWith(t, nil, "dev", "up", "--help")
	if code, ok := errors.AsType[exitCode](err); !ok || code != 0 {
		t.Errorf("--help: %v, want exit status 0", err)
	}
	for _, want := range []string{"DATABASE_URL", "REDIS_ADDR", "TEMPORAL_ADDRESS", "TALLYSTICK_DIR"} {
		if !strings.Contains(out, want) {
			t.Errorf("help does not name %s:\n%s", want, out)
		}
	}
}

func TestWrongUse(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"nonsense"}, {"dev", "exec"}, {"dev", "exec", "--"}, {"dev", "--no-such-flag"}} {
		if _, _, err := runWith(t, nil, args...); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

func TestExecGivesServersAndStatus(t *testing.T) {
	t.Parallel()
	script := `cat; echo; echo "$TALLYSTICK_TEST_DATABASE_URL $TALLYSTICK_TEST_REDIS_ADDR"` +
		` "$TALLYSTICK_TEST_TEMPORAL_ADDRESS $TALLYSTICK_TEST_TEMPORAL_NAMESPACE $*"; exit 7`
	out, log, err := runWith(t, nil, "dev", "exec", "--", "sh", "-c", script, "sh", "--flag", "--", "word")
	if code, ok := errors.AsType[exitCode](err); !ok || code != 7 {
		t.Errorf("run = %v, want exit status 7\n%s", err, log)
	}
	stdin, line, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if stdin != "from stdin" {
		t.Errorf("standard input came through as %q", stdin)
	}
	var url, redis, temporal, rest string
	fields := strings.SplitN(line, " ", 4)
	if len(fields) != 4 {
		t.Fatalf("printed %q", out)
	}
	url, redis, temporal, rest = fields[0], fields[1], fields[2], fields[3]
	if rest != "billing --flag -- word" {
		t.Errorf("namespace and arguments: %q", rest)
	}
	if conn, err := pgx.Connect(t.Context(), url); err == nil {
		conn.Close(t.Context())
		t.Error("Postgres answers after the command has ended")
	}
	for _, addr := range []string{redis, temporal} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("something answers on %s after the command has ended", addr)
		}
	}
}

func TestExecStartsOnlyWhatIsWanted(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"TALLYSTICK_TEST_REDIS_ADDR": "192.0.2.1:6379"}
	out, log, err := runWith(t, vars, "dev", "exec", "--servers=redis", "--", "sh", "-c", `echo "$TALLYSTICK_TEST_REDIS_ADDR,$TALLYSTICK_TEST_DATABASE_URL"`)
	if err != nil || out != "192.0.2.1:6379,\n" {
		t.Errorf("printed %q, %v", out, err)
	}
	if strings.Contains(log, "ready") {
		t.Errorf("a server was started:\n%s", log)
	}
}

func TestExecStatusOfASignal(t *testing.T) {
	t.Parallel()
	_, _, err := runWith(t, nil, "dev", "exec", "--servers=redis", "-q", "--", "sh", "-c", "kill -TERM $$")
	if code, ok := errors.AsType[exitCode](err); !ok || code != 128+15 {
		t.Errorf("run = %v, want exit status 143", err)
	}
	if _, _, err := runWith(t, nil, "dev", "exec", "--servers=redis", "-q", "--", "/no/such/program"); err == nil {
		t.Error("a command that does not exist is no error")
	}
}

func TestExecEndsTheCommandWhenToldToEnd(t *testing.T) {
	t.Parallel()
	cmd := program(t, "dev", "exec", "--servers=redis", "--", "sh", "-c", "echo started; sleep 300; echo not reached")
	out := startWatched(t, cmd)
	out.await(t, "started")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cmd.Wait()
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("took %v to end", took)
	}
	if code := cmd.ProcessState.ExitCode(); code != 128+15 {
		t.Errorf("exit status %d, want 143\n%s", code, out)
	}
}

// watched collects the output of a process.
type watched struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func (w *watched) await(t *testing.T, what string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(w.String(), what); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %q in\n%s", what, w)
		}
	}
}

// startWatched starts cmd and collects what it prints. It is killed at the end of the test.
func startWatched(t *testing.T, cmd *exec.Cmd) *watched {
	t.Helper()
	out := &watched{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return out
}

// devPorts are flags with free ports, so that the usual ones stay with whoever works on this machine.
func devPorts(t *testing.T) []string {
	t.Helper()
	flags := []string{"--listen=127.0.0.1:0"}
	for _, name := range []string{"postgres-port", "redis-port", "temporal-port", "temporal-ui-port", "temporal-http-port"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // after the last one is found, so that all differ
		flags = append(flags, fmt.Sprintf("--%s=%d", name, l.Addr().(*net.TCPAddr).Port))
	}
	return flags
}

func TestDevRunsUntilToldToEnd(t *testing.T) {
	t.Parallel()
	cmd := program(t, append([]string{"dev", "--dir=data"}, devPorts(t)...)...)
	out := startWatched(t, cmd)
	out.await(t, "Ctrl-C stops everything.")

	second := exec.Command(cmd.Path, "dev", "--dir=data")
	second.Dir, second.Env = cmd.Dir, cmd.Env
	said, err := second.CombinedOutput()
	if err != nil || !strings.Contains(string(said), fmt.Sprintf("as process %d", cmd.Process.Pid)) || !strings.Contains(string(said), "tly_") {
		t.Errorf("a second start ended with %v and said\n%s", err, said)
	}
	check := exec.Command(cmd.Path, "verify", "--dir=data")
	check.Dir, check.Env = cmd.Dir, cmd.Env
	if said, err := check.CombinedOutput(); err != nil || !strings.Contains(string(said), "grants conserve") {
		t.Errorf("verify of a running stack ended with %v and said\n%s", err, said)
	}
	reset := exec.Command(cmd.Path, "dev", "reset", "--dir=data")
	reset.Dir, reset.Env = cmd.Dir, cmd.Env
	if said, err := reset.CombinedOutput(); err == nil || !strings.Contains(string(said), "stop it first") {
		t.Errorf("reset of a running stack ended with %v and said\n%s", err, said)
	}

	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v after an interrupt\n%s", err, out)
	}
	reset = exec.Command(cmd.Path, "dev", "reset", "--dir=data")
	reset.Dir, reset.Env = cmd.Dir, cmd.Env
	if said, err := reset.CombinedOutput(); err != nil {
		t.Errorf("reset: %v\n%s", err, said)
	}
	if _, err := os.Stat(filepath.Join(cmd.Dir, "data", "postgres")); err == nil {
		t.Error("data are there after reset")
	}
}

// Addresses that the user sets switch the servers of our own off.
func TestDevUsesTheServersItIsTold(t *testing.T) {
	t.Parallel()
	database, redis := stacktest.DatabaseURL(t), stacktest.RedisAddr(t)
	temporal, namespace := stacktest.Temporal(t)
	cmd := program(t, "dev", "--dir=data", "--listen=127.0.0.1:0")
	cmd.Env = append(cmd.Env, "DATABASE_URL="+database, "REDIS_ADDR="+redis, "TEMPORAL_ADDRESS="+temporal, "TEMPORAL_NAMESPACE="+namespace)
	out := startWatched(t, cmd)
	out.await(t, "Ctrl-C stops everything.")
	for _, want := range []string{database, redis, temporal} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in\n%s", want, out)
		}
	}
	if strings.Contains(out.String(), "ready on") {
		t.Errorf("a server of our own was started:\n%s", out)
	}
}

// A server that ends by itself ends the program with an error that names it.
func TestDevEndsWithItsServers(t *testing.T) {
	t.Parallel()
	cmd := program(t, append([]string{"dev", "--dir=data"}, devPorts(t)...)...)
	out := startWatched(t, cmd)
	out.await(t, "Ctrl-C stops everything.")
	running, err := devstack.Running(filepath.Join(cmd.Dir, "data"))
	if err != nil || running == nil {
		t.Fatalf("Running = %v, %v", running, err)
	}
	var pid int
	b, err := os.ReadFile(filepath.Join(cmd.Dir, "data", "redis.pid"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("ended without an error")
	}
	if !strings.Contains(out.String(), "Redis") || !strings.Contains(out.String(), "ended by itself") {
		t.Errorf("the error does not name Redis:\n%s", out)
	}
}
