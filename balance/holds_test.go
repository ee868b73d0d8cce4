package balance_test

import (
	"context"
	"encoding/json"
	"errors"
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
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

func hold(w *balancetest.World, c credit.CustomerID, amount credit.Amount, d time.Duration) *balance.Hold {
	return &balance.Hold{Consume: *w.Consume(c, amount), Hold: credit.NewID[credit.HoldID](), For: d}
}

func capture(w *balancetest.World, c credit.CustomerID, h credit.HoldID, amount credit.Amount, over balance.CapturePolicy) *balance.CaptureHold {
	return &balance.CaptureHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: h, Amount: amount, Over: over}
}

func release(w *balancetest.World, c credit.CustomerID, h credit.HoldID) *balance.ReleaseHold {
	return &balance.ReleaseHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: h}
}

func held(t testing.TB, a balance.Answer) (d balance.HoldDocument) {
	t.Helper()
	if err := json.Unmarshal(a.Body, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// 20 holds of 75 at once on 500 credits: exactly 6 are admitted, by two processes.
func TestHoldsAdmitWhatThereIs(t *testing.T) {
	w := balancetest.New(t)
	services := []*balance.Service{w.Service, w.Start(t, balance.Config{})}
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 300*one)
	w.Grant(t, c, wallet, 200*one)
	var admitted atomic.Int64
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			_, err := services[i%2].Do(context.Background(), hold(w, c, 75*one, time.Minute))
			switch credit.CodeOf(err) {
			case "":
				admitted.Add(1)
			case credit.InsufficientCredits:
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if admitted.Load() != 6 {
		t.Errorf("%d holds were admitted", admitted.Load())
	}
	mustVerify(t, w, c)
}

// A hold is captured in parts at the rate of its time, extended, and what is left goes back to the grants that it came from.
func TestAHoldsLife(t *testing.T) {
	w := balancetest.New(t)
	card := w.Card(t, "standard", true, "2", time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	first := w.Grant(t, c, wallet, 10*one, func(o *balance.CreateGrant) { o.Grant.Priority = 1 })
	second := w.Grant(t, c, wallet, 90*one, func(o *balance.CreateGrant) { o.Grant.Priority = 2 })
	op := &balance.Hold{Consume: *images(w, c, 15, time.Time{}), Hold: credit.NewID[credit.HoldID](), For: time.Minute}
	d := held(t, w.Do(t, op))
	if d.Held != "30" || d.Available != "70" || len(d.Lines) != 2 || d.Lines[0].GrantID != first || d.Lines[0].Amount != "10" || d.Lines[1].Amount != "20" || d.RateVersion != 1 {
		t.Fatalf("%+v", d)
	}
	w.Publish(t, card, "7", time.Now().Add(-time.Second)) // a new price does not reach it
	again := *op
	if a := w.Do(t, &again); !a.Replayed || held(t, a).ID != op.Hold {
		t.Errorf("%s", a.Body)
	}
	part := &balance.CaptureHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: op.Hold, Usage: []rating.Line{{Meter: "images", Quantity: decimal.New(3, 0)}}, More: true}
	if d := held(t, w.Do(t, part)); d.CapturedNow != "6" || d.Held != "24" || d.Status != credit.HoldOpen || len(d.Pricing) != 1 {
		t.Errorf("%+v", d)
	}
	extend := &balance.ExtendHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: op.Hold, Usage: []rating.Line{{Meter: "images", Quantity: decimal.New(5, 0)}}, For: 2 * time.Minute}
	if d := held(t, w.Do(t, extend)); d.Held != "34" || d.Available != "60" || !time.Time(d.ExpiresAt).After(time.Now().Add(110*time.Second)) {
		t.Errorf("%+v", d)
	}
	refused(t, w, capture(w, c, op.Hold, 35*one, balance.CaptureReject), credit.CaptureExceedsHold)
	refused(t, w, capture(w, c, op.Hold, 95*one, balance.CaptureIfAvailable), credit.InsufficientCredits)
	d = held(t, w.Do(t, capture(w, c, op.Hold, 40*one, balance.CaptureIfAvailable)))
	if d.Status != credit.HoldCaptured || d.Captured != "46" || d.Held != "0" || d.Available != "54" {
		t.Errorf("%+v", d)
	}
	for _, o := range []balance.Operation{capture(w, c, op.Hold, one, ""), release(w, c, op.Hold), &balance.ExtendHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: op.Hold, Amount: one}} {
		refused(t, w, o, credit.HoldEnded)
	}
	refused(t, w, release(w, c, credit.NewID[credit.HoldID]()), credit.HoldNotFound)
	other, _ := w.Customer(t)
	refused(t, w, release(w, other, op.Hold), credit.HoldNotFound)
	if a, b := w.View(t, first), w.View(t, second); a.Status != credit.StatusDepleted || a.Consumed != 10*one || b.Consumed != 36*one || b.Held != 0 {
		t.Errorf("%+v %+v", a, b)
	}
	// Released, everything is back where it was.
	op = &balance.Hold{Consume: *images(w, c, 2, time.Time{}), Hold: credit.NewID[credit.HoldID](), For: time.Minute}
	w.Do(t, op)
	if d := held(t, w.Do(t, release(w, c, op.Hold))); d.Status != credit.HoldReleased || d.Available != "54" {
		t.Errorf("%+v", d)
	}
	mustVerify(t, w, c)
}

