package verify_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/verify"
)

func mustBeClean(t interface{ Fatalf(string, ...any) }, s *db.Store) {
	report, err := verify.Run(ctx, s, nil, verify.Options{})
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	if !report.Clean() {
		var text strings.Builder
		report.WriteTo(&text)
		t.Fatalf("%s", &text)
	}
}

// Whatever happens in whatever order, and however often it is posted meanwhile: the books verify, deferred revenue rolls forward per grant,
// and once all credits are gone nothing is deferred.
func TestAnyHistoryVerifies(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	rapid.Check(t, func(t *rapid.T) {
		c := b.Customer(dbtest.Entity)
		at := on(1, 1)
		var live []*credit.Grant
		price := rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, 1<<40))
		dims := rapid.SampledFrom([]credit.Dimensions{nil, {"product": "chat"}, {"product": "chat", "model": "large"}, {"model": "small"}})
		for range rapid.IntRange(1, 40).Draw(t, "operations") {
			at = at.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "hours")) * time.Hour)
			var g *credit.Grant
			for i, x := range live {
				if x.Available == 0 {
					live = append(live[:i], live[i+1:]...)
					break
				}
			}
			if len(live) > 0 {
				g = rapid.SampledFrom(live).Draw(t, "grant")
			}
			what := rapid.SampledFrom([]string{"grant", "use", "use", "use", "use late", "refund", "void", "expire", "configure", "recognise"}).Draw(t, "what")
			if g == nil || g.Available == 0 {
				what = "grant"
			}
			part := func() credit.Amount { return credit.Amount(rapid.Int64Range(1, int64(g.Available)).Draw(t, "credits")) }
			overage := g != nil && g.Type == credit.Overage
			switch {
			case what == "grant":
				n := credit.Grant{Amount: credit.Amount(rapid.OneOf(rapid.Int64Range(1, 50), rapid.Int64Range(1, int64(credit.MaxAmount))).Draw(t, "amount")),
					Type: rapid.SampledFrom([]credit.GrantType{credit.Purchased, credit.Purchased, credit.Promotional, credit.Concession, credit.Overage}).Draw(t, "type")}
				if n.Type != credit.Promotional {
					n.Price.Minor = price.Draw(t, "price")
				}
				if n.Type == credit.Purchased {
					n.Tax = price.Draw(t, "tax")
					if rapid.Bool().Draw(t, "foreign") && n.Price.Minor+n.Tax > 0 {
						n.Price.Currency, n.FXRate = "EUR", decimal.New(rapid.Int64Range(1, 3_000_000).Draw(t, "rate"), -6)
					}
				}
				live = append(live, c.Grant(at, n))
			case what == "use":
				c.Use(at, g, part(), dims.Draw(t, "dims"))
			case what == "use late":
				c.Do(dbtest.Operation{Kind: "consume", At: at, ServiceAt: at.Add(-30 * 24 * time.Hour), Dims: dims.Draw(t, "dims"),
					Moves: []dbtest.Move{{Grant: g, Debit: "available", Credit: "consumed", Amount: part()}}})
			case what == "refund" && g.Type != credit.Overage && g.Type != credit.Concession:
				var rate decimal.Decimal
				if g.Price.Currency == "EUR" {
					rate = decimal.New(rapid.Int64Range(1, 3_000_000).Draw(t, "rate"), -6)
				}
				c.Refund(at, g, part(), rate)
			case what == "void" && (overage || rapid.Bool().Draw(t, "unpaid")):
				c.VoidUnpaid(at, g)
			case what == "void" && g.Type != credit.Concession:
				c.Void(at, g)
			case what == "expire":
				g.ExpiresAt = at
				c.Expire(g)
			case what == "recognise":
				if _, err := s.RecogniseCustomer(ctx, c.ID); err != nil {
					t.Fatal(err)
				}
			default:
				c.Configure(at)
			}
		}
		for _, g := range c.Grants() {
			if g.Available > 0 {
				g.ExpiresAt = at
				c.Expire(g)
			}
		}
		if _, err := s.RecogniseCustomer(ctx, c.ID); err != nil {
			t.Fatal(err)
		}
		grants, err := s.RollForwardByGrant(ctx, dbtest.Entity, db.Span{From: "2026-02"}, c.ID, credit.GrantID{}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range grants {
			if !r.Foots() || r.Closing != 0 || r.Adjustments != 0 {
				t.Fatalf("%+v", r)
			}
		}
	})
	mustBeClean(t, s)
}

