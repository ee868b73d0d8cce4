package export

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
)

// named makes an identifier that is the same at every run.
func named[I ~[16]byte](n byte) (id I) {
	id[0], id[15] = 1, n
	return id
}

var crd = Unit{"CRD", 2}

func usd(minor int64) ledger.Sum { return ledger.Sum{Minor: minor} }

func eur(minor, source int64) ledger.Sum {
	return ledger.Sum{Minor: minor, Source: credit.Money{Minor: source, Currency: "EUR"}}
}

// quarter is the integrated scenario of the accounting policy for one period, with every kind of entry that the product posts by itself, and the
// correction of a late usage.
func quarter() ([]Entry, []Move) {
	var entries []Entry
	var moves []Move
	fact := func(cause string, day ledger.Day, n byte) ledger.Fact {
		return ledger.Fact{Cause: cause, Entity: "acme", Currency: "USD", Day: day, Period: "2026-03", Customer: named[credit.CustomerID](n), Grant: named[credit.GrantID](n)}
	}
	post := func(e ledger.Entry) {
		entries = append(entries, Entry{Entry: e, Unit: crd, PostedAt: time.Date(2026, 3, 31, 1, 2, 3, len(entries), time.UTC), Contact: fmt.Sprintf("customer-%x", e.Customer[15])})
	}
	move := func(day ledger.Day, n byte, from, to string, amount credit.Amount) {
		moves = append(moves, Move{Day: day, Customer: named[credit.CustomerID](n), Grant: named[credit.GrantID](n), Unit: crd, From: from, To: to, Amount: amount})
	}
	post(ledger.Purchase(fact("g1/issue", "2026-03-03", 1), ledger.ProcessorClearing, usd(10000), usd(800), 120000))
	move("2026-03-03", 1, "issued", "available", 120000)
	move("2026-03-05", 2, "issued", "available", 50000) // promotional: the unit book alone
	post(ledger.Recognition(fact("g1/use/1", "2026-03-10", 1), 5833, 0, []ledger.Share{{Product: "chat", Model: "large, [new]", Units: 50000}, {Product: "chat", Model: "small", Units: 20000}}))
	post(ledger.Recognition(fact("g1/use/2", "2026-03-10", 1), 833, 0, []ledger.Share{{Product: "chat", Model: "small", Units: 10000}}))
	move("2026-03-10", 1, "available", "consumed", 80000)
	post(ledger.Purchase(fact("g3/issue", "2026-03-02", 3), ledger.ProcessorClearing, eur(11000, 10000), eur(0, 0), 100000))
	move("2026-03-02", 3, "issued", "available", 100000)
	post(ledger.Refund(fact("g3/refund", "2026-03-25", 3), ledger.Return{Units: 40000, Carrying: eur(4400, 4000), Owed: eur(4800, 4000), FX: 400}))
	move("2026-03-25", 3, "available", "refunded", 40000)
	post(ledger.Settlement(fact("g3/settle", "2026-03-26", 3), ledger.ProcessorClearing, eur(4800, 4000)))
	post(ledger.Expiry(fact("g3/expire", "2026-03-31", 3), 6600, 0, 60000))
	move("2026-03-31", 3, "available", "expired", 60000)
	post(ledger.OverageUse(fact("g4/use", "2026-03-01", 4), 500, []ledger.Share{{Units: 5000}}))
	move("2026-03-01", 4, "available", "consumed", 5000)
	post(ledger.ConcessionGrant(fact("g5/issue", "2026-03-07", 5), usd(1500), 15000))
	move("2026-03-07", 5, "issued", "available", 15000)
	post(ledger.ConcessionGrant(fact("g7/issue", "2026-03-07", 7), usd(500), 5000))
	move("2026-03-07", 7, "issued", "available", 5000)
	post(ledger.Void(fact("g5/void", "2026-03-08", 5), ledger.ConcessionContra, ledger.Return{Units: 15000, Carrying: usd(1500), Owed: usd(1500)}))
	move("2026-03-08", 5, "available", "voided", 15000)
	post(ledger.Purchase(fact("g6/issue", "2026-03-09", 6), ledger.TradeReceivable, usd(2000), usd(160), 20000))
	post(ledger.Reversal(fact("g1/reverse", "2026-01-10", 1), false, 416, 0, []ledger.Share{{Product: "chat", Model: "small", Units: 5000}})) // late
	move("2026-03-20", 1, "consumed", "available", 5000)
	slices.SortStableFunc(entries, func(a, b Entry) int { return Compare(&a, &b) })
	slices.SortStableFunc(moves, func(a, b Move) int { return strings.Compare(string(a.Day), string(b.Day)) })
	return entries, moves
}

