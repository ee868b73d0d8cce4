package balance_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// machine is two customers of one entity, and what tests may name of them.
type machine struct {
	w         *balancetest.World
	customers [2]*machineCustomer
	disputes  []*balance.Dispute // as they were opened
	done      map[string]int     // operations carried out, by type
	chance    *rand.Rand         // chooses without rapid's liking for what comes first
}

type machineCustomer struct {
	id      credit.CustomerID
	wallets []credit.WalletID
	vers    []int64 // of what consumed
	holds   []credit.HoldID
	limits  []credit.LimitID
}

func newMachine(t *testing.T, w *balancetest.World, seed uint64, done map[string]int) *machine {
	m := &machine{w: w, done: done, chance: rand.New(rand.NewPCG(seed, 0))}
	for i := range m.customers {
		c, wallet := w.Customer(t)
		m.customers[i] = &machineCustomer{id: c, wallets: []credit.WalletID{wallet, w.Wallet(t, c, func(*balance.CreateWallet) {})}}
		if i == 0 {
			w.Wallet(t, c, func(o *balance.CreateWallet) { o.Wallet.SoftCap, o.OverageLimit, o.OveragePrice = true, 30*one, 777 })
		}
		for range 3 {
			o := m.buy(balance.Header{Customer: c, Key: w.Key()}, wallet)
			o.Grant.ExpiresAt = time.Time{} // on a slow machine it might be over before it begins
			w.Do(t, o)
		}
	}
	return m
}

func (m *machine) between(least, most int) int { return least + m.chance.IntN(most-least+1) }

func pick[T any](m *machine, of []T) T { return of[m.chance.IntN(len(of))] }

// grants are all of a customer's, overage too, or only those that are due to expire.
func (m *machine) grants(t *rapid.T, c credit.CustomerID, due bool) (ids []credit.GrantID) {
	rows, err := m.w.Store.Pool.Query(context.Background(), `SELECT id FROM grants WHERE customer_id = $1 AND (NOT $2 OR status = 'open' AND expires_at <= now())
		ORDER BY created_at, id`, [16]byte(c), due)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id [16]byte
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return ids
}

// buy is a purchase, some with an expiry that will come in the meantime, some with a bonus.
func (m *machine) buy(header balance.Header, wallet credit.WalletID) *balance.CreateGrant {
	amount := credit.Amount(m.between(1, 60)) * one
	o := &balance.CreateGrant{Header: header, Grant: credit.Grant{
		ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: wallet}, Type: credit.Purchased, Amount: amount, RatePolicy: credit.Floating,
		Price: credit.Money{Minor: int64(m.between(0, 999)), Currency: "USD"}, Tax: pick(m, []int64{0, 0, 7, 80}),
		Priority: m.between(0, 2),
	}}
	if m.between(0, 1) == 0 {
		o.Grant.ExpiresAt = time.Now().Add(time.Duration(m.between(20, 150)) * time.Millisecond)
	}
	if m.between(0, 3) == 0 {
		o.Bonus = &balance.Bonus{Amount: amount, Value: int64(m.between(0, 300)), Priority: 1}
	}
	return o
}

var machineVerbs = []string{
	"consume", "consume", "hold", "hold", "extend hold", "capture", "capture", "release", "buy", "buy", "refund", "refund", "void", "freeze", "thaw", "extend", "expire", "expire",
	"correct", "correct", "correct", "decrement", "transfer", "transfer", "dispute", "dispute", "end dispute", "end dispute", "limit", "change limit", "end limit",
}

