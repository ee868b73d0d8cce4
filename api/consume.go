package api

import (
	"context"
	"encoding/binary"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/provider"
	"github.com/tallystick/tallystick/credit/rating"
)

// consumption is a request to take credits, as it was sent.
type consumption struct {
	key       string // of an event in a batch; otherwise a header has it
	customer  string
	member    string
	timestamp time.Time
	unit      string
	amount    string // credits; with unit
	usage     []rating.Line
	texts     []string // the usage's quantities, without what they do not need
	shorthand bool     // usage is one line given by meter and quantity
	holding   bool     // it is to be held, for expiresIn seconds
	expiresIn int
	size      string        // sizeStated, sizeSuggested or ""; of a hold
	quoted    bool          // it is to be quoted, and may have maxima
	maximum   []rating.Line // the usage at its maximum; nil: no line has one
	dims      credit.Dimensions
	partial   bool
	reason    string
	response  *provider.Response // what a model provider answered, instead of usage
	unpriced  string             // what becomes of it when it cannot be priced; "": the usual
	text      string             // the whole object
	kept      bool               // it was kept in quarantine, and may be of either form
	reported                     // of a usage event; otherwise zero
}

// reported is what only usage events have.
type reported struct {
	event     bool   // it is one
	enveloped bool   // source, id and time stand in what is around it
	source    string // who reports it
	id        string // there
}

// readBody reads the request's body as one consumption.
func (in *consumption) readBody(c *call, r *reader) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := r.start(body); err != nil {
		return err
	}
	if err := in.read(r, false); err != nil {
		return err
	}
	return r.end()
}

// consume is POST /v1/consume. It is the path that everything else waits for: nothing here asks a database once its callers are known.
func (s *Server) consume(ctx context.Context, c *call) error {
	key, err := c.key()
	if err != nil {
		return err
	}
	var r reader
	var in consumption
	if err := in.readBody(c, &r); err != nil {
		return err
	}
	op, err := s.consumeOperation(ctx, c, &r, &in, key)
	if err != nil {
		return err
	}
	return c.do(ctx, http.StatusOK, op)
}

// read reads the object of a consumption. event says that it is one of a batch.
func (in *consumption) read(r *reader, event bool) error {
	var line rating.Line
	var quantity string
	var most *decimal.Decimal
	var costs bool
	r.space()
	from := r.i
	if err := r.object(func(name string) (err error) {
		if name == "maximum" && in.quoted {
			most, err = r.maximum()
			return err
		}
		if name == "expires_in" && in.holding {
			return integer(&in.expiresIn, 1, maxHoldSeconds)(r)
		}
		if name == "size" && in.holding {
			return word(&in.size, sizeStated, sizeSuggested)(r)
		}
		if in.event {
			if its, err := in.readReported(r, name); its {
				return err
			}
		}
		switch name {
		case "customer":
			in.customer, err = r.text()
		case "member":
			in.member, err = r.text()
		case "timestamp":
			in.timestamp, err = r.instant()
		case "unit":
			in.unit, err = r.text()
		case "amount":
			in.amount, err = r.decimalText()
		case "meter":
			line.Meter, err = r.meter()
		case "quantity":
			quantity, line.Quantity, err = r.quantity()
		case "cost":
			costs, err = true, r.cost(&line.Cost)
		case "usage":
			err = in.readUsage(r)
		case "response":
			err = in.readResponse(r)
		case "on_unpriced":
			err = word(&in.unpriced, refuseUnpriced, quarantineUnpriced)(r)
		case "dimensions":
			in.dims, err = r.dimensions()
		case "partial":
			in.partial, err = r.boolean()
		case "reason":
			err = text(&in.reason, maxReason)(r)
		case "idempotency_key":
			if !event && !in.kept {
				return r.refuse("The key of a single consumption is the header Idempotency-Key.")
			}
			if in.key, err = r.text(); err == nil && !validKey(in.key) {
				return r.refuse("This must be 1 to 255 printable ASCII characters.")
			}
		default:
			return r.unknown()
		}
		return err
	}); err != nil {
		return err
	}
	in.text = r.doc[from:r.i]
	if line.Meter != "" || quantity != "" {
		if in.usage != nil {
			return r.refuse("Give meter and quantity, or usage, not both.")
		}
		in.usage, in.texts, in.shorthand = []rating.Line{line}, []string{quantity}, true
		if err := in.atMost(r, 0, most); err != nil {
			return err
		}
	} else if most != nil {
		return r.refuse("A maximum is of the quantity beside it.")
	} else if costs {
		return r.refuse("A cost is of the quantity beside it.")
	}
	return in.check(r, event)
}

