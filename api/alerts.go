package api

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/alert"
	"github.com/tallystick/tallystick/db"
)

type alertRuleDocument struct {
	ID                credit.AlertRuleID `json:"id"`
	Name              string             `json:"name"`
	CustomerID        *credit.CustomerID `json:"customer_id"` // null: each customer
	WalletID          *credit.WalletID   `json:"wallet_id"`   // null: all wallets of the customer in the unit
	Kind              alert.Kind         `json:"kind"`
	Unit              string             `json:"unit"`
	Amount            *string            `json:"amount,omitempty"`
	Percent           *int               `json:"percent,omitempty"`
	WithinSeconds     *int64             `json:"within_seconds,omitempty"`
	HysteresisPercent int                `json:"hysteresis_percent"`
	Audience          alert.Audience     `json:"audience"`
	CreatedAt         balance.Instant    `json:"created_at"`
	EndedAt           *balance.Instant   `json:"ended_at,omitempty"`
}

func describeAlertRule(r db.AlertRuleRow, scale int) *alertRuleDocument {
	d := &alertRuleDocument{ID: r.ID, Name: r.Name, Kind: r.Kind, Unit: r.Unit, HysteresisPercent: r.Hysteresis, Audience: r.Audience, CreatedAt: balance.Instant(r.CreatedAt)}
	if !r.Customer.IsZero() {
		d.CustomerID = &r.Customer
	}
	if !r.Wallet.IsZero() {
		d.WalletID = &r.Wallet
	}
	if r.Amount > 0 {
		d.Amount = new(r.Amount.Format(scale))
	}
	if r.Percent > 0 {
		d.Percent = &r.Percent
	}
	if r.Within > 0 {
		d.WithinSeconds = new(int64(r.Within / time.Second))
	}
	if !r.EndedAt.IsZero() {
		d.EndedAt = new(balance.Instant(r.EndedAt))
	}
	return d
}

func (s *Server) describeAlertRule(r db.AlertRuleRow) (*alertRuleDocument, error) {
	unit, err := s.service.Unit(r.Unit)
	return describeAlertRule(r, unit.Scale), err
}

// createAlertRule is POST /v1/alert_rules.
func (s *Server) createAlertRule(ctx context.Context, c *call) error {
	row := db.AlertRuleRow{ID: credit.NewID[credit.AlertRuleID](), Audience: alert.Customer, Rule: alert.Rule{Hysteresis: alert.DefaultHysteresis}}
	var customer, amount string
	var within int
	if err := c.input(
		required("name", text(&row.Name, 200)),
		required("kind", word(&row.Kind, alert.Kinds...)),
		optional("customer", text(&customer, 255)),
		optional("wallet", parsed(&row.Wallet, credit.ParseID[credit.WalletID])),
		optional("unit", text(&row.Unit, 16)),
		optional("amount", decimalString(&amount)),
		optional("percent", integer(&row.Percent, 1, alert.MaxPercent)),
		optional("within_seconds", integer(&within, 1, int64(alert.MaxWithin/time.Second))),
		optional("hysteresis_percent", integer(&row.Hysteresis, 0, alert.MaxHysteresis)),
		optional("audience", word(&row.Audience, alert.Customer, alert.Team)),
	); err != nil {
		return err
	}
	if err := s.concerns(ctx, &row, customer); err != nil {
		return err
	}
	unit, err := s.service.Unit(row.Unit)
	if err != nil {
		return in("/unit", err)
	}
	if amount != "" {
		if row.Amount, err = positive("/amount", amount, unit.Scale); err != nil {
			return err
		}
	}
	row.Within = time.Duration(within) * time.Second
	if err := row.Check(); err != nil {
		return err
	}
	return c.change(ctx, "create_alert_rule", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddAlertRule(ctx, row)
		if err != nil {
			return db.Outcome{}, err
		}
		return created(row.ID.String(), describeAlertRule(row, unit.Scale), nil)
	})
}

// concerns fills in whom a rule is about: a wallet says its customer and unit.
func (s *Server) concerns(ctx context.Context, row *db.AlertRuleRow, customer string) (err error) {
	if customer != "" {
		if row.Customer, err = s.customerID(ctx, customer); err != nil {
			return in("/customer", err)
		}
		if _, err = s.store.Customer(ctx, row.Customer); err != nil {
			return in("/customer", err)
		}
	}
	if !row.Wallet.IsZero() {
		w, err := s.store.Wallet(ctx, row.Wallet)
		switch {
		case err != nil:
			return in("/wallet", err)
		case !row.Customer.IsZero() && row.Customer != w.Customer:
			return credit.Invalid("/wallet", "This is a wallet of another customer.")
		case row.Unit != "" && row.Unit != w.Unit:
			return credit.Invalid("/unit", "The wallet is in %s.", w.Unit)
		}
		row.Customer, row.Unit = w.Customer, w.Unit
	}
	if row.Unit == "" {
		return credit.Invalid("/unit", "A rule that is not about one wallet needs a unit.")
	}
	return nil
}

