package db

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// postAtOnce bounds how many operations one transaction turns into entries.
const postAtOnce = 50_000

// Recognised says what a call of [Store.RecogniseCustomer] did.
type Recognised struct {
	Entries    int   // posted
	Operations int   // covered, whether or not they moved money
	From, To   int64 // the customer's versions before and after: operations From+1 to To are covered
}

// RecogniseCustomer posts the journal entries of the customer's operations that none has been posted for, up to the newest one when it
// is called. Posted once is posted for ever: running it again posts nothing, and running it twice at once, or while operations go
// on, posts what one run would. An Error coded customer_not_found says that there is no such customer.
func (s *Store) RecogniseCustomer(ctx context.Context, customer credit.CustomerID) (Recognised, error) {
	var all Recognised
	for first, goal := true, int64(0); first || all.To < goal; first = false {
		var p pass
		err := s.Tx(ctx, func(tx pgx.Tx) error {
			p = pass{q: s.q.WithTx(tx), customer: customer}
			return p.run(ctx)
		})
		if err != nil {
			return all, fmt.Errorf("recognise customer %s: %w", customer, err)
		}
		if first {
			all.From, goal = p.from, p.head
		}
		all.To = p.to
		all.Entries += len(p.entries)
		all.Operations += int(p.to - p.from)
	}
	return all, nil
}

// CustomersToRecognise returns up to n customers after one, in order of id, who have operations that no entry has been posted for.
func (s *Store) CustomersToRecognise(ctx context.Context, after credit.CustomerID, n int) ([]credit.CustomerID, error) {
	rows, err := s.q.CustomersToRecognise(ctx, pgtype.UUID{Bytes: after, Valid: true}, int32(n))
	return page(rows, err, "read customers to recognise", func(id pgtype.UUID) credit.CustomerID { return id.Bytes })
}

// pass is one transaction of RecogniseCustomer.
type pass struct {
	q        *sqlc.Queries
	customer credit.CustomerID
	entity   string
	currency string // the entity's
	from, to,
	head int64
	rows     []sqlc.MovementsToRecogniseRow
	grants   map[credit.GrantID]*grantBooks
	origins  map[credit.GrantID]*sqlc.OriginsToRecogniseRow
	refunds  map[refunded]*sqlc.RefundsToRecogniseRow
	disputes []*disputeBooks
	periods  map[ledger.Period]ledger.Period // of the service -> of the entry
	rules    []recognition.Policy            // approved, in order of approval
	entries  []ledger.Entry
}

// refunded names what an operation took back of a grant.
type refunded struct {
	ver   int64
	grant credit.GrantID
}

// grantBooks is what the money book knows about a grant.
type grantBooks struct {
	id              credit.GrantID
	kind            credit.GrantType
	unit            string
	price, tax      credit.Money     // as paid; zero Currency: nothing was
	taxBasis        int64            // tax in the entity's currency
	useTax          recognition.Rate // tax within what is used of the carrying amount; zero: none, it was due at purchase
	carrying        recognition.Carrying
	known, foreign  bool // it was issued; its price is in another currency than the entity's
	moved           bool // its credits were another grant's
	carryingChanged bool
}

func (p *pass) run(ctx context.Context) error {
	var err error
	if p.from, err = p.lockMark(ctx); err != nil {
		return err
	}
	books, err := p.q.FindBooks(ctx, uuidOf(p.customer))
	if err != nil {
		return found(err, noCustomer(p.customer.String()), "find books")
	}
	p.entity, p.currency, p.head = books.Entity, books.Currency, books.Ver
	p.to = min(p.head, p.from+postAtOnce)
	if p.to <= p.from {
		p.to = p.from
		return nil
	}
	if err := p.load(ctx, books.TimeZone); err != nil {
		return err
	}
	for len(p.rows) > 0 && err == nil {
		err = p.next()
	}
	if err != nil {
		return err
	}
	p.postDisputes()
	return p.save(ctx)
}

