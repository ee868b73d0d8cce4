package export_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/export"
	"github.com/tallystick/tallystick/export/exporttest"
)

var book = export.Book{Entity: "acme", Currency: "USD", Period: "2026-03"}

var plain = []export.System{export.HLedger, export.Ledger, export.Beancount}

func file(t testing.TB, s export.System) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", s.File(1)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func put(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCheckersAgree has each program check its file of the scenario and holds what it makes of every account against figures computed by hand.
func TestCheckersAgree(t *testing.T) {
	want := map[string]string{
		"Assets:1020-Processor-clearing USD":               "170.00", // 108.00 + 110.00 - 48.00
		"Assets:1110-Trade-receivable USD":                 "21.60",
		"Assets:1120-Unbilled-receivable USD":              "5.00",
		"Liabilities:2010 USD":                             "-62.50", // G1 100.00 - 58.33 - 8.33 + 4.16 = 37.50; G6 20.00; G7 5.00
		"Liabilities:2030-Sales-tax-payable USD":           "-9.60",
		"Income:4010-Usage-revenue USD":                    "-62.50", // 58.33 + 8.33 - 4.16
		"Income:4020-Breakage-revenue USD":                 "-66.00",
		"Income:4030-Overage-revenue USD":                  "-5.00",
		"Income:4095-Contra-revenue-price-concessions USD": "5.00",
		"Expenses:7010-FX-realised USD":                    "4.00",
		"Equity:Credits:Issued CRD":                        "-2900.00",
		"Equity:Credits:Wallet CRD":                        "950.00", // G1 450, G2 500, G7 50, overage -50
		"Equity:Credits:Consumed CRD":                      "800.00",
		"Equity:Credits:Expired CRD":                       "600.00",
		"Equity:Credits:Refunded CRD":                      "400.00",
		"Equity:Credits:Voided CRD":                        "150.00",
	}
	for _, s := range plain {
		path := filepath.Join("testdata", s.File(1))
		if err := exporttest.Check(t, s, path); err != nil {
			t.Errorf("%v", err)
		}
		if err := export.Lint(s, book, strings.NewReader(file(t, s))); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		got := exporttest.Sum(t, exporttest.Balances(t, s, path), "Liabilities:2010", "Equity:Credits:Wallet")
		for account, amount := range want {
			if got[account] != amount {
				t.Errorf("%s: %s is %s, want %s", s, account, got[account], amount)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %v", s, got)
		}
	}
	roll := exporttest.RollForward(t, filepath.Join("testdata", export.HLedger.File(1)), "USD")
	for class, amount := range map[string]string{"purchases": "230.00", "concessions": "20.00", "recognised": "-66.66", "refunds": "-44.00", "breakage": "-66.00",
		"voids": "-15.00", "corrections": "4.16"} {
		if roll[class] != amount {
			t.Errorf("roll-forward: %s is %s, want %s", class, roll[class], amount)
		}
	}
}

// TestCommodities has the programs read units whose codes are a currency's, one letter, digits, or end in an underscore, at every scale, beside money
// without decimal places.
func TestCommodities(t *testing.T) {
	units := []export.Unit{{Code: "USD", Scale: 2}, {Code: "X", Scale: 0}, {Code: "T0K3N", Scale: 6}, {Code: "A_", Scale: 1}, {Code: "A_B", Scale: 3}}
	yen := export.Book{Entity: "acme", Currency: "JPY", Period: "2026-02", Detail: export.GrantDay}
	var moves []export.Move
	for i, u := range units {
		moves = append(moves, export.Move{Day: "2026-02-28", Customer: credit.CustomerID{1}, Grant: credit.GrantID{byte(i + 1)}, Unit: u, From: "issued", To: "available", Amount: 1234567})
	}
	bought := export.Entry{Entry: ledger.Purchase(ledger.Fact{Cause: "x", Entity: "acme", Currency: "JPY", Day: "2026-02-01", Period: "2026-02"},
		ledger.Cash, ledger.Sum{Minor: 5000}, ledger.Sum{Minor: 400}, 1)}
	for _, s := range plain {
		var text bytes.Buffer
		_, err := export.Write(s, yen, export.Journal{
			Entries: func(yield func(export.Entry, error) bool) { yield(bought, nil) },
			Moves: func(yield func(export.Move, error) bool) {
				for _, m := range moves {
					if !yield(m, nil) {
						return
					}
				}
			},
		}, func(string) (io.Writer, error) { return &text, nil })
		if err != nil {
			t.Fatal(err)
		}
		path := put(t, s.File(1), text.String())
		if err := exporttest.Check(t, s, path); err != nil {
			t.Errorf("%v\n%s", err, text.String())
		}
		if err := export.Lint(s, yen, &text); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		got := exporttest.Sum(t, exporttest.Balances(t, s, path), "Equity:Credits:Wallet")
		for account, amount := range map[string]string{"Assets:1010-Cash JPY": "5400", "Equity:Credits:Wallet USD-U": "12345.67", "Equity:Credits:Wallet X-U": "1234567",
			"Equity:Credits:Wallet T0K3N": "1.234567", "Equity:Credits:Wallet A_-U": "123456.7", "Equity:Credits:Wallet A_B": "1234.567"} {
			if got[account] != amount {
				t.Errorf("%s: %s is %s, want %s", s, account, got[account], amount)
			}
		}
	}
}

// mutation is one way to break a file; change returns the text unchanged where a format cannot have the fault.
type mutation struct {
	name   string
	change func(s export.System, text string) string
	all    bool // all three programs object
}

// replace replaces the first match of a pattern.
func replace(text, pattern, by string) string {
	re := regexp.MustCompile(`(?m)` + pattern)
	at := re.FindStringSubmatchIndex(text)
	if at == nil {
		return text
	}
	return text[:at[0]] + string(re.ExpandString(nil, by, text, at)) + text[at[1]:]
}

var mutations = []mutation{
	{"a posting off by 0.01", func(s export.System, text string) string {
		return replace(text, `\b44\.00`, "44.01")
	}, true},
	{"an account that is not declared", func(s export.System, text string) string {
		return replace(text, `^(?:2026-03-01 open|account) Income:4020.*\n`, "")
	}, true},
	{"a commodity that is not declared", func(s export.System, text string) string {
		return replace(text, `^(?:2026-03-01 )?commodity CRD.*\n(?:    format.*\n)?`, "")
	}, true},
	{"a wrong balance", func(s export.System, text string) string {
		return replace(text, `((?:= USD |  )170\.0)0`, "${1}1")
	}, true},
	{"a posting off by 0.004", func(s export.System, text string) string { return replace(text, `\b44\.00`, "44.004") }, false},
	{"money against credits", func(s export.System, text string) string {
		if s == export.Beancount {
			return replace(text, `-20\.00 USD`, "-20.00 CRD")
		}
		return replace(text, `USD -20\.00`, "CRD -20.00")
	}, false},
	{"a payee that is not declared", func(s export.System, text string) string {
		return replace(text, `^payee Cus-0400000000000000000000000c\n`, "")
	}, false},
	{"a tag that is not declared", func(s export.System, text string) string { return replace(text, `^tag rf\n`, "") }, false},
	{"days out of order", func(s export.System, text string) string { return replace(text, `^2026-03-02 \*`, "2026-03-09 *") }, false},
	{"an amount left out", func(s export.System, text string) string {
		return replace(text, `^(  +Income:4020-Breakage-revenue)  (?:USD )?-66\.00(?: USD)?`, "${1}")
	}, false},
	{"an entry twice", func(s export.System, text string) string {
		return replace(text, `(^2026-03-31 \* [^\n]*T0000(?:.*\n)+?\n)`, "${1}${1}")
	}, true},
	{"an entry left out", func(s export.System, text string) string {
		return replace(text, `^2026-03-31 \* [^\n]*T0000(?:.*\n)+?\n`, "")
	}, true},
	{"another month", func(s export.System, text string) string { return replace(text, `^2026-03-01 \*`, "2026-02-01 *") }, false},
	{"a number left out", func(s export.System, text string) string { return replace(text, `T000002`, "T000102") }, false},
	{"a number twice", func(s export.System, text string) string { return replace(text, `U000002`, "U000001") }, false},
	{"no assertion", func(s export.System, text string) string {
		return replace(text, `^(?:    |2026-04-01 balance )Assets:1110\S+  (?:USD 0\.00 = USD )?21\.60.*\n`, "")
	}, false},
	{"an entry moved to another account", func(s export.System, text string) string {
		return replace(text, `^( +)Assets:1120-Unbilled-receivable  ((?:USD )?5)`, "${1}Assets:1020-Processor-clearing  ${2}")
	}, true},
}

// TestMutations breaks the files in every way and holds that a program or the lint objects: the lint always.
func TestMutations(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			applied := 0
			for _, s := range plain {
				whole := file(t, s)
				broken := m.change(s, whole)
				if broken == whole {
					continue
				}
				applied++
				lint := export.Lint(s, book, strings.NewReader(broken))
				checker := exporttest.Check(t, s, put(t, s.File(1), broken))
				t.Logf("%-9s  program %-5t  lint %v", s, checker != nil, lint)
				if lint == nil {
					t.Errorf("%s: the lint lets it pass", s)
				}
				if m.all && checker == nil {
					t.Errorf("%s lets it pass", s)
				}
			}
			if applied == 0 || m.all && applied < len(plain) {
				t.Errorf("it could be applied to %d files", applied)
			}
		})
	}
}

