package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tallystick/tallystick/credit"
)

// spec is openapi.yaml as a program reads it.
type spec struct {
	doc      map[string]any
	compiler *jsonschema.Compiler
	mu       sync.Mutex
	compiled map[string]*jsonschema.Schema
}

const specURL = "https://tallystick.test/openapi.json"

var theSpec = sync.OnceValues(func() (*spec, error) {
	d, err := theDocs()
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(d.json))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource(specURL, doc); err != nil {
		return nil, err
	}
	return &spec{doc: doc.(map[string]any), compiler: c, compiled: map[string]*jsonschema.Schema{}}, nil
})

func loadSpec(t testing.TB) *spec {
	t.Helper()
	s, err := theSpec()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// at follows a pointer of names into the document, through references, and returns what is there and where that is.
func (s *spec) at(names ...string) (any, []string, bool) {
	var here any = s.doc
	var where []string
	for _, name := range names {
		here, where = s.follow(here, where)
		m, ok := here.(map[string]any)
		if !ok {
			return nil, nil, false
		}
		if here, ok = m[name]; !ok {
			return nil, nil, false
		}
		where = append(slices.Clone(where), name)
	}
	here, where = s.follow(here, where)
	return here, where, true
}

func (s *spec) follow(v any, where []string) (any, []string) {
	m, ok := v.(map[string]any)
	if !ok {
		return v, where
	}
	ref, ok := m["$ref"].(string)
	if !ok {
		return v, where
	}
	names := strings.Split(strings.TrimPrefix(ref, "#/"), "/")
	to, there, ok := s.at(names...)
	if !ok {
		panic("openapi.yaml: " + ref + " leads nowhere")
	}
	return to, there
}

// schema compiles the schema at a place.
func (s *spec) schema(t testing.TB, where []string) *jsonschema.Schema {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var pointer strings.Builder
	for _, name := range where {
		pointer.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(name))
	}
	url := specURL + "#" + pointer.String()
	if c := s.compiled[url]; c != nil {
		return c
	}
	c, err := s.compiler.Compile(url)
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	s.compiled[url] = c
	return c
}

// template finds the path of the description that a request's path is an instance of.
func (s *spec) template(path string) (string, bool) {
	var found string
	for template := range s.doc["paths"].(map[string]any) {
		form := regexp.MustCompile(`\{[^}]+\}`).ReplaceAllString(regexp.QuoteMeta(strings.NewReplacer("{", "\x01", "}", "\x02").Replace(template)), "")
		form = regexp.MustCompile("\x01[^\x02]+\x02").ReplaceAllString(form, "[^/]+")
		// A path without parameters goes before one with.
		if regexp.MustCompile("^"+form+"$").MatchString(path) && (found == "" || strings.Contains(found, "{")) {
			found = template
		}
	}
	return found, found != ""
}

// checkRequest holds a request's body against its schema; valid says what to expect.
func (s *spec) checkRequest(t testing.TB, method, path string, body []byte, valid bool) {
	t.Helper()
	template, ok := s.template(path)
	if !ok {
		return
	}
	_, where, ok := s.at("paths", template, strings.ToLower(method), "requestBody", "content", "application/json", "schema")
	if !ok || len(body) == 0 {
		return
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = s.schema(t, where).Validate(v)
	}
	if valid && err != nil {
		t.Errorf("%s %s accepted a request that its description does not: %v\n%s", method, path, err, body)
	}
}

// checkAnswer holds an answer against what is described for its status.
func (s *spec) checkAnswer(t testing.TB, method, path string, status int, h http.Header, body []byte) {
	t.Helper()
	template, ok := s.template(path)
	if _, _, described := s.at("paths", template, strings.ToLower(method)); !ok || !described {
		if status < 400 {
			t.Errorf("%s %s answers %d and is not described", method, path, status)
		}
		s.validate(t, []string{"components", "schemas", "Problem"}, body, fmt.Sprintf("%s %s: %d", method, path, status))
		return
	}
	key := fmt.Sprint(status)
	response := []string{"paths", template, strings.ToLower(method), "responses", key}
	if _, _, ok := s.at(response...); !ok {
		if response[4] = "default"; status < 400 {
			t.Errorf("%s %s answers %d, which is not described", method, path, status)
			return
		}
	}
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	if _, where, ok := s.at(append(response, "content", media, "schema")...); !ok {
		t.Errorf("%s %s answers %d with %s, which is not described", method, template, status, media)
	} else if strings.HasSuffix(media, "json") {
		s.validate(t, where, body, fmt.Sprintf("%s %s: %d", method, path, status))
	}
}

func (s *spec) validate(t testing.TB, where []string, body []byte, what string) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = s.schema(t, where).Validate(v)
	}
	if err != nil {
		t.Errorf("%s is not as described: %v\n%s", what, err, body)
	}
}

func TestDescriptionHasEveryRoute(t *testing.T) {
	s := loadSpec(t)
	d, err := theDocs()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]string{}
	for _, rt := range append(new(Server).table(), d.routes()...) {
		path := regexp.MustCompile(`:([a-z_]+)`).ReplaceAllString(rt.Path, "{$1}")
		served[rt.Method+" "+path] = strings.TrimSuffix(strings.TrimSuffix(rt.Roles.String(), "admin"), ", ")
		if rt.Roles == admin {
			served[rt.Method+" "+path] = "admin"
		}
	}
	described := map[string]string{}
	ids := map[string]bool{}
	for path, methods := range s.doc["paths"].(map[string]any) {
		for method, v := range methods.(map[string]any) {
			op := v.(map[string]any)
			var roles []string
			if list, ok := op["x-roles"].([]any); ok {
				for _, r := range list {
					roles = append(roles, r.(string))
				}
			}
			described[strings.ToUpper(method)+" "+path] = strings.Join(roles, ", ")
			if open := op["security"] != nil; open != (len(roles) == 0) {
				t.Errorf("%s %s: either it has roles or its security is []", method, path)
			}
			id := op["operationId"].(string)
			if ids[id] {
				t.Errorf("operationId %s comes twice", id)
			}
			ids[id] = true
			for _, name := range regexp.MustCompile(`\{([^}]+)\}`).FindAllStringSubmatch(path, -1) {
				if !slices.ContainsFunc(op["parameters"].([]any), func(p any) bool {
					v, _ := s.follow(p, nil)
					return v.(map[string]any)["name"] == name[1] && v.(map[string]any)["in"] == "path"
				}) {
					t.Errorf("%s %s does not describe {%s}", method, path, name[1])
				}
			}
		}
	}
	for _, route := range slices.Sorted(maps.Keys(served)) {
		if _, ok := described[route]; !ok {
			t.Errorf("%s is served and not described", route)
		} else if described[route] != served[route] {
			t.Errorf("%s is described for %q and served for %q", route, described[route], served[route])
		}
	}
	for route := range described {
		if _, ok := served[route]; !ok {
			t.Errorf("%s is described and not served", route)
		}
	}
}

func TestDescribedSchemasAreSchemas(t *testing.T) {
	s := loadSpec(t)
	for name := range s.doc["components"].(map[string]any)["schemas"].(map[string]any) {
		s.schema(t, []string{"components", "schemas", name})
	}
}

// TestDescribedExamplesAreValid holds every example, wherever it is, against the schema beside it.
func TestDescribedExamplesAreValid(t *testing.T) {
	s := loadSpec(t)
	n := 0
	var walk func(v any, where []string)
	walk = func(v any, where []string) {
		switch v := v.(type) {
		case map[string]any:
			if examples, ok := v["examples"].(map[string]any); ok && v["schema"] != nil {
				for name := range examples {
					value, _, _ := s.at(append(slices.Clone(where), "examples", name, "value")...)
					_, schema, _ := s.at(append(slices.Clone(where), "schema")...)
					if err := s.schema(t, schema).Validate(value); err != nil {
						t.Errorf("example %s: %v", name, err)
					}
					n++
				}
			}
			if examples, ok := v["examples"].([]any); ok {
				for _, value := range examples {
					if err := s.schema(t, where).Validate(value); err != nil {
						t.Errorf("%s: %v", strings.Join(where, "/"), err)
					}
					n++
				}
			}
			for name, child := range v {
				walk(child, append(slices.Clone(where), name))
			}
		case []any:
			for _, child := range v {
				walk(child, nil) // nothing in an array has examples of its own
			}
		}
	}
	walk(s.doc, nil)
	if n < 20 {
		t.Errorf("%d examples were found", n)
	}
}

func TestDescribedProblemsAreThoseThatExist(t *testing.T) {
	s := loadSpec(t)
	list, _, _ := s.at("components", "schemas", "ProblemCode", "enum")
	var described []string
	for _, v := range list.([]any) {
		described = append(described, v.(string))
	}
	slices.Sort(described)
	var have []string
	for code := range kinds {
		have = append(have, string(code))
	}
	slices.Sort(have)
	if !slices.Equal(described, have) {
		t.Errorf("described: %v\nserved:    %v", described, have)
	}
	for code, k := range kinds {
		if k.title == "" || k.advice == "" || k.status < 400 {
			t.Errorf("%s lacks a title, an advice or a status", code)
		}
		s.validate(t, []string{"components", "schemas", "Problem"}, appendProblem(nil, credit.Errorf(code, "Detail."), credit.NewID[credit.RequestID]()), string(code))
	}
}

func TestDescriptionAsJSONIsTheSameDocument(t *testing.T) {
	d, err := theDocs()
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(d.json) {
		t.Fatal("openapi.json is not JSON")
	}
}
