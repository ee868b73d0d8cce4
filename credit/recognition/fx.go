package recognition

import (
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
)

// Remeasure returns by how much a monetary item in another currency, a receivable or a refund owed, is worth more at the closing rate
// than it is carried at, in minor units of the entity's currency; negative: less. open is what is still owed, in its own currency, carried
// the same in the entity's, rate the entity's currency per one of open's. Prepaid credits are not monetary and keep the rate of
// their receipt. Errors are those of [credit.Money.Convert]. Source: ASC 830-10-45-17; IFRIC 22.
func Remeasure(open, carried credit.Money, rate decimal.Decimal) (int64, error) {
	worth, err := open.Convert(carried.Currency, rate)
	return worth.Minor - carried.Minor, err
}
