package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/workflows"
)

const day = 24 * time.Hour

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// quiet keeps the SDK from printing every step.
var quiet = log.NewStructuredLogger(slog.New(slog.DiscardHandler))

func newSuite() *testsuite.WorkflowTestSuite {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet)
	return &suite
}

// life runs a GrantLifecycle in the SDK's time-skipping environment. What the activities would find in Postgres is facts.
type life struct {
	t   *testing.T
	env *testsuite.TestWorkflowEnvironment
	a   *activities.Activities

	facts    activities.GrantFacts
	swept    bool          // the worker's sweep is faster than the workflow
	slow     time.Duration // how far the clock of Postgres is behind the workflow's
	calls    []string      // activities run, with the day on which
	keys     []string      // of changes
	outcomes map[string]workflows.Outcome
	errs     map[string]error
}

func newLife(t *testing.T, change ...func(*activities.GrantFacts)) *life {
	t.Helper()
	suite := newSuite()
	l := &life{t: t, env: suite.NewTestWorkflowEnvironment(), outcomes: map[string]workflows.Outcome{}, errs: map[string]error{}}
	l.env.SetStartTime(begin)
	l.env.SetTestTimeout(10 * time.Second)
	l.facts = activities.GrantFacts{
		GrantRef: activities.GrantRef{GrantID: credit.NewID[credit.GrantID](), CustomerID: credit.NewID[credit.CustomerID]()},
		WalletID: credit.NewID[credit.WalletID](), Wallet: "main", Credits: "1000 CRD", Type: credit.Promotional, Status: credit.StatusOpen,
		EffectiveAt: begin, ExpiresAt: begin.Add(60 * day), CreatedAt: begin, IssuedAt: begin, Ver: 2,
	}
	for _, f := range change {
		f(&l.facts)
	}
	return l
}

// execute runs the workflow. A test that wants an activity to do something else says so before.
func (l *life) execute(in workflows.GrantInput) {
	l.env.RegisterWorkflow(workflows.GrantLifecycle)
	l.env.OnActivity(l.a.ReadGrant, mock.Anything, mock.Anything).Maybe().Return(
		func(context.Context, activities.GrantRef) (activities.GrantFacts, error) {
			l.called("read")
			if l.swept && l.facts.State(l.now()) == credit.StateExpired {
				l.set(credit.StatusExpired)
			}
			return l.read(), nil
		})
	l.env.OnActivity(l.a.ExpireGrant, mock.Anything, mock.Anything).Maybe().Return(
		func(context.Context, activities.GrantRef) (activities.Expired, error) {
			l.called("expire")
			now := l.facts.State(l.now()) == credit.StateExpired
			if now {
				l.set(credit.StatusExpired)
			}
			return activities.Expired{Grant: l.read(), Now: now}, nil
		})
	l.env.OnActivity(l.a.RemindExpiry, mock.Anything, mock.Anything).Maybe().Return(
		func(_ context.Context, in activities.RemindInput) (activities.GrantFacts, error) {
			l.called(fmt.Sprintf("remind %d", in.Days))
			return l.read(), nil
		})
	l.env.OnActivity(l.a.PostCustomer, mock.Anything, mock.Anything).Maybe().Return(
		func(_ context.Context, in activities.CustomerRef) (activities.Posted, error) {
			l.called("post")
			return activities.Posted{}, nil
		})
	l.env.OnActivity(l.a.ExtendGrant, mock.Anything, mock.Anything).Maybe().Return(
		func(_ context.Context, in activities.ExtendInput) (activities.Changed, error) {
			return l.changed("extend", in.Cause, func() { l.facts.ExpiresAt = in.ExpiresAt })
		})
	l.env.OnActivity(l.a.VoidGrant, mock.Anything, mock.Anything).Maybe().Return(
		func(_ context.Context, in activities.VoidInput) (activities.Changed, error) {
			return l.changed("void", in.Cause, func() { l.facts.Status = credit.StatusVoided })
		})
	l.env.OnActivity(l.a.FreezeGrant, mock.Anything, mock.Anything).Maybe().Return(
		func(_ context.Context, in activities.FreezeInput) (activities.Changed, error) {
			return l.changed("freeze", in.Cause, func() {
				l.facts.Frozen = !in.Thaw
				if in.Thaw && l.facts.State(l.now()) == credit.StateExpired {
					l.facts.Status = credit.StatusExpired
				}
			})
		})
	l.env.OnActivity(l.a.RefundGrant, mock.Anything, mock.Anything).Maybe().Return(
		func(_ context.Context, in activities.RefundInput) (activities.Changed, error) {
			return l.changed("refund", in.Cause, func() {
				if in.Units == "" {
					l.facts.Status = credit.StatusRefunded
				}
			})
		})
	l.env.ExecuteWorkflow(workflows.GrantLifecycle, in)
}

