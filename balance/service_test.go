package balance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
)

const one = credit.Amount(1_000_000) // one credit

func TestConsumeDrawsInOrderAndAnswersWithAReceipt(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	later := w.Grant(t, c, wallet, 5*one, func(o *balance.CreateGrant) { o.Grant.ExpiresAt = time.Now().Add(48 * time.Hour) })
	sooner := w.Grant(t, c, wallet, 3*one, func(o *balance.CreateGrant) { o.Grant.ExpiresAt = time.Now().Add(24 * time.Hour) })

	op := w.Consume(c, 4*one)
	op.Dims, op.Reason = credit.Dimensions{"model": "m\"1", "product": "chät"}, "a <test>"
	a := w.Do(t, op)
	var r balance.ConsumeReceipt
	dec := json.NewDecoder(bytes.NewReader(a.Body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("%s: %v", a.Body, err)
	}
	if len(r.Draws) != 2 || r.Draws[0].GrantID != sooner || r.Draws[0].Amount != "3" || r.Draws[1].GrantID != later || r.Draws[1].Left != "4" ||
		r.Available != "4" || r.Amount != "4" || r.Ver != a.Ver {
		t.Fatalf("receipt %s", a.Body)
	}
	again, err := json.Marshal(r)
	if err != nil || !bytes.Equal(again, a.Body) {
		t.Fatalf("the receipt is not what encoding/json writes:\n%s\n%s", a.Body, again)
	}
	if g := w.View(t, sooner); g.Status != credit.StatusDepleted || g.Consumed != 3*one {
		t.Fatalf("the sooner grant is %+v", g)
	}
}

func TestSameKeySameAnswer(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 10*one)
	other, _ := w.Customer(t)

	op := w.Consume(c, one)
	op.Request = balance.RequestDigest("one")
	var answers [200]balance.Answer
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			mine := *op
			var err error
			if answers[i], err = w.Service.Do(context.Background(), &mine); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	firsts := 0
	for _, a := range answers {
		if !bytes.Equal(a.Body, answers[0].Body) {
			t.Fatalf("%s\n%s", a.Body, answers[0].Body)
		}
		if !a.Replayed {
			firsts++
		}
	}
	if firsts != 1 {
		t.Fatalf("%d answers were the first", firsts)
	}
	for name, change := range map[string]func(*balance.Consume){
		"another body":     func(o *balance.Consume) { o.Request = balance.RequestDigest("two") },
		"another customer": func(o *balance.Consume) { o.Customer, o.Request = other, balance.RequestDigest("other") },
	} {
		mine := *op
		change(&mine)
		if _, err := w.Service.Do(context.Background(), &mine); credit.CodeOf(err) != credit.RequestMismatch {
			t.Errorf("%s: %v", name, err)
		}
	}
	doc, err := w.Service.StrongBalance(context.Background(), c)
	if err != nil || doc.Units[0].Available != "9" {
		t.Fatalf("balance %+v, %v", doc, err)
	}
}

func TestADenialIsFinal(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, one)
	op := w.Consume(c, 2*one)
	_, err := w.Service.Do(context.Background(), op)
	var first *credit.Error
	if !errors.As(err, &first) || first.Code != credit.InsufficientCredits || first.Fields["required"] != "2" || first.Fields["balance"] != "1" {
		t.Fatalf("%v", err)
	}
	w.Grant(t, c, wallet, 5*one)
	mine := *op
	mine.RequestID = credit.RequestID{}
	a, err := w.Service.Do(context.Background(), &mine)
	var second *credit.Error
	if !errors.As(err, &second) || second.Detail != first.Detail || fmt.Sprint(second.Fields) != fmt.Sprint(first.Fields) || !a.Replayed {
		t.Fatalf("first %v %v, then %v %+v", first, first.Fields, err, a)
	}
	w.Do(t, w.Consume(c, 2*one)) // a new key is a new attempt
}

