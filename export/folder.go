package export

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ManifestFile is the name of the manifest in the folder of an export.
const ManifestFile = "manifest.json"

// WriteFolder makes an export in a folder, which is made if need be. write makes the files by the function that it is given, and returns what they
// are. They get their names only when all of them are whole and those have passed the lint that have one, and the manifest is the last of them: a
// folder without one is not finished. What an earlier export left under these names is replaced. sum is the SHA-256 of the manifest, in hexadecimal.
func WriteFolder(dir string, write func(create func(name string) (io.Writer, error)) (Manifest, error)) (m Manifest, sum string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return m, "", fmt.Errorf("make the folder of the export: %w", err)
	}
	f := folder{dir: dir, open: map[string]*os.File{}}
	defer f.discard()
	if m, err = write(f.create); err != nil {
		return m, "", err
	}
	for _, s := range m.Systems {
		for _, file := range s.Files {
			if err := f.lint(s.System, &m, file.Name); err != nil {
				return m, "", err
			}
		}
	}
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, "", fmt.Errorf("write manifest: %w", err)
	}
	manifest = append(manifest, '\n')
	digest := sha256.Sum256(manifest)
	return m, hex.EncodeToString(digest[:]), f.finish(manifest)
}

// folder is the files of an export, which have the ending .part until they are whole.
type folder struct {
	dir   string
	open  map[string]*os.File
	whole bool
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) create(name string) (io.Writer, error) {
	file, err := os.Create(f.path(name) + ".part")
	if err == nil {
		f.open[name] = file
	}
	return file, err
}

// lint reads a file again that has a lint.
func (f *folder) lint(s System, m *Manifest, name string) error {
	if s.Mapped() {
		return nil
	}
	file := f.open[name]
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read %s again: %w", name, err)
	}
	if err := Lint(s, Book{Entity: m.Parameters.LegalEntity, Currency: m.Currency, Period: m.Parameters.Period}, file); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// finish gives the files their names, and writes the manifest.
func (f *folder) finish(manifest []byte) error {
	if err := os.Remove(f.path(ManifestFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the manifest before: %w", err)
	}
	for name, file := range f.open {
		if err := errors.Join(file.Sync(), file.Close()); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := os.Rename(f.path(name)+".part", f.path(name)); err != nil {
			return fmt.Errorf("name %s: %w", name, err)
		}
	}
	f.whole = true
	if err := os.WriteFile(f.path(ManifestFile), manifest, 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// discard removes what did not become whole.
func (f *folder) discard() {
	if f.whole {
		return
	}
	for name, file := range f.open {
		file.Close()
		os.Remove(f.path(name) + ".part")
	}
}
