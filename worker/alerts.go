package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/alert"
	"github.com/tallystick/tallystick/credit/forecast"
	"github.com/tallystick/tallystick/db"
)

// alerts judges the rules in force: those that operations change, operation by operation, in the transaction that counts them; those that time
// changes, by looking again and again at the customers whom they may concern.
type alerts struct {
	worker *worker
	rules  atomic.Pointer[[]db.AlertRuleRow]
}

// How often customers are looked at for what time alone can change, and how long a look may take before another worker tries.
const (
	lookEvery         = time.Minute
	lookDepletion     = 10 * time.Minute
	lookLease         = 15 * time.Minute
	lookAtOnce        = 200
	lookedAtAfterUse  = 8 * 24 * time.Hour // customers that have used nothing for as long have no burn to speak of
	usualWeek         = 7 * 24 * time.Hour
	hoursOfUsualWeeks = 7 * 24
)

// byOperation are the kinds that operations alone can change, besides those that every operation is judged by.
func byOperation(k alert.Kind) bool {
	return k == alert.BalanceBelow || k == alert.ShareBelow || k == alert.OverageStarted
}

// refresh reads the rules in force.
func (a *alerts) refresh(ctx context.Context) (bool, error) {
	rules, err := a.worker.store.AlertRules(ctx)
	if err == nil {
		a.rules.Store(&rules)
	}
	return false, err
}

// concerning are the rules in force that are about a customer.
func (a *alerts) concerning(customer credit.CustomerID) (rules []*db.AlertRuleRow) {
	if all := a.rules.Load(); all != nil {
		for i := range *all {
			if r := &(*all)[i]; r.Customer.IsZero() || r.Customer == customer {
				rules = append(rules, r)
			}
		}
	}
	return rules
}

// step judges operations that are being counted: see [db.UsageStep].
func (a *alerts) step(ctx context.Context, tx pgx.Tx, customer credit.CustomerID, operations []db.CountedOperation) error {
	rules := a.concerning(customer)
	if len(rules) == 0 || len(operations) == 0 {
		return nil
	}
	var moved []credit.GrantID
	for i := range operations {
		for j := range operations[i].Movements {
			moved = append(moved, operations[i].Movements[j].Grant)
		}
	}
	slices.SortFunc(moved, func(x, y credit.GrantID) int { return slices.Compare(x[:], y[:]) })
	j, err := a.judge(ctx, a.worker.store.AlertTx(tx, customer), customer, operations[0].Ver-1, slices.Compact(moved))
	if err != nil {
		return err
	}
	for i := range operations {
		o := &operations[i]
		for k := range o.Movements {
			j.grants[o.Movements[k].Grant].Available = o.Movements[k].After
		}
		j.at, j.ver = o.At, o.Ver
		for _, r := range rules {
			if byOperation(r.Kind) {
				if err := j.look(ctx, r); err != nil {
					return err
				}
			}
		}
	}
	for _, r := range rules {
		if r.Kind == alert.SpendAbove {
			if err := j.look(ctx, r); err != nil {
				return err
			}
		}
	}
	return j.tx.Write(ctx)
}

// lookAround takes a rule that is new, was changed, or is one that time changes, and looks at every customer whom it may concern.
func (a *alerts) lookAround(ctx context.Context) (more bool, err error) {
	l, err := a.worker.store.TakeLook(ctx, lookLease)
	if err != nil || l == nil {
		return false, err
	}
	for after := (credit.CustomerID{}); ; {
		customers, err := a.candidates(ctx, l, after)
		if err != nil {
			return false, err
		}
		for _, c := range customers {
			err := a.worker.store.LookAtCustomer(ctx, c, func(tx *db.AlertTx, ver int64, at time.Time) error {
				j, err := a.judge(ctx, tx, c, ver, nil)
				if err != nil {
					return err
				}
				j.at = at
				return j.look(ctx, &l.AlertRuleRow)
			})
			if err != nil {
				return false, err
			}
			after = c
		}
		if len(customers) < lookAtOnce || !l.Customer.IsZero() {
			break
		}
	}
	next := lookEvery
	if l.Kind == alert.DepletionWithin {
		next = lookDepletion
	}
	return true, a.worker.store.FinishLook(ctx, l, next)
}

