-- +goose Up

-- A rate card of a member's own prices its usage, whatever its customer's is; null: the customer's.
ALTER TABLE members ADD COLUMN rate_card_id uuid REFERENCES rate_cards;
DROP INDEX members_restricted;
CREATE INDEX members_with_terms ON members (customer_id) WHERE NOT active OR scope <> '{}' OR rate_card_id IS NOT NULL;

-- +goose Down
DROP INDEX members_with_terms;
CREATE INDEX members_restricted ON members (customer_id) WHERE NOT active OR scope <> '{}';
ALTER TABLE members DROP COLUMN rate_card_id;