// now is the clock of Postgres.
func (l *life) now() time.Time { return l.env.Now().Add(-l.slow) }

func (l *life) read() activities.GrantFacts {
	f := l.facts
	f.ReadAt = l.now()
	return f
}

func (l *life) called(what string) {
	at := l.env.Now().Sub(begin)
	l.calls = append(l.calls, fmt.Sprintf("%s @%d", what, at/day))
}

func (l *life) changed(what string, c activities.Cause, effect func()) (activities.Changed, error) {
	l.called(what)
	if !slices.Contains(l.keys, c.Key) {
		l.keys = append(l.keys, c.Key)
		effect()
		l.facts.Ver++
	}
	return activities.Changed{Grant: l.read(), Did: what}, nil
}

// set changes the grant as somebody else would.
func (l *life) set(s credit.Status) {
	if l.facts.Status != s {
		l.facts.Status = s
		l.facts.Ver++
	}
}

// at does something after so long.
func (l *life) at(after time.Duration, do func()) { l.env.RegisterDelayedCallback(do, after) }

func (l *life) signal(change string) {
	l.env.SignalWorkflow(workflows.SignalChanged, workflows.Change{Change: change})
}

func (l *life) update(name, id string, arg any) {
	l.env.UpdateWorkflow(name, id, &testsuite.TestUpdateCallback{
		OnAccept: func() {},
		OnReject: func(err error) { l.errs[id] = err },
		OnComplete: func(v any, err error) {
			if l.errs[id] = err; err == nil {
				l.outcomes[id] = v.(workflows.Outcome)
			}
		},
	}, arg)
}

func (l *life) standing() workflows.GrantStanding {
	l.t.Helper()
	v, err := l.env.QueryWorkflow(workflows.QueryState)
	if err != nil {
		l.t.Fatal(err)
	}
	var s workflows.GrantStanding
	if err := v.Get(&s); err != nil {
		l.t.Fatal(err)
	}
	return s
}

// run executes the workflow and returns how it ended.
func (l *life) run() workflows.GrantResult {
	l.t.Helper()
	l.execute(workflows.GrantInput{GrantRef: l.facts.GrantRef})
	var r workflows.GrantResult
	if err := l.env.GetWorkflowResult(&r); err != nil {
		l.t.Fatalf("%v\nactivities: %q", err, l.calls)
	}
	return r
}

func (l *life) want(calls ...string) {
	l.t.Helper()
	if !slices.Equal(l.calls, calls) {
		l.t.Errorf("activities %q, want %q", l.calls, calls)
	}
}

func (l *life) told(parts ...string) {
	l.t.Helper()
	story := l.standing().Story
	for i, p := range parts {
		at := slices.IndexFunc(story, func(line string) bool { return strings.Contains(line, p) })
		if at < 0 {
			l.t.Errorf("story %q does not tell %q, or not after %q", story, p, parts[:i])
			return
		}
		story = story[at+1:]
	}
}

func reason(text string) workflows.Request { return workflows.Request{Reason: text} }

func TestMonthsPass(t *testing.T) {
	l := newLife(t, func(f *activities.GrantFacts) { f.Type, f.Price = credit.Purchased, "100.00 USD" })
	l.at(day, func() {
		s := l.standing()
		if s.State != credit.StateActive || s.Next != "2026-01-31 00:00:00 UTC, reminder: 30 days to the expiry." {
			t.Errorf("standing %+v", s)
		}
	})
	if r := l.run(); r.State != credit.StateExpired || !r.At.Equal(l.facts.ExpiresAt) {
		t.Errorf("ended %+v", r)
	}
	l.want("read @0", "post @0", "remind 30 @30", "remind 7 @53", "remind 1 @59", "read @60", "expire @60", "post @60")
	l.told("Created and issued", "money is booked", "30 days", "7 days", "1 day ", "Expired", "money is booked")
}

