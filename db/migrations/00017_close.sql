-- +goose Up

-- Closing an accounting period: open -> soft_closed -> in_review -> closed -> reopened -> soft_closed -> in_review -> closed, one version later.
-- What a close needs of people, and what a period's state forbids, is refused here, whatever the code does.

ALTER TABLE api_keys DROP CONSTRAINT api_keys_role_check;
ALTER TABLE api_keys ADD CONSTRAINT api_key_role CHECK (role IN ('product', 'support', 'finance', 'ops', 'admin', 'controller'));

-- Until now the owner of the database set these states by hand. One that was half closed so has no close that could go on.
UPDATE periods SET status = 'open', changed_at = now() WHERE status IN ('soft_closed', 'in_review');

-- How an entity closes its periods. An entity without a row has the defaults.
CREATE TABLE close_settings (
  entity       text PRIMARY KEY REFERENCES legal_entities,
  late_hours   integer NOT NULL DEFAULT 72 CHECK (late_hours BETWEEN 0 AND 816), -- usage is accepted for 34 days
  statements   text[] NOT NULL DEFAULT '{}' CHECK (statements <@ ARRAY['processor', 'bank', 'tax', 'provider']), -- without which nothing is closed
  updated_at   timestamptz NOT NULL DEFAULT now(),
  updated_by   integer NOT NULL REFERENCES api_keys
);

-- One close of one version of a period.
CREATE TABLE closes (
  entity       text NOT NULL,
  period       text NOT NULL,
  version      integer NOT NULL CHECK (version > 0),
  status       text NOT NULL DEFAULT 'preparing' CHECK (status IN ('preparing', 'in_review', 'approved', 'closed')),
  preparer     integer NOT NULL REFERENCES api_keys,
  started_at   timestamptz NOT NULL DEFAULT now(),
  late_until   timestamptz NOT NULL,                  -- until then, usage of the period that comes late is booked in it
  pack         json,                                  -- canonical; null: it is not in review
  pack_hash    text CHECK (pack_hash ~ '^[0-9a-f]{64}$'),
  entries      bigint,                                -- in the period when the pack was made
  postings     bigint,
  balances     jsonb,                                 -- account -> debit less credit at the end of the period, minor units
  note         text,                                  -- why it was rejected, or went back to be prepared again
  approver     integer REFERENCES api_keys,
  approved_at  timestamptz,
  closed_at    timestamptz,
  PRIMARY KEY (entity, period, version),
  FOREIGN KEY (entity, period) REFERENCES periods,
  CONSTRAINT close_pack CHECK ((status = 'preparing') = (pack IS NULL) AND num_nulls(pack, pack_hash, entries, postings, balances) IN (0, 5)),
  CONSTRAINT close_approval CHECK ((status IN ('approved', 'closed')) = (approver IS NOT NULL) AND (approver IS NULL) = (approved_at IS NULL)),
  CONSTRAINT close_end CHECK ((status = 'closed') = (closed_at IS NOT NULL)),
  CONSTRAINT second_person CHECK (approver <> preparer)
);

-- What a step of a close has found, the newest time that it was run.
CREATE TABLE close_steps (
  entity       text NOT NULL,
  period       text NOT NULL,
  version      integer NOT NULL,
  step         text NOT NULL,
  status       text NOT NULL CHECK (status IN ('done', 'blocked')),
  blocked_by   text,
  figures      json NOT NULL,                         -- canonical
  sha256       text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'), -- of the figures
  run_at       timestamptz NOT NULL,                  -- when it began
  PRIMARY KEY (entity, period, version, step),
  FOREIGN KEY (entity, period, version) REFERENCES closes,
  CONSTRAINT step_blocked CHECK ((status = 'blocked') = (blocked_by IS NOT NULL))
);

-- A difference that an approver lets stand. It is of this very difference: another one is not waived by it.
CREATE TABLE close_waivers (
  entity       text NOT NULL,
  period       text NOT NULL,
  version      integer NOT NULL,
  reconciliation text NOT NULL,
  figures_sha256 text NOT NULL CHECK (figures_sha256 ~ '^[0-9a-f]{64}$'),
  reason       text NOT NULL CHECK (reason <> ''),
  waived_by    integer NOT NULL REFERENCES api_keys,
  waived_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (entity, period, version, reconciliation, figures_sha256),
  FOREIGN KEY (entity, period, version) REFERENCES closes
);

