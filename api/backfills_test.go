package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/testsuite"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
)

// runBackfill does what a worker would do for a backfill.
func (w *world) runBackfill(t *testing.T, text string, preview bool) {
	t.Helper()
	id, err := credit.ParseID[credit.BackfillID](text)
	if err != nil {
		t.Fatal(err)
	}
	a := &activities.Activities{Service: w.Start(t, balance.Config{Backfills: true}), Store: w.Store}
	var suite testsuite.WorkflowTestSuite
	run := func(activity, in any) {
		t.Helper()
		env := suite.NewTestActivityEnvironment()
		env.RegisterActivity(a)
		if _, err := env.ExecuteActivity(activity, in); err != nil {
			t.Fatal(err)
		}
	}
	ref := activities.BackfillRef{BackfillID: id}
	page := activities.BackfillPageInput{BackfillRef: ref}
	if preview {
		run(a.BeginPreview, ref)
		run(a.PreviewBackfill, page)
		run(a.EndPreview, ref)
		return
	}
	run(a.ApplyBackfill, page)
	run(a.EndBackfill, activities.EndBackfillInput{BackfillRef: ref, Status: "applied"})
}

// Every call of a backfill, from its making to its withdrawal, in three forms of events, with what each refuses.
func TestBackfillsByAPI(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "100", nil)
	w.secret["product"] = w.secret["finance"] // who sends events here
	day := time.Now().AddDate(0, 0, -60).UTC().Format(time.RFC3339)
	w.admin(t, "POST", "/v1/backfills", object{"name": "outage"}).problem(t, 400, credit.InvalidRequest)
	made := w.admin(t, "POST", "/v1/backfills", object{"name": "outage", "reason": "The collector was down"}).want(t, 201)
	id := made.text(t, "id")
	path := "/v1/backfills/" + id
	unknown := "/v1/backfills/" + credit.NewID[credit.BackfillID]().String()
	send := func(media, body string) answer {
		t.Helper()
		return w.events(t, path+"/events", media, body, nil)
	}
	event := func(id, customer, amount string) string { return crd(id, customer, amount, day) }
	w.admin(t, "POST", path+"/preview", nil).problem(t, 409, credit.BackfillState)
	counts := func(a answer) object { return a.want(t, 200).object(t)["counts"].(map[string]any) }
	if c := counts(send(mediaJSON, `{"events":[`+event("1", "acme", "3")+","+event("2", "nobody", "1")+","+event("1", "acme", "4")+`,{"source":"app"}]}`)); c["staged"] != 2. ||
		c["mismatch"] != 1. || c["refused"] != 1. {
		t.Errorf("%v", c)
	}
	if a := send(mediaNDJSON, event("1", "acme", "3")+"\n"+event("3", "acme", "200")+"\n"); strings.Count(string(a.body), `"staged"`) != 1 || strings.Count(string(a.body), `"duplicate"`) != 1 {
		t.Errorf("%s", a.body)
	}
	if c := counts(send(mediaCloud, `{"specversion":"1.0","id":"4","source":"app","type":"made","subject":"acme","time":"`+day+`","data":{"unit":"CRD","amount":"2"}}`)); c["staged"] != 1. {
		t.Errorf("%v", c)
	}
	if got := w.available(t, "acme"); got != "100" {
		t.Errorf("staging leaves %s", got)
	}
	w.admin(t, "POST", path+"/apply", object{"preview_hash": "x"}).problem(t, 409, credit.PreviewChanged)
	w.admin(t, "POST", path+"/preview", nil).want(t, 200)
	if c := counts(send(mediaJSON, event("5", "acme", "1"))); c["refused"] != 1. {
		t.Errorf("staged while it is previewed: %v", c)
	}
	w.runBackfill(t, id, true)
	v := w.admin(t, "GET", path, nil).want(t, 200)
	view := v.object(t)
	if p := view["preview"].(map[string]any); p["chargeable"] != 2. || p["refused"] != 2. || view["status"] != "previewed" {
		t.Fatalf("%s", v.body)
	}
	if total := view["totals"].([]any)[0].(map[string]any); total["amount"] != "5" || total["events"] != 2. {
		t.Errorf("%s", v.body)
	}
	if refused := w.admin(t, "GET", path+"/events?outcome=refused&limit=1", nil).want(t, 200); refused.data(t)[0]["code"] != "customer_not_found" {
		t.Errorf("%s", refused.body)
	}
	if all := w.all(t, path+"/events", func() int { return 2 }); len(all) != 4 {
		t.Errorf("%v", all)
	}
	hash := view["preview_hash"]
	w.admin(t, "POST", path+"/apply", object{"preview_hash": hash}).problem(t, 409, credit.BackfillState)
	w.admin(t, "POST", path+"/apply", object{"preview_hash": hash, "allow_partial": true}).want(t, 200)
	w.admin(t, "POST", path+"/withdraw", object{"reason": "too soon"}).problem(t, 409, credit.BackfillState)
	w.runBackfill(t, id, false)
	if got := w.available(t, "acme"); got != "95" {
		t.Errorf("%s are left", got)
	}
	if v := w.admin(t, "GET", path, nil).want(t, 200); v.object(t)["status"] != "applied" {
		t.Errorf("%s", v.body)
	}
	w.admin(t, "POST", path+"/withdraw", object{"reason": "It was wrong"}).want(t, 200)
	w.admin(t, "POST", path+"/withdraw", object{"reason": "again"}).problem(t, 409, credit.BackfillState)
	if list := w.admin(t, "GET", "/v1/backfills", nil).want(t, 200).data(t); len(list) != 1 || list[0]["id"] != id {
		t.Errorf("%v", list)
	}
	for _, call := range [][2]string{{"GET", ""}, {"GET", "/events"}, {"POST", "/preview"}} {
		w.admin(t, call[0], unknown+call[1], nil).problem(t, 404, credit.BackfillNotFound)
	}
	for _, action := range []string{"create_backfill", "preview_backfill", "apply_backfill", "withdraw_backfill"} {
		var n int
		if err := w.Store.Pool.QueryRow(context.Background(), "SELECT count(*) FROM audit_log WHERE action = $1 AND subject = $2", action, id).Scan(&n); err != nil || n != 1 {
			t.Errorf("%s is in the audit %d times, %v", action, n, err)
		}
	}

	// What is dropped before it was applied is dropped at once.
	other := w.admin(t, "POST", "/v1/backfills", object{"name": "mistake", "reason": "test"}).want(t, 201).text(t, "id")
	if a := w.admin(t, "POST", "/v1/backfills/"+other+"/withdraw", object{"reason": "A mistake"}).want(t, 200); a.object(t)["status"] != "withdrawn" {
		t.Errorf("%s", a.body)
	}
}
