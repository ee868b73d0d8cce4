package api

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/tallystick/tallystick/credit"
)

// BenchmarkReadConsumption is the decoder alone, on the three forms of a consumption.
func BenchmarkReadConsumption(b *testing.B) {
	for name, doc := range map[string]string{"amount": consumptions[0], "meter": consumptions[2], "usage": consumptions[3]} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				var r reader
				var in consumption
				if err := r.start(doc); err != nil {
					b.Fatal(err)
				}
				if err := in.read(&r, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAdmit is what every request pays before its handler: id, key, metrics, log.
func BenchmarkAdmit(b *testing.B) {
	w := newWorld(b)
	rt := &route{Method: "GET", Path: "/nothing", Roles: product, handle: func(_ context.Context, c *call) error { c.write(200, []byte("{}")); return nil }}
	w.server.metrics.watch(rt)
	e := echo.New()
	e.GET("/nothing", w.server.adapt(rt))
	req := httptest.NewRequest("GET", "/nothing", nil)
	req.Header.Set("Authorization", "Bearer "+w.secret["product"])
	out := &nullWriter{h: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		e.ServeHTTP(out, req)
	}
}

type nullWriter struct{ h http.Header }

func (w *nullWriter) Header() http.Header         { return w.h }
func (w *nullWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *nullWriter) WriteHeader(int)             {}

// BenchmarkBalances compares advisory reads of a balance over HTTP with an Echo handler that does nothing, on the same client.
func BenchmarkBalances(b *testing.B) {
	w := newWorld(b)
	w.grant(b, "100", nil)
	id := w.admin(b, "GET", "/v1/customers/acme", nil).text(b, "id")
	e := echo.New()
	e.GET("/nothing", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	nothing := httptest.NewServer(e)
	defer nothing.Close()
	for name, url := range map[string]string{"nothing": nothing.URL + "/nothing", "balances": w.url + "/v1/customers/" + id + "/balances"} {
		b.Run(name, func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					req, err := http.NewRequest("GET", url, nil)
					if err != nil {
						b.Error(err)
						return
					}
					req.Header.Set("Authorization", "Bearer "+w.secret["product"])
					res, err := client.Do(req)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
					if res.StatusCode != 200 {
						b.Errorf("status %d", res.StatusCode)
						return
					}
				}
			})
		})
	}
}

// BenchmarkConsume is the whole path over HTTP with 64 clients on one wallet: for profiles of the API's share. The figures that count are those
// of the program in bench/, whose client is lean.
func BenchmarkConsume(b *testing.B) {
	w := newWorld(b)
	w.grant(b, "9000000000", nil)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequest("POST", w.url+"/v1/consume", strings.NewReader(consumptions[0]))
			if err != nil {
				b.Error(err)
				return
			}
			req.Header.Set("Authorization", "Bearer "+w.secret["product"])
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Idempotency-Key", w.newKey())
			res, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode != 200 {
				b.Errorf("status %d", res.StatusCode)
				return
			}
		}
	})
}

// BenchmarkProblem writes a denial.
func BenchmarkProblem(b *testing.B) {
	e := credit.Errorf(credit.InsufficientCredits, "12.5 CRD are needed and 3 are available.").With("unit", "CRD").With("required", "12.5").With("balance", "3")
	id := credit.NewID[credit.RequestID]()
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = appendProblem(buf[:0], e, id)
	}
	if !strings.Contains(string(buf), "insufficient") {
		b.Fatal(string(buf))
	}
}
