// Package credit holds the rules of prepaid credits as functions of values: no I/O, no clock, no context.
package credit

import (
	"errors"
	"fmt"
)

// Code names a refusal in the caller's words. Codes are part of the API and never change meaning.
type Code string

const (
	InvalidRequest      Code = "invalid_request"
	InvalidID           Code = "invalid_id"
	InvalidAmount       Code = "invalid_amount"
	NotFound            Code = "not_found"
	CustomerNotFound    Code = "customer_not_found"
	MemberNotFound      Code = "member_not_found"
	WalletNotFound      Code = "wallet_not_found"
	GrantNotFound       Code = "grant_not_found"
	DisputeNotFound     Code = "dispute_not_found"
	RefundNotFound      Code = "refund_not_found"
	LimitNotFound       Code = "limit_not_found"
	RateCardNotFound    Code = "rate_card_not_found"
	DraftNotFound       Code = "draft_not_found"
	AssignmentNotFound  Code = "assignment_not_found"
	BacktestNotFound    Code = "backtest_not_found"
	BacktestEnded       Code = "backtest_ended"
	BackfillNotFound    Code = "backfill_not_found"
	BackfillState       Code = "backfill_state"
	PreviewChanged      Code = "preview_changed"
	UnitNotFound        Code = "unit_not_found"
	EntityNotFound      Code = "entity_not_found"
	CatalogueNotFound   Code = "catalogue_not_found" // of compute costs
	QuarantineNotFound  Code = "quarantine_not_found"
	AlreadyExists       Code = "already_exists"
	InsufficientCredits Code = "insufficient_credits"
	NotEntitled         Code = "not_entitled"  // credits are there, but none of them may serve this
	LimitReached        Code = "limit_reached" // a hard limit does not admit this
	NoRate              Code = "no_rate"
	NoFXRate            Code = "no_fx_rate" // no exchange rate that is fresh enough
	UnknownProvider     Code = "unknown_provider"
	UnknownFlavour      Code = "unknown_flavour" // of a provider's response
	UnknownModel        Code = "unknown_model"
	NoUsage             Code = "no_usage"           // a provider's response does not say what was used
	InvalidUsage        Code = "invalid_usage"      // what it says cannot be
	DimensionConflict   Code = "dimension_conflict" // the caller's dimensions contradict a provider's response
	QuarantineState     Code = "quarantine_state"   // quarantined usage was charged or discarded before
	RequestMismatch     Code = "request_mismatch"   // the idempotency key was used for another request
	TooOld              Code = "too_old"
	InFuture            Code = "in_future"
	GrantExpired        Code = "grant_expired"
	GrantNotExpired     Code = "grant_not_expired"
	GrantState          Code = "grant_state" // the grant's state does not admit this
	HoldNotFound        Code = "hold_not_found"
	HoldEnded           Code = "hold_ended"
	CaptureExceedsHold  Code = "capture_exceeds_hold"
	NotRefundable       Code = "not_refundable"
	NotCorrectable      Code = "not_correctable" // not, or not as much, of an operation can be undone
	DisputeState        Code = "dispute_state"   // a dispute, or what is known about it, does not admit this
	TopUpNotFound       Code = "topup_not_found"
	TopUpState          Code = "topup_state" // the automatic top-up, or its rule, does not admit this
	CustomerFrozen      Code = "customer_frozen"
	PeriodClosed        Code = "period_closed"
	PeriodOrder         Code = "period_order"    // another period comes first
	CloseNotFound       Code = "close_not_found" // of a period
	CloseState          Code = "close_state"     // the state of a period's close does not admit this
	PackChanged         Code = "pack_changed"    // another close pack is in review than the one that was approved
	SecondPerson        Code = "second_person"   // somebody else has to decide
	JournalNotFound     Code = "journal_not_found"
	JournalState        Code = "journal_state"      // a manual journal was decided
	AccountNotMapped    Code = "account_not_mapped" // another accounting system has no name for it
	NotExportable       Code = "not_exportable"     // the format of another accounting system cannot take it
	NotSealed           Code = "not_sealed"         // no seal covers the journal entry yet
	SealBroken          Code = "seal_broken"        // the books are not what was sealed
	NoSealingKey        Code = "no_sealing_key"
	EstimateExceeded    Code = "estimate_exceeded" // more credits were used than were expected to be, ever
	PolicyNotFound      Code = "policy_not_found"
	EstimateNotFound    Code = "estimate_not_found"
	SelfApproval        Code = "self_approval"       // by who prepared it
	PolicyTooLate       Code = "policy_too_late"     // something is booked in its first period already
	DraftChanged        Code = "draft_changed"       // since it was reviewed
	VersionInForce      Code = "version_in_force"    // or too near to it to be taken back
	AssignmentOverlaps  Code = "assignment_overlaps" // another of the customer's at some instant
	Unauthenticated     Code = "unauthenticated"
	Forbidden           Code = "forbidden"
	TooLarge            Code = "too_large"
	UnsupportedMedia    Code = "unsupported_media_type"
	MethodNotAllowed    Code = "method_not_allowed"
	Overloaded          Code = "overloaded"      // no decision was made
	NotExecuted         Code = "not_executed"    // this attempt changed nothing
	OutcomeUnknown      Code = "outcome_unknown" // retry the same key
	ClockSkew           Code = "clock_skew"
	Internal            Code = "internal"
)

// Error is a refusal: the caller asked for something that the rules do not allow. Everything that is not an Error is a fault.
type Error struct {
	Code   Code
	Detail string         // one sentence for the caller
	Fields map[string]any // further facts, such as what was required and available; nil when none
	Issues []Issue        // where in the request the fault lies; nil when it is not about one place
}

// Issue is one fault in a request.
type Issue struct {
	Pointer string `json:"pointer"` // JSON pointer into the body, or the name of a header, path or query parameter
	Detail  string `json:"detail"`
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Detail }

// Errorf makes a refusal with a formatted detail.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Invalid makes the refusal of one place in a request.
func Invalid(pointer, format string, args ...any) *Error {
	detail := fmt.Sprintf(format, args...)
	return &Error{Code: InvalidRequest, Detail: detail, Issues: []Issue{{Pointer: pointer, Detail: detail}}}
}

// With returns the refusal with one more fact.
func (e *Error) With(name string, value any) *Error {
	c := *e
	c.Fields = make(map[string]any, len(e.Fields)+1)
	for k, v := range e.Fields {
		c.Fields[k] = v
	}
	c.Fields[name] = value
	return &c
}

// CodeOf returns the code of a refusal, and "" for nil and for faults.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
