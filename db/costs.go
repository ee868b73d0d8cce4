package db

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/provider"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Formats are those that a catalogue of compute costs can be imported in.
var Formats = []string{"genai_prices", "litellm"}

// ParseCatalogue reads a catalogue in one of [Formats]. The refusals are those of package provider.
func ParseCatalogue(format string, document []byte) (*provider.Catalogue, error) {
	switch format {
	case Formats[0]:
		return provider.ParseGenAIPrices(document)
	case Formats[1]:
		return provider.ParseLiteLLM(document)
	}
	return nil, credit.Invalid("format", "This must be one of %q.", Formats)
}

type (
	// CatalogueVersion is a published catalogue as it prices events from an instant on.
	CatalogueVersion struct {
		Number      int
		EffectiveAt time.Time
		Catalogue   *provider.Catalogue
	}
	// CostDraftRow is a catalogue that is not published. Document is as it was imported, and empty in lists.
	CostDraftRow struct {
		ID           credit.CostDraftID
		Format, Note string
		Document     []byte
		SHA256       [sha256.Size]byte
		Bytes        int64
		CreatedAt    time.Time
		CreatedBy    string
	}
	// CostCatalogueRow is a published catalogue without its document.
	CostCatalogueRow struct {
		Number                   int
		Format, Note             string
		SHA256                   [sha256.Size]byte
		Bytes                    int64
		EffectiveAt, PublishedAt time.Time
		PublishedBy              string
	}
	// QuarantinedRow is usage that could not be priced when it came.
	QuarantinedRow struct {
		ID        credit.QuarantineID
		Customer  credit.CustomerID // zero: there is none of the name
		Named     string            // the customer as a usage event names it; "": it was no event
		Key       string            // idempotency key, as operations have it
		Actor     int32             // API key that sent it
		RequestID credit.RequestID
		Body      string // as it was sent
		ServiceAt time.Time
		At        time.Time
		Code      credit.Code // why it could not be priced, the last time
		Detail    string
		Tries     int
		State     string    // pending, charged, discarded
		Ver       int64     // of the operation that charged it; 0: none did
		DecidedAt time.Time // zero: it waits
		DecidedBy int32
		Reason    string // of discarding it
	}
	// QuarantineFilter chooses quarantined usage; what is zero lets everything through.
	QuarantineFilter struct {
		Customer    credit.CustomerID
		State, Code string
	}
)

// States of quarantined usage. What has been charged or discarded stays so.
const (
	QuarantinePending   = "pending"
	QuarantineCharged   = "charged"
	QuarantineDiscarded = "discarded"
)

// catalogues are the parsed catalogues, as they were read last. They may be used by any number of goroutines.
type catalogues struct {
	mu     sync.Mutex // held while one is parsed, so that this is done once
	parsed map[catalogueKey]*provider.Catalogue
}

// catalogueKey names a published catalogue: see [published].
type catalogueKey struct {
	number int32
	at     int64 // microseconds since 1970
}

// read returns the catalogues that may price events of an instant or later, in the order in which they come into force, and forgets those
// that no longer do.
func (d *catalogues) read(ctx context.Context, q *sqlc.Queries, since time.Time) ([]CatalogueVersion, error) {
	rows, err := q.CostCatalogueVersions(ctx, timeOf(since))
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	parsed := make(map[catalogueKey]*provider.Catalogue, len(rows))
	out := make([]CatalogueVersion, len(rows))
	for i, r := range rows {
		key := catalogueKey{r.Number, fromTime(r.PublishedAt).UnixMicro()}
		c := d.parsed[key]
		if c == nil {
			doc, err := q.CostCatalogueDocument(ctx, r.Number)
			if err != nil {
				return nil, err
			}
			if c, err = ParseCatalogue(doc.Format, []byte(doc.Document)); err != nil {
				return nil, fmt.Errorf("cost catalogue %d: %w", r.Number, err)
			}
			d.keep(key, c) // also when this attempt is given up
		}
		parsed[key] = c
		out[i] = CatalogueVersion{Number: int(r.Number), EffectiveAt: fromTime(r.EffectiveAt), Catalogue: c}
	}
	d.parsed = parsed
	return out, nil
}

func (d *catalogues) keep(key catalogueKey, c *provider.Catalogue) {
	if d.parsed == nil {
		d.parsed = make(map[catalogueKey]*provider.Catalogue)
	}
	d.parsed[key] = c
}

func noCostDraft(id credit.CostDraftID) *credit.Error {
	return credit.Errorf(credit.DraftNotFound, "There is no draft %s of a cost catalogue.", id)
}

func noCatalogue(number int) *credit.Error {
	return credit.Errorf(credit.CatalogueNotFound, "There is no cost catalogue %d.", number)
}

func costDraftRow(r sqlc.CostCatalogueDraft) CostDraftRow {
	d := CostDraftRow{ID: r.ID.Bytes, Format: r.Format, Note: r.Note, Document: []byte(r.Document), Bytes: int64(len(r.Document)), CreatedAt: fromTime(r.CreatedAt),
		CreatedBy: r.CreatedBy}
	copy(d.SHA256[:], r.Sha256)
	return d
}

