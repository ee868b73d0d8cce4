package credit

import "time"

// Draw is one grant's share of a consumption.
type Draw struct {
	Grant  *Grant
	Amount Amount // > 0
}

// Need is what a consumption asks for.
type Need struct {
	At     time.Time // the instant at which the credits must be there
	Unit   string
	Member MemberID // zero: none named
	Dims   Dimensions
	// Cost returns what the usage costs under a rate version: 0 is the version in force at the time of the usage, which
	// prices floating grants. An explicit amount costs the same under every version.
	Cost func(version int) (Amount, error)
}

// Selection is the outcome of [Select].
type Selection struct {
	Draws []Draw
	Total Amount // what the draws sum to
	// Short is what is still wanting when the grants are used up, in credits of the version that priced last; 0 means that
	// the draws pay for everything.
	Short Amount
	// Elsewhere is what the customer has in this unit at that instant and may not use for this (other scope, other member, frozen),
	// overage not counted. The walk ends when everything is paid for, so it is complete only when Short > 0.
	Elsewhere Amount
	// Versions lists the rate versions that the usage was priced at, in order of use; never empty. Short is in credits of the last.
	Versions []int
}

// Select walks grants in draw-down order and takes what the need asks for, all of one grant before the next. The grants must be
// sorted by [CompareDrawOrder]; they are not changed. When a walk passes from a grant of one rate version to a grant of
// another, the part still to pay is carried over at the ratio of the two costs, rounded up to a step.
func Select(grants []*Grant, need Need, into []Draw) (Selection, error) {
	s := Selection{Draws: into[:0]}
	version, cost := -1, Amount(0)
	for _, g := range grants {
		if g.Wallet.Unit != need.Unit || g.Available == 0 {
			continue
		}
		if !g.Serves(need.At, need.Member, need.Dims) {
			if !need.At.Before(g.EffectiveAt) && !g.PastExpiry(need.At) && g.Type != Overage {
				s.Elsewhere += g.Available
			}
			continue
		}
		if want := g.RateVersion; want != version {
			next, err := need.Cost(want)
			if err != nil {
				return Selection{}, err
			}
			switch {
			case version < 0:
				s.Short = next
			case cost > 0:
				s.Short = Amount(MulDivUp(int64(s.Short), int64(next), int64(cost)))
			}
			version, cost = want, next
			s.Versions = append(s.Versions, want)
		}
		if s.Short == 0 {
			break
		}
		take := min(g.Available, s.Short)
		s.Draws = append(s.Draws, Draw{Grant: g, Amount: take})
		s.Total += take
		s.Short -= take
		if s.Short == 0 {
			break
		}
	}
	if version < 0 {
		next, err := need.Cost(0)
		if err != nil {
			return Selection{}, err
		}
		s.Short, s.Versions = next, append(s.Versions, 0)
	}
	return s, nil
}
