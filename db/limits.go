package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// CustomerGates are a customer's limits in force, in order of id, and the members that have terms of their own.
type CustomerGates struct {
	Zone    *time.Location // in which calendar windows count
	Limits  []*credit.Limit
	Members map[credit.MemberID]MemberTerms
}

// MemberTerms is what a member may use, and what prices it.
type MemberTerms struct {
	Active   bool // otherwise nothing
	Scope    credit.Scope
	RateCard credit.RateCardID // zero: what prices the customer's usage
}

// Own tells whether a member has terms that are not everybody's.
func (t *MemberTerms) Own() bool { return !t.Active || !t.Scope.General() || !t.RateCard.IsZero() }

// readGates reads what ReadCustomers makes of limits and members.
func readGates(b []byte) (*CustomerGates, error) {
	var in struct {
		Zone   string `json:"zone"`
		Limits []struct {
			ID            pgtype.UUID        `json:"id"`
			CustomerID    pgtype.UUID        `json:"customer_id"`
			Name          string             `json:"name"`
			Unit          string             `json:"unit"`
			Amount        int64              `json:"amount"`
			Soft          bool               `json:"soft"`
			AppliesTo     string             `json:"applies_to"`
			MemberID      pgtype.UUID        `json:"member_id"`
			Dimension     pgtype.Text        `json:"dimension"`
			Value         pgtype.Text        `json:"value"`
			WalletID      pgtype.UUID        `json:"wallet_id"`
			Scope         json.RawMessage    `json:"scope"`
			Period        string             `json:"period"`
			LengthSeconds pgtype.Int4        `json:"length_seconds"`
			WarnAt        []int16            `json:"warn_at"`
			CreatedAt     pgtype.Timestamptz `json:"created_at"`
			CreatedVer    int64              `json:"created_ver"`
			EndedAt       pgtype.Timestamptz `json:"ended_at"`
			EndedVer      pgtype.Int8        `json:"ended_ver"`
		} `json:"limits"`
		Members []struct {
			ID     pgtype.UUID     `json:"id"`
			Active bool            `json:"active"`
			Scope  json.RawMessage `json:"scope"`
			Card   pgtype.UUID     `json:"card"`
		} `json:"members"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("read limits: %w", err)
	}
	zone, err := time.LoadLocation(in.Zone)
	if err != nil {
		return nil, fmt.Errorf("read limits: %w", err)
	}
	g := &CustomerGates{Zone: zone}
	for i := range in.Limits {
		l, err := limitOf(sqlc.Limit(in.Limits[i]))
		if err != nil {
			return nil, err
		}
		g.Limits = append(g.Limits, l)
	}
	for _, m := range in.Members {
		scope, err := readScope(m.Scope)
		if err != nil {
			return nil, err
		}
		if g.Members == nil {
			g.Members = make(map[credit.MemberID]MemberTerms, len(in.Members))
		}
		g.Members[m.ID.Bytes] = MemberTerms{m.Active, scope, m.Card.Bytes}
	}
	return g, nil
}

func limitOf(r sqlc.Limit) (*credit.Limit, error) {
	l := &credit.Limit{
		ID: r.ID.Bytes, CustomerID: r.CustomerID.Bytes, Name: r.Name, Unit: r.Unit, Amount: credit.Amount(r.Amount), Soft: r.Soft,
		Subject: credit.LimitSubject(r.AppliesTo), Member: r.MemberID.Bytes, Dimension: r.Dimension.String, Value: r.Value.String, Wallet: r.WalletID.Bytes,
		Window:    credit.Window{Kind: credit.WindowKind(r.Period), Length: time.Duration(r.LengthSeconds.Int32) * time.Second},
		CreatedAt: fromTime(r.CreatedAt), CreatedVer: r.CreatedVer, EndedAt: fromTime(r.EndedAt), EndedVer: r.EndedVer.Int64,
	}
	for _, p := range r.WarnAt {
		l.WarnAt = append(l.WarnAt, int(p))
	}
	var err error
	l.Scope, err = readScope(r.Scope)
	return l, err
}

// WindowRef names the windows of a limit and subject that begin at or after an instant.
type WindowRef struct {
	Limit   credit.LimitID
	Subject string
	Since   time.Time
}

// WindowRow is one row of limit_windows.
type WindowRow struct {
	Limit   credit.LimitID
	Subject string
	credit.LimitWindow
}

// Windows reads windows of limits, in order of limit, subject and start, within the transaction that Lock began. On an error the lane is closed.
func (l *Lane) Windows(ctx context.Context, refs []WindowRef) (out []WindowRow, err error) {
	limits, subjects, sinces := make([]pgtype.UUID, len(refs)), make([]string, len(refs)), make([]time.Time, len(refs))
	for i, r := range refs {
		limits[i], subjects[i], sinces[i] = uuidOf(r.Limit), r.Subject, r.Since
	}
	b := &pgx.Batch{}
	b.Queue(sqlc.ReadWindows, limits, subjects, sinces)
	if err := l.send(ctx, b, func(res pgx.BatchResults) error {
		return each(res, func(rows pgx.Rows) error {
			r, err := pgx.RowToStructByPos[sqlc.LimitWindow](rows)
			out = append(out, WindowRow{r.LimitID.Bytes, r.Subject, credit.LimitWindow{Start: fromTime(r.WindowStart), Used: credit.Amount(r.Used),
				Held: credit.Amount(r.Held), Carried: credit.Amount(r.Carried), Bound: credit.Amount(r.HardLimit.Int64), Soft: !r.HardLimit.Valid, Told: int(r.Told)}})
			return err
		})
	}); err != nil {
		return nil, fmt.Errorf("read windows of limits: %w", err)
	}
	return out, nil
}

// Zone reads the time zone of a customer's legal entity within the transaction that Lock began. On an error the lane is closed.
func (l *Lane) Zone(ctx context.Context, customer credit.CustomerID) (*time.Location, error) {
	var name string
	b := &pgx.Batch{}
	b.Queue(sqlc.ReadZone, uuidOf(customer))
	if err := l.send(ctx, b, func(res pgx.BatchResults) error { return res.QueryRow().Scan(&name) }); err != nil {
		return nil, fmt.Errorf("read time zone of customer %s: %w", customer, err)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("read time zone of customer %s: %w", customer, err)
	}
	return zone, nil
}

// Member reads a customer's member within the transaction that Lock began. nil: the customer has none such. On an error the lane is
// closed.
func (l *Lane) Member(ctx context.Context, customer credit.CustomerID, id credit.MemberID) (m *MemberRow, err error) {
	b := &pgx.Batch{}
	b.Queue(sqlc.ReadMember, uuidOf(id), uuidOf(customer))
	if err := l.send(ctx, b, func(res pgx.BatchResults) error {
		return each(res, func(rows pgx.Rows) error {
			r, err := pgx.RowToStructByPos[sqlc.Member](rows)
			if err != nil {
				return err
			}
			row, err := memberRow(r)
			m = &row
			return err
		})
	}); err != nil {
		return nil, fmt.Errorf("read member: %w", err)
	}
	return m, nil
}

func memberRow(m sqlc.Member) (MemberRow, error) {
	scope, err := readScope(m.Scope)
	return MemberRow{ID: m.ID.Bytes, Customer: m.CustomerID.Bytes, ExternalID: m.ExternalID.String, Name: m.Name, CreatedAt: fromTime(m.CreatedAt),
		MemberTerms: MemberTerms{m.Active, scope, m.RateCardID.Bytes}}, err
}

type (
	// WindowChange is a window before and after a batch; New says that it has no row yet.
	WindowChange struct {
		WindowRow
		New                    bool
		BeforeUsed, BeforeHeld credit.Amount
	}
	// LimitCount is what an operation did to a window.
	LimitCount struct {
		Limit      credit.LimitID
		Subject    string
		Start      time.Time
		Customer   credit.CustomerID
		Ver        int64
		Used, Held credit.Amount // added; below 0: taken away

		UsedAfter, HeldAfter credit.Amount // what the window has come to
	}
	// LimitChange is a limit to be written; Bound says that its amount has changed, and so what its windows are bounded by.
	LimitChange struct {
		Limit *credit.Limit
		Bound bool
	}
)

// queueLimits writes limits, members and windows. Another amount of a limit bounds the windows that are there before those of the batch are written.
func (c *Changes) queueLimits(b *pgx.Batch) error {
	for _, id := range c.Gated {
		b.Queue(sqlc.GateCustomer, uuidOf(id))
	}
	for i := range c.Members {
		m := &c.Members[i]
		scope, err := scopeJSON(m.Scope)
		if err != nil {
			return err
		}
		b.Queue(sqlc.ChangeMember, m.Name, m.Active, scope, uuidOf(m.RateCard), uuidOf(m.ID), uuidOf(m.Customer))
	}
	for _, ch := range c.Limits {
		l := ch.Limit
		scope, err := scopeJSON(l.Scope)
		if err != nil {
			return err
		}
		warnAt := make([]int16, len(l.WarnAt))
		for i, p := range l.WarnAt {
			warnAt[i] = int16(p)
		}
		b.Queue(sqlc.SaveLimit, uuidOf(l.ID), uuidOf(l.CustomerID), l.Name, l.Unit, int64(l.Amount), l.Soft, string(l.Subject), uuidOf(l.Member),
			textOf(l.Dimension), textOf(l.Value), uuidOf(l.Wallet), scope, string(l.Window.Kind),
			pgtype.Int4{Int32: int32(l.Window.Length / time.Second), Valid: l.Window.Kind == credit.Rolling}, warnAt, l.CreatedAt, l.CreatedVer, timeOf(l.EndedAt),
			pgtype.Int8{Int64: l.EndedVer, Valid: l.EndedVer != 0})
		switch {
		case ch.Bound && l.Soft:
			b.Queue(sqlc.RetellWindows, int64(l.Amount), uuidOf(l.ID))
		case ch.Bound:
			b.Queue(sqlc.BoundWindows, int64(l.Amount), uuidOf(l.ID))
		}
	}
	c.queueWindows(b)
	c.queueLimitCounts(b)
	return nil
}

func (c *Changes) queueWindows(b *pgx.Batch) {
	for _, isNew := range [...]bool{true, false} {
		var limits []pgtype.UUID
		var subjects []string
		var starts []time.Time
		var beforeUsed, beforeHeld, used, held, carried []int64
		var bounds []pgtype.Int8
		var told []int16
		for i := range c.Windows {
			w := &c.Windows[i]
			if w.New != isNew {
				continue
			}
			limits, subjects, starts = append(limits, uuidOf(w.Limit)), append(subjects, w.Subject), append(starts, w.Start)
			beforeUsed, beforeHeld = append(beforeUsed, int64(w.BeforeUsed)), append(beforeHeld, int64(w.BeforeHeld))
			used, held, carried = append(used, int64(w.Used)), append(held, int64(w.Held)), append(carried, int64(w.Carried))
			bounds, told = append(bounds, pgtype.Int8{Int64: int64(w.Bound), Valid: !w.Soft}), append(told, int16(w.Told))
		}
		switch {
		case len(limits) == 0:
		case isNew:
			b.Queue(sqlc.AddWindows, limits, subjects, starts, used, held, carried, bounds, told)
		default:
			b.Queue(sqlc.ChangeWindows, limits, subjects, starts, beforeUsed, beforeHeld, used, held, carried, bounds, told)
		}
	}
}

func (c *Changes) queueLimitCounts(b *pgx.Batch) {
	n := len(c.LimitCounts)
	if n == 0 {
		return
	}
	limits, customers, subjects, starts := make([]pgtype.UUID, n), make([]pgtype.UUID, n), make([]string, n), make([]time.Time, n)
	vers, used, held, usedAfter, heldAfter := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i := range c.LimitCounts {
		x := &c.LimitCounts[i]
		limits[i], customers[i], subjects[i], starts[i] = uuidOf(x.Limit), uuidOf(x.Customer), x.Subject, x.Start
		vers[i], used[i], held[i] = x.Ver, int64(x.Used), int64(x.Held)
		usedAfter[i], heldAfter[i] = int64(x.UsedAfter), int64(x.HeldAfter)
	}
	b.Queue(sqlc.AddLimitCounts, limits, subjects, starts, customers, vers, used, held, usedAfter, heldAfter)
}

// holdGate is a [credit.HoldGate] as it is kept.
type holdGate struct {
	Limit   pgtype.UUID `json:"limit"`
	Subject string      `json:"subject"`
	Start   time.Time   `json:"start"`
	Wallet  pgtype.UUID `json:"wallet"` // null: all
	From    int         `json:"from"`
	To      int         `json:"to"`
}

func holdGatesJSON(gates []credit.HoldGate) ([]byte, error) {
	if len(gates) == 0 {
		return nil, nil
	}
	out := make([]holdGate, len(gates))
	for i, g := range gates {
		out[i] = holdGate{uuidOf(g.Limit), g.Subject, g.Start, uuidOf(g.Wallet), g.From, g.To}
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("write gates of a hold: %w", err)
	}
	return b, nil
}

func readHoldGates(b []byte) ([]credit.HoldGate, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var in []holdGate
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("read gates of a hold: %w", err)
	}
	out := make([]credit.HoldGate, len(in))
	for i, g := range in {
		out[i] = credit.HoldGate{Limit: g.Limit.Bytes, Subject: g.Subject, Start: g.Start, Wallet: g.Wallet.Bytes, From: g.From, To: g.To}
	}
	return out, nil
}

// LimitRow is a limit with the decimal places of its unit.
type LimitRow struct {
	*credit.Limit
	Scale int
}

func limitRow(l sqlc.Limit, scale int16) (LimitRow, error) {
	limit, err := limitOf(l)
	return LimitRow{limit, int(scale)}, err
}

// Limit reads a limit. An unknown one is an Error coded limit_not_found.
func (s *Store) Limit(ctx context.Context, id credit.LimitID) (LimitRow, error) {
	r, err := s.q.FindLimit(ctx, uuidOf(id))
	if err != nil {
		return LimitRow{}, found(err, credit.Errorf(credit.LimitNotFound, "There is no limit %s.", id), "read limit")
	}
	return limitRow(r.Limit, r.Scale)
}

// LimitFilter narrows a list of limits; zero fields let everything through.
type LimitFilter struct {
	Customer credit.CustomerID
	Status   string // "active" or "ended"
}

// LimitPage lists up to n limits before one (zero: the newest first).
func (s *Store) LimitPage(ctx context.Context, f LimitFilter, before credit.LimitID, n int) ([]LimitRow, error) {
	rows, err := s.q.PageLimits(ctx, sqlc.PageLimitsParams{CustomerID: uuidOf(f.Customer), Ended: pgtype.Bool{Bool: f.Status == "ended", Valid: f.Status != ""},
		Before: below(before), PageSize: int32(n)})
	return pageOf(rows, err, "read limits", func(r sqlc.PageLimitsRow) (LimitRow, error) { return limitRow(r.Limit, r.Scale) })
}

// UsagePlace is a place in the list of what limits have been taken up to: after this subject of this limit.
type UsagePlace struct {
	Limit   credit.LimitID
	Subject string
}

// LimitUsage is how a limit stands for a subject. Carried and Told of the gate are not read.
type LimitUsage struct {
	credit.Gate
	Scale int
}

// LimitUsage lists up to n subjects of a customer's limits in force, in order of limit and subject, with what they have taken of the windows that count: all
// subjects for which something was counted and those that alone have a limit, or of one member. It waits for what is under way on the customer, and
// returns the version at which it holds and the customer's time.
func (s *Store) LimitUsage(ctx context.Context, customer credit.CustomerID, member credit.MemberID, after UsagePlace, n int) (ver int64, at time.Time, out []LimitUsage, err error) {
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		head, err := q.LockHead(ctx, uuidOf(customer))
		if err != nil {
			return found(err, noCustomer(customer.String()), "lock customer")
		}
		ver, at = head.Ver, fromTime(head.At)
		rows, err := q.LimitsInForce(ctx, uuidOf(customer))
		if err != nil {
			return err
		}
		p := sqlc.PageLimitUsageParams{AfterLimit: pgtype.UUID{Bytes: after.Limit, Valid: true}, AfterSubject: after.Subject, PageSize: int32(n)}
		if !member.IsZero() {
			p.Subject = textOf(credit.MemberSubject(member))
		}
		zones := make(map[string]*time.Location)
		limits := make(map[credit.LimitID]LimitUsage, len(rows))
		for _, r := range rows {
			l, err := limitOf(r.Limit)
			if err != nil {
				return err
			}
			if !member.IsZero() && l.Subject != credit.LimitsMember {
				continue
			}
			if zones[r.TimeZone] == nil {
				if zones[r.TimeZone], err = time.LoadLocation(r.TimeZone); err != nil {
					return fmt.Errorf("read limits: %w", err)
				}
			}
			zone := zones[r.TimeZone]
			limits[l.ID] = LimitUsage{l.At(at, zone, "", nil), int(r.Scale)}
			one, alone := l.One()
			p.Limits, p.Sinces = append(p.Limits, uuidOf(l.ID)), append(p.Sinces, timeOf(l.Window.Since(at, zone)))
			p.Ones, p.Alone = append(p.Ones, one), append(p.Alone, alone)
		}
		used, err := q.PageLimitUsage(ctx, p)
		if err != nil {
			return err
		}
		for _, u := range used {
			g := limits[u.LimitID.Bytes]
			g.Subject, g.Used, g.Held = u.Subject, credit.Amount(u.Used), credit.Amount(u.Held)
			if g.Limit.Window.Kind == credit.Rolling && u.FirstStart.Valid {
				g.ResetsAt = g.Limit.Window.Leaves(fromTime(u.FirstStart))
			}
			out = append(out, g)
		}
		return nil
	})
	if err != nil {
		return 0, time.Time{}, nil, wrap(err, "read usage of limits")
	}
	return ver, at, out, nil
}

// DeleteOldWindows forgets up to n windows of limits that cannot matter any more, with what was counted in them, and returns how many there were.
func (s *Store) DeleteOldWindows(ctx context.Context, n int) (int, error) {
	gone, err := s.q.DeleteOldWindows(ctx, int32(n))
	return len(gone), wrap(err, "delete old windows of limits")
}
