package ratecard

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// ReadUsage reads what was used, event by event, from NDJSON or CSV, by its first byte:
//
//	{"timestamp":"2026-01-31T12:00:00Z","meter":"llm_tokens","quantity":"1200","dimensions":{"model":"gpt-4o"}}
//	{"dimensions":{"model":"gpt-4o"},"usage":[{"meter":"llm_tokens","quantity":"1200","dimensions":{"token_type":"input"}}, …]}
//
//	timestamp,meter,quantity,model,token_type          every other column is a dimension; nothing: the usage has not got it
//	2026-01-31T12:00:00Z,llm_tokens,1200,gpt-4o,input
//
// The fields of NDJSON are those of a consumption by usage, of which those that do not bear on the price are passed over; others are refused. Without a
// timestamp the event is of now. An error says in which line it is; reading ends there.
func ReadUsage(from io.Reader, now time.Time) iter.Seq2[rating.Usage, error] {
	return func(yield func(rating.Usage, error) bool) {
		r := bufio.NewReader(from)
		first, err := r.Peek(1)
		for ; err == nil && strings.IndexByte(" \t\r\n", first[0]) >= 0; first, err = r.Peek(1) {
			if _, err := r.Discard(1); err != nil {
				break
			}
		}
		switch {
		case errors.Is(err, io.EOF):
		case err != nil:
			yield(rating.Usage{}, fmt.Errorf("read usage: %w", err))
		case first[0] == '{':
			readNDJSON(r, now, yield)
		default:
			readCSV(r, now, yield)
		}
	}
}

// event is one line of NDJSON.
type event struct {
	Timestamp  *time.Time        `json:"timestamp"`
	Meter      string            `json:"meter"`
	Quantity   *decimal.Decimal  `json:"quantity"`
	Usage      []line            `json:"usage"`
	Dimensions credit.Dimensions `json:"dimensions"`

	// What does not bear on the price.
	Customer json.RawMessage `json:"customer"`
	Member   json.RawMessage `json:"member"`
	Reason   json.RawMessage `json:"reason"`
	Partial  json.RawMessage `json:"partial"`
	Key      json.RawMessage `json:"idempotency_key"`
}

type line struct {
	Meter      string            `json:"meter"`
	Quantity   *decimal.Decimal  `json:"quantity"`
	Dimensions credit.Dimensions `json:"dimensions"`
}

// maxLine bounds a line of NDJSON, in bytes.
const maxLine = 1 << 20

func readNDJSON(r io.Reader, now time.Time, yield func(rating.Usage, error) bool) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for n := 1; s.Scan(); n++ {
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			continue
		}
		u, err := readEvent(s.Bytes(), now)
		if err != nil {
			yield(u, fmt.Errorf("line %d: %w", n, err))
			return
		}
		if !yield(u, nil) {
			return
		}
	}
	if err := s.Err(); err != nil {
		yield(rating.Usage{}, fmt.Errorf("read usage: %w", err))
	}
}

func readEvent(text []byte, now time.Time) (rating.Usage, error) {
	var e event
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return rating.Usage{}, err
	}
	u := rating.Usage{At: now, Dims: e.Dimensions}
	if e.Timestamp != nil {
		u.At = *e.Timestamp
	}
	if e.Meter != "" || e.Quantity != nil {
		e.Usage = append(e.Usage, line{Meter: e.Meter, Quantity: e.Quantity})
	}
	for _, l := range e.Usage {
		if l.Meter == "" || l.Quantity == nil {
			return u, errors.New("a usage has a meter and a quantity")
		}
		u.Lines = append(u.Lines, rating.Line{Meter: l.Meter, Quantity: *l.Quantity, Dims: l.Dimensions})
	}
	if len(u.Lines) == 0 {
		return u, errors.New("there is no usage")
	}
	return u, credit.CheckDimensions(u.Dims)
}

func readCSV(r io.Reader, now time.Time, yield func(rating.Usage, error) bool) {
	c := csv.NewReader(r)
	header, err := c.Read()
	if err != nil {
		yield(rating.Usage{}, fmt.Errorf("read usage: %w", err))
		return
	}
	meter, quantity := slices.Index(header, "meter"), slices.Index(header, "quantity")
	if meter < 0 || quantity < 0 {
		yield(rating.Usage{}, errors.New("line 1: there must be columns meter and quantity"))
		return
	}
	for {
		row, err := c.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		u := rating.Usage{At: now, Dims: credit.Dimensions{}}
		if err == nil {
			at, _ := c.FieldPos(0)
			for i, v := range row {
				var ferr error
				switch {
				case i == meter:
				case i == quantity:
					var q decimal.Decimal
					if q, ferr = decimal.NewFromString(v); ferr == nil {
						u.Lines = []rating.Line{{Meter: row[meter], Quantity: q}}
					}
				case v == "":
				case header[i] == "timestamp":
					u.At, ferr = time.Parse(time.RFC3339, v)
				default:
					u.Dims[header[i]] = v
				}
				if ferr != nil && err == nil {
					err = fmt.Errorf("line %d, %s: %w", at, header[i], ferr)
				}
			}
		}
		if err != nil {
			yield(u, fmt.Errorf("read usage: %w", err))
			return
		}
		if !yield(u, nil) {
			return
		}
	}
}

