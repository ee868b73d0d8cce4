package webhook_test

import (
	"bytes"
	"io"
	"net"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	. "github.com/tallystick/tallystick/webhook"
	"github.com/tallystick/tallystick/webhook/webhooktest"
)

func alertEvent() db.EventRow {
	return db.EventRow{ID: credit.NewID[credit.EventID](), Type: "alert.fired", Subject: "alr_1", At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		Data: []byte(`{"alert":{"name":"Nearly\r\nBcc: evil@example.com empty – Überzug","message":"80 CREDIT are left."}}`)}
}

func TestMail(t *testing.T) {
	for _, security := range []string{"starttls", "tls", "none"} {
		server := &webhooktest.MailServer{}
		if security != "none" { // credentials do not go out in clear
			server.User, server.Password = "billing", "a secret"
		}
		e := alertEvent()
		a := NewClient(Timing{}, Allow{}, server.Serve(t, security), "test").Attempt(t.Context(), &db.Pending{URL: "mailto:team@example.com", Event: e})
		if !a.Delivered || a.Code != 250 || len(server.Taken()) != 1 {
			t.Fatalf("%s: %+v, %d taken", security, a, len(server.Taken()))
		}
		got := server.Taken()[0]
		m, err := netmail.ReadMessage(bytes.NewReader(got.Body))
		if err != nil || got.From != "billing@example.com" || got.To != "team@example.com" {
			t.Fatalf("%s: from %s to %s, %v", security, got.From, got.To, err)
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
	full := &webhooktest.MailServer{Refuse: &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "a secret"}}
	if a := NewClient(Timing{}, Allow{}, full.Serve(t, "none"), "test").Attempt(t.Context(), p); a.Delivered || a.Code != 452 || a.Error != "the mail server answered 452" {
		t.Errorf("full: %+v", a)
	}
	known := &webhooktest.MailServer{User: "billing", Password: "a secret"}
	wrong := known.Serve(t, "starttls")
	wrong.Password = "another"
	if a := NewClient(Timing{}, Allow{}, wrong, "test").Attempt(t.Context(), p); a.Delivered || strings.Contains(a.Error, "another") || len(known.Taken()) != 0 {
		t.Errorf("wrong Password: %+v", a)
	}
	plain := (&webhooktest.MailServer{}).Serve(t, "none")
	plain.Security = "starttls"
	if a := NewClient(Timing{}, Allow{}, plain, "test").Attempt(t.Context(), p); a.Delivered {
		t.Error("it was sent in clear")
	}
	strange := (&webhooktest.MailServer{}).Serve(t, "tls")
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
