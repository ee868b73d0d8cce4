package api

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

func (w *world) burnOf(t testing.TB, path string) (d burnDocument) {
	t.Helper()
	if err := json.Unmarshal(w.send(t, request{role: "support", method: "GET", path: path}).want(t, 200).body, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBurn(t *testing.T) {
	w := newWorld(t)
	if d := w.burnOf(t, "/v1/customers/acme/burn"); len(d.Units) != 1 || d.Units[0].Forecast.DepletedAt != nil || d.Units[0].Rates[3].Consumed != "0" {
		t.Errorf("of one who did nothing: %+v", d)
	}
	w.admin(t, "POST", "/v1/customers/acme/members", object{"name": "Ann", "external_id": "ann"}).want(t, 201)
	soon := time.Now().Add(100 * time.Hour).UTC().Format(time.RFC3339)
	w.grant(t, "1000", object{"expires_at": soon})
	w.grant(t, "100", nil)
	consume := func(body object) {
		t.Helper()
		body["customer"], body["unit"] = "acme", "CRD"
		w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(), body: body}).want(t, 200)
	}
	consume(object{"amount": "6", "member": "ann", "dimensions": object{"model": "large"}})
	consume(object{"amount": "4", "dimensions": object{"model": "large"}})
	consume(object{"amount": "2", "dimensions": object{"model": "small"}})
	consume(object{"amount": "0.5", "timestamp": time.Now().Add(-48 * time.Hour).UTC().Format(time.RFC3339)})
	d := w.burnOf(t, "/v1/customers/acme/burn")
	if d.LagMS <= 0 || d.Units[0].Rates[0].Consumed != "0" || d.Units[0].Forecast.Available != "1087.5" {
		t.Errorf("before anything is counted: %+v", d)
	}
	customer := d.CustomerID
	if _, err := w.Store.CountUsage(context.Background(), customer); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{ // consumed in 24 hours and in 7 days
		"/v1/customers/acme/burn":                              {"12", "12.5"},
		"/v1/customers/acme/burn?member=ann":                   {"6", "6"},
		"/v1/customers/acme/burn?model=large":                  {"10", "10"},
		"/v1/customers/acme/burn?model=small&member=ann":       {"0", "0"},
		"/v1/wallets/" + w.wallet + "/burn":                    {"12", "12.5"},
		"/v1/wallets/" + w.wallet + "/burn?model=small":        {"2", "2"},
		"/v1/wallets/" + w.wallet + "/burn?member=ann":         {"6", "6"},
		"/v1/wallets/" + w.wallet + "/burn?member=ann&model=x": {"0", "0"},
	} {
		d := w.burnOf(t, path)
		if d.LagMS != 0 || len(d.Units) != 1 || d.Units[0].Rates[1].Consumed != want[0] || d.Units[0].Rates[2].Consumed != want[1] {
			t.Errorf("%s: %+v, want %v", path, d, want)
		}
		if whole := d.MemberID == nil && d.Model == ""; whole != (d.Units[0].Forecast != nil) {
			t.Errorf("%s: forecast %+v", path, d.Units[0].Forecast)
		}
	}
	// An hour of ten and two days without: next to nothing, and most of the grant that expires in a hundred hours will not be used.
	f := w.burnOf(t, "/v1/customers/acme/burn").Units[0].Forecast
	if f.Available != "1087.5" || len(f.Expiring) != 1 || f.Expiring[0].Unused != f.Unused || f.Expiring[0].Available != "987.5" {
		t.Errorf("%+v", f)
	}
	w.admin(t, "GET", "/v1/customers/acme/burn?member=bob", nil).problem(t, 404, credit.MemberNotFound)
	w.admin(t, "GET", "/v1/customers/nobody/burn", nil).problem(t, 404, credit.CustomerNotFound)
	w.admin(t, "GET", "/v1/wallets/"+credit.NewID[credit.WalletID]().String()+"/burn", nil).problem(t, 404, credit.WalletNotFound)
	w.admin(t, "GET", "/v1/customers/acme/burn?window=1h", nil).problem(t, 400, credit.InvalidRequest)
}

func TestBurnRates(t *testing.T) {
	t.Parallel()
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 3, day, hour, minute, 0, 0, time.UTC) }
	used := []db.UsageHour{{Hour: at(10, 13, 0), Consumed: 9999}, {Hour: at(10, 14, 0), Consumed: 400}, {Hour: at(11, 13, 0), Consumed: 80}, {Hour: at(11, 14, 0), Consumed: 30},
		{Hour: at(11, 15, 0), Consumed: 7}}
	// At 14:15, an hour reaches back to 13:15, of which three quarters count, and a day to 14:15 of the day before.
	want := []burnRate{{"1h", "90", "90"}, {"24h", "410", "17"}, {"7d", "10509", "63"}, {"30d", "10509", "15"}}
	for i, got := range burnRates(used, at(11, 14, 15), 0) {
		if got != want[i] {
			t.Errorf("%+v, want %+v", got, want[i])
		}
	}
}

