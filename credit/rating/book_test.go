package rating_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

func flat(t testing.TB, price string) *rating.Document {
	t.Helper()
	d, err := rating.Parse([]byte(withRate(`"price": "` + price + `"`)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBook(t *testing.T) {
	enterprise, unpublished := credit.DerivedID[credit.RateCardID]("enterprise"), credit.DerivedID[credit.RateCardID]("unpublished")
	images := credit.Unit{Code: "IMG", Scale: 0}
	march, april, may := noon, noon.AddDate(0, 1, 0), noon.AddDate(0, 2, 0)
	b, err := rating.NewBook(7, []rating.CardVersions{
		{ID: enterprise, Code: "enterprise", Unit: images, Versions: []rating.Version{{Number: 1, EffectiveAt: march, Doc: flat(t, "3")}}},
		{ID: standard, Code: "standard", Unit: credits, Default: true, Versions: []rating.Version{
			{Number: 3, EffectiveAt: april, Doc: flat(t, "30")}, // published twice for the same instant: the higher number
			{Number: 1, EffectiveAt: march, Doc: flat(t, "10")},
			{Number: 2, EffectiveAt: april, Doc: flat(t, "20")},
			{Number: 4, EffectiveAt: march.Add(time.Hour), Doc: flat(t, "40")}, // published late, for an earlier time
		}},
		{ID: unpublished, Code: "unpublished", Unit: credits},
	})
	if err != nil || b.Ver != 7 {
		t.Fatal(err)
	}
	for _, c := range []struct {
		card    credit.RateCardID
		version int
		at      time.Time
		want    int
		total   string
		unit    credit.Unit
	}{
		{credit.RateCardID{}, 0, march, 1, "10", credits},
		{standard, 0, march, 1, "10", credits},
		{standard, 0, march.In(time.FixedZone("", 3600)), 1, "10", credits},
		{standard, 0, march.Add(time.Hour - 1), 1, "10", credits},
		{standard, 0, march.Add(time.Hour), 4, "40", credits},
		{standard, 0, april.Add(-1), 4, "40", credits},
		{standard, 0, april, 3, "30", credits},
		{standard, 0, may, 3, "30", credits},
		{standard, 2, march, 2, "20", credits},
		{standard, 3, time.Time{}, 3, "30", credits},
		{enterprise, 0, may, 1, "3", images},
	} {
		p, err := b.Price(c.card, c.version, rating.Usage{At: c.at, Lines: []rating.Line{line("calls", "1")}}, nil, nil)
		if err != nil || p.Version != c.want || p.Total.Format(c.unit.Scale) != c.total || p.Unit != c.unit {
			t.Errorf("%v %d at %s: %+v, %v", c.card, c.version, c.at, p, err)
		}
		if unit, err := b.Unit(c.card); err != nil || unit != c.unit {
			t.Errorf("%v: %+v, %v", c.card, unit, err)
		}
		if c.version > 0 {
			continue
		}
		if got, err := b.VersionAt(c.card, c.at); err != nil || got != c.want {
			t.Errorf("%v at %s: version %d, %v", c.card, c.at, got, err)
		}
	}
	for _, c := range []struct {
		card credit.RateCardID
		at   time.Time
		code credit.Code
		want string
	}{
		{standard, march.Add(-1), credit.NoRate, "No version of rate card \"standard\" is in force at "},
		{standard, time.Time{}, credit.NoRate, "No version of rate card \"standard\" is in force at 0001-01-01T00:00:00Z"},
		{unpublished, may, credit.NoRate, "Nothing has been published of rate card \"unpublished\"."},
		{credit.RateCardID{9}, may, credit.RateCardNotFound, "There is no rate card crd_"},
	} {
		if v, err := b.VersionAt(c.card, c.at); credit.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v at %s: %d, %v", c.card, c.at, v, err)
		}
	}
	if _, err := b.Unit(credit.RateCardID{9}); credit.CodeOf(err) != credit.RateCardNotFound {
		t.Error(err)
	}
	var empty rating.Book
	if _, err := empty.Price(credit.RateCardID{}, 0, rating.Usage{At: noon, Lines: []rating.Line{line("calls", "1")}}, nil, nil); credit.CodeOf(err) != credit.RateCardNotFound {
		t.Error(err)
	}
	if _, err := empty.Unit(standard); credit.CodeOf(err) != credit.RateCardNotFound {
		t.Error(err)
	}
}

func TestNewBookRefusesWhatTheStoreRulesOut(t *testing.T) {
	doc := flat(t, "1")
	card := func(change func(c *rating.CardVersions)) rating.CardVersions {
		c := rating.CardVersions{ID: standard, Code: "standard", Unit: credits, Versions: []rating.Version{{Number: 1, EffectiveAt: noon, Doc: doc}}}
		change(&c)
		return c
	}
	same := func(*rating.CardVersions) {}
	for name, cards := range map[string][]rating.CardVersions{
		"no id":     {card(func(c *rating.CardVersions) { c.ID = credit.RateCardID{} })},
		"one id":    {card(same), card(same)},
		"a scale":   {card(func(c *rating.CardVersions) { c.Unit.Scale = 7 })},
		"no scale":  {card(func(c *rating.CardVersions) { c.Unit.Scale = -1 })},
		"version 0": {card(func(c *rating.CardVersions) { c.Versions[0].Number = 0 })},
		"no doc":    {card(func(c *rating.CardVersions) { c.Versions[0].Doc = nil })},
		"a version twice": {card(func(c *rating.CardVersions) {
			c.Versions = append(c.Versions, rating.Version{Number: 2, Doc: doc}, rating.Version{Number: 1, EffectiveAt: noon.Add(1), Doc: doc})
		})},
		"two defaults": {card(func(c *rating.CardVersions) { c.Default = true }), card(func(c *rating.CardVersions) { c.Default, c.ID = true, credit.RateCardID{1} })},
	} {
		if b, err := rating.NewBook(1, cards); err == nil || credit.CodeOf(err) != "" || b != nil {
			t.Errorf("%s: %v, %v", name, b, err)
		}
	}
}

func TestVersionAtAgreesWithAWalk(t *testing.T) {
	doc := flat(t, "1")
	rapid.Check(t, func(rt *rapid.T) {
		c := rating.CardVersions{ID: standard, Code: "standard", Unit: credits}
		for i, hours := range rapid.SliceOfN(rapid.IntRange(0, 6), 0, 6).Draw(rt, "hours") {
			c.Versions = append(c.Versions, rating.Version{Number: i + 1, EffectiveAt: noon.Add(time.Duration(hours) * time.Hour), Doc: doc})
		}
		given := append([]rating.Version(nil), c.Versions...)
		b, err := rating.NewBook(1, []rating.CardVersions{c})
		if err != nil {
			rt.Fatal(err)
		}
		at := noon.Add(time.Duration(rapid.IntRange(-1, 14).Draw(rt, "half hours")) * 30 * time.Minute)
		want := 0
		var from time.Time
		for _, v := range given {
			if !v.EffectiveAt.After(at) && !v.EffectiveAt.Before(from) {
				want, from = v.Number, v.EffectiveAt
			}
		}
		got, err := b.VersionAt(standard, at)
		if got != want || (err == nil) != (want > 0) {
			rt.Fatalf("%+v at %s: %d, %v, want %d", given, at, got, err, want)
		}
		p, err := b.Price(standard, 0, rating.Usage{At: at, Lines: []rating.Line{line("calls", "1")}}, nil, nil)
		if p.Version != want || (err == nil) != (want > 0) {
			rt.Fatalf("%+v at %s: priced at %d, %v, want %d", given, at, p.Version, err, want)
		}
		for i := range given {
			if c.Versions[i] != given[i] {
				rt.Fatal("the versions given were reordered")
			}
		}
	})
}
