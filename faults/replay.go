package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
)

// book is one customer's unit book, brought forward version by version.
type book struct {
	all  map[credit.GrantID]*credit.Grant // as they were made, nothing issued
	open []*credit.Grant                  // in draw-down order
}

type operation struct {
	ver     int64
	kind    string
	amount  credit.Amount
	at      time.Time
	key     string
	unit    string
	member  credit.MemberID
	dims    credit.Dimensions
	receipt string
	moves   []movement
}

type movement struct {
	grant         credit.GrantID
	ver           int64
	debit, credit string
	amount, after credit.Amount
}

// replay decides a customer's whole history once more, from the operations alone, and compares.
func (r *Report) replay(ctx context.Context, tx pgx.Tx, id credit.CustomerID, calls map[string]*answered, denials []denial) error {
	b, err := readBook(ctx, tx, id)
	if err != nil {
		return fmt.Errorf("read the grants of %s: %w", id, err)
	}
	ops, err := r.readOperations(ctx, tx, id)
	if err != nil {
		return fmt.Errorf("read the operations of %s: %w", id, err)
	}
	slices.SortFunc(denials, func(x, y denial) int { return int(x.Ver - y.Ver) })
	last := time.Time{}
	for i := range len(ops) + 1 {
		// A refusal at a version was judged before the next operation: whatever expired until then, it had expired at most.
		ver, until := int64(0), time.Now()
		if i > 0 {
			ver = ops[i-1].ver
		}
		if i < len(ops) {
			until = ops[i].at
		}
		for len(denials) > 0 && denials[0].Ver <= ver {
			r.deny(b, denials[0], until)
			denials = denials[1:]
		}
		if i == len(ops) {
			break
		}
		op := &ops[i]
		if op.at.Before(last) {
			r.find(TimeRunsBack, "%s/%d at %s, after %s", id, op.ver, op.at, last)
		}
		last = op.at
		if err := r.apply(b, id, op); err != nil {
			return fmt.Errorf("replay %s/%d: %w", id, op.ver, err)
		}
		r.Operations++
		r.Movements += len(op.moves)
	}
	return nil
}

// deny asks whether a consumption that was refused could have been paid.
func (r *Report) deny(b *book, d denial, at time.Time) {
	if d.call.Kind != Consume {
		return
	}
	sel, err := credit.Select(b.open, need(d.call.Unit, d.call.Amount, at, credit.MemberID{}, d.call.Dims), nil)
	if err == nil && sel.Short == 0 {
		r.find(DenialUntrue, "%s: %d steps were refused at version %d", d.call.Key, d.call.Amount, d.Ver)
	}
}

func need(unit string, amount credit.Amount, at time.Time, member credit.MemberID, dims credit.Dimensions) credit.Need {
	return credit.Need{At: at, Unit: unit, Member: member, Dims: dims, Cost: func(credit.RateLock) (credit.Amount, error) { return amount, nil }}
}

// apply brings the book forward by one operation.
func (r *Report) apply(b *book, id credit.CustomerID, op *operation) error {
	if op.kind == "consume" {
		sel, err := credit.Select(b.open, need(op.unit, op.amount, op.at, op.member, op.dims), nil)
		if err != nil {
			return err
		}
		same := sel.Short == 0 && len(sel.Draws) == len(op.moves)
		for i := 0; same && i < len(op.moves); i++ {
			same = sel.Draws[i].Grant.ID == op.moves[i].grant && sel.Draws[i].Amount == op.moves[i].amount
		}
		if !same {
			r.find(WrongDraw, "%s/%d draws %+v, the rules give %+v", id, op.ver, op.moves, sel.Draws)
		}
	}
	var doc struct {
		ID        string     `json:"id"`
		ExpiresAt *time.Time `json:"expires_at"`
	}
	if err := json.Unmarshal([]byte(op.receipt), &doc); err != nil {
		return fmt.Errorf("read the receipt: %w", err)
	}
	if grant, err := credit.ParseID[credit.GrantID](doc.ID); err == nil && b.all[grant] != nil {
		g := b.all[grant]
		g.ExpiresAt = time.Time{}
		if doc.ExpiresAt != nil {
			g.ExpiresAt = *doc.ExpiresAt
		}
		switch op.kind {
		case "issue":
			g.Status = credit.StatusOpen
			b.open = append(b.open, g)
		case "freeze":
			g.Frozen = true
		case "unfreeze", "expire", "void":
			g.Frozen = false
		}
	}
	for _, m := range op.moves {
		g := b.all[m.grant]
		*counter(g, m.debit) -= m.amount
		*counter(g, m.credit) += m.amount
		if g.Available != m.after || g.Available < 0 {
			r.find(Negative, "%s has %d after %s/%d, the movement says %d", m.grant, g.Available, id, op.ver, m.after)
		}
		if g.Available == 0 && g.Held == 0 {
			g.Status = credit.StatusDepleted
		}
	}
	b.open = slices.DeleteFunc(b.open, func(g *credit.Grant) bool { return g.Status != credit.StatusOpen })
	slices.SortFunc(b.open, credit.CompareDrawOrder)
	return nil
}

