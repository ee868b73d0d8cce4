-- Exports of the journal to other accounting systems.

-- name: LatestMapping :one
SELECT version, subsidiary, accounts, created_at FROM account_mappings
WHERE entity = @entity AND system = @system ORDER BY version DESC LIMIT 1;

-- name: FindMapping :one
SELECT version, subsidiary, accounts, created_at FROM account_mappings
WHERE entity = @entity AND system = @system AND version = @version;

-- name: AddMapping :one
-- Who adds one holds the lock of the entity and system.
INSERT INTO account_mappings (entity, system, version, subsidiary, accounts, actor)
SELECT @entity, @system, 1 + coalesce(max(m.version), 0), @subsidiary, @accounts, @actor
FROM account_mappings AS m WHERE m.entity = @entity AND m.system = @system
RETURNING version, created_at;

-- name: FindPeriod :one
SELECT status, version FROM periods WHERE entity = @entity AND period = @period;

-- name: JournalWatermark :one
-- The newest entry of the periods, and how many there are.
SELECT coalesce(max(no), 0)::bigint AS entry_no, max(posted_at)::timestamptz AS posted_at, count(*) AS entries
FROM journal_entries WHERE entity = @entity AND period BETWEEN @first AND @last;

-- name: ExportJournal :many
-- The postings of a period in the order of exports: day in the books, kind, day of service, customer, grant, order of posting.
SELECT e.id, e.cause, e.service_on, e.posted_at, e.kind, e.customer_id, e.grant_id, e.reverses,
  coalesce(c.external_id, '')::text AS external_id, coalesce(u.code, '')::text AS unit, coalesce(u.scale, 0)::smallint AS scale,
  p.account, p.side, p.amount_minor, p.source_minor, p.source_currency, p.units, p.product, p.model
FROM journal_entries AS e
JOIN postings AS p ON p.entry_id = e.id
LEFT JOIN customers AS c ON c.id = e.customer_id
LEFT JOIN grants AS g ON g.id = e.grant_id
LEFT JOIN wallets AS w ON w.id = g.wallet_id
LEFT JOIN units AS u ON u.code = w.unit
WHERE e.entity = @entity AND e.period = @period
ORDER BY greatest(e.service_on, (@period::text || '-01')::date), e.kind COLLATE "C", e.service_on, e.customer_id NULLS FIRST, e.grant_id NULLS FIRST, e.no, p.n;

-- name: ExportMoves :many
-- What moved of each grant's credits on each day of the calendar, by the instant at which it was judged. What is held is still available here: a
-- movement between the two is none.
WITH ops AS MATERIALIZED (
  SELECT o.customer_id, o.ver, (o.at AT TIME ZONE @time_zone::text)::date AS day
  FROM operations AS o JOIN customers AS c ON c.id = o.customer_id
  WHERE c.entity = @entity AND o.at >= @since AND o.at < @until
), spans AS (
  SELECT customer_id, min(ver) AS first, max(ver) AS last FROM ops GROUP BY customer_id
)
SELECT ops.day, g.customer_id, g.id AS grant_id, u.code AS unit, u.scale,
  (CASE m.debit WHEN 'held' THEN 'available' ELSE m.debit END)::text AS debit,
  (CASE m.credit WHEN 'held' THEN 'available' ELSE m.credit END)::text AS credit, sum(m.amount)::bigint AS amount
FROM spans
JOIN grants AS g ON g.customer_id = spans.customer_id
JOIN movements AS m ON m.grant_id = g.id AND m.ver BETWEEN spans.first AND spans.last
JOIN ops ON ops.customer_id = g.customer_id AND ops.ver = m.ver
JOIN wallets AS w ON w.id = g.wallet_id
JOIN units AS u ON u.code = w.unit
WHERE NOT (m.debit IN ('available', 'held') AND m.credit IN ('available', 'held'))
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 6, 7;
