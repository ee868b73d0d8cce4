package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/devstack"
	"github.com/tallystick/tallystick/export"
)

type exportCmd struct {
	connectFlags

	Dir    string          `default:".tallystick" type:"path" placeholder:"DIR" help:"Data directory of a development stack, whose database is used where none is named."`
	Entity string          `required:"" placeholder:"CODE" help:"The legal entity."`
	Period string          `required:"" placeholder:"YYYY-MM" help:"The accounting period."`
	System []export.System `placeholder:"SYSTEM" help:"For which systems: csv, quickbooks_online, quickbooks_desktop, netsuite, xero, hledger, ledger, beancount. Without it those that need no mapping."`
	Detail export.Detail   `placeholder:"DETAIL" help:"How many entries of the journal become one: entry, grant_day or day. Without it the usual one of each system."`
	Out    string          `default:"export" type:"path" placeholder:"DIR" help:"Where the folder of the entity and period is made."`
}

// Run writes the files and a manifest into Out/entity/period. The files have their names only when all of them are whole and have passed
// the lint, and the manifest is the last of them.
func (c *exportCmd) Run(ctx context.Context, env environ) error {
	period, err := ledger.ParsePeriod(c.Period)
	if err != nil {
		return err
	}
	slices.Sort(c.System)
	if c.System = slices.Compact(c.System); len(c.System) == 0 {
		for _, s := range export.Systems {
			if !s.Mapped() {
				c.System = append(c.System, s)
			}
		}
	}
	if c.DatabaseURL == "" {
		running, err := devstack.Running(c.Dir)
		if err != nil {
			return err
		}
		if running != nil {
			c.DatabaseURL = running.URLs["database"]
		}
	}
	p, err := openProduct(ctx, "export", c.connectFlags, env.stderr)
	if err != nil {
		return err
	}
	defer p.close(ctx)
	dir := filepath.Join(c.Out, c.Entity, string(period))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of the export: %w", err)
	}
	parameters := export.Parameters{LegalEntity: c.Entity, Period: period, Systems: c.System, Detail: c.Detail}
	w := exportFolder{dir: dir, open: map[string]*os.File{}}
	defer w.discard()
	m, err := p.store.Export(ctx, parameters, w.create)
	if err != nil {
		return err
	}
	for _, s := range m.Systems {
		for _, f := range s.Files {
			if err := w.lint(s.System, &m, f.Name); err != nil {
				return err
			}
		}
	}
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := w.finish(append(manifest, '\n')); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s: %d entries, debit %s, credit %s %s; period %s\n", dir, m.Watermark.Entries, m.Totals.Debit, m.Totals.Credit, m.Currency, m.PeriodStatus)
	for _, s := range m.Systems {
		for _, f := range s.Files {
			fmt.Fprintf(env.stdout, "  %s  %s  %d rows\n", f.SHA256, f.Name, f.Rows)
		}
	}
	return nil
}

// exportFolder is the files of an export, which have the ending .part until they are whole.
type exportFolder struct {
	dir   string
	open  map[string]*os.File
	whole bool
}

const manifestFile = "manifest.json"

func (w *exportFolder) path(name string) string { return filepath.Join(w.dir, name) }

func (w *exportFolder) create(name string) (io.Writer, error) {
	f, err := os.Create(w.path(name) + ".part")
	if err == nil {
		w.open[name] = f
	}
	return f, err
}

// lint reads a file again that has a lint.
func (w *exportFolder) lint(s export.System, m *export.Manifest, name string) error {
	if s.Mapped() {
		return nil
	}
	f := w.open[name]
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read %s again: %w", name, err)
	}
	if err := export.Lint(s, export.Book{Entity: m.Parameters.LegalEntity, Currency: m.Currency, Period: m.Parameters.Period}, f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// finish gives the files their names, and writes the manifest.
func (w *exportFolder) finish(manifest []byte) error {
	if err := os.Remove(w.path(manifestFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the manifest before: %w", err)
	}
	for name, f := range w.open {
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := os.Rename(w.path(name)+".part", w.path(name)); err != nil {
			return fmt.Errorf("name %s: %w", name, err)
		}
	}
	w.whole = true
	if err := os.WriteFile(w.path(manifestFile), manifest, 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// discard removes what did not become whole.
func (w *exportFolder) discard() {
	if w.whole {
		return
	}
	for name, f := range w.open {
		f.Close()
		os.Remove(w.path(name) + ".part")
	}
}
