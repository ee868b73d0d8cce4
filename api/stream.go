package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/webhook"
)

// Bounds of streams.
const (
	maxStreams         = 1000 // in one process
	maxCustomerStreams = 20   // of one customer in one process
	streamPage         = 100  // events read at once
	streamWrite        = 10 * time.Second
)

// streams follows the customers that somebody watches. One query at a time asks for all of them where they stand, and wakes the streams of those
// that have moved. Postgres tells nobody by itself (NOTIFY), for that would have all commits wait for one lock, and consumption with them.
type streams struct {
	store *db.Store
	every time.Duration // between two queries, and so between two balances of one stream
	beat  time.Duration // between two signs of life
	open  prometheus.Gauge
	sent  *prometheus.CounterVec
	ended chan struct{} // closed when the server stops

	mu      sync.Mutex
	n       int
	watched map[credit.CustomerID]map[*stream]struct{}
	busy    bool // somebody asks
}

// stream is one who watches.
type stream struct {
	wake chan struct{} // has an element when the customer has moved

	mu    sync.Mutex
	stand db.Watched
}

func newStreams(store *db.Store, r prometheus.Registerer) *streams {
	s := &streams{store: store, every: 500 * time.Millisecond, beat: 15 * time.Second, ended: make(chan struct{}), watched: make(map[credit.CustomerID]map[*stream]struct{}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "tallystick", Subsystem: "http", Name: "streams", Help: "Streams that are open."}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tallystick", Subsystem: "http", Name: "stream_messages_total", Help: "Messages sent on streams.",
		}, []string{"kind"}),
	}
	r.MustRegister(s.open, s.sent)
	return s
}

var errStreams = credit.Errorf(credit.Overloaded, "Too many streams are open.")

// join begins to watch a customer that stands so.
func (s *streams) join(c credit.CustomerID, stand db.Watched) (*stream, error) {
	st := &stream{wake: make(chan struct{}, 1), stand: stand}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n >= maxStreams || len(s.watched[c]) >= maxCustomerStreams {
		return nil, errStreams
	}
	if s.watched[c] == nil {
		s.watched[c] = make(map[*stream]struct{})
	}
	s.watched[c][st] = struct{}{}
	s.n++
	s.open.Inc()
	if !s.busy {
		s.busy = true
		go s.ask()
	}
	return st, nil
}

func (s *streams) leave(c credit.CustomerID, st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.watched[c], st); len(s.watched[c]) == 0 {
		delete(s.watched, c)
	}
	s.n--
	s.open.Dec()
}

// ask asks where customers stand for as long as anybody watches.
func (s *streams) ask() {
	for {
		s.mu.Lock()
		ids := make([]credit.CustomerID, 0, len(s.watched))
		for id := range s.watched {
			ids = append(ids, id)
		}
		s.busy = len(ids) > 0
		s.mu.Unlock()
		if len(ids) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		stands, err := s.store.WatchHeads(ctx, ids)
		cancel()
		if err == nil { // else Postgres is away, and the streams wait as they would if nothing happened
			s.tell(stands)
		}
		time.Sleep(s.every)
	}
}

func (s *streams) tell(stands map[credit.CustomerID]db.Watched) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, stand := range stands {
		for st := range s.watched[id] {
			st.mu.Lock()
			moved := st.stand != stand
			st.stand = stand
			st.mu.Unlock()
			if moved {
				select {
				case st.wake <- struct{}{}:
				default:
				}
			}
		}
	}
}

func (st *stream) stands() db.Watched {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.stand
}

// streamCustomer is GET /v1/customers/{customer}/stream: server-sent events of the customer's balances and of what happens to it. The id of each
// message is the number of the last event sent; whoever comes back with it misses none.
func (s *Server) streamCustomer(ctx context.Context, c *call) error {
	q, err := c.query("after")
	if err != nil {
		return err
	}
	customer, err := c.pathCustomer(ctx)
	if err != nil {
		return err
	}
	found, err := s.store.WatchHeads(ctx, []credit.CustomerID{customer})
	if err != nil {
		return err
	}
	stand, ok := found[customer]
	if !ok {
		return credit.Errorf(credit.CustomerNotFound, "There is no customer %s.", customer)
	}
	after, err := resumeAfter(c, q, stand.Seq)
	if err != nil {
		return err
	}
	st, err := s.streams.join(customer, stand)
	if err != nil {
		return err
	}
	defer s.streams.leave(customer, st)
	out := &eventStream{w: c.w, control: http.NewResponseController(c.w), sent: s.streams.sent}
	if err := out.control.SetReadDeadline(time.Time{}); err != nil { // a stream outlives what a request may take
		return fmt.Errorf("begin a stream: %w", err)
	}
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies pass it on as it comes
	c.status = http.StatusOK
	s.follow(ctx, c, customer, st, out, after)
	return nil
}

