package main

import (
	"context"
	"fmt"
	"io"
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

// Run writes the files and a manifest into Out/entity/period.
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
	parameters := export.Parameters{LegalEntity: c.Entity, Period: period, Systems: c.System, Detail: c.Detail}
	m, _, err := export.WriteFolder(dir, func(create func(string) (io.Writer, error)) (export.Manifest, error) {
		return p.store.Export(ctx, parameters, create)
	})
	if err != nil {
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
