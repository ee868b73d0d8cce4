-- +goose Up

-- Rate cards before they are published and after; which customer has which card when; exchange rates.

-- A draft is what a version may become. It may have faults, is replaced and deleted freely, and prices nothing.
CREATE TABLE rate_card_drafts (
  id           uuid PRIMARY KEY,
  card_id      uuid NOT NULL REFERENCES rate_cards,
  revision     integer NOT NULL DEFAULT 1 CHECK (revision > 0), -- counts the replacements: what was reviewed is what is published
  note         text NOT NULL DEFAULT '',
  document     json NOT NULL,                          -- as it was written
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  updated_by   text NOT NULL
);
CREATE INDEX rate_card_drafts_by_card ON rate_card_drafts (card_id, id);

-- A version that was published for later and taken back before. Its row and its number stay; no event is priced by it.
CREATE TABLE rate_card_withdrawals (
  card_id      uuid NOT NULL,
  version      integer NOT NULL,
  withdrawn_at timestamptz NOT NULL DEFAULT now(),
  withdrawn_by text NOT NULL,
  reason       text NOT NULL CHECK (reason <> ''),
  CONSTRAINT withdrawn_once PRIMARY KEY (card_id, version),
  FOREIGN KEY (card_id, version) REFERENCES rate_card_versions
);
CREATE TRIGGER rate_card_withdrawals_fixed BEFORE UPDATE OR DELETE ON rate_card_withdrawals FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rate_card_withdrawals_no_truncate BEFORE TRUNCATE ON rate_card_withdrawals FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The card that prices a customer's events of [valid_from, valid_to), before customers.rate_card_id and the default card. Nothing but
-- the end of a range changes. An assignment that was ended before it began has an empty range.
CREATE TABLE rate_card_assignments (
  id           uuid PRIMARY KEY,
  customer_id  uuid NOT NULL REFERENCES customers,
  card_id      uuid NOT NULL REFERENCES rate_cards,
  valid_from   timestamptz NOT NULL,
  valid_to     timestamptz,                            -- null: until further notice
  assigned_at  timestamptz NOT NULL,
  assigned_by  integer NOT NULL,                       -- api_keys.no; 0 is the system itself
  reason       text NOT NULL CHECK (reason <> ''),
  CONSTRAINT assignment_lasts CHECK (valid_to >= valid_from)
);
CREATE INDEX rate_card_assignments_by_customer ON rate_card_assignments (customer_id, id);

-- +goose StatementBegin
CREATE FUNCTION check_assignment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF tg_op = 'UPDATE' AND (new.id, new.customer_id, new.card_id, new.valid_from, new.assigned_at, new.assigned_by, new.reason)
      IS DISTINCT FROM (old.id, old.customer_id, old.card_id, old.valid_from, old.assigned_at, old.assigned_by, old.reason) THEN
    RAISE EXCEPTION 'only the end of assignment % may change', old.id
      USING ERRCODE = 'restrict_violation', CONSTRAINT = 'assignment_fixed', TABLE = 'rate_card_assignments';
  END IF;
  IF new.valid_to < new.valid_from THEN
    RETURN new; -- to be refused by assignment_lasts
  END IF;
  -- Whoever writes a customer's assignments holds this lock, so two of them see each other's. An exclusion constraint would need an extension.
  PERFORM FROM customer_heads WHERE customer_id = new.customer_id FOR UPDATE;
  IF EXISTS (SELECT FROM rate_card_assignments AS a WHERE a.customer_id = new.customer_id AND a.id <> new.id
             AND tstzrange(a.valid_from, a.valid_to) && tstzrange(new.valid_from, new.valid_to)) THEN
    RAISE EXCEPTION 'assignment % overlaps another of its customer', new.id
      USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'assignment_overlaps', TABLE = 'rate_card_assignments';
  END IF;
  RETURN new;
END $$;
-- +goose StatementEnd
CREATE TRIGGER assignment_rules BEFORE INSERT OR UPDATE ON rate_card_assignments FOR EACH ROW EXECUTE FUNCTION check_assignment();
CREATE TRIGGER assignments_stay BEFORE DELETE ON rate_card_assignments FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER assignments_no_truncate BEFORE TRUNCATE ON rate_card_assignments FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A version number says little without its card. What was locked before this column was of the card that the customer has now; null: still so.
ALTER TABLE grants ADD COLUMN rate_card_id uuid REFERENCES rate_cards;
UPDATE grants AS g SET rate_card_id = coalesce(c.rate_card_id, (SELECT d.id FROM rate_cards AS d WHERE d.is_default))
FROM customers AS c WHERE c.id = g.customer_id AND g.rate_policy = 'locked';
ALTER TABLE grants ADD CONSTRAINT grant_card_lock CHECK (rate_card_id IS NULL OR rate_policy = 'locked');

-- What one unit of a currency was worth in another on a day. A correction is a further version: what was computed stays, what comes is
-- computed anew.
CREATE TABLE fx_rates (
  no            bigint NOT NULL GENERATED ALWAYS AS IDENTITY CONSTRAINT fx_rate_no UNIQUE, -- the order of entry
  source        text NOT NULL CHECK (source ~ '^[a-z][a-z0-9_-]{0,31}$'),
  from_currency text NOT NULL CHECK (from_currency ~ '^[A-Z]{3}$'),
  to_currency   text NOT NULL CHECK (to_currency ~ '^[A-Z]{3}$'),
  on_date       date NOT NULL,
  version       integer NOT NULL CHECK (version > 0),
  rate          numeric(24,12) NOT NULL CHECK (rate > 0),
  imported_at   timestamptz NOT NULL DEFAULT now(),
  imported_by   text NOT NULL,
  CONSTRAINT fx_rate_once PRIMARY KEY (source, from_currency, to_currency, on_date, version),
  CONSTRAINT fx_rate_of_two CHECK (from_currency <> to_currency)
);
CREATE INDEX fx_rates_by_date ON fx_rates (on_date, no);
CREATE TRIGGER fx_rates_append_only BEFORE UPDATE OR DELETE ON fx_rates FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER fx_rates_no_truncate BEFORE TRUNCATE ON fx_rates FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT, UPDATE, DELETE ON rate_card_drafts TO tallystick_app;
GRANT SELECT, INSERT ON rate_card_withdrawals, fx_rates TO tallystick_app;
GRANT SELECT, INSERT, UPDATE ON rate_card_assignments TO tallystick_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO tallystick_app;

-- +goose Down
ALTER TABLE grants DROP COLUMN rate_card_id;
DROP TABLE fx_rates, rate_card_assignments, rate_card_withdrawals, rate_card_drafts;
DROP FUNCTION check_assignment;
