-- +goose Up

-- What a customer's usage may come to: of all of it, of a member, of a value of a dimension; in a window of time.
CREATE TABLE limits (
  id              uuid PRIMARY KEY,
  customer_id     uuid NOT NULL REFERENCES customers,
  name            text NOT NULL CHECK (name <> ''),
  unit            text NOT NULL REFERENCES units,
  amount          bigint NOT NULL CHECK (amount BETWEEN 0 AND 9007199254740991),
  soft            boolean NOT NULL DEFAULT false,       -- counts and tells, refuses nothing
  applies_to      text NOT NULL CHECK (applies_to IN ('customer', 'member', 'dimension')),
  member_id       uuid REFERENCES members,              -- of applies_to member; null: each
  dimension       text,                                 -- of applies_to dimension
  value           text,                                 -- of it; null: each
  wallet_id       uuid REFERENCES wallets,              -- only what is drawn from it; null: everything
  scope           jsonb NOT NULL DEFAULT '{}',          -- only usage that matches it
  period          text NOT NULL CHECK (period IN ('total', 'minute', 'hour', 'day', 'week', 'month', 'rolling')),
  length_seconds  integer,                              -- of a rolling window
  warn_at         smallint[] NOT NULL,                  -- percent of the amount, ascending
  created_at      timestamptz NOT NULL,
  created_ver     bigint NOT NULL,                      -- the customer's operation that made it: it counts those after it
  ended_at        timestamptz,                          -- null: in force
  ended_ver       bigint,
  CONSTRAINT limit_ends CHECK ((ended_at IS NULL) = (ended_ver IS NULL)),
  CONSTRAINT limit_member CHECK (member_id IS NULL OR applies_to = 'member'),
  CONSTRAINT limit_dimension CHECK ((dimension IS NOT NULL) = (applies_to = 'dimension') AND (value IS NULL OR dimension IS NOT NULL)),
  CONSTRAINT limit_length CHECK ((length_seconds IS NOT NULL) = (period = 'rolling') AND length_seconds > 0 AND length_seconds % 60 = 0)
);
CREATE INDEX limits_by_customer ON limits (customer_id, id);

-- What was taken in a window of a limit by one of its subjects: one row per window, never set back. A rolling window is 60 of them in a row, and
-- carried is what those before it that still counted had when the row was last written. limit_window_admits holds whatever the code does.
CREATE TABLE limit_windows (
  limit_id      uuid NOT NULL REFERENCES limits,
  subject       text NOT NULL,                          -- '' of a customer, the uuid of a member, the value of a dimension
  window_start  timestamptz NOT NULL,
  used          bigint NOT NULL CONSTRAINT limit_window_used_sign CHECK (used >= 0),
  held          bigint NOT NULL CONSTRAINT limit_window_held_sign CHECK (held >= 0),
  carried       bigint NOT NULL CONSTRAINT limit_window_carried_sign CHECK (carried >= 0),
  hard_limit    bigint,                                 -- null: the limit is soft
  told          smallint NOT NULL,                      -- the highest threshold that was told of, percent
  CONSTRAINT limit_window_once PRIMARY KEY (limit_id, subject, window_start),
  CONSTRAINT limit_window_admits CHECK (carried + used + held <= hard_limit)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX limit_windows_by_age ON limit_windows (window_start);

-- What an operation did to a window: the ledger of the windows.
CREATE TABLE limit_counts (
  limit_id      uuid NOT NULL,
  subject       text NOT NULL,
  window_start  timestamptz NOT NULL,
  customer_id   uuid NOT NULL,
  ver           bigint NOT NULL,                        -- the customer's operation
  used          bigint NOT NULL,                        -- what was added, below 0: taken away
  held          bigint NOT NULL,
  used_after    bigint NOT NULL,                        -- what the window has come to with it
  held_after    bigint NOT NULL,
  CONSTRAINT limit_count_once PRIMARY KEY (limit_id, subject, window_start, ver),
  CONSTRAINT limit_count_counts CHECK (used <> 0 OR held <> 0)
);
CREATE INDEX limit_counts_by_operation ON limit_counts (customer_id, ver);

-- Whether a customer has, or once had, limits or members that may not use everything: what has none costs no look at them.
ALTER TABLE customers ADD COLUMN gated boolean NOT NULL DEFAULT false;

-- A member that is not active uses nothing; with a scope only what matches it.
ALTER TABLE members ADD COLUMN active boolean NOT NULL DEFAULT true, ADD COLUMN scope jsonb NOT NULL DEFAULT '{}';
CREATE INDEX members_restricted ON members (customer_id) WHERE NOT active OR scope <> '{}';

-- A member's own wallet serves nobody else.
ALTER TABLE wallets ADD COLUMN member_id uuid REFERENCES members;

-- The windows from which a hold has taken; null: none.
ALTER TABLE holds ADD COLUMN gates jsonb;

GRANT SELECT, INSERT, UPDATE ON limits TO tallystick_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON limit_windows TO tallystick_app;
GRANT SELECT, INSERT, DELETE ON limit_counts TO tallystick_app;

-- +goose Down
ALTER TABLE holds DROP COLUMN gates;
ALTER TABLE wallets DROP COLUMN member_id;
DROP INDEX members_restricted;
ALTER TABLE members DROP COLUMN active, DROP COLUMN scope;
ALTER TABLE customers DROP COLUMN gated;
DROP TABLE limit_counts, limit_windows, limits;
