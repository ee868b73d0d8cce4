-- +goose Up

ALTER TYPE operation_kind ADD VALUE 'correct';
ALTER TYPE operation_kind ADD VALUE 'decrement';
ALTER TYPE operation_kind ADD VALUE 'transfer';

-- What has become of a recorded consumption since: a row for each operation that was corrected.
CREATE TABLE corrected_operations (
  customer_id  uuid NOT NULL,
  ver          bigint NOT NULL,
  amount       bigint NOT NULL CHECK (amount >= 0),    -- credits that it consumed
  corrected    bigint NOT NULL,                        -- of them, given back since
  whole        boolean NOT NULL,                       -- nothing is left to correct, neither credits nor what was counted
  usage_of     bigint,                                 -- the correction that says what was used; null: the operation itself does
  raised_by    bigint,                                 -- the correction that took more; null: none did
  PRIMARY KEY (customer_id, ver),
  FOREIGN KEY (customer_id, ver) REFERENCES operations,
  CONSTRAINT corrected_within CHECK (0 <= corrected AND corrected <= amount)
);
GRANT SELECT, INSERT, UPDATE ON corrected_operations TO tallystick_app;

-- Where a grant's credits came from, when they were those of another: its class, price and carrying amount are the part that moved.
ALTER TABLE grants ADD COLUMN from_grant uuid REFERENCES grants;
ALTER TABLE grants ADD COLUMN from_ver bigint;         -- the operation of from_grant's customer that moved them
ALTER TABLE grants ADD CONSTRAINT grant_origin CHECK ((from_grant IS NULL) = (from_ver IS NULL));
CREATE INDEX grants_by_origin ON grants (from_grant) WHERE from_grant IS NOT NULL;

-- What has left one grant and is not yet booked as another's: each side of a transfer is posted by the pass of its own customer.
INSERT INTO ledger_accounts (code, name, type) VALUES (2011, 'Contract liability: credits in transfer', 'liability');

-- +goose Down
DELETE FROM ledger_accounts WHERE code = 2011;
DROP INDEX grants_by_origin;
ALTER TABLE grants DROP COLUMN from_grant, DROP COLUMN from_ver;
DROP TABLE corrected_operations;
