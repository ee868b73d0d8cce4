// Package faults holds what the product answered while things broke against what Postgres says. The history of a client and the database are
// all that it looks at. The faults themselves are in its tests, which run the real program.
package faults

import (
	"sync"
	"time"

	"github.com/tallystick/tallystick/credit"
)

// History is everything that a client asked and was answered, in memory. Its methods may be called from many goroutines.
type History struct {
	Start time.Time // zero of all instants in it

	mu    sync.Mutex
	calls []*Call
}

// NewHistory begins a history now.
func NewHistory() *History { return &History{Start: time.Now()} }

// Kind is what a call asks for.
type Kind string

// The kinds of calls that a client makes.
const (
	Consume Kind = "consume"
	Grant   Kind = "grant"
	Change  Kind = "change" // refund, void, extend, freeze or unfreeze
	Read    Kind = "read"   // strong balance; it has no key
)

// Call is one request, repeated under one key until it has a final answer.
type Call struct {
	Kind     Kind
	Key      string // as the client sends it; "" for a read
	Customer credit.CustomerID
	Unit     string
	Amount   credit.Amount // of a consumption or grant, in steps
	Dims     credit.Dimensions
	Path     string
	Body     string

	history  *History
	attempts []Attempt
}

// Attempt is one try of a call. Instants are since the history's start.
type Attempt struct {
	Process  int
	Sent     time.Duration
	Answered time.Duration
	Request  string // the id that the answer gave the attempt
	Status   int    // of HTTP; 0: no answer
	Code     string // of the problem; "" when there is none
	Body     string
	Err      error // why there was no answer
}

// Final tells whether the attempt settled the call: it was done, or refused for good.
func (a *Attempt) Final() bool {
	return a.Status >= 200 && a.Status < 500 && a.Status != 429 && a.Status != 401
}

// kept tells whether the answer is kept under its key, so that every attempt gets the very same.
func (a *Attempt) kept() bool { return a.Status < 300 || a.Status == 402 || a.Status == 409 }

// Undecided tells whether the answer promises that this attempt changed nothing.
func (a *Attempt) Undecided() bool {
	return a.Code == string(credit.Overloaded) || a.Code == string(credit.NotExecuted) || a.Code == string(credit.ClockSkew)
}

// Add begins a call.
func (h *History) Add(c *Call) {
	c.history = h
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, c)
}

// Begin notes that an attempt is sent and returns how its outcome is noted, which gives it back with its times. What was begun and never
// ended counts as having no answer.
func (c *Call) Begin(process int) (end func(Attempt) Attempt) {
	h := c.history
	h.mu.Lock()
	defer h.mu.Unlock()
	i := len(c.attempts)
	c.attempts = append(c.attempts, Attempt{Process: process, Sent: time.Since(h.Start), Answered: -1})
	return func(a Attempt) Attempt {
		h.mu.Lock()
		defer h.mu.Unlock()
		a.Process, a.Sent, a.Answered = process, c.attempts[i].Sent, time.Since(h.Start)
		c.attempts[i] = a
		return a
	}
}

// Calls returns the calls so far.
func (h *History) Calls() []*Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*Call(nil), h.calls...)
}

// Attempts returns the attempts so far, in order of sending.
func (c *Call) Attempts() []Attempt {
	c.history.mu.Lock()
	defer c.history.mu.Unlock()
	return append([]Attempt(nil), c.attempts...)
}

// outcome sums up a call.
type outcome struct {
	final     *Attempt // the first final one; nil: none
	sent      time.Duration
	answered  time.Duration // of the first final one
	undecided bool          // every attempt was answered, and promised to have changed nothing
	differing *Attempt      // a final one with another answer than the first; nil: none
}

func (c *Call) outcome() outcome {
	o := outcome{undecided: true}
	for i, a := range c.Attempts() {
		if i == 0 || a.Sent < o.sent {
			o.sent = a.Sent
		}
		o.undecided = o.undecided && a.Undecided()
		if !a.Final() {
			continue
		}
		switch {
		case o.final == nil:
			o.final, o.answered = &a, a.Answered
		case a.Status != o.final.Status || a.Code != o.final.Code || a.kept() && a.Body != o.final.Body && c.Key != "":
			o.differing = &a
		}
		o.answered = min(o.answered, a.Answered)
	}
	return o
}
