package recognition

import "github.com/tallystick/tallystick/credit"

// TaxWithin is the tax that a gross amount includes at a rate on the net amount: gross - gross/(1 + rate), rounded half up.
// A tax-inclusive 2,100.00 at 4 % holds 80.77 of tax, not 84.00.
func TaxWithin(gross int64, rate Rate) int64 {
	if rate.IsZero() {
		return 0
	}
	return credit.MulDivRound(gross, rate.num, rate.den+rate.num)
}

// TaxOfSlice is the tax within what leaves a grant from one cumulative amount to another, gross, in minor units, so that the tax of slices
// that follow each other is the tax of the whole however it is cut. It is 0 to the slice; from above to, it is what comes back, 0 or less.
func TaxOfSlice(from, to int64, rate Rate) int64 { return TaxWithin(to, rate) - TaxWithin(from, rate) }
