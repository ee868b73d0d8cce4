package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

type (
	// UsageScope is whose usage is meant: a customer's, and of it that of a wallet, a member and a model, where they are not zero.
	UsageScope struct {
		Customer credit.CustomerID
		Wallet   credit.WalletID
		Member   credit.MemberID
		Model    string
	}
	// UsageHour is what was consumed in an hour of service, less what was given back.
	UsageHour struct {
		Hour     time.Time // its beginning, UTC
		Unit     string
		Consumed credit.Amount
	}
)

// UsageHours returns the hours since an instant in which anything was consumed, by unit and then in order, and the instants up to which everything the
// customer did is counted in them, and of now, by the clock of Postgres. An Error coded customer_not_found says that there is no such customer.
func (s *Store) UsageHours(ctx context.Context, sc UsageScope, since time.Time) (hours []UsageHour, asOf, now time.Time, err error) {
	at, err := s.q.UsageAsOf(ctx, uuidOf(sc.Customer))
	if err != nil {
		return nil, asOf, now, found(err, noCustomer(sc.Customer.String()), "read how far usage is counted")
	}
	now = fromTime(at.Now)
	if asOf = fromTime(at.FirstUncounted); asOf.IsZero() {
		asOf = now
	}
	customer, wallet, from := uuidOf(sc.Customer), uuidOf(sc.Wallet), timeOf(since)
	switch {
	case !sc.Member.IsZero():
		var rows []sqlc.HoursOfMemberRow
		rows, err = s.q.HoursOfMember(ctx, sqlc.HoursOfMemberParams{CustomerID: customer, MemberID: uuidOf(sc.Member), Since: from, Model: textOf(sc.Model), WalletID: wallet})
		hours, err = page(rows, err, "read hours of a member", func(r sqlc.HoursOfMemberRow) UsageHour { return usageHour(r.Unit, r.Hour, r.Consumed) })
	case sc.Model != "":
		var rows []sqlc.HoursOfModelRow
		rows, err = s.q.HoursOfModel(ctx, sqlc.HoursOfModelParams{CustomerID: customer, Model: sc.Model, Since: from, WalletID: wallet})
		hours, err = page(rows, err, "read hours of a model", func(r sqlc.HoursOfModelRow) UsageHour { return usageHour(r.Unit, r.Hour, r.Consumed) })
	default:
		var rows []sqlc.HoursOfWalletsRow
		rows, err = s.q.HoursOfWallets(ctx, customer, from, wallet)
		hours, err = page(rows, err, "read hours of wallets", func(r sqlc.HoursOfWalletsRow) UsageHour { return usageHour(r.Unit, r.Hour, r.Consumed) })
	}
	return hours, asOf, now, err
}

func usageHour(unit string, hour pgtype.Timestamptz, consumed int64) UsageHour {
	return UsageHour{fromTime(hour), unit, credit.Amount(consumed)}
}

// Grants returns a customer's open grants, each with its wallet, in no order, and all its wallets, as of one moment. An Error coded
// customer_not_found says that there is no such customer.
func (s *Store) Grants(ctx context.Context, customer credit.CustomerID) ([]*credit.Grant, map[credit.WalletID]*credit.Wallet, error) {
	_, _, _, states, err := s.Snapshots(ctx, []credit.CustomerID{customer})
	if err != nil {
		return nil, nil, err
	}
	state := states[customer]
	if state == nil {
		return nil, nil, noCustomer(customer.String())
	}
	for _, g := range state.Grants {
		if g.Wallet == nil {
			return nil, nil, fmt.Errorf("grant %s has no wallet", g.ID)
		}
	}
	return state.Grants, state.Wallets, nil
}
