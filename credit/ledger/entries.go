package ledger

import (
	"cmp"
	"slices"

	"github.com/tallystick/tallystick/credit"
)

// The functions below are all the entries that the product posts by itself, each with its debits and credits. A Dr or Cr whose amount
// is zero is left out; when all are, the entry is Empty.

// Purchase records credits paid for: the price is owed in service, the tax to the state.
//
//	Dr paid (1020 by card, 1110 on invoice)  price + tax
//	    Cr 2010 prepaid credits              price
//	    Cr 2030 sales tax payable            tax
func Purchase(f Fact, paid Account, price, tax Sum, units credit.Amount) Entry {
	e := newEntry(f, KindPurchase)
	e.post(Dr, paid, price.Plus(tax), 0)
	e.post(Cr, PrepaidCredits, price, units)
	e.post(Cr, SalesTaxPayable, tax, 0)
	return e
}

// ConcessionGrant records credits given to a paying customer for what went wrong, worth value: revenue is conceded now, and earned
// when the credits are used.
//
//	Dr 4095 contra revenue: price concessions  value
//	    Cr 2010 prepaid credits                value
func ConcessionGrant(f Fact, value Sum, units credit.Amount) Entry {
	e := newEntry(f, KindConcession)
	e.post(Dr, ConcessionContra, value, 0)
	e.post(Cr, PrepaidCredits, value, units)
	return e
}

// Share is how many of the credits behind a revenue served one product and model.
type Share struct {
	Product, Model string
	Units          credit.Amount
}

// Recognition records credits used: amount of the grant's money leaves the liability, tax of it is due to the state when the grant is taxed at
// use (0 otherwise), and the rest is earned, split over the shares by largest remainder, equal remainders in order of product and model. A
// share that gets nothing has no posting.
//
//	Dr 2010 prepaid credits  amount
//	    Cr 4010 usage revenue      per product and model, together amount - tax
//	    Cr 2030 sales tax payable  tax
func Recognition(f Fact, amount, tax int64, shares []Share) Entry {
	return earn(newEntry(f, KindRecognition), PrepaidCredits, UsageRevenue, amount, tax, shares)
}

// OverageUse records credits used beyond what was bought, owed by the customer from this moment, split as in [Recognition].
//
//	Dr 1120 unbilled receivable  amount
//	    Cr 4030 overage revenue  per product and model
func OverageUse(f Fact, amount int64, shares []Share) Entry {
	return earn(newEntry(f, KindOverage), UnbilledReceivable, OverageRevenue, amount, 0, shares)
}

// Reversal records used credits given back: what had been earned with them is owed in service again, or for overage not owed by the customer
// any more. amount and tax are what the [Recognition] or the [OverageUse] of as many credits would have; tax is 0 for overage.
//
//	Dr 4010 usage revenue (4030 overage revenue)     per product and model
//	Dr 2030 sales tax payable                        tax
//	    Cr 2010 prepaid credits (1120 unbilled receivable)  amount
func Reversal(f Fact, overage bool, amount, tax int64, shares []Share) Entry {
	e := newEntry(f, KindReversal)
	if overage {
		e = earn(e, UnbilledReceivable, OverageRevenue, amount, 0, shares)
	} else {
		e = earn(e, PrepaidCredits, UsageRevenue, amount, tax, shares)
	}
	return e.mirrored()
}

// mirrored turns every debit into a credit and every credit into a debit, in place.
func (e Entry) mirrored() Entry {
	for i := range e.Postings {
		p := &e.Postings[i]
		if p.Side == Dr {
			p.Side = Cr
		} else {
			p.Side = Dr
		}
	}
	return e
}

func earn(e Entry, from, revenue Account, amount, tax int64, shares []Share) Entry {
	if amount == 0 {
		return e
	}
	shares = slices.Clone(shares)
	slices.SortFunc(shares, func(a, b Share) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.Model, b.Model))
	})
	var units credit.Amount
	weights := make([]int64, len(shares))
	for i, s := range shares {
		units += s.Units
		weights[i] = int64(s.Units)
	}
	e.Postings = make([]Posting, 0, len(shares)+2)
	e.post(Dr, from, Sum{Minor: amount}, units)
	for i, part := range credit.Allocate(amount-tax, weights) {
		e.post(Cr, revenue, Sum{Minor: part}, shares[i].Units)
		if part > 0 {
			p := &e.Postings[len(e.Postings)-1]
			p.Product, p.Model = shares[i].Product, shares[i].Model
		}
	}
	e.post(Cr, SalesTaxPayable, Sum{Minor: tax}, 0)
	return e
}

// Decrement records credits that support takes away: the customer has no claim to them any more, so what they cost is earned, by no product or model.
//
//	Dr 2010 prepaid credits   amount
//	    Cr 4010 usage revenue     amount
func Decrement(f Fact, amount int64, units credit.Amount) Entry {
	e := newEntry(f, KindDecrement)
	e.post(Dr, PrepaidCredits, Sum{Minor: amount}, units)
	e.post(Cr, UsageRevenue, Sum{Minor: amount}, units)
	return e
}

