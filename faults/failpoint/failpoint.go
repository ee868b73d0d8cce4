// Package failpoint makes a process crash, freeze or dawdle at named steps of the balance protocol, and believe in a wrong time. It is linked
// into test builds only (build tag failpoints).
package failpoint

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tallystick/tallystick/balance"
)

// The environment variables of a test build.
const (
	EnvPoints = "TALLYSTICK_FAILPOINT"    // see [Parse]
	EnvClock  = "TALLYSTICK_CLOCK_OFFSET" // duration by which the process's clock is ahead, such as 5m or -5m
)

// Prefix begins the line on standard error that tells of a fail point that was hit: prefix, step, action.
const Prefix = "failpoint "

// Arm gives a service the fail points and the clock that the environment variables' values ask for. Empty ones ask for nothing.
func Arm(cfg *balance.Config, points, clock string) error {
	if points != "" {
		var err error
		if cfg.Failpoints, err = Parse(points); err != nil {
			return err
		}
	}
	if clock != "" {
		offset, err := time.ParseDuration(clock)
		if err != nil {
			return fmt.Errorf("read %s: %w", EnvClock, err)
		}
		cfg.Now = func() time.Time { return time.Now().Add(offset) }
	}
	return nil
}

// Parse reads what is to happen at which of [balance.Steps], and how probably: "committed=kill:0.02,locked=stop:1,sent=sleep(50ms):0.1".
// kill is SIGKILL and stop SIGSTOP to the process itself; sleep delays the step.
func Parse(text string) (map[string]func(), error) {
	points := make(map[string]func())
	for _, item := range strings.Split(text, ",") {
		step, rest, ok1 := strings.Cut(item, "=")
		action, chance, ok2 := strings.Cut(rest, ":")
		p, err := strconv.ParseFloat(chance, 64)
		if !ok1 || !ok2 || err != nil || !slices.Contains(balance.Steps, step) {
			return nil, fmt.Errorf("fail point %q is not of the form step=action:probability with one of the steps %v", item, balance.Steps)
		}
		act, err := parseAction(action)
		if err != nil {
			return nil, err
		}
		line := []byte(Prefix + step + " " + action + "\n")
		points[step] = func() {
			if rand.Float64() < p {
				_, _ = os.Stderr.Write(line)
				act()
			}
		}
	}
	return points, nil
}

func parseAction(action string) (func(), error) {
	switch pid := os.Getpid(); {
	case action == "kill":
		return func() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			select {} // the signal may reach another thread first
		}, nil
	case action == "stop":
		return func() { _ = syscall.Kill(pid, syscall.SIGSTOP) }, nil
	case strings.HasPrefix(action, "sleep(") && strings.HasSuffix(action, ")"):
		d, err := time.ParseDuration(action[len("sleep(") : len(action)-1])
		if err != nil {
			return nil, fmt.Errorf("fail point action %q: %w", action, err)
		}
		return func() { time.Sleep(d) }, nil
	}
	return nil, fmt.Errorf("fail point action %q is not kill, stop or sleep(duration)", action)
}
