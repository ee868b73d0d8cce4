-- Automatic top-ups. Whoever judges a customer's rules holds its usage mark. A rule is locked before its wallet's top-up.

-- name: SetTopUpRule :exec
-- What it waits for stays, but for the monthly cap, which may be another one now; it is judged anew.
INSERT INTO top_up_rules (wallet_id, customer_id, threshold, amount, price_minor, tax_minor, currency, expires_after_s, cooldown_s, timeout_s, monthly_count, monthly_minor)
VALUES (@wallet_id, @customer_id, @threshold, @amount, @price_minor, @tax_minor, @currency, sqlc.narg('expires_after_s'), @cooldown_s, @timeout_s, @monthly_count,
  sqlc.narg('monthly_minor'))
ON CONFLICT (wallet_id) DO UPDATE SET threshold = excluded.threshold, amount = excluded.amount, price_minor = excluded.price_minor, tax_minor = excluded.tax_minor,
  currency = excluded.currency, expires_after_s = excluded.expires_after_s, cooldown_s = excluded.cooldown_s, timeout_s = excluded.timeout_s,
  monthly_count = excluded.monthly_count, monthly_minor = excluded.monthly_minor, updated_at = now(), look_at = now(),
  wait = nullif(top_up_rules.wait, 'monthly_cap'), wait_until = CASE WHEN top_up_rules.wait <> 'monthly_cap' THEN top_up_rules.wait_until END;

-- name: FindTopUpRule :one
-- A rule with what its description needs beside it.
SELECT sqlc.embed(r), w.unit, u.scale, EXISTS (SELECT FROM top_ups AS t WHERE t.wallet_id = r.wallet_id AND t.status IN ('requested', 'paid')) AS in_flight,
  clock_timestamp()::timestamptz AS read_at
FROM top_up_rules AS r JOIN wallets AS w ON w.id = r.wallet_id JOIN units AS u ON u.code = w.unit
WHERE r.wallet_id = @wallet_id;

-- name: LockTopUpRule :one
SELECT * FROM top_up_rules WHERE wallet_id = @wallet_id FOR UPDATE;

-- name: DropTopUpRule :exec
DELETE FROM top_up_rules WHERE wallet_id = @wallet_id;

-- name: LockTopUpRules :many
-- The rules of a customer, with what they are judged by besides credits.
SELECT sqlc.embed(r), e.time_zone, clock_timestamp()::timestamptz AS read_at
FROM top_up_rules AS r JOIN customers AS c ON c.id = r.customer_id JOIN legal_entities AS e ON e.code = c.entity
WHERE r.customer_id = @customer_id ORDER BY r.wallet_id FOR UPDATE OF r;

-- name: TopUpStanding :one
-- What of a wallet is available at an instant, whether a top-up is under way, and how many of a month have succeeded and what they cost.
SELECT
  (SELECT coalesce(sum(g.avail), 0) FROM grants AS g WHERE g.wallet_id = @wallet_id AND g.status = 'open' AND NOT g.frozen AND g.type <> 'overage'
    AND g.effective_at <= @at AND (g.expires_at IS NULL OR g.expires_at > @at))::bigint AS available,
  (SELECT EXISTS (SELECT FROM top_ups AS t WHERE t.wallet_id = @wallet_id AND t.status IN ('requested', 'paid')))::boolean AS in_flight,
  (SELECT count(*) FROM top_ups AS t WHERE t.wallet_id = @wallet_id AND t.month = @month AND t.status = 'succeeded')::bigint AS count,
  (SELECT coalesce(sum(t.price_minor + t.tax_minor), 0) FROM top_ups AS t WHERE t.wallet_id = @wallet_id AND t.month = @month AND t.status = 'succeeded')::bigint AS money;

-- name: AddTopUp :exec
INSERT INTO top_ups (id, wallet_id, customer_id, grant_id, threshold, available, amount, price_minor, tax_minor, currency, grant_expires_at, attempt, month, timeout_s,
  requested_at)
