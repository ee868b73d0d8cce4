package db

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// queue adds the statements that write c. Rows of one table go in one statement, as arrays.
func (c *Changes) queue(b *pgx.Batch) error {
	c.queueKeys(b)
	for _, w := range c.NewWallets {
		scope, err := scopeJSON(w.Wallet.Scope)
		if err != nil {
			return err
		}
		limit := "hard"
		if w.Wallet.SoftCap {
			limit = "soft"
		}
		b.Queue(sqlc.AddWallet, uuidOf(w.Wallet.ID), uuidOf(w.Customer), w.Wallet.Unit, w.Wallet.Name, w.Wallet.Priority, scope, limit, w.At, uuidOf(w.Wallet.Member))
	}
	for _, g := range c.NewGrants {
		if err := g.queue(b); err != nil {
			return err
		}
	}
	c.queueOperations(b)
	c.queueMovements(b)
	c.queueCounters(b)
	for _, r := range c.Refunds {
		b.Queue(sqlc.AddRefund, uuidOf(r.ID), uuidOf(r.Customer), uuidOf(r.Grant), r.Ver, int64(r.Units), r.Money, r.Tax, textOf(r.Currency),
			r.Basis, r.TaxBasis, r.Reason, r.Status, r.At)
	}
	for _, r := range c.Disputes {
		b.Queue(sqlc.SaveDispute, uuidOf(r.ID), r.Reference, uuidOf(r.Customer), uuidOf(r.Grant), string(r.Status), r.Currency, r.Amount, r.Fee, r.Basis, r.TaxBasis,
			r.FeeBasis, r.WasFrozen, r.Reason, r.OpenedVer, r.OpenedAt, numberOf(r.EndedVer), timeOf(r.EndedAt))
	}
	for _, r := range c.Corrected {
		b.Queue(sqlc.SaveCorrected, uuidOf(r.Customer), r.Ver, int64(r.Amount), int64(r.Corrected), r.Whole, numberOf(r.UsageOf), numberOf(r.RaisedBy))
	}
	if err := c.queueHolds(b); err != nil {
		return err
	}
	c.queueOutbox(b)
	c.queueDraws(b)
	c.queueGrants(b)
	for _, w := range c.Wallets {
		scope, err := scopeJSON(w.Scope)
		if err != nil {
			return err
		}
		b.Queue(sqlc.ChangeWallet, w.Priority, scope, uuidOf(w.ID))
	}
	for _, card := range c.Cards {
		b.Queue(sqlc.ChangeCustomerCard, uuidOf(card.Card), uuidOf(card.Customer))
	}
	for _, a := range c.NewAssignments {
		b.Queue(sqlc.AddAssignment, uuidOf(a.ID), uuidOf(a.Customer), uuidOf(a.Card), a.From, timeOf(a.To), a.At, a.By, a.Reason)
	}
	for _, a := range c.Assignments {
		b.Queue(sqlc.EndAssignment, timeOf(a.To), uuidOf(a.ID))
	}
	if err := c.queueLimits(b); err != nil {
		return err
	}
	c.queueEvents(b)
	c.queueQuarantined(b)
	c.queueHeads(b)
	return nil
}

func (c *Changes) queueQuarantined(b *pgx.Batch) {
	for i := range c.Quarantined {
		q := &c.Quarantined[i]
		digest := keyDigest(q.Key)
		b.Queue(sqlc.AddQuarantined, uuidOf(q.ID), uuidOf(q.Customer), pgtype.UUID{Bytes: digest, Valid: true}, q.Key, q.Actor,
			pgtype.UUID{Bytes: q.RequestID, Valid: true}, q.Body, q.ServiceAt, q.At, string(q.Code), q.Detail)
	}
	for i := range c.Retried {
		r := &c.Retried[i]
		if r.Ver == 0 {
			b.Queue(sqlc.TryQuarantined, string(r.Code), r.Detail, uuidOf(r.ID))
			continue
		}
		b.Queue(sqlc.ChargeQuarantined, r.Ver, r.At, r.By, uuidOf(r.ID))
		b.Queue(sqlc.AnswerKey, r.Status, r.Ver, pgtype.UUID{Bytes: r.Digest, Valid: true})
	}
}

