package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/balance/balancetest"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/webhook"
)

// message is one server-sent message; a sign of life has no kind.
type message struct {
	id         int64
	kind, data string
}

// listener reads a stream.
type listener struct {
	messages chan message // closed when the stream ends
	stop     func()
}

// listen opens a stream; header is Last-Event-ID.
func (w *world) listen(t testing.TB, base, role, path, header string) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.secret[role])
	if header != "" {
		req.Header.Set("Last-Event-ID", header)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s: %v", res.Status, res.Header)
	}
	l := &listener{messages: make(chan message, 1000), stop: func() { cancel(); res.Body.Close() }}
	t.Cleanup(l.stop)
	go func() {
		defer close(l.messages)
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		var m message
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "":
				l.messages <- m
				m = message{}
			case "id":
				m.id, _ = strconv.ParseInt(value, 10, 64)
			case "event":
				m.kind = value
			case "data":
				m.data = value
			}
		}
	}()
	return l
}

// next returns the next message of a kind; ok is false when the stream has ended.
func (l *listener) next(t testing.TB, kind string) (m message, ok bool) {
	t.Helper()
	patience := time.After(20 * time.Second)
	for {
		select {
		case m, ok = <-l.messages:
			if !ok || m.kind == kind {
				return m, ok
			}
		case <-patience:
			t.Fatalf("no %s came", kind)
		}
	}
}

// untilBalance returns the message in which a balance is told.
func (l *listener) untilBalance(t testing.TB, available string) message {
	t.Helper()
	for {
		m, ok := l.next(t, "balance")
		if !ok {
			t.Fatal("the stream has ended")
		}
		var doc balance.BalanceDocument
		if err := json.Unmarshal([]byte(m.data), &doc); err != nil {
			t.Fatal(err)
		}
		if len(doc.Units) == 1 && doc.Units[0].Available == available {
			return m
		}
	}
}

// TestStream follows a customer through changes made by this process and by another, goes and comes back.
func TestStream(t *testing.T) {
	w := newWorld(t)
	w.server.streams.every, w.server.streams.beat = 20*time.Millisecond, 50*time.Millisecond
	acme := w.id(t, "acme")
	l := w.listen(t, w.url, "product", "/v1/customers/acme/stream", "")
	l.untilBalance(t, "0")
	if m, ok := l.next(t, ""); !ok || m.data != "" {
		t.Errorf("a sign of life is %v", m)
	}
	w.grant(t, "100", nil)
	begun := len(w.eventsOf(t, "acme")) - 2
	l.untilBalance(t, "100")
	for i, want := range []string{"grant.created", "grant.issued"} {
		m, _ := l.next(t, "event")
		var doc webhook.Message
		if err := json.Unmarshal([]byte(m.data), &doc); err != nil || doc.Type != want || doc.Seq != m.id || int(m.id) != begun+i+1 {
			t.Errorf("%+v, %v", m, err)
		}
		loadSpec(t).validate(t, []string{"components", "schemas", "Message"}, []byte(m.data), "a streamed event")
	}
	// Another process changes the balance; many changes become few messages, and the last one wins.
	other := w.Start(t, balance.Config{})
	for range 50 {
		if _, err := other.Do(context.Background(), w.Consume(acme, 1_000_000)); err != nil {
			t.Fatal(err)
		}
	}
	last := l.untilBalance(t, "50")
	loadSpec(t).validate(t, []string{"components", "schemas", "Balances"}, []byte(last.data), "a streamed balance")
	l.stop()
	w.grant(t, "1", nil) // while nobody listens
	w.grant(t, "2", nil)
	for _, back := range []*listener{
		w.listen(t, w.url, "support", "/v1/customers/"+acme.String()+"/stream", fmt.Sprint(last.id)),
		w.listen(t, w.url, "support", fmt.Sprintf("/v1/customers/acme/stream?after=%d", last.id), ""),
	} {
		for i := range 4 {
			if m, ok := back.next(t, "event"); !ok || m.id != last.id+int64(i+1) {
				t.Errorf("%+v came in place %d behind %d", m, i+1, last.id)
			}
		}
		back.stop()
	}
	from := w.listen(t, w.url, "ops", "/v1/customers/acme/stream?after=0", "")
	for i := range len(w.eventsOf(t, "acme")) {
		if m, _ := from.next(t, "event"); m.id != int64(i+1) {
			t.Errorf("event %d came in place %d", m.id, i+1)
		}
	}
	from.stop()
	for _, bad := range []string{"after=x", "after=-1", "after=01", "after=100000", "nonsense=1"} {
		w.admin(t, "GET", "/v1/customers/acme/stream?"+bad, nil).problem(t, 400, credit.InvalidRequest)
	}
	w.admin(t, "GET", "/v1/customers/nobody/stream", nil).problem(t, 404, credit.CustomerNotFound)
	w.send(t, request{method: "GET", path: "/v1/customers/acme/stream"}).problem(t, 401, credit.Unauthenticated)
	eventually(t, "nobody is left", func() bool {
		w.server.streams.mu.Lock()
		defer w.server.streams.mu.Unlock()
		return w.server.streams.n == 0 && len(w.server.streams.watched) == 0 && !w.server.streams.busy
	})
}

