package webhook

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

func TestPublicAddresses(t *testing.T) {
	for _, s := range []string{"8.8.8.8", "1.1.1.1", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "192.167.255.255", "169.253.255.255",
		"198.17.255.255", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "2001:4860:4860::8888", "2003::1"} {
		if !Public(netip.MustParseAddr(s)) {
			t.Errorf("%s is refused", s)
		}
	}
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254", "169.254.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
		"100.64.0.1", "100.100.100.200", "100.127.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1",
		"224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:169.254.169.254", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1",
		"2001::1", "2001:0:7f00:1::", "2001:db8::1", "2002:7f00:1::1", "2002:a9fe:a9fe::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
		"2606:4700::1%eth0", "fec0::1", "ff02::1", "4000::1",
	} {
		if Public(netip.MustParseAddr(s)) {
			t.Errorf("%s is allowed", s)
		}
	}
	if Public(netip.Addr{}) {
		t.Error("no address is allowed")
	}
}

func TestURLs(t *testing.T) {
	for _, s := range []string{"https://example.com", "https://example.com:8443/a/b?c=d", "https://8.8.8.8/x", "https://[2606:4700:4700::1111]/", "https://xn--bcher-kva.example/"} {
		if err := CheckURL(s, Allow{}); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	bad := []string{"", "example.com", "/path", "//example.com", "https://", "https:///x", "https://:443/", "https:example.com", "http://example.com", "ftp://example.com",
		"file:///etc/passwd", "HTTPS//example.com", "https://user@example.com", "https://user:secret@example.com", "https://example.com/#x", "https://example.com/#",
		"https://exa mple.com", "https://example.com/\n", "https://bücher.example/", "https://example.com/" + strings.Repeat("x", maxURL)}
	private := []string{"https://localhost", "https://LOCALHOST./", "https://a.localhost", "https://127.0.0.1:8443/", "https://[::1]/", "https://[::ffff:127.0.0.1]/",
		"https://169.254.169.254/latest/meta-data", "https://10.1.2.3/", "https://[fd00::1]/"}
	for _, s := range append(bad, private...) {
		if err := CheckURL(s, Allow{}); credit.CodeOf(err) != credit.InvalidRequest {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range bad {
		if err := CheckURL(s, Allow{Private: true}); err == nil {
			t.Errorf("%q is allowed with private addresses", s)
		}
	}
	for _, s := range private {
		if err := CheckURL(s, Allow{Private: true}); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	if CheckURL("http://127.0.0.1:1/", Allow{HTTP: true}) == nil || CheckURL("http://example.com/", Allow{HTTP: true}) != nil ||
		CheckURL("http://127.0.0.1:1/", Allow{HTTP: true, Private: true}) != nil {
		t.Error("what is allowed is not what was asked")
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{"https://example.com/x", "https://[::1]:1/", "https://a:b@c/", "http://127.0.0.1", "https://0x7f.1/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckURL(s, Allow{}) != nil {
			return
		}
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" || u.User != nil || u.Hostname() == "" {
			t.Errorf("%q is allowed", s)
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && !Public(a) {
			t.Errorf("%q is allowed", s)
		}
	})
}

// nameServer answers every A question with one address and every AAAA question with another; one it has not is no answer.
type nameServer struct {
	conn   net.PacketConn
	v4, v6 netip.Addr
}

func newNameServer(t *testing.T, v4, v6 netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &nameServer{conn: conn, v4: v4, v6: v6}
	go s.serve()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func (s *nameServer) serve() {
	b := make([]byte, 512)
	for {
		n, from, err := s.conn.ReadFrom(b)
		if err != nil {
			return
		}
		end := 12
		for end < n && b[end] != 0 {
			end += int(b[end]) + 1
		}
		end += 5 // the root label, type and class
		if end > n {
			continue
		}
		a := s.v4
		if b[end-3] == 28 {
			a = s.v6
		}
		answer := append([]byte{b[0], b[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, b[12:end]...)
		if a.IsValid() && (b[end-3] == 1 || b[end-3] == 28) {
			answer[7] = 1
			data := a.AsSlice()
			answer = append(answer, 0xc0, 12, 0, b[end-3], 0, 1, 0, 0, 0, 0, 0, byte(len(data)))
			answer = append(answer, data...)
		}
		_, _ = s.conn.WriteTo(answer, from)
	}
}

// A public name that resolves to an address that is not public is not dialled, whatever family it is of.
func TestWhatANameResolvesToIsChecked(t *testing.T) {
	var reached atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	pending := &db.Pending{URL: "http://hooks.example.com:" + port + "/", Secrets: [][]byte{NewSecret()}, Event: db.EventRow{ID: credit.NewID[credit.EventID](), Data: []byte("{}")}}
	try := func(v4, v6 string, allow Allow) (int, string) {
		var a4, a6 netip.Addr
		if v4 != "" {
			a4 = netip.MustParseAddr(v4)
		}
		if v6 != "" {
			a6 = netip.MustParseAddr(v6)
		}
		d := dialer(allow)
		d.Resolver = newNameServer(t, a4, a6)
		return newClient(Timing{Timeout: 5 * time.Second}, allow, d, "test").send(t.Context(), pending, time.Now())
	}
	for _, addr := range [][2]string{{"127.0.0.1", ""}, {"", "::1"}, {"169.254.169.254", ""}, {"10.0.0.1", ""}, {"", "fd00:ec2::254"}, {"", "::ffff:127.0.0.1"}, {"127.0.0.1", "::1"},
		{"0.0.0.0", ""}, {"", "64:ff9b::7f00:1"}} {
		code, fault := try(addr[0], addr[1], Allow{HTTP: true})
		if code != 0 || !strings.Contains(fault, "is not a public address") {
			t.Errorf("%v: %d %q", addr, code, fault)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests came", n)
	}
	if code, fault := try("127.0.0.1", "", Allow{HTTP: true, Private: true}); code != 200 || fault != "" || reached.Load() != 1 {
		t.Errorf("allowed: %d %q", code, fault)
	}
	if err := control("udp4", "8.8.8.8:53"); !errors.As(err, new(notPublic)) {
		t.Errorf("udp: %v", err)
	}
}

// An attempt ends in time, reads little, follows nothing and explains itself.
func TestAttempts(t *testing.T) {
	release := make(chan struct{})
	var elsewhere atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	mux.HandleFunc("/gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	mux.HandleFunc("/error", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "a secret", http.StatusInternalServerError)
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/breaks", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	defer close(release)
	c := NewClient(Timing{Timeout: 500 * time.Millisecond}, Allow{Private: true, HTTP: true}, nil, "test")
	for path, want := range map[string]struct {
		code  int
		error string
	}{
		"/ok": {204, ""}, "/redirect": {307, "redirects are not followed"}, "/gone": {410, "the answer was 410"}, "/error": {500, "the answer was 500"},
		"/slow": {0, "no answer in time"}, "/endless": {200, ""}, "/breaks": {0, "the connection broke"},
	} {
		a := c.Attempt(t.Context(), &db.Pending{URL: srv.URL + path, Secrets: [][]byte{NewSecret()}, Event: db.EventRow{ID: credit.NewID[credit.EventID](), Data: []byte("{}")}})
		if a.Code != want.code || a.Error != want.error || a.Delivered != (want.error == "") {
			t.Errorf("%s: %+v", path, a)
		}
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
	gone := NewClient(Timing{}, Allow{Private: true, HTTP: true}, nil, "test")
	p := &db.Pending{URL: "http://127.0.0.1:1/", Event: db.EventRow{ID: credit.NewID[credit.EventID](), Data: []byte("{}")}}
	if a := gone.Attempt(t.Context(), p); a.Error != "the connection was refused" {
		t.Errorf("nobody listens: %+v", a)
	}
	if a := NewClient(Timing{}, Allow{}, nil, "test").Attempt(t.Context(), p); !strings.Contains(a.Error, "https") {
		t.Errorf("plain HTTP is no longer allowed: %+v", a)
	}
}

// The time between attempts grows threefold from 5 seconds to 8 hours, within a half of that, and three days hold no more than some twenty.
func TestDelay(t *testing.T) {
	timing := Timing{}.WithDefaults()
	want := []time.Duration{5, 15, 45, 135, 405, 1215, 3645, 10935, 28800, 28800, 28800}
	for i, w := range want {
		w *= time.Second
		for range 200 {
			if d := timing.Delay(i + 1); d < w/2 || d > w+w/2 {
				t.Fatalf("after %d failures: %s", i+1, d)
			}
		}
	}
	total, n := time.Duration(0), 1
	for ; total < timing.GiveUp; n++ {
		total += timing.Delay(n)
	}
	if n < 12 || n > 30 {
		t.Errorf("%d attempts in %s", n, total)
	}
	if d := timing.Delay(1000); d > 12*time.Hour {
		t.Errorf("after a thousand failures: %s", d)
	}
}
