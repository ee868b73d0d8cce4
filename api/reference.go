package api

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// The forms of codes, as the tables have them.
var (
	unitCode = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,15}$`).MatchString
	isCode   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`).MatchString
	cardCode = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`).MatchString
)

const (
	unitForm = "a capital letter and up to 15 capital letters, digits and underscores"
	codeForm = "a lower-case letter and up to 31 lower-case letters, digits, _ and -"
	cardForm = "a lower-case letter and up to 63 lower-case letters, digits, _ and -, that does not begin with " + cardPrefix
)

type unitDocument struct {
	Code      string `json:"code"`
	Scale     int    `json:"scale"`
	Name      string `json:"name"`
	CreatedAt string `json:"created_at"`
}

func describeUnit(u db.UnitRow) unitDocument {
	return unitDocument{u.Code, u.Scale, u.Name, instantText(u.CreatedAt)}
}

// createUnit is POST /v1/units.
func (s *Server) createUnit(ctx context.Context, c *call) error {
	u := credit.Unit{Scale: credit.MaxScale}
	if err := c.input(
		required("code", matching(&u.Code, unitCode, unitForm)),
		required("name", text(&u.Name, 200)),
		optional("scale", integer(&u.Scale, 0, credit.MaxScale)),
	); err != nil {
		return err
	}
	return c.change(ctx, "create_unit", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddUnit(ctx, u)
		if err != nil {
			return db.Outcome{}, err
		}
		return created(row.Code, describeUnit(row), nil)
	})
}

// listUnits is GET /v1/units, in order of code.
func (s *Server) listUnits(ctx context.Context, c *call) error {
	_, limit, after, err := listing(c, query.codeCursor)
	if err != nil {
		return err
	}
	rows, err := s.store.UnitPage(ctx, after, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeUnit, func(u db.UnitRow) cursor { return cursor(u.Code) })
}

type entityDocument struct {
	Code      string `json:"code"`
	Name      string `json:"name"`
	Currency  string `json:"currency"`
	TimeZone  string `json:"time_zone"`
	CreatedAt string `json:"created_at"`
}

func describeEntity(e db.EntityRow) entityDocument {
	return entityDocument{e.Code, e.Name, e.Currency, e.TimeZone, instantText(e.CreatedAt)}
}

// createEntity is POST /v1/legal_entities.
func (s *Server) createEntity(ctx context.Context, c *call) error {
	e := db.EntityRow{TimeZone: "UTC"}
	if err := c.input(
		required("code", matching(&e.Code, isCode, codeForm)),
		required("name", text(&e.Name, 200)),
		required("currency", matching(&e.Currency, isCurrency, "the ISO 4217 code of a currency")),
		optional("time_zone", matching(&e.TimeZone, isTimeZone, "the IANA name of a time zone")),
	); err != nil {
		return err
	}
	return c.change(ctx, "create_legal_entity", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddEntity(ctx, e)
		if err != nil {
			return db.Outcome{}, err
		}
		return created(row.Code, describeEntity(row), nil)
	})
}

func isCurrency(s string) bool {
	_, err := credit.CurrencyPlaces(s)
	return err == nil
}

// isTimeZone accepts names of the zone database, and not "Local" or a path into it.
func isTimeZone(s string) bool {
	if s == "" || s == "Local" || strings.HasPrefix(s, "/") || strings.Contains(s, "..") {
		return false
	}
	_, err := time.LoadLocation(s)
	return err == nil
}

// listEntities is GET /v1/legal_entities, in order of code.
func (s *Server) listEntities(ctx context.Context, c *call) error {
	_, limit, after, err := listing(c, query.codeCursor)
	if err != nil {
		return err
	}
	rows, err := s.store.EntityPage(ctx, after, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeEntity, func(e db.EntityRow) cursor { return cursor(e.Code) })
}
