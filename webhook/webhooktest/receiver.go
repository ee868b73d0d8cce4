// Package webhooktest has a receiver of webhooks for tests: it verifies what comes, and knows in which order it came.
package webhooktest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tallystick/tallystick/webhook"
)

// Receiver is an endpoint's server.
type Receiver struct {
	*httptest.Server

	mu       sync.Mutex
	secret   []byte
	answer   func(webhook.Message) int
	came     []webhook.Message            // every message, each time that it came
	accepted map[string][]webhook.Message // by customer, each once, in the order in which they were first answered with 2xx
	wrong    []string
	signed   int // signatures of the newest message
}

// New starts a receiver that answers what answer says for each message: a status, or 0 to break the connection. It is called by one message at a
// time of those that come together only if it does not block. The test fails in the end if anything came unsigned or out of order.
func New(t testing.TB, answer func(webhook.Message) int) *Receiver {
	t.Helper()
	r := &Receiver{answer: answer, accepted: make(map[string][]webhook.Message)}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(func() {
		r.CloseClientConnections()
		r.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, w := range r.wrong {
			if t.Errorf("%s", w); i == 5 {
				break
			}
		}
	})
	return r
}

// Expect says by which secret messages are signed; "" lets every signature through.
func (r *Receiver) Expect(secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secret, _ = webhook.ParseSecret(secret)
}

// Answer changes what is answered.
func (r *Receiver) Answer(answer func(webhook.Message) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *Receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // who sent it is gone
	}
	var m webhook.Message
	err = json.Unmarshal(body, &m)
	r.mu.Lock()
	answer := r.answer
	switch {
	case err != nil:
		r.wrong = append(r.wrong, "this is no message: "+string(body))
	case req.Header.Get("webhook-id") != m.ID.String():
		r.wrong = append(r.wrong, "webhook-id is "+req.Header.Get("webhook-id")+" of "+string(body))
	case r.secret != nil:
		if err := webhook.Verify(r.secret, req.Header, body, time.Now()); err != nil {
			r.wrong = append(r.wrong, err.Error())
		}
	}
	r.came = append(r.came, m)
	r.signed = 1
	for _, c := range req.Header.Get("webhook-signature") {
		if c == ' ' {
			r.signed++
		}
	}
	r.mu.Unlock()
	status := answer(m)
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	if status/100 == 2 {
		r.accept(m)
	}
	w.Header().Set("Location", "/elsewhere")
	w.WriteHeader(status)
}

func customerOf(m webhook.Message) string {
	if m.CustomerID == nil {
		return ""
	}
	return m.CustomerID.String()
}

func (r *Receiver) accept(m webhook.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := customerOf(m)
	have := r.accepted[c]
	if slices.ContainsFunc(have, func(x webhook.Message) bool { return x.ID == m.ID }) {
		return // once more, which is allowed
	}
	if n := len(have); n > 0 && have[n-1].Seq >= m.Seq {
		r.wrong = append(r.wrong, "an event came after a later one: "+m.Type+" "+m.Subject)
	}
	r.accepted[c] = append(have, m)
}

// Accepted are the messages of a customer that were answered with 2xx, each once, in order; "" is what is about none.
func (r *Receiver) Accepted(customer string) []webhook.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.accepted[customer])
}

// Came is how often messages came.
func (r *Receiver) Came() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.came)
}

// Signatures is how many signatures the newest message had.
func (r *Receiver) Signatures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.signed
}
