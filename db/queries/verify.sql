-- The books recomputed from the ledger. Every query returns one row for each thing that it checks: what it is, and how it differs; null when it
-- does not. db/verify.go counts the rows and lists those that differ, so the columns must be (subject text, detail text) and there are no parameters.

-- name: VerifyEntries :many
-- Each entry balances, in its entity's currency, and is booked in its own month or says that it is late.
SELECT coalesce(e.id, p.entry_id)::text AS subject, CASE
    WHEN min(e.cause) IS NULL THEN 'has postings and is not in the journal'
    WHEN count(p.entry_id) < 2 THEN format('has %s postings', count(p.entry_id))
    WHEN bool_or(p.currency <> l.currency) THEN format('has postings that are not in %s', min(l.currency))
    WHEN sum(x.debit) <> 0 THEN format('its debits are %s minor units more than its credits', sum(x.debit))
    WHEN bool_or(e.late <> (e.period <> to_char(e.service_on, 'YYYY-MM'))) THEN format('happened on %s, is booked in %s and says late: %s',
      min(e.service_on), min(e.period), bool_or(e.late))
  END AS detail
FROM journal_entries AS e
FULL JOIN postings AS p ON p.entry_id = e.id
LEFT JOIN legal_entities AS l ON l.code = e.entity
CROSS JOIN LATERAL (SELECT CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END AS debit) AS x
GROUP BY coalesce(e.id, p.entry_id);

-- name: VerifyGrants :many
-- Each grant's counters are what its movements make, and its parts are what was granted.
WITH pairs AS (
  SELECT grant_id, debit, credit, sum(amount) AS amount FROM movements GROUP BY grant_id, debit, credit
), moved AS (
  SELECT grant_id,
    coalesce(-sum(v.net) FILTER (WHERE v.account = 'issued'), 0) AS granted,
    coalesce(sum(v.net) FILTER (WHERE v.account = 'available'), 0) AS avail,
    coalesce(sum(v.net) FILTER (WHERE v.account = 'held'), 0) AS held,
    coalesce(sum(v.net) FILTER (WHERE v.account = 'consumed'), 0) AS consumed,
    coalesce(sum(v.net) FILTER (WHERE v.account = 'expired'), 0) AS expired,
    coalesce(sum(v.net) FILTER (WHERE v.account = 'refunded'), 0) AS refunded,
    coalesce(sum(v.net) FILTER (WHERE v.account = 'voided'), 0) AS voided,
    coalesce(sum(v.net) FILTER (WHERE v.account = 'transferred'), 0) AS transferred
  FROM pairs
  CROSS JOIN LATERAL (VALUES (credit, amount), (debit, -amount)) AS v (account, net)
  GROUP BY grant_id
)
SELECT coalesce(g.id, m.grant_id)::text AS subject, CASE
    WHEN g.id IS NULL THEN 'has movements and is no grant'
    ELSE nullif(concat_ws('; ',
      CASE WHEN g.granted <> coalesce(m.granted, 0) THEN format('granted is %s, its movements make %s', g.granted, coalesce(m.granted, 0)) END,
      CASE WHEN g.avail <> coalesce(m.avail, 0) THEN format('available is %s, its movements make %s', g.avail, coalesce(m.avail, 0)) END,
      CASE WHEN g.held <> coalesce(m.held, 0) THEN format('held is %s, its movements make %s', g.held, coalesce(m.held, 0)) END,
      CASE WHEN g.consumed <> coalesce(m.consumed, 0) THEN format('consumed is %s, its movements make %s', g.consumed, coalesce(m.consumed, 0)) END,
      CASE WHEN g.expired <> coalesce(m.expired, 0) THEN format('expired is %s, its movements make %s', g.expired, coalesce(m.expired, 0)) END,
      CASE WHEN g.refunded <> coalesce(m.refunded, 0) THEN format('refunded is %s, its movements make %s', g.refunded, coalesce(m.refunded, 0)) END,
      CASE WHEN g.voided <> coalesce(m.voided, 0) THEN format('voided is %s, its movements make %s', g.voided, coalesce(m.voided, 0)) END,
      CASE WHEN g.transferred <> coalesce(m.transferred, 0) THEN format('transferred is %s, its movements make %s', g.transferred, coalesce(m.transferred, 0)) END,
      CASE WHEN g.granted <> g.avail + g.held + g.consumed + g.expired + g.refunded + g.voided + g.transferred THEN format('granted is %s, its parts are %s',
        g.granted, g.avail + g.held + g.consumed + g.expired + g.refunded + g.voided + g.transferred) END
    ), '')
  END AS detail
