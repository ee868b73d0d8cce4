package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// demoCustomer is the external id of the customer that "dev" makes, so that there is something to look at.
const demoCustomer = "demo"

// demo fills a new deployment through its own API. Run again it changes nothing.
func demo(ctx context.Context, url, key string) error {
	c := apiClient{url: url, key: key}
	err := c.call(ctx, http.MethodGet, "/v1/customers/"+demoCustomer, "", nil, nil)
	var refused *refusedCall
	if err == nil || !errors.As(err, &refused) || refused.status != http.StatusNotFound {
		return err
	}
	var wallet struct{ ID string }
	type object = map[string]any
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	for _, step := range []struct {
		name, path string
		body       object
		into       any
	}{
		{"entity", "/v1/legal_entities", object{"code": "main", "name": "Main entity", "currency": "USD"}, nil},
		{"unit", "/v1/units", object{"code": "CREDIT", "scale": 6, "name": "Credit"}, nil},
		{"card", "/v1/rate_cards", object{"code": "standard", "unit": "CREDIT", "default": true}, nil},
		{"card-1", "/v1/rate_cards/standard/versions", object{"effective_at": in(-60 * 24 * time.Hour), "document": demoRates()}, nil},
		{"customer", "/v1/customers", object{"external_id": demoCustomer, "name": "Demo customer", "legal_entity": "main"}, nil},
		{"wallet", "/v1/wallets", object{"customer": demoCustomer, "name": "main", "unit": "CREDIT"}, &wallet},
	} {
		if err := c.call(ctx, http.MethodPost, step.path, "demo-"+step.name, step.body, step.into); err != nil && !alreadyThere(err) {
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
		if err := c.call(ctx, http.MethodPost, "/v1/grants", "demo-grant-"+name, grant, nil); err != nil {
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

// apiClient calls the API.
type apiClient struct{ url, key string }

// refusedCall is an answer other than 2xx.
type refusedCall struct {
	status int
	code   string
	detail string
}

func (e *refusedCall) Error() string { return fmt.Sprintf("%d %s: %s", e.status, e.code, e.detail) }

func alreadyThere(err error) bool {
	var refused *refusedCall
	return errors.As(err, &refused) && refused.code == "already_exists"
}

// call makes one call and reads its answer into out; body and out may be nil, and the idempotency key empty for a read.
func (c apiClient) call(ctx context.Context, method, path, idempotencyKey string, body, out any) error {
	var payload io.Reader
	if body != nil {
		doc, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("write request: %w", err)
		}
		payload = bytes.NewReader(doc)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, payload)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", idempotencyKey)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("call %s %s: %w", method, path, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<22))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if res.StatusCode/100 != 2 {
		var problem struct{ Code, Detail string }
		if err := json.Unmarshal(answer, &problem); err != nil {
			return &refusedCall{res.StatusCode, "", string(answer)}
		}
		return &refusedCall{res.StatusCode, problem.Code, problem.Detail}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	return nil
}
