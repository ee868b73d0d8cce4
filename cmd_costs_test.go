package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/tallystick/tallystick/api"
	"github.com/tallystick/tallystick/balance/balancetest"
)

// A catalogue becomes a draft, and with --yes the one in force, of a running API; the command fetches URLs.
func TestCosts(t *testing.T) {
	t.Parallel()
	w := balancetest.New(t)
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
	text, err := os.ReadFile("credit/provider/testdata/catalogue.json")
	if err != nil {
		t.Fatal(err)
	}
	lite, err := os.ReadFile("credit/provider/testdata/litellm.json")
	if err != nil {
		t.Fatal(err)
	}
	first := writeFile(t, "first.json", string(text))
	dearer := strings.Replace(string(text), `"input_mtok": 0.4`, `"input_mtok": 0.5`, 1)
	second := writeFile(t, "second.json", dearer)
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/prices.json" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(dearer))
	}))
	t.Cleanup(source.Close)
	do := func(want int, prints string, args ...string) {
		t.Helper()
		out, _, err := runWith(t, map[string]string{"TALLYSTICK_API_URL": srv.URL, "TALLYSTICK_API_KEY": key}, append([]string{"costs"}, args...)...)
		if status(err) != want || !strings.Contains(out, prints) {
			t.Fatalf("%v ended with %v and did not print %q:\n%s", args, err, prints, out)
		}
	}
	do(3, "~ openai/gpt-small input_tokens 0.4 -> 0.5 USD for 1000000", "diff", first, second)
	do(0, "nothing changes", "diff", first, first)
	do(3, "+ openai/gpt-small", "diff", first) // with nothing in force
	do(0, "there is no catalogue in force. The draft is cdr_", "import", first, "--note", "the first")
	do(0, "Nothing is published.", "publish", first)
	if drafts, err := w.Store.CostDraftPage(context.Background(), [16]byte{}, 10); err != nil || len(drafts) != 1 || drafts[0].Note != "the first" {
		t.Errorf("%v, %v", drafts, err)
	}
	do(0, "catalogue 1 is published, in force from ", "publish", first, "--yes")
	do(0, "nothing changes", "diff", first)
	do(3, "0.4 -> 0.5", "diff", source.URL+"/prices.json")
	do(0, "1 changes, compared with catalogue 1, in force.", "publish", source.URL+"/prices.json", "--yes", "--at", "2100-01-01T00:00:00Z")
	do(0, "nothing changes", "diff", first)
	do(0, "litellm", "import", writeFile(t, "lite.json", string(lite)))
	do(1, "", "import", source.URL+"/other.json")
	do(1, "", "import", "no-such-file")
	do(1, "", "import", first, "--format", "litellm")
	do(1, "", "publish", first, "--key", "tly_wrong_wrong_wrong_wrong")
}

// A bill is added up exactly, whatever the order of its pages; a day that is missing is no day without costs.
func TestCostsBill(t *testing.T) {
	t.Parallel()
	page := func(name, start, end, value, more string) string {
		return writeFile(t, name, `{"object":"page","data":[{"object":"bucket","start_time":`+start+`,"end_time":`+end+`,"results":[{"object":"organization.costs.result",
			"amount":{"value":`+value+`,"currency":"usd"},"line_item":"gpt-4o, input"}]}],`+more+`}`)
	}
	first := page("first.json", "1772323200", "1772409600", "0.06", `"has_more":true,"next_page":"p2"`)
	second := page("second.json", "1772409600", "1772496000", "0.0000001", `"has_more":false,"next_page":null`)
	for _, c := range []struct {
		want   int
		prints string
		args   []string
	}{
		{0, "gpt-4o  input  usage    0.0600001 USD\n\nin all 0.0600001 USD\n", []string{second, first, "--from", "2026-03-01", "--to", "2026-03-02"}},
		{3, "in all 0.0600001 USD\n\nThe bill is not complete:\ncosts: nothing is said about 2026-03-03.\n", []string{first, second, "--from", "2026-03-01", "--to", "2026-03-03"}},
		{3, "The bill is not complete:\ncosts: the last page says that more follow.\n", []string{first}},
		{1, "", []string{first, "--from", "2026-03-01"}},
		{1, "", []string{first, "no-such-file"}},
		{1, "", []string{writeFile(t, "none.json", "{}")}},
	} {
		out, _, err := runWith(t, nil, append([]string{"costs", "bill"}, c.args...)...)
		if status(err) != c.want || !strings.Contains(out, c.prints) {
			t.Errorf("%v ended with %v and did not print %q:\n%s", c.args, err, c.prints, out)
		}
	}
}
