package audit

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/seal"
)

// Options say what a period is held against.
type Options struct {
	Entity  string
	Period  ledger.Period
	Seal    *seal.Seal // as it was kept outside; nil: see Root
	Root    seal.Hash  // as it was kept outside, zero: none. With neither the newest seal in the database is taken
	Trusted []string   // ids of the keys that may have signed; nil: any
	First   int        // how many entries are named; 0: 10
}

// Report is what came of it.
type Report struct {
	Entity     string
	Period     ledger.Period
	Status     recognition.Status // of the period; "": nothing was ever booked in it
	Seal       *seal.Seal         // that it was held against; nil: only the root was given, or there is none
	Outside    bool               // the seal or root was given, and not read from the database
	Size       int64              // entries with a number now
	Root       seal.Hash          // over as many of them as the seal is over, else over all
	HashedLate int64              // entries whose hash the sealer made, not who wrote them
	Waiting    int64              // entries that have no number yet
	After      int64              // entries numbered after the seal, in a period that still took some
	Entries    []db.EntryFault    // entries that are not as they should be
	Faults     []string           // everything else that is not
	More       int64              // entries that are not named
	Took       time.Duration
}

// Clean tells whether everything is as it was sealed.
func (r *Report) Clean() bool { return len(r.Entries)+len(r.Faults) == 0 }

func (r *Report) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

// Verify computes the hash of every entry of a period from its rows, and the root over them, and compares: with the hashes that the sealer kept, and
// with the size, root and trial balance of a seal. An Error coded entity_not_found says that there is no such entity; other errors, that it could
// not be done. It reads and changes nothing.
func Verify(ctx context.Context, store *db.Store, o Options) (*Report, error) {
	began := time.Now()
	if o.First == 0 {
		o.First = 10
	}
	r := &Report{Entity: o.Entity, Period: o.Period, Seal: o.Seal, Outside: o.Seal != nil || !o.Root.IsZero()}
	kept, err := periodSeals(ctx, store, o)
	if err != nil {
		return nil, err
	}
	if o.Seal == nil {
		r.chooseSeal(kept, o.Root)
	}
	limit := int64(-1)
	if r.Seal != nil {
		limit = r.Seal.Size
	}
	a, err := store.AuditPeriod(ctx, o.Entity, o.Period, limit, o.First)
	if err != nil {
		return nil, err
	}
	r.Status, r.Size, r.HashedLate, r.Waiting, r.Entries, r.More = a.Status, a.Tree.Size(), a.HashedLate, a.Waiting, a.First, a.Faults-int64(len(a.First))
	if r.Root, err = a.Tree.Root(r.Size); err != nil {
		return nil, err
	}
	switch {
	case r.Seal != nil:
		err = r.compare(a, kept, o)
	case !o.Root.IsZero() && r.Root != o.Root:
		r.fault("the root of the %d entries is %s, and no seal in the database has the root given", r.Size, r.Root)
	}
	r.Took = time.Since(began)
	return r, err
}

// chooseSeal takes the seal with the given root, or without one the newest.
func (r *Report) chooseSeal(kept []*seal.Seal, root seal.Hash) {
	if root.IsZero() && len(kept) > 0 {
		r.Seal = kept[0]
	}
	for _, s := range kept {
		if !root.IsZero() && s.Root == root {
			r.Seal = s
		}
	}
}

// periodSeals reads the period's seals, newest first.
func periodSeals(ctx context.Context, store *db.Store, o Options) ([]*seal.Seal, error) {
	const atOnce = 100
	var all []*seal.Seal
	for before := int64(0); ; {
		page, err := store.Seals(ctx, o.Entity, o.Period, before, atOnce)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < atOnce {
			return all, nil
		}
		before = page[len(page)-1].Number
	}
}

