package importer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/shopspring/decimal"
)

// checkpoint is how far an import is: the outcomes of the file's first events. It is written to a file now and then, after the refused events that belong to
// it, so that a process which is killed goes on from the one before.
type checkpoint struct {
	file    string
	state   state
	report  Report
	refused *os.File
	out     *bufio.Writer
	saved   time.Time
	noted   atomic.Int64 // report.Events, for who only looks
}

// state is the content of the file.
type state struct {
	File    string `json:"file"`    // its identity
	Refused int64  `json:"refused"` // bytes of the file of refused events
	Report  Report `json:"report"`
}

// saveEvery is how often it is written.
const saveEvery = time.Second

// openCheckpoint reads where an earlier attempt on the same file has left off. That of another file is an error.
func openCheckpoint(cfg Config) (*checkpoint, error) {
	k := &checkpoint{file: cfg.Checkpoint, report: newReport(), state: state{File: cfg.File.Identity}}
	b, err := os.ReadFile(cfg.Checkpoint)
	switch {
	case err == nil:
		was := state{Report: newReport()}
		if err := json.Unmarshal(b, &was); err != nil {
			return nil, fmt.Errorf("read %s: %w", cfg.Checkpoint, err)
		}
		if was.File != k.state.File {
			return nil, fmt.Errorf("%s is of another file: remove it, or name another one", cfg.Checkpoint)
		}
		k.state, k.report = was, was.Report
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("read %s: %w", cfg.Checkpoint, err)
	}
	k.noted.Store(k.report.Events)
	if k.refused, err = os.OpenFile(cfg.Refused, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, err
	}
	if err := k.refused.Truncate(k.state.Refused); err != nil { // what was written after the checkpoint comes again
		return nil, fmt.Errorf("cut %s: %w", cfg.Refused, err)
	}
	if _, err := k.refused.Seek(0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("write %s: %w", cfg.Refused, err)
	}
	k.out = bufio.NewWriterSize(k.refused, 64<<10)
	return k, nil
}

func (k *checkpoint) close() { _ = k.refused.Close() }

// note adds the outcomes of the batch that comes next.
func (k *checkpoint) note(b *batch) error {
	for i, o := range b.outcomes {
		k.report.Outcomes[o.Outcome]++
		switch o.Outcome {
		case "consumed", "duplicate":
			credits, err := decimal.NewFromString(o.Amount)
			if err != nil {
				return fmt.Errorf("read the amount of an outcome: %w", err)
			}
			k.report.Credits[o.Unit] = k.report.Credits[o.Unit].Add(credits)
			continue
		}
		code := ""
		switch {
		case o.Problem != nil:
			code = " " + o.Problem.Code
		case o.Quarantined != nil:
			code = " " + o.Quarantined.Code
		}
		k.report.Reasons[o.Outcome+code]++
		if o.Outcome == "quarantined" {
			continue // it is kept where it can be seen
		}
		line := struct {
			Event   int64           `json:"event"` // number in the file, from 1
			Sent    json.RawMessage `json:"sent,omitempty"`
			Text    string          `json:"text,omitempty"` // where it is no JSON
			Outcome json.RawMessage `json:"outcome"`
		}{Event: b.first + int64(i), Outcome: o.raw}
		if text := b.records[i].text; json.Valid(text) {
			line.Sent = text
		} else {
			line.Text = string(text)
		}
		doc, err := json.Marshal(line)
		if err != nil {
			return fmt.Errorf("write a refused event: %w", err)
		}
		doc = append(doc, '\n')
		if _, err := k.out.Write(doc); err != nil {
			return fmt.Errorf("write refused events: %w", err)
		}
		k.state.Refused += int64(len(doc))
	}
	k.report.Events += int64(len(b.outcomes))
	k.noted.Store(k.report.Events)
	if time.Since(k.saved) < saveEvery {
		return nil
	}
	return k.save()
}

// save writes the checkpoint in place of the one before.
func (k *checkpoint) save() error {
	if err := k.out.Flush(); err != nil {
		return fmt.Errorf("write refused events: %w", err)
	}
	k.state.Report = k.report
	b, err := json.MarshalIndent(k.state, "", "  ")
	if err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	next := filepath.Join(filepath.Dir(k.file), "."+filepath.Base(k.file)+".next")
	if err := os.WriteFile(next, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	if err := os.Rename(next, k.file); err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	k.saved = time.Now()
	return nil
}
