package api

import (
	"context"
	"math"
	"strconv"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

type backfillDocument struct {
	ID           credit.BackfillID `json:"id"`
	Name         string            `json:"name"`
	Reason       string            `json:"reason"`
	Status       string            `json:"status"`
	Events       int               `json:"events"`       // staged
	PreviewHash  *string           `json:"preview_hash"` // null: there is no preview of all that is staged
	PreviewedAt  *string           `json:"previewed_at"`
	AllowPartial bool              `json:"allow_partial"`
	Fault        string            `json:"fault,omitempty"` // why its application was taken back
	CreatedAt    string            `json:"created_at"`
	CreatedBy    string            `json:"created_by"`
	AppliedAt    *string           `json:"applied_at"`
	AppliedBy    *string           `json:"applied_by"`
	WithdrawnAt  *string           `json:"withdrawn_at"`
	WithdrawnBy  *string           `json:"withdrawn_by"`
	Withdrawal   *string           `json:"withdrawal_reason"`
}

func describeBackfill(b db.BackfillRow) backfillDocument {
	d := backfillDocument{ID: b.ID, Name: b.Name, Reason: b.Reason, Status: b.Status, Events: b.Events, PreviewHash: orNull(b.PreviewHash),
		PreviewedAt: instantOrNull(b.PreviewedAt), AllowPartial: b.AllowPartial, Fault: b.Fault, CreatedAt: instantText(b.CreatedAt), CreatedBy: actorText(b.CreatedBy),
		AppliedAt: instantOrNull(b.AppliedAt), WithdrawnAt: instantOrNull(b.WithdrawnAt), Withdrawal: orNull(b.Withdrawal)}
	if b.AppliedBy != 0 {
		by := actorText(b.AppliedBy)
		d.AppliedBy = &by
	}
	if b.Withdrawal != "" {
		by := actorText(b.WithdrawnBy)
		d.WithdrawnBy = &by
	}
	return d
}

type backfillViewDocument struct {
	backfillDocument
	FirstServiceAt *string              `json:"first_service_at"`
	LastServiceAt  *string              `json:"last_service_at"`
	Preview        backfillPreviewed    `json:"preview"`
	Progress       backfillDone         `json:"progress"`
	Totals         []backfillTotal      `json:"totals"`
	Refusals       []backfillRefusal    `json:"refusals"`
	Periods        []backfillPeriod     `json:"periods"`
	DryWallets     []backfillDryWallets `json:"dry_wallets"`
}

type backfillPreviewed struct {
	Chargeable int `json:"chargeable"`
	Duplicates int `json:"duplicates"`
	Refused    int `json:"refused"`
}

type backfillDone struct {
	Consumed   int `json:"consumed"`   // and not given back
	Duplicates int `json:"duplicates"` // something else has consumed them since the preview
	Refused    int `json:"refused"`    // at last
	Withdrawn  int `json:"withdrawn"`  // what they consumed was given back
	Kept       int `json:"kept"`       // what they consumed could not be given back
}

type backfillTotal struct {
	CustomerID credit.CustomerID `json:"customer_id"`
	Customer   string            `json:"customer"` // as the events name it
	Unit       string            `json:"unit"`
	Model      *string           `json:"model"`
	Events     int               `json:"events"`
	Amount     string            `json:"amount"`
}

type backfillRefusal struct {
	Code   credit.Code `json:"code"`
	Detail string      `json:"detail"` // of one of them
	Events int         `json:"events"`
}

type backfillPeriod struct {
	LegalEntity string `json:"legal_entity"`
	Period      string `json:"period"`
	Status      string `json:"status"`
	Events      int    `json:"events"`
	Late        bool   `json:"late"` // it takes no entries: they are booked in the earliest later one that does
}

type backfillDryWallets struct {
	WalletID   credit.WalletID   `json:"wallet_id"`
	CustomerID credit.CustomerID `json:"customer_id"`
	Unit       string            `json:"unit"`
	Available  string            `json:"available"` // before; nothing afterwards
}

func viewBackfill(v *db.BackfillView) backfillViewDocument {
	d := backfillViewDocument{backfillDocument: describeBackfill(v.BackfillRow), FirstServiceAt: instantOrNull(v.First), LastServiceAt: instantOrNull(v.Last),
		Preview:  backfillPreviewed{v.Chargeable, v.Duplicates, v.Refused},
		Progress: backfillDone{v.Consumed, v.ConsumedElsewhere, v.RefusedAtLast, v.Withdrawn, v.Kept},
		Totals:   []backfillTotal{}, Refusals: []backfillRefusal{}, Periods: []backfillPeriod{}, DryWallets: []backfillDryWallets{}}
	for _, t := range v.Totals {
		d.Totals = append(d.Totals, backfillTotal{t.Customer, t.Named, t.Unit, orNull(t.Model), t.Events, t.Amount.Format(t.Scale)})
	}
	for _, r := range v.Refusals {
		d.Refusals = append(d.Refusals, backfillRefusal{r.Code, r.Detail, r.Events})
	}
	for _, p := range v.Periods {
		d.Periods = append(d.Periods, backfillPeriod{p.Entity, p.Period, p.Status, p.Events, p.Status == "closed" || p.Status == "in_review"})
	}
	for _, w := range v.Dry {
		d.DryWallets = append(d.DryWallets, backfillDryWallets{w.Wallet, w.Customer, w.Unit, w.Before.Format(w.Scale)})
	}
	return d
}

// maxBackfillName bounds the name of a backfill, in characters.
const maxBackfillName = 255

// createBackfill is POST /v1/backfills.
func (s *Server) createBackfill(ctx context.Context, c *call) error {
	b := db.BackfillRow{ID: credit.NewID[credit.BackfillID](), CreatedBy: c.caller.no}
	if err := c.input(required("name", text(&b.Name, maxBackfillName)), required("reason", text(&b.Reason, maxReason))); err != nil {
		return err
	}
	return c.change(ctx, "create_backfill", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		b, err := cat.AddBackfill(ctx, b)
		if err != nil {
			return db.Outcome{}, err
		}
		return created(b.ID.String(), describeBackfill(b), map[string]any{"name": b.Name, "reason": b.Reason})
	})
}