// counter is where a grant keeps the balance of an account. What is issued comes from outside.
func counter(g *credit.Grant, account string) *credit.Amount {
	switch account {
	case "available":
		return &g.Available
	case "held":
		return &g.Held
	case "consumed":
		return &g.Consumed
	case "expired":
		return &g.Expired
	case "refunded":
		return &g.Refunded
	case "voided":
		return &g.Voided
	case "transferred":
		return &g.Transferred
	}
	return new(credit.Amount)
}

func readBook(ctx context.Context, tx pgx.Tx, id credit.CustomerID) (*book, error) {
	b := &book{all: make(map[credit.GrantID]*credit.Grant)}
	wallets := make(map[credit.WalletID]*credit.Wallet)
	rows, err := tx.Query(ctx, `SELECT id, unit, priority, scope FROM wallets WHERE customer_id = $1`, [16]byte(id))
	if err != nil {
		return nil, err
	}
	var w credit.Wallet
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&w.ID), &w.Unit, &w.Priority, &w.Scope}, func() error {
		mine := w
		wallets[w.ID] = &mine
		w.Scope = nil
		return nil
	}); err != nil {
		return nil, err
	}
	rows, err = tx.Query(ctx, `SELECT id, wallet_id, type, priority, scope, member_id, effective_at, basis_minor, amount
		FROM grants WHERE customer_id = $1`, [16]byte(id))
	if err != nil {
		return nil, err
	}
	var g credit.Grant
	var wallet [16]byte
	var member pgtype.UUID
	_, err = pgx.ForEachRow(rows, []any{
		(*[16]byte)(&g.ID), &wallet, (*string)(&g.Type), &g.Priority, &g.Scope, &member, &g.EffectiveAt, &g.Basis, (*int64)(&g.Amount),
	}, func() error {
		mine := g
		mine.CustomerID, mine.Wallet, mine.MemberID = id, wallets[wallet], member.Bytes
		b.all[g.ID] = &mine
		g.Scope = nil
		return nil
	})
	return b, err
}

func (r *Report) readOperations(ctx context.Context, tx pgx.Tx, id credit.CustomerID) ([]operation, error) {
	rows, err := tx.Query(ctx, `SELECT ver, kind::text, amount, at, key, coalesce(unit, ''), member_id, dims, receipt::text
		FROM operations WHERE customer_id = $1 ORDER BY ver`, [16]byte(id))
	if err != nil {
		return nil, err
	}
	var ops []operation
	var op operation
	var member pgtype.UUID
	if _, err := pgx.ForEachRow(rows, []any{
		&op.ver, &op.kind, (*int64)(&op.amount), &op.at, &op.key, &op.unit, &member, &op.dims, &op.receipt,
	}, func() error {
		op.member = member.Bytes
		ops = append(ops, op)
		op.dims = nil
		return nil
	}); err != nil {
		return nil, err
	}
	rows, err = tx.Query(ctx, `SELECT m.grant_id, m.ver, m.debit::text, m.credit::text, m.amount, m.after
		FROM movements AS m JOIN grants AS g ON g.id = m.grant_id WHERE g.customer_id = $1 ORDER BY m.ver, m.n`, [16]byte(id))
	if err != nil {
		return nil, err
	}
	var m movement
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&m.grant), &m.ver, &m.debit, &m.credit, (*int64)(&m.amount), (*int64)(&m.after)}, func() error {
		if i := int(m.ver) - 1; i < len(ops) && ops[i].ver == m.ver {
			ops[i].moves = append(ops[i].moves, m)
		} else {
			r.find(VerGap, "%s: the movement of %s at version %d has no operation, or more than one", id, m.grant, m.ver)
		}
		return nil
	})
	return ops, err
}
