package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// OutboxItem is one thing that a committed change asks of the outside.
type OutboxItem struct {
	ID       int64
	Subject  string // the id of what it is about, as text
	Payload  []byte // a JSON object
	MadeAt   time.Time
	Attempts int // failures so far
}

// Performed says what became of outbox items, by their ID: done ones are deleted, failed ones are put off, for longer each time and 5
// minutes at most. Items in neither stay as they are.
type Performed struct{ Done, Failed []int64 }

// PerformOutbox gives perform the oldest due items of a topic, n at most, and books what became of them. It returns how many there
// were; perform is not called for none. The items are locked meanwhile, so other processes get the next ones; when this process dies they
// are free again, so an item may be performed twice. The end of ctx reaches perform alone: what it did by then is booked.
func (s *Store) PerformOutbox(ctx context.Context, topic string, n int, perform func(context.Context, []OutboxItem) Performed) (int, error) {
	var items []OutboxItem
	err := s.Tx(context.WithoutCancel(ctx), func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		rows, err := q.TakeOutbox(ctx, topic, int32(n))
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, r := range rows {
			items = append(items, OutboxItem{ID: r.ID, Subject: r.Subject, Payload: r.Payload, MadeAt: fromTime(r.CreatedAt), Attempts: int(r.Attempts)})
		}
		p := perform(ctx, items)
		ctx := context.WithoutCancel(ctx)
		if len(p.Done) > 0 {
			if err := q.DeleteOutbox(ctx, p.Done); err != nil {
				return err
			}
		}
		if len(p.Failed) > 0 {
			return q.DelayOutbox(ctx, p.Failed)
		}
		return nil
	})
	if err != nil {
		return len(items), fmt.Errorf("perform the outbox's %s: %w", topic, err)
	}
	return len(items), nil
}

// Backlog is how much of one topic waits in the outbox.
type Backlog struct {
	Topic   string
	Waiting int64
	Oldest  time.Time
}

// OutboxBacklog returns what waits, by topic; topics of which nothing waits are not listed.
func (s *Store) OutboxBacklog(ctx context.Context) ([]Backlog, error) {
	rows, err := s.q.OutboxBacklog(ctx)
	if err != nil {
		return nil, fmt.Errorf("count the outbox: %w", err)
	}
	backlog := make([]Backlog, len(rows))
	for i, r := range rows {
		backlog[i] = Backlog{Topic: r.Topic, Waiting: r.Waiting, Oldest: fromTime(r.Oldest)}
	}
	return backlog, nil
}

// OldestOutbox returns when the oldest waiting item of a topic was made, by the clock of Postgres; its now if none waits.
func (s *Store) OldestOutbox(ctx context.Context, topic string) (time.Time, error) {
	at, err := s.q.OldestOutbox(ctx, topic)
	if err != nil {
		return time.Time{}, fmt.Errorf("look for the oldest %s in the outbox: %w", topic, err)
	}
	return fromTime(at), nil
}
