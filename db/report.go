package db

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db/internal/sqlc"
	"github.com/tallystick/tallystick/export"
)

// ColumnKind says what a report's column holds.
type ColumnKind int

const (
	ColumnText    ColumnKind = iota
	ColumnMoney              // in major units of the entity's currency; summed up
	ColumnInteger            // a JSON number
	ColumnBoolean            // a JSON boolean
	ColumnDay
	ColumnInstant
	ColumnCustomer // identifiers
	ColumnGrant
	ColumnRefund
	ColumnEntry
)

// ReportColumn is one column of a report.
type ReportColumn struct {
	Name string
	Kind ColumnKind
}

// ReportSpec is a report that finance can ask for.
type ReportSpec struct {
	Name    string
	Version int // of the query: a change of what it selects is another version
	Columns []ReportColumn
	query   string
	args    func(*reportRun) []any
}

// ReportParameters are what a report is of: periods From to To, both inclusive.
type ReportParameters struct {
	LegalEntity string        `json:"legal_entity"`
	From        ledger.Period `json:"from"`
	To          ledger.Period `json:"to"`
}

// reportRun is what the arguments of a report's query are made of.
type reportRun struct {
	ReportParameters
	timeZone     string
	since, until time.Time // the first instant of From, and the first after To
}

func (r *reportRun) periods() []any { return []any{r.LegalEntity, string(r.From), string(r.To)} }
func (r *reportRun) times() []any   { return []any{r.LegalEntity, r.since, r.until} }

func entriesOf(kind ledger.Kind) func(*reportRun) []any {
	return func(r *reportRun) []any { return append(r.periods(), string(kind)) }
}

var entryColumns = []ReportColumn{{"no", ColumnInteger}, {"entry_id", ColumnEntry}, {"period", ColumnText}, {"service_on", ColumnDay}, {"posted_at", ColumnInstant},
	{"kind", ColumnText}, {"customer_id", ColumnCustomer}, {"grant_id", ColumnGrant}, {"cause", ColumnText}, {"amount", ColumnMoney}}

