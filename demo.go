package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tallystick/tallystick/replay"
)

// demoCustomer is the external id of the customer that "dev" makes, so that there is something to look at.
const demoCustomer = "demo"

// demo fills a new deployment through its own API. Run again it changes nothing.
func demo(ctx context.Context, url, key string) error {
	api := replay.NewAPI(url, key, 1)
	var grants struct{ Data []struct{} }
	err := api.Call(ctx, http.MethodGet, "/v1/grants?customer="+demoCustomer, "", nil, &grants)
	var refused *replay.Problem
	switch {
	case err == nil && len(grants.Data) >= 3:
		return nil
	case err != nil && (!errors.As(err, &refused) || refused.Status != http.StatusNotFound):
		return err
	}
	post := func(path, key string, body, into any) error {
		doc, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("write request: %w", err)
		}
		if err := api.Call(ctx, http.MethodPost, path, key, doc, into); !errors.As(err, &refused) || refused.Code != "already_exists" && refused.Code != "request_mismatch" {
			return err
		}
		return nil // from a start that was interrupted; with other instants, if there are any in it
	}
	var wallet struct{ ID string }
	type object = map[string]any
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	for _, step := range []struct {
		name, path string
		body       object
		into       any
	}{
		{"entity", "/v1/legal_entities", object{"code": "main", "name": "Main entity", "currency": "USD"}, &struct{}{}},
		{"unit", "/v1/units", object{"code": "CREDIT", "scale": 6, "name": "Credit"}, &struct{}{}},
		{"card", "/v1/rate_cards", object{"code": "standard", "unit": "CREDIT", "default": true}, &struct{}{}},
		{"card-1", "/v1/rate_cards/standard/versions", object{"effective_at": in(-60 * 24 * time.Hour), "document": demoRates()}, &struct{}{}},
		{"customer", "/v1/customers", object{"external_id": demoCustomer, "name": "Demo customer", "legal_entity": "main"}, &struct{}{}},
		{"wallet", "/v1/wallets", object{"customer": demoCustomer, "name": "main", "unit": "CREDIT"}, &wallet},
	} {
		if err := post(step.path, "demo-"+step.name, step.body, step.into); err != nil {
			return fmt.Errorf("make the demo's %s: %w", step.name, err)
		}
	}
	for name, grant := range map[string]object{
		"purchased": {"type": "purchased", "amount": "10000", "price": object{"amount": "100.00", "tax": "8.00", "currency": "USD"},
			"payment_ref": "demo-payment-1", "expires_at": in(365 * 24 * time.Hour)},
		"promotional": {"type": "promotional", "amount": "500", "expires_at": in(30 * 24 * time.Hour), "metadata": object{"campaign": "welcome"}},
		"soon-expiring": {"type": "purchased", "amount": "100", "price": object{"amount": "1.00", "tax": "0.00", "currency": "USD"},
			"payment_ref": "demo-payment-2", "expires_at": in(15 * time.Minute), "priority": 200},
	} {
		grant["wallet"] = wallet.ID
		if err := post("/v1/grants", "demo-grant-"+name, grant, &struct{}{}); err != nil {
			return fmt.Errorf("make the demo's %s grant: %w", name, err)
		}
	}
	return nil
}

// demoRates prices tokens of a few models, in credits per million; a model that is not named costs what the last line says.
func demoRates() map[string]any {
	rates := []map[string]any{}
	add := func(id string, match map[string]any, price string) {
		rates = append(rates, map[string]any{"id": id, "meter": "llm_tokens", "match": match, "price": price, "per": "1000000"})
	}
	for _, m := range []struct{ model, input, output string }{{"large", "250", "1000"}, {"small", "15", "60"}} {
		add(m.model+"-input", map[string]any{"model": []string{m.model}, "token_type": []string{"input"}}, m.input)
		add(m.model+"-output", map[string]any{"model": []string{m.model}, "token_type": []string{"output"}}, m.output)
	}
	add("any", map[string]any{}, "500")
	return map[string]any{
		"meters": []map[string]any{{"code": "llm_tokens", "aggregation": "sum", "description": "Tokens read and written by a language model"}},
		"rates":  rates,
	}
}
