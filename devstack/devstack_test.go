package devstack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// superviseEnv makes the test binary run a stack in the directory it names, as a supervisor that a test can kill.
const superviseEnv = "DEVSTACK_TEST_SUPERVISE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(superviseEnv); dir != "" {
		if err := supervise(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// supervised is what a supervisor prints once its servers run.
type supervised struct {
	Pids        map[string]int
	DatabaseURL string
}

// supervise runs all servers in dir until its standard input ends.
func supervise(dir string) error {
	ctx := context.Background()
	s, err := Start(ctx, Options{Dir: dir, Postgres: true, Redis: true, Temporal: true})
	if err != nil {
		return err
	}
	out := supervised{Pids: map[string]int{}, DatabaseURL: s.DatabaseURL}
	for _, srv := range s.servers() {
		out.Pids[srv.Name()] = srv.Pid()
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Stop(ctx)
}

// startSupervisor runs a stack in dir in a process of its own.
func startSupervisor(t *testing.T, dir string) (*exec.Cmd, supervised) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), superviseEnv+"="+dir)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // ends when we do, and the supervisor with it
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var s supervised
	if err := json.NewDecoder(out).Decode(&s); err != nil {
		t.Fatalf("read what the supervisor has started: %v", err)
	}
	return cmd, s
}

// dataDir returns a new directory that every user may enter; t.TempDir is for its owner only.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "devstack-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// start starts a stack that is stopped at the end of the test.
func start(t *testing.T, o Options) *Stack {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Stack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// query runs sql, which yields one integer, and waits at most five seconds for it.
func query(t *testing.T, url, sql string) (int, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var n int
	err = conn.QueryRow(ctx, sql).Scan(&n)
	return n, err
}

// mustExec runs sql and fails the test if it does not work.
func mustExec(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// redisSays sends one inline command and returns the first line of the answer.
func redisSays(addr, command string, wait time.Duration) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, wait)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(command + "\r\n")); err != nil {
		return "", err
	}
	b := make([]byte, 256)
	n, err := conn.Read(b)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b[:n]), "\r\n")
	return line, nil
}

// alive reports whether pid runs; an unread exit status does not count.
func alive(pid int) bool {
	_, err := startTime(pid)
	return err == nil
}

// eventually waits for a condition that other processes bring about.
func eventually(t *testing.T, what string, within time.Duration, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func TestStackServesOnLoopback(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := start(t, Options{
		Ephemeral: true, Postgres: true, Redis: true, Temporal: true,
		PostgresSettings: map[string]string{"max_connections": "57"},
		RedisArgs:        []string{"--maxmemory", "64mb"},
		SearchAttributes: map[string]string{"WalletId": "Keyword", "ExpiresAt": "Datetime"},
		Log:              &log,
	})
	if n, err := query(t, s.DatabaseURL, "SELECT current_setting('max_connections')::int"); err != nil || n != 57 {
		t.Errorf("max_connections = %d, %v, want 57", n, err)
	}
	if n, err := query(t, s.DatabaseURL, "SELECT count(*)::int FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'on'"); err != nil || n != 3 {
		t.Errorf("%d of 3 durability settings are on, %v", n, err)
	}
	if n, err := query(t, s.DatabaseURL, "SELECT (current_database() = 'tallystick' AND usesuper)::int FROM pg_user WHERE usename = current_user"); err != nil || n != 1 {
		t.Errorf("the URL is not a superuser's on database tallystick: %d, %v", n, err)
	}
	if got, err := redisSays(s.RedisAddr, "PING", time.Second); err != nil || got != "+PONG" {
		t.Errorf("Redis says %q, %v", got, err)
	}
	if s.TemporalNamespace != "billing" {
		t.Errorf("namespace %q, want billing", s.TemporalNamespace)
	}
	resp, err := http.Get(s.TemporalUI)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("Temporal UI: %s", resp.Status)
	}
	if got := strings.Count(log.String(), "ready on 127.0.0.1:"); got != 3 {
		t.Errorf("%d of 3 servers reported ready:\n%s", got, &log)
	}
	for _, srv := range s.servers() {
		_, port, err := net.SplitHostPort(srv.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := strconv.Atoi(port); err != nil || n > 32767 {
			t.Errorf("%s listens on %s: want a port below 32768", srv.Name(), port)
		}
		if _, err := os.Stat(srv.LogPath()); err != nil {
			t.Errorf("log of %s: %v", srv.Name(), err)
		}
	}
	dir := s.Dir
	stop(t, s)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ephemeral directory after Stop: %v, want it gone", err)
	}
	if err, open := <-s.Done(); open || err != nil {
		t.Errorf("Done after Stop: %v, %v; want a closed channel", err, open)
	}
}

