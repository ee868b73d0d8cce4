package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/provider"
	"github.com/tallystick/tallystick/db"
)

// maxCatalogue bounds a catalogue of compute costs: the known ones have less than 3 MiB.
const maxCatalogue = 8 << 20

// Bounds of a review.
const (
	maxChanges  = 200
	maxUnusable = 100
)

type costDraftDocument struct {
	ID        credit.CostDraftID `json:"id"`
	Format    string             `json:"format"`
	Note      string             `json:"note"`
	SHA256    string             `json:"sha256"` // of the document
	Bytes     int64              `json:"bytes"`
	CreatedAt string             `json:"created_at"`
	CreatedBy string             `json:"created_by"`
	Review    *reviewDocument    `json:"review,omitempty"` // none in lists
}

// reviewDocument is what is to be looked at before a draft is published.
type reviewDocument struct {
	Coverage     coverageDocument `json:"coverage"`
	Unusable     unusableDocument `json:"unusable"`
	ComparedWith int              `json:"compared_with"` // number of the catalogue in force; 0: there is none
	ChangesCount int              `json:"changes_count"`
	Changes      []costChange     `json:"changes"` // the first of them
}

type coverageDocument struct {
	Providers int `json:"providers"`
	Models    int `json:"models"`
	Whole     int `json:"whole"` // models whose prices are used as they stand
	Part      int `json:"part"`  // models with charges that cannot be computed
	None      int `json:"none"`  // models that are refused when they are to be priced
}

type unusableDocument struct {
	Count  int            `json:"count"`
	Issues []credit.Issue `json:"issues"` // the first of them
}

// costChange is what becomes of a provider or of one of its models.
type costChange struct {
	Provider string              `json:"provider"`
	Model    string              `json:"model,omitempty"`
	Kind     provider.ChangeKind `json:"kind"`
	Prices   []priceChange       `json:"prices"`
	Notes    []string            `json:"notes"`
}

type priceChange struct {
	Unit        string           `json:"unit"`
	Above       int64            `json:"above,omitempty"` // input tokens
	ServiceTier string           `json:"service_tier,omitempty"`
	Condition   string           `json:"condition,omitempty"`
	Per         decimal.Decimal  `json:"per"`
	Before      *decimal.Decimal `json:"before"` // USD
	After       *decimal.Decimal `json:"after"`
}

type catalogueDocument struct {
	Number      int    `json:"number"`
	Format      string `json:"format"`
	Note        string `json:"note"`
	SHA256      string `json:"sha256"`
	Bytes       int64  `json:"bytes"`
	EffectiveAt string `json:"effective_at"`
	PublishedAt string `json:"published_at"`
	PublishedBy string `json:"published_by"`
}

func describeCatalogue(r db.CostCatalogueRow) catalogueDocument {
	return catalogueDocument{r.Number, r.Format, r.Note, hex.EncodeToString(r.SHA256[:]), r.Bytes, instantText(r.EffectiveAt), instantText(r.PublishedAt), r.PublishedBy}
}

func describeCostDraft(d db.CostDraftRow) costDraftDocument {
	return costDraftDocument{ID: d.ID, Format: d.Format, Note: d.Note, SHA256: hex.EncodeToString(d.SHA256[:]), Bytes: d.Bytes, CreatedAt: instantText(d.CreatedAt),
		CreatedBy: d.CreatedBy}
}

