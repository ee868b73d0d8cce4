-- The money book: turning a customer's operations into journal entries, settling refunds, and the reports that finance reads.

-- name: LockMark :one
-- How far the customer's operations have been posted. Whoever posts holds this row.
SELECT ver FROM recognition_marks WHERE customer_id = @customer_id FOR UPDATE;

-- name: AddMark :exec
INSERT INTO recognition_marks (customer_id, ver) VALUES (@customer_id, 0) ON CONFLICT (customer_id) DO NOTHING;

-- name: AdvanceMark :exec
UPDATE recognition_marks SET ver = @ver, updated_at = clock_timestamp() WHERE customer_id = @customer_id;

-- name: FindBooks :one
-- In whose books a customer stands, and its newest operation.
SELECT c.entity, e.currency, e.time_zone, h.ver
FROM customers AS c
JOIN legal_entities AS e ON e.code = c.entity
JOIN customer_heads AS h ON h.customer_id = c.id
WHERE c.id = @customer_id;

-- name: CustomersToRecognise :many
SELECT h.customer_id FROM customer_heads AS h
LEFT JOIN recognition_marks AS m ON m.customer_id = h.customer_id
WHERE h.customer_id > @after AND h.ver > coalesce(m.ver, 0)
ORDER BY h.customer_id LIMIT @n;

-- name: MovementsToRecognise :many
-- What happened to a customer's grants in its operations after @after up to @until, in order of grant and then of posting. A movement that is
-- no use of credits is a row of its own. Uses that no such movement of their grant lies between are a stretch; they come as one row for each
-- service day, product and model. Credits that are only held or released move no money. A right that ends at midnight ends with the day before; what comes
-- back to a grant after its end expires on the day of that end.
WITH moved AS (
  SELECT m.grant_id, m.ver, m.n, m.debit, m.credit, m.amount, o.dims,
    (m.credit = 'consumed' AND m.debit IN ('available', 'held') AND o.kind <> 'decrement')::boolean AS used,
    (CASE m.credit WHEN 'expired' THEN greatest(o.service_at, g.expires_at) - interval '1 microsecond' ELSE o.service_at END AT TIME ZONE @time_zone::text)::date AS day
  FROM grants AS g
  JOIN movements AS m ON m.grant_id = g.id AND m.ver > @after AND m.ver <= @until
  JOIN operations AS o ON o.customer_id = g.customer_id AND o.ver = m.ver
  WHERE g.customer_id = @customer_id AND NOT (m.debit IN ('available', 'held') AND m.credit IN ('available', 'held'))
), stretched AS (
  SELECT moved.*, count(*) FILTER (WHERE NOT used) OVER (PARTITION BY grant_id ORDER BY ver, n) AS stretch FROM moved
)
SELECT grant_id, stretch, used, min(debit)::unit_account AS debit, credit, day,
  coalesce(dims ->> 'product', '')::text AS product, coalesce(dims ->> 'model', '')::text AS model,
  sum(amount)::bigint AS units, min(ver)::bigint AS first_ver, max(ver)::bigint AS last_ver
FROM stretched
GROUP BY grant_id, stretch, used, credit, day, product, model
ORDER BY grant_id, stretch, used, day, product, model;

-- name: GrantsToRecognise :many
-- A grant without a carrying row has not been issued as far as the books know.
SELECT g.id, g.type, g.from_grant, g.amount, g.price_minor, g.tax_minor, g.price_currency, g.basis_minor, g.tax_basis_minor,
  (c.grant_id IS NOT NULL)::boolean AS known, coalesce(c.disposed, 0)::bigint AS disposed, coalesce(c.posted_out, 0)::bigint AS posted_out,
  coalesce(c.use_tax, 0)::numeric AS use_tax, w.unit
FROM grants AS g
JOIN wallets AS w ON w.id = g.wallet_id
LEFT JOIN grant_carrying AS c ON c.grant_id = g.id
WHERE g.id = ANY(@grants::uuid[]) ORDER BY g.id;