// lockMark makes this the only transaction that posts for the customer, and returns how far it has been posted.
func (p *pass) lockMark(ctx context.Context) (int64, error) {
	ver, err := p.q.LockMark(ctx, uuidOf(p.customer))
	if errors.Is(err, pgx.ErrNoRows) {
		if err = p.q.AddMark(ctx, uuidOf(p.customer)); err == nil {
			ver, err = p.q.LockMark(ctx, uuidOf(p.customer))
		}
	}
	switch pg, _ := asPgError(err); {
	case pg != nil && pg.Code == "23503": // foreign key
		return 0, noCustomer(p.customer.String())
	case err != nil:
		return 0, fmt.Errorf("lock recognition mark: %w", err)
	}
	return ver, nil
}

func (p *pass) load(ctx context.Context, timeZone string) error {
	var err error
	p.rows, err = p.q.MovementsToRecognise(ctx, sqlc.MovementsToRecogniseParams{
		CustomerID: uuidOf(p.customer), After: p.from, Until: p.to, TimeZone: timeZone,
	})
	if err != nil {
		return fmt.Errorf("read movements: %w", err)
	}
	var ids []pgtype.UUID
	service := make(map[ledger.Period]bool)
	for i, r := range p.rows {
		if i == 0 || r.GrantID != p.rows[i-1].GrantID {
			ids = append(ids, r.GrantID)
		}
		service[dayOf(r.Day).Period()] = true
	}
	if err := p.loadDisputes(ctx, timeZone, service); err != nil {
		return err
	}
	if len(service) == 0 {
		return nil
	}
	grants, err := p.q.GrantsToRecognise(ctx, ids)
	if err != nil {
		return fmt.Errorf("read grants: %w", err)
	}
	p.grants = make(map[credit.GrantID]*grantBooks, len(grants))
	for _, g := range grants {
		if p.grants[g.ID.Bytes], err = newGrantBooks(g, p.currency); err != nil {
			return fmt.Errorf("read grants: %w", err)
		}
	}
	origins, err := p.q.OriginsToRecognise(ctx, timeZone, ids)
	if err != nil {
		return fmt.Errorf("read origins of grants: %w", err)
	}
	p.origins = make(map[credit.GrantID]*sqlc.OriginsToRecogniseRow, len(origins))
	for i := range origins {
		o := &origins[i]
		p.origins[o.ID.Bytes] = o
		if !o.Known {
			service[dayOf(o.IssuedOn).Period()] = true
		}
	}
	refunds, err := p.q.RefundsToRecognise(ctx, uuidOf(p.customer), p.from, p.to)
	if err != nil {
		return fmt.Errorf("read refunds: %w", err)
	}
	p.refunds = make(map[refunded]*sqlc.RefundsToRecogniseRow, len(refunds))
	for i := range refunds {
		p.refunds[refunded{refunds[i].Ver, refunds[i].GrantID.Bytes}] = &refunds[i]
	}
	if p.periods, err = assignPeriods(ctx, p.q, p.entity, slices.Collect(maps.Keys(service))); err != nil {
		return err
	}
	p.rules, err = approvedPolicies(ctx, p.q, p.entity) // after the periods are locked: nobody approves one for them any more
	return err
}

func newGrantBooks(g sqlc.GrantsToRecogniseRow, currency string) (*grantBooks, error) {
	tax, err := recognition.NewRate(g.UseTax)
	b := &grantBooks{
		id: g.ID.Bytes, kind: credit.GrantType(g.Type), unit: g.Unit, useTax: tax, known: g.Known, moved: g.FromGrant.Valid,
		price: credit.Money{Minor: g.PriceMinor, Currency: g.PriceCurrency.String}, tax: credit.Money{Minor: g.TaxMinor, Currency: g.PriceCurrency.String},
		taxBasis: g.TaxBasisMinor,
		carrying: recognition.Carrying{
			Basis: g.BasisMinor, Units: credit.Amount(g.Amount), Disposed: credit.Amount(g.Disposed), PostedOut: g.PostedOut,
		},
	}
	if b.kind == credit.Concession {
		b.tax.Minor, b.taxBasis = 0, 0 // nothing was sold
	}
	b.foreign = b.price.Currency != "" && b.price.Currency != currency
	return b, err
}

