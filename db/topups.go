package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/topup"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// How an automatic top-up stands.
const (
	TopUpRequested = "requested" // its payment is awaited
	TopUpPaid      = "paid"      // its credits are about to be issued
	TopUpSucceeded = "succeeded"
	TopUpFailed    = "failed"
	TopUpExpired   = "expired" // nobody told the outcome in time
)

type (
	// TopUpRuleRow is what a wallet buys by itself, and how that stands.
	TopUpRuleRow struct {
		Wallet   credit.WalletID
		Customer credit.CustomerID
		topup.Rule
		Failures             int // one after another, since the newest success
		Wait                 topup.Wait
		Until                time.Time // of Wait; zero: nothing ends it, or there is nothing to wait for
		CreatedAt, UpdatedAt time.Time
		LookAt               time.Time // when it is judged though no operation comes; zero: never

		// Beside the rule, when it is read to be described.
		Unit     string
		Scale    int
		InFlight bool
		ReadAt   time.Time // by the clock of Postgres
	}
	// TopUpRow is one purchase by a rule.
	TopUpRow struct {
		ID             credit.TopUpID
		Wallet         credit.WalletID
		Customer       credit.CustomerID
		Grant          credit.GrantID
		Status         string
		Threshold      credit.Amount
		Available      credit.Amount // when it was begun
		Amount         credit.Amount
		Price          credit.Money
		Tax            int64
		GrantExpiresAt time.Time // zero: never
		Attempt        int
		Month          string
		RequestedAt    time.Time
		AskedAt        time.Time // zero: the payment was not asked for yet, and so it does not time out
		TimesOutAt     time.Time
		PaymentRef     string
		Reason         string // why it failed
		Retry          bool
		DecidedAt      time.Time // zero: it is not
		EndedAt        time.Time // zero: there is more to do
		Unit           string
		Scale          int
		ReadAt         time.Time // by the clock of Postgres
	}
	// TopUpFilter chooses top-ups; what is zero lets everything through.
	TopUpFilter struct {
		Customer credit.CustomerID
		Wallet   credit.WalletID
		Status   string
	}
)

