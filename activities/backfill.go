package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// BackfillRef names a backfill.
type BackfillRef struct {
	BackfillID credit.BackfillID `json:"backfill_id"`
}

// BackfillFacts is what a backfill's workflow shows.
type BackfillFacts struct {
	BackfillRef
	Name   string `json:"name"`
	Status string `json:"status"`
	Events int    `json:"events"` // staged
}

// BackfillProgress is how far a preview, an application or a withdrawal is.
type BackfillProgress struct {
	Seen  int            `json:"seen"`            // events looked at
	Place db.StagedPlace `json:"place"`           // after which event it goes on; zero: from the first. Of a preview only the customer counts
	Done  bool           `json:"done,omitempty"`  // it is through
	Fault string         `json:"fault,omitempty"` // of an application: why it is to be taken back
}

// BackfillPageInput says where a page begins.
type BackfillPageInput struct {
	BackfillRef
	Progress BackfillProgress `json:"progress"`
}

// Bounds of one page: it ends after so much time, and notes what it has found for so many events at once. Those of a rehearsal keep a customer locked.
const (
	backfillPageTime = 15 * time.Second
	backfillChunk    = 256
	rehearsalChunk   = 64
)

// ReadBackfill reads how a backfill stands.
func (a *Activities) ReadBackfill(ctx context.Context, in BackfillRef) (BackfillFacts, error) {
	b, err := a.Store.Backfill(ctx, in.BackfillID)
	return BackfillFacts{BackfillRef{b.ID}, b.Name, b.Status, b.Events}, refusal(err)
}

// BeginPreview forgets what an earlier preview has found.
func (a *Activities) BeginPreview(ctx context.Context, in BackfillRef) error {
	return refusal(a.Store.BeginPreview(ctx, in.BackfillID))
}

// resumed returns the progress with which an attempt goes on.
func resumed(ctx context.Context, p BackfillProgress) (BackfillProgress, error) {
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &p); err != nil {
			return p, fmt.Errorf("read the progress of the attempt before: %w", err)
		}
	}
	return p, nil
}

// PreviewBackfill looks, customer by customer, at what would become of staged events if they were consumed now, for some time. A second attempt goes on with the
// customer at whom the first one was.
func (a *Activities) PreviewBackfill(ctx context.Context, in BackfillPageInput) (BackfillProgress, error) {
	began := time.Now()
	p, err := resumed(ctx, in.Progress)
	for err == nil && !p.Done && time.Since(began) < backfillPageTime {
		var next credit.CustomerID
		if next, err = a.Store.NextStagedCustomer(ctx, in.BackfillID, p.Place.Customer); err != nil {
			break
		}
		if p.Done = next.IsZero(); p.Done {
			break
		}
		var n int
		if n, err = a.previewCustomer(ctx, in.BackfillID, next, p); err == nil {
			p.Seen, p.Place = p.Seen+n, db.StagedPlace{Customer: next}
			activity.RecordHeartbeat(ctx, p)
		}
	}
	return p, refusal(err)
}