-- name: OriginsToRecognise :many
-- For each of the grants whose credits were another's, the purchase at the beginning, however often they have moved since.
WITH RECURSIVE line AS (
  SELECT g.id, g.from_grant AS origin FROM grants AS g WHERE g.id = ANY(@grants::uuid[]) AND g.from_grant IS NOT NULL
  UNION ALL
  SELECT l.id, g.from_grant FROM line AS l JOIN grants AS g ON g.id = l.origin WHERE g.from_grant IS NOT NULL
)
SELECT l.id, (g.tax_minor > 0)::boolean AS taxed, (c.grant_id IS NOT NULL)::boolean AS known, coalesce(c.use_tax, 0)::numeric AS use_tax,
  (g.issued_at AT TIME ZONE @time_zone::text)::date AS issued_on
FROM line AS l
JOIN grants AS g ON g.id = l.origin AND g.from_grant IS NULL
LEFT JOIN grant_carrying AS c ON c.grant_id = g.id
ORDER BY l.id;

-- name: RefundsToRecognise :many
SELECT id, grant_id, ver, money_minor, tax_minor, currency, basis_minor, tax_basis_minor FROM refunds
WHERE customer_id = @customer_id AND ver > @after AND ver <= @until ORDER BY ver, id;

-- name: LockPeriods :many
-- Until this transaction ends, nobody closes a period of the entity from @first on.
SELECT period, status FROM periods WHERE entity = @entity AND period >= @first ORDER BY period FOR SHARE;

-- name: AddPeriod :exec
INSERT INTO periods (entity, period) VALUES (@entity, @period) ON CONFLICT (entity, period) DO NOTHING;

-- name: AddEntries :copyfrom
INSERT INTO journal_entries (id, cause, entity, period, service_on, posted_at, kind, customer_id, grant_id, ver_from, ver_to, late, reverses, leaf, policy_version)
VALUES (@id, @cause, @entity, @period, @service_on, @posted_at, @kind, @customer_id, @grant_id, @ver_from, @ver_to, @late, @reverses, @leaf, @policy_version);

-- name: AddPostings :copyfrom
INSERT INTO postings (entry_id, n, account, side, amount_minor, currency, source_minor, source_currency, units, product, model)
VALUES (@entry_id, @n, @account, @side, @amount_minor, @currency, @source_minor, @source_currency, @units, @product, @model);

-- name: SetCarrying :exec
-- The rate of tax at use is that of the time of issue, and stays.
INSERT INTO grant_carrying (grant_id, disposed, posted_out, use_tax)
SELECT unnest(@grants::uuid[]), unnest(@disposed::bigint[]), unnest(@posted_out::bigint[]), unnest(@use_tax::numeric[])
ON CONFLICT (grant_id) DO UPDATE SET disposed = excluded.disposed, posted_out = excluded.posted_out;

-- name: LockRefund :one
SELECT r.customer_id, r.grant_id, r.ver, r.money_minor, r.tax_minor, r.currency, r.basis_minor, r.tax_basis_minor, r.status,
  r.settlement_method, r.settlement_ref, r.settled_at, c.entity, e.currency AS entity_currency, e.time_zone
FROM refunds AS r
JOIN customers AS c ON c.id = r.customer_id
JOIN legal_entities AS e ON e.code = c.entity
WHERE r.id = @id FOR UPDATE OF r;

-- name: MarkRefundSettled :exec
UPDATE refunds SET status = 'settled', settlement_method = @method, settlement_ref = @reference, settled_at = @settled_at WHERE id = @id;

-- name: FindEntity :one
SELECT code, name, currency, time_zone, created_at FROM legal_entities WHERE code = @code;

-- name: PagePeriods :many
-- Periods that something was booked in, newest first.
SELECT entity, period, status, version, changed_at FROM periods WHERE entity = @entity AND period < @before ORDER BY period DESC LIMIT @page_size;

-- name: TrialBalance :many
-- Of what is booked in the periods @first to @last, both inclusive, in minor units. Accounts without postings are left out.
SELECT p.account, a.name, a.type,
  coalesce(sum(p.amount_minor) FILTER (WHERE p.side = 'dr'), 0)::bigint AS debit,
  coalesce(sum(p.amount_minor) FILTER (WHERE p.side = 'cr'), 0)::bigint AS credit
