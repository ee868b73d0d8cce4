package api

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/tallystick/tallystick/credit"
)

func TestTopUpRules(t *testing.T) {
	w := newWorld(t)
	path := "/v1/wallets/" + w.wallet + "/top_up"
	w.admin(t, "GET", path, nil).problem(t, 404, credit.TopUpNotFound)
	w.admin(t, "DELETE", path, nil).problem(t, 404, credit.TopUpNotFound)
	w.admin(t, "POST", path+"/resume", nil).problem(t, 404, credit.TopUpNotFound)
	price := object{"amount": "10.00", "tax": "0.80", "currency": "USD"}
	r := request{role: "support", method: "PUT", path: path, key: "rule", body: object{"threshold": "100", "amount": "1000", "price": price}}
	rule := w.send(t, r).want(t, 200).object(t)
	for name, want := range (object{"threshold": "100", "amount": "1000", "cooldown_seconds": 3600.0, "timeout_seconds": 86400.0, "monthly_count": 10.0, "monthly_money": nil,
		"expires_after_seconds": nil, "state": "ready", "until": nil, "failures": 0.0, "unit": "CRD", "wallet_id": w.wallet}) {
		if rule[name] != want {
			t.Errorf("%s is %v, want %v", name, rule[name], want)
		}
	}
	if again := w.send(t, r).want(t, 200); again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%v", again.header)
	}
	full := object{"threshold": "50.5", "amount": "2000", "price": object{"amount": "20.00", "currency": "USD"}, "expires_after_seconds": 31536000, "cooldown_seconds": 0,
		"timeout_seconds": 3600, "monthly_count": 3, "monthly_money": "45.00"}
	w.admin(t, "PUT", path, full).want(t, 200)
	one := w.send(t, request{role: "product", method: "GET", path: path}).want(t, 200).object(t)
	for name, want := range (object{"threshold": "50.5", "amount": "2000", "cooldown_seconds": 0.0, "timeout_seconds": 3600.0, "monthly_count": 3.0, "monthly_money": "45.00",
		"expires_after_seconds": 31536000.0}) {
		if one[name] != want {
			t.Errorf("%s is %v, want %v", name, one[name], want)
		}
	}
	if want := (object{"amount": "20.00", "tax": "0.00", "currency": "USD"}); !reflect.DeepEqual(one["price"], want) {
		t.Errorf("%v", one["price"])
	}
	w.admin(t, "POST", path+"/resume", nil).problem(t, 409, credit.TopUpState)
	with := func(name string, value any) object {
		o := object{"threshold": "100", "amount": "1000", "price": price}
		if o[name] = value; value == nil {
			delete(o, name)
		}
		return o
	}
	for _, body := range []object{
		with("threshold", nil), with("amount", nil), with("price", nil), with("threshold", 5), with("price", object{"amount": "10.00"}),
		with("price", object{"amount": "10.00", "currency": "EUR"}), with("price", object{"amount": "0", "currency": "USD"}),
		with("price", object{"amount": "10.00", "currency": "USD", "fx_rate": "1.1"}), with("expires_after_seconds", 86400), with("expires_after_seconds", 1<<40),
		with("cooldown_seconds", -1), with("timeout_seconds", 59), with("monthly_count", 0), with("monthly_money", "10.79"), with("monthly_money", "0"), with("wallet", "x"),
	} {
		w.admin(t, "PUT", path, body).problem(t, 400, credit.InvalidRequest)
	}
	for _, name := range []string{"threshold", "amount"} {
		for _, bad := range []string{"0", "x", "-1", "0.0000001"} {
			w.admin(t, "PUT", path, with(name, bad)).problem(t, 400, credit.InvalidAmount)
		}
	}
	w.admin(t, "PUT", "/v1/wallets/"+credit.NewID[credit.WalletID]().String()+"/top_up", with("", "")).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "PUT", "/v1/wallets/"+credit.NewID[credit.WalletID]().String()+"/top_up", object{"threshold": "1", "amount": "1", "price": price}).problem(t, 404, credit.WalletNotFound)
	if gone := w.admin(t, "DELETE", path, nil).want(t, 200).object(t); gone["threshold"] != "50.5" {
		t.Errorf("%v", gone)
	}
	w.admin(t, "GET", path, nil).problem(t, 404, credit.TopUpNotFound)
}

