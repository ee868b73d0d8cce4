-- +goose Up

-- What a legal entity's accounts are called in another accounting system. A version never changes; the newest one is in force.
CREATE TABLE account_mappings (
  entity       text NOT NULL REFERENCES legal_entities,
  system       text NOT NULL CHECK (system IN ('quickbooks_online', 'quickbooks_desktop', 'netsuite', 'xero')),
  version      integer NOT NULL CHECK (version > 0),
  subsidiary   text NOT NULL DEFAULT '',               -- of NetSuite OneWorld
  accounts     jsonb NOT NULL,                         -- [{"account": 1010, "code": …, "name": …, "tax_rate": …}]
  actor        integer NOT NULL,                       -- api_keys.no
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (entity, system, version)
);
CREATE TRIGGER account_mappings_append_only BEFORE UPDATE OR DELETE ON account_mappings FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER account_mappings_no_truncate BEFORE TRUNCATE ON account_mappings FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT, INSERT ON account_mappings TO tallystick_app;

-- +goose Down
DROP TABLE account_mappings;
