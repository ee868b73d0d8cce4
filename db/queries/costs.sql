-- name: CostCatalogueVersions :many
-- Those that may price an event of an instant or later, without their documents: the one in force then, and every later one.
SELECT number, format, effective_at, published_at FROM cost_catalogues AS c
WHERE NOT EXISTS (SELECT FROM cost_catalogues AS l WHERE l.effective_at <= @since AND (l.effective_at, l.number) > (c.effective_at, c.number))
ORDER BY effective_at, number;

-- name: CostCatalogueDocument :one
SELECT format, document FROM cost_catalogues WHERE number = @number;

-- name: AddCostCatalogue :one
-- Without an instant the first catalogue is in force at once, a later one after the lead. Whoever adds one holds the lock on configuration.
INSERT INTO cost_catalogues (number, format, note, document, sha256, effective_at, published_by)
SELECT coalesce(max(number), 0) + 1, @format, @note, @document, @sha256,
  coalesce(sqlc.narg('effective_at')::timestamptz,
    clock_timestamp() + CASE WHEN count(*) = 0 THEN interval '0' ELSE make_interval(secs => @lead_seconds::double precision) END),
  @published_by
FROM cost_catalogues
RETURNING number, effective_at, published_at;

-- name: PageCostCatalogues :many
SELECT number, format, note, sha256, octet_length(document)::bigint AS bytes, effective_at, published_at, published_by FROM cost_catalogues
WHERE number < @before ORDER BY number DESC LIMIT @page_size;

-- name: FindCostCatalogue :one
SELECT number, format, note, sha256, octet_length(document)::bigint AS bytes, effective_at, published_at, published_by FROM cost_catalogues
WHERE number = @number;

-- name: CostCatalogueAt :one
SELECT number FROM cost_catalogues WHERE effective_at <= coalesce(sqlc.narg('at')::timestamptz, clock_timestamp())
ORDER BY effective_at DESC, number DESC LIMIT 1;

-- name: AddCostDraft :one
INSERT INTO cost_catalogue_drafts (id, format, note, document, sha256, created_by) VALUES (@id, @format, @note, @document, @sha256, @created_by)
RETURNING created_at;

-- name: FindCostDraft :one
SELECT id, format, note, document, sha256, created_at, created_by FROM cost_catalogue_drafts WHERE id = @id;

-- name: PageCostDrafts :many
SELECT id, format, note, sha256, octet_length(document)::bigint AS bytes, created_at, created_by FROM cost_catalogue_drafts
WHERE id < @before ORDER BY id DESC LIMIT @page_size;

-- name: DeleteCostDraft :one
DELETE FROM cost_catalogue_drafts WHERE id = @id RETURNING id, format, note, document, sha256, created_at, created_by;

-- name: ReadQuarantined :many
-- By the arbiter, under the customers' locks.
SELECT id, customer_id, state, ver FROM quarantined_usage WHERE id = ANY(@ids::uuid[]);

-- name: AddQuarantined :exec
INSERT INTO quarantined_usage (id, customer_id, digest, key, actor, request_id, body, service_at, at, code, detail)
VALUES (@id, @customer_id, @digest, @key, @actor, @request_id, @body, @service_at, @at, @code, @detail);

-- name: TryQuarantined :exec
-- It was tried again and still cannot be charged.
UPDATE quarantined_usage SET code = @code, detail = @detail, tries = tries + 1 WHERE id = @id;

-- name: ChargeQuarantined :exec
UPDATE quarantined_usage SET state = 'charged', ver = @ver::bigint, tries = tries + 1, decided_at = @decided_at::timestamptz, decided_by = @decided_by::integer
WHERE id = @id;

-- name: AnswerKey :exec
-- The key of a consumption that was quarantined is answered with the operation that charged it.
UPDATE idempotency_keys SET status = @status, ver = @ver::bigint, response = NULL WHERE digest = @digest AND status = 202 AND ver IS NULL;

-- name: LockQuarantined :one
-- The customer's lock first, as whoever charges it has it.
WITH locked AS (
  SELECT h.customer_id FROM customer_heads AS h
  WHERE h.customer_id = (SELECT q.customer_id FROM quarantined_usage AS q WHERE q.id = @id) FOR UPDATE
)
SELECT customer_id FROM locked;

-- name: DiscardQuarantined :one
UPDATE quarantined_usage SET state = 'discarded', decided_at = clock_timestamp(), decided_by = @decided_by::integer, reason = @reason::text
WHERE id = @id AND state = 'pending'
RETURNING digest;

-- name: KeepAnswer :exec
-- What the key of discarded usage is answered from then on.
UPDATE idempotency_keys SET response = @response::text WHERE digest = @digest AND status = 202 AND ver IS NULL;

-- name: FindQuarantined :one
SELECT id, customer_id, named, key, actor, request_id, body, service_at, at, code, detail, tries, state, ver, decided_at, decided_by, reason
FROM quarantined_usage WHERE id = @id;

-- name: PageQuarantined :many
-- Newest first. Null filters let everything through.
SELECT id, customer_id, named, key, actor, request_id, body, service_at, at, code, detail, tries, state, ver, decided_at, decided_by, reason
FROM quarantined_usage
WHERE (sqlc.narg('customer_id')::uuid IS NULL OR customer_id = sqlc.narg('customer_id')::uuid)
  AND (sqlc.narg('state')::text IS NULL OR state = sqlc.narg('state')::text)
  AND (sqlc.narg('code')::text IS NULL OR code = sqlc.narg('code')::text)
  AND id < @before
ORDER BY id DESC LIMIT @page_size;

-- name: OldestQuarantined :many
-- What waits, the first first: those who came first are charged first.
SELECT id, customer_id, named, key, actor, request_id, body, service_at, at, code, detail, tries, state, ver, decided_at, decided_by, reason
FROM quarantined_usage
WHERE state = 'pending' AND id > @after
  AND (sqlc.narg('customer_id')::uuid IS NULL OR customer_id = sqlc.narg('customer_id')::uuid)
  AND (sqlc.narg('code')::text IS NULL OR code = sqlc.narg('code')::text)
ORDER BY id LIMIT @page_size;

-- name: CountQuarantined :one
-- What waits, and since when the oldest does.
SELECT count(*) AS waiting, coalesce(min(at), now())::timestamptz AS oldest FROM quarantined_usage WHERE state = 'pending';
