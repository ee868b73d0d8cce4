-- The audit proof: numbers and hashes of journal entries, and the seals over them.

-- name: PostingTime :one
-- The time of the transaction, to be hashed with what it posts.
SELECT now()::timestamptz AS at;

-- name: TryLockSealer :one
-- No row: another process numbers entries at this moment.
SELECT no, next_no, next_xid FROM sealer FOR UPDATE SKIP LOCKED;

-- name: LockSealer :one
SELECT no, next_no, next_xid FROM sealer FOR UPDATE;

-- name: SealerHorizon :one
-- Every transaction before ended is over, none at or after begun has begun. A transaction that posts has its number before its entries have theirs,
-- for it has locked rows of periods: whoever is to commit an entry up to head has one before begun.
SELECT pg_snapshot_xmin(s)::text::bigint AS ended, pg_snapshot_xmax(s)::text::bigint AS begun, coalesce((SELECT max(no) FROM journal_entries), 0)::bigint AS head
FROM pg_current_snapshot() AS s;

-- name: EntriesToNumber :many
-- In order of posting.
SELECT e.id, e.no, e.entity, e.period, e.leaf FROM journal_entries AS e
WHERE e.no > @after AND NOT EXISTS (SELECT FROM sealed_entries AS s WHERE s.entry_id = e.id)
ORDER BY e.no LIMIT @n;

-- name: PeriodEntriesToNumber :many
SELECT e.id, e.no, e.entity, e.period, e.leaf FROM journal_entries AS e
WHERE e.entity = @entity AND e.period = @period AND NOT EXISTS (SELECT FROM sealed_entries AS s WHERE s.entry_id = e.id)
ORDER BY e.no;

-- name: LastSealedNumber :one
-- 0 when no entry of the period has a number.
SELECT coalesce(max(seq), 0)::bigint FROM sealed_entries WHERE entity = @entity AND period = @period;

-- name: AddSealedEntries :copyfrom
INSERT INTO sealed_entries (entity, period, seq, entry_id, leaf, hashed_late) VALUES (@entity, @period, @seq, @entry_id, @leaf, @hashed_late);

-- name: MoveSealer :exec
UPDATE sealer SET no = @no, next_no = @next_no, next_xid = @next_xid;

-- name: EntriesToHash :many
SELECT id, cause, entity, period, service_on, posted_at, kind, customer_id, grant_id, ver_from, ver_to, late, reverses
FROM journal_entries WHERE id = ANY(@ids::uuid[]) ORDER BY no;

-- name: SealedEntries :many
SELECT seq, entry_id, leaf, hashed_late FROM sealed_entries WHERE entity = @entity AND period = @period AND seq > @after ORDER BY seq LIMIT @n;

-- name: SealedLeaves :many
-- Up to a number.
SELECT leaf FROM sealed_entries WHERE entity = @entity AND period = @period AND seq <= @size ORDER BY seq;

-- name: FindSealedEntry :one
SELECT entity, period, seq FROM sealed_entries WHERE entry_id = @entry_id;

-- name: UnnumberedEntries :many
-- Entries of a period that have no number in it. Passed: the sealer has been there, and would have given it one; elsewhere: its number is of another period.
SELECT e.id, (e.no <= m.no)::boolean AS passed, (s.entry_id IS NOT NULL)::boolean AS elsewhere
FROM sealer AS m
JOIN journal_entries AS e ON e.entity = @entity AND e.period = @period
LEFT JOIN sealed_entries AS s ON s.entry_id = e.id
WHERE s.entry_id IS NULL OR (s.entity, s.period) <> (e.entity, e.period)
ORDER BY e.no;

-- name: PeriodStatus :one
SELECT status FROM periods WHERE entity = @entity AND period = @period;

-- name: PeriodTotals :many
-- Of the entries numbered up to @size.
SELECT p.account,
  coalesce(sum(p.amount_minor) FILTER (WHERE p.side = 'dr'), 0)::bigint AS debit,
  coalesce(sum(p.amount_minor) FILTER (WHERE p.side = 'cr'), 0)::bigint AS credit
FROM sealed_entries AS s
JOIN postings AS p ON p.entry_id = s.entry_id
WHERE s.entity = @entity AND s.period = @period AND s.seq <= @size
GROUP BY p.account ORDER BY p.account;

-- name: LastSeal :one
SELECT * FROM seals WHERE entity = @entity ORDER BY number DESC LIMIT 1;

-- name: LastSealOfPeriod :one
SELECT * FROM seals WHERE entity = @entity AND period = @period ORDER BY version DESC LIMIT 1;

-- name: FirstSealCovering :one
-- The oldest seal of the period with at least so many entries.
SELECT * FROM seals WHERE entity = @entity AND period = @period AND size >= @seq ORDER BY version LIMIT 1;

-- name: AddSeal :exec
INSERT INTO seals (entity, number, period, version, period_version, closed, size, pack, document)
VALUES (@entity, @number, @period, @version, @period_version, @closed, @size, @pack, @document);

-- name: PageSeals :many
-- Newest first.
SELECT * FROM seals
WHERE entity = @entity AND number < @before AND (sqlc.narg('period')::text IS NULL OR period = sqlc.narg('period')::text)
ORDER BY number DESC LIMIT @page_size;

-- name: MeasureSealer :one
-- How many entries have no number, and how old the oldest of them is.
SELECT count(*)::bigint AS waiting, coalesce(extract(epoch FROM now() - min(e.posted_at)), 0)::float8 AS seconds
FROM journal_entries AS e, sealer AS m
WHERE e.no > m.no AND NOT EXISTS (SELECT FROM sealed_entries AS s WHERE s.entry_id = e.id);
