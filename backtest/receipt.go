package backtest

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/buger/jsonparser"
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// event is what the receipt of a consumption says: what was used, and what was charged for it.
type event struct {
	amount, short  credit.Amount // taken; wanting, when the consumption was a partial one
	partial        bool
	dims           credit.Dimensions
	priced         bool              // by a rate card; otherwise an explicit amount
	card           credit.RateCardID // that it was priced by first, and the version
	version        int
	lines          []rating.Line
	fx             []rating.Conversion // the exchange rates that it was priced with
	draws, returns []share
	cost           decimal.Decimal // what it cost to compute, in currency
	currency       string          // "": not recorded
}

// share is what one grant paid or got back.
type share struct {
	grant        credit.GrantID
	amount, left credit.Amount // left: available in the grant afterwards
}

// readEvent reads a receipt without reflection: there are millions of them. scale is that of the operation's unit, at the time of the service.
func readEvent(receipt []byte, scale int, at time.Time) (*event, error) {
	e := &event{}
	err := object(receipt, func(name string, value []byte) (err error) {
		switch name {
		case "amount":
			e.amount, err = amount(value, scale)
		case "shortfall":
			e.short, err = amount(value, scale)
		case "partial":
			e.partial, err = strconv.ParseBool(string(value))
		case "dimensions":
			e.dims, err = dimensions(value)
		case "draws":
			e.draws, err = shares(value, scale)
		case "returns":
			e.returns, err = shares(value, scale)
		case "cost":
			e.cost, e.currency, err = money(value)
		case "pricing":
			// The usage is the same in all of them: one for each rate that something was paid at.
			err = list(value, func(pricing []byte) error {
				first := !e.priced
				e.priced = true
				return e.pricing(pricing, first, at)
			})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read receipt: %w", err)
	}
	e.costLines()
	return e, nil
}

// costLines lets the first line have cost all that was to compute, where the receipt does not say which line cost what: of one line that is so,
// and for rates that go by cost the sum is what matters, unless they have a minimum or a maximum, or add different percentages.
func (e *event) costLines() {
	if e.currency == "" || slices.ContainsFunc(e.lines, func(l rating.Line) bool { return l.Cost.Currency != "" }) {
		return
	}
	for i := range e.lines {
		e.lines[i].Cost.Currency = e.currency
		if i == 0 {
			e.lines[i].Cost.Amount = e.cost
		}
	}
}

// pricing reads the exchange rates of one pricing, and of the first one the lines.
func (e *event) pricing(b []byte, first bool, at time.Time) error {
	return object(b, func(name string, value []byte) (err error) {
		switch {
		case first && name == "rate_card_id":
			e.card, err = credit.ParseID[credit.RateCardID](string(value))
		case first && name == "version":
			e.version, err = strconv.Atoi(string(value))
		}
		if name != "lines" {
			return err
		}
		return list(value, func(b []byte) error {
			var l rating.Line
			err = object(b, func(name string, value []byte) (err error) {
				switch name {
				case "meter":
					l.Meter, err = text(value)
				case "dimensions":
					l.Dims, err = dimensions(value)
				case "quantity":
					l.Quantity, err = decimal.NewFromString(string(value))
				case "compute_cost":
					l.Cost.Amount, l.Cost.Currency, err = money(value)
				case "fx":
					err = e.conversions(value, at)
				}
				return err
			})
			if first {
				e.lines = append(e.lines, l)
			}
			return err
		})
	})
}

func (e *event) conversions(b []byte, at time.Time) error {
	return list(b, func(b []byte) error {
		c := rating.Conversion{At: at}
		err := object(b, func(name string, value []byte) (err error) {
			switch name {
			case "from":
				c.From = string(value)
			case "to":
				c.To = string(value)
			case "rate":
				c.Rate, err = decimal.NewFromString(string(value))
			case "source":
				c.Source = string(value)
			case "on":
				c.On = string(value)
			}
			return err
		})
		e.fx = append(e.fx, c)
		return err
	})
}

func shares(b []byte, scale int) (all []share, _ error) {
	return all, list(b, func(b []byte) error {
		var s share
		err := object(b, func(name string, value []byte) (err error) {
			switch name {
			case "grant_id":
				s.grant, err = credit.ParseID[credit.GrantID](string(value))
			case "amount":
				s.amount, err = amount(value, scale)
			case "left":
				s.left, err = amount(value, scale)
			}
			return err
		})
		all = append(all, s)
		return err
	})
}

func money(b []byte) (a decimal.Decimal, currency string, _ error) {
	return a, currency, object(b, func(name string, value []byte) (err error) {
		switch name {
		case "amount":
			a, err = decimal.NewFromString(string(value))
		case "currency":
			currency = string(value)
		}
		return err
	})
}

func dimensions(b []byte) (credit.Dimensions, error) {
	d := credit.Dimensions{}
	return d, object(b, func(name string, value []byte) (err error) {
		d[name], err = text(value)
		return err
	})
}

func amount(b []byte, scale int) (credit.Amount, error) { return credit.ParseAmount(string(b), scale) }

// text reads the inside of a JSON string.
func text(b []byte) (string, error) {
	s, err := jsonparser.ParseString(b)
	if err != nil {
		return "", fmt.Errorf("read %.100q: %w", b, err)
	}
	return s, nil
}

// object calls do with each member. Of a string the value is what is between the quotes, as it is written.
func object(b []byte, do func(name string, value []byte) error) error {
	return jsonparser.ObjectEach(b, func(name, value []byte, _ jsonparser.ValueType, _ int) error {
		return do(string(name), value)
	})
}

// list calls do with each element until one fails.
func list(b []byte, do func([]byte) error) (err error) {
	_, outer := jsonparser.ArrayEach(b, func(value []byte, _ jsonparser.ValueType, _ int, _ error) {
		if err == nil {
			err = do(value)
		}
	})
	if err == nil {
		err = outer
	}
	return err
}
