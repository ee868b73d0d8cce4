package db

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

type (
	// Signatures says who prepared something and who approved it. Numbers of API keys; a zero ApprovedAt: nobody has yet, and it decides nothing.
	Signatures struct {
		PreparedBy, ApprovedBy int32
		PreparedAt, ApprovedAt time.Time
	}
	// PolicyRow is a version of an entity's accounting policy.
	PolicyRow struct {
		recognition.Policy
		Signatures
		ID               credit.PolicyID
		Entity, Evidence string
	}
	// EstimateRow is a version of an entity's estimates of how much of some credits will be used.
	EstimateRow struct {
		recognition.Estimate
		Signatures
		ID                       credit.EstimateID
		Entity, Method, Evidence string
	}
)

func signatures(preparedBy int32, preparedAt pgtype.Timestamptz, approvedBy pgtype.Int4, approvedAt pgtype.Timestamptz) Signatures {
	return Signatures{PreparedBy: preparedBy, PreparedAt: fromTime(preparedAt), ApprovedBy: approvedBy.Int32, ApprovedAt: fromTime(approvedAt)}
}

// approvable refuses who prepared it, and a second approval.
func (s Signatures) approvable(by int32) error {
	switch {
	case s.PreparedBy == by:
		return credit.Errorf(credit.SelfApproval, "It was prepared with the same API key.")
	case !s.ApprovedAt.IsZero():
		return credit.Errorf(credit.AlreadyExists, "It was approved at %s.", s.ApprovedAt.Format(time.RFC3339))
	}
	return nil
}

func policyRow(p sqlc.AccountingPolicy, approvedBy pgtype.Int4, approvedAt pgtype.Timestamptz) (PolicyRow, error) {
	rule, err := policyRule(sqlc.ApprovedPoliciesRow{Version: p.Version, Unit: p.Unit, FirstPeriod: p.FirstPeriod, Breakage: p.Breakage, UseTax: p.UseTax, Escheat: p.Escheat})
	return PolicyRow{Policy: rule, Signatures: signatures(p.PreparedBy, p.PreparedAt, approvedBy, approvedAt), ID: p.ID.Bytes, Entity: p.Entity, Evidence: p.Evidence}, err
}

func policyRule(p sqlc.ApprovedPoliciesRow) (recognition.Policy, error) {
	tax, err := recognition.NewRate(p.UseTax)
	if err != nil {
		return recognition.Policy{}, err
	}
	escheat, err := recognition.NewRate(p.Escheat)
	return recognition.Policy{Version: int(p.Version), Unit: p.Unit.String, From: ledger.Period(p.FirstPeriod), Breakage: recognition.Method(p.Breakage),
		UseTax: tax, Escheat: escheat}, err
}

// AddPolicy prepares a version of an entity's accounting policy; it decides nothing until somebody else approves it. Version and PreparedAt are
// given here. It is refused with entity_not_found and unit_not_found.
func (c *Catalog) AddPolicy(ctx context.Context, p PolicyRow) (PolicyRow, error) {
	_, err := c.q.AddPolicy(ctx, sqlc.AddPolicyParams{
		ID: uuidOf(p.ID), Entity: p.Entity, Unit: textOf(p.Unit), FirstPeriod: string(p.From), Breakage: string(p.Breakage), UseTax: p.UseTax.Decimal(),
		Escheat: p.Escheat.Decimal(), Evidence: p.Evidence, PreparedBy: p.PreparedBy,
	})
	if err != nil {
		return p, wrap(err, "add policy")
	}
	return findPolicy(ctx, c.q, p.ID)
}

// ApprovePolicy puts a policy in force. It is refused with policy_not_found; self_approval, to who prepared it; already_exists, when it was
// approved before; and policy_too_late, when something is booked in its first period or a later one, for what is booked is decided.
func (c *Catalog) ApprovePolicy(ctx context.Context, id credit.PolicyID, by int32) (PolicyRow, error) {
	p, err := findPolicy(ctx, c.q, id)
	if err != nil {
		return p, err
	}
	if err := p.approvable(by); err != nil {
		return p, err
	}
	// Whoever posts into the period holds its row until the commit, and reads the policies after that: either the entry is seen here, or the policy there.
	if _, err := lockPeriod(ctx, c.q, p.Entity, p.From); err != nil {
		return p, err
	}
	booked, err := c.q.BookedSince(ctx, p.Entity, string(p.From))
	switch {
	case err != nil:
		return p, wrap(err, "look for entries")
	case booked:
		return p, credit.Errorf(credit.PolicyTooLate, "Something is booked in %s or later already.", p.From)
	}
	if err := c.q.ApprovePolicy(ctx, uuidOf(id), p.PreparedBy, by); err != nil {
		return p, wrap(err, "approve policy")
	}
	return findPolicy(ctx, c.q, id)
}

