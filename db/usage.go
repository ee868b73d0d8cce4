package db

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// countAtOnce bounds how many operations one transaction counts.
const countAtOnce = 5000

type (
	// CountedOperation is one operation as the usage pass reads it.
	CountedOperation struct {
		OperationRow
		Dimensions credit.Dimensions // those of Dims; nil: none
		Movements  []CountedMovement // in the order in which the operation made them; none: it moved no credits
		Said       Said
	}
	// CountedMovement is one movement of one grant's credits.
	CountedMovement struct {
		MovementRow
		Wallet credit.WalletID
		Unit   string
		Scale  int
		Type   credit.GrantType
	}
	// Said is what the receipt of a consumption or capture says besides credits.
	Said struct {
		Lines    []SaidLine
		Cost     decimal.Decimal // of serving it, in major units; without meaning when Currency is ""
		Currency string          // "": the cost is not known
		Capture  *SaidCapture    // nil: it is a consumption
	}
	// SaidCapture is what a capture says of its hold.
	SaidCapture struct {
		Final    bool            // the hold is at its end
		Now, All decimal.Decimal // credits captured by this capture, and all in all
	}
	// SaidLine is a quantity that was priced.
	SaidLine struct {
		Meter      string
		Quantity   decimal.Decimal
		Dimensions credit.Dimensions // of this line alone; nil: none
	}
)

// Net is what the operation consumed of all wallets, in steps of its unit, less what it gave back.
func (o *CountedOperation) Net() (sum credit.Amount) {
	for i := range o.Movements {
		sum += o.Movements[i].Net()
	}
	return sum
}

// IsUsage tells whether the operation is a consumption or a capture, whatever it came to.
func (o *CountedOperation) IsUsage() bool {
	return o.Kind == "consume" || o.Kind == "capture" || o.Kind == "reverse"
}

// Net is what the movement consumed, below 0 when it gives back, 0 when it does neither.
func (m *CountedMovement) Net() credit.Amount {
	switch consumed := string(sqlc.UnitAccountConsumed); {
	case m.Credit == consumed:
		return m.Amount
	case m.Debit == consumed:
		return -m.Amount
	}
	return 0
}

// UsageStep looks at operations in the transaction that counts them, and may write in it: each operation of a customer comes to it exactly once, in
// order of version, and all of them, also those that are no usage. An error undoes the transaction; the operations come again.
type UsageStep func(ctx context.Context, tx pgx.Tx, customer credit.CustomerID, operations []CountedOperation) error

// Counted says what a call of [Store.CountUsage] did.
type Counted struct {
	Operations int
	From, To   int64     // the customer's versions before and after: operations From+1 to To are counted
	Oldest     time.Time // when the first of them happened; zero: there were none
}

// CountUsage adds the customer's operations that are not counted yet, up to the newest one when it is called, to the slices of usage, and runs the
// steps over them in turn. Counted once is counted for ever: running it again, twice at once, or while operations go on, counts each once. An
// Error coded customer_not_found says that there is no such customer.
func (s *Store) CountUsage(ctx context.Context, customer credit.CustomerID, steps ...UsageStep) (Counted, error) {
	var all Counted
	for first, goal := true, int64(0); first || all.To < goal; first = false {
		var p usagePass
		err := s.Tx(ctx, func(tx pgx.Tx) error {
			p = usagePass{q: s.q.WithTx(tx), tx: tx, customer: customer}
			return p.run(ctx, steps)
		})
		if err != nil {
			return all, fmt.Errorf("count usage of customer %s: %w", customer, err)
		}
		if first {
			all.From, goal = p.from, p.head
			if len(p.operations) > 0 {
				all.Oldest = p.operations[0].At
			}
		}
		all.To = p.to
		all.Operations += len(p.operations)
	}
	return all, nil
}

// RecentToCount returns up to n customers with operations since an instant that are not counted yet. It reads the operations since then, however
// many there are before.
func (s *Store) RecentToCount(ctx context.Context, since time.Time, n int) ([]credit.CustomerID, error) {
	rows, err := s.q.RecentToCount(ctx, timeOf(since), int32(n))
	return page(rows, err, "read customers with recent usage", func(id pgtype.UUID) credit.CustomerID { return id.Bytes })
}

