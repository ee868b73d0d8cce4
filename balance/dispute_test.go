package balance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

func dispute(w *balancetest.World, c credit.CustomerID, g credit.GrantID, reference string, status db.DisputeStatus) *balance.Dispute {
	return &balance.Dispute{Header: balance.Header{Customer: c, Key: w.Key()}, Reference: reference, Grant: g, Status: status, Amount: 1080, Fee: 150, Reason: "fraudulent"}
}

func taxed(o *balance.CreateGrant) { o.Grant.Tax = 80 }

// An open dispute freezes what is left and keeps it from being refunded; won, all is as before; lost, what is left is gone and the rest is no revenue.
func TestADisputesLife(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	g := w.Grant(t, c, wallet, 100*one, bought(1000), taxed)
	w.Do(t, w.Consume(c, 40*one))
	h := hold(w, c, 10*one, time.Minute)
	w.Do(t, h)
	var d balance.DisputeDocument
	if err := json.Unmarshal(w.Do(t, dispute(w, c, g, "dp_1", db.DisputeOpen)).Body, &d); err != nil || d.Frozen != "50" || d.Status != db.DisputeOpen || d.Amount.Amount != "10.80" {
		t.Fatalf("%+v, %v", d, err)
	}
	header := func() balance.Header { return balance.Header{Customer: c, Key: w.Key()} }
	for _, op := range []balance.Operation{
		&balance.FreezeGrant{Header: header(), Grant: g, Thaw: true, Reason: "let go"},
		&balance.RefundGrant{Header: header(), Grant: g, Refund: credit.NewID[credit.RefundID](), Reason: "asked"},
		&balance.DecrementGrant{Header: header(), Grant: g, Reason: "abuse"},
		dispute(w, c, g, "dp_2", db.DisputeOpen),
		func() *balance.Dispute { o := dispute(w, c, g, "dp_1", db.DisputeWon); o.Amount--; return o }(),
	} {
		refused(t, w, op, credit.DisputeState)
	}
	refused(t, w, w.Consume(c, one), credit.NotEntitled)
	w.Do(t, capture(w, c, h.Hold, 4*one, "")) // the hold keeps what it holds; what it lets go of is frozen
	w.Do(t, dispute(w, c, g, "dp_1", db.DisputeWon))
	if v := w.View(t, g); v.Frozen || v.Available != 56*one || v.Consumed != 44*one {
		t.Errorf("%+v", v)
	}
	refused(t, w, dispute(w, c, g, "dp_1", db.DisputeLost), credit.DisputeState)
	h = hold(w, c, 6*one, time.Minute)
	w.Do(t, h)
	w.Do(t, dispute(w, c, g, "dp_2", db.DisputeOpen))
	w.Do(t, dispute(w, c, g, "dp_2", db.DisputeLost))
	if v := w.View(t, g); v.Status != credit.StatusVoided || v.Voided != 50*one || v.Held != 6*one {
		t.Errorf("%+v", v)
	}
	w.Do(t, capture(w, c, h.Hold, 2*one, "")) // of what is let go of, nothing comes back
	if v := w.View(t, g); v.Voided != 54*one || v.Held != 0 || v.Available != 0 {
		t.Errorf("%+v", v)
	}
	sameText(t, "journal", grouped(journal(t, w, c)), `
dispute: dr 1020 10.80 cr 1130 10.80
dispute: dr 1130 10.80 dr 6030 1.50 cr 1020 12.30
dispute: dr 1130 10.80 dr 6030 1.50 cr 1020 12.30
dispute: dr 2010 0.40 cr 4091 0.40
dispute: dr 2010 5.00 dr 2030 0.80 dr 4091 5.00 cr 1130 10.80
purchase: dr 1020 10.80 cr 2010 10.00 cr 2030 0.80
recognition: dr 2010 0.20 cr 4010 0.20
recognition: dr 2010 4.40 cr 4010 4.40`)
	mustVerify(t, w, c)
}

