package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/tallystick/tallystick/db"
)

type migrateCmd struct {
	DatabaseURL string `required:"" name:"database-url" env:"DATABASE_URL" placeholder:"URL" help:"Postgres to migrate, as a role that may create tables and roles."`
}

// Run brings the schema up to this release.
func (c *migrateCmd) Run(ctx context.Context, env environ) error {
	n, err := db.Migrate(ctx, c.DatabaseURL, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%d migrations run; the schema is that of this release\n", n)
	return nil
}
