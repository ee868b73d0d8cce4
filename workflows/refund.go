package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/credit"
)

// RefundWorkflowID is the id of the one workflow of a refund.
func RefundWorkflowID(id credit.RefundID) string { return "refund/" + id.String() }

// RefundResult is how a refund ended.
type RefundResult struct {
	Status     string                 `json:"status"` // settled or nothing_to_pay
	Settlement *activities.Settlement `json:"settlement,omitempty"`
}

// Refund pays back what a refund or a void owes. The credits have left the grant before it starts; it books their money, has the payment
// made outside, and books that:
//
//	booked → paid → settled
func Refund(ctx workflow.Context, in activities.RefundRef) (RefundResult, error) {
	r := refund{status: "taken back"}
	err := workflow.SetQueryHandlerWithOptions(ctx, QueryState, func() (string, error) { return r.status, nil },
		workflow.QueryHandlerOptions{Description: "How far the refund is: taken back, booked, paid, settled."})
	if err != nil {
		return RefundResult{}, err
	}
	var a *activities.Activities
	if err := workflow.ExecuteActivity(withActivity(ctx, "What is to be paid back?"), a.ReadRefund, in).Get(ctx, &r.facts); err != nil {
		return RefundResult{}, err
	}
	r.tell(ctx, "taken back")

	customer := activities.CustomerRef{CustomerID: in.CustomerID}
	if err := workflow.ExecuteActivity(withActivity(ctx, "Book the refund"), a.PostCustomer, customer).Get(ctx, nil); err != nil {
		return RefundResult{}, err
	}
	r.tell(ctx, "booked")
	if r.facts.Status == activities.NothingToPay {
		return RefundResult{Status: activities.NothingToPay}, nil
	}

	var s activities.Settlement
	if err := workflow.ExecuteActivity(withActivity(ctx, "Hand the payment of "+r.facts.Money+" to finance"), a.SettleManually, in).Get(ctx, &s); err != nil {
		return RefundResult{}, err
	}
	r.tell(ctx, "paid: "+s.Method+", reference "+s.Reference)

	booking := activities.BookSettlementInput{RefundRef: in, Settlement: s}
	if err := workflow.ExecuteActivity(withActivity(ctx, "Book the payment"), a.BookSettlement, booking).Get(ctx, nil); err != nil {
		return RefundResult{}, err
	}
	r.tell(ctx, "settled")
	return RefundResult{Status: activities.Settled, Settlement: &s}, nil
}

type refund struct {
	facts  activities.RefundFacts
	status string
	story  story
}

func (r *refund) tell(ctx workflow.Context, status string) {
	r.status = status
	r.story.add(workflow.Now(ctx), status)
	workflow.SetCurrentDetails(ctx, "**"+status+"**: "+RefundSummary(&r.facts)+"\n\n"+r.story.list())
}

// RefundSummary is the one line that names a refund's workflow in lists.
func RefundSummary(f *activities.RefundFacts) string {
	money := f.Money
	if money == "" {
		money = "nothing"
	}
	return fmt.Sprintf("%s for %s credits of %s", money, f.Credits, f.GrantID)
}

// RefundDetails says what does not change about a refund.
func RefundDetails(f *activities.RefundFacts) string {
	return fmt.Sprintf("%s.\n\n- reason: %s\n- customer `%s`\n- grant `%s`\n", RefundSummary(f), oneLine(f.Reason), f.CustomerID, f.GrantID)
}