func TestADisputeIsRefused(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	gift := w.Grant(t, c, wallet, 100*one)
	refused(t, w, dispute(w, c, gift, "dp_1", db.DisputeOpen), credit.GrantState)
	g, other := w.Grant(t, c, wallet, 100*one, bought(1000), taxed), w.Grant(t, c, wallet, 100*one, bought(1000), taxed)
	w.Do(t, &balance.RefundGrant{Header: balance.Header{Customer: c, Key: w.Key()}, Refund: credit.NewID[credit.RefundID](), Grant: g, Units: one, Reason: "asked"})
	refused(t, w, dispute(w, c, g, "dp_1", db.DisputeOpen), credit.DisputeState)
	w.Do(t, dispute(w, c, other, "dp_1", db.DisputeOpen))
	small := dispute(w, c, g, "dp_1", db.DisputeOpen)
	small.Amount = 100
	refused(t, w, small, credit.AlreadyExists)
	mustVerify(t, w, c)
}

// The messages about a dispute come in any order, again and again: every order ends in the same books, grants and events but for repetition.
func TestDisputesInAnyOrder(t *testing.T) {
	w := balancetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		final := rapid.SampledFrom([]db.DisputeStatus{db.DisputeWon, db.DisputeLost}).Draw(rt, "final")
		used := credit.Amount(rapid.Int64Range(0, 100).Draw(rt, "used")) * one
		wasFrozen := rapid.Bool().Draw(rt, "frozen before")
		messages := []db.DisputeStatus{db.DisputeOpen, final}
		for range rapid.IntRange(0, 3).Draw(rt, "repetitions") {
			messages = append(messages, rapid.SampledFrom(messages).Draw(rt, "again"))
		}
		run := func(messages []db.DisputeStatus) string {
			c, wallet := w.Customer(t)
			g := w.Grant(t, c, wallet, 100*one, bought(1000), taxed)
			if used > 0 {
				w.Do(t, w.Consume(c, used))
			}
			if wasFrozen && used < 100*one {
				w.Do(t, &balance.FreezeGrant{Header: balance.Header{Customer: c, Key: w.Key()}, Grant: g, Reason: "look"})
			}
			for _, m := range messages {
				w.Do(t, dispute(w, c, g, "dp_"+c.String(), m))
			}
			v := w.View(t, g)
			return fmt.Sprint(grouped(journal(t, w, c)), v.Status, v.Frozen, v.Available, v.Voided)
		}
		straight := run([]db.DisputeStatus{db.DisputeOpen, final})
		if got := run(rapid.Permutation(messages).Draw(rt, "order")); got != straight {
			rt.Fatalf("%s\nwant\n%s", got, straight)
		}
	})
	mustVerify(t, w)
	var open int
	if err := w.Store.Pool.QueryRow(context.Background(), "SELECT count(*) FROM disputes WHERE status = 'open'").Scan(&open); err != nil || open != 0 {
		t.Errorf("%d are open, %v", open, err)
	}
}

func refundOf(w *balancetest.World, c credit.CustomerID, g credit.GrantID) *balance.RefundGrant {
	return &balance.RefundGrant{Header: balance.Header{Customer: c, Key: w.Key()}, Refund: credit.NewID[credit.RefundID](), Grant: g, Reason: "asked"}
}

// What a void has paid back can neither be disputed nor be the price of what is reissued.
func TestWhatAVoidHasPaidBack(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	void := func(g credit.GrantID) *balance.VoidGrant {
		return &balance.VoidGrant{Header: balance.Header{Customer: c, Key: w.Key()}, Grant: g, Reason: "mistake"}
	}
	g := w.Grant(t, c, wallet, 100*one, bought(1000), taxed)
	w.Do(t, void(g))
	refused(t, w, dispute(w, c, g, "dp_1", db.DisputeOpen), credit.DisputeState)

	g = w.Grant(t, c, wallet, 2*one, bought(101))
	ver := w.Do(t, w.Consume(c, one)).Ver
	w.Do(t, void(g))
	d := corrected(t, w.Do(t, correct(w, c, ver, func(o *balance.Correct) { o.All, o.Reissue = true, &balance.Reissue{} })))
	if v := w.View(t, d.Reissued[0].GrantID); v.Price.Minor != 50 { // 51 were paid back
		t.Errorf("%+v", v)
	}
	mustVerify(t, w, c)
}

