package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/provider"
	"github.com/tallystick/tallystick/credit/rating"
)

// usageEvent is one report of usage, of whatever form it came in.
type usageEvent struct {
	in      consumption
	ignored string // why it is not to be charged; "": it is
	err     error  // why it cannot be read; then as much of in is set as could be
}

// Bounds of usage events.
const (
	maxUsageEvents = 10_000  // in one call that is not a stream
	maxEvent       = 1 << 20 // bytes of one
	maxEventName   = 255     // characters of source and id
)

// Forms of the events of a call.
type eventForm int

const (
	plainForm eventForm = iota
	cloudForm
	liteForm
)

// eventsFormat is how the events of a call are to be read.
type eventsFormat struct {
	form eventForm
	lite liteMapping
}

// read reads one event.
func (f *eventsFormat) read(text string) usageEvent {
	if len(text) > maxEvent {
		return usageEvent{err: credit.Errorf(credit.TooLarge, "The event is larger than %d bytes.", maxEvent).With("limit", maxEvent)}
	}
	switch f.form {
	case cloudForm:
		return f.readCloud(text)
	case liteForm:
		return f.lite.read(text)
	}
	e := usageEvent{in: consumption{reported: reported{event: true}}}
	var r reader
	e.err = readWhole(&r, text, &e.in)
	if e.err == nil {
		e.err = e.in.checkReported("/time", "/customer")
	}
	return e
}

// readWhole reads a text as the object of one event.
func readWhole(r *reader, text string, in *consumption) error {
	if err := r.start(text); err != nil {
		return err
	}
	if err := in.read(r, false); err != nil {
		return err
	}
	return r.end()
}

// readReported reads a field that only events have, and refuses those that they have not. its is false when the field is any consumption's.
func (in *consumption) readReported(r *reader, name string) (its bool, err error) {
	switch name {
	case "timestamp", "idempotency_key", "on_unpriced":
		return true, r.unknown()
	case "id", "source", "time":
		if in.enveloped {
			return true, r.refuse("This stands in the attributes of the event.")
		}
	}
	switch name {
	case "id":
		return true, text(&in.id, maxEventName)(r)
	case "source":
		return true, text(&in.source, maxEventName)(r)
	case "time":
		in.timestamp, err = r.instant()
		return true, err
	}
	return false, nil
}

// checkReported refuses an event that lacks what every event has. time and customer say where these stand.
func (in *consumption) checkReported(time, customer string) error {
	var missing *credit.Error
	for _, f := range []struct {
		at    string
		given bool
	}{{"/id", in.id != ""}, {"/source", in.source != ""}, {time, !in.timestamp.IsZero()}, {customer, in.customer != ""}} {
		if !f.given {
			if missing == nil {
				missing = credit.Errorf(credit.InvalidRequest, "A required field is missing.")
			}
			missing.Issues = append(missing.Issues, credit.Issue{Pointer: f.at, Detail: "Every usage event has this."})
		}
	}
	if missing != nil {
		return missing
	}
	return nil
}

// splitEvents divides a body into the texts of its events, without reading them. wrapper says that {"events": […]} is one of the forms.
func splitEvents(body string, wrapper bool) ([]string, error) {
	var r reader
	if err := r.start(body); err != nil {
		return nil, err
	}
	var texts []string
	one := func() error {
		r.space()
		from := r.i
		if err := r.pass(); err != nil {
			return err
		}
		texts = append(texts, r.doc[from:r.i])
		return nil
	}
	list := func(r *reader) error {
		return r.array(func(i int) error {
			if i == maxUsageEvents {
				return r.refuse("A call has at most %d events.", maxUsageEvents)
			}
			return one()
		})
	}
	var err error
	switch {
	case r.peek() == '[':
		err = list(&r)
	case r.peek() != '{':
		err = r.wrongType("an event or a list of events")
	case wrapper && firstName(r) == "events":
		err = r.fields(required("events", list))
	default:
		err = one()
	}
	if err == nil {
		err = r.end()
	}
	if err == nil && len(texts) == 0 {
		err = credit.Invalid("", "There are no events.")
	}
	return texts, err
}

