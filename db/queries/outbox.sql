-- The outbox is read topic by topic, each in the order of its rows' making.

-- name: TakeOutbox :many
-- The oldest due rows of a topic, locked until the transaction ends; rows that another process has taken are passed over.
SELECT id, subject, payload, created_at, attempts FROM outbox
WHERE topic = @topic AND retry_at <= now() ORDER BY id LIMIT @n FOR UPDATE SKIP LOCKED;

-- name: DeleteOutbox :exec
DELETE FROM outbox WHERE id = ANY(@ids::bigint[]);

-- name: DelayOutbox :exec
-- Puts rows off for 1 s after their first failure, for twice as long after each further one, and for 5 minutes at most.
UPDATE outbox SET attempts = attempts + 1, retry_at = clock_timestamp() + least(interval '5 minutes', interval '1 second' * 2 ^ least(attempts, 9))
WHERE id = ANY(@ids::bigint[]);

-- name: OutboxBacklog :many
-- How many rows wait per topic, and since when the oldest does.
SELECT topic, count(*) AS waiting, min(created_at)::timestamptz AS oldest FROM outbox GROUP BY topic ORDER BY topic;

-- name: OldestOutbox :one
-- When the oldest waiting row of a topic was made; now if none waits.
SELECT coalesce(min(created_at), clock_timestamp())::timestamptz AS at FROM outbox WHERE topic = @topic;