// assignPeriods chooses where facts of the given periods are booked. Until the transaction ends nobody can close those periods.
func assignPeriods(ctx context.Context, q *sqlc.Queries, entity string, service []ledger.Period) (map[ledger.Period]ledger.Period, error) {
	assigned := make(map[ledger.Period]ledger.Period, len(service))
	if len(service) == 0 {
		return assigned, nil
	}
	for {
		rows, err := q.LockPeriods(ctx, entity, string(slices.Min(service)))
		if err != nil {
			return nil, fmt.Errorf("lock periods: %w", err)
		}
		statuses := make(map[ledger.Period]recognition.Status, len(rows))
		for _, r := range rows {
			statuses[ledger.Period(r.Period)] = recognition.Status(r.Status)
		}
		var missing []ledger.Period
		for _, p := range service {
			assigned[p] = recognition.Assign(p, statuses)
			if _, locked := statuses[assigned[p]]; !locked {
				missing = append(missing, assigned[p])
			}
		}
		if len(missing) == 0 {
			return assigned, nil
		}
		slices.Sort(missing) // in one order everywhere, so that two transactions that make the same periods do not wait for each other
		for _, p := range slices.Compact(missing) {
			if err := q.AddPeriod(ctx, entity, string(p)); err != nil {
				return nil, fmt.Errorf("open period %s: %w", p, err)
			}
		}
	}
}

// next turns the first row, and for uses those of the same grant and day with it, into an entry.
func (p *pass) next() error {
	r := p.rows[0]
	g := p.grants[r.GrantID.Bytes]
	day := dayOf(r.Day)
	f := ledger.Fact{
		Entity: p.entity, Currency: p.currency, Day: day, Period: p.periods[day.Period()], Customer: p.customer, Grant: g.id,
		VerFrom: r.FirstVer, VerTo: r.LastVer,
	}
	policy := recognition.PolicyFor(p.rules, g.unit, f.Period)
	f.Policy = policy.Version
	switch {
	case r.Used:
		return p.use(g, f)
	case r.Debit == sqlc.UnitAccountIssued && r.Credit == sqlc.UnitAccountAvailable:
		if err := p.issue(g, f, policy); err != nil {
			return err
		}
	case r.Debit == sqlc.UnitAccountConsumed && r.Credit == sqlc.UnitAccountAvailable:
		if err := p.reverse(g, f, r); err != nil {
			return err
		}
	case r.Debit != sqlc.UnitAccountAvailable && r.Debit != sqlc.UnitAccountHeld:
		return p.noEntry(r)
	case g.kind == credit.Overage: // what was not used was not paid for
	case r.Credit == sqlc.UnitAccountConsumed, r.Credit == sqlc.UnitAccountTransferred:
		if err := p.move(g, f, r); err != nil {
			return err
		}
	case r.Credit == sqlc.UnitAccountExpired:
		f.Cause = fmt.Sprintf("grant/%s/expire/%d", g.id, r.FirstVer)
		units := credit.Amount(r.Units)
		for len(p.rows) > 1 && p.rows[1].GrantID == r.GrantID && p.rows[1].FirstVer == r.FirstVer && p.rows[1].Credit == r.Credit {
			p.rows = p.rows[1:] // one operation may let several parts expire: what a hold took at different times, what came back
			units += credit.Amount(p.rows[0].Units)
		}
		amount, err := g.dispose(units)
		if err != nil {
			return err
		}
		p.add(ledger.Expiry(f, amount, recognition.Escheat(amount, policy.Escheat), units))
	case r.Credit == sqlc.UnitAccountVoided && p.lostDispute(g, r.FirstVer) != nil:
		if err := p.clawBack(g, f, r, p.lostDispute(g, r.FirstVer)); err != nil {
			return err
		}
	case r.Credit == sqlc.UnitAccountRefunded, r.Credit == sqlc.UnitAccountVoided:
		if err := p.giveBack(g, f, r); err != nil {
			return err
		}
	default:
		return p.noEntry(r)
	}
	p.rows = p.rows[1:]
	return nil
}

func (p *pass) noEntry(r sqlc.MovementsToRecogniseRow) error {
	return fmt.Errorf("operation %s/%d moves credits from %s to %s, and no journal entry is known for that", p.customer, r.FirstVer, r.Debit, r.Credit)
}

