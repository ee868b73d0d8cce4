package db

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db/internal/sqlc"
	"github.com/tallystick/tallystick/export"
)

// MappingRow is a version of what an entity's accounts are called in another system.
type MappingRow struct {
	export.Mapping
	CreatedAt time.Time
}

// Mapping returns a version of an entity's mapping for a system, 0 the newest one, or an Error coded not_found.
func (s *Store) Mapping(ctx context.Context, entity string, system export.System, version int) (MappingRow, error) {
	if _, err := s.Entity(ctx, entity); err != nil {
		return MappingRow{}, err
	}
	return findMapping(ctx, s.q, entity, system, version)
}

func findMapping(ctx context.Context, q *sqlc.Queries, entity string, system export.System, version int) (MappingRow, error) {
	var row sqlc.FindMappingRow
	var err error
	if version == 0 {
		var latest sqlc.LatestMappingRow
		latest, err = q.LatestMapping(ctx, entity, string(system))
		row = sqlc.FindMappingRow(latest)
	} else {
		row, err = q.FindMapping(ctx, entity, string(system), int32(version))
	}
	if err := found(err, credit.Errorf(credit.NotFound, "The accounts of %.40q are not mapped to those of %s, or not in this version.", entity, system), "read account mapping"); err != nil {
		return MappingRow{}, err
	}
	m := MappingRow{Mapping: export.Mapping{Version: int(row.Version), Subsidiary: row.Subsidiary}, CreatedAt: fromTime(row.CreatedAt)}
	if err := json.Unmarshal(row.Accounts, &m.Accounts); err != nil {
		return MappingRow{}, fmt.Errorf("read account mapping: %w", err)
	}
	return m, nil
}

// AddMapping adds the next version of an entity's mapping for a system. The mapping must be one that passes its Check. An Error coded
// entity_not_found says that there is no such entity.
func (c *Catalog) AddMapping(ctx context.Context, entity string, system export.System, m export.Mapping, actor int32) (MappingRow, error) {
	_, err := c.q.FindEntity(ctx, entity)
	if err := found(err, credit.Errorf(credit.EntityNotFound, "There is no legal entity %.40q.", entity), "read legal entity"); err != nil {
		return MappingRow{}, err
	}
	lock := sha256.Sum256([]byte("account mapping " + entity + " " + string(system)))
	if err := c.q.LockKey(ctx, int64(binary.BigEndian.Uint64(lock[:8]))); err != nil {
		return MappingRow{}, fmt.Errorf("lock account mappings: %w", err)
	}
	accounts, err := json.Marshal(m.Accounts)
	if err != nil {
		return MappingRow{}, fmt.Errorf("write account mapping: %w", err)
	}
	row, err := c.q.AddMapping(ctx, sqlc.AddMappingParams{Entity: entity, System: string(system), Subsidiary: m.Subsidiary, Accounts: accounts, Actor: actor})
	if err != nil {
		return MappingRow{}, fmt.Errorf("add account mapping: %w", err)
	}
	m.Version = int(row.Version)
	return MappingRow{m, fromTime(row.CreatedAt)}, nil
}

// Export writes the journal of an entity and period for the systems of p, everything as of one moment; create is called with the name of each file
// before it is written. A Detail "" is the usual one of each system. The sums of every file are held against those of the database; a difference is a fault. An
// Error coded entity_not_found, account_not_mapped or not_exportable refuses the export. After an error the files are of no use.
func (s *Store) Export(ctx context.Context, p export.Parameters, create func(name string) (io.Writer, error)) (export.Manifest, error) {
	m := export.Manifest{Parameters: p, PeriodStatus: "open", Version: 1}
	books, err := s.Entity(ctx, p.LegalEntity)
	if err != nil {
		return m, err
	}
	calendar, err := time.LoadLocation(books.TimeZone)
	if err != nil {
		return m, fmt.Errorf("read calendar of entity %s: %w", books.Code, err)
	}
	m.Currency = books.Currency
	err = s.snapshot(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL cursor_tuple_fraction = 1"); err != nil { // what is read is read to its end
			return fmt.Errorf("begin to read: %w", err)
		}
		x := exporter{tx: tx, q: s.q.WithTx(tx), books: books, calendar: calendar, manifest: &m}
		if err := x.head(ctx); err != nil {
			return err
		}
		for _, system := range p.Systems {
			if err := x.write(ctx, system, create); err != nil {
				return fmt.Errorf("export %s %s for %s: %w", p.LegalEntity, p.Period, system, err)
			}
		}
		return nil
	})
	return m, err
}

