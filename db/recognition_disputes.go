package db

import (
	"context"
	"fmt"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// disputeBooks is a dispute, and what its loss took away.
type disputeBooks struct {
	sqlc.DisputesToRecogniseRow
	units    credit.Amount
	carrying int64
}

// loadDisputes reads the disputes that the pass may have to post, and adds the periods of their days.
func (p *pass) loadDisputes(ctx context.Context, timeZone string, service map[ledger.Period]bool) error {
	rows, err := p.q.DisputesToRecognise(ctx, sqlc.DisputesToRecogniseParams{CustomerID: uuidOf(p.customer), After: p.from, Until: p.to, TimeZone: timeZone})
	if err != nil {
		return fmt.Errorf("read disputes: %w", err)
	}
	for _, r := range rows {
		p.disputes = append(p.disputes, &disputeBooks{DisputesToRecogniseRow: r})
		if p.covers(r.OpenedVer) {
			service[dayOf(r.OpenedOn).Period()] = true
		}
		if p.covers(r.EndedVer) {
			service[dayOf(r.EndedOn).Period()] = true
		}
	}
	return nil
}

// covers tells whether the pass posts an operation.
func (p *pass) covers(ver int64) bool { return p.from < ver && ver <= p.to }

// lostDispute is the dispute that has taken a grant away by an operation; nil: none has.
func (p *pass) lostDispute(g *grantBooks, ver int64) *disputeBooks {
	for _, d := range p.disputes {
		if d.GrantID.Bytes == g.id && DisputeStatus(d.Status) == DisputeLost && d.EndedVer <= ver {
			return d
		}
	}
	return nil
}

// clawBack takes credits out of a grant whose payment was lost: by the loss itself, or later, when a hold let go of them.
func (p *pass) clawBack(g *grantBooks, f ledger.Fact, r sqlc.MovementsToRecogniseRow, d *disputeBooks) error {
	units := credit.Amount(r.Units)
	for len(p.rows) > 1 && p.rows[1].GrantID == r.GrantID && p.rows[1].FirstVer == r.FirstVer && p.rows[1].Credit == r.Credit {
		p.rows = p.rows[1:] // what a hold had taken at different times
		units += credit.Amount(p.rows[0].Units)
	}
	amount, err := g.dispose(units)
	if err != nil {
		return err
	}
	if d.EndedVer == r.FirstVer {
		d.units, d.carrying = units, amount
		return nil
	}
	f.Cause = fmt.Sprintf("grant/%s/clawback/%d", g.id, r.FirstVer)
	p.add(ledger.Clawback(f, amount, units))
	return nil
}

// postDisputes posts the disputes that operations of the pass have opened or ended.
func (p *pass) postDisputes() {
	for _, d := range p.disputes {
		id := credit.DisputeID(d.ID.Bytes)
		sum := func(minor, source int64) ledger.Sum {
			if d.Currency == p.currency {
				return ledger.Sum{Minor: minor}
			}
			return ledger.Sum{Minor: minor, Source: credit.Money{Minor: source, Currency: d.Currency}}
		}
		fact := func(what string, day ledger.Day, ver int64) ledger.Fact {
			return ledger.Fact{
				Cause: "dispute/" + id.String() + "/" + what, Entity: p.entity, Currency: p.currency, Day: day, Period: p.periods[day.Period()],
				Customer: p.customer, Grant: d.GrantID.Bytes, VerFrom: ver, VerTo: ver,
			}
		}
		amount := sum(d.BasisMinor, d.AmountMinor)
		if p.covers(d.OpenedVer) {
			p.add(ledger.DisputeOpened(fact("opened", dayOf(d.OpenedOn), d.OpenedVer), amount, sum(d.FeeBasisMinor, d.FeeMinor)))
		}
		if !p.covers(d.EndedVer) {
			continue
		}
		f := fact(d.Status, dayOf(d.EndedOn), d.EndedVer)
		if DisputeStatus(d.Status) == DisputeWon {
			p.add(ledger.DisputeWon(f, amount))
		} else {
			p.add(ledger.DisputeLost(f, amount, d.TaxBasisMinor, d.carrying, d.units))
		}
	}
}
