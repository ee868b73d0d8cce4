package devstack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

// childAttr puts a child into a process group of its own, so that a Ctrl-C in the terminal is ours to handle, and has
// the kernel send it the signal orphaned when we end, however that happens.
func childAttr(user *dropUser, orphaned syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: user.credential(), Pdeathsig: orphaned}
}

// bound runs functions on one operating system thread that lives as long as the process: the kernel sends a child's
// death signal when the thread that started it ends, not when the process does.
var bound = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// startBound starts cmd so that it ends with this process.
func startBound(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	bound() <- func() { result <- cmd.Start() }
	return <-result
}

// startTime tells processes with the same number apart: clock ticks since boot at which pid started. It returns an
// error if there is no such process, or only its unread exit status.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("look up process %d: %w", pid, err)
	}
	// The second field is the name in parentheses, which may hold anything; state is the third field, start time the 22nd.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 || bytes.Equal(fields[0], []byte("Z")) {
		return "", fmt.Errorf("look up process %d: it has ended", pid)
	}
	return string(fields[19]), nil
}

// commandLines are the command lines of all processes, by process id, with arguments separated by blanks.
func commandLines() (map[int]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	lines := map[int]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // ended in between
		}
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
		if len(b) > 0 { // kernel threads and zombies have none
			lines[pid] = string(bytes.TrimRight(bytes.ReplaceAll(b, []byte{0}, []byte{' '}), " "))
		}
	}
	return lines, nil
}
