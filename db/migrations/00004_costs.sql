-- +goose Up

-- What model providers charge: catalogues as they were imported, and usage that could not be priced when it came.

-- A draft is what a catalogue may become. It prices nothing, is deleted freely, and never changes: what was reviewed is what is published.
CREATE TABLE cost_catalogue_drafts (
  id           uuid PRIMARY KEY,
  format       text NOT NULL CHECK (format IN ('genai_prices', 'litellm')),
  note         text NOT NULL DEFAULT '',
  document     text NOT NULL,                          -- byte for byte as it was imported
  sha256       bytea NOT NULL CHECK (length(sha256) = 32),
  created_at   timestamptz NOT NULL DEFAULT now(),
  created_by   text NOT NULL
);

CREATE TABLE cost_catalogues (
  number       integer PRIMARY KEY CHECK (number > 0),
  format       text NOT NULL CHECK (format IN ('genai_prices', 'litellm')),
  note         text NOT NULL DEFAULT '',
  document     text NOT NULL,
  sha256       bytea NOT NULL CHECK (length(sha256) = 32),
  effective_at timestamptz NOT NULL,
  published_at timestamptz NOT NULL DEFAULT now(),
  published_by text NOT NULL
);
CREATE TRIGGER cost_catalogues_fixed BEFORE UPDATE OR DELETE ON cost_catalogues FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER cost_catalogues_no_truncate BEFORE TRUNCATE ON cost_catalogues FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A consumption that waits until it can be priced. It is charged at its own time and under its own key, at most once: all that decides about a
-- row holds its customer's lock. Its key's answer is kept in idempotency_keys with status 202 meanwhile.
CREATE TABLE quarantined_usage (
  id           uuid PRIMARY KEY,
  customer_id  uuid NOT NULL REFERENCES customers,
  digest       uuid NOT NULL CONSTRAINT quarantined_once UNIQUE, -- of the key
  key          text NOT NULL,                          -- as operations have it
  actor        integer NOT NULL,                       -- api_keys.no that sent it
  request_id   uuid NOT NULL,
  body         text NOT NULL,                          -- the consumption as it was sent
  service_at   timestamptz NOT NULL,
  at           timestamptz NOT NULL,                   -- when it was quarantined
  code         text NOT NULL,                          -- why it could not be priced, the last time
  detail       text NOT NULL,
  tries        integer NOT NULL DEFAULT 1 CHECK (tries > 0),
  state        text NOT NULL DEFAULT 'pending',
  ver          bigint,                                 -- the operation that charged it
  decided_at   timestamptz,
  decided_by   integer,                                -- api_keys.no
  reason       text,                                   -- of discarding it
  CONSTRAINT quarantine_state CHECK (CASE state
    WHEN 'pending' THEN ver IS NULL AND decided_at IS NULL AND decided_by IS NULL AND reason IS NULL
    WHEN 'charged' THEN ver IS NOT NULL AND decided_at IS NOT NULL AND decided_by IS NOT NULL AND reason IS NULL
    WHEN 'discarded' THEN ver IS NULL AND decided_at IS NOT NULL AND decided_by IS NOT NULL AND reason <> ''
    ELSE false END),
  FOREIGN KEY (customer_id, ver) REFERENCES operations
);
CREATE INDEX quarantined_usage_pending ON quarantined_usage (id) WHERE state = 'pending';
CREATE INDEX quarantined_usage_by_customer ON quarantined_usage (customer_id, id);

-- +goose StatementBegin
CREATE FUNCTION check_quarantined() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF old.state <> 'pending' OR (new.id, new.customer_id, new.digest, new.key, new.actor, new.request_id, new.body, new.service_at, new.at)
      IS DISTINCT FROM (old.id, old.customer_id, old.digest, old.key, old.actor, old.request_id, old.body, old.service_at, old.at) THEN
    RAISE EXCEPTION 'quarantined usage % was % and stays as it came', old.id, old.state
      USING ERRCODE = 'restrict_violation', CONSTRAINT = 'quarantine_fixed', TABLE = 'quarantined_usage';
  END IF;
  RETURN new;
END $$;
-- +goose StatementEnd
CREATE TRIGGER quarantined_usage_rules BEFORE UPDATE ON quarantined_usage FOR EACH ROW EXECUTE FUNCTION check_quarantined();
CREATE TRIGGER quarantined_usage_stays BEFORE DELETE ON quarantined_usage FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER quarantined_usage_no_truncate BEFORE TRUNCATE ON quarantined_usage FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT, DELETE ON cost_catalogue_drafts TO tallystick_app;
GRANT SELECT, INSERT ON cost_catalogues TO tallystick_app;
GRANT SELECT, INSERT, UPDATE ON quarantined_usage TO tallystick_app;

-- +goose Down
DROP TABLE quarantined_usage, cost_catalogues, cost_catalogue_drafts;
DROP FUNCTION check_quarantined;