func topUpRuleRow(r sqlc.TopUpRule) TopUpRuleRow {
	return TopUpRuleRow{Wallet: r.WalletID.Bytes, Customer: r.CustomerID.Bytes, Failures: int(r.Failures), Wait: topup.Wait(r.Wait.String), Until: fromTime(r.WaitUntil),
		CreatedAt: fromTime(r.CreatedAt), UpdatedAt: fromTime(r.UpdatedAt), LookAt: fromTime(r.LookAt),
		Rule: topup.Rule{Threshold: credit.Amount(r.Threshold), Amount: credit.Amount(r.Amount), Price: credit.Money{Minor: r.PriceMinor, Currency: r.Currency}, Tax: r.TaxMinor,
			ExpiresAfter: seconds(r.ExpiresAfterS.Int64), Cooldown: seconds(r.CooldownS), Timeout: seconds(r.TimeoutS), MonthlyCount: int(r.MonthlyCount),
			MonthlyMoney: r.MonthlyMinor.Int64}}
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

func positiveOrNull(n int64) pgtype.Int8 { return pgtype.Int8{Int64: n, Valid: n > 0} }

func topUpRow(v sqlc.FindTopUpRow) TopUpRow {
	t := v.TopUp
	return TopUpRow{ID: t.ID.Bytes, Wallet: t.WalletID.Bytes, Customer: t.CustomerID.Bytes, Grant: t.GrantID.Bytes, Status: t.Status, Threshold: credit.Amount(t.Threshold),
		Available: credit.Amount(t.Available), Amount: credit.Amount(t.Amount), Price: credit.Money{Minor: t.PriceMinor, Currency: t.Currency}, Tax: t.TaxMinor,
		GrantExpiresAt: fromTime(t.GrantExpiresAt), Attempt: int(t.Attempt), Month: t.Month, RequestedAt: fromTime(t.RequestedAt), AskedAt: fromTime(t.AskedAt),
		TimesOutAt: fromTime(t.TimesOutAt), PaymentRef: t.PaymentRef.String, Reason: t.Reason.String, Retry: t.Retry.Bool, DecidedAt: fromTime(t.DecidedAt),
		EndedAt: fromTime(t.EndedAt), Unit: v.Unit, Scale: int(v.Scale), ReadAt: fromTime(v.ReadAt)}
}

func noTopUpRule(wallet credit.WalletID) *credit.Error {
	return credit.Errorf(credit.TopUpNotFound, "The wallet %s has no rule for automatic top-ups.", wallet)
}

func findTopUpRule(ctx context.Context, q *sqlc.Queries, wallet credit.WalletID) (TopUpRuleRow, error) {
	v, err := q.FindTopUpRule(ctx, uuidOf(wallet))
	r := topUpRuleRow(v.TopUpRule)
	r.Unit, r.Scale, r.InFlight, r.ReadAt = v.Unit, int(v.Scale), v.InFlight, fromTime(v.ReadAt)
	return r, found(err, noTopUpRule(wallet), "read top-up rule")
}

func findTopUp(ctx context.Context, q *sqlc.Queries, id credit.TopUpID) (TopUpRow, error) {
	v, err := q.FindTopUp(ctx, uuidOf(id))
	return topUpRow(v), found(err, credit.Errorf(credit.TopUpNotFound, "There is no top-up %s.", id), "read top-up")
}

// TopUpRule returns the rule of a wallet, or an Error coded topup_not_found.
func (s *Store) TopUpRule(ctx context.Context, wallet credit.WalletID) (TopUpRuleRow, error) {
	return findTopUpRule(ctx, s.q, wallet)
}

// TopUp returns a top-up, or an Error coded topup_not_found.
func (s *Store) TopUp(ctx context.Context, id credit.TopUpID) (TopUpRow, error) {
	return findTopUp(ctx, s.q, id)
}

// TopUpPage returns up to n top-ups below an id, newest first.
func (s *Store) TopUpPage(ctx context.Context, f TopUpFilter, before credit.TopUpID, n int) ([]TopUpRow, error) {
	rows, err := s.q.PageTopUps(ctx, sqlc.PageTopUpsParams{Before: below(before), CustomerID: uuidOf(f.Customer), WalletID: uuidOf(f.Wallet), Status: textOf(f.Status),
		PageSize: int32(n)})
	return page(rows, err, "read top-ups", func(r sqlc.PageTopUpsRow) TopUpRow { return topUpRow(sqlc.FindTopUpRow(r)) })
}

// TopUpsToEnd returns up to n top-ups after one that were begun before an instant and are not at their end, in order.
func (s *Store) TopUpsToEnd(ctx context.Context, begunBefore time.Time, after credit.TopUpID, n int) ([]credit.TopUpID, error) {
	rows, err := s.q.TopUpsToEnd(ctx, timeOf(begunBefore), keyOf(after), int32(n))
	return page(rows, err, "read unfinished top-ups", func(id pgtype.UUID) credit.TopUpID { return id.Bytes })
}

// TopUpCustomersToLookAt returns up to n customers after one with a rule that time has something to say about, in order.
func (s *Store) TopUpCustomersToLookAt(ctx context.Context, after credit.CustomerID, n int) ([]credit.CustomerID, error) {
	rows, err := s.q.TopUpCustomersToLookAt(ctx, keyOf(after), int32(n))
	return page(rows, err, "read customers with a top-up rule", customerIDOf)
}

// SetTopUpRule says what a wallet buys by itself from now on. What the rule before waits for stays, but for the monthly cap; a top-up that is under
// way stays as it is.
func (c *Catalog) SetTopUpRule(ctx context.Context, wallet credit.WalletID, customer credit.CustomerID, r topup.Rule) (TopUpRuleRow, error) {
	err := c.q.SetTopUpRule(ctx, sqlc.SetTopUpRuleParams{WalletID: uuidOf(wallet), CustomerID: uuidOf(customer), Threshold: int64(r.Threshold), Amount: int64(r.Amount),
		PriceMinor: r.Price.Minor, TaxMinor: r.Tax, Currency: r.Price.Currency, ExpiresAfterS: positiveOrNull(int64(r.ExpiresAfter / time.Second)),
		CooldownS: int64(r.Cooldown / time.Second), TimeoutS: int64(r.Timeout / time.Second), MonthlyCount: int32(r.MonthlyCount), MonthlyMinor: positiveOrNull(r.MonthlyMoney)})
	if err != nil {
		return TopUpRuleRow{}, wrap(err, "set top-up rule")
	}
	return findTopUpRule(ctx, c.q, wallet)
}

// DropTopUpRule takes a wallet's rule away and returns it as it was. A top-up that is under way goes on.
func (c *Catalog) DropTopUpRule(ctx context.Context, wallet credit.WalletID) (TopUpRuleRow, error) {
	if _, err := c.q.LockTopUpRule(ctx, uuidOf(wallet)); err != nil {
		return TopUpRuleRow{}, found(err, noTopUpRule(wallet), "lock top-up rule")
	}
	r, err := findTopUpRule(ctx, c.q, wallet)
	if err != nil {
		return r, err
	}
	return r, wrap(c.q.DropTopUpRule(ctx, uuidOf(wallet)), "drop top-up rule")
}

// ResumeTopUps lets a rule go on that stopped, or that waits after failures: it is judged at once, and its failures are forgotten. Any other is
// refused with topup_state.
func (c *Catalog) ResumeTopUps(ctx context.Context, wallet credit.WalletID) (TopUpRuleRow, error) {
	row, err := c.q.LockTopUpRule(ctx, uuidOf(wallet))
	if err != nil {
		return TopUpRuleRow{}, found(err, noTopUpRule(wallet), "lock top-up rule")
	}
	r, err := findTopUpRule(ctx, c.q, wallet)
	if err != nil {
		return r, err
	}
	if w := topup.Wait(row.Wait.String); w != topup.Resume && w != topup.BackOff {
		return r, credit.Errorf(credit.TopUpState, "The top-ups of the wallet have not stopped.").With("state", r.State())
	}
	if err := setTopUpWait(ctx, c.q, wallet, waiting{lookAt: r.ReadAt}); err != nil {
		return r, err
	}
	return findTopUpRule(ctx, c.q, wallet)
}

// waiting is what a rule waits for.
type waiting struct {
	wait     topup.Wait
	until    time.Time
	failures int
	lookAt   time.Time // zero: never
}

func setTopUpWait(ctx context.Context, q *sqlc.Queries, wallet credit.WalletID, w waiting) error {
	return wrap(q.SetTopUpWait(ctx, sqlc.SetTopUpWaitParams{Wait: textOf(string(w.wait)), WaitUntil: timeOf(w.until), Failures: int32(w.failures), LookAt: timeOf(w.lookAt),
		WalletID: uuidOf(wallet)}), "note what a top-up rule waits for")
}

// JudgeTopUps judges the rules of a customer in a transaction that holds its usage mark, at an instant, zero: now by the clock of Postgres. They are
// judged by the credits that there are now, whatever the operations that brought them about: what was bought meanwhile is not bought again.
func (s *Store) JudgeTopUps(ctx context.Context, tx pgx.Tx, customer credit.CustomerID, at time.Time) error {
	q := s.q.WithTx(tx)
	rows, err := q.LockTopUpRules(ctx, uuidOf(customer))
	if err != nil {
		return fmt.Errorf("lock top-up rules: %w", err)
	}
	var events []EventRow
	for _, row := range rows {
		zone, err := time.LoadLocation(row.TimeZone)
		if err != nil {
			return fmt.Errorf("read calendar of customer %s: %w", customer, err)
		}
		now := at
		if now.IsZero() {
			now = fromTime(row.ReadAt)
		}
		told, err := judgeTopUp(ctx, q, topUpRuleRow(row.TopUpRule), now, zone)
		if err != nil {
			return fmt.Errorf("judge top-ups of wallet %s: %w", credit.WalletID(row.TopUpRule.WalletID.Bytes), err)
		}
		events = append(events, told...)
	}
	if len(events) == 0 {
		return nil
	}
	return addEvents(ctx, q, events...)
}

// judgeTopUp judges one rule, which is locked, and returns what is to be told.
func judgeTopUp(ctx context.Context, q *sqlc.Queries, r TopUpRuleRow, at time.Time, zone *time.Location) ([]EventRow, error) {
	month, monthEnds := topup.Month(at, zone)
	st, err := q.TopUpStanding(ctx, uuidOf(r.Wallet), timeOf(at), month)
	if err != nil {
		return nil, err
	}
	w := waiting{r.Wait, r.Until, r.Failures, time.Time{}}
	switch r.Judge(topup.Standing{Available: credit.Amount(st.Available), InFlight: st.InFlight, Wait: r.Wait, Until: r.Until, Count: int(st.Count), Money: st.Money}, at) {
	case topup.Begin:
		if err := beginTopUp(ctx, q, r, credit.Amount(st.Available), month, at); err != nil {
			return nil, err
		}
		return nil, setTopUpWait(ctx, q, r.Wallet, waiting{failures: r.Failures})
	case topup.Capped:
		again := r.Wait == topup.MonthlyCap && r.Until.Equal(monthEnds)
		if again && r.LookAt.Equal(monthEnds) {
			return nil, nil
		}
		w.wait, w.until, w.lookAt = topup.MonthlyCap, monthEnds, monthEnds
		if err := setTopUpWait(ctx, q, r.Wallet, w); err != nil || again {
			return nil, err
		}
		e, err := pausedEvent(ctx, q, r.Wallet)
		return []EventRow{e}, err
	}
	if (r.Wait == topup.Cooldown || r.Wait == topup.BackOff) && at.Before(r.Until) {
		w.lookAt = r.Until
	}
	if w.lookAt.Equal(r.LookAt) {
		return nil, nil
	}
	return nil, setTopUpWait(ctx, q, r.Wallet, w)
}

// beginTopUp writes a top-up down and asks for its workflow.
func beginTopUp(ctx context.Context, q *sqlc.Queries, r TopUpRuleRow, available credit.Amount, month string, at time.Time) error {
	id := credit.NewID[credit.TopUpID]()
	p := sqlc.AddTopUpParams{ID: uuidOf(id), WalletID: uuidOf(r.Wallet), CustomerID: uuidOf(r.Customer), GrantID: uuidOf(credit.DerivedID[credit.GrantID]("topup/" + id.String())),
		Threshold: int64(r.Threshold), Available: int64(available), Amount: int64(r.Amount), PriceMinor: r.Price.Minor, TaxMinor: r.Tax, Currency: r.Price.Currency,
		Attempt: int32(r.Failures + 1), Month: month, TimeoutS: int64(r.Timeout / time.Second), RequestedAt: timeOf(at)}
	if r.ExpiresAfter > 0 {
		p.GrantExpiresAt = timeOf(at.Add(r.ExpiresAfter))
	}
	if err := q.AddTopUp(ctx, p); err != nil {
		return fmt.Errorf("add top-up: %w", err)
	}
	return tellTopUp(ctx, q, "topup.start", id)
}

// tellTopUp asks for a top-up's workflow to be started, or to be told that something has changed.
func tellTopUp(ctx context.Context, q *sqlc.Queries, topic string, id credit.TopUpID) error {
	return wrap(q.AddOutbox(ctx, []string{topic}, []string{id.String()}, []string{"{}"}), "tell the top-up's workflow")
}

// LookAtTopUps judges the rules of a customer because time has come.
func (s *Store) LookAtTopUps(ctx context.Context, customer credit.CustomerID) error {
	return s.Tx(ctx, func(tx pgx.Tx) error {
		p := usagePass{q: s.q.WithTx(tx), tx: tx, customer: customer}
		if _, err := p.lockMark(ctx); err != nil {
			return err
		}
		return s.JudgeTopUps(ctx, tx, customer, time.Time{})
	})
}

// topUpChange is a top-up with its rule, both locked, in a transaction.
type topUpChange struct {
	q      *sqlc.Queries
	t      TopUpRow
	rule   *TopUpRuleRow // nil: the wallet has none any more
	events []EventRow
}

func lockTopUp(ctx context.Context, q *sqlc.Queries, id credit.TopUpID) (*topUpChange, error) {
	t, err := findTopUp(ctx, q, id)
	if err != nil {
		return nil, err
	}
	c := &topUpChange{q: q}
	switch r, err := q.LockTopUpRule(ctx, uuidOf(t.Wallet)); {
	case err == nil:
		c.rule = new(topUpRuleRow(r))
	case !errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("lock top-up rule: %w", err)
	}
	if err := q.LockTopUp(ctx, uuidOf(id)); err != nil {
		return nil, fmt.Errorf("lock top-up: %w", err)
	}
	c.t, err = findTopUp(ctx, q, id)
	return c, err
}

// decide writes an outcome down; ended says that nothing is left to do.
func (c *topUpChange) decide(ctx context.Context, status, ref, reason string, retry, ended bool) error {
	p := sqlc.DecideTopUpParams{Status: status, PaymentRef: textOf(ref), Reason: textOf(reason), Ended: ended, At: timeOf(c.t.ReadAt), ID: uuidOf(c.t.ID)}
	if status == TopUpFailed {
		p.Retry = pgtype.Bool{Bool: retry, Valid: true}
	}
	at := c.t.ReadAt
	if err := c.q.DecideTopUp(ctx, p); err != nil {
		return wrap(err, "decide top-up")
	}
	var err error
	if c.t, err = findTopUp(ctx, c.q, c.t.ID); err == nil {
		c.t.ReadAt = at // the instant of the whole change
	}
	return err
}

// failed has the rule wait after a failure, and tells that.
func (c *topUpChange) failed(ctx context.Context, kind string, retry bool) error {
	paused := false
	if c.rule != nil {
		w := waiting{wait: topup.Resume, failures: c.rule.Failures + 1}
		if retry {
			var d time.Duration
			if w.wait, d = topup.Failed(w.failures); w.wait != topup.Resume {
				w.until = c.t.ReadAt.Add(d)
				w.lookAt = w.until
			}
		}
		paused = w.wait == topup.Resume
		if err := setTopUpWait(ctx, c.q, c.t.Wallet, w); err != nil {
			return err
		}
	}
	if err := c.tell(ctx, kind); err != nil || !paused {
		return err
	}
	e, err := pausedEvent(ctx, c.q, c.t.Wallet)
	c.events = append(c.events, e)
	return err
}

// tell records an event about the top-up, with its rule as it stands.
func (c *topUpChange) tell(ctx context.Context, kind string) error {
	data := map[string]any{"top_up": c.t.Document()}
	if c.rule != nil {
		r, err := findTopUpRule(ctx, c.q, c.t.Wallet)
		if err != nil {
			return err
		}
		data["top_up_rule"] = r.Document()
	}
	b, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("write event %s: %w", kind, err)
	}
	c.events = append(c.events, EventRow{ID: credit.NewID[credit.EventID](), Customer: c.t.Customer, Type: kind, Subject: c.t.ID.String(), Data: b})
	return nil
}