func all[T any](list []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range list {
			if !yield(v, nil) {
				return
			}
		}
	}
}

func mapping(s System) *Mapping {
	if !s.Mapped() {
		return nil
	}
	m := &Mapping{Version: 1}
	for _, l := range ledger.Chart {
		a := MappedAccount{Account: l.Account, Name: strings.ReplaceAll(l.Name, ": ", ":")}
		switch s {
		case Xero:
			a.Code, a.TaxRate, a.Name = l.Account.String(), "Tax Exempt", ""
		case NetSuite:
			a.Code = l.Account.String()
		}
		m.Accounts = append(m.Accounts, a)
	}
	return m
}

// write exports entries and returns the files by name.
func write(t testing.TB, s System, d Detail, entries []Entry, moves []Move) (Result, map[string]string) {
	t.Helper()
	b := Book{Entity: "acme", Currency: "USD", Period: "2026-03", Detail: d, Mapping: mapping(s)}
	files, r, err := writeBook(s, b, entries, moves)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return r, files
}

func writeBook(s System, b Book, entries []Entry, moves []Move) (map[string]string, Result, error) {
	buffers := map[string]*bytes.Buffer{}
	r, err := Write(s, b, Journal{all(entries), all(moves)}, func(name string) (io.Writer, error) {
		buffers[name] = new(bytes.Buffer)
		return buffers[name], nil
	})
	files := map[string]string{}
	for name, b := range buffers {
		files[name] = b.String()
	}
	return files, r, err
}

// trial is the trial balance of the entries, as the plain-text ledgers name the accounts, control accounts without what is below them.
func trial(entries []Entry) map[string]string {
	sums := map[string]int64{}
	for _, e := range entries {
		for i := range e.Postings {
			sums[AccountName(e.Postings[i].Account)+" USD"] += signed(&e.Postings[i])
		}
	}
	return moneyText(sums)
}

func moneyText(sums map[string]int64) map[string]string {
	out := map[string]string{}
	for name, n := range sums {
		if n != 0 {
			out[name] = credit.Money{Minor: n, Currency: "USD"}.String()
		}
	}
	return out
}

func TestFormats(t *testing.T) {
	entries, moves := quarter()
	for _, s := range Systems {
		r, files := write(t, s, s.Details()[0], entries, moves)
		if r.Debit != r.Credit || r.Debit == 0 || r.Merged != int64(len(entries)) || len(files) != 1 || r.Files[0].Name != s.File(1) {
			t.Errorf("%s: %+v", s, r)
		}
		text := files[s.File(1)]
		if r.Files[0].Bytes != int64(len(text)) {
			t.Errorf("%s: %d bytes, counted %d", s, len(text), r.Files[0].Bytes)
		}
		golden(t, s.File(1), text)
	}
}

// TestMergedSums holds that no detail changes a sum by account.
func TestMergedSums(t *testing.T) {
	entries, _ := quarter()
	want := trial(entries)
	for d, count := range map[Detail]int64{EveryEntry: 13, GrantDay: 12, Day: 11} {
		var read, n int64
		var got []Entry
		for e, err := range merged(d, all(entries), &read) {
			if err != nil {
				t.Fatal(err)
			}
			if !e.Balanced() {
				t.Errorf("%s: %+v", d, e)
			}
			got, n = append(got, e), n+1
		}
		if !maps.Equal(trial(got), want) || read != int64(len(entries)) || n != count {
			t.Errorf("%s: %d of %d entries, %v\nwant %v", d, n, read, trial(got), want)
		}
	}
}

