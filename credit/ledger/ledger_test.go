package ledger

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

var fact = Fact{Cause: "grant/g/issue", Entity: "acme", Currency: "USD", Day: "2026-01-03", Period: "2026-01", VerFrom: 2, VerTo: 2}

func usd(minor int64) Sum { return Sum{Minor: minor} }

func eur(minor, source int64) Sum {
	return Sum{Minor: minor, Source: credit.Money{Minor: source, Currency: "EUR"}}
}

// text writes postings as "dr 1020 108.00 (EUR 98.18) 7u product/model; …".
func text(e Entry) string {
	lines := make([]string, 0, len(e.Postings))
	for _, p := range e.Postings {
		l := fmt.Sprintf("%s %s %s", p.Side, p.Account, p.Money)
		if p.Source.Currency != "" {
			l += fmt.Sprintf(" (%s %s)", p.Source.Currency, p.Source)
		}
		if p.Units != 0 {
			l += fmt.Sprintf(" %du", p.Units)
		}
		if p.Product != "" || p.Model != "" {
			l += " " + p.Product + "/" + p.Model
		}
		lines = append(lines, l)
	}
	return strings.Join(lines, "; ")
}

func TestEntries(t *testing.T) {
	shares := []Share{{"chat", "small", 3}, {"chat", "large", 5}, {"", "", 1}, {"code", "large", 0}}
	for _, c := range []struct {
		name string
		got  Entry
		want string
	}{
		{"purchase by card", Purchase(fact, ProcessorClearing, usd(10000), usd(800), 1200), "dr 1020 108.00; cr 2010 100.00 1200u; cr 2030 8.00"},
		{"purchase on invoice, no tax", Purchase(fact, TradeReceivable, usd(10000), usd(0), 1200), "dr 1110 100.00; cr 2010 100.00 1200u"},
		{"purchase in euros", Purchase(fact, ProcessorClearing, eur(11000, 10000), eur(2200, 2000), 1000),
			"dr 1020 132.00 (EUR 120.00); cr 2010 110.00 (EUR 100.00) 1000u; cr 2030 22.00 (EUR 20.00)"},
		{"nothing paid", Purchase(fact, ProcessorClearing, usd(0), usd(0), 500), ""},
		{"concession", ConcessionGrant(fact, usd(1500), 150), "dr 4095 15.00; cr 2010 15.00 150u"},
		{"recognition", Recognition(fact, 5833, 0, shares), "dr 2010 58.33 9u; cr 4010 6.48 1u; cr 4010 32.41 5u chat/large; cr 4010 19.44 3u chat/small"},
		{"recognition of less than a cent", Recognition(fact, 0, 0, shares), ""},
		{"overage", OverageUse(fact, 500, []Share{{"chat", "", 50}}), "dr 1120 5.00 50u; cr 4030 5.00 50u chat/"},
		{"expiry", Expiry(fact, 2937, 0, 267), "dr 2010 29.37 267u; cr 4020 29.37 267u"},
		{"refund at carrying amount", Refund(fact, Return{Units: 400, Carrying: usd(4400), Tax: usd(352), Owed: usd(4752)}),
			"dr 2010 44.00 400u; dr 2030 3.52; cr 2020 47.52"},
		{"refund above it", Refund(fact, Return{Units: 400, Carrying: usd(4400), Owed: usd(5000)}), "dr 2010 44.00 400u; dr 4090 6.00; cr 2020 50.00"},
		{"refund below it", Refund(fact, Return{Units: 400, Carrying: usd(4400), Owed: usd(4000)}), "dr 2010 44.00 400u; cr 4020 4.00; cr 2020 40.00"},
		{"refund of nothing", Refund(fact, Return{Units: 400, Carrying: usd(4400)}), "dr 2010 44.00 400u; cr 4020 44.00"},
		{"refund, the euro rose from 1.35 to 1.40", Refund(fact, Return{Units: 1, Carrying: eur(13500, 10000), Owed: eur(14000, 10000), FX: 500}),
			"dr 2010 135.00 (EUR 100.00) 1u; dr 7010 5.00; cr 2020 140.00 (EUR 100.00)"},
		{"refund, the euro fell", Refund(fact, Return{Units: 1, Carrying: eur(14000, 10000), Owed: eur(13500, 10000), FX: -500}),
			"dr 2010 140.00 (EUR 100.00) 1u; cr 7010 5.00; cr 2020 135.00 (EUR 100.00)"},
		{"void of a paid grant", Void(fact, RefundLiability, Return{Units: 9, Carrying: usd(90), Tax: usd(7), Owed: usd(97)}),
			"dr 2010 0.90 9u; dr 2030 0.07; cr 2020 0.97"},
		{"void of an unpaid grant", Void(fact, TradeReceivable, Return{Units: 9, Carrying: usd(90), Tax: usd(7), Owed: usd(97)}),
			"dr 2010 0.90 9u; dr 2030 0.07; cr 1110 0.97"},
		{"void of a concession", Void(fact, ConcessionContra, Return{Units: 9, Carrying: usd(90), Owed: usd(90)}), "dr 2010 0.90 9u; cr 4095 0.90"},
		{"decrement", Decrement(fact, 250, 25), "dr 2010 2.50 25u; cr 4010 2.50 25u"},
		{"transfer, out", TransferOut(fact, eur(4400, 4000), 400), "dr 2010 44.00 (EUR 40.00) 400u; cr 2011 44.00 (EUR 40.00) 400u"},
		{"transfer, in", TransferIn(fact, usd(4400), 400), "dr 2011 44.00 400u; cr 2010 44.00 400u"},
		{"transfer of what cost nothing", TransferOut(fact, usd(0), 400), ""},
		{"dispute opened", DisputeOpened(fact, usd(10800), usd(1500)), "dr 1130 108.00; dr 6030 15.00; cr 1020 123.00"},
		{"dispute won", DisputeWon(fact, usd(10800)), "dr 1020 108.00; cr 1130 108.00"},
		{"dispute lost", DisputeLost(fact, usd(10800), 800, 3750, 450), "dr 2010 37.50 450u; dr 2030 8.00; dr 4091 62.50; cr 1130 108.00"},
		{"dispute lost of a part, little used", DisputeLost(fact, usd(2000), 0, 3750, 450), "dr 2010 37.50 450u; cr 4091 17.50; cr 1130 20.00"},
		{"clawback", Clawback(fact, 40, 4), "dr 2010 0.40 4u; cr 4091 0.40"},
		{"recognition taxed at use", Recognition(fact, 728, 28, []Share{{"chat", "large", 5}}), "dr 2010 7.28 5u; cr 4010 7.00 5u chat/large; cr 2030 0.28"},
		{"its reversal", Reversal(fact, false, 728, 28, []Share{{"chat", "large", 5}}), "cr 2010 7.28 5u; dr 4010 7.00 5u chat/large; dr 2030 0.28"},
		{"expiry with unclaimed property", Expiry(fact, 2937, 937, 267), "dr 2010 29.37 267u; cr 4020 20.00 267u; cr 2040 9.37"},
		{"breakage ahead of expiry", Breakage(fact, "CREDIT 2026-12", 60), "dr 2019 0.60 CREDIT 2026-12/; cr 4020 0.60"},
		{"breakage taken back", Breakage(fact, "CREDIT 2026-12", -60), "cr 2019 0.60 CREDIT 2026-12/; dr 4020 0.60"},
		{"invoice paid, the euro rose", Payment(fact, Cash, eur(47500, 25000), eur(42500, 25000)),
			"dr 1010 475.00 (EUR 250.00); cr 7010 50.00; cr 1110 425.00 (EUR 250.00)"},
		{"invoice paid, the euro fell", Payment(fact, Cash, eur(42500, 25000), eur(47500, 25000)),
			"dr 1010 425.00 (EUR 250.00); dr 7010 50.00; cr 1110 475.00 (EUR 250.00)"},
		{"invoice paid from the customer's balance", Payment(fact, CustomerCash, usd(1100), usd(1100)), "dr 2050 11.00; cr 1110 11.00"},
		{"receivable worth more", Remeasurement(fact, TradeReceivable, 500), "dr 1110 5.00; cr 7020 5.00"},
		{"receivable worth less", Remeasurement(fact, TradeReceivable, -500), "cr 1110 5.00; dr 7020 5.00"},
		{"refund liability worth more", Remeasurement(fact, RefundLiability, 500), "cr 2020 5.00; dr 7020 5.00"},
		{"and taken back", Reverse(Remeasurement(fact, RefundLiability, 500), fact), "dr 2020 5.00; cr 7020 5.00"},
		{"settlement", Settlement(fact, Cash, eur(4800, 4000)), "dr 2020 48.00 (EUR 40.00); cr 1010 48.00 (EUR 40.00)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := text(c.got); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if c.got.Empty() != (c.want == "") {
				t.Errorf("empty: %t", c.got.Empty())
			}
			if err := c.got.Check(); !c.got.Empty() && err != nil {
				t.Error(err)
			}
		})
	}
}