// firstName returns the name of the first member of the object that comes next; "" when there is none.
func firstName(r reader) string {
	if !r.take('{') || r.peek() != '"' {
		return ""
	}
	name, err := r.text()
	if err != nil {
		return ""
	}
	return name
}

// document writes the consumption as POST /v1/consume would take it: what is kept in quarantine.
func (in *consumption) document() string {
	doc := map[string]any{"customer": in.customer, "timestamp": instantText(in.timestamp)}
	set := func(name, value string) {
		if value != "" {
			doc[name] = value
		}
	}
	set("member", in.member)
	set("unit", in.unit)
	set("amount", in.amount)
	set("reason", in.reason)
	if len(in.dims) > 0 {
		doc["dimensions"] = in.dims
	}
	if in.partial {
		doc["partial"] = true
	}
	if p := in.response; p != nil {
		response := map[string]any{}
		for name, value := range map[string]string{"provider": p.Provider, "flavour": p.Flavour, "model": p.Model} {
			if value != "" {
				response[name] = value
			}
		}
		if p.Usage != nil {
			response["usage"] = json.RawMessage(p.Usage)
		} else {
			response["body"] = json.RawMessage(p.Body)
		}
		doc["response"] = response
	}
	if in.usage != nil {
		lines := make([]map[string]any, len(in.usage))
		for i, l := range in.usage {
			lines[i] = map[string]any{"meter": l.Meter, "quantity": in.texts[i]}
			if len(l.Dims) > 0 {
				lines[i]["dimensions"] = l.Dims
			}
			if l.Cost.Currency != "" {
				lines[i]["cost"] = map[string]string{"amount": l.Cost.Amount.String(), "currency": l.Cost.Currency}
			}
		}
		doc["usage"] = lines
	}
	b, err := json.Marshal(doc)
	if err != nil { // never: all of it came out of JSON, or is text
		return "{}"
	}
	return shortened(string(b))
}

// eventDigest tells events of the same source and id apart by what they say: names as they are given, so that an event is the same before and
// after its customer is there.
func (in *consumption) eventDigest() (_ [16]byte, err error) {
	buf := buffers.get()
	defer buffers.put(buf)
	b := append(*buf, "event\x00"...)
	for _, part := range []string{in.customer, in.member, strconv.FormatInt(in.timestamp.UnixMicro(), 10), in.unit, amountText(in.amount), in.reason} {
		b = appendPart(b, part)
	}
	b = strconv.AppendBool(b, in.partial)
	b = strconv.AppendInt(b, int64(len(in.usage)), 10)
	for i := range in.usage {
		b = appendPart(b, in.usage[i].Meter)
		b = appendPart(b, in.texts[i])
		b = appendDimensions(b, in.usage[i].Dims)
	}
	b = appendDimensions(b, in.dims)
	if b, err = in.appendResponse(b); err != nil {
		return [16]byte{}, err
	}
	*buf = b
	return balance.RequestDigest(string(b)), nil
}

// amountText is an amount without the zeros that do not count, when it is one.
func amountText(s string) string {
	if !plainDecimal(s, 20, 12) {
		return s
	}
	return shortest(s)
}

// Types of CloudEvents whose data is not the body of an event of our own.
const (
	cloudResponse = "tallystick.response" // what a model provider answered, which the attributes provider, model and flavour tell more of
	cloudLiteLLM  = "litellm_tokens"      // what LiteLLM's openmeter callback sends
)

// cloudAttributes are those of a CloudEvent that are looked at; others are passed over.
type cloudAttributes struct {
	specversion, id, source, kind, subject, time, contentType, provider, model, flavour string
}

