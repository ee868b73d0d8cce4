package faults_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/webhook"
	"github.com/tallystick/tallystick/webhook/webhooktest"
)

// TestWebhooks kills and freezes two workers again and again while they deliver to an endpoint that fails now and then. Nothing is lost, and every
// customer's events arrive in order.
func TestWebhooks(t *testing.T) {
	r := newRig(t, 0, false)
	ctx := context.Background()
	receiver := webhooktest.New(t, func(webhook.Message) int {
		time.Sleep(rand.N(20 * time.Millisecond)) // so that workers die in the middle
		if rand.IntN(200) == 0 {
			return 500
		}
		return 200
	})
	secret := webhook.NewSecret()
	receiver.Expect(webhook.FormatSecret(secret))
	if _, _, err := r.Store.Change(ctx, db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		_, err := c.AddEndpoint(ctx, db.EndpointRow{ID: credit.NewID[credit.EndpointID](), URL: receiver.URL}, secret)
		return db.Outcome{Status: 200, Answer: []byte("{}")}, err
	}); err != nil {
		t.Fatal(err)
	}
	var processes []*process
	for i := range 2 {
		p := r.newProcess(t, "worker", i)
		p.env = append(p.env, "TEMPORAL_ADDRESS=127.0.0.1:1", "TALLYSTICK_WEBHOOK_ALLOW_PRIVATE=true", "TALLYSTICK_WEBHOOK_ALLOW_HTTP=true")
		p.start(t)
		processes = append(processes, p)
	}
	var ids []credit.CustomerID
	var running sync.WaitGroup
	end := time.Now().Add(long(5 * time.Second))
	for range 8 {
		id, wallet := r.Customer(t)
		ids = append(ids, id)
		running.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				op := &balance.UpdateWallet{Header: balance.Header{Customer: id, Key: r.Key()}, Wallet: wallet, Priority: &i}
				if _, err := r.Service.Do(ctx, op); err != nil {
					t.Error(err)
				}
				time.Sleep(rand.N(20 * time.Millisecond))
			}
		})
	}
	kills, stops := 0, 0
	for time.Now().Before(end) {
		time.Sleep(300 * time.Millisecond)
		p := processes[rand.IntN(2)]
		switch {
		case rand.IntN(2) == 0:
			if p.signal(syscall.SIGKILL) {
				kills++
			}
		case p.signal(syscall.SIGSTOP):
			stops++
			time.Sleep(500 * time.Millisecond)
			p.signal(syscall.SIGCONT)
		}
	}
	running.Wait()
	quiet, events := time.Now(), 0
	for _, id := range ids {
		rows, err := r.Store.EventsAfter(ctx, id, 0, 1_000_000)
		if err != nil {
			t.Fatal(err)
		}
		events += len(rows)
		// A lease of a killed worker lasts 45 s, and a failure may come behind it.
		waitFor(t, 3*time.Minute, "every event arrives", func() bool { return len(receiver.Accepted(id.String())) >= len(rows) })
		for i, m := range receiver.Accepted(id.String()) {
			if m.ID != rows[i].ID {
				t.Fatalf("event %d of %s arrived in place %d", m.Seq, id, i+1)
			}
		}
	}
	t.Logf("%d kills, %d stops; %d events arrived by %d messages, the last %s after", kills, stops, events, receiver.Came(), time.Since(quiet).Round(time.Millisecond))
	if kills == 0 || receiver.Came() <= events {
		t.Error("no worker died in the middle")
	}
	waitFor(t, time.Minute, "no queue is left", func() bool {
		var n int
		if err := r.Store.Pool.QueryRow(ctx, "SELECT count(*) FROM webhook_queues").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
}
