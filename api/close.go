package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
)

type closeDocument struct {
	LegalEntity  string              `json:"legal_entity"`
	Period       string              `json:"period"`
	Version      int                 `json:"version"`
	Status       string              `json:"status"`
	PeriodStatus string              `json:"period_status"`
	Preparer     string              `json:"preparer"`
	PreparerName string              `json:"preparer_name"`
	StartedAt    string              `json:"started_at"`
	LateUntil    string              `json:"late_until"`
	PackHash     *string             `json:"pack_hash"` // null: it is being prepared
	Note         *string             `json:"note"`      // why it is prepared again
	Approver     *string             `json:"approver"`
	ApprovedAt   *string             `json:"approved_at"`
	ClosedAt     *string             `json:"closed_at"`
	Steps        []closeStepDocument `json:"steps,omitempty"` // on the status board
	Reopening    *reopeningDocument  `json:"reopening,omitempty"`
}

type closeStepDocument struct {
	Step      string          `json:"step"`
	Status    string          `json:"status"`
	BlockedBy *string         `json:"blocked_by"`
	Figures   json.RawMessage `json:"figures"`
	SHA256    string          `json:"sha256"`
	RunAt     string          `json:"run_at"`
}

type reopeningDocument struct {
	LegalEntity string  `json:"legal_entity"`
	Period      string  `json:"period"`
	Version     int     `json:"version"` // that was closed
	Reason      string  `json:"reason"`
	AskedBy     string  `json:"asked_by"`
	AskedAt     string  `json:"asked_at"`
	Approver    *string `json:"approver"` // null: another person has to approve it
	ApprovedAt  *string `json:"approved_at"`
}

func describeClose(r db.CloseRow) closeDocument {
	return closeDocument{LegalEntity: r.Entity, Period: string(r.Period), Version: r.Version, Status: r.Status, PeriodStatus: string(r.PeriodStatus),
		Preparer: actorText(r.Preparer), PreparerName: r.PreparerName, StartedAt: instantText(r.StartedAt), LateUntil: instantText(r.LateUntil),
		PackHash: orNull(r.PackHash), Note: orNull(r.Note), Approver: actorOrNull(r.Approver), ApprovedAt: instantOrNull(r.ApprovedAt), ClosedAt: instantOrNull(r.ClosedAt)}
}

func actorOrNull(no int32) *string {
	if no == 0 {
		return nil
	}
	text := actorText(no)
	return &text
}

func describeReopening(r db.ReopeningRow) reopeningDocument {
	return reopeningDocument{r.Entity, string(r.Period), r.Version, r.Reason, actorText(r.AskedBy), instantText(r.AskedAt), actorOrNull(r.Approver), instantOrNull(r.ApprovedAt)}
}

// pathPeriod returns the entity and the period that the path names.
func pathPeriod(c *call) (entity string, period ledger.Period, err error) {
	if entity, err = c.pathText("legal_entity"); err != nil {
		return "", "", err
	}
	period, err = pathID(c, "period", ledger.ParsePeriod)
	return entity, period, err
}

// changePeriod makes a change of a period, and answers with what it returns.
func (s *Server) changePeriod(ctx context.Context, c *call, action string, status int, detail map[string]string,
	do func(ctx context.Context, cat *db.Catalog, entity string, period ledger.Period) (any, error)) error {
	entity, period, err := pathPeriod(c)
	if err != nil {
		return err
	}
	subject := entity + "/" + string(period)
	return c.change(ctx, action, subject, func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		doc, err := do(ctx, cat, entity, period)
		if err != nil {
			return db.Outcome{}, err
		}
		o, err := created(subject, doc, detail)
		o.Status = status
		return o, err
	})
}

// startClose is POST /v1/finance/periods/{legal_entity}/{period}/close. A close that runs is answered as it is.
func (s *Server) startClose(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	return s.changePeriod(ctx, c, "start_close", http.StatusAccepted, nil, func(ctx context.Context, cat *db.Catalog, entity string, p ledger.Period) (any, error) {
		r, err := cat.StartClose(ctx, entity, p, c.caller.no)
		return describeClose(r), err
	})
}