// exporter is one call of Export.
type exporter struct {
	tx       pgx.Tx
	q        *sqlc.Queries
	books    EntityRow
	calendar *time.Location
	manifest *export.Manifest
	accounts []ledger.Account // that were booked on
	debit    int64
	credit   int64
	cursors  int
}

// head reads what the files must come to.
func (x *exporter) head(ctx context.Context) error {
	m, period := x.manifest, string(x.manifest.Parameters.Period)
	if p, err := x.q.FindPeriod(ctx, x.books.Code, period); err == nil {
		m.PeriodStatus, m.Version = p.Status, int(p.Version)
	} else if !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("read period: %w", err)
	}
	var now pgtype.Timestamptz
	if err := x.tx.QueryRow(ctx, "SELECT now()").Scan(&now); err != nil {
		return fmt.Errorf("read clock: %w", err)
	}
	m.ExportedAt = fromTime(now)
	w, err := x.q.JournalWatermark(ctx, x.books.Code, period, period)
	if err != nil {
		return fmt.Errorf("read watermark: %w", err)
	}
	m.Watermark = watermarkOf(w)
	rows, err := x.q.TrialBalance(ctx, x.books.Code, period, period)
	if err != nil {
		return fmt.Errorf("read trial balance: %w", err)
	}
	text := func(minor int64) string { return credit.Money{Minor: minor, Currency: x.books.Currency}.String() }
	m.Totals.Accounts = []export.AccountTotal{}
	for _, r := range rows {
		account := ledger.Account(r.Account)
		x.accounts = append(x.accounts, account)
		x.debit += r.Debit
		x.credit += r.Credit
		m.Totals.Accounts = append(m.Totals.Accounts, export.AccountTotal{Account: account, Name: r.Name, Debit: text(r.Debit), Credit: text(r.Credit), Balance: text(r.Debit - r.Credit)})
	}
	m.Totals.Debit, m.Totals.Credit = text(x.debit), text(x.credit)
	return nil
}

func watermarkOf(w sqlc.JournalWatermarkRow) export.Watermark {
	out := export.Watermark{EntryNo: w.EntryNo, Entries: w.Entries}
	if at := fromTime(w.PostedAt); !at.IsZero() {
		out.PostedAt = &at
	}
	return out
}

func (x *exporter) write(ctx context.Context, system export.System, create func(string) (io.Writer, error)) error {
	m := x.manifest
	b := export.Book{Entity: x.books.Code, Currency: x.books.Currency, Period: m.Parameters.Period, Detail: m.Parameters.Detail}
	if b.Detail == "" {
		b.Detail = system.Details()[0]
	}
	out := export.ManifestSystem{System: system, Detail: b.Detail}
	if system.Mapped() {
		row, err := findMapping(ctx, x.q, x.books.Code, system, 0)
		switch {
		case credit.CodeOf(err) == credit.NotFound:
			return export.NotMapped(x.books.Code, system, x.accounts)
		case err != nil:
			return err
		}
		if missing := row.Missing(x.accounts); len(missing) > 0 {
			return export.NotMapped(x.books.Code, system, missing)
		}
		b.Mapping, out.Mapping = &row.Mapping, row.Version
	}
	r, err := export.Write(system, b, export.Journal{Entries: x.entries(ctx), Moves: x.moves(ctx)}, create)
	if err != nil {
		return err
	}
	if r.Debit != x.debit || r.Credit != x.credit || r.Merged != m.Watermark.Entries {
		return fmt.Errorf("%d entries of %d and %d were written, and there are %d of %d and %d", r.Merged, r.Debit, r.Credit, m.Watermark.Entries, x.debit, x.credit)
	}
	text := func(minor int64) string { return credit.Money{Minor: minor, Currency: x.books.Currency}.String() }
	out.Entries, out.Debit, out.Credit, out.Files = r.Entries, text(r.Debit), text(r.Credit), r.Files
	m.Systems = append(m.Systems, out)
	return nil
}