func TestXeroDividesFilesAndNoJournal(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 120), 1, 12).Draw(rt, "models of each use")
		var entries []Entry
		lines := int64(0)
		for i, n := range sizes {
			shares := make([]ledger.Share, n)
			for j := range shares {
				shares[j] = ledger.Share{Model: fmt.Sprint(j), Units: 1}
			}
			e := ledger.Recognition(ledger.Fact{Cause: fmt.Sprint(i), Entity: "acme", Currency: "USD", Day: "2026-03-05", Period: "2026-03",
				Customer: named[credit.CustomerID](byte(i)), Grant: named[credit.GrantID](byte(i))}, int64(n)*10, 0, shares)
			lines += int64(len(e.Postings))
			entries = append(entries, Entry{Entry: e, Unit: crd})
		}
		r, files := write(t, Xero, GrantDay, entries, nil)
		seen := map[string]string{}
		var rows int64
		for name, text := range files {
			for i, line := range strings.Split(strings.TrimSpace(text), "\r\n") {
				if i == 0 || i > xeroLines {
					if i > xeroLines {
						rt.Fatalf("%s has more than %d lines", name, xeroLines)
					}
					continue
				}
				narration, _, _ := strings.Cut(line, ",")
				if in, ok := seen[narration]; ok && in != name {
					rt.Fatalf("%s is in %s and in %s", narration, in, name)
				}
				seen[narration] = name
				rows++
			}
		}
		if rows != lines || len(r.Files) != len(files) || len(seen) != len(sizes) {
			rt.Fatalf("%d rows of %d, %d journals of %d in %d files", rows, lines, len(seen), len(sizes), len(files))
		}
	})
}

