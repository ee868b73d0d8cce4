-- +goose Up

-- What was used, summed as it happens: burn rates, forecasts and reports read these rows and no events. The usage pass turns a customer's operations
-- after its mark into additions to the rows below, in one transaction with the mark, and so counts each operation once. Everything here follows from
-- operations and movements, and verify holds it against them. The zero id is nobody, '' is not said.

-- How far a customer's operations have been counted. Whoever counts holds this row.
CREATE TABLE usage_marks (
  customer_id  uuid PRIMARY KEY REFERENCES customers,
  ver          bigint NOT NULL CHECK (ver >= 0),
  updated_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- One row for each hour of service (UTC), wallet, member, product and model. What an operation is counted with besides credits stands with the
-- wallet that it drew on first, the zero wallet when it drew on none, so that every sum over rows is exact.
CREATE TABLE usage_slices (
  customer_id   uuid NOT NULL,
  hour          timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
  unit          text NOT NULL,
  wallet_id     uuid NOT NULL,
  member_id     uuid NOT NULL,
  product       text NOT NULL,
  model         text NOT NULL,
  cost_currency text NOT NULL,                         -- of what the usage cost to serve; '': that is not known
  consumed      bigint NOT NULL,                       -- in steps of the unit, less what was given back
  overage       bigint NOT NULL,                       -- of it, beyond the credits that there were
  operations    bigint NOT NULL CHECK (operations >= 0), -- consumptions and captures
  cost          numeric NOT NULL,                      -- in major units of cost_currency
  PRIMARY KEY (customer_id, hour, unit, wallet_id, member_id, product, model, cost_currency)
) WITH (fillfactor = 70);
CREATE INDEX usage_slices_by_member ON usage_slices (customer_id, member_id, hour);
CREATE INDEX usage_slices_by_model ON usage_slices (customer_id, model, hour);

-- usage_slices summed over everything but hour and wallet: what a wallet's burn costs to read does not grow with its members and models.
CREATE TABLE usage_hours (
  customer_id   uuid NOT NULL,
  hour          timestamptz NOT NULL,
  unit          text NOT NULL,
  wallet_id     uuid NOT NULL,
  consumed      bigint NOT NULL,
  overage       bigint NOT NULL,
  operations    bigint NOT NULL,
  PRIMARY KEY (customer_id, hour, unit, wallet_id)
) WITH (fillfactor = 70);

-- The quantities behind the slices, by meter, where the operations say them: tokens, images, seconds. Product and model of a line go before those of
-- its operation.
CREATE TABLE usage_quantities (
  customer_id   uuid NOT NULL,
  hour          timestamptz NOT NULL,
  member_id     uuid NOT NULL,
  product       text NOT NULL,
  model         text NOT NULL,
  meter         text NOT NULL,
  quantity      numeric NOT NULL,
  PRIMARY KEY (customer_id, hour, member_id, product, model, meter)
) WITH (fillfactor = 70);

-- How large recent usages of a model were: credit/sizing's histogram, one row for each measure: the code of a unit (credits charged, in its steps), or
-- output_tokens. An estimate, kept in the same pass, that nothing is booked by.
CREATE TABLE usage_sizes (
  model         text NOT NULL,
  measure       text NOT NULL,
  customer_id   uuid NOT NULL,
  at            timestamptz NOT NULL,                  -- that the weights are of
  buckets       smallint[] NOT NULL,
  weights       double precision[] NOT NULL,
  PRIMARY KEY (model, measure, customer_id),
  CONSTRAINT usage_sizes_pair CHECK (cardinality(buckets) = cardinality(weights))
) WITH (fillfactor = 70);

GRANT SELECT, INSERT, UPDATE ON usage_marks, usage_slices, usage_hours, usage_quantities, usage_sizes TO tallystick_app;

-- +goose Down
DROP TABLE usage_sizes, usage_quantities, usage_hours, usage_slices, usage_marks;
