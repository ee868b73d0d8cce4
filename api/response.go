package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/provider"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

// maxConsume bounds the body of a consumption: a provider's response may be in it.
const maxConsume = 1 << 20

// Bounds of what names a response.
const (
	maxProviderName = 100
	maxFlavourName  = 64
	maxModelName    = 256
)

// What becomes of a consumption that cannot be priced.
const (
	refuseUnpriced     = "refuse"
	quarantineUnpriced = "quarantine"
)

// readResponse reads what a model provider answered.
func (in *consumption) readResponse(r *reader) error {
	var p provider.Response
	if err := r.object(func(name string) (err error) { // not by fields, through which the reader of every consumption would escape to the heap
		switch name {
		case "provider":
			err = text(&p.Provider, maxProviderName)(r)
		case "flavour":
			err = text(&p.Flavour, maxFlavourName)(r)
		case "model":
			err = text(&p.Model, maxModelName)(r)
		case "usage":
			p.Usage, err = r.foreign()
		case "body":
			p.Body, err = r.foreign()
		default:
			return r.unknown()
		}
		return err
	}); err != nil {
		return err
	}
	if p.Provider == "" && !in.kept { // LiteLLM may leave it to the model
		return credit.Invalid(r.pointer()+"/provider", "This field is required.")
	}
	if (p.Usage == nil) == (p.Body == nil) {
		return r.refuse("A response is given either by its body, as it came, or by the usage in it.")
	}
	in.response = &p
	return nil
}

// foreign reads an object that another program made. It may be of any depth and have any number of members; a name that comes twice counts the
// last time.
func (r *reader) foreign() ([]byte, error) {
	if r.peek() != '{' {
		return nil, r.wrongType("an object")
	}
	from := r.i
	if err := r.pass(); err != nil {
		return nil, err
	}
	return []byte(r.doc[from:r.i]), nil
}

// pass passes over any value without the bounds of the API's own documents.
func (r *reader) pass() error {
	d := json.NewDecoder(strings.NewReader(r.doc[r.i:]))
	var v json.RawMessage
	if err := d.Decode(&v); err != nil {
		r.i += int(min(d.InputOffset(), int64(len(r.doc)-r.i)))
		return r.refuse("This is not JSON: %v.", err)
	}
	r.i += int(d.InputOffset())
	return nil
}

// skipEvent passes over an event of a batch.
func (r *reader) skipEvent() error {
	if r.peek() != '{' {
		return r.skip()
	}
	return r.object(func(name string) error {
		if name == "response" && r.peek() == '{' {
			return r.pass()
		}
		return r.skip()
	})
}

// cost reads what a line cost to serve.
func (r *reader) cost(into *rating.ComputeCost) error {
	given := false
	if err := r.object(func(name string) error {
		switch name {
		case "amount":
			s, err := r.decimalText()
			if err != nil {
				return err
			}
			if !plainDecimal(s, 20, rating.CostPlaces) {
				return r.at(credit.Errorf(credit.InvalidAmount, "%.40q is not a decimal number of at most 20 digits before and %d after the point.", s, rating.CostPlaces))
			}
			given = true
			into.Amount, err = decimal.NewFromString(shortest(s))
			return err
		case "currency":
			var err error
			if into.Currency, err = r.text(); err == nil && !currencyCode(into.Currency) {
				return r.refuse("This must be %s.", currencyCodeForm)
			}
			return err
		}
		return r.unknown()
	}); err != nil {
		return err
	}
	if !given || into.Currency == "" {
		return r.refuse("A cost has an amount and a currency.")
	}
	_, err := credit.CurrencyPlaces(into.Currency)
	return r.at(err)
}

// keeping tells op how it is kept when it cannot be priced.
func (in *consumption) keeping(op *balance.Consume) {
	if in.unpriced == quarantineUnpriced || in.response != nil && in.unpriced == "" {
		op.Keep, op.KeepAll = func() string { return shortened(in.text) }, in.unpriced == quarantineUnpriced
	}
}

