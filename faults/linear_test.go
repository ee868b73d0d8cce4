package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/faults"
)

// asked and told are a call as the model sees it: nothing of versions, grants or keys.
type (
	asked struct {
		kind   faults.Kind
		amount credit.Amount
	}
	told struct {
		unknown bool          // there was no final answer: it may have happened, then or later, or not
		done    bool          // else it was refused
		balance credit.Amount // that a read showed
	}
)

// purse is what a customer should look like from outside: a sum that never goes below zero. A consumption takes all it asks for, or
// is refused because that is not there.
var purse = porcupine.NondeterministicModel{
	Init: func() []any { return []any{credit.Amount(0)} },
	Step: func(state, input, output any) []any {
		sum, in, out := state.(credit.Amount), input.(asked), output.(told)
		var after credit.Amount
		possible := true
		switch in.kind {
		case faults.Grant:
			after = sum + in.amount
		case faults.Consume:
			after, possible = sum-in.amount, sum >= in.amount
		case faults.Read:
			if out.unknown || out.balance == sum {
				return []any{sum}
			}
			return nil
		}
		switch {
		case out.unknown && possible:
			return []any{sum, after}
		case out.unknown:
			return []any{sum}
		case out.done && possible:
			return []any{after}
		case !out.done && !possible:
			return []any{sum}
		}
		return nil
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
}

// TestLinearizable records what many clients ask of a few customers and are told, while processes are killed, Postgres crashes and Redis is
// emptied, and asks porcupine whether one order explains it for every customer.
func TestLinearizable(t *testing.T) {
	r := newRig(t, 3, false)
	cache := r.cacheClient(t)
	rounds := 2
	if long(0) > 0 {
		rounds = 1 << 30
	}
	histories, operations, unknown := 0, 0, 0
	for end := time.Now().Add(max(20*time.Second, long(0))); rounds > 0 && time.Now().Before(end); rounds-- {
		s := seed()
		t.Logf("seed %d", s)
		rnd := rand.New(rand.NewPCG(s, 0))
		h := faults.NewHistory()
		wallets := make(map[credit.CustomerID]credit.WalletID)
		for range 30 {
			id, wallet := r.Customer(t)
			wallets[id] = wallet
		}
		stop := make(chan struct{})
		var breaking, clients sync.WaitGroup
		breaking.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(100+rnd.IntN(200)) * time.Millisecond):
				}
				switch rnd.IntN(4) {
				case 0:
					cache.FlushAll(context.Background())
				case 1:
					r.endLanes(t)
				case 2:
					r.processes[rnd.IntN(len(r.processes))].signal(syscall.SIGKILL)
				case 3:
					if rnd.IntN(3) > 0 {
						continue
					}
					if err := r.stack.Postgres.Kill(); err != nil {
						t.Error(err)
					}
					ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
					if err := r.stack.Postgres.Restart(ctx); err != nil {
						t.Error(err)
					}
					cancel()
				}
			}
		})
		for id, wallet := range wallets {
			for k := range 3 {
				mine := rand.New(rand.NewPCG(s, uint64(id[15])<<8|uint64(k)))
				clients.Go(func() { r.askAround(h, id, wallet, mine) })
			}
		}
		clients.Wait()
		close(stop)
		breaking.Wait()
		for id := range wallets {
			ops := recorded(h, id)
			histories++
			operations += len(ops)
			for _, op := range ops {
				if op.Output.(told).unknown {
					unknown++
				}
			}
			if got := porcupine.CheckOperationsTimeout(purse.ToModel(), ops, 30*time.Second); got != porcupine.Ok {
				t.Errorf("seed %d, customer %s: %s\n%v", s, id, got, ops)
			}
		}
		for _, p := range r.processes {
			p.await(t)
		}
		t.Log(r.mustBeSound(t, h, func(*faults.Call) bool { return true }))
	}
	t.Logf("%d histories of %d operations, %d of them without a final answer", histories, operations, unknown)
}

// askAround is one client: a score of calls, one after another. One in ten gives a call up when it gets no final answer at once.
func (r *rig) askAround(h *faults.History, id credit.CustomerID, wallet credit.WalletID, rnd *rand.Rand) {
	for range 12 {
		amount := credit.Amount(1+rnd.IntN(5)) * one
		var c *faults.Call
		switch n := rnd.IntN(10); {
		case n < 6:
			c = consume(id, amount, nil)
		case n < 8:
			body, err := json.Marshal(map[string]any{"wallet": wallet, "type": "granted", "amount": amount.Format(balancetest.Scale)})
			if err != nil {
				panic(err)
			}
			c = &faults.Call{Kind: faults.Grant, Key: newKey(), Customer: id, Amount: amount, Path: "/v1/grants", Body: string(body)}
		default:
			c = read(id)
		}
		h.Add(c)
		patient := rnd.IntN(10) > 0 && c.Kind != faults.Read
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Duration(5+rnd.IntN(30)) * time.Millisecond) {
			if a := r.call(context.Background(), r.processes[rnd.IntN(len(r.processes))], c); a.Final() || !patient {
				break
			}
		}
	}
}

// recorded turns a customer's calls into porcupine's form. What has no final answer may take effect at any time after it was sent.
func recorded(h *faults.History, id credit.CustomerID) []porcupine.Operation {
	var ops []porcupine.Operation
	for _, c := range h.Calls() {
		if c.Customer != id {
			continue
		}
		attempts := c.Attempts()
		op := porcupine.Operation{
			Input: asked{c.Kind, c.Amount}, Call: int64(attempts[0].Sent), Output: told{unknown: true}, Return: int64(time.Since(h.Start)),
		}
		undecided := true
		for _, a := range attempts {
			undecided = undecided && a.Undecided()
			if !a.Final() {
				continue
			}
			out := told{done: a.Status < 300}
			if c.Kind == faults.Read {
				var doc balance.BalanceDocument
				if err := json.Unmarshal([]byte(a.Body), &doc); err != nil || len(doc.Units) != 1 {
					panic("a balance cannot be read: " + a.Body)
				}
				var err error
				if out.balance, err = credit.ParseAmount(doc.Units[0].Available, balancetest.Scale); err != nil {
					panic(err)
				}
			}
			op.Output, op.Return = out, int64(a.Answered)
			break
		}
		if op.Output.(told).unknown && (undecided || c.Kind == faults.Read) {
			continue // it certainly did not happen, or changed nothing
		}
		ops = append(ops, op)
	}
	return ops
}
