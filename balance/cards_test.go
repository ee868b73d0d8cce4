package balance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

// images is a consumption of so many images at an instant; zero: now.
func images(w *balancetest.World, c credit.CustomerID, n int64, at time.Time) *balance.Consume {
	return &balance.Consume{Header: balance.Header{Customer: c, Key: w.Key()}, At: at, Usage: []rating.Line{{Meter: "images", Quantity: decimal.New(n, 0)}}}
}

// pricedBy tells how one image of the time at is priced: "card code/version amount".
func pricedBy(t *testing.T, w *balancetest.World, c credit.CustomerID, at time.Time) string {
	t.Helper()
	r := receiptOf(t, w.Do(t, images(w, c, 1, at)))
	return fmt.Sprintf("%s/%d %s", r.Pricing[0].RateCard, r.Pricing[0].Version, r.Amount)
}

func receiptOf(t *testing.T, a balance.Answer) (r balance.ConsumeReceipt) {
	t.Helper()
	if err := json.Unmarshal(a.Body, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func assign(w *balancetest.World, c credit.CustomerID, card credit.RateCardID, from, to time.Time) *balance.AssignCard {
	return &balance.AssignCard{Header: balance.Header{Customer: c, Key: w.Key()}, Assignment: credit.NewID[credit.AssignmentID](), Card: card, From: from, To: to, Reason: "contract"}
}

func refused(t *testing.T, w *balancetest.World, op balance.Operation, code credit.Code) {
	t.Helper()
	if a, err := w.Service.Do(context.Background(), op); credit.CodeOf(err) != code {
		t.Errorf("%T: %s, %v; want %s", op, a.Body, err, code)
	}
}

// The card of an event is the one assigned at its time, else the customer's, else the default; every process sees a change at once.
func TestTheEventsTimeChoosesTheCard(t *testing.T) {
	w := balancetest.New(t)
	other := w.Start(t, balance.Config{})
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 1_000*one)
	now := time.Now()
	long := now.AddDate(-1, 0, 0)
	w.Card(t, "standard", true, "1", long)
	own := w.Card(t, "own", false, "2", long)
	deal := w.Card(t, "deal", false, "3", long)
	if got := pricedBy(t, w, c, time.Time{}); got != "standard/1 1" {
		t.Error(got)
	}
	w.Do(t, &balance.UpdateCustomer{Header: balance.Header{Customer: c, Key: w.Key()}, RateCard: own})
	first := assign(w, c, deal, now.Add(-48*time.Hour), now.Add(-24*time.Hour))
	if _, err := other.Do(context.Background(), first); err != nil { // as another process would
		t.Fatal(err)
	}
	for at, want := range map[time.Time]string{
		{}:                                      "own/1 2",
		now.Add(-49 * time.Hour):                "own/1 2",
		first.From.Truncate(time.Microsecond):   "deal/1 3",
		now.Add(-25 * time.Hour):                "deal/1 3",
		first.To.Truncate(time.Microsecond):     "own/1 2",
		first.To.Add(-time.Microsecond):         "deal/1 3",
		now.Add(balance.MaxAhead - time.Second): "own/1 2",
	} {
		if got := pricedBy(t, w, c, at); got != want {
			t.Errorf("at %s: %s, not %s", at, got, want)
		}
	}
	refused(t, w, assign(w, c, own, now.Add(-30*time.Hour), time.Time{}), credit.AssignmentOverlaps)
	refused(t, w, assign(w, c, own, now, now), credit.InvalidRequest)
	refused(t, w, assign(w, c, credit.NewID[credit.RateCardID](), now, time.Time{}), credit.RateCardNotFound)

	// Until further notice, then ended now; a repetition of each changes nothing.
	open := assign(w, c, deal, time.Time{}, time.Time{})
	w.Do(t, open)
	if again := w.Do(t, open); !again.Replayed {
		t.Error("an assignment was repeated")
	}
	if got := pricedBy(t, w, c, time.Time{}); got != "deal/1 3" {
		t.Error(got)
	}
	refused(t, w, assign(w, c, own, now.Add(time.Hour), time.Time{}), credit.AssignmentOverlaps)
	w.Do(t, &balance.EndAssignment{Header: balance.Header{Customer: c, Key: w.Key()}, Assignment: open.Assignment, Reason: "over"})
	if got := pricedBy(t, w, c, time.Time{}); got != "own/1 2" {
		t.Error(got)
	}
	end := func(id credit.AssignmentID, to time.Time) *balance.EndAssignment {
		return &balance.EndAssignment{Header: balance.Header{Customer: c, Key: w.Key()}, Assignment: id, To: to, Reason: "over"}
	}
	refused(t, w, end(open.Assignment, time.Time{}), credit.InvalidRequest)
	refused(t, w, end(first.Assignment, now.Add(time.Hour)), credit.InvalidRequest)
	refused(t, w, end(credit.NewID[credit.AssignmentID](), time.Time{}), credit.AssignmentNotFound)

	// One for later can be moved, and taken back before it begins: then it has an empty range.
	later := assign(w, c, deal, now.Add(time.Hour), now.Add(2*time.Hour))
	w.Do(t, later)
	refused(t, w, end(later.Assignment, now.Add(-time.Hour)), credit.InvalidRequest)
	w.Do(t, end(later.Assignment, now.Add(3*time.Hour)))
	w.Do(t, end(later.Assignment, time.Time{}))
	w.Do(t, assign(w, c, own, now.Add(time.Hour), now.Add(4*time.Hour)))
	rows, err := w.Store.AssignmentPage(context.Background(), c, credit.AssignmentID{}, 10)
	if err != nil || len(rows) != 4 || !rows[1].From.Equal(rows[1].To) || rows[3].Reason != "contract" || rows[3].At.IsZero() {
		t.Errorf("%+v, %v", rows, err)
	}
	balancetest.MustConserve(t, w, c)
}

// A lock is to the card and version at the granting, whatever card prices the event.
func TestALockedGrantKeepsItsCard(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	long := time.Now().AddDate(-1, 0, 0)
	first := w.Card(t, "first", true, "2", long)
	w.Publish(t, first, "4", long.Add(time.Hour))
	locked := w.Grant(t, c, wallet, 6*one, func(o *balance.CreateGrant) { o.Grant.RatePolicy, o.Grant.Priority = credit.Locked, 1 })
	if g := w.View(t, locked); g.RateCard != first || g.RateVersion != 2 {
		t.Fatalf("locked to %s version %d", g.RateCard, g.RateVersion)
	}
	w.Grant(t, c, wallet, 100*one)
	second := w.Card(t, "second", true, "10", long)
	w.Publish(t, second, "20", long.Add(time.Hour))
	// Three images cost 12 on the lock, of which 6 are there: half. The other half is of 60.
	r := receiptOf(t, w.Do(t, images(w, c, 3, time.Time{})))
	if len(r.Draws) != 2 || r.Draws[0].GrantID != locked || r.Draws[0].Amount != "6" || r.Draws[1].Amount != "30" || r.Amount != "36" {
		t.Errorf("%+v", r)
	}
	if len(r.Pricing) != 2 || r.Pricing[0].RateCard != "first" || r.Pricing[0].Version != 2 || r.Pricing[1].RateCard != "second" || r.Pricing[1].Version != 2 {
		t.Errorf("%+v", r.Pricing)
	}
	// Locked while a card is assigned: to that one.
	w.Do(t, assign(w, c, first, time.Time{}, time.Time{}))
	if g := w.View(t, w.Grant(t, c, wallet, one, func(o *balance.CreateGrant) { o.Grant.RatePolicy = credit.Locked })); g.RateCard != first {
		t.Errorf("locked to %s", g.RateCard)
	}
	balancetest.MustConserve(t, w, c)
}

// A quote is what the consumption after it comes to, and changes nothing.
func TestAQuoteIsWhatConsumptionCosts(t *testing.T) {
	w := balancetest.New(t)
	w.Card(t, "standard", true, "1.5", time.Now().AddDate(-1, 0, 0))
	rapid.Check(t, func(rt *rapid.T) {
		c, wallet := w.Customer(t)
		for range rapid.IntRange(0, 4).Draw(rt, "grants") {
			w.Grant(t, c, wallet, credit.Amount(rapid.Int64Range(1, 10).Draw(rt, "credits"))*one, func(o *balance.CreateGrant) {
				o.Grant.Priority = rapid.IntRange(0, 3).Draw(rt, "priority")
			})
		}
		op := images(w, c, rapid.Int64Range(1, 12).Draw(rt, "images"), time.Time{})
		op.Partial = rapid.Bool().Draw(rt, "partial")
		quote := &balance.Quote{Consume: *op}
		quote.Key = ""
		a, refusal := w.Service.Do(context.Background(), quote)
		if again, err := w.Service.Do(context.Background(), quote); credit.CodeOf(err) != credit.CodeOf(refusal) || again.Ver != a.Ver {
			rt.Fatalf("a quote has changed something: %v, %v", again, err)
		}
		b, err := w.Service.Do(context.Background(), op)
		if credit.CodeOf(err) != credit.CodeOf(refusal) {
			rt.Fatalf("quoted %v, consumed %v", refusal, err)
		}
		if err != nil {
			return
		}
		var q, r map[string]any
		if json.Unmarshal(a.Body, &q) != nil || json.Unmarshal(b.Body, &r) != nil {
			rt.Fatalf("%s %s", a.Body, b.Body)
		}
		for _, name := range []string{"customer_id", "unit", "amount", "partial", "shortfall", "pricing", "draws", "draw_order", "available"} {
			if fmt.Sprint(q[name]) != fmt.Sprint(r[name]) {
				rt.Fatalf("%s: quoted %v, consumed %v", name, q[name], r[name])
			}
		}
	})
}

func TestAQuoteOfARange(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Card(t, "standard", true, "2", time.Now().AddDate(-1, 0, 0))
	w.Grant(t, c, wallet, 10*one)
	quote := func(n, most int64) (q balance.QuoteDocument, err error) {
		a, err := w.Service.Do(context.Background(), &balance.Quote{Consume: *images(w, c, n, time.Time{}), Maximum: []rating.Line{{Meter: "images", Quantity: decimal.New(most, 0)}}})
		if err == nil {
			err = json.Unmarshal(a.Body, &q)
		}
		return q, err
	}
	if q, err := quote(2, 5); err != nil || q.Amount != "4" || q.Maximum.Amount != "10" || q.Maximum.Partial || q.Maximum.Available != "0" || q.Available != "6" {
		t.Errorf("%+v, %v", q, err)
	}
	if q, err := quote(2, 6); err != nil || !q.Maximum.Partial || q.Maximum.Shortfall != "2" || q.Maximum.Amount != "10" {
		t.Errorf("%+v, %v", q, err)
	}
	if _, err := quote(6, 7); credit.CodeOf(err) != credit.InsufficientCredits {
		t.Error(err)
	}
	refused(t, w, &balance.Quote{Consume: *w.Consume(c, 11*one)}, credit.InsufficientCredits)
	refused(t, w, &balance.Quote{Consume: *images(w, c, 1, time.Now().Add(time.Hour))}, credit.InFuture)
	refused(t, w, &balance.Quote{Consume: *images(w, c, 1, time.Now().AddDate(0, 0, -40))}, credit.TooOld)
	refused(t, w, &balance.Quote{Consume: *images(w, c, 1, time.Time{}), Maximum: []rating.Line{{}, {}}}, credit.InvalidRequest)
	refused(t, w, &balance.Quote{Consume: *images(w, credit.NewID[credit.CustomerID](), 1, time.Time{})}, credit.CustomerNotFound)
}

// A version that is published for later can be taken back until shortly before, and then never prices anything.
func TestWithdrawal(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100*one)
	card := w.Card(t, "standard", true, "1", time.Now().AddDate(-1, 0, 0))
	soon := w.Publish(t, card, "5", time.Now().Add(2*time.Minute))
	later := w.Publish(t, card, "7", time.Now().Add(time.Hour))
	if err := w.Withdraw(card, later.Version); err != nil {
		t.Fatal(err)
	}
	for version, code := range map[int]credit.Code{1: credit.VersionInForce, soon.Version: credit.VersionInForce, later.Version: credit.AlreadyExists, 9: credit.RateCardNotFound} {
		if err := w.Withdraw(card, version); credit.CodeOf(err) != code {
			t.Errorf("version %d: %v", version, err)
		}
	}
	if got := pricedBy(t, w, c, time.Now().Add(3*time.Minute)); got != "standard/2 5" {
		t.Error(got)
	}
	if _, err := w.Service.Books().VersionAt(card, time.Now().Add(2*time.Hour)); err != nil {
		t.Error(err)
	} else if v, _ := w.Service.Books().VersionAt(card, time.Now().Add(2*time.Hour)); v != soon.Version {
		t.Errorf("a withdrawn version would be in force: %d", v)
	}
	if next := w.Publish(t, card, "9", time.Now().Add(time.Hour)); next.Version != later.Version+1 {
		t.Errorf("the number %d is given again", next.Version)
	}
	row, err := w.Store.RateCardVersion(context.Background(), card, later.Version)
	if err != nil || row.WithdrawnAt.IsZero() || row.WithdrawnBy != "test" || row.Reason != "test" {
		t.Errorf("%+v, %v", row, err)
	}
}

