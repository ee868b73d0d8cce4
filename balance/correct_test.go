package balance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

func correct(w *balancetest.World, c credit.CustomerID, ver int64, modify func(*balance.Correct)) *balance.Correct {
	o := &balance.Correct{Header: balance.Header{Customer: c, Key: w.Key()}, Ver: ver, Reason: "counted twice"}
	modify(o)
	return o
}

func units(n credit.Amount) func(*balance.Correct) { return func(o *balance.Correct) { o.Units = n } }
func all(o *balance.Correct)                       { o.All = true }

func corrected(t testing.TB, a balance.Answer) (d balance.CorrectionDocument) {
	t.Helper()
	if err := json.Unmarshal(a.Body, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func bought(minor int64) func(*balance.CreateGrant) {
	return func(o *balance.CreateGrant) {
		o.Grant.Type, o.Grant.Price = credit.Purchased, credit.Money{Minor: minor, Currency: "USD"}
	}
}

// journal writes a customer's entries, one per line: "2026-01-10 recognition: dr 2010 58.33; cr 4010 58.33".
func journal(t testing.TB, w *balancetest.World, c credit.CustomerID) string {
	t.Helper()
	if _, err := w.Store.RecogniseCustomer(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	entries, err := w.Store.Journal(context.Background(), db.JournalFilter{Entity: "main", Customer: c}, credit.EntryID{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s:", e.Kind)
		for _, p := range e.Postings {
			fmt.Fprintf(&b, " %s %s %s", p.Side, p.Account, p.Money)
			if p.Model != "" {
				b.WriteString(" " + p.Model)
			}
		}
		b.WriteString("\n")
	}
	return strings.TrimSpace(b.String())
}

func sameText(t testing.TB, what, got, want string) {
	t.Helper()
	if want = strings.TrimSpace(want); got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

// Credits go back to the grants that were drawn, in reverse, whatever has changed since; never more than were consumed; and the revenue with them.
func TestACorrectionUndoesWhatWasRecorded(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	first := w.Grant(t, c, wallet, 100*one, bought(1000), func(o *balance.CreateGrant) { o.Grant.Priority = 1 })
	second := w.Grant(t, c, wallet, 100*one, bought(3000), func(o *balance.CreateGrant) { o.Grant.Priority = 2 })
	op := w.Consume(c, 130*one)
	op.Dims = credit.Dimensions{"model": "large"}
	ver := w.Do(t, op).Ver
	w.Grant(t, c, wallet, 50*one, func(o *balance.CreateGrant) { o.Grant.Priority = 0 }) // today's rules would choose this one
	part := correct(w, c, ver, units(40*one))
	a := w.Do(t, part)
	d := corrected(t, a)
	if len(d.Returns) != 2 || d.Returns[0].GrantID != second || d.Returns[0].Amount != "30" || d.Returns[1].GrantID != first || d.Returns[1].Amount != "10" || d.Left != "90" {
		t.Errorf("%+v", d)
	}
	again := *part
	if r := w.Do(t, &again); !r.Replayed || string(r.Body) != string(a.Body) {
		t.Errorf("%s", r.Body)
	}
	refused(t, w, correct(w, c, ver, units(91*one)), credit.NotCorrectable)
	refused(t, w, correct(w, c, ver+1, all), credit.NotCorrectable) // a grant was made
	refused(t, w, correct(w, c, 99, all), credit.NotFound)
	if d := corrected(t, w.Do(t, correct(w, c, ver, all))); d.GivenBack != "90" || d.Left != "0" {
		t.Errorf("%+v", d)
	}
	refused(t, w, correct(w, c, ver, units(one)), credit.NotCorrectable)
	for _, id := range []credit.GrantID{first, second} {
		if g := w.View(t, id); g.Available != 100*one || g.Consumed != 0 || g.Status != credit.StatusOpen {
			t.Errorf("%+v", g)
		}
	}
	sameText(t, "journal", grouped(journal(t, w, c)), `
purchase: dr 1020 10.00 cr 2010 10.00
purchase: dr 1020 30.00 cr 2010 30.00
recognition: dr 2010 10.00 cr 4010 10.00 large
recognition: dr 2010 9.00 cr 4010 9.00 large
reversal: cr 2010 1.00 dr 4010 1.00 large
reversal: cr 2010 9.00 dr 4010 9.00 large
reversal: cr 2010 9.00 dr 4010 9.00 large`)
	mustVerify(t, w, c)
}

// grouped puts lines in order, for entries are posted grant by grant.
func grouped(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// What comes back to an expired grant is breakage, or a new grant of its class with the part of its price; a hold's capture is corrected alike.
func TestACorrectionAfterTheExpiry(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	soon := time.Now().Add(1200 * time.Millisecond)
	g := w.Grant(t, c, wallet, 100*one, bought(1000), func(o *balance.CreateGrant) {
		o.Grant.ExpiresAt, o.Grant.Tax, o.Grant.Scope = soon, 80, credit.Scope{"product": {"chat"}}
	})
	op := w.Consume(c, 50*one)
	op.Dims = credit.Dimensions{"product": "chat"}
	ver := w.Do(t, op).Ver
	h := hold(w, c, 20*one, time.Minute)
	h.Dims = op.Dims
	w.Do(t, h)
	captured := w.Do(t, capture(w, c, h.Hold, 20*one, "")).Ver
	time.Sleep(time.Until(soon) + 50*time.Millisecond)
	w.Do(t, &balance.Expire{Header: balance.Header{Customer: c}, Grant: g})
	if d := corrected(t, w.Do(t, correct(w, c, ver, units(10*one)))); d.GivenBack != "10" || d.Available != "0" {
		t.Errorf("%+v", d)
	}
	if v := w.View(t, g); v.Expired != 40*one || v.Consumed != 60*one || v.Status != credit.StatusExpired {
		t.Errorf("%+v", v)
	}
	again := func(o *balance.Correct) {
		o.Units, o.Reissue = 20*one, &balance.Reissue{ExpiresAt: time.Now().Add(time.Hour)}
	}
	past := correct(w, c, ver, again)
	past.Reissue = &balance.Reissue{ExpiresAt: soon}
	refused(t, w, past, credit.InvalidRequest)
	d := corrected(t, w.Do(t, correct(w, c, ver, again)))
	if len(d.Reissued) != 1 || d.Reissued[0].FromGrantID != g || d.Reissued[0].CostBasis.Amount != "2.00" || d.Available != "20" {
		t.Fatalf("%+v", d)
	}
	now := w.View(t, d.Reissued[0].GrantID)
	if now.Type != credit.Purchased || now.From != g || now.Basis != 200 || now.Tax != 16 || now.Amount != 20*one || now.ExpiresAt.Before(time.Now()) || now.Scope["product"][0] != "chat" {
		t.Errorf("%+v", now)
	}
	if d := corrected(t, w.Do(t, correct(w, c, captured, all))); d.GivenBack != "20" {
		t.Errorf("%+v", d)
	}
	sameText(t, "journal", grouped(journal(t, w, c)), `
expiry: dr 2010 1.00 cr 4020 1.00
expiry: dr 2010 2.00 cr 4020 2.00
expiry: dr 2010 3.00 cr 4020 3.00
purchase: dr 1020 10.80 cr 2010 10.00 cr 2030 0.80
recognition: dr 2010 7.00 cr 4010 7.00
reversal: cr 2010 1.00 dr 4010 1.00
reversal: cr 2010 2.00 dr 4010 2.00
reversal: cr 2010 2.00 dr 4010 2.00
transfer: dr 2010 2.00 cr 2011 2.00
transfer: dr 2011 2.00 cr 2010 2.00`)
	mustVerify(t, w, c)
}

// A usage is corrected to another at the price and the standing that it had, down or up, and the period's counter with it.
func TestACorrectionOfTheUsage(t *testing.T) {
	w := balancetest.New(t)
	card := w.NewCard(t, "tiers", true)
	w.PublishDocument(t, card, graduated, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 1000*one)
	counter := func() (v string) {
		if err := w.Store.Pool.QueryRow(context.Background(), "SELECT coalesce(max(value), '') FROM rating_counters WHERE customer_id = $1", [16]byte(c)).Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	at := time.Now().Add(-time.Second)
	ver := w.Do(t, images(w, c, 8, at)).Ver
	before := w.Do(t, images(w, c, 6, at))
	to := func(n int64) func(*balance.Correct) {
		return func(o *balance.Correct) { o.Usage = []rating.Line{{Meter: "images", Quantity: decimal.New(n, 0)}} }
	}
	paid := func(ver int64) (sum credit.Amount) {
		if err := w.Store.Pool.QueryRow(context.Background(), `SELECT coalesce(sum(m.amount), 0)::bigint FROM movements AS m JOIN grants AS g ON g.id = m.grant_id
			WHERE g.customer_id = $1 AND m.ver = $2 AND m.credit = 'consumed'`, [16]byte(c), ver).Scan((*int64)(&sum)); err != nil {
			t.Fatal(err)
		}
		return sum
	}
	other, otherWallet := w.Customer(t) // what the usage would have cost from the beginning
	w.Grant(t, other, otherWallet, 1000*one)
	var right balance.ConsumeReceipt
	if err := json.Unmarshal(w.Do(t, images(w, other, 3, at)).Body, &right); err != nil {
		t.Fatal(err)
	}
	d := corrected(t, w.Do(t, correct(w, c, ver, to(3))))
	if d.Left != right.Amount || d.GivenBack == "0" || len(d.Pricing) != 1 {
		t.Errorf("%+v, want %s to be left of %s", d, right.Amount, paid(ver).Format(balancetest.Scale))
	}
	if got := counter(); !strings.HasSuffix(got, "=9") {
		t.Errorf("counted are %s", got)
	}
	// Up again: the difference is taken now, by an operation that can be corrected itself.
	up := w.Do(t, correct(w, c, ver, to(8)))
	if d := corrected(t, up); d.Taken != (paid(ver)-mustAmount(t, right.Amount)).Format(balancetest.Scale) || d.GivenBack != "0" {
		t.Errorf("%+v", d)
	}
	if got := counter(); !strings.HasSuffix(got, "=14") {
		t.Errorf("counted are %s", got)
	}
	refused(t, w, correct(w, c, ver, to(2)), credit.NotCorrectable)
	w.Do(t, correct(w, c, up.Ver, units(one)))
	refused(t, w, correct(w, c, up.Ver, to(2)), credit.NotCorrectable)
	w.Do(t, correct(w, c, up.Ver, all))
	if got := counter(); !strings.HasSuffix(got, "=14") {
		t.Errorf("counted are %s", got)
	}
	// The whole of the other: its quantity is not counted any more.
	if d := corrected(t, w.Do(t, correct(w, c, before.Ver, all))); d.GivenBack != paid(before.Ver).Format(balancetest.Scale) {
		t.Errorf("%+v", d)
	}
	if got := counter(); !strings.HasSuffix(got, "=8") {
		t.Errorf("counted are %s", got)
	}
	amount := w.Do(t, w.Consume(c, 10*one)).Ver
	refused(t, w, correct(w, c, amount, to(1)), credit.NotCorrectable)
	four, twelve := 4*one, 12*one
	if d := corrected(t, w.Do(t, correct(w, c, amount, func(o *balance.Correct) { o.To = &four }))); d.GivenBack != "6" || d.Left != "4" {
		t.Errorf("%+v", d)
	}
	if d := corrected(t, w.Do(t, correct(w, c, amount, func(o *balance.Correct) { o.To = &twelve }))); d.Taken != "8" {
		t.Errorf("%+v", d)
	}
	mustVerify(t, w, c)
}

func mustAmount(t testing.TB, s string) credit.Amount {
	t.Helper()
	n, err := credit.ParseAmount(s, balancetest.Scale)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// 50 partial corrections at once, by two processes: exactly as much comes back as was consumed.
func TestCorrectionsNeverExceedTheOperation(t *testing.T) {
	w := balancetest.New(t)
	services := []*balance.Service{w.Service, w.Start(t, balance.Config{})}
	c, wallet := w.Customer(t)
	for range 4 {
		w.Grant(t, c, wallet, 30*one, bought(997))
	}
	ver := w.Do(t, w.Consume(c, 100*one)).Ver
	var wg sync.WaitGroup
	var mu sync.Mutex
	var back credit.Amount
	for i := range 50 {
		wg.Go(func() {
			n := credit.Amount(1+rand.IntN(7)) * one
			_, err := services[i%2].Do(context.Background(), correct(w, c, ver, units(n)))
			switch credit.CodeOf(err) {
			case "":
				mu.Lock()
				back += n
				mu.Unlock()
			case credit.NotCorrectable:
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var recorded credit.Amount
	if err := w.Store.Pool.QueryRow(context.Background(), "SELECT corrected FROM corrected_operations WHERE customer_id = $1 AND ver = $2", [16]byte(c), ver).Scan((*int64)(&recorded)); err != nil {
		t.Fatal(err)
	}
	if back != recorded || back > 100*one || back < 94*one {
		t.Errorf("%s were given back, recorded are %s", back.Format(6), recorded.Format(6))
	}
	mustVerify(t, w, c)
}

// Any history of consumptions, corrections, decrements, transfers and refunds conserves credits and verifies; correcting everything in the end leaves
// no revenue but that of what was taken away or has expired.
func TestCorrectionsConserve(t *testing.T) {
	w := balancetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		c, wallet := w.Customer(t)
		second := w.Wallet(t, c, func(*balance.CreateWallet) {})
		w.Wallet(t, c, func(o *balance.CreateWallet) { o.Wallet.SoftCap, o.OverageLimit, o.OveragePrice = true, 50*one, 777 })
		var grants []credit.GrantID
		for i := range rapid.IntRange(1, 4).Draw(rt, "grants") {
			grants = append(grants, w.Grant(t, c, wallet, credit.Amount(rapid.Int64Range(1, 50).Draw(rt, "credits"))*one, bought(rapid.Int64Range(0, 1000).Draw(rt, "price")),
				func(o *balance.CreateGrant) {
					o.Grant.Priority = rapid.IntRange(0, 2).Draw(rt, fmt.Sprint("priority", i))
				}))
		}
		var vers []int64
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			amount := credit.Amount(rapid.Int64Range(1, 30).Draw(rt, "amount")) * one
			header := balance.Header{Customer: c, Key: w.Key()}
			var op balance.Operation
			switch kind := rapid.IntRange(0, 7).Draw(rt, "kind"); {
			case kind <= 2 || len(vers) == 0:
				op = w.Consume(c, amount)
			case kind <= 4:
				op = correct(w, c, rapid.SampledFrom(vers).Draw(rt, "of"), func(o *balance.Correct) {
					if o.Units = amount; kind == 4 {
						o.Units, o.To = 0, &amount
					}
				})
			case kind == 5:
				op = &balance.DecrementGrant{Header: header, Grant: rapid.SampledFrom(grants).Draw(rt, "grant"), Units: amount, Reason: "abuse"}
			case kind == 6:
				op = &balance.Transfer{Header: header, From: wallet, To: second, ToCustomer: c, Units: amount, Reason: "asked"}
			default:
				op = &balance.RefundGrant{Header: header, Refund: credit.NewID[credit.RefundID](), Grant: rapid.SampledFrom(grants).Draw(rt, "grant"), Units: amount, Reason: "asked"}
			}
			a, err := w.Service.Do(context.Background(), op)
			switch credit.CodeOf(err) {
			case "":
				switch o := op.(type) {
				case *balance.Consume:
					vers = append(vers, a.Ver)
				case *balance.Correct:
					if o.To != nil {
						vers = append(vers, a.Ver)
					}
				}
			case credit.InsufficientCredits, credit.NotCorrectable, credit.NotRefundable, credit.GrantState:
			default:
				rt.Fatalf("%T: %v", op, err)
			}
			if rapid.IntRange(0, 3).Draw(rt, "recognise") == 0 {
				if _, err := w.Store.RecogniseCustomer(context.Background(), c); err != nil {
					rt.Fatal(err)
				}
			}
		}
		for _, ver := range vers {
			if _, err := w.Service.Do(context.Background(), correct(w, c, ver, all)); err != nil && credit.CodeOf(err) != credit.NotCorrectable {
				rt.Fatal(err)
			}
		}
		var used int64
		if err := w.Store.Pool.QueryRow(context.Background(), `SELECT coalesce(sum(g.consumed), 0)::bigint - coalesce((SELECT sum(amount) FROM operations
			WHERE customer_id = $1 AND kind = 'decrement'), 0)::bigint FROM grants AS g WHERE customer_id = $1`, [16]byte(c)).Scan(&used); err != nil || used != 0 {
			rt.Fatalf("%d are still consumed: %v", used, err)
		}
	})
	mustVerify(t, w)
	mustVerifyAll(t, w)
}

// mustVerifyAll recognises and verifies every customer.
func mustVerifyAll(t testing.TB, w *balancetest.World) {
	t.Helper()
	ids, err := w.Store.CustomersToRecognise(context.Background(), credit.CustomerID{}, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	mustVerify(t, w, ids...)
}

// Support takes credits away: what they cost is earned, and they are gone.
func TestADecrement(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	g := w.Grant(t, c, wallet, 100*one, bought(1000))
	w.Do(t, hold(w, c, 30*one, time.Minute))
	decrement := func(n credit.Amount) *balance.DecrementGrant {
		return &balance.DecrementGrant{Header: balance.Header{Customer: c, Key: w.Key()}, Grant: g, Units: n, Reason: "abuse"}
	}
	refused(t, w, decrement(71*one), credit.InsufficientCredits)
	var doc balance.GrantDocument
	if err := json.Unmarshal(w.Do(t, decrement(25*one)).Body, &doc); err != nil || doc.Units != "25" || doc.Balance.Available != "45" || doc.Balance.Held != "30" {
		t.Errorf("%+v, %v", doc, err)
	}
	if err := json.Unmarshal(w.Do(t, decrement(0)).Body, &doc); err != nil || doc.Units != "45" || doc.State != credit.StateActive {
		t.Errorf("%+v, %v", doc, err)
	}
	refused(t, w, decrement(one), credit.InsufficientCredits)
	sameText(t, "journal", journal(t, w, c), `
purchase: dr 1020 10.00 cr 2010 10.00
decrement: dr 2010 2.50 cr 4010 2.50
decrement: dr 2010 4.50 cr 4010 4.50`)
	mustVerify(t, w, c)
}
