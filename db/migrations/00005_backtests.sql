-- +goose Up

-- Back-tests: what a rate card would have charged for what was recorded. Nothing else reads what they come to, and the worker removes it after
-- a time.

CREATE TABLE backtests (
  id           uuid PRIMARY KEY,
  card_id      uuid REFERENCES rate_cards,             -- null: every card as it was published
  tested       text NOT NULL CHECK (tested <> ''),     -- what takes the place of the card's version, in words
  document     json,                                   -- it
  effective_at timestamptz,                            -- from when on it does
  from_at      timestamptz NOT NULL,                   -- the period: operations of [from_at, until_at), by when they were decided
  until_at     timestamptz NOT NULL,
  customers    uuid[],                                 -- null: all
  status       text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'done', 'cancelled', 'failed')),
  fault        text NOT NULL DEFAULT '',               -- why it failed
  total        integer,                                -- customers to look at; null: not counted yet
  seen         integer NOT NULL DEFAULT 0,             -- of them, looked at; some of them had nothing in the period
  created_at   timestamptz NOT NULL DEFAULT now(),
  created_by   text NOT NULL,
  started_at   timestamptz,
  ended_at     timestamptz,
  CONSTRAINT backtest_lasts CHECK (until_at > from_at),
  CONSTRAINT backtest_trial CHECK ((card_id IS NULL) = (document IS NULL) AND (card_id IS NULL) = (effective_at IS NULL))
);
CREATE INDEX backtests_age ON backtests (created_at);

CREATE TABLE backtest_customers (
  backtest_id   uuid NOT NULL REFERENCES backtests ON DELETE CASCADE,
  customer_id   uuid NOT NULL,
  currency      text NOT NULL,                         -- of the legal entity
  events        integer NOT NULL,
  refused       integer NOT NULL,                      -- under test, for want of credits
  refused_first timestamptz,
  unpriced      integer NOT NULL,                      -- under test, for want of a price
  why           text NOT NULL,                         -- could the first one not be priced
  fault         text NOT NULL,                         -- why the customer could not be tested at all; '' when it was
  PRIMARY KEY (backtest_id, customer_id)
);

-- One row for each unit, product and model; what expired is of no product and model. Credits in steps of the unit, money in minor units of the
-- customer's currency, compute costs in major ones.
CREATE TABLE backtest_lines (
  backtest_id      uuid NOT NULL,
  customer_id      uuid NOT NULL,
  unit             text NOT NULL,
  product          text NOT NULL,
  model            text NOT NULL,
  booked_events    integer NOT NULL,
  booked_credits   bigint NOT NULL,
  booked_revenue   bigint NOT NULL,
  booked_expired   bigint NOT NULL,
  booked_breakage  bigint NOT NULL,
  booked_costed    integer NOT NULL,
  booked_cost      numeric NOT NULL,
  tested_events    integer NOT NULL,
  tested_refused   integer NOT NULL,
  tested_unpriced  integer NOT NULL,
  tested_credits   bigint NOT NULL,
  tested_revenue   bigint NOT NULL,
  tested_expired   bigint NOT NULL,
  tested_breakage  bigint NOT NULL,
  tested_costed    integer NOT NULL,
  tested_cost      numeric NOT NULL,
  PRIMARY KEY (backtest_id, customer_id, unit, product, model),
  FOREIGN KEY (backtest_id, customer_id) REFERENCES backtest_customers ON DELETE CASCADE
);

-- What has shaped a customer without being a consumption: a back-test begins with it.
CREATE INDEX operations_shaping ON operations (customer_id, ver) WHERE kind NOT IN ('consume', 'reverse');

-- The card that a customer was made with; null: the default card. The operations say what it was changed to. Of the customers from before this
-- column it is the card that they have.
ALTER TABLE customers ADD COLUMN first_rate_card_id uuid REFERENCES rate_cards;
UPDATE customers SET first_rate_card_id = rate_card_id WHERE rate_card_id IS NOT NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON backtests, backtest_customers, backtest_lines TO tallystick_app;

-- +goose Down
ALTER TABLE customers DROP COLUMN first_rate_card_id;
DROP INDEX operations_shaping;
DROP TABLE backtest_lines, backtest_customers, backtests;