// TestMutatedCSV breaks journal.csv.
func TestMutatedCSV(t *testing.T) {
	whole := file(t, export.CSV)
	if err := export.Lint(export.CSV, book, strings.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string][2]string{
		"off by 0.01":             {`,58\.33,`, ",58.34,"},
		"off by 0.004":            {`,58\.33,`, ",58.334,"},
		"in the other currency":   {`,58\.33,(.*),58\.33,`, ",58.33,${1},58.34,"},
		"an amount left out":      {`(4020,Breakage revenue),,66\.00,USD,,66\.00`, "${1},,,USD,,"},
		"a line left out":         {`^.*,4020,.*\n`, ""},
		"a line twice":            {`(^.*,4020,.*\n)`, "${1}${1}"},
		"an entry left out":       {`^2,.*\n2,.*\n`, ""},
		"an entry twice":          {`(^2,.*\n2,.*\n)`, "${1}${1}"},
		"another month":           {`2026-03-31,2026-03-31`, "2026-04-01,2026-03-31"},
		"days out of order":       {`2026-03-02,2026-03-02`, "2026-03-09,2026-03-02"},
		"an account of two names": {`Processor clearing`, "Cash"},
		"late, and not said":      {`,true`, ",false"},
		"another entity":          {`^3,1,acme`, "3,1,emca"},
		"a customer on one line":  {`cus_0400000000000000000000000c`, "cus_0400000000000000000000000g"},
		"a column less":           {`,late\r`, "\r"},
		"both sides":              {`,66\.00,,USD,66\.00,,`, ",66.00,66.00,USD,66.00,66.00,"},
	} {
		broken := replace(whole, m[0], m[1])
		if broken == whole {
			t.Errorf("%s: not applied", name)
		} else if err := export.Lint(export.CSV, book, strings.NewReader(broken)); err == nil {
			t.Errorf("%s: the lint lets it pass", name)
		}
	}
}