func (p *pass) add(e ledger.Entry) {
	if !e.Empty() {
		p.entries = append(p.entries, e)
	}
}

// dispose takes credits out of the grant's carrying amount and returns the money that leaves with them.
func (g *grantBooks) dispose(units credit.Amount) (int64, error) {
	next, amount, err := g.carrying.Dispose(units)
	if err == nil && !g.known {
		err = errors.New("it was never issued")
	}
	if err != nil {
		return 0, fmt.Errorf("grant %s: %w", g.id, err)
	}
	g.carrying, g.carryingChanged = next, true
	return amount, nil
}

func (p *pass) issue(g *grantBooks, f ledger.Fact, policy recognition.Policy) (err error) {
	f.Cause = "grant/" + g.id.String() + "/issue"
	switch o := p.origins[g.id]; {
	case g.kind != credit.Purchased:
	case o != nil && o.Known:
		g.useTax, err = recognition.NewRate(o.UseTax)
	case o != nil && !o.Taxed: // the pass of the purchase will find the same policy
		g.useTax = recognition.PolicyFor(p.rules, g.unit, p.periods[dayOf(o.IssuedOn).Period()]).UseTax
	case o == nil && g.tax.Minor == 0: // tax that was paid with the price is not due again
		g.useTax = policy.UseTax
	}
	g.known, g.carryingChanged = true, true
	switch price := g.sum(g.carrying.Basis, g.price.Minor); {
	case g.kind == credit.Overage:
	case g.moved:
		p.add(ledger.TransferIn(f, price, g.carrying.Units))
	case g.kind == credit.Concession:
		p.add(ledger.ConcessionGrant(f, price, g.carrying.Units))
	default:
		p.add(ledger.Purchase(f, ledger.ProcessorClearing, price, g.sum(g.taxBasis, g.tax.Minor), g.carrying.Units))
	}
	return err
}

// sum is an amount of the entity's currency that was source in the currency of the price.
func (g *grantBooks) sum(minor, source int64) ledger.Sum {
	if !g.foreign {
		return ledger.Sum{Minor: minor}
	}
	return ledger.Sum{Minor: minor, Source: credit.Money{Minor: source, Currency: g.price.Currency}}
}

// use posts the uses of one grant on one day that nothing else lies between.
func (p *pass) use(g *grantBooks, f ledger.Fact) error {
	first := p.rows[0]
	var shares []ledger.Share
	var units credit.Amount
	n := 0
	for _, r := range p.rows {
		if r.GrantID != first.GrantID || r.Stretch != first.Stretch || !r.Used || r.Day != first.Day {
			break
		}
		shares = append(shares, ledger.Share{Product: r.Product, Model: r.Model, Units: credit.Amount(r.Units)})
		units += credit.Amount(r.Units)
		f.VerFrom, f.VerTo = min(f.VerFrom, r.FirstVer), max(f.VerTo, r.LastVer)
		n++
	}
	p.rows = p.rows[n:]
	before := g.carrying.PostedOut
	amount, err := g.dispose(units)
	if err != nil {
		return err
	}
	f.Cause = fmt.Sprintf("grant/%s/use/%d/%s", g.id, f.VerFrom, f.Day)
	if g.kind == credit.Overage {
		p.add(ledger.OverageUse(f, amount, shares))
	} else {
		p.add(ledger.Recognition(f, amount, recognition.TaxOfSlice(before, before+amount, g.useTax), shares))
	}
	return nil
}

// reverse posts used credits that were given back.
func (p *pass) reverse(g *grantBooks, f ledger.Fact, r sqlc.MovementsToRecogniseRow) error {
	units := credit.Amount(r.Units)
	f.Cause = fmt.Sprintf("grant/%s/reverse/%d", g.id, r.FirstVer)
	amount, err := g.dispose(-units)
	if err != nil {
		return err
	}
	tax := recognition.TaxOfSlice(g.carrying.PostedOut, g.carrying.PostedOut-amount, g.useTax)
	p.add(ledger.Reversal(f, g.kind == credit.Overage, -amount, tax, []ledger.Share{{Product: r.Product, Model: r.Model, Units: units}}))
	return nil
}

