package api

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/backtest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

type backtestDocument struct {
	ID          credit.BacktestID  `json:"id"`
	RateCardID  *credit.RateCardID `json:"rate_card_id"` // null: every card as it was published
	Tested      string             `json:"tested"`       // what takes the place of the card's version, in words
	EffectiveAt *string            `json:"effective_at"` // from when on
	From        string             `json:"from"`
	Until       string             `json:"until"`
	Customers   []string           `json:"customers"` // null: all
	Status      string             `json:"status"`
	Fault       string             `json:"fault,omitempty"`
	CreatedAt   string             `json:"created_at"`
	CreatedBy   string             `json:"created_by"`
	StartedAt   *string            `json:"started_at"`
	EndedAt     *string            `json:"ended_at"`
	RemovedAt   string             `json:"removed_at"` // when it and its result are removed
}

func describeBacktest(b db.BacktestRow) backtestDocument {
	d := backtestDocument{ID: b.ID, Tested: b.Tested, EffectiveAt: instantOrNull(b.EffectiveAt), From: instantText(b.From), Until: instantText(b.Until),
		Status: b.Status, Fault: b.Fault, CreatedAt: instantText(b.CreatedAt), CreatedBy: b.CreatedBy, StartedAt: instantOrNull(b.StartedAt),
		EndedAt: instantOrNull(b.EndedAt), RemovedAt: instantText(b.CreatedAt.Add(db.BacktestKept))}
	if !b.Card.IsZero() {
		d.RateCardID = &b.Card
	}
	for _, c := range b.Customers {
		d.Customers = append(d.Customers, c.String())
	}
	return d
}

type backtestViewDocument struct {
	backtestDocument
	Progress backtestProgress       `json:"progress"`
	Totals   []backtestLineDocument `json:"totals"` // by unit and currency, of the customers tested so far
}

type backtestProgress struct {
	Customers int    `json:"customers"` // to look at; 0 until it has begun
	Seen      int    `json:"seen"`
	Active    int    `json:"active"` // had something in the period
	Events    int    `json:"events"` // consumptions decided again
	Dry       int    `json:"dry"`    // customers to whom something would have been refused for want of credits
	Failed    int    `json:"failed"` // customers who could not be tested
	Fault     string `json:"first_fault,omitempty"`
}

type backtestLineDocument struct {
	Unit       string             `json:"unit"`
	Currency   string             `json:"currency"`
	Product    *string            `json:"product,omitempty"`
	Model      *string            `json:"model,omitempty"`
	Booked     figuresDocument    `json:"booked"`
	Tested     figuresDocument    `json:"tested"`
	Difference differenceDocument `json:"difference"`
}

type figuresDocument struct {
	Events      int     `json:"events"`             // charged
	Refused     *int    `json:"refused,omitempty"`  // under test: for want of credits
	Unpriced    *int    `json:"unpriced,omitempty"` // under test: for want of a price
	Credits     string  `json:"credits"`            // used less given back
	Revenue     string  `json:"revenue"`
	Expired     string  `json:"expired"` // credits
	Breakage    string  `json:"breakage"`
	Costed      int     `json:"costed_events"` // whose compute cost is recorded
	ComputeCost *string `json:"compute_cost"`  // of those; null: none is recorded
	Margin      *string `json:"margin"`        // revenue less compute cost; null: the compute cost of some event is not recorded
}

type differenceDocument struct {
	Credits string `json:"credits"`
	Revenue string `json:"revenue"`
}

func describeFigures(f *backtest.Figures, scale int, currency string, tested bool) figuresDocument {
	money := func(minor int64) string { return credit.Money{Minor: minor, Currency: currency}.String() }
	d := figuresDocument{Events: f.Events, Credits: f.Credits.Format(scale), Revenue: money(f.Revenue), Expired: f.Expired.Format(scale),
		Breakage: money(f.Breakage), Costed: f.Costed}
	if tested {
		d.Refused, d.Unpriced = &f.Refused, &f.Unpriced
	}
	places, err := credit.CurrencyPlaces(currency)
	if err != nil || f.Costed == 0 {
		return d
	}
	cost := f.Cost.RoundBank(int32(places))
	text := cost.StringFixed(int32(places))
	d.ComputeCost = &text
	if f.Costed == f.Events {
		margin := decimal.New(f.Revenue, -int32(places)).Sub(cost).StringFixed(int32(places))
		d.Margin = &margin
	}
	return d
}

func describeBacktestLine(l db.BacktestLine) backtestLineDocument {
	return backtestLineDocument{Unit: l.Unit, Currency: l.Currency, Booked: describeFigures(&l.Booked, l.Scale, l.Currency, false),
		Tested: describeFigures(&l.Tested, l.Scale, l.Currency, true), Difference: differenceDocument{
			Credits: (l.Tested.Credits - l.Booked.Credits).Format(l.Scale),
			Revenue: credit.Money{Minor: l.Tested.Revenue - l.Booked.Revenue, Currency: l.Currency}.String(),
		}}
}

