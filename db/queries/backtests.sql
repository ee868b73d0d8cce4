-- Back-tests: reading a customer's history of a period from the outside, and keeping what came of it.

-- name: AddBacktest :one
INSERT INTO backtests (id, card_id, tested, document, effective_at, from_at, until_at, customers, created_by)
VALUES (@id, @card_id, @tested, @document, @effective_at, @from_at, @until_at, sqlc.narg('customers')::uuid[], @created_by) RETURNING *;

-- name: FindBacktest :one
-- With how much of it is done.
SELECT sqlc.embed(b), count(c.customer_id)::bigint AS tested_customers, coalesce(sum(c.events), 0)::bigint AS events,
  (count(*) FILTER (WHERE c.fault <> ''))::bigint AS failed, coalesce(min(c.fault) FILTER (WHERE c.fault <> ''), '')::text AS first_fault,
  (count(*) FILTER (WHERE c.refused > 0))::bigint AS dry
FROM backtests AS b LEFT JOIN backtest_customers AS c ON c.backtest_id = b.id WHERE b.id = @id GROUP BY b.id;

-- name: PageBacktests :many
SELECT * FROM backtests WHERE id < @before ORDER BY id DESC LIMIT @page_size;

-- name: BeginBacktest :one
-- Counts the customers who may have something in the period. Run again it changes nothing but the count.
UPDATE backtests AS b SET status = 'running', started_at = coalesce(b.started_at, clock_timestamp()), total = (
  SELECT count(*) FROM customer_heads AS h WHERE h.last_at >= b.from_at AND (b.customers IS NULL OR h.customer_id = ANY(b.customers)))
WHERE b.id = @id AND b.status IN ('queued', 'running') RETURNING b.total;

-- name: EndBacktest :one
-- What has ended stays as it ended.
UPDATE backtests SET status = @status, fault = @fault, ended_at = clock_timestamp() WHERE id = @id AND status IN ('queued', 'running') RETURNING status;

-- name: SeeBacktest :one
-- Notes how far it is; no row when it is no longer running.
UPDATE backtests SET seen = greatest(seen, @seen) WHERE id = @id AND status = 'running' RETURNING seen;

-- name: RemoveBacktests :execrows
DELETE FROM backtests WHERE id IN (SELECT b.id FROM backtests AS b WHERE b.created_at < now() - make_interval(secs => @age_seconds::double precision)
  ORDER BY b.created_at LIMIT @n);

-- name: BacktestsToEnd :many
-- Those that have not ended, in order of id.
SELECT id FROM backtests WHERE status IN ('queued', 'running') AND created_at < @made_before AND id > @after ORDER BY id LIMIT @n;

-- name: CustomersToBacktest :many
SELECT h.customer_id FROM customer_heads AS h
WHERE h.customer_id > @after AND h.last_at >= @from_at AND (sqlc.narg('customers')::uuid[] IS NULL OR h.customer_id = ANY(sqlc.narg('customers')::uuid[]))
ORDER BY h.customer_id LIMIT @n;

-- name: BacktestedCustomer :one
SELECT c.first_rate_card_id, e.currency FROM customers AS c JOIN legal_entities AS e ON e.code = c.entity WHERE c.id = @id;

-- name: AllGrants :many
-- In the columns of ReadGrants.
SELECT id, customer_id, wallet_id, type, status, frozen, priority, scope, member_id, effective_at, expires_at, price_minor, tax_minor,
  price_currency, fx_rate, basis_minor, tax_basis_minor, payment_ref, rate_policy, rate_version, rate_card_id, bonus_of, created_at, issued_at, amount,
  granted, avail, held, consumed, expired, refunded, voided, transferred, from_grant, from_ver
FROM grants WHERE customer_id = @customer_id ORDER BY id;

-- name: GrantsAtVersion :many
-- What the customer's grants had after a version, and in which order something was drawn of them last (0: never).
SELECT g.id, coalesce(a.after, 0)::bigint AS available, (g.consumed - coalesce(l.used, 0))::bigint AS consumed,
  (CASE WHEN d.ver IS NULL THEN 0 ELSE row_number() OVER (ORDER BY d.ver NULLS FIRST, d.n) END)::bigint AS drawn
FROM grants AS g
LEFT JOIN LATERAL (SELECT m.after FROM movements AS m WHERE m.grant_id = g.id AND m.ver <= @ver ORDER BY m.ver DESC, m.n DESC LIMIT 1) AS a ON true
LEFT JOIN LATERAL (
  SELECT sum(CASE WHEN m.credit = 'consumed' THEN m.amount WHEN m.debit = 'consumed' THEN -m.amount ELSE 0 END) AS used
  FROM movements AS m WHERE m.grant_id = g.id AND m.ver > @ver
) AS l ON true
LEFT JOIN LATERAL (
  SELECT m.ver, m.n FROM movements AS m WHERE m.grant_id = g.id AND m.credit = 'consumed' AND m.ver <= @ver ORDER BY m.ver DESC, m.n DESC LIMIT 1
) AS d ON true
WHERE g.customer_id = @customer_id ORDER BY g.id;

-- name: ShapingOperations :many
-- Those of (after, until] that are no consumptions.
SELECT ver, kind, amount, at, service_at, member_id, unit, receipt FROM operations
WHERE customer_id = @customer_id AND ver > @after AND ver <= @until AND kind NOT IN ('consume', 'reverse') ORDER BY ver LIMIT @page_size;

-- name: OperationsBetween :many
-- Those of (after, until].
SELECT ver, kind, amount, at, service_at, member_id, unit, receipt FROM operations
WHERE customer_id = @customer_id AND ver > @after AND ver <= @until ORDER BY ver LIMIT @page_size;