func TestTheSweepWasFaster(t *testing.T) {
	l := newLife(t, func(f *activities.GrantFacts) { f.Type, f.ExpiresAt = credit.Purchased, begin.Add(time.Hour) })
	l.swept = true
	l.run()
	l.want("read @0", "post @0", "read @0")
}

func TestRemindersAreNotMadeUpFor(t *testing.T) {
	t.Run("a life shorter than the first", func(t *testing.T) {
		l := newLife(t, func(f *activities.GrantFacts) { f.ExpiresAt = begin.Add(7 * day) })
		l.run()
		l.want("read @0", "remind 1 @6", "read @7", "expire @7")
	})
	t.Run("issued late", func(t *testing.T) {
		l := newLife(t, func(f *activities.GrantFacts) { f.CreatedAt = begin.Add(-100 * day); f.ExpiresAt = begin.Add(10 * day) })
		l.run()
		l.want("read @0", "remind 7 @3", "remind 1 @9", "read @10", "expire @10")
	})
	t.Run("after an outage only the last one due is sent", func(t *testing.T) {
		l := newLife(t, func(f *activities.GrantFacts) {
			f.CreatedAt, f.IssuedAt, f.ExpiresAt = begin.Add(-100*day), begin.Add(-100*day), begin.Add(5*day)
		})
		l.run()
		l.want("read @0", "remind 7 @0", "remind 1 @4", "read @5", "expire @5")
	})
	t.Run("none once it is over", func(t *testing.T) {
		l := newLife(t, func(f *activities.GrantFacts) {
			f.CreatedAt, f.IssuedAt, f.EffectiveAt, f.ExpiresAt = begin.Add(-100*day), begin.Add(-100*day), begin.Add(-100*day), begin.Add(-day)
		})
		l.run()
		l.want("read @0", "read @0", "expire @0")
	})
}

func TestExtendMovesTheTimers(t *testing.T) {
	l := newLife(t)
	until := begin.Add(100 * day)
	l.at(40*day, func() {
		l.update(workflows.UpdateExtend, "u1", workflows.Extend{Request: reason("goodwill"), ExpiresAt: &until})
	})
	if r := l.run(); r.State != credit.StateExpired || !r.At.Equal(until) {
		t.Errorf("ended %+v", r)
	}
	l.want("read @0", "remind 30 @30", "extend @40", "remind 30 @70", "remind 7 @93", "remind 1 @99", "read @100", "expire @100")
	if o := l.outcomes["u1"]; o.State != credit.StateActive || o.ExpiresAt == nil || !o.ExpiresAt.Equal(until) {
		t.Errorf("outcome %+v, %v", o, l.errs["u1"])
	}
	if want := "grant/" + l.facts.GrantID.String() + "/update/u1"; !slices.Equal(l.keys, []string{want}) {
		t.Errorf("keys %q, want %q", l.keys, want)
	}
	l.told("extend: goodwill (by an operator)", "Expired")
}

// A timer runs on while the moment that it is for does not change.
func TestATimerStays(t *testing.T) {
	l := newLife(t)
	var set []string
	cancelled := 0
	l.env.SetOnTimerScheduledListener(func(_ string, after time.Duration) {
		set = append(set, fmt.Sprintf("%d for %d", l.env.Now().Sub(begin)/day, (l.env.Now().Add(after).Sub(begin))/day))
	})
	l.env.SetOnTimerCanceledListener(func(string) { cancelled++ })
	for n := range 5 {
		l.at(time.Duration(1+n)*day, func() {
			l.facts.Ver++
			l.signal("refunded")
		})
		l.at(time.Duration(10+n)*day, func() {
			l.update(workflows.UpdateRefund, fmt.Sprint("u", n), workflows.Refunding{Request: reason("less needed"), Units: "1"})
		})
	}
	l.at(20*day, func() { l.update(workflows.UpdateFreeze, "f", reason("a question")) })
	l.at(21*day, func() { l.update(workflows.UpdateUnfreeze, "t", reason("answered")) })
	l.run()
	if want := []string{"0 for 30", "21 for 30", "30 for 53", "53 for 59", "59 for 60"}; !slices.Equal(set, want) || cancelled != 1 {
		t.Errorf("timers were set on day %q, want %q; %d were cancelled, want 1", set, want, cancelled)
	}
}