// Reports lists every report.
var Reports = []ReportSpec{
	{"trial_balance", 1, []ReportColumn{{"account", ColumnInteger}, {"name", ColumnText}, {"type", ColumnText}, {"debit", ColumnMoney}, {"credit", ColumnMoney}},
		sqlc.TrialBalance, (*reportRun).periods},
	{"journal", 1, []ReportColumn{{"no", ColumnInteger}, {"entry_id", ColumnEntry}, {"period", ColumnText}, {"service_on", ColumnDay}, {"posted_at", ColumnInstant},
		{"kind", ColumnText}, {"late", ColumnBoolean}, {"customer_id", ColumnCustomer}, {"grant_id", ColumnGrant}, {"cause", ColumnText}, {"line", ColumnInteger},
		{"account", ColumnInteger}, {"name", ColumnText}, {"debit", ColumnMoney}, {"credit", ColumnMoney}, {"product", ColumnText}, {"model", ColumnText}},
		sqlc.ReportJournal, (*reportRun).periods},
	{"roll_forward", 2, []ReportColumn{{"customer_id", ColumnCustomer}, {"currency", ColumnText}, {"opening", ColumnMoney}, {"purchases", ColumnMoney}, {"concessions", ColumnMoney},
		{"recognised", ColumnMoney}, {"breakage", ColumnMoney}, {"refunds", ColumnMoney}, {"voids", ColumnMoney},
		{"disputes", ColumnMoney}, {"transfers", ColumnMoney}, {"corrections", ColumnMoney}, {"adjustments", ColumnMoney}, {"closing", ColumnMoney}, {"late", ColumnMoney}},
		sqlc.RollForward, func(r *reportRun) []any {
			return []any{"customer", string(r.From), r.LegalEntity, string(r.To), pgtype.UUID{}, pgtype.UUID{Valid: true}, int32(math.MaxInt32)}
		}},
	{"waterfall", 1, []ReportColumn{{"cohort", ColumnText}, {"month", ColumnText}, {"kind", ColumnText}, {"estimate", ColumnBoolean}, {"amount", ColumnMoney}},
		sqlc.ReportWaterfall, func(r *reportRun) []any { return []any{r.timeZone, r.LegalEntity, string(r.To)} }},
	{"revenue", 1, []ReportColumn{{"period", ColumnText}, {"category", ColumnText}, {"cohort", ColumnText}, {"customer_id", ColumnCustomer}, {"product", ColumnText},
		{"model", ColumnText}, {"amount", ColumnMoney}},
		sqlc.ReportRevenue, func(r *reportRun) []any { return append([]any{r.timeZone}, r.periods()...) }},
	{"margin", 1, []ReportColumn{{"period", ColumnText}, {"customer_id", ColumnCustomer}, {"product", ColumnText}, {"model", ColumnText}, {"revenue", ColumnMoney},
		{"compute_cost", ColumnMoney}, {"margin", ColumnMoney}, {"promotional_cost", ColumnMoney}},
		sqlc.ReportMargin, (*reportRun).periods},
	{"breakage", 1, []ReportColumn{{"no", ColumnInteger}, {"period", ColumnText}, {"service_on", ColumnDay}, {"kind", ColumnText}, {"customer_id", ColumnCustomer},
		{"grant_id", ColumnGrant}, {"expires_at", ColumnInstant}, {"units", ColumnText}, {"unit", ColumnText}, {"amount", ColumnMoney}},
		sqlc.ReportBreakage, (*reportRun).periods},
	{"refunds", 1, []ReportColumn{{"refund_id", ColumnRefund}, {"created_at", ColumnInstant}, {"customer_id", ColumnCustomer}, {"grant_id", ColumnGrant}, {"units", ColumnText},
		{"unit", ColumnText}, {"reason", ColumnText}, {"status", ColumnText}, {"settlement_method", ColumnText}, {"settlement_ref", ColumnText}, {"settled_at", ColumnInstant},
		{"amount", ColumnMoney}, {"tax", ColumnMoney}},
		sqlc.ReportRefunds, (*reportRun).times},
	{"expiring", 1, []ReportColumn{{"expires_at", ColumnInstant}, {"customer_id", ColumnCustomer}, {"grant_id", ColumnGrant}, {"type", ColumnText}, {"units", ColumnText},
		{"unit", ColumnText}, {"carrying", ColumnMoney}},
		sqlc.ReportExpiring, (*reportRun).times},
	{"manual_journals", 1, entryColumns, sqlc.ReportEntries, entriesOf("manual")},
	{"late_entries", 1, entryColumns, sqlc.ReportEntries, entriesOf("")},
	{"receivables", 1, []ReportColumn{{"account", ColumnInteger}, {"customer_id", ColumnCustomer}, {"days_30", ColumnMoney}, {"days_60", ColumnMoney}, {"days_90", ColumnMoney},
		{"older", ColumnMoney}, {"balance", ColumnMoney}},
		sqlc.ReportReceivables, func(r *reportRun) []any { return []any{r.LegalEntity, string(r.To)} }},
	{"access", 1, []ReportColumn{{"at", ColumnInstant}, {"actor", ColumnInteger}, {"key_name", ColumnText}, {"role", ColumnText}, {"revoked_at", ColumnInstant},
		{"action", ColumnText}, {"subject", ColumnText}},
		sqlc.ReportAccess, func(r *reportRun) []any { return []any{r.since, r.until} }},
}

// ReportHead is what a report says before its rows.
type ReportHead struct {
	Spec       *ReportSpec
	Parameters ReportParameters
	Currency   string
	MadeAt     time.Time // by the database's clock: what was committed until then is in it
	Watermark  export.Watermark
}

// ReportTotals is what a report says after its rows: how many there were, and the sum of each column of money, in minor units, by its place.
type ReportTotals struct {
	Rows int64
	Sums map[int]int64
}