// pausedEvent tells that a rule buys nothing for the time being.
func pausedEvent(ctx context.Context, q *sqlc.Queries, wallet credit.WalletID) (EventRow, error) {
	r, err := findTopUpRule(ctx, q, wallet)
	if err != nil {
		return EventRow{}, err
	}
	return newEvent(r.Customer, "topup.paused", wallet.String(), "top_up_rule", r.Document())
}

func topUpState(t *TopUpRow, format string, args ...any) *credit.Error {
	return credit.Errorf(credit.TopUpState, format, args...).With("state", t.Status)
}

// SucceedTopUp writes down that the payment of a top-up has come; its workflow then issues the credits. The same outcome again is answered as things
// stand. A contradiction is refused with topup_state, and so is one that comes after the top-up has expired: the credits are not issued, and the
// payment is to be given back.
func (c *Catalog) SucceedTopUp(ctx context.Context, id credit.TopUpID, paymentRef string) (TopUpRow, error) {
	x, err := lockTopUp(ctx, c.q, id)
	if err != nil {
		return TopUpRow{}, err
	}
	switch t := &x.t; t.Status {
	case TopUpRequested:
	case TopUpPaid, TopUpSucceeded:
		if t.PaymentRef != paymentRef {
			return *t, topUpState(t, "The top-up was paid by %q; this is another payment, to be given back.", t.PaymentRef)
		}
		return *t, nil
	case TopUpExpired:
		return *t, topUpState(t, "The top-up expired at %s: nobody had told its outcome. No credits are issued for this payment; give it back.",
			t.DecidedAt.Format(time.RFC3339))
	default:
		return *t, topUpState(t, "The top-up failed at %s: %s. No credits are issued for this payment; give it back.", t.DecidedAt.Format(time.RFC3339), t.Reason)
	}
	if err := x.decide(ctx, TopUpPaid, paymentRef, "", false, false); err != nil {
		return x.t, err
	}
	return x.t, tellTopUp(ctx, c.q, "topup.signal", id)
}