// Whatever the amounts, an entry balances, and what its postings say about credits is what was given.
func TestEntriesBalance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		minor := rapid.Int64Range(0, 1<<50)
		units := rapid.Custom(func(t *rapid.T) credit.Amount { return credit.Amount(rapid.Int64Range(0, 1<<40).Draw(t, "units")) })
		sum := rapid.Custom(func(t *rapid.T) Sum {
			if rapid.Bool().Draw(t, "foreign") {
				return eur(minor.Draw(t, "minor"), minor.Draw(t, "source"))
			}
			return usd(minor.Draw(t, "minor"))
		})
		shares := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Share {
			return Share{rapid.SampledFrom([]string{"", "chat", "code"}).Draw(t, "product"), rapid.StringN(0, 2, -1).Draw(t, "model"), units.Draw(t, "units")}
		}), 1, 6).Draw(t, "shares")
		back := Return{Units: units.Draw(t, "units"), Carrying: sum.Draw(t, "carrying"), Tax: sum.Draw(t, "tax"), Owed: sum.Draw(t, "owed"),
			FX: rapid.Int64Range(-1<<50, 1<<50).Draw(t, "fx")}
		amount := minor.Draw(t, "amount")
		tax := rapid.Int64Range(0, amount).Draw(t, "tax or escheat of it")
		signed := rapid.Int64Range(-1<<50, 1<<50).Draw(t, "more or less")
		entries := []Entry{
			Purchase(fact, ProcessorClearing, sum.Draw(t, "price"), sum.Draw(t, "tax"), 1),
			ConcessionGrant(fact, sum.Draw(t, "value"), 1),
			Recognition(fact, amount, tax, shares), OverageUse(fact, amount, shares), Expiry(fact, amount, tax, 1),
			Decrement(fact, amount, 1), TransferOut(fact, sum.Draw(t, "moved"), 1), TransferIn(fact, sum.Draw(t, "arrived"), 1), Clawback(fact, amount, 1),
			DisputeOpened(fact, sum.Draw(t, "disputed"), sum.Draw(t, "fee")), DisputeWon(fact, sum.Draw(t, "won")),
			DisputeLost(fact, sum.Draw(t, "lost"), minor.Draw(t, "its tax"), minor.Draw(t, "its carrying amount"), 1),
			Refund(fact, back), Void(fact, RefundLiability, back), Settlement(fact, Cash, sum.Draw(t, "paid")),
			Reversal(fact, false, amount, tax, shares), Breakage(fact, "CREDIT 2026-12", signed), Payment(fact, Cash, sum.Draw(t, "received"), sum.Draw(t, "carried")),
			Remeasurement(fact, TradeReceivable, signed), Remeasurement(fact, RefundLiability, signed), Reverse(Remeasurement(fact, TradeReceivable, signed), fact),
		}
		for _, e := range entries {
			if err := e.Check(); !e.Empty() && err != nil {
				t.Fatal(err)
			}
		}
		slices.Reverse(shares) // equal shares are told apart by nothing, so compare what each product and model got
		if a, b := revenue(entries[2]), revenue(Recognition(fact, amount, tax, shares)); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("the order of shares decides: %v and %v", a, b)
		}
	})
}

