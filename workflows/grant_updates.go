package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
)

// By these names callers reach a grant's workflow.
const (
	SignalChanged  = "changed"  // takes a [Change]: the grant was changed by somebody else
	QueryState     = "state"    // answers a [GrantStanding]
	UpdateExtend   = "extend"   // takes an [Extend]; the five updates answer an [Outcome]
	UpdateRefund   = "refund"   // takes a [Refunding]
	UpdateVoid     = "void"     // takes a [Request]
	UpdateFreeze   = "freeze"   // takes a [Request]
	UpdateUnfreeze = "unfreeze" // takes a [Request]
)

// Change tells a workflow that its grant was changed.
type Change struct {
	Change string `json:"change"`        // issued, extended, frozen, unfrozen, refunded, voided, expired, depleted
	Ver    int64  `json:"ver,omitempty"` // of the customer, after it; 0: not told
}

// Request is who asks for a change, and why.
type Request struct {
	Reason string `json:"reason"`          // one sentence, for the history
	Actor  int32  `json:"actor,omitempty"` // number of the API key on whose behalf; absent for operators
}

// Extend asks for a later expiry.
type Extend struct {
	Request
	ExpiresAt *time.Time `json:"expires_at"` // null: never
}

// Refunding asks for unused credits to be taken back and paid for.
type Refunding struct {
	Request
	Units  string `json:"units,omitempty"`   // credits; absent: all that is left
	FXRate string `json:"fx_rate,omitempty"` // entity currency per one of the price's currency today; absent: the purchase's rate
}

// Outcome is what an update came to.
type Outcome struct {
	Did       string           `json:"did"`
	State     credit.State     `json:"state"` // afterwards
	ExpiresAt *time.Time       `json:"expires_at"`
	RefundID  *credit.RefundID `json:"refund_id,omitempty"`
}

// GrantStanding answers the query [QueryState].
type GrantStanding struct {
	State       credit.State `json:"state"`
	EffectiveAt time.Time    `json:"effective_at"`
	ExpiresAt   *time.Time   `json:"expires_at"`
	Next        string       `json:"next"` // what the workflow waits for
	Story       []string     `json:"story"`
}

// listen sets the query and the updates. A validator refuses by what the workflow knows, before anything is written to its history;
// what it lets pass is decided by Postgres.
func (l *lifecycle) listen(ctx workflow.Context) error {
	err := workflow.SetQueryHandlerWithOptions(ctx, QueryState, func() (GrantStanding, error) {
		now := workflow.Now(ctx)
		return GrantStanding{
			State: l.facts.State(now), EffectiveAt: l.facts.EffectiveAt, ExpiresAt: orNil(l.facts.ExpiresAt),
			Next: l.nextText(l.next(now), now), Story: l.story.texts(),
		}, nil
	}, workflow.QueryHandlerOptions{Description: "How the grant stands, what comes next, and what happened."})
	var a *activities.Activities
	return errors.Join(err,
		onUpdate(ctx, l, UpdateExtend, "Move the expiry to a later instant, or with null to never.", mayExtend,
			func(ctx workflow.Context, in Extend, c activities.Cause) workflow.Future {
				x := activities.ExtendInput{GrantRef: l.ref, Cause: c}
				if in.ExpiresAt != nil {
					x.ExpiresAt = *in.ExpiresAt
				}
				return workflow.ExecuteActivity(ctx, a.ExtendGrant, x)
			}),
		onUpdate(ctx, l, UpdateRefund, "Take unused credits back, all or some, and pay them back at what they cost.", mayRefund,
			func(ctx workflow.Context, in Refunding, c activities.Cause) workflow.Future {
				return workflow.ExecuteActivity(ctx, a.RefundGrant, activities.RefundInput{GrantRef: l.ref, Cause: c, Units: in.Units, FXRate: in.FXRate})
			}),
		onUpdate(ctx, l, UpdateVoid, "Take all that is left away: it was never paid, or a mistake.", mayVoid,
			func(ctx workflow.Context, _ Request, c activities.Cause) workflow.Future {
				return workflow.ExecuteActivity(ctx, a.VoidGrant, activities.VoidInput{GrantRef: l.ref, Cause: c})
			}),
		onUpdate(ctx, l, UpdateFreeze, "Stop the grant from serving and from expiring.", mayFreeze,
			func(ctx workflow.Context, _ Request, c activities.Cause) workflow.Future {
				return workflow.ExecuteActivity(ctx, a.FreezeGrant, activities.FreezeInput{GrantRef: l.ref, Cause: c})
			}),
		onUpdate(ctx, l, UpdateUnfreeze, "Let a frozen grant go on. If its expiry has come meanwhile, it expires.", mayUnfreeze,
			func(ctx workflow.Context, _ Request, c activities.Cause) workflow.Future {
				return workflow.ExecuteActivity(ctx, a.FreezeGrant, activities.FreezeInput{GrantRef: l.ref, Cause: c, Thaw: true})
			}),
	)
}

