package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// Usage events go through the lanes so many at a time: of one call, and of all calls of a process together, so that the queues have room for others.
const (
	maxInFlight  = 512
	maxIngesting = 2048
)

// Times of a call with a stream of events.
const (
	streamIdle = 30 * time.Second // until the next events come
	ingestWait = 5 * time.Second  // for room in the lanes
)

// Outcomes of usage events.
const (
	outcomeConsumed    = "consumed"
	outcomeDuplicate   = "duplicate"   // consumed before
	outcomeMismatch    = "mismatch"    // the same source and id said something else before
	outcomeQuarantined = "quarantined" // kept until it can be charged
	outcomeIgnored     = "ignored"     // there is nothing to charge
	outcomeRefused     = "refused"
	outcomeUndecided   = "undecided" // to be sent again
	outcomeStaged      = "staged"    // in a backfill
)

// Content types of usage events.
const (
	mediaJSON       = "application/json"
	mediaNDJSON     = "application/x-ndjson"
	mediaCloud      = "application/cloudevents+json"
	mediaCloudBatch = "application/cloudevents-batch+json"
)

// ingest is POST /v1/events, and the same where LiteLLM's openmeter callback posts to: many usage events, each with its own key and outcome. The whole is
// refused only when it cannot be divided into events; then nothing has happened.
func (s *Server) ingest(ctx context.Context, c *call) error {
	media, f, receipts, err := c.eventsFormat()
	if err != nil {
		return err
	}
	return s.answerEvents(ctx, media, &answering{s: s, c: c, format: f, receipts: receipts})
}

// answerEvents reads the events of a call, has them carried out, and answers what became of each.
func (s *Server) answerEvents(ctx context.Context, media string, a *answering) error {
	c, f := a.c, a.format
	if media == mediaNDJSON {
		return a.stream(ctx)
	}
	body, err := c.whole()
	if err != nil {
		return err
	}
	var events []usageEvent
	if media == mediaJSON && c.r.Header.Get("Ce-Specversion") != "" {
		if !clean(body) {
			return credit.Invalid("", "The body is not valid UTF-8.")
		}
		events = []usageEvent{f.headerCloud(c.r.Header, body)}
	} else {
		texts, err := splitEvents(body, f.form == plainForm)
		if err != nil {
			return err
		}
		events = make([]usageEvent, len(texts))
		for i, text := range texts {
			events[i] = f.read(text)
		}
	}
	b := []byte(`{"results":[`)
	for len(events) > 0 {
		n := min(len(events), maxInFlight)
		b = a.append(ctx, b, ',', events[:n])
		events = events[n:]
	}
	if a.undecided == a.events && a.last != nil { // the database is away, or the like: senders that look at the status alone shall repeat it
		return a.last
	}
	b = append(b[:len(b)-1], `],"counts":`...)
	counts, err := json.Marshal(a.counts)
	if err != nil {
		return fmt.Errorf("write counts: %w", err)
	}
	c.write(http.StatusOK, append(append(b, counts...), '}'))
	return nil
}

// eventsFormat reads how the events of a call are written: its content type and its query.
func (c *call) eventsFormat() (media string, f *eventsFormat, receipts bool, err error) {
	unsupported := credit.Errorf(credit.UnsupportedMedia, "The Content-Type must be %s, %s, %s or %s, in UTF-8.", mediaJSON, mediaNDJSON, mediaCloud, mediaCloudBatch)
	header := c.r.Header["Content-Type"]
	if len(header) != 1 {
		return "", nil, false, unsupported
	}
	media, params, err := mime.ParseMediaType(header[0])
	if charset := params["charset"]; err != nil || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", nil, false, unsupported
	}
	values, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return "", nil, false, credit.Invalid("", "The query string is malformed.")
	}
	f = new(eventsFormat)
	switch format := values.Get("format"); {
	case media == mediaCloud || media == mediaCloudBatch:
		f.form = cloudForm
	case media != mediaJSON && media != mediaNDJSON:
		return "", nil, false, unsupported
	case format == "cloudevents" || c.r.Header.Get("Ce-Specversion") != "":
		f.form = cloudForm
	case format == "litellm":
		f.form = liteForm
	case format != "":
		return "", nil, false, credit.Invalid("format", "This must be litellm or cloudevents.")
	}
	values.Del("format")
	receipts = values.Get("receipts") == "true"
	if !receipts && values.Has("receipts") && values.Get("receipts") != "false" {
		return "", nil, false, credit.Invalid("receipts", "This must be true or false.")
	}
	values.Del("receipts")
	if f.form == plainForm {
		f.lite.customers = nil
	} else if f.lite, err = readMapping(values); err != nil {
		return "", nil, false, err
	}
	for name := range values {
		return "", nil, false, credit.Invalid(name, "There is no such query parameter here.")
	}
	return media, f, receipts, nil
}

