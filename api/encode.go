package api

import (
	"encoding/json"
	"sync"
	"time"
	"unicode/utf8"
)

// buffers are reused to write answers and to read bodies.
var buffers bufferPool

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, 4<<10)
	return &b
}

// maxPooled keeps a rare large body from being held for ever.
const maxPooled = 256 << 10

func (p *bufferPool) put(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		p.pool.Put(b)
	}
}

// appendString writes s as encoding/json would.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil { // never: any string can be written
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

const instantLayout = "2006-01-02T15:04:05.000000Z"

func instantText(t time.Time) string { return t.UTC().Format(instantLayout) }

// instantOrNull is the instant's text, or nil for the zero time.
func instantOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := instantText(t)
	return &s
}

// orNull is nil for the empty text.
func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
