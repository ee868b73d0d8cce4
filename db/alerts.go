package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/alert"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

type (
	// AlertRuleRow is a rule, and whom it is about.
	AlertRuleRow struct {
		ID       credit.AlertRuleID
		Name     string
		Customer credit.CustomerID // zero: each customer
		Wallet   credit.WalletID   // zero: all wallets of the customer in the unit
		alert.Rule
		Audience  alert.Audience
		CreatedAt time.Time
		EndedAt   time.Time // zero: it is in force
	}
	// AlertRow is an alert that is on.
	AlertRow struct {
		Rule     credit.AlertRuleID
		Customer credit.CustomerID
		Since    time.Time
		Document []byte // JSON: of the event that said so
	}
	// StandingGrant is what an alert's figures know of a grant.
	StandingGrant struct {
		ID                     credit.GrantID
		Wallet                 credit.WalletID
		Unit                   string
		Type                   credit.GrantType
		Frozen                 bool
		EffectiveAt, ExpiresAt time.Time // zero ExpiresAt: never
		Amount                 credit.Amount
		Available              credit.Amount // -1: it had not been issued yet
	}
)

func noAlertRule(id credit.AlertRuleID) *credit.Error {
	return credit.Errorf(credit.NotFound, "There is no alert rule %s in force.", id)
}

func alertRuleRow(r sqlc.AlertRule) AlertRuleRow {
	return AlertRuleRow{ID: r.ID.Bytes, Name: r.Name, Customer: r.CustomerID.Bytes, Wallet: r.WalletID.Bytes,
		Rule: alert.Rule{Kind: alert.Kind(r.Kind), Unit: r.Unit, Amount: credit.Amount(r.Amount), Percent: int(r.Percent), Within: time.Duration(r.WithinS) * time.Second,
			Hysteresis: int(r.Hysteresis)},
		Audience: alert.Audience(r.Audience), CreatedAt: fromTime(r.CreatedAt), EndedAt: fromTime(r.EndedAt)}
}

// AlertRule returns a rule, in force or not, or an Error coded not_found.
func (s *Store) AlertRule(ctx context.Context, id credit.AlertRuleID) (AlertRuleRow, error) {
	r, err := s.q.FindAlertRule(ctx, uuidOf(id))
	return alertRuleRow(r), found(err, noAlertRule(id), "read alert rule")
}

// AlertRulePage returns up to n rules in force below an id, newest first: those that are about a customer, or, when that is zero, all.
func (s *Store) AlertRulePage(ctx context.Context, customer credit.CustomerID, before credit.AlertRuleID, n int) ([]AlertRuleRow, error) {
	rows, err := s.q.PageAlertRules(ctx, below(before), uuidOf(customer), int32(n))
	return page(rows, err, "read alert rules", alertRuleRow)
}

// AlertRules returns every rule in force.
func (s *Store) AlertRules(ctx context.Context) ([]AlertRuleRow, error) {
	rows, err := s.q.AlertRulesInForce(ctx)
	return page(rows, err, "read alert rules", alertRuleRow)
}

// AlertPage returns up to n alerts that are on, below one, of one customer or, when that is zero, all.
func (s *Store) AlertPage(ctx context.Context, customer credit.CustomerID, before AlertRow, n int) ([]AlertRow, error) {
	p := sqlc.PageAlertsParams{BeforeRule: below(before.Rule), BeforeCustomer: below(before.Customer), CustomerID: uuidOf(customer), PageSize: int32(n)}
	rows, err := s.q.PageAlerts(ctx, p)
	return page(rows, err, "read alerts", func(a sqlc.Alert) AlertRow {
		return AlertRow{Rule: a.RuleID.Bytes, Customer: a.CustomerID.Bytes, Since: fromTime(a.Since), Document: a.Document}
	})
}

// AddAlertRule makes a rule. Everybody whom it concerns is looked at soon.
func (c *Catalog) AddAlertRule(ctx context.Context, r AlertRuleRow) (AlertRuleRow, error) {
	row, err := c.q.AddAlertRule(ctx, sqlc.AddAlertRuleParams{ID: uuidOf(r.ID), Name: r.Name, CustomerID: uuidOf(r.Customer), WalletID: uuidOf(r.Wallet), Kind: string(r.Kind), Unit: r.Unit,
		Amount: int64(r.Amount), Percent: int32(r.Percent), WithinS: int64(r.Within / time.Second), Hysteresis: int32(r.Hysteresis), Audience: string(r.Audience)})
	return alertRuleRow(row), wrap(err, "add alert rule")
}

