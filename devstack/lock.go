package devstack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const lockName = "lock"

// AlreadyRunning is the error of a [Start] in a directory in which another process runs a stack.
type AlreadyRunning struct {
	Dir  string            `json:"-"`
	Pid  int               `json:"pid"`  // of the process that started it
	URLs map[string]string `json:"urls"` // by name: database, redis, temporal, temporal-ui and what was announced; empty while it starts
}

func (e *AlreadyRunning) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "already running in %s as process %d", e.Dir, e.Pid)
	for _, name := range slices.Sorted(maps.Keys(e.URLs)) {
		fmt.Fprintf(&b, "\n  %-12s %s", name, e.URLs[name])
	}
	return b.String()
}

// dirLock holds a directory for this process. The kernel gives it free when the process ends, however it ends.
type dirLock struct {
	mu   sync.Mutex
	file *os.File
	info AlreadyRunning
}

// lockDir takes the lock of dir, or returns an *AlreadyRunning with what its holder has written there.
func lockDir(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		defer f.Close()
		return nil, readLock(dir, f)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	l := &dirLock{file: f, info: AlreadyRunning{Pid: os.Getpid(), URLs: map[string]string{}}}
	if err := l.write(nil); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// readLock reads who holds dir. The holder writes its line right after it has taken the lock, so a half-written one is
// read again for a moment.
func readLock(dir string, f *os.File) error {
	running := &AlreadyRunning{Dir: dir}
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		if err != nil {
			return fmt.Errorf("read the lock file: %w", err)
		}
		if json.Unmarshal(b, running) == nil && running.Pid != 0 {
			break
		}
	}
	return running
}

// write adds urls to what the lock file tells.
func (l *dirLock) write(urls map[string]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.Copy(l.info.URLs, urls)
	b, err := json.Marshal(l.info)
	if err != nil {
		return fmt.Errorf("encode the lock file: %w", err)
	}
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("write the lock file: %w", err)
	}
	if _, err := l.file.WriteAt(append(b, '\n'), 0); err != nil {
		return fmt.Errorf("write the lock file: %w", err)
	}
	return nil
}

func (l *dirLock) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("release the data directory: %w", err)
	}
	return nil
}