// Uncounted is a customer with operations that are not counted yet, and when the first of them happened.
type Uncounted struct {
	Customer credit.CustomerID
	Since    time.Time
}

// AllToCount returns up to n customers after one with operations that are not counted yet, in order of id. It looks at every customer.
func (s *Store) AllToCount(ctx context.Context, after credit.CustomerID, n int) ([]Uncounted, error) {
	rows, err := s.q.AllToCount(ctx, pgtype.UUID{Bytes: after, Valid: true}, int32(n))
	return page(rows, err, "read customers with uncounted usage", func(r sqlc.AllToCountRow) Uncounted {
		return Uncounted{r.CustomerID.Bytes, fromTime(r.At)}
	})
}

// usagePass is one transaction of CountUsage.
type usagePass struct {
	q          *sqlc.Queries
	tx         pgx.Tx
	customer   credit.CustomerID
	from, to   int64
	head       int64
	operations []CountedOperation
	slices     map[sliceKey]*sliceSums
	hours      map[hourKey]*sliceSums
	quantities map[quantityKey]decimal.Decimal
	costs      map[costKey]*costSums
	calendar   *time.Location // of the customer's books
	samples    map[sizeKey][]sample
}

type (
	sliceKey struct {
		hourKey
		member                   credit.MemberID
		product, model, currency string
	}
	hourKey struct {
		hour   int64 // Unix seconds
		unit   string
		wallet credit.WalletID
	}
	quantityKey struct {
		hour                  int64
		member                credit.MemberID
		product, model, meter string
	}
	costKey struct {
		day                                ledger.Day
		hour                               int64
		provider, product, model, currency string
	}
	costSums struct {
		cost, promotional decimal.Decimal
		operations        int64
	}
	sliceSums struct {
		consumed, overage, operations int64
		cost                          decimal.Decimal
	}
)

func (p *usagePass) run(ctx context.Context, steps []UsageStep) error {
	var err error
	if p.from, err = p.lockMark(ctx); err != nil {
		return err
	}
	p.to = p.from
	if p.head, err = p.q.FindHead(ctx, uuidOf(p.customer)); err != nil {
		return found(err, noCustomer(p.customer.String()), "find head")
	}
	if p.head <= p.from {
		return nil
	}
	if err := p.load(ctx); err != nil {
		return err
	}
	p.slices, p.hours, p.quantities = make(map[sliceKey]*sliceSums), make(map[hourKey]*sliceSums), make(map[quantityKey]decimal.Decimal)
	p.samples, p.costs = make(map[sizeKey][]sample), make(map[costKey]*costSums)
	for i := range p.operations {
		p.count(&p.operations[i])
		p.cost(&p.operations[i])
		p.size(&p.operations[i])
	}
	if err := p.save(ctx); err != nil {
		return err
	}
	if err := p.saveSizes(ctx); err != nil {
		return err
	}
	for _, step := range steps {
		if err := step(ctx, p.tx, p.customer, p.operations); err != nil {
			return err
		}
	}
	return nil
}

// lockMark makes this the only transaction that counts for the customer, and returns how far it has been counted.
func (p *usagePass) lockMark(ctx context.Context) (int64, error) {
	ver, err := p.q.LockUsageMark(ctx, uuidOf(p.customer))
	if errors.Is(err, pgx.ErrNoRows) {
		if err = p.q.AddUsageMark(ctx, uuidOf(p.customer)); err == nil {
			ver, err = p.q.LockUsageMark(ctx, uuidOf(p.customer))
		}
	}
	switch pg, _ := asPgError(err); {
	case pg != nil && pg.Code == "23503": // foreign key
		return 0, noCustomer(p.customer.String())
	case err != nil:
		return 0, fmt.Errorf("lock usage mark: %w", err)
	}
	return ver, nil
}

