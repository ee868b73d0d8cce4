-- The reports that finance hands to others. Each is read by its columns, in the order in which db/report.go names them. first and last are periods,
-- both inclusive; amounts are minor units of the entity's currency. Accounts are credit-normal where a column is revenue or a liability.

-- name: ReportJournal :many
SELECT e.no, e.id, e.period, e.service_on, e.posted_at, e.kind, e.late, e.customer_id, e.grant_id, e.cause, p.n, p.account, a.name,
  CASE p.side WHEN 'dr' THEN p.amount_minor ELSE 0 END::bigint AS debit, CASE p.side WHEN 'cr' THEN p.amount_minor ELSE 0 END::bigint AS credit,
  p.product, p.model
FROM journal_entries AS e
JOIN postings AS p ON p.entry_id = e.id
JOIN ledger_accounts AS a ON a.code = p.account
WHERE e.entity = @entity AND e.period BETWEEN @first AND @last
ORDER BY e.period, e.no, p.n;

-- name: ReportEntries :many
-- Entries of one kind, or, with an empty kind, late ones: what they moved in all.
SELECT e.no, e.id, e.period, e.service_on, e.posted_at, e.kind, e.customer_id, e.grant_id, e.cause,
  sum(p.amount_minor) FILTER (WHERE p.side = 'dr')::bigint AS amount
FROM journal_entries AS e
JOIN postings AS p ON p.entry_id = e.id
WHERE e.entity = @entity AND e.period BETWEEN @first AND @last
  AND (e.kind = @kind::text OR @kind::text = '' AND e.late)
GROUP BY e.id ORDER BY e.period, e.no;

-- name: ReportRevenue :many
-- By category: what was paid for before it was used, what was used beyond that, what was conceded or paid back, and, apart from them, breakage.
-- The cohort is the month in which the grant was issued.
SELECT e.period,
  (CASE WHEN p.account = 4020 THEN 'breakage' WHEN p.account = 4030 THEN 'overage' WHEN p.account IN (4090, 4091, 4095) THEN 'contra_revenue'
    WHEN g.type = 'concession' THEN 'concession_draw_down' ELSE 'prepaid_draw_down' END)::text AS category,
  coalesce(to_char(g.issued_at AT TIME ZONE @time_zone::text, 'YYYY-MM'), '')::text AS cohort, e.customer_id, p.product, p.model,
  sum(CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END)::bigint AS amount
FROM journal_entries AS e
JOIN postings AS p ON p.entry_id = e.id AND p.account BETWEEN 4000 AND 4999
LEFT JOIN grants AS g ON g.id = e.grant_id
WHERE e.entity = @entity AND e.period BETWEEN @first AND @last
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4 NULLS FIRST, 5 NULLS FIRST, 6 NULLS FIRST;

-- name: ReportWaterfall :many
-- What has left deferred revenue by the month in which the credits were issued and the month in which it left; and, marked as an estimate, what is
-- still carried, in the month in which it expires ('': never).
WITH cohorts AS (
  SELECT g.id, coalesce(to_char(g.issued_at AT TIME ZONE @time_zone::text, 'YYYY-MM'), '')::text AS cohort, g.expires_at
  FROM grants AS g JOIN customers AS c ON c.id = g.customer_id WHERE c.entity = @entity
), lines AS (
  SELECT h.cohort, e.period AS month, e.kind, false AS estimate, CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END AS amount
  FROM journal_entries AS e
  JOIN postings AS p ON p.entry_id = e.id AND p.account = 2010
  JOIN cohorts AS h ON h.id = e.grant_id
  WHERE e.entity = @entity AND e.period <= @last AND e.kind NOT IN ('purchase', 'concession')
  UNION ALL
  SELECT h.cohort, coalesce(to_char((h.expires_at - interval '1 microsecond') AT TIME ZONE @time_zone::text, 'YYYY-MM'), ''), 'carried', true,
    CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END
  FROM journal_entries AS e
  JOIN postings AS p ON p.entry_id = e.id AND p.account = 2010
  JOIN cohorts AS h ON h.id = e.grant_id
  WHERE e.entity = @entity AND e.period <= @last
)
SELECT cohort, month::text AS month, kind::text AS kind, estimate::boolean AS estimate, sum(amount)::bigint AS amount
FROM lines GROUP BY 1, 2, 3, 4 HAVING sum(amount) <> 0 ORDER BY 1, 4, 2, 3;

-- name: ReportBreakage :many
SELECT e.no, e.period, e.service_on, e.kind, e.customer_id, e.grant_id, g.expires_at,
  trim_scale(coalesce(p.units, 0)::numeric / power(10::numeric, coalesce(u.scale, 0)))::text AS units, coalesce(u.code, '')::text AS unit,
  CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END::bigint AS amount
