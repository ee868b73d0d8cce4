-- Alert rules, and the alerts that are on. Whoever judges a customer holds its usage mark.

-- name: AddAlertRule :one
INSERT INTO alert_rules (id, name, customer_id, wallet_id, kind, unit, amount, percent, within_s, hysteresis, audience)
VALUES (@id, @name, @customer_id, @wallet_id, @kind, @unit, @amount, @percent, @within_s, @hysteresis, @audience) RETURNING *;

-- name: FindAlertRule :one
SELECT * FROM alert_rules WHERE id = @id;

-- name: LockAlertRule :one
SELECT * FROM alert_rules WHERE id = @id AND ended_at IS NULL FOR UPDATE;

-- name: ChangeAlertRule :one
-- Everybody whom it concerns is looked at anew.
UPDATE alert_rules SET name = @name, amount = @amount, percent = @percent, within_s = @within_s, hysteresis = @hysteresis, look_at = now(), looked = false
WHERE id = @id RETURNING *;

-- name: EndAlertRule :one
UPDATE alert_rules SET ended_at = now(), look_at = 'infinity' WHERE id = @id RETURNING *;

-- name: DropAlertsOf :exec
DELETE FROM alerts WHERE rule_id = @rule_id;

-- name: PageAlertRules :many
-- Those of one customer and those of everybody, or all.
SELECT * FROM alert_rules WHERE id < @before AND ended_at IS NULL
  AND (sqlc.narg('customer_id')::uuid IS NULL OR customer_id IS NULL OR customer_id = sqlc.narg('customer_id')::uuid)
ORDER BY id DESC LIMIT @page_size;

-- name: AlertRulesInForce :many
SELECT * FROM alert_rules WHERE ended_at IS NULL ORDER BY id;

-- name: PageAlerts :many
-- The alerts that are on, of the newest rules first.
SELECT a.* FROM alerts AS a
WHERE (a.rule_id, a.customer_id) < (@before_rule::uuid, @before_customer::uuid)
  AND (sqlc.narg('customer_id')::uuid IS NULL OR a.customer_id = sqlc.narg('customer_id')::uuid)
ORDER BY a.rule_id DESC, a.customer_id DESC LIMIT @page_size;

-- name: AlertsOn :many
-- The rules whose alert is on for a customer.
SELECT rule_id FROM alerts WHERE customer_id = @customer_id ORDER BY rule_id;

-- name: ShareAlertRules :many
-- Those of these that are in force; none of them ends until the transaction does.
SELECT id FROM alert_rules WHERE id = ANY(@ids::uuid[]) AND ended_at IS NULL ORDER BY id FOR SHARE;

-- name: TurnAlertOn :exec
INSERT INTO alerts (rule_id, customer_id, since, document) VALUES (@rule_id, @customer_id, @since, @document);

-- name: TurnAlertOff :exec
DELETE FROM alerts WHERE rule_id = @rule_id AND customer_id = @customer_id;

-- name: StandingGrants :many
-- Grants of a customer that are open, or that operations after a version are about to move, as they stood at that version: what of them was
-- available by their newest movement up to then, -1 of one that had not been issued yet.
SELECT g.id, g.wallet_id, w.unit, g.type, g.frozen, g.effective_at, g.expires_at, g.amount,
  coalesce((SELECT x.after FROM movements AS x WHERE x.grant_id = g.id AND x.ver <= @ver ORDER BY x.ver DESC, x.n DESC LIMIT 1), -1)::bigint AS avail
FROM grants AS g
JOIN wallets AS w ON w.id = g.wallet_id
WHERE g.customer_id = @customer_id AND (g.status = 'open' OR g.id = ANY(@moved::uuid[]))
ORDER BY g.id;

-- name: EverIssued :one
-- Whether the customer had been given credits in a unit by a version, overage not counted.
SELECT EXISTS (
  SELECT FROM grants AS g JOIN wallets AS w ON w.id = g.wallet_id
  WHERE g.customer_id = @customer_id AND w.unit = @unit AND g.type <> 'overage'
    AND (sqlc.narg('wallet_id')::uuid IS NULL OR g.wallet_id = sqlc.narg('wallet_id')::uuid)
    AND (SELECT x.ver FROM movements AS x WHERE x.grant_id = g.id ORDER BY x.ver, x.n LIMIT 1) <= @ver::bigint
);

-- name: SpentSince :one
-- What a customer, or one wallet of it, has used since an hour.
SELECT coalesce(sum(consumed), 0)::bigint AS spent FROM usage_hours
WHERE customer_id = @customer_id AND unit = @unit AND hour >= @since AND hour < @until
  AND (sqlc.narg('wallet_id')::uuid IS NULL OR wallet_id = sqlc.narg('wallet_id')::uuid);

-- name: TakeLook :many
-- The rule whose customers are to be looked at next; others pass over it until the lease is over.
UPDATE alert_rules SET look_at = now() + make_interval(secs => @lease_s::double precision)
WHERE id = (SELECT r.id FROM alert_rules AS r WHERE r.look_at <= now() AND r.ended_at IS NULL ORDER BY r.look_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING *;

-- name: FinishLook :exec
-- Unless the rule was changed during this look.
UPDATE alert_rules SET look_at = now() + make_interval(secs => @every_s::double precision), looked = true WHERE id = @id AND look_at = @lease;

-- name: CustomersInUnit :many
-- Customers after one that have a wallet in a unit, in order of id.
SELECT c.id FROM customers AS c
WHERE c.id > @after AND EXISTS (SELECT FROM wallets AS w WHERE w.customer_id = c.id AND w.unit = @unit)
ORDER BY c.id LIMIT @n;

-- name: CustomersExpiring :many
-- Customers after one with a grant in a unit that expires before an instant, or whose alert of the rule is on.
SELECT DISTINCT g.customer_id FROM grants AS g JOIN wallets AS w ON w.id = g.wallet_id
WHERE g.status = 'open' AND NOT g.frozen AND g.expires_at < @until AND w.unit = @unit AND g.customer_id > @after
UNION
SELECT a.customer_id FROM alerts AS a WHERE a.rule_id = @rule_id AND a.customer_id > @after
ORDER BY 1 LIMIT @n;

-- name: CustomersUsing :many
-- Customers after one whose usage was counted since an instant, or whose alert of the rule is on.
SELECT m.customer_id FROM usage_marks AS m WHERE m.updated_at >= @since AND m.customer_id > @after
UNION
SELECT a.customer_id FROM alerts AS a WHERE a.rule_id = @rule_id AND a.customer_id > @after
ORDER BY 1 LIMIT @n;

-- name: CustomersAlerted :many
-- Customers after one whose alert of the rule is on, in order of id.
SELECT customer_id FROM alerts WHERE rule_id = @rule_id AND customer_id > @after ORDER BY customer_id LIMIT @n;

-- name: ClockNow :one
SELECT clock_timestamp()::timestamptz AS at;
