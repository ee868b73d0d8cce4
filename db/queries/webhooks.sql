-- Where events are sent to, and what became of them. Whoever takes several locks takes them in this order: endpoints, event heads (passing
-- over locked ones), queues, event heads (of events that are written).

-- name: AddEndpoint :one
INSERT INTO webhook_endpoints (id, url, types, customer_id, description) VALUES (@id, @url, @types, @customer_id, @description) RETURNING *;

-- name: AddSecret :exec
INSERT INTO webhook_secrets (endpoint_id, secret) VALUES (@endpoint_id, @secret);

-- name: RetireSecret :exec
-- The current secret goes on until an instant. One that it took the place of ends no later than before.
UPDATE webhook_secrets SET expires_at = now() + make_interval(secs => @overlap_seconds::double precision)
WHERE endpoint_id = @endpoint_id AND expires_at IS NULL;

-- name: CountSecrets :one
SELECT count(*) FROM webhook_secrets WHERE endpoint_id = @endpoint_id AND (expires_at IS NULL OR expires_at > now());

-- name: FindEndpoint :one
SELECT * FROM webhook_endpoints WHERE id = @id AND status <> 'deleted';

-- name: LockEndpoint :one
SELECT * FROM webhook_endpoints WHERE id = @id AND status <> 'deleted' FOR NO KEY UPDATE;

-- name: ShareEndpoint :one
-- Keeps it from being changed until the transaction ends.
SELECT * FROM webhook_endpoints WHERE id = @id AND status <> 'deleted' FOR SHARE;

-- name: PageEndpoints :many
SELECT * FROM webhook_endpoints WHERE id < @before AND status <> 'deleted'
  AND (sqlc.narg('customer_id')::uuid IS NULL OR customer_id = sqlc.narg('customer_id')::uuid)
ORDER BY id DESC LIMIT @page_size;

-- name: ChangeEndpoint :one
UPDATE webhook_endpoints SET url = @url, types = @types, description = @description, status = @status, reason = @reason,
  disabled_at = CASE WHEN @status::text = 'disabled' THEN coalesce(disabled_at, now()) END
WHERE id = @id RETURNING *;

-- name: DropQueues :exec
DELETE FROM webhook_queues WHERE endpoint_id = @endpoint_id;

-- name: ParkQueues :exec
-- Nothing is tried while the endpoint is disabled. Rows are locked in ascending order.
UPDATE webhook_queues AS q SET next_at = 'infinity', lease = NULL
FROM (SELECT x.endpoint_id, x.customer_id FROM webhook_queues AS x WHERE x.endpoint_id = @endpoint_id ORDER BY x.customer_id FOR UPDATE) AS due
WHERE q.endpoint_id = due.endpoint_id AND q.customer_id = due.customer_id;

-- name: UnparkQueues :exec
-- Everything that waits is tried now; a delivery that had failed for days has its time anew.
WITH due AS (
  SELECT x.endpoint_id, x.customer_id FROM webhook_queues AS x WHERE x.endpoint_id = @endpoint_id ORDER BY x.customer_id FOR UPDATE
), fresh AS (
  UPDATE webhook_deliveries AS d SET first_at = NULL, attempts = 0 WHERE d.endpoint_id = @endpoint_id AND d.delivered_at IS NULL AND d.first_at IS NOT NULL
)
UPDATE webhook_queues AS q SET next_at = now(), lease = NULL FROM due WHERE q.endpoint_id = due.endpoint_id AND q.customer_id = due.customer_id;

-- name: HasUnfanned :one
SELECT EXISTS (SELECT FROM event_heads WHERE fanned < seq);

-- name: LockEnabledEndpoints :many
-- None of them changes until the transaction ends.
SELECT id FROM webhook_endpoints WHERE status = 'enabled' ORDER BY id FOR SHARE;

-- name: TakeUnfanned :many
-- Customers with events for which no deliveries were made yet, locked until the transaction ends; up to @each events of each.
SELECT customer_id, fanned, least(seq, fanned + @each::bigint)::bigint AS upto FROM event_heads WHERE fanned < seq
ORDER BY customer_id LIMIT @n FOR UPDATE SKIP LOCKED;

