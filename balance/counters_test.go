package balance_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
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

// graduated charges 3 credits for each of the first 10 images of a month, 2 for the next 20, 1 for what is beyond.
const graduated = `{"meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","model":"graduated","over":"month",
	"tiers":[{"up_to":"10","price":"3"},{"up_to":"30","price":"2"},{"price":"1"}]}]}`

// byVolume charges all images of a month at 3 credits, from the 11th on all at 2.
const byVolume = `{"meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","model":"volume","over":"month",
	"tiers":[{"up_to":"10","price":"3"},{"price":"2"}]}]}`

// graduatedCost is what so many images of a month cost by it.
func graduatedCost(n int64) credit.Amount {
	return credit.Amount(3*min(n, 10)+2*max(0, min(n, 30)-10)+max(0, n-30)) * one
}

// spent is what was consumed of a customer's grants and not given back.
func spent(t testing.TB, w *balancetest.World, c credit.CustomerID) credit.Amount {
	t.Helper()
	var n int64
	if err := w.Store.Pool.QueryRow(context.Background(), "SELECT coalesce(sum(consumed), 0)::bigint FROM grants WHERE customer_id = $1", [16]byte(c)).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return credit.Amount(n)
}

func mustVerify(t testing.TB, w *balancetest.World, customers ...credit.CustomerID) {
	t.Helper()
	for _, c := range customers {
		balancetest.MustConserve(t, w, c)
		if _, err := w.Store.RecogniseCustomer(context.Background(), c); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range db.Invariants {
		v, err := w.Store.Verify(context.Background(), i, 5)
		if err != nil {
			t.Fatal(err)
		}
		for _, what := range v.First {
			t.Errorf("%s: %s", i.Name, what)
		}
	}
}

// Many clients of two processes consume on a card whose tiers count over the month: what they paid is what the month's quantity costs, to
// the step, and a process that starts later goes on counting.
func TestTiersOverAMonthAreExactUnderConcurrency(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "tiers", true), graduated, time.Now().AddDate(-1, 0, 0))
	services := []*balance.Service{w.Service, w.Start(t, balance.Config{})}
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100_000*one)
	var all sync.WaitGroup
	total := int64(0)
	for i := range 16 {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		quantities := make([]int64, 10)
		for k := range quantities {
			quantities[k] = random.Int64N(4)
			total += quantities[k]
		}
		all.Go(func() {
			for _, n := range quantities {
				if _, err := services[random.IntN(2)].Do(context.Background(), images(w, c, n, time.Time{})); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got, want := spent(t, w, c), graduatedCost(total); got != want {
		t.Errorf("%d images cost %d, want %d", total, got, want)
	}
	w.Service = w.Start(t, balance.Config{})
	r := receiptOf(t, w.Do(t, images(w, c, 5, time.Time{})))
	line := r.Pricing[0].Lines[0]
	if line.Counter == nil || line.Counter.Before != fmt.Sprint(total) || line.Counter.After != fmt.Sprint(total+5) || line.Model != string(rating.Graduated) {
		t.Errorf("%+v", line)
	}
	mustVerify(t, w, c)
}

// A refused usage is not counted, a repeated one is counted once, and one at no price is counted.
func TestWhatIsChargedIsCounted(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "free", true), `{"meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","price":"1","over":"month","free":"5"}]}`, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	charged := func(n int64) string { return receiptOf(t, w.Do(t, images(w, c, n, time.Time{}))).Amount }
	if got := charged(3); got != "0" {
		t.Errorf("within what is free: %s", got)
	}
	refused(t, w, images(w, c, 4, time.Time{}), credit.InsufficientCredits) // 2 free, 2 to pay, nothing there
	w.Grant(t, c, wallet, 100*one)
	op := images(w, c, 4, time.Time{})
	first := w.Do(t, op)
	again := *op
	if second := w.Do(t, &again); string(second.Body) != string(first.Body) || !second.Replayed {
		t.Errorf("%s, then %s", first.Body, second.Body)
	}
	if got := receiptOf(t, first).Amount; got != "2" {
		t.Errorf("4 images, 2 of them free: %s", got)
	}
	quote, err := w.Service.Do(context.Background(), &balance.Quote{Consume: balance.Consume{Header: balance.Header{Customer: c}, Usage: op.Usage}})
	if err != nil || receiptOf(t, quote).Amount != "4" {
		t.Errorf("%s, %v", quote.Body, err)
	}
	if got := charged(4); got != "4" {
		t.Errorf("after what is free: %s", got)
	}
	mustVerify(t, w, c)
}

// A volume tier reached makes the month cheaper by more than the usage costs: the difference goes back to the grants that paid, the one drawn
// last first, also to one that was used up, and the books take the revenue back.
func TestAVolumeTierGivesBack(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "volume", true), byVolume, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	paid := func(o *balance.CreateGrant) {
		o.Grant.Type, o.Grant.Price, o.Grant.Tax = credit.Purchased, credit.Money{Minor: 700, Currency: "USD"}, 0
	}
	first := w.Grant(t, c, wallet, 26*one, paid, func(o *balance.CreateGrant) { o.Grant.Priority = 1 })
	second := w.Grant(t, c, wallet, 4*one, paid, func(o *balance.CreateGrant) { o.Grant.Priority = 2 })
	w.Do(t, images(w, c, 10, time.Time{})) // 30: both are used up
	for _, g := range []credit.GrantID{first, second} {
		if v := w.View(t, g); v.Status != credit.StatusDepleted {
			t.Errorf("%+v", v)
		}
	}
	if _, err := w.Store.RecogniseCustomer(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	r := receiptOf(t, w.Do(t, images(w, c, 1, time.Time{}))) // 11 cost 22: 8 go back
	if r.Amount != "0" || r.GivenBack != "8" || len(r.Returns) != 2 || r.Returns[0].GrantID != second || r.Returns[0].Amount != "4" ||
		r.Returns[1].GrantID != first || r.Returns[1].Amount != "4" || r.Available != "8" || r.Pricing[0].Total != "-8" {
		t.Errorf("%+v", r)
	}
	if got := spent(t, w, c); got != 22*one {
		t.Errorf("11 images cost %d", got)
	}
	mustVerify(t, w, c)
	var reversed int64
	if err := w.Store.Pool.QueryRow(context.Background(), `SELECT coalesce(sum(p.amount_minor), 0)::bigint FROM journal_entries AS e JOIN postings AS p ON p.entry_id = e.id
		WHERE e.kind = 'reversal' AND p.account = 4010 AND p.side = 'dr' AND e.customer_id = $1`, [16]byte(c)).Scan(&reversed); err != nil || reversed != 700+700*4/26+1 {
		t.Errorf("%d cents of revenue were taken back, %v", reversed, err) // 700 of the second; of the first 700 - floor(700*22/26) = 108
	}
	// What came back is there to be used again.
	if r := receiptOf(t, w.Do(t, images(w, c, 4, time.Time{}))); r.Amount != "8" || r.Available != "0" {
		t.Errorf("%+v", r)
	}
	mustVerify(t, w, c)
}

// What comes back to a grant that has expired meanwhile is breakage at once.
func TestGivenBackAfterExpiry(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "volume", true), byVolume, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	soon := time.Now().Add(1500 * time.Millisecond)
	g := w.Grant(t, c, wallet, 30*one, func(o *balance.CreateGrant) { o.Grant.ExpiresAt = soon })
	w.Do(t, images(w, c, 10, time.Time{}))
	time.Sleep(time.Until(soon) + 100*time.Millisecond)
	r := receiptOf(t, w.Do(t, images(w, c, 1, time.Time{})))
	if v := w.View(t, g); r.GivenBack != "8" || r.Available != "0" || v.Consumed != 22*one || v.Expired != 8*one || v.Status != credit.StatusExpired {
		t.Errorf("%+v %+v", r, v)
	}
	mustVerify(t, w, c)
}

// The same events in any order, through any process, across a change of the card, leave the same credits.
func TestOrderDoesNotMatterToAMonth(t *testing.T) {
	w := balancetest.New(t)
	card := w.NewCard(t, "tiers", true)
	now := time.Now().UTC()
	start := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	change := start.Add(now.Sub(start) / 2)
	w.PublishDocument(t, card, graduated, start.AddDate(-1, 0, 0))
	w.PublishDocument(t, card, byVolume, change)
	services := []*balance.Service{w.Service, w.Start(t, balance.Config{})}
	rapid.Check(t, func(rt *rapid.T) {
		type event struct {
			n  int64
			at time.Time
		}
		events := make([]event, rapid.IntRange(1, 12).Draw(rt, "events"))
		for i := range events {
			events[i] = event{rapid.Int64Range(0, 9).Draw(rt, "images"), start.Add(time.Duration(rapid.Int64Range(0, int64(now.Sub(start))).Draw(rt, "at")))}
		}
		var want credit.Amount
		for round := range 2 {
			c, wallet := w.Customer(t)
			for range 3 {
				w.Grant(t, c, wallet, 200*one)
			}
			for _, e := range events {
				if _, err := services[rapid.IntRange(0, 1).Draw(rt, "process")].Do(context.Background(), images(w, c, e.n, e.at)); err != nil {
					rt.Fatal(err)
				}
			}
			if got := spent(t, w, c); round == 0 {
				want = got
			} else if got != want {
				rt.Fatalf("%d in this order, %d in the other", got, want)
			}
			balancetest.MustConserve(t, w, c)
			events = rapid.Permutation(events).Draw(rt, "order")
		}
	})
	mustVerify(t, w)
}

// A thousandth of a step a thousand times is a step: what rounding leaves is carried from event to event.
func TestRemaindersAreCarried(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "tiny", true), `{"rounding":"carry","meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","price":"1","per":"3000000000"}]}`, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, one)
	ops := make([]balance.Operation, 1000)
	for i := range ops {
		ops[i] = images(w, c, 1000, time.Time{}) // a third of a step
	}
	for _, r := range w.Service.DoAll(context.Background(), ops) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if got := spent(t, w, c); got != 333 {
		t.Errorf("1,000 times a third of a step cost %d steps", got)
	}
	mustVerify(t, w, c)
}

