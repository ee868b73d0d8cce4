-- name: ConfigurationVersion :one
SELECT ver FROM configuration;

-- name: AllRateCardVersions :many
-- Every version of every card, cards together, versions in order; without the documents.
SELECT c.id, c.code, c.unit, c.is_default, u.scale, u.name AS unit_name, v.version, v.effective_at, v.published_at
FROM rate_cards AS c
JOIN units AS u ON u.code = c.unit
JOIN rate_card_versions AS v ON v.card_id = c.id
ORDER BY c.id, v.version;

-- name: RateCardDocuments :many
-- Of the versions with these numbers, each of the card in the same place.
SELECT card_id, version, published_at, document FROM rate_card_versions
WHERE (card_id, version) IN (SELECT unnest(@cards::uuid[]), unnest(@versions::integer[])) ORDER BY card_id, version;
