-- Accounting policies, estimates of breakage and the adjustments that come of them.

-- name: AddPolicy :one
INSERT INTO accounting_policies (id, entity, version, unit, first_period, breakage, use_tax, escheat, evidence, prepared_by)
SELECT @id, @entity, (SELECT coalesce(max(p.version), 0) + 1 FROM accounting_policies AS p WHERE p.entity = @entity), sqlc.narg('unit')::text, @first_period,
  @breakage, @use_tax, @escheat, @evidence, @prepared_by
RETURNING id;

-- name: FindPolicy :one
SELECT sqlc.embed(p), a.approved_by, a.approved_at FROM accounting_policies AS p LEFT JOIN policy_approvals AS a ON a.policy_id = p.id WHERE p.id = @id;

-- name: PagePolicies :many
-- Newest version first.
SELECT sqlc.embed(p), a.approved_by, a.approved_at FROM accounting_policies AS p LEFT JOIN policy_approvals AS a ON a.policy_id = p.id
WHERE p.entity = @entity AND p.version < @before ORDER BY p.version DESC LIMIT @page_size;

-- name: ApprovePolicy :exec
INSERT INTO policy_approvals (policy_id, prepared_by, approved_by) VALUES (@policy_id, @prepared_by, @approved_by);

-- name: ApprovedPolicies :many
-- In order of approval.
SELECT p.version, p.unit, p.first_period, p.breakage, p.use_tax, p.escheat
FROM accounting_policies AS p JOIN policy_approvals AS a ON a.policy_id = p.id WHERE p.entity = @entity ORDER BY a.no;

-- name: BookedSince :one
-- Whether anything is booked in a period or a later one.
SELECT EXISTS (SELECT FROM journal_entries AS e WHERE e.entity = @entity AND e.period >= @period)::boolean;

-- name: AddEstimate :one
INSERT INTO breakage_estimates (id, entity, version, unit, expires_in, first_period, expected_use, method, evidence, prepared_by)
SELECT @id, @entity, (SELECT coalesce(max(e.version), 0) + 1 FROM breakage_estimates AS e WHERE e.entity = @entity), @unit, sqlc.narg('expires_in')::text,
  @first_period, @expected_use, @method, @evidence, @prepared_by
RETURNING id;

-- name: FindEstimate :one
SELECT sqlc.embed(e), a.approved_by, a.approved_at FROM breakage_estimates AS e LEFT JOIN estimate_approvals AS a ON a.estimate_id = e.id WHERE e.id = @id;

-- name: PageEstimates :many
-- Newest version first.
SELECT sqlc.embed(e), a.approved_by, a.approved_at FROM breakage_estimates AS e LEFT JOIN estimate_approvals AS a ON a.estimate_id = e.id
WHERE e.entity = @entity AND e.version < @before ORDER BY e.version DESC LIMIT @page_size;

-- name: ApproveEstimate :exec
INSERT INTO estimate_approvals (estimate_id, prepared_by, approved_by) VALUES (@estimate_id, @prepared_by, @approved_by);

-- name: ApprovedEstimates :many
-- In order of approval.
SELECT e.version, e.unit, e.expires_in, e.first_period, e.expected_use
FROM breakage_estimates AS e JOIN estimate_approvals AS a ON a.estimate_id = e.id WHERE e.entity = @entity ORDER BY a.no;

-- name: BreakageCohorts :many
-- The money of grants by kind of credit and month of expiry, as booked up to a period, in minor units. A right that ends at midnight ends with
-- the day before. What left for another reason than use and expiry lessens the price.
SELECT c.unit, c.expires_in, c.paid, c.used, c.expired,
  coalesce((SELECT sum(a.amount) FROM breakage_adjustments AS a
    WHERE a.entity = @entity AND a.unit = c.unit AND a.expires_in = c.expires_in AND a.period <= @last), 0)::bigint AS adjusted
FROM (
  SELECT w.unit, coalesce(to_char((g.expires_at - interval '1 microsecond') AT TIME ZONE @time_zone::text, 'YYYY-MM'), 'never')::text AS expires_in,
    coalesce(sum(x.credit) FILTER (WHERE e.kind NOT IN ('recognition', 'reversal', 'decrement', 'expiry')), 0)::bigint AS paid,
    coalesce(sum(-x.credit) FILTER (WHERE e.kind IN ('recognition', 'reversal', 'decrement')), 0)::bigint AS used,
    coalesce(sum(-x.credit) FILTER (WHERE e.kind = 'expiry'), 0)::bigint AS expired
  FROM journal_entries AS e
  JOIN postings AS p ON p.entry_id = e.id AND p.account = 2010
  JOIN grants AS g ON g.id = e.grant_id
  JOIN wallets AS w ON w.id = g.wallet_id
  CROSS JOIN LATERAL (SELECT CASE p.side WHEN 'cr' THEN p.amount_minor ELSE -p.amount_minor END AS credit) AS x
  WHERE e.entity = @entity AND e.period <= @last
  GROUP BY 1, 2
) AS c ORDER BY c.unit, c.expires_in;

-- name: AddAdjustment :exec
INSERT INTO breakage_adjustments (entity, unit, expires_in, period, policy_version, estimate_version, run, expected_use, price, used, expired, adjusted, amount, entry_id)
VALUES (@entity, @unit, @expires_in, @period, @policy_version, @estimate_version, @run, @expected_use, @price, @used, @expired, @adjusted, @amount, sqlc.narg('entry_id'));

-- name: AdjustmentRuns :one
-- How often a cohort was adjusted in a period for a policy and an estimate.
SELECT coalesce(max(run), 0)::integer AS runs FROM breakage_adjustments WHERE entity = @entity AND unit = @unit AND expires_in = @expires_in AND period = @period
  AND policy_version = @policy_version AND estimate_version = @estimate_version;

-- name: BreakageLog :many
-- Of one period, or of all of them when it is empty; in order of posting.
SELECT * FROM breakage_adjustments WHERE entity = @entity AND (@period::text = '' OR period = @period::text)
ORDER BY period, unit, expires_in, policy_version, estimate_version, run LIMIT @page_size;

-- name: BreakageTotals :one
-- How often a period was adjusted, and what that came to; and what all adjustments up to it did.
SELECT count(*) FILTER (WHERE period = @period) AS adjustments, coalesce(sum(amount) FILTER (WHERE period = @period), 0)::bigint AS amount,
  coalesce(sum(amount), 0)::bigint AS upto
FROM breakage_adjustments WHERE entity = @entity AND period <= @period;
