package api

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/export"
)

type mappingDocument struct {
	LegalEntity string                 `json:"legal_entity"`
	System      export.System          `json:"system"`
	Version     int                    `json:"version"`
	Subsidiary  *string                `json:"subsidiary"`
	Accounts    []export.MappedAccount `json:"accounts"`
	Unmapped    []ledger.Account       `json:"unmapped"` // accounts of the chart without one there: an export with postings on them is refused
	CreatedAt   string                 `json:"created_at"`
}

func describeMapping(entity string, system export.System, m *db.MappingRow) mappingDocument {
	d := mappingDocument{LegalEntity: entity, System: system, Version: m.Version, Subsidiary: orNull(m.Subsidiary), Accounts: m.Accounts,
		Unmapped: []ledger.Account{}, CreatedAt: instantText(m.CreatedAt)}
	if d.Accounts == nil {
		d.Accounts = []export.MappedAccount{}
	}
	chart := make([]ledger.Account, len(ledger.Chart))
	for i, l := range ledger.Chart {
		chart[i] = l.Account
	}
	d.Unmapped = append(d.Unmapped, m.Missing(chart)...)
	return d
}

// mappedSystems are the systems that have accounts of the customer's own.
var mappedSystems = func() (words []string) {
	for _, s := range export.Systems {
		if s.Mapped() {
			words = append(words, string(s))
		}
	}
	return words
}()

// getMapping is GET /v1/finance/account_mappings: the newest version, or the one asked for.
func (s *Server) getMapping(ctx context.Context, c *call) error {
	q, err := c.query("legal_entity", "system", "version")
	if err != nil {
		return err
	}
	entity, err := q.entity()
	if err != nil {
		return err
	}
	system, err := q.oneOf("system", mappedSystems...)
	if err == nil && system == "" {
		err = credit.Invalid("system", "This query parameter is required.")
	}
	if err != nil {
		return err
	}
	version, err := queryID(q, "version", parseOrdinal)
	if err != nil {
		return err
	}
	row, err := s.store.Mapping(ctx, entity, export.System(system), version)
	if err != nil {
		return err
	}
	return c.document(describeMapping(entity, export.System(system), &row))
}

func parseOrdinal(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 1 {
		return 0, credit.Errorf(credit.InvalidRequest, "%.20q is not a whole number from 1 on.", s)
	}
	return int(n), nil
}

// putMapping is PUT /v1/finance/account_mappings: the next version, which has all accounts, not only those that change.
func (s *Server) putMapping(ctx context.Context, c *call) error {
	var entity, system string
	var m export.Mapping
	if err := c.input(
		required("legal_entity", text(&entity, 32)),
		required("system", word(&system, mappedSystems...)),
		optional("subsidiary", nullable(text(&m.Subsidiary, 200))),
		required("accounts", func(r *reader) error {
			return r.array(func(i int) error {
				if i == len(ledger.Chart) {
					return r.refuse("There are more accounts than the chart has.")
				}
				var a export.MappedAccount
				var number int
				err := r.fields(required("account", integer(&number, 1, 1<<31-1)), optional("code", text(&a.Code, 60)), optional("name", text(&a.Name, 100)),
					optional("tax_rate", text(&a.TaxRate, 100)))
				a.Account = ledger.Account(number)
				m.Accounts = append(m.Accounts, a)
				return err
			})
		}),
	); err != nil {
		return err
	}
	if err := m.Check(export.System(system)); err != nil {
		return err
	}
	return c.change(ctx, "map_accounts", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.AddMapping(ctx, entity, export.System(system), m, c.caller.no)
		if err != nil {
			return db.Outcome{}, err
		}
		o, err := created(entity+"/"+system, describeMapping(entity, export.System(system), &row), map[string]any{"version": row.Version, "accounts": len(m.Accounts)})
		o.Status = http.StatusOK
		return o, err
	})
}

