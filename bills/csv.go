package bills

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Columns of a CSV bill, in any order; provider and day must be there, and amount with currency, or quantity.
var Columns = []string{"provider", "day", "kind", "model", "token_type", "quantity", "currency", "amount", "description"}

// csv reads a bill as a table with a header of [Columns]. Every day of it has a row; one without charges has a row with an amount of 0.
func (r *reader) csv(at string, body []byte) error {
	in := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(body, []byte("\ufeff"))))
	in.ReuseRecord = true
	header, err := in.Read()
	if err != nil {
		return credit.Invalid(at, "A bill is JSON or CSV with a header; this is neither: %s.", csvReason(err))
	}
	place := make(map[string]int, len(header))
	for i, name := range header {
		name = strings.TrimSpace(strings.ToLower(name))
		if _, twice := place[name]; twice || !slices.Contains(Columns, name) {
			return credit.Invalid(at, "The header has %.40q; the columns are %s, each once.", name, strings.Join(Columns, ", "))
		}
		place[name] = i
	}
	has := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(n string) bool { _, ok := place[n]; return !ok })
	}
	if !has("provider", "day") || !has("amount", "currency") && !has("quantity") || has("amount") != has("currency") {
		return credit.Invalid(at, "The header has provider and day, and amount with currency, or quantity.")
	}
	s := r.stream("costs")
	if !has("amount") {
		s = r.stream("usage")
	}
	days := make(map[time.Time]bool)
	for n := 2; ; n++ {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		where := fmt.Sprintf("%s/row/%d", at, n)
		if err != nil {
			return credit.Invalid(where, "It cannot be read: %s.", csvReason(err))
		}
		l, provider, err := row(where, func(name string) string {
			if i, ok := place[name]; ok {
				return strings.TrimSpace(record[i])
			}
			return ""
		})
		if err != nil {
			return err
		}
		if err := r.provider(where+"/provider", provider); err != nil {
			return err
		}
		if err := r.add(where, l); err != nil {
			return err
		}
		days[l.From] = true
	}
	if len(days) == 0 {
		return credit.Invalid(at, "There are no rows.")
	}
	for day := range days {
		s.buckets, s.more = append(s.buckets, Range{day, day.AddDate(0, 0, 1)}), append(s.more, false)
	}
	return nil
}

func row(at string, cell func(string) string) (l Line, provider string, err error) {
	fault := func(name, format string, args ...any) (Line, string, error) {
		return Line{}, "", credit.Invalid(at+"/"+name, format, args...)
	}
	if provider = cell("provider"); provider == "" || len(provider) > 64 {
		return fault("provider", "A provider has a name of 1 to 64 bytes.")
	}
	day, err := time.Parse(time.DateOnly, cell("day"))
	if err != nil || day.Year() < 2000 || day.Year() > 2200 {
		return fault("day", "%.20q is not a day such as 2026-03-01.", cell("day"))
	}
	l = Line{Kind: Usage, From: day, To: day.AddDate(0, 0, 1), Model: cell("model"), TokenType: tokenType(cell("token_type")), Description: cell("description")}
	if kind := Kind(cell("kind")); kind != "" {
		if l.Kind = kind; kind != Usage && kind != Credit && kind != Commitment {
			return fault("kind", "%.20q is none of usage, credit and commitment.", kind)
		}
	}
	if q := cell("quantity"); q != "" {
		n, err := number(at+"/quantity", []byte(q))
		if err != nil {
			return Line{}, "", err
		}
		if n.IsNegative() {
			return fault("quantity", "A quantity is not below 0.")
		}
		l.Quantity = decimal.NewNullDecimal(n)
	}
	if a := cell("amount"); a != "" || cell("currency") != "" {
		if l.Amount, err = number(at+"/amount", []byte(a)); err != nil {
			return Line{}, "", err
		}
		if l.Currency = strings.ToUpper(cell("currency")); !isCurrency(l.Currency) {
			return fault("currency", "%.12q is not a currency's code: three letters.", l.Currency)
		}
		if l.Amount.IsNegative() && l.Kind == Usage {
			l.Kind = Credit
		}
	} else if !l.Quantity.Valid {
		return fault("amount", "A row has an amount with its currency, or a quantity.")
	}
	return l, provider, nil
}

func csvReason(err error) string {
	if errors.Is(err, io.EOF) {
		return "it is empty"
	}
	return err.Error()
}