// Without any worker a hold is let go of within a second of its deadline; a capture shortly after takes the credits if they are still there.
func TestADeadlineNeedsNoWorker(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100*one)
	op, gone := hold(w, c, 60*one, time.Second), hold(w, c, 40*one, time.Second)
	w.Do(t, op)
	d := held(t, w.Do(t, gone))
	refused(t, w, w.Consume(c, one), credit.InsufficientCredits)
	time.Sleep(time.Until(time.Time(d.ExpiresAt)) + time.Second)
	for _, id := range []credit.HoldID{op.Hold, gone.Hold} {
		if h, err := w.Store.Hold(context.Background(), id); err != nil || h.Status != credit.HoldExpired || h.Left() != 0 {
			t.Errorf("%+v, %v", h, err)
		}
	}
	w.Do(t, w.Consume(c, 50*one))
	refused(t, w, capture(w, c, op.Hold, 60*one, balance.CaptureReject), credit.InsufficientCredits)
	if d := held(t, w.Do(t, capture(w, c, op.Hold, 45*one, balance.CaptureReject))); d.Captured != "45" || d.Available != "5" || d.Status != credit.HoldExpired {
		t.Errorf("%+v", d)
	}
	mustVerify(t, w, c)
}

// A hold keeps credits past their grant's expiry; what it lets go of then is breakage at once.
func TestAHoldOutlivesItsGrantsExpiry(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	soon := time.Now().Add(1200 * time.Millisecond)
	g := w.Grant(t, c, wallet, 100*one, func(o *balance.CreateGrant) { o.Grant.ExpiresAt = soon })
	op := hold(w, c, 60*one, time.Minute)
	w.Do(t, op)
	time.Sleep(time.Until(soon) + 50*time.Millisecond)
	w.Do(t, &balance.Expire{Header: balance.Header{Customer: c}, Grant: g})
	if v := w.View(t, g); v.Expired != 40*one || v.Held != 60*one || v.Status != credit.StatusOpen {
		t.Errorf("%+v", v)
	}
	if d := held(t, w.Do(t, capture(w, c, op.Hold, 25*one, ""))); d.Captured != "25" || d.Released != "35" {
		t.Errorf("%+v", d)
	}
	if v := w.View(t, g); v.Consumed != 25*one || v.Expired != 75*one || v.Status != credit.StatusExpired {
		t.Errorf("%+v", v)
	}
	mustVerify(t, w, c)
}

