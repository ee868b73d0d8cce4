-- Closing periods. The reconciliations each return one row for each thing that they compare: what it is, and the two figures. db/close_reconcile.go
-- adds them up and lists those that differ, so their columns must be (subject text, a bigint, b bigint) and their parameters entity and period.

-- name: FindCloseBooks :one
SELECT e.currency, e.time_zone, clock_timestamp()::timestamptz AS read_at, coalesce(s.late_hours, 72)::integer AS late_hours,
  coalesce(s.statements, '{}')::text[] AS statements
FROM legal_entities AS e
LEFT JOIN close_settings AS s ON s.entity = e.code
WHERE e.code = @entity;

-- name: SetCloseSettings :exec
INSERT INTO close_settings (entity, late_hours, statements, updated_by) VALUES (@entity, @late_hours, @statements::text[], @updated_by)
ON CONFLICT (entity) DO UPDATE SET late_hours = excluded.late_hours, statements = excluded.statements, updated_by = excluded.updated_by, updated_at = now();

-- name: LockPeriod :one
-- Until this transaction ends nothing is booked in the period; it waits for what is being booked.
SELECT entity, period, status, version, changed_at FROM periods WHERE entity = @entity AND period = @period FOR UPDATE;

-- name: SetPeriod :exec
UPDATE periods SET status = @status, version = @version WHERE entity = @entity AND period = @period;

-- name: FirstUnclosedPeriod :one
-- The oldest period before one that is not closed; empty: there is none.
SELECT coalesce(min(period), '')::text AS period FROM periods WHERE entity = @entity AND period < @period AND status <> 'closed';

-- name: LaterClosedPeriod :one
-- The newest period after one that takes no entries; empty: there is none.
SELECT coalesce(max(period), '')::text AS period FROM periods WHERE entity = @entity AND period > @period AND status IN ('in_review', 'closed');

-- name: AddClose :exec
INSERT INTO closes (entity, period, version, preparer, late_until) VALUES (@entity, @period, @version, @preparer, @late_until);

-- name: FindClose :one
-- A version of 0 is the newest.
SELECT sqlc.embed(c), p.status AS period_status, k.name AS preparer_name, clock_timestamp()::timestamptz AS read_at
FROM closes AS c
JOIN periods AS p ON p.entity = c.entity AND p.period = c.period
JOIN api_keys AS k ON k.no = c.preparer
WHERE c.entity = @entity AND c.period = @period AND (@version::integer = 0 OR c.version = @version::integer)
ORDER BY c.version DESC LIMIT 1;

-- name: LockClose :one
SELECT status FROM closes WHERE entity = @entity AND period = @period AND version = @version FOR UPDATE;

-- name: SetLateUntil :exec
UPDATE closes SET late_until = @late_until WHERE entity = @entity AND period = @period AND version = @version;

-- name: SetPack :exec
UPDATE closes SET status = 'in_review', pack = @pack::json, pack_hash = @pack_hash, entries = @entries, postings = @postings, balances = @balances::jsonb, note = NULL
WHERE entity = @entity AND period = @period AND version = @version;

-- name: DropPack :exec
-- Whatever was approved of it is void.
UPDATE closes SET status = 'preparing', pack = NULL, pack_hash = NULL, entries = NULL, postings = NULL, balances = NULL, approver = NULL, approved_at = NULL, note = @note
WHERE entity = @entity AND period = @period AND version = @version;

-- name: ApproveClose :exec
UPDATE closes SET status = 'approved', approver = @approver, approved_at = now() WHERE entity = @entity AND period = @period AND version = @version;

-- name: EndClose :exec
UPDATE closes SET status = 'closed', closed_at = clock_timestamp() WHERE entity = @entity AND period = @period AND version = @version;

-- name: UnfinishedCloses :many
-- Those that have not ended, and the newest ones of closed periods that are not published.
SELECT c.entity, c.period, c.version FROM closes AS c
JOIN periods AS p ON p.entity = c.entity AND p.period = c.period
WHERE c.status <> 'closed' OR p.status = 'closed' AND p.version = c.version AND NOT EXISTS (
  SELECT FROM close_steps AS s WHERE s.entity = c.entity AND s.period = c.period AND s.version = c.version AND s.step = 'publish' AND s.status = 'done')
ORDER BY c.entity, c.period, c.version;

