package verify_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/db/dbtest"
	"github.com/tallystick/tallystick/verify"
)

var ctx = context.Background()

func on(month time.Month, day int) time.Time {
	return time.Date(2026, month, day, 12, 0, 0, 0, time.UTC)
}

// books is a small business with all kinds of entries; its customer's G is a purchased grant, half used, and Refund was not paid yet.
type books struct {
	*dbtest.Book
	customer *dbtest.Customer
	g        *credit.Grant
	refund   credit.RefundID
}

func newBooks(t *testing.T) *books {
	t.Helper()
	s := dbtest.Open(t)
	b := &books{Book: dbtest.NewBook(t, s)}
	b.Entity("kk", "JPY", "Asia/Tokyo")
	usd := func(n int64) credit.Money { return credit.Money{Minor: n, Currency: "USD"} }
	c := b.Customer(dbtest.Entity)
	b.customer = c
	b.g = c.Grant(on(1, 1), credit.Grant{Amount: 1000, Price: usd(9999), Tax: 777, ExpiresAt: on(6, 1)})
	c.Use(on(1, 2), b.g, 333, credit.Dimensions{"product": "chat", "model": "large"})
	c.Use(on(1, 2), b.g, 111, credit.Dimensions{"product": "chat", "model": "small"})
	paid := c.Refund(on(1, 3), b.g, 50, decimal.Decimal{})
	b.refund = c.Refund(on(1, 4), b.g, 50, decimal.Decimal{})
	expired := c.Grant(on(1, 5), credit.Grant{Amount: 10, Price: usd(100), ExpiresAt: on(1, 6)})
	c.Expire(expired)
	c.Void(on(1, 7), c.Grant(on(1, 7), credit.Grant{Amount: 10, Price: usd(100)}))
	over := c.Grant(on(1, 8), credit.Grant{Type: credit.Overage, Amount: 1000, Price: usd(3333)})
	c.Use(on(1, 9), over, 77, nil)
	c.Pending(on(1, 9), credit.Grant{Amount: 10, Price: usd(100)})
	held := c.Grant(on(1, 10), credit.Grant{Type: credit.Promotional, Amount: 10})
	c.Do(dbtest.Operation{Kind: "consume", At: on(1, 10), Moves: []dbtest.Move{{Grant: held, Debit: "available", Credit: "held", Amount: 4}}})
	c.Do(dbtest.Operation{Kind: "consume", At: on(1, 10), Moves: []dbtest.Move{{Grant: held, Debit: "held", Credit: "consumed", Amount: 3}}})
	other := b.Customer("kk")
	yen := other.Grant(on(1, 1), credit.Grant{Amount: 7, Price: credit.Money{Minor: 100, Currency: "JPY"}})
	other.Use(on(1, 1), yen, 3, nil)
	third := b.Customer(dbtest.Entity)
	wrong := third.Grant(on(1, 1), credit.Grant{Amount: 100, Price: usd(1000)})
	third.Use(on(1, 2), wrong, 60, nil)
	third.Correct(on(1, 3), third.Ver, 60, wrong, 20, on(1, 2), nil)
	third.Transfer(on(1, 4), wrong, 30)
	third.Dispute(on(1, 5), third.Grant(on(1, 4), credit.Grant{Amount: 100, Price: usd(1000)}))
	free := third.Grant(on(1, 5), credit.Grant{Type: credit.Promotional, Amount: 10})
	third.Do(dbtest.Operation{Kind: "consume", At: on(1, 6), Dims: credit.Dimensions{"provider": "openai", "model": "large"},
		Receipt: `{"cost":{"amount":"0.0123","currency":"USD"}}`, Moves: []dbtest.Move{{Grant: free, Debit: "available", Credit: "consumed", Amount: 1},
			{Grant: wrong, Debit: "available", Credit: "consumed", Amount: 2}}})
	for _, x := range []*dbtest.Customer{c, other, third} {
		if _, err := s.RecogniseCustomer(ctx, x.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CountUsage(ctx, x.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.SettleRefund(ctx, paid, db.Settlement{Method: "manual", Reference: "1", At: on(1, 5)}); err != nil {
		t.Fatal(err)
	}
	c.Use(on(1, 11), b.g, 5, nil) // not posted yet
	b.Customer(dbtest.Entity)     // never did anything
	b.Exec(`INSERT INTO top_ups (id, wallet_id, customer_id, grant_id, status, threshold, available, amount, price_minor, tax_minor, currency, attempt, month, timeout_s,
		requested_at, payment_ref, decided_at, ended_at)
		SELECT gen_random_uuid(), wallet_id, customer_id, id, 'succeeded', 10, 0, amount, price_minor, tax_minor, price_currency, 1, '2026-01', 60, created_at, 'pay', created_at,
			created_at FROM grants WHERE id = ` + hex(b.g.ID))
	return b
}

func TestCleanBooks(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	report, err := verify.Run(ctx, b.Store, nil, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if _, err := report.WriteTo(&text); err != nil || !report.Clean() {
		t.Errorf("%s\n%v", &text, err)
	}
	for _, c := range report.Checks {
		if c.Checked == 0 && c.Skipped == "" && !strings.Contains(c.Name, "limits") { // those need the present: see the tests of limits in balance
			t.Errorf("%s: nothing was checked", c.Name)
		}
	}
	if last := report.Checks[len(report.Checks)-1]; last.Skipped == "" || !strings.Contains(text.String(), "skipped: no Redis was given") || !strings.Contains(text.String(), "\nclean: ") {
		t.Errorf("the table does not say what was not compared:\n%s", &text)
	}
}

func TestEmptyDatabaseIsClean(t *testing.T) {
	t.Parallel()
	report, err := verify.Run(ctx, dbtest.Open(t), nil, verify.Options{})
	if err != nil || !report.Clean() {
		t.Errorf("%+v, %v", report, err)
	}
}

// Every break that a superuser plants behind the triggers is found, by the checks that concern it and no others, and named.
func TestPlantedBreaks(t *testing.T) {
	t.Parallel()
	const (
		entries, grants, movements, histories = "journal entries balance", "grants conserve", "movements leave what they say", "histories have no gap"
		operations, keys, refunds             = "operations move what they say", "keys answer with their own operation", "refunds are of what was taken back"
		corrections, transfers                = "corrections are of what was consumed", "transfers arrive"
		ahead, subLedger, accounts            = "nothing is posted ahead", "sub-ledger is what was posted", "control accounts equal sub-ledgers"
		topUps                                = "top-ups are what they bought"
		uncounted, sliced, hours              = "no usage is counted ahead", "usage slices are what was consumed", "usage hours are the sums of slices"
		costs                                 = "compute costs are what the receipts say"
	)
	grant := func(b *books) string { return b.g.ID.String() }
	customer := func(b *books) string { return b.customer.ID.String() }
	refund := func(b *books) string { return b.refund.String() }
	nothing := func(*books) string { return "" }
	// $1 is the grant G, $2 its customer, $3 the refund that is not paid yet.
	for _, x := range []struct {
		what, sql string
		found     []string            // checks that find it
		named     func(*books) string // in the first of them
		says      string
	}{
		{"a revenue posting changed", "UPDATE postings SET amount_minor = amount_minor + 1 WHERE account = 4010 AND model = 'small'", []string{entries}, nothing, "credits"},
		{"both legs changed", "UPDATE postings p SET amount_minor = amount_minor + 1 FROM journal_entries e WHERE e.id = p.entry_id AND e.kind = 'expiry'",
			[]string{subLedger, accounts}, nothing, "posted are 101"},
		{"a posting deleted", "DELETE FROM postings WHERE account = 2030 AND side = 'cr'", []string{entries}, nothing, "credits"},
		{"the postings of an entry deleted", "DELETE FROM postings p USING journal_entries e WHERE e.id = p.entry_id AND e.kind = 'overage'",
			[]string{entries, subLedger}, nothing, "has 0 postings"},
		{"an entry deleted, its postings left", "DELETE FROM journal_entries WHERE kind = 'overage'", []string{entries, subLedger}, nothing, "not in the journal"},
		{"an entry deleted with its postings", `WITH e AS (DELETE FROM journal_entries WHERE kind = 'refund' AND cause LIKE '%'
			AND no = (SELECT max(no) FROM journal_entries WHERE kind = 'refund') RETURNING id) DELETE FROM postings p USING e WHERE p.entry_id = e.id`,
			[]string{subLedger, accounts}, grant, "posted are"},
		{"an entry invented", `WITH e AS (INSERT INTO journal_entries (id, cause, entity, period, service_on, kind, customer_id, grant_id)
			VALUES (gen_random_uuid(), 'x', 'acme', '2026-01', '2026-01-01', 'recognition', $2, $1) RETURNING id)
			INSERT INTO postings (entry_id, n, account, side, amount_minor, currency) SELECT id, 0, 2010, 'dr', 5, 'USD' FROM e UNION ALL SELECT id, 1, 4010, 'cr', 5, 'USD' FROM e`,
			[]string{subLedger, accounts}, grant, "posted are"},
		{"an adjustment of breakage that is not in the log", `WITH e AS (INSERT INTO journal_entries (id, cause, entity, period, service_on, kind)
			VALUES (gen_random_uuid(), 'x', 'acme', '2026-01', '2026-01-31', 'breakage') RETURNING id)
			INSERT INTO postings (entry_id, n, account, side, amount_minor, currency) SELECT id, 0, 2019, 'dr', 5, 'USD' FROM e UNION ALL SELECT id, 1, 4020, 'cr', 5, 'USD' FROM e`,
			[]string{accounts}, nothing, "acme 2019"},
		{"a posting in another currency", "UPDATE postings p SET currency = 'EUR' FROM journal_entries e WHERE e.id = p.entry_id AND e.kind = 'overage'",
			[]string{entries}, nothing, "not in USD"},
		{"an entry booked in another month", "UPDATE journal_entries SET service_on = '2025-12-31' WHERE kind = 'expiry'", []string{entries}, nothing, "2025-12-31"},
		{"a counter moved", "UPDATE grants SET avail = avail - 1, consumed = consumed + 1 WHERE id = $1", []string{grants}, grant, "available is 450, its movements make 451"},
		{"a counter lost", "ALTER TABLE grants DROP CONSTRAINT grant_conserves; UPDATE grants SET avail = avail - 1 WHERE id = '$1'", []string{grants}, grant, "its parts are 999"},
		{"a movement's amount changed", "UPDATE movements SET amount = amount + 1 WHERE grant_id = $1 AND ver = 2",
			[]string{grants, movements, operations, subLedger, sliced}, grant, "consumed is 449, its movements make 450"},
		{"what a movement leaves changed", "UPDATE movements SET after = after + 1 WHERE grant_id = $1 AND ver = 2", []string{movements}, grant, "operation 2 says that it leaves 668"},
		{"a movement deleted", "DELETE FROM movements WHERE grant_id = $1 AND ver = $4", []string{grants, operations}, grant, "available is 451"},
		{"a movement of nothing", "INSERT INTO movements VALUES ($1, 9999, 0, 'available', 'consumed', 1, 450)",
			[]string{grants, operations}, grant, "available is 451, its movements make 450"},
		{"an operation deleted", "DELETE FROM operations WHERE customer_id = $2 AND ver = 3", []string{histories, operations, keys, sliced}, customer, "operation 4 is not preceded by operation 3"},
		{"the last operation deleted", "DELETE FROM operations WHERE customer_id = $2 AND ver = $4", []string{histories, operations, keys}, customer, "its newest operation is"},
		{"an operation's amount changed", "UPDATE operations SET amount = amount + 1 WHERE customer_id = $2 AND ver = 2", []string{operations}, customer, "operation 2 moved 334"},
		{"time turned back", "UPDATE operations SET at = at - interval '3 days' WHERE customer_id = $2 AND ver = 5", []string{histories}, customer, "operation 5 is earlier"},
		{"the head lost operations", "UPDATE customer_heads SET ver = 2 WHERE customer_id = $2", []string{histories, ahead, uncounted}, customer, "its head is at 2"},
		{"a key answers for nothing", "UPDATE idempotency_keys SET ver = 9999 WHERE customer_id = $2 AND ver = 2", []string{keys}, nothing, "operation 9999"},
		{"a key answers for another", "UPDATE idempotency_keys SET ver = 3 WHERE customer_id = $2 AND ver = 2", []string{keys}, nothing, "another key"},
		{"a refund of more", "UPDATE refunds SET units = units + 1 WHERE id = $3", []string{refunds}, refund, "is of 51 credits, its operation took 50"},
		{"a refund of more money than was paid", "UPDATE refunds SET money_minor = 9999 WHERE id = $3", []string{refunds}, refund, "its price was 9999"},
		{"a refund paid and not posted", "UPDATE refunds SET status = 'settled', settled_at = now() WHERE id = $3", []string{accounts}, nothing, "acme 2020 the sub-ledger is"},
		{"a correction forgotten", "UPDATE corrected_operations SET corrected = corrected - 1", []string{corrections}, nothing, "19 were given back, its corrections moved 20"},
		{"a correction of more", "ALTER TABLE corrected_operations DROP CONSTRAINT corrected_within; UPDATE corrected_operations SET corrected = 61",
			[]string{corrections}, nothing, "61 were given back of 60"},
		{"a transfer that comes from nowhere", "UPDATE grants SET from_grant = NULL, from_ver = NULL WHERE from_grant IS NOT NULL", []string{transfers}, nothing, "other grants have 0 of them"},
		{"a dispute that was won and not posted", "UPDATE disputes SET status = 'won', ended_ver = opened_ver, ended_at = opened_at", []string{accounts}, nothing, "acme 1130 the sub-ledger is"},
		{"a top-up without its credits", "UPDATE top_ups SET grant_id = gen_random_uuid()", []string{topUps}, nothing, "has no grant"},
		{"a top-up whose credits were not issued", "UPDATE top_ups SET grant_id = (SELECT id FROM grants WHERE status = 'pending')", []string{topUps}, nothing, "has not issued its grant"},
		{"a failed top-up that left its purchase pending", `UPDATE top_ups SET status = 'failed', reason = 'x', retry = false,
			grant_id = (SELECT id FROM grants WHERE status = 'pending')`, []string{topUps}, nothing, "has left its grant pending"},
		{"a top-up of other credits", "UPDATE top_ups SET amount = amount + 1", []string{topUps}, nothing, "has another grant than it bought"},
		{"posted ahead", "UPDATE recognition_marks SET ver = 9999 WHERE customer_id = $2", []string{ahead, subLedger}, customer, "up to operation 9999"},
		{"counted ahead", "UPDATE usage_marks SET ver = 9999 WHERE customer_id = $2", []string{uncounted, sliced}, customer, "up to operation 9999"},
		{"a slice changed", "UPDATE usage_slices SET consumed = consumed + 1 WHERE customer_id = $2 AND model = 'small'",
			[]string{sliced, hours}, customer, "of 2026-01-02T12Z, chat small: 112 consumed, 0 of it overage, in 1 operations, by its movements 111, 0, 1"},
		{"a cost changed", "UPDATE usage_costs SET promotional = promotional + 0.0001", []string{costs}, nothing,
			"openai large: cost 0.0123, 0.004200000000000000 of it promotional, in 1 operations, by its receipts 0.0123, 0.004100000000000000, 1"},
		{"an hour lost", "DELETE FROM usage_hours WHERE customer_id = $2 AND hour < '2026-01-03'", []string{hours}, customer, "its slices sum to 444, 0, 2"},
		{"money left the sub-ledger", "UPDATE grant_carrying SET posted_out = posted_out + 1 WHERE grant_id = $1", []string{subLedger, accounts}, grant, "by the cumulative rule"},
		{"credits left the sub-ledger", "UPDATE grant_carrying SET disposed = disposed + 1 WHERE grant_id = $1", []string{subLedger}, grant, "by its movements 544"},
		{"a line of the sub-ledger deleted", "DELETE FROM grant_carrying WHERE grant_id = $1", []string{subLedger, accounts}, grant, "in the sub-ledger: f"},
	} {
		t.Run(x.what, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			owner := dbtest.Owner(t, b.Store)
			literal := strings.NewReplacer("'$1'", "$1").Replace(x.sql)
			for place, value := range map[string]string{"$1": hex(b.g.ID), "$2": hex(b.customer.ID), "$3": hex(b.refund), "$4": decimal.NewFromInt(b.customer.Ver).String()} {
				literal = strings.ReplaceAll(literal, place, value)
			}
			if tag, err := owner.Exec(ctx, "SET session_replication_role = replica; "+literal); err != nil || tag.RowsAffected() == 0 {
				t.Fatalf("plant: %v, %v", tag, err)
			}
			report, err := verify.Run(ctx, b.Store, nil, verify.Options{First: 3})
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			report.WriteTo(&text)
			var found []string
			var named string
			for _, c := range report.Checks {
				if c.Differ > 0 {
					if found = append(found, c.Name); len(found) == 1 {
						named = strings.Join(c.First, "\n")
					}
				}
			}
			if !slices.Equal(found, x.found) || !strings.Contains(named, x.named(b)) || !strings.Contains(named, x.says) || report.Clean() {
				t.Errorf("found by %q, want %q, naming %q %q:\n%s", found, x.found, x.named(b), x.says, &text)
			}
			if !strings.Contains(text.String(), "NOT CLEAN") {
				t.Errorf("no verdict:\n%s", &text)
			}
		})
	}
}

func hex[I ~[16]byte](id I) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	b.WriteByte('\'')
	for _, x := range id {
		b.WriteByte(digits[x>>4])
		b.WriteByte(digits[x&15])
	}
	b.WriteByte('\'')
	return b.String()
}

// cache compares nothing: it finds what it is told to.
type cache struct {
	differ []string
	err    error
	asked  int
}

func (c *cache) Compare(_ context.Context, customers []credit.CustomerID) (int, []string, error) {
	c.asked += len(customers)
	return len(customers), c.differ, c.err
}

func TestCacheIsCompared(t *testing.T) {
	t.Parallel()
	s := dbtest.Open(t)
	b := dbtest.NewBook(t, s)
	b.Exec("WITH c AS (INSERT INTO customers (id, entity, name) SELECT gen_random_uuid(), 'acme', i FROM generate_series(1, 2500) AS i RETURNING id) INSERT INTO customer_heads SELECT id FROM c")
	sound := &cache{}
	report, err := verify.Run(ctx, s, sound, verify.Options{})
	if last := report.Checks[len(report.Checks)-1]; err != nil || !report.Clean() || sound.asked != 2500 || last.Checked != 2500 {
		t.Errorf("%+v, %v; asked for %d", last, err, sound.asked)
	}
	report, err = verify.Run(ctx, s, &cache{differ: []string{"cus_a has 5, not 6", "cus_b has 7, not 8"}}, verify.Options{First: 3})
	if last := report.Checks[len(report.Checks)-1]; err != nil || report.Clean() || last.Differ != 6 || len(last.First) != 3 {
		t.Errorf("%+v, %v", last, err)
	}
	broken := errors.New("connection refused")
	if report, err = verify.Run(ctx, s, &cache{err: broken}, verify.Options{}); !errors.Is(err, broken) || len(report.Checks) != len(db.Invariants) {
		t.Errorf("%+v, %v", report, err)
	}
}