func TestPostgresNeverRunsAsRoot(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ephemeral: true, Postgres: true})
	out, err := exec.Command("ps", "-o", "uid=", "-p", strconv.Itoa(s.Postgres.Pid())).Output()
	if err != nil {
		t.Fatal(err)
	}
	if uid := strings.TrimSpace(string(out)); uid == "0" || uid == "" {
		t.Errorf("Postgres runs as uid %q", uid)
	}
}

func TestDropTo(t *testing.T) {
	t.Parallel()
	if u, err := dropTo(1000); err != nil || u != nil {
		t.Errorf("dropTo(1000) = %v, %v; want nobody else", u, err)
	}
	if u, err := dropTo(0); err != nil || u == nil || u.uid == 0 {
		t.Errorf("dropTo(0) = %v, %v; want another user than root", u, err)
	}
}

func TestPlaceDir(t *testing.T) {
	t.Parallel()
	passable := dataDir(t)
	private := filepath.Join(dataDir(t), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	stranger := &dropUser{name: "stranger", uid: 4_000_000_001, gid: 4_000_000_001}
	for _, c := range []struct {
		name, dir string
		user      *dropUser
		moved     bool
	}{
		{"nobody to drop to", filepath.Join(private, ".tallystick"), nil, false},
		{"reachable", filepath.Join(passable, "deep", ".tallystick"), stranger, false},
		{"below a private directory", filepath.Join(private, "deep", ".tallystick"), stranger, true},
		{"itself private", private, stranger, true},
		{"private but the user's own", private, &dropUser{uid: uint32(os.Geteuid())}, false},
	} {
		got, err := placeDir(c.dir, c.user)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if moved := got != c.dir; moved != c.moved {
			t.Errorf("%s: placed in %s", c.name, got)
		}
		if c.moved && !strings.HasPrefix(got, "/var/tmp/tallystick-") {
			t.Errorf("%s: placed in %s", c.name, got)
		}
		if again, err := placeDir(c.dir, c.user); err != nil || again != got {
			t.Errorf("%s: placed in %s, then in %s, %v", c.name, got, again, err)
		}
	}
}

// A checkout below a home directory that only its owner may enter: as root, Postgres runs as somebody else.
func TestPrivateParentDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "clone", ".tallystick") // t.TempDir is in a directory of mode 700
	s := start(t, Options{Dir: dir, Postgres: true, Ports: anyPorts(t)})
	t.Cleanup(func() { os.RemoveAll(s.Dir) })
	if n, err := query(t, s.DatabaseURL, "SELECT 1"); err != nil || n != 1 {
		t.Error(n, err)
	}
	_, err := Start(t.Context(), Options{Dir: dir, Postgres: true})
	if _, ok := errors.AsType[*AlreadyRunning](err); !ok {
		t.Errorf("second start in the same directory: %v", err)
	}
	stop(t, s)
	if got, err := Reset(dir); err != nil || got != s.Dir {
		t.Errorf("Reset = %s, %v; want %s", got, err, s.Dir)
	}
}

// A Unix socket's path may have about a hundred bytes.
func TestDeepDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(dataDir(t), strings.Repeat("deep/", 40), "with blanks and 'quotes'")
	s := start(t, Options{Dir: dir, Postgres: true, Redis: true, Temporal: true, Ports: anyPorts(t)})
	if n, err := query(t, s.DatabaseURL, "SELECT 1"); err != nil || n != 1 {
		t.Error(n, err)
	}
	if err := s.Postgres.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Postgres.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// anyPorts asks for free ports, so that stacks which are not ephemeral do not compete for the usual ones.
func anyPorts(t *testing.T) Ports {
	t.Helper()
	p := newPicker(Ports{}, Ports{}, &progress{})
	for _, f := range portFields {
		if _, err := p.pick(f); err != nil {
			t.Fatal(err)
		}
		unclaim(*f.of(&p.now))
	}
	return p.used()
}

