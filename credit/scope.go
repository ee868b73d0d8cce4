package credit

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Dimensions describe a usage, such as model=gpt-4o, product=chat. nil and empty mean the same.
type Dimensions map[string]string

// Scope restricts what credits may serve: for every dimension it names, the usage must have one of the values listed.
// The zero Scope is general: it serves everything.
type Scope map[string][]string

// Bounds of dimensions and scopes, so that a customer's credits fit the balance cache.
const (
	maxDimensions  = 32
	maxScopeValues = 64
	maxWordLen     = 128
)

// CheckDimensions returns an [Error] coded invalid_request unless there are at most 32 dimensions whose names and values are
// printable, not empty and at most 128 bytes.
func CheckDimensions(d Dimensions) error {
	if len(d) > maxDimensions {
		return Errorf(InvalidRequest, "There are %d dimensions; %d are allowed.", len(d), maxDimensions)
	}
	for name, value := range d {
		if !word(name) || !word(value) {
			return Errorf(InvalidRequest, "Dimension %.40q=%.40q is empty, longer than %d bytes or has unprintable characters.", name, value, maxWordLen)
		}
	}
	return nil
}

// CheckScope is CheckDimensions for a scope: each dimension lists 1 to 64 values.
func CheckScope(s Scope) error {
	if len(s) > maxDimensions {
		return Errorf(InvalidRequest, "The scope names %d dimensions; %d are allowed.", len(s), maxDimensions)
	}
	for name, values := range s {
		if !word(name) || len(values) == 0 || len(values) > maxScopeValues {
			return Errorf(InvalidRequest, "The scope's dimension %.40q must be printable and list 1 to %d values.", name, maxScopeValues)
		}
		for _, v := range values {
			if !word(v) {
				return Errorf(InvalidRequest, "The scope's value %.40q of %.40q is empty, longer than %d bytes or has unprintable characters.", v, name, maxWordLen)
			}
		}
	}
	return nil
}

func word(s string) bool {
	if len(s) == 0 || len(s) > maxWordLen || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// General tells whether the scope serves everything.
func (s Scope) General() bool { return len(s) == 0 }

// Matches tells whether credits of this scope may serve a usage with these dimensions.
func (s Scope) Matches(d Dimensions) bool {
	for name, values := range s {
		have, ok := d[name]
		if !ok {
			return false
		}
		found := false
		for _, v := range values {
			if v == have {
				found = true
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}

// Separators of the canonical form. They are not printable, so no word contains them.
const (
	scopeDimension = "\x1e"
	scopeValue     = "\x1f"
)

// Canonical writes the scope as one text that is the same for the same scope, for the balance cache: every dimension as
// \x1e name \x1f value \x1f value … \x1f, names in order, each value once and in order. The general scope is "".
func (s Scope) Canonical() string {
	if len(s) == 0 {
		return ""
	}
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		b.WriteString(scopeDimension + name + scopeValue)
		values := slices.Clone(s[name])
		slices.Sort(values)
		for _, v := range slices.Compact(values) {
			b.WriteString(v + scopeValue)
		}
	}
	return b.String()
}