// review compares a catalogue with the one in force.
func (s *Server) review(ctx context.Context, c *provider.Catalogue) (*reviewDocument, error) {
	number, err := s.store.CostCatalogueInForce(ctx, time.Time{})
	if err != nil {
		return nil, err
	}
	before := &provider.Catalogue{}
	if number != 0 {
		if before, err = s.catalogue(ctx, number); err != nil {
			return nil, err
		}
	}
	issues, count := c.Unusable()
	changes := provider.Diff(before, c)
	doc := &reviewDocument{Coverage: coverageDocument(c.Coverage()), ComparedWith: number, ChangesCount: len(changes), Changes: []costChange{},
		Unusable: unusableDocument{count, append([]credit.Issue{}, issues[:min(len(issues), maxUnusable)]...)}}
	for _, ch := range changes[:min(len(changes), maxChanges)] {
		one := costChange{Provider: ch.Provider, Model: ch.Model, Kind: ch.Kind, Prices: []priceChange{}, Notes: append([]string{}, ch.Notes...)}
		for _, p := range ch.Prices {
			one.Prices = append(one.Prices, priceChange{p.Unit.String(), p.Above, p.ServiceTier, p.Condition, p.Unit.Per(), p.Before, p.After})
		}
		doc.Changes = append(doc.Changes, one)
	}
	return doc, nil
}

// catalogue returns a published catalogue: as the service has it or, when that no longer prices anything, read anew.
func (s *Server) catalogue(ctx context.Context, number int) (*provider.Catalogue, error) {
	for _, v := range s.service.Catalogues() {
		if v.Number == number {
			return v.Catalogue, nil
		}
	}
	format, document, err := s.store.CostCatalogueDocument(ctx, number)
	if err != nil {
		return nil, err
	}
	return db.ParseCatalogue(format, document)
}

// importCatalogue is POST /v1/cost_catalogues/drafts: the document, as its source has it, becomes a draft.
func (s *Server) importCatalogue(ctx context.Context, c *call) error {
	q, err := c.query("format", "note")
	if err != nil {
		return err
	}
	d := db.CostDraftRow{ID: credit.NewID[credit.CostDraftID](), Note: q.text("note"), CreatedBy: actorText(c.caller.no)}
	if d.Format, err = q.oneOf("format", db.Formats...); err != nil {
		return err
	}
	if d.Format == "" {
		return credit.Invalid("format", "The format is required: one of %q.", db.Formats)
	}
	if utf8.RuneCountInString(d.Note) > maxReason || !printable(d.Note) {
		return credit.Invalid("note", "This must be at most %d printable characters.", maxReason)
	}
	if c.asked, err = c.text(typeJSON); err != nil {
		return err
	}
	if !utf8.ValidString(c.asked) {
		return credit.Invalid("", "The body is not valid UTF-8.")
	}
	d.Document = []byte(c.asked)
	catalogue, err := db.ParseCatalogue(d.Format, d.Document)
	if err != nil {
		return err
	}
	if catalogue.Coverage().Models == 0 {
		return credit.Invalid("", "The catalogue has no model.")
	}
	review, err := s.review(ctx, catalogue)
	if err != nil {
		return err
	}
	return c.change(ctx, "import_cost_catalogue", url.QueryEscape(d.Format)+" "+url.QueryEscape(d.Note), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		d, err := cat.AddCostDraft(ctx, d)
		if err != nil {
			return db.Outcome{}, err
		}
		doc := describeCostDraft(d)
		doc.Review = review
		return created(d.ID.String(), doc, map[string]any{"format": doc.Format, "sha256": doc.SHA256})
	})
}

// listCostDrafts is GET /v1/cost_catalogues/drafts.
func (s *Server) listCostDrafts(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, idCursor[credit.CostDraftID])
	if err != nil {
		return err
	}
	rows, err := s.store.CostDraftPage(ctx, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeCostDraft, func(d db.CostDraftRow) cursor { return afterID(d.ID) })
}

func (s *Server) pathCostDraft(ctx context.Context, c *call) (db.CostDraftRow, error) {
	id, err := pathID(c, "cost_draft", credit.ParseID[credit.CostDraftID])
	if err != nil {
		return db.CostDraftRow{}, err
	}
	return s.store.CostDraft(ctx, id)
}

// getCostDraft is GET /v1/cost_catalogues/drafts/{cost_draft}: with its review against the catalogue in force now.
func (s *Server) getCostDraft(ctx context.Context, c *call) error {
	d, err := s.pathCostDraft(ctx, c)
	if err != nil {
		return err
	}
	catalogue, err := db.ParseCatalogue(d.Format, d.Document)
	if err != nil {
		return err
	}
	doc := describeCostDraft(d)
	if doc.Review, err = s.review(ctx, catalogue); err != nil {
		return err
	}
	return c.document(doc)
}

