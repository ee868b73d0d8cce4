package api

import (
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/seal"
)

func TestSeals(t *testing.T) {
	w := newWorld(t)
	id := w.grant(t, "1000", object{"type": "purchased", "price": object{"amount": "100.00", "tax": "19.00", "currency": "USD"}})
	month := time.Now().UTC().Format("2006-01")
	path := "/v1/finance/periods/main/" + month + "/seal"
	w.admin(t, "POST", path, nil).problem(t, 404, credit.NotFound)
	w.admin(t, "POST", "/v1/finance/recognise", nil).want(t, 200)
	entry := w.admin(t, "GET", "/v1/finance/journal_entries?legal_entity=main&grant="+id, nil).data(t)[0]["id"].(string)
	proofPath := "/v1/finance/journal_entries/" + entry + "/proof"
	w.admin(t, "GET", proofPath, nil).problem(t, 409, credit.NotSealed)

	answer := w.send(t, request{role: "finance", method: "POST", path: path}).want(t, 200)
	sealed, err := seal.Read(answer.body)
	if err != nil || sealed.Check([]string{w.server.sealer.Key.ID()}) != nil || sealed.Size != 1 || sealed.Entity != "main" || string(sealed.Period) != month || !strings.HasSuffix(answer.text(t, "sealed_at"), "Z") {
		t.Fatalf("%s: %v", answer.body, err)
	}
	if again := w.admin(t, "POST", path, object{}).want(t, 200); string(again.body) != string(answer.body) {
		t.Errorf("%s, again: %s", answer.body, again.body)
	}
	pack := strings.Repeat("ab", 32)
	if more := w.admin(t, "POST", path, object{"pack_sha256": pack}).want(t, 200); more.text(t, "pack_sha256") != pack || more.text(t, "prev_seal_hash") != sealed.Hash().String() {
		t.Errorf("%s", more.body)
	}
	for _, filter := range []string{"", "&period=" + month} {
		if list := w.all(t, "/v1/finance/seals?legal_entity=main"+filter, func() int { return 1 }); len(list) != 2 || list[0]["version"] != 2.0 || list[1]["root"] != sealed.Root.String() {
			t.Errorf("%v", list)
		}
	}
	if list := w.admin(t, "GET", "/v1/finance/seals?legal_entity=main&period=2020-01", nil).data(t); len(list) != 0 {
		t.Errorf("%v", list)
	}
	proof, err := seal.ReadProof(w.send(t, request{role: "ops", method: "GET", path: proofPath}).want(t, 200).body)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := proof.Check(sealed.Root, nil); err != nil || e.ID.String() != entry {
		t.Errorf("%+v, %v", e, err)
	}
	if log := w.admin(t, "GET", "/v1/audit?action=seal_period", nil).data(t); len(log) != 3 || log[0]["subject"] != "main/"+month {
		t.Errorf("%v", log)
	}
	w.admin(t, "POST", path, object{"pack_sha256": "x"}).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "POST", "/v1/finance/periods/main/2026-13/seal", nil).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "POST", "/v1/finance/periods/nobody/2026-01/seal", nil).problem(t, 404, credit.EntityNotFound)
	w.admin(t, "GET", "/v1/finance/seals", nil).problem(t, 400, credit.InvalidRequest)
	w.admin(t, "GET", "/v1/finance/seals?legal_entity=nobody", nil).problem(t, 404, credit.EntityNotFound)
	w.admin(t, "GET", "/v1/finance/journal_entries/x/proof", nil).problem(t, 400, credit.InvalidID)
	w.admin(t, "GET", "/v1/finance/journal_entries/"+credit.NewID[credit.EntryID]().String()+"/proof", nil).problem(t, 404, credit.NotFound)
	w.server.sealer = nil
	w.admin(t, "POST", path, nil).problem(t, 409, credit.NoSealingKey)
}
