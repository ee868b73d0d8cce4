package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

func TestServiceRoutes(t *testing.T) {
	w := newWorld(t)
	get := func(path string) answer { return w.send(t, request{method: "GET", path: path}).want(t, 200) }
	if got := get("/healthz"); got.text(t, "status") != "ok" {
		t.Errorf("%s", got.body)
	}
	if got := get("/readyz"); got.text(t, "postgres") != "ok" || got.text(t, "redis") != "ok" || got.text(t, "version") != "test" {
		t.Errorf("%s", got.body)
	}
	w.server.redis = func(context.Context) error { return errors.New("away") }
	if got := get("/readyz"); got.text(t, "redis") != "unavailable" || got.text(t, "status") != "ready" {
		t.Errorf("%s", got.body)
	}
	w.admin(t, "GET", "/v1/units", nil).want(t, 200)
	w.admin(t, "GET", "/v1/units?limit=0", nil).want(t, 400)
	w.admin(t, "GET", "/nowhere", nil).problem(t, 404, credit.NotFound)
	metrics := string(get("/metrics").body)
	for _, line := range []string{`tallystick_http_requests_total{method="GET",route="/v1/units",status="200"} 1`, `tallystick_http_requests_total{method="GET",route="/v1/units",status="400"} 1`,
		`tallystick_http_requests_total{method="other",route="none",status="404"} 1`, `tallystick_http_request_seconds_count{method="GET",route="/v1/units"} 2`} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	for code, k := range kinds {
		if got := get("/problems/" + string(code)); got.text(t, "title") != k.title {
			t.Errorf("%s", got.body)
		}
	}
	w.send(t, request{method: "GET", path: "/problems/nonsense"}).problem(t, 404, credit.NotFound)
	w.server.stopping.Store(true)
	if got := w.send(t, request{method: "GET", path: "/readyz"}).want(t, 503); got.text(t, "status") != "stopping" {
		t.Errorf("%s", got.body)
	}
}

func TestDocsNeedNothingElse(t *testing.T) {
	w := newWorld(t)
	page := w.send(t, request{method: "GET", path: "/docs"}).want(t, 200)
	if !strings.Contains(page.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%v", page.header)
	}
	for _, bad := range []string{"<script", "src=", "@import", "url(", "http://", "https://", "<no value>", "**"} {
		if bytes.Contains(page.body, []byte(bad)) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, rt := range w.server.table() {
		path := strings.NewReplacer(":customer", "{customer}", ":wallet", "{wallet}", ":grant", "{grant}", ":refund", "{refund}", ":rate_card", "{rate_card}", ":version", "{version}", ":draft", "{draft}", ":assignment", "{assignment}", ":backtest", "{backtest}",
			":ver", "{ver}", ":api_key", "{api_key}").Replace(rt.Path)
		if !bytes.Contains(page.body, []byte("<code>"+path+"</code>")) {
			t.Errorf("the page lacks %s", path)
		}
	}
	asJSON := w.send(t, request{method: "GET", path: "/openapi.json"}).want(t, 200)
	if asJSON.text(t, "openapi") != "3.1.0" {
		t.Error("openapi.json is not the description")
	}
	if got := w.send(t, request{method: "GET", path: "/openapi.yaml"}).want(t, 200); !bytes.Equal(got.body, openAPI) {
		t.Error("openapi.yaml is not the description")
	}
}

func TestWhatIsNotRouted(t *testing.T) {
	w := newWorld(t)
	for path, code := range map[string]credit.Code{"/": credit.NotFound, "/v1": credit.NotFound, "/v1/consume/": credit.NotFound, "/v1/nothing": credit.NotFound,
		"/v1/customers//balances": credit.NotFound, "/v2/consume": credit.NotFound} {
		status := 404
		if path == "/v1/customers//balances" { // an empty name is no name
			w.admin(t, "GET", path, nil).want(t, 400)
			continue
		}
		w.admin(t, "GET", path, nil).problem(t, status, code)
	}
	a := w.admin(t, "DELETE", "/v1/consume", nil)
	a.problem(t, 405, credit.MethodNotAllowed)
	if !strings.Contains(a.header.Get("Allow"), "POST") {
		t.Errorf("%v", a.header)
	}
	w.admin(t, "GET", "/v1/consume", nil).problem(t, 405, credit.MethodNotAllowed)
	w.admin(t, "TRACE", "/v1/units", nil).problem(t, 405, credit.MethodNotAllowed)
}

func TestBodiesOfTheWrongKind(t *testing.T) {
	w := newWorld(t)
	body := `{"customer":"acme","unit":"CRD","amount":"1"}`
	w.grant(t, "10", nil)
	for _, good := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"} {
		w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(), body: body, header: http.Header{"Content-Type": {good}}}).want(t, 200)
	}
	for _, h := range []http.Header{{"Content-Type": {""}}, {"Content-Type": {"text/plain"}}, {"Content-Type": {"application/json; charset=latin1"}}, {"Content-Type": {"application/xml"}},
		{"Content-Type": {"application/json", "application/json"}}, {"Content-Type": {"application/problem+json"}}, {"Content-Encoding": {"gzip"}}} {
		w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: w.newKey(), body: body, header: h}).problem(t, 415, credit.UnsupportedMedia)
	}
}

