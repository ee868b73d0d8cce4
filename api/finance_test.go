package api

import (
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
)

func TestFinance(t *testing.T) {
	w := newWorld(t)
	id := w.grant(t, "1000", object{"type": "purchased", "price": object{"amount": "100.00", "tax": "19.00", "currency": "USD"}})
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "a", body: object{"customer": "acme", "unit": "CRD", "amount": "250", "dimensions": object{"model": "m"}}}).want(t, 200)
	w.admin(t, "POST", "/v1/grants/"+id+"/refunds", object{"units": "100", "reason": "x"}).want(t, 201)
	posted := w.admin(t, "POST", "/v1/finance/recognise", nil).want(t, 200)
	if got := posted.object(t); got["done"] != true || got["customers"] != 1.0 || got["entries"] != 3.0 {
		t.Errorf("%s", posted.body)
	}
	if got := w.admin(t, "POST", "/v1/finance/recognise", object{"customer": "acme"}).want(t, 200).object(t); got["entries"] != 0.0 {
		t.Errorf("%v", got)
	}
	trial := w.admin(t, "GET", "/v1/finance/trial_balance?legal_entity=main", nil).want(t, 200)
	if got := trial.object(t); got["balanced"] != true || got["debit"] != got["credit"] {
		t.Errorf("%s", trial.body)
	}
	balances := map[any]any{}
	for _, a := range trial.object(t)["accounts"].([]any) {
		balances[a.(object)["account"]] = a.(object)["balance"]
	}
	if balances[4010.0] != "-25.00" || balances[2010.0] != "-65.00" {
		t.Errorf("%v", balances)
	}
	lines := w.admin(t, "GET", "/v1/finance/roll_forward?legal_entity=main&by=grant", nil).data(t)
	if len(lines) != 1 || lines[0]["grant_id"] != id || lines[0]["closing"] != "65.00" || lines[0]["foots"] != true {
		t.Errorf("%v", lines)
	}
	total := w.admin(t, "GET", "/v1/finance/roll_forward?legal_entity=main&customer=acme", nil).data(t)
	if len(total) != 1 || total[0]["purchases"] != "100.00" || total[0]["recognised"] != "25.00" || total[0]["refunds"] != "10.00" {
		t.Errorf("%v", total)
	}
	entries := w.admin(t, "GET", "/v1/finance/journal_entries?legal_entity=main&grant="+id, nil).data(t)
	if len(entries) != 3 || entries[0]["kind"] != "purchase" {
		t.Errorf("%v", entries)
	}
	month := time.Now().UTC().Format("2006-01")
	if got := w.admin(t, "GET", "/v1/finance/periods?legal_entity=main", nil).data(t); len(got) != 1 || got[0]["period"] != month || got[0]["status"] != "open" {
		t.Errorf("%v", got)
	}
	if got := w.admin(t, "GET", "/v1/finance/trial_balance?legal_entity=main&from="+month+"&to="+month, nil).want(t, 200); got.text(t, "debit") != trial.text(t, "debit") {
		t.Errorf("%s", got.body)
	}
	for _, report := range []string{"trial_balance", "roll_forward", "roll_forward", "journal_entries", "periods"} {
		w.admin(t, "GET", "/v1/finance/"+report, nil).problem(t, 400, credit.InvalidRequest)
		w.admin(t, "GET", "/v1/finance/"+report+"?legal_entity=other", nil).problem(t, 404, credit.EntityNotFound)
	}
	for _, bad := range []string{"trial_balance?legal_entity=main&from=2026", "trial_balance?legal_entity=main&from=2026-02&to=2026-01", "journal_entries?legal_entity=main&period=2026-13",
		"journal_entries?legal_entity=main&account=x", "roll_forward?legal_entity=main&by=model"} {
		w.admin(t, "GET", "/v1/finance/"+bad, nil).problem(t, 400, credit.InvalidRequest)
	}
	w.admin(t, "POST", "/v1/finance/recognise", object{"customer": "nobody"}).problem(t, 404, credit.CustomerNotFound)
}
