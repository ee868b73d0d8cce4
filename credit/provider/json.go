package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tallystick/tallystick/credit"
)

// node is a value of a JSON document. Nodes stand in the order of the text: the members of an object or list follow it, and next
// is where what comes after all of them stands. Unlike a map it keeps names that are given twice, their order, and every digit.
type node struct {
	name []byte // in its object; nil in a list
	raw  []byte // the value's text; of an object or list, all of it
	kind byte   // one of { [ " 0 t n
	next int
}

// doc is a parsed JSON document; node 0 is the whole.
type doc []node

// Bounds of what is parsed into nodes. Text that is passed over is bounded by its length alone.
const (
	maxDepth = 64
	maxNodes = 2_000_000
)

var errDeep = errors.New("it is nested too deeply or has too many values")

// parse reads a text into d, which may be a used one.
func (d doc) parse(b []byte) (doc, error) {
	if !json.Valid(b) {
		return nil, syntaxFault(b)
	}
	return d.parseValid(b)
}

// parseValid is parse for a text that is known to be valid JSON.
func (d doc) parseValid(b []byte) (doc, error) {
	r := reader{b: b}
	d, err := d[:0].value(&r, nil, 0)
	return d, err
}

func (d doc) value(r *reader, name []byte, depth int) (doc, error) {
	if depth > maxDepth || len(d) >= maxNodes {
		return nil, errDeep
	}
	at := len(d)
	c := r.peek()
	start := r.i
	switch c {
	case '{', '[':
		d = append(d, node{name: name, kind: c})
		r.i++
		for r.more() {
			var member []byte
			if c == '{' {
				member = r.name()
			}
			var err error
			if d, err = d.value(r, member, depth+1); err != nil {
				return nil, err
			}
		}
	default:
		r.skip()
		kind := c
		switch {
		case c == '-' || '0' <= c && c <= '9':
			kind = '0'
		case c == 'f':
			kind = 't'
		}
		d = append(d, node{name: name, kind: kind})
	}
	d[at].raw, d[at].next = r.b[start:r.i], len(d)
	return d, nil
}

// member returns the object's member of a name, the last of several; -1 when it is none or at is no object.
func (d doc) member(at int, name string) int {
	found := -1
	if d[at].kind != '{' {
		return found
	}
	for i := at + 1; i < d[at].next; i = d[i].next {
		if string(d[i].name) == name {
			found = i
		}
	}
	return found
}

// each calls visit for the members of an object or list.
func (d doc) each(at int, visit func(i int)) {
	if k := d[at].kind; k != '{' && k != '[' {
		return
	}
	for i := at + 1; i < d[at].next; i = d[i].next {
		visit(i)
	}
}

// text returns a string's value.
func (d doc) text(at int) (string, bool) {
	if at < 0 || d[at].kind != '"' {
		return "", false
	}
	return unquote(d[at].raw), true
}

func unquote(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		panic("provider: the text is not valid JSON: " + err.Error())
	}
	return s
}

// reader walks a text that is known to be valid JSON.
type reader struct {
	b []byte
	i int
}

// peek returns the first byte of the next value or of what closes the object or list, without passing it.
func (r *reader) peek() byte {
	for ; r.i < len(r.b); r.i++ {
		switch r.b[r.i] {
		case ' ', '\t', '\r', '\n':
		default:
			return r.b[r.i]
		}
	}
	return 0
}

// more tells whether the object or list that was entered has a further member, and leaves it when not.
func (r *reader) more() bool {
	switch r.peek() {
	case ',':
		r.i++
		r.peek()
	case '}', ']', 0:
		r.i++
		return false
	}
	return true
}

// name reads a member's name and the colon after it.
func (r *reader) name() []byte {
	raw := r.quoted()
	r.peek()
	r.i++
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	return []byte(unquote(raw))
}

func (r *reader) quoted() []byte {
	r.peek()
	start := r.i
	for r.i++; ; {
		n := bytes.IndexAny(r.b[r.i:], `"\`)
		if r.i += n; r.b[r.i] == '"' {
			r.i++
			return r.b[start:r.i]
		}
		r.i += 2
	}
}

// skip passes a value of any type.
func (r *reader) skip() {
	for depth := 0; ; {
		switch r.peek() {
		case '"':
			r.quoted()
		case '{', '[':
			depth++
			r.i++
			continue
		case '}', ']':
			depth--
			r.i++
		case ',', ':':
			r.i++
			continue
		default:
			for r.i < len(r.b) && r.b[r.i] > ' ' && r.b[r.i] != ',' && r.b[r.i] != '}' && r.b[r.i] != ']' {
				r.i++
			}
		}
		if depth <= 0 {
			return
		}
	}
}

// syntaxFault says where b is not JSON.
func syntaxFault(b []byte) error {
	var raw json.RawMessage
	err := json.Unmarshal(b, &raw)
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	before := b[:min(max(syntax.Offset-1, 0), int64(len(b)))] // the offset counts the character at fault
	line := 1 + bytes.Count(before, []byte("\n"))
	column := 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	return fmt.Errorf("it is not JSON at line %d, column %d: %w", line, column, err)
}

// pointer is a JSON pointer under construction. It is a value: what is appended to a copy does not show in the original.
type pointer string

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

func (p pointer) field(name string) pointer { return p + "/" + pointer(pointerEscape.Replace(name)) }

func (p pointer) index(i int) pointer { return p + "/" + pointer(strconv.Itoa(i)) }

// faults collects what is wrong with a document.
type faults struct {
	issues []credit.Issue
	count  int
}

const maxIssues = 1_000 // reported; more are counted

func (f *faults) add(at pointer, format string, args ...any) {
	if f.count++; len(f.issues) < maxIssues {
		f.issues = append(f.issues, credit.Issue{Pointer: string(at), Detail: fmt.Sprintf(format, args...)})
	}
}

// err returns the refusal of a document, what, that has faults.
func (f *faults) err(what string) error {
	switch f.count {
	case 0:
		return nil
	case 1:
		return &credit.Error{Code: credit.InvalidRequest, Detail: f.issues[0].Detail, Issues: f.issues}
	}
	return &credit.Error{
		Code: credit.InvalidRequest, Issues: f.issues,
		Detail: fmt.Sprintf("%s has %d faults. The first, at %s: %s", what, f.count, f.issues[0].Pointer, f.issues[0].Detail),
	}
}
