package rating

import "github.com/tallystick/tallystick/credit"

// CardID returns the id of a card that has versions: id itself, or for the zero id the default card's. The refusal is coded
// rate_card_not_found.
func (b *Book) CardID(id credit.RateCardID) (credit.RateCardID, error) {
	c, err := b.card(id)
	if err != nil {
		return credit.RateCardID{}, err
	}
	return c.id, nil
}