// What a business sees of top-ups: asked for, told the outcome, listed; each of its events is as described.
func TestTopUpOutcomes(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	path := "/v1/wallets/" + w.wallet + "/top_up"
	acme := w.id(t, "acme")
	w.admin(t, "PUT", path, object{"threshold": "100", "amount": "1000", "price": object{"amount": "10.00", "tax": "0.80", "currency": "USD"}, "monthly_count": 1}).want(t, 200)
	look := func() string {
		t.Helper()
		if err := w.Store.LookAtTopUps(ctx, acme); err != nil {
			t.Fatal(err)
		}
		return w.admin(t, "GET", "/v1/topups?limit=1&wallet="+w.wallet, nil).data(t)[0]["id"].(string)
	}
	parse := func(id string) credit.TopUpID {
		parsed, err := credit.ParseID[credit.TopUpID](id)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	ask := func(id string) {
		t.Helper()
		if _, err := w.Store.AskForTopUp(ctx, parse(id)); err != nil {
			t.Fatal(err)
		}
	}
	tell := func(id, how, key string, body object) answer {
		return w.send(t, request{role: "product", method: "POST", path: "/v1/topups/" + id + "/" + how, key: key, body: body})
	}

	first := look()
	if one := w.admin(t, "GET", "/v1/topups/"+first, nil).want(t, 200).object(t); one["status"] != "requested" || one["times_out_at"] != nil || one["available"] != "0" || one["attempt"] != 1.0 {
		t.Errorf("%v", one)
	}
	ask(first)
	if rule := w.admin(t, "GET", path, nil).want(t, 200).object(t); rule["state"] != "in_flight" {
		t.Errorf("%v", rule)
	}
	declined := object{"reason": "The card was declined", "retry": true}
	failed := tell(first, "failed", "f1", declined).want(t, 202)
	if o := failed.object(t); o["status"] != "failed" || o["retry"] != true || o["reason"] != "The card was declined" || o["decided_at"] == nil || o["times_out_at"] == nil {
		t.Errorf("%s", failed.body)
	}
	if again := tell(first, "failed", "f1", declined).want(t, 202); string(again.body) != string(failed.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s", again.body)
	}
	tell(first, "failed", "f1", object{"reason": "Another", "retry": true}).problem(t, 422, credit.RequestMismatch)
	tell(first, "failed", "f2", object{"reason": "The card was declined again", "retry": true}).want(t, 202) // the same outcome
	late := tell(first, "succeeded", "s1", object{"payment_ref": "pay-1"})
	late.problem(t, 409, credit.TopUpState)
	if late.object(t)["state"] != "failed" || !strings.Contains(late.text(t, "detail"), "give it back") {
		t.Errorf("%s", late.body)
	}
	rule := w.admin(t, "GET", path, nil).want(t, 200).object(t)
	if rule["state"] != "back_off" || rule["until"] == nil || rule["failures"] != 1.0 {
		t.Errorf("%v", rule)
	}
	if rule := w.admin(t, "POST", path+"/resume", nil).want(t, 200).object(t); rule["state"] != "ready" || rule["failures"] != 0.0 {
		t.Errorf("%v", rule)
	}

	second := look()
	tell(second, "failed", "f3", object{"reason": "The card was stolen", "retry": false}).want(t, 202)
	if rule := w.admin(t, "GET", path, nil).want(t, 200).object(t); rule["state"] != "paused" || rule["until"] != nil {
		t.Errorf("%v", rule)
	}
	w.admin(t, "POST", path+"/resume", nil).want(t, 200)

	third := look()
	ask(third)
	if _, err := w.Store.Pool.Exec(ctx, "UPDATE top_ups SET times_out_at = now() WHERE status = 'requested'"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Store.ExpireTopUp(ctx, parse(third)); err != nil {
		t.Fatal(err)
	}
	late = tell(third, "succeeded", "s2", object{"payment_ref": "pay-2"})
	late.problem(t, 409, credit.TopUpState)
	if late.object(t)["state"] != "expired" || !strings.Contains(late.text(t, "detail"), "expired at") {
		t.Errorf("%s", late.body)
	}
	w.admin(t, "POST", path+"/resume", nil).want(t, 200)

	fourth := look()
	ask(fourth)
	if o := tell(fourth, "succeeded", "s3", object{"payment_ref": "pay-3"}).want(t, 202).object(t); o["status"] != "paid" || o["payment_ref"] != "pay-3" {
		t.Errorf("%v", o)
	}
	tell(fourth, "succeeded", "s4", object{"payment_ref": "pay-3"}).want(t, 202)
	tell(fourth, "succeeded", "s5", object{"payment_ref": "pay-4"}).problem(t, 409, credit.TopUpState)
	tell(fourth, "failed", "f4", declined).problem(t, 409, credit.TopUpState)
	if _, err := w.Store.FinishTopUp(ctx, parse(fourth)); err != nil {
		t.Fatal(err)
	}
	if rule := w.admin(t, "GET", path, nil).want(t, 200).object(t); rule["state"] != "cooldown" {
		t.Errorf("%v", rule)
	}
	if _, err := w.Store.Pool.Exec(ctx, "UPDATE top_up_rules SET wait_until = now()"); err != nil {
		t.Fatal(err)
	}
	if look() != fourth { // one a month
		t.Error("another one was begun")
	}
	if rule := w.admin(t, "GET", path, nil).want(t, 200).object(t); rule["state"] != "monthly_cap" || rule["until"] == nil {
		t.Errorf("%v", rule)
	}

	var told []string
	for _, e := range w.eventsOf(t, "acme") {
		kind := e["type"].(string)
		if !strings.HasPrefix(kind, "topup.") {
			continue
		}
		told = append(told, strings.TrimPrefix(kind, "topup."))
		data := e["data"].(object)
		if kind != "topup.paused" && data["top_up"].(object)["id"] != e["subject"] || data["top_up_rule"] == nil {
			t.Errorf("%v", e)
		}
	}
	if got := fmt.Sprint(told); got != "[requested failed failed paused requested expired requested succeeded paused]" {
		t.Error(got)
	}
	for query, want := range map[string]int{"": 4, "?customer=acme": 4, "?status=failed": 2, "?status=succeeded&wallet=" + w.wallet: 1, "?status=paid": 0} {
		if n := len(w.admin(t, "GET", "/v1/topups"+query, nil).data(t)); n != want {
			t.Errorf("%s: %d", query, n)
		}
	}
	w.admin(t, "GET", "/v1/topups?status=lost", nil).problem(t, 400, credit.InvalidRequest)
	if n := len(w.all(t, "/v1/topups", func() int { return 1 })); n != 4 {
		t.Errorf("%d on pages of one", n)
	}
	w.admin(t, "GET", "/v1/topups/"+credit.NewID[credit.TopUpID]().String(), nil).problem(t, 404, credit.TopUpNotFound)
	tell(credit.NewID[credit.TopUpID]().String(), "failed", "f9", declined).problem(t, 404, credit.TopUpNotFound)
	for _, body := range []object{{}, {"payment_ref": ""}, {"payment_ref": "x", "retry": true}} {
		tell(fourth, "succeeded", "", body).problem(t, 400, credit.InvalidRequest)
	}
	for _, body := range []object{{}, {"reason": "x"}, {"retry": true}, {"reason": "x", "retry": "yes"}} {
		tell(fourth, "failed", "", body).problem(t, 400, credit.InvalidRequest)
	}
	var audited int
	if err := w.Store.Pool.QueryRow(ctx, "SELECT count(*) FROM audit_log WHERE action IN ('set_top_up_rule', 'resume_top_ups', 'fail_top_up', 'succeed_top_up')").Scan(&audited); err != nil {
		t.Fatal(err)
	}
	if audited != 9 {
		t.Errorf("%d changes are in the audit", audited)
	}
}
