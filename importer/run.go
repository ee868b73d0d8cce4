package importer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/shopspring/decimal"
)

// Config is how a file is sent.
type Config struct {
	URL, Key   string
	File       *File
	Form       string        // of the events: "" our own, litellm or cloudevents
	Query      url.Values    // more parameters of the calls
	Batch      int           // events in one call; 500
	Clients    int           // calls at the same time; 4
	Checkpoint string        // file that says how far the import is
	Refused    string        // file that takes what was not charged
	Wait       time.Duration // for the outcome of one batch, all attempts together; 10 minutes
	Out        io.Writer     // takes the progress
}

// Report is what came of an import, from its first attempt on.
type Report struct {
	Events   int64                      `json:"events"` // with an outcome
	Outcomes map[string]int64           `json:"outcomes"`
	Reasons  map[string]int64           `json:"reasons"` // outcome and code of what was not charged
	Credits  map[string]decimal.Decimal `json:"credits"` // of consumed and duplicate events, by unit
	Complete bool                       `json:"complete"`
	Resumed  int64                      `json:"-"` // events that an earlier attempt had the outcomes of
	Took     time.Duration              `json:"-"`
}

// Unconsumed tells whether an event was refused, or is another than before.
func (r *Report) Unconsumed() bool { return r.Outcomes["refused"]+r.Outcomes["mismatch"] > 0 }

func newReport() Report {
	return Report{Outcomes: map[string]int64{}, Reasons: map[string]int64{}, Credits: map[string]decimal.Decimal{}}
}

// batch is a part of the file on its way.
type batch struct {
	first    int64 // number of its first event in the file, from 1
	records  []record
	outcomes []outcome
	done     chan struct{}
}

// outcome is what the API says of an event.
type outcome struct {
	Outcome string `json:"outcome"`
	Unit    string `json:"unit"`
	Amount  string `json:"amount"`
	Problem *struct {
		Code string `json:"code"`
	} `json:"problem"`
	Quarantined *struct {
		Code string `json:"code"`
	} `json:"quarantined"`
	raw []byte
}

