package db

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db/internal/sqlc"
	"github.com/tallystick/tallystick/seal"
)

// numberAtOnce bounds how many entries one transaction of the sealer numbers, and how many are read at once to be checked.
const numberAtOnce = 5_000

// NumberEntries gives numbers to journal entries that have none, up to some thousands at a time; more tells whether there may be others. Any
// number of processes may call it: one works at a time, the others do nothing.
func (s *Store) NumberEntries(ctx context.Context) (numbered int, more bool, err error) {
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		mark, err := q.TryLockSealer(ctx)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("lock the sealer: %w", err)
		}
		now, err := q.SealerHorizon(ctx) // before the entries are looked for, so that it holds for all that are not found
		if err != nil {
			return fmt.Errorf("read the horizon: %w", err)
		}
		rows, err := q.EntriesToNumber(ctx, mark.No, numberAtOnce)
		if err != nil {
			return fmt.Errorf("find entries: %w", err)
		}
		if err := numberEntries(ctx, q, rows); err != nil {
			return err
		}
		numbered = len(rows)
		more = numbered == numberAtOnce
		next := mark
		switch {
		case mark.NextXid > now.Begun: // the database was restored from a dump, and transactions are numbered anew
			next.NextNo, next.NextXid = now.Head, now.Begun
		case mark.NextXid > now.Ended: // an entry may come to be among those looked at
		case more && rows[numbered-1].No < mark.NextNo:
			next.No = rows[numbered-1].No
		default:
			next.No, next.NextNo, next.NextXid = mark.NextNo, now.Head, now.Begun
		}
		if next.No == mark.No && next.NextNo == mark.NextNo && mark.NextXid <= now.Begun {
			return nil // nothing new was posted
		}
		return q.MoveSealer(ctx, next.No, next.NextNo, next.NextXid)
	})
	if err != nil {
		return 0, false, fmt.Errorf("number journal entries: %w", err)
	}
	return numbered, more, nil
}

// numberEntries gives entries the next numbers of their periods, in the order given. The caller has locked the sealer.
func numberEntries(ctx context.Context, q *sqlc.Queries, rows []sqlc.EntriesToNumberRow) error {
	if len(rows) == 0 {
		return nil
	}
	var old []pgtype.UUID
	for _, r := range rows {
		if r.Leaf == nil {
			old = append(old, r.ID)
		}
	}
	hashed, err := readSealed(ctx, q, old)
	if err != nil {
		return err
	}
	type books struct{ entity, period string }
	last := make(map[books]int64)
	out := make([]sqlc.AddSealedEntriesParams, len(rows))
	for i, r := range rows {
		b := books{r.Entity, r.Period}
		if _, known := last[b]; !known {
			if last[b], err = q.LastSealedNumber(ctx, b.entity, b.period); err != nil {
				return fmt.Errorf("read the last number of %s in %s: %w", b.period, b.entity, err)
			}
		}
		last[b]++
		out[i] = sqlc.AddSealedEntriesParams{Entity: b.entity, Period: b.period, Seq: last[b], EntryID: r.ID, Leaf: r.Leaf}
		if r.Leaf == nil {
			leaf := hashed[r.ID.Bytes].Leaf()
			out[i].Leaf, out[i].HashedLate = leaf[:], true
		}
	}
	if _, err := q.AddSealedEntries(ctx, out); err != nil {
		return fmt.Errorf("write %d numbers: %w", len(out), err)
	}
	return nil
}

