// Package replay streams a trace of requests to a language model through POST /v1/consume, as the service that answered them would, and
// tells what came of it. It knows the product by its API only.
package replay

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Event is one request to a language model.
type Event struct {
	Line   int // in the trace, 1 being its first; unique
	At     time.Time
	Input  int64 // tokens read
	Output int64 // tokens written
}

// Trace is a sequence of events that can be read again and again.
type Trace struct {
	Name     string // for people
	Identity string // the same for the same events only
	Events   int
	First    time.Time // no event is earlier
	Last     time.Time // no event is later
	read     func() iter.Seq2[Event, error]
}

// Columns of a trace. Others are passed over.
const (
	columnTime   = "TIMESTAMP"
	columnInput  = "ContextTokens"
	columnOutput = "GeneratedTokens"
)

// maxTokens bounds what one request can have read or written: more is a broken trace.
const maxTokens = 1_000_000_000

// Open reads a trace to its end, so that one with a fault is found before anything is sent.
func Open(path string) (*Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	defer f.Close()
	t := &Trace{Name: path, read: func() iter.Seq2[Event, error] { return readFile(path) }}
	sum := sha256.New()
	for e, err := range Parse(io.TeeReader(f, sum)) {
		if err != nil {
			return nil, fmt.Errorf("read trace %s: %w", path, err)
		}
		if t.Events == 0 || e.At.Before(t.First) {
			t.First = e.At
		}
		if t.Events == 0 || e.At.After(t.Last) {
			t.Last = e.At
		}
		t.Events++
	}
	if t.Events == 0 {
		return nil, fmt.Errorf("read trace %s: it has no events", path)
	}
	t.Identity = fmt.Sprintf("sha256:%x", sum.Sum(nil))
	return t, nil
}

func readFile(path string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Event{}, fmt.Errorf("open trace: %w", err))
			return
		}
		defer f.Close()
		Parse(bufio.NewReaderSize(f, 1<<16))(yield)
	}
}

// Parse reads a trace as CSV: a header that names TIMESTAMP, ContextTokens and GeneratedTokens in any order, then a line for each event. An
// instant is "2023-11-16 18:17:03.9799600", with up to nine decimal places, in UTC or with an offset as in RFC 3339; tokens are whole
// numbers. The first fault ends the sequence; its error names the line.
func Parse(r io.Reader) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		in := csv.NewReader(withoutMark(r))
		in.ReuseRecord = true
		header, err := in.Read()
		if errors.Is(err, io.EOF) {
			err = errors.New("line 1: there is no header")
		}
		if err != nil {
			yield(Event{}, lineOf(err))
			return
		}
		at, err := columns(header)
		if err != nil {
			yield(Event{}, err)
			return
		}
		for {
			record, err := in.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			var e Event
			if err == nil {
				e, err = event(record, at)
				if e.Line, _ = in.FieldPos(0); err != nil {
					err = fmt.Errorf("line %d: %w", e.Line, err)
				}
			}
			if !yield(e, lineOf(err)) || err != nil {
				return
			}
		}
	}
}

// withoutMark drops the byte order mark that some programs write before everything else.
func withoutMark(r io.Reader) io.Reader {
	b := bufio.NewReader(r)
	if mark, _ := b.Peek(3); bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = b.Discard(3) // they have just been seen
	}
	return b
}

// lineOf words a fault of the CSV itself like all others.
func lineOf(err error) error {
	var fault *csv.ParseError
	if errors.As(err, &fault) {
		return fmt.Errorf("line %d: %w", fault.StartLine, fault.Err)
	}
	return err
}

// columns finds the three columns in a header.
func columns(header []string) (at [3]int, err error) {
	for i, name := range []string{columnTime, columnInput, columnOutput} {
		same := func(s string) bool { return strings.EqualFold(s, name) }
		if at[i] = slices.IndexFunc(header, same); at[i] < 0 {
			return at, fmt.Errorf("line 1: there is no column %s", name)
		}
		if slices.ContainsFunc(header[at[i]+1:], same) {
			return at, fmt.Errorf("line 1: there are two columns %s", name)
		}
	}
	return at, nil
}

func event(record []string, at [3]int) (e Event, err error) {
	if e.At, err = instant(record[at[0]]); err != nil {
		return e, err
	}
	if e.Input, err = tokens(columnInput, record[at[1]]); err != nil {
		return e, err
	}
	e.Output, err = tokens(columnOutput, record[at[2]])
	return e, err
}

// layouts of instants; fractions of a second are read without being named.
var layouts = []string{"2006-01-02 15:04:05", "2006-01-02 15:04:05Z07:00", time.RFC3339}

func instant(s string) (time.Time, error) {
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			if t = t.UTC(); t.Year() < 1970 || t.Year() > 9999 {
				break
			}
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s: %.40q is not an instant such as 2023-11-16 18:17:03.9799600", columnTime, s)
}

func tokens(column, s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > maxTokens || s[0] == '+' || s[0] == '-' {
		return 0, fmt.Errorf("%s: %.40q is not a whole number from 0 to %d", column, s, maxTokens)
	}
	return n, nil
}
