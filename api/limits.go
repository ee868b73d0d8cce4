package api

import (
	"context"
	"net/http"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// defaultWarnAt is when a hard limit warns unless its maker says otherwise, in percent.
var defaultWarnAt = []int{80}

// createLimit is POST /v1/limits.
func (s *Server) createLimit(ctx context.Context, c *call) error {
	var customer, amount, member, appliesTo string
	var wallet credit.WalletID
	var warnAt *[]int
	mode, seconds := "hard", 0
	op := &balance.CreateLimit{Limit: credit.Limit{ID: credit.NewID[credit.LimitID]()}}
	l := &op.Limit
	if err := c.input(
		required("customer", text(&customer, 255)),
		required("name", text(&l.Name, 200)),
		required("unit", text(&l.Unit, 16)),
		required("amount", decimalString(&amount)),
		required("applies_to", word(&appliesTo, "customer", "member", "each_member", "value", "each_value")),
		optional("member", text(&member, 255)),
		optional("dimension", text(&l.Dimension, 128)),
		optional("value", text(&l.Value, 128)),
		optional("wallet", parsed(&wallet, credit.ParseID[credit.WalletID])),
		optional("scope", scope(&l.Scope)),
		required("window", word(&l.Window.Kind, credit.Total, credit.Minute, credit.Hour, credit.Day, credit.Week, credit.Month, credit.Rolling)),
		optional("window_seconds", integer(&seconds, 60, int64(credit.MaxRolling/time.Second))),
		optional("mode", word(&mode, "hard", "soft")),
		optional("warn_at", percents(&warnAt)),
	); err != nil {
		return err
	}
	l.Soft, l.Wallet, l.Window.Length = mode == "soft", wallet, time.Duration(seconds)*time.Second
	switch {
	case warnAt != nil:
		l.WarnAt = *warnAt
	case !l.Soft:
		l.WarnAt = defaultWarnAt
	}
	id, err := s.customerID(ctx, customer)
	if err != nil {
		return in("/customer", err)
	}
	if err := s.limitSubject(ctx, l, id, appliesTo, member); err != nil {
		return err
	}
	unit, err := s.service.Unit(l.Unit)
	if err != nil {
		return err
	}
	if l.Amount, err = credit.ParseAmount(amount, unit.Scale); err != nil {
		return in("/amount", err)
	}
	if op.Header, err = c.operation(id, ""); err != nil {
		return err
	}
	return c.do(ctx, http.StatusCreated, op)
}

// limitSubject sets what a limit applies to, and refuses what does not go with it.
func (s *Server) limitSubject(ctx context.Context, l *credit.Limit, customer credit.CustomerID, appliesTo, member string) (err error) {
	switch {
	case (appliesTo == "member") != (member != ""):
		return credit.Invalid("/member", "A limit that applies to member, and only that, names the member.")
	case (appliesTo == "value" || appliesTo == "each_value") != (l.Dimension != ""):
		return credit.Invalid("/dimension", "A limit that applies to value or each_value, and only that, names the dimension.")
	case (appliesTo == "value") != (l.Value != ""):
		return credit.Invalid("/value", "A limit that applies to value, and only that, names the value.")
	}
	switch appliesTo {
	case "customer":
		l.Subject = credit.LimitsCustomer
	case "member", "each_member":
		l.Subject = credit.LimitsMember
	default:
		l.Subject = credit.LimitsDimension
	}
	if member != "" {
		l.Member, err = s.memberID(ctx, customer, member)
	}
	return in("/member", err)
}

// percents reads the thresholds of a limit.
func percents(into **[]int) func(*reader) error {
	return func(r *reader) error {
		list := []int{}
		if err := r.array(func(int) error {
			n, err := r.integer(1, 99)
			list = append(list, int(n))
			return err
		}); err != nil {
			return err
		}
		*into = &list
		return r.at(credit.CheckWarnAt(list))
	}
}

// pathLimit reads the limit in the path.
func (s *Server) pathLimit(ctx context.Context, c *call) (db.LimitRow, error) {
	id, err := pathID(c, "limit", credit.ParseID[credit.LimitID])
	if err != nil {
		return db.LimitRow{}, err
	}
	return s.store.Limit(ctx, id)
}

func describeLimit(r db.LimitRow) balance.LimitDocument {
	return balance.DescribeLimit(r.Limit, r.Scale)
}

// getLimit is GET /v1/limits/{limit}.
func (s *Server) getLimit(ctx context.Context, c *call) error {
	row, err := s.pathLimit(ctx, c)
	if err != nil {
		return err
	}
	return c.document(describeLimit(row))
}

// listLimits is GET /v1/limits.
func (s *Server) listLimits(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.LimitID], "customer", "status")
	if err != nil {
		return err
	}
	var f db.LimitFilter
	if f.Customer, err = c.queryCustomer(ctx, q); err != nil {
		return err
	}
	if f.Status, err = q.oneOf("status", "active", "ended"); err != nil {
		return err
	}
	rows, err := s.store.LimitPage(ctx, f, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeLimit, func(r db.LimitRow) cursor { return afterID(r.ID) })
}

