package api

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

type rateCardDocument struct {
	ID            credit.RateCardID `json:"id"`
	Code          string            `json:"code"`
	Unit          string            `json:"unit"`
	Default       bool              `json:"default"`
	LatestVersion int               `json:"latest_version"` // 0: nothing is published yet
	CreatedAt     string            `json:"created_at"`
}

func describeRateCard(r db.RateCardRow) rateCardDocument {
	return rateCardDocument{r.ID, r.Code, r.Unit, r.Default, r.Latest, instantText(r.CreatedAt)}
}

type rateCardVersionDocument struct {
	RateCardID  credit.RateCardID `json:"rate_card_id"`
	Version     int               `json:"version"`
	EffectiveAt string            `json:"effective_at"`
	PublishedAt string            `json:"published_at"`
	PublishedBy string            `json:"published_by"`
	Withdrawn   *withdrawal       `json:"withdrawn,omitempty"` // it was taken back before it was in force
	Document    json.RawMessage   `json:"document"`
}

type withdrawal struct {
	At     string `json:"at"`
	By     string `json:"by"`
	Reason string `json:"reason"`
}

func describeVersion(card credit.RateCardID, v db.RateCardVersionRow) rateCardVersionDocument {
	d := rateCardVersionDocument{RateCardID: card, Version: v.Version, EffectiveAt: instantText(v.EffectiveAt), PublishedAt: instantText(v.PublishedAt),
		PublishedBy: v.PublishedBy, Document: v.Document}
	if !v.WithdrawnAt.IsZero() {
		d.Withdrawn = &withdrawal{instantText(v.WithdrawnAt), v.WithdrawnBy, v.Reason}
	}
	return d
}

// createRateCard is POST /v1/rate_cards. A default card takes the place of the default before it.
func (s *Server) createRateCard(ctx context.Context, c *call) error {
	row := db.RateCardRow{ID: credit.NewID[credit.RateCardID]()}
	if err := c.input(
		required("code", matching(&row.Code, func(s string) bool { return cardCode(s) && !strings.HasPrefix(s, cardPrefix) }, cardForm)),
		required("unit", matching(&row.Unit, unitCode, unitForm)),
		optional("default", boolean(&row.Default)),
	); err != nil {
		return err
	}
	return c.change(ctx, "create_rate_card", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddRateCard(ctx, row)
		if err != nil {
			return db.Outcome{}, err
		}
		return created(row.ID.String(), describeRateCard(row), map[string]any{"code": row.Code, "default": row.Default})
	})
}

// pathCard finds the rate card in the path, by its id or its code.
func (s *Server) pathCard(ctx context.Context, c *call) (db.RateCardRow, error) {
	text, err := c.pathText("rate_card")
	if err != nil {
		return db.RateCardRow{}, err
	}
	id, err := parseCard(text)
	if err != nil {
		return db.RateCardRow{}, in("rate_card", err)
	}
	return s.store.RateCard(ctx, id, text)
}

// getRateCard is GET /v1/rate_cards/{rate_card}.
func (s *Server) getRateCard(ctx context.Context, c *call) error {
	card, err := s.pathCard(ctx, c)
	if err != nil {
		return err
	}
	return c.document(describeRateCard(card))
}

// listRateCards is GET /v1/rate_cards.
func (s *Server) listRateCards(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, idCursor[credit.RateCardID])
	if err != nil {
		return err
	}
	rows, err := s.store.RateCardPage(ctx, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeRateCard, func(r db.RateCardRow) cursor { return afterID(r.ID) })
}

// publishRateCard is POST /v1/rate_cards/{rate_card}/versions: a version that never changes, in force from an instant.
func (s *Server) publishRateCard(ctx context.Context, c *call) error {
	v := db.RateCardVersionRow{PublishedBy: actorText(c.caller.no)}
	if err := c.input(
		required("document", func(r *reader) error {
			if err := rawObject(&v.Document)(r); err != nil {
				return err
			}
			_, err := rating.Parse(v.Document)
			return below("/document", err)
		}),
		optional("effective_at", instant(&v.EffectiveAt)),
	); err != nil {
		return err
	}
	card, err := s.pathCard(ctx, c)
	if err != nil {
		return err
	}
	return c.change(ctx, "publish_rate_card", card.ID.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		v, err := cat.PublishRateCard(ctx, card.ID, v)
		if err != nil {
			return db.Outcome{}, below("/document", err)
		}
		return created(card.ID.String()+"/"+strconv.Itoa(v.Version), describeVersion(card.ID, v), map[string]any{"version": v.Version, "effective_at": instantText(v.EffectiveAt)})
	})
}

// below moves a refusal's pointers under one.
func below(pointer string, err error) error {
	var e *credit.Error
	if !errors.As(err, &e) {
		return err
	}
	moved := *e
	moved.Issues = make([]credit.Issue, len(e.Issues))
	for i, issue := range e.Issues {
		moved.Issues[i] = credit.Issue{Pointer: pointer + issue.Pointer, Detail: issue.Detail}
	}
	return &moved
}

// listRateCardVersions is GET /v1/rate_cards/{rate_card}/versions.
func (s *Server) listRateCardVersions(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, query.numberCursor)
	if err != nil {
		return err
	}
	card, err := s.pathCard(ctx, c)
	if err != nil {
		return err
	}
	rows, err := s.store.RateCardVersionPage(ctx, card.ID, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, func(v db.RateCardVersionRow) rateCardVersionDocument { return describeVersion(card.ID, v) },
		func(v db.RateCardVersionRow) cursor { return afterNumber(int64(v.Version)) })
}

// getRateCardVersion is GET /v1/rate_cards/{rate_card}/versions/{version}.
func (s *Server) getRateCardVersion(ctx context.Context, c *call) error {
	card, number, err := s.pathVersion(ctx, c)
	if err != nil {
		return err
	}
	v, err := s.store.RateCardVersion(ctx, card.ID, number)
	if err != nil {
		return err
	}
	return c.document(describeVersion(card.ID, v))
}
