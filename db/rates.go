package db

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db/internal/sqlc"
)

// Configuration is what the processes know by heart: what prices usage.
type Configuration struct {
	Ver   int64 // bumped by every change of it
	Cards []rating.CardVersions
	// Quotes are the exchange rates of the days asked for, each in its newest version.
	Quotes []fx.Quote
	// Catalogues are those of compute costs that may price events of the time asked for, in the order in which they come into force.
	Catalogues []CatalogueVersion
}

// Configuration reads all published rate cards without what was withdrawn, and the exchange rates and catalogues of compute costs of a day or later,
// all as of one moment.
func (s *Store) Configuration(ctx context.Context, since time.Time) (c Configuration, err error) {
	err = pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		q := sqlc.New(tx)
		if c.Ver, err = q.ConfigurationVersion(ctx); err != nil {
			return err
		}
		if c.Cards, err = s.documents.readCards(ctx, q); err != nil {
			return err
		}
		rates, err := q.FXRatesSince(ctx, onDate(since))
		if err != nil {
			return err
		}
		c.Quotes = make([]fx.Quote, len(rates))
		for i, r := range rates {
			c.Quotes[i] = fx.Quote{On: r.OnDate.Time, From: r.FromCurrency, To: r.ToCurrency, Rate: r.Rate, Source: r.Source, No: r.No}
		}
		c.Catalogues, err = s.catalogues.read(ctx, q, since)
		return err
	})
	if err != nil {
		return Configuration{}, fmt.Errorf("read configuration: %w", err)
	}
	return c, nil
}

// ConfigurationVersion returns the version that [Store.Configuration] would have now.
func (s *Store) ConfigurationVersion(ctx context.Context) (int64, error) {
	ver, err := s.q.ConfigurationVersion(ctx)
	return ver, wrap(err, "read configuration version")
}

// readCards reads the cards. A document never changes once it is published, so only those are read and parsed that were not there the last time.
func (d *documents) readCards(ctx context.Context, q *sqlc.Queries) (cards []rating.CardVersions, err error) {
	rows, err := q.AllRateCardVersions(ctx)
	if err != nil {
		return nil, err
	}
	var versions []published
	for _, r := range rows {
		if r.Version.Valid {
			versions = append(versions, published{r.ID.Bytes, r.Version.Int32, fromTime(r.PublishedAt).UnixMicro()})
		}
	}
	docs, err := d.read(ctx, q, versions)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		id := credit.RateCardID(r.ID.Bytes)
		if n := len(cards); n == 0 || cards[n-1].ID != id {
			cards = append(cards, rating.CardVersions{
				ID: id, Code: r.Code, Unit: credit.Unit{Code: r.Unit, Scale: int(r.Scale), Name: r.UnitName}, Default: r.IsDefault,
			})
		}
		if c := &cards[len(cards)-1]; r.Version.Valid {
			doc := docs[published{r.ID.Bytes, r.Version.Int32, fromTime(r.PublishedAt).UnixMicro()}]
			c.Versions = append(c.Versions, rating.Version{Number: int(r.Version.Int32), EffectiveAt: fromTime(r.EffectiveAt), Doc: doc})
		}
	}
	return cards, nil
}

// published names a version of a rate card. A failover may take away what only the old primary had, and its number is used again: the instant
// tells the two apart.
type published struct {
	card   credit.RateCardID
	number int32
	at     int64 // microseconds since 1970
}

// documents are the parsed documents of rate cards, as they were read last. They may be used by any number of goroutines.
type documents struct {
	mu     sync.Mutex
	parsed map[published]*rating.Document // never changed, but replaced
}

// read returns the documents of the versions, and keeps them in place of those kept before.
func (d *documents) read(ctx context.Context, q *sqlc.Queries, versions []published) (map[published]*rating.Document, error) {
	d.mu.Lock()
	kept := d.parsed
	d.mu.Unlock()
	docs := make(map[published]*rating.Document, len(versions))
	var cards []pgtype.UUID
	var numbers []int32
	for _, v := range versions {
		if doc := kept[v]; doc != nil {
			docs[v] = doc
			continue
		}
		cards, numbers = append(cards, uuidOf(v.card)), append(numbers, v.number)
	}
	if len(cards) == 0 {
		return docs, nil
	}
	rows, err := q.RateCardDocuments(ctx, cards, numbers)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		doc, err := rating.Parse(r.Document)
		if err != nil {
			return nil, fmt.Errorf("rate card %s version %d: %w", credit.RateCardID(r.CardID.Bytes), r.Version, err)
		}
		docs[published{r.CardID.Bytes, r.Version, fromTime(r.PublishedAt).UnixMicro()}] = doc
	}
	d.mu.Lock()
	d.parsed = docs
	d.mu.Unlock()
	return docs, nil
}