// FailTopUp writes down that a payment was declined. With retry the rule tries again later, less and less often, and stops after the fourth failure;
// without, it stops at once. The same outcome again is answered as things stand; another, also after the expiry, is refused with topup_state.
func (c *Catalog) FailTopUp(ctx context.Context, id credit.TopUpID, reason string, retry bool) (TopUpRow, error) {
	x, err := lockTopUp(ctx, c.q, id)
	if err != nil {
		return TopUpRow{}, err
	}
	switch t := &x.t; {
	case t.Status == TopUpFailed && t.Retry == retry:
		return *t, nil
	case t.Status == TopUpFailed:
		return *t, topUpState(t, "The top-up failed at %s, and whether to try again was decided then.", t.DecidedAt.Format(time.RFC3339))
	case t.Status == TopUpExpired:
		return *t, topUpState(t, "The top-up expired at %s.", t.DecidedAt.Format(time.RFC3339))
	case t.Status != TopUpRequested:
		return *t, topUpState(t, "The top-up was paid by %q. What was paid and is to be taken back is refunded.", t.PaymentRef)
	}
	if err := x.decide(ctx, TopUpFailed, "", reason, retry, false); err != nil {
		return x.t, err
	}
	if err := x.failed(ctx, "topup.failed", retry); err != nil {
		return x.t, err
	}
	c.events = append(c.events, x.events...)
	return x.t, tellTopUp(ctx, c.q, "topup.signal", id)
}

