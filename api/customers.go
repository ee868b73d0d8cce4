package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

type customerDocument struct {
	ID          credit.CustomerID  `json:"id"`
	ExternalID  *string            `json:"external_id"`
	Name        string             `json:"name"`
	LegalEntity string             `json:"legal_entity"`
	RateCardID  *credit.RateCardID `json:"rate_card_id"` // null: the default card
	Metadata    map[string]string  `json:"metadata"`
	Frozen      bool               `json:"frozen"` // its books and balances differ: nothing moves until a person looked
	Ver         int64              `json:"ver"`
	CreatedAt   string             `json:"created_at"`
}

func describeCustomer(r db.CustomerRow) customerDocument {
	d := customerDocument{ID: r.ID, ExternalID: orNull(r.ExternalID), Name: r.Name, LegalEntity: r.Entity, Metadata: r.Metadata, Frozen: r.Frozen,
		Ver: r.Ver, CreatedAt: instantText(r.CreatedAt)}
	if d.Metadata == nil {
		d.Metadata = map[string]string{}
	}
	if !r.RateCard.IsZero() {
		d.RateCardID = &r.RateCard
	}
	return d
}

// createCustomer is POST /v1/customers.
func (s *Server) createCustomer(ctx context.Context, c *call) error {
	row := db.CustomerRow{ID: credit.NewID[credit.CustomerID]()}
	var card string
	if err := c.input(
		required("name", text(&row.Name, 200)),
		required("legal_entity", matching(&row.Entity, isCode, codeForm)),
		optional("external_id", matching(&row.ExternalID, func(s string) bool { return externalID(s, customerPrefix) }, externalIDForm)),
		optional("rate_card", text(&card, 64)),
		optional("metadata", metadata(&row.Metadata)),
	); err != nil {
		return err
	}
	var err error
	if row.RateCard, err = s.rateCardID(ctx, card); err != nil {
		return err
	}
	return c.change(ctx, "create_customer", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddCustomer(ctx, row)
		if err != nil {
			return db.Outcome{}, err
		}
		doc := describeCustomer(row)
		if err := cat.AddEvent(row.ID, "customer.created", row.ID.String(), "customer", doc); err != nil {
			return db.Outcome{}, err
		}
		return created(row.ID.String(), doc, nil)
	})
}

// listCustomers is GET /v1/customers.
func (s *Server) listCustomers(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, idCursor[credit.CustomerID])
	if err != nil {
		return err
	}
	rows, err := s.store.CustomerPage(ctx, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeCustomer, func(r db.CustomerRow) cursor { return afterID(r.ID) })
}

// getCustomer is GET /v1/customers/{customer}.
func (s *Server) getCustomer(ctx context.Context, c *call) error {
	id, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	row, err := s.store.Customer(ctx, id)
	if err != nil {
		return err
	}
	return c.document(describeCustomer(row))
}

// updateCustomer is PATCH /v1/customers/{customer}: another rate card from now on.
func (s *Server) updateCustomer(ctx context.Context, c *call) error {
	var card string
	if err := c.input(required("rate_card", nullable(text(&card, 64)))); err != nil {
		return err
	}
	id, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	op := &balance.UpdateCustomer{}
	if op.RateCard, err = s.rateCardID(ctx, card); err != nil {
		return err
	}
	if op.Header, err = c.operation(id, ""); err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, op)
}

// rateCardID finds a rate card by its id or code; empty is the default card.
func (s *Server) rateCardID(ctx context.Context, text string) (credit.RateCardID, error) {
	if text == "" {
		return credit.RateCardID{}, nil
	}
	id, err := parseCard(text)
	if err != nil {
		return id, in("/rate_card", err)
	}
	card, err := s.store.RateCard(ctx, id, text)
	return card.ID, err
}

// parseCard reads the id of a rate card; text that is not one of ours is a code, and gives the zero id.
func parseCard(text string) (credit.RateCardID, error) {
	if !strings.HasPrefix(text, cardPrefix) {
		return credit.RateCardID{}, nil
	}
	return credit.ParseID[credit.RateCardID](text)
}

// createMember is POST /v1/customers/{customer}/members.
func (s *Server) createMember(ctx context.Context, c *call) error {
	row := db.MemberRow{ID: credit.NewID[credit.MemberID]()}
	if err := c.input(
		required("name", text(&row.Name, 200)),
		optional("external_id", matching(&row.ExternalID, func(s string) bool { return externalID(s, memberPrefix) }, externalIDForm)),
	); err != nil {
		return err
	}
	var err error
	if row.Customer, err = c.pathCustomer(ctx); err != nil {
		return err
	}
	return c.change(ctx, "create_member", row.Customer.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddMember(ctx, row)
		if err != nil {
			return db.Outcome{}, err
		}
		doc := balance.DescribeMember(row)
		if err := cat.AddEvent(row.Customer, "member.created", row.ID.String(), "member", doc); err != nil {
			return db.Outcome{}, err
		}
		return created(row.ID.String(), doc, map[string]string{"customer_id": row.Customer.String()})
	})
}

// listMembers is GET /v1/customers/{customer}/members.
func (s *Server) listMembers(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, idCursor[credit.MemberID])
	if err != nil {
		return err
	}
	id, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	if _, err := s.store.Customer(ctx, id); err != nil {
		return err
	}
	rows, err := s.store.MemberPage(ctx, id, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, balance.DescribeMember, func(r db.MemberRow) cursor { return afterID(r.ID) })
}
