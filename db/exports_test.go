package db_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/export"
	"github.com/tallystick/tallystick/export/exporttest"
)

// exportTo writes an export into a folder and returns what it says of itself.
func exportTo(t testing.TB, s *db.Store, p export.Parameters) (export.Manifest, string, error) {
	t.Helper()
	dir := t.TempDir()
	m, err := s.Export(ctx, p, func(name string) (io.Writer, error) {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			t.Cleanup(func() { f.Close() })
		}
		return f, err
	})
	return m, dir, err
}

// bookQuarter writes a quarter of the accounting policy's scenario, two uses a day in different models, and a late use of closed January.
func bookQuarter(t *testing.T, s *db.Store) (all []*dbtest.Customer) {
	t.Helper()
	b := dbtest.NewBook(t, s)
	for range 4 {
		all = append(all, b.Customer(dbtest.Entity))
	}
	c1, c2, c3, c4 := all[0], all[1], all[2], all[3]
	post := func() {
		for _, c := range all {
			recognise(t, s, c)
		}
	}
	g1 := c1.Grant(on(1, 3), credit.Grant{Amount: 1200, Price: usd(10000), Tax: 800})
	g2 := c2.Grant(on(1, 5), credit.Grant{Type: credit.Promotional, Amount: 500, ExpiresAt: on(1, 31)})
	c1.Use(on(1, 10), g1, 300, credit.Dimensions{"model": "large, \"new\"", "product": "chat"})
	post() // so that the day has two entries
	c1.Use(on(1, 10).Add(time.Hour), g1, 400, credit.Dimensions{"model": "small"})
	c2.Use(on(1, 12), g2, 120, nil)
	c2.Expire(g2)
	post()
	b.SetPeriod("2026-01", "closed")
	g3 := c3.Grant(on(2, 2), credit.Grant{Amount: 1000, Price: credit.Money{Minor: 10000, Currency: "EUR"}, FXRate: decimal.RequireFromString("1.10"), ExpiresAt: on(3, 31)})
	c3.Use(on(2, 10), g3, 333, nil)
	c1.Do(dbtest.Operation{Kind: "consume", At: on(2, 15), ServiceAt: on(1, 30), Moves: []dbtest.Move{{Grant: g1, Debit: "available", Credit: "consumed", Amount: 100}}})
	c1.Do(dbtest.Operation{Kind: "hold", At: on(2, 16), Moves: []dbtest.Move{{Grant: g1, Debit: "available", Credit: "held", Amount: 50}}})
	refund := c3.Refund(on(2, 25), g3, 400, decimal.RequireFromString("1.20"))
	post()
	if _, err := s.SettleRefund(ctx, refund, db.Settlement{Method: "processor", Reference: "r", At: on(2, 26)}); err != nil {
		t.Fatal(err)
	}
	over := c4.Grant(on(3, 1), credit.Grant{Type: credit.Overage, Amount: 100, Price: usd(1000)})
	c4.Use(on(3, 1), over, 50, nil)
	c4.Grant(on(3, 5), credit.Grant{Type: credit.Concession, Amount: 450, Price: usd(4500)})
	c3.Expire(g3)
	post()
	return all
}