// resumeAfter reads the number of the last event that the caller has, from Last-Event-ID or after; without either, nothing before now is sent.
func resumeAfter(c *call, q query, newest int64) (int64, error) {
	name, text := "after", q.text("after")
	if id := c.r.Header.Get("Last-Event-ID"); id != "" {
		name, text = "Last-Event-ID", id
	}
	if text == "" {
		return newest, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > newest || strconv.FormatInt(n, 10) != text {
		return 0, credit.Invalid(name, "This is not the number of an event of this customer: the newest is %d.", newest)
	}
	return n, nil
}

// follow sends until the caller goes, the server stops, or the key is no longer in force. What cannot be read now is read at the next turn.
func (s *Server) follow(ctx context.Context, c *call, customer credit.CustomerID, st *stream, out *eventStream, after int64) {
	beat := time.NewTicker(s.streams.beat)
	defer beat.Stop()
	shown := int64(-1) // the version of the balance sent last
	for {
		stand := st.stands()
		behind := false
		if stand.Ver != shown {
			if err := out.balance(ctx, s, customer, stand.Ver, after); errors.Is(err, errStream) {
				return
			} else if behind = err != nil; !behind {
				shown = stand.Ver
			}
		}
		for !behind && after < stand.Seq {
			rows, err := s.store.EventsAfter(ctx, customer, after, streamPage)
			if behind = err != nil || len(rows) == 0; behind {
				break
			}
			for _, e := range rows {
				if out.event(e) != nil {
					return
				}
				after = e.Seq
			}
		}
		var again <-chan time.Time
		if behind {
			again = time.After(s.streams.every)
		}
		select {
		case <-st.wake:
		case <-again:
		case <-beat.C:
			if _, err := s.keys.find(ctx, c.r.Header.Get("Authorization"), time.Now()); credit.CodeOf(err) == credit.Unauthenticated || out.write("", nil) != nil {
				return
			}
		case <-ctx.Done():
			return
		case <-s.streams.ended:
			return
		}
	}
}

// eventStream writes server-sent events.
type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	sent    *prometheus.CounterVec
	buf     []byte
}

// errStream says that nobody reads any longer.
var errStream = errors.New("the stream broke")

func (o *eventStream) balance(ctx context.Context, s *Server, customer credit.CustomerID, ver, after int64) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	doc, err := s.service.AppendBalanceSince(ctx, nil, customer, ver)
	if err != nil {
		return err
	}
	return o.message("balance", after, doc)
}

func (o *eventStream) event(e db.EventRow) error {
	doc, err := json.Marshal(webhook.MessageOf(e))
	if err != nil {
		return errors.Join(errStream, err)
	}
	return o.message("event", e.Seq, doc)
}

// message writes one message; a document is one line.
func (o *eventStream) message(kind string, id int64, doc []byte) error {
	b := append(o.buf[:0], "id: "...)
	b = strconv.AppendInt(b, id, 10)
	b = append(b, "\nevent: "...)
	b = append(b, kind...)
	b = append(b, "\ndata: "...)
	b = append(append(b, doc...), "\n\n"...)
	o.buf = b
	return o.write(kind, b)
}

// write sends bytes, or without any a sign of life.
func (o *eventStream) write(kind string, b []byte) error {
	if b == nil {
		kind, b = "heartbeat", []byte(":\n\n")
	}
	if err := o.control.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil {
		return errors.Join(errStream, err)
	}
	if _, err := o.w.Write(b); err != nil {
		return errors.Join(errStream, err)
	}
	if err := o.control.Flush(); err != nil {
		return errors.Join(errStream, err)
	}
	o.sent.WithLabelValues(kind).Inc()
	return nil
}
