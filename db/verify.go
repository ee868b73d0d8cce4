package db

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Invariant is something about the books that the ledger they come from proves or disproves.
type Invariant struct {
	Name    string // what must hold
	Things  string // what is counted
	query   string
	subject func(string) string // makes the text of an id
}

// Invariants lists what holds in every committed state of a sound database.
var Invariants = []Invariant{
	{"journal entries balance", "entries", sqlc.VerifyEntries, idOf[credit.EntryID]},
	{"grants conserve", "grants", sqlc.VerifyGrants, idOf[credit.GrantID]},
	{"movements leave what they say", "movements", sqlc.VerifyMovements, idOf[credit.GrantID]},
	{"histories have no gap", "customers", sqlc.VerifyHistories, idOf[credit.CustomerID]},
	{"operations move what they say", "operations", sqlc.VerifyOperations, idOf[credit.CustomerID]},
	{"keys answer with their own operation", "keys", sqlc.VerifyKeys, func(s string) string { return "key " + s }},
	{"refunds are of what was taken back", "refunds", sqlc.VerifyRefunds, idOf[credit.RefundID]},
	{"corrections are of what was consumed", "operations", sqlc.VerifyCorrections, func(s string) string { return s }},
	{"transfers arrive", "grants", sqlc.VerifyTransfers, idOf[credit.GrantID]},
	{"windows of limits are what was counted", "windows", sqlc.VerifyLimitWindows, idOf[credit.LimitID]},
	{"windows of limits hold what open holds hold", "windows", sqlc.VerifyLimitHolds, idOf[credit.LimitID]},
	{"limits count what was taken", "counts", sqlc.VerifyLimitCounts, idOf[credit.LimitID]},
	{"nothing is posted ahead", "customers", sqlc.VerifyMarks, idOf[credit.CustomerID]},
	{"sub-ledger is what was posted", "grants", sqlc.VerifyCarrying, idOf[credit.GrantID]},
	{"no usage is counted ahead", "customers", sqlc.VerifyUsageMarks, idOf[credit.CustomerID]},
	{"usage slices are what was consumed", "slices", sqlc.VerifySlices, idOf[credit.CustomerID]},
	{"compute costs are what the receipts say", "costs", sqlc.VerifyCosts, idOf[credit.CustomerID]},
	{"usage hours are the sums of slices", "hours", sqlc.VerifyHours, idOf[credit.CustomerID]},
	{"top-ups are what they bought", "top-ups", sqlc.VerifyTopUps, idOf[credit.TopUpID]},
	{"control accounts equal sub-ledgers", "accounts", sqlc.VerifyAccounts, func(s string) string { return s }},
}

// idOf writes a uuid of Postgres as the identifier that it is.
func idOf[I interface {
	~[16]byte
	String() string
}](s string) string {
	u, err := uuid.Parse(s)
	if err != nil {
		return s
	}
	return I(u).String()
}

// Verified is the outcome of checking an [Invariant].
type Verified struct {
	Checked, Differ int64
	First           []string // the first things that differ, each "<id> <how>"
}

// Verify checks one invariant on one snapshot of the database, however long it takes, and names up to first things that differ.
func (s *Store) Verify(ctx context.Context, i Invariant, first int) (Verified, error) {
	var r Verified
	err := pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SET LOCAL work_mem = '256MB'"); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, "SELECT count(*), count(detail) FROM (\n"+i.query+"\n) AS x").Scan(&r.Checked, &r.Differ)
		if err != nil || r.Differ == 0 {
			return err
		}
		rows, err := tx.Query(ctx, "SELECT subject, detail FROM (\n"+i.query+"\n) AS x WHERE detail IS NOT NULL ORDER BY subject, detail LIMIT $1", first)
		if err != nil {
			return err
		}
		r.First, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
			var subject, detail string
			err := row.Scan(&subject, &detail)
			return i.subject(subject) + " " + detail, err
		})
		return err
	})
	if err != nil {
		return Verified{}, fmt.Errorf("verify that %s: %w", i.Name, err)
	}
	return r, nil
}

// CustomerIDs returns up to n customers after one, in order of id.
func (s *Store) CustomerIDs(ctx context.Context, after credit.CustomerID, n int) ([]credit.CustomerID, error) {
	rows, err := s.q.PageCustomerIDs(ctx, pgtype.UUID{Bytes: after, Valid: true}, int32(n))
	return page(rows, err, "read customers", func(id pgtype.UUID) credit.CustomerID { return id.Bytes })
}
