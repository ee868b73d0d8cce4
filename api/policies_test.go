package api

import (
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
)

// Finance prepares with one key and approves with another; the policy decides what is posted, and the log says what was adjusted.
func TestPolicies(t *testing.T) {
	w := newWorld(t)
	month := time.Now().UTC().Format("2006-01")
	as := func(role, path string, body any) answer {
		return w.send(t, request{role: role, method: "POST", path: "/v1/finance/" + path, key: w.newKey(), body: body})
	}
	policy := as("finance", "policies", object{"legal_entity": "main", "first_period": month, "breakage": "proportional", "use_tax_rate": "0.04",
		"escheat_rate": "0.5", "evidence": "Memorandum 14"}).want(t, 201)
	if got := policy.object(t); got["version"] != 1.0 || got["unit"] != nil || got["approved_by"] != nil || got["use_tax_rate"] != "0.04" {
		t.Errorf("%s", policy.body)
	}
	path := "policies/" + policy.text(t, "id") + "/approve"
	as("finance", path, nil).problem(t, 409, credit.SelfApproval)
	approved := as("admin", path, nil).want(t, 200)
	if got := approved.object(t); got["approved_by"] == nil || got["approved_at"] == nil {
		t.Errorf("%s", approved.body)
	}
	as("admin", path, nil).problem(t, 409, credit.AlreadyExists)
	as("finance", "policies", object{"legal_entity": "main", "unit": "CRD", "first_period": "2030-01", "evidence": "x"}).want(t, 201)
	list := w.admin(t, "GET", "/v1/finance/policies?legal_entity=main&limit=1", nil).want(t, 200)
	if got := list.data(t); len(got) != 1 || got[0]["version"] != 2.0 || got[0]["unit"] != "CRD" || got[0]["breakage"] != "remote" {
		t.Errorf("%s", list.body)
	}
	if got := w.admin(t, "GET", "/v1/finance/policies?legal_entity=main&limit=1&cursor="+list.text(t, "next_cursor"), nil).data(t); len(got) != 1 || got[0]["version"] != 1.0 {
		t.Errorf("%v", got)
	}

	w.grant(t, "100", object{"type": "purchased", "price": object{"amount": "100.00", "currency": "USD"}})
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "a", body: object{"customer": "acme", "unit": "CRD", "amount": "52"}}).want(t, 200)
	w.admin(t, "POST", "/v1/finance/recognise", nil).want(t, 200)
	late := as("finance", "policies", object{"legal_entity": "main", "first_period": month, "evidence": "x"}).want(t, 201)
	as("admin", "policies/"+late.text(t, "id")+"/approve", nil).problem(t, 409, credit.PolicyTooLate)

	run := object{"legal_entity": "main", "period": month}
	if got := as("finance", "breakage_adjustments", run).want(t, 200).object(t); len(got["missing"].([]any)) != 1 {
		t.Errorf("%v", got)
	}
	estimate := func(use string) {
		t.Helper()
		e := as("finance", "breakage_estimates", object{"legal_entity": "main", "unit": "CRD", "expires_in": "never", "first_period": month, "expected_use": use,
			"method": "History of two years", "evidence": "Sheet B-7"}).want(t, 201)
		as("finance", "breakage_estimates/"+e.text(t, "id")+"/approve", nil).problem(t, 409, credit.SelfApproval)
		as("admin", "breakage_estimates/"+e.text(t, "id")+"/approve", nil).want(t, 200)
	}
	estimate("0.5")
	if got := as("finance", "breakage_adjustments", run).problem(t, 409, credit.EstimateExceeded); got["cohort"] != "CRD never" {
		t.Errorf("%v", got)
	}
	estimate("0.8")
	adjusted := as("finance", "breakage_adjustments", run).want(t, 200)
	if got := adjusted.object(t)["adjustments"].([]any); len(got) != 1 || got[0].(object)["amount"] != "13.00" || got[0].(object)["after"] != "13.00" {
		t.Errorf("%s", adjusted.body)
	}
	if got := as("finance", "breakage_adjustments", run).want(t, 200).object(t)["adjustments"].([]any); len(got) != 0 {
		t.Errorf("twice: %v", got)
	}
	if got := w.admin(t, "GET", "/v1/finance/breakage_adjustments?legal_entity=main&period="+month, nil).data(t); len(got) != 1 || got[0]["used"] != "52.00" || got[0]["estimate_version"] != 2.0 {
		t.Errorf("%v", got)
	}
	if got := w.admin(t, "GET", "/v1/finance/breakage_estimates?legal_entity=main", nil).data(t); len(got) != 2 || got[0]["expected_use"] != "0.8" {
		t.Errorf("%v", got)
	}
	entries := w.admin(t, "GET", "/v1/finance/journal_entries?legal_entity=main&account=2030", nil).data(t)
	if len(entries) != 1 || entries[0]["policy_version"] != 1.0 || entries[0]["kind"] != "recognition" {
		t.Errorf("tax at use: %v", entries)
	}

	for path, bodies := range map[string][]object{
		"policies": {{"legal_entity": "main", "first_period": "2030", "evidence": "x"}, {"legal_entity": "main", "first_period": "2030-01"},
			{"legal_entity": "main", "first_period": "2030-01", "evidence": "x", "use_tax_rate": "1.1"},
			{"legal_entity": "main", "first_period": "2030-01", "evidence": "x", "escheat_rate": "0.1234567890"},
			{"legal_entity": "main", "first_period": "2030-01", "evidence": "x", "breakage": "none"}},
		"breakage_estimates": {{"legal_entity": "main", "unit": "CRD", "first_period": "2030-01", "expected_use": "0", "method": "m", "evidence": "e"},
			{"legal_entity": "main", "unit": "CRD", "expires_in": "soon", "first_period": "2030-01", "expected_use": "1", "method": "m", "evidence": "e"}},
		"breakage_adjustments": {{"legal_entity": "main"}, {"legal_entity": "main", "period": "2026-13"}},
	} {
		for _, body := range bodies {
			as("finance", path, body).problem(t, 400, credit.InvalidRequest)
		}
	}
	as("finance", "policies", object{"legal_entity": "other", "first_period": "2030-01", "evidence": "x"}).problem(t, 404, credit.EntityNotFound)
	as("finance", "policies", object{"legal_entity": "main", "unit": "OTHER", "first_period": "2030-01", "evidence": "x"}).problem(t, 404, credit.UnitNotFound)
	as("finance", "breakage_adjustments", object{"legal_entity": "other", "period": month}).problem(t, 404, credit.EntityNotFound)
	for _, list := range []string{"policies", "breakage_estimates", "breakage_adjustments"} {
		w.admin(t, "GET", "/v1/finance/"+list, nil).problem(t, 400, credit.InvalidRequest)
		w.admin(t, "GET", "/v1/finance/"+list+"?legal_entity=other", nil).problem(t, 404, credit.EntityNotFound)
	}
}