func TestExtendToNeverEndsTheTimers(t *testing.T) {
	l := newLife(t)
	l.at(10*day, func() { l.update(workflows.UpdateExtend, "u1", workflows.Extend{Request: reason("a promise")}) })
	l.at(1000*day, func() {
		if s := l.standing(); s.ExpiresAt != nil || s.State != credit.StateActive || !strings.Contains(s.Next, "never expires") {
			t.Errorf("standing %+v", s)
		}
		l.set(credit.StatusDepleted)
		l.signal("depleted")
	})
	if r := l.run(); r.State != credit.StateDepleted {
		t.Errorf("ended %+v", r)
	}
	l.want("read @0", "extend @10", "read @1000")
	l.told("Depleted")
}

func TestFromPaymentToActive(t *testing.T) {
	l := newLife(t, func(f *activities.GrantFacts) {
		f.Type, f.Status, f.IssuedAt = credit.Purchased, credit.StatusPending, time.Time{}
		f.EffectiveAt, f.ExpiresAt = begin.Add(20*day), begin.Add(90*day)
	})
	states := map[credit.State]bool{}
	see := func() { states[l.standing().State] = true }
	l.at(day, see)
	l.at(5*day, func() {
		l.facts.IssuedAt = l.now()
		l.set(credit.StatusOpen)
		l.signal("issued")
	})
	l.at(6*day, see)
	l.at(21*day, see)
	l.run()
	l.want("read @0", "read @5", "post @5", "remind 30 @60", "remind 7 @83", "remind 1 @89", "read @90", "expire @90", "post @90")
	if !states[credit.StatePending] || !states[credit.StateAllocated] || !states[credit.StateActive] {
		t.Errorf("states seen: %v", states)
	}
	l.told("payment is awaited", "Paid", "booked", "Active", "Expired")
}

func TestAFrozenGrantDoesNotExpire(t *testing.T) {
	l := newLife(t)
	l.at(20*day, func() { l.update(workflows.UpdateFreeze, "f", reason("disputed")) })
	l.at(70*day, func() {
		if s := l.standing(); s.State != credit.StateFrozen {
			t.Errorf("standing %+v", s)
		}
		l.update(workflows.UpdateExtend, "late", workflows.Extend{Request: reason("too late")})
	})
	l.at(80*day, func() { l.update(workflows.UpdateUnfreeze, "u", reason("won")) })
	if r := l.run(); r.State != credit.StateExpired || r.At.Before(begin.Add(80*day)) {
		t.Errorf("ended %+v", r)
	}
	l.want("read @0", "freeze @20", "freeze @80")
	wantRefusal(t, l.errs["late"], credit.GrantExpired)
	l.told("freeze: disputed", "freeze: won", "Expired")
}

func TestPostgresDecidesWhenTheExpiryHasCome(t *testing.T) {
	l := newLife(t, func(f *activities.GrantFacts) { f.ExpiresAt = begin.Add(time.Hour) })
	l.slow = 90 * time.Second
	if r := l.run(); r.At.Sub(begin) != time.Hour+90*time.Second {
		t.Errorf("ended after %s", r.At.Sub(begin))
	}
	l.want("read @0", "read @0", "read @0", "expire @0")
}

func TestAGrantWithSomethingHeldPastItsExpiryIsNotAskedAllTheTime(t *testing.T) {
	l := newLife(t, func(f *activities.GrantFacts) { f.ExpiresAt = begin.Add(time.Hour) })
	asked := 0
	l.env.OnActivity(l.a.ExpireGrant, mock.Anything, mock.Anything).Return(
		func(context.Context, activities.GrantRef) (activities.Expired, error) {
			asked++
			return activities.Expired{Grant: l.read()}, nil
		})
	l.at(2*time.Hour, func() { l.set(credit.StatusExpired); l.signal("expired") })
	if r := l.run(); r.State != credit.StateExpired || asked > 61 {
		t.Errorf("ended %+v after %d questions", r, asked)
	}
}

