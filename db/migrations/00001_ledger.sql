-- +goose Up

-- The whole of Tallystick's state in Postgres. Amounts of credits are whole steps of their unit's scale, amounts of
-- money whole minor units of their currency. Ledger rows are inserted and never changed: triggers refuse it to everybody,
-- and the runtime role has no right to try.

-- +goose StatementBegin
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tallystick_app') THEN
    CREATE ROLE tallystick_app NOLOGIN;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another database of the same server made it just now
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% on % is refused: its rows are never changed, only added to', tg_op, tg_table_name
    USING ERRCODE = 'restrict_violation', CONSTRAINT = 'append_only', TABLE = tg_table_name;
END $$;
-- +goose StatementEnd

------------------------------------------------------------------------------------------------------------------------
-- Reference data

-- A legal entity keeps its own books in its own currency and calendar.
CREATE TABLE legal_entities (
  code        text PRIMARY KEY CHECK (code ~ '^[a-z][a-z0-9_-]{0,31}$'),
  name        text NOT NULL CHECK (name <> ''),
  currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  time_zone   text NOT NULL DEFAULT 'UTC',            -- IANA name; where a day and a period begin
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- A kind of credit. The scale is how many decimal places one credit has; it is fixed when the unit is made.
CREATE TABLE units (
  code        text PRIMARY KEY CHECK (code ~ '^[A-Z][A-Z0-9_]{0,15}$'),
  scale       smallint NOT NULL CHECK (scale BETWEEN 0 AND 6),
  name        text NOT NULL CHECK (name <> ''),
  created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER units_fixed BEFORE UPDATE OR DELETE ON units FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Bumped by every change of rate cards, so that a batch notices that the cards in its process's memory are old.
CREATE TABLE configuration (
  only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  ver         bigint NOT NULL
);
INSERT INTO configuration (ver) VALUES (1);

CREATE TABLE rate_cards (
  id          uuid PRIMARY KEY,
  code        text NOT NULL CONSTRAINT rate_card_code UNIQUE CHECK (code ~ '^[a-z][a-z0-9_-]{0,63}$'),
  unit        text NOT NULL REFERENCES units,
  is_default  boolean NOT NULL DEFAULT false,
  created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX rate_cards_one_default ON rate_cards (is_default) WHERE is_default;

-- A published version never changes; the time of the event chooses the version: the latest with effective_at <= service_at.
CREATE TABLE rate_card_versions (
  card_id      uuid NOT NULL REFERENCES rate_cards,
  version      integer NOT NULL CHECK (version > 0),
  effective_at timestamptz NOT NULL,
  document     jsonb NOT NULL,
  published_at timestamptz NOT NULL DEFAULT now(),
  published_by text NOT NULL,
  PRIMARY KEY (card_id, version)
);
CREATE TRIGGER rate_card_versions_fixed BEFORE UPDATE OR DELETE ON rate_card_versions FOR EACH ROW EXECUTE FUNCTION refuse_change();

------------------------------------------------------------------------------------------------------------------------
-- Who

CREATE TABLE customers (
  id           uuid PRIMARY KEY,
  entity       text NOT NULL REFERENCES legal_entities,
  external_id  text CONSTRAINT customer_external_id UNIQUE CHECK (external_id <> '' AND length(external_id) <= 255),
  name         text NOT NULL,
  rate_card_id uuid REFERENCES rate_cards,            -- null: the default card
  metadata     jsonb NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL DEFAULT now()
);

-- The lock row: every writer of a customer's credits takes it FOR UPDATE first. ver counts the customer's operations
-- without gaps; last_at is the time of the newest one, so that time never runs backwards in a customer's history.
CREATE TABLE customer_heads (
  customer_id  uuid PRIMARY KEY REFERENCES customers,
  ver          bigint NOT NULL DEFAULT 0 CHECK (ver >= 0),
  last_at      timestamptz NOT NULL DEFAULT '-infinity',
  frozen       boolean NOT NULL DEFAULT false         -- set by the auditor when books and balances differ: nothing moves until a person looked
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE members (
  id           uuid PRIMARY KEY,
  customer_id  uuid NOT NULL REFERENCES customers,
  external_id  text CHECK (external_id <> '' AND length(external_id) <= 255),
  name         text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT member_external_id UNIQUE (customer_id, external_id)
);

CREATE TABLE wallets (
  id            uuid PRIMARY KEY,
  customer_id   uuid NOT NULL REFERENCES customers,
  unit          text NOT NULL REFERENCES units,
  name          text NOT NULL CHECK (name <> ''),
  priority      integer NOT NULL DEFAULT 100,          -- lower is drawn first
  scope         jsonb NOT NULL DEFAULT '{}',           -- dimension -> values; {} is general
  cap           text NOT NULL DEFAULT 'hard' CHECK (cap IN ('hard', 'soft')),
  created_at    timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT wallet_name UNIQUE (customer_id, name)
);

------------------------------------------------------------------------------------------------------------------------
-- The unit book

CREATE TYPE unit_account AS ENUM ('issued', 'available', 'held', 'consumed', 'expired', 'refunded', 'voided', 'transferred');
CREATE TYPE operation_kind AS ENUM ('configure', 'create', 'issue', 'consume', 'expire', 'refund', 'void', 'extend', 'freeze', 'unfreeze');

-- A grant and its counters. The counters are the after-image of its movements; grant_conserves and the signs hold whatever
-- the code does.
CREATE TABLE grants (
  id             uuid PRIMARY KEY,
  customer_id    uuid NOT NULL REFERENCES customers,
  wallet_id      uuid NOT NULL REFERENCES wallets,
  type           text NOT NULL CHECK (type IN ('purchased', 'granted', 'promotional', 'concession', 'overage')),
  status         text NOT NULL CHECK (status IN ('pending', 'open', 'depleted', 'expired', 'refunded', 'voided')),
  frozen         boolean NOT NULL DEFAULT false,
  priority       integer NOT NULL DEFAULT 100,         -- lower is drawn first
  scope          jsonb NOT NULL DEFAULT '{}',
  member_id      uuid REFERENCES members,              -- null: every member
  effective_at   timestamptz NOT NULL,
  expires_at     timestamptz,                          -- null: never; the first instant at which it no longer serves
  price_minor    bigint NOT NULL DEFAULT 0 CHECK (price_minor >= 0),  -- paid net of tax, in price_currency
  tax_minor      bigint NOT NULL DEFAULT 0 CHECK (tax_minor >= 0),
  price_currency text CHECK (price_currency ~ '^[A-Z]{3}$'),
  fx_rate        numeric(24,12) CHECK (fx_rate > 0),   -- entity currency per one price_currency; null when they are the same
  basis_minor    bigint NOT NULL DEFAULT 0 CHECK (basis_minor >= 0),  -- price in the entity's currency: P of the cumulative rule
  tax_basis_minor bigint NOT NULL DEFAULT 0 CHECK (tax_basis_minor >= 0), -- tax in the entity's currency
  payment_ref    text,
  rate_policy    text NOT NULL DEFAULT 'floating' CHECK (rate_policy IN ('floating', 'locked')),
  rate_version   integer,                              -- of the customer's card, when locked
  metadata       jsonb NOT NULL DEFAULT '{}',
  created_at     timestamptz NOT NULL,
  issued_at      timestamptz,                          -- null while payment is pending
  amount         bigint NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991), -- what was asked for: N
  granted        bigint NOT NULL DEFAULT 0,            -- what has been issued: 0 while pending, then amount
  avail          bigint NOT NULL DEFAULT 0 CONSTRAINT grant_avail_sign CHECK (avail >= 0),
  held           bigint NOT NULL DEFAULT 0 CONSTRAINT grant_held_sign CHECK (held >= 0),
  consumed       bigint NOT NULL DEFAULT 0 CONSTRAINT grant_consumed_sign CHECK (consumed >= 0),
  expired        bigint NOT NULL DEFAULT 0 CONSTRAINT grant_expired_sign CHECK (expired >= 0),
  refunded       bigint NOT NULL DEFAULT 0 CONSTRAINT grant_refunded_sign CHECK (refunded >= 0),
  voided         bigint NOT NULL DEFAULT 0 CONSTRAINT grant_voided_sign CHECK (voided >= 0),
  transferred    bigint NOT NULL DEFAULT 0 CONSTRAINT grant_transferred_sign CHECK (transferred >= 0),
  CONSTRAINT grant_conserves CHECK (granted = avail + held + consumed + expired + refunded + voided + transferred),
  CONSTRAINT grant_issues_whole CHECK (granted IN (0, amount)),
  CONSTRAINT grant_lives CHECK (expires_at > effective_at),
  CONSTRAINT grant_lock CHECK ((rate_policy = 'locked') = (rate_version IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
-- None of these names a counter: an update of counters stays on its page (HOT).
CREATE INDEX grants_open ON grants (customer_id) WHERE status = 'open';
CREATE INDEX grants_due ON grants (expires_at) WHERE status = 'open' AND NOT frozen;
CREATE INDEX grants_live ON grants (id) WHERE status IN ('pending', 'open');
CREATE INDEX grants_by_wallet ON grants (wallet_id, id);
CREATE INDEX grants_by_customer ON grants (customer_id, id);

-- One row per committed change of a customer: what was done, by whom, and the receipt that was answered.
CREATE TABLE operations (
  customer_id  uuid NOT NULL,
  ver          bigint NOT NULL,
  kind         operation_kind NOT NULL,
  amount       bigint NOT NULL CHECK (amount >= 0),    -- credits moved, in steps of the unit
  at           timestamptz NOT NULL,                   -- the instant at which it was judged; never earlier than the one before
  service_at   timestamptz NOT NULL,                   -- when the service was given
  actor        integer NOT NULL,                       -- api_keys.no; 0 is the system itself
  request_id   uuid NOT NULL,
  member_id    uuid,
  key          text NOT NULL,                          -- the idempotency key, kept for ever
  unit         text,                                   -- null: no credits moved
  dims         jsonb,                                  -- dimensions of a consumption; null when none
  receipt      json NOT NULL,                          -- the answer, byte for byte
  CONSTRAINT operation_order PRIMARY KEY (customer_id, ver)
);
CREATE INDEX operations_at ON operations USING brin (at) WITH (pages_per_range = 32, autosummarize = on);
-- What happened to a grant or a wallet without a movement of credits. Consumption is not in it, and so pays nothing for it.
CREATE INDEX operations_about ON operations ((receipt ->> 'id'), ver) WHERE kind IN ('configure', 'create', 'void', 'extend', 'freeze', 'unfreeze');

-- One row per movement of credits of one grant: from the debited to the credited account. Balanced by construction.
-- "after" is what the grant has available once this movement is done.
CREATE TABLE movements (
  grant_id     uuid NOT NULL,
  ver          bigint NOT NULL,                        -- of the grant's customer
  n            smallint NOT NULL,
  debit        unit_account NOT NULL,
  credit       unit_account NOT NULL,
  amount       bigint NOT NULL CONSTRAINT movement_sign CHECK (amount > 0),
  after        bigint NOT NULL CONSTRAINT movement_after_sign CHECK (after >= 0),
  CONSTRAINT movement_order PRIMARY KEY (grant_id, ver, n),
  CONSTRAINT movement_moves CHECK (debit <> credit)
);

CREATE TRIGGER operations_append_only BEFORE UPDATE OR DELETE ON operations FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER operations_no_truncate BEFORE TRUNCATE ON operations FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER movements_append_only BEFORE UPDATE OR DELETE ON movements FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER movements_no_truncate BEFORE TRUNCATE ON movements FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- digest and request are the first 16 bytes of SHA-256 of the key and of the canonical request.
CREATE TABLE idempotency_keys (
  digest       uuid NOT NULL CONSTRAINT key_once PRIMARY KEY,
  request      uuid NOT NULL,
  customer_id  uuid,
  ver          bigint,                                 -- the operation whose receipt is the answer; null: the answer is in response
  status       smallint NOT NULL,                      -- of the HTTP answer
  response     text,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT key_has_answer CHECK ((ver IS NULL) = (response IS NOT NULL))
);
CREATE INDEX idempotency_keys_age ON idempotency_keys USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX idempotency_denials ON idempotency_keys (created_at) WHERE ver IS NULL AND status >= 400; -- few: they are kept for a day

-- What a committed change asks of the outside: each topic is read in id order, a row is deleted when it is done.
CREATE TABLE outbox (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic        text NOT NULL,
  subject      text NOT NULL,
  payload      jsonb NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL DEFAULT now(),
  attempts     integer NOT NULL DEFAULT 0,
  retry_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_by_topic ON outbox (topic, id);

-- What a customer or the team should know: one row per thing, however often the cause is run.
CREATE TABLE notifications (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  cause        text NOT NULL CONSTRAINT notification_once UNIQUE,
  type         text NOT NULL,
  customer_id  uuid REFERENCES customers,
  subject      text NOT NULL,
  data         jsonb NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX notifications_by_customer ON notifications (customer_id, id);

CREATE TABLE refunds (
  id             uuid PRIMARY KEY,
  customer_id    uuid NOT NULL REFERENCES customers,
  grant_id       uuid NOT NULL REFERENCES grants,
  ver            bigint NOT NULL,                      -- the operation that took the credits
  units          bigint NOT NULL CHECK (units > 0),
  money_minor    bigint NOT NULL CHECK (money_minor >= 0), -- to pay back net of tax, in currency
  tax_minor      bigint NOT NULL CHECK (tax_minor >= 0),
  currency       text CHECK (currency ~ '^[A-Z]{3}$'),
  basis_minor    bigint NOT NULL CHECK (basis_minor >= 0),         -- money_minor and tax_minor in the entity's currency, at the rate
  tax_basis_minor bigint NOT NULL CHECK (tax_basis_minor >= 0),    -- of the refund
  reason         text NOT NULL CHECK (reason <> ''),
  status         text NOT NULL DEFAULT 'awaiting_settlement' CHECK (status IN ('awaiting_settlement', 'settled', 'nothing_to_pay')),
  settlement_method text,
  settlement_ref text,
  settled_at     timestamptz,
  created_at     timestamptz NOT NULL,
  CONSTRAINT refund_operation UNIQUE (customer_id, ver)
);
CREATE INDEX refunds_by_grant ON refunds (grant_id, id);

------------------------------------------------------------------------------------------------------------------------
-- The money book

CREATE TABLE periods (
  entity       text NOT NULL REFERENCES legal_entities,
  period       text NOT NULL CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
  status       text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'soft_closed', 'in_review', 'closed', 'reopened')),
  version      integer NOT NULL DEFAULT 1,
  changed_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (entity, period)
);

CREATE TABLE ledger_accounts (
  code         integer PRIMARY KEY,
  name         text NOT NULL,
  type         text NOT NULL CHECK (type IN ('asset', 'liability', 'equity', 'revenue', 'expense'))
);
INSERT INTO ledger_accounts (code, name, type) VALUES
  (1010, 'Cash', 'asset'), (1020, 'Processor clearing', 'asset'), (1110, 'Trade receivable', 'asset'),
  (1120, 'Unbilled receivable', 'asset'), (1130, 'Disputed funds', 'asset'),
  (2010, 'Contract liability: prepaid credits', 'liability'), (2019, 'Contract liability: breakage adjustment', 'liability'),
  (2020, 'Refund liability', 'liability'), (2030, 'Sales tax payable', 'liability'), (2040, 'Unclaimed property', 'liability'),
  (2050, 'Customer cash balance', 'liability'), (2060, 'Accrued compute cost', 'liability'),
  (3010, 'Retained earnings', 'equity'),
  (4010, 'Usage revenue', 'revenue'), (4020, 'Breakage revenue', 'revenue'), (4030, 'Overage revenue', 'revenue'),
  (4090, 'Contra revenue: refunds', 'revenue'), (4091, 'Contra revenue: disputes', 'revenue'), (4095, 'Contra revenue: price concessions', 'revenue'),
  (5010, 'Cost of revenue: compute', 'expense'), (5020, 'Processing fees', 'expense'), (6010, 'Promotional compute', 'expense'),
  (6020, 'Bad debt', 'expense'), (6030, 'Dispute fees', 'expense'), (7010, 'FX realised', 'expense'), (7020, 'FX unrealised', 'expense');

-- A journal entry has one cause and is posted once for it.
CREATE TABLE journal_entries (
  id              uuid PRIMARY KEY,
  no              bigint NOT NULL GENERATED ALWAYS AS IDENTITY CONSTRAINT entry_no UNIQUE, -- the order of posting; a rollback leaves a gap
  cause           text NOT NULL CONSTRAINT entry_once UNIQUE,
  entity          text NOT NULL,
  period          text NOT NULL,                       -- where it is booked
  service_on      date NOT NULL,                       -- when it happened, a day of the entity's calendar
  posted_at       timestamptz NOT NULL DEFAULT now(),
  kind            text NOT NULL CHECK (kind IN ('purchase', 'concession', 'recognition', 'overage', 'expiry', 'refund', 'void', 'settlement', 'payment', 'reversal')),
  customer_id     uuid REFERENCES customers,
  grant_id        uuid REFERENCES grants,
  ver_from        bigint,                              -- the customer's operations that it covers, both inclusive; null: none
  ver_to          bigint,
  late            boolean NOT NULL DEFAULT false,      -- its own period was closed when it was posted
  reverses        uuid REFERENCES journal_entries,
  FOREIGN KEY (entity, period) REFERENCES periods
);
CREATE INDEX journal_entries_by_period ON journal_entries (entity, period, no);
CREATE INDEX journal_entries_by_customer ON journal_entries (customer_id, no);
CREATE INDEX journal_entries_by_grant ON journal_entries (grant_id, no);

CREATE TABLE postings (
  entry_id     uuid NOT NULL REFERENCES journal_entries,
  n            integer NOT NULL,
  account      integer NOT NULL REFERENCES ledger_accounts,
  side         text NOT NULL CHECK (side IN ('dr', 'cr')),
  amount_minor bigint NOT NULL CONSTRAINT posting_sign CHECK (amount_minor > 0), -- in the entity's currency
  currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  source_minor bigint CHECK (source_minor > 0),        -- in source_currency, when the fact was in another currency
  source_currency text CHECK (source_currency ~ '^[A-Z]{3}$'),
  units        bigint,                                 -- credits behind it, in steps; null: none
  product      text,
  model        text,
  PRIMARY KEY (entry_id, n),
  CONSTRAINT posting_source CHECK ((source_minor IS NULL) = (source_currency IS NULL))
);

-- +goose StatementBegin
CREATE FUNCTION check_entry_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM postings WHERE entry_id = new.entry_id
             GROUP BY currency HAVING sum(CASE side WHEN 'dr' THEN amount_minor ELSE -amount_minor END) <> 0) THEN
    RAISE EXCEPTION 'journal entry % does not balance', new.entry_id
      USING ERRCODE = 'check_violation', CONSTRAINT = 'entry_balances', TABLE = 'postings';
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION check_entry_has_postings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM postings WHERE entry_id = new.id) THEN
    RAISE EXCEPTION 'journal entry % has no postings', new.id
      USING ERRCODE = 'check_violation', CONSTRAINT = 'entry_has_postings', TABLE = 'journal_entries';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER entry_balances AFTER INSERT ON postings DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION check_entry_balances();
CREATE CONSTRAINT TRIGGER entry_has_postings AFTER INSERT ON journal_entries DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION check_entry_has_postings();
CREATE TRIGGER journal_entries_append_only BEFORE UPDATE OR DELETE ON journal_entries FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER journal_entries_no_truncate BEFORE TRUNCATE ON journal_entries FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER postings_append_only BEFORE UPDATE OR DELETE ON postings FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER postings_no_truncate BEFORE TRUNCATE ON postings FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- How far a customer's operations have been turned into journal entries.
CREATE TABLE recognition_marks (
  customer_id  uuid PRIMARY KEY REFERENCES customers,
  ver          bigint NOT NULL CHECK (ver >= 0),
  updated_at   timestamptz NOT NULL DEFAULT now()
);

-- The sub-ledger of account 2010 (1120 for overage): what has left each grant so far, in units and in money.
CREATE TABLE grant_carrying (
  grant_id     uuid PRIMARY KEY REFERENCES grants,
  disposed     bigint NOT NULL CHECK (disposed >= 0),
  posted_out   bigint NOT NULL CHECK (posted_out >= 0)
);

------------------------------------------------------------------------------------------------------------------------
-- Access

CREATE TABLE api_keys (
  no           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  digest       bytea NOT NULL CONSTRAINT api_key_digest UNIQUE, -- SHA-256 of the key; the key itself is shown once and never stored
  hint         text NOT NULL,                          -- its last four characters
  name         text NOT NULL,
  role         text NOT NULL CHECK (role IN ('product', 'support', 'finance', 'ops', 'admin')),
  created_at   timestamptz NOT NULL DEFAULT now(),
  revoked_at   timestamptz
);

-- Who did what, for calls that are not operations of a customer (those carry actor and request_id themselves).
CREATE TABLE audit_log (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at           timestamptz NOT NULL DEFAULT now(),
  actor        integer NOT NULL,
  request_id   uuid NOT NULL,
  action       text NOT NULL,
  subject      text NOT NULL,
  detail       jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_at ON audit_log (at, id);
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT USAGE ON SCHEMA public TO tallystick_app;
GRANT SELECT, INSERT ON operations, movements, journal_entries, postings, audit_log, units, rate_card_versions, legal_entities, notifications TO tallystick_app;
GRANT SELECT ON ledger_accounts TO tallystick_app;
GRANT SELECT, INSERT, UPDATE ON configuration, rate_cards, customers, customer_heads, members, wallets, grants, refunds,
  periods, recognition_marks, grant_carrying, api_keys TO tallystick_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox, idempotency_keys TO tallystick_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO tallystick_app;

-- +goose Down
DROP TABLE audit_log, api_keys, grant_carrying, recognition_marks, postings, journal_entries, ledger_accounts, periods, refunds,
  notifications, outbox, idempotency_keys, movements, operations, grants, wallets, members, customer_heads, customers,
  rate_card_versions, rate_cards, configuration, units, legal_entities;
DROP FUNCTION check_entry_balances, check_entry_has_postings, refuse_change;
DROP TYPE unit_account, operation_kind;
