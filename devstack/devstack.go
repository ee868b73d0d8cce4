// Package devstack runs private Postgres, Redis and Temporal servers for development and tests.
//
// Every server listens on 127.0.0.1 only, keeps its data below one directory and lives no longer than the process that
// started it. Nothing that a package manager or an init system runs on the same machine is read or touched.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// Options say which servers [Start] starts and where they keep their data.
type Options struct {
	// Dir holds data, logs, ports.json and the lock file; it is made if absent. "" means a new directory below
	// os.TempDir when Ephemeral, and is an error otherwise. When the process is root and the user that Postgres runs
	// as cannot reach Dir, a directory below /var/tmp named after a hash of Dir is used in its place; Stack.Dir says
	// which it was.
	Dir string

	// Ephemeral is for tests. The data directory is removed at Stop, servers are stopped without regard for their
	// data, and ports are always picked at random. Dir must then be absent, empty, or left behind by such a run.
	Ephemeral bool

	Postgres, Redis, Temporal bool // which servers to start

	PostgresSettings map[string]string // run-time settings, added to or replacing ours
	RedisArgs        []string          // appended to ours; Redis lets the last one win

	// TemporalBin is the Temporal CLI. "" looks for Dir/bin/temporal, a file temporal beside the running executable,
	// .tallystick/bin/temporal in the working directory or a parent of it, and then on PATH.
	TemporalBin string

	// Ports: 0 means the one used last in Dir, else the usual one for development, else any free one. A port that is
	// taken is replaced by a free one, with a line on Log.
	Ports Ports

	TemporalNamespace string            // "" means "billing"
	SearchAttributes  map[string]string // name to type (Keyword, Datetime, ...), registered in TemporalNamespace

	// Log takes one line per step; nil discards them. What the servers print goes to files in Dir/log.
	Log io.Writer
}

// Ports are TCP port numbers on 127.0.0.1. Temporal's must be below 32768.
type Ports struct {
	Postgres     int `json:"postgres,omitempty"`
	Redis        int `json:"redis,omitempty"`
	TemporalGRPC int `json:"temporal_grpc,omitempty"`
	TemporalUI   int `json:"temporal_ui,omitempty"`
	TemporalHTTP int `json:"temporal_http,omitempty"`
}

// Stack is a set of running servers. The fields of a server that was not asked for are nil or "".
type Stack struct {
	Dir string // where the data really is

	Postgres *Server
	Redis    *Server
	Temporal *Server

	DatabaseURL       string // superuser, database "tallystick", empty when new
	RedisAddr         string // host:port
	TemporalAddress   string // host:port, gRPC
	TemporalUI        string // http://host:port
	TemporalNamespace string

	ephemeral bool
	lock      *dirLock
	log       *progress

	mu       sync.Mutex
	done     chan error // holds at most one error; closed by Stop
	reported bool       // done has had its error, or is closed
	stopped  bool
}

