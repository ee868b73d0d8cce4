package worker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/workflows"
)

const day = 24 * time.Hour

// A purchased grant from payment to refund, as operators see it, on the real servers.
func TestAGrantsLife(t *testing.T) {
	s := newSite(t)
	s.run()
	c, wallet := s.Customer(t)
	g := s.grant(c, wallet, 60*day, purchased, func(o *balance.CreateGrant) { o.Pending = true })
	id := workflows.GrantWorkflowID(g)
	s.until("the workflow runs", func() bool { return s.running(id) })
	s.until("it waits for the payment", func() bool { return s.standing(g).State == credit.StatePending })

	s.Do(t, &balance.IssueGrant{Header: balance.Header{Customer: c}, Grant: g, PaymentRef: "pay_1"})
	s.until("it is active", func() bool { return s.standing(g).State == credit.StateActive })
	s.until("the purchase is booked", func() bool {
		return s.count("SELECT count(*) FROM journal_entries WHERE grant_id = $1 AND kind = 'purchase'", g[:]) == 1
	})

	// Operators find it by what it is about.
	s.until("it is found", func() bool {
		return slices.Equal(s.listed(`GrantCustomer = '%s' AND GrantWallet = '%s' AND GrantType = 'purchased' AND GrantState = 'active' AND GrantExpiresAt > '%s'`,
			c, wallet, time.Now().UTC().Format(time.RFC3339)), []string{id})
	})
	d, err := s.w.client.DescribeWorkflow(context.Background(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	if summary, err := d.GetStaticSummary(); err != nil || !strings.HasPrefix(summary, "1000 CRD, purchased for 100.00 USD, expires 20") {
		t.Errorf("summary %q, %v", summary, err)
	}
	if details, err := d.GetStaticDetails(); err != nil || !strings.Contains(details, g.String()) || !strings.Contains(details, c.String()) {
		t.Errorf("details %q, %v", details, err)
	}

	// Updates: refused by the validator before anything is written, refused by Postgres, accepted.
	before := len(s.history(id, "").Events)
	now := time.Now()
	_, err = s.update(g, workflows.UpdateExtend, "x1", workflows.Extend{Request: workflows.Request{Reason: "wrong"}, ExpiresAt: &now})
	wantRefusal(t, err, credit.InvalidRequest)
	if n := len(s.history(id, "").Events); n != before {
		t.Errorf("a refused update left %d events", n-before)
	}
	_, err = s.update(g, workflows.UpdateRefund, "x2", workflows.Refunding{Request: workflows.Request{Reason: "too much"}, Units: "1000.000001"})
	wantRefusal(t, err, credit.NotRefundable)
	later := now.Add(90 * day).UTC().Truncate(time.Microsecond)
	for range 2 { // the same update, sent twice, is one
		o, err := s.update(g, workflows.UpdateExtend, "x3", workflows.Extend{Request: workflows.Request{Reason: "goodwill"}, ExpiresAt: &later})
		if err != nil || o.ExpiresAt == nil || !o.ExpiresAt.Equal(later) {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	if v := s.View(t, g); !v.ExpiresAt.Equal(later) {
		t.Errorf("expires %s, want %s", v.ExpiresAt, later)
	}
	if o, err := s.update(g, workflows.UpdateFreeze, "x4", workflows.Request{Reason: "disputed"}); err != nil || o.State != credit.StateFrozen {
		t.Fatalf("%+v, %v", o, err)
	}
	if _, err := s.Service.Do(context.Background(), s.Consume(c, one)); credit.CodeOf(err) != credit.NotEntitled {
		t.Errorf("a frozen grant serves: %v", err)
	}
	if o, err := s.update(g, workflows.UpdateUnfreeze, "x5", workflows.Request{Reason: "won"}); err != nil || o.State != credit.StateActive {
		t.Fatalf("%+v, %v", o, err)
	}
	s.Do(t, s.Consume(c, 300*one))
	part, err := s.update(g, workflows.UpdateRefund, "x6", workflows.Refunding{Request: workflows.Request{Reason: "less needed"}, Units: "200"})
	if err != nil || part.RefundID == nil || part.State != credit.StateActive || !strings.Contains(part.Did, "20.00 USD") {
		t.Fatalf("%+v, %v", part, err)
	}
	details := s.details(id)
	for _, want := range []string{"**active**: 1000 CRD, purchased for 100.00 USD", "**Next**: ", "Created; its payment is awaited", "Paid", "booked",
		"goodwill", "disputed", "won", "less needed (by an operator)"} {
		if !strings.Contains(details, want) {
			t.Errorf("details %q do not tell %q", details, want)
		}
	}

	rest, err := s.update(g, workflows.UpdateRefund, "x7", workflows.Refunding{Request: workflows.Request{Reason: "leaving"}})
	if err != nil || rest.State != credit.StateRefunded {
		t.Fatalf("%+v, %v", rest, err)
	}
	var ended workflows.GrantResult
	s.ended(id, &ended)
	if ended.State != credit.StateRefunded {
		t.Errorf("ended %+v", ended)
	}
	for _, o := range []workflows.Outcome{part, rest} {
		var r workflows.RefundResult
		s.ended(workflows.RefundWorkflowID(*o.RefundID), &r)
		if r.Status != activities.Settled || r.Settlement.Method != activities.Manual {
			t.Errorf("refund ended %s", asJSON(r))
		}
	}
	// 700 of 1000 credits went back at 0.10 and 0.008 of tax each; 300 were used.
	if n := s.count(`SELECT coalesce(sum(CASE side WHEN 'cr' THEN amount_minor ELSE -amount_minor END), 0) FROM postings WHERE account = 2020`); n != 0 {
		t.Errorf("refund liability is %d, want 0", n)
	}
	if n := s.count(`SELECT sum(CASE side WHEN 'cr' THEN amount_minor ELSE -amount_minor END) FROM postings WHERE account = 1010`); n != 75_60 {
		t.Errorf("paid out %d, want 7560", n)
	}
	balancetest.MustConserve(t, s.World, c)
	if n := s.count("SELECT count(*) FROM outbox"); n != 0 {
		s.until("the outbox is empty", func() bool { return s.count("SELECT count(*) FROM outbox") == 0 })
	}
}

// A grant that is reminded of, expires and is booked while everything runs.
func TestReminderAndExpiry(t *testing.T) {
	s := newSite(t)
	s.run()
	c, wallet := s.Customer(t)
	reminded := s.grant(c, wallet, 30*day+3*time.Second)
	expiring := s.grant(c, wallet, 4*time.Second, purchased)
	s.Do(t, s.Consume(c, 250*one)) // of the one that expires sooner
	var r workflows.GrantResult
	s.ended(workflows.GrantWorkflowID(expiring), &r)
	if v := s.View(t, expiring); r.State != credit.StateExpired || v.Status != credit.StatusExpired || v.Expired != 750*one {
		t.Errorf("ended %+v, grant %+v", r, v)
	}
	s.until("the breakage is booked", func() bool {
		return s.count("SELECT count(*) FROM journal_entries WHERE grant_id = $1 AND kind = 'expiry'", expiring[:]) == 1
	})
	s.until("the customer is told", func() bool {
		return s.count(`SELECT count(*) FROM notifications WHERE customer_id = $1 AND type = 'grant.expiring' AND subject = $2
			AND cause LIKE 'grant/' || $2 || '/expiring/30d/%' AND data ->> 'days' = '30' AND data ->> 'available' = '1000' AND data ->> 'unit' = 'CRD'`, c[:], reminded.String()) == 1
	})
	if n := s.count("SELECT count(*) FROM notifications"); n != 1 {
		t.Errorf("%d notifications", n)
	}
	balancetest.MustConserve(t, s.World, c)
}

func wantRefusal(t *testing.T, err error, code credit.Code) {
	t.Helper()
	var e *temporal.ApplicationError
	if !errors.As(err, &e) || e.Type() != string(code) {
		t.Errorf("error %v, want a refusal %s", err, code)
	}
}
