package backtest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/backtest"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/credit/rating"
)

const one = credit.Amount(1_000_000)

// cards are rate cards of every kind: a price, tiers over a month that give back when they are reached, tiers that do not, remainders that
// are carried, values seen, money.
var cards = []string{
	`{"meters":[{"code":"images"}],"rates":[{"id":"large","meter":"images","match":{"model":["large"]},"price":"3"},{"id":"image","meter":"images","price":"1.5"}]}`,
	`{"meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","model":"volume","over":"month","tiers":[{"up_to":"20","price":"3"},{"price":"1"}]}]}`,
	`{"meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","model":"graduated","over":"day","tiers":[{"up_to":"10","price":"3"},{"up_to":"30","price":"2"},{"price":"1"}]}]}`,
	`{"rounding":"carry","meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","price":"1","per":"3000000"}]}`,
	`{"meters":[{"code":"images","aggregation":"unique","unique_by":"model","period":"month"}],"rates":[{"id":"image","meter":"images","price":"2"}]}`,
	`{"credit_value":{"price":"0.01","currency":"USD"},"meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","price":"0.02","currency":"EUR"}]}`,
}

// scene is a customer whose history is being made.
type scene struct {
	*balancetest.World
	t        testing.TB
	customer credit.CustomerID
	wallets  []credit.WalletID
	grants   []credit.GrantID
	assigned []credit.AssignmentID
	cards    []credit.RateCardID
	did      map[string]int
}

func (s *scene) try(t *rapid.T, what string, op balance.Operation) {
	_, err := s.Service.Do(context.Background(), op)
	var refusal *credit.Error
	switch {
	case err == nil:
		s.did[what]++
	case !errors.As(err, &refusal) || refusal.Code == credit.Internal || refusal.Code == credit.NotExecuted:
		t.Fatalf("%s: %v", what, err)
	default:
		s.did["refused "+what]++
	}
}

func (s *scene) header() balance.Header { return balance.Header{Customer: s.customer, Key: s.Key()} }

