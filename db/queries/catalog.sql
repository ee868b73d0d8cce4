-- Reference data and the things that credits belong to. Pages are newest first (or by code) and start below (after) a key.

-- name: PageUnits :many
SELECT code, scale, name, created_at FROM units WHERE code > @after ORDER BY code LIMIT @page_size;

-- name: AddUnit :one
INSERT INTO units (code, scale, name) VALUES (@code, @scale, @name) RETURNING code, scale, name, created_at;

-- name: PageEntities :many
SELECT code, name, currency, time_zone, created_at FROM legal_entities WHERE code > @after ORDER BY code LIMIT @page_size;

-- name: AddEntity :one
INSERT INTO legal_entities (code, name, currency, time_zone) VALUES (@code, @name, @currency, @time_zone)
RETURNING code, name, currency, time_zone, created_at;

-- name: FindRateCard :one
-- By id, or by code when the id is null.
SELECT id, code, unit, is_default, created_at,
  (SELECT coalesce(max(v.version), 0) FROM rate_card_versions AS v WHERE v.card_id = c.id)::integer AS latest
FROM rate_cards AS c WHERE id = sqlc.narg('id')::uuid OR (sqlc.narg('id')::uuid IS NULL AND code = @code);

-- name: PageRateCards :many
SELECT id, code, unit, is_default, created_at,
  (SELECT coalesce(max(v.version), 0) FROM rate_card_versions AS v WHERE v.card_id = c.id)::integer AS latest
FROM rate_cards AS c WHERE id < @before ORDER BY id DESC LIMIT @page_size;

-- name: AddRateCard :one
INSERT INTO rate_cards (id, code, unit, is_default) VALUES (@id, @code, @unit, @is_default) RETURNING created_at;

-- name: ClearDefaultRateCard :exec
UPDATE rate_cards SET is_default = false WHERE is_default;

-- name: LockRateCard :one
-- Versions of a card are numbered under this lock. Rows that refer to the card (grants, holds, assignments) do not wait for it.
SELECT id, code, unit FROM rate_cards WHERE id = @id FOR NO KEY UPDATE;

-- name: AddRateCardVersion :one
-- Without an instant a card's first version is in force at once, a later one after the lead.
INSERT INTO rate_card_versions (card_id, version, effective_at, document, published_by)
SELECT @card_id, coalesce(max(version), 0) + 1,
  coalesce(sqlc.narg('effective_at')::timestamptz,
    clock_timestamp() + CASE WHEN count(*) = 0 THEN interval '0' ELSE make_interval(secs => @lead_seconds::double precision) END),
  @document, @published_by
FROM rate_card_versions WHERE card_id = @card_id
RETURNING version, effective_at, published_at;

-- name: PageRateCardVersions :many
SELECT v.version, v.effective_at, v.document, v.published_at, v.published_by, w.withdrawn_at, w.withdrawn_by, w.reason AS withdrawn_because
FROM rate_card_versions AS v LEFT JOIN rate_card_withdrawals AS w ON w.card_id = v.card_id AND w.version = v.version
WHERE v.card_id = @card_id AND v.version < @before ORDER BY v.version DESC LIMIT @page_size;

-- name: FindRateCardVersion :one
SELECT v.version, v.effective_at, v.document, v.published_at, v.published_by, w.withdrawn_at, w.withdrawn_by, w.reason AS withdrawn_because
FROM rate_card_versions AS v LEFT JOIN rate_card_withdrawals AS w ON w.card_id = v.card_id AND w.version = v.version
WHERE v.card_id = @card_id AND v.version = @version;

-- name: BumpConfiguration :exec
-- Every process notices and reads the rate cards again.
UPDATE configuration SET ver = ver + 1;

-- name: AddCustomer :one
INSERT INTO customers (id, entity, external_id, name, rate_card_id, first_rate_card_id, metadata)
VALUES (@id, @entity, @external_id, @name, @rate_card_id, @rate_card_id, @metadata) RETURNING created_at;

-- name: AddCustomerHead :exec
INSERT INTO customer_heads (customer_id) VALUES (@customer_id);

-- name: FindCustomer :one
SELECT sqlc.embed(c), h.ver, h.frozen FROM customers AS c JOIN customer_heads AS h ON h.customer_id = c.id WHERE c.id = @id;

-- name: FindCustomerID :one
SELECT id FROM customers WHERE external_id = @external_id;

