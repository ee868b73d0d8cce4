package api

import (
	"context"
	"net/http"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	rules "github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db"
)

// signatureDocument says who prepared and who approved something.
type signatureDocument struct {
	PreparedBy string  `json:"prepared_by"`
	PreparedAt string  `json:"prepared_at"`
	ApprovedBy *string `json:"approved_by"` // null, like the next: nobody has, and it decides nothing
	ApprovedAt *string `json:"approved_at"`
}

func describeSignatures(s db.Signatures) signatureDocument {
	d := signatureDocument{PreparedBy: actorText(s.PreparedBy), PreparedAt: instantText(s.PreparedAt)}
	if !s.ApprovedAt.IsZero() {
		by, at := actorText(s.ApprovedBy), instantText(s.ApprovedAt)
		d.ApprovedBy, d.ApprovedAt = &by, &at
	}
	return d
}

type policyDocument struct {
	ID          credit.PolicyID `json:"id"`
	LegalEntity string          `json:"legal_entity"`
	Version     int             `json:"version"`
	Unit        *string         `json:"unit"`
	FirstPeriod string          `json:"first_period"`
	Breakage    string          `json:"breakage"`
	UseTaxRate  string          `json:"use_tax_rate"`
	EscheatRate string          `json:"escheat_rate"`
	Evidence    string          `json:"evidence"`
	signatureDocument
}

func describePolicy(p db.PolicyRow) policyDocument {
	return policyDocument{p.ID, p.Entity, p.Version, orNull(p.Unit), string(p.From), string(p.Breakage), p.UseTax.Decimal().String(), p.Escheat.Decimal().String(),
		p.Evidence, describeSignatures(p.Signatures)}
}

// fraction reads a rate of 0 to 1.
func fraction(into *rules.Rate) func(*reader) error {
	return func(r *reader) error {
		s, err := r.decimalText()
		if err != nil {
			return err
		}
		var d decimal.Decimal
		plain := plainDecimal(s, 1, rules.RatePlaces)
		if plain {
			if d, err = decimal.NewFromString(s); err != nil {
				return err
			}
		}
		if *into, err = rules.NewRate(d); err != nil || !plain {
			return r.refuse("This is a rate of 0 to 1 with at most %d decimal places, such as \"0.04\".", rules.RatePlaces)
		}
		return nil
	}
}

const maxEvidence = 1000

// createPolicy is POST /v1/finance/policies: prepares a version of an entity's accounting policy.
func (s *Server) createPolicy(ctx context.Context, c *call) error {
	p := db.PolicyRow{ID: credit.NewID[credit.PolicyID](), Policy: rules.Policy{Breakage: rules.Remote}}
	p.PreparedBy = c.caller.no
	if err := c.input(
		required("legal_entity", matching(&p.Entity, isCode, codeForm)),
		optional("unit", nullable(matching(&p.Unit, unitCode, unitForm))),
		required("first_period", parsed(&p.From, ledger.ParsePeriod)),
		optional("breakage", word(&p.Breakage, rules.Remote, rules.Proportional)),
		optional("use_tax_rate", fraction(&p.UseTax)),
		optional("escheat_rate", fraction(&p.Escheat)),
		required("evidence", text(&p.Evidence, maxEvidence)),
	); err != nil {
		return err
	}
	return c.change(ctx, "create_policy", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddPolicy(ctx, p)
		if err != nil {
			return db.Outcome{}, err
		}
		return created(row.ID.String(), describePolicy(row), describePolicy(row))
	})
}

// approvePolicy is POST /v1/finance/policies/{policy}/approve, by somebody else than who prepared it.
func (s *Server) approvePolicy(ctx context.Context, c *call) error {
	id, err := pathID(c, "policy", credit.ParseID[credit.PolicyID])
	if err != nil {
		return err
	}
	if err := c.input(); err != nil {
		return err
	}
	return c.change(ctx, "approve_policy", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.ApprovePolicy(ctx, id, c.caller.no)
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(id.String(), describePolicy(row), describePolicy(row))
	})
}

