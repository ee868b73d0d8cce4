-- Limits, their windows and what was counted in them. The first ones are the arbiter's, up to FindLimit.

-- name: ReadWindows :many
-- The windows of a limit and subject from an instant on.
SELECT w.limit_id, w.subject, w.window_start, w.used, w.held, w.carried, w.hard_limit, w.told FROM limit_windows AS w
JOIN ROWS FROM (unnest(@limits::uuid[]), unnest(@subjects::text[]), unnest(@sinces::timestamptz[])) AS x(l, s, t)
  ON w.limit_id = x.l AND w.subject = x.s AND w.window_start >= x.t
ORDER BY w.limit_id, w.subject, w.window_start;

-- name: AddWindows :exec
INSERT INTO limit_windows (limit_id, subject, window_start, used, held, carried, hard_limit, told)
SELECT l, s, t, u, h, c, b, p FROM ROWS FROM (unnest(@limits::uuid[]), unnest(@subjects::text[]), unnest(@starts::timestamptz[]), unnest(@used::bigint[]),
  unnest(@held::bigint[]), unnest(@carried::bigint[]), unnest(@hard_limits::bigint[]), unnest(@told::smallint[])) AS x(l, s, t, u, h, c, b, p);

-- name: ChangeWindows :exec
-- Writes what a window has come to, if the row still has what the decision was made on; a difference trips the sign check and so aborts the batch.
UPDATE limit_windows AS w SET used = CASE WHEN w.used = x.before_used AND w.held = x.before_held THEN x.u ELSE -1 END,
  held = x.h, carried = x.c, hard_limit = x.b, told = x.p
FROM ROWS FROM (unnest(@limits::uuid[]), unnest(@subjects::text[]), unnest(@starts::timestamptz[]), unnest(@before_used::bigint[]), unnest(@before_held::bigint[]),
  unnest(@used::bigint[]), unnest(@held::bigint[]), unnest(@carried::bigint[]), unnest(@hard_limits::bigint[]), unnest(@told::smallint[]))
  AS x(l, s, t, before_used, before_held, u, h, c, b, p)
WHERE w.limit_id = x.l AND w.subject = x.s AND w.window_start = x.t;

-- name: AddLimitCounts :exec
INSERT INTO limit_counts (limit_id, subject, window_start, customer_id, ver, used, held, used_after, held_after)
SELECT l, s, t, c, v, u, h, a, b FROM ROWS FROM (unnest(@limits::uuid[]), unnest(@subjects::text[]), unnest(@starts::timestamptz[]), unnest(@customers::uuid[]),
  unnest(@vers::bigint[]), unnest(@used::bigint[]), unnest(@held::bigint[]), unnest(@used_after::bigint[]), unnest(@held_after::bigint[]))
  AS x(l, s, t, c, v, u, h, a, b);

-- name: SaveLimit :exec
-- A limit is made whole and changes its name, amount, thresholds and end.
INSERT INTO limits (id, customer_id, name, unit, amount, soft, applies_to, member_id, dimension, value, wallet_id, scope, period, length_seconds, warn_at, created_at, created_ver, ended_at, ended_ver)
VALUES (@id, @customer_id, @name, @unit, @amount, @soft, @applies_to, @member_id, @dimension, @value, @wallet_id, @scope, @period, @length_seconds, @warn_at, @created_at, @created_ver, @ended_at, @ended_ver)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, amount = excluded.amount, warn_at = excluded.warn_at, ended_at = excluded.ended_at,
  ended_ver = excluded.ended_ver;

-- name: BoundWindows :exec
-- Another amount bounds every window that is kept, but never below what was taken; what was told of and is no longer so is told of again.
UPDATE limit_windows SET hard_limit = greatest(@amount::bigint, carried + used + held),
  told = least(told, CASE WHEN @amount::bigint > 0 THEN least(100, trunc(100.0 * (carried + used + held) / @amount::bigint)) ELSE 100 END)::smallint
WHERE limit_id = @limit_id;

-- name: RetellWindows :exec
-- The same of a soft limit.
UPDATE limit_windows SET told = least(told, CASE WHEN @amount::bigint > 0 THEN least(100, trunc(100.0 * (carried + used + held) / @amount::bigint)) ELSE 100 END)::smallint
WHERE limit_id = @limit_id;

-- name: ReadZone :one
SELECT e.time_zone FROM customers AS c JOIN legal_entities AS e ON e.code = c.entity WHERE c.id = @customer_id;

