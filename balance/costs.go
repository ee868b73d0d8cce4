package balance

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/provider"
	"github.com/tallystick/tallystick/credit/rating"
	"github.com/tallystick/tallystick/db"
)

// compute is what a usage cost to serve, and how that is known.
type compute struct {
	at     time.Time
	by     *db.CatalogueVersion // nil: the caller says it
	total  decimal.Decimal
	code   string // currency
	read   provider.Extraction
	unread []provider.Field
	more   int // fields that are not in unread
	metered
}

// metered is a provider's response as usage that a rate card can price.
type metered struct {
	lines    []rating.Line
	dims     credit.Dimensions // with the caller's
	unpriced []provider.Unit
}

// Bounds of what is kept of a provider's usage that nobody reads.
const (
	maxUnread     = 32
	maxUnreadPath = 128
	maxUnreadText = 64
)

// catalogueAt returns the catalogue of compute costs in force at an instant.
func (r *rules) catalogueAt(t time.Time) (*db.CatalogueVersion, error) {
	for i := len(r.catalogues) - 1; i >= 0; i-- {
		if v := &r.catalogues[i]; !v.EffectiveAt.After(t) {
			return v, nil
		}
	}
	return nil, credit.Errorf(credit.NoRate, "No catalogue of compute costs is in force at %s.", t.UTC().Format(time.RFC3339))
}

// compute reads the usage in a provider's response, by the catalogue in force at its time. It is nil where there is none, and nobody says what
// the usage cost.
func (o *Consume) compute(d *decision, at time.Time) (*compute, error) {
	if o.Response == nil {
		return costOf(o.Usage), nil
	}
	by, err := d.rules.catalogueAt(at)
	if err != nil {
		return nil, err
	}
	if o.computed != nil && o.computed.by.Catalogue == by.Catalogue && o.computed.at.Equal(at) {
		return o.computed, nil // it is decided again with counters that were missing
	}
	c := &compute{at: at, by: by, code: provider.Currency}
	if c.read, err = by.Catalogue.Extract(*o.Response); err != nil {
		if credit.CodeOf(err) == credit.UnknownModel && c.read.ModelRef == "" {
			return nil, credit.Invalid("/response/model", "The response does not name its model: name it here.")
		}
		return nil, o.inResponse(err)
	}
	m, err := by.Catalogue.Lines(c.read, at, "")
	if err != nil {
		return nil, o.inResponse(err)
	}
	c.total, c.lines, c.unpriced = m.Cost, m.Lines, m.Unpriced
	switch {
	case len(c.lines) == 0 && len(c.unpriced) > 0:
		return nil, credit.Errorf(credit.NoRate, "The catalogue has no price of %s of %s for what was used: %s.", c.read.Model.Model, c.read.Model.Provider, c.read.Usage)
	case len(c.lines) == 0:
		return nil, credit.Errorf(credit.NoUsage, "By the response nothing was used.")
	}
	if c.dims, err = withDimensions(o.Dims, m); err != nil {
		return nil, err
	}
	for _, f := range c.read.Unread() {
		if len(c.unread) < maxUnread && len(f.Path) <= maxUnreadPath && len(f.Value) <= maxUnreadText {
			c.unread = append(c.unread, f)
		} else {
			c.more++
		}
	}
	o.computed = c
	return c, nil
}

// inResponse moves the pointers of a refusal to where the caller has put the response.
func (o *Consume) inResponse(err error) error {
	var e *credit.Error
	if !errors.As(err, &e) || len(e.Issues) == 0 {
		return err
	}
	under := "/response/body"
	if len(o.Response.Usage) > 0 {
		under = "/response/usage"
	}
	moved := *e
	moved.Issues = make([]credit.Issue, len(e.Issues))
	for i, issue := range e.Issues {
		moved.Issues[i] = credit.Issue{Pointer: under + issue.Pointer, Detail: issue.Detail}
	}
	return &moved
}

// withDimensions adds what a response says to the caller's dimensions, which may not say otherwise.
func withDimensions(own credit.Dimensions, m provider.Metered) (credit.Dimensions, error) {
	conflict := func(name, says string) error {
		e := credit.Errorf(credit.DimensionConflict, "The response says that %s is %s, the request says %.100q: leave it out.", name, says, own[name])
		e.Issues = []credit.Issue{{Pointer: "/dimensions/" + name, Detail: e.Detail}}
		return e
	}
	for _, l := range m.Lines {
		for name, value := range l.Dims {
			if own[name] != "" {
				return nil, conflict(name, "another one for each line, such as "+value)
			}
		}
	}
	if len(own) == 0 {
		return m.Dims, credit.CheckDimensions(m.Dims)
	}
	dims := maps.Clone(own)
	for name, value := range m.Dims {
		if was, ok := dims[name]; ok && was != value {
			return nil, conflict(name, value)
		}
		dims[name] = value
	}
	return dims, credit.CheckDimensions(dims)
}

