package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/recognition"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/export"
	"github.com/tallystick/tallystick/seal"
)

// closedSteps are run once after the period is locked, in order. They change nothing in the books.
var closedSteps = []closeStep{
	{CloseStep{db.StepSeal, "Number and seal the entries"}, (*Activities).sealPeriod},
	{CloseStep{db.StepExport, "Export the journal"}, (*Activities).exportPeriod},
	{CloseStep{db.StepPublish, "Publish the pack with its seal and manifest"}, (*Activities).publish},
}

// Reasons why a step after the lock was not done.
const (
	noKey       = "This process has no key to seal with."
	noDirectory = "No directory for exports is configured."
	reopened    = "The period was opened again before."
)

// sealFigures are the seal of a closed period.
type sealFigures struct {
	NotDone  string `json:"not_done,omitempty"` // why; "": it is sealed
	Root     string `json:"root,omitempty"`
	Size     int64  `json:"size"`           // entries under the root
	Version  int    `json:"version"`        // of the period's seals
	Number   int64  `json:"number"`         // of the entity's seals
	SealHash string `json:"seal,omitempty"` // that the entity's next seal names
	Pack     string `json:"pack_sha256,omitempty"`
	Key      string `json:"key_id,omitempty"`
}

// sealPeriod numbers what is booked in the period and seals it with the hash of the pack. Repeated it finds the same seal.
func (a *Activities) sealPeriod(ctx context.Context, in CloseRef) (db.StepResult, error) {
	c, stands, err := a.closed(ctx, in)
	switch {
	case err != nil:
		return db.StepResult{}, err
	case !stands:
		return db.StepResult{Figures: sealFigures{NotDone: reopened}}, nil
	case a.Sealer == nil || a.Sealer.Key == nil:
		return db.StepResult{Figures: sealFigures{NotDone: noKey}}, nil
	}
	pack, err := seal.ParseHash(c.PackHash)
	if err != nil {
		return db.StepResult{}, fmt.Errorf("read pack hash: %w", err)
	}
	s, err := a.Sealer.Seal(ctx, a.Store, in.Entity, in.Period, pack)
	if refusal := (*credit.Error)(nil); errors.As(err, &refusal) {
		return db.StepResult{Figures: sealFigures{}, Blocked: refusal.Detail}, nil
	}
	if err != nil {
		return db.StepResult{}, err
	}
	return db.StepResult{Figures: sealFigures{Root: s.Root.String(), Size: s.Size, Version: s.Version, Number: s.Number, SealHash: s.Hash().String(),
		Pack: s.Pack.String(), Key: s.KeyID}}, nil
}

// exportFigures are the files of a closed period.
type exportFigures struct {
	NotDone  string        `json:"not_done,omitempty"` // why; "": it is exported
	Folder   string        `json:"folder,omitempty"`   // in the directory of exports
	Manifest string        `json:"manifest_sha256,omitempty"`
	Entries  int64         `json:"entries"` // of the journal
	Debit    string        `json:"debit,omitempty"`
	Credit   string        `json:"credit,omitempty"`
	Files    []export.File `json:"files"`
}

// exported are the systems that a closed period is exported for: those that need no mapping.
var exported = []export.System{export.CSV, export.HLedger, export.Ledger, export.Beancount}

// exportFolder is the folder of a version of a period in the directory of exports.
func exportFolder(in CloseRef) string {
	return filepath.Join(in.Entity, string(in.Period), fmt.Sprintf("v%d", in.Version))
}

