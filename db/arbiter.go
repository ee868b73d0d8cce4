package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/shopspring/decimal"

	pgxdecimal "github.com/jackc/pgx-shopspring-decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Arbiter makes the connections on which customers' credits are decided. Each [Lane] is one connection and runs one transaction at a
// time in two round trips: Lock, then Commit.
type Arbiter struct {
	cfg *pgx.ConnConfig
}

// NewArbiter prepares connections to the database that url names; none is made yet. tracer may be nil.
func NewArbiter(url string, tracer pgx.QueryTracer) (*Arbiter, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read database url: %w", err)
	}
	cfg.Tracer = tracer
	cfg.ConnectTimeout = 2 * time.Second
	runtimeParams(cfg.RuntimeParams)
	for name, value := range arbiterParams {
		cfg.RuntimeParams[name] = value
	}
	return &Arbiter{cfg: cfg}, nil
}

// arbiterParams: a lane never waits long for a lock, and a process that froze while it held one loses it within a second.
// Every statement of a batch finds its rows by key. Plans are therefore made once (generic) and kept from scanning or hashing whole
// tables, which a plan made while a table was small would do for ever after.
var arbiterParams = map[string]string{
	"idle_in_transaction_session_timeout": "1000",
	"lock_timeout":                        "1500",
	"synchronous_commit":                  "on",
	"plan_cache_mode":                     "force_generic_plan",
	"enable_seqscan":                      "off",
	"enable_bitmapscan":                   "off",
	"enable_hashjoin":                     "off",
	"enable_mergejoin":                    "off",
	"jit":                                 "off",
	"default_transaction_isolation":       "read committed",
}

// hostParams are set where the server's operating system has them.
var hostParams = []string{"SET client_connection_check_interval = 500", "SET tcp_user_timeout = 3000"}

// Lane is one of the arbiter's connections. It is not safe for concurrent use.
type Lane struct {
	// Sent is called when Commit has sent everything and has read nothing yet; for tests of crashes only. It may be nil.
	Sent func()

	conn *pgx.Conn
}

// Connect opens a lane.
func (a *Arbiter) Connect(ctx context.Context) (*Lane, error) {
	l := &Lane{}
	cfg := a.cfg.Copy()
	cfg.RuntimeParams["application_name"] = laneName
	cfg.OnNotice = noteWarning
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect lane: %w", err)
	}
	pgxdecimal.Register(conn.TypeMap())
	for _, set := range hostParams {
		if _, err := conn.Exec(ctx, set); err != nil && conn.IsClosed() {
			return nil, fmt.Errorf("set up lane: %w", err)
		}
	}
	l.conn = conn
	return l, nil
}

// Close drops the connection, and with it the transaction in progress.
func (l *Lane) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.conn.Close(ctx) // the server notices by itself when this fails
}

// laneName is what lanes are called in Postgres's list of sessions.
const laneName = "tallystick lane"

// endStuckLanes ends sessions that are inside a request and have waited for their client for longer than an idle transaction may last. (sqlc
// does not know the view.)
const endStuckLanes = `
	SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
	WHERE datname = current_database() AND application_name = $1 AND state = 'active' AND wait_event IN ('ClientRead', 'ClientWrite')
	  AND xact_start < clock_timestamp() - interval '1 second'`

// EndStuck ends the lanes, of this and of other processes, that keep customers locked while they wait for a client that fell silent in
// the middle of a request: frozen, or cut off. Postgres by itself ends only those that are silent between two requests. It returns how
// many it has ended.
func (a *Arbiter) EndStuck(ctx context.Context) (ended int, err error) {
	cfg := a.cfg.Copy()
	delete(cfg.RuntimeParams, "role") // the login role has the right to end its own sessions
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, fmt.Errorf("connect to end stuck lanes: %w", err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, endStuckLanes, laneName).Scan(&ended); err != nil {
		return 0, fmt.Errorf("end stuck lanes: %w", err)
	}
	return ended, nil
}

// Closed tells whether the connection is gone.
func (l *Lane) Closed() bool { return l.conn.IsClosed() }

