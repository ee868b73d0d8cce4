package faults_test

import (
	"context"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
)

// TestWorkers kills and freezes two workers again and again while grants are made, used, refunded and expire. When they are left alone, everything that was
// due has been done, and once.
func TestWorkers(t *testing.T) {
	r := newRig(t, 1, true)
	l := r.newLoad(t, customers, seed())
	l.sweeps = false // the workers do that
	var workerProcesses []*process
	for i := range 2 {
		p := r.newProcess(t, "worker", i)
		p.start(t)
		workerProcesses = append(workerProcesses, p)
	}
	expiring := make([]balance.Operation, 200)
	for i := range expiring {
		a := l.accounts[i%len(l.accounts)]
		expiring[i] = &balance.CreateGrant{Header: balance.Header{Customer: a.id, Key: r.Key()}, Grant: credit.Grant{
			ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: a.wallets[0]}, Type: credit.Purchased, Priority: 200, Amount: one,
			Price: credit.Money{Minor: 100, Currency: "USD"}, RatePolicy: credit.Floating, ExpiresAt: time.Now().Add(3 * time.Second),
		}}
	}
	for _, result := range r.Service.DoAll(context.Background(), expiring) {
		if result.Err != nil {
			t.Fatal(result.Err)
		}
	}
	kills, stops := 0, 0
	l.during(t, workers/2, func() {
		l.repeat(long(5*time.Second), 300*time.Millisecond, func() {
			p := workerProcesses[rand.IntN(2)]
			switch {
			case rand.IntN(2) == 0:
				if p.signal(syscall.SIGKILL) {
					kills++
				}
			case p.signal(syscall.SIGSTOP):
				stops++
				l.pause(time.Second)
				p.signal(syscall.SIGCONT)
			}
		})
	})
	t.Logf("%d kills, %d stops", kills, stops)
	quiet := time.Now()
	left := func(what, sql string) {
		t.Helper()
		waitFor(t, 3*time.Minute, what, func() bool { // a killed worker's activities are given to another when they time out
			var n int
			if err := r.Store.Pool.QueryRow(context.Background(), sql).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n == 0
		})
		t.Logf("%s after %s", what, time.Since(quiet).Round(time.Millisecond))
	}
	left("nothing is due to expire", "SELECT count(*) FROM grants WHERE status = 'open' AND NOT frozen AND expires_at < now() - interval '1 second'")
	left("the outbox is empty", "SELECT count(*) FROM outbox")
	left("everything is in the money book", `SELECT count(*) FROM customer_heads AS h
		WHERE h.ver > coalesce((SELECT m.ver FROM recognition_marks AS m WHERE m.customer_id = h.customer_id), 0)`)
	r.settled(t, l)
}
