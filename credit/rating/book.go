package rating

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/tallystick/tallystick/credit"
)

// CardVersions is a rate card with everything that was published of it.
type CardVersions struct {
	ID       credit.RateCardID
	Code     string
	Unit     credit.Unit // what its prices are credits of
	Default  bool        // the card of whoever has no other; at most one is
	Versions []Version   // in any order; none: nothing can be priced with the card yet
}

// Version is a published version of a card.
type Version struct {
	Number      int // from 1, different within its card
	EffectiveAt time.Time
	Doc         *Document
}

// Book is the rate cards as they stand at one version of the configuration. It is not changed once made, and may be used by any
// number of goroutines. The zero Book has no cards.
type Book struct {
	Ver int64 // of the configuration

	cards     map[credit.RateCardID]*card
	byCode    map[string]*card
	byDefault *card // nil: none is
	stateful  bool  // some card is
}

type card struct {
	id       credit.RateCardID
	code     string
	unit     credit.Unit
	byTime   []Version // by EffectiveAt, then Number
	byNumber []Version
	rank     []int // by place in byNumber: the place in byTime
	stateful bool  // some version, or a card that prices for it, needs the customer's counters
}

// NewBook compiles cards. What the store's constraints and [Book.CheckPublish] rule out is an error that is no refusal: two cards of
// one id or code, two defaults, two versions of one number, a number below 1, a version without document, a unit's scale outside 0 to
// [credit.MaxScale], a version that extends what it cannot.
func NewBook(ver int64, cards []CardVersions) (*Book, error) {
	b := &Book{Ver: ver, cards: make(map[credit.RateCardID]*card, len(cards)), byCode: make(map[string]*card, len(cards))}
	for _, in := range cards {
		c := &card{id: in.ID, code: in.Code, unit: in.Unit, byTime: slices.Clone(in.Versions), byNumber: slices.Clone(in.Versions)}
		if in.ID.IsZero() || b.cards[in.ID] != nil {
			return nil, fmt.Errorf("rate card %q: the id %s is another card's or nobody's", in.Code, in.ID)
		}
		if b.byCode[in.Code] != nil {
			return nil, fmt.Errorf("two rate cards have the code %q", in.Code)
		}
		if in.Unit.Scale < 0 || in.Unit.Scale > credit.MaxScale {
			return nil, fmt.Errorf("rate card %q: unit %q has scale %d", in.Code, in.Unit.Code, in.Unit.Scale)
		}
		slices.SortFunc(c.byNumber, func(v, w Version) int { return cmp.Compare(v.Number, w.Number) })
		slices.SortFunc(c.byTime, func(v, w Version) int {
			return cmp.Or(v.EffectiveAt.Compare(w.EffectiveAt), cmp.Compare(v.Number, w.Number))
		})
		for i, v := range c.byNumber {
			if v.Number < 1 || v.Doc == nil || i > 0 && v.Number == c.byNumber[i-1].Number {
				return nil, fmt.Errorf("rate card %q: version %d is there twice, below 1 or without document", in.Code, v.Number)
			}
		}
		if in.Default {
			if b.byDefault != nil {
				return nil, fmt.Errorf("rate cards %q and %q are both the default", b.byDefault.code, in.Code)
			}
			b.byDefault = c
		}
		for _, v := range c.byNumber {
			c.rank = append(c.rank, slices.IndexFunc(c.byTime, func(w Version) bool { return w.Number == v.Number }))
			needs := v.Doc.Needs()
			c.stateful = c.stateful || needs.State
		}
		b.cards[in.ID], b.byCode[in.Code] = c, c
	}
	for _, in := range cards {
		c := b.cards[in.ID]
		for _, v := range c.byNumber {
			if _, fault := b.extendsFault(c, v.Doc.Extends); fault != "" {
				return nil, fmt.Errorf("rate card %q, version %d: %s", c.code, v.Number, fault)
			}
		}
	}
	for _, in := range cards {
		c := b.cards[in.ID]
		for base := range b.pricing(c) {
			c.stateful = c.stateful || base.stateful
		}
		b.stateful = b.stateful || c.stateful
	}
	return b, nil
}

// extended lists the cards that versions of c extend, each once.
func (b *Book) extended(c *card) []*card {
	var cards []*card
	for _, v := range c.byNumber {
		if base := b.byCode[v.Doc.Extends.Card]; base != nil && !slices.Contains(cards, base) {
			cards = append(cards, base)
		}
	}
	return cards
}

// pricing returns the cards that may price for c, itself first.
func (b *Book) pricing(c *card) map[*card]bool {
	reached := map[*card]bool{c: true}
	for next := []*card{c}; len(next) > 0; next = next[1:] {
		for _, base := range b.extended(next[0]) {
			if !reached[base] {
				reached[base] = true
				next = append(next, base)
			}
		}
	}
	return reached
}

