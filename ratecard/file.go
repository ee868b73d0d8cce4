package ratecard

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/rating"
)

// File is a rate card document as it was read from a file.
type File struct {
	Document *rating.Document
	JSON     []byte // what the file says, as the API takes it
}

// Fault is something wrong with a file, and where. Lines and columns count from 1, columns in characters; 0 and 0: the whole file.
type Fault struct {
	Line, Column int
	Pointer      string // JSON pointer to the field; "" for the whole document
	Detail       string
}

func (f Fault) String() string {
	where := ""
	if f.Line > 0 {
		where = fmt.Sprintf("%d:%d: ", f.Line, f.Column)
	}
	if f.Pointer != "" {
		where += f.Pointer + ": "
	}
	return where + f.Detail
}

// MaxFile bounds a file, and the JSON that its aliases may grow it to, in bytes.
const MaxFile = 8 << 20

// Parse reads a rate card from YAML or JSON. In YAML too a number is a string ("2.5"), as in the document that the API takes; aliases may be used,
// merge keys and tags may not; a key that comes twice is a fault. All faults are returned in order of their place, and then no file.
func Parse(text []byte) (*File, []Fault) {
	if len(text) > MaxFile {
		return nil, []Fault{{Detail: fmt.Sprintf("A rate card is at most %d MiB.", MaxFile>>20)}}
	}
	c := converter{places: make(map[string]place)}
	doc := text
	if first := bytes.TrimLeft(text, " \t\r\n"); len(first) > 0 && first[0] == '{' && json.Valid(text) {
		c.placeJSON(text)
	} else if doc = c.yaml(text); len(c.faults) > 0 {
		return nil, c.sorted()
	}
	d, err := rating.Parse(doc)
	if err == nil {
		return &File{Document: d, JSON: doc}, nil
	}
	var e *credit.Error
	if !errors.As(err, &e) {
		return nil, []Fault{{Detail: err.Error()}}
	}
	for _, issue := range e.Issues {
		c.fault(c.at(issue.Pointer), issue.Pointer, "%s", issue.Detail)
	}
	return nil, c.sorted()
}

type place struct{ line, column int }

// converter turns a file into JSON and remembers where each value is.
type converter struct {
	out    bytes.Buffer
	places map[string]place // by JSON pointer
	faults []Fault
	depth  int
	values int
	full   bool // the JSON has become too large
}

func (c *converter) fault(at place, pointer, format string, args ...any) {
	c.faults = append(c.faults, Fault{at.line, at.column, pointer, fmt.Sprintf(format, args...)})
}

func (c *converter) sorted() []Fault {
	slices.SortStableFunc(c.faults, func(a, b Fault) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) })
	return c.faults
}

