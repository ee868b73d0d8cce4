-- Backfills: staged usage events, what they would come to, and what has become of them.

-- name: AddBackfill :one
INSERT INTO backfills (id, name, reason, created_by) VALUES (@id, @name, @reason, @created_by) RETURNING *;

-- name: FindBackfill :one
SELECT * FROM backfills WHERE id = @id;

-- name: LockBackfill :one
SELECT * FROM backfills WHERE id = @id FOR UPDATE;

-- name: PageBackfills :many
SELECT * FROM backfills WHERE id < @before ORDER BY id DESC LIMIT @page_size;

-- name: StageEvents :many
-- In the order given; those whose key is staged already are passed over. Returns the digests of those that were not.
INSERT INTO backfill_events (backfill_id, n, digest, request, source, event_id, key, customer, customer_id, service_at, body, model)
SELECT @backfill_id::uuid, sqlc.arg('last_n')::integer + x.n::integer, d, r, s, e, k, c, i, t, b, nullif(m, '')
FROM ROWS FROM (unnest(@digests::uuid[]), unnest(@requests::uuid[]), unnest(@sources::text[]), unnest(@event_ids::text[]), unnest(@keys::text[]),
  unnest(@customers::text[]),
  unnest(@customer_ids::uuid[]), unnest(@service_ats::timestamptz[]), unnest(@bodies::text[]), unnest(@models::text[]))
  WITH ORDINALITY AS x(d, r, s, e, k, c, i, t, b, m, n)
ORDER BY x.n
ON CONFLICT ON CONSTRAINT backfill_event_once DO NOTHING RETURNING digest;

-- name: StagedRequests :many
SELECT digest, request FROM backfill_events WHERE backfill_id = @backfill_id AND digest = ANY(@digests::uuid[]) ORDER BY digest;

-- name: NoteStaged :exec
-- A preview of fewer events is none.
UPDATE backfills SET status = 'staging', events = events + @added::integer, last_n = last_n + @taken::integer, preview_hash = NULL, previewed_at = NULL
WHERE id = @id;

-- name: AskPreview :one
UPDATE backfills SET status = 'previewing', previews = previews + 1, preview_hash = NULL, previewed_at = NULL
WHERE id = @id RETURNING *;

-- name: AskApplication :one
UPDATE backfills SET status = 'applying', allow_partial = @allow_partial, applied_by = @applied_by::integer WHERE id = @id RETURNING *;

-- name: AskWithdrawal :one
UPDATE backfills SET status = 'withdrawing', withdrawn_by = @withdrawn_by::integer, withdrawal = @withdrawal::text, fault = @fault WHERE id = @id RETURNING *;

-- name: ForgetPreview :exec
UPDATE backfill_events SET preview = NULL, code = NULL, detail = NULL, unit = NULL, amount = NULL
WHERE backfill_id = @backfill_id AND preview IS NOT NULL;

-- name: ForgetPreviewWallets :exec
DELETE FROM backfill_wallets WHERE backfill_id = @backfill_id;

-- name: FindStagedCustomers :exec
-- Customers that were made after events of theirs were staged.
UPDATE backfill_events AS e SET customer_id = c.id FROM customers AS c
WHERE e.backfill_id = @backfill_id AND e.customer_id IS NULL AND c.external_id = e.customer;

-- name: RefuseUnknownCustomers :exec
UPDATE backfill_events SET preview = 'refused', code = @code::text, detail = @detail::text WHERE backfill_id = @backfill_id AND customer_id IS NULL;

-- name: NextStagedCustomer :one
SELECT customer_id FROM backfill_events WHERE backfill_id = @backfill_id AND customer_id > @after ORDER BY customer_id LIMIT 1;

-- name: StagedOfCustomer :many
-- In the order in which they are consumed: by time of the service, then as staged.
SELECT * FROM backfill_events WHERE backfill_id = @backfill_id AND customer_id = @customer_id AND (service_at, n) > (@after_at::timestamptz, @after_n::integer)
ORDER BY service_at, n LIMIT @page_size;