// listPolicies is GET /v1/finance/policies, newest version first.
func (s *Server) listPolicies(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, query.numberCursor, "legal_entity")
	if err != nil {
		return err
	}
	entity, err := s.knownEntity(ctx, q)
	if err != nil {
		return err
	}
	rows, err := s.store.PolicyPage(ctx, entity, int(min(before, 1<<31-1)), limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describePolicy, func(p db.PolicyRow) cursor { return afterNumber(int64(p.Version)) })
}

// knownEntity reads the legal entity that a list is about, which must exist.
func (s *Server) knownEntity(ctx context.Context, q query) (string, error) {
	entity, err := q.entity()
	if err == nil {
		_, err = s.store.Entity(ctx, entity)
	}
	return entity, err
}

type estimateDocument struct {
	ID          credit.EstimateID `json:"id"`
	LegalEntity string            `json:"legal_entity"`
	Version     int               `json:"version"`
	Unit        string            `json:"unit"`
	ExpiresIn   *string           `json:"expires_in"`
	FirstPeriod string            `json:"first_period"`
	ExpectedUse string            `json:"expected_use"`
	Method      string            `json:"method"`
	Evidence    string            `json:"evidence"`
	signatureDocument
}

func describeEstimate(e db.EstimateRow) estimateDocument {
	return estimateDocument{e.ID, e.Entity, e.Version, e.Unit, orNull(string(e.ExpiresIn)), string(e.From), e.Use.Decimal().String(), e.Method, e.Evidence,
		describeSignatures(e.Signatures)}
}

// parseExpiry reads a month of expiry, or "never".
func parseExpiry(s string) (ledger.Period, error) {
	if ledger.Period(s) == rules.Never {
		return rules.Never, nil
	}
	return ledger.ParsePeriod(s)
}

// createEstimate is POST /v1/finance/breakage_estimates: prepares an estimate of how much of some credits will be used.
func (s *Server) createEstimate(ctx context.Context, c *call) error {
	e := db.EstimateRow{ID: credit.NewID[credit.EstimateID]()}
	e.PreparedBy = c.caller.no
	if err := c.input(
		required("legal_entity", matching(&e.Entity, isCode, codeForm)),
		required("unit", matching(&e.Unit, unitCode, unitForm)),
		optional("expires_in", nullable(parsed(&e.ExpiresIn, parseExpiry))),
		required("first_period", parsed(&e.From, ledger.ParsePeriod)),
		required("expected_use", fraction(&e.Use)),
		required("method", text(&e.Method, maxEvidence)),
		required("evidence", text(&e.Evidence, maxEvidence)),
	); err != nil {
		return err
	}
	if e.Use.IsZero() {
		return credit.Invalid("/expected_use", "Something is expected to be used: the rate is above zero.")
	}
	return c.change(ctx, "create_breakage_estimate", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddEstimate(ctx, e)
		if err != nil {
			return db.Outcome{}, err
		}
		return created(row.ID.String(), describeEstimate(row), describeEstimate(row))
	})
}

// approveEstimate is POST /v1/finance/breakage_estimates/{estimate}/approve, by somebody else than who prepared it.
func (s *Server) approveEstimate(ctx context.Context, c *call) error {
	id, err := pathID(c, "estimate", credit.ParseID[credit.EstimateID])
	if err != nil {
		return err
	}
	if err := c.input(); err != nil {
		return err
	}
	return c.change(ctx, "approve_breakage_estimate", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.ApproveEstimate(ctx, id, c.caller.no)
		if err != nil {
			return db.Outcome{}, err
		}
		return changed(id.String(), describeEstimate(row), describeEstimate(row))
	})
}

// listEstimates is GET /v1/finance/breakage_estimates, newest version first.
func (s *Server) listEstimates(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, query.numberCursor, "legal_entity")
	if err != nil {
		return err
	}
	entity, err := s.knownEntity(ctx, q)
	if err != nil {
		return err
	}
	rows, err := s.store.EstimatePage(ctx, entity, int(min(before, 1<<31-1)), limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeEstimate, func(e db.EstimateRow) cursor { return afterNumber(int64(e.Version)) })
}

