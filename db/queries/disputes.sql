-- name: ReadDisputes :many
-- Those of a grant, the oldest first.
SELECT * FROM disputes WHERE grant_id = @grant_id ORDER BY opened_ver;

-- name: SaveDispute :exec
INSERT INTO disputes (id, reference, customer_id, grant_id, status, currency, amount_minor, fee_minor, basis_minor, tax_basis_minor, fee_basis_minor,
  was_frozen, reason, opened_ver, opened_at, ended_ver, ended_at)
VALUES (@id, @reference, @customer_id, @grant_id, @status, @currency, @amount_minor, @fee_minor, @basis_minor, @tax_basis_minor, @fee_basis_minor,
  @was_frozen, @reason, @opened_ver, @opened_at, @ended_ver, @ended_at)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, ended_ver = excluded.ended_ver, ended_at = excluded.ended_at;

-- name: FindDispute :one
SELECT * FROM disputes WHERE id = @id;

-- name: PageDisputes :many
-- Null filters let everything through.
SELECT * FROM disputes AS d
WHERE (sqlc.narg('customer_id')::uuid IS NULL OR d.customer_id = sqlc.narg('customer_id')::uuid)
  AND (sqlc.narg('grant_id')::uuid IS NULL OR d.grant_id = sqlc.narg('grant_id')::uuid)
  AND (sqlc.narg('status')::text IS NULL OR d.status = sqlc.narg('status')::text)
  AND d.id < @before
ORDER BY d.id DESC LIMIT @page_size;

-- name: DisputesToRecognise :many
-- Those of a customer that an operation after @after up to @until has opened or ended, and those lost before. The days are of the entity's calendar.
SELECT id, grant_id, status, currency, amount_minor, fee_minor, basis_minor, tax_basis_minor, fee_basis_minor, opened_ver, coalesce(ended_ver, 0)::bigint AS ended_ver,
  (opened_at AT TIME ZONE @time_zone::text)::date AS opened_on, (coalesce(ended_at, opened_at) AT TIME ZONE @time_zone::text)::date AS ended_on
FROM disputes
WHERE customer_id = @customer_id AND (opened_ver > @after AND opened_ver <= @until OR ended_ver > @after AND ended_ver <= @until OR status = 'lost')
ORDER BY opened_ver;