// exportPeriod writes the journal of the period into a folder of its own. Repeated it writes the same files.
func (a *Activities) exportPeriod(ctx context.Context, in CloseRef) (db.StepResult, error) {
	f := exportFigures{Files: []export.File{}}
	_, stands, err := a.closed(ctx, in)
	switch {
	case err != nil:
		return db.StepResult{}, err
	case !stands:
		f.NotDone = reopened
	case a.ExportDir == "":
		f.NotDone = noDirectory
	}
	if f.NotDone != "" {
		return db.StepResult{Figures: f}, nil
	}
	f.Folder = exportFolder(in)
	parameters := export.Parameters{LegalEntity: in.Entity, Period: in.Period, Systems: exported}
	m, sum, err := export.WriteFolder(filepath.Join(a.ExportDir, f.Folder), func(create func(string) (io.Writer, error)) (export.Manifest, error) {
		return a.Store.Export(ctx, parameters, create)
	})
	if refusal := (*credit.Error)(nil); errors.As(err, &refusal) {
		return db.StepResult{Figures: f, Blocked: refusal.Detail}, nil
	}
	if err != nil {
		return db.StepResult{}, err
	}
	f.Manifest, f.Entries, f.Debit, f.Credit = sum, m.Watermark.Entries, m.Totals.Debit, m.Totals.Credit
	for _, s := range m.Systems {
		f.Files = append(f.Files, s.Files...)
	}
	return db.StepResult{Figures: f}, nil
}

// publication is what holds of a closed period: the pack that was approved, its seal and its export.
type publication struct {
	Format   string        `json:"format"`
	Entity   string        `json:"legal_entity"`
	Period   string        `json:"period"`
	Version  int           `json:"version"`
	Pack     string        `json:"pack_sha256"`
	ClosedAt string        `json:"closed_at"`
	Seal     sealFigures   `json:"seal"`
	Export   exportFigures `json:"export"`
}

// publish names the seal and the manifest beside the pack, and puts both into the folder of the export, if there is one.
func (a *Activities) publish(ctx context.Context, in CloseRef) (db.StepResult, error) {
	c, err := a.Store.PeriodClose(ctx, in)
	if err != nil {
		return db.StepResult{}, err
	}
	p := publication{Format: "tallystick.close/1", Entity: in.Entity, Period: string(in.Period), Version: in.Version, Pack: c.PackHash,
		ClosedAt: c.ClosedAt.Format("2006-01-02T15:04:05.000000Z07:00")}
	rows, err := a.Store.Steps(ctx, in)
	if err != nil {
		return db.StepResult{}, err
	}
	for _, r := range rows {
		switch r.Step {
		case db.StepSeal:
			err = json.Unmarshal(r.Figures, &p.Seal)
		case db.StepExport:
			err = json.Unmarshal(r.Figures, &p.Export)
		}
		if err != nil {
			return db.StepResult{}, fmt.Errorf("read what %s has found: %w", r.Step, err)
		}
		if r.BlockedBy != "" && (r.Step == db.StepSeal || r.Step == db.StepExport) {
			return db.StepResult{Figures: p, Blocked: "It waits for the step " + r.Step + "."}, nil
		}
	}
	if p.Export.NotDone != "" {
		return db.StepResult{Figures: p}, nil
	}
	if a.ExportDir == "" { // another worker, which has one, has exported
		return db.StepResult{}, errors.New("the journal was exported, and this process has no directory for exports")
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return db.StepResult{}, fmt.Errorf("write publication: %w", err)
	}
	dir := filepath.Join(a.ExportDir, p.Export.Folder)
	return db.StepResult{Figures: p}, errors.Join(writeWhole(filepath.Join(dir, "pack.json"), c.Pack), writeWhole(filepath.Join(dir, "close.json"), append(text, '\n')))
}

// writeWhole makes a file that has its name only when it is whole.
func writeWhole(name string, b []byte) error {
	if err := os.WriteFile(name+".part", b, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".part", name)
}

// closed reads a close that has ended, and tells whether it is the newest one of a period that is closed still.
func (a *Activities) closed(ctx context.Context, in CloseRef) (c db.CloseRow, stands bool, err error) {
	if c, err = a.Store.PeriodClose(ctx, in); err != nil {
		return c, false, err
	}
	newest, err := a.Store.PeriodClose(ctx, CloseRef{Entity: in.Entity, Period: in.Period})
	return c, newest.Version == in.Version && newest.PeriodStatus == recognition.Closed, err
}