// Digest is the first 16 bytes of a SHA-256.
type Digest = [16]byte

// LockRequest names what a batch needs.
type LockRequest struct {
	Customers   []credit.CustomerID   // ascending, each once: their rows are locked
	SkipLocked  bool                  // pass over customers that another transaction has locked: they are missing in Heads then
	Keys        []Digest              // idempotency keys to look up
	Load        []credit.CustomerID   // customers whose state is wanted
	Grants      []credit.GrantID      // grants wanted though they are not open
	Holds       []credit.HoldID       // holds wanted, with their grants
	Quarantined []credit.QuarantineID // usage wanted that could not be priced
}

// Locked is the committed state under the locks taken.
type Locked struct {
	Now           time.Time // of Postgres
	Epoch         string    // timeline of Postgres, 8 hexadecimal digits
	Configuration int64     // version of the rate cards
	Heads         map[credit.CustomerID]Head
	Keys          map[Digest]StoredAnswer
	Customers     map[credit.CustomerID]*CustomerState
	Grants        map[credit.GrantID]*credit.Grant // those of LockRequest.Grants that exist, and of the holds; Wallet has only its ID
	Holds         map[credit.HoldID]*credit.Hold   // those of LockRequest.Holds that exist
	Quarantined   map[credit.QuarantineID]QuarantinedState
}

// QuarantinedState is how quarantined usage stands.
type QuarantinedState struct {
	Customer credit.CustomerID
	State    string // as in [QuarantinedRow]
	Ver      int64
}

// Head is a customer's lock row.
type Head struct {
	Ver    int64
	LastAt time.Time
	Frozen bool
}

// StoredAnswer is what a used idempotency key was answered.
type StoredAnswer struct {
	Request Digest
	Status  int
	Answer  []byte
	Ver     int64 // of the operation; 0: a refusal
}

// CustomerState is a customer's wallets and open grants.
type CustomerState struct {
	Entity      string            // its legal entity
	Currency    string            // of that
	RateCard    credit.RateCardID // zero: the default card
	Assignments []Assignment      // of rate cards that may still price an event, by From
	Wallets     map[credit.WalletID]*credit.Wallet
	Grants      []*credit.Grant // open ones, in no order
	Gates       *CustomerGates  // nil: it has never had limits
}

// Lock begins a transaction, locks and reads. On an error nothing has changed and the lane is closed.
func (l *Lane) Lock(ctx context.Context, r LockRequest) (*Locked, error) {
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	// The locks and the reads are separate statements: a statement that locks returns the new row of the one it waited for, and
	// the old rows of everything it joins.
	if r.SkipLocked {
		b.Queue(sqlc.LockFreeHeads, uuids(r.Customers))
	} else {
		b.Queue(sqlc.LockHeads, uuids(r.Customers))
	}
	b.Queue(sqlc.ReadKeys, uuids(r.Keys))
	b.Queue(sqlc.ReadNow)
	queueLoad(b, r.Load)
	if len(r.Grants) > 0 {
		b.Queue(sqlc.ReadGrants, uuids(r.Grants))
	}
	if len(r.Holds) > 0 {
		ids := uuids(r.Holds)
		b.Queue(sqlc.ReadHolds, ids)
		b.Queue(sqlc.ReadHoldLines, ids)
		b.Queue(sqlc.ReadHoldGrants, ids)
	}
	if len(r.Quarantined) > 0 {
		b.Queue(sqlc.ReadQuarantined, uuids(r.Quarantined))
	}
	out, err := l.readLocked(ctx, b, r)
	if err != nil {
		l.Close()
		if pg, ok := asPgError(err); ok && pg.Code == "55P03" {
			err = fmt.Errorf("%w: %w", ErrLocked, err)
		}
		return nil, fmt.Errorf("lock batch: %w", err)
	}
	return out, nil
}

