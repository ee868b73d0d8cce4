package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// The calls in the README as it writes them: [NAME=$(] call PATH KEY 'BODY' [| id)], or get PATH. A 'quoted'$NAME'text' has a variable in it.
var readmeCall = regexp.MustCompile(`(?m)^(?:(\w+)=\$\()?(call|get) ('[^']*'|\S+)(?: (\S+) ('(?:[^']|'\$\w+')*'))?( \| id\))?( >/dev/null)?$`)

// The README's five calls are answered as it says, but for ids and instants.
func TestReadmeCalls(t *testing.T) {
	t.Parallel()
	_, access, world := demoSite(t)
	_, section, found := strings.Cut(readDocument(t, "README.md"), "## Five calls\n")
	section, _, closed := strings.Cut(section, "\n## ")
	if !found || !closed {
		t.Fatal("the README has no section Five calls")
	}
	variables := map[string]string{}
	calls := 0
	for i, block := range strings.Split(section, "```sh\n")[1:] {
		commands, after, _ := strings.Cut(block, "```")
		var answers []any
		for _, m := range readmeCall.FindAllStringSubmatch(commands, -1) {
			calls++
			path, body := fill(m[3], variables), fill(m[5], variables)
			if path == "/v1/finance/recognise" {
				settle(t, world.Store, variables["refund"])
			}
			answer := callAsReadme(t, access, path, m[4], body)
			switch {
			case m[1] != "":
				variables[m[1]] = answer.(map[string]any)["id"].(string)
			case m[7] == "":
				answers = append(answers, answer)
			}
			if id, ok := answer.(map[string]any)["id"].(string); ok && strings.HasPrefix(id, "rfd_") {
				variables["refund"] = id
			}
		}
		if _, shown, ok := strings.Cut(after, "```json\n"); ok {
			shown, _, _ = strings.Cut(shown, "```")
			compareWithReadme(t, i, shown, answers)
		}
	}
	if calls != 10 {
		t.Errorf("%d calls were understood, there are 10: has their form changed?", calls)
	}
}

// settle does what the refund's workflow does meanwhile.
func settle(t *testing.T, s *db.Store, refund string) {
	t.Helper()
	id, err := credit.ParseID[credit.RefundID](refund)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SettleRefund(t.Context(), id, db.Settlement{Method: "manual", Reference: "manual/" + id.String(), At: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

// fill does what a shell does with quotes and variables.
func fill(s string, variables map[string]string) string {
	s = strings.ReplaceAll(s, "'", "")
	for name, value := range variables {
		s = strings.ReplaceAll(s, "$"+name, value)
	}
	return s
}

func callAsReadme(t *testing.T, access apiAccess, path, key, body string) any {
	t.Helper()
	method, payload := http.MethodGet, io.Reader(nil)
	if body != "" {
		method, payload = http.MethodPost, strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, access.URL+path, payload)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+access.APIKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s %s answered %d %s", method, path, res.StatusCode, text)
	}
	if problem, ok := answer.(map[string]any)["status"].(float64); res.StatusCode/100 != 2 && (!ok || int(problem) != res.StatusCode || res.StatusCode != http.StatusPaymentRequired) {
		t.Fatalf("%s %s answered %d %s", method, path, res.StatusCode, text)
	}
	return answer
}

// ours are the parts of an answer that are never the same twice.
var ours = regexp.MustCompile(`\b[a-z]{3}_[0-9a-z]{26}\b|\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

func compareWithReadme(t *testing.T, block int, shown string, answers []any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(ours.ReplaceAllString(shown, "…")))
	for i, answer := range answers {
		var want any
		if err := d.Decode(&want); err != nil {
			t.Errorf("block %d shows no answer %d: %v", block, i+1, err)
			return
		}
		text, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := json.Unmarshal(ours.ReplaceAll(text, []byte("…")), &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("block %d, answer %d:\n%s\nthe README shows:\n%s", block, i+1, indented(answer), shown)
		}
	}
	if d.More() {
		t.Errorf("block %d shows more answers than there are calls", block)
	}
}

func indented(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return b.String()
}
