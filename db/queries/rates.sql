-- name: ConfigurationVersion :one
SELECT ver FROM configuration;

-- name: AllRateCardVersions :many
-- Every version of every card that was not withdrawn, cards together, versions in order; without the documents. A card without any is one
-- row without a version.
SELECT c.id, c.code, c.unit, c.is_default, u.scale, u.name AS unit_name, v.version, v.effective_at, v.published_at
FROM rate_cards AS c
JOIN units AS u ON u.code = c.unit
LEFT JOIN rate_card_versions AS v ON v.card_id = c.id
  AND NOT EXISTS (SELECT FROM rate_card_withdrawals AS w WHERE w.card_id = v.card_id AND w.version = v.version)
ORDER BY c.id, v.version;

-- name: RateCardDocuments :many
-- Of the versions with these numbers, each of the card in the same place.
SELECT card_id, version, published_at, document FROM rate_card_versions
WHERE (card_id, version) IN (SELECT unnest(@cards::uuid[]), unnest(@versions::integer[])) ORDER BY card_id, version;

-- name: FXRatesSince :many
-- The newest version of every quote of a day or later.
SELECT DISTINCT ON (source, from_currency, to_currency, on_date) no, source, from_currency, to_currency, on_date, rate FROM fx_rates
WHERE on_date >= @since ORDER BY source, from_currency, to_currency, on_date, version DESC;

-- name: LockConfiguration :exec
-- Imports of exchange rates go one after the other.
SELECT ver FROM configuration FOR UPDATE;

-- name: AddFXRates :many
-- Adds those quotes that differ from the newest version of theirs; a row for each that was added.
INSERT INTO fx_rates (source, from_currency, to_currency, on_date, version, rate, imported_by)
SELECT @source::text, x.f, x.t, x.d, coalesce(have.version, 0) + 1, x.r, @imported_by::text
FROM ROWS FROM (unnest(@froms::text[]), unnest(@tos::text[]), unnest(@days::date[]), unnest(@rates::numeric[])) AS x(f, t, d, r)
LEFT JOIN LATERAL (
  SELECT h.version, h.rate FROM fx_rates AS h
  WHERE h.source = @source::text AND h.from_currency = x.f AND h.to_currency = x.t AND h.on_date = x.d ORDER BY h.version DESC LIMIT 1
) AS have ON true
WHERE have.rate IS DISTINCT FROM x.r
ORDER BY x.d, x.f, x.t
RETURNING no, version;

-- name: FindFXRate :one
SELECT no, source, from_currency, to_currency, on_date, version, rate, imported_at, imported_by FROM fx_rates WHERE no = @no;

-- name: PageFXRates :many
-- Newest entry first, all versions. Null filters let everything through.
SELECT no, source, from_currency, to_currency, on_date, version, rate, imported_at, imported_by FROM fx_rates
WHERE (sqlc.narg('source')::text IS NULL OR source = sqlc.narg('source')::text)
  AND (sqlc.narg('from_currency')::text IS NULL OR from_currency = sqlc.narg('from_currency')::text)
  AND (sqlc.narg('to_currency')::text IS NULL OR to_currency = sqlc.narg('to_currency')::text)
  AND (sqlc.narg('on_date')::date IS NULL OR on_date = sqlc.narg('on_date')::date)
  AND no < @before
ORDER BY no DESC LIMIT @page_size;

-- name: AddDraft :one
INSERT INTO rate_card_drafts (id, card_id, note, document, updated_by) VALUES (@id, @card_id, @note, @document, @updated_by)
RETURNING id, card_id, revision, note, document, created_at, updated_at, updated_by;

-- name: ReplaceDraft :one
UPDATE rate_card_drafts SET revision = revision + 1, note = @note, document = @document, updated_at = now(), updated_by = @updated_by
WHERE id = @id AND card_id = @card_id
RETURNING id, card_id, revision, note, document, created_at, updated_at, updated_by;

-- name: FindDraft :one
SELECT id, card_id, revision, note, document, created_at, updated_at, updated_by FROM rate_card_drafts WHERE id = @id AND card_id = @card_id;

-- name: LockDraft :one
SELECT id, card_id, revision, note, document, created_at, updated_at, updated_by FROM rate_card_drafts
WHERE id = @id AND card_id = @card_id FOR UPDATE;

-- name: DeleteDraft :one
DELETE FROM rate_card_drafts WHERE id = @id AND card_id = @card_id
RETURNING id, card_id, revision, note, document, created_at, updated_at, updated_by;

-- name: PageDrafts :many
SELECT id, card_id, revision, note, document, created_at, updated_at, updated_by FROM rate_card_drafts
WHERE card_id = @card_id AND id < @before ORDER BY id DESC LIMIT @page_size;

-- name: WithdrawVersion :one
-- Adds nothing when the version is in force before the instant, or is not there.
INSERT INTO rate_card_withdrawals (card_id, version, withdrawn_by, reason)
SELECT v.card_id, v.version, @withdrawn_by, @reason FROM rate_card_versions AS v
WHERE v.card_id = @card_id AND v.version = @version AND v.effective_at > clock_timestamp() + make_interval(secs => @lead_seconds::double precision)
RETURNING withdrawn_at;

-- name: PageAssignments :many
SELECT id, customer_id, card_id, valid_from, valid_to, assigned_at, assigned_by, reason FROM rate_card_assignments
WHERE customer_id = @customer_id AND id < @before ORDER BY id DESC LIMIT @page_size;
