package webhook

import (
	"strconv"
	"strings"
	"testing"

	"github.com/tallystick/tallystick/db"
)

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
