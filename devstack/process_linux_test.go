package devstack

import (
	"path/filepath"
	"testing"
	"time"
)

// A supervisor that is killed takes every process of its servers with it.
func TestNoOrphansAfterTheSupervisorIsKilled(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	if err := savePorts(dir, anyPorts(t)); err != nil {
		t.Fatal(err)
	}
	cmd, s := startSupervisor(t, dir)
	if len(s.Pids) != 3 {
		t.Fatalf("supervisor runs %v", s.Pids)
	}
	members := postgresMembers(filepath.Join(dir, "postgres"))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for name, pid := range s.Pids {
		eventually(t, name+" has ended", 10*time.Second, func() bool { return !alive(pid) })
	}
	eventually(t, "all backends have ended", 10*time.Second, func() bool {
		left, err := members()
		return err == nil && len(left) == 0
	})
}
