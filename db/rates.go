package db

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// RateCards reads all published rate cards, as of one moment, with the version of the configuration that they belong to. A document never
// changes once it is published, so only those are read and parsed that were not there the last time.
func (s *Store) RateCards(ctx context.Context) (ver int64, cards []rating.CardVersions, err error) {
	var rows []sqlc.AllRateCardVersionsRow
	var versions []published
	var docs map[published]*rating.Document
	err = pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		q := sqlc.New(tx)
		if ver, err = q.ConfigurationVersion(ctx); err != nil {
			return err
		}
		if rows, err = q.AllRateCardVersions(ctx); err != nil {
			return err
		}
		for _, r := range rows {
			versions = append(versions, published{r.ID.Bytes, r.Version, fromTime(r.PublishedAt).UnixMicro()})
		}
		docs, err = s.documents.read(ctx, q, versions)
		return err
	})
	if err != nil {
		return 0, nil, fmt.Errorf("read rate cards: %w", err)
	}
	for i, r := range rows {
		id := credit.RateCardID(r.ID.Bytes)
		if n := len(cards); n == 0 || cards[n-1].ID != id {
			cards = append(cards, rating.CardVersions{
				ID: id, Code: r.Code, Unit: credit.Unit{Code: r.Unit, Scale: int(r.Scale), Name: r.UnitName}, Default: r.IsDefault,
			})
		}
		c := &cards[len(cards)-1]
		c.Versions = append(c.Versions, rating.Version{Number: int(r.Version), EffectiveAt: fromTime(r.EffectiveAt), Doc: docs[versions[i]]})
	}
	return ver, cards, nil
}

// published names a version of a rate card. A failover may take away what only the old primary had, and its number is used again: the instant
// tells the two apart.
type published struct {
	card   credit.RateCardID
	number int32
	at     int64 // microseconds since 1970
}

// documents are the parsed documents of rate cards, as they were read last. They may be used by any number of goroutines.
type documents struct {
	mu     sync.Mutex
	parsed map[published]*rating.Document // never changed, but replaced
}

// read returns the documents of the versions, and keeps them in place of those kept before.
func (d *documents) read(ctx context.Context, q *sqlc.Queries, versions []published) (map[published]*rating.Document, error) {
	d.mu.Lock()
	kept := d.parsed
	d.mu.Unlock()
	docs := make(map[published]*rating.Document, len(versions))
	var cards []pgtype.UUID
	var numbers []int32
	for _, v := range versions {
		if doc := kept[v]; doc != nil {
			docs[v] = doc
			continue
		}
		cards, numbers = append(cards, uuidOf(v.card)), append(numbers, v.number)
	}
	if len(cards) == 0 {
		return docs, nil
	}
	rows, err := q.RateCardDocuments(ctx, cards, numbers)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		doc, err := rating.Parse(r.Document)
		if err != nil {
			return nil, fmt.Errorf("rate card %s version %d: %w", credit.RateCardID(r.CardID.Bytes), r.Version, err)
		}
		docs[published{r.CardID.Bytes, r.Version, fromTime(r.PublishedAt).UnixMicro()}] = doc
	}
	d.mu.Lock()
	d.parsed = docs
	d.mu.Unlock()
	return docs, nil
}

// AllUnits lists the units in order of code.
func (s *Store) AllUnits(ctx context.Context) ([]credit.Unit, error) {
	rows, err := s.q.ListUnits(ctx)
	if err != nil {
		return nil, fmt.Errorf("read units: %w", err)
	}
	units := make([]credit.Unit, len(rows))
	for i, r := range rows {
		units[i] = credit.Unit{Code: r.Code, Scale: int(r.Scale), Name: r.Name}
	}
	return units, nil
}
