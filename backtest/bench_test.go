package backtest_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tallystick/tallystick/backtest"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

const tokens = `{"meters":[{"code":"llm_tokens"}],"rates":[
	{"id":"in","meter":"llm_tokens","match":{"model":["large"],"token_type":["input"]},"price":"250","per":"1000000"},
	{"id":"out","meter":"llm_tokens","match":{"model":["large"],"token_type":["output"]},"price":"1000","per":"1000000"}]}`

// receiptOf is what one of the benchmark's consumptions was answered.
func receiptOf(card credit.RateCardID, grant credit.GrantID) string {
	return `{"operation":"cus_06h08gd8ddrck90tdbc47sbmnm/3","customer_id":"cus_06h08gd8ddrck90tdbc47sbmnm","ver":3,"unit":"CRD","amount":"0.65",` +
		`"service_at":"2026-11-22T17:15:41.622364Z","recorded_at":"2026-11-22T17:15:41.622364Z","dimensions":{"model":"large"},"pricing":[{"rate_card_id":"` +
		card.String() + `","rate_card":"standard","version":1,"total":"0.65","lines":[{"rate_id":"in","meter":"llm_tokens","dimensions":{"token_type":"input"},` +
		`"quantity":"1200","price":"250","per":"1000000","cost":"0.3"},{"rate_id":"out","meter":"llm_tokens","dimensions":{"token_type":"output"},` +
		`"quantity":"350","price":"1000","per":"1000000","cost":"0.35"}]}],"draws":[{"grant_id":"` + grant.String() +
		`","wallet_id":"wal_06h08gd8f1wvh79sjhrs8h8n90","type":"purchased","amount":"0.65","left":"1000000"}],"draw_order":1,"available":"1000000"}`
}

// One customer's events of two lines each, decided again under another price: the rules alone, on one processor.
func BenchmarkEvents(b *testing.B) {
	doc, err := rating.Parse([]byte(tokens))
	if err != nil {
		b.Fatal(err)
	}
	unit := credit.Unit{Code: "CRD", Scale: 6}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	card := credit.NewID[credit.RateCardID]()
	published, err := backtest.NewCards([]backtest.Card{{ID: card, Code: "standard", Unit: unit, Default: true, Versions: []backtest.Version{
		{Version: rating.Version{Number: 1, EffectiveAt: at, Doc: doc}, PublishedAt: at}}}}, backtest.Trial{Card: card, Document: doc, From: at})
	if err != nil {
		b.Fatal(err)
	}
	wallet := credit.NewID[credit.WalletID]()
	g := &credit.Grant{ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: wallet}, Type: credit.Purchased, Basis: 1_000_00,
		Amount: credit.MaxAmount, RatePolicy: credit.Floating, EffectiveAt: at}
	c := backtest.NewCustomer(&backtest.World{Cards: published, Scales: map[string]int{"CRD": 6}}, "USD", credit.RateCardID{}, []*credit.Grant{g})
	for _, op := range []backtest.Operation{
		{Ver: 1, Kind: "configure", At: at, Receipt: []byte(`{"id":"` + wallet.String() + `","unit":"CRD","priority":100,"scope":{},"cap":"hard"}`)},
		{Ver: 2, Kind: "issue", At: at, Unit: "CRD", Amount: g.Amount, Receipt: []byte(`{"id":"` + g.ID.String() + `","expires_at":null}`)},
	} {
		if err := c.Shape(&op); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Open([]backtest.Balance{{Grant: g.ID, Available: g.Amount}}); err != nil {
		b.Fatal(err)
	}
	op := backtest.Operation{Kind: "consume", Unit: "CRD", At: at.Add(time.Hour), ServiceAt: at.Add(time.Hour), Receipt: []byte(receiptOf(card, g.ID))}
	b.ReportAllocs()
	for b.Loop() {
		op.Ver++
		if err := c.Run(&op); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// The same from Postgres, as the worker does it: TALLYSTICK_BENCH_EVENTS (20,000) events of customers who have 1,000 each.
func BenchmarkRun(b *testing.B) {
	events := 20_000
	if s := os.Getenv("TALLYSTICK_BENCH_EVENTS"); s != "" {
		var err error
		if events, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	const each = 1_000
	w := balancetest.New(b, func(o *balancetest.Options) { o.NoCache = true })
	card := w.NewCard(b, "standard", true)
	at := time.Now().UTC().Truncate(time.Microsecond).AddDate(0, 0, 1) // after the grants are made
	from := at.AddDate(0, -2, 0)
	w.PublishDocument(b, card, tokens, from.AddDate(-1, 0, 0))
	customers := make([]credit.CustomerID, (events+each-1)/each)
	ctx := context.Background()
	for i := range customers {
		c, wallet := w.Customer(b)
		g := w.Grant(b, c, wallet, 1_000_000*one)
		customers[i] = c
		if _, err := w.Store.Pool.Exec(ctx, `INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, key, unit, dims, receipt)
			SELECT $1, n, 'consume', 650000, $2::timestamptz + n * interval '1 second', $2::timestamptz + n * interval '1 second', 0, gen_random_uuid(),
				'k' || n, 'CRD', '{"model":"large"}', $3::json FROM generate_series(3, $4::bigint) AS n`,
			[16]byte(c), at, receiptOf(card, g), each+2); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Store.Pool.Exec(ctx, `INSERT INTO movements (grant_id, ver, n, debit, credit, amount, after)
			SELECT $1, n, 0, 'available', 'consumed', 650000, 1000000000000 - (n - 2) * 650000 FROM generate_series(3, $2::bigint) AS n`, [16]byte(g), each+2); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Store.Pool.Exec(ctx, `UPDATE customer_heads SET ver = $2, last_at = $3 WHERE customer_id = $1`, [16]byte(c), each+2, at.Add(time.Hour)); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Store.Pool.Exec(ctx, `UPDATE grants SET avail = avail - $2, consumed = $2 WHERE id = $1`, [16]byte(g), each*650000); err != nil {
			b.Fatal(err)
		}
	}
	doc, err := rating.Parse([]byte(tokens))
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for b.Loop() {
		test, err := w.Service.Backtest(ctx, backtest.Trial{Card: card, Document: doc, From: from}, at, at.Add(2*time.Hour))
		if err != nil {
			b.Fatal(err)
		}
		var all errgroup.Group
		all.SetLimit(runtime.GOMAXPROCS(0))
		for _, c := range customers {
			all.Go(func() error {
				_, r, err := test.Customer(ctx, c, func(int) {})
				if err == nil && (r.Events != each || r.Lines[0].Tested.Credits != each*650000) {
					err = fmt.Errorf("%+v", r)
				}
				return err
			})
		}
		if err := all.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(customers)*each)/b.Elapsed().Seconds(), "events/s")
}