func (c *Changes) queueKeys(b *pgx.Batch) {
	n := len(c.Keys)
	if n == 0 {
		return
	}
	digests, requests, customers := make([]pgtype.UUID, n), make([]pgtype.UUID, n), make([]pgtype.UUID, n)
	vers, statuses, responses := make([]pgtype.Int8, n), make([]int16, n), make([]pgtype.Text, n)
	for i := range c.Keys {
		k := &c.Keys[i]
		digests[i] = pgtype.UUID{Bytes: k.Digest, Valid: true}
		requests[i] = pgtype.UUID{Bytes: k.Request, Valid: true}
		customers[i], statuses[i] = uuidOf(k.Customer), k.Status
		vers[i] = pgtype.Int8{Int64: k.Ver, Valid: k.Ver != 0}
		responses[i] = pgtype.Text{String: k.Response, Valid: k.Ver == 0}
	}
	b.Queue(sqlc.AddKeys, digests, requests, customers, vers, statuses, responses)
}

func (c *Changes) queueOperations(b *pgx.Batch) {
	n := len(c.Operations)
	if n == 0 {
		return
	}
	customers, requests, members := make([]pgtype.UUID, n), make([]pgtype.UUID, n), make([]pgtype.UUID, n)
	vers, amounts, actors := make([]int64, n), make([]int64, n), make([]int32, n)
	ats, serviceAts := make([]time.Time, n), make([]time.Time, n)
	kinds, keys, receipts := make([]string, n), make([]string, n), make([]string, n)
	units, dims := make([]pgtype.Text, n), make([]pgtype.Text, n)
	for i := range c.Operations {
		o := &c.Operations[i]
		customers[i], requests[i], members[i] = uuidOf(o.Customer), pgtype.UUID{Bytes: o.RequestID, Valid: true}, uuidOf(o.Member)
		vers[i], amounts[i], actors[i], ats[i], serviceAts[i] = o.Ver, int64(o.Amount), o.Actor, o.At, o.ServiceAt
		kinds[i], keys[i], receipts[i], units[i], dims[i] = o.Kind, o.Key, string(o.Receipt), textOf(o.Unit), textOf(o.Dims)
	}
	b.Queue(sqlc.AddOperations, customers, vers, kinds, amounts, ats, serviceAts, actors, requests, members, keys, units, dims, receipts)
}

func (c *Changes) queueMovements(b *pgx.Batch) {
	n := len(c.Movements)
	if n == 0 {
		return
	}
	grants, vers, ns := make([]pgtype.UUID, n), make([]int64, n), make([]int16, n)
	debits, credits, amounts, afters := make([]string, n), make([]string, n), make([]int64, n), make([]int64, n)
	for i := range c.Movements {
		m := &c.Movements[i]
		grants[i], vers[i], ns[i], debits[i], credits[i] = uuidOf(m.Grant), m.Ver, m.N, m.Debit, m.Credit
		amounts[i], afters[i] = int64(m.Amount), int64(m.After)
	}
	b.Queue(sqlc.AddMovements, grants, vers, ns, debits, credits, amounts, afters)
}

func (c *Changes) queueCounters(b *pgx.Batch) {
	n := len(c.Counters)
	if n == 0 {
		return
	}
	customers, vers, keys, values := make([]pgtype.UUID, n), make([]int64, n), make([]string, n), make([]string, n)
	for i, r := range c.Counters {
		customers[i], vers[i], keys[i], values[i] = uuidOf(r.Customer), r.Ver, r.Key, r.Value
	}
	b.Queue(sqlc.SaveCounters, customers, keys, values, vers)
}

func (c *Changes) queueDraws(b *pgx.Batch) {
	n := len(c.Draws)
	if n == 0 {
		return
	}
	grants, befores, afters, depleted := make([]pgtype.UUID, n), make([]int64, n), make([]int64, n), make([]bool, n)
	for i, d := range c.Draws {
		grants[i], befores[i], afters[i], depleted[i] = uuidOf(d.Grant), int64(d.Before), int64(d.After), d.Depleted
	}
	b.Queue(sqlc.DrawGrants, grants, befores, afters, depleted)
}

