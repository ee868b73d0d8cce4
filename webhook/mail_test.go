package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	netmail "net/mail"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// mailServer is an SMTP server that keeps what it takes.
type mailServer struct {
	user, password string
	refuse         *smtp.SMTPError

	mu    sync.Mutex
	taken []letterTaken
}

type letterTaken struct {
	from, to string
	body     []byte
}

func (s *mailServer) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &mailSession{server: s}, nil
}

type mailSession struct {
	server *mailServer
	known  bool
	letterTaken
}

func (s *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if s.known = user == s.server.user && password == s.server.password; !s.known {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	if s.server.user != "" && !s.known {
		return smtp.ErrAuthRequired
	}
	s.from = from
	return nil
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.server.refuse != nil {
		return s.server.refuse
	}
	s.to = to
	return nil
}

func (s *mailSession) Data(r io.Reader) (err error) {
	if s.body, err = io.ReadAll(r); err == nil {
		s.server.mu.Lock()
		s.server.taken = append(s.server.taken, s.letterTaken)
		s.server.mu.Unlock()
	}
	return err
}

func (s *mailSession) Reset()        {}
func (s *mailSession) Logout() error { return nil }

// certificate is one for 127.0.0.1, and who trusts it.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

func (s *mailServer) serve(t *testing.T, security string) *SMTP {
	t.Helper()
	srv := smtp.NewServer(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	server, client := certificate(t)
	switch security {
	case "starttls":
		srv.TLSConfig = server
	case "tls":
		l = tls.NewListener(l, server)
	default:
		srv.AllowInsecureAuth = true
	}
	srv.Domain, srv.ErrorLog = "127.0.0.1", quiet{}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return &SMTP{Host: "127.0.0.1", Port: port, From: "billing@example.com", Security: security, Roots: client, Username: s.user, Password: s.password}
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

func alertEvent() db.EventRow {
	return db.EventRow{ID: credit.NewID[credit.EventID](), Type: "alert.fired", Subject: "alr_1", At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		Data: []byte(`{"alert":{"name":"Nearly\r\nBcc: evil@example.com empty – Überzug","message":"80 CREDIT are left."}}`)}
}

func TestMail(t *testing.T) {
	for _, security := range []string{"starttls", "tls", "none"} {
		server := &mailServer{}
		if security != "none" { // credentials do not go out in clear
			server.user, server.password = "billing", "a secret"
		}
		e := alertEvent()
		a := NewClient(Timing{}, Allow{}, server.serve(t, security), "test").Attempt(t.Context(), &db.Pending{URL: "mailto:team@example.com", Event: e})
		if !a.Delivered || a.Code != 250 || len(server.taken) != 1 {
			t.Fatalf("%s: %+v, %d taken", security, a, len(server.taken))
		}
		got := server.taken[0]
		m, err := netmail.ReadMessage(bytes.NewReader(got.body))
		if err != nil || got.from != "billing@example.com" || got.to != "team@example.com" {
			t.Fatalf("%s: from %s to %s, %v", security, got.from, got.to, err)
		}
		if id := m.Header.Get("Message-ID"); id != "<"+e.ID.String()+"@example.com>" {
			t.Errorf("%s: Message-ID %s", security, id)
		}
		if m.Header.Get("Bcc") != "" || m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("Subject") == "" {
			t.Errorf("%s: headers %v", security, m.Header)
		}
		body, err := io.ReadAll(m.Body)
		if err != nil || !strings.Contains(string(body), "80 CREDIT are left.") || !strings.Contains(string(body), e.ID.String()) {
			t.Errorf("%s: %v\n%s", security, err, body)
		}
	}
}

func TestMailFailures(t *testing.T) {
	p := &db.Pending{URL: "mailto:team@example.com", Event: alertEvent()}
	full := &mailServer{refuse: &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "a secret"}}
	if a := NewClient(Timing{}, Allow{}, full.serve(t, "none"), "test").Attempt(t.Context(), p); a.Delivered || a.Code != 452 || a.Error != "the mail server answered 452" {
		t.Errorf("full: %+v", a)
	}
	known := &mailServer{user: "billing", password: "a secret"}
	wrong := known.serve(t, "starttls")
	wrong.Password = "another"
	if a := NewClient(Timing{}, Allow{}, wrong, "test").Attempt(t.Context(), p); a.Delivered || strings.Contains(a.Error, "another") || len(known.taken) != 0 {
		t.Errorf("wrong password: %+v", a)
	}
	plain := (&mailServer{}).serve(t, "none")
	plain.Security = "starttls"
	if a := NewClient(Timing{}, Allow{}, plain, "test").Attempt(t.Context(), p); a.Delivered {
		t.Error("it was sent in clear")
	}
	strange := (&mailServer{}).serve(t, "tls")
	strange.Roots = nil
	if a := NewClient(Timing{}, Allow{}, strange, "test").Attempt(t.Context(), p); a.Delivered {
		t.Error("a server that nobody vouches for was trusted")
	}
	nobody := &SMTP{Host: "127.0.0.1", Port: 1, From: "billing@example.com", Security: "none"}
	if a := NewClient(Timing{}, Allow{}, nobody, "test").Attempt(t.Context(), p); a.Error != "the mail server refused the connection" {
		t.Errorf("nobody listens: %+v", a)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	silent := &SMTP{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, From: "billing@example.com", Security: "none"}
	if a := NewClient(Timing{Timeout: 300 * time.Millisecond}, Allow{}, silent, "test").Attempt(t.Context(), p); a.Error != "no answer of the mail server in time" {
		t.Errorf("nobody answers: %+v", a)
	}
	if a := NewClient(Timing{}, Allow{}, nil, "test").Attempt(t.Context(), p); !strings.Contains(a.Error, "no mail server") {
		t.Errorf("there is none: %+v", a)
	}
}

func TestMailAddresses(t *testing.T) {
	for _, s := range []string{"mailto:team@example.com", "mailto:a.b+c@mail.example.com"} {
		if err := CheckURL(s, Allow{Mail: true}); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if CheckURL(s, Allow{}) == nil {
			t.Errorf("%s is allowed without a mail server", s)
		}
	}
	for _, s := range []string{"mailto:", "mailto:team", "mailto:a@example.com,b@example.com", "mailto:a@example.com?bcc=b@example.com", "mailto:Team <a@example.com>",
		"mailto:a@example.com\r\nBcc: b@example.com", "mailto:a%0Ab@example.com", "mailto:\"a b\"@example.com", "mailto://a@example.com", "mailto:" + strings.Repeat("a", 250) + "@example.com",
		"mailto:a@bücher.example"} {
		if err := CheckURL(s, Allow{Mail: true}); credit.CodeOf(err) != credit.InvalidRequest {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestParseSMTP(t *testing.T) {
	for s, want := range map[string]SMTP{
		"smtp://mail.example.com?from=a@example.com":                         {Host: "mail.example.com", Port: 587, From: "a@example.com", Security: "starttls"},
		"smtp://u:p%40s@mail.example.com:2525/?from=a@example.com":           {Host: "mail.example.com", Port: 2525, Username: "u", Password: "p@s", From: "a@example.com", Security: "starttls"},
		"smtps://mail.example.com?from=a@example.com":                        {Host: "mail.example.com", Port: 465, From: "a@example.com", Security: "tls"},
		"smtp://127.0.0.1:" + strconv.Itoa(25) + "?security=none&from=a@b.c": {Host: "127.0.0.1", Port: 25, From: "a@b.c", Security: "none"},
	} {
		if got, err := ParseSMTP(s); err != nil || *got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "mail.example.com", "http://mail.example.com?from=a@b.c", "smtp://mail.example.com", "smtp://?from=a@b.c", "smtp://h:0?from=a@b.c", "smtp://h:x?from=a@b.c",
		"smtp://h?from=a", "smtps://h?security=none&from=a@b.c", "smtp://h?security=maybe&from=a@b.c", "smtp://u:secret@h:99999?from=a@b.c"} {
		if _, err := ParseSMTP(s); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzLetter(f *testing.F) {
	f.Add("alert.fired", `{"alert":{"name":"a\nb","message":"m"}}`)
	f.Add("grant.depleted", `{"grant":{}}`)
	f.Fuzz(func(t *testing.T, kind, data string) {
		subject, _, err := letter(db.EventRow{Type: kind, Data: []byte(data)})
		if err == nil && strings.ContainsAny(strings.TrimPrefix(subject, kind), "\r\n") {
			t.Errorf("the subject breaks: %q", subject)
		}
	})
}