// Prices in euros for credits worth dollars, at the rate of the day, which the receipt names; no rate, no charge.
func TestPricesInAnotherCurrency(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "euro", true), `{"credit_value":{"price":"0.01","currency":"USD"},"meters":[{"code":"images"}],
		"rates":[{"id":"image","meter":"images","price":"0.05","currency":"EUR"}]}`, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100*one)
	refused(t, w, images(w, c, 1, time.Time{}), credit.NoFXRate)
	w.AddRates(t, "ecb", fx.Quote{From: "EUR", To: "USD", On: time.Now().UTC().Truncate(24 * time.Hour), Rate: decimal.RequireFromString("1.1")})
	r := receiptOf(t, w.Do(t, images(w, c, 2, time.Time{})))
	if line := r.Pricing[0].Lines[0]; r.Amount != "11" || len(line.FX) != 1 || line.FX[0].Rate != "1.1" || line.FX[0].Source != "ecb" || line.Currency != "EUR" {
		t.Errorf("%+v", r)
	}
}

// A customer's own card prices what it names and leaves the rest to the card that it extends.
func TestACardThatExtendsAnother(t *testing.T) {
	w := balancetest.New(t)
	long := time.Now().AddDate(-1, 0, 0)
	w.PublishDocument(t, w.NewCard(t, "standard", true), graduated, long)
	own := w.NewCard(t, "own", false)
	w.PublishDocument(t, own, `{"extends":"standard","meters":[{"code":"videos"}],"rates":[{"id":"video","meter":"videos","price":"50"}]}`, long)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 1000*one)
	w.Do(t, assign(w, c, own, long, time.Time{}))
	for range 2 {
		w.Do(t, images(w, c, 8, time.Time{}))
	}
	r := receiptOf(t, w.Do(t, &balance.Consume{Header: balance.Header{Customer: c, Key: w.Key()}, Usage: []rating.Line{
		{Meter: "videos", Quantity: decimal.New(1, 0)}, {Meter: "images", Quantity: decimal.New(1, 0)}}}))
	if lines := r.Pricing[0].Lines; r.Amount != "52" || lines[0].RateCard != "" || lines[1].RateCard != "standard" || lines[1].Version != 1 {
		t.Errorf("%+v", r)
	}
	// A cycle is refused, whoever closes it.
	err := w.TryPublish(own, `{"extends":"own","meters":[],"rates":[]}`)
	if credit.CodeOf(err) != credit.InvalidRequest {
		t.Error(err)
	}
	if err := w.TryPublish(own, `{"extends":"nobody","meters":[],"rates":[]}`); credit.CodeOf(err) != credit.InvalidRequest {
		t.Error(err)
	}
	mustVerify(t, w, c)
}

// Refunds of a grant never come to more than its price, also when credits used before a refund are given back after it.
func TestRefundsOfWhatWasGivenBack(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "volume", true), `{"meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","model":"volume","over":"month",
		"tiers":[{"up_to":"10","price":"3"},{"price":"0.1"}]}]}`, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	g := w.Grant(t, c, wallet, 60*one, func(o *balance.CreateGrant) {
		o.Grant.Type, o.Grant.Price = credit.Purchased, credit.Money{Minor: 2, Currency: "USD"}
	})
	refund := func(units credit.Amount) {
		w.Do(t, &balance.RefundGrant{Header: balance.Header{Customer: c, Key: w.Key()}, Refund: credit.NewID[credit.RefundID](), Grant: g, Units: units, Reason: "asked"})
	}
	w.Do(t, images(w, c, 9, time.Time{}))
	refund(10 * one)
	w.Do(t, images(w, c, 2, time.Time{}))
	refund(0)
	mustVerify(t, w, c)
}
