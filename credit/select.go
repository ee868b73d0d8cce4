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
	Gates  []Gate // what limits leave; nil: there are none
	// Cost returns what the usage costs at a rate: the zero lock is the card and version in force at the time of the usage, which
	// price floating grants. An explicit amount costs the same at every one.
	Cost func(at RateLock) (Amount, error)
}

// Selection is the outcome of [Select].
type Selection struct {
	Draws []Draw
	Total Amount // what the draws sum to
	// Short is what is still wanting when the grants are used up, in credits of the rate that priced last; 0 means that
	// the draws pay for everything.
	Short Amount
	// Elsewhere is what the customer has in this unit at that instant and may not use for this (other scope, other member, frozen),
	// overage not counted. The walk ends when everything is paid for, so it is complete only when Short > 0.
	Elsewhere Amount
	// Rates lists what the usage was priced at, in order of use; never empty. Short is in credits of the last.
	Rates []RateLock
	// Gate is the place, counted from 1, among the need's gates of the hard limit that keeps the draws from paying for everything, also where
	// credits are short too: one on the whole usage before one on a wallet. 0: none does.
	Gate int
}

// Select walks grants in draw-down order and takes what the need asks for, all of one grant before the next. The grants must be
// sorted by [CompareDrawOrder]; they are not changed. When a walk passes from a grant of one rate to a grant of
// another, the part still to pay is carried over at the ratio of the two costs, rounded up to a step. Hard limits bound what is taken: of all
// grants together, or of those of one wallet.
func Select(grants []*Grant, need Need, into []Draw) (Selection, error) {
	s := Selection{Draws: into[:0]}
	var rate RateLock
	priced, cost := false, Amount(0)
	rooms := newRooms(need.Gates)
	withheld := 0
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
		room, by := rooms.of(g.Wallet.ID)
		if room == 0 {
			if withheld == 0 {
				withheld = by
			}
			if need.Gates[by-1].Limit.Wallet.IsZero() {
				break
			}
			continue
		}
		if want := g.Lock(); !priced || want != rate {
			next, err := need.Cost(want)
			if err != nil {
				return Selection{}, err
			}
			switch {
			case !priced:
				s.Short = next
			case cost > 0:
				s.Short = Amount(MulDivUp(int64(s.Short), int64(next), int64(cost)))
			}
			rate, priced, cost = want, true, next
			s.Rates = append(s.Rates, want)
		}
		if s.Short == 0 {
			break
		}
		take := min(g.Available, s.Short, room)
		if take < min(g.Available, s.Short) && withheld == 0 {
			withheld = by
		}
		rooms.take(g.Wallet.ID, take)
		s.Draws = append(s.Draws, Draw{Grant: g, Amount: take})
		s.Total += take
		s.Short -= take
		if s.Short == 0 {
			break
		}
	}
	if !priced {
		next, err := need.Cost(RateLock{})
		if err != nil {
			return Selection{}, err
		}
		s.Short, s.Rates = next, append(s.Rates, RateLock{})
	}
	if s.Short > 0 && len(need.Gates) > 0 {
		s.Gate = withheld
		if whole, left := rooms.whole(); whole > 0 && s.Total+s.Short > left {
			s.Gate = whole
		}
	}
	return s, nil
}
