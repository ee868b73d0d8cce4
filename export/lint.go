package export

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tallystick/tallystick/credit/ledger"
)

// Fault is what [Lint] found wrong with a file.
type Fault struct {
	Line int // from 1 on; one past the last for what is missing at the end
	Text string
}

func (f *Fault) Error() string { return fmt.Sprintf("line %d: %s", f.Line, f.Text) }

// Lint reads a file that was exported, journal.csv or a plain-text ledger, as strictly as it was written, and returns the first fault as a
// [*Fault]; b says of what entity, currency and period it is. It finds what the independent programs let pass. Numbers of entries and lines have no gaps, days are of the period and ascend, every
// posting has its amount with all decimal places, every entry balances, names are declared once and before they are used, the balances asserted
// at the end are those of all accounts and right.
func Lint(s System, b Book, r io.Reader) error {
	switch {
	case s == CSV:
		return lintCSV(b, r)
	case s.Plain():
		l := &linter{system: s, period: b.Period, declared: map[string]bool{}, places: map[string]int{}, balances: map[position]int64{}, asserted: map[position]bool{}}
		return l.read(r)
	}
	return fmt.Errorf("there is no lint for files of %s", s)
}

// linter reads a plain-text ledger line by line.
type linter struct {
	system   System
	period   ledger.Period
	line     int
	declared map[string]bool
	places   map[string]int // of commodities
	commod   string         // whose format is on the next line
	last     string         // day
	numbers  [2]int         // of T and of U
	open     bool           // a transaction
	legs     int
	sums     map[string]int64 // of the open transaction by commodity
	closed   bool             // the closing transaction has begun, or balances were asserted
	balances map[position]int64
	asserted map[position]bool
}

func (l *linter) fault(format string, args ...any) error {
	return &Fault{l.line, fmt.Sprintf(format, args...)}
}

func (l *linter) read(r io.Reader) error {
	in := bufio.NewScanner(r)
	for in.Scan() {
		l.line++
		if err := l.one(in.Text()); err != nil {
			return err
		}
	}
	l.line++
	if err := in.Err(); errors.Is(err, bufio.ErrTooLong) {
		return l.fault("the line is too long to be one that is written")
	} else if err != nil {
		return fmt.Errorf("read export: %w", err)
	}
	if err := l.finish(); err != nil {
		return err
	}
	if len(l.asserted) < len(l.balances) {
		return l.fault("the balances of %d accounts are not asserted", len(l.balances)-len(l.asserted))
	}
	return nil
}

const (
	dayForm    = `(\d{4}-\d\d-\d\d)`
	nameForm   = `([A-Z][A-Za-z]*(?::[A-Z0-9][A-Za-z0-9-]*)+)`
	amountForm = `("?)([A-Z][A-Z0-9_-]*)("?) (-?\d+(?:\.\d+)?)`
	beanForm   = `(-?\d+(?:\.\d+)?) ([A-Z][A-Z0-9_-]*)`
)

