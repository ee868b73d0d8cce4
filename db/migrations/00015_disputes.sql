-- +goose Up

ALTER TYPE operation_kind ADD VALUE 'dispute';

-- A payment that the customer's bank has taken back, or may. The payment provider's name for it is its identity: what the provider says about
-- it may come twice and in any order.
CREATE TABLE disputes (
  id            uuid PRIMARY KEY,
  reference     text NOT NULL CONSTRAINT dispute_reference UNIQUE CHECK (reference <> ''), -- the provider's
  customer_id   uuid NOT NULL REFERENCES customers,
  grant_id      uuid NOT NULL REFERENCES grants,
  status        text NOT NULL CHECK (status IN ('open', 'won', 'lost')),
  currency      text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'), -- of the grant's price
  amount_minor  bigint NOT NULL CHECK (amount_minor > 0),   -- disputed, tax included
  fee_minor     bigint NOT NULL CHECK (fee_minor >= 0),     -- what the provider takes for it
  basis_minor   bigint NOT NULL CHECK (basis_minor >= 0),   -- amount_minor in the entity's currency, at the purchase's rate
  tax_basis_minor bigint NOT NULL CHECK (tax_basis_minor >= 0), -- the tax in it, likewise
  fee_basis_minor bigint NOT NULL CHECK (fee_basis_minor >= 0),
  was_frozen    boolean NOT NULL,                      -- the grant was, before the dispute froze it
  reason        text NOT NULL CHECK (reason <> ''),
  opened_ver    bigint NOT NULL,                       -- the operation that opened it
  opened_at     timestamptz NOT NULL,
  ended_ver     bigint,                                -- the operation that ended it; null: it is open
  ended_at      timestamptz,
  CONSTRAINT dispute_ends CHECK ((status = 'open') = (ended_ver IS NULL) AND (ended_ver IS NULL) = (ended_at IS NULL))
);
CREATE UNIQUE INDEX disputes_one_at_a_time ON disputes (grant_id) WHERE status <> 'won';
CREATE INDEX disputes_by_grant ON disputes (grant_id, id);
CREATE INDEX disputes_by_customer ON disputes (customer_id, id);
GRANT SELECT, INSERT, UPDATE ON disputes TO tallystick_app;

-- +goose Down
DROP TABLE disputes;