// operation draws one; nil when there is nothing that it could be about.
func (m *machine) operation(t *rapid.T) balance.Operation {
	c := pick(m, m.customers[:])
	header := balance.Header{Customer: c.id, Key: m.w.Key()}
	amount := credit.Amount(m.between(1, 25)) * one
	wallet := pick(m, c.wallets)
	verb := pick(m, machineVerbs)
	t.Log(verb)
	var grant credit.GrantID
	switch verb {
	case "refund", "void", "freeze", "thaw", "extend", "expire", "decrement", "dispute":
		ids := m.grants(t, c.id, verb == "expire")
		if len(ids) == 0 {
			return nil
		}
		grant = pick(m, ids)
	case "extend hold", "capture", "release":
		if len(c.holds) == 0 {
			return nil
		}
	case "correct":
		if len(c.vers) == 0 {
			return nil
		}
	case "change limit", "end limit":
		if len(c.limits) == 0 {
			return nil
		}
	case "end dispute":
		if len(m.disputes) == 0 {
			return nil
		}
	}
	switch verb {
	case "consume":
		o := m.w.Consume(c.id, amount)
		o.Partial = m.chance.IntN(2) == 0
		return o
	case "hold":
		return &balance.Hold{Consume: *m.w.Consume(c.id, amount), Hold: credit.NewID[credit.HoldID](), For: time.Minute}
	case "extend hold":
		return &balance.ExtendHold{Header: header, Hold: pick(m, c.holds), Amount: amount}
	case "capture":
		return &balance.CaptureHold{Header: header, Hold: pick(m, c.holds), Amount: amount, More: m.chance.IntN(2) == 0,
			Over: pick(m, []balance.CapturePolicy{balance.CaptureReject, balance.CaptureIfAvailable, balance.CaptureOverage})}
	case "release":
		return &balance.ReleaseHold{Header: header, Hold: pick(m, c.holds)}
	case "buy":
		return m.buy(header, wallet)
	case "refund":
		o := &balance.RefundGrant{Header: header, Grant: grant, Refund: credit.NewID[credit.RefundID](), Reason: "asked"}
		if m.chance.IntN(2) == 0 {
			o.Units = amount
		}
		return o
	case "void":
		return &balance.VoidGrant{Header: header, Grant: grant, Reason: "mistake"}
	case "freeze", "thaw":
		return &balance.FreezeGrant{Header: header, Grant: grant, Thaw: verb == "thaw", Reason: "look"}
	case "extend":
		return &balance.ExtendGrant{Header: header, Grant: grant, ExpiresAt: time.Now().Add(200 * time.Millisecond), Reason: "asked"}
	case "expire":
		return &balance.Expire{Header: header, Grant: grant}
	case "correct":
		return correct(m.w, c.id, pick(m, c.vers), func(o *balance.Correct) {
			switch m.between(0, 2) {
			case 0:
				o.All = true
			case 1:
				o.Units = amount
			default:
				o.To = &amount
			}
			if m.chance.IntN(2) == 0 {
				o.Reissue = &balance.Reissue{}
			}
		})
	case "decrement":
		return &balance.DecrementGrant{Header: header, Grant: grant, Units: amount, Reason: "abuse"}
	case "transfer":
		to := pick(m, m.customers[:])
		o := &balance.Transfer{Header: header, From: wallet, To: pick(m, to.wallets), ToCustomer: to.id, Reason: "asked"}
		if m.chance.IntN(2) == 0 {
			o.Units = amount
		}
		return o
	case "dispute":
		return &balance.Dispute{Header: header, Reference: credit.NewID[credit.DisputeID]().String(), Grant: grant, Reason: "fraudulent", Fee: 150,
			Status: pick(m, []db.DisputeStatus{db.DisputeOpen, db.DisputeOpen, db.DisputeWon, db.DisputeLost}),
			Amount: int64(m.between(1, 1000))}
	case "end dispute":
		o := *pick(m, m.disputes)
		o.Key, o.Status = m.w.Key(), pick(m, []db.DisputeStatus{db.DisputeWon, db.DisputeLost})
		return &o
	case "limit":
		return &balance.CreateLimit{Header: header, Limit: credit.Limit{ID: credit.NewID[credit.LimitID](), Name: credit.NewID[credit.LimitID]().String(), Unit: "CRD", Amount: 4 * amount,
			Subject: credit.LimitsCustomer, Soft: m.chance.IntN(2) == 0, WarnAt: []int{50}, Window: rapid.SampledFrom([]credit.Window{
				{Kind: credit.Total}, {Kind: credit.Rolling, Length: time.Minute}}).Draw(t, "window")}}
	case "change limit":
		return &balance.UpdateLimit{Header: header, Limit: pick(m, c.limits), Amount: &amount}
	default:
		return &balance.EndLimit{Header: header, Limit: pick(m, c.limits)}
	}
}

// machineRefusals are those that the state may bring about.
var machineRefusals = map[credit.Code]bool{
	credit.InsufficientCredits: true, credit.NotEntitled: true, credit.LimitReached: true, credit.NotRefundable: true, credit.GrantState: true, credit.GrantExpired: true,
	credit.GrantNotExpired: true, credit.NotCorrectable: true, credit.DisputeState: true, credit.HoldEnded: true, credit.CaptureExceedsHold: true,
	credit.InvalidRequest: true, credit.LimitNotFound: true,
}

