package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/shopspring/decimal"
)

// sight is what the customers have and what the books say, at one moment.
type sight struct {
	versions map[string]int64           // of the customers, by id
	balances map[string]decimal.Decimal // available, by unit
	books    map[string]*books          // by legal entity
	noBooks  string                     // why they were not read
}

// books is what a legal entity's books say. Money is in the entity's currency.
type books struct {
	currency             string
	deferred, recognised decimal.Decimal // of the run's customers
	accounts             map[int]account
	debit, credit        string
	balanced             bool
}

// account is a line of a trial balance. Its balance is on the side on which accounts of its type usually stand.
type account struct {
	name    string
	balance decimal.Decimal
}

type trialBalance struct {
	Accounts []struct {
		Account                   int
		Name, Type, Debit, Credit string
	}
	Debit, Credit string
	Balanced      bool
}

func (b *books) read(t *trialBalance) error {
	b.debit, b.credit, b.balanced, b.accounts = t.Debit, t.Credit, t.Balanced, make(map[int]account, len(t.Accounts))
	for _, a := range t.Accounts {
		debit, err1 := decimal.NewFromString(a.Debit)
		credit, err2 := decimal.NewFromString(a.Credit)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("read account %d of the trial balance: %w", a.Account, err)
		}
		balance := credit.Sub(debit)
		if a.Type == "asset" || a.Type == "expense" {
			balance = balance.Neg()
		}
		b.accounts[a.Account] = account{a.Name, balance}
	}
	return nil
}

// look reads what the customers have, has everything booked that happened to them, and reads the books. A key that may not look at the books
// does without.
func (r *run) look(ctx context.Context) (*sight, error) {
	s := &sight{versions: map[string]int64{}, balances: map[string]decimal.Decimal{}, books: map[string]*books{}}
	customers := slices.Clone(r.Plan.Customers)
	slices.Sort(customers)
	customers = slices.Compact(customers)
	for _, c := range customers {
		if err := r.lookAtBalances(ctx, s, c); err != nil {
			return nil, err
		}
	}
	for _, c := range customers {
		err := r.lookAtBooks(ctx, s, c)
		var p *Problem
		if errors.As(err, &p) && p.Status == http.StatusForbidden {
			s.noBooks, s.books = p.Detail, nil
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (r *run) lookAtBalances(ctx context.Context, s *sight, customer string) error {
	var doc struct {
		ID    string `json:"customer_id"`
		Ver   int64
		Units []struct{ Unit, Available string }
	}
	if err := r.API.get(ctx, "/v1/customers/"+url.PathEscape(customer)+"/balances?consistency=strong", &doc); err != nil {
		return err
	}
	s.versions[doc.ID] = doc.Ver
	for _, u := range doc.Units {
		available, err := decimal.NewFromString(u.Available)
		if err != nil {
			return fmt.Errorf("read the balance of customer %s: %w", customer, err)
		}
		s.balances[u.Unit] = s.balances[u.Unit].Add(available)
	}
	return nil
}

func (r *run) lookAtBooks(ctx context.Context, s *sight, customer string) error {
	body, err := json.Marshal(map[string]string{"customer": customer})
	if err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	if err := r.API.Call(ctx, http.MethodPost, "/v1/finance/recognise", "", body, &struct{}{}); err != nil {
		return fmt.Errorf("book what happened to customer %s: %w", customer, err)
	}
	var who struct {
		Entity string `json:"legal_entity"`
	}
	if err := r.API.get(ctx, "/v1/customers/"+url.PathEscape(customer), &who); err != nil {
		return err
	}
	b := s.books[who.Entity]
	if b == nil {
		b = &books{}
		s.books[who.Entity] = b
	}
	var forward struct {
		Data []struct{ Currency, Closing, Recognised string }
	}
	query := url.Values{"legal_entity": {who.Entity}}
	var trial trialBalance
	if err := r.API.get(ctx, "/v1/finance/trial_balance?"+query.Encode(), &trial); err != nil {
		return err
	}
	if err := b.read(&trial); err != nil {
		return err
	}
	query.Set("customer", customer)
	if err := r.API.get(ctx, "/v1/finance/roll_forward?"+query.Encode(), &forward); err != nil {
		return err
	}
	for _, line := range forward.Data {
		closing, err1 := decimal.NewFromString(line.Closing)
		recognised, err2 := decimal.NewFromString(line.Recognised)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("read the roll-forward of customer %s: %w", customer, err)
		}
		b.currency = line.Currency
		b.deferred, b.recognised = b.deferred.Add(closing), b.recognised.Add(recognised)
	}
	return nil
}

// change is an amount before and after.
type change struct{ before, after decimal.Decimal }

func (c change) by() decimal.Decimal { return c.after.Sub(c.before) }

type balanceChange struct {
	unit string
	change
}

type booksChange struct {
	entity, currency     string
	deferred, recognised change
	accounts             []accountChange // those that changed
	debit, credit        string          // of the trial balance afterwards
	balanced             bool
}

type accountChange struct {
	code int
	name string
	change
}

func (r *Report) compare(before, after *sight) {
	for _, unit := range slices.Sorted(maps.Keys(after.balances)) {
		r.balances = append(r.balances, balanceChange{unit, change{before.balances[unit], after.balances[unit]}})
	}
	r.noBooks = after.noBooks
	for _, entity := range slices.Sorted(maps.Keys(after.books)) {
		b, was := after.books[entity], before.books[entity]
		if was == nil {
			was = &books{}
		}
		c := booksChange{
			entity: entity, currency: b.currency, deferred: change{was.deferred, b.deferred}, recognised: change{was.recognised, b.recognised},
			debit: b.debit, credit: b.credit, balanced: b.balanced,
		}
		for _, code := range slices.Sorted(maps.Keys(b.accounts)) {
			is, was := b.accounts[code], was.accounts[code]
			if !is.balance.Equal(was.balance) {
				c.accounts = append(c.accounts, accountChange{code, is.name, change{was.balance, is.balance}})
			}
		}
		r.books = append(r.books, c)
	}
}
