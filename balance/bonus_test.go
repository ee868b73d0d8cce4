package balance_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
)

// Whatever is used and refunded of a purchase and its bonus, in any order: what goes of the bonus is never more than it has, nor more than the
// refunded part of the purchase; when nothing of the bonus is used, it is exactly that part; when the whole purchase is refunded, nothing is left.
func TestBonusShare(t *testing.T) {
	now := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.OneOf(rapid.Int64Range(1, 50), rapid.Int64Range(1, int64(credit.MaxAmount)))
		g := &credit.Grant{Status: credit.StatusOpen, Amount: credit.Amount(amount.Draw(t, "purchase"))}
		b := &credit.Grant{Status: credit.StatusOpen, Amount: credit.Amount(amount.Draw(t, "bonus"))}
		g.Available, b.Available = g.Amount, b.Amount
		for g.Available > 0 {
			if b.Available > 0 && rapid.Bool().Draw(t, "use") {
				k := credit.Amount(rapid.Int64Range(1, int64(b.Available)).Draw(t, "k"))
				b.Available, b.Consumed = b.Available-k, b.Consumed+k
			}
			units := credit.Amount(rapid.Int64Range(max(1, int64(g.Available)/4), int64(g.Available)).Draw(t, "units"))
			extra := balance.BonusShare(g, units, b, now)
			if extra < 0 || extra > b.Available {
				t.Fatalf("%d of %d", extra, b.Available)
			}
			g.Available, g.Refunded = g.Available-units, g.Refunded+units
			b.Available, b.Refunded = b.Available-extra, b.Refunded+extra
			due := credit.Amount(credit.MulDiv(int64(b.Amount), int64(g.Refunded), int64(g.Amount)))
			if b.Refunded > due || b.Consumed == 0 && b.Refunded != due {
				t.Fatalf("%d of the bonus went, %d is due", b.Refunded, due)
			}
		}
		if b.Available != 0 {
			t.Fatalf("%d of the bonus is left when all of the purchase is refunded", b.Available)
		}
		if b.Status = credit.StatusExpired; balance.BonusShare(g, 0, b, now) != 0 || balance.BonusShare(g, 0, nil, now) != 0 {
			t.Fatal("something goes of an expired bonus, or of none")
		}
	})
}