-- name: ConsumedLongAgo :many
-- Staged events of a customer that became operations so long ago that their keys may have been forgotten. It reads all of the customer's operations, once.
SELECT e.n, o.ver FROM backfill_events AS e JOIN operations AS o ON o.customer_id = e.customer_id AND o.key = e.key
WHERE e.backfill_id = @backfill_id AND e.customer_id = @customer_id AND e.service_at < @service_before ORDER BY e.n, o.ver DESC;

-- name: NotePreviews :exec
-- Nothing when the preview is over: what is applied is what was previewed.
WITH previewing AS (SELECT b.id FROM backfills AS b WHERE b.id = @backfill_id AND b.status = 'previewing' FOR SHARE)
UPDATE backfill_events AS e SET preview = p, code = nullif(c, ''), detail = nullif(d, ''), unit = nullif(u, ''), amount = a
FROM ROWS FROM (unnest(@ns::integer[]), unnest(@previews::text[]), unnest(@codes::text[]), unnest(@details::text[]), unnest(@units::text[]),
  unnest(@amounts::bigint[])) AS x(n, p, c, d, u, a), previewing
WHERE e.backfill_id = previewing.id AND e.n = x.n;

-- name: NotePreviewWallets :exec
INSERT INTO backfill_wallets (backfill_id, wallet_id, customer_id, unit, before, after)
SELECT @backfill_id::uuid, w, @customer_id::uuid, u, b, a
FROM ROWS FROM (unnest(@wallets::uuid[]), unnest(@units::text[]), unnest(@befores::bigint[]), unnest(@afters::bigint[])) AS x(w, u, b, a)
ON CONFLICT (backfill_id, wallet_id) DO UPDATE SET before = excluded.before, after = excluded.after;

-- name: StagedAfter :many
-- What a preview's hash is made of.
SELECT n, digest, request, coalesce(preview, '')::text AS preview, coalesce(code, '')::text AS code, coalesce(unit, '')::text AS unit,
  coalesce(amount, 0)::bigint AS amount
FROM backfill_events WHERE backfill_id = @backfill_id AND n > @after ORDER BY n LIMIT @page_size;

-- name: EndPreview :execrows
UPDATE backfills SET status = 'previewed', preview_hash = @preview_hash::text, previewed_at = clock_timestamp()
WHERE id = @id AND status = 'previewing' AND previews = @previews;

-- name: EventsToApply :many
-- What is to be consumed and is not yet known to be, in the order in which it is consumed.
SELECT * FROM backfill_events WHERE backfill_id = @backfill_id AND preview = 'chargeable' AND result IS NULL
  AND (customer_id, service_at, n) > (@after_customer::uuid, @after_at::timestamptz, @after_n::integer)
ORDER BY customer_id, service_at, n LIMIT @page_size;

-- name: NoteResults :exec
UPDATE backfill_events AS e SET result = r, ver = coalesce(nullif(v, 0), e.ver), code = nullif(c, ''), detail = nullif(d, ''),
  unit = coalesce(nullif(u, ''), e.unit), amount = CASE WHEN u = '' THEN e.amount ELSE a END
FROM ROWS FROM (unnest(@ns::integer[]), unnest(@results::text[]), unnest(@vers::bigint[]), unnest(@codes::text[]), unnest(@details::text[]),
  unnest(@units::text[]), unnest(@amounts::bigint[])) AS x(n, r, v, c, d, u, a)
WHERE e.backfill_id = @backfill_id AND e.n = x.n AND e.result IS DISTINCT FROM r;

-- name: OperationsOfRequest :many
-- Which of a customer's operations were made by one request.
SELECT customer_id, ver FROM operations WHERE customer_id = ANY(@customers::uuid[]) AND ver = ANY(@vers::bigint[]) AND request_id = @request_id
ORDER BY customer_id, ver;

-- name: EventsToWithdraw :many
-- What was consumed and is not taken back, the last first.
SELECT * FROM backfill_events WHERE backfill_id = @backfill_id AND result = 'consumed'
ORDER BY customer_id DESC, service_at DESC, n DESC LIMIT @page_size;