-- name: FanOut :execrows
-- Makes the deliveries of the events in (afters, uptos] for the endpoints that want them, in order, and the queues that they wait in. It
-- must be a statement of its own after the locks.
WITH added AS (
  INSERT INTO webhook_deliveries (endpoint_id, customer_id, seq)
  SELECT e.id, v.customer_id, v.seq
  FROM ROWS FROM (unnest(@customers::uuid[]), unnest(@afters::bigint[]), unnest(@uptos::bigint[])) AS h(c, a, b)
  JOIN events AS v ON v.customer_id = h.c AND v.seq > h.a AND v.seq <= h.b
  JOIN webhook_endpoints AS e ON e.id = ANY(@endpoints::uuid[]) AND (e.types = '{}' OR v.type = ANY(e.types))
    AND (e.customer_id IS NULL OR e.customer_id = v.customer_id)
  WHERE v.type <> 'webhook_endpoint.test'
  ORDER BY e.id, v.customer_id, v.seq
  RETURNING endpoint_id, customer_id
)
INSERT INTO webhook_queues (endpoint_id, customer_id) SELECT DISTINCT endpoint_id, customer_id FROM added ORDER BY endpoint_id, customer_id
ON CONFLICT (endpoint_id, customer_id) DO UPDATE SET next_at = webhook_queues.next_at;

-- name: AdvanceFanned :exec
UPDATE event_heads AS h SET fanned = x.b FROM ROWS FROM (unnest(@customers::uuid[]), unnest(@uptos::bigint[])) AS x(c, b) WHERE h.customer_id = x.c;

-- name: AddDeliveries :one
-- Deliveries of events that were made before, for one endpoint, in order, with their queues; those that wait already are left out. How many.
WITH added AS (
  INSERT INTO webhook_deliveries (endpoint_id, customer_id, seq, replay)
  SELECT @endpoint_id, v.customer_id, v.seq, @replay FROM events AS v
  WHERE v.id = ANY(@events::uuid[]) AND NOT EXISTS (
    SELECT FROM webhook_deliveries AS d
    WHERE d.endpoint_id = @endpoint_id AND d.customer_id = v.customer_id AND d.seq = v.seq AND d.delivered_at IS NULL)
  ORDER BY v.customer_id, v.seq
  RETURNING endpoint_id, customer_id
), queued AS (
  INSERT INTO webhook_queues (endpoint_id, customer_id, next_at)
  SELECT DISTINCT endpoint_id, customer_id, CASE WHEN @parked::boolean THEN 'infinity'::timestamptz ELSE now() END FROM added ORDER BY endpoint_id, customer_id
  ON CONFLICT (endpoint_id, customer_id) DO UPDATE SET next_at = webhook_queues.next_at
)
SELECT count(*) FROM added;

-- name: EventsToReplay :many
-- Ids of up to n events of an interval that an endpoint wants. An id holds when it was made: @least and @most are those of a minute before
-- and after the interval.
SELECT v.id FROM events AS v
WHERE v.id >= @least AND v.id <= @most AND v.at >= @since AND v.at < @until AND v.type <> 'webhook_endpoint.test'
  AND (@types::text[] = '{}' OR v.type = ANY(@types::text[]))
  AND (sqlc.narg('customer_id')::uuid IS NULL OR v.customer_id = sqlc.narg('customer_id')::uuid)
ORDER BY v.id LIMIT @n;

-- name: TakeQueues :many
-- Leases up to n due queues, the longest due first, but those of busy endpoints.
UPDATE webhook_queues AS q SET lease = @lease, next_at = now() + make_interval(secs => @lease_seconds::double precision)
FROM (SELECT endpoint_id, customer_id FROM webhook_queues
      WHERE next_at <= now() AND NOT endpoint_id = ANY(@busy::uuid[]) ORDER BY next_at LIMIT @n FOR UPDATE SKIP LOCKED) AS due
WHERE q.endpoint_id = due.endpoint_id AND q.customer_id = due.customer_id
RETURNING q.endpoint_id, q.customer_id;

-- name: LockQueue :one
-- Of whoever holds the lease; no row when it has been lost.
SELECT endpoint_id FROM webhook_queues WHERE endpoint_id = @endpoint_id AND customer_id = @customer_id AND lease = @lease FOR UPDATE;

-- name: FirstPending :one
SELECT d.id, d.attempts, d.first_at, e.url, e.status, v.customer_id, v.seq, v.id AS event_id, v.type, v.subject, v.data, v.at,
  ARRAY(SELECT s.secret FROM webhook_secrets AS s WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > now())
    ORDER BY s.no DESC)::bytea[] AS secrets
FROM webhook_deliveries AS d
JOIN webhook_endpoints AS e ON e.id = d.endpoint_id
JOIN events AS v ON v.customer_id = d.customer_id AND v.seq = d.seq
WHERE d.endpoint_id = @endpoint_id AND d.customer_id = @customer_id AND d.delivered_at IS NULL ORDER BY d.id LIMIT 1;

-- name: RecordAttempt :exec
-- The log keeps the newest 20 attempts. One that was delivered stays so.
UPDATE webhook_deliveries SET attempts = attempts + 1, first_at = coalesce(first_at, @at), last_at = @at, code = @code, error = @error,
  delivered_at = CASE WHEN @delivered::boolean THEN now() END,
  log = (CASE WHEN jsonb_array_length(log) >= 20 THEN log - 0 ELSE log END) || @line::jsonb
