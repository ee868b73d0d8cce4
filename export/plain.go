package export

import (
	"bufio"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
)

// plain writes a plain-text ledger: the entries as transactions T000001, T000002 and so on, the moves of credits as transactions U000001 and so
// on, in order of their days, and at the end what every account has come to. Names are declared where they first occur. What it keeps in memory is one
// balance for each account: grants that had entries, not entries.
type plain struct {
	*run
	to       *counted
	out      *bufio.Writer
	dialect  dialect
	moves    func() (Move, error, bool)
	move     *Move // the next one; nil: there is no more
	moved    int64 // transactions of moves so far
	declared map[string]bool
	scales   map[string]int // of commodities
	balances map[position]int64
}

// position is what one account holds of one commodity.
type position struct{ account, commodity string }

// transaction is what all three dialects write.
type transaction struct {
	day         ledger.Day
	code        string // T000001
	payee, note string
	tags        []tag
	legs        []leg
}

type leg struct {
	account string
	amount  amount
	tags    []tag
}

type amount struct {
	n         int64
	commodity string
	scale     int
}

func (a amount) number() string {
	sign, n := "", a.n
	if n < 0 {
		sign, n = "-", -n
	}
	return sign + credit.Amount(n).Decimal(a.scale).StringFixed(int32(a.scale))
}

type tag struct{ name, value string }

// tags that transactions and legs have.
const (
	tagKind    = "kind"    // what the entry records; of moves: units
	tagRoll    = "rf"      // column of the roll-forward of deferred revenue
	tagProduct = "product" // of revenue
	tagModel   = "model"
	tagService = "service" // day of service of a late entry
)

// dialect is how one program wants it written. Each writes whole lines.
type dialect interface {
	head(p *plain)
	commodity(p *plain, name string, scale int)
	account(p *plain, name string)
	payee(p *plain, name string) // and nothing where payees are not declared
	tag(p *plain, name string)
	transaction(p *plain, t *transaction)
	// closing asserts balances, in order of account and commodity.
	closing(p *plain, last ledger.Day, all []position)
}

func newPlain(x *run, moves iter.Seq2[Move, error]) (writer, error) {
	f, err := x.file()
	if err != nil {
		return nil, err
	}
	p := &plain{run: x, to: f, out: bufio.NewWriter(f), declared: map[string]bool{}, scales: map[string]int{}, balances: map[position]int64{}}
	p.dialect = map[System]dialect{HLedger: hledger{}, Ledger: ledgerCLI{}, Beancount: beancount{}}[x.system]
	p.dialect.head(p)
	p.moves, x.stop = iter.Pull2(moves)
	return p, p.nextMove()
}

func (p *plain) printf(format string, args ...any) { fmt.Fprintf(p.out, format, args...) } // bufio keeps its error until Flush

func (p *plain) nextMove() error {
	m, err, ok := p.moves()
	if !ok {
		p.move = nil
		return nil
	}
	switch {
	case err != nil:
		return err
	case m.Day.Period() != p.Period:
		return fmt.Errorf("credits of grant %s moved on %s, which is not in %s", m.Grant, m.Day, p.Period)
	case m.Amount <= 0 || p.move != nil && m.Day < p.move.Day:
		return fmt.Errorf("bad move %+v", m)
	}
	p.move = &m
	return nil
}

func (p *plain) entry(e *Entry) error {
	if err := p.movesUntil(e.Date()); err != nil {
		return err
	}
	t := transaction{day: e.Date(), code: fmt.Sprintf("T%06d", e.No), payee: "Books", note: string(e.Kind), tags: []tag{{tagKind, string(e.Kind)}}}
	if !e.Customer.IsZero() {
		t.payee = accountPart(e.Customer.String())
	}
	if e.Late() {
		t.tags = append(t.tags, tag{tagService, string(e.Day)})
	}
	for i := range e.Postings {
		l := &e.Postings[i]
		out := leg{account: AccountName(l.Account), amount: amount{signed(l), p.Currency, p.places}}
		if l.Account == ledger.PrepaidCredits {
			out.account += subLedger(e.Customer, e.Grant)
		}
		for _, g := range []tag{{tagRoll, rollClass(e.Kind, l.Account)}, {tagProduct, tagValue(l.Product)}, {tagModel, tagValue(l.Model)}} {
			if g.value != "" {
				out.tags = append(out.tags, g)
			}
		}
		t.legs = append(t.legs, out)
	}
	p.write(&t)
	return nil
}

