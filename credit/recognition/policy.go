package recognition

import (
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
)

// Method says when breakage is recognised.
type Method string

const (
	Remote       Method = "remote"       // at expiry, what is left
	Proportional Method = "proportional" // with use, by an estimate of how much will be used
)

// Policy is one version of what an entity's controller decided. The zero value, version 0, is what holds without any decision: the remote
// method, tax at purchase, nothing for unclaimed property.
type Policy struct {
	Version  int           // of the entity's policies, > 0
	Unit     string        // the kind of credit that it is for; "": every one without a policy of its own
	From     ledger.Period // the first period that it decides
	Breakage Method
	UseTax   Rate // tax that is due when credits are used, on the net amount; zero: at purchase
	Escheat  Rate // the part of breakage that is unclaimed property
}

// PolicyFor returns the policy that decides a period for a kind of credit: of those for that kind, or else of those for every kind, the one
// that began last, of two that began together the later one. policies are in order of approval.
func PolicyFor(policies []Policy, unit string, p ledger.Period) Policy {
	var own, general Policy
	for _, c := range policies {
		switch {
		case c.From > p:
		case c.Unit == unit && c.From >= own.From:
			own = c
		case c.Unit == "" && c.From >= general.From:
			general = c
		}
	}
	if own.Version != 0 {
		return own
	}
	return general
}

// Never is the month of expiry of grants that do not expire.
const Never ledger.Period = "never"

// Estimate is one version of how much of some cohorts' credits will be used.
type Estimate struct {
	Version   int           // of the entity's estimates, > 0
	Unit      string        // the kind of credit
	ExpiresIn ledger.Period // the month of expiry, or Never; "": every one without an estimate of its own
	From      ledger.Period // the first period that it is for
	Use       Rate          // the part that is expected to be used, above zero
}

// Expectation is the estimate as E of N.
func (e Estimate) Expectation() Expectation {
	return Expectation{credit.Amount(e.Use.num), credit.Amount(e.Use.den)}
}

// EstimateFor returns the estimate of a cohort in a period, as [PolicyFor] does a policy, and whether there is one.
func EstimateFor(estimates []Estimate, unit string, expiresIn, p ledger.Period) (Estimate, bool) {
	var own, general Estimate
	for _, c := range estimates {
		switch {
		case c.Unit != unit || c.From > p:
		case c.ExpiresIn == expiresIn && c.From >= own.From:
			own = c
		case c.ExpiresIn == "" && c.From >= general.From:
			general = c
		}
	}
	if own.Version != 0 {
		return own, true
	}
	return general, general.Version != 0
}
