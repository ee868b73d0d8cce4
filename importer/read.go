// Package importer sends files of usage events through the API: in batches, several at a time, each event charged once however often the file is sent.
package importer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
)

// Formats of files.
const (
	NDJSON = "ndjson" // an event in each line
	JSON   = "json"   // a list of events
	CSV    = "csv"    // a header, and a row for each event
)

// maxEvent bounds one event in bytes, as the API does.
const maxEvent = 1 << 20

// fileHead is how much of a file tells it from others, with its size.
const fileHead = 1 << 20

// File is a file of usage events.
type File struct {
	Name     string
	Format   string            // NDJSON, JSON or CSV; "": by the name's ending
	Source   string            // of events in CSV whose row has none
	Columns  map[string]string // CSV: the header of a field where that is not the field's own name
	Identity string            // of the content: its size and its beginning
	Size     int64             // as it is on disk

	read atomic.Int64 // bytes of it
}

// Open looks at a file. It is compressed when its name ends with .gz.
func Open(name, format string) (*File, error) {
	f := &File{Name: name, Format: format}
	if f.Format == "" {
		switch plain := strings.ToLower(strings.TrimSuffix(name, ".gz")); {
		case strings.HasSuffix(plain, ".csv"):
			f.Format = CSV
		case strings.HasSuffix(plain, ".json"):
			f.Format = JSON
		case strings.HasSuffix(plain, ".ndjson"), strings.HasSuffix(plain, ".jsonl"):
			f.Format = NDJSON
		default:
			return nil, fmt.Errorf("the name of %s does not say what is in it: give --format", name)
		}
	}
	in, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", name, err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(in, fileHead)); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	f.Size = info.Size()
	f.Identity = fmt.Sprintf("%d bytes, %s", f.Size, hex.EncodeToString(h.Sum(nil)[:16]))
	return f, nil
}

// Read returns how many bytes of the file have been read.
func (f *File) Read() int64 { return f.read.Load() }

// counted counts what is read of the file as it is on disk.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// record is one event of a file: JSON on one line, or what stands there instead.
type record struct {
	text []byte
	err  error // why it cannot be sent
}

// errLong says that an event is too large.
var errLong = fmt.Errorf("the event is larger than %d bytes", maxEvent)

// each calls do with every event, until it returns an error. Memory holds one event at a time.
func (f *File) each(do func(record) error) error {
	file, err := os.Open(f.Name)
	if err != nil {
		return err
	}
	defer file.Close()
	f.read.Store(0)
	var in io.Reader = counted{file, &f.read}
	if strings.HasSuffix(f.Name, ".gz") {
		z, err := gzip.NewReader(bufio.NewReaderSize(in, 256<<10))
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name, err)
		}
		in = z
	}
	return f.parse(in, do)
}

func (f *File) parse(in io.Reader, do func(record) error) error {
	r := bufio.NewReaderSize(in, 256<<10)
	if b, _ := r.Peek(3); bytes.Equal(b, []byte("\xef\xbb\xbf")) {
		_, _ = r.Discard(3) // a byte order mark, which there is
	}
	switch f.Format {
	case JSON:
		return f.eachElement(r, do)
	case CSV:
		return f.eachRow(r, do)
	}
	return f.eachLine(r, do)
}

func (f *File) eachLine(r *bufio.Reader, do func(record) error) error {
	var line []byte
	for {
		line = line[:0]
		long := false
		part, err := r.ReadSlice('\n')
		for ; errors.Is(err, bufio.ErrBufferFull); part, err = r.ReadSlice('\n') {
			if long = long || len(line)+len(part) > maxEvent; !long {
				line = append(line, part...)
			}
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("read %s: %w", f.Name, err)
		}
		if long = long || len(line)+len(part) > maxEvent+1; !long {
			line = append(line, part...)
		}
		text := bytes.TrimSpace(line)
		switch {
		case long:
			if err := do(record{err: errLong}); err != nil {
				return err
			}
		case len(text) > 0:
			if err := do(record{text: bytes.Clone(text)}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

func (f *File) eachElement(r *bufio.Reader, do func(record) error) error {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return fmt.Errorf("%s is no JSON list", f.Name)
	}
	var room bytes.Buffer
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return fmt.Errorf("read %s at byte %d: %w", f.Name, d.InputOffset(), err)
		}
		room.Reset()
		if err := json.Compact(&room, raw); err != nil {
			return fmt.Errorf("read %s at byte %d: %w", f.Name, d.InputOffset(), err)
		}
		one := record{text: bytes.Clone(room.Bytes())}
		if len(one.text) > maxEvent {
			one = record{err: errLong}
		}
		if err := do(one); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("read %s to its end: %w", f.Name, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%s goes on after its list", f.Name)
	}
	return nil
}

// Fields are the columns of a CSV file that are read. A column dimension.NAME is a dimension.
var Fields = []string{"source", "id", "customer", "member", "time", "unit", "amount", "meter", "quantity", "reason"}

const dimensionColumn = "dimension."

// column is where a field of an event comes from.
type column struct {
	field     string
	dimension bool
}

func (f *File) eachRow(in io.Reader, do func(record) error) error {
	r := csv.NewReader(in)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return fmt.Errorf("read the header of %s: %w", f.Name, err)
	}
	columns, err := f.columns(header)
	if err != nil {
		return err
	}
	for {
		row, err := r.Read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name, err)
		}
		event := map[string]any{}
		dims := map[string]string{}
		if f.Source != "" {
			event["source"] = f.Source
		}
		for i, c := range columns {
			switch {
			case row[i] == "":
			case c.dimension:
				dims[c.field] = row[i]
			case c.field != "":
				event[c.field] = row[i]
			}
		}
		if len(dims) > 0 {
			event["dimensions"] = dims
		}
		text, err := json.Marshal(event)
		if err != nil {
			return fmt.Errorf("write an event: %w", err)
		}
		one := record{text: text}
		if len(text) > maxEvent {
			one = record{err: errLong}
		}
		if err := do(one); err != nil {
			return err
		}
	}
}

// columns says what each column of a header is; those that are nothing are passed over.
func (f *File) columns(header []string) ([]column, error) {
	byHeader := map[string]string{}
	for _, field := range Fields {
		byHeader[field] = field
	}
	for field, name := range f.Columns {
		if !slices.Contains(Fields, field) && !strings.HasPrefix(field, dimensionColumn) {
			return nil, fmt.Errorf("%q is no field of an event: there are %s and %sNAME", field, strings.Join(Fields, ", "), dimensionColumn)
		}
		if !slices.Contains(header, name) {
			return nil, fmt.Errorf("%s has no column %q", f.Name, name)
		}
		if byHeader[field] == field {
			delete(byHeader, field)
		}
	}
	for field, name := range f.Columns {
		byHeader[name] = field
	}
	out := make([]column, len(header))
	seen := map[string]bool{}
	for i, name := range header {
		field := byHeader[name]
		if field == "" && strings.HasPrefix(name, dimensionColumn) {
			field = name
		}
		if field != "" && seen[field] {
			return nil, fmt.Errorf("%s has two columns for %s", f.Name, field)
		}
		seen[field] = true
		out[i].field, out[i].dimension = strings.CutPrefix(field, dimensionColumn)
	}
	for _, field := range []string{"id", "customer", "time"} {
		if !seen[field] {
			return nil, fmt.Errorf("%s has no column for %s", f.Name, field)
		}
	}
	return out, nil
}
