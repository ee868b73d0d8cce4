package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
)

// maxEvents bounds the events of one batch.
const maxEvents = 1_000

// event is one consumption of a batch: an operation, or why there is none.
type event struct {
	op  *balance.Consume
	err error
}

// consumeBatch is POST /v1/consume/batch: many consumptions, each with its own key and outcome. The batch as a whole is refused only when
// it cannot be read.
func (s *Server) consumeBatch(ctx context.Context, c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	events, err := s.readBatch(ctx, c, body)
	if err != nil {
		return err
	}
	var ops []balance.Operation
	for _, e := range events {
		if e.err == nil {
			ops = append(ops, e.op)
		}
	}
	results := s.service.DoAll(ctx, ops)
	buf := buffers.get()
	defer buffers.put(buf)
	b := append(*buf, `{"results":[`...)
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		result := balance.Result{Err: e.err}
		if e.err == nil {
			result, results = results[0], results[1:]
		}
		b = s.appendResult(b, c, result)
	}
	*buf = append(b, `]}`...)
	c.write(http.StatusOK, *buf)
	return nil
}

// readBatch reads the events. Each is first passed over, so that its faults concern it alone.
func (s *Server) readBatch(ctx context.Context, c *call, body string) ([]event, error) {
	var r reader
	if err := r.start(body); err != nil {
		return nil, err
	}
	var events []event
	if err := r.fields(required("events", func(r *reader) error {
		return r.array(func(i int) error {
			if i == maxEvents {
				return r.refuse("A batch has at most %d events.", maxEvents)
			}
			one := *r
			if err := r.skipEvent(); err != nil {
				return err
			}
			var in consumption
			err := in.read(&one, true)
			var op *balance.Consume
			if err == nil {
				op, err = s.consumeOperation(ctx, c, &one, &in, in.key)
			}
			events = append(events, event{op, err})
			return nil
		})
	})); err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, credit.Invalid("/events", "A batch has at least one event.")
	}
	return events, r.end()
}

// appendResult writes one event's outcome.
func (s *Server) appendResult(b []byte, c *call, r balance.Result) []byte {
	replayed := ""
	if r.Answer.Replayed {
		replayed = `,"replayed":true`
	}
	if r.Err == nil && r.Answer.Quarantined {
		b = append(append(append(b, `{"status":202`...), replayed...), `,"quarantined":`...)
		return append(append(b, r.Answer.Body...), '}')
	}
	if r.Err == nil {
		b = append(b, `{"status":200`...)
		b = append(b, replayed...)
		b = append(b, `,"receipt":`...)
		b = append(b, r.Answer.Body...)
		return append(b, '}')
	}
	refusal := refusalOf(r.Err, true)
	if refusal.Code == credit.Internal && !errors.As(r.Err, new(*credit.Error)) {
		s.log.ErrorContext(c.r.Context(), "event failed", "request_id", c.id, "route", c.route.Path, "error", r.Err)
	}
	b = append(b, `{"status":`...)
	b = strconv.AppendInt(b, int64(kinds[refusal.Code].status), 10)
	b = append(b, replayed...)
	b = append(b, `,"problem":`...)
	b = appendProblem(b, refusal, c.id)
	return append(b, '}')
}
