package worker

import (
	"context"
	"testing"
	"time"

	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

// TestTheAuditFreezesWhatDoesNotAgree plants breaks behind the product's back. Only the customers concerned are frozen, and nothing moves
// for them until somebody lets them go.
func TestTheAuditFreezesWhatDoesNotAgree(t *testing.T) {
	site := balancetest.New(t)
	ctx := context.Background()
	w := &worker{log: balancetest.Log(), store: site.Store, service: site.Service, metrics: newMetrics(nil)}
	audit := func() {
		t.Helper()
		if _, err := w.audit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	breaks := map[string]string{
		"counter":  "UPDATE grants SET avail = avail - 1, consumed = consumed + 1 WHERE customer_id = $1",
		"movement": "UPDATE movements SET after = after + 1 WHERE ver = 3 AND grant_id IN (SELECT id FROM grants WHERE customer_id = $1)",
		"gap":      "DELETE FROM operations WHERE ver = 3 AND customer_id = $1",
		"head":     "UPDATE customer_heads SET ver = ver + 1 WHERE customer_id = $1",
		"nothing":  "SELECT $1::uuid",
	}
	customers := make(map[string]credit.CustomerID)
	for name := range breaks {
		id, wallet := site.Customer(t)
		site.Grant(t, id, wallet, 100)
		for range 4 {
			site.Do(t, site.Consume(id, 1))
		}
		customers[name] = id
	}
	audit()
	if broken, err := site.Store.FindBroken(ctx, time.Now().Add(-time.Hour)); err != nil || len(broken) > 0 {
		t.Fatalf("sound books are called broken: %v, %v", broken, err)
	}
	owner := dbtest.Owner(t, site.Store)
	for name, sql := range breaks {
		if _, err := owner.Exec(ctx, "SET session_replication_role = replica"); err != nil {
			t.Fatal(err)
		}
		if _, err := owner.Exec(ctx, sql, [16]byte(customers[name])); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	audit()
	for name, id := range customers {
		_, err := site.Service.Do(ctx, site.Consume(id, 1))
		if frozen := credit.CodeOf(err) == credit.CustomerFrozen; frozen != (name != "nothing") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err := site.Store.Change(ctx, db.Audited{Action: "test", RequestID: credit.NewID[credit.RequestID]()}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		return db.Outcome{Status: 200, Answer: []byte("{}")}, c.Unfreeze(ctx, customers["movement"])
	})
	if err != nil {
		t.Fatal(err)
	}
	site.Do(t, site.Consume(customers["movement"], 1))
}