func (s *Server) pathBackfill(c *call) (credit.BackfillID, error) {
	return pathID(c, "backfill", credit.ParseID[credit.BackfillID])
}

// listBackfills is GET /v1/backfills.
func (s *Server) listBackfills(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, idCursor[credit.BackfillID])
	if err != nil {
		return err
	}
	rows, err := s.store.BackfillPage(ctx, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeBackfill, func(b db.BackfillRow) cursor { return afterID(b.ID) })
}

// getBackfill is GET /v1/backfills/{backfill}: what its preview says, and what has become of it.
func (s *Server) getBackfill(ctx context.Context, c *call) error {
	id, err := s.pathBackfill(c)
	if err != nil {
		return err
	}
	v, err := s.store.BackfillView(ctx, id)
	if err != nil {
		return err
	}
	return c.document(viewBackfill(&v))
}

// stage is POST /v1/backfills/{backfill}/events: events in the forms of POST /v1/events, of which none is consumed.
func (s *Server) stage(ctx context.Context, c *call) error {
	media, f, receipts, err := c.eventsFormat()
	if err != nil {
		return err
	}
	if receipts {
		return credit.Invalid("receipts", "What is staged has no receipts.")
	}
	id, err := s.pathBackfill(c)
	if err != nil {
		return err
	}
	if _, err := s.store.Backfill(ctx, id); err != nil {
		return err
	}
	return s.answerEvents(ctx, media, &answering{s: s, c: c, format: f, backfill: id})
}