// No event is missing or comes twice, however often a listener goes and comes back while things happen.
func TestStreamResumes(t *testing.T) {
	w := newWorld(t)
	w.server.streams.every = 5 * time.Millisecond
	const grants = 150
	acme := w.id(t, "acme")
	wallet, err := credit.ParseID[credit.WalletID](w.wallet)
	if err != nil {
		t.Fatal(err)
	}
	first := len(w.eventsOf(t, "acme"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range grants {
			w.Grant(t, acme, wallet, 1)
		}
	}()
	at, connections := int64(0), 0
	for at < int64(first+2*grants) {
		l := w.listen(t, w.url, "product", "/v1/customers/acme/stream?after=0", fmt.Sprint(at)) // the header goes before the parameter
		connections++
		for range 1 + connections%7 {
			m, ok := l.next(t, "event")
			if !ok || m.id != at+1 {
				t.Fatalf("%+v came behind %d", m, at)
			}
			if at = m.id; at >= int64(first+2*grants) {
				break
			}
		}
		l.stop()
	}
	<-done
	if connections < 20 {
		t.Errorf("%d connections", connections)
	}
}

// A stream ends when the server stops, at once, and when its key is revoked; and there are only so many.
func TestStreamsEnd(t *testing.T) {
	w := newWorld(t)
	server, err := New(Config{Service: w.Service, Store: w.Store, Log: balancetest.Log(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	server.streams.every, server.streams.beat = 20*time.Millisecond, 50*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, at) }()
	base := "http://" + at.Addr().String()
	lost := w.listen(t, base, "product", "/v1/customers/acme/stream", "")
	lost.untilBalance(t, "0")
	keys := w.admin(t, "GET", "/v1/api_keys", nil).data(t)
	for _, k := range keys {
		if k["role"] == "product" {
			w.admin(t, "POST", "/v1/api_keys/"+k["id"].(string)+"/revoke", nil).want(t, 200)
		}
	}
	if _, ok := lost.next(t, "no more"); ok {
		t.Error("the stream goes on without its key")
	}
	var open []*listener
	for range maxCustomerStreams {
		l := w.listen(t, base, "support", "/v1/customers/acme/stream", "")
		l.untilBalance(t, "0")
		open = append(open, l)
	}
	req, err := http.NewRequest(http.MethodGet, base+"/v1/customers/acme/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.secret["support"])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 429 {
		t.Errorf("one stream too many is answered %s", res.Status)
	}
	cancel()
	for _, l := range open {
		if _, ok := l.next(t, "no more"); ok {
			t.Error("the stream goes on")
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// A stream passes through what traces requests.
func TestTracedStream(t *testing.T) {
	w := newWorld(t)
	server, err := New(Config{Service: w.Service, Store: w.Store, Log: balancetest.Log(), Version: "test", Tracer: sdktrace.NewTracerProvider()})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(server.Handler())
	t.Cleanup(srv.Close)
	l := w.listen(t, srv.URL, "product", "/v1/customers/acme/stream?after=0", "")
	l.untilBalance(t, "0")
	if m, ok := l.next(t, "event"); !ok || m.id != 1 {
		t.Errorf("%+v", m)
	}
	l.stop()
}