// TestLargeBodiesAreNotRead sends 10 MB, announced and not: the answer comes early and most of it is never taken.
func TestLargeBodiesAreNotRead(t *testing.T) {
	w := newWorld(t)
	padded := func(n int) string {
		return `{"customer":"acme","unit":"CRD","amount":"1"` + strings.Repeat(" ", n-len(`{"customer":"acme","unit":"CRD","amount":"1"}`)) + `}`
	}
	w.grant(t, "10", nil)
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "fits", body: padded(maxBody)}).want(t, 200)
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume", key: "large", body: padded(maxBody + 1)}).problem(t, 413, credit.TooLarge)
	for _, chunked := range []bool{false, true} {
		body := &countingReader{left: 10 << 20}
		req, err := http.NewRequest("POST", w.url+"/v1/consume", body)
		if err != nil {
			t.Fatal(err)
		}
		if req.ContentLength = 10 << 20; chunked {
			req.ContentLength = -1
		}
		req.Header.Set("Authorization", "Bearer "+w.secret["product"])
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", "k")
		res, err := http.DefaultClient.Do(req)
		if err != nil { // the server closed the connection while the body was being sent
			continue
		}
		answer := answer{status: res.StatusCode, header: res.Header}
		answer.body, _ = io.ReadAll(res.Body)
		_ = res.Body.Close()
		answer.problem(t, 413, credit.TooLarge)
		if body.read() == 10<<20 {
			t.Error("all of it was read")
		}
	}
	batch := `{"events":[` + strings.Repeat(" ", maxBatch) + `]}`
	w.send(t, request{role: "product", method: "POST", path: "/v1/consume/batch", body: batch}).problem(t, 413, credit.TooLarge)
}

// TestFaultsAreLoggedOnceAndNotTold breaks a handler in both ways that there are.
func TestFaultsAreLoggedOnceAndNotTold(t *testing.T) {
	w := newWorld(t)
	for _, broken := range []handler{
		func(context.Context, *call) error { return errors.New("secret detail") },
		func(context.Context, *call) error { panic("secret detail") },
	} {
		var logged bytes.Buffer
		w.server.log = slog.New(slog.NewTextHandler(&logged, nil))
		rt := &route{Method: "GET", Path: "/broken", handle: broken}
		w.server.metrics.watch(rt)
		rec := httptest.NewRecorder()
		c := &call{Server: w.server, w: rec, r: httptest.NewRequest("GET", "/broken", nil), route: rt, id: credit.NewID[credit.RequestID](), started: time.Now()}
		w.server.serve(c)
		var p object
		if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || rec.Code != 500 || p["code"] != "internal" || strings.Contains(rec.Body.String(), "secret") {
			t.Errorf("%d: %s; %v", rec.Code, rec.Body, err)
		}
		if n := strings.Count(logged.String(), "level=ERROR"); n != 1 || !strings.Contains(logged.String(), p["request_id"].(string)) {
			t.Errorf("%d lines were logged: %s", n, &logged)
		}
	}
}

func TestErrorsOfPostgres(t *testing.T) {
	down := fmt.Errorf("read: %w", &pgconn.PgError{Code: "57P01"})
	for _, c := range []struct {
		err     error
		changes bool
		want    credit.Code
	}{
		{down, false, credit.NotExecuted}, {down, true, credit.OutcomeUnknown}, {context.DeadlineExceeded, true, credit.OutcomeUnknown},
		{fmt.Errorf("commit: %w", db.ErrUnknown), true, credit.OutcomeUnknown},
		{errors.New("a fault"), true, credit.Internal}, {credit.Errorf("unheard_of", "x"), true, credit.Internal},
		{fmt.Errorf("around: %w", credit.Errorf(credit.GrantState, "x")), true, credit.GrantState},
	} {
		if got := refusalOf(c.err, c.changes).Code; got != c.want {
			t.Errorf("%v is %s, not %s", c.err, got, c.want)
		}
	}
}

// TestStopFinishesRequests stops a server in the middle of a request: it is answered, and the next one finds nobody.
func TestStopFinishesRequests(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "10", nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.server.Serve(ctx, l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"customer":"acme","unit":"CRD","amount":"1"}`
	fmt.Fprintf(conn, "POST /v1/consume HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: %d\r\n\r\n%s",
		w.secret["product"], len(body), body[:10])
	eventually(t, "the request's arrival", func() bool {
		// Its handler waits for the rest of the body once the key has been looked up.
		_, ok := w.server.keys.keys.get(sum(w.secret["product"]))
		return ok
	})
	stop()
	eventually(t, "the stop", w.server.stopping.Load)
	if _, err := io.WriteString(conn, body[10:]); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("it still listens")
	}
}

func TestServeSaysThatItCannotListen(t *testing.T) {
	w := newWorld(t)
	if err := w.server.Run(t.Context(), "256.0.0.1:1"); err == nil {
		t.Error("no error")
	}
}

func TestTraces(t *testing.T) {
	w := newWorld(t)
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	traced, err := New(Config{Service: w.Service, Store: w.Store, Log: w.server.log, Tracer: provider})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(traced.Handler())
	defer srv.Close()
	w.url = srv.URL
	w.admin(t, "GET", "/v1/customers/acme/balances", nil).want(t, 200)
	w.send(t, request{method: "GET", path: "/healthz"}).want(t, 200)
	eventually(t, "the span's end", func() bool { return len(spans.Ended()) == 1 })
	span := spans.Ended()[0]
	if span.Name() != "GET /v1/customers/:customer/balances" {
		t.Errorf("the span is %q", span.Name())
	}
	found := false
	for _, a := range span.Attributes() {
		found = found || a == attribute.Int("http.response.status_code", 200)
	}
	if !found {
		t.Errorf("%v", span.Attributes())
	}
}

func TestDebugLogHasEveryRequest(t *testing.T) {
	w := newWorld(t)
	var logged bytes.Buffer
	w.server.log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rec := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/healthz", nil))
	if !strings.Contains(logged.String(), "route=/healthz") || !strings.Contains(logged.String(), rec.Header().Get("X-Request-Id")) {
		t.Error(logged.String())
	}
}
