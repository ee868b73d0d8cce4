-- The arbiter's statements. They run in two pipelines per batch (see arbiter.go), so only their texts are used from the generated
-- code; sqlc checks them against the schema. Every parameter is an array with one element per row.

-- name: LockHeads :many
-- Takes the row lock that every writer of a customer takes first. Locks are taken in ascending order.
SELECT customer_id, ver, last_at, frozen FROM customer_heads
WHERE customer_id = ANY(@customers::uuid[]) ORDER BY customer_id FOR UPDATE;

-- name: LockFreeHeads :many
-- As LockHeads, but passes over rows that another process has locked.
SELECT customer_id, ver, last_at, frozen FROM customer_heads
WHERE customer_id = ANY(@customers::uuid[]) ORDER BY customer_id FOR UPDATE SKIP LOCKED;

-- name: ReadKeys :many
SELECT k.digest, k.request, k.customer_id, k.ver, coalesce(k.response, o.receipt::text)::text AS answer, k.status
FROM idempotency_keys AS k
LEFT JOIN operations AS o ON o.customer_id = k.customer_id AND o.ver = k.ver
WHERE k.digest = ANY(@digests::uuid[]);

-- name: ReadCustomers :many
-- With the assignments of rate cards that may still price an event, one of a backfill too, in order of time, and with the limits in force and the members that have
-- terms of their own; null: none.
SELECT c.id, c.entity, e.currency, c.rate_card_id, (
    SELECT json_agg(json_build_object('id', a.id, 'card', a.card_id, 'from', a.valid_from, 'to', a.valid_to) ORDER BY a.valid_from, a.id)
    FROM rate_card_assignments AS a WHERE a.customer_id = c.id AND (a.valid_to IS NULL OR a.valid_to > now() - interval '402 days')
  ) AS assignments,
  CASE WHEN c.gated THEN json_build_object('zone', e.time_zone,
    'limits', (SELECT json_agg(l ORDER BY l.id) FROM limits AS l WHERE l.customer_id = c.id AND l.ended_at IS NULL),
    'members', (SELECT json_agg(json_build_object('id', m.id, 'active', m.active, 'scope', m.scope, 'card', m.rate_card_id))
      FROM members AS m WHERE m.customer_id = c.id AND (NOT m.active OR m.scope <> '{}' OR m.rate_card_id IS NOT NULL))
  ) END AS gates
FROM customers AS c JOIN legal_entities AS e ON e.code = c.entity
WHERE c.id = ANY(@customers::uuid[]);

-- name: ReadWallets :many
SELECT id, customer_id, unit, name, priority, scope, cap, member_id FROM wallets WHERE customer_id = ANY(@customers::uuid[]);

-- name: ReadOpenGrants :many
SELECT id, customer_id, wallet_id, type, status, frozen, priority, scope, member_id, effective_at, expires_at, price_minor, tax_minor,
  price_currency, fx_rate, basis_minor, tax_basis_minor, payment_ref, rate_policy, rate_version, rate_card_id, bonus_of, created_at, issued_at, amount,
  granted, avail, held, consumed, expired, refunded, voided, transferred, from_grant, from_ver
FROM grants WHERE customer_id = ANY(@customers::uuid[]) AND status = 'open';

-- name: ReadGrants :many
SELECT id, customer_id, wallet_id, type, status, frozen, priority, scope, member_id, effective_at, expires_at, price_minor, tax_minor,
  price_currency, fx_rate, basis_minor, tax_basis_minor, payment_ref, rate_policy, rate_version, rate_card_id, bonus_of, created_at, issued_at, amount,
  granted, avail, held, consumed, expired, refunded, voided, transferred, from_grant, from_ver
FROM grants WHERE id = ANY(@grants::uuid[]);

-- name: ReadNow :one
-- The epoch is the timeline of Postgres: it orders snapshots of a customer across a failover or restore, when versions are used again.
SELECT clock_timestamp()::timestamptz AS now, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)::text AS epoch, (SELECT ver FROM configuration) AS configuration;

-- name: ReadCounters :many
SELECT r.customer_id, r.key, r.value FROM rating_counters AS r
JOIN ROWS FROM (unnest(@customers::uuid[]), unnest(@keys::text[])) AS x(c, k) ON r.customer_id = x.c AND r.key = x.k;

-- name: ReadDrawn :many
-- The customer's grants of a unit that something is consumed of, those drawn last first: what is given back goes to them, in this order.
SELECT g.id FROM grants AS g
JOIN wallets AS w ON w.id = g.wallet_id AND w.unit = @unit
JOIN LATERAL (
  SELECT m.ver, m.n FROM movements AS m WHERE m.grant_id = g.id AND m.credit = 'consumed' ORDER BY m.ver DESC, m.n DESC LIMIT 1
) AS l ON true
WHERE g.customer_id = @customer AND g.consumed > 0 ORDER BY l.ver DESC, l.n DESC LIMIT @page_size;

