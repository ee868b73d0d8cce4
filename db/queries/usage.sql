-- Usage slices: a customer's operations counted by hour, wallet, member, product and model.

-- name: LockUsageMark :one
-- How far the customer's operations have been counted. Whoever counts holds this row.
SELECT ver FROM usage_marks WHERE customer_id = @customer_id FOR UPDATE;

-- name: AddUsageMark :exec
INSERT INTO usage_marks (customer_id, ver) VALUES (@customer_id, 0) ON CONFLICT (customer_id) DO NOTHING;

-- name: AdvanceUsageMark :exec
UPDATE usage_marks SET ver = @ver, updated_at = clock_timestamp() WHERE customer_id = @customer_id;

-- name: FindHead :one
SELECT ver FROM customer_heads WHERE customer_id = @customer_id;

-- name: OperationsToCount :many
SELECT ver, kind, amount, at, service_at, actor, request_id, member_id, key, unit, dims, receipt FROM operations
WHERE customer_id = @customer_id AND ver > @after ORDER BY ver LIMIT @n;

-- name: MovementsToCount :many
-- Of the operations after @after up to @until. The fence keeps a plan that looks into each grant's newest movements, however many there are of others.
SELECT m.ver, m.n, g.id AS grant_id, g.type, g.wallet_id, w.unit, u.scale, m.debit, m.credit, m.amount, m.after
FROM grants AS g
JOIN wallets AS w ON w.id = g.wallet_id
JOIN units AS u ON u.code = w.unit
CROSS JOIN LATERAL (
  SELECT x.ver, x.n, x.debit, x.credit, x.amount, x.after FROM movements AS x
  WHERE x.grant_id = g.id AND x.ver > @after AND x.ver <= @until OFFSET 0
) AS m
WHERE g.customer_id = @customer_id
ORDER BY m.ver, m.n, g.id;

-- name: AddSlices :exec
INSERT INTO usage_slices (customer_id, hour, unit, wallet_id, member_id, product, model, cost_currency, consumed, overage, operations, cost)
SELECT @customer_id, unnest(@hours::timestamptz[]), unnest(@units::text[]), unnest(@wallets::uuid[]), unnest(@members::uuid[]), unnest(@products::text[]),
  unnest(@models::text[]), unnest(@currencies::text[]), unnest(@consumed::bigint[]), unnest(@overages::bigint[]), unnest(@operations::bigint[]), unnest(@costs::numeric[])
ON CONFLICT (customer_id, hour, unit, wallet_id, member_id, product, model, cost_currency) DO UPDATE SET
  consumed = usage_slices.consumed + excluded.consumed, overage = usage_slices.overage + excluded.overage,
  operations = usage_slices.operations + excluded.operations, cost = usage_slices.cost + excluded.cost;

-- name: AddHours :exec
INSERT INTO usage_hours (customer_id, hour, unit, wallet_id, consumed, overage, operations)
SELECT @customer_id, unnest(@hours::timestamptz[]), unnest(@units::text[]), unnest(@wallets::uuid[]), unnest(@consumed::bigint[]), unnest(@overages::bigint[]),
  unnest(@operations::bigint[])
ON CONFLICT (customer_id, hour, unit, wallet_id) DO UPDATE SET consumed = usage_hours.consumed + excluded.consumed,
  overage = usage_hours.overage + excluded.overage, operations = usage_hours.operations + excluded.operations;

-- name: AddQuantities :exec
INSERT INTO usage_quantities (customer_id, hour, member_id, product, model, meter, quantity)
SELECT @customer_id, unnest(@hours::timestamptz[]), unnest(@members::uuid[]), unnest(@products::text[]), unnest(@models::text[]), unnest(@meters::text[]),
  unnest(@quantities::numeric[])
ON CONFLICT (customer_id, hour, member_id, product, model, meter) DO UPDATE SET quantity = usage_quantities.quantity + excluded.quantity;

-- name: CalendarOf :one
-- Where the days of a customer's books begin.
SELECT e.time_zone FROM customers AS c JOIN legal_entities AS e ON e.code = c.entity WHERE c.id = @customer_id;