-- name: PeriodSize :one
-- Nothing is ever taken out of a period or changed in it, so the same numbers are the same entries.
SELECT count(*) AS entries, coalesce(sum(n), 0)::bigint AS postings
FROM (SELECT count(p.entry_id) AS n FROM journal_entries AS e LEFT JOIN postings AS p ON p.entry_id = e.id
      WHERE e.entity = @entity AND e.period = @period GROUP BY e.id) AS x;

-- name: SaveCloseStep :exec
-- Only while the close has the status that the step belongs to, and never in the place of what was found later.
INSERT INTO close_steps (entity, period, version, step, status, blocked_by, figures, sha256, run_at)
SELECT c.entity, c.period, c.version, @step, @status, sqlc.narg('blocked_by')::text, @figures::json, @sha256, @run_at::timestamptz
FROM closes AS c WHERE c.entity = @entity AND c.period = @period AND c.version = @version AND c.status = @during::text FOR SHARE
ON CONFLICT (entity, period, version, step) DO UPDATE
SET status = excluded.status, blocked_by = excluded.blocked_by, figures = excluded.figures, sha256 = excluded.sha256, run_at = excluded.run_at
WHERE close_steps.run_at <= excluded.run_at;

-- name: CloseSteps :many
SELECT step, status, blocked_by, figures, sha256, run_at FROM close_steps
WHERE entity = @entity AND period = @period AND version = @version ORDER BY run_at, step;

-- name: AddWaiver :exec
INSERT INTO close_waivers (entity, period, version, reconciliation, figures_sha256, reason, waived_by)
VALUES (@entity, @period, @version, @reconciliation, @figures_sha256, @reason, @waived_by)
ON CONFLICT DO NOTHING;

-- name: CloseWaivers :many
SELECT w.reconciliation, w.figures_sha256, w.reason, w.waived_by, k.name, w.waived_at FROM close_waivers AS w
JOIN api_keys AS k ON k.no = w.waived_by
WHERE w.entity = @entity AND w.period = @period AND w.version = @version ORDER BY w.reconciliation, w.waived_at;

-- name: AddStatement :one
INSERT INTO close_statements (id, entity, period, kind, amount_minor, currency, reference, as_of, recorded_by)
VALUES (@id, @entity, @period, @kind, @amount_minor, @currency, @reference, @as_of, @recorded_by) RETURNING recorded_at;

-- name: CurrentStatements :many
-- The newest of each kind and reference.
SELECT DISTINCT ON (s.kind, s.reference) s.kind, s.reference, s.amount_minor, s.currency, s.as_of, s.recorded_by, k.name, s.recorded_at
FROM close_statements AS s JOIN api_keys AS k ON k.no = s.recorded_by
WHERE s.entity = @entity AND s.period = @period ORDER BY s.kind, s.reference, s.no DESC;

-- name: AskReopening :exec
INSERT INTO period_reopenings (entity, period, version, reason, asked_by) VALUES (@entity, @period, @version, @reason, @asked_by);

-- name: FindReopening :one
SELECT r.reason, r.asked_by, a.name AS asked_name, r.asked_at, r.approver, coalesce(b.name, '')::text AS approver_name, r.approved_at
FROM period_reopenings AS r
JOIN api_keys AS a ON a.no = r.asked_by
LEFT JOIN api_keys AS b ON b.no = r.approver
WHERE r.entity = @entity AND r.period = @period AND r.version = @version;

-- name: ApproveReopening :exec
UPDATE period_reopenings SET approver = @approver, approved_at = now() WHERE entity = @entity AND period = @period AND version = @version;

-- name: AddManualJournal :one
INSERT INTO manual_journals (id, entity, period, day, reason, attachments, postings, preparer)
VALUES (@id, @entity, @period, @day, @reason, @attachments::text[], @postings::jsonb, @preparer) RETURNING *;

-- name: FindManualJournal :one
SELECT * FROM manual_journals WHERE id = @id;

-- name: LockManualJournal :one
SELECT * FROM manual_journals WHERE id = @id FOR UPDATE;

-- name: DecideManualJournal :one
UPDATE manual_journals SET status = @status, approver = @approver, decided_at = now(), note = @note, entry_id = @entry_id WHERE id = @id RETURNING *;

-- name: PageManualJournals :many
-- Newest first; a null status and period let all through.
SELECT * FROM manual_journals
WHERE entity = @entity AND id < @before AND (sqlc.narg('status')::text IS NULL OR status = sqlc.narg('status')::text)
  AND (sqlc.narg('period')::text IS NULL OR period = sqlc.narg('period')::text)