// Start starts the servers that o asks for and returns when all of them answer. ctx bounds the start only: ending it
// later does not stop the servers. On an error nothing is left running.
//
// Errors: an [*AlreadyRunning] if another process runs a stack in the same directory, a [*MissingServer] for each
// program that is not installed, otherwise the server's name, what was being done and the last lines of its log.
func Start(ctx context.Context, o Options) (*Stack, error) {
	if o.TemporalNamespace == "" {
		o.TemporalNamespace = "billing"
	}
	user, err := dropTo(os.Geteuid())
	if err != nil {
		return nil, err
	}
	bins, err := findServers(o)
	if err != nil {
		return nil, err
	}
	dir, err := makeDir(o.Dir, o.Ephemeral, user)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Stack{Dir: dir, ephemeral: o.Ephemeral, lock: lock, log: &progress{w: o.Log}, done: make(chan error, 1)}
	if err := s.start(ctx, o, bins, user); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// start does what [Start] says in the directory that s holds. On an error the caller stops s.
func (s *Stack) start(ctx context.Context, o Options, bins binaries, user *dropUser) error {
	if err := s.prepare(); err != nil {
		return err
	}
	last, err := loadPorts(s.Dir, o.Ephemeral)
	if err != nil {
		return err
	}
	ports := newPicker(last, o.Ports, s.log)

	startCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	var starts sync.WaitGroup
	var errs [3]error
	begin := func(want bool, err *error, start func() error) {
		if !want {
			return
		}
		starts.Go(func() {
			if *err = start(); *err != nil {
				cancel() // one failure is enough; the others need not be waited for
			}
		})
	}
	begin(o.Postgres, &errs[0], func() (err error) {
		s.Postgres, err = startPostgres(startCtx, s, bins.postgres, user, o.PostgresSettings, ports)
		return err
	})
	begin(o.Redis, &errs[1], func() (err error) {
		s.Redis, err = startRedis(startCtx, s, bins.redis, o.RedisArgs, ports)
		return err
	})
	begin(o.Temporal, &errs[2], func() (err error) {
		s.Temporal, err = startTemporal(startCtx, s, bins.temporal, o, ports)
		return err
	})
	starts.Wait()
	if err := firstCause(ctx, errs[:]...); err != nil {
		return err
	}

	used := ports.used()
	if !o.Ephemeral {
		if err := savePorts(s.Dir, used); err != nil {
			return err
		}
	}
	if o.Postgres {
		s.DatabaseURL = postgresURL(used.Postgres, database)
	}
	if o.Redis {
		s.RedisAddr = s.Redis.Addr()
	}
	if o.Temporal {
		s.TemporalAddress = s.Temporal.Addr()
		s.TemporalUI = fmt.Sprintf("http://127.0.0.1:%d", used.TemporalUI)
		s.TemporalNamespace = o.TemporalNamespace
	}
	return s.lock.write(s.urls())
}

// prepare makes the directory ready for servers: nothing of an earlier run is left in it but data.
func (s *Stack) prepare() error {
	if s.ephemeral {
		if err := os.WriteFile(filepath.Join(s.Dir, ephemeralMark), nil, 0o644); err != nil {
			return fmt.Errorf("mark the data directory as ephemeral: %w", err)
		}
		sweep(filepath.Dir(s.Dir), s.Dir)
	}
	if err := reap(s.Dir); err != nil {
		return fmt.Errorf("end servers left over from an earlier run: %w", err)
	}
	if s.ephemeral {
		if err := deleteData(s.Dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(s.Dir, "log"), 0o755); err != nil {
		return fmt.Errorf("make the log directory: %w", err)
	}
	return nil
}

// firstCause returns the error that made the others happen: the first one that is not the cancellation which another
// one caused. nil if all are nil.
func firstCause(ctx context.Context, errs ...error) error {
	var cancelled error
	for _, err := range errs {
		switch {
		case err == nil:
		case errors.Is(err, context.Canceled) && ctx.Err() == nil:
			cancelled = err
		default:
			return err
		}
	}
	return cancelled
}

// urls are what a second start in the same directory is told, without those that are "".
func (s *Stack) urls() map[string]string {
	all := map[string]string{
		"database":    s.DatabaseURL,
		"redis":       s.RedisAddr,
		"temporal":    s.TemporalAddress,
		"temporal-ui": s.TemporalUI,
	}
	for k, v := range all {
		if v == "" {
			delete(all, k)
		}
	}
	return all
}

// Announce adds URLs, by name, to what an [*AlreadyRunning] of a second start tells. It may be called repeatedly.
func (s *Stack) Announce(urls map[string]string) error {
	return s.lock.write(urls)
}

// Done gives one error when a server has ended by itself, with the server's name and the last lines of its log. Ends
// caused by Stop, Kill and Restart are not reported. The channel is closed by Stop.
func (s *Stack) Done() <-chan error { return s.done }

func (s *Stack) report(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reported {
		s.reported = true
		s.done <- err
	}
}

// servers are the running ones in the order of start.
func (s *Stack) servers() []*Server {
	var all []*Server
	for _, srv := range []*Server{s.Postgres, s.Redis, s.Temporal} {
		if srv != nil {
			all = append(all, srv)
		}
	}
	return all
}

// Stop stops the servers, the last one started first, and gives the directory free; the data of an ephemeral stack is
// removed. Servers that were killed or paused are dealt with. When ctx ends, what still runs is killed. Stopping twice
// is no error.
func (s *Stack) Stop(ctx context.Context) error {
	s.mu.Lock()
	again := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if again {
		return nil
	}
	var errs []error
	all := s.servers()
	for i := len(all) - 1; i >= 0; i-- {
		if err := all[i].stop(ctx, s.ephemeral); err != nil {
			errs = append(errs, err)
		}
	}
	s.mu.Lock()
	s.reported = true
	close(s.done)
	s.mu.Unlock()
	if s.ephemeral {
		if err := os.RemoveAll(s.Dir); err != nil {
			errs = append(errs, fmt.Errorf("remove the ephemeral data directory: %w", err))
		}
	}
	if err := s.lock.release(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Reset deletes the data of all three servers in dir, together: their contents refer to each other. Logs, ports and
// installed programs stay. A directory that does not exist is no error. It returns the directory that was cleared, and
// an [*AlreadyRunning] without touching anything if a stack runs there.
func Reset(dir string) (string, error) {
	user, err := dropTo(os.Geteuid())
	if err != nil {
		return "", err
	}
	where, err := placeDir(dir, user)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(where); errors.Is(err, os.ErrNotExist) {
		return where, nil
	}
	if where, err = makeDir(dir, false, user); err != nil {
		return "", err
	}
	lock, err := lockDir(where)
	if err != nil {
		return "", err
	}
	defer lock.release()
	if err := reap(where); err != nil {
		return "", fmt.Errorf("end servers left over from an earlier run: %w", err)
	}
	if err := deleteData(where); err != nil {
		return "", err
	}
	return where, nil
}

// deleteData deletes what the three servers have stored in dir.
func deleteData(dir string) error {
	for _, name := range []string{"postgres", "postgres.new", "redis", "temporal"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("delete the data of %s: %w", name, err)
		}
	}
	return nil
}

// Running returns what runs in dir, as a second [Start] there would, and nil if nothing does.
func Running(dir string) (*AlreadyRunning, error) {
	user, err := dropTo(os.Geteuid())
	if err != nil {
		return nil, err
	}
	where, err := placeDir(dir, user)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(where, lockName)); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	lock, err := lockDir(where)
	if running, ok := errors.AsType[*AlreadyRunning](err); ok {
		return running, nil
	}
	if err != nil {
		return nil, err
	}
	return nil, lock.release()
}

// progress writes one line per step; a nil writer discards them.
type progress struct {
	mu sync.Mutex
	w  io.Writer
}

func (p *progress) printf(format string, args ...any) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}
