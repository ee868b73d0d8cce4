package db

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

type (
	// APIKeyRow is an API key; the key itself is not kept.
	APIKeyRow struct {
		No         int32
		Hint, Name string
		Role       string
		CreatedAt  time.Time
		RevokedAt  time.Time // zero: in force
	}
	// NotificationRow is something that a customer or the team should know. Data is a JSON object.
	NotificationRow struct {
		ID            int64
		Type, Subject string
		Customer      credit.CustomerID // zero: about no customer
		Data          []byte
		CreatedAt     time.Time
	}
)

// APIKey returns the key with this SHA-256, revoked or not, or an Error coded unauthenticated.
func (s *Store) APIKey(ctx context.Context, digest [32]byte) (APIKeyRow, error) {
	k, err := s.q.FindAPIKey(ctx, digest[:])
	return APIKeyRow{No: k.No, Name: k.Name, Role: k.Role, RevokedAt: fromTime(k.RevokedAt)},
		found(err, credit.Errorf(credit.Unauthenticated, "The API key is not known."), "read API key")
}

// APIKeyPage returns up to n keys below a number, newest first.
func (s *Store) APIKeyPage(ctx context.Context, before int64, n int) ([]APIKeyRow, error) {
	rows, err := s.q.PageAPIKeys(ctx, int32(min(belowNumber(before), 1<<31-1)), int32(n))
	return page(rows, err, "read API keys", func(k sqlc.PageAPIKeysRow) APIKeyRow { return apiKeyRow(sqlc.RevokeAPIKeyRow(k)) })
}

func apiKeyRow(k sqlc.RevokeAPIKeyRow) APIKeyRow {
	return APIKeyRow{No: k.No, Hint: k.Hint, Name: k.Name, Role: k.Role, CreatedAt: fromTime(k.CreatedAt), RevokedAt: fromTime(k.RevokedAt)}
}

// NotificationPage returns up to n notifications below an id, newest first, of one customer or, when that is zero, all.
func (s *Store) NotificationPage(ctx context.Context, customer credit.CustomerID, before int64, n int) ([]NotificationRow, error) {
	rows, err := s.q.PageNotifications(ctx, uuidOf(customer), belowNumber(before), int32(n))
	return page(rows, err, "read notifications", func(r sqlc.PageNotificationsRow) NotificationRow { return notificationRow(sqlc.NotifyRow(r)) })
}

func notificationRow(r sqlc.NotifyRow) NotificationRow {
	return NotificationRow{ID: r.ID, Type: r.Type, Subject: r.Subject, Customer: r.CustomerID.Bytes, Data: r.Data, CreatedAt: fromTime(r.CreatedAt)}
}

// notify records a notification, once for its cause, and the event that says so.
func notify(ctx context.Context, q *sqlc.Queries, p sqlc.NotifyParams) error {
	row, err := q.Notify(ctx, p)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("record notification %s: %w", p.Type, err)
	}
	return addNotificationEvent(ctx, q, notificationRow(row))
}

// Audited says who makes a change that is no operation of a customer, and under which idempotency key.
type Audited struct {
	Key       string // idempotency key, in the form that operations have it; empty: the change is not remembered, only audited
	Request   Digest // of what was asked
	Actor     int32
	RequestID credit.RequestID // zero: one is made
	Action    string
}

// Outcome is what a change came to.
type Outcome struct {
	Status  int
	Answer  []byte
	Kept    []byte // what a repetition is answered with; nil: Answer
	Subject string // what was changed, for the audit
	Detail  any    // further facts for the audit, a JSON object; nil: none
}