// A version is published again and again while many clients consume in two processes: every receipt has the version in force at its time,
// nobody is refused, and nothing is restarted.
func TestPublishingWhileClientsConsume(t *testing.T) {
	w := balancetest.New(t)
	services := []*balance.Service{w.Service, w.Start(t, balance.Config{})}
	card := w.Card(t, "standard", true, "1", time.Now().AddDate(-1, 0, 0))
	type client struct {
		customer credit.CustomerID
		receipts []balance.ConsumeReceipt
	}
	clients := make([]*client, 64)
	for i := range clients {
		if i < 8 {
			c, wallet := w.Customer(t)
			w.Grant(t, c, wallet, 1_000_000*one)
			clients[i] = &client{customer: c}
		} else {
			clients[i] = &client{customer: clients[i%8].customer}
		}
	}
	var done atomic.Bool
	var all sync.WaitGroup
	for i, cl := range clients {
		all.Go(func() {
			for n := 0; !done.Load(); n++ {
				op := images(w, cl.customer, 1, time.Time{})
				if n%4 == 3 {
					op.At = time.Now().Add(-time.Duration(n%60) * time.Second) // a late event
				}
				a, err := services[i%2].Do(context.Background(), op)
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				var r balance.ConsumeReceipt
				if err := json.Unmarshal(a.Body, &r); err != nil {
					t.Error(err)
					return
				}
				cl.receipts = append(cl.receipts, r)
			}
		})
	}
	versions := []db.RateCardVersionRow{}
	for i := range 3 {
		time.Sleep(300 * time.Millisecond)
		versions = append(versions, w.Publish(t, card, fmt.Sprint(i+2), time.Time{}))
		time.Sleep(db.Lead)
	}
	time.Sleep(300 * time.Millisecond)
	done.Store(true)
	all.Wait()
	seen := map[int]int{}
	for i, cl := range clients {
		for _, r := range cl.receipts {
			want := 1
			for _, v := range versions {
				if !time.Time(r.ServiceAt).Before(v.EffectiveAt) {
					want = v.Version
				}
			}
			if p := r.Pricing[0]; p.Version != want || r.Amount != fmt.Sprint(want) {
				t.Errorf("client %d: at %s version %d charged %s; %d was in force", i, r.ServiceAt, p.Version, r.Amount, want)
			}
			seen[want]++
		}
	}
	if len(seen) != 4 {
		t.Errorf("versions used: %v", seen)
	}
	for _, cl := range clients[:8] {
		balancetest.MustConserve(t, w, cl.customer)
	}
}