// readSealed reads entries as they are stored.
func readSealed(ctx context.Context, q *sqlc.Queries, ids []pgtype.UUID) (map[credit.EntryID]*seal.Entry, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	heads, err := q.EntriesToHash(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	entries := make(map[credit.EntryID]*seal.Entry, len(heads))
	for _, h := range heads {
		entries[h.ID.Bytes] = &seal.Entry{
			ID: h.ID.Bytes, Cause: h.Cause, Entity: h.Entity, Period: ledger.Period(h.Period), Day: dayOf(h.ServiceOn), PostedAt: fromTime(h.PostedAt),
			Kind: ledger.Kind(h.Kind), Customer: h.CustomerID.Bytes, Grant: h.GrantID.Bytes, VerFrom: h.VerFrom.Int64, VerTo: h.VerTo.Int64, Late: h.Late,
			Reverses: h.Reverses.Bytes,
		}
	}
	legs, err := q.ReadPostings(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read postings: %w", err)
	}
	for _, l := range legs {
		if e := entries[l.EntryID.Bytes]; e != nil { // its entry may have been taken away
			e.Postings = append(e.Postings, seal.Posting{N: int(l.N), Posting: postingOf(l)})
		}
	}
	return entries, nil
}

// SealBacklog is what waits for the sealer.
type SealBacklog struct {
	Entries int64
	Oldest  time.Duration // how long ago the oldest of them was posted
}

// MeasureSealer returns how many entries have no number yet.
func (s *Store) MeasureSealer(ctx context.Context) (SealBacklog, error) {
	r, err := s.q.MeasureSealer(ctx)
	if err != nil {
		return SealBacklog{}, fmt.Errorf("measure the sealer: %w", err)
	}
	return SealBacklog{r.Waiting, time.Duration(r.Seconds * float64(time.Second))}, nil
}

// SealPeriod seals what a period of an entity has, and keeps the seal. sign signs it. pack is the hash of the close pack that was approved, zero for
// none. Where the last seal of the period says the same it is returned again, so that the call may be repeated.
//
// An Error coded entity_not_found says that there is no such entity, not_found that nothing was ever booked in the period, seal_broken that the
// entries sealed before are not what they were, or that a closed period has got others since: then the books are to be looked into.
func (s *Store) SealPeriod(ctx context.Context, entity string, period ledger.Period, pack seal.Hash, sign func(*seal.Seal)) (*seal.Seal, error) {
	books, err := s.Entity(ctx, entity)
	if err != nil {
		return nil, err
	}
	var sealed *seal.Seal
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		if _, err := q.LockSealer(ctx); err != nil {
			return fmt.Errorf("lock the sealer: %w", err)
		}
		p, err := q.LockPeriod(ctx, entity, string(period))
		if err != nil {
			return found(err, credit.Errorf(credit.NotFound, "Nothing was ever booked in %s of %s.", period, entity), "lock the period")
		}
		sealed, err = sealPeriod(ctx, q, sealing{books: books, period: period, pack: pack, sign: sign, closed: recognition.Status(p.Status) == recognition.Closed, version: p.Version})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("seal %s of %s: %w", period, entity, err)
	}
	return sealed, nil
}

type sealing struct {
	books   EntityRow
	period  ledger.Period
	pack    seal.Hash
	sign    func(*seal.Seal)
	closed  bool
	version int32 // of the period
}

func sealPeriod(ctx context.Context, q *sqlc.Queries, in sealing) (*seal.Seal, error) {
	entity, period := in.books.Code, string(in.period)
	left, err := q.PeriodEntriesToNumber(ctx, entity, period)
	if err != nil {
		return nil, fmt.Errorf("find entries: %w", err)
	}
	rows := make([]sqlc.EntriesToNumberRow, len(left))
	for i, r := range left {
		rows[i] = sqlc.EntriesToNumberRow(r)
	}
	if err := numberEntries(ctx, q, rows); err != nil {
		return nil, err
	}
	size, err := q.LastSealedNumber(ctx, entity, period)
	if err != nil {
		return nil, fmt.Errorf("read the last number: %w", err)
	}
	tree, err := sealedTree(ctx, q, entity, in.period, size)
	if err != nil {
		return nil, err
	}
	if tree.Size() != size {
		return nil, credit.Errorf(credit.SealBroken, "Of the numbers 1 to %d of %s there are %d.", size, period, tree.Size()).With("sealed", size).With("size", tree.Size())
	}
	next := &seal.Seal{Entity: entity, Period: in.period, Version: 1, Number: 1, Closed: in.closed, Size: size, Pack: in.pack}
	if next.Root, err = tree.Root(size); err != nil {
		return nil, err
	}
	before, err := q.LastSealOfPeriod(ctx, entity, period)
	switch {
	case err == nil:
		old, err := seal.Read(before.Document)
		if err != nil {
			return nil, err
		}
		if err := continues(tree, before, old, in); err != nil {
			return nil, err
		}
		if before.Size == size && before.Closed == in.closed && before.PeriodVersion == in.version && old.Pack == in.pack {
			return old, nil
		}
		next.Version = old.Version + 1
	case !errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("read the period's last seal: %w", err)
	}
	last, err := q.LastSeal(ctx, entity)
	switch {
	case err == nil:
		old, err := seal.Read(last.Document)
		if err != nil {
			return nil, err
		}
		next.Number, next.Previous = old.Number+1, old.Hash()
	case !errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("read the entity's last seal: %w", err)
	}
	totals, err := q.PeriodTotals(ctx, entity, period, size)
	if err != nil {
		return nil, fmt.Errorf("read the trial balance: %w", err)
	}
	balance := make(seal.Totals, len(totals))
	for _, t := range totals {
		balance[ledger.Account(t.Account)] = seal.AccountTotal{Debit: t.Debit, Credit: t.Credit}
	}
	next.TrialBalance = balance.Hash(in.books.Currency)
	at, err := q.PostingTime(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the time: %w", err)
	}
	next.SealedAt = seal.Instant{Time: fromTime(at)}
	in.sign(next)
	document, err := next.JSON()
	if err != nil {
		return nil, err
	}
	row := sqlc.AddSealParams{Entity: entity, Number: next.Number, Period: period, Version: int32(next.Version), PeriodVersion: in.version, Closed: in.closed,
		Size: size, Document: document}
	if !in.pack.IsZero() {
		row.Pack = in.pack[:]
	}
	if err := q.AddSeal(ctx, row); err != nil {
		return nil, fmt.Errorf("write the seal: %w", err)
	}
	return next, nil
}

