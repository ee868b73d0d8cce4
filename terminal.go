package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// inForeground reports whether this process is in the foreground group of the terminal on its standard input.
func inForeground() bool {
	group, err := unix.IoctlGetInt(int(os.Stdin.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// takeTerminal moves this process into a group of its own in the foreground of the terminal, so that a Ctrl-C reaches
// it and not the make that started it: make would report an interrupt, and exit with one, however orderly the end was.
// It does nothing without a terminal. giveBack undoes it. In between Ctrl-Z is ignored, because make would not pass on
// to the shell that its child has stopped.
func takeTerminal() (giveBack func()) {
	if !inForeground() {
		return func() {}
	}
	terminal, makes := int(os.Stdin.Fd()), unix.Getpgrp()
	if err := unix.Setpgid(0, 0); err != nil {
		return func() {}
	}
	signal.Ignore(syscall.SIGTSTP, syscall.SIGTTOU) // a background group may not take the terminal otherwise
	// On an error Ctrl-C still ends make, which then ends us.
	unix.IoctlSetPointerInt(terminal, unix.TIOCSPGRP, unix.Getpgrp())
	return func() {
		unix.IoctlSetPointerInt(terminal, unix.TIOCSPGRP, makes)
	}
}
