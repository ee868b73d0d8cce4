package api

import (
	"encoding/base64"
	"encoding/binary"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// Bounds of one page.
const (
	defaultLimit = 50
	maxLimit     = 200
)

// query is a request's query string: only parameters that the route has, each once.
type query struct{ values url.Values }

// query reads the query string.
func (c *call) query(names ...string) (query, error) {
	if c.r.URL.RawQuery == "" {
		return query{}, nil
	}
	values, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return query{}, credit.Invalid("", "The query string is malformed.")
	}
	for name, v := range values {
		if !slices.Contains(names, name) {
			return query{}, credit.Invalid(name, "There is no such query parameter here.")
		}
		if len(v) != 1 {
			return query{}, credit.Invalid(name, "This query parameter comes more than once.")
		}
		if !clean(v[0]) {
			return query{}, credit.Invalid(name, "This query parameter is not valid UTF-8.")
		}
	}
	return query{values}, nil
}

func (q query) text(name string) string { return q.values.Get(name) }

// instant reads a parameter that is an RFC 3339 instant; the zero time when it is not there.
func (q query) instant(name string) (time.Time, error) {
	s := q.text(name)
	if s == "" {
		return time.Time{}, nil
	}
	t, ok := parseInstant(s)
	if !ok {
		return t, credit.Invalid(name, "%.40q is not an RFC 3339 instant such as 2026-01-31T12:00:00Z.", s)
	}
	return t, nil
}

// queryID reads a parameter that is an identifier; the zero one when it is not there.
func queryID[I any](q query, name string, parse func(string) (I, error)) (I, error) {
	var zero I
	if q.text(name) == "" {
		return zero, nil
	}
	id, err := parse(q.text(name))
	return id, in(name, err)
}

// oneOf reads a parameter that is one of a few words; empty when it is not there.
func (q query) oneOf(name string, words ...string) (string, error) {
	s := q.text(name)
	if s != "" && !slices.Contains(words, s) {
		return "", credit.Invalid(name, "This must be one of %q.", words)
	}
	return s, nil
}

// limit reads how many items a page may have.
func (q query) limit() (int, error) {
	s := q.text("limit")
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		return 0, credit.Invalid("limit", "This must be a whole number from 1 to %d.", maxLimit)
	}
	return n, nil
}

// cursor is a position in a list: where the page before ended. On the wire it is opaque.
type cursor []byte

func (c cursor) String() string { return base64.RawURLEncoding.EncodeToString(c) }

var errCursor = credit.Invalid("cursor", "This is not a cursor that this list returned.")

// cursor reads the position after which a page begins: nil at the beginning of the list, otherwise of length bytes (0: 1 to 64).
func (q query) cursor(length int) (cursor, error) {
	if length == 0 {
		return q.cursorWithin(1, 64)
	}
	return q.cursorWithin(length, length)
}

// cursorWithin is cursor for one of shortest to longest bytes.
func (q query) cursorWithin(shortest, longest int) (cursor, error) {
	s := q.text("cursor")
	if s == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < shortest || len(b) > longest {
		return nil, errCursor
	}
	return b, nil
}

// idCursor reads a cursor of a list in order of identifiers.
func idCursor[I ~[16]byte](q query) (I, error) {
	b, err := q.cursor(16)
	if b == nil {
		return I{}, err
	}
	return I(b), nil
}

func afterID[I ~[16]byte](id I) cursor { return id[:] }

// listing reads what every list has: a limit, a cursor of its kind, and the filters named.
func listing[P any](c *call, cursor func(query) (P, error), filters ...string) (q query, limit int, position P, err error) {
	if q, err = c.query(append(filters, "limit", "cursor")...); err != nil {
		return q, 0, position, err
	}
	if limit, err = q.limit(); err != nil {
		return q, 0, position, err
	}
	position, err = cursor(q)
	return q, limit, position, err
}

// numberCursor reads a cursor of a list in order of numbers; 0 at its beginning.
func (q query) numberCursor() (int64, error) {
	b, err := q.cursor(8)
	if b == nil {
		return 0, err
	}
	n := binary.BigEndian.Uint64(b)
	if n == 0 || n > 1<<63-1 {
		return 0, errCursor
	}
	return int64(n), nil
}

func afterNumber(n int64) cursor { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// codeCursor reads a cursor of a list in order of codes.
func (q query) codeCursor() (string, error) {
	b, err := q.cursor(0)
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return "", errCursor
		}
	}
	return string(b), err
}

// auditCursor reads a cursor of the audit.
func (q query) auditCursor() (p db.AuditPosition, err error) {
	b, err := q.cursor(33)
	if b == nil {
		return p, err
	}
	p.At = time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC()
	p.Source, p.ID, p.No = int(b[8]), [16]byte(b[9:25]), int64(binary.BigEndian.Uint64(b[25:]))
	if p.Source > 1 || p.No < 0 || p.At.Year() < 2000 || p.At.Year() > 9999 {
		return p, errCursor
	}
	return p, nil
}

func afterAudit(p db.AuditPosition) cursor {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 33), uint64(p.At.UnixMicro()))
	b = append(append(b, byte(p.Source)), p.ID[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(p.No))
}

// page is one part of a list.
type page[D any] struct {
	Data       []D     `json:"data"`
	NextCursor *string `json:"next_cursor"` // null: this is the last one
	HasMore    bool    `json:"has_more"`
}

// answerPage answers with up to limit of the rows read, of which there is one more when the list goes on.
func answerPage[R, D any](c *call, rows []R, limit int, describe func(R) D, after func(R) cursor) error {
	p := page[D]{Data: []D{}}
	if len(rows) > limit {
		rows = rows[:limit]
		next := after(rows[limit-1]).String()
		p.NextCursor, p.HasMore = &next, true
	}
	for _, r := range rows {
		p.Data = append(p.Data, describe(r))
	}
	return c.document(p)
}
