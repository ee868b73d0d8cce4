package worker

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/export"
	"github.com/tallystick/tallystick/seal"
	"github.com/tallystick/tallystick/workflows"
)

// dying kills its process with SIGKILL after an activity has done its work, before the server hears of it. A step of a close is named after a slash.
type dying struct {
	interceptor.ClientInterceptorBase
	interceptor.WorkerInterceptorBase
	after string
}

func (d *dying) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &dyingActivity{interceptor.ActivityInboundInterceptorBase{Next: next}, d.after}
}

type dyingActivity struct {
	interceptor.ActivityInboundInterceptorBase
	after string
}

func (d *dyingActivity) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	name := activity.GetInfo(ctx).ActivityType.Name
	if len(in.Args) == 1 {
		if step, ok := in.Args[0].(activities.CloseStepInput); ok {
			name += "/" + step.Step
		} else if step, ok := in.Args[0].(*activities.CloseStepInput); ok {
			name += "/" + step.Step
		}
	}
	out, err := d.Next.ExecuteActivity(ctx, in)
	if err == nil && name == d.after {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return out, err
}

// closer is a site with a preparer and a controller, and what is booked in the month before this one.
type closer struct {
	*site
	preparer, controller int32
	key                  db.CloseKey
	id                   string // of the workflow
}

func newCloser(t *testing.T, options ...func(*Config)) *closer {
	s := newSite(t, options...)
	c := &closer{site: s, key: db.CloseKey{Entity: "main", Period: ledger.PeriodOf(time.Now(), time.UTC).Previous(), Version: 1}}
	c.id = s.cfg.Prefix + workflows.CloseWorkflowID(c.key)
	for role, no := range map[string]*int32{"finance": &c.preparer, "controller": &c.controller} {
		if err := s.Store.Pool.QueryRow(context.Background(),
			"INSERT INTO api_keys (digest, hint, name, role) VALUES (gen_random_uuid()::text::bytea, 'hint', $1, $1) RETURNING no", role).Scan(no); err != nil {
			t.Fatal(err)
		}
	}
	c.change(func(ctx context.Context, cat *db.Catalog) error {
		return cat.SetCloseSettings(ctx, "main", db.CloseSettings{LateHours: 0, Statements: []string{}}, c.controller)
	})
	c.book()
	return c
}

func (c *closer) change(do func(context.Context, *db.Catalog) error) {
	c.t.Helper()
	c.changeCatalog(do)
}

// journal prepares a manual journal of the period.
func (c *closer) journal() (id credit.JournalID) {
	c.t.Helper()
	id = credit.NewID[credit.JournalID]()
	c.change(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.PrepareJournal(ctx, db.ManualJournal{ID: id, Entity: "main", Period: c.key.Period, Day: ledger.Day(c.key.Period + "-15"), Reason: "Fees",
			Preparer: c.preparer, Postings: []db.Posting{{Account: 5020, Side: ledger.Dr, Amount: "1.00"}, {Account: 1020, Side: ledger.Cr, Amount: "1.00"}}})
		return err
	})
	return id
}

func (c *closer) book() {
	c.t.Helper()
	id := c.journal()
	c.change(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.ApproveJournal(ctx, id, c.controller)
		return err
	})
}

func (c *closer) start() {
	c.t.Helper()
	c.change(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.StartClose(ctx, "main", c.key.Period, c.preparer)
		return err
	})
}

func (c *closer) row() db.CloseRow {
	c.t.Helper()
	r, err := c.Store.PeriodClose(context.Background(), c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c *closer) inReview() (hash string) {
	c.t.Helper()
	c.until("it is in review", func() bool { return c.row().Status == db.CloseInReview })
	return c.row().PackHash
}

func (c *closer) approve() {
	c.t.Helper()
	c.change(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.ApproveClose(ctx, "main", c.key.Period, c.row().PackHash, c.controller)
		return err
	})
}

func (c *closer) reject() {
	c.t.Helper()
	c.change(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.RejectClose(ctx, "main", c.key.Period, "Look again")
		return err
	})
}

// publishing gives the worker a key to seal with and a directory for exports.
func publishing(t *testing.T) func(*Config) {
	return func(cfg *Config) {
		key, err := seal.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Sealer, cfg.ExportDir = &audit.Sealer{Key: key, Dir: t.TempDir()}, t.TempDir()
	}
}