// extendsFault says why a version of c cannot extend e, and which field of e is at fault; "" when it can.
func (b *Book) extendsFault(c *card, e Extends) (field, fault string) {
	if e.Card == "" {
		return "", ""
	}
	base := b.byCode[e.Card]
	if base == nil {
		return "", fmt.Sprintf("There is no rate card %q to extend.", e.Card)
	}
	if path := b.path(base, c, nil); path != nil {
		return "", fmt.Sprintf("Rate cards would extend one another: %s.", strings.Join(append([]string{c.code}, path...), " → "))
	}
	if base.unit != c.unit {
		return "", fmt.Sprintf("Rate card %q is in %s, and %q is in %s.", base.code, base.unit.Code, c.code, c.unit.Code)
	}
	if e.Version != 0 && !slices.ContainsFunc(base.byNumber, func(v Version) bool { return v.Number == e.Version }) {
		return "/version", fmt.Sprintf("Rate card %q has no version %d.", base.code, e.Version)
	}
	return "", ""
}

// path returns the codes of the cards from one to another, each extending the next by some version; nil when there is no way. Those
// visited are none.
func (b *Book) path(from, to *card, visited map[*card]bool) []string {
	if from == to {
		return []string{to.code}
	}
	if visited == nil {
		visited = map[*card]bool{}
	}
	visited[from] = true
	for _, base := range b.extended(from) {
		if !visited[base] {
			if path := b.path(base, to, visited); path != nil {
				return append([]string{from.code}, path...)
			}
		}
	}
	return nil
}

// CheckPublish returns why a document cannot become a version of a card of this book: it extends a card that is not there, is in
// another unit, has no such version, or extends this one by any of its versions, directly or through others. The refusal is a [credit.Error]
// coded invalid_request that points to /extends and names the cycle, or coded rate_card_not_found when id is no card's.
//
// Cycles are looked for among cards, not versions: which version extends which depends on the time. Whoever publishes checks with a
// book that has everything published before and lets nobody publish in between.
func (b *Book) CheckPublish(id credit.RateCardID, d *Document) error {
	c, err := b.card(id)
	if err != nil {
		return err
	}
	if field, fault := b.extendsFault(c, d.Extends); fault != "" {
		return credit.Invalid("/extends"+field, "%s", fault)
	}
	return nil
}

// AnyStateful tells whether there is a card that [Book.Stateful] is true of.
func (b *Book) AnyStateful() bool { return b.stateful }

// Stateful tells whether pricing with a card may ask for the customer's counters. Without, nothing need be loaded before it prices. The zero
// card is the default one; a card that is not there has no counters.
func (b *Book) Stateful(id credit.RateCardID) bool {
	c, err := b.card(id)
	return err == nil && c.stateful
}

// VersionAt returns the version of a card in force at t: the one with the latest EffectiveAt that is not after t, and of several
// with the same the highest number. The zero card is the default one. Refusals are coded rate_card_not_found, and no_rate when none is in force yet.
func (b *Book) VersionAt(id credit.RateCardID, t time.Time) (int, error) {
	c, err := b.card(id)
	if err != nil {
		return 0, err
	}
	v, err := c.at(t)
	if err != nil {
		return 0, err
	}
	return v.Number, nil
}

// Unit returns what a card's prices are credits of. The zero card is the default one. The refusal is coded rate_card_not_found.
func (b *Book) Unit(id credit.RateCardID) (credit.Unit, error) {
	c, err := b.card(id)
	if err != nil {
		return credit.Unit{}, err
	}
	return c.unit, nil
}

func (b *Book) card(id credit.RateCardID) (*card, error) {
	if id.IsZero() {
		if b.byDefault == nil {
			return nil, credit.Errorf(credit.RateCardNotFound, "No rate card is named, and none is the default.")
		}
		return b.byDefault, nil
	}
	if c := b.cards[id]; c != nil {
		return c, nil
	}
	return nil, credit.Errorf(credit.RateCardNotFound, "There is no rate card %s.", id)
}

func (c *card) at(t time.Time) (*Version, error) {
	i := sort.Search(len(c.byTime), func(i int) bool { return c.byTime[i].EffectiveAt.After(t) })
	if i > 0 {
		return &c.byTime[i-1], nil
	}
	if len(c.byTime) == 0 {
		return nil, credit.Errorf(credit.NoRate, "Nothing has been published of rate card %q.", c.code)
	}
	return nil, credit.Errorf(credit.NoRate, "No version of rate card %q is in force at %s: the first is from %s.",
		c.code, t.UTC().Format(time.RFC3339Nano), c.byTime[0].EffectiveAt.UTC().Format(time.RFC3339Nano))
}

// version returns the version of a number, and for 0 the one in force at t.
func (c *card) version(number int, t time.Time) (*Version, error) {
	if number == 0 {
		return c.at(t)
	}
	i, ok := c.place(number)
	if !ok {
		return nil, credit.Errorf(credit.RateCardNotFound, "Rate card %q has no version %d.", c.code, number)
	}
	return &c.byNumber[i], nil
}

// place finds a version in byNumber.
func (c *card) place(number int) (int, bool) {
	return slices.BinarySearchFunc(c.byNumber, number, func(v Version, n int) int { return cmp.Compare(v.Number, n) })
}