// previewCustomer rehearses what a customer's staged events would do, in the order in which they would be consumed. It heartbeats p.
func (a *Activities) previewCustomer(ctx context.Context, id credit.BackfillID, customer credit.CustomerID, p BackfillProgress) (seen int, _ error) {
	r := a.Service.Rehearse(customer)
	defer r.Close()
	staged := a.staged(id, 0)
	for place := (db.StagedPlace{Customer: customer}); ; {
		events, err := a.Store.StagedOfCustomer(ctx, id, place, rehearsalChunk)
		if err != nil {
			return seen, err
		}
		ops, at, notes, err := staged.operations(ctx, events)
		if err != nil {
			return seen, err
		}
		results, err := r.Do(ctx, ops)
		if err != nil {
			return seen, err
		}
		for i, res := range results {
			n := &notes[at[i]]
			var refused *credit.Error
			switch {
			case res.Err == nil && res.Answer.Quarantined:
				n.Outcome, n.Code, n.Detail = db.StagedRefused, credit.QuarantineState, inQuarantine
			case res.Err == nil:
				if n.Outcome = db.StagedChargeable; res.Answer.Replayed {
					n.Outcome = db.StagedDuplicate
				}
				err = a.said(n, res.Answer)
			case errors.As(res.Err, &refused) && (refused.Code == credit.CustomerFrozen || !again(refused)):
				n.Outcome, n.Code, n.Detail = db.StagedRefused, refused.Code, refused.Detail
			default:
				err = res.Err
			}
			if err != nil {
				return seen, err
			}
		}
		if err := a.Store.NotePreviews(ctx, id, notes); err != nil {
			return seen, err
		}
		seen += len(events)
		activity.RecordHeartbeat(ctx, p)
		if len(events) < rehearsalChunk {
			return seen, a.Store.NotePreviewWallets(ctx, id, customer, r.Wallets())
		}
		last := &events[len(events)-1]
		place.At, place.N = last.ServiceAt, last.N
	}
}

const inQuarantine = "The event waits in quarantine: it is charged or discarded there."

// EndPreview makes the preview the one that can be applied.
func (a *Activities) EndPreview(ctx context.Context, in BackfillRef) error {
	b, err := a.Store.Backfill(ctx, in.BackfillID)
	if err == nil {
		err = a.Store.EndPreview(ctx, in.BackfillID, b.Previews, func() { activity.RecordHeartbeat(ctx) })
	}
	return refusal(err)
}

// stagedReader makes operations of staged events.
type stagedReader struct {
	*Activities
	id      credit.BackfillID
	actor   int32
	of      credit.CustomerID // whom the rest is about
	members map[string]member // by the name that events give
	ago     map[int]int64     // events that were consumed long ago, and by which operation; nil: not looked for
}

type member struct {
	id  credit.MemberID
	err error // there is none of the name
}

func (a *Activities) staged(id credit.BackfillID, actor int32) *stagedReader {
	return &stagedReader{Activities: a, id: id, actor: actor}
}

// operations makes the operations of events and says which event each is of. notes has one for each event; those of events without an operation say already what is
// to be noted.
func (r *stagedReader) operations(ctx context.Context, events []db.StagedEvent) (ops []*balance.Consume, at []int, notes []db.StagedNote, err error) {
	notes = make([]db.StagedNote, len(events))
	for i := range events {
		e, n := &events[i], &notes[i]
		n.N = e.N
		if e.Customer != r.of {
			r.of, r.members, r.ago = e.Customer, make(map[string]member), nil
		}
		if r.ago == nil && time.Since(e.ServiceAt) > balance.MaxAge {
			if r.ago, err = r.Store.ConsumedLongAgo(ctx, r.id, e.Customer); err != nil {
				return nil, nil, nil, err
			}
		}
		if ver, ok := r.ago[e.N]; ok {
			n.Outcome, n.Ver = db.StagedDuplicate, ver
			continue
		}
		op, err := r.operation(ctx, e)
		var refused *credit.Error
		switch {
		case err == nil:
			ops, at = append(ops, op), append(at, i)
		case errors.As(err, &refused) && !again(refused):
			n.Outcome, n.Code, n.Detail = db.StagedRefused, refused.Code, refused.Detail
		default:
			return nil, nil, nil, err
		}
	}
	return ops, at, notes, nil
}

func (r *stagedReader) operation(ctx context.Context, e *db.StagedEvent) (*balance.Consume, error) {
	op := &balance.Consume{At: e.ServiceAt, Backfilled: true, Header: balance.Header{Customer: e.Customer, Key: e.Key, Request: e.Request, Actor: r.actor,
		RequestID: credit.RequestID(r.id)}}
	name, err := r.Service.ReadStaged(e.Body, op)
	if err != nil || name == "" {
		return op, err
	}
	m, known := r.members[name]
	if !known {
		id, _ := credit.ParseID[credit.MemberID](name) // no id of ours: the business's own
		m.id, m.err = r.Store.MemberID(ctx, e.Customer, id, name)
		if m.err != nil && !errors.As(m.err, new(*credit.Error)) {
			return nil, m.err
		}
		r.members[name] = m
	}
	op.Member = m.id
	return op, m.err
}

