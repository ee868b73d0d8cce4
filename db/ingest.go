package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// QuarantinedEvent is a usage event on its way into quarantine: Row.ID, At, Tries and State are filled in, Row.Named is required. Row.Customer is zero, or one
// that may not exist: then the event waits under the name.
type QuarantinedEvent struct {
	Row     QuarantinedRow
	Request [16]byte // digest of what the event says
}

// EventAnswer is what the key of a usage event is answered.
type EventAnswer struct {
	Status   int    // 200: Body is the receipt of the operation that has charged it; 202: Body is its document; others: a refusal as it was kept
	Body     []byte // JSON
	Replayed bool   // it was answered before
	Mismatch bool   // the key is another event's; nothing else is set
}

// QuarantineEvents keeps usage events, in one transaction: each under its key, unless that was used before, and then the answer is the key's. An event that was
// in quarantine when its key was forgotten is still that one. document writes what the key is answered. The answers have the order of the events.
func (s *Store) QuarantineEvents(ctx context.Context, events []QuarantinedEvent, document func(QuarantinedRow) ([]byte, error)) ([]EventAnswer, error) {
	out := make([]EventAnswer, len(events))
	err := s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		now, err := q.ReadClock(ctx)
		if err != nil {
			return fmt.Errorf("read the clock: %w", err)
		}
		firsts, digests := firstOfEach(events)
		known, err := q.KnownQuarantined(ctx, digests)
		if err != nil {
			return fmt.Errorf("find events in quarantine: %w", err)
		}
		keeps := make(map[Digest]*keeping, len(firsts))
		for digest, i := range firsts {
			row := events[i].Row
			row.ID, row.At, row.Tries, row.State = credit.NewID[credit.QuarantineID](), fromTime(now), 1, QuarantinePending
			keeps[digest] = &keeping{row: row, request: events[i].Request, fresh: true}
		}
		for _, r := range known {
			keeps[r.Digest.Bytes] = &keeping{row: quarantinedRow(sqlc.FindQuarantinedRow{ID: r.ID, CustomerID: r.CustomerID, Named: r.Named, Key: r.Key, Actor: r.Actor,
				RequestID: r.RequestID, Body: r.Body, ServiceAt: r.ServiceAt, At: r.At, Code: r.Code, Detail: r.Detail, Tries: r.Tries, State: r.State, Ver: r.Ver,
				DecidedAt: r.DecidedAt, DecidedBy: r.DecidedBy, Reason: r.Reason}), request: keeps[r.Digest.Bytes].request}
		}
		taken, err := take(ctx, q, digests, keeps, document)
		if err != nil {
			return err
		}
		for _, digest := range taken {
			k := keeps[digest.Bytes]
			k.taken = true
			if k.fresh {
				err = q.AddQuarantinedEvent(ctx, sqlc.AddQuarantinedEventParams{ID: uuidOf(k.row.ID), CustomerID: uuidOf(k.row.Customer), Named: textOf(k.row.Named), Digest: digest,
					Key: k.row.Key, Actor: k.row.Actor, RequestID: pgtype.UUID{Bytes: k.row.RequestID, Valid: true}, Body: k.row.Body, ServiceAt: timeOf(k.row.ServiceAt),
					At: timeOf(k.row.At), Code: string(k.row.Code), Detail: k.row.Detail})
			} else if k.row.Ver != 0 {
				err = q.RestoreKey(ctx, sqlc.RestoreKeyParams{CustomerID: uuidOf(k.row.Customer), Status: 200, Ver: pgtype.Int8{Int64: k.row.Ver, Valid: true}, Digest: digest})
			}
			if err != nil {
				return fmt.Errorf("keep an event in quarantine: %w", err)
			}
		}
		stored, err := q.LockKeys(ctx, digests)
		if err != nil {
			return fmt.Errorf("read keys of events: %w", err)
		}
		answers := make(map[Digest]sqlc.LockKeysRow, len(stored))
		for _, k := range stored {
			answers[k.Digest.Bytes] = k
		}
		for i := range events {
			digest := keyDigest(events[i].Row.Key)
			k, ok := answers[digest]
			switch {
			case !ok: // a refusal that was forgotten this very moment
				return credit.Errorf(credit.NotExecuted, "Another attempt has just been forgotten; repeat the event.")
			case k.Request.Bytes != events[i].Request:
				out[i] = EventAnswer{Mismatch: true}
			default:
				first := keeps[digest].fresh && keeps[digest].taken && firsts[digest] == i
				out[i] = EventAnswer{Status: int(k.Status), Body: []byte(k.Answer), Replayed: !first}
			}
		}
		return nil
	})
	return out, wrap(err, "quarantine events")
}