// readUsage reads the lines of a usage.
func (in *consumption) readUsage(r *reader) error {
	in.usage = []rating.Line{}
	if err := r.array(func(i int) error {
		if i == maxUsage {
			return r.refuse("A usage has at most %d lines.", maxUsage)
		}
		var line rating.Line
		var quantity string
		var most *decimal.Decimal
		if err := r.object(func(name string) (err error) {
			if name == "maximum" && in.quoted {
				most, err = r.maximum()
				return err
			}
			switch name {
			case "meter":
				line.Meter, err = r.meter()
			case "quantity":
				quantity, line.Quantity, err = r.quantity()
			case "dimensions":
				line.Dims, err = r.dimensions()
			case "cost":
				err = r.cost(&line.Cost)
			default:
				return r.unknown()
			}
			return err
		}); err != nil {
			return err
		}
		if line.Meter == "" || quantity == "" {
			return r.refuse("A line of usage has a meter and a quantity.")
		}
		in.usage, in.texts = append(in.usage, line), append(in.texts, quantity)
		return in.atMost(r, i, most)
	}); err != nil {
		return err
	}
	if len(in.usage) == 0 {
		return r.refuse("A usage has at least one line.")
	}
	return nil
}

// atMost notes the maximum of the line that was just added; nil: its quantity.
func (in *consumption) atMost(r *reader, i int, most *decimal.Decimal) error {
	if most == nil && in.maximum == nil {
		return nil
	}
	if in.maximum == nil {
		in.maximum = slices.Clone(in.usage[:i])
	}
	line := in.usage[i]
	if most != nil {
		if most.LessThan(line.Quantity) {
			return credit.Invalid(r.pointer()+"/maximum", "The maximum is less than the quantity.")
		}
		line.Quantity = *most
	}
	in.maximum = append(in.maximum, line)
	return nil
}

// maximum reads the quantity that a line of a quote comes to at most.
func (r *reader) maximum() (*decimal.Decimal, error) {
	_, q, err := r.quantity()
	return &q, err
}

// maxUsage bounds the lines of one usage.
const maxUsage = 100

// check refuses what is not one of the three forms.
func (in *consumption) check(r *reader, event bool) error {
	missing := func(name, detail string) error {
		return credit.Invalid(r.pointer()+"/"+name, "%s", detail)
	}
	switch {
	case in.customer == "" && !in.event:
		return missing("customer", "This field is required.")
	case event && in.key == "":
		return missing("idempotency_key", "This field is required.")
	case in.response != nil && (in.usage != nil || in.unit != "" || in.amount != ""):
		return missing("response", "Give a response, or what was used, or an amount, not several of them.")
	case in.response != nil:
		return nil
	case in.usage == nil && in.unit == "" && in.amount == "":
		return missing("amount", "Give unit and amount, or meter and quantity, or usage, or response.")
	case in.usage == nil && in.unpriced != "":
		return missing("on_unpriced", "An amount needs no price.")
	case in.usage != nil && (in.unit != "" || in.amount != ""):
		return missing("amount", "Give unit and amount, or a usage that the rate card prices, not both.")
	case in.usage == nil && in.unit == "":
		return missing("unit", "An amount needs its unit.")
	case in.usage == nil && in.amount == "":
		return missing("amount", "A unit needs its amount.")
	case in.shorthand && in.usage[0].Meter == "":
		return missing("meter", "A quantity needs its meter.")
	case in.shorthand && in.texts[0] == "":
		return missing("quantity", "A meter needs its quantity.")
	}
	return nil
}

// meter reads the code of a meter.
func (r *reader) meter() (string, error) {
	s, err := r.text()
	if err == nil && (s == "" || len(s) > 64 || !printable(s)) {
		return "", r.refuse("The code of a meter has 1 to 64 printable bytes.")
	}
	return s, err
}