// Exchange rates are in every process' memory by the next operation, and a correction is a further version of which the newest counts.
func TestExchangeRatesComeWithTheConfiguration(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 10*one)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	quote := func(rate string, on time.Time) fx.Quote {
		return fx.Quote{From: "EUR", To: "USD", On: on, Rate: decimal.RequireFromString(rate)}
	}
	if n := w.AddRates(t, "ecb", quote("1.08", today), quote("1.07", today.AddDate(0, 0, -1)), quote("1.01", today.AddDate(-1, 0, 0))); n != 3 {
		t.Errorf("%d quotes were added", n)
	}
	if n := w.AddRates(t, "ecb", quote("1.08", today)); n != 0 {
		t.Errorf("%d quotes were added that were known", n)
	}
	w.Do(t, w.Consume(c, one))
	if u, err := w.Service.Rates().Rate("EUR", "USD", today.Add(time.Hour)); err != nil || u.Rate.String() != "1.08" {
		t.Errorf("%+v, %v", u, err)
	}
	if n := w.Service.Rates().Len(); n != 2 {
		t.Errorf("%d quotes are kept in memory", n) // that of a year ago can price nothing any more
	}
	if n := w.AddRates(t, "ecb", quote("1.09", today)); n != 1 {
		t.Errorf("%d quotes were added", n)
	}
	w.Do(t, w.Consume(c, one))
	if u, err := w.Service.Rates().Rate("USD", "EUR", today.Add(time.Hour)); err != nil || u.Quotes[0].Rate.String() != "1.09" {
		t.Errorf("%+v, %v", u, err)
	}
	rows, err := w.Store.FXRatePage(context.Background(), db.FXRateFilter{Source: "ecb", On: today}, 0, 10)
	if err != nil || len(rows) != 2 || rows[0].Version != 2 || rows[1].Rate.String() != "1.08" {
		t.Errorf("%+v, %v", rows, err)
	}
}