// Debian's redis-server is a link to a program that looks at the name it was called by.
func TestRedisLinkIsNotFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "redis-check-rdb"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "redis-server")
	if err := os.Symlink("redis-check-rdb", link); err != nil {
		t.Fatal(err)
	}
	got, err := findRedis(dir)
	if err != nil || got != link {
		t.Errorf("findRedis = %q, %v; want %q", got, err, link)
	}
}

func TestMissingProgramIsNamed(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Options{Ephemeral: true, Temporal: true, TemporalBin: filepath.Join(t.TempDir(), "temporal")})
	missing, ok := errors.AsType[*MissingServer](err)
	if !ok || !strings.HasSuffix(missing.Program, "temporal") {
		t.Errorf("Start = %v, want a MissingServer", err)
	}
	_, err = findPostgres(3)
	missing, ok = errors.AsType[*MissingServer](err)
	if !ok || missing.Program != "postgres 3" || !strings.Contains(missing.Install, "dev reset") {
		t.Errorf("findPostgres(3) = %v, want a MissingServer that names the version and the way out", err)
	}
}

func TestTakenPortFallsBack(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	var log bytes.Buffer
	ports := anyPorts(t)
	ports.Redis = taken
	dir := dataDir(t)
	s := start(t, Options{Dir: dir, Redis: true, Ports: ports, Log: &log})
	if got, err := redisSays(s.RedisAddr, "PING", time.Second); err != nil || got != "+PONG" {
		t.Errorf("Redis on %s says %q, %v", s.RedisAddr, got, err)
	}
	if want := fmt.Sprintf("port %d for Redis is taken, using ", taken); !strings.Contains(log.String(), want) {
		t.Errorf("log does not say %q:\n%s", want, &log)
	}
	// What was used is what the next start prefers.
	was := s.RedisAddr
	stop(t, s)
	s = start(t, Options{Dir: dir, Redis: true})
	if s.RedisAddr != was {
		t.Errorf("second start uses %s, the first one used %s", s.RedisAddr, was)
	}
}

func TestSecondStartIsTold(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	if running, err := Running(dir); err != nil || running != nil {
		t.Errorf("before the start: Running = %v, %v", running, err)
	}
	s := start(t, Options{Dir: dir, Redis: true, Ports: anyPorts(t)})
	if err := s.Announce(map[string]string{"api": "http://127.0.0.1:8080"}); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() error{
		"Start": func() error { _, err := Start(t.Context(), Options{Dir: dir, Redis: true}); return err },
		"Reset": func() error { _, err := Reset(dir); return err },
		"Running": func() error {
			running, err := Running(dir)
			if err != nil {
				return err
			}
			return running
		},
	} {
		running, ok := errors.AsType[*AlreadyRunning](try())
		if !ok {
			t.Errorf("%s: no AlreadyRunning", name)
			continue
		}
		if running.Pid != os.Getpid() || running.URLs["redis"] != s.RedisAddr || running.URLs["api"] != "http://127.0.0.1:8080" {
			t.Errorf("%s: %+v", name, running)
		}
		if msg := running.Error(); !strings.Contains(msg, s.RedisAddr) || !strings.Contains(msg, strconv.Itoa(os.Getpid())) {
			t.Errorf("%s: message %q", name, msg)
		}
	}
	stop(t, s)
	if running, err := Running(dir); err != nil || running != nil {
		t.Errorf("after Stop: Running = %v, %v", running, err)
	}
}

