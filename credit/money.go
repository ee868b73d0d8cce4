package credit

import (
	"strings"

	"github.com/shopspring/decimal"
)

// Money is an amount in whole minor units of a currency (ISO 4217): 1 USD is 100, 1 JPY is 1, 1 KWD is 1000.
type Money struct {
	Minor    int64
	Currency string
}

// CurrencyPlaces returns how many decimal places a currency's minor unit has. A code that is not the ISO 4217 code of money that
// someone can pay with is an [Error] coded invalid_request: XAU, XDR, XTS and the like have no minor unit.
func CurrencyPlaces(code string) (int, error) {
	if places, ok := currencyPlaces[code]; ok {
		return int(places), nil
	}
	return 0, Errorf(InvalidRequest, "%.12q is not the ISO 4217 code of a currency.", code)
}

// The currencies of ISO 4217 by the places of their minor unit, with those withdrawn since 2020 (ANG, BGN, CUC, HRK, SLL, ZWL), in
// which old purchases are priced. Locale data such as CLDR cannot stand in for this list: it says how amounts are
// usually shown (IDR without cents, IQD without fils), not what the minor unit is.
var currencyPlaces = func() map[string]uint8 {
	places := make(map[string]uint8, 192)
	for n, codes := range [...]string{
		0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
		2: "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP " +
			"COU CRC CUC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR " +
			"IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN " +
			"NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL " +
			"THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG ZWL",
		3: "BHD IQD JOD KWD LYD OMR TND",
		4: "CLF UYW",
	} {
		for code := range strings.FieldsSeq(codes) {
			places[code] = uint8(n)
		}
	}
	return places
}()

// ParseMoney reads a plain decimal number of a currency's major unit, such as "100.00" USD, without rounding.
func ParseMoney(s, code string) (Money, error) {
	places, err := CurrencyPlaces(code)
	if err != nil {
		return Money{}, err
	}
	minor, err := ParseAmount(s, places)
	if err != nil {
		return Money{}, err
	}
	return Money{Minor: int64(minor), Currency: code}, nil
}

// String writes the money with all the decimal places of its currency, without the currency: "100.00".
func (m Money) String() string {
	places, err := CurrencyPlaces(m.Currency)
	if err != nil {
		places = 2
	}
	return m.Decimal(places).StringFixed(int32(places))
}

// Decimal returns the money in major units.
func (m Money) Decimal(places int) decimal.Decimal { return decimal.New(m.Minor, -int32(places)) }

// Convert turns money into another currency at a rate of to per one m.Currency, rounded half to even.
func (m Money) Convert(to string, rate decimal.Decimal) (Money, error) {
	from, err := CurrencyPlaces(m.Currency)
	if err != nil {
		return Money{}, err
	}
	places, err := CurrencyPlaces(to)
	if err != nil {
		return Money{}, err
	}
	minor, err := RoundAmount(m.Decimal(from).Mul(rate), places)
	if err != nil {
		return Money{}, err
	}
	return Money{Minor: int64(minor), Currency: to}, nil
}
