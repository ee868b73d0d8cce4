package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Server is one server of a [Stack]. Its methods may be called from several goroutines.
type Server struct {
	name  string // as in messages: Postgres
	addr  string // host:port
	dir   string // the stack's
	ports []int  // claimed until it is stopped for good

	spec   spec
	report func(error) // told when the process ends by itself

	mu  sync.Mutex // serializes start, stop, Kill, Pause, Resume, Restart
	cur *process   // nil before the first start
}

// spec is how one kind of server is run.
type spec struct {
	command func() *exec.Cmd // a new command per start; output and process attributes are set by the Server
	user    *dropUser        // nil: as ourselves

	// orphaned is the signal that the kernel sends when we end without having stopped the server (Linux only).
	orphaned syscall.Signal

	// probe returns nil once the server with this process id answers, and an error while it does not yet.
	probe func(ctx context.Context, pid int) error

	// members lists the processes of the server that live now, the main one included unless it has ended.
	// nil: the process group of the main one is all there is.
	members func() ([]int, error)

	beforeRestart func() error // may be nil

	stop, stopNow []stopStep // how to end it with its data in order, and without regard for them
}

// stopStep is a signal and how long its effect is waited for. After the last step everything is killed.
type stopStep struct {
	signal syscall.Signal
	wait   time.Duration
}

// process is one run of a server.
type process struct {
	pid  int
	done chan struct{} // closed when it has been waited for; err is set before
	err  error

	mu       sync.Mutex
	expected bool // it is starting, or we are ending it
}

func (p *process) expect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = true
}

// armed makes an end of p an unexpected one from now on. It returns false if p has ended already.
func (p *process) armed() bool {
	p.mu.Lock()
	p.expected = false
	p.mu.Unlock()
	return !p.ended()
}

func (p *process) isExpected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.expected
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Name is "Postgres", "Redis" or "Temporal".
func (s *Server) Name() string { return s.name }

// Addr is host:port.
func (s *Server) Addr() string { return s.addr }

// LogPath is the file with what the server printed, over all its runs in this directory.
func (s *Server) LogPath() string {
	return filepath.Join(s.dir, "log", strings.ToLower(s.name)+".log")
}

func (s *Server) pidPath() string {
	return filepath.Join(s.dir, strings.ToLower(s.name)+".pid")
}

// Pid is the id of the server's main process: the running one, or the last one after it has ended.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cur.pid
}

// Wait returns when the server's present process has ended: nil if we ended it, by Stop, Kill or Restart, else how it
// ended. It returns ctx's error when ctx ends first.
func (s *Server) Wait(ctx context.Context) error {
	s.mu.Lock()
	p := s.cur
	s.mu.Unlock()
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for %s to end: %w", s.name, ctx.Err())
	}
	if p.isExpected() {
		return nil
	}
	return s.endedBy(p)
}

// endedBy describes the end of p, with the last lines of the log.
func (s *Server) endedBy(p *process) error {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s (process %d) ended by itself: %s%s", s.name, p.pid, how, s.lastLines())
}

// lastLines quotes the end of the log; "" if there is none.
func (s *Server) lastLines() string {
	const limit = 2048
	f, err := os.Open(s.LogPath())
	if err != nil {
		return ""
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err != nil || end == 0 {
		return ""
	} else if _, err := f.Seek(max(0, end-limit), io.SeekStart); err != nil {
		return ""
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(b, nil))), "\n")
	lines = lines[max(0, len(lines)-8):]
	return "\nlast lines of " + s.LogPath() + ":\n  " + strings.Join(lines, "\n  ")
}

// start starts the process and waits until it answers. The caller holds s.mu or is the only one to know s.
func (s *Server) start(ctx context.Context) error {
	log, err := openLog(s.LogPath())
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own copy
	cmd := s.spec.command()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttr(s.spec.user, s.spec.orphaned)
	if err := startBound(cmd); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	p := &process{pid: cmd.Process.Pid, done: make(chan struct{}), expected: true}
	s.cur = p
	go func() {
		p.err = cmd.Wait()
		os.Remove(s.pidPath()) // before done: the next process writes its own
		close(p.done)
		if !p.isExpected() {
			s.report(s.endedBy(p))
		}
	}()
	if err := writePid(s.pidPath(), p.pid); err != nil {
		return errors.Join(err, s.end(context.WithoutCancel(ctx), s.spec.stopNow))
	}
	return s.awaitReady(ctx, p)
}

