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

-- name: ReportMargin :many
-- By month of service: what usage earned and what was accrued for serving it, in minor units. An accrued amount is split over the customers by what their
-- usage cost in the currency of the bill, by largest remainder, so that the parts make it.
WITH accrued AS (
  SELECT a.period, a.provider, a.currency, p.account, coalesce(p.product, '') AS product, coalesce(p.model, '') AS model,
    sum(CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END) AS amount
  FROM compute_accruals AS a JOIN postings AS p ON p.entry_id = a.entry_id AND p.account IN (5010, 6010)
  WHERE a.entity = @entity AND a.period BETWEEN @first AND @last
  GROUP BY 1, 2, 3, 4, 5, 6
), costs AS (
  SELECT to_char(u.day, 'YYYY-MM') AS period, u.provider, u.currency, u.product, u.model, u.customer_id, sum(u.cost - u.promotional) AS own, sum(u.promotional) AS promotional
  FROM usage_costs AS u
  JOIN customers AS c ON c.id = u.customer_id AND c.entity = @entity
  WHERE u.day >= (@first || '-01')::date AND u.day < ((@last || '-01')::date + interval '1 month')
  GROUP BY 1, 2, 3, 4, 5, 6
), weights AS (
  SELECT a.period, a.provider, a.currency, a.account, a.product, a.model, a.amount, c.customer_id, CASE a.account WHEN 5010 THEN c.own ELSE c.promotional END AS cost
  FROM accrued AS a
  JOIN costs AS c ON c.period = a.period AND c.provider = a.provider AND c.currency = a.currency AND c.product = a.product AND c.model = a.model
  WHERE a.amount <> 0 AND CASE a.account WHEN 5010 THEN c.own ELSE c.promotional END > 0
), totals AS (
  SELECT w.*, sum(w.cost) OVER (PARTITION BY w.period, w.provider, w.currency, w.account, w.product, w.model) AS total FROM weights AS w
), floors AS (
  SELECT t.*, div(t.amount * t.cost, t.total) AS whole FROM totals AS t
), parts AS (
  SELECT f.period, f.customer_id, f.account, f.product, f.model, f.whole
    + (row_number() OVER (g ORDER BY f.amount * f.cost - f.whole * f.total DESC, f.customer_id) <= f.amount - sum(f.whole) OVER g)::integer AS part
  FROM floors AS f
  WINDOW g AS (PARTITION BY f.period, f.provider, f.currency, f.account, f.product, f.model)
), facts AS (
  SELECT to_char(e.service_on, 'YYYY-MM') AS period, e.customer_id, coalesce(p.product, '') AS product, coalesce(p.model, '') AS model,
    CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END AS revenue, 0::numeric AS compute, 0::numeric AS promotional
  FROM journal_entries AS e JOIN postings AS p ON p.entry_id = e.id AND p.account IN (4010, 4030)
  WHERE e.entity = @entity AND e.service_on >= (@first || '-01')::date AND e.service_on < ((@last || '-01')::date + interval '1 month')
  UNION ALL
  SELECT x.period, x.customer_id, x.product, x.model, 0, CASE x.account WHEN 5010 THEN x.part ELSE 0 END, CASE x.account WHEN 6010 THEN x.part ELSE 0 END
  FROM parts AS x
)
SELECT period::text AS period, customer_id, product::text AS product, model::text AS model, sum(revenue)::bigint AS revenue, sum(compute)::bigint AS compute_cost,
  (sum(revenue) - sum(compute))::bigint AS margin, sum(promotional)::bigint AS promotional_cost
FROM facts GROUP BY 1, 2, 3, 4 HAVING sum(revenue) <> 0 OR sum(compute) <> 0 OR sum(promotional) <> 0 ORDER BY 1, 2 NULLS FIRST, 3, 4;
