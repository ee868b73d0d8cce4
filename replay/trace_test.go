package replay

import (
	"bytes"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func collect(t *testing.T, text string) ([]Event, error) {
	t.Helper()
	var events []Event
	for e, err := range Parse(strings.NewReader(text)) {
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
	return events, nil
}

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestParse(t *testing.T) {
	first := Event{2, at("2023-11-16T18:17:03.97996Z"), 4808, 10}
	second := Event{3, at("2023-11-16T18:17:04.03196Z"), 3180, 8}
	const header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
	for name, c := range map[string]struct {
		text string
		want []Event
	}{
		"as published":      {header + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n", []Event{first, second}},
		"carriage returns":  {"TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319600,3180,8\r\n", []Event{first, second}},
		"no last line end":  {header + "2023-11-16 18:17:03.9799600,4808,10", []Event{first}},
		"byte order mark":   {"\ufeff" + header + "2023-11-16 18:17:03.9799600,4808,10\n", []Event{first}},
		"order and case":    {"generatedtokens,timestamp,contexttokens\n10,2023-11-16 18:17:03.9799600,4808\n", []Event{first}},
		"another column":    {"TIMESTAMP,Note,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,x,4808,10\n", []Event{first}},
		"empty lines":       {header + "\n2023-11-16 18:17:03.9799600,4808,10\n\n", []Event{{3, first.At, 4808, 10}}},
		"quotes":            {header + "\"2023-11-16 18:17:03.9799600\",\"4808\",10\n", []Event{first}},
		"offset":            {header + "2023-11-16 20:17:03.97996+02:00,4808,10\n", []Event{first}},
		"RFC 3339":          {header + "2023-11-16T18:17:03.97996Z,4808,10\n", []Event{first}},
		"no fraction":       {header + "2023-11-16 18:17:03,0,0\n", []Event{{2, at("2023-11-16T18:17:03Z"), 0, 0}}},
		"nine places":       {header + "2023-11-16 18:17:03.123456789,1,1\n", []Event{{2, at("2023-11-16T18:17:03.123456789Z"), 1, 1}}},
		"the most tokens":   {header + "2023-11-16 18:17:03,1000000000,1\n", []Event{{2, at("2023-11-16T18:17:03Z"), 1_000_000_000, 1}}},
		"header and no end": {header, nil},
	} {
		got, err := collect(t, c.text)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
	const good = "2023-11-16 18:17:03.9799600,4808,10\n"
	for name, c := range map[string]struct {
		text, want string
		before     int // events read before the fault
	}{
		"nothing":              {"", "line 1: there is no header", 0},
		"no header":            {good, "line 1: there is no column TIMESTAMP", 0},
		"column missing":       {"TIMESTAMP,ContextTokens\n2023-11-16 18:17:03,1\n", "line 1: there is no column GeneratedTokens", 0},
		"column twice":         {"TIMESTAMP,ContextTokens,contexttokens,GeneratedTokens\n", "line 1: there are two columns ContextTokens", 0},
		"too few fields":       {header + good + "2023-11-16 18:17:03,1\n", "line 3: wrong number of fields", 1},
		"too many fields":      {header + good + good + "2023-11-16 18:17:03,1,2,3\n", "line 4: wrong number of fields", 2},
		"no instant":           {header + good + "yesterday,1,2\n", `line 3: TIMESTAMP: "yesterday" is not an instant`, 1},
		"instant out of range": {header + "2023-13-16 18:17:03,1,2\n", "line 2: TIMESTAMP", 0},
		"before the epoch":     {header + "1969-12-31 23:59:59,1,2\n", "line 2: TIMESTAMP", 0},
		"words":                {header + good + "2023-11-16 18:17:03,many,2\n", `line 3: ContextTokens: "many" is not a whole number`, 1},
		"negative":             {header + "2023-11-16 18:17:03,1,-2\n", `line 2: GeneratedTokens: "-2" is not a whole number`, 0},
		"signed":               {header + "2023-11-16 18:17:03,+1,2\n", "line 2: ContextTokens", 0},
		"fraction":             {header + "2023-11-16 18:17:03,1.5,2\n", "line 2: ContextTokens", 0},
		"exponent":             {header + "2023-11-16 18:17:03,1e3,2\n", "line 2: ContextTokens", 0},
		"not a number":         {header + "2023-11-16 18:17:03,NaN,2\n", "line 2: ContextTokens", 0},
		"empty":                {header + "2023-11-16 18:17:03,,2\n", "line 2: ContextTokens", 0},
		"blank":                {header + "2023-11-16 18:17:03, 1,2\n", "line 2: ContextTokens", 0},
		"too many tokens":      {header + "2023-11-16 18:17:03,1000000001,2\n", "line 2: ContextTokens", 0},
		"far too many tokens":  {header + "2023-11-16 18:17:03,99999999999999999999999,2\n", "line 2: ContextTokens", 0},
		"open quote":           {header + good + "\"2023-11-16 18:17:03,1,2\n", "line 3: extraneous or missing \" in quoted-field", 1},
		"bare quote":           {header + good + "2023-11-16\" 18:17:03,1,2\n", "line 3: bare \" in non-quoted-field", 1},
		"zero byte":            {header + "2023-11-16 18:17:03\x00,1,2\n", "line 2: TIMESTAMP", 0},
		"not text":             {header + "\xff\xfe,1,2\n", "line 2: TIMESTAMP", 0},
	} {
		got, err := collect(t, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(got) != c.before {
			t.Errorf("%s: %d events and %v; want %d and %q", name, len(got), err, c.before, c.want)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) string {
		path := filepath.Join(dir, rand.Text()+".csv")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const lines = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04,1,2\n2023-11-16 18:17:03,3,4\n2023-11-16 18:17:09,5,6\n"
	a, err := Open(write(lines))
	if err != nil {
		t.Fatal(err)
	}
	if a.Events != 3 || !a.First.Equal(at("2023-11-16T18:17:03Z")) || !a.Last.Equal(at("2023-11-16T18:17:09Z")) {
		t.Errorf("%+v", a)
	}
	for range 2 { // it can be read again
		n := 0
		for _, err := range a.read() {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != a.Events {
			t.Errorf("%d events were read, %d counted", n, a.Events)
		}
	}
	if b, err := Open(write(lines)); err != nil || b.Identity != a.Identity {
		t.Errorf("a copy has the identity %q, %v; want %q", b.Identity, err, a.Identity)
	}
	if b, err := Open(write(strings.Replace(lines, "6", "7", 1))); err != nil || b.Identity == a.Identity {
		t.Errorf("another trace has the same identity, %v", err)
	}
	for _, broken := range []string{lines + "x,1,2\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n", ""} {
		if b, err := Open(write(broken)); err == nil {
			t.Errorf("%q was opened: %+v", broken, b)
		}
	}
	if _, err := Open(filepath.Join(dir, "missing.csv")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// render writes events as a trace.
func render(events []Event) string {
	var b bytes.Buffer
	b.WriteString("TIMESTAMP,ContextTokens,GeneratedTokens\n")
	for _, e := range events {
		fmt.Fprintf(&b, "%s,%d,%d\n", e.At.Format("2006-01-02 15:04:05.000000000"), e.Input, e.Output)
	}
	return b.String()
}

// Whatever is read is within bounds, names its lines in order, and reads the same when it is written and read again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n", "\ufeffGeneratedTokens,ContextTokens,TIMESTAMP\n1,2,2023-11-16T18:17:03Z\n",
		"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1e9,-1\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n\"2023-11-16 18:17:03\n,1,1\n",
		"a,b\n1\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n9999-12-31 23:59:59.999999999+00:01,1,1\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		events, err := collect(t, text)
		for i, e := range events {
			if e.Input < 0 || e.Input > maxTokens || e.Output < 0 || e.Output > maxTokens || e.At.Year() < 1970 || e.At.Year() > 9999 || e.Line < 2 || i > 0 && e.Line <= events[i-1].Line {
				t.Fatalf("event %d: %+v", i, e)
			}
		}
		if err != nil {
			return
		}
		again, err := collect(t, render(events))
		if err != nil || len(again) != len(events) {
			t.Fatalf("written and read again: %d of %d events, %v", len(again), len(events), err)
		}
		for i := range again {
			if again[i].At != events[i].At || again[i].Input != events[i].Input || again[i].Output != events[i].Output {
				t.Fatalf("%+v was read again as %+v", events[i], again[i])
			}
		}
		if _, err := csv.NewReader(strings.NewReader(render(events))).ReadAll(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSyntheticHasTheShapeOfADay(t *testing.T) {
	const n = 20_000
	trace := Synthetic(7, n)
	var byHour [24]int
	var events []Event
	for e, err := range trace.read() {
		if err != nil {
			t.Fatal(err)
		}
		if e.At.Before(trace.First) || !e.At.Before(trace.Last) || e.Input < 1 || e.Output < 1 || e.Line != len(events)+1 || len(events) > 0 && e.At.Before(events[len(events)-1].At) {
			t.Fatalf("%+v", e)
		}
		byHour[e.At.Hour()]++
		events = append(events, e)
	}
	busiest, quietest := byHour[busyHour-1]+byHour[busyHour], byHour[2]+byHour[3]
	if len(events) != n || busiest < 4*quietest || quietest == 0 {
		t.Errorf("%d events, by hour %v", len(events), byHour)
	}
	again := []Event{}
	for e := range Synthetic(7, n).read() {
		again = append(again, e)
	}
	if !slices.Equal(again, events) {
		t.Error("the same seed gave another trace")
	}
	if other := Synthetic(8, n); other.Identity == trace.Identity {
		t.Error("another seed has the same identity")
	}
}