func (a *cloudAttributes) of(name string) *string {
	switch name {
	case "specversion":
		return &a.specversion
	case "id":
		return &a.id
	case "source":
		return &a.source
	case "type":
		return &a.kind
	case "subject":
		return &a.subject
	case "time":
		return &a.time
	case "datacontenttype":
		return &a.contentType
	case "provider":
		return &a.provider
	case "model":
		return &a.model
	case "flavour":
		return &a.flavour
	}
	return nil
}

// readCloud reads a CloudEvent in the structured mode of CloudEvents 1.0.
func (f *eventsFormat) readCloud(text string) usageEvent {
	var a cloudAttributes
	var r reader
	var data string
	err := r.start(text)
	if err == nil {
		err = r.object(func(name string) (err error) {
			switch into := a.of(name); {
			case into != nil:
				if r.null() {
					return nil
				}
				*into, err = r.text()
			case name == "data":
				r.space()
				from := r.i
				err = r.pass()
				data = r.doc[from:r.i]
			case name == "data_base64":
				var s string
				if s, err = r.text(); err == nil {
					var b []byte
					if b, err = base64.StdEncoding.DecodeString(s); err != nil {
						return r.refuse("This is not base64.")
					}
					data = string(b)
				}
			default:
				err = r.pass()
			}
			return err
		})
	}
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return usageEvent{in: consumption{reported: reported{event: true, source: a.source, id: a.id}}, err: err}
	}
	return f.ofCloud(&a, data)
}

// headerCloud reads a CloudEvent in the binary mode of CloudEvents' HTTP binding: attributes are headers, data is the body.
func (f *eventsFormat) headerCloud(h http.Header, data string) usageEvent {
	var a cloudAttributes
	if len(data) > maxEvent {
		return usageEvent{err: credit.Errorf(credit.TooLarge, "The event is larger than %d bytes.", maxEvent).With("limit", maxEvent)}
	}
	for name, values := range h {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, "ce-") {
			continue
		}
		into := a.of(lower[len("ce-"):])
		if into == nil {
			continue
		}
		s, err := url.PathUnescape(strings.Trim(values[0], `"`))
		if err != nil || len(values) != 1 || !clean(s) {
			return usageEvent{err: credit.Invalid(lower, "The header comes once, in the encoding of CloudEvents.")}
		}
		*into = s
	}
	return f.ofCloud(&a, data)
}

// ofCloud makes the event of a CloudEvent's attributes and data.
func (f *eventsFormat) ofCloud(a *cloudAttributes, data string) usageEvent {
	e := usageEvent{in: consumption{reported: reported{event: true, enveloped: true, source: a.source, id: a.id}, customer: a.subject}}
	e.err = func() error {
		if a.specversion != "1.0" {
			return credit.Invalid("/specversion", "This must be 1.0.")
		}
		if a.kind == "" {
			return credit.Invalid("/type", "This attribute is required.")
		}
		for at, s := range map[string]string{"/id": a.id, "/source": a.source} {
			if s != "" && (len([]rune(s)) > maxEventName || !printable(s)) {
				return credit.Invalid(at, "This must be 1 to %d printable characters.", maxEventName)
			}
		}
		if media, _, _ := strings.Cut(a.contentType, ";"); media != "" && media != "application/json" && !strings.HasSuffix(media, "+json") {
			return credit.Invalid("/datacontenttype", "The data must be JSON.")
		}
		if a.time != "" {
			var ok bool
			if e.in.timestamp, ok = parseInstant(a.time); !ok {
				return credit.Invalid("/time", "%.40q is not an RFC 3339 instant such as 2026-01-31T12:00:00Z.", a.time)
			}
		}
		if data == "" {
			return credit.Invalid("/data", "There is no data.")
		}
		switch a.kind {
		case cloudResponse:
			if !strings.HasPrefix(strings.TrimSpace(data), "{") || !clean(data) || !json.Valid([]byte(data)) {
				return credit.Invalid("/data", "This must be the response of a provider, an object.")
			}
			if a.provider == "" {
				return credit.Invalid("/provider", "The extension attribute provider says whose response it is.")
			}
			for _, f := range []struct {
				at, value string
				limit     int
			}{{"/provider", a.provider, maxProviderName}, {"/model", a.model, maxModelName}, {"/flavour", a.flavour, maxFlavourName}} {
				if len(f.value) > f.limit || !printable(f.value) || f.value != "" && strings.TrimSpace(f.value) == "" {
					return credit.Invalid(f.at, "This must be 1 to %d printable bytes.", f.limit)
				}
			}
			e.in.response = &provider.Response{Provider: a.provider, Model: a.model, Flavour: a.flavour, Body: []byte(data)}
		case cloudLiteLLM:
			if err := f.lite.readTokens(&e.in, data); err != nil {
				return under("/data", err)
			}
		default:
			var r reader
			e.in.customer = ""
			if err := readWhole(&r, data, &e.in); err != nil {
				return under("/data", err)
			}
			switch {
			case e.in.customer == "":
				e.in.customer = a.subject
			case a.subject != "" && a.subject != e.in.customer:
				return credit.Invalid("/data/customer", "The subject of the event is another one.")
			}
		}
		return e.in.checkReported("/time", "/subject")
	}()
	return e
}

