package balance

import (
	"encoding/json"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/tallystick/tallystick/credit"
)

func appendInstant(b []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(b, `"`+instantLayout+`"`)
}

// appendJSONString writes s as encoding/json would.
func appendJSONString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic("balance: a string cannot be written as JSON: " + err.Error())
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendDims writes dimensions in order of name, as encoding/json would.
func appendDims(b []byte, d credit.Dimensions) []byte {
	var few [8]string
	names := few[:0]
	for name := range d {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONString(b, name)
		b = append(b, ':')
		b = appendJSONString(b, d[name])
	}
	return append(b, '}')
}

func dimsJSON(d credit.Dimensions) string {
	if len(d) == 0 {
		return ""
	}
	return string(appendDims(nil, d))
}

// jsonReceipt is the receipt of everything that is not a consumption.
func jsonReceipt(document any) receipt {
	return func([]byte) ([]byte, error) { return json.Marshal(document) }
}
