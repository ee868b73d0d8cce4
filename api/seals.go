package api

import (
	"context"
	"net/http"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/seal"
)

// sealPeriod is POST /v1/finance/periods/{legal_entity}/{period}/seal. It seals nothing twice, so it needs no key and may be repeated.
func (s *Server) sealPeriod(ctx context.Context, c *call) error {
	entity, err := c.pathText("legal_entity")
	if err != nil {
		return err
	}
	period, err := pathID(c, "period", ledger.ParsePeriod)
	if err != nil {
		return err
	}
	var pack seal.Hash
	if err := c.input(optional("pack_sha256", parsed(&pack, parseHash))); err != nil {
		return err
	}
	sealed, err := s.sealer.Seal(ctx, s.store, entity, period, pack)
	if err != nil {
		return err
	}
	_, _, err = s.store.Change(ctx, db.Audited{Actor: c.caller.no, RequestID: c.id, Action: "seal_period"}, func(context.Context, *db.Catalog) (db.Outcome, error) {
		detail := map[string]any{"version": sealed.Version, "size": sealed.Size, "root": sealed.Root, "hash": sealed.Hash(), "key_id": sealed.KeyID}
		return db.Outcome{Status: http.StatusOK, Subject: entity + "/" + string(period), Detail: detail}, nil
	})
	if err != nil {
		return err
	}
	return c.document(sealed)
}

func parseHash(s string) (seal.Hash, error) {
	h, err := seal.ParseHash(s)
	if err != nil {
		return h, credit.Errorf(credit.InvalidRequest, "%.80q is not 64 hexadecimal digits in lower case.", s)
	}
	return h, nil
}

// listSeals is GET /v1/finance/seals, newest first.
func (s *Server) listSeals(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, query.numberCursor, "legal_entity", "period")
	if err != nil {
		return err
	}
	entity, err := q.entity()
	if err != nil {
		return err
	}
	period, err := queryID(q, "period", ledger.ParsePeriod)
	if err != nil {
		return err
	}
	if _, err := s.store.Entity(ctx, entity); err != nil {
		return err
	}
	rows, err := s.store.Seals(ctx, entity, period, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, func(v *seal.Seal) *seal.Seal { return v }, func(v *seal.Seal) cursor { return afterNumber(v.Number) })
}

// proveEntry is GET /v1/finance/journal_entries/{journal_entry}/proof.
func (s *Server) proveEntry(ctx context.Context, c *call) error {
	id, err := pathID(c, "journal_entry", credit.ParseID[credit.EntryID])
	if err != nil {
		return err
	}
	proof, err := s.store.ProveEntry(ctx, id)
	if err != nil {
		return err
	}
	return c.document(proof)
}
