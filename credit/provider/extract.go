package provider

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/tallystick/tallystick/credit"
)

// Response is what a provider answered, whole or only its usage.
type Response struct {
	Provider string // an id or other name; "": found by the model, when only one comes into question
	Flavour  string // which format the response has, such as chat or responses; "": found by the usage, when that is unambiguous
	Model    string // "": as the response says
	Body     []byte // the response as it came, JSON of at most 64 MiB
	Usage    []byte // instead of Body: what stands in it where its flavour has the usage, {"prompt_tokens": 12, …}
}

const maxBody = 64 << 20

// Extraction is what was used, as read from a response.
type Extraction struct {
	Provider string // the id of the provider that served the request
	Flavour  string
	ModelRef string // the model as the response or the caller names it; "": it is not named
	Model    Found  // zero when the model is not known
	Usage    Usage
	Raw      []byte // the usage as the provider wrote it: a part of what was given, not a copy

	extractor *extractor
}

// extractor reads the usage from responses of one flavour.
type extractor struct {
	flavour   string
	root      path // to the object with the usage
	modelPath path
	mappings  []mapping
	unusable  string // why it cannot be used; "": it can
}

// mapping adds the number at path to a unit.
type mapping struct {
	path     path
	unit     Unit
	required bool
}

// path leads into a JSON value, a step at a time.
type path []step

// step goes to the member of a name or, with match, to the elements of a list whose field of that name is a text that matches.
type step struct {
	name  string
	match *clause
}

func (p path) String() string {
	parts := make([]string, len(p))
	for i, s := range p {
		parts[i] = s.name
		if s.match != nil {
			parts[i] = "[" + s.name + " " + s.match.String() + "]"
		}
	}
	return strings.Join(parts, ".")
}

// Extract reads the usage from a response.
//
// Refusals are coded unknown_provider, unknown_flavour (also when several could be meant that read different numbers), no_usage (it is
// not where it should be), invalid_usage (a number is negative, no whole number or beyond 2^53-1; Issues point to it), invalid_request
// (the body is no JSON), and unknown_model: then, and only then, the Extraction is complete except for Model, so that it can be kept
// until the model is known.
func (c *Catalogue) Extract(r Response) (Extraction, error) {
	text := r.Body
	if (len(r.Body) == 0) == (len(r.Usage) == 0) {
		return Extraction{}, credit.Errorf(credit.InvalidRequest, "Either the body of a response is needed, or its usage.")
	}
	if len(r.Usage) > 0 {
		text = r.Usage
	}
	if len(text) > maxBody {
		return Extraction{}, credit.Errorf(credit.InvalidRequest, "A response is at most %d MiB.", maxBody>>20)
	}
	if !json.Valid(text) {
		return Extraction{}, credit.Invalid("", "The response cannot be read: %v.", syntaxFault(text))
	}
	var top members
	if len(r.Usage) == 0 {
		top = membersOf(text)
	}

	s, err := c.sellerFor(&r, top)
	if err != nil {
		return Extraction{}, err
	}
	x := Extraction{Provider: s.id}
	if err := s.extract(&x, &r, top); err != nil {
		return Extraction{}, err
	}
	x.ModelRef = r.Model
	if x.ModelRef == "" {
		x.ModelRef = modelAt(top, x.extractor.modelPath)
	}
	m, err := s.find(x.ModelRef)
	if err != nil {
		return x, err
	}
	x.Model = m.found(s)
	return x, nil
}

// sellerFor returns the provider that a response is of.
func (c *Catalogue) sellerFor(r *Response, top members) (*seller, error) {
	if r.Provider != "" || r.Model != "" {
		return c.seller(r.Provider, r.Model)
	}
	model := ""
	for _, s := range c.providers {
		for _, e := range s.extractors {
			if named := modelAt(top, e.modelPath); model == "" {
				model = named
			} else if named != "" && named != model {
				return nil, credit.Errorf(credit.UnknownProvider, "The response names the models %.100q and %.100q: name the provider.", model, named)
			}
		}
	}
	return c.seller("", model)
}

func modelAt(top members, p path) string {
	raw, _ := top.find(p)
	if len(raw) == 0 || raw[0] != '"' {
		return ""
	}
	return unquote(raw)
}