// closeBoard is GET /v1/finance/periods/{legal_entity}/{period}/close.
func (s *Server) closeBoard(ctx context.Context, c *call) error {
	r, err := s.pathClose(ctx, c)
	if err != nil {
		return err
	}
	d := describeClose(r)
	steps, err := s.store.Steps(ctx, r.CloseKey)
	if err != nil {
		return err
	}
	for _, st := range steps {
		d.Steps = append(d.Steps, closeStepDocument{st.Step, st.Status, orNull(st.BlockedBy), st.Figures, st.SHA256, instantText(st.RunAt)})
	}
	switch asked, err := s.store.Reopening(ctx, r.CloseKey); {
	case err == nil:
		reopening := describeReopening(asked)
		d.Reopening = &reopening
	case credit.CodeOf(err) != credit.NotFound:
		return err
	}
	return c.document(d)
}

// pathClose reads the close that path and query name.
func (s *Server) pathClose(ctx context.Context, c *call) (db.CloseRow, error) {
	q, err := c.query("version")
	if err != nil {
		return db.CloseRow{}, err
	}
	entity, period, err := pathPeriod(c)
	if err != nil {
		return db.CloseRow{}, err
	}
	version, err := queryID(q, "version", parseVersion)
	if err != nil {
		return db.CloseRow{}, err
	}
	if _, err := s.store.Entity(ctx, entity); err != nil {
		return db.CloseRow{}, err
	}
	return s.store.PeriodClose(ctx, db.CloseKey{Entity: entity, Period: period, Version: version})
}

// closePack is GET /v1/finance/periods/{legal_entity}/{period}/close/pack: the bytes whose SHA-256 is the pack hash.
func (s *Server) closePack(ctx context.Context, c *call) error {
	r, err := s.pathClose(ctx, c)
	if err != nil {
		return err
	}
	if r.Pack == nil {
		return credit.Errorf(credit.CloseState, "The close is being prepared; there is no pack yet.").With("state", r.Status)
	}
	c.write(http.StatusOK, r.Pack)
	return nil
}

// setLateWindow is POST …/close/late_window.
func (s *Server) setLateWindow(ctx context.Context, c *call) error {
	var until time.Time
	var reason string
	if err := c.input(required("until", instant(&until)), required("reason", text(&reason, maxReason))); err != nil {
		return err
	}
	return s.changePeriod(ctx, c, "set_late_window", http.StatusOK, map[string]string{"until": instantText(until), "reason": reason},
		func(ctx context.Context, cat *db.Catalog, entity string, p ledger.Period) (any, error) {
			r, err := cat.SetLateWindow(ctx, entity, p, until)
			return describeClose(r), err
		})
}

// waive is POST …/close/waivers.
func (s *Server) waive(ctx context.Context, c *call) error {
	var code, reason string
	codes := make([]string, len(db.Reconciliations))
	for i, r := range db.Reconciliations {
		codes[i] = r.Code
	}
	if err := c.input(required("reconciliation", word(&code, codes...)), required("reason", text(&reason, maxReason))); err != nil {
		return err
	}
	return s.changePeriod(ctx, c, "waive_reconciliation", http.StatusCreated, map[string]string{"reconciliation": code, "reason": reason},
		func(ctx context.Context, cat *db.Catalog, entity string, p ledger.Period) (any, error) {
			r, err := cat.Waive(ctx, entity, p, code, reason, c.caller.no)
			return describeClose(r), err
		})
}

// approveClose is POST …/close/approve.
func (s *Server) approveClose(ctx context.Context, c *call) error {
	var hash string
	if err := c.input(required("pack_hash", matching(&hash, isSHA256, "the SHA-256 of the pack: 64 hexadecimal digits"))); err != nil {
		return err
	}
	return s.changePeriod(ctx, c, "approve_close", http.StatusAccepted, map[string]string{"pack_hash": hash},
		func(ctx context.Context, cat *db.Catalog, entity string, p ledger.Period) (any, error) {
			r, err := cat.ApproveClose(ctx, entity, p, hash, c.caller.no)
			return describeClose(r), err
		})
}