func TestRefused(t *testing.T) {
	big := func(minor int64) []Entry {
		return []Entry{{Entry: ledger.Purchase(ledger.Fact{Cause: "x", Entity: "acme", Currency: "USD", Day: "2026-03-05", Period: "2026-03"}, ledger.Cash, usd(minor), usd(0), 1)}}
	}
	wide := []Entry{{Entry: ledger.Recognition(ledger.Fact{Cause: "x", Entity: "acme", Currency: "USD", Day: "2026-03-05", Period: "2026-03"}, 3000, 0, slices.Repeat([]ledger.Share{{Units: 1}}, 300))}}
	for i := range wide[0].Postings {
		wide[0].Postings[i].Model = fmt.Sprint(i) // so that they stay apart
	}
	unmapped := mapping(QuickBooksOnline)
	unmapped.Accounts = slices.DeleteFunc(unmapped.Accounts, func(a MappedAccount) bool { return a.Account == ledger.Cash })
	old := big(100)
	old[0].Day, old[0].Period = "1899-03-05", "1899-03"
	dinar := big(100)
	dinar[0].Currency = "KWD"
	for _, c := range []struct {
		name    string
		s       System
		entries []Entry
		mapping *Mapping
		code    credit.Code
		says    string
	}{
		{"a journal of 301 lines", Xero, wide, mapping(Xero), credit.NotExportable, "301"},
		{"eleven digits", NetSuite, big(1_000_000_000_000), mapping(NetSuite), credit.NotExportable, "10000000000.00"},
		{"ten digits", NetSuite, big(999_999_999_999), mapping(NetSuite), "", ""},
		{"an account without a name", QuickBooksOnline, big(100), unmapped, credit.AccountNotMapped, "1010"},
		{"no mapping", QuickBooksOnline, big(100), nil, credit.AccountNotMapped, "quickbooks_online"},
		{"another century", QuickBooksDesktop, old, mapping(QuickBooksDesktop), credit.NotExportable, "1899"},
		{"three decimal places", Xero, dinar, mapping(Xero), credit.NotExportable, "KWD"},
	} {
		b := Book{Entity: "acme", Currency: c.entries[0].Currency, Period: c.entries[0].Period, Detail: GrantDay, Mapping: c.mapping}
		_, _, err := writeBook(c.s, b, c.entries, nil)
		if credit.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, bad := range []struct {
		name   string
		change func(*Entry)
	}{
		{"another period", func(e *Entry) { e.Period = "2026-04" }},
		{"another entity", func(e *Entry) { e.Entity = "other" }},
		{"unbalanced", func(e *Entry) { e.Postings[0].Money.Minor++ }},
		{"one posting", func(e *Entry) { e.Postings = e.Postings[:1] }},
		{"an unknown account", func(e *Entry) { e.Postings[0].Account = 9999 }},
		{"out of order", func(e *Entry) { e.Day = "2026-03-31" }},
	} {
		entries, _ := quarter()
		bad.change(&entries[2])
		b := Book{Entity: "acme", Currency: "USD", Period: "2026-03", Detail: EveryEntry}
		if _, _, err := writeBook(CSV, b, entries, nil); err == nil || credit.CodeOf(err) != "" {
			t.Errorf("%s: %v", bad.name, err)
		}
	}
	if _, _, err := writeBook(CSV, Book{Entity: "acme", Currency: "USD", Period: "2026-03", Detail: Day}, nil, nil); credit.CodeOf(err) != credit.InvalidRequest {
		t.Errorf("journal.csv by day: %v", err)
	}
}

func TestNothingBooked(t *testing.T) {
	for _, s := range Systems {
		r, files := write(t, s, s.Details()[0], nil, nil)
		if r.Entries != 0 || len(files) != 1 || r.Files[0].Rows != 0 || files[s.File(1)] == "" {
			t.Errorf("%s: %+v", s, r)
		}
	}
}

func TestMappingCheck(t *testing.T) {
	for _, s := range Systems {
		if m := mapping(s); m != nil {
			if err := m.Check(s); err != nil {
				t.Errorf("%s: %v", s, err)
			}
		}
	}
	one := func(a MappedAccount) *Mapping { return &Mapping{Accounts: []MappedAccount{a}} }
	for name, c := range map[string]struct {
		s System
		m *Mapping
	}{
		"no system of that kind":        {HLedger, &Mapping{}},
		"an account that is not ours":   {NetSuite, one(MappedAccount{Account: 1, Name: "Cash"})},
		"an account twice":              {NetSuite, &Mapping{Accounts: []MappedAccount{{Account: 1010, Name: "Cash"}, {Account: 1010, Name: "Bank"}}}},
		"no name":                       {QuickBooksOnline, one(MappedAccount{Account: 1010})},
		"a code where numbers are off":  {QuickBooksOnline, one(MappedAccount{Account: 1010, Name: "Cash", Code: "1"})},
		"no tax rate":                   {Xero, one(MappedAccount{Account: 1010, Code: "090"})},
		"no code":                       {Xero, one(MappedAccount{Account: 1010, Name: "Bank", TaxRate: "None"})},
		"a tab in an IIF file":          {QuickBooksDesktop, one(MappedAccount{Account: 1010, Name: "Ca\tsh"})},
		"an accent in an IIF file":      {QuickBooksDesktop, one(MappedAccount{Account: 1010, Name: "Café"})},
		"a subsidiary of QuickBooks":    {QuickBooksOnline, &Mapping{Subsidiary: "HQ"}},
		"a name of a hundred and one":   {NetSuite, one(MappedAccount{Account: 1010, Name: strings.Repeat("x", 101)})},
		"a name that begins with blank": {NetSuite, one(MappedAccount{Account: 1010, Name: " x"})},
	} {
		if err := c.m.Check(c.s); credit.CodeOf(err) != credit.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := one(MappedAccount{Account: 2010})
	if got := m.Missing([]ledger.Account{4010, 2010, 1010, 4010}); !slices.Equal(got, []ledger.Account{1010, 4010}) {
		t.Errorf("missing: %v", got)
	}
}

// BenchmarkWrite writes a period of a million postings.
func BenchmarkWrite(b *testing.B) {
	const n = 1_000_000
	e := Entry{Entry: ledger.Recognition(ledger.Fact{Cause: "grant/g/use/1/2026-03-05", Entity: "acme", Currency: "USD", Day: "2026-03-05", Period: "2026-03",
		Customer: named[credit.CustomerID](1), Grant: named[credit.GrantID](1)}, 100, 0, []ledger.Share{{Product: "chat", Model: "large", Units: 100}}), Unit: crd}
	for _, s := range Systems {
		b.Run(string(s), func(b *testing.B) {
			if s == Xero {
				b.Skip("its files would be 6,667")
			}
			b.ReportAllocs()
			for b.Loop() {
				_, err := Write(s, Book{Entity: "acme", Currency: "USD", Period: "2026-03", Detail: EveryEntry, Mapping: mapping(s)}, Journal{
					func(yield func(Entry, error) bool) {
						for range n / 2 {
							if !yield(e, nil) {
								return
							}
						}
					}, all[Move](nil)}, func(string) (io.Writer, error) { return io.Discard, nil })
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