func TestRefusalsNameTheirReason(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 5*one, func(o *balance.CreateGrant) { o.Grant.Scope = credit.Scope{"model": {"a"}} })
	do := func(o *balance.Consume) error { _, err := w.Service.Do(context.Background(), o); return err }
	for name, tc := range map[string]struct {
		change func(*balance.Consume)
		want   credit.Code
	}{
		"scope":         {func(o *balance.Consume) { o.Dims = credit.Dimensions{"model": "b"} }, credit.NotEntitled},
		"no credits":    {func(o *balance.Consume) { o.Amount, o.Dims = 6*one, credit.Dimensions{"model": "a"} }, credit.InsufficientCredits},
		"customer":      {func(o *balance.Consume) { o.Customer = credit.NewID[credit.CustomerID]() }, credit.CustomerNotFound},
		"unit":          {func(o *balance.Consume) { o.Unit = "NONE" }, credit.UnitNotFound},
		"negative":      {func(o *balance.Consume) { o.Amount = -1 }, credit.InvalidAmount},
		"beyond bounds": {func(o *balance.Consume) { o.Amount = credit.MaxAmount + 1 }, credit.InvalidAmount},
		"nothing":       {func(o *balance.Consume) { o.Amount = 0 }, credit.InvalidAmount},
		"no key":        {func(o *balance.Consume) { o.Key = "" }, credit.InvalidRequest},
		"old":           {func(o *balance.Consume) { o.At = time.Now().Add(-35 * 24 * time.Hour) }, credit.TooOld},
		"future":        {func(o *balance.Consume) { o.At = time.Now().Add(time.Hour) }, credit.InFuture},
	} {
		o := w.Consume(c, one)
		tc.change(o)
		if err := do(o); credit.CodeOf(err) != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	o := w.Consume(c, 6*one)
	o.Dims, o.Partial = credit.Dimensions{"model": "a"}, true
	var r balance.ConsumeReceipt
	if err := json.Unmarshal(w.Do(t, o).Body, &r); err != nil || r.Amount != "5" || r.Shortfall != "1" || !r.Partial {
		t.Fatalf("partial: %+v, %v", r, err)
	}
}

// TestRandomLivesConserve lets several services act at once on the same few customers, at random, and then holds every grant against
// its movements. The draw-down, the locks and the fences all have to hold for it.
func TestRandomLivesConserve(t *testing.T) {
	w := balancetest.New(t, func(o *balancetest.Options) { o.Config.Lanes = 2 })
	services := []*balance.Service{w.Service, w.Start(t, balance.Config{Lanes: 1, MaxBatch: 3}), w.Start(t, balance.Config{})}
	rapid.Check(t, func(rt *rapid.T) {
		c, wallet := w.Customer(t)
		second := w.Wallet(t, c, func(o *balance.CreateWallet) {
			o.Wallet.SoftCap, o.OverageLimit, o.Wallet.Priority = rapid.Bool().Draw(rt, "soft"), 7*one, 200
		})
		var grants []credit.GrantID
		for range rapid.IntRange(1, 4).Draw(rt, "grants") {
			grants = append(grants, w.Grant(t, c, rapid.SampledFrom([]credit.WalletID{wallet, second}).Draw(rt, "wallet"),
				credit.Amount(rapid.IntRange(1, 20).Draw(rt, "amount"))*one, func(o *balance.CreateGrant) {
					o.Grant.Type = credit.Purchased
					o.Grant.Price, o.Pending = credit.Money{Minor: rapid.Int64Range(0, 1000).Draw(rt, "price"), Currency: "USD"}, rapid.Bool().Draw(rt, "pending")
				}))
		}
		var ops []balance.Operation
		for range rapid.IntRange(1, 40).Draw(rt, "operations") {
			h := balance.Header{Customer: c, Key: w.Key()}
			g := rapid.SampledFrom(grants).Draw(rt, "grant")
			n := credit.Amount(rapid.IntRange(1, 9_000_000).Draw(rt, "steps"))
			switch rapid.IntRange(0, 12).Draw(rt, "kind") {
			case 0:
				ops = append(ops, &balance.RefundGrant{Header: h, Grant: g, Units: n, Refund: credit.NewID[credit.RefundID](), Reason: "test"})
			case 1:
				ops = append(ops, &balance.VoidGrant{Header: h, Grant: g, Reason: "test"})
			case 2:
				ops = append(ops, &balance.FreezeGrant{Header: h, Grant: g, Thaw: rapid.Bool().Draw(rt, "thaw")})
			case 3, 4:
				ops = append(ops, &balance.IssueGrant{Header: h, Grant: g})
			case 5:
				ops = append(ops, &balance.Expire{Header: h, Grant: g})
			default:
				ops = append(ops, &balance.Consume{Header: h, Unit: "CRD", Amount: n, Partial: rapid.Bool().Draw(rt, "partial")})
			}
		}
		var wg sync.WaitGroup
		for i, s := range services {
			wg.Go(func() {
				for k := i; k < len(ops); k += len(services) {
					_, err := s.Do(context.Background(), ops[k])
					if err != nil && credit.CodeOf(err) == "" {
						t.Errorf("%T: %v", ops[k], err)
					}
				}
			})
		}
		wg.Wait()
		balancetest.MustConserve(t, w, c)
	})
}

