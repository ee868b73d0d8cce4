package balance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// limit makes a limit of a customer in CRD; modify changes what is asked for.
func limit(t testing.TB, w *balancetest.World, c credit.CustomerID, amount credit.Amount, modify ...func(*credit.Limit)) credit.LimitID {
	t.Helper()
	id := credit.NewID[credit.LimitID]()
	o := &balance.CreateLimit{Header: balance.Header{Customer: c, Key: w.Key()}, Limit: credit.Limit{ID: id, Name: id.String(), Unit: "CRD", Amount: amount,
		Subject: credit.LimitsCustomer, Window: credit.Window{Kind: credit.Total}}}
	for _, m := range modify {
		m(&o.Limit)
	}
	w.Do(t, o)
	return id
}

func eachMember(l *credit.Limit) { l.Subject = credit.LimitsMember }
func from(wallet credit.WalletID) func(*credit.Limit) {
	return func(l *credit.Limit) { l.Wallet = wallet }
}

func by(o *balance.Consume, m credit.MemberID) *balance.Consume { o.Member = m; return o }

func setAmount(w *balancetest.World, c credit.CustomerID, id credit.LimitID, amount credit.Amount) *balance.UpdateLimit {
	return &balance.UpdateLimit{Header: balance.Header{Customer: c, Key: w.Key()}, Limit: id, Amount: &amount}
}

// refusedBy is the refusal of an operation by a limit.
func refusedBy(t testing.TB, w *balancetest.World, op balance.Operation, id credit.LimitID) map[string]any {
	t.Helper()
	_, err := w.Service.Do(context.Background(), op)
	var e *credit.Error
	if !errors.As(err, &e) || e.Code != credit.LimitReached || e.Fields["limit_id"] != id.String() {
		t.Fatalf("%T: %v", op, err)
	}
	return e.Fields
}