var (
	headForms = map[System]*regexp.Regexp{
		HLedger:   regexp.MustCompile(`^` + dayForm + ` \* \(([^)]+)\) ([A-Za-z0-9-]+)(?: \| [a-z_ ]+)?(?:  ; [a-z]+:.*)?$`),
		Ledger:    regexp.MustCompile(`^` + dayForm + ` \* \(([^)]+)\) ([A-Za-z0-9-]+)$`),
		Beancount: regexp.MustCompile(`^` + dayForm + ` \* "([A-Za-z0-9-]+)" "[a-z_ ]+" \^([A-Z]\d+)$`),
	}
	classicLeg     = regexp.MustCompile(`^    ` + nameForm + `  ` + amountForm + `(?: = ` + amountForm + `)?(?:  ; [a-z]+:.*)?$`)
	beanLeg        = regexp.MustCompile(`^  ` + nameForm + `  ` + beanForm + `$`)
	beanBalance    = regexp.MustCompile(`^` + dayForm + ` balance ` + nameForm + `  (-?\d+(?:\.\d+)?) ~ 0 ([A-Z][A-Z0-9_-]*)$`)
	beanMeta       = regexp.MustCompile(`^ {2,4}[a-z]+: "[^"]*"$`)
	beanHead       = regexp.MustCompile(`^(?:option|plugin) "`)
	classicMeta    = regexp.MustCompile(`^    ; ([a-z]+): .*$`)
	ledgerFormat   = regexp.MustCompile(`^    format ("?)([A-Z][A-Z0-9_-]*)("?) (1000(?:\.0+)?)$`)
	hledgerDeclare = map[string]*regexp.Regexp{
		"commodity": regexp.MustCompile(`^commodity ("?)([A-Z][A-Z0-9_-]*)("?) 1000\.(0*)$`),
		"account":   regexp.MustCompile(`^account ` + nameForm + `  ; type: [ALERX]$`),
		"payee":     regexp.MustCompile(`^payee ([A-Za-z0-9-]+)$`),
	}
	ledgerDeclare = map[string]*regexp.Regexp{
		"commodity": regexp.MustCompile(`^commodity "?([A-Z][A-Z0-9_-]*)"?$`),
		"account":   regexp.MustCompile(`^account ` + nameForm + `$`),
		"payee":     regexp.MustCompile(`^payee ([A-Za-z0-9-]+)$`),
		"tag":       regexp.MustCompile(`^tag ([a-z]+)$`),
	}
	beanDeclare = map[string]*regexp.Regexp{
		"commodity": regexp.MustCompile(`^` + dayForm + ` commodity ([A-Z][A-Z0-9_-]*)$`),
		"account":   regexp.MustCompile(`^` + dayForm + ` open ` + nameForm + `(?: [A-Z]{3})?$`),
	}
)

func (l *linter) one(s string) error {
	if s == "" || strings.HasPrefix(s, "; ") || s == "decimal-mark ." && l.system == HLedger || l.system == Beancount && beanHead.MatchString(s) {
		return l.finish()
	}
	if s[0] == ' ' {
		return l.indented(s)
	}
	if err := l.finish(); err != nil {
		return err
	}
	if m := headForms[l.system].FindStringSubmatch(s); m != nil {
		if l.system == Beancount {
			m[2], m[3] = m[3], m[2]
		}
		return l.head(m[1], m[2], m[3])
	}
	if m := beanBalance.FindStringSubmatch(s); m != nil && l.system == Beancount {
		if m[1] != string(l.period.Next())+"-01" {
			return l.fault("the balance is not of the end of %s", l.period)
		}
		l.closed = true
		return l.balance(m[2], m[4], m[3])
	}
	return l.declaration(s)
}

func (l *linter) declaration(s string) error {
	forms := map[System]map[string]*regexp.Regexp{HLedger: hledgerDeclare, Ledger: ledgerDeclare, Beancount: beanDeclare}[l.system]
	for what, form := range forms {
		m := form.FindStringSubmatch(s)
		if m == nil {
			continue
		}
		name := m[1]
		switch {
		case l.system == Beancount:
			name = m[2]
			if m[1] != string(l.period)+"-01" {
				return l.fault("%s is declared on %s", name, m[1])
			}
		case what == "commodity" && l.system == HLedger:
			name, l.places[m[2]] = m[2], len(m[4])
		case what == "commodity":
			l.commod = name
		}
		if l.declared[what+" "+name] {
			return l.fault("%s %s is declared twice", what, name)
		}
		l.declared[what+" "+name] = true
		return nil
	}
	return l.fault("nothing of this form is written: %q", s)
}