ORDER BY id DESC LIMIT @page_size;

-- name: ManualJournalsOf :many
-- Of a period, the first of them.
SELECT * FROM manual_journals WHERE entity = @entity AND period = @period ORDER BY id LIMIT @n;

-- name: CountManualJournals :one
SELECT count(*) FILTER (WHERE status = 'prepared') AS prepared, count(*) FILTER (WHERE status = 'posted') AS posted,
  count(*) FILTER (WHERE status = 'rejected') AS rejected
FROM manual_journals WHERE entity = @entity AND period = @period;

-- name: CustomersToCutOff :many
-- Customers of the entity with operations up to @ends that no entry has been posted for.
SELECT c.id FROM customers AS c
JOIN customer_heads AS h ON h.customer_id = c.id
LEFT JOIN recognition_marks AS m ON m.customer_id = c.id
WHERE c.entity = @entity AND c.id > @after AND h.ver > coalesce(m.ver, 0)
  AND EXISTS (SELECT FROM operations AS o WHERE o.customer_id = c.id AND o.ver > coalesce(m.ver, 0) AND o.service_at <= @ends)
ORDER BY c.id LIMIT @n;

-- name: CutOffWaiting :one
-- What was asked of the outside before the end of the period and is not done, and usage of the period that waits for a price.
SELECT (SELECT count(*) FROM outbox AS x WHERE x.created_at < @ends::timestamptz AND x.topic NOT LIKE 'close.%')::bigint AS outbox,
  (SELECT count(*) FROM quarantined_usage AS q JOIN customers AS c ON c.id = q.customer_id
   WHERE c.entity = @entity AND q.state = 'pending' AND q.service_at < @ends::timestamptz)::bigint AS quarantined;

-- name: ExpiriesDue :one
-- Grants whose end was in the period or before it and that still have credits; frozen ones do not expire.
SELECT count(*) FILTER (WHERE NOT g.frozen) AS due, count(*) FILTER (WHERE g.frozen) AS frozen,
  coalesce((array_agg(g.id ORDER BY g.id) FILTER (WHERE NOT g.frozen))[1:100], '{}')::uuid[] AS first
FROM grants AS g JOIN customers AS c ON c.id = g.customer_id
WHERE c.entity = @entity AND g.status = 'open' AND g.expires_at <= @ends AND g.avail > 0;

-- name: PeriodKinds :many
-- How many entries of each kind the period has, and what they debit.
SELECT e.kind, count(DISTINCT e.id) AS entries, coalesce(sum(p.amount_minor) FILTER (WHERE p.side = 'dr'), 0)::bigint AS amount
FROM journal_entries AS e JOIN postings AS p ON p.entry_id = e.id
WHERE e.entity = @entity AND e.period = @period GROUP BY e.kind ORDER BY e.kind;

-- name: LateEntries :many
-- Entries of the period about days before it, and what each debits; the largest first.
SELECT e.id, e.kind, e.service_on, e.customer_id, sum(p.amount_minor)::bigint AS amount
FROM journal_entries AS e JOIN postings AS p ON p.entry_id = e.id AND p.side = 'dr'
WHERE e.entity = @entity AND e.period = @period AND e.late GROUP BY e.id ORDER BY amount DESC, e.id LIMIT @n;

-- name: LateTotal :one
SELECT count(DISTINCT e.id) AS entries, coalesce(sum(p.amount_minor), 0)::bigint AS amount
FROM journal_entries AS e JOIN postings AS p ON p.entry_id = e.id AND p.side = 'dr'
WHERE e.entity = @entity AND e.period = @period AND e.late;

-- name: RefundEntries :many
-- What refunds booked in the period owe; the largest first.
SELECT e.id, e.cause, e.service_on, e.customer_id, sum(p.amount_minor)::bigint AS amount
FROM journal_entries AS e JOIN postings AS p ON p.entry_id = e.id AND p.account = 2020 AND p.side = 'cr'
WHERE e.entity = @entity AND e.period = @period AND e.kind IN ('refund', 'void') GROUP BY e.id ORDER BY amount DESC, e.id LIMIT @n;

-- name: Balances :many
-- Debit less credit of each account at the end of the period.
SELECT p.account, sum(CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END)::bigint AS balance
FROM journal_entries AS e JOIN postings AS p ON p.entry_id = e.id
WHERE e.entity = @entity AND e.period <= @period GROUP BY p.account ORDER BY p.account;