-- name: LockRunningBacktest :one
-- While a customer's result is written, nobody ends or removes the back-test.
SELECT id FROM backtests WHERE id = @id AND status = 'running' FOR SHARE;

-- name: AddBacktestCustomer :execrows
INSERT INTO backtest_customers (backtest_id, customer_id, currency, events, refused, refused_first, unpriced, why, fault)
VALUES (@backtest_id, @customer_id, @currency, @events, @refused, @refused_first, @unpriced, @why, @fault) ON CONFLICT DO NOTHING;

-- name: AddBacktestLines :copyfrom
INSERT INTO backtest_lines (backtest_id, customer_id, unit, product, model, booked_events, booked_credits, booked_revenue, booked_expired, booked_breakage,
  booked_costed, booked_cost, tested_events, tested_refused, tested_unpriced, tested_credits, tested_revenue, tested_expired, tested_breakage, tested_costed, tested_cost)
VALUES (@backtest_id, @customer_id, @unit, @product, @model, @booked_events, @booked_credits, @booked_revenue, @booked_expired, @booked_breakage,
  @booked_costed, @booked_cost, @tested_events, @tested_refused, @tested_unpriced, @tested_credits, @tested_revenue, @tested_expired, @tested_breakage, @tested_costed,
  @tested_cost);

-- name: BacktestTotals :many
-- By unit and currency; with by_model also by product and model, the first after a key in that order.
SELECT l.unit, u.scale, c.currency, (CASE WHEN @by_model::boolean THEN l.product ELSE '' END)::text AS product,
  (CASE WHEN @by_model::boolean THEN l.model ELSE '' END)::text AS model,
  sum(l.booked_events)::bigint AS booked_events, sum(l.booked_credits)::bigint AS booked_credits, sum(l.booked_revenue)::bigint AS booked_revenue,
  sum(l.booked_expired)::bigint AS booked_expired, sum(l.booked_breakage)::bigint AS booked_breakage, sum(l.booked_costed)::bigint AS booked_costed,
  sum(l.booked_cost)::numeric AS booked_cost,
  sum(l.tested_events)::bigint AS tested_events, sum(l.tested_refused)::bigint AS tested_refused, sum(l.tested_unpriced)::bigint AS tested_unpriced,
  sum(l.tested_credits)::bigint AS tested_credits, sum(l.tested_revenue)::bigint AS tested_revenue, sum(l.tested_expired)::bigint AS tested_expired,
  sum(l.tested_breakage)::bigint AS tested_breakage, sum(l.tested_costed)::bigint AS tested_costed, sum(l.tested_cost)::numeric AS tested_cost
FROM backtest_lines AS l
JOIN backtest_customers AS c ON c.backtest_id = l.backtest_id AND c.customer_id = l.customer_id
JOIN units AS u ON u.code = l.unit
WHERE l.backtest_id = @id AND (NOT @by_model::boolean OR (l.unit, c.currency, l.product, l.model) > (@after_unit::text, @after_currency::text, @after_product::text, @after_model::text))
GROUP BY 1, 2, 3, 4, 5 ORDER BY l.unit, c.currency, 4, 5 LIMIT @page_size;

-- name: PageBacktestCustomers :many
-- In order of id; with dry only those to whom something would have been refused.
SELECT c.*, k.external_id FROM backtest_customers AS c JOIN customers AS k ON k.id = c.customer_id
WHERE c.backtest_id = @id AND c.customer_id > @after AND (NOT @dry::boolean OR c.refused > 0) ORDER BY c.customer_id LIMIT @page_size;

-- name: BacktestCustomerTotals :many
SELECT l.customer_id, l.unit, u.scale,
  sum(l.booked_events)::bigint AS booked_events, sum(l.booked_credits)::bigint AS booked_credits, sum(l.booked_revenue)::bigint AS booked_revenue,
  sum(l.booked_expired)::bigint AS booked_expired, sum(l.booked_breakage)::bigint AS booked_breakage, sum(l.booked_costed)::bigint AS booked_costed,
  sum(l.booked_cost)::numeric AS booked_cost,
  sum(l.tested_events)::bigint AS tested_events, sum(l.tested_refused)::bigint AS tested_refused, sum(l.tested_unpriced)::bigint AS tested_unpriced,
  sum(l.tested_credits)::bigint AS tested_credits, sum(l.tested_revenue)::bigint AS tested_revenue, sum(l.tested_expired)::bigint AS tested_expired,
  sum(l.tested_breakage)::bigint AS tested_breakage, sum(l.tested_costed)::bigint AS tested_costed, sum(l.tested_cost)::numeric AS tested_cost
FROM backtest_lines AS l JOIN units AS u ON u.code = l.unit
WHERE l.backtest_id = @id AND l.customer_id = ANY(@customers::uuid[]) GROUP BY l.customer_id, l.unit, u.scale ORDER BY l.customer_id, l.unit;

-- name: EveryRateCardVersion :many
-- Every version of every card, those withdrawn too; a card without any is one row without a version. Without the documents.
SELECT c.id, c.code, c.unit, c.is_default, u.scale, u.name AS unit_name, v.version, v.effective_at, v.published_at, w.withdrawn_at
FROM rate_cards AS c
JOIN units AS u ON u.code = c.unit
LEFT JOIN rate_card_versions AS v ON v.card_id = c.id
LEFT JOIN rate_card_withdrawals AS w ON w.card_id = v.card_id AND w.version = v.version
ORDER BY c.id, v.version;