// ChangeAlertRule changes the name and the numbers of a rule that is in force; change is given the rule as it is. An alert that is on stays on until
// it is judged anew, which is soon.
func (c *Catalog) ChangeAlertRule(ctx context.Context, id credit.AlertRuleID, change func(*AlertRuleRow) error) (AlertRuleRow, error) {
	was, err := c.q.LockAlertRule(ctx, uuidOf(id))
	if err != nil {
		return AlertRuleRow{}, found(err, noAlertRule(id), "lock alert rule")
	}
	r := alertRuleRow(was)
	if err := change(&r); err != nil {
		return r, err
	}
	row, err := c.q.ChangeAlertRule(ctx, sqlc.ChangeAlertRuleParams{ID: uuidOf(id), Name: r.Name, Amount: int64(r.Amount), Percent: int32(r.Percent), WithinS: int64(r.Within / time.Second),
		Hysteresis: int32(r.Hysteresis)})
	return alertRuleRow(row), wrap(err, "change alert rule")
}

// EndAlertRule ends a rule. Its alerts are gone, without a word: nobody can say whether they are over.
func (c *Catalog) EndAlertRule(ctx context.Context, id credit.AlertRuleID) (AlertRuleRow, error) {
	if _, err := c.q.LockAlertRule(ctx, uuidOf(id)); err != nil {
		return AlertRuleRow{}, found(err, noAlertRule(id), "lock alert rule")
	}
	if err := c.q.DropAlertsOf(ctx, uuidOf(id)); err != nil {
		return AlertRuleRow{}, wrap(err, "drop alerts")
	}
	row, err := c.q.EndAlertRule(ctx, uuidOf(id))
	return alertRuleRow(row), wrap(err, "end alert rule")
}

// AlertTx judges alerts of one customer in a transaction that holds its usage mark, and so nobody else does.
type AlertTx struct {
	q        *sqlc.Queries
	tx       pgx.Tx
	customer credit.CustomerID
	events   []EventRow
}

// AlertTx makes one of the transaction in which a [UsageStep] runs.
func (s *Store) AlertTx(tx pgx.Tx, customer credit.CustomerID) *AlertTx {
	return &AlertTx{q: s.q.WithTx(tx), tx: tx, customer: customer}
}

// LookAtCustomer lets do judge a customer as it stands after the last operation that was counted, ver, at an instant by the clock of Postgres.
func (s *Store) LookAtCustomer(ctx context.Context, customer credit.CustomerID, do func(a *AlertTx, ver int64, at time.Time) error) error {
	return s.Tx(ctx, func(tx pgx.Tx) error {
		p := usagePass{q: s.q.WithTx(tx), tx: tx, customer: customer}
		ver, err := p.lockMark(ctx)
		if err != nil {
			return err
		}
		at, err := p.q.ClockNow(ctx)
		if err != nil {
			return fmt.Errorf("read the time: %w", err)
		}
		a := s.AlertTx(tx, customer)
		if err := do(a, ver, fromTime(at)); err != nil {
			return err
		}
		return a.Write(ctx)
	})
}

// On returns the rules whose alert is on.
func (a *AlertTx) On(ctx context.Context) (map[credit.AlertRuleID]bool, error) {
	ids, err := a.q.AlertsOn(ctx, uuidOf(a.customer))
	if err != nil {
		return nil, fmt.Errorf("read alerts of customer %s: %w", a.customer, err)
	}
	on := make(map[credit.AlertRuleID]bool, len(ids))
	for _, id := range ids {
		on[id.Bytes] = true
	}
	return on, nil
}

// InForce keeps, of some rules, those that have not ended meanwhile; they do not end before the transaction does.
func (a *AlertTx) InForce(ctx context.Context, rules []AlertRuleRow) (map[credit.AlertRuleID]bool, error) {
	ids := make([]pgtype.UUID, len(rules))
	for i := range rules {
		ids[i] = uuidOf(rules[i].ID)
	}
	rows, err := a.q.ShareAlertRules(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("share alert rules: %w", err)
	}
	in := make(map[credit.AlertRuleID]bool, len(rows))
	for _, id := range rows {
		in[id.Bytes] = true
	}
	return in, nil
}

// Standing returns the customer's open grants and those named, as they stood at a version.
func (a *AlertTx) Standing(ctx context.Context, ver int64, moved []credit.GrantID) ([]*StandingGrant, error) {
	rows, err := a.q.StandingGrants(ctx, ver, uuidOf(a.customer), uuids(moved))
	return page(rows, err, "read standing grants", func(r sqlc.StandingGrantsRow) *StandingGrant {
		return &StandingGrant{ID: r.ID.Bytes, Wallet: r.WalletID.Bytes, Unit: r.Unit, Type: credit.GrantType(r.Type), Frozen: r.Frozen, EffectiveAt: fromTime(r.EffectiveAt),
			ExpiresAt: fromTime(r.ExpiresAt), Amount: credit.Amount(r.Amount), Available: credit.Amount(r.Avail)}
	})
}

// EverIssued tells whether there were credits in a unit, of one wallet or, when that is zero, of any, by a version.
func (a *AlertTx) EverIssued(ctx context.Context, unit string, wallet credit.WalletID, ver int64) (bool, error) {
	ever, err := a.q.EverIssued(ctx, sqlc.EverIssuedParams{CustomerID: uuidOf(a.customer), Unit: unit, Ver: ver, WalletID: uuidOf(wallet)})
	return ever, wrap(err, "look for credits")
}