// published is what a version of the period was published as; its files are whole.
func (c *closer) published(version int) (p struct {
	Pack string `json:"pack_sha256"`
	Seal struct {
		Pack    string `json:"pack_sha256"`
		Version int
		Size    int64
	}
	Export struct {
		Folder   string
		Manifest string `json:"manifest_sha256"`
		Entries  int64
		Files    []export.File
	}
}) {
	c.t.Helper()
	dir := filepath.Join(c.cfg.ExportDir, "main", string(c.key.Period), fmt.Sprintf("v%d", version))
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			c.t.Fatal(err)
		}
		return b
	}
	if err := json.Unmarshal(read("close.json"), &p); err != nil {
		c.t.Fatal(err)
	}
	for name, want := range map[string]string{"pack.json": p.Pack, export.ManifestFile: p.Export.Manifest} {
		if got := fmt.Sprintf("%x", sha256.Sum256(read(name))); got != want {
			c.t.Errorf("%s is %s, published is %s", name, got, want)
		}
	}
	if len(p.Export.Files) != 4 {
		c.t.Errorf("published are %+v", p.Export.Files)
	}
	for _, f := range p.Export.Files {
		if got := fmt.Sprintf("%x", sha256.Sum256(read(f.Name))); got != f.SHA256 {
			c.t.Errorf("%s is %s, published is %s", f.Name, got, f.SHA256)
		}
	}
	return p
}

func (c *closer) how() (s workflows.CloseStanding) {
	c.t.Helper()
	v, err := c.w.client.QueryWorkflow(context.Background(), c.id, "", workflows.QueryState)
	if err == nil {
		err = v.Get(&s)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// A period from its close to its reopening, blocked by a journal, rejected once, on the real servers.
func TestAPeriodCloses(t *testing.T) {
	c := newCloser(t, asWorker, publishing(t))
	c.run()
	id := c.journal()
	c.start()
	c.until("it runs", func() bool { return c.running(c.id) })
	c.until("the journal blocks it", func() bool {
		s := c.how()
		return len(s.Blocked) == 1 && s.Blocked[0].Step == db.StepManualJournals
	})
	if d := c.details(c.id); !strings.Contains(d, "wait for an approver") {
		t.Errorf("details: %s", d)
	}
	c.change(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.ApproveJournal(ctx, id, c.controller)
		return err
	})
	first := c.inReview()
	c.until("that is told", func() bool { return c.how().PackHash == first && c.how().State == "in review" })
	c.reject()
	c.until("it is in review again", func() bool { return c.row().Status == db.CloseInReview })
	if second := c.row().PackHash; second != first {
		t.Errorf("of the same books, the pack was %s and is %s", first, second)
	}
	for reason, accepted := range map[string]bool{"": false, "a statement is expected": true} {
		h, err := c.w.client.UpdateWorkflow(context.Background(), client.UpdateWorkflowOptions{WorkflowID: c.id, UpdateName: workflows.UpdateCheck,
			Args: []any{workflows.Request{Reason: reason}}, WaitForStage: client.WorkflowUpdateStageCompleted})
		if err == nil {
			err = h.Get(context.Background(), nil)
		}
		if (err == nil) != accepted {
			t.Errorf("asked to check because %q: %v", reason, err)
		}
	}
	booked := c.count("SELECT count(*) FROM journal_entries")
	c.approve()
	var r workflows.CloseResult
	if c.ended(c.id, &r); r.Status != db.CloseClosed || r.PackHash != first {
		t.Errorf("%+v", r)
	}
	c.keep("close-published", c.id, "")
	wasFirst := c.published(1)
	if wasFirst.Pack != first || wasFirst.Seal.Pack != first || wasFirst.Seal.Version != 1 || wasFirst.Export.Entries != 2 {
		t.Errorf("published is %+v", wasFirst)
	}
	if n := c.count("SELECT count(*) FROM journal_entries"); n != booked || c.count("SELECT count(*) FROM periods WHERE status = 'closed'") != 1 {
		t.Errorf("%d entries before the lock, %d after", booked, n)
	}

	// Its workflow run once more does nothing: it reads that all is done.
	run, err := c.w.client.ExecuteWorkflow(context.Background(), client.StartWorkflowOptions{ID: c.id, TaskQueue: c.cfg.Prefix + workflows.FinanceQueue},
		workflows.PeriodClose, workflows.CloseInput{CloseRef: c.key})
	if err == nil {
		err = run.Get(context.Background(), &r)
	}
	if err != nil || r.PackHash != first || c.count("SELECT count(*) FROM journal_entries") != booked {
		t.Errorf("%+v, %v", r, err)
	}
	if again := c.published(1); !reflect.DeepEqual(again, wasFirst) {
		t.Errorf("published again as %+v, was %+v", again, wasFirst)
	}

	// Reopened and closed again it is the next version, with a seal and an export of its own.
	c.change(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.AskReopening(ctx, "main", c.key.Period, "A fee was missed", c.controller)
		return err
	})
	var other int32
	if err := c.Store.Pool.QueryRow(context.Background(),
		"INSERT INTO api_keys (digest, hint, name, role) VALUES (gen_random_uuid()::text::bytea, 'hint', 'another', 'controller') RETURNING no").Scan(&other); err != nil {
		t.Fatal(err)
	}
	c.change(func(ctx context.Context, cat *db.Catalog) error {
		_, err := cat.ApproveReopening(ctx, "main", c.key.Period, other)
		return err
	})
	c.book()
	c.start()
	c.key.Version = 2
	c.id = c.cfg.Prefix + workflows.CloseWorkflowID(c.key)
	second := c.inReview()
	c.approve()
	c.ended(c.id, &r)
	isSecond := c.published(2)
	if second == first || isSecond.Pack != second || isSecond.Seal.Pack != second || isSecond.Seal.Version != 2 || isSecond.Seal.Size != 3 || isSecond.Export.Entries != 3 {
		t.Errorf("published is %+v", isSecond)
	}
	if n := c.count("SELECT count(*) FROM periods WHERE version = 2 AND status = 'closed'"); n != 1 {
		t.Error("the period is not of version 2")
	}
	if again := c.published(1); !reflect.DeepEqual(again, wasFirst) {
		t.Errorf("the first version was published as %+v, and is %+v", wasFirst, again)
	}
	report, err := audit.Verify(context.Background(), c.Store, audit.Options{Entity: "main", Period: c.key.Period})
	if err != nil || !report.Clean() {
		t.Errorf("%+v, %v", report, err)
	}
	for _, i := range db.Invariants {
		if v, err := c.Store.Verify(context.Background(), i, 1); err != nil || len(v.First) > 0 {
			t.Errorf("%s: %v, %v", i.Name, v.First, err)
		}
	}
}