-- name: ReconcileEntries :many
-- R1. The debits of each entry of the period, and its credits, in the entity's currency.
WITH books AS (SELECT @entity::text AS entity, @period::text AS period)
SELECT e.id::text AS subject, coalesce(sum(p.amount_minor) FILTER (WHERE p.side = 'dr'), 0)::bigint AS a,
  coalesce(sum(p.amount_minor) FILTER (WHERE p.side = 'cr'), 0)::bigint AS b
FROM books
JOIN legal_entities AS l ON l.code = books.entity
JOIN journal_entries AS e ON e.entity = books.entity AND e.period = books.period
LEFT JOIN postings AS p ON p.entry_id = e.id AND p.currency = l.currency
GROUP BY e.id;

-- name: ReconcilePrepaid :many
-- R2. What account 2010 says of each grant at the end of the period, and what the grant carries, less what was booked in later periods; and what
-- account 2019 says of each cohort, and the true-up log.
WITH books AS (SELECT @entity::text AS entity, @period::text AS period),
booked AS (
  SELECT e.grant_id, coalesce(sum(x.credit) FILTER (WHERE e.period <= books.period), 0) AS upto,
    coalesce(sum(x.credit) FILTER (WHERE e.period > books.period), 0) AS later
  FROM books
  JOIN journal_entries AS e ON e.entity = books.entity
  JOIN postings AS p ON p.entry_id = e.id AND p.account = 2010
  CROSS JOIN LATERAL (SELECT CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END AS credit) AS x
  GROUP BY e.grant_id
), carried AS (
  SELECT g.id, g.basis_minor - k.posted_out AS amount
  FROM books
  JOIN customers AS c ON c.entity = books.entity
  JOIN grants AS g ON g.customer_id = c.id AND g.type <> 'overage'
  JOIN grant_carrying AS k ON k.grant_id = g.id
)
SELECT coalesce(c.id::text, b.grant_id::text, 'no grant')::text AS subject, coalesce(b.upto, 0)::bigint AS a,
  (CASE WHEN c.id IS NULL THEN 0 ELSE c.amount - coalesce(b.later, 0) END)::bigint AS b
FROM carried AS c
FULL JOIN booked AS b ON b.grant_id = c.id
UNION ALL
SELECT coalesce(a.cohort, t.cohort), coalesce(a.amount, 0)::bigint, coalesce(t.amount, 0)::bigint
FROM (
  SELECT coalesce(p.product, 'no cohort') AS cohort, sum(CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END) AS amount
  FROM books
  JOIN journal_entries AS e ON e.entity = books.entity AND e.period <= books.period
  JOIN postings AS p ON p.entry_id = e.id AND p.account = 2019
  GROUP BY 1
) AS a
FULL JOIN (
  SELECT x.unit || ' ' || x.expires_in AS cohort, -sum(x.amount) AS amount
  FROM books JOIN breakage_adjustments AS x ON x.entity = books.entity AND x.period <= books.period
  GROUP BY 1
) AS t ON t.cohort = a.cohort;

-- name: ReconcileUnits :many
-- R3. The credits of each grant that were issued, and all places where they are.
WITH books AS (SELECT @entity::text AS entity, @period::text AS period)
SELECT g.id::text AS subject, coalesce(sum(CASE m.debit WHEN 'issued' THEN m.amount ELSE -m.amount END), 0)::bigint AS a,
  (g.avail + g.held + g.consumed + g.expired + g.refunded + g.voided + g.transferred)::bigint AS b
FROM books
JOIN customers AS c ON c.entity = books.entity
JOIN grants AS g ON g.customer_id = c.id
LEFT JOIN movements AS m ON m.grant_id = g.id AND 'issued' IN (m.debit, m.credit)
GROUP BY g.id;

-- name: ReconcileCarrying :many
-- R4. What each grant carries, and the nearest that it may: nothing when no credit is left, else 1 minor unit up to its price.
WITH books AS (SELECT @entity::text AS entity, @period::text AS period)
SELECT g.id::text AS subject, (g.basis_minor - k.posted_out)::bigint AS a,
  (CASE WHEN k.disposed >= g.amount THEN 0 ELSE least(g.basis_minor, greatest(g.basis_minor - k.posted_out, (g.basis_minor > 0)::integer)) END)::bigint AS b
FROM books
JOIN customers AS c ON c.entity = books.entity
JOIN grants AS g ON g.customer_id = c.id AND g.type <> 'overage'
JOIN grant_carrying AS k ON k.grant_id = g.id;

