package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/alert"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/webhook"
	"github.com/tallystick/tallystick/webhook/webhooktest"
)

// newAlertSite is a site without Temporal; its worker is not running.
func newAlertSite(t testing.TB, options func(*balancetest.Options)) *site {
	t.Helper()
	world := balancetest.New(t, options)
	s := &site{World: world, t: t, cfg: Config{Service: world.Service, Store: world.Store, Log: balancetest.Log(), Temporal: client.Options{HostPort: "127.0.0.1:1"},
		Timing: hurried, Webhooks: webhook.Allow{Private: true, HTTP: true}, Version: "test"}}
	var err error
	if s.w, err = newWorker(s.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.w.client.Close)
	return s
}

func noCache(o *balancetest.Options) { o.NoCache = true }

// rule makes an alert rule, and has the worker know it.
func (s *site) rule(r db.AlertRuleRow) db.AlertRuleRow {
	s.t.Helper()
	r.ID, r.Unit = credit.NewID[credit.AlertRuleID](), "CRD"
	if r.Name == "" {
		r.Name = string(r.Kind)
	}
	if r.Audience == "" {
		r.Audience = alert.Customer
	}
	if err := r.Check(); err != nil {
		s.t.Fatal(err)
	}
	_, _, err := s.Store.Change(context.Background(), db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		_, err := c.AddAlertRule(ctx, r)
		return db.Outcome{Status: 200, Answer: []byte("{}")}, err
	})
	if err == nil {
		_, err = s.w.alerts.refresh(context.Background())
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// said are the alerts of a customer, oldest first.
func (s *site) said(id credit.CustomerID) (all []alertDocument) {
	s.t.Helper()
	rows, err := s.Store.Pool.Query(context.Background(), "SELECT type, data -> 'alert' FROM events WHERE customer_id = $1 AND type LIKE 'alert.%' ORDER BY seq", [16]byte(id))
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var kind string
		var b []byte
		var d alertDocument
		if err := rows.Scan(&kind, &b); err != nil {
			s.t.Fatal(err)
		}
		if err := json.Unmarshal(b, &d); err != nil {
			s.t.Fatal(err)
		}
		want := map[bool]string{true: "fired", false: "recovered"}[d.On]
		if !strings.HasSuffix(kind, want) || strings.Contains(kind, "team") != (d.Audience == alert.Team) {
			s.t.Errorf("%s says %t for %s", kind, d.On, d.Audience)
		}
		all = append(all, d)
	}
	return all
}

// count the customer's operations and judge them.
func (s *site) judge(id credit.CustomerID) {
	s.t.Helper()
	if _, err := s.Store.CountUsage(context.Background(), id, s.w.usageSteps()...); err != nil {
		s.t.Fatal(err)
	}
}

// look has every rule's customers looked at now.
func (s *site) look() {
	s.t.Helper()
	s.exec("UPDATE alert_rules SET look_at = now() WHERE ended_at IS NULL")
	for more := true; more; {
		var err error
		if more, err = s.w.alerts.lookAround(context.Background()); err != nil {
			s.t.Fatal(err)
		}
	}
}

