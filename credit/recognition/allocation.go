package recognition

import (
	"github.com/tallystick/tallystick/credit"
)

// MaterialRight is the standalone selling price of credits that come with a purchase under terms of their own: what they would cost by
// themselves, or what they take off that, times how likely they are to be used; rounded half up.
// Source: ASC 606-10-55-44; IFRS 15 B42.
func MaterialRight(value int64, likelihood Rate) int64 { return likelihood.of(value) }

// AllocatePrice splits one price over what was promised for it by relative standalone selling prices, by largest remainder, the earlier
// promise first when two are equal. The parts sum to the price. No standalone price at all: everything is the first promise's.
// Bonus credits under the same terms as those that they came with are no promise of their own: they are credits of the same grant.
// Source: ASC 606-10-32-31; IFRS 15.76.
func AllocatePrice(price int64, standalone ...int64) []int64 {
	return credit.Allocate(price, standalone)
}