-- name: EndApplication :one
UPDATE backfills SET status = 'applied', applied_at = clock_timestamp() WHERE id = @id AND status = 'applying' RETURNING *;

-- name: EndWithdrawal :one
UPDATE backfills SET status = 'withdrawn', withdrawn_at = clock_timestamp() WHERE id = @id AND status = 'withdrawing' RETURNING *;

-- name: WithdrawStaged :one
UPDATE backfills SET status = 'withdrawn', withdrawn_by = @withdrawn_by::integer, withdrawal = @withdrawal::text, withdrawn_at = clock_timestamp()
WHERE id = @id RETURNING *;

-- name: CountBackfill :one
SELECT count(*) FILTER (WHERE preview = 'chargeable')::bigint AS chargeable, count(*) FILTER (WHERE preview = 'duplicate')::bigint AS duplicates,
  count(*) FILTER (WHERE preview = 'refused')::bigint AS refused, count(*) FILTER (WHERE result = 'consumed')::bigint AS consumed,
  count(*) FILTER (WHERE result = 'duplicate')::bigint AS consumed_elsewhere, count(*) FILTER (WHERE result = 'refused')::bigint AS refused_at_last,
  count(*) FILTER (WHERE result = 'withdrawn')::bigint AS withdrawn, count(*) FILTER (WHERE result = 'kept')::bigint AS kept,
  min(service_at)::timestamptz AS first_at, max(service_at)::timestamptz AS last_at
FROM backfill_events WHERE backfill_id = @backfill_id;

-- name: BackfillTotals :many
-- Credits by customer, unit and model, the most first.
SELECT e.customer_id, e.customer, e.unit::text AS unit, u.scale, coalesce(e.model, '')::text AS model, count(*)::bigint AS events, sum(e.amount)::bigint AS amount
FROM backfill_events AS e JOIN units AS u ON u.code = e.unit
WHERE e.backfill_id = @backfill_id AND e.preview = 'chargeable' AND e.result IS DISTINCT FROM 'refused'
GROUP BY e.customer_id, e.customer, e.unit, u.scale, e.model ORDER BY sum(e.amount) DESC, e.customer_id, e.customer, e.unit, e.model LIMIT @n;

-- name: BackfillRefusals :many
SELECT code::text AS code, min(detail)::text AS detail, count(*)::bigint AS events FROM backfill_events
WHERE backfill_id = @backfill_id AND code IS NOT NULL GROUP BY code ORDER BY count(*) DESC, code;

-- name: BackfillPeriods :many
-- The months of the legal entities' calendars that the services were given in, and how their periods stand.
SELECT c.entity, to_char(e.service_at AT TIME ZONE l.time_zone, 'YYYY-MM')::text AS period, coalesce(p.status, 'open')::text AS status, count(*)::bigint AS events
FROM backfill_events AS e JOIN customers AS c ON c.id = e.customer_id JOIN legal_entities AS l ON l.code = c.entity
LEFT JOIN periods AS p ON p.entity = c.entity AND p.period = to_char(e.service_at AT TIME ZONE l.time_zone, 'YYYY-MM')
WHERE e.backfill_id = @backfill_id AND e.preview = 'chargeable' GROUP BY 1, 2, 3 ORDER BY 1, 2;

-- name: BackfillDry :many
-- Wallets that would have nothing left, with what they have now.
SELECT w.wallet_id, w.customer_id, w.unit, u.scale, w.before FROM backfill_wallets AS w JOIN units AS u ON u.code = w.unit
WHERE w.backfill_id = @backfill_id AND w.before > 0 AND w.after = 0 ORDER BY w.before DESC, w.wallet_id LIMIT @n;

-- name: PageStagedEvents :many
SELECT * FROM backfill_events WHERE backfill_id = @backfill_id AND n > @after
  AND (sqlc.narg('outcome')::text IS NULL OR coalesce(result, preview, 'staged') = sqlc.narg('outcome')::text)
ORDER BY n LIMIT @page_size;

-- name: BackfillsToRun :many
-- Those that wait for a workflow, in order of id.
SELECT id FROM backfills WHERE status IN ('previewing', 'applying', 'withdrawing') ORDER BY id;
