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
)

// A day of usage that comes late, shuffled and with duplicates ends in the same balances and the same books as in its order, tiers of the period included,
// as long as no credits run out. When they do, the order decides what is refused, and no more: nothing is charged twice, nothing is overspent, and
// what was refused did not fit.
func TestLateAndShuffledUsage(t *testing.T) {
	w := balancetest.New(t)
	w.PublishDocument(t, w.NewCard(t, "tiers", true), graduated, time.Now().AddDate(-1, 0, 0))
	rapid.Check(t, func(rt *rapid.T) {
		type event struct {
			key    string
			images int64
			at     time.Time
		}
		day := time.Now().UTC().AddDate(0, 0, -2).Truncate(24 * time.Hour)
		var events []event
		var total int64
		for i := range rapid.IntRange(1, 12).Draw(rt, "events") {
			e := event{fmt.Sprint(i), rapid.Int64Range(1, 8).Draw(rt, "images"), day.Add(time.Duration(i) * time.Hour)}
			events, total = append(events, e), total+e.images
		}
		delivered := append(events[:len(events):len(events)], rapid.SliceOfN(rapid.SampledFrom(events), 0, 6).Draw(rt, "duplicates")...)
		delivered = rapid.Permutation(delivered).Draw(rt, "order")
		enough := rapid.Bool().Draw(rt, "enough")
		have := graduatedCost(total)
		if !enough {
			have = max(2*one, have/2)
		}
		type outcome struct {
			balance string
			books   string
			taken   credit.Amount
			refused []credit.Amount
		}
		run := func(events []event) (o outcome) {
			c, wallet := w.Customer(t)
			first := w.Grant(t, c, wallet, have/2, bought(997), func(g *balance.CreateGrant) { g.Grant.Priority = 1 })
			second := w.Grant(t, c, wallet, have-have/2, bought(3001), func(g *balance.CreateGrant) { g.Grant.Priority = 2 })
			charged := map[string]string{}
			for _, e := range events {
				op := images(w, c, e.images, e.at)
				op.Key = balance.ClientKey(c.String() + e.key)
				a, err := w.Service.Do(context.Background(), op)
				if err != nil {
					if credit.CodeOf(err) != credit.InsufficientCredits {
						rt.Fatal(err)
					}
					if charged[e.key] == "" {
						var r *credit.Error
						if r, _ = err.(*credit.Error); r != nil {
							o.refused = append(o.refused, mustAmount(t, r.Fields["required"].(string)))
						}
					}
					charged[e.key] = "refused"
					continue
				}
				if was := charged[e.key]; was != "" && was != string(a.Body) {
					rt.Fatalf("%s, then %s", was, a.Body)
				}
				charged[e.key] = string(a.Body)
			}
			for _, body := range charged {
				var r balance.ConsumeReceipt
				if body != "refused" && json.Unmarshal([]byte(body), &r) == nil {
					o.taken += mustAmount(t, r.Amount)
				}
			}
			a, b := w.View(t, first), w.View(t, second)
			o.balance = fmt.Sprint(a.Available, a.Consumed, b.Available, b.Consumed)
			if have-a.Available-b.Available != o.taken {
				rt.Fatalf("%s were taken, the receipts say %s", (have - a.Available - b.Available).Format(6), o.taken.Format(6))
			}
			o.books = grouped(journal(t, w, c))
			return o
		}
		straight, shuffled := run(events), run(delivered)
		if enough {
			if shuffled.balance != straight.balance || shuffled.books != straight.books || shuffled.taken != have || len(shuffled.refused) > 0 {
				rt.Fatalf("shuffled %+v\nin order %+v", shuffled, straight)
			}
			return
		}
		for _, o := range []outcome{straight, shuffled} {
			if o.taken > have || len(o.refused) == 0 {
				rt.Fatalf("%+v of %s", o, have.Format(6))
			}
			for _, n := range o.refused {
				if n <= have-o.taken {
					rt.Fatalf("%s were refused and %s are left", n.Format(6), (have - o.taken).Format(6))
				}
			}
		}
	})
	mustVerify(t, w)
}
