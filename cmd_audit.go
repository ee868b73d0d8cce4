package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/credit/ledger"
	"github.com/tallystick/tallystick/db"
	"github.com/tallystick/tallystick/devstack"
	"github.com/tallystick/tallystick/seal"
)

type auditCmd struct {
	Verify auditVerifyCmd `cmd:"" help:"Compute the hash of every journal entry of a period and hold them against a seal; ends with status 1 when anything differs."`
	Prove  auditProveCmd  `cmd:"" help:"Print the proof that a journal entry was sealed as it stands."`
	Check  auditCheckCmd  `cmd:"" help:"Check a proof without a database; ends with status 1 when it proves nothing."`
	Key    auditKeyCmd    `cmd:"" help:"Make a key to seal with, and print its id."`
}

// sealFlags say what seals are made with, and where they are kept besides the database.
type sealFlags struct {
	SealKey string `type:"path" env:"TALLYSTICK_SEAL_KEY" placeholder:"FILE" help:"Ed25519 key that seals of accounting periods are signed with; without one nothing can be sealed."`
	SealDir string `type:"path" env:"TALLYSTICK_SEAL_DIR" placeholder:"DIR" help:"Where a copy of every seal is written, once: a place that those who can change the database cannot change."`
}

// auditDatabase says where the books are.
type auditDatabase struct {
	DatabaseURL string `name:"database-url" env:"DATABASE_URL" placeholder:"URL" help:"Postgres to read."`
	Dir         string `default:".tallystick" type:"path" placeholder:"DIR" help:"Data directory of a development stack, whose Postgres is used where none is named."`
}

func (f auditDatabase) open(ctx context.Context) (*db.Store, error) {
	if f.DatabaseURL == "" {
		running, err := devstack.Running(f.Dir)
		if err != nil {
			return nil, err
		}
		if running != nil {
			f.DatabaseURL = running.URLs["database"]
		}
	}
	if f.DatabaseURL == "" {
		return nil, errors.New("no Postgres is named: give --database-url, or set DATABASE_URL")
	}
	return db.Open(ctx, f.DatabaseURL, db.Options{MaxConns: 1})
}

type auditVerifyCmd struct {
	auditDatabase

	Entity string   `required:"" placeholder:"CODE" help:"Legal entity."`
	Period string   `required:"" placeholder:"PERIOD" help:"Accounting period, such as 2026-01."`
	Seal   string   `xor:"against" type:"path" placeholder:"FILE" help:"Seal as it was kept outside the database."`
	Root   string   `xor:"against" placeholder:"HEX" help:"Root as it was kept outside the database."`
	Key    []string `placeholder:"ID" help:"Id of a key that may have signed; repeated for several, without it any key may."`
	First  int      `default:"10" placeholder:"N" help:"Entries that are named."`
}

// Run verifies, prints the report and ends with status 1 when anything differs.
func (c *auditVerifyCmd) Run(ctx context.Context, env environ) error {
	o := audit.Options{Entity: c.Entity, Trusted: c.Key, First: c.First}
	var err error
	if o.Period, err = ledger.ParsePeriod(c.Period); err != nil {
		return err
	}
	if c.Seal != "" {
		b, err := os.ReadFile(c.Seal)
		if err != nil {
			return fmt.Errorf("read the seal: %w", err)
		}
		if o.Seal, err = seal.Read(b); err != nil {
			return err
		}
	}
	if c.Root != "" {
		if o.Root, err = seal.ParseHash(c.Root); err != nil {
			return err
		}
	}
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	report, err := audit.Verify(ctx, store, o)
	if err != nil {
		return err
	}
	if _, err := report.WriteTo(env.stdout); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	if !report.Clean() {
		return exitCode(1)
	}
	return nil
}

type auditProveCmd struct {
	auditDatabase

	Entry string `required:"" placeholder:"ID" help:"Id of the journal entry."`
}

// Run prints the proof as a document.
func (c *auditProveCmd) Run(ctx context.Context, env environ) error {
	id, err := credit.ParseID[credit.EntryID](c.Entry)
	if err != nil {
		return err
	}
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	proof, err := store.ProveEntry(ctx, id)
	if err != nil {
		return err
	}
	doc, err := proof.JSON()
	if err != nil {
		return err
	}
	_, err = env.stdout.Write(doc)
	return err
}

type auditCheckCmd struct {
	Proof string   `arg:"" type:"path" help:"Proof, as audit prove or the API gave it."`
	Root  string   `placeholder:"HEX" help:"Root of the seal, as it was kept. Without it the seal in the proof is believed, if one of the keys has signed it."`
	Key   []string `placeholder:"ID" help:"Id of a key that may have signed the seal; repeated for several."`
}

// Run checks the proof with what is in it and what the caller knows.
func (c *auditCheckCmd) Run(env environ) error {
	var root seal.Hash
	var err error
	switch {
	case c.Root != "":
		if root, err = seal.ParseHash(c.Root); err != nil {
			return err
		}
	case len(c.Key) == 0:
		return errors.New("give what you know: the root of the seal with --root, or the id of the key with --key")
	}
	b, err := os.ReadFile(c.Proof)
	if err != nil {
		return fmt.Errorf("read the proof: %w", err)
	}
	proof, err := seal.ReadProof(b)
	if err != nil {
		return err
	}
	e, err := proof.Check(root, c.Key)
	if err != nil {
		fmt.Fprintf(env.stdout, "NOT PROVED: %v\n", err)
		return exitCode(1)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "proved: entry %d of %d in %s of %s\n\n%s %s\n%s, posted %s\n", proof.Index+1, proof.Seal.Size, e.Period, e.Entity, e.Kind, e.ID, e.Day, e.PostedAt.Format(time.RFC3339Nano))
	fmt.Fprintf(&text, "%s\n", e.Cause)
	for _, p := range e.Postings {
		fmt.Fprintf(&text, "  %s %s %14s %s", p.Side, p.Account, p.Money, p.Money.Currency)
		if p.Product+p.Model != "" {
			fmt.Fprintf(&text, "  %s/%s", p.Product, p.Model)
		}
		text.WriteByte('\n')
	}
	_, err = env.stdout.Write([]byte(text.String()))
	return err
}

type auditKeyCmd struct {
	File string `arg:"" type:"path" help:"Where the key is put. A file that is there is left alone."`
}

// Run makes the key.
func (c *auditKeyCmd) Run(env environ) error {
	k, err := audit.MakeKey(c.File)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "key %s is in %s\n", k.ID(), c.File)
	return nil
}
