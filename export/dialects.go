package export

import (
	"strings"

	"github.com/tallystick/tallystick/credit/ledger"
)

// quoted writes a commodity as hledger and Ledger want it: in quotation marks unless it is all letters.
func quoted(commodity string) string {
	if strings.ContainsFunc(commodity, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		return `"` + commodity + `"`
	}
	return commodity
}

func zeros(scale int) string { return amount{0, "", scale}.number() }

// hledger is the dialect of hledger, https://hledger.org.
type hledger struct{}

func (hledger) head(p *plain) {
	p.printf("; %s %s\ndecimal-mark .\n", p.Entity, p.Period)
}

func (hledger) commodity(p *plain, name string, scale int) {
	form := "1000." + strings.Repeat("0", scale)
	p.printf("commodity %s %s\n", quoted(name), form)
}

var accountTypes = map[string]string{"Assets": "A", "Liabilities": "L", "Equity": "E", "Income": "R", "Expenses": "X"}

func (hledger) account(p *plain, name string) {
	root, _, _ := strings.Cut(name, ":")
	p.printf("account %s  ; type: %s\n", name, accountTypes[root])
}

func (hledger) payee(p *plain, name string) { p.printf("payee %s\n", name) }
func (hledger) tag(*plain, string)          {}

func (hledger) transaction(p *plain, t *transaction) {
	p.printf("\n%s * (%s) %s | %s%s\n", t.day, t.code, t.payee, t.note, inline(t.tags))
	for _, l := range t.legs {
		p.printf("    %s  %s %s%s\n", l.account, quoted(l.amount.commodity), l.amount.number(), inline(l.tags))
	}
	p.printf("\n")
}

func inline(tags []tag) string {
	var b strings.Builder
	for i, g := range tags {
		b.WriteString([2]string{"  ; ", ", "}[min(i, 1)])
		b.WriteString(g.name + ":" + g.value)
	}
	return b.String()
}

func (d hledger) closing(p *plain, last ledger.Day, all []position) {
	p.declare("payee "+closePayee, func() { d.payee(p, closePayee) })
	p.printf("\n%s * (%s) %s\n", last, closeCode(p.Period), closePayee)
	assertions(p, all)
}

const closePayee = "Close"

func closeCode(p ledger.Period) string { return "CLOSE-" + string(p) }

// assertions are postings of nothing that each say what the account has come to.
func assertions(p *plain, all []position) {
	for _, at := range all {
		b := p.balance(at)
		c := quoted(at.commodity)
		p.printf("    %s  %s %s = %s %s\n", at.account, c, zeros(b.scale), c, b.number())
	}
}

// ledgerCLI is the dialect of Ledger, https://ledger-cli.org.
type ledgerCLI struct{}

func (ledgerCLI) head(p *plain) { p.printf("; %s %s\n", p.Entity, p.Period) }

func (ledgerCLI) commodity(p *plain, name string, scale int) {
	form := "1000"
	if scale > 0 {
		form += "." + strings.Repeat("0", scale)
	}
	p.printf("commodity %s\n    format %s %s\n", quoted(name), quoted(name), form)
}

func (ledgerCLI) account(p *plain, name string) { p.printf("account %s\n", name) }
func (ledgerCLI) payee(p *plain, name string)   { p.printf("payee %s\n", name) }
func (ledgerCLI) tag(p *plain, name string)     { p.printf("tag %s\n", name) }

func (ledgerCLI) transaction(p *plain, t *transaction) {
	p.printf("\n%s * (%s) %s\n", t.day, t.code, t.payee)
	for _, g := range t.tags {
		p.printf("    ; %s: %s\n", g.name, g.value)
	}
	for _, l := range t.legs {
		p.printf("    %s  %s %s\n", l.account, quoted(l.amount.commodity), l.amount.number())
		for _, g := range l.tags {
			p.printf("    ; %s: %s\n", g.name, g.value)
		}
	}
	p.printf("\n")
}

func (d ledgerCLI) closing(p *plain, last ledger.Day, all []position) {
	p.declare("payee "+closePayee, func() { d.payee(p, closePayee) })
	p.printf("\n%s * (%s) %s\n", last, closeCode(p.Period), closePayee)
	assertions(p, all)
}

// beancount is the dialect of Beancount 2, https://beancount.github.io. It asserts a balance at the beginning of a day.
type beancount struct{}

func (beancount) head(p *plain) {
	p.printf("; %s %s\noption \"inferred_tolerance_multiplier\" \"0\"\nplugin \"beancount.plugins.check_commodity\"\nplugin \"beancount.plugins.noduplicates\"\n"+
		"plugin \"beancount.plugins.leafonly\"\n", p.Entity, p.Period)
}

func (beancount) commodity(p *plain, name string, _ int) {
	p.printf("%s-01 commodity %s\n", p.Period, name)
}

func (beancount) account(p *plain, name string) {
	only := ""
	if !strings.HasPrefix(name, "Equity:Credits:") {
		only = " " + p.Currency
	}
	p.printf("%s-01 open %s%s\n", p.Period, name, only)
}

func (beancount) payee(*plain, string) {}
func (beancount) tag(*plain, string)   {}

func (beancount) transaction(p *plain, t *transaction) {
	p.printf("\n%s * \"%s\" \"%s\" ^%s\n", t.day, t.payee, t.note, t.code)
	for _, g := range t.tags {
		p.printf("  %s: \"%s\"\n", g.name, g.value)
	}
	for _, l := range t.legs {
		p.printf("  %s  %s %s\n", l.account, l.amount.number(), l.amount.commodity)
		for _, g := range l.tags {
			p.printf("    %s: \"%s\"\n", g.name, g.value)
		}
	}
	p.printf("\n")
}

func (beancount) closing(p *plain, _ ledger.Day, all []position) {
	for _, at := range all {
		b := p.balance(at)
		p.printf("%s-01 balance %s  %s ~ 0 %s\n", p.Period.Next(), at.account, b.number(), at.commodity)
	}
}
