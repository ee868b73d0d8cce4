package db_test

import (
	"context"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

// A process that freezes with a customer's event head in its hands loses it within about a second: lanes wait for that row.
func TestAFrozenWriterLosesItsEventHead(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	endpoint := credit.NewID[credit.EndpointID]()
	change := func(do func(context.Context, *db.Catalog) error) error {
		_, _, err := s.Change(ctx, db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
			return db.Outcome{Status: 200, Answer: []byte("{}")}, do(ctx, c)
		})
		return err
	}
	if err := change(func(ctx context.Context, c *db.Catalog) error {
		_, err := c.AddEndpoint(ctx, db.EndpointRow{ID: endpoint, URL: "https://example.com"}, make([]byte, 32))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	describe := func(db.EndpointRow) any { return "it" }
	holds, thaw, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- change(func(ctx context.Context, c *db.Catalog) error {
			_, err := c.TestEndpoint(ctx, endpoint, describe)
			close(holds)
			<-thaw
			return err
		})
	}()
	<-holds
	write := func() error {
		return change(func(ctx context.Context, c *db.Catalog) error {
			_, err := c.TestEndpoint(ctx, endpoint, describe)
			return err
		})
	}
	err := write()
	for deadline := time.Now().Add(20 * time.Second); err != nil; err = write() {
		if time.Now().After(deadline) {
			t.Fatalf("the frozen writer keeps its lock: %v", err)
		}
	}
	close(thaw)
	if err := <-ended; err == nil {
		t.Error("the frozen writer has committed")
	}
	events, err := s.EventsAfter(ctx, credit.CustomerID{}, 0, 10)
	if err != nil || len(events) != 1 || events[0].Seq != 1 {
		t.Errorf("%v, %v", events, err)
	}
}