// move posts credits that were taken away, or that have become another grant's.
func (p *pass) move(g *grantBooks, f ledger.Fact, r sqlc.MovementsToRecogniseRow) error {
	units, before := credit.Amount(r.Units), g.carrying.Disposed
	amount, err := g.dispose(units)
	if err != nil {
		return err
	}
	if r.Credit == sqlc.UnitAccountConsumed {
		f.Cause = fmt.Sprintf("grant/%s/decrement/%d", g.id, r.FirstVer)
		p.add(ledger.Decrement(f, amount, units))
		return nil
	}
	f.Cause = fmt.Sprintf("grant/%s/transfer/%d", g.id, r.FirstVer)
	p.add(ledger.TransferOut(f, g.sum(amount, recognition.Slice(g.price.Minor, g.carrying.Units, before, g.carrying.Disposed)), units))
	return nil
}

// giveBack posts a refund or a void.
func (p *pass) giveBack(g *grantBooks, f ledger.Fact, r sqlc.MovementsToRecogniseRow) error {
	units, before := credit.Amount(r.Units), g.carrying.Disposed
	carrying, err := g.dispose(units)
	if err != nil {
		return err
	}
	share := func(total int64) int64 {
		return recognition.Slice(total, g.carrying.Units, before, g.carrying.Disposed)
	}
	price, tax := share(g.price.Minor), share(g.tax.Minor)
	back := ledger.Return{Units: units, Carrying: g.sum(carrying, price), Tax: g.sum(share(g.taxBasis), tax)}
	owed := p.refunds[refunded{r.FirstVer, g.id}]
	if owed != nil {
		back.Owed = g.sum(owed.BasisMinor+owed.TaxBasisMinor, owed.MoneyMinor+owed.TaxMinor)
		if g.foreign {
			back.FX = recognition.Exchange(carrying, owed.BasisMinor, price, owed.MoneyMinor) +
				recognition.Exchange(back.Tax.Minor, owed.TaxBasisMinor, tax, owed.TaxMinor)
		}
	} else {
		back.Owed = back.Carrying.Plus(back.Tax)
	}
	switch {
	case r.Credit == sqlc.UnitAccountVoided:
		f.Cause = fmt.Sprintf("grant/%s/void/%d", g.id, r.FirstVer)
		from := ledger.TradeReceivable // it was never paid
		switch {
		case owed != nil:
			from = ledger.RefundLiability
		case g.kind == credit.Concession:
			from = ledger.ConcessionContra
		}
		p.add(ledger.Void(f, from, back))
	case owed == nil:
		return fmt.Errorf("operation %s/%d refunds credits of grant %s and there is no refund", p.customer, r.FirstVer, g.id)
	default:
		f.Cause = "refund/" + credit.RefundID(owed.ID.Bytes).String()
		p.add(ledger.Refund(f, back))
	}
	return nil
}

// save writes the entries, what the grants carry, and how far this went.
func (p *pass) save(ctx context.Context) error {
	if err := post(ctx, p.q, p.entries); err != nil {
		return err
	}
	var ids []pgtype.UUID
	var disposed, postedOut []int64
	var useTax []decimal.Decimal
	for _, id := range slices.SortedFunc(maps.Keys(p.grants), func(a, b credit.GrantID) int { return slices.Compare(a[:], b[:]) }) {
		if g := p.grants[id]; g.carryingChanged {
			ids, disposed, postedOut = append(ids, uuidOf(id)), append(disposed, int64(g.carrying.Disposed)), append(postedOut, g.carrying.PostedOut)
			useTax = append(useTax, g.useTax.Decimal())
		}
	}
	if len(ids) > 0 {
		if err := p.q.SetCarrying(ctx, sqlc.SetCarryingParams{Grants: ids, Disposed: disposed, PostedOut: postedOut, UseTax: useTax}); err != nil {
			return fmt.Errorf("write carrying amounts: %w", err)
		}
	}
	if err := p.q.AdvanceMark(ctx, p.to, uuidOf(p.customer)); err != nil {
		return fmt.Errorf("advance recognition mark: %w", err)
	}
	return nil
}
