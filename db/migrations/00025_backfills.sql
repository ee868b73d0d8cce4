-- +goose Up

-- Backfills: usage events that are staged, looked at as a whole, and then consumed or dropped as a whole. Nothing here is part of the books: what is consumed
-- is an operation like any other, whose request_id is the backfill's id.

CREATE TABLE backfills (
  id            uuid PRIMARY KEY,
  name          text NOT NULL CHECK (name <> ''),
  reason        text NOT NULL CHECK (reason <> ''),
  status        text NOT NULL DEFAULT 'staging'
    CHECK (status IN ('staging', 'previewing', 'previewed', 'applying', 'applied', 'withdrawing', 'withdrawn')),
  events        integer NOT NULL DEFAULT 0 CONSTRAINT backfill_size CHECK (events BETWEEN 0 AND 1000000),
  last_n        integer NOT NULL DEFAULT 0,            -- of its events; some numbers are not given
  previews      integer NOT NULL DEFAULT 0,            -- that were asked for
  preview_hash  text CHECK (preview_hash ~ '^[0-9a-f]{64}$'),
  previewed_at  timestamptz,
  allow_partial boolean NOT NULL DEFAULT false,
  fault         text NOT NULL DEFAULT '',              -- why the application was taken back
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  created_by    integer NOT NULL,                      -- api_keys.no, as below
  applied_at    timestamptz,
  applied_by    integer,
  withdrawn_at  timestamptz,
  withdrawn_by  integer,
  withdrawal    text,                                  -- its reason
  CONSTRAINT backfill_preview CHECK ((preview_hash IS NULL) = (previewed_at IS NULL)),
  CONSTRAINT backfill_applied CHECK (status NOT IN ('applying', 'applied') OR preview_hash IS NOT NULL AND applied_by IS NOT NULL),
  CONSTRAINT backfill_withdrawn CHECK (status NOT IN ('withdrawing', 'withdrawn') OR withdrawn_by IS NOT NULL AND withdrawal <> '')
);

-- preview says what would become of an event, result what has.
CREATE TABLE backfill_events (
  backfill_id   uuid NOT NULL REFERENCES backfills,
  n             integer NOT NULL,                      -- in the order in which they were staged
  digest        uuid NOT NULL,                         -- of the idempotency key
  request       uuid NOT NULL,                         -- digest of what the event says
  source        text NOT NULL,
  event_id      text NOT NULL,
  key           text NOT NULL,                         -- as operations have it
  customer      text NOT NULL,                         -- as the event names it
  customer_id   uuid,                                  -- null: nobody had that name
  service_at    timestamptz NOT NULL,
  body          text NOT NULL,                         -- the consumption
  preview       text CHECK (preview IN ('chargeable', 'duplicate', 'refused')),
  result        text CHECK (result IN ('consumed', 'duplicate', 'refused', 'withdrawn', 'kept')),
  code          text,                                  -- why it is refused, or why what it consumed could not be taken back
  detail        text,
  unit          text,
  amount        bigint,                                -- credits: by the preview, and then as consumed
  model         text,                                  -- the dimension
  ver           bigint,                                -- the operation that has consumed it
  PRIMARY KEY (backfill_id, n),
  CONSTRAINT backfill_event_once UNIQUE (backfill_id, digest),
  CONSTRAINT backfill_event_done CHECK (result IS NULL OR result = 'refused' OR ver IS NOT NULL)
);
CREATE INDEX backfill_events_order ON backfill_events (backfill_id, customer_id, service_at, n);

-- What wallets would have before and after, by the preview.
CREATE TABLE backfill_wallets (
  backfill_id   uuid NOT NULL REFERENCES backfills,
  wallet_id     uuid NOT NULL,
  customer_id   uuid NOT NULL,
  unit          text NOT NULL,
  before        bigint NOT NULL,
  after         bigint NOT NULL,
  PRIMARY KEY (backfill_id, wallet_id)
);

GRANT SELECT, INSERT, UPDATE ON backfills, backfill_events TO tallystick_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON backfill_wallets TO tallystick_app;

-- +goose Down
DROP TABLE backfill_wallets, backfill_events, backfills;