-- name: PageCustomers :many
SELECT sqlc.embed(c), h.ver, h.frozen FROM customers AS c JOIN customer_heads AS h ON h.customer_id = c.id
WHERE c.id < @before ORDER BY c.id DESC LIMIT @page_size;

-- name: AddMember :one
INSERT INTO members (id, customer_id, external_id, name) VALUES (@id, @customer_id, @external_id, @name) RETURNING created_at;

-- name: FindMember :one
-- Of this customer: by id, or by external id when the id is null.
SELECT id FROM members
WHERE customer_id = @customer_id AND (id = sqlc.narg('id')::uuid OR (sqlc.narg('id')::uuid IS NULL AND external_id = @external_id::text));

-- name: PageMembers :many
SELECT id, customer_id, external_id, name, created_at, active, scope, rate_card_id FROM members
WHERE customer_id = @customer_id AND id < @before ORDER BY id DESC LIMIT @page_size;

-- name: FindWallet :one
SELECT sqlc.embed(w), u.scale, g.id AS overage_id
FROM wallets AS w JOIN units AS u ON u.code = w.unit LEFT JOIN grants AS g ON g.wallet_id = w.id AND g.type = 'overage'
WHERE w.id = @id;

-- name: PageWallets :many
-- Of one customer, or of all when it is null.
SELECT sqlc.embed(w), u.scale, g.id AS overage_id
FROM wallets AS w JOIN units AS u ON u.code = w.unit LEFT JOIN grants AS g ON g.wallet_id = w.id AND g.type = 'overage'
WHERE (sqlc.narg('customer_id')::uuid IS NULL OR w.customer_id = sqlc.narg('customer_id')::uuid) AND w.id < @before
ORDER BY w.id DESC LIMIT @page_size;

-- name: FindGrant :one
SELECT sqlc.embed(g), sqlc.embed(w), u.scale, e.currency, now()::timestamptz AS read_at
FROM grants AS g
JOIN wallets AS w ON w.id = g.wallet_id
JOIN units AS u ON u.code = w.unit
JOIN customers AS c ON c.id = g.customer_id
JOIN legal_entities AS e ON e.code = c.entity
WHERE g.id = @id;

-- name: PageGrants :many
-- Null filters let everything through. The state is credit.State's, as of now.
SELECT sqlc.embed(g), sqlc.embed(w), u.scale, e.currency, now()::timestamptz AS read_at
FROM grants AS g
JOIN wallets AS w ON w.id = g.wallet_id
JOIN units AS u ON u.code = w.unit
JOIN customers AS c ON c.id = g.customer_id
JOIN legal_entities AS e ON e.code = c.entity
WHERE (sqlc.narg('customer_id')::uuid IS NULL OR g.customer_id = sqlc.narg('customer_id')::uuid)
  AND (sqlc.narg('wallet_id')::uuid IS NULL OR g.wallet_id = sqlc.narg('wallet_id')::uuid)
  AND (sqlc.narg('state')::text IS NULL OR sqlc.narg('state')::text = CASE
    WHEN g.status = 'pending' THEN 'pending_payment'
    WHEN g.status <> 'open' THEN g.status
    WHEN g.frozen THEN 'frozen'
    WHEN g.expires_at <= now() THEN 'expired'
    WHEN g.effective_at > now() THEN 'allocated'
    ELSE 'active' END)
  AND g.id < @before
ORDER BY g.id DESC LIMIT @page_size;

-- name: FindRefund :one
SELECT sqlc.embed(r), u.scale, g.avail
FROM refunds AS r JOIN grants AS g ON g.id = r.grant_id JOIN wallets AS w ON w.id = g.wallet_id JOIN units AS u ON u.code = w.unit
WHERE r.id = @id;

-- name: PageRefunds :many
-- Null filters let everything through.
SELECT sqlc.embed(r), u.scale, g.avail
FROM refunds AS r JOIN grants AS g ON g.id = r.grant_id JOIN wallets AS w ON w.id = g.wallet_id JOIN units AS u ON u.code = w.unit
WHERE (sqlc.narg('customer_id')::uuid IS NULL OR r.customer_id = sqlc.narg('customer_id')::uuid)
  AND (sqlc.narg('grant_id')::uuid IS NULL OR r.grant_id = sqlc.narg('grant_id')::uuid)
  AND (sqlc.narg('status')::text IS NULL OR r.status = sqlc.narg('status')::text)
  AND r.id < @before
ORDER BY r.id DESC LIMIT @page_size;
