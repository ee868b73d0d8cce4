package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/seal"
)

// world is a server on a database of its own with a customer, "acme", who has a wallet, and with a key for every role.
type world struct {
	*balancetest.World
	server *Server
	url    string
	secret map[string]string // by role
	wallet string
	no     atomic.Int64
}

// Tests with a world of their own run side by side.
func newWorld(t testing.TB) *world {
	t.Helper()
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
	w := &world{World: balancetest.New(t), secret: map[string]string{}}
	var err error
	if w.server, err = New(Config{Service: w.Service, Store: w.Store, Log: balancetest.Log(), Version: "test", Sealer: newSealer(t),
		Redis: func(ctx context.Context) error { return w.Redis.Ping(ctx).Err() }}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(w.server.Handler())
	t.Cleanup(srv.Close)
	w.url = srv.URL
	for _, role := range RoleNames {
		if w.secret[role], err = NewKey(context.Background(), w.Store, role, role); err != nil {
			t.Fatal(err)
		}
	}
	w.admin(t, "POST", "/v1/customers", object{"name": "Acme", "legal_entity": "main", "external_id": "acme"}).want(t, 201)
	w.wallet = w.admin(t, "POST", "/v1/wallets", object{"customer": "acme", "unit": "CRD", "name": "Main"}).want(t, 201).text(t, "id")
	return w
}

type object = map[string]any

func newSealer(t testing.TB) *audit.Sealer {
	t.Helper()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return &audit.Sealer{Key: key, Dir: t.TempDir()}
}

// request is one call of the API.
type request struct {
	role, method, path string
	body               any // a string or []byte is sent as it is
	key                string
	header             http.Header
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send makes a call and holds both sides of it against the description.
func (w *world) send(t testing.TB, r request) answer {
	t.Helper()
	var body []byte
	switch b := r.body.(type) {
	case nil:
	case string:
		body = []byte(b)
	case []byte:
		body = b
	default:
		var err error
		if body, err = json.Marshal(b); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequest(r.method, w.url+r.path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if r.role != "" {
		req.Header.Set("Authorization", "Bearer "+w.secret[r.role])
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	maps.Copy(req.Header, r.header)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	path, _, _ := strings.Cut(r.path, "?")
	s := loadSpec(t)
	s.checkRequest(t, r.method, path, body, a.status < 400)
	s.checkAnswer(t, r.method, path, a.status, a.header, a.body)
	return a
}

// newKey returns an idempotency key that was not used before.
func (w *world) newKey() string { return fmt.Sprintf("test-%d", w.no.Add(1)) }

// admin makes a call as admin, with a new key when it changes something.
func (w *world) admin(t testing.TB, method, path string, body any) answer {
	t.Helper()
	r := request{role: "admin", method: method, path: path, body: body}
	if method != http.MethodGet {
		r.key = w.newKey()
	}
	return w.send(t, r)
}

// grant gives acme credits.
func (w *world) grant(t testing.TB, amount string, more object) string {
	t.Helper()
	body := object{"wallet": w.wallet, "type": "granted", "amount": amount}
	maps.Copy(body, more)
	return w.admin(t, "POST", "/v1/grants", body).want(t, 201).text(t, "id")
}

// want fails the test unless the answer has this status.
func (a answer) want(t testing.TB, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("the status is %d, not %d: %s", a.status, status, a.body)
	}
	return a
}

// problem fails the test unless the answer is this problem, and returns it.
func (a answer) problem(t testing.TB, status int, code credit.Code) object {
	t.Helper()
	a.want(t, status)
	doc := a.object(t)
	if doc["code"] != string(code) {
		t.Fatalf("the code is %v, not %s: %s", doc["code"], code, a.body)
	}
	return doc
}

func (a answer) object(t testing.TB) object {
	t.Helper()
	var doc object
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return doc
}

// text returns a member of the answer's object; names lead into it.
func (a answer) text(t testing.TB, names ...string) string {
	t.Helper()
	var v any = a.object(t)
	for _, name := range names {
		m, ok := v.(object)
		if !ok {
			t.Fatalf("%s has no %v", a.body, names)
		}
		v = m[name]
	}
	s, ok := v.(string)
	if !ok {
		t.Fatalf("%v of %s is no text", names, a.body)
	}
	return s
}

// data returns the items of a page.
func (a answer) data(t testing.TB) []object {
	t.Helper()
	var p struct{ Data []object }
	if err := json.Unmarshal(a.want(t, 200).body, &p); err != nil {
		t.Fatal(err)
	}
	return p.Data
}

// all follows a list to its end.
func (w *world) all(t testing.TB, path string, limit func() int) []object {
	t.Helper()
	var out []object
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	cursor := ""
	for {
		a := w.admin(t, "GET", fmt.Sprintf("%s%slimit=%d%s", path, sep, limit(), cursor), nil).want(t, 200)
		var p page[object]
		if err := json.Unmarshal(a.body, &p); err != nil {
			t.Fatal(err)
		}
		out = append(out, p.Data...)
		if p.HasMore != (p.NextCursor != nil) {
			t.Fatalf("has_more and next_cursor disagree: %s", a.body)
		}
		if !p.HasMore {
			return out
		}
		cursor = "&cursor=" + *p.NextCursor
	}
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come about", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func reversed[T any](s []T) []T {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

// sendUnchecked is send for a request that the description does not admit although the answer is 200: a batch with bad events.
func (w *world) sendUnchecked(t testing.TB, r request) answer {
	t.Helper()
	body, err := json.Marshal(r.body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(r.method, w.url+r.path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.secret[r.role])
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	loadSpec(t).checkAnswer(t, r.method, r.path, a.status, a.header, a.body)
	return a
}

func decodeResults[R any](t testing.TB, a answer) []R {
	t.Helper()
	var doc struct{ Results []R }
	if err := json.Unmarshal(a.want(t, 200).body, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Results
}

// countingReader is a body of blanks that knows how much of it was read.
type countingReader struct {
	left  int
	taken atomic.Int64
}

func (r *countingReader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := min(len(b), r.left)
	for i := range b[:n] {
		b[i] = ' '
	}
	r.left -= n
	r.taken.Add(int64(n))
	return n, nil
}

func (r *countingReader) read() int64 { return r.taken.Load() }

func sum(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }
