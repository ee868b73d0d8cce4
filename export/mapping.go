package export

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
)

// Mapping says which account of another system stands for each of ours. Several of ours may be one there.
type Mapping struct {
	Version    int    // of the entity's mappings for the system, from 1 on
	Subsidiary string // of NetSuite OneWorld; "": there are none
	Accounts   []MappedAccount
}

// MappedAccount is one account and what it is called elsewhere.
type MappedAccount struct {
	Account ledger.Account `json:"account"`
	Code    string         `json:"code,omitempty"`     // required by Xero; before the name in NetSuite, where numbers are on
	Name    string         `json:"name,omitempty"`     // required but by Xero; a QuickBooks sub-account is Parent:Sub
	TaxRate string         `json:"tax_rate,omitempty"` // the name of a tax rate, required by Xero and only there
}

// Check refuses a mapping that the system could not use, with an Error coded invalid_request that points at the account.
func (m *Mapping) Check(s System) error {
	if !s.Mapped() {
		return credit.Invalid("system", "%s has our own accounts, which are not mapped.", s)
	}
	seen := make(map[ledger.Account]bool, len(m.Accounts))
	if fault := unfit(m.Subsidiary, 200, false); fault != "" && m.Subsidiary != "" {
		return credit.Invalid("/subsidiary", "This %s.", fault)
	}
	if m.Subsidiary != "" && s != NetSuite {
		return credit.Invalid("/subsidiary", "Only netsuite has subsidiaries.")
	}
	for i, a := range m.Accounts {
		at := func(name string) string { return fmt.Sprintf("/accounts/%d/%s", i, name) }
		switch {
		case !a.Account.Known():
			return credit.Invalid(at("account"), "%s is not an account of the chart.", a.Account)
		case seen[a.Account]:
			return credit.Invalid(at("account"), "%s comes twice.", a.Account)
		}
		seen[a.Account] = true
		for _, f := range []struct {
			name, value       string
			required, allowed bool
			longest           int
		}{
			{"code", a.Code, s == Xero, s == Xero || s == NetSuite, 60},
			{"name", a.Name, s != Xero, true, 100},
			{"tax_rate", a.TaxRate, s == Xero, s == Xero, 100},
		} {
			switch fault := unfit(f.value, f.longest, s == QuickBooksDesktop); {
			case f.value == "" && f.required:
				return credit.Invalid(at(f.name), "%s requires this.", s)
			case f.value != "" && !f.allowed:
				return credit.Invalid(at(f.name), "%s has no use for this.", s)
			case f.value != "" && fault != "":
				return credit.Invalid(at(f.name), "This %s.", fault)
			}
		}
	}
	return nil
}

// unfit says what is wrong with a name, and "" if nothing is.
func unfit(s string, longest int, ascii bool) string {
	switch {
	case utf8.RuneCountInString(s) > longest:
		return fmt.Sprintf("has more than %d characters", longest)
	case strings.TrimSpace(s) != s || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "begins or ends with a space or has characters that cannot be printed"
	case ascii && strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII || r == '"' }):
		return "has a character that an IIF file cannot have: only ASCII, and no quotation mark"
	}
	return ""
}

// Missing returns which of the accounts have no mapping, in order.
func (m *Mapping) Missing(accounts []ledger.Account) []ledger.Account {
	var missing []ledger.Account
	for _, a := range accounts {
		if !slices.ContainsFunc(m.Accounts, func(l MappedAccount) bool { return l.Account == a }) {
			missing = append(missing, a)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// account returns what a posting's account is elsewhere.
func (x *run) account(a ledger.Account) (*MappedAccount, error) {
	for i := range x.Mapping.Accounts {
		if l := &x.Mapping.Accounts[i]; l.Account == a {
			return l, nil
		}
	}
	return nil, NotMapped(x.Entity, x.system, []ledger.Account{a})
}

// NotMapped is the refusal to export postings on accounts that the other system has no name for.
func NotMapped(entity string, s System, accounts []ledger.Account) *credit.Error {
	names := make([]string, len(accounts))
	for i, a := range accounts {
		names[i] = a.String()
	}
	return credit.Errorf(credit.AccountNotMapped, "Accounts of %s without one of %s: %s.", entity, s, strings.Join(names, ", ")).With("accounts", names)
}