func costCatalogueRow(r sqlc.FindCostCatalogueRow) CostCatalogueRow {
	c := CostCatalogueRow{Number: int(r.Number), Format: r.Format, Note: r.Note, Bytes: r.Bytes, EffectiveAt: fromTime(r.EffectiveAt),
		PublishedAt: fromTime(r.PublishedAt), PublishedBy: r.PublishedBy}
	copy(c.SHA256[:], r.Sha256)
	return c
}

// CostDraft returns a draft of a catalogue, or an Error coded draft_not_found.
func (s *Store) CostDraft(ctx context.Context, id credit.CostDraftID) (CostDraftRow, error) {
	r, err := s.q.FindCostDraft(ctx, uuidOf(id))
	return costDraftRow(r), found(err, noCostDraft(id), "read draft of a cost catalogue")
}

// CostDraftPage returns up to n drafts of catalogues below an id, newest first, without their documents.
func (s *Store) CostDraftPage(ctx context.Context, before credit.CostDraftID, n int) ([]CostDraftRow, error) {
	rows, err := s.q.PageCostDrafts(ctx, below(before), int32(n))
	return page(rows, err, "read drafts of cost catalogues", func(r sqlc.PageCostDraftsRow) CostDraftRow {
		d := costDraftRow(sqlc.CostCatalogueDraft{ID: r.ID, Format: r.Format, Note: r.Note, Sha256: r.Sha256, CreatedAt: r.CreatedAt, CreatedBy: r.CreatedBy})
		d.Document, d.Bytes = nil, r.Bytes
		return d
	})
}

// CostCatalogue returns a published catalogue, or an Error coded catalogue_not_found, as do those below.
func (s *Store) CostCatalogue(ctx context.Context, number int) (CostCatalogueRow, error) {
	r, err := s.q.FindCostCatalogue(ctx, int32(number))
	return costCatalogueRow(r), found(err, noCatalogue(number), "read cost catalogue")
}

// CostCatalogueDocument returns the document of a published catalogue as it was imported, and its format.
func (s *Store) CostCatalogueDocument(ctx context.Context, number int) (format string, document []byte, err error) {
	r, err := s.q.CostCatalogueDocument(ctx, int32(number))
	return r.Format, []byte(r.Document), found(err, noCatalogue(number), "read document of a cost catalogue")
}

// CostCatalogueInForce returns the number of the catalogue that prices events of an instant; zero at is now, and 0 is none.
func (s *Store) CostCatalogueInForce(ctx context.Context, at time.Time) (int, error) {
	n, err := s.q.CostCatalogueAt(ctx, timeOf(at))
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return int(n), wrap(err, "find the cost catalogue in force")
}

// CostCataloguePage returns up to n catalogues below a number, newest first.
func (s *Store) CostCataloguePage(ctx context.Context, before int64, n int) ([]CostCatalogueRow, error) {
	rows, err := s.q.PageCostCatalogues(ctx, int32(min(belowNumber(before), math.MaxInt32)), int32(n))
	return page(rows, err, "read cost catalogues", func(r sqlc.PageCostCataloguesRow) CostCatalogueRow {
		return costCatalogueRow(sqlc.FindCostCatalogueRow(r))
	})
}

// AddCostDraft makes a draft of a catalogue that can be read; its SHA256 and Bytes are computed.
func (c *Catalog) AddCostDraft(ctx context.Context, d CostDraftRow) (CostDraftRow, error) {
	d.SHA256, d.Bytes = sha256.Sum256(d.Document), int64(len(d.Document))
	at, err := c.q.AddCostDraft(ctx, sqlc.AddCostDraftParams{ID: uuidOf(d.ID), Format: d.Format, Note: d.Note, Document: string(d.Document), Sha256: d.SHA256[:],
		CreatedBy: d.CreatedBy})
	d.CreatedAt = fromTime(at)
	return d, wrap(err, "add draft of a cost catalogue")
}

// DeleteCostDraft removes a draft of a catalogue and returns what it was.
func (c *Catalog) DeleteCostDraft(ctx context.Context, id credit.CostDraftID) (CostDraftRow, error) {
	r, err := c.q.DeleteCostDraft(ctx, uuidOf(id))
	return costDraftRow(r), found(err, noCostDraft(id), "delete draft of a cost catalogue")
}

// PublishCatalogue makes a draft the next catalogue, in force from an instant; a zero one is as soon as can be: see [Lead]. The draft ends.
func (c *Catalog) PublishCatalogue(ctx context.Context, id credit.CostDraftID, effective time.Time, by string) (CostCatalogueRow, error) {
	if err := c.q.LockConfiguration(ctx); err != nil {
		return CostCatalogueRow{}, wrap(err, "lock configuration")
	}
	d, err := c.DeleteCostDraft(ctx, id)
	if err != nil {
		return CostCatalogueRow{}, err
	}
	if _, err := ParseCatalogue(d.Format, d.Document); err != nil { // it could be, when it was imported; a release may read less
		return CostCatalogueRow{}, err
	}
	row, err := c.q.AddCostCatalogue(ctx, sqlc.AddCostCatalogueParams{Format: d.Format, Note: d.Note, Document: string(d.Document), Sha256: d.SHA256[:],
		EffectiveAt: timeOf(effective), LeadSeconds: Lead.Seconds(), PublishedBy: by})
	if err != nil {
		return CostCatalogueRow{}, wrap(err, "add cost catalogue")
	}
	return CostCatalogueRow{Number: int(row.Number), Format: d.Format, Note: d.Note, SHA256: d.SHA256, Bytes: d.Bytes, EffectiveAt: fromTime(row.EffectiveAt),
		PublishedAt: fromTime(row.PublishedAt), PublishedBy: by}, wrap(c.q.BumpConfiguration(ctx), "bump configuration")
}