WHERE id = @id AND delivered_at IS NULL;

-- name: HasPending :one
SELECT EXISTS (SELECT FROM webhook_deliveries WHERE endpoint_id = @endpoint_id AND customer_id = @customer_id AND delivered_at IS NULL);

-- name: DelayQueue :exec
-- The seconds are counted from now; the lease ends.
UPDATE webhook_queues SET lease = NULL, next_at = CASE WHEN next_at = 'infinity' THEN next_at ELSE now() + make_interval(secs => @seconds::double precision) END
WHERE endpoint_id = @endpoint_id AND customer_id = @customer_id;

-- name: DropQueue :exec
DELETE FROM webhook_queues WHERE endpoint_id = @endpoint_id AND customer_id = @customer_id;

-- name: PageDeliveries :many
-- Newest first. next_at is that of the delivery that is tried next; null when it is being tried, waits behind another one or for the endpoint.
SELECT d.id, d.customer_id, d.seq, d.replay, d.attempts, d.log, d.code, d.error, d.created_at, d.last_at, d.delivered_at, v.id AS event_id, v.type,
  (SELECT q.next_at FROM webhook_queues AS q WHERE d.delivered_at IS NULL AND q.endpoint_id = d.endpoint_id AND q.customer_id = d.customer_id
    AND q.lease IS NULL AND q.next_at < 'infinity' AND NOT EXISTS (
      SELECT FROM webhook_deliveries AS o WHERE o.endpoint_id = d.endpoint_id AND o.customer_id = d.customer_id AND o.delivered_at IS NULL AND o.id < d.id)
  )::timestamptz AS next_at
FROM webhook_deliveries AS d JOIN events AS v ON v.customer_id = d.customer_id AND v.seq = d.seq
WHERE d.endpoint_id = @endpoint_id AND d.id < @before
  AND (sqlc.narg('customer_id')::uuid IS NULL OR d.customer_id = sqlc.narg('customer_id')::uuid)
  AND (sqlc.narg('event_id')::uuid IS NULL OR v.id = sqlc.narg('event_id')::uuid)
  AND (sqlc.narg('status')::text IS NULL OR CASE sqlc.narg('status')::text
    WHEN 'delivered' THEN d.delivered_at IS NOT NULL WHEN 'failing' THEN d.delivered_at IS NULL AND d.attempts > 0
    ELSE d.delivered_at IS NULL END)
ORDER BY d.id DESC LIMIT @page_size;

-- name: DeleteDelivered :execrows
-- Forgets up to n deliveries that were made 30 days ago.
DELETE FROM webhook_deliveries WHERE id IN (
  SELECT id FROM webhook_deliveries WHERE delivered_at < now() - interval '30 days' ORDER BY delivered_at LIMIT @n FOR UPDATE SKIP LOCKED);

-- name: DeleteOrphaned :execrows
-- Forgets up to n deliveries of deleted endpoints.
DELETE FROM webhook_deliveries WHERE id IN (
  SELECT d.id FROM webhook_deliveries AS d JOIN webhook_endpoints AS e ON e.id = d.endpoint_id
  WHERE e.status = 'deleted' LIMIT @n FOR UPDATE OF d SKIP LOCKED);

-- name: DeleteSecrets :exec
-- Forgets secrets that have expired, and those of deleted endpoints.
DELETE FROM webhook_secrets AS s USING webhook_endpoints AS e
WHERE e.id = s.endpoint_id AND (s.expires_at <= now() OR e.status = 'deleted');

-- name: MeasureWebhooks :one
-- Deliveries that wait and since when the oldest does, events for which none were made yet, endpoints that are disabled for their failures.
SELECT (SELECT count(*) FROM webhook_deliveries AS d JOIN webhook_endpoints AS e ON e.id = d.endpoint_id AND e.status = 'enabled'
    WHERE d.delivered_at IS NULL)::bigint AS waiting,
  coalesce((SELECT extract(epoch FROM clock_timestamp() - min(d.created_at)) FROM webhook_deliveries AS d
    JOIN webhook_endpoints AS e ON e.id = d.endpoint_id AND e.status = 'enabled' WHERE d.delivered_at IS NULL), 0)::double precision AS oldest_seconds,
  coalesce((SELECT sum(seq - fanned) FROM event_heads WHERE fanned < seq), 0)::bigint AS unfanned,
  (SELECT count(*) FROM webhook_endpoints WHERE status = 'disabled' AND reason <> 'asked')::bigint AS disabled;