-- name: AddCosts :exec
INSERT INTO usage_costs (customer_id, day, hour, provider, product, model, currency, cost, promotional, operations)
SELECT @customer_id, unnest(@days::date[]), unnest(@hours::timestamptz[]), unnest(@providers::text[]), unnest(@products::text[]), unnest(@models::text[]),
  unnest(@currencies::text[]), unnest(@costs::numeric[]), unnest(@promotionals::numeric[]), unnest(@operations::bigint[])
ON CONFLICT (customer_id, day, hour, provider, product, model, currency) DO UPDATE SET cost = usage_costs.cost + excluded.cost,
  promotional = usage_costs.promotional + excluded.promotional, operations = usage_costs.operations + excluded.operations;

-- name: RecentToCount :many
-- Customers with operations since an instant that are not counted yet.
SELECT DISTINCT o.customer_id FROM operations AS o
LEFT JOIN usage_marks AS m ON m.customer_id = o.customer_id
WHERE o.at >= @since AND o.ver > coalesce(m.ver, 0)
ORDER BY o.customer_id LIMIT @n;

-- name: AllToCount :many
-- Every customer after one with operations that are not counted yet, in order of id, and when the first of those happened.
SELECT h.customer_id, o.at FROM customer_heads AS h
LEFT JOIN usage_marks AS m ON m.customer_id = h.customer_id
JOIN operations AS o ON o.customer_id = h.customer_id AND o.ver = coalesce(m.ver, 0) + 1
WHERE h.customer_id > @after AND h.ver > coalesce(m.ver, 0)
ORDER BY h.customer_id LIMIT @n;

-- name: UsageAsOf :one
-- The instant up to which everything that a customer did is counted: that of its first operation that is not, or now.
SELECT clock_timestamp()::timestamptz AS now, (SELECT o.at FROM operations AS o
  WHERE o.customer_id = h.customer_id AND o.ver = coalesce((SELECT m.ver FROM usage_marks AS m WHERE m.customer_id = h.customer_id), 0) + 1) AS first_uncounted
FROM customer_heads AS h WHERE h.customer_id = @customer_id;

-- name: HoursOfWallets :many
-- Of one wallet, or of all when it is null.
SELECT unit, hour, sum(consumed)::bigint AS consumed FROM usage_hours
WHERE customer_id = @customer_id AND hour >= @since AND (sqlc.narg('wallet_id')::uuid IS NULL OR wallet_id = sqlc.narg('wallet_id')::uuid)
GROUP BY unit, hour ORDER BY unit, hour;

-- name: HoursOfMember :many
-- Of one model, or of all when it is null; of one wallet likewise.
SELECT unit, hour, sum(consumed)::bigint AS consumed FROM usage_slices
WHERE customer_id = @customer_id AND member_id = @member_id AND hour >= @since
  AND (sqlc.narg('model')::text IS NULL OR model = sqlc.narg('model')::text) AND (sqlc.narg('wallet_id')::uuid IS NULL OR wallet_id = sqlc.narg('wallet_id')::uuid)
GROUP BY unit, hour ORDER BY unit, hour;

-- name: HoursOfModel :many
SELECT unit, hour, sum(consumed)::bigint AS consumed FROM usage_slices
WHERE customer_id = @customer_id AND model = @model AND hour >= @since
  AND (sqlc.narg('wallet_id')::uuid IS NULL OR wallet_id = sqlc.narg('wallet_id')::uuid)
GROUP BY unit, hour ORDER BY unit, hour;

-- name: ReadSizes :many
-- A customer's, of some models. Whoever adds to them holds the customer's mark.
SELECT model, measure, at, buckets, weights FROM usage_sizes
WHERE model = ANY(@models::text[]) AND measure = ANY(@measures::text[]) AND customer_id = @customer_id ORDER BY model, measure;

-- name: SaveSizes :exec
INSERT INTO usage_sizes (model, measure, customer_id, at, buckets, weights)
VALUES (@model, @measure, @customer_id, @at, @buckets, @weights)
ON CONFLICT (model, measure, customer_id) DO UPDATE SET at = excluded.at, buckets = excluded.buckets, weights = excluded.weights;

-- name: SizesOfModel :many
-- Those of the newest customers who used it.
SELECT measure, at, buckets, weights FROM usage_sizes WHERE model = @model AND measure = @measure ORDER BY customer_id DESC LIMIT @n;
