package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/tallystick/tallystick/credit"
	embedded "github.com/tallystick/tallystick/docs"
)

//go:embed openapi.yaml
var openAPI []byte

//go:embed docs.html
var docsHTML string

//go:embed docs.css
var docsCSS string

// docs are the API's description in the forms in which it is served.
type docs struct {
	json, page []byte
	policy     string // Content-Security-Policy of the page: nothing but itself
}

// theDocs makes all forms of openapi.yaml, once.
var theDocs = sync.OnceValues(func() (*docs, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(openAPI, &root); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	var out bytes.Buffer
	if err := writeJSON(&out, &root); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(docsCSS))
	d := &docs{json: out.Bytes(), policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
	var err error
	d.page, err = renderDocs(root.Content[0])
	return d, err
})

// writeJSON writes YAML as JSON, in the order of the YAML.
func writeJSON(out *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.DocumentNode:
		return writeJSON(out, n.Content[0])
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			out.WriteByte("{,"[min(i, 1)])
			out.Write(appendString(nil, n.Content[i].Value))
			out.WriteByte(':')
			if err := writeJSON(out, n.Content[i+1]); err != nil {
				return err
			}
		}
		if len(n.Content) == 0 {
			out.WriteByte('{')
		}
		out.WriteByte('}')
	case yaml.SequenceNode:
		for i, item := range n.Content {
			out.WriteByte("[,"[min(i, 1)])
			if err := writeJSON(out, item); err != nil {
				return err
			}
		}
		if len(n.Content) == 0 {
			out.WriteByte('[')
		}
		out.WriteByte(']')
	case yaml.ScalarNode:
		var v any
		if err := n.Decode(&v); err != nil {
			return fmt.Errorf("read openapi.yaml, line %d: %w", n.Line, err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("write openapi.json: %w", err)
		}
		out.Write(b)
	default:
		return fmt.Errorf("openapi.yaml, line %d: neither aliases nor anchors are used", n.Line)
	}
	return nil
}

func (d *docs) routes() []route {
	serve := func(contentType string, body []byte) handler {
		return func(_ context.Context, c *call) error {
			c.writeAs(contentType, body)
			return nil
		}
	}
	return []route{
		{Method: http.MethodGet, Path: "/docs", handle: d.servePage},
		{Method: http.MethodGet, Path: "/openapi.yaml", handle: serve("application/yaml", openAPI)},
		{Method: http.MethodGet, Path: "/openapi.json", handle: serve("application/json", d.json)},
		{Method: http.MethodGet, Path: "/rate-card.schema.json", handle: serve("application/json", embedded.RateCardSchema)},
		{Method: http.MethodGet, Path: "/problems/:code", handle: serveProblemType},
	}
}

func (d *docs) servePage(_ context.Context, c *call) error {
	h := c.w.Header()
	h.Set("Content-Security-Policy", d.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	c.writeAs("text/html; charset=utf-8", d.page)
	return nil
}

type problemType struct {
	Type   string      `json:"type"`
	Code   credit.Code `json:"code"`
	Title  string      `json:"title"`
	Status int         `json:"status"`
	Advice string      `json:"advice"`
}

// serveProblemType is GET /problems/{code}: where the type of a problem leads.
func serveProblemType(_ context.Context, c *call) error {
	text, err := c.pathText("code")
	if err != nil {
		return err
	}
	code := credit.Code(text)
	k, ok := kinds[code]
	if !ok {
		return credit.Errorf(credit.NotFound, "There is no problem %.40q.", text)
	}
	return c.document(problemType{"/problems/" + text, code, k.title, k.status, k.advice})
}

// What docs.html shows.
type (
	docsPage struct {
		CSS         template.CSS
		Title       string
		Description []string
		Groups      []*docsGroup
		Schemas     []docsSchema
		Problems    []problemType
	}
	docsGroup struct {
		Name, Description string
		Operations        []docsOperation
	}
	docsOperation struct {
		ID, Method, Path, Summary string
		Description               []string
		Roles                     string
		Parameters                []docsField
		Body                      string // name of the schema, or of none
		Fields                    []docsField
		Examples                  []docsExample
		Responses                 []docsResponse
	}
	docsField struct {
		Name, Where, Type, Description string
		Required                       bool
		Schema                         string // to link to
	}
	docsExample  struct{ Name, Text string }
	docsResponse struct {
		Status, Description, Schema string
		Examples                    []docsExample
	}
	docsSchema struct {
		Name, Type, Description string
		Fields                  []docsField
	}
)

// renderDocs makes the page from the description.
func renderDocs(root *yaml.Node) ([]byte, error) {
	r := renderer{root: root}
	p := docsPage{CSS: template.CSS(docsCSS), Title: r.text(root, "info", "title"), Description: paragraphs(r.text(root, "info", "description"))}
	groups := map[string]*docsGroup{}
	for _, tag := range r.get(root, "tags").Content {
		g := &docsGroup{Name: r.text(tag, "name"), Description: r.text(tag, "description")}
		groups[g.Name] = g
		p.Groups = append(p.Groups, g)
	}
	for path, methods := range pairs(r.get(root, "paths")) {
		for method, op := range pairs(methods) {
			g := groups[r.get(op, "tags").Content[0].Value]
			g.Operations = append(g.Operations, r.operation(strings.ToUpper(method), path, op))
		}
	}
	for name, schema := range pairs(r.get(root, "components", "schemas")) {
		p.Schemas = append(p.Schemas, docsSchema{Name: name, Type: r.typeOf(schema), Description: r.text(schema, "description"), Fields: r.properties(schema)})
	}
	for _, code := range r.get(root, "components", "schemas", "ProblemCode", "enum").Content {
		k := kinds[credit.Code(code.Value)]
		p.Problems = append(p.Problems, problemType{"/problems/" + code.Value, credit.Code(code.Value), k.title, k.status, k.advice})
	}
	t, err := template.New("docs").Funcs(template.FuncMap{"inline": inline}).Parse(docsHTML)
	if err != nil {
		return nil, fmt.Errorf("read docs.html: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, p); err != nil {
		return nil, fmt.Errorf("render docs.html: %w", err)
	}
	return out.Bytes(), r.err
}
