package api

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/tallystick/tallystick/credit"
)

// reader reads one JSON document from left to right, stricter than encoding/json: names must match exactly and come once,
// text must be UTF-8 without lone surrogates, nothing may follow the document. What it returns are substrings of the document where
// possible. Its errors are refusals that point at the place.
type reader struct {
	doc  string
	i    int
	path [maxDepth]step // where it is, for errors
	deep int
}

// step is one step of a JSON pointer: a name, or an index when the name is empty and array is set.
type step struct {
	name  string
	index int
	array bool
}

// Bounds of what is read. No request of the API comes near them.
const (
	maxDepth   = 16
	maxMembers = 1000 // of one object: a table of prices may have many
	fewMembers = 64   // up to which looking through the names is quicker than a map of them
)

// start begins a document. Text that is not UTF-8 is refused.
func (r *reader) start(doc string) error {
	*r = reader{doc: doc}
	if !utf8.ValidString(doc) {
		return credit.Invalid("", "The body is not valid UTF-8.")
	}
	return nil
}

// pointer names the place being read, RFC 6901.
func (r *reader) pointer() string {
	var b strings.Builder
	for _, s := range r.path[:r.deep] {
		b.WriteByte('/')
		if s.array {
			b.WriteString(strconv.Itoa(s.index))
		} else {
			b.WriteString(pointerEscapes.Replace(s.name))
		}
	}
	return b.String()
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// refuse says that the value being read is not acceptable.
func (r *reader) refuse(format string, args ...any) error {
	return credit.Invalid(r.pointer(), format, args...)
}

// malformed says that the document is not JSON from here on.
func (r *reader) malformed() error {
	if r.i >= len(r.doc) {
		return credit.Invalid(r.pointer(), "The JSON document ends too early.")
	}
	return credit.Invalid(r.pointer(), "The body is not JSON: unexpected %q at byte %d.", r.doc[r.i:min(r.i+1, len(r.doc))], r.i)
}

func (r *reader) space() {
	for r.i < len(r.doc) {
		switch r.doc[r.i] {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return
		}
	}
}

// peek returns the first byte of the next token, 0 at the end.
func (r *reader) peek() byte {
	r.space()
	if r.i < len(r.doc) {
		return r.doc[r.i]
	}
	return 0
}

// take consumes one byte of punctuation.
func (r *reader) take(c byte) bool {
	if r.peek() == c {
		r.i++
		return true
	}
	return false
}

// end refuses anything after the document.
func (r *reader) end() error {
	if r.peek() != 0 || r.i < len(r.doc) {
		return r.malformed()
	}
	return nil
}

func (r *reader) enter() error {
	if r.deep == maxDepth {
		return r.refuse("The document is nested more than %d levels deep.", maxDepth)
	}
	r.deep++
	return nil
}

// object reads an object and calls each with every name; each must read the value. It refuses a name that comes twice.
func (r *reader) object(each func(name string) error) error {
	if !r.take('{') {
		return r.wrongType("an object")
	}
	if r.take('}') {
		return nil
	}
	if err := r.enter(); err != nil {
		return err
	}
	var few [16]string
	seen := few[:0]
	var many map[string]bool
	for {
		r.deep-- // a name is part of the object that it stands in
		if r.peek() != '"' {
			return r.malformed()
		}
		name, err := r.text()
		if err != nil {
			return err
		}
		r.path[r.deep] = step{name: name}
		r.deep++
		if many[name] || slices.Contains(seen, name) {
			return r.refuse("This name comes twice in one object.")
		}
		if len(seen)+len(many) == maxMembers {
			return r.refuse("The object has more than %d members.", maxMembers)
		}
		if len(seen) < fewMembers {
			seen = append(seen, name)
		} else {
			if many == nil {
				many = make(map[string]bool)
			}
			many[name] = true
		}
		if !r.take(':') {
			return r.malformed()
		}
		if err := each(name); err != nil {
			return err
		}
		if r.take(',') {
			continue
		}
		if r.take('}') {
			r.deep--
			return nil
		}
		return r.malformed()
	}
}

// array reads an array and calls each for every element; each must read it.
func (r *reader) array(each func(i int) error) error {
	if !r.take('[') {
		return r.wrongType("an array")
	}
	if r.take(']') {
		return nil
	}
	if err := r.enter(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		r.path[r.deep-1] = step{index: i, array: true}
		if err := each(i); err != nil {
			return err
		}
		if r.take(',') {
			continue
		}
		if r.take(']') {
			r.deep--
			return nil
		}
		return r.malformed()
	}
}

// wrongType refuses a value for its type, or for not being a value.
func (r *reader) wrongType(want string) error {
	switch c := r.peek(); {
	case c == '"', c == '{', c == '[', c == '-', c >= '0' && c <= '9', strings.HasPrefix(r.doc[r.i:], "true"),
		strings.HasPrefix(r.doc[r.i:], "false"), strings.HasPrefix(r.doc[r.i:], "null"):
		return r.refuse("This must be %s.", want)
	}
	return r.malformed()
}

// unknown refuses a member that the request does not have.
func (r *reader) unknown() error { return r.refuse("There is no such field here.") }

// text reads a string.
func (r *reader) text() (string, error) {
	if !r.take('"') {
		return "", r.wrongType("a string")
	}
	from := r.i
	for ; r.i < len(r.doc); r.i++ {
		switch c := r.doc[r.i]; {
		case c == '"':
			s := r.doc[from:r.i]
			r.i++
			return s, nil
		case c == '\\':
			return r.escaped(from)
		case c < ' ':
			return "", r.malformed()
		}
	}
	return "", r.malformed()
}

// escaped goes on with a string from its first backslash.
func (r *reader) escaped(from int) (string, error) {
	b := append(make([]byte, 0, 2*(r.i-from)+16), r.doc[from:r.i]...)
	for r.i < len(r.doc) {
		switch c := r.doc[r.i]; {
		case c == '"':
			r.i++
			return string(b), nil
		case c < ' ':
			return "", r.malformed()
		case c != '\\':
			b = append(b, c)
			r.i++
		default:
			var ok bool
			if b, ok = r.escape(b); !ok {
				return "", r.malformed()
			}
		}
	}
	return "", r.malformed()
}

// escape reads one escape sequence. A surrogate must have its other half, and there is no NUL in text: Postgres has none either.
func (r *reader) escape(b []byte) ([]byte, bool) {
	if r.i+1 >= len(r.doc) {
		return b, false
	}
	if c := r.doc[r.i+1]; c != 'u' {
		k := strings.IndexByte(`"\/bfnrt`, c)
		if k < 0 {
			return b, false
		}
		r.i += 2
		return append(b, "\"\\/\b\f\n\r\t"[k]), true
	}
	u, ok := r.hex()
	if !ok {
		return b, false
	}
	if utf16.IsSurrogate(u) {
		low, ok := r.hex()
		if u = utf16.DecodeRune(u, low); !ok || u == utf8.RuneError {
			return b, false
		}
	}
	return utf8.AppendRune(b, u), u != 0
}

// hex reads \uXXXX.
func (r *reader) hex() (rune, bool) {
	if r.i+6 > len(r.doc) || r.doc[r.i] != '\\' || r.doc[r.i+1] != 'u' {
		return 0, false
	}
	var u rune
	for _, c := range []byte(r.doc[r.i+2 : r.i+6]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		u = u<<4 | rune(c)
	}
	r.i += 6
	return u, true
}

// boolean reads true or false.
func (r *reader) boolean() (bool, error) {
	switch {
	case r.peek() == 't' && r.word("true"):
		return true, nil
	case r.peek() == 'f' && r.word("false"):
		return false, nil
	}
	return false, r.wrongType("true or false")
}

// null consumes null if that is what comes.
func (r *reader) null() bool { return r.peek() == 'n' && r.word("null") }

func (r *reader) word(w string) bool {
	if strings.HasPrefix(r.doc[r.i:], w) {
		r.i += len(w)
		return true
	}
	return false
}

// integer reads a whole number between lo and hi, written without point and exponent.
func (r *reader) integer(lo, hi int64) (int64, error) {
	if c := r.peek(); c != '-' && (c < '0' || c > '9') {
		return 0, r.wrongType("a whole number")
	}
	from := r.i
	if !r.number() {
		return 0, r.malformed()
	}
	n, err := strconv.ParseInt(r.doc[from:r.i], 10, 64)
	if err != nil || n < lo || n > hi {
		return 0, r.refuse("This must be a whole number from %d to %d.", lo, hi)
	}
	return n, nil
}

// number passes over a JSON number.
func (r *reader) number() bool {
	if r.i < len(r.doc) && r.doc[r.i] == '-' {
		r.i++
	}
	from := r.i
	if !r.digits() || r.doc[from] == '0' && r.i > from+1 {
		return false
	}
	if r.i < len(r.doc) && r.doc[r.i] == '.' {
		r.i++
		if !r.digits() {
			return false
		}
	}
	if r.i < len(r.doc) && r.doc[r.i]|' ' == 'e' {
		r.i++
		if r.i < len(r.doc) && (r.doc[r.i] == '+' || r.doc[r.i] == '-') {
			r.i++
		}
		return r.digits()
	}
	return true
}

func (r *reader) digits() bool {
	from := r.i
	for r.i < len(r.doc) && r.doc[r.i] >= '0' && r.doc[r.i] <= '9' {
		r.i++
	}
	return r.i > from
}

// skip passes over any value.
func (r *reader) skip() error {
	switch c := r.peek(); {
	case c == '{':
		return r.object(func(string) error { return r.skip() })
	case c == '[':
		return r.array(func(int) error { return r.skip() })
	case c == '"':
		_, err := r.text()
		return err
	case c == '-', c >= '0' && c <= '9':
		if r.number() {
			return nil
		}
	case r.word("true"), r.word("false"), r.word("null"):
		return nil
	}
	return r.malformed()
}

// words reads an object of strings, such as dimensions.
func (r *reader) words(into map[string]string) error {
	return r.object(func(name string) (err error) {
		into[name], err = r.text()
		return err
	})
}

// dimensions reads and checks dimensions; none is nil.
func (r *reader) dimensions() (credit.Dimensions, error) {
	d := make(credit.Dimensions)
	if err := r.words(d); err != nil {
		return nil, err
	}
	if len(d) == 0 {
		return nil, nil
	}
	return d, r.at(credit.CheckDimensions(d))
}

// at gives a refusal that names no place the place being read.
func (r *reader) at(err error) error {
	if e, ok := err.(*credit.Error); ok && len(e.Issues) == 0 {
		c := *e
		c.Issues = []credit.Issue{{Pointer: r.pointer(), Detail: e.Detail}}
		return &c
	}
	return err
}

// instant reads an RFC 3339 instant.
func (r *reader) instant() (time.Time, error) {
	s, err := r.text()
	if err != nil {
		return time.Time{}, err
	}
	t, ok := parseInstant(s)
	if !ok {
		return time.Time{}, r.refuse("%.40q is not an RFC 3339 instant such as 2026-01-31T12:00:00Z.", s)
	}
	return t, nil
}

// parseInstant reads an RFC 3339 instant of the years 1 to 9999, rounded down to the microsecond.
func parseInstant(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || len(s) > 40 || t.Year() < 1 {
		return time.Time{}, false
	}
	t = t.UTC().Truncate(time.Microsecond)
	return t, !t.IsZero() && t.Year() >= 1 && t.Year() <= 9999
}

// decimalText reads a decimal number written as a string; it is parsed by its reader, who knows its scale.
func (r *reader) decimalText() (string, error) {
	if r.peek() != '"' {
		return "", r.wrongType(`a decimal number in a string, such as "12.5"`)
	}
	return r.text()
}