// continues checks that what a period has now begins with what it had when it was sealed last.
func continues(tree *seal.Tree, before sqlc.Seal, old *seal.Seal, in sealing) error {
	broken := func(format string, args ...any) error {
		return credit.Errorf(credit.SealBroken, format, args...).With("version", old.Version).With("sealed", old.Size).With("size", tree.Size())
	}
	if tree.Size() < old.Size {
		return broken("The last seal of %s is over %d entries, and there are %d.", in.period, old.Size, tree.Size())
	}
	if root, err := tree.Root(old.Size); err != nil || root != old.Root {
		return broken("The entries of %s are not those that were sealed last.", in.period)
	}
	if before.Closed && in.closed && before.PeriodVersion == in.version && tree.Size() != old.Size {
		return broken("%s was closed and sealed with %d entries, and has %d.", in.period, old.Size, tree.Size())
	}
	return nil
}

// sealedTree is the tree over a period's entries up to a number, by the hashes that the sealer kept.
func sealedTree(ctx context.Context, q *sqlc.Queries, entity string, period ledger.Period, size int64) (*seal.Tree, error) {
	leaves, err := q.SealedLeaves(ctx, entity, string(period), size)
	if err != nil {
		return nil, fmt.Errorf("read hashes: %w", err)
	}
	tree := new(seal.Tree)
	for _, l := range leaves {
		tree.Append(seal.Hash(l))
	}
	return tree, nil
}

// Seals returns up to n seals of an entity, newest first, before a number (0: from the newest), of one period when it is not "".
func (s *Store) Seals(ctx context.Context, entity string, period ledger.Period, before int64, n int) ([]*seal.Seal, error) {
	if before == 0 {
		before = 1<<63 - 1
	}
	rows, err := s.q.PageSeals(ctx, sqlc.PageSealsParams{Entity: entity, Period: textOf(string(period)), Before: before, PageSize: int32(n)})
	if err != nil {
		return nil, fmt.Errorf("read seals: %w", err)
	}
	out := make([]*seal.Seal, len(rows))
	for i, r := range rows {
		if out[i], err = seal.Read(r.Document); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ProveEntry proves that a journal entry is in the first seal that was made after it got its number. An Error coded not_found says that there is no such
// entry, not_sealed that no seal has it yet, seal_broken that it cannot be proved, because the entry or others are not what was sealed.
func (s *Store) ProveEntry(ctx context.Context, id credit.EntryID) (*seal.Proof, error) {
	var proof *seal.Proof
	err := pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		q := s.q.WithTx(tx)
		entries, err := readSealed(ctx, q, []pgtype.UUID{uuidOf(id)})
		if err != nil {
			return err
		}
		e := entries[id]
		if e == nil {
			return credit.Errorf(credit.NotFound, "There is no journal entry %s.", id)
		}
		unsealed := credit.Errorf(credit.NotSealed, "No seal of %s of %s has the entry yet.", e.Period, e.Entity)
		at, err := q.FindSealedEntry(ctx, uuidOf(id))
		if err != nil {
			return found(err, unsealed, "find the entry's number")
		}
		row, err := q.FirstSealCovering(ctx, at.Entity, at.Period, at.Seq)
		if err != nil {
			return found(err, unsealed, "find a seal")
		}
		sealed, err := seal.Read(row.Document)
		if err != nil {
			return err
		}
		tree, err := sealedTree(ctx, q, at.Entity, ledger.Period(at.Period), sealed.Size)
		if err != nil {
			return err
		}
		path, err := tree.Include(sealed.Size, at.Seq-1)
		if err != nil {
			return credit.Errorf(credit.SealBroken, "The seal is over %d entries, and there are %d.", sealed.Size, tree.Size())
		}
		proof = &seal.Proof{Entry: e.Canonical(), Index: at.Seq - 1, Path: path, Seal: *sealed}
		if _, err := proof.Check(sealed.Root, nil); err != nil {
			return credit.Errorf(credit.SealBroken, "The entry is not as it was sealed, or others are not.")
		}
		return nil
	})
	return proof, wrap(err, "prove journal entry")
}