// A dispute also decides about credits that come back to a grant which had nothing left.
func TestWhatComesBackDuringADispute(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	g := w.Grant(t, c, wallet, 100*one, bought(1000), taxed)
	ver := w.Do(t, w.Consume(c, 100*one)).Ver
	w.Do(t, dispute(w, c, g, "dp_1", db.DisputeOpen))
	w.Do(t, correct(w, c, ver, units(60*one)))
	refused(t, w, w.Consume(c, one), credit.NotEntitled)
	refused(t, w, refundOf(w, c, g), credit.DisputeState)
	w.Do(t, dispute(w, c, g, "dp_1", db.DisputeWon))
	if v := w.View(t, g); v.Status != credit.StatusOpen || v.Frozen || v.Available != 60*one {
		t.Errorf("%+v", v)
	}
	// Held credits that are captured while the rest is frozen leave a grant that is depleted; won, it is as any other.
	h := hold(w, c, 60*one, time.Minute)
	w.Do(t, h)
	w.Do(t, dispute(w, c, g, "dp_2", db.DisputeOpen))
	w.Do(t, capture(w, c, h.Hold, 60*one, ""))
	w.Do(t, dispute(w, c, g, "dp_2", db.DisputeWon))
	w.Do(t, correct(w, c, ver, units(10*one)))
	w.Do(t, w.Consume(c, 10*one))
	mustVerify(t, w, c)
}

// Nothing comes back to a grant whose payment was lost, nor from it, whatever had become of it before.
func TestNothingComesBackAfterALoss(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	g := w.Grant(t, c, wallet, 100*one, bought(1000))
	ver := w.Do(t, w.Consume(c, 50*one)).Ver
	w.Do(t, refundOf(w, c, g))
	lost := dispute(w, c, g, "dp_1", db.DisputeLost)
	lost.Amount = 500
	w.Do(t, lost)
	refused(t, w, correct(w, c, ver, all), credit.DisputeState)

	for _, status := range []db.DisputeStatus{db.DisputeOpen, db.DisputeLost} {
		g = w.Grant(t, c, wallet, 100*one, bought(1000), taxed, func(o *balance.CreateGrant) { o.Grant.ExpiresAt = time.Now().Add(time.Second) })
		ver = w.Do(t, w.Consume(c, 60*one)).Ver
		time.Sleep(1010 * time.Millisecond)
		w.Do(t, &balance.Expire{Header: balance.Header{Customer: c}, Grant: g})
		w.Do(t, dispute(w, c, g, "dp_"+string(status), status))
		refused(t, w, correct(w, c, ver, func(o *balance.Correct) { o.All, o.Reissue = true, &balance.Reissue{} }), credit.DisputeState)
	}
	mustVerify(t, w, c)
}

// A bonus that is disputed is not paid back with its purchase.
func TestADisputedBonus(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	g := w.Grant(t, c, wallet, 100*one, bought(1000), func(o *balance.CreateGrant) { o.Bonus = &balance.Bonus{Amount: 50 * one, Value: 250} })
	d := dispute(w, c, balance.BonusID(g), "dp_1", db.DisputeOpen)
	d.Amount = 200
	w.Do(t, d)
	refused(t, w, refundOf(w, c, g), credit.DisputeState)
	refused(t, w, &balance.VoidGrant{Header: balance.Header{Customer: c, Key: w.Key()}, Grant: g, Reason: "mistake"}, credit.DisputeState)
	d = dispute(w, c, balance.BonusID(g), "dp_1", db.DisputeWon)
	d.Amount = 200
	w.Do(t, d)
	w.Do(t, refundOf(w, c, g))
	mustVerify(t, w, c)
}