// keeping is an event that is to be kept, or that was before: then fresh is false.
type keeping struct {
	row     QuarantinedRow
	request [16]byte
	fresh   bool
	taken   bool // its key was free
}

// firstOfEach returns where each key comes first, and the keys in the order in which they are locked.
func firstOfEach(events []QuarantinedEvent) (map[Digest]int, []pgtype.UUID) {
	firsts := make(map[Digest]int, len(events))
	var digests []pgtype.UUID
	for i := range events {
		digest := keyDigest(events[i].Row.Key)
		if _, ok := firsts[digest]; !ok {
			firsts[digest] = i
			digests = append(digests, pgtype.UUID{Bytes: digest, Valid: true})
		}
	}
	slices.SortFunc(digests, func(a, b pgtype.UUID) int { return bytes.Compare(a.Bytes[:], b.Bytes[:]) })
	return firsts, digests
}

// take inserts the keys that are free, and returns those.
func take(ctx context.Context, q *sqlc.Queries, digests []pgtype.UUID, keeps map[Digest]*keeping, document func(QuarantinedRow) ([]byte, error)) ([]pgtype.UUID, error) {
	p := sqlc.TakeEventKeysParams{Digests: digests}
	for _, digest := range digests {
		k := keeps[digest.Bytes]
		doc, err := document(k.row)
		if err != nil {
			return nil, err
		}
		p.Requests = append(p.Requests, pgtype.UUID{Bytes: k.request, Valid: true})
		p.Customers = append(p.Customers, uuidOf(k.row.Customer))
		p.Responses = append(p.Responses, string(doc))
	}
	taken, err := q.TakeEventKeys(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("take keys of events: %w", err)
	}
	return taken, nil
}

// AssignQuarantined gives quarantined usage the customer that it names, unless it has one. It is refused with customer_not_found when there is none.
func (s *Store) AssignQuarantined(ctx context.Context, row QuarantinedRow, customer credit.CustomerID) error {
	missing := false
	err := s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		n, err := q.AssignQuarantined(ctx, uuidOf(row.ID), uuidOf(customer))
		if err != nil {
			return err
		}
		if n == 0 {
			now, err := q.FindQuarantined(ctx, uuidOf(row.ID))
			missing = err == nil && !now.CustomerID.Valid && now.State == QuarantinePending
			return err
		}
		return q.AssignKey(ctx, uuidOf(customer), pgtype.UUID{Bytes: keyDigest(row.Key), Valid: true})
	})
	if err == nil && missing {
		return credit.Errorf(credit.CustomerNotFound, "There is no customer %.255q.", row.Named)
	}
	return wrap(err, "assign quarantined usage")
}

// NoteTry notes that quarantined usage was tried again in vain.
func (s *Store) NoteTry(ctx context.Context, id credit.QuarantineID, why *credit.Error) error {
	return s.Tx(ctx, func(tx pgx.Tx) error {
		return wrap(s.q.WithTx(tx).TryQuarantined(ctx, string(why.Code), why.Detail, uuidOf(id)), "note a try")
	})
}

// ChargedBefore looks whether a customer's quarantined event was charged before it came again, when its key had been forgotten: if so it is that
// operation's from now on.
func (s *Store) ChargedBefore(ctx context.Context, row QuarantinedRow, by int32) error {
	ver, err := s.q.OperationOfKey(ctx, uuidOf(row.Customer), row.Key)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return wrap(err, "look for the operation of an event")
	}
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		if _, err := q.LockQuarantined(ctx, uuidOf(row.ID)); err != nil {
			return err
		}
		now, err := q.FindQuarantined(ctx, uuidOf(row.ID))
		if err != nil || now.State != QuarantinePending {
			return err
		}
		at, err := q.ReadClock(ctx)
		if err != nil {
			return err
		}
		if err := q.ChargeQuarantined(ctx, sqlc.ChargeQuarantinedParams{Ver: ver, DecidedAt: at, DecidedBy: by, ID: uuidOf(row.ID)}); err != nil {
			return err
		}
		return q.AnswerKey(ctx, 200, ver, pgtype.UUID{Bytes: keyDigest(row.Key), Valid: true})
	})
	return wrap(err, "note that an event was charged before")
}
