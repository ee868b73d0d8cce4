package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/wneessen/go-mail"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// SMTP is the server that takes the messages for endpoints that are mail addresses.
type SMTP struct {
	Host               string
	Port               int
	Username, Password string // empty: without authentication
	From               string // the sender's address
	Security           string // starttls, tls (from the first byte), none
	Roots              *tls.Config
}

// mailScheme begins the URL of an endpoint that is a mail address.
const mailScheme = "mailto:"

// IsMail tells whether an endpoint is a mail address.
func IsMail(endpoint string) bool { return strings.HasPrefix(endpoint, mailScheme) }

// ParseSMTP reads smtp://user:password@host:port?from=address. smtp asks for TLS by STARTTLS, port 587; smtps speaks it from the beginning,
// port 465; smtp with security=none sends in clear.
func ParseSMTP(s string) (*SMTP, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("the mail server is no URL") // the error would repeat the password
	}
	q := u.Query()
	m := &SMTP{Host: u.Hostname(), From: q.Get("from"), Security: "starttls", Port: 587}
	switch security := q.Get("security"); {
	case u.Scheme == "smtps" && security == "":
		m.Security, m.Port = "tls", 465
	case u.Scheme == "smtp" && security == "none":
		m.Security = "none"
	case u.Scheme != "smtp" || security != "" && security != "starttls":
		return nil, errors.New("the URL of the mail server begins with smtp:// or smtps://, and security is starttls or none")
	}
	if p := u.Port(); p != "" {
		if m.Port, err = strconv.Atoi(p); err != nil || m.Port < 1 || m.Port > 65535 {
			return nil, errors.New("the port of the mail server is not valid")
		}
	}
	if m.Username = u.User.Username(); m.Username != "" {
		m.Password, _ = u.User.Password()
	}
	if m.Host == "" || mailAddress(m.From) != nil {
		return nil, errors.New("the URL of the mail server must have a host and ?from=, a mail address")
	}
	return m, nil
}

// mailAddress refuses what is not one plain mail address.
func mailAddress(s string) error {
	a, err := netmail.ParseAddress(s)
	if err != nil || a.Name != "" || a.Address != s || len(s) > 254 || strings.ContainsFunc(s, func(r rune) bool { return unprintable(r) || strings.ContainsRune(`"<>?%&#,;/`, r) }) {
		return credit.Errorf(credit.InvalidRequest, "This must be %s and one mail address.", mailScheme)
	}
	return nil
}

// send hands an event to the mail server. Its Message-ID is the event's id: what is sent twice can be seen to be the same.
func (m *SMTP) send(ctx context.Context, p *db.Pending, at time.Time, timeout time.Duration) (code int, fault string) {
	subject, text, err := letter(p.Event)
	if err != nil {
		return 0, err.Error()
	}
	msg := mail.NewMsg()
	_, domain, _ := strings.Cut(m.From, "@")
	if err := errors.Join(msg.From(m.From), msg.To(strings.TrimPrefix(p.URL, mailScheme))); err != nil {
		return 0, "the address is not valid"
	}
	msg.SetMessageIDWithValue(p.Event.ID.String() + "@" + domain)
	msg.SetDateWithValue(at)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody is to answer by a machine
	msg.Subject(subject)
	msg.SetBodyString(mail.TypeTextPlain, text)

	options := []mail.Option{mail.WithPort(m.Port), mail.WithTimeout(timeout)}
	switch m.Security {
	case "tls":
		options = append(options, mail.WithSSL())
	case "none":
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	default:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if m.Roots != nil {
		options = append(options, mail.WithTLSConfig(m.Roots))
	}
	if m.Username != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(m.Username), mail.WithPassword(m.Password))
	}
	c, err := mail.NewClient(m.Host, options...)
	if err != nil {
		return 0, "the mail server's settings are not valid"
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := c.DialAndSendWithContext(ctx, msg); err != nil {
		return explainMail(err)
	}
	return 250, ""
}

// explainMail says what kept a message from being taken, without what the server has said.
func explainMail(err error) (code int, fault string) {
	var refused *mail.SendError
	var dns *net.DNSError
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &refused) && refused.ErrorCode() > 0:
		return refused.ErrorCode(), fmt.Sprintf("the mail server answered %d", refused.ErrorCode())
	case errors.As(err, &dns):
		return 0, "the mail server's name could not be resolved"
	case errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded):
		return 0, "no answer of the mail server in time"
	case errors.As(err, &op) && op.Op == "dial":
		return 0, "the mail server refused the connection"
	}
	return 0, "the mail server could not be spoken to"
}

// letter writes an event for people: a subject, and its facts as text. What comes from outside is kept from breaking lines.
func letter(e db.EventRow) (subject, text string, err error) {
	var data map[string]json.RawMessage
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return "", "", fmt.Errorf("read event %s: %w", e.ID, err)
	}
	subject, lead := e.Type, ""
	var a struct{ Name, Message string }
	if doc, ok := data["alert"]; ok {
		if err := json.Unmarshal(doc, &a); err != nil {
			return "", "", fmt.Errorf("read event %s: %w", e.ID, err)
		}
		subject, lead = e.Type+": "+oneLine(a.Name), a.Message+"\n\n"
	}
	var b bytes.Buffer
	b.WriteString(lead)
	fmt.Fprintf(&b, "Event:    %s\nType:     %s\nAt:       %s\nSubject:  %s\n", e.ID, e.Type, e.At.UTC().Format(time.RFC3339), e.Subject)
	if !e.Customer.IsZero() {
		fmt.Fprintf(&b, "Customer: %s\n", e.Customer)
	}
	b.WriteString("\n")
	if err := json.Indent(&b, e.Data, "", "  "); err != nil {
		return "", "", fmt.Errorf("write event %s: %w", e.ID, err)
	}
	b.WriteString("\n")
	return subject, b.String(), nil
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
