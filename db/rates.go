package db

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// RateCards reads all published rate cards, as of one moment, with the version of the configuration that they belong to.
func (s *Store) RateCards(ctx context.Context) (ver int64, cards []rating.CardVersions, err error) {
	err = pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		q := sqlc.New(tx)
		if ver, err = q.ConfigurationVersion(ctx); err != nil {
			return err
		}
		rows, err := q.AllRateCardVersions(ctx)
		if err != nil {
			return err
		}
		for _, r := range rows {
			id := credit.RateCardID(r.ID.Bytes)
			if n := len(cards); n == 0 || cards[n-1].ID != id {
				cards = append(cards, rating.CardVersions{
					ID: id, Code: r.Code, Unit: credit.Unit{Code: r.Unit, Scale: int(r.Scale), Name: r.UnitName}, Default: r.IsDefault,
				})
			}
			doc, err := rating.Parse(r.Document)
			if err != nil {
				return fmt.Errorf("rate card %s version %d: %w", r.Code, r.Version, err)
			}
			c := &cards[len(cards)-1]
			c.Versions = append(c.Versions, rating.Version{Number: int(r.Version), EffectiveAt: fromTime(r.EffectiveAt), Doc: doc})
		}
		return nil
	})
	if err != nil {
		return 0, nil, fmt.Errorf("read rate cards: %w", err)
	}
	return ver, cards, nil
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
