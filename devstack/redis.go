package devstack

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startRedis starts Redis as a cache: nothing is written to disk, and a restart empties it.
func startRedis(ctx context.Context, st *Stack, bin string, extra []string, ports *picker) (*Server, error) {
	dir := filepath.Join(st.Dir, "redis")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of Redis: %w", err)
	}
	return startServer(ctx, st, "Redis", ports, []portField{redisPort}, func(p []int) (spec, error) {
		args := append([]string{
			"--port", strconv.Itoa(p[0]),
			"--bind", "127.0.0.1",
			"--dir", dir,
			"--daemonize", "no",
			"--save", "",
			"--appendonly", "no",
			"--maxmemory", "256mb",
			"--maxmemory-policy", "allkeys-lru",
		}, extra...)
		return spec{
			command:  func() *exec.Cmd { return command(dir, bin, args...) },
			orphaned: syscall.SIGKILL,
			probe: func(ctx context.Context, pid int) error {
				return probeRedis(ctx, p[0], pid)
			},
			stop:    []stopStep{{syscall.SIGTERM, 5 * time.Second}},
			stopNow: nil,
		}, nil
	})
}

// probeRedis returns nil if the Redis that answers on port is process pid.
func probeRedis(ctx context.Context, port, pid int) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return fmt.Errorf("connect to Redis: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return fmt.Errorf("limit the wait for Redis: %w", err)
		}
	}
	if _, err := conn.Write([]byte("INFO server\r\n")); err != nil {
		return fmt.Errorf("ask Redis who it is: %w", err)
	}
	for answer := bufio.NewScanner(conn); answer.Scan(); {
		line := answer.Text()
		if strings.HasPrefix(line, "-") {
			return fmt.Errorf("ask Redis who it is: %s", line[1:])
		}
		if has, found := strings.CutPrefix(line, "process_id:"); found {
			if has != strconv.Itoa(pid) {
				return fmt.Errorf("the Redis on port %d is another one, process %s", port, has)
			}
			return nil
		}
	}
	return fmt.Errorf("ask Redis who it is: the answer on port %d names no process", port)
}
