package main

import (
	"context"
	"fmt"

	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

type unfreezeCmd struct {
	DatabaseURL string `required:"" name:"database-url" env:"DATABASE_URL" placeholder:"URL" help:"Postgres to work on."`
	Customer    string `arg:"" help:"Id of the customer."`
	Reason      string `required:"" help:"What was found, for the audit log."`
}

// Run lets a customer that the auditor froze move credits again.
func (c *unfreezeCmd) Run(ctx context.Context, env environ) error {
	id, err := credit.ParseID[credit.CustomerID](c.Customer)
	if err != nil {
		return err
	}
	store, err := db.Open(ctx, c.DatabaseURL, db.Options{MaxConns: 1})
	if err != nil {
		return err
	}
	defer store.Close()
	_, _, err = store.Change(ctx, db.Audited{Action: "unfreeze_customer", RequestID: credit.NewID[credit.RequestID]()}, func(ctx context.Context, cat *db.Catalog) (db.Outcome, error) {
		return db.Outcome{Status: 200, Answer: []byte("{}"), Subject: id.String(), Detail: map[string]string{"reason": c.Reason}}, cat.Unfreeze(ctx, id)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s moves again\n", id)
	return nil
}