// step carries one operation out, or has it refused; some that were carried out are asked for again, and answered the same.
func (m *machine) step(t *rapid.T) {
	op := m.operation(t)
	if op == nil {
		return
	}
	a, err := m.w.Service.Do(context.Background(), op)
	if err != nil {
		t.Log(err)
		if !machineRefusals[credit.CodeOf(err)] {
			t.Fatalf("%T: %v", op, err)
		}
		return
	}
	m.done[fmt.Sprintf("%T", op)]++
	if m.between(0, 4) == 0 {
		if again, err := m.w.Service.Do(context.Background(), op); err != nil || !again.Replayed || string(again.Body) != string(a.Body) {
			t.Fatalf("%T again: %s, %v; want %s", op, again.Body, err, a.Body)
		}
	}
	var c *machineCustomer
	of := func(id credit.CustomerID) {
		for _, known := range m.customers {
			if known.id == id {
				c = known
			}
		}
	}
	switch o := op.(type) {
	case *balance.Consume:
		of(o.Customer)
		c.vers = append(c.vers, a.Ver)
	case *balance.CaptureHold:
		of(o.Customer)
		c.vers = append(c.vers, a.Ver)
	case *balance.Correct:
		of(o.Customer)
		if o.To != nil {
			c.vers = append(c.vers, a.Ver)
		}
	case *balance.Hold:
		of(o.Customer)
		c.holds = append(c.holds, o.Hold)
	case *balance.CreateLimit:
		of(o.Customer)
		c.limits = append(c.limits, o.Limit.ID)
	case *balance.Dispute:
		if o.Status == db.DisputeOpen {
			m.disputes = append(m.disputes, o)
		}
	}
	m.mustBeSound(t, fmt.Sprintf("%T", op))
}

// sound finds what must never be, after any operation: per purchase, with all that has become of it by transfers, no more money goes out than came
// in, no credit comes about or is gone, and nothing serves while a dispute is open or after it is lost.
const sound = `
WITH RECURSIVE line AS (
	SELECT id AS root, id, customer_id FROM grants WHERE from_grant IS NULL AND customer_id = ANY($1::uuid[])
	UNION ALL
	SELECT l.root, g.id, g.customer_id FROM line AS l JOIN grants AS g ON g.from_grant = l.id
), gone AS (
	SELECT l.root, sum(coalesce((SELECT sum(money_minor + tax_minor) FROM refunds WHERE grant_id = l.id), 0)
		+ coalesce((SELECT sum(amount_minor) FROM disputes WHERE grant_id = l.id AND status <> 'won'), 0)) AS money,
		sum(g.avail + g.held + g.consumed + g.expired + g.refunded + g.voided) AS credits
	FROM line AS l JOIN grants AS g ON g.id = l.id GROUP BY l.root
)
SELECT format('grant %s was paid %s and pays back %s', g.id, g.price_minor + g.tax_minor, x.money) FROM gone AS x JOIN grants AS g ON g.id = x.root
WHERE g.type <> 'overage' AND x.money > g.price_minor + g.tax_minor
UNION ALL
SELECT format('of the %s credits of grant %s there are %s', g.granted, g.id, x.credits) FROM gone AS x JOIN grants AS g ON g.id = x.root WHERE x.credits <> g.granted
UNION ALL
SELECT format('grant %s is %s, frozen %s, with %s available while its dispute is %s', g.id, g.status, g.frozen, g.avail, d.status)
FROM disputes AS d JOIN grants AS g ON g.id = d.grant_id
WHERE d.customer_id = ANY($1::uuid[]) AND (d.status = 'open' AND g.status = 'open' AND NOT g.frozen OR d.status = 'lost' AND g.avail > 0)`

func (m *machine) mustBeSound(t *rapid.T, after string) {
	rows, err := m.w.Store.Pool.Query(context.Background(), sound, [][16]byte{m.customers[0].id, m.customers[1].id})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var what string
		if err := rows.Scan(&what); err != nil {
			t.Fatal(err)
		}
		t.Errorf("after %s: %s", after, what)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
}

// Any history of all verbs over two customers, with recognition passes at any time between: no money and no credits come about, and the books verify.
func TestEveryVerbConserves(t *testing.T) {
	w := balancetest.New(t)
	done := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine(t, w, rapid.Uint64().Draw(rt, "seed"), done)
		for range rapid.IntRange(30, 50).Draw(rt, "steps") {
			m.step(rt)
			if i := m.between(0, 15); i < len(m.customers) {
				if _, err := w.Store.RecogniseCustomer(context.Background(), m.customers[i].id); err != nil {
					rt.Fatal(err)
				}
			}
		}
		for _, c := range m.customers {
			if _, err := w.Store.RecogniseCustomer(context.Background(), c.id); err != nil {
				rt.Fatal(err)
			}
		}
		books, err := w.Store.TrialBalance(context.Background(), "main", db.Span{})
		if err != nil {
			rt.Fatal(err)
		}
		var debit, credited int64
		for _, a := range books.Accounts {
			if debit, credited = debit+a.Debit, credited+a.Credit; a.Account == 2011 && a.Debit != a.Credit {
				rt.Errorf("2011 has %d in debit and %d in credit", a.Debit, a.Credit)
			}
		}
		if debit != credited {
			rt.Errorf("%d in debit, %d in credit", debit, credited)
		}
	})
	t.Log(done)
	mustVerifyAll(t, w)
}
