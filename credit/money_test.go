package credit_test

import (
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/credit"
)

func TestCurrencyPlaces(t *testing.T) {
	for places, codes := range map[int]string{
		0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
		2: "EUR USD GBP CHF INR CNY HUF TWD IDR COP PKR RSD LBP MMK UZS AFN ALL IRR KPW LAK MGA SOS SYP TZS YER MRU STN VES VED SLE ZWG XCG BYN",
		3: "BHD IQD JOD KWD LYD OMR TND",
		4: "CLF UYW",
	} {
		for code := range strings.FieldsSeq(codes) {
			if got, err := credit.CurrencyPlaces(code); err != nil || got != places {
				t.Errorf("%s has %d places, %v, want %d", code, got, err, places)
			}
		}
	}
	for _, code := range []string{"", "usd", "Usd", "US", "USDX", "USD ", "XXX", "XTS", "XAU", "XDR", "DEM", "BYR", "AAA", "ＵＳＤ", "U\x00D", strings.Repeat("U", 1<<16)} {
		if got, err := credit.CurrencyPlaces(code); credit.CodeOf(err) != credit.InvalidRequest {
			t.Errorf("%.12q has %d places, %v, want invalid_request", code, got, err)
		}
	}
}

func TestParseMoney(t *testing.T) {
	for _, c := range []struct {
		text, code string
		minor      int64
		back       string
	}{
		{"100.00", "USD", 10_000, "100.00"}, {"100", "USD", 10_000, "100.00"}, {"0.01", "EUR", 1, "0.01"}, {"1", "JPY", 1, "1"},
		{"1.5", "KWD", 1_500, "1.500"}, {"1.0000", "CLF", 10_000, "1.0000"}, {"12500.50", "IDR", 1_250_050, "12500.50"}, {"1.000", "USD", 100, "1.00"},
		{"90071992547409.91", "USD", int64(credit.MaxAmount), "90071992547409.91"},
	} {
		m, err := credit.ParseMoney(c.text, c.code)
		if err != nil || m != (credit.Money{Minor: c.minor, Currency: c.code}) || m.String() != c.back {
			t.Errorf("%s %s is %+v (%s), %v", c.text, c.code, m, m, err)
		}
	}
	for _, c := range []struct {
		text, code string
		want       credit.Code
	}{
		{"1.001", "USD", credit.InvalidAmount}, {"1.5", "JPY", credit.InvalidAmount}, {"-1", "USD", credit.InvalidAmount},
		{"", "USD", credit.InvalidAmount}, {"1", "usd", credit.InvalidRequest}, {"90071992547409.92", "USD", credit.InvalidAmount},
	} {
		if m, err := credit.ParseMoney(c.text, c.code); credit.CodeOf(err) != c.want || m != (credit.Money{}) {
			t.Errorf("%s %s is %+v, %v, want %s", c.text, c.code, m, err, c.want)
		}
	}
}

func FuzzParseMoney(f *testing.F) {
	for _, code := range []string{"USD", "JPY", "KWD", "CLF", "IDR", "XXX", "usd", "", "\xff\xff\xff"} {
		for _, s := range []string{"100.00", "0.1", "1e3", "-1", "", "90071992547409.91"} {
			f.Add(s, code)
		}
	}
	f.Fuzz(func(t *testing.T, s, code string) {
		m, err := credit.ParseMoney(s, code)
		if err != nil {
			if c := credit.CodeOf(err); c != credit.InvalidAmount && c != credit.InvalidRequest || m != (credit.Money{}) {
				t.Fatalf("%q %q gives %+v, %v", s, code, m, err)
			}
			return
		}
		if back, err := credit.ParseMoney(m.String(), code); err != nil || back != m || !decimal.RequireFromString(s).Equal(decimal.RequireFromString(m.String())) {
			t.Fatalf("%q %q is %+v, written %q, read %+v, %v", s, code, m, m.String(), back, err)
		}
	})
}

func TestConvert(t *testing.T) {
	for _, c := range []struct {
		minor    int64
		from, to string
		rate     string
		want     int64
	}{
		{10_000, "EUR", "USD", "1.10", 11_000},
		{100, "USD", "JPY", "150.5", 150}, // 150.5 to even
		{300, "USD", "JPY", "150.5", 452}, // 451.5 to even
		{1, "JPY", "KWD", "0.0025", 2},    // 2.5 fils to even
		{12_345, "USD", "USD", "1", 12_345},
		{0, "USD", "EUR", "0.9", 0},
	} {
		got, err := credit.Money{Minor: c.minor, Currency: c.from}.Convert(c.to, decimal.RequireFromString(c.rate))
		if err != nil || got != (credit.Money{Minor: c.want, Currency: c.to}) {
			t.Errorf("%d %s at %s is %+v, %v, want %d %s", c.minor, c.from, c.rate, got, err, c.want, c.to)
		}
	}
	for _, c := range []struct {
		from, to, rate string
		want           credit.Code
	}{{"XXX", "USD", "1", credit.InvalidRequest}, {"USD", "XXX", "1", credit.InvalidRequest}, {"USD", "EUR", "-1", credit.InvalidAmount}, {"USD", "EUR", "1e30", credit.InvalidAmount}} {
		if got, err := (credit.Money{Minor: 1, Currency: c.from}).Convert(c.to, decimal.RequireFromString(c.rate)); credit.CodeOf(err) != c.want {
			t.Errorf("%s to %s at %s is %+v, %v, want %s", c.from, c.to, c.rate, got, err, c.want)
		}
	}
}

func TestMoneyRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := credit.Money{Minor: int64(anyAmount.Draw(t, "minor")), Currency: rapid.SampledFrom([]string{"USD", "JPY", "KWD", "CLF"}).Draw(t, "currency")}
		if back, err := credit.ParseMoney(m.String(), m.Currency); err != nil || back != m {
			t.Fatalf("%+v is written %q and read %+v, %v", m, m.String(), back, err)
		}
	})
}