// fetchRows is how many rows a cursor reads at once.
const fetchRows = 5000

// cursor reads the rows of a query, some at a time, so that two may be read by turns in one transaction.
func cursor[R any](ctx context.Context, x *exporter, query string, args ...any) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		var zero R
		x.cursors++
		name := fmt.Sprintf("export_%d", x.cursors)
		if _, err := x.tx.Exec(ctx, "DECLARE "+name+" NO SCROLL CURSOR FOR "+query, args...); err != nil {
			yield(zero, fmt.Errorf("begin to read: %w", err))
			return
		}
		for {
			// Not prepared: the same words fetch other columns when the connection is used again.
			rows, err := x.tx.Query(ctx, fmt.Sprintf("FETCH %d FROM %s", fetchRows, name), pgx.QueryExecModeDescribeExec)
			var page []R
			if err == nil {
				page, err = pgx.CollectRows(rows, pgx.RowToStructByPos[R])
			}
			if err != nil {
				yield(zero, fmt.Errorf("read on: %w", err))
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
			}
			if len(page) < fetchRows {
				return
			}
		}
	}
}

// entries reads the period's journal in the order of exports.
func (x *exporter) entries(ctx context.Context) iter.Seq2[export.Entry, error] {
	period := x.manifest.Parameters.Period
	return func(yield func(export.Entry, error) bool) {
		var e export.Entry
		for r, err := range cursor[sqlc.ExportJournalRow](ctx, x, sqlc.ExportJournal, x.books.Code, string(period)) {
			if err != nil {
				yield(e, err)
				return
			}
			if id := credit.EntryID(r.ID.Bytes); e.ID != id {
				if !e.ID.IsZero() && !yield(e, nil) {
					return
				}
				e = export.Entry{PostedAt: fromTime(r.PostedAt), Contact: r.ExternalID, Entry: ledger.Entry{
					ID: id, Kind: ledger.Kind(r.Kind), Reverses: r.Reverses.Bytes,
					Fact: ledger.Fact{Cause: r.Cause, Entity: x.books.Code, Currency: x.books.Currency, Day: dayOf(r.ServiceOn), Period: period,
						Customer: r.CustomerID.Bytes, Grant: r.GrantID.Bytes},
				}}
				if e.Contact == "" && !e.Customer.IsZero() {
					e.Contact = e.Customer.String()
				}
				if r.Unit != "" {
					e.Unit = export.Unit{Code: r.Unit, Scale: int(r.Scale)}
				}
			}
			e.Postings = append(e.Postings, ledger.Posting{
				Account: ledger.Account(r.Account), Side: ledger.Side(r.Side), Money: credit.Money{Minor: r.AmountMinor, Currency: x.books.Currency},
				Source: credit.Money{Minor: r.SourceMinor.Int64, Currency: r.SourceCurrency.String}, Units: credit.Amount(r.Units.Int64),
				Product: r.Product.String, Model: r.Model.String,
			})
		}
		if !e.ID.IsZero() {
			yield(e, nil)
		}
	}
}

// moves reads the unit book of the period's days.
func (x *exporter) moves(ctx context.Context) iter.Seq2[export.Move, error] {
	period := x.manifest.Parameters.Period
	return func(yield func(export.Move, error) bool) {
		since, err := time.ParseInLocation("2006-01", string(period), x.calendar)
		if err != nil {
			yield(export.Move{}, fmt.Errorf("read period: %w", err))
			return
		}
		rows := cursor[sqlc.ExportMovesRow](ctx, x, sqlc.ExportMoves, x.books.TimeZone, x.books.Code, since, since.AddDate(0, 1, 0))
		for r, err := range rows {
			if err != nil {
				yield(export.Move{}, err)
				return
			}
			m := export.Move{Day: dayOf(r.Day), Customer: r.CustomerID.Bytes, Grant: r.GrantID.Bytes, Unit: export.Unit{Code: r.Unit, Scale: int(r.Scale)},
				From: r.Debit, To: r.Credit, Amount: credit.Amount(r.Amount)}
			if !yield(m, nil) {
				return
			}
		}
	}
}