func (p *usagePass) load(ctx context.Context) error {
	zone, err := p.q.CalendarOf(ctx, uuidOf(p.customer))
	if err != nil {
		return fmt.Errorf("read calendar: %w", err)
	}
	if p.calendar, err = time.LoadLocation(zone); err != nil {
		return fmt.Errorf("read calendar: %w", err)
	}
	rows, err := p.q.OperationsToCount(ctx, uuidOf(p.customer), p.from, countAtOnce)
	if err != nil {
		return fmt.Errorf("read operations: %w", err)
	}
	p.operations = make([]CountedOperation, len(rows))
	for i, r := range rows {
		if r.Ver != p.to+1 {
			return fmt.Errorf("operation %s/%d is not there", p.customer, p.to+1)
		}
		o := &p.operations[i]
		o.OperationRow = OperationRow{Customer: p.customer, Ver: r.Ver, Kind: string(r.Kind), Amount: credit.Amount(r.Amount), At: fromTime(r.At),
			ServiceAt: fromTime(r.ServiceAt), Actor: r.Actor, RequestID: r.RequestID.Bytes, Member: r.MemberID.Bytes, Key: r.Key, Unit: r.Unit.String,
			Dims: string(r.Dims), Receipt: r.Receipt}
		if len(r.Dims) > 0 {
			if err := json.Unmarshal(r.Dims, &o.Dimensions); err != nil {
				return fmt.Errorf("read dimensions of operation %s/%d: %w", p.customer, r.Ver, err)
			}
		}
		if o.IsUsage() {
			if o.Said, err = readSaid(r.Receipt); err != nil {
				return fmt.Errorf("read receipt of operation %s/%d: %w", p.customer, r.Ver, err)
			}
		}
		p.to = r.Ver
	}
	p.head = max(p.head, p.to) // operations that were committed since the head was read
	movements, err := p.q.MovementsToCount(ctx, p.from, p.to, uuidOf(p.customer))
	if err != nil {
		return fmt.Errorf("read movements: %w", err)
	}
	for _, m := range movements {
		o := &p.operations[m.Ver-p.from-1] // versions have no gaps
		o.Movements = append(o.Movements, CountedMovement{MovementRow: MovementRow{Grant: m.GrantID.Bytes, Ver: m.Ver, N: m.N, Debit: string(m.Debit),
			Credit: string(m.Credit), Amount: credit.Amount(m.Amount), After: credit.Amount(m.After)}, Wallet: m.WalletID.Bytes, Unit: m.Unit, Scale: int(m.Scale), Type: credit.GrantType(m.Type)})
	}
	return nil
}

// readSaid reads the receipt of a consumption or a capture. Under several versions of a rate card the same usage is priced several times.
func readSaid(receipt []byte) (Said, error) {
	var in struct {
		Pricing []struct {
			Lines []struct {
				Meter      string            `json:"meter"`
				Quantity   decimal.Decimal   `json:"quantity"`
				Dimensions credit.Dimensions `json:"dimensions"`
			} `json:"lines"`
		} `json:"pricing"`
		Cost *struct {
			Amount   decimal.Decimal `json:"amount"`
			Currency string          `json:"currency"`
		} `json:"cost"`
		Status   string          `json:"status"` // a hold's; a consumption has none
		Captured decimal.Decimal `json:"captured"`
		Now      decimal.Decimal `json:"captured_now"`
	}
	if err := json.Unmarshal(receipt, &in); err != nil {
		return Said{}, err
	}
	var out Said
	if len(in.Pricing) > 0 {
		for _, l := range in.Pricing[0].Lines {
			out.Lines = append(out.Lines, SaidLine(l))
		}
	}
	if in.Cost != nil {
		out.Cost, out.Currency = in.Cost.Amount, in.Cost.Currency
	}
	if in.Status != "" {
		out.Capture = &SaidCapture{Final: in.Status != string(credit.HoldOpen), Now: in.Now, All: in.Captured}
	}
	return out, nil
}