// TestLintFindsAnyChangedDigit changes one digit of an amount anywhere.
func TestLintFindsAnyChangedDigit(t *testing.T) {
	amounts := regexp.MustCompile(`\d\.\d\d`)
	rapid.Check(t, func(rt *rapid.T) {
		s := rapid.SampledFrom(plain).Draw(rt, "system")
		text := []byte(file(t, s))
		body := bytes.Index(text, []byte("2026-03-01 *"))
		all := amounts.FindAllIndex(text[body:], -1)
		at := body + rapid.SampledFrom(all).Draw(rt, "amount")[0] + rapid.SampledFrom([]int{0, 2, 3}).Draw(rt, "digit")
		text[at] = '0' + (text[at]-'0'+byte(rapid.IntRange(1, 9).Draw(rt, "more")))%10
		if export.Lint(s, book, bytes.NewReader(text)) == nil {
			rt.Fatalf("the lint lets pass the digit at %d", at)
		}
	})
}

func FuzzLint(f *testing.F) {
	for _, s := range append(plain, export.CSV) {
		b, err := os.ReadFile(filepath.Join("testdata", s.File(1)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(plain, export.CSV) {
			if err := export.Lint(s, book, strings.NewReader(text)); err != nil && !errors.As(err, new(*export.Fault)) {
				t.Errorf("%s: %v", s, err)
			}
		}
	})
}
