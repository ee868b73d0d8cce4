package api

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

func TestReports(t *testing.T) {
	w := newWorld(t)
	id := w.grant(t, "1000", object{"type": "purchased", "price": object{"amount": "100.00", "tax": "19.00", "currency": "USD"}})
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "a", body: object{"customer": "acme", "unit": "CRD", "amount": "250", "dimensions": object{"model": "m"}}}).want(t, 200)
	w.admin(t, "POST", "/v1/grants/"+id+"/refunds", object{"units": "100", "reason": "x"}).want(t, 201)
	w.admin(t, "POST", "/v1/finance/recognise", nil).want(t, 200)
	month := time.Now().UTC().Format("2006-01")
	of := "?legal_entity=main&from=" + month + "&to=" + month
	for _, spec := range db.Reports {
		path := "/v1/finance/reports/" + spec.Name + of
		asJSON := w.send(t, request{role: "finance", method: "GET", path: path}).want(t, 200)
		asCSV := w.send(t, request{role: "finance", method: "GET", path: path + "&format=csv"}).want(t, 200)
		doc := asJSON.object(t)
		sum := sha256.Sum256(asCSV.body)
		if doc["sha256"] != hex.EncodeToString(sum[:]) || asCSV.header.Get("Tallystick-SHA256") != doc["sha256"] {
			t.Errorf("%s: %v, %v", spec.Name, doc["sha256"], asCSV.header)
		}
		lines, err := csv.NewReader(strings.NewReader(string(asCSV.body))).ReadAll()
		if err != nil || len(lines)-1 != len(doc["rows"].([]any)) || fmt.Sprint(len(lines)-1) != asCSV.header.Get("Tallystick-Rows") || doc["row_count"] != float64(len(lines)-1) {
			t.Errorf("%s: %v, %v\n%s", spec.Name, err, asCSV.header, asJSON.body)
		}
		if len(lines) > 1 && len(doc["rows"].([]any)[0].(object)) != len(spec.Columns) {
			t.Errorf("%s: %s", spec.Name, asJSON.body)
		}
	}
	revenue := w.admin(t, "GET", "/v1/finance/reports/revenue"+of, nil).want(t, 200).object(t)
	row := revenue["rows"].([]any)[0].(object)
	if row["category"] != "prepaid_draw_down" || row["amount"] != "25.00" || row["model"] != "m" || row["product"] != nil || row["cohort"] != month {
		t.Errorf("%v", revenue)
	}
	if totals := revenue["control_totals"].(object); totals["amount"] != "25.00" {
		t.Errorf("%v", revenue)
	}
	w.admin(t, "GET", "/v1/finance/reports/profit"+of, nil).problem(t, 404, credit.NotFound)
	w.admin(t, "GET", "/v1/finance/reports/revenue?legal_entity=other&from=2026-01&to=2026-01", nil).problem(t, 404, credit.EntityNotFound)
	for _, bad := range []string{"", "?legal_entity=main", "?legal_entity=main&from=2026-01", "?legal_entity=main&from=2026-02&to=2026-01", of + "&format=xml", of + "&x=1"} {
		w.admin(t, "GET", "/v1/finance/reports/revenue"+bad, nil).problem(t, 400, credit.InvalidRequest)
	}
}