// answering is a call with usage events on its way.
type answering struct {
	s         *Server
	c         *call
	format    *eventsFormat
	receipts  bool              // they are part of the outcomes
	backfill  credit.BackfillID // in which the events are staged; zero: they are consumed
	counts    map[string]int
	events    int
	undecided int
	last      *credit.Error // why an event was left undecided
}

// append carries out events that were read, no more than maxInFlight, and appends their outcomes, each with what ends it.
func (a *answering) append(ctx context.Context, b []byte, end byte, events []usageEvent) []byte {
	if a.counts == nil {
		a.counts = make(map[string]int)
	}
	var results []balance.Result
	if a.backfill.IsZero() {
		results = a.s.consumeEvents(ctx, a.c, events)
	} else {
		results = a.s.stageEvents(ctx, a.backfill, events)
	}
	for i, r := range results {
		b = append(a.appendOutcome(b, &events[i], r), end)
	}
	return b
}

// stream answers events line by line, as they come: what has been read is carried out when there is nothing more to read at once.
func (a *answering) stream(ctx context.Context) error {
	if err := a.c.uncompressed(); err != nil {
		return err
	}
	control := http.NewResponseController(a.c.w)
	_ = control.EnableFullDuplex() // HTTP/1: outcomes are written while events still come; where this cannot be, the caller has sent all before it reads
	lines := newLines(a.c.r.Body)
	var long []byte
	b := make([]byte, 0, 64<<10)
	for {
		if err := control.SetReadDeadline(time.Now().Add(streamIdle)); err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
		var events []usageEvent
		var err error
		for size := 0; err == nil && len(events) < maxInFlight && size < maxEvent && (len(events) == 0 || lines.Buffered() > 0); {
			var line []byte
			if line, long, err = readLine(lines, long[:0]); err != nil && err != io.EOF {
				break
			}
			if text := strings.TrimSpace(string(line)); text != "" {
				events = append(events, a.format.read(text))
				size += len(text)
			}
		}
		if len(events) > 0 {
			b = a.append(ctx, b[:0], '\n', events)
			if err := control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return fmt.Errorf("answer events: %w", err)
			}
			a.begin()
			if _, err := a.c.w.Write(b); err != nil || control.Flush() != nil {
				return nil // the caller has gone
			}
		}
		switch {
		case err == nil && !a.s.stopping.Load():
			continue
		case err == nil: // what was not answered is sent again, to another process
			return nil
		case err == io.EOF && a.events == 0:
			return credit.Invalid("", "There are no events.")
		case err != io.EOF && a.c.status == 0:
			return credit.Errorf(credit.InvalidRequest, "The body could not be read to its end.")
		case err != io.EOF: // the outcomes before this line stand
			_, _ = a.c.w.Write(append(appendProblem([]byte(`{"problem":`), credit.Errorf(credit.InvalidRequest, "The body could not be read to its end."), a.c.id), "}\n"...))
		}
		return nil
	}
}

// begin writes the head of a stream's answer.
func (a *answering) begin() {
	if a.c.status == 0 {
		a.c.w.Header()["Content-Type"] = []string{mediaNDJSON}
		a.c.status = http.StatusOK
		a.c.w.WriteHeader(http.StatusOK)
	}
}

func newLines(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 64<<10) }

