package db_test

import (
	"testing"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
)

// TestReportsTie holds the sums of every report against the trial balance and the roll-forward of the same periods.
func TestReportsTie(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	customers := bookQuarter(t, s)
	soon := customers[3].Grant(on(3, 20), credit.Grant{Amount: 100, Price: usd(1000), ExpiresAt: on(5, 2)})
	recognise(t, s, customers[3])
	read := func(name string, from, to ledger.Period) (rows []map[string]string, sums map[string]int64) {
		t.Helper()
		sums = map[string]int64{}
		for i := range db.Reports {
			spec := &db.Reports[i]
			if spec.Name != name {
				continue
			}
			totals, err := s.Report(ctx, spec, db.ReportParameters{LegalEntity: dbtest.Entity, From: from, To: to}, func(h db.ReportHead) error {
				if h.Currency != "USD" || h.Watermark.Entries == 0 || h.Watermark.PostedAt == nil || h.MadeAt.IsZero() {
					t.Errorf("%s: %+v", name, h)
				}
				return nil
			}, func(cells []*string) error {
				row := map[string]string{}
				for i, c := range spec.Columns {
					if cells[i] != nil {
						row[c.Name] = *cells[i]
					}
				}
				rows = append(rows, row)
				return nil
			})
			if err != nil || totals.Rows != int64(len(rows)) {
				t.Fatalf("%s: %d of %d rows, %v", name, len(rows), totals.Rows, err)
			}
			for i, sum := range totals.Sums {
				sums[spec.Columns[i].Name] = sum
			}
			return rows, sums
		}
		t.Fatalf("there is no report %s", name)
		return nil, nil
	}
	tb, err := s.TrialBalance(ctx, dbtest.Entity, db.Span{From: "2026-01", To: "2026-03"})
	if err != nil {
		t.Fatal(err)
	}
	balance := map[ledger.Account]int64{}
	var revenue int64
	for _, a := range tb.Accounts {
		balance[a.Account] = a.Debit - a.Credit
		if a.Type == ledger.Revenue {
			revenue -= a.Debit - a.Credit
		}
	}
	equal := func(what string, got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	_, sums := read("trial_balance", "2026-01", "2026-03")
	equal("trial balance, debit", sums["debit"], tb.Debit)
	equal("trial balance, credit", sums["credit"], tb.Credit)
	_, sums = read("journal", "2026-01", "2026-03")
	equal("journal, debit", sums["debit"], tb.Debit)
	equal("journal, credit", sums["credit"], tb.Credit)
	rows, sums := read("revenue", "2026-01", "2026-03")
	equal("revenue", sums["amount"], revenue)
	categories := map[string]bool{}
	for _, r := range rows {
		categories[r["category"]] = true
	}
	for _, c := range []string{"prepaid_draw_down", "overage", "breakage", "contra_revenue"} {
		if !categories[c] {
			t.Errorf("no revenue of category %s: %v", c, rows)
		}
	}
	_, sums = read("breakage", "2026-01", "2026-03")
	equal("breakage", sums["amount"], -balance[ledger.BreakageRevenue])
	rows, sums = read("receivables", "2026-01", "2026-03")
	equal("receivables", sums["balance"], balance[ledger.UnbilledReceivable])
	if len(rows) != 1 || rows[0]["days_30"] != "5.00" || rows[0]["account"] != "1120" {
		t.Errorf("receivables: %v", rows)
	}
	if rows, _ = read("receivables", "2026-01", "2026-04"); rows[0]["days_60"] != "5.00" {
		t.Errorf("receivables a month later: %v", rows)
	}
	total := rollForward(t, s, "2026-02", credit.CustomerID{})
	_, sums = read("roll_forward", "2026-02", "2026-02")
	for name, want := range map[string]int64{"opening": total.Opening, "purchases": total.Purchases, "recognised": total.Recognised, "refunds": total.Refunds,
		"closing": total.Closing, "late": total.Late} {
		equal("roll-forward, "+name, sums[name], want)
	}
	rows, sums = read("waterfall", "2026-01", "2026-03")
	var left, carried int64
	for _, r := range rows {
		m, err := credit.ParseMoney(r["amount"], "USD")
		if err != nil {
			t.Fatal(err)
		}
		if r["estimate"] == "true" {
			carried += m.Minor
		} else {
			left += m.Minor
		}
	}
	equal("waterfall, carried", carried, -balance[ledger.PrepaidCredits])
	quarter, err := s.RollForward(ctx, dbtest.Entity, db.Span{From: "2026-01", To: "2026-03"}, credit.CustomerID{})
	if err != nil {
		t.Fatal(err)
	}
	equal("waterfall, left", left, quarter.Recognised+quarter.Breakage+quarter.Refunds+quarter.Voids+quarter.Adjustments)
	equal("waterfall", sums["amount"], quarter.Purchases+quarter.Concessions)
	rows, sums = read("refunds", "2026-02", "2026-02")
	equal("refunds", sums["amount"], 4800)
	if len(rows) != 1 || rows[0]["units"] != "400" || rows[0]["status"] != "settled" {
		t.Errorf("refunds: %v", rows)
	}
	rows, sums = read("expiring", "2026-05", "2026-05")
	equal("expiring", sums["carrying"], 1000)
	if len(rows) != 1 || rows[0]["grant_id"] != soon.ID.String() {
		t.Errorf("expiring: %v", rows)
	}
	rows, sums = read("late_entries", "2026-02", "2026-02")
	equal("late entries", sums["amount"], total.Late)
	if len(rows) != 1 || rows[0]["service_on"] != "2026-01-30" {
		t.Errorf("late entries: %v", rows)
	}
	if rows, _ = read("manual_journals", "2026-01", "2026-03"); len(rows) != 0 {
		t.Errorf("manual journals: %v", rows)
	}
	if rows, _ = read("access", "2000-01", "2099-12"); len(rows) != 0 {
		t.Errorf("access: %v", rows)
	}
	if _, err := s.Report(ctx, &db.Reports[0], db.ReportParameters{LegalEntity: "nobody", From: "2026-01", To: "2026-01"}, nil, nil); credit.CodeOf(err) != credit.EntityNotFound {
		t.Error(err)
	}
}
