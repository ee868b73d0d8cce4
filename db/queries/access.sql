-- Who may call, what they did, and the answers that their idempotency keys got.

-- name: AddAPIKey :one
INSERT INTO api_keys (digest, hint, name, role) VALUES (@digest, @hint, @name, @role) RETURNING no, created_at;

-- name: FindAPIKey :one
SELECT no, name, role, revoked_at FROM api_keys WHERE digest = @digest;

-- name: PageAPIKeys :many
SELECT no, hint, name, role, created_at, revoked_at FROM api_keys WHERE no < @before ORDER BY no DESC LIMIT @page_size;

-- name: RevokeAPIKey :one
-- A key that is revoked already stays as it is.
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE no = @no RETURNING no, hint, name, role, created_at, revoked_at;

-- name: AddAudit :exec
INSERT INTO audit_log (actor, request_id, action, subject, detail) VALUES (@actor, @request_id, @action, @subject, @detail);

-- name: LockKey :exec
-- Calls with the same idempotency key follow one another.
SELECT pg_advisory_xact_lock(@digest_half::bigint);

-- name: FindKey :one
-- The lock makes a transaction that only repeats an answer wait for the standby when it commits, as the one did that gave it.
SELECT k.request, k.status, coalesce(k.response, o.receipt::text)::text AS answer
FROM idempotency_keys AS k LEFT JOIN operations AS o ON o.customer_id = k.customer_id AND o.ver = k.ver
WHERE k.digest = @digest FOR UPDATE OF k;

-- name: AddKey :exec
INSERT INTO idempotency_keys (digest, request, status, response) VALUES (@digest, @request, @status, @response::text);

-- name: PageNotifications :many
-- Of one customer, or all when it is null.
SELECT id, type, customer_id, subject, data, created_at FROM notifications
WHERE (sqlc.narg('customer_id')::uuid IS NULL OR customer_id = sqlc.narg('customer_id')::uuid) AND id < @before
ORDER BY id DESC LIMIT @page_size;