// quantity reads a decimal number of at most 20 digits before and 12 after the point. The text is the number's shortest.
func (r *reader) quantity() (string, decimal.Decimal, error) {
	s, err := r.decimalText()
	if err != nil {
		return "", decimal.Decimal{}, err
	}
	if !plainDecimal(s, 20, 12) {
		return "", decimal.Decimal{}, r.at(credit.Errorf(credit.InvalidAmount, "%.40q is not a decimal number of at most 20 digits before and 12 after the point.", s))
	}
	s = shortest(s)
	if len(s) <= 18 && strings.IndexByte(s, '.') < 0 {
		n, err := strconv.ParseInt(s, 10, 64)
		return s, decimal.New(n, 0), err
	}
	d, err := decimal.NewFromString(s)
	return s, d, err
}

// shortest drops the zeros of a plain decimal that do not count.
func shortest(s string) string {
	s = strings.TrimLeft(s, "0")
	if strings.IndexByte(s, '.') >= 0 {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if s == "" || s[0] == '.' {
		return "0" + s
	}
	return s
}

// consumeOperation makes the operation of a consumption that r has just read: names become ids, the amount whole steps.
func (s *Server) consumeOperation(ctx context.Context, c *call, r *reader, in *consumption, key string) (*balance.Consume, error) {
	op, err := s.named(ctx, r, in)
	if err != nil {
		return nil, err
	}
	in.keeping(op)
	request, err := in.digest(op.Customer, op)
	if err != nil {
		return nil, err
	}
	op.Key, op.Request, op.Actor, op.RequestID = balance.ClientKey(key), request, c.caller.no, c.id
	return op, nil
}

// named makes the operation of a consumption without its key. With a refusal about anything but the customer, the operation still has that.
func (s *Server) named(ctx context.Context, r *reader, in *consumption) (*balance.Consume, error) {
	op := &balance.Consume{At: in.timestamp, Usage: in.usage, Dims: in.dims, Partial: in.partial, Reason: in.reason, Response: in.response}
	var err error
	if op.Customer, err = s.customerID(ctx, in.customer); err != nil {
		return op, r.within("customer", err)
	}
	if in.member != "" {
		if op.Member, err = s.memberID(ctx, op.Customer, in.member); err != nil {
			return op, r.within("member", err)
		}
	}
	if in.usage == nil && in.response == nil {
		unit, err := s.service.Unit(in.unit)
		if err != nil {
			return op, err
		}
		op.Unit = unit.Code
		if op.Amount, err = credit.ParseAmount(in.amount, unit.Scale); err != nil {
			return op, r.within("amount", err)
		}
		if op.Amount == 0 {
			return op, r.within("amount", credit.Errorf(credit.InvalidAmount, "The amount must be positive."))
		}
	}
	return op, nil
}

// within says that a refusal is about a field of the object that was read last.
func (r *reader) within(name string, err error) error { return in(r.pointer()+"/"+name, err) }

// digest tells consumptions with the same key apart. It is made of what is asked for, not of how that is written: the order of fields and
// dimensions, white space, zeros that do not count and the customer's two names make no difference.
func (in *consumption) digest(customer credit.CustomerID, op *balance.Consume) (_ [16]byte, err error) {
	buf := buffers.get()
	defer buffers.put(buf)
	b := append(*buf, "consume\x00"...)
	b = append(b, customer[:]...)
	b = append(b, op.Member[:]...)
	b = binary.AppendVarint(b, in.timestamp.UnixMicro())
	b = appendPart(b, op.Unit)
	b = binary.AppendUvarint(b, uint64(op.Amount))
	b = binary.AppendUvarint(b, uint64(len(in.usage)))
	for i := range in.usage {
		b = appendPart(b, in.usage[i].Meter)
		b = appendPart(b, in.texts[i])
		b = appendDimensions(b, in.usage[i].Dims)
	}
	b = appendDimensions(b, in.dims)
	b = strconv.AppendBool(b, in.partial)
	b = appendPart(b, in.reason)
	if b, err = in.appendResponse(b); err != nil {
		return [16]byte{}, err
	}
	*buf = b
	return balance.RequestDigest(string(b)), nil
}

func appendPart(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendDimensions(b []byte, d credit.Dimensions) []byte {
	var few [16]string
	names := few[:0]
	for name := range d {
		names = append(names, name)
	}
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = appendPart(b, name)
		b = appendPart(b, d[name])
	}
	return b
}
