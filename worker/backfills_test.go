package worker

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"go.temporal.io/sdk/testsuite"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/workflows"
)

// usageOf is a usage event as a backfill has it.
func usageOf(id string, c credit.CustomerID, at time.Time, body string) db.StagedEvent {
	return db.StagedEvent{Request: balance.RequestDigest(id, body), Source: "app", EventID: id, Key: balance.EventKey("app", id), Named: c.String(), Customer: c,
		ServiceAt: at.UTC().Truncate(time.Microsecond), Body: body, Model: "large"}
}

func imagesUsed(n int64) string {
	return fmt.Sprintf(`{"usage":[{"meter":"images","quantity":"%d"}],"dimensions":{"model":"large"}}`, n)
}

// live is the same event as it is consumed without a backfill.
func (s *site) live(e db.StagedEvent, n int64) *balance.Consume {
	return &balance.Consume{Header: balance.Header{Customer: e.Customer, Key: e.Key, Request: e.Request}, At: e.ServiceAt, Dims: credit.Dimensions{"model": "large"},
		Usage: []rating.Line{{Meter: "images", Quantity: decimal.New(n, 0)}}}
}

func (s *site) backfill(events ...db.StagedEvent) credit.BackfillID {
	s.t.Helper()
	id := credit.NewID[credit.BackfillID]()
	s.changeCatalog(func(ctx context.Context, c *db.Catalog) error {
		_, err := c.AddBackfill(ctx, db.BackfillRow{ID: id, Name: "outage", Reason: "test"})
		return err
	})
	for part := range slices.Chunk(events, 500) {
		if _, err := s.Store.StageEvents(context.Background(), id, part); err != nil {
			s.t.Fatal(err)
		}
	}
	return id
}