func pathAlertRule(c *call) (credit.AlertRuleID, error) {
	return pathID(c, "alert_rule", credit.ParseID[credit.AlertRuleID])
}

// listAlertRules is GET /v1/alert_rules.
func (s *Server) listAlertRules(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.AlertRuleID], "customer")
	if err != nil {
		return err
	}
	customer, err := c.queryCustomer(ctx, q)
	if err != nil {
		return err
	}
	rows, err := s.store.AlertRulePage(ctx, customer, before, limit+1)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if _, err := s.service.Unit(r.Unit); err != nil {
			return err
		}
	}
	return answerPage(c, rows, limit, func(r db.AlertRuleRow) *alertRuleDocument {
		d, _ := s.describeAlertRule(r) // its unit is known: see above
		return d
	}, func(r db.AlertRuleRow) cursor { return afterID(r.ID) })
}

// getAlertRule is GET /v1/alert_rules/{alert_rule}.
func (s *Server) getAlertRule(ctx context.Context, c *call) error {
	id, err := pathAlertRule(c)
	if err != nil {
		return err
	}
	row, err := s.store.AlertRule(ctx, id)
	if err != nil {
		return err
	}
	doc, err := s.describeAlertRule(row)
	if err != nil {
		return err
	}
	return c.document(doc)
}

// updateAlertRule is PATCH /v1/alert_rules/{alert_rule}: its name and its numbers.
func (s *Server) updateAlertRule(ctx context.Context, c *call) error {
	var name, amount string
	var percent, within int
	hysteresis := -1
	if err := c.input(
		optional("name", text(&name, 200)),
		optional("amount", decimalString(&amount)),
		optional("percent", integer(&percent, 1, alert.MaxPercent)),
		optional("within_seconds", integer(&within, 1, int64(alert.MaxWithin/time.Second))),
		optional("hysteresis_percent", integer(&hysteresis, 0, alert.MaxHysteresis)),
	); err != nil {
		return err
	}
	if name == "" && amount == "" && percent == 0 && within == 0 && hysteresis < 0 {
		return credit.Invalid("", "Give something to change.")
	}
	id, err := pathAlertRule(c)
	if err != nil {
		return err
	}
	return c.change(ctx, "update_alert_rule", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		var unit credit.Unit
		row, err := cat.ChangeAlertRule(ctx, id, func(r *db.AlertRuleRow) (err error) {
			if unit, err = s.service.Unit(r.Unit); err != nil {
				return err
			}
			if amount != "" {
				if r.Amount, err = positive("/amount", amount, unit.Scale); err != nil {
					return err
				}
			}
			if name != "" {
				r.Name = name
			}
			if percent > 0 {
				r.Percent = percent
			}
			if within > 0 {
				r.Within = time.Duration(within) * time.Second
			}
			if hysteresis >= 0 {
				r.Hysteresis = hysteresis
			}
			return r.Check()
		})
		if err != nil {
			return db.Outcome{}, err
		}
		doc := describeAlertRule(row, unit.Scale)
		return changed(id.String(), doc, doc)
	})
}

// endAlertRule is DELETE /v1/alert_rules/{alert_rule}.
func (s *Server) endAlertRule(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	id, err := pathAlertRule(c)
	if err != nil {
		return err
	}
	return c.change(ctx, "end_alert_rule", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.EndAlertRule(ctx, id)
		if err != nil {
			return db.Outcome{}, err
		}
		unit, err := s.service.Unit(row.Unit)
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(id.String(), describeAlertRule(row, unit.Scale), nil)
	})
}

// alertDocument is an alert that is on: what its event said.
type alertDocument struct {
	Since balance.Instant `json:"since"`
	Alert json.RawMessage `json:"alert"`
}

// listAlerts is GET /v1/alerts: those that are on.
func (s *Server) listAlerts(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, alertCursor, "customer")
	if err != nil {
		return err
	}
	customer, err := c.queryCustomer(ctx, q)
	if err != nil {
		return err
	}
	rows, err := s.store.AlertPage(ctx, customer, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, func(r db.AlertRow) alertDocument { return alertDocument{balance.Instant(r.Since), r.Document} },
		func(r db.AlertRow) cursor { return append(r.Rule[:], r.Customer[:]...) })
}

func alertCursor(q query) (r db.AlertRow, err error) {
	b, err := q.cursor(32)
	if b != nil {
		r.Rule, r.Customer = credit.AlertRuleID(b[:16]), credit.CustomerID(b[16:])
	}
	return r, err
}
