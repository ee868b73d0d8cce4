package webhooktest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/tallystick/tallystick/webhook"
)

// MailServer is an SMTP server that keeps what it takes.
type MailServer struct {
	User, Password string          // that it asks for; empty: none
	Refuse         *smtp.SMTPError // the answer to every recipient; nil: all are taken

	mu    sync.Mutex
	taken []Letter
}

// Letter is a message that was taken.
type Letter struct {
	From, To string
	Body     []byte
}

// NewSession is called by the server.
func (s *MailServer) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &mailSession{server: s}, nil
}

type mailSession struct {
	server *MailServer
	known  bool
	Letter
}

func (s *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if s.known = user == s.server.User && password == s.server.Password; !s.known {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	if s.server.User != "" && !s.known {
		return smtp.ErrAuthRequired
	}
	s.From = from
	return nil
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.server.Refuse != nil {
		return s.server.Refuse
	}
	s.To = to
	return nil
}

func (s *mailSession) Data(r io.Reader) (err error) {
	if s.Body, err = io.ReadAll(r); err == nil {
		s.server.mu.Lock()
		s.server.taken = append(s.server.taken, s.Letter)
		s.server.mu.Unlock()
	}
	return err
}

func (s *mailSession) Reset()        {}
func (s *mailSession) Logout() error { return nil }

// certificate is one for 127.0.0.1, and who trusts it.
func certificate(t testing.TB) (server, client *tls.Config) {
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

// Taken returns the messages that came, in order.
func (s *MailServer) Taken() []Letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.taken)
}

// Serve serves until the test ends, in one of the ways of [webhook.SMTP], and returns how to reach it.
func (s *MailServer) Serve(t testing.TB, security string) *webhook.SMTP {
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
	return &webhook.SMTP{Host: "127.0.0.1", Port: port, From: "billing@example.com", Security: security, Roots: client, Username: s.User, Password: s.Password}
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}
