package faults_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/faults"
)

// standby is a second Postgres that the first one streams to and waits for.
type standby struct {
	dir, addr string
	bin       string
	as        *syscall.SysProcAttr
	cmd       *exec.Cmd
	said      bytes.Buffer
}

// newStandby copies the rig's Postgres, starts the copy as a standby, and has every commit wait for it from then on.
func (r *rig) newStandby(t *testing.T) *standby {
	t.Helper()
	proc := "/proc/" + strconv.Itoa(r.stack.Postgres.Pid())
	exe, err := os.Readlink(proc + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(proc)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	s := &standby{dir: filepath.Join(r.stack.Dir, "standby"), addr: freeAddr(t), bin: filepath.Dir(exe), as: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}}
	if int(owner.Uid) != os.Geteuid() {
		s.as.Credential = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(s.dir, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(r.stack.Postgres.Addr())
	if err != nil {
		t.Fatal(err)
	}
	copying := s.command("pg_basebackup", "-d", "host="+host+" port="+port+" user=postgres application_name=standby", "-D", s.dir, "-R", "-X", "stream", "-c", "fast")
	if out, err := copying.CombinedOutput(); err != nil {
		t.Fatalf("copy Postgres: %v: %s", err, out)
	}
	s.start(t)
	if err := r.waitForStandbys("ANY 1 (standby)"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.waitForStandbys(""); err != nil {
			t.Log(err) // the primary may be gone for good
		}
		s.kill()
	})
	r.awaitSync(t)
	return s
}

// waitForStandbys sets which standbys Postgres waits for.
func (r *rig) waitForStandbys(names string) error {
	conn, err := pgx.Connect(context.Background(), r.stack.DatabaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = '" + names + "'", "SELECT pg_reload_conf()"} {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			return err
		}
	}
	return nil
}

func (s *standby) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.SysProcAttr, cmd.Dir, cmd.Env = s.as, s.dir, []string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}
	return cmd
}

func (s *standby) start(t *testing.T) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = s.command("postgres", "-D", s.dir, "-k", "", "-p", port, "-c", "listen_addresses="+host, "-c", "max_connections=200", "-c", "wal_retrieve_retry_interval=100ms")
	s.cmd.Stderr = &s.said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 20*time.Second, &s.said, func() bool {
		conn, err := pgx.Connect(context.Background(), s.url())
		if err != nil {
			return false
		}
		return conn.Close(context.Background()) == nil
	})
}

func (s *standby) url() string { return "postgres://postgres@" + s.addr + "/postgres?sslmode=disable" }

// kill ends the standby as a power cut would.
func (s *standby) kill() {
	if s.cmd == nil {
		return
	}
	_ = syscall.Kill(s.cmd.Process.Pid, syscall.SIGQUIT) // the postmaster takes its children with it
	_ = s.cmd.Wait()
	s.cmd = nil
}

// promote makes the standby the primary.
func (s *standby) promote(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), s.url())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var promoted bool
	if err := conn.QueryRow(context.Background(), "SELECT pg_promote(true, 20)").Scan(&promoted); err != nil || !promoted {
		t.Fatalf("promote: %v, %v", promoted, err)
	}
}

// awaitSync waits until commits wait for the standby again, and it is there.
func (r *rig) awaitSync(t *testing.T) {
	t.Helper()
	waitFor(t, 20*time.Second, "the standby is in step", func() bool {
		var n int
		err := r.owner(t).QueryRow(context.Background(),
			"SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum' AND state = 'streaming' AND current_setting('synchronous_standby_names') <> ''").Scan(&n)
		return err == nil && n == 1
	})
}

