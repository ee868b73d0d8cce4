package rating_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

type drawnWindow struct {
	Days []string `json:"days,omitempty"`
	From string   `json:"from,omitempty"`
	To   string   `json:"to,omitempty"`

	from, to int // the same in minutes
}

// within tells whether a clock that shows a minute of a day is in the window, or in what of it reaches over from the day before.
func (w drawnWindow) within(day, minute int) bool {
	names := []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
	on := func(day int) bool { return len(w.Days) == 0 || slices.Contains(w.Days, names[day]) }
	if w.From == "" {
		return on(day)
	}
	from, to := w.from, w.to
	if from < to {
		return on(day) && from <= minute && minute < to
	}
	return on(day) && from <= minute || on((day+6)%7) && minute < to
}

// Two rates with windows are told apart if and only if no minute of the week is in both, and the right one is found at any time of a year.
func TestWindowsAgreeWithAClock(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	days := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}), 1, 7, rapid.ID)
	clock := func(t *rapid.T) (string, int) {
		hour, minute := rapid.IntRange(0, 23).Draw(t, "hour"), rapid.SampledFrom([]int{0, 0, 30, 59}).Draw(t, "minute")
		return fmt.Sprintf("%02d:%02d", hour, minute), hour*60 + minute
	}
	window := rapid.Custom(func(t *rapid.T) drawnWindow {
		var w drawnWindow
		form := rapid.IntRange(0, 2).Draw(t, "form")
		if form != 1 {
			w.Days = days.Draw(t, "days")
		}
		if form != 0 {
			w.From, w.from = clock(t)
			w.To, w.to = clock(t)
		}
		return w
	})
	told := 0
	rapid.Check(t, func(rt *rapid.T) {
		var lists [2][]drawnWindow
		rates := []string{`{"id": "any", "meter": "calls", "price": "1"}`}
		for i := range lists {
			lists[i] = rapid.SliceOfN(window, 1, 2).Draw(rt, "windows")
			b, err := json.Marshal(lists[i])
			if err != nil {
				rt.Fatal(err)
			}
			rates = append(rates, fmt.Sprintf(`{"id": "w%d", "meter": "calls", "price": "1", "when": %s}`, i, b))
		}
		within := func(i, day, minute int) bool {
			return slices.ContainsFunc(lists[i], func(w drawnWindow) bool { return w.within(day, minute) })
		}
		overlap := false
		for m := range 7 * 24 * 60 {
			overlap = overlap || within(0, m/1440, m%1440) && within(1, m/1440, m%1440)
		}
		doc := []byte(strings.Replace(withRates(strings.Join(rates, ",")), `{"meters"`, `{"time_zone": "Europe/Berlin", "meters"`, 1))
		d, err := rating.Parse(doc)
		if (err != nil) != overlap {
			rt.Fatalf("%s: %v", doc, err)
		}
		if err != nil {
			return
		}
		told++
		b, err := rating.NewBook(1, []rating.CardVersions{{ID: standard, Code: "standard", Unit: credits, Default: true, Versions: []rating.Version{{Number: 1, Doc: d}}}})
		if err != nil {
			rt.Fatal(err)
		}
		at := time.Unix(1_767_225_600+rapid.Int64Range(0, 366*86_400).Draw(rt, "at"), 0)
		local := at.In(berlin)
		want := "any"
		for i := range lists {
			if within(i, (int(local.Weekday())+6)%7, local.Hour()*60+local.Minute()) {
				want = fmt.Sprint("w", i)
			}
		}
		p, err := b.Price(credit.RateCardID{}, 1, rating.Usage{At: at, Lines: []rating.Line{{Meter: "calls", Quantity: decimal.New(1, 0)}}}, nil, nil)
		if err != nil || p.Lines[0].RateID != want {
			rt.Fatalf("%s at %s: %+v, %v, want %s", doc, local, p.Lines, err, want)
		}
	})
	if told == 0 {
		t.Error("no two were told apart")
	}
}
