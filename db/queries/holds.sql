-- name: ReadHolds :many
SELECT id, customer_id, member_id, unit, status, amount, captured, released, extra, expires_at, service_at, rate_card_id, rate_version, dims, reason, created_at, gates
FROM holds WHERE id = ANY(@holds::uuid[]);

-- name: ReadHoldLines :many
SELECT hold_id, n, grant_id, amount, captured, released FROM hold_lines WHERE hold_id = ANY(@holds::uuid[]) ORDER BY hold_id, n;

-- name: ReadHoldGrants :many
-- The grants of holds, open or not.
SELECT g.id, g.customer_id, g.wallet_id, g.type, g.status, g.frozen, g.priority, g.scope, g.member_id, g.effective_at, g.expires_at, g.price_minor, g.tax_minor,
  g.price_currency, g.fx_rate, g.basis_minor, g.tax_basis_minor, g.payment_ref, g.rate_policy, g.rate_version, g.rate_card_id, g.bonus_of, g.created_at, g.issued_at, g.amount,
  g.granted, g.avail, g.held, g.consumed, g.expired, g.refunded, g.voided, g.transferred, g.from_grant, g.from_ver
FROM grants AS g WHERE g.id IN (SELECT l.grant_id FROM hold_lines AS l WHERE l.hold_id = ANY(@holds::uuid[]));

-- name: SaveHold :exec
INSERT INTO holds (id, customer_id, member_id, unit, status, amount, captured, released, extra, expires_at, service_at, rate_card_id, rate_version, dims, reason, created_at, gates)
VALUES (@id, @customer_id, @member_id, @unit, @status, @amount, @captured, @released, @extra, @expires_at, @service_at, @rate_card_id, @rate_version, @dims, @reason, @created_at, @gates)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, amount = excluded.amount, captured = excluded.captured, released = excluded.released,
  extra = excluded.extra, expires_at = excluded.expires_at, gates = excluded.gates;

-- name: SaveHoldLines :exec
INSERT INTO hold_lines (hold_id, n, grant_id, amount, captured, released)
SELECT h, n, g, a, c, r FROM ROWS FROM (unnest(@holds::uuid[]), unnest(@ns::smallint[]), unnest(@grants::uuid[]), unnest(@amounts::bigint[]),
  unnest(@captured::bigint[]), unnest(@released::bigint[])) AS x(h, n, g, a, c, r)
ON CONFLICT (hold_id, n) DO UPDATE SET captured = excluded.captured, released = excluded.released;

-- name: DueHolds :many
-- Open holds past their deadline, the longest overdue first. Customers that the auditor has frozen are left out.
SELECT h.id, h.customer_id FROM holds AS h JOIN customer_heads AS c ON c.customer_id = h.customer_id
WHERE h.status = 'open' AND h.expires_at <= now() AND NOT c.frozen ORDER BY h.expires_at LIMIT @n;

-- name: FindHold :one
SELECT id, customer_id, member_id, unit, status, amount, captured, released, extra, expires_at, service_at, rate_card_id, rate_version, dims, reason, created_at, gates
FROM holds WHERE id = @id;

-- name: PageHolds :many
-- Newest first. Null filters let everything through; a wallet's are those that hold credits of one of its grants.
SELECT id, customer_id, member_id, unit, status, amount, captured, released, extra, expires_at, service_at, rate_card_id, rate_version, dims, reason, created_at, gates
FROM holds AS h
WHERE (sqlc.narg('customer_id')::uuid IS NULL OR h.customer_id = sqlc.narg('customer_id')::uuid)
  AND (sqlc.narg('status')::text IS NULL OR h.status = sqlc.narg('status')::text)
  AND (sqlc.narg('wallet_id')::uuid IS NULL OR EXISTS (SELECT FROM hold_lines AS l JOIN grants AS g ON g.id = l.grant_id WHERE l.hold_id = h.id AND g.wallet_id = sqlc.narg('wallet_id')::uuid))
  AND h.id < @before
ORDER BY h.id DESC LIMIT @page_size;