// updateLimit is PATCH /v1/limits/{limit}.
func (s *Server) updateLimit(ctx context.Context, c *call) error {
	var name, amount, reason string
	var warnAt *[]int
	if err := c.input(optional("name", text(&name, 200)), optional("amount", decimalString(&amount)), optional("warn_at", percents(&warnAt)),
		optional("reason", text(&reason, maxReason))); err != nil {
		return err
	}
	if name == "" && amount == "" && warnAt == nil {
		return credit.Invalid("", "Give a name, an amount or warn_at.")
	}
	row, err := s.pathLimit(ctx, c)
	if err != nil {
		return err
	}
	op := &balance.UpdateLimit{Limit: row.ID, WarnAt: warnAt, Reason: reason}
	if name != "" {
		op.Name = &name
	}
	if amount != "" {
		n, err := credit.ParseAmount(amount, row.Scale)
		if err != nil {
			return in("/amount", err)
		}
		op.Amount = &n
	}
	if op.Header, err = c.operation(row.CustomerID, row.ID.String()); err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, op)
}

// endLimit is DELETE /v1/limits/{limit}: it ends, and is kept for what was counted.
func (s *Server) endLimit(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	row, err := s.pathLimit(ctx, c)
	if err != nil {
		return err
	}
	op := &balance.EndLimit{Limit: row.ID}
	if op.Header, err = c.operation(row.CustomerID, row.ID.String()); err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, op)
}

// limitUsage is GET /v1/customers/{customer}/limits/usage: how the limits in force stand, read after all that is under way.
func (s *Server) limitUsage(ctx context.Context, c *call) error {
	q, limit, after, err := listing(c, usageCursor, "member")
	if err != nil {
		return err
	}
	customer, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	var member credit.MemberID
	if name := q.text("member"); name != "" {
		if member, err = s.memberID(ctx, customer, name); err != nil {
			return in("member", err)
		}
	}
	_, _, rows, err := s.store.LimitUsage(ctx, customer, member, after, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, func(u db.LimitUsage) balance.LimitUsageDocument { return balance.DescribeGate(&u.Gate, u.Scale) },
		afterUsage)
}

// maxSubject bounds a subject of a limit, in bytes: that of a value of a dimension.
const maxSubject = 128

// usageCursor reads a cursor of the usage of limits: a limit and a subject.
func usageCursor(q query) (p db.UsagePlace, err error) {
	b, err := q.cursorWithin(16, 16+maxSubject)
	if b == nil {
		return p, err
	}
	if !clean(string(b[16:])) {
		return p, errCursor
	}
	return db.UsagePlace{Limit: credit.LimitID(b[:16]), Subject: string(b[16:])}, nil
}

func afterUsage(u db.LimitUsage) cursor { return append(u.Limit.ID[:], u.Subject...) }

// pathMember reads the member in the path: an id or the business's own.
func (s *Server) pathMember(ctx context.Context, c *call) (credit.CustomerID, credit.MemberID, error) {
	customer, err := c.pathCustomer(ctx)
	if err != nil {
		return customer, credit.MemberID{}, err
	}
	name, err := c.pathText("member")
	if err != nil {
		return customer, credit.MemberID{}, err
	}
	member, err := s.memberID(ctx, customer, name)
	return customer, member, err
}

// getMember is GET /v1/customers/{customer}/members/{member}.
func (s *Server) getMember(ctx context.Context, c *call) error {
	customer, member, err := s.pathMember(ctx, c)
	if err != nil {
		return err
	}
	row, err := s.store.Member(ctx, customer, member)
	if err != nil {
		return err
	}
	return c.document(balance.DescribeMember(row))
}

// updateMember is PATCH /v1/customers/{customer}/members/{member}.
func (s *Server) updateMember(ctx context.Context, c *call) error {
	var name, reason string
	var active *bool
	var may *credit.Scope
	var card *string
	if err := c.input(optional("name", text(&name, 200)), optional("reason", text(&reason, maxReason)),
		optional("active", func(r *reader) error {
			active = new(bool)
			return boolean(active)(r)
		}), optional("scope", func(r *reader) error {
			may = new(credit.Scope)
			return scope(may)(r)
		}), optional("rate_card", func(r *reader) error {
			card = new(string)
			return nullable(text(card, 64))(r)
		})); err != nil {
		return err
	}
	if name == "" && active == nil && may == nil && card == nil {
		return credit.Invalid("", "Give a name, active, a scope or a rate card.")
	}
	customer, member, err := s.pathMember(ctx, c)
	if err != nil {
		return err
	}
	op := &balance.UpdateMember{Member: member, Active: active, Scope: may, Reason: reason}
	if name != "" {
		op.Name = &name
	}
	if card != nil {
		id, err := s.rateCardID(ctx, *card)
		if err != nil {
			return err
		}
		op.Card = &id
	}
	if op.Header, err = c.operation(customer, member.String()); err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, op)
}

// memberBalance is GET /v1/customers/{customer}/members/{member}/balance: what the member can use, read in order with all operations.
func (s *Server) memberBalance(ctx context.Context, c *call) error {
	customer, member, err := s.pathMember(ctx, c)
	if err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, &balance.ReadMember{Header: balance.Header{Customer: customer, Actor: c.caller.no, RequestID: c.id}, Member: member})
}
