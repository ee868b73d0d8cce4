package rating

import (
	"errors"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// FX is an exchange rate, and where it comes from.
type FX struct {
	Rate   decimal.Decimal // of the one currency for 1 of the other, > 0
	Source string          // who publishes it
	On     string          // the day that it was published for, "2026-03-01"
}

// Rates knows exchange rates.
type Rates interface {
	// Rate returns what 1 of a currency was in another at an instant. Any error refuses the usage; a [credit.Error] keeps its code.
	Rate(from, to string, at time.Time) (FX, error)
}

// Conversion is an exchange rate that a price was reckoned with.
type Conversion struct {
	From, To string    // ISO 4217
	At       time.Time // the instant asked about
	FX
}

// maxRateDigits bounds an exchange rate's digits on either side of the point.
const maxRateDigits = 40

// credits turns money into credits, at the rates of an instant, and notes the one used on the line. Nothing stays nothing without a rate.
func (p *pricing) credits(d *Document, money number, currency string, at time.Time, line *PricedLine) (number, error) {
	if money.sign() == 0 {
		return money, nil
	}
	if to := d.CreditValue.Currency; currency != to {
		fx, err := p.rate(currency, to, at)
		if err != nil {
			return number{}, err
		}
		c := Conversion{From: currency, To: to, At: at, FX: fx}
		if !slices.ContainsFunc(line.FX, func(e Conversion) bool { return e.From == c.From && e.To == c.To && e.At.Equal(c.At) }) {
			line.FX = append(line.FX, c)
		}
		u := newUnitPrice(fx.Rate, decimal.New(1, 0))
		money = money.times(&u)
	}
	return money.times(&d.perCredit), nil
}

func (p *pricing) rate(from, to string, at time.Time) (FX, error) {
	if p.rates == nil {
		return FX{}, credit.Errorf(credit.NoRate, "A price is in %s and a credit is worth %s, and no exchange rates are at hand.", from, to)
	}
	fx, err := p.rates.Rate(from, to, at)
	if err != nil {
		if e := (*credit.Error)(nil); errors.As(err, &e) {
			return FX{}, err
		}
		return FX{}, credit.Errorf(credit.NoRate, "There is no exchange rate from %s to %s for %s: %v.", from, to, at.UTC().Format(time.RFC3339), err)
	}
	exponent := int64(fx.Rate.Exponent())
	if fx.Rate.Sign() <= 0 || exponent < -maxRateDigits || exponent+int64(fx.Rate.NumDigits()) > maxRateDigits {
		return FX{}, credit.Errorf(credit.NoRate, "The exchange rate from %s to %s for %s is not a number that can be a rate.", from, to, at.UTC().Format(time.RFC3339))
	}
	return fx, nil
}
