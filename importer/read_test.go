package importer

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func texts(t *testing.T, f *File, body string) []string {
	t.Helper()
	var out []string
	if err := f.parse(strings.NewReader(body), func(r record) error {
		if r.err != nil {
			out = append(out, "too long")
		} else {
			out = append(out, string(r.text))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRead(t *testing.T) {
	long := strings.Repeat("x", maxEvent+2)
	for _, c := range []struct {
		file *File
		body string
		want []string
	}{
		{&File{Format: NDJSON}, "\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"b\":\n" + long + "\nlast", []string{`{"a":1}`, `{"b":`, "too long", "last"}},
		{&File{Format: NDJSON}, "", nil},
		{&File{Format: JSON}, " [ {\"a\": \"x\\n\",\n \"b\": [1, 2]} , 7, \"" + long + "\"]\n", []string{`{"a":"x\n","b":[1,2]}`, "7", "too long"}},
		{&File{Format: JSON}, "[]", nil},
		{&File{Format: CSV}, "id,source,customer,time,unit,amount,dimension.model,note\n1,app,acme,t,CRD,2,\"a\nb\",-\n2,,acme,t,,,,\n", []string{
			`{"amount":"2","customer":"acme","dimensions":{"model":"a\nb"},"id":"1","source":"app","time":"t","unit":"CRD"}`, `{"customer":"acme","id":"2","time":"t"}`}},
		{&File{Format: CSV, Source: "file", Columns: map[string]string{"customer": "account", "quantity": "amount", "dimension.region": "Where"}},
			"account,id,when,time,amount,Where\nacme,1,x,t,5,eu\n", []string{`{"customer":"acme","dimensions":{"region":"eu"},"id":"1","quantity":"5","source":"file","time":"t"}`}},
	} {
		if got := texts(t, c.file, c.body); !slices.Equal(got, c.want) {
			t.Errorf("%.60q is %.300q, not %q", c.body, got, c.want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for _, c := range []struct {
		file       *File
		body, want string
	}{
		{&File{Format: JSON}, "{}", "no JSON list"}, {&File{Format: JSON}, "[1,", "byte"}, {&File{Format: JSON}, "[1", "end"}, {&File{Format: JSON}, "[1]2", "goes on"},
		{&File{Format: CSV}, "", "header"}, {&File{Format: CSV}, "id,time\n", "no column for customer"}, {&File{Format: CSV}, "id,id,customer,time\n", "two columns"},
		{&File{Format: CSV}, "id,customer,time\n1,2\n", "wrong number of fields"},
		{&File{Format: CSV, Columns: map[string]string{"customer": "x"}}, "id,customer,time\n", `no column "x"`},
		{&File{Format: CSV, Columns: map[string]string{"colour": "id"}}, "id,customer,time\n", "no field"},
	} {
		err := c.file.parse(strings.NewReader(c.body), func(record) error { return nil })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, not %q", c.body, err, c.want)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write([]byte("{\"a\":1}\n{\"a\":2}")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.ndjson.gz": NDJSON, "b.JSONL": NDJSON, "c.json": JSON, "d.csv.gz": CSV} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, z.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path, "")
		if err != nil || f.Format != want || f.Size != int64(z.Len()) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	f, err := Open(filepath.Join(dir, "a.ndjson.gz"), "")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := f.each(func(record) error { n++; return nil }); err != nil || n != 2 || f.Read() != f.Size {
		t.Errorf("%d events in %d bytes, %v", n, f.Read(), err)
	}
	if _, err := Open(filepath.Join(dir, "e.txt"), ""); err == nil {
		t.Error("a name that says nothing was taken")
	}
}

// FuzzParse reads anything as every format: what it hands on is never too long and never spans lines, and of lists and rows it is JSON.
func FuzzParse(f *testing.F) {
	f.Add(uint8(0), "{\"a\":1}\n\n{")
	f.Add(uint8(1), `[{"a":1},[],"x"]`)
	f.Add(uint8(2), "id,customer,time,dimension.a\n1,2,3,\"4\n5\"\n")
	f.Fuzz(func(t *testing.T, kind uint8, body string) {
		file := &File{Name: "file", Format: []string{NDJSON, JSON, CSV}[kind%3], Source: "s"}
		_ = file.parse(strings.NewReader(body), func(r record) error {
			if r.err == nil && (len(r.text) == 0 || len(r.text) > maxEvent || bytes.ContainsRune(r.text, '\n')) {
				t.Fatalf("%q has the event %q", body, r.text)
			}
			if r.err == nil && file.Format != NDJSON && !json.Valid(r.text) {
				t.Fatalf("%q has the event %q, which is no JSON", body, r.text)
			}
			return nil
		})
	})
}
