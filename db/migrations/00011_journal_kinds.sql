-- +goose Up

-- The kinds of journal entries, all that the accounting policy knows (docs/finance.md).
ALTER TABLE journal_entries DROP CONSTRAINT journal_entries_kind_check;
ALTER TABLE journal_entries ADD CONSTRAINT journal_entry_kind CHECK (kind IN (
  'purchase', 'concession', 'recognition', 'overage', 'expiry', 'refund', 'void', 'settlement', 'payment', 'reversal',
  'invoice', 'fee', 'payout', 'breakage', 'decrement', 'transfer', 'dispute', 'remeasurement', 'compute', 'bill', 'bad_debt', 'manual'));

-- +goose Down
ALTER TABLE journal_entries DROP CONSTRAINT journal_entry_kind;
ALTER TABLE journal_entries ADD CONSTRAINT journal_entries_kind_check CHECK (kind IN (
  'purchase', 'concession', 'recognition', 'overage', 'expiry', 'refund', 'void', 'settlement', 'payment', 'reversal'));
