-- What a grant's life needs beside its balance: the facts that its workflow goes by, who is due, who must be told.

-- name: ReadLifecycles :many
-- With the clock, and with the customer's version, at which the row was read.
SELECT g.id, g.customer_id, g.wallet_id, w.name AS wallet, w.unit, u.scale, g.type, g.status, g.frozen, g.effective_at, g.expires_at,
  g.created_at, g.issued_at, g.amount, g.price_minor, g.price_currency, h.ver, clock_timestamp()::timestamptz AS read_at
FROM grants AS g
JOIN wallets AS w ON w.id = g.wallet_id
JOIN units AS u ON u.code = w.unit
JOIN customer_heads AS h ON h.customer_id = g.customer_id
WHERE g.id = ANY(@grants::uuid[]) ORDER BY g.id;

-- name: DueGrants :many
-- Open grants past their expiry, the longest overdue first, after (after_at, after_id). Customers that the auditor has frozen are left out, and
-- grants of which everything is held: their holds see to it.
SELECT g.id, g.customer_id, g.expires_at::timestamptz AS expires_at FROM grants AS g
JOIN customer_heads AS h ON h.customer_id = g.customer_id
WHERE g.status = 'open' AND NOT g.frozen AND g.expires_at <= now() AND g.avail > 0 AND NOT h.frozen
  AND (g.expires_at, g.id) > (@after_at::timestamptz, @after_id::uuid)
ORDER BY g.expires_at, g.id LIMIT @n;

-- name: NotifyExpiring :one
-- One row per cause, if the grant is still to expire at that instant; none otherwise. What it has available is added to the data.
INSERT INTO notifications (cause, type, customer_id, subject, data)
SELECT @cause, 'grant.expiring', g.customer_id, @subject,
  @data::jsonb || jsonb_build_object('unit', w.unit, 'available', trim_scale(g.avail / 10::numeric ^ u.scale)::text)
FROM grants AS g
JOIN wallets AS w ON w.id = g.wallet_id
JOIN units AS u ON u.code = w.unit
WHERE g.id = @grant_id AND g.status = 'open' AND NOT g.frozen AND g.expires_at = @expires_at
ON CONFLICT (cause) DO NOTHING
RETURNING id, type, customer_id, subject, data, created_at;

-- name: LiveGrants :many
-- Grants in id order that have a workflow unless it got lost: pending or open, made before the instant. Overage has none.
SELECT id FROM grants
WHERE status IN ('pending', 'open') AND type <> 'overage' AND created_at < @made_before AND id > @after ORDER BY id LIMIT @n;

-- name: RefundsToSettle :many
-- Refunds in id order that have a workflow unless it got lost: not settled, made before the instant.
SELECT id FROM refunds WHERE status = 'awaiting_settlement' AND created_at < @made_before AND id > @after ORDER BY id LIMIT @n;

-- name: DeleteAnswers :execrows
-- Forgets up to n idempotency keys of what was done 41 days ago. An operation itself keeps its key for ever.
DELETE FROM idempotency_keys WHERE idempotency_keys.digest IN (
  SELECT k.digest FROM idempotency_keys AS k
  WHERE (k.ver IS NOT NULL OR k.status < 400) AND k.created_at < now() - interval '41 days' LIMIT @n FOR UPDATE SKIP LOCKED);

-- name: DeleteDenials :execrows
-- Forgets up to n idempotency keys of refusals a day old.
DELETE FROM idempotency_keys WHERE idempotency_keys.digest IN (
  SELECT k.digest FROM idempotency_keys AS k
  WHERE k.ver IS NULL AND k.status >= 400 AND k.created_at < now() - interval '24 hours' LIMIT @n FOR UPDATE SKIP LOCKED);