// awaitReady probes until the server answers. If it does not, the process is ended.
func (s *Server) awaitReady(ctx context.Context, p *process) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		probeCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := s.spec.probe(probeCtx, p.pid)
		cancel()
		if err == nil && p.armed() {
			return nil
		}
		select {
		case <-p.done:
			return &endedEarly{s.endedBy(p)}
		case <-ctx.Done():
			stopErr := s.end(context.WithoutCancel(ctx), s.spec.stopNow)
			return errors.Join(fmt.Errorf("wait for %s to answer on %s: %w (last answer: %v)%s", s.name, s.addr, ctx.Err(), err, s.lastLines()), stopErr)
		case <-tick.C:
		}
	}
}

// endedEarly is a server that ended before it answered, as it does when its port was taken in the meantime.
type endedEarly struct{ error }

func (e *endedEarly) Unwrap() error { return e.error }

// end ends the present process by the given steps, and by force after them or when ctx ends. It returns nil if there is
// none. The caller holds s.mu or is the only one to know s.
func (s *Server) end(ctx context.Context, steps []stopStep) error {
	p := s.cur
	if p == nil {
		return nil
	}
	p.expect()
	if p.ended() {
		return s.killMembers(p)
	}
	if err := s.signalAll(p, syscall.SIGCONT); err != nil { // a stopped process would not see the signal
		return err
	}
	for _, step := range steps {
		if err := signalGroup(p.pid, step.signal); err != nil {
			return fmt.Errorf("stop %s: %w", s.name, err)
		}
		timer := time.NewTimer(step.wait)
		select {
		case <-p.done:
			timer.Stop()
			return s.killMembers(p)
		case <-ctx.Done():
			timer.Stop()
			return s.killMembers(p)
		case <-timer.C:
		}
	}
	return s.killMembers(p)
}

// stop ends the server for good.
func (s *Server) stop(ctx context.Context, now bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	steps := s.spec.stop
	if now {
		steps = s.spec.stopNow
	}
	unclaim(s.ports...)
	return s.end(ctx, steps)
}

// Kill ends every process of the server with SIGKILL, for Postgres the postmaster and all its backends, and returns
// when none is left. Killing a server that has ended is no error.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur.expect()
	return s.killMembers(s.cur)
}

// killMembers kills what is left of p and waits for it.
func (s *Server) killMembers(p *process) error {
	if !p.ended() {
		// Stopped first, so that it cannot start a process that we would miss.
		if err := signalGroup(p.pid, syscall.SIGSTOP); err != nil {
			return fmt.Errorf("kill %s: %w", s.name, err)
		}
	}
	if s.spec.members != nil {
		if err := killAll(s.spec.members); err != nil {
			return fmt.Errorf("kill %s: %w", s.name, err)
		}
	}
	if !p.ended() {
		if err := signalGroup(p.pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", s.name, err)
		}
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("kill %s: process %d did not end", s.name, p.pid)
	}
}

// killAll sends SIGKILL to what members lists until it lists nothing.
func killAll(members func() ([]int, error)) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		pids, err := members()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v did not end", pids)
		}
		for _, pid := range pids {
			if err := signalOne(pid, syscall.SIGKILL); err != nil {
				return err
			}
		}
	}
}

// Pause stops every process of the server with SIGSTOP: connections stay open and nothing answers.
func (s *Server) Pause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur.ended() {
		return fmt.Errorf("pause %s: it is not running", s.name)
	}
	return s.signalAll(s.cur, syscall.SIGSTOP)
}

// Resume continues a paused server. Resuming one that is not paused is no error.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur.ended() {
		return fmt.Errorf("resume %s: it is not running", s.name)
	}
	return s.signalAll(s.cur, syscall.SIGCONT)
}