func TestRestartOfTheStackKeepsData(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	o := Options{Dir: dir, Postgres: true, Redis: true, Temporal: true, Ports: anyPorts(t),
		SearchAttributes: map[string]string{"WalletId": "Keyword"}}
	s := start(t, o)
	mustExec(t, s.DatabaseURL, "CREATE TABLE kept AS SELECT 42 AS n")
	temporal(t, s, "operator", "search-attribute", "create", "--name", "MadeByHand", "--type", "Int")
	began := time.Now()
	stop(t, s)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Stop took %v", took)
	}
	first := s
	o.Ports = Ports{}
	s = start(t, o)
	if s.DatabaseURL != first.DatabaseURL || s.RedisAddr != first.RedisAddr || s.TemporalAddress != first.TemporalAddress || s.TemporalUI != first.TemporalUI {
		t.Errorf("addresses changed from %+v to %+v", first, s)
	}
	if n, err := query(t, s.DatabaseURL, "SELECT n FROM kept"); err != nil || n != 42 {
		t.Errorf("kept = %d, %v", n, err)
	}
	list := temporal(t, s, "operator", "search-attribute", "list")
	for _, name := range []string{"WalletId", "MadeByHand"} {
		if !strings.Contains(list, name) {
			t.Errorf("search attribute %s is not listed:\n%s", name, list)
		}
	}
	if got := temporal(t, s, "operator", "namespace", "describe", "-n", "billing"); !strings.Contains(got, "720h") {
		t.Errorf("closed workflows are not kept for 30 days:\n%s", got)
	}
	stop(t, s)
	if _, err := Reset(dir); err != nil {
		t.Fatal(err)
	}
	s = start(t, o)
	if n, err := query(t, s.DatabaseURL, "SELECT count(*)::int FROM pg_tables WHERE tablename = 'kept'"); err != nil || n != 0 {
		t.Errorf("after Reset: %d tables kept, %v", n, err)
	}
	if list := temporal(t, s, "operator", "search-attribute", "list"); strings.Contains(list, "MadeByHand") {
		t.Error("after Reset: Temporal's data are still there")
	}
}

