-- +goose Up

-- When somebody is to be told that credits run low, run fast or run out. Amounts are in steps of the unit; which of the numbers a rule has depends on its
-- kind, the others are 0. A rule without a customer is about each of them.
CREATE TABLE alert_rules (
  id           uuid PRIMARY KEY,
  name         text NOT NULL CHECK (name <> ''),
  customer_id  uuid REFERENCES customers,
  wallet_id    uuid REFERENCES wallets,                -- null: all wallets of the customer in the unit
  kind         text NOT NULL CHECK (kind ~ '^[a-z_]+$'),
  unit         text NOT NULL REFERENCES units,
  amount       bigint NOT NULL CHECK (amount >= 0),
  percent      integer NOT NULL CHECK (percent >= 0),
  within_s     bigint NOT NULL CHECK (within_s >= 0),  -- seconds
  hysteresis   integer NOT NULL CHECK (hysteresis BETWEEN 0 AND 100), -- percent of the threshold
  audience     text NOT NULL CHECK (audience IN ('customer', 'team')),
  created_at   timestamptz NOT NULL DEFAULT now(),
  ended_at     timestamptz,                            -- null: it is in force
  look_at      timestamptz NOT NULL DEFAULT now(),     -- when the customers that it may concern are looked at next
  looked       boolean NOT NULL DEFAULT false,         -- all of them were looked at since it was made or changed
  CONSTRAINT alert_rule_wallet CHECK (wallet_id IS NULL OR customer_id IS NOT NULL)
);
CREATE INDEX alert_rules_in_force ON alert_rules (id) WHERE ended_at IS NULL;

-- The alerts that are on: one row for each rule and customer, which goes when the alert does. Whoever writes one holds the customer's usage mark.
CREATE TABLE alerts (
  rule_id      uuid NOT NULL REFERENCES alert_rules,
  customer_id  uuid NOT NULL REFERENCES customers,
  since        timestamptz NOT NULL,
  document     json NOT NULL,                          -- of the event that said so
  CONSTRAINT alert_once PRIMARY KEY (rule_id, customer_id)
);
CREATE INDEX alerts_by_customer ON alerts (customer_id);

GRANT SELECT, INSERT, UPDATE ON alert_rules TO tallystick_app;
GRANT SELECT, INSERT, DELETE ON alerts TO tallystick_app;

-- +goose Down
DROP TABLE alerts, alert_rules;
