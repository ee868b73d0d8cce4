package recognition

import (
	"math/big"

	"github.com/tallystick/tallystick/credit"
)

// Cohort is the money of grants whose breakage is estimated together: of one entity, currency and kind of credit, that expire in one month.
// All in minor units of the entity's currency. What is refunded, voided or taken by a dispute has left Price; what is transferred within the
// cohort has not.
type Cohort struct {
	Price    int64 // P: what the grants cost, >= 0
	Used     int64 // revenue posted for their credits that were used, at each grant's own cost; 0 to Price
	Expired  int64 // posted for those that expired; Used + Expired <= Price
	Adjusted int64 // the balance of account 2019: what earlier adjustments recognised ahead of all that
}

// Left is what the cohort's grants still carry in account 2010. It is zero if and only if no credits are left.
func (c Cohort) Left() int64 { return c.Price - c.Used - c.Expired }

// Expectation is how many of a portfolio's credits will be used: Use of Of, 0 < Use <= Of. All of them: the remote method.
type Expectation struct{ Use, Of credit.Amount }

// Target is the cohort's cumulative revenue by the proportional method, minor units rounded half up: what was earned by use, divided by the
// part that is expected to be used, P·q/E when all credits cost the same. It is not less than what is posted for used and expired credits,
// and not more than P; it is P once nothing is left. Weighing each credit by its own cost makes E = N the remote method to the last
// minor unit, whatever prices a cohort mixes.
//
// An Error coded estimate_exceeded says that more has been used than is expected to be, ever: the estimate is wrong and a new one comes first.
// Source: ASC 606-10-55-48; IFRS 15 B46.
func (c Cohort) Target(e Expectation) (int64, error) {
	if c.Left() == 0 {
		return c.Price, nil
	}
	if e.Use <= 0 || e.Use > e.Of {
		return 0, credit.Errorf(credit.InvalidRequest, "The part that is expected to be used is above nothing and at most all.")
	}
	// round half up(Used·Of/Use) = floor((2·Used·Of + Use)/(2·Use)), in numbers of any size: the quotient may be far above P.
	use := big.NewInt(int64(e.Use))
	earned := new(big.Int).Mul(big.NewInt(c.Used), big.NewInt(int64(e.Of)))
	if new(big.Int).Mul(big.NewInt(c.Price), use).Cmp(earned) < 0 {
		return 0, credit.Errorf(credit.EstimateExceeded, "More has been used already than %d of %d, which is all that was expected to be.", e.Use, e.Of)
	}
	earned.Lsh(earned, 1).Add(earned, use)
	earned.Quo(earned, use.Lsh(use, 1))
	return max(earned.Int64(), c.Used+c.Expired), nil
}

// Adjustment is what brings the cohort's posted revenue to its Target, all of it in the current period, for an estimate that changed is no
// error of the past: debit 2019, credit 4020, or the other way when it is negative. Errors are those of Target.
// Source: ASC 250-10-45-17; IAS 8.36.
func (c Cohort) Adjustment(e Expectation) (int64, error) {
	target, err := c.Target(e)
	return target - c.Used - c.Expired - c.Adjusted, err
}

// Escheat is the share of an expired amount that unclaimed property law gives to a government, rounded half up; it is never revenue.
// Source: ASC 606-10-55-49; IFRS 15 B47.
func Escheat(amount int64, rate Rate) int64 { return rate.of(amount) }