FROM journal_entries AS e
JOIN postings AS p ON p.entry_id = e.id AND p.account = 4020
LEFT JOIN grants AS g ON g.id = e.grant_id
LEFT JOIN wallets AS w ON w.id = g.wallet_id
LEFT JOIN units AS u ON u.code = w.unit
WHERE e.entity = @entity AND e.period BETWEEN @first AND @last ORDER BY e.period, e.no, p.n;

-- name: ReportRefunds :many
-- By the instant at which they were asked for. basis and tax are in the entity's currency at the rate of the refund.
SELECT r.id, r.created_at, r.customer_id, r.grant_id, trim_scale(r.units::numeric / power(10::numeric, u.scale))::text AS units, u.code AS unit, r.reason, r.status,
  r.settlement_method, r.settlement_ref, r.settled_at, r.basis_minor AS basis, r.tax_basis_minor AS tax
FROM refunds AS r
JOIN customers AS c ON c.id = r.customer_id
JOIN grants AS g ON g.id = r.grant_id
JOIN wallets AS w ON w.id = g.wallet_id
JOIN units AS u ON u.code = w.unit
WHERE c.entity = @entity AND r.created_at >= @since AND r.created_at < @until ORDER BY r.created_at, r.id;

-- name: ReportExpiring :many
-- Grants that can still be used and end within the periods, with what they carry now.
SELECT g.expires_at, g.customer_id, g.id AS grant_id, g.type, trim_scale((g.avail + g.held)::numeric / power(10::numeric, u.scale))::text AS units, u.code AS unit,
  CASE g.type WHEN 'overage' THEN 0 ELSE g.basis_minor - coalesce(k.posted_out, 0) END::bigint AS carrying
FROM grants AS g
JOIN customers AS c ON c.id = g.customer_id
JOIN wallets AS w ON w.id = g.wallet_id
JOIN units AS u ON u.code = w.unit
LEFT JOIN grant_carrying AS k ON k.grant_id = g.id
WHERE c.entity = @entity AND g.status = 'open' AND g.expires_at > @since AND g.expires_at <= @until AND g.avail + g.held > 0
ORDER BY g.expires_at, g.id;

-- name: ReportReceivables :many
-- 1110 and 1120 by customer at the end of @last, by age in days at that end. What was paid or billed settles the oldest first.
WITH legs AS (
  SELECT p.account, e.customer_id, e.service_on, e.no, p.n, CASE p.side WHEN 'dr' THEN p.amount_minor ELSE 0 END AS debit,
    CASE p.side WHEN 'cr' THEN p.amount_minor ELSE 0 END AS credit
  FROM journal_entries AS e JOIN postings AS p ON p.entry_id = e.id AND p.account IN (1110, 1120)
  WHERE e.entity = @entity AND e.period <= @last::text
), running AS (
  SELECT account, customer_id, service_on, debit, sum(debit) OVER (PARTITION BY account, customer_id ORDER BY service_on, no, n) AS debits,
    sum(credit) OVER (PARTITION BY account, customer_id) AS credits, sum(debit - credit) OVER (PARTITION BY account, customer_id) AS balance
  FROM legs
), unsettled AS (
  SELECT account, customer_id, balance, extract(day FROM (@last::text || '-01')::timestamp + interval '1 month' - interval '1 day' - service_on::timestamp)::integer AS age, greatest(0, least(debit, debits - credits)) AS amount FROM running
)
SELECT account, customer_id, coalesce(sum(amount) FILTER (WHERE age <= 30), 0)::bigint AS days_30, coalesce(sum(amount) FILTER (WHERE age BETWEEN 31 AND 60), 0)::bigint AS days_60,
  coalesce(sum(amount) FILTER (WHERE age BETWEEN 61 AND 90), 0)::bigint AS days_90, coalesce(sum(amount) FILTER (WHERE age > 90), 0)::bigint AS older, max(balance)::bigint AS balance
FROM unsettled GROUP BY account, customer_id HAVING max(balance) <> 0 ORDER BY account, customer_id NULLS FIRST;

-- name: ReportAccess :many
-- What was changed other than by operations of customers, and by which key. It is of the whole deployment.
SELECT l.at, l.actor, coalesce(k.name, '')::text AS key_name, coalesce(k.role, '')::text AS role, k.revoked_at, l.action, l.subject
FROM audit_log AS l LEFT JOIN api_keys AS k ON k.no = l.actor
WHERE l.at >= @since AND l.at < @until ORDER BY l.at, l.id;