// Synthetic invents events that a card has rates for: each rate in turn of chance, with values of its match, quantities spread widely around what
// its price is for. The same seed and document give the same events. It says what prices do, nothing of what will be used.
func Synthetic(d *rating.Document, seed uint64, events int, now time.Time) iter.Seq2[rating.Usage, error] {
	return func(yield func(rating.Usage, error) bool) {
		if len(d.Rates) == 0 {
			return
		}
		random := rand.New(rand.NewPCG(seed, 0))
		for range events {
			r := &d.Rates[random.IntN(len(d.Rates))]
			dims := credit.Dimensions{}
			for _, name := range slices.Sorted(maps.Keys(r.Match)) {
				values := r.Match[name]
				dims[name] = values[random.IntN(len(values))]
			}
			share := decimal.New(int64(1_000*math.Exp(random.NormFloat64())), -3) // around 1, log-normal
			q := r.Per.Mul(share).Ceil()
			if r.Per.GreaterThan(decimal.New(1_000, 0)) {
				q = r.Per.Mul(share).Div(decimal.New(1_000, 0)).Ceil() // one event has rarely as much as a price per million is for
			}
			if !yield(rating.Usage{At: now, Dims: dims, Lines: []rating.Line{{Meter: r.Meter, Quantity: q}}}, nil) {
				return
			}
		}
	}
}

// Simulation is what usage costs under a document.
type Simulation struct {
	Events  int // priced
	Total   credit.Amount
	Rates   map[string]*RateTotal // by the id of the rate
	Refused map[string]int        // how many events, by why
	Lines   []rating.PricedLine   // the first ones
}

// RateTotal is what one rate came to.
type RateTotal struct {
	Meter    string
	Lines    int
	Quantity decimal.Decimal
	Credits  decimal.Decimal // before each event's total is rounded
}

// Simulator prices events under a document, as a card's only version and as one customer's: what counts over periods counts all of them.
// There are no exchange rates and no other cards.
type Simulator struct {
	book  *rating.Book
	state rating.Counters
	unit  credit.Unit
	keep  int
	total Simulation
}

// NewSimulator prices in a unit of so many decimal places, 0 to [credit.MaxScale], and keeps so many lines.
func NewSimulator(d *rating.Document, scale, keep int) (*Simulator, error) {
	unit := credit.Unit{Code: "CREDIT", Scale: scale}
	book, err := rating.NewBook(1, []rating.CardVersions{{
		ID: credit.DerivedID[credit.RateCardID]("simulation"), Code: "simulation", Unit: unit, Default: true, Versions: []rating.Version{{Number: 1, Doc: d}},
	}})
	if err != nil {
		return nil, fmt.Errorf("compile the rate card: %w", err)
	}
	return &Simulator{book: book, state: rating.Counters{}, unit: unit, keep: keep, total: Simulation{Rates: map[string]*RateTotal{}, Refused: map[string]int{}}}, nil
}

// Add prices one event. What has no price is counted by the reason; a total beyond [credit.MaxAmount] is an error.
func (s *Simulator) Add(u rating.Usage) error {
	p, err := s.book.Price(credit.RateCardID{}, 0, u, s.state, nil)
	var refusal *credit.Error
	if errors.As(err, &refusal) {
		s.total.Refused[refusal.Detail]++
		return nil
	}
	if err != nil {
		return err
	}
	if s.total.Total > credit.MaxAmount-p.Total {
		return errors.New("the total is beyond the largest amount there is")
	}
	s.state.Apply(p.Changes)
	s.total.Events++
	s.total.Total += p.Total
	for _, l := range p.Lines {
		t := s.total.Rates[l.RateID]
		if t == nil {
			t = &RateTotal{Meter: l.Meter}
			s.total.Rates[l.RateID] = t
		}
		t.Lines++
		t.Quantity, t.Credits = t.Quantity.Add(l.Quantity), t.Credits.Add(l.Cost)
		if len(s.total.Lines) < s.keep {
			s.total.Lines = append(s.total.Lines, l)
		}
	}
	return nil
}

// Result returns what was priced so far.
func (s *Simulator) Result() *Simulation { return &s.total }
