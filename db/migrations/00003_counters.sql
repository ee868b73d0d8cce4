-- +goose Up

-- What rate cards count for a customer: quantities of periods, values seen, remainders of rounding. key and value have the canonical forms
-- of credit/rating. A row changes only together with an operation of its customer, under the customer's lock; ver is that operation's.
CREATE TABLE rating_counters (
  customer_id  uuid NOT NULL REFERENCES customers,
  key          text NOT NULL CHECK (key <> ''),
  value        text NOT NULL,
  ver          bigint NOT NULL,
  CONSTRAINT rating_counter_once PRIMARY KEY (customer_id, key)
) WITH (fillfactor = 70);
GRANT SELECT, INSERT, UPDATE ON rating_counters TO tallystick_app;

-- Credits that were consumed and are given back: a price below nothing, a correction.
ALTER TYPE operation_kind ADD VALUE 'reverse';

CREATE INDEX refunds_to_settle ON refunds (id) WHERE status = 'awaiting_settlement';

-- +goose Down
DROP INDEX refunds_to_settle;
DROP TABLE rating_counters;