func (l *Lane) readLocked(ctx context.Context, b *pgx.Batch, r LockRequest) (_ *Locked, err error) {
	forgetWarning(l.conn)
	res := l.conn.SendBatch(ctx, b)
	defer func() {
		if cerr := res.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := res.Exec(); err != nil {
		return nil, err
	}
	out := &Locked{Heads: make(map[credit.CustomerID]Head, len(r.Customers))}
	if err := each(res, func(rows pgx.Rows) error {
		var id pgtype.UUID
		var h Head
		var at pgtype.Timestamptz
		if err := rows.Scan(&id, &h.Ver, &at, &h.Frozen); err != nil {
			return err
		}
		h.LastAt = fromTime(at)
		out.Heads[id.Bytes] = h
		return nil
	}); err != nil {
		return nil, err
	}
	if err := each(res, func(rows pgx.Rows) error {
		var digest, request, customer pgtype.UUID
		var ver pgtype.Int8
		var a StoredAnswer
		if err := rows.Scan(&digest, &request, &customer, &ver, &a.Answer, &a.Status); err != nil {
			return err
		}
		a.Request, a.Ver = request.Bytes, ver.Int64
		if out.Keys == nil {
			out.Keys = make(map[Digest]StoredAnswer)
		}
		out.Keys[digest.Bytes] = a
		return nil
	}); err != nil {
		return nil, err
	}
	if err := res.QueryRow().Scan(&out.Now, &out.Epoch, &out.Configuration); err != nil {
		return nil, err
	}
	if len(r.Load) > 0 {
		if out.Customers, err = readLoad(res); err != nil {
			return nil, err
		}
	}
	if len(r.Grants) > 0 {
		if err = out.readGrants(res); err != nil {
			return nil, err
		}
	}
	if len(r.Holds) > 0 {
		if out.Holds, err = readHolds(res); err == nil {
			err = out.readGrants(res)
		}
	}
	if err == nil && len(r.Quarantined) > 0 {
		out.Quarantined = make(map[credit.QuarantineID]QuarantinedState, len(r.Quarantined))
		err = each(res, func(rows pgx.Rows) error {
			var id, customer pgtype.UUID
			var ver pgtype.Int8
			var q QuarantinedState
			if err := rows.Scan(&id, &customer, &q.State, &ver); err != nil {
				return err
			}
			q.Customer, q.Ver = customer.Bytes, ver.Int64
			out.Quarantined[id.Bytes] = q
			return nil
		})
	}
	return out, err
}

// readGrants adds the grants of a result.
func (k *Locked) readGrants(res pgx.BatchResults) error {
	if k.Grants == nil {
		k.Grants = make(map[credit.GrantID]*credit.Grant)
	}
	return each(res, func(rows pgx.Rows) error {
		g, err := scanGrant(rows)
		if err == nil {
			k.Grants[g.ID] = g
		}
		return err
	})
}

// Load reads the state of customers within the transaction that Lock began. On an error the lane is closed.
func (l *Lane) Load(ctx context.Context, customers []credit.CustomerID) (map[credit.CustomerID]*CustomerState, error) {
	b := &pgx.Batch{}
	queueLoad(b, customers)
	res := l.conn.SendBatch(ctx, b)
	out, err := readLoad(res)
	if cerr := res.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("load customers: %w", err)
	}
	return out, nil
}

// CounterRef names a counter of a customer.
type CounterRef struct {
	Customer credit.CustomerID
	Key      string
}

