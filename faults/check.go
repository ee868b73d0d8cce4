package faults

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
)

// The findings that [Check] looks for. None may occur.
const (
	AckLost        = "acknowledged and missing or different"
	AnswersDiffer  = "one key, two final answers"
	KeyTwice       = "a key with more than one operation"
	NoKeyRow       = "an operation without its key"
	DeniedDone     = "refused for good and yet carried out"
	DenialUntrue   = "refused although there was enough"
	UndecidedDone  = "this attempt changed nothing, and yet it did"
	Negative       = "a counter below zero, or not what the movement says"
	WrongDraw      = "drawn in another order than the rules give"
	CounterDiffers = "a counter that is not the sum of its movements"
	VerGap         = "a gap in a customer's versions"
	TimeRunsBack   = "a customer's time runs backwards"
	OrderBroken    = "an order of versions that real time contradicts"
	NoAnswer       = "a call that never got a final answer"
)

// Names lists all findings.
var Names = []string{
	AckLost, AnswersDiffer, KeyTwice, NoKeyRow, DeniedDone, DenialUntrue, UndecidedDone, Negative, WrongDraw, CounterDiffers, VerGap,
	TimeRunsBack, OrderBroken, NoAnswer,
}

// Report is what a check came to.
type Report struct {
	Calls, Attempts, Done, Refused, Unsettled int
	Operations, Movements                     int // replayed
	Found                                     map[string][]string
}

func (r *Report) find(name, format string, args ...any) {
	r.Found[name] = append(r.Found[name], fmt.Sprintf(format, args...))
}

// Clean tells whether nothing was found.
func (r *Report) Clean() bool { return len(r.Found) == 0 }

// String lists what was found, the first few of each kind.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d calls in %d attempts: %d done, %d refused, %d left; %d operations and %d movements replayed",
		r.Calls, r.Attempts, r.Done, r.Refused, r.Unsettled, r.Operations, r.Movements)
	for _, name := range Names {
		if found := r.Found[name]; len(found) > 0 {
			fmt.Fprintf(&b, "\n  %d x %s:\n    %s", len(found), name, strings.Join(found[:min(len(found), 3)], "\n    "))
		}
	}
	return b.String()
}

// answered is a call with what became of it.
type answered struct {
	*Call
	outcome
	ver     int64 // that the call's operation has, or that its refusal or reading was judged at; -1: not known
	changed bool  // it is an operation
}

// Check holds the history of the customers' calls against the database. Calls of the history whose client gave up before a final
// answer are allowed only where abandoned says so.
func Check(ctx context.Context, conn *pgx.Conn, h *History, abandoned func(*Call) bool) (*Report, error) {
	r := &Report{Found: make(map[string][]string)}
	calls := make(map[string]*answered)
	byCustomer := make(map[credit.CustomerID][]*answered)
	for _, c := range h.Calls() {
		a := &answered{Call: c, outcome: c.outcome(), ver: -1}
		byCustomer[c.Customer] = append(byCustomer[c.Customer], a)
		if c.Key != "" {
			calls[c.Key] = a
		}
		r.count(a, abandoned)
	}
	customers := make([][16]byte, 0, len(byCustomer))
	for id := range byCustomer {
		customers = append(customers, id)
	}
	// One snapshot, so that what still goes on does not look like a difference.
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin the check: %w", err)
	}
	defer tx.Rollback(ctx)
	for name, sql := range sums {
		rows, err := tx.Query(ctx, sql, customers)
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", name, err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", name, err)
		}
		for _, f := range found {
			r.find(name, "%s", f)
		}
	}
	denials, err := r.keys(ctx, tx, customers, calls)
	if err != nil {
		return nil, err
	}
	for id := range byCustomer {
		if err := r.replay(ctx, tx, id, calls, denials[id]); err != nil {
			return nil, err
		}
	}
	for _, list := range byCustomer {
		r.order(list)
	}
	return r, nil
}