-- name: ReadRefunded :one
-- What of a grant's price has been paid back or is to be, and what has become the price of another grant.
SELECT coalesce(sum(money), 0)::bigint AS money, coalesce(sum(tax), 0)::bigint AS tax FROM (
  SELECT money_minor AS money, tax_minor AS tax FROM refunds WHERE grant_id = @grant_id
  UNION ALL
  SELECT price_minor, tax_minor FROM grants WHERE from_grant = @grant_id
) AS x;

-- name: ReadRecorded :one
-- A consumption as it was recorded, and what has become of it since. said is the receipt of the newest correction that says what was used.
SELECT o.kind::text AS kind, coalesce(o.unit, '')::text AS unit, o.service_at, o.member_id, o.dims, o.receipt, p.receipt AS said,
  coalesce(c.corrected, 0)::bigint AS corrected, coalesce(c.whole, false)::boolean AS whole, c.usage_of, c.raised_by
FROM operations AS o
LEFT JOIN corrected_operations AS c ON c.customer_id = o.customer_id AND c.ver = o.ver
LEFT JOIN operations AS p ON p.customer_id = c.customer_id AND p.ver = c.usage_of
WHERE o.customer_id = @customer_id AND o.ver = @ver;

-- name: ReadRecordedDraws :many
-- What an operation consumed, in the order in which it drew.
SELECT m.grant_id, m.amount FROM grants AS g
JOIN movements AS m ON m.grant_id = g.id AND m.ver = @ver
WHERE g.customer_id = @customer_id AND m.credit = 'consumed' AND m.debit IN ('available', 'held') ORDER BY m.n;

-- name: SaveCorrected :exec
INSERT INTO corrected_operations (customer_id, ver, amount, corrected, whole, usage_of, raised_by)
VALUES (@customer_id, @ver, @amount, @corrected, @whole, @usage_of, @raised_by)
ON CONFLICT (customer_id, ver) DO UPDATE
SET corrected = excluded.corrected, whole = excluded.whole, usage_of = excluded.usage_of, raised_by = excluded.raised_by;

-- name: SaveCounters :exec
INSERT INTO rating_counters (customer_id, key, value, ver)
SELECT c, k, v, n FROM ROWS FROM (unnest(@customers::uuid[]), unnest(@keys::text[]), unnest(@vals::text[]), unnest(@vers::bigint[])) AS x(c, k, v, n)
ON CONFLICT ON CONSTRAINT rating_counter_once DO UPDATE SET value = excluded.value, ver = excluded.ver;

-- name: AddKeys :exec
-- No ON CONFLICT: the COMMIT is already under way behind it, so a key that somebody else has taken must abort everything.
INSERT INTO idempotency_keys (digest, request, customer_id, ver, status, response)
SELECT d, r, c, v, s, a FROM ROWS FROM (unnest(@digests::uuid[]), unnest(@requests::uuid[]), unnest(@customers::uuid[]),
  unnest(@vers::bigint[]), unnest(@statuses::smallint[]), unnest(@responses::text[]))
  AS x(d, r, c, v, s, a);

-- name: AddOperations :exec
INSERT INTO operations (customer_id, ver, kind, amount, at, service_at, actor, request_id, member_id, key, unit, dims, receipt)
SELECT c, v, k::operation_kind, a, t, s, w, r, m, i, u, d::jsonb, j::json
FROM ROWS FROM (unnest(@customers::uuid[]),
  unnest(@vers::bigint[]), unnest(@kinds::text[]),
  unnest(@amounts::bigint[]),
  unnest(@ats::timestamptz[]),
  unnest(@service_ats::timestamptz[]), unnest(@actors::integer[]), unnest(@request_ids::uuid[]), unnest(@members::uuid[]),
  unnest(@keys::text[]), unnest(@units::text[]), unnest(@dims::text[]), unnest(@receipts::text[]))
  AS x(c, v, k, a, t, s, w, r, m, i, u, d, j);

-- name: AddMovements :exec
INSERT INTO movements (grant_id, ver, n, debit, credit, amount, after)
SELECT g, v, n, d::unit_account, c::unit_account, a, f
FROM ROWS FROM (unnest(@grants::uuid[]),
  unnest(@vers::bigint[]), unnest(@ns::smallint[]), unnest(@debits::text[]), unnest(@credits::text[]),
  unnest(@amounts::bigint[]), unnest(@afters::bigint[]))
  AS x(g, v, n, d, c, a, f);

-- name: DrawGrants :exec
-- Writes what consumption left, if the row still has what the decision was made on; a difference trips the sign check and so
-- aborts the batch.
UPDATE grants AS g SET
  avail = CASE WHEN g.avail = x.b AND g.status = 'open' THEN x.a ELSE -1 END,
  consumed = g.consumed + (x.b - x.a),
  status = CASE WHEN x.d THEN 'depleted' ELSE g.status END