// compare holds what the rows say against the seal.
func (r *Report) compare(a *db.AuditedPeriod, kept []*seal.Seal, o Options) error {
	s := r.Seal
	if s.Entity != o.Entity || s.Period != o.Period {
		r.fault("the seal is of %s of %s", s.Period, s.Entity)
		return nil
	}
	if err := s.Check(o.Trusted); err != nil {
		r.fault("%v", err)
	}
	at := slices.IndexFunc(kept, func(k *seal.Seal) bool { return k.Version == s.Version })
	switch {
	case at < 0:
		r.fault("seal %d of the period is not in the database", s.Version)
	case kept[at].Hash() != s.Hash():
		r.fault("seal %d of the period is another one in the database", s.Version)
	}
	if r.After = r.Size - s.Size; r.After < 0 {
		r.fault("the seal is over %d entries, there are %d: some of the last ones are gone", s.Size, r.Size)
		return nil
	}
	var err error
	if r.Root, err = a.Tree.Root(s.Size); err != nil {
		return err
	}
	if r.Root != s.Root {
		r.fault("the root of %d entries is %s, the seal's is %s", s.Size, r.Root, s.Root)
	}
	if h := a.Totals.Hash(a.Currency); h != s.TrialBalance {
		r.fault("the hash of the trial balance of %d entries is %s, the seal's is %s", s.Size, h, s.TrialBalance)
	}
	if s.Closed && r.After > 0 && !reopened(s, kept, r.Size, slices.Clone(o.Trusted)) {
		r.fault("the seal of the closed period is over %d entries, there are %d", s.Size, r.Size)
		r.Entries = append(r.Entries, a.Beyond...)
		r.More += r.After - int64(len(a.Beyond))
	}
	return nil
}

// reopened tells whether a later seal, by the same key or a trusted one, is over what came after a seal: the period was opened again, got more entries and was closed.
func reopened(s *seal.Seal, kept []*seal.Seal, size int64, trusted []string) bool {
	return slices.ContainsFunc(kept, func(k *seal.Seal) bool {
		return k.Version > s.Version && k.Size >= size && k.Check(append(trusted, s.KeyID)) == nil
	})
}

// WriteTo writes the report, what is wrong before the last line, and there the verdict.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s", r.Period, r.Entity)
	switch {
	case r.Status == "":
		b.WriteString(": nothing was ever booked in it\n")
	default:
		fmt.Fprintf(&b, ", %s: %d entries, root %s\n", r.Status, r.Size, r.Root)
	}
	switch s := r.Seal; {
	case s != nil:
		kind := "of what it had so far"
		if s.Closed {
			kind = "of the closed period"
		}
		fmt.Fprintf(&b, "seal %d %s, %s: %d entries, root %s, key %s, seal hash %s\n", s.Version, kind, s.SealedAt.Format(time.RFC3339), s.Size, s.Root, s.KeyID, s.Hash())
		if !r.Outside {
			b.WriteString("This seal was read from the database itself. It proves something when its root or hash is the one that was kept outside: --seal, --root.\n")
		}
	case !r.Outside:
		b.WriteString("There is no seal of it.\n")
	}
	if r.HashedLate > 0 {
		fmt.Fprintf(&b, "%d entries were posted by a release that did not hash them; their hashes are as old as their numbers.\n", r.HashedLate)
	}
	if r.Waiting > 0 {
		fmt.Fprintf(&b, "%d entries have no number yet.\n", r.Waiting)
	}
	for _, e := range r.Entries {
		name := ""
		if !e.Entry.IsZero() {
			name = e.Entry.String() + " "
		}
		if e.Seq > 0 && name != "" {
			name += fmt.Sprintf("(number %d) ", e.Seq)
		}
		fmt.Fprintf(&b, "  %s%s\n", name, e.How)
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "  and %d more\n", r.More)
	}
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	switch {
	case !r.Clean():
		b.WriteString("NOT CLEAN: the books are not what was sealed\n")
	case r.Seal != nil && r.After > 0:
		fmt.Fprintf(&b, "clean: the first %d entries are what was sealed, %d came after\n", r.Seal.Size, r.After)
	case r.Seal != nil || r.Outside:
		b.WriteString("clean: every entry is what was sealed\n")
	default:
		b.WriteString("clean: every entry is what was numbered; without a seal that proves little\n")
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}