type adjustmentDocument struct {
	Unit            string          `json:"unit"`
	ExpiresIn       string          `json:"expires_in"`
	Period          string          `json:"period"`
	PolicyVersion   int             `json:"policy_version"`
	EstimateVersion *int            `json:"estimate_version"`
	ExpectedUse     *string         `json:"expected_use"`
	Price           string          `json:"price"`
	Used            string          `json:"used"`
	Expired         string          `json:"expired"`
	Before          string          `json:"before"`
	Amount          string          `json:"amount"`
	After           string          `json:"after"`
	EntryID         *credit.EntryID `json:"entry_id"`
}

func describeAdjustment(currency string) func(db.Adjustment) adjustmentDocument {
	return func(a db.Adjustment) adjustmentDocument {
		d := adjustmentDocument{Unit: a.Unit, ExpiresIn: string(a.ExpiresIn), Period: string(a.Period), PolicyVersion: a.Policy,
			Price: moneyText(a.Price, currency), Used: moneyText(a.Used, currency), Expired: moneyText(a.Expired, currency), Before: moneyText(a.Adjusted, currency),
			Amount: moneyText(a.Amount, currency), After: moneyText(a.Adjusted+a.Amount, currency)}
		if a.Estimate != 0 {
			use := a.Use.Decimal().String()
			d.EstimateVersion, d.ExpectedUse = &a.Estimate, &use
		}
		if !a.Entry.IsZero() {
			d.EntryID = &a.Entry
		}
		return d
	}
}

type missingDocument struct {
	Unit      string `json:"unit"`
	ExpiresIn string `json:"expires_in"`
}

type breakageRun struct {
	LegalEntity string               `json:"legal_entity"`
	Currency    string               `json:"currency"`
	Period      string               `json:"period"`
	Adjustments []adjustmentDocument `json:"adjustments"` // made by this call
	Missing     []missingDocument    `json:"missing"`     // cohorts that an estimate is missing for
}

// adjustBreakage is POST /v1/finance/breakage_adjustments: the adjustments of a period. It posts nothing twice, so it needs no key and may be repeated.
func (s *Server) adjustBreakage(ctx context.Context, c *call) error {
	var code string
	var period ledger.Period
	if err := c.input(required("legal_entity", matching(&code, isCode, codeForm)), required("period", parsed(&period, ledger.ParsePeriod))); err != nil {
		return err
	}
	books, err := s.store.Entity(ctx, code)
	if err != nil {
		return in("/legal_entity", err)
	}
	run, err := s.store.AdjustBreakage(ctx, code, period)
	if err != nil {
		return err
	}
	doc := breakageRun{LegalEntity: code, Currency: books.Currency, Period: string(period), Adjustments: []adjustmentDocument{}, Missing: []missingDocument{}}
	describe := describeAdjustment(books.Currency)
	for _, a := range run.Adjustments {
		doc.Adjustments = append(doc.Adjustments, describe(a))
	}
	for _, m := range run.Missing {
		doc.Missing = append(doc.Missing, missingDocument{m.Unit, string(m.ExpiresIn)})
	}
	_, _, err = s.store.Change(ctx, db.Audited{Actor: c.caller.no, RequestID: c.id, Action: "adjust_breakage"}, func(context.Context, *db.Catalog) (db.Outcome, error) {
		return db.Outcome{Status: http.StatusOK, Subject: code + "/" + string(period), Detail: map[string]int{"adjustments": len(doc.Adjustments), "missing": len(doc.Missing)}}, nil
	})
	if err != nil {
		return err
	}
	return c.document(doc)
}

// breakageLog is GET /v1/finance/breakage_adjustments: the true-up log, in order of period and cohort.
func (s *Server) breakageLog(ctx context.Context, c *call) error {
	q, err := c.query("legal_entity", "period")
	if err != nil {
		return err
	}
	code, err := q.entity()
	if err != nil {
		return err
	}
	period, err := queryID(q, "period", ledger.ParsePeriod)
	if err != nil {
		return err
	}
	books, err := s.store.Entity(ctx, code)
	if err != nil {
		return err
	}
	rows, err := s.store.BreakageLog(ctx, code, period)
	if err != nil {
		return err
	}
	return answerPage(c, rows, len(rows), describeAdjustment(books.Currency), nil)
}
