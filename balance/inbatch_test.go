package balance_test

import (
	"context"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// twoVolumes charges the images of a month at 3 credits, from the 11th on all at 2; videos the same.
const twoVolumes = `{"meters":[{"code":"images"},{"code":"videos"}],"rates":[
	{"id":"image","meter":"images","model":"volume","over":"month","tiers":[{"up_to":"10","price":"3"},{"price":"2"}]},
	{"id":"video","meter":"videos","model":"volume","over":"month","tiers":[{"up_to":"10","price":"3"},{"price":"2"}]}]}`

func noCache(o *balancetest.Options) { o.NoCache = true }

// inOneBatch carries out operations of a customer in one transaction, by a process of its own.
func inOneBatch(t *testing.T, w *balancetest.World, c credit.CustomerID, ops ...balance.Operation) []balance.Result {
	t.Helper()
	g := newGate()
	s := w.Start(t, balance.Config{Lanes: 1, Failpoints: map[string]func(){"taken": g.hold}})
	read := func() balance.Operation { return &balance.ReadBalance{Header: balance.Header{Customer: c}} }
	go func() { _, _ = s.Do(context.Background(), read()) }()
	<-g.reached
	n := len(ops)
	for range n + 2 { // a batch is half of what waits
		ops = append(ops, read())
	}
	out := make(chan []balance.Result)
	go func() { out <- s.DoAll(context.Background(), ops) }()
	time.Sleep(200 * time.Millisecond)
	close(g.open)
	return (<-out)[:n]
}

func videos(w *balancetest.World, c credit.CustomerID, n int64) *balance.Consume {
	return &balance.Consume{Header: balance.Header{Customer: c, Key: w.Key()}, Usage: []rating.Line{{Meter: "videos", Quantity: decimal.New(n, 0)}}}
}

// What is given back goes to the grant drawn last, also when that was drawn by an earlier operation of the same batch.
func TestGivenBackToWhatTheBatchHasDrawn(t *testing.T) {
	w := balancetest.New(t, noCache)
	w.PublishDocument(t, w.NewCard(t, "volume", true), twoVolumes, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 30*one, func(o *balance.CreateGrant) { o.Grant.Priority = 1 })
	second := w.Grant(t, c, wallet, 100*one, func(o *balance.CreateGrant) { o.Grant.Priority = 2 })
	w.Do(t, images(w, c, 10, time.Time{})) // 30 of the first
	results := inOneBatch(t, w, c, images(w, c, 1, time.Time{}), videos(w, c, 10), videos(w, c, 1))
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if r := receiptOf(t, results[2].Answer); r.GivenBack != "8" || len(r.Returns) != 1 || r.Returns[0].GrantID != second {
		t.Errorf("%+v", r)
	}
	mustVerify(t, w, c)
}

// A grant that serves again after its wallet was narrowed serves only what the wallet still allows.
func TestAReopenedGrantGoesByItsWallet(t *testing.T) {
	w := balancetest.New(t, noCache)
	w.PublishDocument(t, w.NewCard(t, "volume", true), twoVolumes, time.Now().AddDate(-1, 0, 0))
	c, wallet := w.Customer(t)
	w.Grant(t, c, wallet, 30*one)
	narrow := credit.Scope{"product": {"chat"}}
	results := inOneBatch(t, w, c, images(w, c, 10, time.Time{}),
		&balance.UpdateWallet{Header: balance.Header{Customer: c, Key: w.Key()}, Wallet: wallet, Scope: &narrow},
		images(w, c, 1, time.Time{}), w.Consume(c, one))
	for _, r := range results[:3] {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if code := credit.CodeOf(results[3].Err); code != credit.NotEntitled {
		t.Errorf("%s, %v", results[3].Answer.Body, results[3].Err)
	}
	mustVerify(t, w, c)
}