// A customer that uses 10 an hour around the clock, with 300 that expire in 20 hours, 50 for ever, and 1000 that become effective in 100 hours.
func TestProjectBurn(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 11, 14, 30, 0, 0, time.UTC)
	var used []db.UsageHour
	for h := now.Truncate(time.Hour).Add(-672 * time.Hour); !h.After(now); h = h.Add(time.Hour) {
		used = append(used, db.UsageHour{Hour: h, Consumed: 10})
	}
	wallet := &credit.Wallet{ID: credit.NewID[credit.WalletID](), Unit: "CRD"}
	grant := func(n credit.Amount, from, until time.Duration) *credit.Grant {
		g := &credit.Grant{ID: credit.NewID[credit.GrantID](), Wallet: wallet, Status: credit.StatusOpen, Amount: n, Available: n, EffectiveAt: now.Add(from)}
		if until != 0 {
			g.ExpiresAt = now.Add(until)
		}
		return g
	}
	grants := []*credit.Grant{grant(50, -time.Hour, 0), grant(1000, 100*time.Hour, 0), grant(300, -time.Hour, 20*time.Hour), grant(77, -2*time.Hour, -time.Hour)}
	overage := grant(5, -time.Hour, 0)
	overage.Type = credit.Overage
	frozen := grant(5, -time.Hour, 0)
	frozen.Frozen = true
	f := projectBurn(used, append(grants, overage, frozen), credit.WalletID{}, credit.Unit{Code: "CRD"}, now, now)
	if f.Available != "1350" || f.PerHour != "10" || f.Unused != "100" || len(f.Expiring) != 1 || *f.DepletedAt != instantText(now.Add(25*time.Hour)) || f.Observed == 0 {
		t.Errorf("%+v, depleted at %v", f, *f.DepletedAt)
	}
	if _, other := balance.Forecast(used, grants, credit.NewID[credit.WalletID](), "CRD", now, now); len(other) != 0 {
		t.Errorf("%v", other)
	}
}

// BenchmarkBurn answers over slices of 10,000,000 events: eight weeks of a customer with 20 members and 10 models.
func BenchmarkBurn(b *testing.B) {
	w := newWorld(b)
	ctx := context.Background()
	exec := func(sql string, args ...any) {
		b.Helper()
		if _, err := w.Store.Pool.Exec(ctx, sql, args...); err != nil {
			b.Fatal(err)
		}
	}
	w.admin(b, "POST", "/v1/customers/acme/members", object{"name": "Ann", "external_id": "ann"}).want(b, 201)
	w.grant(b, "1000000", nil)
	d := w.burnOf(b, "/v1/customers/acme/burn")
	wallet, err := credit.ParseID[credit.WalletID](w.wallet)
	if err != nil {
		b.Fatal(err)
	}
	ann, err := w.Store.MemberID(ctx, d.CustomerID, credit.MemberID{}, "ann")
	if err != nil {
		b.Fatal(err)
	}
	exec(`INSERT INTO usage_slices (customer_id, hour, unit, wallet_id, member_id, product, model, cost_currency, consumed, overage, operations, cost)
		SELECT $1, date_trunc('hour', now(), 'UTC') - h * interval '1 hour', 'CRD', $2, CASE m WHEN 0 THEN $3 ELSE md5(m::text)::uuid END, 'chat', 'model-' || l, 'USD',
		1000000 + 1000 * ((h * 7 + m * 3 + l) % 100), 0, 38, 0.01
		FROM generate_series(0, 1343) AS h, generate_series(0, 19) AS m, generate_series(0, 9) AS l`, d.CustomerID[:], wallet[:], ann[:])
	exec(`INSERT INTO usage_hours (customer_id, hour, unit, wallet_id, consumed, overage, operations)
		SELECT customer_id, hour, unit, wallet_id, sum(consumed), sum(overage), sum(operations) FROM usage_slices GROUP BY 1, 2, 3, 4`)
	exec("ANALYZE usage_slices")
	var events int64
	if err := w.Store.Pool.QueryRow(ctx, "SELECT sum(operations) FROM usage_hours").Scan(&events); err != nil || events < 10_000_000 {
		b.Fatal(events, err)
	}
	e := echo.New()
	for _, rt := range w.server.routes {
		e.Add(rt.Method, rt.Path, w.server.adapt(rt))
	}
	for name, path := range map[string]string{"customer": "/v1/customers/acme/burn", "wallet": "/v1/wallets/" + w.wallet + "/burn", "member": "/v1/customers/acme/burn?member=ann",
		"model": "/v1/customers/acme/burn?model=model-3"} {
		b.Run(name, func(b *testing.B) {
			req := httptest.NewRequest("GET", path, nil)
			req.Header.Set("Authorization", "Bearer "+w.secret["support"])
			for b.Loop() {
				out := httptest.NewRecorder()
				e.ServeHTTP(out, req)
				if out.Code != 200 {
					b.Fatal(out.Body)
				}
			}
			b.ReportMetric(float64(events), "events")
		})
	}
}