// maxBacktested bounds how many customers can be named.
const maxBacktested = 1_000

// createBacktest is POST /v1/backtests.
func (s *Server) createBacktest(ctx context.Context, c *call) error {
	b := db.BacktestRow{ID: credit.NewID[credit.BacktestID](), CreatedBy: actorText(c.caller.no)}
	var card, draft string
	var version int
	var names []string
	if err := c.input(
		required("from", instant(&b.From)),
		required("until", instant(&b.Until)),
		optional("rate_card", text(&card, 64)),
		optional("draft", text(&draft, 64)),
		optional("version", integer(&version, 1, 1<<31-1)),
		optional("document", rawObject(&b.Document)),
		optional("effective_at", instant(&b.EffectiveAt)),
		optional("customers", func(r *reader) error {
			err := r.array(func(int) error {
				var name string
				err := text(&name, 255)(r)
				names = append(names, name)
				return err
			})
			if err == nil && (len(names) == 0 || len(names) > maxBacktested) {
				return r.refuse("There are 1 to %d customers; without this field, all.", maxBacktested)
			}
			return err
		}),
	); err != nil {
		return err
	}
	if err := s.prepareBacktest(ctx, &b, card, draft, version); err != nil {
		return err
	}
	for i, name := range names {
		id, err := s.customerID(ctx, name)
		if err != nil {
			return in(fmt.Sprintf("/customers/%d", i), err)
		}
		b.Customers = append(b.Customers, id)
	}
	return c.change(ctx, "create_backtest", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		b, err := cat.AddBacktest(ctx, b)
		if err != nil {
			return db.Outcome{}, err
		}
		return created(b.ID.String(), describeBacktest(b), map[string]any{"tested": b.Tested})
	})
}

// prepareBacktest checks a back-test, and finds what it puts in whose place.
func (s *Server) prepareBacktest(ctx context.Context, b *db.BacktestRow, card, draft string, version int) (err error) {
	switch {
	case !b.Until.After(b.From):
		return credit.Invalid("/until", "The period would be over before it begins.")
	case b.Until.After(time.Now()):
		return credit.Invalid("/until", "The period must have passed.")
	}
	given := 0
	for _, is := range []bool{draft != "", version != 0, b.Document != nil} {
		if is {
			given++
		}
	}
	switch {
	case card == "" && given == 0 && b.EffectiveAt.IsZero():
		b.Tested = "every rate card as it was published"
		return nil
	case card == "" || given != 1:
		return credit.Invalid("/rate_card", "Name a rate card and one of a draft, a version and a document; or none of them, to test what was published.")
	}
	if b.Card, err = s.rateCardID(ctx, card); err != nil {
		return err
	}
	if b.EffectiveAt.IsZero() {
		b.EffectiveAt = b.From
	}
	if b.EffectiveAt.Before(b.From) || !b.EffectiveAt.Before(b.Until) {
		return credit.Invalid("/effective_at", "It takes effect within the period.")
	}
	switch {
	case version != 0:
		v, err := s.store.RateCardVersion(ctx, b.Card, version)
		if err != nil {
			return err
		}
		b.Document, b.Tested = v.Document, fmt.Sprintf("version %d of %s", version, card)
	case draft != "":
		id, err := credit.ParseID[credit.DraftID](draft)
		if err != nil {
			return in("/draft", err)
		}
		d, err := s.store.Draft(ctx, b.Card, id)
		if err != nil {
			return err
		}
		b.Document, b.Tested = d.Document, fmt.Sprintf("draft %s of %s, revision %d", id, card, d.Revision)
	default:
		b.Tested = "a document for " + card
	}
	doc, err := rating.Parse(b.Document)
	if err != nil {
		return below("/document", err)
	}
	if doc.Extends.Card != "" {
		if err := s.service.ReloadBook(ctx); err != nil { // the other card may have been made just now
			return err
		}
		return below("/document", s.service.Books().CheckPublish(b.Card, doc))
	}
	return nil
}

func (s *Server) pathBacktest(c *call) (credit.BacktestID, error) {
	return pathID(c, "backtest", credit.ParseID[credit.BacktestID])
}

// listBacktests is GET /v1/backtests.
func (s *Server) listBacktests(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, idCursor[credit.BacktestID])
	if err != nil {
		return err
	}
	rows, err := s.store.BacktestPage(ctx, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeBacktest, func(b db.BacktestRow) cursor { return afterID(b.ID) })
}

