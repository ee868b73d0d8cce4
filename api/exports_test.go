package api

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/export"
)

func TestExports(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "1000", object{"type": "purchased", "price": object{"amount": "100.00", "tax": "19.00", "currency": "USD"}})
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "a", body: object{"customer": "acme", "unit": "CRD", "amount": "250", "dimensions": object{"model": "m"}}}).want(t, 200)
	w.admin(t, "POST", "/v1/finance/recognise", nil).want(t, 200)
	of := "?legal_entity=main&period=" + time.Now().UTC().Format("2006-01")
	for _, s := range export.Systems {
		path := "/v1/finance/exports/" + string(s) + of
		if s.Mapped() {
			refused := w.admin(t, "GET", path, nil).problem(t, 409, credit.AccountNotMapped)
			if got := refused["accounts"].([]any); len(got) != 4 {
				t.Errorf("%v", refused)
			}
			w.admin(t, "GET", "/v1/finance/account_mappings?legal_entity=main&system="+string(s), nil).problem(t, 404, credit.NotFound)
			var accounts []object
			for _, a := range []int{1020, 2010, 2030, 4010} {
				m := object{"account": a, "name": "Account"}
				if s == export.Xero {
					m = object{"account": a, "code": "200", "tax_rate": "None"}
				}
				accounts = append(accounts, m)
			}
			put := request{role: "finance", method: "PUT", path: "/v1/finance/account_mappings", key: string(s), body: object{"legal_entity": "main", "system": string(s), "accounts": accounts}}
			mapped := w.send(t, put).want(t, 200)
			if again := w.send(t, put).want(t, 200); string(again.body) != string(mapped.body) {
				t.Errorf("%s\n%s", mapped.body, again.body)
			}
			got := w.admin(t, "GET", "/v1/finance/account_mappings?legal_entity=main&version=1&system="+string(s), nil).want(t, 200)
			if string(got.body) != string(mapped.body) || len(got.object(t)["unmapped"].([]any)) != 23 {
				t.Errorf("%s\n%s", mapped.body, got.body)
			}
		}

		file := w.send(t, request{role: "finance", method: "GET", path: path}).want(t, 200)
		sum := sha256.Sum256(file.body)
		if file.header.Get("Tallystick-SHA256") != hex.EncodeToString(sum[:]) || file.header.Get("Tallystick-Debit") != "144.00" || file.header.Get("Tallystick-Entries") != "2" {
			t.Errorf("%s: %v", s, file.header)
		}
		manifest := w.send(t, request{role: "ops", method: "GET", path: path + "&manifest=true"}).want(t, 200)
		if !strings.Contains(string(manifest.body), hex.EncodeToString(sum[:])) {
			t.Errorf("%s: %s", s, manifest.body)
		}
		w.admin(t, "GET", path+"&part=2", nil).problem(t, 404, credit.NotFound)
	}
	w.admin(t, "GET", "/v1/finance/exports/sage"+of, nil).problem(t, 404, credit.NotFound)
	w.admin(t, "GET", "/v1/finance/exports/csv?legal_entity=other&period=2026-01", nil).problem(t, 404, credit.EntityNotFound)
	for _, bad := range []string{"csv", "csv?legal_entity=main", "csv?legal_entity=main&period=2026", "csv" + of + "&detail=day", "csv" + of + "&part=0", "csv" + of + "&x=1", "csv" + of + "&manifest=1"} {
		w.admin(t, "GET", "/v1/finance/exports/"+bad, nil).problem(t, 400, credit.InvalidRequest)
	}
	for _, bad := range []object{
		{}, {"legal_entity": "main", "system": "csv", "accounts": []object{}},
		{"legal_entity": "main", "system": "xero", "accounts": []object{{"account": 1020, "name": "Bank"}}},
		{"legal_entity": "main", "system": "netsuite", "accounts": []object{{"account": 1, "name": "Bank"}}},
		{"legal_entity": "main", "system": "netsuite", "accounts": []object{{"account": 1020, "name": "A"}, {"account": 1020, "name": "B"}}},
		{"legal_entity": "main", "system": "quickbooks_online", "subsidiary": "HQ", "accounts": []object{}},
	} {
		w.admin(t, "PUT", "/v1/finance/account_mappings", bad).problem(t, 400, credit.InvalidRequest)
	}
	w.admin(t, "PUT", "/v1/finance/account_mappings", object{"legal_entity": "other", "system": "xero", "accounts": []object{}}).problem(t, 404, credit.EntityNotFound)
	for _, bad := range []string{"", "?legal_entity=main", "?legal_entity=main&system=csv", "?legal_entity=main&system=xero&version=0"} {
		w.admin(t, "GET", "/v1/finance/account_mappings"+bad, nil).problem(t, 400, credit.InvalidRequest)
	}
}