FROM grants AS g
FULL JOIN moved AS m ON m.grant_id = g.id;

-- name: VerifyMovements :many
-- What a movement says that it leaves available is what the movements up to it leave.
SELECT grant_id::text AS subject,
  CASE WHEN after <> made THEN format('movement %s of operation %s says that it leaves %s, the movements up to it leave %s', n, ver, after, made) END AS detail
FROM (
  SELECT grant_id, ver, n, after, sum(CASE WHEN credit = 'available' THEN amount WHEN debit = 'available' THEN -amount ELSE 0 END)
    OVER (PARTITION BY grant_id ORDER BY ver, n ROWS UNBOUNDED PRECEDING) AS made
  FROM movements
) AS m;

-- name: VerifyHistories :many
-- Each customer's operations are numbered from 1 to its head without a gap, and their times never run backwards.
SELECT coalesce(h.customer_id, o.customer_id)::text AS subject, CASE
    WHEN h.customer_id IS NULL THEN 'has operations and no head'
    WHEN o.astray IS NOT NULL THEN format('operation %s is not preceded by operation %s', o.astray, o.astray - 1)
    WHEN coalesce(o.newest, 0) <> h.ver THEN format('its head is at %s, its newest operation is %s', h.ver, coalesce(o.newest, 0))
    WHEN o.backwards IS NOT NULL THEN format('operation %s is earlier than the one before it', o.backwards)
    WHEN o.last_at > h.last_at THEN format('its head''s time is before that of operation %s', o.newest)
  END AS detail
FROM customer_heads AS h
FULL JOIN (
  SELECT customer_id, max(ver) AS newest, min(ver) FILTER (WHERE ver <> place) AS astray, max(at) AS last_at, min(ver) FILTER (WHERE at < before_at) AS backwards
  FROM (
    SELECT customer_id, ver, at, row_number() OVER w AS place, lag(at) OVER w AS before_at FROM operations WINDOW w AS (PARTITION BY customer_id ORDER BY ver)
  ) AS x
  GROUP BY customer_id
) AS o ON o.customer_id = h.customer_id;

-- name: VerifyOperations :many
-- Each operation moved what its movements sum to, and each movement is of an operation.
SELECT coalesce(o.customer_id, m.customer_id)::text AS subject, CASE
    WHEN o.ver IS NULL THEN format('has movements of operation %s, which does not exist', m.ver)
    WHEN o.amount <> coalesce(m.amount, 0) THEN format('operation %s moved %s, its movements %s', o.ver, o.amount, coalesce(m.amount, 0))
  END AS detail
FROM operations AS o
FULL JOIN (
  SELECT g.customer_id, x.ver, sum(x.amount) AS amount FROM movements AS x JOIN grants AS g ON g.id = x.grant_id GROUP BY g.customer_id, x.ver
) AS m ON m.customer_id = o.customer_id AND m.ver = o.ver;

-- name: VerifyKeys :many
-- Each idempotency key that answers with an operation is that operation's.
SELECT k.digest::text AS subject, CASE
    WHEN o.ver IS NULL THEN format('answers with operation %s of a customer, which does not exist', k.ver)
    WHEN encode(substr(sha256(convert_to(o.key, 'UTF8')), 1, 16), 'hex')::uuid <> k.digest THEN format('answers with operation %s, which was done for another key', k.ver)
  END AS detail
FROM idempotency_keys AS k
LEFT JOIN operations AS o ON o.customer_id = k.customer_id AND o.ver = k.ver
WHERE k.ver IS NOT NULL;

