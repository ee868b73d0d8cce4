package api

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/ratecard"
)

type draftDocument struct {
	ID         credit.DraftID    `json:"id"`
	RateCardID credit.RateCardID `json:"rate_card_id"`
	Revision   int               `json:"revision"` // counts replacements, from 1
	Note       string            `json:"note"`
	CreatedAt  string            `json:"created_at"`
	UpdatedAt  string            `json:"updated_at"`
	UpdatedBy  string            `json:"updated_by"`
	Document   json.RawMessage   `json:"document"` // as it was written; it may have faults
}

func describeDraft(d db.DraftRow) draftDocument {
	return draftDocument{d.ID, d.Card, d.Revision, d.Note, instantText(d.CreatedAt), instantText(d.UpdatedAt), d.UpdatedBy, d.Document}
}

// rawObject reads an object without looking at what is in it.
func rawObject(into *[]byte) func(*reader) error {
	return func(r *reader) error {
		if r.peek() != '{' {
			return r.wrongType("an object")
		}
		from := r.i
		if err := r.skip(); err != nil {
			return err
		}
		*into = []byte(r.doc[from:r.i])
		return nil
	}
}

// draftInput reads the body of a draft.
func (c *call) draftInput(d *db.DraftRow) error {
	d.UpdatedBy = actorText(c.caller.no)
	return c.input(required("document", rawObject(&d.Document)), optional("note", text(&d.Note, maxReason)))
}

// pathDraft finds the rate card in the path, and reads the id of the draft there.
func (s *Server) pathDraft(ctx context.Context, c *call) (db.RateCardRow, credit.DraftID, error) {
	id, err := pathID(c, "draft", credit.ParseID[credit.DraftID])
	if err != nil {
		return db.RateCardRow{}, id, err
	}
	card, err := s.pathCard(ctx, c)
	return card, id, err
}

// createDraft is POST /v1/rate_cards/{rate_card}/drafts.
func (s *Server) createDraft(ctx context.Context, c *call) error {
	d := db.DraftRow{ID: credit.NewID[credit.DraftID]()}
	if err := c.draftInput(&d); err != nil {
		return err
	}
	card, err := s.pathCard(ctx, c)
	if err != nil {
		return err
	}
	d.Card = card.ID
	return c.change(ctx, "create_draft", card.ID.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		d, err := cat.AddDraft(ctx, d)
		if err != nil {
			return db.Outcome{}, err
		}
		return created(d.ID.String(), describeDraft(d), map[string]any{"rate_card_id": card.ID})
	})
}

// listDrafts is GET /v1/rate_cards/{rate_card}/drafts.
func (s *Server) listDrafts(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, idCursor[credit.DraftID])
	if err != nil {
		return err
	}
	card, err := s.pathCard(ctx, c)
	if err != nil {
		return err
	}
	rows, err := s.store.DraftPage(ctx, card.ID, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeDraft, func(d db.DraftRow) cursor { return afterID(d.ID) })
}

// getDraft is GET /v1/rate_cards/{rate_card}/drafts/{draft}.
func (s *Server) getDraft(ctx context.Context, c *call) error {
	card, id, err := s.pathDraft(ctx, c)
	if err != nil {
		return err
	}
	d, err := s.store.Draft(ctx, card.ID, id)
	if err != nil {
		return err
	}
	return c.document(describeDraft(d))
}

// replaceDraft is PUT /v1/rate_cards/{rate_card}/drafts/{draft}.
func (s *Server) replaceDraft(ctx context.Context, c *call) error {
	var d db.DraftRow
	if err := c.draftInput(&d); err != nil {
		return err
	}
	card, id, err := s.pathDraft(ctx, c)
	if err != nil {
		return err
	}
	d.ID, d.Card = id, card.ID
	return c.change(ctx, "replace_draft", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		d, err := cat.ReplaceDraft(ctx, d)
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(id.String(), describeDraft(d), map[string]any{"rate_card_id": card.ID, "revision": d.Revision})
	})
}

// deleteDraft is DELETE /v1/rate_cards/{rate_card}/drafts/{draft}.
func (s *Server) deleteDraft(ctx context.Context, c *call) error {
	card, id, err := s.pathDraft(ctx, c)
	if err != nil {
		return err
	}
	return c.change(ctx, "delete_draft", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		d, err := cat.DeleteDraft(ctx, card.ID, id)
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(id.String(), describeDraft(d), map[string]any{"rate_card_id": card.ID})
	})
}

type checkDocument struct {
	Valid  bool           `json:"valid"`
	Faults []credit.Issue `json:"faults"`
}

