package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
)

// GrantWorkflowID is the id of the one workflow of a grant.
func GrantWorkflowID(id credit.GrantID) string { return "grant/" + id.String() }

// GrantInput starts a [GrantLifecycle]. All but the ids is what a run hands to the one that continues it.
type GrantInput struct {
	activities.GrantRef
	Story     story     `json:"story,omitzero"`
	Reminders reminders `json:"reminders,omitzero"`
	Booked    bool      `json:"booked,omitempty"`
}

// GrantResult is how a grant ended.
type GrantResult struct {
	State credit.State `json:"state"` // depleted, expired, refunded or voided
	At    time.Time    `json:"at"`    // when the workflow learned of it
}

// GrantLifecycle is the life of a grant as operators follow it, from its payment to the end of its credits:
//
//	pending_payment → allocated → active → depleted | expired | refunded | voided
//
// It holds no balances, and no balance depends on it. A grant stops serving at its expiry by the clock of Postgres, and what is left of it
// is booked by the first to come: the worker's sweep, or this workflow. What the workflow adds is time and people: it reminds before the
// expiry, takes the operators' updates, and shows the story. Postgres decides; a "changed" signal or a timer only makes it look again.
//
// A depleted grant ends its workflow. If a correction gives credits back to it later, they serve and expire like any others, and the worker's
// reconciler starts a workflow for it again.
func GrantLifecycle(ctx workflow.Context, in GrantInput) (GrantResult, error) {
	l := newLifecycle(ctx, in)
	if err := l.listen(ctx); err != nil {
		return GrantResult{}, err
	}
	if err := l.look(ctx); err != nil {
		return GrantResult{}, err
	}
	for !l.facts.Over() {
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return GrantResult{}, l.continueAsNew(ctx)
		}
		l.bookPurchase(ctx)
		next := l.next(workflow.Now(ctx))
		if err := l.show(ctx, next); err != nil {
			return GrantResult{}, err
		}
		due, err := l.wait(ctx, next)
		switch {
		case err != nil: // cancelled
		case !due:
			err = l.hear(ctx)
		case next.what == reminder:
			err = l.remind(ctx, next.days)
		case next.what == expiry:
			err = l.expire(ctx)
		case next.what == effect:
			l.story.add(next.at, "Active: its credits serve from now on.")
		}
		if err != nil {
			return GrantResult{}, err
		}
	}
	return l.end(ctx)
}

// lifecycle is the state of one run of [GrantLifecycle].
type lifecycle struct {
	ref       activities.GrantRef
	facts     activities.GrantFacts // the newest ones known; zero before the first look
	story     story
	reminders reminders
	booked    bool      // bookPurchase was there
	notBefore time.Time // Postgres said that the expiry is still to come, for so long
	shown     standing  // by the search attributes
	alarm     alarm
	changes   workflow.ReceiveChannel
	heard     []Change // signals not looked into yet
	// An update that has changed facts puts a value in. It is buffered: the update must not wait for the main loop, nor be lost while that
	// is busy. One value is enough, for what changed is in facts.
	woken workflow.Channel
}

// standing is what search attributes say about a grant.
type standing struct {
	state     credit.State
	expiresAt time.Time
}

func newLifecycle(ctx workflow.Context, in GrantInput) *lifecycle {
	l := &lifecycle{
		ref: in.GrantRef, story: in.Story, reminders: in.Reminders, booked: in.Booked,
		changes: workflow.GetSignalChannel(ctx, SignalChanged), woken: workflow.NewNamedBufferedChannel(ctx, "woken", 1),
	}
	attributes := workflow.GetTypedSearchAttributes(ctx)
	state, _ := attributes.GetKeyword(GrantState)
	l.shown.state = credit.State(state)
	l.shown.expiresAt, _ = attributes.GetTime(GrantExpiresAt)
	return l
}

// look reads how the grant stands. It is the one thing that every workflow does whenever it wakes, so it is done within the workflow task;
// only if that fails it becomes an activity, which is retried until it succeeds and which operators see.
func (l *lifecycle) look(ctx workflow.Context) error {
	var a *activities.Activities
	var f activities.GrantFacts
	const summary = "How does the grant stand?"
	err := workflow.ExecuteLocalActivity(withLocalActivity(ctx, summary), a.ReadGrant, l.ref).Get(ctx, &f)
	if err != nil && ctx.Err() == nil {
		err = workflow.ExecuteActivity(withActivity(ctx, summary), a.ReadGrant, l.ref).Get(ctx, &f)
	}
	if err == nil {
		l.learn(workflow.Now(ctx), f, "")
	}
	return err
}

