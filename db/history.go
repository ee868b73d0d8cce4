package db

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Scope is what a history or a balance is about: one grant, one wallet, or, when both are zero, a whole customer.
type Scope struct {
	Customer credit.CustomerID
	Wallet   credit.WalletID
	Grant    credit.GrantID
	Unit     credit.Unit // of the grant or wallet; Name may be missing
}

type (
	// HistoryLine is one operation as its scope saw it.
	HistoryLine struct {
		OperationRow
		// Movements are those of the scope's grants; none when the operation moved no credits.
		Movements []MovementLine
		// Before and After are what the scope had available; for a customer, in the operation's unit, and without meaning when that
		// is empty. In the history of a grant or wallet every operation has its unit.
		Before, After credit.Amount
		Scale         int
	}
	// MovementLine is one movement of one grant's credits.
	MovementLine struct {
		Grant         credit.GrantID
		Wallet        credit.WalletID
		Debit, Credit string
		Amount        credit.Amount
		Before, After credit.Amount // available in the grant
		overage       bool
		unit          string
		scale         int
		ver           int64
	}
	// WalletAvailable is what a wallet had available.
	WalletAvailable struct {
		Wallet    credit.WalletID
		Unit      string
		Scale     int
		Available credit.Amount
	}
)

// available is an account whose credits can be used; every other account of a grant is where they came from or went.
const availableAccount = string(sqlc.UnitAccountAvailable)

// HistoryPage returns up to n operations that concern the scope, newest first, below a version (0: from the newest).
func (s *Store) HistoryPage(ctx context.Context, sc Scope, before int64, n int) ([]HistoryLine, error) {
	vers, err := s.versions(ctx, sc, belowNumber(before), n)
	if err != nil || len(vers) == 0 {
		return nil, err
	}
	operations, err := s.q.ReadOperations(ctx, uuidOf(sc.Customer), vers)
	if err != nil {
		return nil, fmt.Errorf("read operations: %w", err)
	}
	lines, err := page(operations, nil, "", historyLine)
	if err != nil {
		return nil, err
	}
	if err := s.addMovements(ctx, sc, lines); err != nil {
		return nil, err
	}
	return lines, s.addBalances(ctx, sc, lines)
}

func (s *Store) versions(ctx context.Context, sc Scope, before int64, n int) ([]int64, error) {
	if sc.Grant.IsZero() && sc.Wallet.IsZero() {
		vers, err := s.q.CustomerVersions(ctx, uuidOf(sc.Customer), before, int32(n))
		if err != nil {
			return nil, fmt.Errorf("read versions of a customer: %w", err)
		}
		return vers, nil
	}
	grants := []pgtype.UUID{uuidOf(sc.Grant)}
	subjects := []string{sc.Grant.String()}
	if sc.Grant.IsZero() {
		var err error
		if grants, err = s.q.WalletGrants(ctx, uuidOf(sc.Wallet)); err != nil {
			return nil, fmt.Errorf("read grants of a wallet: %w", err)
		}
		subjects = []string{sc.Wallet.String()}
		for _, g := range grants {
			subjects = append(subjects, credit.GrantID(g.Bytes).String())
		}
	}
	vers, err := s.q.ScopeVersions(ctx, sqlc.ScopeVersionsParams{Grants: grants, Before: before, PageSize: int32(n), Subjects: subjects})
	if err != nil {
		return nil, fmt.Errorf("read versions of a scope: %w", err)
	}
	return vers, nil
}

func historyLine(o sqlc.ReadOperationsRow) HistoryLine {
	return HistoryLine{OperationRow: OperationRow{
		Customer: o.CustomerID.Bytes, Ver: o.Ver, Kind: string(o.Kind), Amount: credit.Amount(o.Amount), At: fromTime(o.At), ServiceAt: fromTime(o.ServiceAt),
		Actor: o.Actor, RequestID: o.RequestID.Bytes, Member: o.MemberID.Bytes, Key: o.Key, Unit: o.Unit.String, Receipt: o.Receipt,
	}}
}

