package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// kind is what a code means over HTTP. Kinds are part of the API: /problems/<code> serves them.
type kind struct {
	status int
	title  string
	advice string // what the caller should do
}

// kinds has every code. This table alone says which status a refusal has.
var kinds = map[credit.Code]kind{
	credit.InvalidRequest:      {400, "The request is not valid", "Correct the request; errors says where the fault lies."},
	credit.InvalidID:           {400, "An identifier is malformed", "Send the identifier as it was given, or your own external id where one is accepted."},
	credit.InvalidAmount:       {400, "An amount is malformed", "Send a plain decimal number as a string, with no more decimal places than its unit or currency has."},
	credit.Unauthenticated:     {401, "No valid API key", "Send Authorization: Bearer and an API key that is in force."},
	credit.InsufficientCredits: {402, "There are not enough credits", "Final for this idempotency key: nothing was taken and nothing will be. After a top-up use a new key."},
	credit.LimitReached:        {402, "A limit does not admit this", "Final for this idempotency key: nothing was taken. left says how much the limit leaves, resets_at when that changes; then use a new key."},
	credit.LimitNotFound:       {404, "There is no such limit", "Check the limit's id; one that has ended is not changed any more."},
	credit.NotEntitled:         {402, "The credits may not serve this usage", "Final for this idempotency key. The customer has credits, but their scope, member or freeze excludes this usage, or the member may not use it."},
	credit.Forbidden:           {403, "The API key's role does not allow this", "Use a key of a role that the operation names, or of the role admin."},
	credit.NotFound:            {404, "There is no such resource", "Check the path."},
	credit.CustomerNotFound:    {404, "There is no such customer", "Check the customer's id or external id."},
	credit.MemberNotFound:      {404, "There is no such member", "Check the member's id or external id: a member belongs to one customer."},
	credit.WalletNotFound:      {404, "There is no such wallet", "Check the wallet's id: a wallet belongs to one customer."},
	credit.GrantNotFound:       {404, "There is no such grant", "Check the grant's id: a grant belongs to one customer."},
	credit.RefundNotFound:      {404, "There is no such refund", "Check the refund's id."},
	credit.DisputeNotFound:     {404, "There is no such dispute", "Check the dispute's id."},
	credit.RateCardNotFound:    {404, "There is no such rate card", "Check the rate card's id or code, and that it has a published version in force."},
	credit.DraftNotFound:       {404, "There is no such draft", "Check the draft's id: it belongs to one rate card or is of a cost catalogue, and ends when it is published."},
	credit.BacktestNotFound:    {404, "There is no such back-test", "Check its id; a back-test is removed 30 days after it was asked for."},
	credit.BacktestEnded:       {409, "The back-test has ended", "Nothing: ask for another one."},
	credit.BackfillNotFound:    {404, "There is no such backfill", "Check its id."},
	credit.BackfillState:       {409, "The backfill's state forbids this", "See its status: events are staged, previewed, then applied or withdrawn."},
	credit.PreviewChanged:      {409, "The preview is not this one", "Ask for a preview, look at it, and apply with its hash."},
	credit.AssignmentNotFound:  {404, "There is no such assignment", "Check the assignment's id: it belongs to one customer."},
	credit.UnitNotFound:        {404, "There is no such unit", "Check the unit's code; units are case-sensitive."},
	credit.EntityNotFound:      {404, "There is no such legal entity", "Check the legal entity's code."},
	credit.CatalogueNotFound:   {404, "There is no such catalogue of compute costs", "Check the catalogue's number."},
	credit.QuarantineNotFound:  {404, "There is no such quarantined usage", "Check its id."},
	credit.MethodNotAllowed:    {405, "The method is not allowed here", "Allow names the methods of this path."},
	credit.AlreadyExists:       {409, "It exists already", "Use the existing one, or another name."},
	credit.GrantExpired:        {409, "The grant has expired", "Make a new grant."},
	credit.GrantNotExpired:     {409, "The grant has not expired", "Nothing is to be done before its expiry."},
	credit.GrantState:          {409, "The grant's state does not allow this", "state says how the grant stands."},
	credit.HoldNotFound:        {404, "There is no such hold", "Check the id."},
	credit.HoldEnded:           {409, "The hold has ended", "state says how. What was captured stays; make a new hold for more."},
	credit.CaptureExceedsHold:  {409, "More is to be captured than is held", "Capture less, extend the hold, or choose another policy with over; held says how much there is."},
	credit.NotRefundable:       {409, "That much cannot be refunded", "refundable says how many credits can be."},
	credit.PeriodClosed:        {409, "The accounting period is closed", "Choose an open period."},
	credit.PeriodOrder:         {409, "Another accounting period comes first", "Close the oldest open period first, reopen the newest closed one first."},
	credit.CloseNotFound:       {404, "There is no such close of a period", "Check entity, period and version; a close begins with POST …/close."},
	credit.CloseState:          {409, "The state of the close does not allow this", "state says how it stands."},
	credit.PackChanged:         {409, "Another close pack is in review", "Look at the pack that is in review, and approve its hash."},
	credit.SecondPerson:        {403, "Another person has to decide", "Whoever prepares does not approve: use the key of another person."},
	credit.JournalNotFound:     {404, "There is no such manual journal", "Check its id."},
	credit.JournalState:        {409, "The manual journal is decided", "state says how. Prepare another one."},
	credit.AccountNotMapped:    {409, "An account has no name in the other system", "Add accounts to the mapping of the legal entity and system; then repeat the request."},
	credit.NotExportable:       {409, "The other system cannot take this", "The detail says what; choose another detail, or another system."},
	credit.NotSealed:           {409, "No seal has the journal entry yet", "Seal its period, and repeat the request."},
	credit.SealBroken:          {409, "The books are not what was sealed", "Have them looked into: tallystick audit verify names the entries. Nothing was sealed."},
	credit.NoSealingKey:        {409, "There is no key to seal with", "Make one, and name its file to every process with --seal-key."},
	credit.EstimateExceeded:    {409, "More was used than was expected to be", "Estimate anew, and have it approved; then repeat the run."},
	credit.PolicyNotFound:      {404, "There is no such accounting policy", "Check its id."},
	credit.EstimateNotFound:    {404, "There is no such breakage estimate", "Check its id."},
	credit.SelfApproval:        {409, "Who prepared it cannot approve it", "Have somebody else approve it, with an API key of their own."},
	credit.PolicyTooLate:       {409, "The period is booked by another policy already", "Prepare the policy for a later period, one that nothing is booked in."},
	credit.DraftChanged:        {409, "The draft has changed", "Review it again; revision says where it stands."},
	credit.VersionInForce:      {409, "The version is in force, or about to be", "What may have priced an event stays. Publish another version."},
	credit.AssignmentOverlaps:  {409, "Another rate card is assigned for that time", "End the other assignment first, or choose another time."},
	credit.DimensionConflict:   {409, "The dimensions contradict the response", "Leave out what the provider's response says itself, or correct it."},
	credit.NotCorrectable:      {409, "The operation cannot be corrected so", "correctable says how much of it can still be given back; the detail says what stands in the way."},
	credit.DisputeState:        {409, "The payment dispute does not admit this", "state says how the dispute stands; a person has to look into what contradicts it."},
	credit.TopUpNotFound:       {404, "There is no such top-up, or rule for top-ups", "Check the id of the top-up or of the wallet."},
	credit.TopUpState:          {409, "The top-up does not admit this", "state says how it stands. A payment that came too late, or twice, is to be given back."},
	credit.QuarantineState:     {409, "The quarantined usage does not wait any more", "state says what became of it."},
	credit.TooLarge:            {413, "The request body is too large", "Send less; split a batch."},
	credit.UnsupportedMedia:    {415, "The content type is not supported", "Send application/json, or the type that the operation names, in UTF-8 and not compressed."},
	credit.NoRate:              {422, "No rate prices this usage", "Publish a rate that matches the meter and its dimensions, or correct them; then repeat the request."},
	credit.NoFXRate:            {422, "There is no exchange rate", "Import or enter one of the day or of few days before; then repeat the request."},
	credit.UnknownProvider:     {422, "The model provider is not known", "Name the provider as the price catalogue does, or add it there."},
	credit.UnknownFlavour:      {422, "The format of the response is not known", "Name the flavour of the response; the detail lists those of the provider."},
	credit.UnknownModel:        {422, "The model is not known", "Add the model to the price catalogue, or name it as the catalogue does."},
	credit.NoUsage:             {422, "The response does not say what was used", "Send the whole response of the provider, or its usage with provider and model."},
	credit.InvalidUsage:        {422, "The usage in the response cannot be", "Check the numbers where the detail points; nothing was charged."},
	credit.RequestMismatch:     {422, "The idempotency key was used for another request", "Use a new key for a new request; repeat a request exactly."},
	credit.TooOld:              {422, "The usage is too old", "Usage is accepted for 34 days after it took place."},
	credit.InFuture:            {422, "The instant lies in the future", "Check the clock that made the timestamp."},
	credit.Overloaded:          {429, "Too many requests are waiting", "No decision was made. Repeat with the same key after Retry-After, waiting longer each time."},
	credit.Internal:            {500, "Something went wrong here", "Repeat with the same key; if it stays, report request_id."},
	credit.NotExecuted:         {503, "Nothing was done", "This attempt changed nothing. Repeat with the same key after Retry-After."},
	credit.OutcomeUnknown:      {503, "The outcome is not known yet", "Repeat with the same key until the answer is another one."},
	credit.CustomerFrozen:      {503, "The customer is frozen", "Its books and balances differ and a person is looking into it. Repeat with the same key later."},
	credit.ClockSkew:           {503, "This server's clock is wrong", "Nothing was done. Repeat with the same key; another server may answer."},
}

