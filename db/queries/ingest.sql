-- name: ReadClock :one
SELECT clock_timestamp()::timestamptz AS now;

-- name: TakeEventKeys :many
-- Takes the keys of events that go into quarantine, but those that are taken: by whoever has the event, or had it.
INSERT INTO idempotency_keys (digest, request, customer_id, status, response)
SELECT d, r, (SELECT c.id FROM customers AS c WHERE c.id = x.c), 202, a
FROM ROWS FROM (unnest(@digests::uuid[]), unnest(@requests::uuid[]), unnest(@customers::uuid[]), unnest(@responses::text[])) AS x(d, r, c, a)
ORDER BY d
ON CONFLICT (digest) DO NOTHING RETURNING digest;

-- name: LockKeys :many
-- The lock makes a transaction that only repeats an answer wait for the standby when it commits, as the one did that gave it.
SELECT k.digest, k.request, k.status, coalesce(k.response, o.receipt::text)::text AS answer
FROM idempotency_keys AS k LEFT JOIN operations AS o ON o.customer_id = k.customer_id AND o.ver = k.ver
WHERE k.digest = ANY(@digests::uuid[]) ORDER BY k.digest FOR UPDATE OF k;

-- name: KnownQuarantined :many
-- Rows of events that were in quarantine before, and whose key may have been forgotten since.
SELECT id, customer_id, named, key, actor, request_id, body, service_at, at, code, detail, tries, state, ver, decided_at, decided_by, reason, digest
FROM quarantined_usage WHERE digest = ANY(@digests::uuid[]) ORDER BY digest;

-- name: RestoreKey :exec
-- The key of an event that was in quarantine, as it would be answered had it not been forgotten.
UPDATE idempotency_keys SET customer_id = sqlc.narg('customer_id')::uuid, status = @status, ver = sqlc.narg('ver')::bigint, response = sqlc.narg('response')::text
WHERE digest = @digest;

-- name: AddQuarantinedEvent :exec
-- A customer that is not there is null: the event waits for it under its name.
INSERT INTO quarantined_usage (id, customer_id, named, digest, key, actor, request_id, body, service_at, at, code, detail)
VALUES (@id, (SELECT c.id FROM customers AS c WHERE c.id = @customer_id), @named, @digest, @key, @actor, @request_id, @body, @service_at, @at, @code, @detail);

-- name: AssignQuarantined :execrows
-- The customer that quarantined usage names is there now.
UPDATE quarantined_usage AS q SET customer_id = c.id FROM customers AS c
WHERE q.id = @id AND q.customer_id IS NULL AND q.state = 'pending' AND c.id = @customer_id;

-- name: AssignKey :exec
UPDATE idempotency_keys SET customer_id = @customer_id::uuid WHERE digest = @digest AND status = 202 AND ver IS NULL;

-- name: DiscardUnassigned :one
-- Usage without a customer has no customer's lock: the row's own is enough, since nobody charges it.
UPDATE quarantined_usage SET state = 'discarded', decided_at = clock_timestamp(), decided_by = @decided_by::integer, reason = @reason::text
WHERE id = @id AND state = 'pending' AND customer_id IS NULL
RETURNING digest;

-- name: OperationOfKey :one
-- The operation that was done for a key, whose row in idempotency_keys may have been forgotten. It reads all of the customer's operations.
SELECT ver FROM operations WHERE customer_id = @customer_id AND key = @key ORDER BY ver LIMIT 1;