func (s *site) view(id credit.BackfillID) db.BackfillView {
	s.t.Helper()
	v, err := s.Store.BackfillView(context.Background(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// previewed asks for a preview and waits for it.
func (s *site) previewed(id credit.BackfillID) db.BackfillView {
	s.t.Helper()
	s.changeCatalog(func(ctx context.Context, c *db.Catalog) error {
		_, err := c.PreviewBackfill(ctx, id)
		return err
	})
	s.until("it is previewed", func() bool { return s.view(id).Status == db.BackfillPreviewed })
	return s.view(id)
}

func (s *site) tryApply(id credit.BackfillID, hash string, partial bool) error {
	_, _, err := s.Store.Change(context.Background(), db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		_, err := c.ApplyBackfill(ctx, id, hash, partial, 1)
		return db.Outcome{Status: 200, Answer: []byte("{}")}, err
	})
	return err
}

func (s *site) withdraw(id credit.BackfillID) {
	s.t.Helper()
	s.changeCatalog(func(ctx context.Context, c *db.Catalog) error {
		_, err := c.WithdrawBackfill(ctx, id, "It was wrong", 1)
		return err
	})
}

func (s *site) available(c credit.CustomerID) (sum credit.Amount) {
	s.t.Helper()
	return credit.Amount(s.count("SELECT coalesce(sum(avail), 0)::bigint FROM grants WHERE customer_id = $1", [16]byte(c)))
}

// revenue books what there is of customers and returns their usage revenue in minor units.
func (s *site) revenue(customers ...credit.CustomerID) (minor int) {
	s.t.Helper()
	for _, c := range customers {
		if _, err := s.Store.RecogniseCustomer(context.Background(), c); err != nil {
			s.t.Fatal(err)
		}
		minor += s.count(`SELECT coalesce(sum(CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END), 0)::bigint FROM postings AS p
			JOIN journal_entries AS e ON e.id = p.entry_id WHERE p.account = 4010 AND e.customer_id = $1`, [16]byte(c))
	}
	return minor
}

func (s *site) verified(customers ...credit.CustomerID) {
	s.t.Helper()
	for _, c := range customers {
		balancetest.MustConserve(s.t, s.World, c)
	}
	for _, i := range db.Invariants {
		if r, err := s.Store.Verify(context.Background(), i, 1); err != nil || len(r.First) > 0 {
			s.t.Errorf("%s: %v, %v", i.Name, r.First, err)
		}
	}
}

func backfilling(c *Config) { c.Temporal.Identity = "worker" }

// backfillSite is a site whose service decides what backfills have, with a card on which an image cost 1 credit until a hundred days ago, and 2 since.
func backfillSite(t *testing.T) *site {
	s := newSite(t, backfilling)
	card := s.Card(t, "standard", true, "1", time.Now().AddDate(-1, 0, 0))
	s.Publish(t, card, "2", time.Now().AddDate(0, 0, -100))
	s.Service = s.Start(t, balance.Config{Backfills: true})
	s.cfg.Service, s.w.service = s.Service, s.Service
	return s
}

// Worked out by hand: 100 credits at 1.00 USD each. Ten images of 200 days ago cost 10, five of yesterday 10, five of an hour ago 10.
func TestABackfillIsAppliedAndWithdrawn(t *testing.T) {
	s := backfillSite(t)
	s.run()
	c, wallet := s.Customer(t)
	s.Grant(t, c, wallet, 100*one, purchased)
	now := time.Now()
	known := usageOf("known", c, now.Add(-time.Hour), imagesUsed(5))
	s.Do(t, s.live(known, 5))
	nobody := usageOf("nobody", credit.CustomerID{}, now, imagesUsed(1))
	nobody.Named = "nobody"
	old, late := usageOf("old", c, now.AddDate(0, 0, -200), imagesUsed(10)), usageOf("late", c, now.AddDate(0, 0, -1), imagesUsed(5))
	ancient := usageOf("ancient", c, now.AddDate(-2, 0, 0), imagesUsed(1))
	id := s.backfill(late, nobody, known, old, ancient)
	again, err := s.Store.StageEvents(context.Background(), id, []db.StagedEvent{late, {Key: old.Key, Source: "app", EventID: "old", Named: "x", Body: "{}", ServiceAt: now}})
	if err != nil || !again[0].Duplicate || !again[1].Mismatch {
		t.Fatalf("%+v, %v", again, err)
	}
	if v := s.view(id); v.Events != 5 || s.available(c) != 90*one {
		t.Fatalf("%+v", v)
	}

	v := s.previewed(id)
	if v.Chargeable != 2 || v.Duplicates != 1 || v.Refused != 2 || len(v.Totals) != 1 || v.Totals[0].Amount != 20*one || v.Totals[0].Model != "large" ||
		len(v.Refusals) != 2 || len(v.Dry) != 0 || len(v.Periods) < 2 {
		t.Fatalf("%+v", v)
	}
	if s.available(c) != 90*one {
		t.Error("a preview takes credits")
	}
	if err := s.tryApply(id, v.PreviewHash, false); credit.CodeOf(err) != credit.BackfillState {
		t.Errorf("with refusals: %v", err)
	}
	if err := s.tryApply(id, "0", true); credit.CodeOf(err) != credit.PreviewChanged {
		t.Errorf("with another hash: %v", err)
	}
	if w := s.previewed(id); w.PreviewHash != v.PreviewHash {
		t.Error("the same has another hash")
	}
	if _, err := s.Store.StageEvents(context.Background(), id, []db.StagedEvent{usageOf("more", c, now.AddDate(0, 0, -2), imagesUsed(5))}); err != nil {
		t.Fatal(err)
	}
	if err := s.tryApply(id, v.PreviewHash, true); credit.CodeOf(err) != credit.PreviewChanged {
		t.Errorf("with another set: %v", err)
	}
	w := s.previewed(id)
	if w.PreviewHash == v.PreviewHash || w.Chargeable != 3 || w.Totals[0].Amount != 30*one {
		t.Fatalf("%+v", w)
	}
	s.exec("UPDATE backfills SET previewed_at = previewed_at - interval '25 hours'")
	if err := s.tryApply(id, w.PreviewHash, true); credit.CodeOf(err) != credit.PreviewChanged {
		t.Errorf("with an old one: %v", err)
	}
	w = s.previewed(id)
	// A run of a preview that is over, such as one that was restored, leaves it as it is.
	if err := s.Store.BeginPreview(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if err := s.Store.NotePreviews(context.Background(), id, []db.StagedNote{{N: 1, Outcome: db.StagedRefused, Code: credit.NoRate}}); err != nil {
		t.Fatal(err)
	}
	if x := s.view(id); x.BackfillCounts != w.BackfillCounts {
		t.Errorf("%+v, it was %+v", x.BackfillCounts, w.BackfillCounts)
	}
	before := s.revenue(c)
	if err := s.tryApply(id, w.PreviewHash, true); err != nil {
		t.Fatal(err)
	}
	var standing workflows.BackfillStanding
	s.ended(workflows.BackfillWorkflowID(id, workflows.BackfillApply, 0), &standing)
	if v = s.view(id); v.Status != db.BackfillApplied || v.Consumed != 3 || s.available(c) != 60*one || standing.Seen != 3 {
		t.Fatalf("%+v, %+v", v, standing)
	}
	if got := s.revenue(c) - before; got != 30_00 {
		t.Errorf("revenue of %d", got)
	}
	if n := s.count("SELECT count(*) FROM operations WHERE request_id = $1 AND service_at < now() - interval '199 days' AND amount = 10000000", [16]byte(id)); n != 1 {
		t.Error("the old event is not priced by its time")
	}
	s.verified(c)
	if a := s.Do(t, s.live(late, 5)); !a.Replayed {
		t.Error("a live repetition is charged again")
	}

	s.withdraw(id)
	s.ended(workflows.BackfillWorkflowID(id, workflows.BackfillWithdrawal, 0), &standing)
	if v = s.view(id); v.Status != db.BackfillWithdrawn || v.Withdrawn != 3 || v.Consumed != 0 || s.available(c) != 90*one {
		t.Fatalf("%+v", v)
	}
	if got := s.revenue(c) - before; got != 0 {
		t.Errorf("revenue of %d is left", got)
	}
	s.verified(c)
	if n := s.count("SELECT count(*) FROM events WHERE type IN ('backfill.applied', 'backfill.withdrawn') AND subject = $1", id.String()); n != 2 {
		t.Errorf("%d events", n)
	}
	if n := s.count("SELECT count(*) FROM operations WHERE customer_id = $1 AND kind IN ('consume', 'correct')", [16]byte(c)); n != 7 {
		t.Errorf("%d operations in the history", n)
	}
	s.keep("backfill-preview", workflows.BackfillWorkflowID(id, workflows.BackfillPreview, 1), "")
	s.keep("backfill", workflows.BackfillWorkflowID(id, workflows.BackfillApply, 0), "")
	s.keep("backfill-withdrawn", workflows.BackfillWorkflowID(id, workflows.BackfillWithdrawal, 0), "")
}

// What the preview would have charged is refused when the credits are gone meanwhile: then nothing of it stays.
func TestABackfillThatMeetsARefusalIsTakenBack(t *testing.T) {
	s := backfillSite(t)
	s.run()
	c, wallet := s.Customer(t)
	s.Grant(t, c, wallet, 100*one, purchased)
	at := time.Now().AddDate(0, 0, -3)
	id := s.backfill(usageOf("1", c, at, imagesUsed(10)), usageOf("2", c, at.Add(time.Second), imagesUsed(30)))
	v := s.previewed(id)
	if v.Chargeable != 2 || v.Refused != 0 {
		t.Fatalf("%+v", v)
	}
	s.Do(t, s.Consume(c, 50*one))
	if err := s.tryApply(id, v.PreviewHash, false); err != nil {
		t.Fatal(err)
	}
	var standing workflows.BackfillStanding
	s.ended(workflows.BackfillWorkflowID(id, workflows.BackfillApply, 0), &standing)
	if v = s.view(id); v.Status != db.BackfillWithdrawn || v.Fault == "" || v.Withdrawn != 1 || s.available(c) != 50*one || s.revenue(c) != 50_00 {
		t.Errorf("%+v, %+v", v, standing)
	}
	s.verified(c)
	s.keep("backfill-taken-back", workflows.BackfillWorkflowID(id, workflows.BackfillApply, 0), "")

	// By the preview of what is left a wallet would run dry and one event would not be paid.
	id = s.backfill(usageOf("3", c, at, imagesUsed(25)), usageOf("4", c, at, imagesUsed(1)))
	if v = s.previewed(id); v.Chargeable != 1 || v.Refused != 1 || len(v.Dry) != 1 || v.Dry[0].Wallet != wallet || v.Dry[0].Before != 50*one ||
		v.Refusals[0].Code != credit.InsufficientCredits {
		t.Errorf("%+v", v)
	}
	s.withdraw(id)
	if v = s.view(id); v.Status != db.BackfillWithdrawn || s.available(c) != 50*one {
		t.Errorf("%+v", v)
	}
}

// A worker dies again and again while it applies, once after a page was consumed and before that was noted: the sums are exact.
func TestABackfillIsAppliedOnce(t *testing.T) {
	s := backfillSite(t)
	const customers, each = 4, 300
	var ids []credit.CustomerID
	var events []db.StagedEvent
	for n := range customers {
		c, wallet := s.Customer(t)
		ids = append(ids, c)
		s.Grant(t, c, wallet, 1000*one, purchased)
		for i := range each {
			events = append(events, usageOf(fmt.Sprintf("%d-%d", n, i), c, time.Now().Add(-time.Duration(i)*time.Hour), imagesUsed(1)))
		}
	}
	id := s.backfill(events...)
	stop := s.run()
	v := s.previewed(id)
	stop()
	if v.Chargeable != customers*each || v.Totals[0].Amount != 2*each*one {
		t.Fatalf("%+v", v)
	}
	if err := s.tryApply(id, v.PreviewHash, false); err != nil {
		t.Fatal(err)
	}
	lost, err := s.Store.EventsToApply(context.Background(), id, db.StagedPlace{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range lost {
		o := s.live(e, 1)
		o.RequestID, o.Backfilled = credit.RequestID(id), true
		s.Do(t, o)
	}
	s.Do(t, s.live(events[each*customers-1], 1)) // somebody else was faster with this one
	for range 5 {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- Run(ctx, s.cfg) }()
		had := s.view(id).Consumed
		s.until("something happens", func() bool {
			v := s.view(id)
			return v.Consumed > had || v.Status == db.BackfillApplied
		})
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	s.run()
	s.until("it is applied", func() bool { return s.view(id).Status == db.BackfillApplied })
	if v = s.view(id); v.Consumed != customers*each-1 || v.ConsumedElsewhere != 1 || v.RefusedAtLast != 0 {
		t.Errorf("%+v", v)
	}
	for _, c := range ids {
		if got := s.available(c); got != (1000-2*each)*one {
			t.Errorf("%s has %d", c, got)
		}
	}
	if got := s.revenue(ids...); got != customers*60_00 { // 1,000 credits cost 100.00
		t.Errorf("revenue of %d", got)
	}
	s.verified(ids...)
}

// An operation whose key was forgotten is found by the history, once for all of a customer's events.
func TestABackfillFindsWhatWasConsumedLongAgo(t *testing.T) {
	s := backfillSite(t)
	s.run()
	c, wallet := s.Customer(t)
	s.Grant(t, c, wallet, 100*one, purchased)
	e := usageOf("1", c, time.Now().AddDate(0, 0, -50), imagesUsed(5))
	o := s.live(e, 5)
	o.Backfilled = true
	s.Do(t, o)
	s.exec("DELETE FROM idempotency_keys")
	if v := s.previewed(s.backfill(e)); v.Duplicates != 1 || v.Chargeable != 0 {
		t.Errorf("%+v", v)
	}
}

// A backfill does what the same events do one after the other, as long as no credits run out: the same balances of every grant, the same books.
func TestABackfillIsTheSameEventsLive(t *testing.T) {
	s := newSite(t)
	s.NewCard(t, "standard", true)
	card := s.NewCard(t, "tiered", true)
	s.PublishDocument(t, card, `{"meters":[{"code":"images"}],"rates":[{"id":"image","meter":"images","model":"graduated","over":"month",
		"tiers":[{"up_to":"20","price":"2"},{"price":"0.75"}]}]}`, time.Now().AddDate(-1, 0, 0))
	s.Service = s.Start(t, balance.Config{Backfills: true})
	a := &activities.Activities{Service: s.Service, Store: s.Store}
	var suite testsuite.WorkflowTestSuite
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		var pair [2]credit.CustomerID
		sizes := rapid.SliceOfN(rapid.Int64Range(200, 900), 1, 3).Draw(r, "grants")
		for i := range pair {
			c, wallet := s.Customer(t)
			pair[i] = c
			for _, size := range sizes {
				s.Grant(t, c, wallet, credit.Amount(size)*one, purchased)
			}
		}
		quantities := rapid.SliceOfN(rapid.Int64Range(1, 9), 1, 12).Draw(r, "quantities")
		var staged []db.StagedEvent
		for i, q := range quantities {
			at := time.Now().Add(time.Duration(i-len(quantities)) * 50 * time.Hour)
			s.Do(t, s.live(usageOf(fmt.Sprintf("live-%d-%d", n, i), pair[0], at, imagesUsed(q)), q))
			staged = append(staged, usageOf(fmt.Sprintf("staged-%d-%d", n, i), pair[1], at, imagesUsed(q)))
		}
		id := s.backfill(rapid.Permutation(staged).Draw(r, "order")...)
		ref := activities.BackfillRef{BackfillID: id}
		run := func(activity any) (p activities.BackfillProgress) {
			env := suite.NewTestActivityEnvironment()
			env.RegisterActivity(a)
			v, err := env.ExecuteActivity(activity, activities.BackfillPageInput{BackfillRef: ref})
			if err == nil {
				err = v.Get(&p)
			}
			if err != nil || !p.Done || p.Fault != "" {
				r.Fatalf("%+v, %v", p, err)
			}
			return p
		}
		s.changeCatalog(func(ctx context.Context, c *db.Catalog) error { _, err := c.PreviewBackfill(ctx, id); return err })
		run(a.PreviewBackfill)
		if err := s.Store.EndPreview(context.Background(), id, 1, func() {}); err != nil {
			r.Fatal(err)
		}
		v := s.view(id)
		if err := s.tryApply(id, v.PreviewHash, false); err != nil {
			r.Fatal(err)
		}
		run(a.ApplyBackfill)
		after := s.view(id)
		if after.Consumed != len(quantities) || len(after.Totals) != 1 || after.Totals[0] != v.Totals[0] {
			r.Errorf("it said %+v and did %+v", v.Totals, after.Totals)
		}
		if x, y := s.grantsOf(pair[0]), s.grantsOf(pair[1]); !slices.Equal(x, y) {
			r.Errorf("live %v, backfilled %v", x, y)
		}
		if x, y := s.revenue(pair[0]), s.revenue(pair[1]); x != y {
			r.Errorf("revenue live %d, backfilled %d", x, y)
		}
	})
}

func (s *site) grantsOf(c credit.CustomerID) (out []int64) {
	s.t.Helper()
	if err := s.Store.Pool.QueryRow(context.Background(), "SELECT array_agg(avail ORDER BY id) FROM grants WHERE customer_id = $1", [16]byte(c)).Scan(&out); err != nil {
		s.t.Fatal(err)
	}
	return out
}
