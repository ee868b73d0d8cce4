package api

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/webhook"
)

// eventsOf returns a customer's events, oldest first.
func (w *world) eventsOf(t testing.TB, customer string) []object {
	t.Helper()
	return reversed(w.all(t, "/v1/events?customer="+customer, func() int { return 7 }))
}

func typesOf(events []object) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = e["type"].(string)
	}
	return out
}

// last returns what an event says of one thing.
func said(t testing.TB, e object, name string) any {
	t.Helper()
	doc, ok := e["data"].(object)[name]
	if !ok {
		t.Fatalf("%v does not tell of a %s", e, name)
	}
	return doc
}

func (w *world) id(t testing.TB, customer string) credit.CustomerID {
	t.Helper()
	id, err := credit.ParseID[credit.CustomerID](w.admin(t, "GET", "/v1/customers/"+customer, nil).want(t, 200).text(t, "id"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestEveryChangeIsAnEvent lets everything happen once that is an event, and holds what the events say against what the API answers.
func TestEveryChangeIsAnEvent(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	acme := w.id(t, "acme")
	var want []string
	var told []any // what the events should say, in order
	happens := func(doc any, types ...string) {
		for _, kind := range types {
			want, told = append(want, kind), append(told, doc)
		}
	}
	grantOf := func(id string) object { return w.admin(t, "GET", "/v1/grants/"+id, nil).want(t, 200).object(t) }
	post := func(path string, body object, status int) object {
		return w.admin(t, "POST", path, body).want(t, status).object(t)
	}

	happens(w.admin(t, "GET", "/v1/customers/acme", nil).object(t), "customer.created")
	happens(w.admin(t, "GET", "/v1/wallets/"+w.wallet, nil).object(t), "wallet.created")
	jane := post("/v1/customers/acme/members", object{"name": "Jane"}, 201)
	happens(jane, "member.created")
	happens(w.admin(t, "PATCH", "/v1/wallets/"+w.wallet, object{"priority": 7}).want(t, 200).object(t), "wallet.updated")
	happens(w.admin(t, "PATCH", "/v1/customers/acme", object{"rate_card": nil}).want(t, 200).object(t), "customer.updated")
	soft := post("/v1/wallets", object{"customer": "acme", "unit": "CRD", "name": "Soft", "cap": "soft", "overage_limit": "5", "overage_price": "1"}, 201)
	overage := grantOf(soft["overage_grant_id"].(string))
	overage["ver"] = nil
	happens(overage, "grant.created", "grant.issued")
	happens(soft, "wallet.created")

	give := func(more object) object {
		body := object{"wallet": w.wallet, "type": "purchased", "amount": "10", "price": object{"amount": "10", "tax": "1", "currency": "USD"}}
		for k, v := range more {
			body[k] = v
		}
		return post("/v1/grants", body, 201)
	}
	g := give(object{"metadata": object{"order": "7"}})
	happens(g, "grant.created", "grant.issued")
	id := g["id"].(string)
	pending := give(object{"payment": "pending"})
	happens(pending, "grant.created")
	happens(post("/v1/grants/"+pending["id"].(string)+"/issue", object{}, 200), "grant.issued")
	happens(post("/v1/grants/"+id+"/freeze", object{"reason": "Looked into"}, 200), "grant.frozen")
	happens(post("/v1/grants/"+id+"/unfreeze", object{"reason": "Looked at"}, 200), "grant.unfrozen")
	refund := post("/v1/grants/"+id+"/refunds", object{"units": "4", "reason": "Too many"}, 201)
	happens(refund, "refund.created")
	happens(refund, "grant.refunded")
	voided := post("/v1/grants/"+pending["id"].(string)+"/void", object{"reason": "Never paid"}, 200)
	refunds := w.admin(t, "GET", "/v1/refunds?customer=acme", nil).data(t)
	happens(refunds[0], "refund.created")
	happens(voided, "grant.voided")

	// Plain consumption is no event, the end of a grant is one.
	for range 3 {
		post("/v1/consume", object{"customer": "acme", "unit": "CRD", "amount": "1"}, 200)
	}
	post("/v1/consume", object{"customer": "acme", "unit": "CRD", "amount": "3"}, 200)
	happens(grantOf(id), "grant.depleted")

	short := give(object{"expires_at": time.Now().Add(time.Second).Format(time.RFC3339Nano)})
	happens(short, "grant.created", "grant.issued")
	happens(post("/v1/grants/"+short["id"].(string)+"/extend", object{"expires_at": time.Now().Add(2 * time.Second).Format(time.RFC3339Nano), "reason": "Late"}, 200), "grant.extended")
	shortID, err := credit.ParseID[credit.GrantID](short["id"].(string))
	if err != nil {
		t.Fatal(err)
	}
	view, err := w.Store.Grant(ctx, shortID)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is not told
		if _, err := w.Store.NotifyExpiring(ctx, db.ExpiryReminder{Grant: shortID, Wallet: view.Wallet.ID, ExpiresAt: view.ExpiresAt, Days: 1}); err != nil {
			t.Fatal(err)
		}
	}
	happens(w.admin(t, "GET", "/v1/notifications?customer=acme", nil).data(t)[0], "notification.grant.expiring")
	eventually(t, "the expiry", func() bool {
		_, err := w.Service.Do(ctx, &balance.Expire{Header: balance.Header{Customer: acme}, Grant: shortID})
		return err == nil
	})
	happens(grantOf(short["id"].(string)), "grant.expired")

	// A volume tier reached gives credits back to a grant that was used up; they are held in every way that there is.
	post("/v1/rate_cards", object{"code": "volume", "unit": "CRD"}, 201)
	post("/v1/rate_cards/volume/versions", object{"document": object{"meters": []object{{"code": "images"}}, "rates": []object{
		{"id": "i", "meter": "images", "model": "volume", "over": "month", "tiers": []object{{"up_to": "10", "price": "3"}, {"price": "2"}}}}}}, 201)
	happens(w.admin(t, "PATCH", "/v1/customers/acme", object{"rate_card": "volume"}).want(t, 200).object(t), "customer.updated")
	used := give(object{"amount": "30"})
	happens(used, "grant.created", "grant.issued")
	post("/v1/consume", object{"customer": "acme", "meter": "images", "quantity": "10"}, 200)
	happens(grantOf(used["id"].(string)), "grant.depleted")
	post("/v1/consume", object{"customer": "acme", "meter": "images", "quantity": "1"}, 200)
	happens(grantOf(used["id"].(string)), "grant.reopened")
	hold := func(seconds int) object {
		h := post("/v1/holds", object{"customer": "acme", "unit": "CRD", "amount": "2", "expires_in": seconds}, 201)
		happens(h, "hold.created")
		return h
	}
	path := func(h object) string { return "/v1/holds/" + h["id"].(string) }
	h := hold(60)
	happens(post(path(h)+"/extend", object{"amount": "1"}, 200), "hold.extended")
	happens(post(path(h)+"/capture", object{"amount": "2"}, 200), "hold.captured")
	happens(post(path(hold(60))+"/release", object{}, 200), "hold.released")
	capped := post("/v1/limits", object{"customer": "acme", "name": "Two", "unit": "CRD", "amount": "2", "applies_to": "customer", "window": "total"}, 201)
	happens(capped, "limit.created")
	two := post("/v1/holds", object{"customer": "acme", "unit": "CRD", "amount": "2", "expires_in": 60}, 201)
	happens(nil, "limit.warning", "limit.reached")
	happens(two, "hold.created")
	happens(post(path(two)+"/release", object{}, 200), "hold.released")
	happens(w.admin(t, "PATCH", "/v1/limits/"+capped["id"].(string), object{"amount": "3"}).want(t, 200).object(t), "limit.updated")
	happens(w.admin(t, "DELETE", "/v1/limits/"+capped["id"].(string), nil).want(t, 200).object(t), "limit.ended")
	happens(w.admin(t, "PATCH", "/v1/customers/acme/members/"+jane["id"].(string), object{"name": "Jane D."}).want(t, 200).object(t), "member.updated")
	h = hold(1)
	eventually(t, "the deadline", func() bool {
		return w.admin(t, "GET", path(h), nil).want(t, 200).text(t, "status") == "expired"
	})
	happens(nil, "hold.expired")

	// Corrected, taken away, moved.
	wrong := post("/v1/consume", object{"customer": "acme", "unit": "CRD", "amount": "1"}, 200)
	happens(post("/v1/operations/"+wrong["operation"].(string)+"/corrections", object{"all": true, "reason": "Counted twice"}, 201), "operation.corrected")
	happens(post("/v1/grants/"+used["id"].(string)+"/decrement", object{"units": "1", "reason": "Abuse"}, 200), "grant.decremented")
	moved := post("/v1/transfers", object{"from": w.wallet, "to": soft["id"], "units": "1", "reason": "Asked"}, 201)["grants"].([]any)[0].(object)
	happens(grantOf(moved["grant_id"].(string)), "grant.created", "grant.issued")
	happens(grantOf(moved["from_grant_id"].(string)), "grant.transferred")

	disputed := func(reference string, g object, status string) object {
		return post("/v1/disputes", object{"reference": reference, "grant": g["id"], "status": status, "amount": "11", "currency": "USD", "reason": "Fraud"}, 200)
	}
	first, second := give(nil), give(nil)
	happens(first, "grant.created", "grant.issued")
	happens(second, "grant.created", "grant.issued")
	happens(nil, "grant.frozen")
	happens(disputed("dp_1", first, "open"), "dispute.opened")
	happens(nil, "grant.unfrozen")
	happens(disputed("dp_1", first, "won"), "dispute.won")
	happens(nil, "grant.frozen", "dispute.opened", "grant.voided")
	happens(disputed("dp_2", second, "lost"), "dispute.lost")

	rfd, err := credit.ParseID[credit.RefundID](refund["id"].(string))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is settled already
		if _, err := w.Store.SettleRefund(ctx, rfd, db.Settlement{Method: "manual", Reference: "wire-1", At: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	happens(w.admin(t, "GET", "/v1/refunds/"+refund["id"].(string), nil).object(t), "refund.settled")
	if _, err := w.Store.Freeze(ctx, db.Broken{Customer: acme, How: "a test"}); err != nil {
		t.Fatal(err)
	}
	happens(w.admin(t, "GET", "/v1/notifications?customer=acme", nil).data(t)[0], "notification.customer.frozen")

	events := w.eventsOf(t, "acme")
	if got := typesOf(events); !slices.Equal(got, want) {
		t.Fatalf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	names := map[string]string{"customer.updated": "customer_change", "operation.corrected": "correction", "limit.warning": "limit_usage", "limit.reached": "limit_usage"}
	for i, e := range events {
		if e["seq"] != float64(i+1) || e["customer_id"] != acme.String() {
			t.Errorf("event %d is %v of %v", i+1, e["seq"], e["customer_id"])
		}
		kind, _, _ := strings.Cut(e["type"].(string), ".")
		if name := names[e["type"].(string)]; name != "" {
			kind = name
		}
		if e["type"] == "grant.refunded" {
			said(t, e, "grant")
			kind = "refund"
		}
		if told[i] == nil { // nobody was answered
			said(t, e, kind)
			continue
		}
		if got := plain(said(t, e, kind)); !reflect.DeepEqual(got, plain(told[i])) {
			t.Errorf("%s says\n%v\nthe API says\n%v", e["type"], got, plain(told[i]))
		}
		if one := w.admin(t, "GET", "/v1/events/"+e["id"].(string), nil).want(t, 200).object(t); !reflect.DeepEqual(one, e) {
			t.Errorf("alone it is %v, in the list %v", one, e)
		}
	}
	for _, filter := range []string{"type=grant.created", "subject=" + id, "customer=acme&type=grant.created", "customer=acme&subject=" + id,
		"from=2020-01-01T00:00:00Z&type=grant.created", "customer=acme&until=2020-01-01T00:00:00Z"} {
		n := 0
		for _, e := range events {
			switch {
			case strings.Contains(filter, "until"):
			case strings.Contains(filter, "type") && e["type"] == "grant.created", strings.Contains(filter, "subject") && e["subject"] == id:
				n++
			}
		}
		if got := w.all(t, "/v1/events?"+filter, func() int { return 2 }); len(got) != n {
			t.Errorf("%s: %d events, want %d", filter, len(got), n)
		}
	}
	w.admin(t, "GET", "/v1/events?type=nonsense", nil).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "GET", "/v1/events/"+credit.NewID[credit.EventID]().String(), nil).problem(t, 404, credit.NotFound)
	known := map[string]bool{"webhook_endpoint.disabled": true, "webhook_endpoint.test": true, "notification.webhook_endpoint.disabled": true,
		"period.soft_closed": true, "period.closed": true, "period.reopened": true, "notification.period.awaiting_approval": true} // TestClose
	for _, kind := range want {
		known[kind] = true
	}
	for _, kind := range []string{"alert.fired", "alert.recovered", "alert.team.fired", "alert.team.recovered"} { // the worker writes them: see [TestAlertsThatAreOn]
		known[kind] = true
	}
	for _, kind := range []string{"topup.requested", "topup.succeeded", "topup.failed", "topup.expired", "topup.paused"} { // see [TestTopUpOutcomes]
		known[kind] = true
	}
	known["backfill.applied"], known["backfill.withdrawn"] = true, true // the worker writes them, and its tests see them
	for _, kind := range webhook.Types {
		if !known[kind] {
			t.Errorf("%s did not happen", kind)
		}
	}
	if !slices.IsSorted(webhook.Types) || len(known) != len(webhook.Types) {
		t.Errorf("the types are %v", webhook.Types)
	}
}

// plain drops what only the answer to an operation has, or only a later reading.
func plain(v any) any {
	m, ok := v.(object)
	if !ok {
		return v
	}
	out := object{}
	for k, v := range m {
		if k != "ver" && k != "metadata" && k != "reason" && v != nil {
			out[k] = v
		}
	}
	return out
}

// TestEventNumbersHaveNoGaps has operations, changes and notifications of few customers written at the same time by two services.
func TestEventNumbersHaveNoGaps(t *testing.T) {
	w := newWorld(t)
	other := w.Start(t, balance.Config{})
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 3).Draw(rt, "customers")
		ids, wallets := make([]credit.CustomerID, n), make([]credit.WalletID, n)
		for i := range ids {
			ids[i], wallets[i] = w.Customer(t)
		}
		var running sync.WaitGroup
		wrote := make([]int, n)
		for range rapid.IntRange(1, 40).Draw(rt, "changes") {
			i, how := rapid.IntRange(0, n-1).Draw(rt, "customer"), rapid.IntRange(0, 3).Draw(rt, "how")
			service, key := w.Service, w.Key()
			if how == 1 {
				service = other
			}
			if wrote[i]++; how < 2 {
				wrote[i]++
			}
			running.Go(func() {
				var err error
				switch how {
				case 0, 1:
					_, err = service.Do(ctx, &balance.CreateGrant{Header: balance.Header{Customer: ids[i], Key: key}, Grant: credit.Grant{
						ID: credit.NewID[credit.GrantID](), Wallet: &credit.Wallet{ID: wallets[i]}, Type: credit.Granted, Amount: 1, RatePolicy: credit.Floating}})
				case 2:
					_, _, err = w.Store.Change(ctx, db.Audited{Action: "test", Key: key}, func(_ context.Context, c *db.Catalog) (db.Outcome, error) {
						return db.Outcome{Status: 200, Answer: []byte("{}")}, c.AddEvent(ids[i], "member.created", "x", "member", object{})
					})
				case 3:
					_, err = w.Service.Do(ctx, &balance.UpdateWallet{Header: balance.Header{Customer: ids[i], Key: key}, Wallet: wallets[i], Priority: new(int)})
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
		for i, id := range ids {
			events, err := w.Store.EventsAfter(ctx, id, 0, 1000)
			if err != nil {
				t.Fatal(err)
			}
			for k, e := range events {
				if e.Seq != int64(k+1) {
					rt.Fatalf("event %d has the number %d", k+1, e.Seq)
				}
			}
			if len(events) != wrote[i]+1 { // the wallet
				rt.Fatalf("%d events, %d were written", len(events), wrote[i]+1)
			}
			checkOrder(t, events)
		}
	})
}

// checkOrder fails the test unless the versions that events tell of rise with their numbers: the order is that of the commits.
func checkOrder(t testing.TB, events []db.EventRow) {
	t.Helper()
	last := int64(0)
	for _, e := range events {
		var data struct{ Grant struct{ Ver int64 } }
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatal(err)
		}
		if v := data.Grant.Ver; v != 0 && v < last {
			t.Fatalf("event %d tells of version %d after %d", e.Seq, v, last)
		} else if v != 0 {
			last = v
		}
	}
}

// A refused operation, a repetition and a rolled back change write no event.
func TestNothingHappened(t *testing.T) {
	w := newWorld(t)
	g := w.grant(t, "5", nil)
	before := len(w.eventsOf(t, "acme"))
	w.send(t, request{role: "admin", method: "POST", path: "/v1/grants/" + g + "/unfreeze", body: object{"reason": "x"}, key: "once"}).problem(t, 409, credit.GrantState)
	w.send(t, request{role: "admin", method: "POST", path: "/v1/consume", body: object{"customer": "acme", "unit": "CRD", "amount": "6"}, key: "twice"}).want(t, 402)
	w.send(t, request{role: "admin", method: "POST", path: "/v1/customers", body: object{"name": "Acme", "legal_entity": "main", "external_id": "acme"}, key: "thrice"}).want(t, 409)
	for range 2 {
		w.send(t, request{role: "admin", method: "POST", path: "/v1/grants/" + g + "/freeze", body: object{"reason": "x"}, key: "again"}).want(t, 200)
	}
	if n := len(w.eventsOf(t, "acme")); n != before+1 {
		t.Errorf("%d events came of one change", n-before)
	}
	if all := w.all(t, "/v1/events", func() int { return 3 }); len(all) != before+1 {
		t.Errorf("there are %d events in all: %s", len(all), fmt.Sprint(typesOf(all)))
	}
}