FROM ROWS FROM (unnest(@grants::uuid[]),
  unnest(@befores::bigint[]), unnest(@afters::bigint[]), unnest(@depleted::boolean[])) AS x(id, b, a, d)
WHERE g.id = x.id;

-- name: ChangeGrants :exec
-- The whole mutable part of a grant, under the same condition.
UPDATE grants AS g SET
  avail = CASE WHEN g.avail = x.before_avail AND g.held = x.before_held AND g.status = x.before_status THEN x.avail ELSE -1 END,
  status = x.status, frozen = x.frozen, expires_at = x.expires_at, issued_at = x.issued_at, payment_ref = x.payment_ref,
  granted = x.granted, held = x.held, consumed = x.consumed, expired = x.expired, refunded = x.refunded, voided = x.voided,
  transferred = x.transferred
FROM ROWS FROM (unnest(@grants::uuid[]),
  unnest(@befores::bigint[]),
  unnest(@before_helds::bigint[]), unnest(@before_statuses::text[]), unnest(@statuses::text[]),
  unnest(@frozens::boolean[]), unnest(@expires::timestamptz[]), unnest(@issueds::timestamptz[]), unnest(@payment_refs::text[]),
  unnest(@granteds::bigint[]), unnest(@avails::bigint[]), unnest(@helds::bigint[]), unnest(@consumeds::bigint[]),
  unnest(@expireds::bigint[]), unnest(@refundeds::bigint[]), unnest(@voideds::bigint[]),
  unnest(@transferreds::bigint[]))
  AS x(id, before_avail, before_held, before_status, status, frozen, expires_at, issued_at, payment_ref, granted, avail, held, consumed,
    expired, refunded, voided, transferred)
WHERE g.id = x.id;

-- name: AddGrant :exec
INSERT INTO grants (id, customer_id, wallet_id, type, status, priority, scope, member_id, effective_at, expires_at, price_minor, tax_minor,
  price_currency, fx_rate, basis_minor, tax_basis_minor, payment_ref, rate_policy, rate_version, rate_card_id, bonus_of, metadata, created_at, issued_at, amount,
  granted, avail, from_grant, from_ver)
VALUES (@id, @customer_id, @wallet_id, @type, @status, @priority, @scope, @member_id, @effective_at, @expires_at, @price_minor, @tax_minor,
  @price_currency, @fx_rate, @basis_minor, @tax_basis_minor, @payment_ref, @rate_policy, @rate_version, @rate_card_id, @bonus_of, @metadata, @created_at, @issued_at, @amount,
  @granted, @avail, @from_grant, @from_ver);

-- name: AddWallet :exec
INSERT INTO wallets (id, customer_id, unit, name, priority, scope, cap, created_at, member_id)
VALUES (@id, @customer_id, @unit, @name, @priority, @scope, @cap, @created_at, @member_id);

-- name: ChangeWallet :exec
UPDATE wallets SET priority = @priority, scope = @scope WHERE id = @id;

-- name: ChangeCustomerCard :exec
UPDATE customers SET rate_card_id = @rate_card_id WHERE id = @id;

-- name: AddAssignment :exec
INSERT INTO rate_card_assignments (id, customer_id, card_id, valid_from, valid_to, assigned_at, assigned_by, reason)
VALUES (@id, @customer_id, @card_id, @valid_from, @valid_to, @assigned_at, @assigned_by, @reason);

-- name: EndAssignment :exec
UPDATE rate_card_assignments SET valid_to = @valid_to WHERE id = @id;

-- name: AddRefund :exec
INSERT INTO refunds (id, customer_id, grant_id, ver, units, money_minor, tax_minor, currency, basis_minor, tax_basis_minor, reason, status, created_at)
VALUES (@id, @customer_id, @grant_id, @ver, @units, @money_minor, @tax_minor, @currency, @basis_minor, @tax_basis_minor, @reason, @status, @created_at);

-- name: AddOutbox :exec
INSERT INTO outbox (topic, subject, payload)
SELECT t, s, p::jsonb FROM ROWS FROM (unnest(@topics::text[]), unnest(@subjects::text[]), unnest(@payloads::text[])) AS x(t, s, p);

-- name: AdvanceHeads :exec
UPDATE customer_heads AS h SET ver = x.v, last_at = x.t
FROM ROWS FROM (unnest(@customers::uuid[]),
  unnest(@vers::bigint[]),
  unnest(@ats::timestamptz[])) AS x(id, v, t)
WHERE h.customer_id = x.id;

-- name: ReadHeads :many
-- The heads without locks, for copies.
SELECT customer_id, ver, last_at, frozen FROM customer_heads WHERE customer_id = ANY(@customers::uuid[]) ORDER BY customer_id;