// retryAfter is how many seconds a caller should wait before it repeats a request that was not decided.
const retryAfter = 1

// refusalOf turns any error of a handler into the refusal that the caller sees. A fault becomes a bare internal one.
func refusalOf(err error, changes bool) *credit.Error {
	var e *credit.Error
	switch {
	case errors.As(err, &e):
		if _, ok := kinds[e.Code]; ok {
			return e
		}
	case errors.Is(err, db.ErrUnknown):
		return credit.Errorf(credit.OutcomeUnknown, "The outcome is not known yet; repeat the request with the same key until it is.")
	case db.IsDown(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		if changes {
			return credit.Errorf(credit.OutcomeUnknown, "The database did not answer; repeat the request with the same key until it does.")
		}
		return credit.Errorf(credit.NotExecuted, "The database did not answer.")
	}
	return credit.Errorf(credit.Internal, "The request could not be handled; the fault has been logged.")
}

// appendProblem writes the RFC 9457 document of a refusal. The refusal of an operation that was kept under its key names the first attempt,
// so that it reads the same whenever it is repeated.
func appendProblem(b []byte, e *credit.Error, id credit.RequestID) []byte {
	k := kinds[e.Code]
	request := ""
	if first, ok := e.Fields["request_id"].(string); ok {
		request = first
	} else {
		request = id.String()
	}
	b = append(b, `{"type":"/problems/`...)
	b = append(b, e.Code...)
	b = append(b, `","title":`...)
	b = appendString(b, k.title)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(k.status), 10)
	b = append(b, `,"detail":`...)
	b = appendString(b, e.Detail)
	b = append(b, `,"instance":`...)
	b = appendString(b, request)
	b = append(b, `,"code":"`...)
	b = append(b, e.Code...)
	b = append(b, `","request_id":`...)
	b = appendString(b, request)
	for _, name := range slices.Sorted(maps.Keys(e.Fields)) {
		if name == "request_id" {
			continue
		}
		b = append(b, ',')
		b = appendString(b, name)
		b = append(b, ':')
		b = appendValue(b, e.Fields[name])
	}
	if len(e.Issues) > 0 {
		b = append(b, `,"errors":[`...)
		for i, issue := range e.Issues {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"pointer":`...)
			b = appendString(b, issue.Pointer)
			b = append(b, `,"detail":`...)
			b = appendString(b, issue.Detail)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendValue(b []byte, v any) []byte {
	if s, ok := v.(string); ok {
		return appendString(b, s)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return append(b, "null"...)
	}
	return append(b, text...)
}

var (
	typeJSON    = []string{"application/json"}
	typeCSV     = []string{"text/csv"}
	typeProblem = []string{"application/problem+json"}
	bearer      = []string{`Bearer realm="tallystick"`}
	soon        = []string{strconv.Itoa(retryAfter)}
)

// writeProblem answers with a refusal and returns its status.
func writeProblem(w http.ResponseWriter, e *credit.Error, id credit.RequestID) int {
	k := kinds[e.Code]
	h := w.Header()
	h["Content-Type"] = typeProblem
	switch k.status {
	case http.StatusUnauthorized:
		h["Www-Authenticate"] = bearer
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h["Retry-After"] = soon
	case http.StatusRequestEntityTooLarge:
		h.Set("Connection", "close") // what is left of the body is not read
	}
	w.WriteHeader(k.status)
	buf := buffers.get()
	defer buffers.put(buf)
	*buf = appendProblem(*buf, e, id)
	_, _ = w.Write(*buf) // a client that has gone does not need the answer
	return k.status
}
