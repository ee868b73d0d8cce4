-- name: ConfigurationVersion :one
SELECT ver FROM configuration;

-- name: AllRateCardVersions :many
-- Every version of every card, cards together, versions in order.
SELECT c.id, c.code, c.unit, c.is_default, u.scale, u.name AS unit_name, v.version, v.effective_at, v.document
FROM rate_cards AS c
JOIN units AS u ON u.code = c.unit
JOIN rate_card_versions AS v ON v.card_id = c.id
ORDER BY c.id, v.version;