// under says that the places that a refusal names lie below another.
func under(at string, err error) error {
	e, ok := err.(*credit.Error)
	if !ok {
		return err
	}
	moved := *e
	moved.Issues = slices.Clone(e.Issues)
	for i := range moved.Issues {
		moved.Issues[i].Pointer = at + moved.Issues[i].Pointer
	}
	return &moved
}

// liteMapping is how what LiteLLM sends becomes a usage event. Its parts are parameters of the query.
type liteMapping struct {
	source    string              // of the events
	customers [][]string          // where the customer may be named, the first that is counts
	customer  string              // who it is when none is; "": then the event is refused
	members   [][]string          // where the member may be named
	dims      map[string][]string // dimensions, and where their values are
	provider  string              // who is asked; "": as LiteLLM says
	meter     string              // of tokens, which then are the usage; "": the catalogue of compute costs divides it
	hits      bool                // answers out of LiteLLM's cache are ignored
}

// defaultCustomers are where LiteLLM names who has asked.
var defaultCustomers = [][]string{{"end_user"}, {"metadata", "user_api_key_end_user_id"}, {"metadata", "user_api_key_team_id"}}

const dimensionParameter = "dimension."

// readMapping reads the parameters of a query that say how LiteLLM's events are read, and takes them away.
func readMapping(q url.Values) (m liteMapping, err error) {
	m = liteMapping{source: "litellm", customers: defaultCustomers}
	for name, values := range q {
		value := values[0]
		if len(values) != 1 || value == "" || len(value) > maxEventName || !printable(value) {
			return m, credit.Invalid(name, "This parameter has one value of 1 to %d printable characters.", maxEventName)
		}
		switch {
		case name == "source":
			m.source = value
		case name == "customer":
			m.customer = value
		case name == "customer_from":
			m.customers = litePaths(value)
		case name == "member_from":
			m.members = litePaths(value)
		case name == "provider":
			m.provider = value
		case name == "meter":
			if m.meter = value; len(value) > 64 {
				return m, credit.Invalid(name, "The code of a meter has 1 to 64 printable bytes.")
			}
		case name == "cache_hits":
			if value != "charge" && value != "ignore" {
				return m, credit.Invalid(name, "This must be charge or ignore.")
			}
			m.hits = value == "ignore"
		case strings.HasPrefix(name, dimensionParameter):
			if m.dims == nil {
				m.dims = make(map[string][]string)
			}
			m.dims[name[len(dimensionParameter):]] = strings.Split(value, ".")
		default:
			continue
		}
		delete(q, name)
	}
	return m, nil
}

func litePaths(s string) (out [][]string) {
	for p := range strings.SplitSeq(s, ",") {
		out = append(out, strings.Split(p, "."))
	}
	return out
}

// litePayload is an object of LiteLLM's.
type litePayload map[string]any

