package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"iter"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// renderer reads an OpenAPI description for the page that shows it.
type renderer struct {
	root *yaml.Node
	err  error // the first
}

var nothing = &yaml.Node{Kind: yaml.MappingNode}

// pairs ranges over a mapping in its order.
func pairs(n *yaml.Node) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
			if !yield(n.Content[i].Value, n.Content[i+1]) {
				return
			}
		}
	}
}

// get follows names down from a mapping, through references; what is not there is an empty mapping.
func (r *renderer) get(n *yaml.Node, names ...string) *yaml.Node {
	for _, name := range names {
		next := nothing
		for key, value := range pairs(r.follow(n)) {
			if key == name {
				next = value
			}
		}
		n = next
	}
	return n
}

// reference returns what a node refers to, or "".
func reference(n *yaml.Node) string {
	for key, value := range pairs(n) {
		if key == "$ref" {
			return value.Value
		}
	}
	return ""
}

func (r *renderer) follow(n *yaml.Node) *yaml.Node {
	ref := reference(n)
	if ref == "" {
		return n
	}
	to := r.root
	for _, name := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		to = r.get(to, name)
	}
	if to == nothing && r.err == nil {
		r.err = fmt.Errorf("openapi.yaml, line %d: %s leads nowhere", n.Line, ref)
	}
	return to
}

func (r *renderer) text(n *yaml.Node, names ...string) string {
	for key, value := range pairs(n) { // a description beside a reference goes before the one it refers to
		if len(names) == 1 && key == names[0] {
			return value.Value
		}
	}
	return r.get(n, names...).Value
}

// paragraphs splits text at empty lines.
func paragraphs(s string) []string {
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	return strings.Split(s, "\n\n")
}

// inline writes the little Markdown that descriptions have: **bold** and `code`.
func inline(s string) template.HTML {
	s = template.HTMLEscapeString(s)
	s = inBold.ReplaceAllString(s, "<b>$1</b>")
	return template.HTML(inCode.ReplaceAllString(s, "<code>$1</code>"))
}

var (
	inBold = regexp.MustCompile(`\*\*([^*]+)\*\*`)
	inCode = regexp.MustCompile("`([^`]+)`")
)

func (r *renderer) operation(method, path string, op *yaml.Node) docsOperation {
	d := docsOperation{ID: r.text(op, "operationId"), Method: method, Path: path, Summary: r.text(op, "summary"), Description: paragraphs(r.text(op, "description"))}
	var names []string
	for _, role := range r.get(op, "x-roles").Content {
		names = append(names, role.Value)
	}
	if len(names) > 0 && !slices.Contains(names, "admin") {
		names = append(names, "admin")
	}
	d.Roles = strings.Join(names, ", ")
	for _, p := range r.get(op, "parameters").Content {
		schema := r.get(p, "schema")
		d.Parameters = append(d.Parameters, docsField{Name: r.text(p, "name"), Where: r.text(p, "in"), Type: r.typeOf(schema), Schema: schemaName(schema),
			Required: r.text(p, "required") == "true", Description: firstOf(r.text(p, "description"), r.text(schema, "description"))})
	}
	for _, media := range pairs(r.get(op, "requestBody", "content")) {
		schema := r.get(media, "schema")
		if d.Body = schemaName(schema); d.Body == "" {
			d.Fields = r.properties(schema)
		}
		d.Examples = r.examples(media)
	}
	for status, response := range pairs(r.get(op, "responses")) {
		out := docsResponse{Status: status, Description: r.text(response, "description")}
		for _, media := range pairs(r.get(response, "content")) {
			out.Schema, out.Examples = r.itemName(r.get(media, "schema")), r.examples(media)
		}
		d.Responses = append(d.Responses, out)
	}
	return d
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// schemaName is the name of the schema that a node refers to, or "".
func schemaName(n *yaml.Node) string {
	name, ok := strings.CutPrefix(reference(n), "#/components/schemas/")
	if !ok {
		return ""
	}
	return name
}

// itemName is the schema of an answer, or of the items of a page.
func (r *renderer) itemName(n *yaml.Node) string {
	if name := schemaName(n); name != "" {
		return name
	}
	for _, part := range r.get(n, "allOf").Content {
		if name := schemaName(r.get(part, "properties", "data", "items")); name != "" {
			return name
		}
		if name := schemaName(part); name != "" && name != "Page" {
			return name
		}
	}
	return ""
}

func (r *renderer) examples(media *yaml.Node) []docsExample {
	var out []docsExample
	for name, example := range pairs(r.get(media, "examples")) {
		var flat, text bytes.Buffer
		if err := writeJSON(&flat, r.get(example, "value")); err != nil && r.err == nil {
			r.err = err
		}
		if err := json.Indent(&text, flat.Bytes(), "", "  "); err != nil && r.err == nil {
			r.err = fmt.Errorf("indent example %s: %w", name, err)
		}
		out = append(out, docsExample{name, text.String()})
	}
	return out
}

// typeOf says in a few words what a schema admits.
func (r *renderer) typeOf(n *yaml.Node) string {
	n = r.follow(n)
	var words []string
	switch t := r.get(n, "type"); {
	case t.Kind == yaml.ScalarNode && t.Value == "array":
		item := r.get(n, "items")
		return "array of " + firstOf(schemaName(item), r.typeOf(item))
	case t.Kind == yaml.ScalarNode:
		words = append(words, t.Value)
	case t.Kind == yaml.SequenceNode:
		for _, one := range t.Content {
			words = append(words, one.Value)
		}
	}
	for _, v := range r.get(n, "enum").Content {
		words = append(words, v.Value)
	}
	if v := r.text(n, "const"); v != "" {
		words = append(words, v)
	}
	for _, keyword := range []string{"oneOf", "allOf"} {
		for _, one := range r.get(n, keyword).Content {
			if t := firstOf(schemaName(one), r.text(one, "type")); t != "" {
				words = append(words, t)
			}
		}
	}
	return strings.Join(slices.Compact(words), " | ")
}

func (r *renderer) properties(n *yaml.Node) []docsField {
	n = r.follow(n)
	var required []string
	for _, name := range r.get(n, "required").Content {
		required = append(required, name.Value)
	}
	var out []docsField
	for name, schema := range pairs(r.get(n, "properties")) {
		out = append(out, docsField{Name: name, Type: r.typeOf(schema), Schema: schemaName(schema), Required: slices.Contains(required, name),
			Description: r.text(schema, "description")})
	}
	return out
}