func TestRefundAndVoid(t *testing.T) {
	t.Run("a part", func(t *testing.T) {
		l := newLife(t)
		l.at(day, func() {
			l.update(workflows.UpdateRefund, "r1", workflows.Refunding{Request: workflows.Request{Reason: "wanted\nless", Actor: 3}, Units: "10"})
		})
		l.run()
		l.want("read @0", "refund @1", "remind 30 @30", "remind 7 @53", "remind 1 @59", "read @60", "expire @60")
		l.told("refund: wanted less (by API key 3)")
	})
	t.Run("all", func(t *testing.T) {
		l := newLife(t)
		l.at(day, func() { l.update(workflows.UpdateRefund, "r1", workflows.Refunding{Request: reason("left us")}) })
		if r := l.run(); r.State != credit.StateRefunded || l.errs["r1"] != nil {
			t.Errorf("ended %+v, %v", r, l.errs)
		}
	})
	t.Run("elsewhere", func(t *testing.T) {
		l := newLife(t)
		l.at(day, func() { l.facts.Ver++; l.signal("refunded") })
		l.run()
		l.told("Part of it was refunded")
	})
	t.Run("void", func(t *testing.T) {
		l := newLife(t, func(f *activities.GrantFacts) { f.Status, f.IssuedAt = credit.StatusPending, time.Time{} })
		l.at(day, func() { l.update(workflows.UpdateVoid, "v1", reason("never paid")) })
		if r := l.run(); r.State != credit.StateVoided {
			t.Errorf("ended %+v", r)
		}
	})
}

func TestValidatorsRefuseWhatIsKnownToBeWrong(t *testing.T) {
	sooner, same := begin.Add(10*day), begin.Add(60*day)
	pending := func(f *activities.GrantFacts) { f.Status, f.IssuedAt = credit.StatusPending, time.Time{} }
	never := func(f *activities.GrantFacts) { f.ExpiresAt = time.Time{} }
	frozen := func(f *activities.GrantFacts) { f.Frozen = true }
	for name, c := range map[string]struct {
		change func(*activities.GrantFacts)
		update string
		arg    any
		want   credit.Code
	}{
		"no reason":         {nil, workflows.UpdateVoid, reason(" \n"), credit.InvalidRequest},
		"long reason":       {nil, workflows.UpdateVoid, reason(strings.Repeat("x", 501)), credit.InvalidRequest},
		"shorter life":      {nil, workflows.UpdateExtend, workflows.Extend{Request: reason("r"), ExpiresAt: &sooner}, credit.InvalidRequest},
		"same life":         {nil, workflows.UpdateExtend, workflows.Extend{Request: reason("r"), ExpiresAt: &same}, credit.InvalidRequest},
		"never expires":     {never, workflows.UpdateExtend, workflows.Extend{Request: reason("r"), ExpiresAt: &same}, credit.InvalidRequest},
		"refund unpaid":     {pending, workflows.UpdateRefund, workflows.Refunding{Request: reason("r")}, credit.GrantState},
		"freeze unpaid":     {pending, workflows.UpdateFreeze, reason("r"), credit.GrantState},
		"freeze frozen":     {frozen, workflows.UpdateFreeze, reason("r"), credit.GrantState},
		"unfreeze unfrozen": {nil, workflows.UpdateUnfreeze, reason("r"), credit.GrantState},
	} {
		t.Run(name, func(t *testing.T) {
			var changes []func(*activities.GrantFacts)
			if c.change != nil {
				changes = append(changes, c.change)
			}
			l := newLife(t, changes...)
			l.at(day, func() { l.update(c.update, "u", c.arg) })
			l.at(2*day, func() { l.set(credit.StatusVoided); l.signal("voided") })
			l.run()
			l.want("read @0", "read @2")
			wantRefusal(t, l.errs["u"], c.want)
		})
	}
}

func TestARefusalByPostgresReachesTheCaller(t *testing.T) {
	l := newLife(t)
	l.env.OnActivity(l.a.RefundGrant, mock.Anything, mock.Anything).Once().Return(activities.Changed{},
		temporal.NewNonRetryableApplicationError("5 can be refunded, 10 was asked for.", string(credit.NotRefundable), nil))
	l.at(day, func() { l.update(workflows.UpdateRefund, "r", workflows.Refunding{Request: reason("r"), Units: "10"}) })
	if r := l.run(); r.State != credit.StateExpired {
		t.Errorf("ended %+v", r)
	}
	wantRefusal(t, l.errs["r"], credit.NotRefundable)
}

func wantRefusal(t *testing.T, err error, code credit.Code) {
	t.Helper()
	var e *temporal.ApplicationError
	if !errors.As(err, &e) || e.Type() != string(code) || !e.NonRetryable() {
		t.Errorf("error %v, want a refusal %s", err, code)
	}
}

