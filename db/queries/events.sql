-- What has happened, for those outside.

-- name: AddEvents :exec
-- Gives the events of each customer the next numbers. The row locks on event_heads, taken in ascending order, last until the commit, so that
-- the numbers have no gaps and follow the order of the commits. counts are events per customer, behinds how many of the same customer
-- come after one.
WITH heads AS (
  INSERT INTO event_heads (customer_id, seq)
  SELECT c, n FROM ROWS FROM (unnest(@customers::uuid[]), unnest(@counts::bigint[])) AS x(c, n) ORDER BY c
  ON CONFLICT (customer_id) DO UPDATE SET seq = event_heads.seq + excluded.seq RETURNING customer_id, seq
)
INSERT INTO events (customer_id, seq, id, type, subject, data, at)
SELECT h.customer_id, h.seq - e.behind, e.id, e.type, e.subject, e.data::json, coalesce(e.at, clock_timestamp())
FROM ROWS FROM (unnest(@owners::uuid[]), unnest(@behinds::bigint[]), unnest(@ids::uuid[]), unnest(@types::text[]), unnest(@subjects::text[]),
  unnest(@datas::text[]), unnest(@ats::timestamptz[])) AS e(owner, behind, id, type, subject, data, at)
JOIN heads AS h ON h.customer_id = e.owner;

-- name: BoundIdleness :exec
-- Until its end this transaction is ended when its client is silent for a second, and fails when it waits for a lock as long: lanes may wait for
-- what it has locked.
SELECT set_config('idle_in_transaction_session_timeout', '1000', true), set_config('lock_timeout', '1000', true);

-- name: FindEvent :one
SELECT customer_id, seq, id, type, subject, data, at FROM events WHERE id = @id;

-- name: PageEvents :many
-- Newest first. Null filters let everything through. An id holds when it was made: @least is that of a minute before since.
SELECT customer_id, seq, id, type, subject, data, at FROM events
WHERE id < @before AND id >= @least
  AND (sqlc.narg('type')::text IS NULL OR type = sqlc.narg('type')::text)
  AND (sqlc.narg('subject')::text IS NULL OR subject = sqlc.narg('subject')::text)
  AND (sqlc.narg('since')::timestamptz IS NULL OR at >= sqlc.narg('since')::timestamptz)
  AND (sqlc.narg('until')::timestamptz IS NULL OR at < sqlc.narg('until')::timestamptz)
ORDER BY id DESC LIMIT @page_size;

-- name: PageCustomerEvents :many
-- As PageEvents for one customer, in the order of its numbers, newest first.
SELECT customer_id, seq, id, type, subject, data, at FROM events
WHERE customer_id = @customer_id AND seq < @before
  AND (sqlc.narg('type')::text IS NULL OR type = sqlc.narg('type')::text)
  AND (sqlc.narg('subject')::text IS NULL OR subject = sqlc.narg('subject')::text)
  AND (sqlc.narg('since')::timestamptz IS NULL OR at >= sqlc.narg('since')::timestamptz)
  AND (sqlc.narg('until')::timestamptz IS NULL OR at < sqlc.narg('until')::timestamptz)
ORDER BY seq DESC LIMIT @page_size;

-- name: EventsAfter :many
-- A customer's events after a number, in order.
SELECT customer_id, seq, id, type, subject, data, at FROM events WHERE customer_id = @customer_id AND seq > @after ORDER BY seq LIMIT @n;

-- name: WatchHeads :many
-- Where customers' histories stand: the version of their balances, and the number of their newest event; 0 when there is none.
SELECT h.customer_id, h.ver, coalesce(e.seq, 0)::bigint AS seq
FROM customer_heads AS h LEFT JOIN event_heads AS e ON e.customer_id = h.customer_id
WHERE h.customer_id = ANY(@customers::uuid[]) ORDER BY h.customer_id;