VALUES (@id, @wallet_id, @customer_id, @grant_id, @threshold, @available, @amount, @price_minor, @tax_minor, @currency, sqlc.narg('grant_expires_at'), @attempt, @month,
  @timeout_s, @requested_at);

-- name: SetTopUpWait :exec
-- look_at: when it is judged though no operation comes; null: never.
UPDATE top_up_rules SET wait = sqlc.narg('wait'), wait_until = sqlc.narg('wait_until'), failures = @failures, look_at = coalesce(sqlc.narg('look_at')::timestamptz, 'infinity')
WHERE wallet_id = @wallet_id;

-- name: FindTopUp :one
SELECT sqlc.embed(t), w.unit, u.scale, clock_timestamp()::timestamptz AS read_at
FROM top_ups AS t JOIN wallets AS w ON w.id = t.wallet_id JOIN units AS u ON u.code = w.unit
WHERE t.id = @id;

-- name: LockTopUp :exec
SELECT FROM top_ups WHERE id = @id FOR UPDATE;

-- name: PageTopUps :many
SELECT sqlc.embed(t), w.unit, u.scale, clock_timestamp()::timestamptz AS read_at
FROM top_ups AS t JOIN wallets AS w ON w.id = t.wallet_id JOIN units AS u ON u.code = w.unit
WHERE t.id < @before AND (sqlc.narg('customer_id')::uuid IS NULL OR t.customer_id = sqlc.narg('customer_id')::uuid)
  AND (sqlc.narg('wallet_id')::uuid IS NULL OR t.wallet_id = sqlc.narg('wallet_id')::uuid)
  AND (sqlc.narg('status')::text IS NULL OR t.status = sqlc.narg('status')::text)
ORDER BY t.id DESC LIMIT @page_size;

-- name: AskForTopUp :exec
-- The time for the outcome begins when the payment is asked for.
UPDATE top_ups SET asked_at = x.at, times_out_at = x.at + make_interval(secs => timeout_s) FROM (SELECT clock_timestamp() AS at) AS x WHERE id = @id;

-- name: DecideTopUp :exec
UPDATE top_ups SET status = @status, payment_ref = coalesce(sqlc.narg('payment_ref'), payment_ref), reason = sqlc.narg('reason'), retry = sqlc.narg('retry'),
  decided_at = coalesce(decided_at, @at::timestamptz), ended_at = CASE WHEN @ended::boolean THEN @at::timestamptz END
WHERE id = @id;

-- name: EndTopUp :exec
UPDATE top_ups SET ended_at = coalesce(ended_at, clock_timestamp()) WHERE id = @id AND status IN ('failed', 'expired');

-- name: TopUpsToEnd :many
-- Top-ups with more to do, begun before an instant, in order.
SELECT id FROM top_ups WHERE ended_at IS NULL AND requested_at < @begun_before AND id > @after ORDER BY id LIMIT @n;

-- name: TopUpCustomersToLookAt :many
-- Customers after one with a rule whose time has come, in order.
SELECT DISTINCT customer_id FROM top_up_rules WHERE look_at <= now() AND customer_id > @after ORDER BY customer_id LIMIT @n;

-- name: VerifyTopUps :many
-- What succeeded has its credits, what is at its end has left no purchase pending, and every purchase is what was to be bought.
SELECT t.id::text AS subject,
  CASE WHEN t.status = 'succeeded' AND g.id IS NULL THEN 'has no grant'
    WHEN t.status = 'succeeded' AND (g.issued_at IS NULL OR g.status = 'pending') THEN 'has not issued its grant'
    WHEN t.ended_at IS NOT NULL AND g.status = 'pending' THEN 'has left its grant pending'
    WHEN g.id IS NOT NULL AND (g.wallet_id, g.amount, g.price_minor, g.tax_minor) <> (t.wallet_id, t.amount, t.price_minor, t.tax_minor) THEN 'has another grant than it bought'
  END AS detail
FROM top_ups AS t LEFT JOIN grants AS g ON g.id = t.grant_id;