// However operations are cut into passes, an alert goes on and off at the very operations at which the balance, as the ledger has it, crosses.
func TestAlertsAtTheOperationThatCrosses(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		s := newAlertSite(t, noCache)
		rng := rand.New(rand.NewPCG(seed, 0))
		id, first := s.Customer(t)
		second := s.Wallet(t, id, func(w *balance.CreateWallet) { w.Wallet.Name = "second" })
		rules := []db.AlertRuleRow{
			s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.BalanceBelow, Amount: 100 * one, Hysteresis: 10}}),
			s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.BalanceBelow, Amount: 50 * one}, Customer: id, Wallet: first, Audience: alert.Team}),
			s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.ShareBelow, Percent: 30, Hysteresis: 20}, Customer: id}),
		}
		other, _ := s.Customer(t)
		s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.BalanceBelow, Amount: 1000 * one}, Customer: other}) // is about nobody here
		var grants []credit.GrantID
		for range 120 {
			switch n := rng.IntN(10); {
			case n < 1 || len(grants) == 0:
				grants = append(grants, s.Grant(t, id, []credit.WalletID{first, second}[rng.IntN(2)], credit.Amount(20+rng.Int64N(150))*one))
			default:
				c := s.Consume(id, credit.Amount(1+rng.Int64N(30))*one)
				c.Partial = true
				_, _ = s.Service.Do(context.Background(), c) // there may be nothing
			}
			if rng.IntN(4) == 0 {
				s.judge(id)
			}
		}
		s.judge(id)
		s.judge(id) // once more changes nothing

		// The same from the ledger alone.
		head := s.count("SELECT ver FROM customer_heads WHERE customer_id = $1", [16]byte(id))
		on := make(map[credit.AlertRuleID]bool)
		var want []string
		for ver := 1; ver <= head; ver++ {
			for _, r := range rules {
				f, grants := s.ledgerAt(id, r.Wallet, ver)
				if grants == 0 {
					continue
				}
				if is := r.Judge(on[r.ID], f); is != on[r.ID] {
					on[r.ID] = is
					want = append(want, fmt.Sprint(ver, r.Kind, r.Wallet, is))
				}
			}
		}
		var got []string
		for _, d := range s.said(id) {
			if d.Ver == nil || d.Message == "" {
				t.Fatalf("%+v", d)
			}
			var wallet credit.WalletID
			if d.WalletID != nil {
				wallet = *d.WalletID
			}
			got = append(got, fmt.Sprint(*d.Ver, d.Kind, wallet, d.On))
		}
		if !slices.Equal(got, want) || len(want) < 3 {
			t.Fatalf("seed %d:\n%v\nwant\n%v", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// ledgerAt sums what the ledger says was available after a version, and how many grants there had been.
func (s *site) ledgerAt(id credit.CustomerID, wallet credit.WalletID, ver int) (f alert.Figures, grants int) {
	s.t.Helper()
	const q = `SELECT coalesce(sum(m.after), 0)::bigint, coalesce(sum(g.amount) FILTER (WHERE m.after > 0), 0)::bigint, count(*)
		FROM grants AS g CROSS JOIN LATERAL (SELECT x.after FROM movements AS x WHERE x.grant_id = g.id AND x.ver <= $2 ORDER BY x.ver DESC, x.n DESC LIMIT 1) AS m
		WHERE g.customer_id = $1 AND (g.wallet_id = $3 OR $4)`
	err := s.Store.Pool.QueryRow(context.Background(), q, [16]byte(id), ver, [16]byte(wallet), wallet.IsZero()).Scan((*int64)(&f.Available), (*int64)(&f.Granted), &grants)
	if err != nil {
		s.t.Fatal(err)
	}
	return f, grants
}

// What freezes, and lets go of, credits turns alerts too, and so does overage; a rule that is true when it is made fires at the first look, and one
// that has ended says nothing more.
func TestAlertsOfOtherOperations(t *testing.T) {
	t.Parallel()
	s := newAlertSite(t, noCache)
	id, wallet := s.Customer(t)
	never, _ := s.Customer(t)
	grant := s.Grant(t, id, wallet, 100*one)
	s.judge(id)
	low := s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.BalanceBelow, Amount: 50 * one}})
	header := func() balance.Header { return balance.Header{Customer: id, Key: s.Key()} }
	expect := func(what string, n int, on bool) {
		t.Helper()
		said := s.said(id)
		if len(said) != n || said[n-1].On != on {
			t.Fatalf("%s: %+v", what, said)
		}
	}
	s.Do(t, &balance.FreezeGrant{Header: header(), Grant: grant, Reason: "test"})
	s.judge(id)
	expect("frozen", 1, true)
	s.Do(t, &balance.FreezeGrant{Header: header(), Grant: grant, Thaw: true, Reason: "test"})
	s.judge(id)
	expect("unfrozen", 2, false)

	already := s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.BalanceBelow, Amount: 200 * one}})
	s.look()
	expect("already true", 3, true)
	s.look()
	s.judge(id)
	expect("looked at again", 3, true)
	if d := s.said(id)[2]; d.Ver != nil || d.RuleID != already.ID || *d.Available != "100" {
		t.Errorf("%+v", d)
	}
	if said := s.said(never); len(said) != 0 {
		t.Errorf("a customer that never had credits: %+v", said)
	}
	s.catalog(func(ctx context.Context, c *db.Catalog) error {
		_, err := c.EndAlertRule(ctx, low.ID)
		return err
	})
	s.Do(t, s.Consume(id, 60*one)) // the worker has not heard yet that the rule has ended
	s.judge(id)
	expect("ended", 3, true)
	if n := s.count("SELECT count(*) FROM alerts WHERE rule_id = $1", [16]byte(low.ID)); n != 0 {
		t.Error("the alert of a rule that has ended is on")
	}

	soft := s.Wallet(t, id, func(w *balance.CreateWallet) {
		w.Wallet.Name, w.Wallet.SoftCap, w.OverageLimit, w.OveragePrice = "soft", true, 1000*one, 1000
	})
	s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.OverageStarted}, Customer: id, Wallet: soft, Audience: alert.Team})
	s.Do(t, s.Consume(id, 40*one))
	s.judge(id)
	expect("nothing beyond the credits", 3, true)
	s.Do(t, s.Consume(id, 5*one))
	s.judge(id)
	expect("overage", 4, true)
	if d := s.said(id)[3]; d.Kind != alert.OverageStarted || *d.Overage != "5" {
		t.Errorf("%+v", d)
	}
}