// Change makes a change once for each idempotency key: do, its audit row and its answer are one transaction. A repetition is answered
// with what the first got; the key of another request is refused with an Error coded request_mismatch. What do refuses leaves
// nothing behind, so that the same key may be tried again.
func (s *Store) Change(ctx context.Context, a Audited, do func(context.Context, *Catalog) (Outcome, error)) (o Outcome, replayed bool, err error) {
	detail := []byte("{}")
	digest := keyDigest(a.Key)
	if a.RequestID.IsZero() {
		a.RequestID = credit.NewID[credit.RequestID]()
	}
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		if a.Key != "" {
			if err := q.LockKey(ctx, int64(binary.BigEndian.Uint64(digest[:8]))); err != nil {
				return fmt.Errorf("lock idempotency key: %w", err)
			}
			if o, replayed, err = findKey(ctx, q, a, digest); err != nil || replayed {
				return err
			}
		}
		c := &Catalog{q: q, documents: &s.documents}
		if o, err = do(ctx, c); err != nil {
			return err
		}
		if o.Detail != nil {
			if detail, err = json.Marshal(o.Detail); err != nil {
				return fmt.Errorf("write audit detail: %w", err)
			}
		}
		if err := q.AddAudit(ctx, sqlc.AddAuditParams{Actor: a.Actor, RequestID: uuidOf(a.RequestID), Action: a.Action, Subject: o.Subject, Detail: detail}); err != nil {
			return fmt.Errorf("add audit row: %w", err)
		}
		if a.Key == "" {
			return c.writeEvents(ctx)
		}
		kept := o.Kept
		if kept == nil {
			kept = o.Answer
		}
		if err := q.AddKey(ctx, sqlc.AddKeyParams{Digest: pgtype.UUID{Bytes: digest, Valid: true}, Request: pgtype.UUID{Bytes: a.Request, Valid: true},
			Status: int16(o.Status), Response: string(kept)}); err != nil {
			return err
		}
		return c.writeEvents(ctx)
	})
	if pg, ok := asPgError(err); ok && pg.ConstraintName == "key_once" { // an operation took the key meanwhile
		return Outcome{}, false, errKeyTaken
	}
	return o, replayed, refusal(err)
}

var errKeyTaken = credit.Errorf(credit.RequestMismatch, "The idempotency key was used for another request.")

func keyDigest(key string) Digest {
	sum := sha256.Sum256([]byte(key))
	return Digest(sum[:16])
}

func findKey(ctx context.Context, q *sqlc.Queries, a Audited, digest Digest) (Outcome, bool, error) {
	k, err := q.FindKey(ctx, pgtype.UUID{Bytes: digest, Valid: true})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Outcome{}, false, nil
	case err != nil:
		return Outcome{}, false, fmt.Errorf("find idempotency key: %w", err)
	case k.Request.Bytes != a.Request:
		return Outcome{}, false, errKeyTaken
	}
	return Outcome{Status: int(k.Status), Answer: []byte(k.Answer)}, true, nil
}

// Catalog changes reference data, customers, members, keys and webhook endpoints within [Store.Change].
type Catalog struct {
	q         *sqlc.Queries
	documents *documents // the store's
	events    []EventRow // written last, after the key: so does a lane, and the two never wait for each other
}

// AddUnit makes a kind of credit. A code that is taken is refused with already_exists, here and below.
func (c *Catalog) AddUnit(ctx context.Context, u credit.Unit) (UnitRow, error) {
	row, err := c.q.AddUnit(ctx, u.Code, int16(u.Scale), u.Name)
	return unitRow(row), wrap(err, "add unit")
}

// AddEntity makes a legal entity.
func (c *Catalog) AddEntity(ctx context.Context, e EntityRow) (EntityRow, error) {
	row, err := c.q.AddEntity(ctx, sqlc.AddEntityParams{Code: e.Code, Name: e.Name, Currency: e.Currency, TimeZone: e.TimeZone})
	return entityRow(row), wrap(err, "add legal entity")
}

// AddRateCard makes a rate card without a version. A default one takes the place of the default before it. A unit that does not exist is
// refused with unit_not_found.
func (c *Catalog) AddRateCard(ctx context.Context, card RateCardRow) (RateCardRow, error) {
	if card.Default {
		if err := c.q.ClearDefaultRateCard(ctx); err != nil {
			return RateCardRow{}, fmt.Errorf("clear default rate card: %w", err)
		}
	}
	created, err := c.q.AddRateCard(ctx, sqlc.AddRateCardParams{ID: uuidOf(card.ID), Code: card.Code, Unit: card.Unit, IsDefault: card.Default})
	if err != nil {
		return RateCardRow{}, wrap(err, "add rate card")
	}
	card.CreatedAt = fromTime(created)
	return card, wrap(c.q.BumpConfiguration(ctx), "bump configuration")
}

// Lead is how long after its publication a version comes into force that is to do so at once, unless it is a card's first: a batch that
// began before the publication was committed has been judged by then, and every later one sees it. So no event is priced by the version
// before at an instant at which this one was in force.
const Lead = time.Second