// getCostDraftDocument is GET /v1/cost_catalogues/drafts/{cost_draft}/document.
func (s *Server) getCostDraftDocument(ctx context.Context, c *call) error {
	d, err := s.pathCostDraft(ctx, c)
	if err != nil {
		return err
	}
	c.write(200, d.Document)
	return nil
}

// deleteCostDraft is DELETE /v1/cost_catalogues/drafts/{cost_draft}.
func (s *Server) deleteCostDraft(ctx context.Context, c *call) error {
	id, err := pathID(c, "cost_draft", credit.ParseID[credit.CostDraftID])
	if err != nil {
		return err
	}
	return c.change(ctx, "delete_cost_catalogue_draft", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		d, err := cat.DeleteCostDraft(ctx, id)
		if err != nil {
			return db.Outcome{}, err
		}
		doc := describeCostDraft(d)
		return changed(id.String(), doc, map[string]any{"sha256": doc.SHA256})
	})
}

// publishCatalogue is POST /v1/cost_catalogues/drafts/{cost_draft}/publish: the draft becomes the next catalogue, which never changes.
func (s *Server) publishCatalogue(ctx context.Context, c *call) error {
	var at time.Time
	if err := c.input(optional("effective_at", instant(&at))); err != nil {
		return err
	}
	id, err := pathID(c, "cost_draft", credit.ParseID[credit.CostDraftID])
	if err != nil {
		return err
	}
	return c.change(ctx, "publish_cost_catalogue", id.String(), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		row, err := cat.PublishCatalogue(ctx, id, at, actorText(c.caller.no))
		if err != nil {
			return db.Outcome{}, err
		}
		doc := describeCatalogue(row)
		return created("cost_catalogue/"+strconv.Itoa(row.Number), doc,
			map[string]any{"number": doc.Number, "effective_at": doc.EffectiveAt, "sha256": doc.SHA256, "draft_id": id})
	})
}

// listCatalogues is GET /v1/cost_catalogues.
func (s *Server) listCatalogues(ctx context.Context, c *call) error {
	_, limit, before, err := listing(c, query.numberCursor)
	if err != nil {
		return err
	}
	rows, err := s.store.CostCataloguePage(ctx, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeCatalogue, func(r db.CostCatalogueRow) cursor { return afterNumber(int64(r.Number)) })
}

// inForce is how the catalogue in force is named instead of by a number.
const inForce = "in_force"

// pathCatalogue reads which catalogue the path names.
func (s *Server) pathCatalogue(ctx context.Context, c *call) (int, error) {
	text, err := c.pathText("cost_catalogue")
	if err != nil {
		return 0, err
	}
	if text != inForce {
		number, err := parseVersion(text)
		return number, in("cost_catalogue", err)
	}
	number, err := s.store.CostCatalogueInForce(ctx, time.Time{})
	if err == nil && number == 0 {
		return 0, credit.Errorf(credit.CatalogueNotFound, "No catalogue of compute costs is in force.")
	}
	return number, err
}

// getCatalogue is GET /v1/cost_catalogues/{cost_catalogue}.
func (s *Server) getCatalogue(ctx context.Context, c *call) error {
	number, err := s.pathCatalogue(ctx, c)
	if err != nil {
		return err
	}
	row, err := s.store.CostCatalogue(ctx, number)
	if err != nil {
		return err
	}
	return c.document(describeCatalogue(row))
}

// getCatalogueDocument is GET /v1/cost_catalogues/{cost_catalogue}/document.
func (s *Server) getCatalogueDocument(ctx context.Context, c *call) error {
	number, err := s.pathCatalogue(ctx, c)
	if err != nil {
		return err
	}
	_, document, err := s.store.CostCatalogueDocument(ctx, number)
	if err != nil {
		return err
	}
	c.write(200, document)
	return nil
}