// changeTopUp makes a change of a top-up and returns it as it is then.
func (s *Store) changeTopUp(ctx context.Context, id credit.TopUpID, change func(*topUpChange) error) (t TopUpRow, err error) {
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		c, err := lockTopUp(ctx, s.q.WithTx(tx), id)
		if err != nil {
			return err
		}
		if err := change(c); err != nil {
			return err
		}
		t = c.t
		if len(c.events) == 0 {
			return nil
		}
		return addEvents(ctx, c.q, c.events...)
	})
	return t, err
}

// AskForTopUp tells, once, that the payment of a top-up is to be made, from when on it may time out. One that is decided already is not told.
func (s *Store) AskForTopUp(ctx context.Context, id credit.TopUpID) (TopUpRow, error) {
	return s.changeTopUp(ctx, id, func(c *topUpChange) (err error) {
		if c.t.Status != TopUpRequested || !c.t.AskedAt.IsZero() {
			return nil
		}
		if err := c.q.AskForTopUp(ctx, uuidOf(id)); err != nil {
			return wrap(err, "ask for a top-up")
		}
		if c.t, err = findTopUp(ctx, c.q, id); err != nil {
			return err
		}
		return c.tell(ctx, "topup.requested")
	})
}

// ExpireTopUp ends a top-up of whose outcome nobody told in time; before that, and when it is decided, it changes nothing. It counts as a failure.
func (s *Store) ExpireTopUp(ctx context.Context, id credit.TopUpID) (TopUpRow, error) {
	return s.changeTopUp(ctx, id, func(c *topUpChange) error {
		if c.t.Status != TopUpRequested || c.t.AskedAt.IsZero() || c.t.ReadAt.Before(c.t.TimesOutAt) {
			return nil
		}
		if err := c.decide(ctx, TopUpExpired, "", "", false, false); err != nil {
			return err
		}
		return c.failed(ctx, "topup.expired", true)
	})
}