// temporal runs the Temporal CLI against s and returns what it prints.
func temporal(t *testing.T, s *Stack, args ...string) string {
	t.Helper()
	bin, err := findTemporal(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(args, "-n") {
		args = append(args, "-n", s.TemporalNamespace)
	}
	out, err := exec.Command(bin, append(args, "--address", s.TemporalAddress)...).CombinedOutput()
	if err != nil {
		t.Fatalf("temporal %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ephemeral: true, Postgres: true, Redis: true, Temporal: true})

	// A connection that is open already has a backend of its own, which must stop as well.
	conn, err := pgx.Connect(t.Context(), s.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, srv := range s.servers() {
		if err := srv.Pause(); err != nil {
			t.Fatal(err)
		}
	}
	answer := make(chan error, 1)
	go func() {
		var n int
		answer <- conn.QueryRow(t.Context(), "SELECT 1").Scan(&n)
	}()
	if got, err := redisSays(s.RedisAddr, "PING", 300*time.Millisecond); err == nil {
		t.Errorf("a paused Redis says %q", got)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Temporal.spec.probe(short, s.Temporal.Pid()); err == nil {
		t.Error("a paused Temporal answers")
	}
	select {
	case err := <-answer:
		t.Errorf("a paused Postgres answers: %v", err)
	default:
	}
	for _, srv := range s.servers() {
		if err := srv.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-answer:
		if err != nil {
			t.Errorf("the query that waited: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Postgres does not answer after Resume")
	}
	if got, err := redisSays(s.RedisAddr, "PING", 5*time.Second); err != nil || got != "+PONG" {
		t.Errorf("after Resume Redis says %q, %v", got, err)
	}
	if err := s.Temporal.spec.probe(t.Context(), s.Temporal.Pid()); err != nil {
		t.Errorf("after Resume: %v", err)
	}
	// A stack that is stopped while it is paused ends all the same.
	for _, srv := range s.servers() {
		if err := srv.Pause(); err != nil {
			t.Fatal(err)
		}
	}
	members := s.Postgres.spec.members
	stop(t, s)
	if left, err := members(); err != nil || len(left) > 0 {
		t.Errorf("left after Stop: %v, %v", left, err)
	}
}

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ephemeral: true, Postgres: true, Redis: true, Temporal: true})
	mustExec(t, s.DatabaseURL, "CREATE TABLE kept AS SELECT 42 AS n")
	if got, err := redisSays(s.RedisAddr, "SET k v", time.Second); err != nil || got != "+OK" {
		t.Fatal(got, err)
	}

	// Backends at work do not notice by themselves that the postmaster has gone.
	var busy sync.WaitGroup
	for range 10 {
		busy.Go(func() {
			n, err := query(t, s.DatabaseURL, "SELECT count(*)::int FROM generate_series(1, 1000000000)")
			if err == nil {
				t.Errorf("a killed Postgres counted to %d", n)
			}
		})
	}
	eventually(t, "ten busy backends", 10*time.Second, func() bool {
		n, err := query(t, s.DatabaseURL, "SELECT count(*)::int FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series(1, 10%' AND pid <> pg_backend_pid()")
		return err == nil && n == 10
	})
	for _, srv := range s.servers() {
		was := srv.Pid()
		if err := srv.Kill(); err != nil {
			t.Fatal(err)
		}
		if alive(was) {
			t.Errorf("%s is alive after Kill", srv.Name())
		}
		if err := srv.Wait(t.Context()); err != nil {
			t.Errorf("Wait after Kill: %v", err)
		}
		if err := srv.Kill(); err != nil {
			t.Errorf("second Kill: %v", err)
		}
		if err := srv.Pause(); err == nil {
			t.Errorf("%s can be paused after Kill", srv.Name())
		}
	}
	if left, err := s.Postgres.spec.members(); err != nil || len(left) > 0 {
		t.Errorf("backends left after Kill: %v, %v", left, err)
	}
	busy.Wait()
	for _, srv := range s.servers() {
		was, addr := srv.Pid(), srv.Addr()
		if err := srv.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if srv.Pid() == was || srv.Addr() != addr {
			t.Errorf("%s: process %d on %s after Restart, %d on %s before", srv.Name(), srv.Pid(), srv.Addr(), was, addr)
		}
	}
	if n, err := query(t, s.DatabaseURL, "SELECT n FROM kept"); err != nil || n != 42 {
		t.Errorf("committed before Kill: %d, %v", n, err)
	}
	if got, err := redisSays(s.RedisAddr, "GET k", time.Second); err != nil || got != "$-1" {
		t.Errorf("a restarted Redis says %q, %v; want nothing", got, err)
	}
	if err := s.Temporal.spec.probe(t.Context(), s.Temporal.Pid()); err != nil {
		t.Error(err)
	}
	// Restart of a running server stops it in good order first.
	if err := s.Postgres.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if log, err := os.ReadFile(s.Postgres.LogPath()); err != nil || !bytes.Contains(log, []byte("received fast shutdown request")) {
		t.Errorf("the log has no fast shutdown (%v)", err)
	}
	select {
	case err := <-s.Done():
		t.Errorf("Done reports what we did ourselves: %v", err)
	default:
	}
}

func TestServerThatEndsByItselfIsReported(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ephemeral: true, Redis: true, Postgres: true})
	if err := syscall.Kill(s.Redis.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-s.Done():
		if err == nil || !strings.Contains(err.Error(), "Redis") || !strings.Contains(err.Error(), "killed") {
			t.Errorf("Done = %v, want the name of Redis and how it ended", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Done says nothing")
	}
	if err := s.Redis.Wait(t.Context()); err == nil {
		t.Error("Wait says that nothing happened")
	}
}

// A supervisor was killed while its servers were paused: what the kernel could not end, the next start does.
func TestStartEndsLeftovers(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := savePorts(dir, anyPorts(t)); err != nil {
		t.Fatal(err)
	}
	cmd, old := startSupervisor(t, dir)
	mustExec(t, old.DatabaseURL, "CREATE TABLE kept AS SELECT 42 AS n")
	backends, err := postgresMembers(filepath.Join(dir, "postgres"))()
	if err != nil || len(backends) < 3 {
		t.Fatalf("backends: %v, %v", backends, err)
	}
	backends = slices.DeleteFunc(backends, func(pid int) bool {
		err := syscall.Kill(pid, syscall.SIGSTOP)
		if err != nil && err != syscall.ESRCH { // the backend of the statement above may have ended meanwhile
			t.Fatal(err)
		}
		return err != nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	s := start(t, Options{Dir: dir, Postgres: true, Redis: true, Temporal: true})
	for name, pid := range old.Pids {
		if alive(pid) {
			t.Errorf("the old %s is alive", name)
		}
	}
	for _, pid := range backends {
		if alive(pid) {
			t.Errorf("the old backend %d is alive", pid)
		}
	}
	if n, err := query(t, s.DatabaseURL, "SELECT n FROM kept"); err != nil || n != 42 {
		t.Errorf("kept = %d, %v", n, err)
	}
}

// A pid file outlives a reboot, and the number in it comes to belong to somebody else.
func TestReapSparesStrangers(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	stranger := exec.Command("sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stranger.Process.Kill()
		stranger.Wait()
	}()
	for _, content := range []string{fmt.Sprintf("%d 1\n", stranger.Process.Pid), fmt.Sprintf("%d \n", stranger.Process.Pid), "", "0 0", "-1 7", "1 7", "12x 4"} {
		path := filepath.Join(dir, "redis.pid")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := reap(dir); err != nil {
			t.Errorf("%q: %v", content, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: pid file: %v, want it gone", content, err)
		}
	}
	if !alive(stranger.Process.Pid) {
		t.Error("a process that is not ours was killed")
	}
}

func TestEphemeralDirectory(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := Start(t.Context(), Options{Dir: dir, Ephemeral: true, Redis: true}); err == nil {
		stop(t, s)
		t.Fatal("an ephemeral stack takes a directory with something in it")
	}
	if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
		t.Error(err)
	}
	if _, err := Start(t.Context(), Options{Redis: true}); err == nil {
		t.Error("a stack with data to keep starts without a directory")
	}
}

func TestSweepRemovesWhatWasAbandoned(t *testing.T) {
	t.Parallel()
	base := dataDir(t)
	long := time.Now().Add(-time.Hour)
	dir := func(name string, marked, old bool) string {
		d := filepath.Join(base, ephemeralPrefix+name)
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if marked {
			if err := os.WriteFile(filepath.Join(d, ephemeralMark), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if old {
			if err := os.Chtimes(d, long, long); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	held := dir("held", true, false)
	lock, err := lockDir(held)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.release()
	if err := os.Chtimes(held, long, long); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{ // is it there afterwards
		held:                                 true,
		dir("unmarked", false, true):         true,
		dir("young", true, false):            true,
		dir("abandoned", true, true):         false,
		dir("our-own-directory", true, true): true,
	}
	sweep(base, filepath.Join(base, ephemeralPrefix+"our-own-directory"))
	for d, there := range want {
		if _, err := os.Stat(d); (err == nil) != there {
			t.Errorf("%s: %v, want there = %v", filepath.Base(d), err, there)
		}
	}
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := Start(ctx, Options{Dir: dir, Postgres: true, Redis: true, Temporal: true, Ports: anyPorts(t)})
	if err == nil {
		stop(t, s)
		t.Fatal("a cancelled start succeeds")
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v, want context.Canceled", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.pid")); err != nil || len(left) > 0 {
		t.Errorf("pid files left: %v, %v", left, err)
	}
	// An initdb that was interrupted is not taken for a whole one.
	s = start(t, Options{Dir: dir, Postgres: true, Ports: anyPorts(t)})
	if n, err := query(t, s.DatabaseURL, "SELECT 1"); err != nil || n != 1 {
		t.Error(n, err)
	}
}

// A server that cannot start says why, and takes the others with it.
func TestFailedStartQuotesTheLog(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	_, err := Start(t.Context(), Options{Dir: dir, Postgres: true, Redis: true, Ports: anyPorts(t),
		PostgresSettings: map[string]string{"shared_buffers": "lots"}})
	if err == nil || !strings.Contains(err.Error(), "Postgres") || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("Start = %v, want the name of Postgres and its complaint", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.pid")); err != nil || len(left) > 0 {
		t.Errorf("pid files left: %v, %v", left, err)
	}
	if running, err := Running(dir); err != nil || running != nil {
		t.Errorf("Running = %v, %v after a failed start", running, err)
	}
}

// Variables of the caller do not reach the servers.
func TestEnvironmentOfTheCallerIsIgnored(t *testing.T) {
	t.Setenv("PGDATA", "/nonexistent")
	t.Setenv("PGPORT", "1")
	t.Setenv("PGOPTIONS", "-c default_transaction_read_only=on")
	t.Setenv("LC_ALL", "nowhere.UTF-8")
	t.Setenv("TEMPORAL_ADDRESS", "192.0.2.1:7233")
	t.Setenv("TEMPORAL_NAMESPACE", "elsewhere")
	s := start(t, Options{Ephemeral: true, Postgres: true, Temporal: true})
	if s.TemporalNamespace != "billing" {
		t.Errorf("namespace %q", s.TemporalNamespace)
	}
}