// TestExport has the independent programs recompute every period of a quarter and holds their accounts against the database's to the cent.
func TestExport(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	bookQuarter(t, s)
	plain := []export.System{export.HLedger, export.Ledger, export.Beancount}
	wallets := decimal.Zero
	for _, period := range []ledger.Period{"2026-01", "2026-02", "2026-03", "2026-04"} {
		m, dir, err := exportTo(t, s, export.Parameters{LegalEntity: dbtest.Entity, Period: period, Systems: append([]export.System{export.CSV}, plain...)})
		if err != nil {
			t.Fatal(err)
		}
		tb, err := s.TrialBalance(ctx, dbtest.Entity, db.Span{From: period, To: period})
		if err != nil {
			t.Fatal(err)
		}
		roll := rollForward(t, s, period, credit.CustomerID{})
		for i, system := range m.Parameters.Systems {
			path := filepath.Join(dir, system.File(1))
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := export.Lint(system, export.Book{Entity: dbtest.Entity, Currency: "USD", Period: period}, f); err != nil {
				t.Errorf("%s %s: %v", period, system, err)
			}
			f.Close()
			if m.Systems[i].Debit != m.Totals.Debit || m.Systems[i].Credit != m.Totals.Credit || m.Totals.Debit != usd(tb.Debit).String() {
				t.Errorf("%s %s: %+v of %+v", period, system, m.Systems[i], m.Totals)
			}
			if system == export.CSV {
				continue
			}
			if err := exporttest.Check(t, system, path); err != nil {
				t.Errorf("%s: %v", period, err)
			}
			got := exporttest.Sum(t, exporttest.Balances(t, system, path), "Liabilities:2010", "Equity:Credits:Wallet", "Equity:Credits")
			n := 0
			for _, a := range tb.Accounts {
				name := export.AccountName(a.Account)
				if a.Account == ledger.PrepaidCredits {
					name = "Liabilities:2010"
				}
				if want := a.Debit - a.Credit; want != 0 {
					if n++; got[name+" USD"] != usd(want).String() {
						t.Errorf("%s %s: %s is %s, the database has %s", period, system, name, got[name+" USD"], usd(want))
					}
				}
			}
			for name := range got {
				if strings.HasSuffix(name, " USD") {
					n--
				}
			}
			if n != 0 {
				t.Errorf("%s %s has other accounts: %v", period, system, got)
			}
			if system == export.HLedger && got["Equity:Credits:Wallet CRD"] != "" {
				wallets = wallets.Add(decimal.RequireFromString(got["Equity:Credits:Wallet CRD"]))
			}
		}
		classes := exporttest.RollForward(t, filepath.Join(dir, export.HLedger.File(1)), "USD")
		for class, minor := range map[string]int64{"purchases": roll.Purchases, "concessions": roll.Concessions, "recognised": -roll.Recognised, "breakage": -roll.Breakage,
			"refunds": -roll.Refunds, "voids": -roll.Voids, "disputes": -roll.Disputes, "transfers": -roll.Transfers, "corrections": -roll.Corrections, "adjustments": -roll.Adjustments} {
			if want := usd(minor).String(); classes[class] != want && (minor != 0 || classes[class] != "") {
				t.Errorf("%s: hledger's %s are %q, the database's %s", period, class, classes[class], want)
			}
		}
		again, dir2, err := exportTo(t, s, m.Parameters)
		if err != nil {
			t.Fatal(err)
		}
		for i, system := range m.Systems {
			if !slices.Equal(system.Files, again.Systems[i].Files) {
				t.Errorf("%s %s differs the second time: %v and %v in %s", period, system.System, system.Files, again.Systems[i].Files, dir2)
			}
		}
	}
	var left int64
	if err := s.Pool.QueryRow(ctx, "SELECT sum(avail + held) FROM grants").Scan(&left); err != nil || wallets.String() != fmt.Sprint(left) {
		t.Errorf("hledger's wallets have %s credits, the database's %d (%v)", wallets, left, err)
	}
	january, _, err := exportTo(t, s, export.Parameters{LegalEntity: dbtest.Entity, Period: "2026-01", Systems: []export.System{export.CSV, export.HLedger}})
	if err != nil || january.PeriodStatus != "closed" || january.Systems[0].Entries != 3 || january.Systems[1].Entries != 2 {
		t.Errorf("%+v, %v: three entries of which two are one grant's of one day", january, err)
	}
	february, dir, err := exportTo(t, s, export.Parameters{LegalEntity: dbtest.Entity, Period: "2026-02", Systems: []export.System{export.CSV}})
	text, _ := os.ReadFile(filepath.Join(dir, "journal.csv"))
	if err != nil || !strings.Contains(string(text), "2026-02-01,2026-01-30,") || !strings.Contains(string(text), ",100.00,,EUR,110.00,,") {
		t.Errorf("%+v, %v\n%s", february, err, text)
	}
}

func TestExportMapping(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	bookQuarter(t, s)
	put := func(system export.System, accounts ...export.MappedAccount) db.MappingRow {
		t.Helper()
		var row db.MappingRow
		_, _, err := s.Change(ctx, db.Audited{Action: "map"}, func(ctx context.Context, c *db.Catalog) (db.Outcome, error) {
			var err error
			row, err = c.AddMapping(ctx, dbtest.Entity, system, export.Mapping{Accounts: accounts}, 0)
			return db.Outcome{Status: 200, Subject: "x"}, err
		})
		if err != nil {
			t.Fatal(err)
		}
		return row
	}
	ask := func(system export.System, detail export.Detail) (export.Manifest, string, error) {
		return exportTo(t, s, export.Parameters{LegalEntity: dbtest.Entity, Period: "2026-01", Systems: []export.System{system}, Detail: detail})
	}
	if _, _, err := ask(export.Xero, ""); credit.CodeOf(err) != credit.AccountNotMapped || !strings.Contains(err.Error(), "1020, 2010, 2030, 4010") {
		t.Errorf("without a mapping: %v", err)
	}
	x := func(a ledger.Account) export.MappedAccount {
		return export.MappedAccount{Account: a, Code: a.String(), TaxRate: "None"}
	}
	if row := put(export.Xero, x(1020), x(2010)); row.Version != 1 {
		t.Errorf("%+v", row)
	}
	if _, _, err := ask(export.Xero, ""); credit.CodeOf(err) != credit.AccountNotMapped || !strings.Contains(err.Error(), ": 2030, 4010.") {
		t.Errorf("with half a mapping: %v", err)
	}
	if row := put(export.Xero, x(1020), x(2010), x(2030), x(4010)); row.Version != 2 {
		t.Errorf("%+v", row)
	}
	for _, detail := range export.Xero.Details() {
		m, dir, err := ask(export.Xero, detail)
		if err != nil || m.Systems[0].Mapping != 2 || m.Systems[0].Debit != m.Totals.Debit {
			t.Errorf("%+v, %v", m, err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "journal.xero.1.csv")); err != nil || !strings.Contains(string(text), ",10/01/2026,") {
			t.Errorf("%s, %v", text, err)
		}
	}
	if old, err := s.Mapping(ctx, dbtest.Entity, export.Xero, 1); err != nil || len(old.Accounts) != 2 {
		t.Errorf("%+v, %v", old, err)
	}
	if _, err := s.Mapping(ctx, dbtest.Entity, export.Xero, 3); credit.CodeOf(err) != credit.NotFound {
		t.Error(err)
	}
	if _, err := s.Mapping(ctx, "nobody", export.Xero, 0); credit.CodeOf(err) != credit.EntityNotFound {
		t.Error(err)
	}
	if _, err := s.Pool.Exec(ctx, "UPDATE account_mappings SET version = 9"); err == nil {
		t.Error("a mapping could be changed")
	}
}
