-- +goose Up

ALTER TYPE operation_kind ADD VALUE 'hold';
ALTER TYPE operation_kind ADD VALUE 'extend_hold';
ALTER TYPE operation_kind ADD VALUE 'capture';
ALTER TYPE operation_kind ADD VALUE 'release';

-- Credits set aside for work in flight. What is held is amount - captured - released; its credits are the held ones of its lines' grants.
CREATE TABLE holds (
  id            uuid PRIMARY KEY,
  customer_id   uuid NOT NULL REFERENCES customers,
  member_id     uuid REFERENCES members,
  unit          text NOT NULL REFERENCES units,
  status        text NOT NULL CHECK (status IN ('open', 'captured', 'released', 'expired')),
  amount        bigint NOT NULL CHECK (amount >= 0),   -- ever held, extensions included
  captured      bigint NOT NULL DEFAULT 0 CHECK (captured >= 0), -- of it
  released      bigint NOT NULL DEFAULT 0 CHECK (released >= 0), -- of it
  extra         bigint NOT NULL DEFAULT 0 CHECK (extra >= 0),    -- captured beyond it
  expires_at    timestamptz NOT NULL,                  -- the deadline: the first instant at which it holds nothing
  service_at    timestamptz NOT NULL,                  -- chooses card, version and rate of captures that are priced
  rate_card_id  uuid REFERENCES rate_cards,            -- the card and version that its captures are priced at; null: those of service_at
  rate_version  integer,
  dims          jsonb,
  reason        text,
  created_at    timestamptz NOT NULL,
  CONSTRAINT hold_conserves CHECK (captured + released <= amount),
  CONSTRAINT hold_ends CHECK (status = 'open' OR captured + released = amount)
) WITH (fillfactor = 80);
CREATE INDEX holds_due ON holds (expires_at) WHERE status = 'open';
CREATE INDEX holds_by_customer ON holds (customer_id, id);

-- A hold's share of a grant, in the order in which it was taken; an extension adds lines.
CREATE TABLE hold_lines (
  hold_id       uuid NOT NULL REFERENCES holds,
  n             smallint NOT NULL,
  grant_id      uuid NOT NULL REFERENCES grants,
  amount        bigint NOT NULL CHECK (amount > 0),
  captured      bigint NOT NULL DEFAULT 0 CHECK (captured >= 0),
  released      bigint NOT NULL DEFAULT 0 CHECK (released >= 0),
  PRIMARY KEY (hold_id, n),
  CONSTRAINT hold_line_conserves CHECK (captured + released <= amount)
) WITH (fillfactor = 80);
CREATE INDEX hold_lines_by_grant ON hold_lines (grant_id, hold_id);

GRANT SELECT, INSERT, UPDATE ON holds, hold_lines TO tallystick_app;

-- +goose Down
DROP TABLE hold_lines, holds;