func noQuarantined(id credit.QuarantineID) *credit.Error {
	return credit.Errorf(credit.QuarantineNotFound, "There is no quarantined usage %s.", id)
}

func quarantinedRow(r sqlc.FindQuarantinedRow) QuarantinedRow {
	return QuarantinedRow{ID: r.ID.Bytes, Customer: r.CustomerID.Bytes, Named: r.Named.String, Key: r.Key, Actor: r.Actor, RequestID: r.RequestID.Bytes, Body: r.Body,
		ServiceAt: fromTime(r.ServiceAt), At: fromTime(r.At), Code: credit.Code(r.Code), Detail: r.Detail, Tries: int(r.Tries), State: r.State, Ver: r.Ver.Int64,
		DecidedAt: fromTime(r.DecidedAt), DecidedBy: r.DecidedBy.Int32, Reason: r.Reason.String}
}

// Quarantined returns quarantined usage, or an Error coded quarantine_not_found.
func (s *Store) Quarantined(ctx context.Context, id credit.QuarantineID) (QuarantinedRow, error) {
	r, err := s.q.FindQuarantined(ctx, uuidOf(id))
	return quarantinedRow(r), found(err, noQuarantined(id), "read quarantined usage")
}

// QuarantinedPage returns up to n rows below an id, newest first.
func (s *Store) QuarantinedPage(ctx context.Context, f QuarantineFilter, before credit.QuarantineID, n int) ([]QuarantinedRow, error) {
	rows, err := s.q.PageQuarantined(ctx, sqlc.PageQuarantinedParams{CustomerID: uuidOf(f.Customer), State: textOf(f.State), Code: textOf(f.Code), Before: below(before),
		PageSize: int32(n)})
	return page(rows, err, "read quarantined usage", func(r sqlc.PageQuarantinedRow) QuarantinedRow { return quarantinedRow(sqlc.FindQuarantinedRow(r)) })
}

// OldestQuarantined returns up to n rows that wait, those after an id, the first first. The filter's State is not looked at.
func (s *Store) OldestQuarantined(ctx context.Context, f QuarantineFilter, after credit.QuarantineID, n int) ([]QuarantinedRow, error) {
	rows, err := s.q.OldestQuarantined(ctx, sqlc.OldestQuarantinedParams{After: pgtype.UUID{Bytes: after, Valid: true}, CustomerID: uuidOf(f.Customer),
		Code: textOf(f.Code), PageSize: int32(n)})
	return page(rows, err, "read quarantined usage", func(r sqlc.OldestQuarantinedRow) QuarantinedRow { return quarantinedRow(sqlc.FindQuarantinedRow(r)) })
}

// CountQuarantined returns how much usage waits, and since when the oldest does, by the clock of Postgres; its now if none waits.
func (s *Store) CountQuarantined(ctx context.Context) (int64, time.Time, error) {
	r, err := s.q.CountQuarantined(ctx)
	return r.Waiting, fromTime(r.Oldest), wrap(err, "count quarantined usage")
}

// DiscardQuarantined gives up charging usage that waits. answer is what its key is answered from then on. Usage that was charged or discarded
// before is refused with quarantine_state.
func (c *Catalog) DiscardQuarantined(ctx context.Context, id credit.QuarantineID, by int32, reason string, answer func(QuarantinedRow) ([]byte, error)) (QuarantinedRow, error) {
	digest, err := c.q.DiscardUnassigned(ctx, by, reason, uuidOf(id))
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err := c.q.LockQuarantined(ctx, uuidOf(id)); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return QuarantinedRow{}, wrap(err, "lock the customer of quarantined usage")
		}
		digest, err = c.q.DiscardQuarantined(ctx, by, reason, uuidOf(id))
	}
	discarded := err == nil
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return QuarantinedRow{}, wrap(err, "discard quarantined usage")
	}
	r, err := c.q.FindQuarantined(ctx, uuidOf(id))
	if err != nil {
		return QuarantinedRow{}, found(err, noQuarantined(id), "read quarantined usage")
	}
	row := quarantinedRow(r)
	if !discarded {
		return row, credit.Errorf(credit.QuarantineState, "The usage was %s at %s.", row.State, row.DecidedAt.Format(time.RFC3339)).With("state", row.State)
	}
	text, err := answer(row)
	if err != nil {
		return row, err
	}
	return row, wrap(c.q.KeepAnswer(ctx, string(text), digest), "keep the answer of discarded usage")
}