// count adds one operation to the sums.
func (p *usagePass) count(o *CountedOperation) {
	key := sliceKey{member: o.Member, product: o.Dimensions["product"], model: o.Dimensions["model"], currency: o.Said.Currency}
	key.hour, key.unit = o.ServiceAt.Truncate(time.Hour).Unix(), o.Unit
	placed := !o.IsUsage()
	place := func() { // what is counted once
		placed = true
		p.add(key, sliceSums{operations: 1, cost: o.Said.Cost})
	}
	for i := range o.Movements {
		m := &o.Movements[i]
		net := int64(m.Net())
		if net == 0 {
			continue
		}
		key.wallet, key.unit = m.Wallet, m.Unit
		if !placed {
			place()
		}
		sums := sliceSums{consumed: net}
		if m.Type == credit.Overage {
			sums.overage = net
		}
		p.add(key, sums)
	}
	if !placed {
		place()
	}
	for _, l := range o.Said.Lines {
		q := quantityKey{hour: key.hour, member: o.Member, product: key.product, model: key.model, meter: l.Meter}
		if product := l.Dimensions["product"]; product != "" {
			q.product = product
		}
		if model := l.Dimensions["model"]; model != "" {
			q.model = model
		}
		p.quantities[q] = p.quantities[q].Add(l.Quantity)
	}
}

// cost adds what one operation cost to serve. The promotional part is that of the credits which promotional grants paid.
func (p *usagePass) cost(o *CountedOperation) {
	if !o.IsUsage() || o.Said.Currency == "" {
		return
	}
	var consumed, promotional int64
	for i := range o.Movements {
		net := int64(o.Movements[i].Net())
		consumed += net
		if o.Movements[i].Type == credit.Promotional {
			promotional += net
		}
	}
	key := costKey{day: ledger.DayOf(o.ServiceAt, p.calendar), hour: o.ServiceAt.Truncate(time.Hour).Unix(), provider: o.Dimensions["provider"],
		product: o.Dimensions["product"], model: o.Dimensions["model"], currency: o.Said.Currency}
	s := p.costs[key]
	if s == nil {
		s = new(costSums)
		p.costs[key] = s
	}
	s.cost, s.operations = s.cost.Add(o.Said.Cost), s.operations+1
	if promotional = min(promotional, consumed); promotional > 0 {
		part, _ := o.Said.Cost.Mul(decimal.NewFromInt(promotional)).Shift(costPlaces).QuoRem(decimal.NewFromInt(consumed), 0)
		s.promotional = s.promotional.Add(part.Shift(-costPlaces))
	}
}

// costPlaces is how many decimal places the promotional part of an operation's cost has. The other part is what is left, so that both make the cost.
const costPlaces = 18

func (p *usagePass) add(key sliceKey, more sliceSums) {
	addSums(p.slices, key, more)
	addSums(p.hours, key.hourKey, more)
}

func addSums[K comparable](to map[K]*sliceSums, key K, more sliceSums) {
	s := to[key]
	if s == nil {
		s = new(sliceSums)
		to[key] = s
	}
	s.consumed, s.overage, s.operations, s.cost = s.consumed+more.consumed, s.overage+more.overage, s.operations+more.operations, s.cost.Add(more.cost)
}

// save writes the sums and how far this went.
func (p *usagePass) save(ctx context.Context) error {
	if len(p.slices) > 0 {
		if err := p.q.AddSlices(ctx, p.sliceRows()); err != nil {
			return fmt.Errorf("add slices: %w", err)
		}
		if err := p.q.AddHours(ctx, p.hourRows()); err != nil {
			return fmt.Errorf("add hours: %w", err)
		}
	}
	if len(p.quantities) > 0 {
		if err := p.q.AddQuantities(ctx, p.quantityRows()); err != nil {
			return fmt.Errorf("add quantities: %w", err)
		}
	}
	if len(p.costs) > 0 {
		rows, err := p.costRows()
		if err != nil {
			return err
		}
		if err := p.q.AddCosts(ctx, rows); err != nil {
			return fmt.Errorf("add costs: %w", err)
		}
	}
	if err := p.q.AdvanceUsageMark(ctx, p.to, uuidOf(p.customer)); err != nil {
		return fmt.Errorf("advance usage mark: %w", err)
	}
	return nil
}