-- name: ReconcileUsage :many
-- R5. The credits that each operation decided in the period says that it moved, and the movements of the ledger.
WITH books AS (SELECT @entity::text AS entity, @period::text AS period)
SELECT (o.customer_id::text || '/' || o.ver)::text AS subject, o.amount AS a, coalesce(sum(m.amount), 0)::bigint AS b
FROM books
JOIN legal_entities AS l ON l.code = books.entity
JOIN customers AS c ON c.entity = books.entity
JOIN operations AS o ON o.customer_id = c.id
  AND o.at >= (books.period || '-01')::timestamp AT TIME ZONE l.time_zone
  AND o.at < ((books.period || '-01')::timestamp + interval '1 month') AT TIME ZONE l.time_zone
LEFT JOIN (grants AS g JOIN movements AS m ON m.grant_id = g.id) ON g.customer_id = o.customer_id AND m.ver = o.ver
GROUP BY o.customer_id, o.ver, o.amount;

-- name: ReconcileUnbilled :many
-- R9. What account 1120 says that was used of each overage grant up to the end of the period, and what has left the grant, less later periods.
WITH books AS (SELECT @entity::text AS entity, @period::text AS period),
booked AS (
  SELECT e.grant_id, coalesce(sum(x.debit) FILTER (WHERE e.period <= books.period), 0) AS upto,
    coalesce(sum(x.debit) FILTER (WHERE e.period > books.period), 0) AS later
  FROM books
  JOIN journal_entries AS e ON e.entity = books.entity AND e.kind NOT IN ('invoice', 'payment', 'bad_debt')
  JOIN postings AS p ON p.entry_id = e.id AND p.account = 1120
  CROSS JOIN LATERAL (SELECT CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END AS debit) AS x
  GROUP BY e.grant_id
), used AS (
  SELECT g.id, k.posted_out AS amount
  FROM books
  JOIN customers AS c ON c.entity = books.entity
  JOIN grants AS g ON g.customer_id = c.id AND g.type = 'overage'
  JOIN grant_carrying AS k ON k.grant_id = g.id
)
SELECT coalesce(u.id::text, b.grant_id::text, 'no grant')::text AS subject, coalesce(b.upto, 0)::bigint AS a,
  (CASE WHEN u.id IS NULL THEN 0 ELSE u.amount - coalesce(b.later, 0) END)::bigint AS b
FROM used AS u
FULL JOIN booked AS b ON b.grant_id = u.id;

-- name: ReconcileOpening :many
-- R10. Each account's balance before the period, and at the end of the period that was closed last before it; nothing if none was.
WITH books AS (SELECT @entity::text AS entity, @period::text AS period),
prior AS (
  SELECT c.balances FROM books JOIN closes AS c ON c.entity = books.entity AND c.period < books.period AND c.status = 'closed'
  ORDER BY c.period DESC, c.version DESC LIMIT 1
), approved AS (
  SELECT x.account, x.balance::bigint AS balance FROM prior CROSS JOIN LATERAL jsonb_each_text(prior.balances) AS x (account, balance)
), opening AS (
  SELECT p.account::text AS account, sum(CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END) AS balance
  FROM books
  JOIN journal_entries AS e ON e.entity = books.entity AND e.period < books.period AND EXISTS (SELECT FROM prior)
  JOIN postings AS p ON p.entry_id = e.id
  GROUP BY p.account
)
SELECT coalesce(o.account, a.account)::text AS subject, coalesce(o.balance, 0)::bigint AS a, coalesce(a.balance, 0)::bigint AS b
FROM opening AS o
FULL JOIN approved AS a ON a.account = o.account;

-- name: ReconcileStatements :many
-- R7, R8, R11, R12. What the books say at the end of the period of what somebody outside has stated, by the kind of statement.
WITH books AS (SELECT @entity::text AS entity, @period::text AS period),
stated AS (
  SELECT kind, sum(amount_minor) AS amount FROM (
    SELECT DISTINCT ON (s.kind, s.reference) s.kind, s.amount_minor
    FROM books JOIN close_statements AS s ON s.entity = books.entity AND s.period = books.period
    ORDER BY s.kind, s.reference, s.no DESC
  ) AS newest
  GROUP BY kind
)
SELECT t.kind AS subject, coalesce(g.amount, 0)::bigint AS a, t.amount::bigint AS b
FROM stated AS t
JOIN (VALUES ('processor', 1020, 1), ('bank', 1010, 1), ('tax', 2030, -1), ('provider', 2060, -1)) AS of_kind (kind, account, sign) ON of_kind.kind = t.kind
LEFT JOIN (
  SELECT p.account, sum(CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END) AS debit
  FROM books JOIN journal_entries AS e ON e.entity = books.entity AND e.period <= books.period
  JOIN postings AS p ON p.entry_id = e.id AND p.account IN (1010, 1020, 2030, 2060)
  GROUP BY p.account
) AS b ON b.account = of_kind.account
CROSS JOIN LATERAL (SELECT b.debit * of_kind.sign AS amount) AS g;