// lockPeriod keeps everybody from posting into a period until the transaction ends, and returns its status.
func lockPeriod(ctx context.Context, q *sqlc.Queries, entity string, p ledger.Period) (recognition.Status, error) {
	if err := q.AddPeriod(ctx, entity, string(p)); err != nil {
		return "", wrap(err, "open period")
	}
	row, err := q.LockPeriod(ctx, entity, string(p))
	return recognition.Status(row.Status), wrap(err, "lock period")
}

func findPolicy(ctx context.Context, q *sqlc.Queries, id credit.PolicyID) (PolicyRow, error) {
	r, err := q.FindPolicy(ctx, uuidOf(id))
	if err != nil {
		return PolicyRow{}, found(err, credit.Errorf(credit.PolicyNotFound, "There is no accounting policy %s.", id), "read policy")
	}
	return policyRow(r.AccountingPolicy, r.ApprovedBy, r.ApprovedAt)
}

// PolicyPage returns up to n policies of an entity below a version (0: the newest), newest first.
func (s *Store) PolicyPage(ctx context.Context, entity string, before, n int) ([]PolicyRow, error) {
	rows, err := s.q.PagePolicies(ctx, entity, int32(belowVersion(before)), int32(n))
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	out := make([]PolicyRow, len(rows))
	for i, r := range rows {
		if out[i], err = policyRow(r.AccountingPolicy, r.ApprovedBy, r.ApprovedAt); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func belowVersion(v int) int {
	if v == 0 {
		return 1<<31 - 1
	}
	return v
}

// approvedPolicies are those of an entity that decide something, in order of approval.
func approvedPolicies(ctx context.Context, q *sqlc.Queries, entity string) ([]recognition.Policy, error) {
	rows, err := q.ApprovedPolicies(ctx, entity)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	out := make([]recognition.Policy, len(rows))
	for i, r := range rows {
		if out[i], err = policyRule(r); err != nil {
			return nil, fmt.Errorf("policy %d of entity %s: %w", r.Version, entity, err)
		}
	}
	return out, nil
}

func estimateRow(e sqlc.BreakageEstimate, approvedBy pgtype.Int4, approvedAt pgtype.Timestamptz) (EstimateRow, error) {
	rule, err := estimateRule(sqlc.ApprovedEstimatesRow{Version: e.Version, Unit: e.Unit, ExpiresIn: e.ExpiresIn, FirstPeriod: e.FirstPeriod, ExpectedUse: e.ExpectedUse})
	return EstimateRow{Estimate: rule, Signatures: signatures(e.PreparedBy, e.PreparedAt, approvedBy, approvedAt), ID: e.ID.Bytes, Entity: e.Entity,
		Method: e.Method, Evidence: e.Evidence}, err
}

func estimateRule(e sqlc.ApprovedEstimatesRow) (recognition.Estimate, error) {
	use, err := recognition.NewRate(e.ExpectedUse)
	return recognition.Estimate{Version: int(e.Version), Unit: e.Unit, ExpiresIn: ledger.Period(e.ExpiresIn.String), From: ledger.Period(e.FirstPeriod), Use: use}, err
}

// AddEstimate prepares an estimate; it is for nothing until somebody else approves it. Version and PreparedAt are given here. It is refused
// with entity_not_found and unit_not_found.
func (c *Catalog) AddEstimate(ctx context.Context, e EstimateRow) (EstimateRow, error) {
	_, err := c.q.AddEstimate(ctx, sqlc.AddEstimateParams{
		ID: uuidOf(e.ID), Entity: e.Entity, Unit: e.Unit, ExpiresIn: textOf(string(e.ExpiresIn)), FirstPeriod: string(e.From), ExpectedUse: e.Use.Decimal(),
		Method: e.Method, Evidence: e.Evidence, PreparedBy: e.PreparedBy,
	})
	if err != nil {
		return e, wrap(err, "add estimate")
	}
	return findEstimate(ctx, c.q, e.ID)
}

// ApproveEstimate has the next runs use an estimate. It is refused with estimate_not_found, self_approval and already_exists, as a policy is.
// Periods that are past keep what was posted in them: a changed estimate is caught up in the period of the next run.
func (c *Catalog) ApproveEstimate(ctx context.Context, id credit.EstimateID, by int32) (EstimateRow, error) {
	e, err := findEstimate(ctx, c.q, id)
	if err != nil {
		return e, err
	}
	if err := e.approvable(by); err != nil {
		return e, err
	}
	if err := c.q.ApproveEstimate(ctx, uuidOf(id), e.PreparedBy, by); err != nil {
		return e, wrap(err, "approve estimate")
	}
	return findEstimate(ctx, c.q, id)
}

func findEstimate(ctx context.Context, q *sqlc.Queries, id credit.EstimateID) (EstimateRow, error) {
	r, err := q.FindEstimate(ctx, uuidOf(id))
	if err != nil {
		return EstimateRow{}, found(err, credit.Errorf(credit.EstimateNotFound, "There is no breakage estimate %s.", id), "read estimate")
	}
	return estimateRow(r.BreakageEstimate, r.ApprovedBy, r.ApprovedAt)
}

// EstimatePage returns up to n estimates of an entity below a version (0: the newest), newest first.
func (s *Store) EstimatePage(ctx context.Context, entity string, before, n int) ([]EstimateRow, error) {
	rows, err := s.q.PageEstimates(ctx, entity, int32(belowVersion(before)), int32(n))
	if err != nil {
		return nil, fmt.Errorf("read estimates: %w", err)
	}
	out := make([]EstimateRow, len(rows))
	for i, r := range rows {
		if out[i], err = estimateRow(r.BreakageEstimate, r.ApprovedBy, r.ApprovedAt); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Adjustment is what a run found of one cohort and posted to account 2019: one line of the true-up log. Minor units of the entity's currency.
type Adjustment struct {
	recognition.Cohort
	Unit      string
	ExpiresIn ledger.Period // or recognition.Never
	Period    ledger.Period // that it was posted in
	Policy    int           // version; 0: the defaults
	Estimate  int           // version; 0: none was needed
	Run       int           // 1, 2, … of the same cohort, period, policy and estimate
	Use       recognition.Rate
	Amount    int64          // 0: nothing was to be adjusted
	Entry     credit.EntryID // zero: nothing was posted
}

// BreakageRun is what [Store.AdjustBreakage] did.
type BreakageRun struct {
	Adjustments []Adjustment    // made by this call; nil: all had been made before
	Missing     []MissingCohort // of the proportional method and without an estimate: left as they are
}

// MissingCohort is a cohort that an estimate is missing for.
type MissingCohort struct {
	Unit      string
	ExpiresIn ledger.Period
}

// AdjustBreakage brings the breakage of an entity's cohorts, as booked up to the end of a period, to where the proportional method and the
// estimates in force want it, and posts the adjustments in that period, on its last day. Run again it posts nothing; what was booked since, and a new
// estimate, are caught up. Cohorts of the remote method are brought back to zero. Either all cohorts are adjusted or none; it is refused with entity_not_found, period_closed, when the period takes no
// entries, and estimate_exceeded, naming the cohort, when more was used than was expected to be.
func (s *Store) AdjustBreakage(ctx context.Context, entity string, period ledger.Period) (BreakageRun, error) {
	books, err := s.Entity(ctx, entity)
	if err != nil {
		return BreakageRun{}, err
	}
	var run BreakageRun
	err = s.Tx(ctx, func(tx pgx.Tx) error {
		run = BreakageRun{}
		q := s.q.WithTx(tx)
		status, err := lockPeriod(ctx, q, entity, period)
		if err != nil {
			return err
		}
		if !status.Accepts() {
			return credit.Errorf(credit.PeriodClosed, "Period %s is %s.", period, status)
		}
		due, missing, err := dueBreakage(ctx, q, books, period)
		if err != nil {
			return err
		}
		run.Missing = missing
		for i := range due {
			if err := due[i].post(ctx, q, books); err != nil {
				return err
			}
		}
		run.Adjustments = due
		return nil
	})
	if err != nil {
		return BreakageRun{}, wrap(err, "adjust breakage of "+entity)
	}
	return run, nil
}

// dueBreakage finds the adjustments that a period needs, and the cohorts that an estimate is missing for.
func dueBreakage(ctx context.Context, q *sqlc.Queries, books EntityRow, period ledger.Period) (due []Adjustment, missing []MissingCohort, err error) {
	policies, err := approvedPolicies(ctx, q, books.Code)
	if err != nil {
		return nil, nil, err
	}
	rows, err := q.ApprovedEstimates(ctx, books.Code)
	if err != nil {
		return nil, nil, fmt.Errorf("read estimates: %w", err)
	}
	estimates := make([]recognition.Estimate, len(rows))
	for i, r := range rows {
		if estimates[i], err = estimateRule(r); err != nil {
			return nil, nil, err
		}
	}
	cohorts, err := q.BreakageCohorts(ctx, books.Code, string(period), books.TimeZone)
	if err != nil {
		return nil, nil, fmt.Errorf("read cohorts: %w", err)
	}
	for _, c := range cohorts {
		a := Adjustment{
			Cohort: recognition.Cohort{Price: c.Paid, Used: c.Used, Expired: c.Expired, Adjusted: c.Adjusted},
			Unit:   c.Unit, ExpiresIn: ledger.Period(c.ExpiresIn), Period: period,
		}
		policy := recognition.PolicyFor(policies, a.Unit, period)
		a.Policy = policy.Version
		expected := recognition.Expectation{Use: 1, Of: 1}
		switch e, known := recognition.EstimateFor(estimates, a.Unit, a.ExpiresIn, period); {
		case a.Left() == 0 || policy.Breakage != recognition.Proportional:
			if a.Adjusted == 0 {
				continue
			}
		case !known:
			missing = append(missing, MissingCohort{a.Unit, a.ExpiresIn})
			continue
		default:
			a.Estimate, a.Use, expected = e.Version, e.Use, e.Expectation()
		}
		if a.Amount, err = a.Adjustment(expected); err != nil {
			var refusal *credit.Error
			if errors.As(err, &refusal) {
				err = refusal.With("cohort", a.cohort())
			}
			return nil, nil, err
		}
		runs, err := q.AdjustmentRuns(ctx, sqlc.AdjustmentRunsParams{
			Entity: books.Code, Unit: a.Unit, ExpiresIn: string(a.ExpiresIn), Period: string(a.Period), PolicyVersion: int32(a.Policy), EstimateVersion: int32(a.Estimate),
		})
		if err != nil {
			return nil, nil, fmt.Errorf("look for adjustments: %w", err)
		}
		if a.Run = int(runs) + 1; runs == 0 || a.Amount != 0 {
			due = append(due, a)
		}
	}
	return due, missing, nil
}

// cohort names the cohort of an adjustment as its posting does.
func (a *Adjustment) cohort() string { return a.Unit + " " + string(a.ExpiresIn) }

// post writes an adjustment and its entry.
func (a *Adjustment) post(ctx context.Context, q *sqlc.Queries, books EntityRow) error {
	cause := fmt.Sprintf("breakage/%s/%s/%s/%s/%d/%d", books.Code, a.Unit, a.ExpiresIn, a.Period, a.Policy, a.Estimate)
	if a.Run > 1 {
		cause += fmt.Sprintf("/%d", a.Run)
	}
	e := ledger.Breakage(ledger.Fact{
		Cause: cause, Entity: books.Code, Currency: books.Currency, Day: a.Period.Last(), Period: a.Period, Policy: a.Policy,
	}, a.cohort(), a.Amount)
	if !e.Empty() {
		if err := post(ctx, q, []ledger.Entry{e}); err != nil {
			return err
		}
		a.Entry = e.ID
	}
	err := q.AddAdjustment(ctx, sqlc.AddAdjustmentParams{
		Entity: books.Code, Unit: a.Unit, ExpiresIn: string(a.ExpiresIn), Period: string(a.Period), PolicyVersion: int32(a.Policy), EstimateVersion: int32(a.Estimate),
		Run: int32(a.Run), ExpectedUse: a.Use.Decimal(), Price: a.Price, Used: a.Used, Expired: a.Expired, Adjusted: a.Adjusted, Amount: a.Amount, EntryID: uuidOf(a.Entry),
	})
	if err != nil {
		return fmt.Errorf("write adjustment: %w", err)
	}
	return nil
}

// maxLog bounds how much of the true-up log is read at once.
const maxLog = 5000

// BreakageLog returns the true-up log of an entity, of one period or, when that is "", of all: up to 5,000 lines in order of period and cohort.
func (s *Store) BreakageLog(ctx context.Context, entity string, period ledger.Period) ([]Adjustment, error) {
	return breakageLog(ctx, s.q, entity, period, maxLog)
}

func breakageLog(ctx context.Context, q *sqlc.Queries, entity string, period ledger.Period, n int) ([]Adjustment, error) {
	rows, err := q.BreakageLog(ctx, entity, string(period), int32(n))
	if err != nil {
		return nil, fmt.Errorf("read breakage log: %w", err)
	}
	out := make([]Adjustment, len(rows))
	for i, r := range rows {
		use, err := recognition.NewRate(r.ExpectedUse)
		if err != nil {
			return nil, err
		}
		out[i] = Adjustment{
			Cohort: recognition.Cohort{Price: r.Price, Used: r.Used, Expired: r.Expired, Adjusted: r.Adjusted},
			Unit:   r.Unit, ExpiresIn: ledger.Period(r.ExpiresIn), Period: ledger.Period(r.Period), Policy: int(r.PolicyVersion), Estimate: int(r.EstimateVersion),
			Run: int(r.Run), Use: use, Amount: r.Amount, Entry: r.EntryID.Bytes,
		}
	}
	return out, nil
}