type readyCard struct {
	Catalogue int                `json:"catalogue"`
	Rates     int                `json:"rates"`
	Document  json.RawMessage    `json:"document"`
	LeftOut   []leftOut          `json:"left_out"`
	Until     *string            `json:"until"` // when a price on it changes by what the catalogue knows; null: no change is known
	Draft     *credit.DraftID    `json:"draft_id,omitempty"`
	Card      *credit.RateCardID `json:"rate_card_id,omitempty"` // of the draft
}

type leftOut struct {
	Provider string `json:"provider"`
	Model    string `json:"model"`
	Reason   string `json:"reason"`
}

// makeRateCard is POST /v1/cost_catalogues/{cost_catalogue}/rate_card: what the catalogue's prices and a markup are in credits; with the name of a
// rate card it becomes a draft there.
func (s *Server) makeRateCard(ctx context.Context, c *call) error {
	terms := provider.RateCardTerms{At: time.Now()}
	var markup, card, note string
	if err := c.input(
		optional("markup", decimalString(&markup)),
		required("credit_value", func(r *reader) error {
			return r.fields(required("price", rate(&terms.CreditPrice)), required("currency", matching(&terms.Currency, currencyCode, currencyCodeForm)))
		}),
		optional("at", instant(&terms.At)),
		optional("providers", texts(&terms.Providers, maxProviderName)),
		optional("models", texts(&terms.Models, maxModelName)),
		optional("meter", func(r *reader) (err error) { terms.Meter, err = r.meter(); return err }),
		optional("rate_card", text(&card, 64)),
		optional("note", text(&note, maxReason)),
	); err != nil {
		return err
	}
	if markup != "" {
		unsigned := markup
		if markup[0] == '-' {
			unsigned = markup[1:]
		}
		if !plainDecimal(unsigned, 20, 12) {
			return credit.Invalid("/markup", "%.40q is not a decimal number of at most 20 digits before and 12 after the point.", markup)
		}
		var err error
		if terms.Markup, err = decimal.NewFromString(markup); err != nil {
			return credit.Invalid("/markup", "%.40q is not a decimal number.", markup)
		}
	}
	number, err := s.pathCatalogue(ctx, c)
	if err != nil {
		return err
	}
	catalogue, err := s.catalogue(ctx, number)
	if err != nil {
		return err
	}
	made, err := catalogue.RateCard(terms)
	if err != nil {
		return err
	}
	doc := readyCard{Catalogue: number, Rates: made.Rates, Document: made.Document, LeftOut: make([]leftOut, len(made.LeftOut)), Until: instantOrNull(made.Until)}
	for i, l := range made.LeftOut {
		doc.LeftOut[i] = leftOut(l)
	}
	if card == "" {
		return c.document(doc)
	}
	id, err := s.rateCardID(ctx, card)
	if err != nil {
		return err
	}
	d := db.DraftRow{ID: credit.NewID[credit.DraftID](), Card: id, Note: note, Document: made.Document, UpdatedBy: actorText(c.caller.no)}
	return c.change(ctx, "create_draft", strconv.Itoa(number), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		d, err := cat.AddDraft(ctx, d)
		if err != nil {
			return db.Outcome{}, err
		}
		doc.Draft, doc.Card = &d.ID, &d.Card
		return created(d.ID.String(), doc, map[string]any{"rate_card_id": id, "cost_catalogue": number})
	})
}

// maxTexts bounds a list of names.
const maxTexts = 1_000

// texts reads a list of different texts.
func texts(into *[]string, limit int) func(*reader) error {
	return func(r *reader) error {
		*into = nil
		return r.array(func(i int) error {
			var one string
			if err := text(&one, limit)(r); err != nil {
				return err
			}
			if i == maxTexts || slices.Contains(*into, one) {
				return r.refuse("There may be %d different ones.", maxTexts)
			}
			*into = append(*into, one)
			return nil
		})
	}
}
