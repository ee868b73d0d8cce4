-- +goose Up

-- What a wallet buys by itself when it runs low. Amounts are in steps of the wallet's unit, money is in minor units of the entity's currency.
CREATE TABLE top_up_rules (
  wallet_id     uuid PRIMARY KEY REFERENCES wallets,
  customer_id   uuid NOT NULL REFERENCES customers,
  threshold     bigint NOT NULL CHECK (threshold > 0),
  amount        bigint NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991),
  price_minor   bigint NOT NULL CHECK (price_minor > 0),
  tax_minor     bigint NOT NULL CHECK (tax_minor >= 0),
  currency      text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  expires_after_s bigint CHECK (expires_after_s > timeout_s), -- null: the credits never expire
  cooldown_s    bigint NOT NULL CHECK (cooldown_s >= 0),
  timeout_s     bigint NOT NULL CHECK (timeout_s > 0),
  monthly_count integer NOT NULL CHECK (monthly_count > 0),
  monthly_minor bigint CHECK (monthly_minor >= price_minor + tax_minor), -- null: without bound
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  failures      integer NOT NULL DEFAULT 0 CHECK (failures >= 0), -- one after another, since the newest success
  wait          text CHECK (wait IN ('cooldown', 'back_off', 'monthly_cap', 'resume')), -- null: it waits for nothing but the threshold
  wait_until    timestamptz,                            -- null: nothing ends it, or there is nothing to wait for
  look_at       timestamptz NOT NULL DEFAULT now(),     -- when it is judged though no operation comes
  CONSTRAINT top_up_wait CHECK ((wait_until IS NOT NULL) = (wait IS NOT NULL AND wait <> 'resume'))
);
CREATE INDEX top_up_rules_by_customer ON top_up_rules (customer_id);
CREATE INDEX top_up_rules_to_look_at ON top_up_rules (look_at);

-- What was bought by a rule, or was to be: requested -> paid -> succeeded, or failed, or expired. What it buys is written down here: the rule may change.
CREATE TABLE top_ups (
  id            uuid PRIMARY KEY,
  wallet_id     uuid NOT NULL REFERENCES wallets,
  customer_id   uuid NOT NULL REFERENCES customers,
  grant_id      uuid NOT NULL UNIQUE,                   -- derived from the id; its pending grant is made when the payment is asked for
  status        text NOT NULL DEFAULT 'requested' CHECK (status IN ('requested', 'paid', 'succeeded', 'failed', 'expired')),
  threshold     bigint NOT NULL,
  available     bigint NOT NULL,                        -- when it was begun
  amount        bigint NOT NULL CHECK (amount > 0),
  price_minor   bigint NOT NULL CHECK (price_minor > 0),
  tax_minor     bigint NOT NULL CHECK (tax_minor >= 0),
  currency      text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  grant_expires_at timestamptz,                         -- null: the credits never expire
  attempt       integer NOT NULL CHECK (attempt > 0),   -- 1, and one more for each failure before it, since the newest success
  month         text NOT NULL CHECK (month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'), -- of the cap: the entity's calendar month in which it was begun
  timeout_s     bigint NOT NULL CHECK (timeout_s > 0),
  requested_at  timestamptz NOT NULL,                   -- when it was begun
  asked_at      timestamptz,                            -- when the payment was asked for; null: not yet
  times_out_at  timestamptz,
  payment_ref   text CHECK (payment_ref <> ''),
  reason        text CHECK (reason <> ''),              -- why it failed
  retry         boolean,                                -- whether another payment may be tried; null: it did not fail
  decided_at    timestamptz,                            -- when the outcome was told, or the time was over
  ended_at      timestamptz,                            -- when its grant was issued or voided; null: there is more to do
  CONSTRAINT top_up_asked CHECK ((asked_at IS NULL) = (times_out_at IS NULL)),
  CONSTRAINT top_up_decided CHECK ((status = 'requested') = (decided_at IS NULL)),
  CONSTRAINT top_up_paid CHECK (status NOT IN ('paid', 'succeeded') OR payment_ref IS NOT NULL),
  CONSTRAINT top_up_failed CHECK ((status = 'failed') = (reason IS NOT NULL) AND (status = 'failed') = (retry IS NOT NULL)),
  CONSTRAINT top_up_ended CHECK (ended_at IS NULL OR status IN ('succeeded', 'failed', 'expired')),
  CONSTRAINT top_up_succeeded CHECK (status <> 'succeeded' OR ended_at IS NOT NULL)
);
-- Whatever happens, a wallet has one payment under way at most.
CREATE UNIQUE INDEX top_up_in_flight ON top_ups (wallet_id) WHERE status IN ('requested', 'paid');
CREATE INDEX top_ups_by_wallet ON top_ups (wallet_id, id);
CREATE INDEX top_ups_by_customer ON top_ups (customer_id, id);
CREATE INDEX top_ups_to_end ON top_ups (id) WHERE ended_at IS NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON top_up_rules TO tallystick_app;
GRANT SELECT, INSERT, UPDATE ON top_ups TO tallystick_app;

-- +goose Down
DROP TABLE top_ups, top_up_rules;