// TransferOut records credits of a grant that have become another's, at what they carry; [TransferIn] records them as the other's. The account between
// them is empty once both sides are posted, and nothing is earned.
//
//	Dr 2010 prepaid credits      amount
//	    Cr 2011 credits in transfer  amount
func TransferOut(f Fact, amount Sum, units credit.Amount) Entry {
	e := newEntry(f, KindTransfer)
	e.post(Dr, PrepaidCredits, amount, units)
	e.post(Cr, CreditsInTransfer, amount, units)
	return e
}

// TransferIn is the other side of [TransferOut].
//
//	Dr 2011 credits in transfer  amount
//	    Cr 2010 prepaid credits      amount
func TransferIn(f Fact, amount Sum, units credit.Amount) Entry {
	e := newEntry(f, KindTransfer)
	e.post(Dr, CreditsInTransfer, amount, units)
	e.post(Cr, PrepaidCredits, amount, units)
	return e
}

// DisputeOpened records that the customer's bank has taken a payment back for as long as it is disputed, and what the processor takes for that.
//
//	Dr 1130 disputed funds  amount
//	Dr 6030 dispute fees    fee
//	    Cr 1020 processor clearing  amount + fee
func DisputeOpened(f Fact, amount, fee Sum) Entry {
	e := newEntry(f, KindDispute)
	e.post(Dr, DisputedFunds, amount, 0)
	e.post(Dr, DisputeFees, fee, 0)
	e.post(Cr, ProcessorClearing, amount.Plus(fee), 0)
	return e
}

// DisputeWon records that a disputed payment has come back. The fee has not.
//
//	Dr 1020 processor clearing  amount
//	    Cr 1130 disputed funds      amount
func DisputeWon(f Fact, amount Sum) Entry {
	e := newEntry(f, KindDispute)
	e.post(Dr, ProcessorClearing, amount, 0)
	e.post(Cr, DisputedFunds, amount, 0)
	return e
}

// DisputeLost records that a disputed payment is gone: carrying is what the credits taken away were owed in service, tax is what the state no longer
// gets, and the rest, what was paid for credits that were used, is revenue that was not.
//
//	Dr 2010 prepaid credits           carrying
//	Dr 2030 sales tax payable         tax
//	Dr 4091 contra revenue: disputes  the rest     (Cr: more is taken away than was disputed)
//	    Cr 1130 disputed funds            amount
func DisputeLost(f Fact, amount Sum, tax, carrying int64, units credit.Amount) Entry {
	e := newEntry(f, KindDispute)
	e.post(Dr, PrepaidCredits, Sum{Minor: carrying}, units)
	e.post(Dr, SalesTaxPayable, Sum{Minor: tax}, 0)
	e.either(DisputeContra, DisputeContra, amount.Minor-tax-carrying)
	e.post(Cr, DisputedFunds, amount, 0)
	return e
}

// Clawback records credits that a hold let go of after the payment for them was lost.
//
//	Dr 2010 prepaid credits               amount
//	    Cr 4091 contra revenue: disputes      amount
func Clawback(f Fact, amount int64, units credit.Amount) Entry {
	e := newEntry(f, KindDispute)
	e.post(Dr, PrepaidCredits, Sum{Minor: amount}, units)
	e.post(Cr, DisputeContra, Sum{Minor: amount}, 0)
	return e
}

// Expiry records what an expired grant leaves unused (breakage, remote method). What unclaimed property law gives to a government is never
// revenue: escheat, 0 to amount.
//
//	Dr 2010 prepaid credits   amount
//	    Cr 4020 breakage revenue    amount - escheat
//	    Cr 2040 unclaimed property  escheat
func Expiry(f Fact, amount, escheat int64, units credit.Amount) Entry {
	e := newEntry(f, KindExpiry)
	e.post(Dr, PrepaidCredits, Sum{Minor: amount}, units)
	e.post(Cr, BreakageRevenue, Sum{Minor: amount - escheat}, units)
	e.post(Cr, UnclaimedProperty, Sum{Minor: escheat}, 0)
	return e
}

// Breakage moves the revenue of a cohort's grants to where the proportional method wants it: amount more, or less when it is negative. The
// grants' own carrying amounts stay; 2019 is held per cohort, whose name its posting carries as the product.
//
//	Dr 2019 breakage adjustment (Cr when negative)  amount
//	    Cr 4020 breakage revenue (Dr)               amount
func Breakage(f Fact, cohort string, amount int64) Entry {
	e := newEntry(f, KindBreakage)
	e.either(BreakageAdjustment, BreakageAdjustment, amount)
	e.either(BreakageRevenue, BreakageRevenue, -amount)
	for i := range e.Postings {
		if e.Postings[i].Account == BreakageAdjustment {
			e.Postings[i].Product = cohort
		}
	}
	return e
}