func (s *Store) addMovements(ctx context.Context, sc Scope, lines []HistoryLine) error {
	rows, err := s.q.ReadMovements(ctx, sqlc.ReadMovementsParams{Lowest: lines[len(lines)-1].Ver, Highest: lines[0].Ver,
		CustomerID: uuidOf(sc.Customer), WalletID: uuidOf(sc.Wallet), GrantID: uuidOf(sc.Grant)})
	movements, err := page(rows, err, "read movements", movementLine)
	if err != nil {
		return err
	}
	i := 0
	for _, m := range movements { // both newest first
		for lines[i].Ver != m.ver {
			i++
		}
		lines[i].Movements = append(lines[i].Movements, m)
	}
	return nil
}

func movementLine(r sqlc.ReadMovementsRow) MovementLine {
	m := MovementLine{Grant: r.GrantID.Bytes, Wallet: r.WalletID.Bytes, Debit: string(r.Debit), Credit: string(r.Credit), Amount: credit.Amount(r.Amount),
		After: credit.Amount(r.After), overage: r.Type == string(credit.Overage), unit: r.Unit, scale: int(r.Scale), ver: r.Ver}
	m.Before = m.After - m.change()
	return m
}

// change is what the movement did to the grant's available credits.
func (m *MovementLine) change() credit.Amount {
	switch {
	case m.Debit == availableAccount:
		return -m.Amount
	case m.Credit == availableAccount:
		return m.Amount
	}
	return 0
}

// addBalances reads the balance after the newest line from the ledger and walks down from there.
func (s *Store) addBalances(ctx context.Context, sc Scope, lines []HistoryLine) error {
	wallets, err := s.availableAt(ctx, sc, lines[0].Ver, time.Time{})
	if err != nil {
		return err
	}
	balances := make(map[string]credit.Amount)
	scales := map[string]int{sc.Unit.Code: sc.Unit.Scale}
	for _, w := range wallets {
		balances[w.Unit] += w.Available
		scales[w.Unit] = w.Scale
	}
	for i := range lines {
		l := &lines[i]
		if l.Unit == "" {
			l.Unit = sc.Unit.Code // what moved nothing left the grant or wallet as it was
		}
		after := balances[l.Unit]
		l.Before, l.After = after, after
		for _, m := range l.Movements {
			scales[m.unit] = m.scale
			if !m.overage || !sc.Grant.IsZero() {
				l.Before -= m.change()
			}
		}
		l.Scale = scales[l.Unit]
		balances[l.Unit] = l.Before
	}
	return nil
}

func (s *Store) availableAt(ctx context.Context, sc Scope, ver int64, at time.Time) ([]WalletAvailable, error) {
	rows, err := s.q.AvailableAt(ctx, sqlc.AvailableAtParams{At: timeOf(at), Ver: ver, CustomerID: uuidOf(sc.Customer), WalletID: uuidOf(sc.Wallet), GrantID: uuidOf(sc.Grant)})
	return page(rows, err, "read balances of a version", func(r sqlc.AvailableAtRow) WalletAvailable {
		return WalletAvailable{Wallet: r.WalletID.Bytes, Unit: r.Unit, Scale: int(r.Scale), Available: credit.Amount(r.Available)}
	})
}

// BalanceAt returns what the scope could have used at an instant, by wallet, and the version of the customer that was in force then (0: before
// its first operation). Credits that were frozen count; overage counts only when the scope is its grant.
func (s *Store) BalanceAt(ctx context.Context, sc Scope, at time.Time) (ver int64, wallets []WalletAvailable, err error) {
	ver, err = s.q.VersionAt(ctx, uuidOf(sc.Customer), timeOf(at))
	if err != nil {
		return 0, nil, found(err, noCustomer(sc.Customer.String()), "find version")
	}
	wallets, err = s.availableAt(ctx, sc, ver, at)
	return ver, wallets, err
}