// An update may come while the main loop is busy with an activity, and before the first look.
func TestUpdatesAtAnyMoment(t *testing.T) {
	until := begin.Add(100 * day)
	extend := workflows.Extend{Request: reason("r"), ExpiresAt: &until}
	t.Run("during the first look", func(t *testing.T) {
		l := newLife(t)
		l.at(0, func() { l.update(workflows.UpdateExtend, "u", extend) })
		if r := l.run(); !r.At.Equal(until) || l.errs["u"] != nil {
			t.Errorf("ended %+v, %v", r, l.errs)
		}
	})
	t.Run("during a reminder", func(t *testing.T) {
		l := newLife(t)
		l.env.OnActivity(l.a.RemindExpiry, mock.Anything, mock.Anything).After(time.Hour).Return(
			func(_ context.Context, in activities.RemindInput) (activities.GrantFacts, error) {
				l.called(fmt.Sprintf("remind %d", in.Days))
				return l.read(), nil
			})
		l.at(30*day+30*time.Minute, func() { l.update(workflows.UpdateExtend, "u", extend) })
		if r := l.run(); !r.At.Equal(until) {
			t.Errorf("ended %+v", r)
		}
		l.want("read @0", "extend @30", "remind 30 @30", "remind 30 @70", "remind 7 @93", "remind 1 @99", "read @100", "expire @100")
	})
	t.Run("an older answer does not undo it", func(t *testing.T) {
		l := newLife(t)
		stale := l.read()
		l.env.OnActivity(l.a.RemindExpiry, mock.Anything, mock.Anything).After(time.Hour).Return(stale, nil)
		l.at(30*day+30*time.Minute, func() { l.update(workflows.UpdateExtend, "u", extend) })
		if r := l.run(); !r.At.Equal(until) {
			t.Errorf("ended %+v", r)
		}
	})
	t.Run("three at once", func(t *testing.T) {
		l := newLife(t)
		l.at(day, func() {
			l.update(workflows.UpdateExtend, "u1", extend)
			l.update(workflows.UpdateFreeze, "u2", reason("r"))
			l.update(workflows.UpdateRefund, "u3", workflows.Refunding{Request: reason("r"), Units: "1"})
		})
		l.at(2*day, func() { l.update(workflows.UpdateVoid, "u4", reason("r")) })
		if r := l.run(); r.State != credit.StateVoided || len(l.outcomes) != 4 {
			t.Errorf("ended %+v, %v, %v", r, l.outcomes, l.errs)
		}
	})
	t.Run("the workflow's end waits for it", func(t *testing.T) {
		l := newLife(t)
		l.env.OnActivity(l.a.ExtendGrant, mock.Anything, mock.Anything).After(time.Hour).Return(activities.Changed{},
			temporal.NewNonRetryableApplicationError("It is depleted.", string(credit.GrantState), nil))
		l.at(day, func() { l.update(workflows.UpdateExtend, "u", extend) })
		l.at(day+time.Minute, func() { l.set(credit.StatusDepleted); l.signal("depleted") })
		if r := l.run(); r.State != credit.StateDepleted {
			t.Errorf("ended %+v", r)
		}
		wantRefusal(t, l.errs["u"], credit.GrantState)
	})
}

func TestSignalsOfWhatIsKnownCostNothing(t *testing.T) {
	l := newLife(t, func(f *activities.GrantFacts) { f.Ver = 7 })
	l.at(day, func() { l.env.SignalWorkflow(workflows.SignalChanged, workflows.Change{Change: "extended", Ver: 7}) })
	l.at(2*day, func() { l.env.SignalWorkflow(workflows.SignalChanged, workflows.Change{Change: "frozen", Ver: 8}) })
	l.run()
	l.want("read @0", "read @2", "remind 30 @30", "remind 7 @53", "remind 1 @59", "read @60", "expire @60")
}

func TestFaultsAreRetried(t *testing.T) {
	l := newLife(t)
	tries := 0
	l.env.OnActivity(l.a.ReadGrant, mock.Anything, mock.Anything).Return(
		func(context.Context, activities.GrantRef) (activities.GrantFacts, error) {
			if tries++; tries < 11 { // once within the workflow task, and then the test environment gives up after 10; the server does not
				return activities.GrantFacts{}, errors.New("database is away")
			}
			return l.read(), nil
		})
	if r := l.run(); r.State != credit.StateExpired || tries != 12 { // the last one is at the expiry
		t.Errorf("ended %+v after %d tries", r, tries)
	}
}

