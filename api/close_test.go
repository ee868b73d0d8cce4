package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
)

// steps does what the close's workflow does until the review.
func (w *world) steps(t *testing.T, k db.CloseKey) {
	t.Helper()
	ctx := context.Background()
	names := []string{db.StepCutOff, db.StepExpiries, db.StepOverage, db.StepManualJournals, db.StepReconciliations, db.StepReports}
	for range 2 {
		blocked := false
		for i, run := range []func(context.Context, db.CloseKey) (db.StepResult, error){w.Store.CutOff, w.Store.Expiries, w.Store.Overage, w.Store.ManualJournals,
			func(ctx context.Context, k db.CloseKey) (db.StepResult, error) { return w.Store.Reconcile(ctx, k, 0) }, w.Store.Reports} {
			row, err := w.Store.PeriodClose(ctx, k)
			if err != nil {
				t.Fatal(err)
			}
			r, err := run(ctx, k)
			if err == nil {
				_, err = w.Store.SaveStep(ctx, k, names[i], row.ReadAt, r)
			}
			if err != nil {
				t.Fatal(err)
			}
			blocked = blocked || r.Blocked != ""
		}
		if blocked {
			return
		}
		if err := w.Store.ReviewClose(ctx, k); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Store.MakePack(ctx, k, names); err != nil {
		t.Fatal(err)
	}
}

func (w *world) as(t *testing.T, role, method, path string, body any) answer {
	t.Helper()
	r := request{role: role, method: method, path: path, body: body}
	if method != "GET" {
		r.key = w.newKey()
	}
	return w.send(t, r)
}

// TestClose closes a period by the API, refuses whoever may not, and reopens it.
func TestClose(t *testing.T) {
	w := newWorld(t)
	last := ledger.PeriodOf(time.Now(), time.UTC).Previous()
	period := "/v1/finance/periods/main/" + string(last)
	closing := period + "/close"
	before := string(last) + "-15"

	settings := "/v1/legal_entities/main/close_settings"
	if got := w.as(t, "finance", "GET", settings, nil).want(t, 200).object(t); got["late_hours"] != 72.0 {
		t.Errorf("%v", got)
	}
	w.as(t, "controller", "PUT", settings, object{"late_hours": 1, "required_statements": []string{"processor"}}).want(t, 200)
	w.as(t, "controller", "PUT", settings, object{"late_hours": 1, "required_statements": []string{"rumour"}}).problem(t, 400, credit.InvalidRequest)
	w.as(t, "controller", "PUT", "/v1/legal_entities/none/close_settings", object{"late_hours": 1, "required_statements": []string{}}).problem(t, 404, credit.EntityNotFound)

	w.as(t, "finance", "GET", closing, nil).problem(t, 404, credit.CloseNotFound)
	w.as(t, "finance", "POST", "/v1/finance/periods/main/2999-01/close", nil).problem(t, 409, credit.CloseState)
	w.as(t, "finance", "POST", "/v1/finance/periods/main/x/close", nil).problem(t, 400, credit.InvalidRequest)
	w.as(t, "finance", "POST", "/v1/finance/periods/none/2026-01/close", nil).problem(t, 404, credit.EntityNotFound)
	w.as(t, "product", "POST", closing, nil).problem(t, 403, credit.Forbidden)
	begun := w.as(t, "finance", "POST", closing, nil).want(t, 202).object(t)
	if begun["status"] != "preparing" || begun["period_status"] != "soft_closed" || begun["preparer_name"] != "finance" {
		t.Errorf("%v", begun)
	}
	if again := w.as(t, "finance", "POST", closing, nil).want(t, 202).object(t); !reflect.DeepEqual(again, begun) {
		t.Errorf("%v, then %v", begun, again)
	}
	w.as(t, "finance", "GET", closing+"/pack", nil).problem(t, 409, credit.CloseState)
	w.as(t, "controller", "POST", closing+"/late_window", object{"until": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), "reason": "All sources have reported"}).want(t, 200)

	journal := object{"legal_entity": "main", "service_on": before, "reason": "Fees", "attachments": []string{"invoice 1"},
		"postings": []object{{"account": 5020, "side": "dr", "amount": "12.34"}, {"account": 1020, "side": "cr", "amount": "12.34"}}}
	made := w.as(t, "finance", "POST", "/v1/finance/journals", journal).want(t, 201).object(t)
	one := "/v1/finance/journals/" + made["id"].(string)
	if got := w.as(t, "ops", "GET", one, nil).want(t, 200).object(t); !reflect.DeepEqual(got, made) {
		t.Errorf("%v, then %v", made, got)
	}
	w.as(t, "finance", "POST", one+"/approve", nil).problem(t, 403, credit.Forbidden)
	w.as(t, "admin", "POST", one+"/approve", nil).problem(t, 403, credit.Forbidden) // no controller, though admin may call everything
	if got := w.as(t, "controller", "POST", one+"/approve", nil).want(t, 200).object(t); got["status"] != "posted" || got["entry_id"] == nil {
		t.Errorf("%v", got)
	}
	w.as(t, "controller", "POST", one+"/reject", object{"reason": "x"}).problem(t, 409, credit.JournalState)
	w.as(t, "controller", "POST", "/v1/finance/journals/"+credit.NewID[credit.JournalID]().String()+"/reject", object{"reason": "x"}).problem(t, 404, credit.JournalNotFound)
	journal["postings"] = []object{{"account": 2010, "side": "dr", "amount": "1"}, {"account": 1020, "side": "cr", "amount": "1"}}
	w.as(t, "finance", "POST", "/v1/finance/journals", journal).problem(t, 400, credit.InvalidRequest)
	if got := w.as(t, "controller", "GET", "/v1/finance/journals?legal_entity=main&status=posted&period="+string(last), nil).data(t); len(got) != 1 || got[0]["id"] != made["id"] {
		t.Errorf("%v", got)
	}

	w.steps(t, db.CloseKey{Entity: "main", Period: last, Version: 1})
	w.as(t, "controller", "POST", closing+"/waivers", object{"reconciliation": "R7", "reason": "No statement yet"}).want(t, 201)
	if got := w.as(t, "finance", "GET", closing, nil).want(t, 200).object(t); got["pack_hash"] != nil || len(got["steps"].([]any)) != 6 {
		t.Errorf("%v", got)
	}
	w.as(t, "finance", "POST", period+"/statements", object{"kind": "processor", "amount": "-12.34", "currency": "USD", "reference": "b", "as_of": "2026-01-01T00:00:00Z"}).want(t, 201)
	w.as(t, "finance", "POST", period+"/statements", object{"kind": "bank", "amount": "1", "currency": "EUR", "reference": "b", "as_of": "2026-01-01T00:00:00Z"}).problem(t, 400, credit.InvalidRequest)
	w.as(t, "finance", "POST", period+"/statements", object{"kind": "bank", "amount": "1e3", "currency": "USD", "reference": "b", "as_of": "2026-01-01T00:00:00Z"}).problem(t, 400, credit.InvalidRequest)
	w.steps(t, db.CloseKey{Entity: "main", Period: last, Version: 1})

	board := w.as(t, "controller", "GET", closing, nil).want(t, 200).object(t)
	pack := w.as(t, "controller", "GET", closing+"/pack", nil).want(t, 200)
	sum := sha256.Sum256(pack.body)
	hash := hex.EncodeToString(sum[:])
	if board["pack_hash"] != hash || board["status"] != "in_review" || !json.Valid(pack.body) {
		t.Errorf("the pack's hash is %s, the board says %v", hash, board["pack_hash"])
	}
	w.as(t, "finance", "POST", closing+"/approve", object{"pack_hash": hash}).problem(t, 403, credit.Forbidden)
	w.as(t, "admin", "POST", closing+"/approve", object{"pack_hash": hash}).problem(t, 403, credit.Forbidden)
	w.as(t, "controller", "POST", closing+"/approve", object{"pack_hash": hash[:63]}).problem(t, 400, credit.InvalidRequest)
	w.as(t, "controller", "POST", closing+"/approve", object{"pack_hash": hash[1:] + "0"}).problem(t, 409, credit.PackChanged)
	if err := w.Store.RemindOfClose(t.Context(), db.CloseKey{Entity: "main", Period: last, Version: 1}, 1); err != nil {
		t.Error(err)
	}
	w.as(t, "finance", "POST", closing+"/reject", object{"reason": "Look at the fees again"}).want(t, 200)
	w.steps(t, db.CloseKey{Entity: "main", Period: last, Version: 1})
	hash = w.as(t, "controller", "GET", closing, nil).want(t, 200).text(t, "pack_hash")
	w.as(t, "controller", "POST", closing+"/approve", object{"pack_hash": hash}).want(t, 202)
	if status, err := w.Store.LockPeriodClosed(t.Context(), db.CloseKey{Entity: "main", Period: last, Version: 1}); err != nil || status != db.CloseClosed {
		t.Fatal(status, err)
	}
	w.as(t, "finance", "POST", closing, nil).problem(t, 409, credit.PeriodClosed)

	w.as(t, "finance", "POST", period+"/reopen/approve", nil).problem(t, 403, credit.Forbidden)
	w.as(t, "controller", "POST", period+"/reopen/approve", nil).problem(t, 404, credit.NotFound)
	w.as(t, "controller", "POST", period+"/reopen", object{"reason": "An invoice was missed"}).want(t, 201)
	w.as(t, "controller", "POST", period+"/reopen/approve", nil).problem(t, 403, credit.SecondPerson)
	second, err := NewKey(t.Context(), w.Store, "Another controller", "controller")
	if err != nil {
		t.Fatal(err)
	}
	w.secret["second"] = second
	w.as(t, "second", "POST", period+"/reopen/approve", nil).want(t, 200)
	if got := w.as(t, "controller", "GET", closing+"?version=1", nil).want(t, 200).object(t); got["reopening"].(object)["approver"] == nil || got["period_status"] != "reopened" {
		t.Errorf("%v", got)
	}
	if got := w.as(t, "finance", "POST", closing, nil).want(t, 202).object(t); got["version"] != 2.0 {
		t.Errorf("%v", got)
	}

	var kinds []any
	for _, e := range w.all(t, "/v1/events?subject=main/"+string(last), func() int { return 50 }) {
		kinds = append(kinds, e["type"])
	}
	if want := []any{"period.soft_closed", "period.reopened", "period.closed", "notification.period.awaiting_approval", "period.soft_closed"}; !reflect.DeepEqual(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
	newest := w.admin(t, "GET", "/v1/events?type=period.soft_closed", nil).data(t)[0]["data"].(object)["period"]
	if row := w.admin(t, "GET", "/v1/finance/periods?legal_entity=main", nil).data(t)[0]; !reflect.DeepEqual(newest, any(row)) {
		t.Errorf("the event says\n%v\nthe API says\n%v", newest, row)
	}
}
