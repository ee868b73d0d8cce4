package ledger

import (
	"cmp"
	"slices"

	"github.com/shopspring/decimal"
)

// ComputeLine names what compute cost is booked by: [ComputeCost] or [PromotionalCompute], and the product and model served.
type ComputeLine struct {
	Account        Account
	Product, Model string
}

func (l ComputeLine) compare(m ComputeLine) int {
	return cmp.Or(cmp.Compare(l.Account, m.Account), cmp.Compare(l.Product, m.Product), cmp.Compare(l.Model, m.Model))
}

// ComputeTarget returns what is to be booked of exact costs in all, in minor units: their sum is rounded half to even once, and split over the lines so that
// the parts make it: each is its cost rounded down, and what is left goes one by one to the largest remainders, equal ones in order of account, product
// and model. Costs are in minor units, with as many places as they have; a line with nothing in the end is not in the answer.
func ComputeTarget(costs map[ComputeLine]decimal.Decimal) map[ComputeLine]int64 {
	lines := make([]ComputeLine, 0, len(costs))
	var sum decimal.Decimal
	for l, c := range costs {
		lines = append(lines, l)
		sum = sum.Add(c)
	}
	left := sum.RoundBank(0).IntPart()
	target := make(map[ComputeLine]int64, len(costs))
	rest := make(map[ComputeLine]decimal.Decimal, len(costs))
	for l, c := range costs {
		whole := c.Floor()
		target[l], rest[l] = whole.IntPart(), c.Sub(whole)
		left -= target[l]
	}
	slices.SortFunc(lines, func(a, b ComputeLine) int { return cmp.Or(rest[b].Cmp(rest[a]), a.compare(b)) })
	for _, l := range lines[:left] { // the remainders are less than 1 each, and left is their sum, rounded
		target[l]++
	}
	for l, n := range target {
		if n == 0 {
			delete(target, l)
		}
	}
	return target
}

// Compute records what usage cost to serve and the provider has not billed yet: as much as brings what was booked before to the target, both in
// minor units. It is Empty when they are the same. A line that has become less is credited.
//
//	Dr 5010 cost of revenue: compute   per product and model
//	Dr 6010 promotional compute        per product and model
//	    Cr 2060 accrued compute cost   sum
func Compute(f Fact, target, booked map[ComputeLine]int64) Entry {
	e := newEntry(f, KindCompute)
	var lines []ComputeLine
	for l := range target {
		lines = append(lines, l)
	}
	for l := range booked {
		if _, ok := target[l]; !ok {
			lines = append(lines, l)
		}
	}
	slices.SortFunc(lines, ComputeLine.compare)
	var sum int64
	for _, l := range lines {
		n := target[l] - booked[l]
		if n == 0 {
			continue
		}
		sum += n
		e.either(l.Account, l.Account, n)
		p := &e.Postings[len(e.Postings)-1]
		p.Product, p.Model = l.Product, l.Model
	}
	e.either(AccruedCompute, AccruedCompute, -sum)
	return e
}
