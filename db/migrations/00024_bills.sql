-- +goose Up

-- What usage cost to serve, summed by the usage pass in the transaction that counts the operation: what compute cost is accrued and margins are made of.
-- An hour that a day of the entity's calendar ends in has a row for each day.
CREATE TABLE usage_costs (
  customer_id   uuid NOT NULL,
  day           date NOT NULL,                         -- of service, in the entity's calendar
  hour          timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
  provider      text NOT NULL,                         -- dimensions of the operation; '': not said
  product       text NOT NULL,
  model         text NOT NULL,
  currency      text NOT NULL CHECK (currency <> ''),
  cost          numeric NOT NULL,                      -- in major units of currency
  promotional   numeric NOT NULL,                      -- of it, for what promotional grants paid for, cut off after 18 places for each operation
  operations    bigint NOT NULL CHECK (operations > 0),
  PRIMARY KEY (customer_id, day, hour, provider, product, model, currency)
) WITH (fillfactor = 70);

-- Which entries accrue the compute cost of a month of service: the first one all of it, later ones what has changed since.
CREATE TABLE compute_accruals (
  entity        text NOT NULL REFERENCES legal_entities,
  period        text NOT NULL CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'), -- of service; where it is booked, the entry says
  provider      text NOT NULL,
  currency      text NOT NULL,                         -- of the cost
  n             integer NOT NULL CHECK (n > 0),
  entry_id      uuid NOT NULL CONSTRAINT accrual_entry UNIQUE REFERENCES journal_entries,
  PRIMARY KEY (entity, period, provider, currency, n)
);
CREATE TRIGGER compute_accruals_fixed BEFORE UPDATE OR DELETE ON compute_accruals FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER compute_accruals_no_truncate BEFORE TRUNCATE ON compute_accruals FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What was counted before this release.
WITH net AS (
  SELECT g.customer_id, m.ver, sum(x.amount) AS consumed, coalesce(sum(x.amount) FILTER (WHERE g.type = 'promotional'), 0) AS promotional
  FROM movements AS m
  JOIN grants AS g ON g.id = m.grant_id
  JOIN usage_marks AS k ON k.customer_id = g.customer_id AND m.ver <= k.ver
  CROSS JOIN LATERAL (SELECT CASE WHEN m.credit = 'consumed' THEN m.amount ELSE -m.amount END AS amount) AS x
  WHERE 'consumed' IN (m.debit, m.credit)
  GROUP BY g.customer_id, m.ver
), said AS (
  SELECT o.customer_id, o.ver, o.service_at, o.dims, (o.receipt #>> '{cost,amount}')::numeric AS cost, o.receipt #>> '{cost,currency}' AS currency
  FROM operations AS o
  JOIN usage_marks AS k ON k.customer_id = o.customer_id AND o.ver <= k.ver
  WHERE o.kind IN ('consume', 'capture', 'reverse') AND coalesce(o.receipt #>> '{cost,currency}', '') <> ''
)
INSERT INTO usage_costs (customer_id, day, hour, provider, product, model, currency, cost, promotional, operations)
SELECT s.customer_id, (s.service_at AT TIME ZONE l.time_zone)::date, date_trunc('hour', s.service_at, 'UTC'), coalesce(s.dims ->> 'provider', ''),
  coalesce(s.dims ->> 'product', ''), coalesce(s.dims ->> 'model', ''), s.currency, sum(s.cost),
  sum(CASE WHEN n.consumed > 0 THEN div(s.cost * least(greatest(n.promotional, 0), n.consumed) * 1000000000000000000, n.consumed) * 0.000000000000000001 ELSE 0 END),
  count(*)
FROM said AS s
JOIN customers AS c ON c.id = s.customer_id
JOIN legal_entities AS l ON l.code = c.entity
LEFT JOIN net AS n ON n.customer_id = s.customer_id AND n.ver = s.ver
GROUP BY 1, 2, 3, 4, 5, 6, 7;

GRANT SELECT, INSERT, UPDATE ON usage_costs TO tallystick_app;
GRANT SELECT, INSERT ON compute_accruals TO tallystick_app;

-- +goose Down
DROP TABLE compute_accruals, usage_costs;