func (r *Report) count(a *answered, abandoned func(*Call) bool) {
	r.Calls++
	r.Attempts += len(a.Attempts())
	switch {
	case a.differing != nil:
		r.find(AnswersDiffer, "%s: %d %s and %d %s", a.Key, a.final.Status, a.final.Body, a.differing.Status, a.differing.Body)
	case a.final == nil:
		r.Unsettled++
		if !abandoned(a.Call) {
			r.find(NoAnswer, "%s %s: %v", a.Kind, a.Key, a.Attempts())
		}
	case a.final.Status < 300:
		r.Done++
	default:
		r.Refused++
	}
}

// sums finds by itself, in one statement each, what the database must never show.
var sums = map[string]string{
	KeyTwice: `SELECT key || ' ' || count(*) FROM operations
		WHERE customer_id = ANY($1) AND kind <> 'expire' GROUP BY key HAVING count(*) > 1`,
	NoKeyRow: `SELECT o.key || ' of ' || o.customer_id || '/' || o.ver FROM operations AS o
		WHERE o.customer_id = ANY($1) AND o.kind <> 'expire'
			AND NOT EXISTS (SELECT FROM idempotency_keys AS k WHERE k.customer_id = o.customer_id AND k.ver = o.ver)`,
	VerGap: `SELECT h.customer_id || ': version ' || h.ver || ', ' || count(o.ver) || ' operations to ' || coalesce(max(o.ver), 0)
		FROM customer_heads AS h LEFT JOIN operations AS o ON o.customer_id = h.customer_id
		WHERE h.customer_id = ANY($1) GROUP BY h.customer_id, h.ver HAVING count(o.ver) <> h.ver OR coalesce(max(o.ver), 0) <> h.ver`,
	CounterDiffers: `SELECT g.id || ' of ' || g.customer_id FROM grants AS g, LATERAL (
			SELECT coalesce(sum(amount) FILTER (WHERE debit = 'issued'), 0) AS granted,
				coalesce(sum(CASE WHEN credit = 'available' THEN amount WHEN debit = 'available' THEN -amount END), 0) AS avail,
				coalesce(sum(amount) FILTER (WHERE credit = 'consumed'), 0) AS consumed,
				coalesce(sum(amount) FILTER (WHERE credit = 'expired'), 0) AS expired,
				coalesce(sum(amount) FILTER (WHERE credit = 'refunded'), 0) AS refunded,
				coalesce(sum(amount) FILTER (WHERE credit = 'voided'), 0) AS voided
			FROM movements WHERE grant_id = g.id) AS m
		WHERE g.customer_id = ANY($1) AND ((g.granted, g.avail, g.consumed, g.expired, g.refunded, g.voided) IS DISTINCT FROM
			(m.granted, m.avail, m.consumed, m.expired, m.refunded, m.voided) OR g.granted <> g.avail + g.held + g.consumed + g.expired + g.refunded + g.voided + g.transferred)`,
}

// denial is a refusal as it is stored.
type denial struct {
	Code string `json:"code"`
	Ver  int64  `json:"ver"`
	call *answered
}

