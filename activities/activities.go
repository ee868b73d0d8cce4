// Package activities is what workflows do to the world. Every activity may run twice: its idempotency key or its cause comes from the
// business, so the second run finds what the first one did.
package activities

import (
	"errors"

	"go.temporal.io/sdk/temporal"

	"github.com/tallystick/tallystick/audit"
	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/credit"
	"github.com/tallystick/tallystick/db"
)

// Activities are registered with a worker as one struct.
type Activities struct {
	Service   *balance.Service
	Store     *db.Store
	Sealer    *audit.Sealer // of closed periods; nil or without a key: nothing is sealed
	ExportDir string        // where the journals of closed periods are written; "": nowhere
}

// refusal makes of a *credit.Error one that is not retried and has the refusal's code as its type. Everything else, and refusals that say
// that the same call may succeed later, are retried.
func refusal(err error) error {
	var e *credit.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case credit.Overloaded, credit.NotExecuted, credit.OutcomeUnknown, credit.ClockSkew, credit.Internal:
		return err
	}
	return temporal.NewNonRetryableApplicationError(e.Detail, string(e.Code), nil)
}