// AllUnits lists the units in order of code.
func (s *Store) AllUnits(ctx context.Context) ([]credit.Unit, error) {
	rows, err := s.q.ListUnits(ctx)
	if err != nil {
		return nil, fmt.Errorf("read units: %w", err)
	}
	units := make([]credit.Unit, len(rows))
	for i, r := range rows {
		units[i] = credit.Unit{Code: r.Code, Scale: int(r.Scale), Name: r.Name}
	}
	return units, nil
}

type (
	// FXRateRow is a stored quote: one of the versions of what a source says of a pair and day.
	FXRateRow struct {
		fx.Quote
		Version    int
		ImportedAt time.Time
		ImportedBy string
	}
	// FXRateFilter chooses quotes; what is zero lets everything through.
	FXRateFilter struct {
		Source, From, To string
		On               time.Time
	}
	// DraftRow is a version of a rate card that is not published. Document is JSON, as it was written, and may have faults.
	DraftRow struct {
		ID                   credit.DraftID
		Card                 credit.RateCardID
		Revision             int // counts replacements, from 1
		Note                 string
		Document             []byte
		CreatedAt, UpdatedAt time.Time
		UpdatedBy            string
	}
	// Assignment says that a card prices a customer's events of [From, To).
	Assignment struct {
		ID       credit.AssignmentID
		Card     credit.RateCardID
		From, To time.Time // zero To: until further notice
	}
	// AssignmentRow is an assignment with who made it, when and why.
	AssignmentRow struct {
		Assignment
		Customer credit.CustomerID
		At       time.Time
		By       int32 // API key; 0 is the system itself
		Reason   string
	}
)

var errOverlap = credit.Errorf(credit.AssignmentOverlaps, "Another rate card is assigned to the customer for some of that time.")

func onDate(t time.Time) pgtype.Date { return pgtype.Date{Time: t, Valid: !t.IsZero()} }

func fxRateRow(r sqlc.FxRate) FXRateRow {
	return FXRateRow{Quote: fx.Quote{On: r.OnDate.Time, From: r.FromCurrency, To: r.ToCurrency, Rate: r.Rate, Source: r.Source, No: r.No},
		Version: int(r.Version), ImportedAt: fromTime(r.ImportedAt), ImportedBy: r.ImportedBy}
}

// FXRatePage returns up to n quotes entered before a number, newest first, in all their versions.
func (s *Store) FXRatePage(ctx context.Context, f FXRateFilter, before int64, n int) ([]FXRateRow, error) {
	rows, err := s.q.PageFXRates(ctx, sqlc.PageFXRatesParams{Source: textOf(f.Source), FromCurrency: textOf(f.From), ToCurrency: textOf(f.To),
		OnDate: onDate(f.On), Before: belowNumber(before), PageSize: int32(n)})
	return page(rows, err, "read exchange rates", fxRateRow)
}

// AddFXRates adds quotes of one source, and returns the numbers of those that were not known so already: a quote that says what its newest version
// says is none. One that says something else becomes a further version. The quotes are of different pairs or days, and within the bounds of
// [fx.CheckQuote]; their Source and No are not looked at.
func (c *Catalog) AddFXRates(ctx context.Context, source, by string, quotes []fx.Quote) ([]int64, error) {
	if err := c.q.LockConfiguration(ctx); err != nil {
		return nil, fmt.Errorf("lock configuration: %w", err)
	}
	p := sqlc.AddFXRatesParams{Source: source, ImportedBy: by, Froms: make([]string, len(quotes)), Tos: make([]string, len(quotes)),
		Days: make([]pgtype.Date, len(quotes)), Rates: make([]decimal.Decimal, len(quotes))}
	for i, q := range quotes {
		p.Froms[i], p.Tos[i], p.Days[i], p.Rates[i] = q.From, q.To, onDate(q.On), q.Rate
	}
	rows, err := c.q.AddFXRates(ctx, p)
	if err != nil {
		return nil, wrap(err, "add exchange rates")
	}
	added := make([]int64, len(rows))
	for i, r := range rows {
		added[i] = r.No
	}
	if len(added) == 0 {
		return nil, nil
	}
	return added, wrap(c.q.BumpConfiguration(ctx), "bump configuration")
}

// FXRate returns a quote that was added in this change.
func (c *Catalog) FXRate(ctx context.Context, no int64) (FXRateRow, error) {
	row, err := c.q.FindFXRate(ctx, no)
	return fxRateRow(row), wrap(err, "read exchange rate")
}

func draftRow(r sqlc.RateCardDraft) DraftRow {
	return DraftRow{ID: r.ID.Bytes, Card: r.CardID.Bytes, Revision: int(r.Revision), Note: r.Note, Document: r.Document, CreatedAt: fromTime(r.CreatedAt),
		UpdatedAt: fromTime(r.UpdatedAt), UpdatedBy: r.UpdatedBy}
}

func noDraft(id credit.DraftID) *credit.Error {
	return credit.Errorf(credit.DraftNotFound, "The rate card has no draft %s.", id)
}

// Draft returns a draft of a card, or an Error coded draft_not_found, as do those below.
func (s *Store) Draft(ctx context.Context, card credit.RateCardID, id credit.DraftID) (DraftRow, error) {
	r, err := s.q.FindDraft(ctx, uuidOf(id), uuidOf(card))
	return draftRow(r), found(err, noDraft(id), "read draft")
}

