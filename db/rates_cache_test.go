package db_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

// publish makes a card if there is none of this id, and publishes its next version, with so many rates.
func publish(t testing.TB, s *db.Store, id credit.RateCardID, rates int) {
	t.Helper()
	var doc strings.Builder
	doc.WriteString(`{"meters":[{"code":"calls"}],"rates":[`)
	for i := range rates {
		if i > 0 {
			doc.WriteByte(',')
		}
		fmt.Fprintf(&doc, `{"id":"r%d","meter":"calls","price":"1","match":{"model":["m%d"]}}`, i, i)
	}
	doc.WriteString("]}")
	_, _, err := s.Change(ctx, db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		if _, err := s.RateCard(ctx, id, ""); err != nil {
			if _, err := c.AddRateCard(ctx, db.RateCardRow{ID: id, Code: id.String(), Unit: "CRD"}); err != nil {
				return db.Outcome{}, err
			}
		}
		_, err := c.PublishRateCard(ctx, id, db.RateCardVersionRow{Document: json.RawMessage(doc.String()), PublishedBy: "test"})
		return db.Outcome{Status: 201}, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func rateCards(t testing.TB, s *db.Store) (ver int64, docs map[string]*rating.Document) {
	t.Helper()
	c, err := s.Configuration(ctx, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ver, docs = c.Ver, make(map[string]*rating.Document)
	for _, c := range c.Cards {
		for _, v := range c.Versions {
			docs[fmt.Sprintf("%s/%d", c.ID, v.Number)] = v.Doc
		}
	}
	return ver, docs
}

func addUnit(t testing.TB, s *db.Store) {
	t.Helper()
	_, _, err := s.Change(ctx, db.Audited{Action: "test"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
		_, err := c.AddUnit(ctx, credit.Unit{Code: "CRD", Scale: 6, Name: "Credit"})
		return db.Outcome{Status: 201}, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A document is parsed once: what was there the last time is the very same the next time.
func TestRateCardsParseOnce(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	addUnit(t, s)
	a, b := credit.NewID[credit.RateCardID](), credit.NewID[credit.RateCardID]()
	if _, docs := rateCards(t, s); len(docs) != 0 {
		t.Errorf("%d documents of no card", len(docs))
	}
	publish(t, s, a, 1)
	publish(t, s, b, 2)
	ver, first := rateCards(t, s)
	publish(t, s, a, 3)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			again, second := rateCards(t, s)
			if again != ver+1 || len(first) != 2 || len(second) != 3 {
				t.Errorf("%d documents at %d, then %d at %d", len(first), ver, len(second), again)
			}
			for name, doc := range first {
				if second[name] != doc {
					t.Errorf("%s was parsed again", name)
				}
			}
			if doc := second[a.String()+"/2"]; doc == nil || doc == first[a.String()+"/1"] {
				t.Error("the new version has not got its document")
			}
		})
	}
	all.Wait()

	// A failover took the newest version away, and its number was used again: with another document, at another instant.
	_, had := rateCards(t, s)
	owner := dbtest.Owner(t, s)
	for _, sql := range []string{"SET session_replication_role = replica", "DELETE FROM rate_card_versions WHERE version = 2", "UPDATE configuration SET ver = ver - 1"} {
		if _, err := owner.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, s, a, 5)
	if _, docs := rateCards(t, s); docs[a.String()+"/2"] == had[a.String()+"/2"] || docs[a.String()+"/1"] != had[a.String()+"/1"] {
		t.Error("a version that was published anew has the document of the one that is gone")
	}
}

// BenchmarkRateCards reloads 50 versions of 1,000 rates each, of which none is new.
func BenchmarkRateCards(b *testing.B) {
	s := dbtest.Open(b)
	addUnit(b, s)
	id := credit.NewID[credit.RateCardID]()
	for range 50 {
		publish(b, s, id, 1000)
	}
	for b.Loop() {
		if _, err := s.Configuration(ctx, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
