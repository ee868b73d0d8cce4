package ratecard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Change is one difference of two documents.
type Change struct {
	// Path leads to what has changed, like a JSON pointer, but with the id or code of a list's element in place of its number:
	// /rates/gpt4o-in/price.
	Path   string          `json:"path"`
	Kind   string          `json:"kind"`             // added, removed, changed
	Before json.RawMessage `json:"before,omitempty"` // none for what was added
	After  json.RawMessage `json:"after,omitempty"`  // none for what was removed
}

// Kinds of changes.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// Diff lists what has changed from one document to another, in order of path; nil when nothing has. It knows of no field: elements of a list
// are the same when they have the same id or code, whatever their order; the order of a list of strings does not count; any other list is
// compared whole. Documents that are not JSON are errors.
func Diff(before, after []byte) ([]Change, error) {
	var b, a any
	for _, d := range []struct {
		text []byte
		into *any
	}{{before, &b}, {after, &a}} {
		dec := json.NewDecoder(bytes.NewReader(d.text))
		dec.UseNumber()
		if err := dec.Decode(d.into); err != nil {
			return nil, fmt.Errorf("read document: %w", err)
		}
	}
	var out []Change
	if err := diff(&out, nil, b, a); err != nil {
		return nil, err
	}
	return out, nil
}

func diff(out *[]Change, path []string, before, after any) error {
	if reflect.DeepEqual(before, after) {
		return nil
	}
	b, isObject := before.(map[string]any)
	a, both := after.(map[string]any)
	if isObject && both {
		return diffNamed(out, path, b, a)
	}
	listB, isList := before.([]any)
	listA, both := after.([]any)
	if isList && both {
		if reflect.DeepEqual(sortedStrings(listB), sortedStrings(listA)) && sortedStrings(listB) != nil {
			return nil
		}
		if b, ok := byName(listB); ok {
			if a, ok := byName(listA); ok {
				return diffNamed(out, path, b, a)
			}
		}
	}
	return record(out, path, Changed, before, after)
}

func diffNamed(out *[]Change, path []string, before, after map[string]any) error {
	names := slices.Collect(maps.Keys(before))
	for name := range after {
		if _, ok := before[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		here := append(slices.Clone(path), name)
		b, was := before[name]
		a, is := after[name]
		var err error
		switch {
		case !was:
			err = record(out, here, Added, nil, a)
		case !is:
			err = record(out, here, Removed, b, nil)
		default:
			err = diff(out, here, b, a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func record(out *[]Change, path []string, kind string, before, after any) error {
	c := Change{Path: pointer(path), Kind: kind}
	for _, v := range []struct {
		value any
		there bool
		into  *json.RawMessage
	}{{before, kind != Added, &c.Before}, {after, kind != Removed, &c.After}} {
		if !v.there {
			continue
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v.value); err != nil {
			return fmt.Errorf("write change: %w", err)
		}
		*v.into = bytes.TrimSpace(b.Bytes())
	}
	*out = append(*out, c)
	return nil
}

// byName makes a list an object, when every element has an id or a code and no two the same. An empty list has.
func byName(list []any) (map[string]any, bool) {
	out := make(map[string]any, len(list))
	for _, v := range list {
		o, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		name, ok := o["id"].(string)
		if !ok {
			name, ok = o["code"].(string)
		}
		if _, twice := out[name]; !ok || twice {
			return nil, false
		}
		out[name] = o
	}
	return out, true
}

// sortedStrings returns the elements in order when all are strings, else nil.
func sortedStrings(list []any) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

var escapes = strings.NewReplacer("~", "~0", "/", "~1")

func pointer(path []string) string {
	var b strings.Builder
	for _, step := range path {
		b.WriteByte('/')
		b.WriteString(escapes.Replace(step))
	}
	return b.String()
}