// PublishRateCard adds the next version of a card. A zero EffectiveAt is as soon as can be: see [Lead]. A document with faults, or one that extends
// what it cannot, is refused with their pointers into it.
func (c *Catalog) PublishRateCard(ctx context.Context, id credit.RateCardID, v RateCardVersionRow) (RateCardVersionRow, error) {
	if _, err := c.q.LockRateCard(ctx, uuidOf(id)); err != nil {
		return v, found(err, credit.Errorf(credit.RateCardNotFound, "There is no such rate card."), "lock rate card")
	}
	doc, err := rating.Parse(v.Document)
	if err != nil {
		return v, err
	}
	if doc.Extends.Card != "" {
		if err := c.checkExtends(ctx, id, doc); err != nil {
			return v, err
		}
	}
	row, err := c.q.AddRateCardVersion(ctx, sqlc.AddRateCardVersionParams{CardID: uuidOf(id), EffectiveAt: timeOf(v.EffectiveAt), Document: v.Document, PublishedBy: v.PublishedBy,
		LeadSeconds: Lead.Seconds()})
	if err != nil {
		return v, wrap(err, "add rate card version")
	}
	v.Version, v.EffectiveAt, v.PublishedAt = int(row.Version), fromTime(row.EffectiveAt), fromTime(row.PublishedAt)
	return v, wrap(c.q.BumpConfiguration(ctx), "bump configuration")
}

// checkExtends refuses a document that extends what it cannot. Nobody else publishes until this transaction is over.
func (c *Catalog) checkExtends(ctx context.Context, id credit.RateCardID, doc *rating.Document) error {
	if err := c.q.LockConfiguration(ctx); err != nil {
		return wrap(err, "lock configuration")
	}
	cards, err := c.documents.readCards(ctx, c.q)
	if err != nil {
		return wrap(err, "read rate cards")
	}
	book, err := rating.NewBook(0, cards)
	if err != nil {
		return fmt.Errorf("compile the rate cards: %w", err)
	}
	return book.CheckPublish(id, doc)
}

// AddCustomer makes a customer and the head of its history.
func (c *Catalog) AddCustomer(ctx context.Context, r CustomerRow) (CustomerRow, error) {
	metadata := []byte("{}")
	if len(r.Metadata) > 0 {
		var err error
		if metadata, err = json.Marshal(r.Metadata); err != nil {
			return r, fmt.Errorf("write metadata: %w", err)
		}
	}
	created, err := c.q.AddCustomer(ctx, sqlc.AddCustomerParams{ID: uuidOf(r.ID), Entity: r.Entity, ExternalID: textOf(r.ExternalID), Name: r.Name,
		RateCardID: uuidOf(r.RateCard), Metadata: metadata})
	if err != nil {
		return r, wrap(err, "add customer")
	}
	r.CreatedAt = fromTime(created)
	return r, wrap(c.q.AddCustomerHead(ctx, uuidOf(r.ID)), "add customer head")
}

// AddMember makes a member of a customer.
func (c *Catalog) AddMember(ctx context.Context, m MemberRow) (MemberRow, error) {
	created, err := c.q.AddMember(ctx, sqlc.AddMemberParams{ID: uuidOf(m.ID), CustomerID: uuidOf(m.Customer), ExternalID: textOf(m.ExternalID), Name: m.Name})
	m.CreatedAt, m.MemberTerms = fromTime(created), MemberTerms{Active: true}
	return m, wrap(err, "add member")
}

// AddAPIKey keeps the SHA-256 of a new key.
func (c *Catalog) AddAPIKey(ctx context.Context, k APIKeyRow, digest [32]byte) (APIKeyRow, error) {
	row, err := c.q.AddAPIKey(ctx, sqlc.AddAPIKeyParams{Digest: digest[:], Hint: k.Hint, Name: k.Name, Role: k.Role})
	k.No, k.CreatedAt = row.No, fromTime(row.CreatedAt)
	return k, wrap(err, "add API key")
}

// RevokeAPIKey ends a key. There may be none: an Error coded not_found.
func (c *Catalog) RevokeAPIKey(ctx context.Context, no int32) (APIKeyRow, error) {
	row, err := c.q.RevokeAPIKey(ctx, no)
	return apiKeyRow(row), found(err, credit.Errorf(credit.NotFound, "There is no such API key."), "revoke API key")
}

// wrap turns the breach of a rule into its refusal, and says what was being done of any other error.
func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, refusal(err))
}