// signalAll sends sig to every process of the server, the main one first, so that with SIGSTOP it starts no more.
func (s *Server) signalAll(p *process, sig syscall.Signal) error {
	if err := signalGroup(p.pid, sig); err != nil {
		return fmt.Errorf("signal %s: %w", s.name, err)
	}
	if s.spec.members == nil {
		return nil
	}
	// Signals take effect a moment later: the main process may still have started another one before its own.
	sent := map[int]bool{p.pid: true}
	for quiet := 0; quiet < 2; quiet++ {
		pids, err := s.spec.members()
		if err != nil {
			return fmt.Errorf("signal %s: %w", s.name, err)
		}
		for _, pid := range pids {
			if sent[pid] {
				continue
			}
			if err := signalOne(pid, sig); err != nil {
				return fmt.Errorf("signal %s: %w", s.name, err)
			}
			sent[pid] = true
			quiet = 0
		}
	}
	return nil
}

// Restart starts the server again with the same data and port and waits until it answers; Postgres has then recovered.
// A server that still runs is stopped in good order first.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.end(ctx, s.spec.stop); err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		if s.spec.beforeRestart != nil {
			if err := s.spec.beforeRestart(); err != nil {
				return err
			}
		}
		err := s.start(ctx)
		// A process that was just killed may still hold memory that the new one must have for itself.
		if _, early := errors.AsType[*endedEarly](err); !early || attempt == 5 || ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// startServer picks ports, starts the server that make describes for them, and tries again with other ports if it ended
// at once, because between our look and its listen somebody else may have taken one.
func startServer(ctx context.Context, st *Stack, name string, ports *picker, fields []portField, make func(ports []int) (spec, error)) (*Server, error) {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		var picked []int
		for _, f := range fields {
			port, err := ports.pick(f)
			if err != nil {
				return nil, err
			}
			picked = append(picked, port)
		}
		spec, err := make(picked)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		s := &Server{name: name, addr: fmt.Sprintf("127.0.0.1:%d", picked[0]), dir: st.Dir, ports: picked, spec: spec, report: st.report}
		err = s.start(ctx)
		if err == nil {
			st.log.printf("%-8s ready on %s (process %d) after %d ms", name, s.addr, s.cur.pid, time.Since(began).Milliseconds())
			return s, nil
		}
		unclaim(picked...)
		if _, early := errors.AsType[*endedEarly](err); !early || attempt == attempts || ctx.Err() != nil {
			return nil, err
		}
		st.log.printf("%s ended at once, trying again", name)
	}
}

// openLog opens a log file for appending; one that has grown beyond 16 MB is begun anew.
func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > 16<<20 {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, fmt.Errorf("rotate the log: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return f, nil
}

// writePid records a process with its start time, by which [reap] knows it from a later one with the same number.
func writePid(path string, pid int) error {
	began, err := startTime(pid)
	if err != nil {
		began = "" // it has ended already; whoever waits for it will say so
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d %s\n", pid, began), 0o644); err != nil {
		return fmt.Errorf("record the process id: %w", err)
	}
	return nil
}

// reap ends the servers that an earlier supervisor has left in dir: on Linux the kernel ends them with it, unless they
// were paused; elsewhere nothing does.
func reap(dir string) error {
	for _, name := range []string{"temporal", "redis", "postgres"} {
		path := filepath.Join(dir, name+".pid")
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the process id of %s: %w", name, err)
		}
		number, began, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		pid, err := strconv.Atoi(number)
		if err != nil {
			pid = 0 // written half when the power failed
		}
		same := func() ([]int, error) {
			now, err := startTime(pid)
			if err != nil || now != began || began == "" {
				return nil, nil
			}
			return []int{pid}, nil
		}
		if pid > 1 {
			if err := killAll(same); err != nil {
				return fmt.Errorf("end the old %s: %w", name, err)
			}
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("forget the old %s: %w", name, err)
		}
	}
	data := filepath.Join(dir, "postgres")
	if err := killAll(postgresMembers(data)); err != nil {
		return fmt.Errorf("end the old backends: %w", err)
	}
	return removePostmasterPid(data)
}

// signalGroup signals the process group that pid leads; a group that has ended is no error.
func signalGroup(pid int, sig syscall.Signal) error { return signalOne(-pid, sig) }

func signalOne(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", sig, pid, err)
	}
	return nil
}