// readLine reads a line, with io.EOF when it is the last. Of one that is too long for an event only the first maxEvent+1 bytes are kept; long is room for
// those that span the reader's buffer.
func readLine(r *bufio.Reader, long []byte) (line, room []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(long) == 0 && !errors.Is(err, bufio.ErrBufferFull) {
			return part, long, err
		}
		long = append(long, part[:min(len(part), maxEvent+1-len(long))]...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return long, long, err
		}
	}
}

// curable are the refusals of an event that it may outlive: it is kept in quarantine.
var curable = map[credit.Code]bool{
	credit.CustomerNotFound: true, credit.MemberNotFound: true, credit.UnitNotFound: true, credit.TooOld: true,
	credit.NoRate: true, credit.NoFXRate: true, credit.RateCardNotFound: true,
	credit.UnknownProvider: true, credit.UnknownModel: true, credit.UnknownFlavour: true, credit.NoUsage: true, credit.InvalidUsage: true,
}

// consumeEvents carries out events that were read: those of one customer in the order given.
func (s *Server) consumeEvents(ctx context.Context, c *call, events []usageEvent) []balance.Result {
	out := make([]balance.Result, len(events))
	ops := make([]*balance.Consume, len(events))
	var do []balance.Operation
	missing := make(map[string]error) // customers, so that each is looked for once
	for i := range events {
		e := &events[i]
		if e.err != nil || e.ignored != "" {
			out[i].Err = e.err
			continue
		}
		if ops[i], out[i].Err = s.eventOperation(ctx, c, &e.in, missing); out[i].Err == nil {
			do = append(do, ops[i])
		}
	}
	results := s.throughLanes(ctx, do)
	var keep []db.QuarantinedEvent
	var kept []int
	for i := range events {
		if events[i].err != nil || events[i].ignored != "" {
			continue
		}
		if out[i].Err == nil {
			out[i], results = results[0], results[1:]
		}
		var refusal *credit.Error
		if op := ops[i]; op != nil && op.Key != "" && !out[i].Answer.Replayed && errors.As(out[i].Err, &refusal) && curable[refusal.Code] {
			if refusal.Code == credit.CustomerNotFound {
				op.Customer = credit.CustomerID{}
			}
			keep = append(keep, db.QuarantinedEvent{Request: op.Request, Row: db.QuarantinedRow{Customer: op.Customer, Named: events[i].in.customer, Key: op.Key, Actor: op.Actor,
				RequestID: c.id, Body: events[i].in.document(), ServiceAt: op.At, Code: refusal.Code, Detail: refusal.Detail}})
			kept = append(kept, i)
		}
	}
	if len(keep) > 0 {
		s.keepEvents(ctx, keep, kept, out)
	}
	return out
}

// eventOperation makes the operation of an event. With a refusal, its key and its customer are those that are known.
func (s *Server) eventOperation(ctx context.Context, c *call, in *consumption, missing map[string]error) (*balance.Consume, error) {
	request, err := in.eventDigest()
	if err != nil {
		return nil, err
	}
	op := &balance.Consume{At: in.timestamp}
	if err = missing[in.customer]; err == nil {
		if op, err = s.named(ctx, new(reader), in); credit.CodeOf(err) == credit.CustomerNotFound {
			missing[in.customer] = err
		}
	}
	op.Key, op.Request, op.Actor = balance.EventKey(in.source, in.id), request, c.caller.no
	return op, err
}

// throughLanes carries out operations, no more than maxInFlight, when there is room for them.
func (s *Server) throughLanes(ctx context.Context, ops []balance.Operation) []balance.Result {
	if len(ops) == 0 {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, ingestWait)
	defer cancel()
	if err := s.ingesting.Acquire(wait, int64(len(ops))); err != nil {
		out := make([]balance.Result, len(ops))
		for i := range out {
			out[i].Err = credit.Errorf(credit.Overloaded, "Too many events are waiting; nothing was decided.")
		}
		return out
	}
	defer s.ingesting.Release(int64(len(ops)))
	return s.service.DoAll(ctx, ops)
}