// step does one thing of chance.
func (s *scene) step(t *rapid.T) {
	kind := rapid.SampledFrom([]string{"use", "use", "use", "use", "use", "use", "use", "grant", "grant", "pay", "refund", "void", "extend", "freeze", "thaw", "expire",
		"wallet", "overage", "priority", "card", "assign", "end", "publish"}).Draw(t, "what")
	grant := func() credit.GrantID { return rapid.SampledFrom(s.grants).Draw(t, "grant") }
	card := func() credit.RateCardID { return rapid.SampledFrom(s.cards).Draw(t, "card") }
	switch kind {
	case "use":
		o := &balance.Consume{Header: s.header(), Partial: rapid.Bool().Draw(t, "partial")}
		if rapid.IntRange(0, 9).Draw(t, "explicit") == 0 {
			o.Unit, o.Amount = "CRD", credit.Amount(rapid.Int64Range(1, 20_000_000).Draw(t, "amount"))
			s.try(t, "explicit", o)
			return
		}
		o.Dims = credit.Dimensions{"model": rapid.SampledFrom([]string{"small", "large", "ü\"1"}).Draw(t, "model")}
		if rapid.Bool().Draw(t, "late") {
			o.At = time.Now().Add(-time.Duration(rapid.IntRange(0, 33*24).Draw(t, "hours")) * time.Hour)
		}
		for range rapid.IntRange(1, 2).Draw(t, "lines") {
			o.Usage = append(o.Usage, rating.Line{Meter: "images", Quantity: decimal.New(rapid.Int64Range(0, 12).Draw(t, "quantity"), 0)})
		}
		s.try(t, kind, o)
		return
	case "grant":
		g := credit.Grant{ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: rapid.SampledFrom(s.wallets).Draw(t, "wallet")}, Type: credit.Purchased,
			Price: credit.Money{Minor: rapid.Int64Range(0, 5_000).Draw(t, "price"), Currency: "USD"}, Priority: rapid.IntRange(99, 101).Draw(t, "priority"),
			Amount: credit.Amount(rapid.Int64Range(1, 60).Draw(t, "credits")) * one, RatePolicy: credit.Floating}
		if rapid.IntRange(0, 3).Draw(t, "locked") == 0 {
			g.RatePolicy = credit.Locked
		}
		if rapid.IntRange(0, 3).Draw(t, "scoped") == 0 {
			g.Scope = credit.Scope{"model": {"large"}}
		}
		switch rapid.IntRange(0, 3).Draw(t, "life") {
		case 0:
			g.ExpiresAt = time.Now().Add(time.Duration(rapid.IntRange(1, 300).Draw(t, "ms")) * time.Millisecond)
		case 1:
			g.ExpiresAt = time.Now().Add(time.Hour)
		}
		pending := rapid.IntRange(0, 5).Draw(t, "pending") == 0
		s.grants = append(s.grants, g.ID)
		s.try(t, kind, &balance.CreateGrant{Header: s.header(), Grant: g, Pending: pending})
	case "pay":
		s.try(t, kind, &balance.IssueGrant{Header: s.header(), Grant: grant()})
	case "refund":
		s.try(t, kind, &balance.RefundGrant{Header: s.header(), Refund: credit.NewID[credit.RefundID](), Grant: grant(), Reason: "r",
			Units: credit.Amount(rapid.Int64Range(0, 3).Draw(t, "units")) * one})
	case "void":
		s.try(t, kind, &balance.VoidGrant{Header: s.header(), Grant: grant(), Reason: "r"})
	case "extend":
		s.try(t, kind, &balance.ExtendGrant{Header: s.header(), Grant: grant(), ExpiresAt: time.Now().Add(2 * time.Hour), Reason: "r"})
	case "freeze", "thaw":
		s.try(t, kind, &balance.FreezeGrant{Header: s.header(), Grant: grant(), Thaw: kind == "thaw", Reason: "r"})
	case "expire":
		for _, g := range s.grants {
			s.try(t, kind, &balance.Expire{Header: balance.Header{Customer: s.customer}, Grant: g})
		}
	case "wallet", "overage":
		o := &balance.CreateWallet{Header: s.header(), Wallet: credit.Wallet{ID: credit.NewID[credit.WalletID](), Unit: "CRD", Priority: rapid.IntRange(99, 101).Draw(t, "priority")}}
		if o.Wallet.Name = o.Wallet.ID.String(); kind == "overage" {
			o.Wallet.SoftCap, o.OverageLimit, o.OveragePrice = true, 10*one, 200
		}
		s.wallets = append(s.wallets, o.Wallet.ID)
		s.try(t, kind, o)
	case "priority":
		priority := rapid.IntRange(90, 110).Draw(t, "priority")
		s.try(t, kind, &balance.UpdateWallet{Header: s.header(), Wallet: rapid.SampledFrom(s.wallets).Draw(t, "wallet"), Priority: &priority})
	case "card":
		s.try(t, kind, &balance.UpdateCustomer{Header: s.header(), RateCard: card()})
	case "assign":
		from := time.Now().Add(-time.Duration(rapid.IntRange(0, 30*24).Draw(t, "hours")) * time.Hour)
		s.assigned = append(s.assigned, credit.NewID[credit.AssignmentID]())
		s.try(t, kind, &balance.AssignCard{Header: s.header(), Assignment: s.assigned[len(s.assigned)-1], Card: card(), From: from,
			To: from.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "for")) * time.Hour), Reason: "r"})
	case "end":
		if len(s.assigned) > 0 {
			s.try(t, kind, &balance.EndAssignment{Header: s.header(), Assignment: rapid.SampledFrom(s.assigned).Draw(t, "assignment"), Reason: "r"})
		}
	case "publish":
		back := time.Duration(rapid.IntRange(0, 40*24).Draw(t, "back")) * time.Hour
		s.PublishDocument(s.t, card(), rapid.SampledFrom(cards).Draw(t, "document"), time.Now().Add(-back))
		s.did[kind]++
	}
}