// costOf sums what the caller says that lines cost; nil when it says nothing.
func costOf(lines []rating.Line) *compute {
	var c *compute
	for i := range lines {
		if cost := &lines[i].Cost; cost.Currency != "" {
			if c == nil {
				c = &compute{code: cost.Currency}
			}
			c.total = c.total.Add(cost.Amount)
		}
	}
	return c
}

// checkCosts refuses costs of lines that have no sum.
func checkCosts(lines []rating.Line) error {
	currency := ""
	for i := range lines {
		switch c := lines[i].Cost.Currency; {
		case c == "" || c == currency:
		case currency == "":
			currency = c
		default:
			return credit.Invalid("/usage", "The costs of a usage's lines are in one currency, not in %s and %s.", currency, c)
		}
	}
	return nil
}

// describe is what a receipt says of a cost.
func (c *compute) describe() *CostDocument {
	if c == nil {
		return nil
	}
	doc := &CostDocument{Amount: c.total.String(), Currency: c.code}
	if c.by == nil {
		return doc
	}
	doc.Catalogue, doc.Flavour, doc.Usage, doc.Uncounted, doc.UnreadMore = c.by.Number, c.read.Flavour, &c.read.Usage, c.read.Model.Uncounted, c.more
	for _, u := range c.unpriced {
		doc.Unpriced = append(doc.Unpriced, u.String())
	}
	for _, f := range c.unread {
		doc.Unread = append(doc.Unread, UnreadDocument(f))
	}
	return doc
}

// kept says that a consumption goes into quarantine. It is no refusal: nothing but a batch sees it.
type kept struct {
	refusal   *credit.Error
	serviceAt time.Time
}

func (k *kept) Error() string { return "to be quarantined: " + k.refusal.Error() }

// mendable are the refusals of a consumption that a publication may mend; those with true are kept without being asked to.
var mendable = map[credit.Code]bool{credit.UnknownModel: true, credit.UnknownProvider: false, credit.NoRate: false, credit.NoFXRate: false}

// orKeep returns the refusal of a consumption, or that it is to be kept.
func (o *Consume) orKeep(d *decision, err error) error {
	var e *credit.Error
	if o.Keep == nil || !errors.As(err, &e) {
		return err
	}
	if unasked, ok := mendable[e.Code]; !ok || !unasked && !o.KeepAll {
		return err
	}
	return &kept{e, o.serviceAt(d.c.at)}
}

// keep quarantines a consumption: it takes no version, and its key is answered with that until it is charged.
func (b *batch) keep(j *job, o *Consume, k *kept) result {
	h, c := j.op.header(), b.customers[j.op.header().Customer]
	row := db.QuarantinedRow{ID: credit.NewID[credit.QuarantineID](), Customer: c.id, Key: h.Key, Actor: h.Actor, RequestID: h.RequestID, Body: o.Keep(),
		ServiceAt: k.serviceAt, At: c.at, Code: k.refusal.Code, Detail: k.refusal.Detail, Tries: 1, State: db.QuarantinePending}
	body, err := json.Marshal(DescribeQuarantined(row))
	if err != nil {
		return result{err: err}
	}
	b.changes.Quarantined = append(b.changes.Quarantined, row)
	b.remember(j, db.KeyRow{Customer: c.id, Status: statusQuarantined, Response: string(body)}, body)
	return result{answer: Answer{Body: body, Ver: c.ver, Quarantined: true}}
}

// standing answers an attempt to charge quarantined usage that cannot be made; false: it can.
func (b *batch) standing(j *job, o *ChargeQuarantined, known db.StoredAnswer, ok bool) (result, bool) {
	h := j.op.header()
	q, exists := b.locked.Quarantined[o.Quarantined]
	switch {
	case !exists || q.Customer != h.Customer:
		return result{err: credit.Errorf(credit.QuarantineNotFound, "The customer has no quarantined usage %s.", o.Quarantined)}, true
	case ok && known.Status == statusDone:
		h.Request = known.Request
		return replay(known, h), true
	case q.State != db.QuarantinePending:
		return result{err: credit.Errorf(credit.QuarantineState, "The usage was %s.", q.State).With("state", q.State)}, true
	case !ok || known.Status != statusQuarantined:
		return result{err: credit.Errorf(credit.TooOld, "The idempotency key of the usage is no longer kept.")}, true
	}
	return result{}, false
}