// Run sends the file from where an earlier attempt has left off, and returns when every event has its outcome or ctx ends. What was sent and whose outcome
// was not noted is sent again, and is a duplicate. The error is a fault, or a refusal that no event could escape.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	setDefaults(&cfg)
	k, err := openCheckpoint(cfg)
	if err != nil {
		return nil, err
	}
	defer k.close()
	began := time.Now()
	k.report.Resumed = k.report.Events
	if k.report.Complete {
		return &k.report, nil
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	bar := newProgress(cfg, k)
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = cfg.Clients, cfg.Clients
	s := &sender{Config: cfg, http: &http.Client{Transport: t}}

	work := make(chan *batch)
	order := make(chan *batch, 4*cfg.Clients) // bounds what waits for a batch before it
	var clients sync.WaitGroup
	for range cfg.Clients {
		clients.Go(func() {
			for b := range work {
				if err := s.send(ctx, b); err != nil {
					stop(err)
				}
				close(b.done)
			}
		})
	}
	var noted error
	clients.Go(func() {
		for b := range order {
			<-b.done
			if noted == nil && len(b.outcomes) == len(b.records) {
				noted = k.note(b)
			}
			if noted != nil || len(b.outcomes) != len(b.records) {
				stop(noted)
				noted = errors.Join(noted, errUndone)
			}
		}
	})
	err = s.divide(ctx, k.report.Events, func(b *batch) error {
		select {
		case order <- b:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case work <- b:
			return nil
		case <-ctx.Done():
			close(b.done)
			return context.Cause(ctx)
		}
	})
	close(work)
	close(order)
	clients.Wait()
	if err == nil && noted == nil {
		k.report.Complete = true
	}
	bar.end()
	k.report.Took = time.Since(began)
	if saved := k.save(); saved != nil {
		return nil, saved
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return nil, cause
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	if noted != nil && !errors.Is(noted, errUndone) {
		return nil, noted
	}
	return &k.report, nil
}

// errUndone says that a batch has not all its outcomes: nothing after it is noted.
var errUndone = errors.New("events are without an outcome")

func setDefaults(cfg *Config) {
	if cfg.Batch == 0 {
		cfg.Batch = 500
	}
	if cfg.Clients == 0 {
		cfg.Clients = 4
	}
	if cfg.Wait == 0 {
		cfg.Wait = 10 * time.Minute
	}
}

// maxBytes bounds a batch: with all clients and what waits it is what an import needs of memory.
const maxBytes = 4 << 20

// divide reads the file after so many events, and hands it on in batches.
func (s *sender) divide(ctx context.Context, after int64, hand func(*batch) error) error {
	n, size := int64(0), 0
	b := &batch{first: after + 1, done: make(chan struct{})}
	flush := func() error {
		if len(b.records) == 0 {
			return nil
		}
		full := b
		b, size = &batch{first: n + 1, done: make(chan struct{})}, 0
		return hand(full)
	}
	err := s.File.each(func(r record) error {
		if n++; n <= after {
			if n%10_000 == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil
		}
		b.records = append(b.records, r)
		if size += len(r.text); len(b.records) == s.Batch || size >= maxBytes {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

type sender struct {
	Config
	http *http.Client
}

// send sends a batch until each of its events has an outcome. When ctx ends it leaves it; the error is a refusal that no event could escape.
func (s *sender) send(ctx context.Context, b *batch) error {
	out := make([]outcome, len(b.records))
	var left []int
	for i, r := range b.records {
		if r.err != nil {
			raw, err := json.Marshal(map[string]any{"outcome": "refused", "problem": map[string]any{"code": "too_large", "detail": r.err.Error()}})
			if err != nil {
				return fmt.Errorf("write an outcome: %w", err)
			}
			if out[i], err = readOutcome(raw); err != nil {
				return err
			}
			continue
		}
		left = append(left, i)
	}
	began := time.Now()
	for attempt := 0; len(left) > 0; attempt++ {
		before := len(left)
		var err error
		if left, err = s.attempt(ctx, b, left, out); err != nil {
			var p *problem
			if errors.As(err, &p) && !p.again() {
				return p
			}
		}
		if len(left) == 0 {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		if len(left) < before {
			attempt = 0
		}
		if time.Since(began) > s.Wait {
			return fmt.Errorf("events from number %d on have got no outcome in %s: %w", b.first+int64(left[0]), s.Wait, errors.Join(err, errUndone))
		}
		pause(ctx, attempt)
	}
	b.outcomes = out
	return nil
}

// attemptTimeout bounds one call, in which nothing stands still for long.
const attemptTimeout = 2 * time.Minute

// attempt sends what is left of a batch and returns what is left then.
func (s *sender) attempt(ctx context.Context, b *batch, left []int, out []outcome) ([]int, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout) // what was begun is finished
	defer cancel()
	var body bytes.Buffer
	for _, i := range left {
		body.Write(b.records[i].text)
		body.WriteByte('\n')
	}
	target := strings.TrimRight(s.URL, "/") + "/v1/events"
	query := url.Values{}
	for name, values := range s.Query {
		query[name] = values
	}
	if s.Form != "" {
		query.Set("format", s.Form)
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, &body)
	if err != nil {
		return left, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Key)
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := s.http.Do(req)
	if err != nil {
		return left, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		p := &problem{Status: res.StatusCode}
		answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		if err == nil && json.Unmarshal(answer, p) != nil {
			p.Detail = http.StatusText(res.StatusCode)
		}
		p.Status = res.StatusCode
		return left, p
	}
	var undecided []int
	lines := bufio.NewReaderSize(res.Body, 64<<10)
	for n, i := range left {
		line, err := lines.ReadBytes('\n')
		if err != nil { // the answer was cut off: the rest may have been done
			return append(undecided, left[n:]...), err
		}
		o, err := readOutcome(line)
		if err != nil || o.Outcome == "" { // the call was given up
			return append(undecided, left[n:]...), err
		}
		if o.Outcome == "undecided" {
			undecided = append(undecided, i)
			continue
		}
		out[i] = o
	}
	return undecided, nil
}

func readOutcome(line []byte) (outcome, error) {
	var o outcome
	if err := json.Unmarshal(line, &o); err != nil {
		return o, fmt.Errorf("read an outcome: %w", err)
	}
	o.raw = bytes.TrimSpace(line)
	return o, nil
}

// problem is an answer of the API to a whole call.
type problem struct {
	Status int    `json:"-"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func (p *problem) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the API answered %d %s: %s", p.Status, p.Code, p.Detail))
}

// again tells whether the same call may come through later.
func (p *problem) again() bool { return p.Status == http.StatusTooManyRequests || p.Status >= 500 }

// pause waits before a call is made again, longer each time, and never all clients at once.
func pause(ctx context.Context, attempt int) {
	wait := min(50*time.Millisecond<<min(attempt, 7), 5*time.Second)
	t := time.NewTimer(wait + rand.N(wait/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