func revenue(e Entry) map[string][]int64 {
	got := map[string][]int64{}
	for _, p := range e.Postings {
		if p.Account == UsageRevenue {
			key := p.Product + "/" + p.Model
			got[key] = append(got[key], p.Money.Minor)
			slices.Sort(got[key])
		}
	}
	return got
}

func TestCheckFindsDefects(t *testing.T) {
	whole := func() Entry { return Purchase(fact, Cash, usd(100), usd(8), 1) }
	for name, spoil := range map[string]func(*Entry){
		"not balanced":       func(e *Entry) { e.Postings[0].Money.Minor++ },
		"one leg":            func(e *Entry) { e.Postings = e.Postings[:1] },
		"amount of zero":     func(e *Entry) { e.Postings[0].Money.Minor = 0 },
		"unknown account":    func(e *Entry) { e.Postings[0].Account = 9999 },
		"no side":            func(e *Entry) { e.Postings[0].Side = "" },
		"other currency":     func(e *Entry) { e.Postings[0].Money.Currency = "EUR" },
		"no cause":           func(e *Entry) { e.Cause = "" },
		"another cause's id": func(e *Entry) { e.Cause += "x" },
		"no entity":          func(e *Entry) { e.Entity = "" },
		"no day":             func(e *Entry) { e.Day = "" },
		"booked too early":   func(e *Entry) { e.Period = "2025-12" },
	} {
		e := whole()
		spoil(&e)
		if e.Check() == nil {
			t.Errorf("%s: not found", name)
		}
	}
	if e := whole(); e.Check() != nil {
		t.Error(e.Check())
	}
}