// extract completes x by the extractor of the flavour that is named or, when none is, by the one that understands the usage best.
func (s *seller) extract(x *Extraction, r *Response, top members) error {
	if r.Flavour != "" {
		for _, e := range s.extractors {
			if e.flavour == r.Flavour {
				_, err := e.extract(x, r, top, nil)
				return err
			}
		}
		return s.noFlavour("%s has no flavour %.60q", s.id, r.Flavour)
	}

	// A flavour that reads only some of the fields that another one reads is not it: Anthropic's format, say, read as OpenAI's
	// responses would lose the cache.
	type reading struct {
		x     Extraction
		reads []int
	}
	var readings []reading
	var missing error
	for _, e := range s.extractors {
		attempt := reading{x: *x}
		reads, err := e.extract(&attempt.x, r, top, make([]int, 0, 16))
		switch {
		case credit.CodeOf(err) == credit.NoUsage:
			missing = err
			continue
		case err != nil:
			return err // another flavour might read past the fault
		}
		slices.Sort(reads)
		attempt.reads = slices.Compact(reads)
		readings = append(readings, attempt)
	}
	var best []reading
	for i, a := range readings {
		if !slices.ContainsFunc(readings, func(b reading) bool { return len(b.reads) > len(a.reads) && subset(a.reads, b.reads) }) {
			best = append(best, readings[i])
		}
	}
	switch {
	case len(best) == 0 && len(s.extractors) == 1:
		return missing
	case len(best) == 0 && missing != nil:
		return credit.Errorf(credit.NoUsage, "There is no usage in the response in any format of %s.", s.id)
	case len(best) == 0:
		return s.noFlavour("The format of %s's responses is not known", s.id)
	}
	for _, other := range best[1:] {
		if other.x.Usage != best[0].x.Usage {
			return s.noFlavour("The response may be of flavour %s or %s, which differ in what was used", best[0].x.Flavour, other.x.Flavour)
		}
	}
	*x = best[0].x
	return nil
}

func (s *seller) noFlavour(format string, args ...any) error {
	e := credit.Errorf(credit.UnknownFlavour, format+".", args...)
	var have []string
	for _, x := range s.extractors {
		have = append(have, x.flavour)
	}
	if have != nil {
		e.Detail = strings.TrimSuffix(e.Detail, ".") + "; there are " + strings.Join(have, ", ") + "."
	}
	return e.With("provider", s.id)
}

func subset(a, b []int) bool {
	for _, v := range a {
		if _, ok := slices.BinarySearch(b, v); !ok {
			return false
		}
	}
	return true
}

// extract reads the usage into x. When reads is not nil, it returns it with where in the text the numbers that it has read stand.
func (e *extractor) extract(x *Extraction, r *Response, top members, reads []int) ([]int, error) {
	if e.unusable != "" {
		return nil, credit.Errorf(credit.UnknownFlavour, "Flavour %s cannot be used: %s", e.flavour, e.unusable)
	}
	x.extractor, x.Flavour = e, e.flavour
	whole := r.Usage
	if len(whole) == 0 {
		raw, ok := top.find(e.root)
		if !ok {
			return nil, e.noUsage("has nothing at %s", e.root)
		}
		whole = raw
	}
	x.Raw = whole
	var room [64]node
	d, err := doc(room[:0]).parseValid(whole)
	if err != nil {
		return nil, credit.Invalid(e.at(r, nil), "The usage cannot be read: %v.", err)
	}
	if d[0].kind != '{' {
		return nil, e.noUsage("has no object at %s", e.root)
	}
	u := Usage{}
	for i := range e.mappings {
		m := &e.mappings[i]
		sum := &adder{d: d, places: m.unit.places(), reads: reads}
		sum.follow(m.path, 0)
		switch reads = sum.reads; {
		case sum.reason != "":
			return nil, invalidUsage(e.at(r, m.path), "%s", sum.reason)
		case !sum.found && m.required:
			return nil, e.noUsage("has no %s at %s", m.path, e.root)
		case !sum.found:
			continue
		}
		if u.counts[m.unit] += sum.n; u.counts[m.unit] > maxCount {
			return nil, invalidUsage(e.at(r, m.path), "With this, there are more %s than any request can use.", m.unit)
		}
		u.reported.add(m.unit)
	}
	if u.reported == 0 {
		return nil, e.noUsage("has no known count at %s", e.root)
	}
	u.ServiceTier = serviceTier(d, top)
	x.Usage = u
	return reads, nil
}

// serviceTier returns the service tier that a response names, in its usage or beside it.
func serviceTier(d doc, top members) string {
	tier, ok := d.text(d.member(0, "service_tier"))
	if !ok {
		if raw, _ := top.find(path{{name: "service_tier"}}); len(raw) > 0 && raw[0] == '"' {
			tier = unquote(raw)
		}
	}
	switch tier {
	case "default", "standard", "auto", "on_demand":
		return ""
	}
	return tier
}

func (e *extractor) noUsage(format string, args ...any) error {
	return credit.Errorf(credit.NoUsage, "The response "+format+", as flavour "+e.flavour+" should.", args...)
}

func invalidUsage(pointer, format string, args ...any) error {
	e := credit.Invalid(pointer, format, args...)
	e.Code = credit.InvalidUsage
	return e
}