// What time brings about is found by looking: credits that are about to expire, a spend that is over, an hour that is unlike others.
func TestAlertsOfTime(t *testing.T) {
	t.Parallel()
	s := newAlertSite(t, noCache)
	id, wallet := s.Customer(t)
	s.Grant(t, id, wallet, 500*one, func(g *balance.CreateGrant) { g.Grant.ExpiresAt = time.Now().Add(20 * time.Hour) })
	s.Grant(t, id, wallet, 5000*one)
	s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.ExpiringWithin, Amount: 100 * one, Within: 24 * time.Hour}})
	s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.ExpiringWithin, Amount: 100 * one, Within: 12 * time.Hour}})
	s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.SpendAbove, Amount: 250 * one, Within: 2 * time.Hour, Hysteresis: 10}})
	s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.UnusualBurn, Amount: 50 * one, Percent: 300}})
	last := func(n int) alertDocument {
		t.Helper()
		said := s.said(id)
		if len(said) != n {
			t.Fatalf("%d alerts: %+v", len(said), said)
		}
		return said[n-1]
	}
	s.judge(id)
	s.look()
	if d := last(1); !d.On || d.Kind != alert.ExpiringWithin || *d.Expiring != "500" || *d.WithinSeconds != 86400 {
		t.Errorf("%+v", d)
	}
	s.Do(t, s.Consume(id, 251*one))
	s.judge(id)
	if d := last(2); !d.On || d.Kind != alert.SpendAbove || *d.Spent != "251" || d.Ver == nil {
		t.Errorf("%+v", d)
	}
	s.look()
	last(2) // there is no week to compare with
	s.exec("INSERT INTO usage_hours (customer_id, unit, wallet_id, hour, consumed, overage, operations) VALUES ($1, 'CRD', $2, date_trunc('hour', now(), 'UTC') - interval '3 days', $3, 0, 1)",
		[16]byte(id), [16]byte(wallet), int64(168*80*one))
	s.look()
	if d := last(3); !d.On || d.Kind != alert.UnusualBurn || *d.LastHour != "251" || *d.UsualHour != "80" {
		t.Errorf("%+v", d)
	}
	// Three hours later, as far as the slices can tell.
	s.exec("UPDATE usage_hours SET hour = hour - interval '3 hours'")
	s.look()
	over := map[alert.Kind]bool{}
	last(5)
	for _, d := range s.said(id)[3:] {
		over[d.Kind] = !d.On && d.Ver == nil
	}
	if !over[alert.SpendAbove] || !over[alert.UnusualBurn] {
		t.Errorf("%v", over)
	}
	s.Do(t, s.Consume(id, 249*one)) // of what expires
	s.judge(id)
	s.look()
	last(7) // and that was unusual again
	if d := s.said(id)[5]; d.On || d.Kind != alert.ExpiringWithin {
		t.Errorf("%+v", d)
	}
}