// stageEvents keeps events that were read in a backfill, without consuming anything.
func (s *Server) stageEvents(ctx context.Context, id credit.BackfillID, events []usageEvent) []balance.Result {
	out := make([]balance.Result, len(events))
	var staged []db.StagedEvent
	var at []int
	missing := make(map[string]bool) // customers, so that each is looked for once
	for i := range events {
		u := &events[i].in
		if out[i].Err = events[i].err; out[i].Err != nil || events[i].ignored != "" {
			continue
		}
		request, err := u.eventDigest()
		if err != nil {
			out[i].Err = err
			continue
		}
		e := db.StagedEvent{Request: request, Source: u.source, EventID: u.id, Key: balance.EventKey(u.source, u.id), Named: u.customer, ServiceAt: u.timestamp,
			Body: u.document(), Model: u.dims["model"]}
		if e.Model == "" && u.response != nil {
			e.Model = u.response.Model
		}
		if !missing[u.customer] {
			e.Customer, err = s.customerID(ctx, u.customer)
			switch missing[u.customer] = credit.CodeOf(err) == credit.CustomerNotFound; {
			case missing[u.customer]: // it may come to be until the preview
				e.Customer = credit.CustomerID{}
			case err != nil:
				out[i].Err = in("/customer", err)
				continue
			}
		}
		staged, at = append(staged, e), append(at, i)
	}
	if len(staged) == 0 {
		return out
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	answers, err := s.store.StageEvents(ctx, id, staged)
	for n, i := range at {
		switch {
		case err != nil:
			out[i].Err = err
		case answers[n].Mismatch:
			out[i].Err = credit.Errorf(credit.RequestMismatch, "Another event with this source and id is staged.")
		default:
			out[i].Answer.Replayed = answers[n].Duplicate
		}
	}
	return out
}

type stagedDocument struct {
	Source     string             `json:"source"`
	ID         string             `json:"id"`
	Customer   string             `json:"customer"`
	CustomerID *credit.CustomerID `json:"customer_id"` // null: nobody had the name
	Time       string             `json:"time"`
	Outcome    string             `json:"outcome"`
	Code       *string            `json:"code"` // why it is refused, or why what it consumed could not be given back
	Detail     *string            `json:"detail"`
	Operation  *string            `json:"operation"` // that has consumed it
}

var stagedOutcomes = []string{outcomeStaged, db.StagedChargeable, db.StagedDuplicate, db.StagedRefused, db.StagedConsumed, db.StagedWithdrawn, db.StagedKept}

// listStaged is GET /v1/backfills/{backfill}/events, in the order of staging.
func (s *Server) listStaged(ctx context.Context, c *call) error {
	q, limit, after, err := listing(c, query.numberCursor, "outcome")
	if err != nil {
		return err
	}
	outcome, err := q.oneOf("outcome", stagedOutcomes...)
	if err != nil {
		return err
	}
	id, err := s.pathBackfill(c)
	if err != nil {
		return err
	}
	if _, err := s.store.Backfill(ctx, id); err != nil {
		return err
	}
	if after > math.MaxInt32 {
		return errCursor
	}
	rows, err := s.store.StagedPage(ctx, id, outcome, int(after), limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeStaged, func(e db.StagedEvent) cursor { return afterNumber(int64(e.N)) })
}

func describeStaged(e db.StagedEvent) stagedDocument {
	d := stagedDocument{Source: e.Source, ID: e.EventID, Customer: e.Named, Time: instantText(e.ServiceAt), Outcome: outcomeStaged, Code: orNull(e.Code),
		Detail: orNull(e.Detail)}
	if e.Result != "" {
		d.Outcome = e.Result
	} else if e.Preview != "" {
		d.Outcome = e.Preview
	}
	if !e.Customer.IsZero() {
		d.CustomerID = &e.Customer
	}
	if e.Ver != 0 {
		name := e.Customer.String() + "/" + strconv.FormatInt(e.Ver, 10)
		d.Operation = &name
	}
	return d
}

// previewBackfill is POST /v1/backfills/{backfill}/preview: it is made in the background.
func (s *Server) previewBackfill(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	return s.changeBackfill(ctx, c, "preview_backfill", nil, func(ctx context.Context, cat *db.Catalog, id credit.BackfillID) (db.BackfillRow, error) {
		return cat.PreviewBackfill(ctx, id)
	})
}

// applyBackfill is POST /v1/backfills/{backfill}/apply: it is done in the background.
func (s *Server) applyBackfill(ctx context.Context, c *call) error {
	var hash string
	var partial bool
	if err := c.input(required("preview_hash", text(&hash, 64)), optional("allow_partial", boolean(&partial))); err != nil {
		return err
	}
	detail := map[string]any{"preview_hash": hash, "allow_partial": partial}
	return s.changeBackfill(ctx, c, "apply_backfill", detail, func(ctx context.Context, cat *db.Catalog, id credit.BackfillID) (db.BackfillRow, error) {
		return cat.ApplyBackfill(ctx, id, hash, partial, c.caller.no)
	})
}

// withdrawBackfill is POST /v1/backfills/{backfill}/withdraw: what was consumed is given back in the background.
func (s *Server) withdrawBackfill(ctx context.Context, c *call) error {
	var reason string
	if err := c.input(required("reason", text(&reason, maxReason))); err != nil {
		return err
	}
	return s.changeBackfill(ctx, c, "withdraw_backfill", map[string]any{"reason": reason},
		func(ctx context.Context, cat *db.Catalog, id credit.BackfillID) (db.BackfillRow, error) {
			return cat.WithdrawBackfill(ctx, id, reason, c.caller.no)
		})
}

func (s *Server) changeBackfill(ctx context.Context, c *call, action string, detail any,
	do func(context.Context, *db.Catalog, credit.BackfillID) (db.BackfillRow, error)) error {
	id, err := s.pathBackfill(c)
	if err != nil {
		return err
	}
	return c.change(ctx, action, id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		b, err := do(ctx, cat, id)
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(id.String(), describeBackfill(b), detail)
	})
}