func readLite(text string) (litePayload, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var p litePayload
	if err := d.Decode(&p); err != nil || p == nil {
		return nil, credit.Invalid("", "This is not an object.")
	}
	return p, nil
}

// at returns what is at a path; nil: nothing.
func (p litePayload) at(path ...string) any {
	var v any = map[string]any(p)
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

// text returns the text or the whole number at a path; "" when there is none.
func (p litePayload) text(path ...string) string {
	switch v := p.at(path...).(type) {
	case string:
		return v
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return strconv.FormatInt(n, 10)
		}
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

func (p litePayload) first(paths [][]string) string {
	for _, path := range paths {
		if s := p.text(path...); s != "" {
			return s
		}
	}
	return ""
}

// count returns the whole number at a path, 0 when there is none or it is null. Others are refused.
func (p litePayload) count(path ...string) (int64, error) {
	v := p.at(path...)
	if v == nil {
		return 0, nil
	}
	n, ok := v.(json.Number)
	if ok {
		if i, err := n.Int64(); err == nil && i >= 0 && i < 1<<53 {
			return i, nil
		}
	}
	return 0, credit.Invalid("/"+strings.Join(path, "/"), "This must be a whole number of tokens.")
}

// read reads a StandardLoggingPayload, which LiteLLM's generic_api callback sends.
func (m *liteMapping) read(text string) usageEvent {
	e := usageEvent{in: consumption{reported: reported{event: true, source: m.source}}}
	var r reader
	if e.err = r.start(text); e.err != nil {
		return e
	}
	p, err := readLite(text)
	if err != nil {
		e.err = err
		return e
	}
	e.in.id = p.text("id")
	if status := p.text("status"); status == "failure" || status == "" && p.text("error_str") != "" {
		e.ignored = "The call failed at the provider."
		return e
	}
	if m.hits && p.at("cache_hit") == true {
		e.ignored = "LiteLLM answered out of its cache."
		return e
	}
	e.err = func() (err error) {
		if len([]rune(e.in.id)) > maxEventName || !printable(e.in.id) {
			return credit.Invalid("/id", "This must be 1 to %d printable characters.", maxEventName)
		}
		if e.in.timestamp, err = liteTime(p); err != nil {
			return err
		}
		if e.in.customer = p.first(m.customers); e.in.customer == "" {
			e.in.customer = m.customer
		}
		e.in.member = p.first(m.members)
		for name, path := range m.dims {
			if value := p.text(path...); value != "" {
				if e.in.dims == nil {
					e.in.dims = make(credit.Dimensions)
				}
				e.in.dims[name] = value
			}
		}
		counts := p
		for _, path := range [][]string{{"metadata", "usage_object"}, {"response", "usage"}} {
			if o, ok := p.at(path...).(map[string]any); ok && o["prompt_tokens"] != nil {
				counts = o
				break
			}
		}
		by := m.provider
		if by == "" {
			by = p.text("custom_llm_provider")
		}
		if err := m.use(&e.in, counts, p.text("model"), by, p.at("response_cost")); err != nil {
			return err
		}
		return e.in.checkReported("/endTime", "/end_user")
	}()
	return e
}

// liteTime returns when a call ended, or began: seconds since 1970, or an instant.
func liteTime(p litePayload) (time.Time, error) {
	for _, name := range []string{"endTime", "startTime"} {
		switch v := p[name].(type) {
		case json.Number:
			d, err := decimal.NewFromString(v.String()[:min(len(v), 40)])
			if err == nil && len(v) <= 40 && d.Exponent() > -40 && d.Exponent() < 12 && d.IsPositive() && d.LessThan(decimal.New(1, 11)) {
				return time.UnixMicro(d.Shift(6).IntPart()).UTC(), nil
			}
		case string:
			if t, ok := parseInstant(v); ok {
				return t, nil
			}
		case nil:
			continue
		}
		return time.Time{}, credit.Invalid("/"+name, "This is no time.")
	}
	return time.Time{}, nil
}

// readTokens reads the data of an event of LiteLLM's openmeter callback. It has no counts of what was cached.
func (m *liteMapping) readTokens(in *consumption, data string) error {
	p, err := readLite(data)
	if err != nil {
		return err
	}
	return m.use(in, p, p.text("model"), m.provider, p.at("cost"))
}

// use fills in what was used: LiteLLM's counts have what was read from or written to a cache in the prompt.
func (m *liteMapping) use(in *consumption, counts litePayload, model, by string, cost any) error {
	var n struct{ prompt, completion, read, write, reasoning int64 }
	for _, c := range []struct {
		into  *int64
		paths [][]string
	}{
		{&n.prompt, [][]string{{"prompt_tokens"}}},
		{&n.completion, [][]string{{"completion_tokens"}}},
		{&n.read, [][]string{{"prompt_tokens_details", "cached_tokens"}, {"cache_read_input_tokens"}}},
		{&n.write, [][]string{{"prompt_tokens_details", "cache_write_tokens"}, {"prompt_tokens_details", "cache_creation_tokens"}, {"cache_creation_input_tokens"}}},
		{&n.reasoning, [][]string{{"completion_tokens_details", "reasoning_tokens"}}},
	} {
		for _, path := range c.paths {
			v, err := counts.count(path...)
			if err != nil {
				return err
			}
			if *c.into == 0 {
				*c.into = v
			}
		}
	}
	if strings.TrimSpace(model) == "" || len(model) > maxModelName || !printable(model) || len(by) > maxProviderName || !printable(by) || by != "" && strings.TrimSpace(by) == "" {
		return credit.Invalid("/model", "The event names a model of 1 to %d printable bytes.", maxModelName)
	}
	if m.meter == "" {
		usage, err := json.Marshal(map[string]any{"prompt_tokens": n.prompt, "completion_tokens": n.completion,
			"prompt_tokens_details":     map[string]int64{"cached_tokens": n.read, "cache_write_tokens": n.write},
			"completion_tokens_details": map[string]int64{"reasoning_tokens": n.reasoning}})
		if err != nil {
			return fmt.Errorf("write usage: %w", err)
		}
		in.response = &provider.Response{Provider: by, Flavour: "chat", Model: model, Usage: usage}
		return credit.CheckDimensions(in.dims)
	}
	if n.read+n.write > n.prompt {
		return credit.Errorf(credit.InvalidUsage, "More of the prompt was cached than there is of it.")
	}
	if in.dims == nil {
		in.dims = make(credit.Dimensions)
	}
	if in.dims["model"] == "" {
		in.dims["model"] = model
	}
	in.usage = []rating.Line{}
	for _, part := range []struct {
		kind string
		n    int64
	}{{"input", n.prompt - n.read - n.write}, {"cache_read", n.read}, {"cache_write", n.write}, {"output", n.completion}} {
		if part.n > 0 {
			in.usage = append(in.usage, rating.Line{Meter: m.meter, Quantity: decimal.New(part.n, 0), Dims: credit.Dimensions{"token_type": part.kind}})
			in.texts = append(in.texts, strconv.FormatInt(part.n, 10))
		}
	}
	if len(in.usage) == 0 {
		return credit.Errorf(credit.NoUsage, "No tokens were used.")
	}
	if c, ok := liteCost(cost); ok {
		in.usage[0].Cost = rating.ComputeCost{Amount: c, Currency: provider.Currency}
	}
	return credit.CheckDimensions(in.dims)
}

// liteCost reads what LiteLLM says that a call cost, in USD. It is a figure of the receipt, not a price.
func liteCost(v any) (decimal.Decimal, bool) {
	n, ok := v.(json.Number)
	if !ok || len(n) > 64 {
		return decimal.Decimal{}, false
	}
	d, err := decimal.NewFromString(n.String())
	if err != nil || d.Exponent() < -300 || d.Exponent() > 12 || !d.IsPositive() || d.GreaterThan(decimal.New(1, 12)) {
		return decimal.Decimal{}, false
	}
	return d.Round(rating.CostPlaces), true
}