// learn takes newer facts over and adds to the story what they change; did, if not empty, says it better.
func (l *lifecycle) learn(now time.Time, f activities.GrantFacts, did string) {
	if f.Ver < l.facts.Ver {
		return // an update that ended meanwhile has newer ones
	}
	was, first := l.facts, l.facts.Status == ""
	l.facts = f
	l.reminders.learn(now, f)
	if did != "" {
		l.story.add(now, did)
	}
	switch {
	case first:
		if len(l.story.Lines) == 0 {
			l.story.begin(f)
		}
	case was.IssuedAt.IsZero() && !f.IssuedAt.IsZero():
		l.story.add(f.IssuedAt, "Paid: its credits are issued.")
	case did != "":
	case !was.ExpiresAt.Equal(f.ExpiresAt):
		l.story.add(now, "Expiry moved from "+expiryText(was.ExpiresAt)+" to "+expiryText(f.ExpiresAt)+".")
	case f.Frozen && !was.Frozen:
		l.story.add(now, "Frozen: it neither serves nor expires.")
	case was.Frozen && !f.Frozen:
		l.story.add(now, "Unfrozen.")
	}
	if f.Over() && (was.Status != f.Status) && (did == "" || f.Status == credit.StatusExpired) {
		l.story.add(now, endText[f.Status])
	}
}

var endText = map[credit.Status]string{
	credit.StatusDepleted: "Depleted: all of it is used.",
	credit.StatusExpired:  "Expired: what was left is booked as expired.",
	credit.StatusRefunded: "Refunded: nothing is left of it.",
	credit.StatusVoided:   "Voided: what was left is taken away.",
}

// hear looks into the signals that have come, unless they tell of nothing new or the grant is over.
func (l *lifecycle) hear(ctx workflow.Context) error {
	for {
		var c Change
		if !l.changes.ReceiveAsync(&c) {
			break
		}
		l.heard = append(l.heard, c)
	}
	news, refunded := false, false
	for _, c := range l.heard {
		if c.Ver == 0 || c.Ver > l.facts.Ver {
			news, refunded = true, refunded || c.Change == "refunded"
		}
	}
	l.heard = nil
	if !news || l.facts.Over() {
		return nil
	}
	if err := l.look(ctx); err != nil {
		return err
	}
	if refunded && !l.facts.Over() {
		l.story.add(workflow.Now(ctx), "Part of it was refunded.")
	}
	return nil
}

// bookPurchase has the money of a grant booked once it is issued.
func (l *lifecycle) bookPurchase(ctx workflow.Context) {
	if !l.booked && l.facts.Status == credit.StatusOpen {
		l.booked = true
		l.book(ctx, "Book the money of the "+string(l.facts.Type)+" grant")
	}
}

// book has the money of what happened to the grant booked at once, if there can be any. It does not insist: the next recognition run books
// what is missing.
func (l *lifecycle) book(ctx workflow.Context, what string) {
	if l.facts.Type != credit.Purchased && l.facts.Type != credit.Concession {
		return
	}
	o := workflow.GetActivityOptions(withActivity(ctx, what))
	o.ScheduleToCloseTimeout = time.Minute
	var a *activities.Activities
	customer := activities.CustomerRef{CustomerID: l.ref.CustomerID}
	if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, o), a.PostCustomer, customer).Get(ctx, nil); err != nil {
		l.story.add(workflow.Now(ctx), "Its money could not be booked yet; the next recognition run will do it.")
		return
	}
	l.story.add(workflow.Now(ctx), "Its money is booked.")
}

// moment is what comes next in a grant's life by itself.
type moment struct {
	what occasion
	at   time.Time
	days int // of a reminder
}

type occasion int

const (
	nothing  occasion = iota // somebody has to act
	effect                   // the grant begins to serve
	reminder                 // of the expiry
	expiry
)

// next says what comes next, seen from now.
func (l *lifecycle) next(now time.Time) moment {
	f := &l.facts
	if f.Status == credit.StatusPending || f.Frozen {
		return moment{}
	}
	var m moment
	if !f.ExpiresAt.IsZero() {
		m = moment{what: expiry, at: f.ExpiresAt}
		if l.notBefore.After(m.at) {
			m.at = l.notBefore
		}
		if days, at := l.reminders.next(now); days > 0 {
			m = moment{what: reminder, at: at, days: days}
		}
	}
	if f.EffectiveAt.After(now) && (m.what == nothing || f.EffectiveAt.Before(m.at)) {
		m = moment{what: effect, at: f.EffectiveAt}
	}
	return m
}