// head begins a transaction.
func (l *linter) head(on, code, payee string) error {
	l.open, l.legs, l.sums = true, 0, map[string]int64{}
	switch {
	case l.closed:
		return l.fault("a transaction after the closing one")
	case on < l.last:
		return l.fault("%s after %s", on, l.last)
	case ledger.Day(on).Period() != l.period:
		return l.fault("%s is not in %s", on, l.period)
	case l.system != Beancount && !l.declared["payee "+payee]:
		return l.fault("the payee %s is not declared", payee)
	}
	l.last = on
	if l.system != Beancount && code == closeCode(l.period) {
		l.closed = true
		return nil
	}
	kind := strings.IndexByte("TU", code[0])
	n, err := strconv.Atoi(code[1:])
	if kind < 0 || err != nil {
		return l.fault("%s is not the code of a transaction", code)
	}
	if l.numbers[kind]++; n != l.numbers[kind] {
		return l.fault("transaction %s, and %c%06d is next", code, code[0], l.numbers[kind])
	}
	return nil
}

// indented reads a posting, or what belongs to the line before.
func (l *linter) indented(s string) error {
	if l.commod != "" {
		m := ledgerFormat.FindStringSubmatch(s)
		if m == nil || m[2] != l.commod {
			return l.fault("the format of %s is missing", l.commod)
		}
		_, fraction, _ := strings.Cut(m[4], ".")
		l.places[l.commod], l.commod = len(fraction), ""
		return nil
	}
	if !l.open {
		return l.fault("a posting outside a transaction")
	}
	if l.system == Beancount {
		if beanMeta.MatchString(s) {
			return nil
		}
		if m := beanLeg.FindStringSubmatch(s); m != nil {
			return l.posting(m[1], m[3], m[2])
		}
		return l.fault("a posting without its amount, or in another form: %q", s)
	}
	if m := classicMeta.FindStringSubmatch(s); m != nil {
		if l.system == Ledger && !l.declared["tag "+m[1]] {
			return l.fault("the tag %s is not declared", m[1])
		}
		return nil
	}
	m := classicLeg.FindStringSubmatch(s)
	switch {
	case m == nil:
		return l.fault("a posting without its amount, or in another form: %q", s)
	case (m[7] != "") != l.closed:
		return l.fault("balances are asserted in the closing transaction, all of them there")
	case l.closed:
		if n, err := l.amount(m[3], m[5]); err != nil || n != 0 {
			return l.fault("the closing transaction posts nothing")
		}
		l.legs++
		return l.balance(m[1], m[7], m[9])
	}
	return l.posting(m[1], m[3], m[5])
}

// amount reads a number of a commodity, with all its places.
func (l *linter) amount(commodity, number string) (int64, error) {
	if !l.declared["commodity "+commodity] {
		return 0, l.fault("the commodity %s is not declared", commodity)
	}
	_, fraction, _ := strings.Cut(number, ".")
	if places, ok := l.places[commodity]; !ok { // Beancount declares none: the first amount says it
		l.places[commodity] = len(fraction)
	} else if places != len(fraction) {
		return 0, l.fault("%s %s has not %d decimal places", commodity, number, places)
	}
	n, err := strconv.ParseInt(strings.Replace(number, ".", "", 1), 10, 64)
	if err != nil {
		return 0, l.fault("%s is too large", number)
	}
	return n, nil
}

func (l *linter) posting(account, commodity, number string) error {
	n, err := l.amount(commodity, number)
	switch {
	case err != nil:
		return err
	case n == 0:
		return l.fault("a posting of nothing")
	case !l.declared["account "+account]:
		return l.fault("the account %s is not declared", account)
	}
	l.legs++
	l.sums[commodity] += n
	l.balances[position{account, commodity}] += n
	return nil
}

func (l *linter) balance(account, commodity, number string) error {
	at := position{account, commodity}
	n, err := l.amount(commodity, number)
	if err != nil {
		return err
	}
	if has, ok := l.balances[at]; !ok || has != n || l.asserted[at] {
		return l.fault("the balance of %s is asserted as %s %s, and it is %d in the least unit", account, commodity, number, has)
	}
	l.asserted[at] = true
	return nil
}

// finish ends a transaction, if one is open.
func (l *linter) finish() error {
	if !l.open {
		return nil
	}
	l.open = false
	if l.closed {
		return nil
	}
	if l.legs < 2 {
		return l.fault("a transaction of %d postings", l.legs)
	}
	for commodity, n := range l.sums {
		if n != 0 {
			return l.fault("the transaction does not balance: %d of the least unit of %s are left", n, commodity)
		}
	}
	return nil
}

