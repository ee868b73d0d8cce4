package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// Timing is how long an attempt may take, and when another one follows. Zero fields take the defaults named.
type Timing struct {
	Timeout time.Duration // of one attempt; 15 s
	First   time.Duration // after the first failure; 5 s
	Longest time.Duration // between two attempts; 8 h
	GiveUp  time.Duration // from a delivery's first attempt until its endpoint is disabled; 72 h
}

// WithDefaults fills in what is zero.
func (t Timing) WithDefaults() Timing {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{{&t.Timeout, 15 * time.Second}, {&t.First, 5 * time.Second}, {&t.Longest, 8 * time.Hour}, {&t.GiveUp, 72 * time.Hour}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return t
}

// Delay is how long to wait after a number of failures, 1 or more: three times as long after each, up to the longest, and from half of that to
// one and a half times as much, so that what failed together does not come back together.
func (t Timing) Delay(failures int) time.Duration {
	d := t.First
	for range failures - 1 {
		if d *= 3; d >= t.Longest {
			break
		}
	}
	d = min(d, t.Longest)
	return d/2 + rand.N(d+1)
}

// Client makes attempts. It follows no redirects, uses no proxy, reads little of an answer, and dials public addresses only unless allowed
// others.
type Client struct {
	http    *http.Client
	smtp    *SMTP // nil: no endpoint is a mail address
	timeout time.Duration
	allow   Allow
	version string
}

// NewClient makes a client; smtp may be nil, version is of the program, for the User-Agent.
func NewClient(t Timing, allow Allow, smtp *SMTP, version string) *Client {
	allow.Mail = smtp != nil
	c := newClient(t, allow, dialer(allow), version)
	c.smtp = smtp
	return c
}

func newClient(t Timing, allow Allow, d *net.Dialer, version string) *Client {
	t = t.WithDefaults()
	return &Client{allow: allow, version: version, timeout: t.Timeout, http: &http.Client{
		Timeout:       t.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: d.DialContext, TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: t.Timeout, MaxResponseHeaderBytes: 16 << 10,
			DisableCompression: true, MaxIdleConnsPerHost: 4, MaxIdleConns: 256, IdleConnTimeout: 90 * time.Second,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		},
	}}
}

// maxAnswer is how much of an answer is read, so that its connection can be used again.
const maxAnswer = 64 << 10

// Gone is the status by which an endpoint says that it wants no more messages.
const Gone = http.StatusGone

// Attempt sends an event and tells what came of it: it is delivered when the answer's status is 2xx, or when the mail
// server has taken it. RetryIn is left to the caller.
func (c *Client) Attempt(ctx context.Context, p *db.Pending) db.Attempt {
	a := db.Attempt{At: time.Now()}
	a.Code, a.Error = c.send(ctx, p, a.At)
	a.Took, a.Delivered = time.Since(a.At), a.Error == ""
	return a
}

func (c *Client) send(ctx context.Context, p *db.Pending, at time.Time) (code int, fault string) {
	var refused *credit.Error
	if errors.As(CheckURL(p.URL, c.allow), &refused) { // what is allowed may have changed
		return 0, refused.Detail
	}
	if IsMail(p.URL) {
		return c.smtp.send(ctx, p, at, c.timeout)
	}
	body, err := Body(p.Event)
	if err != nil {
		return 0, err.Error()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(body))
	if err != nil {
		return 0, "the URL is not valid"
	}
	id := p.Event.ID.String()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Tallystick/"+c.version)
	req.Header.Set(HeaderID, id)
	req.Header.Set(HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	req.Header.Set(HeaderSignature, Sign(p.Secrets, id, at, body))
	res, err := c.http.Do(req)
	if err != nil {
		return 0, explain(err)
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswer) // what it says does not matter, nor that it says no more
	switch {
	case res.StatusCode/100 == 2:
		return res.StatusCode, ""
	case res.StatusCode/100 == 3:
		return res.StatusCode, "redirects are not followed"
	}
	return res.StatusCode, fmt.Sprintf("the answer was %d", res.StatusCode)
}

// explain says what kept a message from being answered, without what the other side has sent.
func explain(err error) string {
	var private notPublic
	var dns *net.DNSError
	var op *net.OpError
	var timeout net.Error
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &private):
		return private.Error()
	case errors.As(err, &dns):
		return "the name could not be resolved"
	case errors.As(err, &certificate):
		return "the certificate is not valid"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.As(err, &op) && op.Op == "dial":
		return "the connection was refused"
	}
	return "the connection broke"
}