func TestTimeChoosesTheGrant(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	g := w.Grant(t, c, wallet, 5*one, func(o *balance.CreateGrant) { o.Grant.ExpiresAt = time.Now().Add(700 * time.Millisecond) })
	w.Grant(t, c, wallet, 5*one, func(o *balance.CreateGrant) { o.Grant.EffectiveAt = time.Now().Add(time.Hour) })
	w.Do(t, w.Consume(c, one))
	if _, err := w.Service.Do(context.Background(), &balance.Expire{Header: balance.Header{Customer: c}, Grant: g}); credit.CodeOf(err) != credit.GrantNotExpired {
		t.Fatalf("expiring early: %v", err)
	}
	waitFor(t, func() bool {
		_, err := w.Service.Do(context.Background(), w.Consume(c, one/100))
		return credit.CodeOf(err) == credit.InsufficientCredits
	})
	if v := w.View(t, g); v.Available == 0 {
		t.Fatal("nothing was left to expire")
	}
	w.Do(t, &balance.Expire{Header: balance.Header{Customer: c}, Grant: g})
	if _, err := w.Service.Do(context.Background(), &balance.Expire{Header: balance.Header{Customer: c}, Grant: g}); credit.CodeOf(err) != credit.GrantState {
		t.Fatalf("expiring twice: %v", err)
	}
	if v := w.View(t, g); v.Status != credit.StatusExpired || v.Available != 0 || v.Expired+v.Consumed != 5*one {
		t.Fatalf("%+v", v)
	}
	balancetest.MustConserve(t, w, c)
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("it did not come to pass within 15 s")
}

func TestABadRowHarmsNobodyElse(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 100*one)
	var ops []balance.Operation
	for range 20 {
		ops = append(ops, w.Consume(c, one))
	}
	bad := w.Consume(c, one)
	bad.Dims = credit.Dimensions{"model": "\x00"} // which the API refuses, and Postgres cannot store
	ops = append(ops[:10:10], append([]balance.Operation{bad}, ops[10:]...)...)
	for i, r := range w.Service.DoAll(context.Background(), ops) {
		if (r.Err != nil) != (i == 10) {
			t.Errorf("operation %d: %v", i, r.Err)
		}
	}
	doc, err := w.Service.StrongBalance(context.Background(), c)
	if err != nil || doc.Units[0].Available != "80" {
		t.Fatalf("%+v, %v", doc, err)
	}
}