// at finds where a pointer leads, or what it is missing in.
func (c *converter) at(pointer string) place {
	for {
		if p, ok := c.places[pointer]; ok {
			return p
		}
		i := strings.LastIndexByte(pointer, '/')
		if i < 0 {
			return place{}
		}
		pointer = pointer[:i]
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func (c *converter) yaml(text []byte) []byte {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var root, more yaml.Node
	err := dec.Decode(&root)
	if err == nil {
		switch err = dec.Decode(&more); {
		case err == nil:
			c.fault(place{more.Line, more.Column}, "", "The file has a second document.")
		case errors.Is(err, io.EOF):
			err = nil
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		c.fault(place{1, 1}, "", "The file is empty.")
	case err != nil:
		m := yamlLine.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0])
		if m == nil {
			m = []string{"", "", err.Error()}
		}
		line, _ := strconv.Atoi(m[1]) // 0 where it is not said
		c.fault(place{line, min(line, 1)}, "", "The file is neither JSON nor YAML: %s.", m[2])
	case len(root.Content) == 1:
		c.value(root.Content[0], "", place{})
	}
	return c.out.Bytes()
}

// maxValues bounds what aliases may grow a file to: the largest rate card that there may be has half as many.
const maxValues = 500_000

// maxDepth bounds how deep a file is nested; an alias within itself would have no end.
const maxDepth = 32

// value writes a node as JSON. key is where its name is, in a mapping.
func (c *converter) value(n *yaml.Node, pointer string, key place) {
	at := place{n.Line, n.Column}
	if key.line != 0 && (key.line != n.Line || n.Kind == yaml.AliasNode) {
		at = key // of what begins below its name, the name is what a reader looks for
	}
	c.places[pointer] = at
	if c.values++; c.full || c.out.Len() > MaxFile || c.values > maxValues {
		if !c.full {
			c.fault(at, pointer, "With its aliases the file has more than %d values or %d MiB.", maxValues, MaxFile>>20)
		}
		c.full = true
		return
	}
	if c.depth == maxDepth {
		c.fault(at, pointer, "The file is nested more than %d levels deep.", maxDepth)
		return
	}
	c.depth++
	defer func() { c.depth-- }()
	if tag := n.ShortTag(); (n.Kind == yaml.MappingNode && tag != "!!map") || (n.Kind == yaml.SequenceNode && tag != "!!seq") {
		c.fault(at, pointer, "The tag %.40q has no meaning here.", n.Tag)
	}
	switch n.Kind {
	case yaml.AliasNode:
		c.value(n.Alias, pointer, at)
	case yaml.MappingNode:
		c.mapping(n, pointer, at)
	case yaml.SequenceNode:
		for i, item := range n.Content {
			c.out.WriteByte("[,"[min(i, 1)])
			c.value(item, pointer+"/"+strconv.Itoa(i), place{})
		}
		if len(n.Content) == 0 {
			c.out.WriteByte('[')
		}
		c.out.WriteByte(']')
	default:
		c.scalar(n, pointer, at)
	}
}

func (c *converter) mapping(n *yaml.Node, pointer string, at place) {
	lines := make(map[string]int, len(n.Content)/2)
	c.out.WriteByte('{')
	for i := 0; i < len(n.Content); i += 2 {
		key, name := n.Content[i], n.Content[i].Value
		here := place{key.Line, key.Column}
		below := pointer + "/" + escapes.Replace(name)
		switch before, twice := lines[name]; {
		case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge":
			c.fault(here, pointer, "A name is plain text; keys are not merged.")
			continue
		case twice:
			c.fault(here, below, "The field is given twice; it is also on line %d.", before)
			continue
		}
		if lines[name] = key.Line; len(lines) > 1 {
			c.out.WriteByte(',')
		}
		c.text(name)
		c.out.WriteByte(':')
		c.value(n.Content[i+1], below, here)
	}
	c.out.WriteByte('}')
	c.places[pointer] = at
}

func (c *converter) scalar(n *yaml.Node, pointer string, at place) {
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		c.text(n.Value)
	case "!!int", "!!float": // to be refused by who reads the document: what it may be there is not known here
		if json.Valid([]byte(n.Value)) {
			c.out.WriteString(n.Value)
		} else {
			c.out.WriteByte('0')
		}
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			c.fault(at, pointer, "%.40q is neither true nor false.", n.Value)
		}
		c.out.WriteString(strconv.FormatBool(b))
	case "!!null":
		c.out.WriteString("null")
	default:
		c.fault(at, pointer, "The tag %.40q has no meaning here.", n.Tag)
		c.out.WriteString("null")
	}
}

func (c *converter) text(s string) {
	b, err := json.Marshal(s)
	if err != nil { // never: any string can be written
		b = []byte(`""`)
	}
	c.out.Write(b)
}

// placeJSON finds where each value of a valid JSON text is.
func (c *converter) placeJSON(text []byte) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	cursor, here := 0, place{1, 1}
	// next moves to the next token and reads it.
	next := func() (json.Token, place) {
		start := int(dec.InputOffset())
		for start < len(text) && strings.IndexByte(" \t\r\n,:", text[start]) >= 0 {
			start++
		}
		for ; cursor < start; cursor++ {
			switch b := text[cursor]; {
			case b == '\n':
				here = place{here.line + 1, 1}
			case b < 0x80 || b >= 0xc0: // a character's first byte
				here.column++
			}
		}
		t, err := dec.Token()
		if err != nil { // never: the text is valid
			return nil, here
		}
		return t, here
	}
	var walk func(pointer string)
	walk = func(pointer string) {
		t, at := next()
		c.places[pointer] = at
		d, _ := t.(json.Delim)
		switch d {
		case '{':
			for dec.More() {
				name, _ := next()
				s, _ := name.(string)
				walk(pointer + "/" + escapes.Replace(s))
			}
			next()
		case '[':
			for i := 0; dec.More(); i++ {
				walk(pointer + "/" + strconv.Itoa(i))
			}
			next()
		}
	}
	walk("")
}