// again tells whether the same attempt may succeed later.
func again(e *credit.Error) bool {
	switch e.Code {
	case credit.Overloaded, credit.NotExecuted, credit.OutcomeUnknown, credit.ClockSkew, credit.Internal, credit.CustomerFrozen:
		return true
	}
	return false
}

// said notes what a receipt says.
func (a *Activities) said(n *db.StagedNote, answer balance.Answer) error {
	var receipt struct{ Unit, Amount string }
	if err := json.Unmarshal(answer.Body, &receipt); err != nil {
		return fmt.Errorf("read the receipt of a staged event: %w", err)
	}
	unit, err := a.Service.Unit(receipt.Unit)
	if err != nil {
		return err
	}
	n.Unit, n.Ver = unit.Code, answer.Ver
	n.Amount, err = credit.ParseAmount(receipt.Amount, unit.Scale)
	return err
}

// ApplyBackfill consumes staged events for some time, in the order of time of each customer. What has been consumed and was not noted, because a process died in
// between, is found by its key. Unless the backfill allows parts, the first event that is refused is the Fault of the progress, and nothing more is consumed.
func (a *Activities) ApplyBackfill(ctx context.Context, in BackfillPageInput) (BackfillProgress, error) {
	began := time.Now()
	p, err := resumed(ctx, in.Progress)
	if err != nil {
		return p, err
	}
	b, err := a.Store.Backfill(ctx, in.BackfillID)
	if err != nil || b.Status != db.BackfillApplying {
		p.Done = true
		return p, refusal(err)
	}
	staged := a.staged(b.ID, b.AppliedBy)
	for !p.Done && p.Fault == "" && time.Since(began) < backfillPageTime {
		events, err := a.Store.EventsToApply(ctx, b.ID, p.Place, backfillChunk)
		if err != nil {
			return p, err
		}
		if p.Fault, err = a.consumeStaged(ctx, staged, &b, events); err != nil {
			return p, err // what was decided is noted, the rest is tried again
		}
		p.Seen += len(events)
		if p.Done = len(events) < backfillChunk; len(events) > 0 {
			last := &events[len(events)-1]
			p.Place = db.StagedPlace{Customer: last.Customer, At: last.ServiceAt, N: last.N}
		}
		activity.RecordHeartbeat(ctx, p)
	}
	return p, nil
}

// consumeStaged consumes events through the lanes and notes what has become of each that was decided. fault is the first refusal that is not allowed.
func (a *Activities) consumeStaged(ctx context.Context, r *stagedReader, b *db.BackfillRow, events []db.StagedEvent) (fault string, undecided error) {
	consumes, at, notes, err := r.operations(ctx, events)
	if err != nil {
		return "", err
	}
	ops := make([]balance.Operation, len(consumes))
	for i, o := range consumes {
		ops[i] = o
	}
	var replayed []db.OperationKey
	for i, res := range a.Service.DoAll(ctx, ops) {
		n := &notes[at[i]]
		var refused *credit.Error
		switch {
		case res.Err == nil && res.Answer.Quarantined:
			n.Outcome, n.Code, n.Detail = db.StagedRefused, credit.QuarantineState, inQuarantine
		case res.Err == nil:
			if err := a.said(n, res.Answer); err != nil {
				return "", err
			}
			if n.Outcome = db.StagedConsumed; res.Answer.Replayed {
				n.Outcome = db.StagedDuplicate
				replayed = append(replayed, db.OperationKey{Customer: consumes[i].Customer, Ver: n.Ver})
			}
		case errors.As(res.Err, &refused) && !again(refused):
			n.Outcome, n.Code, n.Detail = db.StagedRefused, refused.Code, refused.Detail
		default:
			undecided = res.Err
		}
	}
	if len(replayed) > 0 {
		own, err := a.Store.OperationsOfBackfill(ctx, b.ID, replayed)
		if err != nil {
			return "", err
		}
		for i := range notes {
			if notes[i].Outcome == db.StagedDuplicate && own[db.OperationKey{Customer: events[i].Customer, Ver: notes[i].Ver}] {
				notes[i].Outcome = db.StagedConsumed
			}
		}
	}
	var decided []db.StagedNote
	for i, n := range notes {
		switch {
		case n.Outcome == db.StagedRefused && !b.AllowPartial: // it is not noted: whoever comes after a crash shall find it again
			if fault == "" {
				fault = fmt.Sprintf("Event %s of %s was refused: %s", events[i].EventID, events[i].Source, n.Detail)
			}
		case n.Outcome != "":
			decided = append(decided, n)
		}
	}
	if err := a.Store.NoteResults(ctx, b.ID, decided); err != nil {
		return "", err
	}
	return fault, undecided
}

