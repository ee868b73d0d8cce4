package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/tallystick/tallystick/devstack"
	"github.com/tallystick/tallystick/devstack/stacktest"
	"github.com/tallystick/tallystick/worker"
)

type devExecCmd struct {
	Servers     []string `default:"postgres,redis,temporal" enum:"postgres,redis,temporal" env:"TALLYSTICK_EXEC_SERVERS" help:"Which servers to start, of: postgres, redis, temporal."`
	TemporalBin string   `env:"TALLYSTICK_TEMPORAL_BIN" placeholder:"FILE" help:"Temporal CLI to run the server with."`
	Quiet       bool     `short:"q" help:"Say nothing about the servers unless one fails."`
	Command     []string `arg:"" passthrough:"" help:"Command and its arguments, after --."`
}

// Run starts the servers, runs the command with the variables of package stacktest set and the standard streams passed
// through, stops the servers and returns the command's status as an [exitCode]. A server whose variable is set already
// is not started.
func (c *devExecCmd) Run(ctx context.Context, env environ) error {
	args := c.Command
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("no command given: tallystick dev exec -- COMMAND [ARGUMENT ...]")
	}
	want := func(server, variable string) bool {
		return slices.Contains(c.Servers, server) && env.vars[variable] == ""
	}
	o := devstack.Options{
		Ephemeral:        true,
		Postgres:         want("postgres", stacktest.EnvDatabaseURL),
		Redis:            want("redis", stacktest.EnvRedisAddr),
		Temporal:         want("temporal", stacktest.EnvTemporalAddress),
		TemporalBin:      c.TemporalBin,
		SearchAttributes: worker.SearchAttributes(),
	}
	if !c.Quiet {
		o.Log = env.stderr
	}
	stack, err := devstack.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if stopErr := stack.Stop(stopCtx); stopErr != nil {
			fmt.Fprintln(env.stderr, "tallystick: stop the servers:", stopErr) // the command's status is what counts
		}
	}()
	go func() {
		if err := <-stack.Done(); err != nil {
			fmt.Fprintln(env.stderr, "tallystick:", err)
		}
	}()

	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = env.stdin, env.stdout, env.stderr
	for name, value := range env.vars {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	for _, v := range [][2]string{
		{stacktest.EnvDatabaseURL, stack.DatabaseURL},
		{stacktest.EnvRedisAddr, stack.RedisAddr},
		{stacktest.EnvTemporalAddress, stack.TemporalAddress},
		{stacktest.EnvTemporalNamespace, stack.TemporalNamespace},
	} {
		if v[1] != "" {
			cmd.Env = append(cmd.Env, v[0]+"="+v[1]) // the last one of a name wins
		}
	}
	return runCommand(ctx, cmd)
}

// runCommand runs cmd and returns nil or its status as an [exitCode]. When ctx ends, cmd and what it has started are
// asked to end, and killed ten seconds later.
func runCommand(ctx context.Context, cmd *exec.Cmd) error {
	// In the foreground of a terminal a Ctrl-C reaches the command directly. Anywhere else it leads a process group of
	// its own, by which we reach its children too.
	ownGroup := !inForeground()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: ownGroup}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Args[0], err)
	}
	signalCommand := func(sig syscall.Signal) {
		pid := cmd.Process.Pid
		if ownGroup {
			pid = -pid
		}
		syscall.Kill(pid, sig) // it may just have ended
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		if ownGroup {
			signalCommand(syscall.SIGTERM)
		}
		select {
		case err = <-ended:
		case <-time.After(10 * time.Second):
			signalCommand(syscall.SIGKILL)
			err = <-ended
		}
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return fmt.Errorf("run %s: %w", cmd.Args[0], err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitCode(128 + int(status.Signal())) // as a shell has it
	}
	return exitCode(exit.ExitCode())
}
