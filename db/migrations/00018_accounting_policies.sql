-- +goose Up

-- What a legal entity's controller decides, in versions that are prepared by one and approved by another, and never changed. Without any row the
-- defaults hold: breakage at expiry, tax at purchase, nothing for unclaimed property.
CREATE TABLE accounting_policies (
  id           uuid PRIMARY KEY,
  entity       text NOT NULL REFERENCES legal_entities,
  version      integer NOT NULL CHECK (version > 0),   -- of the entity's policies, in order of preparation
  unit         text REFERENCES units,                  -- null: every kind of credit without a policy of its own
  first_period text NOT NULL CHECK (first_period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'), -- of those that it decides
  breakage     text NOT NULL CHECK (breakage IN ('remote', 'proportional')),
  use_tax      numeric(10,9) NOT NULL CHECK (use_tax BETWEEN 0 AND 1), -- tax that is due when credits are used, on the net amount; 0: at purchase
  escheat      numeric(10,9) NOT NULL CHECK (escheat BETWEEN 0 AND 1), -- the part of breakage that is unclaimed property
  evidence     text NOT NULL CHECK (evidence <> ''),   -- why: a reference to the memorandum
  prepared_by  integer NOT NULL,                       -- api_keys.no
  prepared_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT policy_version UNIQUE (entity, version),
  CONSTRAINT policy_preparer UNIQUE (id, prepared_by)
);
CREATE TABLE policy_approvals (
  policy_id    uuid CONSTRAINT policy_approved_once PRIMARY KEY,
  no           bigint NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE, -- of two for one period the later approved counts
  prepared_by  integer NOT NULL,
  approved_by  integer NOT NULL,
  approved_at  timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (policy_id, prepared_by) REFERENCES accounting_policies (id, prepared_by),
  CONSTRAINT policy_two_people CHECK (approved_by <> prepared_by)
);

-- How much of a portfolio's credits will be used, as far as is expected; approved in the same way.
CREATE TABLE breakage_estimates (
  id           uuid PRIMARY KEY,
  entity       text NOT NULL REFERENCES legal_entities,
  version      integer NOT NULL CHECK (version > 0),   -- of the entity's estimates, in order of preparation
  unit         text NOT NULL REFERENCES units,
  expires_in   text CHECK (expires_in ~ '^([0-9]{4}-(0[1-9]|1[0-2])|never)$'), -- null: every month of expiry without an estimate of its own
  first_period text NOT NULL CHECK (first_period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'), -- of those that it is for
  expected_use numeric(10,9) NOT NULL CHECK (expected_use > 0 AND expected_use <= 1), -- E of the proportional method, as a part of all credits
  method       text NOT NULL CHECK (method <> ''),     -- how it was found
  evidence     text NOT NULL CHECK (evidence <> ''),   -- a reference to the data
  prepared_by  integer NOT NULL,
  prepared_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT estimate_version UNIQUE (entity, version),
  CONSTRAINT estimate_preparer UNIQUE (id, prepared_by)
);
CREATE TABLE estimate_approvals (
  estimate_id  uuid CONSTRAINT estimate_approved_once PRIMARY KEY,
  no           bigint NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE,
  prepared_by  integer NOT NULL,
  approved_by  integer NOT NULL,
  approved_at  timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (estimate_id, prepared_by) REFERENCES breakage_estimates (id, prepared_by),
  CONSTRAINT estimate_two_people CHECK (approved_by <> prepared_by)
);

-- The true-up log: what each run found of a cohort and posted to 2019. Minor units of the entity's currency, as of the end of the period.
CREATE TABLE breakage_adjustments (
  entity           text NOT NULL REFERENCES legal_entities,
  unit             text NOT NULL REFERENCES units,
  expires_in       text NOT NULL,                      -- a month, or never
  period           text NOT NULL,
  policy_version   integer NOT NULL,                   -- 0: the defaults
  estimate_version integer NOT NULL,                   -- 0: none was needed
  expected_use     numeric(10,9) NOT NULL,
  price            bigint NOT NULL,
  used             bigint NOT NULL,
  expired          bigint NOT NULL,
  adjusted         bigint NOT NULL,                    -- by earlier runs: the balance of 2019
  amount           bigint NOT NULL,                    -- of this adjustment, debit 2019; 0: nothing is posted
  entry_id         uuid REFERENCES journal_entries,
  posted_at        timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT adjusted_once PRIMARY KEY (entity, unit, expires_in, period, policy_version, estimate_version),
  CONSTRAINT adjustment_posted CHECK ((amount = 0) = (entry_id IS NULL))
);

-- +goose StatementBegin
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['accounting_policies', 'policy_approvals', 'breakage_estimates', 'estimate_approvals', 'breakage_adjustments'] LOOP
    EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()', t || '_append_only', t);
    EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', t || '_no_truncate', t);
    EXECUTE format('GRANT SELECT, INSERT ON %I TO tallystick_app', t);
  END LOOP;
END $$;
-- +goose StatementEnd
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO tallystick_app;

ALTER TABLE journal_entries ADD COLUMN policy_version integer NOT NULL DEFAULT 0; -- that was in force for its period; 0: the defaults
ALTER TABLE grant_carrying ADD COLUMN use_tax numeric(10,9) NOT NULL DEFAULT 0; -- the rate of tax that is due at use, since the grant was issued; 0: none

-- Bonus credits under terms of their own that came with a purchase: a grant of their own, with a part of the price.
ALTER TABLE grants ADD COLUMN bonus_of uuid CONSTRAINT bonus_of_purchase REFERENCES grants;
ALTER TABLE refunds DROP CONSTRAINT refund_operation;
ALTER TABLE refunds ADD CONSTRAINT refund_operation UNIQUE (customer_id, ver, grant_id); -- a bonus is refunded with its purchase, in one operation

-- +goose Down
ALTER TABLE refunds DROP CONSTRAINT refund_operation;
ALTER TABLE refunds ADD CONSTRAINT refund_operation UNIQUE (customer_id, ver);
ALTER TABLE grants DROP COLUMN bonus_of;
ALTER TABLE grant_carrying DROP COLUMN use_tax;
ALTER TABLE journal_entries DROP COLUMN policy_version;
DROP TABLE breakage_adjustments, estimate_approvals, breakage_estimates, policy_approvals, accounting_policies;
