package fx

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tallystick/tallystick/credit"
)

// ECB is the source of quotes read from the files of the European Central Bank, and the currency that they are in.
const (
	ECB     = "ecb"
	ECBBase = "EUR"
)

// Bounds of a file. Twenty-five years of the ECB are a quarter of a million quotes.
const (
	maxQuotes = 1_000_000
	maxFaults = 100 // reported; more are counted
)

// Parse reads a file of quotes, by its first line one of two forms:
//
//	Date, USD, JPY, …          the euro reference rates of the ECB: what one euro is worth, "N/A" or nothing where there is no quote; both
//	2026-11-20,1.0823,161.2,…  the history (eurofxref-hist.csv) and the daily file, which writes its date "20 November 2026"
//
//	date,from,to,rate          anybody else's
//	2026-11-20,USD,EUR,0.9240
//
// source becomes that of every quote, and in the ECB's form may be empty for [ECB]. Quotes come in the order of the file with No 0. A
// currency's code is only checked for its form: tables have codes that nobody pays with any more.
//
// The refusal is a [credit.Error] coded invalid_request whose Issues list every fault, up to 100 of them, each with its line and column (the
// first character is 1, columns are counted in bytes) in place of a pointer. Two quotes of one pair and day are a fault.
func Parse(file []byte, source string) ([]Quote, error) {
	p := parser{source: source, seen: make(map[seenKey]int)}
	file = bytes.TrimPrefix(file, []byte("\ufeff"))
	if !utf8.Valid(file) {
		return nil, credit.Invalid("", "The file is not UTF-8.")
	}
	p.csv = csv.NewReader(bytes.NewReader(file))
	p.csv.FieldsPerRecord, p.csv.ReuseRecord, p.csv.TrimLeadingSpace = -1, true, true
	header, ok := p.record()
	switch {
	case !ok:
	case len(header) == 4 && strings.EqualFold(strings.TrimSpace(strings.Join(header, ",")), "date,from,to,rate"):
		p.plain()
	case len(header) > 1 && strings.TrimSpace(header[0]) == "Date":
		p.ecb(header)
	default:
		p.fault(0, `The first line is neither "Date, USD, …" of the ECB nor "date,from,to,rate".`)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	if len(p.quotes) == 0 {
		return nil, credit.Invalid("", "The file has no quotes.")
	}
	return p.quotes, nil
}

type parser struct {
	csv    *csv.Reader
	source string
	quotes []Quote
	seen   map[seenKey]int // the line of a quote
	issues []credit.Issue
	faults int
}

type seenKey struct {
	day      int64
	from, to string
}

// fault records a fault of a field of the record read last.
func (p *parser) fault(field int, format string, args ...any) {
	line, column := p.csv.FieldPos(field)
	p.faultAt(line, column, format, args...)
}

func (p *parser) faultAt(line, column int, format string, args ...any) {
	if p.faults++; len(p.issues) < maxFaults {
		p.issues = append(p.issues, credit.Issue{Pointer: fmt.Sprintf("line %d, column %d", line, column), Detail: fmt.Sprintf(format, args...)})
	}
}

func (p *parser) err() error {
	if p.faults == 0 {
		return nil
	}
	first := p.issues[0]
	detail := fmt.Sprintf("The file has %d faults. The first, at %s: %s", p.faults, first.Pointer, first.Detail)
	if p.faults == 1 {
		detail = fmt.Sprintf("The file has a fault at %s: %s", first.Pointer, first.Detail)
	}
	return &credit.Error{Code: credit.InvalidRequest, Detail: detail, Issues: p.issues}
}

// record reads the next line that is not blank; false at the end, and where the file is not CSV.
func (p *parser) record() ([]string, bool) {
	r, err := p.csv.Read()
	var bad *csv.ParseError
	switch {
	case err == nil:
		return r, true
	case errors.As(err, &bad):
		p.faultAt(bad.Line, bad.Column, "The file is not CSV: %v.", bad.Err)
	case errors.Is(err, io.EOF) && p.csv.InputOffset() == 0:
		p.faultAt(1, 1, "The file is empty.")
	}
	return nil, false
}

func (p *parser) ecb(header []string) {
	if p.source == "" {
		p.source = ECB
	}
	header = slices.Clone(header) // the reader uses its slice again
	currencies := make([]string, len(header))
	at := make(map[string]int, len(header))
	for i, name := range header[1:] {
		i, name = i+1, strings.TrimSpace(name)
		switch j, twice := at[name]; {
		case name == "" && i == len(header)-1: // the files end each line with a comma
		case !isCurrency(name) || name == ECBBase:
			p.fault(i, "%.12q is not a currency's code: three capital letters, not %s itself.", name, ECBBase)
		case twice:
			p.fault(i, "%s is also in field %d.", name, j+1)
		default:
			currencies[i], at[name] = name, i
		}
	}
	for {
		r, ok := p.record()
		if !ok {
			return
		}
		day, ok := p.day(r[0], true)
		if !ok {
			continue
		}
		for i, text := range r[1:] {
			i, text = i+1, strings.TrimSpace(text)
			switch {
			case text == "" || text == "N/A":
			case i >= len(header):
				p.fault(i, "There is no currency above this field.")
			case currencies[i] != "":
				p.add(i, day, ECBBase, currencies[i], text)
			case i == len(header)-1 && strings.TrimSpace(header[i]) == "":
				p.fault(i, "There is no currency above this field.")
			}
		}
		if len(r) < len(header)-1 {
			p.fault(0, "The line has %d fields, the first line %d.", len(r), len(header))
		}
	}
}

func (p *parser) plain() {
	if p.source == "" {
		p.source = "csv"
	}
	for {
		r, ok := p.record()
		if !ok {
			return
		}
		if len(r) != 4 {
			p.fault(0, "The line has %d fields instead of 4: date, from, to, rate.", len(r))
			continue
		}
		day, ok := p.day(r[0], false)
		from, to := strings.TrimSpace(r[1]), strings.TrimSpace(r[2])
		for i, code := range []string{from, to} {
			if !isCurrency(code) {
				p.fault(i+1, "%.12q is not a currency's code: three capital letters.", code)
				ok = false
			}
		}
		if ok && from == to {
			p.fault(2, "A currency is worth one of itself.")
			ok = false
		}
		if ok {
			p.add(3, day, from, to, strings.TrimSpace(r[3]))
		}
	}
}

func (p *parser) day(text string, long bool) (time.Time, bool) {
	text = strings.TrimSpace(text)
	day, ok := ParseDay(text)
	if !ok && long {
		var err error
		day, err = time.Parse("2 January 2006", text)
		ok = err == nil && plausible(day)
	}
	if !ok {
		p.fault(0, "%.40q is not a day such as 2026-01-31.", text)
	}
	return day, ok
}

func (p *parser) add(field int, day time.Time, from, to, text string) {
	rate, ok := ParseRate(text)
	if !ok {
		p.fault(field, "%.40q is not a positive decimal number with at most %d digits before and %d after the point.", text, maxWhole, Places)
		return
	}
	line, _ := p.csv.FieldPos(field)
	key := seenKey{day.Unix(), from, to}
	if before, twice := p.seen[key]; twice {
		p.fault(field, "%s/%s of %s is also on line %d.", from, to, dayText(day), before)
		return
	}
	if len(p.quotes) == maxQuotes {
		if p.faults == 0 {
			p.fault(field, "The file has more than %d quotes.", maxQuotes)
		}
		return
	}
	p.seen[key] = line
	p.quotes = append(p.quotes, Quote{On: day, From: strings.Clone(from), To: strings.Clone(to), Rate: rate, Source: p.source})
}
