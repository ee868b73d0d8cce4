-- +goose Up

-- What has happened, for those outside: one row per change of state, written in the transaction of the change. seq counts a customer's
-- events without gaps in the order of their commits, for whoever writes one holds the customer's row of event_heads. The zero
-- customer has the events that are about none.
CREATE TABLE events (
  customer_id  uuid NOT NULL,
  seq          bigint NOT NULL CHECK (seq > 0),
  id           uuid NOT NULL CONSTRAINT event_id UNIQUE,
  type         text NOT NULL CHECK (type ~ '^[a-z_]+(\.[a-z_]+)+$'),
  subject      text NOT NULL,                          -- the id of what it is about, as text
  data         json NOT NULL,
  at           timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT event_order PRIMARY KEY (customer_id, seq)
);
CREATE INDEX events_by_subject ON events (subject, id);
CREATE INDEX events_by_type ON events (type, id);
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A customer's newest event, and the newest for which deliveries were made.
CREATE TABLE event_heads (
  customer_id  uuid PRIMARY KEY,
  seq          bigint NOT NULL CHECK (seq > 0),
  fanned       bigint NOT NULL DEFAULT 0,
  CONSTRAINT event_fanned CHECK (fanned BETWEEN 0 AND seq)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX event_heads_to_fan ON event_heads (customer_id) WHERE fanned < seq;

-- Where events are sent to. A deleted one stays as a row until its deliveries are gone.
CREATE TABLE webhook_endpoints (
  id           uuid PRIMARY KEY,
  url          text NOT NULL CHECK (length(url) <= 2048),
  types        text[] NOT NULL DEFAULT '{}',           -- {}: every type
  customer_id  uuid REFERENCES customers,              -- null: every customer, and what is about none
  description  text NOT NULL DEFAULT '',
  status       text NOT NULL DEFAULT 'enabled' CHECK (status IN ('enabled', 'disabled', 'deleted')),
  reason       text CHECK (reason IN ('asked', 'gone', 'failing')), -- why it is disabled
  disabled_at  timestamptz,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT webhook_endpoint_reason CHECK ((status = 'disabled') = (reason IS NOT NULL))
);
CREATE INDEX webhook_endpoints_enabled ON webhook_endpoints (id) WHERE status = 'enabled';

-- The keys that an endpoint's messages are signed with: the current one, and those that it has taken the place of until they expire.
CREATE TABLE webhook_secrets (
  endpoint_id  uuid NOT NULL REFERENCES webhook_endpoints,
  no           bigint GENERATED ALWAYS AS IDENTITY,
  secret       bytea NOT NULL CHECK (length(secret) BETWEEN 24 AND 64),
  created_at   timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz,                            -- null: the current one
  PRIMARY KEY (endpoint_id, no)
);
CREATE UNIQUE INDEX webhook_secrets_current ON webhook_secrets (endpoint_id) WHERE expires_at IS NULL;

-- One event for one endpoint. The deliveries of one customer to one endpoint are made in the order of their ids.
CREATE TABLE webhook_deliveries (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  endpoint_id  uuid NOT NULL REFERENCES webhook_endpoints,
  customer_id  uuid NOT NULL,                          -- with seq: the event
  seq          bigint NOT NULL,
  replay       boolean NOT NULL DEFAULT false,
  attempts     integer NOT NULL DEFAULT 0,
  log          jsonb NOT NULL DEFAULT '[]',            -- the newest attempts, oldest first
  code         integer,                                -- of the last answer; null: none came
  error        text,                                   -- of the last attempt; null: none
  created_at   timestamptz NOT NULL DEFAULT now(),
  first_at     timestamptz,                            -- of the first attempt
  last_at      timestamptz,
  delivered_at timestamptz                             -- null: it is pending
);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (endpoint_id, customer_id, id) WHERE delivered_at IS NULL;
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (endpoint_id, id);
CREATE INDEX webhook_deliveries_delivered ON webhook_deliveries (delivered_at) WHERE delivered_at IS NOT NULL;

-- One row per endpoint and customer with pending deliveries: when the oldest of them is tried next. A worker that tries it holds the lease
-- until then; when it dies, another one takes its place.
CREATE TABLE webhook_queues (
  endpoint_id  uuid NOT NULL REFERENCES webhook_endpoints,
  customer_id  uuid NOT NULL,
  next_at      timestamptz NOT NULL DEFAULT now(),     -- infinity: the endpoint is disabled
  lease        uuid,
  PRIMARY KEY (endpoint_id, customer_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX webhook_queues_due ON webhook_queues (next_at);

GRANT SELECT, INSERT ON events TO tallystick_app;
GRANT SELECT, INSERT, UPDATE ON event_heads TO tallystick_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_endpoints, webhook_secrets, webhook_deliveries, webhook_queues TO tallystick_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO tallystick_app;

-- +goose Down
DROP TABLE webhook_queues, webhook_deliveries, webhook_secrets, webhook_endpoints, event_heads, events;