// keepEvents puts events into quarantine and notes what their keys are answered.
func (s *Server) keepEvents(ctx context.Context, events []db.QuarantinedEvent, at []int, out []balance.Result) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	answers, err := s.store.QuarantineEvents(ctx, events, func(row db.QuarantinedRow) ([]byte, error) { return json.Marshal(balance.DescribeQuarantined(row)) })
	for n, i := range at {
		if err != nil {
			out[i] = balance.Result{Err: err}
			continue
		}
		switch a := answers[n]; {
		case a.Mismatch:
			out[i] = balance.Result{Err: credit.Errorf(credit.RequestMismatch, "The source has reported another event with this id.")}
		case a.Status == http.StatusOK:
			out[i] = balance.Result{Answer: balance.Answer{Body: a.Body, Replayed: true}}
		case a.Status == http.StatusAccepted:
			out[i] = balance.Result{Answer: balance.Answer{Body: a.Body, Replayed: a.Replayed, Quarantined: true}}
		default: // another attempt was refused meanwhile; the lanes know what to answer
			out[i] = balance.Result{Err: credit.Errorf(credit.NotExecuted, "Another attempt has just been decided; repeat the event.")}
		}
	}
}

// appendOutcome writes what became of an event, and counts it.
func (a *answering) appendOutcome(b []byte, e *usageEvent, r balance.Result) []byte {
	b = append(b, '{')
	for _, f := range [2]struct{ name, value string }{{"source", e.in.source}, {"id", e.in.id}} {
		b = append(append(append(b, '"'), f.name...), `":`...)
		if f.value == "" {
			b = append(b, "null,"...)
		} else {
			b = append(appendString(b, f.value), ',')
		}
	}
	outcome, refusal := a.outcome(e, r)
	a.events++
	a.counts[outcome]++
	a.s.metrics.events.WithLabelValues(outcome).Inc()
	b = append(append(append(b, `"outcome":"`...), outcome...), '"')
	switch outcome {
	case outcomeStaged:
	case outcomeIgnored:
		b = appendString(append(b, `,"detail":`...), e.ignored)
	case outcomeConsumed, outcomeDuplicate:
		var receipt struct{ Operation, Unit, Amount string }
		if json.Unmarshal(r.Answer.Body, &receipt) == nil {
			b = appendString(append(b, `,"operation":`...), receipt.Operation)
			b = appendString(append(b, `,"unit":`...), receipt.Unit)
			b = appendString(append(b, `,"amount":`...), receipt.Amount)
		}
		if a.receipts {
			b = append(append(b, `,"receipt":`...), r.Answer.Body...)
		}
	case outcomeQuarantined:
		if r.Answer.Replayed {
			b = append(b, `,"replayed":true`...)
		}
		b = append(append(b, `,"quarantined":`...), r.Answer.Body...)
	default:
		if r.Answer.Replayed {
			b = append(b, `,"replayed":true`...)
		}
		b = strconv.AppendInt(append(b, `,"status":`...), int64(kinds[refusal.Code].status), 10)
		b = appendProblem(append(b, `,"problem":`...), refusal, a.c.id)
	}
	return append(b, '}')
}

// outcome names what became of an event, and returns the refusal if it was one.
func (a *answering) outcome(e *usageEvent, r balance.Result) (string, *credit.Error) {
	switch {
	case e.ignored != "":
		return outcomeIgnored, nil
	case r.Err == nil && r.Answer.Quarantined:
		return outcomeQuarantined, nil
	case r.Err == nil && r.Answer.Replayed:
		return outcomeDuplicate, nil
	case r.Err == nil && !a.backfill.IsZero():
		return outcomeStaged, nil
	case r.Err == nil:
		return outcomeConsumed, nil
	}
	refusal := refusalOf(r.Err, true)
	if refusal.Code == credit.Internal && !errors.As(r.Err, new(*credit.Error)) {
		a.s.log.ErrorContext(a.c.r.Context(), "event failed", "request_id", a.c.id, "route", a.c.route.Path, "error", r.Err)
	}
	switch status := kinds[refusal.Code].status; {
	case refusal.Code == credit.RequestMismatch:
		return outcomeMismatch, refusal
	case status == http.StatusTooManyRequests || status >= 500:
		a.undecided++
		a.last = refusal
		return outcomeUndecided, refusal
	}
	return outcomeRefused, refusal
}