// cancelWaits cancels what waits for the standby, of these sessions, until all calls are answered.
func (r *rig) cancelWaits(t *testing.T, application string, calls *sync.WaitGroup) {
	t.Helper()
	cancelled := 0
	done := make(chan struct{})
	go func() { calls.Wait(); close(done) }()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(20 * time.Millisecond):
			var n int
			if err := r.owner(t).QueryRow(context.Background(), `SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
				WHERE wait_event = 'SyncRep' AND application_name = $1`, application).Scan(&n); err != nil {
				t.Fatal(err)
			}
			cancelled += n
		}
	}
	t.Logf("%d waits were cancelled", cancelled)
	if cancelled == 0 {
		t.Error("no wait was cancelled")
	}
}

// TestStandby has every commit wait for a synchronous standby, and takes the standby and then the primary away.
func TestStandby(t *testing.T) {
	r := newRig(t, 2, false)
	s := r.newStandby(t)

	t.Run("the standby is away", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		var from, to time.Duration
		l.during(t, workers, func() {
			l.pause(300 * time.Millisecond)
			s.kill()
			from = l.now()
			l.pause(max(2500*time.Millisecond, long(0)/4))
			to = l.now()
			s.start(t)
			r.awaitSync(t)
			back := l.now()
			t.Logf("the first success came %s after the standby was back", l.untilDone(t, back))
		})
		t.Logf("alone: %s", l.answers(from, to))
		for _, c := range l.history.Calls() {
			for _, a := range c.Attempts() {
				if a.Sent > from && a.Answered < to && a.Err == nil && a.Final() && a.Code != "invalid_request" {
					t.Errorf("an attempt was answered while there was no standby: %+v", a)
				}
			}
		}
		r.settled(t, l)
	})

	// The wait for the standby is cancelled: Postgres says COMMIT, with a warning. That is no success.
	t.Run("the wait is cancelled", func(t *testing.T) {
		l := r.newLoad(t, 2, seed())
		a := l.accounts[0]
		for _, p := range r.processes { // connections and statements are there
			if got := r.call(context.Background(), p, l.begin(consume(a.id, one, nil))); got.Status != 200 {
				t.Fatalf("%+v", got)
			}
		}
		s.kill()
		c := l.begin(consume(a.id, one, nil))
		var calls sync.WaitGroup
		for i, p := range r.processes { // the second one finds what the first one committed
			calls.Go(func() {
				l.pause(time.Duration(i) * 500 * time.Millisecond)
				if got := r.call(context.Background(), p, c); got.Code != "outcome_unknown" {
					t.Errorf("what only the primary has was answered %+v", got)
				}
			})
		}
		r.cancelWaits(t, "tallystick lane", &calls)
		s.start(t)
		r.awaitSync(t)
		if got := l.settle(c, a, rand.New(rand.NewPCG(1, 1))); got.Status != 200 {
			t.Errorf("%+v", got)
		}
		r.settled(t, l)
	})

	// The same for a change that is no operation of a customer.
	t.Run("the wait is cancelled, making a customer", func(t *testing.T) {
		s.kill()
		c := &faults.Call{Key: newKey(), Path: "/v1/customers", Body: `{"name":"Acme","legal_entity":"main","external_id":"acme"}`}
		var calls sync.WaitGroup
		for i, p := range r.processes { // the second one finds what the first one committed
			calls.Go(func() {
				time.Sleep(time.Duration(i) * 500 * time.Millisecond)
				if got := r.send(context.Background(), p, c); got.Code != "outcome_unknown" {
					t.Errorf("what only the primary has was answered %+v", got)
				}
			})
		}
		r.cancelWaits(t, "tallystick", &calls)
		s.start(t)
		r.awaitSync(t)
		first := r.send(context.Background(), r.processes[0], c)
		again := r.send(context.Background(), r.processes[1], c)
		if first.Status != 201 || again.Status != 201 || again.Body != first.Body {
			t.Errorf("%+v, then %+v", first, again)
		}
		var n int
		if err := r.owner(t).QueryRow(context.Background(), "SELECT count(*) FROM customers WHERE external_id = 'acme'").Scan(&n); err != nil || n != 1 {
			t.Errorf("%d customers; %v", n, err)
		}
	})

	// What the primary had committed and the standby had not got is gone after this; none of it had been acknowledged.
	t.Run("the primary is lost", func(t *testing.T) {
		l := r.newLoad(t, customers, seed())
		var lost time.Duration
		l.during(t, workers, func() {
			l.pause(500 * time.Millisecond)
			if err := r.stack.Postgres.Kill(); err != nil {
				t.Fatal(err)
			}
			lost = l.now()
			s.promote(t)
			for _, p := range r.processes {
				p.postgres.leadTo(t, s.addr)
			}
			r.primary.leadTo(t, s.addr)
			promoted := l.now()
			t.Logf("promoted after %s, the first success %s later", promoted-lost, l.untilDone(t, promoted))
			l.pause(time.Second)
		})
		r.sweepCache(t) // there are entries of the old timeline
		r.settled(t, l)
	})
}