// candidates are up to lookAtOnce customers after one whom a rule may concern.
func (a *alerts) candidates(ctx context.Context, l *db.Look, after credit.CustomerID) ([]credit.CustomerID, error) {
	store, r := a.worker.store, &l.AlertRuleRow
	switch {
	case !l.Customer.IsZero():
		return []credit.CustomerID{l.Customer}, nil
	case byOperation(l.Kind) && l.Looked: // what operations bring about was judged with them; a grant may have begun to count
		return store.CustomersAlerted(ctx, r, after, lookAtOnce)
	case byOperation(l.Kind):
		return store.CustomersInUnit(ctx, l.Unit, after, lookAtOnce)
	case l.Kind == alert.ExpiringWithin:
		return store.CustomersExpiring(ctx, r, time.Now().Add(l.Within), after, lookAtOnce)
	case l.Kind == alert.SpendAbove:
		return store.CustomersUsing(ctx, r, time.Now().Add(-l.Within-lookEvery), after, lookAtOnce)
	}
	return store.CustomersUsing(ctx, r, time.Now().Add(-lookedAtAfterUse), after, lookAtOnce)
}

// judgement is one customer being judged.
type judgement struct {
	alerts   *alerts
	tx       *db.AlertTx
	customer credit.CustomerID
	on       map[credit.AlertRuleID]bool
	ordered  []*db.StandingGrant
	grants   map[credit.GrantID]*db.StandingGrant
	at       time.Time
	ver      int64 // of the operation that is being judged; 0: time is
	base     int64 // the version that the grants stood at in the beginning
}

func (a *alerts) judge(ctx context.Context, tx *db.AlertTx, customer credit.CustomerID, ver int64, moved []credit.GrantID) (*judgement, error) {
	j := &judgement{alerts: a, tx: tx, customer: customer, base: ver, grants: make(map[credit.GrantID]*db.StandingGrant)}
	var err error
	if j.on, err = tx.On(ctx); err != nil {
		return nil, err
	}
	if j.ordered, err = tx.Standing(ctx, ver, moved); err != nil {
		return nil, err
	}
	for _, g := range j.ordered {
		j.grants[g.ID] = g
	}
	for _, id := range moved {
		if j.grants[id] == nil {
			return nil, fmt.Errorf("grant %s of customer %s has moved and is not there", id, customer)
		}
	}
	return j, nil
}

// look judges one rule, and writes what has changed.
func (j *judgement) look(ctx context.Context, r *db.AlertRuleRow) error {
	f, known, err := j.figures(ctx, r)
	if err != nil || !known {
		return err
	}
	was := j.on[r.ID]
	is := r.Judge(was, f)
	if is == was {
		return nil
	}
	in, err := j.tx.InForce(ctx, []db.AlertRuleRow{*r})
	if err != nil || !in[r.ID] {
		return err
	}
	unit, err := j.alerts.worker.service.Unit(r.Unit)
	if err != nil {
		return fmt.Errorf("look for the unit of alert rule %s: %w", r.ID, err)
	}
	document, err := json.Marshal(j.document(r, is, f, unit.Scale))
	if err != nil {
		return fmt.Errorf("write alert: %w", err)
	}
	j.on[r.ID] = is
	return j.tx.Turn(ctx, r, is, j.at, document)
}

// figures are what a rule is judged by; known says that there is something to judge.
func (j *judgement) figures(ctx context.Context, r *db.AlertRuleRow) (f alert.Figures, known bool, err error) {
	f.At = j.at
	issued := false
	for _, g := range j.ordered {
		if g.Unit != r.Unit || !r.Wallet.IsZero() && g.Wallet != r.Wallet || g.Available < 0 {
			continue
		}
		if g.Type == credit.Overage {
			f.Overage += g.Amount - g.Available
			continue
		}
		issued = true
		if g.Frozen || j.at.Before(g.EffectiveAt) || !g.ExpiresAt.IsZero() && !j.at.Before(g.ExpiresAt) {
			continue
		}
		f.Available += g.Available
		if g.Available > 0 {
			f.Granted += g.Amount
		}
		if !g.ExpiresAt.IsZero() && !g.ExpiresAt.After(j.at.Add(r.Within)) {
			f.Expiring += g.Available
		}
	}
	hour := j.at.Truncate(time.Hour)
	switch r.Kind {
	case alert.BalanceBelow, alert.ShareBelow:
		if !issued && !j.on[r.ID] { // a customer that never had any is not one whose credits run out
			if issued, err = j.tx.EverIssued(ctx, r.Unit, r.Wallet, j.base); err != nil || !issued {
				return f, false, err
			}
		}
	case alert.DepletionWithin:
		f.Depletion, err = j.depletion(ctx, r)
	case alert.SpendAbove:
		f.Spent, err = j.tx.Spent(ctx, r.Unit, r.Wallet, j.at.Add(-r.Within).Truncate(time.Hour), hour.Add(time.Hour))
	case alert.UnusualBurn:
		var now, before, week credit.Amount
		if now, err = j.tx.Spent(ctx, r.Unit, r.Wallet, hour, hour.Add(time.Hour)); err == nil {
			if before, err = j.tx.Spent(ctx, r.Unit, r.Wallet, hour.Add(-time.Hour), hour); err == nil {
				week, err = j.tx.Spent(ctx, r.Unit, r.Wallet, hour.Add(-time.Hour-usualWeek), hour.Add(-time.Hour))
			}
		}
		f.LastHour, f.UsualHour = max(now, before), credit.Amount(credit.MulDivUp(int64(week), 1, hoursOfUsualWeeks))
	}
	return f, true, err
}