// maxKeptText bounds the strings of a provider's response that are kept in quarantine, in bytes. Longer ones are what was said, not what was used.
const maxKeptText = 256

// shortened returns a consumption with the long strings of its response emptied.
func shortened(text string) string {
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &members) != nil || members["response"] == nil {
		return text
	}
	d := json.NewDecoder(bytes.NewReader(members["response"]))
	d.UseNumber()
	var response any
	if d.Decode(&response) != nil {
		return text
	}
	short, err := json.Marshal(withoutText(response))
	if err != nil {
		return text
	}
	members["response"] = short
	all, err := json.Marshal(members)
	if err != nil {
		return text
	}
	return string(all)
}

func withoutText(v any) any {
	switch v := v.(type) {
	case string:
		if len(v) > maxKeptText {
			return ""
		}
	case []any:
		for i := range v {
			v[i] = withoutText(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = withoutText(v[name])
		}
	}
	return v
}

// appendResponse adds to a digest what only consumptions with a response, costs or a wish for quarantine have: the digests of others stay what
// they were in releases before.
func (in *consumption) appendResponse(b []byte) ([]byte, error) {
	for i := range in.usage {
		if c := &in.usage[i].Cost; c.Currency != "" {
			b = appendPart(appendPart(appendPart(b, fmt.Sprintf("cost %d", i)), c.Amount.String()), c.Currency)
		}
	}
	if in.unpriced != "" {
		b = appendPart(appendPart(b, "on_unpriced"), in.unpriced)
	}
	if p := in.response; p != nil {
		b = appendPart(appendPart(appendPart(appendPart(b, "response"), p.Provider), p.Flavour), p.Model)
		for _, part := range [][]byte{p.Usage, p.Body} {
			text := ""
			if part != nil {
				var err error
				if text, err = canonical(string(part)); err != nil {
					return nil, err
				}
			}
			b = appendPart(b, text)
		}
	}
	return b, nil
}

// kept makes the operation that charges quarantined usage, of the consumption as it was kept. at is when it is to have been served; zero: when it was.
// An event whose customer was not there waits for one of the name.
func (s *Server) kept(ctx context.Context, c *call, row db.QuarantinedRow, at time.Time) (*balance.ChargeQuarantined, error) {
	waits := row.State == db.QuarantinePending
	switch {
	case row.State == db.QuarantineDiscarded:
		return nil, credit.Errorf(credit.QuarantineState, "The usage was discarded.").With("state", row.State)
	case at.IsZero():
		at = row.ServiceAt
	case waits && row.Code != credit.TooOld:
		return nil, credit.Invalid("/service_at", "Only usage that is too old can be charged as of another instant.")
	}
	var r reader
	if err := r.start(row.Body); err != nil {
		return nil, err
	}
	in := consumption{kept: true}
	if err := in.read(&r, false); err != nil {
		return nil, err
	}
	consume, err := s.consumeOperation(ctx, c, &r, &in, "")
	if err == nil && row.Customer.IsZero() {
		err = s.store.AssignQuarantined(ctx, row, consume.Customer)
	}
	var why *credit.Error
	if errors.As(err, &why) && curable[why.Code] && waits {
		return nil, errors.Join(err, s.store.NoteTry(ctx, row.ID, why))
	}
	if err != nil {
		return nil, err
	}
	row.Customer = consume.Customer
	if row.Code == credit.TooOld && waits { // its key may have been forgotten before it came again
		if err := s.store.ChargedBefore(ctx, row, c.caller.no); err != nil {
			return nil, err
		}
	}
	consume.Key, consume.At, consume.Keep = row.Key, at, nil
	consume.RequestID = credit.RequestID{} // one call may charge many
	return &balance.ChargeQuarantined{Consume: *consume, Quarantined: row.ID}, nil
}