// Credits that end soon at the present burn are told of while they are still there.
func TestAlertsOfDepletion(t *testing.T) {
	t.Parallel()
	s := newAlertSite(t, noCache)
	id, wallet := s.Customer(t)
	s.Grant(t, id, wallet, 1000*one)
	s.Do(t, s.Consume(id, one))
	s.rule(db.AlertRuleRow{Rule: alert.Rule{Kind: alert.DepletionWithin, Within: 7 * 24 * time.Hour}})
	s.judge(id)
	s.look()
	if said := s.said(id); len(said) != 0 {
		t.Fatalf("%+v", said)
	}
	// Two weeks of 10 credits an hour: 999 last for about 100 hours.
	s.exec(`INSERT INTO usage_hours (customer_id, unit, wallet_id, hour, consumed, overage, operations)
		SELECT $1, 'CRD', $2, date_trunc('hour', now(), 'UTC') - h * interval '1 hour', $3, 0, 1 FROM generate_series(1, 336) AS h`, [16]byte(id), [16]byte(wallet), int64(10*one))
	s.look()
	said := s.said(id)
	if len(said) != 1 || said[0].DepletionAt == nil || *said[0].Available != "999" {
		t.Fatalf("%+v", said)
	}
	if left := time.Until(time.Time(*said[0].DepletionAt)); left < 80*time.Hour || left > 120*time.Hour {
		t.Errorf("the credits end in %s", left)
	}
	s.Grant(t, id, wallet, 2000*one)
	s.judge(id)
	s.look()
	if said := s.said(id); len(said) != 2 || said[1].On {
		t.Fatalf("%+v", said)
	}
}

// A consumption crosses a threshold: an endpoint and a mail address are told, once, by two workers that run.
func TestAlertsAreDelivered(t *testing.T) {
	t.Parallel()
	server := &webhooktest.MailServer{}
	s := newAlertSite(t, func(*balancetest.Options) {})
	s.cfg.Mail = server.Serve(t, "none")
	hooks := webhooktest.New(t, func(webhook.Message) int { return 204 })
	s.endpoint(hooks, func(e *db.EndpointRow) { e.URL, e.Types = "mailto:team@example.com", []string{"alert.team.fired"} })
	s.endpoint(hooks, func(e *db.EndpointRow) { e.Types = []string{"alert.fired", "alert.recovered"} })
	id, wallet := s.Customer(t)
	s.Grant(t, id, wallet, 100*one)
	s.rule(db.AlertRuleRow{Name: "Nearly empty", Rule: alert.Rule{Kind: alert.BalanceBelow, Amount: 30 * one, Hysteresis: 10}})
	s.rule(db.AlertRuleRow{Name: "Look at Acme", Rule: alert.Rule{Kind: alert.BalanceBelow, Amount: 20 * one}, Audience: alert.Team})
	s.run()
	s.run()
	for range 85 {
		s.Do(t, s.Consume(id, one))
	}
	s.Grant(t, id, wallet, 100*one)
	s.until("both are told", func() bool { return len(hooks.Accepted(id.String())) >= 2 && len(server.Taken()) >= 1 })
	var types []string
	for _, m := range hooks.Accepted(id.String()) {
		types = append(types, m.Type)
	}
	if !slices.Equal(types, []string{"alert.fired", "alert.recovered"}) {
		t.Error(types)
	}
	if l := server.Taken(); len(l) != 1 || l[0].To != "team@example.com" || !strings.Contains(string(l[0].Body), "Look at Acme") {
		t.Errorf("%+v", l)
	}
	if said := s.said(id); len(said) != 4 || *said[0].Available != "29" {
		t.Errorf("%+v", said)
	}
}