// Counters reads what rate cards have counted, within the transaction that Lock began; one that is not there has counted nothing. On an
// error the lane is closed.
func (l *Lane) Counters(ctx context.Context, refs []CounterRef) (map[CounterRef]string, error) {
	customers, keys := make([]pgtype.UUID, len(refs)), make([]string, len(refs))
	for i, r := range refs {
		customers[i], keys[i] = uuidOf(r.Customer), r.Key
	}
	out := make(map[CounterRef]string, len(refs))
	b := &pgx.Batch{}
	b.Queue(sqlc.ReadCounters, customers, keys)
	err := l.send(ctx, b, func(res pgx.BatchResults) error {
		return each(res, func(rows pgx.Rows) error {
			var customer pgtype.UUID
			var key, value string
			if err := rows.Scan(&customer, &key, &value); err != nil {
				return err
			}
			out[CounterRef{customer.Bytes, key}] = value
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	return out, nil
}

// maxDrawn bounds how many grants credits are given back to at once.
const maxDrawn = 1_000

// Drawn reads the customer's grants in a unit that something is consumed of, the one drawn last first, within the transaction that Lock
// began. Wallet has only its ID. On an error the lane is closed.
func (l *Lane) Drawn(ctx context.Context, customer credit.CustomerID, unit string) ([]*credit.Grant, error) {
	var order []pgtype.UUID
	b := &pgx.Batch{}
	b.Queue(sqlc.ReadDrawn, unit, uuidOf(customer), maxDrawn)
	if err := l.send(ctx, b, func(res pgx.BatchResults) error {
		return each(res, func(rows pgx.Rows) error {
			var id pgtype.UUID
			err := rows.Scan(&id)
			order = append(order, id)
			return err
		})
	}); err != nil {
		return nil, fmt.Errorf("find drawn grants: %w", err)
	}
	byID := make(map[credit.GrantID]*credit.Grant, len(order))
	b = &pgx.Batch{}
	b.Queue(sqlc.ReadGrants, order)
	if err := l.send(ctx, b, func(res pgx.BatchResults) error {
		return each(res, func(rows pgx.Rows) error {
			g, err := scanGrant(rows)
			if err == nil {
				byID[g.ID] = g
			}
			return err
		})
	}); err != nil {
		return nil, fmt.Errorf("read drawn grants: %w", err)
	}
	grants := make([]*credit.Grant, 0, len(order))
	for _, id := range order {
		if g := byID[id.Bytes]; g != nil {
			grants = append(grants, g)
		}
	}
	return grants, nil
}

// Refunded is what refunds and voids of a grant come to, and what has become the price of other grants, in minor units of its price's currency.
type Refunded struct{ Money, Tax int64 }

// Refunded reads what has been paid back for a grant, or is to be, within the transaction that Lock began. On an error the lane is closed.
func (l *Lane) Refunded(ctx context.Context, grant credit.GrantID) (r Refunded, err error) {
	b := &pgx.Batch{}
	b.Queue(sqlc.ReadRefunded, uuidOf(grant))
	if err := l.send(ctx, b, func(res pgx.BatchResults) error { return res.QueryRow().Scan(&r.Money, &r.Tax) }); err != nil {
		return Refunded{}, fmt.Errorf("read refunds of grant %s: %w", grant, err)
	}
	return r, nil
}

// send runs statements within the transaction and has their results read. On an error the lane is closed.
func (l *Lane) send(ctx context.Context, b *pgx.Batch, read func(pgx.BatchResults) error) error {
	res := l.conn.SendBatch(ctx, b)
	err := read(res)
	if cerr := res.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		l.Close()
	}
	return err
}

func queueLoad(b *pgx.Batch, customers []credit.CustomerID) {
	if len(customers) == 0 {
		return
	}
	ids := uuids(customers)
	b.Queue(sqlc.ReadCustomers, ids)
	b.Queue(sqlc.ReadWallets, ids)
	b.Queue(sqlc.ReadOpenGrants, ids)
}

func readLoad(res pgx.BatchResults) (map[credit.CustomerID]*CustomerState, error) {
	out := make(map[credit.CustomerID]*CustomerState)
	if err := each(res, func(rows pgx.Rows) error {
		var id, card pgtype.UUID
		var assignments, gates []byte
		s := &CustomerState{Wallets: make(map[credit.WalletID]*credit.Wallet)}
		if err := rows.Scan(&id, &s.Entity, &s.Currency, &card, &assignments, &gates); err != nil {
			return err
		}
		s.RateCard = card.Bytes
		if assignments != nil {
			var err error
			if s.Assignments, err = readAssignments(assignments); err != nil {
				return err
			}
		}
		if gates != nil {
			var err error
			if s.Gates, err = readGates(gates); err != nil {
				return err
			}
		}
		out[id.Bytes] = s
		return nil
	}); err != nil {
		return nil, err
	}
	if err := each(res, func(rows pgx.Rows) error {
		var id, customer, member pgtype.UUID
		var w credit.Wallet
		var scope []byte
		var limit string
		if err := rows.Scan(&id, &customer, &w.Unit, &w.Name, &w.Priority, &scope, &limit, &member); err != nil {
			return err
		}
		w.ID, w.SoftCap, w.Member = id.Bytes, limit == "soft", member.Bytes
		var err error
		if w.Scope, err = readScope(scope); err != nil {
			return err
		}
		if s := out[customer.Bytes]; s != nil { // else the customer was made after the statement before
			s.Wallets[w.ID] = &w
		}
		return nil
	}); err != nil {
		return nil, err
	}
	err := each(res, func(rows pgx.Rows) error {
		g, err := scanGrant(rows)
		if err != nil {
			return err
		}
		if s := out[g.CustomerID]; s != nil {
			g.Wallet = s.Wallets[g.Wallet.ID]
			s.Grants = append(s.Grants, g)
		}
		return nil
	})
	return out, err
}

func each(res pgx.BatchResults, do func(pgx.Rows) error) error {
	rows, err := res.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func scanGrant(rows pgx.Rows) (*credit.Grant, error) {
	var g credit.Grant
	var id, customer, wallet, member, card, bonusOf, from pgtype.UUID
	var fromVer pgtype.Int8
	var scope []byte
	var effective, expires, created, issued pgtype.Timestamptz
	var currency, paymentRef pgtype.Text
	var fx decimal.NullDecimal
	var version pgtype.Int4
	if err := rows.Scan(&id, &customer, &wallet, (*string)(&g.Type), (*string)(&g.Status), &g.Frozen, &g.Priority, &scope, &member,
		&effective, &expires, &g.Price.Minor, &g.Tax, &currency, &fx, &g.Basis, &g.TaxBasis, &paymentRef, (*string)(&g.RatePolicy), &version,
		&card, &bonusOf, &created, &issued, (*int64)(&g.Amount), (*int64)(&g.Granted), (*int64)(&g.Available), (*int64)(&g.Held), (*int64)(&g.Consumed),
		(*int64)(&g.Expired), (*int64)(&g.Refunded), (*int64)(&g.Voided), (*int64)(&g.Transferred), &from, &fromVer); err != nil {
		return nil, err
	}
	g.ID, g.CustomerID, g.MemberID, g.RateCard, g.BonusOf = id.Bytes, customer.Bytes, member.Bytes, card.Bytes, bonusOf.Bytes
	g.From, g.FromVer = from.Bytes, fromVer.Int64
	g.Wallet = &credit.Wallet{ID: wallet.Bytes}
	g.EffectiveAt, g.ExpiresAt, g.CreatedAt, g.IssuedAt = fromTime(effective), fromTime(expires), fromTime(created), fromTime(issued)
	g.Price.Currency, g.PaymentRef, g.FXRate, g.RateVersion = currency.String, paymentRef.String, fx.Decimal, int(version.Int32)
	var err error
	g.Scope, err = readScope(scope)
	return &g, err
}

func readScope(b []byte) (credit.Scope, error) {
	if len(b) == 2 { // {}
		return nil, nil
	}
	var s credit.Scope
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read scope %s: %w", b, err)
	}
	return s, nil
}

// Changes is what a batch writes. All of it is one transaction.
type Changes struct {
	Keys           []KeyRow
	Operations     []OperationRow
	Movements      []MovementRow
	Counters       []CounterRow  // each key of a customer once
	Draws          []DrawRow     // grants touched by consumption only
	Grants         []GrantChange // other grants touched
	NewWallets     []NewWallet
	Wallets        []*credit.Wallet // changed ones
	Holds          []*credit.Hold   // new and changed ones
	NewGrants      []NewGrant
	Cards          []CustomerCard
	NewAssignments []AssignmentRow
	Assignments    []Assignment // whose end has changed
	Refunds        []RefundRow
	Corrected      []CorrectedRow // each operation once
	Disputes       []DisputeRow   // new and changed ones
	Outbox         []OutboxRow
	Events         []EventRow
	Heads          []HeadRow
	Quarantined    []QuarantinedRow // to be kept
	Retried        []RetriedRow     // kept ones that were tried again
	Limits         []LimitChange
	Windows        []WindowChange // each once
	LimitCounts    []LimitCount
	Members        []MemberRow         // changed ones
	Gated          []credit.CustomerID // that have their first limit, or a member that may not use everything
}

type (
	// KeyRow is one row of idempotency_keys: with Ver the operation's receipt is the answer, without it Response is.
	KeyRow struct {
		Digest, Request Digest
		Customer        credit.CustomerID
		Ver             int64
		Status          int16
		Response        string
	}
	// OperationRow is one row of operations. Empty Unit and Dims are NULL.
	OperationRow struct {
		Customer      credit.CustomerID
		Ver           int64
		Kind          string
		Amount        credit.Amount
		At, ServiceAt time.Time
		Actor         int32
		RequestID     credit.RequestID
		Member        credit.MemberID
		Key           string
		Unit          string
		Dims          string
		Receipt       []byte
	}
	// MovementRow is one row of movements.
	MovementRow struct {
		Grant         credit.GrantID
		Ver           int64
		N             int16
		Debit, Credit string
		Amount, After credit.Amount
	}
	// CounterRow is one row of rating_counters. Key and Value have the canonical forms of credit/rating.
	CounterRow struct {
		Customer   credit.CustomerID
		Key, Value string
		Ver        int64
	}
	// DrawRow is what consumption did to a grant.
	DrawRow struct {
		Grant         credit.GrantID
		Before, After credit.Amount
		Depleted      bool
	}
	// GrantChange is a grant's image before and after.
	GrantChange struct{ Before, After *credit.Grant }
	// NewWallet is a wallet to insert.
	NewWallet struct {
		Customer credit.CustomerID
		Wallet   *credit.Wallet
		At       time.Time
	}
	// NewGrant is a grant to insert.
	NewGrant struct {
		Grant    *credit.Grant
		Metadata map[string]string
	}
	// CustomerCard gives a customer another rate card; zero is the default card.
	CustomerCard struct {
		Customer credit.CustomerID
		Card     credit.RateCardID
	}
	// RefundRow is one row of refunds.
	RefundRow struct {
		ID              credit.RefundID
		Customer        credit.CustomerID
		Grant           credit.GrantID
		Ver             int64
		Units           credit.Amount
		Money, Tax      int64 // minor units of Currency
		Currency        string
		Basis, TaxBasis int64 // minor units of the entity's currency
		Reason, Status  string
		At              time.Time
	}
	// CorrectedRow is what has become of an operation that was corrected: one row of corrected_operations.
	CorrectedRow struct {
		Customer          credit.CustomerID
		Ver               int64
		Amount, Corrected credit.Amount
		Whole             bool
		UsageOf, RaisedBy int64 // versions; 0: none
	}
	// RetriedRow is what became of quarantined usage: with Ver that operation charged it, and is the answer to its key from then on.
	RetriedRow struct {
		ID     credit.QuarantineID
		Digest Digest // of its key
		Ver    int64
		Status int16 // of the key
		At     time.Time
		By     int32
		Code   credit.Code // without Ver: why it could not be charged
		Detail string
	}
	// OutboxRow is one row of the outbox. Payload is JSON.
	OutboxRow struct{ Topic, Subject, Payload string }
	// HeadRow is a customer's new head.
	HeadRow struct {
		Customer credit.CustomerID
		Ver      int64
		At       time.Time
	}
)

// Outcomes of Commit other than success.
var (
	// ErrUnknown says that the COMMIT was sent and nobody knows whether it took place.
	ErrUnknown = errors.New("the outcome of the commit is not known")
	// ErrConflict says that somebody else took an idempotency key or a version first, or that the decision was made on something other than
	// what the rows hold: nothing was written, and the batch should be decided again from fresh reads.
	ErrConflict = errors.New("the batch conflicts with a committed one")
	// ErrRefused says that the database refuses the batch itself, whatever else is going on: nothing was written.
	ErrRefused = errors.New("the database refuses the batch")
	// ErrLocked says that another transaction kept a row locked for longer than a lane waits: nothing was written.
	ErrLocked = errors.New("a row stays locked")
)

// Commit writes the changes and ends the transaction that Lock began. nil means durable. Any error closes the lane; it wraps ErrUnknown,
// ErrConflict or ErrRefused where one of them is the case, and otherwise means that nothing was written and that the batch may be run again.
func (l *Lane) Commit(ctx context.Context, c *Changes) error {
	b := &pgx.Batch{}
	if err := c.queue(b); err != nil {
		l.Close()
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	b.Queue("COMMIT")
	res := l.conn.SendBatch(ctx, b)
	if l.Sent != nil {
		l.Sent()
	}
	tag, err := execAll(res, b.Len())
	if cerr := res.Close(); err == nil {
		err = cerr
	}
	if err == nil && tag.String() != "COMMIT" {
		err = pgx.ErrTxCommitRollback
	}
	if err = commitOutcome(l.conn, err); err == nil {
		return nil
	}
	l.Close()
	pg, refused := asPgError(err)
	switch {
	case !refused || errors.Is(err, ErrUnknown):
		return fmt.Errorf("commit batch: %w", err)
	case pg.ConstraintName == "key_once", pg.ConstraintName == "operation_order", pg.ConstraintName == "grant_avail_sign",
		pg.ConstraintName == "limit_window_once", pg.ConstraintName == "limit_window_used_sign":
		return fmt.Errorf("%w: %w", ErrConflict, err)
	case strings.HasPrefix(pg.Code, "22"), strings.HasPrefix(pg.Code, "23"), strings.HasPrefix(pg.Code, "42"):
		return fmt.Errorf("%w: %w", ErrRefused, refusal(err))
	}
	return fmt.Errorf("commit batch: %w", err)
}

// Rollback ends the transaction that Lock began: nothing has changed. On an error the lane is closed.
func (l *Lane) Rollback(ctx context.Context) error {
	if _, err := l.conn.Exec(ctx, "ROLLBACK"); err != nil {
		l.Close()
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// warned marks a connection on which a warning came.
const warned = "tallystick.warned"

// noteWarning is told of every notice. When the wait for the standby is cancelled, a COMMIT is answered with a warning: it is on the primary
// only, and a failover may take it away. That warning has no code of its own and its text is translated, so every warning counts.
func noteWarning(conn *pgconn.PgConn, n *pgconn.Notice) {
	if n.SeverityUnlocalized == "WARNING" {
		conn.CustomData()[warned] = true
	}
}

func forgetWarning(conn *pgx.Conn) { delete(conn.PgConn().CustomData(), warned) }

// commitOutcome says what a COMMIT came to that ended with err, which is [pgx.ErrTxCommitRollback] when it was answered ROLLBACK: nil when it
// is durable, ErrUnknown when it may have taken place, and otherwise err, when nothing was written.
func commitOutcome(conn *pgx.Conn, err error) error {
	pg, answered := asPgError(err)
	switch {
	case err == nil && conn.PgConn().CustomData()[warned] != nil:
		return fmt.Errorf("%w: the wait for the standby was cancelled", ErrUnknown)
	case err == nil, errors.Is(err, pgx.ErrTxCommitRollback), answered && pg.SeverityUnlocalized == "ERROR":
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

func execAll(res pgx.BatchResults, n int) (tag pgconn.CommandTag, err error) {
	for range n {
		if tag, err = res.Exec(); err != nil {
			return tag, err
		}
	}
	return tag, nil
}

// isConnErr tells whether an error is about the connection rather than about a statement.
func isConnErr(err error) bool {
	var ne net.Error
	var ce *pgconn.ConnectError
	return errors.As(err, &ne) || errors.As(err, &ce) || errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "unexpected EOF") ||
		strings.Contains(err.Error(), "conn closed")
}

func uuids[I ~[16]byte](ids []I) []pgtype.UUID {
	out := make([]pgtype.UUID, len(ids))
	for i, id := range ids {
		out[i] = pgtype.UUID{Bytes: id, Valid: true}
	}
	return out
}
