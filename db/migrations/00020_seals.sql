-- +goose Up

-- The hash of the entry and its postings as they were written. Null: written by a release that did not hash; then the sealer does, later.
ALTER TABLE journal_entries ADD COLUMN leaf bytea CONSTRAINT entry_leaf CHECK (length(leaf) = 32);

-- The auditor's number of every entry: without gaps in the period that it is booked in, given by the sealer after the entry was committed.
CREATE TABLE sealed_entries (
  entity       text NOT NULL,
  period       text NOT NULL,
  seq          bigint NOT NULL CHECK (seq > 0),
  entry_id     uuid NOT NULL CONSTRAINT entry_sealed_once UNIQUE REFERENCES journal_entries,
  leaf         bytea NOT NULL CHECK (length(leaf) = 32),
  hashed_late  boolean NOT NULL,                       -- by the sealer, not by who wrote the entry: it shows nothing from before numbered_at
  numbered_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT sealed_order PRIMARY KEY (entity, period, seq)
);

-- How far the sealer has come. Every entry up to no has a number, or never comes to be; up to next_no the same holds once every transaction
-- before next_xid has ended.
CREATE TABLE sealer (
  only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  no           bigint NOT NULL,
  next_no      bigint NOT NULL,
  next_xid     bigint NOT NULL
);
INSERT INTO sealer (no, next_no, next_xid) SELECT 0, coalesce(max(no), 0), 0 FROM journal_entries; -- whoever posted before has ended: the column needed the whole table

-- Seals as they were signed. A copy of each is to be kept where nobody who can write here can.
CREATE TABLE seals (
  entity         text NOT NULL,
  number         bigint NOT NULL CHECK (number > 0),   -- of the entity's seals, without gaps
  period         text NOT NULL,
  version        integer NOT NULL CHECK (version > 0), -- of the period's seals, without gaps
  period_version integer NOT NULL,                     -- of the period when it was sealed
  closed         boolean NOT NULL,
  size           bigint NOT NULL CHECK (size >= 0),
  pack           bytea CHECK (length(pack) = 32),
  document       json NOT NULL,
  created_at     timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT seal_number PRIMARY KEY (entity, number),
  CONSTRAINT seal_version UNIQUE (entity, period, version),
  FOREIGN KEY (entity, period) REFERENCES periods
);

CREATE TRIGGER sealed_entries_append_only BEFORE UPDATE OR DELETE ON sealed_entries FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sealed_entries_no_truncate BEFORE TRUNCATE ON sealed_entries FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER seals_append_only BEFORE UPDATE OR DELETE ON seals FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER seals_no_truncate BEFORE TRUNCATE ON seals FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON sealed_entries, seals TO tallystick_app;
GRANT SELECT, UPDATE ON sealer TO tallystick_app;

-- +goose Down
DROP TABLE seals, sealer, sealed_entries;
ALTER TABLE journal_entries DROP COLUMN leaf;
