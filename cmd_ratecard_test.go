package main

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/api"
	"github.com/tallystick/tallystick/balance/balancetest"
)

// writeFile writes a file of a test and returns its path.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const imagesYAML = "meters: [{code: images}]\nrates:\n  - id: image\n    meter: images\n    price: \"1\"\n"

// status is what a run ends with.
func status(err error) int {
	code, ok := errors.AsType[exitCode](err)
	switch {
	case err == nil:
		return 0
	case ok:
		return int(code)
	}
	return 1
}

// What needs no API, with the statuses that docs/rate-cards.md promises.
func TestRatecardFiles(t *testing.T) {
	t.Parallel()
	one := writeFile(t, "one.yaml", imagesYAML)
	two := writeFile(t, "two.json", `{"rates":[{"price":"3","meter":"images","id":"image"}],"meters":[{"code":"images"}]}`)
	bad := writeFile(t, "bad.yaml", strings.Replace(imagesYAML, `"1"`, "1", 1))
	usage := writeFile(t, "usage.csv", "meter,quantity\nimages,2\nimages,5\nsongs,1\n")
	for _, c := range []struct {
		args   []string
		status int
		prints []string
	}{
		{[]string{"validate", one, two}, 0, []string{"one.yaml: good: 1 meters, 1 rates", "two.json: good"}},
		{[]string{"validate", bad, one}, 2, []string{"bad.yaml:5:12: /rates/0/price: This must be a string", "one.yaml: good"}},
		{[]string{"validate", "no-such-file"}, 1, nil},
		{[]string{"diff", one, one}, 0, []string{"nothing changes"}},
		{[]string{"diff", one, two}, 3, []string{`~ /rates/image/price "1" -> "3"`}},
		{[]string{"diff", one, bad}, 2, []string{"bad.yaml:5:12: "}},
		{[]string{"diff", one}, 1, nil},
		{[]string{"simulate", one, "--usage", usage, "--beside", two}, 0, []string{"2 events  7 credits", "2 events  21 credits", "14 credits", "1 events without a price"}},
		{[]string{"simulate", one, "--events", "5"}, 0, []string{"5 events"}},
		{[]string{"simulate", one, "--usage", one}, 1, nil},
		{[]string{"publish", one}, 1, nil},
	} {
		out, _, err := runWith(t, nil, append([]string{"ratecard"}, c.args...)...)
		if status(err) != c.status {
			t.Errorf("%v ended with %d (%v):\n%s", c.args, status(err), err, out)
		}
		for _, text := range c.prints {
			if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(text), " ")) {
				t.Errorf("%v did not print %q:\n%s", c.args, text, out)
			}
		}
	}
}

// A file becomes a draft, and with --yes a version, of a running API.
func TestRatecardPublish(t *testing.T) {
	t.Parallel()
	w := balancetest.New(t)
	w.Card(t, "standard", true, "5", time.Now().AddDate(-1, 0, 0))
	server, err := api.New(api.Config{Service: w.Service, Store: w.Store, Log: balancetest.Log(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(server.Handler())
	t.Cleanup(srv.Close)
	key, err := api.NewKey(context.Background(), w.Store, "ci", "finance")
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, "card.yaml", imagesYAML)
	do := func(want int, args ...string) string {
		t.Helper()
		out, _, err := runWith(t, map[string]string{"TALLYSTICK_API_URL": srv.URL, "TALLYSTICK_API_KEY": key}, append([]string{"ratecard"}, args...)...)
		if status(err) != want {
			t.Fatalf("%v ended with %v:\n%s", args, err, out)
		}
		return out
	}
	card, err := w.Store.RateCard(context.Background(), [16]byte{}, "standard")
	if err != nil {
		t.Fatal(err)
	}
	versions := func() int {
		c, err := w.Store.RateCard(context.Background(), card.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		return c.Latest
	}
	if out := do(3, "diff", file, "--card", "standard"); !strings.Contains(out, `~ /rates/image/price "5" -> "1"`) {
		t.Error(out)
	}
	for range 2 { // the second time it finds its draft
		if out := do(0, "publish", file, "--card", "standard", "--note", "cheaper"); !strings.Contains(out, "Nothing is published: the draft is drf_") {
			t.Error(out)
		}
	}
	drafts, err := w.Store.DraftPage(context.Background(), card.ID, [16]byte{}, 10)
	if err != nil || len(drafts) != 1 || drafts[0].Note != "cheaper" || versions() != 1 {
		t.Errorf("%v, %v, %d versions", drafts, err, versions())
	}
	if out := do(0, "publish", file, "--card", "standard", "--yes"); !strings.Contains(out, "version 2 is published, in force from ") || versions() != 2 {
		t.Error(out)
	}
	if out := do(0, "publish", file, "--card", "standard", "--yes"); !strings.Contains(out, "nothing changes: version 2 says the same") || versions() != 2 {
		t.Error(out)
	}
	do(0, "diff", file, "--card", "standard")
	do(1, "diff", file, "--card", "gold")
	do(1, "publish", file, "--card", "standard", "--yes", "--key", "tly_wrong_wrong_wrong_wrong")
}
