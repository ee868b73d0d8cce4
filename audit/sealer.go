// Package audit seals the books and verifies them against seals: what is in the database against what was signed and kept outside of it.
package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/seal"
)

// Sealer makes seals. The zero one refuses to.
type Sealer struct {
	Key *seal.Key // nil: nothing can be sealed
	Dir string    // where a copy of every seal is put; "": nowhere
}

// OpenSealer reads the key from a file; "" makes a Sealer that refuses.
func OpenSealer(keyFile, dir string) (*Sealer, error) {
	s := &Sealer{Dir: dir}
	if keyFile == "" {
		return s, nil
	}
	b, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the key to seal with: %w", err)
	}
	if s.Key, err = seal.ReadKey(b); err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	return s, nil
}

// MakeKey makes a key in a file that only its owner can read, and returns it. It does not touch a file that is there: then the error wraps [fs.ErrExist].
func MakeKey(file string) (*seal.Key, error) {
	k, err := seal.NewKey()
	if err != nil {
		return nil, err
	}
	text, err := k.PEM()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := writeOnce(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return k, nil
}

// Seal seals what a period has, in the database and then in the directory; see [db.Store.SealPeriod]. Repeated after a failure it returns the same
// seal and writes the file that is missing. An Error coded no_sealing_key says that there is no key.
func (s *Sealer) Seal(ctx context.Context, store *db.Store, entity string, period ledger.Period, pack seal.Hash) (*seal.Seal, error) {
	if s == nil || s.Key == nil {
		return nil, credit.Errorf(credit.NoSealingKey, "This process has no key to seal with.")
	}
	sealed, err := store.SealPeriod(ctx, entity, period, pack, func(v *seal.Seal) { v.Sign(s.Key) })
	if err != nil {
		return nil, err
	}
	return sealed, s.keep(sealed)
}

// FileName is where in the directory a seal is kept.
func FileName(s *seal.Seal) string {
	return filepath.Join(s.Entity, fmt.Sprintf("%s.v%d.seal.json", s.Period, s.Version))
}

// keep writes the seal's file, once. A file that says something else is a fault: one of the two was changed.
func (s *Sealer) keep(v *seal.Seal) error {
	if s.Dir == "" {
		return nil
	}
	doc, err := v.JSON()
	if err != nil {
		return err
	}
	name := filepath.Join(s.Dir, FileName(v))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("keep the seal: %w", err)
	}
	err = writeOnce(name, doc, 0o444)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("keep the seal: %w", err)
	}
	if !bytes.Equal(there, doc) {
		return credit.Errorf(credit.SealBroken, "%s is there, and it is another seal.", FileName(v))
	}
	return nil
}

// writeOnce makes a file whole or not at all. It never replaces one: the error then wraps [fs.ErrExist].
func writeOnce(name string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close(), os.Chmod(f.Name(), mode)); err != nil {
		return err
	}
	if err := os.Link(f.Name(), name); err != nil { // unlike a rename it fails when the name is taken
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
