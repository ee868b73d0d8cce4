-- +goose Up

-- Quarantine keeps usage events as a whole, also those whose customer nobody knows yet. named is the customer as the event names it; customer_id is
-- null until a customer of that name is there. An event is put in without its customer's lock: its key, which is inserted with it, is the fence.
ALTER TABLE quarantined_usage
  ALTER COLUMN customer_id DROP NOT NULL,
  ADD COLUMN named text CHECK (named <> ''),
  ADD CONSTRAINT quarantine_customer CHECK (customer_id IS NOT NULL OR named IS NOT NULL AND state <> 'charged');

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION check_quarantined() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF old.state <> 'pending' OR old.customer_id IS NOT NULL AND new.customer_id IS DISTINCT FROM old.customer_id
      OR (new.id, new.named, new.digest, new.key, new.actor, new.request_id, new.body, new.service_at, new.at)
      IS DISTINCT FROM (old.id, old.named, old.digest, old.key, old.actor, old.request_id, old.body, old.service_at, old.at) THEN
    RAISE EXCEPTION 'quarantined usage % was % and stays as it came', old.id, old.state
      USING ERRCODE = 'restrict_violation', CONSTRAINT = 'quarantine_fixed', TABLE = 'quarantined_usage';
  END IF;
  RETURN new;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION check_quarantined() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF old.state <> 'pending' OR (new.id, new.customer_id, new.digest, new.key, new.actor, new.request_id, new.body, new.service_at, new.at)
      IS DISTINCT FROM (old.id, old.customer_id, old.digest, old.key, old.actor, old.request_id, old.body, old.service_at, old.at) THEN
    RAISE EXCEPTION 'quarantined usage % was % and stays as it came', old.id, old.state
      USING ERRCODE = 'restrict_violation', CONSTRAINT = 'quarantine_fixed', TABLE = 'quarantined_usage';
  END IF;
  RETURN new;
END $$;
-- +goose StatementEnd
ALTER TABLE quarantined_usage DROP CONSTRAINT quarantine_customer, DROP COLUMN named, ALTER COLUMN customer_id SET NOT NULL;