// Against the cards as they were published, everything comes out as it was booked: per grant, to the last step and to the last cent.
func TestThePublishedCardsGiveWhatWasBooked(t *testing.T) {
	w := balancetest.New(t, func(o *balancetest.Options) { o.NoCache = true })
	year := time.Now().AddDate(-1, 0, 0)
	for day := range 12 {
		on := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -5*day)
		w.AddRates(t, "ecb", fx.Quote{On: on, From: "EUR", To: "USD", Rate: decimal.New(110+int64(day), -2)})
	}
	did := map[string]int{}
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		s := &scene{World: w, t: t, did: did}
		for i, document := range cards {
			id := w.NewCard(t, fmt.Sprintf("card-%d-%d", n, i), n == 1 && i == 0)
			w.PublishDocument(t, id, document, year)
			s.cards = append(s.cards, id)
		}
		wallet := credit.WalletID{}
		s.customer, wallet = w.Customer(t)
		s.wallets = []credit.WalletID{wallet}
		s.grants = []credit.GrantID{w.Grant(t, s.customer, wallet, 30*one)}
		w.Do(t, &balance.UpdateCustomer{Header: s.header(), RateCard: rapid.SampledFrom(s.cards).Draw(rt, "card")})
		first, last := rapid.IntRange(0, 25).Draw(rt, "before"), rapid.IntRange(1, 40).Draw(rt, "within")
		for range first {
			s.step(rt)
		}
		time.Sleep(2 * time.Millisecond)
		from := time.Now().UTC().Truncate(time.Microsecond)
		for range last {
			s.step(rt)
		}
		time.Sleep(2 * time.Millisecond)
		until := time.Now().UTC().Truncate(time.Microsecond)
		for range rapid.IntRange(0, 5).Draw(rt, "after") {
			s.step(rt)
		}
		b, err := w.Service.Backtest(context.Background(), backtest.Trial{}, from, until)
		if err != nil {
			rt.Fatal(err)
		}
		c, r, err := b.Customer(context.Background(), s.customer, func(int) {})
		if err != nil {
			rt.Fatal(err)
		}
		if c == nil {
			return
		}
		was, would := c.Outcomes()
		for id, o := range was {
			if would[id] != o {
				rt.Errorf("grant %s: booked %+v, under test %+v", id, o, would[id])
			}
		}
		if r.Refused+r.Unpriced > 0 {
			rt.Errorf("%d were refused, %d had no price: %s", r.Refused, r.Unpriced, r.Why)
		}
		for _, l := range r.Lines {
			l.Tested.Cost, l.Booked.Cost = decimal.Decimal{}, decimal.Decimal{}
			if l.Booked != l.Tested {
				rt.Errorf("%+v", l)
			}
		}
		s.holdAgainstTheBooks(rt, was, from, until)
	})
	reversed := 0
	if err := w.Store.Pool.QueryRow(context.Background(), "SELECT count(*) FROM operations WHERE kind = 'reverse'").Scan(&reversed); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d histories with %d consumptions that gave something back: %v", n, reversed, did)
	if n > 50 && (reversed == 0 || did["explicit"] == 0 || did["expire"] == 0 || did["refund"] == 0) {
		t.Error("the histories lack something")
	}
}

// A customer who has held credits is left out, and told why: holds are not decided again.
func TestHoldsAreLeftOut(t *testing.T) {
	w := balancetest.New(t, func(o *balancetest.Options) { o.NoCache = true })
	from := time.Now().Add(-time.Hour)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 10*one)
	w.Do(t, w.Consume(c, one))
	b, err := w.Service.Backtest(context.Background(), backtest.Trial{}, from, time.Now().Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Customer(context.Background(), c, func(int) {}); err != nil {
		t.Error(err)
	}
	w.Do(t, &balance.Hold{Consume: *w.Consume(c, one), Hold: credit.NewID[credit.HoldID](), For: time.Minute})
	if _, _, err := b.Customer(context.Background(), c, func(int) {}); err == nil || !strings.Contains(err.Error(), "held credits") {
		t.Error(err)
	}
}