// Random lives of many holds over mixed grants: nothing is spent twice, nothing leaks, every release goes back to its own grant.
func TestHoldsConserve(t *testing.T) {
	w := balancetest.New(t)
	w.Card(t, "standard", true, "1", time.Now().AddDate(-1, 0, 0))
	rapid.Check(t, func(rt *rapid.T) {
		c, wallet := w.Customer(t)
		var grants []credit.GrantID
		for i := range rapid.IntRange(1, 4).Draw(rt, "grants") {
			grants = append(grants, w.Grant(t, c, wallet, credit.Amount(rapid.Int64Range(1, 50).Draw(rt, "credits"))*one, func(o *balance.CreateGrant) {
				o.Grant.Priority = rapid.IntRange(0, 2).Draw(rt, fmt.Sprint("priority", i))
			}))
		}
		open := map[credit.HoldID]credit.Amount{}
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			amount := credit.Amount(rapid.Int64Range(1, 30).Draw(rt, "amount")) * one
			var op balance.Operation
			ids := make([]credit.HoldID, 0, len(open))
			for id := range open {
				ids = append(ids, id)
			}
			switch kind := rapid.IntRange(0, 5).Draw(rt, "kind"); {
			case kind == 0:
				op = w.Consume(c, amount)
			case kind <= 2 || len(ids) == 0:
				op = hold(w, c, amount, time.Minute)
			case kind == 3:
				op = release(w, c, ids[0])
			case kind == 4:
				o := capture(w, c, ids[0], amount, balance.CaptureIfAvailable)
				o.More = rapid.Bool().Draw(rt, "more")
				op = o
			default:
				op = &balance.ExtendHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: ids[0], Amount: amount}
			}
			a, err := w.Service.Do(context.Background(), op)
			if code := credit.CodeOf(err); code != "" && code != credit.InsufficientCredits {
				rt.Fatalf("%T: %v", op, err)
			}
			if err != nil {
				continue
			}
			if _, consumes := op.(*balance.Consume); consumes {
				continue
			}
			d := held(t, a)
			if d.Status == credit.HoldOpen {
				open[d.ID], _ = credit.ParseAmount(d.Held, balancetest.Scale)
			} else {
				delete(open, d.ID)
			}
		}
		var want, have credit.Amount
		for _, left := range open {
			want += left
		}
		for _, g := range grants {
			have += w.View(t, g).Held
		}
		if want != have {
			rt.Fatalf("%d are held by holds, %d in grants", want, have)
		}
		for id := range open {
			w.Do(t, release(w, c, id))
		}
		for _, g := range grants {
			if v := w.View(t, g); v.Held != 0 || v.Available+v.Consumed != v.Granted {
				rt.Fatalf("%+v", v)
			}
		}
		balancetest.MustConserve(t, w, c)
	})
	mustVerify(t, w)
}

// A hold has one end, whoever comes at once to bring it.
func TestAHoldEndsOnce(t *testing.T) {
	w := balancetest.New(t)
	services := []*balance.Service{w.Service, w.Start(t, balance.Config{})}
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 1_000*one)
	for range 20 {
		op := hold(w, c, 10*one, time.Minute)
		w.Do(t, op)
		var ended atomic.Int64
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				var o balance.Operation = release(w, c, op.Hold)
				if i%2 == 0 {
					o = capture(w, c, op.Hold, 7*one, "")
				}
				_, err := services[i/4].Do(context.Background(), o)
				if err == nil {
					ended.Add(1)
				} else if credit.CodeOf(err) != credit.HoldEnded {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if ended.Load() != 1 {
			t.Errorf("the hold ended %d times", ended.Load())
		}
	}
	mustVerify(t, w, c)
}

// A usage that makes its period cheaper adds nothing to a hold.
func TestAHoldIsNotExtendedByLessThanNothing(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "volume", true), byVolume, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100*one)
	op := &balance.Hold{Consume: *images(w, c, 1, time.Time{}), Hold: credit.NewID[credit.HoldID](), For: time.Minute}
	w.Do(t, op)
	w.Do(t, images(w, c, 10, time.Time{}))
	d := held(t, w.Do(t, &balance.ExtendHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: op.Hold, Usage: []rating.Line{{Meter: "images", Quantity: decimal.New(1, 0)}}}))
	if d.Held != "3" || d.Available != "67" {
		t.Errorf("%+v", d)
	}
	mustVerify(t, w, c)
}

// A late capture that costs less than nothing exceeds nothing, whatever was captured beyond the hold before.
func TestALateCaptureGivesBack(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "volume", true), byVolume, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100*one)
	op := &balance.Hold{Consume: *images(w, c, 1, time.Time{}), Hold: credit.NewID[credit.HoldID](), For: time.Second}
	d := held(t, w.Do(t, op))
	w.Do(t, images(w, c, 10, time.Time{}))
	time.Sleep(time.Until(time.Time(d.ExpiresAt)) + time.Second)
	w.Do(t, capture(w, c, op.Hold, 5*one, balance.CaptureIfAvailable))
	late := capture(w, c, op.Hold, 0, balance.CaptureReject)
	late.Usage = []rating.Line{{Meter: "images", Quantity: decimal.New(1, 0)}}
	if d := held(t, w.Do(t, late)); d.GivenBack != "8" || d.Available != "73" {
		t.Errorf("%+v", d)
	}
	w.Do(t, w.Consume(c, one))
	mustVerify(t, w, c)
}

// A capture that was refused stays refused under its key: an attempt left behind cannot carry it out once the hold was extended.
func TestARefusedCaptureStaysRefused(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100*one)
	op := hold(w, c, 10*one, time.Minute)
	w.Do(t, op)
	more := capture(w, c, op.Hold, 15*one, balance.CaptureReject)
	again := *more
	refused(t, w, more, credit.CaptureExceedsHold)
	w.Do(t, &balance.ExtendHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: op.Hold, Amount: 10 * one})
	refused(t, w, &again, credit.CaptureExceedsHold)
	mustVerify(t, w, c)
}