// lintCSV reads journal.csv.
func lintCSV(b Book, r io.Reader) error {
	p := b.Period
	in := csv.NewReader(r)
	in.ReuseRecord = true
	head, err := in.Read()
	if err != nil || !slices.Equal(head, canonicalColumns) {
		return &Fault{1, "the heading is not that of journal.csv"}
	}
	at := make(map[string]int, len(head))
	for i, name := range canonicalColumns {
		at[name] = i
	}
	names := map[string]string{}    // of accounts
	constant := map[string]string{} // what all lines of an entry, or of the file, share
	var last string                 // day
	var sum int64                   // of the entry so far
	var entry, line, began int      // of the row before; where its entry began
	ofEntry := []string{"effective_date", "service_date", "posted_at", "kind", "customer_id", "grant_id", "source_id", "idempotency_key", "reverses_entry_no", "late"}
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			if sum != 0 || line == 1 {
				return &Fault{began, fmt.Sprintf("entry %d does not balance", entry)}
			}
			return nil
		}
		if err != nil {
			return &Fault{began, err.Error()}
		}
		n, _ := in.FieldPos(0)
		fault := func(format string, args ...any) error { return &Fault{n, fmt.Sprintf(format, args...)} }
		get := func(name string) string { return row[at[name]] }
		on := get("effective_date")
		if get("entry_no") != strconv.Itoa(entry) || line == 0 {
			if sum != 0 || line == 1 {
				return &Fault{began, fmt.Sprintf("entry %d does not balance", entry)}
			}
			entry, line, sum, began = entry+1, 0, 0, n
			if get("entry_no") != strconv.Itoa(entry) {
				return fault("entry %s, and %d is next", get("entry_no"), entry)
			}
			if len(on) != 10 || !strings.HasPrefix(on, string(p)+"-") || on < last {
				return fault("%q is not of %s, or before %s", on, p, last)
			}
			last = on
			for _, name := range ofEntry {
				constant[name] = row[at[name]]
			}
		}
		if line++; get("line_no") != strconv.Itoa(line) {
			return fault("line %s of entry %d, and %d is next", get("line_no"), entry, line)
		}
		for _, name := range ofEntry {
			if row[at[name]] != constant[name] {
				return fault("%s is not that of the entry's other lines", name)
			}
		}
		if get("entity") != b.Entity || get("period") != string(p) {
			return fault("the line is of %s, %s", get("entity"), get("period"))
		}
		code, name := get("account_code"), get("account_name")
		if has, ok := names[code]; name == "" || ok && has != name {
			return fault("account %s is called %q and %q", code, has, name)
		} else if !ok {
			names[code] = name
		}
		debit, credit := get("functional_debit"), get("functional_credit")
		if (debit == "") == (credit == "") || (get("debit") == "") != (debit == "") || (get("credit") == "") != (credit == "") {
			return fault("a line has either a debit or a credit")
		}
		if get("currency") == b.Currency && get("debit")+get("credit") != debit+credit {
			return fault("%s in %s is not %s", get("debit")+get("credit"), b.Currency, debit+credit)
		}
		amount, err := strconv.ParseInt(strings.Replace(debit+credit, ".", "", 1), 10, 64)
		if err != nil || amount <= 0 {
			return fault("%q is not an amount", debit+credit)
		}
		_, fraction, _ := strings.Cut(debit+credit, ".")
		if places, ok := constant["places"]; !ok {
			constant["places"] = strconv.Itoa(len(fraction))
		} else if places != strconv.Itoa(len(fraction)) {
			return fault("%s has not %s decimal places", debit+credit, places)
		}
		if credit != "" {
			amount = -amount
		}
		sum += amount
		if (get("late") == "true") == strings.HasPrefix(get("service_date"), string(p)+"-") {
			return fault("late is %s, and the day of service is %s", get("late"), get("service_date"))
		}
	}
}