func usageOf(t testing.TB, w *balancetest.World, c credit.CustomerID) map[string]db.LimitUsage {
	t.Helper()
	_, _, list, err := w.Store.LimitUsage(context.Background(), c, credit.MemberID{}, db.UsagePlace{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]db.LimitUsage{}
	for _, u := range list {
		out[u.Limit.ID.String()+u.Subject] = u
	}
	return out
}

// A pool of 1,000 with an allowance of 100 for each member: the 51st needs nothing else, and a wallet of one's own goes first.
func TestAllowancesInAPool(t *testing.T) {
	w := balancetest.New(t)
	c, pool := w.Customer(t)
	w.Grant(t, c, pool, 1000*one)
	id := limit(t, w, c, 100*one, eachMember, from(pool))
	ann, bob := w.Member(t, c), w.Member(t, c)
	w.Do(t, by(w.Consume(c, 70*one), ann))
	f := refusedBy(t, w, by(w.Consume(c, 31*one), ann), id)
	if f["left"] != "30" || f["required"] != "31" || f["member_id"] != ann.String() || f["resets_at"] != nil || f["wallet_id"] != pool.String() {
		t.Errorf("%v", f)
	}
	w.Do(t, by(w.Consume(c, 100*one), bob))
	w.Do(t, w.Consume(c, 200*one)) // names no member: the allowance is not about it
	own := w.Wallet(t, c, func(o *balance.CreateWallet) { o.Wallet.Member, o.Wallet.Priority = ann, 50 })
	w.Grant(t, c, own, 50*one)
	refused(t, w, by(w.Consume(c, 631*one), credit.MemberID{}), credit.InsufficientCredits) // 630 in the pool, 50 of Ann's own
	r := consumed(t, w.Do(t, by(w.Consume(c, 60*one), ann)))
	if len(r.Draws) != 2 || r.Draws[0].WalletID != own || r.Draws[0].Amount != "50" || r.Draws[1].Amount != "10" {
		t.Errorf("%+v", r.Draws)
	}
	o := by(w.Consume(c, 50*one), ann)
	o.Partial = true
	if r := consumed(t, w.Do(t, o)); r.Amount != "20" || r.Shortfall != "30" {
		t.Errorf("%+v", r)
	}
	u := usageOf(t, w, c)
	if got := u[id.String()+credit.MemberSubject(ann)]; got.Used != 100*one || got.Left() != 0 {
		t.Errorf("%+v", got)
	}
	if got := u[id.String()+credit.MemberSubject(bob)]; got.Used != 100*one {
		t.Errorf("%+v", got)
	}
	var m balance.MemberBalanceDocument
	if err := json.Unmarshal(w.Do(t, &balance.ReadMember{Header: balance.Header{Customer: c}, Member: w.Member(t, c)}).Body, &m); err != nil || m.Units[0].Available != "100" {
		t.Errorf("%+v, %v", m, err)
	}
	mustVerify(t, w, c)
}

func consumed(t testing.TB, a balance.Answer) (r balance.ConsumeReceipt) {
	t.Helper()
	if err := json.Unmarshal(a.Body, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// A refusal by a limit stays under its key, says the limit also where credits are short, and is not what a soft limit does.
func TestLimitRefusals(t *testing.T) {
	w := balancetest.New(t)
	c, pool := w.Customer(t)
	w.Grant(t, c, pool, 50*one)
	soft := limit(t, w, c, 10*one, func(l *credit.Limit) { l.Soft = true })
	month := limit(t, w, c, 20*one, func(l *credit.Limit) { l.Window.Kind, l.WarnAt = credit.Month, []int{50, 80} })
	key := limit(t, w, c, 5*one, func(l *credit.Limit) {
		l.Subject, l.Dimension, l.Window = credit.LimitsDimension, "api_key", credit.Window{Kind: credit.Rolling, Length: time.Minute}
	})
	for _, amount := range []credit.Amount{21 * one, 60 * one} {
		o := w.Consume(c, amount)
		again := *o
		f := refusedBy(t, w, o, month)
		if f["resets_at"] == nil || f["left"] != "20" {
			t.Errorf("%v", f)
		}
		w.Do(t, setAmount(w, c, month, 100*one))
		if g := refusedBy(t, w, &again, month); fmt.Sprint(g) != fmt.Sprint(f) {
			t.Errorf("%v, then %v", f, g)
		}
		w.Do(t, setAmount(w, c, month, 20*one))
	}
	with := func(amount credit.Amount) *balance.Consume {
		o := w.Consume(c, amount)
		o.Dims = credit.Dimensions{"api_key": "k1"}
		return o
	}
	w.Do(t, with(4*one))
	f := refusedBy(t, w, with(2*one), key)
	if free, err := time.Parse(time.RFC3339, fmt.Sprint(f["resets_at"])); err != nil || time.Until(free) < 55*time.Second || time.Until(free) > 62*time.Second || f["value"] != "k1" {
		t.Errorf("%v", f)
	}
	if f := refusedBy(t, w, with(6*one), key); f["resets_at"] != nil { // more than it ever admits
		t.Errorf("%v", f)
	}
	w.Do(t, w.Consume(c, 12*one))
	w.Do(t, w.Consume(c, 4*one))
	refusedBy(t, w, w.Consume(c, one), month)
	w.Do(t, &balance.EndLimit{Header: balance.Header{Customer: c, Key: w.Key()}, Limit: month})
	refused(t, w, setAmount(w, c, month, one), credit.LimitNotFound)
	w.Do(t, w.Consume(c, 25*one))
	refused(t, w, w.Consume(c, 6*one), credit.InsufficientCredits)
	events, err := w.Store.Pool.Query(context.Background(), "SELECT type || ' ' || subject || ' ' || (data->'limit_usage'->>'percent') FROM events WHERE type IN ('limit.warning', 'limit.reached') ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	var got []string
	for events.Next() {
		var s string
		if err := events.Scan(&s); err != nil {
			t.Fatal(err)
		}
		got = append(got, s)
	}
	want := []string{"limit.reached " + soft.String() + " 100", "limit.warning " + month.String() + " 50", "limit.warning " + month.String() + " 80", "limit.reached " + month.String() + " 100"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	mustVerify(t, w, c)
}

// Lowered below what is used a limit admits nothing more and keeps what was taken; raised it admits the rest, all in the window that has begun.
func TestALimitIsChangedAtOnce(t *testing.T) {
	w := balancetest.New(t)
	c, pool := w.Customer(t)
	w.Grant(t, c, pool, 500*one)
	id := limit(t, w, c, 100*one, func(l *credit.Limit) { l.Window.Kind = credit.Day })
	h := hold(w, c, 30*one, time.Minute)
	for _, r := range w.Service.DoAll(context.Background(), []balance.Operation{w.Consume(c, 50*one), h, setAmount(w, c, id, 40*one), w.Consume(c, one)}) {
		if r.Err != nil && credit.CodeOf(r.Err) != credit.LimitReached {
			t.Fatal(r.Err)
		}
	}
	w.Do(t, capture(w, c, h.Hold, 30*one, ""))
	if u := usageOf(t, w, c)[id.String()]; u.Used != 80*one || u.Held != 0 || u.Left() != 0 {
		t.Errorf("%+v", u)
	}
	refusedBy(t, w, w.Consume(c, one), id)
	for _, r := range w.Service.DoAll(context.Background(), []balance.Operation{setAmount(w, c, id, 90*one), w.Consume(c, 10*one), w.Consume(c, one)})[:2] {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	refusedBy(t, w, w.Consume(c, one), id)
	mustVerify(t, w, c)
}

// A hold takes from the windows of its time; what is captured is used there, what is let go of is given back, and more than is held passes the gates anew.
func TestHoldsUnderLimits(t *testing.T) {
	w := balancetest.New(t)
	c, pool := w.Customer(t)
	w.Grant(t, c, pool, 500*one)
	id := limit(t, w, c, 100*one, func(l *credit.Limit) { l.Window.Kind = credit.Month })
	h := hold(w, c, 60*one, time.Minute)
	w.Do(t, h)
	refusedBy(t, w, hold(w, c, 41*one, time.Minute), id)
	refusedBy(t, w, &balance.ExtendHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: h.Hold, Amount: 41 * one}, id)
	w.Do(t, &balance.ExtendHold{Header: balance.Header{Customer: c, Key: w.Key()}, Hold: h.Hold, Amount: 20 * one})
	refusedBy(t, w, capture(w, c, h.Hold, 101*one, balance.CaptureIfAvailable), id)
	part := capture(w, c, h.Hold, 70*one, "")
	part.More = true
	w.Do(t, part)
	if u := usageOf(t, w, c)[id.String()]; u.Used != 70*one || u.Held != 10*one {
		t.Errorf("%+v", u)
	}
	w.Do(t, capture(w, c, h.Hold, 25*one, balance.CaptureIfAvailable)) // 15 besides
	if u := usageOf(t, w, c)[id.String()]; u.Used != 95*one || u.Held != 0 {
		t.Errorf("%+v", u)
	}
	last := hold(w, c, 5*one, time.Minute)
	w.Do(t, last)
	refusedBy(t, w, w.Consume(c, one), id)
	w.Do(t, &balance.EndLimit{Header: balance.Header{Customer: c, Key: w.Key()}, Limit: id})
	w.Do(t, release(w, c, last.Hold)) // also when the limit has ended
	mustVerify(t, w, c)
}

// A price below nothing lowers the window, not below zero.
func TestWhatIsGivenBackLowersTheWindow(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "volume", true), byVolume, time.Now().AddDate(-1, 0, 0))
	c, pool := w.Customer(t)
	w.Grant(t, c, pool, 100*one)
	w.Do(t, images(w, c, 1, time.Time{})) // before the limit, which does not count it
	id := limit(t, w, c, 50*one, func(l *credit.Limit) { l.Window.Kind = credit.Day })
	w.Do(t, images(w, c, 8, time.Time{}))
	before := usageOf(t, w, c)[id.String()].Used
	a := consumed(t, w.Do(t, images(w, c, 2, time.Time{})))
	back, err := credit.ParseAmount(a.GivenBack, balancetest.Scale)
	if err != nil || back == 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	if u := usageOf(t, w, c)[id.String()]; u.Used != max(0, before-back) {
		t.Errorf("%s were used and %s given back, used are %s", before.Format(6), a.GivenBack, u.Used.Format(6))
	}
	mustVerify(t, w, c)
}

// A deactivated member uses nothing, one with a scope only what matches; what it holds can still be captured.
// A correction gives the allowance back with the credits, and what it takes besides has to pass the limit.
func TestCorrectionsUnderLimits(t *testing.T) {
	w := balancetest.New(t)
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 1000*one)
	id := limit(t, w, c, 100*one)
	correct := func(ver int64, modify func(*balance.Correct)) *balance.Correct {
		o := &balance.Correct{Header: balance.Header{Customer: c, Key: w.Key()}, Ver: ver, Reason: "test"}
		modify(o)
		return o
	}
	first := w.Do(t, w.Consume(c, 60*one)).Ver
	second := w.Do(t, w.Consume(c, 40*one)).Ver
	refusedBy(t, w, w.Consume(c, one), id)
	w.Do(t, correct(first, func(o *balance.Correct) { o.Units = 50 * one }))
	to := 91 * one
	if left := refusedBy(t, w, correct(second, func(o *balance.Correct) { o.To = &to }), id)["left"]; left != "50" {
		t.Errorf("%v is left", left)
	}
	to = 90 * one
	w.Do(t, correct(second, func(o *balance.Correct) { o.To = &to }))
	refusedBy(t, w, w.Consume(c, one), id)
	w.Do(t, correct(first, func(o *balance.Correct) { o.All = true }))
	w.Do(t, w.Consume(c, 10*one))
	refusedBy(t, w, w.Consume(c, one), id)
	for _, i := range db.Invariants {
		if r, err := w.Store.Verify(context.Background(), i, 5); err != nil || r.Differ > 0 {
			t.Errorf("%s: %+v, %v", i.Name, r, err)
		}
	}
}

func TestMembersMayUse(t *testing.T) {
	w := balancetest.New(t)
	c, pool := w.Customer(t)
	w.Grant(t, c, pool, 100*one)
	ann := w.Member(t, c)
	h := hold(w, c, 10*one, time.Minute)
	h.Member = ann
	w.Do(t, h)
	off, on := false, true
	w.Do(t, &balance.UpdateMember{Header: balance.Header{Customer: c, Key: w.Key()}, Member: ann, Active: &off})
	refused(t, w, by(w.Consume(c, one), ann), credit.NotEntitled)
	refused(t, w, capture(w, c, h.Hold, 11*one, balance.CaptureIfAvailable), credit.NotEntitled)
	w.Do(t, capture(w, c, h.Hold, 10*one, ""))
	w.Do(t, w.Consume(c, one))
	w.Do(t, &balance.UpdateMember{Header: balance.Header{Customer: c, Key: w.Key()}, Member: ann, Active: &on, Scope: &credit.Scope{"model": {"small"}}})
	refused(t, w, by(w.Consume(c, one), ann), credit.NotEntitled)
	o := by(w.Consume(c, one), ann)
	o.Dims = credit.Dimensions{"model": "small"}
	w.Do(t, o)
	w.Do(t, &balance.UpdateMember{Header: balance.Header{Customer: c, Key: w.Key()}, Member: ann, Scope: &credit.Scope{}})
	w.Do(t, by(w.Consume(c, one), ann))
	refused(t, w, &balance.UpdateMember{Header: balance.Header{Customer: c, Key: w.Key()}, Member: credit.NewID[credit.MemberID]()}, credit.MemberNotFound)
	mustVerify(t, w, c)
}

// A member's own card prices its usage, in every process, also when it is held, and nobody else's; what a back-test cannot decide again it leaves out.
func TestAMembersOwnRateCard(t *testing.T) {
	w := balancetest.New(t)
	other := w.Start(t, balance.Config{})
	began := time.Now().AddDate(-1, 0, 0)
	w.Card(t, "standard", true, "3", began)
	cheap := w.Card(t, "cheap", false, "1", began)
	c, pool := w.Customer(t)
	w.Grant(t, c, pool, 1000*one)
	ann, bob := w.Member(t, c), w.Member(t, c)
	price := func(s *balance.Service, m credit.MemberID) string {
		t.Helper()
		a, err := s.Do(context.Background(), by(images(w, c, 1, time.Time{}), m))
		if err != nil {
			t.Fatal(err)
		}
		r := receiptOf(t, a)
		return r.Pricing[0].RateCard + " " + r.Amount
	}
	change := func(card credit.RateCardID) {
		w.Do(t, &balance.UpdateMember{Header: balance.Header{Customer: c, Key: w.Key()}, Member: ann, Card: &card})
	}
	expect := func(want string) {
		t.Helper()
		for _, s := range []*balance.Service{w.Service, other} {
			if a, b, nobody := price(s, ann), price(s, bob), price(s, credit.MemberID{}); a != want || b != "standard 3" || nobody != "standard 3" {
				t.Errorf("Ann's image is %s, Bob's %s, nobody's %s", a, b, nobody)
			}
		}
	}
	expect("standard 3")
	change(cheap)
	expect("cheap 1")
	h := &balance.Hold{Consume: *by(images(w, c, 5, time.Time{}), ann), Hold: credit.NewID[credit.HoldID](), For: time.Minute}
	if held := w.Do(t, h); !strings.Contains(string(held.Body), `"amount":"5"`) {
		t.Errorf("%s", held.Body)
	}
	change(credit.RateCardID{})
	expect("standard 3")
	w.Do(t, release(w, c, h.Hold))
	mustVerify(t, w, c)
}

// modelLimit is a limit with what was taken of it, in windows that never end.
type modelLimit struct {
	credit.Limit
	used, held map[string]credit.Amount
}

type modelHold struct {
	left   credit.Amount
	member credit.MemberID
	dims   credit.Dimensions
}

// Random consumptions, holds, captures, releases and changes under random limits of one wallet: what is admitted is what a naive model admits, a refusal names a
// limit that is short, and in the end the windows are the model's and the ledger's.
func TestLimitsAgainstAModel(t *testing.T) {
	w := balancetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		c, pool := w.Customer(t)
		avail := credit.Amount(rapid.Int64Range(50, 150).Draw(rt, "credits")) * one
		w.Grant(t, c, pool, avail)
		members := []credit.MemberID{{}, w.Member(t, c), w.Member(t, c)}
		var limits []*modelLimit
		byID := map[string]*modelLimit{}
		for range rapid.IntRange(1, 4).Draw(rt, "limits") {
			m := &modelLimit{used: map[string]credit.Amount{}, held: map[string]credit.Amount{}}
			amount := credit.Amount(rapid.Int64Range(0, 60).Draw(rt, "limit")) * one
			id := limit(t, w, c, amount, func(l *credit.Limit) {
				l.Soft = rapid.IntRange(0, 4).Draw(rt, "soft") == 0
				l.Window = rapid.SampledFrom([]credit.Window{{Kind: credit.Total}, {Kind: credit.Month}, {Kind: credit.Rolling, Length: 24 * time.Hour}}).Draw(rt, "window")
				switch rapid.IntRange(0, 4).Draw(rt, "subject") {
				case 0:
					l.Subject = credit.LimitsMember
				case 1:
					l.Subject, l.Member = credit.LimitsMember, members[1]
				case 2:
					l.Subject, l.Dimension = credit.LimitsDimension, "key"
				case 3:
					l.Scope = credit.Scope{"key": {"a"}}
				}
				if rapid.Bool().Draw(rt, "of the pool") {
					l.Wallet = pool
				}
				m.Limit = *l
			})
			limits, byID[id.String()] = append(limits, m), m
		}
		open := map[credit.HoldID]*modelHold{}
		admit := func(member credit.MemberID, dims credit.Dimensions) (least credit.Amount) {
			least = credit.MaxAmount
			for _, m := range limits {
				if s, ok := m.Of("CRD", member, dims); ok && !m.Soft {
					least = min(least, max(0, m.Amount-m.used[s]-m.held[s]))
				}
			}
			return least
		}
		count := func(member credit.MemberID, dims credit.Dimensions, used, held credit.Amount, of map[*modelLimit]bool) {
			for _, m := range limits {
				if s, ok := m.Of("CRD", member, dims); ok && (of == nil || of[m]) {
					m.used[s], m.held[s] = m.used[s]+used, m.held[s]+held
				}
			}
		}
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			n := credit.Amount(rapid.Int64Range(1, 40).Draw(rt, "amount")) * one
			member := rapid.SampledFrom(members).Draw(rt, "member")
			dims := rapid.SampledFrom([]credit.Dimensions{nil, {"key": "a"}, {"key": "b"}}).Draw(rt, "dims")
			var ids []credit.HoldID
			for id := range open {
				ids = append(ids, id)
			}
			room := min(admit(member, dims), avail)
			var op balance.Operation
			var want credit.Amount // taken from what is available; -1: refused
			switch kind := rapid.IntRange(0, 6).Draw(rt, "kind"); {
			case kind == 6:
				m := rapid.SampledFrom(limits).Draw(rt, "changed")
				m.Amount = credit.Amount(rapid.Int64Range(0, 60).Draw(rt, "new")) * one
				w.Do(t, setAmount(w, c, m.ID, m.Amount))
				continue
			case kind <= 2 || len(ids) == 0 && kind > 3:
				o := by(w.Consume(c, n), member)
				o.Dims, o.Partial = dims, kind == 2
				op, want = o, n
				if room < n {
					if want = -1; o.Partial && room > 0 {
						want = room
					}
				}
				if want > 0 {
					count(member, dims, want, 0, nil)
				}
			case kind == 3 || len(ids) == 0:
				o := hold(w, c, n, time.Minute)
				o.Member, o.Dims = member, dims
				if op, want = o, n; room < n {
					want = -1
				} else {
					count(member, dims, 0, n, nil)
					open[o.Hold] = &modelHold{left: n, member: member, dims: dims}
				}
			case kind == 4:
				h := open[ids[0]]
				op, want = release(w, c, ids[0]), -h.left
				count(h.member, h.dims, 0, -h.left, nil)
				delete(open, ids[0])
			default:
				h := open[ids[0]]
				op = capture(w, c, ids[0], n, balance.CaptureIfAvailable)
				if n > h.left && min(admit(h.member, h.dims), avail) < n-h.left {
					want = -1
				} else {
					want = n - h.left
					count(h.member, h.dims, n, -h.left, nil)
					delete(open, ids[0])
				}
			}
			before := avail
			_, err := w.Service.Do(context.Background(), op)
			switch code := credit.CodeOf(err); {
			case err == nil && want != -1:
				avail = before - want
			case err != nil && want == -1 && (code == credit.LimitReached || code == credit.InsufficientCredits):
				if code == credit.LimitReached {
					var e *credit.Error
					errors.As(err, &e)
					m := byID[fmt.Sprint(e.Fields["limit_id"])]
					required, _ := credit.ParseAmount(fmt.Sprint(e.Fields["required"]), balancetest.Scale)
					left, _ := credit.ParseAmount(fmt.Sprint(e.Fields["left"]), balancetest.Scale)
					if m == nil || m.Soft || left >= required {
						rt.Fatalf("%v", e.Fields)
					}
				}
			default:
				rt.Fatalf("%T %v: %v, the model has %d left of limits and %d credits, wants %d", op, n, err, room, avail, want)
			}
		}
		u := usageOf(t, w, c)
		for _, m := range limits {
			for s, used := range m.used {
				if got := u[m.ID.String()+s]; got.Used != used || got.Held != m.held[s] {
					rt.Fatalf("%s of %+v: used %d, held %d, the model has %d and %d", s, m.Limit, got.Used, got.Held, used, m.held[s])
				}
			}
		}
		balancetest.MustConserve(t, w, c)
	})
	mustVerify(t, w)
}