// Spent returns what was used in the hours of service from one, inclusive, until another, exclusive.
func (a *AlertTx) Spent(ctx context.Context, unit string, wallet credit.WalletID, since, until time.Time) (credit.Amount, error) {
	n, err := a.q.SpentSince(ctx, sqlc.SpentSinceParams{CustomerID: uuidOf(a.customer), Unit: unit, Since: timeOf(since), Until: timeOf(until), WalletID: uuidOf(wallet)})
	return credit.Amount(max(0, n)), wrap(err, "read usage")
}

// Turn puts an alert on or off, and writes the event that says so.
func (a *AlertTx) Turn(ctx context.Context, r *AlertRuleRow, on bool, at time.Time, document []byte) (err error) {
	kind := "alert."
	if r.Audience == alert.Team {
		kind += "team."
	}
	if on {
		kind += "fired"
		err = a.q.TurnAlertOn(ctx, sqlc.TurnAlertOnParams{RuleID: uuidOf(r.ID), CustomerID: uuidOf(a.customer), Since: timeOf(at), Document: document})
	} else {
		kind += "recovered"
		err = a.q.TurnAlertOff(ctx, uuidOf(r.ID), uuidOf(a.customer))
	}
	if err != nil {
		return wrap(err, "turn alert")
	}
	data := append(append([]byte(`{"alert":`), document...), '}')
	a.events = append(a.events, EventRow{ID: credit.NewID[credit.EventID](), Customer: a.customer, Type: kind, Subject: r.ID.String(), Data: data, At: at})
	return nil
}

// Write writes the events, as the transaction's last statement but the commit.
func (a *AlertTx) Write(ctx context.Context) error {
	if len(a.events) == 0 {
		return nil
	}
	return addEvents(ctx, a.q, a.events...)
}

// Look is a rule of which every customer is to be looked at.
type Look struct {
	AlertRuleRow
	Looked bool // every customer was looked at since the rule was made or changed
	lease  pgtype.Timestamptz
}

// TakeLook returns the rule whose look is due; nil when none is. Until the lease is over or [Store.FinishLook] nobody else gets it.
func (s *Store) TakeLook(ctx context.Context, lease time.Duration) (*Look, error) {
	rows, err := s.q.TakeLook(ctx, lease.Seconds())
	if err != nil || len(rows) == 0 {
		return nil, wrap(err, "take a look")
	}
	return &Look{alertRuleRow(rows[0]), rows[0].Looked, rows[0].LookAt}, nil
}

// FinishLook ends a look. The next is after a while, or at once when the rule was changed meanwhile.
func (s *Store) FinishLook(ctx context.Context, l *Look, next time.Duration) error {
	return wrap(s.q.FinishLook(ctx, next.Seconds(), uuidOf(l.ID), l.lease), "finish a look")
}

// CustomersInUnit returns up to n customers after one that have a wallet in a unit, in order of id.
func (s *Store) CustomersInUnit(ctx context.Context, unit string, after credit.CustomerID, n int) ([]credit.CustomerID, error) {
	rows, err := s.q.CustomersInUnit(ctx, keyOf(after), unit, int32(n))
	return page(rows, err, "read customers", customerIDOf)
}

// CustomersAlerted returns up to n customers after one whose alert of a rule is on, in order of id.
func (s *Store) CustomersAlerted(ctx context.Context, r *AlertRuleRow, after credit.CustomerID, n int) ([]credit.CustomerID, error) {
	rows, err := s.q.CustomersAlerted(ctx, uuidOf(r.ID), keyOf(after), int32(n))
	return page(rows, err, "read customers with an alert", customerIDOf)
}

// CustomersExpiring returns up to n customers after one whom a rule about expiry may concern: something expires before an instant, or the
// alert is on.
func (s *Store) CustomersExpiring(ctx context.Context, r *AlertRuleRow, until time.Time, after credit.CustomerID, n int) ([]credit.CustomerID, error) {
	rows, err := s.q.CustomersExpiring(ctx, sqlc.CustomersExpiringParams{Until: timeOf(until), Unit: r.Unit, RuleID: uuidOf(r.ID), After: keyOf(after), N: int32(n)})
	return page(rows, err, "read customers with expiring credits", customerIDOf)
}

// CustomersUsing returns up to n customers after one whom a rule about use may concern: something was counted since an instant, or the
// alert is on.
func (s *Store) CustomersUsing(ctx context.Context, r *AlertRuleRow, since time.Time, after credit.CustomerID, n int) ([]credit.CustomerID, error) {
	rows, err := s.q.CustomersUsing(ctx, sqlc.CustomersUsingParams{Since: timeOf(since), RuleID: uuidOf(r.ID), After: keyOf(after), N: int32(n)})
	return page(rows, err, "read customers with usage", customerIDOf)
}

func customerIDOf(id pgtype.UUID) credit.CustomerID { return id.Bytes }
