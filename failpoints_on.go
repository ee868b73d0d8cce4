//go:build failpoints

package main

import (
	"os"

	"github.com/tallystick/tallystick/balance"
	"github.com/tallystick/tallystick/faults/failpoint"
)

// armFailpoints has the process crash where the environment says, for tests.
func armFailpoints(cfg *balance.Config) error {
	return failpoint.Arm(cfg, os.Getenv(failpoint.EnvPoints), os.Getenv(failpoint.EnvClock))
}