// While a hold keeps the last credits of an expired grant there is nothing to expire.
func TestAHeldGrantExpiresOnce(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	soon := time.Now().Add(1200 * time.Millisecond)
	g := w.Grant(t, c, wallet, 100*one, func(o *balance.CreateGrant) { o.Grant.ExpiresAt = soon })
	op := hold(w, c, 60*one, time.Minute)
	w.Do(t, op)
	time.Sleep(time.Until(soon) + 50*time.Millisecond)
	w.Do(t, &balance.Expire{Header: balance.Header{Customer: c}, Grant: g})
	refused(t, w, &balance.Expire{Header: balance.Header{Customer: c}, Grant: g}, credit.GrantState)
	if due, err := w.Store.DueGrants(context.Background(), db.DueGrant{}, 10); err != nil || len(due) != 0 {
		t.Errorf("%+v, %v", due, err)
	}
	w.Do(t, release(w, c, op.Hold))
	if v := w.View(t, g); v.Expired != 100*one || v.Status != credit.StatusExpired {
		t.Errorf("%+v", v)
	}
	mustVerify(t, w, c)
}

// A hold that was extended out of the same grant lets go of both parts after the grant's expiry: one breakage in the books.
func TestAnExtendedHoldOutlivesItsGrantsExpiry(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	soon := time.Now().Add(1500 * time.Millisecond)
	g := w.Grant(t, c, wallet, 100*one, func(o *balance.CreateGrant) {
		o.Grant.ExpiresAt, o.Grant.Type, o.Grant.Price = soon, credit.Purchased, credit.Money{Minor: 1000, Currency: "USD"}
	})
	op := hold(w, c, 30*one, time.Minute)
	w.Do(t, op)
	w.Do(t, &balance.ExtendHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: op.Hold, Amount: 20 * one})
	time.Sleep(time.Until(soon) + 50*time.Millisecond)
	w.Do(t, release(w, c, op.Hold))
	w.Do(t, &balance.Expire{Header: balance.Header{Customer: c}, Grant: g})
	if v := w.View(t, g); v.Expired != 100*one || v.Status != credit.StatusExpired {
		t.Errorf("%+v", v)
	}
	mustVerify(t, w, c)
}

// Whoever publishes a card keeps nobody from using it.
func TestAHoldDoesNotWaitForAPublication(t *testing.T) {
	w := balancetest.New(t)
	card := w.Card(t, "standard", true, "2", time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100*one)
	op := &balance.Hold{Consume: *images(w, c, 15, time.Time{}), Hold: credit.NewID[credit.HoldID](), For: time.Minute}
	_, _, err := w.Store.Change(context.Background(), db.Audited{Action: "test", RequestID: credit.NewID[credit.RequestID]()},
		func(ctx context.Context, k *db.Catalog) (db.Outcome, error) {
			_, err := k.PublishRateCard(ctx, card, db.RateCardVersionRow{Document: []byte(byVolume), PublishedBy: "test"})
			w.Do(t, op) // before the publication is committed
			return db.Outcome{Status: 200, Answer: []byte("{}")}, err
		})
	if err != nil {
		t.Fatal(err)
	}
}

// An extension that comes after the deadline is told that the hold has expired, also before anybody has let go of it. A process that only looks
// lets go of nothing.
func TestAnExtensionAfterTheDeadline(t *testing.T) {
	w := balancetest.New(t, func(o *balancetest.Options) { o.Config.LooksOnly = true })
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 10*one)
	op := hold(w, c, 5*one, time.Second)
	d := held(t, w.Do(t, op))
	time.Sleep(time.Until(time.Time(d.ExpiresAt)) + 600*time.Millisecond)
	_, err := w.Service.Do(context.Background(), &balance.ExtendHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: op.Hold, Amount: one})
	var refusal *credit.Error
	if !errors.As(err, &refusal) || refusal.Code != credit.HoldEnded || refusal.Fields["state"] != credit.HoldExpired {
		t.Errorf("%v", err)
	}
	if h, err := w.Store.Hold(context.Background(), op.Hold); err != nil || h.Status != credit.HoldOpen {
		t.Errorf("%+v, %v", h, err)
	}
	// A capture within the grace takes what nobody has let go of.
	if d := held(t, w.Do(t, capture(w, c, op.Hold, 5*one, ""))); d.Captured != "5" || d.Status != credit.HoldCaptured {
		t.Errorf("%+v", d)
	}
	mustVerify(t, w, c)
}
