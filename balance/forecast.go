package balance

import (
	"slices"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/forecast"
	"github.com/tallystick/tallystick/db"
)

// Forecast follows grants as consumption is expected to go on: those of a customer that pay for usage in a unit, of one wallet or, when that is
// zero, of all. used are its hours in that unit, in order, and asOf is up to when everything is counted in them: see [db.Store.UsageHours]. It
// returns the grants that it followed, in the order in which they are drawn; the projection's Unused goes by them.
func Forecast(used []db.UsageHour, grants []*credit.Grant, wallet credit.WalletID, unit string, asOf, now time.Time) (forecast.Projection, []*credit.Grant) {
	history := forecast.History{From: now}
	if end := asOf.Truncate(time.Hour); len(used) > 0 && used[0].Hour.Before(end) { // hours that are not over, or not counted yet, would look quiet
		history = forecast.History{From: used[0].Hour, Hours: make([]float64, int(end.Sub(used[0].Hour).Hours()))}
		for _, h := range used {
			if h.Hour.Before(end) {
				history.Hours[int(h.Hour.Sub(history.From).Hours())] = float64(h.Consumed)
			}
		}
	}
	paying := payers(grants, wallet, unit, now)
	left := make([]forecast.Grant, len(paying))
	for i, g := range paying {
		left[i] = forecast.Grant{Left: float64(g.Available), From: g.EffectiveAt, Until: g.ExpiresAt}
	}
	return forecast.Fit(history).Project(now, left), paying
}

// payers are the grants that pay for usage in a unit, now or when they become effective, in the order in which they are drawn.
func payers(grants []*credit.Grant, wallet credit.WalletID, unit string, now time.Time) []*credit.Grant {
	var out []*credit.Grant
	for _, g := range grants {
		if g.Wallet.Unit == unit && (wallet.IsZero() || g.Wallet.ID == wallet) && g.Type != credit.Overage && !g.Frozen && g.Available > 0 &&
			!g.PastExpiry(now) && g.EffectiveAt.Before(now.Add(forecast.Horizon)) {
			out = append(out, g)
		}
	}
	slices.SortFunc(out, credit.CompareDrawOrder)
	return out
}
