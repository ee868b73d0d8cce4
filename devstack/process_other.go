//go:build !linux

package devstack

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// childAttr puts a child into a process group of its own, so that a Ctrl-C in the terminal is ours to handle. Nothing
// here ends it when we are killed: the next start in the same directory does.
func childAttr(user *dropUser, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: user.credential()}
}

// startBound starts cmd.
func startBound(cmd *exec.Cmd) error { return cmd.Start() }

// startTime tells processes with the same number apart: when pid started, to the second. It returns an error if there
// is no such process.
func startTime(pid int) (string, error) {
	out, err := exec.Command("ps", "-o", "stat=,lstart=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return "", fmt.Errorf("look up process %d: %w", pid, err)
	}
	state, began, found := strings.Cut(strings.TrimSpace(string(out)), " ")
	if !found || strings.HasPrefix(state, "Z") {
		return "", fmt.Errorf("look up process %d: it has ended", pid)
	}
	return strings.TrimSpace(began), nil
}

// commandLines are the command lines of all processes, by process id.
func commandLines() (map[int]string, error) {
	out, err := exec.Command("ps", "-axww", "-o", "pid=,command=").Output()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	lines := map[int]string{}
	for line := range strings.Lines(string(out)) {
		number, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pid, err := strconv.Atoi(number); err == nil {
			lines[pid] = strings.TrimSpace(command)
		}
	}
	return lines, nil
}