// checkDraft is GET /v1/rate_cards/{rate_card}/drafts/{draft}/check: everything that publishing it would be refused for.
func (s *Server) checkDraft(ctx context.Context, c *call) error {
	card, id, err := s.pathDraft(ctx, c)
	if err != nil {
		return err
	}
	d, err := s.store.Draft(ctx, card.ID, id)
	if err != nil {
		return err
	}
	doc := checkDocument{Faults: []credit.Issue{}}
	parsed, err := rating.Parse(d.Document)
	if err == nil && parsed.Extends.Card != "" {
		if err := s.service.ReloadBook(ctx); err != nil { // the other card may have been made just now
			return err
		}
		err = s.service.Books().CheckPublish(card.ID, parsed)
	}
	var e *credit.Error
	switch {
	case err == nil:
		doc.Valid = true
	case errors.As(err, &e):
		doc.Faults = e.Issues
	default:
		return err
	}
	return c.document(doc)
}

// publishDraft is POST /v1/rate_cards/{rate_card}/drafts/{draft}/publish: the draft becomes the next version, and is no draft any more.
func (s *Server) publishDraft(ctx context.Context, c *call) error {
	v := db.RateCardVersionRow{PublishedBy: actorText(c.caller.no)}
	revision := 0
	if err := c.input(optional("effective_at", instant(&v.EffectiveAt)), optional("revision", integer(&revision, 1, 1<<31-1))); err != nil {
		return err
	}
	card, id, err := s.pathDraft(ctx, c)
	if err != nil {
		return err
	}
	return c.change(ctx, "publish_rate_card", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		d, err := cat.LockDraft(ctx, card.ID, id)
		if err != nil {
			return db.Outcome{}, err
		}
		if revision != 0 && revision != d.Revision {
			return db.Outcome{}, credit.Errorf(credit.DraftChanged, "The draft is at revision %d, not %d.", d.Revision, revision).With("revision", d.Revision)
		}
		v.Document = d.Document
		v, err := cat.PublishRateCard(ctx, card.ID, v)
		if err != nil {
			return db.Outcome{}, below("/document", err)
		}
		if _, err := cat.DeleteDraft(ctx, card.ID, id); err != nil {
			return db.Outcome{}, err
		}
		return created(card.ID.String()+"/"+strconv.Itoa(v.Version), describeVersion(card.ID, v),
			map[string]any{"version": v.Version, "effective_at": instantText(v.EffectiveAt), "draft_id": id})
	})
}

// withdrawRateCard is POST /v1/rate_cards/{rate_card}/versions/{version}/withdraw: a version that is not in force yet never will be.
func (s *Server) withdrawRateCard(ctx context.Context, c *call) error {
	var reason string
	if err := c.input(required("reason", text(&reason, maxReason))); err != nil {
		return err
	}
	card, number, err := s.pathVersion(ctx, c)
	if err != nil {
		return err
	}
	subject := card.ID.String() + "/" + strconv.Itoa(number)
	return c.change(ctx, "withdraw_rate_card", subject, func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		v, err := cat.WithdrawRateCard(ctx, card.ID, number, balance.MaxAhead, actorText(c.caller.no), reason)
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(subject, describeVersion(card.ID, v), map[string]any{"version": number, "reason": reason})
	})
}

type diffDocument struct {
	RateCardID credit.RateCardID `json:"rate_card_id"`
	From       int               `json:"from"` // version; 0: nothing
	To         int               `json:"to,omitempty"`
	DraftID    *credit.DraftID   `json:"draft_id,omitempty"`
	Revision   int               `json:"revision,omitempty"` // of the draft
	Changes    []ratecard.Change `json:"changes"`
}

// diffRateCard is GET /v1/rate_cards/{rate_card}/diff: what changes from a version (the newest, when none is named) to another or to a draft.
func (s *Server) diffRateCard(ctx context.Context, c *call) error {
	q, err := c.query("from", "to", "draft")
	if err != nil {
		return err
	}
	from, err := queryID(q, "from", parseVersion)
	if err != nil {
		return err
	}
	to, err := queryID(q, "to", parseVersion)
	if err != nil {
		return err
	}
	draft, err := queryID(q, "draft", credit.ParseID[credit.DraftID])
	if err != nil {
		return err
	}
	if (to == 0) == draft.IsZero() {
		return credit.Invalid("to", "Name either a version or a draft to compare with.")
	}
	card, err := s.pathCard(ctx, c)
	if err != nil {
		return err
	}
	doc := diffDocument{RateCardID: card.ID, From: from, To: to, Changes: []ratecard.Change{}}
	if from == 0 {
		doc.From = card.Latest
	}
	before := []byte("{}")
	if doc.From != 0 {
		v, err := s.store.RateCardVersion(ctx, card.ID, doc.From)
		if err != nil {
			return err
		}
		before = v.Document
	}
	var after []byte
	if to != 0 {
		v, err := s.store.RateCardVersion(ctx, card.ID, to)
		if err != nil {
			return err
		}
		after = v.Document
	} else {
		d, err := s.store.Draft(ctx, card.ID, draft)
		if err != nil {
			return err
		}
		after, doc.DraftID, doc.Revision = d.Document, &d.ID, d.Revision
	}
	changes, err := ratecard.Diff(before, after)
	if err != nil {
		return err
	}
	doc.Changes = append(doc.Changes, changes...)
	return c.document(doc)
}