-- name: VerifyRefunds :many
-- Each refund is of the credits that its operation took back, and a grant's refunds never exceed its price.
SELECT r.id::text AS subject, CASE
    WHEN r.units <> r.taken THEN format('is of %s credits, its operation took %s back', r.units, r.taken)
    WHEN r.money > r.price_minor OR r.tax > r.tax_price THEN format('the grant''s refunds up to it are %s and %s tax, its price was %s and %s tax',
      r.money, r.tax, r.price_minor, r.tax_price)
    WHEN (r.status = 'settled') <> (r.settled_at IS NOT NULL) THEN format('is %s, settled at %s', r.status, coalesce(r.settled_at::text, 'no time'))
  END AS detail
FROM (
  SELECT r.id, r.units, r.status, r.settled_at, g.price_minor, g.tax_minor AS tax_price,
    (SELECT coalesce(sum(m.amount), 0) FROM movements AS m
      WHERE m.grant_id = r.grant_id AND m.ver = r.ver AND m.credit IN ('refunded', 'voided')) AS taken,
    sum(r.money_minor) OVER w AS money, sum(r.tax_minor) OVER w AS tax
  FROM refunds AS r
  JOIN grants AS g ON g.id = r.grant_id
  WINDOW w AS (PARTITION BY r.grant_id ORDER BY r.ver)
) AS r;

-- name: VerifyMarks :many
-- Nothing has been posted that has not happened.
SELECT k.customer_id::text AS subject,
  CASE WHEN k.ver > coalesce(h.ver, 0) THEN format('entries are posted up to operation %s, its head is at %s', k.ver, coalesce(h.ver, 0)) END AS detail
FROM recognition_marks AS k
LEFT JOIN customer_heads AS h ON h.customer_id = k.customer_id;

-- name: VerifyUsageMarks :many
-- Nothing has been counted that has not happened.
SELECT k.customer_id::text AS subject,
  CASE WHEN k.ver > coalesce(h.ver, 0) THEN format('usage is counted up to operation %s, its head is at %s', k.ver, coalesce(h.ver, 0)) END AS detail
FROM usage_marks AS k
LEFT JOIN customer_heads AS h ON h.customer_id = k.customer_id;

-- name: VerifySlices :many
-- Each slice of usage is the sum of what the customer's operations up to the mark consumed, less what they gave back.
WITH used AS (
  SELECT g.customer_id, m.ver, m.n, g.id AS grant_id, g.wallet_id, w.unit, g.type,
    CASE WHEN m.credit = 'consumed' THEN m.amount ELSE -m.amount END AS amount
  FROM movements AS m
  JOIN grants AS g ON g.id = m.grant_id
  JOIN wallets AS w ON w.id = g.wallet_id
  JOIN usage_marks AS k ON k.customer_id = g.customer_id AND m.ver <= k.ver
  WHERE 'consumed' IN (m.debit, m.credit)
), firsts AS (
  SELECT DISTINCT ON (customer_id, ver) customer_id, ver, unit, wallet_id FROM used ORDER BY customer_id, ver, n, grant_id
), facts AS (
  SELECT customer_id, ver, unit, wallet_id, amount AS consumed, CASE type WHEN 'overage' THEN amount ELSE 0 END AS overage, 0 AS operations FROM used
  UNION ALL
  SELECT o.customer_id, o.ver, coalesce(f.unit, o.unit, ''), coalesce(f.wallet_id, '00000000-0000-0000-0000-000000000000'), 0, 0, 1
  FROM operations AS o
  JOIN usage_marks AS k ON k.customer_id = o.customer_id AND o.ver <= k.ver
  LEFT JOIN firsts AS f ON f.customer_id = o.customer_id AND f.ver = o.ver
  WHERE o.kind IN ('consume', 'capture', 'reverse')
), made AS (
  SELECT f.customer_id, date_trunc('hour', o.service_at, 'UTC') AS hour, f.unit, f.wallet_id,
    coalesce(o.member_id, '00000000-0000-0000-0000-000000000000') AS member_id, coalesce(o.dims ->> 'product', '') AS product, coalesce(o.dims ->> 'model', '') AS model,
    sum(f.consumed) AS consumed, sum(f.overage) AS overage, sum(f.operations) AS operations
  FROM facts AS f
  JOIN operations AS o ON o.customer_id = f.customer_id AND o.ver = f.ver
  GROUP BY 1, 2, 3, 4, 5, 6, 7
), kept AS (
  SELECT customer_id, hour, unit, wallet_id, member_id, product, model, sum(consumed) AS consumed, sum(overage) AS overage, sum(operations) AS operations
  FROM usage_slices GROUP BY 1, 2, 3, 4, 5, 6, 7
)
SELECT customer_id::text AS subject, CASE
    WHEN (coalesce(k.consumed, 0), coalesce(k.overage, 0), coalesce(k.operations, 0)) <> (coalesce(m.consumed, 0), coalesce(m.overage, 0), coalesce(m.operations, 0))
    THEN format('of %s, %s %s: %s consumed, %s of it overage, in %s operations, by its movements %s, %s, %s', to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24"Z"'),
      product, model, coalesce(k.consumed, 0), coalesce(k.overage, 0), coalesce(k.operations, 0), coalesce(m.consumed, 0), coalesce(m.overage, 0), coalesce(m.operations, 0))
  END AS detail
