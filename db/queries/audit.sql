-- name: FindBroken :many
-- Customers with operations since an instant whose books do not agree with themselves, and how: versions with gaps, a head that is not the
-- last version, a grant whose movements do not follow from one another or do not end at what it has available, a limit that has not what its last
-- count left. One statement, so one
-- moment. Costs what was done since then, not what was ever done.
WITH recent AS (
  SELECT customer_id, min(ver) AS lo, max(ver) AS hi, count(*) AS n FROM operations WHERE at >= @since GROUP BY customer_id
), touched AS (
  SELECT r.customer_id, r.lo, g.id, g.avail FROM recent AS r JOIN grants AS g ON g.customer_id = r.customer_id
), chain AS (
  SELECT t.customer_id, t.id, m.after, m.debit, m.credit, m.amount, lag(m.after) OVER (PARTITION BY t.id ORDER BY m.ver, m.n) AS before
  FROM touched AS t
  JOIN movements AS m ON m.grant_id = t.id
    AND m.ver >= coalesce((SELECT p.ver FROM movements AS p WHERE p.grant_id = t.id AND p.ver < t.lo ORDER BY p.ver DESC LIMIT 1), t.lo)
)
SELECT customer_id, 'its versions have gaps'::text AS how FROM recent WHERE hi - lo + 1 <> n
UNION ALL
SELECT r.customer_id, format('its head is at version %s, its last operation is %s', h.ver, r.hi)::text
FROM recent AS r JOIN customer_heads AS h ON h.customer_id = r.customer_id WHERE h.ver <> r.hi
UNION ALL
SELECT customer_id, format('the movements of grant %s do not follow from one another', id)::text FROM chain
WHERE before IS NOT NULL AND after <> before + CASE WHEN credit = 'available' THEN amount WHEN debit = 'available' THEN -amount ELSE 0 END
UNION ALL
SELECT t.customer_id, format('grant %s has %s available, its last movement left %s', t.id, t.avail, l.after)::text
FROM touched AS t
JOIN LATERAL (SELECT m.after FROM movements AS m WHERE m.grant_id = t.id ORDER BY m.ver DESC, m.n DESC LIMIT 1) AS l ON true
WHERE l.after <> t.avail
UNION ALL
SELECT c.customer_id, format('limit %s has used %s and holds %s in the window of %s, its last count left %s and %s', c.limit_id, w.used, w.held, c.window_start, l.used_after, l.held_after)::text
FROM (SELECT DISTINCT r.customer_id, k.limit_id, k.subject, k.window_start FROM recent AS r JOIN limit_counts AS k ON k.customer_id = r.customer_id AND k.ver >= r.lo) AS c
JOIN LATERAL (SELECT k.used_after, k.held_after FROM limit_counts AS k WHERE k.limit_id = c.limit_id AND k.subject = c.subject AND k.window_start = c.window_start
  ORDER BY k.ver DESC LIMIT 1) AS l ON true
LEFT JOIN limit_windows AS w ON w.limit_id = c.limit_id AND w.subject = c.subject AND w.window_start = c.window_start
WHERE (l.used_after, l.held_after) IS DISTINCT FROM (w.used, w.held)
ORDER BY customer_id, how;

-- name: FreezeCustomer :execrows
-- Nothing moves until a person looked. 0 rows when it is frozen already.
UPDATE customer_heads SET frozen = @frozen WHERE customer_id = @customer_id AND frozen <> @frozen;

-- name: Notify :one
-- No row when the cause has been told before.
INSERT INTO notifications (cause, type, customer_id, subject, data)
VALUES (@cause, @type, @customer_id, @subject, @data) ON CONFLICT (cause) DO NOTHING
RETURNING id, type, customer_id, subject, data, created_at;
