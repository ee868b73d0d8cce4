-- Compute cost in the money book: accruing what usage cost to serve.

-- name: LockCompute :exec
-- The compute cost of an entity is posted by one transaction at a time.
SELECT pg_advisory_xact_lock(hashtextextended('tallystick:compute:' || @entity::text, 0));

-- name: UncountedCosts :many
-- A customer of the entity whose usage before an instant says what it cost and is not counted yet; one of them, if there are several.
SELECT c.id FROM customers AS c
JOIN customer_heads AS h ON h.customer_id = c.id
LEFT JOIN usage_marks AS m ON m.customer_id = c.id
WHERE c.entity = @entity AND h.ver > coalesce(m.ver, 0)
  AND EXISTS (SELECT FROM operations AS o WHERE o.customer_id = c.id AND o.ver > coalesce(m.ver, 0) AND o.service_at < @ends
    AND o.kind IN ('consume', 'capture', 'reverse') AND coalesce(o.receipt #>> '{cost,currency}', '') <> '')
ORDER BY c.id LIMIT 1;

-- name: ComputeCosts :many
-- What usage of the entity's days @first to @last cost, by the day (UTC) whose exchange rate holds.
SELECT u.provider, u.currency, u.product, u.model, (u.hour AT TIME ZONE 'UTC')::date AS on_date, sum(u.cost - u.promotional)::numeric AS cost,
  sum(u.promotional)::numeric AS promotional
FROM usage_costs AS u JOIN customers AS c ON c.id = u.customer_id
WHERE c.entity = @entity AND u.day BETWEEN @first AND @last
GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5;

-- name: ComputeAccrued :many
-- What has been accrued of a month of service, wherever it is booked; debits less credits.
SELECT a.provider, a.currency, p.account, coalesce(p.product, '')::text AS product, coalesce(p.model, '')::text AS model,
  sum(CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END)::bigint AS amount
FROM compute_accruals AS a JOIN postings AS p ON p.entry_id = a.entry_id
WHERE a.entity = @entity AND a.period = @period
GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5;

-- name: ComputeAccruals :many
-- How many entries there are already.
SELECT provider, currency, max(n)::integer AS n FROM compute_accruals WHERE entity = @entity AND period = @period GROUP BY provider, currency ORDER BY provider, currency;

-- name: AddComputeAccrual :exec
INSERT INTO compute_accruals (entity, period, provider, currency, n, entry_id) VALUES (@entity, @period, @provider, @currency, @n, @entry_id);

-- name: ComputeBooked :many
-- What is booked in a period, by month of service and provider.
SELECT a.period AS service, a.provider, a.currency, p.account, coalesce(p.product, '')::text AS product, coalesce(p.model, '')::text AS model,
  sum(CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END)::bigint AS amount
FROM compute_accruals AS a
JOIN journal_entries AS e ON e.id = a.entry_id
JOIN postings AS p ON p.entry_id = a.entry_id
WHERE a.entity = @entity AND e.period = @period
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6;