// The running engine, many callers and several posters at once: the books verify, and revenue is what was used, at cost.
func TestEngineVerifies(t *testing.T) {
	t.Parallel()
	w := balancetest.New(t, func(o *balancetest.Options) { o.NoCache = true })
	const (
		customers = 6
		one       = credit.Amount(1_000_000)
	)
	refused := func(err error) {
		var r *credit.Error
		if err != nil && !errors.As(err, &r) {
			t.Error(err)
		}
	}
	var callers, posters sync.WaitGroup
	stop := make(chan struct{})
	var ids []credit.CustomerID
	for n := range customers {
		c, wallet := w.Customer(t)
		ids = append(ids, c)
		w.Wallet(t, c, func(o *balance.CreateWallet) {
			o.Wallet.SoftCap, o.OverageLimit, o.OveragePrice = true, 1000*one, 12_345
		})
		callers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			header := func() balance.Header { return balance.Header{Customer: c, Key: w.Key()} }
			var grants []credit.GrantID
			for i := range 120 {
				var op balance.Operation
				switch k := random.IntN(20); {
				case k < 3 || len(grants) == 0:
					g := credit.Grant{ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: wallet}, Type: credit.Purchased, Priority: 100,
						Amount: credit.Amount(1 + random.Int64N(int64(20*one))), RatePolicy: credit.Floating,
						Price: credit.Money{Minor: random.Int64N(5000), Currency: "USD"}, Tax: random.Int64N(400)}
					switch random.IntN(4) {
					case 0:
						g.Type, g.Price, g.Tax = credit.Promotional, credit.Money{}, 0
					case 1:
						g.Price.Currency, g.FXRate = "EUR", decimal.RequireFromString("1.0837")
					}
					if random.IntN(3) == 0 {
						g.ExpiresAt = time.Now().Add(time.Duration(20+random.IntN(200)) * time.Millisecond)
					}
					grants = append(grants, g.ID)
					op = &balance.CreateGrant{Header: header(), Grant: g, Pending: random.IntN(8) == 0}
				case k < 14:
					op = &balance.Consume{Header: header(), Unit: "CRD", Amount: credit.Amount(1 + random.Int64N(int64(2*one))), Partial: k < 5,
						Dims: credit.Dimensions{"product": "chat", "model": fmt.Sprint(random.IntN(3))}, At: time.Now().Add(-time.Duration(random.IntN(30*24)) * time.Hour)}
				case k < 15:
					op = &balance.RefundGrant{Header: header(), Refund: credit.NewID[credit.RefundID](), Grant: grants[random.IntN(len(grants))],
						Units: credit.Amount(1 + random.Int64N(int64(one))), FXRate: decimal.RequireFromString("1.2"), Reason: "asked"}
				case k < 16:
					op = &balance.VoidGrant{Header: header(), Grant: grants[random.IntN(len(grants))], Reason: "mistake"}
				case k < 17:
					op = &balance.IssueGrant{Header: balance.Header{Customer: c}, Grant: grants[random.IntN(len(grants))]}
				case k < 18:
					op = &balance.FreezeGrant{Header: header(), Grant: grants[random.IntN(len(grants))], Thaw: i%2 == 0, Reason: "look"}
				default:
					op = &balance.Expire{Header: balance.Header{Customer: c}, Grant: grants[random.IntN(len(grants))]}
				}
				_, err := w.Service.Do(ctx, op)
				refused(err)
			}
		})
	}
	for range 2 {
		posters.Go(func() {
			for {
				for _, c := range ids {
					if _, err := w.Store.RecogniseCustomer(ctx, c); err != nil {
						t.Error(err)
						return
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	callers.Wait()
	close(stop)
	posters.Wait()
	var settled int
	refunds, err := w.Store.RefundPage(ctx, db.RefundFilter{Status: "awaiting_settlement"}, credit.RefundID{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range refunds {
		if i%2 == 0 {
			if _, err := w.Store.SettleRefund(ctx, r.ID, db.Settlement{Method: "manual", Reference: "x", At: time.Now()}); err != nil {
				t.Fatal(err)
			}
			settled++
		}
	}
	for _, c := range ids {
		if _, err := w.Store.RecogniseCustomer(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	mustBeClean(t, w.Store)
	tb, err := w.Store.TrialBalance(ctx, "main", db.Span{})
	if err != nil || tb.Debit != tb.Credit {
		t.Fatalf("%+v, %v", tb, err)
	}
	booked := map[ledger.Account]bool{}
	for _, a := range tb.Accounts {
		booked[a.Account] = true
	}
	for _, a := range []ledger.Account{ledger.ProcessorClearing, ledger.UnbilledReceivable, ledger.PrepaidCredits, ledger.RefundLiability, ledger.SalesTaxPayable,
		ledger.UsageRevenue, ledger.BreakageRevenue, ledger.OverageRevenue, ledger.FXRealised} {
		if !booked[a] {
			t.Errorf("nothing was booked on %s, so this test shows nothing about it", a)
		}
	}
	if settled == 0 {
		t.Error("no refund was settled")
	}
}