func isSHA256(s string) bool {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return len(s) == 64
}

// rejectClose is POST …/close/reject.
func (s *Server) rejectClose(ctx context.Context, c *call) error {
	var reason string
	if err := c.input(required("reason", text(&reason, maxReason))); err != nil {
		return err
	}
	return s.changePeriod(ctx, c, "reject_close", http.StatusOK, map[string]string{"reason": reason},
		func(ctx context.Context, cat *db.Catalog, entity string, p ledger.Period) (any, error) {
			r, err := cat.RejectClose(ctx, entity, p, reason)
			return describeClose(r), err
		})
}

// askReopening is POST …/reopen.
func (s *Server) askReopening(ctx context.Context, c *call) error {
	var reason string
	if err := c.input(required("reason", text(&reason, maxReason))); err != nil {
		return err
	}
	return s.changePeriod(ctx, c, "ask_reopening", http.StatusCreated, map[string]string{"reason": reason},
		func(ctx context.Context, cat *db.Catalog, entity string, p ledger.Period) (any, error) {
			r, err := cat.AskReopening(ctx, entity, p, reason, c.caller.no)
			return describeReopening(r), err
		})
}

// approveReopening is POST …/reopen/approve.
func (s *Server) approveReopening(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	return s.changePeriod(ctx, c, "approve_reopening", http.StatusOK, nil,
		func(ctx context.Context, cat *db.Catalog, entity string, p ledger.Period) (any, error) {
			r, err := cat.ApproveReopening(ctx, entity, p, c.caller.no)
			return describeReopening(r), err
		})
}

type statementDocument struct {
	ID          credit.StatementID `json:"id"`
	LegalEntity string             `json:"legal_entity"`
	Period      string             `json:"period"`
	Kind        string             `json:"kind"`
	Amount      string             `json:"amount"`
	Currency    string             `json:"currency"`
	Reference   string             `json:"reference"`
	AsOf        string             `json:"as_of"`
	RecordedBy  string             `json:"recorded_by"`
	RecordedAt  string             `json:"recorded_at"`
}

// addStatement is POST …/statements.
func (s *Server) addStatement(ctx context.Context, c *call) error {
	st := db.StatementRow{ID: credit.NewID[credit.StatementID](), RecordedBy: c.caller.no}
	var amount, currency string
	if err := c.input(
		required("kind", word(&st.Kind, db.StatementKinds...)),
		required("amount", signedDecimal(&amount)),
		required("currency", text(&currency, 3)),
		required("reference", text(&st.Reference, 255)),
		required("as_of", instant(&st.AsOf)),
	); err != nil {
		return err
	}
	var err error
	if st.Amount, err = parseSigned(amount, currency); err != nil {
		return in("/amount", err)
	}
	return s.changePeriod(ctx, c, "add_statement", http.StatusCreated, map[string]string{"kind": st.Kind, "amount": amount, "reference": st.Reference},
		func(ctx context.Context, cat *db.Catalog, entity string, p ledger.Period) (any, error) {
			st.Entity, st.Period = entity, p
			r, err := cat.AddStatement(ctx, st)
			return statementDocument{r.ID, r.Entity, string(r.Period), r.Kind, r.Amount.String(), r.Amount.Currency, r.Reference, instantText(r.AsOf),
				actorText(r.RecordedBy), instantText(r.RecordedAt)}, err
		})
}

// signedDecimal reads the text of an amount that may be less than zero: what a bank is owed, what is got back from taxes.
func signedDecimal(into *string) func(*reader) error {
	return func(r *reader) (err error) {
		if *into, err = r.text(); err != nil {
			return err
		}
		digits := *into
		if digits != "" && digits[0] == '-' {
			digits = digits[1:]
		}
		if !plainDecimal(digits, 15, 6) {
			return r.refuse("%.40q is not an amount of money.", *into)
		}
		return nil
	}
}

func parseSigned(amount, currency string) (credit.Money, error) {
	negative := amount[0] == '-'
	if negative {
		amount = amount[1:]
	}
	m, err := credit.ParseMoney(amount, currency)
	if negative {
		m.Minor = -m.Minor
	}
	return m, err
}

