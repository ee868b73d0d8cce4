package api

import (
	"context"
	"net/url"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/fx"
	"github.com/tallystick/tallystick/db"
)

// maxRates bounds a file of exchange rates: the ECB's whole history has less than 2 MiB.
const maxRates = 8 << 20

type fxRateDocument struct {
	No         int64           `json:"no"` // the order of entry: of several quotes of one pair and day the highest counts
	Source     string          `json:"source"`
	From       string          `json:"from"`
	To         string          `json:"to"`
	On         string          `json:"on"`
	Rate       decimal.Decimal `json:"rate"`
	Version    int             `json:"version"`
	ImportedAt string          `json:"imported_at"`
	ImportedBy string          `json:"imported_by"`
}

func describeFXRate(r db.FXRateRow) fxRateDocument {
	return fxRateDocument{r.No, r.Source, r.From, r.To, r.On.Format(time.DateOnly), r.Rate, r.Version, instantText(r.ImportedAt), r.ImportedBy}
}

type importDocument struct {
	Source string `json:"source"`
	Quotes int    `json:"quotes"` // in the file
	Added  int    `json:"added"`  // new or corrected; the others were known
	First  string `json:"first"`  // day
	Last   string `json:"last"`
}

// importFXRates is POST /v1/fx_rates/import, a CSV file: what is new or differs from what is known is added.
func (s *Server) importFXRates(ctx context.Context, c *call) error {
	q, err := c.query("source")
	if err != nil {
		return err
	}
	source := q.text("source")
	if source != "" && !isCode(source) {
		return credit.Invalid("source", "This must be %s.", codeForm)
	}
	if c.asked, err = c.text(typeCSV); err != nil {
		return err
	}
	quotes, err := fx.Parse([]byte(c.asked), source)
	if err != nil {
		return err
	}
	doc := importDocument{Source: quotes[0].Source, Quotes: len(quotes)}
	first, last := quotes[0].On, quotes[0].On
	for _, q := range quotes {
		if q.On.Before(first) {
			first = q.On
		}
		if q.On.After(last) {
			last = q.On
		}
	}
	doc.First, doc.Last = first.Format(time.DateOnly), last.Format(time.DateOnly)
	return c.change(ctx, "import_fx_rates", url.QueryEscape(source), func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		added, err := cat.AddFXRates(ctx, doc.Source, actorText(c.caller.no), quotes)
		if err != nil {
			return db.Outcome{}, err
		}
		doc.Added = len(added)
		return created(doc.Source, doc, doc)
	})
}

// manualSource is that of quotes which a person enters.
const manualSource = "manual"

// createFXRate is POST /v1/fx_rates: one quote, or the correction of one.
func (s *Server) createFXRate(ctx context.Context, c *call) error {
	var quote fx.Quote
	source := manualSource
	if err := c.input(
		optional("source", matching(&source, isCode, codeForm)),
		required("from", matching(&quote.From, currencyCode, currencyCodeForm)),
		required("to", matching(&quote.To, currencyCode, currencyCodeForm)),
		required("on", func(r *reader) error {
			s, err := r.text()
			if err != nil {
				return err
			}
			var ok bool
			if quote.On, ok = fx.ParseDay(s); !ok {
				return r.refuse("%.40q is not a day such as 2026-01-31.", s)
			}
			return nil
		}),
		required("rate", rate(&quote.Rate)),
	); err != nil {
		return err
	}
	if err := fx.CheckQuote(quote); err != nil {
		return err
	}
	return c.change(ctx, "create_fx_rate", "", func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		added, err := cat.AddFXRates(ctx, source, actorText(c.caller.no), []fx.Quote{quote})
		if err != nil {
			return db.Outcome{}, err
		}
		if len(added) == 0 {
			return db.Outcome{}, credit.Errorf(credit.AlreadyExists, "The newest version of this quote says the same.")
		}
		row, err := cat.FXRate(ctx, added[0])
		if err != nil {
			return db.Outcome{}, err
		}
		doc := describeFXRate(row)
		return created(source, doc, doc)
	})
}

// currencyCode tells whether text has the form of a currency's code.
func currencyCode(s string) bool {
	return len(s) == 3 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z' && s[2] >= 'A' && s[2] <= 'Z'
}

const currencyCodeForm = "a currency's code: three capital letters"

// listFXRates is GET /v1/fx_rates, newest entry first.
func (s *Server) listFXRates(ctx context.Context, c *call) error {
	q, err := c.query("source", "from", "to", "on", "limit", "cursor")
	if err != nil {
		return err
	}
	limit, err := q.limit()
	if err != nil {
		return err
	}
	before, err := q.numberCursor()
	if err != nil {
		return err
	}
	f := db.FXRateFilter{Source: q.text("source"), From: q.text("from"), To: q.text("to")}
	if on := q.text("on"); on != "" {
		var ok bool
		if f.On, ok = fx.ParseDay(on); !ok {
			return credit.Invalid("on", "%.40q is not a day such as 2026-01-31.", on)
		}
	}
	rows, err := s.store.FXRatePage(ctx, f, before, limit+1)
	if err != nil {
		return err
	}
	return answerPage(c, rows, limit, describeFXRate, func(r db.FXRateRow) cursor { return afterNumber(r.No) })
}

type (
	usedRateDocument struct {
		From   string          `json:"from"`
		To     string          `json:"to"`
		Rate   decimal.Decimal `json:"rate"`
		On     string          `json:"on"`
		Source string          `json:"source"` // "": both currencies are one
		Path   string          `json:"path"`
		Quotes []usedQuote     `json:"quotes"`
	}
	usedQuote struct {
		No     int64           `json:"no"`
		Source string          `json:"source"`
		From   string          `json:"from"`
		To     string          `json:"to"`
		On     string          `json:"on"`
		Rate   decimal.Decimal `json:"rate"`
	}
)

// lookUpFXRate is GET /v1/fx_rates/lookup: the rate by which an event of an instant would be priced now, and what it is made of.
func (s *Server) lookUpFXRate(ctx context.Context, c *call) error {
	q, err := c.query("from", "to", "at")
	if err != nil {
		return err
	}
	from, to := q.text("from"), q.text("to")
	for name, code := range map[string]string{"from": from, "to": to} {
		if !currencyCode(code) {
			return credit.Invalid(name, "This must be %s.", currencyCodeForm)
		}
	}
	at, err := q.instant("at")
	if err != nil {
		return err
	}
	now := time.Now()
	if at.IsZero() {
		at = now
	}
	if at.Before(now.Add(-lately)) {
		return credit.Invalid("at", "No event of that time can still come.")
	}
	if err := s.service.Refresh(ctx); err != nil {
		return err
	}
	u, err := s.service.Rates().Rate(from, to, at)
	if err != nil {
		return err
	}
	doc := usedRateDocument{From: from, To: to, Rate: u.Rate, On: u.On.Format(time.DateOnly), Source: u.Source, Path: u.Path, Quotes: []usedQuote{}}
	for _, q := range u.Quotes {
		doc.Quotes = append(doc.Quotes, usedQuote{q.No, q.Source, q.From, q.To, q.On.Format(time.DateOnly), q.Rate})
	}
	return c.document(doc)
}