// A close whose workflow is lost goes on with a new one.
func TestALostCloseIsRestored(t *testing.T) {
	c := newCloser(t)
	c.start()
	c.exec("DELETE FROM outbox")
	if err := c.w.restoreCloses(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := c.w.restoreCloses(context.Background()); err != nil { // it runs: nothing is done
		t.Fatal(err)
	}
	c.run()
	c.inReview()
	c.approve()
	var r workflows.CloseResult
	c.ended(c.id, &r)
}

// die has a worker killed right after an activity has done its work.
func (s *site) die(after string) {
	t := s.t
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestAWorkerIsKilled$")
	cmd.Env = append(os.Environ(), envKilled+"="+s.URL, envPrefix+"="+s.cfg.Prefix, envDieAfter+"="+after)
	done := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
			t.Fatalf("after %s: %v", after, err)
		}
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		t.Fatalf("%s did not come about", after)
	}
}

// A worker that is killed right after any step, before anybody hears of it, changes nothing of what comes out: the same pack, and nothing booked twice.
func TestCloseSurvivesEveryKill(t *testing.T) {
	if testing.Short() {
		t.Skip("every kill is noticed after ten seconds")
	}
	c := newCloser(t)
	c.start()
	for _, step := range []string{db.StepCutOff, db.StepExpiries, db.StepOverage, db.StepCostAccrual, db.StepBreakage, db.StepManualJournals,
		db.StepReconciliations, db.StepReports} {
		c.die("RunCloseStep/" + step)
	}
	c.die("ReviewClose")
	c.die("MakeClosePack")
	hash := c.inReview()
	stop := c.run()
	c.reject() // and once without being killed
	c.until("it is in review again", func() bool { return c.row().Status == db.CloseInReview })
	stop()
	if again := c.row().PackHash; again != hash {
		t.Errorf("killed %s, undisturbed %s", hash, again)
	}
	c.approve()
	for _, after := range []string{"LockPeriod", "RunCloseStep/" + db.StepSeal, "RunCloseStep/" + db.StepExport, "RunCloseStep/" + db.StepPublish} {
		c.die(after)
	}
	c.run()
	var r workflows.CloseResult
	if c.ended(c.id, &r); r.PackHash != hash {
		t.Errorf("%+v", r)
	}
	if n := c.count("SELECT count(*) FROM close_steps WHERE step IN ('seal', 'export', 'publish') AND status = 'done' AND figures::text LIKE '%not_done%'"); n != 3 {
		t.Errorf("%d steps say that nothing is configured", n) // the publication repeats both
	}
	if n := c.count("SELECT count(*) FROM events WHERE type = 'period.closed'"); n != 1 {
		t.Errorf("it was closed %d times", n)
	}
	if got := fmt.Sprint(c.row().Status, " ", c.count("SELECT count(*) FROM journal_entries")); got != "closed 1" {
		t.Error(got)
	}
}