// AuditedPeriod is what the rows of a period say about themselves.
type AuditedPeriod struct {
	Currency   string
	Status     recognition.Status
	Tree       *seal.Tree  // over the entries as they stand now, in order of their numbers; of one that is gone its leaf is zero
	Totals     seal.Totals // of the first Limit entries
	HashedLate int64       // entries that the sealer hashed itself
	Waiting    int64       // entries that have no number yet, as it is for some seconds
	Faults     int64
	First      []EntryFault // the first faults
	Beyond     []EntryFault // entries with numbers after Limit, not more than as many as of faults
}

// EntryFault names an entry that is not as it should be.
type EntryFault struct {
	Entry credit.EntryID // zero: numbers are missing, and with them whatever had them
	Seq   int64          // its number in the period; 0: it has none
	How   string
}

// AuditPeriod reads every entry of a period on one snapshot, however long it takes, computes its hash and compares it with the one that the sealer
// kept. limit is how many entries a seal is over, negative for all; first bounds how many faults are named. An Error coded entity_not_found says
// that there is no such entity.
func (s *Store) AuditPeriod(ctx context.Context, entity string, period ledger.Period, limit int64, first int) (*AuditedPeriod, error) {
	books, err := s.Entity(ctx, entity)
	if err != nil {
		return nil, err
	}
	a := &auditing{first: first, limit: limit, AuditedPeriod: AuditedPeriod{Currency: books.Currency, Tree: new(seal.Tree), Totals: seal.Totals{}}}
	err = pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		return a.run(ctx, s.q.WithTx(tx), entity, period)
	})
	if err != nil {
		return nil, fmt.Errorf("audit %s of %s: %w", period, entity, err)
	}
	return &a.AuditedPeriod, nil
}

type auditing struct {
	AuditedPeriod
	first int
	limit int64
	seq   int64
}

func (a *auditing) fault(id credit.EntryID, seq int64, format string, args ...any) {
	if a.Faults++; len(a.First) < a.first {
		a.First = append(a.First, EntryFault{id, seq, fmt.Sprintf(format, args...)})
	}
}

func (a *auditing) run(ctx context.Context, q *sqlc.Queries, entity string, period ledger.Period) error {
	status, err := q.PeriodStatus(ctx, entity, string(period))
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("read the period: %w", err)
	}
	a.Status = recognition.Status(status)
	for {
		page, err := q.SealedEntries(ctx, sqlc.SealedEntriesParams{Entity: entity, Period: string(period), After: a.seq, N: numberAtOnce})
		if err != nil {
			return fmt.Errorf("read numbers: %w", err)
		}
		if len(page) == 0 {
			break
		}
		if err := a.page(ctx, q, page); err != nil {
			return err
		}
	}
	unnumbered, err := q.UnnumberedEntries(ctx, entity, string(period))
	if err != nil {
		return fmt.Errorf("find entries without a number: %w", err)
	}
	for _, r := range unnumbered {
		switch {
		case r.Elsewhere:
			a.fault(r.ID.Bytes, 0, "has the number of another period: it was booked in that one")
		case r.Passed || a.Status == recognition.Closed && a.limit >= 0: // a period is sealed with all it has
			a.fault(r.ID.Bytes, 0, "has no number: it was put in behind the sealer's back")
		default:
			a.Waiting++
		}
	}
	return nil
}

func (a *auditing) page(ctx context.Context, q *sqlc.Queries, page []sqlc.SealedEntriesRow) error {
	ids := make([]pgtype.UUID, len(page))
	for i, r := range page {
		ids[i] = r.EntryID
	}
	entries, err := readSealed(ctx, q, ids)
	if err != nil {
		return err
	}
	for _, r := range page {
		switch missing := r.Seq - a.seq - 1; {
		case missing == 1:
			a.fault(credit.EntryID{}, r.Seq-1, "number %d is missing", r.Seq-1)
		case missing > 1:
			a.fault(credit.EntryID{}, a.seq+1, "numbers %d to %d are missing", a.seq+1, r.Seq-1)
		}
		a.seq = r.Seq
		var leaf seal.Hash
		e := entries[r.EntryID.Bytes]
		if e == nil {
			a.fault(r.EntryID.Bytes, r.Seq, "is not in the journal any more")
		} else if leaf = e.Leaf(); leaf != seal.Hash(r.Leaf) {
			a.fault(r.EntryID.Bytes, r.Seq, "is not what was posted: its hash is %s, it was %s", leaf, seal.Hash(r.Leaf))
		}
		a.Tree.Append(leaf)
		if r.HashedLate {
			a.HashedLate++
		}
		switch {
		case a.limit >= 0 && r.Seq > a.limit:
			if len(a.Beyond) < a.first {
				a.Beyond = append(a.Beyond, EntryFault{r.EntryID.Bytes, r.Seq, "came after the seal"})
			}
		case e != nil:
			a.Totals.Add(e)
		}
	}
	return nil
}