// TakeBackInput says why an application is taken back.
type TakeBackInput struct {
	BackfillRef
	Fault string `json:"fault"`
}

// TakeBackBackfill turns an application into its withdrawal.
func (a *Activities) TakeBackBackfill(ctx context.Context, in TakeBackInput) error {
	return a.Store.TakeBack(ctx, in.BackfillID, in.Fault)
}

// WithdrawBackfill gives back what was consumed, for some time, the last first: each by a correction of its own key.
func (a *Activities) WithdrawBackfill(ctx context.Context, in BackfillPageInput) (BackfillProgress, error) {
	began := time.Now()
	p, err := resumed(ctx, in.Progress)
	if err != nil {
		return p, err
	}
	b, err := a.Store.Backfill(ctx, in.BackfillID)
	if err != nil || b.Status != db.BackfillWithdrawing {
		p.Done = true
		return p, refusal(err)
	}
	for !p.Done && time.Since(began) < backfillPageTime {
		events, err := a.Store.EventsToWithdraw(ctx, b.ID, backfillChunk)
		if err != nil {
			return p, err
		}
		ops := make([]balance.Operation, len(events))
		for i, e := range events {
			key := fmt.Sprintf("backfill/%s/%d/withdraw", b.ID, e.N)
			ops[i] = &balance.Correct{Header: balance.Header{Customer: e.Customer, Key: key, Request: balance.RequestDigest(key), Actor: b.WithdrawnBy,
				RequestID: credit.RequestID(b.ID)}, Ver: e.Ver, All: true, Reason: b.Withdrawal}
		}
		var notes []db.StagedNote
		var undecided error
		for i, res := range a.Service.DoAll(ctx, ops) {
			n := db.StagedNote{N: events[i].N, Outcome: db.StagedWithdrawn}
			var refused *credit.Error
			if errors.As(res.Err, &refused) && !again(refused) {
				n.Outcome, n.Code, n.Detail = db.StagedKept, refused.Code, refused.Detail
			} else if res.Err != nil {
				undecided = res.Err
				continue
			}
			notes = append(notes, n)
		}
		if err := a.Store.NoteResults(ctx, b.ID, notes); err != nil {
			return p, err
		}
		if undecided != nil {
			return p, undecided
		}
		p.Seen, p.Done = p.Seen+len(events), len(events) < backfillChunk
		activity.RecordHeartbeat(ctx, p)
	}
	return p, nil
}

// EndBackfillInput says how an application or a withdrawal has ended.
type EndBackfillInput struct {
	BackfillRef
	Status string `json:"status"` // db.BackfillApplied or db.BackfillWithdrawn
}

// EndBackfill notes the end, and tells the outside. One that has ended stays as it ended.
func (a *Activities) EndBackfill(ctx context.Context, in EndBackfillInput) error {
	return a.Store.EndBackfill(ctx, in.BackfillID, in.Status)
}