// at returns the pointer into what was given, the body of a response or its usage, to where p leads from the root, as far as that can be said.
func (e *extractor) at(r *Response, p path) string {
	var out pointer
	if len(r.Usage) == 0 {
		p = append(slices.Clone(e.root), p...)
	}
	for _, s := range p {
		if s.match != nil {
			break
		}
		out = out.field(s.name)
	}
	return string(out)
}

// adder sums the numbers that a path leads to.
type adder struct {
	d      doc
	places int32
	n      int64
	found  bool
	reason string
	reads  []int // nil: not wanted
}

// follow goes along p from a node. What is missing or null on the way ends it.
func (a *adder) follow(p path, at int) {
	n := &a.d[at]
	switch {
	case n.kind == 'n' || a.reason != "":
	case len(p) == 0:
		if n.kind != '0' {
			a.reason = "This is not a number."
			return
		}
		count, reason := readCount(n.raw, a.places)
		if a.reason = reason; reason != "" {
			return
		}
		a.found = true
		if a.n += count; a.n > maxCount {
			a.reason = "The sum is more than any request can use."
		}
		if a.reads != nil {
			a.reads = append(a.reads, place(n))
		}
	case p[0].match == nil:
		if n.kind != '{' {
			a.reason = "This is not an object with " + p[0].name + "."
			return
		}
		if i := a.d.member(at, p[0].name); i >= 0 {
			a.follow(p[1:], i)
		}
	default:
		if n.kind != '[' {
			a.reason = "This is not a list."
			return
		}
		a.d.each(at, func(i int) {
			if field, ok := a.d.text(a.d.member(i, p[0].name)); ok && p[0].match.match(field) {
				a.follow(p[1:], i)
			}
		})
	}
}

// place tells the values of one text apart by how much of it is left where they begin.
func place(n *node) int { return cap(n.raw) }

// Field is a number in a provider's usage.
type Field struct {
	Path  string // JSON pointer from the usage
	Value string // as the provider wrote it
}

// Unread lists the numbers in the provider's usage that were not read, such as totals, and whatever a provider may have begun to
// count, in their order.
func (x *Extraction) Unread() []Field {
	if x.extractor == nil {
		return nil
	}
	d, err := doc(nil).parse(x.Raw)
	if err != nil {
		return nil
	}
	sum := &adder{d: d, reads: []int{}}
	for i := range x.extractor.mappings {
		m := &x.extractor.mappings[i]
		sum.places, sum.n = m.unit.places(), 0
		sum.follow(m.path, 0)
	}
	var out []Field
	var visit func(at int, p pointer)
	visit = func(at int, p pointer) {
		i := 0
		d.each(at, func(member int) {
			to := p.index(i)
			if d[at].kind == '{' {
				to = p.field(string(d[member].name))
			}
			i++
			if d[member].kind == '0' && !slices.Contains(sum.reads, place(&d[member])) {
				out = append(out, Field{Path: string(to), Value: string(d[member].raw)})
			}
			visit(member, to)
		})
	}
	visit(0, "")
	return out
}

// members are the members of an object, not read further.
type members []struct{ name, raw []byte }

// membersOf returns the members of an object in a valid text; nil when it is none.
func membersOf(text []byte) members {
	r := reader{b: text}
	if r.peek() != '{' {
		return nil
	}
	list := make(members, 0, 16)
	r.i++
	for r.more() {
		name := r.name()
		r.peek()
		start := r.i
		r.skip()
		list = append(list, struct{ name, raw []byte }{name, text[start:r.i]})
	}
	return list
}

func (m members) get(name string) (raw []byte, ok bool) {
	for i := range m {
		if string(m[i].name) == name {
			raw, ok = m[i].raw, true // of several, the last, as most programs read it
		}
	}
	return raw, ok
}

// find returns the text of the value that p leads to; of several elements that match, the first.
func (m members) find(p path) (raw []byte, ok bool) {
	for i, s := range p {
		if s.match != nil {
			return nil, false
		}
		if raw, ok = m.get(s.name); !ok || i == len(p)-1 {
			return raw, ok
		}
		if p[i+1].match == nil {
			m = membersOf(raw)
			continue
		}
		return elementAt(raw, p[i+1:])
	}
	return nil, false
}

// elementAt is find for a path that begins in a list.
func elementAt(raw []byte, p path) ([]byte, bool) {
	r := reader{b: raw}
	if r.peek() != '[' {
		return nil, false
	}
	r.i++
	for r.more() {
		r.peek()
		start := r.i
		r.skip()
		element := raw[start:r.i]
		m := membersOf(element)
		field, _ := m.get(p[0].name)
		switch {
		case len(field) == 0 || field[0] != '"' || !p[0].match.match(unquote(field)):
		case len(p) == 1:
			return element, true
		case p[1].match == nil:
			return m.find(p[1:])
		}
	}
	return nil, false
}
