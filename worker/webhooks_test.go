package worker

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/webhook"
	"github.com/tallystick/tallystick/webhook/webhooktest"
)

// hurried is a timing for tests.
var hurried = webhook.Timing{Timeout: 500 * time.Millisecond, First: 20 * time.Millisecond, Longest: 200 * time.Millisecond, GiveUp: time.Hour}

// newHookSite is a site whose workers reach no Temporal: webhooks need none.
func newHookSite(t *testing.T, timing webhook.Timing) *site {
	t.Helper()
	t.Parallel()
	world := balancetest.New(t, func(o *balancetest.Options) { o.NoCache = true })
	return &site{World: world, t: t, cfg: Config{Service: world.Service, Store: world.Store, Log: balancetest.Log(), Temporal: client.Options{HostPort: "127.0.0.1:1"},
		Timing: timing, Webhooks: webhook.Allow{Private: true, HTTP: true}, Version: "test"}}
}

// catalog makes a change that must succeed.
func (s *site) catalog(do func(context.Context, *db.Catalog) error) {
	s.t.Helper()
	_, _, err := s.Store.Change(context.Background(), db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		return db.Outcome{Status: 200, Answer: []byte("{}")}, do(ctx, c)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// endpoint makes an endpoint for a receiver.
func (s *site) endpoint(r *webhooktest.Receiver, modify ...func(*db.EndpointRow)) credit.EndpointID {
	s.t.Helper()
	row := db.EndpointRow{ID: credit.NewID[credit.EndpointID](), URL: r.URL + "/hook"}
	for _, m := range modify {
		m(&row)
	}
	secret := webhook.NewSecret()
	r.Expect(webhook.FormatSecret(secret))
	s.catalog(func(ctx context.Context, c *db.Catalog) error {
		_, err := c.AddEndpoint(ctx, row, secret)
		return err
	})
	return row.ID
}

func (s *site) enable(id credit.EndpointID, enabled bool) {
	s.t.Helper()
	s.catalog(func(ctx context.Context, c *db.Catalog) error {
		_, _, err := c.ChangeEndpoint(ctx, id, db.EndpointChange{Enabled: &enabled})
		return err
	})
}

// happen makes n changes of a customer that are events.
func (s *site) happen(id credit.CustomerID, wallet credit.WalletID, n int) {
	s.t.Helper()
	for i := range n {
		priority := i
		s.Do(s.t, &balance.UpdateWallet{Header: balance.Header{Customer: id, Key: s.Key()}, Wallet: wallet, Priority: &priority})
	}
}

// newest is the number of a customer's newest event.
func (s *site) newest(id credit.CustomerID) int {
	s.t.Helper()
	return s.count("SELECT coalesce(max(seq), 0) FROM events WHERE customer_id = $1", [16]byte(id))
}

// mustHave waits until a receiver has every event of a customer after a number, and checks that it has them in order.
func (s *site) mustHave(r *webhooktest.Receiver, id credit.CustomerID, after int) {
	s.t.Helper()
	want := s.newest(id) - after
	s.until("every event has arrived", func() bool { return len(r.Accepted(id.String())) >= want })
	got := r.Accepted(id.String())
	for i, m := range got {
		if m.Seq != int64(after+i+1) {
			s.t.Fatalf("event %d of %s arrived in place %d", m.Seq, id, after+i+1)
		}
	}
	if len(got) != want {
		s.t.Fatalf("%d events arrived, %d there were", len(got), want)
	}
}

func ok(webhook.Message) int { return 200 }

// TestNothingIsLostOrReordered has an endpoint fail in every way again and again, and two workers deliver to it.
func TestNothingIsLostOrReordered(t *testing.T) {
	s := newHookSite(t, hurried)
	ways := []int{500, 503, 429, 302, 0, 404, -1}
	r := webhooktest.New(t, func(webhook.Message) int {
		switch n := rand.IntN(3 * len(ways)); {
		case n >= len(ways):
			return 200
		case ways[n] == -1:
			time.Sleep(hurried.Timeout + 100*time.Millisecond) // it answers in the end, to nobody
			return 500
		default:
			return ways[n]
		}
	})
	good := webhooktest.New(t, ok)
	s.endpoint(r)
	s.endpoint(good)
	s.run()
	s.run()
	var ids []credit.CustomerID
	for range 5 {
		id, wallet := s.Customer(t)
		ids = append(ids, id)
		go s.happen(id, wallet, 20)
	}
	for _, id := range ids {
		s.until("everything has happened", func() bool { return s.newest(id) == 21 })
		s.mustHave(good, id, 0)
		s.mustHave(r, id, 0)
	}
	s.until("the queues are empty", func() bool { return s.count("SELECT count(*) FROM webhook_queues") == 0 })
	if n := s.count("SELECT count(*) FROM webhook_deliveries WHERE delivered_at IS NULL OR attempts = 0"); n != 0 {
		t.Errorf("%d deliveries are not as they should be", n)
	}
	if n := s.count("SELECT count(*) FROM webhook_deliveries WHERE attempts > 1 AND jsonb_array_length(log) = least(attempts, 20)"); n == 0 {
		t.Error("no failure was seen")
	}
}

// TestAFailureBlocksItsCustomerOnly has an endpoint refuse one customer's events for a while, and be down after.
func TestAFailureBlocksItsCustomerOnly(t *testing.T) {
	s := newHookSite(t, hurried)
	var mended, down atomic.Bool
	var bad credit.CustomerID
	r := webhooktest.New(t, func(m webhook.Message) int {
		if down.Load() || m.CustomerID != nil && *m.CustomerID == bad && m.Seq == 3 && !mended.Load() {
			return 500
		}
		return 200
	})
	other := webhooktest.New(t, ok)
	bad, wallet := s.Customer(t)
	id, second := s.Customer(t)
	s.endpoint(r)
	s.endpoint(other)
	s.run()
	s.happen(bad, wallet, 10)
	s.happen(id, second, 10)
	s.mustHave(r, id, 0)
	s.mustHave(other, bad, 0) // on the other endpoint the same customer is not held up
	s.until("the failure is tried again", func() bool {
		return s.count("SELECT coalesce(max(attempts), 0) FROM webhook_deliveries WHERE customer_id = $1 AND seq = 3", [16]byte(bad)) > 3
	})
	if got := r.Accepted(bad.String()); len(got) != 2 {
		t.Errorf("%d events of the customer arrived past the one that fails", len(got))
	}
	down.Store(true)
	mended.Store(true)
	s.happen(id, second, 5)
	s.happen(bad, wallet, 5)
	time.Sleep(300 * time.Millisecond)
	down.Store(false)
	s.mustHave(r, bad, 0)
	s.mustHave(r, id, 0)
}

// TestGone has an endpoint want no more messages: it is disabled at once, others hear of it, and when it is enabled again it gets what has waited
// and, by a replay, what it has missed.
func TestGone(t *testing.T) {
	s := newHookSite(t, hurried)
	var gone atomic.Bool
	r := webhooktest.New(t, func(webhook.Message) int {
		if gone.Load() {
			return 410
		}
		return 200
	})
	watcher := webhooktest.New(t, ok)
	endpoint := s.endpoint(r)
	s.endpoint(watcher, func(e *db.EndpointRow) {
		e.Types = []string{"webhook_endpoint.disabled", "notification.webhook_endpoint.disabled"}
	})
	id, wallet := s.Customer(t)
	s.run()
	s.mustHave(r, id, 0)
	gone.Store(true)
	s.happen(id, wallet, 3)
	s.until("the endpoint is disabled", func() bool {
		e, err := s.Store.Endpoint(context.Background(), endpoint)
		return err == nil && e.Status == db.EndpointDisabled && e.Reason == db.DisabledGone && !e.DisabledAt.IsZero()
	})
	came := r.Came()
	s.until("others hear of it", func() bool { return len(watcher.Accepted("")) == 2 })
	if got := watcher.Accepted(""); got[0].Type != "webhook_endpoint.disabled" || got[0].Subject != endpoint.String() || got[1].Type != "notification.webhook_endpoint.disabled" {
		t.Errorf("%v", got)
	}
	if s.count("SELECT count(*) FROM notifications WHERE type = 'webhook_endpoint.disabled'") != 1 {
		t.Error("there is not one notification")
	}
	var from time.Time
	if err := s.Store.Pool.QueryRow(context.Background(), "SELECT max(at) FROM events WHERE customer_id = $1", [16]byte(id)).Scan(&from); err != nil {
		t.Fatal(err)
	}
	s.happen(id, wallet, 2) // it gets no deliveries of these
	s.until("the events are fanned out", func() bool { return s.count("SELECT count(*) FROM event_heads WHERE fanned < seq") == 0 })
	if n := r.Came(); n != came {
		t.Errorf("%d messages came to a disabled endpoint", n-came)
	}
	replay := func(rr db.ReplayRange) (n int) {
		s.catalog(func(ctx context.Context, c *db.Catalog) (err error) {
			_, n, err = c.Replay(ctx, endpoint, rr)
			return err
		})
		return n
	}
	missed := db.ReplayRange{From: from.Add(time.Microsecond), Until: time.Now().Add(time.Minute), Customer: id}
	if n := replay(missed); n != 2 { // the others wait already
		t.Errorf("%d events are replayed", n)
	}
	if n := replay(missed); n != 0 {
		t.Errorf("%d events are replayed again", n)
	}
	gone.Store(false)
	s.enable(endpoint, true)
	s.mustHave(r, id, 0)
	came = r.Came()
	events, err := s.Store.EventsAfter(context.Background(), id, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	if n := replay(db.ReplayRange{Event: events[1].ID}); n != 1 {
		t.Errorf("%d", n)
	}
	s.until("the one event came once more", func() bool { return r.Came() == came+1 })
}

// TestGivingUp has an endpoint fail for longer than there is patience.
func TestGivingUp(t *testing.T) {
	timing := hurried
	timing.GiveUp = 300 * time.Millisecond
	s := newHookSite(t, timing)
	var up atomic.Bool
	r := webhooktest.New(t, func(webhook.Message) int {
		if up.Load() {
			return 200
		}
		return 500
	})
	endpoint := s.endpoint(r)
	id, wallet := s.Customer(t)
	s.run()
	s.until("the endpoint is disabled", func() bool {
		e, err := s.Store.Endpoint(context.Background(), endpoint)
		return err == nil && e.Reason == db.DisabledFailing
	})
	page, err := s.Store.DeliveryPage(context.Background(), endpoint, db.DeliveryFilter{Status: "failing"}, 0, 10)
	if err != nil || len(page) != 1 || page[0].Code != 500 || page[0].Error != "the answer was 500" || !page[0].NextAt.IsZero() || page[0].Attempts < 2 {
		t.Fatalf("%+v, %v", page, err)
	}
	s.until("nothing is tried", func() bool { return s.count("SELECT count(*) FROM webhook_queues WHERE next_at < 'infinity'") == 0 })
	came := r.Came()
	time.Sleep(500 * time.Millisecond)
	if n := r.Came(); n != came {
		t.Errorf("%d messages came to a disabled endpoint", n-came)
	}
	up.Store(true)
	s.enable(endpoint, true) // its patience begins anew, so that one failure more would not end it
	s.mustHave(r, id, 0)
	s.happen(id, wallet, 1)
	s.mustHave(r, id, 0)
}

// TestRotation changes the secret while messages are on their way: within the overlap both sign, after it the new one alone.
func TestRotation(t *testing.T) {
	s := newHookSite(t, hurried)
	r := webhooktest.New(t, ok)
	endpoint := s.endpoint(r)
	id, wallet := s.Customer(t)
	s.run()
	s.mustHave(r, id, 0)
	if n := r.Signatures(); n != 1 {
		t.Errorf("%d signatures", n)
	}
	rotate := func(overlap time.Duration) string {
		secret := webhook.NewSecret()
		s.catalog(func(ctx context.Context, c *db.Catalog) error {
			_, err := c.RotateSecret(ctx, endpoint, secret, overlap)
			return err
		})
		return webhook.FormatSecret(secret)
	}
	fresh := rotate(time.Hour)
	s.happen(id, wallet, 1)
	s.mustHave(r, id, 0) // verified by the old secret
	if n := r.Signatures(); n != 2 {
		t.Errorf("%d signatures in the overlap", n)
	}
	r.Expect(fresh)
	s.happen(id, wallet, 1)
	s.mustHave(r, id, 0)
	newest := rotate(0)
	r.Expect(newest)
	s.happen(id, wallet, 1)
	s.mustHave(r, id, 0)
	if n := r.Signatures(); n != 2 { // the first secret's hour is not over, the second's is
		t.Errorf("%d signatures after two rotations", n)
	}
	dbtest.Owner(t, s.Store).Exec(context.Background(), "UPDATE webhook_secrets SET expires_at = now() WHERE expires_at IS NOT NULL")
	s.happen(id, wallet, 1)
	s.mustHave(r, id, 0)
	if n := r.Signatures(); n != 1 {
		t.Errorf("%d signatures after the overlap", n)
	}
}

// TestWhoGetsWhat has endpoints for types, for a customer and for everything, one made late, one deleted, and tests of one.
func TestWhoGetsWhat(t *testing.T) {
	s := newHookSite(t, hurried)
	typed, own, late, deleted := webhooktest.New(t, ok), webhooktest.New(t, ok), webhooktest.New(t, ok), webhooktest.New(t, ok)
	id, wallet := s.Customer(t)
	other, otherWallet := s.Customer(t)
	s.endpoint(typed, func(e *db.EndpointRow) { e.Types = []string{"grant.created", "grant.depleted"} })
	ownID := s.endpoint(own, func(e *db.EndpointRow) { e.Customer = id })
	gone := s.endpoint(deleted)
	s.catalog(func(ctx context.Context, c *db.Catalog) error { _, err := c.DeleteEndpoint(ctx, gone); return err })
	s.run()
	s.Grant(t, id, wallet, 5)
	s.Do(t, s.Consume(id, 2))
	s.Do(t, s.Consume(id, 3))
	s.happen(other, otherWallet, 2)
	s.mustHave(own, id, 0)
	s.until("the two wanted events arrive", func() bool { return len(typed.Accepted(id.String())) == 2 })
	if got := typed.Accepted(id.String()); got[0].Type != "grant.created" || got[1].Type != "grant.depleted" {
		t.Errorf("%v", got)
	}
	if n := len(own.Accepted(other.String())); n != 0 {
		t.Errorf("%d events of another customer arrived", n)
	}
	s.until("the events are fanned out", func() bool { return s.count("SELECT count(*) FROM event_heads WHERE fanned < seq") == 0 })
	s.endpoint(late)
	before := s.newest(id)
	s.happen(id, wallet, 2)
	s.mustHave(late, id, before)
	s.catalog(func(ctx context.Context, c *db.Catalog) error {
		_, err := c.TestEndpoint(ctx, ownID, func(e db.EndpointRow) any { return webhook.Describe(e) })
		return err
	})
	s.until("the test arrives", func() bool { return len(own.Accepted("")) == 1 })
	if got := own.Accepted("")[0]; got.Type != "webhook_endpoint.test" || got.Subject != ownID.String() {
		t.Errorf("%+v", got)
	}
	if n := len(late.Accepted("")) + len(typed.Accepted("")) + deleted.Came(); n != 0 {
		t.Errorf("%d messages came where none should", n)
	}
}

// What was delivered is forgotten after 30 days, what waits is not, and of a deleted endpoint nothing stays.
func TestForgettingDeliveries(t *testing.T) {
	s := newHookSite(t, hurried)
	r := webhooktest.New(t, func(m webhook.Message) int {
		if m.Seq > 2 {
			return 500
		}
		return 200
	})
	endpoint := s.endpoint(r)
	id, wallet := s.Customer(t)
	stop := s.run()
	s.happen(id, wallet, 2)
	s.until("two are delivered", func() bool {
		return s.count("SELECT count(*) FROM webhook_deliveries WHERE delivered_at IS NOT NULL") == 2
	})
	s.until("one fails", func() bool {
		return s.count("SELECT count(*) FROM webhook_deliveries WHERE attempts > 0 AND delivered_at IS NULL") == 1
	})
	stop()
	w := &worker{cfg: s.cfg, store: s.Store, metrics: newMetrics(nil)}
	ctx := context.Background()
	forget := func(left int) {
		t.Helper()
		if more, err := w.forgetDeliveries(ctx); err != nil || more {
			t.Fatal(more, err)
		}
		if n := s.count("SELECT count(*) FROM webhook_deliveries"); n != left {
			t.Errorf("%d deliveries are left, not %d", n, left)
		}
	}
	forget(3)
	s.exec("UPDATE webhook_deliveries SET delivered_at = now() - interval '29 days' WHERE seq = 1")
	s.exec("UPDATE webhook_deliveries SET delivered_at = now() - interval '31 days' WHERE seq = 2")
	s.exec("UPDATE webhook_deliveries SET created_at = now() - interval '1 year'")
	forget(2)
	if err := func() error { _, err := w.measureWebhooks(ctx); return err }(); err != nil {
		t.Fatal(err)
	}
	s.catalog(func(ctx context.Context, c *db.Catalog) error { _, err := c.DeleteEndpoint(ctx, endpoint); return err })
	forget(0)
	if n := s.count("SELECT count(*) FROM webhook_secrets") + s.count("SELECT count(*) FROM webhook_queues"); n != 0 {
		t.Errorf("%d secrets and queues are left", n)
	}
}

// TestALostLease has a worker that was away while another one had taken its place: it books its success, and disturbs nothing.
func TestALostLease(t *testing.T) {
	s := newHookSite(t, hurried)
	r := webhooktest.New(t, ok)
	s.endpoint(r)
	id, wallet := s.Customer(t)
	s.happen(id, wallet, 1)
	ctx := context.Background()
	if _, err := s.Store.FanOutEvents(ctx, 10); err != nil {
		t.Fatal(err)
	}
	first, second := [16]byte{1}, [16]byte{2}
	taken, err := s.Store.TakeQueues(ctx, first, 0, nil, 10)
	if err != nil || len(taken) != 1 {
		t.Fatal(taken, err)
	}
	q := taken[0]
	p, err := s.Store.FirstPending(ctx, q, first)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Store.TakeQueues(ctx, second, time.Hour, nil, 10); err != nil || !slices.Equal(again, taken) {
		t.Fatal(again, err)
	}
	if none, err := s.Store.TakeQueues(ctx, first, time.Hour, nil, 10); err != nil || len(none) != 0 {
		t.Fatal(none, err)
	}
	failed := db.Attempt{At: time.Now(), Code: 500, Error: "the answer was 500", RetryIn: time.Nanosecond}
	if _, err := s.Store.RecordAttempt(ctx, q, first, p.ID, failed); err != nil {
		t.Fatal(err)
	}
	if n := s.count("SELECT count(*) FROM webhook_deliveries WHERE attempts > 0") + s.count("SELECT count(*) FROM webhook_queues WHERE lease IS NULL"); n != 0 {
		t.Error("the failure of one that has lost its lease was booked")
	}
	done := db.Attempt{At: time.Now(), Code: 200, Delivered: true}
	for range 2 {
		if more, err := s.Store.RecordAttempt(ctx, q, first, p.ID, done); err != nil || more {
			t.Fatal(more, err)
		}
	}
	next, err := s.Store.FirstPending(ctx, q, second)
	if err != nil || next.Event.Seq != p.Event.Seq+1 {
		t.Fatal(next, err)
	}
	if more, err := s.Store.RecordAttempt(ctx, q, second, next.ID, done); err != nil || more {
		t.Fatal(more, err)
	}
	if n := s.count("SELECT count(*) FROM webhook_queues"); n != 0 {
		t.Errorf("%d queues are left", n)
	}
	if n := s.count("SELECT count(*) FROM webhook_deliveries WHERE attempts = 1 AND delivered_at IS NOT NULL"); n != 2 {
		t.Errorf("%d deliveries were made once", n)
	}
}