// 64 callers of two processes on one pool with 50 members: no gate is passed, and the cache, which knows nothing of limits, is put right after a refusal.
func TestOnePoolOfFiftyMembers(t *testing.T) {
	w := balancetest.New(t)
	services := []*balance.Service{w.Service, w.Start(t, balance.Config{})}
	c, pool := w.Customer(t)
	w.Grant(t, c, pool, 10_000*one)
	w.Grant(t, c, pool, 100*one, func(o *balance.CreateGrant) {
		o.Grant.Type, o.Grant.Scope = credit.Promotional, credit.Scope{"model": {"small"}}
	})
	members := make([]credit.MemberID, 50)
	for i := range members {
		members[i] = w.Member(t, c)
	}
	each := limit(t, w, c, 10*one, eachMember, from(pool))
	capped := limit(t, w, c, 300*one, func(l *credit.Limit) { l.Window.Kind = credit.Month })
	limit(t, w, c, 40*one, func(l *credit.Limit) {
		l.Subject, l.Dimension, l.Window = credit.LimitsDimension, "api_key", credit.Window{Kind: credit.Rolling, Length: time.Hour}
	})
	var sum atomic.Int64
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 7))
			for n := range 12 {
				amount := credit.Amount(1+random.Int64N(3)) * one
				o := by(&balance.Consume{Header: balance.Header{Customer: c, Key: balance.ClientKey(fmt.Sprintf("pool-%d-%d", i, n))}, Unit: "CRD", Amount: amount}, members[random.IntN(50)])
				o.Dims = credit.Dimensions{"api_key": fmt.Sprint("k", random.IntN(10)), "model": []string{"small", "large"}[random.IntN(2)]}
				var op balance.Operation = o
				h := credit.NewID[credit.HoldID]()
				if n%3 == 0 {
					op = &balance.Hold{Consume: *o, Hold: h, For: time.Minute}
				}
				_, err := services[i%2].Do(context.Background(), op)
				switch {
				case err == nil && n%3 != 0:
					sum.Add(int64(amount))
				case err == nil:
					end := &balance.CaptureHold{Header: balance.Header{Customer: c, Key: balance.ClientKey(fmt.Sprintf("end-%d-%d", i, n))}, Hold: h, Amount: amount - one/2}
					if _, err := services[(i+1)%2].Do(context.Background(), end); err != nil {
						t.Error(err)
					}
					sum.Add(int64(amount - one/2))
				case credit.CodeOf(err) != credit.LimitReached:
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	var total, byMember credit.Amount
	for k, u := range usageOf(t, w, c) {
		if u.Used+u.Held > u.Limit.Amount || u.Held != 0 {
			t.Errorf("%s: %+v", k, u)
		}
		switch u.Limit.ID {
		case each:
			byMember += u.Used
		case capped:
			total = u.Used
		}
	}
	if want := credit.Amount(sum.Load()); total != want || byMember != want || total < 290*one {
		t.Errorf("%d were consumed, the cap counts %d, the allowances %d", want, total, byMember)
	}
	// What the cache has given away for what was refused is put right.
	refusedBy(t, w, by(w.Consume(c, 290*one), members[0]), capped)
	want, err := w.Service.StrongBalance(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got, err := w.Service.Balance(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		_, differ, err := w.Service.Compare(context.Background(), []credit.CustomerID{c})
		if err == nil && len(differ) == 0 && got.Units[0].Available == want.Units[0].Available {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the cache has %+v, Postgres %+v; %v, %v", got, want, differ, err)
		}
	}
	mustVerify(t, w, c)
}

// A window, a count or a hold that is not what the operations made is found by verify, and what touches a window lately by the audit.
func TestTamperedWindowsAreFound(t *testing.T) {
	w := balancetest.New(t)
	c, pool := w.Customer(t)
	w.Grant(t, c, pool, 100*one)
	limit(t, w, c, 100*one, func(l *credit.Limit) { l.Window.Kind = credit.Day })
	w.Do(t, w.Consume(c, 10*one))
	w.Do(t, hold(w, c, 5*one, time.Minute))
	mustVerify(t, w, c)
	found := func() (n int) {
		for _, i := range db.Invariants {
			v, err := w.Store.Verify(context.Background(), i, 5)
			if err != nil {
				t.Fatal(err)
			}
			n += int(v.Differ)
		}
		return n
	}
	for _, x := range []struct {
		do, undo string
		audited  bool
	}{
		{"UPDATE limit_windows SET used = used + 1", "UPDATE limit_windows SET used = used - 1", true},
		{"UPDATE limit_windows SET held = held - 1", "UPDATE limit_windows SET held = held + 1", true},
		{"CREATE TEMP TABLE kept AS SELECT * FROM limit_counts WHERE used > 0; DELETE FROM limit_counts WHERE used > 0", "INSERT INTO limit_counts SELECT * FROM kept; DROP TABLE kept", false},
		{"UPDATE holds SET gates = NULL", "", false},
	} {
		conn, err := w.Store.Pool.Acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(context.Background(), x.do); err != nil {
			t.Fatal(err)
		}
		broken, err := w.Store.FindBroken(context.Background(), time.Now().Add(-time.Hour))
		if err != nil || len(broken) > 0 != x.audited {
			t.Errorf("%s: the audit finds %v, %v", x.do, broken, err)
		}
		if found() == 0 {
			t.Errorf("%s: verify finds nothing", x.do)
		}
		if x.undo != "" {
			if _, err := conn.Exec(context.Background(), x.undo); err != nil {
				t.Fatal(err)
			}
			if n := found(); n > 0 {
				t.Errorf("after %s %d differ", x.undo, n)
			}
		}
		conn.Release()
	}
}