-- Figures from outside that the books are compared with. The newest of a kind and reference counts.
CREATE TABLE close_statements (
  id           uuid PRIMARY KEY,
  no           bigint GENERATED ALWAYS AS IDENTITY,
  entity       text NOT NULL REFERENCES legal_entities,
  period       text NOT NULL CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
  kind         text NOT NULL CHECK (kind IN ('processor', 'bank', 'tax', 'provider')),
  amount_minor bigint NOT NULL,
  currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  reference    text NOT NULL CHECK (reference <> ''),
  as_of        timestamptz NOT NULL,
  recorded_by  integer NOT NULL REFERENCES api_keys,
  recorded_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX close_statements_by_period ON close_statements (entity, period, kind, reference, no);

-- Asking for a closed period to be opened again, and the second person's answer.
CREATE TABLE period_reopenings (
  entity       text NOT NULL,
  period       text NOT NULL,
  version      integer NOT NULL,                      -- that was closed
  reason       text NOT NULL CHECK (reason <> ''),
  asked_by     integer NOT NULL REFERENCES api_keys,
  asked_at     timestamptz NOT NULL DEFAULT now(),
  approver     integer REFERENCES api_keys,
  approved_at  timestamptz,
  PRIMARY KEY (entity, period, version),
  FOREIGN KEY (entity, period, version) REFERENCES closes,
  CONSTRAINT second_person CHECK (approver <> asked_by)
);

-- A journal entry that people write: prepared by one, booked when another has approved it.
CREATE TABLE manual_journals (
  id           uuid PRIMARY KEY,
  entity       text NOT NULL REFERENCES legal_entities,
  period       text NOT NULL CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
  day          date NOT NULL,
  status       text NOT NULL DEFAULT 'prepared' CHECK (status IN ('prepared', 'posted', 'rejected')),
  reason       text NOT NULL CHECK (reason <> ''),
  attachments  text[] NOT NULL DEFAULT '{}',          -- references
  postings     jsonb NOT NULL,
  preparer     integer NOT NULL REFERENCES api_keys,
  prepared_at  timestamptz NOT NULL DEFAULT now(),
  approver     integer REFERENCES api_keys,           -- or who rejected it
  decided_at   timestamptz,
  note         text,                                  -- why it was rejected
  entry_id     uuid REFERENCES journal_entries,
  CONSTRAINT journal_day CHECK (to_char(day, 'YYYY-MM') = period),
  CONSTRAINT journal_decided CHECK ((status = 'prepared') = (approver IS NULL) AND (approver IS NULL) = (decided_at IS NULL)
    AND (status = 'posted') = (entry_id IS NOT NULL)),
  CONSTRAINT second_person CHECK (approver <> preparer)
);
CREATE INDEX manual_journals_by_entity ON manual_journals (entity, id);
CREATE INDEX manual_journals_pending ON manual_journals (entity, period) WHERE status = 'prepared';

-- +goose StatementBegin
-- Whoever decides about another's work is a controller, and another person: another key under another name.
CREATE FUNCTION check_second_person(preparer integer, approver integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM api_keys WHERE no = approver AND role = 'controller' AND revoked_at IS NULL) THEN
    RAISE EXCEPTION 'key % is not that of a controller', approver USING ERRCODE = 'check_violation', CONSTRAINT = 'approver_role';
  END IF;
  IF EXISTS (SELECT FROM api_keys AS a JOIN api_keys AS p ON lower(p.name) = lower(a.name) WHERE a.no = approver AND p.no = preparer) THEN
    RAISE EXCEPTION 'keys % and % are of one person', preparer, approver USING ERRCODE = 'check_violation', CONSTRAINT = 'second_person';
  END IF;
END $$;

CREATE FUNCTION check_approval() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF new.approver IS NOT NULL AND (tg_op = 'INSERT' OR new.approver IS DISTINCT FROM old.approver) THEN
    PERFORM check_second_person(CASE tg_table_name WHEN 'period_reopenings' THEN (to_jsonb(new) ->> 'asked_by')::integer
      ELSE (to_jsonb(new) ->> 'preparer')::integer END, new.approver);
  END IF;
  RETURN new;
END $$;

CREATE FUNCTION check_waiver() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM check_second_person((SELECT preparer FROM closes WHERE entity = new.entity AND period = new.period AND version = new.version), new.waived_by);
  RETURN new;
END $$;

-- A closed close, a decided journal and an approved reopening stay as they are.
CREATE FUNCTION refuse_change_once_decided() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a row of % that was decided is not changed', tg_table_name
    USING ERRCODE = 'restrict_violation', CONSTRAINT = 'decided', TABLE = tg_table_name;
END $$;

-- A period goes from one state to the next and no other way, the oldest first; the newest closed one is reopened first. No month appears
-- before one that takes no more entries: it would change what was approved.
CREATE FUNCTION check_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF tg_op = 'UPDATE' THEN
    IF new.entity <> old.entity OR new.period <> old.period THEN
      RAISE EXCEPTION 'a period is not renamed' USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_transition', TABLE = 'periods';
    END IF;
    IF new.status = old.status AND new.version = old.version THEN
      RETURN new;
    END IF;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tallystick:periods:' || new.entity, 0));
  IF tg_op = 'INSERT' THEN
    IF new.status <> 'open' OR new.version <> 1 THEN
      RAISE EXCEPTION 'a period begins as open' USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_transition', TABLE = 'periods';
    ELSIF EXISTS (SELECT FROM periods WHERE entity = new.entity AND period > new.period AND status IN ('in_review', 'closed')) THEN
      RAISE EXCEPTION 'period % is before one that takes no more entries', new.period
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_order', TABLE = 'periods';
    END IF;
    RETURN new;
  END IF;
  IF NOT ((old.status, new.status) IN (('open', 'soft_closed'), ('reopened', 'soft_closed'), ('soft_closed', 'in_review'), ('in_review', 'soft_closed'),
      ('in_review', 'closed')) AND new.version = old.version OR old.status = 'closed' AND new.status = 'reopened' AND new.version = old.version + 1) THEN
    RAISE EXCEPTION 'period % does not go from % to %', old.period, old.status, new.status
      USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_transition', TABLE = 'periods';
  END IF;
  IF new.status = 'in_review' AND EXISTS (SELECT FROM periods WHERE entity = new.entity AND period < new.period AND status <> 'closed')
    OR new.status = 'reopened' AND EXISTS (SELECT FROM periods WHERE entity = new.entity AND period > new.period AND status IN ('in_review', 'closed')) THEN
    RAISE EXCEPTION 'period % is not the next one', new.period USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_order', TABLE = 'periods';
  END IF;
  IF new.status = 'closed' AND NOT EXISTS (SELECT FROM closes
      WHERE entity = new.entity AND period = new.period AND version = new.version AND status = 'approved') THEN
    RAISE EXCEPTION 'period % was not approved', new.period USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_approved', TABLE = 'periods';
  END IF;
  IF new.status = 'reopened' AND NOT EXISTS (SELECT FROM period_reopenings
      WHERE entity = new.entity AND period = new.period AND version = old.version AND approver IS NOT NULL) THEN
    RAISE EXCEPTION 'nobody approved to reopen period %', new.period USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_approved', TABLE = 'periods';
  END IF;
  new.changed_at := clock_timestamp();
  RETURN new;
END $$;

-- Nothing is booked in a period that takes no more entries, and no period ends to take them before what is being booked is committed.
CREATE FUNCTION check_period_takes_entries() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE p record;
BEGIN
  FOR p IN SELECT period, status FROM periods WHERE (entity, period) IN (SELECT DISTINCT entity, period FROM fresh) ORDER BY entity, period FOR SHARE LOOP
    IF p.status NOT IN ('open', 'soft_closed', 'reopened') THEN
      RAISE EXCEPTION 'period % is %', p.period, p.status USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_takes_entries', TABLE = 'journal_entries';
    END IF;
  END LOOP;
  RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER closes_approval BEFORE INSERT OR UPDATE ON closes FOR EACH ROW EXECUTE FUNCTION check_approval();
CREATE TRIGGER closes_decided BEFORE UPDATE ON closes FOR EACH ROW WHEN (old.status = 'closed') EXECUTE FUNCTION refuse_change_once_decided();
CREATE TRIGGER close_waivers_by BEFORE INSERT ON close_waivers FOR EACH ROW EXECUTE FUNCTION check_waiver();
CREATE TRIGGER close_waivers_fixed BEFORE UPDATE OR DELETE ON close_waivers FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER close_statements_fixed BEFORE UPDATE OR DELETE ON close_statements FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER period_reopenings_approval BEFORE INSERT OR UPDATE ON period_reopenings FOR EACH ROW EXECUTE FUNCTION check_approval();
CREATE TRIGGER period_reopenings_decided BEFORE UPDATE ON period_reopenings FOR EACH ROW WHEN (old.approver IS NOT NULL)
  EXECUTE FUNCTION refuse_change_once_decided();
CREATE TRIGGER manual_journals_approval BEFORE INSERT OR UPDATE ON manual_journals FOR EACH ROW EXECUTE FUNCTION check_approval();
CREATE TRIGGER manual_journals_decided BEFORE UPDATE ON manual_journals FOR EACH ROW WHEN (old.status <> 'prepared')
  EXECUTE FUNCTION refuse_change_once_decided();
CREATE TRIGGER periods_states BEFORE INSERT OR UPDATE ON periods FOR EACH ROW EXECUTE FUNCTION check_period();
CREATE TRIGGER journal_entries_period AFTER INSERT ON journal_entries REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION check_period_takes_entries();

GRANT SELECT, INSERT, UPDATE ON close_settings, closes, close_steps, period_reopenings, manual_journals TO tallystick_app;
GRANT SELECT, INSERT ON close_waivers, close_statements TO tallystick_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO tallystick_app;

-- +goose Down
DROP TRIGGER journal_entries_period ON journal_entries;
DROP TRIGGER periods_states ON periods;
DROP TABLE manual_journals, period_reopenings, close_statements, close_waivers, close_steps, closes, close_settings;
DROP FUNCTION check_period_takes_entries, check_period, refuse_change_once_decided, check_waiver, check_approval, check_second_person;
DELETE FROM api_keys WHERE role = 'controller';
ALTER TABLE api_keys DROP CONSTRAINT api_key_role;
ALTER TABLE api_keys ADD CONSTRAINT api_keys_role_check CHECK (role IN ('product', 'support', 'finance', 'ops', 'admin'));