// asked is the argument of an update.
type asked interface{ request() Request }

func (r Request) request() Request { return r }

// onUpdate answers one kind of update: may refuses, act starts the activity that makes the change under the key made of the workflow's and
// the update's id.
func onUpdate[T asked](ctx workflow.Context, l *lifecycle, name, description string,
	may func(f *activities.GrantFacts, now time.Time, in T) error, act func(workflow.Context, T, activities.Cause) workflow.Future) error {
	validate := func(ctx workflow.Context, in T) error {
		if reason := in.request().Reason; strings.TrimSpace(reason) == "" || len(reason) > 500 {
			return refused(credit.InvalidRequest, "A reason is needed, of at most 500 characters.")
		}
		if l.facts.Status == "" {
			return nil // not looked yet
		}
		return may(&l.facts, workflow.Now(ctx), in)
	}
	handle := func(ctx workflow.Context, in T) (Outcome, error) {
		r := in.request()
		c := activities.Cause{Key: "grant/" + l.ref.GrantID.String() + "/update/" + workflow.GetCurrentUpdateInfo(ctx).ID, Reason: r.Reason, Actor: r.Actor}
		var done activities.Changed
		if err := act(withActivity(ctx, name+": "+oneLine(r.Reason)), in, c).Get(ctx, &done); err != nil {
			return Outcome{}, unwrapRefusal(err)
		}
		now := workflow.Now(ctx)
		l.learn(now, done.Grant, fmt.Sprintf("%s: %s (%s)", done.Did, oneLine(r.Reason), actorText(r.Actor)))
		l.woken.SendAsync(true)
		if err := l.show(ctx, l.next(now)); err != nil {
			return Outcome{}, err
		}
		return Outcome{Did: done.Did, State: done.Grant.State(now), ExpiresAt: orNil(done.Grant.ExpiresAt), RefundID: done.Refund}, nil
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, name, handle, workflow.UpdateHandlerOptions{Description: description, Validator: validate})
}

func mayExtend(f *activities.GrantFacts, now time.Time, in Extend) error {
	switch {
	case f.Over():
		return wrongState(f, now, "extended")
	case f.ExpiresAt.IsZero():
		return refused(credit.InvalidRequest, "The grant never expires.")
	case !now.Before(f.ExpiresAt):
		return refused(credit.GrantExpired, "The grant expired at %s; more time is a new grant.", expiryText(f.ExpiresAt))
	case in.ExpiresAt != nil && !in.ExpiresAt.After(f.ExpiresAt):
		return refused(credit.InvalidRequest, "The grant already lives until %s.", expiryText(f.ExpiresAt))
	}
	return nil
}

func mayRefund(f *activities.GrantFacts, now time.Time, _ Refunding) error {
	if f.Status != credit.StatusOpen {
		return wrongState(f, now, "refunded")
	}
	return nil
}

func mayVoid(f *activities.GrantFacts, now time.Time, _ Request) error {
	if f.Over() {
		return wrongState(f, now, "voided")
	}
	return nil
}

func mayFreeze(f *activities.GrantFacts, now time.Time, _ Request) error {
	if f.Status != credit.StatusOpen || f.Frozen {
		return wrongState(f, now, "frozen")
	}
	return nil
}

func mayUnfreeze(f *activities.GrantFacts, now time.Time, _ Request) error {
	if f.Status != credit.StatusOpen || !f.Frozen {
		return wrongState(f, now, "unfrozen")
	}
	return nil
}

func wrongState(f *activities.GrantFacts, now time.Time, verb string) error {
	return refused(credit.GrantState, "A grant that is %s cannot be %s.", f.State(now), verb)
}

// refused is a refusal as callers of a workflow get it: typed by its code.
func refused(code credit.Code, format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), string(code), nil)
}

// unwrapRefusal takes the refusal out of an activity's error, so that the caller of an update reads what is wrong and not where.
func unwrapRefusal(err error) error {
	var e *temporal.ApplicationError
	if errors.As(err, &e) {
		return temporal.NewNonRetryableApplicationError(e.Message(), e.Type(), nil)
	}
	return err
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