// Operation returns one operation with its movements, or an Error coded not_found.
func (s *Store) Operation(ctx context.Context, customer credit.CustomerID, ver int64) (HistoryLine, error) {
	rows, err := s.q.ReadOperations(ctx, uuidOf(customer), []int64{ver})
	lines, err := page(rows, err, "read operation", historyLine)
	if err != nil {
		return HistoryLine{}, err
	}
	if len(lines) == 0 {
		return HistoryLine{}, credit.Errorf(credit.NotFound, "The customer has no operation %d.", ver)
	}
	sc := Scope{Customer: customer}
	if err := s.addMovements(ctx, sc, lines); err != nil {
		return HistoryLine{}, err
	}
	return lines[0], s.addBalances(ctx, sc, lines)
}

type (
	// AuditRow is one change: an operation of a customer, or a call that is none.
	AuditRow struct {
		AuditPosition
		Actor     int32
		RequestID credit.RequestID
		Action    string
		Subject   string            // of a call that is no operation
		Detail    []byte            // JSON object
		Customer  credit.CustomerID // of an operation
	}
	// AuditPosition orders the audit: newest first. The zero one is above everything.
	AuditPosition struct {
		At     time.Time
		Source int // 0: a call, 1: an operation
		ID     [16]byte
		No     int64 // an operation's version
	}
	// AuditFilter chooses rows; what is zero lets everything through.
	AuditFilter struct {
		From, Until time.Time // [From, Until)
		Actor       *int32
		Action      string
	}
)

// AuditPage returns up to n changes below a position, newest first. It looks through windows that double backwards from there, so that the
// newest changes are found without reading the old ones.
func (s *Store) AuditPage(ctx context.Context, f AuditFilter, before AuditPosition, n int) ([]AuditRow, error) {
	first, err := s.q.FirstActivity(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the first activity: %w", err)
	}
	from := later(fromTime(first).Add(-time.Minute), f.From)
	until := f.Until
	if until.IsZero() {
		until = time.Now().Add(24 * time.Hour) // whatever this host's clock says
	}
	args := sqlc.ReadAuditParams{BeforeAt: pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, Action: textOf(f.Action)}
	if !before.At.IsZero() {
		args.BeforeAt, args.BeforeSource, args.BeforeSubject, args.BeforeNo = timeOf(before.At), int32(before.Source), pgtype.UUID{Bytes: before.ID, Valid: true}, before.No
		if end := before.At.Add(time.Microsecond); end.Before(until) {
			until = end
		}
	} else {
		args.BeforeSubject = below(credit.GrantID{})
	}
	if f.Actor != nil {
		args.Actor = pgtype.Int4{Int32: *f.Actor, Valid: true}
	}
	var out []AuditRow
	for window := 10 * time.Minute; len(out) < n && until.After(from); window *= 2 {
		start := later(until.Add(-window), from)
		args.FromAt, args.UntilAt, args.PageSize = timeOf(start), timeOf(until), int32(n-len(out))
		rows, err := s.q.ReadAudit(ctx, args)
		found, err := page(rows, err, "read audit", auditRow)
		if err != nil {
			return nil, err
		}
		out = slices.Concat(out, found)
		until = start
		if window > math.MaxInt64/4 {
			window = math.MaxInt64 / 4
		}
	}
	return out, nil
}

func auditRow(r sqlc.ReadAuditRow) AuditRow {
	return AuditRow{AuditPosition: AuditPosition{At: fromTime(r.At), Source: int(r.Source), ID: r.SubjectID.Bytes, No: r.No}, Actor: r.Actor,
		RequestID: r.RequestID.Bytes, Action: r.Action, Subject: r.Subject, Detail: []byte(r.Detail), Customer: r.CustomerID.Bytes}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