FROM made AS m
FULL JOIN kept AS k USING (customer_id, hour, unit, wallet_id, member_id, product, model);

-- name: VerifyCosts :many
-- What usage cost is the sum of what the receipts of the customer's operations up to the mark say, and the promotional part of it the promotional part of
-- the credits that each operation took.
WITH net AS (
  SELECT g.customer_id, m.ver, sum(x.amount) AS consumed, coalesce(sum(x.amount) FILTER (WHERE g.type = 'promotional'), 0) AS promotional
  FROM movements AS m
  JOIN grants AS g ON g.id = m.grant_id
  JOIN usage_marks AS k ON k.customer_id = g.customer_id AND m.ver <= k.ver
  CROSS JOIN LATERAL (SELECT CASE WHEN m.credit = 'consumed' THEN m.amount ELSE -m.amount END AS amount) AS x
  WHERE 'consumed' IN (m.debit, m.credit)
  GROUP BY g.customer_id, m.ver
), said AS (
  SELECT o.customer_id, o.ver, o.service_at, o.dims, (o.receipt #>> '{cost,amount}')::numeric AS cost, o.receipt #>> '{cost,currency}' AS currency
  FROM operations AS o
  JOIN usage_marks AS k ON k.customer_id = o.customer_id AND o.ver <= k.ver
  WHERE o.kind IN ('consume', 'capture', 'reverse') AND coalesce(o.receipt #>> '{cost,currency}', '') <> ''
), made AS (
  SELECT s.customer_id, (s.service_at AT TIME ZONE l.time_zone)::date AS day, date_trunc('hour', s.service_at, 'UTC') AS hour,
    coalesce(s.dims ->> 'provider', '') AS provider, coalesce(s.dims ->> 'product', '') AS product, coalesce(s.dims ->> 'model', '') AS model, s.currency,
    sum(s.cost) AS cost,
    sum(CASE WHEN n.consumed > 0 THEN div(s.cost * least(greatest(n.promotional, 0), n.consumed) * 1000000000000000000, n.consumed) * 0.000000000000000001 ELSE 0 END) AS promotional,
    count(*) AS operations
  FROM said AS s
  JOIN customers AS c ON c.id = s.customer_id
  JOIN legal_entities AS l ON l.code = c.entity
  LEFT JOIN net AS n ON n.customer_id = s.customer_id AND n.ver = s.ver
  GROUP BY 1, 2, 3, 4, 5, 6, 7
)
SELECT customer_id::text AS subject, CASE
    WHEN (coalesce(k.cost, 0), coalesce(k.promotional, 0), coalesce(k.operations, 0)) <> (coalesce(m.cost, 0), coalesce(m.promotional, 0), coalesce(m.operations, 0))
    THEN format('of %s, %s %s: cost %s, %s of it promotional, in %s operations, by its receipts %s, %s, %s', to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24"Z"'),
      provider, model, coalesce(k.cost, 0), coalesce(k.promotional, 0), coalesce(k.operations, 0), coalesce(m.cost, 0), coalesce(m.promotional, 0), coalesce(m.operations, 0))
  END AS detail
FROM made AS m
FULL JOIN usage_costs AS k USING (customer_id, day, hour, provider, product, model, currency);

-- name: VerifyHours :many
-- Each hour of a wallet is the sum of its slices.
SELECT customer_id::text AS subject, CASE
    WHEN (coalesce(h.consumed, 0), coalesce(h.overage, 0), coalesce(h.operations, 0)) <> (coalesce(s.consumed, 0), coalesce(s.overage, 0), coalesce(s.operations, 0))
    THEN format('of %s: %s consumed, %s of it overage, in %s operations, its slices sum to %s, %s, %s', to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24"Z"'),
      coalesce(h.consumed, 0), coalesce(h.overage, 0), coalesce(h.operations, 0), coalesce(s.consumed, 0), coalesce(s.overage, 0), coalesce(s.operations, 0))
  END AS detail
FROM usage_hours AS h
FULL JOIN (
  SELECT customer_id, unit, wallet_id, hour, sum(consumed) AS consumed, sum(overage) AS overage, sum(operations) AS operations FROM usage_slices GROUP BY 1, 2, 3, 4
) AS s USING (customer_id, unit, wallet_id, hour);

-- name: VerifyCarrying :many
-- Each grant's line of the sub-ledger is what its movements up to the mark and the cumulative rule make it, and what is posted for it.
WITH pairs AS (
  SELECT m.grant_id, m.debit, m.credit, sum(m.amount) AS amount
  FROM movements AS m
  JOIN grants AS g ON g.id = m.grant_id
  JOIN recognition_marks AS k ON k.customer_id = g.customer_id AND m.ver <= k.ver
  GROUP BY m.grant_id, m.debit, m.credit
), moved AS (
  SELECT grant_id, bool_or(debit = 'issued') AS issued,
    coalesce(sum(amount) FILTER (WHERE credit NOT IN ('issued', 'available', 'held')), 0)
      - coalesce(sum(amount) FILTER (WHERE debit NOT IN ('issued', 'available', 'held')), 0) AS disposed,
    coalesce(sum(amount) FILTER (WHERE credit = 'consumed'), 0) - coalesce(sum(amount) FILTER (WHERE debit = 'consumed'), 0) AS used
  FROM pairs GROUP BY grant_id
), posted AS (
  SELECT e.grant_id,
    coalesce(sum(-x.debit) FILTER (WHERE x.brings_in), 0) AS brought_in,
    coalesce(sum(x.debit) FILTER (WHERE p.account = 2010 AND NOT x.brings_in OR p.account = 1120 AND e.kind IN ('overage', 'reversal')), 0) AS taken_out
  FROM journal_entries AS e
  JOIN postings AS p ON p.entry_id = e.id AND p.account IN (1120, 2010)
  CROSS JOIN LATERAL (SELECT CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END AS debit,
    p.account = 2010 AND (e.kind IN ('purchase', 'concession') OR e.kind = 'transfer' AND p.side = 'cr') AS brings_in) AS x
  GROUP BY e.grant_id
), lines AS (
  SELECT g.id, g.basis_minor, g.amount, c.grant_id IS NOT NULL AS known, coalesce(m.issued, false) AS issued,
    coalesce(c.disposed, 0) AS disposed, coalesce(c.posted_out, 0) AS posted_out,
    coalesce(CASE g.type WHEN 'overage' THEN m.used ELSE m.disposed END, 0) AS made,
    CASE WHEN m.issued AND g.type <> 'overage' THEN g.basis_minor ELSE 0 END AS owed,
    coalesce(p.brought_in, 0) AS brought_in, coalesce(p.taken_out, 0) AS taken_out
  FROM grants AS g
  LEFT JOIN moved AS m ON m.grant_id = g.id
  LEFT JOIN posted AS p ON p.grant_id = g.id
  LEFT JOIN grant_carrying AS c ON c.grant_id = g.id
)
SELECT id::text AS subject, nullif(concat_ws('; ',
    CASE WHEN known <> issued THEN format('issued: %s, in the sub-ledger: %s', issued, known) END,
    CASE WHEN disposed <> made THEN format('%s credits are disposed of, by its movements %s', disposed, made) END,
    CASE WHEN posted_out <> div(basis_minor::numeric * disposed, amount) THEN format('%s minor units have left it, by the cumulative rule %s',
      posted_out, div(basis_minor::numeric * disposed, amount)) END,
    CASE WHEN brought_in <> owed THEN format('%s minor units are posted as received, it cost %s', brought_in, owed) END,
    CASE WHEN posted_out <> taken_out THEN format('%s minor units have left it, posted are %s', posted_out, taken_out) END
  ), '') AS detail
FROM lines;

-- name: VerifyAccounts :many
-- The control accounts of each entity are the sums of their sub-ledgers: 2010 of what the grants carry, 2019 of the adjustments of breakage, 2011 of what has left a grant and is not yet
-- booked as another's, 1130 of the disputes that are open, 2020 of the refunds not yet paid.
SELECT l.code || ' ' || s.account AS subject,
  CASE WHEN s.amount <> coalesce(b.credit, 0) THEN format('the sub-ledger is %s minor units, the general ledger %s', s.amount, coalesce(b.credit, 0)) END AS detail
FROM legal_entities AS l
CROSS JOIN LATERAL (
  SELECT 2010 AS account, coalesce(sum(g.basis_minor - x.posted_out), 0) AS amount
  FROM customers AS c
  JOIN grants AS g ON g.customer_id = c.id AND g.type <> 'overage'
  JOIN grant_carrying AS x ON x.grant_id = g.id
  WHERE c.entity = l.code
  UNION ALL
  SELECT 2011, coalesce(sum(CASE WHEN coalesce(k.ver, 0) >= g.from_ver THEN g.basis_minor ELSE 0 END - CASE WHEN x.grant_id IS NULL THEN 0 ELSE g.basis_minor END), 0)
  FROM customers AS c
  JOIN grants AS g ON g.customer_id = c.id AND g.from_grant IS NOT NULL
  JOIN grants AS f ON f.id = g.from_grant
  LEFT JOIN recognition_marks AS k ON k.customer_id = f.customer_id
  LEFT JOIN grant_carrying AS x ON x.grant_id = g.id
  WHERE c.entity = l.code
  UNION ALL
  SELECT 1130, -coalesce(sum(d.basis_minor), 0)
  FROM customers AS c
  JOIN disputes AS d ON d.customer_id = c.id
  JOIN recognition_marks AS k ON k.customer_id = c.id AND d.opened_ver <= k.ver AND coalesce(d.ended_ver > k.ver, true)
  WHERE c.entity = l.code
  UNION ALL
  SELECT 2019, coalesce(-sum(a.amount), 0) FROM breakage_adjustments AS a WHERE a.entity = l.code
  UNION ALL
  SELECT 2020, coalesce(sum(r.basis_minor + r.tax_basis_minor), 0)
  FROM customers AS c
  JOIN refunds AS r ON r.customer_id = c.id AND r.status = 'awaiting_settlement'
  JOIN recognition_marks AS k ON k.customer_id = c.id AND r.ver <= k.ver
  WHERE c.entity = l.code
) AS s
LEFT JOIN (
  SELECT e.entity, p.account, sum(CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END) AS credit
  FROM journal_entries AS e
  JOIN postings AS p ON p.entry_id = e.id AND p.account IN (1130, 2010, 2011, 2019, 2020)
  GROUP BY e.entity, p.account
) AS b ON b.entity = l.code AND b.account = s.account;

-- name: VerifyCorrections :many
-- What corrections have given back of an operation is what they moved, and no more than it consumed.
SELECT c.customer_id || '/' || c.ver AS subject, nullif(concat_ws('; ',
    CASE WHEN c.amount <> x.consumed THEN format('consumed is %s, its movements make %s', c.amount, x.consumed) END,
    CASE WHEN c.corrected <> x.returned THEN format('%s were given back, its corrections moved %s', c.corrected, x.returned) END,
    CASE WHEN c.corrected > c.amount THEN format('%s were given back of %s', c.corrected, c.amount) END
  ), '') AS detail
FROM corrected_operations AS c
CROSS JOIN LATERAL (
  SELECT (
    SELECT coalesce(sum(m.amount), 0) FROM grants AS g JOIN movements AS m ON m.grant_id = g.id AND m.ver = c.ver
    WHERE g.customer_id = c.customer_id AND m.credit = 'consumed') AS consumed, (
    SELECT coalesce(sum(m.amount), 0) FROM operations AS o
    JOIN grants AS g ON g.customer_id = c.customer_id
    JOIN movements AS m ON m.grant_id = g.id AND m.ver = o.ver
    WHERE o.customer_id = c.customer_id AND o.kind = 'correct' AND split_part(o.receipt ->> 'corrects', '/', 2) = c.ver::text AND m.debit = 'consumed') AS returned
) AS x;

-- name: VerifyTransfers :many
-- What has become another grant's is as much as its origin says that it has let go of.
SELECT f.id::text AS subject, CASE
    WHEN f.transferred <> coalesce(t.amount, 0) THEN format('%s were transferred, other grants have %s of them', f.transferred, coalesce(t.amount, 0))
  END AS detail
FROM grants AS f
LEFT JOIN (SELECT from_grant, sum(amount) AS amount FROM grants WHERE from_grant IS NOT NULL GROUP BY from_grant) AS t ON t.from_grant = f.id
WHERE f.transferred > 0 OR t.from_grant IS NOT NULL;

-- name: VerifyLimitWindows :many
-- Each window of a limit is what was counted in it, count by count.
SELECT coalesce(w.limit_id, c.limit_id)::text AS subject, CASE
    WHEN w.limit_id IS NULL THEN format('has counts of %s in the window of %s, which is not kept', quote_literal(c.subject), c.window_start)
    ELSE nullif(concat_ws('; ',
      CASE WHEN w.used <> coalesce(c.used, 0) THEN format('%s has used %s in the window of %s, counted are %s', quote_literal(w.subject), w.used, w.window_start, coalesce(c.used, 0)) END,
      CASE WHEN w.held <> coalesce(c.held, 0) THEN format('%s holds %s in the window of %s, counted are %s', quote_literal(w.subject), w.held, w.window_start, coalesce(c.held, 0)) END,
      CASE WHEN c.broken IS NOT NULL THEN format('the count of operation %s for %s does not follow from the one before', c.broken, quote_literal(w.subject)) END
    ), '')
  END AS detail
FROM limit_windows AS w
FULL JOIN (
  SELECT limit_id, x.subject, window_start, sum(used) AS used, sum(held) AS held, min(ver) FILTER (WHERE used_after <> used_made OR held_after <> held_made) AS broken
  FROM (
    SELECT limit_id, k.subject, window_start, ver, used, held, used_after, held_after, sum(used) OVER w AS used_made, sum(held) OVER w AS held_made
    FROM limit_counts AS k WINDOW w AS (PARTITION BY limit_id, k.subject, window_start ORDER BY ver ROWS UNBOUNDED PRECEDING)
  ) AS x
  GROUP BY limit_id, x.subject, window_start
) AS c ON c.limit_id = w.limit_id AND c.subject = w.subject AND c.window_start = w.window_start;

-- name: VerifyLimitHolds :many
-- What is held in a window of a limit is what open holds hold that were counted in it.
SELECT coalesce(w.limit_id, h.limit_id)::text AS subject,
  CASE WHEN coalesce(w.held, 0) <> coalesce(h.held, 0) THEN format('%s holds %s in the window of %s, open holds hold %s',
    quote_literal(coalesce(w.subject, h.subject)), coalesce(w.held, 0), coalesce(w.window_start, h.window_start), coalesce(h.held, 0)) END AS detail
FROM limit_windows AS w
FULL JOIN (
  SELECT x.limit_id, x.subject, x.window_start, sum(l.amount - l.captured - l.released) AS held
  FROM (
    SELECT o.id, (e ->> 'limit')::uuid AS limit_id, e ->> 'subject' AS subject, (e ->> 'start')::timestamptz AS window_start, (e ->> 'wallet')::uuid AS wallet_id,
      (e ->> 'from')::integer AS first, (e ->> 'to')::integer AS past
    FROM holds AS o CROSS JOIN LATERAL jsonb_array_elements(o.gates) AS e WHERE o.status = 'open'
  ) AS x
  JOIN hold_lines AS l ON l.hold_id = x.id AND l.n >= x.first AND l.n < x.past
  JOIN grants AS g ON g.id = l.grant_id AND (x.wallet_id IS NULL OR g.wallet_id = x.wallet_id)
  GROUP BY x.limit_id, x.subject, x.window_start
) AS h ON h.limit_id = w.limit_id AND h.subject = w.subject AND h.window_start = w.window_start;

-- name: VerifyLimitCounts :many
-- Each operation that took credits while a limit was in force that applies to it is counted by that limit, with what its movements took and in a window of
-- its time; and nothing else is. Windows are forgotten after 72 days, those of an ended limit after 40.
WITH moved AS (
  SELECT g.customer_id, m.ver, g.wallet_id, sum(m.amount) AS taken
  FROM movements AS m JOIN grants AS g ON g.id = m.grant_id
  WHERE m.debit = 'available' AND m.credit IN ('consumed', 'held') AND g.customer_id IN (SELECT l.customer_id FROM limits AS l)
  GROUP BY g.customer_id, m.ver, g.wallet_id
), kept AS (
  SELECT l.id, l.customer_id, l.created_ver, l.ended_ver, l.unit, l.applies_to, l.member_id, l.dimension, l.value, l.wallet_id, l.scope,
    CASE l.period WHEN 'minute' THEN interval '1 minute' WHEN 'hour' THEN interval '1 hour' WHEN 'day' THEN interval '27 hours' WHEN 'week' THEN interval '171 hours'
      WHEN 'month' THEN interval '747 hours' WHEN 'rolling' THEN make_interval(secs => l.length_seconds / 60) END AS length
  FROM limits AS l WHERE l.ended_at IS NULL OR l.ended_at > now() - interval '39 days'
), done AS (
  SELECT o.customer_id, o.ver, o.kind, o.at, o.unit, o.member_id, o.dims FROM operations AS o
  WHERE o.customer_id IN (SELECT k.customer_id FROM kept AS k) AND o.kind IN ('consume', 'hold', 'extend_hold', 'capture', 'correct') AND o.at > now() - interval '70 days'
), due AS (
  SELECT k.id, o.ver, CASE k.applies_to WHEN 'member' THEN o.member_id::text WHEN 'dimension' THEN o.dims ->> k.dimension ELSE '' END AS subject, sum(m.taken) AS taken
  FROM kept AS k
  JOIN done AS o ON o.customer_id = k.customer_id AND o.ver > k.created_ver AND (k.ended_ver IS NULL OR o.ver < k.ended_ver) AND o.unit = k.unit
  JOIN moved AS m ON m.customer_id = o.customer_id AND m.ver = o.ver AND (k.wallet_id IS NULL OR m.wallet_id = k.wallet_id)
  WHERE CASE k.applies_to WHEN 'member' THEN o.member_id IS NOT NULL AND (k.member_id IS NULL OR k.member_id = o.member_id)
      WHEN 'dimension' THEN jsonb_exists(o.dims, k.dimension) AND (k.value IS NULL OR k.value = o.dims ->> k.dimension) ELSE true END
    AND NOT EXISTS (SELECT FROM jsonb_each(k.scope) AS s WHERE NOT coalesce(jsonb_exists(s.value, o.dims ->> s.key), false))
  GROUP BY k.id, o.ver, 3
), counted AS (
  SELECT c.limit_id, c.ver, c.subject, sum(c.used + c.held) AS taken, bool_or(o.kind <> 'capture' AND (o.at < c.window_start OR o.at >= c.window_start + k.length)) AS astray
  FROM limit_counts AS c
  JOIN kept AS k ON k.id = c.limit_id
  JOIN done AS o ON o.customer_id = c.customer_id AND o.ver = c.ver
  GROUP BY c.limit_id, c.ver, c.subject HAVING sum(c.used + c.held) > 0
)
SELECT coalesce(d.id, c.limit_id)::text AS subject, CASE
    WHEN coalesce(d.taken, 0) <> coalesce(c.taken, 0) THEN format('operation %s took %s of %s, counted are %s', coalesce(d.ver, c.ver), coalesce(d.taken, 0),
      quote_literal(coalesce(d.subject, c.subject)), coalesce(c.taken, 0))
    WHEN c.astray THEN format('operation %s is counted in a window of another time', c.ver)
  END AS detail
FROM due AS d
FULL JOIN counted AS c ON c.limit_id = d.id AND c.ver = d.ver AND c.subject = d.subject;

-- name: PageCustomerIDs :many
SELECT customer_id FROM customer_heads WHERE customer_id > @after ORDER BY customer_id LIMIT @n;