func (p *usagePass) sliceRows() sqlc.AddSlicesParams {
	rows := sqlc.AddSlicesParams{CustomerID: uuidOf(p.customer)}
	for _, k := range slices.SortedFunc(maps.Keys(p.slices), func(a, b sliceKey) int {
		return cmp.Or(a.hourKey.compare(b.hourKey), slices.Compare(a.member[:], b.member[:]), strings.Compare(a.product, b.product),
			strings.Compare(a.model, b.model), strings.Compare(a.currency, b.currency))
	}) {
		s := p.slices[k]
		rows.Hours, rows.Units, rows.Wallets = append(rows.Hours, unixTime(k.hour)), append(rows.Units, k.unit), append(rows.Wallets, keyOf(k.wallet))
		rows.Members, rows.Products, rows.Models = append(rows.Members, keyOf(k.member)), append(rows.Products, k.product), append(rows.Models, k.model)
		rows.Currencies, rows.Consumed, rows.Overages = append(rows.Currencies, k.currency), append(rows.Consumed, s.consumed), append(rows.Overages, s.overage)
		rows.Operations, rows.Costs = append(rows.Operations, s.operations), append(rows.Costs, s.cost)
	}
	return rows
}

func (p *usagePass) hourRows() sqlc.AddHoursParams {
	rows := sqlc.AddHoursParams{CustomerID: uuidOf(p.customer)}
	for _, k := range slices.SortedFunc(maps.Keys(p.hours), hourKey.compare) {
		s := p.hours[k]
		rows.Hours, rows.Units, rows.Wallets = append(rows.Hours, unixTime(k.hour)), append(rows.Units, k.unit), append(rows.Wallets, keyOf(k.wallet))
		rows.Consumed, rows.Overages, rows.Operations = append(rows.Consumed, s.consumed), append(rows.Overages, s.overage), append(rows.Operations, s.operations)
	}
	return rows
}

func (p *usagePass) quantityRows() sqlc.AddQuantitiesParams {
	rows := sqlc.AddQuantitiesParams{CustomerID: uuidOf(p.customer)}
	for _, k := range slices.SortedFunc(maps.Keys(p.quantities), func(a, b quantityKey) int {
		return cmp.Or(cmp.Compare(a.hour, b.hour), slices.Compare(a.member[:], b.member[:]), strings.Compare(a.product, b.product),
			strings.Compare(a.model, b.model), strings.Compare(a.meter, b.meter))
	}) {
		rows.Hours, rows.Members, rows.Products = append(rows.Hours, unixTime(k.hour)), append(rows.Members, keyOf(k.member)), append(rows.Products, k.product)
		rows.Models, rows.Meters, rows.Quantities = append(rows.Models, k.model), append(rows.Meters, k.meter), append(rows.Quantities, p.quantities[k])
	}
	return rows
}

func (p *usagePass) costRows() (sqlc.AddCostsParams, error) {
	rows := sqlc.AddCostsParams{CustomerID: uuidOf(p.customer)}
	for _, k := range slices.SortedFunc(maps.Keys(p.costs), func(a, b costKey) int {
		return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.hour, b.hour), strings.Compare(a.provider, b.provider), strings.Compare(a.product, b.product),
			strings.Compare(a.model, b.model), strings.Compare(a.currency, b.currency))
	}) {
		day, err := dateOf(k.day)
		if err != nil {
			return rows, err
		}
		s := p.costs[k]
		rows.Days, rows.Hours, rows.Providers = append(rows.Days, day), append(rows.Hours, unixTime(k.hour)), append(rows.Providers, k.provider)
		rows.Products, rows.Models, rows.Currencies = append(rows.Products, k.product), append(rows.Models, k.model), append(rows.Currencies, k.currency)
		rows.Costs, rows.Promotionals = append(rows.Costs, s.cost), append(rows.Promotionals, s.promotional)
		rows.Operations = append(rows.Operations, s.operations)
	}
	return rows, nil
}

func (a hourKey) compare(b hourKey) int {
	return cmp.Or(cmp.Compare(a.hour, b.hour), strings.Compare(a.unit, b.unit), slices.Compare(a.wallet[:], b.wallet[:]))
}

// keyOf writes an id as part of a key, where the zero one is a value like others.
func keyOf[I ~[16]byte](id I) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }

func unixTime(seconds int64) pgtype.Timestamptz { return timeOf(time.Unix(seconds, 0).UTC()) }
