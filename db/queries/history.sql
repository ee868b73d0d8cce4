-- What happened, newest first. Rows of the ledger never change, so a page, once written, reads the same for ever.

-- name: ScopeVersions :many
-- The versions below before at which one of these grants moved, or at which one of these subjects (ids as text) was changed without a movement.
SELECT ver FROM (
  SELECT m.ver FROM unnest(@grants::uuid[]) AS g (id)
  CROSS JOIN LATERAL (
    SELECT DISTINCT x.ver FROM movements AS x WHERE x.grant_id = g.id AND x.ver < @before ORDER BY x.ver DESC LIMIT @page_size
  ) AS m
  UNION
  SELECT o.ver FROM unnest(@subjects::text[]) AS s (id)
  CROSS JOIN LATERAL (
    SELECT x.ver FROM operations AS x
    WHERE x.kind IN ('configure', 'create', 'void', 'extend', 'freeze', 'unfreeze') AND x.receipt ->> 'id' = s.id AND x.ver < @before
    ORDER BY x.ver DESC LIMIT @page_size
  ) AS o
) AS v ORDER BY ver DESC LIMIT @page_size;

-- name: WalletGrants :many
SELECT id FROM grants WHERE wallet_id = @wallet_id ORDER BY id;

-- name: CustomerVersions :many
SELECT ver FROM operations WHERE customer_id = @customer_id AND ver < @before ORDER BY ver DESC LIMIT @page_size;

-- name: ReadOperations :many
SELECT customer_id, ver, kind, amount, at, service_at, actor, request_id, member_id, key, unit, receipt FROM operations
WHERE customer_id = @customer_id AND ver = ANY(@vers::bigint[]) ORDER BY ver DESC;

-- name: ReadMovements :many
-- Of the customer's grants in the scope: one grant, one wallet, or all when both are null.
SELECT m.grant_id, g.wallet_id, g.type, w.unit, u.scale, m.ver, m.n, m.debit, m.credit, m.amount, m.after
FROM grants AS g
JOIN wallets AS w ON w.id = g.wallet_id
JOIN units AS u ON u.code = w.unit
JOIN movements AS m ON m.grant_id = g.id AND m.ver BETWEEN @lowest AND @highest
WHERE g.customer_id = @customer_id
  AND (sqlc.narg('wallet_id')::uuid IS NULL OR g.wallet_id = sqlc.narg('wallet_id')::uuid)
  AND (sqlc.narg('grant_id')::uuid IS NULL OR g.id = sqlc.narg('grant_id')::uuid)
ORDER BY m.ver DESC, m.n, m.grant_id;

-- name: AvailableAt :many
-- What the scope's grants had available after version ver, by wallet. Overage counts only when one grant is asked for. With an instant,
-- grants that were not effective yet or had expired at it count nothing: an expiry only ever moves to later, and only before it has come.
SELECT g.wallet_id, w.unit, u.scale,
  coalesce(sum(m.after) FILTER (WHERE sqlc.narg('at')::timestamptz IS NULL
    OR (g.effective_at <= sqlc.narg('at')::timestamptz AND coalesce(g.expires_at > sqlc.narg('at')::timestamptz, true))), 0)::bigint AS available
FROM grants AS g
JOIN wallets AS w ON w.id = g.wallet_id
JOIN units AS u ON u.code = w.unit
JOIN LATERAL (
  SELECT x.after FROM movements AS x WHERE x.grant_id = g.id AND x.ver <= @ver ORDER BY x.ver DESC, x.n DESC LIMIT 1
) AS m ON true
WHERE g.customer_id = @customer_id
  AND (sqlc.narg('wallet_id')::uuid IS NULL OR g.wallet_id = sqlc.narg('wallet_id')::uuid)
  AND (sqlc.narg('grant_id')::uuid IS NULL OR g.id = sqlc.narg('grant_id')::uuid)
  AND (sqlc.narg('grant_id')::uuid IS NOT NULL OR g.type <> 'overage')
GROUP BY g.wallet_id, w.unit, u.scale ORDER BY w.unit, g.wallet_id;

-- name: VersionAt :one
-- The customer's version at an instant, 0 before the first operation: a binary search, for versions have no gaps and time never
-- runs backwards in them.
WITH RECURSIVE search (lo, hi) AS (
  SELECT 0::bigint, h.ver FROM customer_heads AS h WHERE h.customer_id = @customer_id
  UNION ALL
  SELECT CASE WHEN o.at <= @at THEN o.ver ELSE s.lo END, CASE WHEN o.at <= @at THEN s.hi ELSE o.ver - 1 END
  FROM search AS s JOIN operations AS o ON o.customer_id = @customer_id AND o.ver = (s.lo + s.hi + 1) / 2
  WHERE s.lo < s.hi
)
SELECT lo::bigint AS ver FROM search WHERE lo = hi;

-- name: ReadAudit :many
-- Everything that changed something in [from, until), below the position (at, source, subject, no): calls that are no operations (source 0)
-- and operations (source 1). The window keeps the search on a few ranges of the operations' BRIN index.
SELECT at, source, subject_id, no, actor, request_id, action, subject, detail, customer_id FROM (
  SELECT a.at, 0 AS source, '00000000-0000-0000-0000-000000000000'::uuid AS subject_id, a.id AS no, a.actor, a.request_id, a.action, a.subject,
    a.detail::text AS detail, NULL::uuid AS customer_id
  FROM audit_log AS a
  WHERE a.at >= @from_at AND a.at < @until_at
  UNION ALL
  SELECT o.at, 1, o.customer_id, o.ver, o.actor, o.request_id, o.kind::text, '', '{}', o.customer_id
  FROM operations AS o
  WHERE o.at >= @from_at AND o.at < @until_at
) AS x
WHERE (at, source, subject_id, no) < (@before_at::timestamptz, @before_source::integer, @before_subject::uuid, @before_no::bigint)
  AND (sqlc.narg('actor')::integer IS NULL OR actor = sqlc.narg('actor')::integer)
  AND (sqlc.narg('action')::text IS NULL OR action = sqlc.narg('action')::text)
ORDER BY at DESC, source DESC, subject_id DESC, no DESC LIMIT @page_size;

-- name: FirstActivity :one
-- A lower bound of everything that ReadAudit can find.
SELECT least((SELECT min(created_at) FROM legal_entities), (SELECT min(at) FROM audit_log), now() - interval '1 day')::timestamptz AS at;