// So is one whose credits were moved by hand.
func TestWhatWasMovedByHandIsLeftOut(t *testing.T) {
	w := balancetest.New(t, func(o *balancetest.Options) { o.NoCache = true })
	from := time.Now().Add(-time.Hour)
	for _, what := range []func(h balance.Header, wallet credit.WalletID, g credit.GrantID, ver int64) balance.Operation{
		func(h balance.Header, _ credit.WalletID, _ credit.GrantID, ver int64) balance.Operation {
			return &balance.Correct{Header: h, Ver: ver, All: true, Reason: "twice"}
		},
		func(h balance.Header, _ credit.WalletID, g credit.GrantID, _ int64) balance.Operation {
			return &balance.DecrementGrant{Header: h, Grant: g, Reason: "abuse"}
		},
		func(h balance.Header, wallet credit.WalletID, _ credit.GrantID, _ int64) balance.Operation {
			to := w.Wallet(t, h.Customer, func(*balance.CreateWallet) {})
			return &balance.Transfer{Header: h, From: wallet, To: to, ToCustomer: h.Customer, Reason: "asked"}
		},
	} {
		c, wallet := w.Customer(t)
		g := w.Grant(t, c, wallet, 10*one)
		ver := w.Do(t, w.Consume(c, one)).Ver
		w.Do(t, what(balance.Header{Customer: c, Key: w.Key()}, wallet, g, ver))
		b, err := w.Service.Backtest(context.Background(), backtest.Trial{}, from, time.Now().Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Customer(context.Background(), c, func(int) {}); err == nil || !strings.Contains(err.Error(), "were corrected") {
			t.Error(err)
		}
	}
}

// So is one that had a hard limit; a soft one, a member's terms and a member's own wallet decide nothing that cannot be decided again.
func TestHardLimitsAreLeftOut(t *testing.T) {
	w := balancetest.New(t, func(o *balancetest.Options) { o.NoCache = true })
	from := time.Now().Add(-time.Hour)
	c, wallet := w.Customer(t)
	m := w.Member(t, c)
	w.Grant(t, c, wallet, 10*one)
	w.Grant(t, c, w.Wallet(t, c, func(o *balance.CreateWallet) { o.Wallet.Member = m }), 10*one)
	name := "M"
	w.Do(t, &balance.UpdateMember{Header: balance.Header{Customer: c, Key: w.Key()}, Member: m, Name: &name})
	limit := func(soft bool) {
		id := credit.NewID[credit.LimitID]()
		w.Do(t, &balance.CreateLimit{Header: balance.Header{Customer: c, Key: w.Key()}, Limit: credit.Limit{ID: id, Name: id.String(), Unit: "CRD", Amount: 50 * one, Soft: soft,
			Subject: credit.LimitsCustomer, Window: credit.Window{Kind: credit.Total}}})
	}
	limit(true)
	w.Do(t, w.Consume(c, 9*one)) // not of the member's wallet
	b, err := w.Service.Backtest(context.Background(), backtest.Trial{}, from, time.Now().Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Customer(context.Background(), c, func(int) {}); err != nil {
		t.Error(err)
	}
	limit(false)
	if _, _, err := b.Customer(context.Background(), c, func(int) {}); err == nil || !strings.Contains(err.Error(), "hard limits") {
		t.Error(err)
	}
}

// holdAgainstTheBooks compares what the back-test takes for booked with the ledger.
func (s *scene) holdAgainstTheBooks(t *rapid.T, was map[credit.GrantID]backtest.Outcome, from, until time.Time) {
	const movements = `SELECT g.id,
		coalesce(sum(CASE WHEN m.credit = 'consumed' THEN m.amount WHEN m.debit = 'consumed' THEN -m.amount END) FILTER (WHERE o.at >= $2), 0)::bigint,
		coalesce(sum(m.amount) FILTER (WHERE m.credit = 'expired' AND o.at >= $2), 0)::bigint,
		coalesce(sum(CASE WHEN m.credit = 'available' THEN m.amount WHEN m.debit = 'available' THEN -m.amount END), 0)::bigint
		FROM grants AS g JOIN movements AS m ON m.grant_id = g.id JOIN operations AS o ON o.customer_id = g.customer_id AND o.ver = m.ver
		WHERE g.customer_id = $1 AND o.at < $3 GROUP BY g.id`
	rows, err := s.Store.Pool.Query(context.Background(), movements, [16]byte(s.customer), from, until)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id [16]byte
		var o backtest.Outcome
		if err := rows.Scan(&id, (*int64)(&o.Used), (*int64)(&o.Expired), (*int64)(&o.Available)); err != nil {
			t.Fatal(err)
		}
		got := was[id]
		if got.Revenue, got.Breakage = 0, 0; got != o {
			t.Errorf("grant %s: the ledger has %+v, the back-test %+v", credit.GrantID(id), o, got)
		}
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
}