// depletion is when what the rule is about is expected to end; zero: not within reach of a forecast.
func (j *judgement) depletion(ctx context.Context, r *db.AlertRuleRow) (time.Time, error) {
	store := j.alerts.worker.store
	grants, _, err := store.Grants(ctx, j.customer)
	if err != nil {
		return time.Time{}, err
	}
	scope := db.UsageScope{Customer: j.customer, Wallet: r.Wallet}
	hours, asOf, now, err := store.UsageHours(ctx, scope, j.at.Add(-forecast.Weeks*7*24*time.Hour))
	if err != nil {
		return time.Time{}, err
	}
	hours = slices.DeleteFunc(hours, func(h db.UsageHour) bool { return h.Unit != r.Unit })
	p, _ := balance.Forecast(hours, grants, r.Wallet, r.Unit, asOf, now)
	return p.Expected, nil
}

// alertDocument is the data of an alert's event. The figures are those of its kind.
type alertDocument struct {
	RuleID            credit.AlertRuleID `json:"rule_id"`
	Name              string             `json:"name"`
	Kind              alert.Kind         `json:"kind"`
	Audience          alert.Audience     `json:"audience"`
	CustomerID        credit.CustomerID  `json:"customer_id"`
	WalletID          *credit.WalletID   `json:"wallet_id"` // null: all wallets of the customer in the unit
	Unit              string             `json:"unit"`
	Amount            *string            `json:"amount,omitempty"`
	Percent           *int               `json:"percent,omitempty"`
	WithinSeconds     *int64             `json:"within_seconds,omitempty"`
	HysteresisPercent int                `json:"hysteresis_percent"`
	On                bool               `json:"on"`
	At                balance.Instant    `json:"at"`
	Ver               *int64             `json:"ver"` // of the operation that turned it; null: time did
	Message           string             `json:"message"`
	Available         *string            `json:"available,omitempty"`
	Granted           *string            `json:"granted,omitempty"`
	DepletionAt       *balance.Instant   `json:"depletion_at,omitempty"`
	Expiring          *string            `json:"expiring,omitempty"`
	Spent             *string            `json:"spent,omitempty"`
	Overage           *string            `json:"overage,omitempty"`
	LastHour          *string            `json:"last_hour,omitempty"`
	UsualHour         *string            `json:"usual_hour,omitempty"`
}

func (j *judgement) document(r *db.AlertRuleRow, on bool, f alert.Figures, scale int) *alertDocument {
	amount := func(a credit.Amount) *string { return new(a.Format(scale)) }
	d := &alertDocument{RuleID: r.ID, Name: r.Name, Kind: r.Kind, Audience: r.Audience, CustomerID: j.customer, Unit: r.Unit, HysteresisPercent: r.Hysteresis, On: on,
		At: balance.Instant(j.at), Message: r.Message(on, f, scale)}
	if !r.Wallet.IsZero() {
		d.WalletID = &r.Wallet
	}
	if r.Amount > 0 {
		d.Amount = amount(r.Amount)
	}
	if r.Percent > 0 {
		d.Percent = &r.Percent
	}
	if r.Within > 0 {
		d.WithinSeconds = new(int64(r.Within / time.Second))
	}
	if j.ver > 0 {
		d.Ver = new(j.ver)
	}
	switch r.Kind {
	case alert.BalanceBelow:
		d.Available = amount(f.Available)
	case alert.ShareBelow:
		d.Available, d.Granted = amount(f.Available), amount(f.Granted)
	case alert.DepletionWithin:
		d.Available = amount(f.Available)
		if !f.Depletion.IsZero() {
			d.DepletionAt = new(balance.Instant(f.Depletion))
		}
	case alert.ExpiringWithin:
		d.Available, d.Expiring = amount(f.Available), amount(f.Expiring)
	case alert.SpendAbove:
		d.Spent = amount(f.Spent)
	case alert.OverageStarted:
		d.Overage = amount(f.Overage)
	case alert.UnusualBurn:
		d.LastHour, d.UsualHour = amount(f.LastHour), amount(f.UsualHour)
	}
	return d
}