// Payment records that a receivable was paid, out of the customer's own balance (2050) or by money that came in (1010, 1020). received is what
// came at today's exchange rate, carried what the receivable stood for; they differ only by the rate.
//
//	Dr to (1010, 1020, 2050)      received
//	Dr 7010 FX realised           loss (Cr: gain)
//	    Cr 1110 trade receivable  carried
func Payment(f Fact, to Account, received, carried Sum) Entry {
	e := newEntry(f, KindPayment)
	e.post(Dr, to, received, 0)
	e.either(FXRealised, FXRealised, carried.Minor-received.Minor)
	e.post(Cr, TradeReceivable, carried, 0)
	return e
}

// Remeasurement brings a monetary item that is owed in another currency to the closing rate: more is how much more the account's balance is
// worth than it was carried at, on the account's own side, in the entity's currency. A receivable worth more is a gain, a liability
// worth more a loss. [Reverse] takes it back on the first day of the next period.
//
//	Dr account (asset) or 7020    |more|
//	    Cr 7020 or account        |more|
func Remeasurement(f Fact, account Account, more int64) Entry {
	e := newEntry(f, KindRemeasure)
	if account >= PrepaidCredits { // a liability: it grows by credits
		more = -more
	}
	e.either(account, account, more)
	e.either(FXUnrealised, FXUnrealised, -more)
	return e
}

// Reverse returns the mirror of an entry under a cause and day of its own: the same accounts and amounts, every side changed.
func Reverse(e Entry, f Fact) Entry {
	mirror := Entry{ID: EntryID(f.Cause), Fact: f, Kind: e.Kind, Reverses: e.ID, Postings: slices.Clone(e.Postings)}
	return mirror.mirrored()
}

// Return is unused credits taken back: what they stand for in the books and what is owed for them.
type Return struct {
	Units    credit.Amount
	Carrying Sum   // their money in account 2010, at the purchase's exchange rate
	Tax      Sum   // their tax in account 2030, at the purchase's exchange rate
	Owed     Sum   // tax included, at today's exchange rate
	FX       int64 // how much of Owed is there only because the exchange rate moved; negative: how much is missing
}

// Refund records unused credits taken back for money. Money beyond the carrying amount that no exchange rate explains is contra
// revenue; carrying amount that is not paid back, its right extinguished, is breakage.
//
//	Dr 2010 prepaid credits      carrying
//	Dr 2030 sales tax payable    tax
//	Dr 7010 FX realised          loss            (Cr: gain)
//	Dr 4090 contra revenue       paid beyond     (Cr 4020 breakage: not paid back)
//	    Cr 2020 refund liability owed
func Refund(f Fact, r Return) Entry { return giveBack(newEntry(f, KindRefund), RefundLiability, r) }

// Void records credits taken away that were never paid or were a mistake; no revenue comes of them. The other side is where they came
// from: 1110 trade receivable when they were not paid, 2020 refund liability when they were, 4095 when they were a concession.
// Differences go where those of a [Refund] go.
//
//	Dr 2010 prepaid credits    carrying
//	Dr 2030 sales tax payable  tax
//	    Cr other               owed
func Void(f Fact, other Account, r Return) Entry { return giveBack(newEntry(f, KindVoid), other, r) }

func giveBack(e Entry, other Account, r Return) Entry {
	e.post(Dr, PrepaidCredits, r.Carrying, r.Units)
	e.post(Dr, SalesTaxPayable, r.Tax, 0)
	e.either(FXRealised, FXRealised, r.FX)
	e.either(RefundContra, BreakageRevenue, r.Owed.Minor-r.Carrying.Minor-r.Tax.Minor-r.FX)
	e.post(Cr, other, r.Owed, 0)
	return e
}

// either debits or credits, by the sign of the amount.
func (e *Entry) either(dr, cr Account, minor int64) {
	if minor > 0 {
		e.post(Dr, dr, Sum{Minor: minor}, 0)
	} else {
		e.post(Cr, cr, Sum{Minor: -minor}, 0)
	}
}

// ByProcessor is the settlement method of a refund that goes back through the payment processor.
const ByProcessor = "processor"

// PaidFrom returns the account out of which a settlement method pays: the processor's clearing account, or else cash.
func PaidFrom(method string) Account {
	if method == ByProcessor {
		return ProcessorClearing
	}
	return Cash
}

// Settlement records that a refund was paid out.
//
//	Dr 2020 refund liability      amount
//	    Cr from (1010 or 1020)    amount
func Settlement(f Fact, from Account, amount Sum) Entry {
	e := newEntry(f, KindSettlement)
	e.post(Dr, RefundLiability, amount, 0)
	e.post(Cr, from, amount, 0)
	return e
}
