package api

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/forecast"
	"github.com/tallystick/tallystick/db"
)

// burnWindows are the times over which rates are said.
var burnWindows = []struct {
	name  string
	hours int64
}{{"1h", 1}, {"24h", 24}, {"7d", 7 * 24}, {"30d", 30 * 24}}

type (
	// burnDocument says how fast credits are used and when they will be gone.
	burnDocument struct {
		CustomerID credit.CustomerID `json:"customer_id"`
		WalletID   *credit.WalletID  `json:"wallet_id,omitempty"`
		MemberID   *credit.MemberID  `json:"member_id,omitempty"`
		Model      string            `json:"model,omitempty"`
		AsOf       string            `json:"as_of"`  // everything until then is counted
		LagMS      int64             `json:"lag_ms"` // and that is so long ago
		Units      []unitBurn        `json:"units"`
	}
	unitBurn struct {
		Unit     string        `json:"unit"`
		Rates    []burnRate    `json:"rates"`
		Forecast *burnForecast `json:"forecast,omitempty"` // none: of a member or a model, for others draw on the same credits
	}
	burnRate struct {
		Window   string `json:"window"`
		Consumed string `json:"consumed"`
		PerHour  string `json:"per_hour"`
	}
	burnForecast struct {
		Available    string          `json:"available"` // now, or in a grant that becomes effective within the horizon; overage not counted
		PerHour      string          `json:"per_hour"`  // expected, on the average of a week
		DepletedAt   *string         `json:"depleted_at"`
		DepletedFrom *string         `json:"depleted_from"`
		DepletedTill *string         `json:"depleted_until"`
		Observed     int             `json:"observed"` // instants of the past from whose errors the band is made; 0: it is a guess
		Unused       string          `json:"unused"`
		Expiring     []expiringGrant `json:"expiring"`
	}
	expiringGrant struct {
		GrantID   credit.GrantID  `json:"grant_id"`
		WalletID  credit.WalletID `json:"wallet_id"`
		ExpiresAt string          `json:"expires_at"`
		Available string          `json:"available"`
		Unused    string          `json:"unused"`
	}
)

// customerBurn is GET /v1/customers/{customer}/burn.
func (s *Server) customerBurn(ctx context.Context, c *call) error {
	return s.burn(ctx, c, s.customerScope)
}

// walletBurn is GET /v1/wallets/{wallet}/burn.
func (s *Server) walletBurn(ctx context.Context, c *call) error {
	return s.burn(ctx, c, s.walletScope)
}

func (s *Server) burn(ctx context.Context, c *call, scopeOf func(context.Context, *call) (db.Scope, error)) error {
	q, err := c.query("member", "model")
	if err != nil {
		return err
	}
	scope, err := scopeOf(ctx, c)
	if err != nil {
		return err
	}
	of := db.UsageScope{Customer: scope.Customer, Wallet: scope.Wallet, Model: q.text("model")}
	if name := q.text("member"); name != "" {
		if of.Member, err = s.memberID(ctx, of.Customer, name); err != nil {
			return in("member", err)
		}
	}
	grants, wallets, err := s.store.Grants(ctx, of.Customer)
	if err != nil {
		return err
	}
	back := forecast.Weeks * 7 * 24 * time.Hour
	projected := of.Member.IsZero() && of.Model == ""
	if !projected {
		back = time.Duration(burnWindows[len(burnWindows)-1].hours+1) * time.Hour
	}
	hours, asOf, now, err := s.store.UsageHours(ctx, of, time.Now().Add(-back))
	if err != nil {
		return err
	}
	doc := burnDocument{CustomerID: of.Customer, Model: of.Model, AsOf: instantText(asOf), LagMS: now.Sub(asOf).Milliseconds(), Units: []unitBurn{}}
	if !of.Wallet.IsZero() {
		doc.WalletID = &of.Wallet
	}
	if !of.Member.IsZero() {
		doc.MemberID = &of.Member
	}
	var units []string
	for _, w := range wallets {
		if of.Wallet.IsZero() || w.ID == of.Wallet {
			units = append(units, w.Unit)
		}
	}
	slices.Sort(units)
	for _, code := range slices.Compact(units) {
		unit, err := s.service.Unit(code)
		if err != nil {
			return err
		}
		var used []db.UsageHour
		for _, h := range hours {
			if h.Unit == code {
				used = append(used, h)
			}
		}
		u := unitBurn{Unit: code, Rates: burnRates(used, now, unit.Scale)}
		if projected {
			u.Forecast = projectBurn(used, grants, of.Wallet, unit, asOf, now)
		}
		doc.Units = append(doc.Units, u)
	}
	return c.document(doc)
}

// burnRates sums the windows that end now. Of the hour in which a window begins the part counts that is in it.
func burnRates(used []db.UsageHour, now time.Time, scale int) []burnRate {
	rates := make([]burnRate, len(burnWindows))
	for i, w := range burnWindows {
		begin := now.Add(-time.Duration(w.hours) * time.Hour)
		first := begin.Truncate(time.Hour)
		var sum credit.Amount
		for _, h := range used {
			switch {
			case h.Hour.After(now) || h.Hour.Before(first):
			case h.Hour.Equal(first):
				sum += part(h.Consumed, time.Hour-begin.Sub(first), time.Hour)
			default:
				sum += h.Consumed
			}
		}
		rates[i] = burnRate{Window: w.name, Consumed: sum.Format(scale), PerHour: part(sum, 1, time.Duration(w.hours)).Format(scale)}
	}
	return rates
}

// part is n times a over b, to the next whole step; a is at most b, and b more than 0.
func part(n credit.Amount, a, b time.Duration) credit.Amount {
	return credit.Amount(math.RoundToEven(float64(n) * (float64(a) / float64(b)))) // an estimate: see credit/forecast
}

// projectBurn says what becomes of a customer's grants in a unit as consumption is expected to go on.
func projectBurn(used []db.UsageHour, all []*credit.Grant, wallet credit.WalletID, unit credit.Unit, asOf, now time.Time) *burnForecast {
	p, grants := balance.Forecast(used, all, wallet, unit.Code, asOf, now)
	scale := unit.Scale
	var available, unused credit.Amount
	for _, g := range grants {
		available += g.Available
	}
	doc := &burnForecast{DepletedAt: instantOrNull(p.Expected), DepletedFrom: instantOrNull(p.Early), DepletedTill: instantOrNull(p.Late),
		Observed: p.Observed, Available: available.Format(scale), PerHour: credit.Amount(math.RoundToEven(p.Hourly)).Format(scale), Expiring: []expiringGrant{}}
	for i, g := range grants {
		n := min(credit.Amount(math.RoundToEven(p.Unused[i])), g.Available)
		if n <= 0 {
			continue
		}
		unused += n
		doc.Expiring = append(doc.Expiring, expiringGrant{GrantID: g.ID, WalletID: g.Wallet.ID, ExpiresAt: instantText(g.ExpiresAt),
			Available: g.Available.Format(scale), Unused: n.Format(scale)})
	}
	doc.Unused = unused.Format(scale)
	slices.SortStableFunc(doc.Expiring, func(a, b expiringGrant) int { return strings.Compare(a.ExpiresAt, b.ExpiresAt) })
	return doc
}
