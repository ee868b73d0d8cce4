package rating

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
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
	byDefault *card // nil: none is
}

type card struct {
	id       credit.RateCardID
	code     string
	unit     credit.Unit
	byTime   []Version // by EffectiveAt, then Number
	byNumber []Version
}

// NewBook compiles cards. What the store's constraints rule out is an error that is no refusal: two cards of one id, two
// defaults, two versions of one number, a number below 1, a version without document, a unit's scale outside 0 to [credit.MaxScale].
func NewBook(ver int64, cards []CardVersions) (*Book, error) {
	b := &Book{Ver: ver, cards: make(map[credit.RateCardID]*card, len(cards))}
	for _, in := range cards {
		c := &card{id: in.ID, code: in.Code, unit: in.Unit, byTime: slices.Clone(in.Versions), byNumber: slices.Clone(in.Versions)}
		if in.ID.IsZero() || b.cards[in.ID] != nil {
			return nil, fmt.Errorf("rate card %q: the id %s is another card's or nobody's", in.Code, in.ID)
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
		b.cards[in.ID] = c
	}
	return b, nil
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
	i, ok := slices.BinarySearchFunc(c.byNumber, number, func(v Version, n int) int { return cmp.Compare(v.Number, n) })
	if !ok {
		return nil, credit.Errorf(credit.RateCardNotFound, "Rate card %q has no version %d.", c.code, number)
	}
	return &c.byNumber[i], nil
}
