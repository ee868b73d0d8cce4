package ledger

import "strconv"

// Account is a line of the chart of accounts. The codes are the product's own; a mapping to the customer's codes belongs to exports.
type Account int

// The chart of accounts. The table ledger_accounts holds the same lines.
const (
	Cash               Account = 1010
	ProcessorClearing  Account = 1020 // money that a payment processor holds for us
	TradeReceivable    Account = 1110
	UnbilledReceivable Account = 1120 // overage used and not yet invoiced
	DisputedFunds      Account = 1130
	PrepaidCredits     Account = 2010 // contract liability; its sub-ledger is the carrying amount of every grant
	CreditsInTransfer  Account = 2011 // what has left one grant and is not yet booked as another's
	BreakageAdjustment Account = 2019 // contra to PrepaidCredits, per cohort
	RefundLiability    Account = 2020
	SalesTaxPayable    Account = 2030
	UnclaimedProperty  Account = 2040
	CustomerCash       Account = 2050
	AccruedCompute     Account = 2060
	RetainedEarnings   Account = 3010
	UsageRevenue       Account = 4010
	BreakageRevenue    Account = 4020
	OverageRevenue     Account = 4030
	RefundContra       Account = 4090
	DisputeContra      Account = 4091
	ConcessionContra   Account = 4095
	ComputeCost        Account = 5010
	ProcessingFees     Account = 5020
	PromotionalCompute Account = 6010
	BadDebt            Account = 6020
	DisputeFees        Account = 6030
	FXRealised         Account = 7010
	FXUnrealised       Account = 7020
)

// AccountType says on which side of the balance sheet or income statement an account stands.
type AccountType string

const (
	Asset     AccountType = "asset"
	Liability AccountType = "liability"
	Equity    AccountType = "equity"
	Revenue   AccountType = "revenue"
	Expense   AccountType = "expense"
)

// Line describes one account of the chart.
type Line struct {
	Account Account
	Name    string
	Type    AccountType
}

// Chart lists every account in order of its code.
var Chart = []Line{
	{Cash, "Cash", Asset},
	{ProcessorClearing, "Processor clearing", Asset},
	{TradeReceivable, "Trade receivable", Asset},
	{UnbilledReceivable, "Unbilled receivable", Asset},
	{DisputedFunds, "Disputed funds", Asset},
	{PrepaidCredits, "Contract liability: prepaid credits", Liability},
	{CreditsInTransfer, "Contract liability: credits in transfer", Liability},
	{BreakageAdjustment, "Contract liability: breakage adjustment", Liability},
	{RefundLiability, "Refund liability", Liability},
	{SalesTaxPayable, "Sales tax payable", Liability},
	{UnclaimedProperty, "Unclaimed property", Liability},
	{CustomerCash, "Customer cash balance", Liability},
	{AccruedCompute, "Accrued compute cost", Liability},
	{RetainedEarnings, "Retained earnings", Equity},
	{UsageRevenue, "Usage revenue", Revenue},
	{BreakageRevenue, "Breakage revenue", Revenue},
	{OverageRevenue, "Overage revenue", Revenue},
	{RefundContra, "Contra revenue: refunds", Revenue},
	{DisputeContra, "Contra revenue: disputes", Revenue},
	{ConcessionContra, "Contra revenue: price concessions", Revenue},
	{ComputeCost, "Cost of revenue: compute", Expense},
	{ProcessingFees, "Processing fees", Expense},
	{PromotionalCompute, "Promotional compute", Expense},
	{BadDebt, "Bad debt", Expense},
	{DisputeFees, "Dispute fees", Expense},
	{FXRealised, "FX realised", Expense},
	{FXUnrealised, "FX unrealised", Expense},
}

func (a Account) String() string { return strconv.Itoa(int(a)) }

// Known tells whether the account is in the chart.
func (a Account) Known() bool {
	for _, l := range Chart {
		if l.Account == a {
			return true
		}
	}
	return false
}

// Side is one of the two sides of the money book, spelled so because "credit" is what the product sells.
type Side string

const (
	Dr Side = "dr"
	Cr Side = "cr"
)
