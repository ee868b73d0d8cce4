package db

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Reconciliation compares two figures of the books, thing by thing. The numbers are those of the accounting policy (docs/close.md).
type Reconciliation struct {
	Code  string
	Name  string
	A, B  string // what is compared with what
	money bool   // the figures are minor units of the entity's currency; otherwise plain numbers
	query string
	// statement is the kind of the figure from outside; "": both are in the books.
	statement string
	subject   func(string) string // makes the text of an id
}

// Reconciliations are all that a close makes, in order. R6 compares the cache, which is not in Postgres: see [Store.Reconcile].
var Reconciliations = []Reconciliation{
	{Code: "R1", Name: "entries balance", A: "debits", B: "credits", money: true, query: sqlc.ReconcileEntries, subject: idOf[credit.EntryID]},
	{Code: "R2", Name: "prepaid credits", A: "accounts 2010 and 2019", B: "carrying amounts of the grants and true-up log", money: true, query: sqlc.ReconcilePrepaid, subject: idOf[credit.GrantID]},
	{Code: "R3", Name: "units", A: "credits issued", B: "credits in every place", query: sqlc.ReconcileUnits, subject: idOf[credit.GrantID]},
	{Code: "R4", Name: "carrying amounts are possible", A: "carrying amounts", B: "the nearest possible ones", money: true, query: sqlc.ReconcileCarrying,
		subject: idOf[credit.GrantID]},
	{Code: "R5", Name: "usage", A: "credits of the operations", B: "credits moved in the ledger", query: sqlc.ReconcileUsage, subject: operationOf},
	{Code: "R6", Name: "cached balances", A: "customers whose cached balances differ", B: "none"},
	{Code: "R7", Name: "processor balance", A: "account 1020", B: "statement of the processor", money: true, query: sqlc.ReconcileStatements, statement: "processor"},
	{Code: "R8", Name: "bank", A: "account 1010", B: "statement of the bank", money: true, query: sqlc.ReconcileStatements, statement: "bank"},
	{Code: "R9", Name: "unbilled overage", A: "account 1120", B: "overage used", money: true, query: sqlc.ReconcileUnbilled, subject: idOf[credit.GrantID]},
	{Code: "R10", Name: "opening balances", A: "balances before the period", B: "balances of the close before", money: true, query: sqlc.ReconcileOpening},
	{Code: "R11", Name: "tax", A: "account 2030", B: "tax report", money: true, query: sqlc.ReconcileStatements, statement: "tax"},
	{Code: "R12", Name: "compute cost", A: "account 2060", B: "bill of the provider", money: true, query: sqlc.ReconcileStatements, statement: "provider"},
	{Code: "R13", Name: "days and periods", A: "entries about another period", B: "entries that say so", query: sqlc.ReconcileDates, subject: idOf[credit.EntryID]},
	{Code: "R14", Name: "credits in transfer", A: "account 2011", B: "what arrives after the period", money: true, query: sqlc.ReconcileTransfers, subject: idOf[credit.GrantID]},
	{Code: "R15", Name: "disputed funds", A: "account 1130", B: "disputes that are open", money: true, query: sqlc.ReconcileDisputes, subject: idOf[credit.GrantID]},
}

// operationOf writes "<uuid>/<ver>" as the name of an operation.
func operationOf(s string) string {
	customer, ver, _ := strings.Cut(s, "/")
	return idOf[credit.CustomerID](customer) + "/" + ver
}

// How a reconciliation has come out.
const (
	Agrees      = "agrees"
	Differs     = "differs"
	Waived      = "waived"       // it differs, and an approver lets that stand
	NotProvided = "not_provided" // there is no statement
	Missing     = "missing"      // there is no statement, and the entity's settings require one
)

// Reconciled is what a reconciliation has found. Amounts are in major units of the entity's currency or plain numbers, as text.
type Reconciled struct {
	Code       string           `json:"code"`
	Name       string           `json:"name"`
	Compared   string           `json:"compared"` // A with B
	A          string           `json:"a"`
	B          string           `json:"b"`
	Difference string           `json:"difference"` // A less B, in sum
	Tolerance  string           `json:"tolerance"`
	Differing  int64            `json:"differing"` // things
	Status     string           `json:"status"`
	First      []Difference     `json:"first"` // the largest differences, 100 at most
	Waiver     *ReconcileWaiver `json:"waiver,omitempty"`
}

// Difference is one thing of which two figures differ.
type Difference struct {
	Subject string `json:"subject"`
	A       string `json:"a"`
	B       string `json:"b"`
}

// ReconcileWaiver says who lets a difference stand.
type ReconcileWaiver struct {
	By     string `json:"by"` // api key
	Name   string `json:"name"`
	Reason string `json:"reason"`
	At     string `json:"at"`
}

// Stands tells whether the reconciliation keeps the period from being closed.
func (r *Reconciled) Stands() bool { return r.Status == Differs || r.Status == Missing }