func TestBookingThePurchaseDoesNotHoldUpTheGrant(t *testing.T) {
	l := newLife(t, func(f *activities.GrantFacts) { f.Type, f.ExpiresAt = credit.Purchased, begin.Add(time.Hour) })
	l.env.OnActivity(l.a.PostCustomer, mock.Anything, mock.Anything).Return(activities.Posted{}, errors.New("no"))
	if r := l.run(); r.State != credit.StateExpired || r.At.Sub(begin) > time.Hour+2*time.Minute {
		t.Errorf("ended %+v", r)
	}
	l.told("could not be booked yet", "Expired", "could not be booked yet")
}

// What a run hands to the next is all that the next needs: it goes on as if nothing had happened.
func TestContinuesAsNew(t *testing.T) {
	l := newLife(t, func(f *activities.GrantFacts) { f.Type = credit.Purchased })
	l.at(31*day, func() {
		l.env.SetContinueAsNewSuggested(true)
		l.env.SignalWorkflow(workflows.SignalChanged, workflows.Change{Change: "extended", Ver: 1}) // wakes it
	})
	l.execute(workflows.GrantInput{GrantRef: l.facts.GrantRef})
	var next *workflow.ContinueAsNewError
	if err := l.env.GetWorkflowError(); !errors.As(err, &next) {
		t.Fatalf("ended with %v", err)
	}
	var in workflows.GrantInput
	readInput(t, next, &in)
	if in.GrantRef != l.facts.GrantRef || in.Reminders.Told != 30 || !in.Booked || len(in.Story.Lines) != 3 {
		t.Fatalf("handed over %+v", in)
	}

	m := newLife(t)
	m.facts = l.facts
	m.env.SetStartTime(begin.Add(31 * day))
	m.execute(in)
	var r workflows.GrantResult
	if err := m.env.GetWorkflowResult(&r); err != nil || r.State != credit.StateExpired {
		t.Fatal(r, err)
	}
	m.want("read @31", "remind 7 @53", "remind 1 @59", "read @60", "expire @60", "post @60")
	m.told("Created and issued", "booked", "30 days", "7 days", "1 day ", "Expired")
}

func readInput(t *testing.T, next *workflow.ContinueAsNewError, in any) {
	t.Helper()
	if err := json.Unmarshal(next.Input.Payloads[0].Data, in); err != nil {
		t.Fatal(err)
	}
}

func TestCancellingDoesNotTouchTheGrant(t *testing.T) {
	l := newLife(t)
	l.at(day, l.env.CancelWorkflow)
	l.execute(workflows.GrantInput{GrantRef: l.facts.GrantRef})
	if err := l.env.GetWorkflowError(); !temporal.IsCanceledError(err) {
		t.Errorf("ended with %v", err)
	}
	l.want("read @0")
}

func TestAGrantThatDoesNotExist(t *testing.T) {
	l := newLife(t)
	l.env.OnActivity(l.a.ReadGrant, mock.Anything, mock.Anything).Return(activities.GrantFacts{},
		temporal.NewNonRetryableApplicationError("There is none.", string(credit.GrantNotFound), nil))
	l.execute(workflows.GrantInput{GrantRef: l.facts.GrantRef})
	wantRefusal(t, l.env.GetWorkflowError(), credit.GrantNotFound)
}

func TestTheStoryIsBounded(t *testing.T) {
	l := newLife(t, func(f *activities.GrantFacts) { f.ExpiresAt = time.Time{} })
	for i := range 60 {
		l.at(time.Duration(i+1)*time.Hour, func() {
			name := workflows.UpdateFreeze
			if i%2 == 1 {
				name = workflows.UpdateUnfreeze
			}
			l.update(name, fmt.Sprint(i), reason(strings.Repeat("long ", 100)))
		})
	}
	l.at(100*time.Hour, func() { l.set(credit.StatusVoided); l.signal("voided") })
	l.run()
	if story := l.standing().Story; len(story) != 40 || len(strings.Join(story, "\n")) > 16_000 {
		t.Errorf("%d lines", len(story))
	}
}