// DraftPage returns up to n drafts of a card below an id, newest first.
func (s *Store) DraftPage(ctx context.Context, card credit.RateCardID, before credit.DraftID, n int) ([]DraftRow, error) {
	rows, err := s.q.PageDrafts(ctx, uuidOf(card), below(before), int32(n))
	return page(rows, err, "read drafts", draftRow)
}

// AddDraft makes a draft.
func (c *Catalog) AddDraft(ctx context.Context, d DraftRow) (DraftRow, error) {
	r, err := c.q.AddDraft(ctx, sqlc.AddDraftParams{ID: uuidOf(d.ID), CardID: uuidOf(d.Card), Note: d.Note, Document: d.Document, UpdatedBy: d.UpdatedBy})
	return draftRow(r), wrap(err, "add draft")
}

// ReplaceDraft puts another note and document into a draft.
func (c *Catalog) ReplaceDraft(ctx context.Context, d DraftRow) (DraftRow, error) {
	r, err := c.q.ReplaceDraft(ctx, sqlc.ReplaceDraftParams{ID: uuidOf(d.ID), CardID: uuidOf(d.Card), Note: d.Note, Document: d.Document, UpdatedBy: d.UpdatedBy})
	return draftRow(r), found(err, noDraft(d.ID), "replace draft")
}

// DeleteDraft removes a draft and returns what it was.
func (c *Catalog) DeleteDraft(ctx context.Context, card credit.RateCardID, id credit.DraftID) (DraftRow, error) {
	r, err := c.q.DeleteDraft(ctx, uuidOf(id), uuidOf(card))
	return draftRow(r), found(err, noDraft(id), "delete draft")
}

// LockDraft returns a draft and keeps it as it is until the change is done.
func (c *Catalog) LockDraft(ctx context.Context, card credit.RateCardID, id credit.DraftID) (DraftRow, error) {
	r, err := c.q.LockDraft(ctx, uuidOf(id), uuidOf(card))
	return draftRow(r), found(err, noDraft(id), "lock draft")
}

// WithdrawRateCard takes back a version that is not in force yet, nor will be within notice: an event may say that it is that far ahead. The
// refusals are version_in_force, rate_card_not_found and, the second time, already_exists.
func (c *Catalog) WithdrawRateCard(ctx context.Context, card credit.RateCardID, version int, notice time.Duration, by, reason string) (RateCardVersionRow, error) {
	v, err := c.q.FindRateCardVersion(ctx, uuidOf(card), int32(version))
	if err != nil {
		return RateCardVersionRow{}, found(err, credit.Errorf(credit.RateCardNotFound, "The rate card has no version %d.", version), "read rate card version")
	}
	row := rateCardVersionRow(v)
	at, err := c.q.WithdrawVersion(ctx, sqlc.WithdrawVersionParams{WithdrawnBy: by, Reason: reason, CardID: uuidOf(card), Version: int32(version), LeadSeconds: notice.Seconds()})
	if err != nil {
		refused := credit.Errorf(credit.VersionInForce, "Version %d is in force from %s: it can be withdrawn until %s before that. Publish another one.",
			version, row.EffectiveAt.Format(time.RFC3339), notice)
		return row, found(refusal(err), refused, "withdraw rate card version")
	}
	row.WithdrawnAt, row.WithdrawnBy, row.Reason = fromTime(at), by, reason
	return row, wrap(c.q.BumpConfiguration(ctx), "bump configuration")
}

// readAssignments reads what ReadCustomers makes of assignments.
func readAssignments(b []byte) ([]Assignment, error) {
	var rows []struct {
		ID, Card pgtype.UUID
		From     time.Time
		To       *time.Time
	}
	if err := json.Unmarshal(b, &rows); err != nil {
		return nil, fmt.Errorf("read assignments: %w", err)
	}
	out := make([]Assignment, len(rows))
	for i, r := range rows {
		out[i] = Assignment{ID: r.ID.Bytes, Card: r.Card.Bytes, From: r.From.UTC()}
		if r.To != nil {
			out[i].To = r.To.UTC()
		}
	}
	return out, nil
}

// AssignmentPage returns up to n assignments of a customer below an id, newest first.
func (s *Store) AssignmentPage(ctx context.Context, customer credit.CustomerID, before credit.AssignmentID, n int) ([]AssignmentRow, error) {
	rows, err := s.q.PageAssignments(ctx, uuidOf(customer), below(before), int32(n))
	return page(rows, err, "read assignments", func(r sqlc.RateCardAssignment) AssignmentRow {
		return AssignmentRow{Assignment: Assignment{ID: r.ID.Bytes, Card: r.CardID.Bytes, From: fromTime(r.ValidFrom), To: fromTime(r.ValidTo)},
			Customer: r.CustomerID.Bytes, At: fromTime(r.AssignedAt), By: r.AssignedBy, Reason: r.Reason}
	})
}
