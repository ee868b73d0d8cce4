// Package db is Postgres: the schema, the queries, and the arbiter's batch. No other package knows SQL.
package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	pgxdecimal "github.com/jackc/pgx-shopspring-decimal"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Store reads and writes everything but the consume path, which is the [Arbiter]'s.
type Store struct {
	Pool      *pgxpool.Pool
	q         *sqlc.Queries
	documents documents

	catalogues catalogues
}

// Role is the role that every connection of the running product assumes: it may add to the ledger and cannot change it.
const Role = "tallystick_app"

// Options bound a Store's connections.
type Options struct {
	MaxConns int32           // 0: 16
	Tracer   pgx.QueryTracer // nil: none
}

// Open connects to the database that url names. The login role must be a member of [Role].
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read database url: %w", err)
	}
	cfg.MaxConns = 16
	if o.MaxConns > 0 {
		cfg.MaxConns = o.MaxConns
	}
	cfg.ConnConfig.Tracer = o.Tracer
	runtimeParams(cfg.ConnConfig.RuntimeParams)
	cfg.ConnConfig.RuntimeParams["statement_timeout"] = "60s"
	cfg.ConnConfig.OnNotice = noteWarning
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxdecimal.Register(conn.TypeMap())
		return nil
	}
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return &Store{Pool: pool, q: sqlc.New(pool)}, nil
}

// Close waits for the connections in use and closes them all.
func (s *Store) Close() { s.Pool.Close() }

func runtimeParams(p map[string]string) {
	p["role"] = Role
	p["TimeZone"] = "UTC"
	p["application_name"] = "tallystick"
}

// Tx runs do in one transaction, READ COMMITTED, and commits unless do returned an error. nil means durable. An error that wraps
// [ErrUnknown] says that the commit may have taken place; after any other nothing has changed. A caller who goes away does not
// cancel a commit that was begun, the deadline of ctx does.
func (s *Store) Tx(ctx context.Context, do func(pgx.Tx) error) error {
	conn, err := s.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // nothing is left to roll back after a commit
	if err := do(tx); err != nil {
		return err
	}
	staying := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		staying, cancel = context.WithDeadline(staying, deadline)
		defer cancel()
	}
	forgetWarning(conn.Conn())
	err = tx.Commit(staying)
	return commitOutcome(conn.Conn(), err)
}

// uuidOf and idOf carry identifiers over the border: the zero ID is NULL.
func uuidOf[I ~[16]byte](id I) pgtype.UUID {
	return pgtype.UUID{Bytes: id, Valid: id != I{}}
}

func timeOf(t time.Time) pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()}
}

func fromTime(t pgtype.Timestamptz) time.Time {
	if !t.Valid || t.InfinityModifier != pgtype.Finite {
		return time.Time{}
	}
	return t.Time.UTC()
}

func textOf(s string) pgtype.Text { return pgtype.Text{String: s, Valid: s != ""} }

// refusals are the constraints whose breach is the caller's doing, not a fault.
var refusals = map[string]*credit.Error{
	"rate_card_code":              credit.Errorf(credit.AlreadyExists, "There is a rate card with this code."),
	"customer_external_id":        credit.Errorf(credit.AlreadyExists, "There is a customer with this external_id."),
	"member_external_id":          credit.Errorf(credit.AlreadyExists, "The customer has a member with this external_id."),
	"wallet_name":                 credit.Errorf(credit.AlreadyExists, "The customer has a wallet of this name."),
	"units_pkey":                  credit.Errorf(credit.AlreadyExists, "There is a unit with this code."),
	"legal_entities_pkey":         credit.Errorf(credit.AlreadyExists, "There is a legal entity with this code."),
	"rate_cards_unit_fkey":        credit.Errorf(credit.UnitNotFound, "There is no unit with this code."),
	"customers_entity_fkey":       credit.Errorf(credit.EntityNotFound, "There is no legal entity with this code."),
	"customers_rate_card_id_fkey": credit.Errorf(credit.RateCardNotFound, "There is no such rate card."),
	"members_customer_id_fkey":    credit.Errorf(credit.CustomerNotFound, "There is no such customer."),
	"assignment_overlaps":         errOverlap,
	"second_person":               credit.Errorf(credit.SecondPerson, "Another person has to decide: another API key, of another name."),
	"approver_role":               credit.Errorf(credit.Forbidden, "Only a controller decides this."),
	"period_reopenings_pkey":      credit.Errorf(credit.CloseState, "It was asked for already; another person has to approve it."),
	"quarantined_once":            credit.Errorf(credit.AlreadyExists, "Usage of this idempotency key is in quarantine."),
	"dispute_reference":           credit.Errorf(credit.AlreadyExists, "There is a dispute with this reference, of another grant."),
	"withdrawn_once":              credit.Errorf(credit.AlreadyExists, "The version was withdrawn before."),

	"accounting_policies_entity_fkey": credit.Errorf(credit.EntityNotFound, "There is no legal entity with this code."),
	"accounting_policies_unit_fkey":   credit.Errorf(credit.UnitNotFound, "There is no unit with this code."),
	"breakage_estimates_entity_fkey":  credit.Errorf(credit.EntityNotFound, "There is no legal entity with this code."),
	"breakage_estimates_unit_fkey":    credit.Errorf(credit.UnitNotFound, "There is no unit with this code."),
	"policy_version":                  credit.Errorf(credit.NotExecuted, "Another version was prepared at the same time."),
	"estimate_version":                credit.Errorf(credit.NotExecuted, "Another version was prepared at the same time."),
	"policy_approved_once":            credit.Errorf(credit.AlreadyExists, "It was approved at the same time."),
	"estimate_approved_once":          credit.Errorf(credit.AlreadyExists, "It was approved at the same time."),
}

// refusal turns the breach of a constraint named in refusals into what it means, and leaves every other error.
func refusal(err error) error {
	if pg, ok := asPgError(err); ok {
		if e, ok := refusals[pg.ConstraintName]; ok {
			return e
		}
	}
	return err
}

func asPgError(err error) (pg *pgconn.PgError, ok bool) {
	ok = errors.As(err, &pg)
	return pg, ok
}

// IsDown tells whether an error says that Postgres could not be reached or is going down, so that the same call may succeed later.
func IsDown(err error) bool {
	if err == nil {
		return false
	}
	if pg, ok := asPgError(err); ok {
		return strings.HasPrefix(pg.Code, "57P0") || strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "53")
	}
	return pgconn.SafeToRetry(err) || isConnErr(err)
}

func nullDecimal(d decimal.Decimal) decimal.NullDecimal {
	return decimal.NullDecimal{Decimal: d, Valid: !d.IsZero()}
}

// scopeJSON writes a scope as its column has it.
func scopeJSON(s credit.Scope) ([]byte, error) {
	if s.General() {
		return []byte("{}"), nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write scope: %w", err)
	}
	return b, nil
}
