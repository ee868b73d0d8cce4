package db

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// ReconcileOn makes the reconciliations within a transaction, so that a test can break something in it first.
func ReconcileOn(ctx context.Context, tx pgx.Tx, k CloseKey) ([]Reconciled, error) {
	return reconcile(ctx, tx, k, 0)
}