// charged notes that quarantined usage has become an operation, which answers its key from now on.
func (b *batch) charged(j *job, o *ChargeQuarantined, ver int64, body []byte) {
	h, c := j.op.header(), b.customers[j.op.header().Customer]
	b.changes.Retried = append(b.changes.Retried, db.RetriedRow{ID: o.Quarantined, Digest: j.digest, Ver: ver, Status: statusDone, At: c.at, By: h.Actor})
	if b.keys == nil {
		b.keys = make(map[db.Digest]db.StoredAnswer)
	}
	b.keys[j.digest] = db.StoredAnswer{Request: b.locked.Keys[j.digest].Request, Status: statusDone, Answer: body, Ver: ver}
}

// decide is that of the consumption at its own time.
func (o *ChargeQuarantined) decide(d *decision) (receipt, error) {
	r, err := o.Consume.decide(d)
	if e := (*credit.Error)(nil); errors.As(err, &e) {
		d.changes.Retried = append(d.changes.Retried, db.RetriedRow{ID: o.Quarantined, Code: e.Code, Detail: e.Detail})
	}
	return r, err
}

// CostDocument is what a usage cost to serve.
type CostDocument struct {
	Amount    string `json:"amount"` // unrounded
	Currency  string `json:"currency"`
	Catalogue int    `json:"catalogue,omitempty"` // number of the catalogue that prices it; none: the caller said it, and nothing below is there

	Flavour    string           `json:"flavour,omitempty"`     // of the response
	Usage      *provider.Usage  `json:"usage,omitempty"`       // by unit
	Unpriced   []string         `json:"unpriced,omitempty"`    // units used that cost nothing by the catalogue: they are in no line
	Uncounted  []string         `json:"uncounted,omitempty"`   // what the provider charges besides and no response counts
	Unread     []UnreadDocument `json:"unread,omitempty"`      // numbers of the provider's usage that no rule reads
	UnreadMore int              `json:"unread_more,omitempty"` // how many more there were
}

// UnreadDocument is a number of a provider's usage that no rule reads.
type UnreadDocument struct {
	Path  string `json:"path"` // JSON pointer from the usage
	Value string `json:"value"`
}

// QuarantineDocument says that a consumption waits until it can be priced, or what became of it.
type QuarantineDocument struct {
	ID         credit.QuarantineID `json:"id"`
	CustomerID *credit.CustomerID  `json:"customer_id"`        // nil: nobody has the name that a usage event gives
	Customer   string              `json:"customer,omitempty"` // as a usage event names it
	State      string              `json:"state"`              // pending, charged, discarded
	Code       credit.Code         `json:"code"`               // of the problem, the last time
	Detail     string              `json:"detail"`             // of the problem
	ServiceAt  Instant             `json:"service_at"`
	RecordedAt Instant             `json:"recorded_at"`
	Tries      int                 `json:"tries"`
	Operation  string              `json:"operation,omitempty"` // that charged it
	DecidedAt  *Instant            `json:"decided_at,omitempty"`
	Reason     string              `json:"reason,omitempty"` // of discarding it
}

// DescribeQuarantined makes the document of quarantined usage.
func DescribeQuarantined(q db.QuarantinedRow) QuarantineDocument {
	doc := QuarantineDocument{ID: q.ID, Customer: q.Named, State: q.State, Code: q.Code, Detail: q.Detail, ServiceAt: Instant(q.ServiceAt), RecordedAt: Instant(q.At),
		Tries: q.Tries, DecidedAt: instantOrNil(q.DecidedAt), Reason: q.Reason}
	if !q.Customer.IsZero() {
		doc.CustomerID = &q.Customer
	}
	if q.Ver != 0 {
		doc.Operation = q.Customer.String() + "/" + strconv.FormatInt(q.Ver, 10)
	}
	return doc
}

// Catalogues returns the catalogues of compute costs as last read, those that may price events that may still come.
func (s *Service) Catalogues() []db.CatalogueVersion { return slices.Clone(s.rules.Load().catalogues) }
