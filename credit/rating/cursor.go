package rating

import "encoding/json"

// cursor walks a JSON text that is known to be valid, one value at a time. Unlike encoding/json it lets its user see a field that
// is given twice, and carry on after a fault.
type cursor struct {
	b []byte
	i int
}

// next returns the first byte of the next value or of what closes the list, without passing it; 0 at the end.
func (c *cursor) next() byte {
	for ; c.i < len(c.b); c.i++ {
		switch c.b[c.i] {
		case ' ', '\t', '\r', '\n':
		default:
			return c.b[c.i]
		}
	}
	return 0
}

// enter passes the bracket that opens an object or a list.
func (c *cursor) enter() {
	c.next()
	c.i++
}

// more tells whether the object or list that was entered has a further element, and leaves it when not.
func (c *cursor) more() bool {
	switch c.next() {
	case ',':
		c.i++
		c.next()
		return true
	case '}', ']', 0:
		c.i++
		return false
	}
	return true
}

// name reads the name of a field.
func (c *cursor) name() []byte {
	b := c.text()
	c.next()
	c.i++ // the colon
	return b
}

// text reads a string. The bytes are valid as long as the text is.
func (c *cursor) text() []byte {
	c.next()
	start, escaped := c.i, false
	for c.i++; c.b[c.i] != '"'; c.i++ {
		if c.b[c.i] == '\\' {
			escaped = true
			c.i++
		}
	}
	c.i++
	quoted := c.b[start:c.i]
	if !escaped {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		panic("rating: the text is not valid JSON: " + err.Error())
	}
	return []byte(s)
}

// skip passes a value of any type.
func (c *cursor) skip() {
	for depth := 0; ; {
		switch c.next() {
		case '"':
			c.text()
		case '{', '[':
			depth++
			c.i++
			continue
		case '}', ']':
			depth--
			c.i++
		case ',', ':':
			c.i++
			continue
		default:
			for c.i < len(c.b) && c.b[c.i] > ' ' && c.b[c.i] != ',' && c.b[c.i] != '}' && c.b[c.i] != ']' {
				c.i++
			}
		}
		if depth <= 0 {
			return
		}
	}
}