// getBacktest is GET /v1/backtests/{backtest}: how far it is, and what it has come to so far.
func (s *Server) getBacktest(ctx context.Context, c *call) error {
	id, err := s.pathBacktest(c)
	if err != nil {
		return err
	}
	v, err := s.store.Backtest(ctx, id)
	if err != nil {
		return err
	}
	doc, err := s.viewBacktest(ctx, v)
	if err != nil {
		return err
	}
	return c.document(doc)
}

func (s *Server) viewBacktest(ctx context.Context, v db.BacktestView) (backtestViewDocument, error) {
	doc := backtestViewDocument{backtestDocument: describeBacktest(v.BacktestRow), Totals: []backtestLineDocument{}, Progress: backtestProgress{
		Customers: v.Total, Seen: v.Seen, Active: v.Active, Events: v.Events, Dry: v.Dry, Failed: v.FailedTotal, Fault: v.FirstFailure}}
	totals, err := s.store.BacktestTotals(ctx, v.ID)
	for _, l := range totals {
		doc.Totals = append(doc.Totals, describeBacktestLine(l))
	}
	return doc, err
}

// cancelBacktest is POST /v1/backtests/{backtest}/cancel.
func (s *Server) cancelBacktest(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	id, err := s.pathBacktest(c)
	if err != nil {
		return err
	}
	return c.change(ctx, "cancel_backtest", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		v, err := cat.CancelBacktest(ctx, id)
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(id.String(), describeBacktest(v.BacktestRow), nil)
	})
}

// backtestModels is GET /v1/backtests/{backtest}/models: the result by product and model.
func (s *Server) backtestModels(ctx context.Context, c *call) error {
	_, limit, after, err := listing(c, lineCursor)
	if err != nil {
		return err
	}
	id, err := s.pathBacktest(c)
	if err != nil {
		return err
	}
	if _, err := s.store.Backtest(ctx, id); err != nil {
		return err
	}
	rows, err := s.store.BacktestModels(ctx, id, after, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, func(l db.BacktestLine) backtestLineDocument {
		d := describeBacktestLine(l)
		d.Product, d.Model = &l.Product, &l.Model
		return d
	}, func(l db.BacktestLine) cursor {
		return bytes.Join([][]byte{[]byte(l.Unit), []byte(l.Currency), []byte(l.Product), []byte(l.Model)}, []byte{0})
	})
}

// lineCursor reads a cursor of the lines of a result: no part of a line's key has a NUL.
func lineCursor(q query) (k db.BacktestLineKey, _ error) {
	b, err := q.cursor(0)
	if b == nil || err != nil {
		return k, err
	}
	parts := bytes.Split(b, []byte{0})
	if len(parts) != 4 || !clean(string(bytes.Join(parts, nil))) {
		return k, errCursor
	}
	return db.BacktestLineKey{Unit: string(parts[0]), Currency: string(parts[1]), Product: string(parts[2]), Model: string(parts[3])}, nil
}

type backtestCustomerDocument struct {
	CustomerID   credit.CustomerID      `json:"customer_id"`
	ExternalID   *string                `json:"external_id"`
	Events       int                    `json:"events"`
	Refused      int                    `json:"refused"`
	FirstRefused *string                `json:"first_refused_at"` // when the credits would have run out
	Unpriced     int                    `json:"unpriced"`
	Why          string                 `json:"why,omitempty"`   // could the first event without a price not be priced
	Fault        string                 `json:"fault,omitempty"` // why the customer could not be tested
	Units        []backtestLineDocument `json:"units"`
}

// backtestCustomers is GET /v1/backtests/{backtest}/customers: the result by customer.
func (s *Server) backtestCustomers(ctx context.Context, c *call) error {
	q, limit, after, err := listing(c, idCursor[credit.CustomerID], "dry")
	if err != nil {
		return err
	}
	dry, err := q.oneOf("dry", "true", "false")
	if err != nil {
		return err
	}
	id, err := s.pathBacktest(c)
	if err != nil {
		return err
	}
	if _, err := s.store.Backtest(ctx, id); err != nil {
		return err
	}
	rows, err := s.store.BacktestCustomers(ctx, id, dry == "true", after, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, func(r db.BacktestCustomerRow) backtestCustomerDocument {
		d := backtestCustomerDocument{CustomerID: r.Customer, ExternalID: orNull(r.External), Events: r.Events, Refused: r.Refused,
			FirstRefused: instantOrNull(r.RefusedFirst), Unpriced: r.Unpriced, Why: r.Why, Fault: r.Fault, Units: []backtestLineDocument{}}
		for i, l := range r.Lines {
			d.Units = append(d.Units, describeBacktestLine(db.BacktestLine{Line: l, Currency: r.Currency, Scale: r.Scales[i]}))
		}
		return d
	}, func(r db.BacktestCustomerRow) cursor { return afterID(r.Customer) })
}