// FinishTopUp writes down that the credits of a paid top-up were issued; the rule's cooldown begins.
func (s *Store) FinishTopUp(ctx context.Context, id credit.TopUpID) (TopUpRow, error) {
	return s.changeTopUp(ctx, id, func(c *topUpChange) error {
		if c.t.Status != TopUpPaid {
			return nil
		}
		if err := c.decide(ctx, TopUpSucceeded, "", "", false, true); err != nil {
			return err
		}
		if c.rule != nil {
			w := waiting{lookAt: c.t.ReadAt}
			if c.rule.Cooldown > 0 {
				w.lookAt = c.t.ReadAt.Add(c.rule.Cooldown)
				w.wait, w.until = topup.Cooldown, w.lookAt
			}
			if err := setTopUpWait(ctx, c.q, c.t.Wallet, w); err != nil {
				return err
			}
		}
		return c.tell(ctx, "topup.succeeded")
	})
}

// AbandonTopUp ends a top-up whose grant cannot be made or issued any more, paid or not. The rule stops until somebody has looked.
func (s *Store) AbandonTopUp(ctx context.Context, id credit.TopUpID, reason string) (TopUpRow, error) {
	return s.changeTopUp(ctx, id, func(c *topUpChange) error {
		if c.t.Status != TopUpRequested && c.t.Status != TopUpPaid {
			return nil
		}
		if err := c.decide(ctx, TopUpFailed, "", reason, false, false); err != nil {
			return err
		}
		return c.failed(ctx, "topup.failed", false)
	})
}

// EndTopUp writes down that nothing is left to do about a top-up that failed or expired.
func (s *Store) EndTopUp(ctx context.Context, id credit.TopUpID) error {
	return wrap(s.q.EndTopUp(ctx, uuidOf(id)), "end top-up")
}