type assignmentDocument struct {
	ID         credit.AssignmentID `json:"id"`
	CustomerID credit.CustomerID   `json:"customer_id"`
	RateCardID credit.RateCardID   `json:"rate_card_id"`
	ValidFrom  string              `json:"valid_from"`
	ValidTo    *string             `json:"valid_to"` // null: until further notice
	AssignedAt string              `json:"assigned_at"`
	AssignedBy string              `json:"assigned_by"`
	Reason     string              `json:"reason"`
}

func describeAssignment(a db.AssignmentRow) assignmentDocument {
	return assignmentDocument{a.ID, a.Customer, a.Card, instantText(a.From), instantOrNull(a.To), instantText(a.At), actorText(a.By), a.Reason}
}

// assignCard is POST /v1/customers/{customer}/rate_card_assignments.
func (s *Server) assignCard(ctx context.Context, c *call) error {
	op := &balance.AssignCard{Assignment: credit.NewID[credit.AssignmentID]()}
	var card string
	if err := c.input(
		required("rate_card", text(&card, 64)),
		required("reason", text(&op.Reason, maxReason)),
		optional("valid_from", instant(&op.From)),
		optional("valid_to", instant(&op.To)),
	); err != nil {
		return err
	}
	customer, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	if op.Card, err = s.rateCardID(ctx, card); err != nil {
		return err
	}
	if op.Header, err = c.operation(customer, ""); err != nil {
		return err
	}
	return c.do(ctx, 201, op)
}

// endAssignment is POST /v1/customers/{customer}/rate_card_assignments/{assignment}/end.
func (s *Server) endAssignment(ctx context.Context, c *call) error {
	op := &balance.EndAssignment{}
	if err := c.input(required("reason", text(&op.Reason, maxReason)), optional("valid_to", instant(&op.To))); err != nil {
		return err
	}
	customer, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	if op.Assignment, err = pathID(c, "assignment", credit.ParseID[credit.AssignmentID]); err != nil {
		return err
	}
	if op.Header, err = c.operation(customer, op.Assignment.String()); err != nil {
		return err
	}
	return c.do(ctx, 200, op)
}

// listAssignments is GET /v1/customers/{customer}/rate_card_assignments.
func (s *Server) listAssignments(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, idCursor[credit.AssignmentID])
	if err != nil {
		return err
	}
	customer, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	if _, err := s.store.Customer(ctx, customer); err != nil {
		return err
	}
	rows, err := s.store.AssignmentPage(ctx, customer, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeAssignment, func(a db.AssignmentRow) cursor { return afterID(a.ID) })
}

// quote is POST /v1/quote: what a consumption would cost and who would pay.
func (s *Server) quote(ctx context.Context, c *call) error {
	var r reader
	in := consumption{quoted: true}
	if err := in.readBody(c, &r); err != nil {
		return err
	}
	op, err := s.consumeOperation(ctx, c, &r, &in, "")
	if err != nil {
		return err
	}
	op.Header, op.Keep = balance.Header{Customer: op.Customer, Actor: c.caller.no, RequestID: c.id}, nil
	return c.do(ctx, 200, &balance.Quote{Consume: *op, Maximum: in.maximum})
}

// changed is the outcome of a change that made nothing new.
func changed(subject string, v, detail any) (db.Outcome, error) {
	o, err := created(subject, v, detail)
	o.Status = 200
	return o, err
}

// parseVersion reads the number of a version.
func parseVersion(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 1 {
		return 0, credit.Errorf(credit.InvalidID, "%.40q is not the number of a version.", s)
	}
	return int(n), nil
}

// pathVersion finds the rate card in the path, and reads the number of the version there.
func (s *Server) pathVersion(ctx context.Context, c *call) (db.RateCardRow, int, error) {
	number, err := pathID(c, "version", parseVersion)
	if err != nil {
		return db.RateCardRow{}, 0, err
	}
	card, err := s.pathCard(ctx, c)
	return card, number, err
}

// lately is how long ago an event can have been, of which the exchange rates are in memory.
const lately = balance.MaxAge - time.Hour