-- name: GateCustomer :exec
UPDATE customers SET gated = true WHERE id = @id AND NOT gated;

-- name: ChangeMember :exec
UPDATE members SET name = @name, active = @active, scope = @scope, rate_card_id = @rate_card_id WHERE id = @id AND customer_id = @customer_id;

-- name: ReadMember :one
SELECT id, customer_id, external_id, name, created_at, active, scope, rate_card_id FROM members WHERE id = @id AND customer_id = @customer_id;

-- name: FindLimit :one
SELECT sqlc.embed(l), u.scale FROM limits AS l JOIN units AS u ON u.code = l.unit WHERE l.id = @id;

-- name: PageLimits :many
-- Newest first, of one customer or, when that is null, of all; those in force or those that have ended, or both.
SELECT sqlc.embed(l), u.scale FROM limits AS l JOIN units AS u ON u.code = l.unit
WHERE (sqlc.narg('customer_id')::uuid IS NULL OR l.customer_id = sqlc.narg('customer_id')::uuid)
  AND (sqlc.narg('ended')::boolean IS NULL OR (l.ended_at IS NOT NULL) = sqlc.narg('ended')::boolean) AND l.id < @before
ORDER BY l.id DESC LIMIT @page_size;

-- name: LimitsInForce :many
-- With the time zone in which they count.
SELECT sqlc.embed(l), u.scale, e.time_zone FROM limits AS l
JOIN units AS u ON u.code = l.unit
JOIN customers AS c ON c.id = l.customer_id
JOIN legal_entities AS e ON e.code = c.entity
WHERE l.customer_id = @customer_id AND l.ended_at IS NULL ORDER BY l.id;

-- name: PageLimitUsage :many
-- What subjects have taken in the windows from each limit's instant on, in order of limit and subject, after a place. A limit that has only one subject (ones) is there
-- also when nothing was taken. first_start is the oldest window with something in it.
SELECT x.l::uuid AS limit_id, s.subject::text AS subject, s.used::bigint AS used, s.held::bigint AS held, s.first_start
FROM ROWS FROM (unnest(@limits::uuid[]), unnest(@ones::text[]), unnest(@alone::boolean[]), unnest(@sinces::timestamptz[])) AS x(l, one, alone, since)
CROSS JOIN LATERAL (
  SELECT w.subject, sum(w.used) AS used, sum(w.held) AS held, (min(w.window_start) FILTER (WHERE w.used + w.held > 0))::timestamptz AS first_start
  FROM limit_windows AS w
  WHERE w.limit_id = x.l AND w.window_start >= x.since AND (sqlc.narg('subject')::text IS NULL OR w.subject = sqlc.narg('subject')::text)
  GROUP BY w.subject
  UNION ALL
  SELECT x.one, 0, 0, NULL WHERE x.alone AND (sqlc.narg('subject')::text IS NULL OR x.one = sqlc.narg('subject')::text)
    AND NOT EXISTS (SELECT FROM limit_windows AS w WHERE w.limit_id = x.l AND w.window_start >= x.since AND w.subject = x.one)
) AS s
WHERE (x.l, s.subject) > (@after_limit::uuid, @after_subject::text)
ORDER BY x.l, s.subject LIMIT @page_size;

-- name: LockHead :one
-- Waits for what is under way on a customer, and gives its version and time.
SELECT ver, greatest(last_at, clock_timestamp())::timestamptz AS at FROM customer_heads WHERE customer_id = @customer_id FOR UPDATE;

-- name: DeleteOldWindows :many
-- Forgets up to n windows that cannot matter any more, with what was counted in them: nothing of them is held, and they began so long ago that they ended
-- (a month has at most 31 days) 40 days ago. A total ends with its limit.
WITH old AS (
  SELECT w.limit_id, w.subject, w.window_start FROM limit_windows AS w JOIN limits AS l ON l.id = w.limit_id
  WHERE w.held = 0 AND (w.window_start < now() - interval '72 days' AND l.period <> 'total' OR l.ended_at < now() - interval '40 days')
  LIMIT @n FOR UPDATE OF w SKIP LOCKED
), counts AS (
  DELETE FROM limit_counts AS c USING old AS o WHERE c.limit_id = o.limit_id AND c.subject = o.subject AND c.window_start = o.window_start
)
DELETE FROM limit_windows AS w USING old AS o WHERE w.limit_id = o.limit_id AND w.subject = o.subject AND w.window_start = o.window_start
RETURNING w.limit_id;