// wait returns at the moment, or before it when something has changed; then due is false. The error is that of a cancellation.
func (l *lifecycle) wait(ctx workflow.Context, next moment) (due bool, err error) {
	l.alarm.set(ctx, next)
	s := workflow.NewNamedSelector(ctx, "life")
	s.AddReceive(ctx.Done(), func(workflow.ReceiveChannel, bool) {})
	s.AddReceive(l.woken, func(c workflow.ReceiveChannel, _ bool) { c.Receive(ctx, nil) })
	s.AddReceive(l.changes, func(c workflow.ReceiveChannel, _ bool) {
		var heard Change
		c.Receive(ctx, &heard)
		l.heard = append(l.heard, heard)
	})
	if l.alarm.timer != nil {
		s.AddFuture(l.alarm.timer, func(workflow.Future) { due, l.alarm = true, alarm{} })
	}
	s.Select(ctx)
	return due, ctx.Err()
}

// alarm is the timer that runs for a moment. It stays while that does not change, whatever else happens to the grant.
type alarm struct {
	moment moment
	timer  workflow.Future // nil: none runs
	cancel workflow.CancelFunc
}

func (a *alarm) set(ctx workflow.Context, m moment) {
	if a.moment.what == m.what && a.moment.days == m.days && a.moment.at.Equal(m.at) {
		return
	}
	if a.timer != nil {
		a.cancel()
	}
	*a = alarm{moment: m}
	if m.what != nothing {
		ctx, a.cancel = workflow.WithCancel(ctx)
		a.timer = workflow.NewTimerWithOptions(ctx, m.at.Sub(workflow.Now(ctx)), workflow.TimerOptions{Summary: m.text()})
	}
}

// remind has the customer told that the grant will expire.
func (l *lifecycle) remind(ctx workflow.Context, days int) error {
	l.reminders.Told = days
	in := activities.RemindInput{GrantRef: l.ref, ExpiresAt: l.facts.ExpiresAt, Days: days}
	var a *activities.Activities
	var f activities.GrantFacts
	if err := workflow.ExecuteActivity(withActivity(ctx, moment{what: reminder, days: days}.text()), a.RemindExpiry, in).Get(ctx, &f); err != nil {
		return err
	}
	if !f.Over() && !f.Frozen && f.ExpiresAt.Equal(in.ExpiresAt) {
		l.story.add(workflow.Now(ctx), "Reminded: "+daysText(days)+" to the expiry.")
	}
	l.learn(workflow.Now(ctx), f, "")
	return nil
}

// expire has what is left of the grant booked. Postgres says whether the expiry has come, and usually the sweep was faster.
func (l *lifecycle) expire(ctx workflow.Context) error {
	if err := l.look(ctx); err != nil {
		return err
	}
	if f := &l.facts; !f.Over() && f.State(f.ReadAt) == credit.StateExpired {
		var a *activities.Activities
		var done activities.Expired
		if err := workflow.ExecuteActivity(withActivity(ctx, "Book what is left as expired"), a.ExpireGrant, l.ref).Get(ctx, &done); err != nil {
			return err
		}
		l.learn(workflow.Now(ctx), done.Grant, "")
		if done.Now {
			l.book(ctx, "Book the money of the expiry")
		}
	}
	// Should it be open still, it was too early by the clock of Postgres, or it was extended or frozen meanwhile, or part of it is held.
	again := time.Minute
	if early := l.facts.ExpiresAt.Sub(l.facts.ReadAt); early > 0 {
		again = max(early, time.Second)
	}
	l.notBefore = workflow.Now(ctx).Add(again)
	return nil
}

// end waits for the updates under way, and tells how the grant ended.
func (l *lifecycle) end(ctx workflow.Context) (GrantResult, error) {
	if err := handlersFinished(ctx); err != nil {
		return GrantResult{}, err
	}
	if err := l.show(ctx, moment{}); err != nil {
		return GrantResult{}, err
	}
	now := workflow.Now(ctx)
	return GrantResult{State: l.facts.State(now), At: now}, nil
}

// continueAsNew hands everything that Postgres does not know to a run with an empty history. Signals that have not been heard need not be
// handed over: the next run looks first.
func (l *lifecycle) continueAsNew(ctx workflow.Context) error {
	if err := handlersFinished(ctx); err != nil {
		return err
	}
	return workflow.NewContinueAsNewError(ctx, GrantLifecycle,
		GrantInput{GrantRef: l.ref, Story: l.story, Reminders: l.reminders, Booked: l.booked})
}