type closeSettingsDocument struct {
	LegalEntity        string   `json:"legal_entity"`
	LateHours          int      `json:"late_hours"`
	RequiredStatements []string `json:"required_statements"`
}

// maxLateHours is how long usage is accepted after it took place.
const maxLateHours = 34 * 24

// setCloseSettings is PUT /v1/legal_entities/{legal_entity}/close_settings.
func (s *Server) setCloseSettings(ctx context.Context, c *call) error {
	set := db.CloseSettings{Statements: []string{}}
	if err := c.input(
		required("late_hours", integer(&set.LateHours, 0, maxLateHours)),
		required("required_statements", func(r *reader) error {
			return r.array(func(int) error {
				var kind string
				err := word(&kind, db.StatementKinds...)(r)
				set.Statements = append(set.Statements, kind)
				return err
			})
		}),
	); err != nil {
		return err
	}
	entity, err := c.pathText("legal_entity")
	if err != nil {
		return err
	}
	return c.change(ctx, "set_close_settings", entity, func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		if err := cat.SetCloseSettings(ctx, entity, set, c.caller.no); err != nil {
			return db.Outcome{}, err
		}
		doc := closeSettingsDocument{entity, set.LateHours, set.Statements}
		o, err := created(entity, doc, doc)
		o.Status = http.StatusOK
		return o, err
	})
}

// closeSettings is GET /v1/legal_entities/{legal_entity}/close_settings.
func (s *Server) closeSettings(ctx context.Context, c *call) error {
	if _, err := c.query(); err != nil {
		return err
	}
	entity, err := c.pathText("legal_entity")
	if err != nil {
		return err
	}
	set, err := s.store.CloseSettings(ctx, entity)
	if err != nil {
		return err
	}
	return c.document(closeSettingsDocument{entity, set.LateHours, set.Statements})
}

type manualJournalDocument struct {
	ID          credit.JournalID `json:"id"`
	LegalEntity string           `json:"legal_entity"`
	Period      string           `json:"period"`
	ServiceOn   string           `json:"service_on"`
	Status      string           `json:"status"`
	Reason      string           `json:"reason"`
	Attachments []string         `json:"attachments"`
	Postings    []db.Posting     `json:"postings"`
	Preparer    string           `json:"preparer"`
	PreparedAt  string           `json:"prepared_at"`
	DecidedBy   *string          `json:"decided_by"`
	DecidedAt   *string          `json:"decided_at"`
	Note        *string          `json:"note"`     // why it was rejected
	EntryID     *credit.EntryID  `json:"entry_id"` // null: it is not booked
}

func describeJournal(j db.ManualJournal) manualJournalDocument {
	d := manualJournalDocument{ID: j.ID, LegalEntity: j.Entity, Period: string(j.Period), ServiceOn: string(j.Day), Status: j.Status, Reason: j.Reason,
		Attachments: j.Attachments, Postings: j.Postings, Preparer: actorText(j.Preparer), PreparedAt: instantText(j.PreparedAt),
		DecidedBy: actorOrNull(j.Approver), DecidedAt: instantOrNull(j.DecidedAt), Note: orNull(j.Note)}
	if !j.Entry.IsZero() {
		d.EntryID = &j.Entry
	}
	return d
}

// Bounds of a manual journal.
const (
	maxManualPostings    = 200
	maxManualAttachments = 50
)

