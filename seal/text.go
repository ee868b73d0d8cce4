package seal

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"
)

// A canonical text is a first line that names what it is, then fields in a fixed order, each with its length before it in four bytes, most significant
// first. Whole numbers are decimal, instants RFC 3339 in UTC with six places; what is not there is an empty field. Two different values never
// have the same text: nothing is joined by a character that could be in it.

// instantLayout is microseconds in UTC.
const instantLayout = "2006-01-02T15:04:05.000000Z"

type writer struct{ b []byte }

func newWriter(what string) *writer { return &writer{append(make([]byte, 0, 512), what+"\n"...)} }

func (w *writer) text(s string) {
	w.b = binary.BigEndian.AppendUint32(w.b, uint32(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) number(n int64) {
	var digits [20]byte
	s := strconv.AppendInt(digits[:0], n, 10)
	w.b = binary.BigEndian.AppendUint32(w.b, uint32(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) truth(v bool) { w.text(strconv.FormatBool(v)) }

func (w *writer) instant(t time.Time) { w.text(t.UTC().Format(instantLayout)) }

// errText says that bytes are no canonical text.
var errText = errors.New("this is not the canonical text")

// reader reads what a writer wrote; after the first fault every field is empty.
type reader struct {
	b   []byte
	bad bool
}

func newReader(what string, b []byte) *reader {
	rest, ok := strings.CutPrefix(string(b), what+"\n")
	return &reader{[]byte(rest), !ok}
}

func (r *reader) text() string {
	if r.bad || len(r.b) < 4 {
		r.bad = true
		return ""
	}
	n := binary.BigEndian.Uint32(r.b)
	if uint64(n) > uint64(len(r.b)-4) {
		r.bad = true
		return ""
	}
	s := string(r.b[4 : 4+n])
	r.b = r.b[4+n:]
	return s
}

func (r *reader) number() int64 {
	s := r.text()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s {
		r.bad = true
	}
	return n
}

func (r *reader) truth() bool {
	switch r.text() {
	case "true":
		return true
	case "false":
	default:
		r.bad = true
	}
	return false
}

func (r *reader) instant() time.Time {
	s := r.text()
	t, err := time.Parse(instantLayout, s)
	if err != nil || t.Format(instantLayout) != s {
		r.bad = true
	}
	return t
}
