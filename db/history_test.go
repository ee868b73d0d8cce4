package db_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

// TestAuditPagesAcrossYears spreads changes over years and seconds: pages of any size are the whole, in order, each change once.
func TestAuditPagesAcrossYears(t *testing.T) {
	s := dbtest.Open(t)
	ctx := context.Background()
	random := rand.New(rand.NewPCG(1, 1))
	now := time.Now().UTC().Truncate(time.Microsecond)
	const n = 300
	if _, err := s.Pool.Exec(ctx, "INSERT INTO legal_entities (code, name, currency, created_at) VALUES ('main', 'Main', 'USD', $1)", now.Add(-4*365*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		ago := time.Duration(random.Int64N(int64(3 * 365 * 24 * time.Hour)))
		if i%2 == 0 {
			ago = time.Duration(random.IntN(20)) * time.Second // many at one instant
		}
		var err error
		if at := now.Add(-ago); i%3 == 0 {
			_, err = s.Pool.Exec(ctx, "INSERT INTO audit_log (at, actor, request_id, action, subject) VALUES ($1, $2, gen_random_uuid(), 'a', 's')", at, i%5)
		} else {
			_, err = s.Pool.Exec(ctx, `INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, key, receipt)
				VALUES ($1, $2, 'configure', 0, $3, $3, $4, gen_random_uuid(), 'k', '{}')`, [16]byte{byte(i % 7), 1}, i+1, at, i%5)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	whole, err := s.AuditPage(ctx, db.AuditFilter{}, db.AuditPosition{}, 2*n)
	if err != nil || len(whole) != n {
		t.Fatalf("%d of %d changes: %v", len(whole), n, err)
	}
	for i := 1; i < n; i++ {
		if whole[i].At.After(whole[i-1].At) {
			t.Fatalf("%s comes after %s", whole[i].At, whole[i-1].At)
		}
	}
	for _, size := range []int{1, 7, 50} {
		var pages []db.AuditRow
		for position := (db.AuditPosition{}); ; position = pages[len(pages)-1].AuditPosition {
			page, err := s.AuditPage(ctx, db.AuditFilter{}, position, size)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			pages = append(pages, page...)
		}
		if fmt.Sprint(pages) != fmt.Sprint(whole) {
			t.Fatalf("pages of %d are not the whole: %d changes", size, len(pages))
		}
	}
	actor := int32(3)
	some, err := s.AuditPage(ctx, db.AuditFilter{Actor: &actor, From: now.Add(-5 * time.Second), Until: now.Add(-2 * time.Second)}, db.AuditPosition{}, 2*n)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, r := range whole {
		if r.Actor == actor && !r.At.Before(now.Add(-5*time.Second)) && r.At.Before(now.Add(-2*time.Second)) {
			want++
		}
	}
	if len(some) != want || want == 0 {
		t.Errorf("%d changes pass the filter, not %d", len(some), want)
	}
}

// TestBalanceAtFindsTheVersion holds the search in SQL against a walk over the versions, with many versions at one instant.
func TestBalanceAtFindsTheVersion(t *testing.T) {
	s := dbtest.Open(t)
	ctx := context.Background()
	customer := newCustomer(t, s)
	random := rand.New(rand.NewPCG(2, 2))
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var ats []time.Time
	check := func() {
		t.Helper()
		for probe := at.Add(-time.Hour); probe.Before(at.Add(time.Hour)); probe = probe.Add(7 * time.Minute) {
			want := int64(0)
			for i, a := range ats {
				if !a.After(probe) {
					want = int64(i + 1)
				}
			}
			if got, _, err := s.BalanceAt(ctx, db.Scope{Customer: customer}, probe); err != nil || got != want {
				t.Fatalf("of %d versions, %d is in force at %s, not %d; %v", len(ats), got, probe, want, err)
			}
		}
	}
	check()
	for ver := range 40 {
		at = at.Add(time.Duration(random.IntN(3)) * 5 * time.Minute)
		ats = append(ats, at)
		if _, err := s.Pool.Exec(ctx, `INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, key, receipt)
			VALUES ($1, $2, 'configure', 0, $3, $3, 0, gen_random_uuid(), 'k', '{}')`, [16]byte(customer), ver+1, at); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Pool.Exec(ctx, "UPDATE customer_heads SET ver = $2 WHERE customer_id = $1", [16]byte(customer), ver+1); err != nil {
			t.Fatal(err)
		}
		check()
	}
	if _, _, err := s.BalanceAt(ctx, db.Scope{Customer: credit.NewID[credit.CustomerID]()}, at); credit.CodeOf(err) != credit.CustomerNotFound {
		t.Errorf("a customer that is not there: %v", err)
	}
}

func newCustomer(t *testing.T, s *db.Store) credit.CustomerID {
	t.Helper()
	id := credit.NewID[credit.CustomerID]()
	_, _, err := s.Change(context.Background(), db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		if _, err := c.AddEntity(ctx, db.EntityRow{Code: "main", Name: "Main", Currency: "USD", TimeZone: "UTC"}); err != nil {
			return db.Outcome{}, err
		}
		_, err := c.AddCustomer(ctx, db.CustomerRow{ID: id, Entity: "main", Name: "Customer"})
		return db.Outcome{Status: 201}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestChange is about changes that are no operations: each happens once for its key, with its audit row, or not at all.
func TestChange(t *testing.T) {
	s := dbtest.Open(t)
	ctx := context.Background()
	unit := func(code string) func(context.Context, *db.Catalog) (db.Outcome, error) {
		return func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
			u, err := c.AddUnit(ctx, credit.Unit{Code: code, Scale: 2, Name: "Unit"})
			return db.Outcome{Status: 201, Answer: []byte(`{"code":"` + u.Code + `"}`), Subject: code, Detail: map[string]int{"scale": 2}}, err
		}
	}
	a := db.Audited{Key: "k", Request: db.Digest{1}, Actor: 7, RequestID: credit.NewID[credit.RequestID](), Action: "create_unit"}
	first, replayed, err := s.Change(ctx, a, unit("A"))
	if err != nil || replayed || first.Status != 201 {
		t.Fatalf("%+v, %v, %v", first, replayed, err)
	}
	again, replayed, err := s.Change(ctx, a, unit("A"))
	if err != nil || !replayed || again.Status != 201 || string(again.Answer) != string(first.Answer) {
		t.Errorf("%+v, %v, %v", again, replayed, err)
	}
	other := a
	other.Request = db.Digest{2}
	if _, _, err := s.Change(ctx, other, unit("B")); credit.CodeOf(err) != credit.RequestMismatch {
		t.Errorf("another request with the key: %v", err)
	}
	// A refusal, a fault and a panic leave nothing behind, and the key stays free.
	taken := db.Audited{Key: "k2", Action: "create_unit"}
	if _, _, err := s.Change(ctx, taken, unit("A")); credit.CodeOf(err) != credit.AlreadyExists {
		t.Errorf("a code that is taken: %v", err)
	}
	fault := errors.New("fault")
	if _, _, err := s.Change(ctx, taken, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		_, err := unit("C")(ctx, c)
		return db.Outcome{}, errors.Join(err, fault)
	}); !errors.Is(err, fault) {
		t.Errorf("a fault: %v", err)
	}
	if _, _, err := s.Change(ctx, taken, unit("C")); err != nil {
		t.Errorf("the key was not free: %v", err)
	}
	var rows, keys int
	if err := s.Pool.QueryRow(ctx, "SELECT (SELECT count(*) FROM audit_log), (SELECT count(*) FROM idempotency_keys)").Scan(&rows, &keys); err != nil || rows != 2 || keys != 2 {
		t.Errorf("%d audit rows and %d keys; %v", rows, keys, err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	fresh := 0
	for range 10 {
		all.Go(func() {
			_, replayed, err := s.Change(ctx, db.Audited{Key: "k3", Action: "create_unit"}, unit("D"))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if !replayed {
				fresh++
			}
		})
	}
	all.Wait()
	if fresh != 1 {
		t.Errorf("%d of 10 were the first", fresh)
	}
}