// TestRateCardsAfterFailover loses a published version of a rate card with the primary. Its number, and that of the configuration, are used again
// on the standby: what is priced there is priced by what was published there.
func TestRateCardsAfterFailover(t *testing.T) {
	r := newRig(t, 2, false)
	s := r.newStandby(t)
	customer, wallet := r.Customer(t)
	r.Grant(t, customer, wallet, 100*one)
	post := func(p *process, path, body string) faults.Attempt {
		t.Helper()
		return r.send(context.Background(), p, &faults.Call{Key: newKey(), Path: path, Body: body})
	}
	publish := func(price string) faults.Attempt {
		t.Helper()
		return post(r.processes[0], "/v1/rate_cards/images/versions",
			`{"document":{"meters":[{"code":"images"}],"rates":[{"id":"i","meter":"images","price":"`+price+`"}]}}`)
	}
	price := func(p *process) (a faults.Attempt) {
		t.Helper()
		return post(p, "/v1/consume", `{"customer":"`+customer.String()+`","usage":[{"meter":"images","quantity":"1"}]}`)
	}
	if a := post(r.processes[0], "/v1/rate_cards", `{"code":"images","unit":"CRD","default":true}`); a.Status != 201 {
		t.Fatalf("%+v", a)
	}
	if a := publish("1"); a.Status != 201 {
		t.Fatalf("%+v", a)
	}
	for _, p := range r.processes {
		if a := price(p); a.Status != 200 || !strings.Contains(a.Body, `"amount":"1"`) {
			t.Fatalf("%+v", a)
		}
	}

	s.kill()
	unknown := func(application string, do func() faults.Attempt) {
		t.Helper()
		var call sync.WaitGroup
		call.Go(func() {
			if a := do(); a.Code != "outcome_unknown" {
				t.Errorf("%+v", a)
			}
		})
		r.cancelWaits(t, application, &call)
	}
	unknown("tallystick", func() faults.Attempt { return publish("2") })
	for _, p := range r.processes { // it has read version 2
		unknown("tallystick lane", func() faults.Attempt { return price(p) })
	}
	if err := r.stack.Postgres.Kill(); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	s.promote(t)
	for _, p := range r.processes {
		p.postgres.leadTo(t, s.addr)
	}
	r.primary.leadTo(t, s.addr)

	done := func(do func() faults.Attempt) (a faults.Attempt) {
		t.Helper()
		waitFor(t, 20*time.Second, "an answer of the new primary", func() bool { a = do(); return a.Final() })
		return a
	}
	if a := done(func() faults.Attempt { return publish("3") }); a.Status != 201 || !strings.Contains(a.Body, `"version":2`) {
		t.Fatalf("%+v", a)
	}
	time.Sleep(db.Lead + 100*time.Millisecond) // until it is in force
	for _, p := range r.processes {
		if a := done(func() faults.Attempt { return price(p) }); a.Status != 200 || !strings.Contains(a.Body, `"amount":"3"`) {
			t.Errorf("%+v", a)
		}
	}
}