// Report reads a report as of one moment, row by row: head is called once, and then row for each row with the text of its cells, nil for none. An
// Error coded entity_not_found says that there is no such entity. An error of head or row ends it.
func (s *Store) Report(ctx context.Context, spec *ReportSpec, p ReportParameters, head func(ReportHead) error, row func([]*string) error) (ReportTotals, error) {
	totals := ReportTotals{Sums: map[int]int64{}}
	books, err := s.Entity(ctx, p.LegalEntity)
	if err != nil {
		return totals, err
	}
	r := reportRun{ReportParameters: p, timeZone: books.TimeZone}
	if r.since, r.until, err = instants(p, books.TimeZone); err != nil {
		return totals, err
	}
	for i, c := range spec.Columns {
		if c.Kind == ColumnMoney {
			totals.Sums[i] = 0
		}
	}
	err = s.snapshot(ctx, func(tx pgx.Tx) error {
		h := ReportHead{Spec: spec, Parameters: p, Currency: books.Currency}
		w, err := s.q.WithTx(tx).JournalWatermark(ctx, p.LegalEntity, "", string(p.To))
		if err != nil {
			return fmt.Errorf("read watermark: %w", err)
		}
		h.Watermark = watermarkOf(w)
		if err := tx.QueryRow(ctx, "SELECT now()").Scan(&h.MadeAt); err != nil {
			return fmt.Errorf("read clock: %w", err)
		}
		if err := head(h); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, spec.query, append([]any{pgx.QueryExecModeCacheDescribe}, spec.args(&r)...)...)
		if err != nil {
			return fmt.Errorf("read report %s: %w", spec.Name, err)
		}
		defer rows.Close()
		cells := make([]*string, len(spec.Columns))
		for rows.Next() {
			values, err := rows.Values()
			if err == nil && len(values) != len(cells) {
				err = fmt.Errorf("%d columns", len(values))
			}
			if err != nil {
				return fmt.Errorf("read report %s: %w", spec.Name, err)
			}
			for i, c := range spec.Columns {
				if c.Kind == ColumnMoney && values[i] != nil {
					totals.Sums[i] += values[i].(int64)
				}
				cells[i] = cellText(c.Kind, values[i], books.Currency)
			}
			totals.Rows++
			if err := row(cells); err != nil {
				return err
			}
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("read report %s: %w", spec.Name, err)
		}
		return nil
	})
	return totals, err
}

func instants(p ReportParameters, timeZone string) (since, until time.Time, err error) {
	calendar, err := time.LoadLocation(timeZone)
	if err != nil {
		return since, until, fmt.Errorf("read calendar of entity %s: %w", p.LegalEntity, err)
	}
	if since, err = time.ParseInLocation("2006-01", string(p.From), calendar); err != nil {
		return since, until, fmt.Errorf("read period: %w", err)
	}
	if until, err = time.ParseInLocation("2006-01", string(p.To.Next()), calendar); err != nil {
		return since, until, fmt.Errorf("read period: %w", err)
	}
	return since, until, nil
}

// cellText writes a value of a row.
func cellText(kind ColumnKind, value any, currency string) *string {
	var text string
	switch v := value.(type) {
	case nil:
		return nil
	case string:
		text = v
	case bool:
		text = strconv.FormatBool(v)
	case int32:
		text = strconv.Itoa(int(v))
	case int64:
		if text = strconv.FormatInt(v, 10); kind == ColumnMoney {
			text = credit.Money{Minor: v, Currency: currency}.String()
		}
	case time.Time:
		if text = v.UTC().Format(time.RFC3339Nano); kind == ColumnDay {
			text = v.Format(time.DateOnly)
		}
	case [16]byte:
		switch kind {
		case ColumnCustomer:
			text = credit.CustomerID(v).String()
		case ColumnGrant:
			text = credit.GrantID(v).String()
		case ColumnRefund:
			text = credit.RefundID(v).String()
		case ColumnEntry:
			text = credit.EntryID(v).String()
		}
	default:
		text = fmt.Sprint(v)
	}
	return &text
}