func (c *Changes) queueGrants(b *pgx.Batch) {
	n := len(c.Grants)
	if n == 0 {
		return
	}
	ids, frozen := make([]pgtype.UUID, n), make([]bool, n)
	wasStatus, status, paymentRefs := make([]string, n), make([]string, n), make([]pgtype.Text, n)
	expires, issued := make([]pgtype.Timestamptz, n), make([]pgtype.Timestamptz, n)
	var counters [10][]int64 // before avail, before held, then the counters in the order of the statement
	for k := range counters {
		counters[k] = make([]int64, n)
	}
	for i, ch := range c.Grants {
		was, g := ch.Before, ch.After
		ids[i], frozen[i], wasStatus[i], status[i], paymentRefs[i] = uuidOf(g.ID), g.Frozen, string(was.Status), string(g.Status), textOf(g.PaymentRef)
		expires[i], issued[i] = timeOf(g.ExpiresAt), timeOf(g.IssuedAt)
		for k, v := range [...]int64{int64(was.Available), int64(was.Held), int64(g.Granted), int64(g.Available), int64(g.Held), int64(g.Consumed),
			int64(g.Expired), int64(g.Refunded), int64(g.Voided), int64(g.Transferred)} {
			counters[k][i] = v
		}
	}
	b.Queue(sqlc.ChangeGrants, ids, counters[0], counters[1], wasStatus, status, frozen, expires, issued, paymentRefs,
		counters[2], counters[3], counters[4], counters[5], counters[6], counters[7], counters[8], counters[9])
}

func (c *Changes) queueOutbox(b *pgx.Batch) {
	n := len(c.Outbox)
	if n == 0 {
		return
	}
	topics, subjects, payloads := make([]string, n), make([]string, n), make([]string, n)
	for i, o := range c.Outbox {
		topics[i], subjects[i], payloads[i] = o.Topic, o.Subject, o.Payload
	}
	b.Queue(sqlc.AddOutbox, topics, subjects, payloads)
}

func (c *Changes) queueEvents(b *pgx.Batch) {
	if len(c.Events) == 0 {
		return
	}
	p := eventParams(c.Events)
	b.Queue(sqlc.AddEvents, p.Owners, p.Behinds, p.Ids, p.Types, p.Subjects, p.Datas, p.Ats, p.Customers, p.Counts)
}

func (c *Changes) queueHeads(b *pgx.Batch) {
	n := len(c.Heads)
	if n == 0 {
		return
	}
	customers, vers, ats := make([]pgtype.UUID, n), make([]int64, n), make([]time.Time, n)
	for i, h := range c.Heads {
		customers[i], vers[i], ats[i] = uuidOf(h.Customer), h.Ver, h.At
	}
	b.Queue(sqlc.AdvanceHeads, customers, vers, ats)
}

func (n NewGrant) queue(b *pgx.Batch) error {
	g := n.Grant
	scope, err := scopeJSON(g.Scope)
	if err != nil {
		return err
	}
	metadata := []byte("{}")
	if len(n.Metadata) > 0 {
		if metadata, err = json.Marshal(n.Metadata); err != nil {
			return fmt.Errorf("write metadata: %w", err)
		}
	}
	fx := nullDecimal(g.FXRate)
	b.Queue(sqlc.AddGrant, uuidOf(g.ID), uuidOf(g.CustomerID), uuidOf(g.Wallet.ID), string(g.Type), string(g.Status), g.Priority, scope,
		uuidOf(g.MemberID), g.EffectiveAt, timeOf(g.ExpiresAt), g.Price.Minor, g.Tax, textOf(g.Price.Currency), fx, g.Basis, g.TaxBasis,
		textOf(g.PaymentRef), string(g.RatePolicy), pgtype.Int4{Int32: int32(g.RateVersion), Valid: g.RateVersion != 0}, uuidOf(g.RateCard), uuidOf(g.BonusOf), metadata,
		g.CreatedAt, timeOf(g.IssuedAt), int64(g.Amount), int64(g.Granted), int64(g.Available),
		uuidOf(g.From), numberOf(g.FromVer))
	return nil
}