-- name: ReconcileDates :many
-- R13. Whether each entry of the period is about a day of another one, and whether it says so: 1 or 0.
WITH books AS (SELECT @entity::text AS entity, @period::text AS period)
SELECT e.id::text AS subject, (to_char(e.service_on, 'YYYY-MM') <> e.period)::integer::bigint AS a, e.late::integer::bigint AS b
FROM books JOIN journal_entries AS e ON e.entity = books.entity AND e.period = books.period;

-- name: ReconcileTransfers :many
-- R14. What account 2011 says of each grant that credits have left, and what of them has left before the end of the period and arrives after it.
WITH books AS (
  SELECT x.entity, x.period, ((x.period || '-01')::timestamp + interval '1 month') AT TIME ZONE l.time_zone AS ends
  FROM (SELECT @entity::text AS entity, @period::text AS period) AS x JOIN legal_entities AS l ON l.code = x.entity
), booked AS (
  SELECT CASE p.side WHEN 'cr' THEN e.grant_id ELSE g.from_grant END AS grant_id, sum(CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END) AS amount
  FROM books
  JOIN journal_entries AS e ON e.entity = books.entity AND e.period <= books.period
  JOIN postings AS p ON p.entry_id = e.id AND p.account = 2011
  LEFT JOIN grants AS g ON g.id = e.grant_id
  GROUP BY 1
), under_way AS (
  SELECT f.id AS grant_id, sum(g.basis_minor) AS amount
  FROM books
  JOIN customers AS c ON c.entity = books.entity
  JOIN grants AS f ON f.customer_id = c.id AND f.transferred > 0
  JOIN grants AS g ON g.from_grant = f.id AND g.issued_at >= books.ends
  JOIN operations AS o ON o.customer_id = f.customer_id AND o.ver = g.from_ver AND o.service_at < books.ends
  GROUP BY f.id
)
SELECT coalesce(b.grant_id::text, u.grant_id::text, 'no grant')::text AS subject, coalesce(b.amount, 0)::bigint AS a, coalesce(u.amount, 0)::bigint AS b
FROM booked AS b
FULL JOIN under_way AS u ON u.grant_id = b.grant_id;

-- name: ReconcileDisputes :many
-- R15. What account 1130 says of each disputed grant at the end of the period, and the disputes of it that were open then.
WITH books AS (
  SELECT x.entity, x.period, ((x.period || '-01')::timestamp + interval '1 month') AT TIME ZONE l.time_zone AS ends
  FROM (SELECT @entity::text AS entity, @period::text AS period) AS x JOIN legal_entities AS l ON l.code = x.entity
), booked AS (
  SELECT e.grant_id, sum(CASE p.side WHEN 'dr' THEN p.amount_minor ELSE -p.amount_minor END) AS amount
  FROM books
  JOIN journal_entries AS e ON e.entity = books.entity AND e.period <= books.period
  JOIN postings AS p ON p.entry_id = e.id AND p.account = 1130
  GROUP BY e.grant_id
), open AS (
  SELECT d.grant_id, sum(d.basis_minor) AS amount
  FROM books
  JOIN customers AS c ON c.entity = books.entity
  JOIN disputes AS d ON d.customer_id = c.id
  JOIN operations AS o ON o.customer_id = d.customer_id AND o.ver = d.opened_ver AND o.service_at < books.ends
  WHERE NOT EXISTS (SELECT FROM operations AS x WHERE x.customer_id = d.customer_id AND x.ver = d.ended_ver AND x.service_at < books.ends)
  GROUP BY d.grant_id
)
SELECT coalesce(b.grant_id::text, d.grant_id::text, 'no grant')::text AS subject, coalesce(b.amount, 0)::bigint AS a, coalesce(d.amount, 0)::bigint AS b
FROM booked AS b
FULL JOIN open AS d ON d.grant_id = b.grant_id;