// movesUntil writes the moves of days before one. Within a day money goes first.
func (p *plain) movesUntil(d ledger.Day) error {
	for p.move != nil && (d == "" || p.move.Day < d) {
		m := p.move
		p.moved++
		a := amount{int64(m.Amount), Commodity(m.Unit.Code), m.Unit.Scale}
		minus := a
		minus.n = -a.n
		p.write(&transaction{
			day: m.Day, code: fmt.Sprintf("U%06d", p.moved), payee: accountPart(m.Customer.String()), note: m.From + " to " + m.To, tags: []tag{{tagKind, "units"}},
			legs: []leg{{account: unitAccount(m, m.To), amount: a}, {account: unitAccount(m, m.From), amount: minus}},
		})
		if err := p.nextMove(); err != nil {
			return err
		}
	}
	return nil
}

func (p *plain) write(t *transaction) {
	p.declare("payee "+t.payee, func() { p.dialect.payee(p, t.payee) })
	for _, g := range t.tags {
		p.declare("tag "+g.name, func() { p.dialect.tag(p, g.name) })
	}
	for i := range t.legs {
		l := &t.legs[i]
		p.declare("commodity "+l.amount.commodity, func() {
			p.scales[l.amount.commodity] = l.amount.scale
			p.dialect.commodity(p, l.amount.commodity, l.amount.scale)
		})
		p.declare("account "+l.account, func() { p.dialect.account(p, l.account) })
		for _, g := range l.tags {
			p.declare("tag "+g.name, func() { p.dialect.tag(p, g.name) })
		}
		p.balances[position{l.account, l.amount.commodity}] += l.amount.n
	}
	p.dialect.transaction(p, t)
	p.to.rows += int64(len(t.legs))
}

func (p *plain) declare(what string, how func()) {
	if !p.declared[what] {
		p.declared[what] = true
		how()
	}
}

// end writes what is left, and asserts every balance.
func (p *plain) end() error {
	if err := p.movesUntil(""); err != nil {
		return err
	}
	all := slices.SortedFunc(maps.Keys(p.balances), func(a, b position) int {
		return strings.Compare(a.account+" "+a.commodity, b.account+" "+b.commodity)
	})
	p.dialect.closing(p, ledger.DayOf(day(ledger.Day(p.Period.Next()+"-01")).AddDate(0, 0, -1), time.UTC), all)
	return p.out.Flush()
}

// balance returns what a position has come to.
func (p *plain) balance(at position) amount {
	return amount{p.balances[at], at.commodity, p.scales[at.commodity]}
}

var roots = map[ledger.AccountType]string{
	ledger.Asset: "Assets", ledger.Liability: "Liabilities", ledger.Equity: "Equity", ledger.Revenue: "Income", ledger.Expense: "Expenses",
}

// AccountName returns the name of an account of the chart in the plain-text ledgers: only letters, digits, colons and hyphens, every part
// beginning with a capital or a digit. Account 2010 has one account below it for each grant.
func AccountName(a ledger.Account) string {
	for _, l := range ledger.Chart {
		if l.Account == a {
			words := strings.FieldsFunc(l.Name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
			return roots[l.Type] + ":" + a.String() + "-" + strings.Join(words, "-")
		}
	}
	return ""
}

// accountPart makes an identifier a part of an account's name: cus_06h0… is Cus-06h0….
func accountPart(id string) string {
	return strings.ToUpper(id[:1]) + strings.ReplaceAll(id[1:], "_", "-")
}

// subLedger is where an entry stands below account 2010; what is about no grant stands in one account of its own, for no account that is booked on
// may have others below it.
func subLedger(c credit.CustomerID, g credit.GrantID) string {
	name := ""
	if !c.IsZero() {
		name = ":" + accountPart(c.String())
	}
	if g.IsZero() {
		return name + ":Unassigned"
	}
	return name + ":" + accountPart(g.String())
}

// unitAccount is an account of the unit book. What is held is still in the wallet.
func unitAccount(m *Move, name string) string {
	const book = "Equity:Credits:"
	if name == Available || name == Held {
		return book + "Wallet" + subLedger(m.Customer, m.Grant)
	}
	return book + strings.ToUpper(name[:1]) + name[1:]
}

// Accounts of the unit book that are a wallet; moves between them are none.
const (
	Available = "available"
	Held      = "held"
)

// Commodity returns the name of a unit of credits in the plain-text ledgers: its code, with -U after it where the code is a currency's, or is none
// that Beancount takes.
func Commodity(code string) string {
	_, err := credit.CurrencyPlaces(code)
	if err == nil || len(code) < 2 || strings.HasSuffix(code, "_") {
		return code + "-U"
	}
	return code
}

// tagValue writes a value so that all three programs read it as one: other characters than letters, digits, spaces and ._/+@ are hyphens.
func tagValue(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" ._/+@", r) {
			return r
		}
		return '-'
	}, s))
}