// exportJournal is GET /v1/finance/exports/{system}: one file of an export, or what it says of itself. The file is whole before its first byte is
// sent, so that what cannot be exported is a problem and no half a file.
func (s *Server) exportJournal(ctx context.Context, c *call) error {
	name, err := c.pathText("system")
	if err != nil {
		return err
	}
	system := export.System(name)
	if !slices.Contains(export.Systems, system) {
		return credit.Errorf(credit.NotFound, "There is no export for %.40q; there are some for %q.", name, export.Systems)
	}
	q, err := c.query("legal_entity", "period", "detail", "part", "manifest")
	if err != nil {
		return err
	}
	p := export.Parameters{Systems: []export.System{system}}
	if p.LegalEntity, err = q.entity(); err != nil {
		return err
	}
	if p.Period, err = queryID(q, "period", ledger.ParsePeriod); err != nil {
		return err
	}
	if p.Period == "" {
		return credit.Invalid("period", "This query parameter is required.")
	}
	var details []string
	for _, d := range system.Details() {
		details = append(details, string(d))
	}
	detail, err := q.oneOf("detail", details...)
	if err != nil {
		return err
	}
	p.Detail = export.Detail(detail)
	part, err := queryID(q, "part", parseOrdinal)
	if err != nil {
		return err
	}
	part = max(part, 1)
	manifest, err := q.oneOf("manifest", "true", "false")
	if err != nil {
		return err
	}
	file, err := newSpool()
	if err != nil {
		return err
	}
	defer file.close()
	m, err := s.store.Export(ctx, p, func(name string) (io.Writer, error) {
		if manifest != "true" && name == system.File(part) {
			return file, nil
		}
		return io.Discard, nil
	})
	if err != nil {
		return err
	}
	if manifest == "true" {
		return c.document(m)
	}
	out := m.Systems[0]
	if part > len(out.Files) {
		return credit.Errorf(credit.NotFound, "The export has %d parts.", len(out.Files))
	}
	h := c.w.Header()
	h.Set("Tallystick-Rows", strconv.FormatInt(out.Files[part-1].Rows, 10))
	h.Set("Tallystick-Parts", strconv.Itoa(len(out.Files)))
	h.Set("Tallystick-Entries", strconv.FormatInt(out.Entries, 10))
	h.Set("Tallystick-Debit", out.Debit)
	h.Set("Tallystick-Credit", out.Credit)
	h.Set("Tallystick-Watermark", strconv.FormatInt(m.Watermark.EntryNo, 10))
	h.Set("Tallystick-Period-Status", m.PeriodStatus)
	return file.answer(c, system.MediaType(), p.LegalEntity+"-"+string(p.Period)+"-"+out.Files[part-1].Name)
}

// spool is an answer that is written to a file first: too large for memory, and not to be begun before it is known to be whole.
type spool struct {
	file *os.File
	*bufio.Writer
}

func newSpool() (*spool, error) {
	f, err := os.CreateTemp("", "tallystick-*")
	if err != nil {
		return nil, fmt.Errorf("make a file for the answer: %w", err)
	}
	return &spool{f, bufio.NewWriterSize(f, 1<<16)}, nil
}

func (s *spool) close() {
	s.file.Close()
	os.Remove(s.file.Name())
}

// answer sends the file, with its SHA-256 as RFC 9530 and as people write it.
func (s *spool) answer(c *call, mediaType, name string) error {
	if err := s.Flush(); err != nil {
		return fmt.Errorf("write the answer to a file: %w", err)
	}
	hash := sha256.New()
	size, err := readFrom(s.file, hash)
	if err != nil {
		return err
	}
	sum := hash.Sum(nil)
	h := c.w.Header()
	h.Set("Content-Type", mediaType+"; charset=utf-8")
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set("Content-Disposition", `attachment; filename="`+url.PathEscape(name)+`"`)
	h.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum)+":")
	h.Set("Tallystick-SHA256", hex.EncodeToString(sum))
	c.status = http.StatusOK
	c.w.WriteHeader(http.StatusOK)
	_, err = readFrom(s.file, c.w)
	return err
}

// readFrom copies a file from its beginning.
func readFrom(f *os.File, to io.Writer) (int64, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read the answer from its file: %w", err)
	}
	n, err := io.Copy(to, f)
	if err != nil {
		return n, fmt.Errorf("read the answer from its file: %w", err)
	}
	return n, nil
}