FROM journal_entries AS e
JOIN postings AS p ON p.entry_id = e.id
JOIN ledger_accounts AS a ON a.code = p.account
WHERE e.entity = @entity AND e.period BETWEEN @first AND @last
GROUP BY p.account, a.name, a.type ORDER BY p.account;

-- name: RollForward :many
-- Account 2010 by subject: the customer, the grant, or, with neither, all of it in one row. Minor units; opening, purchases, concessions and closing
-- are credits, what follows the concessions are debits. Adjustments are whatever is of none of these kinds.
SELECT (CASE @by::text WHEN 'customer' THEN e.customer_id WHEN 'grant' THEN e.grant_id END)::uuid AS subject, p.currency,
  coalesce(sum(x.credit) FILTER (WHERE e.period < @first), 0)::bigint AS opening,
  coalesce(sum(x.credit) FILTER (WHERE e.period >= @first AND e.kind = 'purchase'), 0)::bigint AS purchases,
  coalesce(sum(x.credit) FILTER (WHERE e.period >= @first AND e.kind = 'concession'), 0)::bigint AS concessions,
  coalesce(sum(-x.credit) FILTER (WHERE e.period >= @first AND e.kind IN ('recognition', 'decrement')), 0)::bigint AS recognised,
  coalesce(sum(-x.credit) FILTER (WHERE e.period >= @first AND e.kind = 'expiry'), 0)::bigint AS breakage,
  coalesce(sum(-x.credit) FILTER (WHERE e.period >= @first AND e.kind = 'refund'), 0)::bigint AS refunds,
  coalesce(sum(-x.credit) FILTER (WHERE e.period >= @first AND e.kind = 'void'), 0)::bigint AS voids,
  coalesce(sum(-x.credit) FILTER (WHERE e.period >= @first AND e.kind = 'dispute'), 0)::bigint AS disputes,
  coalesce(sum(-x.credit) FILTER (WHERE e.period >= @first AND e.kind = 'transfer'), 0)::bigint AS transfers,
  coalesce(sum(-x.credit) FILTER (WHERE e.period >= @first AND e.kind = 'reversal'), 0)::bigint AS corrections,
  coalesce(sum(-x.credit) FILTER (WHERE e.period >= @first AND e.kind NOT IN
    ('purchase', 'concession', 'recognition', 'decrement', 'expiry', 'refund', 'void', 'dispute', 'transfer', 'reversal')), 0)::bigint AS adjustments,
  coalesce(sum(x.credit), 0)::bigint AS closing,
  coalesce(sum(-x.credit) FILTER (WHERE e.period >= @first AND e.late), 0)::bigint AS late
FROM journal_entries AS e
JOIN postings AS p ON p.entry_id = e.id AND p.account = 2010
CROSS JOIN LATERAL (SELECT CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END AS credit) AS x
WHERE e.entity = @entity AND e.period <= @last
  AND (sqlc.narg('customer_id')::uuid IS NULL OR e.customer_id = sqlc.narg('customer_id')::uuid)
  AND (@by::text = '' OR CASE @by::text WHEN 'customer' THEN e.customer_id ELSE e.grant_id END > @after::uuid)
GROUP BY 1, p.currency ORDER BY 1, p.currency LIMIT @page_size;

-- name: EntryNo :one
SELECT no FROM journal_entries WHERE id = @id;

-- name: Journal :many
-- In order of posting. An account of 0 and a null let everything through.
SELECT e.* FROM journal_entries AS e
WHERE e.entity = @entity AND e.no > @after
  AND (sqlc.narg('period')::text IS NULL OR e.period = sqlc.narg('period')::text)
  AND (sqlc.narg('customer_id')::uuid IS NULL OR e.customer_id = sqlc.narg('customer_id')::uuid)
  AND (sqlc.narg('grant_id')::uuid IS NULL OR e.grant_id = sqlc.narg('grant_id')::uuid)
  AND (@account::integer = 0 OR EXISTS (SELECT FROM postings AS p WHERE p.entry_id = e.id AND p.account = @account::integer))
ORDER BY e.no LIMIT @page_size;

-- name: ReadPostings :many
SELECT p.* FROM postings AS p WHERE p.entry_id = ANY(@entries::uuid[]) ORDER BY p.entry_id, p.n;