// keys holds stored answers against those given, and returns the refusals by customer.
func (r *Report) keys(ctx context.Context, tx pgx.Tx, customers [][16]byte, calls map[string]*answered) (map[credit.CustomerID][]denial, error) {
	byDigest := make(map[[16]byte]*answered, len(calls))
	for key, a := range calls {
		sum := sha256.Sum256([]byte("client/" + key))
		byDigest[[16]byte(sum[:16])] = a
	}
	rows, err := tx.Query(ctx, `SELECT k.digest, k.customer_id, coalesce(k.ver, -1), k.response, o.receipt::text, o.key, o.request_id
		FROM idempotency_keys AS k LEFT JOIN operations AS o ON o.customer_id = k.customer_id AND o.ver = k.ver
		WHERE k.customer_id = ANY($1)`, customers)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	denials := make(map[credit.CustomerID][]denial)
	stored := make(map[*answered]bool, len(calls))
	var digest, customer [16]byte
	var request pgtype.UUID
	var ver int64
	var response, receipt, key pgtype.Text
	if _, err := pgx.ForEachRow(rows, []any{&digest, &customer, &ver, &response, &receipt, &key, &request}, func() error {
		a := byDigest[digest]
		if a == nil {
			return nil // of the test's own set-up
		}
		stored[a] = true
		a.ver = ver
		if a.Customer != customer {
			r.find(AckLost, "%s is stored for another customer", a.Key)
		}
		if a.changed = !response.Valid; a.changed {
			switch {
			case a.final != nil && a.final.Status >= 300:
				r.find(DeniedDone, "%s was answered %d %s and is operation %d", a.Key, a.final.Status, a.final.Code, ver)
			case a.final != nil && a.final.Body != receipt.String:
				r.find(AckLost, "%s was answered %s, stored is %s", a.Key, a.final.Body, receipt.String)
			case a.undecided:
				r.find(UndecidedDone, "%s is operation %d", a.Key, ver)
			}
			for _, try := range a.Attempts() {
				if try.Undecided() && try.Request == credit.RequestID(request.Bytes).String() {
					r.find(UndecidedDone, "%s was answered %s by the attempt that is operation %d", a.Key, try.Code, ver)
				}
			}
			if key.String != "client/"+a.Key {
				r.find(AckLost, "%s is stored with the operation of %s", a.Key, key.String)
			}
			return nil
		}
		d := denial{call: a}
		if err := json.Unmarshal([]byte(response.String), &d); err != nil {
			return fmt.Errorf("read the refusal of %s: %w", a.Key, err)
		}
		a.ver = d.Ver
		switch {
		case a.final != nil && (a.final.Status < 300 || a.final.Code != d.Code):
			r.find(AckLost, "%s was answered %d %s, stored is %s", a.Key, a.final.Status, a.final.Body, response.String)
		case a.undecided:
			r.find(UndecidedDone, "%s is refused at %d", a.Key, d.Ver)
		}
		denials[customer] = append(denials[customer], d)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	for _, a := range calls {
		if a.final != nil && !stored[a] && (a.final.Status < 300 || a.final.Status == 402) {
			r.find(AckLost, "%s was answered %d %s and its key is not known", a.Key, a.final.Status, a.final.Body)
		}
	}
	return denials, nil
}

// order looks for answers that are explained by no order of versions that real time allows: what was answered before another call was
// sent has the lower version.
func (r *Report) order(calls []*answered) {
	type event struct {
		at     time.Duration
		answer bool
		a      *answered
	}
	var events []event
	for _, a := range calls {
		if a.Kind == Read {
			a.ver = readVer(a)
		}
		if a.ver < 0 {
			continue
		}
		events = append(events, event{a.sent, false, a})
		if a.final != nil {
			events = append(events, event{a.answered, true, a})
		}
	}
	slices.SortFunc(events, func(x, y event) int { return cmp.Compare(x.at, y.at) })
	newest, by := int64(math.MinInt64), (*answered)(nil)
	for _, e := range events {
		switch {
		case e.answer:
			if e.a.ver > newest {
				newest, by = e.a.ver, e.a
			}
		case by == nil:
		// One that changed something has a version of its own; a refusal or a read shows the version before it.
		case e.a.ver < newest || e.a.ver == newest && e.a.changed:
			r.find(OrderBroken, "%s %s at version %d, answered at %s; %s %s at version %d, sent at %s",
				by.Kind, by.Key, newest, by.answered, e.a.Kind, e.a.Key, e.a.ver, e.a.sent)
		}
	}
}

// readVer returns the version that a reading showed.
func readVer(a *answered) int64 {
	if a.final == nil || a.final.Status != 200 || len(a.Attempts()) > 1 {
		return -1 // of several attempts none says which one it was
	}
	var doc struct {
		Ver int64 `json:"ver"`
	}
	if json.Unmarshal([]byte(a.final.Body), &doc) != nil {
		return -1
	}
	return doc.Ver
}