func TestSameCauseSameEntry(t *testing.T) {
	a, other := Purchase(fact, Cash, usd(100), usd(0), 1), fact
	other.Cause = "grant/h/issue"
	if b := Purchase(fact, Cash, usd(200), usd(0), 2); a.ID != b.ID {
		t.Error("the same cause gave two ids")
	}
	if b := Purchase(other, Cash, usd(100), usd(0), 1); a.ID == b.ID {
		t.Error("two causes gave the same id")
	}
}

func TestCalendar(t *testing.T) {
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2025, 12, 31, 15, 0, 0, 0, time.UTC) // midnight in Tokyo
	if d, p := DayOf(at, tokyo), PeriodOf(at, tokyo); d != "2026-01-01" || p != "2026-01" || d.Period() != p {
		t.Errorf("Tokyo: %s, %s", d, p)
	}
	if d, p := DayOf(at, time.UTC), PeriodOf(at.Add(-time.Nanosecond), tokyo); d != "2025-12-31" || p != "2025-12" {
		t.Errorf("UTC: %s; a nanosecond earlier in Tokyo: %s", d, p)
	}
	if n := Period("2025-12").Next(); n != "2026-01" {
		t.Errorf("after 2025-12: %s", n)
	}
	for s, ok := range map[string]bool{"2026-01": true, "2026-13": false, "2026-1": false, "": false, "2026-01-01": false, "26-01": false} {
		if _, err := ParsePeriod(s); (err == nil) != ok || (!ok && credit.CodeOf(err) != credit.InvalidRequest) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if late := (Fact{Day: "2026-01-31", Period: "2026-02"}); !late.Late() || fact.Late() {
		t.Error("an entry is late if and only if its day is of another period")
	}
}