// prepareJournal is POST /v1/finance/journals.
func (s *Server) prepareJournal(ctx context.Context, c *call) error {
	j := db.ManualJournal{ID: credit.NewID[credit.JournalID](), Preparer: c.caller.no}
	var day string
	if err := c.input(
		required("legal_entity", text(&j.Entity, 64)),
		required("service_on", matching(&day, isDay, "a day such as \"2026-01-31\"")),
		required("reason", text(&j.Reason, maxReason)),
		optional("attachments", func(r *reader) error {
			err := r.array(func(int) error {
				var a string
				err := text(&a, 1000)(r)
				j.Attachments = append(j.Attachments, a)
				return err
			})
			if err == nil && len(j.Attachments) > maxManualAttachments {
				return r.refuse("There may be %d attachments.", maxManualAttachments)
			}
			return err
		}),
		required("postings", func(r *reader) error {
			err := r.array(func(int) error {
				var p db.Posting
				var account int
				err := r.fields(required("account", integer(&account, 1, 65535)), required("side", word(&p.Side, ledger.Dr, ledger.Cr)),
					required("amount", decimalString(&p.Amount)))
				p.Account = ledger.Account(account)
				j.Postings = append(j.Postings, p)
				return err
			})
			if err == nil && (len(j.Postings) < 2 || len(j.Postings) > maxManualPostings) {
				return r.refuse("There are 2 to %d postings.", maxManualPostings)
			}
			return err
		}),
	); err != nil {
		return err
	}
	j.Day = ledger.Day(day)
	j.Period = j.Day.Period()
	return c.change(ctx, "prepare_journal", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.PrepareJournal(ctx, j)
		if err != nil {
			return db.Outcome{}, err
		}
		return created(row.ID.String(), describeJournal(row), map[string]string{"reason": row.Reason})
	})
}

func isDay(s string) bool {
	t, err := time.Parse(time.DateOnly, s)
	return err == nil && t.Format(time.DateOnly) == s
}

// listJournals is GET /v1/finance/journals, newest first.
func (s *Server) listJournals(ctx context.Context, c *call) error {
	q, limit, before, err := listing(c, idCursor[credit.JournalID], "legal_entity", "period", "status")
	if err != nil {
		return err
	}
	entity, err := q.entity()
	if err != nil {
		return err
	}
	period, err := queryID(q, "period", ledger.ParsePeriod)
	if err != nil {
		return err
	}
	status, err := q.oneOf("status", db.JournalPrepared, db.JournalPosted, db.JournalRejected)
	if err != nil {
		return err
	}
	if _, err := s.store.Entity(ctx, entity); err != nil {
		return err
	}
	rows, err := s.store.ManualJournalPage(ctx, entity, status, period, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeJournal, func(j db.ManualJournal) cursor { return afterID(j.ID) })
}

// getJournal is GET /v1/finance/journals/{journal}.
func (s *Server) getJournal(ctx context.Context, c *call) error {
	if _, err := c.query(); err != nil {
		return err
	}
	id, err := pathID(c, "journal", credit.ParseID[credit.JournalID])
	if err != nil {
		return err
	}
	j, err := s.store.ManualJournal(ctx, id)
	if err != nil {
		return err
	}
	return c.document(describeJournal(j))
}

// approveJournal is POST /v1/finance/journals/{journal}/approve.
func (s *Server) approveJournal(ctx context.Context, c *call) error {
	if err := c.input(); err != nil {
		return err
	}
	return decideJournal(ctx, c, "approve_journal", nil, func(ctx context.Context, cat *db.Catalog, id credit.JournalID) (db.ManualJournal, error) {
		return cat.ApproveJournal(ctx, id, c.caller.no)
	})
}

// rejectJournal is POST /v1/finance/journals/{journal}/reject.
func (s *Server) rejectJournal(ctx context.Context, c *call) error {
	var reason string
	if err := c.input(required("reason", text(&reason, maxReason))); err != nil {
		return err
	}
	return decideJournal(ctx, c, "reject_journal", map[string]string{"reason": reason},
		func(ctx context.Context, cat *db.Catalog, id credit.JournalID) (db.ManualJournal, error) {
			return cat.RejectJournal(ctx, id, reason, c.caller.no)
		})
}

func decideJournal(ctx context.Context, c *call, action string, detail map[string]string,
	do func(context.Context, *db.Catalog, credit.JournalID) (db.ManualJournal, error)) error {
	id, err := pathID(c, "journal", credit.ParseID[credit.JournalID])
	if err != nil {
		return err
	}
	return c.change(ctx, action, id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		j, err := do(ctx, cat, id)
		if err != nil {
			return db.Outcome{}, err
		}
		o, err := created(id.String(), describeJournal(j), detail)
		o.Status = http.StatusOK
		return o, err
	})
}