// Digest tells this difference from every other: a waiver is of one.
func (r Reconciled) Digest() string {
	r.Status, r.Waiver = Differs, nil
	b, err := canonical(r)
	if err != nil {
		panic("db: a reconciliation is no JSON: " + err.Error())
	}
	return digestOf(b)
}

// shown bounds the lists of a close.
const shown = 100

// reconcile makes all reconciliations on the snapshot of a transaction. stale is how many cached balances differed.
func reconcile(ctx context.Context, tx pgx.Tx, k CloseKey, stale int) ([]Reconciled, error) {
	q := sqlc.New(tx)
	b, err := readCloseBooks(ctx, q, k.Entity)
	if err != nil {
		return nil, err
	}
	waivers, err := q.CloseWaivers(ctx, k.Entity, string(k.Period), int32(k.Version))
	if err != nil {
		return nil, fmt.Errorf("read waivers: %w", err)
	}
	all := make([]Reconciled, 0, len(Reconciliations))
	for i := range Reconciliations {
		r, err := Reconciliations[i].run(ctx, tx, k, b.currency, stale)
		if err != nil {
			return nil, fmt.Errorf("reconcile %s: %w", Reconciliations[i].Code, err)
		}
		if r.Status == NotProvided && slices.Contains(b.Statements, Reconciliations[i].statement) {
			r.Status = Missing
		}
		if r.Stands() {
			digest := r.Digest()
			for _, w := range waivers {
				if w.Reconciliation == r.Code && w.FiguresSha256 == digest {
					r.Status = Waived
					r.Waiver = &ReconcileWaiver{keyID(w.WaivedBy), w.Name, w.Reason, fromTime(w.WaivedAt).Format(instantLayout)}
					break
				}
			}
		}
		all = append(all, r)
	}
	return all, nil
}

// keyID names an API key as the API does.
func keyID(no int32) string { return "key_" + strconv.Itoa(int(no)) }

func (r *Reconciliation) run(ctx context.Context, tx pgx.Tx, k CloseKey, currency string, stale int) (Reconciled, error) {
	text := func(n int64) string {
		if r.money {
			return credit.Money{Minor: n, Currency: currency}.String()
		}
		return strconv.FormatInt(n, 10)
	}
	out := Reconciled{Code: r.Code, Name: r.Name, Compared: r.A + " with " + r.B, Tolerance: text(0), Status: Agrees, First: []Difference{}}
	var a, b, checked int64
	if r.query == "" {
		a, checked, out.Differing = int64(stale), int64(stale), int64(stale)
	} else {
		from := "(\n" + r.query + "\n) AS x WHERE $3::text = '' OR subject = $3::text"
		args := []any{pgx.QueryExecModeExec, k.Entity, string(k.Period), r.statement}
		sums := "SELECT coalesce(sum(a), 0)::bigint, coalesce(sum(b), 0)::bigint, count(*), count(*) FILTER (WHERE a <> b) FROM " + from
		if err := tx.QueryRow(ctx, sums, args...).Scan(&a, &b, &checked, &out.Differing); err != nil {
			return out, err
		}
		if out.Differing > 0 {
			rows, err := tx.Query(ctx, "SELECT * FROM (SELECT subject, a, b FROM "+from+") AS y WHERE a <> b ORDER BY abs(a - b) DESC, subject LIMIT "+
				strconv.Itoa(shown), args...)
			if err != nil {
				return out, err
			}
			out.First, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Difference, error) {
				var subject string
				var a, b int64
				err := row.Scan(&subject, &a, &b)
				if r.subject != nil {
					subject = r.subject(subject)
				}
				return Difference{subject, text(a), text(b)}, err
			})
			if err != nil {
				return out, err
			}
		}
	}
	out.A, out.B, out.Difference = text(a), text(b), text(a-b)
	switch {
	case r.statement != "" && checked == 0:
		out.Status = NotProvided
	case out.Differing > 0:
		out.Status = Differs
	}
	return out, nil
}

// reconciled returns the reconciliations as the step has found them last; none, if it has not run.
func reconciled(ctx context.Context, q *sqlc.Queries, k CloseKey) ([]Reconciled, error) {
	steps, err := q.CloseSteps(ctx, k.Entity, string(k.Period), int32(k.Version))
	if err != nil {
		return nil, fmt.Errorf("read steps: %w", err)
	}
	for _, s := range steps {
		if s.Step == StepReconciliations {
			var f reconciliationFigures
			if err := json.Unmarshal(s.Figures, &f); err != nil {
				return nil, fmt.Errorf("read reconciliations: %w", err)
			}
			return f.Reconciliations, nil
		}
	}
	return nil, nil
}

type reconciliationFigures struct {
	Reconciliations []Reconciled `json:"reconciliations"`
}

// snapshot runs do on one snapshot of the database that nothing can be written from, however long it takes.
func (s *Store) snapshot(ctx context.Context, do func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		for _, set := range []string{"SET LOCAL statement_timeout = 0", "SET LOCAL work_mem = '256MB'"} {
			if _, err := tx.Exec(ctx, set); err != nil {
				return err
			}
		}
		return do(tx)
	})
}
